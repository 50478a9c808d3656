package store

import (
	"context"
	"database/sql"
	"maps"
	"slices"

	"github.com/dealseal/dealseal/deal"
)

// Earlier returns the other sealings of the same record, under any of its IDs, and the same rule that were noticed
// before sl, oldest first. One that was dropped before anything was signed does not count.
func (s *Store) Earlier(ctx context.Context, sl *deal.Sealing) (earlier []deal.TxID, err error) {
	err = s.view(ctx, func(t *txn) error {
		earlier, err = t.earlierThan(sl)
		return err
	})
	return earlier, err
}

func (t *txn) earlierThan(sl *deal.Sealing) (earlier []deal.TxID, err error) {
	r, err := t.row(sl.Tx)
	if err != nil {
		return nil, err
	}
	found := map[int64]deal.TxID{}
	for _, record := range append([]string{sl.Change.Ref.ID}, sl.Change.Aliases...) {
		if err := t.earlierUnder(r, sl.Change, record, found); err != nil {
			return nil, err
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(found)) {
		earlier = append(earlier, found[seq])
	}
	return earlier, nil
}

// earlierUnder adds what was noticed before r under one ID of the record.
func (t *txn) earlierUnder(r *row, c deal.Change, record string, into map[int64]deal.TxID) error {
	return t.each(func(rows *sql.Rows) error {
		var seq int64
		var tx deal.TxID
		err := rows.Scan(&seq, &tx)
		into[seq] = tx
		return err
	}, `SELECT s.seq, s.tx FROM record_ids i JOIN sealings s ON s.seq = i.seq
		WHERE i.account = $1 AND i.object = $2 AND i.record = $3 AND i.rule = $4 AND i.seq < $5
		AND NOT (s.condition = 'ended' AND s.reason LIKE 'dropped%' AND s.signature = 0)`,
		r.account, c.Ref.Object, record, c.Rule, r.seq)
}
