package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Places says how many deals may use at once what there is little of. Tenants take turns at each: one with thousands of
// deals waits behind its own, not before another's.
type Places struct {
	// Render is the number of documents that are made at once, Key of signatures, Check of sealed files that are read
	// back; 4 when zero.
	Render, Key, Check int
	// Processors is how many deals can be worked on at the same time; those of the machine when zero.
	Processors int
}

const usualPlaces = 4

// turns hands out a number of places. Whoever finds none waits, and tenants are served in turn, each tenant's deals in
// the order in which they came. A tenant that has a place already does not take the last free one while another, that has
// none, has a deal on its way to it: that deal would wait until a place comes back, and that is as long as what is done there
// takes. Give it its places before the first take.
type turns struct {
	mu     sync.Mutex
	free   int
	line   []deal.TenantID // with deals that wait, the next first; each once
	waits  map[deal.TenantID][]chan struct{}
	held   map[deal.TenantID]int
	coming map[deal.TenantID]*coming
}

// coming are the deals of a tenant that will want a place.
type coming struct {
	n    int
	last time.Time // when the last of them was expected
}

// patience is how long a place is kept for a deal that was expected: one whose CRM takes its time keeps it from nobody.
const patience = 3 * time.Second

func newTurns(places int) *turns {
	if places <= 0 {
		places = usualPlaces
	}
	return &turns{free: places, waits: map[deal.TenantID][]chan struct{}{}, held: map[deal.TenantID]int{}, coming: map[deal.TenantID]*coming{}}
}

// expect says that a deal will want a place soon, until over is called, which may be more than once.
func (t *turns) expect(tenant deal.TenantID) (over func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.coming[tenant]
	if c == nil {
		c = &coming{}
		t.coming[tenant] = c
	}
	c.n++
	c.last = time.Now()
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if c.n--; c.n == 0 {
			delete(t.coming, tenant)
		}
		t.serve()
	})
}

// take waits for a place. It must be given back with give unless there is an error, which is ctx's.
func (t *turns) take(ctx context.Context, tenant deal.TenantID) error {
	t.mu.Lock()
	turn := make(chan struct{}, 1)
	if len(t.waits[tenant]) == 0 {
		t.line = append(t.line, tenant)
	}
	t.waits[tenant] = append(t.waits[tenant], turn)
	t.serve()
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !t.leave(tenant, turn) { // the place came at the same moment
		t.give(tenant)
	}
	return ctx.Err()
}

// leave takes a deal out of the line; it reports whether it was still there.
func (t *turns) leave(tenant deal.TenantID, turn chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waits[tenant], turn)
	if i < 0 {
		return false
	}
	t.waits[tenant] = slices.Delete(t.waits[tenant], i, i+1)
	if len(t.waits[tenant]) == 0 {
		delete(t.waits, tenant)
		t.line = slices.DeleteFunc(t.line, func(other deal.TenantID) bool { return other == tenant })
	}
	return true
}

// give takes back a place that the tenant had.
func (t *turns) give(tenant deal.TenantID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	if t.held[tenant]--; t.held[tenant] == 0 {
		delete(t.held, tenant)
	}
	t.serve()
}

// serve hands free places to those in the line.
func (t *turns) serve() {
	for t.free > 0 {
		i := slices.IndexFunc(t.line, t.may)
		if i < 0 {
			return // whom a place is kept from has another, and comes here again when that is given back
		}
		tenant := t.line[i]
		t.line = slices.Delete(t.line, i, i+1)
		waiting := t.waits[tenant]
		waiting[0] <- struct{}{}
		t.free--
		t.held[tenant]++
		if len(waiting) == 1 {
			delete(t.waits, tenant)
			continue
		}
		t.waits[tenant] = waiting[1:]
		t.line = append(t.line, tenant)
	}
}

// may reports whether a tenant may have one of the free places.
func (t *turns) may(tenant deal.TenantID) bool {
	if t.free > 1 || t.held[tenant] == 0 {
		return true
	}
	for other, c := range t.coming {
		if other != tenant && t.held[other] == 0 && time.Since(c.last) < patience {
			return false
		}
	}
	return true
}

// inTurn does f when it is the deal's tenant's turn.
func (r *run) inTurn(ctx context.Context, t *turns, f func() error) error {
	if err := t.take(ctx, r.s.Tenant); err != nil {
		return err
	}
	defer t.give(r.s.Tenant)
	return f()
}
