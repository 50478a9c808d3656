package pdf

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// draft writes a PDF by hand, object by object, so that a test decides about each byte.
type draft struct {
	bytes.Buffer
	eol     string
	offsets map[int]int
	last    int // highest object number
}

func newDraft(eol string) *draft {
	d := &draft{eol: eol, offsets: make(map[int]int)}
	d.line("%%PDF-1.7")
	return d
}

func (d *draft) line(format string, args ...any) {
	fmt.Fprintf(d, strings.ReplaceAll(format, "\n", d.eol), args...)
	d.WriteString(d.eol)
}

func (d *draft) obj(num int, body string) {
	d.offsets[num] = d.Len()
	d.last = max(d.last, num)
	d.line("%d 0 obj\n%s\nendobj", num, body)
}

func (d *draft) stream(num int, dict, data string) {
	d.offsets[num] = d.Len()
	d.last = max(d.last, num)
	d.line("%d 0 obj\n<< %s /Length %d >>", num, dict, len(data))
	d.WriteString("stream\n" + data)
	d.line("\nendstream\nendobj")
}

// table writes a cross-reference table of all objects and the end of the file.
func (d *draft) table(trailer string) []byte {
	at := d.Len()
	d.line("xref\n0 %d", d.last+1)
	for num := range d.last + 1 {
		kind, offset := "n", d.offsets[num]
		if offset == 0 {
			kind = "f"
		}
		fmt.Fprintf(d, "%010d %05d %s\r\n", offset, 0, kind)
	}
	d.line("trailer\n<< /Size %d %s >>\nstartxref\n%d\n%%%%EOF", d.last+1, trailer, at)
	return d.Bytes()
}

// simple is a document of three pages with a form.
func simple(eol string) []byte {
	d := newDraft(eol)
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [8 0 R 9 0 R] /DA (/Helv 0 Tf) >> >>")
	d.obj(2, "<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 3 /MediaBox [0 0 595 842] >>")
	d.obj(3, "<< /Type /Page /Parent 2 0 R /Contents 7 0 R /Resources << >> /Annots [8 0 R] >>")
	d.obj(4, "<< /Type /Pages /Parent 2 0 R /Kids [5 0 R 6 0 R] /Count 2 /Rotate 90 >>")
	d.obj(5, "<< /Type /Page /Parent 4 0 R /Annots [10 0 R 11 0 R] >>")
	d.obj(6, "<< /Type /Page /Parent 4 0 R /MediaBox [0 0 842 595] >>")
	d.stream(7, "", "0 0 m")
	d.obj(8, "<< /Type /Annot /Subtype /Widget /FT /Tx /T (customer) /V (Acme \\(UK\\)) /Rect [100 120 10 20] >>")
	d.obj(9, "<< /FT /Sig /T (party) /Kids [10 0 R 11 0 R] >>")
	d.obj(10, "<< /Type /Annot /Subtype /Widget /Parent 9 0 R /T (house) /Rect [1 2 3 4] >>")
	d.obj(11, "<< /Type /Annot /Subtype /Widget /Parent 9 0 R /T (other) /Rect [0 0 0 0] >>")
	return d.table("/Root 1 0 R")
}

func open(b []byte) (*File, error) { return Open(bytes.NewReader(b), int64(len(b))) }

func mustOpen(t *testing.T, b []byte) *File {
	t.Helper()
	f, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// qpdf rewrites a document with options, or checks it.
func qpdf(t *testing.T, b []byte, options ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("qpdf"); err != nil {
		t.Fatal("qpdf is not installed: apt-get install qpdf")
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.pdf"), filepath.Join(dir, "out.pdf")
	if err := os.WriteFile(in, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("qpdf", append(options, in, out)...).CombinedOutput(); err != nil {
		t.Fatalf("qpdf %v: %v\n%s", options, err, msg)
	}
	made, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// checkWithQPDF fails on any error or warning of qpdf --check.
func checkWithQPDF(t *testing.T, b []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check.pdf")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("qpdf", "--check", path).CombinedOutput(); err != nil {
		t.Errorf("qpdf --check: %v\n%s", err, msg)
	}
}

func deflate(s string) string {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}

// withXRefStream makes a document whose objects 1 and 2 are in object stream 4, described by cross-reference stream 5.
func withXRefStream(objStmDict, objStmData string, entry func(num int, objStm int) []byte) []byte {
	d := newDraft("\n")
	d.obj(3, "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>")
	d.stream(4, objStmDict, objStmData)
	at := d.Len()
	var data []byte
	for num := range 6 {
		data = append(data, entry(num, d.offsets[4])...)
	}
	copy(data[3*4:], record(1, d.offsets[3], 0))
	copy(data[5*4:], record(1, at, 0))
	d.stream(5, "/Type /XRef /W [1 2 1] /Size 6 /Root 1 0 R", string(data))
	d.line("startxref\n%d\n%%%%EOF", at)
	return d.Bytes()
}

func record(kind, a, b int) []byte { return []byte{byte(kind), byte(a >> 8), byte(a), byte(b)} }

const twoObjects = "1 0 2 34 << /Type /Catalog /Pages 2 0 R >> << /Type /Pages /Kids [3 0 R] /Count 1 >>"

func goodEntry(num, objStm int) []byte {
	switch num {
	case 1, 2:
		return record(2, 4, num-1)
	case 4:
		return record(1, objStm, 0)
	}
	return record(0, 0, 0)
}

// selfContaining is an object stream that is said to be inside itself: it has sent parsers into endless recursion.
func selfContaining() []byte {
	return withXRefStream("/Type /ObjStm /N 2 /First 9", twoObjects, func(num, objStm int) []byte {
		if num == 4 {
			return record(2, 4, 0)
		}
		return goodEntry(num, objStm)
	})
}

// lengthInItself is an object stream whose length is an object inside it.
func lengthInItself() []byte {
	b := withXRefStream("/Type /ObjStm /N 2 /First 9 /Pad (x)", twoObjects, goodEntry)
	direct := fmt.Sprintf("/Pad (x) /Length %d", len(twoObjects))
	return bytes.Replace(b, []byte(direct), fmt.Appendf(nil, "%-*s", len(direct), "/Length 2 0 R"), 1)
}

func xrefLoop() []byte {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	at := d.Len()
	return d.table(fmt.Sprintf("/Root 1 0 R /Prev %d", at))
}

// leadingForward has three sections, of which the newest says that the one before it stands behind it.
func leadingForward() []byte {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	first := d.Len()
	d.table("/Root 1 0 R")
	newest := d.Len()
	const width = 6
	d.line("xref\n0 0\ntrailer\n<< /Size 2 /Root 1 0 R /Prev %0*d >>", width, 0)
	middle := d.Len()
	d.line("xref\n0 0\ntrailer\n<< /Size 2 /Root 1 0 R /Prev %d >>", first)
	d.line("startxref\n%d\n%%%%EOF", newest)
	return bytes.Replace(d.Bytes(), []byte("/Prev 000000"), fmt.Appendf(nil, "/Prev %0*d", width, middle), 1)
}

// withObject is a document with one more object.
func withObject(body string) []byte {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	d.obj(2, "<< /Type /Pages /Kids [] /Count 0 >>")
	d.obj(3, body)
	return d.table("/Root 1 0 R")
}

func pageTreeLoop() []byte {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	d.obj(2, "<< /Type /Pages /Kids [3 0 R] /Count 1 >>")
	d.obj(3, "<< /Type /Pages /Kids [2 0 R] /Count 1 >>")
	return d.table("/Root 1 0 R")
}

func fieldLoop() []byte {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [3 0 R] >> >>")
	d.obj(2, "<< /Type /Pages /Kids [] /Count 0 >>")
	d.obj(3, "<< /T (a) /Kids [3 0 R] >>")
	return d.table("/Root 1 0 R")
}

func deepNesting() []byte {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R /X "+strings.Repeat("[", 100_000)+" >>")
	return d.table("/Root 1 0 R")
}

func bomb() []byte {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	d.stream(2, "/Filter /FlateDecode", deflate(strings.Repeat("\x00", maxStreamBytes+1)))
	return d.table("/Root 1 0 R")
}

func referenceLoop() []byte {
	d := newDraft("\n")
	d.obj(1, "2 0 R")
	d.obj(2, "1 0 R")
	return d.table("/Root 1 0 R")
}

// readAll reads everything that this package can read of a file.
func readAll(f *File) error {
	_, err1 := f.PageCount()
	_, err2 := f.Fields()
	errs := []error{err1, err2}
	for num, e := range f.entries {
		v, err := f.Resolve(Ref{Num: num, Gen: e.gen})
		errs = append(errs, err)
		if s, ok := v.(*Stream); ok {
			_, err = f.StreamData(s)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
