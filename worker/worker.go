// Package worker runs what may crash, hang or be taken over by its input in
// child processes of the same binary.
//
// A [Pool] starts the children on demand, speaks frames with them over a
// socketpair, kills a child whose call has outlived its deadline, and replaces
// the dead. A child begins with an empty environment, no file but its end of
// the socket, resource limits, a Landlock domain and a seccomp filter, all of
// them in force before its [Program] starts.
//
// A binary that uses a Pool calls, first of all in main (and in TestMain of a
// test that starts children):
//
//	if worker.IsChild() {
//		os.Exit(worker.Main(programs))
//	}
//
// Children exist on Linux, amd64 and arm64. Elsewhere every call fails; there
// is no unconfined mode.
package worker

import (
	"context"
	"os"
	"time"
)

// Spec says what a child runs, and within which bounds.
type Spec struct {
	// Name of the [Program]; it is all that a process listing shows.
	Name string
	// Setup is handed to the Program, usually JSON. It travels over the socket
	// only, never as an argument or in the environment.
	Setup []byte
	// Env is the whole environment of the child. It is readable for root while
	// the child runs: no secrets.
	Env map[string]string
	// Concurrency is the number of calls that one child works on at once;
	// default 1. A child that is killed for one of them fails the others.
	Concurrency int
	Limits      Limits
	Sandbox     Sandbox
	Restart     Backoff
	// Idle is how long a child lives without a call; the next one starts
	// another. 0 is for ever.
	Idle time.Duration
}

// Limits bound one child. Zero values mean the defaults.
type Limits struct {
	// Frame is the most bytes in a frame's Header and Body together, either
	// way; default 64 MiB. Larger things travel as Files.
	Frame int
	// Start is the time that a Program may take to load; default 30 s.
	Start time.Duration
	// Memory bounds the child's private memory in bytes (RLIMIT_DATA); 0 is no
	// bound. The Go runtime takes heap in pieces of 64 MiB, so that bounds
	// below 256 MiB keep a child from starting. What exceeds it, crashes.
	Memory uint64
	// GoMemory is GOMEMLIMIT in bytes and Procs is GOMAXPROCS; 0 leaves either
	// to the runtime.
	GoMemory int64
	Procs    int
	// Files is the number of open files (RLIMIT_NOFILE); default 256.
	Files uint64
}

// Sandbox says what a child may reach apart from its socket. Zero is nothing.
type Sandbox struct {
	// Read and Write are the files and directories, the latter with all below,
	// that the child may open (Landlock). Write includes reading, creating and
	// removing. What does not exist when a child starts stays out of its reach.
	// The system's library directories are always readable: the loader needs
	// them.
	Read, Write []string
	// Network allows internet and local sockets; without it seccomp refuses
	// socket and connect.
	Network bool
	// LocalSockets allows sockets of the family AF_UNIX: to pcscd, p11-kit and
	// every other local service that lets this user in.
	LocalSockets bool
	// SealFiles makes seccomp refuse every opening, creating, renaming and
	// removing of a file once the Program has loaded, whatever the path.
	SealFiles bool
}

// Backoff spaces the starts of children after failures in a row. One success
// ends the row. Zero values mean 200 ms to 30 s.
type Backoff struct {
	Min, Max time.Duration
}

// Frame is a request or a reply.
type Frame struct {
	Op     string // at most 64 bytes
	Header []byte // usually JSON
	Body   []byte
	// Files are at most 16 open files. Those of a frame that is sent stay the
	// sender's; those of a received reply are the receiver's to close. In a
	// child the files of a request are closed when the Handler returns, those
	// of its reply when they have been sent.
	Files []*os.File
}

// Program loads what a child needs and returns what answers the calls. It runs
// inside the sandbox, but before SealFiles takes effect. An error of it is
// passed on as [RemoteError]; see there for what an error can say.
type Program func(ctx context.Context, setup []byte) (Handler, error)

// Handler answers one call. Its context does not end: what outlives the
// caller's context ends with the process, lest half-done work stays behind in
// a process that goes on. It is called concurrently if Spec.Concurrency is
// above 1.
type Handler func(ctx context.Context, f Frame) (Frame, error)

const (
	defaultFrame = 64 << 20
	defaultStart = 30 * time.Second
	defaultFiles = 256
	defaultMin   = 200 * time.Millisecond
	defaultMax   = 30 * time.Second
)

// withDefaults fills in what the zero values stand for.
func (s Spec) withDefaults() Spec {
	s.Concurrency = max(s.Concurrency, 1)
	if s.Limits.Frame <= 0 {
		s.Limits.Frame = defaultFrame
	}
	if s.Limits.Start <= 0 {
		s.Limits.Start = defaultStart
	}
	if s.Limits.Files == 0 {
		s.Limits.Files = defaultFiles
	}
	if s.Restart.Min <= 0 {
		s.Restart.Min = defaultMin
	}
	if s.Restart.Max <= 0 {
		s.Restart.Max = defaultMax
	}
	s.Restart.Max = max(s.Restart.Max, s.Restart.Min)
	return s
}

// delay is the pause before a start that follows failures failures in a row.
// The first replacement comes at once: most crashes are single.
func (b Backoff) delay(failures int) time.Duration {
	if failures < 2 {
		return 0
	}
	d := b.Min
	for range failures - 2 {
		if d >= b.Max/2 {
			return b.Max
		}
		d *= 2
	}
	return d
}
