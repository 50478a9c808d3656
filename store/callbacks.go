package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// call keeps a workflow that waits, once.
func (t *txn) call(tenant deal.TenantID, c deal.Callback) error {
	if c.ID == "" || !c.AnswerBy.After(c.At) || !c.Expires.After(c.AnswerBy) {
		return fmt.Errorf("a callback needs a name and an end: %q, %s, %s, %s", c.ID, c.At, c.AnswerBy, c.Expires)
	}
	return t.exec(`INSERT INTO callbacks (tenant, callback, object, record, rule, at, answer, expires, tx, outcome, tries, asked, due, problem, fate, ended)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', '', 0, 0, 0, '', '', 0) ON CONFLICT DO NOTHING`,
		tenant, c.ID, c.Ref.Object, c.Ref.ID, c.Rule, c.At.UnixMilli(), c.AnswerBy.UnixMilli(), c.Expires.UnixMilli())
}

const newestOfRecordQuery = `SELECT s.tx FROM record_ids i JOIN sealings s ON s.seq = i.seq
	WHERE i.account = $1 AND i.object = $2 AND i.record = $3 AND ($4 = '' OR i.rule = $4) AND s.tenant = $5 ORDER BY s.at DESC, s.seq DESC LIMIT 1`

// LookedAt takes note that all entries of a record are known that it had at a time: workflows that came before wait for the
// newest sealing of it, of the same tenant where others have the account as well, and where there is none are to be told so. It
// returns how many.
func (s *Store) LookedAt(ctx context.Context, tenant deal.TenantID, account deal.AccountID, ref deal.Ref, at time.Time) (n int, err error) {
	err = s.update(ctx, "commit/callback-looked", func(t *txn) error {
		type caller struct{ id, rule string }
		var waiting []caller
		err := t.each(func(r *sql.Rows) error {
			var c caller
			err := r.Scan(&c.id, &c.rule)
			waiting = append(waiting, c)
			return err
		}, `SELECT callback, rule FROM callbacks WHERE tenant = $1 AND fate = '' AND tx = '' AND outcome = '' AND object = $2 AND record = $3 AND at <= $4`,
			tenant, ref.Object, ref.ID, at.UnixMilli())
		if err != nil {
			return err
		}
		n = len(waiting)
		for _, c := range waiting {
			var tx deal.TxID
			var outcome deal.CallbackOutcome
			found, err := t.get([]any{&tx}, newestOfRecordQuery, account, ref.Object, ref.ID, c.rule, tenant)
			if err != nil {
				return err
			}
			if !found {
				outcome = deal.OutcomeNothing
			}
			if err := t.exec(`UPDATE callbacks SET tx = $3, outcome = $4 WHERE tenant = $1 AND callback = $2`, tenant, c.id, tx, outcome); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

const callbackColumns = `c.callback, c.object, c.record, c.rule, c.at, c.answer, c.expires, c.tx, c.outcome, c.tries, c.asked, c.problem, c.fate,
	coalesce(s.step, ''), coalesce(s.condition, ''), coalesce(s.reason, '') FROM callbacks c LEFT JOIN sealings s ON s.tx = c.tx`

// openCallbacksQuery leaves out what waits for a deal that goes on, as long as there is time. Those whose record nobody has
// looked at come last: one that cannot be looked at keeps nobody waiting who can be told.
const openCallbacksQuery = `SELECT ` + callbackColumns + ` WHERE c.tenant = $1 AND c.fate = '' AND c.due <= $2
	AND (c.tx = '' OR c.outcome <> '' OR c.answer <= $2 OR s.step = 'done' OR s.condition = 'ended')
	ORDER BY c.tx = '' AND c.outcome = '' AND c.answer > $2, c.due LIMIT $3`

// Callbacks returns the workflows of a tenant for which there is something to do now, at most limit, and how many wait in all.
func (s *Store) Callbacks(ctx context.Context, tenant deal.TenantID, limit int) (due []deal.Callback, open int64, err error) {
	err = s.view(ctx, func(t *txn) error {
		if _, err := t.get([]any{&open}, `SELECT count(*) FROM callbacks WHERE tenant = $1 AND fate = ''`, tenant); err != nil || open == 0 {
			return err
		}
		due, err = t.callbacks(tenant, openCallbacksQuery, tenant, t.now.UnixMilli(), limit)
		return err
	})
	return due, open, err
}

const callbacksOfQuery = `SELECT ` + callbackColumns + ` WHERE c.tx = $1 ORDER BY c.at, c.callback LIMIT 100`

func (t *txn) callbacks(tenant deal.TenantID, query string, args ...any) (all []deal.Callback, err error) {
	err = t.each(func(r *sql.Rows) error {
		c := deal.Callback{Tenant: tenant}
		var at, answer, expires, asked int64
		err := r.Scan(&c.ID, &c.Ref.Object, &c.Ref.ID, &c.Rule, &at, &answer, &expires, &c.Tx, &c.Outcome, &c.Tries, &asked, &c.Problem, &c.Fate, &c.Step, &c.Condition, &c.Reason)
		c.At, c.AnswerBy, c.Expires, c.Asked = fromMillis(at), fromMillis(answer), fromMillis(expires), fromMillis(asked)
		all = append(all, c)
		return err
	}, query, args...)
	return all, err
}

// BeginCallback commits what a workflow is told, the first time, and that the CRM is being told it. deal.ErrStale when the
// workflow waits no more, or is told something else.
func (s *Store) BeginCallback(ctx context.Context, c deal.Callback, outcome deal.CallbackOutcome) error {
	return s.update(ctx, "commit/callback-begin", func(t *txn) error {
		changed, err := t.execOne(`UPDATE callbacks SET outcome = $3, asked = $4, tries = tries + 1
			WHERE tenant = $1 AND callback = $2 AND fate = '' AND outcome IN ('', $3)`, c.Tenant, c.ID, outcome, t.now.UnixMilli())
		if err == nil && !changed {
			return deal.ErrStale
		}
		return err
	})
}

// EndCallback commits what became of an attempt to tell it.
func (s *Store) EndCallback(ctx context.Context, c deal.Callback, e deal.CallbackEnd) error {
	return s.update(ctx, "commit/callback-end", func(t *txn) error {
		var ended int64
		if e.Fate != "" {
			ended = t.now.UnixMilli()
		}
		return t.exec(`UPDATE callbacks SET fate = $3, ended = $4, due = $5, problem = $6, asked = CASE WHEN $7 THEN asked ELSE 0 END
			WHERE tenant = $1 AND callback = $2 AND fate = ''`, c.Tenant, c.ID, e.Fate, ended, millis(e.Due), e.Problem, e.Unclear)
	})
}

// CallbackFigures are how the workflows of a tenant are doing.
type CallbackFigures struct {
	// Waiting are open, Failing of these have an outcome that the CRM did not take three times.
	Waiting, Failing int64
	// Problem is why one of those that fail does.
	Problem string
	// Oldest is when the oldest of those that wait came, zero when none does.
	Oldest time.Time
	// Lost are those of the last day that were not told what became of their deal: the CRM has let them go on by itself, or does
	// not know them.
	Lost int64
}

const callbackFiguresQuery = `SELECT tenant, count(*), coalesce(sum(tries >= 3), 0), min(at), coalesce(max(CASE WHEN tries >= 3 THEN problem END), '') FROM callbacks WHERE fate = '' GROUP BY tenant`

// CallbackFigures returns how workflows are doing, by tenant; a tenant that has none is not in it.
func (s *Store) CallbackFigures(ctx context.Context) (map[deal.TenantID]CallbackFigures, error) {
	all := map[deal.TenantID]CallbackFigures{}
	err := s.view(ctx, func(t *txn) error {
		clear(all)
		err := t.each(func(r *sql.Rows) error {
			var tenant deal.TenantID
			var f CallbackFigures
			var oldest int64
			err := r.Scan(&tenant, &f.Waiting, &f.Failing, &oldest, &f.Problem)
			f.Oldest = fromMillis(oldest)
			all[tenant] = f
			return err
		}, callbackFiguresQuery)
		if err != nil {
			return err
		}
		return t.each(func(r *sql.Rows) error {
			var tenant deal.TenantID
			var n int64
			err := r.Scan(&tenant, &n)
			f := all[tenant]
			f.Lost = n
			all[tenant] = f
			return err
		}, `SELECT tenant, count(*) FROM callbacks WHERE fate <> '' AND ended >= $1 AND fate IN ($2, $3) GROUP BY tenant`,
			t.now.Add(-24*time.Hour).UnixMilli(), deal.CallbackExpired, deal.CallbackUnknown)
	})
	return all, err
}
