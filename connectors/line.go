package connectors

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Line makes one call of the questions that wait for the same thing. The first is asked at once and alone; those that come
// while it is being answered are asked together after it. So nothing waits for company that may not come, and a hundred
// deals that wait together make a few calls. It is safe for concurrent use.
type Line[Q, A any] struct {
	// Most is how many questions go into one call.
	Most int
	// Together makes the call and returns an answer for each question, in their order. What befalls one question is an
	// error of its answer only. ctx ends when nobody waits for an answer any more.
	Together func(ctx context.Context, group string, asked []Q) []Answer[A]
	// Gather, if there is one, is waited for before a first question is asked: it returns once those have had their time
	// that are known to be about to ask, which must not be long.
	Gather func()

	mu     sync.Mutex
	groups map[string]*group[Q, A]
}

// Answer is what one question of a call has got.
type Answer[A any] struct {
	Value A
	Err   error
}

const (
	// patience is how long a call keeps those behind it waiting: one that hangs must not hold up a tenant.
	patience = time.Second
	// straggle is how long a call waits for more questions after one that had several: those whose answers have just
	// come are about to ask again.
	straggle = 4 * time.Millisecond
)

// group are the questions that can be asked in one call.
type group[Q, A any] struct {
	waiting []*question[Q, A]
}

type question[Q, A any] struct {
	ctx      context.Context
	asked    Q
	answered chan struct{}
	answer   Answer[A]
	panicked any
	alone    bool // in its call
}

// Ask waits for the answer to q, or for the end of ctx. Only questions of the same group are asked together.
func (l *Line[Q, A]) Ask(ctx context.Context, of string, q Q) (A, error) {
	w := &question[Q, A]{ctx: ctx, asked: q, answered: make(chan struct{})}
	if l.join(of, w) {
		go l.serve(of)
	}
	select {
	case <-w.answered:
	case <-ctx.Done():
		if none, left := l.leave(of, w); left {
			return none, &NotAskedError{ctx.Err()}
		}
		if w.alone { // its call ends with ctx, and says how it ended
			<-w.answered
			break
		}
		var none A
		return none, ctx.Err()
	}
	if w.panicked != nil {
		panic(w.panicked)
	}
	return w.answer.Value, w.answer.Err
}

// join puts a question into its group and reports whether somebody has to serve that.
func (l *Line[Q, A]) join(of string, w *question[Q, A]) (serve bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[of]
	if serve = g == nil; serve {
		if l.groups == nil {
			l.groups = map[string]*group[Q, A]{}
		}
		g = &group[Q, A]{}
		l.groups[of] = g
	}
	g.waiting = append(g.waiting, w)
	return serve
}

// leave takes a question back that no call has taken yet.
func (l *Line[Q, A]) leave(of string, w *question[Q, A]) (none A, left bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.groups[of]; g != nil {
		if i := slices.Index(g.waiting, w); i >= 0 {
			g.waiting = slices.Delete(g.waiting, i, i+1)
			return none, true
		}
	}
	return none, false
}

// NotAskedError says that a question was not asked in time: nothing can have come of it.
type NotAskedError struct{ cause error }

func (e *NotAskedError) Error() string { return "it was not reached in time: " + e.cause.Error() }
func (e *NotAskedError) Unwrap() error { return e.cause }

// next takes the questions of the next call; a group without any ends.
func (l *Line[Q, A]) next(of string) []*question[Q, A] {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[of]
	n := min(len(g.waiting), max(l.Most, 1))
	if n == 0 {
		delete(l.groups, of)
		return nil
	}
	batch := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	batch[0].alone = n == 1
	return batch
}

// serve makes one call after the other until nobody waits.
func (l *Line[Q, A]) serve(of string) {
	if l.Gather != nil {
		l.Gather()
	}
	for batch := l.next(of); batch != nil; batch = l.next(of) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.call(of, batch)
		}()
		impatient := time.NewTimer(patience)
		select {
		case <-done:
		case <-impatient.C:
		}
		impatient.Stop()
		if len(batch) > 1 {
			time.Sleep(straggle)
		}
	}
}

// call asks a batch and gives the answers out. A panic is that of those who ask: nobody could recover it here.
func (l *Line[Q, A]) call(of string, batch []*question[Q, A]) {
	ctx, left := together(batch)
	defer left()
	asked := make([]Q, len(batch))
	for i, w := range batch {
		asked[i] = w.asked
	}
	defer func() {
		value := recover()
		if value != nil {
			value = fmt.Sprintf("%v\n\n%s", value, debug.Stack())
		}
		for _, w := range batch {
			w.panicked = value
			close(w.answered)
		}
	}()
	answers := l.Together(ctx, of, asked)
	for i, w := range batch {
		w.answer = answers[i]
	}
}

// together returns a context that ends when those of all questions have ended. What it carries is the first one's.
func together[Q, A any](batch []*question[Q, A]) (context.Context, context.CancelFunc) {
	if len(batch) == 1 {
		return context.WithCancel(batch[0].ctx)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(batch[0].ctx))
	var mu sync.Mutex
	waiting := len(batch)
	var stops []func() bool
	for _, w := range batch {
		stops = append(stops, context.AfterFunc(w.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if waiting--; waiting == 0 {
				cancel()
			}
		}))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
