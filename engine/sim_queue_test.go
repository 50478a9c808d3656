package engine

import (
	"cmp"
	"context"
	"maps"
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
	never   bool // it was taken back while it ran
}

// simTimetable is what the store's table jobs says of the jobs that nothing else in the ledger tells of in full: those of
// receipts and errands, and when they are due. It outlives the incarnations, and goes back with a restore.
type simTimetable map[deal.Job]time.Time

// timetable is a copy of the world's.
func (w *simWorld) timetable() simTimetable {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.jobs)
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
	q.resume()
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

// resume wants what the store's queue wants after a start: what its table says, at the time that it says, and at once what
// the ledger says and the table does not.
func (q *simQueue) resume() {
	kept := q.in.w.timetable()
	for job, due := range kept {
		q.want(job, due)
	}
	for _, summary := range q.in.everything() {
		s, err := q.in.store.Load(context.Background(), summary.Tx)
		if err != nil {
			continue
		}
		q.in.steps.saw(s.Tx, s.Version)
		for job, due := range q.in.toDo(s) {
			if _, is := kept[job]; !is {
				q.want(job, due)
			}
		}
	}
}

func (q *simQueue) work(ctx context.Context, job *simJob, work func(context.Context, deal.Job) deal.Outcome) {
	ctx = context.WithValue(ctx, txKey{}, job.Tx)
	out := q.in.speaks(job.Job)
	if q.in.w.doubles() {
		q.in.w.trace("%s %s is handed out twice", job.Kind, job.Tx)
		// The other worker is late: what it has read is old when it begins.
		late := context.WithValue(ctx, lateKey{}, time.Duration(q.in.w.random(int64(time.Minute))))
		q.workers.Go(func() {
			ctx, end := q.in.store.AsJob(late)
			defer end()
			ctx, leave := q.in.asWorker(ctx, job.Job)
			defer leave()
			work(ctx, out)
		})
	}
	// A point may end this goroutine: then the daemon is dead, and what becomes of the job does not matter.
	q.done(job, func() deal.Outcome {
		ctx, end := q.in.store.AsJob(ctx)
		defer end()
		ctx, leave := q.in.asWorker(ctx, job.Job)
		defer leave()
		return work(ctx, out)
	}())
}

// speaks is a job as it is handed out: that of a receipt speaks for whichever sealing owns it by then.
func (in *incarnation) speaks(job deal.Job) deal.Job {
	if job.Kind != deal.JobTell {
		return job
	}
	if st, err := in.store.Receipt(context.Background(), job.Tx); err == nil {
		job.Tx = st.Owner
	}
	return job
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
	first.running, first.wanted, first.never = true, false, false
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
	in.steps.saw(s.Tx, s.Version)
	for job, due := range in.toDo(s) {
		in.queue.want(job, due)
	}
}

// untold has the records told that show something older than the ledger holds.
func (in *incarnation) untold() {
	for _, s := range in.everything() {
		if st, err := in.store.Receipt(context.Background(), s.Tx); err == nil && st.Due() {
			in.queue.want(deal.Job{Kind: deal.JobTell, Tx: st.Owner}, time.Time{})
		}
	}
}

// toDo is what is to be done because of what the ledger holds of a transaction, and when.
func (in *incarnation) toDo(s *deal.Sealing) map[deal.Job]time.Time {
	jobs := map[deal.Job]time.Time{}
	if alive(s) {
		jobs[deal.Job{Kind: deal.JobSeal, Tx: s.Tx}] = s.Next
	}
	if st, err := in.store.Receipt(context.Background(), s.Tx); err == nil && st.Due() {
		jobs[deal.Job{Kind: deal.JobTell, Tx: st.Owner}] = time.Time{}
	}
	if (in.w.script.Moves || in.w.script.Notes) && in.hasErrands(s.Tx) {
		jobs[deal.Job{Kind: deal.JobErrand, Tx: s.Tx}] = time.Time{}
	}
	return jobs
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
	j.wanted, j.never = job.Kind != deal.JobSeal, false
	j.due = due
	q.keep(job)
	q.mu.Unlock()
	q.awake()
}

// unwant takes back what was wanted.
func (q *simQueue) unwant(job deal.Job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j := q.jobs[job]; j != nil && j.running {
		j.never = true
	} else {
		delete(q.jobs, job)
	}
	q.keep(job)
}

// keep brings the world's timetable in line with a job. q.mu must be held.
func (q *simQueue) keep(job deal.Job) {
	if job.Kind == deal.JobSeal {
		return // its sealing says when it is due
	}
	w := q.in.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := q.jobs[job]; j != nil && !j.never {
		w.jobs[job] = j.due
	} else {
		delete(w.jobs, job)
	}
}

func (q *simQueue) awake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// told does to the job of a receipt what the store does to it when it commits that the CRM was told: see store.Told.
func (q *simQueue) told(tx deal.TxID, again time.Duration) {
	st, err := q.in.store.Receipt(context.Background(), tx)
	if err != nil || st.Sequence == 0 || st.Due() {
		return
	}
	if job := (deal.Job{Kind: deal.JobTell, Tx: st.Owner}); again > 0 {
		q.want(job, time.Now().Add(again))
	} else if q.in.gate() == nil { // of a daemon that is dead nobody knows whether it came to that
		q.unwant(job)
	}
}

// done ends a job, unless the daemon is dead: then it is to be found as it stood.
func (q *simQueue) done(j *simJob, out deal.Outcome) {
	goesOn := false
	if j.Kind == deal.JobSeal && out.Again == 0 {
		s, err := q.in.store.Load(context.Background(), j.Tx)
		goesOn = err == nil && alive(s)
	}
	if q.in.gate() != nil {
		return
	}
	q.mu.Lock()
	j.running = false
	switch {
	case j.never:
		delete(q.jobs, j.Job)
	case j.wanted:
	case out.Again > 0:
		j.due = time.Now().Add(out.Again)
	case goesOn:
		j.due = time.Now().Add(idleJob)
	default:
		delete(q.jobs, j.Job)
	}
	q.keep(j.Job)
	q.mu.Unlock()
	q.awake()
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
