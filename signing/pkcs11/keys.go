package pkcs11

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/chain"
	"github.com/dealseal/dealseal/worker"
)

// Keys are the configured keys. It implements signing.Keys.
type Keys struct {
	configs map[string]Config
	pools   map[string]*worker.Pool

	mu   sync.Mutex
	open map[string]*Key // with the configured certificates
	bare map[string]*Key // without any
}

var (
	_ signing.Keys          = (*Keys)(nil)
	_ signing.ContextSigner = (*Key)(nil)
	_ signing.Toucher       = (*Key)(nil)
	_ signing.Named         = (*Key)(nil)
)

// New checks the configurations and returns the keys under their names. It
// makes the state directories, starts nothing and reaches no device. What is
// wrong with a configuration is a [*ConfigError]. A nil log discards.
func New(configs map[string]Config, log *slog.Logger) (*Keys, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keys{configs: make(map[string]Config), pools: make(map[string]*worker.Pool), open: make(map[string]*Key), bare: make(map[string]*Key)}
	for name, c := range configs {
		c = c.withDefaults()
		if err := c.check(name); err != nil {
			return nil, err
		}
		spec, err := c.spec(name)
		if err != nil {
			return nil, err
		}
		k.configs[name] = c
		k.pools[name] = worker.NewPool(spec, 1, log.With("key", name))
	}
	return k, nil
}

// Open returns a key. The first time it starts the key's agent, which logs in
// to the token and finds key and certificate; later it returns the same Key,
// whether the device is there at the moment or not, until a signature turns
// out to be that of another key.
//
// The error is permanent if a person has to act: the PIN was refused (see
// [IsPINError]), the key is not on the token, no certificate fits it. A device
// that cannot be reached is not permanent.
func (k *Keys) Open(ctx context.Context, name string) (signing.Key, error) {
	return k.get(ctx, name, k.open, func(public []byte, file, token []*x509.Certificate) (*Key, error) {
		found, err := chain.For(public, file, token, time.Now())
		if err != nil {
			return nil, err
		}
		return &Key{public: found[0].PublicKey, spki: found[0].RawSubjectPublicKeyInfo, chain: found}, nil
	})
}

// Bare is Open for a key whose certificates come from elsewhere, or are still
// to be had: it has none. If the token does not tell the public key, it is that
// of the first certificate of the file.
func (k *Keys) Bare(ctx context.Context, name string) (signing.Key, error) {
	return k.get(ctx, name, k.bare, func(spki []byte, file, _ []*x509.Certificate) (*Key, error) {
		if spki == nil && len(file) > 0 {
			spki = file[0].RawSubjectPublicKeyInfo
		}
		if spki == nil {
			return nil, chain.ErrNoPublic
		}
		public, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			return nil, fmt.Errorf("the public key on the token: %w", err)
		}
		return &Key{public: public, spki: spki}, nil
	})
}

// get returns the key that is known, or makes one of what the token says.
func (k *Keys) get(ctx context.Context, name string, known map[string]*Key, make func(spki []byte, file, token []*x509.Certificate) (*Key, error)) (signing.Key, error) {
	k.mu.Lock()
	key := known[name]
	k.mu.Unlock()
	if key != nil {
		return key, nil
	}
	c, configured := k.configs[name]
	if !configured {
		return nil, &ConfigError{name, "name", "is not that of a configured PKCS#11 key"}
	}
	d, err := k.describe(ctx, name, c)
	if err != nil {
		return nil, err
	}
	var file []*x509.Certificate
	if c.Certificates != "" {
		if file, err = chain.Read(c.Certificates); err != nil {
			return nil, &ConfigError{name, "certificates:", err.Error()}
		}
	}
	if key, err = make(d.PublicKey, file, d.certificates()); err != nil {
		return nil, &ConfigError{name, "certificate:", err.Error()}
	}
	key.name, key.token, key.pool, key.timeout, key.forget = name, cmp.Or(c.Token, c.Serial), k.pools[name], c.Timeout, func() { k.forget(name) }
	k.mu.Lock()
	defer k.mu.Unlock()
	known[name] = key
	return key, nil
}

// forget makes the next Open or Bare ask the token again.
func (k *Keys) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, name)
	delete(k.bare, name)
}

// describe asks the agent for its key and certificates.
func (k *Keys) describe(ctx context.Context, name string, c Config) (d description, err error) {
	ctx, cancel := context.WithTimeout(ctx, loginTime+c.Timeout)
	defer cancel()
	reply, err := k.pools[name].Call(ctx, worker.Frame{Op: opDescribe})
	if err != nil {
		return d, fmt.Errorf("pkcs11: key %q: %w", name, err)
	}
	if err := json.Unmarshal(reply.Header, &d); err != nil {
		return d, fmt.Errorf("pkcs11: key %q: the agent's description: %w", name, err)
	}
	return d, nil
}

// certificates are those on the token. What is none to Go belongs to some other key.
func (d description) certificates() (all []*x509.Certificate) {
	for _, der := range d.Certificates {
		if certificate, err := x509.ParseCertificate(der); err == nil {
			all = append(all, certificate)
		}
	}
	return all
}

// Close ends the agents. Sessions and login end with them.
func (k *Keys) Close() error {
	var errs []error
	for _, pool := range k.pools {
		errs = append(errs, pool.Close())
	}
	return errors.Join(errs...)
}
