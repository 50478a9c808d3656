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
	open map[string]*Key
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
	k := &Keys{configs: make(map[string]Config), pools: make(map[string]*worker.Pool), open: make(map[string]*Key)}
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
	k.mu.Lock()
	key := k.open[name]
	k.mu.Unlock()
	if key != nil {
		return key, nil
	}
	c, known := k.configs[name]
	if !known {
		return nil, &ConfigError{name, "name", "is not that of a configured PKCS#11 key"}
	}
	certificates, err := k.chain(ctx, name, c)
	if err != nil {
		return nil, err
	}
	key = &Key{name: name, token: cmp.Or(c.Token, c.Serial), pool: k.pools[name], timeout: c.Timeout, chain: certificates, forget: func() { k.forget(name) }}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open[name] = key
	return key, nil
}

// forget makes the next Open ask the token again.
func (k *Keys) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, name)
}

// chain asks the agent for its key and certificates.
func (k *Keys) chain(ctx context.Context, name string, c Config) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTime+c.Timeout)
	defer cancel()
	reply, err := k.pools[name].Call(ctx, worker.Frame{Op: opDescribe})
	if err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: %w", name, err)
	}
	var d description
	if err := json.Unmarshal(reply.Header, &d); err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: the agent's description: %w", name, err)
	}
	var file []*x509.Certificate
	if c.Certificates != "" {
		if file, err = chain.Read(c.Certificates); err != nil {
			return nil, &ConfigError{name, "certificates:", err.Error()}
		}
	}
	var token []*x509.Certificate
	for _, der := range d.Certificates {
		// What is not a certificate to Go belongs to some other key.
		if certificate, err := x509.ParseCertificate(der); err == nil {
			token = append(token, certificate)
		}
	}
	found, err := chain.For(d.PublicKey, file, token, time.Now())
	if err != nil {
		return nil, &ConfigError{name, "certificate:", err.Error()}
	}
	return found, nil
}

// Close ends the agents. Sessions and login end with them.
func (k *Keys) Close() error {
	var errs []error
	for _, pool := range k.pools {
		errs = append(errs, pool.Close())
	}
	return errors.Join(errs...)
}
