package engine

import (
	"context"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// simSteps is what an incarnation knows of the changes that its ledger has taken, to hold the next ones against: none is
// made from what was read before another, and nobody comes between an intent and what becomes of it.
type simSteps struct {
	mu    sync.Mutex
	seen  map[deal.TxID]int64   // the newest version that was committed
	under map[deal.TxID]simStep // the steps that are under way
}

// simStep is an intent of a worker until its lease ends.
type simStep struct {
	worker *simWorker
	until  time.Time
}

// simWorker is one handing out of a job. It has a size, so that no two are at one place.
type simWorker struct{ deal.Job }

type workerKey struct{}

func workerOf(ctx context.Context) *simWorker {
	w, _ := ctx.Value(workerKey{}).(*simWorker)
	return w
}

// asWorker lets a job be worked in a context of its own. Whoever leaves gives up the lease.
func (in *incarnation) asWorker(ctx context.Context, job deal.Job) (work context.Context, leave func()) {
	me := &simWorker{job}
	return context.WithValue(ctx, workerKey{}, me), func() { in.steps.over(job.Tx, me) }
}

// over ends what a worker has under way. It is called before the ledger ends it: nobody else may begin while it stands here.
func (s *simSteps) over(tx deal.TxID, worker *simWorker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under[tx].worker == worker {
		delete(s.under, tx)
	}
}

// begun is called after the ledger has begun it.
func (s *simSteps) begun(ctx context.Context, tx deal.TxID, until time.Time) {
	if me := workerOf(ctx); me != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.under[tx] = simStep{me, until}
	}
}

func (s *simSteps) saw(tx deal.TxID, version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[tx] = max(s.seen[tx], version)
}

// now is what stands before a change.
func (s *simSteps) now(tx deal.TxID) (seen int64, under simStep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[tx], s.under[tx]
}

// isUnderWay reports whether a step that was under way before a change of somebody else still is after it.
func (s *simSteps) isUnderWay(tx deal.TxID, before simStep) bool {
	_, after := s.now(tx)
	return before.worker != nil && after == before && time.Now().Before(before.until)
}

// change lets the ledger take a change of a sealing, and compares what it has taken with what stood before it.
func (l simLedger) change(ctx context.Context, s *deal.Sealing, what string, commit func() error) error {
	steps, was := &l.in.steps, s.Version
	seen, under := steps.now(s.Tx)
	if err := commit(); err != nil {
		return err
	}
	if seen > was {
		l.in.w.violation("%s: %s was made of version %d when version %d was committed: what happened between them is lost", s.Tx, what, was, seen)
	}
	if under.worker != workerOf(ctx) && steps.isUnderWay(s.Tx, under) {
		l.in.w.violation("%s: %s came between an intent of another worker and what became of it", s.Tx, what)
	}
	steps.saw(s.Tx, s.Version)
	return nil
}

// intend is a change that begins a step.
func (l simLedger) intend(ctx context.Context, s *deal.Sealing, i deal.Intent) error {
	at := time.Now()
	if err := l.change(ctx, s, "the intent to "+i.What, func() error { return l.Store.Begin(ctx, s, i) }); err != nil {
		return err
	}
	l.in.steps.begun(ctx, s.Tx, at.Add(i.Lease))
	return nil
}

// borne remembers since when each contract of ours is on its record.
func (w *simWorld) borne(crm deal.Kind) {
	w.mu.Lock()
	deals := append([]*simDeal(nil), w.deals[crm]...)
	w.mu.Unlock()
	for _, d := range deals {
		for _, m := range w.markers(crm, d.now()) {
			if tx, role, ok := deal.ParseMarker(m); ok && role == deal.RoleContract {
				w.mu.Lock()
				if w.bears[tx].IsZero() {
					w.bears[tx] = time.Now()
				}
				w.mu.Unlock()
			}
		}
	}
}

// longSince is the time after which whoever looks at a record finds the contract that it bears, however late the CRM shows
// it.
const longSince = 15 * time.Minute

// mustNotBear: a record that bears the contract of a transaction already is no reason to use the key for it again.
func (in *incarnation) mustNotBear(tx deal.TxID) {
	w := in.w
	w.mu.Lock()
	since := w.bears[tx]
	w.mu.Unlock()
	if !since.IsZero() && time.Since(since) > longSince {
		w.violation("%s: the key was used although the record has borne the contract for %s", tx, time.Since(since))
	}
}

// slowly is a key that fails once and then takes its time with the same document, while a person loses patience.
func (in *incarnation) slowly(ctx context.Context, tx deal.TxID) {
	w := in.w
	w.mu.Lock()
	e := w.slow
	switch {
	case e.Verb != doSlow || e.What != "" && e.What != string(tx):
		w.mu.Unlock()
		return
	case e.What == "":
		w.slow.What = string(tx)
		w.mu.Unlock()
		w.key.fail(1, &downError{wait: time.Second})
		return
	}
	w.slow = simEvent{}
	w.mu.Unlock()
	w.trace("the key takes %s for %s", e.For, tx)
	for _, patience := range []string{[]string{"prepare", "drop"}[e.With], ""} {
		select {
		case <-time.After(e.For / 2):
		case <-ctx.Done():
			return
		}
		if patience != "" {
			in.apart(func() { in.decideOn(tx, patience) })
		}
	}
}

func (in *incarnation) decideOn(tx deal.TxID, what string) {
	for _, s := range in.everything() {
		if s.Tx == tx {
			in.decide(s, what)
		}
	}
}
