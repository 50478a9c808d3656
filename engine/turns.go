package engine

import (
	"context"
	"slices"
	"sync"

	"github.com/dealseal/dealseal/deal"
)

// Places says how many deals may use at once what there is little of. Tenants take turns at each: one with thousands of
// deals waits behind its own, not before another's.
type Places struct {
	// Render is the number of documents that are made at once, Key of signatures, Check of sealed files that are read
	// back; 4 when zero.
	Render, Key, Check int
}

const usualPlaces = 4

// turns hands out a number of places. Whoever finds none waits, and tenants are served in turn, each tenant's deals in
// the order in which they came. Give it its places before the first take.
type turns struct {
	mu    sync.Mutex
	free  int
	line  []deal.TenantID // with deals that wait, the next first; each once
	waits map[deal.TenantID][]chan struct{}
}

func newTurns(places int) *turns {
	if places <= 0 {
		places = usualPlaces
	}
	return &turns{free: places, waits: map[deal.TenantID][]chan struct{}{}}
}

// take waits for a place. It must be given back with give unless there is an error, which is ctx's.
func (t *turns) take(ctx context.Context, tenant deal.TenantID) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	turn := make(chan struct{}, 1)
	if len(t.waits[tenant]) == 0 {
		t.line = append(t.line, tenant)
	}
	t.waits[tenant] = append(t.waits[tenant], turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !t.leave(tenant, turn) { // the place came at the same moment
		t.give()
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

// give hands a place to the next tenant in the line.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.line) == 0 {
		t.free++
		return
	}
	tenant := t.line[0]
	t.line = t.line[1:]
	waiting := t.waits[tenant]
	waiting[0] <- struct{}{}
	if len(waiting) == 1 {
		delete(t.waits, tenant)
		return
	}
	t.waits[tenant] = waiting[1:]
	t.line = append(t.line, tenant)
}

// inTurn does f when it is the deal's tenant's turn.
func (r *run) inTurn(ctx context.Context, t *turns, f func() error) error {
	if err := t.take(ctx, r.s.Tenant); err != nil {
		return err
	}
	defer t.give()
	return f()
}
