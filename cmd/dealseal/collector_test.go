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
		live:   func() uint64 { return collectorGarbage / 10 },
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

// TestGarbageHasABoundHoweverMuchLives: a share of what lives would be several times what each deal leaves in memory.
func TestGarbageHasABoundHoweverMuchLives(t *testing.T) {
	var cycles, live uint64
	gogc := 100
	c := &collector{
		cycles: func() uint64 { return cycles },
		live:   func() uint64 { return live },
		percent: func(p int) (before int) {
			before, gogc = gogc, p
			return before
		},
		release: func() {},
	}
	for _, step := range []struct {
		live uint64
		gogc int
	}{
		{0, collectorSeldom}, {collectorGarbage / 8, collectorSeldom}, {collectorGarbage / 4, collectorSeldom},
		{collectorGarbage / 3, 300}, {collectorGarbage / 2, 200}, {collectorGarbage, 100}, {8 * collectorGarbage, 100}, {collectorGarbage / 2, 200},
	} {
		live = step.live
		cycles += collectorBusy
		c.look()
		if gogc != step.gogc {
			t.Errorf("while %d MB live: GOGC %d, want %d", live>>20, gogc, step.gogc)
		}
	}
	if c.look(); gogc != 100 {
		t.Errorf("when it is over: GOGC %d, want what it was before", gogc)
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
	if lives() == 0 {
		t.Error("nothing lives after a collection")
	}
}
