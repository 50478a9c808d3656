package salesforce

import (
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// What is mapped is noticed wherever it was edited, once, and by one call; what we have written ourselves is not.
func TestEditsOfOthersAreListed(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	create := func(object string, fields map[string]any) string {
		t.Helper()
		id, err := w.org.Create(object, fields)
		w.must(err)
		return id
	}
	account, err := w.org.CreateAccount(map[string]any{"Name": "Acme"})
	w.must(err)
	product := create("Product2", map[string]any{"Name": "Goods"})
	sealed := w.CreateDeals(1, "Closed Won")[0]
	other := w.CreateDeals(1, "Closed Won")[0]
	w.must(w.org.Update(sealed, map[string]any{"AccountId": account, "DealSeal_Transaction_ID__c": "tx"}))
	w.must(w.org.Update(other, map[string]any{"AccountId": account}))
	line, err := w.org.AddLineItem(sealed, map[string]any{"Quantity": 1, "UnitPrice": 5, "Product2Id": product})
	w.must(err)
	role, err := w.org.AddContactRole(sealed, map[string]any{"Role": "Decision Maker", "Contact": map[string]any{"LastName": "Doe"}})
	w.must(err)
	fields, _ := w.org.Record(role)
	contact := fields["ContactId"].(string)
	w.Advance(time.Hour)

	ask := connectors.EditsOf{Object: Object, Bearing: "DealSeal_Transaction_ID__c", From: w.Now(),
		Fields: []string{"Name", "Account.Name", "OpportunityLineItems.Quantity", "OpportunityLineItems.Product2.Name", "OpportunityContactRoles.Contact.LastName"}}
	look := func() []deal.Ref {
		t.Helper()
		edited, err := c.Edited(t.Context(), ask)
		w.must(err)
		if edited.More {
			t.Error("there is said to be more")
		}
		if edited.Next.Before(ask.From) {
			t.Errorf("the next question begins at %s, before %s", edited.Next, ask.From)
		}
		ask.From = edited.Next
		return edited.Refs
	}
	if refs := look(); len(refs) > 0 {
		t.Fatalf("%v is edited, though nothing is", refs)
	}
	calls := func() (n int) {
		for _, r := range w.org.Requests() {
			if !r.Sub {
				n++
			}
		}
		return n
	}
	of := []deal.Ref{{Object: Object, ID: sealed}}
	for id, change := range map[string]map[string]any{
		sealed:  {"Name": "another"},
		account: {"Name": "another"},
		line:    {"Quantity": 2},
		product: {"Name": "another"},
		contact: {"LastName": "another"},
		role:    {"Role": "Other"},
	} {
		w.Advance(time.Minute)
		w.must(w.org.Update(id, change))
		w.must(w.org.Update(other, map[string]any{"Name": "another"}))
		w.Advance(time.Minute)
		before := calls()
		if refs := look(); !slices.Equal(refs, of) {
			t.Errorf("after %v listed are %v, want %v", change, refs, of)
		}
		if n := calls() - before; n != 1 {
			t.Errorf("after %v it takes %d calls", change, n)
		}
		if refs := look(); len(refs) > 0 { // within the overlap
			t.Errorf("after %v listed again are %v", change, refs)
		}
	}

	w.Advance(time.Minute)
	w.must(c.WriteBack(t.Context(), of[0], deal.Receipt{Tx: "tx", Sequence: 1, Fields: []deal.Field{{Name: "DealSeal_Status__c", Value: "Signed"}}}))
	w.Advance(time.Minute)
	if refs := look(); len(refs) > 0 {
		t.Errorf("our own receipt is listed as an edit of %v", refs)
	}
}

// What one question shows is not lost because another fails: the one is noticed, and the other is asked again from where it was.
func TestAnEditIsNotLostWhenAnotherQuestionFails(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	sealed := w.CreateDeals(1, "Closed Won")[0]
	w.must(w.org.Update(sealed, map[string]any{"DealSeal_Transaction_ID__c": "tx"}))
	w.Advance(time.Hour)
	ask := connectors.EditsOf{Object: Object, Bearing: "DealSeal_Transaction_ID__c", From: w.Now(), Fields: []string{"Name", "OpportunityLineItems.Quantity"}}
	edited, err := c.Edited(t.Context(), ask) // which learns what there is
	w.must(err)
	ask.From = edited.Next
	w.Advance(time.Minute)
	w.must(w.org.Update(sealed, map[string]any{"Name": "another"}))
	w.Advance(time.Minute)

	w.org.Hide("OpportunityLineItem")
	failed, err := c.Edited(t.Context(), ask)
	if err == nil {
		t.Fatal("a question about what is hidden gets an answer")
	}
	if !failed.Next.Equal(ask.From) {
		t.Errorf("the next question begins at %s, want %s", failed.Next, ask.From)
	}
	w.org.Show("OpportunityLineItem")
	edited, err = c.Edited(t.Context(), ask)
	w.must(err)
	if refs, want := append(failed.Refs, edited.Refs...), []deal.Ref{{Object: Object, ID: sealed}}; !slices.Equal(refs, want) {
		t.Errorf("listed are %v, want %v", refs, want)
	}
}
