package main

import (
	"context"
	"errors"
	"hash/fnv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
)

// Passes that are due are looked for every minute. One that has stopped before its end is tried again after a while, and a
// few tenants are reconciled at once: each waits for its own CRM only.
const (
	everyDueLook   = time.Minute
	anotherPass    = 15 * time.Minute
	passesAtOnce   = 4
	nightlySpread  = 30 * time.Minute
	nightlyPerson  = "daemon"
	firstPassAfter = 2 * time.Minute // of the start, for one that a crash has cut short
)

// reconcileNightly makes each tenant's pass when it is due, until ctx ends.
func (d *service) reconcileNightly(ctx context.Context) error {
	g := new(errgroup.Group)
	g.SetLimit(passesAtOnce)
	n := &d.nights
	tick := time.NewTicker(everyDueLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-tick.C:
		}
		for _, t := range d.residents.house().tenants {
			id := deal.TenantID(t.file.Tenant.ID)
			last, err := d.store.Pass(ctx, id)
			if err != nil {
				d.log.WarnContext(ctx, "whether a reconciliation is due cannot be told", "tenant", id, "err", err)
				continue
			}
			if !n.begin(id, t.file, last, time.Now()) {
				continue
			}
			if !g.TryGo(func() error {
				r := d.reconcile(ctx, id, engine.Order{Days: t.file.Reconcile.Days, Who: nightlyPerson})
				n.end(id, r.Err)
				if r.Err != "" && ctx.Err() == nil {
					d.log.WarnContext(ctx, "a reconciliation has stopped before its end: it goes on from there", "tenant", id, "in", anotherPass, "err", errors.New(r.Err))
				}
				return nil
			}) {
				n.end(id, "others go first")
			}
		}
	}
}

// nights remembers which passes run, when those that have stopped may go on, and which do not wait for their night.
type nights struct {
	started time.Time

	mu    sync.Mutex
	next  map[deal.TenantID]time.Time
	asked map[deal.TenantID]bool
}

func newNights(started time.Time) nights {
	return nights{started: started, next: map[deal.TenantID]time.Time{}, asked: map[deal.TenantID]bool{}}
}

// ask has a pass made soon, because something may have been missed; not of a tenant that is never reconciled by itself.
func (n *nights) ask(id deal.TenantID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[id] = true
}

// never is further away than any process lives.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// begin reports whether a tenant's pass is due, and takes note that it runs then.
func (n *nights) begin(id deal.TenantID, file *config.Tenant, last deal.Pass, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked[id] && file.Reconcile.At != config.Never
	if now.Before(n.next[id]) || !asked && !passDue(file, last, n.started, now) {
		return false
	}
	delete(n.asked, id)
	n.next[id] = never
	return true
}

func (n *nights) end(id deal.TenantID, trouble string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.next, id)
	if trouble != "" {
		n.next[id] = time.Now().Add(anotherPass)
	}
}

// passDue reports whether a tenant is to be reconciled: a pass was cut short, or a night has come since the last one began. A
// tenant that was never reconciled waits for its first night.
func passDue(file *config.Tenant, last deal.Pass, started, now time.Time) bool {
	if file.Reconcile.At == config.Never {
		return false
	}
	if !last.Began.IsZero() && last.Ended.IsZero() {
		return now.Sub(started) >= firstPassAfter
	}
	night := lastNight(file, now)
	if last.Began.IsZero() {
		return night.After(started)
	}
	return night.After(last.Began)
}

// lastNight is the newest moment before now at which a tenant's pass was to begin: at its time of day, and by up to half an
// hour later, so that tenants do not begin together. By how much is the same each night.
func lastNight(file *config.Tenant, now time.Time) time.Time {
	zone, err := time.LoadLocation(file.Tenant.TimeZone)
	at, err2 := time.Parse(config.TimeOfDay, file.Reconcile.At)
	if err != nil || err2 != nil {
		return time.Time{} // config has checked both
	}
	h := fnv.New32a()
	h.Write([]byte(file.Tenant.ID))
	spread := time.Duration(h.Sum32()%uint32(nightlySpread/time.Second)) * time.Second
	here := now.In(zone)
	for day := 0; ; day++ {
		t := time.Date(here.Year(), here.Month(), here.Day()-day, at.Hour(), at.Minute(), 0, 0, zone).Add(spread)
		if !t.After(now) {
			return t
		}
	}
}
