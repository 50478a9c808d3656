package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const countUse = `INSERT INTO key_uses (key, day, uses) VALUES ($1, $2, 1) ON CONFLICT (key, day) DO UPDATE SET uses = uses + 1`

// countUse counts the intent to sign a digest, unless it was counted before, and refuses it above the limits. It is part of
// the transaction that commits the intent: no use is forgotten, and no two take the last place.
func (t *txn) countUse(tx deal.TxID, i deal.Intent) error {
	var seen int
	if counted, err := t.get([]any{&seen}, `SELECT 1 FROM intents WHERE tx = $1 AND what IN ('sign', 'second-sign') AND digest = $2 AND key = $3 LIMIT 1`, tx, i.Digest, i.Key); err != nil || counted {
		return err
	}
	if err := t.exec(countUse, i.Key, dayOf(t.now)); err != nil || i.Limits == (deal.KeyLimits{}) {
		return err
	}
	u, err := t.uses(i.Key)
	if err != nil {
		return err
	}
	switch {
	case i.Limits.Total > 0 && u.Total > i.Limits.Total:
		return &deal.SpentError{Limit: i.Limits.Total}
	case i.Limits.Day > 0 && u.Today > i.Limits.Day:
		return &deal.SpentError{Limit: i.Limits.Day, Daily: true}
	case i.Limits.Total > 0 && u.Total == i.Limits.Total:
		return t.tellLimit(tx, i, i.Limits.Total, "in all")
	case i.Limits.Day > 0 && u.Today == i.Limits.Day:
		return t.tellLimit(tx, i, i.Limits.Day, "for this day")
	}
	return nil
}

// attestShare is the part of a key's limits that signatures over no document may use up: the rest is left to contracts.
const attestShare = 10

// Attesting commits that a key is about to sign something about a sealing that is no document, with an entry of the audit
// log, and counts it. Above the limits, or a tenth of one, the error is a *deal.SpentError, while its tenant is paused a
// *PauseError, and the key must not be used.
func (s *Store) Attesting(ctx context.Context, tx deal.TxID, e deal.Entry, i deal.Intent) error {
	return s.update(ctx, "commit/operate", func(t *txn) error {
		if err := t.mayAttest(tx); err != nil {
			return err
		}
		if err := t.countAttestation(tx, i); err != nil {
			return err
		}
		return t.witness(tx, e)
	})
}

// mayAttest refuses while the sealing's tenant is paused: then no key is used for it, whatever it signs.
func (t *txn) mayAttest(tx deal.TxID) error {
	var tenant deal.TenantID
	paused, err := t.get([]any{&tenant}, `SELECT p.tenant FROM sealings s JOIN pauses p ON p.tenant = s.tenant WHERE s.tx = $1`, tx)
	if err == nil && paused {
		return &PauseError{fmt.Sprintf("tenant %s is paused: no key is used for it", tenant)}
	}
	return err
}

func (t *txn) countAttestation(tx deal.TxID, i deal.Intent) error {
	if err := t.countUse(tx, i); err != nil {
		return err
	}
	if err := t.exec(`UPDATE key_uses SET attested = attested + 1 WHERE key = $1 AND day = $2`, i.Key, dayOf(t.now)); err != nil {
		return err
	}
	var total, today int64
	if _, err := t.get([]any{&total, &today}, `SELECT coalesce(sum(attested), 0), coalesce(sum(CASE WHEN day = $2 THEN attested END), 0) FROM key_uses WHERE key = $1`, i.Key, dayOf(t.now)); err != nil {
		return err
	}
	share := func(limit int64) int64 { return max(limit/attestShare, 1) }
	switch {
	case i.Limits.Total > 0 && total > share(i.Limits.Total):
		return &deal.SpentError{Limit: share(i.Limits.Total)}
	case i.Limits.Day > 0 && today > share(i.Limits.Day):
		return &deal.SpentError{Limit: share(i.Limits.Day), Daily: true}
	}
	return nil
}

// tellLimit says that the last use was taken that a limit has.
func (t *txn) tellLimit(tx deal.TxID, i deal.Intent, limit int64, period string) error {
	var tenant deal.TenantID
	if _, err := t.get([]any{&tenant}, `SELECT tenant FROM sealings WHERE tx = $1`, tx); err != nil {
		return err
	}
	return t.announce(announcement{kind: "key.limit_reached", audience: []deal.TenantID{tenant}, subject: i.Key, once: fmt.Sprintf("%s/%d/%s", dayOf(t.now), limit, period),
		data: map[string]string{"spki": i.Key, "limit": fmt.Sprint(limit), "period": period}})
}

func (t *txn) uses(key string) (u deal.KeyUses, err error) {
	_, err = t.get([]any{&u.Total, &u.Today}, `SELECT coalesce(sum(uses), 0), coalesce(sum(CASE WHEN day = $2 THEN uses END), 0) FROM key_uses WHERE key = $1`, key, dayOf(t.now))
	return u, err
}

func dayOf(at time.Time) string { return at.UTC().Format(time.DateOnly) }

// KeyUses tells, by the SHA-256 of public keys, how many digests each was about to sign in this state.
func (s *Store) KeyUses(ctx context.Context) (map[string]deal.KeyUses, error) {
	all := map[string]deal.KeyUses{}
	return all, s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var key string
			var u deal.KeyUses
			err := r.Scan(&key, &u.Total, &u.Today)
			all[key] = u
			return err
		}, `SELECT key, sum(uses), coalesce(sum(CASE WHEN day = $1 THEN uses END), 0) FROM key_uses GROUP BY key`, dayOf(t.now))
	})
}
