package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
)

// Rehearsal replays the stage entries of some days as if a tenant's rules had been in force, and says what would have become
// of them. It reads the CRM and writes nothing anywhere: no ledger, no record, no key.
type Rehearsal struct {
	Tenant  Tenant
	Bundles Bundles
	// Limits are those of the keys, by the names that profiles use.
	Limits map[string]deal.KeyLimits
	// Days is how far back it looks. Calls is how many calls to the CRM it makes at most: it looks after each, so that a few
	// more may be under way.
	Days, Calls int
}

// The outcomes of a rehearsed entry.
const (
	ShadowMade   = "made"   // its contract would have been made and sealed
	ShadowHeld   = "held"   // it would have waited for a person
	ShadowFailed = "failed" // it would have been given up
	// ShadowFiltered is for what the rule's filter would leave out.
	ShadowFiltered = "filtered"
	ShadowUnknown  = "unknown" // its record could not be read, or was not
)

// ShadowDeal is what would have become of one stage entry.
type ShadowDeal struct {
	Tx       deal.TxID `json:"tx"`
	Rule     string    `json:"rule"`
	Ref      deal.Ref  `json:"ref"`
	At       time.Time `json:"at"`
	Document string    `json:"document"`
	Outcome  string    `json:"outcome"`
	// Why says in words for people, without record values, what the outcome is for.
	Why string `json:"why,omitempty"`
	// Missing are the CRM paths, or where none is known the fields of the document, that are not as the document needs them.
	Missing []string `json:"missing,omitempty"`
	// Move is the stage that the record would be moved to once the contract is on it; empty for none.
	Move string `json:"move,omitempty"`
	// Guard says why the guard would have held it first.
	Guard string `json:"guard,omitempty"`
}

// ShadowRule counts the entries of one rule.
type ShadowRule struct {
	Rule    string         `json:"rule"`
	Entries int            `json:"entries"`
	Of      map[string]int `json:"of"` // by outcome
	Guarded int            `json:"guarded"`
	// Missing says how many entries each path would have held.
	Missing map[string]int `json:"missing,omitempty"`
}

// ShadowCost is what documents cost, when nothing has to be tried again.
type ShadowCost struct {
	Documents  int `json:"documents"`
	Signatures int `json:"signatures"`  // of the HSM
	Timestamps int `json:"time_stamps"` // requests to a TSA
	// Evidence is how many documents have their certificates asked about.
	Evidence int `json:"evidence"`
	// CRM is about how many calls to the CRM they are, 0 when no record was read to tell.
	CRM int `json:"crm_calls"`
}

// Shadow is what a rehearsal has found.
type Shadow struct {
	Tenant  deal.TenantID  `json:"tenant"`
	Account deal.AccountID `json:"account,omitempty"`
	From    time.Time      `json:"from,omitzero"`
	To      time.Time      `json:"to,omitzero"`
	Rules   []ShadowRule   `json:"rules"`
	Deals   []ShadowDeal   `json:"deals"`
	// Quarantined are the rows that could not be understood.
	Quarantined int `json:"quarantined"`
	// Total is what all documents cost, Peak what those of the busiest day, in UTC, did.
	Total   ShadowCost `json:"total"`
	Busiest string     `json:"busiest,omitempty"`
	Peak    ShadowCost `json:"peak"`
	// Polls is how many calls a day polling costs, Allowance how many the CRM allows, 0 when it has not said.
	Polls     int `json:"polls_a_day"`
	Allowance int `json:"allowance"`
	// Calls is how many the rehearsal itself has made.
	Calls int `json:"calls"`
	// Problems keep the tenant from being polled, or may do so.
	Problems []string `json:"problems,omitempty"`
	// Cut says why it has stopped before its end.
	Cut string `json:"cut,omitempty"`
	// Unknown are the things that it cannot know.
	Unknown []string `json:"unknown"`
}

// shadowEntries bounds what is kept in memory, shadowReaders how many records are read at once: those that wait together
// share calls.
const (
	shadowEntries = 20_000
	shadowReaders = 8
)

// rehearsing is a rehearsal under way.
type rehearsing struct {
	*Rehearsal
	tally   connectors.Tally
	rules   map[string]Rule
	watches []deal.Watch
	entries []deal.Change
	out     Shadow
	// readings and readCalls say what reading a record costs.
	readings, readCalls int
}

// Run makes the rehearsal. An error means that nothing could be found out; what has cut it short later is in Shadow.Cut.
func (h *Rehearsal) Run(ctx context.Context) (Shadow, error) {
	r := &rehearsing{Rehearsal: h, rules: map[string]Rule{}}
	ctx = connectors.WithTally(ctx, &r.tally)
	r.out = Shadow{Tenant: h.Tenant.ID, Rules: []ShadowRule{}, Deals: []ShadowDeal{}, Polls: int(24 * time.Hour / max(h.Tenant.Poll, time.Second))}
	if err := r.begin(ctx); err != nil {
		return r.out, err
	}
	history, ok := h.Tenant.CRM.(connectors.Historian)
	if !ok {
		return r.out, errors.New("this CRM's stage history cannot be read apart from the poll")
	}
	if err := r.readEntries(ctx, history); err != nil {
		return r.out, err
	}
	r.list()
	r.readRecords(ctx)
	r.judge()
	r.spendKeys()
	r.count()
	r.out.Calls, r.out.Allowance = r.tally.Calls(), budgetOf(h.Tenant.CRM).Max
	r.out.Unknown = r.unknown()
	return r.out, nil
}

// begin asks who the account is and what of the configuration does not fit it.
func (r *rehearsing) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	t := r.Tenant
	account, err := t.CRM.Identity(ctx)
	if err != nil {
		return err
	}
	if err := CheckEnvironment(t.ID, t.Production, account); err != nil {
		return err
	}
	rules, err := ResolveStages(ctx, t.CRM, t.Rules)
	if err != nil {
		return err
	}
	r.out.Account, r.out.To = account.AccountID(), account.Clock.UTC().Add(time.Second) // a Date header is cut to the second
	r.out.From = r.out.To.Add(-time.Duration(r.Days) * 24 * time.Hour)
	for _, rule := range rules {
		w := rule.Watch
		w.Since = r.out.From
		if rule.StartFrom.After(w.Since) {
			w.Since = rule.StartFrom
		}
		r.rules[w.Rule] = rule
		r.watches = append(r.watches, w)
		r.out.Rules = append(r.out.Rules, ShadowRule{Rule: w.Rule, Of: map[string]int{}})
	}
	prober, ok := t.CRM.(connectors.Prober)
	if !ok {
		return nil
	}
	problems, err := Fit(ctx, prober, rules)
	for _, p := range problems {
		r.out.Problems = append(r.out.Problems, strings.TrimPrefix(p.Rule+": ", ": ")+p.What+": "+p.Cure)
	}
	return err
}

// enough says why no more calls are made; empty while there may be more.
func (r *rehearsing) enough(ctx context.Context) string {
	switch share := budgetOf(r.Tenant.CRM).Share(); {
	case ctx.Err() != nil:
		return "its time was over, or whoever had asked for it went away"
	case r.tally.Calls() >= r.Calls:
		return fmt.Sprintf("it has made the %d calls that it may make (--calls)", r.Calls)
	case share >= SlowAt:
		return fmt.Sprintf("%.0f %% of the CRM's API allowance is used", share*100)
	}
	return ""
}

// readEntries reads the stage history. Where it is cut short, what comes later is missing.
func (r *rehearsing) readEntries(ctx context.Context, history connectors.Historian) error {
	known := map[deal.TxID]bool{}
	for cursor, more := (deal.Cursor{}), len(r.watches) > 0; more; {
		page, err := entriesOf(ctx, history, r.out.From, r.out.To, cursor, r.watches)
		if err != nil {
			return fmt.Errorf("read the stage history: %w", err)
		}
		for _, c := range page.Entries {
			names := c.TxIDs(r.out.Account)
			if slices.ContainsFunc(names, func(tx deal.TxID) bool { return known[tx] }) {
				continue
			}
			for _, tx := range names {
				known[tx] = true
			}
			r.entries = append(r.entries, c)
		}
		r.out.Quarantined += len(page.Quarantined)
		cursor, more = page.Next, page.More
		if why := r.enough(ctx); more && why != "" {
			r.out.Cut, more = why+" before the stage history was read to its end", false
		}
		if more && len(r.entries) >= shadowEntries {
			r.out.Cut, more = fmt.Sprintf("there are more than %d stage entries: look fewer days back", shadowEntries), false
		}
	}
	slices.SortStableFunc(r.entries, func(a, b deal.Change) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Ref.ID, b.Ref.ID), cmp.Compare(a.Rule, b.Rule))
	})
	return nil
}

func entriesOf(ctx context.Context, history connectors.Historian, from, to time.Time, cursor deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	return history.Entries(ctx, from, to, cursor, watches)
}

// list makes a deal of each entry.
func (r *rehearsing) list() {
	for _, c := range r.entries {
		plan := r.rules[c.Rule].Plan
		r.out.Deals = append(r.out.Deals, ShadowDeal{Tx: c.TxIDs(r.out.Account)[0], Rule: c.Rule, Ref: c.Ref, At: c.At, Document: cmp.Or(plan.Template, "the newest file "+plan.Attachment), Move: plan.Moves[deal.StatusSigned]})
	}
}

// judge says what does not hang on the record: which of those that no filter leaves out the guard would have held, and which
// record was there before.
func (r *rehearsing) judge() {
	var noticed []deal.Change
	var deals []*ShadowDeal
	earlier := map[string]deal.TxID{}
	for i, c := range r.entries {
		d := &r.out.Deals[i]
		if d.Outcome == ShadowFiltered {
			continue
		}
		noticed, deals = append(noticed, c), append(deals, d)
		names := append([]string{c.Ref.ID}, c.Aliases...)
		for _, name := range names {
			if tx, was := earlier[c.Rule+" "+name]; was && r.rules[c.Rule].Plan.ReEntry != "seal" {
				d.Outcome, d.Why, d.Missing = ShadowHeld, fmt.Sprintf("[%s] the rule would have made %s of this record before", holdReEntry, tx), nil
			}
		}
		for _, name := range names {
			earlier[c.Rule+" "+name] = d.Tx
		}
	}
	for i, cause := range r.Tenant.Guard.Replay(noticed, r.Tenant.Poll) {
		deals[i].Guard = cause
	}
}

// readRecords tries filters and documents, the newest first: of them the record says most.
func (r *rehearsing) readRecords(ctx context.Context) {
	byRecord := map[deal.Ref][]*ShadowDeal{} // IDs are unique within an object only
	var order []deal.Ref
	for i := len(r.out.Deals) - 1; i >= 0; i-- {
		d := &r.out.Deals[i]
		if byRecord[d.Ref] == nil {
			order = append(order, d.Ref)
		}
		byRecord[d.Ref] = append(byRecord[d.Ref], d)
	}
	before := r.tally.Calls()
	var mu sync.Mutex
	g := errgroup.Group{}
	g.SetLimit(shadowReaders)
	for i, ref := range order {
		if why := r.enough(ctx); why != "" {
			r.out.Cut = cmp.Or(r.out.Cut, fmt.Sprintf("%s before all records were read: %d are left, the oldest", why, len(order)-i))
			break
		}
		fields := r.fieldsOf(byRecord[ref])
		g.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, crmLimit)
			defer cancel()
			rec, err := r.Tenant.CRM.Record(limited, ref, fields)
			mu.Lock()
			defer mu.Unlock()
			r.readings++
			for _, d := range byRecord[ref] {
				r.try(d, rec, err)
			}
			return nil
		})
	}
	_ = g.Wait() // what befalls a record is said of its deals
	r.readCalls = r.tally.Calls() - before
	for i := range r.out.Deals {
		if d := &r.out.Deals[i]; d.Outcome == "" {
			d.Outcome, d.Why = ShadowUnknown, "its record was not read"
		}
	}
}

// fieldsOf are those that the rules of some deals read.
func (r *rehearsing) fieldsOf(deals []*ShadowDeal) (fields []string) {
	for _, d := range deals {
		fields = append(fields, r.rules[d.Rule].Plan.Fields...)
		fields = append(fields, r.rules[d.Rule].Filter.Paths()...)
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// try says what would become of a deal whose record was read.
func (r *rehearsing) try(d *ShadowDeal, rec deal.Record, err error) {
	switch {
	case errors.Is(err, deal.ErrGone):
		d.Outcome, d.Why = ShadowUnknown, err.Error()
		return
	case err != nil && (!deal.IsPermanent(err) || connectors.IsLogin(err)):
		d.Outcome, d.Why = ShadowUnknown, "its record could not be read: "+err.Error()
		return
	case err == nil:
		ok, misfit := r.rules[d.Rule].Filter.Matches(rec)
		switch {
		case misfit != nil:
			err = asHold(deal.Hold("%v", misfit))
		case !ok:
			d.Outcome, d.Why = ShadowFiltered, "the record does not meet the rule's filter"
			return
		default:
			err = r.document(d, rec)
		}
	}
	var hold *deal.HoldError
	var field *documents.FieldError
	if errors.As(err, &field) {
		d.Missing = append([]string{cmp.Or(field.Source, field.Field)}, field.Others...)
	}
	switch {
	case err == nil:
		d.Outcome = ShadowMade
	case errors.As(err, &hold):
		d.Outcome, d.Why = ShadowHeld, hold.Reason
	default:
		d.Outcome, d.Why = ShadowFailed, err.Error()
	}
}

// document tries what the flow would make of the record, up to the layout.
func (r *rehearsing) document(d *ShadowDeal, rec deal.Record) error {
	plan := r.rules[d.Rule].Plan
	if plan.Delegated != nil {
		return nil
	}
	if plan.Attachment != "" {
		if _, ok := newestMatch(rec.Files, plan.Attachment); !ok {
			return deal.Hold("no file on the record matches %q", plan.Attachment)
		}
		return nil
	}
	b, err := r.Bundles.Bundle(plan.Bundle)
	if err != nil {
		return err
	}
	kind, _ := r.out.Account.Split()
	doc, err := Compose(b, plan, kind, rec.Values, d.Tx, d.At)
	if err == nil {
		err = b.Validate(doc)
	}
	if err == nil {
		_, err = b.FileName(doc)
	}
	return asHold(err)
}

// spendKeys holds what would have been above a key's limit of a day.
func (r *rehearsing) spendKeys() {
	uses := map[string]int64{}
	for i := range r.out.Deals {
		d := &r.out.Deals[i]
		p, err := profileOf(r.rules[d.Rule].Plan)
		if most := r.Limits[p.Key].Day; err == nil && d.Outcome == ShadowMade && most > 0 {
			day := p.Key + d.At.UTC().Format(time.DateOnly)
			if uses[day]++; uses[day] > most {
				d.Outcome, d.Why = ShadowHeld, fmt.Sprintf("[%s] key %q would have sealed its %d documents of the day already; it goes on after midnight UTC", HoldSpent, p.Key, most)
			}
		}
	}
}

// count adds up the deals.
func (r *rehearsing) count() {
	days := map[string]*ShadowCost{}
	for _, d := range r.out.Deals {
		i := slices.IndexFunc(r.out.Rules, func(x ShadowRule) bool { return x.Rule == d.Rule })
		rule := &r.out.Rules[i]
		rule.Entries++
		rule.Of[d.Outcome]++
		if d.Guard != "" {
			rule.Guarded++
		}
		for _, name := range d.Missing {
			if rule.Missing == nil {
				rule.Missing = map[string]int{}
			}
			rule.Missing[name]++
		}
		if d.Outcome != ShadowMade {
			continue
		}
		day := d.At.UTC().Format(time.DateOnly)
		if days[day] == nil {
			days[day] = &ShadowCost{}
		}
		r.charge(days[day], r.rules[d.Rule].Plan)
		r.charge(&r.out.Total, r.rules[d.Rule].Plan)
	}
	for day, c := range days {
		if c.Documents > r.out.Peak.Documents || c.Documents == r.out.Peak.Documents && day < r.out.Busiest {
			r.out.Busiest, r.out.Peak = day, *c
		}
	}
}

// charge adds what one document costs.
func (r *rehearsing) charge(c *ShadowCost, plan deal.Plan) {
	c.Documents++
	if plan.Delegated == nil {
		c.Signatures++
	}
	if p, err := profileOf(plan); err == nil && plan.Delegated == nil {
		c.Timestamps += stampsOf(p)
		if p.Level.AtLeast(pades.BLT) {
			c.Evidence++
		}
	}
	priced, ok := r.Tenant.CRM.(connectors.Priced)
	if !ok || r.readings == 0 {
		return
	}
	files := 1
	if plan.AuditTrail != "" {
		files++
	}
	reading := (r.readCalls + r.readings - 1) / r.readings // at least one each, although records that are read together share calls
	c.CRM += 2*reading + priced.Price(files)
}

func stampsOf(p signing.Profile) int {
	switch {
	case p.Level.AtLeast(pades.BLTA):
		return 2
	case p.Level.AtLeast(pades.BT):
		return 1
	}
	return 0
}

// unknown are the limits of a rehearsal, as far as they matter for its rules.
func (r *rehearsing) unknown() []string {
	list := []string{
		"values and files are those of now: what a record said when it entered its stage is not kept by the CRM",
		"whether a record left its stage before it would have been sealed (if_left), or was changed meanwhile",
		"records that were deleted since have no history, and what the CRM shows late is missing",
		"what only the layout, the HSM, the TSA or a failing CRM would have said: no document was laid out, no key was used",
		"what the guard had learned before the first of these days; it is taken that a person releases what it holds at midnight UTC",
		"what entered a stage before these days, also where a record of these days entered it for the second time",
	}
	for _, rule := range r.Tenant.Rules {
		if rule.Watch.Snapshot {
			list = append(list, fmt.Sprintf("the entries of rule %s: they are inferred from snapshots, and no history tells of those of these days", rule.Watch.Rule))
		}
		if l := r.Tenant.Guard.Rules[rule.Watch.Rule]; l.FirstRun > 0 && !rule.StartFrom.IsZero() {
			list = append(list, fmt.Sprintf("whether rule %s is watched for the first time: then more than %d entries since its start_from are held until a person decides (first_run)", rule.Watch.Rule, l.FirstRun))
		}
	}
	return list
}
