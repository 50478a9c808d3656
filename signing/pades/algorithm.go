package pades

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the digests that a signature may use
	_ "crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Scheme is the kind of a signature.
type Scheme string

// The schemes.
const (
	RSAPKCS1 Scheme = "RSA-PKCS1v15"
	RSAPSS   Scheme = "RSA-PSS" // MGF1 with the same digest, salt as long as the digest
	ECDSA    Scheme = "ECDSA"   // the value is the DER of ECDSA-Sig-Value
)

// Algorithm is a scheme with its digest.
type Algorithm struct {
	Scheme Scheme
	Hash   crypto.Hash // SHA-256, SHA-384 or SHA-512
}

// AlgorithmFor chooses the algorithm for a public key. pss counts for RSA only.
func AlgorithmFor(pub crypto.PublicKey, h crypto.Hash, pss bool) (Algorithm, error) {
	if _, err := hashOID(h); err != nil {
		return Algorithm{}, err
	}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if pss {
			return Algorithm{RSAPSS, h}, nil
		}
		return Algorithm{RSAPKCS1, h}, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return Algorithm{ECDSA, h}, nil
		}
		return Algorithm{}, refuse("the curve %s is not supported; use P-256, P-384 or P-521", k.Params().Name)
	}
	return Algorithm{}, refuse("a key of type %T is not supported; use RSA or ECDSA", pub)
}

// SignerOpts are the options to give to a crypto.Signer together with the digest.
func (a Algorithm) SignerOpts() crypto.SignerOpts {
	if a.Scheme == RSAPSS {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash}
	}
	return a.Hash
}

// Verify checks a signature value over digest.
func (a Algorithm) Verify(pub crypto.PublicKey, digest, value []byte) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch a.Scheme {
		case RSAPKCS1:
			return rsa.VerifyPKCS1v15(k, a.Hash, digest, value)
		case RSAPSS:
			return rsa.VerifyPSS(k, a.Hash, digest, value, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	case *ecdsa.PublicKey:
		if a.Scheme != ECDSA {
			break
		}
		if !ecdsa.VerifyASN1(k, digest, value) {
			return errors.New("ecdsa: verification error")
		}
		return nil
	}
	return fmt.Errorf("a %T does not verify %s", pub, a)
}

// String names the algorithm, as in "RSA-PSS with SHA-256".
func (a Algorithm) String() string { return fmt.Sprintf("%s with %s", a.Scheme, a.Hash) }

// MarshalText spells the algorithm as in "RSA-PSS/SHA-256".
func (a Algorithm) MarshalText() ([]byte, error) {
	if _, err := hashOID(a.Hash); err != nil {
		return nil, err
	}
	return []byte(string(a.Scheme) + "/" + a.Hash.String()), nil
}

// UnmarshalText is the reverse of MarshalText.
func (a *Algorithm) UnmarshalText(text []byte) error {
	for _, s := range []Scheme{RSAPKCS1, RSAPSS, ECDSA} {
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			if string(text) == string(s)+"/"+h.String() {
				*a = Algorithm{s, h}
				return nil
			}
		}
	}
	return fmt.Errorf("pades: there is no signature algorithm %q", text)
}

// maxValue is the length in bytes of the longest value that pub can make.
func (a Algorithm) maxValue(pub crypto.PublicKey) int {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return k.Size()
	case *ecdsa.PublicKey:
		// Two integers with a leading zero each, and the headers of them and of the sequence.
		return 2*((k.Params().BitSize+7)/8+1+3) + 3
	}
	return 0
}

func hashOID(h crypto.Hash) (asn1.ObjectIdentifier, error) {
	switch h {
	case crypto.SHA256:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, nil
	case crypto.SHA384:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, nil
	case crypto.SHA512:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, nil
	}
	return nil, refuse("the digest %s is not supported; use SHA-256, SHA-384 or SHA-512", h)
}

// digestAlgorithm makes the AlgorithmIdentifier of h without parameters (RFC 5754, 2).
func digestAlgorithm(h crypto.Hash) ([]byte, error) {
	oid, err := hashOID(h)
	if err != nil {
		return nil, err
	}
	return sequence(object(oid)), nil
}

// identifier makes the AlgorithmIdentifier of a signature (RFC 5754, 3; RFC 4056).
func (a Algorithm) identifier() ([]byte, error) {
	oid, err := hashOID(a.Hash)
	if err != nil {
		return nil, err
	}
	nth := int(a.Hash - crypto.SHA256) // the digests have numbers in a row, in each of the arcs
	switch a.Scheme {
	case RSAPKCS1:
		return sequence(object(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11 + nth}), null), nil
	case RSAPSS:
		return sequence(object(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}), a.pssParameters(sequence(object(oid), null))), nil
	case ECDSA:
		return sequence(object(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2 + nth})), nil
	}
	return nil, fmt.Errorf("pades: there is no scheme %q", a.Scheme)
}

// pssParameters makes RSASSA-PSS-params (RFC 4055, 3.1).
func (a Algorithm) pssParameters(digest []byte) []byte {
	mgf1 := object(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8})
	return sequence(
		tlv(explicit(0), digest),
		tlv(explicit(1), sequence(mgf1, digest)),
		tlv(explicit(2), small(byte(a.Hash.Size()))),
	)
}
