package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/dealseal/dealseal/mocks/pki"
)

// sealSubject is whose seal it is.
var sealSubject = pkix.Name{CommonName: "Bench Electronic Seal", Organization: []string{"Bench"}, Country: []string{"GB"}}

// token is a software HSM with one key and its certificate.
type token struct {
	keyType                                  string
	dir, module, conf, pinFile, certificates string
	pin                                      string
	chain                                    []*x509.Certificate
}

// Labels of every token and key.
const (
	tokenLabel = "bench"
	keyLabel   = "seal"
)

// Types of keys, as pkcs11-tool spells them.
const (
	rsa2048 = "rsa:2048"
	p256    = "EC:prime256v1"
)

// makeToken makes a key of that type in a new token below dir, certified by the authority.
func makeToken(ctx context.Context, dir, keyType string, authority *pki.Authority) (*token, error) {
	module, err := softHSM()
	if err != nil {
		return nil, err
	}
	t := &token{keyType: keyType, dir: dir, module: module, conf: filepath.Join(dir, "softhsm2.conf"), pinFile: filepath.Join(dir, "pin"), certificates: filepath.Join(dir, "seal.pem"), pin: rand.Text()}
	if err := os.MkdirAll(filepath.Join(dir, "tokens"), 0o700); err != nil {
		return nil, err
	}
	conf := fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", filepath.Join(dir, "tokens"))
	if err := errors.Join(os.WriteFile(t.conf, conf, 0o600), os.WriteFile(t.pinFile, []byte(t.pin), 0o600)); err != nil {
		return nil, err
	}
	if _, err := t.tool(ctx, "softhsm2-util", "--init-token", "--free", "--label", tokenLabel, "--pin", t.pin, "--so-pin", rand.Text()); err != nil {
		return nil, err
	}
	login := []string{"--module", module, "--token-label", tokenLabel, "--login", "--pin", "env:BENCH_PIN"}
	if _, err := t.tool(ctx, "pkcs11-tool", append(login, "--keypairgen", "--key-type", keyType, "--label", keyLabel, "--id", "01", "--usage-sign")...); err != nil {
		return nil, err
	}
	der, err := t.tool(ctx, "pkcs11-tool", append(login, "--read-object", "--type", "pubkey", "--id", "01")...)
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("the token's public key: %w", err)
	}
	if t.chain, err = authority.IssueSigner(pub, sealSubject); err != nil {
		return nil, err
	}
	return t, os.WriteFile(t.certificates, pki.PEM(t.chain...), 0o600)
}

// yaml is the key as a configuration names it.
func (t *token) yaml() string {
	return fmt.Sprintf("{kind: pkcs11, module: %q, token: %s, label: %s, pin: %q, certificates: %q, env: {SOFTHSM2_CONF: %q}, write: [%q]}",
		t.module, tokenLabel, keyLabel, "file:"+t.pinFile, t.certificates, t.conf, t.dir)
}

// tool runs a command on the token and returns what it prints.
func (t *token) tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+t.conf, "BENCH_PIN="+t.pin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

func softHSM() (string, error) {
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("SoftHSM is not installed: scripts/deps.sh hsm")
}
