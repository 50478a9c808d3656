package tsa

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error says that no server gave a good token. Unwrap gives what each server did.
type Error struct {
	Servers   []*ServerError
	cancelled error
}

func (e *Error) Error() string {
	parts := make([]string, 0, len(e.Servers)+1)
	for _, s := range e.Servers {
		parts = append(parts, s.Error())
	}
	if e.cancelled != nil {
		parts = append(parts, e.cancelled.Error())
	}
	return "tsa: no time-stamp: " + strings.Join(parts, "; ")
}

// Unwrap lets errors.Is and errors.As reach every server's error and the context's.
func (e *Error) Unwrap() []error {
	all := make([]error, 0, len(e.Servers)+1)
	for _, s := range e.Servers {
		all = append(all, s)
	}
	if e.cancelled != nil {
		all = append(all, e.cancelled)
	}
	return all
}

// Permanent reports whether every server refused the question for what it is, so that asking again cannot help. Trouble with servers, their
// certificates or their clocks is never permanent: it is somebody's to mend while the schedule runs.
func (e *Error) Permanent() bool {
	if e.cancelled != nil {
		return false
	}
	for _, s := range e.Servers {
		if !s.Permanent() {
			return false
		}
	}
	return true
}

// RetryAfter is the shortest wait that a server asked for, at most an hour; 0 when one of them asked for none.
func (e *Error) RetryAfter() time.Duration {
	var shortest time.Duration
	for i, s := range e.Servers {
		if after := s.RetryAfter(); i == 0 || after < shortest {
			shortest = after
		}
	}
	return shortest
}

// ServerError is the failure of one server.
type ServerError struct {
	Server string // its address without the query
	Err    error
}

func (e *ServerError) Error() string { return e.Server + ": " + e.Err.Error() }
func (e *ServerError) Unwrap() error { return e.Err }

// Permanent reports whether the server refused the question for what it is.
func (e *ServerError) Permanent() bool {
	var r *Rejection
	return errors.As(e.Err, &r) && r.Permanent()
}

// RetryAfter is the wait that the server asked for, at most an hour; 0 for none.
func (e *ServerError) RetryAfter() time.Duration {
	var s *statusError
	var q *quotaError
	switch {
	case errors.As(e.Err, &s):
		return s.after
	case errors.As(e.Err, &q):
		return q.after
	}
	return 0
}

type statusError struct {
	code  int
	after time.Duration
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d", e.code) }

// argumentError is a mistake of the caller.
type argumentError struct{ reason string }

func (e *argumentError) Error() string   { return "tsa: " + e.reason }
func (e *argumentError) Permanent() bool { return true }
