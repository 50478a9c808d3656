package engine

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func (w *world) loseReply(kind mock.Kind) {
	w.t.Helper()
	w.fault(mock.Fault{Kind: kind, Effect: mock.CutAfter, Times: 1})
}

func TestARecordThatRefusesToBeToldKeepsTheSealAndShowsThatTheReceiptIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.ValidationRule})
	record := w.won()
	s := d.run()
	d.want(s, deal.Dead, deal.Attached, "report: ")
	d.tell()
	story := d.story(s.Tx)
	if story.Receipt.Status != deal.StatusSigned || !story.Receipt.Due() {
		t.Errorf("the receipt is %+v, want Signed and due", story.Receipt)
	}
	w.wantContracts(record, 1)
	w.wantShown(record, "")
	w.org.ClearFaults()
	must(t, d.store.Retry(t.Context(), s.Tx, "alice", "the validation rule is mended"))
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.wantShown(record, "Signed")
	w.wantUses(1)
}

// The first update hangs. What the flow has to say meanwhile waits for it, so that Queued never comes after Signed.
func TestReceiptsOfARecordGoOutInTheirOrderEvenIfTheFirstIsSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	tx := d.notice()

	arrived, second, goOn, told := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(letGo)
	w.at(updates, func() { close(arrived); <-goOn })
	go func() {
		defer close(told)
		d.Handle(t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx})
	}()
	within(t, "the first update is under way", arrived)
	w.at(updates, func() { close(second) })
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		d.Handle(t.Context(), deal.Job{Kind: deal.JobSeal, Tx: tx})
	}()
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		for !d.records.contended() && t.Context().Err() == nil {
			select {
			case <-second:
				t.Error("a second update was sent while the first one hung")
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	within(t, "the flow waits for its turn to report", waiting)
	letGo()
	within(t, "the first update is done", told)
	within(t, "the flow is done", finished)
	d.wantDone(d.load(tx))
	w.wantShown(record, "Signed")
	if n := w.updates(); n != 2 {
		t.Errorf("%d updates were accepted, want Queued and Signed", n)
	}
	if st := d.story(tx).Receipt; st.Due() {
		t.Errorf("the receipt is still due: %+v", st)
	}
}

// A request that was given up may reach the record after what was written since.
func TestAReceiptThatArrivesLateIsOverwrittenByTheNewest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	tx := d.notice()
	d.tell()
	late := map[string]any{fieldStatus: w.shown(record, fieldStatus), fieldAudit: w.shown(record, fieldAudit)}
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.CutBefore, Times: 1})
	d.finish()
	d.wantDone(d.load(tx))
	w.wantShown(record, "Signed")

	must(t, w.org.Update(record, late))
	w.wantShown(record, "Queued")
	again := d.Handle(t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx}).Again
	if again <= 0 || again > lateWrite {
		t.Fatalf("the record is looked at again in %s, want within %s", again, lateWrite)
	}
	w.clock.advance(again)
	if out := d.Handle(t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx}); out.Again != 0 {
		t.Errorf("the record is looked at once more, in %s", out.Again)
	}
	w.wantShown(record, "Signed")
}

// The doubt is in memory, and the job that waits for its time is not.
func TestAReceiptThatArrivesLateIsOverwrittenAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	tx := d.notice()
	d.tell()
	late := map[string]any{fieldStatus: w.shown(record, fieldStatus), fieldAudit: w.shown(record, fieldAudit)}
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.CutBefore, Times: 1})
	d.finish()
	d.wantDone(d.load(tx))
	tell := deal.Job{Kind: deal.JobTell, Tx: tx}
	waits := d.Handle(t.Context(), tell).Again
	d.close()
	w.tick()
	d = w.daemonIn(d.dir)
	must(t, w.org.Update(record, late))

	w.clock.advance(waits)
	again := d.Handle(t.Context(), tell).Again
	if again <= 0 || again > lateWrite {
		t.Fatalf("after the restart the record is looked at again in %s, want within %s", again, lateWrite)
	}
	w.clock.advance(again)
	if out := d.Handle(t.Context(), tell); out.Again != 0 {
		t.Errorf("the record is looked at once more, in %s", out.Again)
	}
	w.wantShown(record, "Signed")
}

// The request may be that of a process that has ended, and of a receipt that is not the newest any more.
func TestAReceiptOfAnEarlierProcessThatArrivesLateIsOverwritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	tx := d.notice()
	d.tell()
	late := map[string]any{fieldStatus: w.shown(record, fieldStatus), fieldAudit: w.shown(record, fieldAudit)}
	d.close()
	w.tick()
	d = w.daemonIn(d.dir)
	d.finish()
	d.wantDone(d.load(tx))

	must(t, w.org.Update(record, late))
	w.wantShown(record, "Queued")
	again := d.Handle(t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx}).Again
	if again <= 0 || again > lateWrite {
		t.Fatalf("the record is looked at again in %s, want within %s", again, lateWrite)
	}
	w.clock.advance(again)
	if out := d.Handle(t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx}); out.Again != 0 {
		t.Errorf("the record is looked at once more, in %s", out.Again)
	}
	w.wantShown(record, "Signed")
}

// A daemon that is told to stop gives its calls up after a while, and the job must not end with them.
func TestAStopForgetsNoReceiptThatMayStillArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	tell := deal.Job{Kind: deal.JobTell, Tx: tx}
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.CutBefore, Times: 1})
	d.Handle(t.Context(), tell)
	d.finish()
	d.wantDone(d.load(tx))
	w.clock.advance(lateWrite)

	stopping, stop := context.WithCancel(t.Context())
	w.at(func(*http.Request) bool { return true }, stop)
	if out := d.Handle(stopping, tell); out.Again <= 0 || stopping.Err() == nil {
		t.Fatalf("the job that looks at the record once more ends with a stop (%v): no start after it knows of it", stopping.Err())
	}
	w.clock.advance(lateWrite) // what was given up may itself arrive late
	if out := d.Handle(t.Context(), tell); out.Again != 0 {
		t.Errorf("the record is looked at once more, in %s", out.Again)
	}
}

func TestARecordThatIsGoneIsNotLookedAtAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	tx := d.notice()
	tell := func() time.Duration { return d.Handle(t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx}).Again }
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.CutBefore, Times: 1})
	tell()
	if wait := tell(); wait != lateWrite {
		t.Fatalf("the record is looked at again in %s, want %s", wait, lateWrite)
	}
	must(t, w.org.Delete(record))
	w.clock.advance(lateWrite)
	tell()
	w.clock.advance(time.Hour)
	if wait := tell(); wait != 0 {
		t.Errorf("a record that is gone is looked at again in %s", wait)
	}
}

// Whoever has the lock may be waiting for a CRM that hangs: neither a deadline nor a stop waits with him.
func TestWaitingForTheTurnToTellARecordEndsWithItsContext(t *testing.T) {
	t.Parallel()
	var k keyed
	unlock, err := k.lock(t.Context(), "one")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.lock(ctx, "one"); !errors.Is(err, context.Canceled) {
		t.Fatalf("waiting ended with %v, want context.Canceled", err)
	}
	other, err := k.lock(t.Context(), "other")
	must(t, err)
	other()
	unlock()
	again, err := k.lock(t.Context(), "one")
	must(t, err)
	again()
	if len(k.locks) > 0 {
		t.Errorf("%d locks are left", len(k.locks))
	}
}

// contended reports whether someone waits for a lock.
func (k *keyed) contended() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.locks {
		if l.users > 1 {
			return true
		}
	}
	return false
}

func TestTheNewestEntryOwnsTheReceiptOfTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(func(p *deal.Plan) { p.ReEntry = "seal" })
	record := w.won()
	older := d.notice()
	w.move(record, stageOpen)
	w.move(record, stageWon)
	newer := d.notice()
	d.handle(older)
	d.wantDone(d.load(older))
	if got := w.shown(record, fieldTx); got != string(newer) {
		t.Errorf("the record speaks of %s, want the newer entry %s", got, newer)
	}
	w.wantShown(record, "Queued")
	d.finish()
	d.wantDone(d.load(newer))
	w.wantShown(record, "Signed")
	if got := w.shown(record, fieldTx); got != string(newer) {
		t.Errorf("the record speaks of %s, want %s", got, newer)
	}
}

func TestARuleThatWritesNothingBackTellsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(func(p *deal.Plan) { p.WriteBack = deal.WriteBack{} })
	record := w.won()
	d.wantDone(d.run())
	d.tell()
	if n := w.updates(); n > 0 {
		t.Errorf("the record was updated %d times", n)
	}
	w.wantContracts(record, 1)
}

func TestAnUpdateWhoseReplyIsLostIsNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.loseReply(mock.KindUpdate)
	record := w.won()
	d.wantDone(d.run())
	w.wantShown(record, "Signed")
}

func TestTellingNeverGivesUpAndBothersTheCRMLessAndLess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	tx := d.notice()
	tell := func() time.Duration { return d.Handle(t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx}).Again }
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.EmptyList})
	var waits []time.Duration
	for _, later := range []time.Duration{0, 2 * time.Minute, time.Hour, 24 * time.Hour} {
		w.clock.advance(later)
		waits = append(waits, tell())
	}
	asked := 30 * time.Second // by the connector after such an error
	if diff := cmp.Diff([]time.Duration{asked, time.Minute, 31 * time.Minute, time.Hour}, waits); diff != "" {
		t.Errorf("waits by age (-want +got):\n%s", diff)
	}
	w.org.ClearFaults()
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.ValidationRule})
	if wait := tell(); wait != time.Hour {
		t.Errorf("what is refused is tried again in %s, want an hour", wait)
	}
	if !d.story(tx).Receipt.Due() {
		t.Error("a receipt that was never accepted is not due any more")
	}
	w.org.ClearFaults()
	if wait := tell(); wait != lateWrite {
		t.Errorf("what was told after an unclear answer is looked at again in %s, want %s", wait, lateWrite)
	}
	w.clock.advance(lateWrite)
	if wait := tell(); wait != 0 {
		t.Errorf("what was told is told again in %s", wait)
	}
	w.wantShown(record, "Queued")
}
