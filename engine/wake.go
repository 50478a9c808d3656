package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// A push wakes the poller of its tenant with a record and does nothing else: what is noticed, and as which transaction, is
// read from the CRM. So a push that is lost costs at most one poll interval, one that comes twice or too early costs a
// call, and one that lies finds nothing.
const (
	// wakePause is the least time between two readings that pushes have asked for. Those that arrive meanwhile share the
	// next one, so that a storm makes no more than two readings a second.
	wakePause = 500 * time.Millisecond
	// mostWoken bounds the records that wait for a reading. With more, a poll comes at once and the rest is left to it.
	mostWoken = 1000
	// wokenAtOnce is how many records one reading takes.
	wokenAtOnce = 100
)

// Wake has the poller of a tenant look at records soon, instead of at its next poll. It does not wait, and is safe for
// concurrent use. It returns false when there is no such tenant. While the CRM fails, or most of its allowance is used,
// the records wait for the next poll.
func (e *Engine) Wake(tenant deal.TenantID, refs ...deal.Ref) bool {
	e.init()
	t, ok := e.tenants.get(tenant)
	if !ok {
		return false
	}
	e.tenants.bell(t).ring(refs)
	return true
}

// Account is whom a tenant's CRM has shown itself to be, if it has.
func (e *Engine) Account(tenant deal.TenantID) (deal.Account, bool) {
	e.init()
	t, ok := e.tenants.get(tenant)
	if !ok {
		return deal.Account{}, false
	}
	return e.tenants.account(t)
}

// bell is rung by pushes and heard by one poller.
type bell struct {
	rung chan struct{} // holds a value while there is something to look at
	// called holds a value once a workflow has something to wait for.
	called chan struct{}

	mu   sync.Mutex
	refs []deal.Ref
	// full: more records were named than wait here.
	full bool
}

func newBell() *bell { return &bell{rung: make(chan struct{}, 1), called: make(chan struct{}, 1)} }

func (b *bell) ring(refs []deal.Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ref := range refs {
		switch {
		case slices.Contains(b.refs, ref):
		case len(b.refs) == mostWoken:
			b.full = true
		default:
			b.refs = append(b.refs, ref)
		}
	}
	b.strike()
}

// ringAll has everything looked at.
func (b *bell) ringAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = true
	b.strike()
}

func (b *bell) strike() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

// take returns the records to look at now, and whether a poll should come at once. What is left rings again.
func (b *bell) take() (refs []deal.Ref, full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.rung:
	default:
	}
	n := min(len(b.refs), wokenAtOnce)
	refs, b.refs = slices.Clone(b.refs[:n]), slices.Delete(b.refs, 0, n)
	if len(b.refs) > 0 {
		b.strike()
	}
	full, b.full = b.full, false
	return refs, full
}

// silence forgets what was named: a poll that begins now finds it.
func (b *bell) silence() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refs, b.full = nil, false
	select {
	case <-b.rung:
	default:
	}
}

// rest waits until the next poll is due, and serves pushes meanwhile.
func (p *poller) rest(ctx context.Context, d time.Duration) {
	due := time.NewTimer(d)
	defer due.Stop()
	for {
		rung := p.bell.rung
		failed := p.state.Err != "" && p.state.At.Before(p.asked) // and not only for an object that is refused
		if p.fails > 0 || p.watches == nil || failed || p.budget().Share() >= SlowAt {
			rung = nil // the pause that the CRM needs is not for pushes to shorten
		}
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-rung:
		}
		if left := p.asked.Add(wakePause).Sub(p.Now()); left > 0 && left <= wakePause {
			select {
			case <-ctx.Done():
				return
			case <-due.C:
				p.bell.strike() // what it was rung for is still to be looked at
				return
			case <-time.After(left):
			}
		}
		direct, ok := p.tenant.CRM.(connectors.Direct)
		if !ok {
			return // a poll is how this connector looks
		}
		full, err := p.look(ctx, direct)
		if err != nil {
			p.note(ctx, err)
			p.rest(ctx, p.wait(err)) // with an error it serves no pushes
			return
		}
		if full {
			return
		}
	}
}

// look notices what the histories of the records tell that pushes have named. The cursor stays: the next poll reads what it
// would have read, and finds the records too whose reading failed. full means that more were named than are remembered.
func (p *poller) look(ctx context.Context, direct connectors.Direct) (full bool, err error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	refs, full := p.bell.take()
	if len(refs) == 0 {
		return full, nil
	}
	if err := p.mayNotice(); err != nil {
		return full, err
	}
	p.asked = p.Now()
	page, err := direct.EntriesOf(ctx, refs, p.watches)
	if err != nil {
		return full, err
	}
	if page.Next, err = p.Ledger.Cursor(ctx, p.tenant.ID, p.account.AccountID()); err != nil {
		return full, err
	}
	fresh, err := p.take(whole, page, page.Next, false)
	if errors.Is(err, deal.ErrStale) {
		return true, nil // a rule was activated meanwhile and moved the cursor: a poll sorts it out
	}
	p.Log.DebugContext(ctx, "looked at what pushes have named", "records", len(refs), "fresh", fresh)
	if err != nil {
		return full, err
	}
	return full, p.lookedAt(whole, refs, page)
}
