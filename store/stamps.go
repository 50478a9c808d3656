package store

import (
	"context"
	"database/sql"
)

// CountStamp adds one to the requests of a time-stamp server on a day, unless there are limit of them already: then counted
// is false. Those of earlier days are forgotten.
func (s *Store) CountStamp(ctx context.Context, server, day string, limit int) (counted bool, err error) {
	err = s.update(ctx, "commit/stamp", func(t *txn) (err error) {
		if err := t.exec(`DELETE FROM stamps WHERE server = $1 AND day < $2`, server, day); err != nil {
			return err
		}
		counted, err = t.execOne(`INSERT INTO stamps (server, day, requests) SELECT $1, $2, 1 WHERE $3 > 0
			ON CONFLICT (server, day) DO UPDATE SET requests = requests + 1 WHERE requests < $3`, server, day, limit)
		return err
	})
	return counted && err == nil, err
}

// Stamps returns how many requests time-stamp servers with a quota were sent on a day.
func (s *Store) Stamps(ctx context.Context, day string) (map[string]int64, error) {
	all := map[string]int64{}
	return all, s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var server string
			var n int64
			err := r.Scan(&server, &n)
			all[server] = n
			return err
		}, `SELECT server, requests FROM stamps WHERE day = $1`, day)
	})
}
