package web

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

// chartOf is the chart with an ID.
func chartOf(t *testing.T, f deal.Figures, id string) chart {
	t.Helper()
	for _, c := range charts(f, noon) {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("there is no chart %q", id)
	return chart{}
}

func TestChartsOfANewDaemonPromiseNothing(t *testing.T) {
	for _, c := range charts(deal.Figures{}, noon) {
		if len(c.Bars) > 0 || strings.Contains(c.Title+c.Figure+c.Note, "NaN") || len(c.Rows) != chartDays || c.Mark == "done" {
			t.Errorf("%s: %d bars, %d rows, figure %q %q, mark %q", c.ID, len(c.Bars), len(c.Rows), c.Figure, c.Note, c.Mark)
		}
		for _, l := range c.Lines {
			if l.Points != "" {
				t.Errorf("%s draws %s", c.ID, l.Points)
			}
		}
		for _, g := range c.Grid {
			if strings.Contains(g.At, "NaN") || strings.Contains(g.At, "Inf") {
				t.Errorf("%s has a line at %s", c.ID, g.At)
			}
		}
	}
}

func TestChartsShowTheLast30DaysAndNoOthers(t *testing.T) {
	day := func(ago int) string { return noon.AddDate(0, 0, -ago).Format(time.DateOnly) }
	f := deal.Figures{Days: []deal.Day{{Day: day(30), Sealed: 9}, {Day: day(29), Sealed: 1}, {Day: day(0), Sealed: 4}}}
	c := chartOf(t, f, "sealed")
	if c.Figure != "5" || len(c.Bars) != 2 || c.Rows[0].Day != day(29) || c.Rows[29].Day != day(0) {
		t.Errorf("%s sealed, %d bars, from %s to %s", c.Figure, len(c.Bars), c.Rows[0].Day, c.Rows[29].Day)
	}
	if diff := cmp.Diff(bar{X: "345.1", Y: "10", Width: "7.4", Height: "138"}, c.Bars[1]); diff != "" {
		t.Error(diff)
	}
}

func TestPromisesThatAreNotKeptAreMarked(t *testing.T) {
	today := noon.Format(time.DateOnly)
	for _, c := range []struct {
		day                      deal.Day
		flow                     deal.Quantiles
		success, share, speed, p string
	}{
		{deal.Day{Day: today, Calls: 1000, FailedCalls: 5}, deal.Quantiles{N: 1, P95: 3 * time.Second}, "done", "99.5 %", "done", "3.0 s"},
		{deal.Day{Day: today, Calls: 1000, FailedCalls: 6}, deal.Quantiles{N: 1, P95: 3001 * time.Millisecond}, "dead", "99.4 %", "dead", "3.0 s"},
		{deal.Day{Day: today, Calls: 1000}, deal.Quantiles{N: 1, P50: 2001 * time.Millisecond, P95: 2500 * time.Millisecond}, "done", "100 %", "dead", "2.5 s"},
		{deal.Day{Day: today, Calls: 1_000_000, FailedCalls: 1}, deal.Quantiles{N: 1, P95: 640 * time.Millisecond}, "done", "99.99 %", "done", "640 ms"},
		{deal.Day{Day: today, Calls: 3, FailedCalls: 3}, deal.Quantiles{N: 1, P95: 2 * time.Hour}, "dead", "0 %", "dead", "2 h 0 min"},
		{deal.Day{Day: today, Calls: 7}, deal.Quantiles{}, "done", "100 %", "ahead", "–"},
	} {
		f := deal.Figures{Days: []deal.Day{c.day}, Flow: c.flow}
		success, flow := chartOf(t, f, "success"), chartOf(t, f, "flow")
		if success.Mark != c.success || success.Figure != c.share || flow.Mark != c.speed || flow.Figure != c.p {
			t.Errorf("%+v: %s %s, %s %s", c, success.Mark, success.Figure, flow.Mark, flow.Figure)
		}
	}
}

func TestDaysWithoutAValueInterruptTheLine(t *testing.T) {
	days := []deal.Day{{Sealed: 1}, {Sealed: 2}, {}, {Sealed: 3}, {}}
	l := trace("p50", days, func(d deal.Day) (float64, bool) { return float64(d.Sealed), d.Sealed > 0 })
	if strings.Count(l.Points, "M") != 2 || strings.Count(l.Points, "L") != 1 || len(l.Dots) != 3 {
		t.Errorf("%s, %d dots", l.Points, len(l.Dots))
	}
}

func TestEverythingDrawnIsOnThePlane(t *testing.T) {
	far := deal.Figures{Days: []deal.Day{{Day: noon.Format(time.DateOnly), Noticed: 1, Sealed: 1_234_567, Calls: 2, FailedCalls: 1,
		Flow: deal.Quantiles{N: 1, P50: time.Millisecond, P95: time.Hour, P99: 30 * 24 * time.Hour}}}}
	for _, f := range []deal.Figures{busyMonth(), far} {
		for _, c := range charts(f, noon) {
			for _, l := range c.Lines {
				for _, d := range l.Dots {
					if d.Y[0] == '-' || len(strings.Split(d.Y, ".")[0]) > 3 {
						t.Errorf("%s: a dot at %s", c.ID, d.Y)
					}
				}
			}
			for _, b := range append(c.Bands, c.Bars...) {
				if b.Y[0] == '-' || b.Height[0] == '-' {
					t.Errorf("%s: a bar from %s", c.ID, b.Y)
				}
			}
		}
	}
}

func TestAxesEndAtRoundNumbers(t *testing.T) {
	for v, want := range map[float64]float64{0: 2, 1: 2, 2: 2, 3: 4, 5: 10, 11: 20, 41: 100, 100: 100, 101: 200, 401: 1000} {
		if got := nice(v); got != want {
			t.Errorf("%v: %v, want %v", v, got, want)
		}
	}
}
