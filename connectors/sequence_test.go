package connectors

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestAClaimIsHeldBackByWhatAnotherDatabaseSaysOfTheSameTransaction(t *testing.T) {
	now := time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)
	const shown = `{"tx":"a","seq":1,"status":"queued","by":"other"}`
	for name, c := range map[string]struct {
		receipt deal.Receipt
		want    bool
	}{
		"another's":              {deal.Receipt{Tx: "a", Sequence: 2, Claim: "ours"}, true},
		"our own":                {deal.Receipt{Tx: "a", Sequence: 2, Claim: "other"}, false},
		"of another transaction": {deal.Receipt{Tx: "b", Sequence: 2, Claim: "ours"}, false},
		"no claim":               {deal.Receipt{Tx: "a", Sequence: 2}, false},
	} {
		if held, err := ShownHoldsBack(shown, c.receipt, now); err != nil || held != c.want {
			t.Errorf("%s: held back %t (%v), want %t", name, held, err, c.want)
		}
	}
}

func TestSequenceHoldsAReceiptBackUnlessItIsAheadOfTheCRM(t *testing.T) {
	now := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	ahead := func(d time.Duration) int64 { return now.Add(d).UnixMilli() }
	for _, tc := range []struct {
		name     string
		sequence int64
		now      time.Time
		want     bool
		wait     time.Duration // 0: no error
	}{
		{"old", 1, now, true, 0},
		{"five minutes ahead", ahead(5 * time.Minute), now, true, 0},
		{"more than five minutes ahead", ahead(5*time.Minute) + 1, now, false, 5*time.Minute + time.Millisecond},
		{"an hour ahead", ahead(time.Hour), now, false, time.Hour},
		{"a day ahead", ahead(24 * time.Hour), now, false, time.Hour},
		{"more than a day ahead", ahead(24*time.Hour) + 1, now, false, 0},
		{"the greatest number", math.MaxInt64, now, false, 0},
		{"the CRM does not say its time", math.MaxInt64, time.Time{}, true, 0},
	} {
		got, err := HoldsBack(tc.sequence, tc.now)
		if got != tc.want || deal.RetryAfter(err) != tc.wait || (err != nil) != (tc.wait > 0) {
			t.Errorf("%s: %t, %v, wait %s, want %t and %s", tc.name, got, err, deal.RetryAfter(err), tc.want, tc.wait)
		}
		var future *FutureError
		if err != nil && (deal.IsPermanent(err) || !errors.As(err, &future)) {
			t.Errorf("%s: %v is no *FutureError that passes", tc.name, err)
		}
	}
}
