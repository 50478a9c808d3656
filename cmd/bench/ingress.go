package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

const (
	ingressRate = 2000 // a second
	ingressTime = 5 * time.Second
)

// ingress sends signed pushes, as many as are taken and then at the rate that is promised, kills the daemon, and looks for
// each that was answered.
func (b *bench) ingress() error {
	s, err := b.newStageIn(scene{Tenants: []sceneTenant{{"acme", "salesforce"}}, Poll: pushPoll, Push: true}, seedOptions{})
	if err != nil {
		return err
	}
	defer s.close()
	to, err := s.address(sendersLine)
	if err != nil {
		return err
	}
	taken := 0
	storm := func(rate int, lasts time.Duration) (out stormed, err error) {
		err = s.order("POST", "/storm", url.Values{"tenant": {"acme"}, "push": {to}, "rate": {strconv.Itoa(rate)}, "lasts": {lasts.String()}}, &out)
		taken += out.Statuses[http.StatusAccepted]
		return out, err
	}
	if _, err := storm(ingressRate/10, time.Second); err != nil { // warm
		return err
	}
	house := s.daemonSpent().sum()
	world, err := s.worldCPU()
	if err != nil {
		return err
	}
	most, err := storm(0, ingressTime)
	if err != nil {
		return err
	}
	house = s.daemonSpent().sum() - house
	now, err := s.worldCPU()
	if err != nil {
		return err
	}
	steady, err := storm(ingressRate, ingressTime)
	if err != nil {
		return err
	}
	if err := s.stop(false); err != nil {
		return err
	}
	kept, err := s.pushesKept()
	if err != nil {
		return err
	}
	if kept < taken {
		return fmt.Errorf("%d webhooks were answered 202, %d of them were kept", taken, kept)
	}
	n := float64(most.Statuses[http.StatusAccepted])
	b.figure("verified webhooks", n/most.Lasted.Seconds(), "/s", atLeast(ingressRate), "%d connections; p99 %s ms; %s ms of processor time each, load and mocks %s ms; all %d of this part found after kill -9",
		stormConnections, short(ms(most.Took.quantile(0.99))), short(ms(house)/n), short(ms(now-world)/n), kept)
	b.figure(fmt.Sprintf("answer at %d a second, p99", ingressRate), ms(steady.Took.quantile(0.99)), "ms", atMost(50), "p50 %s ms from when it was to be sent; %d of %d answered 202",
		short(ms(steady.Took.quantile(0.5))), steady.Statuses[http.StatusAccepted], len(steady.Took))
	return nil
}

// pushesKept counts the pushes in the log of the ended daemon.
func (s *stage) pushesKept() (n int, err error) {
	master, err := masterKey(s.scene.MasterKey)
	if err != nil {
		return 0, err
	}
	ledger, err := store.Open(s.b.ctx, store.Options{Dir: s.scene.State, MasterKey: master})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	rows, err := ledger.Pushes(s.b.ctx, 1_000_000)
	for _, row := range rows {
		if row.Verdict == deal.PushTaken {
			n += row.N
		}
	}
	return n, err
}
