package pades

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/pdf"
)

const testMark = "TEST – not a contract"

func mark(t *testing.T, doc []byte) []byte {
	t.Helper()
	tail, err := Mark(document(doc), testMark)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(doc), tail...)
}

// mustBeMarked lets others read a marked document: it is whole, and each page says what it is.
func mustBeMarked(t *testing.T, marked []byte) {
	t.Helper()
	run(t, "qpdf", "qpdf", "--check", writeFile(t, "marked.pdf", marked))
	for i, page := range strings.Split(strings.TrimSuffix(run(t, "poppler-utils", "pdftotext", "-raw", writeFile(t, "text.pdf", marked), "-"), "\f"), "\f") {
		// Letters on a slope are lines of their own to it.
		if !strings.Contains(strings.Join(strings.Fields(page), ""), strings.ReplaceAll(testMark, " ", "")) {
			t.Errorf("page %d says %q", i+1, page)
		}
	}
}

func TestEachPageOfAMarkedDocumentSaysWhatItIs(t *testing.T) {
	plain := sample("", "")
	for name, doc := range map[string][]byte{
		"plain":          plain,
		"object streams": qpdfWith(t, plain, "--object-streams=generate"),
		"odd box":        bytes.Replace(plain, []byte("[0 0 595 842]"), []byte("[-90 9 90 99]"), 1),
	} {
		t.Run(name, func(t *testing.T) {
			marked := mark(t, doc)
			if !bytes.HasPrefix(marked, doc) {
				t.Error("the document's own bytes are not the first revision")
			}
			mustBeMarked(t, marked)
			if text := textOf(t, marked); name != "odd box" && !strings.Contains(text, "A short contract") {
				t.Errorf("what stood on the page is gone: %q", text)
			}
			again := mark(t, doc)
			if !bytes.Equal(marked, again) {
				t.Error("a second try makes other bytes")
			}
		})
	}
	red := 0
	m := pixels(t, mark(t, plain))
	for y := range m.Bounds().Dy() {
		for x := range m.Bounds().Dx() {
			if r, g, b, _ := m.At(x, y).RGBA(); r > g+0x2000 && r > b+0x2000 {
				red++
			}
		}
	}
	if red < 10_000 {
		t.Errorf("%d pixels of the first page have the colour of the mark", red)
	}
	judge(t, sign(t, mark(t, plain), ecIdentity(), options(ecIdentity())), 1)
}

func TestDocumentsOfOthersCanBeMarked(t *testing.T) {
	for name, doc := range debianPDFs(t) {
		t.Run(name, func(t *testing.T) { mustBeMarked(t, mark(t, doc)) })
	}
}

func TestWhatCannotBeMarkedSaysWhy(t *testing.T) {
	signed := sign(t, sample("", ""), ecIdentity(), options(ecIdentity()))
	if _, err := Mark(document(signed), testMark); err == nil || !strings.Contains(err.Error(), "signed already") {
		t.Errorf("a signed document: %v", err)
	}
	if _, err := Mark(document([]byte("%PDF-1.7\nnothing")), testMark); err == nil {
		t.Error("a damaged document was marked")
	}
	for text, want := range map[string]string{" ": "blank", "試験": "U+8A66", "מבחן": "right to left"} {
		if err := CheckMark(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := CheckMark(testMark); err != nil {
		t.Error(err)
	}
}

// TestAMarkDoesNotRepeatWhatPagesShare: each of these pages would bring a hundred kilobytes with it.
func TestAMarkDoesNotRepeatWhatPagesShare(t *testing.T) {
	var colours strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&colours, "/C%d [/CalGray << >>] ", i)
	}
	for where, nodes := range map[string][3]string{ // on the tree, on each page, and object 3
		"inherited":        {"/Resources << /ColorSpace << " + colours.String() + " >> >>", "", "null"},
		"inherited by ref": {"/Resources 3 0 R", "", "<< /ColorSpace << " + colours.String() + " >> >>"},
		"by each page":     {"", "/Resources 3 0 R", "<< /ColorSpace << " + colours.String() + " >> >>"},
		"its drawings":     {"", "/Resources << /XObject 3 0 R >>", "<< " + colours.String() + " >>"},
	} {
		t.Run(where, func(t *testing.T) {
			kids, objects := "", []string{"<< /Type /Catalog /Pages 2 0 R >>", "", nodes[2]}
			for i := range 60 {
				kids += fmt.Sprintf("%d 0 R ", i+4)
				objects = append(objects, "<< /Type /Page /Parent 2 0 R "+nodes[1]+" >>")
			}
			objects[1] = "<< /Type /Pages /Kids [" + kids + "] /Count 60 /MediaBox [0 0 595 842] " + nodes[0] + " >>"
			var b bytes.Buffer
			b.WriteString("%PDF-1.7\n")
			table := fmt.Sprintf("xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
			for i, o := range objects {
				table += fmt.Sprintf("%010d 00000 n \n", b.Len())
				fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
			}
			start := b.Len()
			fmt.Fprintf(&b, "%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", table, len(objects)+1, start)
			marked := mark(t, b.Bytes())
			if n := len(marked) - b.Len(); n > 3*colours.Len() {
				t.Errorf("the mark takes %d bytes", n)
			}
			mustBeMarked(t, marked)
		})
	}
}

func FuzzMark(f *testing.F) {
	plain := sample("", "")
	f.Add(plain)
	f.Add(bytes.Replace(plain, []byte("/Contents 5 0 R"), []byte("/Contents [5 0 R]"), 1))
	f.Add(bytes.Replace(plain, []byte("/Resources << >>"), []byte("/Resources 9 0 R"), 1))
	f.Fuzz(func(t *testing.T, doc []byte) {
		hostile.Budget(t)
		tail, err := Mark(document(doc), testMark)
		if err != nil {
			return
		}
		marked := append(bytes.Clone(doc), tail...)
		file, err := pdf.Open(document(marked), int64(len(marked)))
		if err != nil {
			t.Fatalf("the marked file does not open: %v", err)
		}
		if _, _, err := file.Page(1); err != nil && !strings.Contains(err.Error(), "there is no page") {
			t.Fatalf("the marked file has no pages: %v", err)
		}
	})
}
