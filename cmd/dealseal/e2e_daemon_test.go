package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// patience is how long a condition is waited for that a healthy daemon brings about within a second or two, on a machine of its
// own: these tests share two processors with each other.
const patience = 3 * time.Minute

// eventually waits for a condition. It fails with what the condition last said.
func eventually(t *testing.T, what string, holds func() (ok bool, now string)) {
	t.Helper()
	waitFor(t, patience, 10*time.Millisecond, what, holds)
}

// waitFor waits with another patience than for what a second or two brings about, and looks as often as is said.
func waitFor(t *testing.T, patience, every time.Duration, what string, holds func() (ok bool, now string)) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, now := holds()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s; now: %s", patience, what, now)
		}
	}
}

// process is a running "dealseal serve".
type process struct {
	w       *world
	t       *testing.T
	cmd     *exec.Cmd
	logFile string
	ready   chan struct{} // closed at systemd's first READY=1
	ended   chan struct{} // closed when the process is gone, and all that systemd was told has been taken down
	err     error         // of Wait, once ended
	browser *http.Client  // of a person with a session, once there is one

	mu    sync.Mutex
	notes []string // what systemd was told
}

// told is everything that systemd was told so far.
func (d *process) told() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.notes)
}

// overheard is what we tell the socket ourselves, behind all that the daemon has said.
const overheard = "X_OVER=1"

// listen takes down what systemd is told until it hears that this is over.
func (d *process) listen(l *net.UnixConn) {
	ready := sync.OnceFunc(func() { close(d.ready) })
	b := make([]byte, 4096)
	for {
		n, err := l.Read(b)
		note := string(b[:n])
		if err != nil || note == overheard {
			return
		}
		d.mu.Lock()
		d.notes = append(d.notes, note)
		d.mu.Unlock()
		if strings.Contains(note, "READY=1") {
			ready()
		}
	}
}

// launch starts the daemon and does not wait for it.
func (w *world) launch(t *testing.T, config string, env ...string) *process {
	t.Helper()
	d := &process{w: w, t: t, logFile: w.path("daemon.log"), ready: make(chan struct{}), ended: make(chan struct{})}
	log, err := os.OpenFile(d.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer log.Close()
	notify := w.path(fmt.Sprintf("notify-%d", time.Now().UnixNano()))
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	must(t, err)
	d.cmd = w.command(context.Background(), config, "serve")
	d.cmd.Stderr = log
	d.cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+notify), env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		l.Close()
		t.Fatal(err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		d.listen(l)
	}()
	go func() {
		d.err = d.cmd.Wait()
		if over, err := net.Dial("unixgram", notify); err == nil {
			if _, err = over.Write([]byte(overheard)); err == nil {
				<-heard
			}
			over.Close()
		}
		l.Close()
		close(d.ended)
	}()
	t.Cleanup(d.kill)
	return d
}

// command is the command line of a person at the daemon's machine.
func (w *world) command(ctx context.Context, config string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.binary)
	cmd.Args = append([]string{"dealseal"}, args...)
	cmd.Args = append(cmd.Args, "--config", config)
	return cmd
}

// run runs a command to its end.
func (w *world) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := w.command(ctx, w.config, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// start starts the daemon and waits until it says that it is ready.
func (w *world) start(t *testing.T, env ...string) *process {
	t.Helper()
	d := w.launch(t, w.config, env...)
	d.awaitReady(t)
	return d
}

func (d *process) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case <-d.ready:
	case <-d.ended:
		t.Fatalf("the daemon ended before it was ready (%v):\n%s", d.err, d.log())
	case <-time.After(patience):
		t.Fatalf("the daemon is not ready:\n%s", d.log())
	}
}

func (d *process) log() string {
	b, err := os.ReadFile(d.logFile)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// kill ends the process as a power cut would, and is harmless afterwards.
func (d *process) kill() {
	d.cmd.Process.Kill()
	<-d.ended
	if d.t.Failed() && os.Getenv("DEALSEAL_E2E_LOG") != "" {
		d.t.Log(d.log())
	}
}

// stop ends the daemon as systemd would.
func (d *process) stop(t *testing.T) {
	t.Helper()
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	d.awaitEnd(t)
	if d.err != nil {
		t.Fatalf("after SIGTERM: %v\n%s", d.err, d.log())
	}
}

// terminate asks the daemon to end, and returns once it has closed its page: from then on it is only finishing. It may be
// called by any goroutine.
func (d *process) terminate(t *testing.T) {
	address := strings.TrimPrefix(d.page(), "http://")
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
		return
	}
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		conn.Close()
		select {
		case <-tick.C:
		case <-deadline:
			t.Error("SIGTERM does not close the page")
			return
		}
	}
}

func (d *process) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Fatalf("the daemon did not end:\n%s", d.log())
	}
}

var pageLine = regexp.MustCompile(`msg=ready page=(\S+)`)

// page is the address of the daemon's page, as its log gives it.
func (d *process) page() string {
	lines := pageLine.FindAllStringSubmatch(d.log(), -1)
	return lines[len(lines)-1][1]
}

// get reads from the daemon's own page, as a stranger.
func (d *process) get(t *testing.T, path string) string {
	t.Helper()
	return fetch(t, http.DefaultClient, d.page()+path, http.StatusOK)
}

// see is a page as a person with a session sees it.
func (d *process) see(t *testing.T, path string) string {
	t.Helper()
	if d.browser == nil {
		d.browser = d.logIn(t)
	}
	return fetch(t, d.browser, d.page()+path, http.StatusOK)
}

// logIn begins a session as a person would: with the link that the command prints.
func (d *process) logIn(t *testing.T) *http.Client {
	t.Helper()
	stdout, stderr, code := d.w.run(t, "admin", "login")
	if code != exitOK {
		t.Fatalf("admin login: exit code %d\n%s%s", code, stdout, stderr)
	}
	return followLogin(t, strings.SplitN(stdout, "\n", 2)[0])
}

// followLogin opens a link and presses the button that it leads to.
func followLogin(t *testing.T, address string) *http.Client {
	t.Helper()
	link, err := url.Parse(address)
	if err != nil || link.Query().Get("token") == "" {
		t.Fatalf("%q is no link to log in with", address)
	}
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := &http.Client{Jar: jar}
	if page := fetch(t, browser, link.String(), http.StatusOK); !strings.Contains(page, "Log in as") {
		t.Fatalf("the link leads to\n%s", page)
	}
	resp, err := browser.PostForm("http://"+link.Host+"/login", link.Query())
	must(t, err)
	resp.Body.Close()
	return browser
}

func fetch(t *testing.T, client *http.Client, address string, code int) string {
	t.Helper()
	resp, err := client.Get(address)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != code {
		t.Fatalf("GET %s: %s, want %d\n%s", address, resp.Status, code, b)
	}
	return string(b)
}

// control speaks to the daemon over its socket, as the commands do.
func (w *world) control(t *testing.T, stateDir string) *remote {
	t.Helper()
	r, err := dialControl(context.Background(), stateDir)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// ofTenant are the operations on the deals of one tenant: the IDs of records are those of others too.
type ofTenant struct {
	operations
	tenant string
}

func (o ofTenant) List(ctx context.Context, f store.Filter) ([]store.Summary, error) {
	f.Tenant = deal.TenantID(o.tenant)
	return o.operations.List(ctx, f)
}

// sealings lists what the ledger knows of a record, newest first.
func sealings(t *testing.T, ops operations, record string) []store.Summary {
	t.Helper()
	list, err := ops.List(context.Background(), store.Filter{Record: record})
	must(t, err)
	return list
}

// await waits until the newest of n sealings of a record is as asked for, and returns its story.
func await(t *testing.T, ops operations, record string, n int, what string, holds func(store.Summary) bool) *store.Story {
	t.Helper()
	var last store.Summary
	eventually(t, fmt.Sprintf("sealing %d of %s is %s", n, record, what), func() (bool, string) {
		list := sealings(t, ops, record)
		if len(list) < n {
			return false, fmt.Sprintf("%d sealings", len(list))
		}
		last = list[0]
		return holds(last), fmt.Sprintf("%s, %s: %s", last.Step, last.Condition, last.Reason)
	})
	return storyOf(t, ops, last.Tx)
}

func storyOf(t *testing.T, ops operations, tx deal.TxID) *store.Story {
	t.Helper()
	story, err := ops.Story(context.Background(), tx)
	must(t, err)
	return story
}

func awaitDone(t *testing.T, ops operations, record string) *store.Story {
	t.Helper()
	return await(t, ops, record, 1, "done", isDone)
}

func isDone(m store.Summary) bool { return m.Step == deal.Done }

// awaitHeld waits for a hold whose reason has these words.
func awaitHeld(t *testing.T, ops operations, record string, n int, words ...string) *store.Story {
	t.Helper()
	return await(t, ops, record, n, fmt.Sprintf("held, saying %q", words), func(m store.Summary) bool {
		return m.Condition == deal.Held && !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(m.Reason, word) })
	})
}

// conclude is what a person decides, over the control socket.
func conclude(t *testing.T, ops operations, verb string, tx deal.TxID) {
	t.Helper()
	must(t, ops.Decide(context.Background(), decision{Verb: verb, Tx: tx, Why: "decided in a test"}))
}

// intents counts the intents of a kind.
func intents(s *store.Story, what string) (n int) {
	for _, i := range s.Intents {
		if i.What == what {
			n++
		}
	}
	return n
}

// entries counts the audit entries of a kind.
func entries(s *store.Story, what string) (n int) {
	for _, l := range s.Trail {
		if l.What == what {
			n++
		}
	}
	return n
}

// openState opens the state directory of a daemon that does not run.
func (w *world) openState(t *testing.T) *store.Store {
	t.Helper()
	h, err := loadHouse(w.config)
	must(t, err)
	s, err := openStore(context.Background(), h.cfg, nil)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// copyState copies a state directory file by file, as a backup would.
func copyState(t *testing.T, from, to string) {
	t.Helper()
	must(t, filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			return os.MkdirAll(target, 0o700)
		case e.Type()&os.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case !e.Type().IsRegular():
			return nil // the control socket
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	}))
}
