package hubspot

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

// waiting makes deals with a line item each that enter their stage together, and lets a poll find them.
func waiting(t *testing.T, before func(w *world, r *reader, ids []string)) (w *world, c *Connector, ids, lines []string) {
	t.Helper()
	w = newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	other := w.CreateDeals(1, "appointmentscheduled")[0]
	w.AddLine(other, "Seat", "1", "10")
	r.poll()
	price(t, r.c, other) // learns what is read
	w.Advance(2 * time.Second)
	ids = w.CreateDeals(6, "appointmentscheduled")
	for _, id := range ids {
		line, err := w.portal.AddLineItem(id, map[string]string{"name": "Seat", "quantity": "1", "price": "10"})
		w.must(err)
		lines = append(lines, line)
	}
	before(w, r, ids)
	w.Advance(2 * time.Second)
	w.must(w.portal.MoveStages(ids, "contractsent"))
	w.Advance(2 * time.Second)
	if entries := r.poll(); len(entries) != len(ids) {
		t.Fatalf("entries %v, want %d", occurrences(entries), len(ids))
	}
	return w, r.c, ids, lines
}

func nothing(*world, *reader, []string) {}

// TestFirstOfManyLooksAhead holds that what belongs to the deals behind it comes along, for their first reading and no other:
// the last look before a seal is a look.
func TestFirstOfManyLooksAhead(t *testing.T) {
	w, c, ids, lines := waiting(t, nothing)
	if n := w.calls(func() { price(t, c, ids[0]) }); n != 3 {
		t.Errorf("the first record costs %d calls, want that of the deal, of the lists of all and of the line items of all", n)
	}
	w.Advance(10 * time.Second)
	for i, id := range ids[1:] {
		if n := w.calls(func() { price(t, c, id) }); n != 1 {
			t.Errorf("the record of deal %d costs %d calls, want that of the deal", i+1, n)
		}
		w.must(w.portal.Update("line_items", lines[i+1], map[string]string{"price": "11"}))
		if got, _ := price(t, c, id); got != "11" {
			t.Errorf("the last look at deal %d says %q, the line item 11", i+1, got)
		}
	}
}

// TestWhatShowsAChangeIsReadByTheDealItself, also at its first reading, and so is what was read too long ago.
func TestWhatShowsAChangeIsReadByTheDealItself(t *testing.T) {
	for name, change := range map[string]func(w *world, c *Connector, id string){
		"the deal has another stamp":  func(w *world, _ *Connector, id string) { w.must(w.portal.SetProperty(id, "description", "new")) },
		"it has another line item":    func(w *world, _ *Connector, id string) { w.AddLine(id, "Desk", "1", "20") },
		"its turn has come very late": func(w *world, _ *Connector, _ string) { w.Advance(comingLife) },
	} {
		t.Run(name, func(t *testing.T) {
			w, c, ids, lines := waiting(t, nothing)
			price(t, c, ids[0])
			w.Advance(2 * time.Second)
			w.must(w.portal.Update("line_items", lines[5], map[string]string{"price": "11"}))
			change(w, c, ids[5])
			rec, err := c.Record(t.Context(), dealRef(ids[5]), []string{"amount", "line_items.price"})
			w.must(err)
			if got := fmt.Sprint(rec.Lookup("line_items")); !strings.Contains(got, "price:11") {
				t.Errorf("it says %s, one of its line items costs 11", got)
			}
		})
	}
}

// TestDealThatWasReadBeforeItEnteredIsReadAnew: whoever reads it next may be about to seal it for an entry before.
func TestDealThatWasReadBeforeItEnteredIsReadAnew(t *testing.T) {
	w, c, ids, lines := waiting(t, func(w *world, r *reader, ids []string) {
		_, err := r.c.Record(t.Context(), dealRef(ids[5]), []string{"amount"})
		w.must(err)
	})
	price(t, c, ids[0])
	w.Advance(10 * time.Second)
	w.must(w.portal.Update("line_items", lines[5], map[string]string{"price": "11"}))
	if got, _ := price(t, c, ids[5]); got != "11" {
		t.Errorf("it says %q, the line item 11", got)
	}
}

// TestDealsAreReadWhereNobodyCouldLookAhead holds that the error is no deal's, and is not met again by each of them.
func TestDealsAreReadWhereNobodyCouldLookAhead(t *testing.T) {
	w, c, ids, _ := waiting(t, nothing)
	_, err := w.portal.SetFault(mock.Fault{Kind: mock.KindAssociations, Effect: mock.EffectForbidden})
	w.must(err)
	for i, want := range []int{3, 2} {
		if n := w.calls(func() { price(t, c, ids[i]) }); n != want {
			t.Errorf("deal %d costs %d calls, want %d", i, n, want)
		}
	}
}

// TestFewAreNotLookedAheadFor, because that would cost what it saves.
func TestFewAreNotLookedAheadFor(t *testing.T) {
	w, c, ids, _ := waiting(t, nothing)
	for _, id := range ids[:len(ids)-comingFewest] {
		c.fresh.take(id, nil, nil)
	}
	if n := w.calls(func() { price(t, c, ids[len(ids)-comingFewest]) }); n != 2 {
		t.Errorf("with %d behind it a record costs %d calls, want 2", comingFewest-1, n)
	}
}

// TestNotesOfDealsThatAreAttachedTogether are made in one call, and their deals updated in one, although each of them is ready
// at another moment.
func TestNotesOfDealsThatAreAttachedTogether(t *testing.T) {
	secrets := secretsOf(t)
	synctest.Test(t, func(t *testing.T) {
		w := newSimulatedWorld(t, secrets)
		ids := w.CreateDeals(3, "contractsent")
		c := w.connector(quiet())
		_, err := c.Record(t.Context(), dealRef(ids[0]), nil) // logs in
		w.must(err)
		w.portal.ResetRequests()
		_, err = w.portal.SetFault(mock.Fault{Kind: mock.KindUpload, Effect: mock.EffectSlow, Delay: 100 * time.Millisecond})
		w.must(err)
		var g sync.WaitGroup
		for i, id := range ids {
			g.Go(func() {
				time.Sleep(time.Duration(i) * 30 * time.Millisecond) // of the bubble's clock: nobody waits
				attach(t, c, id, pdf(1000, byte(i)))
				w.must(c.WriteBack(t.Context(), dealRef(id), receiptOf(1, deal.Field{Name: "dealseal_status", Value: "signed"})))
			})
		}
		g.Wait()
		w.Advance(time.Second) // until nobody waits for more
		for kind, want := range map[mock.Kind]int{mock.KindUpload: 3, mock.KindBatchCreate: 1, mock.KindNote: 0, mock.KindBatchUpdate: 1, mock.KindPatch: 0} {
			if got := w.portal.Counts()[kind]; got != want {
				t.Errorf("%d calls of kind %s, want %d", got, kind, want)
			}
		}
		for _, id := range ids {
			if notes := notesOf(t, w, id); len(notes) != 1 {
				t.Errorf("deal %s has %d notes", id, len(notes))
			}
		}
	})
}

// TestNotesDoNotWaitForAFileThatHangs for longer than a quarter of a second, nor at all where no other is being stored.
func TestNotesDoNotWaitForAFileThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUploads()
		for _, want := range []time.Duration{0, notesWait} {
			began := time.Now()
			if u.wait(); time.Since(began) != want {
				t.Errorf("waited %s, want %s", time.Since(began), want)
			}
			end := u.begin()
			defer end()
		}
	})
}
