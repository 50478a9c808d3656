package documents

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

func TestComposeMakesTheSameCanonicalRecordOfTheSameValues(t *testing.T) {
	b := mustBundle(t)
	got, err := b.Compose("salesforce", opportunity(nil), nil, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"currency":"EUR","customer":{"name":"Zażółć Sp. z o.o."},` +
		`"lines":[{"amount":{"currency":"EUR","text":"EUR` + nbsp + `1,000.50","value":"1000.50"},"description":"Gateway","quantity":{"text":"2","value":"2"},` +
		`"unit_price":{"currency":"EUR","text":"EUR` + nbsp + `500.25","value":"500.25"}},` +
		`{"amount":{"currency":"EUR","text":"EUR` + nbsp + `250.00","value":"250.00"},"description":"Set-up","quantity":{"text":"1","value":"1"},` +
		`"unit_price":{"currency":"EUR","text":"EUR` + nbsp + `250.00","value":"250.00"}}],` +
		`"meta":{"date":{"text":"21` + nbsp + `November 2026","value":"2026-11-21"},"locale":"en-GB","template":"offer@2","time":"2026-11-20T23:30:00Z","tx":"k7q2m5x4n6h3j8w9r2b5c7d4e6"},` +
		`"seller":{"address":"1 High Street","name":"Acme Ltd"},` +
		`"start":{"text":"1` + nbsp + `December 2026","value":"2026-12-01"},` +
		`"total":{"currency":"EUR","text":"EUR` + nbsp + `1,250.50","value":"1250.50"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if err := b.Validate(got); err != nil {
		t.Errorf("a composed record is not valid: %v", err)
	}
	again, err := b.Compose("salesforce", opportunity(nil), nil, testMeta())
	if err != nil || string(again) != string(got) {
		t.Errorf("a second record differs (%v)", err)
	}
}

func TestValueTypesSayWhatBecomesOfEachPath(t *testing.T) {
	b := mustBundle(t)
	got, err := b.ValueTypes("salesforce", map[string]any{
		"subject":  map[string]any{"join": []any{"Name", "Amount"}}, // printed here, counted elsewhere
		"due":      map[string]any{"date": "CloseDate"},
		"discount": map[string]any{"number": "Lines.0.Discount"},
		"amount2":  map[string]any{"money": "Amount", "currency": "CurrencyIsoCode"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]deal.ValueType{
		"Name": deal.TextValue, "Amount": deal.NumberValue, "CloseDate": deal.DateValue, "Lines.Discount": deal.NumberValue, "CurrencyIsoCode": deal.TextValue,
	} {
		if got[path] != want {
			t.Errorf("%s becomes %q, want %q", path, got[path], want)
		}
	}
}

func TestPathsNamesWhatTheCRMHasToDeliver(t *testing.T) {
	b := mustBundle(t)
	got, err := b.Paths("salesforce", map[string]any{
		"currency":     map[string]any{"value": "EUR"},
		"contact.name": map[string]any{"join": []any{"OpportunityContactRoles.0.Contact.FirstName", "OpportunityContactRoles.0.Contact.LastName"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Account.Name", "Amount", "CloseDate", "OpportunityContactRoles.Contact.FirstName", "OpportunityContactRoles.Contact.LastName",
		"OpportunityLineItems.Product2.Name", "OpportunityLineItems.Quantity", "OpportunityLineItems.TotalPrice", "OpportunityLineItems.UnitPrice",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := b.Paths("hubspot", nil); err == nil || !strings.Contains(err.Error(), "hubspot") {
		t.Errorf("a kind without fields: %v", err)
	}
}

func TestOverridesReplaceAndAddSources(t *testing.T) {
	b := mustBundle(t)
	overrides := map[string]any{
		"customer.name":        map[string]any{"join": []any{"Account.Name", "Account.Site", "Name"}, "with": " / "},
		"seller.address":       map[string]any{"value": "2 Low Street"},
		"terms":                map[string]any{"value": "60 days"},
		"lines":                map[string]any{"from": "OpportunityLineItems", "each": map[string]any{"description": "Product2.Name", "amount": map[string]any{"product": []any{"Quantity", "UnitPrice"}, "less": "Discount"}}},
		"first.customer.title": "OpportunityContactRoles.1.Contact.Title",
	}
	values := opportunity(map[string]any{
		"Name": " De\r\nal e\u0301 ", "Amount": "110.02",
		"OpportunityContactRoles": []map[string]any{{}, {"Contact": map[string]any{"Title": "CEO"}}},
		"OpportunityLineItems": []any{
			map[string]any{"Product2": map[string]any{"Name": "A"}, "Quantity": "3", "UnitPrice": "33.335", "Discount": json.Number("0")}, // 100.005, rounded once to 100.01
			map[string]any{"Product2": map[string]any{"Name": "B"}, "Quantity": "1", "UnitPrice": "11.125", "Discount": "10"},             // 10.0125
		},
	})
	out, err := b.Compose("salesforce", values, overrides, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	var record any
	if err := json.Unmarshal(out, &record); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"customer.name": "Zażółć Sp. z o.o. / De\nal é", "seller.address": "2 Low Street", "terms": "60 days", "total.value": "110.02", "first.customer.title": "CEO",
	} {
		if got := get(record, path); got != want {
			t.Errorf("%s is %v, want %s", path, got, want)
		}
	}
	for _, bad := range []map[string]any{{"x": 5}, {"x": "a..b"}, {"meta.tx": "Name"}, {"total.more": "Name"}, {"x": map[string]any{"money": "Amount", "currency": map[string]any{"date": "X"}}}} {
		if _, err := b.Compose("salesforce", values, bad, testMeta()); err == nil {
			t.Errorf("accepted the override %v", bad)
		}
	}
}

func TestComposeHoldsWithTheFieldAsReason(t *testing.T) {
	noName := func(v any) map[string]any { return map[string]any{"Account": map[string]any{"Name": v}} }
	line := func(k string, v any) map[string]any {
		l := map[string]any{"Product2": map[string]any{"Name": "A"}, "Quantity": "1", "UnitPrice": "1", "TotalPrice": "1250.50"}
		l[k] = v
		return map[string]any{"OpportunityLineItems": []any{l}}
	}
	cases := []struct {
		name          string
		changes       map[string]any
		field, source string
	}{
		{"null", noName(nil), "customer", ""},
		{"empty", noName(""), "customer", ""},
		{"white space", noName(" \t\u00a0\u200b"), "customer", ""},
		{"no parent", map[string]any{"Account": nil}, "customer", ""},
		{"no date", map[string]any{"CloseDate": nil}, "start", "CloseDate"},
		{"bad date", map[string]any{"CloseDate": "tomorrow"}, "start", "CloseDate"},
		{"impossible date", map[string]any{"CloseDate": "2026-02-30"}, "start", "CloseDate"},
		{"too long", noName(strings.Repeat("x", 61)), "customer.name", "Account.Name"},
		{"a list for a value", map[string]any{"Account": map[string]any{"Name": []any{"x"}}}, "customer.name", "Account.Name"},
		{"blank in a line", line("Product2", map[string]any{"Name": " "}), "lines.0.description", "OpportunityLineItems.Product2.Name"},
		{"no number", line("Quantity", "many"), "lines.0.quantity", "OpportunityLineItems.Quantity"},
		{"float", line("TotalPrice", 1250.5), "lines.0.amount", "OpportunityLineItems.TotalPrice"},
		{"no line amount", line("TotalPrice", nil), "lines.0.amount", ""},
		{"absurd exponent", line("TotalPrice", "1e99"), "lines.0.amount", "OpportunityLineItems.TotalPrice"},
		{"hexadecimal", line("TotalPrice", "0x10"), "lines.0.amount", "OpportunityLineItems.TotalPrice"},
		{"no currency", map[string]any{"CurrencyIsoCode": nil}, "lines.0.amount", ""},
		{"unknown currency", map[string]any{"CurrencyIsoCode": "EURO"}, "lines.0.amount", ""},
		{"no CRM amount", map[string]any{"Amount": nil}, "total", "Amount"},
		{"lines are no list", map[string]any{"OpportunityLineItems": "x"}, "lines", "OpportunityLineItems"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := mustBundle(t).Compose("salesforce", opportunity(c.changes), nil, testMeta())
			var field *FieldError
			if !errors.As(err, &field) {
				t.Fatalf("error %v, want a FieldError", err)
			}
			if field.Field != c.field || c.source != "" && field.Source != c.source {
				t.Errorf("field %q from %q, want %q from %q", field.Field, field.Source, c.field, c.source)
			}
			if !strings.Contains(err.Error(), c.field) || !field.Permanent() {
				t.Errorf("the error %q does not hold with the field's name", err)
			}
		})
	}
}

func TestSchemaFaultsNameEveryFieldAndQuoteNoValue(t *testing.T) {
	b := mustBundle(t, "schema.json", `{"type":"object","required":["a","b"],"properties":{"a":{},"b":{},
	  "c":{"pattern":"^x$"},"d":{"enum":["yes"]},"e":{"type":"string","format":"date"},"f":{"type":"number"},"g":{"maxItems":1},"h":{"minLength":20}},"additionalProperties":false}`)
	record := `{"a":"\u00a0 ","c":"SECRET1","d":"SECRET2","e":"SECRET3","f":"SECRET4","g":["SECRET5","x"],"h":"SECRET6","zzz":"SECRET7"}`
	err := b.Validate([]byte(record))
	var field *FieldError
	if !errors.As(err, &field) {
		t.Fatal(err)
	}
	if strings.Contains(err.Error(), "SECRET") {
		t.Errorf("the error quotes a value: %v", err)
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "zzz"} {
		if !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
}

func TestTotalsThatDifferFromTheCRMHoldTheDeal(t *testing.T) {
	cases := []struct {
		check  string
		amount string
		held   bool
	}{
		{"exact", "1250.50", false},
		{"exact", "1250.500", false},
		{"exact", "1250.51", true},
		{"exact", "1250.5000000001", true},
		{`{tolerance: "0.05"}`, "1250.55", false},
		{`{tolerance: "0.05"}`, "1250.45", false},
		{`{tolerance: "0.05"}`, "1250.5501", true},
		{`{off: "discounts are agreed by mail"}`, "1", false},
	}
	for _, c := range cases {
		b := mustBundle(t, ManifestFile, manifestWith("amount_check: exact", "amount_check: "+c.check))
		_, err := b.Compose("salesforce", opportunity(map[string]any{"Amount": json.Number(c.amount)}), nil, testMeta())
		var amount *AmountError
		if errors.As(err, &amount) != c.held || !c.held && err != nil {
			t.Errorf("%s with %s: %v", c.check, c.amount, err)
			continue
		}
		if !c.held {
			continue
		}
		if strings.Contains(err.Error(), "1250") || !strings.Contains(err.Error(), `"total"`) || !strings.Contains(err.Error(), `"Amount"`) {
			t.Errorf("the error must name both places and no figure: %v", err)
		}
		if computed, stated := amount.Figures(); computed != "1250.5" || stated == "" {
			t.Errorf("figures %s and %s", computed, stated)
		}
	}
}

func TestMoneyIsRoundedOnceToTheCurrencysExponent(t *testing.T) {
	for _, c := range []struct{ amount, currency, want string }{
		{"0.005", "EUR", "0.01"}, {"-0.005", "EUR", "-0.01"}, {"0.0049999999999999999999", "EUR", "0.00"}, {"-0.001", "EUR", "0.00"},
		{"2.675", "USD", "2.68"}, {"1234.5", "JPY", "1235"}, {"1.2345", "KWD", "1.235"}, {"999999999999999", "EUR", "999999999999999.00"},
	} {
		d, err := parseDecimal(c.amount)
		if err != nil {
			t.Fatal(err)
		}
		f, err := newFormatter("en")
		if err != nil {
			t.Fatal(err)
		}
		v, err := moneyValue(f, d, c.currency)
		if err != nil || v["value"] != c.want {
			t.Errorf("%s %s is %v (%v), want %s", c.amount, c.currency, v["value"], err, c.want)
		}
	}
	if _, err := parseDecimal("1000000000000000"); err == nil {
		t.Error("accepted 16 digits")
	}
}

func TestFiguresAndDaysAreWrittenForTheLocale(t *testing.T) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ locale, money, date string }{
		{"en-GB", "EUR~1,234,567.50", "1~March 2026"}, {"de-DE", "1.234.567,50~EUR", "1.~März 2026"},
		{"fr-FR", "1~234~567,50~EUR", "1~mars 2026"}, {"pl", "1~234~567,50~EUR", "1~marca 2026"},
		{"en-IN", "EUR~12,34,567.50", "1~March 2026"}, {"es", "1.234.567,50~EUR", "1~de marzo de 2026"},
		{"ar", "EUR~1,234,567.50", "2026-03-01"}, {"ja", "EUR~1,234,567.50", "2026-03-01"},
	} {
		f, err := newFormatter(c.locale)
		if err != nil {
			t.Fatal(err)
		}
		money, err := f.money("1234567.50", "EUR")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(money, nbsp, "~"); got != c.money {
			t.Errorf("%s: %q, want %q", c.locale, got, c.money)
		}
		if got := strings.ReplaceAll(f.date(day), nbsp, "~"); got != c.date {
			t.Errorf("%s: %q, want %q", c.locale, got, c.date)
		}
	}
}

func TestTimesBecomeTheDayInTheTenantsZone(t *testing.T) {
	zone := time.FixedZone("east", 3*3600)
	for in, want := range map[string]string{
		"2026-12-01": "2026-12-01", "2026-12-01T22:30:00Z": "2026-12-02", "2026-12-01T22:30:00.000+0000": "2026-12-02",
		"2026-12-01T00:00:00.000-0500": "2026-12-01", "1796083200000": "2026-12-01",
	} {
		got, err := parseDay(in, zone)
		if err != nil || got.Format(time.DateOnly) != want {
			t.Errorf("%s is %v (%v), want %s", in, got, err, want)
		}
	}
}

func TestHubSpotValuesComposeToo(t *testing.T) {
	all, err := LoadAll("../templates")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{
		"dealname": "Renewal", "amount": "20.50", "closedate": "2026-12-01T00:00:00Z", "deal_currency_code": "USD",
		"company":  map[string]any{"name": "Brightwater", "address": "", "city": "Hamburg", "country": "Germany"},
		"contacts": []any{map[string]any{"firstname": "Jana", "lastname": "Köhler", "email": "jana@brightwater.example"}},
		"line_items": []any{
			map[string]any{"name": "Seat", "quantity": "2", "price": "10.25", "amount": "20.50", "hs_sku": "S-1"},
		},
		"owner": map[string]any{"firstName": "Priya", "lastName": "Raman"},
	}
	out, err := all["order-form@1"].Compose("hubspot", values, nil, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	var record any
	if err := json.Unmarshal(out, &record); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"customer.address": "Hamburg, Germany", "contact.name": "Jana Köhler", "owner.name": "Priya Raman", "total.text": "USD" + nbsp + "20.50", "subject": "Renewal",
	} {
		if got := get(record, path); got != want {
			t.Errorf("%s is %v, want %s", path, got, want)
		}
	}
	if _, err := all["nda@1"].Compose("hubspot", values, nil, testMeta()); err != nil {
		t.Errorf("nda: %v", err)
	}
	delete(values, "company")
	_, err = all["nda@1"].Compose("hubspot", values, nil, testMeta())
	var field *FieldError
	if !errors.As(err, &field) || field.Field != "counterparty" {
		t.Errorf("no company: %v", err)
	}
}

func FuzzCompose(f *testing.F) {
	f.Add([]byte(`{"Account":{"Name":"A"},"CloseDate":"2026-12-01","CurrencyIsoCode":"EUR","Amount":1,"OpportunityLineItems":[{"Product2":{"Name":"x"},"TotalPrice":1}]}`))
	f.Add([]byte(`{"Account":[],"OpportunityLineItems":[null]}`))
	f.Add([]byte(`{"Account":{"Name":"\u202e"},"CloseDate":1,"Amount":"1e-99"}`))
	b := mustBundle(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		hostile.Budget(t)
		v, err := decodeJSON(text)
		values, ok := v.(map[string]any)
		if err != nil || !ok {
			return
		}
		record, err := b.Compose("salesforce", values, nil, testMeta())
		if err != nil {
			return
		}
		if err := b.Validate(record); err != nil {
			t.Errorf("composed what is not valid: %v", err)
		}
		if _, err := b.Prepare(record); err != nil {
			t.Errorf("composed what cannot be prepared: %v", err)
		}
	})
}
