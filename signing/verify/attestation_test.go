package verify_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// oneKey is a key store with one key.
type oneKey struct{ *pki.Identity }

func (s oneKey) Open(context.Context, string) (signing.Key, error) {
	return attestingKey{s.Key, s.Identity}, nil
}
func (s oneKey) Close() error { return nil }

type attestingKey struct {
	crypto.Signer
	*pki.Identity
}

// attest makes a signature over content, with the time-stamp of an authority.
func attest(tb testing.TB, a *pki.Authority, stamped bool, content []byte) []byte {
	tb.Helper()
	level := pades.BB
	if stamped {
		level = pades.BT
	}
	s := signing.NewSealer(oneKey{a.Signer}, stamper{a}, time.Now)
	at, err := s.PrepareAttestation(tb.Context(), signing.Profile{Key: "house", Level: level}, content)
	if err != nil {
		tb.Fatal(err)
	}
	value, err := s.Attest(tb.Context(), at)
	if err != nil {
		tb.Fatal(err)
	}
	return value
}

func TestAttestationsHoldForTheirBytesAndTheirTimeOnly(t *testing.T) {
	a, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	content := []byte(`{"form":"test"}`)
	later := time.Now().AddDate(2, 0, 0) // the signer's certificate is over
	for _, c := range []struct {
		name    string
		stamped bool
		content []byte
		root    *pki.Authority
		now     time.Time
		want    verify.Verdict
	}{
		{"as it was made", true, content, a, time.Time{}, verify.Valid},
		{"without a time-stamp", false, content, a, time.Time{}, verify.Valid},
		{"after the certificate ended", true, content, a, later, verify.Valid},
		{"after the certificate ended, without a time-stamp", false, content, a, later, verify.Indeterminate},
		{"other bytes", true, []byte(`{"form":"Test"}`), a, time.Time{}, verify.Invalid},
		{"another root", true, content, other, time.Time{}, verify.Indeterminate},
	} {
		got, err := verify.CheckAttestation(attest(t, a, c.stamped, content), c.content, verify.Options{Roots: []*x509.Certificate{c.root.Root.Certificate}, Now: c.now})
		verdict := verify.Valid
		var bad *verify.AttestationError
		if errors.As(err, &bad) {
			verdict = bad.Verdict
		}
		if verdict != c.want || (err == nil) != (got != nil) || got != nil && got.Stamped != c.stamped {
			t.Errorf("%s: %s, %+v, %v; want %s", c.name, verdict, got, err, c.want)
		}
	}
	s := signing.NewSealer(oneKey{a.Signer}, nil, time.Now)
	if _, err := s.PrepareAttestation(t.Context(), signing.Profile{Key: "house", Level: pades.BB}, []byte("\n%PDF-1.7")); err == nil {
		t.Error("a document can be attested")
	}
}

func FuzzCheckAttestation(f *testing.F) {
	a, err := pki.New(pki.Options{})
	if err != nil {
		f.Fatal(err)
	}
	content := []byte("content")
	good := attest(f, a, true, content)
	f.Add(good)
	for _, mutant := range hostile.Mutants(1, good, 300) {
		f.Add(mutant)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		hostile.Budget(t)
		_, err := verify.CheckAttestation(value, content, verify.Options{Roots: []*x509.Certificate{a.Root.Certificate}})
		if bytes.Equal(value, good) && err != nil {
			t.Errorf("the good one: %v", err)
		}
		if _, err := verify.CheckAttestation(value, []byte("other"), verify.Options{Roots: []*x509.Certificate{a.Root.Certificate}}); err == nil {
			t.Error("it holds for other bytes")
		}
	})
}
