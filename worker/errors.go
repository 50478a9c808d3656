package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrClosed is returned by calls on a pool that has been closed.
var ErrClosed = errors.New("worker: the pool is closed")

// DeadlineError says that a call ran into its deadline. If it had reached a
// child, that child was killed: what it was doing may or may not have happened.
type DeadlineError struct {
	Worker, Op string
	// Started is false if the call never reached a child: all were busy or
	// still loading.
	Started bool
	// Busy is the processor time that the child used while the call was with it: little of it means that the machine, or
	// something that the child waited for, kept it from working.
	Busy time.Duration
}

func (e *DeadlineError) Error() string {
	if !e.Started {
		return fmt.Sprintf("worker %s: %s: deadline passed before a child was free", e.Worker, e.Op)
	}
	return fmt.Sprintf("worker %s: %s: deadline passed, the child was killed", e.Worker, e.Op)
}

// Unwrap makes errors.Is(err, context.DeadlineExceeded) true.
func (e *DeadlineError) Unwrap() error { return context.DeadlineExceeded }

// CrashError says that the child ended under a call, or that none could be
// started: what it was doing may or may not have happened.
type CrashError struct {
	Worker, Op string
	Reason     string        // how the child ended
	Failures   int           // failures in a row, this one included
	after      time.Duration // until the next start
}

func (e *CrashError) Error() string {
	msg := fmt.Sprintf("worker %s: %s: %s", e.Worker, e.Op, e.Reason)
	if e.Failures > 1 {
		msg += fmt.Sprintf(" (failure %d in a row)", e.Failures)
	}
	return msg
}

// RetryAfter is the time until a child is started again.
func (e *CrashError) RetryAfter() time.Duration { return e.after }

// RemoteError is the error of a Handler or Program. It carries what that error
// answered to Permanent() bool, RetryAfter() time.Duration and Code() string.
// If it answered true to Fatal() bool the child ended itself after sending it,
// and the next call gets another one.
type RemoteError struct {
	Worker, Op string
	Message    string
	code       string
	permanent  bool
	after      time.Duration
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("worker %s: %s: %s", e.Worker, e.Op, e.Message)
}

// Permanent reports whether the same call will fail again.
func (e *RemoteError) Permanent() bool { return e.permanent }

// RetryAfter is how long to wait before trying again; 0 leaves it to the
// caller.
func (e *RemoteError) RetryAfter() time.Duration { return e.after }

// Code tells errors of one worker apart; "" if the error had none.
func (e *RemoteError) Code() string { return e.code }

// Bounds of an error that crosses the socket: bytes of text, and time.
const (
	maxMessage    = 4 << 10
	maxRetryAfter = 24 * time.Hour
)

// wireError is a RemoteError as JSON in the header of an error packet.
type wireError struct {
	Message    string `json:"message"`
	Code       string `json:"code,omitempty"`
	Permanent  bool   `json:"permanent,omitempty"`
	RetryAfter int64  `json:"retry_after_ms,omitempty"`
	Fatal      bool   `json:"fatal,omitempty"`
}

// wireFailure is a wireError as an error.
type wireFailure struct{ wireError }

func (f wireFailure) Error() string { return f.Message }

// wireErrorOf asks err what it has to say.
func wireErrorOf(err error) wireError {
	w := wireError{Message: cut(err.Error(), maxMessage)}
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		w.Code = coded.Code()
	}
	var permanent interface{ Permanent() bool }
	if errors.As(err, &permanent) {
		w.Permanent = permanent.Permanent()
	}
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) {
		w.RetryAfter = later.RetryAfter().Milliseconds()
	}
	var fatal interface{ Fatal() bool }
	if errors.As(err, &fatal) {
		w.Fatal = fatal.Fatal()
	}
	return w
}

// remote bounds again what the child should have bounded: it may not be itself
// any more.
func (w wireError) remote(worker, op string) *RemoteError {
	return &RemoteError{
		Worker: worker, Op: op, Message: cut(w.Message, maxMessage), code: cut(w.Code, maxOp), permanent: w.Permanent,
		after: time.Duration(min(max(w.RetryAfter, 0), maxRetryAfter.Milliseconds())) * time.Millisecond,
	}
}

// cut shortens s to about n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
