package hubspot

import (
	"context"
	"sync"
	"time"
)

// window allows so many calls within a time, counted as HubSpot counts them: over any stretch of that length. A token
// bucket of the same size would let through twice as many after a pause, and one of half the size would halve the speed.
type window struct {
	length time.Duration

	mu    sync.Mutex
	calls []time.Time // the last ones, a ring
	next  int         // the oldest of them
}

// transitSlack makes up for calls that are on their way for different times.
const transitSlack = 0.05

func newWindow(calls int, length time.Duration) *window {
	return &window{length: length + time.Duration(float64(length)*transitSlack), calls: make([]time.Time, calls)}
}

// wait returns when a call may be made. It fails at once, and counts nothing, when the context's deadline comes first.
func (w *window) wait(ctx context.Context) error {
	d, err := w.reserve(ctx)
	if err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reserve takes the next place and returns how far off it is.
func (w *window) reserve(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	at := now
	if free := w.calls[w.next].Add(w.length); free.After(now) {
		at = free
	}
	if deadline, ok := ctx.Deadline(); ok && at.After(deadline) {
		return 0, context.DeadlineExceeded
	}
	w.calls[w.next] = at
	w.next = (w.next + 1) % len(w.calls)
	return at.Sub(now), nil
}
