// Package softkey keeps a signing key in an encrypted file.
//
// It is for evaluation, tests and the demo: the key lies in the memory of the daemon while it is used, and whoever has the file and its passphrase has a
// copy of the key for ever. The configuration refuses it for production, where a key belongs into an HSM (package pkcs11).
//
// The file is an armored age file (age-encryption.org/v1) under a passphrase. Inside stands PEM: the key as PKCS #8, then the certificate chain. So
// `age --decrypt` opens it, and so does openssl what comes out.
package softkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"
)

// Algorithm names the kinds of keys that Generate makes.
type Algorithm string

const (
	RSA2048 Algorithm = "RSA-2048"
	RSA3072 Algorithm = "RSA-3072"
	P256    Algorithm = "P-256"
	P384    Algorithm = "P-384"
)

// Key is a private key in memory with its certificates. It implements signing.Key and is safe for concurrent use.
type Key struct {
	signer crypto.Signer
	chain  []*x509.Certificate
}

// Generate makes a new key without certificates; see WithChain and SelfSigned.
func Generate(a Algorithm) (*Key, error) {
	var signer crypto.Signer
	var err error
	switch a {
	case RSA2048:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		signer, err = rsa.GenerateKey(rand.Reader, 3072)
	case P256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return nil, fmt.Errorf("softkey: unknown algorithm %q: choose %s, %s, %s or %s", a, RSA2048, RSA3072, P256, P384)
	}
	if err != nil {
		return nil, fmt.Errorf("softkey: generate: %w", err)
	}
	return &Key{signer: signer}, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.signer.Public() }

// Sign signs a digest as the underlying key does: an *rsa.PSSOptions makes it PSS, ECDSA values are DER.
func (k *Key) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.signer.Sign(random, digest, opts)
}

// Chain returns the signer's certificate and those above it; nil for a key that has none yet.
func (k *Key) Chain() []*x509.Certificate { return append([]*x509.Certificate(nil), k.chain...) }

// WithChain returns the key with certificates, whose first must be for this key.
func (k *Key) WithChain(chain []*x509.Certificate) (*Key, error) {
	if len(chain) == 0 {
		return nil, errors.New("softkey: no certificate")
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, fmt.Errorf("softkey: public key: %w", err)
	}
	if !bytes.Equal(spki, chain[0].RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("softkey: the first certificate, %q, is for another key: give the signer's certificate first", chain[0].Subject)
	}
	return &Key{signer: k.signer, chain: append([]*x509.Certificate(nil), chain...)}, nil
}

// SelfSigned returns the key with a certificate of its own making, for those who evaluate without a CA: nobody trusts it until they are told to.
func (k *Key) SelfSigned(subject pkix.Name, notBefore, notAfter time.Time) (*Key, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("softkey: serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: subject, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k.signer)
	if err != nil {
		return nil, fmt.Errorf("softkey: self-sign: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("softkey: self-sign: %w", err)
	}
	return k.WithChain([]*x509.Certificate{cert})
}

const (
	blockKey         = "PRIVATE KEY"
	blockCertificate = "CERTIFICATE"
	maxCertificates  = 16
)

func (k *Key) encode() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("softkey: encode: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der})
	for _, c := range k.chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c.Raw})...)
	}
	return text, nil
}

// decode reads what encode writes. Its errors never repeat what it read.
func decode(text []byte) (*Key, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != blockKey {
		return nil, errors.New("it does not begin with a PEM block " + blockKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the private key is not PKCS #8 that can be read")
	}
	signer, err := supported(parsed)
	if err != nil {
		return nil, err
	}
	k := &Key{signer: signer}
	var chain []*x509.Certificate
	for len(bytes.TrimSpace(rest)) > 0 {
		if block, rest = pem.Decode(rest); block == nil || block.Type != blockCertificate || len(chain) == maxCertificates {
			return nil, fmt.Errorf("what follows the key is not up to %d PEM blocks %s", maxCertificates, blockCertificate)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain)+1, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return k, nil
	}
	return k.WithChain(chain)
}

func supported(key any) (crypto.Signer, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if bits := k.N.BitLen(); bits < 2048 {
			return nil, fmt.Errorf("an RSA key of %d bits is too weak: 2048 at least", bits)
		}
		return k, nil
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return k, nil
		}
		return nil, fmt.Errorf("curve %s is not P-256, P-384 or P-521", k.Params().Name)
	}
	return nil, fmt.Errorf("a key of kind %T is neither RSA nor ECDSA", key)
}
