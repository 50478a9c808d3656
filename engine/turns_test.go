package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

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
		for range 7 {
			places.give()
			order = append(order, <-served)
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
		places.give()
		places.give()
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
