package verify

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

// Attestation is what a signature beside bytes that are no document says.
type Attestation struct {
	Signer Certificate `json:"signer"`
	// At is the time at which the signer's certificate had to be valid: that of the time-stamp, or, without one, now.
	At      time.Time `json:"at"`
	Stamped bool      `json:"time_stamped"`
}

// AttestationError says why such a signature proves nothing.
type AttestationError struct {
	Verdict Verdict // Invalid or Indeterminate
	Reason  string
}

func (e *AttestationError) Error() string { return e.Reason }

// Permanent is true.
func (e *AttestationError) Permanent() bool { return true }

// CheckAttestation judges a detached CMS signature over content. The error is an *AttestationError.
func CheckAttestation(value, content []byte, o Options) (*Attestation, error) {
	o = o.withDefaults()
	bad := func(v Verdict, format string, args ...any) error {
		return &AttestationError{v, fmt.Sprintf(format, args...)}
	}
	sd, err := cms.Parse(value)
	switch {
	case err != nil:
		return nil, bad(Invalid, "it cannot be read: %v", err)
	case len(sd.Signers) != 1 || sd.Content != nil:
		return nil, bad(Invalid, "it has %d signers, or a content of its own: one signer and none are expected", len(sd.Signers))
	}
	signer := sd.Signers[0]
	if err := signer.CheckDigest(); err != nil {
		return nil, bad(Indeterminate, "%v", err)
	}
	if err := signer.CheckContent(cms.OIDData, sumOf(signer.Hash, content)); err != nil {
		return nil, bad(Invalid, "it is over other bytes: %v", err)
	}
	cert := sd.Certificate(signer)
	if cert == nil {
		return nil, bad(Indeterminate, "the certificate of the signer is not in it")
	}
	if err := signer.CheckSignature(cert); err != nil {
		v := Invalid
		if errors.Is(err, cms.ErrWeak) || errors.Is(err, cms.ErrUnsupported) {
			v = Indeterminate
		}
		return nil, bad(v, "%v", err)
	}
	if err := signer.CheckSigningCertificate(cert); err != nil {
		return nil, bad(Invalid, "%v", err)
	}
	a := &Attestation{Signer: describeCertificate(cert), At: o.Now}
	if signer.Unsigned.Has(cms.OIDTimeStampToken) {
		at, err := attestedAt(signer, o)
		if err != nil {
			return nil, bad(Indeterminate, "its time-stamp: %v", err)
		}
		a.At, a.Stamped = at, true
	}
	if err := CheckSigner(append([]*x509.Certificate{cert}, sd.Certificates...), o.Roots, a.At); err != nil {
		return nil, bad(Indeterminate, "%v", err)
	}
	return a, nil
}

func sumOf(h crypto.Hash, b []byte) []byte {
	sum := h.New()
	sum.Write(b)
	return sum.Sum(nil)
}

func attestedAt(signer *cms.Signer, o Options) (time.Time, error) {
	der, err := signer.Unsigned.Single(cms.OIDTimeStampToken)
	if err != nil {
		return time.Time{}, err
	}
	token, err := tsa.ParseToken(der)
	if err != nil {
		return time.Time{}, err
	}
	return token.Time, token.Verify(sumOf(token.Hash, signer.Signature), token.Hash, tsa.VerifyOptions{Roots: poolOf(o.TSARoots)})
}
