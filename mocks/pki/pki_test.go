package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// serve starts an authority whose certificates name the address that it is served at.
func serve(t *testing.T, o Options) *Authority {
	t.Helper()
	var a *Authority
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	o.BaseURL = server.URL
	var err error
	if a, err = New(o); err != nil {
		t.Fatal(err)
	}
	return a
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is missing: install the Debian package openssl")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func post(t *testing.T, url, contentType string, body []byte) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.Post(url, contentType, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, answer
}

func TestOpenSSLAcceptsTheTimeStamp(t *testing.T) {
	for _, algorithm := range []Algorithm{P256, RSA2048} {
		a := serve(t, Options{Algorithm: algorithm})
		root, chain := write(t, "root.pem", a.RootPEM()), write(t, "chain.pem", PEM(a.TSA.Chain()...))
		data := write(t, "data", []byte("some bytes"))
		for _, hash := range []string{"-sha256", "-sha384", "-sha512"} {
			for _, cert := range []bool{true, false} {
				t.Run(fmt.Sprint(algorithm, hash, " certificate ", cert), func(t *testing.T) {
					query, reply := filepath.Join(t.TempDir(), "q"), filepath.Join(t.TempDir(), "r")
					args := []string{"ts", "-query", "-data", data, hash, "-out", query}
					if cert {
						args = append(args, "-cert")
					}
					openssl(t, args...)
					body, err := os.ReadFile(query)
					if err != nil {
						t.Fatal(err)
					}
					_, answer := post(t, a.URL(PathTSA), "application/timestamp-query", body)
					if err := os.WriteFile(reply, answer, 0o600); err != nil {
						t.Fatal(err)
					}
					text := openssl(t, "ts", "-reply", "-in", reply, "-text")
					for _, want := range []string{"Status: Granted.", "Policy OID: 1.3.6.1.4.1.32473.1.1", "Nonce: 0x", "Accuracy: 0x01 seconds"} {
						if !strings.Contains(text, want) {
							t.Errorf("the reply lacks %q:\n%s", want, text)
						}
					}
					openssl(t, "ts", "-verify", "-queryfile", query, "-in", reply, "-CAfile", root, "-untrusted", chain)
					if got := bytes.Contains(answer, a.TSA.Certificate.Raw); got != cert {
						t.Errorf("certificate in the token: %v, asked for: %v", got, cert)
					}
				})
			}
		}
	}
}

func TestOpenSSLRefusesTheFaultyTimeStamp(t *testing.T) {
	a := serve(t, Options{})
	root := write(t, "root.pem", a.RootPEM())
	data, query := write(t, "data", []byte("some bytes")), filepath.Join(t.TempDir(), "q")
	openssl(t, "ts", "-query", "-data", data, "-sha256", "-cert", "-out", query)
	body, err := os.ReadFile(query)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []Fault{OtherData, WrongNonce, NoNonce, WrongEKU, WrongCertID, BadSignature, Garbage, Rejection, BadAlgorithm, WithoutCertReq} {
		t.Run(string(fault), func(t *testing.T) {
			a.SetFault(ServiceTSA, fault, 1)
			_, answer := post(t, a.URL(PathTSA), "application/timestamp-query", body)
			out, err := exec.Command("openssl", "ts", "-verify", "-queryfile", query, "-in", write(t, "r", answer), "-CAfile", root).CombinedOutput()
			if err == nil {
				t.Errorf("openssl accepts the reply:\n%s", out)
			}
		})
	}
}

func TestMalformedQueriesAreRejected(t *testing.T) {
	a := serve(t, Options{})
	for name, body := range map[string][]byte{"empty": nil, "garbage": []byte("hello"), "truncated": {0x30, 0x10, 0x02, 0x01, 0x01}} {
		t.Run(name, func(t *testing.T) {
			_, answer := post(t, a.URL(PathTSA), "application/timestamp-query", body)
			if text := openssl(t, "ts", "-reply", "-in", write(t, "r", answer), "-text"); !strings.Contains(text, "Status: Rejected.") {
				t.Errorf("not rejected:\n%s", text)
			}
		})
	}
	if resp, _ := post(t, a.URL(PathTSA), "text/plain", nil); resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("wrong content type: %s", resp.Status)
	}
}

func TestChainsVerify(t *testing.T) {
	a := serve(t, Options{})
	for name, id := range map[string]*Identity{"signer": a.Signer, "tsa": a.TSA, "responder": a.Responder} {
		intermediates := x509.NewCertPool()
		for _, c := range id.Chain()[1:] {
			intermediates.AddCert(c)
		}
		o := x509.VerifyOptions{Roots: a.Roots(), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		if _, err := id.Certificate.Verify(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRevocationIsSeenInCRLAndOCSP(t *testing.T) {
	a := serve(t, Options{})
	status := func(cert, issuer *x509.Certificate) *ocsp.Response {
		t.Helper()
		req, err := ocsp.CreateRequest(cert, issuer, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, body := post(t, cert.OCSPServer[0], "application/ocsp-request", req)
		resp, err := ocsp.ParseResponseForCert(body, cert, issuer)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	onList := func(cert, issuer *x509.Certificate) bool {
		t.Helper()
		resp, err := http.Get(cert.CRLDistributionPoints[0])
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		der, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(issuer); err != nil {
			t.Fatal(err)
		}
		for _, e := range list.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return true
			}
		}
		return false
	}
	for _, c := range []struct {
		name         string
		cert, issuer *x509.Certificate
	}{
		{"signer", a.Signer.Certificate, a.Issuing.Certificate},
		{"issuing CA", a.Issuing.Certificate, a.Root.Certificate},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := status(c.cert, c.issuer); got.Status != ocsp.Good || onList(c.cert, c.issuer) {
				t.Fatalf("revoked before Revoke: OCSP status %d", got.Status)
			}
			at := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
			a.Revoke(c.cert, at, ocsp.KeyCompromise)
			got := status(c.cert, c.issuer)
			if got.Status != ocsp.Revoked || !got.RevokedAt.Equal(at) || got.RevocationReason != ocsp.KeyCompromise {
				t.Errorf("OCSP: status %d at %v reason %d", got.Status, got.RevokedAt, got.RevocationReason)
			}
			if !onList(c.cert, c.issuer) {
				t.Error("not on the CRL")
			}
		})
	}
}

func TestAForeignKeyGetsASignerCertificate(t *testing.T) {
	a := serve(t, Options{})
	other, err := New(Options{Algorithm: RSA2048})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.IssueSigner(other.Signer.Key.Public(), other.Signer.Certificate.Subject)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 2 || chain[0].CheckSignatureFrom(chain[1]) != nil || !bytes.Equal(chain[0].RawSubjectPublicKeyInfo, other.Signer.Certificate.RawSubjectPublicKeyInfo) {
		t.Errorf("chain of %d certificates does not carry the key", len(chain))
	}
}

func TestTransportFaultsEndByThemselvesAndAreCounted(t *testing.T) {
	a := serve(t, Options{Hang: time.Millisecond})
	get := func() (*http.Response, error) {
		resp, err := http.Get(a.URL(PathIssuingCRL))
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, err
	}
	a.SetFault(ServiceCRL, Down, 1)
	if resp, err := get(); err == nil {
		t.Errorf("Down answered %s", resp.Status)
	}
	a.SetFault(ServiceCRL, Unavailable, 1)
	if resp, err := get(); err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("Unavailable: %v %v", resp, err)
	}
	a.SetFault(ServiceCRL, Slow, 1)
	if resp, err := get(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("Slow: %v %v", resp, err)
	}
	a.SetFault(ServiceCRL, Endless, -1)
	a.SetFault(ServiceCRL, "", 0)
	if resp, err := get(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("after the faults: %v %v", resp, err)
	}
	if got := a.Requests(ServiceCRL); got != 4 {
		t.Errorf("%d requests counted, want 4", got)
	}
}

func TestTokenFollowsTheInjectedClock(t *testing.T) {
	a := serve(t, Options{})
	at := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	a.SetNow(func() time.Time { return at })
	h := crypto.SHA256.New()
	token, err := a.Token(h.Sum(nil), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(token, []byte("20310506070809Z")) {
		t.Error("genTime is not the injected time")
	}
}
