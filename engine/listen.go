package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Attempts to be heard by a CRM again are at most so far apart. Polling goes on meanwhile.
const (
	firstListenPause = time.Second
	mostListenPause  = 10 * time.Minute
)

// listener has a tenant's CRM tell of changes and wakes the poller beside it. What it does not hear, polls find.
type listener struct {
	*Engine
	tenant *Tenant
	waker  connectors.Waker
	fails  int
	last   string // error that was logged
}

// listenTo listens for as long as ctx lasts, where there is something to listen to.
func (e *Engine) listenTo(ctx context.Context, t *Tenant) {
	waker, ok := t.CRM.(connectors.Waker)
	if !ok || !waker.Wakes() {
		return
	}
	l := &listener{Engine: e, tenant: t, waker: waker}
	ctx = logged(ctx, slog.String("tenant", string(t.ID)))
	e.hearing.begin(t.ID, e.Now())
	defer e.hearing.end(t.ID)
	for ctx.Err() == nil {
		err := l.once(ctx)
		if ctx.Err() != nil {
			return
		}
		l.note(ctx, err)
		select {
		case <-ctx.Done():
		case <-time.After(l.pause(err)):
		}
	}
}

// once listens until the connection ends. Only to the account that is configured is listened.
func (l *listener) once(ctx context.Context) error {
	account, err := l.identify(ctx, l.tenant)
	if err != nil {
		return err
	}
	var over atomic.Bool // what is said afterwards is not of the connection any more
	defer over.Store(true)
	return l.waker.Wake(ctx, account, connectors.Listener{
		Connected: func() { l.connected(ctx, &over) },
		Heard: func(ctx context.Context, h deal.Heard) error {
			l.fails = 0
			return l.heard(ctx, account, h)
		},
		Lost: l.lost,
	})
}

func (l *listener) connected(ctx context.Context, over *atomic.Bool) {
	if l.hearing.change(l.tenant.ID, func(s *deal.Listening) bool {
		was := s.Connected || over.Load()
		if !was {
			*s = deal.Listening{Connected: true, Since: l.Now(), At: s.At, Event: s.Event, N: s.N, Lag: s.Lag}
		}
		return !was
	}) {
		l.Log.InfoContext(ctx, "the CRM tells of changes")
	}
}

// heard keeps what was told, as any push, and wakes the poller.
func (l *listener) heard(ctx context.Context, account deal.Account, h deal.Heard) error {
	var wake []deal.Ref
	if len(h.Events) > 0 {
		a := deal.Arrival{Tenant: l.tenant.ID, Source: string(account.Kind) + "-events", Events: h.Events}
		var err error
		if wake, err = l.keep(ctx, a); err != nil {
			return err
		}
	}
	now := l.Now()
	l.hearing.change(l.tenant.ID, func(s *deal.Listening) bool {
		s.At = now
		if h.N > 0 {
			s.Event, s.N = now, s.N+int64(h.N)
		}
		if !h.At.IsZero() {
			s.Lag = max(now.Sub(h.At), 0)
		}
		return true
	})
	bell := l.tenants.bell(l.tenant)
	if len(wake) > 0 {
		bell.ring(wake)
	}
	if h.All {
		bell.ringAll()
	}
	return nil
}

func (l *listener) keep(ctx context.Context, a deal.Arrival) (wake []deal.Ref, err error) {
	if l.Inbox != nil {
		wake, _, err = l.Inbox.Receive(ctx, a)
		return wake, err
	}
	for _, e := range a.Events {
		wake = append(wake, e.Ref)
	}
	return wake, nil
}

// lost has everything looked at, and whoever compares the CRM with the ledger do so.
func (l *listener) lost() {
	l.tenants.bell(l.tenant).ringAll()
	if l.Lost != nil {
		l.Lost(l.tenant.ID)
	}
}

// note remembers why it is not connected. The same error is logged once.
func (l *listener) note(ctx context.Context, err error) {
	if err == nil {
		err = errors.New("the CRM has ended the connection")
	}
	now := l.Now()
	lasted := false
	l.hearing.change(l.tenant.ID, func(s *deal.Listening) bool {
		if lasted = s.Connected; lasted || s.Err == "" {
			s.Since = now
		}
		s.Connected, s.Err, s.Refused = false, err.Error(), connectors.IsLogin(err)
		return true
	})
	if lasted {
		l.fails, l.last = 0, ""
	}
	l.fails++
	if text := err.Error(); text != l.last && l.fails > 1 || deal.IsPermanent(err) && text != l.last {
		l.last = text
		l.Log.WarnContext(ctx, "the CRM is not heard: polling finds what happens", "err", err, "permanent", deal.IsPermanent(err))
	} else {
		l.Log.DebugContext(ctx, "the connection over which the CRM tells of changes has ended", "err", err)
	}
}

// pause doubles with each failure, with 20 % jitter: those whose connections end together do not come back together.
func (l *listener) pause(err error) time.Duration {
	d := min(firstListenPause<<min(l.fails-1, 12), mostListenPause)
	if deal.IsPermanent(err) {
		d = mostListenPause
	}
	d = max(d, deal.RetryAfter(err))
	return d + time.Duration(l.random(int64(d)/5+1))
}

// Listening is how listening to a tenant's CRM goes, if it is listened to.
func (e *Engine) Listening(tenant deal.TenantID) (deal.Listening, bool) { return e.hearing.of(tenant) }

// hearing is how listening goes, by tenant. The zero value is ready.
type hearing struct {
	mu  sync.Mutex
	now map[deal.TenantID]deal.Listening
}

func (h *hearing) begin(tenant deal.TenantID, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil {
		h.now = map[deal.TenantID]deal.Listening{}
	}
	h.now[tenant] = deal.Listening{Since: at}
}

func (h *hearing) end(tenant deal.TenantID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.now, tenant)
}

// change returns what do says.
func (h *hearing) change(tenant deal.TenantID, do func(*deal.Listening) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.now[tenant]
	if !ok {
		return false // it has ended meanwhile
	}
	changed := do(&s)
	h.now[tenant] = s
	return changed
}

func (h *hearing) of(tenant deal.TenantID) (deal.Listening, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.now[tenant]
	return s, ok
}
