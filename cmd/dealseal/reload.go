package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/store"
)

// reloadReport says what a reload has changed, by tenant id, and what it could not take.
type reloadReport struct {
	Added   []string `json:"added,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Same    int      `json:"same"`
	// Notify says that others are told of trouble, or otherwise.
	Notify bool `json:"notify,omitempty"`
	// Pins says that the pins of time-stamp servers have changed.
	Pins bool `json:"pins,omitempty"`
	// Restart are keys of dealseal.yaml that have changed and take a restart.
	Restart []string `json:"restart,omitempty"`
}

// residents are the tenants that run. One reload at a time replaces them, all at once.
type residents struct {
	store *store.Store
	log   *slog.Logger
	now   atomic.Pointer[residence]
}

// residence is a configuration with the connectors that were made from it; it never changes.
type residence struct {
	house   *house // as of the last reload
	running map[string]resident
}

type resident struct {
	kind string
	with any
	pins map[string]pins.Set
	crm  connectors.CRM
}

// house is the configuration that is in force.
func (r *residents) house() *house { return r.now.Load().house }

// connector returns the one that runs for a tenant, if it was made from the same configuration.
func (r *residents) connector(t tenant) (connectors.CRM, bool) {
	now := r.now.Load()
	if now == nil {
		return nil, false
	}
	old, runs := now.running[t.file.Tenant.ID]
	return old.crm, runs && old.kind == t.file.CRM.Kind && reflect.DeepEqual(old.with, t.with) && reflect.DeepEqual(old.pins, t.file.CRM.Pins)
}

// move makes what the engine needs of each tenant, with the connectors that run already where nothing about them has
// changed: their logins and what they know of the CRM stay. It changes nothing yet.
func (r *residents) move(h *house) (tenants []engine.Tenant, next *residence, err error) {
	next = &residence{h, map[string]resident{}}
	for _, t := range h.tenants {
		id := t.file.Tenant.ID
		crm, runs := r.connector(t)
		if !runs {
			if crm, err = t.connect(r.log.With("tenant", id), r.store.Memory(deal.TenantID(id))); err != nil {
				return nil, nil, t.file.At("crm.with", "%v", err)
			}
		}
		next.running[id] = resident{t.file.CRM.Kind, t.with, t.file.CRM.Pins, crm}
		tenants = append(tenants, engine.Tenant{ID: deal.TenantID(id), Name: t.file.Tenant.Name, CRM: crm,
			Production: t.file.Tenant.Environment == "production", Poll: t.poll, Rules: t.rules, Guard: t.guard})
	}
	return tenants, next, nil
}

// settle makes next what runs, and retires connectors that do not run any more.
func (r *residents) settle(next *residence) {
	old := r.now.Swap(next)
	if old == nil {
		return
	}
	for id, was := range old.running {
		if c, ok := was.crm.(connectors.Retirer); ok && next.running[id].crm != was.crm {
			c.Retire()
		}
	}
}

// compare tells what next changes.
func (r *residents) compare(next *residence) (report reloadReport) {
	now, was := r.now.Load(), map[string]tenant{}
	for _, t := range now.house.tenants {
		was[t.file.Tenant.ID] = t
	}
	for _, t := range next.house.tenants {
		id := t.file.Tenant.ID
		old, known := was[id]
		switch {
		case !known:
			report.Added = append(report.Added, id)
		case next.running[id].crm != now.running[id].crm || old.poll != t.poll || old.file.Tenant.Name != t.file.Tenant.Name ||
			old.file.Tenant.Environment != t.file.Tenant.Environment || !reflect.DeepEqual(old.rules, t.rules) || !reflect.DeepEqual(old.guard, t.guard) || !reflect.DeepEqual(old.file.Webhooks, t.file.Webhooks) ||
			!reflect.DeepEqual(old.file.Push, t.file.Push):
			report.Changed = append(report.Changed, id)
		default:
			report.Same++
		}
		delete(was, id)
	}
	report.Pins = !reflect.DeepEqual(stampPins(now.house.cfg), stampPins(next.house.cfg))
	report.Notify = !reflect.DeepEqual(now.house.cfg.Notify, next.house.cfg.Notify)
	for id := range was {
		report.Removed = append(report.Removed, id)
	}
	slices.Sort(report.Removed)
	return report
}

// reload reads the configuration anew and takes what a reload can take, as a whole: after an error everything is as it
// was. One runs at a time.
func (d *service) reload(ctx context.Context) (reloadReport, error) {
	d.reloads.mu.Lock()
	defer d.reloads.mu.Unlock()
	d.supervisor.reloading()
	report, err := d.readAnew(ctx)
	d.reloads.note(err, time.Now())
	if err != nil {
		for _, one := range flatten(err) {
			d.log.Error("the configuration was not reloaded, the old one stays in force", "err", one)
		}
	} else {
		d.checkups.hasten()
		d.log.Info("the configuration was reloaded", "added", report.Added, "changed", report.Changed, "removed", report.Removed, "same", report.Same)
	}
	for _, key := range report.Restart {
		d.log.Warn("a changed key takes a restart", "file", d.house.cfg.File, "key", key)
	}
	d.supervisor.ready(d.status(ctx))
	return report, err
}

func (d *service) readAnew(ctx context.Context) (report reloadReport, err error) {
	now := d.residents.house()
	next, restart, err := now.reload()
	report.Restart = restart
	if err != nil {
		return report, err
	}
	used := now.usedKeys()
	fresh := slices.DeleteFunc(next.usedKeys(), func(name string) bool { return slices.Contains(used, name) })
	if err := next.checkKeys(ctx, d.registry, fresh, d.log); err != nil {
		return report, err
	}
	if err := d.shelf.add(next.bundles); err != nil {
		return report, err
	}
	tenants, moved, err := d.residents.move(next)
	if err != nil {
		return report, err
	}
	endpoints, err := next.endpointsWithSecrets()
	if err != nil {
		return report, err
	}
	channels, err := next.channels()
	if err != nil {
		return report, err
	}
	if err := d.store.ConfigureEndpoints(ctx, endpoints); err != nil {
		return report, err
	}
	keys, templates := next.audience()
	d.store.Audience(keys)
	if err := errors.Join(d.store.PublishTemplates(ctx, templates), d.store.KeepTenants(ctx, ids(tenants))); err != nil {
		return report, err
	}
	if err := d.tellThese(ctx, next, channels); err != nil {
		return report, err
	}
	report = d.residents.compare(moved)
	report.Restart = restart
	next.stampWire.Set(stampPins(next.cfg))
	d.queue.SetTenants(ids(tenants))
	d.engine.SetTenants(tenants)
	d.residents.settle(moved)
	d.level.Set(levelOf(next.cfg.Log))
	for _, id := range slices.Concat(report.Added, report.Changed) {
		d.goOn(ctx, deal.TenantID(id), readAnew, true, engine.HoldUnconfigured, engine.HoldAccount)
	}
	return report, nil
}

func ids(tenants []engine.Tenant) (list []deal.TenantID) {
	for _, t := range tenants {
		list = append(list, t.ID)
	}
	return list
}

// readAnew is why deals go on after a reload or a start.
const readAnew = "what it was held for is looked at anew: the configuration, or the limit of a key"

// goOn lets deals of a tenant go on that waited for its configuration, or for a certificate: those with one of these holds,
// and after a change those that wait for their next attempt, which may have failed for a login or a key that is another now.
func (d *service) goOn(ctx context.Context, tenant deal.TenantID, why string, changed bool, holds ...string) {
	const who = "daemon"
	n, err := d.eachDeal(ctx, store.Filter{Tenant: tenant, Condition: deal.Held}, func(m store.Summary) (bool, error) {
		if !slices.Contains(holds, engine.HoldName(m.Reason, d.store.Epoch())) {
			return false, nil
		}
		return true, d.store.Release(ctx, m.Tx, "", who, why) // it holds again if the configuration is still not right
	})
	if changed && err == nil {
		var tried int
		tried, err = d.eachDeal(ctx, store.Filter{Tenant: tenant, Condition: deal.Retrying}, func(m store.Summary) (bool, error) {
			if strings.HasPrefix(m.Reason, deal.ReasonAwaiting) {
				return false, nil // it waits for a vendor, whatever has changed here
			}
			return true, d.store.Retry(ctx, m.Tx, who, why)
		})
		n += tried
	}
	if err != nil {
		d.log.Error("deals that waited may not go on by themselves: look at \"dealseal jobs\"", "tenant", tenant, "for", why, "err", err)
	}
	if n > 0 {
		d.log.Info("deals that waited go on", "tenant", tenant, "deals", n, "for", why)
	}
}

// eachDeal counts for how many deals do did something. A deal that moves by itself meanwhile needs no help.
func (d *service) eachDeal(ctx context.Context, f store.Filter, do func(store.Summary) (did bool, err error)) (n int, err error) {
	var refused *store.RefusedError
	f.Limit = pageSize
	for {
		page, err := d.store.List(ctx, f)
		if err != nil {
			return n, err
		}
		for _, m := range page {
			did, err := do(m)
			if errors.Is(err, deal.ErrStale) || errors.As(err, &refused) {
				continue
			}
			if err != nil {
				return n, err
			}
			if did {
				n++
			}
		}
		if len(page) < pageSize {
			return n, nil
		}
		f.Before = page[len(page)-1].Seq
	}
}

// hangups reloads at each SIGHUP until ctx ends.
func (d *service) hangups(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			_, _ = d.reload(ctx) // it has said what was wrong
		}
	}
}

// reloads remembers how the last reload went.
type reloads struct {
	mu   sync.Mutex // held by the one that runs
	last atomic.Pointer[reloaded]
}

type reloaded struct {
	at, success time.Time
	err         error
}

// note is called for the start too, which reads the configuration as well.
func (r *reloads) note(err error, at time.Time) {
	next := reloaded{at: at, success: at, err: err}
	if err != nil {
		next.success = r.last.Load().success
	}
	r.last.Store(&next)
}

// failure is nil when the configuration that was last read is in force.
func (r *reloads) failure() error {
	last := r.last.Load()
	if last.err == nil {
		return nil
	}
	return fmt.Errorf("the configuration could not be reloaded at %s, and that of %s stays in force: the log says why, and so does \"dealseal check\"",
		last.at.UTC().Format(time.RFC3339), last.success.UTC().Format(time.RFC3339))
}

// metrics are named as other daemons name theirs.
func (r *reloads) metrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dealseal_config_last_reload_successful", Help: "Whether the configuration that was last read is in force."}, func() float64 {
			if r.last.Load().err != nil {
				return 0
			}
			return 1
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dealseal_config_last_reload_success_timestamp_seconds", Help: "Unix time at which the configuration that is in force was read."}, func() float64 {
			return float64(r.last.Load().success.UnixMilli()) / 1000
		}),
	}
}

// reloadCommand asks the running daemon to read its configuration anew.
func reloadCommand(ctx context.Context, c *call) error {
	daemon, _, err := findDaemon(ctx, c.config)
	if errors.Is(err, errNoDaemon) {
		return errors.New("no daemon is running: it reads its configuration when it starts")
	}
	if err != nil {
		return err
	}
	defer daemon.Close()
	report, err := daemon.Reload(ctx)
	if err != nil {
		return err
	}
	return report.print(c.stdout)
}

func (r reloadReport) print(w io.Writer) error {
	var b strings.Builder
	for _, part := range []struct {
		what string
		ids  []string
	}{{"added", r.Added}, {"changed", r.Changed}, {"removed", r.Removed}} {
		if len(part.ids) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", part.what, strings.Join(part.ids, ", "))
		}
	}
	fmt.Fprintf(&b, "as before: %d\n", r.Same)
	if r.Notify {
		b.WriteString("changed: notify\n")
	}
	if r.Pins {
		b.WriteString("changed: pins in signing.tsa\n")
	}
	for _, key := range r.Restart {
		fmt.Fprintf(&b, "takes a restart: %s\n", key)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
