package connectors

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// Call is one HTTP call to a CRM, as far as its reply's head.
type Call struct {
	// Endpoint says what kind of call it was; each connector has a short, fixed list. It names no record.
	Endpoint string
	// Status is that of the reply, 0 when there was none.
	Status int
	Took   time.Duration
}

// Results are what Call.Result returns.
var Results = []string{"ok", "limited", "refused", "failed", "unanswered"}

// Result sorts the status: ok, limited (429), refused (another 4xx), failed (anything else), or unanswered.
func (c Call) Result() string {
	switch {
	case c.Status == 0:
		return "unanswered"
	case c.Status >= 200 && c.Status <= 299:
		return "ok"
	case c.Status == http.StatusTooManyRequests:
		return "limited"
	case c.Status >= 400 && c.Status <= 499:
		return "refused"
	}
	return "failed"
}

// Failed reports whether the CRM did not do what it should, the opposite of what was promised of it: a refusal is an answer.
func (c Call) Failed() bool {
	switch c.Result() {
	case "limited", "failed", "unanswered":
		return true
	}
	return false
}

// Observable is the ability to tell of every call.
type Observable interface {
	// Observe has seen, and nobody else, called with each call that ends from now on. seen must not block.
	Observe(seen func(Call))
}

// Observer is a transport that tells of every call: to whoever observes, and at debug to Log. Neither learns the URL, a
// header or a body. It implements Observable and Retirer.
type Observer struct {
	Next     http.RoundTripper
	Endpoint func(*http.Request) string
	Log      *slog.Logger

	seen    atomic.Pointer[func(Call)]
	retired atomic.Bool
}

// Observe implements Observable.
func (o *Observer) Observe(seen func(Call)) { o.seen.Store(&seen) }

// Retirer is the ability to make room for a connector that takes the place of this one.
type Retirer interface {
	// Retire ends nothing that is under way, and calls can still be made: but no connection is kept open between them.
	Retire()
}

// Retire implements Retirer.
func (o *Observer) Retire() {
	o.retired.Store(true)
	o.closeIdle()
}

func (o *Observer) closeIdle() {
	if t, ok := o.Next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Tally counts calls. The zero value is ready, and safe for concurrent use.
type Tally struct{ n atomic.Int64 }

// Calls is how many were made.
func (t *Tally) Calls() int { return int(t.n.Load()) }

type tallyKey struct{}

// WithTally returns a context whose calls t counts. A call that several ask for is counted for one of them.
func WithTally(ctx context.Context, t *Tally) context.Context {
	return context.WithValue(ctx, tallyKey{}, t)
}

// RoundTrip implements http.RoundTripper.
func (o *Observer) RoundTrip(req *http.Request) (*http.Response, error) {
	if t, ok := req.Context().Value(tallyKey{}).(*Tally); ok {
		t.n.Add(1)
	}
	if o.retired.Load() {
		defer o.closeIdle()
		req = req.Clone(req.Context())
		req.Close = true
	}
	start := time.Now()
	resp, err := o.Next.RoundTrip(req)
	c := Call{Endpoint: o.Endpoint(req), Took: time.Since(start)}
	if err == nil {
		c.Status = resp.StatusCode
	}
	if seen := o.seen.Load(); seen != nil {
		(*seen)(c)
	}
	o.tell(req.Context(), c)
	return resp, err
}

func (o *Observer) tell(ctx context.Context, c Call) {
	o.Log.DebugContext(ctx, "CRM asked", "endpoint", c.Endpoint, "result", c.Result(), "status", c.Status, "took", c.Took.Round(time.Microsecond))
}
