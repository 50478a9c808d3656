package main

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
)

// TestACrashAtAnyPointLosesAndDoublesNothing kills the daemon before and after each begin, outside call, HTTP request,
// fsync, rename and commit, once each, in a chain: what one crash leaves behind the next run has to cope with. In the end
// every deal must have come to what it comes to without a crash.
func TestACrashAtAnyPointLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "dealseal")
	if out, err := exec.Command("go", "build", "-ldflags", smaller, "-tags", "crashpoints", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("asked", func(t *testing.T) {
		t.Parallel()
		asked(t, binary)
	})
	t.Run("delegated", func(t *testing.T) {
		t.Parallel()
		delegated(t, binary)
	})
	t.Run("quotes", func(t *testing.T) {
		t.Parallel()
		crashedQuotes(t, binary)
	})
	for _, kind := range bothCRMs {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			// One of the two seals to B-LTA in the middle of a rollover, twice, with all that this takes; the other to B-T, which
			// passes less.
			o := worldOptions{crms: []deal.Kind{kind}, binary: binary}
			if kind == deal.HubSpot {
				o.level, o.dual = "B-LTA", true
			}
			o.webhooks = hookTo(t, newReceiver(t, nil))
			calm := faultFree(t, o)
			told := newReceiver(t, nil) // the transactions of the other world have the same names
			o.webhooks = hookTo(t, told)
			c := &chain{world: newRollingWorld(t, o), told: told, lasting: o.level == "B-LTA", calm: calm, waiting: map[string]bool{}}
			c.run(t)
		})
	}
}

// calm is what happens without a crash.
type calm struct {
	calls    []string          // HTTP points, in the order of their first passing
	rules    map[string]string // the rule whose deal was the first to pass an HTTP point
	outcomes map[string]outcome
}

// faultFree records which HTTP calls there are and what becomes of a deal of each rule.
func faultFree(t *testing.T, o worldOptions) calm {
	t.Helper()
	w := newRollingWorld(t, o)
	out := w.calmly(t)
	// A list of calls that lacks the writes would prove nothing.
	wanted := []string{"http/tsa/POST", "http/" + w.crms[0].tenant() + "/POST", "http/" + w.crms[0].tenant() + "/PATCH", "http/" + w.crms[0].tenant() + "/GET"}
	if o.level == "B-LTA" {
		wanted = append(wanted, "http/revocation/POST", "http/revocation/GET")
	}
	if o.crms[0] == deal.HubSpot {
		wanted = append(wanted, "http/contoso/POST /crm/objects/2026-03/notes timeline")
	} else {
		wanted = append(wanted, "http/acme/GET /services/data/v66.0/query FROM Task", "http/acme/POST /services/data/v66.0/sobjects/Task")
	}
	out.mustHave(t, wanted...)
	return out
}

// mustHave holds that there are calls that begin as these do.
func (c calm) mustHave(t *testing.T, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !slices.ContainsFunc(c.calls, func(p string) bool { return strings.HasPrefix(p, want) }) {
			t.Fatalf("no call begins with %s: %q", want, c.calls)
		}
	}
}

// calmly has a daemon do a deal of each rule.
func (w *world) calmly(t *testing.T) calm {
	t.Helper()
	passed := w.path("points.log")
	d := w.start(t, "DEALSEAL_CRASH_LOG="+passed)
	ops := w.control(t, w.stateDir)
	out := calm{rules: map[string]string{}, outcomes: map[string]outcome{}}
	records := map[string]string{}
	for _, rule := range []string{ruleContract, ruleMemo} {
		records[rule] = w.enter(rule)
		awaitDone(t, ops, records[rule])
		awaitErrands(t, ops, records[rule])
		out.note(t, passed, rule)
	}
	d.stop(t)
	s := w.openState(t)
	for rule, r := range records {
		out.outcomes[rule] = w.outcomeOf(t, s, w.crms[0], r)
	}
	for _, p := range out.calls {
		if other := strings.NewReplacer("/before", "/after", "/after", "/before").Replace(p); !slices.Contains(out.calls, other) {
			t.Fatalf("%s was passed, %s was not", p, other)
		}
	}
	return out
}

// newCountedWorld has a TSA whose requests are counted in the database.
func newCountedWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	w := newWorld(t, o)
	w.rewrite(t, "dealseal.yaml", "  tsa: [{", "  tsa: [{quota: 100000, ")
	return w
}

// newRollingWorld is a counted one, whose memos move their records on and are noted on timelines, as are contracts that are held; if
// its deals ask for two seals, in the middle of a rollover.
func newRollingWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	w := newCountedWorld(t, o)
	for _, c := range w.crms {
		w.rewrite(t, "tenants/"+c.tenant()+".yaml", "{id: "+ruleMemo+",", fmt.Sprintf("{id: %s, move: {signed: %q},", ruleMemo, c.stage(stageLost)))
		for rule, noted := range map[string]string{"seal: normal, audit_trail: none": "signed", "document: {template: order-form@1}, seal: normal, audit_trail: audit-trail@1": "held"} {
			w.rewrite(t, "tenants/"+c.tenant()+".yaml", rule+", write_back: {", rule+", write_back: {timeline: ["+noted+"], ")
		}
	}
	if o.dual {
		w.rollOver(t, time.Now().Add(24*time.Hour))
	}
	return w
}

// note takes in the HTTP points of a log of passed points.
func (c *calm) note(t *testing.T, passed, rule string) {
	t.Helper()
	b, err := os.ReadFile(passed)
	must(t, err)
	for point := range strings.Lines(string(b)) {
		point = strings.TrimSpace(point)
		if strings.HasPrefix(point, "http/") && c.rules[point] == "" {
			c.calls = append(c.calls, point)
			c.rules[point] = rule
		}
	}
}

// enter makes a deal and moves it into the stage of a rule.
func (w *world) enter(rule string) (record string) {
	c := w.crms[0]
	s := sale{}
	if rule != ruleContract {
		s.quote = quotation(1)
	}
	record = c.open(s)
	c.move(record, rule)
	return record
}

// chain is one daemon's life of crashes.
type chain struct {
	*world
	lasting    bool // its seals are of B-LTA
	told       *receiver
	calm       calm
	records    []string
	rules      map[string]string // by record
	erased     deal.TxID
	waiting    map[string]bool // records that wait for a person
	checkpoint []byte
}

// plunge is how one point is reached.
type plunge struct {
	point string
	// reach does what leads to the point while an armed daemon runs; alone is an operation that has a process of its own
	// and needs no daemon.
	reach func(t *testing.T, d *process)
	alone []string
}

func (c *chain) run(t *testing.T) {
	c.rules = map[string]string{}
	for i, p := range c.plunges() {
		c.plunge(t, p)
		if i == 20 {
			c.saveCheckpoint(t)
		}
	}
	c.settles(t)
	d := c.start(t)
	ops := c.control(t, c.stateDir)
	c.finish(t, ops)
	c.reconciled(t, ops)
	c.everyEventArrives(t, ops)
	auditIsWhole(t, ops, c.checkpoint)
	d.stop(t)
	c.compare(t)
	c.recoverWithCrashes(t)
}

// settles is the time in which what was asked for before a crash may still be done by the CRM, and is only looked for.
func (c *chain) settles(t *testing.T) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(c.stateDir, "dealseal.db"))
	must(t, err)
	defer db.Close()
	waiting, err := db.Exec(`UPDATE errands SET asked = asked - ? WHERE asked > 0`, (10 * time.Minute).Milliseconds())
	must(t, err)
	if n, err := waiting.RowsAffected(); err != nil || n == 0 {
		t.Errorf("no crash has left a note of which nobody knows whether it is there: %v", err)
	}
	_, err = db.Exec(`UPDATE jobs SET due = 0 WHERE kind = ?`, deal.JobErrand)
	must(t, err)
}

// lastingPoint matches what only seals of B-LT and B-LTA pass, and second ones, which these have here.
var lastingPoint = regexp.MustCompile(`^seal\.\w+\.(second-|evidence|revocation|archive-)`)

// plunges lists every point there is, each with the way to it.
func (c *chain) plunges() (list []plunge) {
	for _, p := range append(append(engine.Points(), store.Points()...), c.calm.calls...) {
		if lastingPoint.MatchString(p) && !c.lasting {
			continue
		}
		way := plunge{point: p}
		operation, _, _ := strings.Cut(p, ":")
		switch operation {
		case "commit/operate":
			way.reach = c.release
		case "commit/pass", "commit/compared":
			way.reach = c.reconcile
		case "commit/checkpoint":
			way.reach = func(t *testing.T, d *process) {
				d.awaitReady(t)
				must(t, d.cmd.Process.Signal(syscall.SIGTERM))
			}
		case "commit/memory", "commit/erase", "rename/manifest", "commit/receive", "commit/refused", "commit/forget", "commit/secrets", "commit/follow-up":
			way.alone = []string{operation}
		case "commit/recover":
			continue // see recoverWithCrashes
		case "commit/request", "commit/callback-looked", "commit/callback-begin", "commit/callback-end":
			continue // see askedPoints
		case "commit/errand":
			way.reach = func(*testing.T, *process) { c.add(ruleMemo) }
		default:
			way.reach = func(t *testing.T, _ *process) { c.add(c.ruleFor(p)) }
		}
		list = append(list, way)
	}
	return list
}

// ruleFor chooses a deal that passes the point, the cheapest where any does.
func (c *chain) ruleFor(point string) string {
	if rule := c.calm.rules[point]; rule != "" {
		return rule
	}
	if strings.Contains(point, ":") { // a point of the store
		return ruleMemo
	}
	return ruleContract
}

func (c *chain) add(rule string) {
	r := c.enter(rule)
	c.records = append(c.records, r)
	c.rules[r] = rule
}

// plunge kills the daemon, or the operation, at a point.
func (c *chain) plunge(t *testing.T, p plunge) {
	t.Helper()
	env := "DEALSEAL_CRASH_AT=" + p.point
	if p.alone != nil {
		c.operate(t, p)
		return
	}
	d := c.launch(t, c.config, env)
	p.reach(t, d)
	select {
	case <-d.ended:
	case <-time.After(90 * time.Second): // a machine under load may stand still for a while
		d.kill()
		t.Errorf("point %s was never reached:\n%s", p.point, tail(d.log()))
		return
	}
	mustBeKilled(t, p.point, d.cmd, d.log)
}

func mustBeKilled(t *testing.T, point string, cmd *exec.Cmd, log func() string) {
	t.Helper()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("point %s was never reached: the process ended with %s\n%s", point, cmd.ProcessState, tail(log()))
	}
}

func tail(log string) string {
	lines := strings.Split(log, "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// release puts a deal on hold and lets a person release it, which the crash may interrupt.
func (c *chain) release(t *testing.T, d *process) {
	d.awaitReady(t)
	ops := c.control(t, c.stateDir)
	for _, r := range c.records { // the crashes before have left many behind, which come first
		if !c.waiting[r] {
			awaitDone(t, ops, r)
		}
	}
	r := c.crms[0].open(sale{nobody: true})
	c.crms[0].move(r, ruleContract)
	c.records, c.rules[r], c.waiting[r] = append(c.records, r), ruleContract, true
	story := awaitHeld(t, ops, r, 1, `"customer"`)
	c.crms[0].addCustomer(r, hiddenCustomer)
	if err := ops.Decide(context.Background(), decision{Verb: "release", Tx: story.Sealing.Tx, Why: "mended"}); err == nil {
		t.Error("a daemon that was killed has answered")
	}
}

// reconcile loses the contract of the oldest deal's record and has the daemon compare records with its ledger, which the crash
// interrupts: where there is nothing to mend, nothing is committed of a record. A pass that was cut short is gone on with, and
// does not look at deals that came to their end after it had begun.
func (c *chain) reconcile(t *testing.T, d *process) {
	d.awaitReady(t)
	ops := c.control(t, c.stateDir)
	r := c.records[0]
	awaitDone(t, ops, r)
	c.crms[0].loseContract(r)
	if reports, err := ops.Reconcile(context.Background(), reconcileOrder{}); err == nil {
		t.Errorf("a daemon that was killed has answered: %+v", reports)
	}
}

// reconciled goes on with the pass that was cut short until it has ended: each record shows what the ledger has, once what
// was lost last is put back.
func (c *chain) reconciled(t *testing.T, ops *remote) {
	t.Helper()
	reports, err := ops.Reconcile(context.Background(), reconcileOrder{})
	must(t, err)
	for _, r := range reports {
		if r.Err != "" || r.Left > 0 || r.Pass.Ended.IsZero() || r.Pass.Deals == 0 {
			t.Errorf("the pass that was cut short has ended with %+v", r)
		}
	}
}

// operate runs an operation of the store that no command has yet, in a process of its own.
func (c *chain) operate(t *testing.T, p plunge) {
	t.Helper()
	if c.erased == "" {
		c.erased = c.sacrifice(t)
	}
	exe, err := os.Executable()
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args = []string{"operate", c.config, p.alone[0], string(c.erased)}
	cmd.Env = append(os.Environ(), "DEALSEAL_CRASH_AT="+p.point)
	out, _ := cmd.CombinedOutput() // mustBeKilled tells how it ended
	mustBeKilled(t, p.point, cmd, func() string { return string(out) })
}

// sacrifice takes a deal to its end that may be erased.
func (c *chain) sacrifice(t *testing.T) deal.TxID {
	t.Helper()
	d := c.start(t)
	defer d.stop(t)
	return awaitDone(t, c.control(t, c.stateDir), c.enter(ruleMemo)).Sealing.Tx
}

// operate is the main function of those processes.
func operate() {
	if err := operateOn(os.Args[1], os.Args[2], deal.TxID(os.Args[3])); err != nil {
		fmt.Fprintln(os.Stderr, "operate:", err)
		os.Exit(1)
	}
}

func operateOn(file, operation string, tx deal.TxID) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	master, err := masterKey(cfg.MasterKey)
	if err != nil {
		return err
	}
	ctx, at := context.Background(), os.Getenv("DEALSEAL_CRASH_AT")
	s, err := store.Open(ctx, store.Options{Dir: cfg.StateDir, MasterKey: master, Hook: func(point string) {
		if point == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		return err
	}
	defer s.Close()
	sealing, err := s.Load(ctx, tx)
	switch {
	case err != nil && !(operation == "commit/erase" || operation == "rename/manifest"):
		return err
	case operation == "commit/receive":
		_, _, err := s.Receive(ctx, deal.Arrival{Tenant: sealing.Tenant, Source: "hubspot", Nonce: []byte(at), Until: time.Now(), Events: []deal.PushedEvent{{Key: at, Ref: sealing.Change.Ref, Wakes: true}}})
		return err
	case operation == "commit/refused":
		return s.LogPushes(ctx, []deal.Push{{Tenant: sealing.Tenant, Source: "hubspot", Verdict: deal.PushRefused, N: 1}})
	case operation == "commit/forget":
		_, err := s.ForgetPushes(ctx)
		return err
	case operation == "commit/secrets":
		_, err := s.SecretsSince(ctx, sealing.Tenant, []secret.Secret{secret.New([]byte(at))})
		return err
	case operation == "commit/follow-up":
		return followUpNobody(ctx, s, sealing, at)
	case operation == "commit/memory":
		m := s.Memory(sealing.Tenant)
		_, version, err := m.Get(ctx, "crash")
		if err != nil {
			return err
		}
		return m.Put(ctx, "crash", []byte(at), version)
	}
	return s.Erase(ctx, tx, "test", "its time has come")
}

// followUpNobody has a deal of a tenant that is not configured come to be followed up: no rule waits less than an hour.
func followUpNobody(ctx context.Context, s *store.Store, sealing *deal.Sealing, point string) error {
	const rule = "followed"
	w := deal.Watch{Rule: rule, Object: sealing.Change.Ref.Object, Stage: "nowhere"}
	if _, err := s.Activate(ctx, "nobody", "hubspot:1", w, time.Now().Add(-time.Hour)); err != nil {
		return err
	}
	from, err := s.Cursor(ctx, "nobody", "hubspot:1")
	if err != nil {
		return err
	}
	plan := sealing.Plan
	plan.Rule, plan.FollowUp = rule, time.Nanosecond
	entry := deal.Change{Rule: rule, Ref: sealing.Change.Ref, Stage: w.Stage, Occurrence: point, At: time.Now()}
	if _, err := s.Notice(ctx, deal.Noticing{Tenant: "nobody", Account: "hubspot:1", Previous: from, Plans: map[string]deal.Plan{rule: plan},
		Watches: map[string]deal.Watch{rule: w}, Page: deal.Page{Entries: []deal.Change{entry}, Next: deal.Cursor{Since: time.Now()}}}); err != nil {
		return err
	}
	_, err = s.FollowUps(ctx)
	return err
}

// saveCheckpoint keeps a signed checkpoint outside of the state directory.
func (c *chain) saveCheckpoint(t *testing.T) {
	t.Helper()
	file := c.path("checkpoint")
	if _, stderr, code := c.world.run(t, "audit", "checkpoint", "-o", file); code != exitOK {
		t.Fatalf("audit checkpoint: exit code %d\n%s", code, stderr)
	}
	var err error
	c.checkpoint, err = os.ReadFile(file)
	must(t, err)
}

// finish waits until all deals are done, releasing those whose release was lost.
func (c *chain) finish(t *testing.T, ops operations) {
	t.Helper()
	for _, r := range c.records {
		eventually(t, "deal "+r+" is done", func() (bool, string) {
			list := sealings(t, ops, r)
			if len(list) == 0 {
				return false, "not noticed"
			}
			m := list[0]
			if c.waiting[r] && m.Condition == deal.Held {
				conclude(t, ops, "release", m.Tx)
			}
			if c.waiting[r] && m.Step != deal.Done {
				return false, "released"
			}
			return isDone(m), fmt.Sprintf("%s, %s: %s", m.Step, m.Condition, m.Reason)
		})
		awaitErrands(t, ops, r)
	}
}

// awaitErrands waits until all is done that was to be done in the CRM because of what became of a record's deal.
func awaitErrands(t *testing.T, ops operations, record string) {
	t.Helper()
	eventually(t, "what is to be done for "+record+" is done", func() (bool, string) {
		for _, e := range storyOf(t, ops, sealings(t, ops, record)[0].Tx).Errands {
			if e.Fate == "" {
				return false, fmt.Sprintf("%s, tried %d times: %s", e, e.Tries, e.Problem)
			}
		}
		return true, ""
	})
}

// everyEventArrives waits until all that became true was told, under the IDs of the outbox and no others.
func (c *chain) everyEventArrives(t *testing.T, ops operations) {
	t.Helper()
	ours := map[string]bool{}
	for _, r := range c.records {
		story := storyOf(t, ops, sealings(t, ops, r)[0].Tx)
		for _, e := range story.Outbox {
			ours[e.ID] = true
		}
		if len(story.Outbox) < 5 {
			t.Errorf("%s: %d events", r, len(story.Outbox))
		}
	}
	eventually(t, "every event has arrived", func() (bool, string) {
		missing := maps.Clone(ours)
		for _, d := range c.told.seen() {
			delete(missing, d.ID)
		}
		return len(missing) == 0, fmt.Sprintf("%d of %d are missing", len(missing), len(ours))
	})
	sent := map[string]string{}
	for _, d := range c.told.seen() {
		if body, again := sent[d.ID]; again && body != string(d.body) {
			t.Errorf("event %s was told in two ways:\n%s\n%s", d.ID, body, d.body)
		}
		sent[d.ID] = string(d.body)
	}
	t.Logf("%d events in %d attempts", len(sent), len(c.told.seen()))
}

// compare holds every deal against one that nothing befell.
func (c *chain) compare(t *testing.T) {
	t.Helper()
	s := c.openState(t)
	defer s.Close()
	for _, r := range c.records {
		want := c.calm.outcomes[c.rules[r]]
		if c.waiting[r] {
			want.Errands = append(slices.Clone(want.Errands), noteOf(deal.StatusHeld))
		}
		if diff := cmp.Diff(want, c.outcomeOf(t, s, c.crms[0], r)); diff != "" {
			t.Errorf("%s: without a crash (-), with crashes (+):\n%s", r, diff)
		}
	}
}

// noteOf is how an errand is told by which a timeline says once what became of a deal.
func noteOf(status deal.Status) string {
	return fmt.Sprintf("%s, %s", deal.Errand{Kind: deal.ErrandNote, Status: status}, deal.ErrandDone)
}

// recoverWithCrashes loses the database and rebuilds it from the archive, with a crash on the way.
func (c *chain) recoverWithCrashes(t *testing.T) {
	t.Helper()
	before, told := c.everyFile(), c.everyTimeline(t)
	files, err := filepath.Glob(filepath.Join(c.stateDir, "dealseal.db*"))
	must(t, err)
	for _, f := range files {
		must(t, os.Remove(f))
	}
	for _, point := range []string{"commit/recover:before", "commit/recover:after"} {
		cmd := c.command(context.Background(), c.config, "recover")
		cmd.Env = append(os.Environ(), "DEALSEAL_CRASH_AT="+point)
		out, _ := cmd.CombinedOutput() // mustBeKilled tells how it ended
		mustBeKilled(t, point, cmd, func() string { return string(out) })
	}
	if _, stderr, code := c.world.run(t, "recover"); code != exitOK {
		t.Fatalf("recover: exit code %d\n%s", code, stderr)
	}
	d := c.start(t)
	ops := c.control(t, c.stateDir)
	c.finish(t, ops)
	for _, r := range c.records {
		story := storyOf(t, ops, sealings(t, ops, r)[0].Tx)
		if n := intents(story, "sign") + intents(story, "second-sign"); n > 0 {
			t.Errorf("%s was sealed again after its ledger was lost", r)
		}
	}
	auditIsWhole(t, ops, nil)
	d.stop(t)
	if diff := cmp.Diff(before, c.everyFile()); diff != "" {
		t.Errorf("files on the records before (-) and after (+) the ledger was lost:\n%s", diff)
	}
	if diff := cmp.Diff(told, c.everyTimeline(t)); diff != "" {
		t.Errorf("timelines before (-) and after (+) the ledger was lost:\n%s", diff)
	}
}

// everyTimeline is what the timelines of all records tell.
func (c *chain) everyTimeline(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range c.records {
		out[r] = timelineOf(t, c.crms[0], r)
	}
	return out
}

// everyFile lists the names of all files on all records.
func (c *chain) everyFile() map[string][]string {
	out := map[string][]string{}
	for _, r := range c.records {
		for _, f := range c.crms[0].files(r) {
			out[r] = append(out[r], f.name)
		}
		slices.Sort(out[r])
	}
	return out
}
