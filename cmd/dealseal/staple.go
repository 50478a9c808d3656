package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/dealseal/dealseal/signing/revocation"
)

// How long a responder is left in peace: after an answer half of what that is good for, within these bounds; after a
// failure the shortest time first, twice as long after each further one, up to stapleFailed.
const (
	stapleSoonest = time.Minute
	stapleLatest  = 12 * time.Hour
	stapleFailed  = time.Hour
)

// staple is what the CA's responder says about a listener's certificate, sent along when somebody connects (RFC 6066,
// section 8), who then need not ask the CA and tell it where he goes.
type staple struct {
	der   []byte
	until time.Time
}

// stapler keeps a listener's certificate with a staple.
type stapler struct {
	certificate *certificate
	client      *revocation.Client
	log         *slog.Logger
	failures    int
}

// run asks until ctx ends. A renewed certificate is asked about at once.
func (s *stapler) run(ctx context.Context) {
	for {
		select {
		case <-s.certificate.renewed: // it is asked about anyway
		default:
		}
		wait := time.NewTimer(s.renew(ctx))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-s.certificate.renewed:
			wait.Stop()
			s.failures = 0
		case <-wait.C:
		}
	}
}

// renew asks the responder and returns when to ask again. Without an answer the staple before is sent for as long as it is
// good, and then none: whoever connects asks the CA, as if there were no stapling.
func (s *stapler) renew(ctx context.Context) (wait time.Duration) {
	pair, err := s.certificate.get(nil)
	if err != nil {
		return stapleLatest
	}
	next, err := fetchStaple(ctx, s.client, pair)
	var revoked *revocation.RevokedError
	switch {
	case errors.Is(err, errNoResponder):
		return stapleLatest
	case errors.As(err, &revoked):
		s.log.ErrorContext(ctx, "the listener's certificate was revoked: put another one in its place", "subject", revoked.Subject, "at", revoked.At)
		s.certificate.attach(pair, staple{}) // that it is good is not said any more
		return stapleLatest
	case err != nil:
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "the listener's certificate gets no fresh OCSP response", "subject", pair.Leaf.Subject.String(), "err", err)
		}
		s.failures++
		return min(stapleSoonest<<min(s.failures-1, 10), stapleFailed)
	}
	s.failures = 0
	s.certificate.attach(pair, next)
	return min(max(time.Until(next.until)/2, stapleSoonest), stapleLatest)
}

// errNoResponder is of certificates whose CA offers no OCSP, or that stand in their file without their issuer.
var errNoResponder = errors.New("the certificate names no OCSP responder, or its issuer does not follow it in the file")

// fetchStaple asks what the CA says about a certificate that ends a listener's chain.
func fetchStaple(ctx context.Context, client *revocation.Client, pair *tls.Certificate) (staple, error) {
	if len(pair.Leaf.OCSPServer) == 0 || len(pair.Certificate) < 2 {
		return staple{}, errNoResponder
	}
	issuer, err := x509.ParseCertificate(pair.Certificate[1])
	if err != nil || pair.Leaf.CheckSignatureFrom(issuer) != nil {
		return staple{}, errNoResponder
	}
	e, err := client.AskResponders(ctx, pair.Leaf, issuer)
	switch {
	case err != nil:
		return staple{}, err
	case e.Revoked:
		return staple{}, &revocation.RevokedError{Subject: pair.Leaf.Subject.String(), Usage: "a listener", At: e.RevokedAt}
	}
	s := staple{der: e.DER, until: e.NextUpdate}
	if s.until.IsZero() {
		s.until = e.ProducedAt.Add(24 * time.Hour)
	}
	return s, nil
}

// attach has a certificate shown with its staple, unless another one is shown by now.
func (c *certificate) attach(pair *tls.Certificate, s staple) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Equal(c.current.Certificate[0], pair.Certificate[0]) {
		with := *c.current
		with.OCSPStaple = s.der
		c.stapled, c.stapleUntil = &with, s.until
	}
}

// shown is the current certificate, with its staple while that is good. It is called with the lock held.
func (c *certificate) shown() *tls.Certificate {
	if c.stapled != nil && time.Now().Before(c.stapleUntil) {
		return c.stapled
	}
	return c.current
}

// stapleListeners keeps what the listeners show with a fresh OCSP response until ctx ends, where the CA offers that.
func (d *service) stapleListeners(ctx context.Context) error {
	var g sync.WaitGroup
	for _, c := range d.listenerCertificates() {
		s := &stapler{certificate: c, client: revocation.NewClient(revocation.Options{Log: d.log}), log: d.log}
		g.Go(func() { s.run(ctx) })
	}
	g.Wait()
	return nil
}

func (d *service) listenerCertificates() (all []*certificate) {
	if d.certificate != nil {
		all = append(all, d.certificate)
	}
	if d.asks != nil && d.asks.certificate != nil {
		all = append(all, d.asks.certificate)
	}
	return all
}
