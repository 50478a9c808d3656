package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// How long the log of pushes goes back, and how long it gets at most.
const (
	keepPushes = 30 * 24 * time.Hour
	mostPushes = 500_000
	// forgetAtOnce bounds a transaction of Forget.
	forgetAtOnce = 2000
)

// Receive takes in a push whose sender is known: what it was and what it named go into the log, with what recognises it
// when it comes again, in one transaction that is durable when Receive returns. Arrivals of a few milliseconds share one.
// It returns the records that are to be looked at; there are none of a push that was taken before, for which replayed is
// true. What a vendor tells is kept and has its deal go on in the same transaction.
func (s *Store) Receive(ctx context.Context, a deal.Arrival) (wake []deal.Ref, replayed bool, err error) {
	if err := checkTenant(a.Tenant); err != nil {
		return nil, false, err
	}
	err = s.update(ctx, "commit/receive", func(t *txn) error {
		wake = nil
		fresh, err := t.firstTime(a, "request", a.Nonce, a.Until)
		if err != nil {
			return err
		}
		if replayed = !fresh; replayed {
			return t.logPush(deal.Push{Tenant: a.Tenant, Source: a.Source, Verdict: deal.PushReplayed, N: 1})
		}
		for _, c := range a.Callbacks {
			c.At, c.AnswerBy, c.Expires = t.now, deal.AnswerBy(t.now, a.Block), t.now.Add(a.Block)
			if err := t.call(a.Tenant, c); err != nil {
				return err
			}
		}
		var rows []deal.Push
		for _, e := range a.Events {
			p := deal.Push{Tenant: a.Tenant, Source: a.Source, Verdict: deal.PushIgnored, Ref: e.Ref, N: 1}
			if e.Wakes {
				if p.Verdict, err = t.judgeEvent(a, e); err != nil {
					return err
				}
			}
			rows = joined(rows, p)
			if p.Verdict == deal.PushTaken {
				wake = append(wake, e.Ref)
			}
		}
		for _, p := range rows {
			if err := t.logPush(p); err != nil {
				return err
			}
		}
		return t.hear(a)
	})
	if err != nil {
		return nil, false, err
	}
	return wake, replayed, nil
}

func (t *txn) judgeEvent(a deal.Arrival, e deal.PushedEvent) (deal.PushVerdict, error) {
	if e.Key == "" {
		return deal.PushTaken, nil
	}
	fresh, err := t.firstTime(a, "event", []byte(e.Key), t.now.Add(deal.EventMemory))
	if err != nil || fresh {
		return deal.PushTaken, err
	}
	return deal.PushRepeated, nil
}

// joined adds a row, to one that says the same if there is one: a request may name a record a hundred times.
func joined(rows []deal.Push, p deal.Push) []deal.Push {
	for i := range rows {
		if rows[i].Verdict == p.Verdict && (rows[i].Ref == p.Ref || p.Verdict == deal.PushIgnored) {
			rows[i].N++
			return rows
		}
	}
	return append(rows, p)
}

// firstTime takes note of something that came, and reports whether it came for the first time. Nothing has no name, and
// always comes for the first time.
func (t *txn) firstTime(a deal.Arrival, kind string, name []byte, until time.Time) (bool, error) {
	if len(name) == 0 {
		return true, nil
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(a.Tenant), []byte(a.Source), []byte(kind), name} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return t.execOne(`INSERT INTO nonces (nonce, until) VALUES ($1, $2) ON CONFLICT DO NOTHING`, h.Sum(nil)[:16], until.UnixMilli())
}

func (t *txn) logPush(p deal.Push) error {
	return t.exec(`INSERT INTO pushes (at, tenant, source, verdict, object, record, n) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		t.now.UnixMilli(), p.Tenant, p.Source, p.Verdict, p.Ref.Object, p.Ref.ID, p.N)
}

// LogPushes puts refused pushes into the log.
func (s *Store) LogPushes(ctx context.Context, rows []deal.Push) error {
	return s.update(ctx, "commit/refused", func(t *txn) error {
		for _, p := range rows {
			if err := t.logPush(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pushes returns what came last, newest first, at most limit.
func (s *Store) Pushes(ctx context.Context, limit int) (rows []deal.Push, err error) {
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var p deal.Push
			var at int64
			err := r.Scan(&at, &p.Tenant, &p.Source, &p.Verdict, &p.Ref.Object, &p.Ref.ID, &p.N)
			p.At = fromMillis(at)
			rows = append(rows, p)
			return err
		}, `SELECT at, tenant, source, verdict, object, record, n FROM pushes ORDER BY seq DESC LIMIT $1`, limit)
	})
	return rows, err
}

// ForgetPushes removes what cannot come again, and what is too old for the log or too much for it. It returns how many rows
// went.
func (s *Store) ForgetPushes(ctx context.Context) (n int64, err error) {
	for {
		var gone int64
		err := s.update(ctx, "commit/forget", func(t *txn) error {
			gone = 0
			for _, d := range []struct {
				query string
				args  []any
			}{
				{`DELETE FROM nonces WHERE nonce IN (SELECT nonce FROM nonces WHERE until < $1 LIMIT $2)`, []any{t.now.UnixMilli(), forgetAtOnce}},
				{forgetOld, []any{t.now.Add(-keepTold).UnixMilli(), forgetAtOnce}},
				// The oldest rows have the lowest numbers.
				{`DELETE FROM pushes WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM pushes ORDER BY seq LIMIT $2) WHERE at < $1)`, []any{t.now.Add(-keepPushes).UnixMilli(), forgetAtOnce}},
				{`DELETE FROM callbacks WHERE (tenant, callback) IN (SELECT tenant, callback FROM callbacks WHERE fate <> '' AND ended < $1 OR expires < $1 LIMIT $2)`, []any{t.now.Add(-keepPushes).UnixMilli(), forgetAtOnce}},
				{`DELETE FROM pushes WHERE seq IN (SELECT seq FROM pushes WHERE seq <= (SELECT max(seq) FROM pushes) - $1 ORDER BY seq LIMIT $2)`, []any{mostPushes, forgetAtOnce}},
			} {
				r, err := t.ExecContext(t.ctx, d.query, d.args...)
				if err != nil {
					return err
				}
				rows, err := r.RowsAffected()
				if err != nil {
					return err
				}
				gone = max(gone, rows)
				n += rows
			}
			return nil
		})
		if err != nil {
			return n, fmt.Errorf("forget pushes: %w", err)
		}
		if gone < forgetAtOnce {
			return n, nil
		}
	}
}
