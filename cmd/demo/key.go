package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/softkey"
)

// subject is whose seal it is.
var subject = pkix.Name{CommonName: "Northwind Systems Electronic Seal", Organization: []string{"Northwind Systems"}, Country: []string{"GB"}}

// makeToken puts a fresh key into a software HSM of its own and has the authority certify it.
func (w *world) makeToken(ctx context.Context) error {
	module, err := softHSM()
	if err != nil {
		return err
	}
	pin := rand.Text()
	conf := w.path("token/softhsm2.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", w.path("token/tokens")), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(w.path("config/hsm-pin"), []byte(pin), 0o600); err != nil {
		return err
	}
	env := append(os.Environ(), "SOFTHSM2_CONF="+conf, "DEMO_PIN="+pin)
	if _, err := tool(ctx, env, "softhsm2-util", "--init-token", "--free", "--label", "demo", "--pin", pin, "--so-pin", rand.Text()); err != nil {
		return err
	}
	if _, err := tool(ctx, env, "pkcs11-tool", "--module", module, "--token-label", "demo", "--login", "--pin", "env:DEMO_PIN",
		"--keypairgen", "--key-type", "EC:prime256v1", "--label", "seal", "--id", "01", "--usage-sign"); err != nil {
		return err
	}
	der, err := tool(ctx, env, "pkcs11-tool", "--module", module, "--token-label", "demo", "--login", "--pin", "env:DEMO_PIN", "--read-object", "--type", "pubkey", "--id", "01")
	if err != nil {
		return err
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return fmt.Errorf("the HSM's public key: %w", err)
	}
	if err := w.certify(pub); err != nil {
		return err
	}
	w.keyPlace = "a SoftHSM token (PKCS#11), P-256"
	w.keyConfig = fmt.Sprintf("{kind: pkcs11, module: %q, token: demo, label: seal, pin: %q, certificates: %q, env: {SOFTHSM2_CONF: %q}, write: [%q]}",
		module, "file:"+w.path("config/hsm-pin"), w.path("config/seal.pem"), conf, w.path("token"))
	return nil
}

// makeSoftKey makes an encrypted key file with a certificate of the authority.
func (w *world) makeSoftKey(context.Context) error {
	passphrase := rand.Text()
	if err := os.WriteFile(w.path("config/passphrase"), []byte(passphrase), 0o600); err != nil {
		return err
	}
	key, err := softkey.Generate(softkey.P256)
	if err != nil {
		return err
	}
	chain, err := w.authority.IssueSigner(key.Public(), subject)
	if err != nil {
		return err
	}
	if key, err = key.WithChain(chain); err != nil {
		return err
	}
	if err := key.Save(w.path("config/seal.key"), secret.New([]byte(passphrase))); err != nil {
		return err
	}
	w.keyPlace = "an encrypted file (--soft-key), P-256"
	w.keyConfig = fmt.Sprintf("{kind: soft, file: %q, passphrase: %q}", w.path("config/seal.key"), "file:"+w.path("config/passphrase"))
	return nil
}

// certify has the authority issue a certificate for the seal and writes its chain.
func (w *world) certify(pub crypto.PublicKey) error {
	chain, err := w.authority.IssueSigner(pub, subject)
	if err != nil {
		return err
	}
	return os.WriteFile(w.path("config/seal.pem"), pki.PEM(chain...), 0o644)
}

func softHSM() (string, error) {
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("SoftHSM (package softhsm2) is not installed: install it, or run with --soft-key")
}

// tool runs a command and returns what it prints; an error carries what it complained of.
func tool(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
