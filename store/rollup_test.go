package store

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

func figures(t *testing.T, s *Store, since time.Time) deal.Figures {
	t.Helper()
	f, err := s.Figures(t.Context(), since)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDaysCountDealsCallsAndDurations(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	c.advance(300 * time.Millisecond)
	sl.Condition, sl.Next = deal.Retrying, c.now.Add(time.Second)
	advance(t, s, sl, "failed")
	sl.Attempts = 2
	advance(t, s, sl, "failed again")
	sl.Condition = deal.Running
	toDone(t, s, sl)
	polled := func(calls, failed int64) {
		if err := s.SetPoll(t.Context(), deal.PollState{Tenant: acme, Calls: calls, FailedCalls: failed}); err != nil {
			t.Fatal(err)
		}
	}
	polled(7, 0)
	polled(3, 2)
	waiting := one(t, s, "006B")
	waiting.Condition = deal.Held
	advance(t, s, waiting, "held")
	waiting.Condition = deal.Running
	c.advance(24 * time.Hour)
	toDone(t, s, waiting)
	polled(4, 0)
	flow := bucketEnd(bucketOf(300))
	want := []deal.Day{
		{Day: "2026-03-04", Noticed: 2, Sealed: 1, Reported: 1, Done: 1, Held: 1, Returned: 300 * time.Millisecond, Calls: 10, FailedCalls: 2, Flow: deal.Quantiles{N: 1, P50: flow, P95: flow, P99: flow}},
		{Day: "2026-03-05", Sealed: 1, Reported: 1, Done: 1, Returned: 24 * time.Hour, Calls: 4},
	}
	f := figures(t, s, start)
	if d := cmp.Diff(want, f.Days); d != "" || f.Flow != want[0].Flow {
		t.Error(d, f.Flow)
	}
	if d := cmp.Diff(want[1:], figures(t, s, start.Add(24*time.Hour)).Days); d != "" {
		t.Error(d)
	}
	if len(f.Steps) != 8 || f.Steps[0].Step != deal.Gathered || f.Steps[0].N != 2 || f.Steps[0].P50 != flow || f.Steps[0].P99 < 24*time.Hour {
		t.Errorf("%+v", f.Steps)
	}
}

func TestBucketsAreNeverBelowWhatTheyCountAndAtMostATenthAbove(t *testing.T) {
	for ms := int64(1); ms < 1e9; ms += 1 + ms/7 {
		end := bucketEnd(bucketOf(ms)).Milliseconds()
		if end < ms || float64(end) > float64(ms)*1.1+1 {
			t.Errorf("%d ms are counted as up to %d ms", ms, end)
		}
	}
	if bucketOf(0) != 0 || bucketOf(-5) != 0 || bucketEnd(bucketOf(1<<62)) <= 0 {
		t.Error("times out of order have no bucket")
	}
}

func TestQuantilesAreRanks(t *testing.T) {
	var h histogram
	for i := range 100 {
		h = append(h, bar{bucket: i, n: 1})
	}
	if got, want := h.quantiles(), (deal.Quantiles{N: 100, P50: bucketEnd(49), P95: bucketEnd(94), P99: bucketEnd(98)}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := (histogram{}).quantiles(); got != (deal.Quantiles{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestChartsReadFewRows(t *testing.T) {
	s, _ := newStore(t)
	for q, args := range map[string][]any{daysQuery: {"2026-03-04"}, flowsQuery: {"2026-03-04"}, stepsQuery: {"2026-03-04"}, volumesQuery: {"2026-01-04", "2026-03-04", "sealed"}, firstQuery: nil} {
		for _, line := range explained(t, s, q, args...) {
			if len(line) > 4 && line[:4] == "SCAN" {
				t.Errorf("%s\n\t%s", q, line)
			}
		}
	}
}

func TestTheWeeksBeforeSayWhatIsUsual(t *testing.T) {
	s, c := newStore(t)
	if f := figures(t, s, start); f.First != "" || len(f.Earlier) > 0 {
		t.Errorf("of nothing: %+v", f)
	}
	for range 2 {
		toDone(t, s, one(t, s, "006"+c.now.Format("0102")))
		c.advance(7 * 24 * time.Hour)
	}
	f := figures(t, s, c.now.AddDate(0, 0, -7))
	if diff := cmp.Diff(map[string]int64{"2026-03-04": 1}, f.Earlier); diff != "" || f.First != "2026-03-04" || len(f.Days) != 1 {
		t.Errorf("%s; since %s; %+v", diff, f.First, f.Days)
	}
	if f := figures(t, s, c.now.AddDate(0, 0, 7*deal.VolumeWeeks)); len(f.Earlier) != 0 {
		t.Errorf("%+v", f.Earlier)
	}
}

func TestDurationsFromBeforeTheMigrationAreKept(t *testing.T) {
	for old, ms := range map[int]int64{0: 0, 1: 1, 9: 300, 12: 4095} {
		if end := bucketEnd(old * perOctave).Milliseconds(); end < ms || end != 1<<old {
			t.Errorf("bucket %d counted up to %d ms, it is read as %d", old, 1<<old, end)
		}
	}
}
