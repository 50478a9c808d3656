package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
)

// The budget for judging revocation in one document, and how long a chain of responders may get.
const (
	maxEvidenceTries = 2000
	maxResponders    = 3
)

// judgeLongTerm judges every signature by the security store of the document: whether its certificates were revoked, and
// whether it would still be provable if everyone who could be asked were gone.
func (v *verifier) judgeLongTerm() error {
	now, err := v.securityOf(v.file)
	if err != nil {
		return err
	}
	for _, c := range v.checks {
		if c.Kind != KindSignature || c.Verdict == Invalid || c.cert == nil || c.ValidatedAt == nil {
			continue
		}
		if err := v.ctx.Err(); err != nil {
			return err
		}
		err := c.provenBy(now)
		var revoked *revokedError
		switch {
		case errors.As(err, &revoked):
			c.add(CodeRevoked, Invalid, err.Error())
		case err != nil && c.Level == pades.BT && !now.empty():
			c.add(CodeNotLongTerm, Valid, "not B-LT: "+err.Error())
		case err == nil && c.Level == pades.BT:
			c.Level = pades.BLT
			if err := v.judgeArchive(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// judgeArchive looks for a document time-stamp over a revision that has all that B-LT needs.
func (v *verifier) judgeArchive(c *check) error {
	for _, d := range v.checks {
		if d.Kind != KindDocumentTimestamp || d.Verdict != Valid || d.token == nil || d.covers.end <= c.covers.end {
			continue
		}
		then, err := v.securityOf(d.found.file)
		if err != nil {
			return err
		}
		if c.provenBy(then) == nil {
			c.Level = pades.BLTA
			return nil
		}
	}
	return nil
}

// security is what the document security store of one revision holds.
type security struct {
	certs       []*x509.Certificate
	ocsps, crls [][]byte
	tries       int // left
}

func (s *security) empty() bool { return len(s.certs)+len(s.ocsps)+len(s.crls) == 0 }

// securityOf reads a store. What is no certificate is passed over: it proves nothing.
func (v *verifier) securityOf(file *pdf.File) (*security, error) {
	store, err := pades.ReadValidation(file)
	if err != nil {
		return nil, err
	}
	s := &security{ocsps: store.OCSPs, crls: store.CRLs, tries: maxEvidenceTries}
	for _, der := range store.Certs {
		if cert, err := x509.ParseCertificate(der); err == nil {
			s.certs = append(s.certs, cert)
		}
	}
	return s, nil
}

// provenBy returns nil if the store shows that neither the signer nor the time-stamping authority had been revoked at the
// time that is proven. The error is a *revokedError if it shows the contrary.
func (c *check) provenBy(s *security) error {
	at := *c.ValidatedAt
	if err := c.chainProvenBy(s, c.cert, c.signed.Certificates, c.options.Roots, at); err != nil {
		return err
	}
	if c.token == nil {
		return nil
	}
	return c.chainProvenBy(s, c.token.Certificate, c.token.Certificates(), c.options.TSARoots, at)
}

// chainProvenBy tries the chains that lead from a certificate to a root.
func (c *check) chainProvenBy(s *security, cert *x509.Certificate, embedded, roots []*x509.Certificate, at time.Time) error {
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots: poolOf(roots), Intermediates: poolOf(slices.Concat(embedded, s.certs, c.options.Intermediates)),
		CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("no chain to a trusted root: %w", err)
	}
	for _, chain := range chains {
		if err = s.proves(chain, at, c.options.Now, maxResponders); err == nil {
			return nil
		}
	}
	return err
}

// proves looks for evidence about every certificate of a chain but its root.
func (s *security) proves(chain []*x509.Certificate, at, now time.Time, responders int) error {
	for i, cert := range chain[:len(chain)-1] {
		if revocation.NeedsNone(cert) {
			continue
		}
		e, err := s.evidence(cert, chain[i+1], at, now)
		if err != nil {
			return err
		}
		if e.Revoked && !e.RevokedAt.After(at) {
			return &revokedError{cert.Subject.String(), e.RevokedAt}
		}
		if e.Responder == nil || revocation.NeedsNone(e.Responder) {
			continue
		}
		if responders == 0 {
			return fmt.Errorf("responders vouch for responders without an end")
		}
		if err := s.proves(append([]*x509.Certificate{e.Responder}, chain[i+1:]...), at, now, responders-1); err != nil {
			return err
		}
	}
	return nil
}

// evidence finds what says something about a certificate at that time: it must have been made by now, and newer evidence
// must not have been due by then. Of several, one that speaks of a revocation counts.
func (s *security) evidence(cert, issuer *x509.Certificate, at, now time.Time) (*revocation.Evidence, error) {
	var found *revocation.Evidence
	consider := func(e *revocation.Evidence, err error) {
		if err != nil || e.ThisUpdate.After(now.Add(clockSkew)) || found != nil && !e.Revoked {
			return
		}
		if e.ThisUpdate.After(at) || e.Fresh(at, clockSkew) == nil {
			found = e
		}
	}
	for _, der := range s.ocsps {
		if s.tries--; s.tries < 0 {
			return nil, fmt.Errorf("the document carries more than the %d pieces of evidence that are tried", maxEvidenceTries)
		}
		consider(revocation.ParseOCSP(der, cert, issuer))
	}
	for _, der := range s.crls {
		if s.tries--; s.tries < 0 {
			return nil, fmt.Errorf("the document carries more than the %d pieces of evidence that are tried", maxEvidenceTries)
		}
		consider(revocation.ParseCRL(der, cert, issuer))
	}
	if found == nil {
		return nil, fmt.Errorf("the document carries no evidence of that time on whether %q was revoked", cert.Subject)
	}
	return found, nil
}

// revokedError says that a certificate had been revoked.
type revokedError struct {
	subject string
	at      time.Time
}

func (e *revokedError) Error() string {
	return fmt.Sprintf("the certificate of %q was revoked at %s", e.subject, e.at.UTC().Format(time.RFC3339))
}

// Subjects verifies a document and lists the certificates that its signatures and time-stamps rest on, each with those
// that came with it and the time at which it was used: what evidence has to be had about for the document to last. What is
// not proven to hold is left out; the report says why.
func Subjects(ctx context.Context, doc pades.Document, o Options) (*Report, []revocation.Subject, error) {
	v, err := judge(ctx, doc, o)
	if err != nil {
		return nil, nil, err
	}
	var list []revocation.Subject
	for _, c := range v.checks {
		if c.Verdict == Invalid {
			continue
		}
		if c.cert != nil && c.ValidatedAt != nil {
			list = append(list, revocation.Subject{Cert: c.cert, With: c.signed.Certificates, At: *c.ValidatedAt, Usage: "the signature " + strconv.Quote(c.Field)})
		}
		if c.token != nil {
			list = append(list, revocation.Subject{Cert: c.token.Certificate, With: c.token.Certificates(), At: c.token.Time, Usage: "the time-stamp of " + strconv.Quote(c.Field)})
		}
	}
	return v.report, list, nil
}
