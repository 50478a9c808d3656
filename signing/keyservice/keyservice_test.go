package keyservice_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/keyservice/awskms"
	"github.com/dealseal/dealseal/signing/keyservice/vault"
	"github.com/dealseal/dealseal/signing/pades"
)

// services are all that there are; each passes the same tests.
var services = map[string]service{
	"vault": {rotates: true, redirects: true, anyHash: true, new: func(t *testing.T, store *kms.Store, name string, version int) keyservice.Service {
		token, _ := tokenFile(t, kms.Token)
		s, err := vault.New(vault.Config{Address: serveVault(t, store), Key: name, Version: version, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}},
	"google": {rotates: true, redirects: true, fixed: true, new: func(t *testing.T, store *kms.Store, _ string, version int) keyservice.Service {
		s, _ := newGoogle(t, store, version, false)
		return s
	}},
	"azure": {rotates: true, redirects: true, new: func(t *testing.T, store *kms.Store, _ string, version int) keyservice.Service {
		s, _ := newAzure(t, store, version)
		return s
	}},
	"aws": {redirects: true, new: func(t *testing.T, store *kms.Store, _ string, _ int) keyservice.Service {
		credentials, _ := tokenFile(t, awsCredentials(kms.Token))
		s, err := awskms.New(awskms.Config{Region: "eu-central-1", Key: kms.AWSKeyID, Credentials: credentials, Endpoint: serveAWS(t, store)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}},
}

type service struct {
	// new is a client for a version of a key.
	new func(t *testing.T, store *kms.Store, name string, version int) keyservice.Service
	// rotates says that a key has versions, redirects that an HTTP redirection is an answer to the client, anyHash that the
	// hash need not be the one of the curve.
	rotates, redirects, anyHash bool
	// fixed says that the scheme of a key is fixed, and that there is no P-521.
	fixed bool
}

func everyService(t *testing.T, do func(t *testing.T, s service)) {
	for name, s := range services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, s)
		})
	}
}

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newP256() *ecdsa.PrivateKey { return newEC(elliptic.P256()) }

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// certify writes a certificate for public.
func certify(t *testing.T, public crypto.PublicKey) (file string) {
	t.Helper()
	issuer := newP256()
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "seal"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, public, issuer)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "seal.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// house is one key "house" at a service, and its certificate.
type house struct {
	store *kms.Store
	keys  *keyservice.Keys
	key   crypto.Signer
}

func newHouse(t *testing.T, s service, key crypto.Signer, timeout time.Duration) *house {
	t.Helper()
	h := &house{store: kms.NewStore(), key: key}
	version := h.store.Add("seal", key)
	h.keys = keyservice.New(map[string]keyservice.Config{"house": {Service: s.new(t, h.store, "seal", version), Certificates: certify(t, key.Public()), Timeout: timeout}})
	t.Cleanup(func() { _ = h.keys.Close() })
	return h
}

func (h *house) open(t *testing.T) *keyservice.Key {
	t.Helper()
	key, err := h.keys.Open(t.Context(), "house")
	if err != nil {
		t.Fatal(err)
	}
	return key.(*keyservice.Key)
}

// quickest is a house whose key was opened within the time-out, which grows as long as a busy machine needs more for that.
func quickest(t *testing.T, s service, timeout *time.Duration) (*house, *keyservice.Key) {
	t.Helper()
	for ; ; *timeout *= 4 {
		h := newHouse(t, s, newP256(), *timeout)
		key, err := h.keys.Open(t.Context(), "house")
		if err == nil {
			return h, key.(*keyservice.Key)
		}
		if !errors.Is(err, context.DeadlineExceeded) || *timeout > time.Minute {
			t.Fatal(err)
		}
	}
}

// patient are the same keys for whoever has time.
func (h *house) patient(t *testing.T, s service) *keyservice.Keys {
	t.Helper()
	k := keyservice.New(map[string]keyservice.Config{"house": {Service: s.new(t, h.store, "seal", 1), Certificates: certify(t, h.key.Public()), Timeout: time.Minute}})
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func algorithmsOf(t *testing.T, key crypto.Signer, s service) (all []pades.Algorithm) {
	t.Helper()
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		for _, pss := range []bool{false, true} {
			public, isEC := key.Public().(*ecdsa.PublicKey)
			bits := h.Size() * 8
			if isEC && (pss || bits > public.Params().BitSize || !s.anyHash && (bits != public.Params().BitSize && !(bits == 512 && public.Params().BitSize == 521))) {
				continue
			}
			a, err := pades.AlgorithmFor(key.Public(), h, pss)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, a)
		}
	}
	return all
}

func TestEverySchemeIsSignedOverOurDigest(t *testing.T) {
	everyService(t, func(t *testing.T, s service) {
		for name, key := range map[string]crypto.Signer{"rsa": rsaKey(), "p256": newP256(), "p384": newEC(elliptic.P384()), "p521": newEC(elliptic.P521())} {
			if s.fixed && name == "p521" {
				continue
			}
			h := newHouse(t, s, key, 0)
			opened := h.open(t)
			algorithms := algorithmsOf(t, key, s)
			if s.fixed {
				algorithms = slices.DeleteFunc(algorithms, func(a pades.Algorithm) bool { return a.Scheme == pades.RSAPSS })
			}
			if len(algorithms) == 0 {
				t.Fatalf("%s: nothing was tried", name)
			}
			for _, a := range algorithms {
				d := a.Hash.New()
				fmt.Fprint(d, name, a)
				digest := d.Sum(nil)
				value, err := opened.SignContext(t.Context(), digest, a.SignerOpts())
				if err != nil {
					t.Errorf("%s %s: %v", name, a, err)
					continue
				}
				if err := a.Verify(key.Public(), digest, value); err != nil {
					t.Errorf("%s %s: %v", name, a, err)
				}
				if signed := h.store.Signed(); !bytes.Equal(signed[len(signed)-1], digest) {
					t.Errorf("%s %s: the service signed %x", name, a, signed[len(signed)-1])
				}
			}
			if err := opened.Touch(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := len(h.store.Signed()); n != len(algorithms) {
				t.Errorf("%s: %d signatures for %d digests", name, n, len(algorithms))
			}
		}
	})
}

// TestTroubleIsToldApart strikes opening, touching and signing.
func TestTroubleIsToldApart(t *testing.T) {
	everyService(t, func(t *testing.T, s service) {
		digest := make([]byte, 32)
		for fault, want := range map[kms.Fault]struct {
			permanent bool
			usesKey   bool
		}{
			kms.Down: {}, kms.Busy: {}, kms.Garbage: {}, kms.Huge: {}, kms.Hang: {}, kms.Redirect: {},
			kms.Forbidden: {permanent: true}, kms.Disabled: {permanent: true},
			kms.Lost: {usesKey: true}, kms.Damaged: {usesKey: true}, kms.OtherDigest: {usesKey: true}, kms.OtherVersion: {usesKey: true},
		} {
			if fault == kms.Redirect && !s.redirects || fault == kms.OtherVersion && !s.rotates {
				continue
			}
			t.Run(string(fault), func(t *testing.T) {
				t.Parallel()
				timeout := 10 * time.Second
				if fault == kms.Hang {
					timeout = 300 * time.Millisecond
				}
				h, key := quickest(t, s, &timeout)
				h.store.Add("seal", newP256())
				h.store.SetFault(fault, -1)
				tries := map[string]func(context.Context) error{"sign": func(ctx context.Context) error {
					value, err := key.SignContext(ctx, digest, crypto.SHA256)
					if err == nil || value != nil {
						t.Errorf("a value was returned: %x, %v", value, err)
					}
					return err
				}}
				if !want.usesKey {
					tries["touch"] = key.Touch
					tries["open"] = func(ctx context.Context) error {
						c := keyservice.New(map[string]keyservice.Config{"house": {Service: s.new(t, h.store, "seal", 1), Certificates: certify(t, h.key.Public()), Timeout: timeout}})
						_, err := c.Open(ctx, "house")
						return err
					}
				}
				for what, try := range tries {
					calls := len(h.store.Calls())
					err := try(t.Context())
					if err == nil || isPermanent(err) != want.permanent || !strings.Contains(err.Error(), `key "house"`) {
						t.Errorf("%s: %v (permanent: %v)", what, err, isPermanent(err))
					}
					if err != nil && (strings.Contains(err.Error(), kms.Token) || len(err.Error()) > 900) {
						t.Errorf("%s: the error says too much: %v", what, err)
					}
					if fault == kms.Hang && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s: the deadline cannot be told: %v", what, err)
					}
					if n := len(h.store.Calls()) - calls; n != 1 {
						t.Errorf("%s: %d requests, want 1: whoever asked decides on the next", what, n)
					}
				}
				h.store.SetFault("", 0)
				h.keys = h.patient(t, s)
				if value, err := h.open(t).SignContext(t.Context(), digest, crypto.SHA256); err != nil || !ecdsa.VerifyASN1(h.key.Public().(*ecdsa.PublicKey), digest, value) {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	})
}

func TestAServiceThatAsksForTimeGetsIt(t *testing.T) {
	h := newHouse(t, services["vault"], newP256(), 0)
	h.store.SetFault(kms.Busy, -1)
	_, err := h.keys.Open(t.Context(), "house")
	var later interface{ RetryAfter() time.Duration }
	if !errors.As(err, &later) || later.RetryAfter() != 7*time.Second {
		t.Errorf("%v", err)
	}
}

func TestAKeyThatWasReplacedSignsNothing(t *testing.T) {
	everyService(t, func(t *testing.T, s service) {
		h := newHouse(t, s, newP256(), 0)
		key := h.open(t)
		h.store.Replace("seal", 1, newP256())
		if err := key.Touch(t.Context()); !isPermanent(err) || !strings.Contains(err.Error(), "another key") {
			t.Errorf("touched: %v", err)
		}
		if _, err := h.keys.Open(t.Context(), "house"); !isPermanent(err) || !strings.Contains(err.Error(), "the public keys differ") {
			t.Errorf("opened again: %v", err)
		}
		if _, err := key.SignContext(t.Context(), make([]byte, 32), crypto.SHA256); err == nil {
			t.Error("a signature of another key was returned")
		}
		h.store.Remove("seal")
		if _, err := h.keys.Open(t.Context(), "house"); !isPermanent(err) {
			t.Errorf("without the key: %v", err)
		}
	})
}

func TestAKeyThatIsRotatedSignsWithTheVersionOfTheCertificate(t *testing.T) {
	everyService(t, func(t *testing.T, s service) {
		if !s.rotates {
			return
		}
		h := newHouse(t, s, newP256(), 0)
		key := h.open(t)
		h.store.Add("seal", newP256())
		if _, err := key.SignContext(t.Context(), make([]byte, 32), crypto.SHA256); err != nil {
			t.Error(err)
		}
		missing := keyservice.New(map[string]keyservice.Config{"house": {Service: s.new(t, h.store, "seal", 9), Certificates: certify(t, h.key.Public())}})
		if _, err := missing.Open(t.Context(), "house"); !isPermanent(err) || !strings.Contains(err.Error(), "9") {
			t.Errorf("a version that is not there: %v", err)
		}
	})
}

func TestWhatCannotBeSignedIsNotSent(t *testing.T) {
	h := newHouse(t, services["vault"], newP256(), 0)
	key := h.open(t)
	calls := len(h.store.Calls())
	for name, tc := range map[string]struct {
		digest int
		opts   crypto.SignerOpts
	}{
		"no hash":              {32, nil},
		"another length":       {32, crypto.SHA512},
		"longer than the key":  {64, crypto.SHA512},
		"a salt of any length": {32, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthAuto}},
	} {
		if _, err := key.Sign(nil, make([]byte, tc.digest), tc.opts); !isPermanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(h.store.Calls()) - calls; n != 0 {
		t.Errorf("%d requests", n)
	}
	if _, err := h.keys.Open(t.Context(), "unknown"); !isPermanent(err) {
		t.Errorf("an unknown name: %v", err)
	}
	var unusable *signing.KeyError
	broken := keyservice.New(map[string]keyservice.Config{"house": {Certificates: "/nonexistent"}})
	if _, err := broken.Open(t.Context(), "house"); !errors.As(err, &unusable) {
		t.Errorf("without a file of certificates: %v", err)
	}
}
