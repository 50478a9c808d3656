package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// How many rows the start page shows at most.
const (
	waitingShown     = 24
	newestShown      = 50
	quarantinedShown = 10
)

// statusView is the start page.
type statusView struct {
	Headline string
	// Waiting deals need a person: held ones first, then dead ones.
	Waiting              []rowView
	WaitingAll           int64
	InWorks, Done, Ended int64
	Tenants              []tenantView
	Queue                []queueView
	Newest               []rowView
	Quarantined          []quarantineView
	Tree                 deal.TreeHead
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
	State                                            state
	Silent                                           bool // polling does not work
	Polled, Failing                                  *moment
	Err                                              string
	Lag                                              string
	Budget, BudgetShare                              string
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

func (s *server) status(ctx context.Context, _ *http.Request) (*frame, error) {
	v, err := s.statusView(ctx)
	if err != nil {
		return nil, err
	}
	return &frame{Title: v.Headline, Live: true, Status: v}, nil
}

func (s *server) statusView(ctx context.Context) (*statusView, error) {
	v, now := &statusView{}, s.Now()
	counts, err := s.House.Counts(ctx)
	if err != nil {
		return nil, fmt.Errorf("counts: %w", err)
	}
	v.count(counts, now)
	for _, c := range []deal.Condition{deal.Held, deal.Dead} {
		rows, err := s.rows(ctx, Filter{Condition: c, Limit: waitingShown - len(v.Waiting)})
		if err != nil {
			return nil, err
		}
		v.Waiting = append(v.Waiting, rows...)
	}
	if v.Newest, err = s.rows(ctx, Filter{Limit: newestShown}); err != nil {
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
	untold, _, err := s.House.Untold(ctx)
	if err != nil {
		return nil, fmt.Errorf("untold records: %w", err)
	}
	v.Headline = headline(v.WaitingAll, v.Tenants, untold, int64(len(v.Quarantined)))
	if v.Tree, err = s.House.TreeHead(ctx); err != nil {
		return nil, fmt.Errorf("audit tree: %w", err)
	}
	return v, nil
}

// MoreWaiting reports whether not all deals that wait for a person are shown.
func (v *statusView) MoreWaiting() bool { return v.WaitingAll > int64(len(v.Waiting)) }

// headline says what needs a person, so that a glance at the title is enough.
func headline(waiting int64, tenants []tenantView, untold, quarantined int64) string {
	var needs []string
	if waiting > 0 {
		needs = append(needs, plural(waiting, "deal waits for a person", "deals wait for a person"))
	}
	silent := int64(0)
	for _, t := range tenants {
		if t.Silent {
			silent++
		}
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

// rows asks for deals, but not for none: an empty limit would mean the House's own.
func (s *server) rows(ctx context.Context, f Filter) (rows []rowView, err error) {
	if f.Limit <= 0 {
		return nil, nil
	}
	list, err := s.House.Deals(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("deals: %w", err)
	}
	now := s.Now()
	for _, r := range list {
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
	v.State, v.Silent = pollState(t, now)
	if t.Poll.Err != "" {
		v.Failing = at(t.Poll.Since, now)
	}
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
