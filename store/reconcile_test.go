package store

import (
	"slices"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

// Two tenants may have the same account: neither compares the contracts of the other, with what its own user sees of a record.
func TestFinishedDealsOfARecordAreThoseOfTheTenant(t *testing.T) {
	s, _ := newStore(t)
	sl := kept(t, s, "006A")
	for _, step := range []deal.Step{deal.Attached, deal.Reported, deal.Done} {
		sl.Step = step
		advance(t, s, sl, string(step))
	}
	for tenant, want := range map[deal.TenantID][]deal.TxID{sl.Tenant: {sl.Tx}, "other": nil} {
		if txs, err := s.FinishedOf(t.Context(), tenant, org, sl.Change.Ref); err != nil || !slices.Equal(txs, want) {
			t.Errorf("%s has %v of the record, want %v; %v", tenant, txs, want, err)
		}
	}
}
