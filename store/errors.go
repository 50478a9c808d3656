package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// DiskFullError means that the state directory has no room. Nothing that was acknowledged is lost, and the same Store
// goes on once there is space.
type DiskFullError struct {
	Dir   string
	Cause error
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("%s is full: free some space, nothing acknowledged is lost (%v)", e.Dir, e.Cause)
}

// Unwrap returns the database's own error.
func (e *DiskFullError) Unwrap() error { return e.Cause }

// RetryAfter says when it is worth looking again.
func (e *DiskFullError) RetryAfter() time.Duration { return time.Minute }

// BusyError means that another program holds the database's lock for longer than a write waits. Nothing that was
// acknowledged is lost, and the same Store goes on once the lock is free.
type BusyError struct {
	Dir   string
	Cause error
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("another program holds the database in %s locked: end it; for a copy use dealseal backup, which locks nothing (%v)", e.Dir, e.Cause)
}

// Unwrap returns the database's own error.
func (e *BusyError) Unwrap() error { return e.Cause }

// RefusedError means that the ledger will not take a change that breaks one of its promises. Trying again cannot help.
type RefusedError struct {
	Tx     deal.TxID
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: the ledger refuses: %s", e.Tx, e.Reason)
}

// Permanent is always true.
func (e *RefusedError) Permanent() bool { return true }

// NothingGuardedError means that the guard holds nothing of a tenant or a rule, or not any more.
type NothingGuardedError struct{ Scope deal.GuardScope }

func (e *NothingGuardedError) Error() string {
	return fmt.Sprintf("the guard holds nothing of %s", e.Scope)
}

// Permanent is always true.
func (e *NothingGuardedError) Permanent() bool { return true }

// NotFoundError means that the ledger knows no such sealing.
type NotFoundError struct{ Tx deal.TxID }

func (e *NotFoundError) Error() string { return fmt.Sprintf("no sealing %s in the ledger", e.Tx) }

// Permanent is always true.
func (e *NotFoundError) Permanent() bool { return true }

// ErasedError means that the sealing's data key was destroyed: what it protected cannot be read by anyone.
type ErasedError struct{ Tx deal.TxID }

func (e *ErasedError) Error() string {
	return fmt.Sprintf("%s was erased: its data key is destroyed", e.Tx)
}

// Permanent is always true.
func (e *ErasedError) Permanent() bool { return true }

// stale wraps deal.ErrStale with what was stale.
func stale(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), deal.ErrStale)
}

func refuse(tx deal.TxID, format string, args ...any) error {
	return &RefusedError{Tx: tx, Reason: fmt.Sprintf(format, args...)}
}

// explain gives a database error the words that an operator needs.
func (s *Store) explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC) || hasCode(err, sqlite3.SQLITE_FULL):
		return &DiskFullError{Dir: s.dir, Cause: err}
	case isBusy(err):
		return &BusyError{Dir: s.dir, Cause: err}
	}
	return err
}

// isBusy reports whether a statement found the database locked for longer than it waits. Nothing here has a second
// connection that writes: the lock is another program's.
func isBusy(err error) bool { return hasCode(err, sqlite3.SQLITE_BUSY) }

func hasCode(err error, primary int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == primary
}
