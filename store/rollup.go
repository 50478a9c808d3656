package store

import (
	"context"
	"database/sql"
	"math/bits"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// tally keeps the counts by state, the daily counters and the latency histogram in line with a change.
func (t *txn) tally(r *row, sl *deal.Sealing, fresh bool) error {
	if !fresh {
		if r.step == sl.Step && r.condition == sl.Condition {
			return nil
		}
		if err := t.count(sl.Tenant, r.step, r.condition, -1); err != nil {
			return err
		}
	}
	if err := t.count(sl.Tenant, sl.Step, sl.Condition, 1); err != nil {
		return err
	}
	if fresh || r.step.Before(sl.Step) {
		if err := t.daily(sl.Tenant, string(sl.Step)); err != nil {
			return err
		}
	}
	if r.condition != sl.Condition && sl.Condition.Waiting() {
		if err := t.daily(sl.Tenant, string(sl.Condition)); err != nil {
			return err
		}
	}
	if fresh || !r.step.Before(sl.Step) {
		return nil
	}
	return t.latency(sl.Tenant, sl.Step, t.now.UnixMilli()-r.stepAt)
}

func (t *txn) count(tenant deal.TenantID, step deal.Step, condition deal.Condition, n int) error {
	return t.exec(`INSERT INTO counts (tenant, step, condition, n) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, step, condition) DO UPDATE SET n = n + excluded.n`, tenant, step, condition, n)
}

func (t *txn) day() string { return t.now.Format(time.DateOnly) }

func (t *txn) daily(tenant deal.TenantID, name string) error {
	return t.exec(`INSERT INTO daily (day, tenant, name, n) VALUES ($1, $2, $3, 1)
		ON CONFLICT (day, tenant, name) DO UPDATE SET n = n + 1`, t.day(), tenant, name)
}

func (t *txn) latency(tenant deal.TenantID, step deal.Step, ms int64) error {
	return t.exec(`INSERT INTO latency (day, tenant, step, bucket, n) VALUES ($1, $2, $3, $4, 1)
		ON CONFLICT (day, tenant, step, bucket) DO UPDATE SET n = n + 1`, t.day(), tenant, step, bits.Len64(uint64(max(ms, 0))))
}

// Daily is how often something happened to a tenant's sealings on a day (UTC): Name is a step that was reached, or held,
// dead or ended.
type Daily struct {
	Day    string // YYYY-MM-DD
	Tenant deal.TenantID
	Name   string
	N      int64
}

// Latency is how many sealings reached a step on a day in less than Below since the step before, and not faster than
// half of it.
type Latency struct {
	Day    string // YYYY-MM-DD
	Tenant deal.TenantID
	Step   deal.Step
	Below  time.Duration
	N      int64
}

// Rollups returns the counters of the days from since on, oldest day first.
func (s *Store) Rollups(ctx context.Context, since time.Time) (daily []Daily, latency []Latency, err error) {
	day := since.UTC().Format(time.DateOnly)
	err = s.view(ctx, func(t *txn) error {
		err := t.each(func(r *sql.Rows) error {
			var d Daily
			err := r.Scan(&d.Day, &d.Tenant, &d.Name, &d.N)
			daily = append(daily, d)
			return err
		}, `SELECT day, tenant, name, n FROM daily WHERE day >= $1 ORDER BY day, tenant, name`, day)
		if err != nil {
			return err
		}
		return t.each(func(r *sql.Rows) error {
			var l Latency
			var bucket int
			err := r.Scan(&l.Day, &l.Tenant, &l.Step, &bucket, &l.N)
			l.Below = time.Duration(1<<min(bucket, 40)) * time.Millisecond
			latency = append(latency, l)
			return err
		}, `SELECT day, tenant, step, bucket, n FROM latency WHERE day >= $1 ORDER BY day, tenant, step, bucket`, day)
	})
	return daily, latency, err
}
