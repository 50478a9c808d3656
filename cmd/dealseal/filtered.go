package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// listFiltered lists what the filters of rules have left out, of a record or transaction if one is named.
func listFiltered(ctx context.Context, c *call) error {
	if len(c.args) > 2 {
		return usagef("name one record or transaction; without any all are listed")
	}
	q := store.FilteredQuery{Tenant: deal.TenantID(c.tenant), Limit: c.limit}
	if len(c.args) == 2 {
		q.Name = c.args[1]
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	list, err := ops.Filtered(ctx, q)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(c.stdout, "no filter has left anything out")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TRANSACTION\tTENANT\tRECORD\tRULE\tENTERED\tASKED\tFILTER")
	for _, f := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Tx, f.Tenant, f.Ref, f.Rule, f.At.Format(time.RFC3339), f.Noticed.Format(time.RFC3339), printable(f.Filter))
	}
	return w.Flush()
}

// explainFiltered explains a transaction that was never begun. It returns whether there is one.
func (c *call) explainFiltered(ctx context.Context, ops operations, tx deal.TxID) (bool, error) {
	list, err := ops.Filtered(ctx, store.FilteredQuery{Name: string(tx), Limit: 1})
	if err != nil || len(list) == 0 {
		return false, err
	}
	f := list[0]
	if c.json {
		return true, printJSON(c.stdout, f)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"transaction", string(f.Tx)},
		{"tenant", fmt.Sprintf("%s (%s)", f.Tenant, f.Account)},
		{"record", f.Ref.String()},
		{"entered", f.Stage + " at " + f.At.Format(time.RFC3339Nano)},
		{"now", "filtered: nothing was made of it, and nothing will be"},
		{"why", fmt.Sprintf("when it was noticed, at %s, the record did not meet the filter of rule %s: %s", f.Noticed.Format(time.RFC3339), f.Rule, f.Filter)},
		{"what next", "nothing; if it should have a contract, see that it meets the filter and let it enter its stage again"},
	} {
		fmt.Fprintf(w, "%s\t%s\n", row[0], printable(row[1]))
	}
	return true, w.Flush()
}

// Filtered asks the daemon.
func (r *remote) Filtered(ctx context.Context, q store.FilteredQuery) (list []deal.FilteredEntry, err error) {
	text, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return list, r.ask(ctx, "GET", "/filtered?query="+url.QueryEscape(string(text)), nil, &list)
}
