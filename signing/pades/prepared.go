package pades

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Staged is an update of a document that lacks the value of its /Contents, and with it all that its digest is made of.
type Staged struct {
	OriginalSize   int64  // bytes
	OriginalSHA256 []byte // of the original file

	Tail           []byte // what to append to the original; zeros where the value will be
	ContentsOffset int    // of the hexadecimal string in Tail, at its "<"
	ContentsLength int    // in bytes of Tail, "<" and ">" included

	Field string // fully qualified name of the signature field
}

// Prepared is a signature that lacks its value. It goes through JSON unchanged, so that it can be staged and survive a
// restart.
type Prepared struct {
	Staged

	Algorithm      Algorithm // what the key has to do
	DocumentDigest []byte    // over the sealed file without the hexadecimal string
	SignedAttrs    []byte    // DER SET OF
	Digest         []byte    // over SignedAttrs: what the key signs
	Chain          [][]byte  // DER: the signer's certificate, then those above it

	parsed []*x509.Certificate // those of Chain, if Prepare made this; never trusted without comparing
	made   *made
}

// made is what a Prepared that does not come from storage was made with: as long as all of it is still the same, it need
// not be derived again. It holds copies, so that what is changed in place is noticed.
type made struct {
	signer                             *x509.Certificate
	hash                               crypto.Hash
	documentDigest, attributes, digest []byte
	value                              []byte // that was verified over digest with the key of signer; nil if none was
}

// same reports whether p still is what it was made as, for the signer.
func (m *made) same(p *Prepared, signer *x509.Certificate) bool {
	return m != nil && m.signer == signer && m.hash == p.Algorithm.Hash && bytes.Equal(m.documentDigest, p.DocumentDigest) &&
		bytes.Equal(m.attributes, p.SignedAttrs) && bytes.Equal(m.digest, p.Digest)
}

// SizeError says that a value, with its time-stamp if it has one, does not fit the space that was reserved for it.
type SizeError struct{ Need, Reserved int } // bytes of DER

func (e *SizeError) Error() string {
	return fmt.Sprintf("pades: the signature needs %d bytes, but %d are reserved: raise the reserve by %d", e.Need, e.Reserved, e.Need-e.Reserved)
}

// Permanent is true: the space cannot be changed after the digest was made.
func (e *SizeError) Permanent() bool { return true }

// Reserved is the space for the value in bytes.
func (s *Staged) Reserved() int { return (s.ContentsLength - 2) / 2 }

// fill returns the tail with the value in its place. The receiver is not changed.
func (s *Staged) fill(value []byte) ([]byte, error) {
	if len(value) > s.Reserved() {
		return nil, &SizeError{Need: len(value), Reserved: s.Reserved()}
	}
	tail := bytes.Clone(s.Tail)
	hex.Encode(tail[s.ContentsOffset+1:], value)
	return tail, nil
}

// checkPlace finds a tail that was damaged in storage.
func (s *Staged) checkPlace() error {
	if s.ContentsLength < 2 || s.ContentsOffset < 0 || s.ContentsOffset > len(s.Tail)-s.ContentsLength {
		return refuse("the staged signature has its place outside of its bytes")
	}
	return nil
}

// Certificates parses the chain, unless it is still the one that the signature was prepared with.
func (p *Prepared) Certificates() ([]*x509.Certificate, error) {
	if len(p.Chain) == 0 {
		return nil, refuse("the staged signature has no certificate")
	}
	if slices.EqualFunc(p.Chain, p.parsed, func(der []byte, c *x509.Certificate) bool { return bytes.Equal(der, c.Raw) }) {
		return slices.Clone(p.parsed), nil
	}
	chain := make([]*x509.Certificate, len(p.Chain))
	for i, der := range p.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("pades: certificate %d of the staged signature: %w", i, err)
		}
		chain[i] = c
	}
	return chain, nil
}

// Embed completes the signature. value is the signature value over Digest, for ECDSA in DER; it is checked with the
// certificate's key. token is the DER of an RFC 3161 TimeStampToken over value, whose check is the caller's, or nil.
// Embed returns the bytes to append to the original, and the CMS in them. The receiver is not changed.
func (p *Prepared) Embed(value, token []byte) (tail, cms []byte, err error) {
	if err := p.Check(); err != nil {
		return nil, nil, err
	}
	chain, err := p.Certificates()
	if err != nil {
		return nil, nil, err
	}
	if !p.made.same(p, chain[0]) || value == nil || !bytes.Equal(p.made.value, value) {
		if err := p.Algorithm.Verify(chain[0].PublicKey, p.Digest, value); err != nil {
			return nil, nil, refuse("the signature value does not fit the staged digest and certificate: %v", err)
		}
	}
	if token != nil {
		if err := checkToken(token); err != nil {
			return nil, nil, err
		}
	}
	s := signedData{algorithm: p.Algorithm, chain: chain, attributes: p.SignedAttrs, value: value, token: token}
	if cms, err = s.encode(); err != nil {
		return nil, nil, err
	}
	tail, err = p.fill(cms)
	return tail, cms, err
}

// Vouch is for a caller that has verified value over Digest with the key of the signer's certificate: Embed then does not
// verify that value again. It has no effect on what comes from storage.
func (p *Prepared) Vouch(value []byte) {
	if p.made != nil {
		p.made.value = bytes.Clone(value)
	}
}

// checkToken makes sure that token is one DER value, so that it does not break the structure around it.
func checkToken(token []byte) error {
	s := cryptobyte.String(token)
	var content cryptobyte.String
	if !s.ReadASN1(&content, cbasn1.SEQUENCE) || !s.Empty() {
		return refuse("the time-stamp token is not one DER SEQUENCE")
	}
	return nil
}

// Check finds a Prepared that was damaged in storage: one whose digest is not that of its attributes, or whose
// attributes are not those of its document digest.
func (p *Prepared) Check() error {
	if _, err := hashOID(p.Algorithm.Hash); err != nil {
		return err
	}
	chain, err := p.Certificates()
	if err != nil {
		return err
	}
	if p.made.same(p, chain[0]) {
		return p.checkPlace()
	}
	attributes, err := signedAttributes(p.DocumentDigest, p.Algorithm.Hash, chain[0])
	if err != nil {
		return err
	}
	h := p.Algorithm.Hash.New()
	h.Write(attributes)
	if !bytes.Equal(attributes, p.SignedAttrs) || !bytes.Equal(h.Sum(nil), p.Digest) {
		return refuse("the digest to sign is not the one of the staged document")
	}
	return p.checkPlace()
}

// WithChain returns the same staged signature for another signer, whose key must be of the same kind. It shares the
// bytes of the tail with the receiver.
func (p *Prepared) WithChain(chain []*x509.Certificate) (*Prepared, error) {
	if len(chain) == 0 {
		return nil, refuse("there is no signer certificate")
	}
	algorithm, err := AlgorithmFor(chain[0].PublicKey, p.Algorithm.Hash, p.Algorithm.Scheme == RSAPSS)
	if err != nil {
		return nil, err
	}
	if algorithm != p.Algorithm {
		return nil, refuse("the signature is staged for %s, but the other key makes %s", p.Algorithm, algorithm)
	}
	other := *p
	other.setChain(chain)
	return &other, other.setDigest(chain[0])
}

func (p *Prepared) setChain(chain []*x509.Certificate) {
	p.Chain, p.parsed, p.made = nil, slices.Clone(chain), nil
	for _, c := range chain {
		p.Chain = append(p.Chain, c.Raw)
	}
}
