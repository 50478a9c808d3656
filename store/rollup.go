package store

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// tally keeps the counts by state, the daily counters and the histograms of durations in line with a change. Whoever looks at
// them reads a few rows a day, however many sealings there are.
func (t *txn) tally(r *row, sl *deal.Sealing, fresh bool) error {
	if err := t.tallyState(r, sl, fresh); err != nil {
		return err
	}
	moved := fresh || r.step.Before(sl.Step)
	if moved {
		if err := t.daily(sl.Tenant, string(sl.Step)); err != nil {
			return err
		}
	}
	if err := t.tallyTrouble(r, sl); err != nil {
		return err
	}
	if fresh || !moved {
		return nil
	}
	if err := t.latency(sl.Tenant, sl.Step, t.now.UnixMilli()-r.stepAt); err != nil || sl.Step != deal.Reported {
		return err
	}
	took := max(t.now.UnixMilli()-r.noticed, 0) // clocks are set back
	if err := t.dailyBy(sl.Tenant, returnedIn, took); err != nil || r.waited {
		return err
	}
	return t.flow(took)
}

func (t *txn) tallyState(r *row, sl *deal.Sealing, fresh bool) error {
	if !fresh {
		if r.step == sl.Step && r.condition == sl.Condition {
			return nil
		}
		if err := t.count(sl.Tenant, r.step, r.condition, -1); err != nil {
			return err
		}
	}
	return t.count(sl.Tenant, sl.Step, sl.Condition, 1)
}

// The daily counters of calls to CRMs, and of the milliseconds that reported sealings took.
const (
	callsMade   = "calls"
	callsFailed = "failed calls"
	returnedIn  = "returned in"
)

func (t *txn) tallyCalls(p deal.PollState) error {
	return errors.Join(t.dailyBy(p.Tenant, callsMade, p.Calls), t.dailyBy(p.Tenant, callsFailed, p.FailedCalls))
}

func (t *txn) tallyTrouble(r *row, sl *deal.Sealing) error {
	if r.condition == sl.Condition || !sl.Condition.Waiting() {
		return nil
	}
	return t.daily(sl.Tenant, string(sl.Condition))
}

func (t *txn) count(tenant deal.TenantID, step deal.Step, condition deal.Condition, n int) error {
	return t.exec(`INSERT INTO counts (tenant, step, condition, n) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, step, condition) DO UPDATE SET n = n + excluded.n`, tenant, step, condition, n)
}

func (t *txn) day() string { return t.now.Format(time.DateOnly) }

func (t *txn) daily(tenant deal.TenantID, name string) error { return t.dailyBy(tenant, name, 1) }

func (t *txn) dailyBy(tenant deal.TenantID, name string, n int64) error {
	if n == 0 {
		return nil
	}
	return t.exec(`INSERT INTO daily (day, tenant, name, n) VALUES ($1, $2, $3, $4)
		ON CONFLICT (day, tenant, name) DO UPDATE SET n = n + excluded.n`, t.day(), tenant, name, n)
}

func (t *txn) latency(tenant deal.TenantID, step deal.Step, ms int64) error {
	return t.exec(`INSERT INTO latency (day, tenant, step, bucket, n) VALUES ($1, $2, $3, $4, 1)
		ON CONFLICT (day, tenant, step, bucket) DO UPDATE SET n = n + 1`, t.day(), tenant, step, bucketOf(ms))
}

func (t *txn) flow(ms int64) error {
	return t.exec(`INSERT INTO flows (day, bucket, n) VALUES ($1, $2, 1) ON CONFLICT (day, bucket) DO UPDATE SET n = n + 1`, t.day(), bucketOf(ms))
}

// perOctave is how many buckets of durations lie between one and its double: what is read from them is off by 9 % at most.
const perOctave = 8

// longest is the last bucket, of 34 years and more.
const longest = 40 * perOctave

// bucketOf returns the bucket of a duration in milliseconds.
func bucketOf(ms int64) int {
	return min(int(math.Ceil(perOctave*math.Log2(float64(max(ms, 1))))), longest)
}

// bucketEnd is the longest duration of a bucket.
func bucketEnd(bucket int) time.Duration {
	return time.Duration(math.Exp2(float64(bucket)/perOctave) * float64(time.Millisecond)).Round(time.Millisecond)
}

// Figures returns what happened on the days from since on, over all tenants; the times of the steps are those of the last
// week of them.
func (s *Store) Figures(ctx context.Context, since time.Time) (f deal.Figures, err error) {
	week := s.now().AddDate(0, 0, -6)
	if week.Before(since) {
		week = since
	}
	err = s.view(ctx, func(t *txn) error {
		if f.Days, err = t.days(since); err != nil {
			return err
		}
		flows, all, err := t.flows(since)
		if err != nil {
			return err
		}
		for i, d := range f.Days {
			f.Days[i].Flow = flows[d.Day].quantiles()
		}
		f.Flow = all.quantiles()
		if f.Earlier, f.First, err = t.earlier(since); err != nil {
			return err
		}
		f.Steps, err = t.stepTimes(week)
		return err
	})
	return f, err
}

// Week returns what happened from the first to the last of some days, by tenant.
func (s *Store) Week(ctx context.Context, first, last time.Time) (w deal.Week, err error) {
	w.Tenants = map[deal.TenantID]deal.Day{}
	from, until := first.UTC().Format(time.DateOnly), last.UTC().Format(time.DateOnly)
	err = s.view(ctx, func(t *txn) error {
		err := t.each(func(r *sql.Rows) error {
			var tenant deal.TenantID
			var what string
			var n int64
			err := r.Scan(&tenant, &what, &n)
			d := w.Tenants[tenant]
			addTo(&d, what, n)
			w.Tenants[tenant] = d
			return err
		}, weekQuery, from, until)
		if err != nil {
			return err
		}
		var all histogram
		err = t.each(func(r *sql.Rows) error {
			var b bar
			err := r.Scan(&b.bucket, &b.n)
			all = append(all, b)
			return err
		}, weekFlowQuery, from, until)
		if err != nil {
			return err
		}
		w.Flow = all.quantiles()
		_, err = t.get([]any{&w.Known}, `SELECT EXISTS (SELECT 1 FROM daily WHERE day <= $1)`, until)
		return err
	})
	return w, err
}

func (t *txn) days(since time.Time) (days []deal.Day, err error) {
	err = t.each(func(r *sql.Rows) error {
		var on, what string
		var n int64
		if err := r.Scan(&on, &what, &n); err != nil {
			return err
		}
		if len(days) == 0 || days[len(days)-1].Day != on {
			days = append(days, deal.Day{Day: on})
		}
		addTo(&days[len(days)-1], what, n)
		return nil
	}, daysQuery, since.UTC().Format(time.DateOnly))
	return days, err
}

// earlier returns the contracts of the days that say what is usual, and the first day of all.
func (t *txn) earlier(since time.Time) (sealed map[string]int64, first string, err error) {
	sealed = map[string]int64{}
	err = t.each(func(r *sql.Rows) error {
		var on string
		var n int64
		err := r.Scan(&on, &n)
		sealed[on] = n
		return err
	}, volumesQuery, since.AddDate(0, 0, -7*deal.VolumeWeeks).UTC().Format(time.DateOnly), since.UTC().Format(time.DateOnly), deal.Sealed)
	if err != nil {
		return nil, "", err
	}
	err = t.each(func(r *sql.Rows) error { return r.Scan(&first) }, firstQuery)
	return sealed, first, err
}

// flows returns the durations by day, and all together.
func (t *txn) flows(since time.Time) (byDay map[string]histogram, all histogram, err error) {
	byDay = map[string]histogram{}
	sum := map[int]int64{}
	err = t.each(func(r *sql.Rows) error {
		var on string
		var b bar
		err := r.Scan(&on, &b.bucket, &b.n)
		byDay[on] = append(byDay[on], b)
		sum[b.bucket] += b.n
		return err
	}, flowsQuery, since.UTC().Format(time.DateOnly))
	for _, bucket := range slices.Sorted(maps.Keys(sum)) {
		all = append(all, bar{bucket, sum[bucket]})
	}
	return byDay, all, err
}

func (t *txn) stepTimes(since time.Time) (list []deal.StepTimes, err error) {
	steps := map[deal.Step]histogram{}
	err = t.each(func(r *sql.Rows) error {
		var step deal.Step
		var b bar
		err := r.Scan(&step, &b.bucket, &b.n)
		steps[step] = append(steps[step], b)
		return err
	}, stepsQuery, since.UTC().Format(time.DateOnly))
	for _, step := range deal.Steps {
		if h := steps[step]; h != nil {
			list = append(list, deal.StepTimes{Step: step, Quantiles: h.quantiles()})
		}
	}
	return list, err
}

const (
	daysQuery     = `SELECT day, name, sum(n) FROM daily WHERE day >= $1 GROUP BY day, name ORDER BY day`
	volumesQuery  = `SELECT day, sum(n) FROM daily WHERE day >= $1 AND day < $2 AND name = $3 GROUP BY day`
	firstQuery    = `SELECT coalesce(min(day), '') FROM daily`
	flowsQuery    = `SELECT day, bucket, n FROM flows WHERE day >= $1 ORDER BY day, bucket`
	weekQuery     = `SELECT tenant, name, sum(n) FROM daily WHERE day >= $1 AND day <= $2 GROUP BY tenant, name`
	weekFlowQuery = `SELECT bucket, sum(n) FROM flows WHERE day >= $1 AND day <= $2 GROUP BY bucket ORDER BY bucket`
	stepsQuery    = `SELECT step, bucket, sum(n) FROM latency WHERE day >= $1 GROUP BY step, bucket ORDER BY step, bucket`
)

// addTo adds a daily counter to the day's figures.
func addTo(d *deal.Day, what string, n int64) {
	counters := map[string]*int64{string(deal.Noticed): &d.Noticed, string(deal.Sealed): &d.Sealed, string(deal.Reported): &d.Reported, string(deal.Done): &d.Done,
		string(deal.Held): &d.Held, string(deal.Dead): &d.Dead, string(deal.Ended): &d.Ended, callsMade: &d.Calls, callsFailed: &d.FailedCalls}
	if c, ok := counters[what]; ok {
		*c += n
	}
	if what == returnedIn {
		d.Returned += time.Duration(n) * time.Millisecond
	}
}

// histogram is a list of bars by growing bucket.
type histogram []bar

type bar struct {
	bucket int
	n      int64
}

func (h histogram) quantiles() (q deal.Quantiles) {
	for _, b := range h {
		q.N += b.n
	}
	for _, p := range []struct {
		share float64
		is    *time.Duration
	}{{.50, &q.P50}, {.95, &q.P95}, {.99, &q.P99}} {
		rank, seen := int64(math.Ceil(p.share*float64(q.N))), int64(0)
		for _, b := range h {
			if seen += b.n; seen >= rank {
				*p.is = bucketEnd(b.bucket)
				break
			}
		}
	}
	return q
}
