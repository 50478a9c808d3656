package main

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/pki"
)

// token is a software HSM with a key and its certificate.
type token struct {
	w      *world
	module string // PKCS#11 library
	conf   string // of SoftHSM
	pin    string
	pinRef string // as it is configured
	env    []string
	extra  string // further configuration of the key, each beginning with a comma
}

// newToken makes a token "e2e" with a key "seal" and the ID 01.
func newToken(w *world) *token {
	k := &token{w: w, module: softHSM(w.t), pin: rand.Text(), conf: w.path("token/softhsm2.conf")} // the key's own process may read there
	must(w.t, os.WriteFile(k.conf, fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", w.path("token/tokens")), 0o600))
	k.env = []string{"SOFTHSM2_CONF=" + k.conf}
	k.tool("softhsm2-util", "--init-token", "--free", "--label", "e2e", "--pin", k.pin, "--so-pin", rand.Text())
	k.pinRef = w.secretFile("pin", k.pin)
	k.newKey()
	return k
}

// newKey makes the key and its certificate.
func (k *token) newKey() {
	k.object("--keypairgen", "--key-type", "EC:prime256v1", "--label", "seal", "--id", "01", "--usage-sign")
	k.certify()
}

// certify puts the certificate of the key on the token where the daemon finds it.
func (k *token) certify() {
	pub, err := x509.ParsePKIXPublicKey(k.object("--read-object", "--type", "pubkey", "--id", "01"))
	must(k.w.t, err)
	chain, err := k.w.authority.IssueSigner(pub, sealSubject)
	must(k.w.t, err)
	must(k.w.t, os.WriteFile(k.w.path("seal.pem"), pki.PEM(chain...), 0o600))
}

// tool runs a command of the system on the token, without any module of ours in between.
func (k *token) tool(name string, args ...string) []byte {
	k.w.t.Helper()
	return tool(k.w.t, slices.Concat(os.Environ(), k.env, []string{"E2E_PIN=" + k.pin}), name, args...)
}

// object is pkcs11-tool, logged in.
func (k *token) object(args ...string) []byte {
	k.w.t.Helper()
	return k.tool("pkcs11-tool", append([]string{"--module", softHSM(k.w.t), "--token-label", "e2e", "--login", "--pin", "env:E2E_PIN"}, args...)...)
}

// config is the configuration of the key.
func (k *token) config() string {
	var env []string
	for _, v := range k.env {
		name, value, _ := strings.Cut(v, "=")
		env = append(env, fmt.Sprintf("%s: %q", name, value))
	}
	return fmt.Sprintf("{kind: pkcs11, module: %q, token: e2e, label: seal, pin: %q, certificates: %q, env: {%s}, write: [%q]%s}",
		k.module, k.pinRef, k.w.path("seal.pem"), strings.Join(env, ", "), k.w.path("token"), k.extra)
}

// faultyToken is a token behind a module that fails when it is told to, and writes down what it is asked for: how often
// the key was used is counted there, and not by the daemon.
type faultyToken struct{ *token }

func newFaultyToken(w *world) *faultyToken {
	k := &faultyToken{newToken(w)}
	k.env = append(k.env, "FAULTY_MODULE="+k.module, "FAULTY_ORDERS="+w.path("token/orders"), "FAULTY_LOGINS="+w.path("token/logins"), "FAULTY_SIGNATURES="+w.path("token/signatures"))
	k.module = w.path("token/faulty.so")
	compileFaulty(w.t, k.module)
	return k
}

// compileFaulty makes the module of signing/pkcs11's own tests.
func compileFaulty(t *testing.T, file string) {
	t.Helper()
	headers := bytes.TrimSpace(tool(t, os.Environ(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11"))
	tool(t, os.Environ(), "gcc", "-shared", "-fPIC", "-I", string(headers), "-o", file, filepath.Join("..", "..", "signing", "pkcs11", "testdata", "faulty.c"), "-ldl")
}

// order makes the module fail: a fault, and " once" unless it lasts. An empty one ends it. Renaming keeps the module from
// reading half an order.
func (k *faultyToken) order(fault string) {
	k.w.t.Helper()
	must(k.w.t, os.WriteFile(k.w.path("token/orders.new"), []byte(fault), 0o600))
	must(k.w.t, os.Rename(k.w.path("token/orders.new"), k.w.path("token/orders")))
}

// signatures lists what the key has signed, in hexadecimal, in order.
func (k *faultyToken) signatures() []string { return k.lines("token/signatures") }

// logins counts how often a PIN was presented.
func (k *faultyToken) logins() int { return len(k.lines("token/logins")) }

func (k *faultyToken) lines(name string) []string {
	k.w.t.Helper()
	b, err := os.ReadFile(k.w.path(name))
	if err != nil && !os.IsNotExist(err) {
		k.w.t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func softHSM(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("SoftHSM is missing: install the package softhsm2 (scripts/deps.sh hsm)")
	return ""
}

// tool runs a command of the system and returns what it prints.
func tool(t *testing.T, env []string, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes()
}

// second makes a backup of the token, behind a module of its own, that stands in.
func (k *faultyToken) second() {
	k.w.t.Helper()
	must(k.w.t, os.CopyFS(k.w.path("token/spare"), os.DirFS(k.w.path("token/tokens"))))
	conf := k.w.path("token/spare.conf")
	must(k.w.t, os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", k.w.path("token/spare")), 0o600))
	spare := *k.token
	spare.env = []string{"SOFTHSM2_CONF=" + conf, "FAULTY_MODULE=" + softHSM(k.w.t), "FAULTY_SIGNATURES=" + k.w.path("token/spare-signatures")}
	k.extra = ", fall_back: [spare]}, spare: " + strings.TrimSuffix(spare.config(), "}")
}
