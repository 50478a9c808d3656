package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	_ "crypto/sha512" // the hashes that the TSA accepts
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"mime"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Policy is the TSA policy of every token. It lies in the arc that RFC 5612 reserves for documentation.
var Policy = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1}

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
)

// imprintAlgorithm is a hash with its own identifier and that of ECDSA over it.
type imprintAlgorithm struct {
	hash       crypto.Hash
	oid, ecdsa asn1.ObjectIdentifier
}

// digests are the imprints that the TSA takes.
var digests = []imprintAlgorithm{
	{crypto.SHA256, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
	{crypto.SHA384, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}},
	{crypto.SHA512, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}},
}

// PKIFailureInfo bits (RFC 3161).
const (
	failBadAlg           = 0
	failBadDataFormat    = 5
	failUnacceptedPolicy = 15
	failUnaccExtension   = 16
	failSystem           = 25
)

// query is a TimeStampReq.
type query struct {
	hash    int // index into digests
	imprint []byte
	policy  asn1.ObjectIdentifier
	nonce   *big.Int
	certReq bool
}

func (a *Authority) answerTSA(r *http.Request, body []byte, fault Fault) ([]byte, error) {
	if r.Method != http.MethodPost {
		return nil, &badRequest{http.StatusMethodNotAllowed, "a time-stamp query is sent by POST"}
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/timestamp-query" {
		return nil, &badRequest{http.StatusUnsupportedMediaType, "Content-Type must be application/timestamp-query"}
	}
	q, failure := parseQuery(body)
	switch {
	case fault == Rejection:
		return rejection(failSystem)
	case fault == BadAlgorithm:
		return rejection(failBadAlg)
	case failure >= 0:
		return rejection(failure)
	case q.policy != nil && !q.policy.Equal(Policy):
		return rejection(failUnacceptedPolicy)
	}
	token, err := a.token(q, fault)
	if err != nil {
		return nil, err
	}
	return der(func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(0) })
		b.AddBytes(token)
	})
}

// parseQuery returns a failure bit, or -1.
func parseQuery(body []byte) (q query, failure int) {
	in := cryptobyte.String(body)
	var req, imprint, algorithm cryptobyte.String
	var version int
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&req, casn1.SEQUENCE) || !in.Empty() || !req.ReadASN1Integer(&version) || version != 1 ||
		!req.ReadASN1(&imprint, casn1.SEQUENCE) || !imprint.ReadASN1(&algorithm, casn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) ||
		!imprint.ReadASN1Bytes(&q.imprint, casn1.OCTET_STRING) {
		return q, failBadDataFormat
	}
	if req.PeekASN1Tag(casn1.OBJECT_IDENTIFIER) && !req.ReadASN1ObjectIdentifier(&q.policy) {
		return q, failBadDataFormat
	}
	if req.PeekASN1Tag(casn1.INTEGER) {
		q.nonce = new(big.Int)
		if !req.ReadASN1Integer(q.nonce) {
			return q, failBadDataFormat
		}
	}
	if req.PeekASN1Tag(casn1.BOOLEAN) && !req.ReadASN1Boolean(&q.certReq) {
		return q, failBadDataFormat
	}
	if !req.Empty() {
		return q, failUnaccExtension
	}
	q.hash = slices.IndexFunc(digests, func(d imprintAlgorithm) bool { return d.oid.Equal(oid) })
	if q.hash < 0 {
		return q, failBadAlg
	}
	if len(q.imprint) != digests[q.hash].hash.Size() {
		return q, failBadDataFormat
	}
	return q, -1
}

func rejection(failure int) ([]byte, error) {
	bits := make([]byte, failure/8+1)
	bits[failure/8] = 0x80 >> (failure % 8)
	return der(func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(2)
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(casn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte("refused by the mock")) })
			})
			b.AddASN1(casn1.BIT_STRING, func(b *cryptobyte.Builder) {
				b.AddUint8(uint8(7 - failure%8))
				b.AddBytes(bits)
			})
		})
	})
}

// Token returns a TimeStampToken over a digest without a network, at the authority's time.
func (a *Authority) Token(digest []byte, h crypto.Hash) ([]byte, error) {
	i := slices.IndexFunc(digests, func(d imprintAlgorithm) bool { return d.hash == h })
	if i < 0 || len(digest) != h.Size() {
		return nil, &badRequest{http.StatusBadRequest, "unknown digest algorithm or wrong digest length"}
	}
	return a.token(query{hash: i, imprint: digest, certReq: true}, "")
}

// token makes a TimeStampToken: CMS SignedData (RFC 5652) around a TSTInfo (RFC 3161).
func (a *Authority) token(q query, fault Fault) ([]byte, error) {
	signer, named := a.TSA, a.TSA
	if fault == WrongEKU {
		signer, named = a.rogue, a.rogue
	}
	if fault == WrongCertID {
		named = a.rogue
	}
	if fault == WithoutCertReq {
		q.certReq = false
	}
	now := a.clock()
	if fault == ClockOff {
		now = now.Add(48 * time.Hour)
	}
	info, err := a.tstInfo(q, fault, now, signer.Certificate)
	if err != nil {
		return nil, err
	}
	d := digests[q.hash]
	attrs, err := signedAttributes(info, now, d.hash, named.Certificate)
	if err != nil {
		return nil, err
	}
	set, err := wrap(casn1.SET, attrs)
	if err != nil {
		return nil, err
	}
	h := d.hash.New()
	h.Write(set)
	signature, err := signer.Key.Sign(rand.Reader, h.Sum(nil), d.hash)
	if err != nil {
		return nil, err
	}
	if fault == BadSignature {
		signature[len(signature)-1] ^= 1
	}
	return der(func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(context(0), func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(3)
				b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, d.oid, false) })
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidTSTInfo)
					b.AddASN1(context(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(info) })
				})
				if q.certReq {
					b.AddASN1(context(0), func(b *cryptobyte.Builder) {
						for _, c := range signer.Chain() {
							b.AddBytes(c.Raw)
						}
					})
				}
				b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) { addSignerInfo(b, q.hash, signer.Certificate, attrs, signature) })
			})
		})
	})
}

func (a *Authority) tstInfo(q query, fault Fault, now time.Time, tsa *x509.Certificate) ([]byte, error) {
	imprint, nonce := q.imprint, q.nonce
	switch fault {
	case OtherData:
		h := digests[q.hash].hash.New()
		h.Write([]byte("other data"))
		imprint = h.Sum(nil)
	case WrongNonce:
		nonce = big.NewInt(42)
	case NoNonce:
		nonce = nil
	}
	a.mu.Lock()
	a.serial++
	serial := big.NewInt(now.Unix()<<20 | a.serial)
	a.mu.Unlock()
	return der(func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1ObjectIdentifier(Policy)
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addAlgorithm(b, digests[q.hash].oid, true)
			b.AddASN1OctetString(imprint)
		})
		b.AddASN1BigInt(serial)
		b.AddASN1GeneralizedTime(now)
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(1) }) // accuracy: one second
		if nonce != nil {
			b.AddASN1BigInt(nonce)
		}
		b.AddASN1(context(0), func(b *cryptobyte.Builder) {
			b.AddASN1(context(4), func(b *cryptobyte.Builder) { b.AddBytes(tsa.RawSubject) })
		})
	})
}

func addSignerInfo(b *cryptobyte.Builder, hash int, cert *x509.Certificate, attrs, signature []byte) {
	d := digests[hash]
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(cert.RawIssuer)
			b.AddASN1BigInt(cert.SerialNumber)
		})
		addAlgorithm(b, d.oid, false)
		b.AddASN1(context(0), func(b *cryptobyte.Builder) { b.AddBytes(attrs) })
		if cert.PublicKeyAlgorithm == x509.RSA {
			addAlgorithm(b, oidRSA, true)
		} else {
			addAlgorithm(b, d.ecdsa, false)
		}
		b.AddASN1OctetString(signature)
	})
}

// signedAttributes returns the content of the SET OF, sorted as DER demands.
func signedAttributes(info []byte, now time.Time, hash crypto.Hash, cert *x509.Certificate) ([]byte, error) {
	h := hash.New()
	h.Write(info)
	certHash := sha256.Sum256(cert.Raw)
	var attrs [][]byte
	for _, attr := range []struct {
		oid   asn1.ObjectIdentifier
		value func(*cryptobyte.Builder)
	}{
		{oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidTSTInfo) }},
		{oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(h.Sum(nil)) }},
		{oidSigningTime, func(b *cryptobyte.Builder) { b.AddASN1UTCTime(now) }},
		{oidSigningCertV2, func(b *cryptobyte.Builder) { // RFC 5035: SHA-256 is the default and left out
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(certHash[:]) })
				})
			})
		}},
	} {
		one, err := der(func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(attr.oid)
			b.AddASN1(casn1.SET, attr.value)
		})
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, one)
	}
	slices.SortFunc(attrs, bytes.Compare)
	return slices.Concat(attrs...), nil
}

func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, null bool) {
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if null {
			b.AddASN1NULL()
		}
	})
}

func context(n uint8) casn1.Tag { return casn1.Tag(n).ContextSpecific().Constructed() }

// der wraps what f adds into a SEQUENCE.
func der(f func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, f)
	return b.Bytes()
}

func wrap(tag casn1.Tag, content []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(content) })
	return b.Bytes()
}
