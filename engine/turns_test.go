package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestTenantsTakeTurnsHoweverManyDealsOneHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := newTurns(1)
		if err := places.take(t.Context(), "big"); err != nil {
			t.Fatal(err)
		}
		served := make(chan deal.TenantID, 10)
		for _, tenant := range []deal.TenantID{"big", "big", "big", "big", "small", "other", "small"} {
			go func() {
				if err := places.take(t.Context(), tenant); err != nil {
					t.Error(err)
				}
				served <- tenant
			}()
			synctest.Wait() // they come in this order
		}
		var order []deal.TenantID
		has := deal.TenantID("big")
		for range 7 {
			places.give(has)
			has = <-served
			order = append(order, has)
		}
		if want := []deal.TenantID{"big", "small", "other", "big", "small", "big", "big"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
	})
}

func TestNoMoreThanThePlacesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := newTurns(2)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 5)
		for range 5 {
			go func() { results <- places.take(ctx, "a") }()
		}
		synctest.Wait()
		if len(results) != 2 {
			t.Errorf("%d have a place, want 2", len(results))
		}
		cancel() // the others give up, and cost nobody a place
		synctest.Wait()
		failed := 0
		for range 5 {
			if errors.Is(<-results, context.Canceled) {
				failed++
			}
		}
		if failed != 3 {
			t.Errorf("%d gave up, want 3", failed)
		}
		if len(places.line) != 0 || len(places.waits) != 0 {
			t.Errorf("nobody waits, and the line is %v, %v", places.line, places.waits)
		}
		places.give("a")
		places.give("a")
		for range 2 {
			if err := places.take(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
		}
		if places.free != 0 {
			t.Errorf("%d places are free, want none", places.free)
		}
	})
}

func TestTheLastPlaceIsKeptForATenantThatHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := newTurns(2)
		taken := make(chan deal.TenantID, 10)
		take := func(tenant deal.TenantID) {
			t.Helper()
			go func() {
				if err := places.take(t.Context(), tenant); err != nil {
					t.Error(err)
				}
				taken <- tenant
			}()
			synctest.Wait()
		}
		have := func(what string, want ...deal.TenantID) {
			t.Helper()
			synctest.Wait()
			var got []deal.TenantID
			for len(taken) > 0 {
				got = append(got, <-taken)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v got a place, want %v", what, got, want)
			}
		}
		over := places.expect("small")
		take("big")
		take("big")
		have("while another is expected", "big")
		take("small")
		have("whom it was kept for", "small")
		places.give("small")
		have("who has had it may come again")
		over()
		have("nobody else is expected any more", "big")
		over() // does nothing
		take("small")
		have("none is free")
		places.give("big")
		have("in turn", "small")
		places.give("small")
		places.give("big")

		defer places.expect("slow")()
		take("big")
		take("big")
		have("one of both", "big")
		time.Sleep(patience)
		places.give("big")
		take("big")
		have("nobody waits long for what does not come", "big", "big")
	})
}

func TestAPlaceIsKeptOnlyForDealsThatWillBeRendered(t *testing.T) {
	for _, c := range []struct {
		attachment, trail string
		step              deal.Step
		want              bool
	}{
		{"", "", deal.Gathered, true},
		{"", "", deal.Rendered, false},
		{"", "audit-trail@1", deal.Checked, true},
		{"", "audit-trail@1", deal.Kept, false},
		{"Quote*.pdf", "", deal.Noticed, false},
		{"Quote*.pdf", "audit-trail@1", deal.Noticed, true},
	} {
		s := &deal.Sealing{Step: c.step, Plan: deal.Plan{Attachment: c.attachment, AuditTrail: c.trail}}
		if got := willRender(s); got != c.want {
			t.Errorf("%+v: %v, want %v", c, got, c.want)
		}
	}
}
