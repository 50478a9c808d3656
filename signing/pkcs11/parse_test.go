package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/signing/chain"
)

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func parsePublic(t *testing.T, der []byte) crypto.PublicKey {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func TestCertificateOfTheKeyIsChosen(t *testing.T) {
	caKey, ca := certify(t, "ca", nil, nil, nil)
	key, _ := certify(t, "key", nil, nil, nil)
	other, _ := certify(t, "other", nil, nil, nil)
	issue := func(name string, public crypto.PublicKey, from, to time.Duration) *x509.Certificate {
		_, c := certify(t, name, ca, caKey, public)
		c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to)
		return c
	}
	expired := issue("expired", key.Public(), -3*time.Hour, -time.Hour)
	current := issue("current", key.Public(), -time.Hour, time.Hour)
	longer := issue("longer", key.Public(), -time.Hour, 2*time.Hour)
	future := issue("future", key.Public(), time.Hour, 9*time.Hour)
	foreign := issue("foreign", other.Public(), -time.Hour, 9*time.Hour)
	spki := current.RawSubjectPublicKeyInfo
	list := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	for _, tc := range []struct {
		name        string
		spki        []byte
		file, token []*x509.Certificate
		want, err   string
	}{
		{"of several the valid one", spki, list(expired, future, current), list(foreign), "current", ""},
		{"of valid ones the longer one", spki, list(current), list(longer), "longer", ""},
		{"an expired one for want of another", spki, list(expired), nil, "expired", ""},
		{"none for this key", spki, list(foreign), list(foreign), "", "the public keys differ"},
		{"first of the file", nil, list(foreign, current), list(longer), "foreign", ""},
		{"nothing to go by", nil, nil, list(longer), "", "as the first of a certificates file"},
	} {
		got, err := chain.For(tc.spki, tc.file, tc.token, time.Now())
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: %v", tc.name, err)
		case tc.err == "" && (err != nil || got[0].Subject.CommonName != tc.want):
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestLoopOfIssuersEnds(t *testing.T) {
	aKey, a := certify(t, "a", nil, nil, nil)
	bKey, b := certify(t, "b", a, aKey, nil)
	_, a2 := certify(t, "a", b, bKey, aKey.Public()) // a cross-certificate back
	a2.IsCA = true
	_, leaf := certify(t, "leaf", b, bKey, aKey.Public())
	got, err := chain.For(leaf.RawSubjectPublicKeyInfo, []*x509.Certificate{leaf, b, a2}, nil, time.Now())
	if err != nil || len(got) > 4 {
		t.Fatal(len(got), err)
	}
}

func TestCertificatesFileNamesWhatIsWrong(t *testing.T) {
	_, c := certify(t, "c", nil, nil, nil)
	for name, tc := range map[string]struct{ text, want string }{
		"a key":          {pemOf(c) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "block 2 is a PRIVATE KEY"},
		"no certificate": {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1"},
		"nothing":        {"", "no certificate"},
		"too many":       {strings.Repeat(pemOf(c), chain.Max+1), "more than"},
	} {
		if _, err := chain.Parse([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPointIsReadInBothForms(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		params, point := pointOf(t, &key.PublicKey)
		bare, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		for name, p := range map[string][]byte{"wrapped": point, "bare": bare} {
			got, err := parsePoint(params, p)
			if err != nil || !got.Equal(&key.PublicKey) {
				t.Errorf("%s %s: %v", curve.Params().Name, name, err)
			}
		}
	}
}

func pointOf(t testing.TB, public *ecdsa.PublicKey) (params, point []byte) {
	t.Helper()
	oids := map[elliptic.Curve]asn1.ObjectIdentifier{
		elliptic.P256(): {1, 2, 840, 10045, 3, 1, 7}, elliptic.P384(): {1, 3, 132, 0, 34}, elliptic.P521(): {1, 3, 132, 0, 35},
	}
	params, err := asn1.Marshal(oids[public.Curve])
	if err != nil {
		t.Fatal(err)
	}
	bare, err := public.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	point, err = asn1.Marshal(bare)
	if err != nil {
		t.Fatal(err)
	}
	return params, point
}

func FuzzParsePoint(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	params, point := pointOf(f, &key.PublicKey)
	f.Add(params, point)
	f.Add(params, point[2:])
	f.Add([]byte{6, 0}, []byte{4, 0})
	f.Fuzz(func(t *testing.T, params, point []byte) {
		hostile.Budget(t)
		if public, err := parsePoint(params, point); err == nil {
			if _, err := x509.MarshalPKIXPublicKey(public); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzParseCertificates(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN X-----\n-----END X-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		hostile.Budget(t)
		all, err := chain.Parse(text)
		if err == nil && (len(all) == 0 || len(all) > chain.Max) {
			t.Fatalf("%d certificates", len(all))
		}
	})
}

// FuzzCheck feeds what an HSM might return to the parser in front of the
// verification.
func FuzzCheck(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	keys := map[scheme]*Key{
		schemeECDSA: {public: key.Public()},
		schemePKCS1: {public: rsaKey.Public()},
		schemePSS:   {public: rsaKey.Public()},
	}
	f.Add(make([]byte, 64))
	f.Add([]byte{1})
	f.Add(make([]byte, 256))
	f.Fuzz(func(t *testing.T, raw []byte) {
		hostile.Budget(t)
		for s, key := range keys {
			if _, err := key.check(request{Scheme: s, Salt: 32}, digest[:], raw, crypto.SHA256); err == nil {
				t.Fatalf("%d: forged", s)
			}
		}
	})
}

func TestARequestComesAsItWasSent(t *testing.T) {
	key := sha256.Sum256([]byte("key"))
	for _, r := range []request{
		{Key: key[:]},
		{Key: key[:], Scheme: schemePKCS1},
		{Key: key[:], Scheme: schemeECDSA},
		{Key: key[:], Scheme: schemePSS, Hash: uint(crypto.SHA512), Salt: 1982}, // all that RSA of 16,384 bits has room for
	} {
		b := r.encode()
		if got, err := decodeRequest(b); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v came as %+v (%v)", r, got, err)
		}
		for _, wrong := range [][]byte{nil, b[1:], append(b, 0)} {
			if got, err := decodeRequest(wrong); err == nil {
				t.Errorf("%x is taken for %+v", wrong, got)
			}
		}
	}
}
