package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

func aToken(name string, c *testClock) deal.Token {
	return deal.Token{Fingerprint: strings.Repeat("ab", 30) + fmt.Sprintf("%04x", len(name)), Kind: deal.BearerToken, Name: name, Live: true, Role: deal.RoleViewer,
		Tenants: []deal.TenantID{acme}, Until: c.now.Add(24 * time.Hour)}
}

func TestATokenIsKnownByItsFingerprintUntilItIsRevoked(t *testing.T) {
	s, c := newStore(t)
	want := aToken("erp", c)
	if err := s.AddToken(t.Context(), want, "root", "the ERP asks"); err != nil {
		t.Fatal(err)
	}
	find := func() deal.Token {
		t.Helper()
		got, found, err := s.Token(t.Context(), deal.BearerToken, want.Fingerprint)
		if err != nil || !found {
			t.Fatal(found, err)
		}
		return got
	}
	want.Made, want.By = c.now.Truncate(time.Millisecond), "root"
	if diff := cmp.Diff(want, find()); diff != "" {
		t.Error(diff)
	}
	if _, found, err := s.Token(t.Context(), deal.ClientCertificate, want.Fingerprint); found || err != nil {
		t.Errorf("as a certificate it is found: %v", err)
	}
	c.advance(time.Hour)
	if err := s.UseToken(t.Context(), find()); err != nil || !find().Used.Equal(s.now()) {
		t.Errorf("last used %s, %v", find().Used, err)
	}
	first := find().Used
	c.advance(usedEvery - time.Second)
	if err := s.UseToken(t.Context(), find()); err != nil || !find().Used.Equal(first) {
		t.Errorf("it is written down again within a minute: %v", err)
	}
	if _, err := s.RevokeToken(t.Context(), "erp", "root", "seen in a chat"); err != nil {
		t.Fatal(err)
	}
	if got := find(); got.Counts(c.now) || got.State(c.now) != "revoked" {
		t.Errorf("revoked, it is %+v", got)
	}
	again := aToken("erp", c)
	if err := s.AddToken(t.Context(), again, "root", "once more"); err == nil {
		t.Error("a revoked token is good again")
	}
	verified(t, s)
}

func TestATokenEndsByItself(t *testing.T) {
	_, c := newStore(t)
	token := aToken("erp", c)
	if !token.Counts(token.Until.Add(-1)) || token.Counts(token.Until) || token.State(token.Until) != "expired" {
		t.Error("it does not end at its end")
	}
}

func TestTokensThatCannotBeAreRefused(t *testing.T) {
	s, c := newStore(t)
	if err := s.AddToken(t.Context(), aToken("erp", c), "root", "a reason"); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*deal.Token){
		"a name that is taken":   func(t *deal.Token) { t.Name = "erp" },
		"another's fingerprint":  func(one *deal.Token) { one.Fingerprint = aToken("erp", c).Fingerprint },
		"no fingerprint":         func(t *deal.Token) { t.Fingerprint = "ds_live_x" },
		"a name for two lines":   func(t *deal.Token) { t.Name = "a\nb" },
		"an unknown role":        func(t *deal.Token) { t.Role = "root" },
		"no kind":                func(t *deal.Token) { t.Kind = "" },
		"an end in the past":     func(t *deal.Token) { t.Until = c.now },
		"more than a year's end": func(t *deal.Token) { t.Until = c.now.Add(longestToken + 1) },
	} {
		token := aToken("another", c)
		change(&token)
		var refused *TokenError
		if err := s.AddToken(t.Context(), token, "root", "a reason"); !errors.As(err, &refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.AddToken(t.Context(), aToken("another", c), "root", ""); err == nil {
		t.Error("without a reason")
	}
	for _, id := range []string{"nobody", "abababa", ""} {
		if _, err := s.RevokeToken(t.Context(), id, "root", "a reason"); err == nil {
			t.Errorf("%q revokes a token", id)
		}
	}
	if _, err := s.RevokeToken(t.Context(), aToken("erp", c).ID(), "root", "a reason"); err != nil {
		t.Errorf("by its ID: %v", err)
	}
}

func TestWhoSeesSomeTenantsFindsNothingOfOthersAndLearnsNothing(t *testing.T) {
	s, _ := newStore(t)
	const beta = deal.TenantID("beta")
	activate(t, s, beta, ruleA)
	mine := one(t, s, "006MINE")
	fresh, err := s.Notice(t.Context(), pageOf(t, s, beta, change("006THEIRS", "h1")))
	if err != nil {
		t.Fatal(err)
	}
	theirs := fresh[0]
	for _, text := range []string{"", "006MINE", string(mine.Tx), string(mine.Tx)[:8]} {
		found, err := s.Find(t.Context(), Query{Text: text, Tenants: []deal.TenantID{acme, "gamma"}})
		if err != nil || len(found.Sealings) != 1 || found.Sealings[0].Tx != mine.Tx {
			t.Errorf("%q finds %+v, %v", text, found, err)
		}
	}
	for _, text := range []string{"006THEIRS", string(theirs), string(theirs)[:8], "nothing at all"} {
		for _, tenants := range [][]deal.TenantID{{acme}, {acme, "gamma"}} {
			found, err := s.Find(t.Context(), Query{Text: text, Tenants: tenants})
			if err != nil || len(found.Sealings) != 0 || found.By != byName || found.Next != 0 {
				t.Errorf("%q finds %+v, %v: it tells that it is another's", text, found, err)
			}
		}
	}
	if found, err := s.Find(t.Context(), Query{Tenants: []deal.TenantID{}}); err != nil || len(found.Sealings) != 0 {
		t.Errorf("who sees nobody finds %+v, %v", found, err)
	}
	if found, err := s.Find(t.Context(), Query{Tenants: []deal.TenantID{acme}, Tenant: beta}); err != nil || len(found.Sealings) != 0 {
		t.Errorf("who asks for another tenant finds %+v, %v", found, err)
	}
	if tenant, err := s.TenantOf(t.Context(), theirs); tenant != beta || err != nil {
		t.Errorf("it is of %q, %v", tenant, err)
	}
	var unknown *NotFoundError
	if _, err := s.TenantOf(t.Context(), "none"); !errors.As(err, &unknown) {
		t.Errorf("an unknown one: %v", err)
	}
}
