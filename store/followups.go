package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// followUpsAtOnce bounds how many deals come to be followed up in one look: each is a write to its CRM.
const followUpsAtOnce = 500

// awaitOutcome begins a deal's wait for an outcome, if its plan bounds that.
func (t *txn) awaitOutcome(sl *deal.Sealing) error {
	if sl.Plan.FollowUp <= 0 || sl.Facts.Guarded {
		return nil
	}
	return t.exec(`INSERT INTO follow_ups (tx, since, due) VALUES ($1, $2, $3) ON CONFLICT DO UPDATE SET since = excluded.since, due = excluded.due`,
		sl.Tx, t.now.UnixMilli(), t.now.Add(sl.Plan.FollowUp).UnixMilli())
}

// follow begins and ends that wait when a change of the sealing does. It comes before what has become of the sealing is written.
func (t *txn) follow(r *row, sl *deal.Sealing) error {
	if sl.Plan.FollowUp <= 0 {
		return nil
	}
	before := !r.guarded && deal.Shown(r.step, r.condition, r.reason).Undecided()
	after := !sl.Facts.Guarded && deal.Shown(sl.Step, sl.Condition, sl.Reason).Undecided()
	switch {
	case before == after:
		return nil
	case after:
		return t.awaitOutcome(sl)
	}
	sl.Facts.FollowUp = time.Time{}
	return t.exec(`DELETE FROM follow_ups WHERE tx = $1`, sl.Tx)
}

const (
	followUpsQuery      = `SELECT tx FROM follow_ups WHERE due <= $1 ORDER BY due LIMIT $2`
	followUpsAheadQuery = `SELECT tx FROM follow_ups WHERE since > $1 ORDER BY since LIMIT $2` // the clock was set back since
)

// FollowUps takes note of the deals that have had no outcome for as long as their plans let them: in one transaction each is
// told to whoever listens, and to its record where that has a field for it. It returns how many. One that somebody works on
// at this moment is left to the next look.
func (s *Store) FollowUps(ctx context.Context) (n int, err error) {
	var due []deal.TxID
	err = s.view(ctx, func(t *txn) error {
		due, err = column[deal.TxID](t, followUpsQuery, t.now.UnixMilli(), followUpsAtOnce)
		if err != nil || len(due) == followUpsAtOnce {
			return err
		}
		ahead, err := column[deal.TxID](t, followUpsAheadQuery, t.now.Add(farFuture).UnixMilli(), followUpsAtOnce-len(due))
		due = append(due, ahead...)
		return err
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for batch := range slices.Chunk(due, maxTogether) {
		told, err := s.followUpTogether(ctx, batch)
		n += told
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil, len(batch) == 1:
			errs = append(errs, err)
			continue
		}
		for _, tx := range batch { // one that cannot be read must not keep the others from being told of
			told, err := s.followUpTogether(ctx, []deal.TxID{tx})
			if n += told; err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", tx, err))
			}
		}
	}
	return n, errors.Join(errs...)
}

// followUpTogether follows some deals up in one transaction.
func (s *Store) followUpTogether(ctx context.Context, all []deal.TxID) (told int, err error) {
	err = s.update(ctx, "commit/follow-up", func(t *txn) error {
		told = 0
		for _, tx := range all {
			did, err := t.followUp(tx)
			if err != nil {
				return err
			}
			if did {
				told++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return told, nil
}

func (t *txn) followUp(tx deal.TxID) (told bool, err error) {
	var since, due int64
	found, err := t.get([]any{&since, &due}, `SELECT since, due FROM follow_ups WHERE tx = $1`, tx)
	switch {
	case err != nil || !found: // it has had its outcome meanwhile
		return false, err
	case since > t.now.Add(farFuture).UnixMilli(): // the clock was set back: the wait begins now
		now := t.now.UnixMilli()
		return false, t.exec(`UPDATE follow_ups SET since = $2, due = $3 WHERE tx = $1`, tx, now, now+due-since)
	case due > t.now.UnixMilli():
		return false, nil
	}
	sl, _, err := t.load(tx)
	if err != nil {
		return false, err
	}
	r, key, err := t.current(sl, t.s.ownerOf(t.ctx))
	if errors.Is(err, deal.ErrStale) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := t.exec(`DELETE FROM follow_ups WHERE tx = $1`, tx); err != nil {
		return false, err
	}
	return true, t.tellFollowUp(r, sl, key, fromMillis(since))
}

// tellFollowUp changes nothing but the fact: the deal goes on as it would have.
func (t *txn) tellFollowUp(r *row, sl *deal.Sealing, key *dataKey, since time.Time) error {
	status := deal.Shown(sl.Step, sl.Condition, sl.Reason)
	sl.Facts.FollowUp, sl.Version = t.now, r.version+1
	n, events, err := t.testify(r, sl, key, deal.Entry{Who: "daemon", What: "follow-up-due", Why: "there is no outcome since " + since.Format(time.RFC3339),
		Events: []deal.Event{{Type: "envelope.follow_up_due", Data: map[string]string{"since": since.Format(time.RFC3339), "status": string(status)}}}})
	if err != nil {
		return err
	}
	_, facts, err := encode(sl)
	if err != nil {
		return err
	}
	if err := t.exec(`UPDATE sealings SET version = $2, facts = $3, last_entry = $4, events = $5 WHERE tx = $1`, sl.Tx, sl.Version, facts, n, events); err != nil {
		return err
	}
	if sl.Plan.WriteBack.FollowUp == "" {
		return nil
	}
	return t.desire(r.receipt, sl.Tx, status, t.now)
}
