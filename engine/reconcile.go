package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Books is what a reconciliation, and a request, read and write beside the ledger of the flow.
type Books interface {
	// Requested returns the transaction of a request that was taken in before, empty if there is none, and Request takes one in,
	// as the one entry of n. A *deal.RequestError when the key was used for something else, or the record has such a contract,
	// or is about to get it.
	Requested(ctx context.Context, tenant deal.TenantID, q deal.Request) (deal.TxID, error)
	Request(ctx context.Context, n deal.Noticing, q deal.Request) (deal.TxID, error)

	// Pass returns the newest pass of a tenant, the zero value when there was none; KeepPass replaces it.
	Pass(ctx context.Context, tenant deal.TenantID) (deal.Pass, error)
	KeepPass(ctx context.Context, p deal.Pass) error
	// Activated returns since when entries count for a watch, without activating it.
	Activated(ctx context.Context, account deal.AccountID, w deal.Watch) (since time.Time, found bool, err error)
	// Unnoticed returns those of the entries that the ledger knows under none of their names.
	Unnoticed(ctx context.Context, account deal.AccountID, entries []deal.Change) ([]deal.Change, error)
	// Finished returns the sealings of an account that came to their end not before since and after the given one, in that
	// order. FinishedOf returns those of one record. Erased ones are in neither.
	Finished(ctx context.Context, tenant deal.TenantID, account deal.AccountID, since time.Time, after deal.Finished, limit int) ([]deal.Finished, error)
	FinishedOf(ctx context.Context, tenant deal.TenantID, account deal.AccountID, ref deal.Ref) ([]deal.TxID, error)
	// Compared commits what came of comparing the record of a finished sealing. deal.ErrStale when someone else moved it.
	Compared(ctx context.Context, s *deal.Sealing, c deal.Comparison) error
}

// Order is what a reconciliation is to do.
type Order struct {
	// Days is how far back stage entries and finished deals are looked at.
	Days int
	// DryRun mends nothing and writes nothing down.
	DryRun bool
	// Who is for the audit log.
	Who string
}

// lateRows is how far behind the cursor the history is taken for read: what the CRM showed late is not missed before that.
const lateRows = time.Hour

// stretch is how many finished deals are compared between two commits of how far the pass has come.
const stretch = 20

// errBusy says that a tenant is being reconciled already.
var errBusy = errors.New("a pass over this tenant is under way already: wait until it has ended")

// Reconcile compares what a tenant's CRM shows with the ledger: stage entries that were never noticed, and the records of
// finished deals with their files, our fields and the values that went into the contract. It mends three things and no
// other: it notices a missed entry, puts the archive's very bytes back where they are gone, and has the newest receipt sent
// again. It never looks behind a rule's activation. Of rules whose entries are inferred from snapshots no missed entry can be
// found, which the pass says; so of rules whose history is refused.
//
// A pass that did not come to its end, over the same number of days, is gone on with. One runs at a time per tenant. tell is
// told of each discrepancy. The error says why the pass has stopped; what it has done so far is in p.
func (e *Engine) Reconcile(ctx context.Context, tenant deal.TenantID, o Order, tell func(deal.Discrepancy)) (p deal.Pass, err error) {
	e.init()
	ctx = logged(ctx, slog.String("tenant", string(tenant)))
	t, ok := e.tenants.get(tenant)
	if !ok {
		return p, fmt.Errorf("there is no tenant %q", tenant)
	}
	if !e.reconciling.begin(tenant) {
		return p, errBusy
	}
	defer e.reconciling.end(tenant)
	c := &reconciler{Engine: e, tenant: t, order: o, tell: tell}
	err = c.run(ctx)
	return c.pass, err
}

// reconciler is one pass under way.
type reconciler struct {
	*Engine
	tenant  *Tenant
	order   Order
	tell    func(deal.Discrepancy)
	pass    deal.Pass
	rules   []Rule
	watches []deal.Watch
}

func (c *reconciler) run(ctx context.Context) error {
	account, err := c.identify(ctx, c.tenant)
	if err != nil {
		return err
	}
	if err := c.begin(ctx, account.AccountID()); err != nil {
		return err
	}
	err = c.work(ctx)
	switch {
	case err == nil:
		c.pass.Ended, c.pass.Waits = c.Now().UTC(), ""
	case ctx.Err() != nil:
		c.pass.Waits = "the daemon was stopped, or whoever had asked for it went away"
	default:
		c.pass.Waits = err.Error()
	}
	if keepErr := c.keep(context.WithoutCancel(ctx)); err == nil {
		err = keepErr
	}
	c.Log.InfoContext(ctx, "reconciled", "entries", c.pass.Entries, "deals", c.pass.Deals, "found", c.pass.Found, "mended", c.pass.Mended, "dry_run", c.order.DryRun, "waits", c.pass.Waits)
	return err
}

// begin goes on with the stored pass, or makes a new one.
func (c *reconciler) begin(ctx context.Context, account deal.AccountID) error {
	if err := c.watch(ctx, account); err != nil {
		return err
	}
	if !c.order.DryRun {
		last, err := c.Books.Pass(ctx, c.tenant.ID)
		if err != nil {
			return err
		}
		if !last.Began.IsZero() && last.Ended.IsZero() && last.Account == account && last.Days == c.order.Days {
			c.pass = last
			c.Log.InfoContext(ctx, "a pass that did not come to its end is gone on with", "began", last.Began)
			return nil
		}
	}
	cursor, err := c.Ledger.Cursor(ctx, c.tenant.ID, account)
	if err != nil {
		return err
	}
	c.pass = deal.Pass{Tenant: c.tenant.ID, Account: account, Who: c.order.Who, Days: c.order.Days, Began: c.Now().UTC()}
	if !cursor.Since.IsZero() {
		c.pass.To = cursor.Since.Add(-lateRows)
		c.pass.From = c.pass.To.Add(-c.span())
	}
	for _, w := range c.watches {
		if w.Snapshot {
			c.pass.Blind = append(c.pass.Blind, w.Rule)
		}
	}
	return c.keep(ctx)
}

func (c *reconciler) span() time.Duration { return time.Duration(c.order.Days) * 24 * time.Hour }

// watch finds out since when each rule counts. One that was never activated counts for nothing yet.
func (c *reconciler) watch(ctx context.Context, account deal.AccountID) error {
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	rules, err := ResolveStages(ctx, c.tenant.CRM, c.tenant.Rules)
	if err != nil {
		return err
	}
	for _, r := range rules {
		w := r.Watch
		since, found, err := c.Books.Activated(ctx, account, w)
		if err != nil {
			return err
		}
		if w.Since = since; found {
			c.rules, c.watches = append(c.rules, r), append(c.watches, w)
		}
	}
	return nil
}

func (c *reconciler) keep(ctx context.Context) error {
	if c.order.DryRun {
		return nil
	}
	return c.Books.KeepPass(ctx, c.pass)
}

func (c *reconciler) work(ctx context.Context) error {
	if err := c.readEntries(ctx); err != nil {
		return err
	}
	return c.compareDeals(ctx)
}

// mayGoOn says why the pass has to wait: it never takes what the flow needs.
func (c *reconciler) mayGoOn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.isStopping() {
		return context.Canceled
	}
	if c.MayNotice != nil {
		if err := c.MayNotice(); err != nil {
			return &pausedError{err.Error(), 15 * time.Minute}
		}
	}
	if paused, err := c.Ledger.IsPaused(ctx, c.tenant.ID); err != nil || paused && !c.order.DryRun {
		return cmp.Or(err, error(&pausedError{"the tenant is paused, and nothing is written to its CRM", 15 * time.Minute}))
	}
	if share := budgetOf(c.tenant.CRM).Share(); share >= SlowAt {
		return &pausedError{fmt.Sprintf("%.0f %% of the CRM's API allowance is used: the pass goes on when less is", share*100), time.Hour}
	}
	return nil
}

// found takes in what was found.
func (c *reconciler) found(ctx context.Context, list []deal.Discrepancy) {
	c.pass.Count(list)
	for _, d := range list {
		level := slog.LevelWarn
		if d.Kind == deal.RecordMerged || d.Kind == deal.ValuesDiffer {
			level = slog.LevelInfo
		}
		c.Log.Log(ctx, level, "the CRM does not show what the ledger has", "kind", d.Kind, "tx", d.Tx, "record", d.Ref, "what", d.What, "mended", d.Mended)
		if c.tell != nil {
			c.tell(d)
		}
	}
}

// readEntries looks for stage entries that were never noticed, object by object: one that is refused keeps nobody from the others.
func (c *reconciler) readEntries(ctx context.Context) error {
	h, ok := c.tenant.CRM.(connectors.Historian)
	if !ok || c.pass.Read || c.pass.To.IsZero() || len(c.watches) == 0 {
		return nil
	}
	for _, watches := range c.unread() {
		if key := connectors.WatchesKey(watches); key != c.pass.Watches {
			c.pass.Watches, c.pass.Cursor = key, deal.Cursor{}
		}
		if err := c.readObject(ctx, h, watches); err != nil {
			return err
		}
	}
	c.pass.Read = true
	return c.keep(ctx)
}

// unread are the watches of each object whose history was not read to its end.
func (c *reconciler) unread() (of [][]deal.Watch) {
	for _, w := range c.watches {
		i := slices.IndexFunc(of, func(its []deal.Watch) bool { return its[0].Object == w.Object })
		if i < 0 {
			i, of = len(of), append(of, nil)
		}
		of[i] = append(of[i], w)
	}
	at := slices.IndexFunc(of, func(its []deal.Watch) bool { return connectors.WatchesKey(its) == c.pass.Watches })
	return of[max(at, 0):]
}

func (c *reconciler) readObject(ctx context.Context, h connectors.Historian, watches []deal.Watch) error {
	for more := true; more; {
		if err := c.mayGoOn(ctx); err != nil {
			return err
		}
		page, err := c.entriesAfter(ctx, h, watches)
		if deal.IsPermanent(err) && (!connectors.IsLogin(err) || connectors.LoginTrouble(err) == connectors.LoginNoPermission) {
			c.without(ctx, watches, err)
			return c.keep(ctx)
		}
		if err != nil {
			return err
		}
		if err := c.takeIn(ctx, page); err != nil {
			return err
		}
		c.pass.Entries += len(page.Entries)
		c.pass.Cursor, more = page.Next, page.More
		if err := c.keep(ctx); err != nil {
			return err
		}
	}
	return nil
}

// without takes note of rules whose history is refused.
func (c *reconciler) without(ctx context.Context, watches []deal.Watch, err error) {
	c.Log.WarnContext(ctx, "missed entries could not be looked for: the history is refused, while all else is compared", "object", watches[0].Object, "err", err)
	if c.pass.Refused == nil {
		c.pass.Refused = map[string]string{}
	}
	for _, w := range watches {
		c.pass.Refused[w.Rule] = err.Error()
	}
}

func (c *reconciler) entriesAfter(ctx context.Context, h connectors.Historian, watches []deal.Watch) (page deal.Page, err error) {
	err = c.patiently(ctx, crmLimit, func(ctx context.Context) error {
		page, err = h.Entries(ctx, c.pass.From, c.pass.To, c.pass.Cursor, watches)
		return err
	})
	return page, err
}

// patiently makes a call a few times, if the trouble is one that passes.
func (c *reconciler) patiently(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	const most = 3
	for attempt := 1; ; attempt++ {
		limited, cancel := context.WithTimeout(ctx, limit)
		err := do(limited)
		cancel()
		wait := c.Retry.after(attempt, deal.RetryAfter(err), c.random)
		if err == nil || deal.IsPermanent(err) || connectors.IsLogin(err) || attempt == most || wait > time.Minute || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-c.stopping:
			return context.Canceled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takeIn has the missed entries of a page noticed, as the poll would have: what guards the one guards the other.
func (c *reconciler) takeIn(ctx context.Context, page deal.Page) error {
	missed, err := c.Books.Unnoticed(ctx, c.pass.Account, page.Entries)
	if err != nil {
		return err
	}
	if c.order.DryRun || len(missed)+len(page.Quarantined) == 0 {
		c.found(ctx, c.missed(missed, ""))
		return nil
	}
	n := deal.Noticing{Tenant: c.tenant.ID, Account: c.pass.Account, Plans: map[string]deal.Plan{}, Watches: map[string]deal.Watch{}, Guard: c.tenant.Guard,
		Page: deal.Page{Entries: missed, Quarantined: page.Quarantined, More: true}} // the end of a rule's first run is the poll's to find
	for i, r := range c.rules {
		n.Plans[r.Watch.Rule], n.Watches[r.Watch.Rule] = r.Plan, c.watches[i]
	}
	if err := c.filter(ctx, c.tenant.CRM, c.rules, &n, false); err != nil {
		return err
	}
	missed = n.Page.Entries
	const most = 20 // the poll moves the cursor meanwhile
	for range most {
		if n.Previous, err = c.Ledger.Cursor(ctx, c.tenant.ID, c.pass.Account); err != nil {
			return err
		}
		n.Page.Next = n.Previous
		if _, err = c.Ledger.Notice(ctx, n); !errors.Is(err, deal.ErrStale) {
			break
		}
	}
	if err == nil {
		c.found(ctx, c.missed(missed, "it was noticed"))
	}
	return err
}

func (c *reconciler) missed(entries []deal.Change, mended string) (list []deal.Discrepancy) {
	for _, x := range entries {
		list = append(list, deal.Discrepancy{Kind: deal.EntryMissed, Tenant: c.tenant.ID, Tx: x.TxIDs(c.pass.Account)[0], Ref: x.Ref, Rule: x.Rule,
			What: fmt.Sprintf("the record entered %q at %s and was never noticed", x.Stage, x.At.UTC().Format(time.RFC3339)), Mended: mended})
	}
	return list
}

// compareDeals looks at the records of finished deals, oldest first.
func (c *reconciler) compareDeals(ctx context.Context) error {
	since := c.pass.Began.Add(-c.span())
	for {
		list, err := c.Books.Finished(ctx, c.tenant.ID, c.pass.Account, since, c.pass.After, stretch)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, f := range list {
			if f.At.After(c.pass.Began) {
				return nil // the next pass's
			}
			if err := c.mayGoOn(ctx); err != nil {
				return err
			}
			if err := c.compareDeal(ctx, f.Tx); err != nil {
				return err
			}
			c.pass.After = f
			c.pass.Deals++
		}
		if err := c.keep(ctx); err != nil {
			return err
		}
	}
}

func (c *reconciler) compareDeal(ctx context.Context, tx deal.TxID) error {
	var found []deal.Discrepancy
	err := c.patiently(ctx, compareLimit, func(ctx context.Context) (err error) {
		found, err = c.compare(ctx, c.tenant, tx, !c.order.DryRun, c.order.Who)
		return err
	})
	if errors.Is(err, deal.ErrStale) {
		return nil // somebody works on it, and the next pass looks again
	}
	c.found(ctx, found)
	return err
}

// passes are the tenants that are being reconciled. The zero value is ready.
type passes struct {
	mu  sync.Mutex
	now map[deal.TenantID]bool
}

// begin reports whether the tenant was not being reconciled yet.
func (p *passes) begin(tenant deal.TenantID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now[tenant] {
		return false
	}
	if p.now == nil {
		p.now = map[deal.TenantID]bool{}
	}
	p.now[tenant] = true
	return true
}

func (p *passes) end(tenant deal.TenantID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.now, tenant)
}
