package main

import (
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	neighbours = 99 // tenants beside the one that is measured
	deadOnes   = 5  // of them, after a while
	orphans    = 20 // deals of each of those, under way when its CRM dies
)

// dead measures one tenant's deals among a hundred tenants, and again while the CRMs of five of them take every call and
// never answer.
func (b *bench) dead() error {
	sc := scene{Tenants: []sceneTenant{{"beta", "salesforce"}}, Poll: 500 * time.Millisecond, Polls: map[string]time.Duration{}}
	for i := range neighbours {
		name := fmt.Sprintf("tenant-%02d", i+1)
		sc.Tenants = append(sc.Tenants, sceneTenant{name, "salesforce"})
		sc.Polls[name] = 15 * time.Second
	}
	s, err := b.newStageIn(sc, seedOptions{})
	if err != nil {
		return err
	}
	defer s.close()
	const warm = 2
	if err := s.open("beta", ruleOrderForm, dealLines, warm+2*measured); err != nil {
		return err
	}
	if err := s.oneByOne("beta", 0, warm); err != nil {
		return err
	}
	if err := s.oneByOne("beta", warm, measured); err != nil {
		return err
	}
	for _, t := range sc.Tenants[1 : 1+deadOnes] {
		if err := s.bereave(t.ID); err != nil {
			return err
		}
	}
	if err := s.oneByOne("beta", warm+measured, measured); err != nil {
		return err
	}
	waiting := 0
	for _, t := range sc.Tenants[1 : 1+deadOnes] {
		now, err := s.count(t.ID)
		if err != nil {
			return err
		}
		waiting += now.known - now.done
	}
	if err := s.stop(false); err != nil {
		return err
	}
	all, err := s.sealed("beta")
	if err != nil {
		return err
	}
	well, beside := seenToWritten(all[warm:warm+measured]), seenToWritten(all[warm+measured:])
	b.figure("p95 among 100 tenants of which 5 have a CRM that never answers", float64(beside.quantile(0.95))/float64(well.quantile(0.95)), "x", atMost(2),
		"p95 %s ms while all answer, %s ms beside the dead; p50 %s and %s ms; %d deals; %d deals of the dead wait",
		short(ms(well.quantile(0.95))), short(ms(beside.quantile(0.95))), short(ms(well.quantile(0.5))), short(ms(beside.quantile(0.5))), len(beside), waiting)
	return nil
}

// oneByOne moves n deals into their stage, each when the one before is done; done are those that were before.
func (s *stage) oneByOne(tenant string, done, n int) error {
	for i := range n {
		if err := s.closeDeals(tenant, 1); err != nil {
			return err
		}
		if err := s.waitDone(tenant, done+i+1, time.Minute, soon); err != nil {
			return err
		}
	}
	return nil
}

// bereave lets a tenant's CRM die when its deals have been noticed.
func (s *stage) bereave(tenant string) error {
	if err := s.open(tenant, ruleOrderForm, dealLines, orphans); err != nil {
		return err
	}
	if err := s.closeDeals(tenant, orphans); err != nil {
		return err
	}
	if err := s.wait(time.Minute, soon, "noticed", func() (bool, error) {
		now, err := s.count(tenant)
		return now.known >= orphans, err
	}); err != nil {
		return err
	}
	var got int
	return s.order("POST", "/die", url.Values{"tenant": {tenant}}, &got)
}

// mortal is a CRM that takes calls and answers none once it is dead.
func mortal(dead *atomic.Bool, h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if dead.Load() {
			<-r.Context().Done()
			return
		}
		h.ServeHTTP(rw, r)
	})
}
