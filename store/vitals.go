package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Vitals are figures of the store for whoever watches over it.
type Vitals struct {
	Database, WAL int64 // bytes of the database's file and of its write-ahead log
	// Backup is the moment that the newest backup with the archive is of, BackupDatabase that of the newest with or
	// without it; zero if there is none.
	Backup, BackupDatabase time.Time
	// Outcomes count, since the beginning, how often a tenant's sealings were noticed, done, held, dead or ended.
	Outcomes []Outcome
	// Failing counts a tenant's sealings whose step has failed at least FailingAfter times in a row and will be tried again.
	Failing map[deal.TenantID]int64
	// Due is the earliest moment at which something should have happened to one of a tenant's sealings that wait for no
	// person: when it last moved, or when its next attempt is due. A moment that is long past tells of one that is not
	// worked on. Tenants without such sealings are missing.
	Due map[deal.TenantID]time.Time
}

// Outcome is how often something became of a tenant's sealings.
type Outcome struct {
	Tenant deal.TenantID
	Name   string
	N      int64
}

// FailingAfter is how often a step fails in a row before its sealing counts as failing. One that waits for what only a person
// can mend counts from its first failure.
const FailingAfter = 3

const (
	outcomesQuery = `SELECT tenant, name, sum(n) FROM daily WHERE name IN ('noticed', 'done', 'held', 'dead', 'ended') GROUP BY tenant, name ORDER BY tenant, name`
	retryingQuery = `SELECT tenant, failures, next, updated FROM sealings WHERE state = 'retrying'`
	runningQuery  = `SELECT tenant, step FROM counts WHERE condition = 'running' AND step <> 'done' AND n > 0`
)

// Vitals reads all of them, as of one moment.
func (s *Store) Vitals(ctx context.Context) (v Vitals, err error) {
	name := filepath.Join(s.dir, databaseName)
	if v.Database, err = sizeOf(name); err != nil {
		return v, err
	}
	if v.WAL, err = sizeOf(name + "-wal"); err != nil {
		return v, err
	}
	if v.Backup, v.BackupDatabase, err = s.LastBackup(ctx); err != nil {
		return v, err
	}
	v.Failing, v.Due = map[deal.TenantID]int64{}, map[deal.TenantID]time.Time{}
	return v, s.view(ctx, func(t *txn) error {
		err := t.each(func(r *sql.Rows) error {
			var o Outcome
			err := r.Scan(&o.Tenant, &o.Name, &o.N)
			v.Outcomes = append(v.Outcomes, o)
			return err
		}, outcomesQuery)
		if err != nil {
			return err
		}
		if err := t.lookAtRetrying(&v); err != nil {
			return err
		}
		return t.lookAtRunning(&v)
	})
}

func (t *txn) lookAtRetrying(v *Vitals) error {
	return t.each(func(r *sql.Rows) error {
		var tenant deal.TenantID
		var failures int
		var next, updated int64
		if err := r.Scan(&tenant, &failures, &next, &updated); err != nil {
			return err
		}
		if failures >= FailingAfter {
			v.Failing[tenant]++
		}
		v.due(tenant, fromMillis(max(next, updated)))
		return nil
	}, retryingQuery)
}

func (t *txn) lookAtRunning(v *Vitals) error {
	type group struct {
		tenant deal.TenantID
		step   deal.Step
	}
	var groups []group
	err := t.each(func(r *sql.Rows) error {
		var g group
		err := r.Scan(&g.tenant, &g.step)
		groups = append(groups, g)
		return err
	}, runningQuery)
	if err != nil {
		return err
	}
	for _, g := range groups {
		var oldest int64
		if _, err := t.get([]any{&oldest}, oldestQuery, g.tenant, g.step, deal.Running); err != nil {
			return err
		}
		v.due(g.tenant, fromMillis(oldest))
	}
	return nil
}

func (v *Vitals) due(tenant deal.TenantID, at time.Time) {
	if first, known := v.Due[tenant]; !known || at.Before(first) {
		v.Due[tenant] = at
	}
}

// sizeOf is 0 for a file that does not exist.
func sizeOf(name string) (int64, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("size of the database: %w", err)
	}
	return info.Size(), nil
}
