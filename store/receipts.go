package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Receipt returns what the record of a sealing should show. The zero state means that the sealing's plan writes nothing
// back. Owner tells whether it is this sealing that the record speaks of.
func (s *Store) Receipt(ctx context.Context, tx deal.TxID) (state deal.ReceiptState, err error) {
	err = s.view(ctx, func(t *txn) error {
		state, err = t.receipt(tx)
		return err
	})
	return state, err
}

func (t *txn) receipt(tx deal.TxID) (state deal.ReceiptState, err error) {
	r, err := t.row(tx)
	if err != nil || r.receipt == 0 {
		return state, err
	}
	var tasking int64
	_, err = t.get([]any{&state.Owner, &state.Status, &state.Sequence, &state.Sent, &tasking},
		`SELECT owner, status, sequence, sent, tasking FROM receipts WHERE id = $1`, r.receipt)
	state.Tasking = fromMillis(tasking)
	return state, err
}

// Told commits that the CRM has accepted the receipt with this sequence. An older sequence changes nothing. If nothing newer
// is to be told, the job that would tell it is taken back, or put off until the record is to be looked at once more: so long
// after now as again says, 0 for never.
func (s *Store) Told(ctx context.Context, tx deal.TxID, sequence int64, again time.Duration) error {
	return s.update(ctx, "commit/told", func(t *txn) error {
		r, err := t.row(tx)
		if err != nil {
			return err
		}
		if err := t.exec(`UPDATE receipts SET sent = $2, tasking = 0 WHERE id = $1 AND sent < $2`, r.receipt, sequence); err != nil {
			return err
		}
		if err := t.calmReceipts(r.receipt); err != nil {
			return err
		}
		var tenant deal.TenantID
		found, err := t.get([]any{&tenant}, `SELECT tenant FROM receipts WHERE id = $1 AND sent >= sequence`, r.receipt)
		if err != nil || !found {
			return err
		}
		key := strconv.FormatInt(r.receipt, 10)
		if again > 0 {
			return t.want(deal.JobTell, key, tenant, t.now.Add(again))
		}
		return t.unwant(deal.JobTell, key)
	})
}

// Tasking commits that a task about the record of a sealing is asked for now, or, if not, that it is known what became of that.
func (s *Store) Tasking(ctx context.Context, tx deal.TxID, now bool) error {
	return s.update(ctx, "commit/told", func(t *txn) error {
		r, err := t.row(tx)
		if err != nil {
			return err
		}
		var at int64
		if now {
			at = t.now.UnixMilli()
		}
		return t.exec(`UPDATE receipts SET tasking = $2 WHERE id = $1`, r.receipt, at)
	})
}

// untoldAfter is how long telling a CRM may take before it counts as untold.
const untoldAfter = time.Minute

const untoldQuery = `SELECT count(*), coalesce(min(due), 0) FROM receipts WHERE sent < sequence AND due < $1`

// Untold returns how many records have been showing something older than what is true for more than a minute, and since
// when the oldest of them has; the zero time if there are none.
func (s *Store) Untold(ctx context.Context) (n int64, oldest time.Time, err error) {
	err = s.view(ctx, func(t *txn) error {
		var since int64
		_, err := t.get([]any{&n, &since}, untoldQuery, t.now.Add(-untoldAfter).UnixMilli())
		oldest = fromMillis(since)
		return err
	})
	return n, oldest, err
}

// target names the set of fields that a plan writes: two plans with the same one speak in the same place.
func target(w deal.WriteBack) string {
	return cmp.Or(w.TransactionID, w.Status, w.Audit, w.SignedAt, w.URL)
}

// own attaches a new sealing to its record's receipt, and takes it over if the entry is the newest. The CRM is then told
// in the queue of the new owner's tenant: that of the old one may be worked no more.
func (t *txn) own(r *row, sl *deal.Sealing) error {
	field := target(sl.Plan.WriteBack)
	if field == "" {
		return nil
	}
	id, err := t.receiptUnder(sl, field, append([]string{sl.Change.Ref.ID}, sl.Change.Aliases...))
	if err != nil {
		return err
	}
	if id == 0 {
		if id, err = t.newReceipt(r, sl, field); err != nil {
			return err
		}
	}
	r.receipt = id
	if err := t.exec(`UPDATE sealings SET receipt = $2 WHERE seq = $1`, r.seq, id); err != nil {
		return err
	}
	if err := t.takeOver(id, sl); err != nil {
		return err
	}
	if err := t.exec(`UPDATE receipts SET owner = $2, owner_at = $3, owner_seq = $4, tenant = $5
		WHERE id = $1 AND (owner_at < $3 OR (owner_at = $3 AND owner_seq < $4))`, id, sl.Tx, millis(sl.Change.At), r.seq, sl.Tenant); err != nil {
		return err
	}
	if sl.Step != deal.Noticed { // recovered: the record may show more than is known here, and is looked at first
		return t.moveTelling(id)
	}
	return t.desire(id, sl.Tx, deal.Shown(sl.Step, sl.Condition, sl.Reason), t.tellingTime(sl))
}

// takeOver ends what was told of a receipt to people of another tenant, whose deal it does not speak of any more. If the CRM
// does not take it from this one either, that is told anew.
func (t *txn) takeOver(id int64, sl *deal.Sealing) error {
	var before deal.TenantID
	found, err := t.get([]any{&before}, `UPDATE receipts SET refused = 0 WHERE id = $1 AND tenant <> $2 AND refused > 0 AND owner_at <= $3 RETURNING tenant`, id, sl.Tenant, millis(sl.Change.At))
	if err != nil || !found {
		return err
	}
	return t.calmTenantsReceipts(before)
}

// flowTells is how long the flow has to tell what its own steps have changed, which it does right away, before the job of
// the receipt does.
const flowTells = 2 * time.Second

// tellingTime is when the job of a receipt is to tell of what became of a sealing: at once when nobody else will.
func (t *txn) tellingTime(sl *deal.Sealing) time.Time {
	if sl.Condition == deal.Running {
		return t.now.Add(flowTells)
	}
	return t.now
}

// moveTelling brings what is already queued of a receipt into the queue of its tenant, at the time that it is due.
func (t *txn) moveTelling(id int64) error {
	key := strconv.FormatInt(id, 10)
	var tenant deal.TenantID
	var due int64
	found, err := t.get([]any{&tenant, &due}, `SELECT r.tenant, j.due FROM receipts r JOIN jobs j ON j.kind = $1 AND j.key = $2
		WHERE r.id = $3 AND j.tenant <> r.tenant AND j.due <> $4`, deal.JobTell, key, id, never)
	if err != nil || !found {
		return err
	}
	return t.want(deal.JobTell, key, tenant, fromMillis(due))
}

func (t *txn) newReceipt(r *row, sl *deal.Sealing, field string) (id int64, err error) {
	_, err = t.get([]any{&id}, `INSERT INTO receipts (tenant, account, object, record, field, owner, owner_at, owner_seq, status, sequence, sent, due)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 0) RETURNING id`,
		sl.Tenant, sl.Account, sl.Change.Ref.Object, sl.Change.Ref.ID, field, sl.Tx, millis(sl.Change.At), r.seq, deal.Shown(sl.Step, sl.Condition, sl.Reason))
	return id, err
}

// receiptUnder finds the receipt that speaks through field of the record with these IDs, 0 when there is none. IDs that
// had receipts of their own have become one record: their receipts become one.
func (t *txn) receiptUnder(sl *deal.Sealing, field string, ids []string) (int64, error) {
	var found []int64
	for _, record := range ids {
		more, err := column[int64](t, `SELECT DISTINCT r.id FROM record_ids i JOIN sealings s ON s.seq = i.seq JOIN receipts r ON r.id = s.receipt
			WHERE i.account = $1 AND i.object = $2 AND i.record = $3 AND r.field = $4`, sl.Account, sl.Change.Ref.Object, record, field)
		if err != nil {
			return 0, err
		}
		found = append(found, more...)
	}
	if len(found) == 0 {
		return 0, nil
	}
	slices.Sort(found)
	found = slices.Compact(found)
	for _, other := range found[1:] {
		if err := t.joinReceipts(found[0], other); err != nil {
			return 0, err
		}
	}
	return found[0], nil
}

// joinReceipts moves everything of one receipt to another.
func (t *txn) joinReceipts(id, other int64) error {
	if err := t.exec(`UPDATE receipts SET (tenant, owner, owner_at, owner_seq, status) = (SELECT tenant, owner, owner_at, owner_seq, status FROM receipts WHERE id = $2)
		WHERE id = $1 AND (owner_at, owner_seq) < (SELECT owner_at, owner_seq FROM receipts WHERE id = $2)`, id, other); err != nil {
		return err
	}
	if err := t.exec(`UPDATE receipts SET sequence = 1 + max(sequence, (SELECT sequence FROM receipts WHERE id = $2)),
		refused = max(refused, (SELECT refused FROM receipts WHERE id = $2)), tasking = max(tasking, (SELECT tasking FROM receipts WHERE id = $2)),
		due = CASE WHEN sent < sequence THEN due ELSE $3 END WHERE id = $1`, id, other, t.now.UnixMilli()); err != nil {
		return err
	}
	if err := t.exec(`UPDATE sealings SET receipt = $1 WHERE receipt = $2`, id, other); err != nil {
		return err
	}
	if err := t.unwant(deal.JobTell, strconv.FormatInt(other, 10)); err != nil {
		return err
	}
	if err := t.exec(`DELETE FROM receipts WHERE id = $1`, other); err != nil {
		return err
	}
	return t.tell(id, t.now)
}

// show desires a receipt if a change of the sealing changes what its record should show.
func (t *txn) show(r *row, sl *deal.Sealing) error {
	status := deal.Shown(sl.Step, sl.Condition, sl.Reason)
	if status == deal.Shown(r.step, r.condition, r.reason) {
		return nil
	}
	return t.desire(r.receipt, sl.Tx, status, t.tellingTime(sl))
}

// desire raises the receipt's sequence and queues telling the CRM at a time, if tx owns the receipt.
func (t *txn) desire(id int64, tx deal.TxID, status deal.Status, at time.Time) error {
	if id == 0 {
		return nil
	}
	changed, err := t.execOne(`UPDATE receipts SET status = $3, sequence = max($4, sequence + 1),
		due = CASE WHEN sent < sequence THEN due ELSE $4 END WHERE id = $1 AND owner = $2`, id, tx, status, t.now.UnixMilli())
	if err != nil || !changed {
		return err
	}
	return t.tell(id, at)
}

// tell queues the job that brings the record up to date.
func (t *txn) tell(id int64, at time.Time) error {
	var tenant deal.TenantID
	if _, err := t.get([]any{&tenant}, `SELECT tenant FROM receipts WHERE id = $1`, id); err != nil {
		return err
	}
	return t.want(deal.JobTell, strconv.FormatInt(id, 10), tenant, at)
}

// speaker returns the sealing that the job of a receipt speaks for.
func (t *txn) speaker(key string) (tx deal.TxID, found bool, err error) {
	id, err := strconv.ParseInt(key, 10, 64)
	if err != nil {
		return "", false, err
	}
	found, err = t.get([]any{&tx}, `SELECT owner FROM receipts WHERE id = $1`, id)
	return tx, found, err
}

// untold queues every receipt that the CRM has not been told.
func (t *txn) untold() error {
	type due struct {
		key    string
		tenant deal.TenantID
	}
	var all []due
	err := t.each(func(r *sql.Rows) error {
		var id int64
		var d due
		err := r.Scan(&id, &d.tenant)
		d.key = strconv.FormatInt(id, 10)
		all = append(all, d)
		return err
	}, `SELECT r.id, r.tenant FROM receipts r WHERE r.sent < r.sequence
		AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.kind = $1 AND j.key = CAST(r.id AS TEXT))`, deal.JobTell)
	if err != nil {
		return err
	}
	for _, d := range all {
		if err := t.want(deal.JobTell, d.key, d.tenant, t.now); err != nil {
			return err
		}
	}
	return nil
}
