package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// jobs lists deals, or carries out a decision about one.
func jobs(ctx context.Context, c *call) error {
	verb := "list"
	if len(c.args) > 0 {
		verb = c.args[0]
	}
	switch verb {
	case "list":
		return listJobs(ctx, c)
	case "retry", "release", "prepare", "drop":
		return decide(ctx, c, verb)
	case "seen":
		return seen(ctx, c)
	case "filtered":
		return listFiltered(ctx, c)
	}
	return usagef("%q cannot be done with jobs: it is list, retry, release, prepare, drop, seen or filtered", verb)
}

func listJobs(ctx context.Context, c *call) error {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	list, err := c.listed(ctx, ops)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if err := c.mustKnowTenant(ctx, ops); err != nil {
			return err
		}
	}
	if c.json {
		return printJSON(c.stdout, list)
	}
	if err := c.printGuards(ctx, ops); err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(c.stdout, map[bool]string{true: "there are no deals", false: "nothing is in the works (finished deals: dealseal jobs --all)"}[c.all])
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TRANSACTION\tTENANT\tRECORD\tRULE\tSTEP\tCONDITION\tSINCE\tREASON")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Tx, m.Tenant, m.Ref, m.Rule, m.Step, condition(m), ago(m.Updated), printable(m.Reason))
	}
	return w.Flush()
}

// printGuards says what the guard holds together, before the deals themselves.
func (c *call) printGuards(ctx context.Context, ops operations) error {
	holds, err := ops.Guards(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		if c.tenant == "" || h.Tenant == deal.TenantID(c.tenant) {
			fmt.Fprintf(c.stdout, "The guard holds %s of %s since %s: %s.\nDecide with \"dealseal jobs release --guard %s --why …\", or drop.\n\n", plural(h.Held, "deal"), h.GuardScope, ago(h.Since), printable(h.Cause), h.GuardScope)
		}
	}
	return nil
}

// mustKnowTenant tells a tenant that has nothing to do from one that does not exist.
func (c *call) mustKnowTenant(ctx context.Context, ops operations) error {
	if c.tenant == "" {
		return nil
	}
	all, err := ops.Tenants(ctx)
	if err != nil || slices.Contains(all, deal.TenantID(c.tenant)) {
		return err
	}
	var names []string
	for _, t := range all {
		names = append(names, string(t))
	}
	return fmt.Errorf("there is no tenant with the id %q: there are %s", c.tenant, strings.Join(names, ", "))
}

// listed returns the newest deals that the flags ask for. It reads on until there are enough, because what waits may well
// be older than all that is done.
func (c *call) listed(ctx context.Context, ops operations) (list []store.Summary, err error) {
	if c.limit < 1 {
		return nil, usagef("-n is %d: it must be at least 1", c.limit)
	}
	list = []store.Summary{} // JSON: an empty list, not null
	f := store.Filter{Tenant: deal.TenantID(c.tenant), Limit: pageSize}
	for {
		page, err := ops.List(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			if c.all || m.Step != deal.Done && m.Condition != deal.Ended {
				list = append(list, m)
			}
			if len(list) == c.limit {
				return list, nil
			}
		}
		if len(page) < pageSize {
			return list, nil
		}
		f.Before = page[len(page)-1].Seq
	}
}

// pageSize is how many deals are asked for at once.
const pageSize = 1000

func condition(m store.Summary) string {
	switch {
	case m.Step == deal.Done:
		return "done"
	case m.Condition == deal.Dead && !m.Step.Before(deal.Kept):
		return "sealed, CRM not told"
	case m.Condition == deal.Retrying:
		return fmt.Sprintf("retrying (%d) in %s", m.Attempts, time.Until(m.Next).Round(time.Second))
	}
	return string(m.Condition)
}

func ago(t time.Time) string { return time.Since(t).Round(time.Second).String() + " ago" }

func decide(ctx context.Context, c *call, verb string) error {
	if c.guard != "" {
		return decideGuarded(ctx, c, verb)
	}
	if len(c.args) != 2 {
		return usagef("name one transaction")
	}
	if verb == "retry" && c.args[1] == "all" {
		return retryAll(ctx, c)
	}
	tx, err := deal.ParseTxID(c.args[1])
	if err != nil {
		return usagef("%v", err)
	}
	if c.why == "" {
		if verb != "retry" {
			return usagef("say why with --why \"…\": it goes into the audit log")
		}
		c.why = "retried by hand"
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	if err := ops.Decide(ctx, decision{Verb: verb, Tx: tx, Why: c.why}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %s\n", tx, map[string]string{"retry": "tried again now", "release": "released, goes on now", "prepare": "its document is made anew, from what is on the record now", "drop": "dropped"}[verb])
	return err
}

// decideGuarded releases or drops all that the guard holds of a tenant or of one of its rules.
func decideGuarded(ctx context.Context, c *call, verb string) error {
	switch {
	case verb != "release" && verb != "drop":
		return usagef("--guard is for release and drop")
	case len(c.args) != 1:
		return usagef("--guard decides about all deals that are held together: name no transaction with it")
	case c.why == "":
		return usagef("say why with --why \"…\": it goes into the audit log")
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	d := guardDecision{Verb: verb, Why: c.why}
	tenant, rule, _ := strings.Cut(c.guard, "/")
	d.Tenant, d.Rule = deal.TenantID(tenant), rule
	n, err := ops.DecideGuarded(ctx, d)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s of %s: %s\n", plural(n, "deal"), d.GuardScope, map[string]string{"release": "released, and sealed one after the other now", "drop": "dropped; the CRM is told nothing of them"}[verb])
	return err
}

// retryAll lets every deal go on at once that was given up or waits for its next attempt: after an outage, or a secret that
// was mended.
func retryAll(ctx context.Context, c *call) error {
	if c.why == "" {
		c.why = "all were retried by hand"
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	if err := c.mustKnowTenant(ctx, ops); err != nil {
		return err
	}
	retried, refused := 0, 0
	for _, condition := range []deal.Condition{deal.Retrying, deal.Dead} {
		f := store.Filter{Tenant: deal.TenantID(c.tenant), Condition: condition, Limit: pageSize}
		for {
			page, err := ops.List(ctx, f)
			if err != nil {
				return err
			}
			for _, m := range page {
				if strings.HasPrefix(m.Reason, deal.ReasonAwaiting) {
					continue // nothing is wrong with it
				}
				err := ops.Decide(ctx, decision{Verb: "retry", Tx: m.Tx, Why: c.why})
				switch {
				case err == nil:
					retried++
				case condition == deal.Dead: // one that waited may have gone on by itself
					fmt.Fprintf(c.stderr, "dealseal jobs: %v\n", err)
					refused++
				}
			}
			if len(page) < pageSize {
				break
			}
			f.Before = page[len(page)-1].Seq
		}
	}
	fmt.Fprintf(c.stdout, "%d deals go on now\n", retried)
	if refused > 0 {
		return &exitError{exitFailed}
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
