package documents

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTextThatDoesNotPrintAsItReadsIsRefused(t *testing.T) {
	for r, ok := range map[rune]bool{
		'\n': true, '\t': true, 'ż': true, '株': true, '\u00a0': true, '\u200b': true, '\u200d': true, '\u00ad': true, '😀': true, '\u0301': true,
		0: false, '\r': false, '\x1b': false, '\x85': false, '\u202e': false, '\u202a': false, '\u2066': false, '\u2069': false, '\u2028': false,
		'\ufeff': false, '\U000e0041': false, '\ue000': false, '\u0378': false, '\ufffe': false, '\U0010ffff': false,
	} {
		err := checkText("customer.name", "a"+string(r)+"b")
		if (err == nil) != ok {
			t.Errorf("U+%04X: %v", r, err)
		}
		if err == nil {
			continue
		}
		var text *TextError
		if !errors.As(err, &text) || text.Rune != r || !strings.Contains(err.Error(), "customer.name") || !strings.Contains(err.Error(), fmt.Sprintf("U+%04X", r)) {
			t.Errorf("U+%04X: the error names field and character badly: %v", r, err)
		}
	}
}

func TestTextBeyondTheLimitsIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"marks": "a" + strings.Repeat("\u0301", maxMarks+1), "bytes": strings.Repeat("x", maxFieldBytes+1),
		"lines": strings.Repeat("\n", maxLines+1), "UTF-8": "\xff",
	} {
		if err := checkText("f", text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := checkText("f", "a"+strings.Repeat("\u0301", maxMarks)+"b"+strings.Repeat("\u0301", maxMarks)); err != nil {
		t.Errorf("marks within the limit: %v", err)
	}
}

func TestRecordsBeyondTheLimitsAreRefused(t *testing.T) {
	b := mustBundle(t, "schema.json", "true")
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	long := `{"a":[` + strings.Repeat("1,", maxLines) + "1]}"
	big := `{"a":["` + strings.Repeat(strings.Repeat("x", 50_000)+`","`, 22) + `"]}`
	for name, record := range map[string]string{"depth": deep, "entries": long, "bytes": big, "not JSON": "{", "no object": "[]", "two values": "{}{}"} {
		if err := b.Validate([]byte(record)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestJSONFaultsNameThePlaceAndNotTheText(t *testing.T) {
	err := mustBundle(t).Validate([]byte("{\n \"a\": SECRET}"))
	if err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "line 2, column 7") {
		t.Errorf("error %v", err)
	}
}

func TestLongWordsGetPlacesToBreak(t *testing.T) {
	for in, want := range map[string]string{
		"a short text of many short words":    "a short text of many short words",
		strings.Repeat("x", maxWord):          strings.Repeat("x", maxWord),
		"ééééééééééééééééééééééééééééé":       "ééééééééééééééééééééééééééééé",
		"someone@a-long-company-name.example": "someone@|a-|long-|company-|name.|example",
		"see //////////////////////////////x": "see //////////////////////////////|x",
		strings.Repeat("株", 40):               strings.Repeat("株", 40),
	} {
		if got := strings.ReplaceAll(breakWords(in), "\u200b", "|"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	long := strings.Repeat("x", maxWord) + "e\u0301y"
	got := breakWords(long)
	if strings.ReplaceAll(got, "\u200b", "") != long {
		t.Errorf("the text has changed: %q", got)
	}
	if strings.Contains(got, "\u200b\u0301") || strings.HasPrefix(got, "\u200b") || strings.HasSuffix(got, "\u200b") {
		t.Errorf("a break stands where none can be: %q", got)
	}
	if n := strings.Count(got, "\u200b"); n != utf8.RuneCountInString(long)-2 {
		t.Errorf("%d breaks", n)
	}
}

func TestFileNamesAreUsableEverywhere(t *testing.T) {
	b := mustBundle(t)
	for name, want := range map[string]string{
		"Brightwater":             "Offer Brightwater tx1.pdf",
		`a/b\c:d*e?"f<g>|`:        "Offer a-b-c-d-e--f-g-- tx1.pdf",
		"../../etc/passwd":        "Offer ..-..-etc-passwd tx1.pdf",
		"":                        "Offer tx1.pdf",
		"line\nbreak":             "Offer line-break tx1.pdf",
		strings.Repeat("ż", 200):  "Offer " + strings.Repeat("ż", 55) + ".pdf",
		strings.Repeat("x ", 100): "Offer " + strings.TrimSpace(strings.Repeat("x ", 55)) + ".pdf",
	} {
		record := fmt.Sprintf(`{"customer":{"name":%q},"meta":{"tx":"tx1"}}`, name)
		got, err := b.FileName([]byte(record))
		if err != nil || got != want || len(got) > maxNameBytes {
			t.Errorf("%q: %q (%v), want %q", name, got, err, want)
		}
	}
	if _, err := b.FileName([]byte("{")); err == nil {
		t.Error("accepted a broken record")
	}
}

func TestPrepareFillsInTheTextsOfAHandWrittenRecord(t *testing.T) {
	b := mustBundle(t, "schema.json", "true")
	p, err := b.Prepare([]byte(`{"sum":{"value":"1200","currency":"EUR"},"day":{"value":"2026-11-20"},"n":{"value":"1234.50"},"own":{"value":"1","text":"one"},"date":"2026-11-20T10:00:00Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"date":"2026-11-20T10:00:00Z","day":{"text":"20` + nbsp + `November 2026","value":"2026-11-20"},"n":{"text":"1,234.5","value":"1234.5"},` +
		`"own":{"text":"one","value":"1"},"sum":{"currency":"EUR","text":"EUR` + nbsp + `1,200.00","value":"1200.00"}}`
	if string(p.Record) != want {
		t.Errorf("record %s, want %s", p.Record, want)
	}
	if p.Time.Format("2006-01-02T15:04") != "2026-11-20T10:00" {
		t.Errorf("clock %v", p.Time)
	}
	for _, bad := range []string{`{"a":{"value":"x"}}`, `{"a":{"value":"1","currency":"XYZW"}}`, `{"a":{"value":"2026-99-99"}}`} {
		var field *FieldError
		if _, err := b.Prepare([]byte(bad)); !errors.As(err, &field) || field.Field != "a.value" {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
