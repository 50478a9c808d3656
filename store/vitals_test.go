package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

func TestVitalsCountWhatBecameOfSealingsAndWhichKeepFailing(t *testing.T) {
	s, c := newStore(t)
	done := one(t, s, "006A")
	done.Step = deal.Done
	advance(t, s, done, "done")
	for i, record := range []string{"006B", "006C"} {
		failing := one(t, s, record)
		failing.Condition, failing.Reason, failing.Attempts, failing.Next = deal.Retrying, "no answer", FailingAfter-1+i, c.now.Add(time.Minute)
		advance(t, s, failing, "retrying")
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
	if diff := cmp.Diff([]Outcome{{acme, "dead", 1}, {acme, "done", 1}, {acme, "noticed", 5}}, v.Outcomes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[deal.TenantID]int64{acme: 1}, v.Failing); diff != "" {
		t.Errorf("only the one that failed %d times counts: %s", FailingAfter, diff)
	}
	if v.Database == 0 || v.WAL == 0 || !v.Backup.IsZero() {
		t.Errorf("%+v", v)
	}
}
