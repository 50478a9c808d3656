package pades

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidAttribute is the arc of the attributes of PKCS #9 and S/MIME.
func oidAttribute(arcs ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9}, arcs...)
}

// Object identifiers of CMS, encoded.
var (
	cmsData       = object(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1})
	cmsSignedData = object(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2})

	attributeContentType        = object(oidAttribute(3))
	attributeMessageDigest      = object(oidAttribute(4))
	attributeSigningCertificate = object(oidAttribute(16, 2, 47)) // version 2
	attributeTimestamp          = object(oidAttribute(16, 2, 14))
)

// signedAttributes makes the DER of the SET OF signed attributes: content-type, message-digest and
// signing-certificate-v2. There is no signing-time: in PAdES the time is /M of the signature dictionary.
func signedAttributes(documentDigest []byte, h crypto.Hash, cert *x509.Certificate) ([]byte, error) {
	signing, err := signingCertificate(h, cert)
	if err != nil {
		return nil, err
	}
	return setOf(cbasn1.SET, [][]byte{
		attribute(attributeContentType, cmsData),
		attribute(attributeMessageDigest, octets(documentDigest)),
		attribute(attributeSigningCertificate, signing),
	}), nil
}

// attribute makes an Attribute with one value.
func attribute(kind, value []byte) []byte { return sequence(kind, tlv(cbasn1.SET, value)) }

// setOf makes a SET OF in the order that DER demands: ascending by encoding (X.690, 11.6).
func setOf(tag cbasn1.Tag, elements [][]byte) []byte {
	slices.SortFunc(elements, bytes.Compare)
	return tlv(tag, elements...)
}

// signingCertificate makes SigningCertificateV2 (RFC 5035, 3) with the signer's certificate only. Its digest algorithm is
// left out when it is the default, SHA-256, as DER demands.
func signingCertificate(h crypto.Hash, cert *x509.Certificate) ([]byte, error) {
	var algorithm []byte
	if h != crypto.SHA256 {
		var err error
		if algorithm, err = digestAlgorithm(h); err != nil {
			return nil, err
		}
	}
	digest := h.New()
	digest.Write(cert.Raw)
	issuer := sequence(sequence(tlv(explicit(4), cert.RawIssuer)), integer(cert.SerialNumber)) // IssuerSerial
	id := sequence(algorithm, octets(digest.Sum(nil)), issuer)                                 // ESSCertIDv2
	return sequence(sequence(id)), nil
}

// signedData is what goes into /Contents.
type signedData struct {
	algorithm  Algorithm
	chain      []*x509.Certificate
	attributes []byte // DER SET OF
	value      []byte
	token      []byte // TimeStampToken, or nil
}

// encode makes the DER of a ContentInfo with SignedData (RFC 5652, 5).
func (s *signedData) encode() ([]byte, error) {
	digest, err := digestAlgorithm(s.algorithm.Hash)
	if err != nil {
		return nil, err
	}
	signer, err := s.signerInfo(digest)
	if err != nil {
		return nil, err
	}
	certificates := make([][]byte, len(s.chain))
	for i, c := range s.chain {
		certificates[i] = c.Raw
	}
	return sequence(cmsSignedData, tlv(explicit(0), sequence(
		small(1),
		tlv(cbasn1.SET, digest),
		sequence(cmsData),
		setOf(explicit(0), certificates),
		tlv(cbasn1.SET, signer),
	))), nil
}

func (s *signedData) signerInfo(digest []byte) ([]byte, error) {
	// The same attributes that were signed as a SET stand here under an implicit tag (RFC 5652, 5.4).
	attributes := cryptobyte.String(s.attributes)
	var content cryptobyte.String
	if !attributes.ReadASN1(&content, cbasn1.SET) || !attributes.Empty() {
		return nil, refuse("the staged signed attributes are not a SET")
	}
	algorithm, err := s.algorithm.identifier()
	if err != nil {
		return nil, err
	}
	var unsigned []byte
	if s.token != nil {
		unsigned = tlv(explicit(1), attribute(attributeTimestamp, s.token))
	}
	signer := s.chain[0]
	return sequence(
		small(1),
		sequence(signer.RawIssuer, integer(signer.SerialNumber)),
		digest,
		tlv(explicit(0), content),
		algorithm,
		octets(s.value),
		unsigned,
	), nil
}
