package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// wakeGap is the time between two sealings that are woken: what has just been mended is not overrun.
const wakeGap = 50 * time.Millisecond

const waitingForQuery = `SELECT tx FROM sealings WHERE condition = 'retrying' AND (tenant = $1 OR $1 = '') AND json_extract(facts, '$.waits_for') = $2 ORDER BY seq`

// Wake lets the sealings go on that wait for a cause, of one tenant or, if that is empty, of all: one after the other,
// wakeGap apart. It returns how many. One that moves by itself meanwhile needs no help.
func (s *Store) Wake(ctx context.Context, tenant deal.TenantID, cause string) (n int, err error) {
	var waiting []deal.TxID
	err = s.view(ctx, func(t *txn) error {
		waiting, err = column[deal.TxID](t, waitingForQuery, tenant, cause)
		return err
	})
	for batch := range slices.Chunk(waiting, maxTogether) {
		if err != nil {
			break
		}
		woken := 0
		err = s.update(ctx, "commit/operate", func(t *txn) error {
			for _, tx := range batch {
				did, err := t.wake(tx, cause, time.Duration(n+woken)*wakeGap)
				if err != nil {
					return err
				}
				if did {
					woken++
				}
			}
			return nil
		})
		if err == nil {
			n += woken
		}
	}
	return n, err
}

func (t *txn) wake(tx deal.TxID, cause string, in time.Duration) (bool, error) {
	sl, _, err := t.load(tx)
	if err != nil || sl.Condition != deal.Retrying || sl.Facts.WaitsFor != cause {
		return false, err
	}
	resume(sl)
	err = t.carryOut(sl, deal.Entry{Who: "daemon", What: "woken", Why: "what it waited for works again: " + cause})
	if errors.Is(err, deal.ErrStale) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, t.want(deal.JobSeal, string(tx), sl.Tenant, t.now.Add(in))
}
