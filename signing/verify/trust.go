package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

// trust is whom a report relies on, and what was found out about them already.
type trust struct {
	roots, tsaRoots *x509.CertPool
	intermediates   []*x509.Certificate
	all             *security // what the document carries in any of its revisions
	known           map[chainKey][][]*x509.Certificate
	evidence        map[evidenceKey]evidenceResult
	tries           int // pieces of evidence that may still be tried on certificates
}

type chainKey struct {
	cert  [sha256.Size]byte
	roots *x509.CertPool
	usage x509.ExtKeyUsage
}

type evidenceKey struct{ der, cert, issuer [sha256.Size]byte }

type evidenceResult struct {
	evidence *revocation.Evidence
	err      error
}

func newTrust(o Options) *trust {
	return &trust{
		roots: poolOf(o.Roots), tsaRoots: poolOf(o.TSARoots), intermediates: o.Intermediates, all: newSecurity(),
		known: map[chainKey][][]*x509.Certificate{}, evidence: map[evidenceKey]evidenceResult{}, tries: maxEvidenceTries,
	}
}

// chains leads a certificate to trusted roots, all of it valid at that time and none of its keys below the floor.
func (t *trust) chains(cert *x509.Certificate, embedded []*x509.Certificate, roots *x509.CertPool, at time.Time, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	key := chainKey{sha256.Sum256(cert.Raw), roots, usage}
	if known := validAt(t.known[key], at); len(known) > 0 {
		return known, nil
	}
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: poolOf(slices.Concat(embedded, t.all.certs, t.intermediates)), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, err
	}
	strong := slices.DeleteFunc(slices.Clone(chains), func(chain []*x509.Certificate) bool {
		err = firstError(err, checkKeys(chain))
		return checkKeys(chain) != nil
	})
	if len(strong) == 0 {
		return nil, err
	}
	t.known[key] = append(t.known[key], strong...)
	return strong, nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func checkKeys(chain []*x509.Certificate) error {
	for _, c := range chain {
		if err := cms.CheckKey(c.PublicKey); err != nil {
			return err
		}
	}
	return nil
}

// validAt picks the chains of which every certificate was valid at a time.
func validAt(chains [][]*x509.Certificate, at time.Time) [][]*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(chains), func(chain []*x509.Certificate) bool {
		return slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return at.Before(c.NotBefore) || at.After(c.NotAfter) })
	})
}

// parse reads one piece of evidence about a certificate; once.
func (t *trust) parse(p piece, cert, issuer *x509.Certificate) (*revocation.Evidence, error) {
	key := evidenceKey{p.sum, sha256.Sum256(cert.Raw), sha256.Sum256(issuer.Raw)}
	r, ok := t.evidence[key]
	if !ok {
		if t.tries--; t.tries < 0 {
			return nil, &pdf.LimitError{What: "the document carries too many pieces of evidence to try each on every certificate", Limit: maxEvidenceTries}
		}
		if p.kind == revocation.OCSP {
			r.evidence, r.err = revocation.ParseOCSP(p.der, cert, issuer)
		} else {
			r.evidence, r.err = revocation.ParseCRL(p.der, cert, issuer)
		}
		t.evidence[key] = r
	}
	return r.evidence, r.err
}
