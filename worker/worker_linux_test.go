package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/worker"
)

func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(map[string]worker.Program{"test": program}))
	}
	if os.Getenv(envParent) != "" {
		beParent()
	}
	os.Exit(m.Run())
}

// envParent makes the test binary a parent that can be killed.
const envParent = "DEALSEAL_TEST_PARENT"

// beParent starts a child, stops it, prints its PID and never returns.
func beParent() {
	p := worker.NewPool(worker.Spec{Name: "test", Concurrency: 2}, 1, nil)
	got, err := p.Call(context.Background(), worker.Frame{Op: "pid"})
	if err != nil {
		panic(err)
	}
	// One that stands still cannot notice that its socket is closed.
	go p.Call(context.Background(), worker.Frame{Op: "stop"})
	fmt.Println(string(got.Body))
	select {}
}

// program is what the children of these tests run. Its setup is the name of a
// file to open while loading, "refuse", "hang", "panic" or anything else.
func program(_ context.Context, setup []byte) (worker.Handler, error) {
	switch s := string(setup); {
	case s == "refuse":
		return nil, trouble{message: "the setup is wrong", permanent: true}
	case s == "hang":
		select {}
	case s == "panic":
		panic("confidential words")
	case strings.HasPrefix(s, "/"):
		if _, err := os.ReadFile(s); err != nil {
			return nil, err
		}
	}
	return handle, nil
}

// trouble is an error that has an answer to everything.
type trouble struct {
	message          string
	permanent, fatal bool
	after            time.Duration
}

func (t trouble) Error() string             { return t.message }
func (t trouble) Permanent() bool           { return t.permanent }
func (t trouble) Fatal() bool               { return t.fatal }
func (t trouble) RetryAfter() time.Duration { return t.after }
func (t trouble) Code() string              { return "T1" }

func handle(_ context.Context, f worker.Frame) (worker.Frame, error) {
	arg := string(f.Body)
	switch f.Op {
	case "echo":
		return f, nil
	case "pid":
		return text(strconv.Itoa(os.Getpid())), nil
	case "environ":
		return text(strings.Join(os.Environ(), "\n")), nil
	case "limits":
		var core, files unix.Rlimit
		err := errors.Join(unix.Getrlimit(unix.RLIMIT_CORE, &core), unix.Getrlimit(unix.RLIMIT_NOFILE, &files))
		return text(fmt.Sprint(core.Max, files.Max)), err
	case "descriptors":
		return text(strings.Join(descriptors(), " ")), nil
	case "hang":
		select {}
	case "stop":
		return worker.Frame{}, unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "spin":
		for n := 1; n != 0; n |= 1 { // what a hostile input makes a parser do
		}
		return worker.Frame{}, nil
	case "panic":
		panic("confidential words")
	case "exit":
		os.Exit(7)
	case "fail":
		return worker.Frame{}, trouble{"no such thing", true, false, 1500 * time.Millisecond}
	case "fatal":
		return worker.Frame{}, trouble{message: "the device is gone", fatal: true}
	case "grow":
		for hoard := []byte{1}; ; {
			hoard = append(hoard, bytes.Repeat([]byte{1}, 32<<20)...)
		}
	case "large":
		n, err := strconv.Atoi(arg)
		return worker.Frame{Body: make([]byte, n)}, err
	case "output":
		fmt.Fprint(os.Stderr, strings.Repeat("x", 1<<20))
		return worker.Frame{}, nil
	case "files":
		return swapFiles(f)
	}
	return text(""), attempt(f.Op, arg)
}

func text(s string) worker.Frame { return worker.Frame{Body: []byte(s)} }

func descriptors() (open []string) {
	for fd := range 64 {
		var stat unix.Stat_t
		if unix.Fstat(fd, &stat) != nil {
			continue
		}
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFDIR, unix.S_IFBLK:
			open = append(open, "file")
		case unix.S_IFSOCK:
			open = append(open, "socket")
		}
	}
	return open
}

// swapFiles returns the files in reverse, and the content of the first.
func swapFiles(f worker.Frame) (worker.Frame, error) {
	content, err := io.ReadAll(f.Files[0])
	if err != nil {
		return worker.Frame{}, err
	}
	reply := worker.Frame{Body: content}
	for i := len(f.Files) - 1; i >= 0; i-- {
		fd, err := unix.Dup(int(f.Files[i].Fd()))
		if err != nil {
			return worker.Frame{}, err
		}
		reply.Files = append(reply.Files, os.NewFile(uintptr(fd), "copy"))
	}
	return reply, nil
}

// attempt tries what a child must not be able to do.
func attempt(op, arg string) error {
	switch op {
	case "read":
		_, err := os.ReadFile(arg)
		return err
	case "write":
		return os.WriteFile(arg, []byte("x"), 0o600)
	case "remove":
		return os.Remove(arg)
	case "stat":
		_, err := os.Stat(arg)
		return err
	case "dial":
		network, address, _ := strings.Cut(arg, " ")
		c, err := net.Dial(network, address)
		if err == nil {
			_ = c.Close()
		}
		return err
	case "listen":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			_ = l.Close()
		}
		return err
	case "netlink":
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	case "exec":
		return exec.Command("/bin/true").Run()
	case "exec self":
		return syscall.Exec("/proc/self/exe", []string{"x"}, nil)
	case "fork":
		_, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		return errnoError(errno)
	case "signal":
		pid, err := strconv.Atoi(arg)
		return errors.Join(err, unix.Kill(pid, 0))
	case "ptrace":
		pid, err := strconv.Atoi(arg)
		return errors.Join(err, unix.PtraceAttach(pid))
	case "memory":
		pid, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		var local [8]byte
		_, err = unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &local[0], Len: 8}}, []unix.RemoteIovec{{Base: 4096, Len: 8}}, 0)
		return err
	case "unshare":
		return unix.Unshare(unix.CLONE_NEWUSER)
	case "mount":
		return unix.Mount("none", "/mnt", "tmpfs", 0, "")
	case "io_uring":
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
		return errnoError(errno)
	case "bpf":
		_, _, errno := unix.Syscall(unix.SYS_BPF, 0, 0, 0)
		return errnoError(errno)
	case "keyctl":
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, false)
		return err
	}
	return errors.New("the test program does not know " + op)
}

func errnoError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func newPool(t *testing.T, spec worker.Spec, size int, log io.Writer) *worker.Pool {
	t.Helper()
	spec.Name = "test"
	if spec.Restart == (worker.Backoff{}) {
		spec.Restart = worker.Backoff{Min: time.Millisecond, Max: 2 * time.Millisecond}
	}
	if log == nil {
		log = io.Discard
	}
	before := runtime.NumGoroutine()
	p := worker.NewPool(spec, size, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	})
	return p
}

// eventually waits for condition, at most a minute.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func call(t *testing.T, p *worker.Pool, op, body string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	f, err := p.Call(ctx, worker.Frame{Op: op, Body: []byte(body)})
	return string(f.Body), err
}

func mustCall(t *testing.T, p *worker.Pool, op, body string) string {
	t.Helper()
	got, err := call(t, p, op, body)
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	return got
}

func TestFramesCrossUnchanged(t *testing.T) {
	p := newPool(t, worker.Spec{}, 1, nil)
	for _, f := range []worker.Frame{
		{Op: "echo"},
		{Op: "echo", Header: []byte(`{"a":1}`)},
		{Op: "echo", Body: bytes.Repeat([]byte("0123456789abcdef"), 1<<19)},
		{Op: "echo", Header: []byte("h"), Body: []byte("b")},
	} {
		got, err := p.Call(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Body, got.Body) {
			t.Errorf("the body of %d bytes changed", len(f.Body))
		}
		f.Body, got.Body = nil, nil // cmp takes seconds over millions of bytes
		if diff := cmp.Diff(f, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestFilesArePassedBothWays(t *testing.T) {
	p := newPool(t, worker.Spec{Limits: worker.Limits{Files: 64}, Sandbox: worker.Sandbox{SealFiles: true}}, 1, nil)
	var files []*os.File
	for _, content := range []string{"first", "second"} {
		path := filepath.Join(t.TempDir(), content)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	for range 100 { // more than the child may have open at once: it must close them
		for _, f := range files {
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
		}
		got, err := p.Call(t.Context(), worker.Frame{Op: "files", Files: files})
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Body) != "first" || len(got.Files) != 2 {
			t.Fatalf("%q and %d files", got.Body, len(got.Files))
		}
		content, err := io.ReadAll(got.Files[0])
		if err != nil || string(content) != "second" {
			t.Fatalf("%q, %v", content, err)
		}
		for _, f := range got.Files {
			_ = f.Close()
		}
	}
}

func TestWhatMakesNoFrameIsRefusedAndTheChildLives(t *testing.T) {
	p := newPool(t, worker.Spec{Limits: worker.Limits{Frame: 1000}}, 1, nil)
	pid := mustCall(t, p, "pid", "")
	var bad *worker.FrameError
	for name, f := range map[string]worker.Frame{
		"op":    {Op: strings.Repeat("x", 65)},
		"body":  {Op: "echo", Body: make([]byte, 1001)},
		"both":  {Op: "echo", Header: make([]byte, 500), Body: make([]byte, 501)},
		"files": {Op: "echo", Files: make([]*os.File, 17)},
	} {
		if _, err := p.Call(t.Context(), f); !errors.As(err, &bad) || !bad.Permanent() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := call(t, newPool(t, worker.Spec{Setup: make([]byte, 64<<20)}, 1, nil), "echo", ""); err == nil || !strings.Contains(err.Error(), "are allowed") {
		t.Errorf("setup: %v", err)
	}
	var remote *worker.RemoteError
	if _, err := call(t, p, "large", "1001"); !errors.As(err, &remote) || !remote.Permanent() {
		t.Errorf("large reply: %v", err)
	}
	if got := mustCall(t, p, "large", "1000"); len(got) != 1000 {
		t.Errorf("%d bytes", len(got))
	}
	if again := mustCall(t, p, "pid", ""); again != pid {
		t.Error("the child was replaced")
	}
}

func TestErrorsKeepTheirAnswers(t *testing.T) {
	p := newPool(t, worker.Spec{}, 1, nil)
	_, err := call(t, p, "fail", "")
	var remote *worker.RemoteError
	if !errors.As(err, &remote) {
		t.Fatal(err)
	}
	if !remote.Permanent() || remote.RetryAfter() != 1500*time.Millisecond || remote.Code() != "T1" || remote.Message != "no such thing" {
		t.Errorf("%+v", remote)
	}
	_, err = call(t, p, "stat", "/nonexistent")
	if !errors.As(err, &remote) || remote.Permanent() || remote.Code() != "" {
		t.Errorf("%+v", remote)
	}
}

func TestChildStartsWithNothing(t *testing.T) {
	t.Setenv("DEALSEAL_TEST_SECRET", "x")
	p := newPool(t, worker.Spec{
		Env:    map[string]string{"GIVEN": "1"},
		Limits: worker.Limits{Procs: 1, GoMemory: 100 << 20, Files: 64},
	}, 1, nil)
	want := "GIVEN=1 GOMAXPROCS=1 GOMEMLIMIT=104857600"
	got := strings.Fields(mustCall(t, p, "environ", ""))
	for _, w := range strings.Fields(want) {
		if !strings.Contains(strings.Join(got, " "), w) {
			t.Errorf("%s is missing in %q", w, got)
		}
	}
	if len(got) != 3 {
		t.Errorf("environment %q, want %s", got, want)
	}
	if got := mustCall(t, p, "limits", ""); got != "0 64" {
		t.Errorf("limits %s", got)
	}
	if got := mustCall(t, p, "descriptors", ""); got != "socket" {
		t.Errorf("open: %s", got)
	}
	pid := mustCall(t, p, "pid", "")
	argv, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil || string(argv) != "dealseal-worker\x00test\x00" {
		t.Errorf("argv %q, %v", argv, err)
	}
}

func TestSandboxRefuses(t *testing.T) {
	dir := t.TempDir()
	allowed, credential := filepath.Join(dir, "allowed"), filepath.Join(dir, "credential")
	for _, path := range []string{allowed, credential} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writable := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	local, err := net.Listen("unix", filepath.Join(writable, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	tcp, unixAddress, me := "tcp "+listener.Addr().String(), "unix "+local.Addr().String(), strconv.Itoa(os.Getpid())

	closed := worker.Sandbox{Read: []string{allowed}, Write: []string{writable}}
	sealed := closed
	sealed.SealFiles = true
	localOnly := closed
	localOnly.LocalSockets = true
	network := closed
	network.Network = true
	for _, tc := range []struct {
		name    string
		sandbox worker.Sandbox
		refused [][2]string
		allowed [][2]string
	}{
		{
			"closed", closed,
			[][2]string{
				{"read", credential}, {"write", credential}, {"write", allowed}, {"remove", credential}, {"read", "/etc/passwd"},
				{"dial", tcp}, {"dial", unixAddress}, {"dial", "udp 127.0.0.1:53"}, {"listen", ""}, {"netlink", ""},
				{"exec", ""}, {"exec self", ""}, {"fork", ""}, {"signal", me}, {"ptrace", me}, {"memory", me},
				{"unshare", ""}, {"mount", ""}, {"io_uring", ""}, {"bpf", ""}, {"keyctl", ""},
			},
			[][2]string{{"read", allowed}, {"write", filepath.Join(writable, "new")}, {"remove", filepath.Join(writable, "new")}},
		},
		{
			"sealed", sealed,
			[][2]string{{"read", allowed}, {"write", filepath.Join(writable, "new")}, {"remove", local.Addr().String()}, {"read", "/usr/lib/os-release"}},
			nil,
		},
		{
			"local sockets", localOnly,
			[][2]string{{"dial", tcp}, {"listen", ""}, {"netlink", ""}},
			[][2]string{{"dial", unixAddress}},
		},
		{
			"network", network,
			[][2]string{{"netlink", ""}, {"exec", ""}, {"read", credential}},
			[][2]string{{"dial", unixAddress}, {"dial", tcp}, {"listen", ""}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPool(t, worker.Spec{Sandbox: tc.sandbox}, 1, nil)
			for _, try := range tc.allowed {
				if _, err := call(t, p, try[0], try[1]); err != nil {
					t.Errorf("%s %s: %v", try[0], try[1], err)
				}
			}
			for _, try := range tc.refused {
				_, err := call(t, p, try[0], try[1])
				var remote *worker.RemoteError
				if !errors.As(err, &remote) {
					t.Errorf("%s %s was not refused: %v", try[0], try[1], err)
				} else if m := remote.Message; !strings.Contains(m, "permission denied") && !strings.Contains(m, "not permitted") {
					t.Errorf("%s %s failed for another reason: %s", try[0], try[1], m)
				}
			}
		})
	}
}

func TestProgramLoadsInsideTheSandbox(t *testing.T) {
	dir := t.TempDir()
	allowed, credential := filepath.Join(dir, "allowed"), filepath.Join(dir, "credential")
	for _, path := range []string{allowed, credential} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sandbox := worker.Sandbox{Read: []string{allowed}, SealFiles: true}
	mustCall(t, newPool(t, worker.Spec{Setup: []byte(allowed), Sandbox: sandbox}, 1, nil), "echo", "")
	if _, err := call(t, newPool(t, worker.Spec{Setup: []byte(credential), Sandbox: sandbox}, 1, nil), "echo", ""); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a file outside the sandbox: %v", err)
	}
	missing := filepath.Join(dir, "missing")
	if _, err := call(t, newPool(t, worker.Spec{Setup: []byte(missing), Sandbox: worker.Sandbox{Read: []string{missing}}}, 1, nil), "echo", ""); err == nil || !strings.Contains(err.Error(), "missing: no such file") {
		t.Errorf("a sandbox with a path that does not exist: %v", err)
	}
}

func TestDeadlineKillsTheChildAndTheNextCallHasAnother(t *testing.T) {
	for _, op := range []string{"hang", "spin"} {
		t.Run(op, func(t *testing.T) {
			p := newPool(t, worker.Spec{}, 1, nil)
			pid := mustCall(t, p, "pid", "")
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // enough for 5 ms of a busy processor
			defer cancel()
			_, err := p.Call(ctx, worker.Frame{Op: op})
			var late *worker.DeadlineError
			if !errors.As(err, &late) || !late.Started || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if spun := late.Busy >= 5*time.Millisecond; spun != (op == "spin") {
				t.Errorf("%v of the processor", late.Busy)
			}
			if again := mustCall(t, p, "pid", ""); again == pid {
				t.Error("the child was not replaced")
			}
			eventually(t, "the hanging child to be gone", func() bool { return !exists(t, pid) })
		})
	}
}

func TestDeadlineWhileAllChildrenAreBusySparesThem(t *testing.T) {
	p := newPool(t, worker.Spec{}, 1, nil)
	pid := mustCall(t, p, "pid", "")
	busy, release := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := p.Call(busy, worker.Frame{Op: "hang"})
		done <- err
	}()
	var late *worker.DeadlineError
	eventually(t, "the child to be busy", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // enough for an echo, which may still come before the other call
		defer cancel()
		_, err := p.Call(ctx, worker.Frame{Op: "echo"})
		return errors.As(err, &late)
	})
	if late.Started || !exists(t, pid) {
		t.Errorf("%+v; the child lives: %v", late, exists(t, pid))
	}
	release()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCrashIsReportedAndTheChildReplaced(t *testing.T) {
	for op, reason := range map[string]string{"exit": "exit status 7", "panic": "exit status 2"} {
		t.Run(op, func(t *testing.T) {
			var log buffer
			p := newPool(t, worker.Spec{}, 1, &log)
			_, err := call(t, p, op, "")
			var crash *worker.CrashError
			if !errors.As(err, &crash) || !strings.Contains(crash.Reason, reason) || crash.Op != op {
				t.Fatal(err)
			}
			mustCall(t, p, "echo", "")
			if out := log.String(); strings.Contains(out, "confidential") || !strings.Contains(out, "worker failed") {
				t.Errorf("log: %s", out)
			}
		})
	}
}

func TestMemoryBoundEndsTheChildOnly(t *testing.T) {
	p := newPool(t, worker.Spec{Limits: worker.Limits{Memory: 512 << 20, Procs: 1}}, 1, nil)
	_, err := call(t, p, "grow", "")
	var crash *worker.CrashError
	if !errors.As(err, &crash) {
		t.Fatal(err)
	}
	mustCall(t, p, "echo", "")
}

func TestFatalErrorIsDeliveredAndTheChildReplaced(t *testing.T) {
	p := newPool(t, worker.Spec{}, 1, nil)
	pid := mustCall(t, p, "pid", "")
	for range 5 {
		_, err := call(t, p, "fatal", "")
		var remote *worker.RemoteError
		if !errors.As(err, &remote) || remote.Message != "the device is gone" {
			t.Fatal(err)
		}
	}
	if mustCall(t, p, "pid", "") == pid {
		t.Error("the child was not replaced")
	}
}

func TestCrashLoopIsVisibleAndSpaced(t *testing.T) {
	for _, setup := range []string{"panic", "refuse"} {
		t.Run(setup, func(t *testing.T) {
			var log buffer
			p := newPool(t, worker.Spec{Setup: []byte(setup), Restart: worker.Backoff{Min: time.Hour, Max: time.Hour}}, 1, &log)
			var errs []error
			for range 4 {
				_, err := call(t, p, "echo", "")
				if err == nil {
					t.Fatal("it works")
				}
				errs = append(errs, err)
			}
			if n := strings.Count(log.String(), "worker failed"); n != 2 {
				t.Errorf("%d starts, want 2 and then a pause:\n%s", n, log.String())
			}
			last := errs[3]
			if setup == "refuse" {
				var remote *worker.RemoteError
				if !errors.As(last, &remote) || !remote.Permanent() || remote.RetryAfter() < 30*time.Minute {
					t.Error(last)
				}
				return
			}
			var crash *worker.CrashError
			if !errors.As(last, &crash) || crash.Failures != 2 || crash.RetryAfter() < 30*time.Minute {
				t.Error(last)
			}
			if strings.Contains(log.String(), "confidential") {
				t.Error("the panic value was logged")
			}
		})
	}
}

func TestOneSuccessEndsTheRowOfFailures(t *testing.T) {
	p := newPool(t, worker.Spec{Restart: worker.Backoff{Min: time.Hour, Max: time.Hour}}, 1, nil)
	for range 4 {
		var crash *worker.CrashError
		if _, err := call(t, p, "exit", ""); !errors.As(err, &crash) || crash.Failures != 1 {
			t.Fatal(err)
		}
		mustCall(t, p, "echo", "")
	}
}

func TestStartHasADeadline(t *testing.T) {
	p := newPool(t, worker.Spec{Setup: []byte("hang"), Limits: worker.Limits{Start: 300 * time.Millisecond}}, 1, nil)
	if _, err := call(t, p, "echo", ""); err == nil || !strings.Contains(err.Error(), "not ready after 300ms") {
		t.Fatal(err)
	}
}

func TestPoolStartsOnlyWhatItNeeds(t *testing.T) {
	p := newPool(t, worker.Spec{}, 3, nil)
	pids := map[string]bool{}
	for range 10 {
		pids[mustCall(t, p, "pid", "")] = true
	}
	if len(pids) != 1 {
		t.Errorf("%d children for calls one after the other", len(pids))
	}
}

func TestAChildThatNobodyCallsEndsAndTheNextCallHasAnother(t *testing.T) {
	var log bytes.Buffer // read when all children have ended
	p := newPool(t, worker.Spec{Idle: 50 * time.Millisecond}, 1, &log)
	pid := mustCall(t, p, "pid", "")
	eventually(t, "the idle child to end", func() bool { return !exists(t, pid) })
	if another := mustCall(t, p, "pid", ""); another == pid {
		t.Errorf("the child %s that has ended answers", pid)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("it is no news, and yet logged: %s", log.String())
	}
}

func TestNoChildEndsWhileItWorks(t *testing.T) {
	p := newPool(t, worker.Spec{Idle: time.Millisecond, Concurrency: 4}, 1, nil)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				want := fmt.Sprint(i, j)
				if got, err := call(t, p, "echo", want); err != nil || got != want {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestConcurrentCallsShareOneChild(t *testing.T) {
	p := newPool(t, worker.Spec{Concurrency: 8}, 1, nil)
	pid := mustCall(t, p, "pid", "")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				want := fmt.Sprint(i, j)
				if got, err := call(t, p, "echo", want); err != nil || got != want {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
			}
		})
	}
	wg.Wait()
	if mustCall(t, p, "pid", "") != pid {
		t.Error("the child was replaced")
	}
}

func TestCloseEndsEverything(t *testing.T) {
	p := newPool(t, worker.Spec{}, 2, nil)
	pid := mustCall(t, p, "pid", "")
	done := make(chan error)
	for range 3 { // two with children, one waiting
		go func() {
			_, err := p.Call(t.Context(), worker.Frame{Op: "hang"})
			done <- err
		}()
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := <-done; !errors.Is(err, worker.ErrClosed) {
			t.Error(err)
		}
	}
	if exists(t, pid) {
		t.Error("the child lives on")
	}
	if _, err := p.Call(t.Context(), worker.Frame{Op: "echo"}); !errors.Is(err, worker.ErrClosed) {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error("a second Close:", err)
	}
}

func TestChildIgnoresTheSignalsOfItsGroup(t *testing.T) {
	p := newPool(t, worker.Spec{}, 1, nil)
	pid := mustCall(t, p, "pid", "")
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		if err := unix.Kill(n, s); err != nil {
			t.Fatal(err)
		}
	}
	if mustCall(t, p, "pid", "") != pid {
		t.Error("the child obeyed")
	}
}

func TestChildrenDieWithTheirParent(t *testing.T) {
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), envParent+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(line)
	eventually(t, "the child to stand still", func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err == nil && bytes.Contains(stat, []byte(") T "))
	})
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // "signal: killed"
	eventually(t, "the child to be gone", func() bool { return !exists(t, pid) })
}

func TestOutputIsCapped(t *testing.T) {
	var log buffer
	p := newPool(t, worker.Spec{}, 1, &log)
	mustCall(t, p, "output", "")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	out := log.String()
	if n := len(out); n > 16<<10 || !strings.Contains(out, "xxxx") || !strings.Contains(out, "worker output cut") {
		t.Errorf("%d bytes of log", n)
	}
}

func TestUnknownProgramIsAnError(t *testing.T) {
	p := worker.NewPool(worker.Spec{Name: "unheard-of"}, 1, nil)
	defer p.Close()
	if _, err := call(t, p, "echo", ""); err == nil || !strings.Contains(err.Error(), `no program "unheard-of"`) {
		t.Fatal(err)
	}
}

// exists reports whether the process is there and not a zombie.
func exists(t *testing.T, pid string) bool {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || !bytes.Contains(stat, []byte(") Z "))
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
