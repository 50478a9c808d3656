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
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/store"
)

// Bounds of a rehearsal, for each tenant.
const (
	usualShadowCalls = 1000
	mostShadowCalls  = 100_000
	shadowLimit      = 15 * time.Minute
)

// shadowOptions are the flags of the command.
type shadowOptions struct{ days, calls int }

// shadowOrder is what the daemon is asked for; no tenant stands for all of them.
type shadowOrder struct {
	Tenant deal.TenantID `json:"tenant,omitempty"`
	Days   int           `json:"days"`
	Calls  int           `json:"calls"`
}

// shadowReport is what came of one tenant's rehearsal.
type shadowReport struct {
	engine.Shadow
	Err string `json:"error,omitempty"` // why nothing could be found out
}

// shadowCommand rehearses the files as they are now, also those that no daemon has taken in yet. A running daemon does it,
// because it has the logins; else the command itself.
func shadowCommand(ctx context.Context, c *call) error {
	if c.shadow.days < 1 || c.shadow.days > config.MaxReconcileDays {
		return usagef("--days is %d: say how far back to look, 1 to %d", c.shadow.days, config.MaxReconcileDays)
	}
	if c.shadow.calls < 1 || c.shadow.calls > mostShadowCalls {
		return usagef("--calls is %d: it must be 1 to %d", c.shadow.calls, mostShadowCalls)
	}
	order := shadowOrder{deal.TenantID(c.tenant), c.shadow.days, c.shadow.calls}
	var reports []shadowReport
	daemon, _, err := findDaemon(ctx, c.config)
	switch {
	case err == nil:
		defer daemon.Close()
		reports, err = daemon.Shadow(ctx, order)
	case errors.Is(err, errNoDaemon):
		reports, err = c.shadowAlone(ctx, order)
	}
	if err != nil {
		return err
	}
	if c.json {
		err = printJSON(c.stdout, reports)
	} else {
		err = printShadows(c.stdout, reports)
	}
	if err == nil && slices.ContainsFunc(reports, func(r shadowReport) bool { return r.Err != "" }) {
		err = &exitError{exitFailed}
	}
	return err
}

// shadowAlone is for when no daemon runs.
func (c *call) shadowAlone(ctx context.Context, o shadowOrder) ([]shadowReport, error) {
	h, err := loadHouse(c.config)
	if err != nil {
		return nil, err
	}
	registered, err := store.CertificatesIn(ctx, h.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	x := h.newExaminer(ctx, newLogQuiet(c.stderr))
	defer x.close()
	return h.shadow(ctx, o, h.keyLimits(registered), func(t tenant) (connectors.CRM, func(), error) {
		crm, err := x.connect(ctx, t)
		return crm, func() { retire(crm) }, err
	})
}

func retire(crm connectors.CRM) {
	if r, ok := crm.(connectors.Retirer); ok {
		r.Retire()
	}
}

// shadow rehearses one tenant or all. connect returns a tenant's CRM, and what to do when it is not needed any more.
func (h *house) shadow(ctx context.Context, o shadowOrder, limits map[string]deal.KeyLimits, connect func(tenant) (crm connectors.CRM, done func(), err error)) ([]shadowReport, error) {
	reports, names := []shadowReport{}, []string{}
	for _, t := range h.tenants {
		id := deal.TenantID(t.file.Tenant.ID)
		if names = append(names, string(id)); o.Tenant != "" && o.Tenant != id {
			continue
		}
		r := shadowReport{Shadow: engine.Shadow{Tenant: id}}
		crm, done, err := connect(t)
		if err == nil {
			r.Shadow, err = h.shadowOf(ctx, t, crm, o, limits)
			done()
		}
		if err != nil {
			r.Err = err.Error()
		}
		reports = append(reports, r)
	}
	if len(reports) == 0 {
		return nil, fmt.Errorf("there is no tenant with the id %q: there are %s", o.Tenant, strings.Join(names, ", "))
	}
	return reports, nil
}

func (h *house) shadowOf(ctx context.Context, t tenant, crm connectors.CRM, o shadowOrder, limits map[string]deal.KeyLimits) (engine.Shadow, error) {
	ctx, cancel := context.WithTimeout(ctx, shadowLimit)
	defer cancel()
	rehearsal := engine.Rehearsal{Bundles: bundlesByHash(h.bundles), Limits: limits, Days: o.Days, Calls: o.Calls,
		Tenant: engine.Tenant{ID: deal.TenantID(t.file.Tenant.ID), Name: t.file.Tenant.Name, CRM: crm,
			Production: t.file.Tenant.Environment == "production", Poll: t.poll, Rules: t.rules, Guard: t.guard}}
	return rehearsal.Run(ctx)
}

// bundlesByHash are those of the files, which no deal may have been noticed with yet.
type bundlesByHash map[string]*documents.Bundle

// Bundle implements engine.Bundles.
func (b bundlesByHash) Bundle(hash string) (*documents.Bundle, error) {
	for _, bundle := range b {
		if bundle.Hash() == hash {
			return bundle, nil
		}
	}
	return nil, fmt.Errorf("no template has the hash %s", hash)
}

// Shadow takes as long as it takes: only ctx and the daemon's own bounds end it.
func (r *remote) Shadow(ctx context.Context, o shadowOrder) (reports []shadowReport, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	patient := *r.client
	patient.Timeout = 0
	return reports, (&remote{&patient, r.person}).ask(ctx, "POST", "/shadow", body, &reports)
}

// shadowRoutes are the daemon's side of it.
func (d *service) shadowRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /shadow", func(w http.ResponseWriter, r *http.Request) {
		var o shadowOrder
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&o); err != nil {
			answer(w, nil, err)
			return
		}
		reports, err := d.shadow(r.Context(), o)
		answer(w, reports, err)
	})
}

// shadow reads the files anew without taking them in. A tenant whose connector runs already is asked through that one: it
// has the login, and knows how much may be asked.
func (d *service) shadow(ctx context.Context, o shadowOrder) ([]shadowReport, error) {
	next, _, err := d.residents.house().reload()
	if err != nil {
		return nil, err
	}
	registered, err := d.store.Certificates(ctx)
	if err != nil {
		return nil, err
	}
	return next.shadow(ctx, o, next.keyLimits(registered), func(t tenant) (connectors.CRM, func(), error) {
		if crm, runs := d.residents.connector(t); runs {
			return crm, func() {}, nil
		}
		id := t.file.Tenant.ID
		crm, err := t.connect(d.log.With("tenant", id), d.store.Memory(deal.TenantID(id)))
		return crm, func() { retire(crm) }, err
	})
}

func printShadows(out io.Writer, reports []shadowReport) error {
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if r.Err != "" {
			fmt.Fprintf(out, "%s: nothing could be found out: %s\n", r.Tenant, printable(r.Err))
			continue
		}
		if err := r.print(out); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, "\nThis was a rehearsal: nothing was written anywhere.")
	return err
}

func (r shadowReport) print(out io.Writer) error {
	fmt.Fprintf(out, "%s (%s): %s from %s to %s\n", r.Tenant, r.Account, numberOf(len(r.Deals), "stage entry", "stage entries"), r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
	if r.Cut != "" {
		fmt.Fprintf(out, "it stopped early: %s\n", printable(r.Cut))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(out, "would not fit: %s\n", printable(p))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Deals) > 0 {
		fmt.Fprintln(w, "ENTERED\tRECORD\tRULE\tDOCUMENT\tOUTCOME\tWHY")
	}
	for _, d := range r.Deals {
		why := d.Why
		if d.Guard != "" {
			why = strings.TrimSuffix("first held by the guard: "+d.Guard+"; "+why, "; ")
		}
		if d.Move != "" && d.Outcome == engine.ShadowMade {
			why = strings.TrimPrefix(fmt.Sprintf("%s; then moved to stage %q", why, d.Move), "; ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.At.UTC().Format(time.DateTime), d.Ref, d.Rule, d.Document, d.Outcome, printable(why))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, rule := range r.Rules {
		fmt.Fprintf(out, "rule %s: %s%s\n", rule.Rule, numberOf(rule.Entries, "entry", "entries"), sumsOf(rule))
	}
	if r.Quarantined > 0 {
		fmt.Fprintf(out, "not understood: %s of the history\n", plural(r.Quarantined, "row"))
	}
	r.printCost(out)
	fmt.Fprintln(out, "it cannot know:")
	for _, u := range r.Unknown {
		fmt.Fprintf(out, "  - %s\n", printable(u))
	}
	return nil
}

func (r shadowReport) printCost(out io.Writer) {
	fmt.Fprintf(out, "all of it: %s\n", costInWords(r.Total))
	if r.Busiest != "" {
		fmt.Fprintf(out, "the busiest day, %s: %s\n", r.Busiest, costInWords(r.Peak))
	}
	allowance := "the CRM does not say how many it allows"
	if r.Allowance > 0 {
		allowance = fmt.Sprintf("the CRM allows %d", r.Allowance)
	}
	fmt.Fprintf(out, "polling: about %d calls a day; %s\nthis rehearsal: %s to the CRM\n", r.Polls, allowance, plural(r.Calls, "call"))
}

func costInWords(c engine.ShadowCost) string {
	crm := "calls to the CRM not known"
	if c.CRM > 0 || c.Documents == 0 {
		crm = fmt.Sprintf("about %s to the CRM", plural(c.CRM, "call"))
	}
	text := fmt.Sprintf("%s, %s of the HSM, %s, %s", plural(c.Documents, "document"), plural(c.Signatures, "signature"), plural(c.Timestamps, "time-stamp"), crm)
	if c.Evidence > 0 {
		text += fmt.Sprintf(", %s with evidence of revocation", plural(c.Evidence, "document"))
	}
	return text
}

// sumsOf says what became of a rule's entries.
func sumsOf(r engine.ShadowRule) string {
	var text strings.Builder
	for _, outcome := range []string{engine.ShadowMade, engine.ShadowHeld, engine.ShadowFailed, engine.ShadowFiltered, engine.ShadowUnknown} {
		if n := r.Of[outcome]; n > 0 {
			fmt.Fprintf(&text, ", %d %s", n, outcome)
		}
	}
	if r.Guarded > 0 {
		fmt.Fprintf(&text, ", %d first held by the guard", r.Guarded)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Missing)) {
		fmt.Fprintf(&text, "; %s lacks %s", plural(r.Missing[name], "record"), name)
	}
	return text.String()
}
