package web

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// chartDays is how many days the charts show.
const chartDays = 30

// What was promised: the share of calls to CRMs that succeed, in per cent, and the time from noticed to reported that deals
// take which wait for nobody, and that half of them take.
const (
	successTarget = 99.5
	flowTarget    = 3 * time.Second
	halfTarget    = 2 * time.Second
)

// The plane of a chart, in units of its viewBox: about what a phone shows of it, so that its letters stay legible there.
const (
	planeWidth  = 360
	planeHeight = 170
	left        = 44 // of the axis
	right       = planeWidth - 6
	top         = 10
	bottom      = planeHeight - 22
)

// chart is drawn by the template of the same name. Everything that it shows stands in its table too.
type chart struct {
	ID, Title, Desc string
	// Figure sums the chart up in a number; Note says of what, and Mark whether that is as it should be.
	Figure, Note, Mark string
	Grid               []tick // horizontal lines
	Days               []tick // below the axis
	Limit              *tick
	Bands              []bar  // what is usual, behind the bars
	Edges              string // of the bands
	Bars               []bar
	Odd                string // marks of days that are not usual
	Lines              []line
	Key                []choice // what the lines are: class and words
	Head               []string
	Rows               []chartRow
}

// tick is a label at a place of an axis.
type tick struct {
	At   string
	Text string
}

type bar struct{ X, Y, Width, Height string }

// line is a run of points without gaps; days without a value end one.
type line struct {
	Class  string
	Points string
	Dots   []dot
}

type dot struct{ X, Y string }

type chartRow struct {
	Day   string
	Cells []string
}

// upTo gives each of the last n days its figures, oldest first; days on which nothing happened are zero.
func upTo(now time.Time, n int, days []deal.Day) []deal.Day {
	byName := map[string]deal.Day{}
	for _, d := range days {
		byName[d.Day] = d
	}
	all := make([]deal.Day, n)
	for i := range all {
		name := now.UTC().AddDate(0, 0, i-n+1).Format(time.DateOnly)
		all[i] = byName[name]
		all[i].Day = name
	}
	return all
}

// charts are those of the status page.
func charts(f deal.Figures, now time.Time) []chart {
	days := upTo(now, chartDays, f.Days)
	list := []chart{sealedChart(days), volumeChart(days, f), outcomeChart(days), returnChart(days), successChart(days), flowChart(days, f.Flow)}
	for i := range list {
		list[i].Days = dayTicks(days)
	}
	return list
}

func sealedChart(days []deal.Day) chart {
	var sum, most int64
	for _, d := range days {
		sum += d.Sealed
		most = max(most, d.Sealed)
	}
	c := chart{ID: "sealed", Title: "Contracts sealed per day", Figure: number(sum), Note: "in 30 days", Head: []string{"Noticed", "Sealed", "Done"}}
	c.Desc = fmt.Sprintf("Bars for each of the last 30 days. %s were sealed, at most %s on one day.", number(sum), number(most))
	y := c.numbers(most)
	for i, d := range days {
		c.bar(i, d.Sealed, y)
		c.Rows = append(c.Rows, chartRow{d.Day, []string{number(d.Noticed), number(d.Sealed), number(d.Done)}})
	}
	return c
}

func successChart(days []deal.Day) chart {
	var calls, failed int64
	lowest := successTarget
	for _, d := range days {
		calls, failed = calls+d.Calls, failed+d.FailedCalls
		if d.Calls > 0 {
			lowest = min(lowest, successOf(d))
		}
	}
	c := chart{ID: "success", Title: "Calls to CRMs that succeeded", Figure: "–", Note: "no calls yet", Mark: "ahead", Head: []string{"Calls", "Failed", "Succeeded"}}
	if calls > 0 {
		share := successOf(deal.Day{Calls: calls, FailedCalls: failed})
		c.Figure, c.Note, c.Mark = percent(share), "in 30 days; wanted: 99.5 %", "done"
		if share < successTarget {
			c.Mark = "dead"
		}
	}
	c.Desc = fmt.Sprintf("One value for each of the last 30 days: the share of calls to CRMs that were answered, a refusal being an answer. %s of %s failed. A line marks 99.5 per cent.", number(failed), number(calls))
	y := c.shares(lowest)
	c.Limit = &tick{unit(y(successTarget)), percent(successTarget)}
	c.Lines = []line{trace("p50", days, func(d deal.Day) (float64, bool) { return y(successOf(d)), d.Calls > 0 })}
	for _, d := range days {
		share := "–"
		if d.Calls > 0 {
			share = percent(successOf(d))
		}
		c.Rows = append(c.Rows, chartRow{d.Day, []string{number(d.Calls), number(d.FailedCalls), share}})
	}
	return c
}

func successOf(d deal.Day) float64 {
	return float64(d.Calls-d.FailedCalls) / float64(d.Calls) * 100
}

// shares has the chart end at 100 per cent, and begin below the lowest of its values.
func (c *chart) shares(lowest float64) (y func(float64) float64) {
	floor := math.Floor(lowest*2-.5) / 2
	if lowest < 98 {
		floor = math.Max(math.Floor(lowest/10)*10, 0)
	}
	y = func(v float64) float64 { return bottom - (v-floor)/(100-floor)*(bottom-top) }
	c.Grid = []tick{{unit(y(floor)), percent(floor)}, {unit(y(100)), percent(100)}}
	return y
}

// durations has the chart reach from one duration to another, by powers of ten of a second.
func (c *chart) durations(least, most time.Duration) (y func(time.Duration) float64) {
	from, to := math.Floor(math.Log10(least.Seconds())), math.Ceil(math.Log10(most.Seconds()))
	y = func(d time.Duration) float64 {
		return bottom - (math.Log10(max(d.Seconds(), .001))-from)/(to-from)*(bottom-top)
	}
	for e := from; e <= to; e++ {
		d := time.Duration(math.Pow(10, e) * float64(time.Second)).Round(time.Millisecond)
		c.Grid = append(c.Grid, tick{unit(y(d)), roundTime(d)})
	}
	return y
}

func flowChart(days []deal.Day, all deal.Quantiles) chart {
	c := chart{ID: "flow", Title: "From stage seen to fields written", Figure: "–", Note: "no deal has been done yet", Mark: "ahead", Head: []string{"Deals", "p50", "p95", "p99"}}
	least, most := 100*time.Millisecond, 10*time.Second
	for _, d := range days {
		if d.Flow.N > 0 {
			least, most = min(least, d.Flow.P50), max(most, d.Flow.P99)
		}
	}
	if all.N > 0 {
		c.Figure, c.Note, c.Mark = took(all.P95), "for 95 of 100; wanted: 3 s, and 2 s for 50", "done"
		if all.P95 > flowTarget || all.P50 > halfTarget {
			c.Mark = "dead"
		}
	}
	c.Desc = fmt.Sprintf("Three values for each of the last 30 days, on a logarithmic scale: what 50, 95 and 99 of 100 deals did not exceed. Over all days these are %s, %s and %s. A line marks 3 seconds. "+
		"Deals that waited for a person are left out.", took(all.P50), took(all.P95), took(all.P99))
	y := c.durations(least, most)
	c.Limit = &tick{unit(y(flowTarget)), "3 s"}
	for _, q := range []struct {
		class string
		of    func(deal.Quantiles) time.Duration
	}{{"p99", func(q deal.Quantiles) time.Duration { return q.P99 }}, {"p95", func(q deal.Quantiles) time.Duration { return q.P95 }}, {"p50", func(q deal.Quantiles) time.Duration { return q.P50 }}} {
		c.Lines = append(c.Lines, trace(q.class, days, func(d deal.Day) (float64, bool) { return y(q.of(d.Flow)), d.Flow.N > 0 }))
	}
	c.Key = []choice{{Value: "p50", Text: "50 of 100"}, {Value: "p95", Text: "95 of 100"}, {Value: "p99", Text: "99 of 100"}}
	for _, d := range days {
		cells := []string{number(d.Flow.N), "–", "–", "–"}
		if d.Flow.N > 0 {
			cells = []string{number(d.Flow.N), took(d.Flow.P50), took(d.Flow.P95), took(d.Flow.P99)}
		}
		c.Rows = append(c.Rows, chartRow{d.Day, cells})
	}
	return c
}

// trace draws a value of each day that has one.
func trace(class string, days []deal.Day, value func(deal.Day) (y float64, ok bool)) line {
	l := line{Class: class}
	var runs []string
	gap := true
	for i, d := range days {
		y, ok := value(d)
		if !ok {
			gap = true
			continue
		}
		x, at := unit(dayAt(i)), unit(y)
		l.Dots = append(l.Dots, dot{x, at})
		if verb := "L"; gap {
			runs, gap = append(runs, "M"+x+" "+at), false
		} else {
			runs = append(runs, verb+x+" "+at)
		}
	}
	l.Points = strings.Join(runs, "")
	return l
}

const (
	dayWidth = float64(right-left) / chartDays
	barWidth = .72 * dayWidth
)

// dayAt is the middle of a day's place.
func dayAt(i int) float64 { return left + (float64(i)+.5)*(right-left)/chartDays }

func dayTicks(days []deal.Day) (ticks []tick) {
	for _, i := range []int{1, 10, 19, 28} {
		name := days[i].Day
		if t, err := time.Parse(time.DateOnly, name); err == nil {
			name = t.Format("2 Jan")
		}
		ticks = append(ticks, tick{unit(dayAt(i)), name})
	}
	return ticks
}

// nice is the least of 2, 4, 10, 20, 40, 100 and so on that is not below v.
func nice(v float64) float64 {
	for scale := 1.0; ; scale *= 10 {
		for _, n := range []float64{2, 4, 10} {
			if v <= n*scale {
				return n * scale
			}
		}
	}
}

// unit writes a length of the plane.
func unit(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.1f", v), "0"), ".")
}

// percent is exact enough to tell 99.96 from all.
func percent(v float64) string {
	if s := fmt.Sprintf("%.2f", v); v < 100 && s == "100.00" {
		return "99.99 %"
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".") + " %"
}

// roundTime is a power of ten of a second, short enough for the side of a chart.
func roundTime(d time.Duration) string {
	if d == 100*time.Millisecond {
		return "0.1 s"
	}
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// stepTimes is how long each step took, for the table below the charts.
type stepTimeView struct {
	Step, N, P50, P95, P99 string
}

func stepTimes(list []deal.StepTimes) (views []stepTimeView) {
	for _, s := range list {
		views = append(views, stepTimeView{string(s.Step), number(s.N), took(s.P50), took(s.P95), took(s.P99)})
	}
	return slices.Clip(views)
}
