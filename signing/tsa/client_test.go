package tsa_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/tsa"
)

var _ signing.Timestamper = (*tsa.Client)(nil)

func newAuthority(t *testing.T, o pki.Options) *pki.Authority {
	t.Helper()
	var a *pki.Authority
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	o.BaseURL = s.URL
	var err error
	if a, err = pki.New(o); err != nil {
		t.Fatal(err)
	}
	return a
}

func newClient(t *testing.T, o tsa.Options, servers ...tsa.Server) *tsa.Client {
	t.Helper()
	c, err := tsa.NewClient(servers, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func digestOf(h crypto.Hash) []byte {
	d := h.New()
	d.Write([]byte("a signature value"))
	return d.Sum(nil)
}

func TestTokenIsAcceptedByOpenSSL(t *testing.T) {
	for _, algorithm := range []pki.Algorithm{pki.P256, pki.RSA2048} {
		a := newAuthority(t, pki.Options{Algorithm: algorithm})
		c := newClient(t, tsa.Options{Roots: a.Roots()}, tsa.Server{URL: a.URL(pki.PathTSA), Policy: pki.Policy})
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			t.Run(string(algorithm)+" "+h.String(), func(t *testing.T) {
				token, err := c.Timestamp(t.Context(), digestOf(h), h)
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := tsa.Verify(token, digestOf(h), h, tsa.VerifyOptions{Roots: a.Roots()})
				if err != nil {
					t.Fatal(err)
				}
				if !parsed.Certificate.Equal(a.TSA.Certificate) || parsed.Accuracy != time.Second || !parsed.Policy.Equal(pki.Policy) {
					t.Errorf("parsed token: certificate %q, accuracy %v, policy %v", parsed.Certificate.Subject, parsed.Accuracy, parsed.Policy)
				}
				opensslVerify(t, a, token, h)
			})
		}
	}
}

func opensslVerify(t *testing.T, a *pki.Authority, token []byte, h crypto.Hash) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing: install the Debian package openssl")
	}
	dir := t.TempDir()
	files := map[string][]byte{"token": token, "root.pem": a.RootPEM(), "data": []byte("a signature value")}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "ts", "-verify", "-token_in", "-in", "token", "-data", "data", "-CAfile", "root.pem")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl ts -verify (%v): %v\n%s", h, err, out)
	}
}

func TestBadTokensAreRefusedWithTheirCode(t *testing.T) {
	a := newAuthority(t, pki.Options{})
	c := newClient(t, tsa.Options{Roots: a.Roots()}, tsa.Server{URL: a.URL(pki.PathTSA)})
	for fault, want := range map[pki.Fault]tsa.Code{
		pki.Garbage:        tsa.CodeFormat,
		pki.OtherData:      tsa.CodeImprint,
		pki.WrongNonce:     tsa.CodeNonce,
		pki.NoNonce:        tsa.CodeNonce,
		pki.ClockOff:       tsa.CodeTime,
		pki.WrongEKU:       tsa.CodePurpose,
		pki.WrongCertID:    tsa.CodeSignature,
		pki.BadSignature:   tsa.CodeSignature,
		pki.WithoutCertReq: tsa.CodeChain,
	} {
		t.Run(string(fault), func(t *testing.T) {
			a.SetFault(pki.ServiceTSA, fault, 1)
			token, err := c.Timestamp(t.Context(), digestOf(crypto.SHA256), crypto.SHA256)
			var bad *tsa.TokenError
			if !errors.As(err, &bad) || bad.Code != want || token != nil {
				t.Fatalf("got %v, want a TokenError of code %q and no token", err, want)
			}
			var failed *tsa.Error
			if !errors.As(err, &failed) || failed.Permanent() {
				t.Errorf("a bad token must be worth another try: %v", err)
			}
		})
	}
}

func TestTokenOfAStrangerIsRefused(t *testing.T) {
	a, stranger := newAuthority(t, pki.Options{}), newAuthority(t, pki.Options{Organisation: "Stranger"})
	c := newClient(t, tsa.Options{Roots: a.Roots()}, tsa.Server{URL: stranger.URL(pki.PathTSA)})
	_, err := c.Timestamp(t.Context(), digestOf(crypto.SHA256), crypto.SHA256)
	var bad *tsa.TokenError
	if !errors.As(err, &bad) || bad.Code != tsa.CodeChain {
		t.Fatalf("got %v", err)
	}
}

func TestTokenOfAnotherPolicyIsRefused(t *testing.T) {
	a := newAuthority(t, pki.Options{})
	digest := digestOf(crypto.SHA256)
	token, err := a.Token(digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tsa.Verify(token, digest, crypto.SHA256, tsa.VerifyOptions{Roots: a.Roots(), Policy: asn1.ObjectIdentifier{1, 2, 3}})
	var bad *tsa.TokenError
	if !errors.As(err, &bad) || bad.Code != tsa.CodePolicy {
		t.Fatalf("got %v", err)
	}
}

func TestNextServerIsAskedWhenOneFails(t *testing.T) {
	for _, fault := range []pki.Fault{pki.Down, pki.Unavailable, pki.Slow, pki.Garbage, pki.Endless, pki.OtherType, pki.Rejection, pki.OtherData} {
		t.Run(string(fault), func(t *testing.T) {
			first, second := newAuthority(t, pki.Options{}), newAuthority(t, pki.Options{})
			roots := first.Roots()
			roots.AddCert(second.Root.Certificate)
			timeout := time.Minute
			if fault == pki.Slow {
				timeout = time.Second
			}
			c := newClient(t, tsa.Options{Roots: roots}, tsa.Server{URL: first.URL(pki.PathTSA), Timeout: timeout}, tsa.Server{URL: second.URL(pki.PathTSA)})
			first.SetFault(pki.ServiceTSA, fault, -1)
			token, err := c.Timestamp(t.Context(), digestOf(crypto.SHA256), crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := tsa.ParseToken(token)
			if err != nil {
				t.Fatal(err)
			}
			if !parsed.Certificate.Equal(second.TSA.Certificate) {
				t.Error("the token is not the second server's")
			}
			if diff := cmp.Diff([]int{1, 1}, []int{first.Requests(pki.ServiceTSA), second.Requests(pki.ServiceTSA)}); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorTellsWhetherToTryAgain(t *testing.T) {
	for _, c := range []struct {
		first, second pki.Fault
		permanent     bool
		after         time.Duration
	}{
		{pki.Unavailable, pki.Unavailable, false, 7 * time.Second},
		{pki.Unavailable, pki.Down, false, 0},
		{pki.Rejection, pki.Rejection, false, 0},
		{pki.BadAlgorithm, pki.BadAlgorithm, true, 0},
		{pki.BadAlgorithm, pki.Unavailable, false, 0},
	} {
		t.Run(string(c.first)+" and "+string(c.second), func(t *testing.T) {
			first, second := newAuthority(t, pki.Options{}), newAuthority(t, pki.Options{})
			first.SetFault(pki.ServiceTSA, c.first, -1)
			second.SetFault(pki.ServiceTSA, c.second, -1)
			client := newClient(t, tsa.Options{Roots: first.Roots()}, tsa.Server{URL: first.URL(pki.PathTSA)}, tsa.Server{URL: second.URL(pki.PathTSA)})
			_, err := client.Timestamp(t.Context(), digestOf(crypto.SHA256), crypto.SHA256)
			var failed *tsa.Error
			if !errors.As(err, &failed) {
				t.Fatalf("got %v", err)
			}
			if failed.Permanent() != c.permanent || failed.RetryAfter() != c.after || len(failed.Servers) != 2 {
				t.Errorf("permanent %v, after %v: %v", failed.Permanent(), failed.RetryAfter(), failed)
			}
		})
	}
}

func TestCancelledContextEndsTheRound(t *testing.T) {
	first, second := newAuthority(t, pki.Options{}), newAuthority(t, pki.Options{})
	first.SetFault(pki.ServiceTSA, pki.Slow, -1)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c := newClient(t, tsa.Options{Roots: first.Roots()}, tsa.Server{URL: first.URL(pki.PathTSA)}, tsa.Server{URL: second.URL(pki.PathTSA)})
	_, err := c.Timestamp(ctx, digestOf(crypto.SHA256), crypto.SHA256)
	var failed *tsa.Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &failed) || failed.Permanent() {
		t.Errorf("got %v", err)
	}
	if second.Requests(pki.ServiceTSA) != 0 {
		t.Error("the second server was asked after the end")
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	a := newAuthority(t, pki.Options{})
	s := httptest.NewServer(http.RedirectHandler(a.URL(pki.PathTSA), http.StatusTemporaryRedirect))
	defer s.Close()
	c := newClient(t, tsa.Options{Roots: a.Roots()}, tsa.Server{URL: s.URL})
	if _, err := c.Timestamp(t.Context(), digestOf(crypto.SHA256), crypto.SHA256); err == nil || !strings.Contains(err.Error(), "HTTP status 307") {
		t.Errorf("got %v", err)
	}
	if a.Requests(pki.ServiceTSA) != 0 {
		t.Error("the redirect was followed")
	}
}

func TestQueryOfTheAddressStaysOutOfErrors(t *testing.T) {
	a := newAuthority(t, pki.Options{})
	a.SetFault(pki.ServiceTSA, pki.Down, -1)
	c := newClient(t, tsa.Options{Roots: a.Roots()}, tsa.Server{URL: a.URL(pki.PathTSA) + "?apikey=hush"})
	_, err := c.Timestamp(t.Context(), digestOf(crypto.SHA256), crypto.SHA256)
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}

func TestClientRefusesWhatCannotWork(t *testing.T) {
	roots := x509.NewCertPool()
	for name, c := range map[string]struct {
		servers []tsa.Server
		roots   *x509.CertPool
		want    string
	}{
		"no server":     {nil, roots, "no server"},
		"no roots":      {[]tsa.Server{{URL: "http://tsa.example"}}, nil, "no trusted roots"},
		"ftp":           {[]tsa.Server{{URL: "ftp://tsa.example"}}, roots, "server 1: the url"},
		"relative":      {[]tsa.Server{{URL: "http://tsa.example"}, {URL: "tsa"}}, roots, "server 2: the url"},
		"with password": {[]tsa.Server{{URL: "http://me:hush@tsa.example"}}, roots, "must not hold"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tsa.NewClient(c.servers, tsa.Options{Roots: c.roots})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	client := newClient(t, tsa.Options{Roots: roots}, tsa.Server{URL: "http://tsa.invalid"})
	sum := sha256.Sum256(nil)
	for name, call := range map[string]func() ([]byte, error){
		"SHA-1":        func() ([]byte, error) { return client.Timestamp(t.Context(), make([]byte, 20), crypto.SHA1) },
		"wrong length": func() ([]byte, error) { return client.Timestamp(t.Context(), sum[:31], crypto.SHA256) },
	} {
		_, err := call()
		var p interface{ Permanent() bool }
		if !errors.As(err, &p) || !p.Permanent() {
			t.Errorf("%s: got %v, want a permanent error", name, err)
		}
	}
}

func TestCertificateMustBeForTimeStampingAlone(t *testing.T) {
	timeStamping := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	purposes := func(critical bool, oids ...asn1.ObjectIdentifier) []pkix.Extension {
		value, err := asn1.Marshal(oids)
		if err != nil {
			t.Fatal(err)
		}
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value}}
	}
	a := newAuthority(t, pki.Options{})
	for name, c := range map[string]struct {
		usage      x509.KeyUsage
		extensions []pkix.Extension
		ok         bool
	}{
		"as it should be":         {x509.KeyUsageDigitalSignature, purposes(true, timeStamping), true},
		"no key usage":            {0, purposes(true, timeStamping), true},
		"not critical":            {x509.KeyUsageDigitalSignature, purposes(false, timeStamping), false},
		"for code as well":        {x509.KeyUsageDigitalSignature, purposes(true, timeStamping, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}), false},
		"for something unknown":   {x509.KeyUsageDigitalSignature, purposes(true, timeStamping, asn1.ObjectIdentifier{1, 2, 3}), false},
		"without purpose":         {x509.KeyUsageDigitalSignature, nil, false},
		"key for encryption":      {x509.KeyUsageKeyEncipherment, purposes(true, timeStamping), false},
		"key for non-repudiation": {x509.KeyUsageContentCommitment, purposes(true, timeStamping), true},
	} {
		t.Run(name, func(t *testing.T) {
			chain, err := a.IssueLeaf(a.TSA.Key.Public(), &x509.Certificate{
				Subject: a.TSA.Certificate.Subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
				KeyUsage: c.usage, ExtraExtensions: c.extensions,
			})
			if err != nil {
				t.Fatal(err)
			}
			a.TSA.Certificate = chain[0]
			digest := digestOf(crypto.SHA256)
			token, err := a.Token(digest, crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tsa.Verify(token, digest, crypto.SHA256, tsa.VerifyOptions{Roots: a.Roots()})
			var bad *tsa.TokenError
			if c.ok && err != nil || !c.ok && (!errors.As(err, &bad) || bad.Code != tsa.CodePurpose) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnswersAreReadOnlyToTheirLimit(t *testing.T) {
	a := newAuthority(t, pki.Options{})
	a.SetFault(pki.ServiceTSA, pki.Endless, -1)
	c := newClient(t, tsa.Options{Roots: a.Roots()}, tsa.Server{URL: a.URL(pki.PathTSA), Timeout: time.Minute})
	if _, err := c.Timestamp(t.Context(), digestOf(crypto.SHA256), crypto.SHA256); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
}

func TestDigestOfAnotherHashIsOtherData(t *testing.T) {
	a := newAuthority(t, pki.Options{})
	digest := digestOf(crypto.SHA256)
	token, err := a.Token(digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tsa.Verify(token, digest, crypto.SHA512_256, tsa.VerifyOptions{Roots: a.Roots()})
	var bad *tsa.TokenError
	if !errors.As(err, &bad) || bad.Code != tsa.CodeImprint {
		t.Errorf("got %v", err)
	}
}
