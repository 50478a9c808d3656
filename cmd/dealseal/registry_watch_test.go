package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/store"
)

// directly serves requests without a network, which no bubble could wait for.
type directly struct{ http.Handler }

func (d directly) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody // as servers have it
	}
	time.Sleep(time.Millisecond) // of the bubble's clock: what follows an answer is later than what led to the question
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

// configuredKey is a bareKey for which the configuration has a certificate.
type configuredKey struct {
	bareKey
	chain []*x509.Certificate
}

func (k *configuredKey) Open(context.Context, string) (signing.Key, error) {
	return signing.WithChain(k.bareKey, k.chain), nil
}

// TestTheIssuersOfCertificatesAreAskedEachDayAndAtEachActivation takes a key through a rollover whose next certificate is revoked:
// before its time, shortly before it and during the window of two seals, with a responder that answers and with lists alone.
func TestTheIssuersOfCertificatesAreAskedEachDayAndAtEachActivation(t *testing.T) {
	t.Parallel()
	const activation = 36 * time.Hour
	for name, c := range map[string]struct {
		after       time.Duration // that it is revoked
		known       time.Duration // by when that is to be known
		lists       bool          // no responder answers
		firstGoesOn bool
	}{
		"before its time":          {after: time.Hour, known: 24 * time.Hour, firstGoesOn: true},
		"shortly before its time":  {after: activation - time.Hour, known: activation},
		"in the window, by a list": {after: activation + time.Hour, known: activation + 24*time.Hour, lists: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				authority, err := pki.New(pki.Options{BaseURL: "http://pki.invalid"})
				must(t, err)
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				must(t, err)
				s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir(), MasterKey: secret.New(bytes.Repeat([]byte("m"), minMasterKey))})
				must(t, err)
				defer s.Close()
				h := &house{cfg: &config.Config{}, roots: authority.Root.Chain()}
				keys := &configuredKey{bareKey: bareKey{key}}
				r := &registry{keys: keys, each: keys, house: h, dual: map[string]bool{"house": true}, roots: h.roots, now: time.Now, log: slog.New(slog.DiscardHandler), store: s,
					activated: make(chan struct{}, 1), changed: make(chan struct{}, 1), came: make(chan struct{}, 1),
					issuers: revocation.NewClient(revocation.Options{HTTP: &http.Client{Transport: directly{authority}}})}
				issued := func(state deal.CertState) entry {
					chain, err := authority.IssueSigner(key.Public(), sealSubject)
					must(t, err)
					e := entry{describe("house", chain, state), chain}
					must(t, s.AddCertificate(t.Context(), e.Certificate, "anna", "a test"))
					return e
				}
				first, next := issued(deal.CertActive), issued(deal.CertNext)
				keys.chain = first.chain
				must(t, s.ActivateCertificate(t.Context(), "house", next.SHA256, began.Add(activation), began.Add(30*24*time.Hour), "anna", "renewed"))
				must(t, r.refresh(t.Context()))
				d := &service{registry: r, store: s, log: r.log}
				d.residents.settle(&residence{house: h})

				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				heard := d.beforeTheFirstSeal(ctx)
				go func() { ended <- d.lookAfterCertificates(ctx, heard) }()
				until := func(at time.Duration) {
					time.Sleep(time.Until(began.Add(at))) // of the bubble's clock, so nobody waits: certificates are looked after by the hour
					synctest.Wait()
				}
				until(c.after)
				authority.Revoke(next.chain[0], time.Now(), 1)
				if c.lists {
					authority.SetFault(pki.ServiceOCSP, pki.Unavailable, -1)
				}
				until(c.known - time.Minute)
				if e, _ := r.find("house", next.SHA256); e.State == deal.CertRevoked {
					t.Error("it was known before anybody was asked")
				}
				until(c.known + time.Minute)
				if e, _ := r.find("house", next.SHA256); e.State != deal.CertRevoked {
					t.Errorf("it is %s, and %s is what was answered", e.State, e.Answer)
				}
				until(activation + 25*time.Hour)
				used, err := r.Open(t.Context(), "house")
				switch {
				case c.firstGoesOn && (err != nil || thumbprint(used.Chain()[0]) != first.SHA256):
					t.Errorf("the certificate that nothing has followed makes no seals: %v", err)
				case !c.firstGoesOn && !signing.IsRevoked(err):
					t.Errorf("the key is used (%v) after the certificate that it sealed with was revoked", err)
				}
				if beside := r.Beside("house"); beside != nil {
					t.Error("second seals are made beside none")
				}
				stop()
				must(t, <-ended)
			})
		})
	}
}
