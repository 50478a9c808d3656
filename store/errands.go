package store

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// errands makes those that follow from a change of a sealing. Where its record was to go because of what became of it before
// is overtaken; what is to be noted of that has been so all the same.
func (t *txn) errands(r *row, sl *deal.Sealing) error {
	before, after := deal.Shown(r.step, r.condition, r.reason), deal.Shown(sl.Step, sl.Condition, sl.Reason)
	status := deal.Reached(before, after, sl, r.step == deal.Done)
	stage, noted := sl.Plan.Moves[status], slices.Contains(sl.Plan.Timeline, status)
	if stage != "" {
		if err := t.exec(overtakeErrands+` AND kind = $4`, sl.Tx, deal.ErrandOvertaken, t.now.UnixMilli(), deal.ErrandMove); err != nil {
			return err
		}
		if err := t.errand(sl, deal.ErrandMove, status, stage); err != nil {
			return err
		}
	}
	if noted {
		if err := t.errand(sl, deal.ErrandNote, status, ""); err != nil {
			return err
		}
	}
	if stage == "" && !noted {
		return nil
	}
	return t.want(deal.JobErrand, string(sl.Tx), sl.Tenant, t.now)
}

func (t *txn) errand(sl *deal.Sealing, kind deal.ErrandKind, status deal.Status, stage string) error {
	return t.exec(`INSERT INTO errands (tx, tenant, kind, status, stage, made, tries, problem, fate, outcome, ended) VALUES ($1, $2, $3, $4, $5, $6, 0, '', '', '', 0)`,
		sl.Tx, sl.Tenant, kind, status, stage, t.now.UnixMilli())
}

const overtakeErrands = `UPDATE errands SET fate = $2, ended = $3 WHERE tx = $1 AND fate = ''`

// overtake ends the errands of a deal that are still to be done.
func (t *txn) overtake(tx deal.TxID) error {
	return t.exec(overtakeErrands, tx, deal.ErrandOvertaken, t.now.UnixMilli())
}

// Errands returns all of a deal, oldest first.
func (s *Store) Errands(ctx context.Context, tx deal.TxID) (all []deal.Errand, err error) {
	err = s.view(ctx, func(t *txn) error {
		all, err = t.errandsOf(tx)
		return err
	})
	return all, err
}

func (t *txn) errandsOf(tx deal.TxID) (all []deal.Errand, err error) {
	err = t.each(func(r *sql.Rows) error {
		e := deal.Errand{Tx: tx}
		var made, ended, asked int64
		err := r.Scan(&e.ID, &e.Kind, &e.Status, &e.Stage, &made, &e.Tries, &e.Problem, &e.Fate, &e.Outcome, &ended, &asked)
		e.Made, e.Ended, e.Asked = fromMillis(made), fromMillis(ended), fromMillis(asked)
		all = append(all, e)
		return err
	}, `SELECT id, kind, status, stage, made, tries, problem, fate, outcome, ended, asked FROM errands WHERE tx = $1 ORDER BY id`, tx)
	return all, err
}

// BeginErrand commits that an errand is about to be tried, and e.Asked. deal.ErrStale when it is not to be done any more.
func (s *Store) BeginErrand(ctx context.Context, e deal.Errand) error {
	return s.update(ctx, "commit/errand", func(t *txn) error {
		var tenant deal.TenantID
		open, err := t.get([]any{&tenant}, `UPDATE errands SET tries = tries + 1, asked = $2 WHERE id = $1 AND fate = '' RETURNING tenant`, e.ID, millis(e.Asked))
		switch {
		case err != nil:
			return err
		case !open:
			return deal.ErrStale
		case e.Tries > 0:
			return nil // the audit log says it already
		}
		return t.auditShared(tenant, e.Tx, deal.Entry{Who: "daemon", What: "begin " + string(e.Kind), Why: e.String()})
	})
}

// EndErrand commits what came of a try: e.Fate and e.Outcome, or, while it is still to be done, e.Problem and e.Asked. What has ended
// already stays as it is.
func (s *Store) EndErrand(ctx context.Context, e deal.Errand) error {
	return s.update(ctx, "commit/errand", func(t *txn) error {
		if e.Fate == "" {
			return t.exec(`UPDATE errands SET problem = $2, asked = $3 WHERE id = $1 AND fate = ''`, e.ID, e.Problem, millis(e.Asked))
		}
		var tenant deal.TenantID
		open, err := t.get([]any{&tenant}, `UPDATE errands SET fate = $2, outcome = $3, problem = '', ended = $4, asked = 0 WHERE id = $1 AND fate = '' RETURNING tenant`,
			e.ID, e.Fate, e.Outcome, t.now.UnixMilli())
		if err != nil || !open {
			return err
		}
		return t.auditShared(tenant, e.Tx, deal.Entry{Who: "daemon", What: string(e.Kind) + " " + string(e.Fate), Why: e.Outcome})
	})
}

// ErrandFigures are how the errands of a tenant are doing.
type ErrandFigures struct {
	// Open are still to be done, Failing of these were tried three times and could not be.
	Open, Failing int64
	// Problem is why one of those that fail does.
	Problem string
	// Oldest is when the oldest of those that are open was made, zero when none is.
	Oldest time.Time
	// Refused are those of the last day that the CRM did not let us do.
	Refused int64
}

const (
	errandFiguresQuery  = `SELECT tenant, count(*), sum(tries >= 3 AND problem <> ''), min(made), max(CASE WHEN tries >= 3 THEN problem ELSE '' END) FROM errands WHERE fate = '' GROUP BY tenant`
	errandsRefusedQuery = `SELECT tenant, count(*) FROM errands WHERE fate = 'refused' AND ended >= $1 GROUP BY tenant`
)

// ErrandFigures returns how errands are doing, by tenant; a tenant of which there is nothing to say is not in it.
func (s *Store) ErrandFigures(ctx context.Context) (map[deal.TenantID]ErrandFigures, error) {
	all := map[deal.TenantID]ErrandFigures{}
	err := s.view(ctx, func(t *txn) error {
		clear(all)
		err := t.each(func(r *sql.Rows) error {
			var tenant deal.TenantID
			var f ErrandFigures
			var oldest int64
			err := r.Scan(&tenant, &f.Open, &f.Failing, &oldest, &f.Problem)
			f.Oldest = fromMillis(oldest)
			all[tenant] = f
			return err
		}, errandFiguresQuery)
		if err != nil {
			return err
		}
		return t.each(func(r *sql.Rows) error {
			var tenant deal.TenantID
			var n int64
			err := r.Scan(&tenant, &n)
			f := all[tenant]
			f.Refused = n
			all[tenant] = f
			return err
		}, errandsRefusedQuery, t.now.Add(-24*time.Hour).UnixMilli())
	})
	return all, err
}
