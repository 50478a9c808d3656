package web

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// How many rows the start page shows at most.
const (
	eachWaitingShown = 8 // of those that are held, and of those that are dead
	retryingShown    = 8
	newestShown      = 12
	quarantinedShown = 10
	discrepantShown  = 20
	pushesShown      = 12
)

// statusView is the start page.
type statusView struct {
	Headline string
	// Trouble is what the daemon's own checks find, as for /readyz.
	Trouble []finding
	// Waiting deals need a person: held ones first, then dead ones.
	Waiting    []rowView
	WaitingAll int64
	// Decider is who decides about them.
	Decider decider
	// Guards are what the guard holds together.
	Guards               []guardView
	InWorks, Done, Ended int64
	Tenants              []tenantView
	Queue                []queueView
	Retrying             []rowView
	Newest               []rowView
	Quarantined          []quarantineView
	Discrepancies        []discrepancyView
	Discrepant           int64 // all of them
	Passes               []passView
	Pushes               []pushView
	Charts               []chart
	Steps                []stepTimeView
	Keys                 []keyView
	Stampers             []stamperView
	Checkup              checkupView
	Audit                auditView
}

// checkupView is the newest examination of the house.
type checkupView struct {
	At      *moment
	Summary string
	Trouble []troubleView
}

type troubleView struct {
	Group, Check, What, Cure string
	State                    state
}

// keyView is a sealing key with its certificate.
type keyView struct {
	Name, Subject, Issuer, SHA256 string
	For                           string // whose documents it seals, where the profiles name another key
	State                         state
	End                           *moment
	Left, Uses                    string
	Revoked                       string // whether it is, in words
}

// stamperView is a time-stamp server.
type stamperView struct {
	Server, Why, Used string
	State             state
	Asked             *moment
}

// auditView is the audit log as a whole.
type auditView struct {
	Size, Root, Key string
	Signed          *moment // the newest checkpoint
	SignedSize      string
}

// rowView is one deal in a list.
type rowView struct {
	Tx, Short            string
	Tenant, Rule         string
	Object, Record, Link string
	Step                 string
	State                state
	Reason               string
	Attempt              int // the number of the next attempt, 0 when none is due
	Next                 *moment
	Entered, Moved       *moment
	Command              string // lets the deal go on
}

type tenantView struct {
	ID, Name, CRM, Account, AccountName, Environment string
	State, Login                                     state
	Silent                                           bool // polling does not work
	Paused                                           *pausedView
	Polled, Failing                                  *moment
	Err                                              string
	Inferring                                        string // the rules whose entries are inferred from snapshots
	Lag                                              string
	Heard                                            *heardView     // nil where the CRM is only polled
	Workflows                                        *workflowsView // nil where none waits
	Errands                                          *errandsView   // nil where none is to be done, or was refused
	Budget, BudgetShare                              string
}

// errandsView is what is to be done in a CRM because of what became of deals.
type errandsView struct {
	State state // of those that fail, or were refused
	Open  string
	Since *moment
	Err   string
}

// heardView is how listening to a tenant's CRM goes.
type heardView struct {
	State state
	Err   string
	Event *moment // when it last told of a change
	Lag   string
}

// workflowsView are workflows that wait for deals.
type workflowsView struct {
	State state // of those that cannot be told, or were not
	Wait  string
	Since *moment
	Err   string
}

type queueView struct {
	Step  string
	State state
	N     string
	Since *moment
}

type quarantineView struct {
	Record, Row, Reason string
	At                  *moment
}

// discrepancyView is one thing that a CRM does not show as the ledger has it.
type discrepancyView struct {
	Tx, Short, Tenant, Record, Kind, What string
	Since                                 *moment
}

// passView is the newest comparison of a tenant's CRM with the ledger.
type passView struct {
	Tenant, Looked, Outcome string
	Blind                   string // the rules of which no missed entries can be found
	Began                   *moment
	State                   state
}

// reconciled adds what the newest comparisons have found.
func (s *server) reconciled(ctx context.Context, v *statusView, now time.Time) error {
	passes, err := s.House.Passes(ctx)
	if err != nil {
		return fmt.Errorf("passes: %w", err)
	}
	for _, p := range passes {
		v.Passes = append(v.Passes, viewPass(p, now))
	}
	counts, err := s.House.DiscrepancyCounts(ctx)
	if err != nil {
		return fmt.Errorf("discrepancies: %w", err)
	}
	for _, c := range counts {
		v.Discrepant += c.N
	}
	list, err := s.House.Discrepancies(ctx, "", discrepantShown)
	if err != nil {
		return fmt.Errorf("discrepancies: %w", err)
	}
	for _, d := range list {
		x := discrepancyView{Tx: string(d.Tx), Short: string(d.Tx), Tenant: string(d.Tenant), Record: d.Ref.String(), Kind: string(d.Kind), What: short(d.What, 300), Since: at(d.Since, now)}
		if len(x.Short) > 8 {
			x.Short = x.Short[:8]
		}
		v.Discrepancies = append(v.Discrepancies, x)
	}
	return nil
}

func viewPass(p deal.Pass, now time.Time) passView {
	found, mended := 0, 0
	for kind, n := range p.Found {
		found, mended = found+n, mended+p.Mended[kind]
	}
	v := passView{Tenant: string(p.Tenant), Began: at(p.Began, now), Blind: strings.Join(slices.Concat(p.Blind, slices.Sorted(maps.Keys(p.Refused))), ", "), Looked: plural(int64(p.Entries), "stage entry", "stage entries") + ", " + plural(int64(p.Deals), "finished deal", "finished deals"),
		Outcome: plural(int64(found), "discrepancy", "discrepancies") + ", " + number(int64(mended)) + " mended"}
	switch {
	case !p.Ended.IsZero():
		v.State = state{Mark: "done", Word: "complete"}
	case p.Waits != "":
		v.State = state{Mark: "retrying", Word: "waits: " + short(p.Waits, 300)}
	default:
		v.State = state{Mark: "running", Word: "under way"}
	}
	return v
}

// pushView is one line of the log of pushes.
type pushView struct {
	Tenant, Source, Record, N string
	State                     state
	At                        *moment
}

func viewPush(p deal.Push, now time.Time) pushView {
	v := pushView{Tenant: string(p.Tenant), Source: p.Source, Record: p.Ref.ID, N: number(int64(p.N)), State: state{Mark: "ended", Word: string(p.Verdict)}, At: at(p.At, now)}
	switch {
	case p.Verdict == deal.PushTaken:
		v.State.Mark = "done"
	case strings.HasPrefix(string(p.Verdict), string(deal.PushRefused)), p.Verdict == deal.PushReplayed:
		v.State.Mark = "retrying"
	}
	return v
}

func (s *server) status(ctx context.Context, _ *http.Request) (*frame, error) {
	v, err := s.statusView(ctx)
	if err != nil {
		return nil, err
	}
	return &frame{Title: v.Headline, Here: "status", Live: true, Status: v}, nil
}

func (s *server) statusView(ctx context.Context) (*statusView, error) {
	v, now := &statusView{Trouble: s.check(ctx).trouble(), Decider: s.decider(ctx)}, s.Now()
	counts, err := s.House.Counts(ctx)
	if err != nil {
		return nil, fmt.Errorf("counts: %w", err)
	}
	v.count(counts, now)
	holds, err := s.House.Guards(ctx)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	for _, h := range holds {
		v.Guards = append(v.Guards, viewGuard(h, now))
	}
	for _, c := range []deal.Condition{deal.Held, deal.Dead} {
		rows, err := s.rows(ctx, Search{State: string(c), Limit: eachWaitingShown})
		if err != nil {
			return nil, err
		}
		v.Waiting = append(v.Waiting, rows...)
	}
	if v.Retrying, err = s.rows(ctx, Search{State: string(deal.Retrying), Limit: retryingShown}); err != nil {
		return nil, err
	}
	if v.Newest, err = s.rows(ctx, Search{Limit: newestShown}); err != nil {
		return nil, err
	}
	tenants, err := s.House.Tenants(ctx)
	if err != nil {
		return nil, fmt.Errorf("tenants: %w", err)
	}
	for _, t := range tenants {
		v.Tenants = append(v.Tenants, viewTenant(t, now))
	}
	quarantined, err := s.House.Quarantined(ctx, quarantinedShown)
	if err != nil {
		return nil, fmt.Errorf("quarantined rows: %w", err)
	}
	for _, q := range quarantined {
		v.Quarantined = append(v.Quarantined, quarantineView{Record: q.Ref.String(), Row: q.Row, Reason: short(q.Reason, 300), At: at(q.At, now)})
	}
	pushes, err := s.House.Pushes(ctx, pushesShown)
	if err != nil {
		return nil, fmt.Errorf("pushes: %w", err)
	}
	for _, p := range pushes {
		v.Pushes = append(v.Pushes, viewPush(p, now))
	}
	untold, _, err := s.House.Untold(ctx)
	if err != nil {
		return nil, fmt.Errorf("untold records: %w", err)
	}
	if err := s.reconciled(ctx, v, now); err != nil {
		return nil, err
	}
	v.Headline = headline(v.WaitingAll, v.Tenants, untold, int64(len(v.Quarantined)))
	return v, s.figures(ctx, v, now)
}

// figures adds the charts, the certificates and the audit log.
func (s *server) figures(ctx context.Context, v *statusView, now time.Time) error {
	f, err := s.House.Figures(ctx, now.UTC().AddDate(0, 0, 1-chartDays))
	if err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	v.Charts, v.Steps = charts(f, now), stepTimes(f.Steps)
	keys, err := s.House.Keys(ctx)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	for _, k := range keys {
		v.Keys = append(v.Keys, viewKey(k, now))
	}
	stampers, err := s.House.Stampers(ctx)
	if err != nil {
		return fmt.Errorf("time-stamp servers: %w", err)
	}
	for _, one := range stampers {
		v.Stampers = append(v.Stampers, viewStamper(one, now))
	}
	checkup, err := s.House.Checkup(ctx)
	if err != nil {
		return fmt.Errorf("check-up: %w", err)
	}
	v.Checkup = viewCheckup(checkup, now)
	tree, err := s.House.TreeHead(ctx)
	if err != nil {
		return fmt.Errorf("audit tree: %w", err)
	}
	signed, err := s.House.NewestCheckpoint(ctx)
	if err != nil {
		return fmt.Errorf("audit checkpoint: %w", err)
	}
	v.Audit = auditView{Size: number(tree.Size), Root: tree.Root, Key: s.House.AuditKey(), Signed: at(signed.At, now), SignedSize: number(signed.Size)}
	return nil
}

func viewCheckup(c Checkup, now time.Time) checkupView {
	if c.At.IsZero() {
		return checkupView{}
	}
	v := checkupView{At: at(c.At, now)}
	var failures, warnings int64
	for _, t := range c.Trouble {
		mark := state{Mark: "retrying", Word: "warning"}
		if t.Fails {
			failures++
			mark = state{Mark: "dead", Word: "failure"}
		} else {
			warnings++
		}
		v.Trouble = append(v.Trouble, troubleView{Group: t.Group, Check: t.Check, What: short(t.What, 500), Cure: short(t.Cure, 500), State: mark})
	}
	v.Summary = plural(failures, "failure", "failures") + ", " + plural(warnings, "warning", "warnings") + ", " + plural(int64(c.Passes), "pass", "passes")
	return v
}

// A certificate that ends within so many days is to be renewed: a new one takes weeks to get.
const renewWithin = 60 * 24 * time.Hour

// usesOf says how often a key was used, and how often it may be.
func usesOf(k Key) string {
	text := number(k.Uses)
	if k.MaxUses > 0 {
		text += " of " + number(k.MaxUses)
	}
	if k.MaxUsesPerDay > 0 {
		text += ", today " + number(k.UsesToday) + " of " + number(k.MaxUsesPerDay)
	}
	return text
}

// whole is how a moment is written in a sentence.
const whole = "2 January 2006, 15:04 UTC"

func viewKey(k Key, now time.Time) keyView {
	v := keyView{Uses: usesOf(k), Name: k.Name, For: k.For, Subject: k.Subject, Issuer: k.Issuer, SHA256: k.SHA256, End: at(k.NotAfter, now)}
	if !k.NotAfter.IsZero() {
		v.Left = daysLeft(k.NotAfter, now)
	}
	v.Revoked = map[deal.CertAnswer]string{deal.AnswerGood: "not revoked, says its issuer", deal.AnswerUnreachable: "nobody says whether it is revoked", deal.AnswerNobody: "names nobody who says whether it is revoked"}[k.Answer]
	switch left := k.NotAfter.Sub(now); {
	case k.State == deal.CertRevoked:
		v.State = state{Mark: "dead", Word: "revoked: nothing is sealed with it"}
	case k.Idle:
		v.State = state{Mark: "dead", Word: string(k.State) + ", and no other is active: nothing is sealed with this key"}
	case k.State == deal.CertRetiring && k.BesideUntil.After(now):
		v.State = state{Mark: "running", Word: "retiring, makes second seals until " + k.BesideUntil.UTC().Format(whole)}
		if k.Silent {
			v.State = state{Mark: "dead", Word: "cannot be reached, and should make second seals until " + k.BesideUntil.UTC().Format(whole)}
		}
	case k.State == deal.CertRetiring && k.FollowedBy != "":
		v.State = state{Mark: "ended", Word: "retiring, followed by the key " + k.FollowedBy}
	case k.State == deal.CertRetiring:
		v.State = state{Mark: "ended", Word: "retiring"}
	case k.State == deal.CertNext && k.ActivateAt.IsZero():
		v.State = state{Mark: "running", Word: "next"}
	case k.State == deal.CertNext:
		v.State = state{Mark: "running", Word: "next, active from " + k.ActivateAt.UTC().Format(whole)}
		if k.BesideUntil.After(now) {
			v.State.Word += ", two seals until " + k.BesideUntil.UTC().Format(whole)
		}
	case k.StandIn != "":
		v.State = state{Mark: "retrying", Word: "fails; " + k.StandIn + " stands in"}
	case k.Silent:
		v.State = state{Mark: "dead", Word: "cannot be reached"}
	case k.Spent() >= 1:
		v.State = state{Mark: "held", Word: "limit of uses reached"}
	case left <= 0:
		v.State = state{Mark: "dead", Word: "certificate has ended"}
	case left <= renewWithin:
		v.State = state{Mark: "retrying", Word: "renew the certificate"}
	default:
		v.State = state{Mark: "done", Word: "good"}
	}
	return v
}

func viewStamper(s Stamper, now time.Time) stamperView {
	v := stamperView{Server: s.Server, Why: short(s.Why, 300), Used: "no limit", Asked: at(s.Asked, now)}
	if s.Quota > 0 {
		v.Used = number(s.Used) + " of " + number(s.Quota)
	}
	switch {
	case s.Spent() >= 1:
		v.State = state{Mark: "held", Word: "not asked until 00:00 UTC: its quota is used up"}
	case s.Rests:
		v.State = state{Mark: "dead", Word: "failed; the others are asked first for a while"}
	case s.Why != "":
		v.State = state{Mark: "retrying", Word: "failed last time"}
	case s.Asked.IsZero():
		v.State = state{Mark: "ahead", Word: "not asked since the start"}
	default:
		v.State = state{Mark: "done", Word: "good"}
	}
	return v
}

func daysLeft(end, now time.Time) string {
	if !end.After(now) {
		return "none"
	}
	return plural(int64(end.Sub(now)/(24*time.Hour)), "day", "days")
}

// MoreWaiting reports whether not all deals that wait for a person are shown.
func (v *statusView) MoreWaiting() bool { return v.WaitingAll > int64(len(v.Waiting)) }

// MoreDiscrepant reports whether not all discrepancies are shown.
func (v *statusView) MoreDiscrepant() bool { return v.Discrepant > int64(len(v.Discrepancies)) }

// headline says what needs a person, so that a glance at the title is enough.
func headline(waiting int64, tenants []tenantView, untold, quarantined int64) string {
	var needs []string
	if waiting > 0 {
		needs = append(needs, plural(waiting, "deal waits for a person", "deals wait for a person"))
	}
	silent, paused := int64(0), int64(0)
	for _, t := range tenants {
		if t.Silent {
			silent++
		}
		if t.Paused != nil {
			paused++
		}
	}
	if paused > 0 {
		needs = append(needs, plural(paused, "tenant is paused", "tenants are paused"))
	}
	if silent > 0 {
		needs = append(needs, plural(silent, "CRM is not being read", "CRMs are not being read"))
	}
	if untold > 0 {
		needs = append(needs, plural(untold, "record does not show what is true", "records do not show what is true"))
	}
	if quarantined > 0 {
		needs = append(needs, plural(quarantined, "row of a CRM could not be understood", "rows of CRMs could not be understood"))
	}
	if len(needs) == 0 {
		return "Nothing waits for a person"
	}
	return strings.Join(needs, ", ")
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

func (s *server) rows(ctx context.Context, q Search) (rows []rowView, err error) {
	found, err := s.House.Find(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("deals: %w", err)
	}
	now := s.Now()
	for _, r := range found.Rows {
		rows = append(rows, viewRow(r, now))
	}
	return rows, nil
}

// count fills in the numbers and the queue, over all tenants, in the order of the steps.
func (v *statusView) count(counts []Count, now time.Time) {
	type key struct {
		step      deal.Step
		condition deal.Condition
	}
	queue := map[key]Count{}
	for _, c := range counts {
		switch {
		case c.Step == deal.Done:
			v.Done += c.N
			continue
		case c.Condition == deal.Ended:
			v.Ended += c.N
			continue
		case c.Condition.Waiting():
			v.WaitingAll += c.N
		default:
			v.InWorks += c.N
		}
		k := key{c.Step, c.Condition}
		sum := queue[k]
		if sum.N == 0 || c.Oldest.Before(sum.Oldest) {
			sum.Oldest = c.Oldest
		}
		sum.N += c.N
		queue[k] = sum
	}
	for _, step := range deal.Steps {
		for _, condition := range []deal.Condition{deal.Held, deal.Dead, deal.Retrying, deal.Running} {
			if c, ok := queue[key{step, condition}]; ok {
				v.Queue = append(v.Queue, queueView{Step: string(step), State: stateOf(step, condition), N: number(c.N), Since: at(c.Oldest, now)})
			}
		}
	}
}

func viewRow(r Row, now time.Time) rowView {
	v := rowView{Tx: string(r.Tx), Short: string(r.Tx), Tenant: string(r.Tenant), Rule: r.Rule, Object: r.Ref.Object, Record: r.Ref.ID, Link: link(r.RecordURL),
		Step: string(r.Step), State: stateOf(r.Step, r.Condition), Reason: short(r.Reason, 300), Entered: at(r.At, now), Moved: at(r.Updated, now)}
	if c := commands(r.Tx, r.Step, r.Condition); len(c) > 0 {
		v.Command = c[0]
	}
	if len(v.Short) > 8 {
		v.Short = v.Short[:8]
	}
	if r.Condition == deal.Retrying {
		v.Attempt, v.Next = r.Attempts+1, at(r.Next, now)
	}
	return v
}

func viewTenant(t Tenant, now time.Time) tenantView {
	kind, account := t.Poll.Account.Split()
	if t.Kind != "" {
		kind = t.Kind
	}
	v := tenantView{ID: string(t.ID), Name: t.Name, CRM: crmName(kind), Account: account, AccountName: t.Poll.Name, Environment: t.Environment,
		Polled: at(t.Poll.At, now), Err: short(t.Poll.Err, 300)}
	v.Paused, v.Inferring = viewPause(t.Paused, now), strings.Join(t.Inferring, ", ")
	v.State, v.Silent = pollState(t, now)
	v.Login = loginState(t.Poll)
	if t.Poll.Err != "" {
		v.Failing = at(t.Poll.Since, now)
	}
	if t.Listening != nil {
		v.Heard = viewHeard(*t.Listening, now)
	}
	v.Workflows, v.Errands = viewWorkflows(t.Workflows, now), viewErrands(t.Errands, now)
	switch {
	case v.Silent || v.Polled == nil:
		v.Lag = "not known"
	case t.Poll.Lag >= time.Second:
		v.Lag = age(t.Poll.Lag)
	default:
		v.Lag = "no"
	}
	if b := t.Poll.Budget; b.Max > 0 {
		v.Budget = number(int64(b.Used)) + " of " + number(int64(b.Max))
		v.BudgetShare = fmt.Sprintf("%.0f %%", b.Share()*100)
	}
	return v
}

func viewHeard(l deal.Listening, now time.Time) *heardView {
	v := &heardView{State: state{Mark: "done", Word: "changes are heard"}, Err: short(l.Err, 300), Event: at(l.Event, now)}
	switch {
	case l.Connected:
	case l.Err == "":
		v.State = state{Mark: "ended", Word: "not heard yet"}
	default:
		v.State = state{Mark: "retrying", Word: "not heard: polled only"}
	}
	if l.Lag >= time.Second {
		v.Lag = age(l.Lag)
	}
	return v
}

func viewWorkflows(w Workflows, now time.Time) *workflowsView {
	if w.Waiting+w.Lost == 0 {
		return nil
	}
	v := &workflowsView{Wait: number(w.Waiting) + " workflows wait", Since: at(w.Oldest, now), Err: short(w.Problem, 300)}
	if w.Waiting == 1 {
		v.Wait = "1 workflow waits"
	}
	switch {
	case w.Failing > 0:
		v.State = state{Mark: "dead", Word: number(w.Failing) + " cannot be told"}
	case w.Lost > 0:
		v.State = state{Mark: "retrying", Word: number(w.Lost) + " not told in time"}
	}
	return v
}

func viewErrands(e Errands, now time.Time) *errandsView {
	if e.Open+e.Refused == 0 {
		return nil
	}
	v := &errandsView{Open: number(e.Open) + " errands to do", Since: at(e.Oldest, now), Err: short(e.Problem, 300)}
	switch {
	case e.Open == 1:
		v.Open = "1 errand to do"
	case e.Open == 0:
		v.Open = "errands"
	}
	switch {
	case e.Failing > 0:
		v.State = state{Mark: "dead", Word: number(e.Failing) + " failing"}
	case e.Refused > 0:
		v.State = state{Mark: "dead", Word: number(e.Refused) + " refused since yesterday"}
	}
	return v
}

// pollState says how a tenant's polling is doing, and whether it does not work. Silence counts as late only after a
// quarter of an hour: a poller that spares the CRM's allowance waits for some minutes by itself.
func pollState(t Tenant, now time.Time) (s state, silent bool) {
	switch p := t.Poll; {
	case p.Err != "":
		return state{Mark: "dead", Word: "failing"}, true
	case p.At.IsZero():
		return state{Mark: "ended", Word: "not polled yet"}, false
	case now.Sub(p.At) > max(3*t.Every, 15*time.Minute):
		return state{Mark: "retrying", Word: "late"}, true
	case p.Lag >= time.Minute:
		return state{Mark: "running", Word: "catching up"}, false
	}
	return state{Mark: "done", Word: "polling"}, false
}

// loginState says whether the CRM accepts our login, as of the last poll. An outage does not say.
func loginState(p deal.PollState) state {
	switch {
	case p.Refused:
		if p.Trouble != "" {
			return state{Mark: "dead", Word: p.Trouble}
		}
		return state{Mark: "dead", Word: "refused"}
	case p.Err == "" && !p.At.IsZero():
		return state{Mark: "done", Word: "accepted"}
	}
	return state{Mark: "ahead", Word: "not known"}
}
