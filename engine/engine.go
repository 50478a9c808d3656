// Package engine is the flow: it polls the CRMs for stage entries and takes each one the whole way to a sealed contract
// on the record, exactly once, whatever crashes in between.
//
// The ledger is the authority and the queue only a scheduler. Around every effect stand two commits: Begin (intent and
// lease) and Advance (result, audit entry, events and counters), of which one may be the end of an effect and the beginning of
// the next. A step that is run again looks before it acts.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/signing"
)

// Tenant is one CRM account with its rules.
type Tenant struct {
	ID   deal.TenantID
	Name string
	CRM  connectors.CRM
	// Production is what the configuration says; the CRM must agree before the first poll.
	Production bool
	// Poll is the time between two polls of an idle account.
	Poll  time.Duration
	Rules []Rule
	// Guard says how many entries of them are let through unasked.
	Guard deal.Guard
}

// Rule is one watched stage and the plan for what enters it.
type Rule struct {
	Watch deal.Watch
	// StartFrom is the activation time, or zero for "now" on the CRM's clock.
	StartFrom time.Time
	Plan      deal.Plan
	// Filter is the condition that a record must meet when its entry is noticed; nil for none. Plan.Filter is its text.
	Filter *deal.Filter
	// Signatory is where records name whom those who ask for a contract may name; nil: they may name nobody.
	Signatory *deal.Signatory
	// Types says what the document makes of the plan's fields, by path, for comparison with the account.
	Types map[string]deal.ValueType
}

// Retry is how often and how far apart a failing step is tried: First, doubled each time up to Max, with 20 % jitter.
type Retry struct {
	First, Max time.Duration
	Attempts   int
}

// Engine runs the flow. Fill the fields, then call Run once; Handle and SetTenants are safe for concurrent use.
type Engine struct {
	// Tenants are those that it begins with; see SetTenants.
	Tenants   []Tenant
	Ledger    Ledger
	Books     Books // for Reconcile
	Files     Files
	Queue     Queue
	Documents documents.Renderer
	Bundles   Bundles
	Sealer    Sealer
	Extender  Extender // for profiles of B-LT and B-LTA
	Checker   Checker
	Log       *slog.Logger
	Now       func() time.Time
	Retry     Retry
	// Hook is called with each of Points as it is passed; nil outside of the crash suite.
	Hook func(point string)
	// Seen is told of every finished outside call, for metrics; nil is fine. It must not block.
	Seen func(call string, took time.Duration, err error)
	// Stepped is told of every step that was tried: its name, one of StepResults and the time that it took. It must not
	// block; nil is fine.
	Stepped func(step, result string, took time.Duration)
	// Envelopes is what vendors have told, Vendor one of those of a tenant, for rules that are delegated; nil without any.
	Envelopes Envelopes
	Vendor    func(tenant deal.TenantID, name string) (v Vendor, ok bool)
	// Inbox keeps what CRMs tell over connections of ours, before it wakes anything; nil when nothing of it is kept.
	Inbox Inbox
	// Callbacks are the workflows that wait for a deal; nil when none can.
	Callbacks Callbacks
	// Lost is told that a CRM may have told of changes that were not heard; nil is fine. It must not block.
	Lost func(deal.TenantID)
	// Asked is told of every HTTP call to a tenant's CRM, if the connector tells. It must not block; nil is fine.
	Asked func(tenant deal.TenantID, c connectors.Call)
	// MayNotice is asked before each poll, MayWork before each step of a deal. An error says in words for people why that
	// has to wait, such as a disk without room; both are asked again until there is none. nil means always.
	MayNotice, MayWork func() error
	Places             Places
	// Limits tells of a key, by the name that profiles use and the SHA-256 of the public key that signs, how the configuration
	// calls the one with that key pair, and its limits. nil knows none.
	Limits func(name, spki string) (of string, limits deal.KeyLimits)
	// Random returns a number below n, which spreads waits; nil means the process's own generator. It must be safe for
	// concurrent use.
	Random func(n int64) int64

	once    sync.Once
	tenants tenants
	records keyed // serialises what is told about one record
	// Turns at what there is little of.
	rendering, signing, checking *turns
	floor                        *floor
	doubts                       doubts
	reconciling                  passes
	mended                       mended
	calls                        calls
	hearing                      hearing
	started                      time.Time
	// stopping is closed when the context of Run has ended: a deal goes no further than the step that it is in.
	stopping chan struct{}
}

// Run polls every tenant and works the queue until ctx ends; deals under way then finish the step that they are in. A
// tenant whose CRM cannot be reached does not stop the others.
func (e *Engine) Run(ctx context.Context) error {
	e.init()
	defer context.AfterFunc(ctx, func() { close(e.stopping) })()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.Queue.Run(ctx, e.Handle) })
	g.Go(func() error { return e.pollAll(ctx) })
	g.Go(func() error { return e.followUp(ctx) })
	return g.Wait()
}

func (e *Engine) init() {
	e.once.Do(func() {
		e.observe(e.Tenants)
		e.tenants.set(e.Tenants)
		e.rendering, e.signing, e.checking = newTurns(e.Places.Render), newTurns(e.Places.Key), newTurns(e.Places.Check)
		e.floor = newFloor(cmp.Or(e.Places.Processors, runtime.GOMAXPROCS(0)))
		if e.Now == nil {
			e.Now = time.Now
		}
		e.started, e.stopping = e.Now(), make(chan struct{})
		if e.Retry == (Retry{}) {
			e.Retry = Retry{First: 2 * time.Second, Max: 30 * time.Minute, Attempts: 12}
		}
	})
}

// Handle runs one job until it is finished or must wait.
func (e *Engine) Handle(ctx context.Context, job deal.Job) deal.Outcome {
	e.init()
	ctx = logged(ctx, slog.String("tx", string(job.Tx)))
	s, err := e.Ledger.Load(ctx, job.Tx)
	if err != nil {
		e.Log.ErrorContext(ctx, "a sealing cannot be loaded", "err", err)
		return deal.Outcome{Again: 5 * time.Second}
	}
	ctx = logged(ctx, slog.String("tenant", string(s.Tenant)))
	switch job.Kind {
	case deal.JobTell:
		return e.tellJob(ctx, s)
	case deal.JobErrand:
		return e.errandJob(ctx, s)
	}
	r := &run{Engine: e, s: s, made: map[string]bool{}}
	return r.steps(ctx)
}

// farFuture is further away than any wait that this engine or a CRM asks for: only a clock that was set back puts an
// attempt there, and such an attempt is due.
const farFuture = 26 * time.Hour

// roomPause is when a deal is looked at again that has to wait for room on the disk.
const roomPause = 10 * time.Second

// run is one worker taking one sealing as far as it goes.
type run struct {
	*Engine
	s    *deal.Sealing
	step *step
	// began is when the step did; only differences are used.
	began time.Time
	// outdated is closed when other tenants are configured than when the step began.
	outdated <-chan struct{}
	// made are the staged files that this worker has made itself, and given to nobody before the step at which it is now.
	made map[string]bool
	// begun was committed ahead; nil if nothing was.
	begun *begun
}

func (r *run) steps(ctx context.Context) deal.Outcome {
	s := r.s
	if s.Condition.Waiting() {
		return deal.Outcome{}
	}
	if wait := s.Next.Sub(r.Now()); s.Condition == deal.Retrying && wait > 0 && wait < farFuture {
		return deal.Outcome{Again: wait}
	}
	rendered := r.rendering.expect(s.Tenant)
	defer rendered()
	defer r.floor.come(s.Tenant)()
	for !s.Condition.Waiting() {
		if !willRender(s) {
			rendered()
		}
		if r.isStopping() || !r.awaitRoom(ctx) {
			return deal.Outcome{Again: time.Second} // the next start goes on here
		}
		if r.paused(ctx) {
			return deal.Outcome{Again: time.Second} // the queue hands it out again once its tenant goes on
		}
		r.step = stepOf(s)
		if r.step == nil {
			return deal.Outcome{}
		}
		if s.Facts.Waited != nil {
			r.step = &reconsideration
		}
		if s.Facts.Times == nil {
			s.Facts.Times = map[deal.Step]time.Time{}
		}
		if out, over := r.takeAtWork(ctx); over {
			return out
		}
	}
	return deal.Outcome{}
}

func (e *Engine) isStopping() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}

// awaitRoom waits until there is room on the disk for another step, and returns false if the work is to stop first. The job
// waits here and not in the queue, which would have to write down when it is looked at again, at each look and for each
// deal: there may be no room for that. So many deals of a tenant wait like this as it has jobs at once.
func (r *run) awaitRoom(ctx context.Context) bool {
	if r.MayWork == nil {
		return true
	}
	for r.MayWork() != nil {
		select {
		case <-time.After(roomPause):
		case <-r.stopping:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// paused reports whether the deal's tenant is to wait, or nobody knows.
func (r *run) paused(ctx context.Context) bool {
	paused, err := r.Ledger.IsPaused(ctx, r.s.Tenant)
	if err != nil && ctx.Err() == nil {
		r.Log.ErrorContext(ctx, "whether the tenant is paused cannot be read", "err", err)
	}
	return paused || err != nil
}

// takeAtWork goes one step once the floor has room for it.
func (r *run) takeAtWork(ctx context.Context) (out deal.Outcome, over bool) {
	r.floor.work(ctx, r.s.Tenant)
	defer r.floor.rest(r.s.Tenant)
	return r.take(ctx)
}

// take goes one step; over means that the deal goes no further now.
func (r *run) take(ctx context.Context) (out deal.Outcome, over bool) {
	ctx = logged(ctx, slog.String("step", r.step.name))
	r.began = time.Now()
	_, r.outdated = r.tenants.now()
	err := r.step.do(r, ctx)
	if err == nil && r.step.asks {
		r.Mended(ctx, r.s.Tenant, deal.WaitsForLogin)
	}
	var await *awaitError
	switch {
	case errors.As(err, &await):
		out, over = r.sleep(ctx, await), true
	case err != nil:
		out, over = r.failed(ctx, err), true
	}
	if r.Stepped != nil {
		r.Stepped(r.step.name, r.result(ctx, err), time.Since(r.began))
	}
	return out, over
}

// StepResults are what Engine.Stepped is told of a step.
var StepResults = []string{"ok", "retrying", "held", "dead", "ended", "interrupted"}

// result is one of StepResults.
func (r *run) result(ctx context.Context, err error) string {
	switch {
	case err == nil && r.s.Condition == deal.Running:
		return "ok"
	case errors.Is(err, deal.ErrStale) || err != nil && ctx.Err() != nil:
		return "interrupted"
	}
	return string(r.s.Condition)
}

// failed decides what an error means for the sealing and commits that.
func (r *run) failed(ctx context.Context, err error) deal.Outcome {
	s := r.s
	if errors.Is(err, deal.ErrGone) {
		err = deal.Hold("%s: if a permission was taken away, give it back and release the deal; if the record was deleted, drop it%s", r.sentence(err), whatRemains(s))
	}
	if signing.IsRevoked(err) {
		err = held(HoldRevoked, "%s", r.sentence(err))
	}
	var hold *deal.HoldError
	var lost *commitError
	if errors.As(err, &lost) && ctx.Err() == nil && !errors.Is(err, deal.ErrStale) {
		r.Log.ErrorContext(ctx, "the ledger did not take it", "err", err)
		if out, over := r.reload(ctx); over {
			return out
		}
		s = r.s
	}
	s.Facts.WaitsFor = ""
	switch {
	case ctx.Err() != nil:
		r.Log.WarnContext(ctx, "cut short by the stop: the next start looks at what became of it")
		return deal.Outcome{Again: time.Second}
	case errors.Is(err, deal.ErrStale):
		return deal.Outcome{Again: 2 * time.Second} // someone else has it
	case errors.As(err, &hold):
		s.Condition, s.Reason = deal.Held, hold.Reason
		r.startOver()
		r.Log.WarnContext(ctx, "held", "reason", hold.Reason)
	case deal.IsPermanent(err) && !mendedForAll(err):
		s.Condition, s.Reason = deal.Dead, r.sentence(err)
		r.Log.ErrorContext(ctx, "given up", "err", err)
	case mendedForAll(err):
		// Until then no attempt of the deals is used up.
		s.Condition, s.Reason, s.Facts.WaitsFor = deal.Retrying, r.sentence(err), r.causeOf(err)
		s.Next = r.Now().Add(r.Retry.after(r.Retry.Attempts, deal.RetryAfter(err), r.random))
		r.Log.WarnContext(ctx, "waits until the login or the key is mended", "err", err)
	case s.Attempts+1 >= r.Retry.Attempts:
		s.Condition, s.Reason = deal.Dead, fmt.Sprintf("%s (after %d attempts)", r.sentence(err), s.Attempts+1)
		s.Attempts++
		r.Log.ErrorContext(ctx, "given up", "attempts", s.Attempts, "err", err)
	default:
		s.Attempts++
		s.Condition, s.Reason = deal.Retrying, r.sentence(err)
		wait := r.Retry.after(s.Attempts, deal.RetryAfter(err), r.random)
		s.Next = r.Now().Add(wait)
		r.Log.WarnContext(ctx, "will try again", "attempt", s.Attempts, "in", wait.Round(time.Millisecond), "err", err)
	}
	out := r.settle(ctx)
	if s.Facts.WaitsFor != "" {
		r.mended.spoil(s.Tenant, s.Facts.WaitsFor)
	}
	if r.aboutOldConfiguration(err) {
		return r.goOn(ctx)
	}
	return out
}

// aboutOldConfiguration reports whether a step has ended for a configuration that is not in force any more. It is asked
// after the end was committed: whoever reloads sets the tenants first and then lets go on what the ledger has waiting, so
// that one of the two sees the other.
func (r *run) aboutOldConfiguration(err error) bool {
	var hold *deal.HoldError
	name := ""
	if errors.As(err, &hold) {
		name = HoldName(hold.Reason, r.Ledger.Epoch())
	}
	if name != HoldUnconfigured && name != HoldAccount && !connectors.IsLogin(err) {
		return false
	}
	select {
	case <-r.outdated:
		return r.s.Condition == deal.Held || r.s.Condition == deal.Retrying
	default:
		return false
	}
}

// resumed tells others that a deal waits no more.
var resumed = []deal.Event{{Type: "document.resumed"}}

// goOn has the step tried again with the configuration that is in force now.
func (r *run) goOn(ctx context.Context) deal.Outcome {
	s := r.s
	s.Condition, s.Reason, s.Next, s.Facts.WaitsFor = deal.Running, "", time.Time{}, ""
	err := r.Ledger.Advance(ctx, s, deal.Entry{Who: "daemon", What: "released", Why: "the configuration of the tenant was read anew meanwhile", Events: resumed})
	if err != nil && !errors.Is(err, deal.ErrStale) { // another has let it go on
		r.Log.ErrorContext(ctx, "a deal that waits for an old configuration may not go on by itself: look at \"dealseal jobs\"", "err", err)
	}
	return deal.Outcome{Again: time.Second}
}

// whatRemains says what a person who drops a deal whose record is gone should know.
func whatRemains(s *deal.Sealing) string {
	if s.Facts.Archive == "" {
		return ""
	}
	return " (its contract is in the archive, and stays there)"
}

// mendedForAll reports whether a person mends the cause once, for all deals: a login, or the key.
func mendedForAll(err error) bool { return connectors.IsLogin(err) || signing.IsUnusable(err) }

// startOver puts a held sealing back to the beginning as long as no digest is committed: whoever mends the record and
// releases the deal wants what is on the record then.
func (r *run) startOver() {
	s := r.s
	if s.Facts.Digest != "" || s.Facts.Contract != nil || !s.Step.Before(deal.Sealed) {
		return
	}
	s.Step = deal.Noticed
	s.Private.Ticket, s.Facts.Unsigned = nil, nil
}

// reload puts what the ledger holds in the place of what it did not take, so that only the failure is committed: this
// frees the lease, counts the attempt, and shows a refusal that no retry can mend. over means that there is nothing to
// commit it to.
func (r *run) reload(ctx context.Context) (out deal.Outcome, over bool) {
	s, err := r.Ledger.Load(ctx, r.s.Tx)
	if err != nil {
		r.Log.ErrorContext(ctx, "the sealing cannot be loaded again", "err", err)
		return deal.Outcome{Again: 5 * time.Second}, true
	}
	r.s = s
	return deal.Outcome{}, s.Condition.Waiting() || s.Step == deal.Done
}

// settle commits a condition other than running. If even that fails the job comes back and finds the sealing as it was.
func (r *run) settle(ctx context.Context) deal.Outcome {
	s := r.s
	if s.Condition.Waiting() {
		s.Facts.Waits++
	}
	if err := r.Ledger.Advance(ctx, s, deal.Entry{Who: "daemon", What: string(s.Condition), Why: s.Reason, Events: waitingEvents(s)}); err != nil {
		r.Log.ErrorContext(ctx, "what happened could not be written down", "err", err)
		return deal.Outcome{Again: 5 * time.Second}
	}
	if s.Condition == deal.Retrying {
		return deal.Outcome{Again: max(s.Next.Sub(r.Now()), time.Millisecond)}
	}
	return deal.Outcome{}
}

// waitingEvents tell others that a deal waits for a person. Reasons carry no record values.
func waitingEvents(s *deal.Sealing) []deal.Event {
	kind, waits := map[deal.Condition]string{deal.Held: "document.held", deal.Dead: "document.failed"}[s.Condition]
	if !waits {
		return nil
	}
	return []deal.Event{{Type: kind, Data: map[string]string{"reason": s.Reason}}}
}

// sentence says which step failed and why; connector and signer errors carry no record values.
func (r *run) sentence(err error) string { return r.step.name + ": " + err.Error() }

// after returns the wait before the next attempt: exponential with jitter, and never less than what was asked for.
func (t Retry) after(attempts int, asked time.Duration, random func(int64) int64) time.Duration {
	wait := min(t.First, t.Max)
	for i := 1; i < attempts && wait < t.Max; i++ {
		wait = min(2*wait, t.Max)
	}
	wait += time.Duration(random(int64(wait)/5 + 1))
	return max(wait, asked)
}

// ask makes a call to others, who do the work.
func (r *run) ask(ctx context.Context, name string, limit time.Duration, f func(context.Context) error) error {
	defer r.floor.away(r.s.Tenant)()
	return r.call(ctx, name, limit, f)
}

// call makes an outside call under a deadline.
func (r *run) call(ctx context.Context, name string, limit time.Duration, f func(context.Context) error) error {
	p := r.step.name + ".call." + name
	r.hook(p + "/before")
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	took := time.Since(start)
	if r.Seen != nil {
		r.Seen(r.step.name+"."+name, took, err)
	}
	r.Log.DebugContext(ctx, "called", "call", name, "took", took.Round(time.Microsecond), "err", err)
	r.hook(p + "/after")
	return err
}

// advance commits progress inside a step, or, with a next step, its end, and what begins then. What comes after it has the
// whole schedule of attempts to itself.
func (r *run) advance(ctx context.Context, name string, next deal.Step, e deal.Entry) error {
	s := r.s
	p := r.step.name + ".advance." + name
	r.hook(p + "/before")
	if next != "" {
		s.Step = next
		s.Facts.Times[next] = r.Now().UTC()
	}
	s.Condition, s.Reason, s.Attempts, s.Next, s.Facts.WaitsFor = deal.Running, "", 0, time.Time{}, ""
	if e.Who == "" {
		e.Who = "daemon"
	}
	if e.Then == nil {
		e.Then = r.following(next)
	}
	if err := r.advanceAndBegin(ctx, e); err != nil {
		return err
	}
	if next != "" && next != deal.Done { // which has a line of its own
		r.Log.InfoContext(ctx, string(next), "took", time.Since(r.began).Round(time.Microsecond))
	}
	r.hook(p + "/after")
	return nil
}

func (r *run) advanceAndBegin(ctx context.Context, e deal.Entry) error {
	if r.begun = nil; e.Then != nil {
		e.Then.Step = r.s.Step
		e.Then.Lease = cmp.Or(e.Then.Lease, usualLease)
	}
	if err := r.Ledger.Advance(ctx, r.s, e); err != nil {
		return &commitError{err}
	}
	if e.Then != nil {
		r.begun = &begun{*e.Then, r.Now()}
	}
	return nil
}

// commitError says that the ledger did not take a Begin or Advance, so memory and ledger differ.
type commitError struct{ error }

func (e *commitError) Unwrap() error { return e.error }

func (e *Engine) random(n int64) int64 {
	if e.Random != nil {
		return e.Random(n)
	}
	return rand.Int64N(n)
}

func (e *Engine) hook(point string) {
	if e.Hook != nil {
		e.Hook(point)
	}
}

// CheckEnvironment refuses a tenant whose account is a sandbox where production is configured, or the other way about. The
// error is permanent, and is about the login.
func CheckEnvironment(tenant deal.TenantID, production bool, account deal.Account) error {
	if account.Sandbox != production {
		return nil
	}
	return &accountError{fmt.Errorf("tenant %q is configured as environment: %s, but the CRM says that it is a %s: %s",
		tenant, environment(production), map[bool]string{true: "sandbox", false: "production account"}[account.Sandbox], environmentCure)}
}

const environmentCure = "correct tenant.environment or crm.with"

func environment(production bool) string {
	if production {
		return "production"
	}
	return "sandbox"
}

// accountError says that a tenant is connected to the wrong account: permanent, and yet nothing about one deal.
type accountError struct{ error }

func (e *accountError) Permanent() bool { return true }
func (e *accountError) Login() bool     { return true }
func (e *accountError) Cure() string    { return environmentCure }
func (e *accountError) Unwrap() error   { return e.error }

// keyed is a set of locks by name. The zero value is ready.
type keyed struct {
	mu    sync.Mutex
	locks map[string]*keyedLock
}

type keyedLock struct {
	held  chan struct{} // holds a value while someone has the lock
	users int           // those who have it or wait for it
}

// lock waits for the lock of a name until ctx ends. Whoever holds one may be waiting for a CRM.
func (k *keyed) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyedLock{}
	}
	l := k.locks[name]
	if l == nil {
		l = &keyedLock{held: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; k.leave(name, l) }, nil
	case <-ctx.Done():
		k.leave(name, l)
		return nil, ctx.Err()
	}
}

func (k *keyed) leave(name string, l *keyedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}
