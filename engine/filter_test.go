package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/store"
)

// withFilter gives the daemon's rule a filter.
func (d *daemon) withFilter(text string) {
	d.t.Helper()
	f, err := deal.ParseFilter(text)
	must(d.t, err)
	t := d.Tenants[0]
	t.Rules[0].Filter, t.Rules[0].Plan.Filter = f, text
	d.Tenants = nil
	d.addTenant(t)
}

func (d *daemon) filteredOut() []deal.FilteredEntry {
	d.t.Helper()
	list, err := d.store.Filtered(d.t.Context(), store.FilteredQuery{Limit: 100})
	must(d.t, err)
	return list
}

func TestWhatAFilterLeavesOutIsNoDealAndNeverBecomesOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.withFilter("Amount > 10000 AND Name LIKE 'Kolibri%'")
	small, big := w.deal(), w.deal()
	must(t, w.org.SetRaw(big, "Amount", "20000"))
	w.move(small, stageWon)
	w.move(big, stageWon)
	s := d.run()
	if s.Change.Ref.ID != big || s.Plan.Filter == "" {
		t.Errorf("noticed is %s, not the one that meets the filter", s.Change.Ref)
	}
	d.wantDone(s)
	out := d.filteredOut()
	if len(out) != 1 || out[0].Ref.ID != small || out[0].Rule != "memo" || !strings.HasPrefix(out[0].Filter, "Amount") {
		t.Fatalf("filtered are %+v", out)
	}
	// What the record says later changes nothing: not in the next polls, not in a reconciliation, not after a restart.
	must(t, w.org.SetRaw(small, "Amount", "30000"))
	w.clock.advance(2 * time.Hour)
	if fresh := d.poll(); len(fresh) > 0 {
		t.Errorf("the poll has noticed %v", fresh)
	}
	wantKinds(t, d.reconcile())
	d.close()
	d = w.daemonIn(d.dir)
	d.withFilter("Amount > 1")
	if fresh := d.poll(); len(fresh) > 0 || len(d.filteredOut()) != 1 {
		t.Errorf("after a restart there were noticed %v", fresh)
	}
	if w.shown(small, fieldTx) != "" || w.shown(small, fieldStatus) != "" {
		t.Error("its record was told something")
	}
	// A new entry is asked about anew.
	w.move(small, stageOpen)
	w.move(small, stageWon)
	d.notice()
	w.wantUses(1)
}

func TestAMissedEntryIsFilteredAsInAPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.withFilter("Amount > 10000")
	d.poll()
	record := w.late(d)
	w.clock.advance(2 * time.Hour)
	d.poll()
	wantKinds(t, d.reconcile())
	if out := d.filteredOut(); len(out) != 1 || out[0].Ref.ID != record || len(d.all()) != 0 {
		t.Errorf("filtered are %+v, deals are %v", out, d.all())
	}
}

func TestARecordThatCannotBeJudgedKeepsNoOtherWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.withFilter("Amount > 1000")
	odd, good := w.deal(), w.deal()
	for _, record := range []string{odd, good} {
		w.move(record, stageWon)
	}
	fault := mock.Fault{Kind: mock.KindQuery, Path: odd, Effect: mock.APIError, Status: 500, Code: "UNKNOWN_EXCEPTION", Times: 1000}
	w.fault(fault)
	for range filterPatience {
		_, err := d.pollers[0].once(t.Context())
		if d.pollers[0].note(t.Context(), err); err == nil || len(d.all()) != 0 {
			t.Fatalf("it went on without patience: %v", err)
		}
	}
	if n := len(d.poll()); n != 2 {
		t.Fatalf("%d are noticed, want both", n)
	}
	for _, m := range d.all() {
		s := d.load(m.Tx)
		if s.Change.Ref.ID == odd && !s.Change.Unjudged { // the other is not judged either if it went into the same call
			t.Errorf("%s counts as judged", s.Change.Ref)
		}
	}
	w.org.ClearFaults()
	must(t, w.org.SetRaw(odd, "Amount", "5"))
	d.finish()
	for _, m := range d.all() {
		switch s := d.load(m.Tx); s.Change.Ref.ID {
		case good:
			d.wantDone(s)
		case odd:
			if s.Condition != deal.Ended || !strings.Contains(s.Reason, "filter") {
				t.Errorf("what does not meet the filter is %s: %s", s.Condition, s.Reason)
			}
		}
	}
	w.wantUses(1)
}

// silent is a CRM that answers nothing about records.
type silent struct{ connectors.CRM }

func (silent) Record(ctx context.Context, _ deal.Ref, _ []string) (deal.Record, error) {
	<-ctx.Done()
	return deal.Record{}, ctx.Err()
}

// A page of records that all take too long is taken in nevertheless once patience is over, and not asked about for ever.
func TestManyRecordsThatAreNotReadInTimeKeepNoPageFromBeingTakenIn(t *testing.T) {
	filter, err := deal.ParseFilter("Amount > 1")
	must(t, err)
	var entries []deal.Change
	for i := range 2 * filterReaders * int(filterLimit/crmLimit) {
		entries = append(entries, deal.Change{Ref: deal.Ref{Object: "Opportunity", ID: fmt.Sprint(i)}, Rule: "memo", Occurrence: "h1"})
	}
	synctest.Test(t, func(t *testing.T) {
		judge := func(ctx context.Context, patient bool) (map[deal.TxID]verdict, error) {
			return judgeAll(ctx, silent{}, "salesforce:00D", map[string]*deal.Filter{"memo": filter}, entries, patient)
		}
		if _, err := judge(t.Context(), true); err == nil {
			t.Error("patience is over at once")
		}
		verdicts, err := judge(t.Context(), false)
		if err != nil || len(verdicts) != len(entries) {
			t.Errorf("there are verdicts on %d of %d entries: %v", len(verdicts), len(entries), err)
		}
		for _, v := range verdicts {
			if v.out || v.err == nil {
				t.Errorf("a record that was not read is judged: %+v", v)
			}
		}
		stopped, stop := context.WithCancel(t.Context())
		stop()
		if _, err := judge(stopped, false); err == nil {
			t.Error("a stop lets everything through")
		}
	})
}

func TestALoginThatFailsLeavesThePageToTheNextPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.withFilter("Amount > 1000")
	d.poll()
	record := w.won()
	w.fault(mock.Fault{Kind: mock.KindQuery, Path: record, Effect: mock.APIError, Status: 403, Code: "REQUEST_LIMIT_EXCEEDED", Times: 1})
	if _, err := d.pollers[0].once(t.Context()); err == nil || len(d.all()) != 0 {
		t.Fatalf("it went on: %v", err)
	}
	w.org.ClearFaults()
	w.clock.advance(2 * time.Hour)
	s := d.run()
	if s.Change.Ref.ID != record || s.Change.Unjudged {
		t.Errorf("noticed is %+v", s.Change)
	}
	d.wantDone(s)
}
