package main

import (
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
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/signing"
)

// bareKey is a store with one key, whatever the name.
type bareKey struct{ crypto.Signer }

func (k bareKey) Chain() []*x509.Certificate { return nil }
func (k bareKey) Open(context.Context, string) (signing.Key, error) {
	return nil, errors.New("it has no certificate yet")
}
func (k bareKey) Bare(context.Context, string) (signing.Key, error) { return k, nil }
func (k bareKey) Close() error                                      { return nil }

// onP192 is a certificate of a key on a curve that crypto/x509 does not know.
const onP192 = `-----BEGIN CERTIFICATE-----
MIIBVjCCAQ2gAwIBAgIUd6rV8UHqn+OxJ/W5QzCYYNmHi64wCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFUC0xOTIwIBcNMjYxMjAxMDMxNDA0WhgPMjEyNjExMDcwMzE0
MDRaMBAxDjAMBgNVBAMMBVAtMTkyMEkwEwYHKoZIzj0CAQYIKoZIzj0DAQEDMgAE
wDkFeN4m/f6nN83UfFSyecyY3uIYy7sitvr+g+5BDcD1IRQPqP97NdpVOPYJ8glf
o1MwUTAdBgNVHQ4EFgQUtG2J7Calke411U1AP+Ep9ESKpGowHwYDVR0jBBgwFoAU
tG2J7Calke411U1AP+Ep9ESKpGowDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQD
AgM3ADA0Ahh5n+oX3RPqH55F7DU8kc1P6pO4iaVSW/0CGBUk3w6iM6UEDDegYR1Q
/Xpo+M54LzJ4Ww==
-----END CERTIFICATE-----`

// TestACertificateBelowTheFloorIsNotImported, whichever of its links is weak: the registry has no store, so that one that is
// taken ends the test.
func TestACertificateBelowTheFloorIsNotImported(t *testing.T) {
	t.Parallel()
	now := time.Now()
	curve := func(c elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		must(t, err)
		return key
	}
	short := func(bits int) crypto.Signer {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		must(t, err)
		return key
	}
	root, between := curve(elliptic.P256()), curve(elliptic.P256())
	issue := func(name string, key crypto.Signer, parent *x509.Certificate, by crypto.Signer, ca bool, a x509.SignatureAlgorithm) *x509.Certificate {
		t.Helper()
		template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, SignatureAlgorithm: a}
		if ca {
			template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		must(t, err)
		c, err := x509.ParseCertificate(der)
		must(t, err)
		return c
	}
	anchor := issue("Root", root, nil, root, true, 0)
	good, weak := short(2048), short(1024)
	authority := func(key crypto.Signer, a x509.SignatureAlgorithm) *x509.Certificate {
		return issue("Between", key, anchor, root, true, a)
	}
	block, _ := pem.Decode([]byte(onP192))
	for name, c := range map[string]struct {
		key   crypto.Signer
		chain [][]byte
		min   int // bits of RSA that the profile asks for
		says  string
	}{
		"RSA of 1024 bits": {key: weak, chain: [][]byte{issue("Weak", weak, anchor, root, false, 0).Raw}, says: "RSA needs 2048 at least"},
		"RSA of 1024 bits above it": {key: good, chain: [][]byte{issue("Good", good, authority(weak, 0), weak, false, 0).Raw, authority(weak, 0).Raw},
			says: "weak"},
		"P-224":             {key: curve(elliptic.P224()), says: "use P-256, P-384 or P-521"},
		"P-192":             {key: good, chain: [][]byte{block.Bytes}, says: "unsupported elliptic curve"},
		"SHA-1":             {key: good, chain: [][]byte{issue("Old", good, anchor, root, false, x509.ECDSAWithSHA1).Raw}, says: "SHA1"},
		"SHA-1 above it":    {key: good, chain: [][]byte{issue("Good", good, authority(between, x509.ECDSAWithSHA1), between, false, 0).Raw, authority(between, x509.ECDSAWithSHA1).Raw}, says: "SHA1"},
		"a profile's floor": {key: good, chain: [][]byte{issue("Good", good, anchor, root, false, 0).Raw}, min: 3072, says: `profile "order" cannot seal with it`},
	} {
		if c.chain == nil {
			c.chain = [][]byte{issue("Weak", c.key, anchor, root, false, 0).Raw}
		}
		h := &house{cfg: &config.Config{}}
		h.cfg.Signing.Profiles = map[string]config.Profile{"order": {Key: "house", Level: "B-B", OnDowngrade: "hold", MinRSA: c.min}}
		r := &registry{keys: bareKey{c.key}, house: h, roots: []*x509.Certificate{anchor}, now: func() time.Time { return now }}
		if _, err := r.imported(t.Context(), certChange{Verb: "import", Key: "house", Chain: c.chain, Who: "anna"}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if chain := []*x509.Certificate{issue("Good", good, authority(between, 0), between, false, 0), authority(between, 0)}; c.min == 0 {
			if err := r.judge("house", bareKey{good}, chain, now); err != nil { // the same in strong
				t.Errorf("beside %s: %v", name, err)
			}
		}
	}
}
