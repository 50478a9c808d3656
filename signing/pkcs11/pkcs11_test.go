package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/worker"
)

// isPermanent asks err.
func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// signOnce signs something and checks it against the key that was imported.
func signOnce(key *Key, want crypto.PublicKey, opts crypto.SignerOpts, text string) error {
	h := opts.HashFunc().New()
	h.Write([]byte(text))
	digest := h.Sum(nil)
	value, err := key.Sign(nil, digest, opts)
	if err != nil {
		return err
	}
	switch public := want.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(public, digest, value) {
			return errors.New("the signature is not valid")
		}
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(public, opts.HashFunc(), digest, value, &rsa.PSSOptions{SaltLength: pss.SaltLength})
		}
		return rsa.VerifyPKCS1v15(public, opts.HashFunc(), digest, value)
	}
	return nil
}

func TestSignaturesOfEveryScheme(t *testing.T) {
	h := newHSM(t)
	for _, tc := range []struct {
		label string
		opts  []crypto.SignerOpts
	}{
		{"rsa", []crypto.SignerOpts{
			crypto.SHA256, crypto.SHA384, crypto.SHA512,
			&rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash},
			&rsa.PSSOptions{Hash: crypto.SHA384, SaltLength: rsa.PSSSaltLengthAuto},
			&rsa.PSSOptions{Hash: crypto.SHA512, SaltLength: 20},
		}},
		{"p256", []crypto.SignerOpts{crypto.SHA256, crypto.SHA512}},
		{"p384", []crypto.SignerOpts{crypto.SHA256, crypto.SHA384, crypto.SHA512}},
	} {
		t.Run(tc.label, func(t *testing.T) {
			key := openKey(t, newKeys(t, h.config(t, tc.label)))
			for _, opts := range tc.opts {
				if err := signOnce(key, h.keys[tc.label].Public(), opts, tc.label); err != nil {
					t.Errorf("%v: %v", opts, err)
				}
			}
		})
	}
}

func TestChainIsTheKeysCertificateAndItsIssuersWithoutTheRoot(t *testing.T) {
	h := newHSM(t)
	names := func(k *Key) (all []string) {
		for _, c := range k.Chain() {
			all = append(all, c.Subject.CommonName)
		}
		return all
	}
	for _, tc := range []struct{ label, id, file, want string }{
		{label: "rsa", want: "rsa"},
		{label: "rsa", file: h.certs, want: "rsa issuer"},
		{id: "02", file: h.certs, want: "p256 issuer"},
		{label: "p384", id: "03", file: h.certs, want: "p384 issuer"}, // its certificate is in the file only
	} {
		c := h.config(t, tc.label)
		c.ID, c.Certificates = tc.id, tc.file
		if got := strings.Join(names(openKey(t, newKeys(t, c))), " "); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// TestABareKeySignsWithoutACertificate is how the first certificate of a key is asked for: there is no file yet, and none on
// the token.
func TestABareKeySignsWithoutACertificate(t *testing.T) {
	h := newHSM(t)
	c := h.config(t, "p384")
	c.Certificates = ""
	keys := newKeys(t, c)
	if _, err := keys.Open(t.Context(), "house"); err == nil || !isPermanent(err) {
		t.Fatalf("it opens with the certificate of nobody: %v", err)
	}
	for range 2 {
		bare, err := keys.Bare(t.Context(), "house")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(bare.Chain()); n != 0 {
			t.Errorf("it has %d certificates", n)
		}
		if err := signOnce(bare.(*Key), h.keys["p384"].Public(), crypto.SHA384, "a request for a certificate"); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	h := newHSM(t)
	for _, tc := range []struct {
		name      string
		change    func(*Config)
		permanent bool
		want      string
	}{
		{"key", func(c *Config) { c.Label = "other" }, true, `no private key with label "other"`},
		{"key of that ID", func(c *Config) { c.ID = "09" }, true, `id "09"`},
		{"token", func(c *Config) { c.Token = "other" }, false, `the module shows "test"`},
		{"serial", func(c *Config) { c.Serial = "other" }, false, `the module shows "test"`},
		{"certificate", func(c *Config) { c.Label, c.Certificates = "p384", "" }, true, "none of 2 certificates"},
		{"certificates file", func(c *Config) { c.Certificates = h.path("none") }, true, "no such file"},
		{"certificates in the file", func(c *Config) { c.Certificates = h.path("pin") }, true, "no certificate in PEM form"},
		{"module", func(c *Config) { c.Module = h.path("softhsm2.conf") }, true, "is not a PKCS#11 library"},
		{"PIN", func(c *Config) { c.PIN = secret.Ref{} }, true, "no PIN is configured"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := h.config(t, "rsa")
			tc.change(&c)
			_, err := newKeys(t, c).Open(t.Context(), "house")
			if err == nil || !strings.Contains(err.Error(), tc.want) || isPermanent(err) != tc.permanent {
				t.Errorf("%v (permanent: %v)", err, isPermanent(err))
			}
		})
	}
}

func TestConfigurationIsRefusedBeforeAnythingStarts(t *testing.T) {
	state := t.TempDir()
	good := Config{Module: "/m.so", Token: "t", Label: "l", StateDir: "/s"}
	env, err := secret.ParseRef("env:PIN")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field  string
		change func(*Config)
	}{
		{"module", func(c *Config) { c.Module = "m.so" }},
		{"token", func(c *Config) { c.Token = "" }},
		{"label", func(c *Config) { c.Label = "" }},
		{"id", func(c *Config) { c.ID = "abc" }},
		{"sessions", func(c *Config) { c.Sessions = 65 }},
		{"sessions", func(c *Config) { c.Sessions = -1 }},
		{"timeout", func(c *Config) { c.Timeout = -1 }},
		{"state directory", func(c *Config) { c.StateDir = "s" }},
		{"pin", func(c *Config) { c.PIN = env }},
		{"module", func(*Config) {}}, // it does not exist
		{"read or write path", func(c *Config) { c.Module, c.StateDir, c.Read = "/proc/self/status", state, []string{"/nonexistent"} }},
		{"read or write path", func(c *Config) { c.Module, c.StateDir, c.Write = "/proc/self/status", state, []string{"."} }},
	} {
		c := good
		tc.change(&c)
		_, err := New(map[string]Config{"house": c}, nil)
		var bad *ConfigError
		if !errors.As(err, &bad) || bad.Field != tc.field || bad.Key != "house" || !isPermanent(err) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
	keys, err := New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Open(t.Context(), "unknown"); !isPermanent(err) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestEightGoroutinesShareTheSessions(t *testing.T) {
	h := newHSM(t)
	c := h.config(t, "p256")
	c.Sessions = 3
	key := openKey(t, newKeys(t, c))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 60 {
				if err := signOnce(key, h.keys["p256"].Public(), crypto.SHA256, fmt.Sprint(i, j)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWrongPINIsPresentedOnceInALifetime(t *testing.T) {
	h := newHSM(t)
	c := h.faulty(t, "rsa")
	h.write(t, "pin", badPIN)
	var log bytes.Buffer
	for range 2 { // the daemon is started twice
		keys, err := New(map[string]Config{"house": c, "again": c}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"house", "again", "house"} {
			_, err := keys.Open(t.Context(), name)
			if !IsPINError(err) || !isPermanent(err) {
				t.Errorf("%v", err)
			}
			fmt.Fprintln(&log, err)
		}
		if err := keys.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.logins(t); n != 1 {
		t.Errorf("the wrong PIN was presented %d times", n)
	}
	memory := readDir(t, h.path("state"))
	for where, text := range map[string]string{"log": log.String(), "memory": memory} {
		if strings.Contains(text, badPIN) || strings.Contains(text, goodPIN) {
			t.Errorf("the %s has the PIN: %s", where, text)
		}
	}
	if !strings.Contains(log.String(), "not presented again") {
		t.Errorf("the log does not say what to do: %s", log.String())
	}

	h.write(t, "pin", goodPIN)
	key := openKey(t, newKeys(t, c))
	if err := signOnce(key, h.keys["rsa"].Public(), crypto.SHA256, "x"); err != nil {
		t.Error(err)
	}
	if got := readDir(t, h.path("state")); got == memory || strings.Contains(got, "hash") {
		t.Errorf("the refusal is still remembered after a success: %s", got)
	}
	if n := h.logins(t); n != 2 {
		t.Errorf("%d logins in all, want 2", n)
	}
}

func TestPINComesFromACredentialOfTheUnit(t *testing.T) {
	h := newHSM(t)
	t.Setenv("CREDENTIALS_DIRECTORY", h.dir)
	ref, err := secret.ParseRef("credential:pin")
	if err != nil {
		t.Fatal(err)
	}
	c := h.config(t, "p256")
	c.PIN = ref
	openKey(t, newKeys(t, c))
}

func TestWarningWhenSomebodyElseHadThePINWrong(t *testing.T) {
	h := newHSM(t)
	c := h.config(t, "p256")
	for pin, want := range map[string]bool{goodPIN: false, badPIN: true} {
		cmd := exec.Command("pkcs11-tool", "--module", c.Module, "--token-label", "test", "--login", "--pin", pin, "--list-objects")
		cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+h.path("softhsm2.conf"))
		if err := cmd.Run(); (err != nil) != want {
			t.Fatal(err)
		}
		var log bytes.Buffer
		keys, err := New(map[string]Config{"house": c}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		openKey(t, keys)
		if err := keys.Close(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "a wrong PIN has been presented"); got != want {
			t.Errorf("%v, want %v: %s", got, want, log.String())
		}
	}
}

func BenchmarkSign(b *testing.B) {
	h := newHSM(b)
	for _, sessions := range []int{1, 4} {
		b.Run(fmt.Sprint("sessions=", sessions), func(b *testing.B) {
			c := h.config(b, "p256")
			c.Sessions = sessions
			key := openKey(b, newKeys(b, c))
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func readDir(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, e := range entries {
		content, err := os.ReadFile(dir + "/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}

func TestNoPINIsPresentedToATokenThatIsAboutToLock(t *testing.T) {
	for fault, want := range map[string]string{"final-try": "one try left", "locked": "is locked"} {
		t.Run(fault, func(t *testing.T) {
			h := newHSM(t)
			c := h.faulty(t, "rsa")
			h.order(t, fault)
			_, err := newKeys(t, c).Open(t.Context(), "house")
			if !IsPINError(err) || !isPermanent(err) || !strings.Contains(err.Error(), want) {
				t.Error(err)
			}
			if n := h.logins(t); n != 0 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

func TestPINThatCouldNotBeRememberedIsNotPresented(t *testing.T) {
	h := newHSM(t)
	c := h.faulty(t, "rsa")
	openKey(t, newKeys(t, c)) // makes the file
	before := h.logins(t)
	entries, err := os.ReadDir(h.path("state"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	for name, content := range map[string]string{"damaged": "{", "newer": `{"version":2}`, "huge": strings.Repeat(" ", maxRecord+1)} {
		h.write(t, "state/"+entries[0].Name(), content)
		_, err := newKeys(t, c).Open(t.Context(), "house")
		if !isPermanent(err) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := h.logins(t); n != before {
		t.Errorf("%d logins without a memory", n-before)
	}
}

func TestLadder(t *testing.T) {
	h := newHSM(t)
	c := h.faulty(t, "p256")
	c.Sessions = 2
	key := openKey(t, newKeys(t, c))
	public := h.keys["p256"].Public()
	for _, tc := range []struct {
		fault  string
		logins int // that the cure takes
	}{
		{"session once", 0},
		{"active once", 0},
		{"handle once", 0},
		{"logged-out once", 1},
		{"device once", 1}, // a new process
		{"crash once", 1},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			before := h.logins(t)
			h.order(t, tc.fault)
			for range 4 { // both sessions
				if err := signOnce(key, public, crypto.SHA256, tc.fault); err != nil {
					t.Error(err)
				}
			}
			if n := h.logins(t) - before; n != tc.logins {
				t.Errorf("%d logins, want %d", n, tc.logins)
			}
		})
	}
	for fault, want := range map[string]string{
		"wrong once":     "does not verify",
		"mechanism once": "MECHANISM_INVALID",
		"device":         "DEVICE_ERROR",
		"session":        "cannot be mended",
	} {
		t.Run(fault, func(t *testing.T) {
			h.order(t, fault)
			err := signOnce(key, public, crypto.SHA256, fault)
			if err == nil || !strings.Contains(err.Error(), want) || isPermanent(err) {
				t.Errorf("%v (permanent: %v)", err, isPermanent(err))
			}
			h.order(t, "")
			if err := signOnce(key, public, crypto.SHA256, fault); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestHangingModuleIsKilledAtTheEarlierDeadline(t *testing.T) {
	const short = 300 * time.Millisecond
	for name, timeouts := range map[string][2]time.Duration{"of the key": {short, time.Hour}, "of the caller": {time.Hour, short}} {
		t.Run(name, func(t *testing.T) {
			h := newHSM(t)
			c := h.faulty(t, "p256")
			c.Timeout = timeouts[0]
			key := openKey(t, newKeys(t, c))
			h.order(t, "hang once")
			ctx, cancel := context.WithTimeout(t.Context(), timeouts[1])
			defer cancel()
			_, err := key.SignContext(ctx, make([]byte, 32), crypto.SHA256)
			var late *worker.DeadlineError
			if !errors.As(err, &late) || isPermanent(err) {
				t.Fatal(err)
			}
			waitFor(t, "another process", func() error {
				return signOnce(key, h.keys["p256"].Public(), crypto.SHA256, "x")
			})
		})
	}
}

func TestKeyThatWantsAPINForEverySignature(t *testing.T) {
	h := newHSM(t)
	h.run(t, "opensc", "pkcs11-tool", "--module", softHSM(t), "--token-label", "test", "--login", "--pin", goodPIN,
		"--keypairgen", "--key-type", "EC:prime256v1", "--label", "careful", "--id", "09", "--always-auth")
	h.run(t, "opensc", "pkcs11-tool", "--module", softHSM(t), "--token-label", "test",
		"--read-object", "--type", "pubkey", "--id", "09", "-o", h.path("careful.pub"))
	der, err := os.ReadFile(h.path("careful.pub"))
	if err != nil {
		t.Fatal(err)
	}
	public := parsePublic(t, der)
	issuerKey, issuer := certify(t, "issuer", nil, nil, nil)
	_, c := certify(t, "careful", issuer, issuerKey, public)
	h.write(t, "certs.pem", pemOf(c))

	config := h.faulty(t, "careful")
	config.Sessions = 2
	key := openKey(t, newKeys(t, config))
	before := h.logins(t)
	for range 3 {
		if err := signOnce(key, public, crypto.SHA256, "x"); err != nil {
			t.Error(err)
		}
	}
	if n := h.logins(t) - before; n != 3 {
		t.Errorf("%d logins for 3 signatures", n)
	}
}

func TestTokenIsRemovedAndComesBack(t *testing.T) {
	h := newHSM(t)
	key := openKey(t, newKeys(t, h.config(t, "p256")))
	public := h.keys["p256"].Public()
	if err := signOnce(key, public, crypto.SHA256, "x"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(h.path("tokens"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	inside, outside := h.path("tokens/"+entries[0].Name()), h.path("pocket")
	if err := os.Rename(inside, outside); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := signOnce(key, public, crypto.SHA256, "x"); err == nil || isPermanent(err) {
			t.Errorf("without the token: %v", err)
		}
	}
	if err := os.Rename(outside, inside); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "signatures to come again", func() error { return signOnce(key, public, crypto.SHA256, "x") })
}

func TestHSMServiceIsKilledAndComesBack(t *testing.T) {
	h := newHSM(t)
	h.makeDir(t, "run")
	socket := h.path("run/p11")
	server := startServer(t, h, socket)
	c := h.config(t, "p256")
	c.Module = library(t, "p11-kit-modules", "/usr/lib/*/pkcs11/p11-kit-client.so")
	c.LocalSockets = true
	c.Env = map[string]string{"P11_KIT_SERVER_ADDRESS": "unix:path=" + socket}
	c.Write = nil
	key := openKey(t, newKeys(t, c))
	public := h.keys["p256"].Public()
	if err := signOnce(key, public, crypto.SHA256, "x"); err != nil {
		t.Fatal(err)
	}
	stopServer(t, server)
	if err := signOnce(key, public, crypto.SHA256, "x"); err == nil || isPermanent(err) {
		t.Errorf("without the service: %v", err)
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	startServer(t, h, socket)
	waitFor(t, "signatures to come again", func() error { return signOnce(key, public, crypto.SHA256, "x") })
}

// startServer makes SoftHSM a service that can be killed.
func startServer(t *testing.T, h *hsm, socket string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath("p11-kit"); err != nil {
		t.Fatal("p11-kit is missing: apt-get install p11-kit")
	}
	cmd := exec.Command("p11-kit", "server", "--foreground", "-n", socket, "--provider", softHSM(t), "pkcs11:token=test")
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+h.path("softhsm2.conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServer(t, cmd) })
	waitFor(t, "the service", func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return cmd
}

func stopServer(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if cmd.ProcessState != nil {
		return
	}
	// Each connection has a process of its own in the service's group.
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // "signal: killed"
}

// waitFor waits until try succeeds, at most 20 seconds.
func waitFor(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); <-tick.C {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("waited in vain for %s: %v", what, err)
}

func TestAgentReachesNothingButItsDevice(t *testing.T) {
	h := newHSM(t)
	h.write(t, "credential", "x")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := h.config(t, "p256").withDefaults()
	spec, err := c.spec("house")
	if err != nil {
		t.Fatal(err)
	}
	pool := worker.NewPool(spec, 1, nil)
	defer pool.Close()
	for _, try := range [][2]string{{"read", h.path("credential")}, {"read", h.path("p256.key")}, {"dial", listener.Addr().String()}} {
		_, err := pool.Call(t.Context(), worker.Frame{Op: try[0], Body: []byte(try[1])})
		var remote *worker.RemoteError
		if !errors.As(err, &remote) || !strings.Contains(remote.Message, "permi") {
			t.Errorf("%s %s: %v", try[0], try[1], err)
		}
	}
	if bytes.Contains(spec.Setup, []byte(goodPIN)) {
		t.Error("the daemon read the PIN")
	}
}

func TestDigestOfAnotherLengthIsRefused(t *testing.T) {
	h := newHSM(t)
	key := openKey(t, newKeys(t, h.config(t, "rsa")))
	for name, opts := range map[string]crypto.SignerOpts{"length": crypto.SHA512, "hash": crypto.Hash(0), "none": nil, "old hash": crypto.MD5SHA1} {
		if _, err := key.Sign(nil, make([]byte, 32), opts); !isPermanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestATouchMendsWhatWasLostWhileNobodySigned has sessions, login and process end while the key is idle. The touch mends
// them, and signs nothing; the signature after it finds nothing to mend.
func TestATouchMendsWhatWasLostWhileNobodySigned(t *testing.T) {
	h := newHSM(t)
	c := h.faulty(t, "p256")
	c.Sessions, c.Timeout = 3, 5*time.Second // a process may start late on a busy machine: logins are counted
	c.Env["FAULTY_SIGNATURES"] = h.path("orders/signatures")
	key := openKey(t, newKeys(t, c))
	for _, tc := range []struct {
		fault  string
		logins int // that the cure takes
		fails  bool
	}{
		{"", 0, false},
		{"lapse once", 0, false},
		{"find-logged-out once", 1, false},
		{"find-nothing once", 1, false},
		{"find-half once", 1, false},
		{"find-crash once", 1, false}, // a new process
		{"find-hang once", 1, true},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			logins, signed := h.logins(t), h.lines(t, "orders/signatures")
			h.order(t, tc.fault)
			if err := key.Touch(t.Context()); (err != nil) != tc.fails {
				t.Fatal(err)
			}
			if tc.fails { // the process was killed: the next touch has another one
				waitFor(t, "another process", func() error { return key.Touch(t.Context()) })
			}
			if h.lines(t, "orders/orders") > 0 {
				t.Error("the fault did not strike")
			}
			if n := h.logins(t) - logins; n != tc.logins {
				t.Errorf("the touch took %d logins, want %d", n, tc.logins)
			}
			if n := h.lines(t, "orders/signatures") - signed; n != 0 {
				t.Errorf("the touch signed %d times", n)
			}
			for range 3 {
				if err := signOnce(key, h.keys["p256"].Public(), crypto.SHA256, tc.fault); err != nil {
					t.Error(err)
				}
			}
			if n := h.logins(t) - logins; n != tc.logins {
				t.Errorf("the signature after it found %d logins missing", n-tc.logins)
			}
		})
	}
}

// TestATouchFindsAKeyThatIsNotThereAnyMore deletes the key behind open sessions.
func TestATouchFindsAKeyThatIsNotThereAnyMore(t *testing.T) {
	h := newHSM(t)
	key := openKey(t, newKeys(t, h.config(t, "p256")))
	if err := key.Touch(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.run(t, "opensc", "pkcs11-tool", "--module", softHSM(t), "--token-label", "test", "--login", "--pin", goodPIN, "--delete-object", "--type", "privkey", "--id", "02")
	if err := key.Touch(t.Context()); !isPermanent(err) || !strings.Contains(err.Error(), "no private key") {
		t.Error(err)
	}
}

// TestTwoTokensBehindTwoModulesSignAtOnce has one of them crash and hang: nobody signs with the other's key, and its
// signatures do not wait.
func TestTwoTokensBehindTwoModulesSignAtOnce(t *testing.T) {
	one, other := newHSM(t), newHSM(t)
	sound, faulty := one.config(t, "p384"), other.faulty(t, "rsa")
	faulty.Timeout = time.Second
	keys, err := New(map[string]Config{"sound": sound, "faulty": faulty, "second": one.config(t, "p256")}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })
	open := func(name string) *Key {
		key, err := keys.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return key.(*Key)
	}
	shaky := open("faulty")
	var wg sync.WaitGroup
	for name, label := range map[string]string{"sound": "p384", "second": "p256"} {
		key, public := open(name), one.keys[label].Public()
		wg.Go(func() {
			for i := range 100 {
				if err := signOnce(key, public, crypto.SHA256, fmt.Sprint(name, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		other.order(t, "crash")
		if err := signOnce(shaky, other.keys["rsa"].Public(), crypto.SHA256, "x"); err == nil {
			t.Error("a module that crashes has signed")
		}
		other.order(t, "")
	})
	wg.Wait()
	waitFor(t, "the other token", func() error { return signOnce(shaky, other.keys["rsa"].Public(), crypto.SHA256, "x") })
}
