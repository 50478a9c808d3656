package store

import (
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

func TestADroppedDealIsAnEarlierOneOnlyIfItWasSigned(t *testing.T) {
	s, _ := newStore(t)
	dropped, signed, latest := one(t, s, "006A"), notice(t, s, change("006A", "h2"))[0], notice(t, s, change("006A", "h3"))[0]
	b := load(t, s, signed)
	b.Step, b.Facts.Signature = deal.Rendered, true
	for _, sl := range []*deal.Sealing{dropped, b} {
		sl.Condition = deal.Held
		advance(t, s, sl, "held")
		if err := s.Drop(t.Context(), sl.Tx, "anna", "not wanted"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Earlier(t.Context(), load(t, s, latest))
	if err != nil || !cmp.Equal(got, []deal.TxID{signed}) {
		t.Fatalf("got %v, %v, want only %s", got, err, signed)
	}
}
