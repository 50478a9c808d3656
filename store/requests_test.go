package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const calledAt = "https://receiver.example/hooks/done?customer=Zuzanna"

// asked has a program ask for a contract with a callback.
func asked(t *testing.T, s *Store, key, record string) *deal.Sealing {
	t.Helper()
	q := deal.Request{Key: key, Asked: record, Who: "api:erp (0)", Callback: calledAt}
	n := page(t, s, change(record, q.Occurrence()))
	tx, err := s.Request(t.Context(), n, q)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, s, tx)
}

func callbacks(t *testing.T, s *Store) {
	t.Helper()
	hook := testEndpoint("calls")
	hook.Callbacks = true
	for _, e := range []error{s.AddEndpoint(t.Context(), hook, "anna", "for callbacks"), s.AddEndpoint(t.Context(), testEndpoint("hooks"), "anna", "for all")} {
		if e != nil {
			t.Fatal(e)
		}
	}
}

func TestOnlyWhatWasAskedForIsCalledBack(t *testing.T) {
	s, _ := newStore(t)
	callbacks(t, s)
	one(t, s, "006A")
	sl := asked(t, s, "1", "006B")
	before := cursor(t, s, acme, org)
	if again := asked(t, s, "1", "006B"); again.Tx != sl.Tx || cursor(t, s, acme, org).String() != before.String() {
		t.Errorf("asked again, it is %s and not %s, or the cursor has moved", again.Tx, sl.Tx)
	}
	if err := s.Announce(t.Context(), "template.published", "x", "y", nil); err != nil {
		t.Fatal(err)
	}
	due, _, err := s.Take(t.Context(), "acme/calls", 10, time.Minute)
	if err != nil || len(due) != 1 || due[0].Event.Transaction != string(sl.Tx) || due[0].URL != calledAt {
		t.Errorf("called back: %+v, %v", due, err)
	}
	if due, _, err := s.Take(t.Context(), "acme/hooks", 10, time.Minute); err != nil || len(due) != 2 {
		t.Errorf("told to all: %+v, %v", due, err)
	}
	if n, err := s.Redeliver(t.Context(), Redelivery{Endpoint: "acme/calls", Since: start.Add(-time.Hour)}, "anna", "once more"); err != nil || n > 1 {
		t.Errorf("since then, %d are called back once more: %v", n, err)
	}
}

func TestACallbackGoesWithTheDealThatIsErased(t *testing.T) {
	s, _ := newStore(t)
	callbacks(t, s)
	sl := asked(t, s, "order 4711", "006B")
	sl.Condition = deal.Held
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "held", Events: []deal.Event{{Type: "document.held"}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Erase(t.Context(), sl.Tx, "anna", "asked to"); err != nil {
		t.Fatal(err)
	}
	if due, _, err := s.Take(t.Context(), "acme/calls", 10, time.Minute); err != nil || len(due) != 0 {
		t.Errorf("an erased deal is called back: %+v, %v", due, err)
	}
	if again := asked(t, s, "order 4711", "006B"); again.Tx != sl.Tx {
		t.Errorf("what was erased is made again, as %s", again.Tx)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, databaseName))
	for _, hidden := range []string{"Zuzanna", "order 4711"} {
		if err != nil || bytes.Contains(text, []byte(hidden)) {
			t.Errorf("the database has %q in the clear: %v", hidden, err)
		}
	}
}

func TestARequestThatIsRefusedLeavesNothing(t *testing.T) {
	s, _ := newStore(t)
	q := deal.Request{Key: "1", Asked: "x", Who: "api:erp (0)", Callback: calledAt}
	var refused *deal.RequestError
	if _, err := s.Request(t.Context(), page(t, s, change("006B", q.Occurrence())), q); !errors.As(err, &refused) {
		t.Errorf("with a callback to nobody: %v", err)
	}
	early := change("006B", q.Occurrence())
	early.At = start.AddDate(-1, 0, 0)
	q.Callback = ""
	if _, err := s.Request(t.Context(), page(t, s, early), q); !errors.As(err, &refused) {
		t.Errorf("before its rule begins: %v", err)
	}
	if n := query[int](t, s, `SELECT (SELECT count(*) FROM requests) + (SELECT count(*) FROM known) + (SELECT count(*) FROM sealings)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if tx, err := s.Request(t.Context(), page(t, s, change("006B", q.Occurrence())), q); err != nil || tx == "" {
		t.Errorf("the right one is not taken: %v", err)
	}
}

// Two tenants may have the same account: whoever asks for one of them is told nothing of the other's.
func TestAConflictTellsNothingOfAnotherTenant(t *testing.T) {
	s, _ := newStore(t)
	const other, theirs = deal.TenantID("other"), "their-form"
	if _, err := s.Activate(t.Context(), other, org, watch(theirs), start.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	ask := func(tenant deal.TenantID, rule string) (deal.TxID, error) {
		q := deal.Request{Key: "1", Asked: "x", Who: "api:erp (0)"}
		c, p := change("006B", q.Occurrence()), plan()
		c.Rule, p.Rule, p.Template = rule, rule, "memo@1"
		return s.Request(t.Context(), deal.Noticing{Tenant: tenant, Account: org, Page: deal.Page{Entries: []deal.Change{c}},
			Plans: map[string]deal.Plan{rule: p}, Watches: map[string]deal.Watch{rule: watch(rule)}}, q)
	}
	tx, err := ask(acme, ruleA)
	if err != nil {
		t.Fatal(err)
	}
	var refused *deal.RequestError
	if _, err := ask(other, theirs); !errors.As(err, &refused) || !refused.Conflict || strings.Contains(refused.Reason, string(tx)) || strings.Contains(refused.Reason, ruleA) {
		t.Errorf("beside %s of another tenant it is refused: %v", tx, err)
	}
}
