package main

import (
	"fmt"
	"os"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// throughput has many deals at once, whose documents are to be made.
func (b *bench) throughput() error {
	p, err := b.newPress()
	if err != nil {
		return err
	}
	defer p.Close()
	for _, c := range []struct {
		rule, name string
		deals      int
		documents  []document
	}{
		{ruleOrderForm, "order forms with audit trails", 120, []document{orderForm, auditTrail}},
		{ruleAlone, "order forms", 160, []document{orderForm}},
	} {
		if _, _, err := p.run(b.ctx, 2*time.Second, c.documents...); err != nil { // until both children are as warm as the daemon's
			return err
		}
		before := pressSpent()
		alone, took, err := p.run(b.ctx, 4*time.Second, c.documents...)
		if err != nil {
			return err
		}
		pressed := pressSpent().since(before)
		load, err := b.rush(c.rule, c.deals)
		if err != nil {
			return err
		}
		b.figure(c.name+", of what the renderer alone does", 100*load.rate/alone, "%", atLeast(80), "%s deals/s, the renderer alone %s/s with %d children", short(load.rate), short(alone), rendererChildren)
		load.figures(b, c.name)
		rounds := len(took) / len(c.documents)
		b.figure(c.name+", processor time of the renderer alone", ms(pressed.sum())/float64(rounds), "ms", nil, "%s; %d times", pressed.perDeal(rounds), rounds)
	}
	return p.Close()
}

// pressSpent is what the renderer alone has used, with its half in this process.
func pressSpent() spent { return spentOf(os.Getpid(), "its half in the parent") }

// ready has many deals at once whose document is made already.
func (b *bench) ready() error {
	load, err := b.rush(ruleReady, 500)
	if err != nil {
		return err
	}
	b.figure("ready PDFs", load.rate, "deals/s", atLeast(100), "the document is on the record already, 50 kB; %d cores shared with mocks and load", b.Machine.Cores)
	load.figures(b, "ready PDFs")
	return nil
}

// load is what many deals at once did.
type load struct {
	deals int
	rate  float64 // done per second, from the first seen to the last done
	house spent
	mock  time.Duration // processor time of mocks and load
}

func (l load) figures(b *bench, name string) {
	perDeal := func(d time.Duration) float64 { return ms(d) / float64(l.deals) }
	b.figure(name+", processor time per deal", perDeal(l.house.sum()), "ms", nil, "%s; mocks and load besides %s ms; %d deals", l.house.perDeal(l.deals), short(perDeal(l.mock)), l.deals)
}

// rush lets n deals of one tenant enter their stage at once.
func (b *bench) rush(rule string, n int) (l load, err error) {
	const warm = 8
	s, err := b.newStage(time.Second, sceneTenant{"acme", "salesforce"})
	if err != nil {
		return l, err
	}
	defer s.close()
	if err := s.open("acme", rule, dealLines, warm+n); err != nil {
		return l, err
	}
	if err := s.closeDeals("acme", warm); err != nil {
		return l, err
	}
	if err := s.waitDone("acme", warm, time.Minute, soon); err != nil {
		return l, err
	}
	house, mock := s.daemonSpent(), time.Duration(0)
	if mock, err = s.worldCPU(); err != nil {
		return l, err
	}
	if err := s.closeDeals("acme", n); err != nil {
		return l, err
	}
	if err := s.waitDone("acme", warm+n, 3*time.Minute, seldom); err != nil {
		return l, err
	}
	l = load{deals: n, house: s.daemonSpent().since(house)}
	now, err := s.worldCPU()
	if err != nil {
		return l, err
	}
	l.mock = now - mock
	if err := s.stop(true); err != nil {
		return l, err
	}
	all, err := s.sealed("acme")
	if err != nil {
		return l, err
	}
	if len(all) != warm+n {
		return l, fmt.Errorf("%d deals are done, %d were made", len(all), warm+n)
	}
	first, last := all[warm].Noticed, time.Time{}
	for _, sl := range all[warm:] {
		if at := sl.Facts.Times[deal.Done]; at.After(last) {
			last = at
		}
	}
	l.rate = float64(n) / last.Sub(first).Seconds()
	return l, nil
}
