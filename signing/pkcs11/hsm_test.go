package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/worker"
)

func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(map[string]worker.Program{ProgramName: prying}))
	}
	os.Exit(runTests(m))
}

// template is the folder of an HSM that newHSM copies.
var template string

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "softhsm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	template = dir
	return m.Run()
}

// prying is Program with two more ops, which try what it must not be able to.
func prying(ctx context.Context, setup []byte) (worker.Handler, error) {
	handle, err := Program(ctx, setup)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, f worker.Frame) (worker.Frame, error) {
		switch f.Op {
		case "read":
			_, err := os.ReadFile(string(f.Body))
			return worker.Frame{}, err
		case "dial":
			c, err := net.Dial("tcp", string(f.Body))
			if err == nil {
				_ = c.Close()
			}
			return worker.Frame{}, err
		}
		return handle(ctx, f)
	}, nil
}

const (
	goodPIN = "473829"
	badPIN  = "111222"
)

// hsm is a SoftHSM with one token that has the keys "rsa" (ID 01), "p256"
// (02) and "p384" (03), and the certificates of the first two.
type hsm struct {
	dir   string
	certs string // PEM: all certificates, the root first
	keys  map[string]crypto.Signer
}

// newHSM returns a new HSM, with the same keys each time.
func newHSM(t testing.TB) *hsm {
	t.Helper()
	original.once.Do(func() { original.hsm = makeHSM(t) })
	if original.hsm == nil {
		t.Fatal("no HSM could be made: see the first test that failed")
	}
	h := &hsm{dir: filepath.Join(t.TempDir(), "hsm"), keys: original.hsm.keys}
	if err := os.CopyFS(h.dir, os.DirFS(template)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.path("pin"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.certs = h.path("certs.pem")
	h.configure(t)
	return h
}

var original struct {
	once sync.Once
	hsm  *hsm
}

// configure points SoftHSM at the tokens of h.
func (h *hsm) configure(t testing.TB) {
	t.Helper()
	h.write(t, "softhsm2.conf", "directories.tokendir = "+h.path("tokens")+"\nlog.level = ERROR\n")
}

func makeHSM(t testing.TB) *hsm {
	t.Helper()
	h := &hsm{dir: template, keys: map[string]crypto.Signer{}}
	h.makeDir(t, "tokens")
	h.makeDir(t, "state")
	h.configure(t)
	h.write(t, "pin", goodPIN+"\n")
	h.run(t, "softhsm2", "softhsm2-util", "--init-token", "--free", "--label", "test", "--so-pin", "99999999", "--pin", goodPIN)

	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h.keys["rsa"] = rsaKey
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384()} {
		if h.keys[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"rsa", "p256", "p384"} {
		der, err := x509.MarshalPKCS8PrivateKey(h.keys[name])
		if err != nil {
			t.Fatal(err)
		}
		h.write(t, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		h.run(t, "softhsm2", "softhsm2-util", "--import", h.path(name+".key"), "--token", "test", "--label", name, "--id", fmt.Sprintf("%02d", i+1), "--pin", goodPIN)
	}
	h.issue(t)
	return h
}

// issue makes a chain of root, issuer and one certificate per key.
func (h *hsm) issue(t testing.TB) {
	t.Helper()
	rootKey, root := certify(t, "root", nil, nil, nil)
	issuerKey, issuer := certify(t, "issuer", root, rootKey, nil)
	var file strings.Builder
	all := []*x509.Certificate{root}
	for i, name := range []string{"rsa", "p256", "p384"} {
		_, c := certify(t, name, issuer, issuerKey, h.keys[name].Public())
		all = append(all, c)
		if name != "p384" {
			h.write(t, name+".der", string(c.Raw))
			h.run(t, "opensc", "pkcs11-tool", "--module", softHSM(t), "--token-label", "test", "--login", "--pin", goodPIN,
				"--write-object", h.path(name+".der"), "--type", "cert", "--label", name, "--id", fmt.Sprintf("%02d", i+1))
		}
	}
	for _, c := range append(all, issuer) {
		file.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	h.write(t, "certs.pem", file.String())
}

// certify signs a certificate for public, or for a new key, with parent, or
// with itself.
func certify(t testing.TB, name string, parent *x509.Certificate, parentKey crypto.Signer, public crypto.PublicKey) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	var own crypto.Signer
	if public == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		own, public = k, k.Public()
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: own != nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent, parentKey = template, own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return own, c
}

func (h *hsm) path(name string) string { return filepath.Join(h.dir, name) }

func (h *hsm) makeDir(t testing.TB, name string) {
	t.Helper()
	if err := os.Mkdir(h.path(name), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (h *hsm) write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a command of a Debian package.
func (h *hsm) run(t testing.TB, pkg, command string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(command); err != nil {
		t.Fatalf("%s is missing: apt-get install %s", command, pkg)
	}
	cmd := exec.Command(command, args...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+h.path("softhsm2.conf"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// library returns the first of the paths that exists.
func library(t testing.TB, pkg string, paths ...string) string {
	t.Helper()
	for _, pattern := range paths {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("none of %s is there: apt-get install %s", paths, pkg)
	return ""
}

func softHSM(t testing.TB) string {
	return library(t, "softhsm2", "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so")
}

// config describes one of the keys.
func (h *hsm) config(t testing.TB, label string) Config {
	t.Helper()
	pin, err := secret.ParseRef("file:" + h.path("pin"))
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Module: softHSM(t), Token: "test", Label: label, PIN: pin, Certificates: h.certs, StateDir: h.path("state"),
		Env:  map[string]string{"SOFTHSM2_CONF": h.path("softhsm2.conf")},
		Read: []string{h.path("softhsm2.conf")}, Write: []string{h.path("tokens")},
	}
}

var buildFaulty = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "faulty")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	headers, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-I", strings.TrimSpace(string(headers)), "-o", filepath.Join(dir, "faulty.so"), "testdata/faulty.c", "-ldl").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "faulty.so"))
})

// faulty describes one of the keys behind the module that fails to order.
func (h *hsm) faulty(t testing.TB, label string) Config {
	t.Helper()
	module, err := buildFaulty()
	if err != nil {
		t.Fatalf("%v (apt-get install gcc libc6-dev?)", err)
	}
	for _, dir := range []string{"module", "orders"} {
		if err := os.MkdirAll(h.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.write(t, "module/faulty.so", string(module))
	c := h.config(t, label)
	c.Module = h.path("module/faulty.so")
	c.Env["FAULTY_MODULE"] = softHSM(t)
	c.Env["FAULTY_ORDERS"] = h.path("orders/orders")
	c.Env["FAULTY_TALKS"] = "yes"
	c.Env["FAULTY_LOGINS"] = h.path("orders/logins")
	c.Write = append(c.Write, h.path("orders"))
	return c
}

// order makes the faulty module fail.
func (h *hsm) order(t testing.TB, fault string) {
	t.Helper()
	h.write(t, "orders/orders", fault)
}

// logins counts how often a PIN has been presented to the faulty module.
func (h *hsm) logins(t testing.TB) int { return h.lines(t, "orders/logins") }

// lines counts those of a file that the faulty module writes, or that is ordered from it.
func (h *hsm) lines(t testing.TB, name string) int {
	t.Helper()
	content, err := os.ReadFile(h.path(name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(strings.Fields(string(content)))
}

// testLog shows the log with the test.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// newKeys returns one key under the name "house".
func newKeys(t testing.TB, c Config) *Keys {
	t.Helper()
	keys, err := New(map[string]Config{"house": c}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := keys.Close(); err != nil {
			t.Error(err)
		}
	})
	return keys
}

func openKey(t testing.TB, keys *Keys) *Key {
	t.Helper()
	key, err := keys.Open(t.Context(), "house")
	if err != nil {
		t.Fatal(err)
	}
	return key.(*Key)
}
