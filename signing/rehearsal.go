package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// Rehearse completes the staged seal with a throw-away key in the place of the house's, without a time-stamp. Original
// and tail make a document whose seal is valid if only root is trusted: it can be checked by a reader before the real
// key is used, which cannot be undone. It must never leave the house.
func (s *Sealer) Rehearse(t *Ticket) (tail []byte, root *x509.Certificate, err error) {
	if err := t.check(); err != nil {
		return nil, nil, err
	}
	chain, err := t.Prepared.Certificates()
	if err != nil {
		return nil, nil, err
	}
	k, err := s.throwAway.like(chain[0].PublicKey, s.now())
	if err != nil {
		return nil, nil, err
	}
	p, err := t.Prepared.WithChain([]*x509.Certificate{k.cert})
	if err != nil {
		return nil, nil, err
	}
	value, err := k.key.Sign(rand.Reader, p.Digest, p.Algorithm.SignerOpts())
	if err != nil {
		return nil, nil, fmt.Errorf("signing: rehearsal: %w", err)
	}
	tail, _, err = p.Embed(value, nil)
	return tail, k.cert, err
}

// throwAwayKeys makes one key of each kind per process. They never leave it.
type throwAwayKeys struct {
	mu   sync.Mutex
	keys map[string]*throwAwayKey
}

type throwAwayKey struct {
	key  crypto.Signer
	cert *x509.Certificate // of itself
}

// like returns a key of the kind of pub whose certificate is valid now.
func (t *throwAwayKeys) like(pub crypto.PublicKey, now time.Time) (*throwAwayKey, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kind := string(pades.RSAPKCS1)
	ec, isEC := pub.(*ecdsa.PublicKey)
	if isEC {
		kind = ec.Params().Name
	}
	k := t.keys[kind]
	if k != nil && now.Add(time.Hour).Before(k.cert.NotAfter) && now.After(k.cert.NotBefore) {
		return k, nil
	}
	var key crypto.Signer
	var err error
	if isEC {
		key, err = ecdsa.GenerateKey(ec.Curve, rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, minRSABits)
	}
	if err != nil {
		return nil, fmt.Errorf("signing: rehearsal: %w", err)
	}
	if k, err = newThrowAwayKey(key, now); err != nil {
		return nil, err
	}
	if t.keys == nil {
		t.keys = make(map[string]*throwAwayKey)
	}
	t.keys[kind] = k
	return k, nil
}

// newThrowAwayKey gives key a certificate that is smaller than any real one, so that it fits where that one fits.
func newThrowAwayKey(key crypto.Signer, now time.Time) (*throwAwayKey, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Rehearsal"},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing: rehearsal: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("signing: rehearsal: %w", err)
	}
	return &throwAwayKey{key: key, cert: cert}, nil
}
