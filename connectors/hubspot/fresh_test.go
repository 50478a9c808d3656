package hubspot

import (
	"strconv"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// price reads the price of the one line item of a deal, and its amount.
func price(t *testing.T, c *Connector, id string) (price, amount string) {
	t.Helper()
	rec, err := c.Record(t.Context(), dealRef(id), []string{"amount", "line_items.price"})
	if err != nil {
		t.Fatal(err)
	}
	lines, _ := rec.Lookup("line_items").([]any)
	if len(lines) != 1 {
		t.Fatalf("%d line items, want one", len(lines))
	}
	return deal.Record{Values: lines[0].(map[string]any)}.Text("price"), rec.Text("amount")
}

// calls counts what something asks of HubSpot.
func (w *world) calls(do func()) (n int) {
	total := func() (n int) {
		for _, of := range w.portal.Counts() {
			n += of
		}
		return n
	}
	before := total()
	do()
	return total() - before
}

// TestDealThatEntersIsReadWithItsHistory holds that one call is enough for both, and that whoever reads the record a second
// time is told what it says then.
func TestDealThatEntersIsReadWithItsHistory(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	ids := w.CreateDeals(2, "contractsent")
	for _, id := range ids {
		w.AddLine(id, "Seat", "1", "10")
		w.SetAmount(id, "10")
	}
	r.poll()
	price(t, r.c, ids[0]) // learns what is read
	w.Advance(2 * time.Second)
	id := w.CreateDeals(1, "contractsent")[0]
	w.AddLine(id, "Seat", "1", "10")
	w.SetAmount(id, "10")
	w.Advance(2 * time.Second)
	if n := w.calls(func() {
		if entries := r.poll(); len(entries) != 1 || entries[0].Ref.ID != id {
			t.Errorf("entries %v, want the one of %s", occurrences(entries), id)
		}
	}); n != 2 {
		t.Errorf("a poll that finds an entry costs %d calls, want 2", n)
	}
	if n := w.calls(func() { price(t, r.c, id) }); n != 1 {
		t.Errorf("the record costs %d calls more, want that of its line items", n)
	}
	w.SetAmount(id, "11")
	if _, amount := price(t, r.c, id); amount != "11" {
		t.Errorf("a second reading says %q, which is what the first one said", amount)
	}
}

// TestLastLookIsAReading: what a poll has read a moment ago is no answer to whoever has read the record before, also in the
// life of the process before this one.
func TestLastLookIsAReading(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	other := w.CreateDeals(1, "contractsent")[0]
	w.AddLine(other, "Seat", "1", "10")
	price(t, r.c, other) // learns what is read
	w.Advance(time.Hour)
	r.poll()
	w.Advance(2 * time.Second)
	id := w.CreateDeals(1, "contractsent")[0]
	w.AddLine(id, "Seat", "1", "10")
	w.SetAmount(id, "10")
	w.Advance(2 * time.Second)
	r.poll()
	price(t, r.c, id)
	look := func(amount string) {
		t.Helper()
		w.must(w.portal.SetProperty(id, "description", "edited before "+amount))
		w.Advance(2 * time.Second)
		r.poll()
		w.SetAmount(id, amount)
		if _, got := price(t, r.c, id); got != amount {
			t.Errorf("the last look says %q, the record %q", got, amount)
		}
	}
	look("11")
	r.c = w.connector(quiet())
	price(t, r.c, other)
	look("12")
}

// TestPollOutlivesWhatCannotBeReadWithAHistory: what is wrong with a record keeps no entry from being noticed.
func TestPollOutlivesWhatCannotBeReadWithAHistory(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	r.c.fresh.learn([]string{"amount"}, []string{"no_such_type"}, w.Now())
	w.Advance(time.Second)
	id := w.CreateDeals(1, "contractsent")[0]
	w.Advance(2 * time.Second)
	if entries := r.poll(); len(entries) != 1 || entries[0].Ref.ID != id {
		t.Errorf("entries %v, want the one of %s", occurrences(entries), id)
	}
}

// TestWhatBelongsToADealIsReadAgain after a second at the latest, and at once when the deal shows that it was changed.
func TestWhatBelongsToADealIsReadAgain(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(w *world, c *Connector, id string)
		calls     int
	}{
		"nothing was changed": {func(*world, *Connector, string) {}, 1},
		"we have written to it": {func(w *world, c *Connector, id string) {
			w.must(c.WriteBack(t.Context(), dealRef(id), receiptOf(1, deal.Field{Name: "dealseal_status", Value: "queued"})))
		}, 1},
		"somebody has written to it": {func(w *world, _ *Connector, id string) { w.must(w.portal.SetProperty(id, "description", "new")) }, 2},
		"some time has passed":       {func(*world, *Connector, string) {}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, FlowToken)
			id := w.CreateDeals(1, "contractsent")[0]
			w.AddLine(id, "Seat", "1", "10")
			crm := w.connector(quiet())
			price(t, crm, id)
			w.Advance(500 * time.Millisecond)
			c.meanwhile(w, crm, id)
			if name == "some time has passed" {
				w.Advance(2 * time.Second)
			}
			if n := w.calls(func() { price(t, crm, id) }); n != c.calls {
				t.Errorf("the record costs %d calls, want %d", n, c.calls)
			}
		})
	}
}

// TestWhatBelongsToOthersComesAlong holds that a deal under way has its line items renewed by the call of another, and gets
// no other's.
func TestWhatBelongsToOthersComesAlong(t *testing.T) {
	w := newWorld(t, FlowToken)
	ids := w.CreateDeals(2, "contractsent")
	w.AddLine(ids[0], "Seat", "1", "10")
	w.AddLine(ids[1], "Desk", "1", "20")
	c := w.connector(quiet())
	price(t, c, ids[0])
	for key, b := range c.fresh.belongings { // as if that had been some time ago
		b.at = b.at.Add(-belongingLife)
		c.fresh.belongings[key] = b
	}
	if p, _ := price(t, c, ids[1]); p != "20" {
		t.Errorf("the second deal's line item costs %q", p)
	}
	if n := w.calls(func() {
		if p, _ := price(t, c, ids[0]); p != "10" {
			t.Errorf("the first deal's line item costs %q", p)
		}
	}); n != 1 {
		t.Errorf("the first deal's record costs %d calls, want that of the deal", n)
	}
}

// TestOwnWritesAreReadOnceAMinute holds that a deal which only we have written to is not read at each poll, and that
// whatever happened to it at the same time is found all the same.
func TestOwnWritesAreReadOnceAMinute(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	w.Advance(time.Second)
	id := w.CreateDeals(1, "contractsent")[0]
	w.Advance(2 * time.Second)
	if entries := r.poll(); len(entries) != 1 {
		t.Fatalf("entries %v, want one", occurrences(entries))
	}
	if _, err := r.c.Record(t.Context(), dealRef(id), nil); err != nil {
		t.Fatal(err)
	}
	w.Advance(2 * time.Second)
	w.Move(id, "appointmentscheduled")
	w.Advance(time.Millisecond)
	w.Move(id, "contractsent")
	w.Advance(time.Millisecond)
	w.must(r.c.WriteBack(t.Context(), dealRef(id), receiptOf(1, deal.Field{Name: "dealseal_status", Value: "queued"})))
	w.Advance(2 * time.Second)
	if n := w.calls(func() { r.poll() }); n != 1 {
		t.Errorf("a poll after our own write costs %d calls, want 1", n)
	}
	w.Advance(putOff)
	if entries := r.poll(); len(entries) != 2 {
		t.Errorf("entries %v, want the one that was beside our write, too", occurrences(entries))
	}
	w.Advance(2 * time.Second)
	if n := w.calls(func() { r.poll() }); n != 1 {
		t.Errorf("a poll after that costs %d calls, want 1", n)
	}
}

// TestChangeOfOthersAfterOurWriteIsReadAtOnce: it has another stamp, or another stage.
func TestChangeOfOthersAfterOurWriteIsReadAtOnce(t *testing.T) {
	for name, before := range map[string]bool{"before it": true, "after it": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, FlowToken)
			r := newReader(t, w, contractSent())
			w.Advance(time.Second)
			id := w.CreateDeals(1, "appointmentscheduled")[0]
			if _, err := r.c.Record(t.Context(), dealRef(id), nil); err != nil {
				t.Fatal(err)
			}
			move := func() { w.Advance(time.Second); w.Move(id, "contractsent"); w.Advance(time.Second) }
			if before {
				move()
			}
			w.must(r.c.WriteBack(t.Context(), dealRef(id), receiptOf(1, deal.Field{Name: "dealseal_status", Value: "queued"})))
			if !before {
				move()
			}
			w.Advance(2 * time.Second)
			if entries := r.poll(); len(entries) != 1 {
				t.Errorf("entries %v, want one", occurrences(entries))
			}
		})
	}
}

// TestDealBeingWrittenToCanWait: search may list what a write does before the write is answered.
func TestDealBeingWrittenToCanWait(t *testing.T) {
	now := time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)
	s := newSeen(15 * time.Minute)
	wrote := s.writes("7")
	if got := s.of(7, "one", now); got != canWait {
		t.Errorf("while it is written to: %d", got)
	}
	wrote("two", now)
	for stamp, want := range map[string]reading{"one": toRead, "two": canWait} {
		if got := s.of(7, stamp, now.Add(putOff-1)); got != want {
			t.Errorf("with stamp %s: %d, want %d", stamp, got, want)
		}
	}
	if got := s.of(7, "two", now.Add(putOff)); got != isDue {
		t.Errorf("after a minute: %d", got)
	}
	s.writes("7")("", now) // of which nothing is known
	if got := s.of(7, "", now); got != toRead {
		t.Errorf("after a write whose stamp is not known: %d", got)
	}
}

// TestDealThatIsWrittenToOftenIsReadAllTheSame once its first write is putOff ago, however many there were since.
func TestDealThatIsWrittenToOftenIsReadAllTheSame(t *testing.T) {
	now := time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)
	s := newSeen(15 * time.Minute)
	stamp := ""
	for i := range maxStamps + 2 {
		stamp = strconv.Itoa(i)
		s.writes("7")(stamp, now.Add(time.Duration(i)*time.Second))
	}
	for after, want := range map[time.Duration]reading{putOff - 1: canWait, putOff: isDue} {
		if got := s.of(7, stamp, now.Add(after)); got != want {
			t.Errorf("%s after the first write: %d, want %d", after, got, want)
		}
	}
}

// TestEntryBesideOurWriteIsFound also where a deal cannot wait to be read: with a short look-back, of whose listing it would
// fall out, and after polls that were paused, when the entries of that time would be passed over.
func TestEntryBesideOurWriteIsFound(t *testing.T) {
	status := receiptOf(1, deal.Field{Name: "dealseal_status", Value: "queued"})
	for name, c := range map[string]struct {
		lookBack       time.Duration
		before, answer time.Duration // our write, and until its answer
		polls          time.Duration
	}{
		"short look-back, slow write": {time.Minute, time.Second, 50 * time.Second, 40 * time.Second},
		"short look-back":             {time.Minute, time.Second, 0, 40 * time.Second},
		"paused polls":                {15 * time.Minute, 40 * time.Minute, 0, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, FlowToken)
			w.config.LookBack = c.lookBack
			id := w.CreateDeals(1, "contractsent")[0]
			w.Advance(2 * time.Second)
			r := newReader(t, w, contractSent())
			r.poll()
			if _, err := r.c.Record(t.Context(), dealRef(id), nil); err != nil {
				t.Fatal(err)
			}
			w.Advance(2 * time.Second)
			w.Move(id, "appointmentscheduled")
			w.Advance(time.Millisecond)
			w.Move(id, "contractsent")
			w.Advance(c.before)
			if c.answer > 0 {
				r.c.seen.writes(id) // which hangs
			} else {
				w.must(r.c.WriteBack(t.Context(), dealRef(id), status))
			}
			var entries []deal.Change
			for range 3 {
				w.Advance(time.Second)
				entries = append(entries, r.poll()...)
				w.Advance(c.polls)
			}
			if len(entries) == 0 {
				t.Error("the entry was not found")
			}
		})
	}
}

// TestPollSaysWhatOthersHaveChanged, and neither what was changed before the first poll nor our own writes.
func TestPollSaysWhatOthersHaveChanged(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	id := w.CreateDeals(1, "contractsent")[0]
	w.Advance(2 * time.Second)
	changed := func(what string, want int) {
		t.Helper()
		w.Advance(2 * time.Second)
		if page := r.page(); len(page.Changed) != want || want == 1 && page.Changed[0] != dealRef(id) {
			t.Errorf("%s: changed are %v, want %d", what, page.Changed, want)
		}
	}
	changed("at first", 0)
	if _, err := r.c.Record(t.Context(), dealRef(id), nil); err != nil {
		t.Fatal(err)
	}
	w.must(r.c.WriteBack(t.Context(), dealRef(id), receiptOf(1, deal.Field{Name: "dealseal_status", Value: "queued"})))
	changed("after our own write", 0)
	w.Advance(putOff)
	changed("when that is read", 0)
	w.SetAmount(id, "12")
	changed("after an edit", 1)
	changed("after that", 0)
}
