package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// floor is where deals are worked on, and what there is little of there are processors. A tenant that is alone has all of
// it, however many its deals are: most of a deal is waiting. Beside another it has one deal at work, and more as far as there
// are processors, of which the last is left to whoever has nothing at work: else the other's deal would have the share of one
// among a dozen, and each of its steps would wait for a dozen others. It is a courtesy and no lock: nobody waits for longer than patience at a time, and
// whoever is away, at a CRM or an authority, is not at work.
type floor struct {
	mu     sync.Mutex
	places int
	here   map[deal.TenantID]*present
	line   []*wait
}

// present is what a tenant has on the floor.
type present struct {
	deals  int // under way
	atWork int // of these
	last   time.Time
}

type wait struct {
	tenant deal.TenantID
	turn   chan struct{} // closed when it is over
}

func newFloor(places int) *floor {
	return &floor{places: places, here: map[deal.TenantID]*present{}}
}

// come brings a deal to the floor, away from work; gone takes it away again.
func (f *floor) come(tenant deal.TenantID) (gone func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.here[tenant]
	if p == nil {
		p = &present{}
		f.here[tenant] = p
	}
	p.deals++
	p.last = time.Now()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if p.deals--; p.deals == 0 {
			delete(f.here, tenant)
		}
		f.serve()
	}
}

// work begins to work on a deal that has come, once there is room for it. It returns when ctx ends, too.
func (f *floor) work(ctx context.Context, tenant deal.TenantID) {
	f.mu.Lock()
	if f.may(tenant) {
		f.begin(tenant)
		f.mu.Unlock()
		return
	}
	w := &wait{tenant: tenant, turn: make(chan struct{})}
	f.line = append(f.line, w)
	f.mu.Unlock()
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	select {
	case <-w.turn:
		return
	case <-impatient.C:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.line, w); i >= 0 {
		f.line = slices.Delete(f.line, i, i+1)
		f.begin(tenant)
	}
}

// rest ends work on a deal.
func (f *floor) rest(tenant deal.TenantID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.here[tenant]
	p.atWork--
	p.last = time.Now()
	f.serve()
}

// away ends work for as long as others have it; back goes on with it at once.
func (f *floor) away(tenant deal.TenantID) (back func()) {
	f.rest(tenant)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.begin(tenant)
	}
}

func (f *floor) begin(tenant deal.TenantID) {
	p := f.here[tenant]
	p.atWork++
	p.last = time.Now()
}

// serve lets those go on for whom there is room: first whose tenant has the least at work.
func (f *floor) serve() {
	for {
		next := -1
		for i, w := range f.line {
			if f.may(w.tenant) && (next < 0 || f.here[w.tenant].atWork < f.here[f.line[next].tenant].atWork) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		w := f.line[next]
		f.line = slices.Delete(f.line, next, next+1)
		f.begin(w.tenant)
		close(w.turn)
	}
}

// may reports whether a tenant may have one more deal at work.
func (f *floor) may(tenant deal.TenantID) bool {
	alone, taken, kept := true, 0, 0
	for other, p := range f.here {
		taken += p.atWork
		switch {
		case other == tenant:
		case p.atWork > 0:
			alone = false
		case time.Since(p.last) < patience:
			alone, kept = false, 1
		}
	}
	return alone || f.here[tenant].atWork == 0 || taken+kept < f.places
}
