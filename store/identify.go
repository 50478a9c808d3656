package store

import (
	"context"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// Identify commits further IDs of the sealing's record, as the CRM names them now: after a merge what was known of
// several records is known of one. Earlier finds the sealings under all of them, and their receipts become one, which the
// newest entry owns and which is told anew. IDs that are known change nothing. The sealing itself stays as it is, with its
// version.
func (s *Store) Identify(ctx context.Context, sl *deal.Sealing, ids []string) error {
	return s.update(ctx, "commit/identify", func(t *txn) error { return t.identify(sl, ids) })
}

func (t *txn) identify(sl *deal.Sealing, ids []string) error {
	r, err := t.row(sl.Tx)
	if err != nil {
		return err
	}
	added, err := t.fileUnder(r, sl.Change, ids)
	if err != nil || len(added) == 0 {
		return err
	}
	return t.identified(r, sl, added)
}

// recognise takes note that the record of a known entry was merged. The CRM has chosen which of two receipts the record
// shows now, so the newest is told anew, even if no sealing of the record has anything left to do.
func (t *txn) recognise(tx deal.TxID, c deal.Change) error {
	if len(c.Aliases) == 0 {
		return nil
	}
	r, err := t.row(tx)
	if isUnknown(err) {
		return nil // it was filtered
	}
	if err != nil {
		return err
	}
	added, err := t.fileUnder(r, c, append([]string{c.Ref.ID}, c.Aliases...))
	if err != nil || len(added) == 0 {
		return err
	}
	sl, _, err := t.load(tx)
	if err != nil {
		return err
	}
	return t.identified(r, sl, added)
}

// identified concludes what follows from further IDs of a sealing's record.
func (t *txn) identified(r *row, sl *deal.Sealing, added []string) error {
	if err := t.shareReceipt(r, sl); err != nil {
		return err
	}
	key, err := t.dataKey(sl.Tx)
	if err != nil && !isErased(err) {
		return err
	}
	_, err = t.appendLeaf(leaf{Tenant: sl.Tenant, Tx: sl.Tx, What: "identified"},
		testimony{Who: "daemon", Why: "its record has further IDs", Detail: map[string]string{"ids": strings.Join(added, " ")}}, key)
	return err
}

// fileUnder makes the sealing findable under IDs of its record, and returns those that are new.
func (t *txn) fileUnder(r *row, c deal.Change, ids []string) (added []string, err error) {
	for _, id := range ids {
		fresh, err := t.execOne(`INSERT INTO record_ids (account, object, record, rule, seq) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			r.account, c.Ref.Object, id, c.Rule, r.seq)
		if err != nil {
			return nil, err
		}
		if fresh {
			added = append(added, id)
		}
	}
	return added, nil
}

// shareReceipt makes one receipt of those that speak of the sealing's record under any of its IDs.
func (t *txn) shareReceipt(r *row, sl *deal.Sealing) error {
	ids, err := column[string](t, `SELECT record FROM record_ids WHERE seq = $1`, r.seq)
	if err != nil {
		return err
	}
	_, err = t.receiptUnder(sl, target(sl.Plan.WriteBack), ids)
	return err
}

// Earlier returns the other sealings of the same record, under any of its IDs, and the same rule whose contract sl may
// not follow unasked, in the order in which they were noticed: those noticed before sl, and those of any time that have a
// signature or a contract found on the record, since sl may have waited while a later one was sealed. One that ended with
// neither does not count.
func (s *Store) Earlier(ctx context.Context, sl *deal.Sealing) (earlier []deal.TxID, err error) {
	err = s.view(ctx, func(t *txn) error {
		earlier, err = t.earlierThan(sl)
		return err
	})
	return earlier, err
}

const earlierQuery = `SELECT tx FROM sealings WHERE seq IN (
		SELECT i.seq FROM record_ids mine JOIN record_ids i
		ON i.account = mine.account AND i.object = mine.object AND i.record = mine.record AND i.rule = mine.rule AND i.seq <> mine.seq
		WHERE mine.seq = $1)
	AND (signature = 1 OR adopted = 1 OR (seq < $1 AND condition <> 'ended')) ORDER BY seq`

func (t *txn) earlierThan(sl *deal.Sealing) ([]deal.TxID, error) {
	r, err := t.row(sl.Tx)
	if err != nil {
		return nil, err
	}
	return column[deal.TxID](t, earlierQuery, r.seq)
}
