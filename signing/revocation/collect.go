package revocation

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Anchors are whom certificates are led to, and by way of whom.
type Anchors struct {
	Roots         []*x509.Certificate
	Intermediates []*x509.Certificate // beside those that come with each certificate; not trusted by themselves
}

// Subject is a certificate that is to be provable later, with the certificates that came with it, and a time at which it
// was used.
type Subject struct {
	Cert  *x509.Certificate
	With  []*x509.Certificate
	At    time.Time
	Usage string // for people: what it was used for
	// New is set for what nobody relies on yet: then a revocation at any time counts, and not only one by the time of use.
	New bool
}

// Material is what signatures can be checked with when nobody can be asked any more. Everything is DER.
type Material struct {
	Certs [][]byte // certificates
	OCSPs [][]byte // OCSPResponses
	CRLs  [][]byte // CertificateLists
}

// Collect gets all that it takes to check certificates at a time when nobody can be asked: the chain of each, and
// evidence about every certificate of it, and about those who signed that evidence. Evidence is wanted that was made at
// the time of use or later. A certificate that was revoked by the time of its use is a *RevokedError.
func (c *Client) Collect(ctx context.Context, a Anchors, subjects []Subject) (Material, error) {
	g := &collector{ctx: ctx, anchors: a, client: c, seen: map[string]bool{}}
	for _, s := range subjects {
		if err := g.subject(s); err != nil {
			return Material{}, err
		}
	}
	return g.m, nil
}

type collector struct {
	ctx     context.Context
	anchors Anchors
	client  *Client
	seen    map[string]bool // certificates that are done, by their bytes
	m       Material
}

func (g *collector) subject(s Subject) error {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range g.anchors.Roots {
		roots.AddCert(c)
	}
	for _, c := range slices.Concat(s.With, g.anchors.Intermediates) {
		intermediates.AddCert(c)
	}
	chains, err := s.Cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: s.At, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("revocation: the certificate of %s (%s) leads to no trusted root: %w", s.Cert.Subject, s.Usage, err)
	}
	return g.chain(chains[0], s)
}

// chain takes in a chain that ends with a root.
func (g *collector) chain(chain []*x509.Certificate, s Subject) error {
	for i, cert := range chain {
		if g.seen[string(cert.Raw)] {
			continue
		}
		g.seen[string(cert.Raw)] = true
		g.m.Certs = append(g.m.Certs, cert.Raw)
		if i == len(chain)-1 || NeedsNone(cert) {
			continue
		}
		if err := g.evidence(cert, chain[i+1:], s); err != nil {
			return err
		}
	}
	return nil
}

// evidence takes in what is known about cert, whose issuer and those above it are given, and about who says so.
func (g *collector) evidence(cert *x509.Certificate, above []*x509.Certificate, s Subject) error {
	e, err := g.client.Check(g.ctx, cert, above[0], s.At)
	if err != nil {
		return err
	}
	if e.Revoked && (s.New || !e.RevokedAt.After(s.At)) {
		return &RevokedError{Subject: cert.Subject.String(), Usage: s.Usage, At: e.RevokedAt}
	}
	if e.Kind == CRL {
		g.m.CRLs = append(g.m.CRLs, e.DER)
	} else {
		g.m.OCSPs = append(g.m.OCSPs, e.DER)
	}
	if e.Responder == nil {
		return nil
	}
	return g.chain(append([]*x509.Certificate{e.Responder}, above...), s)
}

// RevokedError says that a certificate was revoked: nothing may be sealed with it, and nothing that it sealed afterwards
// is valid.
type RevokedError struct {
	Subject string // of the certificate
	Usage   string // of the one that was to be provable: that one itself, or one below it
	At      time.Time
}

func (e *RevokedError) Error() string {
	return fmt.Sprintf("revocation: the certificate of %s was revoked at %s", e.Subject, e.At.UTC().Format(time.RFC3339))
}

// Permanent is true: a revocation is for ever, but for a hold, which ends with another certificate or another answer.
func (e *RevokedError) Permanent() bool { return true }
