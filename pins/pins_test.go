package pins_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dealseal/dealseal/pins"
)

// shop is a server with a certificate of a CA that base trusts.
type shop struct {
	*httptest.Server
	leaf, root *x509.Certificate
	served     atomic.Int64
	base       *http.Transport
}

func newShop(t *testing.T, two bool) *shop {
	t.Helper()
	s := &shop{}
	rootKey, leafKey := newKey(t), newKey(t)
	s.root = certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "A CA"}, IsCA: true, BasicConstraintsValid: true}, nil, rootKey, rootKey)
	s.leaf = certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "crm.example"}, IPAddresses: []net.IP{{127, 0, 0, 1}}, DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, s.root, leafKey, rootKey)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.served.Add(1)
		io.WriteString(w, r.Proto)
	}))
	s.EnableHTTP2 = two
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{s.leaf.Raw}, PrivateKey: leafKey}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	s.base = http.DefaultTransport.(*http.Transport).Clone()
	s.base.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	s.base.TLSClientConfig.RootCAs.AddCert(s.root)
	t.Cleanup(s.base.CloseIdleConnections)
	return s
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certify(t *testing.T, c, by *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func get(tr http.RoundTripper, url string) (string, error) {
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

var stranger = pins.Pin{1, 2, 3}

func TestAServerWithoutAPinnedKeyIsToldNothing(t *testing.T) {
	t.Parallel()
	for proto, two := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		s := newShop(t, two)
		for name, c := range map[string]struct {
			pins pins.Set
			ok   bool
		}{
			"its own key":              {pins.Set{pins.Of(s.leaf)}, true},
			"its CA's key":             {pins.Set{pins.Of(s.root)}, true},
			"one of two":               {pins.Set{stranger, pins.Of(s.leaf)}, true},
			"another key":              {pins.Set{stranger}, false},
			"its certificate's digest": {pins.Set{sha256.Sum256(s.leaf.Raw)}, false},
		} {
			tr := pins.NewTransport(s.base, "crm.pins in acme.yaml", map[string]pins.Set{"127.0.0.1": c.pins})
			before := s.served.Load()
			got, err := get(tr, s.URL)
			tr.CloseIdleConnections()
			var mismatch *pins.MismatchError
			switch {
			case c.ok && (err != nil || got != proto):
				t.Errorf("%s, %s: %q, %v", proto, name, got, err)
			case !c.ok && (!errors.As(err, &mismatch) || s.served.Load() != before):
				t.Errorf("%s, %s: %q, %v, and it was asked %d times", proto, name, got, err, s.served.Load()-before)
			case !c.ok:
				for _, says := range []string{"127.0.0.1 has none", pins.Of(s.leaf).String() + ` ("crm.example")`, pins.Of(s.root).String() + ` ("A CA")`, "crm.pins in acme.yaml", "between"} {
					if !strings.Contains(err.Error(), says) {
						t.Errorf("%v does not say %q", err, says)
					}
				}
			}
		}
	}
}

// TestAPinOfAnUntrustedServerIsWorthNothing: pins come beside the check of the chain, and not in its place.
func TestAPinOfAnUntrustedServerIsWorthNothing(t *testing.T) {
	t.Parallel()
	s, other := newShop(t, false), newShop(t, false)
	tr := pins.NewTransport(other.base, "x", map[string]pins.Set{"127.0.0.1": {pins.Of(s.leaf), pins.Of(s.root)}})
	var unknown x509.UnknownAuthorityError
	if _, err := get(tr, s.URL); !errors.As(err, &unknown) || s.served.Load() != 0 {
		t.Errorf("%v", err)
	}
}

// TestOtherPinsCountFromTheNextCallOn, also where a connection is open and a session could be taken up again.
func TestOtherPinsCountFromTheNextCallOn(t *testing.T) {
	t.Parallel()
	for proto, two := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		s := newShop(t, two)
		tr := pins.NewTransport(s.base, "x", nil)
		defer tr.CloseIdleConnections()
		for i, c := range []struct {
			pins map[string]pins.Set
			ok   bool
		}{
			{nil, true}, {map[string]pins.Set{"127.0.0.1": {stranger}}, false}, {map[string]pins.Set{"127.0.0.1": {pins.Of(s.leaf)}}, true}, {map[string]pins.Set{"127.0.0.1": {pins.Of(s.leaf)}, "b": {stranger}}, true},
			{map[string]pins.Set{"127.0.0.1": {stranger}}, false}, {map[string]pins.Set{"other.example": {stranger}}, true}, {map[string]pins.Set{"127.0.0.1": {}}, true},
		} {
			tr.Set(c.pins)
			before := s.served.Load()
			if _, err := get(tr, s.URL); (err == nil) != c.ok || s.served.Load() != before && !c.ok {
				t.Errorf("%s, %d: %v", proto, i, err)
			}
		}
	}
}

// TestNoRedirectLeadsPastPins, to another host or another spelling of its name.
func TestNoRedirectLeadsPastPins(t *testing.T) {
	t.Parallel()
	s := newShop(t, false)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.URL.Path == "/away" {
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusTemporaryRedirect)
		}
	})
	tr := pins.NewTransport(s.base, "x", map[string]pins.Set{"LocalHost": {stranger}})
	defer tr.CloseIdleConnections()
	for _, name := range []string{"localhost", "LOCALHOST"} {
		asked = 0
		var mismatch *pins.MismatchError
		if _, err := get(tr, s.URL+"/away?to=https://"+name+":"+port+"/"); !errors.As(err, &mismatch) || asked != 1 {
			t.Errorf("%s: %v, and it was asked %d times", name, err, asked)
		}
	}
}

func TestAPinnedHostIsNotCalledWithoutTLS(t *testing.T) {
	t.Parallel()
	asked := false
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer plain.Close()
	tr := pins.NewTransport(http.DefaultTransport.(*http.Transport).Clone(), "signing.tsa", map[string]pins.Set{"127.0.0.1": {stranger}})
	if _, err := get(tr, plain.URL); err == nil || !strings.Contains(err.Error(), "use https") || asked {
		t.Errorf("%v", err)
	}
}

func TestAPinIsReadToTheLetter(t *testing.T) {
	t.Parallel()
	// The example of RFC 7469, section 2.1.1.
	const example = "sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="
	p, err := pins.Parse(example)
	if err != nil || p.String() != example {
		t.Errorf("%v, %v", p, err)
	}
	for _, text := range []string{"", "sha256/", "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=", "sha1/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=", "sha256//d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=",
		strings.TrimSuffix(example, "="), example + "=", example[:20], "sha256/" + base64.RawURLEncoding.EncodeToString(make([]byte, 32)), example[:30] + "\n" + example[30:]} {
		if _, err := pins.Parse(text); err == nil || !strings.Contains(err.Error(), "such as sha256/") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=")
	f.Add("sha256/")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := pins.Parse(text); err == nil && p.String() != text {
			t.Errorf("%q is read as %s", text, p)
		}
	})
}
