package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
)

// provisionOptions are the flags of the command.
type provisionOptions struct {
	dryRun, yes        bool
	sfdx, project, url string
}

// provisionOrder is what the daemon is asked for. Made is what was shown: nothing else is made.
type provisionOrder struct {
	Tenant deal.TenantID `json:"tenant"`
	Make   []string      `json:"make,omitempty"`
}

// provisioned is one thing that an account lacked.
type provisioned struct {
	What string `json:"what"`
	Cure string `json:"cure,omitempty"` // where dealseal cannot make it
	Made bool   `json:"made"`
	Err  string `json:"error,omitempty"`
}

// provisionCommand has the daemon, which has the login, make what a tenant's CRM lacks.
func provisionCommand(ctx context.Context, c *call) error {
	o := c.provision
	switch {
	case c.tenant == "" || len(c.args) > 0:
		return usagef("name one tenant with --tenant")
	case o.sfdx != "" && o.project != "":
		return usagef("--sfdx is for Salesforce and --project for HubSpot: give one of them")
	case o.sfdx != "" || o.project != "":
		return c.writeFolder()
	}
	r, _, err := findDaemon(ctx, c.config)
	if errors.Is(err, errNoDaemon) {
		return fmt.Errorf("%w: it is the daemon that has the login; a tenant whose fields are missing does not keep it from running", err)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	list, err := r.Provision(ctx, provisionOrder{Tenant: deal.TenantID(c.tenant)})
	if err != nil {
		return err
	}
	if order := c.agreed(list); order != nil {
		if list, err = r.Provision(ctx, provisionOrder{deal.TenantID(c.tenant), order}); err != nil {
			return err
		}
	}
	return c.printProvisioned(list)
}

// agreed returns what is to be made: all that can be, if somebody has agreed to it.
func (c *call) agreed(list []provisioned) (order []string) {
	for _, p := range list {
		if p.Cure == "" {
			order = append(order, p.What)
		}
	}
	if c.provision.dryRun || len(order) == 0 {
		return nil
	}
	if c.provision.yes {
		return order
	}
	for _, what := range order {
		fmt.Fprintf(c.stderr, "  %s\n", printable(what))
	}
	in, ok := c.in.(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
		ok = err == nil
	}
	if !ok {
		fmt.Fprintln(c.stderr, "nobody can be asked here: give --yes to have this made, or --dry-run")
		return nil
	}
	fmt.Fprintf(c.stderr, "Make this in the CRM of tenant %s? [y/N] ", c.tenant)
	line, _ := bufio.NewReader(in).ReadString('\n') // no answer is no
	if a := strings.ToLower(strings.TrimSpace(line)); a == "y" || a == "yes" {
		return order
	}
	return nil
}

func (c *call) printProvisioned(list []provisioned) error {
	missing := false
	for _, p := range list {
		missing = missing || !p.Made
	}
	if c.json {
		if err := printJSON(c.stdout, list); err != nil {
			return err
		}
	} else {
		if len(list) == 0 {
			fmt.Fprintln(c.stdout, "nothing is missing")
		}
		for _, p := range list {
			switch {
			case p.Made:
				fmt.Fprintf(c.stdout, "made     %s\n", printable(p.What))
			case p.Err != "":
				fmt.Fprintf(c.stdout, "failed   %s: %s\n", printable(p.What), printable(p.Err))
			case p.Cure != "":
				fmt.Fprintf(c.stdout, "yours    %s: %s\n", printable(p.What), printable(p.Cure))
			default:
				fmt.Fprintf(c.stdout, "missing  %s\n", printable(p.What))
			}
		}
	}
	if missing {
		return &exitError{exitFailed}
	}
	return nil
}

// Provision asks what a tenant's CRM lacks, and has it made if the order says so.
func (r *remote) Provision(ctx context.Context, o provisionOrder) (list []provisioned, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return list, r.ask(ctx, "POST", "/provision", body, &list)
}

// provisionRoutes are the daemon's side of it.
func (d *service) provisionRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /provision", func(w http.ResponseWriter, r *http.Request) {
		var o provisionOrder
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&o); err != nil {
			answer(w, nil, err)
			return
		}
		who := peerOf(r.Context())
		if who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		list, err := d.provision(r.Context(), o, who)
		answer(w, list, err)
	})
}

// provision makes what was ordered and is still lacking, in the connector's order, and stops at the first failure: what
// comes behind it needs it. The audit log says who has each thing made before it is, and what came of it after.
func (d *service) provision(ctx context.Context, o provisionOrder, who string) ([]provisioned, error) {
	now := d.residents.now.Load()
	t, ok := now.house.tenant(o.Tenant)
	if !ok {
		return nil, fmt.Errorf("there is no tenant %q: \"dealseal reload\" takes in a file that was added", o.Tenant)
	}
	p, ok := now.running[string(o.Tenant)].crm.(connectors.Provisioner)
	if !ok {
		return nil, fmt.Errorf("nothing can be made in a CRM of this kind")
	}
	lacking, err := p.Lacking(ctx, t.written())
	if err != nil {
		return nil, err
	}
	ordered := map[string]bool{}
	for _, what := range o.Make {
		ordered[what] = true
	}
	list, failed := []provisioned{}, false // JSON: an empty list, not null
	for _, x := range lacking {
		made := provisioned{What: x.What, Cure: x.Cure}
		if ordered[x.What] && x.Make != nil && !failed {
			err := d.makeInCRM(ctx, o.Tenant, x, who)
			if made.Made = err == nil; !made.Made {
				made.Err, failed = err.Error(), true
			}
		}
		list = append(list, made)
	}
	return list, nil
}

func (d *service) makeInCRM(ctx context.Context, tenant deal.TenantID, x connectors.Provision, who string) error {
	note := func(ctx context.Context, what, why string) error {
		return d.store.Witness(ctx, "", deal.Entry{Who: who, What: what, Why: why, Detail: map[string]string{"tenant": string(tenant), "made": x.What}})
	}
	if err := note(ctx, "provisioning", ""); err != nil {
		return err
	}
	err := x.Make(ctx)
	ctx = context.WithoutCancel(ctx) // it is made, or was tried, even if nobody waits for the answer any more
	if err != nil {
		return errors.Join(err, note(ctx, "provision-failed", err.Error()))
	}
	d.log.InfoContext(ctx, "made in the CRM", "tenant", tenant, "what", x.What, "who", who)
	return note(ctx, "provisioned", "")
}

// tenant finds a tenant by its id.
func (h *house) tenant(id deal.TenantID) (tenant, bool) {
	for _, t := range h.tenants {
		if t.file.Tenant.ID == string(id) {
			return t, true
		}
	}
	return tenant{}, false
}

func (t tenant) written() (all []connectors.Written) {
	for _, r := range t.rules {
		all = append(all, connectors.Written{Object: r.Watch.Object, WriteBack: r.Plan.WriteBack, Timeline: len(r.Plan.Timeline) > 0})
	}
	return all
}

// writeFolder writes what an administrator deploys, from the configuration alone.
func (c *call) writeFolder() error {
	h, err := loadHouse(c.config)
	if err != nil {
		return err
	}
	t, ok := h.tenant(deal.TenantID(c.tenant))
	if !ok {
		return fmt.Errorf("there is no tenant with the id %q", c.tenant)
	}
	var files map[string][]byte
	dir, next := c.provision.sfdx, ""
	switch with := t.with.(type) {
	case salesforce.Config:
		if dir == "" {
			return usagef("tenant %s is a Salesforce org: use --sfdx", c.tenant)
		}
		files, err = with.SourceFolder(t.written(), pageForBrowsers(h.cfg))
		next = "sf project deploy start --source-dir force-app, then assign the permission set " + salesforce.PermissionSet + " to dealseal's user, and " +
			salesforce.PanelReaders + " to those who are to see the panel (docs/panel.md)"
	case hubspot.Config:
		if dir = c.provision.project; dir == "" {
			return usagef("tenant %s is a HubSpot account: use --project", c.tenant)
		}
		if err := checkPublic(c.provision.url); err != nil {
			return err
		}
		to := hubspot.Addresses{Webhooks: c.provision.url}
		for _, s := range t.senders {
			if s.Source == config.PushHubSpotAction {
				to.Action = h.cfg.Listen.URL + s.Path
			}
		}
		var watches []deal.Watch
		for _, r := range t.rules {
			watches = append(watches, r.Watch)
		}
		files, err = hubspot.Project(c.tenant, to, watches)
		next = "hs project upload, then install the app and use its token"
	}
	if err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %s written; next, in it: %s\n", dir, plural(len(files), "file"), next)
	return err
}

// pageForBrowsers is the address of the status page that a link on a page of the CRM may lead to; empty when there is none:
// what is not https is for browsers on this machine.
func pageForBrowsers(cfg *config.Config) string {
	pages := []string{cfg.Notify.Page}
	if cfg.SignIn != nil {
		pages = []string{cfg.SignIn.Page, cfg.Notify.Page}
	}
	for _, page := range pages {
		if strings.HasPrefix(page, "https://") {
			return page
		}
	}
	return ""
}

func checkPublic(address string) error {
	if address == "" {
		return nil
	}
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return usagef("--url is %q: it must be an https address without a query", address)
	}
	return nil
}
