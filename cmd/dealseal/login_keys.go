package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pkcs11"
)

// loginKeys are the keys in HSMs with which tenants log in to their CRM. The registry of certificates, the counters and the
// pauses of the keys that seal know nothing of them. Nothing is started before the first login.
type loginKeys struct {
	cfg *config.Config

	mu  sync.Mutex
	hsm *pkcs11.Keys
}

func newLoginKeys(cfg *config.Config) *loginKeys { return &loginKeys{cfg: cfg} }

// check refuses the name of a key that there is none of; that of none is empty.
func (l *loginKeys) check(name string) error {
	if name == "" {
		return nil
	}
	if _, known := l.cfg.LoginKeys[name]; !known {
		return fmt.Errorf("auth.hsm_key is %q, which is not under login_keys in %s", name, filepath.Base(l.cfg.File))
	}
	return nil
}

// signer signs the assertions of a connector's logins.
func (l *loginKeys) signer(log *slog.Logger) func(ctx context.Context, name string, digest []byte) ([]byte, error) {
	return func(ctx context.Context, name string, digest []byte) ([]byte, error) {
		key, err := l.open(ctx, name, log)
		if err != nil {
			return nil, err
		}
		if s, able := key.(signing.ContextSigner); able {
			return s.SignContext(ctx, digest, crypto.SHA256)
		}
		return key.Sign(rand.Reader, digest, crypto.SHA256)
	}
}

// open returns a key that can sign assertions.
func (l *loginKeys) open(ctx context.Context, name string, log *slog.Logger) (signing.Key, error) {
	keys, err := l.all(log)
	if err != nil {
		return nil, err
	}
	key, err := keys.Bare(ctx, name)
	if err != nil {
		return nil, err
	}
	if seals := l.sealing(key.Public()); seals != "" {
		return nil, &signing.KeyError{Key: name, Reason: "it is the key signing.keys." + seals + ", which seals: make one of its own for logins"}
	}
	public, isRSA := key.Public().(*rsa.PublicKey)
	if !isRSA || public.N.BitLen() < 2048 {
		return nil, &signing.KeyError{Key: name, Reason: fmt.Sprintf("Salesforce takes RSA keys of at least 2048 bits for logins, and this is %s", kindOfKey(key.Public()))}
	}
	return key, nil
}

// sealing is the key of signing.keys whose certificate a public key belongs to, by whatever module and name it was reached.
func (l *loginKeys) sealing(public crypto.PublicKey) string {
	for name, k := range l.cfg.Signing.Keys {
		if k.Certificates == "" {
			continue
		}
		certs, err := readCertificates(relativeTo(l.cfg.File, k.Certificates))
		if err != nil {
			continue // which the start and the doctor speak of
		}
		if p, able := certs[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); able && p.Equal(public) {
			return name
		}
	}
	return ""
}

func kindOfKey(public crypto.PublicKey) string {
	if k, ok := public.(*rsa.PublicKey); ok {
		return fmt.Sprintf("one of %d", k.N.BitLen())
	}
	return fmt.Sprintf("a %T", public)
}

// all makes the keys' processes known; they start when they are asked. The HSM's refusals are remembered in the state
// directory: without it a wrong PIN would be tried again and again.
func (l *loginKeys) all(log *slog.Logger) (*pkcs11.Keys, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hsm != nil {
		return l.hsm, nil
	}
	if err := checkStateDir(l.cfg); err != nil {
		return nil, &notAskedError{err, "run the command as the daemon's user, or while the daemon runs"}
	}
	configs := map[string]pkcs11.Config{}
	for name, k := range l.cfg.LoginKeys {
		configs[name] = pkcs11.Config{Module: k.Module, Token: k.Token, Label: k.Label, ID: k.ID, PIN: k.PIN, Sessions: 1, Timeout: k.Timeout,
			StateDir: filepath.Join(l.cfg.StateDir, "hsm"), Env: k.Env, Read: k.Read, Write: k.Write, LocalSockets: k.LocalSockets, Network: k.Network}
	}
	var err error
	l.hsm, err = pkcs11.New(configs, log)
	return l.hsm, err
}

// Close ends their processes.
func (l *loginKeys) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hsm == nil {
		return nil
	}
	return l.hsm.Close()
}

// checkLoginKey is the name of the check of a key that logs in.
const checkLoginKey = "login key"

// examineLoginKey has the key sign a test that is no assertion.
func (x *examiner) examineLoginKey(name string) doctor.Examination {
	return examination(doctor.Signing, checkLoginKey, name, keyLimit, func(ctx context.Context, all func(doctor.Finding)) {
		cure := fmt.Sprintf("see that the token is there and unlocked, and check login_keys.%s: until then its tenants cannot log in", name)
		digest := signing.Trial(crypto.SHA256)
		if _, err := x.logins.signer(x.log)(ctx, name, digest); err != nil {
			all(failed(checkLoginKey, err, cure).On(name))
			return
		}
		all(doctor.Passed(checkLoginKey, "in the HSM, token %s; it signs", x.cfg.LoginKeys[name].Token).On(name))
	})
}
