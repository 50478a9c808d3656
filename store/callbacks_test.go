package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

// called has a workflow wait for two days for what becomes of a record.
func called(t *testing.T, s *Store, id, record, rule string) {
	t.Helper()
	_, _, err := s.Receive(t.Context(), deal.Arrival{Tenant: acme, Source: "hubspot-action", Block: 48 * time.Hour,
		Callbacks: []deal.Callback{{ID: id, Ref: deal.Ref{Object: "Opportunity", ID: record}, Rule: rule}}})
	if err != nil {
		t.Fatal(err)
	}
}

// dueCallbacks are those for which there is something to do, without what they have in common.
func dueCallbacks(t *testing.T, s *Store) (ids []string, open int64) {
	t.Helper()
	due, open, err := s.Callbacks(t.Context(), acme, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range due {
		ids = append(ids, c.ID+" "+string(c.Decide(s.now())))
	}
	return ids, open
}

func TestAWorkflowWaitsForTheNewestDealThatItsRecordHadWhenItCame(t *testing.T) {
	s, clock := newStore(t)
	want := func(what string, open int64, ids ...string) {
		t.Helper()
		got, n := dueCallbacks(t, s)
		if n != open || !cmp.Equal(got, ids) {
			t.Errorf("%s: there is something to do for %q, %d open; want %q, %d", what, got, n, ids, open)
		}
	}
	looked := func(record string, at time.Time, n int) {
		t.Helper()
		got, err := s.LookedAt(t.Context(), acme, org, deal.Ref{Object: "Opportunity", ID: record}, at)
		if err != nil || got != n {
			t.Errorf("looking at %s concerns %d workflows (%v), want %d", record, got, err, n)
		}
	}
	sl := one(t, s, "006A")
	before := clock.now
	clock.now = clock.now.Add(time.Second)
	called(t, s, "w1", "006A", "")
	called(t, s, "w1", "006A", "") // its sender got no answer
	called(t, s, "w2", "006B", "")
	called(t, s, "w3", "006A", "another-rule")
	want("nothing was looked at", 3, "w1 ", "w2 ", "w3 ")
	looked("006A", before, 0) // what was read before it came says nothing
	looked("006A", clock.now, 2)
	looked("006A", clock.now, 0)
	looked("006B", clock.now, 1)
	want("one waits for its deal, the others have nothing to wait for", 3, "w2 nothing", "w3 nothing")

	// Held is no end. What is told is decided once.
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	want("the deal is held", 3, "w2 nothing", "w3 nothing")
	due, _, err := s.Callbacks(t.Context(), acme, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.BeginCallback(t.Context(), due[0], deal.OutcomeNothing); err != nil {
		t.Fatal(err)
	}
	if err := s.BeginCallback(t.Context(), due[0], "signed"); !errors.Is(err, deal.ErrStale) {
		t.Errorf("something else may be told: %v", err)
	}
	if err := s.EndCallback(t.Context(), due[0], deal.CallbackEnd{Due: clock.now.Add(time.Minute), Problem: "no answer", Unclear: true}); err != nil {
		t.Fatal(err)
	}
	want("one is tried later", 3, "w3 nothing")
	clock.now = clock.now.Add(time.Minute)
	again, _, err := s.Callbacks(t.Context(), acme, 10)
	if err != nil || len(again) != 2 || again[1].ID != "w2" || again[1].Asked.IsZero() || again[1].Tries != 1 || again[1].Problem != "no answer" {
		t.Errorf("after an attempt without an answer: %+v, %v", again, err)
	}
	for _, c := range again {
		if err := s.EndCallback(t.Context(), c, deal.CallbackEnd{Fate: deal.CallbackExpired}); err != nil {
			t.Fatal(err)
		}
	}
	want("two have ended", 1)
	clock.now = clock.now.Add(47 * time.Hour)
	want("its time is nearly over", 1, "w1 held")
	f, err := s.CallbackFigures(t.Context())
	if err != nil || f[acme].Waiting != 1 || f[acme].Failing != 0 || f[acme].Lost != 0 {
		t.Errorf("figures %+v, %v", f, err)
	}
	story, err := s.Story(t.Context(), sl.Tx)
	if err != nil || len(story.Callbacks) != 1 || story.Callbacks[0].ID != "w1" {
		t.Errorf("the deal's workflows: %+v, %v", story.Callbacks, err)
	}
	clock.now = clock.now.Add(32 * 24 * time.Hour)
	if _, err := s.ForgetPushes(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("all are forgotten", 0)
}

// Two tenants may have the same account: a workflow waits for a deal of the tenant that it has called.
func TestAWorkflowWaitsForNoDealOfAnotherTenant(t *testing.T) {
	s, clock := newStore(t)
	one(t, s, "006A")
	clock.now = clock.now.Add(time.Second)
	_, _, err := s.Receive(t.Context(), deal.Arrival{Tenant: "other", Source: "hubspot-action", Block: 48 * time.Hour,
		Callbacks: []deal.Callback{{ID: "w1", Ref: deal.Ref{Object: "Opportunity", ID: "006A"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.LookedAt(t.Context(), "other", org, deal.Ref{Object: "Opportunity", ID: "006A"}, clock.now); err != nil {
		t.Fatal(err)
	}
	due, _, err := s.Callbacks(t.Context(), "other", 10)
	if err != nil || len(due) != 1 || due[0].Tx != "" || due[0].Outcome != deal.OutcomeNothing {
		t.Errorf("it is told of %+v, %v", due, err)
	}
}

// TestAWorkflowThatCanBeToldIsNotKeptWaitingByOthers has more workflows than one look takes up wait for records that nobody can
// look at.
func TestAWorkflowThatCanBeToldIsNotKeptWaitingByOthers(t *testing.T) {
	s, _ := newStore(t)
	called(t, s, "a", "006A", "")
	called(t, s, "b", "006B", "")
	called(t, s, "c", "006C", "")
	if _, err := s.LookedAt(t.Context(), acme, org, deal.Ref{Object: "Opportunity", ID: "006C"}, s.now()); err != nil {
		t.Fatal(err)
	}
	due, open, err := s.Callbacks(t.Context(), acme, 2)
	if err != nil || open != 3 || len(due) != 2 || due[0].ID != "c" {
		t.Errorf("of %d the first two are %+v, %v; want c before the others", open, due, err)
	}
}
