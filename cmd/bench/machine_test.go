package main

import (
	"testing"
	"time"
)

func TestProcessorTimeIsToldApart(t *testing.T) {
	before := spent{"daemon": time.Second, "render-worker": time.Second}
	used := spent{"daemon": 3 * time.Second, "render-worker": 5 * time.Second, "read-worker": 500 * time.Millisecond}.since(before)
	if got, want := used.perDeal(100), "render-worker 40, daemon 20, read-worker 5"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// A child that has ended has left its life to its parent.
	used = spent{"daemon": 3 * time.Second, ended: 6 * time.Second}.since(before)
	if got, want := used.sum(), 7*time.Second; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
