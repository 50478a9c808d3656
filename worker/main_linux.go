//go:build amd64 || arm64

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of a child, for the log of its parent.
const (
	exitEnd     = 0 // the socket was closed
	exitRefused = 1 // the sandbox or the program could not be set up
	exitPanic   = 2
	exitFatal   = 3 // an error answered true to Fatal
)

// IsChild reports whether a Pool started this process.
func IsChild() bool {
	return len(os.Args) == 2 && os.Args[0] == argv0 && os.Getenv(envName) == os.Args[1]
}

// init confines a child, which starts the binary again. It does so this early
// because most packages of the binary are initialized later than this one: for
// them, who come once more in the next stage, it took four times as long.
func init() {
	if !IsChild() || os.Getenv(envStage) == stageConfined {
		return
	}
	ignoreSignals()
	socket := os.NewFile(socketFD, "socket")
	refuse(socket, confine(socket))
	os.Exit(exitRefused)
}

// ignoreSignals because systemd and a terminal signal every process of a
// group: the parent decides when a child ends, so that it can finish its work
// first.
func ignoreSignals() { signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP) }

// Main runs the program that the parent asks for until the parent closes the
// socket, and returns the exit code.
func Main(programs map[string]Program) int {
	ignoreSignals()
	name := os.Getenv(envName)
	_ = os.Unsetenv(envStage)
	_ = os.Unsetenv(envName)
	c, err := newConn(os.NewFile(socketFD, "socket"), defaultFrame)
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker: the socket:", err)
		return exitRefused
	}
	return (&child{conn: c, name: name}).run(programs[name])
}

// refuse tells the parent why there is no child.
func refuse(socket io.Writer, err error) {
	header, _ := json.Marshal(wireErrorOf(err)) // strings, numbers and booleans only
	if head, err := (packet{kind: kindError, Frame: Frame{Header: header}}).head(defaultFrame); err == nil {
		_, _ = socket.Write(head) // a parent that is gone needs no answer
	}
}

// confine puts limits and Landlock on this thread and starts the binary again
// on it. Landlock binds the calling thread and what descends from it, and the
// other threads of a Go process, which cgo keeps out of reach of
// syscall.AllThreadsSyscall, end with the exec. It returns only if it fails.
func confine(socket io.Reader) error {
	runtime.LockOSThread()
	p, err := readPacket(socket, defaultFrame)
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(p.Header, &o); err != nil {
		return err
	}
	if err := limitResources(o); err != nil {
		return err
	}
	// Foreign libraries of the parent may have opened files without O_CLOEXEC.
	if err := unix.CloseRange(socketFD+1, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("close_range: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := restrictFiles(o.Sandbox); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	err = syscall.Exec(self, os.Args, append(os.Environ(), envStage+"="+stageConfined))
	return fmt.Errorf("exec under landlock: %w", err)
}

func limitResources(o order) error {
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: o.Files}
	if o.Memory > 0 {
		limits[unix.RLIMIT_DATA] = o.Memory
	}
	for resource, limit := range limits {
		var old unix.Rlimit
		if err := unix.Getrlimit(resource, &old); err != nil {
			return fmt.Errorf("getrlimit %d: %w", resource, err)
		}
		limit = min(limit, old.Max)
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("setrlimit %d to %d: %w", resource, limit, err)
		}
	}
	return nil
}

// child is a confined process.
type child struct {
	conn   *conn
	name   string
	handle Handler
}

func (c *child) run(program Program) int {
	setup, err := c.conn.read()
	if err != nil {
		return exitEnd // the parent has changed its mind
	}
	ready, err := c.load(program, setup)
	if err != nil {
		c.answer(packet{kind: kindError}, err)
		return exitRefused
	}
	header, _ := json.Marshal(ready) // an integer
	if err := c.conn.write(packet{kind: kindReady, Frame: Frame{Header: header}}); err != nil {
		return exitEnd
	}
	calls := make(chan packet)
	for {
		p, err := c.conn.read()
		if err != nil {
			return exitEnd // also while a handler hangs in foreign code
		}
		select {
		case calls <- p:
		default: // nobody is free
			go c.serve(p, calls)
		}
	}
}

// load brings up the sandbox, then the program.
func (c *child) load(program Program, setup packet) (readiness, error) {
	if program == nil {
		return readiness{}, fmt.Errorf("this binary has no program %q", c.name)
	}
	var o order
	if err := json.Unmarshal(setup.Header, &o); err != nil {
		return readiness{}, err
	}
	// Neither other processes of this user nor a core file may read it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return readiness{}, fmt.Errorf("dumpable: %w", err)
	}
	if err := baseFilter(o.Sandbox).install(); err != nil {
		return readiness{}, err
	}
	c.conn.limit = o.Frame
	defer c.crashQuietly()
	handle, err := program(context.Background(), setup.Body)
	if err != nil {
		return readiness{}, err
	}
	c.handle = handle
	if o.Sandbox.SealFiles {
		if err := sealFilter().install(); err != nil {
			return readiness{}, err
		}
	}
	return readiness{Landlock: landlockABI()}, nil
}

// serve answers a call, and then others: a goroutine that has done so has the stack for it.
func (c *child) serve(p packet, more <-chan packet) {
	defer c.crashQuietly()
	for ; ; p = <-more {
		c.serveOne(p)
		p = packet{} // may be large, and the next one may be long in coming
	}
}

func (c *child) serveOne(p packet) {
	reply, err := c.handle(context.Background(), p.Frame)
	closeFiles(p.Files)
	c.answer(packet{kind: kindReply, id: p.id, Frame: reply}, err)
	closeFiles(reply.Files)
}

// answer sends p, or err instead. A reply that makes no frame is an error too.
func (c *child) answer(p packet, err error) {
	if err == nil {
		err = c.conn.write(p)
		var bad *FrameError
		if !errors.As(err, &bad) {
			return // sent, or nobody is there, which run notices
		}
	}
	w := wireErrorOf(err)
	header, _ := json.Marshal(w) // strings, numbers and booleans only
	_ = c.conn.write(packet{kind: kindError, id: p.id, Frame: Frame{Header: header}})
	if w.Fatal {
		os.Exit(exitFatal)
	}
}

// crashQuietly ends the process on a panic without printing its value, which
// may be part of a document.
func (c *child) crashQuietly() {
	if v := recover(); v != nil {
		fmt.Fprintf(os.Stderr, "panic: %T\n%s", v, debug.Stack())
		os.Exit(exitPanic)
	}
}
