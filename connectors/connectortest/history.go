package connectortest

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// historian asserts the ability.
func historian(t *testing.T, crm connectors.CRM) connectors.Historian {
	t.Helper()
	h, ok := crm.(connectors.Historian)
	if !ok {
		t.Skip("LEFT OUT: the connector has no Entries")
	}
	return h
}

// entries reads the whole history from from to to, and how many pages it came on.
func entries(t *testing.T, h connectors.Historian, from, to time.Time, watches ...deal.Watch) (all []sealing, pages int) {
	t.Helper()
	var at deal.Cursor
	for pages = 1; ; pages++ {
		page, err := h.Entries(callContext(t), from, to, at, watches)
		if err != nil {
			t.Fatalf("Entries: %v", err)
		}
		if len(page.Entries) > 500 {
			t.Errorf("a page has %d entries, the contract says at most 500", len(page.Entries))
		}
		for _, e := range page.Entries {
			if e.At.Before(from) || !e.At.Before(to) {
				t.Errorf("entry %s of %s lies outside of %s to %s", e.Occurrence, e.At, from, to)
			}
			all = append(all, sealing{Change: e})
		}
		if !page.More {
			return all, pages
		}
		if pages == 200 {
			t.Fatal("Entries still has more after 200 pages")
		}
		at = page.Next
	}
}

func watchSince(w World, rule, stage string, since time.Time) deal.Watch {
	watch := watchOf(w, rule, stage)
	watch.Since = since
	return watch
}

func testHistory(t *testing.T, w World) {
	traits := w.Traits()
	h := historian(t, w.Connector(quiet()))
	ids := w.CreateDeals(4, traits.Other)
	w.Advance(time.Minute)
	w.Move(ids[0], traits.Stage)
	w.Advance(time.Minute)
	from := w.Now()
	w.Move(ids[1], traits.Stage)
	w.Advance(time.Minute)
	later := w.Now()
	w.Move(ids[1], traits.Third) // has left it since
	w.Move(ids[2], traits.Stage)
	w.SetAmount(ids[0], "77.25") // changed in this time, entered before it
	w.Advance(time.Minute)
	to := w.Now()
	w.Move(ids[3], traits.Stage)
	w.Advance(time.Minute)
	w.SetAmount(ids[2], "12.25")

	got, _ := entries(t, h, from, to, watchSince(w, "a", traits.Stage, from.Add(-time.Hour)))
	expect(t, "the whole time", got, ids[1], ids[2])
	got, _ = entries(t, h, later, to, watchSince(w, "a", traits.Stage, from))
	expect(t, "its second half", got, ids[2])
	got, _ = entries(t, h, from, to, watchSince(w, "a", traits.Stage, later), watchSince(w, "b", traits.Third, from))
	expect(t, "a rule that is active from the second half on, and another stage", got, ids[2], ids[1])
	got, _ = entries(t, h, from, from, watchSince(w, "a", traits.Stage, from))
	expect(t, "no time", got)
}

func testHistoryInPages(t *testing.T, w World) {
	traits := w.Traits()
	h := historian(t, w.Connector(quiet()))
	from := w.Now()
	ids := w.CreateDeals(1103, traits.Stage)
	w.Advance(time.Second)
	to := w.Now()
	w.CreateDeals(20, traits.Stage)
	got, pages := entries(t, h, from, to, watchSince(w, "a", traits.Stage, from))
	expect(t, "1103 entries with one stamp", got, ids...)
	if pages < 3 {
		t.Errorf("1103 entries came on %d pages", pages)
	}
}

// testHistoryBesideThePoll reads the history between the pages of a poll with the same connector, and a poll's idle
// cheapness survives it.
func testHistoryBesideThePoll(t *testing.T, w World) {
	traits := w.Traits()
	crm, l := begin(t, w)
	h := historian(t, crm)
	from := w.Now()
	ids := w.CreateDeals(700, traits.Stage)
	w.Advance(time.Second)
	page, err := crm.Changes(callContext(t), l.cursor, l.watches)
	if err != nil {
		t.Fatalf("Changes: %v", err)
	}
	fresh := l.notice(page)
	got, _ := entries(t, h, from, w.Now(), watchSince(w, "a", traits.Stage, from))
	expect(t, "the history", got, ids...)
	polls := l.poll(crm)
	expect(t, "both pages of the poll", append(fresh, polls...), ids...)

	// Within the overlap a poll lists the same rows again and again; it must not read them anew for a history.
	later(w, l, crm, time.Second)
	calls := func() int {
		before := w.Requests(AnyCall)
		later(w, l, crm, time.Second)
		return w.Requests(AnyCall) - before
	}
	was := calls()
	entries(t, h, from, w.Now(), watchSince(w, "a", traits.Stage, from))
	if is := calls(); is > was {
		t.Errorf("a poll costs %d calls after a history was read, and %d before", is, was)
	}
}
