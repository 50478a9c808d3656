package main

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/signing"
)

// keepKeysAlive asks idle keys whether they are still there, until ctx ends: each that a rule may use, and each that may
// have to stand in for one, which is never used before that. What is found is told once, and by the metrics.
func (d *service) keepKeysAlive(ctx context.Context) error {
	g := new(errgroup.Group)
	for name, group := range d.keys.groups {
		for _, member := range group.Members {
			if len(group.Members) > 1 || !d.standsIn(name) {
				g.Go(func() error { d.keepAlive(ctx, name, member); return nil })
			}
		}
	}
	return g.Wait()
}

// standsIn reports whether a key belongs to the group of another, where it is watched.
func (d *service) standsIn(name string) bool {
	for _, k := range d.house.cfg.Signing.Keys {
		if slices.Contains(k.FallBack, name) {
			return true
		}
	}
	return false
}

// keepAlive touches one key, if a rule needs it, whenever it has been idle for as long as it is configured.
func (d *service) keepAlive(ctx context.Context, group, member string) {
	every := d.house.cfg.Signing.Keys[member].KeepAlive
	var before string
	regularly(ctx, every, nil, func() time.Duration {
		if !d.mayBeUsed(group) {
			return every
		}
		limit, cancel := context.WithTimeout(ctx, keyLimit)
		defer cancel()
		err := d.standIns.Touch(limit, group, member, every)
		switch {
		case ctx.Err() != nil:
		case err != nil && before == "":
			d.log.Warn("an idle key does not answer", "key", member, "err", err)
			before = err.Error()
		case err == nil && before != "":
			d.log.Info("the key answers again", "key", member)
			before = ""
		}
		return every
	})
}

// mayBeUsed reports whether rules use a key, or are about to by a rollover.
func (d *service) mayBeUsed(key string) bool {
	return slices.ContainsFunc(d.residents.house().usedKeys(), func(name string) bool {
		first, others := d.registry.signers(name)
		return key == first || slices.Contains(others, key)
	})
}

// keyLimits are those of the keys that sign now for the names that profiles have: after a rollover it may be another one.
func (h *house) keyLimits(registered []deal.Certificate) map[string]deal.KeyLimits {
	all := map[string]deal.KeyLimits{}
	for name, k := range h.cfg.Signing.Keys {
		if active, found := deal.ActiveCertificate(registered, name, time.Now()); found {
			k = h.cfg.Signing.Keys[active.Signer()]
		}
		all[name] = deal.KeyLimits{Total: k.MaxUses, Day: k.MaxUsesPerDay}
	}
	return all
}

// renewLimits lets deals go on that are held for the limit of a day, when the next one has begun, until ctx ends.
func (d *service) renewLimits(ctx context.Context) error {
	regularly(ctx, untilTomorrow(time.Now()), nil, func() time.Duration {
		for _, t := range d.residents.house().tenants {
			d.goOn(ctx, deal.TenantID(t.file.Tenant.ID), readAnew, false, engine.HoldSpent)
		}
		return untilTomorrow(time.Now())
	})
	return nil
}

// untilTomorrow is the time until a moment after midnight UTC.
func untilTomorrow(now time.Time) time.Duration {
	return now.UTC().Truncate(24 * time.Hour).Add(24*time.Hour + time.Second).Sub(now)
}

// keyWatch tells Prometheus what is known of keys.
type keyWatch struct {
	groups   map[string]signing.Group
	failover *signing.Failover
}

var (
	keyUpDesc    = prometheus.NewDesc("dealseal_key_up", "1 when the newest use of a key, or the newest look at the idle key, succeeded, 0 when it failed; absent before the first.", []string{"key"}, nil)
	keyTriedDesc = prometheus.NewDesc("dealseal_key_tried_timestamp_seconds", "Unix time of the newest use of a key, or look at the idle key; absent before the first.", []string{"key"}, nil)
	standInDesc  = prometheus.NewDesc("dealseal_key_stand_in", "1 while what a key should seal is sealed with another one of its fall_back, 0 otherwise.", []string{"key"}, nil)
)

// Describe implements prometheus.Collector.
func (w keyWatch) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{keyUpDesc, keyTriedDesc, standInDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (w keyWatch) Collect(ch chan<- prometheus.Metric) {
	for name, g := range w.groups {
		ch <- prometheus.MustNewConstMetric(standInDesc, prometheus.GaugeValue, oneIf(len(g.Members) > 1 && w.failover.Serving(name) != name), name)
		h, _ := w.failover.Health(name)
		if h.Tried.IsZero() {
			continue
		}
		ch <- prometheus.MustNewConstMetric(keyUpDesc, prometheus.GaugeValue, oneIf(h.Why == ""), name)
		ch <- prometheus.MustNewConstMetric(keyTriedDesc, prometheus.GaugeValue, float64(h.Tried.Unix()), name)
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
