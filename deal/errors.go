package deal

import (
	"errors"
	"fmt"
	"time"
)

// ErrStale means that someone else moved the thing that was about to be changed: load it again and decide again.
var ErrStale = errors.New("changed by someone else since it was read")

// ErrGone means that the record no longer exists or can no longer be seen.
var ErrGone = goneError{}

type goneError struct{}

func (goneError) Error() string {
	return "the record is deleted or no longer visible to dealseal's CRM user"
}
func (goneError) Permanent() bool { return true }

// IsPermanent reports whether trying again cannot help. An error that does not say is worth another try.
func IsPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// RetryAfter returns how long the other side asked us to wait, or 0.
func RetryAfter(err error) time.Duration {
	var r interface{ RetryAfter() time.Duration }
	if errors.As(err, &r) {
		return r.RetryAfter()
	}
	return 0
}

// Unsettled returns how long the other side may still carry out what has failed, or 0 when that is over. Unlike RetryAfter it
// is nothing that a person can know better.
func Unsettled(err error) time.Duration {
	var u interface{ Unsettled() time.Duration }
	if errors.As(err, &u) {
		return u.Unsettled()
	}
	return 0
}

// SpentError says that a key has signed as many digests as it may.
type SpentError struct {
	Limit int64
	Daily bool // it is the limit of one day, which ends at midnight UTC
}

func (e *SpentError) Error() string {
	if e.Daily {
		return fmt.Sprintf("the key has sealed %d documents today, which is its limit", e.Limit)
	}
	return fmt.Sprintf("the key has sealed %d documents, which is its limit", e.Limit)
}

// HoldError stops a sealing until a person decides. Reason is shown to people and must not quote record values.
type HoldError struct {
	Reason string
	Cause  error
}

func (e *HoldError) Error() string   { return e.Reason }
func (e *HoldError) Unwrap() error   { return e.Cause }
func (e *HoldError) Permanent() bool { return true }

// Hold makes a HoldError.
func Hold(format string, args ...any) *HoldError {
	return &HoldError{Reason: fmt.Sprintf(format, args...)}
}
