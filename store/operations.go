package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Retry lets a dead or retrying sealing go on at its step at once. Who and why go into the audit log; why is required.
func (s *Store) Retry(ctx context.Context, tx deal.TxID, who, why string) error {
	return s.operate(ctx, tx, deal.Entry{Who: who, What: "retried", Why: why}, func(sl *deal.Sealing) error {
		if sl.Condition != deal.Dead && sl.Condition != deal.Retrying {
			return refuse(tx, "it is %s; only what is dead or waits for its next attempt can be retried", state(sl))
		}
		resume(sl)
		return nil
	})
}

// Release lets a held sealing go on at its step. The hold's name is remembered, so that it does not hold again.
func (s *Store) Release(ctx context.Context, tx deal.TxID, hold, who, why string) error {
	return s.operate(ctx, tx, deal.Entry{Who: who, What: "released", Why: why, Detail: map[string]string{"hold": hold}}, func(sl *deal.Sealing) error {
		if sl.Condition != deal.Held {
			return refuse(tx, "it is %s; only what is held can be released", state(sl))
		}
		if hold != "" && !slices.Contains(sl.Facts.Released, hold) {
			sl.Facts.Released = append(slices.Clone(sl.Facts.Released), hold)
		}
		resume(sl)
		return nil
	})
}

// Drop ends a sealing that is held, dead or retrying: a person has decided that nothing more is to happen.
func (s *Store) Drop(ctx context.Context, tx deal.TxID, who, why string) error {
	return s.operate(ctx, tx, deal.Entry{Who: who, What: "dropped", Why: why}, func(sl *deal.Sealing) error {
		if sl.Condition == deal.Ended || sl.Condition == deal.Running {
			return refuse(tx, "it is %s; only what is held, dead or waits for its next attempt can be dropped", state(sl))
		}
		sl.Condition, sl.Reason, sl.Next = deal.Ended, "dropped: "+why, time.Time{}
		return nil
	})
}

func state(sl *deal.Sealing) string {
	if sl.Step == deal.Done {
		return "done"
	}
	return string(sl.Condition)
}

func resume(sl *deal.Sealing) {
	sl.Condition, sl.Reason, sl.Attempts, sl.Next = deal.Running, "", 0, time.Time{}
}

// operate carries out what a person has decided, unless a step is under way: then the error is deal.ErrStale.
func (s *Store) operate(ctx context.Context, tx deal.TxID, e deal.Entry, decide func(*deal.Sealing) error) error {
	if e.Who == "" || e.Why == "" {
		return fmt.Errorf("%s: say who and why: both go into the audit log", tx)
	}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		sl, _, err := t.load(tx)
		if err != nil {
			return err
		}
		r, key, err := t.current(sl, s.ownerOf(ctx))
		if err != nil {
			return err
		}
		if sl.Step == deal.Done {
			return refuse(tx, "it is done")
		}
		if err := decide(sl); err != nil {
			return err
		}
		if err := t.advance(r, sl, key, e); err != nil {
			return err
		}
		return t.show(r, sl)
	})
}
