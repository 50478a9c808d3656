package softkey

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
)

// Config is one key of the configuration.
type Config struct {
	Path       string     // the file that Key.Save made
	Passphrase secret.Ref // read once, when the key is first used
}

// Keys opens soft keys by their names in the configuration. It implements signing.Keys and is safe for concurrent use. A key is decrypted once and kept:
// the derivation of the passphrase takes a second.
type Keys struct {
	mu      sync.Mutex
	configs map[string]Config
	open    map[string]*Key
	closed  bool
}

// New returns the keys of the configuration, without opening any.
func New(configs map[string]Config) *Keys {
	k := &Keys{configs: make(map[string]Config, len(configs)), open: map[string]*Key{}}
	for name, c := range configs {
		k.configs[name] = c
	}
	return k
}

// Open returns a key that has certificates. Others wait while one is decrypted.
func (k *Keys) Open(ctx context.Context, name string) (signing.Key, error) {
	key, config, err := k.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(key.chain) == 0 {
		return nil, &signing.KeyError{Key: name, Reason: "it has no certificate: " + config.Path}
	}
	return key, nil
}

// Bare is Open for a key whose certificates come from elsewhere, or are still to be had: it has none.
func (k *Keys) Bare(ctx context.Context, name string) (signing.Key, error) {
	key, _, err := k.get(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Key{signer: key.signer}, nil
}

func (k *Keys) get(ctx context.Context, name string) (*Key, Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	config, ok := k.configs[name]
	switch {
	case ctx.Err() != nil:
		return nil, config, ctx.Err()
	case k.closed:
		return nil, config, errors.New("softkey: closed")
	case !ok:
		return nil, config, &signing.KeyError{Key: name, Reason: "there is no soft key of this name"}
	}
	if key, ok := k.open[name]; ok {
		return key, config, nil
	}
	passphrase, err := config.Passphrase.Resolve()
	if err != nil {
		return nil, config, fmt.Errorf("softkey: passphrase of key %q: %w", name, err)
	}
	key, err := Open(config.Path, passphrase)
	if err != nil {
		return nil, config, err
	}
	k.open[name] = key
	return key, config, nil
}

// Close forgets the keys. Those already handed out remain usable.
func (k *Keys) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	clear(k.open)
	return nil
}
