package connectors

import (
	"math"
	"testing"
	"time"
)

func TestSequenceIsBelievedUpToADayAheadOfTheCRM(t *testing.T) {
	now := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	limit := now.Add(24 * time.Hour).UnixMilli()
	for _, tc := range []struct {
		name     string
		sequence int64
		now      time.Time
		want     bool
	}{
		{"old", 1, now, true},
		{"a day ahead", limit, now, true},
		{"more than a day ahead", limit + 1, now, false},
		{"the greatest number", math.MaxInt64, now, false},
		{"the CRM does not say its time", math.MaxInt64, time.Time{}, true},
	} {
		if got := Believable(tc.sequence, tc.now); got != tc.want {
			t.Errorf("%s: %t, want %t", tc.name, got, tc.want)
		}
	}
}
