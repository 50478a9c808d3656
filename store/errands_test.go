package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

func moving() deal.Plan {
	p := plan()
	p.Moves = map[deal.Status]string{deal.StatusSigned: "Signed", deal.StatusHeld: "Parked"}
	return p
}

// oneMoving is a new sealing whose plan moves its record.
func oneMoving(t *testing.T, s *Store, record string) *deal.Sealing {
	t.Helper()
	n := page(t, s, change(record, "h1"))
	n.Plans = map[string]deal.Plan{ruleA: moving()}
	fresh, err := s.Notice(t.Context(), n)
	if err != nil || len(fresh) != 1 {
		t.Fatalf("%v, %v", fresh, err)
	}
	return load(t, s, fresh[0])
}

func errandsOf(t *testing.T, s *Store, tx deal.TxID) []deal.Errand {
	t.Helper()
	all, err := s.Errands(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAnErrandIsMadeWhenADealComesToAStatus(t *testing.T) {
	s, c := newStore(t)
	sl := oneMoving(t, s, "006A")
	for _, x := range []struct {
		step      deal.Step
		condition deal.Condition
		made      int
		status    deal.Status // of the newest
	}{
		{deal.Noticed, deal.Running, 0, ""},
		{deal.Noticed, deal.Held, 1, deal.StatusHeld},
		{deal.Noticed, deal.Dead, 1, deal.StatusHeld}, // the plan says nothing of that
		{deal.Noticed, deal.Held, 2, deal.StatusHeld},
		{deal.Gathered, deal.Running, 2, deal.StatusHeld},
		{deal.Attached, deal.Running, 2, deal.StatusHeld}, // shown as signed, and not done
		{deal.Done, deal.Running, 3, deal.StatusSigned},
	} {
		c.advance(time.Second)
		sl.Step, sl.Condition = x.step, x.condition
		advance(t, s, sl, "so")
		all := errandsOf(t, s, sl.Tx)
		if len(all) != x.made || x.made > 0 && all[x.made-1].Status != x.status {
			t.Fatalf("%s, %s: the errands are %+v", x.step, x.condition, all)
		}
		for _, e := range all[:max(x.made-1, 0)] {
			if e.Fate != deal.ErrandOvertaken {
				t.Errorf("an older errand is %+v", e)
			}
		}
	}
	newest := errandsOf(t, s, sl.Tx)[2]
	if newest.Stage != "Signed" || newest.Fate != "" || !newest.Made.Equal(c.now) {
		t.Errorf("the newest is %+v", newest)
	}
	if n := query[int](t, s, `SELECT count(*) FROM jobs WHERE kind = 'errand' AND key = $1`, sl.Tx); n != 1 {
		t.Errorf("%d jobs are queued", n)
	}
	// A change of a deal that is done makes no second one.
	sl.Condition = deal.Running
	advance(t, s, sl, "again")
	if n := len(errandsOf(t, s, sl.Tx)); n != 3 {
		t.Errorf("there are %d errands", n)
	}
}

func TestWhatAPlanSaysNothingOfMakesNoErrand(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	if all := errandsOf(t, s, sl.Tx); len(all) != 0 {
		t.Errorf("the errands are %+v", all)
	}
}

func TestAnErrandThatHasEndedIsNotBegunAndDoesNotEndAgain(t *testing.T) {
	s, _ := newStore(t)
	sl := oneMoving(t, s, "006A")
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	e := errandsOf(t, s, sl.Tx)[0]
	if err := s.BeginErrand(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	e.Problem = "busy"
	if err := s.EndErrand(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if e = errandsOf(t, s, sl.Tx)[0]; e.Tries != 1 || e.Problem != "busy" || e.Fate != "" {
		t.Fatalf("after a try it is %+v", e)
	}
	for _, fate := range []deal.ErrandFate{deal.ErrandDone, deal.ErrandRefused} {
		e.Fate, e.Outcome = fate, "so"
		if err := s.EndErrand(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if e = errandsOf(t, s, sl.Tx)[0]; e.Fate != deal.ErrandDone || e.Problem != "" {
		t.Errorf("it is %+v", e)
	}
	if err := s.BeginErrand(t.Context(), e); !errors.Is(err, deal.ErrStale) {
		t.Errorf("it was begun again: %v", err)
	}
}

func TestAnErrandIsForgottenByNoRestartAndEndsWithTheErasedDeal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir, nil))
	activate(t, s, acme, ruleA)
	sl := oneMoving(t, s, "006A")
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	told(t, s, sl.Tx)
	tamper(t, s, `DELETE FROM jobs`) // as if the queue had lost it
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(dir, nil))
	ran := make(chan deal.Job, 1)
	stop := work(t, s, Workers{}, func(_ context.Context, j deal.Job) deal.Outcome { // the tenant is not configured any more
		if j.Kind == deal.JobErrand {
			select {
			case ran <- j:
			default:
			}
		}
		return deal.Outcome{Again: time.Hour}
	})
	if got := receive(t, ran, "the errand"); got.Tx != sl.Tx {
		t.Errorf("it ran for %s", got.Tx)
	}
	stop()
	if err := s.Erase(t.Context(), sl.Tx, "anna", "asked to"); err != nil {
		t.Fatal(err)
	}
	if e := errandsOf(t, s, sl.Tx)[0]; e.Fate != deal.ErrandOvertaken {
		t.Errorf("of an erased deal it is %+v", e)
	}
}

// TestWhatIsNotedIsNotOvertaken: a deal has been held even if it goes on before that is noted. What was asked for is known until it
// ends.
func TestWhatIsNotedIsNotOvertaken(t *testing.T) {
	s, c := newStore(t)
	n := page(t, s, change("006A", "h1"))
	p := moving()
	p.Timeline = []deal.Status{deal.StatusFailed, deal.StatusHeld}
	n.Plans = map[string]deal.Plan{ruleA: p}
	fresh, err := s.Notice(t.Context(), n)
	if err != nil || len(fresh) != 1 {
		t.Fatalf("%v, %v", fresh, err)
	}
	sl := load(t, s, fresh[0])
	for _, condition := range []deal.Condition{deal.Held, deal.Running, deal.Held, deal.Dead} {
		sl.Condition = condition
		advance(t, s, sl, "so")
	}
	var got []string
	for _, e := range errandsOf(t, s, sl.Tx) {
		got = append(got, strings.TrimSpace(fmt.Sprint(e.Kind, e.Status, " ", e.Fate)))
	}
	if diff := cmp.Diff([]string{"moveheld overtaken", "noteheld", "moveheld", "noteheld", "notefailed"}, got); diff != "" {
		t.Fatalf("want (-), got (+):\n%s", diff)
	}
	e := errandsOf(t, s, sl.Tx)[1]
	for _, asked := range []time.Time{c.now, {}, c.now} {
		e.Asked = asked
		if err := errors.Join(s.BeginErrand(t.Context(), e), s.EndErrand(t.Context(), e)); err != nil || !errandsOf(t, s, sl.Tx)[1].Asked.Equal(asked) {
			t.Errorf("it is %+v, want one asked for at %s: %v", errandsOf(t, s, sl.Tx)[1], asked, err)
		}
	}
	e.Fate = deal.ErrandDone
	if err := s.EndErrand(t.Context(), e); err != nil || !errandsOf(t, s, sl.Tx)[1].Asked.IsZero() {
		t.Errorf("once it is done it is %+v: %v", errandsOf(t, s, sl.Tx)[1], err)
	}
}

func TestAfterARestoreAnErrandMayHaveBeenDone(t *testing.T) {
	s, _ := newStore(t)
	sl := oneMoving(t, s, "006A")
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	if err := s.update(t.Context(), "commit/open", func(tx *txn) error { return tx.beginEpoch("restored") }); err != nil {
		t.Fatal(err)
	}
	if e := errandsOf(t, s, sl.Tx)[0]; e.Tries != 1 {
		t.Errorf("it is %+v: nobody would look whether it was done", e)
	}
}

func TestErrandsThatAreNotDoneAreCounted(t *testing.T) {
	s, c := newStore(t)
	waits, refused := oneMoving(t, s, "006A"), oneMoving(t, s, "006B")
	for _, sl := range []*deal.Sealing{waits, refused} {
		sl.Condition = deal.Held
		advance(t, s, sl, "held")
	}
	want := func(when string, f ErrandFigures) {
		t.Helper()
		all, err := s.ErrandFigures(t.Context())
		if diff := cmp.Diff(f, all[acme]); err != nil || diff != "" {
			t.Errorf("%s: %v, want (-), got (+):\n%s", when, err, diff)
		}
	}
	made := c.now
	want("both are to be done", ErrandFigures{Open: 2, Oldest: made})
	for range 3 {
		e := errandsOf(t, s, waits.Tx)[0]
		begun := s.BeginErrand(t.Context(), e)
		e.Problem = "busy"
		if err := errors.Join(begun, s.EndErrand(t.Context(), e)); err != nil {
			t.Fatal(err)
		}
	}
	e := errandsOf(t, s, refused.Tx)[0]
	e.Fate, e.Outcome = deal.ErrandRefused, "a validation rule"
	if err := s.EndErrand(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	want("one was tried three times, the other is refused", ErrandFigures{Open: 1, Failing: 1, Problem: "busy", Oldest: made, Refused: 1})
	c.advance(25 * time.Hour)
	want("a day later", ErrandFigures{Open: 1, Failing: 1, Problem: "busy", Oldest: made})
}
