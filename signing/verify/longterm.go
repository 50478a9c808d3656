package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

// The budget for judging revocation in one document, and how long a chain of responders may get.
const (
	maxEvidenceTries = 2000
	maxResponders    = 3
)

// judgeLevels finds the level of each signature: by its form and time-stamp, and by whether it would still be provable if everyone who could be asked
// were gone.
func (v *verifier) judgeLevels() error {
	now, err := v.storeOf(v.file.Size())
	if err != nil {
		return err
	}
	for _, c := range v.checks {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if c.judgeLevel(); c.Level != pades.BT {
			continue
		}
		switch err := c.lastsBy(now); {
		case err != nil && !now.empty():
			c.add(CodeNotLongTerm, Valid, "not B-LT: "+err.Error())
		case err == nil:
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
		then, err := v.storeOf(d.covers.end)
		if err != nil {
			return err
		}
		if c.lastsBy(then) == nil {
			c.Level = pades.BLTA
			return nil
		}
	}
	return nil
}

// security is what document security stores hold.
type security struct {
	certs    []*x509.Certificate
	evidence []piece
	seen     map[[sha256.Size]byte]bool
}

// piece is an OCSP response or a revocation list that nobody has looked at yet.
type piece struct {
	kind revocation.Kind
	der  []byte
	sum  [sha256.Size]byte
}

func newSecurity() *security {
	return &security{seen: map[[sha256.Size]byte]bool{}}
}

func (s *security) empty() bool { return len(s.certs)+len(s.evidence) == 0 }

// readStores reads the stores of all revisions that count: those that are proven by a document time-stamp, whatever became of them, and that of now,
// to which anybody may have added.
func (v *verifier) readStores() error {
	var ends []int64
	for _, c := range v.checks {
		if c.sound && c.Kind == KindDocumentTimestamp {
			ends = append(ends, c.covers.end)
		}
	}
	for _, end := range append(ends, v.file.Size()) {
		s, err := v.storeOf(end)
		if err != nil {
			return err
		}
		v.trust.all.addAll(s)
	}
	return nil
}

// storeOf reads the store of one revision; once.
func (v *verifier) storeOf(end int64) (*security, error) {
	r, err := v.revision(end)
	if err != nil || r.store != nil {
		return r.security(), err
	}
	store, err := pades.ReadValidation(r.file)
	if err != nil {
		return nil, err
	}
	r.store = newSecurity()
	for _, der := range store.Certs {
		// What is no certificate is passed over, and one whose key nothing is checked with: it proves nothing.
		if cert, err := x509.ParseCertificate(der); err == nil && !cms.TooLarge(cert) && r.store.fresh(sha256.Sum256(der)) {
			r.store.certs = append(r.store.certs, cert)
		}
	}
	for _, list := range []struct {
		kind revocation.Kind
		ders [][]byte
	}{{revocation.OCSP, store.OCSPs}, {revocation.CRL, store.CRLs}} {
		for _, der := range list.ders {
			if p := (piece{list.kind, der, sha256.Sum256(der)}); r.store.fresh(p.sum) {
				r.store.evidence = append(r.store.evidence, p)
			}
		}
	}
	return r.store, nil
}

func (r *revision) security() *security {
	if r == nil {
		return nil
	}
	return r.store
}

// fresh reports whether something is seen for the first time.
func (s *security) fresh(sum [sha256.Size]byte) bool {
	known := s.seen[sum]
	s.seen[sum] = true
	return !known
}

func (s *security) addAll(other *security) {
	for _, cert := range other.certs {
		if s.fresh(sha256.Sum256(cert.Raw)) {
			s.certs = append(s.certs, cert)
		}
	}
	for _, p := range other.evidence {
		if s.fresh(p.sum) {
			s.evidence = append(s.evidence, p)
		}
	}
}

// lastsBy returns nil if a store has what it takes to prove, with no one left to ask, that neither the signer nor the time-stamping authority had been
// revoked at the time that is proven: the certificates between them and a root, and evidence about each.
func (c *check) lastsBy(s *security) error {
	at := *c.ValidatedAt
	if err := c.chainLastsBy(s, c.cert, c.signed.Certificates, c.trust.roots, at); err != nil {
		return err
	}
	return c.chainLastsBy(s, c.token.Certificate, c.token.Certificates(), c.trust.tsaRoots, at)
}

func (c *check) chainLastsBy(s *security, cert *x509.Certificate, embedded []*x509.Certificate, roots *x509.CertPool, at time.Time) error {
	chains, err := c.trust.chains(cert, embedded, roots, at, x509.ExtKeyUsageAny)
	if err != nil {
		return fmt.Errorf("no chain to a trusted root: %w", err)
	}
	found, err := c.evidenceOn(s, chains, at)
	switch {
	case err != nil:
		return err
	case found.revoked != nil:
		return found.revoked
	}
	return found.missing
}

// evidenceFound is what a store says of a chain at a time.
type evidenceFound struct {
	revoked *revokedError // the first certificate that was revoked by then
	missing error         // why it does not say of each certificate that it was good
	facts   []Revocation
}

// evidenceOn looks for a chain about which nothing is missing, or the first if there is none. That a certificate was revoked counts in any of them.
func (v *verifier) evidenceOn(s *security, chains [][]*x509.Certificate, at time.Time) (evidenceFound, error) {
	var best evidenceFound
	for i, chain := range chains {
		var found evidenceFound
		if err := v.look(s, chain, at, maxResponders, &found); err != nil {
			return found, err
		}
		if found.revoked != nil || found.missing == nil {
			return found, nil
		}
		if i == 0 {
			best = found
		}
	}
	return best, nil
}

// look goes through a chain but for its root, and through those who vouch for its certificates.
func (v *verifier) look(s *security, chain []*x509.Certificate, at time.Time, responders int, found *evidenceFound) error {
	for i, cert := range chain[:len(chain)-1] {
		if revocation.NeedsNone(cert) {
			continue
		}
		e, err := v.evidence(s, cert, chain[i+1], at)
		if err != nil {
			return err
		}
		found.tell(cert, e, at)
		if e == nil {
			found.lacks(fmt.Errorf("the document carries no evidence of %s on whether %q was revoked", at.UTC().Format(time.RFC3339), cert.Subject))
			continue
		}
		if e.Revoked && !e.RevokedAt.After(at) && found.revoked == nil {
			found.revoked = &revokedError{cert, e.RevokedAt}
		}
		if e.Responder == nil || revocation.NeedsNone(e.Responder) {
			continue
		}
		if responders == 0 {
			found.lacks(errors.New("responders vouch for responders without an end"))
			continue
		}
		// A responder that was revoked leaves its answer without weight; the chain itself may be good all the same.
		var behind evidenceFound
		if err := v.look(s, append([]*x509.Certificate{e.Responder}, chain[i+1:]...), at, responders-1, &behind); err != nil {
			return err
		}
		if behind.revoked != nil && behind.revoked.cert == e.Responder {
			found.lacks(behind.revoked)
		}
		found.lacks(behind.missing)
	}
	return nil
}

func (f *evidenceFound) lacks(err error) {
	if f.missing == nil {
		f.missing = err
	}
}

// tell notes what was found about a certificate.
func (f *evidenceFound) tell(cert *x509.Certificate, e *revocation.Evidence, at time.Time) {
	fact := Revocation{Subject: cert.Subject.String(), Status: "unknown", At: at}
	if e != nil {
		fact.Status, fact.Kind, fact.ThisUpdate = "good", string(e.Kind), &e.ThisUpdate
		if !e.NextUpdate.IsZero() {
			fact.NextUpdate = &e.NextUpdate
		}
		if e.Revoked {
			fact.RevokedAt = &e.RevokedAt
			if !e.RevokedAt.After(at) {
				fact.Status = "revoked"
			}
		}
	}
	f.facts = append(f.facts, fact)
}

// holdReason is the reason code of a revocation that may be lifted again (RFC 5280, 5.3.1).
const holdReason = 6

// evidence finds what says something about a certificate at that time; nil if nothing does. It must have been made by now, and newer evidence must not
// have been due by the time that counts, unless it speaks of a revocation, which is for ever; and it must know of certificates that ended before it was
// made. Of several, one that speaks of a revocation counts.
func (v *verifier) evidence(s *security, cert, issuer *x509.Certificate, at time.Time) (*revocation.Evidence, error) {
	var found *revocation.Evidence
	for _, p := range s.evidence {
		e, err := v.trust.parse(p, cert, issuer)
		var limit *pdf.LimitError
		if errors.As(err, &limit) {
			return nil, err
		}
		if err != nil || e.Knows(cert) != nil || e.ThisUpdate.After(v.options.Now.Add(clockSkew)) || found != nil && !e.Revoked {
			continue
		}
		if e.Responder != nil && cms.CheckKey(e.Responder.PublicKey) != nil {
			continue
		}
		if e.Revoked && e.Reason != holdReason || e.ThisUpdate.After(at) || e.Fresh(at, clockSkew) == nil {
			found = e
		}
	}
	return found, nil
}

// revokedError says that a certificate had been revoked.
type revokedError struct {
	cert *x509.Certificate
	at   time.Time
}

func (e *revokedError) Error() string {
	return fmt.Sprintf("the certificate of %q was revoked at %s", e.cert.Subject, e.at.UTC().Format(time.RFC3339))
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
