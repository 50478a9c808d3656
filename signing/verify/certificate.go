package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/signing/verify/cms"
)

// Purposes for which documents are signed: RFC 9336, and those that Microsoft and Adobe had before it.
var documentSigning = []asn1.ObjectIdentifier{
	{1, 3, 6, 1, 5, 5, 7, 3, 36},
	{1, 3, 6, 1, 4, 1, 311, 10, 3, 12},
	{1, 2, 840, 113583, 1, 1, 5},
}

func describeCertificate(c *x509.Certificate) Certificate {
	sum, spki := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return Certificate{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		SHA256: hex.EncodeToString(sum[:]), SPKI: hex.EncodeToString(spki[:]), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
}

// poolOf makes a pool that is never nil: nil would mean the roots of the system.
func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

// CheckSigner judges a signer's certificate, its chain behind it, as Verify would judge it on a document that was sealed at
// that time: by its chain to the roots, and by what it was issued for.
func CheckSigner(chain, roots []*x509.Certificate, at time.Time) error {
	if len(chain) == 0 {
		return errors.New("there is no certificate")
	}
	if err := checkUsage(chain[0]); err != nil {
		return err
	}
	_, err := newTrust(Options{Roots: roots}).chains(chain[0], chain[1:], poolOf(roots), at, x509.ExtKeyUsageAny)
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("at %s a certificate was not valid: %w", at.Format(time.RFC3339), err)
	case errors.Is(err, cms.ErrWeak):
		return err
	}
	return fmt.Errorf("no chain to a trusted root: %w", err)
}

// checkUsage refuses certificates that were issued for something other than signatures on documents. A certificate without a restriction has none.
func checkUsage(cert *x509.Certificate) error {
	if cert.KeyUsage != 0 && cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return errors.New("the key usage of the certificate allows no signatures")
	}
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range cert.ExtKeyUsage {
		if u == x509.ExtKeyUsageAny || u == x509.ExtKeyUsageEmailProtection || u == x509.ExtKeyUsageClientAuth {
			return nil
		}
	}
	for _, oid := range cert.UnknownExtKeyUsage {
		if slices.ContainsFunc(documentSigning, oid.Equal) {
			return nil
		}
	}
	return errors.New("the extended key usage of the certificate is for something other than documents")
}
