package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// poller reads one tenant's stage entries into the ledger for as long as the daemon runs.
type poller struct {
	*Engine
	tenant  *Tenant
	account deal.Account
	rules   []Rule // with the IDs of their stages
	watches []deal.Watch
	state   deal.PollState
	fails   int
	odd     map[string]bool               // quarantined rows that were logged
	held    map[deal.GuardScope]time.Time // what the guard was said to hold, and since when
	bell    *bell                         // rung by pushes
	changed *changedRecords               // that may differ from their contracts
	refused []deal.RefusedObject          // whose histories this reading of the window could not read so far
	without *withoutObjectsError          // what the reading before had to do without
	more    bool                          // the reading has not come to its end
	asked   time.Time                     // when the CRM was last asked for entries
	asks    chan editsQuestions           // what is to be asked about edits
	editsAt time.Time                     // when that was said last
}

func (e *Engine) newPoller(t *Tenant) *poller {
	return &poller{Engine: e, tenant: t, bell: e.tenants.bell(t), changed: newChangedRecords(), asks: make(chan editsQuestions, 1), state: deal.PollState{Tenant: t.ID}}
}

// Shares of the CRM's allowance at which polling slows down, and at which no new work is taken on.
const (
	SlowAt = 0.80
	StopAt = 0.95
)

func (p *poller) run(ctx context.Context) {
	ctx = logged(ctx, slog.String("tenant", string(p.tenant.ID)))
	for ctx.Err() == nil {
		more, err := p.once(ctx)
		p.note(ctx, err)
		if more && err == nil {
			continue
		}
		if err == nil || p.without != nil {
			p.lookForEdits()
		}
		p.rest(ctx, p.wait(err))
	}
}

// once takes in one page. Whoever the CRM says it is must be settled first.
func (p *poller) once(ctx context.Context) (more bool, err error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	if p.watches == nil {
		if err := p.connect(ctx); err != nil {
			return false, err
		}
	}
	if err := p.mayNotice(); err != nil {
		return false, err
	}
	if share := p.budget().Share(); share >= StopAt {
		// Only Identity is asked until the allowance recovers; running deals are finished.
		if _, err := p.tenant.CRM.Identity(ctx); err != nil {
			return false, err
		}
		return false, spent(share)
	}
	cursor, err := p.Ledger.Cursor(ctx, p.tenant.ID, p.account.AccountID())
	if err != nil {
		return false, err
	}
	if _, direct := p.tenant.CRM.(connectors.Direct); !direct {
		p.bell.silence()
	}
	p.asked = p.Now()
	page, err := p.tenant.CRM.Changes(ctx, cursor, p.watches)
	if err != nil {
		return false, err
	}
	ended := !page.More && len(page.Refused)+len(p.refused) == 0
	fresh, err := p.take(whole, page, cursor, ended)
	if errors.Is(err, deal.ErrStale) {
		return true, nil // a rule was activated meanwhile and moved the cursor
	}
	if err != nil {
		return false, err
	}
	if lost := p.changed.add(page.Changed); lost > 0 {
		p.Log.WarnContext(ctx, "more records were changed than can be compared with their contracts at once: the nightly pass compares them", "records", lost)
	}
	p.Log.DebugContext(ctx, "polled", "entries", len(page.Entries), "fresh", fresh, "more", page.More)
	p.state.Entries = fresh
	p.state.Lag = 0
	for _, o := range page.Refused {
		p.refused = append(slices.DeleteFunc(p.refused, func(was deal.RefusedObject) bool { return was.Object == o.Object }), o)
	}
	if page.More || len(page.Unread) > 0 {
		p.state.Lag = p.Now().Sub(page.Next.Since)
	}
	if p.more = page.More; page.More {
		return true, nil
	}
	refused := p.refused
	p.refused = nil
	if len(refused) > 0 {
		return false, &withoutObjectsError{refused}
	}
	return len(page.Unread) > 0, nil
}

// withoutObjectsError is a poll that has succeeded but for some objects, whose histories the CRM does not let us read.
type withoutObjectsError struct{ objects []deal.RefusedObject }

func (e *withoutObjectsError) Error() string {
	var text []string
	for _, o := range e.objects {
		text = append(text, fmt.Sprintf("nothing is found of %s, while other objects are polled: %v", o.Object, o.Why))
	}
	return strings.Join(text, "; ")
}

func (e *withoutObjectsError) Permanent() bool { return true }

// guarded says once of all that the guard holds together that a person has to decide. After a start it is said again.
func (p *poller) guarded(ctx context.Context) {
	holds, err := p.Ledger.Guards(ctx)
	if err != nil {
		p.Log.ErrorContext(ctx, "what the guard holds could not be read", "err", err)
		return
	}
	was := p.held
	p.held = map[deal.GuardScope]time.Time{}
	for _, h := range holds {
		if h.Tenant != p.tenant.ID {
			continue
		}
		p.held[h.GuardScope] = h.Since
		if !was[h.GuardScope].Equal(h.Since) {
			p.Log.ErrorContext(ctx, "the guard holds deals until a person decides: dealseal jobs release --guard "+h.String(), "rule", h.Rule, "cause", h.Cause, "held", h.Held)
		}
	}
}

func (p *poller) mayNotice() error {
	if p.MayNotice == nil {
		return nil
	}
	if err := p.MayNotice(); err != nil {
		return &pausedError{err.Error(), 0}
	}
	return nil
}

// take commits a page that was read with the cursor, and returns how many of its entries are new. ended says that with it all was
// read that there is to see.
func (p *poller) take(ctx context.Context, page deal.Page, cursor deal.Cursor, ended bool) (fresh int, err error) {
	id := p.account.AccountID()
	n := deal.Noticing{Tenant: p.tenant.ID, Account: id, Page: page, Previous: cursor, Plans: map[string]deal.Plan{}, Watches: map[string]deal.Watch{}, Guard: p.tenant.Guard, Ended: ended}
	for i, r := range p.rules {
		n.Plans[r.Watch.Rule], n.Watches[r.Watch.Rule] = r.Plan, p.watches[i]
	}
	if len(page.Sightings) > 0 {
		inferred, err := p.Ledger.Infer(ctx, n)
		if err != nil {
			return 0, err
		}
		n.Page.Entries = append(slices.Clone(page.Entries), inferred...)
	}
	if err := p.filter(ctx, p.tenant.CRM, p.rules, &n, p.fails < filterPatience); err != nil {
		return 0, err
	}
	noticed, err := p.Ledger.Notice(ctx, n)
	if err != nil {
		return 0, err
	}
	p.quarantined(ctx, page.Quarantined)
	if p.held == nil || len(noticed) > 0 {
		p.guarded(ctx)
	}
	for _, tx := range noticed {
		p.Log.InfoContext(ctx, "noticed", "tx", tx)
	}
	return len(noticed), nil
}

// quarantined says once per row that something of the CRM could not be understood: it may be a deal.
func (p *poller) quarantined(ctx context.Context, rows []deal.Quarantine) {
	for _, q := range rows {
		if p.odd[q.Row] {
			continue
		}
		if p.odd == nil || len(p.odd) > 10_000 {
			p.odd = map[string]bool{}
		}
		p.odd[q.Row] = true
		p.Log.ErrorContext(ctx, "a row of the CRM could not be understood: a deal may be waiting behind it", "record", q.Ref, "row", q.Row, "reason", q.Reason)
	}
}

// connect settles who the CRM is, activates the rules, and refuses to guess when the configuration does not fit.
func (p *poller) connect(ctx context.Context) error {
	account, err := p.Engine.identify(ctx, p.tenant)
	if err != nil {
		return err
	}
	rules, err := ResolveStages(ctx, p.tenant.CRM, p.tenant.Rules)
	if err != nil {
		return err
	}
	p.renamed(ctx, rules)
	var watches []deal.Watch
	for _, r := range rules {
		at := r.StartFrom
		if at.IsZero() {
			at = account.Clock
		}
		since, err := p.Ledger.Activate(ctx, p.tenant.ID, account.AccountID(), r.Watch, at)
		if err != nil {
			return err
		}
		w := r.Watch
		w.Since = since
		watches = append(watches, w)
	}
	// Activated first: what enters a stage while the configuration is being mended is not lost.
	if err := p.probe(ctx, rules); err != nil {
		return err
	}
	p.account, p.rules, p.watches = account, rules, watches
	p.editsAt = p.Now()
	p.state.Account, p.state.Kind, p.state.Name = account.AccountID(), account.Kind, account.Name
	p.Log.InfoContext(ctx, "connected", "account", account.AccountID(), "rules", len(watches))
	return nil
}

// ResolveStages returns the rules with the ID of each stage that is named by a label which only one stage bears. Whatever
// becomes of the label, deals that were noticed go by the ID.
func ResolveStages(ctx context.Context, crm connectors.CRM, rules []Rule) ([]Rule, error) {
	resolver, ok := crm.(connectors.Resolver)
	if !ok {
		return rules, nil
	}
	resolved := slices.Clone(rules)
	for i := range resolved {
		w, err := resolver.Resolve(ctx, resolved[i].Watch)
		if err != nil {
			return nil, err
		}
		resolved[i].Watch, resolved[i].Plan.Stage = w, w.Stage
		if resolved[i].Plan.Moves, err = resolveMoves(ctx, resolver, w, rules[i].Plan.Moves); err != nil {
			return nil, err
		}
	}
	return resolved, nil
}

// resolveMoves puts IDs in the place of the labels of stages that records of a watch are moved to.
func resolveMoves(ctx context.Context, resolver connectors.Resolver, w deal.Watch, moves map[deal.Status]string) (map[deal.Status]string, error) {
	if len(moves) == 0 {
		return moves, nil
	}
	resolved := map[deal.Status]string{}
	for status, stage := range moves {
		to := w
		to.Stage = stage
		found, err := resolver.Resolve(ctx, to)
		if err != nil {
			return nil, err
		}
		resolved[status] = found.Stage
	}
	return resolved, nil
}

// MovesIntoRules returns what is wrong with moves that lead into a stage of a rule: that would make a new deal of what we have
// done ourselves. Stages must be resolved.
func MovesIntoRules(rules []Rule) (problems []connectors.Problem) {
	for _, m := range ProbeOf(rules).Moves {
		for _, r := range rules {
			if r.Watch.Object == m.Object && r.Watch.Stage == m.To {
				problems = append(problems, m.Misfit(fmt.Sprintf("the stage %q is that of rule %q: each record that is moved there would be a new deal", m.To, r.Watch.Rule), "name a stage that no rule watches"))
			}
		}
	}
	return problems
}

// renamed says which stages were found by their label.
func (p *poller) renamed(ctx context.Context, rules []Rule) {
	for i, r := range rules {
		if label := p.tenant.Rules[i].Watch.Stage; label != r.Watch.Stage {
			p.Log.WarnContext(ctx, "a stage was found by its label: name it by its ID, because another stage may get the label", "rule", r.Watch.Rule, "label", label, "id", r.Watch.Stage)
		}
		for status, label := range p.tenant.Rules[i].Plan.Moves {
			if id := r.Plan.Moves[status]; id != label {
				p.Log.WarnContext(ctx, "a stage was found by its label: name it by its ID, because another stage may get the label", "rule", r.Watch.Rule, "move", status, "label", label, "id", id)
			}
		}
	}
}

// probe refuses to poll for a stage that does not exist or to write into a field that cannot take it.
func (p *poller) probe(ctx context.Context, rules []Rule) error {
	prober, ok := p.tenant.CRM.(connectors.Prober)
	if !ok {
		return nil
	}
	problems, err := Fit(ctx, prober, rules)
	if err != nil {
		return err
	}
	problems = append(problems, MovesIntoRules(rules)...)
	var text []string
	for _, q := range problems {
		line := strings.TrimPrefix(q.Rule+": ", ": ") + q.What + ": " + q.Cure
		if q.Warning {
			p.Log.WarnContext(ctx, "the configuration may not fit the CRM", "problem", line)
			continue
		}
		text = append(text, line)
	}
	if text == nil {
		return nil
	}
	return &permanentError{fmt.Errorf("the configuration does not fit the CRM:\n%s", strings.Join(text, "\n"))}
}

// Fit asks what of the rules does not fit their account, object by object. What several objects have in common is told once.
func Fit(ctx context.Context, prober connectors.Prober, rules []Rule) (problems []connectors.Problem, err error) {
	var objects []string
	of := map[string][]Rule{}
	for _, r := range rules {
		if of[r.Watch.Object] == nil {
			objects = append(objects, r.Watch.Object)
		}
		of[r.Watch.Object] = append(of[r.Watch.Object], r)
	}
	for _, object := range objects {
		ask := ProbeOf(of[object])
		ask.Object = object
		found, err := prober.Probe(ctx, ask)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if !slices.Contains(problems, p) {
				problems = append(problems, p)
			}
		}
	}
	return problems, nil
}

// ProbeOf is what rules ask of their account.
func ProbeOf(rules []Rule) connectors.Probe {
	ask := connectors.Probe{Types: map[string]deal.ValueType{}}
	for _, r := range rules {
		for path, as := range r.Types {
			if as != deal.TextValue {
				ask.Types[path] = as
			}
		}
		ask.Watches = append(ask.Watches, r.Watch)
		ask.Read = append(append(ask.Read, r.Plan.Fields...), r.Signatory.Paths()...)
		ask.WriteBack = append(ask.WriteBack, r.Plan.WriteBack)
		for _, status := range deal.MoveStatuses {
			if to := r.Plan.Moves[status]; to != "" {
				ask.Moves = append(ask.Moves, connectors.ProbedMove{Watch: r.Watch, Status: status, To: to})
			}
		}
		ask.Timeline = ask.Timeline || len(r.Plan.Timeline) > 0
		for _, f := range r.Filter.Fields() {
			ask.Filters = append(ask.Filters, connectors.FilterField{Rule: r.Watch.Rule, FilterField: f})
		}
	}
	slices.Sort(ask.Read)
	ask.Read = slices.Compact(ask.Read)
	return ask
}

func (p *poller) budget() deal.Budget { return budgetOf(p.tenant.CRM) }

func budgetOf(crm connectors.CRM) deal.Budget {
	if m, ok := crm.(connectors.Metered); ok {
		return m.Budget()
	}
	return deal.Budget{}
}

// note remembers how the poll went, for the page and the log; the same error is logged once, not once a poll.
func (p *poller) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p.state.Budget = p.budget()
	was := p.state.Err
	if err == nil && p.more && p.without != nil {
		err = p.without // which only the end of the reading can tell to be over
	}
	p.state.Refused, p.state.Trouble = connectors.IsLogin(err), connectors.LoginTrouble(err)
	if err == nil {
		p.Mended(ctx, p.tenant.ID, deal.WaitsForLogin)
		p.fails, p.state.Err, p.state.Since, p.without = 0, "", time.Time{}, nil
		p.state.At = p.Now().UTC()
		if was != "" {
			p.Log.InfoContext(ctx, "polling works again")
		}
	} else {
		var paused *pausedError
		if p.fails++; errors.As(err, &paused) {
			p.fails = 0
		}
		if errors.As(err, &p.without) { // the others are polled as ever, and this is told as what it is: a right that was taken away
			p.fails, p.state.At = 0, p.Now().UTC()
			p.state.Refused, p.state.Trouble = true, connectors.LoginNoPermission
		}
		p.state.Err = err.Error()
		if was == "" {
			p.state.Since = p.Now().UTC()
		}
		if was != p.state.Err {
			p.Log.WarnContext(ctx, "polling fails", "err", err, "permanent", deal.IsPermanent(err))
		}
	}
	n := p.calls.take(p.tenant.ID)
	p.state.Calls, p.state.FailedCalls = n.all, n.failed
	if err := p.Ledger.SetPoll(ctx, p.state); err != nil {
		p.calls.add(p.tenant.ID, n)
		p.Log.ErrorContext(ctx, "the poll's state could not be kept", "err", err)
	}
}

// wait is the time to the next poll: the interval with 10 % jitter, doubled on each failure up to ten minutes, at least
// what the CRM asked for, and at least five minutes once most of its allowance is used.
func (p *poller) wait(err error) time.Duration {
	d := p.tenant.Poll
	if p.fails > 0 {
		d = max(d, min(max(d, time.Second)<<min(p.fails-1, 12), 10*time.Minute))
	}
	if p.budget().Share() >= SlowAt {
		d = max(d, 5*time.Minute)
	}
	d = max(d, deal.RetryAfter(err))
	return d + time.Duration(p.random(int64(d)/10+1))
}

// pausedError says that no new deals are taken on until there is room or allowance again, although nothing is wrong with the CRM.
type pausedError struct {
	why  string
	wait time.Duration
}

func (e *pausedError) Error() string             { return e.why }
func (e *pausedError) RetryAfter() time.Duration { return e.wait }

// spent means that the CRM's allowance is nearly used up.
func spent(share float64) error {
	return &pausedError{fmt.Sprintf("%.0f %% of the CRM's API allowance is used: no new deals until it recovers", share*100), 15 * time.Minute}
}
