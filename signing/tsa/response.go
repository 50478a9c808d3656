package tsa

import (
	"crypto"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"unicode"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// hashOID returns the identifier of an imprint's hash; nil for those that this client does not ask for.
func hashOID(h crypto.Hash) asn1.ObjectIdentifier {
	switch h {
	case crypto.SHA256:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	case crypto.SHA384:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	case crypto.SHA512:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	}
	return nil
}

// request encodes a TimeStampReq that asks for the certificate (RFC 3161).
func request(digest []byte, h crypto.Hash, nonce *big.Int, policy asn1.ObjectIdentifier) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(hashOID(h))
				b.AddASN1NULL()
			})
			b.AddASN1OctetString(digest)
		})
		if policy != nil {
			b.AddASN1ObjectIdentifier(policy)
		}
		b.AddASN1BigInt(nonce)
		b.AddASN1Boolean(true)
	})
	return b.Bytes()
}

// Rejection is a TSA's refusal in its own words (RFC 3161).
type Rejection struct {
	Status  int
	Failure int    // the failure bit; -1 when none is set
	Text    string // cut and without control characters: it comes from outside
}

func (e *Rejection) Error() string {
	msg := fmt.Sprintf("the TSA refused (status %d, %s)", e.Status, failureName(e.Failure))
	if e.Text != "" {
		msg += ": " + e.Text
	}
	return msg
}

// Permanent reports whether the same question would be refused again: the TSA does not know the algorithm, the policy or the form.
func (e *Rejection) Permanent() bool {
	switch e.Failure {
	case failBadAlg, failBadRequest, failBadDataFormat, failUnacceptedPolicy, failUnacceptedExtension:
		return true
	}
	return false
}

// Bits of PKIFailureInfo.
const (
	failBadAlg              = 0
	failBadRequest          = 2
	failBadDataFormat       = 5
	failTimeNotAvailable    = 14
	failUnacceptedPolicy    = 15
	failUnacceptedExtension = 16
	failAddInfoNotAvailable = 17
	failSystemFailure       = 25
)

func failureName(bit int) string {
	switch bit {
	case -1:
		return "no reason"
	case failBadAlg:
		return "badAlg"
	case failBadRequest:
		return "badRequest"
	case failBadDataFormat:
		return "badDataFormat"
	case failTimeNotAvailable:
		return "timeNotAvailable"
	case failUnacceptedPolicy:
		return "unacceptedPolicy"
	case failUnacceptedExtension:
		return "unacceptedExtension"
	case failAddInfoNotAvailable:
		return "addInfoNotAvailable"
	case failSystemFailure:
		return "systemFailure"
	}
	return fmt.Sprintf("failure bit %d", bit)
}

// parseResponse returns the token of a TimeStampResp, or a *Rejection.
func parseResponse(der []byte) ([]byte, error) {
	in := cryptobyte.String(der)
	var resp, info, texts, token cryptobyte.String
	r := Rejection{Failure: -1}
	if !in.ReadASN1(&resp, casn1.SEQUENCE) || !in.Empty() || !resp.ReadASN1(&info, casn1.SEQUENCE) || !info.ReadASN1Integer(&r.Status) {
		return nil, refuse(CodeFormat, "the answer is not a TimeStampResp")
	}
	if info.PeekASN1Tag(casn1.SEQUENCE) && !info.ReadASN1(&texts, casn1.SEQUENCE) {
		return nil, refuse(CodeFormat, "PKIStatusInfo.statusString is not the DER expected here")
	}
	r.Text = statusText(texts)
	if info.PeekASN1Tag(casn1.BIT_STRING) {
		var bits asn1.BitString
		if !info.ReadASN1BitString(&bits) {
			return nil, refuse(CodeFormat, "PKIStatusInfo.failInfo is not the DER expected here")
		}
		r.Failure = firstBit(bits)
	}
	if r.Status != 0 && r.Status != 1 { // granted, grantedWithMods
		return nil, &r
	}
	if !resp.ReadASN1Element(&token, casn1.SEQUENCE) || !resp.Empty() {
		return nil, refuse(CodeFormat, "the request was granted, but no token came")
	}
	return token, nil
}

func firstBit(bits asn1.BitString) int {
	for i := range min(bits.BitLength, 64) {
		if bits.At(i) != 0 {
			return i
		}
	}
	return -1
}

// maxText bounds how much of a TSA's own words gets into an error.
const maxText = 200

func statusText(in cryptobyte.String) string {
	var words []string
	for length := 0; !in.Empty() && length < maxText; {
		var one cryptobyte.String
		if !in.ReadASN1(&one, casn1.UTF8String) {
			break
		}
		one = one[:min(len(one), maxText-length)]
		length += len(one)
		words = append(words, string(one))
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(strings.Join(words, "; "), ""))
}
