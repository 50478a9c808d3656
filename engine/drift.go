package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// What a poll shows as changed is compared with its contract, if it has one, beside the polls: a record whose values were
// edited after the seal says so within moments. Only values are compared, and nothing of this outlives the process: the
// nightly pass compares all there is, whatever was missed here.

// mostChanged bounds the records that wait to be compared.
const mostChanged = 1000

// changedRecords wait to be compared.
type changedRecords struct {
	added chan struct{} // holds a value once there are some

	mu   sync.Mutex
	refs []deal.Ref
}

func newChangedRecords() *changedRecords { return &changedRecords{added: make(chan struct{}, 1)} }

// add returns how many there was no room for. Without any it has those tried again that had to wait.
func (c *changedRecords) add(refs []deal.Ref) (lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ref := range refs {
		switch {
		case slices.Contains(c.refs, ref):
		case len(c.refs) == mostChanged:
			lost++
		default:
			c.refs = append(c.refs, ref)
		}
	}
	if len(c.refs) > 0 {
		select {
		case c.added <- struct{}{}:
		default:
		}
	}
	return lost
}

func (c *changedRecords) next() (ref deal.Ref, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.refs) == 0 {
		return deal.Ref{}, false
	}
	ref = c.refs[0]
	c.refs = slices.Delete(c.refs, 0, 1)
	return ref, true
}

// editsEvery is how often a CRM is asked what others have edited, where its polls do not tell: one call for each object.
const editsEvery = 5 * time.Minute

// editsQuestions are to be asked where no poll waits for the answers. since is when the tenant was first polled.
type editsQuestions struct {
	of    []connectors.EditsOf
	since time.Time
}

// editsKnown is from when on each object is to be asked about, and why that could not be done the last time.
type editsKnown struct {
	from map[string]time.Time
	said string
}

// lookForEdits has it asked what others have edited since, if it is time. While the answers before are waited for nothing is asked.
func (p *poller) lookForEdits() {
	if p.Now().Sub(p.editsAt) < editsEvery || p.budget().Share() >= SlowAt {
		return
	}
	p.editsAt = p.Now()
	select {
	case p.asks <- editsQuestions{editsOf(p.rules), p.account.Clock}:
	default:
	}
}

// askEdits has the records compared that others have edited. What cannot be asked now is asked the next time.
func (p *poller) askEdits(ctx context.Context, q editsQuestions, known *editsKnown) {
	able, ok := p.tenant.CRM.(connectors.Edits)
	if !ok {
		return
	}
	said := ""
	for _, ask := range q.of {
		if ask.From, ok = known.from[ask.Object]; !ok {
			ask.From = q.since
		}
		next, err := p.askEditsOf(ctx, able, ask)
		if err == nil {
			known.from[ask.Object] = next
		} else if ctx.Err() == nil {
			if said = err.Error(); said != known.said {
				p.Log.WarnContext(ctx, "what others have edited could not be seen: this is tried again, and the nightly pass compares all there is", "object", ask.Object, "err", err)
			}
		}
	}
	known.said = said
}

func (p *poller) askEditsOf(ctx context.Context, able connectors.Edits, ask connectors.EditsOf) (next time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	edited, err := able.Edited(ctx, ask)
	if lost := p.changed.add(edited.Refs); edited.More || lost > 0 { // with an error, too: what is lost is not shown again
		p.Log.WarnContext(ctx, "more records were edited than can be compared with their contracts at once: the nightly pass compares them", "object", ask.Object)
	}
	return edited.Next, err
}

// editsOf are the questions that tell of edits of the contracts of rules: those made of templates have values to compare. A
// field that all rules of an object write the transaction to tells the records that have one.
func editsOf(rules []Rule) (all []connectors.EditsOf) {
	for _, r := range rules {
		if r.Plan.Attachment != "" || len(r.Plan.Fields) == 0 {
			continue
		}
		i := slices.IndexFunc(all, func(e connectors.EditsOf) bool { return e.Object == r.Watch.Object })
		if i < 0 {
			i = len(all)
			all = append(all, connectors.EditsOf{Object: r.Watch.Object, Bearing: r.Plan.WriteBack.TransactionID})
		}
		if all[i].Bearing != r.Plan.WriteBack.TransactionID {
			all[i].Bearing = ""
		}
		all[i].Fields = append(all[i].Fields, r.Plan.Fields...)
	}
	for i := range all {
		slices.Sort(all[i].Fields)
		all[i].Fields = slices.Compact(all[i].Fields)
	}
	return all
}

// compareChanged compares what polls, and answers about edits, have shown as changed until ctx ends. What cannot be compared now
// waits for the next poll.
func (p *poller) compareChanged(ctx context.Context) {
	ctx = logged(ctx, slog.String("tenant", string(p.tenant.ID)))
	said, known := "", editsKnown{from: map[string]time.Time{}}
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-p.asks:
			p.askEdits(ctx, q, &known)
			continue
		case <-p.changed.added:
		}
		said = p.compareNow(ctx, said)
	}
}

// compareNow logs why it could not, unless that is what was said last: while a tenant is paused each poll would say so.
func (p *poller) compareNow(ctx context.Context, said string) string {
	err := p.compareAll(ctx)
	switch {
	case err == nil:
		return ""
	case ctx.Err() == nil && err.Error() != said:
		p.Log.InfoContext(ctx, "records that were changed could not be compared with their contracts: this is tried again after each poll", "err", err)
	}
	return err.Error()
}

func (p *poller) compareAll(ctx context.Context) error {
	account, ok := p.tenants.account(p.tenant)
	if !ok {
		return nil // no poll has come so far
	}
	c := &reconciler{Engine: p.Engine, tenant: p.tenant}
	for ref, ok := p.changed.next(); ok; ref, ok = p.changed.next() {
		if err := c.compareValuesOf(ctx, account.AccountID(), ref); err != nil {
			p.changed.back(ref)
			return err
		}
	}
	return nil
}

// back has a record wait for the next poll.
func (c *changedRecords) back(ref deal.Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.refs, ref) {
		c.refs = append(c.refs, ref)
	}
}

// compareValuesOf compares a record with each contract that was made of it. One without any costs no call.
func (c *reconciler) compareValuesOf(ctx context.Context, account deal.AccountID, ref deal.Ref) error {
	txs, err := c.Books.FinishedOf(ctx, c.tenant.ID, account, ref)
	if err != nil {
		return err
	}
	for _, tx := range txs {
		if err := c.mayGoOn(ctx); err != nil {
			return err
		}
		var found []deal.Discrepancy
		err := c.patiently(ctx, crmLimit, func(ctx context.Context) (err error) {
			found, err = c.Engine.compareOnlyValues(ctx, c.tenant, tx)
			return err
		})
		if err != nil && !errors.Is(err, deal.ErrStale) { // somebody works on it, and it is shown as changed by that
			return err
		}
		for _, d := range found {
			c.Log.InfoContext(ctx, "the CRM does not show what the ledger has", "kind", d.Kind, "tx", d.Tx, "record", d.Ref, "what", d.What)
		}
	}
	return nil
}

// compareOnlyValues compares the mapped fields of a finished deal with its contract, and commits what it has found. What else is
// wrong with the record is for the nightly pass.
func (e *Engine) compareOnlyValues(ctx context.Context, t *Tenant, tx deal.TxID) ([]deal.Discrepancy, error) {
	s, err := e.Ledger.Load(ctx, tx)
	if err != nil || s.Step != deal.Done || s.Plan.Attachment != "" || len(s.Private.Values) == 0 {
		return nil, err
	}
	c := &comparer{Engine: e, t: t, s: s}
	c.result.Who, c.result.OnlyValues = "daemon", true
	rec, _, err := c.read(ctx)
	if err == nil {
		err = c.compareValues(ctx, rec)
	}
	switch {
	case err != nil && deal.IsPermanent(err) && !connectors.IsLogin(err), errors.Is(err, deal.ErrGone):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return c.result.Found, e.Books.Compared(ctx, s, c.result)
}
