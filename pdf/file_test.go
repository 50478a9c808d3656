package pdf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/hostile"
)

func TestOpenReadsEveryKindOfCrossReference(t *testing.T) {
	plain := simple("\n")
	for name, b := range map[string][]byte{
		"table":               plain,
		"table, CR LF":        simple("\r\n"),
		"object streams":      qpdf(t, plain, "--object-streams=generate"),
		"linearized":          qpdf(t, plain, "--linearize"),
		"linearized, streams": qpdf(t, plain, "--linearize", "--object-streams=generate"),
		"PDF 1.4 to 2.0":      qpdf(t, plain, "--force-version=2.0", "--object-streams=generate"),
		"junk in front":       append([]byte("HTTP/1.1 200 OK\r\n\r\n"), plain...),
		"garbage behind":      append(bytes.Clone(plain), make([]byte, 900)...),
		"counted from byte 0": shiftedByHand(plain),
	} {
		t.Run(name, func(t *testing.T) {
			f := mustOpen(t, b)
			if n, err := f.PageCount(); n != 3 || err != nil {
				t.Fatalf("PageCount = %d, %v; want 3", n, err)
			}
			_, page, err := f.Page(1)
			if err != nil {
				t.Fatal(err)
			}
			contents, err := f.Resolve(page.Get("Contents"))
			if err != nil {
				t.Fatal(err)
			}
			data, err := f.StreamData(contents.(*Stream))
			if err != nil || strings.TrimSpace(string(data)) != "0 0 m" {
				t.Errorf("content of page 1 = %q, %v", data, err)
			}
			if err := readAll(f); err != nil {
				t.Error(err)
			}
			if got := len(f.Revisions()); got != 1 {
				t.Errorf("%d revisions, want 1", got)
			}
		})
	}
}

// shiftedByHand puts bytes in front of a file and counts all offsets from the very beginning, as some producers do.
func shiftedByHand(b []byte) []byte {
	d := newDraft("\n")
	d.Reset()
	d.WriteString("junk\n%PDF-1.7\n")
	f, err := open(b)
	if err != nil {
		panic(err)
	}
	for num := 1; num < f.next; num++ {
		e := f.entries[num]
		end := bytes.Index(b[e.offset:], []byte("endobj")) + len("endobj")
		d.offsets[num], d.last = d.Len(), num
		d.Write(b[e.offset : e.offset+int64(end)])
		d.WriteString("\n")
	}
	return d.table("/Root 1 0 R")
}

func TestHiddenObjectsOfAHybridFileAreFound(t *testing.T) {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R /Hidden 6 0 R >>")
	d.obj(2, "<< /Type /Pages /Kids [] /Count 0 >>")
	d.stream(3, "/Type /ObjStm /N 1 /First 4", "6 0 (now you see me)")
	hidden := d.Len()
	d.stream(4, "/Type /XRef /W [1 2 1] /Size 7 /Index [6 1]", string(record(2, 3, 0)))
	d.last = 6
	b := d.table(fmt.Sprintf("/Root 1 0 R /XRefStm %d", hidden))
	f := mustOpen(t, b)
	v, err := f.Resolve(Ref{Num: 6})
	if err != nil || Text(v) != "now you see me" {
		t.Errorf("hidden object = %v, %v", v, err)
	}
	u := f.Update()
	u.Put(u.Alloc(), Name("New"))
	tail, err := u.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(tail, []byte("/XRefStm")) {
		t.Error("the update points to the hidden objects of the section before it")
	}
	f = mustOpen(t, append(b, tail...))
	if v, err := f.Resolve(Ref{Num: 6}); err != nil || Text(v) != "now you see me" {
		t.Errorf("hidden object after an update = %v, %v", v, err)
	}
}

func TestANewestSectionWithoutEntriesIsRead(t *testing.T) {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R /Hidden 5 0 R >>")
	d.obj(2, "<< /Type /Pages /Kids [] /Count 0 >>")
	d.stream(3, "/Type /ObjStm /N 1 /First 4", "5 0 (now you see me)")
	hidden := d.Len()
	d.stream(4, "/Type /XRef /W [1 2 1] /Size 6 /Index [5 1]", string(record(2, 3, 0)))
	d.last = 5
	b := d.table("/Root 1 0 R")
	old := bytes.LastIndex(b, []byte("xref\n0"))
	b = append(b, fmt.Sprintf("xref\ntrailer\n<< /Size 6 /Root 1 0 R /Prev %d /XRefStm %d >>\nstartxref\n%d\n%%%%EOF\n", old, hidden, len(b))...)
	f := mustOpen(t, b)
	if v, err := f.Resolve(Ref{Num: 5}); err != nil || Text(v) != "now you see me" {
		t.Errorf("hidden object = %v, %v", v, err)
	}
	if n, err := f.PageCount(); err != nil || n != 0 {
		t.Errorf("%d pages, %v: the section before it is not read", n, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	plain := simple("\n")
	replaced := func(old, new string) []byte {
		if !bytes.Contains(plain, []byte(old)) || len(old) != len(new) {
			t.Fatalf("%q cannot be replaced by %q", old, new)
		}
		return bytes.Replace(plain, []byte(old), []byte(new), 1)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "not a PDF"},
		{"no PDF", []byte("PK\x03\x04" + strings.Repeat("x", 5000)), "not a PDF"},
		{"a cut file", plain[:len(plain)-400], "no startxref"},
		{"a file cut in its last line", plain[:len(plain)-4], "%%EOF expected"},
		{"much behind the end", append(bytes.Clone(plain), make([]byte, 5000)...), "no startxref"},
		{"a section behind the end", bytes.Replace(plain, []byte("startxref\n"), []byte("startxref\n9"), 1), "whole number of at most"},
		{"a section somewhere else", bytes.Replace(plain, []byte("startxref\n"), []byte("startxref\n1 %"), 1), "%%EOF expected"},
		{"a wrong object number", replaced("\n2 0 obj", "\n7 0 obj"), "where the cross-reference puts 2 0"},
		{"a missing endobj", replaced("/Count 3 /MediaBox [0 0 595 842] >>\nendobj", "/Count 3 /MediaBox [0 0 595 842] >>\nendxxx"), "endobj expected"},
		{"a key twice", replaced("/Count 3 ", "/Type /X "), `the key "/Type" twice`},
		{"a wrong stream length", replaced("/Length 5", "/Length 3"), "endstream expected"},
		{"a stream behind the end", replaced("/Length 5", "/Length 9999999"[:9]), "endstream expected"},
		{"a circle of sections", xrefLoop(), "circle"},
		{"a circle of pages", pageTreeLoop(), "twice in the page tree"},
		{"a circle of fields", fieldLoop(), "twice in the tree of form fields"},
		{"a circle of references", referenceLoop(), "reference leads to a reference"},
		{"deep nesting", deepNesting(), "nested too deep"},
		{"an object stream inside itself", selfContaining(), "not an object of the file itself"},
		{"an object stream that has its own length", lengthInItself(), "needed to read itself"},
		{"a stream that grows without end", bomb(), "too many bytes"},
		{"huge counts in the table", []byte("%PDF-1.7\nxref\n0 999999999\ntrailer\n<< >>\nstartxref\n9\n%%EOF\n"), "whole number of at most"},
		{"more entries than bytes", []byte("%PDF-1.7\nxref\n0 99999\ntrailer\n<< >>\nstartxref\n9\n%%EOF\n"), "offset of an object expected"},
		{"huge counts in a stream", []byte("%PDF-1.7\n1 0 obj\n<< /Type /XRef /W [1 1 1] /Size 999999 /Length 0 >>\nstream\n\nendstream\nendobj\nstartxref\n9\n%%EOF\n"), "shorter than /Index"},
		{"no root", []byte("%PDF-1.7\nxref\n0 1\n0000000000 65535 f \ntrailer\n<< /Size 1 >>\nstartxref\n9\n%%EOF\n"), "no /Root"},
		{"an object that is not where its stream should have it", withXRefStream("/Type /ObjStm /N 2 /First 9", strings.Replace(twoObjects, "1 0 2", "1 0 9", 1), goodEntry), "does not have object 2"},
		{"a section that leads forward", leadingForward(), "older than one behind it"},
		{"too many values", withObject("[" + strings.Repeat("0 ", maxObjectNodes) + "]"), "too many values"},
		{"a very long string", withObject("(" + strings.Repeat("x", maxObjectBytes+1) + ")"), "too long"},
		{"a huge predictor", withObject("<< /Type /ObjStm /N 1 /First 4 /Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 1000000 /Colors 64 >> /Length 8 >>\nstream\n\x78\x9c\x03\x00\x00\x00\x00\x01\nendstream"), "out of range"},
		{"a foreign filter", withObject("<< /Filter /LZWDecode /Length 1 >>\nstream\nx\nendstream"), `"LZWDecode", which is not supported`},
		{"a string without end", replaced("(customer)", "(customer("), "does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := open(c.b)
			if err == nil {
				err = readAll(f)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v, want one with %q", err, c.want)
			}
			var permanent interface{ Permanent() bool }
			if !errors.As(err, &permanent) || !permanent.Permanent() {
				t.Errorf("%v is not permanent", err)
			}
		})
	}
}

func TestReadingEndsWithItsBudget(t *testing.T) {
	f := mustOpen(t, simple("\n"))
	f.work = 100
	var limit *LimitError
	if err := readAll(f); !errors.As(err, &limit) || !strings.Contains(err.Error(), "too much work") {
		t.Errorf("error = %v, want a LimitError", err)
	}
}

func TestTwoFieldsOfOneNameAreRefused(t *testing.T) {
	f := mustOpen(t, bytes.Replace(simple("\n"), []byte("/T (other)"), []byte("/T (house)"), 1))
	if _, err := f.Field("party.house"); err == nil || !strings.Contains(err.Error(), "two fields named") {
		t.Errorf("error = %v", err)
	}
}

func TestSyntaxErrorNamesTheByte(t *testing.T) {
	b := simple("\n")
	at := bytes.Index(b, []byte("/Count 3"))
	copy(b[at:], "/Count ?")
	f := mustOpen(t, b)
	_, err := f.PageCount()
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Offset != int64(at+len("/Count ")) {
		t.Errorf("error = %v, want a SyntaxError for byte %d", err, at+len("/Count "))
	}
}

func TestEncryptedFileIsRefused(t *testing.T) {
	_, err := open(qpdf(t, simple("\n"), "--encrypt", "", "owner", "256", "--"))
	var encrypted *EncryptedError
	if !errors.As(err, &encrypted) {
		t.Errorf("error = %v, want an EncryptedError", err)
	}
}

// brokenReader fails behind a byte.
type brokenReader struct {
	io.ReaderAt
	end int64
}

func (r brokenReader) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > r.end {
		return 0, io.ErrClosedPipe
	}
	return r.ReaderAt.ReadAt(b, at)
}

func TestFailureOfTheDiskIsNotASyntaxError(t *testing.T) {
	b := simple("\n")
	_, err := Open(brokenReader{bytes.NewReader(b), int64(len(b)) - 1}, int64(len(b)))
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error = %v, want the reader's own", err)
	}
}

// countingReader counts the bytes that are read.
type countingReader struct {
	io.ReaderAt
	n int64
}

func (r *countingReader) ReadAt(b []byte, at int64) (int, error) {
	r.n += int64(len(b))
	return r.ReaderAt.ReadAt(b, at)
}

func TestALargeFileIsReadThroughSmallWindows(t *testing.T) {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	d.obj(2, "<< /Type /Pages /Kids [3 0 R] /Count 1 >>")
	d.obj(3, "<< /Type /Page /Parent 2 0 R >>")
	d.stream(4, "", strings.Repeat("x", 10<<20))
	b := d.table("/Root 1 0 R")
	r := &countingReader{ReaderAt: bytes.NewReader(b)}
	f, err := Open(r, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Page(1); err != nil {
		t.Fatal(err)
	}
	if r.n > 64<<10 {
		t.Errorf("%d bytes read of a file of %d", r.n, len(b))
	}
}

func TestMissingObjectIsNull(t *testing.T) {
	f := mustOpen(t, simple("\n"))
	for _, ref := range []Ref{{Num: 500}, {Num: 1, Gen: 3}, {Num: 0}} {
		if v, err := f.Resolve(ref); v != nil || err != nil {
			t.Errorf("Resolve(%v) = %v, %v; want null", ref, v, err)
		}
	}
}

func TestPagesInheritFromTheTree(t *testing.T) {
	f := mustOpen(t, simple("\n"))
	for _, c := range []struct {
		page int
		key  Name
		want any
	}{
		{1, "Rotate", nil},
		{2, "Rotate", Raw("90")},
		{2, "MediaBox", Array{Raw("0"), Raw("0"), Raw("595"), Raw("842")}},
		{3, "MediaBox", Array{Raw("0"), Raw("0"), Raw("842"), Raw("595")}},
	} {
		ref, page, err := f.Page(c.page)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Inherited(page, c.key)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("page %d, %s: %v\n%s", c.page, c.key, err, diff)
		}
		if n, err := f.PageNumber(ref); n != c.page || err != nil {
			t.Errorf("PageNumber = %d, %v; want %d", n, err, c.page)
		}
	}
	if _, _, err := f.Page(4); err == nil || !strings.Contains(err.Error(), "the file has 3") {
		t.Errorf("page 4: %v", err)
	}
}

func TestFieldsAreListedWithNamesAndPlaces(t *testing.T) {
	f := mustOpen(t, simple("\n"))
	fields, err := f.Fields()
	if err != nil {
		t.Fatal(err)
	}
	for i := range fields {
		fields[i].Dict = nil
	}
	want := []Field{
		{Name: "customer", Type: "Tx", Ref: Ref{Num: 8}, Value: Raw(`(Acme \(UK\))`), Widgets: []Ref{{Num: 8}}, Page: 1, Rect: [4]float64{10, 20, 100, 120}},
		{Name: "party.house", Type: "Sig", Ref: Ref{Num: 10}, Widgets: []Ref{{Num: 10}}, Page: 2, Rect: [4]float64{1, 2, 3, 4}},
		{Name: "party.other", Type: "Sig", Ref: Ref{Num: 11}, Widgets: []Ref{{Num: 11}}, Page: 2},
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Error(diff)
	}
	if one, err := f.Field("party.house"); err != nil || one == nil || one.Ref.Num != 10 {
		t.Errorf("Field = %v, %v", one, err)
	}
}

func TestPNGPredictorsAreUndone(t *testing.T) {
	// One row above of 1 2 3 4, then a row with each filter that decodes to 5 6 7 8 (one byte per pixel).
	for filter, row := range map[byte][]byte{
		0: {5, 6, 7, 8},
		1: {5, 1, 1, 1},
		2: {4, 4, 4, 4},
		3: {5, 3, 3, 3}, // minus the mean of left and above: 0, 3, 4, 5 rounded down
		4: {4, 1, 1, 1},
	} {
		data := append([]byte{0, 1, 2, 3, 4, filter}, row...)
		d := newDraft("\n")
		d.obj(1, "<< /Type /Catalog >>")
		d.stream(2, "/Filter /FlateDecode /DecodeParms << /Predictor 15 /Columns 4 >>", deflate(string(data)))
		f := mustOpen(t, d.table("/Root 1 0 R"))
		v, err := f.Resolve(Ref{Num: 2})
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.StreamData(v.(*Stream))
		if want := []byte{1, 2, 3, 4, 5, 6, 7, 8}; !bytes.Equal(got, want) || err != nil {
			t.Errorf("filter %d: %v, %v; want %v", filter, got, err, want)
		}
	}
}

// TestMutantsOfDocumentsAreReadOrRefused holds the reader to what others have shown to fail at: lightly damaged files.
func TestMutantsOfDocumentsAreReadOrRefused(t *testing.T) {
	hostile.Budget(t)
	opened := 0
	for i, document := range [][]byte{simple("\n"), simple("\r\n"), withXRefStream("/Type /ObjStm /N 2 /First 9", twoObjects, goodEntry), selfContaining()} {
		for _, mutant := range hostile.Mutants(uint64(i), document, 5000) {
			if file, err := open(mutant); err == nil {
				opened++
				_ = readAll(file) // an error or none
			}
		}
	}
	if opened < 1000 {
		t.Errorf("only %d of 20000 mutants could be opened: they test too little", opened)
	}
}

func FuzzOpen(f *testing.F) {
	for _, b := range [][]byte{
		simple("\n"), simple("\r\n"), selfContaining(), lengthInItself(), xrefLoop(), pageTreeLoop(), fieldLoop(),
		referenceLoop(), deepNesting(), withXRefStream("/Type /ObjStm /N 2 /First 9", twoObjects, goodEntry),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		hostile.Budget(t)
		file, err := open(b)
		if err != nil {
			return
		}
		_ = readAll(file)
		file.Revisions()
		update := file.Update()
		ref, catalog, err := file.Catalog()
		if err != nil {
			return
		}
		changed := catalog.Clone()
		changed.Set("Fuzz", Name("yes"))
		update.Put(ref, changed)
		tail, err := update.Bytes()
		if err != nil {
			return
		}
		again, err := open(append(bytes.Clone(b), tail...))
		if err != nil {
			t.Fatalf("the updated file does not open: %v", err)
		}
		if _, got, err := again.Catalog(); err != nil || got.Get("Fuzz") != Name("yes") {
			t.Fatalf("the update is not seen: %v", err)
		}
	})
}

// TestAnEarlierRevisionIsReadAsIfAlone reads every revision beside the newest and by itself: what one has read must not show in another.
func TestAnEarlierRevisionIsReadAsIfAlone(t *testing.T) {
	doc := simple("\n")
	for i := range 3 {
		f := mustOpen(t, doc)
		u := f.Update()
		ref, catalog, err := f.Catalog()
		if err != nil {
			t.Fatal(err)
		}
		catalog = catalog.Clone()
		catalog.Set("Round", i)
		u.Put(ref, catalog)
		tail, err := u.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		doc = append(doc, tail...)
	}
	newest := mustOpen(t, doc)
	for range 2 {
		for i, r := range newest.Revisions() {
			earlier, err := newest.Earlier(r.End)
			if err != nil {
				t.Fatal(err)
			}
			_, got, err := earlier.Catalog()
			if err != nil {
				t.Fatal(err)
			}
			_, want, err := mustOpen(t, doc[:r.End]).Catalog()
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got.Get("Round")) != fmt.Sprint(want.Get("Round")) {
				t.Errorf("revision %d: the catalog is that of round %v and not %v", i, got.Get("Round"), want.Get("Round"))
			}
		}
	}
	if _, err := newest.Earlier(newest.Size() + 1); err == nil {
		t.Error("a revision that is longer than the file was opened")
	}
}
