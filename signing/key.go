package signing

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// KeyError says why a key or its certificate must not be used. It needs a person: it is permanent.
type KeyError struct {
	Key    string // name in the configuration
	Reason string
	// Revoked is set when it is for a certificate that was revoked: nothing is finished with it either.
	Revoked bool
	cause   error
	staged  bool // the key is good, but not for a seal that was staged
}

func (e *KeyError) Error() string {
	if e.cause != nil {
		return "signing: " + e.Reason // which names the key
	}
	return fmt.Sprintf("signing: key %q: %s", e.Key, e.Reason)
}

func (e *KeyError) Unwrap() error { return e.cause }

// Permanent is true: the key stays as it is until someone changes it.
func (e *KeyError) Permanent() bool { return true }

// Unusable reports whether the key signs nothing until someone mends it, whatever the document: its PIN is refused, it is
// not on the token, its certificate ended. It is false for a key that is only not the one that a seal was staged for.
func (e *KeyError) Unusable() bool { return !e.staged }

// aboutStaged says of what is wrong with a certificate that it concerns what was staged with it alone: new seals have another.
func aboutStaged(err error) error {
	var k *KeyError
	if errors.As(err, &k) && !k.Revoked {
		k.staged = true
	}
	return err
}

// IsUnusable reports whether err says that a key signs nothing until someone mends it. That says nothing about the
// document: every other one fails in the same way, and all of them can be sealed once the key is mended.
func IsUnusable(err error) bool {
	var u interface{ Unusable() bool }
	return errors.As(err, &u) && u.Unusable()
}

// IsRevoked reports whether err says that a certificate was revoked.
func IsRevoked(err error) bool {
	var k *KeyError
	return errors.As(err, &k) && k.Revoked
}

// keyTrouble is an error that came from a key or from its store, which name the key themselves. What is permanent about a
// key is a *KeyError.
func keyTrouble(name string, err error) error {
	var own *KeyError
	if errors.As(err, &own) {
		return err
	}
	if isPermanent(err) {
		return &KeyError{Key: name, Reason: err.Error(), cause: err}
	}
	return fmt.Errorf("signing: %w", err)
}

func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// WithChain returns the key with other certificates, whose first must be for its public key: CheckKey judges that. It can be
// stopped if the key can.
func WithChain(key Key, chain []*x509.Certificate) Key {
	c := certified{key, chain}
	if s, ok := key.(ContextSigner); ok {
		return interruptible{c, s}
	}
	return c
}

// certified is a key whose certificates are not those that its store has for it.
type certified struct {
	Key
	chain []*x509.Certificate
}

func (c certified) Chain() []*x509.Certificate { return append([]*x509.Certificate(nil), c.chain...) }

// Unwrap gives the abilities of the key itself.
func (c certified) Unwrap() Key { return c.Key }

type interruptible struct {
	certified
	ContextSigner
}

const minRSABits = 2048

// CheckKey refuses a key that cannot make a good seal at the given time: a weak or foreign key, a certificate that is not
// valid or not for signing, a chain that does not hold together. The error is a *KeyError with that name.
func CheckKey(name string, key Key, now time.Time) error {
	return checkKey(name, key, now, (*x509.Certificate).CheckSignatureFrom)
}

// checkKey is CheckKey with the question whether a certificate was issued by another.
func checkKey(name string, key Key, now time.Time, issued func(cert, issuer *x509.Certificate) error) error {
	bad := func(format string, args ...any) error {
		return &KeyError{Key: name, Reason: fmt.Sprintf(format, args...)}
	}
	chain := key.Chain()
	if len(chain) == 0 || chain[0] == nil {
		return bad("it has no certificate")
	}
	cert := chain[0]
	if err := checkStrength(cert.PublicKey); err != nil {
		return bad("%v", err)
	}
	if !samePublic(cert.PublicKey, key.Public()) {
		return bad("the certificate %q is for another key", cert.Subject)
	}
	switch {
	case now.Before(cert.NotBefore):
		return bad("the certificate %q is not valid before %s", cert.Subject, cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return bad("the certificate %q ended at %s", cert.Subject, cert.NotAfter.UTC().Format(time.RFC3339))
	case cert.KeyUsage != 0 && cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0:
		return bad("the certificate %q is not for digital signatures (key usage)", cert.Subject)
	}
	for i := range len(chain) - 1 {
		if err := issued(chain[i], chain[i+1]); err != nil {
			return bad("certificate %d of the chain, %q, was not issued by the next one: %v", i, chain[i].Subject, err)
		}
	}
	return nil
}

// issuance remembers which certificates were found to be issued by which others: nothing ever changes that, and asking
// twice for each seal was a quarter of what the daemon itself spent on it. The zero value is ready; it is safe for
// concurrent use.
type issuance struct{ known sync.Map } // SHA-256 of both certificates

func (i *issuance) check(cert, issuer *x509.Certificate) error {
	h := sha256.New()
	h.Write(digest(cert.Raw))
	h.Write(digest(issuer.Raw))
	both := [sha256.Size]byte(h.Sum(nil))
	if _, known := i.known.Load(both); known {
		return nil
	}
	err := cert.CheckSignatureFrom(issuer)
	if err == nil {
		i.known.Store(both, true)
	}
	return err
}

// Trial is the digest that Try has signed. It is always the same, so that whoever reads the HSM's own log tells a test from
// a document.
func Trial(h crypto.Hash) []byte {
	d := h.New()
	io.WriteString(d, "dealseal: a test of the key, no document.") // never fails
	return d.Sum(nil)
}

// Try has the key sign Trial, which is no document and cannot become one, and verifies the value with the certificate's
// public key. The value is thrown away. A signature that does not verify is a *KeyError with that name.
func Try(ctx context.Context, name string, key Key, a pades.Algorithm) error {
	probe := Trial(a.Hash)
	value, _, err := signContext(ctx, key, probe, a.SignerOpts())
	if err != nil {
		return keyTrouble(name, err)
	}
	if err := a.Verify(key.Chain()[0].PublicKey, probe, value); err != nil {
		return &KeyError{Key: name, Reason: fmt.Sprintf("it made a signature (%s) that its certificate does not verify", a)}
	}
	return nil
}

func checkStrength(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return fmt.Errorf("it has %d bits; RSA needs %d at least", k.N.BitLen(), minRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("its curve is %s; use P-256, P-384 or P-521", k.Params().Name)
	}
	return fmt.Errorf("a %T cannot be used; use RSA or ECDSA", pub)
}

func samePublic(a, b crypto.PublicKey) bool {
	own, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && own.Equal(b)
}

// spkiOf is for messages.
func spkiOf(public crypto.PublicKey) string {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "unknown"
	}
	return hex.EncodeToString(digest(spki))
}

func digest(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// signContext signs, and returns when ctx ends even if the key does not. verified says that the key itself has verified the
// value.
func signContext(ctx context.Context, key Key, digest []byte, opts crypto.SignerOpts) (value []byte, verified bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if s, ok := key.(ContextSigner); ok {
		value, err = s.SignContext(ctx, digest, opts)
		return value, true, err
	}
	type result struct {
		value []byte
		err   error
	}
	done := make(chan result, 1) // buffered: the goroutine ends also when nobody waits any more
	go func() {
		value, err := key.Sign(rand.Reader, digest, opts)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, false, r.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}
