// Package keyservice signs with keys that a service on the network keeps: a key management service, or a vault. The folders
// below it are the services; what every one of them needs is here.
//
// A service is given a digest and returns a signature, so that no document leaves the house. What it returns is believed
// only as far as it can be proven: the public key must be the one of the configured certificate, and every signature is
// verified over our own digest before it is returned. No other key, no other version of the key, and no other digest can
// therefore come into a seal.
package keyservice

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/chain"
	"github.com/dealseal/dealseal/signing/pades"
)

// Service is one key at a service. It is safe for concurrent use, and its calls end with ctx.
//
// Its errors are permanent if a person has to act: the login is refused, there is no such key, the key is disabled. They
// hold no secret.
type Service interface {
	// Public asks for the public key of the configured version.
	Public(ctx context.Context) (crypto.PublicKey, error)
	// Sign has the configured version of the key sign a digest: an ECDSA value is ASN.1 DER, the salt of PSS is as long as
	// the hash.
	Sign(ctx context.Context, digest []byte, a pades.Algorithm) (value []byte, err error)
	// Place names service, key and version, for the audit log.
	Place() string
}

const defaultTimeout = 10 * time.Second

// Config is one key of the configuration.
type Config struct {
	Service Service
	// Certificates is a PEM file with the certificate of the key and its issuers; empty: they come from elsewhere.
	Certificates string
	// Timeout bounds one call; default 10 s.
	Timeout time.Duration
}

// Keys opens keys by their names in the configuration. It implements signing.Keys.
type Keys struct {
	configs map[string]Config

	mu   sync.Mutex
	open map[string]*Key // with the certificates of the file
	bare map[string]*Key // without any
}

var (
	_ signing.Keys          = (*Keys)(nil)
	_ signing.ContextSigner = (*Key)(nil)
	_ signing.Toucher       = (*Key)(nil)
	_ signing.Named         = (*Key)(nil)
)

// New returns the keys of the configuration, without asking any service.
func New(configs map[string]Config) *Keys {
	k := &Keys{configs: make(map[string]Config, len(configs)), open: map[string]*Key{}, bare: map[string]*Key{}}
	for name, c := range configs {
		if c.Timeout <= 0 {
			c.Timeout = defaultTimeout
		}
		k.configs[name] = c
	}
	return k
}

// Open returns a key. The first time it asks the service for the public key, which must be that of a certificate in the
// file; later it returns the same Key, until a signature or a touch shows that the service has another one.
func (k *Keys) Open(ctx context.Context, name string) (signing.Key, error) {
	return k.get(ctx, name, k.open, (*Key).identify)
}

// Bare is Open for a key whose certificates come from elsewhere, or are still to be had: it has none.
func (k *Keys) Bare(ctx context.Context, name string) (signing.Key, error) {
	return k.get(ctx, name, k.bare, (*Key).ask)
}

// get returns the key that is known, or makes itself known with one.
func (k *Keys) get(ctx context.Context, name string, known map[string]*Key, identify func(*Key, context.Context) error) (signing.Key, error) {
	k.mu.Lock()
	key := known[name]
	k.mu.Unlock()
	if key != nil {
		return key, nil
	}
	c, configured := k.configs[name]
	if !configured {
		return nil, &signing.KeyError{Key: name, Reason: "there is no key of this name at a service"}
	}
	key = &Key{name: name, config: c, forget: func() { k.forget(name) }}
	if err := identify(key, ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	known[name] = key
	return key, nil
}

func (k *Keys) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, name)
	delete(k.bare, name)
}

// Close forgets the keys: nothing is held open at a service.
func (k *Keys) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.open)
	clear(k.bare)
	return nil
}

// Key is a key at a service. It is safe for concurrent use.
type Key struct {
	name   string
	config Config
	public crypto.PublicKey
	spki   []byte // PKIX DER of public
	chain  []*x509.Certificate
	forget func()
}

// ask makes the key that of the service.
func (k *Key) ask(ctx context.Context) (err error) {
	if k.spki, err = k.current(ctx); err == nil {
		k.public, err = x509.ParsePKIXPublicKey(k.spki)
	}
	return err
}

// identify is ask, and finds the certificate.
func (k *Key) identify(ctx context.Context) error {
	if k.config.Certificates == "" {
		return &signing.KeyError{Key: k.name, Reason: "it has no certificate: have one issued (dealseal certs csr --key " + k.name + "), then name it in certificates, or import it (dealseal certs import)"}
	}
	certificates, err := chain.Read(k.config.Certificates)
	if err != nil {
		return &signing.KeyError{Key: k.name, Reason: fmt.Sprintf("its certificates: %v", err)}
	}
	if err := k.ask(ctx); err != nil {
		return err
	}
	if k.chain, err = chain.For(k.spki, certificates, nil, time.Now()); err != nil {
		return &signing.KeyError{Key: k.name, Reason: fmt.Sprintf("%v: have a certificate issued for the key %s", err, k.config.Service.Place())}
	}
	return nil
}

// current asks for the public key, PKIX DER.
func (k *Key) current(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, k.config.Timeout)
	defer cancel()
	public, err := k.config.Service.Public(ctx)
	if err != nil {
		return nil, k.trouble(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, &signing.KeyError{Key: k.name, Reason: err.Error()}
	}
	return der, nil
}

func (k *Key) trouble(err error) error { return fmt.Errorf("keyservice: key %q: %w", k.name, err) }

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Chain returns the certificate of the key and its issuers without the root; nothing if the key came from Bare.
func (k *Key) Chain() []*x509.Certificate { return append([]*x509.Certificate(nil), k.chain...) }

// Name says which key this is, and where, for the audit log.
func (k *Key) Name() string { return fmt.Sprintf("%s (%s)", k.name, k.config.Service.Place()) }

// Sign is SignContext without an outer context.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignContext signs digest, and verifies what the service returned over it. A call that failed is not repeated here: the
// service may have signed unheard, and whoever asked decides on the next attempt.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	algorithm, err := k.algorithm(digest, opts)
	if err != nil {
		return nil, &signing.KeyError{Key: k.name, Reason: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, k.config.Timeout)
	defer cancel()
	value, err := k.config.Service.Sign(ctx, digest, algorithm)
	if err != nil {
		return nil, k.trouble(err)
	}
	if err := algorithm.Verify(k.Public(), digest, value); err != nil {
		k.forget()
		return nil, k.trouble(errors.New("the service returned something that is no signature of this key over our digest: it signed another digest, with another key or version or by another scheme, or it is faulty"))
	}
	return value, nil
}

// algorithm is what opts ask for, as far as every service has it.
func (k *Key) algorithm(digest []byte, opts crypto.SignerOpts) (a pades.Algorithm, err error) {
	if opts == nil || !opts.HashFunc().Available() || opts.HashFunc().Size() != len(digest) {
		return a, fmt.Errorf("a digest of %d bytes does not belong to its hash function", len(digest))
	}
	pss, isPSS := opts.(*rsa.PSSOptions)
	if isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != opts.HashFunc().Size() {
		return a, errors.New("PSS with a salt that is not as long as the hash is not supported")
	}
	if own, ok := k.Public().(*ecdsa.PublicKey); ok && own.Curve.Params().BitSize < 8*len(digest) {
		return a, fmt.Errorf("services refuse a digest of %d bits for a key on %s: choose a shorter hash in signing.profiles", 8*len(digest), own.Params().Name)
	}
	return pades.AlgorithmFor(k.Public(), opts.HashFunc(), isPSS)
}

// Touch asks the service whether the configured version still has the public key of the certificate.
func (k *Key) Touch(ctx context.Context) error {
	spki, err := k.current(ctx)
	if err != nil {
		return err
	}
	if !bytes.Equal(spki, k.spki) {
		k.forget()
		return &signing.KeyError{Key: k.name, Reason: "the service has another key under this name and version now: it signs nothing"}
	}
	return nil
}
