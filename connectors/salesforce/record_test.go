package salesforce

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func TestRecordHasParentsListsAndRolesAsTheyWereAskedFor(t *testing.T) {
	w := newWorld(t, "")
	account, err := w.org.CreateAccount(map[string]any{"Name": `O'Brien \ "Sons"`, "BillingCity": "Łódź"})
	w.must(err)
	id, err := w.org.CreateOpportunity(map[string]any{"Name": "Deal", "AccountId": account, "StageName": "Closed Won", "CloseDate": "2026-12-01"})
	w.must(err)
	_, err = w.org.AddContactRole(id, map[string]any{"Contact": map[string]any{"LastName": "Kowalska", "Email": "k@example.com"}, "Role": "Decision Maker", "IsPrimary": true})
	w.must(err)
	w.AddLine(id, "Licence", "2", "12.50")

	rec, err := w.connector(nil).Record(t.Context(), deal.Ref{Object: Object, ID: id[:15]}, []string{
		"Name", "CloseDate", "Account.Name", "Account.BillingCity", "Account.Owner.Email", "CurrencyIsoCode", "NextStep",
		"OpportunityLineItems.Quantity", "OpportunityLineItems.Product2.Name", "OpportunityLineItems.CurrencyIsoCode",
		"OpportunityContactRoles.IsPrimary", "OpportunityContactRoles.Contact.Email",
	})
	w.must(err)
	want := map[string]any{
		"Name": "Deal", "CloseDate": "2026-12-01",
		"Account": map[string]any{"Name": `O'Brien \ "Sons"`, "BillingCity": "Łódź"},
		"OpportunityLineItems": []any{
			map[string]any{"Quantity": json.Number("2.0"), "Product2": map[string]any{"Name": "Licence"}},
		},
		"OpportunityContactRoles": []any{
			map[string]any{"IsPrimary": true, "Contact": map[string]any{"Email": "k@example.com"}},
		},
	}
	// The owner's address depends on the mock's users.
	if owner, ok := rec.Values["Account"].(map[string]any)["Owner"].(map[string]any); !ok || owner["Email"] == "" {
		t.Errorf("the account's owner is %v", owner)
	}
	delete(rec.Values["Account"].(map[string]any), "Owner")
	if diff := cmp.Diff(want, rec.Values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if rec.Ref.ID != id {
		t.Errorf("the 15-character ID is read as %s, want %s", rec.Ref.ID, id)
	}
}

func TestRecordCostsOneCallOnceTheSchemaIsKnown(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	fields := []string{"Amount", "Account.Name", "OpportunityLineItems.Product2.Name", "CurrencyIsoCode"}
	for i := range 3 {
		before := len(w.org.Requests())
		if _, err := c.Record(t.Context(), deal.Ref{Object: Object, ID: id}, fields); err != nil {
			t.Fatal(err)
		}
		if n := len(w.org.Requests()) - before; i > 0 && n != 1 {
			t.Errorf("reading %d cost %d calls, want 1", i+1, n)
		}
		w.Advance(time.Hour)
	}
}

func TestFieldAddedLaterIsFoundWithoutARestart(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	w.org.Hide("Opportunity.NextStep")
	if _, err := c.Record(t.Context(), deal.Ref{Object: Object, ID: id}, []string{"NextStep"}); !deal.IsPermanent(err) {
		t.Fatalf("a hidden field gives %v", err)
	}
	w.org.Show("Opportunity.NextStep")
	w.Advance(2 * freshEnough)
	if _, err := c.Record(t.Context(), deal.Ref{Object: Object, ID: id}, []string{"NextStep"}); err != nil {
		t.Errorf("after the administrator has shown it: %v", err)
	}
}

func TestWrongPathsAreNamed(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	for path, want := range map[string]string{
		"amount":                             `did you mean "Amount"?`,
		"Acount.Name":                        `no relationship "Acount"`,
		"Account.Nme":                        `no field "Nme"`,
		"OpportunityLineItems.Product2.Nme":  `no field "Nme"`,
		"Account.Owner.Account.Owner.X.Y.Z":  "more than 5",
		"OpportunityLineItems":               `no field "OpportunityLineItems"`,
		"Name, (SELECT Id FROM Contacts)":    "no path",
		"Account.":                           "no path",
		strings.Repeat("x", 200):             "no path",
		"OpportunityLineItems.Opportunity.%": "no path",
	} {
		_, err := c.Record(t.Context(), deal.Ref{Object: Object, ID: id}, []string{path})
		if !deal.IsPermanent(err) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s gives %v, want %q", path, err, want)
		}
	}
}

func TestRecordPageIsOnTheHostOfTheUserInterface(t *testing.T) {
	for domain, want := range map[string]string{
		"https://acme.my.salesforce.com":              "https://acme.lightning.force.com/lightning/r/Opportunity/006/view",
		"https://acme--uat.sandbox.my.salesforce.com": "https://acme--uat.sandbox.lightning.force.com/lightning/r/Opportunity/006/view",
		"http://127.0.0.1:8201":                       "http://127.0.0.1:8201/lightning/r/Opportunity/006/view",
	} {
		if got := (&Connector{cfg: Config{MyDomain: domain}}).page(Object, "006"); got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
}

func TestCanonicalID(t *testing.T) {
	for in, want := range map[string]string{
		mock.ID18("006Ws00000AbCdE")[:15]: mock.ID18("006Ws00000AbCdE"),
		mock.ID18("006Ws00000AbCdE"):      mock.ID18("006Ws00000AbCdE"),
		"006000000000000":                 "006000000000000AAA",
	} {
		if got, err := CanonicalID(in); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "006", "006Ws00000AbCd'", "006Ws00000AbCdEAAA", "006Ws00000AbCdÉ"} {
		if got, err := CanonicalID(bad); err == nil {
			t.Errorf("%q is accepted as %s", bad, got)
		}
	}
}

func TestQuoteEscapesWhatSOQLEscapes(t *testing.T) {
	if got, want := quote("a'b\\c\nd"), `'a\'b\\c\nd'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
