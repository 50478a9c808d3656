package hubspot

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

// quote makes a quote in a status.
func (w *world) quote(status string) string {
	id, err := w.portal.Create("quotes", map[string]string{"hs_title": "Wartung", "hs_status": status, "hs_expiration_date": "2026-12-31"})
	w.must(err)
	return id
}

// allScopesBut is a world whose app lacks a scope.
func allScopesBut(t *testing.T, but string) *world {
	return newWorldWith(t, FlowToken, func(o *mock.Options) {
		o.Tokens[0].Scopes = slices.DeleteFunc(mock.AllScopes(), func(s string) bool { return s == but })
	})
}

// both watches deals and quotes.
func both(t *testing.T, w *world) *reader {
	r := newReader(t, w)
	r.watches = []deal.Watch{{Rule: "d", Object: Object, Stage: "contractsent", Since: w.Now()}, {Rule: "q", Object: Quotes, Stage: "APPROVED", Since: w.Now()}}
	return r
}

// news polls to the end, and returns what was not returned before, and what was refused.
func (r *reader) news(known map[string]bool) (fresh []deal.Change, refused []deal.RefusedObject) {
	r.t.Helper()
	for more := true; more; {
		page := r.page()
		for _, e := range page.Entries {
			if name := e.Rule + " " + e.Ref.String() + " " + e.Occurrence; !known[name] {
				known[name], fresh = true, append(fresh, e)
			}
		}
		refused, more = append(refused, page.Refused...), page.More
	}
	return fresh, refused
}

func TestQuotesAndDealsOfTheSameIDAreFoundEachByItself(t *testing.T) {
	w := newWorld(t, FlowToken)
	r, known := both(t, w), map[string]bool{}
	w.Advance(time.Minute)
	d, err := w.portal.CreateDeal(map[string]string{"dealname": "x", "dealstage": "appointmentscheduled"})
	w.must(err)
	q := w.quote("DRAFT")
	if d != q {
		t.Fatalf("deal %s and quote %s should have one ID", d, q)
	}
	if found, _ := r.news(known); len(found) > 0 {
		t.Fatalf("nothing has entered, and %v was found", found)
	}
	w.Advance(time.Minute)
	w.must(w.portal.Update("quotes", q, map[string]string{"hs_status": "APPROVED"}))
	if found, _ := r.news(known); len(found) != 1 || found[0].Ref != (deal.Ref{Object: Quotes, ID: q}) || found[0].Rule != "q" {
		t.Fatalf("found %v, want the quote", found)
	}
	w.Advance(time.Minute)
	w.must(w.portal.MoveStage(d, "contractsent"))
	if found, _ := r.news(known); len(found) != 1 || found[0].Ref != (deal.Ref{Object: Object, ID: d}) {
		t.Fatalf("found %v, want the deal", found)
	}
	page, err := r.c.EntriesOf(t.Context(), []deal.Ref{{Object: Quotes, ID: q}, {Object: Object, ID: d}}, r.watches)
	w.must(err)
	if len(page.Entries) != 2 || page.Entries[0].Ref.Object != Quotes {
		t.Errorf("asked by name there are %v", page.Entries)
	}
}

// The state of an installation that watches deals alone stays what it was, and goes on when a rule for quotes comes and goes.
func TestACursorOfDealsAloneGoesOnWithQuotes(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := both(t, w)
	all := r.watches
	r.watches = all[:1]
	w.Advance(time.Minute)
	w.must(func() error {
		_, err := w.portal.CreateDeal(map[string]string{"dealstage": "contractsent"})
		return err
	}())
	if n := len(r.poll()); n != 1 {
		t.Fatalf("%d entries, want that of the deal", n)
	}
	var plain position
	if err := json.Unmarshal([]byte(r.cursor.State), &plain); err != nil || plain.Page == "" || strings.Contains(r.cursor.State, `"of"`) {
		t.Fatalf("the state of deals alone is %s", r.cursor.State)
	}
	before := w.portal.Counts()[mock.KindBatchRead] + w.portal.Counts()[mock.KindGet]
	r.watches = all
	w.quote("APPROVED")
	if found := r.poll(); len(found) != 1 || found[0].Ref.Object != Quotes {
		t.Errorf("found %v, want the quote alone", found)
	}
	r.watches = all[:1]
	if found := r.poll(); len(found) != 0 {
		t.Errorf("without quotes again, %v was found", found)
	}
	after := w.portal.Counts()[mock.KindBatchRead] + w.portal.Counts()[mock.KindGet]
	if after != before+1 || strings.Contains(r.cursor.State, `"of"`) {
		t.Errorf("%d histories were read, want that of the quote; the state is %s", after-before, r.cursor.State)
	}
}

// How far a reading has come is told by the time of its cursor, also in the midst of the first one.
func TestTheFirstReadingOfTwoObjectsBeginsWithTheirRules(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := both(t, w)
	start := w.Now()
	w.Advance(time.Minute)
	_, err := w.portal.CreateDeal(map[string]string{"dealstage": "contractsent"})
	w.must(err)
	page := r.page()
	if len(page.Entries) != 1 || !page.More || !page.Next.Since.Equal(start) {
		t.Errorf("%d entries, more: %v; all is said to be read until %s, and the rules begin at %s", len(page.Entries), page.More, page.Next.Since, start)
	}
}

func TestDealsArePolledWhileQuotesCannotBeSeen(t *testing.T) {
	for _, effect := range []mock.Effect{mock.EffectForbidden, mock.EffectValidation} {
		t.Run(string(effect), func(t *testing.T) { dealsWithoutQuotes(t, effect) })
	}
}

func dealsWithoutQuotes(t *testing.T, effect mock.Effect) {
	w := newWorld(t, FlowToken)
	r, known := both(t, w), map[string]bool{}
	_, err := w.portal.SetFault(mock.Fault{Kind: mock.KindSearch, Path: "/quotes/", Effect: effect})
	w.must(err)
	for range 2 {
		w.Advance(time.Hour)
		w.must(func() error {
			_, err := w.portal.CreateDeal(map[string]string{"dealstage": "contractsent"})
			return err
		}())
		w.quote("APPROVED")
		entries, refused := r.news(known)
		if len(entries) != 1 || len(refused) != 1 || refused[0].Object != Quotes || !isHidden(refused[0].Why) {
			t.Fatalf("%v was found, and refused: %v", entries, refused)
		}
	}
	past := deal.Page{More: true}
	for err = nil; err == nil && past.More; {
		past, err = r.c.Entries(t.Context(), began, w.Now(), past.Next, r.watches)
	}
	if err == nil {
		t.Error("a pass over the history that cannot see quotes says nothing")
	}
	w.portal.ClearFaults()
	if found, _ := r.news(known); len(found) != 2 || found[0].Ref.Object != Quotes {
		t.Errorf("once they are seen %v is found, want both quotes", found)
	}
}

// A push names deals and quotes together.
func TestDealsThatAPushNamesAreReadWhileQuotesCannotBeSeen(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := both(t, w)
	d, err := w.portal.CreateDeal(map[string]string{"dealstage": "contractsent"})
	w.must(err)
	refs := []deal.Ref{{Object: Quotes, ID: w.quote("APPROVED")}, {Object: Object, ID: d}}
	_, err = w.portal.SetFault(mock.Fault{Kind: mock.KindBatchRead, Path: "/quotes/", Effect: mock.EffectForbidden})
	w.must(err)
	page, err := r.c.EntriesOf(t.Context(), refs, r.watches)
	if err != nil || len(page.Entries) != 1 || len(page.Refused) != 1 || page.Refused[0].Object != Quotes {
		t.Errorf("%d entries were found, and refused: %v (%v)", len(page.Entries), page.Refused, err)
	}
	if _, err := r.c.EntriesOf(t.Context(), refs, r.watches[1:]); !isHidden(err) {
		t.Errorf("where rules watch nothing else it is said that %v", err)
	}
}

func TestAQuoteIsReadWrittenAndGivenFiles(t *testing.T) {
	w := newWorld(t, FlowToken)
	for _, f := range mock.WriteBackProperties() {
		f.GroupName = "quoteinformation"
		w.must(w.portal.AddProperty("quotes", f))
	}
	d, err := w.portal.CreateDeal(map[string]string{"dealname": "the deal", "dealstage": "contractsent"})
	w.must(err)
	id := w.quote("DRAFT")
	w.must(w.portal.Associate("quotes", id, "deals", d, ""))
	for objectType, properties := range map[string]map[string]string{"companies": {"name": "Acme"}, "contacts": {"email": "a@b.example"}, "line_items": {"name": "Thing", "amount": "12.50"}} {
		other, err := w.portal.Create(objectType, properties)
		w.must(err)
		w.must(w.portal.Associate("quotes", id, objectType, other, ""))
	}
	_, err = w.portal.AddFileTo("quotes", id, "Quote.pdf", []byte("%PDF-1.7"))
	w.must(err)
	w.must(w.portal.Update("quotes", id, map[string]string{"hs_status": "APPROVED"}))
	c := w.connector(quiet())
	ref := deal.Ref{Object: Quotes, ID: id}
	record, err := c.Record(t.Context(), ref, []string{"hs_title", "hs_quote_amount", "deal.dealname", "company.name", "contacts.email", "line_items.name"})
	w.must(err)
	want := `map[company:map[name:Acme] contacts:[map[email:a@b.example]] deal:map[dealname:the deal] hs_quote_amount:12.50 hs_title:Wartung line_items:[map[name:Thing]]]`
	if got := fmt.Sprint(record.Values); got != want || record.Stage != "APPROVED" || len(record.Files) != 1 || !strings.HasSuffix(record.URL, "/record/0-14/"+id) {
		t.Errorf("the quote is %s in %s with %d files, at %s", got, record.Stage, len(record.Files), record.URL)
	}
	w.must(c.WriteBack(t.Context(), ref, deal.Receipt{Sequence: 7, Fields: []deal.Field{{Name: "dealseal_status", Value: "signed"}}}))
	if _, err := c.Task(t.Context(), ref, deal.Task{Due: w.Now(), Subject: "look"}); err != nil {
		t.Errorf("a task about a quote: %v", err)
	}
	q, err := w.portal.RecordOf("quotes", id)
	w.must(err)
	of, err := w.portal.Record(d)
	w.must(err)
	if q.Properties["dealseal_status"] != "signed" || of.Properties["dealseal_status"] != "" {
		t.Errorf("the quote shows %q, and the deal of the same ID %q", q.Properties["dealseal_status"], of.Properties["dealseal_status"])
	}
	if _, err := c.Record(t.Context(), dealRef(d), []string{"deal.dealname"}); err == nil || !strings.Contains(err.Error(), "write dealname") {
		t.Errorf("a path of quotes is read of a deal: %v", err)
	}
}

func TestPropertiesOfQuotesAreMadeWhereTheyAreMissing(t *testing.T) {
	w := newWorld(t, FlowToken)
	c := w.connector(quiet())
	back := deal.WriteBack{TransactionID: "dealseal_transaction_id", Status: "dealseal_status"}
	written := []connectors.Written{{Object: Quotes, WriteBack: back}}
	lacking, err := c.Lacking(t.Context(), written)
	w.must(err)
	for _, p := range lacking {
		if !strings.Contains(p.What, " of quotes") {
			t.Errorf("it is not said of what this is made: %s", p.What)
		}
		w.must(p.Make(t.Context()))
	}
	left, err := c.Lacking(t.Context(), written)
	w.must(err)
	if len(lacking) != 3 || len(left) != 0 { // the group and two properties: those of deals are no help
		t.Errorf("%d were to be made, and %d are left", len(lacking), len(left))
	}
}

func TestScopesOfQuotesAreAskedForWhereRulesWatchThem(t *testing.T) {
	watches := []deal.Watch{{Rule: "q", Object: Quotes, Stage: "APPROVED"}}
	w := allScopesBut(t, "crm.objects.quotes.write")
	problems, err := w.connector(quiet()).Survey(t.Context(), connectors.Probe{Watches: watches})
	w.must(err)
	expectProblem(t, problems, "fields cannot be written to quotes", "crm.objects.quotes.write")
	for name, tc := range map[string]struct {
		watches []deal.Watch
		want    bool
		told    []string
	}{
		"deals alone": {nil, false, []string{"deal dealstage"}}, "quotes": {watches, true, []string{"quote hs_status"}},
		"both": {append(watches, deal.Watch{Rule: "d", Object: Object, Stage: "x"}), true, []string{"deal dealstage", "quote hs_status"}},
	} {
		files, err := Project("acme", Addresses{Webhooks: "https://seal.example/hooks"}, tc.watches)
		w.must(err)
		if told := subscriptions(t, files["src/app/webhooks/webhooks-hsmeta.json"]); !slices.Equal(told, tc.told) {
			t.Errorf("%s: the app is told of %q, want %q", name, told, tc.told)
		}
		var text strings.Builder
		for _, file := range slices.Sorted(maps.Keys(files)) {
			text.Write(files[file])
		}
		for _, scope := range append(slices.Clone(quoteScopes), quoteSetUpScope) {
			if strings.Contains(text.String(), scope) != tc.want {
				t.Errorf("%s: the app asks for %s: %v", name, scope, !tc.want)
			}
		}
	}
}

// subscriptions are the objects and properties that a project's webhooks tell of.
func subscriptions(t *testing.T, definition []byte) (list []string) {
	t.Helper()
	var d struct {
		Config struct {
			Subscriptions struct {
				CRMObjects []struct{ ObjectType, PropertyName string }
			}
		}
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Config.Subscriptions.CRMObjects {
		list = append(list, s.ObjectType+" "+s.PropertyName)
	}
	return list
}
