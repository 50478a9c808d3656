package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

// orderRule makes the contract of an order; what the order form takes of an Opportunity comes from elsewhere.
const orderRule = `  - {id: order, object: Order, start_from: 2020-01-01T00:00:00Z, when: {stage: Activated, filter: "TotalAmount > 1000"}, document: {template: order-form@1, fields: {
      contact.name: BillToContact.Name, contact.title: BillToContact.Title, contact.email: BillToContact.Email, effective_date: {date: EffectiveDate},
      lines: {from: OrderItems, each: {description: Product2.Name, code: Product2.ProductCode, note: Description, quantity: {number: Quantity}, unit_price: {money: UnitPrice}, amount: {money: TotalPrice}}},
      total: {sum: lines.amount, equals: TotalAmount}}}, seal: normal, write_back: %s}
`

func TestAnOrderIsSealedAsAnOpportunityIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	c := w.crms[0].(*salesforceCRM)
	file := w.path("tenants/" + c.tenant() + ".yaml")
	usual, err := os.ReadFile(file)
	must(t, err)
	rule := fmt.Sprintf(orderRule, c.writeBack())
	must(t, os.WriteFile(file, append(usual, strings.Replace(rule, "object: Order", "object: Ordre", 1)...), 0o600))
	if _, stderr, code := w.run(t, "check"); code != exitFailed || !strings.Contains(stderr, `did you mean "Order"?`) {
		t.Errorf("exit code %d of an object that nobody knows: %s", code, stderr)
	}
	must(t, os.WriteFile(file, append(usual, rule...), 0o600))
	if stdout, _, code := w.run(t, "doctor"); code == exitOK || !strings.Contains(stdout, "Order.Status is not tracked") || !strings.Contains(stdout, "Set History Tracking") {
		t.Errorf("exit code %d of an org that keeps no history of orders:\n%s", code, stdout)
	}

	c.org.Track("Order.Status", true)
	s := w.begin(t)
	account := c.id(c.org.CreateAccount(map[string]any{"Name": hiddenCustomer, "BillingCity": "Gotham"}))
	contact := c.id(c.org.CreateContact(map[string]any{"LastName": hiddenPerson, "Email": hiddenMail}))
	open := func(price float64) string {
		id := c.id(c.org.Create("Order", map[string]any{"Name": hiddenSubject, "AccountId": account, "BillToContactId": contact, "Status": "Draft", "EffectiveDate": "2026-12-01"}))
		c.id(c.org.AddLine(id, map[string]any{"Quantity": 3, "UnitPrice": price, "Product2": map[string]any{"Name": hiddenGoods}}))
		return id
	}
	small, big, deals := open(1), open(1234.5), c.open(sale{})
	for _, id := range []string{small, big} {
		c.update(id, "Status", "Activated")
	}
	c.move(deals, ruleContract)
	awaitDone(t, s.ops, deals)
	story := awaitDone(t, s.ops, big)
	mustBear(t, c, big, 1)
	if fields, _ := c.org.Record(big); fields["DealSeal_Status__c"] != "Signed" || fields["DealSeal_Transaction_ID__c"] != string(story.Sealing.Tx) || story.Sealing.Change.Ref.Object != "Order" {
		t.Errorf("the order shows %v and is %v", fields["DealSeal_Status__c"], story.Sealing.Change.Ref)
	}
	if n := contracts(c, small); n > 0 {
		t.Errorf("an order that the filter leaves out has %d contracts", n)
	}
	if stdout, stderr, code := s.run(t, "matrix"); code != exitOK || !strings.Contains(stdout, "Order ") {
		t.Errorf("the matrix does not show the order: exit %d\n%s%s", code, stdout, stderr)
	}
	s.daemon.stop(t)
}

// The history of orders is not kept here, and the rule accepts less.
func TestAnOrderWithoutHistoryIsFoundByWhatItShows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	c := w.crms[0].(*salesforceCRM)
	file := w.path("tenants/" + c.tenant() + ".yaml")
	usual, err := os.ReadFile(file)
	must(t, err)
	rule := fmt.Sprintf(strings.Replace(orderRule, "object: Order", "object: Order, detect: snapshot", 1), c.writeBack())
	must(t, os.WriteFile(file, append(usual, rule...), 0o600))
	if stdout, _, code := w.run(t, "doctor"); !strings.Contains(stdout, "inferred from snapshots") || strings.Contains(stdout, "is not tracked") {
		t.Errorf("exit code %d of the check-up, which does not say how orders are found:\n%s", code, stdout)
	}
	account := c.id(c.org.CreateAccount(map[string]any{"Name": hiddenCustomer, "BillingCity": "Gotham"}))
	contact := c.id(c.org.CreateContact(map[string]any{"LastName": hiddenPerson, "Email": hiddenMail}))
	open := func() string {
		id := c.id(c.org.Create("Order", map[string]any{"Name": hiddenSubject, "AccountId": account, "BillToContactId": contact, "Status": "Draft", "EffectiveDate": "2026-12-01"}))
		c.id(c.org.AddLine(id, map[string]any{"Quantity": 3, "UnitPrice": 1234.5, "Product2": map[string]any{"Name": hiddenGoods}}))
		return id
	}
	s := w.begin(t)
	id := open()
	c.update(id, "Status", "Activated")
	story := awaitDone(t, s.ops, id)
	mustBear(t, c, id, 1)
	if in := story.Sealing.Change.Inferred; in == nil || in.Unproven {
		t.Errorf("the entry is %+v", story.Sealing.Change)
	}
	if stdout, stderr, code := s.run(t, "explain", string(story.Sealing.Tx)); code != exitOK || strings.Count(stdout, "inferred from a snapshot") != 2 {
		t.Errorf("it is not explained how the entry was found: exit %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := s.run(t, "matrix"); code != exitOK || !strings.Contains(stdout, "order is found by snapshot: a record that enters the stage and leaves it between two polls is never noticed") {
		t.Errorf("the matrix does not say what is missed: exit %d\n%s%s", code, stdout, stderr)
	}
	s.daemon.stop(t)
}
