package typst

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/worker"
)

// A template that never ends must not keep the children from others. The first documents of a bundle leave one child to
// the rest; a bundle whose last document failed in the engine is rendered apart, in a child of its own and one document at
// a time, until one succeeds; and one that goes on running away there is given up.

// maxFailures is how many documents in a row must have run away before that is put down to the template. All but one of
// them had a process to themselves: several that run out of time side by side may have kept each other from working.
const maxFailures = 3

// conducts remembers how the bundles have behaved in this process. The zero value is ready.
type conducts struct {
	mu       sync.Mutex
	byBundle map[string]*conduct
}

// conduct is guarded by conducts.mu, but for the channels, and what is found out once.
type conduct struct {
	proven   bool // it has made a document
	failing  bool // its last document cost a child its life, or failed in the engine
	runaways int  // documents in a row that ran away, those that had company counted once
	first    chan struct{}
	turn     chan struct{} // of rendering apart
	trials   map[manner]trial
	choose   sync.Once
	sample   *sample // what images are made with; nil for none
	search   sync.Once
	breaking bool // see mayBreak
}

// mayBreak reports whether the files that all documents of the bundle have may hold a place to break.
func (c *conduct) mayBreak(b *documents.Bundle) bool {
	c.search.Do(func() { c.breaking = needsBreaks(sameFiles(b)) })
	return c.breaking
}

// of returns the conduct of a bundle. Until it is proven, beginners of its documents are rendered at once.
func (m *conducts) of(bundle string, beginners int) *conduct {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byBundle == nil {
		m.byBundle = map[string]*conduct{}
	}
	c := m.byBundle[bundle]
	if c == nil {
		c = &conduct{first: make(chan struct{}, max(1, beginners)), turn: make(chan struct{}, 1), trials: map[manner]trial{}}
		m.byBundle[bundle] = c
	}
	return c
}

func (m *conducts) state(c *conduct) (proven, failing bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return c.proven, c.failing
}

// note takes in how a rendering ended that had limit to its end, and returns how many in a row have run away; 0 if this
// one has not.
func (m *conducts) note(c *conduct, err error, limit time.Duration, apart bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		c.proven, c.failing, c.runaways = true, false, 0
		return 0
	case costly(err):
		c.failing = true
	}
	switch {
	case !runaway(err, limit):
		return 0
	case apart:
		c.runaways++
	default:
		c.runaways = max(c.runaways, 1)
	}
	return c.runaways
}

// costly reports whether a rendering has cost a child its life, or has failed in the engine.
func costly(err error) bool {
	var crash *worker.CrashError
	var late *worker.DeadlineError
	return errors.As(err, &crash) || errors.As(err, &late) && late.Started || trapped(err)
}

// runaway reports whether a document took too long, or too much: that is the template's doing. A child may crash because
// of the machine, and one that had the processor for less than half of its time was kept from working.
func runaway(err error, limit time.Duration) bool {
	var late *worker.DeadlineError
	return errors.As(err, &late) && late.Started && late.Busy >= limit/2 || trapped(err)
}

func trapped(err error) bool {
	var remote *worker.RemoteError
	return errors.As(err, &remote) && remote.Code() == codeTrap
}

// Isolates implements documents.Isolator.
func (r *Renderer) Isolates(b *documents.Bundle) bool {
	proven, failing := r.bundles.state(r.bundles.of(b.Hash(), cap(r.places)-1))
	return !proven || failing
}

// call waits for a child with the caller's patience, and for the document with the renderer's.
func (r *Renderer) call(ctx context.Context, b *documents.Bundle, c *conduct, j job) (worker.Frame, error) {
	if proven, failing := r.bundles.state(c); !proven && !failing {
		if err := take(ctx, c.first); err != nil {
			return worker.Frame{}, err
		}
		defer func() { <-c.first }()
	}
	call := r.callShared
	_, apart := r.bundles.state(c)
	if apart {
		call = r.callApart
	}
	answer, err := call(ctx, b, c, j)
	if n := r.bundles.note(c, err, r.timeout, apart); n >= maxFailures && ctx.Err() == nil {
		return answer, &RunawayError{Template: b.Name(), Failures: n, Cause: err}
	}
	return answer, err
}

func take(ctx context.Context, place chan struct{}) error {
	select {
	case place <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no renderer was free: %w", ctx.Err())
	}
}

// callShared renders in one of the children that all bundles share, and lets it warm instances with a sample. When that is
// tried for the first time and no answer comes, the sample may be why: the document is made again without.
func (r *Renderer) callShared(ctx context.Context, b *documents.Bundle, c *conduct, j job) (worker.Frame, error) {
	if err := take(ctx, r.places); err != nil {
		return worker.Frame{}, err
	}
	defer func() { <-r.places }()
	s, first := r.bundles.offer(c, r.sampleOf(b, c), j.manner)
	answer, err := r.callOn(ctx, r.pool, j, s)
	if s == nil {
		return answer, err
	}
	known := r.bundles.tried(c, j.manner, first, answer, err)
	if !first {
		return answer, err
	}
	if known == unsound {
		r.log.Warn("the template's documents begin without the sample that would make them faster: the child that tried it failed or was stopped, or found it faulty, too large or too slow; see dealseal template validate",
			"template", b.Name(), "sample", s.name)
	}
	if costly(err) && !trapped(err) && ctx.Err() == nil {
		return r.callOn(ctx, r.pool, j, nil)
	}
	return answer, err
}

// callApart renders in a child of its own, which ends with the document.
func (r *Renderer) callApart(ctx context.Context, _ *documents.Bundle, c *conduct, j job) (worker.Frame, error) {
	if err := take(ctx, c.turn); err != nil {
		return worker.Frame{}, err
	}
	defer func() { <-c.turn }()
	pool := worker.NewPool(r.spec, 1, r.log)
	defer pool.Close() // what it could say, the call has said
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closed, cancel)()
	return r.callOn(ctx, pool, j, nil)
}

// callOn gives the document its time again when that has passed before a child was ready, which a busy machine may take
// long to start. A start that never ends fails by itself.
func (r *Renderer) callOn(ctx context.Context, pool *worker.Pool, j job, s *sample) (worker.Frame, error) {
	f, err := j.frame(s)
	if err != nil {
		return worker.Frame{}, err
	}
	for {
		limited, cancel := context.WithTimeout(ctx, r.timeout)
		answer, err := pool.Call(limited, f)
		cancel()
		var late *worker.DeadlineError
		if !errors.As(err, &late) || late.Started || ctx.Err() != nil {
			return answer, err
		}
	}
}
