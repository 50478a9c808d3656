package web

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/deal"
)

// judged is a day's volume beside what is usual for it, if that is known.
type judged struct {
	deal.Day
	usual     deal.Usual
	known     bool
	few, many bool
}

func (j judged) odd() bool { return j.few || j.many }

func (j judged) words() (usual, verdict string) {
	if !j.known {
		return "–", "–"
	}
	usual, verdict = number(j.usual.Least)+" to "+number(j.usual.Most), "as usual"
	switch {
	case j.few:
		verdict = "fewer than usual"
	case j.many:
		verdict = "more than usual"
	}
	return usual, verdict
}

// judge compares each day with its weekday in the weeks before. The last day is not over: it may have too many, not too few.
func judge(days []deal.Day, f deal.Figures) (all []judged) {
	sealed := map[string]int64{}
	maps.Copy(sealed, f.Earlier)
	for _, d := range days {
		sealed[d.Day] = d.Sealed
	}
	for i, d := range days {
		j := judged{Day: d}
		if j.usual, j.known = deal.UsualVolume(sealed, f.First, d.Day); j.known {
			j.many, j.few = d.Sealed > j.usual.Most, d.Sealed < j.usual.Least && i < len(days)-1
		}
		all = append(all, j)
	}
	return all
}

// volumeChart shows the volume before what is usual.
func volumeChart(days []deal.Day, f deal.Figures) chart {
	all := judge(days, f)
	c := chart{ID: "volume", Title: "Days unlike others", Figure: "–", Note: "four weeks are needed to tell", Mark: "ahead", Head: []string{"Sealed", "Usual", "The day has"}}
	c.Desc = fmt.Sprintf("Bars for each of the last 30 days: contracts sealed, before a band of what is usual on the same weekday of the %d weeks before.", deal.VolumeWeeks)
	var most, known int64
	var odd []string
	for _, j := range all {
		most = max(most, j.Sealed, j.usual.Most)
		if j.known {
			known++
		}
		usual, verdict := j.words()
		if j.odd() {
			odd = append(odd, fmt.Sprintf("%s has %s, usual are %s", j.Day.Day, number(j.Sealed), usual))
		}
		c.Rows = append(c.Rows, chartRow{j.Day.Day, []string{number(j.Sealed), usual, verdict}})
	}
	switch {
	case known == 0:
		c.Desc += " No day can be judged yet."
	case odd == nil:
		c.Desc += " None is unlike others."
	default:
		c.Desc += " Unlike others: " + strings.Join(odd, "; ") + "."
	}
	if known > 0 {
		c.Figure, c.Note, c.Mark = number(int64(len(odd))), "in 30 days, by contracts sealed", "done"
		c.Key = []choice{{Value: "usual", Text: "usual on such a weekday"}, {Value: "odd", Text: "more or fewer"}}
	}
	if slices.ContainsFunc(all[max(len(all)-2, 0):], judged.odd) { // today and yesterday
		c.Mark = "retrying"
	}
	c.drawVolumes(all, most)
	return c
}

func (c *chart) drawVolumes(all []judged, most int64) {
	y := c.numbers(most)
	var edges, odd strings.Builder
	for i, j := range all {
		x := dayAt(i)
		if j.known {
			from, to := y(float64(j.usual.Most)), y(float64(j.usual.Least))
			c.Bands = append(c.Bands, bar{unit(x - dayWidth/2), unit(from), unit(dayWidth), unit(to - from)})
			for _, edge := range []float64{from, to} {
				fmt.Fprintf(&edges, "M%s %sH%s", unit(x-dayWidth/2), unit(edge), unit(x+dayWidth/2))
			}
		}
		height := c.bar(i, j.Sealed, y)
		switch {
		case j.many:
			at := max(height-3, top) // above the bar, pointing up
			fmt.Fprintf(&odd, "M%s %sl4.5 0l-4.5 -7l-4.5 7z", unit(x), unit(at))
		case j.few:
			at := height - 10
			fmt.Fprintf(&odd, "M%s %sl4.5 0l-4.5 7l-4.5 -7z", unit(x), unit(at))
		}
	}
	c.Edges, c.Odd = edges.String(), odd.String()
}

// numbers has the chart reach from nothing to at least so many.
func (c *chart) numbers(most int64) (y func(float64) float64) {
	end := nice(float64(most))
	y = func(v float64) float64 { return bottom - v/end*(bottom-top) }
	for _, v := range []float64{0, end / 2, end} {
		if v == math.Trunc(v) {
			c.Grid = append(c.Grid, tick{unit(y(v)), number(int64(v))})
		}
	}
	return y
}

// bar draws a day's number, and returns where it ends.
func (c *chart) bar(day int, n int64, y func(float64) float64) (end float64) {
	if n <= 0 {
		return bottom
	}
	h := max(float64(bottom)-y(float64(n)), 1)
	c.Bars = append(c.Bars, bar{unit(dayAt(day) - barWidth/2), unit(bottom - h), unit(barWidth), unit(h)})
	return bottom - h
}

// outcomeChart shows how many of the deals that came to their end have a contract.
func outcomeChart(days []deal.Day) chart {
	var done, ended int64
	lowest := 100.0
	for _, d := range days {
		done, ended = done+d.Done, ended+d.Ended
		if d.Done+d.Ended > 0 {
			lowest = min(lowest, outcomeOf(d))
		}
	}
	c := chart{ID: "outcome", Title: "Deals that ended with a contract", Figure: "–", Note: "no deal has come to its end yet", Head: []string{"With a contract", "Without", "Share"}}
	if done+ended > 0 {
		c.Figure, c.Note = percent(outcomeOf(deal.Day{Done: done, Ended: ended})), "of those that came to their end in 30 days"
	}
	c.Desc = fmt.Sprintf("One value for each of the last 30 days: the share of the deals that came to their end on it whose contract is on the record. %s have one, %s ended without, voided or dropped. "+
		"Deals that still wait for a person are left out.", number(done), number(ended))
	y := c.shares(lowest)
	c.Lines = []line{trace("p50", days, func(d deal.Day) (float64, bool) { return y(outcomeOf(d)), d.Done+d.Ended > 0 })}
	for _, d := range days {
		share := "–"
		if d.Done+d.Ended > 0 {
			share = percent(outcomeOf(d))
		}
		c.Rows = append(c.Rows, chartRow{d.Day, []string{number(d.Done), number(d.Ended), share}})
	}
	return c
}

func outcomeOf(d deal.Day) float64 { return float64(d.Done) / float64(d.Done+d.Ended) * 100 }

// returnChart shows how long a contract takes, with all that it waits for.
func returnChart(days []deal.Day) chart {
	var all deal.Day
	least, most := 100*time.Millisecond, 10*time.Second
	for _, d := range days {
		if d.Reported > 0 {
			all.Reported, all.Returned = all.Reported+d.Reported, all.Returned+d.Returned
			least, most = min(least, max(average(d), time.Millisecond)), max(most, average(d))
		}
	}
	c := chart{ID: "return", Title: "From stage seen to contract on the record, on average", Figure: "–", Note: "no contract is on a record yet", Head: []string{"Deals", "Average"}}
	if all.Reported > 0 {
		c.Figure, c.Note = took(average(all)), "with what waited for a person"
	}
	c.Desc = fmt.Sprintf("One value for each of the last 30 days, on a logarithmic scale: how long the deals whose contract was written to the record on it took on average since their stage was seen, "+
		"with what waited for a person. %s took %s on average.", plural(all.Reported, "deal", "deals"), c.Figure)
	y := c.durations(least, most)
	c.Lines = []line{trace("p50", days, func(d deal.Day) (float64, bool) { return y(average(d)), d.Reported > 0 })}
	for _, d := range days {
		cells := []string{number(d.Reported), "–"}
		if d.Reported > 0 {
			cells[1] = took(average(d))
		}
		c.Rows = append(c.Rows, chartRow{d.Day, cells})
	}
	return c
}

// average is how long the deals of a day that were reported took; 0 without any.
func average(d deal.Day) time.Duration {
	if d.Reported == 0 {
		return 0
	}
	return d.Returned / time.Duration(d.Reported)
}

// volumeLasts is how long what was found of the volume counts: it reads some thousand rows, and is asked for often.
const volumeLasts = 5 * time.Minute

// volumeFound is what was found of the volume.
type volumeFound struct {
	mu        sync.Mutex
	at        time.Time
	more, few bool
}

// collectVolume tells whether today or yesterday is unlike others.
func (m *Metrics) collectVolume(ctx context.Context, ch chan<- prometheus.Metric) {
	m.volume.mu.Lock()
	defer m.volume.mu.Unlock()
	v, now := &m.volume, m.now().UTC()
	if v.at.IsZero() || now.Sub(v.at) >= volumeLasts {
		f, err := m.house.Figures(ctx, now.AddDate(0, 0, -1))
		if err != nil {
			ch <- prometheus.NewInvalidMetric(volumeDesc, err)
			return
		}
		v.at, v.more, v.few = now, false, false
		for _, j := range judge(upTo(now, 2, f.Days), f) {
			v.more, v.few = v.more || j.many, v.few || j.few
		}
	}
	for than, is := range map[string]bool{"more": v.more, "fewer": v.few} {
		ch <- gauge(volumeDesc, map[bool]float64{true: 1}[is], than)
	}
}
