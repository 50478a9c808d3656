//go:build amd64 || arm64

package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// self is the binary of this process even after the file was replaced by an
// upgrade: parent and child must speak the same protocol.
const self = "/proc/self/exe"

// argv0 is what a process listing shows, followed by the worker's name.
const argv0 = "dealseal-worker"

// process is the parent's view of one child.
type process struct {
	pid  int
	cmd  *exec.Cmd
	conn *conn
	gone chan struct{} // closed when the process and its output have ended
	read chan struct{} // closed when the last reply has been delivered
	dead chan struct{} // closed after both; err is set

	mu      sync.Mutex
	pending map[uint32]chan packet
	last    uint32 // id
	killed  string // why, if it was us
	ending  bool   // it takes no more calls
	resting bool   // it was ended because nobody called
	err     error
}

// startProcess starts a child and waits until its program has loaded. When ctx
// ends before that, the child is killed.
func startProcess(ctx context.Context, spec Spec, log *slog.Logger) (*process, readiness, error) {
	p, err := launch(spec, log)
	if err != nil {
		return nil, readiness{}, err
	}
	stop := context.AfterFunc(ctx, func() { p.kill("the pool was closed") })
	defer stop()
	timer := time.AfterFunc(spec.Limits.Start, func() {
		p.kill(fmt.Sprintf("it was not ready after %v", spec.Limits.Start))
	})
	defer timer.Stop()
	ready, err := p.handshake(spec)
	if err == nil && stop() && timer.Stop() {
		p.conn.limit = spec.Limits.Frame
		go p.dispatch()
		return p, ready, nil
	}
	p.kill("it did not become ready")
	<-p.gone
	var remote wireFailure
	var bad *FrameError
	if errors.As(err, &remote) || errors.As(err, &bad) {
		return nil, readiness{}, err
	}
	reason, _ := p.reason()
	return nil, readiness{}, fmt.Errorf("the child ended before it was ready: %s", reason)
}

// launch starts the process without talking to it.
func launch(spec Spec, log *slog.Logger) (*process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "worker")
	defer theirs.Close()
	c, err := newConn(os.NewFile(uintptr(fds[0]), "worker"), defaultFrame)
	if err != nil {
		return nil, err
	}
	output, input, err := os.Pipe()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	defer input.Close()
	p := &process{
		cmd: &exec.Cmd{
			Path: self, Args: []string{argv0, spec.Name}, Env: environment(spec),
			Stdout: input, Stderr: input, ExtraFiles: []*os.File{theirs},
			Dir:         "/",
			SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
		},
		conn: c, pending: make(map[uint32]chan packet),
		gone: make(chan struct{}), read: make(chan struct{}), dead: make(chan struct{}),
	}
	started := make(chan error)
	go p.run(started, output, log)
	if err := <-started; err != nil {
		_ = c.Close()
		_ = output.Close()
		return nil, fmt.Errorf("start: %w", err)
	}
	return p, nil
}

// run holds its thread for the life of the child, because the kernel sends the
// parent-death signal when the thread that started the child ends.
func (p *process) run(started chan<- error, output *os.File, log *slog.Logger) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	p.pid = p.cmd.Process.Pid
	started <- nil
	var forwarding sync.WaitGroup
	forwarding.Go(func() { forward(output, log.With("pid", p.pid)) })
	_ = p.cmd.Wait() // how it ended is in ProcessState
	forwarding.Wait()
	close(p.gone)
}

func environment(spec Spec) []string {
	env := []string{envName + "=" + spec.Name}
	if spec.Limits.Procs > 0 {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(spec.Limits.Procs))
	}
	if spec.Limits.GoMemory > 0 {
		env = append(env, "GOMEMLIMIT="+strconv.FormatInt(spec.Limits.GoMemory, 10))
	}
	for name, value := range spec.Env {
		env = append(env, name+"="+value)
	}
	return env
}

func (p *process) handshake(spec Spec) (readiness, error) {
	var ready readiness
	bounds, err := json.Marshal(spec.order())
	if err != nil {
		return ready, err
	}
	if err := p.conn.write(packet{kind: kindConfine, Frame: Frame{Header: bounds}}); err != nil {
		return ready, err
	}
	if err := p.conn.write(packet{kind: kindSetup, Frame: Frame{Header: bounds, Body: spec.Setup}}); err != nil {
		return ready, p.answerOr(err)
	}
	answer, err := p.conn.read()
	if err != nil {
		return ready, err
	}
	defer closeFiles(answer.Files)
	switch answer.kind {
	case kindReady:
		return ready, json.Unmarshal(answer.Header, &ready)
	case kindError:
		return ready, failureOf(answer)
	default:
		return ready, &FrameError{"the child answered its setup with something else"}
	}
}

// answerOr returns the error that the child sent before it stopped reading, or
// err if there is none.
func (p *process) answerOr(err error) error {
	var bad *FrameError
	if errors.As(err, &bad) {
		return err // nothing was sent, nothing will come
	}
	answer, readErr := p.conn.read()
	if readErr != nil || answer.kind != kindError {
		return err
	}
	return failureOf(answer)
}

func failureOf(answer packet) error {
	var w wireError
	if err := json.Unmarshal(answer.Header, &w); err != nil {
		return &FrameError{"the child sent an error that cannot be read"}
	}
	return wireFailure{w}
}

// dispatch gives each reply to its call, until the stream ends.
func (p *process) dispatch() {
	defer close(p.read)
	for {
		reply, err := p.conn.read()
		if err == nil {
			err = p.deliver(reply)
		}
		if err == nil {
			continue
		}
		var bad *FrameError
		if errors.As(err, &bad) {
			p.kill(bad.Reason)
		} else {
			p.stop()
		}
		return
	}
}

func (p *process) deliver(reply packet) error {
	p.mu.Lock()
	call, known := p.pending[reply.id]
	delete(p.pending, reply.id)
	p.mu.Unlock()
	if reply.kind != kindReply && reply.kind != kindError || !known {
		closeFiles(reply.Files)
		return &FrameError{"the child answered a question that was not asked"}
	}
	call <- reply // has room for it
	return nil
}

// call sends f and returns the reply. When ctx ends the child is killed; busy is the processor time that it used until
// then.
func (p *process) call(ctx context.Context, f Frame) (reply Frame, busy time.Duration, err error) {
	before := p.busy()
	outlived := sync.OnceFunc(func() {
		busy = p.busy() - before // the dead cannot be asked
		p.kill("a call outlived its context")
	})
	reply, err = p.exchange(ctx, f, outlived)
	if ctx.Err() != nil {
		outlived()
	}
	return reply, busy, err
}

// busy is the processor time that the child has used in its life, 0 if the kernel does not say. The kernel's name for a
// process's clock is made of its ID.
func (p *process) busy() time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED: what the scheduler has counted, in nanoseconds
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid)<<3|scheduled, &used); err != nil {
		return 0
	}
	return time.Duration(used.Nano())
}

func (p *process) exchange(ctx context.Context, f Frame, outlived func()) (Frame, error) {
	stop := context.AfterFunc(ctx, outlived) // also while the frame is being written
	defer stop()
	id, replies := p.register()
	defer p.forget(id, replies)
	if err := p.conn.write(packet{kind: kindCall, id: id, Frame: f}); err != nil {
		var bad *FrameError
		if errors.As(err, &bad) {
			return Frame{}, bad
		}
		p.stop() // dead tells why
	}
	select {
	case reply := <-replies:
		return p.open(reply)
	case <-p.dead:
		select { // it may have answered before it died
		case reply := <-replies:
			return p.open(reply)
		default:
			return Frame{}, p.err
		}
	case <-ctx.Done():
		return Frame{}, ctx.Err() // the caller kills: the deferred stop may come before the AfterFunc has begun, and then it never does
	}
}

func (p *process) open(reply packet) (Frame, error) {
	if reply.kind == kindReply {
		return reply.Frame, nil
	}
	closeFiles(reply.Files)
	err := failureOf(reply)
	var failure wireFailure
	if errors.As(err, &failure) && failure.Fatal {
		p.mu.Lock()
		p.ending = true
		p.mu.Unlock()
	}
	return Frame{}, err
}

func (p *process) register() (uint32, chan packet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	replies := make(chan packet, 1)
	p.pending[p.last] = replies
	return p.last, replies
}

// forget drops a call, with the reply that it may have got too late.
func (p *process) forget(id uint32, replies chan packet) {
	p.mu.Lock()
	delete(p.pending, id)
	p.mu.Unlock()
	select {
	case late := <-replies:
		closeFiles(late.Files)
	default:
	}
}

// alive reports whether p takes calls.
func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.ending
}

// kill ends the child at once; why is its epitaph if it is the first.
func (p *process) kill(why string) {
	p.mu.Lock()
	if p.killed == "" && !p.ending {
		p.killed = why
	}
	p.mu.Unlock()
	p.stop()
}

// stop ends the child without a reason of ours.
func (p *process) stop() {
	p.hangUp()
	_ = p.cmd.Process.Kill() // an error says that it has ended
}

// hangUp closes the socket, upon which the child ends itself.
func (p *process) hangUp() {
	p.mu.Lock()
	p.ending = true
	p.mu.Unlock()
	_ = p.conn.Close() // a second time fails, and may
}

// retire ends a child that has been idle for long; the next call starts another.
func (p *process) retire() {
	p.mu.Lock()
	p.resting = true
	p.mu.Unlock()
	p.hangUp()
}

func (p *process) retired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resting
}

// wait returns how the child ended, and whether that was our wish.
func (p *process) wait() (reason string, wanted bool) {
	<-p.gone
	<-p.read // what it answered at the last moment counts
	p.stop()
	return p.reason()
}

func (p *process) reason() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed != "" {
		return p.killed, true
	}
	return "the child ended: " + p.cmd.ProcessState.String(), false
}

// fail ends the calls that are left with err.
func (p *process) fail(err error) {
	p.err = err
	close(p.dead)
}

// Bounds of what a child's output may add to the log, in bytes: the reason of a
// crash and the goroutine that had it.
const (
	maxLine   = 400
	maxOutput = 4 << 10
)

// forward logs what a child writes to stdout and stderr, which our programs do
// only when they crash, and a vendor's module when it has a complaint.
func forward(output *os.File, log *slog.Logger) {
	defer output.Close()
	lines := bufio.NewScanner(io.LimitReader(output, maxOutput))
	lines.Buffer(make([]byte, maxLine), maxLine)
	lines.Split(splitCapped)
	for lines.Scan() {
		log.Warn("worker output", "line", lines.Text())
	}
	if n, _ := io.Copy(io.Discard, output); n > 0 { // it must not block the child
		log.Warn("worker output cut", "bytes", n)
	}
}

// splitCapped is [bufio.ScanLines], except that a line of maxLine bytes ends
// there.
func splitCapped(data []byte, atEOF bool) (int, []byte, error) {
	advance, token, err := bufio.ScanLines(data, atEOF)
	if advance == 0 && len(data) >= maxLine {
		return len(data), data, nil
	}
	return advance, token, err
}
