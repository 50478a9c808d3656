package signing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/dealseal/dealseal/mocks/pki"
)

func TestACertificateIsRememberedTogetherWithItsIssuerOnly(t *testing.T) {
	issue := func() (cert, issuer *x509.Certificate) {
		a, err := pki.New(pki.Options{NoLocations: true})
		if err != nil {
			t.Fatal(err)
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := a.IssueSigner(key.Public(), pkix.Name{CommonName: "seal"})
		if err != nil {
			t.Fatal(err)
		}
		return chain[0], chain[1]
	}
	cert, issuer := issue()
	other, stranger := issue()
	var known issuance
	for range 2 { // asked, and remembered
		if err := known.check(cert, issuer); err != nil {
			t.Error(err)
		}
		if known.check(cert, stranger) == nil || known.check(other, issuer) == nil || known.check(issuer, cert) == nil {
			t.Error("a certificate counts as issued by whoever did not issue it")
		}
	}
}
