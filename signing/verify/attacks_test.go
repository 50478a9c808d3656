package verify_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/verify"
)

// attack is a document that claims more than was signed.
type attack struct {
	name    string
	doc     []byte
	verdict verify.Verdict // of the signature that is attacked
	code    verify.Code
}

// judgeAttacks makes sure that no attack passes, that the signature which was attacked does not pass by itself either, and that both say why.
func judgeAttacks(t *testing.T, a *pki.Authority, attacks []attack) {
	t.Helper()
	for _, c := range attacks {
		t.Run(c.name, func(t *testing.T) {
			r := check(t, c.doc, trust(a))
			verdict, list := r.Verdict, codes(r)
			if len(r.Signatures) > 0 {
				verdict = r.Signatures[0].Verdict
			}
			if r.Verdict == verify.Valid || r.Indication == verify.TotalPassed || r.SubIndication == "" {
				t.Errorf("the document is %s/%s %s", r.Verdict, r.Indication, r.SubIndication)
			}
			if verdict != c.verdict || !slices.Contains(list, c.code) {
				t.Errorf("the signature is %s %v, want %s %s", verdict, list, c.verdict, c.code)
			}
			if t.Failed() {
				t.Log(explain(r))
			}
		})
	}
}

// swapped replaces a text by another of the same length, padded with spaces, so that nothing else moves.
func swapped(t testing.TB, doc []byte, old, with string) []byte {
	t.Helper()
	at := bytes.LastIndex(doc, []byte(old))
	if at < 0 || len(with) > len(old) {
		t.Fatalf("%q cannot be replaced by %q", old, with)
	}
	out := bytes.Clone(doc)
	copy(out[at:], with+strings.Repeat(" ", len(old)-len(with)))
	return out
}

// TestUniversalSignatureForgery takes away what a signature is checked with, in the hope that a reader checks nothing then.
func TestUniversalSignatureForgery(t *testing.T) {
	a := authority()
	doc := seal(t, contract(), sealOf(a))
	s := check(t, doc, trust(a)).Signatures[0]
	hole := string(doc[s.ByteRange[1]:s.ByteRange[2]])
	from := bytes.LastIndex(doc, []byte("/ByteRange"))
	list := string(doc[from : from+bytes.IndexByte(doc[from:], '/')+bytes.IndexByte(doc[from+1:], '/')+1])
	numbers := func(format string, args ...any) []byte {
		return swapped(t, doc, list, "/ByteRange "+fmt.Sprintf(format, args...))
	}
	h, r, n := s.ByteRange[1], s.ByteRange[2], s.ByteRange[3]
	var attacks []attack
	add := func(name string, doc []byte, code verify.Code) {
		attacks = append(attacks, attack{name, doc, verify.Invalid, code})
	}
	for name, forged := range map[string][]byte{
		"ByteRange missing":                swapped(t, doc, list, ""),
		"ByteRange under another name":     swapped(t, doc, "/ByteRange", "/ByteRangf"),
		"ByteRange null":                   numbers("null"),
		"ByteRange empty":                  numbers("[]"),
		"ByteRange a string":               numbers("(0 1)"),
		"ByteRange a reference to nothing": numbers("999 0 R"),
		"ByteRange of zeros":               numbers("[0 0 0 0]"),
		"ByteRange of two numbers":         numbers("[0 %d]", h),
		"ByteRange of three numbers":       numbers("[0 %d %d]", h, r),
		"ByteRange of six numbers":         numbers("[0 9 9 %d %d %d]", h-9, r, n),
		"ByteRange with a third part":      numbers("[0 %d %d %d 0 9]", h, r, n),
		"ByteRange negative":               numbers("[0 %d %d -%d]", h, r, n),
		"ByteRange begins at -1":           numbers("[-1 %d %d %d]", h, r, n),
		"ByteRange overlaps":               numbers("[0 %d %d %d]", r, h, n),
		"ByteRange leaves nothing out":     numbers("[0 %d %d %d]", r, r, n),
		"ByteRange ends behind the file":   numbers("[0 %d %d %d]", h, r, n+1),
		"ByteRange with a fraction":        numbers("[0 %d.5 %d %d]", h, r, n),
		"ByteRange with null":              numbers("[0 null %d %d]", r, n),
		"ByteRange begins late":            numbers("[9 %d %d %d]", h-9, r, n),
		"ByteRange begins late, same hole": numbers("[9 %d %d %d]", h, r, n),
		"Contents missing":                 swapped(t, doc, "/Contents "+hole, ""),
		"Contents under another name":      swapped(t, doc, "/Contents <", "/Contentz <"),
		"Contents null":                    swapped(t, doc, hole, "null"),
		"Contents empty":                   swapped(t, doc, hole, "<>"),
		"Contents one zero byte":           swapped(t, doc, hole, "<00>"),
		"Contents a text":                  swapped(t, doc, hole, "()"),
		"Contents a reference":             swapped(t, doc, hole, "1 0 R"),
		"Contents zeros":                   swapped(t, doc, hole, "<"+strings.Repeat("0", len(hole)-2)+">"),
	} {
		code := verify.CodeByteRange
		if name == "Contents zeros" {
			code = verify.CodeMalformedCMS
		}
		add(name, forged, code)
	}
	for _, forged := range attacks {
		if bytes.Equal(forged.doc, doc) {
			t.Fatalf("%s: nothing was forged", forged.name)
		}
	}
	judgeAttacks(t, a, attacks)
}

// TestSignatureWrapping moves the second part of what is signed to the end of the file, and puts a document of the attacker's between: the bytes that are
// hashed are the signed ones, and what is shown is not.
func TestSignatureWrapping(t *testing.T) {
	a := authority()
	doc := seal(t, contract(), sealOf(a))
	s := check(t, doc, trust(a)).Signatures[0]
	judgeAttacks(t, a, []attack{
		{"moved second part, hole over the attacker's document", wrap(t, doc, s.ByteRange, true), verify.Invalid, verify.CodeByteRange},
		{"moved second part, hole as it was", wrap(t, doc, s.ByteRange, false), verify.Invalid, verify.CodeByteRange},
		{"second Contents in the same dictionary", swapped(t, doc, "/Reason (Contract)", "/Contents <00>"), verify.Invalid, verify.CodeMalformedPDF},
	})
}

// TestSignaturesThatPointBack puts into a later update what an older revision has signed: a second signature for the price of
// one, or one that says something else of itself.
func TestSignaturesThatPointBack(t *testing.T) {
	a := authority()
	doc := seal(t, contract(), sealOf(a))
	f, err := pdf.Open(bytes.NewReader(doc), int64(len(doc)))
	if err != nil {
		t.Fatal(err)
	}
	fields, err := f.Fields()
	if err != nil {
		t.Fatal(err)
	}
	field := fields[len(fields)-1]
	value := field.Value.(pdf.Ref)
	again := func(name string, change func(*pdf.Dict)) []byte { // with a field of that name that has the value
		return update(t, doc, func(f *pdf.File, u *pdf.Update) {
			d, ref := object(t, f, value), value
			if change != nil {
				ref = u.Alloc()
				change(d)
				u.Put(ref, d)
			}
			if name == field.Name {
				own := object(t, f, field.Ref)
				own.Set("V", ref)
				u.Put(field.Ref, own)
				return
			}
			other := u.Alloc()
			u.Put(other, pdf.D("FT", pdf.Name("Sig"), "T", pdf.TextString(name), "V", ref))
			at, catalog, err := f.Catalog()
			if err != nil {
				t.Fatal(err)
			}
			form, err := f.ResolveDict(catalog.Get("AcroForm"))
			if err != nil {
				t.Fatal(err)
			}
			list, err := f.ResolveArray(form.Get("Fields"))
			if err != nil {
				t.Fatal(err)
			}
			form, catalog = form.Clone(), catalog.Clone()
			form.Set("Fields", append(slices.Clone(list), other))
			catalog.Set("AcroForm", form)
			u.Put(at, catalog)
		})
	}
	otherwise := func(d *pdf.Dict) {
		list := slices.Clone(d.Get("ByteRange").(pdf.Array))
		list[0] = pdf.Raw("00")
		d.Set("ByteRange", list)
	}
	for name, doc := range map[string][]byte{
		"a second field with the same value":      again("Approval", nil),
		"a second field with a copy of it":        again("Approval", func(d *pdf.Dict) { d.Set("Reason", pdf.TextString("Approved")) }),
		"its ByteRange written otherwise":         again(field.Name, otherwise),
		"a second field, its ByteRange otherwise": again("Approval", otherwise),
	} {
		t.Run(name, func(t *testing.T) {
			r := check(t, doc, trust(a))
			i := slices.IndexFunc(r.Signatures, func(s verify.Signature) bool {
				return s.Verdict == verify.Invalid && slices.ContainsFunc(s.Reasons, func(r verify.Reason) bool { return r.Code == verify.CodeByteRange })
			})
			if r.Verdict != verify.Invalid || i < 0 {
				t.Errorf("%s\n%s", r.Verdict, explain(r))
			}
		})
	}
}

// wrap builds P1 | Contents | attacker's objects and table | P2.
func wrap(t testing.TB, doc []byte, r []int64, wide bool) []byte {
	t.Helper()
	head, tail := doc[:r[2]], doc[r[2]:]
	start := bytes.LastIndex(tail, []byte("startxref"))
	var table int
	if _, err := fmt.Sscanf(string(tail[start:]), "startxref\n%d", &table); err != nil {
		t.Fatal(err)
	}
	f, err := pdf.Open(bytes.NewReader(doc), int64(len(doc)))
	if err != nil {
		t.Fatal(err)
	}
	fields, err := f.Fields()
	if err != nil {
		t.Fatal(err)
	}
	value := fields[len(fields)-1].Value.(pdf.Ref)
	var b bytes.Buffer
	b.Write(head)
	// The old startxref has to find a table where it points to, so that there is room for the attacker's objects before it or behind it.
	for b.Len() < table {
		b.WriteByte('\n')
	}
	if b.Len() != table {
		t.Fatalf("the table is at %d, in the middle of what is left", table)
	}
	trailer := fmt.Sprintf("trailer\n<< /Size 99 /Root 1 0 R /Prev %d >>\nstartxref\n%d\n%%%%EOF\n", firstTable(t, doc), table)
	text := "BT /F1 24 Tf 72 700 Td (Pay 900 EUR) Tj ET"
	objects := map[int]func(resume int) string{
		1:  func(int) string { return strings.Replace(contractObjects()[0], "/Fields [", "/Fields [97 0 R ", 1) },
		5:  func(int) string { return fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(text), text) },
		97: func(int) string { return fmt.Sprintf("<< /FT /Sig /T (Seal1) /V %d 0 R >>", value.Num) },
		value.Num: func(resume int) string {
			return fmt.Sprintf("<< /Type /Sig /Filter /Adobe.PPKLite /SubFilter /ETSI.CAdES.detached /ByteRange [0 %d %10d %d] /Contents %s >>", r[1], resume, len(tail), doc[r[1]:r[2]])
		},
	}
	rows, body := "xref\n", ""
	write := func(at, resume int) {
		rows, body = "xref\n", ""
		for num, object := range objects {
			rows += fmt.Sprintf("%d 1\n%010d 00000 n \n", num, at+len(body))
			body += fmt.Sprintf("%d 0 obj\n%s\nendobj\n", num, object(resume))
		}
	}
	write(0, 0) // for the lengths
	at, end := table+len(rows)+len(trailer), table+len(rows)+len(trailer)+len(body)
	if wide {
		write(at, end)
	} else {
		write(at, int(r[2]))
	}
	b.WriteString(rows + trailer + body)
	b.Write(tail)
	return b.Bytes()
}

// firstTable is where the cross-reference table of the first revision begins.
func firstTable(t testing.TB, doc []byte) int {
	t.Helper()
	at := bytes.Index(doc, []byte("\nxref\n"))
	if at < 0 {
		t.Fatal("no table")
	}
	return at + 1
}

// TestIncrementalSaving appends what a reader shows, in well-formed updates and in some that only lenient readers take.
func TestIncrementalSaving(t *testing.T) {
	a := authority()
	doc := seal(t, contract(), sealOf(a))
	text := "BT /F1 24 Tf 72 700 Td (Pay 900 EUR) Tj ET"
	body := fmt.Sprintf("5 0 obj\n<< /Length %d >>\nstream\n%s\nendstream\nendobj\n", len(text), text)
	page := func(_ *pdf.File, u *pdf.Update) { u.PutStream(pdf.Ref{Num: 5}, new(pdf.Dict), []byte(text)) }
	signature := func(f *pdf.File, u *pdf.Update) { // the signature itself once more, so that the newest update has one
		fields, err := f.Fields()
		if err != nil {
			t.Fatal(err)
		}
		value := fields[len(fields)-1].Value.(pdf.Ref)
		u.Put(value, object(t, f, value))
		page(f, u)
	}
	at := bytes.LastIndex(doc, []byte("startxref"))
	judgeAttacks(t, a, []attack{
		{"an update", update(t, doc, page), verify.Invalid, verify.CodeContentChanged},
		{"an update with the signature cloned", update(t, doc, signature), verify.Invalid, verify.CodeContentChanged},
		{"an update and another that is empty", update(t, update(t, doc, page), func(*pdf.File, *pdf.Update) {}), verify.Invalid, verify.CodeContentChanged},
		{"a body without table and trailer", slices.Concat(doc, []byte(body)), verify.Valid, verify.CodeTrailingData},
		{"a body and the old end again", slices.Concat(doc, []byte(body), doc[at:]), verify.Valid, verify.CodeTrailingData},
		{"a body and a trailer without table", slices.Concat(doc, []byte(body), []byte("trailer\n<< /Root 1 0 R /Size 20 >>\nstartxref\n0\n%%EOF\n")), verify.Invalid, verify.CodeMalformedPDF},
	})
}

// Objects of twoFaces beside those of the contract.
const (
	coverNum    = 13 // an object over the text of the page
	hiddenNum   = 14 // a page that is in no tree
	danglingNum = 98 // what the page names and nobody has defined
)

// twoFaces is a contract that an attacker has prepared before it is signed: a cover lies over a text on its page, a page of other content is in the file
// and in no tree, and the page names an object that is not there.
func twoFaces() []byte {
	objects := contractObjects()
	objects[2] = strings.Replace(objects[2], "/Resources <<", fmt.Sprintf("/Resources << /XObject << /Cover %d 0 R /Later %d 0 R >>", coverNum, danglingNum), 1)
	objects = append(objects,
		"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Length 24 >>\nstream\n1 1 1 rg 0 0 600 800 re f\nendstream",
		"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 6 0 R >> >> /Contents 15 0 R >>",
		"<< /Length 18 >>\nstream\nBT (900 EUR) Tj ET\nendstream")
	return assemble(objects, otherFace)
}

// otherFace is another object of the number of the page's content.
const otherFace = "5 0 obj\n<< /Length 42 >>\nstream\nBT /F1 24 Tf 72 700 Td (Pay 900 EUR) Tj ET\nendstream\nendobj\n"

// tableOnly appends an update that has no objects, only a table that puts an object where other bytes are, or nowhere.
func tableOnly(t testing.TB, doc []byte, num int, text string) []byte {
	t.Helper()
	row := "0000000000 00001 f \n"
	if text != "" {
		at := bytes.Index(doc, []byte(text))
		if at < 0 {
			t.Fatalf("there is no %q", text)
		}
		row = fmt.Sprintf("%010d 00000 n \n", at)
	}
	f, err := pdf.Open(bytes.NewReader(doc), int64(len(doc)))
	if err != nil {
		t.Fatal(err)
	}
	revisions := f.Revisions()
	return fmt.Appendf(bytes.Clone(doc), "xref\n%d 1\n%strailer\n<< /Size 99 /Root 1 0 R /Info 7 0 R /Prev %d >>\nstartxref\n%d\n%%%%EOF\n",
		num, row, revisions[len(revisions)-1].XRef, len(doc))
}

// TestShadows attacks documents that hold two faces from the start. What an update does to show the other one is small.
func TestShadows(t *testing.T) {
	a := authority()
	doc := seal(t, twoFaces(), sealOf(a))
	want(t, check(t, doc, trust(a)), verify.Valid, "")
	put := func(num int, key pdf.Name, value any) func(*pdf.File, *pdf.Update) {
		return func(f *pdf.File, u *pdf.Update) {
			d := object(t, f, pdf.Ref{Num: num})
			d.Set(key, value)
			u.Put(pdf.Ref{Num: num}, d)
		}
	}
	judgeAttacks(t, a, []attack{
		{"hide: the cover is freed", tableOnly(t, doc, coverNum, ""), verify.Invalid, verify.CodeContentChanged},
		{"hide: the cover is made transparent", update(t, doc, func(_ *pdf.File, u *pdf.Update) {
			u.PutStream(pdf.Ref{Num: coverNum}, pdf.D("Type", pdf.Name("XObject"), "Subtype", pdf.Name("Form"), "BBox", pdf.RectOf([4]float64{0, 0, 600, 800})), nil)
		}), verify.Invalid, verify.CodeContentChanged},
		{"hide: the cover has the same content and another place", update(t, doc, func(_ *pdf.File, u *pdf.Update) {
			u.PutStream(pdf.Ref{Num: coverNum}, pdf.D("Type", pdf.Name("XObject"), "Subtype", pdf.Name("Form"), "BBox", pdf.RectOf([4]float64{0, 0, 1, 1})), []byte("1 1 1 rg 0 0 600 800 re "))
		}), verify.Invalid, verify.CodeContentChanged},
		{"hide: a layer is switched off", update(t, doc, put(1, "OCProperties", pdf.D("OCGs", pdf.Array{}, "D", pdf.D("BaseState", pdf.Name("OFF"))))), verify.Invalid, verify.CodeContentChanged},
		{"hide: an object that the page names comes into being", update(t, doc, func(_ *pdf.File, u *pdf.Update) {
			u.PutStream(pdf.Ref{Num: danglingNum}, pdf.D("Type", pdf.Name("XObject"), "Subtype", pdf.Name("Form"), "BBox", pdf.RectOf([4]float64{0, 0, 600, 800})), []byte("0 0 600 800 re f"))
		}), verify.Invalid, verify.CodeContentChanged},
		{"replace: a font", update(t, doc, put(6, "BaseFont", pdf.Name("Evil"))), verify.Invalid, verify.CodeContentChanged},
		{"replace: the value of a form field", update(t, doc, put(8, "V", pdf.TextString("900"))), verify.Indeterminate, verify.CodeChangedAfterwards},
		{"replace: how a form field looks", update(t, doc, func(f *pdf.File, u *pdf.Update) {
			ref := u.Alloc()
			u.PutStream(ref, pdf.D("Subtype", pdf.Name("Form"), "BBox", pdf.RectOf([4]float64{0, 0, 128, 20})), []byte("BT (900) Tj ET"))
			put(8, "AP", pdf.D("N", ref))(f, u)
		}), verify.Indeterminate, verify.CodeChangedAfterwards},
		{"replace: the resources of the form", update(t, doc, func(f *pdf.File, u *pdf.Update) {
			ref, c, err := f.Catalog()
			if err != nil {
				t.Fatal(err)
			}
			form, err := f.ResolveDict(c.Get("AcroForm"))
			if err != nil {
				t.Fatal(err)
			}
			form, c = form.Clone(), c.Clone()
			form.Set("DR", pdf.D("Font", pdf.D("Helv", pdf.D("Type", pdf.Name("Font")))))
			c.Set("AcroForm", form)
			u.Put(ref, c)
		}), verify.Indeterminate, verify.CodeChangedAfterwards},
		{"hide and replace: the table leads to the other content", tableOnly(t, doc, 5, otherFace), verify.Invalid, verify.CodeContentChanged},
		{"hide and replace: another tree of pages", update(t, doc, func(f *pdf.File, u *pdf.Update) {
			ref := u.Alloc()
			u.Put(ref, pdf.D("Type", pdf.Name("Pages"), "Count", 1, "Kids", pdf.Array{pdf.Ref{Num: hiddenNum}}))
			put(1, "Pages", ref)(f, u)
		}), verify.Invalid, verify.CodeContentChanged},
	})
}

// certified is a contract whose first signature certifies it.
func certified(t testing.TB, a *pki.Authority, level int) []byte {
	s := sealOf(a)
	s.level = level
	return seal(t, contract(), s)
}

// annotate puts an annotation on the first page.
func annotate(t testing.TB, doc []byte, annotation *pdf.Dict) []byte {
	t.Helper()
	return update(t, doc, func(f *pdf.File, u *pdf.Update) {
		ref := u.Alloc()
		annotation = annotation.Clone()
		annotation.Set("Type", pdf.Name("Annot"))
		annotation.Set("Rect", pdf.RectOf([4]float64{0, 0, 600, 800}))
		u.Put(ref, annotation)
		page := object(t, f, pdf.Ref{Num: 3})
		page.Set("Annots", append(slices.Clone(page.Get("Annots").(pdf.Array)), ref))
		u.Put(pdf.Ref{Num: 3}, page)
	})
}

// disguise makes the last field of the form, a signature, an annotation of another kind.
func disguise(t testing.TB, doc []byte, key pdf.Name, value any) []byte {
	t.Helper()
	return update(t, doc, func(f *pdf.File, u *pdf.Update) {
		fields, err := f.Fields()
		if err != nil {
			t.Fatal(err)
		}
		ref := fields[len(fields)-1].Ref
		d := object(t, f, ref)
		d.Set(key, value)
		u.Put(ref, d)
	})
}

// TestCertificationAttacks does on certified documents what the certification seems to permit. The attacker has a certificate that is trusted.
func TestCertificationAttacks(t *testing.T) {
	a := authority()
	// Our own writer puts no box on a certified document.
	boxed := func(doc []byte, rect ...any) []byte {
		entries := baselineEntries()
		entries.Set("Rect", pdf.Array(rect))
		return signBy(t, doc, entries, handmade{id: a.Signer}.sign(t))
	}
	over := func(doc []byte) []byte { return boxed(doc, 0, 0, 600, 780) }
	small := func(doc []byte) []byte { return boxed(doc, 400, 40, 500, 80) }
	freeText := pdf.D("Subtype", pdf.Name("FreeText"), "Contents", pdf.TextString("Pay 900 EUR"))
	icon := pdf.D("Subtype", pdf.Name("Text"), "AP", pdf.D("N", pdf.Ref{Num: 5}))
	gone := func(f *pdf.File, u *pdf.Update) {
		page := object(t, f, pdf.Ref{Num: 3})
		page.Set("Annots", page.Get("Annots").(pdf.Array)[:2])
		u.Put(pdf.Ref{Num: 3}, page)
	}
	reordered := func(f *pdf.File, u *pdf.Update) {
		page := object(t, f, pdf.Ref{Num: 3})
		list := slices.Clone(page.Get("Annots").(pdf.Array))
		slices.Reverse(list)
		page.Set("Annots", list)
		u.Put(pdf.Ref{Num: 3}, page)
	}
	judgeAttacks(t, a, []attack{
		{"evil annotation: what lay below lies above, DocMDP 3", update(t, certified(t, a, 3), reordered), verify.Indeterminate, verify.CodeChangedAfterwards},
		{"evil form: a field that is a page's resource as well, DocMDP 2", refilled(t, a), verify.Invalid, verify.CodeContentChanged},
		{"evil form: a field that nobody is to fill in, DocMDP 2", update(t, closed(t, a), fill(t, "900")), verify.Indeterminate, verify.CodeChangedAfterwards},
		{"evil annotation: free text, DocMDP 3", annotate(t, certified(t, a, 3), freeText), verify.Indeterminate, verify.CodeCovered},
		{"evil annotation: a stamp, DocMDP 3", annotate(t, certified(t, a, 3), pdf.D("Subtype", pdf.Name("Stamp"))), verify.Indeterminate, verify.CodeCovered},
		{"evil annotation: a redaction, DocMDP 3", annotate(t, certified(t, a, 3), pdf.D("Subtype", pdf.Name("Redact"))), verify.Indeterminate, verify.CodeCovered},
		{"evil annotation: a note with a face of its own, DocMDP 3", annotate(t, certified(t, a, 3), icon), verify.Indeterminate, verify.CodeCovered},
		{"evil annotation: a note that runs a script, DocMDP 3", annotate(t, certified(t, a, 3), pdf.D("Subtype", pdf.Name("Text"), "AA", pdf.D("E", pdf.D("S", pdf.Name("JavaScript"))))), verify.Indeterminate, verify.CodeCovered},
		{"evil annotation: one is taken away, DocMDP 3", update(t, certified(t, a, 3), gone), verify.Indeterminate, verify.CodeCovered},
		{"evil annotation: free text, DocMDP 2", annotate(t, certified(t, a, 2), freeText), verify.Invalid, verify.CodeForbiddenChange},
		{"evil annotation: a note, DocMDP 1", annotate(t, certified(t, a, 1), pdf.D("Subtype", pdf.Name("Text"))), verify.Invalid, verify.CodeForbiddenChange},
		{"sneaky signature: over the page, DocMDP 2", over(certified(t, a, 2)), verify.Invalid, verify.CodeForbiddenChange},
		{"sneaky signature: over the page, DocMDP 3", over(certified(t, a, 3)), verify.Invalid, verify.CodeForbiddenChange},
		{"sneaky signature: beside the text, DocMDP 2", small(certified(t, a, 2)), verify.Invalid, verify.CodeForbiddenChange},
		{"sneaky signature: over the page, DocMDP 1", signBy(t, certified(t, a, 1), baselineEntries(), handmade{id: a.Signer}.sign(t)), verify.Invalid, verify.CodeForbiddenChange},
		{"sneaky signature: over the page, not certified", over(seal(t, contract(), sealOf(a))), verify.Indeterminate, verify.CodeCovered},
		{"sneaky signature: a stamp in disguise", disguise(t, small(certified(t, a, 2)), "Subtype", pdf.Name("Stamp")), verify.Invalid, verify.CodeForbiddenChange},
		{"sneaky signature: one that runs a script", disguise(t, seal(t, certified(t, a, 2), sealOf(a)), "AA", pdf.D("E", pdf.D("S", pdf.Name("JavaScript")))), verify.Indeterminate, verify.CodeChangedAfterwards},
		{"forms filled in against DocMDP 1", update(t, certified(t, a, 1), fill(t, "900")), verify.Invalid, verify.CodeForbiddenChange},
	})
}

// refilled is a contract whose page shows what a field has for its value: one object is both the field and the page's list of
// pictures. The value is replaced, as a certification lets people fill in forms.
func refilled(t *testing.T, a *pki.Authority) []byte {
	t.Helper()
	picture := func(text string) string {
		return fmt.Sprintf("<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Length %d >>\nstream\n%s\nendstream", len(text), text)
	}
	objects := contractObjects()
	objects[2] = strings.Replace(objects[2], "/Resources <<", "/Resources << /XObject 12 0 R", 1)
	objects[4] = "<< /Length 5 >>\nstream\n/V Do\nendstream"
	objects[11] = "<< /FT /Tx /T (nowhere on a page) /V 13 0 R >>"
	objects = append(objects, picture("0 0 100 100 re f"), picture("0 0 900 900 re f"))
	s := sealOf(a)
	s.level = 2
	doc := seal(t, assemble(objects), s)
	want(t, check(t, doc, trust(a)), verify.Valid, "")
	return update(t, doc, func(f *pdf.File, u *pdf.Update) {
		d := object(t, f, pdf.Ref{Num: 12})
		d.Set("V", pdf.Ref{Num: 14})
		u.Put(pdf.Ref{Num: 12}, d)
	})
}

// closed is a certified contract whose field "amount" is for reading only.
func closed(t testing.TB, a *pki.Authority) []byte {
	t.Helper()
	objects := contractObjects()
	objects[7] = strings.Replace(objects[7], "/FT /Tx", "/FT /Tx /Ff 1", 1)
	s := sealOf(a)
	s.level = 2
	return seal(t, assemble(objects), s)
}

// fill gives the field "amount" a value.
func fill(t testing.TB, value string) func(*pdf.File, *pdf.Update) {
	return func(f *pdf.File, u *pdf.Update) {
		d := object(t, f, pdf.Ref{Num: 8})
		d.Set("V", pdf.TextString(value))
		u.Put(pdf.Ref{Num: 8}, d)
	}
}

// TestWhatACertificationPermitsPasses is the other side of the attacks.
func TestWhatACertificationPermitsPasses(t *testing.T) {
	a := served(t)
	data := evidence(t, a)
	note := pdf.D("Subtype", pdf.Name("Text"), "Contents", pdf.TextString("please look"))
	for name, c := range map[string]struct {
		doc  []byte
		code verify.Code
		mdp  int
	}{
		"validation data and a document time-stamp, DocMDP 1": {archived(t, secured(t, certified(t, a, 1), data), a), verify.CodeLaterSignatures, 1},
		"a form filled in, DocMDP 2":                          {update(t, certified(t, a, 2), fill(t, "900")), verify.CodePermitted, 2},
		"an invisible signature, DocMDP 2":                    {seal(t, certified(t, a, 2), sealOf(a)), verify.CodeLaterSignatures, 2},
		"a box that was there is signed, DocMDP 2": {seal(t, certified(t, a, 2), sealing{key: a.Signer.Key, chain: a.Signer.Chain(), field: "seal"}),
			verify.CodeLaterSignatures, 2},
		"a note, DocMDP 3": {annotate(t, certified(t, a, 3), note), verify.CodePermitted, 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := check(t, c.doc, trust(a))
			want(t, r, verify.Valid, c.code)
			if s := r.Signatures[0]; s.DocMDP != c.mdp || s.Indication != verify.TotalPassed || s.SubIndication != "" {
				t.Errorf("DocMDP %d, %s/%s", s.DocMDP, s.Indication, s.SubIndication)
			}
		})
	}
}

// TestLocksOfFieldsHold signs a box with a lock, and fills in a field that it names, or does not.
func TestLocksOfFieldsHold(t *testing.T) {
	a := authority()
	for name, c := range map[string]struct {
		lock    string
		verdict verify.Verdict
		code    verify.Code
	}{
		"all fields":                 {"/Action /All", verify.Invalid, verify.CodeForbiddenChange},
		"this field":                 {"/Action /Include /Fields [(amount)]", verify.Invalid, verify.CodeForbiddenChange},
		"another field":              {"/Action /Include /Fields [(other)]", verify.Valid, verify.CodePermitted},
		"all but this":               {"/Action /Exclude /Fields [(amount)]", verify.Valid, verify.CodePermitted},
		"all but another":            {"/Action /Exclude /Fields [(other)]", verify.Invalid, verify.CodeForbiddenChange},
		"an action not known":        {"/Action /Maybe", verify.Invalid, verify.CodeForbiddenChange},
		"a name that begins like it": {"/Action /Include /Fields [(amoun)]", verify.Valid, verify.CodePermitted},
	} {
		t.Run(name, func(t *testing.T) {
			objects := contractObjects()
			objects[8] = strings.Replace(objects[8], "/FT /Sig", "/FT /Sig /Lock << /Type /SigFieldLock "+c.lock+" >>", 1)
			doc := seal(t, assemble(objects), sealing{key: a.Signer.Key, chain: a.Signer.Chain(), field: "seal"})
			r := check(t, update(t, doc, fill(t, "900")), trust(a))
			want(t, r, c.verdict, c.code)
			if len(r.Signatures[0].Changes) != 1 || r.Signatures[0].Changes[0] != (verify.Change{Kind: verify.ChangeForm, Where: "amount", Allowed: c.verdict == verify.Valid}) {
				t.Errorf("changes %+v", r.Signatures[0].Changes)
			}
		})
	}
}
