package engine

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/softkey"
	"github.com/dealseal/dealseal/signing/verify"
)

// house is the house's key store with its one key. It counts what the key signs, and fails when it is told to: a soft key
// stands in the place of the HSM, which is another process.
type house struct {
	*softkey.Key
	master secret.Secret

	mu      sync.Mutex
	signed  [][]byte // digests, in the order of use
	refusal error
	refuse  int // uses that still fail with refusal
}

func newHouse(t *testing.T, a *pki.Authority) *house {
	t.Helper()
	key, err := softkey.Generate(softkey.P256)
	must(t, err)
	chain, err := a.IssueSigner(key.Public(), sealSubject)
	must(t, err)
	key, err = key.WithChain(chain)
	must(t, err)
	return &house{Key: key, master: newMaster()}
}

func (h *house) Open(context.Context, string) (signing.Key, error) { return h, nil }
func (h *house) Close() error                                      { return nil }

func (h *house) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse > 0 {
		h.refuse--
		return nil, h.refusal
	}
	h.signed = append(h.signed, bytes.Clone(digest))
	return h.Key.Sign(random, digest, opts)
}

// fail makes the next n uses fail.
func (h *house) fail(n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse, h.refusal = n, err
}

func (h *house) uses() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.signed)
}

// checker reads documents in this process, where the product has a child for it.
type checker struct {
	w       *world
	opinion *verify.Opinion // of the second reader
	// distrust makes rehearsals read as if nobody vouched for them.
	distrust bool
}

func (c *checker) Check(ctx context.Context, doc pades.Document) (*verify.Report, error) {
	report, err := verify.Verify(ctx, doc, verify.Options{Roots: []*x509.Certificate{c.w.authority.Root.Certificate}, Now: c.w.now()})
	if err == nil {
		report.SecondOpinion = c.opinion
	}
	return report, err
}

func (c *checker) CheckRehearsal(ctx context.Context, doc pades.Document, root *x509.Certificate) (*verify.Report, error) {
	if c.distrust {
		root = c.w.authority.Root.Certificate
	}
	return verify.Verify(ctx, doc, verify.Options{Roots: []*x509.Certificate{root}, Now: c.w.now()})
}

// renderer returns a document that differs with its record and has the bundle's signature box, where the product has a
// child that lays it out.
type renderer struct{}

func (renderer) Render(_ context.Context, b *documents.Bundle, record []byte) (documents.Output, error) {
	if err := b.Validate(record); err != nil {
		return documents.Output{}, err
	}
	sum := sha256.Sum256(record)
	box := ""
	if s := sealBox(b); s != nil {
		box = s.Name
	}
	return documents.Output{PDF: document(box, int(binary.BigEndian.Uint32(sum[:]))), Key: hex.EncodeToString(sum[:])}, nil
}

// document is a PDF of one page, with an empty signature field if box names one.
func document(box string, n int) []byte {
	text := fmt.Sprintf("BT /F1 18 Tf 72 720 Td (Quotation %d) Tj ET", n)
	objects := []string{
		"<< /Type /Catalog /Pages 2 0 R >>",
		"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
		"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
		fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(text), text),
		"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
	}
	if box != "" {
		objects[0] = "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [6 0 R] /SigFlags 1 >> >>"
		objects[2] = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> /Annots [6 0 R] >>"
		objects = append(objects, fmt.Sprintf("<< /Type /Annot /Subtype /Widget /FT /Sig /T (%s) /P 3 0 R /Rect [72 72 300 140] /F 4 >>", box))
	}
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	var offsets []int
	for i, o := range objects {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, start)
	return b.Bytes()
}

// downError is a key store that asks to be left alone for a while.
type downError struct{ wait time.Duration }

func (e *downError) Error() string             { return "the key store does not answer" }
func (e *downError) RetryAfter() time.Duration { return e.wait }

// brittle is a ledger whose disk fails the first time that each intent and each entry is committed: before the commit, or
// after it, so that nobody is told.
type brittle struct {
	Ledger
	after   bool
	failure error

	mu     sync.Mutex
	struck map[string]bool
}

func (b *brittle) Begin(ctx context.Context, s *deal.Sealing, i deal.Intent) error {
	return b.commit("begin "+i.What, func() error { return b.Ledger.Begin(ctx, s, i) })
}

func (b *brittle) Advance(ctx context.Context, s *deal.Sealing, e deal.Entry) error {
	return b.commit("advance "+e.What, func() error { return b.Ledger.Advance(ctx, s, e) })
}

func (b *brittle) commit(name string, do func() error) error {
	if !b.strikes(name) {
		return do()
	}
	if b.after {
		if err := do(); err != nil {
			return err
		}
	}
	return b.failure
}

func (b *brittle) strikes(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.struck[name] {
		return false
	}
	if b.struck == nil {
		b.struck = map[string]bool{}
	}
	b.struck[name] = true
	return true
}
