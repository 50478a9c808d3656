package store

import (
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestActivationIsCommittedOnceAndForOneTenant(t *testing.T) {
	s, _ := newStore(t)
	committed := start.Add(-time.Hour)
	got, err := s.Activate(t.Context(), acme, org, watch(ruleA), start.Add(time.Hour))
	if err != nil || !got.Equal(committed) {
		t.Fatalf("a later call returns %s, %v; want %s", got, err, committed)
	}
	if _, err := s.Activate(t.Context(), "other", org, watch(ruleA), start); err == nil || !strings.Contains(err.Error(), `"acme"`) {
		t.Fatalf("another tenant got %v", err)
	}
	for _, bad := range []deal.TenantID{"", "../x", "A", "a/b"} {
		if _, err := s.Activate(t.Context(), bad, org, watch("r"), start); err == nil {
			t.Errorf("tenant id %q was accepted", bad)
		}
	}
}

func TestEntriesFromBeforeTheActivationAreNotSealed(t *testing.T) {
	s, _ := newStore(t)
	early := change("006A", "h1")
	early.At = start.Add(-time.Hour - time.Millisecond)
	if fresh := notice(t, s, early); len(fresh) != 0 {
		t.Fatalf("fresh: %v", fresh)
	}
	early.At = early.At.Add(time.Millisecond)
	if fresh := notice(t, s, early); len(fresh) != 1 {
		t.Fatalf("an entry at the activation: %v", fresh)
	}
}

func TestARuleThatIsAddedLaterMovesTheCursorBackToItsActivation(t *testing.T) {
	s, _ := newStore(t)
	notice(t, s, change("006A", "h1"))
	read := cursor(t, s, acme, org)
	past := read.Since.Add(-24 * time.Hour)
	for range 2 { // the second call changes nothing
		if _, err := s.Activate(t.Context(), acme, org, watch("added-later"), past); err != nil {
			t.Fatal(err)
		}
		if c := cursor(t, s, acme, org); !c.Since.Equal(past) {
			t.Fatalf("cursor %v, want %s", c, past)
		}
	}
	if fresh := notice(t, s, change("006A", "h1")); len(fresh) != 0 {
		t.Fatalf("fresh again: %v", fresh)
	}
	moved := cursor(t, s, acme, org)
	if _, err := s.Activate(t.Context(), acme, org, watch("from-now"), read.Since.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if c := cursor(t, s, acme, org); c != moved {
		t.Fatalf("an activation in the future moved the cursor to %v", c)
	}
}

// read commits pages without entries until the cursor of acme is at a time.
func read(t *testing.T, s *Store, to time.Time, rules ...string) {
	t.Helper()
	n := page(t, s)
	n.Page.Next, n.Watches = deal.Cursor{Since: to}, map[string]deal.Watch{}
	for _, rule := range rules {
		n.Watches[rule] = watch(rule)
	}
	if _, err := s.Notice(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func TestARuleThatIsPutBackIsReadFromWhenItWasTakenOut(t *testing.T) {
	s, _ := newStore(t)
	activate(t, s, acme, "stays")
	takenOut, putBack := start.Add(time.Hour), start.Add(48*time.Hour)
	read(t, s, takenOut, ruleA, "stays")
	read(t, s, putBack, "stays")
	for range 2 {
		activate(t, s, acme, "stays")
		if c := cursor(t, s, acme, org); !c.Since.Equal(putBack) {
			t.Fatalf("a rule that was never taken out moved the cursor to %s", c.Since)
		}
	}
	for range 2 { // a start that dies before its first poll loses nothing
		activate(t, s, acme, ruleA)
		if c := cursor(t, s, acme, org); !c.Since.Equal(takenOut) {
			t.Fatalf("cursor %s, want %s", c.Since, takenOut)
		}
	}
	read(t, s, putBack.Add(time.Hour), ruleA, "stays")
	activate(t, s, acme, ruleA)
	if c := cursor(t, s, acme, org); !c.Since.Equal(putBack.Add(time.Hour)) {
		t.Fatalf("the rule is watched again, but the cursor went back to %s", c.Since)
	}
	verified(t, s)
}

func TestAnUnchangedRuleKeepsTheCursorsPositionInsideAWindow(t *testing.T) {
	s, _ := newStore(t)
	n := page(t, s)
	n.Page.Next = deal.Cursor{Since: start.Add(time.Microsecond), State: "row 500"}
	if _, err := s.Notice(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	activate(t, s, acme, ruleA)
	if c := cursor(t, s, acme, org); c != n.Page.Next {
		t.Fatalf("cursor %v, want %v", c, n.Page.Next)
	}
}

func TestAnEditedStageIsActivatedAnew(t *testing.T) {
	for name, edit := range map[string]func(*deal.Watch){
		"stage":    func(w *deal.Watch) { w.Stage = "Contract Sent" },
		"object":   func(w *deal.Watch) { w.Object = "Quote" },
		"pipeline": func(w *deal.Watch) { w.Pipeline = "default" },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			edited, now := watch(ruleA), start.Add(time.Hour)
			edit(&edited)
			if got, err := s.Activate(t.Context(), acme, org, edited, now); err != nil || !got.Equal(now) {
				t.Fatalf("activated at %s, %v, want %s", got, err, now)
			}
			if got, err := s.Activate(t.Context(), acme, org, watch(ruleA), now); err != nil || !got.Equal(start.Add(-time.Hour)) {
				t.Fatalf("the former watch: %s, %v", got, err)
			}
			if _, err := s.Activate(t.Context(), "other", org, edited, now); err == nil {
				t.Fatal("another tenant took over the rule")
			}
			early, late := change("006A", "h1"), change("006B", "h1")
			late.At = now
			n := page(t, s, early, late)
			n.Watches[ruleA] = edited
			fresh, err := s.Notice(t.Context(), n)
			if err != nil || len(fresh) != 1 || fresh[0] != late.TxIDs(org)[0] {
				t.Fatalf("fresh: %v, %v, want only what entered after the edit", fresh, err)
			}
		})
	}
}

func TestTwoTenantsOnOneAccountReadAtTheirOwnPace(t *testing.T) {
	s, _ := newStore(t)
	notice(t, s, change("006A", "h1"))
	mine := cursor(t, s, acme, org)
	if c := cursor(t, s, "other", org); !c.IsZero() {
		t.Fatalf("a tenant that never polled begins at %v", c)
	}
	if _, err := s.Activate(t.Context(), "other", org, watch("nda"), start.Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if c := cursor(t, s, acme, org); c != mine {
		t.Fatalf("another tenant's rule moved the cursor from %v to %v", mine, c)
	}
	entry := change("006A", "h1")
	entry.Rule = "nda"
	fresh, err := s.Notice(t.Context(), deal.Noticing{
		Tenant: "other", Account: org, Page: deal.Page{Entries: []deal.Change{entry}, Next: deal.Cursor{Since: start}},
		Plans: map[string]deal.Plan{"nda": plan()}, Watches: map[string]deal.Watch{"nda": watch("nda")},
	})
	if err != nil || len(fresh) != 1 {
		t.Fatalf("the other tenant's page: %v, %v", fresh, err)
	}
	if c := cursor(t, s, acme, org); c != mine {
		t.Fatalf("another tenant's page moved the cursor from %v to %v", mine, c)
	}
}
