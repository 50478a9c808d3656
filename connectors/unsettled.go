package connectors

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Unsettled remembers the records with a write that got no answer in time. The CRM may still carry it out, and then it
// would overwrite what was written after it. It is safe for concurrent use.
type Unsettled struct {
	pause time.Duration

	mu    sync.Mutex
	until map[string]time.Time
}

// mostUnsettled bounds the memory; a record that is forgotten is written to without a pause.
const mostUnsettled = 10_000

// NewUnsettled makes a memory that gives such a write the pause to be carried out after all.
func NewUnsettled(pause time.Duration) *Unsettled {
	return &Unsettled{pause: pause, until: map[string]time.Time{}}
}

// Note takes in how a write to the record went. Only one that took too long counts: whoever has cut the connection is not
// carrying it out for long.
func (u *Unsettled) Note(record string, err error) {
	if !errors.Is(err, context.DeadlineExceeded) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.until) >= mostUnsettled {
		clear(u.until)
	}
	u.until[record] = time.Now().Add(u.pause)
}

// Check returns an *UnsettledError while the record should be left alone.
func (u *Unsettled) Check(record string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	left := time.Until(u.until[record])
	if left <= 0 {
		delete(u.until, record)
		return nil
	}
	return &UnsettledError{left}
}

// UnsettledError says that a write has to wait for an earlier one.
type UnsettledError struct{ left time.Duration }

func (e *UnsettledError) Error() string {
	return "an earlier write to the record got no answer in time and may still be carried out: dealseal waits until that is over"
}

// RetryAfter is how long the record should still be left alone.
func (e *UnsettledError) RetryAfter() time.Duration { return e.left }

// LateError is the failure of a write that the CRM may still be carrying out: whoever looked at once could find nothing, write
// again, and have both.
type LateError struct {
	cause error
	late  time.Duration
}

// Late marks such a failure. The error itself stays as it is: deals that share a call share its error, too.
func Late(err error, late time.Duration) error {
	var already *LateError
	if errors.As(err, &already) && already.late >= late {
		return err
	}
	return &LateError{err, late}
}

const lateCure = "it may still be carried out, so that dealseal waits before it looks and tries again"

func (e *LateError) Error() string { return e.cause.Error() + "; " + lateCure }

func (e *LateError) Unwrap() error { return e.cause }

// Cure is what mends it. It is a part of the text, too.
func (e *LateError) Cure() string {
	var c interface{ Cure() string }
	if errors.As(e.cause, &c) && c.Cure() != "" {
		return c.Cure() + "; " + lateCure
	}
	return lateCure
}

// RetryAfter is how long the CRM should be left alone.
func (e *LateError) RetryAfter() time.Duration { return max(deal.RetryAfter(e.cause), e.late) }

// Unsettled is how long the CRM may still carry out the write; see deal.Unsettled.
func (e *LateError) Unsettled() time.Duration { return e.late }
