// Package pki is a certificate authority for tests and the demo that speaks the wire: a root, an issuing CA, a signer, an RFC 3161 time-stamping
// authority and an OCSP responder, served by one http.Handler that misbehaves on demand. It is never part of the product.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// Algorithm names the kind of the keys that an Authority makes for itself.
type Algorithm string

const (
	P256    Algorithm = "P-256"
	RSA2048 Algorithm = "RSA-2048"
)

// Paths below Options.BaseURL. Certificates name them in AIA and CRL distribution points.
const (
	PathTSA        = "/tsa"
	PathOCSP       = "/ocsp"
	PathRootCRL    = "/root.crl"
	PathIssuingCRL = "/issuing.crl"
	PathRoot       = "/root.cer"
	PathIssuing    = "/issuing.cer"
)

// year is long enough for every chain in a test to be valid around the clock that it was made with.
const year = 365 * 24 * time.Hour

// Options of New. The zero value is useful.
type Options struct {
	Algorithm    Algorithm        // default P256
	BaseURL      string           // where the handler will be reachable, without a final slash; default http://pki.invalid
	Organisation string           // O of every name; default "Mock Trust"
	Now          func() time.Time // clock of all certificates, CRLs, OCSP answers and time-stamps; default time.Now
	// NoLocations leaves responder, CRL and issuer addresses out of certificates, for documents that outlive the services.
	NoLocations bool
	Hang        time.Duration // how long Slow holds an answer unless the client leaves earlier; default 30 s
}

// Identity is a certificate with its key and the certificates above it, root excluded.
type Identity struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
	chain       []*x509.Certificate
}

// Chain returns the certificate followed by its intermediates.
func (i *Identity) Chain() []*x509.Certificate {
	return append([]*x509.Certificate{i.Certificate}, i.chain...)
}

// Authority is a certificate authority and its network services. Its methods may be called concurrently.
type Authority struct {
	Root, Issuing, Signer, TSA, Responder *Identity

	options Options
	rogue   *Identity // a signer without the time-stamping purpose, for the fault WrongEKU

	mu       sync.Mutex
	now      func() time.Time
	serial   int64
	revoked  map[string]x509.RevocationListEntry
	faults   map[Service]*armed
	requests map[Service]int
	crls     int64
}

// New makes the keys and certificates. RSA takes about a second, P-256 about a millisecond.
func New(o Options) (*Authority, error) {
	if o.Algorithm == "" {
		o.Algorithm = P256
	}
	if o.BaseURL == "" {
		o.BaseURL = "http://pki.invalid"
	}
	o.BaseURL = strings.TrimSuffix(o.BaseURL, "/")
	if o.Organisation == "" {
		o.Organisation = "Mock Trust"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hang == 0 {
		o.Hang = 30 * time.Second
	}
	a := &Authority{
		options: o, now: o.Now,
		revoked: map[string]x509.RevocationListEntry{}, faults: map[Service]*armed{}, requests: map[Service]int{},
	}
	if err := a.build(); err != nil {
		return nil, fmt.Errorf("mock pki: %w", err)
	}
	return a, nil
}

func (a *Authority) build() error {
	now := a.now().UTC().Truncate(time.Second)
	ca := func(name string, pathLen int, years time.Duration) *x509.Certificate {
		return &x509.Certificate{
			Subject: a.name(name), NotBefore: now.Add(-2 * year), NotAfter: now.Add(years * year),
			IsCA: true, BasicConstraintsValid: true, MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	leaf := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: a.name(name), NotBefore: now.Add(-year), NotAfter: now.Add(year), KeyUsage: x509.KeyUsageDigitalSignature}
	}
	tsa := leaf("TSA")
	tsa.ExtraExtensions = []pkix.Extension{criticalTimeStamping}
	responder := leaf("OCSP Responder")
	responder.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	responder.ExtraExtensions = []pkix.Extension{{Id: oidOCSPNoCheck, Value: asn1.NullBytes}}
	rogue := leaf("Not a TSA")
	rogue.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}

	for _, step := range []struct {
		to       **Identity
		issuer   func() *Identity
		template *x509.Certificate
	}{
		{&a.Root, func() *Identity { return nil }, ca("Root CA", 1, 20)},
		{&a.Issuing, func() *Identity { return a.Root }, ca("Issuing CA", 0, 10)},
		{&a.TSA, func() *Identity { return a.Issuing }, tsa},
		{&a.Responder, func() *Identity { return a.Issuing }, responder},
		{&a.rogue, func() *Identity { return a.Issuing }, rogue},
	} {
		key, err := a.newKey()
		if err != nil {
			return err
		}
		if *step.to, err = a.issue(key, key.Public(), step.template, step.issuer()); err != nil {
			return err
		}
	}
	key, err := a.newKey()
	if err != nil {
		return err
	}
	chain, err := a.IssueSigner(key.Public(), a.name("Seal"))
	if err != nil {
		return err
	}
	a.Signer = &Identity{Certificate: chain[0], Key: key, chain: chain[1:]}
	return nil
}

func (a *Authority) name(common string) pkix.Name {
	return pkix.Name{Country: []string{"FR"}, Organization: []string{a.options.Organisation}, CommonName: a.options.Organisation + " " + common}
}

func (a *Authority) newKey() (crypto.Signer, error) {
	switch a.options.Algorithm {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("unknown algorithm %q", a.options.Algorithm)
}

// issue signs the template for pub; issuer nil makes a self-signed certificate.
func (a *Authority) issue(key crypto.Signer, pub crypto.PublicKey, template *x509.Certificate, issuer *Identity) (*Identity, error) {
	a.mu.Lock()
	a.serial++
	template.SerialNumber = big.NewInt(a.now().Unix()<<20 | a.serial)
	a.mu.Unlock()
	parent, signer := template, key
	var chain []*x509.Certificate
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.Key
		a.addLocations(template, issuer)
		if issuer != a.Root {
			chain = issuer.Chain()
		}
	}
	if !template.IsCA { // x509 gives key identifiers to CAs alone
		spki, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return nil, fmt.Errorf("issue %q: %w", template.Subject.CommonName, err)
		}
		sum := sha256.Sum256(spki)
		template.SubjectKeyId = sum[:20]
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	if err != nil {
		return nil, fmt.Errorf("issue %q: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Identity{Certificate: cert, Key: key, chain: chain}, nil
}

func (a *Authority) addLocations(template *x509.Certificate, issuer *Identity) {
	if a.options.NoLocations {
		return
	}
	crl, issuerAt := PathRootCRL, PathRoot
	if issuer == a.Issuing {
		crl, issuerAt = PathIssuingCRL, PathIssuing
	}
	template.CRLDistributionPoints = []string{a.options.BaseURL + crl}
	template.IssuingCertificateURL = []string{a.options.BaseURL + issuerAt}
	template.OCSPServer = []string{a.options.BaseURL + PathOCSP}
}

// IssueSigner issues a document-signing certificate for a key that lives elsewhere, such as in an HSM, valid from a year ago for two years. It returns
// the certificate followed by its intermediates.
func (a *Authority) IssueSigner(pub crypto.PublicKey, subject pkix.Name) ([]*x509.Certificate, error) {
	now := a.clock().Truncate(time.Second)
	return a.IssueSignerValid(pub, subject, now.Add(-year), now.Add(year))
}

// IssueSignerValid is IssueSigner with a validity of the caller's choice.
func (a *Authority) IssueSignerValid(pub crypto.PublicKey, subject pkix.Name, notBefore, notAfter time.Time) ([]*x509.Certificate, error) {
	return a.IssueLeaf(pub, &x509.Certificate{
		Subject: subject, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	})
}

// IssueLeaf issues any end-entity certificate from the issuing CA; the template's serial number and locations are filled in.
func (a *Authority) IssueLeaf(pub crypto.PublicKey, template *x509.Certificate) ([]*x509.Certificate, error) {
	identity, err := a.issue(nil, pub, template, a.Issuing)
	if err != nil {
		return nil, err
	}
	return identity.Chain(), nil
}

// WithTSA returns an authority with the same certificates but for that of the TSA, which is a new one with a validity of the caller's choice. It has a
// clock and faults of its own, and knows of no revocations.
func (a *Authority) WithTSA(notBefore, notAfter time.Time) (*Authority, error) {
	template := &x509.Certificate{Subject: a.TSA.Certificate.Subject, NotBefore: notBefore, NotAfter: notAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{criticalTimeStamping}}
	key, err := a.newKey()
	if err != nil {
		return nil, err
	}
	tsa, err := a.issue(key, key.Public(), template, a.Issuing)
	if err != nil {
		return nil, err
	}
	return &Authority{
		Root: a.Root, Issuing: a.Issuing, Signer: a.Signer, Responder: a.Responder, TSA: tsa, rogue: a.rogue, options: a.options, now: a.options.Now,
		revoked: map[string]x509.RevocationListEntry{}, faults: map[Service]*armed{}, requests: map[Service]int{},
	}, nil
}

// Roots returns a pool with the root alone.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Root.Certificate)
	return pool
}

// RootPEM returns the root certificate as PEM.
func (a *Authority) RootPEM() []byte {
	return PEM(a.Root.Certificate)
}

// PEM encodes certificates one after another.
func PEM(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// URL returns the address of one of the paths.
func (a *Authority) URL(path string) string { return a.options.BaseURL + path }

// SetNow moves the clock of everything that the authority says from now on.
func (a *Authority) SetNow(now func() time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = now
}

func (a *Authority) clock() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now().UTC()
}

// Revoke puts a certificate on its issuer's CRL and makes OCSP answer "revoked". Reason is the CRLReason of RFC 5280.
func (a *Authority) Revoke(cert *x509.Certificate, at time.Time, reason int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[revocationKey(cert.AuthorityKeyId, cert.SerialNumber)] = x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: at, ReasonCode: reason}
}

func revocationKey(issuerKeyID []byte, serial *big.Int) string {
	return string(issuerKeyID) + "/" + serial.String()
}

var (
	oidOCSPNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	// x509 cannot mark an extended key usage critical, and RFC 3161 asks for exactly that.
	criticalTimeStamping = pkix.Extension{
		Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true,
		Value: []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08},
	}
)
