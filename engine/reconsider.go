package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/dealseal/dealseal/deal"
)

// reconsideration comes before the step of a deal that waited for a person when this copy of the state began. Like gather
// it looks at the record and adopts; it does nothing that others can see, so that it may end anywhere and begin again.
var reconsideration = step{name: "gather", do: (*run).reconsider, asks: true}

// reconsider looks whether whoever had the state before has let the deal go on since: its record says so. If it does not,
// the deal waits as before.
func (r *run) reconsider(ctx context.Context) error {
	s := r.s
	if err := r.begin(ctx, deal.Intent{What: "gather", Lease: transferLease}); err != nil {
		return err
	}
	rec, shown, err := r.read(ctx, "record")
	waited := *s.Facts.Waited
	if err != nil {
		if r.saysNothing(ctx, err) {
			return r.waitAgain(ctx, waited)
		}
		return err
	}
	guarded := s.Facts.Guarded // while it waits, nothing of it is told
	s.Facts.Waited, s.Facts.Guarded = nil, false
	file, borne := rec.Sealed(s.Tx, deal.RoleContract)
	unsealed := s.Step.Before(deal.Sealed)
	switch {
	case borne && unsealed:
		return r.adopt(ctx, rec, file)
	case unsealed && shown.sealed(s):
		return held(holdMissing, "%s", missing)
	case borne:
		return r.resume(ctx, "its record bears the contract")
	case endsByItself(HoldName(waited.Reason, r.Ledger.Epoch())):
		return r.resume(ctx, "what it waited for is judged anew")
	}
	s.Facts.Guarded = guarded
	return r.waitAgain(ctx, waited)
}

// saysNothing reports whether an error of reading the record will not go away by itself, or has not so far.
func (r *run) saysNothing(ctx context.Context, err error) bool {
	var hold *deal.HoldError
	if ctx.Err() != nil || errors.As(err, &hold) || errors.Is(err, deal.ErrStale) || mendedForAll(err) {
		return false
	}
	return deal.IsPermanent(err) || errors.Is(err, deal.ErrGone) || r.s.Attempts+1 >= r.Retry.Attempts
}

// endsByItself reports whether the daemon lets go on what has this hold, once and at the moment at which its cause is gone.
func endsByItself(hold string) bool {
	return slices.Contains([]string{HoldUnconfigured, HoldAccount, HoldRevoked, HoldSpent}, hold)
}

func (r *run) resume(ctx context.Context, why string) error {
	return r.advance(ctx, "gathered", "", deal.Entry{What: "resumed", Why: why})
}

// waitAgain also has the record told: what it shows may be from before the copy. People are told once more, too: while the
// record was looked at, the deal did not wait, and what was told of that was over. Of what the guard holds, they are told together.
func (r *run) waitAgain(ctx context.Context, waited deal.Waited) error {
	s := r.s
	s.Facts.Waited = nil
	s.Condition, s.Reason = waited.Condition, waited.Reason
	e := deal.Entry{Who: "daemon", What: string(s.Condition), Why: s.Reason}
	if !s.Facts.Guarded {
		e.Events = waitingEvents(s)
	}
	if err := r.Ledger.Advance(ctx, s, e); err != nil {
		return &commitError{err}
	}
	return nil
}
