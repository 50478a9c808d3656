package verify_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// contract is a document of two pages with a text field, an empty signature field and an annotation.
func contract() []byte { return assemble(contractObjects()) }

// contractObjects are the objects from number 1 on.
func contractObjects() []string {
	text := "BT /F1 24 Tf 72 700 Td (Pay 100 EUR) Tj ET"
	return []string{
		"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [8 0 R 9 0 R 12 0 R] /DA (/F1 0 Tf) >> /Metadata 11 0 R >>",
		"<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 >>",
		"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 6 0 R >> >> /Contents 5 0 R /Annots [8 0 R 9 0 R 10 0 R] >>",
		"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 6 0 R >> >> /Contents 5 0 R >>",
		fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(text), text),
		"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
		"<< /Title (Contract) /ModDate (D:20260101000000Z) >>",
		"<< /Type /Annot /Subtype /Widget /FT /Tx /T (amount) /V (100) /Rect [72 600 200 620] /P 3 0 R >>",
		"<< /Type /Annot /Subtype /Widget /FT /Sig /T (seal) /Rect [72 500 272 560] /P 3 0 R /F 132 >>",
		"<< /Type /Annot /Subtype /Text /Contents (hello) /Rect [10 10 20 20] >>",
		"<< /Type /Metadata /Subtype /XML /Length 4 >>\nstream\n<x/>\nendstream",
		"<< /FT /Tx /T (nowhere on a page) /V (1) >>",
	}
}

// assemble makes a document of objects. What is hidden stands behind them, and no table leads to it.
func assemble(objects []string, hidden ...string) []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	offsets := make([]int, len(objects))
	for i, o := range objects {
		offsets[i] = b.Len()
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	for _, h := range hidden {
		b.WriteString(h)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R /Info 7 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, start)
	return b.Bytes()
}

// authority is one PKI for all tests that do not change its state.
var authority = sync.OnceValue(func() *pki.Authority { return mustAuthority(pki.Options{}) })

var rsaAuthority = sync.OnceValue(func() *pki.Authority { return mustAuthority(pki.Options{Algorithm: pki.RSA2048}) })

func mustAuthority(o pki.Options) *pki.Authority {
	a, err := pki.New(o)
	if err != nil {
		panic(err)
	}
	return a
}

func trust(as ...*pki.Authority) verify.Options {
	var o verify.Options
	for _, a := range as {
		o.Roots = append(o.Roots, a.Root.Certificate)
	}
	return o
}

// sealing says how seal makes a signature.
type sealing struct {
	key   crypto.Signer
	chain []*x509.Certificate
	token func(value []byte) ([]byte, error) // nil: level B-B
	field string
	pss   bool
	hash  crypto.Hash
	level int // of a certification; 0: none
}

func sealOf(a *pki.Authority) sealing {
	return sealing{key: a.Signer.Key, chain: a.Signer.Chain()}
}

// stamped adds a time-stamp of an authority.
func (s sealing) stamped(a *pki.Authority) sealing {
	s.token = func(value []byte) ([]byte, error) {
		sum := sha256.Sum256(value)
		return a.Token(sum[:], crypto.SHA256)
	}
	return s
}

// seal signs a document with the product's own writer.
func seal(t testing.TB, doc []byte, s sealing) []byte {
	t.Helper()
	o := pades.Options{
		Level: pades.BB, Field: s.field, Chain: s.chain, Hash: s.hash, PSS: s.pss,
		Name: "Acme Ltd", Reason: "Contract", Location: "Paris", Time: time.Now().Truncate(time.Second), Certify: s.level,
	}
	if s.token != nil {
		o.Level = pades.BT
	}
	p, err := pades.Prepare(t.Context(), bytes.NewReader(doc), o)
	if err != nil {
		t.Fatal(err)
	}
	value, err := s.key.Sign(rand.Reader, p.Digest, p.Algorithm.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	var token []byte
	if s.token != nil {
		if token, err = s.token(value); err != nil {
			t.Fatal(err)
		}
	}
	tail, _, err := p.Embed(value, token)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(doc, tail)
}

func check(t testing.TB, doc []byte, o verify.Options) *verify.Report {
	t.Helper()
	r, err := verify.Verify(t.Context(), bytes.NewReader(doc), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// want checks the verdict of the document and that of its first signature, and that a code is among the reasons.
func want(t *testing.T, r *verify.Report, verdict verify.Verdict, code verify.Code) {
	t.Helper()
	if r.Verdict != verdict {
		t.Errorf("verdict %s, want %s", r.Verdict, verdict)
	}
	if code != "" && !slices.Contains(codes(r), code) {
		t.Errorf("reason %q is missing", code)
	}
	if t.Failed() {
		t.Log(explain(r))
	}
}

func codes(r *verify.Report) []verify.Code {
	var list []verify.Code
	for _, reason := range r.Reasons {
		list = append(list, reason.Code)
	}
	for _, s := range r.Signatures {
		for _, reason := range s.Reasons {
			list = append(list, reason.Code)
		}
	}
	return list
}

func explain(r *verify.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v\n", r.Verdict, r.Reasons)
	for _, s := range r.Signatures {
		fmt.Fprintf(&b, "%q revision %d %s level %q: %v\n", s.Field, s.Revision, s.Verdict, s.Level, s.Reasons)
	}
	return b.String()
}

// update appends an incremental update to a document.
func update(t testing.TB, doc []byte, change func(f *pdf.File, u *pdf.Update)) []byte {
	t.Helper()
	f, err := pdf.Open(bytes.NewReader(doc), int64(len(doc)))
	if err != nil {
		t.Fatal(err)
	}
	u := f.Update()
	change(f, u)
	tail, err := u.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(doc, tail)
}

// object returns a copy of an object that is a dictionary.
func object(t testing.TB, f *pdf.File, ref pdf.Ref) *pdf.Dict {
	t.Helper()
	d, err := f.ResolveDict(ref)
	if err != nil || d == nil {
		t.Fatalf("object %v: %v", ref, err)
	}
	return d.Clone()
}

// signBy signs by hand, so that signatures can be had that the product's writer does not make. cms gets the covered bytes. Entries that have /Contents
// keep it, and the hole is at a key of another name.
func signBy(t testing.TB, doc []byte, entries *pdf.Dict, cms func(covered []byte) []byte) []byte {
	t.Helper()
	contents := &pdf.Placeholder{Text: []byte("<" + strings.Repeat("0", 16384) + ">")}
	byteRange := &pdf.Placeholder{Text: []byte("[" + strings.Repeat(" ", 60) + "]")}
	signed := update(t, doc, func(f *pdf.File, u *pdf.Update) {
		ref, catalog, err := f.Catalog()
		if err != nil {
			t.Fatal(err)
		}
		form, err := f.ResolveDict(catalog.Get("AcroForm"))
		if err != nil {
			t.Fatal(err)
		}
		field, value := u.Alloc(), u.Alloc()
		d := entries.Clone()
		var rect any = pdf.RectOf([4]float64{})
		if d.Has("Rect") { // that of the field
			rect = d.Get("Rect")
			d.Delete("Rect")
			page := object(t, f, pdf.Ref{Num: 3})
			page.Set("Annots", append(slices.Clone(page.Get("Annots").(pdf.Array)), field))
			u.Put(pdf.Ref{Num: 3}, page)
		}
		d.Set("Type", pdf.Name("Sig"))
		d.Set("Filter", pdf.Name("Adobe.PPKLite"))
		d.Set("ByteRange", byteRange)
		if d.Has("Contents") { // the value goes elsewhere
			d.Set("Other", contents)
		} else {
			d.Set("Contents", contents)
		}
		u.Put(value, d)
		u.Put(field, pdf.D("FT", pdf.Name("Sig"), "T", pdf.TextString("by hand"), "V", value, "Type", pdf.Name("Annot"), "Subtype", pdf.Name("Widget"), "Rect", rect, "F", 132))
		form = form.Clone()
		fields, _ := form.Get("Fields").(pdf.Array)
		form.Set("Fields", append(slices.Clone(fields), field))
		form.Set("SigFlags", 3)
		catalog = catalog.Clone()
		catalog.Set("AcroForm", form)
		u.Put(ref, catalog)
	})
	before, after := contents.Offset, contents.Offset+int64(len(contents.Text))
	numbers := "0 " + strconv.FormatInt(before, 10) + " " + strconv.FormatInt(after, 10) + " " + strconv.FormatInt(int64(len(signed))-after, 10)
	copy(signed[byteRange.Offset+1:], numbers)
	value := cms(slices.Concat(signed[:before], signed[after:]))
	if len(value) > 8192 {
		t.Fatalf("a CMS of %d bytes does not fit", len(value))
	}
	copy(signed[before+1:], fmt.Sprintf("%x", value))
	return signed
}
