package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
)

// maxListed is how many discrepancies are listed one by one.
const maxListed = 1000

// reconcileOptions are the flags of the command.
type reconcileOptions struct {
	days   int
	dryRun bool
}

// reconcileOrder is what the daemon is asked for; no tenant stands for all of them, and no days for as many as are configured.
type reconcileOrder struct {
	Tenant deal.TenantID `json:"tenant,omitempty"`
	Days   int           `json:"days,omitempty"`
	DryRun bool          `json:"dry_run,omitempty"`
}

// reconcileReport is what came of one tenant's pass.
type reconcileReport struct {
	Pass deal.Pass `json:"pass"`
	// Found are the first discrepancies, Left how many of all of them wait for a person.
	Found []deal.Discrepancy `json:"found"`
	Left  int                `json:"left"`
	Err   string             `json:"error,omitempty"` // why the pass has stopped before its end
}

// reconcileCommand has the daemon compare CRMs with its ledger, or settles what was found.
func reconcileCommand(ctx context.Context, c *call) error {
	switch {
	case len(c.args) == 0:
		return reconcileNow(ctx, c)
	case c.args[0] == "list" && len(c.args) == 1:
		return listDiscrepancies(ctx, c)
	case c.args[0] == "seen" && len(c.args) == 2:
		return seenDiscrepancies(ctx, c)
	}
	return usagef("it takes nothing, \"list\", or \"seen\" and a transaction")
}

func reconcileNow(ctx context.Context, c *call) error {
	if c.reconcile.days < 0 || c.reconcile.days > config.MaxReconcileDays {
		return usagef("--days is %d: it must be 1 to %d", c.reconcile.days, config.MaxReconcileDays)
	}
	r, _, err := findDaemon(ctx, c.config)
	if errors.Is(err, errNoDaemon) {
		return fmt.Errorf("%w: it is the daemon that asks the CRMs", err)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if err := c.mustKnowTenant(ctx, r); err != nil {
		return err
	}
	reports, err := r.Reconcile(ctx, reconcileOrder{deal.TenantID(c.tenant), c.reconcile.days, c.reconcile.dryRun})
	if err != nil {
		return err
	}
	left := false
	for _, report := range reports {
		left = left || report.Left > 0 || report.Err != "" || len(report.Pass.Refused) > 0
	}
	if c.json {
		err = printJSON(c.stdout, reports)
	} else {
		err = printReports(c.stdout, reports, c.reconcile.dryRun)
	}
	if err == nil && left {
		err = &exitError{exitFailed}
	}
	return err
}

func printReports(out io.Writer, reports []reconcileReport, dryRun bool) error {
	for _, r := range reports {
		p, n, mended := r.Pass, 0, 0
		for kind, k := range p.Found {
			n, mended = n+k, mended+p.Mended[kind]
		}
		fmt.Fprintf(out, "%s: %s and %s looked at, %s, %d mended, %d for a person\n", p.Tenant, numberOf(p.Entries, "stage entry", "stage entries"), numberOf(p.Deals, "finished deal", "finished deals"),
			numberOf(n, "discrepancy", "discrepancies"), mended, r.Left)
		if len(p.Blind) > 0 {
			fmt.Fprintf(out, "missed entries were not looked for of %s: no history tells of them (detect: snapshot)\n", strings.Join(p.Blind, ", "))
		}
		for _, rule := range slices.Sorted(maps.Keys(p.Refused)) {
			fmt.Fprintf(out, "missed entries could not be looked for of %s: %s\n", rule, printable(p.Refused[rule]))
		}
		if r.Err != "" {
			fmt.Fprintf(out, "it has stopped before its end, and goes on from there next time: %s\n", printable(r.Err))
		}
		if err := printDiscrepancies(out, r.Found); err != nil {
			return err
		}
		if n > len(r.Found) {
			fmt.Fprintf(out, "… and %d more, which the log names\n", n-len(r.Found))
		}
	}
	if dryRun {
		fmt.Fprintln(out, "nothing was mended or written down: this was a dry run")
	}
	return nil
}

func printDiscrepancies(out io.Writer, list []deal.Discrepancy) error {
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TRANSACTION\tTENANT\tRECORD\tRULE\tKIND\tWHAT\tDONE")
	for _, d := range list {
		done := d.Mended
		if done == "" {
			done = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Tx, d.Tenant, d.Ref, d.Rule, d.Kind, printable(d.What), done)
	}
	return w.Flush()
}

func listDiscrepancies(ctx context.Context, c *call) error {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	list, err := ops.Discrepancies(ctx, deal.TenantID(c.tenant), maxListed)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(c.stdout, "the CRMs show what the ledger has, as of the last look, or somebody has dealt with it")
		return err
	}
	return printDiscrepancies(c.stdout, list)
}

func seenDiscrepancies(ctx context.Context, c *call) error {
	tx, err := deal.ParseTxID(c.args[1])
	if err != nil {
		return usagef("%v", err)
	}
	if c.why == "" {
		return usagef("say with --why \"…\" what was done about it: it goes into the audit log")
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	n, err := ops.DealWithDiscrepancies(ctx, tx, "", c.why)
	if err == nil && n == 0 {
		err = fmt.Errorf("nothing about %s waits for anybody: \"dealseal reconcile list\" lists what does", tx)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "dealt with: %s\n", numberOf(n, "discrepancy", "discrepancies"))
	return err
}

// Reconcile takes as long as it takes: only ctx ends it.
func (r *remote) Reconcile(ctx context.Context, o reconcileOrder) (reports []reconcileReport, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	patient := *r.client
	patient.Timeout = 0
	return reports, (&remote{&patient, r.person}).ask(ctx, "POST", "/reconcile", body, &reports)
}

func (r *remote) Discrepancies(ctx context.Context, tenant deal.TenantID, limit int) (list []deal.Discrepancy, err error) {
	err = r.ask(ctx, "GET", "/discrepancies?tenant="+string(tenant), nil, &list)
	return list[:min(limit, len(list))], err
}

// DealWithDiscrepancies leaves it to the daemon to know who says so.
func (r *remote) DealWithDiscrepancies(ctx context.Context, tx deal.TxID, _, why string) (n int, err error) {
	body, err := json.Marshal(decision{Tx: tx, Why: why})
	if err != nil {
		return 0, err
	}
	return n, r.ask(ctx, "POST", "/discrepancies", body, &n)
}

// reconcileRoutes are the daemon's side of it.
func (d *service) reconcileRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /reconcile", func(w http.ResponseWriter, r *http.Request) {
		var o reconcileOrder
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&o); err != nil {
			answer(w, nil, err)
			return
		}
		who := peerOf(r.Context())
		if who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		reports := []reconcileReport{}
		for _, t := range d.residents.house().tenants {
			id := deal.TenantID(t.file.Tenant.ID)
			if o.Tenant == "" || o.Tenant == id {
				days := o.Days
				if days == 0 {
					days = t.file.Reconcile.Days
				}
				reports = append(reports, d.reconcile(r.Context(), id, engine.Order{Days: days, DryRun: o.DryRun, Who: who}))
			}
		}
		answer(w, reports, nil)
	})
}

// reconcile makes one pass over a tenant.
func (d *service) reconcile(ctx context.Context, tenant deal.TenantID, o engine.Order) (r reconcileReport) {
	r.Found = []deal.Discrepancy{} // JSON: an empty list, not null
	var err error
	r.Pass, err = d.engine.Reconcile(ctx, tenant, o, func(x deal.Discrepancy) {
		if len(r.Found) < maxListed {
			r.Found = append(r.Found, x)
		}
		if x.Mended == "" {
			r.Left++
		}
	})
	if r.Pass.Tenant = tenant; err != nil {
		r.Err = err.Error()
	}
	return r
}

func numberOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
