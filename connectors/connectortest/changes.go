package connectortest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// begin is the usual start of a case: a connector, a ledger whose rule is active from now, and a moment later.
func begin(t *testing.T, w World) (connectors.CRM, *ledger) {
	t.Helper()
	crm := w.Connector(quiet())
	l := newLedger(t, w, crm)
	w.Advance(time.Second)
	return crm, l
}

// later lets time pass and polls.
func later(w World, l *ledger, crm connectors.CRM, d time.Duration) []sealing {
	l.t.Helper()
	w.Advance(d)
	return l.poll(crm)
}

// expect compares the records of entries with the ones that should have entered, as sets with counts.
func expect(t *testing.T, what string, got []sealing, want ...string) {
	t.Helper()
	ids := make([]string, len(got))
	for i, s := range got {
		ids[i] = s.Ref.ID
	}
	slices.Sort(ids)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(ids, want) {
		t.Errorf("%s: fresh entries of %s, want %s", what, abbreviate(ids), abbreviate(want))
	}
}

func abbreviate(ids []string) string {
	const shown = 5
	if len(ids) <= shown {
		return fmt.Sprint(ids)
	}
	return fmt.Sprintf("%d records (%s …)", len(ids), strings.Join(ids[:shown], " "))
}

func testEntryIsFoundOnce(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Other)[0]
	expect(t, "created in another stage", later(w, l, crm, time.Second))
	w.Move(id, w.Traits().Stage)
	entered := w.Now()
	fresh := later(w, l, crm, time.Second)
	expect(t, "entered", fresh, id)
	if len(fresh) == 1 && !fresh[0].At.Equal(entered) {
		t.Errorf("the entry is dated %s, the CRM says %s", fresh[0].At, entered)
	}
	expect(t, "polled again", later(w, l, crm, time.Second))
	expect(t, "polled after a restart", later(w, l, w.Connector(quiet()), time.Second))
	expect(t, "polled much later", later(w, l, crm, 3*w.Traits().Overlap))
}

func testCreatedInTheStage(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(3, w.Traits().Stage)
	expect(t, "created in the watched stage", later(w, l, crm, time.Second), ids...)
}

func testAmountEditedInTheStage(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Other)[0]
	w.Advance(time.Second)
	w.Move(id, w.Traits().Stage)
	for i := range 10 {
		w.Advance(time.Second)
		w.SetAmount(id, fmt.Sprintf("%d.50", 1000+i))
	}
	expect(t, "entered and edited ten times", later(w, l, crm, time.Second), id)
	// The row before the edit lies before the window now.
	w.Advance(2 * w.Traits().Overlap)
	expect(t, "quiet", l.poll(crm))
	w.SetAmount(id, "1.25")
	expect(t, "edited long after the entry", later(w, l, crm, time.Second))
}

func testEditWithTheStampOfTheEntry(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(3, w.Traits().Other)
	w.Advance(time.Second)
	for i, id := range ids {
		w.Move(id, w.Traits().Stage)
		w.SetAmount(id, fmt.Sprintf("%d.75", 10+i))
	}
	expect(t, "entered and edited in one instant", later(w, l, crm, time.Second), ids...)
}

func testEnteredAndLeft(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Other)[0]
	expect(t, "before", later(w, l, crm, time.Second))
	w.Move(id, w.Traits().Stage)
	w.Advance(2 * time.Second)
	w.Move(id, w.Traits().Third)
	expect(t, "entered and left between two polls", later(w, l, crm, time.Second), id)
}

func testTwoEntries(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Other)[0]
	for _, stage := range []string{w.Traits().Stage, w.Traits().Other, w.Traits().Stage} {
		w.Advance(2 * time.Second)
		w.Move(id, stage)
	}
	fresh := later(w, l, crm, time.Second)
	expect(t, "entered, left and entered again", fresh, id, id)
	if len(fresh) == 2 && fresh[0].tx == fresh[1].tx {
		t.Error("two entries of one deal have the same transaction ID")
	}
}

func testEqualStamps(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(1203, w.Traits().Stage)
	expect(t, "1203 entries with one stamp", later(w, l, crm, time.Second), ids...)
	if l.pages < 3 {
		t.Errorf("1203 entries came on %d pages", l.pages)
	}
	expect(t, "polled again", later(w, l, crm, time.Second))
}

func testRestartBetweenPages(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(1100, w.Traits().Stage)
	w.Advance(time.Second)
	page, err := crm.Changes(callContext(t), l.cursor, l.watches)
	if err != nil {
		t.Fatalf("Changes: %v", err)
	}
	fresh := l.notice(page)
	if !page.More {
		t.Fatal("the first of 1100 entries' pages says that nothing is waiting")
	}
	fresh = append(fresh, l.poll(w.Connector(quiet()))...)
	expect(t, "restart between two pages", fresh, ids...)
}

func testManyDeals(t *testing.T, w World) {
	crm, l := begin(t, w)
	var ids []string
	for range 15 {
		ids = append(ids, w.CreateDeals(700, w.Traits().Stage)...)
		w.Advance(time.Second)
	}
	expect(t, "10,500 entries in one window", l.poll(crm), ids...)
	expect(t, "polled after the overlap", later(w, l, crm, 2*w.Traits().Overlap))
}

func testVisibleLate(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(2, w.Traits().Other)
	expect(t, "before", later(w, l, crm, time.Second))

	delay := w.Traits().Overlap * 8 / 10
	w.DelayVisibility(delay)
	w.Move(ids[0], w.Traits().Stage)
	w.DelayVisibility(0)
	w.Advance(time.Second)
	w.Move(ids[1], w.Traits().Stage)
	expect(t, "a later entry is visible first", later(w, l, crm, time.Second), ids[1])
	for range 3 {
		expect(t, "not visible yet", later(w, l, crm, delay/5))
	}
	expect(t, "visible now", later(w, l, crm, delay), ids[0])
}

func testMerge(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(2, w.Traits().Other)
	w.Advance(time.Second)
	for _, id := range ids {
		w.Move(id, w.Traits().Stage)
		w.Advance(time.Second)
	}
	fresh := l.poll(crm)
	expect(t, "both entered", fresh, ids...)
	for i, s := range fresh {
		attach(t, crm, s.Ref, s.tx, deal.RoleContract, file(t, "contract.pdf", 1000+i))
	}
	merged, err := w.Merge(ids[0], ids[1])
	supported(t, err)
	expect(t, "merged", later(w, l, crm, time.Second))
	expect(t, "polled after a restart", later(w, l, w.Connector(quiet()), w.Traits().Overlap/2))

	// The old name of the record works, and both files are found under either.
	for _, id := range []string{merged, ids[1]} {
		rec := read(t, crm, ref(w, id))
		if rec.Ref.ID != merged {
			t.Errorf("record %s is read as %s, want the merged %s", id, rec.Ref.ID, merged)
		}
		for _, s := range fresh {
			if _, ok := rec.Sealed(s.tx, deal.RoleContract); !ok {
				t.Errorf("the contract of %s is not found on the merged record", s.tx)
			}
		}
	}
	w.Move(merged, w.Traits().Other)
	w.Advance(2 * time.Second)
	w.Move(merged, w.Traits().Stage)
	expect(t, "entered again after the merge", later(w, l, crm, time.Second), merged)
}

func testDuplicateDelivery(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Second)
	before := l.cursor
	expect(t, "first delivery", l.poll(crm), id)
	l.cursor = before
	expect(t, "the same page again", l.poll(crm))
	l.cursor = deal.Cursor{}
	expect(t, "everything again", l.poll(crm))
	if got := len(l.known); got != 1 {
		t.Errorf("the same entry has %d transaction IDs", got)
	}
}

func testGarbledRow(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(3, w.Traits().Other)
	w.Advance(time.Second)
	w.Move(ids[0], w.Traits().Stage)
	w.Move(ids[1], w.Traits().Stage)
	w.Garble(ids[1])
	w.Advance(time.Second)
	w.Move(ids[2], w.Traits().Stage)
	expect(t, "one row of three is damaged", later(w, l, crm, time.Second), ids[0], ids[2])
	expect(t, "polled again", later(w, l, crm, time.Second))
	if len(l.quarantined) != 1 {
		t.Errorf("%d rows are quarantined, want 1: %+v", len(l.quarantined), l.quarantined)
	}
	for _, q := range l.quarantined {
		if q.Ref.ID != ids[1] {
			t.Errorf("the quarantined row names record %q, want %s", q.Ref.ID, ids[1])
		}
	}
	more := w.CreateDeals(1, w.Traits().Stage)
	expect(t, "entries after the damaged row", later(w, l, crm, 2*w.Traits().Overlap), more...)
}

func testOwnWriteBack(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	fresh := later(w, l, crm, time.Second)
	expect(t, "entered", fresh, id)
	before := fingerprint(t, read(t, crm, ref(w, id), w.Traits().Amount))
	w.Advance(time.Second)
	attach(t, crm, fresh[0].Ref, fresh[0].tx, deal.RoleContract, file(t, "contract.pdf", 2000))
	writeBack(t, crm, fresh[0].Ref, receipt(w, fresh[0].tx, 1, deal.StatusSigned))
	expect(t, "after our own writes", later(w, l, crm, time.Second))
	if after := fingerprint(t, read(t, crm, ref(w, id), w.Traits().Amount)); after != before {
		t.Error("our own writes have changed the fingerprint of the fields that the document is made of")
	}
}

func testRuleAddedWithNow(t *testing.T, w World) {
	crm, l := begin(t, w)
	old := w.CreateDeals(1, w.Traits().Third)[0]
	expect(t, "nobody watches", later(w, l, crm, 2*time.Second))
	l.watch("addendum", w.Traits().Third, l.identity(crm).Clock)
	expect(t, "the entry is older than the rule", later(w, l, crm, time.Second))
	id := w.CreateDeals(1, w.Traits().Third)[0]
	expect(t, "entered after the rule began", later(w, l, crm, time.Second), id)
	w.Move(old, w.Traits().Other)
	w.Advance(2 * time.Second)
	w.Move(old, w.Traits().Third)
	expect(t, "entered again after the rule began", later(w, l, crm, time.Second), old)
}

func testRuleAddedWithPastDate(t *testing.T, w World) {
	crm, l := begin(t, w)
	older := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Hour)
	since := w.Now()
	w.Advance(time.Second)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	expect(t, "the first rule", later(w, l, crm, time.Second), older, id)
	expect(t, "much later", later(w, l, crm, 10*w.Traits().Overlap))
	l.watch("addendum", w.Traits().Stage, since)
	fresh := l.poll(crm)
	expect(t, "the second rule looks back to its date and no further", fresh, id)
	if len(fresh) == 1 && fresh[0].Rule != "addendum" {
		t.Errorf("the old entry is fresh for rule %q", fresh[0].Rule)
	}
}

// testRuleAddedDuringCatchUp holds that a rule which is added while a long catch-up is paused sees the entries that the
// catch-up has passed already, although its start lies after what was read to the end before: moving the cursor back does
// not help it. The same entries for the rule that was there are not fresh again.
func testRuleAddedDuringCatchUp(t *testing.T, w World) {
	crm, l := begin(t, w)
	expect(t, "nothing yet", later(w, l, crm, time.Second))
	w.Advance(2 * w.Traits().Overlap)
	since := w.Now()
	third := w.CreateDeals(3, w.Traits().Third)
	ids := w.CreateDeals(1100, w.Traits().Stage)
	w.Advance(time.Second)
	page, err := crm.Changes(callContext(t), l.cursor, l.watches)
	if err != nil {
		t.Fatalf("Changes: %v", err)
	}
	fresh := l.notice(page)
	if !page.More || len(fresh) == 0 {
		t.Fatalf("the first page has %d entries, more: %t; the case needs a catch-up that has begun and is not at its end", len(fresh), page.More)
	}
	l.watch("addendum", w.Traits().Third, since)
	fresh = append(fresh, l.poll(w.Connector(quiet()))...)
	expect(t, "both rules", fresh, append(third, ids...)...)
}

func testSeveralWatches(t *testing.T, w World) {
	crm, l := begin(t, w)
	l.watch("copy", w.Traits().Stage, w.Now())
	l.watch("third", w.Traits().Third, w.Now())
	w.Advance(time.Second)
	ids := w.CreateDeals(2, w.Traits().Stage)
	w.Advance(time.Second)
	w.Move(ids[0], w.Traits().Third)
	fresh := later(w, l, crm, time.Second)
	expect(t, "two rules on one stage, one on another", fresh, ids[0], ids[0], ids[0], ids[1], ids[1])
	seen := map[deal.TxID]bool{}
	for _, s := range fresh {
		seen[s.tx] = true
	}
	if len(seen) != len(fresh) {
		t.Errorf("%d entries have %d transaction IDs", len(fresh), len(seen))
	}
}

func testPageStaysBounded(t *testing.T, w World) {
	crm, l := begin(t, w)
	for i := range 3 {
		l.watch(fmt.Sprintf("copy-%d", i), w.Traits().Stage, w.Now())
	}
	ids := w.CreateDeals(300, w.Traits().Stage)
	var want []string
	for range 4 {
		want = append(want, ids...)
	}
	// notice fails the case when a page has more than 500 entries.
	expect(t, "four rules on one stage", later(w, l, crm, time.Second), want...)
}

func testUnknownObject(t *testing.T, w World) {
	crm, l := begin(t, w)
	l.watches[0].Object = "Nonsense__x"
	if _, err := l.tryPoll(crm); !deal.IsPermanent(err) || !strings.Contains(fmt.Sprint(err), "Nonsense__x") {
		t.Errorf("watching an unknown object gives %v, want a permanent error that names it", err)
	}
}

func testNoWatch(t *testing.T, w World) {
	crm, l := begin(t, w)
	l.watches = nil
	before := w.Requests(AnyCall)
	expect(t, "nobody watches", l.poll(crm))
	if n := w.Requests(AnyCall) - before; n != 0 {
		t.Errorf("a poll for no rule costs %d calls", n)
	}
}

func testIdlePoll(t *testing.T, w World) {
	crm, l := begin(t, w)
	w.CreateDeals(5, w.Traits().Stage)
	later(w, l, crm, time.Second)
	later(w, l, crm, 3*w.Traits().Overlap)
	before := w.Requests(AnyCall)
	expect(t, "idle", later(w, l, crm, time.Minute))
	if n := w.Requests(AnyCall) - before; n > w.Traits().IdleCalls {
		t.Errorf("an idle poll costs %d calls, want at most %d", n, w.Traits().IdleCalls)
	}
}
