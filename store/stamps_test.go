package store

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestAQuotaOfTimeStampsIsKeptOverARestartAndByManyAtOnce(t *testing.T) {
	s, clock := newStore(t)
	count := func(server, day string, limit int) bool {
		counted, err := s.CountStamp(t.Context(), server, day, limit)
		if err != nil {
			t.Error(err)
		}
		return counted
	}
	var taken atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if count("https://a.example/tsa", "2026-03-04", 7) {
				taken.Add(1)
			}
		})
	}
	all.Wait()
	if taken.Load() != 7 {
		t.Errorf("%d of a quota of 7 were taken", taken.Load())
	}
	mustCount := func(day string, want int64) {
		t.Helper()
		got, err := s.Stamps(t.Context(), day)
		if err != nil || got["https://a.example/tsa"] != want {
			t.Errorf("%v, want %d: %v", got, want, err)
		}
	}
	s.release() // as a process that dies
	s = open(t, options(s.dir, clock.Now))
	mustCount("2026-03-04", 7)
	if count("https://a.example/tsa", "2026-03-04", 7) {
		t.Error("after a restart there is another one")
	}
	if !count("https://a.example/tsa", "2026-03-04", 8) || !count("https://b.example/tsa", "2026-03-04", 1) || !count("https://a.example/tsa", "2026-03-05", 7) {
		t.Error("a higher quota, another server or another day has none left")
	}
	mustCount("2026-03-05", 1)
	mustCount("2026-03-04", 0)
}
