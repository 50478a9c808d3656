package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	_ "crypto/sha256" // the hashes that signatures may use
	_ "crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrUnsupported says that an algorithm or form is not one that this package can judge: neither good nor bad can be said. Test with errors.Is.
var ErrUnsupported = errors.New("cms: unsupported")

// ErrWeak is an ErrUnsupported for algorithms and keys that are known, and below what still proves something.
var ErrWeak = fmt.Errorf("%w: too weak", ErrUnsupported)

// CheckKey refuses public keys below the floor, RSA of 2,048 bits and curves of 256, with an error that wraps ErrWeak.
func CheckKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 {
			return fmt.Errorf("%w: an RSA key of %d bits", ErrWeak, bits)
		}
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return fmt.Errorf("%w: an elliptic curve of %d bits", ErrWeak, bits)
		}
	}
	return nil
}

// weak are digest and signature algorithms that were used once and prove nothing any more.
var weak = map[string]string{
	"1.2.840.113549.2.2": "MD2", "1.2.840.113549.2.5": "MD5", "1.3.14.3.2.26": "SHA-1", "1.3.14.3.2.29": "RSA with SHA-1",
	"2.16.840.1.101.3.4.2.4": "SHA-224", "1.2.840.113549.1.1.2": "RSA with MD2", "1.2.840.113549.1.1.4": "RSA with MD5",
	"1.2.840.113549.1.1.5": "RSA with SHA-1", "1.2.840.10045.4.1": "ECDSA with SHA-1", "1.2.840.10040.4.3": "DSA with SHA-1",
}

// unsupported says what is wrong with an algorithm that is not judged.
func unsupported(what string, oid asn1.ObjectIdentifier) error {
	if name, ok := weak[oid.String()]; ok {
		return fmt.Errorf("%w: %s %s", ErrWeak, what, name)
	}
	return fmt.Errorf("%w: %s %v", ErrUnsupported, what, oid)
}

// Identifiers of the attributes that baseline signatures and time-stamp tokens carry.
var (
	OIDContentType    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	OIDMessageDigest  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	OIDSigningTime    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	OIDSigningCert    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	OIDSigningCertV2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	OIDTimeStampToken = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}
)

var (
	oidRSA  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidPSS  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
)

// Attribute is one attribute; each value is a whole DER element.
type Attribute struct {
	Type   asn1.ObjectIdentifier
	Values [][]byte
}

// Attributes is a list in the order of the file.
type Attributes []Attribute

// Has reports whether an attribute is there at all.
func (l Attributes) Has(oid asn1.ObjectIdentifier) bool {
	for _, a := range l {
		if a.Type.Equal(oid) {
			return true
		}
	}
	return false
}

// Single returns the only value of an attribute that must occur once with one value (RFC 5652 asks that of content-type and
// message-digest). It is an error for it to be missing or to be there more often: two readers could pick different ones.
func (l Attributes) Single(oid asn1.ObjectIdentifier) ([]byte, error) {
	var values [][]byte
	for _, a := range l {
		if a.Type.Equal(oid) {
			values = append(values, a.Values...)
		}
	}
	if len(values) != 1 {
		return nil, fmt.Errorf("cms: attribute %v has %d values instead of one", oid, len(values))
	}
	return values[0], nil
}

// Signer is one SignerInfo (RFC 5652).
type Signer struct {
	Hash      crypto.Hash // of the message digest and of the signed attributes; 0 when it is not SHA-256, SHA-384 or SHA-512
	Signed    Attributes
	Unsigned  Attributes
	Signature []byte

	issuer     []byte // issuerAndSerialNumber, or
	serial     *big.Int
	keyID      []byte // subjectKeyIdentifier
	digest     asn1.ObjectIdentifier
	signedSet  []byte // DER of the SET OF Attribute; nil when there are none
	algorithm  asn1.ObjectIdentifier
	parameters []byte
}

func (s *Signer) names(c *x509.Certificate) bool {
	if s.keyID != nil {
		return bytes.Equal(s.keyID, c.SubjectKeyId)
	}
	return bytes.Equal(s.issuer, c.RawIssuer) && s.serial.Cmp(c.SerialNumber) == 0
}

// AlgorithmPSS is what AlgorithmName says of RSASSA-PSS, which some readers cannot judge.
const AlgorithmPSS = "RSA-PSS"

// DigestName names the digest algorithm, as OID when it is not a known one.
func (s *Signer) DigestName() string {
	if s.Hash == 0 {
		return s.digest.String()
	}
	return s.Hash.String()
}

// AlgorithmName names the signature algorithm, as OID when it is not a known one.
func (s *Signer) AlgorithmName() string {
	if s.algorithm.Equal(oidPSS) {
		return AlgorithmPSS
	}
	for _, a := range algorithms {
		if a.oid.Equal(s.algorithm) {
			return a.name
		}
	}
	return s.algorithm.String()
}

// CheckContent checks that the signed attributes name the content type and carry the digest of the content (RFC 5652). The digest is made
// with s.Hash by the caller.
func (s *Signer) CheckContent(contentType asn1.ObjectIdentifier, digest []byte) error {
	if s.signedSet == nil {
		return fmt.Errorf("%w: a signature without signed attributes", ErrUnsupported)
	}
	value, err := s.Signed.Single(OIDContentType)
	if err != nil {
		return err
	}
	var oid asn1.ObjectIdentifier
	in := cryptobyte.String(value)
	if !in.ReadASN1ObjectIdentifier(&oid) {
		return bad("content-type")
	}
	if !oid.Equal(contentType) {
		return fmt.Errorf("cms: the signed content type is %v and that of the content is %v", oid, contentType)
	}
	if value, err = s.Signed.Single(OIDMessageDigest); err != nil {
		return err
	}
	var signed []byte
	if in = value; !in.ReadASN1Bytes(&signed, casn1.OCTET_STRING) {
		return bad("message-digest")
	}
	if subtle.ConstantTimeCompare(signed, digest) != 1 {
		return errors.New("cms: the signed message digest is not that of the content")
	}
	return nil
}

// CheckDigest says whether the digest algorithm can be judged: ErrWeak or ErrUnsupported if not.
func (s *Signer) CheckDigest() error {
	if s.Hash == 0 {
		return unsupported("digest algorithm", s.digest)
	}
	return nil
}

// CheckSignature checks the signature over the signed attributes with the key of the certificate. It wraps ErrUnsupported for algorithms that are
// unknown, and ErrWeak for those that are broken (SHA-1, MD5) or below what is accepted (RSA under 2,048 bits, curves under 256).
func (s *Signer) CheckSignature(cert *x509.Certificate) error {
	if s.signedSet == nil {
		return fmt.Errorf("%w: a signature without signed attributes", ErrUnsupported)
	}
	if s.Hash == 0 {
		return s.CheckDigest()
	}
	if err := CheckKey(cert.PublicKey); err != nil {
		return err
	}
	h := s.Hash.New()
	h.Write(s.signedSet)
	digest := h.Sum(nil)
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return s.checkRSA(key, digest)
	case *ecdsa.PublicKey:
		if err := s.match("ECDSA"); err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(key, digest, s.Signature) {
			return errors.New("cms: the ECDSA signature does not fit the signed attributes")
		}
		return nil
	}
	return fmt.Errorf("%w: a public key of kind %T", ErrUnsupported, cert.PublicKey)
}

func (s *Signer) checkRSA(key *rsa.PublicKey, digest []byte) error {
	var err error
	if s.algorithm.Equal(oidPSS) {
		var options *rsa.PSSOptions
		if options, err = pssOptions(s.parameters, s.Hash); err != nil {
			return err
		}
		err = rsa.VerifyPSS(key, s.Hash, digest, s.Signature, options)
	} else {
		if err := s.match("RSA"); err != nil {
			return err
		}
		err = rsa.VerifyPKCS1v15(key, s.Hash, digest, s.Signature)
	}
	if err != nil {
		return fmt.Errorf("cms: the RSA signature does not fit the signed attributes: %w", err)
	}
	return nil
}

// algorithms are those of RFC 3279, RFC 4055 and RFC 5758; hash 0 leaves the choice to digestAlgorithm.
var algorithms = []struct {
	oid        asn1.ObjectIdentifier
	kind, name string
	hash       crypto.Hash
}{
	{oidRSA, "RSA", "RSA", 0},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, "RSA", "RSA-SHA256", crypto.SHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, "RSA", "RSA-SHA384", crypto.SHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, "RSA", "RSA-SHA512", crypto.SHA512},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, "ECDSA", "ECDSA-SHA256", crypto.SHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, "ECDSA", "ECDSA-SHA384", crypto.SHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, "ECDSA", "ECDSA-SHA512", crypto.SHA512},
}

// match checks that the signature algorithm is of the key's kind and uses the digest algorithm of the signer.
func (s *Signer) match(kind string) error {
	for _, a := range algorithms {
		if !a.oid.Equal(s.algorithm) {
			continue
		}
		if a.kind != kind {
			return fmt.Errorf("cms: signature algorithm %s with a key for %s", a.name, kind)
		}
		if a.hash != 0 && a.hash != s.Hash {
			return fmt.Errorf("%w: signature algorithm %s with digest algorithm %v", ErrUnsupported, a.name, s.Hash)
		}
		return nil
	}
	return unsupported("signature algorithm", s.algorithm)
}

// pssOptions reads RSASSA-PSS-params (RFC 4055). Its defaults are SHA-1 and refused with it.
func pssOptions(parameters []byte, h crypto.Hash) (*rsa.PSSOptions, error) {
	in := cryptobyte.String(parameters)
	var seq, hash, mgf, salt, trailer cryptobyte.String
	var hasHash, hasMGF, hasSalt, hasTrailer bool
	if !in.ReadASN1(&seq, casn1.SEQUENCE) || !in.Empty() ||
		!seq.ReadOptionalASN1(&hash, &hasHash, context(0)) || !seq.ReadOptionalASN1(&mgf, &hasMGF, context(1)) ||
		!seq.ReadOptionalASN1(&salt, &hasSalt, context(2)) || !seq.ReadOptionalASN1(&trailer, &hasTrailer, context(3)) || !seq.Empty() {
		return nil, bad("RSASSA-PSS-params")
	}
	var mgf1 cryptobyte.String
	var mgfOID asn1.ObjectIdentifier
	if !hasHash || !hasMGF || algorithmHash(hash) != h ||
		!mgf.ReadASN1(&mgf1, casn1.SEQUENCE) || !mgf1.ReadASN1ObjectIdentifier(&mgfOID) || !mgfOID.Equal(oidMGF1) || algorithmHash(mgf1) != h {
		return nil, fmt.Errorf("%w: RSASSA-PSS whose hashes are not %v throughout", ErrUnsupported, h)
	}
	length, field := 20, 1
	if hasSalt && !salt.ReadASN1Integer(&length) || hasTrailer && !trailer.ReadASN1Integer(&field) || length < 0 || length > 512 || field != 1 {
		return nil, bad("RSASSA-PSS-params")
	}
	if length == 0 {
		// In rsa.PSSOptions zero means "any salt".
		return nil, fmt.Errorf("%w: RSASSA-PSS without salt", ErrUnsupported)
	}
	return &rsa.PSSOptions{SaltLength: length, Hash: h}, nil
}

// algorithmHash reads an AlgorithmIdentifier that names a hash; 0 when it does not.
func algorithmHash(in cryptobyte.String) crypto.Hash {
	var seq cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&seq, casn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1ObjectIdentifier(&oid) {
		return 0
	}
	return HashByOID(oid)
}

// HashByOID returns the hash behind an identifier; 0 for all but SHA-256, SHA-384 and SHA-512.
func HashByOID(oid asn1.ObjectIdentifier) crypto.Hash {
	arc := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2}
	if len(oid) != len(arc)+1 || !oid[:len(arc)].Equal(arc) {
		return 0
	}
	switch oid[len(arc)] {
	case 1:
		return crypto.SHA256
	case 2:
		return crypto.SHA384
	case 3:
		return crypto.SHA512
	}
	return 0
}

// HasSigningCertificate reports whether one of the two attributes that bind the certificate is among the signed ones.
func (s *Signer) HasSigningCertificate() bool {
	return s.Signed.Has(OIDSigningCert) || s.Signed.Has(OIDSigningCertV2)
}

// CheckSigningCertificate checks that every signing-certificate attribute there is names the certificate first (RFC 5035). At least
// one must be there: without it the certificate could be exchanged for another one of the same key.
func (s *Signer) CheckSigningCertificate(cert *x509.Certificate) error {
	if !s.HasSigningCertificate() {
		return errors.New("cms: no signing-certificate attribute")
	}
	for _, oid := range []asn1.ObjectIdentifier{OIDSigningCertV2, OIDSigningCert} {
		if !s.Signed.Has(oid) {
			continue
		}
		value, err := s.Signed.Single(oid)
		if err != nil {
			return err
		}
		if err := checkESS(value, cert, oid.Equal(OIDSigningCertV2)); err != nil {
			return err
		}
	}
	return nil
}

func checkESS(value []byte, cert *x509.Certificate, v2 bool) error {
	const field = "signing-certificate"
	in := cryptobyte.String(value)
	var seq, ids, id cryptobyte.String
	if !in.ReadASN1(&seq, casn1.SEQUENCE) || !seq.ReadASN1(&ids, casn1.SEQUENCE) || !ids.ReadASN1(&id, casn1.SEQUENCE) {
		return bad(field)
	}
	want := func() []byte { sum := sha1.Sum(cert.Raw); return sum[:] }
	if v2 {
		h := crypto.SHA256
		if id.PeekASN1Tag(casn1.SEQUENCE) {
			var algorithm cryptobyte.String
			if !id.ReadASN1Element(&algorithm, casn1.SEQUENCE) {
				return bad(field)
			}
			if h = algorithmHash(algorithm); h == 0 {
				return fmt.Errorf("%w: hash algorithm of signing-certificate-v2", ErrUnsupported)
			}
		}
		want = func() []byte { d := h.New(); d.Write(cert.Raw); return d.Sum(nil) }
	}
	var hash []byte
	if !id.ReadASN1Bytes(&hash, casn1.OCTET_STRING) {
		return bad(field)
	}
	if subtle.ConstantTimeCompare(hash, want()) != 1 {
		return errors.New("cms: the signing-certificate attribute names another certificate")
	}
	if id.Empty() {
		return nil
	}
	return checkIssuerSerial(id, cert)
}

// checkIssuerSerial compares IssuerSerial where a producer gives it: it is redundant, but must not contradict.
func checkIssuerSerial(id cryptobyte.String, cert *x509.Certificate) error {
	const field = "signing-certificate.issuerSerial"
	var is, names, directory, issuer cryptobyte.String
	serial := new(big.Int)
	if !id.ReadASN1(&is, casn1.SEQUENCE) || !is.ReadASN1(&names, casn1.SEQUENCE) || !is.ReadASN1Integer(serial) ||
		!names.ReadASN1(&directory, context(4)) || !directory.ReadASN1Element(&issuer, casn1.SEQUENCE) {
		return bad(field)
	}
	if serial.Cmp(cert.SerialNumber) != 0 || !bytes.Equal(issuer, cert.RawIssuer) {
		return errors.New("cms: issuer and serial number of the signing-certificate attribute are those of another certificate")
	}
	return nil
}
