package salesforce

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/deal"
)

func TestQuotesAndContractsAreFoundAndWrittenTo(t *testing.T) {
	for _, k := range kinds[1:3] {
		t.Run(k.name, func(t *testing.T) {
			connectortest.RunMatching(t, "^Entry|^DealCreated|^TwoEntries|^Attach|^WriteBackSets|^TaskIsMade|^ProbeNamesStages|^WhatIsMissing|^Deleted", func(t *testing.T) connectortest.World { return newWorldOf(t, k, "DealSeal_Key__c") })
		})
	}
}

func orders(since time.Time) []deal.Watch {
	return []deal.Watch{{Rule: "r", Object: "Order", Stage: "Activated", Since: since}}
}

func TestAHistoryThatIsNotKeptIsRefusedWithTheCure(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	c := w.connector(nil)
	page, err := c.Changes(t.Context(), deal.Cursor{}, orders(w.Now()))
	w.must(err)
	w.org.Track("Order.Status", false)
	problems, err := c.Probe(t.Context(), connectors.Probe{Object: "Order", Watches: orders(w.Now())})
	w.must(err)
	expectProblem(t, problems, "Order.Status is not tracked", "Set History Tracking")

	// Whoever ends it later is noticed within the hour: no poll may find nothing and look well.
	w.Advance(trackedAnew - time.Second)
	_, err = c.Changes(t.Context(), page.Next, orders(w.Now()))
	w.must(err)
	w.Advance(time.Second)
	if _, err = c.Changes(t.Context(), page.Next, orders(w.Now())); !deal.IsPermanent(err) || !strings.Contains(err.Error(), "Order.Status is not tracked") {
		t.Errorf("a poll of a history that is kept no more gives %v", err)
	}
	w.org.Track("Order.Status", true)
	_, err = c.Changes(t.Context(), page.Next, orders(w.Now()))
	w.must(err)

	w.org.Hide("FieldDefinition")
	problems, err = w.connector(nil).Probe(t.Context(), connectors.Probe{Object: "Order", Watches: orders(w.Now())})
	w.must(err)
	expectProblem(t, problems, "does not tell whether", "Set History Tracking")
	if !problems[0].Warning {
		t.Error("what the org does not tell stops the rule")
	}

	w.org.Hide("OrderHistory")
	problems, err = w.connector(nil).Probe(t.Context(), connectors.Probe{Object: "Order", Watches: orders(w.Now())})
	w.must(err)
	expectProblem(t, problems, "history of orders cannot be read", "OrderHistory", "Set History Tracking")
}

// What cannot be read of one object keeps no other from being polled, and is made up for when it can be read again, however much
// later than the overlap.
func TestAnObjectThatIsRefusedStopsNoOther(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	c := w.connector(nil)
	since := w.Now()
	watches := append(orders(since), watch(since)...)
	poll := func(after deal.Cursor) (page deal.Page, ids []string) {
		t.Helper()
		for page.More = true; page.More; after = page.Next {
			got, err := c.Changes(t.Context(), after, watches)
			w.must(err)
			for _, e := range got.Entries {
				ids = append(ids, e.Ref.ID)
			}
			got.Refused = append(page.Refused, got.Refused...)
			page = got
		}
		return page, ids
	}
	won := func() string {
		id, err := w.org.CreateOpportunity(map[string]any{"Name": "won", "StageName": "Closed Won"})
		w.must(err)
		w.Advance(time.Second)
		return id
	}
	first, _ := poll(deal.Cursor{})
	w.Advance(time.Minute)
	w.org.Hide("OrderHistory")
	missed := w.CreateDeals(1, "Activated")[0]
	page := first
	for range 30 {
		w.Advance(time.Minute)
		id := won()
		before := len(w.org.Requests())
		var found []string
		page, found = poll(page.Next)
		if !slices.Contains(found, id) {
			t.Fatalf("the opportunity %s is not among %v", id, found)
		}
		if len(page.Refused) != 1 || page.Refused[0].Object != "Order" || !strings.Contains(page.Refused[0].Why.Error(), "OrderHistory") {
			t.Fatalf("refused are %v, want the orders and why", page.Refused)
		}
		if len(found) > 11 {
			t.Fatalf("%d entries are read: those of opportunities are read from where they were left", len(found))
		}
		if n := len(w.org.Requests()) - before; n > 4 {
			t.Fatalf("a poll takes %d calls", n)
		}
	}
	if !page.Next.Since.Equal(first.Next.Since) {
		t.Errorf("the cursor went on to %s, past what was refused", page.Next.Since)
	}
	w.org.Show("OrderHistory")
	page, found := poll(page.Next)
	if !slices.Contains(found, missed) || len(page.Refused) > 0 {
		t.Errorf("found are %v and refused %v, want the order %s", found, page.Refused, missed)
	}
	if page.Next.State != "" || !page.Next.Since.After(first.Next.Since) {
		t.Errorf("the cursor is %+v, want one that has forgotten it", page.Next)
	}

	w.org.Hide("OrderHistory")
	w.org.Hide("OpportunityHistory")
	if _, err := c.Changes(t.Context(), page.Next, watches); !deal.IsPermanent(err) {
		t.Errorf("a poll that can read nothing gives %v", err)
	}
}

// The row that tells of a new order does not say in which status it was made.
func TestAnOrderThatMovedOnAtOnceIsFoundWhereItWasMade(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	since := w.Now()
	stayed := w.CreateDeals(1, "Activated")[0]
	left := w.CreateDeals(1, "Activated")[0]
	other := w.CreateDeals(1, "Draft")[0]
	w.Move(left, "In Review")
	w.Move(other, "In Review")
	w.Advance(time.Second)
	page, err := w.connector(nil).Changes(t.Context(), deal.Cursor{}, orders(since))
	w.must(err)
	var found []string
	for _, e := range page.Entries {
		found = append(found, e.Ref.ID)
	}
	if want := []string{stayed, left}; !slices.Equal(found, want) || len(page.Quarantined) > 0 {
		t.Errorf("found are %v, want %v; quarantined %v", found, want, page.Quarantined)
	}
}

// Salesforce does not say whether a history shows the API names of statuses or their labels.
func TestAStatusIsKnownByItsLabel(t *testing.T) {
	c := scriptedConnector(t, func(q string) (int, string) {
		switch {
		case strings.Contains(q, "FieldDefinition"):
			return 200, `{"done":true,"records":[{"IsFieldHistoryTracked":true}]}`
		case strings.Contains(q, "FROM OrderHistory"):
			row := `{"Id":"01700000000000%AAA","OrderId":"801000000000001AAA","Field":"Status","NewValue":"$","CreatedDate":"2026-11-20T20:00:00.000+0000"}`
			var rows []string
			for i, shown := range []string{"Aktiviert", "Activated", "Entwurf", "Verde"} {
				rows = append(rows, strings.NewReplacer("%", string(rune('1'+i)), "$", shown).Replace(row))
			}
			return 200, `{"done":true,"records":[` + strings.Join(rows, ",") + `]}`
		}
		return 400, `[]`
	})
	o, err := parseDescribe([]byte(`{"name":"Order","fields":[{"name":"Status","type":"picklist","picklistValues":[{"value":"Activated","label":"Aktiviert","active":true},{"value":"Draft","label":"Entwurf","active":true}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	c.schema.objects["Order"], o.read = o, time.Now()
	page, err := c.Changes(t.Context(), deal.Cursor{}, orders(t20))
	if err != nil || len(page.Entries) != 2 || len(page.Quarantined) != 1 || !strings.Contains(page.Quarantined[0].Reason, "neither the API name nor the label") {
		t.Errorf("entries %+v, quarantined %+v, %v; want two, and the row that nobody understands", page.Entries, page.Quarantined, err)
	}
	if text, err := json.Marshal(page.Quarantined); err != nil || strings.Contains(string(text), "Verde") {
		t.Errorf("a value is shown: %s, %v", text, err)
	}
}

// One org has rules for several objects: each history is read, a page at a time, and none keeps the place of another.
func TestSeveralObjectsAreReadOneAfterTheOther(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	w.org.Track("Quote.Status", true)
	since := w.Now()
	watches := append(orders(since), watch(since)...)
	watches = append(watches, deal.Watch{Rule: "q", Object: "Quote", Stage: "Activated", Since: since})
	want := map[string]string{}
	for range 2 {
		want[w.CreateDeals(1, "Activated")[0]] = "Order"
		id, err := w.org.CreateOpportunity(map[string]any{"StageName": "Closed Won"})
		w.must(err)
		want[id] = Object
	}
	w.Advance(time.Second)
	c := w.connector(nil)
	cursor := deal.Cursor{}
	for more := true; more; {
		page, err := c.Changes(t.Context(), cursor, watches)
		w.must(err)
		for _, e := range page.Entries {
			if want[e.Ref.ID] != e.Ref.Object {
				t.Errorf("found is %v, or found twice", e)
			}
			delete(want, e.Ref.ID)
		}
		c = w.connector(nil) // as after a restart: the cursor says where it was
		cursor, more = page.Next, page.More
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	w.Advance(time.Hour)
	for _, calls := range []int{6, 3} { // with a login and two looks whether the histories are kept, and without
		before := len(w.org.Requests())
		if page, err := c.Changes(t.Context(), deal.Cursor{Since: w.Now()}, watches); err != nil || page.More || len(w.org.Requests())-before != calls {
			t.Errorf("an idle poll of three objects makes %d calls, want %d; %v", len(w.org.Requests())-before, calls, err)
		}
	}
}

// What was stored before there were other objects is of opportunities.
func TestThePlaceInAScanOfBefore(t *testing.T) {
	s, err := parseState(`{"from":"2026-11-20T20:00:00.000Z","at":"2026-11-20T20:00:00.000Z","id":"008000000000001AAA","watches":"x"}`)
	if err != nil || s.kind.name != Object || strings.Contains(s.state(), "object") {
		t.Errorf("%+v, %v", s, err)
	}
}

func FuzzTrackedRow(f *testing.F) {
	f.Add([]byte(`{"Id":"017000000000001AAA","OrderId":"801000000000001AAA","Field":"created","NewValue":null,"CreatedDate":"2026-11-20T20:00:00.000+0000"}`))
	f.Add([]byte(`{"Id":"017000000000001AAA","OrderId":"801000000000001AAA","Field":"Status","NewValue":7,"CreatedDate":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		row := parseHistoryRow(kinds[3], body)
		if row.name == "" || row.err == nil && (row.id == "" || row.record == "" || row.at.IsZero() || row.made && row.stage != "") {
			t.Errorf("%+v", row)
		}
	})
}

// A record that somebody has moved back is left alone also where the history shows labels.
func TestAStatusThatWasLeftIsKnownByItsLabel(t *testing.T) {
	for _, shown := range []string{"Activated", "Aktiviert"} {
		c := scriptedConnector(t, func(string) (int, string) {
			return 200, `{"done":true,"records":[{"Id":"017000000000001AAA","NewValue":"` + shown + `"},{"Id":"017000000000002AAA","NewValue":"Entwurf"}]}`
		})
		o, err := parseDescribe([]byte(`{"name":"Order","fields":[{"name":"Status","type":"picklist","picklistValues":[{"value":"Activated","label":"Aktiviert","active":true},{"value":"Draft","label":"Entwurf","active":true}]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		c.schema.objects["Order"], o.read = o, time.Now()
		for stage, want := range map[string]bool{"Activated": true, "Draft": true, "Verde": false} {
			if was, err := c.wasIn(t.Context(), kinds[3], "801000000000001AAA", stage, t20); err != nil || was != want {
				t.Errorf("a history that shows %s: it was in %s: %t, %v", shown, stage, was, err)
			}
		}
	}
}
