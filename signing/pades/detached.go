package pades

import (
	"crypto"
	"crypto/x509"
)

// Detached is a CMS signature beside bytes that are no PDF document, such as a manifest. It lacks its value.
type Detached struct {
	Algorithm Algorithm
	Digest    []byte // what the key signs

	attributes []byte
	chain      []*x509.Certificate
}

// PrepareDetached prepares a signature over content. chain begins with the signer's certificate.
func PrepareDetached(content []byte, h crypto.Hash, pss bool, chain []*x509.Certificate) (*Detached, error) {
	if len(chain) == 0 {
		return nil, refuse("there is no signer certificate")
	}
	if h == 0 {
		h = crypto.SHA256
	}
	if _, err := hashOID(h); err != nil {
		return nil, err
	}
	algorithm, err := AlgorithmFor(chain[0].PublicKey, h, pss)
	if err != nil {
		return nil, err
	}
	d := &Detached{Algorithm: algorithm, chain: chain}
	if d.attributes, err = signedAttributes(sumOf(h, content), h, chain[0]); err != nil {
		return nil, err
	}
	d.Digest = sumOf(h, d.attributes)
	return d, nil
}

func sumOf(h crypto.Hash, b []byte) []byte {
	sum := h.New()
	sum.Write(b)
	return sum.Sum(nil)
}

// Chain begins with the signer's certificate.
func (d *Detached) Chain() []*x509.Certificate { return d.chain }

// Embed completes the signature with its value, which is checked, and a TimeStampToken over the value, or nil.
func (d *Detached) Embed(value, token []byte) (cms []byte, err error) {
	if err := d.Algorithm.Verify(d.chain[0].PublicKey, d.Digest, value); err != nil {
		return nil, refuse("the signature value does not fit the digest and certificate: %v", err)
	}
	if token != nil {
		if err := checkToken(token); err != nil {
			return nil, err
		}
	}
	s := signedData{algorithm: d.Algorithm, chain: d.chain, attributes: d.attributes, value: value, token: token}
	return s.encode()
}
