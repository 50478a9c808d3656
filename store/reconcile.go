package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Pass returns the newest pass of a tenant; the zero value when there was none.
func (s *Store) Pass(ctx context.Context, tenant deal.TenantID) (p deal.Pass, err error) {
	err = s.view(ctx, func(t *txn) error {
		var text []byte
		found, err := t.get([]any{&text}, `SELECT state FROM passes WHERE tenant = $1`, tenant)
		if err != nil || !found {
			return err
		}
		if err := json.Unmarshal(text, &p); err != nil {
			return fmt.Errorf("stored pass of tenant %s is damaged: %w", tenant, err)
		}
		return nil
	})
	return p, err
}

// KeepPass keeps how far a pass has come.
func (s *Store) KeepPass(ctx context.Context, p deal.Pass) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("pass of tenant %s: %w", p.Tenant, err)
	}
	return s.update(ctx, "commit/pass", func(t *txn) error {
		return t.exec(`INSERT INTO passes (tenant, state) VALUES ($1, $2) ON CONFLICT (tenant) DO UPDATE SET state = excluded.state`, p.Tenant, string(text))
	})
}

// Activated returns since when entries count for a watch; found is false if it was never activated.
func (s *Store) Activated(ctx context.Context, account deal.AccountID, w deal.Watch) (since time.Time, found bool, err error) {
	err = s.view(ctx, func(t *txn) error {
		var a activation
		a, found, err = t.activation(account, w)
		since = a.since
		return err
	})
	return since, found, err
}

// Unnoticed returns those of the entries that the ledger knows under none of their names.
func (s *Store) Unnoticed(ctx context.Context, account deal.AccountID, entries []deal.Change) (missed []deal.Change, err error) {
	err = s.view(ctx, func(t *txn) error {
		for _, c := range entries {
			known := false
			for _, name := range c.TxIDs(account) {
				var owner deal.TxID
				found, err := t.get([]any{&owner}, `SELECT owner FROM known WHERE tx = $1`, name)
				if err != nil {
					return err
				}
				known = known || found
			}
			if !known {
				missed = append(missed, c)
			}
		}
		return nil
	})
	return missed, err
}

const finishedQuery = `SELECT tx, step_at, seq FROM sealings WHERE tenant = $1 AND step = 'done' AND account = $2
	AND (step_at, seq) > ($3, $4) AND EXISTS (SELECT 1 FROM data_keys k WHERE k.tx = sealings.tx) ORDER BY step_at, seq LIMIT $5`

// Finished returns the sealings of an account that came to their end after the given one and not before since, in that
// order, at most limit. Those that were erased are not among them.
func (s *Store) Finished(ctx context.Context, tenant deal.TenantID, account deal.AccountID, since time.Time, after deal.Finished, limit int) (list []deal.Finished, err error) {
	if after.At.Before(since) {
		after = deal.Finished{At: since}
	}
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var f deal.Finished
			var at int64
			err := r.Scan(&f.Tx, &at, &f.Seq)
			f.At = fromMillis(at)
			list = append(list, f)
			return err
		}, finishedQuery, tenant, account, after.At.UnixMilli(), after.Seq, limit)
	})
	return list, err
}

// FinishedOf returns the finished sealings that a tenant has of a record, by any of its IDs: others may have the account as well.
// Those that were erased are not among them.
func (s *Store) FinishedOf(ctx context.Context, tenant deal.TenantID, account deal.AccountID, ref deal.Ref) (txs []deal.TxID, err error) {
	err = s.view(ctx, func(t *txn) error {
		txs, err = column[deal.TxID](t, `SELECT DISTINCT s.tx FROM record_ids i JOIN sealings s ON s.seq = i.seq JOIN data_keys k ON k.tx = s.tx
			WHERE i.account = $1 AND i.object = $2 AND i.record = $3 AND s.tenant = $4 AND s.step = 'done' ORDER BY s.seq`, account, ref.Object, ref.ID, tenant)
		return err
	})
	return txs, err
}

// Compared commits what came of comparing the record of a finished sealing: the discrepancies, which take the place of those
// that were known; where its files are; what differs from its contract, with an event when that changes; and, where the
// record is to be told anew, a receipt. Nothing is written when nothing has changed. It compares and raises sl.Version;
// deal.ErrStale means that someone else moved the sealing.
func (s *Store) Compared(ctx context.Context, sl *deal.Sealing, c deal.Comparison) error {
	if sl.Step != deal.Done {
		return refuse(sl.Tx, "it is %s; only the record of what is done is compared", state(sl))
	}
	same, err := s.knowsAlready(ctx, sl, c)
	if err != nil || same {
		return err
	}
	owner := s.ownerOf(ctx)
	next := clone(sl)
	err = s.update(ctx, "commit/compared", func(t *txn) error {
		r, key, err := t.current(sl, owner)
		if err != nil {
			return err
		}
		entries := take(next, c, t.now)
		if err := t.discrepancies(sl.Tx, sl.Tenant, c); err != nil {
			return err
		}
		if len(entries) == 0 && r.leaseUntil == 0 {
			return nil
		}
		next.Version, next.Updated = r.version+1, t.now
		for _, e := range entries {
			if r.lastEntry, r.events, err = t.testify(r, next, key, e); err != nil {
				return err
			}
		}
		if err := t.save(r, next, key, r.lastEntry, r.events, lease{}); err != nil {
			return err
		}
		if c.Resend || c.Contract != nil || next.Plan.WriteBack.DriftWords(next.Facts.Drift) != sl.Plan.WriteBack.DriftWords(sl.Facts.Drift) && next.Plan.WriteBack.Drift != "" {
			return t.desire(r.receipt, sl.Tx, deal.Shown(next.Step, next.Condition, next.Reason), t.now)
		}
		return nil
	})
	if err == nil {
		*sl = *next
	}
	return err
}

// take changes the sealing as a comparison says, and returns what the audit log is to say of it.
func take(sl *deal.Sealing, c deal.Comparison, now time.Time) (entries []deal.Entry) {
	for _, file := range []struct {
		role deal.Role
		at   *deal.Attachment
		was  **deal.Attachment
	}{{deal.RoleContract, c.Contract, &sl.Facts.Attachment}, {deal.RoleAuditTrail, c.AuditTrail, &sl.Facts.AuditTrail}} {
		if file.at == nil {
			continue
		}
		*file.was = file.at
		entries = append(entries, deal.Entry{Who: c.Who, What: "reattached", Why: fmt.Sprintf("the %s was not where it had been put: it is file %s now", file.role, file.at.ID),
			Detail: map[string]string{"file": file.at.ID, "role": string(file.role)},
			Events: []deal.Event{{Type: "document.attached", Data: map[string]string{"file": file.at.ID, "role": string(file.role)}}}})
	}
	if c.Resend {
		entries = append(entries, deal.Entry{Who: c.Who, What: "receipt-resent", Why: "the record shows something else than what is true"})
	}
	if c.Compared && !slices.Equal(sl.Private.Differences, c.Differences) {
		entries = append(entries, drift(sl, c, now))
	}
	return entries
}

// drift changes what is known of the differences between record and contract. The entry's detail is as private as the
// record's values.
func drift(sl *deal.Sealing, c deal.Comparison, now time.Time) deal.Entry {
	sl.Private.Differences = c.Differences
	fields := deal.Paths(c.Differences)
	if len(fields) == 0 {
		sl.Facts.Drift = nil
		return deal.Entry{Who: c.Who, What: "agrees", Why: "the record says what its contract says again", Events: []deal.Event{{Type: "document.agrees"}}}
	}
	fact := &deal.DriftFact{Since: now, Fields: fields}
	if sl.Facts.Drift != nil {
		fact.Since = sl.Facts.Drift.Since
	}
	sl.Facts.Drift = fact
	names := strings.Join(fields, ", ")
	e := deal.Entry{Who: c.Who, What: "differs", Why: "the record says something else than its contract: " + names,
		Events: []deal.Event{{Type: "document.differs", Data: map[string]string{"fields": names}}}}
	if text, err := json.Marshal(c.Differences); err == nil {
		e.Detail = map[string]string{"differences": string(text)}
	}
	return e
}

// knowsAlready reports whether a comparison says nothing new.
func (s *Store) knowsAlready(ctx context.Context, sl *deal.Sealing, c deal.Comparison) (same bool, err error) {
	if len(take(clone(sl), c, time.Time{})) > 0 {
		return false, nil
	}
	err = s.view(ctx, func(t *txn) error {
		r, err := t.row(sl.Tx)
		if err != nil || r.leaseUntil > 0 { // which is to end
			return err
		}
		known, err := t.knownDiscrepancies(sl.Tx, c)
		if err != nil {
			return err
		}
		same = len(known) == len(unmended(c.Found))
		for _, d := range unmended(c.Found) {
			same = same && known[d.Kind] == d.What
		}
		return nil
	})
	return same, err
}

func unmended(found []deal.Discrepancy) (open []deal.Discrepancy) {
	for _, d := range found {
		if d.Mended == "" {
			open = append(open, d)
		}
	}
	return open
}

// knownDiscrepancies are those that a comparison judges anew.
func (t *txn) knownDiscrepancies(tx deal.TxID, c deal.Comparison) (map[deal.DiscrepancyKind]string, error) {
	known := map[deal.DiscrepancyKind]string{}
	err := t.each(func(r *sql.Rows) error {
		var kind deal.DiscrepancyKind
		var what string
		err := r.Scan(&kind, &what)
		if !c.OnlyValues || kind == deal.ValuesDiffer {
			known[kind] = what
		}
		return err
	}, `SELECT kind, what FROM discrepancies WHERE tx = $1`, tx)
	return known, err
}

// discrepancies puts what was found of a sealing and not mended in the place of what was known. What a person has dealt with
// stays dealt with as long as it says the same.
func (t *txn) discrepancies(tx deal.TxID, tenant deal.TenantID, c deal.Comparison) error {
	known, err := t.knownDiscrepancies(tx, c)
	if err != nil {
		return err
	}
	for _, d := range unmended(c.Found) {
		delete(known, d.Kind)
		if err := t.exec(`INSERT INTO discrepancies (tx, kind, tenant, what, since, dealt_with) VALUES ($1, $2, $3, $4, $5, 0)
			ON CONFLICT (tx, kind) DO UPDATE SET what = excluded.what, dealt_with = CASE WHEN what = excluded.what THEN dealt_with ELSE 0 END`,
			tx, d.Kind, tenant, d.What, t.now.UnixMilli()); err != nil {
			return err
		}
	}
	for kind := range known {
		if err := t.exec(`DELETE FROM discrepancies WHERE tx = $1 AND kind = $2`, tx, kind); err != nil {
			return err
		}
	}
	return nil
}

// Discrepancies returns what CRMs do not show as the ledger has it and nobody has dealt with, of one tenant or, if that is
// empty, of all, newest first, at most limit.
func (s *Store) Discrepancies(ctx context.Context, tenant deal.TenantID, limit int) (list []deal.Discrepancy, err error) {
	list = []deal.Discrepancy{} // JSON: an empty list, not null
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var d deal.Discrepancy
			var since int64
			err := r.Scan(&d.Tx, &d.Kind, &d.Tenant, &d.What, &since, &d.Ref.Object, &d.Ref.ID, &d.Rule)
			d.Since = fromMillis(since)
			list = append(list, d)
			return err
		}, `SELECT d.tx, d.kind, d.tenant, d.what, d.since, s.object, s.record, s.rule FROM discrepancies d JOIN sealings s ON s.tx = d.tx
			WHERE d.dealt_with = 0 AND ($1 = '' OR d.tenant = $1) ORDER BY d.since DESC, d.tx, d.kind LIMIT $2`, tenant, limit)
	})
	return list, err
}

// DiscrepancyCounts counts what Discrepancies lists.
func (s *Store) DiscrepancyCounts(ctx context.Context) (counts []deal.DiscrepancyCount, err error) {
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var c deal.DiscrepancyCount
			err := r.Scan(&c.Tenant, &c.Kind, &c.N)
			counts = append(counts, c)
			return err
		}, `SELECT tenant, kind, count(*) FROM discrepancies WHERE dealt_with = 0 GROUP BY tenant, kind ORDER BY tenant, kind`)
	})
	return counts, err
}

// DealWithDiscrepancies takes note that a person has dealt with all that is known of a sealing's record, and returns how many
// these were. Who and why go into the audit log; both are required.
func (s *Store) DealWithDiscrepancies(ctx context.Context, tx deal.TxID, who, why string) (n int, err error) {
	return n, s.decide(ctx, tx, who, why, func(t *txn) error {
		r, err := t.row(tx)
		if err != nil {
			return err
		}
		if _, err := t.get([]any{&n}, `SELECT count(*) FROM discrepancies WHERE tx = $1 AND dealt_with = 0`, tx); err != nil || n == 0 {
			return err
		}
		if err := t.exec(`UPDATE discrepancies SET dealt_with = $2 WHERE tx = $1 AND dealt_with = 0`, tx, t.now.UnixMilli()); err != nil {
			return err
		}
		return t.auditShared(r.tenant, tx, deal.Entry{Who: who, What: "dealt-with", Why: why})
	})
}

// Passes returns the newest pass of each tenant that has had one.
func (s *Store) Passes(ctx context.Context) (passes []deal.Pass, err error) {
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var text []byte
			if err := r.Scan(&text); err != nil {
				return err
			}
			var p deal.Pass
			if err := json.Unmarshal(text, &p); err != nil {
				return fmt.Errorf("a stored pass is damaged: %w", err)
			}
			passes = append(passes, p)
			return nil
		}, `SELECT state FROM passes ORDER BY tenant`)
	})
	return passes, err
}
