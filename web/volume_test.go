package web

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// steady are months in which each day had the same volume, until today, which has other ones.
func steady(n int64, last ...int64) (f deal.Figures) {
	f.Earlier, f.First = map[string]int64{}, "2026-01-01"
	for ago := range chartDays + 7*deal.VolumeWeeks {
		day := noon.AddDate(0, 0, -ago).Format(time.DateOnly)
		switch {
		case ago < len(last):
			f.Days = append(f.Days, deal.Day{Day: day, Sealed: last[len(last)-1-ago]})
		case ago < chartDays:
			f.Days = append(f.Days, deal.Day{Day: day, Sealed: n})
		default:
			f.Earlier[day] = n
		}
	}
	slices.Reverse(f.Days)
	return f
}

func TestDaysUnlikeOthersAreMarkedAndNamed(t *testing.T) {
	for _, c := range []struct {
		last              []int64
		figure, mark, row string
		odd               int
	}{
		{[]int64{100, 100}, "0", "done", "as usual", 0},
		{[]int64{100, 151}, "1", "retrying", "more than usual", 1},
		{[]int64{100, 0}, "0", "done", "as usual", 0}, // it is not over
		{[]int64{49, 100}, "1", "retrying", "as usual", 1},
		{[]int64{0, 400, 100, 100}, "2", "done", "as usual", 2},
	} {
		v := chartOf(t, steady(100, c.last...), "volume")
		last := v.Rows[chartDays-1].Cells
		if v.Figure != c.figure || v.Mark != c.mark || last[2] != c.row || last[1] != "50 to 150" || strings.Count(v.Odd, "M") != c.odd || strings.Count(v.Desc, ", usual are 50 to 150") != c.odd {
			t.Errorf("%v: figure %s, mark %s, %q, %s\n%s", c.last, v.Figure, v.Mark, last, v.Odd, v.Desc)
		}
		if len(v.Bands) != chartDays || strings.Count(v.Edges, "M") != 2*chartDays {
			t.Errorf("%v: %d bands", c.last, len(v.Bands))
		}
	}
}

func TestBeforeFourWeeksNoDayIsJudged(t *testing.T) {
	f := steady(100, 900)
	f.Earlier, f.First = nil, noon.AddDate(0, 0, -27).Format(time.DateOnly)
	v := chartOf(t, f, "volume")
	if v.Figure != "–" || v.Mark != "ahead" || v.Bands != nil || v.Odd != "" || v.Rows[chartDays-1].Cells[2] != "–" || len(v.Bars) != chartDays {
		t.Errorf("%+v", v)
	}
	f.First = noon.AddDate(0, 0, -28).Format(time.DateOnly)
	if v := chartOf(t, f, "volume"); v.Figure != "1" || len(v.Bands) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestOutcomesAndReturnsAreWeighedByDeals(t *testing.T) {
	day := func(ago int) string { return noon.AddDate(0, 0, -ago).Format(time.DateOnly) }
	f := deal.Figures{Days: []deal.Day{
		{Day: day(2), Done: 99, Ended: 0, Reported: 99, Returned: 99 * time.Second},
		{Day: day(1), Ended: 1},
		{Day: day(0), Reported: 1, Returned: 101 * time.Second},
	}}
	o := chartOf(t, f, "outcome")
	if o.Figure != "99 %" || o.Rows[chartDays-2].Cells[2] != "0 %" || o.Rows[chartDays-1].Cells[2] != "–" || len(o.Lines[0].Dots) != 2 {
		t.Errorf("%+v", o)
	}
	r := chartOf(t, f, "return")
	if r.Figure != "2.0 s" || r.Rows[chartDays-1].Cells[1] != "1 min 41 s" || r.Rows[chartDays-2].Cells[1] != "–" || len(r.Lines[0].Dots) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestVolumesThatAreUnusualAreAMetric(t *testing.T) {
	for _, c := range []struct {
		last      []int64
		more, few string
	}{
		{[]int64{100, 100}, "0", "0"},
		{[]int64{100, 0}, "0", "0"},
		{[]int64{0, 0}, "0", "1"},
		{[]int64{0, 100, 100}, "0", "0"}, // before yesterday
		{[]int64{900, 100}, "1", "0"},
		{[]int64{20, 900}, "1", "1"},
	} {
		v := settle()
		v.figures = steady(100, c.last...)
		since := noon.AddDate(0, 0, -1).Format(time.DateOnly)
		for _, d := range v.figures.Days { // as the store does
			if d.Day < since {
				v.figures.Earlier[d.Day] = d.Sealed
			}
		}
		h, _, _ := open(v)
		for range 2 {
			text := scrape(t, h)
			if !strings.Contains(text, `dealseal_volume_unusual{than="more"} `+c.more) || !strings.Contains(text, `dealseal_volume_unusual{than="fewer"} `+c.few) {
				t.Errorf("%v: more %s, fewer %s:\n%s", c.last, c.more, c.few, text)
			}
			v.figures = deal.Figures{} // is not asked for again for a while
		}
	}
}
