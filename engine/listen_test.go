package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// teller is a CRM that tells of changes as its script says, one connection after the other; it has nothing else.
type teller struct {
	connectors.CRM
	script []func(ctx context.Context, to connectors.Listener) error
	asked  []time.Time
}

func (c *teller) Identity(context.Context) (deal.Account, error) {
	return deal.Account{Kind: deal.Salesforce, ID: "00D000000000001AAA", Sandbox: true, Clock: time.Now()}, nil
}
func (c *teller) Wakes() bool                               { return true }
func (c *teller) Reach(context.Context, deal.Account) error { return nil }
func (c *teller) Wake(ctx context.Context, _ deal.Account, to connectors.Listener) error {
	c.asked = append(c.asked, time.Now())
	if n := len(c.asked); n <= len(c.script) {
		return c.script[n-1](ctx, to)
	}
	<-ctx.Done()
	return ctx.Err()
}

// onceOnly keeps each event once.
type onceOnly struct {
	seen map[string]bool
	err  error
}

func (o *onceOnly) Receive(_ context.Context, a deal.Arrival) (wake []deal.Ref, _ bool, err error) {
	for _, e := range a.Events {
		if !o.seen[e.Key] && o.err == nil {
			o.seen[e.Key] = true
			wake = append(wake, e.Ref)
		}
	}
	return wake, false, o.err
}

func TestAListenerWakesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passing, fatal := errors.New("the connection broke off"), &permanentError{errors.New("no such channel")}
		failing := func(err error) func(context.Context, connectors.Listener) error {
			return func(context.Context, connectors.Listener) error { return err }
		}
		told := deal.Heard{N: 2, At: time.Now().Add(10 * time.Minute), Events: []deal.PushedEvent{{Key: "1", Ref: deal.Ref{Object: "Opportunity", ID: "a"}, Wakes: true}}}
		c := &teller{script: []func(context.Context, connectors.Listener) error{
			failing(passing), failing(passing), failing(fatal),
			func(ctx context.Context, to connectors.Listener) error { // it lasts
				to.Connected()
				time.Sleep(time.Minute)
				for range 2 {
					if err := to.Heard(ctx, told); err != nil {
						return err
					}
				}
				time.Sleep(time.Hour)
				return to.Heard(ctx, deal.Heard{})
			},
			func(_ context.Context, to connectors.Listener) error { to.Lost(); return passing },
			func(ctx context.Context, to connectors.Listener) error {
				return to.Heard(ctx, deal.Heard{N: 1, All: true})
			},
		}}
		var lost []deal.TenantID
		e := &Engine{Log: slog.New(slog.DiscardHandler), Tenants: []Tenant{{ID: "acme", CRM: c}}, Inbox: &onceOnly{seen: map[string]bool{}},
			Random: func(int64) int64 { return 0 }, Lost: func(id deal.TenantID) { lost = append(lost, id) }}
		e.init()
		tenant, _ := e.tenants.get("acme")
		bell := e.tenants.bell(tenant)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		began := time.Now()
		go func() { defer close(ended); e.listenTo(ctx, tenant) }()
		state := func() deal.Listening {
			t.Helper()
			synctest.Wait()
			s, ok := e.Listening("acme")
			if !ok {
				t.Fatal("nobody listens")
			}
			return s
		}

		if s := state(); s.Connected || s.Err != passing.Error() || !s.Since.Equal(began) {
			t.Errorf("after a failure: %+v", s)
		}
		time.Sleep(3 * time.Second)
		if s := state(); s.Connected || s.Err != fatal.Error() || !s.Since.Equal(began) {
			t.Errorf("after three failures: %+v", s)
		}
		time.Sleep(mostListenPause)
		if s := state(); !s.Connected || s.Err != "" || s.N != 0 {
			t.Errorf("connected: %+v", s)
		}
		time.Sleep(time.Minute)
		if s := state(); s.N != 4 || s.Lag != time.Minute+3*time.Second || !s.Event.Equal(time.Now()) {
			t.Errorf("told: %+v", s)
		}
		if refs, all := bell.take(); !slices.Equal(refs, []deal.Ref{{Object: "Opportunity", ID: "a"}}) || all {
			t.Errorf("it wakes for %v, everything %v", refs, all)
		}
		time.Sleep(time.Hour)
		if s := state(); s.Connected || s.Event.Equal(s.At) || !s.Since.Equal(time.Now()) {
			t.Errorf("ended: %+v", s)
		}
		time.Sleep(time.Second) // what has lasted is tried again at once
		state()
		if _, all := bell.take(); !all || !slices.Equal(lost, []deal.TenantID{"acme"}) {
			t.Errorf("after a loss everything is looked at: %v; told %v", all, lost)
		}
		time.Sleep(2 * time.Second)
		state()
		if _, all := bell.take(); !all {
			t.Error("an overflow looks at nothing")
		}
		stop()
		<-ended
		if _, ok := e.Listening("acme"); ok {
			t.Error("it is still listened to")
		}
		want := []time.Duration{0, time.Second, 3 * time.Second, 3*time.Second + mostListenPause, 64*time.Second + mostListenPause + time.Hour, 66*time.Second + mostListenPause + time.Hour}
		for i, at := range c.asked[:min(len(want), len(c.asked))] {
			if at.Sub(began) != want[i] {
				t.Errorf("connection %d after %s, want %s", i, at.Sub(began), want[i])
			}
		}
	})
}

// What cannot be kept wakes nobody, and the CRM is asked to tell it again.
func TestAListenerTakesNothingThatIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("the disk is full")
		var got error
		c := &teller{script: []func(context.Context, connectors.Listener) error{func(ctx context.Context, to connectors.Listener) error {
			got = to.Heard(ctx, deal.Heard{N: 1, Events: []deal.PushedEvent{{Key: "1", Wakes: true}}})
			return got
		}}}
		e := &Engine{Log: slog.New(slog.DiscardHandler), Tenants: []Tenant{{ID: "acme", CRM: c}}, Inbox: &onceOnly{err: full}}
		e.init()
		tenant, _ := e.tenants.get("acme")
		ctx, stop := context.WithCancel(t.Context())
		go e.listenTo(ctx, tenant)
		synctest.Wait()
		if refs, all := e.tenants.bell(tenant).take(); !errors.Is(got, full) || len(refs) > 0 || all {
			t.Errorf("it says %v, and wakes for %v", got, refs)
		}
		stop()
		synctest.Wait()
	})
}
