package engine

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// workers are deals of a tenant that work until they are told to rest.
type workers struct {
	f      *floor
	tenant deal.TenantID
	began  chan struct{}
	rest   chan struct{}
}

// crowd brings n deals of a tenant to the floor, all of which want to work.
func crowd(t *testing.T, f *floor, tenant deal.TenantID, n int) *workers {
	w := &workers{f: f, tenant: tenant, began: make(chan struct{}, n), rest: make(chan struct{})}
	ctx := t.Context()
	for range n {
		go func() {
			defer f.come(tenant)()
			f.work(ctx, tenant)
			w.began <- struct{}{}
			<-w.rest
			f.rest(tenant)
		}()
	}
	synctest.Wait()
	return w
}

func (w *workers) end() { close(w.rest); synctest.Wait() }

// atWork is how many of a tenant's deals are at work.
func (f *floor) atWork(tenant deal.TenantID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.here[tenant]; p != nil {
		return p.atWork
	}
	return 0
}

func TestATenantThatIsAloneHasTheWholeFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFloor(2)
		defer crowd(t, f, "big", 12).end()
		if n := f.atWork("big"); n != 12 {
			t.Errorf("%d of 12 deals are at work, and no other tenant is there", n)
		}
	})
}

// A dozen deals of one tenant leave a processor to another's only deal.
func TestOneAmongADozenHasAProcessor(t *testing.T) {
	for processors, want := range map[int]int{1: 1, 2: 1, 4: 3, 8: 7} {
		synctest.Test(t, func(t *testing.T) {
			f := newFloor(processors)
			small := crowd(t, f, "small", 1)
			big := crowd(t, f, "big", 12)
			if n := f.atWork("big"); n != want {
				t.Errorf("with %d processors %d deals are at work beside another tenant's, want %d", processors, n, want)
			}
			if n := f.atWork("small"); n != 1 {
				t.Error("the only deal of a tenant waits for those of another")
			}
			small.end()
			if n := f.atWork("big"); n != 12 {
				t.Errorf("the other tenant is gone, and %d of 12 deals are at work", n)
			}
			big.end()
		})
	}
}

// What is at work when another tenant's deal comes goes on to the end of its step, and no further.
func TestNothingIsTakenFromThoseAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFloor(2)
		first, second := crowd(t, f, "big", 1), crowd(t, f, "big", 1)
		small := crowd(t, f, "small", 1)
		if n := f.atWork("big"); n != 2 {
			t.Fatalf("%d deals are at work, want the two that were", n)
		}
		again := crowd(t, f, "big", 1)
		first.end()
		if n := f.atWork("big"); n != 1 {
			t.Errorf("%d deals are at work beside another tenant's, want 1", n)
		}
		second.end()
		if n := f.atWork("big"); n != 1 || len(again.began) != 1 {
			t.Error("a tenant that has nothing at work any more waits for another's")
		}
		small.end()
		again.end()
	})
}

// Whoever is away leaves room for others at once, and the tenant's processor stays free for its return; but not for longer
// than patience: a CRM that takes its time keeps nobody from work.
func TestThePlaceOfADealThatIsAwayIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFloor(2)
		defer f.come("small")()
		f.work(t.Context(), "small")
		back := f.away("small")
		big := crowd(t, f, "big", 2)
		if n := f.atWork("big"); n != 1 {
			t.Errorf("%d deals are at work while another tenant's is at its CRM, want 1", n)
		}
		awhile := f.away("big")
		synctest.Wait()
		if len(big.began) != 2 {
			t.Error("a deal that is away keeps another of its tenant from work")
		}
		awhile()
		time.Sleep(patience + time.Second)
		more := crowd(t, f, "big", 5)
		if n := f.atWork("big"); n != 7 {
			t.Errorf("%d of 7 deals are at work although the other tenant's has long been away", n)
		}
		back()
		f.rest("small")
		big.end()
		more.end()
	})
}

// A deal at work that takes for ever keeps those of its tenant no longer than patience, and the end of the context nobody.
func TestNobodyWaitsOnTheFloorForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFloor(2)
		small, big := crowd(t, f, "small", 1), crowd(t, f, "big", 1)
		defer f.come("big")()
		start := time.Now()
		f.work(t.Context(), "big")
		if waited := time.Since(start); waited != patience {
			t.Errorf("it waited for %s, want %s", waited, patience)
		}
		f.rest("big")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if f.work(ctx, "big"); time.Since(start) != patience {
			t.Error("a deal waits although the work is to stop")
		}
		f.rest("big")
		big.end()
		small.end()
	})
}

// A step that panics does not stay at work for ever.
func TestAStepThatPanicsLeavesTheFloor(t *testing.T) {
	e := &Engine{Log: slog.New(slog.DiscardHandler)}
	e.init()
	defer e.floor.come("a")()
	r := &run{Engine: e, s: &deal.Sealing{Tenant: "a"}, step: &step{name: "x", do: func(r *run, _ context.Context) error {
		defer r.floor.away("a")()
		panic("a step")
	}}}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		r.takeAtWork(t.Context())
	}()
	if n := e.floor.atWork("a"); n != 0 {
		t.Errorf("%d deals are at work", n)
	}
}
