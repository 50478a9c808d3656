package signing

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// roll is a ring that knows which certificates were revoked, and opens keys that have no certificate for new seals.
type roll struct {
	ring
	bare    map[string]Key
	revoked map[string]bool // by serial number
	beside  []*x509.Certificate
	past    string // the SHA-256 of a public key that another one has followed
}

var _ Registry = (*roll)(nil)

func (r *roll) Beside(string) []*x509.Certificate { return r.beside }

func (r *roll) HasSealed(_, spki string) bool { return spki == r.past }

func (r *roll) MayFinish(name string, cert *x509.Certificate) error {
	if r.revoked[cert.SerialNumber.String()] {
		return &KeyError{Key: name, Revoked: true, Reason: "its certificate was revoked"}
	}
	return nil
}

func (r *roll) OpenFor(_ context.Context, name string, chain []*x509.Certificate) (Key, error) {
	if err := r.MayFinish(name, chain[0]); err != nil {
		return nil, err
	}
	return WithChain(r.bare[name], chain), nil
}

func TestWhatWasStagedIsFinishedWithItsOwnCertificateAndNoRevokedOne(t *testing.T) {
	signer := newEC(elliptic.P256())
	old := newKey(signer, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) })
	r := &roll{ring: ring{keys: map[string]Key{"house": old}}, bare: map[string]Key{"house": &softKey{Signer: signer}}, revoked: map[string]bool{}}
	s := NewSealer(r, &fakeTSA{}, clock)
	p := profile()
	p.Level = pades.BT
	ticket := mustPrepare(t, s, p)

	// A key that has no certificate for new seals finishes what was staged with it.
	delete(r.keys, "house")
	if _, err := s.Prepare(t.Context(), document(), Request{Profile: p}); err == nil {
		t.Error("something new was staged")
	}
	value, err := s.Redeem(t.Context(), ticket)
	if err != nil {
		t.Fatal(err)
	}

	r.revoked["7"] = true
	for what, err := range map[string]error{"redeem": second(s.Redeem(t.Context(), ticket)), "time-stamp": second(s.Timestamp(t.Context(), ticket, value))} {
		if !IsRevoked(err) || !isPermanent(err) || !IsUnusable(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The renewed certificate of the same key is no cure for what names the old one, nor is another key.
	r.revoked = map[string]bool{}
	r.bare["house"] = &softKey{Signer: newEC(elliptic.P256())}
	_, err = s.Redeem(t.Context(), ticket)
	var refused *KeyError
	if !errors.As(err, &refused) || refused.Unusable() || !strings.Contains(err.Error(), "changed since the seal was staged") {
		t.Errorf("with another key: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAKeyWithAnotherChainIsStoppedAsTheKeyItself(t *testing.T) {
	signer := newEC(elliptic.P256())
	plain := newKey(signer, nil)
	renewed := newKey(signer, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(8) })
	k := WithChain(plain, renewed.Chain())
	if k.Chain()[0].SerialNumber.Int64() != 8 || CheckKey("house", k, now) != nil {
		t.Error("it does not have the other chain")
	}
	if _, ok := k.(ContextSigner); ok {
		t.Error("it claims that it can be stopped")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if k, ok := WithChain(contextKey{plain, make(chan error, 1)}, renewed.Chain()).(ContextSigner); !ok {
		t.Error("it cannot be stopped any more")
	} else if _, err := k.SignContext(ctx, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped: %v", err)
	}
}

func TestAKeyIsThatWhichItsNameStandsForOrHasStoodFor(t *testing.T) {
	key := newKey(newEC(elliptic.P256()), nil)
	own := hex.EncodeToString(digest(key.Chain()[0].RawSubjectPublicKeyInfo))
	r := &roll{ring: ring{keys: map[string]Key{"house": key}}, past: "past"}
	s := NewSealer(r, nil, clock)
	for spki, want := range map[string]bool{own: true, "past": true, "other": false} {
		if is, err := s.IsKey(t.Context(), "house", spki); err != nil || is != want {
			t.Errorf("%s: %t, %v", spki, is, err)
		}
	}
}

// turncoat is a key whose certificate is revoked while it signs.
type turncoat struct {
	*softKey
	revoke func()
}

func (k turncoat) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	defer k.revoke()
	return k.softKey.Sign(random, digest, opts)
}

func TestAManifestIsNeitherSignedNorTimeStampedWithARevokedCertificate(t *testing.T) {
	signer := newEC(elliptic.P256())
	key := newKey(signer, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) })
	r := &roll{ring: ring{keys: map[string]Key{"house": key}}, bare: map[string]Key{"house": key}, revoked: map[string]bool{}}
	tsa := &fakeTSA{}
	s := NewSealer(r, tsa, clock)
	p := profile()
	p.Level = pades.BT
	a, err := s.PrepareAttestation(t.Context(), p, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}

	r.revoked["7"] = true
	if _, err := s.Attest(t.Context(), a); !IsRevoked(err) || len(key.signed) != 0 {
		t.Errorf("revoked before: %d signatures, %v", len(key.signed), err)
	}
	r.revoked = map[string]bool{}
	r.bare["house"] = turncoat{key, func() { r.revoked["7"] = true }}
	if _, err := s.Attest(t.Context(), a); !IsRevoked(err) || tsa.digest != nil {
		t.Errorf("revoked while the key signs: a time-stamp over %x, %v", tsa.digest, err)
	}

	// A certificate that is no longer the one for new seals is good for what names it.
	r.revoked, r.bare["house"] = map[string]bool{}, &softKey{Signer: signer}
	delete(r.keys, "house")
	if _, err := s.Attest(t.Context(), a); err != nil {
		t.Error(err)
	}
}
