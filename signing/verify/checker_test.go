package verify_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/worker"
)

func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(map[string]worker.Program{verify.WorkerName: verify.Program}))
	}
	os.Exit(m.Run())
}

func newChecker(t *testing.T, o verify.CheckerOptions) *verify.Checker {
	t.Helper()
	c := verify.NewChecker(o)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// openDocument is a document with a file, as the archive has them.
type openDocument struct {
	file *os.File
	size int64
}

func (d openDocument) ReadAt(b []byte, off int64) (int, error) { return d.file.ReadAt(b, off) }
func (d openDocument) File() *os.File                          { return d.file }
func (d openDocument) Size() int64                             { return d.size }

func TestChildGivesTheSameReportAndASecondOpinion(t *testing.T) {
	ec, rs := authority(), rsaAuthority()
	c := newChecker(t, verify.CheckerOptions{})
	now := time.Now()
	once := seal(t, contract(), sealOf(rs))
	for name, test := range map[string]struct {
		doc     []byte
		opinion verify.OpinionVerdict
	}{
		"RSA":                                {once, verify.OpinionValid},
		"P-256 stamped":                      {seal(t, contract(), sealOf(ec).stamped(ec)), verify.OpinionValid},
		"RSA SHA-384":                        {seal(t, contract(), sealing{key: rs.Signer.Key, chain: rs.Signer.Chain(), hash: crypto.SHA384}), verify.OpinionValid},
		"RSA SHA-512":                        {seal(t, contract(), sealing{key: rs.Signer.Key, chain: rs.Signer.Chain(), hash: crypto.SHA512}.stamped(rs)), verify.OpinionValid},
		"P-256 SHA-384":                      {seal(t, contract(), sealing{key: ec.Signer.Key, chain: ec.Signer.Chain(), hash: crypto.SHA384}), verify.OpinionValid},
		"P-256 SHA-512":                      {seal(t, contract(), sealing{key: ec.Signer.Key, chain: ec.Signer.Chain(), hash: crypto.SHA512}), verify.OpinionValid},
		"P-384 SHA-256":                      {seal(t, contract(), onCurve(t, ec, elliptic.P384())), verify.OpinionValid},
		"P-521 SHA-256":                      {seal(t, contract(), onCurve(t, ec, elliptic.P521())), verify.OpinionValid},
		"two signatures":                     {seal(t, once, sealOf(ec)), verify.OpinionValid},
		"RSA-PSS":                            {seal(t, contract(), sealing{key: rs.Signer.Key, chain: rs.Signer.Chain(), pss: true}), verify.OpinionNotApplicable},
		"B-LTA":                              {archived(t, seal(t, once, sealOf(ec).stamped(ec)), ec), verify.OpinionValid},
		"B-LTA, changed":                     {bytes.Replace(archived(t, once, ec), []byte("Pay 100"), []byte("Pay 900"), 1), verify.OpinionInvalid},
		"sealed after a document time-stamp": {seal(t, archived(t, once, ec), sealOf(ec)), verify.OpinionNotApplicable},
		"changed text":                       {bytes.Replace(once, []byte("Pay 100"), []byte("Pay 900"), 1), verify.OpinionInvalid},
		"unsigned":                           {contract(), verify.OpinionNotApplicable},
		"not a PDF":                          {[]byte("hello"), verify.OpinionNotApplicable},
	} {
		t.Run(name, func(t *testing.T) {
			o := trust(ec, rs)
			o.Now = now
			got, err := c.Check(t.Context(), bytes.NewReader(test.doc), o)
			if err != nil {
				t.Fatal(err)
			}
			if got.SecondOpinion == nil || got.SecondOpinion.Verdict != test.opinion {
				t.Errorf("second opinion %+v, want %q", got.SecondOpinion, test.opinion)
			}
			got.SecondOpinion = nil
			if diff := cmp.Diff(asJSON(t, check(t, test.doc, o)), asJSON(t, got)); diff != "" {
				t.Errorf("report (-in this process +of the child):\n%s", diff)
			}
		})
	}
}

func onCurve(t *testing.T, a *pki.Authority, c elliptic.Curve) sealing {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.IssueSigner(key.Public(), a.Signer.Certificate.Subject)
	if err != nil {
		t.Fatal(err)
	}
	return sealing{key: key, chain: chain}
}

func asJSON(t *testing.T, r *verify.Report) string {
	t.Helper()
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDocumentWithAFileIsReadFromIt(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a))
	path := filepath.Join(t.TempDir(), "contract.pdf")
	if err := os.WriteFile(path, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	r, err := newChecker(t, verify.CheckerOptions{}).Check(t.Context(), openDocument{file, int64(len(sealed))}, trust(a))
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, verify.Valid, "")
}

// TestWhatIsKnownOfARehearsalIsNotHashedAgain has the child told how a document begins.
func TestWhatIsKnownOfARehearsalIsNotHashedAgain(t *testing.T) {
	a, rs := authority(), rsaAuthority()
	c := newChecker(t, verify.CheckerOptions{})
	known := func(doc []byte) *verify.Known {
		state, err := pades.Behind(t.Context(), bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		return &verify.Known{Size: int64(len(doc)), SHA256: state}
	}
	once := seal(t, contract(), sealOf(a))
	changed := bytes.Replace(once, []byte("Pay 100"), []byte("Pay 900"), 1)
	for name, test := range map[string]struct {
		doc, known []byte
		want       verify.Verdict
	}{
		"the original":                         {once, contract(), verify.Valid},
		"another document":                     {once, changed[:len(contract())], verify.Invalid},
		"the original of one that changed":     {changed, contract(), verify.Valid},
		"a sealed file, which is not all":      {changed, changed, verify.Invalid},
		"more than there is":                   {changed, append(slices.Clone(changed), ' '), verify.Invalid},
		"what a second seal was staged on":     {seal(t, once, sealOf(rs)), once, verify.Valid},
		"the same, of SHA-384":                 {seal(t, contract(), sealing{key: rs.Signer.Key, chain: rs.Signer.Chain(), hash: crypto.SHA384}), contract(), verify.Valid},
		"SHA-384 over a document that changed": {bytes.Replace(seal(t, contract(), sealing{key: rs.Signer.Key, chain: rs.Signer.Chain(), hash: crypto.SHA384}), []byte("Pay 100"), []byte("Pay 900"), 1), contract(), verify.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			o := trust(a, rs)
			o.Known = known(test.known)
			got, err := c.Verify(t.Context(), bytes.NewReader(test.doc), o)
			if err != nil {
				t.Fatal(err)
			}
			if got.Verdict != test.want {
				t.Errorf("%s, want %s", explain(got), test.want)
			}
		})
	}
	o := trust(a)
	o.Known = &verify.Known{Size: 10, SHA256: []byte("no state")}
	if r, err := c.Verify(t.Context(), bytes.NewReader(once), o); err == nil {
		t.Errorf("a state that is none gives a report: %s", explain(r))
	}
}

// TestTheSecondReaderMayBeAskedBeforeOurOwn changes the file after the answer: what was asked is not asked again, our own reader finds the change all the
// same, and a question that turns out to be another one is asked again.
func TestTheSecondReaderMayBeAskedBeforeOurOwn(t *testing.T) {
	a := authority()
	c := newChecker(t, verify.CheckerOptions{})
	c.Wake()
	sealed := seal(t, contract(), sealOf(a).stamped(a))
	whole := archived(t, sealed, a)
	for name, test := range map[string]struct {
		rehearsal []byte
		opinion   verify.OpinionVerdict // of what is there afterwards
	}{
		"the same question":     {sealed, verify.OpinionValid},
		"another question":      {seal(t, sealed, sealOf(a)), verify.OpinionInvalid},
		"nothing could be said": {contract(), verify.OpinionInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = file.Close() }()
			write := func(doc []byte) openDocument {
				if _, err := file.WriteAt(doc, 0); err != nil {
					t.Fatal(err)
				}
				return openDocument{file, int64(len(doc))}
			}
			asked := c.Ask(t.Context(), write(test.rehearsal), check(t, test.rehearsal, trust(a)))
			if _, err := c.CheckAsked(t.Context(), write(sealed), trust(a), asked); err != nil { // it has answered then
				t.Fatal(err)
			}
			r, err := c.CheckAsked(t.Context(), write(bytes.Replace(whole, []byte("Pay 100"), []byte("Pay 900"), 1)), trust(a), asked)
			if err != nil {
				t.Fatal(err)
			}
			want(t, r, verify.Invalid, verify.CodeDigest)
			if r.SecondOpinion == nil || r.SecondOpinion.Verdict != test.opinion {
				t.Errorf("second opinion %+v, want %q", r.SecondOpinion, test.opinion)
			}
		})
	}
}

// TestTheSecondReaderIsNotAskedInVain: behind evidence that is not covered by a time-stamp, as of level B-LT, the question is about more than what the
// rehearsal had, and would be asked again.
func TestTheSecondReaderIsNotAskedInVain(t *testing.T) {
	a := authority()
	c := newChecker(t, verify.CheckerOptions{})
	sealed := seal(t, contract(), sealOf(a))
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	rehearsal := check(t, sealed, trust(a))
	if c.Ask(t.Context(), openDocument{file, int64(len(sealed))}, rehearsal) == nil {
		t.Error("what there is to ask is not asked")
	}
	if c.Ask(t.Context(), openDocument{file, int64(len(sealed)) + 1}, rehearsal) != nil {
		t.Error("what is asked is not the question")
	}
}

// TestCrashOfTheSecondReaderIsOnlyRecorded seals a document in which an object stream, used by nobody, contains itself: it overflows the stack of the
// second reader, which looks at every object.
func TestCrashOfTheSecondReaderIsOnlyRecorded(t *testing.T) {
	a := authority()
	sealed := seal(t, selfContaining(), sealOf(a))
	c := newChecker(t, verify.CheckerOptions{})
	for range 2 { // the next document finds both readers working
		r, err := c.Check(t.Context(), bytes.NewReader(sealed), trust(a))
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, verify.Valid, "")
		if r.SecondOpinion.Verdict != verify.OpinionCrashed {
			t.Errorf("second opinion %+v", r.SecondOpinion)
		}
	}
	r, err := c.Check(t.Context(), bytes.NewReader(seal(t, contract(), sealOf(a))), trust(a))
	if err != nil {
		t.Fatal(err)
	}
	if r.SecondOpinion.Verdict != verify.OpinionValid {
		t.Errorf("second opinion after the crashes: %+v", r.SecondOpinion)
	}
}

func selfContaining() []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n")
	offsets := make([]int, 5)
	for i, o := range []string{
		"<< /Type /Catalog /Pages 2 0 R >>",
		"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
		"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>",
	} {
		offsets[i+1] = b.Len()
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	start := b.Len()
	records := []byte{0, 0, 0, 0}
	for i := 1; i <= 3; i++ {
		records = append(records, 1, byte(offsets[i]>>8), byte(offsets[i]), 0)
	}
	records = append(records, 2, 0, 4, 0)                        // object 4 is in object stream 4
	records = append(records, 1, byte(start>>8), byte(start), 0) // object 5 is this stream
	fmt.Fprintf(&b, "5 0 obj\n<< /Type /XRef /W [1 2 1] /Size 6 /Root 1 0 R /Length %d >>\nstream\n%s\nendstream\nendobj\nstartxref\n%d\n%%%%EOF\n", len(records), records, start)
	return b.Bytes()
}

func TestSecondReaderThatIsTooSlowIsOnlyRecorded(t *testing.T) {
	a := authority()
	c := newChecker(t, verify.CheckerOptions{OpinionTimeout: time.Nanosecond})
	r, err := c.Check(t.Context(), bytes.NewReader(seal(t, contract(), sealOf(a))), trust(a))
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, verify.Valid, "")
	if r.SecondOpinion.Verdict != verify.OpinionTimedOut {
		t.Errorf("second opinion %+v", r.SecondOpinion)
	}
}

func TestOwnReaderThatIsTooSlowIsAnError(t *testing.T) {
	c := newChecker(t, verify.CheckerOptions{Timeout: time.Nanosecond})
	_, err := c.Check(t.Context(), bytes.NewReader(contract()), verify.Options{})
	var late *worker.DeadlineError
	if !errors.As(err, &late) {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableDocumentIsAnError(t *testing.T) {
	c := newChecker(t, verify.CheckerOptions{})
	if r, err := c.Check(t.Context(), brokenDisk{}, verify.Options{}); !errors.Is(err, errDisk) {
		t.Errorf("got %v, %v", r, err)
	}
	if r, err := verify.Verify(t.Context(), brokenDisk{}, verify.Options{}); !errors.Is(err, errDisk) {
		t.Errorf("got %v, %v", r, err)
	}
}

var errDisk = errors.New("input/output error")

type brokenDisk struct{}

func (brokenDisk) ReadAt([]byte, int64) (int, error) { return 0, errDisk }
func (brokenDisk) Size() int64                       { return 4096 }
