package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Pool runs up to a fixed number of children of one [Spec]. It is safe for
// concurrent use.
type Pool struct {
	spec   Spec
	log    *slog.Logger
	tokens chan struct{} // one per call that may be with a child
	ctx    context.Context
	cancel context.CancelFunc
	warn   sync.Once
	ended  sync.WaitGroup // starts and processes

	mu        sync.Mutex
	slots     []*slot
	closed    bool
	failures  int // in a row
	failure   error
	notBefore time.Time // of the next start
}

// slot is the place of one child. Its fields are guarded by Pool.mu.
type slot struct {
	calls int
	rest  *time.Timer // ends the child when it has had no call for long
	proc  *process    // the last one started; it may have ended
	start *starting   // non-nil while one starts
}

type starting struct {
	done chan struct{}
	proc *process
	err  error
}

// NewPool returns a pool of up to size children. None is started before the
// first Call needs it. A nil log discards.
func NewPool(spec Spec, size int, log *slog.Logger) *Pool {
	spec = spec.withDefaults()
	size = max(size, 1)
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{
		spec:   spec,
		log:    log.With("worker", spec.Name),
		tokens: make(chan struct{}, size*spec.Concurrency),
		slots:  make([]*slot, size),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for i := range p.slots {
		p.slots[i] = new(slot)
	}
	return p
}

// Call sends f to a child and returns its reply, waiting for a free child if
// it must. When ctx ends while the child works, the child is killed.
//
// The error is a [*DeadlineError] at ctx's deadline, a [*CrashError] if the
// child ended, a [*RemoteError] if the Handler or the Program returned one, a
// [*FrameError] if f or the reply is too large, ErrClosed, or context.Canceled.
// After repeated failures children are started with growing pauses; a call for
// which the pause is longer than its deadline fails with the last failure.
func (p *Pool) Call(ctx context.Context, f Frame) (Frame, error) {
	select {
	case p.tokens <- struct{}{}:
	case <-ctx.Done():
		return Frame{}, p.contextError(ctx, f.Op)
	case <-p.ctx.Done():
		return Frame{}, ErrClosed
	}
	defer func() { <-p.tokens }()
	s := p.take()
	defer p.release(s)
	proc, err := p.running(ctx, s, f.Op)
	if err != nil {
		return Frame{}, err
	}
	return p.callOn(ctx, proc, f)
}

func (p *Pool) callOn(ctx context.Context, proc *process, f Frame) (Frame, error) {
	if ctx.Err() != nil { // a child is not killed for a call that it never saw
		return Frame{}, p.contextError(ctx, f.Op)
	}
	reply, busy, err := proc.call(ctx, f)
	switch {
	case err == nil:
		p.succeeded()
		return reply, nil
	case ctx.Err() != nil:
		return Frame{}, p.outlived(ctx, f.Op, busy)
	}
	var remote wireFailure
	if errors.As(err, &remote) {
		if !remote.Fatal {
			p.succeeded() // an answer all the same: the child works
		}
		return Frame{}, remote.remote(p.spec.Name, f.Op)
	}
	return Frame{}, withOp(err, f.Op)
}

// take returns a slot with room for one more call, which the caller's token
// guarantees: of those whose child runs, the least busy; else an empty one.
func (p *Pool) take() *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *slot
	for _, s := range p.slots {
		if s.calls >= p.spec.Concurrency {
			continue
		}
		if best == nil || s.alive() && (!best.alive() || s.calls < best.calls) {
			best = s
		}
	}
	best.calls++
	if best.rest != nil {
		best.rest.Stop() // one that has fired already finds the call
	}
	return best
}

func (p *Pool) release(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.calls--
	if p.spec.Idle <= 0 || s.calls > 0 || p.closed {
		return
	}
	if s.rest == nil {
		s.rest = time.AfterFunc(p.spec.Idle, func() { p.retire(s) })
	} else {
		s.rest.Reset(p.spec.Idle)
	}
}

// retire ends the child of a slot that has had no call for long.
func (p *Pool) retire(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.calls > 0 || p.closed || s.proc == nil {
		return
	}
	s.proc.retire()
	s.proc = nil
}

func (s *slot) alive() bool { return s.proc != nil && s.proc.alive() }

// running returns the slot's child, and starts one if there is none. A start
// outlives the call that caused it, because the next one needs it as well.
func (p *Pool) running(ctx context.Context, s *slot, op string) (*process, error) {
	for {
		p.mu.Lock()
		if proc := s.proc; s.alive() {
			p.mu.Unlock()
			return proc, nil
		}
		if s.start == nil && !p.closed {
			if pause := time.Until(p.notBefore); pause > 0 {
				failure := p.failure
				p.mu.Unlock()
				if err := p.sitOut(ctx, pause, failure, op); err != nil {
					return nil, err
				}
				continue
			}
			s.start = &starting{done: make(chan struct{})}
			p.ended.Add(1)
			go p.start(s, s.start)
		}
		start := s.start
		p.mu.Unlock()
		if start == nil {
			return nil, ErrClosed
		}
		select {
		case <-start.done:
			return start.proc, withOp(start.err, op)
		case <-ctx.Done():
			return nil, p.contextError(ctx, op)
		}
	}
}

// sitOut waits for the end of the pause. It returns the failure that caused
// the pause if that lasts longer than ctx, or if waiting will not cure it.
func (p *Pool) sitOut(ctx context.Context, pause time.Duration, failure error, op string) error {
	deadline, bounded := ctx.Deadline()
	if isPermanent(failure) || bounded && time.Until(deadline) < pause {
		return withOp(askingFor(failure, pause), op)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return p.contextError(ctx, op)
	case <-p.ctx.Done():
		return ErrClosed
	}
}

// askingFor returns a failure that has its callers come back when the pause is over: until then they would only be told the
// same.
func askingFor(failure error, pause time.Duration) error {
	var crash *CrashError
	if errors.As(failure, &crash) {
		return &CrashError{Worker: crash.Worker, Reason: crash.Reason, Failures: crash.Failures, after: pause}
	}
	var remote *RemoteError
	if errors.As(failure, &remote) {
		own := *remote
		own.after = max(own.after, pause)
		return &own
	}
	return failure
}

// withOp returns err for a call of op, if err is a crash that several calls
// share.
func withOp(err error, op string) error {
	var crash *CrashError
	if !errors.As(err, &crash) {
		return err
	}
	own := *crash
	own.Op = op
	return &own
}

func isPermanent(err error) bool {
	var permanent interface{ Permanent() bool }
	return errors.As(err, &permanent) && permanent.Permanent()
}

// opStart stands for the op in errors of a start.
const opStart = "start"

func (p *Pool) start(s *slot, st *starting) {
	defer p.ended.Done()
	proc, ready, err := startProcess(p.ctx, p.spec, p.log)
	var remote wireFailure
	switch {
	case err == nil:
		p.ended.Add(1)
		go p.watch(proc)
	case p.ctx.Err() != nil:
		err = ErrClosed
	case errors.As(err, &remote):
		err = p.failed(remote.remote(p.spec.Name, opStart))
	default:
		err = p.failed(&CrashError{Worker: p.spec.Name, Op: opStart, Reason: err.Error()})
	}
	if err == nil && ready.Landlock == 0 {
		p.warn.Do(func() {
			p.log.Warn("the kernel has no Landlock: the worker's file access is bounded by seccomp and file modes only; use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK")
		})
	}
	p.mu.Lock()
	st.proc, st.err = proc, err
	s.proc, s.start = proc, nil
	p.mu.Unlock()
	close(st.done)
}

// watch waits for the end of proc and gives its calls their errors.
func (p *Pool) watch(proc *process) {
	defer p.ended.Done()
	reason, wanted := proc.wait()
	switch {
	case p.ctx.Err() != nil:
		proc.fail(ErrClosed)
	case proc.retired():
		proc.fail(ErrClosed) // it has no calls
	case wanted:
		p.log.Warn("worker killed", "pid", proc.pid, "reason", reason)
		proc.fail(&CrashError{Worker: p.spec.Name, Reason: reason, Failures: 1})
	default:
		proc.fail(p.failed(&CrashError{Worker: p.spec.Name, Op: "call", Reason: reason}))
	}
}

// failed counts a failure, sets the pause that follows it, and returns err
// with both.
func (p *Pool) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures++
	pause := p.spec.Restart.delay(p.failures)
	var crash *CrashError
	if errors.As(err, &crash) {
		crash.Failures, crash.after = p.failures, pause
	}
	p.failure, p.notBefore = err, time.Now().Add(pause)
	p.log.Error("worker failed", "err", err, "failures", p.failures, "pause", pause)
	return err
}

func (p *Pool) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures, p.failure, p.notBefore = 0, nil, time.Time{}
}

// outlived is for a call whose ctx ended while a child worked on it.
func (p *Pool) outlived(ctx context.Context, op string, busy time.Duration) error {
	err := p.contextError(ctx, op)
	var late *DeadlineError
	if errors.As(err, &late) {
		late.Started, late.Busy = true, busy
	}
	return err
}

// contextError is for a call whose ctx ended before a child had it.
func (p *Pool) contextError(ctx context.Context, op string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &DeadlineError{Worker: p.spec.Name, Op: op}
	}
	return fmt.Errorf("worker %s: %s: %w", p.spec.Name, op, ctx.Err())
}

// How long Close waits for children to end by themselves, and then for the
// kernel to remove them.
const (
	closeGrace = time.Second
	closeLimit = 5 * time.Second
)

// Close ends all children. Calls under way fail with ErrClosed. It returns an
// error if a child could not be removed within seconds, which happens when the
// kernel holds it in a device driver.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.cancel()
	var procs []*process
	for _, s := range p.slots {
		if s.rest != nil {
			s.rest.Stop()
		}
		if s.proc != nil {
			procs = append(procs, s.proc)
		}
	}
	p.mu.Unlock()
	for _, proc := range procs {
		proc.hangUp()
	}
	gone := make(chan struct{})
	go func() {
		p.ended.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-time.After(closeGrace):
	}
	for _, proc := range procs {
		proc.kill("the pool was closed")
	}
	select {
	case <-gone:
		return nil
	case <-time.After(closeLimit):
		return fmt.Errorf("worker %s: a child was killed and has not ended", p.spec.Name)
	}
}
