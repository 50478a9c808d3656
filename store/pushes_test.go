package store

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

func TestAPushIsTakenOnceAndItsEventsOnce(t *testing.T) {
	s, clock := newStore(t)
	a, b := deal.Ref{Object: "deals", ID: "1"}, deal.Ref{Object: "deals", ID: "2"}
	arrival := func(tenant deal.TenantID, nonce string, events ...deal.PushedEvent) deal.Arrival {
		return deal.Arrival{Tenant: tenant, Source: "hubspot", Nonce: []byte(nonce), Until: clock.now.Add(time.Minute), Events: events}
	}
	first := []deal.PushedEvent{{Key: "x", Ref: a, Wakes: true}, {Ref: b}, {Key: "y", Ref: b, Wakes: true}}
	for _, step := range []struct {
		what     string
		arrival  deal.Arrival
		wake     []deal.Ref
		replayed bool
	}{
		{"the first time", arrival(acme, "n1", first...), []deal.Ref{a, b}, false},
		{"the very same", arrival(acme, "n1", first...), nil, true},
		{"signed anew", arrival(acme, "n2", first...), nil, false},
		{"one event more", arrival(acme, "n3", append(first, deal.PushedEvent{Key: "z", Ref: a, Wakes: true})...), []deal.Ref{a}, false},
		{"another tenant's", arrival("contoso", "n1", first...), []deal.Ref{a, b}, false},
		{"events without names", arrival(acme, "n4", deal.PushedEvent{Ref: a, Wakes: true}), []deal.Ref{a}, false},
		{"unsigned", arrival(acme, "", deal.PushedEvent{Key: "x", Ref: a, Wakes: true}), nil, false},
	} {
		wake, replayed, err := s.Receive(t.Context(), step.arrival)
		if err != nil || replayed != step.replayed || !cmp.Equal(wake, step.wake) {
			t.Errorf("%s: looks at %v, replayed %t, %v; want %v, %t", step.what, wake, replayed, err, step.wake, step.replayed)
		}
	}
	rows, err := s.Pushes(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	at := clock.now
	want := []deal.Push{
		{At: at, Tenant: acme, Source: "hubspot", Verdict: deal.PushRepeated, Ref: a, N: 1},
		{At: at, Tenant: acme, Source: "hubspot", Verdict: deal.PushTaken, Ref: a, N: 1},
		{At: at, Tenant: "contoso", Source: "hubspot", Verdict: deal.PushTaken, Ref: b, N: 1},
		{At: at, Tenant: "contoso", Source: "hubspot", Verdict: deal.PushIgnored, Ref: b, N: 1},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}

func TestWhatCannotComeAgainIsForgottenAndTheRestIsNot(t *testing.T) {
	s, clock := newStore(t)
	receive := func(nonce string) (replayed bool) {
		t.Helper()
		_, replayed, err := s.Receive(t.Context(), deal.Arrival{Tenant: acme, Source: "hubspot", Nonce: []byte(nonce), Until: clock.now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return replayed
	}
	receive("old")
	clock.advance(40 * time.Minute)
	receive("young")
	clock.advance(30 * time.Minute)
	if n, err := s.ForgetPushes(t.Context()); err != nil || n != 1 {
		t.Fatalf("%d rows went (%v), want the one nonce", n, err)
	}
	if receive("old") || !receive("young") {
		t.Error("the wrong nonce was forgotten")
	}
	clock.advance(keepPushes + time.Minute)
	if err := s.LogPushes(t.Context(), []deal.Push{{Source: "hubspot", Verdict: deal.PushRefused, N: 3}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ForgetPushes(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Pushes(t.Context(), 10)
	if err != nil || len(rows) != 1 || rows[0].N != 3 {
		t.Errorf("the log has %v (%v), want the newest row alone", rows, err)
	}
}

func TestPushesOfManyRequestsAreTakenTogetherAndNoneTwice(t *testing.T) {
	s, _ := newStore(t)
	const requests = 60
	taken := make(chan bool, 2*requests)
	for i := range 2 * requests {
		go func() {
			_, replayed, err := s.Receive(t.Context(), deal.Arrival{Tenant: acme, Source: "hubspot", Nonce: bytes.Repeat([]byte{byte(i / 2)}, 32), Until: time.Now().Add(time.Hour)})
			if err != nil {
				t.Error(err)
			}
			taken <- !replayed
		}()
	}
	n := 0
	for range 2 * requests {
		if <-taken {
			n++
		}
	}
	if n != requests {
		t.Errorf("%d requests were taken, %d were sent twice each", n, requests)
	}
}
