package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

// fail has a sealing's step fail, without using up an attempt, as when a login is refused.
func fail(t *testing.T, s *Store, sl *deal.Sealing, times int) {
	t.Helper()
	for range times {
		sl.Condition, sl.Reason, sl.Next = deal.Retrying, "the PIN is refused", s.now().Add(time.Hour)
		advance(t, s, sl, "retrying")
	}
}

func TestWhatIsDueIsWhatHasNotMovedOrBeenTriedAgain(t *testing.T) {
	s, c := newStore(t)
	due := func(want map[deal.TenantID]time.Time) {
		t.Helper()
		v, err := s.Vitals(t.Context())
		if diff := cmp.Diff(want, v.Due); diff != "" || err != nil {
			t.Errorf("due (-want +got):\n%s%v", diff, err)
		}
	}
	due(map[deal.TenantID]time.Time{})
	waits := one(t, s, "006A")
	fail(t, s, waits, 1)
	next := c.now.Add(time.Hour)
	due(map[deal.TenantID]time.Time{acme: next})
	c.advance(30 * time.Minute)
	moved := c.now
	running := one(t, s, "006B")
	due(map[deal.TenantID]time.Time{acme: moved})
	running.Condition, running.Reason = deal.Held, "decide"
	advance(t, s, running, "held")
	due(map[deal.TenantID]time.Time{acme: next})
	c.advance(time.Hour)
	due(map[deal.TenantID]time.Time{acme: next})
}

func TestVitalsCountWhatBecameOfSealingsAndWhichKeepFailing(t *testing.T) {
	s, c := newStore(t)
	done := one(t, s, "006A")
	done.Step = deal.Done
	advance(t, s, done, "done")
	for i, record := range []string{"006B", "006C", "006F"} {
		failing := one(t, s, record)
		if i == 2 { // has failed often enough, but at another step
			fail(t, s, failing, FailingAfter-1)
			failing.Step = deal.Gathered
		}
		fail(t, s, failing, FailingAfter-1+i%2)
	}
	dead := one(t, s, "006D")
	dead.Condition, dead.Reason, dead.Attempts = deal.Dead, "no", 12
	advance(t, s, dead, "dead")
	c.advance(48 * time.Hour)
	one(t, s, "006E") // another day counts as well
	v, err := s.Vitals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Outcome{{acme, "dead", 1}, {acme, "done", 1}, {acme, "noticed", 6}}, v.Outcomes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[deal.TenantID]int64{acme: 1}, v.Failing); diff != "" {
		t.Errorf("only the one that failed %d times counts: %s", FailingAfter, diff)
	}
	if v.Database == 0 || v.WAL == 0 || !v.Backup.IsZero() {
		t.Errorf("%+v", v)
	}
}
