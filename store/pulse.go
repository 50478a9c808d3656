package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/riverqueue/river"
)

// pulseQueue is where pulses are worked, beside the queues of the tenants.
const pulseQueue = "pulse"

// pulseArgs is a job that does nothing but arrive.
type pulseArgs struct {
	N int64 `json:"n"`
}

func (pulseArgs) Kind() string { return "dealseal-pulse" }

// pulses are those that somebody waits for. The zero value is ready.
type pulses struct {
	mu      sync.Mutex
	last    int64
	waiting map[int64]chan struct{}
}

func (p *pulses) begin() (n int64, arrived <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[int64]chan struct{}{}
		p.last = rand.Int64N(1 << 52) // what an earlier process left in the queue answers none of this one's
	}
	p.last++
	c := make(chan struct{})
	p.waiting[p.last] = c
	return p.last, c
}

// end is for one that arrived, or that nobody waits for any more. Those of an earlier process are not known.
func (p *pulses) end(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.waiting[n]; ok {
		close(c)
		delete(p.waiting, n)
	}
}

type pulseWorker struct {
	river.WorkerDefaults[pulseArgs]
	pulses *pulses
}

func (w *pulseWorker) Work(_ context.Context, job *river.Job[pulseArgs]) error {
	w.pulses.end(job.Args.N)
	return nil
}

// Pulse sends a job of no consequence through the queue and returns when it has been worked: the database takes writes,
// the timetable is read and jobs are run. It costs three small transactions. Run must be running. The error is ctx's when
// the job does not arrive; but a *DiskFullError when there is no room for it, and a *BusyError when another program holds
// the database locked, which both say nothing about the queue.
func (q *Queue) Pulse(ctx context.Context) error {
	n, arrived := q.pulses.begin()
	defer q.pulses.end(n)
	err := q.send(ctx, pulseArgs{N: n})
	if err == nil {
		select {
		case <-arrived:
			return nil
		case <-ctx.Done():
			err = fmt.Errorf("the queue does not move: %w", ctx.Err())
		}
	}
	// Whoever waits behind a lock for the one connection that writes does not meet the lock itself.
	if ctx.Err() != nil && q.s.blocked.Load() {
		err = &BusyError{Dir: q.s.dir, Cause: err}
	}
	return fmt.Errorf("pulse: %w", q.s.explain(err))
}

// send is no operation of the ledger, and none of Points.
func (q *Queue) send(ctx context.Context, p pulseArgs) error {
	tx, err := q.s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := q.s.timetable.client.InsertTx(ctx, tx, p, &river.InsertOpts{Queue: pulseQueue, MaxAttempts: 1}); err != nil {
		return err
	}
	return tx.Commit()
}
