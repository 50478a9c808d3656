package engine

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// simQueue hands out what the ledger says is to be done. It stands in the place of the store's queue, which runs in a
// bubble as well, but wakes so often that a simulated minute costs seconds. It is worse than it has to be: it hands out
// jobs twice, to two workers at once.
type simQueue struct {
	in   *incarnation
	wake chan struct{}

	workers sync.WaitGroup
	mu      sync.Mutex
	jobs    map[deal.Job]*simJob
}

type simJob struct {
	deal.Job
	due     time.Time
	running bool
	wanted  bool // while it ran
}

func newSimQueue(in *incarnation) *simQueue {
	return &simQueue{in: in, wake: make(chan struct{}, 1), jobs: map[deal.Job]*simJob{}}
}

// idleJob is when a job is looked at again that ended although its deal should go on, as the store's queue does.
const idleJob = 30 * time.Second

// Run works until ctx ends and then gives the running jobs half a minute.
func (q *simQueue) Run(ctx context.Context, work func(context.Context, deal.Job) deal.Outcome) error {
	jobs, cancel := context.WithCancel(q.in.life)
	defer cancel()
	for _, s := range q.in.everything() {
		q.in.moved(s.Tx)
	}
	free := make(chan struct{}, q.in.w.script.Workers)
	for {
		job, wait := q.next()
		if job == nil {
			select {
			case <-ctx.Done():
				stop := time.AfterFunc(30*time.Second, cancel)
				defer stop.Stop()
				q.workers.Wait()
				return nil
			case <-q.wake:
			case <-time.After(wait):
			}
			continue
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			q.done(job, deal.Outcome{Again: time.Second})
			continue
		}
		q.workers.Go(func() {
			defer func() { <-free }()
			q.work(jobs, job, work)
		})
	}
}

func (q *simQueue) work(ctx context.Context, job *simJob, work func(context.Context, deal.Job) deal.Outcome) {
	ctx = context.WithValue(ctx, txKey{}, job.Tx)
	if q.in.w.doubles() {
		q.in.w.trace("%s %s is handed out twice", job.Kind, job.Tx)
		// The other worker is late: what it has read is old when it begins.
		late := context.WithValue(ctx, lateKey{}, time.Duration(q.in.w.random(int64(time.Minute))))
		q.workers.Go(func() {
			ctx, end := q.in.store.AsJob(late)
			defer end()
			ctx, leave := q.in.asWorker(ctx, job.Job)
			defer leave()
			work(ctx, job.Job)
		})
	}
	// A point may end this goroutine: then the daemon is dead, and what becomes of the job does not matter.
	q.done(job, func() deal.Outcome {
		ctx, end := q.in.store.AsJob(ctx)
		defer end()
		ctx, leave := q.in.asWorker(ctx, job.Job)
		defer leave()
		return work(ctx, job.Job)
	}())
}

// lateKey is what the handler of a job finds the time by that passes after it has read its sealing.
type lateKey struct{}

func (w *simWorld) doubles() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.double == 0 {
		return false
	}
	w.double--
	return true
}

// next takes the job that is due first, or says how long there is none.
func (q *simQueue) next() (*simJob, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var first *simJob
	for _, j := range q.jobs {
		if !j.running && (first == nil || j.before(first)) {
			first = j
		}
	}
	if first == nil || q.in.run.Err() != nil {
		return nil, time.Hour
	}
	if wait := time.Until(first.due); wait > 0 {
		return nil, wait
	}
	first.running, first.wanted = true, false
	return first, 0
}

func (j *simJob) before(other *simJob) bool {
	return cmp.Or(j.due.Compare(other.due), cmp.Compare(j.Tx, other.Tx), cmp.Compare(j.Kind, other.Kind)) < 0
}

// moved takes note of what the ledger now holds of a transaction.
func (in *incarnation) moved(tx deal.TxID) {
	if s, err := in.store.Load(context.Background(), tx); err == nil {
		in.took(s)
	}
}

// took takes note of what the ledger has just taken.
func (in *incarnation) took(s *deal.Sealing) {
	q := in.queue
	in.steps.saw(s.Tx, s.Version)
	if alive(s) {
		q.want(deal.Job{Kind: deal.JobSeal, Tx: s.Tx}, s.Next)
	}
	if st, err := in.store.Receipt(context.Background(), s.Tx); err == nil && st.Due() {
		q.want(deal.Job{Kind: deal.JobTell, Tx: st.Owner}, time.Time{})
	}
	if in.w.script.Moves && in.hasErrands(s.Tx) {
		q.want(deal.Job{Kind: deal.JobErrand, Tx: s.Tx}, time.Time{})
	}
}

// hasErrands reports whether something is still to be done in the CRM because of what became of a transaction.
func (in *incarnation) hasErrands(tx deal.TxID) bool {
	all, err := in.store.Errands(context.Background(), tx)
	return err == nil && slices.ContainsFunc(all, func(e deal.Errand) bool { return e.Fate == "" })
}

func alive(s *deal.Sealing) bool { return !s.Condition.Waiting() && s.Step != deal.Done }

func (q *simQueue) want(job deal.Job, due time.Time) {
	q.mu.Lock()
	j := q.jobs[job]
	if j == nil {
		j = &simJob{Job: job}
		q.jobs[job] = j
	}
	// A sealing that is being worked goes on by itself; a receipt that grows while it is told is told again.
	j.wanted = job.Kind != deal.JobSeal
	j.due = due
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *simQueue) done(j *simJob, out deal.Outcome) {
	goesOn := false
	if j.Kind == deal.JobSeal && out.Again == 0 {
		s, err := q.in.store.Load(context.Background(), j.Tx)
		goesOn = err == nil && alive(s)
	}
	q.mu.Lock()
	j.running = false
	switch {
	case j.wanted:
	case out.Again > 0:
		j.due = time.Now().Add(out.Again)
	case goesOn:
		j.due = time.Now().Add(idleJob)
	default:
		delete(q.jobs, j.Job)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// everything is what the ledger holds, oldest first.
func (in *incarnation) everything() []store.Summary {
	list, err := in.store.List(context.Background(), store.Filter{Limit: 1000})
	if err != nil && !in.dead.Load() {
		in.w.violation("the ledger cannot be listed: %v", err)
	}
	slices.Reverse(list)
	return list
}
