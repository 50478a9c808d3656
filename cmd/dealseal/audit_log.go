package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

type auditOptions struct{ what, since string }

// listAudit lists entries of the audit log that are about no deal; "explain" tells those of one.
func listAudit(ctx context.Context, c *call) error {
	since, err := moment("--since", c.audit.since)
	if err != nil {
		return err
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	list, err := ops.AuditLog(ctx, store.AuditQuery{Tenant: deal.TenantID(c.tenant), What: c.audit.what, Since: since, Limit: c.limit})
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(c.stdout, "the audit log has no such entries (dealseal explain TX tells those of a deal)")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENTRY\tAT\tWHO\tWHAT\tTENANT\tWHY\tDETAILS")
	for _, l := range list {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Index, l.At.Format(time.RFC3339), printable(l.Who), l.What, l.Tenant, printable(l.Why), printable(details(l)))
	}
	return w.Flush()
}

// details are what an entry says besides, in one line.
func details(l store.AuditLine) string {
	var all []string
	if l.Cert != "" {
		all = append(all, "certificate="+l.Cert)
	}
	for _, key := range slices.Sorted(maps.Keys(l.Detail)) {
		if v := l.Detail[key]; v != "" {
			all = append(all, key+"="+v)
		}
	}
	return strings.Join(all, " ")
}

// AuditLog asks the daemon.
func (r *remote) AuditLog(ctx context.Context, q store.AuditQuery) (list []store.AuditLine, err error) {
	text, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return list, r.ask(ctx, "GET", "/audit/log?query="+url.QueryEscape(string(text)), nil, &list)
}
