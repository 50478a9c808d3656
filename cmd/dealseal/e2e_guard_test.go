package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// unguarded is how the rules of most worlds are: their deals come as fast as a test can make them.
const unguarded = "guard: {per_hour: off, per_day: off, learned: off, same_second: off, same_user: off, first_run: off}"

// stillClock is the clock of a CRM that can be stopped.
type stillClock struct {
	mu    sync.Mutex
	stood time.Time // since when it stands still, zero while it goes
}

func (c *stillClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stood.IsZero() {
		return c.stood
	}
	return time.Now()
}

func (c *stillClock) stop(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stood = at
}

// TestAMassUpdateIsHeldAndThenSealedOrForgotten has a data loader move many deals in one second, in each CRM: DEALS of them
// (12 here; "make guard" moves 10,000).
func TestAMassUpdateIsHeldAndThenSealedOrForgotten(t *testing.T) {
	t.Parallel()
	n := number(t, "DEALS", 12)
	clock := &stillClock{}
	limits := "guard: {}" // those that a tenant has who says nothing
	// As seldom as a CRM elsewhere: within the overlap each poll reads all of the mass again.
	poll := "15s"
	if n <= 50 {
		limits, poll = "guard: {same_second: 10}", ""
	}
	o := worldOptions{now: clock.now, hubspotRate: 2000}
	for _, kind := range bothCRMs {
		tenant := usualTenant(kind)
		tenant.poll = poll
		o.tenants = append(o.tenants, tenant)
	}
	w := newWorld(t, o)
	for _, c := range w.crms {
		file := w.path("tenants/" + c.tenant() + ".yaml")
		text, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, []byte(strings.Replace(strings.ReplaceAll(string(text), unguarded, limits), "guard: {per_hour: off, per_day: off}\n", "", 1)), 0o600))
	}
	s := w.begin(t)
	records := map[crm][]string{}
	for _, c := range s.crms {
		first := c.open(sale{quote: quotation(0)})
		c.move(first, ruleMemo)
		awaitDone(t, s.ops, first) // a deal among the others is sealed, and no first run any more
		for i := range n {
			records[c] = append(records[c], c.open(sale{quote: quotation(i)}))
		}
	}
	s.moveAtOnce(t, clock, records)
	for _, c := range s.crms {
		s.awaitGuarded(t, c, n)
		for _, r := range records[c][leak(n):] {
			mustShowNothing(t, c, r)
		}
		scope := c.tenant() + "/" + ruleMemo
		eventually(t, "it is told of", func() (bool, string) { // once for all of them
			told := strings.Count(s.daemon.log(), "the guard holds deals until a person decides: dealseal jobs release --guard "+scope)
			return told == 1, fmt.Sprint(told, " times")
		})
		if leak(n) == 0 {
			mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), fmt.Sprintf("dealseal_guard_held_deals{tenant=%q} %d\n", c.tenant(), n))
		}
		stdout, _, _ := s.run(t, "jobs")
		found, _, _ := s.run(t, "doctor")
		mustContain(t, "the doctor", strings.Join(strings.Fields(found), " "), "release --guard "+scope)
		mustContain(t, "the list", stdout, "The guard holds ", " deals of "+scope, "(same_second)")
	}

	before := s.memory(t)
	began := time.Now()
	for _, c := range s.crms {
		s.decideGuarded(t, "release", c, n)
	}
	most := before
	for _, c := range s.crms {
		for pending := records[c]; len(pending) > 0; most = max(most, s.memory(t)) {
			pending = awaitSome(t, c, pending)
		}
	}
	took := time.Since(began)
	for _, c := range s.crms {
		for _, r := range records[c] {
			mustBear(t, c, r, 1)
		}
	}
	if limited := regexp.MustCompile(`dealseal_crm_calls_total\{[^}]*result="limited"[^}]*\} [1-9].*`).FindString(s.daemon.get(t, "/metrics")); limited != "" {
		t.Errorf("a CRM had to refuse calls: %s", limited)
	}
	fmt.Printf("guard: %d deals in each CRM, all held and then sealed in %s (%.1f a second); daemon %d MB before, %d MB at most\n", n, took.Round(time.Second), 2*float64(n)/took.Seconds(), before>>20, most>>20)
	if most > before+before/2+64<<20 {
		t.Errorf("the daemon grows with the deals: %d MB before, %d MB at most", before>>20, most>>20)
	}

	// Dropped, the next mass leaves no trace.
	c := s.crms[0]
	slip := map[crm][]string{}
	if n > 50 {
		n = 200
	}
	for range n {
		slip[c] = append(slip[c], c.open(sale{quote: quotation(2)}))
	}
	s.moveAtOnce(t, clock, slip)
	s.awaitGuarded(t, c, n)
	s.decideGuarded(t, "drop", c, n)
	last := c.open(sale{quote: quotation(1)})
	c.move(last, ruleMemo) // what is told, is told before this is done
	awaitDone(t, s.ops, last)
	for _, r := range slip[c][leak(n):] {
		mustShowNothing(t, c, r)
	}
	auditIsWhole(t, s.ops, nil)
	s.daemon.stop(t)
}

// moveAtOnce moves records in one second of their CRMs' clocks, and while no daemon looks.
func (s *stage) moveAtOnce(t *testing.T, clock *stillClock, records map[crm][]string) {
	t.Helper()
	s.daemon.stop(t)
	clock.stop(time.Now().Truncate(time.Second))
	for c, list := range records {
		for _, r := range list {
			c.move(r, ruleMemo)
		}
	}
	clock.stop(time.Time{})
	s.daemon = s.start(t)
}

func (s *stage) awaitGuarded(t *testing.T, c crm, n int) {
	t.Helper()
	eventually(t, c.tenant()+": the guard holds all", func() (bool, string) {
		holds, err := s.ops.Guards(context.Background())
		must(t, err)
		for _, h := range holds {
			if h.Tenant == deal.TenantID(c.tenant()) && h.Rule == ruleMemo {
				return h.Held <= n && h.Held >= n-leak(n), fmt.Sprintf("%d: %s", h.Held, h.Cause)
			}
		}
		return false, fmt.Sprint(holds)
	})
}

// leak is how many of n may be let through: a CRM that shows a mass on several pages may show as many as one second may have on
// the first of them.
func leak(n int) int {
	if n <= 50 {
		return 0
	}
	return 50
}

func mustShowNothing(t *testing.T, c crm, record string) {
	t.Helper()
	if shown := c.shown(record); len(shown) != 0 || contracts(c, record) != 0 {
		t.Errorf("%s is none of the CRM's business yet, and shows %v", record, shown)
	}
}

func (s *stage) decideGuarded(t *testing.T, verb string, c crm, n int) {
	t.Helper()
	stdout, stderr, code := s.run(t, "jobs", verb, "--guard", c.tenant()+"/"+ruleMemo, "--why", "decided in a test")
	mustContain(t, "the decision", stdout, fmt.Sprintf(" deals of %s/%s: ", c.tenant(), ruleMemo))
	if leak(n) == 0 {
		mustContain(t, "the decision", stdout, fmt.Sprintf("%d deals of ", n))
	}
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
}

// awaitSome waits until one of the next records shows that it is signed, and returns those that do not yet.
func awaitSome(t *testing.T, c crm, pending []string) (left []string) {
	t.Helper()
	next := pending[:min(len(pending), 64)]
	eventually(t, "one of the next deals is signed", func() (bool, string) {
		left = nil
		for _, r := range next {
			if c.shown(r)["status"] != "Signed" {
				left = append(left, r)
			}
		}
		return len(left) < len(next), fmt.Sprint(len(pending), " are left")
	})
	return append(left, pending[len(next):]...)
}

// memory is how much of it the daemon has.
func (s *stage) memory(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.daemon.cmd.Process.Pid))
	must(t, err)
	var size, resident int64
	_, err = fmt.Sscan(string(text), &size, &resident)
	must(t, err)
	return resident * int64(os.Getpagesize())
}
