package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/dealseal/dealseal/documents"
)

func TestWhatIsMeasuredSharesNoTextWithTheSample(t *testing.T) {
	all, err := documents.LoadAll("../../templates")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []document{orderForm, nda, auditTrail} {
		b := all[d.bundle]
		text, _ := b.File(d.sample)
		sample := texts(t, text)
		for n := range 100 {
			record, err := d.record(b, n)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Validate(record); err != nil {
				t.Fatalf("%s, variation %d: %v", d.sample, n, err)
			}
			if again, err := d.record(b, n); err != nil || !bytes.Equal(again, record) {
				t.Fatalf("%s, variation %d is another one the second time (%v)", d.sample, n, err)
			}
			got := texts(t, record)
			if len(got) == 0 {
				t.Fatalf("%s: nothing is compared", d.sample)
			}
			for s := range got {
				if sample[s] {
					t.Fatalf("%s, variation %d has %q of the sample", d.sample, n, s)
				}
			}
		}
	}
}

// texts are those of a record that are long enough not to be equal by chance, as small figures are.
func texts(t *testing.T, record []byte) map[string]bool {
	t.Helper()
	var v any
	if err := json.Unmarshal(record, &v); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case string:
			if len(v) > 7 {
				found[v] = true
			}
		}
	}
	walk(v)
	return found
}
