package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store/archive"
)

// Recover rebuilds the ledger from the archive's manifests: a sealing that is missing, or that the ledger believes to be
// less far, is put at the step "kept", from where it is looked for on its record before anything is attached. What the
// ledger knows to be kept, or to have ended, is left alone. report is called for each folder that changed the ledger, or
// with the error why it could not be used; deal.ErrStale means that a step of the sealing is under way. A new epoch
// begins if anything changed.
func (s *Store) Recover(ctx context.Context, report func(folder string, tx deal.TxID, err error)) error {
	changed := false
	err := s.archive.Walk(ctx, time.Time{}, func(folder string) error {
		m, err := s.archive.Read(folder, s.master.manifest)
		if err != nil {
			report(folder, "", err)
			return nil
		}
		did, err := s.recoverOne(ctx, folder, m)
		if err := ctx.Err(); err != nil {
			return err
		}
		if did || err != nil {
			report(folder, m.Tx, err)
		}
		changed = changed || did
		return nil
	})
	if err != nil || !changed {
		return err
	}
	return s.update(ctx, "commit/recover", func(t *txn) error { return t.beginEpoch("the ledger was rebuilt from the archive") })
}

func (s *Store) recoverOne(ctx context.Context, folder string, m *archive.Manifest) (did bool, err error) {
	sl, key, err := s.unpack(folder, m)
	if err != nil {
		return false, err
	}
	entry := deal.Entry{Who: "daemon", What: "recovered", Why: "rebuilt from its manifest"}
	err = s.update(ctx, "commit/recover", func(t *txn) error {
		var owner deal.TxID
		found, err := t.get([]any{&owner}, `SELECT owner FROM known WHERE tx = $1`, m.Tx)
		if err != nil {
			return err
		}
		if !found {
			did = true
			return t.recoverMissing(sl, key, entry)
		}
		did, err = t.recoverBehind(owner, sl, entry)
		return err
	})
	return did && err == nil, err
}

// unpack makes a sealing out of a manifest. The key is nil if it was erased; then nothing can be done with the sealing
// but to remember that it was.
func (s *Store) unpack(folder string, m *archive.Manifest) (*deal.Sealing, *dataKey, error) {
	sl := &deal.Sealing{
		Tx: m.Tx, Tenant: m.Tenant, Account: m.Account, Change: m.Change, Plan: m.Plan, Facts: m.Facts,
		Step: deal.Kept, Condition: deal.Running, Noticed: m.Noticed, Updated: s.now(), Version: 1,
	}
	sl.Facts.Archive, sl.Facts.Signature = folder, true
	if m.Key == nil {
		sl.Condition, sl.Reason = deal.Ended, "dropped: it was erased"
		return sl, nil, nil
	}
	key, err := unwrapDataKey(s.master.tenant(m.Tenant), m.Tx, m.Key)
	if err != nil {
		return nil, nil, err
	}
	text, err := unbox(key.rows, "private/"+string(m.Tx), m.Private)
	if err != nil {
		return nil, nil, fmt.Errorf("private part: %w", err)
	}
	if err := json.Unmarshal(text, &sl.Private); err != nil {
		return nil, nil, fmt.Errorf("private part: %w", errDamaged)
	}
	return sl, key, nil
}

func (t *txn) recoverMissing(sl *deal.Sealing, key *dataKey, e deal.Entry) error {
	if _, _, err := t.know(append([]deal.TxID{sl.Tx}, sl.Change.TxIDs(sl.Account)...)); err != nil {
		return err
	}
	if sl.Facts.Digest != "" {
		if err := t.commitDigest(sl.Tx, firstSeal, sl.Facts.Digest); err != nil {
			return err
		}
	}
	if s := sl.Facts.Second; s != nil && s.Digest != "" {
		if err := t.commitDigest(sl.Tx, secondSeal, s.Digest); err != nil {
			return err
		}
	}
	if err := t.listen(sl); err != nil {
		return err
	}
	return t.insert(sl, key, e)
}

// recoverBehind brings a sealing forward that an older ledger believes to be less far than the archive proves. Its record
// may show more than that already, so no receipt is desired. What a person has dropped stays so, whatever was archived of
// it.
func (t *txn) recoverBehind(tx deal.TxID, found *deal.Sealing, e deal.Entry) (bool, error) {
	sl, key, err := t.load(tx)
	if err != nil || !sl.Step.Before(deal.Kept) || sl.Condition == deal.Ended {
		return false, err
	}
	if tx != found.Tx || key == nil {
		return false, refuse(tx, "the archive holds %s, the ledger knows the same entry otherwise", found.Tx)
	}
	r, key, err := t.current(sl, t.s.ownerOf(t.ctx))
	if err != nil {
		return false, err
	}
	sl.Step, sl.Condition, sl.Reason = found.Step, found.Condition, found.Reason
	sl.Facts, sl.Private = found.Facts, found.Private
	return true, t.advance(r, sl, key, e)
}
