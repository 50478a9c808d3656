package pdf

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUpdateKeepsEveryByteAndTheStyle(t *testing.T) {
	plain := simple("\n")
	for name, c := range map[string]struct {
		b     []byte
		style string
	}{
		"table":             {plain, "\nxref\n"},
		"no line end":       {bytes.TrimRight(plain, "\n"), "\nxref\n"},
		"stream":            {qpdf(t, plain, "--object-streams=generate"), "/Type /XRef"},
		"linearized":        {qpdf(t, plain, "--linearize"), "\nxref\n"},
		"linear and stream": {qpdf(t, plain, "--linearize", "--object-streams=generate"), "/Type /XRef"},
		"junk in front":     {append([]byte("junk"), plain...), "\nxref\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(c.b)
			var refs []Ref
			for i := range 3 {
				f := mustOpen(t, b)
				u := f.Update()
				ref := u.Alloc()
				refs = append(refs, ref)
				u.PutCompressed(ref, D("Round", i), []byte(strings.Repeat("data", i)))
				catalogRef, catalog, err := f.Catalog()
				if err != nil {
					t.Fatal(err)
				}
				catalog = catalog.Clone()
				catalog.Set("Mine", ref)
				u.Put(catalogRef, catalog)
				tail, err := u.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(tail, []byte(c.style)) {
					t.Errorf("the cross-reference of the update has not the style of the file:\n%s", tail)
				}
				if b[len(b)-1] != '\n' && tail[0] != '\n' {
					t.Error("the update begins in the middle of a line")
				}
				b = append(b, tail...)
				checkWithQPDF(t, b)
			}
			f := mustOpen(t, b)
			for i, ref := range refs {
				v, err := f.Resolve(ref)
				if err != nil {
					t.Fatal(err)
				}
				if data, err := f.StreamData(v.(*Stream)); string(data) != strings.Repeat("data", i) || err != nil {
					t.Errorf("stream of update %d = %q, %v", i, data, err)
				}
			}
			if got := len(f.Revisions()); got != 4 {
				t.Errorf("%d revisions, want 4", got)
			}
			if end := f.Revisions()[3].End; end != int64(len(b)) {
				t.Errorf("the last revision ends at %d of %d", end, len(b))
			}
		})
	}
}

func TestPlaceholderOffsetIsThatOfTheFile(t *testing.T) {
	b := simple("\n")
	u := mustOpen(t, b).Update()
	hole := &Placeholder{Text: []byte("<00000000>")}
	// The same text elsewhere must not be taken for the placeholder.
	u.Put(u.Alloc(), Raw("<00000000>"))
	u.Put(u.Alloc(), D("A", Array{D("Contents", hole)}, "B", Raw("<00000000>")))
	tail, err := u.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	whole := append(b, tail...)
	if !bytes.HasPrefix(whole[hole.Offset:], []byte("<00000000>]"[:10])) || !bytes.HasSuffix(whole[:hole.Offset], []byte("/Contents ")) {
		t.Errorf("at the offset: %.30q, before it: %q", whole[hole.Offset:], whole[hole.Offset-12:hole.Offset])
	}
}

func TestTrailerIsCarriedOver(t *testing.T) {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	d.obj(2, "<< /Type /Pages /Kids [] /Count 0 >>")
	d.obj(3, "<< /Title (t) >>")
	b := d.table("/Root 1 0 R /Info 3 0 R /ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>]")
	f := mustOpen(t, b)
	u := f.Update()
	u.Put(u.Alloc(), nil)
	tail, err := u.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	got := mustOpen(t, append(b, tail...)).Trailer()
	old := f.Trailer()
	if got.Get("Info") != old.Get("Info") || got.Get("Root") != old.Get("Root") {
		t.Errorf("the trailer lost /Info or /Root: %v", got)
	}
	oldID, newID := old.Get("ID").(Array), got.Get("ID").(Array)
	if diff := cmp.Diff(oldID[0], newID[0]); diff != "" {
		t.Errorf("the first half of /ID changed: %s", diff)
	}
	if cmp.Equal(oldID[1], newID[1]) {
		t.Error("the second half of /ID did not change")
	}
}

func TestUpdateRefusesWhatCannotBeWritten(t *testing.T) {
	circle := Array{nil}
	circle[0] = circle
	for name, v := range map[string]any{"a channel": make(chan int), "infinity": math.Inf(1), "NaN": math.NaN(), "a circle": circle} {
		u := mustOpen(t, simple("\n")).Update()
		u.Put(u.Alloc(), v)
		if _, err := u.Bytes(); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

func TestUpdateRefusesObjectNumbersThatNobodyReads(t *testing.T) {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	b := bytes.Replace(d.table("/Root 1 0 R"), []byte("/Size 2"), []byte("/Size 1048576"), 1)
	u := mustOpen(t, b).Update()
	u.Put(u.Alloc(), nil)
	var limit *LimitError
	if _, err := u.Bytes(); !errors.As(err, &limit) {
		t.Errorf("error = %v, want a LimitError", err)
	}
}

func TestValuesAreSpelledAndReadAlike(t *testing.T) {
	values := Array{
		nil, Name("A B#/()é"), Name(""), Raw("-.5"), Raw("<00FF>"), Raw(`(a\)b)`), Ref{12, 3}, Raw("true"),
		Array{Raw("1"), Raw("2"), Name("R")}, Array{}, D("K", D("L", nil), "M", Raw("0")),
	}
	var w writer
	w.value(values, 0)
	if w.err != nil {
		t.Fatal(w.err)
	}
	l := &lexer{b: w.b}
	got, err := l.value()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(values, got, cmp.AllowUnexported(Dict{}, pair{})); diff != "" {
		t.Error(diff)
	}
}

func TestADictionaryOfAnySizeKeepsItsOrder(t *testing.T) {
	for _, size := range []int{1, maxSearched, maxSearched + 1, 100} {
		d, want := new(Dict), []Name(nil)
		for i := range size {
			key := Name(fmt.Sprint("K", i))
			d.Set(key, i)
			d.Set(key, -i) // in its place
			if i%3 > 0 {
				want = append(want, key)
			}
		}
		copied := d.Clone()
		for i := 0; i < size; i += 3 {
			d.Delete(Name(fmt.Sprint("K", i)))
		}
		d.Delete("None")
		if diff := cmp.Diff(want, append([]Name(nil), d.Keys()...)); diff != "" {
			t.Errorf("%d keys: %s", size, diff)
		}
		for i := range size {
			key := Name(fmt.Sprint("K", i))
			if d.Has(key) != (i%3 > 0) || i%3 > 0 && d.Get(key) != -i || copied.Get(key) != -i {
				t.Errorf("%d keys: %s is %v, and %v in the copy", size, key, d.Get(key), copied.Get(key))
			}
		}
		if d.Len() != len(want) || copied.Len() != size {
			t.Errorf("%d keys: %d are left, %d in the copy", size, d.Len(), copied.Len())
		}
	}
}

func TestNumbersHaveNoExponent(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", -0.00001: "0", 1e7: "10000000", 0.5: "0.5", -12.34567: "-12.3457", 100: "100", 1e-9: "0",
	} {
		if got := string(formatNumber(x)); got != want {
			t.Errorf("formatNumber(%v) = %s, want %s", x, got, want)
		}
	}
}

func TestTextSurvivesItsSpelling(t *testing.T) {
	for _, s := range []string{"", "plain", `a(b)c\d`, "line\nline", "Żółć €", "日本 😀"} {
		if got := Text(TextString(s)); got != s {
			t.Errorf("Text(TextString(%q)) = %q", s, got)
		}
	}
}

func TestForeignSpellingsOfTextAreRead(t *testing.T) {
	for spelling, want := range map[string]string{
		`(a\051\5b\
c)`: "a)\x05bc",
		"(a\r\nb\rc)":            "a\nb\nc",
		`(\n\r\t\b\f\q)`:         "\n\r\t\b\fq",
		"<41 4>":                 "A@",
		"<EFBBBFC3A9>":           "é",
		"<FEFF00E9>":             "é",
		"(\xe9\x80\xa0\x9f\x18)": "é•€\uFFFD˘",
		"12":                     "",
	} {
		if got := Text(Raw(spelling)); got != want {
			t.Errorf("Text(%q) = %q, want %q", spelling, got, want)
		}
	}
}

func TestDateHasItsZone(t *testing.T) {
	for offset, want := range map[int]string{
		0: "(D:20260304050607Z)", 2 * 3600: "(D:20260304050607+02'00')", -(3*3600 + 1800): "(D:20260304050607-03'30')",
	} {
		if got := string(Date(time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", offset)))); got != want {
			t.Errorf("Date = %s, want %s", got, want)
		}
	}
}

// TestNewObjectsGetNumbersThatAreFree has trailers say that there are fewer objects than there are.
func TestNewObjectsGetNumbersThatAreFree(t *testing.T) {
	d := newDraft("\n")
	d.obj(1, "<< /Type /Catalog /Pages 2 0 R >>")
	d.obj(2, "<< /Type /Pages /Kids [] /Count 0 >>")
	d.stream(3, "/Type /ObjStm /N 1 /First 4", "9 0 (hidden)")
	hidden := d.Len()
	d.stream(4, "/Type /XRef /W [1 2 1] /Size 1 /Index [9 1]", string(record(2, 3, 0)))
	table := bytes.Replace(d.table("/Root 1 0 R"), []byte("/Size 5"), []byte("/Size 1"), 1)
	old := bytes.LastIndex(table, []byte("xref\n0"))
	hybrid := fmt.Appendf(bytes.Clone(table), "xref\ntrailer\n<< /Size 1 /Root 1 0 R /Prev %d /XRefStm %d >>\nstartxref\n%d\n%%%%EOF\n", old, hidden, len(table))
	stream := bytes.Replace(withXRefStream("/Type /ObjStm /N 2 /First 9", twoObjects, goodEntry), []byte("/Size 6"), []byte("/Index [0 6] /Size 1"), 1)
	for name, c := range map[string]struct {
		file []byte
		free int
	}{"table": {table, 5}, "stream": {stream, 6}, "hybrid": {hybrid, 10}} {
		if ref := mustOpen(t, c.file).Update().Alloc(); ref.Num != c.free {
			t.Errorf("%s: a new object gets number %d, want %d", name, ref.Num, c.free)
		}
	}
}
