package store

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const week = 7 * 24 * time.Hour

// oneFollowed is a new sealing whose record is to say when there was no outcome for a week.
func oneFollowed(t *testing.T, s *Store, record string) *deal.Sealing {
	t.Helper()
	n := page(t, s, change(record, "h1"))
	p := plan()
	p.FollowUp, p.WriteBack.FollowUp = week, "Follow_Up__c"
	n.Plans = map[string]deal.Plan{ruleA: p}
	fresh, err := s.Notice(t.Context(), n)
	if err != nil || len(fresh) != 1 {
		t.Fatalf("%v, %v", fresh, err)
	}
	return load(t, s, fresh[0])
}

func wantFollowUps(t *testing.T, s *Store, when string, want int) {
	t.Helper()
	if n, err := s.FollowUps(t.Context()); err != nil || n != want {
		t.Errorf("%s: %d deals came to be followed up, %v; want %d", when, n, err, want)
	}
}

// followUpsTold counts the events of a deal that say so.
func followUpsTold(t *testing.T, s *Store, tx deal.TxID) (n int) {
	t.Helper()
	story, err := s.Story(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range story.Outbox {
		if e.Type == "envelope.follow_up_due" {
			n++
		}
	}
	return n
}

func TestADealWithoutAnOutcomeIsFollowedUpOnce(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "state"), newClock()
	s := open(t, options(dir, c.Now))
	activate(t, s, acme, ruleA)
	sl := oneFollowed(t, s, "006A")
	one(t, s, "006B") // its plan says nothing of that
	sl.Condition, sl.Reason = deal.Held, "a question"
	advance(t, s, sl, "held")
	told(t, s, sl.Tx)
	c.advance(week - time.Second)
	wantFollowUps(t, s, "a second early", 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Second)
	s = open(t, options(dir, c.Now))
	before := load(t, s, sl.Tx)
	wantFollowUps(t, s, "after a restart", 1)
	wantFollowUps(t, s, "at the next look", 0)
	after := load(t, s, sl.Tx)
	if !after.Facts.FollowUp.Equal(c.now) || after.Condition != deal.Held || !after.Updated.Equal(before.Updated) || after.Version != before.Version+1 {
		t.Errorf("the deal was %+v and is %+v", before, after)
	}
	if n := followUpsTold(t, s, sl.Tx); n != 1 {
		t.Errorf("%d events tell of it", n)
	}
	if r, err := s.Receipt(t.Context(), sl.Tx); err != nil || !r.Due() {
		t.Errorf("the record is not told: %+v, %v", r, err)
	}
	// Whoever has read it before is told that it has moved.
	if err := s.Begin(t.Context(), before, deal.Intent{What: "render", Lease: time.Minute}); err == nil {
		t.Error("what was read before is still believed")
	}
	// A release is no outcome, a seal on the record is.
	after.Condition, after.Reason = deal.Running, ""
	advance(t, s, after, "released")
	if load(t, s, sl.Tx).Facts.FollowUp.IsZero() {
		t.Error("a release ends the wait")
	}
	after.Step = deal.Attached
	advance(t, s, after, "attached")
	c.advance(2 * week)
	wantFollowUps(t, s, "after its outcome", 0)
	if at := load(t, s, sl.Tx).Facts.FollowUp; !at.IsZero() {
		t.Errorf("after its outcome the deal is to be followed up, since %s", at)
	}
}

func TestAnOutcomeEndsTheWaitAndARetryBeginsAnother(t *testing.T) {
	s, c := newStore(t)
	sl := oneFollowed(t, s, "006A")
	c.advance(time.Hour)
	sl.Condition, sl.Reason = deal.Dead, "no such field"
	advance(t, s, sl, "given up")
	c.advance(2 * week)
	wantFollowUps(t, s, "of a deal that was given up", 0)
	if err := s.Retry(t.Context(), sl.Tx, "ann", "mended"); err != nil {
		t.Fatal(err)
	}
	c.advance(week - time.Second)
	wantFollowUps(t, s, "nearly a week after the retry", 0)
	c.advance(time.Second)
	wantFollowUps(t, s, "a week after the retry", 1)
}

func TestWhatTheGuardHoldsIsFollowedUpFromItsReleaseOn(t *testing.T) {
	s, c := newStore(t)
	guarded(t, s, caution) // the first run ends
	n := page(t, s, crowd("a", 3)...)
	p := plan()
	p.FollowUp = week
	n.Plans, n.Guard = map[string]deal.Plan{ruleA: p}, caution
	fresh, err := s.Notice(t.Context(), n)
	if err != nil || len(fresh) != 3 || !load(t, s, fresh[0]).Facts.Guarded {
		t.Fatalf("%v, %v", fresh, err)
	}
	c.advance(2 * week)
	wantFollowUps(t, s, "while the guard holds them", 0)
	decided(t, s, "release", 3)
	wantFollowUps(t, s, "at the release", 0)
	c.advance(week)
	wantFollowUps(t, s, "a week later", 3)
}

func TestADealThatIsWorkedOnIsFollowedUpAtTheNextLook(t *testing.T) {
	s, c := newStore(t)
	sl := oneFollowed(t, s, "006A")
	c.advance(week)
	job, end := s.AsJob(t.Context())
	if err := s.Begin(job, sl, deal.Intent{What: "render", Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	wantFollowUps(t, s, "while a step is under way", 0)
	if err := s.Advance(job, sl, deal.Entry{Who: "daemon", What: "gathered"}); err != nil {
		t.Fatal(err)
	}
	end()
	wantFollowUps(t, s, "after the step", 1)
}

func TestADealThatCannotBeReadKeepsNoOtherFromBeingFollowedUp(t *testing.T) {
	s, c := newStore(t)
	damaged := oneFollowed(t, s, "006A")
	c.advance(time.Hour)
	other := oneFollowed(t, s, "006B")
	if err := s.update(t.Context(), "commit/operate", func(t *txn) error { return t.exec(`DELETE FROM data_keys WHERE tx = $1`, damaged.Tx) }); err != nil {
		t.Fatal(err)
	}
	c.advance(week)
	if n, err := s.FollowUps(t.Context()); n != 1 || err == nil || !strings.Contains(err.Error(), string(damaged.Tx)) {
		t.Errorf("%d deals came to be followed up, %v", n, err)
	}
	if n := followUpsTold(t, s, other.Tx); n != 1 {
		t.Errorf("%d events tell of the other one", n)
	}
}

func TestAWaitThatBeganInTheFutureBeginsNow(t *testing.T) {
	s, c := newStore(t)
	c.advance(400 * 24 * time.Hour) // the clock is wrong
	sl := oneFollowed(t, s, "006A")
	c.advance(-400 * 24 * time.Hour)
	wantFollowUps(t, s, "once the clock is right", 0)
	c.advance(week)
	wantFollowUps(t, s, "a week later", 1)
	if n := followUpsTold(t, s, sl.Tx); n != 1 {
		t.Errorf("%d events tell of it", n)
	}
}

func TestManyAreFollowedUpInSeveralLooks(t *testing.T) {
	s, c := newStore(t)
	var changes []deal.Change
	for i := range followUpsAtOnce + 2 {
		changes = append(changes, change(string(rune('a'+i%26))+time.Duration(i).String(), "h1"))
	}
	n := page(t, s, changes...)
	p := plan()
	p.FollowUp = week
	n.Plans = map[string]deal.Plan{ruleA: p}
	fresh, err := s.Notice(t.Context(), n)
	if err != nil || len(fresh) != len(changes) {
		t.Fatalf("%d, %v", len(fresh), err)
	}
	c.advance(week)
	if err := s.Erase(t.Context(), endedOne(t, s, fresh[0]), "ann", "asked to"); err != nil {
		t.Fatal(err)
	}
	wantFollowUps(t, s, "first", followUpsAtOnce)
	wantFollowUps(t, s, "then", 1)
	if got := query[int](t, s, `SELECT count(*) FROM follow_ups`); got != 0 {
		t.Errorf("%d still wait", got)
	}
	if due := slices.IndexFunc(fresh[1:], func(tx deal.TxID) bool { return followUpsTold(t, s, tx) != 1 }); due >= 0 {
		t.Errorf("%s was told %d times", fresh[1+due], followUpsTold(t, s, fresh[1+due]))
	}
}

// endedOne drops a deal.
func endedOne(t *testing.T, s *Store, tx deal.TxID) deal.TxID {
	t.Helper()
	sl := load(t, s, tx)
	sl.Condition, sl.Reason = deal.Held, "a question"
	advance(t, s, sl, "held")
	if err := s.Drop(t.Context(), tx, "ann", "not wanted"); err != nil {
		t.Fatal(err)
	}
	return tx
}
