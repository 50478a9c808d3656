package store

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestAPausedTenantUsesNoKeyAndGoesOnWhereItWas(t *testing.T) {
	clock := newClock()
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, options(dir, clock.Now))
	activate(t, s, acme, ruleA)
	if err := s.AddEndpoint(t.Context(), testEndpoint("hooks"), "anna", "for all"); err != nil {
		t.Fatal(err)
	}
	sl := one(t, s, "006A")
	sl.Step = deal.Gathered
	advance(t, s, sl, "so")
	sl.Step, sl.Facts.Digest = deal.Rendered, "d1"
	advance(t, s, sl, "so")
	if err := s.Pause(t.Context(), acme, "anna", "the template is wrong"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(dir, clock.Now))
	sign := deal.Intent{Step: sl.Step, What: "sign", Digest: "d1", Lease: time.Minute}
	if err := s.Begin(t.Context(), sl, sign); !errors.Is(err, deal.ErrStale) {
		t.Errorf("a key is used for a tenant that is paused: %v", err)
	}
	if fresh := notice(t, s, change("006B", "h1")); len(fresh) != 1 {
		t.Error("what enters the stage of a paused tenant is not noticed")
	}
	all, err := s.Pauses(t.Context())
	if err != nil || len(all) != 1 || all[0] != (deal.Pause{Tenant: acme, Since: clock.Now().UTC(), Who: "anna", Why: "the template is wrong"}) {
		t.Errorf("%+v, %v", all, err)
	}
	var already *PauseError
	if err := s.Pause(t.Context(), acme, "anna", "once more"); !errors.As(err, &already) {
		t.Errorf("paused twice: %v", err)
	}
	if err := s.Resume(t.Context(), acme, "anna", ""); err == nil {
		t.Error("it goes on without a reason")
	}
	if err := s.Resume(t.Context(), acme, "anna", "mended"); err != nil {
		t.Fatal(err)
	}
	if err := s.Resume(t.Context(), acme, "anna", "once more"); !errors.As(err, &already) {
		t.Errorf("resumed twice: %v", err)
	}
	if err := s.Begin(t.Context(), sl, sign); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
	want := map[string]string{"tenant.paused": "the template is wrong", "tenant.resumed": "mended"}
	due, _, err := s.Take(t.Context(), "acme/hooks", 20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range due {
		if why, ours := want[d.Event.Type]; ours && d.Event.Data["reason"] == why && d.Event.Tenant == string(acme) {
			delete(want, d.Event.Type)
		}
	}
	if len(want) > 0 {
		t.Errorf("its webhook was not told of %v: %+v", want, due)
	}
	if n := query[int](t, s, `SELECT count(*) FROM incidents WHERE kind = 'pause' AND tenant = 'acme' AND events = 1 AND closed > 0`); n != 1 {
		t.Errorf("people are told of %d pauses that are over", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM audit WHERE CAST(leaf AS TEXT) LIKE '%tenant.paused%' OR CAST(leaf AS TEXT) LIKE '%tenant.resumed%'`); n != 2 {
		t.Errorf("the audit log has %d entries of it", n)
	}
	verified(t, s)
}

func TestTheQueueHandsOutNothingOfAPausedTenant(t *testing.T) {
	s, _ := newStore(t)
	const other = deal.TenantID("other")
	activate(t, s, other, ruleA)
	if err := s.Pause(t.Context(), acme, "anna", "its CRM is moved"); err != nil {
		t.Fatal(err)
	}
	waits := one(t, s, "006A").Tx
	ran := make(chan deal.TxID, 100)
	work(t, s, Workers{Tenants: []deal.TenantID{acme, other}}, func(_ context.Context, j deal.Job) deal.Outcome {
		if j.Kind == deal.JobSeal {
			select {
			case ran <- j.Tx:
			default: // nobody has listened to a hundred of them
			}
		}
		return deal.Outcome{Again: time.Hour} // the store's clock stands, and the queue's does not: that may be now
	})
	fresh, err := s.Notice(t.Context(), pageOf(t, s, other, change("006A", "h1")))
	if err != nil {
		t.Fatal(err)
	}
	if got := <-ran; got != fresh[0] {
		t.Errorf("%s is handed out, and not %s of another tenant", got, fresh[0])
	}
	if err := s.Resume(t.Context(), acme, "anna", "it is moved"); err != nil {
		t.Fatal(err)
	}
	for got := <-ran; got != waits; got = <-ran {
		if got != fresh[0] {
			t.Fatalf("then %s is handed out, and not %s that has waited", got, waits)
		}
	}
}

func TestAPauseWithALongReasonCanBeTold(t *testing.T) {
	s, _ := newStore(t)
	if err := s.AddEndpoint(t.Context(), testEndpoint("hooks"), "anna", "for all"); err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(t.Context(), acme, "anna", strings.Repeat("é", 70_000)); err != nil {
		t.Fatal(err)
	}
	due, _, err := s.Take(t.Context(), "acme/hooks", 20, time.Minute)
	if err != nil || len(due) != 1 || due[0].Event.Data["reason"] != strings.Repeat("é", longestReason) {
		t.Errorf("%d events are due, %v, or the reason is cut in another way", len(due), err)
	}
}
