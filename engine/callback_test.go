package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// completer is a CRM's end of workflows that wait, which answers as it is told to.
type completer struct {
	answers []error
	told    []string
}

func (c *completer) Complete(_ context.Context, callback string, outcome deal.CallbackOutcome, _ deal.TxID) error {
	c.told = append(c.told, callback+" "+string(outcome))
	if len(c.answers) == 0 {
		return nil
	}
	err := c.answers[0]
	c.answers = c.answers[1:]
	return err
}

// waiting is a daemon one of whose workflows waits for a deal.
type waiting struct {
	*daemon
	t  *testing.T
	c  *completer
	a  *answerer
	tx deal.TxID
}

func newWaiting(t *testing.T, answers ...error) *waiting {
	t.Helper()
	w := newWorld(t)
	record := w.won()
	w.quote(record, 1)
	d := w.daemon()
	d.Callbacks = d.store
	x := &waiting{daemon: d, t: t, c: &completer{answers: answers}, tx: d.notice()}
	ref := d.load(x.tx).Change.Ref
	_, _, err := d.store.Receive(t.Context(), deal.Arrival{Tenant: acme, Source: "hubspot-action", Block: 20 * time.Hour, Callbacks: []deal.Callback{{ID: "w", Ref: ref}}})
	must(t, err)
	p := d.pollers[0]
	x.a = &answerer{Engine: d.Engine, tenant: &d.Tenants[0], completer: x.c, bell: p.bell, looked: map[string]time.Time{}}
	x.once(1)
	if refs, _ := p.bell.take(); !slices.Contains(refs, ref) {
		t.Errorf("a record that nobody has looked at since the start is not asked for: %v", refs)
	}
	p.asked = w.now()
	for why, page := range map[string]deal.Page{"be understood": {Quarantined: []deal.Quarantine{{Ref: ref}}}, "be seen": {Refused: []deal.RefusedObject{{Object: ref.Object}}}} {
		if must(t, p.lookedAt(t.Context(), []deal.Ref{ref}, page)); x.story().ID != "" {
			t.Errorf("a record that could not %s counts as looked at", why)
		}
	}
	must(t, p.lookedAt(t.Context(), []deal.Ref{ref}, deal.Page{}))
	x.once(1)
	if len(x.c.told) > 0 {
		t.Fatalf("it was told %q before its deal has come to an end", x.c.told)
	}
	return x
}

func (x *waiting) once(open int64) {
	x.t.Helper()
	if got, err := x.a.once(x.t.Context()); err != nil || got != open {
		x.t.Fatalf("%d workflows wait (%v), want %d", got, err, open)
	}
}

func (x *waiting) story() *deal.Callback {
	x.t.Helper()
	s := x.daemon.story(x.tx)
	if len(s.Callbacks) == 0 {
		return &deal.Callback{}
	}
	return &s.Callbacks[0]
}

func (x *waiting) figures() store.CallbackFigures {
	x.t.Helper()
	all, err := x.store.CallbackFigures(x.t.Context())
	must(x.t, err)
	return all[acme]
}

func (x *waiting) want(fate deal.CallbackFate, told ...string) {
	x.t.Helper()
	if got := x.story().Fate; got != fate || !slices.Equal(x.c.told, told) {
		x.t.Errorf("it has ended as %q and was told %q; want %q, %q", got, x.c.told, fate, told)
	}
}

var (
	noCallback = connectors.NoCallback(errors.New("HTTP 404"))
	noAnswer   = connectors.Late(errors.New("no answer"), time.Second)
)

func TestAWorkflowIsToldOnceWhateverBecomesOfTheAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		answers []error
		fate    deal.CallbackFate
		tries   int
	}{
		"at once":                                      {nil, deal.CallbackTold, 1},
		"the answer is lost, and it has gone on":       {[]error{noAnswer, noCallback}, deal.CallbackTold, 2},
		"the answer is lost, and then it is refused":   {[]error{noAnswer, &permanentError{errors.New("HTTP 403")}, noCallback}, deal.CallbackTold, 3},
		"refused for a while":                          {[]error{errors.New("HTTP 429"), &permanentError{errors.New("HTTP 403")}}, deal.CallbackTold, 3},
		"not known to wait yet":                        {[]error{noCallback}, deal.CallbackTold, 2},
		"refused without an answer lost, then unknown": {append([]error{errors.New("HTTP 429")}, slices.Repeat([]error{noCallback}, unknownAfter)...), deal.CallbackUnknown, unknownAfter + 1},
	} {
		t.Run(name, func(t *testing.T) {
			x := newWaiting(t, c.answers...)
			x.finish()
			told := []string{}
			for range c.tries {
				x.want("", told...)
				x.once(1)
				told = append(told, "w signed")
				x.w.clock.advance(time.Hour / 2)
			}
			x.want(c.fate, told...)
			x.once(0)
		})
	}
}

func TestAWorkflowOfAHeldDealIsToldInTimeAndNothingElseAfterwards(t *testing.T) {
	x := newWaiting(t, noAnswer)
	s := x.load(x.tx)
	s.Condition, s.Reason = deal.Held, "because"
	must(t, x.store.Advance(t.Context(), s, deal.Entry{Who: "daemon", What: "held"}))
	x.w.clock.advance(18*time.Hour + 59*time.Minute)
	x.once(1)
	x.want("")
	x.w.clock.advance(time.Minute)
	x.once(1)
	x.want("", "w held")
	x.release(x.tx)
	x.finish()
	x.w.clock.advance(2 * time.Minute)
	x.once(1)
	x.want(deal.CallbackTold, "w held", "w held")
}

func TestAWorkflowThatHasGoneOnByItselfIsShownAndNotTold(t *testing.T) {
	x := newWaiting(t)
	x.finish()
	x.w.clock.advance(20 * time.Hour)
	x.once(1)
	x.want(deal.CallbackExpired)
	if f := x.figures(); f.Lost != 1 || f.Waiting != 0 {
		t.Errorf("figures %+v", f)
	}
}

func TestAWorkflowOfAPausedTenantIsToldOnceItGoesOn(t *testing.T) {
	x := newWaiting(t)
	x.finish()
	must(t, x.store.Pause(t.Context(), acme, "alice", "its CRM is moved"))
	x.once(1)
	x.want("")
	must(t, x.store.Resume(t.Context(), acme, "alice", "it is moved"))
	x.once(1)
	x.want(deal.CallbackTold, "w signed")
}

func TestAWorkflowOfAPausedTenantThatHasGoneOnByItselfIsShown(t *testing.T) {
	x := newWaiting(t)
	x.finish()
	must(t, x.store.Pause(t.Context(), acme, "alice", "its CRM is moved"))
	x.w.clock.advance(20 * time.Hour)
	x.once(1)
	x.want(deal.CallbackExpired)
}
