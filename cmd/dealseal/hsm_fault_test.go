package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// hsmStage is a running daemon whose key is in a token that fails to order.
type hsmStage struct {
	*stage
	key *faultyToken
}

func newHSMStage(t *testing.T, attempts int, prepare func(*faultyToken)) *hsmStage {
	t.Helper()
	s := &hsmStage{}
	s.stage = newStage(t, worldOptions{attempts: attempts, key: func(w *world) string {
		s.key = newFaultyToken(w)
		prepare(s.key)
		return s.key.config()
	}})
	return s
}

// tireless is how often a step is tried where a test ends the trouble: some attempts are milliseconds apart, and the test may stand
// still for seconds.
const tireless = 10_000

// enterMemo lets a deal enter the stage whose deals need the key and little else.
func enterMemo(c crm) (record string) {
	record = c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	return record
}

// uses counts how often the module was asked to sign a deal's digest.
func (s *hsmStage) uses(story *store.Story) (n int) {
	for _, digest := range s.key.signatures() {
		if digest == story.Sealing.Facts.Digest {
			n++
		}
	}
	return n
}

// mustHaveSigned counts at the module: the deal's digest this often, and no other one for it.
func (s *hsmStage) mustHaveSigned(t *testing.T, story *store.Story, times int) {
	t.Helper()
	if n := s.uses(story); n != times {
		t.Errorf("%s: the module has signed its digest %d times, want %d", story.Sealing.Tx, n, times)
	}
	signedDigests(t, story)
}

// awaitTrouble waits until a deal is retried with a reason that has these words.
func awaitTrouble(t *testing.T, ops operations, record string, condition deal.Condition, words ...string) *store.Story {
	t.Helper()
	return await(t, ops, record, 1, fmt.Sprintf("%s, saying %q", condition, words), func(m store.Summary) bool {
		return m.Condition == condition && !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(m.Reason, word) })
	})
}

// TestAModuleThatFailsOnceCostsNoDealAndSignsEachDigestOnce has the module do what makes it fail before it signs.
func TestAModuleThatFailsOnceCostsNoDealAndSignsEachDigestOnce(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, tireless, func(k *faultyToken) { k.extra = ", timeout: 5s" }) // room for another process on a busy machine
	for i, fault := range []string{"crash", "hang", "device", "session", "handle", "logged-out", "active", "mechanism"} {
		t.Run(fault, func(t *testing.T) {
			c := s.crms[i%len(s.crms)]
			s.key.order(fault + " once")
			r := enterMemo(c)
			s.mustHaveSigned(t, awaitDone(t, s.ops, r), 1)
			mustBear(t, c, r, 1)
		})
	}
	t.Run("wrong", func(t *testing.T) { // what the module returns is no signature: it is asked for another one
		s.key.order("wrong once")
		r := enterMemo(s.crms[0])
		s.mustHaveSigned(t, awaitDone(t, s.ops, r), 2)
		mustBear(t, s.crms[0], r, 1)
	})
	s.daemon.stop(t)
}

// TestAModuleThatKeepsFailingGivesTheDealUpWithTheReasonAndARetryGoesOn does the same without an end.
func TestAModuleThatKeepsFailingGivesTheDealUpWithTheReasonAndARetryGoesOn(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, 2, func(k *faultyToken) { k.extra = ", timeout: 5s" }) // room for another process on a busy machine
	for i, tc := range []struct{ fault, reason string }{
		{"device", "CKR_DEVICE_ERROR"},
		{"hang", "deadline passed"}, // the child was killed, or its successor was not up in time on a busy machine
		{"crash", "the child ended"},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			c := s.crms[i%len(s.crms)]
			s.key.order(tc.fault)
			r := enterMemo(c)
			dead := awaitTrouble(t, s.ops, r, deal.Dead, `key "house"`, tc.reason, "after 2 attempts")
			s.mustHaveSigned(t, dead, 0)
			mustShow(t, c, r, deal.StatusFailed)
			s.key.order("")
			conclude(t, s.ops, "retry", dead.Sealing.Tx)
			story := awaitDone(t, s.ops, r)
			s.mustHaveSigned(t, story, 1)
			if story.Sealing.Facts.Digest != dead.Sealing.Facts.Digest {
				t.Error("another digest was signed than the one that was committed before")
			}
			mustBear(t, c, r, 1)
		})
	}
	s.daemon.stop(t)
}

// TestAWrongPINIsPresentedOnceAndDealsWaitForTheRightOne has the key's process die under a daemon that runs, and the next
// one find a PIN that is wrong.
func TestAWrongPINIsPresentedOnceAndDealsWaitForTheRightOne(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, 3, func(*faultyToken) {})
	s.mustHaveSigned(t, awaitDone(t, s.ops, enterMemo(s.crms[0])), 1)
	logins := s.key.logins()
	s.setPIN(t, "not the PIN")
	if n := s.daemon.signalChildren(t, "hsm-agent", syscall.SIGKILL); n != 1 {
		t.Fatalf("%d processes hold the key", n)
	}
	waiting := map[crm]string{}
	for _, c := range s.crms {
		waiting[c] = enterMemo(c)
	}
	for c, r := range waiting {
		story := awaitTrouble(t, s.ops, r, deal.Retrying, "refuse", "the PIN of file:", "not presented again")
		if story.Sealing.Attempts != 0 {
			t.Errorf("%d attempts of a deal were used up by a PIN that all deals share", story.Sealing.Attempts)
		}
		mustShow(t, c, r, deal.StatusQueued)
	}
	if text := fetch(t, http.DefaultClient, s.daemon.page()+"/metrics", http.StatusOK); !regexp.MustCompile(`dealseal_key_errors_total\{key="[^"]+"\} [1-9]`).MatchString(text) {
		t.Error("no metric tells that the key cannot be opened")
	}
	if n := s.key.logins() - logins; n != 1 {
		t.Errorf("the wrong PIN was presented %d times, want once", n)
	}
	s.setPIN(t, s.key.pin)
	for c, r := range waiting {
		s.mustHaveSigned(t, awaitDone(t, s.ops, r), 1)
		mustBear(t, c, r, 1)
	}
	s.daemon.stop(t)
}

// TestADaemonDoesNotStartWithAWrongPINAndPresentsItOnce is what a service manager does: it starts again and again.
func TestADaemonDoesNotStartWithAWrongPINAndPresentsItOnce(t *testing.T) {
	t.Parallel()
	var key *faultyToken
	w := newWorld(t, worldOptions{crms: bothCRMs[:1], key: func(w *world) string {
		key = newFaultyToken(w)
		return key.config()
	}})
	s := &hsmStage{stage: &stage{world: w}, key: key}
	r := enterMemo(w.crms[0])
	s.setPIN(t, "not the PIN")
	for range 3 {
		d := w.launch(t, w.config)
		d.awaitEnd(t)
		if log := d.log(); d.err == nil || !strings.Contains(log, "dealseal.yaml:") || !strings.Contains(log, "not presented again") {
			t.Fatalf("with a wrong PIN: %v\n%s", d.err, log)
		}
	}
	if n := key.logins(); n != 1 {
		t.Errorf("the wrong PIN was presented %d times, want once", n)
	}
	s.setPIN(t, key.pin)
	d := w.start(t)
	s.mustHaveSigned(t, awaitDone(t, w.control(t, w.stateDir), r), 1)
	d.stop(t)
}

func (s *hsmStage) setPIN(t *testing.T, pin string) {
	t.Helper()
	must(t, os.WriteFile(s.path("pin"), []byte(pin), 0o600))
}

func TestATokenThatIsTakenAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, tireless, func(*faultyToken) {})
	s.mustHaveSigned(t, awaitDone(t, s.ops, enterMemo(s.crms[0])), 1)
	inside, err := filepath.Glob(s.path("token/tokens/*"))
	must(t, err)
	pocket := s.path("token/pocket")
	must(t, os.Rename(inside[0], pocket))
	waiting := map[crm]string{}
	for _, c := range s.crms {
		waiting[c] = enterMemo(c)
	}
	for _, r := range waiting {
		awaitTrouble(t, s.ops, r, deal.Retrying, `key "house"`, "no token")
	}
	must(t, os.Rename(pocket, inside[0]))
	for c, r := range waiting {
		s.mustHaveSigned(t, awaitDone(t, s.ops, r), 1)
		mustBear(t, c, r, 1)
	}
	s.daemon.stop(t)
}

// TestANetworkHSMThatIsKilledIsWaitedFor has the token behind a service that is killed while deals are on their way.
func TestANetworkHSMThatIsKilledIsWaitedFor(t *testing.T) {
	t.Parallel()
	var server *hsmServer
	s := newHSMStage(t, tireless, func(k *faultyToken) {
		server = k.behindServer()
		server.start(t)
	})
	s.mustHaveSigned(t, awaitDone(t, s.ops, enterMemo(s.crms[0])), 1)
	waiting := map[crm][]string{}
	for _, c := range s.crms {
		waiting[c] = append(waiting[c], enterMemo(c))
	}
	server.kill(t)
	for _, c := range s.crms {
		waiting[c] = append(waiting[c], enterMemo(c))
	}
	awaitTrouble(t, s.ops, waiting[s.crms[0]][1], deal.Retrying, `key "house"`, "is it plugged in or reachable?")
	server.start(t)
	for c, records := range waiting {
		for _, r := range records {
			story := awaitDone(t, s.ops, r)
			if n := s.uses(story); n < 1 || n > 2 { // one that was under way when the service died may have been signed unheard
				t.Errorf("%s: the module has signed its digest %d times", story.Sealing.Tx, n)
			}
			signedDigests(t, story)
			mustBear(t, c, r, 1)
		}
	}
	s.daemon.stop(t)
}

// hsmServer makes a token one of a service's.
type hsmServer struct {
	key     *faultyToken
	module  string
	env     []string
	socket  string
	command *exec.Cmd
}

// behindServer changes the configuration of the key to that of a client.
func (k *faultyToken) behindServer() *hsmServer {
	k.w.t.Helper()
	client, err := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	if must(k.w.t, err); len(client) == 0 {
		k.w.t.Fatal("p11-kit's client is missing: install the packages p11-kit and p11-kit-modules (scripts/deps.sh hsm)")
	}
	h := &hsmServer{key: k, module: k.module, env: slices.Clone(k.env), socket: k.w.path("token/p11")}
	k.module, k.env, k.extra = client[0], []string{"P11_KIT_SERVER_ADDRESS=unix:path=" + h.socket}, ", local_sockets: true"
	return h
}

func (h *hsmServer) start(t *testing.T) {
	t.Helper()
	if err := os.Remove(h.socket); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	h.command = exec.Command("p11-kit", "server", "--foreground", "-n", h.socket, "--provider", h.module, "pkcs11:token=e2e")
	h.command.Env = slices.Concat(os.Environ(), h.env)
	h.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, h.command.Start())
	t.Cleanup(func() { h.kill(t) })
	eventually(t, "the service of the HSM answers", func() (bool, string) {
		c, err := net.Dial("unix", h.socket)
		if err != nil {
			return false, err.Error()
		}
		c.Close()
		return true, ""
	})
}

// kill ends the service with the processes that it has for its connections.
func (h *hsmServer) kill(t *testing.T) {
	t.Helper()
	if h.command == nil {
		return
	}
	must(t, syscall.Kill(-h.command.Process.Pid, syscall.SIGKILL))
	_ = h.command.Wait() // "signal: killed"
	h.command = nil
}

func TestAKeyThatWasDeletedIsWaitedForWithItsName(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, 3, func(*faultyToken) {})
	c := s.crms[0]
	s.mustHaveSigned(t, awaitDone(t, s.ops, enterMemo(c)), 1)
	files := s.everyTokenFile(t)
	s.key.object("--delete-object", "--type", "privkey", "--id", "01")
	r := enterMemo(c)
	story := awaitTrouble(t, s.ops, r, deal.Retrying, `no private key with label "seal"`)
	s.mustHaveSigned(t, story, 0)
	for name, content := range files { // from the HSM's own backup
		must(t, os.WriteFile(name, content, 0o600))
	}
	s.mustHaveSigned(t, awaitDone(t, s.ops, r), 1)
	mustBear(t, c, r, 1)
	s.daemon.stop(t)
}

// everyTokenFile is a backup of the token.
func (s *hsmStage) everyTokenFile(t *testing.T) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(s.path("token/tokens/*/*"))
	must(t, err)
	all := map[string][]byte{}
	for _, name := range names {
		all[name], err = os.ReadFile(name)
		must(t, err)
	}
	return all
}

// TestAnotherKeyUnderTheSameNameSignsNothing replaces the key while a deal's digest is committed, and the certificate only
// after that.
func TestAnotherKeyUnderTheSameNameSignsNothing(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, 3, func(*faultyToken) {})
	c := s.crms[1]
	first := awaitDone(t, s.ops, enterMemo(c))
	s.mustHaveSigned(t, first, 1)
	s.key.object("--delete-object", "--type", "privkey", "--id", "01")
	s.key.object("--delete-object", "--type", "pubkey", "--id", "01")
	old, err := os.ReadFile(s.path("seal.pem"))
	must(t, err)
	s.key.newKey()
	renewed := s.path("renewed.pem")
	must(t, os.Rename(s.path("seal.pem"), renewed))
	must(t, os.WriteFile(s.path("seal.pem"), old, 0o600))

	// This deal's digest was made for the key that has gone; the next deal finds that its certificate is for that one, too.
	r := enterMemo(c)
	dead := awaitTrouble(t, s.ops, r, deal.Dead, "was changed since the seal was staged", "dealseal jobs prepare")
	s.mustHaveSigned(t, dead, 0)
	next := enterMemo(c)
	s.mustHaveSigned(t, awaitTrouble(t, s.ops, next, deal.Retrying, "the public keys differ", "dealseal certs import"), 0)
	all, err := readCertificates(renewed)
	must(t, err)
	s.mustRun(t, "certs", "import", renewed, "--key", "house")
	s.mustRun(t, "certs", "activate", thumbprint(all[0]), "--why", "the key was replaced")
	s.mustHaveSigned(t, awaitDone(t, s.ops, next), 1)
	conclude(t, s.ops, "prepare", dead.Sealing.Tx)
	done := awaitDone(t, s.ops, r)
	if n := s.uses(done); n != 1 {
		t.Errorf("the new document's digest was signed %d times", n)
	}
	if done.Sealing.Facts.Digest == dead.Sealing.Facts.Digest || done.Sealing.Facts.Cert.SPKI == first.Sealing.Facts.Cert.SPKI {
		t.Error("the deal was not prepared again for the new key")
	}
	mustBear(t, c, r, 1)
	s.daemon.stop(t)
}

// TestACertificateThatDoesNotFitTheKeyIsAnErrorAtTheStart is what a mix-up of files does.
func TestACertificateThatDoesNotFitTheKeyIsAnErrorAtTheStart(t *testing.T) {
	t.Parallel()
	var key *token
	w := newWorld(t, worldOptions{crms: bothCRMs[:1], key: func(w *world) string {
		key = newToken(w)
		return key.config()
	}})
	old, err := os.ReadFile(w.path("seal.pem"))
	must(t, err)
	key.object("--delete-object", "--type", "privkey", "--id", "01")
	key.object("--delete-object", "--type", "pubkey", "--id", "01")
	key.newKey()
	must(t, os.WriteFile(w.path("seal.pem"), old, 0o600))
	d := w.launch(t, w.config)
	d.awaitEnd(t)
	if log := d.log(); d.err == nil || !strings.Contains(log, "dealseal.yaml:") || !strings.Contains(log, "the public keys differ") {
		t.Errorf("with the certificate of another key: %v\n%s", d.err, log)
	}
}

// signalChildren sends a signal to the daemon's children of one name, and returns how many there were. It may be called by
// any goroutine.
func (d *process) signalChildren(t *testing.T, name string, signal syscall.Signal) (n int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Error(err)
	}
	for _, file := range stats {
		stat, _ := os.ReadFile(file) // of a process that has ended there is none
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after) // proc(5): state, parent, ...
		if len(fields) < 2 || fields[1] != strconv.Itoa(d.cmd.Process.Pid) || !bytes.Contains(line, []byte(name)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && syscall.Kill(pid, signal) == nil {
			n++
		}
	}
	return n
}

// TestASecondTokenStandsInWhileTheFirstFails has a backup of the token behind a module of its own.
func TestASecondTokenStandsInWhileTheFirstFails(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, 3, func(k *faultyToken) { k.second() })
	c := s.crms[0]
	s.mustBeSealedBy(t, c, "house (token e2e)", 1, 0)
	for i, fault := range []string{"device", "crash"} { // the first is found by a deal, the second only where there is no other
		s.key.order(fault)
		s.mustBeSealedBy(t, s.crms[i%len(s.crms)], "spare (token e2e)", 0, 1)
	}
	metrics := fetch(t, http.DefaultClient, s.daemon.page()+"/metrics", http.StatusOK)
	for _, want := range []string{`dealseal_key_stand_in{key="house"} 1`, `dealseal_key_up{key="house"} 0`, `dealseal_key_up{key="spare"} 1`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics do not say %s", want)
		}
	}
	s.daemon.stop(t)
	s.key.order("")
	s.daemon = s.start(t)
	s.ops = s.control(t, s.stateDir)
	s.mustBeSealedBy(t, c, "house (token e2e)", 1, 0)
	s.daemon.stop(t)
}

// mustBeSealedBy seals a deal, and counts at both modules.
func (s *hsmStage) mustBeSealedBy(t *testing.T, c crm, key string, first, second int) {
	t.Helper()
	r := enterMemo(c)
	story := awaitDone(t, s.ops, r)
	signedDigests(t, story)
	mustBear(t, c, r, 1)
	if n := s.uses(story); n != first {
		t.Errorf("%s: the first token has signed its digest %d times, want %d", story.Sealing.Tx, n, first)
	}
	spare := 0
	for _, digest := range s.key.lines("token/spare-signatures") {
		if digest == story.Sealing.Facts.Digest {
			spare++
		}
	}
	if spare != second {
		t.Errorf("%s: the second token has signed its digest %d times, want %d", story.Sealing.Tx, spare, second)
	}
	i := slices.IndexFunc(story.Trail, func(e deal.TrailLine) bool { return e.What == "signed" })
	if i < 0 || !strings.HasSuffix(story.Trail[i].Why, ", with key "+key) {
		t.Errorf("the audit log does not say that it was %s: %+v", key, story.Trail)
	}
}

// TestAnIdleKeyThatDiedLivesAgainBeforeADealNeedsIt kills the key's process while nothing is to be sealed.
func TestAnIdleKeyThatDiedLivesAgainBeforeADealNeedsIt(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, 3, func(k *faultyToken) { k.extra = ", keep_alive: 10s" })
	s.mustHaveSigned(t, awaitDone(t, s.ops, enterMemo(s.crms[0])), 1)
	logins, signed := s.key.logins(), len(s.key.signatures())
	if n := s.daemon.signalChildren(t, "hsm-agent", syscall.SIGKILL); n != 1 {
		t.Fatalf("%d processes hold the key", n)
	}
	eventually(t, "the key is logged in again", func() (bool, string) {
		n := s.key.logins() - logins
		return n == 1, fmt.Sprint(n)
	})
	if n := len(s.key.signatures()) - signed; n != 0 {
		t.Errorf("the look at the idle key signed %d times", n)
	}
	s.mustHaveSigned(t, awaitDone(t, s.ops, enterMemo(s.crms[0])), 1)
	if n := s.key.logins() - logins; n != 1 {
		t.Errorf("the deal took %d logins more", n-1)
	}
	if metrics := s.daemon.get(t, "/metrics"); !strings.Contains(metrics, "dealseal_key_up{key=\"house\"} 1\n") {
		t.Error("the metrics do not say that the key is there")
	}
	s.daemon.stop(t)
}
