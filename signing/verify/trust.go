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
	work            int // that chains may still take, in checks of one signature with RSA-4096
	refused         map[refusedKey]error
	sums            map[*x509.Certificate][sha256.Size]byte
}

type chainKey struct {
	cert  [sha256.Size]byte
	roots *x509.CertPool
	usage x509.ExtKeyUsage
}

// refusedKey is a chain that was not found: at other times it may be, and among other certificates.
type refusedKey struct {
	chainKey
	at    time.Time
	among [sha256.Size]byte // the certificates that could have been in it
}

// The budget of a document for chains: how much work in all, for how many certificates that could stand above one, how many of them
// by the same name, and how many signatures crypto/x509 checks at most in one search.
const (
	maxChainWork   = 1600
	maxCandidates  = 64
	maxNamesakes   = 16
	maxChainChecks = 100
)

type evidenceKey struct{ der, cert, issuer [sha256.Size]byte }

type evidenceResult struct {
	evidence *revocation.Evidence
	err      error
}

func newTrust(o Options) *trust {
	return &trust{
		roots: poolOf(o.Roots), tsaRoots: poolOf(o.TSARoots), intermediates: o.Intermediates, all: newSecurity(),
		known: map[chainKey][][]*x509.Certificate{}, evidence: map[evidenceKey]evidenceResult{}, tries: maxEvidenceTries,
		work: maxChainWork, refused: map[refusedKey]error{}, sums: map[*x509.Certificate][sha256.Size]byte{},
	}
}

// sum is the SHA-256 of a certificate, which may have a megabyte and be asked for with each signature; once.
func (t *trust) sum(c *x509.Certificate) [sha256.Size]byte {
	sum, known := t.sums[c]
	if !known {
		sum = sha256.Sum256(c.Raw)
		t.sums[c] = sum
	}
	return sum
}

// chains leads a certificate to trusted roots, all of it valid at that time and none of its keys below the floor.
func (t *trust) chains(cert *x509.Certificate, embedded []*x509.Certificate, roots *x509.CertPool, at time.Time, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	key := chainKey{t.sum(cert), roots, usage}
	if known := validAt(t.known[key], at); len(known) > 0 {
		return known, nil
	}
	above := t.candidates(cert, slices.Concat(t.intermediates, embedded, t.all.certs))
	miss := refusedKey{key, at, t.sumOf(above)}
	if err := t.refused[miss]; err != nil {
		return nil, err
	}
	found, err := t.build(cert, above, roots, at, usage)
	if err != nil {
		t.refused[miss] = err
		return nil, err
	}
	t.known[key] = append(t.known[key], found...)
	return found, nil
}

// build looks for chains of which no key is below the floor.
func (t *trust) build(cert *x509.Certificate, above []*x509.Certificate, roots *x509.CertPool, at time.Time, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	if t.work -= searchWork(above); t.work < 0 {
		return nil, &pdf.LimitError{What: "the certificates in the document take too long to be put into chains", Limit: maxChainWork}
	}
	chains, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: poolOf(above), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
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
	return strong, nil
}

// candidates are those that could stand above a certificate by their names: what else a document carries costs a search nothing.
// Whoever adds to a document may add any number by the name of an authority, so that of each name the first few count, and the
// issuers of the first of them come before those of the next.
func (t *trust) candidates(cert *x509.Certificate, all []*x509.Certificate) (above []*x509.Certificate) {
	byName := map[string][]*x509.Certificate{}
	for _, c := range all {
		byName[string(c.RawSubject)] = append(byName[string(c.RawSubject)], c)
	}
	seen := map[[sha256.Size]byte]bool{}
	var climb func(from *x509.Certificate)
	climb = func(from *x509.Certificate) {
		namesakes := byName[string(from.RawIssuer)]
		delete(byName, string(from.RawIssuer))
		first := len(above)
		for _, c := range namesakes {
			if len(above) == maxCandidates || len(above)-first == maxNamesakes {
				break
			}
			if sum := t.sum(c); !seen[sum] {
				seen[sum] = true
				above = append(above, c)
			}
		}
		for _, c := range above[first:len(above):len(above)] {
			climb(c)
		}
	}
	climb(cert)
	return above
}

// sumOf tells sets of certificates apart, and their order.
func (t *trust) sumOf(certs []*x509.Certificate) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, c := range certs {
		one := t.sum(c)
		h.Write(one[:])
	}
	h.Sum(sum[:0])
	return sum
}

// searchWork is what a search may take: each certificate may be tried below each other one.
func searchWork(above []*x509.Certificate) int {
	heaviest := 1
	for _, c := range above {
		heaviest = max(heaviest, cms.Weight(c.PublicKey))
	}
	return heaviest * min(1+len(above)*len(above), maxChainChecks)
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
