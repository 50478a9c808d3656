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

func oidCMS(content int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, content}
}

const (
	cmsData       = 1
	cmsSignedData = 2
)

// signedAttributes makes the DER of the SET OF signed attributes: content-type, message-digest and
// signing-certificate-v2. There is no signing-time: in PAdES the time is /M of the signature dictionary.
func signedAttributes(documentDigest []byte, h crypto.Hash, cert *x509.Certificate) ([]byte, error) {
	return setOf(cbasn1.SET, [][]byte{
		attribute(oidAttribute(3), func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidCMS(cmsData)) }),
		attribute(oidAttribute(4), func(b *cryptobyte.Builder) { b.AddASN1OctetString(documentDigest) }),
		attribute(oidAttribute(16, 2, 47), func(b *cryptobyte.Builder) { addSigningCertificate(b, h, cert) }),
	})
}

// newBuilder returns a builder with room for so many bytes: it would double its memory from nothing.
func newBuilder(size int) *cryptobyte.Builder { return cryptobyte.NewBuilder(make([]byte, 0, size)) }

// attribute makes an Attribute with one value. It cannot fail for the values of this file.
func attribute(oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) []byte {
	b := newBuilder(256)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cbasn1.SET, value)
	})
	return b.BytesOrPanic()
}

// setOf makes a SET OF in the order that DER demands: ascending by encoding (X.690, 11.6).
func setOf(tag cbasn1.Tag, elements [][]byte) ([]byte, error) {
	slices.SortFunc(elements, bytes.Compare)
	size := 8
	for _, e := range elements {
		size += len(e)
	}
	b := newBuilder(size)
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		for _, e := range elements {
			b.AddBytes(e)
		}
	})
	return b.Bytes()
}

// addSigningCertificate writes SigningCertificateV2 (RFC 5035, 3) with the signer's certificate only. Its digest
// algorithm is left out when it is the default, SHA-256, as DER demands.
func addSigningCertificate(b *cryptobyte.Builder, h crypto.Hash, cert *x509.Certificate) {
	digest := h.New()
	digest.Write(cert.Raw)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // SigningCertificateV2
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // certs
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // ESSCertIDv2
				if h != crypto.SHA256 {
					addDigestAlgorithm(b, h)
				}
				b.AddASN1OctetString(digest.Sum(nil))
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // IssuerSerial
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(explicit(4), func(b *cryptobyte.Builder) { b.AddBytes(cert.RawIssuer) })
					})
					b.AddASN1BigInt(cert.SerialNumber)
				})
			})
		})
	})
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
	size := 512 + len(s.attributes) + len(s.value) + len(s.token)
	for _, c := range s.chain {
		size += len(c.Raw)
	}
	b := newBuilder(size)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidCMS(cmsSignedData))
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { addDigestAlgorithm(b, s.algorithm.Hash) })
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidCMS(cmsData)) })
				s.addCertificates(b)
				b.AddASN1(cbasn1.SET, s.addSignerInfo)
			})
		})
	})
	return b.Bytes()
}

func (s *signedData) addCertificates(b *cryptobyte.Builder) {
	raw := make([][]byte, len(s.chain))
	for i, c := range s.chain {
		raw[i] = c.Raw
	}
	set, err := setOf(explicit(0), raw)
	if err != nil {
		b.SetError(err)
		return
	}
	b.AddBytes(set)
}

func (s *signedData) addSignerInfo(b *cryptobyte.Builder) {
	signer := s.chain[0]
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // IssuerAndSerialNumber
			b.AddBytes(signer.RawIssuer)
			b.AddASN1BigInt(signer.SerialNumber)
		})
		addDigestAlgorithm(b, s.algorithm.Hash)
		// The same attributes that were signed as a SET stand here under an implicit tag (RFC 5652, 5.4).
		attributes := cryptobyte.String(s.attributes)
		var content cryptobyte.String
		if !attributes.ReadASN1(&content, cbasn1.SET) || !attributes.Empty() {
			b.SetError(refuse("the staged signed attributes are not a SET"))
			return
		}
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddBytes(content) })
		s.algorithm.addSignatureAlgorithm(b)
		b.AddASN1OctetString(s.value)
		if s.token != nil {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				b.AddBytes(attribute(oidAttribute(16, 2, 14), func(b *cryptobyte.Builder) { b.AddBytes(s.token) }))
			})
		}
	})
}
