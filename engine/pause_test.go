package engine

import (
	"testing"

	"github.com/dealseal/dealseal/deal"
)

// TestAPausedTenantsDealsWaitAtTheirStepAndGoOn pauses a tenant when a deal comes to a point: what has begun ends, and no more.
func TestAPausedTenantsDealsWaitAtTheirStepAndGoOn(t *testing.T) {
	t.Parallel()
	for point, waits := range map[string]deal.Step{
		"gather.advance.gathered/after": deal.Gathered,
		"seal.begin.sign/before":        deal.Rendered,
		"seal.advance.sealed/after":     deal.Sealed,
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon()
			record := w.won()
			tx := d.notice()
			d.until(point, func() { must(t, d.store.Pause(t.Context(), acme, "alice", "the template is wrong")) })
			for range 3 {
				d.handle(tx)
			}
			d.want(d.load(tx), deal.Running, waits, "")
			if sealed := !waits.Before(deal.Sealed); !sealed {
				w.wantUses(0)
			}
			w.wantContracts(record, 0)
			w.won()
			later := d.notice()
			d.handle(later)
			d.want(d.load(later), deal.Running, deal.Noticed, "")
			if _, err := d.Reconcile(t.Context(), acme, Order{Days: 1, Who: "alice"}, nil); err == nil {
				t.Error("a paused tenant is reconciled")
			}

			must(t, d.store.Resume(t.Context(), acme, "alice", "it is mended"))
			d.finish()
			d.wantDone(d.load(tx))
			d.wantDone(d.load(later))
			w.wantUses(2)
			w.wantContracts(record, 1)
		})
	}
}
