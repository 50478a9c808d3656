package connectortest

import (
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// parsed is a filter, with the fields that a probe is asked about.
func parsed(t *testing.T, text string) (*deal.Filter, []connectors.FilterField) {
	t.Helper()
	f, err := deal.ParseFilter(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var fields []connectors.FilterField
	for _, field := range f.Fields() {
		fields = append(fields, connectors.FilterField{Rule: "contract", FilterField: field})
	}
	return f, fields
}

// testProbeOfFilters holds that a field that does not exist, a list and a value of the wrong type are named with their column.
func testProbeOfFilters(t *testing.T, w World) {
	crm := prober(t, w)
	tr := w.Traits()
	for _, c := range []struct {
		filter string
		column int
		what   string
	}{
		{tr.Amount + " > 10000 AND " + tr.WriteBack.Status + " != NULL AND " + tr.WriteBack.TransactionID + " LIKE 'x%' AND " + tr.WriteBack.SignedAt + " < 2027-01-01T00:00:00Z", 0, ""},
		{tr.NoSuchField + " = 'x'", 1, tr.NoSuchField},
		{"NOT " + tr.Lines + "." + tr.LineQuantity + " > 5", 5, tr.Lines},
		{tr.Amount + " = 'many'", 1, "number"},
		{"(" + tr.WriteBack.TransactionID + " > 5)", 2, "text"},
		{tr.WriteBack.SignedAt + " = TRUE", 1, "time"},
	} {
		_, fields := parsed(t, c.filter)
		problems, err := crm.Probe(callContext(t), connectors.Probe{Object: w.Traits().Object, Filters: fields})
		if err != nil {
			t.Fatal(err)
		}
		if c.column == 0 {
			if len(problems) > 0 {
				t.Errorf("%s does not fit: %+v", c.filter, problems)
			}
			continue
		}
		if len(problems) != 1 || problems[0].Aspect != connectors.AspectFilter || problems[0].Rule != "contract" || problems[0].Warning || problems[0].Cure == "" ||
			!strings.HasPrefix(problems[0].What, "when.filter, column "+string(rune('0'+c.column))+": ") || !strings.Contains(problems[0].What+problems[0].Cure, c.what) {
			t.Errorf("of %s is said: %+v", c.filter, problems)
		}
	}
}

// testFilters holds that values mean in a filter what they mean in the CRM.
func testFilters(t *testing.T, w World) {
	crm := w.Connector(quiet())
	tr := w.Traits()
	id := w.CreateDeals(1, tr.Stage)[0]
	w.SetAmount(id, "12500.25")
	writeBack(t, crm, ref(w, id), receipt(w, txFor(id), 1, deal.StatusSigned))
	for text, want := range map[string]bool{
		tr.Amount + " > 12500":               true,
		tr.Amount + " = 12500.250":           true,
		tr.Amount + " < 9000":                false, // not as texts are compared
		tr.Amount + " IN (1, 12500.25)":      true,
		tr.Amount + " = NULL":                false,
		tr.WriteBack.URL + " LIKE 'HTTPS:%'": true,
		tr.WriteBack.SignedAt + " > 2026-11-20T21:30:14Z AND " + tr.WriteBack.SignedAt + " < 2026-11-20T21:30:16Z": true,
		tr.WriteBack.TransactionID + " = '" + strings.ToUpper(string(txFor(id))) + "'":                             true,
	} {
		f, _ := parsed(t, text)
		if got, err := f.Matches(read(t, crm, ref(w, id), f.Paths()...)); err != nil || got != want {
			t.Errorf("%s is %t, %v", text, got, err)
		}
	}
}
