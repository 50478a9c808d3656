package main

import (
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const (
	flood    = 10_000 // deals of the one tenant
	measured = 30     // deals of the other, one after the other
)

// fairness measures one tenant's deals alone and while another tenant has thousands waiting.
func (b *bench) fairness() error {
	left, err := b.beside(0)
	if err != nil {
		return err
	}
	pressed, err := b.beside(flood)
	if err != nil {
		return err
	}
	alone, crowded := seenToWritten(left), seenToWritten(pressed)
	ratio := float64(crowded.quantile(0.95)) / float64(alone.quantile(0.95))
	b.figure("p95 beside 10,000 deals of another tenant", ratio, "x", atMost(2), "p95 %s ms alone, %s ms beside; p50 %s and %s ms; %d deals",
		short(ms(alone.quantile(0.95))), short(ms(crowded.quantile(0.95))), short(ms(alone.quantile(0.5))), short(ms(crowded.quantile(0.5))), len(crowded))
	for i, step := range deal.Steps[1:] {
		before, beside := leg(left, deal.Steps[i], step), leg(pressed, deal.Steps[i], step)
		b.figure(fmt.Sprintf("%s to %s, p50 beside them", deal.Steps[i], step), ms(beside.quantile(0.5)), "ms", nil, "%s ms alone; p95 %s ms, %s ms alone",
			short(ms(before.quantile(0.5))), short(ms(beside.quantile(0.95))), short(ms(before.quantile(0.95))))
	}
	return nil
}

// beside measures a tenant's deals while n of another tenant wait.
func (b *bench) beside(n int) ([]*deal.Sealing, error) {
	s, err := b.newStageIn(scene{
		Tenants: []sceneTenant{{"acme", "salesforce"}, {"beta", "salesforce"}}, Poll: 500 * time.Millisecond,
		// As seldom as a CRM elsewhere at the most: the mock looks through all of its history at each poll.
		Polls: map[string]time.Duration{"acme": 15 * time.Second},
	}, seedOptions{})
	if err != nil {
		return nil, err
	}
	defer s.close()
	const warm = 2
	if err := s.open("beta", ruleOrderForm, dealLines, warm+measured); err != nil {
		return nil, err
	}
	if err := s.closeDeals("beta", warm); err != nil {
		return nil, err
	}
	if err := s.waitDone("beta", warm, time.Minute, soon); err != nil {
		return nil, err
	}
	if n > 0 {
		if err := s.open("acme", ruleAlone, 1, n); err != nil {
			return nil, err
		}
		if err := s.closeDeals("acme", n); err != nil {
			return nil, err
		}
		// All of them are in the ledger, and the first are being worked.
		if err := s.wait(3*time.Minute, seldom, "flooded", func() (bool, error) {
			now, err := s.count("acme")
			return now.known >= n, err
		}); err != nil {
			return nil, err
		}
	}
	for i := range measured {
		if err := s.closeDeals("beta", 1); err != nil {
			return nil, err
		}
		if err := s.waitDone("beta", warm+i+1, time.Minute, soon); err != nil {
			return nil, err
		}
	}
	if err := s.stop(false); err != nil {
		return nil, err
	}
	all, err := s.sealed("beta")
	if err != nil {
		return nil, err
	}
	return all[warm:], nil
}
