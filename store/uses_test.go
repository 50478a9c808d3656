package store

import (
	"errors"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func signIntent(digest, key string, l deal.KeyLimits) deal.Intent {
	return deal.Intent{Step: deal.Rendered, What: "sign", Digest: digest, Key: key, Lease: time.Minute, Limits: l}
}

func TestAKeysLimitsCountDigestsAndRefuseTheNextOne(t *testing.T) {
	s, c := newStore(t)
	limits := deal.KeyLimits{Total: 3, Day: 2}
	sealings := []*deal.Sealing{one(t, s, "006A"), one(t, s, "006B"), one(t, s, "006C"), one(t, s, "006D")}
	digests := []string{"aa", "bb", "cc", "dd"}
	for i := range 2 {
		for range 3 { // attempts
			if err := s.Begin(t.Context(), sealings[i], signIntent(digests[i], "key", limits)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustUse := func(want deal.KeyUses) {
		t.Helper()
		uses, err := s.KeyUses(t.Context())
		if err != nil || uses["key"] != want {
			t.Errorf("%+v, want %+v: %v", uses, want, err)
		}
	}
	mustRefuse := func(i int, want deal.SpentError) {
		t.Helper()
		before := sealings[i].Version
		err := s.Begin(t.Context(), sealings[i], signIntent(digests[i], "key", limits))
		var spent *deal.SpentError
		if !errors.As(err, &spent) || *spent != want || sealings[i].Version != before {
			t.Errorf("%v", err)
		}
	}
	mustUse(deal.KeyUses{Total: 2, Today: 2})
	mustRefuse(2, deal.SpentError{Limit: 2, Daily: true})
	mustUse(deal.KeyUses{Total: 2, Today: 2})
	// What was counted may be tried again, and another key has limits of its own.
	if err := s.Begin(t.Context(), sealings[1], signIntent("bb", "key", limits)); err != nil {
		t.Error(err)
	}
	if err := s.Begin(t.Context(), sealings[3], signIntent("dd", "other", limits)); err != nil {
		t.Error(err)
	}
	c.advance(24 * time.Hour)
	mustUse(deal.KeyUses{Total: 2})
	if err := s.Begin(t.Context(), sealings[2], signIntent("cc", "key", limits)); err != nil {
		t.Fatal(err)
	}
	c.advance(24 * time.Hour)
	mustRefuse(3, deal.SpentError{Limit: 3})
	mustUse(deal.KeyUses{Total: 3})
}

// TestManifestsUseUpATenthOfAKeysLimits has somebody fetch evidence until there is none any more.
func TestManifestsUseUpATenthOfAKeysLimits(t *testing.T) {
	s, c := newStore(t)
	limits := deal.KeyLimits{Total: 30, Day: 20}
	sl := one(t, s, "006A")
	attest := func(limits deal.KeyLimits) error {
		return s.Attesting(t.Context(), sl.Tx, deal.Entry{Who: "alice", What: "attesting"}, deal.Intent{What: "attest", Digest: "ee", Key: "key", Limits: limits})
	}
	refused := func(err error, want deal.SpentError) {
		t.Helper()
		before := query[int64](t, s, `SELECT count(*) FROM audit`)
		var spent *deal.SpentError
		if !errors.As(err, &spent) || *spent != want {
			t.Errorf("%v, want %+v", err, want)
		}
		if after := query[int64](t, s, `SELECT count(*) FROM audit`); after != before {
			t.Error("the audit log tells of a use that was refused")
		}
	}
	for range 2 {
		if err := attest(limits); err != nil {
			t.Fatal(err)
		}
	}
	refused(attest(limits), deal.SpentError{Limit: 2, Daily: true})
	c.advance(24 * time.Hour)
	if err := attest(limits); err != nil {
		t.Fatal(err)
	}
	refused(attest(limits), deal.SpentError{Limit: 3})
	uses, err := s.KeyUses(t.Context())
	if err != nil || uses["key"] != (deal.KeyUses{Total: 3, Today: 1}) {
		t.Errorf("the key has %+v: %v", uses["key"], err)
	}
	// Contracts have the rest, and count what was attested.
	if err := s.Begin(t.Context(), sl, signIntent("aa", "key", deal.KeyLimits{Total: 4})); err != nil {
		t.Error(err)
	}
	refused(attest(deal.KeyLimits{Total: 4}), deal.SpentError{Limit: 4})
}

// TestAPausedTenantsKeySignsNoManifest has somebody fetch evidence of a tenant for which no key is to be used.
func TestAPausedTenantsKeySignsNoManifest(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	attest := func() error {
		return s.Attesting(t.Context(), sl.Tx, deal.Entry{Who: "alice", What: "attesting"}, deal.Intent{What: "attest", Digest: "ee", Key: "key"})
	}
	if err := s.Pause(t.Context(), acme, "anna", "the key may be known to others"); err != nil {
		t.Fatal(err)
	}
	before := query[int64](t, s, `SELECT count(*) FROM audit`)
	var paused *PauseError
	if err := attest(); !errors.As(err, &paused) {
		t.Errorf("a manifest is signed with the key of a tenant that is paused: %v", err)
	}
	if uses, err := s.KeyUses(t.Context()); err != nil || uses["key"].Total != 0 || query[int64](t, s, `SELECT count(*) FROM audit`) != before {
		t.Errorf("what was refused counts, or is in the audit log: %+v, %v", uses, err)
	}
	if err := s.Resume(t.Context(), acme, "anna", "it is not"); err != nil {
		t.Fatal(err)
	}
	if err := attest(); err != nil {
		t.Error(err)
	}
}
