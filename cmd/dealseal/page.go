package main

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/web"
)

// newPage puts the status page before the store, and has the engine's calls measured.
func (d *service) newPage() http.Handler {
	house := &pageHouse{d.store, d.residents.house, d.keys}
	metrics := web.NewMetrics(house, machine{d}, version, time.Now)
	d.measure(metrics)
	registry := prometheus.NewRegistry()
	registry.MustRegister(d.reloads.metrics()...)
	registry.MustRegister(metrics, &d.checkups, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return web.New(web.Options{House: house, Hosts: d.hosts(), Metrics: registry, Version: version, Log: d.log, Checks: []web.Check{
		{Name: "database", Run: func(ctx context.Context) error {
			_, err := d.store.TreeHead(ctx)
			return err
		}},
		{Name: "disk", Run: func(context.Context) error { return d.disk.check() }},
		{Name: "configuration", Advisory: true, Run: func(context.Context) error { return d.reloads.failure() }},
	}})
}

// hosts are the names under which the page may be opened: those configured, and the name that it listens on.
func (d *service) hosts() []string {
	listen := d.house.cfg.Listen
	hosts := slices.Clone(listen.Hosts)
	if name, _, err := net.SplitHostPort(listen.Admin); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	return hosts
}

// pageHouse answers the page's questions from the store and the configuration.
type pageHouse struct {
	*store.Store
	house func() *house // as of the last reload
	keys  *keyring
}

func (p *pageHouse) Tenants(ctx context.Context) (out []web.Tenant, err error) {
	polls, err := p.Polls(ctx)
	if err != nil {
		return nil, err
	}
	byTenant := map[deal.TenantID]deal.PollState{}
	for _, s := range polls {
		byTenant[s.Tenant] = s
	}
	for _, t := range p.house().tenants {
		id := deal.TenantID(t.file.Tenant.ID)
		out = append(out, web.Tenant{ID: id, Name: t.file.Tenant.Name, Kind: deal.Kind(t.file.CRM.Kind), Environment: t.file.Tenant.Environment,
			Every: t.poll, Poll: byTenant[id]})
	}
	return out, nil
}

func (p *pageHouse) Counts(ctx context.Context) (out []web.Count, err error) {
	counts, err := p.Store.Counts(ctx)
	for _, c := range counts {
		out = append(out, web.Count(c))
	}
	return out, err
}

func (p *pageHouse) Deals(ctx context.Context, f web.Filter) (out []web.Row, err error) {
	list, err := p.List(ctx, store.Filter{Condition: f.Condition, Limit: f.Limit})
	for _, m := range list {
		out = append(out, web.Row{Tx: m.Tx, Tenant: m.Tenant, Account: m.Account, Ref: m.Ref, RecordURL: m.RecordURL, Rule: m.Rule, Step: m.Step,
			Condition: m.Condition, Reason: m.Reason, Attempts: m.Attempts, Next: m.Next, At: m.At, Updated: m.Updated})
	}
	return out, err
}

func (p *pageHouse) Deal(ctx context.Context, tx deal.TxID) (*web.Deal, error) {
	s, err := p.Story(ctx, tx)
	var unknown *store.NotFoundError
	if errors.As(err, &unknown) {
		return nil, web.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &web.Deal{Sealing: s.Sealing, Receipt: s.Receipt, Trail: s.Trail, Earlier: s.Earlier, Erased: s.Erased}, nil
}

// Keys leaves out a key that cannot be reached now: its last known end is not worth a guess.
func (p *pageHouse) Keys(ctx context.Context) (out []web.Key, err error) {
	for _, name := range slices.Sorted(maps.Keys(p.house().cfg.Signing.Keys)) {
		key, err := p.keys.Open(ctx, name)
		if err != nil || len(key.Chain()) == 0 {
			continue
		}
		out = append(out, web.Key{Name: name, NotAfter: key.Chain()[0].NotAfter})
	}
	return out, ctx.Err()
}
