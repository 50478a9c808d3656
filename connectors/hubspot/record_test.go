package hubspot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func dealRef(id string) deal.Ref { return deal.Ref{Object: Object, ID: id} }

func readRecord(t *testing.T, c *Connector, id string, fields ...string) deal.Record {
	t.Helper()
	r, err := c.Record(t.Context(), dealRef(id), fields)
	if err != nil {
		t.Fatalf("Record: %v", err)
	}
	return r
}

func TestRecordReadsWhatBelongsToTheDeal(t *testing.T) {
	w := newWorld(t, FlowToken)
	owner := w.portal.AddOwner(mock.Owner{Email: "sales@example.com", FirstName: "Zoë", LastName: "Ng"})
	id, err := w.portal.CreateDeal(map[string]string{
		"dealname": "Wartung – Müller & Söhne", "amount": "1200.10", "pipeline": "default", "dealstage": "contractsent", "hubspot_owner_id": owner,
	})
	w.must(err)
	add := func(_ string, err error) { t.Helper(); w.must(err) }
	older, err := w.portal.Create("companies", map[string]string{"name": "Other Ltd"})
	w.must(err)
	add(w.portal.AddCompany(id, map[string]string{"name": "Primary Ltd", "city": "Łódź"}))
	w.must(w.portal.Associate("deals", id, "companies", older, ""))
	add(w.portal.AddContact(id, map[string]string{"email": "first@example.com"}, ""))
	add(w.portal.AddContact(id, map[string]string{"email": "signer@example.com", "firstname": "Ana"}, "Signer"))
	add(w.portal.AddContact(id, map[string]string{"email": "buyer@example.com"}, "Buyer"))
	add(w.portal.AddLineItem(id, map[string]string{"name": "no position", "quantity": "1"}))
	add(w.portal.AddLineItem(id, map[string]string{"name": "tenth", "quantity": "1", "hs_position_on_quote": "10"}))
	add(w.portal.AddLineItem(id, map[string]string{"name": "second", "quantity": "2.5", "hs_position_on_quote": "2"}))

	r := readRecord(t, w.connector(quiet()), id, "dealname", "amount", "closedate", "company.name", "company.city", "contacts.email", "contacts.firstname",
		"line_items.name", "line_items.quantity", "owner.email", "owner.firstName", "owner.id")
	want := map[string]any{
		"dealname": "Wartung – Müller & Söhne", "amount": "1200.10",
		"company": map[string]any{"name": "Primary Ltd", "city": "Łódź"},
		"contacts": []any{
			map[string]any{"email": "buyer@example.com"},
			map[string]any{"email": "signer@example.com", "firstname": "Ana"},
			map[string]any{"email": "first@example.com"},
		},
		"line_items": []any{
			map[string]any{"name": "second", "quantity": "2.5"},
			map[string]any{"name": "tenth", "quantity": "1"},
			map[string]any{"name": "no position", "quantity": "1"},
		},
		"owner": map[string]any{"email": "sales@example.com", "firstName": "Zoë", "id": owner},
	}
	if diff := cmp.Diff(want, r.Values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if want := "https://app-eu1.hubspot.com/contacts/62515/record/0-3/" + id; r.URL != want || r.Stage != "contractsent" {
		t.Errorf("URL %s, stage %s, want %s, contractsent", r.URL, r.Stage, want)
	}
}

func TestRecordWithoutCompanyContactsAndOwnerHasNone(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	r := readRecord(t, w.connector(quiet()), id, "company.name", "contacts.email", "owner.email", "amount")
	if diff := cmp.Diff(map[string]any{"contacts": []any{}}, r.Values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestOwnerWhoHasLeftIsStillNamed(t *testing.T) {
	w := newWorld(t, FlowToken)
	owner := w.portal.AddOwner(mock.Owner{Email: "gone@example.com", Archived: true})
	id, err := w.portal.CreateDeal(map[string]string{"dealname": "x", "dealstage": "contractsent", "hubspot_owner_id": owner})
	w.must(err)
	if got := readRecord(t, w.connector(quiet()), id, "owner.email").Text("owner.email"); got != "gone@example.com" {
		t.Errorf("owner.email = %q", got)
	}
}

func TestLongListsOfPropertiesDoNotMakeTheURLTooLong(t *testing.T) {
	w := newWorld(t, FlowToken)
	var fields []string
	values := map[string]string{"dealname": "x", "dealstage": "contractsent"}
	for i := range 120 {
		name := fmt.Sprintf("custom_property_with_a_long_name_%03d", i)
		w.must(w.portal.AddProperty("deals", mock.Property{Name: name, Label: name, Type: "string", FieldType: "text", GroupName: "dealinformation"}))
		fields = append(fields, name)
		values[name] = fmt.Sprint("value ", i)
	}
	ids := make([]string, 2)
	for i := range ids {
		id, err := w.portal.CreateDeal(values)
		w.must(err)
		ids[i] = id
	}
	merged, err := w.Merge(ids[0], ids[1])
	w.must(err)
	r := readRecord(t, w.connector(quiet()), ids[1], fields...)
	if r.Ref.ID != merged || len(r.Values) != len(fields) || r.Text(fields[119]) != "value 119" {
		t.Errorf("record %s with %d values, the last is %q; want %s with %d", r.Ref.ID, len(r.Values), r.Text(fields[119]), merged, len(fields))
	}
	for _, q := range w.portal.Requests() {
		if len(q.Path)+len(q.Query) > 4000 {
			t.Errorf("a URL has %d characters", len(q.Path)+len(q.Query))
		}
	}
}

func TestPropertiesThatDoNotExistAreNamed(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	for _, add := range []func() (string, error){
		func() (string, error) { return w.portal.AddCompany(id, map[string]string{"name": "c"}) },
		func() (string, error) {
			return w.portal.AddContact(id, map[string]string{"email": "a@example.com"}, "")
		},
		func() (string, error) { return w.portal.AddLineItem(id, map[string]string{"name": "l"}) },
	} {
		_, err := add()
		w.must(err)
	}
	for _, field := range []string{"company.no_such", "contacts.no_such", "line_items.no_such", "owner.no_such", "companies.name", "quotes.title"} {
		_, err := w.connector(quiet()).Record(t.Context(), dealRef(id), []string{field})
		name := field[strings.Index(field, ".")+1:]
		if strings.HasPrefix(field, "companies") || strings.HasPrefix(field, "quotes") {
			name = field
		}
		if !deal.IsPermanent(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("reading %q gives %v, want a permanent error that names it", field, err)
		}
	}
}

func TestDealWithManyLinesIsReadWhole(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	const lines = 612 // more than a page of associations, and than a batch
	for i := range lines {
		w.AddLine(id, fmt.Sprint("line ", i), "1", "0.01")
	}
	list, _ := readRecord(t, w.connector(quiet()), id, "line_items.name").Lookup("line_items").([]any)
	if len(list) != lines {
		t.Fatalf("%d lines, want %d", len(list), lines)
	}
	for i, l := range list {
		if got := l.(map[string]any)["name"]; got != fmt.Sprint("line ", i) {
			t.Fatalf("line %d is %v", i, got)
		}
	}
}

func TestModifiedIsTheDealsOwnTime(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	at := w.Now()
	w.Advance(time.Hour)
	if got := readRecord(t, w.connector(quiet()), id).Modified; !got.Equal(at) {
		t.Errorf("Modified = %s, want %s", got, at)
	}
}
