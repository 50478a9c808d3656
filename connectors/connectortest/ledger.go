package connectortest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// ledger is the engine's memory in small: it keeps what the real one keeps in the database, so it outlives connectors.
type ledger struct {
	t       *testing.T
	w       World
	account deal.AccountID
	cursor  deal.Cursor
	watches []deal.Watch
	known   map[deal.TxID]bool
	// fresh are the entries that were new, in the order in which they were noticed.
	fresh       []sealing
	quarantined map[string]deal.Quarantine
	// pages counts the pages of the last poll.
	pages int
}

// sealing is a fresh entry with its transaction ID.
type sealing struct {
	deal.Change
	tx deal.TxID
}

// newLedger asks the CRM who it is; the account's clock becomes the activation time of the rule "contract" on the
// watched stage.
func newLedger(t *testing.T, w World, crm connectors.CRM) *ledger {
	t.Helper()
	l := &ledger{t: t, w: w, known: map[deal.TxID]bool{}, quarantined: map[string]deal.Quarantine{}}
	account := l.identity(crm)
	l.account = account.AccountID()
	l.watch("contract", w.Traits().Stage, account.Clock)
	return l
}

func (l *ledger) identity(crm connectors.CRM) deal.Account {
	l.t.Helper()
	account, err := crm.Identity(callContext(l.t))
	if err != nil {
		l.t.Fatalf("Identity: %v", err)
	}
	return account
}

// watch adds a rule and moves the cursor back if the rule looks further back than what was read.
func (l *ledger) watch(rule, stage string, since time.Time) {
	l.watchOf(l.w, rule, stage, since)
}

// watchOf is watch for the records of a world that is beside the ledger's.
func (l *ledger) watchOf(w World, rule, stage string, since time.Time) {
	traits := w.Traits()
	l.watches = append(l.watches, deal.Watch{
		Rule: rule, Object: traits.Object, Pipeline: traits.Pipeline, Stage: stage, Since: since,
	})
	l.cursor = l.cursor.Rewind(since)
}

// poll reads until the connector says that nothing is waiting and returns what was fresh.
func (l *ledger) poll(crm connectors.CRM) []sealing {
	l.t.Helper()
	fresh, err := l.tryPoll(crm)
	if err != nil {
		l.t.Fatalf("Changes: %v", err)
	}
	return fresh
}

func (l *ledger) tryPoll(crm connectors.CRM) ([]sealing, error) {
	l.t.Helper()
	// 10,500 entries are 21 pages; a connector that reads history through a search may need some more.
	const maxPages = 200
	var fresh []sealing
	for l.pages = 1; ; l.pages++ {
		page, err := crm.Changes(callContext(l.t), l.cursor, l.watches)
		if err != nil {
			return fresh, err
		}
		fresh = append(fresh, l.notice(page)...)
		if !page.More {
			return fresh, nil
		}
		if l.pages == maxPages {
			l.t.Fatalf("Changes still has more after %d pages; the cursor is %s", maxPages, l.cursor)
		}
	}
}

// notice takes a page in as the database does: cursor and entries together.
func (l *ledger) notice(page deal.Page) []sealing {
	l.t.Helper()
	if len(page.Entries) > 500 {
		l.t.Errorf("a page has %d entries, the contract says at most 500", len(page.Entries))
	}
	var fresh []sealing
	for i, c := range page.Entries {
		l.check(c)
		if i > 0 && c.At.Before(page.Entries[i-1].At) {
			l.t.Errorf("entries are not oldest first: %s after %s", c.At, page.Entries[i-1].At)
		}
		ids := c.TxIDs(l.account)
		isKnown := false
		for _, id := range ids {
			isKnown = isKnown || l.known[id]
		}
		l.known[ids[0]] = true
		if !isKnown {
			fresh = append(fresh, sealing{c, ids[0]})
		}
	}
	for _, q := range page.Quarantined {
		if q.Row == "" || q.Reason == "" {
			l.t.Errorf("a quarantined row has no name or reason: %+v", q)
		}
		l.quarantined[q.Row] = q
	}
	// The cursor is stored as text; what does not survive that is lost.
	stored, err := deal.ParseCursor(page.Next.String())
	if err != nil {
		l.t.Errorf("the next cursor cannot be stored: %v", err)
	}
	l.cursor = stored
	l.fresh = append(l.fresh, fresh...)
	return fresh
}

// check holds an entry against what every entry must be.
func (l *ledger) check(c deal.Change) {
	l.t.Helper()
	for _, w := range l.watches {
		if w.Rule != c.Rule {
			continue
		}
		if c.At.Before(w.Since) {
			l.t.Errorf("entry %s of rule %s is from %s, before the rule's start at %s", c.Occurrence, c.Rule, c.At, w.Since)
		}
		if c.Stage != w.Stage || c.Ref.Object != w.Object || c.Ref.ID == "" || c.Occurrence == "" {
			l.t.Errorf("entry does not fit rule %s: %+v", c.Rule, c)
		}
		if c.At.Location() != time.UTC || c.At != c.At.Truncate(time.Millisecond) {
			l.t.Errorf("entry time %s is not UTC milliseconds", c.At)
		}
		return
	}
	l.t.Errorf("entry for rule %q, which nobody watches", c.Rule)
}

// attempts repeats an outside call as the queue does, without the waiting: a permanent error ends it.
func attempts(t *testing.T, n int, call func() error) error {
	t.Helper()
	var err error
	for range n {
		if err = call(); err == nil || deal.IsPermanent(err) {
			return err
		}
	}
	return err
}

// supported leaves the case out when the CRM has no such thing.
func supported(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("LEFT OUT: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// callContext bounds one call generously: it ends a case that would hang, it measures nothing.
func callContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
