package store

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// lookout is a tenant with rules of which no history tells, on a store.
type lookout struct {
	t      *testing.T
	s      *Store
	tenant deal.TenantID
	rules  map[string]deal.Watch
}

// since is when rules of a lookout count.
var since = start.Add(-time.Hour)

func newLookout(t *testing.T, s *Store, tenant deal.TenantID, stages map[string]string) *lookout {
	t.Helper()
	l := &lookout{t, s, tenant, map[string]deal.Watch{}}
	for rule, stage := range stages {
		l.add(rule, stage, since)
	}
	return l
}

func (l *lookout) add(rule, stage string, at time.Time) {
	l.t.Helper()
	w := deal.Watch{Rule: rule, Object: "Order", Stage: stage, Snapshot: true}
	committed, err := l.s.Activate(l.t.Context(), l.tenant, org, w, at)
	if err != nil {
		l.t.Fatal(err)
	}
	w.Since = committed
	l.rules[rule] = w
}

// page is what a poll has seen, of which the CRM had the time next when it was read.
func (l *lookout) page(next time.Time, seen ...deal.Sighting) deal.Noticing {
	l.t.Helper()
	n := deal.Noticing{Tenant: l.tenant, Account: org, Page: deal.Page{Sightings: seen, Next: deal.Cursor{Since: next}}, Ended: true,
		Previous: cursor(l.t, l.s, l.tenant, org), Plans: map[string]deal.Plan{}, Watches: l.rules}
	for rule := range l.rules {
		n.Plans[rule] = plan()
	}
	inferred, err := l.s.Infer(l.t.Context(), n)
	if err != nil {
		l.t.Fatal(err)
	}
	n.Page.Entries = inferred
	return n
}

// see takes a poll in, and returns the entries that are new.
func (l *lookout) see(next time.Time, seen ...deal.Sighting) (fresh []deal.Change) {
	l.t.Helper()
	txs, err := l.s.Notice(l.t.Context(), l.page(next, seen...))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, tx := range txs {
		fresh = append(fresh, load(l.t, l.s, tx).Change)
	}
	return fresh
}

// minute is so many minutes after the rules of a lookout were activated.
func minute(n int) time.Time { return since.Add(time.Duration(n) * time.Minute) }

// order was made at one minute and changed last at another.
func order(id, stage string, made, changed int) deal.Sighting {
	return deal.Sighting{Ref: deal.Ref{Object: "Order", ID: id}, Stage: stage, Created: minute(made), Stamp: minute(changed), By: "005"}
}

func (l *lookout) want(what string, fresh []deal.Change, ids ...string) {
	l.t.Helper()
	var got []string
	for _, c := range fresh {
		got = append(got, c.Ref.ID)
	}
	if !slices.Equal(got, ids) {
		l.t.Errorf("%s: new are the entries of %v, want %v", what, got, ids)
	}
}

func TestAnEntryIsInferredOnceForEachStay(t *testing.T) {
	s, _ := newStore(t)
	l := newLookout(t, s, acme, map[string]string{"order": "Activated"})
	l.want("history", l.see(minute(1), order("old", "Activated", -99, -50), order("draft", "Draft", -99, -60), order("late", "Activated", -5, -1)))
	l.want("an edit in the stage", l.see(minute(3), order("old", "Activated", -99, 2)))
	l.want("a record that enters, and one that is made in the stage", l.see(minute(5), order("draft", "Activated", -99, 4), order("made", "Activated", 3, 4)), "draft", "made")
	l.want("the same poll once more", l.see(minute(5), order("draft", "Activated", -99, 4), order("made", "Activated", 3, 4)))
	l.want("a receipt of ours", l.see(minute(6), order("draft", "Activated", -99, 5)))
	l.want("it leaves", l.see(minute(8), order("draft", "Draft", -99, 7)))
	l.want("it enters again", l.see(minute(10), order("draft", "Activated", -99, 9)), "draft")
	l.want("an old page", l.see(minute(11), order("draft", "Draft", -99, 7)))
	l.want("after it", l.see(minute(12), order("draft", "Activated", -99, 9)))
	l.want("it is deleted and restored", l.see(minute(14), order("draft", "Activated", -99, 13)))
	verified(t, s)
}

func TestStaysWithinOneSecondHaveNamesOfTheirOwn(t *testing.T) {
	s, _ := newStore(t)
	l := newLookout(t, s, acme, map[string]string{"order": "Activated"})
	l.see(minute(1), order("o", "Draft", 1, 1))
	for range 3 {
		l.want("in", l.see(minute(2), order("o", "Activated", 1, 2)), "o")
		l.want("out", l.see(minute(2), order("o", "Draft", 1, 2)))
	}
}

func TestWhatMayHaveEnteredBeforeTheRuleIsUnproven(t *testing.T) {
	s, _ := newStore(t)
	l := newLookout(t, s, acme, map[string]string{"order": "Activated"})
	// The first reading finds a record in the stage that was changed since the rule counts: entered, or edited?
	fresh := l.see(minute(2), order("old", "Activated", -99, 1), order("new", "Activated", 1, 1))
	l.want("the first reading", fresh, "old", "new")
	if !fresh[0].Inferred.Unproven || fresh[1].Inferred.Unproven {
		t.Errorf("unproven are %v and %v, want the one that is older than the rule", fresh[0].Inferred, fresh[1].Inferred)
	}
	// A rule that is added takes nothing in that was in its stage, and doubts what has entered since the last poll before it.
	l.see(minute(4), order("was", "In Review", 1, 3), order("is", "Draft", 1, 3))
	l.add("review", "In Review", minute(5))
	fresh = l.see(minute(7), order("was", "In Review", 1, 6), order("is", "In Review", 1, 6))
	l.want("after a rule was added", fresh, "is")
	if !fresh[0].Inferred.Unproven || !fresh[0].Earliest().Equal(minute(4)) {
		t.Errorf("it is %+v, and was not in the stage at minute 4", fresh[0].Inferred)
	}
	l.see(minute(8), order("next", "Draft", 1, 7))
	if fresh = l.see(minute(10), order("next", "In Review", 1, 9)); len(fresh) != 1 || fresh[0].Inferred.Unproven {
		t.Errorf("what enters a poll later is %+v", fresh)
	}
	// The CRM says at which time it was asked with less precision than when the rule was activated.
	l.add("draft", "Draft", minute(11))
	l.see(minute(11).Add(-time.Second))
	if fresh = l.see(minute(13), order("next", "Draft", 1, 12), order("late", "Draft", 1, 12)); len(fresh) != 2 || fresh[0].Inferred.Unproven || !fresh[1].Inferred.Unproven {
		t.Errorf("what enters after all was seen once is %+v", fresh)
	}
}

// The first reading of an object may take many rounds, in which others come to their end: what it finds is not taken for proven by what
// is still to be seen, and its first run is not over.
func TestAFirstReadingIsNotOverBeforeAllIsSeen(t *testing.T) {
	s, _ := newStore(t)
	l := newLookout(t, s, acme, map[string]string{"order": "Activated"})
	take := func(unread []string, next int, seen ...deal.Sighting) deal.Sealing {
		t.Helper()
		n := l.page(minute(next), seen...)
		n.Page.Unread, n.Guard = unread, deal.Guard{Rules: map[string]deal.RuleGuard{"order": {FirstRun: 5}}}
		fresh, err := s.Notice(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if len(fresh) == 0 {
			return deal.Sealing{}
		}
		return *load(t, s, fresh[0])
	}
	order1, order2 := order("one", "Draft", -99, -60), order("two", "Draft", -99, -60)
	take([]string{"Order"}, -5, order1, order2)
	order1.Stage, order1.Stamp = "Activated", minute(3)
	one := take([]string{"Order"}, -5, order1)
	if !one.Change.Inferred.Unproven || one.Condition != deal.Held {
		t.Errorf("before all was seen it is %+v and %s", one.Change.Inferred, one.Condition)
	}
	take([]string{"Quote"}, -5)
	order2.Stage, order2.Stamp = "Activated", minute(4)
	if two := take(nil, 6, order2); two.Change.Inferred.Unproven || two.Condition != deal.Running {
		t.Errorf("after that it is %+v and %s", two.Change.Inferred, two.Condition)
	}
	if is := load(t, s, one.Tx); is.Condition != deal.Running {
		t.Errorf("the first run is over, and what it has found is %s: %s", is.Condition, is.Reason)
	}
}

// A rule that is taken out and put back finds what has entered meanwhile, as it would in a history, although another rule has
// had the object polled. A stage that was edited begins anew.
func TestARuleThatIsPutBackFindsWhatHasEnteredMeanwhile(t *testing.T) {
	s, _ := newStore(t)
	l := newLookout(t, s, acme, map[string]string{"order": "Activated", "review": "In Review"})
	l.see(minute(2), order("a", "Draft", 1, 1), order("b", "Draft", 1, 1))
	review := l.rules["review"]
	delete(l.rules, "review")
	l.see(minute(4), order("a", "In Review", 1, 3))
	l.add("review", review.Stage, minute(5))
	if at := cursor(t, s, acme, org); !at.Since.Equal(minute(2)) {
		t.Fatalf("the cursor is at %v, want where the rule was taken out", at.Since)
	}
	l.want("put back", l.see(minute(6), order("a", "In Review", 1, 3), order("b", "In Review", 1, 5)), "a", "b")

	l.add("review", "Draft", minute(7))
	l.want("another stage", l.see(minute(9), order("c", "Draft", -99, 6), order("b", "Draft", 1, 8)), "b")
}

func TestTenantsOfOneAccountSeeForThemselves(t *testing.T) {
	s, _ := newStore(t)
	one := newLookout(t, s, acme, map[string]string{"order": "Activated"})
	two := newLookout(t, s, "globex", map[string]string{"other": "Activated"})
	for _, l := range []*lookout{one, two} {
		l.want("a draft", l.see(minute(2), order("o", "Draft", 1, 1)))
	}
	for _, l := range []*lookout{one, two} {
		l.want("it enters", l.see(minute(4), order("o", "Activated", 1, 3)), "o")
	}
}

// What is compared and what is noticed are one transaction: of two that have read the same, the second has to look again.
func TestAPageThatSomethingWasSeenSinceIsRefused(t *testing.T) {
	s, _ := newStore(t)
	l := newLookout(t, s, acme, map[string]string{"order": "Activated"})
	l.see(minute(1), order("o", "Draft", 1, 1))
	seen := order("o", "Activated", 1, 1)
	first, second := l.page(minute(1), seen), l.page(minute(1), seen)
	if fresh, err := s.Notice(t.Context(), first); err != nil || len(fresh) != 1 {
		t.Fatalf("%v, %v", fresh, err)
	}
	if fresh, err := s.Notice(t.Context(), second); err != nil || len(fresh) != 0 {
		t.Errorf("the same page once more makes %v, %v", fresh, err)
	}
	behind := l.page(minute(1), order("o", "Draft", 1, 1))
	l.see(minute(1), order("o", "Draft", 1, 2))
	late := l.page(minute(1), order("o", "Activated", 1, 3))
	l.see(minute(1), order("o", "Activated", 1, 4))
	late.Page.Sightings[0].Stamp = minute(5)
	late.Page.Entries = behind.Page.Entries
	if _, err := s.Notice(t.Context(), late); !errors.Is(err, deal.ErrStale) {
		t.Errorf("a page without the entry that follows from it gives %v", err)
	}
	invented := l.page(minute(1))
	invented.Page.Entries = first.Page.Entries
	if _, err := s.Notice(t.Context(), invented); !errors.Is(err, deal.ErrStale) {
		t.Errorf("an entry that nothing was seen of gives %v", err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM sealings`); n != 2 {
		t.Errorf("there are %d deals, want 2", n)
	}
}

func TestARuleKeepsTheWayInWhichItFindsItsEntries(t *testing.T) {
	s, _ := newStore(t)
	l := newLookout(t, s, acme, map[string]string{"order": "Activated"})
	w := l.rules["order"]
	w.Snapshot, w.Stage = false, "Draft"
	if _, err := s.Activate(t.Context(), acme, org, w, start); err == nil || errors.Is(err, deal.ErrStale) {
		t.Errorf("a rule that would read its history from now on is activated: %v", err)
	}
	h := watch(ruleA)
	h.Snapshot = true
	if _, err := s.Activate(t.Context(), acme, org, h, start); err == nil {
		t.Error("a rule that has read its history is activated for snapshots")
	}
}
