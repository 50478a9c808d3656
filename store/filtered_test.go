package store

import (
	"testing"

	"github.com/dealseal/dealseal/deal"
)

func TestWhatWasFilteredIsKnownUnderAllOfItsNamesAndMakesNoDeal(t *testing.T) {
	s, _ := newStore(t)
	out, in := change("d1", "h1"), change("d2", "h1")
	p := page(t, s, in)
	p.Filtered = []deal.Change{out}
	for rule, plan := range p.Plans {
		plan.Filter = "Amount > 5"
		p.Plans[rule] = plan
	}
	if fresh, err := s.Notice(t.Context(), p); err != nil || len(fresh) != 1 {
		t.Fatalf("%v, %v", fresh, err)
	}
	list, err := s.Filtered(t.Context(), FilteredQuery{Limit: 10})
	if err != nil || len(list) != 1 || list[0].Ref != out.Ref || list[0].Filter != "Amount > 5" || list[0].Tenant != acme || !list[0].At.Equal(out.At) {
		t.Fatalf("filtered are %+v, %v", list, err)
	}
	for _, q := range []FilteredQuery{{Name: string(list[0].Tx), Limit: 1}, {Name: out.Ref.ID, Tenant: acme, Limit: 1}} {
		if found, err := s.Filtered(t.Context(), q); err != nil || len(found) != 1 {
			t.Errorf("%+v finds %+v, %v", q, found, err)
		}
	}
	for _, q := range []FilteredQuery{{Name: in.Ref.ID, Limit: 1}, {Tenant: "another", Limit: 1}} {
		if found, err := s.Filtered(t.Context(), q); err != nil || len(found) != 0 {
			t.Errorf("%+v finds %+v, %v", q, found, err)
		}
	}
	// Found again, whether or not it meets the filter now, and under another ID of its record after a merge, it stays what it is.
	merged := out
	merged.Aliases, merged.Ref.ID = []string{out.Ref.ID}, "d3"
	for _, again := range []deal.Change{out, merged} {
		if missed, err := s.Unnoticed(t.Context(), account(acme), []deal.Change{again}); err != nil || len(missed) != 0 {
			t.Errorf("it is said to be new: %+v, %v", missed, err)
		}
		if fresh := notice(t, s, again); len(fresh) != 0 {
			t.Errorf("a deal was made of it: %v", fresh)
		}
		p := page(t, s)
		p.Filtered = []deal.Change{again}
		if _, err := s.Notice(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	if list, err := s.Filtered(t.Context(), FilteredQuery{Limit: 10}); err != nil || len(list) != 1 {
		t.Errorf("filtered are %+v, %v", list, err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM sealings`); n != 1 {
		t.Errorf("there are %d deals", n)
	}
	verified(t, s)
}
