package main

import (
	"slices"
	"testing"
)

func TestTheCollectorRunsSeldomWhileThereIsMuchToCollect(t *testing.T) {
	var cycles uint64
	set, released := []int{100}, 0
	c := &collector{
		cycles: func() uint64 { return cycles },
		percent: func(p int) int {
			set = append(set, p)
			return set[len(set)-2]
		},
		release: func() { released++ },
	}
	for _, step := range []struct {
		since    uint64
		set      []int
		released int
	}{
		{collectorBusy - 1, []int{100}, 0},
		{collectorBusy, []int{100, collectorSeldom}, 0},
		{collectorBusy, []int{100, collectorSeldom}, 0},
		{1, []int{100, collectorSeldom}, 0},
		{0, []int{100, collectorSeldom, 100}, 1},
		{0, []int{100, collectorSeldom, 100}, 1},
		{collectorBusy, []int{100, collectorSeldom, 100, collectorSeldom}, 1},
	} {
		cycles += step.since
		c.look()
		if !slices.Equal(set, step.set) || released != step.released {
			t.Errorf("after %d collections: GOGC %v, memory given back %d times; want %v, %d", step.since, set, released, step.set, step.released)
		}
	}
}

func TestCollectionsAreCounted(t *testing.T) {
	before := collections()
	var kept []byte
	for range 1000 {
		kept = make([]byte, 1<<20)
	}
	if after := collections(); after <= before {
		t.Errorf("%d collections before a gigabyte was allocated, %d after (%d)", before, after, len(kept))
	}
}
