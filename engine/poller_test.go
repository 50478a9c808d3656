package engine

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

// try polls once and takes the outcome down, as the poller does between two waits.
func (p *poller) try(ctx context.Context) error {
	_, err := p.once(ctx)
	p.note(ctx, err)
	return err
}

func TestATenantOfTheOtherEnvironmentIsNeverPolled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.Tenants[0].Production = true // the org is a sandbox
	w.won()
	for range 3 {
		err := d.pollers[0].try(t.Context())
		if !deal.IsPermanent(err) || !strings.Contains(err.Error(), "correct tenant.environment") {
			t.Fatalf("the error is %v, want a permanent one with its cure", err)
		}
	}
	if n := len(d.all()); n > 0 {
		t.Errorf("%d entries were noticed", n)
	}
	for _, r := range w.org.Requests() {
		if strings.Contains(r.Query, "SystemModstamp") {
			t.Errorf("the history was read: %s", r.Query)
		}
	}
	polls, err := d.store.Polls(t.Context())
	must(t, err)
	if len(polls) != 1 || polls[0].Err == "" {
		t.Errorf("the page is shown %+v", polls)
	}
}

func TestAStageThatIsNamedByItsLabelIsWatchedByItsID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	rule := &d.Tenants[0].Rules[0]
	rule.Watch.Stage, rule.Plan.Stage = "closed won", "closed won"
	w.won()
	s := d.load(d.notice())
	if s.Plan.Stage != stageWon {
		t.Errorf("the deal's plan names the stage %q, want its ID", s.Plan.Stage)
	}
	d.finish()
	d.wantDone(d.load(s.Tx))

	// With the ID in the configuration the rule is the same, and nothing is noticed twice.
	d.Tenants[0].Rules[0].Watch.Stage, d.Tenants[0].Rules[0].Plan.Stage = stageWon, stageWon
	t0 := d.Tenants[0]
	d.Tenants = nil
	d.addTenant(t0)
	if fresh := d.poll(); len(fresh) > 0 {
		t.Errorf("%d entries are noticed once more", len(fresh))
	}
}

func TestAConfigurationThatDoesNotFitTheAccountIsRefusedBeforeTheFirstPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.Tenants[0].Rules[0].Watch.Stage = "Closed Wonn"
	d.Tenants[0].Rules[0].Plan.Stage = "Closed Wonn"
	w.won()
	err := d.pollers[0].try(t.Context())
	if !deal.IsPermanent(err) || !strings.Contains(err.Error(), "Closed Won") || !strings.Contains(err.Error(), d.Tenants[0].Rules[0].Watch.Rule) {
		t.Fatalf("the error is %v, want a permanent one that names the rule and the right stage", err)
	}
	if n := len(d.all()); n > 0 {
		t.Errorf("%d entries were noticed", n)
	}
}

func TestARuleThatIsAddedLaterStartsWhereItSays(t *testing.T) {
	for name, c := range map[string]struct {
		start func(w *world) time.Time
		old   bool // whether the entry from before the rule is taken in
	}{
		"now":           {func(*world) time.Time { return time.Time{} }, false},
		"a past moment": {func(w *world) time.Time { return w.now().Add(-2 * time.Hour) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon()
			before := w.deal()
			w.move(before, stageLost)
			w.clock.advance(time.Hour)
			d.poll()
			w.won()
			d.notice()

			later := w.rule(func(p *deal.Plan) { p.Rule, p.Stage = "later", stageLost })
			later.StartFrom = c.start(w)
			t0 := d.Tenants[0]
			t0.Rules = append(t0.Rules, later)
			d.Tenants = nil
			d.addTenant(t0)
			if fresh := d.poll(); (len(fresh) == 1) != c.old || len(fresh) > 1 {
				t.Fatalf("%d entries from before the rule are taken in", len(fresh))
			}
			after := w.deal()
			w.clock.advance(time.Second)
			w.move(after, stageLost)
			if s := d.load(d.notice()); s.Change.Ref.ID != after || s.Change.Rule != "later" {
				t.Errorf("rule %s took in %s, want %s", s.Change.Rule, s.Change.Ref, after)
			}
		})
	}
}

func TestTheAllowanceSlowsPollingAndThenStopsNewWorkOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	p := d.pollers[0]
	w.won()
	running := d.notice()
	if wait := p.wait(nil); wait > 2*time.Minute {
		t.Errorf("with a low use the next poll is in %s, want the interval", wait)
	}

	w.org.SetUsage(8_100)
	must(t, p.try(t.Context()))
	if wait := p.wait(nil); wait < 5*time.Minute {
		t.Errorf("at 81 %% the next poll is in %s, want at least 5 minutes", wait)
	}

	w.org.SetUsage(9_600)
	must(t, p.try(t.Context())) // learns of it
	waiting := w.won()
	err := p.try(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no new deals until it recovers") {
		t.Fatalf("at 96 %% the poll said %v", err)
	}
	if wait := p.wait(err); wait < 15*time.Minute {
		t.Errorf("at 96 %% the next poll is in %s, want at least 15 minutes", wait)
	}
	d.finish()
	d.wantDone(d.load(running))
	if n := len(d.all()); n != 1 {
		t.Errorf("%d deals are known, want the running one only", n)
	}

	w.org.SetUsage(100)
	_ = p.try(t.Context()) // the allowance is asked for, and has recovered
	if s := d.load(d.notice()); s.Change.Ref.ID != waiting {
		t.Errorf("after the recovery %s was noticed, want %s", s.Change.Ref, waiting)
	}
}

func TestWithoutRoomNothingIsNoticedRunningDealsFinishAndItGoesOnByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	p := d.pollers[0]
	w.won()
	running := d.notice()
	full := errors.New("the disk is full")
	d.MayNotice = func() error { return full }
	waiting := w.won()
	for range 5 {
		if err := p.try(t.Context()); err == nil || !strings.Contains(err.Error(), full.Error()) {
			t.Fatalf("the poll said %v", err)
		}
	}
	if wait := p.wait(p.try(t.Context())); wait > 2*time.Minute {
		t.Errorf("the next look is in %s: the CRM is well, and the interval is a minute", wait)
	}
	if n := len(d.all()); n != 1 {
		t.Errorf("%d deals are known, want the running one only", n)
	}
	looked, stopped := make(chan struct{}), make(chan struct{})
	d.MayWork = sync.OnceValue(func() error { close(looked); return full })
	ended := make(chan deal.Outcome, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(stopped)
		ended <- d.Handle(ctx, deal.Job{Kind: deal.JobSeal, Tx: running})
	}()
	within(t, "the running deal looks for room", looked)
	cancel()
	within(t, "the job ends with the daemon", stopped)
	// For a job that ends because there is no room the queue would have to write down, at each look, when the next is.
	if out := <-ended; out.Again != time.Second || d.load(running).Step != deal.Noticed {
		t.Errorf("the running deal came to %s and is looked at again in %s, want a job that ends with the daemon", d.load(running).Step, out.Again)
	}
	d.MayWork = nil
	d.finish()
	d.wantDone(d.load(running))

	d.MayNotice = nil
	if s := d.load(d.notice()); s.Change.Ref.ID != waiting {
		t.Errorf("with room again %s was noticed, want %s", s.Change.Ref, waiting)
	}
}

func TestTheSameTroubleIsLoggedOnceAndPollingSlowsUntilItWorksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	p := d.pollers[0]
	must(t, p.try(t.Context()))
	w.fault(mock.Fault{Kind: mock.KindQuery, Effect: mock.APIError, Status: http.StatusForbidden, Code: "INSUFFICIENT_ACCESS"})
	for range 4 {
		if p.try(t.Context()) == nil {
			t.Fatal("the poll did not fail")
		}
	}
	if n := strings.Count(d.log.String(), "polling fails"); n != 1 {
		t.Errorf("the trouble was logged %d times, want once", n)
	}
	w.org.ClearFaults()
	must(t, p.try(t.Context()))
	if !strings.Contains(d.log.String(), "polling works again") || p.fails != 0 || p.state.Err != "" {
		t.Errorf("after the recovery: %d failures, %q", p.fails, p.state.Err)
	}
}

func TestWaitsBetweenFailingPollsDoubleUpToTenMinutes(t *testing.T) {
	t.Parallel()
	failure := errors.New("no answer")
	for _, c := range []struct {
		poll  time.Duration
		fails int
		err   error
		want  time.Duration // to be exceeded by a tenth at most
	}{
		{time.Minute, 0, nil, time.Minute},
		{time.Minute, 1, failure, time.Minute},
		{time.Minute, 2, failure, 2 * time.Minute},
		{time.Minute, 3, failure, 4 * time.Minute},
		{time.Minute, 4, failure, 8 * time.Minute},
		{time.Minute, 5, failure, 10 * time.Minute},
		{time.Minute, 500, failure, 10 * time.Minute},
		{time.Hour, 9, failure, time.Hour},
		{200 * time.Millisecond, 1, failure, time.Second},
		{time.Minute, 1, &downError{30 * time.Minute}, 30 * time.Minute},
	} {
		p := &poller{Engine: &Engine{}, tenant: &Tenant{Poll: c.poll}, fails: c.fails}
		for range 50 {
			if wait := p.wait(c.err); wait < c.want || wait > c.want+c.want/10 {
				t.Errorf("polled every %s, after %d failures, the last of them %v: the next poll is in %s, want %s", c.poll, c.fails, c.err, wait, c.want)
				break
			}
		}
	}
}

func TestAPageThatWasReadBehindAMovedCursorIsReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	w.won()
	later := w.rule(func(p *deal.Plan) { p.Rule, p.Stage = "later", stageLost })
	later.StartFrom = w.now().Add(-2 * time.Hour) // which moves the cursor back
	other := d.newPoller(&Tenant{ID: acme, CRM: w.connector(), Rules: []Rule{later}})
	moved := false
	w.at(func(r *http.Request) bool { return strings.Contains(r.URL.Query().Get("q"), "FROM OpportunityHistory") }, func() {
		moved = true
		if err := other.connect(t.Context()); err != nil {
			t.Error(err)
		}
	})
	d.notice()
	if !moved {
		t.Error("the cursor was not moved while the page was read")
	}
}

func TestARowThatCannotBeUnderstoodIsLoggedOnceAndStopsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	w.won()
	rows := w.org.Records("OpportunityHistory")
	must(t, w.org.SetRaw(rows[len(rows)-1], "CreatedDate", "yesterday"))
	good := w.won()
	for range 3 {
		d.poll()
	}
	list := d.all()
	if n := strings.Count(d.log.String(), "could not be understood"); n != 1 || len(list) != 1 {
		t.Fatalf("the row was logged %d times, and %d deals were noticed; want one of each", n, len(list))
	}
	for tx := range list {
		if ref := d.load(tx).Change.Ref; ref.ID != good {
			t.Errorf("%s was noticed, want %s", ref, good)
		}
	}
}

func TestThePollTakesDownHowManyCallsTheCRMWasAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	today := func() deal.Day {
		f, err := d.store.Figures(t.Context(), w.now().AddDate(0, 0, -1))
		must(t, err)
		if len(f.Days) != 1 {
			t.Fatalf("%d days, want 1", len(f.Days))
		}
		return f.Days[0]
	}
	first := today()
	if first.Calls == 0 || first.FailedCalls != 0 {
		t.Fatalf("%d calls, %d failed", first.Calls, first.FailedCalls)
	}
	w.fault(mock.Fault{Kind: mock.KindQuery, Effect: mock.HTMLUnavailable, Times: 1})
	for _, p := range d.pollers {
		_, err := p.once(t.Context())
		if err == nil {
			t.Error("the poll succeeds")
		}
		p.note(t.Context(), err)
	}
	if next := today(); next.Calls <= first.Calls || next.FailedCalls != 1 {
		t.Errorf("%d calls after %d, %d failed, want 1", next.Calls, first.Calls, next.FailedCalls)
	}
}

// An object that the CRM refuses is told of as a right that was taken away, while the others are polled as often as ever.
func TestAnObjectThatIsRefusedIsToldOfWhileOthersArePolled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.org.Track("Order.Status", true)
	d := w.daemon(withTemplate(t))
	order := d.Tenants[0].Rules[0]
	order.Watch = deal.Watch{Rule: "order", Object: "Order", Stage: "Activated"}
	order.Plan.Rule, order.Plan.Stage, order.Plan.Fields = "order", "Activated", []string{"TotalAmount"}
	d.Tenants[0].Rules = append(d.Tenants[0].Rules, order)
	d.poll()
	shown := func() deal.PollState {
		t.Helper()
		all, err := d.store.Polls(t.Context())
		must(t, err)
		return all[0]
	}
	p := d.pollers[0]
	w.org.Hide("OrderHistory")
	for range 3 {
		w.tick()
		w.won()
		more, err := p.once(t.Context())
		for ; more && err == nil; more, err = p.once(t.Context()) {
			p.note(t.Context(), err)
		}
		p.note(t.Context(), err)
		if !deal.IsPermanent(err) || !strings.Contains(err.Error(), "OrderHistory") {
			t.Fatalf("the error is %v, want one that names the history and its cure", err)
		}
		if s := shown(); !s.Refused || s.Trouble != "no permission" || w.now().Sub(s.At) > time.Second {
			t.Errorf("the page is shown %+v, want a refusal, and a poll that went well", s)
		}
		if wait := p.wait(errors.New("any")); p.fails != 0 || wait > 2*d.Tenants[0].Poll {
			t.Errorf("the others wait for %s", wait)
		}
	}
	if n := strings.Count(d.log.String(), "OrderHistory"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
	w.org.Show("OrderHistory")
	d.poll()
	if s := shown(); s.Err != "" || s.Refused {
		t.Errorf("the page still shows %+v", s)
	}
	if len(d.all()) != 3 {
		t.Errorf("%d deals were noticed, want 3", len(d.all()))
	}
}
