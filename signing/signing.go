// Package signing makes the house's electronic seal on PDF documents, with a key that it never sees.
//
// A seal is made in steps that a caller can commit one by one: [Sealer.Prepare] stages the bytes, [Sealer.Redeem] spends
// the one use of the key, [Sealer.Timestamp] asks a time-stamp authority, and [Sealer.Complete] puts everything together. A
// step that is repeated with what was committed before never makes a second digest to sign.
//
// The keys, the time-stamp authority and the revocation services are ports; the folders below implement them.
package signing

import (
	"context"
	"crypto"
	"crypto/x509"

	"github.com/dealseal/dealseal/signing/revocation"
)

// Key is an opened signing key with its certificates. It is safe for concurrent use.
//
// Sign may be called with a context that ends while it runs: a Key that is also a [ContextSigner] is then stopped; of any
// other the result is thrown away, so its Sign must end by itself.
type Key interface {
	crypto.Signer
	// Chain is the signer's certificate, then each one's issuer. The root may be left out.
	Chain() []*x509.Certificate
}

// ContextSigner is the ability of a Key to give up signing when ctx ends, and to tell a device that is faulty from one that
// is not: it returns no value that it has not verified over digest with its public key, which is that of the first
// certificate of Chain, so that nobody need do so again.
type ContextSigner interface {
	SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) (value []byte, err error)
}

// Toucher is the ability of a Key to find out whether it could be used now, without being used, and to mend what can be
// mended. It takes as long as ctx allows and the key needs.
type Toucher interface {
	Touch(ctx context.Context) error
}

// Named is the ability of a Key to say which one it is, for the audit log.
type Named interface{ Name() string }

// Ability returns an ability of a key, or of the key that it wraps: a wrapper has Unwrap() Key.
func Ability[T any](key Key) (ability T, able bool) {
	for {
		if ability, able = key.(T); able {
			return ability, true
		}
		wrapper, wraps := key.(interface{ Unwrap() Key })
		if !wraps {
			return ability, false
		}
		key = wrapper.Unwrap()
	}
}

// Keys gives keys by their configured names. It is safe for concurrent use. An unknown name is a permanent error; a key
// store that cannot be reached is not.
type Keys interface {
	Open(ctx context.Context, name string) (Key, error)
	Close() error
}

// BareKeys is an ability of Keys: to give a key without its certificates, which come from elsewhere or are still to be had.
// Chain of such a key is empty.
type BareKeys interface {
	Bare(ctx context.Context, name string) (Key, error)
}

// Registry is an ability of Keys: to know what became of the certificate that a seal was staged with, which need not be the
// one that Open gives now.
type Registry interface {
	// OpenFor returns a key with the chain that a seal was staged with, after MayFinish. Whether it is for that key is for
	// the caller to see.
	OpenFor(ctx context.Context, name string, chain []*x509.Certificate) (Key, error)
	// MayFinish returns why a seal that was staged with a certificate must not be finished with it, as a *KeyError whose
	// Revoked is set, or nil. It only looks at what is known.
	MayFinish(name string, cert *x509.Certificate) error
	// Beside returns the certificate that a key makes a second seal with at present, beside that of the one that Open gives,
	// with its chain: the one that was followed, for a while. nil when there is none.
	Beside(name string) []*x509.Certificate
	// HasSealed reports whether a key makes or has made seals with a public key, by its SHA-256 in hexadecimal, by a
	// certificate that was not revoked.
	HasSealed(name, spki string) bool
}

// Timestamper gets an RFC 3161 TimeStampToken (DER) for digest, which was made with h. The token is checked before it is
// returned: it is for that digest, and its signer is trusted. It is safe for concurrent use.
type Timestamper interface {
	Timestamp(ctx context.Context, digest []byte, h crypto.Hash) (token []byte, err error)
}

// Revocation collects what certificates are checked with when nobody can be asked any more, from those who can be asked
// now. A certificate that was revoked is a *revocation.RevokedError. It is safe for concurrent use.
type Revocation interface {
	Collect(ctx context.Context, a revocation.Anchors, subjects []revocation.Subject) (revocation.Material, error)
}
