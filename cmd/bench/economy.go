package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	economyPoll    = 500 * time.Millisecond
	economyLatency = 150 * time.Millisecond // of a CRM on the internet: calls that wait for one are made together
	economyIdle    = 20                     // polls
	economyAlone   = 5                      // deals, one after the other
)

// economy counts the calls that a CRM gets per sealed deal, with every look and status in place: for one deal alone, and for
// many that wait together. Each comes from an order form with lines, company and contact, and gets its audit trail. The
// renderer makes about ten of them a second: so many deals are at the same call as come by while one is answered.
func (b *bench) economy() error {
	for _, c := range []struct {
		sceneTenant
		alone, together float64 // limits
	}{{sceneTenant{"acme", "salesforce"}, 7, 4}, {sceneTenant{"contoso", "hubspot"}, 10, 7}} {
		s, err := b.newStageIn(scene{Tenants: []sceneTenant{c.sceneTenant}, Poll: economyPoll, Latency: economyLatency}, seedOptions{})
		if err != nil {
			return err
		}
		err = b.economyOf(s, c.ID, kindName(c.Kind), atMost(c.alone), atMost(c.together))
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) economyOf(s *stage, tenant, name string, alone, together *limit) error {
	done := 0
	// seal lets n deals enter their stage at once, times over, and returns the calls that were no polls.
	seal := func(n, times int) (map[string]int, error) {
		if err := s.open(tenant, ruleOrderForm, dealLines, n*times); err != nil {
			return nil, err
		}
		if err := s.settle(tenant); err != nil {
			return nil, err
		}
		for range times {
			if err := s.closeDeals(tenant, n); err != nil {
				return nil, err
			}
			done += n
			if err := s.waitDone(tenant, done, 3*time.Minute, soon); err != nil {
				return nil, err
			}
		}
		by, err := s.calls(tenant)
		delete(by, pollCall)
		return by, err
	}
	if _, err := seal(1, 1); err != nil { // logs in, and learns what fields there are
		return err
	}
	for _, c := range []struct {
		name     string
		n, times int
		limit    *limit
	}{{"1 deal alone", 1, economyAlone, alone}, {"10 deals together", 10, 1, nil}, {"100 deals together", 100, 1, together}} {
		by, err := seal(c.n, c.times)
		if err != nil {
			return err
		}
		deals := float64(c.n * c.times)
		b.figure(name+", calls per deal, "+c.name, float64(sum(by))/deals, "calls", c.limit, "%s", listed(by, deals))
	}
	return b.idlePolls(s, tenant, name)
}

// settle waits until the polls have read what was made last, and forgets what that cost.
func (s *stage) settle(tenant string) error {
	return s.wait(time.Minute, soon, "reading what was made", func() (quiet bool, err error) {
		by, err := s.calls(tenant)
		if err != nil || by[pollCall] < 3 {
			return false, err
		}
		return sum(by) == by[pollCall], s.forget(tenant)
	})
}

// idlePolls counts what a poll that finds nothing costs, after the first ones, which have seen what was written last.
func (b *bench) idlePolls(s *stage, tenant, name string) error {
	var by map[string]int
	for _, n := range []int{3, economyIdle} {
		if err := s.forget(tenant); err != nil {
			return err
		}
		err := s.wait(time.Minute, soon, "polling", func() (enough bool, err error) {
			by, err = s.calls(tenant)
			return by[pollCall] >= n, err
		})
		if err != nil {
			return err
		}
	}
	polls := float64(by[pollCall])
	b.figure(name+", calls per idle poll", float64(sum(by))/polls, "calls", atMost(1), "%s", listed(by, polls))
	return nil
}

// listed says how often each call was made for one of n.
func listed(by map[string]int, n float64) string {
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int { return cmp.Or(cmp.Compare(by[b], by[a]), cmp.Compare(a, b)) })
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%s %s", short(float64(by[name])/n), name)
	}
	return strings.Join(parts, ", ")
}
