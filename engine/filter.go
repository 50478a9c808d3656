package engine

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

const (
	// filterReaders is how many records are read at once for their filters: those that wait together share calls.
	filterReaders = 8
	// filterLimit is for all records of a page.
	filterLimit = 10 * time.Minute
	// filterPatience is after how many polls in a row that have failed a record is let through that keeps failing.
	filterPatience = 3
)

// filter asks the records of new entries whether they meet the filters of their rules, and moves those that do not from
// n.Page to n.Filtered. What a record says now decides, and that once: the ledger takes note of the answer with the page, and
// asks no second time.
//
// A record that cannot be read, or judged, is let through as unjudged: the flow judges it before it makes anything, and a
// person sees what is in its way. So one record keeps no page from being taken in. What may be over soon is an error while
// there is patience, and a login that fails is one always.
func (e *Engine) filter(ctx context.Context, crm connectors.CRM, rules []Rule, n *deal.Noticing, patient bool) error {
	filters := map[string]*deal.Filter{}
	for _, r := range rules {
		if r.Filter != nil {
			filters[r.Watch.Rule] = r.Filter
		}
	}
	var asked []deal.Change
	for _, c := range n.Page.Entries {
		if since := n.Watches[c.Rule].Since; filters[c.Rule] != nil && !c.At.Before(since) {
			asked = append(asked, c)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	fresh, err := e.Books.Unnoticed(ctx, n.Account, asked)
	if err != nil || len(fresh) == 0 {
		return err
	}
	verdicts, err := judgeAll(ctx, crm, n.Account, filters, fresh, patient)
	if err != nil {
		return err
	}
	var left []deal.Change
	for _, c := range n.Page.Entries {
		switch v := verdicts[c.TxIDs(n.Account)[0]]; {
		case v.err != nil:
			e.Log.WarnContext(ctx, "a record could not be judged by its rule's filter: this is done before anything is made of it", "record", c.Ref, "rule", c.Rule, "err", v.err)
			c.Unjudged = true
		case v.out:
			e.Log.InfoContext(ctx, "filtered", "record", c.Ref, "rule", c.Rule)
			n.Filtered = append(n.Filtered, c)
			continue
		}
		left = append(left, c)
	}
	n.Page.Entries = left
	return nil
}

// verdict is what a filter says of an entry. The zero value lets it through.
type verdict struct {
	out bool
	err error // it could not be judged
}

// judgeAll reads and judges the records of entries. Without patience those count as not judged that are not read in time.
func judgeAll(whole context.Context, crm connectors.CRM, account deal.AccountID, filters map[string]*deal.Filter, entries []deal.Change, patient bool) (map[deal.TxID]verdict, error) {
	ctx, cancel := context.WithTimeout(whole, filterLimit)
	defer cancel()
	verdicts := map[deal.TxID]verdict{}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(filterReaders)
	for _, c := range entries {
		g.Go(func() error {
			ok, misfit, err := meets(ctx, crm, filters[c.Rule], c.Ref)
			if err != nil && (whole.Err() != nil || connectors.IsLogin(err) || patient && !deal.IsPermanent(err)) {
				return fmt.Errorf("read %s for the filter of rule %s: %w", c.Ref, c.Rule, err)
			}
			mu.Lock()
			defer mu.Unlock()
			err = cmp.Or(err, misfit)
			verdicts[c.TxIDs(account)[0]] = verdict{out: err == nil && !ok, err: err}
			return nil
		})
	}
	return verdicts, g.Wait()
}

// meets reports whether a record meets a filter now; misfit says that a value is none that the filter can compare.
func meets(ctx context.Context, crm connectors.CRM, f *deal.Filter, ref deal.Ref) (ok bool, misfit, err error) {
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	rec, err := crm.Record(ctx, ref, f.Paths())
	if err != nil {
		return false, nil, err
	}
	ok, misfit = f.Matches(rec)
	return ok, misfit, nil
}

// filtered ends a deal that could not be judged when it was noticed and does not meet its rule's filter now.
func (r *run) filtered(ctx context.Context) (stop bool, err error) {
	s := r.s
	if !s.Change.Unjudged || s.Plan.Filter == "" {
		return false, nil
	}
	f, err := deal.ParseFilter(s.Plan.Filter)
	if err != nil {
		return false, deal.Hold("the filter of rule %q cannot be read: %v", s.Plan.Rule, err)
	}
	t, err := r.tenant(ctx, s)
	if err != nil {
		return false, err
	}
	var ok bool
	var misfit error
	err = r.ask(ctx, "record", crmLimit, func(ctx context.Context) (err error) {
		ok, misfit, err = meets(ctx, t.CRM, f, s.Change.Ref)
		return err
	})
	switch {
	case err != nil:
		return false, err
	case misfit != nil:
		return false, deal.Hold("%v: correct the record, or the filter for later deals, and release the deal; or drop it", misfit)
	case ok:
		return false, nil
	}
	return true, r.void(ctx, "the record does not meet the rule's filter")
}
