// Package revocation asks whether certificates are still good: OCSP responders (RFC 6960) and revocation lists (RFC 5280),
// at the addresses that the certificates name. What it returns is evidence, not an opinion: the bytes as they
// came, checked, so that they can be kept beside a seal and judged again in twenty years.
//
// Everything about an answer is checked here: that it is about that certificate and that issuer, who signed it and whether
// the issuer let them, the nonce where one came back, and the times.
package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Kind tells the two sorts of evidence apart.
type Kind string

// The kinds of evidence.
const (
	OCSP Kind = "ocsp"
	CRL  Kind = "crl"
)

// Evidence is what a certificate's issuer, or a responder in its name, says about the certificate.
type Evidence struct {
	Kind Kind
	// DER is an OCSPResponse or a CertificateList, as it came.
	DER []byte
	// Revoked says that the certificate was revoked at RevokedAt, for Reason (a CRLReason code, RFC 5280 section 5.3.1).
	Revoked   bool
	RevokedAt time.Time
	Reason    int
	// ProducedAt is when the answer was signed. A revocation list has no other time than ThisUpdate.
	ProducedAt, ThisUpdate time.Time
	// NextUpdate is when newer evidence will be there at the latest; zero when the responder does not say.
	NextUpdate time.Time
	// Remembers is since when certificates that ended are still spoken of: the archive cutoff of an OCSP response (RFC 6960, 4.4.4), or
	// the expiredCertsOnCRL of a list (ITU-T X.509, 2.5.29.60); zero when the evidence does not say.
	Remembers time.Time
	// Responder is the certificate that an OCSP response was signed with, when that is not the issuer's own.
	Responder *x509.Certificate
	// Nonce is the nonce of an OCSP response; nil when it has none.
	Nonce []byte
	// Source is the address that it was fetched from, without its query.
	Source string
}

// Identifiers of extensions.
var (
	oidNoCheck    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5} // id-pkix-ocsp-nocheck (RFC 6960, 4.2.2.2.1)
	oidNonce      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2} // id-pkix-ocsp-nonce (RFC 6960, 4.4.1)
	oidDeltaCRL   = asn1.ObjectIdentifier{2, 5, 29, 27}                  // delta CRL indicator (RFC 5280, 5.2.4)
	oidScope      = asn1.ObjectIdentifier{2, 5, 29, 28}                  // issuing distribution point (RFC 5280, 5.2.5)
	oidCRLIssuer  = asn1.ObjectIdentifier{2, 5, 29, 29}                  // certificate issuer of an entry (RFC 5280, 5.3.3)
	oidCutoff     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 6} // id-pkix-ocsp-archive-cutoff (RFC 6960, 4.4.4)
	oidExpired    = asn1.ObjectIdentifier{2, 5, 29, 60}                  // expired certificates on the list (ITU-T X.509)
	oidReason     = asn1.ObjectIdentifier{2, 5, 29, 21}                  // reason of an entry (RFC 5280, 5.3.1)
	oidInvalidity = asn1.ObjectIdentifier{2, 5, 29, 24}                  // since when an entry's key may be known to others (RFC 5280, 5.3.2)
	oidCRLNumber  = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidCRLAuthKey = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// tooWeak are algorithms that evidence may not be signed with. Package crypto/x509 refuses them for certificates, and not for evidence.
var tooWeak = map[x509.SignatureAlgorithm]bool{
	x509.MD2WithRSA: true, x509.MD5WithRSA: true, x509.SHA1WithRSA: true, x509.DSAWithSHA1: true, x509.ECDSAWithSHA1: true,
}

// NeedsNone reports whether nobody can or need say anything about a certificate: it is a root, which is trusted or not, or
// that of a responder whose issuer waives the question.
func NeedsNone(c *x509.Certificate) bool {
	if has(c, oidNoCheck) {
		return true
	}
	return string(c.RawSubject) == string(c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

func has(c *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			return true
		}
	}
	return false
}

// FormatError says that evidence is not what it claims to be: it cannot be read, is about something else, or is signed by
// somebody who may not.
type FormatError struct {
	Kind   Kind
	Reason string
}

func (e *FormatError) Error() string {
	return map[Kind]string{OCSP: "the OCSP response ", CRL: "the revocation list "}[e.Kind] + e.Reason
}

// AgeError says that evidence is good in itself, but not of the time that is asked about.
type AgeError struct {
	Kind   Kind
	Reason string
}

func (e *AgeError) Error() string {
	return map[Kind]string{OCSP: "the OCSP response ", CRL: "the revocation list "}[e.Kind] + e.Reason
}

// Fresh says whether e may be relied on at a time: it must have been made by then, give or take the skew of clocks, and
// newer evidence must not be due. One that does not say when newer evidence is due is fresh for a day.
func (e *Evidence) Fresh(at time.Time, skew time.Duration) error {
	due := e.NextUpdate
	if due.IsZero() {
		due = e.ThisUpdate.Add(24 * time.Hour)
	}
	switch {
	case e.ThisUpdate.After(at.Add(skew)):
		return &AgeError{e.Kind, "is of the future: it holds from " + e.ThisUpdate.UTC().Format(time.RFC3339)}
	case due.Before(at.Add(-skew)):
		return &AgeError{e.Kind, "is out of date: newer evidence was due at " + due.UTC().Format(time.RFC3339)}
	}
	return nil
}

// Knows says whether e would speak of cert if that had been revoked. Authorities forget certificates some time after their end (RFC
// 5280, section 3.3), so that evidence from behind it says nothing by naming none, unless it says that it remembers them.
func (e *Evidence) Knows(cert *x509.Certificate) error {
	if e.Revoked || !e.ThisUpdate.After(cert.NotAfter) || !e.Remembers.IsZero() && !e.Remembers.After(cert.NotAfter) {
		return nil
	}
	return &AgeError{e.Kind, fmt.Sprintf("is from %s, when the certificate had ended, and does not say that it remembers such ones", e.ThisUpdate.UTC().Format(time.RFC3339))}
}

// rememberedSince reads a GeneralizedTime, the whole value of an extension.
func rememberedSince(value []byte) (at time.Time, err error) {
	in := cryptobyte.String(value)
	if !in.ReadASN1GeneralizedTime(&at) || !in.Empty() {
		return at, errors.New("says since when it remembers certificates that ended in a way that cannot be read")
	}
	return at, nil
}

// readExtension reads an Extension (RFC 5280, section 4.1) up to its value.
func readExtension(list *cryptobyte.String) (oid asn1.ObjectIdentifier, critical bool, value cryptobyte.String, ok bool) {
	var one cryptobyte.String
	ok = list.ReadASN1(&one, casn1.SEQUENCE) && one.ReadASN1ObjectIdentifier(&oid) &&
		(!one.PeekASN1Tag(casn1.BOOLEAN) || one.ReadASN1Boolean(&critical)) && one.ReadASN1(&value, casn1.OCTET_STRING) && one.Empty()
	return oid, critical, value, ok
}
