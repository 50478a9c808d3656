package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/store"
)

// quoteRule makes the contract of a quote; what the order form takes of a deal comes from elsewhere.
const (
	quoteFields = "subject: hs_title, currency: hs_currency, effective_date: {date: hs_expiration_date}, contact.title: deal.dealname, total: {sum: lines.amount, equals: hs_quote_amount}"
	quoteRule   = `  - {id: quote-out, object: quotes, when: {stage: APPROVED, filter: "hs_quote_amount > 1000"},
     document: {template: order-form@1, fields: {` + quoteFields + `}}, seal: normal, write_back: %s}
`
)

// withQuotes are both CRMs, and an account whose records are quotes.
func withQuotes() []tenantOptions {
	return []tenantOptions{usualTenant(deal.Salesforce), usualTenant(deal.HubSpot), {id: "quotes", kind: deal.HubSpot, quotes: true}}
}

// quoteWorld is a HubSpot account whose quotes have the properties of receipts, with a rule for quotes beside those for deals.
func quoteWorld(t *testing.T) (*world, *hubspotCRM, func(rule string)) {
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.HubSpot}})
	c := w.crms[0].(*hubspotCRM)
	return w, c, w.watchQuotes(t, c)
}

// watchQuotes adds a rule for quotes to those of a tenant; what it returns puts another in its place.
func (w *world) watchQuotes(t *testing.T, c *hubspotCRM) (write func(rule string)) {
	t.Helper()
	file := w.path("tenants/" + c.tenant() + ".yaml")
	usual, err := os.ReadFile(file)
	must(t, err)
	write = func(rule string) {
		must(t, os.WriteFile(file, bytes.Replace(usual, []byte("\nrules:\n"), []byte("\nrules:\n"+rule), 1), 0o600))
	}
	write(fmt.Sprintf(quoteRule, strings.Replace(c.writeBack(), "{", "{drift: {field: dealseal_drift}, ", 1)))
	return write
}

// openQuote makes a draft of a quote, where all records are quotes.
func (c *hubspotCRM) openQuote(s sale) string {
	c.t.Helper()
	of, err := c.portal.CreateDeal(map[string]string{"dealname": hiddenSubject, "dealstage": "appointmentscheduled"})
	must(c.t, err)
	id := c.draft(of, "7407.00")
	if !s.nobody {
		c.addCustomer(id, hiddenCustomer)
	}
	if s.quote != nil {
		c.addFile(id, "Quote "+id+".pdf", s.quote)
	}
	return id
}

// quoteFor makes a draft of a quote for a deal, with a customer.
func (c *hubspotCRM) quoteFor(of, price string) string {
	c.t.Helper()
	id := c.draft(of, price)
	c.belong(id, "companies", map[string]string{"name": hiddenCustomer, "city": "Gotham"})
	return id
}

func (c *hubspotCRM) draft(of, price string) string {
	c.t.Helper()
	id, err := c.portal.Create("quotes", map[string]string{"hs_title": hiddenSubject, "hs_status": "DRAFT", "hs_expiration_date": "2026-12-31T00:00:00Z", "hs_currency": "EUR"})
	must(c.t, err)
	c.belong(id, "contacts", map[string]string{"firstname": hiddenPerson, "email": "quote-" + id + hiddenMail})
	c.belong(id, "line_items", map[string]string{"name": hiddenGoods, "quantity": "1", "price": price, "amount": price})
	must(c.t, c.portal.Associate("quotes", id, "deals", of, ""))
	return id
}

// belong makes what belongs to a quote.
func (c *hubspotCRM) belong(quote, objectType string, properties map[string]string) {
	c.t.Helper()
	other, err := c.portal.Create(objectType, properties)
	must(c.t, err)
	must(c.t, c.portal.Associate("quotes", quote, objectType, other, ""))
}

func (c *hubspotCRM) setQuote(id, property, value string) {
	c.t.Helper()
	must(c.t, c.portal.Update("quotes", id, map[string]string{property: value}))
}

// quoteContracts is how many contracts the notes of a quote carry.
func (c *hubspotCRM) quoteContracts(id string) (n int) {
	c.t.Helper()
	notes, err := c.portal.NotesOf("quotes", id)
	must(c.t, err)
	for _, note := range notes {
		for _, file := range note.AttachmentIDs {
			f, err := c.portal.FileByID(file)
			must(c.t, err)
			if (stored{f.Path, f.Content}).contract() {
				n++
			}
		}
	}
	return n
}

// sealedAs waits until the record of an object and an ID is sealed.
func sealedAs(t *testing.T, ops operations, ref deal.Ref) *store.Story {
	t.Helper()
	var found store.Summary
	eventually(t, ref.String()+" is sealed", func() (bool, string) {
		for _, s := range sealings(t, ops, ref.ID) {
			if s.Ref == ref {
				found = s
				return isDone(s), fmt.Sprintf("%s, %s: %s", s.Step, s.Condition, s.Reason)
			}
		}
		return false, "it was not noticed"
	})
	return storyOf(t, ops, found.Tx)
}

// IDs of HubSpot are unique within an object only: here the deal and its quote have the same one.
func TestAQuoteAndTheDealOfTheSameIDAreSealedOnceEach(t *testing.T) {
	t.Parallel()
	w, c, _ := quoteWorld(t)
	if stdout, _, code := w.run(t, "doctor"); code == exitOK || !strings.Contains(unwrapped(stdout), `quotes have no property "dealseal_transaction_id"`) {
		t.Errorf("exit code %d of quotes that lack the properties:\n%s", code, stdout)
	}
	c.addPropertiesOf("quotes")
	s := w.begin(t)
	id := c.open(sale{})
	big, small := c.quoteFor(id, "1234.50"), c.quoteFor(id, "1.00")
	if big != id {
		t.Fatalf("the quote is %s and the deal %s: they should have the same ID", big, id)
	}
	for _, quote := range []string{small, big} {
		c.setQuote(quote, "hs_status", "APPROVED")
	}
	c.move(id, ruleContract)
	ofDeal := sealedAs(t, s.ops, deal.Ref{Object: "deals", ID: id})
	ofQuote := sealedAs(t, s.ops, deal.Ref{Object: "quotes", ID: big})
	if n := len(sealings(t, s.ops, id)); n != 2 || ofDeal.Sealing.Tx == ofQuote.Sealing.Tx {
		t.Errorf("%d transactions of the deal and the quote", n)
	}
	mustUseTheKey(t, ofDeal, intents(ofQuote, "sign"))
	mustBear(t, c, id, 1)
	if n := c.quoteContracts(big); n != 1 {
		t.Errorf("the quote bears %d contracts", n)
	}
	if n, txs := c.quoteContracts(small), sealings(t, s.ops, small); n > 0 || len(txs) > 0 {
		t.Errorf("a quote that the filter leaves out has %d contracts and %d transactions", n, len(txs))
	}
	for object, tx := range map[string]deal.TxID{"deals": ofDeal.Sealing.Tx, "quotes": ofQuote.Sealing.Tx} {
		r, err := c.portal.RecordOf(object, id)
		must(t, err)
		if r.Properties["dealseal_transaction_id"] != string(tx) || r.Properties["dealseal_status"] != "signed" {
			t.Errorf("of %s the record shows %q, %q; want %s", object, r.Properties["dealseal_transaction_id"], r.Properties["dealseal_status"], tx)
		}
	}
	drift := func() (quote, ofDeal string) {
		q, err := c.portal.RecordOf("quotes", big)
		must(t, err)
		d, err := c.portal.Record(id)
		must(t, err)
		return q.Properties["dealseal_drift"], d.Properties["dealseal_drift"]
	}
	for _, title := range []string{hiddenSubject + " II", hiddenSubject} { // which the contract differs from, and agrees with again
		// What a poll tells of an edit is worth one comparison: one that is lost is made up for by the nightly pass, or here by
		// whoever edits again.
		waitFor(t, patience, time.Second, "the quote says whether its contract differs", func() (bool, string) {
			quote, ofDeal := drift()
			shown := (quote != "") == (title != hiddenSubject) && ofDeal == ""
			if !shown {
				c.setQuote(big, "hs_title", title)
			}
			return shown, fmt.Sprintf("%q, the deal %q", quote, ofDeal)
		})
	}
	i := slices.IndexFunc(sealings(t, s.ops, id), func(m store.Summary) bool { return m.Tx == ofQuote.Sealing.Tx })
	if url := sealings(t, s.ops, id)[i].RecordURL; !strings.HasSuffix(url, "/record/0-14/"+big) {
		t.Errorf("the page of the quote is said to be %s", url)
	}
	if stdout, stderr, code := s.run(t, "matrix"); code != exitOK || !strings.Contains(stdout, "quotes ") {
		t.Errorf("the matrix does not show the quotes: exit %d\n%s%s", code, stdout, stderr)
	}
	s.daemon.stop(t)
}

// TestAWebhookOfAQuoteWakesThePoller subscribes as the project says that provision writes, with an index that shows nothing.
func TestAWebhookOfAQuoteWakesThePoller(t *testing.T) {
	t.Parallel()
	secret := rand.Text()
	w := newPushWorld(t, tenantOptions{id: "contoso", kind: deal.HubSpot, push: func(w *world) string {
		return fmt.Sprintf("  - {source: hubspot, secrets: [%q]}\n", w.secretFile("app", secret))
	}})
	c := w.crms[0].(*hubspotCRM)
	w.watchQuotes(t, c)
	c.addPropertiesOf("quotes")
	project := w.path("project")
	if _, stderr, code := w.run(t, "provision", "--tenant", "contoso", "--project", project, "--url", senderURL+"/webhooks/contoso/hubspot"); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	definition, err := os.ReadFile(filepath.Join(project, "src/app/webhooks/webhooks-hsmeta.json"))
	must(t, err)
	s := w.begin(t)
	s.awaitPolled(t)
	must(t, c.portal.DefineWebhooks(definition, hubspot.Webhooks{Secret: secret, Client: s.daemon.sender(t)}))
	ctx, cancel := context.WithCancel(t.Context())
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		c.portal.Deliver(ctx)
	}()
	c.portal.SetIndexDelay(hubspot.Delay{Min: time.Hour, Max: time.Hour})
	id := c.open(sale{})
	quote := c.quoteFor(id, "1234.50")
	c.setQuote(quote, "hs_status", "APPROVED")
	c.move(id, ruleContract)
	sealedAs(t, s.ops, deal.Ref{Object: "quotes", ID: quote})
	sealedAs(t, s.ops, deal.Ref{Object: "deals", ID: id})
	if n := c.quoteContracts(quote); n != 1 {
		t.Errorf("the quote bears %d contracts", n)
	}
	cancel()
	<-delivered
	s.daemon.stop(t)
}

func TestARuleForQuotesIsRefusedForWhatCannotBe(t *testing.T) {
	t.Parallel()
	w, c, write := quoteWorld(t)
	c.addPropertiesOf("quotes")
	rule := fmt.Sprintf(quoteRule, c.writeBack())
	for name, tc := range map[string]struct {
		old, new, command string
		want              []string
	}{
		"no such object":    {"object: quotes", "object: Quote", "check", []string{`"Quote" cannot be watched`, `"quotes"`}},
		"a pipeline":        {"stage: APPROVED", "pipeline: default, stage: APPROVED", "check", []string{"when.pipeline", "quotes are in no pipeline"}},
		"a move":            {"seal: normal", "move: {signed: REJECTED}, seal: normal", "check", []string{"dealseal moves no quotes"}},
		"no such status":    {"stage: APPROVED", "stage: WON", "doctor", []string{`no status "WON" of quotes`, "DRAFT, APPROVAL_NOT_NEEDED, PENDING_APPROVAL, APPROVED, REJECTED"}},
		"a status misspelt": {"stage: APPROVED", "stage: APROVED", "doctor", []string{`did you mean "APPROVED"`}},
		"no such field":     {"deal.dealname", "deal.nonsense", "doctor", []string{`deals have no property "nonsense"`}},
	} {
		if !strings.Contains(rule, tc.old) {
			t.Fatalf("%s: the rule has no %q", name, tc.old)
		}
		write(strings.Replace(rule, tc.old, tc.new, 1))
		stdout, stderr, code := w.run(t, tc.command)
		for _, want := range tc.want {
			if code == exitOK || !strings.Contains(unwrapped(stdout+stderr), want) {
				t.Errorf("%s: exit %d, without %q:\n%s%s", name, code, want, stdout, stderr)
			}
		}
	}
}

// unwrapped is text without the line breaks that make it fit a terminal.
func unwrapped(text string) string { return strings.Join(strings.Fields(text), " ") }
