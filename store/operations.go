package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Retry lets a dead or retrying sealing go on at its step at once; a dead one without a committed digest begins anew, with
// the record as it is now. What a sealing's record should show and the CRM has not
// been told is told at once as well, and that even if the sealing is held, has ended or is done. Who and why go into the
// audit log; both are required.
func (s *Store) Retry(ctx context.Context, tx deal.TxID, who, why string) error {
	return s.decide(ctx, tx, who, why, func(t *txn) error {
		sl, key, err := t.load(tx)
		if err != nil {
			return err
		}
		shown, err := t.receipt(tx)
		if err != nil {
			return err
		}
		stopped := sl.Step != deal.Done && (sl.Condition == deal.Dead || sl.Condition == deal.Retrying)
		untold := shown.Due() && (sl.Step == deal.Done || sl.Condition.Waiting())
		switch {
		case stopped:
			if sl.Condition == deal.Dead && sl.Facts.Digest == "" && !sl.Facts.Signature && sl.Step.Before(deal.Sealed) {
				sl.Step, sl.Facts.Unsigned, sl.Private.Ticket = deal.Noticed, nil, nil
			}
			before := sl.Condition
			resume(sl)
			err = t.carryOut(sl, deal.Entry{Who: who, What: "retried", Why: why, Events: resumed(before)})
		case untold:
			_, err = t.appendLeaf(leaf{Tenant: sl.Tenant, Tx: tx, What: "receipt-retried"}, testimony{Who: who, Why: why}, key)
		default:
			return refuse(tx, "it is %s; only what is dead, waits for its next attempt or has not been told to the CRM can be retried", state(sl))
		}
		if err != nil || !shown.Due() {
			return err
		}
		r, err := t.row(tx)
		if err != nil {
			return err
		}
		return t.tell(r.receipt, t.now)
	})
}

// Release lets a held sealing go on at its step. The hold's name is remembered, so that it does not hold again.
func (s *Store) Release(ctx context.Context, tx deal.TxID, hold, who, why string) error {
	return s.operate(ctx, tx, deal.Entry{Who: who, What: "released", Why: why, Detail: map[string]string{"hold": hold}, Events: resumed(deal.Held)}, func(_ *txn, sl *deal.Sealing) error {
		if sl.Condition != deal.Held {
			return refuse(tx, "it is %s; only what is held can be released", state(sl))
		}
		if hold != "" && !slices.Contains(sl.Facts.Released, hold) {
			sl.Facts.Released = append(slices.Clone(sl.Facts.Released), hold)
		}
		sl.Facts.Guarded = false
		resume(sl)
		return nil
	})
}

// Drop ends a sealing that is held, dead or retrying: a person has decided that nothing more is to happen. Its staged
// documents are removed.
func (s *Store) Drop(ctx context.Context, tx deal.TxID, who, why string) error {
	err := s.operate(ctx, tx, deal.Entry{Who: who, What: "dropped", Why: why, Events: []deal.Event{{Type: "envelope.voided", Data: map[string]string{"reason": "dropped by a person"}}}}, func(_ *txn, sl *deal.Sealing) error {
		if sl.Condition == deal.Ended || sl.Condition == deal.Running {
			return refuse(tx, "it is %s; only what is held, dead or waits for its next attempt can be dropped", state(sl))
		}
		sl.Condition, sl.Reason, sl.Next = deal.Ended, "dropped: "+why, time.Time{}
		sl.Facts.Guarded = false
		return nil
	})
	if err == nil {
		s.dispose(ctx, tx)
	}
	return err
}

// PrepareAgain gives up the digest that was committed for a sealing that is held, dead or retrying, and lets it begin anew
// with the record as it is now: a person answers for the key not having been used, or for what it signed being lost. The
// given-up digest never comes back. A sealing that is held with a contract that was found on the record or fetched from a
// vendor, and that is not checked yet, begins anew without that contract: a person has removed the file, or it is found
// again; the vendor is asked once more. It is refused once a signature value exists.
func (s *Store) PrepareAgain(ctx context.Context, tx deal.TxID, who, why string) error {
	return s.operate(ctx, tx, deal.Entry{Who: who, What: preparedAgain, Why: why, Events: resumed(deal.Held)}, func(t *txn, sl *deal.Sealing) error {
		if sl.Condition == deal.Running || sl.Condition == deal.Ended {
			return refuse(tx, "it is %s; only what is held, dead or waits for its next attempt can be prepared again", state(sl))
		}
		found := (sl.Facts.Adopted || sl.Plan.Delegated != nil) && sl.Step == deal.Sealed && sl.Condition == deal.Held
		if sl.Facts.Signature || !sl.Step.Before(deal.Sealed) && !found {
			return refuse(tx, "it has a signature: retry or release it to go on with that one, or drop it")
		}
		digest, err := t.digest(tx, firstSeal)
		if err != nil {
			return err
		}
		if digest == "" && !found {
			return refuse(tx, "no digest is committed yet: retry or release it, and the record is read anew")
		}
		if found {
			forgetFound(sl)
		}
		sl.Step, sl.Facts.Digest, sl.Facts.Unsigned, sl.Private.Ticket = deal.Noticed, "", nil, nil
		resume(sl)
		return t.giveUpDigest(tx)
	})
}

// forgetFound forgets the contract that was not made here and all that was concluded from it. What a person has released was
// released with that file, and holds again with the next.
func forgetFound(sl *deal.Sealing) {
	f, p := &sl.Facts, &sl.Private
	f.Contract, f.Adopted, f.Cert, f.Attachment, f.AuditTrail = nil, false, nil, nil, nil
	f.Verdict, f.SecondOpinion, f.Conclusion, f.Level, f.Flagged, f.SealedAt = "", "", "", "", "", time.Time{}
	f.Released = nil
	p.FileName, p.Report = "", nil
}

// resumed tells others that what has waited for a person waits no more.
func resumed(was deal.Condition) []deal.Event {
	if !was.Waiting() {
		return nil
	}
	return []deal.Event{{Type: "document.resumed"}}
}

func state(sl *deal.Sealing) string {
	if sl.Step == deal.Done {
		return "done"
	}
	return string(sl.Condition)
}

func resume(sl *deal.Sealing) {
	sl.Condition, sl.Reason, sl.Attempts, sl.Next, sl.Facts.WaitsFor = deal.Running, "", 0, time.Time{}, ""
}

// operate changes a sealing as a person has decided, unless a step is under way: then the error is deal.ErrStale.
func (s *Store) operate(ctx context.Context, tx deal.TxID, e deal.Entry, change func(*txn, *deal.Sealing) error) error {
	return s.decide(ctx, tx, e.Who, e.Why, func(t *txn) error {
		sl, _, err := t.load(tx)
		if err != nil {
			return err
		}
		if sl.Step == deal.Done {
			return refuse(tx, "it is done")
		}
		guarded := sl.Facts.Guarded
		if err := change(t, sl); err != nil {
			return err
		}
		if err := t.carryOut(sl, e); err != nil || !guarded {
			return err
		}
		return t.openEmptied(deal.GuardScope{Tenant: sl.Tenant, Rule: sl.Change.Rule})
	})
}

// decide commits what a person, who must give a name and a reason, has decided.
func (s *Store) decide(ctx context.Context, tx deal.TxID, who, why string, do func(*txn) error) error {
	if who == "" || why == "" {
		return fmt.Errorf("%s: say who and why: both go into the audit log", tx)
	}
	return s.update(ctx, "commit/operate", do)
}

// carryOut writes a changed sealing and what its record should show of it.
func (t *txn) carryOut(sl *deal.Sealing, e deal.Entry) error {
	r, key, err := t.current(sl, t.s.ownerOf(t.ctx))
	if err != nil {
		return err
	}
	if err := t.advance(r, sl, key, e); err != nil {
		return err
	}
	return t.showUnlessGuarded(r, sl)
}
