package verify

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

// stamp is a time-stamp token whose cryptography holds.
type stamp struct {
	token *tsa.Token
	check *check // of the signature that it is on, or the document time-stamp that it is
	holds bool   // its authority is trusted, and was good when the token is proven to have existed
}

// proof says that the first bytes of the file existed at a time (a proof of existence, in the words of ETSI EN 319 102-1).
type proof struct {
	end int64 // how many bytes
	at  time.Time
	by  string // the field of the document time-stamp
}

// provenBy is the earliest proof that the first end bytes existed; nil if there is none.
func (v *verifier) provenBy(end int64) *proof {
	var earliest *proof
	for i := range v.proofs {
		if p := &v.proofs[i]; p.end > end && (earliest == nil || p.at.Before(earliest.at)) {
			earliest = p
		}
	}
	return earliest
}

// existedAt is when the first end bytes existed for certain: at the time of checking, if nothing proves them to be older.
func (v *verifier) existedAt(end int64) time.Time {
	if p := v.provenBy(end); p != nil {
		return p.at
	}
	return v.options.Now
}

// judgeTimes walks back through the time-stamps. The newest has to hold now; each one that holds proves when all before it existed, and that is when
// those have to hold, though their certificates may have ended or been revoked since.
func (v *verifier) judgeTimes() error {
	if err := v.readStores(); err != nil {
		return err
	}
	newest := slices.Clone(v.checks)
	slices.SortStableFunc(newest, func(a, b *check) int { return cmp.Compare(b.covers.end, a.covers.end) })
	for _, c := range newest {
		if c.sound && c.Kind == KindDocumentTimestamp {
			if err := c.judgeDocumentTimestamp(); err != nil {
				return err
			}
		}
	}
	for _, c := range newest {
		if c.sound && c.Kind == KindSignature {
			if err := c.judgeTimestamps(); err != nil {
				return err
			}
		}
	}
	return nil
}

// judgeDocumentTimestamp adds a proof if the time-stamp holds.
func (c *check) judgeDocumentTimestamp() error {
	s := c.stamps[0]
	at := c.existedAt(c.covers.end)
	c.ValidatedAt = &at
	if p := c.provenBy(c.covers.end); p != nil {
		c.ProvenBy = p.by
	}
	r, err := c.judgeStamp(s, at)
	if err != nil {
		return err
	}
	if r != nil {
		if r.Code == CodeTimestampUntrusted {
			r.Code = CodeUntrusted
		}
		c.add(r.Code, Indeterminate, r.Text)
		return nil
	}
	c.prove(s.token)
	c.proofs = append(c.proofs, proof{end: c.covers.end, at: s.token.Time, by: c.Field})
	return nil
}

// judgeTimestamps looks for the earliest time-stamp of a signature that holds. One that does not proves nothing, and harms nothing unless it
// contradicts another.
func (c *check) judgeTimestamps() error {
	at := c.existedAt(c.covers.end)
	for _, s := range c.stamps {
		r, err := c.judgeStamp(s, at)
		if err != nil {
			return err
		}
		switch {
		case r == nil && (c.token == nil || s.token.Time.Before(c.token.Time)):
			c.prove(s.token)
		case r != nil:
			c.add(r.Code, r.Verdict, r.Text)
		}
	}
	return nil
}

// prove records a token that holds.
func (c *check) prove(token *tsa.Token) {
	c.token = token
	c.Timestamp = &Timestamp{Time: token.Time, TSA: token.Certificate.Subject.String(), Serial: token.Serial.Text(16), Policy: token.Policy.String()}
}

// clockSkew is how far clocks of others, and ours, may differ.
const clockSkew = 5 * time.Minute

// judgeStamp says why a token proves nothing; nil if it holds. Existed is when it is known to have existed.
func (c *check) judgeStamp(s *stamp, existed time.Time) (*Reason, error) {
	t := s.token
	note := func(code Code, v Verdict, format string, args ...any) (*Reason, error) {
		r := reason(code, v, "time-stamp token: "+fmt.Sprintf(format, args...))
		return &r, nil
	}
	switch {
	case t.Time.After(c.options.Now.Add(clockSkew)):
		return note(CodeTimestampBroken, Indeterminate, "its time %s is in the future", t.Time.Format(time.RFC3339))
	case t.Time.After(existed.Add(clockSkew + t.Accuracy)):
		return note(CodeTimestampOrder, Indeterminate, "its time %s is later than %s, by when another time-stamp says that it existed", t.Time.Format(time.RFC3339), existed.Format(time.RFC3339))
	}
	chains, err := c.trust.chains(t.Certificate, t.Certificates(), c.trust.tsaRoots, t.Time, x509.ExtKeyUsageTimeStamping)
	switch {
	case isLimit(err):
		return nil, err
	case errors.Is(err, cms.ErrWeak):
		return note(CodeWeak, Valid, "%v", err)
	case err != nil:
		return note(CodeTimestampUntrusted, Valid, "at %s: %v", t.Time.Format(time.RFC3339), err)
	}
	lasting := slices.IndexFunc(chains, func(chain []*x509.Certificate) bool { return endOf(chain).After(existed) || existed.Before(t.Time) })
	if lasting < 0 {
		return note(CodeTimestampUnproven, Valid, "a certificate of the authority ended at %s, and nothing proves the time-stamp to be from before", endOf(chains[0]).Format(time.RFC3339))
	}
	found, err := c.evidenceOn(c.trust.all, chains[lasting:], existed)
	if err != nil {
		return nil, err
	}
	if r := found.revoked; r != nil {
		return note(CodeTimestampRevoked, Valid, "%v, and nothing proves the time-stamp to be from before", r)
	}
	s.holds = true
	return nil, nil
}

// endOf is when the first certificate of a chain ends.
func endOf(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// madeAfter is the latest time at which a signature is proven not to have been there: that of a time-stamp that it covers. Zero if there is none.
func (c *check) madeAfter() time.Time {
	var latest time.Time
	for _, other := range c.checks {
		if !other.sound || other.covers.end > c.covers.hole {
			continue
		}
		for _, s := range other.stamps {
			if s.holds && s.token.Time.After(latest) {
				latest = s.token.Time
			}
		}
	}
	return latest
}

// judgeCertificates judges the signers' certificates, each at the earliest time at which its signature is proven to have existed.
func (v *verifier) judgeCertificates() error {
	for _, c := range v.checks {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if !c.sound || c.Kind != KindSignature {
			continue
		}
		if err := c.judgeCertificate(); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) judgeCertificate() error {
	at := c.options.Now
	if p := c.provenBy(c.covers.end); p != nil {
		at, c.ProvenBy = p.at, p.by
	}
	if c.token != nil && !c.token.Time.After(at) {
		at, c.ProvenBy = c.token.Time, ""
	}
	c.ValidatedAt = &at
	if err := checkUsage(c.cert); err != nil {
		c.add(CodeKeyUsage, Indeterminate, err.Error())
	}
	chains, err := c.trust.chains(c.cert, c.signed.Certificates, c.trust.roots, at, x509.ExtKeyUsageAny)
	if isLimit(err) {
		return err
	}
	if err != nil {
		code, text := c.chainFault(err, at)
		c.add(code, Indeterminate, text)
		return nil
	}
	return c.judgeRevocation(chains, at)
}

// chainFault tells a chain that did not hold at that time from one that leads nowhere.
func (c *check) chainFault(err error, at time.Time) (Code, string) {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, cms.ErrWeak):
		return CodeWeak, err.Error()
	case !errors.As(err, &invalid) || invalid.Reason != x509.Expired:
		return CodeUntrusted, fmt.Sprintf("no chain to a trusted root: %v", err)
	case at.Before(c.cert.NotBefore):
		return CodeNotYetValid, fmt.Sprintf("the signature existed at %s, and its certificate begins at %s", at.Format(time.RFC3339), c.cert.NotBefore.Format(time.RFC3339))
	case c.madeAfter().After(c.cert.NotAfter):
		return CodeSignedLate, fmt.Sprintf("the certificate ended at %s, and the signature covers a time-stamp of %s", c.cert.NotAfter.Format(time.RFC3339), c.madeAfter().Format(time.RFC3339))
	}
	return CodeExpired, fmt.Sprintf("at %s, before which nothing proves the signature, a certificate was not valid: %v", at.Format(time.RFC3339), err)
}

// judgeRevocation asks what the document carries about the signer's chain.
func (c *check) judgeRevocation(chains [][]*x509.Certificate, at time.Time) error {
	found, err := c.evidenceOn(c.trust.all, chains, at)
	if err != nil {
		return err
	}
	c.Revocation = found.facts
	r := found.revoked
	switch {
	case r != nil && r.cert != c.cert && !r.cert.Equal(c.cert):
		c.add(CodeRevokedCA, Indeterminate, r.Error()+", and nothing proves the signature to be from before")
	case r != nil && c.madeAfter().After(r.at):
		c.add(CodeRevoked, Invalid, fmt.Sprintf("%v, and the signature covers a time-stamp of %s", r, c.madeAfter().Format(time.RFC3339)))
	case r != nil:
		c.add(CodeRevokedUnproven, Indeterminate, r.Error()+", and nothing proves the signature to be from before")
	case found.missing != nil && c.options.RequireRevocation:
		c.add(CodeRevocationUnknown, Indeterminate, found.missing.Error())
	case found.missing != nil && c.trust.all.empty():
		c.add(CodeRevocationUnchecked, Valid, "the document carries nothing on whether certificates were revoked, and nobody was asked")
	}
	return nil
}
