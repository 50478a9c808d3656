package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/worker"
)

// TestMain lets this test binary be the dealseal command, each of its own children, and the operations of crash_test.go.
func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(children))
	}
	// Most tests wait for daemons more than they compute. -parallel, if given, is parsed later and wins.
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"dealseal": main, "operate": operate})
}

// TestCommandLine runs the scripts of testdata. Each begins with a good configuration in its folder, and says with edit
// what is wrong with it.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	office := newOffice(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               office.furnish,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  scriptExits,
			"edit":   scriptEdit,
			"mode":   scriptMode,
			"locked": scriptLocked,
			"holds":  scriptHolds,
		},
	})
}

// office is what a newcomer has before the first command: a certified key, a master key, a TSA and a root to trust.
type office struct {
	authority *pki.Authority
	// configured is the key's certificate, renewed one that is not in use yet.
	configured, renewed *x509.Certificate
	files               map[string][]byte
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{}
	compiledRenderer(t)
	server := httptest.NewUnstartedServer(nil)
	var err error
	if o.authority, err = pki.New(pki.Options{BaseURL: "http://" + server.Listener.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = o.authority
	server.Start()
	t.Cleanup(server.Close)

	const passphrase = "a passphrase for tests"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := o.authority.IssueSigner(key.Public(), pkix.Name{CommonName: "Office Seal", Organization: []string{"Office Ltd"}})
	if err != nil {
		t.Fatal(err)
	}
	renewals, err := o.renewals(chain)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("testdata/contract.pdf")
	if err != nil {
		t.Fatal(err)
	}
	o.files = map[string][]byte{
		"seal.key":     sealKey(t, key, chain, passphrase),
		"passphrase":   []byte(passphrase),
		"master-key":   bytes.Repeat([]byte("m"), minMasterKey),
		"root.pem":     o.authority.RootPEM(),
		"other.pem":    other.RootPEM(),
		"contract.pdf": document,
	}
	maps.Copy(o.files, renewals)
	return o
}

// renewals are certificates that a CA might send for the office's key, and others that it should not.
func (o *office) renewals(chain []*x509.Certificate) (map[string][]byte, error) {
	o.configured = chain[0]
	now, subject := time.Now().UTC().Truncate(time.Second), chain[0].Subject
	renewed, err := o.authority.IssueSignerValid(chain[0].PublicKey, subject, now.Add(-time.Hour), now.Add(500*24*time.Hour))
	if err != nil {
		return nil, err
	}
	over, err := o.authority.IssueSignerValid(chain[0].PublicKey, subject, now.Add(-48*time.Hour), now.Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	o.renewed = renewed[0]
	return map[string][]byte{
		"renewed.pem":   pki.PEM(renewed...),
		"alone.pem":     pki.PEM(renewed[0]),
		"both.pem":      pki.PEM(renewed[0], chain[0], chain[1]),
		"stray.pem":     pki.PEM(renewed[0], renewed[1], o.authority.TSA.Certificate),
		"over.pem":      pki.PEM(over...),
		"other-key.pem": pki.PEM(o.authority.Signer.Chain()...),
	}, nil
}

// furnish puts a copy of everything into a script's folder, with a configuration that is good.
func (o *office) furnish(env *testscript.Env) error {
	if err := o.write(env.WorkDir); err != nil {
		return err
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("TSA", o.tsa())
	env.Setenv("CONFIGURED", thumbprint(o.configured))
	env.Setenv("RENEWED", thumbprint(o.renewed))
	env.Setenv("RENEWED_SHORT", short(thumbprint(o.renewed)))
	env.Setenv("TOMORROW", time.Now().UTC().Add(24*time.Hour).Truncate(time.Second).Format(time.RFC3339))
	env.Setenv("TSA_HOST", strings.TrimPrefix(o.authority.URL(""), "http://"))
	env.Setenv("TEMPLATES", filepath.Join(root, "templates"))
	// Compiling the renderer takes longer than all scripts together: it is done once for all of them.
	cache := filepath.Join(root, "build", "renderer-cache")
	if err := errors.Join(os.MkdirAll(cache, 0o700), os.MkdirAll(env.WorkDir+"/state", 0o700), os.MkdirAll(env.WorkDir+"/tenants", 0o700),
		os.Symlink(cache, env.WorkDir+"/state/renderer")); err != nil {
		return err
	}
	main := fmt.Sprintf(goodConfiguration, env.WorkDir, root, o.tsa())
	return errors.Join(os.WriteFile(env.WorkDir+"/dealseal.yaml", []byte(main), 0o600),
		os.WriteFile(env.WorkDir+"/tenants/acme.yaml", []byte(strings.ReplaceAll(goodTenant, "$WORK", env.WorkDir)), 0o600))
}

// write puts the files into a folder, for their owner only: secrets that others may read are refused.
func (o *office) write(dir string) error {
	for name, content := range o.files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (o *office) tsa() string { return o.authority.URL(pki.PathTSA) }

const goodConfiguration = `state_dir: %[1]s/state
master_key: file:%[1]s/master-key
templates: %[2]s/templates
renderer: {wasm: %[2]s/build/typst.wasm}
signing:
  trust: [root.pem]
  tsa:
    - url: %[3]s
  keys:
    house:
      kind: soft
      file: seal.key
      passphrase: file:%[1]s/passphrase
  profiles:
    contract: {key: house, reason: Contract}
    memo: {key: house, level: B-B}
    lenient: {key: house, on_downgrade: accept-and-flag}
`

const goodTenant = `tenant: {id: acme, environment: sandbox, time_zone: Europe/Paris}
crm:
  kind: salesforce
  with:
    my_domain: https://acme.my.salesforce.com
    auth: {flow: client_credentials, consumer_key: key, client_secret: "env:SECRET"}
rules:
  - id: order-form
    when: {stage: Closed Won}
    document: {template: order-form@1}
    seal: contract
    write_back: {transaction_id: Tx__c, status: {field: Status__c}}
`

// scriptExits runs a command that must end with exactly this code: exits CODE COMMAND...
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want, err := strconv.Atoi(args[0]); err != nil || code != want {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// scriptEdit replaces the only place of a text in a file: edit FILE OLD NEW. With \n in NEW it adds lines.
func scriptEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	file, text := ts.MkAbs(args[0]), ts.ReadFile(args[0])
	if n := strings.Count(text, args[1]); n != 1 {
		ts.Fatalf("%s has %q %d times", args[0], args[1], n)
	}
	ts.Check(os.WriteFile(file, []byte(strings.Replace(text, args[1], strings.ReplaceAll(args[2], `\n`, "\n"), 1)), 0o600))
}

// scriptMode compares a file's permissions: mode FILE OCTAL.
func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE OCTAL")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s", args[0], got)
	}
}

// scriptLocked holds a file locked to the end of the script, as a running daemon does: locked FILE.
func scriptLocked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: locked FILE")
	}
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	ts.Defer(func() { f.Close() })
	ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
}

// scriptHolds looks for exact text in what the last command has printed, or in a file: [!] holds stdout|stderr|FILE TEXT.
func scriptHolds(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] holds stdout|stderr|FILE TEXT")
	}
	if text := ts.ReadFile(args[0]); strings.Contains(text, args[1]) == neg {
		ts.Fatalf("%s holds %q: %v; it is:\n%s", args[0], args[1], !neg, text)
	}
}
