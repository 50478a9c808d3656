package engine

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const fieldFollowUp = "DealSeal_Follow_Up__c"

func withFollowUp(p *deal.Plan) { p.FollowUp, p.WriteBack.FollowUp = 7*24*time.Hour, fieldFollowUp }

func TestARecordSaysThatItsDealHasHadNoOutcomeUntilItHasOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withFollowUp)
	record := w.won()
	d.until(beforeTheLastLook, func() { w.move(record, stageLost) })
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "[left] ")
	look := func() {
		t.Helper()
		if _, err := d.Ledger.FollowUps(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.tell()
	}
	look()
	if got := w.shown(record, fieldFollowUp); got != "" {
		t.Fatalf("the record shows at once that it is to be followed up, since %s", got)
	}
	w.clock.advance(8 * 24 * time.Hour)
	before := w.updates()
	look()
	look()
	at := d.load(s.Tx).Facts.FollowUp
	if got := w.shown(record, fieldFollowUp); at.IsZero() || !strings.HasPrefix(got, at.UTC().Format("2006-01-02T15:04")) {
		t.Errorf("after eight days the record shows %q, want %s", got, at)
	}
	if n := w.updates() - before; n != 1 {
		t.Errorf("that took %d writes, want 1", n)
	}
	w.wantShown(record, "Held")
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	d.tell()
	w.wantShown(record, "Signed")
	if got := w.shown(record, fieldFollowUp); got != "" {
		t.Errorf("with its contract the record is still to be followed up, since %s", got)
	}
	look()
	if n := count(d, s.Tx, "envelope.follow_up_due"); n != 1 {
		t.Errorf("%d events tell of it", n)
	}
}

func TestADealOfHubSpotSaysThatItHasHadNoOutcomeUntilItHasOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	p, record, tenant := w.hubspotTenant()
	const property = "dealseal_follow_up"
	plan := &tenant.Rules[0].Plan
	plan.FollowUp, plan.WriteBack.FollowUp = 7*24*time.Hour, property
	d.Tenants = nil
	d.addTenant(tenant)
	d.poll()
	w.clock.advance(time.Minute)
	must(t, p.MoveStage(record, "closedwon"))
	w.clock.advance(time.Minute)
	d.until(beforeTheLastLook, func() { must(t, p.MoveStage(record, "closedlost")) })
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "[left] ")
	shown := func() (status, since string) {
		t.Helper()
		r, err := p.Record(record)
		must(t, err)
		return r.Properties["dealseal_status"], r.Properties[property]
	}
	look := func() {
		t.Helper()
		if _, err := d.Ledger.FollowUps(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.tell()
	}
	look()
	if status, since := shown(); status != "held" || since != "" {
		t.Fatalf("at once the deal shows %q, and that it is to be followed up since %q", status, since)
	}
	w.clock.advance(8 * 24 * time.Hour)
	look()
	at := d.load(s.Tx).Facts.FollowUp
	if status, since := shown(); status != "held" || at.IsZero() || !strings.HasPrefix(since, at.UTC().Format("2006-01-02T15:04")) {
		t.Errorf("after eight days the deal shows %q, and %q, want %s", status, since, at)
	}
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	d.tell()
	if status, since := shown(); status != "signed" || since != "" {
		t.Errorf("with its contract the deal shows %q, and that it is to be followed up since %q", status, since)
	}
	if n := count(d, s.Tx, "envelope.follow_up_due"); n != 1 {
		t.Errorf("%d events tell of it", n)
	}
}

// count is how often an event of a deal was told.
func count(d *daemon, tx deal.TxID, event string) (n int) {
	for _, e := range d.story(tx).Outbox {
		if e.Type == event {
			n++
		}
	}
	return n
}

// TestTheEngineLooksForDealsToFollowUp: not at once, since a daemon that was down for long has only to go on with most.
func TestTheEngineLooksForDealsToFollowUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := make(chan time.Duration)
		began := time.Now()
		e := &Engine{Ledger: ledgerOfFollowUps{look: func() (int, error) {
			looks <- time.Since(began)
			return 0, errors.New("the disk is full")
		}}, Log: slog.New(slog.DiscardHandler)}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.followUp(ctx) }()
		for _, want := range []time.Duration{time.Minute, 6 * time.Minute, 11 * time.Minute} {
			if at := <-looks; at != want {
				t.Errorf("it looks after %s, want %s", at, want)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// ledgerOfFollowUps is one of which nothing else is asked.
type ledgerOfFollowUps struct {
	Ledger
	look func() (int, error)
}

func (l ledgerOfFollowUps) FollowUps(context.Context) (int, error) { return l.look() }
