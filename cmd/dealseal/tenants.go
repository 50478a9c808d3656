package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// turn is what a person wants of a tenant.
type turn struct {
	Verb   string        `json:"verb"` // pause or resume
	Tenant deal.TenantID `json:"tenant"`
	Why    string        `json:"why"`
	Who    string        `json:"-"` // as in a decision
}

// tenantsCommand lists the tenants, pauses one, or has it go on.
func tenantsCommand(ctx context.Context, c *call) error {
	verb, args := "list", []string(nil)
	if len(c.args) > 0 {
		verb, args = c.args[0], c.args[1:]
	}
	turns := (verb == "pause" || verb == "resume") && len(args) == 1
	switch {
	case turns && c.why == "":
		return usagef("say why with --why \"…\": it goes into the audit log, and to those who are told of it")
	case !turns && (verb != "list" || len(args) > 0):
		return usagef("%q cannot be done with tenants: it is list, pause TENANT, or resume TENANT", strings.Join(c.args, " "))
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	if !turns {
		return listTenants(ctx, c, ops)
	}
	if err := ops.TurnTenant(ctx, turn{Verb: verb, Tenant: deal.TenantID(args[0]), Why: c.why}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s %s\n", args[0], map[string]string{"pause": "is paused: its entries are noticed and wait", "resume": "goes on"}[verb])
	return err
}

func listTenants(ctx context.Context, c *call, ops operations) error {
	all, err := ops.Tenants(ctx)
	if err != nil {
		return err
	}
	pauses, err := ops.Pauses(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, map[string]any{"tenants": all, "paused": pauses})
	}
	for _, p := range pauses { // also of one that is neither configured nor has deals
		all = append(all, p.Tenant)
	}
	slices.Sort(all)
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENANT\tPAUSED\tBY\tWHY")
	for _, id := range slices.Compact(all) {
		p := deal.Pause{}
		if i := slices.IndexFunc(pauses, func(p deal.Pause) bool { return p.Tenant == id }); i >= 0 {
			p = pauses[i]
		}
		since := "no"
		if !p.Since.IsZero() {
			since = p.Since.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", id, since, printable(p.Who), printable(p.Why))
	}
	return w.Flush()
}

// TurnTenant pauses a tenant that is known, or has one go on.
func (l *local) TurnTenant(ctx context.Context, t turn) error {
	t.Who = cmp.Or(t.Who, l.who)
	switch t.Verb {
	case "pause":
		all, err := l.Tenants(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(all, t.Tenant) {
			return fmt.Errorf("there is no tenant %q: it is one of %s", t.Tenant, tenantNames(all))
		}
		return l.Pause(ctx, t.Tenant, t.Who, t.Why)
	case "resume":
		return l.Resume(ctx, t.Tenant, t.Who, t.Why)
	}
	return fmt.Errorf("%q is nothing that can be done with a tenant", t.Verb)
}

func (r *remote) Pauses(ctx context.Context) (all []deal.Pause, err error) {
	return all, r.ask(ctx, "GET", "/pauses", nil, &all)
}

func (r *remote) TurnTenant(ctx context.Context, t turn) error {
	body, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return r.ask(ctx, "POST", "/pauses", body, &struct{}{})
}

// pauseRoutes are the part of the control socket that is about tenants that wait.
func pauseRoutes(log *slog.Logger, ops operations) func(*http.ServeMux) {
	return func(mux *http.ServeMux) {
		mux.HandleFunc("GET /pauses", func(w http.ResponseWriter, r *http.Request) {
			all, err := ops.Pauses(r.Context())
			answer(w, all, err)
		})
		mux.HandleFunc("POST /pauses", func(w http.ResponseWriter, r *http.Request) {
			var t turn
			if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&t); err != nil {
				answer(w, nil, err)
				return
			}
			if t.Who = peerOf(r.Context()); t.Who == "" {
				answer(w, nil, errNoPeer)
				return
			}
			err := ops.TurnTenant(r.Context(), t)
			if err == nil {
				log.Warn("decided about a tenant", "verb", t.Verb, "tenant", t.Tenant, "who", t.Who)
			}
			answer(w, nil, err)
		})
	}
}

// sayPauses has the log say which tenants wait: a start must not make anybody believe that all goes on.
func (d *service) sayPauses(ctx context.Context) {
	all, err := d.store.Pauses(ctx)
	if err != nil {
		d.log.Error("which tenants are paused cannot be read", "err", err)
	}
	for _, p := range all {
		d.log.Warn("a tenant is paused: its entries are noticed and wait until \"dealseal tenants resume\"", "tenant", p.Tenant, "since", p.Since, "who", p.Who)
	}
}
