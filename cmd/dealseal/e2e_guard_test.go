package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
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
	o := worldOptions{now: clock.now, salesforceDay: max(15_000, 12*n), hubspotRate: 2000}
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

	m := s.beginMass(t, n)
	for _, c := range s.crms {
		s.decideGuarded(t, "release", c, n)
	}
	m.awaitSigned(t, records)
	for _, c := range s.crms {
		for _, r := range records[c] {
			mustBear(t, c, r, 1)
		}
	}
	if limited := regexp.MustCompile(`dealseal_crm_calls_total\{[^}]*result="limited"[^}]*\} [1-9].*`).FindString(s.daemon.get(t, "/metrics")); limited != "" {
		t.Errorf("a CRM had to refuse calls: %s", limited)
	}
	m.mustBeFlat(t)

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
	waitFor(t, patience+time.Duration(n)*20*time.Millisecond, 100*time.Millisecond, c.tenant()+": the guard holds all", func() (bool, string) {
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

// mass is what becomes of deals that were released together.
type mass struct {
	*stage
	n     int
	began time.Time
	calls map[crm]float64 // that the daemon had made before
	cpu   time.Duration
	size  int64   // of the daemon, before
	most  []int64 // and the most that it had, at each quarter
}

// beginMass begins to measure, and heads the table of what comes.
func (s *stage) beginMass(t *testing.T, n int) *mass {
	t.Helper()
	m := &mass{stage: s, n: n, began: time.Now(), calls: map[crm]float64{}, cpu: s.cpu(t), size: s.memory(t, "VmRSS")}
	must(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.daemon.cmd.Process.Pid), []byte("5"), 0o200)) // VmHWM begins anew
	for _, c := range s.crms {
		m.calls[c] = s.callsTo(t, c)
	}
	fmt.Printf("guard: %d deals in each CRM are held, and released now; the daemon has %d MB\n", n, m.size>>20)
	fmt.Println("guard: sealed       after  a second  daemon's CPU  calls of a deal: Salesforce, HubSpot  allowance used  daemon, at most")
	return m
}

// awaitSigned waits until all records show that they are signed, and tells of each quarter.
func (m *mass) awaitSigned(t *testing.T, records map[crm][]string) {
	t.Helper()
	pending := map[crm][]string{}
	for c, list := range records {
		pending[c] = slices.Clone(list)
	}
	all := m.n * len(m.crms)
	for quarter := 1; quarter <= 4; quarter++ {
		left := 0
		waitFor(t, patience+time.Duration(m.n)*time.Second/4, min(time.Duration(m.n)*10*time.Millisecond, time.Second), fmt.Sprintf("%d of 4 quarters are signed", quarter), func() (bool, string) {
			left = 0
			for c := range pending {
				pending[c] = unsigned(c, pending[c])
				left += len(pending[c])
			}
			return all-left >= all*quarter/4, fmt.Sprint(left, " of ", all, " are left")
		})
		m.tell(t, all-left)
	}
}

// tell tells how far it has come.
func (m *mass) tell(t *testing.T, sealed int) {
	t.Helper()
	took := time.Since(m.began)
	m.most = append(m.most, m.memory(t, "VmHWM"))
	var calls []string
	most := 0.0
	for _, c := range m.crms {
		calls = append(calls, fmt.Sprintf("%.1f", (m.callsTo(t, c)-m.calls[c])*float64(len(m.crms))/float64(max(sealed, 1))))
	}
	for _, share := range m.metric(t, `dealseal_crm_budget_used_ratio\{[^}]*\}`) {
		most = max(most, share)
	}
	if most >= 1 {
		t.Errorf("%.0f %% of a CRM's allowance is used", 100*most)
	}
	cpu := m.stage.cpu(t) - m.cpu
	fmt.Printf("guard: %6d  %9s  %8.1f  %9.1f ms  %35s  %12.0f %%  %11d MB\n", sealed, took.Round(time.Second), float64(sealed)/took.Seconds(),
		float64(cpu.Milliseconds())/float64(max(sealed, 1)), strings.Join(calls, ", "), 100*most, m.most[len(m.most)-1]>>20)
}

// metric are the values of what the daemon measures.
func (s *stage) metric(t *testing.T, pattern string) (values []float64) {
	t.Helper()
	for _, found := range regexp.MustCompile(pattern+` (\S+)`).FindAllStringSubmatch(s.daemon.get(t, "/metrics"), -1) {
		v, err := strconv.ParseFloat(found[1], 64)
		must(t, err)
		values = append(values, v)
	}
	return values
}

// callsTo is how many calls the daemon has made to a CRM, polls among them.
func (s *stage) callsTo(t *testing.T, c crm) (n float64) {
	t.Helper()
	for _, v := range s.metric(t, fmt.Sprintf(`dealseal_crm_calls_total\{[^}]*tenant=%q[^}]*\}`, c.tenant())) {
		n += v
	}
	return n
}

// mustBeFlat holds that the daemon does not grow with the deals.
func (m *mass) mustBeFlat(t *testing.T) {
	t.Helper()
	if last := m.most[len(m.most)-1]; last > m.size+m.size/2+64<<20 || last > m.most[0]+m.most[0]/4+32<<20 {
		t.Errorf("the daemon grows with the deals: %d MB before, at each quarter at most %d", m.size>>20, m.most)
	}
}

// unsigned are those of the pending records that do not show yet that they are signed. It looks at the next ones only, as many as
// may be at work: deals are sealed roughly in their order.
func unsigned(c crm, pending []string) []string {
	n := min(len(pending), 256)
	left := slices.DeleteFunc(slices.Clone(pending[:n]), func(r string) bool { return c.shown(r)["status"] == "Signed" })
	return append(left, pending[n:]...)
}

// memory is how much of it the daemon has, or had at most (VmRSS, VmHWM).
func (s *stage) memory(t *testing.T, what string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.cmd.Process.Pid))
	must(t, err)
	found := regexp.MustCompile(what + `:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("the kernel does not tell %s", what)
	}
	kB, err := strconv.ParseInt(string(found[1]), 10, 64)
	must(t, err)
	return kB << 10
}

// cpu is the processor time that the daemon has taken by itself, without its children.
func (s *stage) cpu(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.daemon.cmd.Process.Pid))
	must(t, err)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	must(t, err)
	system, err := strconv.ParseInt(fields[12], 10, 64)
	must(t, err)
	return time.Duration(user+system) * (time.Second / 100)
}
