package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// Commits wait for the disk. Changes that arrive while one waits are made durable together by the next: the first of
// them leads, makes all of them in one transaction, each inside a savepoint of its own, commits, and only then lets the
// others go. Each is as durable when update returns as if it had been alone, and one that fails takes no other with it.

// maxTogether bounds how long the first of a group waits for the last.
const maxTogether = 32

// commits is the line of changes in front of the write connection. The zero value is ready.
type commits struct {
	mu      sync.Mutex
	waiting []*pendingChange
	led     bool // somebody is committing
}

// pendingChange is one call of update.
type pendingChange struct {
	ctx       context.Context
	operation string
	do        func(*txn) error
	turn      chan bool // true: lead; false: it is settled
	err       error
	panicked  any
	rings     []string // whom the bell is rung for, once it is durable
}

// update runs do in a write transaction. Nothing of it is visible before it is durable. Once do runs, the end of ctx does
// not stop it any more. do may run on another goroutine than its caller's.
func (s *Store) update(ctx context.Context, operation string, do func(*txn) error) error {
	c := &pendingChange{ctx: ctx, operation: operation, do: do, turn: make(chan bool, 1)}
	if s.commits.join(c) || <-c.turn {
		s.lead()
	}
	if c.panicked != nil {
		panic(c.panicked)
	}
	return s.explain(c.err)
}

// join puts a change into the line and reports whether it is to lead.
func (l *commits) join(c *pendingChange) (lead bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, c)
	lead = !l.led
	l.led = true
	return lead
}

// next takes the changes that are to be committed together, the leader's first.
func (l *commits) next() []*pendingChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.waiting), maxTogether)
	group := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	return group
}

// pass lets those of the group go, and has the first in the line lead.
func (l *commits) pass(group []*pendingChange) {
	l.mu.Lock()
	if l.led = len(l.waiting) > 0; l.led {
		l.waiting[0].turn <- true
	} else {
		l.waiting = nil
	}
	l.mu.Unlock()
	for _, c := range group[1:] {
		c.turn <- false
	}
}

// errNotCommitted is what a change hears whose group was not committed for a reason of another.
var errNotCommitted = errors.New("commit: it was not reached")

// lead commits the group that the caller is the first of.
func (s *Store) lead() {
	group := s.commits.next()
	for _, c := range group {
		c.err = errNotCommitted
	}
	defer s.commits.pass(group) // also when a hook panics
	if err := s.commitAll(group); err != nil {
		for _, c := range group {
			c.err = err
		}
	}
}

// commitAll makes the changes of a group durable and sets the error of each. The error returned is one of all of them.
func (s *Store) commitAll(group []*pendingChange) error {
	tx, err := s.write.BeginTx(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer tx.Rollback()
	made := group[:0:0]
	for _, c := range group {
		if err := s.make(tx, c, len(group) > 1); err != nil {
			return err
		}
		if c.err == nil && c.panicked == nil {
			made = append(made, c)
		}
	}
	if len(made) == 0 {
		return nil
	}
	commit := tx.Commit
	for _, c := range made {
		inner := commit
		commit = func() error { return s.hook.Around(c.operation, inner) }
	}
	if err := commit(); err != nil {
		err = fmt.Errorf("commit: %w", err)
		for _, c := range made {
			c.err = err
		}
		return nil
	}
	for _, c := range made {
		if len(c.rings) > 0 {
			s.bell.Ring(c.rings...)
		}
	}
	return nil
}

// make runs one change and takes back what it did if it fails. The error is one of the whole transaction: SQLite gives it
// up by itself when the disk is full.
func (s *Store) make(tx *sql.Tx, c *pendingChange, shared bool) error {
	if c.err = c.ctx.Err(); c.err != nil {
		c.err = fmt.Errorf("begin transaction: %w", c.err)
		return nil
	}
	ctx := context.WithoutCancel(c.ctx) // an interrupted statement would take the whole transaction with it
	if !shared {
		c.run(&txn{Tx: tx, ctx: ctx, s: s, now: s.now(), rings: &c.rings})
		return nil
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT change"); err != nil {
		return err
	}
	c.run(&txn{Tx: tx, ctx: ctx, s: s, now: s.now(), rings: &c.rings})
	if c.err != nil || c.panicked != nil {
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO change"); err != nil {
			return errors.Join(c.err, err)
		}
	}
	_, err := tx.ExecContext(ctx, "RELEASE change")
	return err
}

// changePanic is the panic of a change, which is its caller's, not the leader's.
type changePanic struct {
	value any
	stack []byte
}

func (p *changePanic) String() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

// run calls do.
func (c *pendingChange) run(t *txn) {
	defer func() {
		if value := recover(); value != nil {
			c.panicked = &changePanic{value, debug.Stack()}
		}
	}()
	c.err = c.do(t)
}
