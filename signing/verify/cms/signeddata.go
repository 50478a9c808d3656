// Package cms reads CMS SignedData (RFC 5652) and checks what its signers signed. It is the common ground of the verifier of seals and that
// of time-stamp tokens, and it never builds chains: trust is for the caller.
//
// Only DER is read, as PAdES asks for; indefinite lengths are refused. Sizes and counts are bounded, so that a hostile structure costs no more than the
// bytes it is made of.
package cms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The budget of one structure. Real ones hold three to six certificates and one signer.
const (
	maxSize         = 4 << 20
	maxCertificates = 64
	maxSigners      = 8
	maxAttributes   = 64
	maxValues       = 16
)

var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// OIDData is the content type of detached document signatures (RFC 5652).
var OIDData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}

// SignedData is a parsed structure. It shares memory with the bytes that it was parsed from and is safe for concurrent reading.
type SignedData struct {
	ContentType  asn1.ObjectIdentifier
	Content      []byte // nil when detached
	Certificates []*x509.Certificate
	Unreadable   int // certificates that crypto/x509 refuses to read, or whose keys are too large; they are passed over
	Signers      []*Signer
}

// SyntaxError says which field is not the DER that CMS asks for.
type SyntaxError struct {
	Field  string
	Reason string
}

func (e *SyntaxError) Error() string { return "cms: " + e.Field + ": " + e.Reason }

// Permanent reports true: the bytes stay what they are.
func (e *SyntaxError) Permanent() bool { return true }

func bad(field string) error { return &SyntaxError{field, "not the DER expected here"} }

// ElementLength returns the length of the DER element at the start of b, so that a caller can tell it from the padding behind it.
func ElementLength(b []byte) (int, error) {
	s := cryptobyte.String(b)
	var element cryptobyte.String
	if !s.ReadASN1Element(&element, casn1.SEQUENCE) {
		return 0, bad("ContentInfo")
	}
	return len(element), nil
}

// Parse reads a ContentInfo that holds a SignedData and nothing behind it. Errors are of type *SyntaxError.
func Parse(der []byte) (*SignedData, error) {
	if len(der) > maxSize {
		return nil, &SyntaxError{"ContentInfo", fmt.Sprintf("%d bytes are more than the %d allowed", len(der), maxSize)}
	}
	body, err := contentInfo(der)
	if err != nil {
		return nil, err
	}
	var version int
	var digests, encap cryptobyte.String
	if !body.ReadASN1Integer(&version) || !body.ReadASN1(&digests, casn1.SET) || !body.ReadASN1(&encap, casn1.SEQUENCE) {
		return nil, bad("SignedData")
	}
	var sd SignedData
	if err := sd.readContent(encap); err != nil {
		return nil, err
	}
	var certs cryptobyte.String
	var present bool
	if !body.ReadOptionalASN1(&certs, &present, context(0)) || !body.SkipOptionalASN1(context(1)) {
		return nil, bad("SignedData.certificates")
	}
	if err := sd.readCertificates(certs); err != nil {
		return nil, err
	}
	var infos cryptobyte.String
	if !body.ReadASN1(&infos, casn1.SET) || !body.Empty() {
		return nil, bad("SignedData.signerInfos")
	}
	return &sd, sd.readSigners(infos)
}

func contentInfo(der []byte) (cryptobyte.String, error) {
	in := cryptobyte.String(der)
	var info, explicit, body cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&info, casn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&oid) || !info.ReadASN1(&explicit, context(0)) || !info.Empty() {
		return nil, bad("ContentInfo")
	}
	if !in.Empty() {
		return nil, &SyntaxError{"ContentInfo", fmt.Sprintf("%d bytes follow it", len(in))}
	}
	if !oid.Equal(oidSignedData) {
		return nil, &SyntaxError{"ContentInfo.contentType", fmt.Sprintf("%v is not SignedData", oid)}
	}
	if !explicit.ReadASN1(&body, casn1.SEQUENCE) || !explicit.Empty() {
		return nil, bad("SignedData")
	}
	return body, nil
}

func (sd *SignedData) readContent(encap cryptobyte.String) error {
	if !encap.ReadASN1ObjectIdentifier(&sd.ContentType) {
		return bad("EncapsulatedContentInfo.eContentType")
	}
	var explicit cryptobyte.String
	var present bool
	if !encap.ReadOptionalASN1(&explicit, &present, context(0)) || !encap.Empty() {
		return bad("EncapsulatedContentInfo")
	}
	if present && (!explicit.ReadASN1Bytes(&sd.Content, casn1.OCTET_STRING) || !explicit.Empty()) {
		return bad("EncapsulatedContentInfo.eContent")
	}
	return nil
}

// readCertificates passes over attribute certificates and over certificates that crypto/x509 refuses: the signer's own is missed soon enough.
func (sd *SignedData) readCertificates(certs cryptobyte.String) error {
	for n := 0; !certs.Empty(); n++ {
		if n == maxCertificates {
			return &SyntaxError{"SignedData.certificates", fmt.Sprintf("more than %d", maxCertificates)}
		}
		var raw cryptobyte.String
		var tag casn1.Tag
		if !certs.ReadAnyASN1Element(&raw, &tag) {
			return bad("SignedData.certificates")
		}
		if tag != casn1.SEQUENCE {
			continue
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil || TooLarge(cert) {
			sd.Unreadable++
			continue
		}
		sd.Certificates = append(sd.Certificates, cert)
	}
	return nil
}

// maxRSABits is where checking one signature still takes a millisecond; the time grows with the square, and with the bits of
// the exponent.
const maxRSABits = 8192

// Weight is how long checking a signature with a key takes, as a multiple of what RSA takes with 4096 bits and the usual exponent.
func Weight(public crypto.PublicKey) int {
	switch k := public.(type) {
	case *rsa.PublicKey:
		const usual = 4096 * 4096 * 17
		return 1 + k.N.BitLen()*k.N.BitLen()*bits.Len(uint(k.E))/(usual+1)
	case *ecdsa.PublicKey:
		if k.Params().BitSize > 256 {
			return 4
		}
	}
	return 1
}

// TooLarge reports whether a key is so large that no signature is checked with it.
func TooLarge(cert *x509.Certificate) bool {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	return ok && (key.N.BitLen() > maxRSABits || Weight(key) > 4)
}

func (sd *SignedData) readSigners(infos cryptobyte.String) error {
	for !infos.Empty() {
		if len(sd.Signers) == maxSigners {
			return &SyntaxError{"SignedData.signerInfos", fmt.Sprintf("more than %d", maxSigners)}
		}
		var info cryptobyte.String
		if !infos.ReadASN1(&info, casn1.SEQUENCE) {
			return bad("SignedData.signerInfos")
		}
		signer, err := readSigner(info)
		if err != nil {
			return fmt.Errorf("signer %d: %w", len(sd.Signers)+1, err)
		}
		sd.Signers = append(sd.Signers, signer)
	}
	return nil
}

// Certificate returns the certificate that a signer names, or nil when it is not in the structure.
func (sd *SignedData) Certificate(s *Signer) *x509.Certificate {
	for _, c := range sd.Certificates {
		if s.names(c) {
			return c
		}
	}
	return nil
}

func readSigner(info cryptobyte.String) (*Signer, error) {
	var s Signer
	var version int
	if !info.ReadASN1Integer(&version) {
		return nil, bad("SignerInfo.version")
	}
	if err := s.readIdentifier(&info); err != nil {
		return nil, err
	}
	var digest, signature cryptobyte.String
	if !info.ReadASN1(&digest, casn1.SEQUENCE) || !digest.ReadASN1ObjectIdentifier(&s.digest) {
		return nil, bad("SignerInfo.digestAlgorithm")
	}
	s.Hash = HashByOID(s.digest)
	if err := s.readSignedAttributes(&info); err != nil {
		return nil, err
	}
	if !info.ReadASN1(&signature, casn1.SEQUENCE) || !signature.ReadASN1ObjectIdentifier(&s.algorithm) {
		return nil, bad("SignerInfo.signatureAlgorithm")
	}
	s.parameters = []byte(signature)
	if !info.ReadASN1Bytes(&s.Signature, casn1.OCTET_STRING) {
		return nil, bad("SignerInfo.signature")
	}
	var unsigned cryptobyte.String
	var present bool
	if !info.ReadOptionalASN1(&unsigned, &present, context(1)) || !info.Empty() {
		return nil, bad("SignerInfo.unsignedAttrs")
	}
	var err error
	s.Unsigned, err = readAttributes(unsigned, "SignerInfo.unsignedAttrs")
	return &s, err
}

func (s *Signer) readIdentifier(info *cryptobyte.String) error {
	if info.PeekASN1Tag(casn1.SEQUENCE) {
		var id, issuer cryptobyte.String
		s.serial = new(big.Int)
		if !info.ReadASN1(&id, casn1.SEQUENCE) || !id.ReadASN1Element(&issuer, casn1.SEQUENCE) || !id.ReadASN1Integer(s.serial) || !id.Empty() {
			return bad("SignerInfo.issuerAndSerialNumber")
		}
		s.issuer = issuer
		return nil
	}
	if !info.ReadASN1Bytes(&s.keyID, casn1.Tag(0).ContextSpecific()) || len(s.keyID) == 0 {
		return bad("SignerInfo.sid")
	}
	return nil
}

func (s *Signer) readSignedAttributes(info *cryptobyte.String) error {
	var raw cryptobyte.String
	if !info.PeekASN1Tag(context(0)) {
		return nil
	}
	if !info.ReadASN1Element(&raw, context(0)) {
		return bad("SignerInfo.signedAttrs")
	}
	// RFC 5652: what is signed is the SET OF itself, not the [0] that stands for it in SignerInfo.
	s.signedSet = append([]byte{byte(casn1.SET)}, raw[1:]...)
	var content cryptobyte.String
	if !raw.ReadASN1(&content, context(0)) {
		return bad("SignerInfo.signedAttrs")
	}
	var err error
	s.Signed, err = readAttributes(content, "SignerInfo.signedAttrs")
	return err
}

func readAttributes(in cryptobyte.String, field string) (Attributes, error) {
	var list Attributes
	for !in.Empty() {
		if len(list) == maxAttributes {
			return nil, &SyntaxError{field, fmt.Sprintf("more than %d attributes", maxAttributes)}
		}
		var attr, values cryptobyte.String
		var a Attribute
		if !in.ReadASN1(&attr, casn1.SEQUENCE) || !attr.ReadASN1ObjectIdentifier(&a.Type) || !attr.ReadASN1(&values, casn1.SET) || !attr.Empty() {
			return nil, bad(field)
		}
		for !values.Empty() {
			var value cryptobyte.String
			var tag casn1.Tag
			if !values.ReadAnyASN1Element(&value, &tag) || len(a.Values) == maxValues {
				return nil, &SyntaxError{field, fmt.Sprintf("values of %v are not DER, or more than %d", a.Type, maxValues)}
			}
			a.Values = append(a.Values, value)
		}
		list = append(list, a)
	}
	return list, nil
}

func context(n uint8) casn1.Tag { return casn1.Tag(n).ContextSpecific().Constructed() }
