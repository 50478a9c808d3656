package deal

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func tree(t testing.TB, text string) (v map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDifferencesNameFieldAndLine(t *testing.T) {
	for name, c := range map[string]struct {
		was, is string
		want    []Difference
	}{
		"same":             {`{"A":1,"B":{"C":"x"}}`, `{"A":1,"B":{"C":"x"}}`, nil},
		"number":           {`{"A":25000.0}`, `{"A":25000}`, nil},
		"exponent":         {`{"A":1e3}`, `{"A":1000}`, nil},
		"other number":     {`{"A":1}`, `{"A":1.01}`, []Difference{{Path: "A", Was: "1", Is: "1.01"}}},
		"text is no value": {`{"A":"1.0"}`, `{"A":"1"}`, []Difference{{Path: "A", Was: "1.0", Is: "1"}}},
		"absent is empty":  {`{"A":"","B":null}`, `{}`, nil},
		"cleared":          {`{"B":{"C":"x"}}`, `{"B":null}`, []Difference{{Path: "B.C", Was: "x"}}},
		"filled":           {`{}`, `{"B":{"C":"x"}}`, []Difference{{Path: "B.C", Is: "x"}}},
		"line changed":     {`{"L":[{"Q":1},{"Q":2}]}`, `{"L":[{"Q":1},{"Q":3}]}`, []Difference{{Path: "L.Q", Line: 2, Was: "2", Is: "3"}}},
		"line added":       {`{"L":[]}`, `{"L":[{"Q":1}]}`, []Difference{{Path: "L.Q", Line: 1, Is: "1"}}},
		"line removed":     {`{"L":[{"Q":1}]}`, `{}`, []Difference{{Path: "L.Q", Line: 1, Was: "1"}}},
		"other kind":       {`{"A":"x"}`, `{"A":{"B":1}}`, []Difference{{Path: "A", Was: "x", Is: `{"B":1}`}}},
		"truth":            {`{"A":true}`, `{"A":false}`, []Difference{{Path: "A", Was: "true", Is: "false"}}},
	} {
		if got := Differences(tree(t, c.was), tree(t, c.is)); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %s", name, cmp.Diff(c.want, got))
		}
	}
}

func FuzzDifferences(f *testing.F) {
	f.Add(`{"A":1,"L":[{"Q":1}]}`, `{"A":"1","L":[{"Q":1e9999999999},{}]}`)
	f.Fuzz(func(t *testing.T, was, is string) {
		if !json.Valid([]byte(was)) || !json.Valid([]byte(is)) || was[0] != '{' || is[0] != '{' {
			return // no record
		}
		a, b := tree(t, was), tree(t, is)
		if len(Differences(a, a)) > 0 {
			t.Errorf("%s differs from itself", was)
		}
		there, back := Differences(a, b), Differences(b, a)
		if len(there) > maxDifferences || len(there) != len(back) {
			t.Errorf("%d differences there, %d back", len(there), len(back))
		}
		for i := range min(len(there), len(back)) {
			if x, y := there[i], back[i]; x.Path != y.Path || x.Was != y.Is || x.Is != y.Was {
				t.Errorf("%+v there is %+v back", x, y)
			}
		}
	})
}

func TestDriftWordsFitTheirField(t *testing.T) {
	var w WriteBack
	if w.DriftWords(nil) != "" || w.DriftWords(&DriftFact{Fields: []string{"Amount", "Name"}}) != "Contract differs from CRM: Amount, Name" {
		t.Error("the words are wrong")
	}
	var many []string
	for range 40 {
		many = append(many, "OpportunityLineItems.Product2.Näme")
	}
	got := w.DriftWords(&DriftFact{Fields: many})
	if utf8.RuneCountInString(got) > MaxDriftText || !strings.HasSuffix(got, ", …") {
		t.Errorf("%d characters: %s", utf8.RuneCountInString(got), got)
	}
	if !slices.Contains(WriteBack{Drift: "D"}.Fields(), "D") {
		t.Error("the field is not among those that are written")
	}
}
