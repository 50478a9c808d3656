package signing

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// Floor is the weakest that a profile takes. What is zero means the weakest that anyone may take: RSA with 2048 bits,
// P-256, SHA-256; less cannot be asked for.
type Floor struct {
	RSA  int         // bits
	EC   int         // bits of the curve
	Hash crypto.Hash // SHA-256, SHA-384 or SHA-512
}

// check finds what is wrong with a floor, and with a digest that is to stand on it.
func (f Floor) check(h crypto.Hash) error {
	if h == 0 {
		h = crypto.SHA256
	}
	switch {
	case f.RSA != 0 && f.RSA < minRSABits:
		return fmt.Errorf("the floor of RSA is %d bits; less than %d is never taken", f.RSA, minRSABits)
	case f.EC != 0 && f.EC != 256 && f.EC != 384 && f.EC != 521:
		return fmt.Errorf("the floor of the curves is %d bits; it can be 256, 384 or 521", f.EC)
	case f.Hash != 0 && f.Hash != crypto.SHA256 && f.Hash != crypto.SHA384 && f.Hash != crypto.SHA512:
		return fmt.Errorf("the floor of the digests is %s; it can be SHA-256, SHA-384 or SHA-512", f.Hash)
	case f.Hash != 0 && h.Size() < f.Hash.Size():
		return fmt.Errorf("the digest %s is below the profile's floor of %s", h, f.Hash)
	}
	return nil
}

// certificates refuses a chain with a key that is weaker than the floor. A root at its end is trusted for what it is.
func (f Floor) certificates(chain []*x509.Certificate) error {
	for i, c := range chain {
		if i > 0 && string(c.RawSubject) == string(c.RawIssuer) {
			continue
		}
		if err := f.key(c.PublicKey); err != nil {
			return fmt.Errorf("the certificate %q is below the floor of the profile: %w", c.Subject, err)
		}
	}
	return nil
}

// Suits refuses certificates that the profile could not seal with, whatever their dates.
func (p *Profile) Suits(chain []*x509.Certificate) error {
	if err := p.Floor.certificates(chain); err != nil {
		return err
	}
	_, err := pades.AlgorithmFor(chain[0].PublicKey, cmp.Or(p.Hash, crypto.SHA256), p.PSS)
	return err
}

func (f Floor) key(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if least := max(f.RSA, minRSABits); k.N.BitLen() < least {
			return fmt.Errorf("its key has %d bits, and RSA needs %d", k.N.BitLen(), least)
		}
		return nil
	case *ecdsa.PublicKey:
		if least := max(f.EC, 256); k.Params().BitSize < least {
			return fmt.Errorf("its curve is %s, and one of %d bits is needed", k.Params().Name, least)
		}
		return nil
	}
	return fmt.Errorf("a %T cannot be judged; use RSA or ECDSA", pub)
}

// usualMinimum is how long a certificate has to be valid yet, unless a profile says otherwise: as long, or for a third of
// its life if that is less.
const usualMinimum = 14 * 24 * time.Hour

// MinValidityOf is how long a certificate has to be valid yet for the profile to seal with it.
func (p *Profile) MinValidityOf(c *x509.Certificate) time.Duration {
	if p.MinValidity > 0 {
		return p.MinValidity
	}
	return min(usualMinimum, c.NotAfter.Sub(c.NotBefore)/3)
}

// checkValidity stops sealing before the certificate ends, as long as there is time to get the next one.
func (p *Profile) checkValidity(c *x509.Certificate, now time.Time) error {
	if left, least := c.NotAfter.Sub(now), p.MinValidityOf(c); left < least {
		return &ValidityError{Key: p.Key, Subject: c.Subject.String(), NotAfter: c.NotAfter, Left: left, Least: least}
	}
	return nil
}

// ValidityError says that a certificate is valid, and ends too soon to seal with it.
type ValidityError struct {
	Key, Subject string
	NotAfter     time.Time
	Left, Least  time.Duration
}

func (e *ValidityError) Error() string {
	return fmt.Sprintf("signing: key %q: its certificate %q ends at %s, in %s, and the profile asks for %s: install the next certificate, or lower min_validity of the profile",
		e.Key, e.Subject, e.NotAfter.UTC().Format(time.RFC3339), inDays(e.Left), inDays(e.Least))
}

// Permanent is true: time makes it no better.
func (e *ValidityError) Permanent() bool { return true }

func inDays(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}
