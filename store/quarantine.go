package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"

	"github.com/dealseal/dealseal/deal"
)

// quarantine keeps a row once, however often it is read. One that was dealt with stays so.
func (t *txn) quarantine(account deal.AccountID, q deal.Quarantine) error {
	return t.exec(`INSERT INTO quarantine (account, row, object, record, reason, at, seen) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (account, row) DO UPDATE SET reason = excluded.reason`,
		account, q.Row, q.Ref.Object, q.Ref.ID, q.Reason, millis(q.At), t.now.UnixMilli())
}

// Quarantined returns the rows that connectors could not understand and nobody has dealt with, newest first, at most limit.
func (s *Store) Quarantined(ctx context.Context, limit int) (rows []deal.Quarantine, err error) {
	rows = []deal.Quarantine{} // JSON: an empty list, not null
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var q deal.Quarantine
			var at int64
			err := r.Scan(&q.Row, &q.Ref.Object, &q.Ref.ID, &q.Reason, &at)
			q.At = fromMillis(at)
			rows = append(rows, q)
			return err
		}, `SELECT row, object, record, reason, at FROM quarantine WHERE dealt_with = 0 ORDER BY seen DESC LIMIT $1`, limit)
	})
	return rows, err
}

// DealWith takes note that a person has dealt with a quarantined row, by its name, or with all that there are for an empty
// one, and returns how many these were. Who and why go into the audit log; both are required.
func (s *Store) DealWith(ctx context.Context, row, who, why string) (n int, err error) {
	if who == "" || why == "" {
		return 0, fmt.Errorf("quarantined row %s: say who and why: both go into the audit log", row)
	}
	return n, s.update(ctx, "commit/operate", func(t *txn) error {
		const these = `dealt_with = 0 AND ($1 = '' OR row = $1)`
		if _, err := t.get([]any{&n}, `SELECT count(*) FROM quarantine WHERE `+these, row); err != nil || n == 0 {
			return err
		}
		if err := t.exec(`UPDATE quarantine SET dealt_with = $2 WHERE `+these, row, t.now.UnixMilli()); err != nil {
			return err
		}
		return t.auditShared("", "", deal.Entry{Who: who, What: "dealt-with", Why: why, Detail: map[string]string{"row": row, "rows": strconv.Itoa(n)}})
	})
}
