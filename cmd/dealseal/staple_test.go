package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing/revocation"
)

// stapled is a public listener whose CA has an OCSP responder.
type stapled struct {
	*outside
	ca   *pki.Authority
	leaf *x509.Certificate
}

func newStapled(t *testing.T) *stapled {
	t.Helper()
	s := &stapled{outside: newOutside(t, "1.3", certPool(issue(t, nil, "their root")))}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ca.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	var err error
	s.ca, err = pki.New(pki.Options{BaseURL: server.URL, Organisation: "Listener CA"})
	must(t, err)
	s.renewLeaf()
	return s
}

// renewLeaf puts a new certificate of the CA in the place of the listener's.
func (s *stapled) renewLeaf() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.t, err)
	chain, err := s.ca.IssueLeaf(key.Public(), &x509.Certificate{Subject: pkix.Name{CommonName: publicHost}, DNSNames: []string{publicHost},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	must(s.t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(s.t, err)
	s.leaf = chain[0]
	s.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	s.write("chain.pem", pki.PEM(chain...))
}

// sent connects, and returns what is shown and the OCSP response that is sent along.
func (s *stapled) sent() (*x509.Certificate, []byte) {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.service.public.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // which CA's it is changes on the way
	must(s.t, err)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], c.ConnectionState().OCSPResponse
}

func (s *stapled) shows(leaf *x509.Certificate, staple bool) {
	s.t.Helper()
	eventually(s.t, "the certificate is shown", func() (bool, string) {
		shown, der := s.sent()
		if !shown.Equal(leaf) {
			return false, "another certificate is"
		}
		if (der != nil) != staple {
			return false, "an OCSP response is sent along, or none is"
		}
		if staple {
			if r, err := ocsp.ParseResponseForCert(der, leaf, s.ca.Issuing.Certificate); err != nil || r.Status != ocsp.Good {
				s.t.Errorf("the OCSP response says %+v, %v", r, err)
			}
		}
		return true, ""
	})
}

func TestAListenerSendsAlongWhatItsCASaysOfItsCertificate(t *testing.T) {
	t.Parallel()
	s := newStapled(t)
	log := &strings.Builder{}
	k := &stapler{certificate: s.service.certificate, client: revocation.NewClient(revocation.Options{}), log: slog.New(slog.NewTextHandler(log, nil))}
	s.shows(s.leaf, false)

	s.ca.SetFault(pki.ServiceOCSP, pki.Unavailable, 2)
	for _, want := range []time.Duration{stapleSoonest, 2 * stapleSoonest} {
		if wait := k.renew(t.Context()); wait != want {
			t.Errorf("after a failure it waits %s, not %s", wait, want)
		}
	}
	s.shows(s.leaf, false)
	if !strings.Contains(log.String(), "gets no fresh OCSP response") {
		t.Errorf("the log says %q", log)
	}
	if wait := k.renew(t.Context()); wait < stapleSoonest || wait > stapleLatest {
		t.Errorf("after an answer it waits %s", wait)
	}
	s.shows(s.leaf, true)

	s.ca.SetFault(pki.ServiceOCSP, pki.Garbage, 1)
	k.renew(t.Context())
	s.shows(s.leaf, true)
	s.ca.Revoke(s.leaf, time.Now().Add(-time.Minute), 1)
	k.renew(t.Context())
	s.shows(s.leaf, false)
	if !strings.Contains(log.String(), "was revoked") {
		t.Errorf("the log says %q", log)
	}
}

func TestAnOCSPResponseIsNotSentOnceItIsOver(t *testing.T) {
	t.Parallel()
	s := newStapled(t)
	s.shows(s.leaf, false)
	pair, err := s.service.certificate.get(nil)
	must(t, err)
	fresh, err := fetchStaple(t.Context(), revocation.NewClient(revocation.Options{}), pair)
	must(t, err)
	s.service.certificate.attach(pair, fresh)
	s.shows(s.leaf, true)
	fresh.until = time.Now().Add(-time.Second)
	s.service.certificate.attach(pair, fresh)
	s.shows(s.leaf, false)
}

func TestTheCAIsAskedAboutARenewedCertificateAtOnce(t *testing.T) {
	t.Parallel()
	s := newStapled(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.service.stapleListeners(ctx) }()
	defer func() { stop(); must(t, <-ended) }()
	s.shows(s.leaf, true)
	s.renewLeaf()
	s.shows(s.leaf, true)
	s.put(s.serials) // of a CA that has no responder
	s.shows(s.serials.Certificate, false)
}

func TestTheDoctorAsksTheCAAboutTheCertificateOfAListener(t *testing.T) {
	t.Parallel()
	s := newStapled(t)
	x := &examiner{house: s.service.house, http: http.DefaultClient}
	examine := func() (f doctor.Finding) {
		t.Helper()
		x.examineListener("listen.tls", *x.cfg.Listen.TLS).Run(t.Context(), func(found doctor.Finding) { f = found })
		return f
	}
	if f := examine(); f.Result != doctor.Pass || !strings.Contains(f.What, "OCSP response") {
		t.Errorf("a good one: %+v", f)
	}
	s.ca.SetFault(pki.ServiceOCSP, pki.Down, 1)
	if f := examine(); f.Result != doctor.Warning {
		t.Errorf("without an answer: %+v", f)
	}
	s.ca.Revoke(s.leaf, time.Now().Add(-time.Minute), 1)
	if f := examine(); f.Result != doctor.Failure || !strings.Contains(f.What, "revoked") {
		t.Errorf("a revoked one: %+v", f)
	}
}
