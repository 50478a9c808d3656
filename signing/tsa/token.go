package tsa

import (
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/dealseal/dealseal/signing/verify/cms"
)

var (
	oidTSTInfo      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidExtKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidQCStatements = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}
)

// Code says which of the things that must hold for a token does not.
type Code string

const (
	CodeFormat      Code = "format"      // not a well-formed time-stamp token
	CodeUnsupported Code = "unsupported" // an algorithm or extension that cannot be judged
	CodeImprint     Code = "imprint"     // a token over other data
	CodeSignature   Code = "signature"   // attributes or signature do not fit
	CodePurpose     Code = "purpose"     // the certificate is not one for time-stamping
	CodeChain       Code = "chain"       // no chain to the trusted roots at genTime
	CodePolicy      Code = "policy"      // another policy than the one asked for
	CodeNonce       Code = "nonce"       // not the answer to our question
	CodeTime        Code = "time"        // genTime is too far from our clock
)

// TokenError says why a token is not accepted.
type TokenError struct {
	Code Code
	Err  error
}

func (e *TokenError) Error() string { return "time-stamp token: " + e.Err.Error() }
func (e *TokenError) Unwrap() error { return e.Err }

func refuse(code Code, format string, args ...any) error {
	return &TokenError{code, fmt.Errorf(format, args...)}
}

// Token is a parsed TimeStampToken (RFC 3161). Nothing in it is proven until Verify has returned nil. It is safe for concurrent use.
type Token struct {
	Policy      asn1.ObjectIdentifier
	Hash        crypto.Hash
	Imprint     []byte
	Serial      *big.Int
	Time        time.Time // genTime, UTC
	Accuracy    time.Duration
	Nonce       *big.Int // nil when there is none
	Certificate *x509.Certificate

	signed *cms.SignedData
	signer *cms.Signer
}

// VerifyOptions say whom to trust. Roots must not be nil: the pool of the system is a choice, not a default.
type VerifyOptions struct {
	Roots         *x509.CertPool
	Intermediates []*x509.Certificate   // beside those in the token
	Policy        asn1.ObjectIdentifier // when set, the only one accepted
}

// ParseToken reads a token. It checks form only; errors are of type *TokenError.
func ParseToken(der []byte) (*Token, error) {
	sd, err := cms.Parse(der)
	if err != nil {
		return nil, &TokenError{CodeFormat, err}
	}
	switch {
	case !sd.ContentType.Equal(oidTSTInfo):
		return nil, refuse(CodeFormat, "content type %v is not TSTInfo", sd.ContentType)
	case sd.Content == nil:
		return nil, refuse(CodeFormat, "it holds no TSTInfo")
	case len(sd.Signers) != 1:
		// RFC 3161: no signatures other than that of the TSA.
		return nil, refuse(CodeFormat, "%d signers instead of the TSA alone", len(sd.Signers))
	}
	t := &Token{signed: sd, signer: sd.Signers[0]}
	t.Certificate = sd.Certificate(t.signer)
	return t, t.readInfo(sd.Content)
}

// Verify parses a token and checks it, see Token.Verify.
func Verify(token, digest []byte, h crypto.Hash, o VerifyOptions) (*Token, error) {
	t, err := ParseToken(token)
	if err != nil {
		return nil, err
	}
	return t, t.Verify(digest, h, o)
}

// Verify checks that the token is over the digest, was signed by a certificate that is for time-stamping and nothing else, and that this certificate
// leads to a trusted root at genTime. It does not look at revocation. Errors are of type *TokenError.
func (t *Token) Verify(digest []byte, h crypto.Hash, o VerifyOptions) error {
	if o.Roots == nil {
		return refuse(CodeChain, "no trusted roots were given")
	}
	if err := t.check(digest, h, o.Policy); err != nil {
		return err
	}
	return t.checkChain(o)
}

// Check is Verify without the chain: whom to trust, and when, is left to the caller.
func (t *Token) Check(digest []byte, h crypto.Hash) error { return t.check(digest, h, nil) }

func (t *Token) check(digest []byte, h crypto.Hash, policy asn1.ObjectIdentifier) error {
	if t.Hash != h || subtle.ConstantTimeCompare(t.Imprint, digest) != 1 {
		return refuse(CodeImprint, "it is over other data")
	}
	if policy != nil && !policy.Equal(t.Policy) {
		return refuse(CodePolicy, "policy %v instead of %v", t.Policy, policy)
	}
	if t.Certificate == nil {
		return refuse(CodeChain, "the certificate of the TSA is not in it")
	}
	if err := t.checkSignature(); err != nil {
		code := CodeSignature
		if errors.Is(err, cms.ErrUnsupported) {
			code = CodeUnsupported
		}
		return &TokenError{code, err}
	}
	return checkPurpose(t.Certificate)
}

// Certificates are those that the token brings along, its own and those above it, in no order.
func (t *Token) Certificates() []*x509.Certificate { return t.signed.Certificates }

func (t *Token) checkSignature() error {
	if t.signer.Hash == 0 {
		return fmt.Errorf("%w: digest algorithm %s", cms.ErrUnsupported, t.signer.DigestName())
	}
	h := t.signer.Hash.New()
	h.Write(t.signed.Content)
	if err := t.signer.CheckContent(oidTSTInfo, h.Sum(nil)); err != nil {
		return err
	}
	if err := t.signer.CheckSigningCertificate(t.Certificate); err != nil {
		return err
	}
	return t.signer.CheckSignature(t.Certificate)
}

// checkPurpose asks for what RFC 3161 does: the extended key usage is critical and has time-stamping as its only purpose.
func checkPurpose(cert *x509.Certificate) error {
	critical := slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidExtKeyUsage) && e.Critical })
	only := len(cert.ExtKeyUsage) == 1 && cert.ExtKeyUsage[0] == x509.ExtKeyUsageTimeStamping && len(cert.UnknownExtKeyUsage) == 0
	if !only || !critical {
		return refuse(CodePurpose, "the extended key usage of %q is not critical and time-stamping alone", cert.Subject)
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return refuse(CodePurpose, "the key usage of %q does not allow signatures", cert.Subject)
	}
	return nil
}

func (t *Token) checkChain(o VerifyOptions) error {
	intermediates := x509.NewCertPool()
	for _, c := range slices.Concat(t.signed.Certificates, o.Intermediates) {
		intermediates.AddCert(c)
	}
	_, err := t.Certificate.Verify(x509.VerifyOptions{
		Roots: o.Roots, Intermediates: intermediates, CurrentTime: t.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	})
	if err != nil {
		return refuse(CodeChain, "at %s: %w", t.Time.Format(time.RFC3339), err)
	}
	return nil
}

func (t *Token) readInfo(der []byte) error {
	in := cryptobyte.String(der)
	var info, imprint, algorithm, accuracy cryptobyte.String
	var version int
	var digest asn1.ObjectIdentifier
	t.Serial = new(big.Int)
	if !in.ReadASN1(&info, casn1.SEQUENCE) || !in.Empty() || !info.ReadASN1Integer(&version) || version != 1 || !info.ReadASN1ObjectIdentifier(&t.Policy) {
		return refuse(CodeFormat, "TSTInfo is not DER of version 1")
	}
	if !info.ReadASN1(&imprint, casn1.SEQUENCE) || !imprint.ReadASN1(&algorithm, casn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&digest) ||
		!imprint.ReadASN1Bytes(&t.Imprint, casn1.OCTET_STRING) || !imprint.Empty() {
		return refuse(CodeFormat, "TSTInfo.messageImprint is not the DER expected here")
	}
	if t.Hash = cms.HashByOID(digest); t.Hash == 0 {
		return refuse(CodeUnsupported, "hash algorithm %v of the message imprint", digest)
	}
	var genTime cryptobyte.String
	if !info.ReadASN1Integer(t.Serial) || !info.ReadASN1(&genTime, casn1.GeneralizedTime) {
		return refuse(CodeFormat, "TSTInfo.serialNumber or genTime is not the DER expected here")
	}
	var err error
	if t.Time, err = parseGenTime(string(genTime)); err != nil {
		return &TokenError{CodeFormat, err}
	}
	if info.PeekASN1Tag(casn1.SEQUENCE) && (!info.ReadASN1(&accuracy, casn1.SEQUENCE) || !t.readAccuracy(accuracy)) {
		return refuse(CodeFormat, "TSTInfo.accuracy is not the DER expected here")
	}
	return t.readRest(info)
}

// readRest reads the optional fields behind accuracy.
func (t *Token) readRest(info cryptobyte.String) error {
	if !info.SkipOptionalASN1(casn1.BOOLEAN) {
		return refuse(CodeFormat, "TSTInfo.ordering is not the DER expected here")
	}
	if info.PeekASN1Tag(casn1.INTEGER) {
		t.Nonce = new(big.Int)
		if !info.ReadASN1Integer(t.Nonce) {
			return refuse(CodeFormat, "TSTInfo.nonce is not the DER expected here")
		}
	}
	var extensions cryptobyte.String
	var present bool
	if !info.SkipOptionalASN1(explicit(0)) || !info.ReadOptionalASN1(&extensions, &present, explicit(1)) || !info.Empty() {
		return refuse(CodeFormat, "TSTInfo.tsa or extensions is not the DER expected here")
	}
	return checkExtensions(extensions)
}

// checkExtensions refuses critical extensions other than the statement of a qualified time-stamp, which changes nothing about the token's meaning here.
func checkExtensions(in cryptobyte.String) error {
	for !in.Empty() {
		var one cryptobyte.String
		var oid asn1.ObjectIdentifier
		critical := false
		if !in.ReadASN1(&one, casn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&oid) ||
			one.PeekASN1Tag(casn1.BOOLEAN) && !one.ReadASN1Boolean(&critical) {
			return refuse(CodeFormat, "TSTInfo.extensions is not the DER expected here")
		}
		if critical && !oid.Equal(oidQCStatements) {
			return refuse(CodeUnsupported, "critical extension %v of TSTInfo", oid)
		}
	}
	return nil
}

// maxAccuracy is far beyond what any TSA states; a larger number is refused before it overflows a Duration.
const maxAccuracy = 1 << 31

func (t *Token) readAccuracy(in cryptobyte.String) bool {
	var seconds int64
	if in.PeekASN1Tag(casn1.INTEGER) && !in.ReadASN1Integer(&seconds) {
		return false
	}
	millis, ok := readImplicit(&in, 0)
	if !ok {
		return false
	}
	micros, ok := readImplicit(&in, 1)
	if !ok || !in.Empty() || seconds < 0 || seconds > maxAccuracy || millis > 999 || micros > 999 {
		return false
	}
	t.Accuracy = time.Duration(seconds)*time.Second + time.Duration(millis)*time.Millisecond + time.Duration(micros)*time.Microsecond
	return true
}

// readImplicit reads the small number under an implicit tag; one that is absent is 0.
func readImplicit(in *cryptobyte.String, n uint8) (int64, bool) {
	tag := casn1.Tag(n).ContextSpecific()
	if !in.PeekASN1Tag(tag) {
		return 0, true
	}
	var v int64
	if !in.ReadASN1Int64WithTag(&v, tag) || v < 0 {
		return 0, false
	}
	return v, true
}

// parseGenTime reads the GeneralizedTime of RFC 3161: UTC with seconds and, unlike in certificates, an optional fraction.
func parseGenTime(s string) (time.Time, error) {
	at, err := time.Parse("20060102150405.999999999Z", s)
	if err != nil || strings.Contains(s, ",") { // Parse takes a comma as well, DER does not
		return time.Time{}, errors.New("genTime is not a GeneralizedTime with seconds in UTC")
	}
	return at, nil
}

func explicit(n uint8) casn1.Tag { return casn1.Tag(n).ContextSpecific().Constructed() }
