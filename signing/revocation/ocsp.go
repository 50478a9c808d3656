package revocation

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // responders name issuers by it; nothing is trusted for it
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// maxAnswers bounds how many certificates one response may speak of.
const maxAnswers = 1000

// ParseOCSP reads an OCSP response about cert and checks everything but its age: that it speaks of cert under issuer, and
// that the issuer signed it, or one whom the issuer has named for it (RFC 6960, section 4.2.2.2). Errors are
// *FormatError.
func ParseOCSP(der []byte, cert, issuer *x509.Certificate) (*Evidence, error) {
	bad := func(format string, args ...any) error { return &FormatError{OCSP, fmt.Sprintf(format, args...)} }
	r, err := ocsp.ParseResponseForCert(der, cert, nil)
	if err != nil {
		return nil, bad("cannot be used: %v", err)
	}
	data, err := readResponseData(r.TBSResponseData, cert.SerialNumber)
	if err != nil {
		return nil, bad("cannot be read: %v", err)
	}
	if !data.id.names(issuer) {
		return nil, bad("speaks of a certificate of another issuer")
	}
	if tooWeak[r.SignatureAlgorithm] {
		return nil, bad("is signed with %v, which proves nothing any more", r.SignatureAlgorithm)
	}
	responder, err := responderOf(r, issuer)
	if err != nil {
		return nil, bad("%v", err)
	}
	if err := responder.CheckSignature(r.SignatureAlgorithm, r.TBSResponseData, r.Signature); err != nil {
		return nil, bad("has a signature that does not verify: %v", err)
	}
	if r.Status == ocsp.Unknown {
		return nil, bad("says that the responder does not know the certificate")
	}
	e := &Evidence{Kind: OCSP, DER: der, ProducedAt: r.ProducedAt, ThisUpdate: r.ThisUpdate, NextUpdate: r.NextUpdate, Nonce: data.nonce}
	for _, x := range r.Extensions {
		if x.Id.Equal(oidCutoff) {
			if e.Remembers, err = rememberedSince(x.Value); err != nil {
				return nil, bad("%v", err)
			}
		}
	}
	if r.Status == ocsp.Revoked {
		e.Revoked, e.RevokedAt, e.Reason = true, r.RevokedAt, r.RevocationReason
	}
	if responder != issuer {
		e.Responder = responder
	}
	return e, nil
}

// responderOf returns who must have signed a response: the issuer, or the certificate that came with it, if the issuer
// made that one for the purpose and it was valid when the response was signed.
func responderOf(r *ocsp.Response, issuer *x509.Certificate) (*x509.Certificate, error) {
	c := r.Certificate
	if c == nil || bytes.Equal(c.Raw, issuer.Raw) {
		return issuer, nil
	}
	switch err := c.CheckSignatureFrom(issuer); {
	case err != nil:
		return nil, fmt.Errorf("is signed by %s, whom the issuer has not named for it: %v", c.Subject, err)
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return nil, fmt.Errorf("is signed by %s, whose certificate is not for that purpose", c.Subject)
	case r.ProducedAt.Before(c.NotBefore) || r.ProducedAt.After(c.NotAfter):
		return nil, fmt.Errorf("is signed by %s, whose certificate was not valid then", c.Subject)
	}
	return c, nil
}

// responseData is what package ocsp does not tell of a ResponseData.
type responseData struct {
	id    certID
	nonce []byte
}

// certID names a certificate by the hashes of its issuer's name and key.
type certID struct {
	hash      crypto.Hash
	name, key []byte
	serial    *big.Int
}

// names reports whether issuer is the one that is meant.
func (id certID) names(issuer *x509.Certificate) bool {
	if !id.hash.Available() {
		return false
	}
	key, err := publicKeyBits(issuer)
	if err != nil {
		return false
	}
	sum := func(b []byte) []byte { h := id.hash.New(); h.Write(b); return h.Sum(nil) }
	return bytes.Equal(sum(issuer.RawSubject), id.name) && bytes.Equal(sum(key), id.key)
}

// publicKeyBits is the content of the key's BIT STRING, over which issuers are hashed (RFC 6960, section 4.1.1).
func publicKeyBits(c *x509.Certificate) ([]byte, error) {
	in := cryptobyte.String(c.RawSubjectPublicKeyInfo)
	var spki, algorithm cryptobyte.String
	var bits []byte
	if !in.ReadASN1(&spki, casn1.SEQUENCE) || !spki.ReadASN1(&algorithm, casn1.SEQUENCE) || !spki.ReadASN1BitStringAsBytes(&bits) {
		return nil, fmt.Errorf("the public key of %s is not in its usual form", c.Subject)
	}
	return bits, nil
}

// readResponseData finds the answer about a serial number: the first one, which is also the one that package ocsp takes.
func readResponseData(der []byte, serial *big.Int) (*responseData, error) {
	in := cryptobyte.String(der)
	var data, answers, skipped cryptobyte.String
	if !in.ReadASN1(&data, casn1.SEQUENCE) || !in.Empty() ||
		!data.SkipOptionalASN1(explicit(0)) || // version
		!data.ReadAnyASN1(&skipped, new(casn1.Tag)) || // responderID
		!data.ReadASN1(&skipped, casn1.GeneralizedTime) || // producedAt
		!data.ReadASN1(&answers, casn1.SEQUENCE) {
		return nil, errForm
	}
	out := &responseData{}
	for n := 0; !answers.Empty(); n++ {
		var answer cryptobyte.String
		if n == maxAnswers || !answers.ReadASN1(&answer, casn1.SEQUENCE) {
			return nil, errForm
		}
		id, err := readCertID(&answer)
		if err != nil {
			return nil, err
		}
		if out.id.serial == nil && id.serial.Cmp(serial) == 0 {
			out.id = id
		}
	}
	if out.id.serial == nil {
		return nil, fmt.Errorf("it does not speak of the certificate")
	}
	nonce, err := readNonce(data)
	out.nonce = nonce
	return out, err
}

var errForm = fmt.Errorf("it is not the DER that RFC 6960 describes")

func readCertID(answer *cryptobyte.String) (id certID, err error) {
	var seq, algorithm cryptobyte.String
	var oid asn1.ObjectIdentifier
	id.serial = new(big.Int)
	if !answer.ReadASN1(&seq, casn1.SEQUENCE) || !seq.ReadASN1(&algorithm, casn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) ||
		!seq.ReadASN1Bytes(&id.name, casn1.OCTET_STRING) || !seq.ReadASN1Bytes(&id.key, casn1.OCTET_STRING) || !seq.ReadASN1Integer(id.serial) {
		return id, errForm
	}
	id.hash = hashes[oid.String()]
	return id, nil
}

// hashes that a CertID may be made with. SHA-1 only finds the issuer; whether the answer is true hangs on the signature.
var hashes = map[string]crypto.Hash{
	"1.3.14.3.2.26": crypto.SHA1, "2.16.840.1.101.3.4.2.1": crypto.SHA256, "2.16.840.1.101.3.4.2.2": crypto.SHA384, "2.16.840.1.101.3.4.2.3": crypto.SHA512,
}

// readNonce looks through the extensions of the response. One that is critical has to be known (RFC 6960, section 4.4).
func readNonce(data cryptobyte.String) (nonce []byte, err error) {
	var extensions, list cryptobyte.String
	var present bool
	if !data.ReadOptionalASN1(&extensions, &present, explicit(1)) || !data.Empty() {
		return nil, errForm
	}
	if !present {
		return nil, nil
	}
	if !extensions.ReadASN1(&list, casn1.SEQUENCE) {
		return nil, errForm
	}
	for !list.Empty() {
		oid, critical, value, ok := readExtension(&list)
		if !ok {
			return nil, errForm
		}
		switch {
		case oid.Equal(oidNonce) && nonce == nil:
			if !value.ReadASN1Bytes(&nonce, casn1.OCTET_STRING) {
				return nil, errForm
			}
		case critical:
			return nil, fmt.Errorf("it has the critical extension %s, whose meaning is not known here", oid)
		}
	}
	return nonce, nil
}

func explicit(n uint8) casn1.Tag { return casn1.Tag(n).ContextSpecific().Constructed() }

// request makes an OCSPRequest for cert with a nonce (RFC 8954: 1 to 32 bytes).
func request(cert, issuer *x509.Certificate, nonce []byte) ([]byte, error) {
	key, err := publicKeyBits(issuer)
	if err != nil {
		return nil, err
	}
	// Responders that answer from a store know the SHA-1 form; it only names the issuer.
	sum := func(b []byte) []byte { h := crypto.SHA1.New(); h.Write(b); return h.Sum(nil) }
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // OCSPRequest
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // TBSRequest
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // requestList
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // Request
					b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // CertID
						b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26})
							b.AddASN1NULL()
						})
						b.AddASN1OctetString(sum(issuer.RawSubject))
						b.AddASN1OctetString(sum(key))
						b.AddASN1BigInt(cert.SerialNumber)
					})
				})
			})
			b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { // requestExtensions
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidNonce)
						b.AddASN1(casn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
					})
				})
			})
		})
	})
	return b.Bytes()
}
