package engine

import (
	"context"
	"reflect"
	"sync"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Holds that are the fault of the configuration or of a certificate, not the deal's. Whoever mends that can release them
// all.
const (
	HoldUnconfigured = "unconfigured" // the deal's tenant has no file
	HoldAccount      = "account"      // its tenant is connected to another account
	HoldRevoked      = "revoked"      // the certificate that seals it was revoked
)

// HoldSpent is the hold of deals whose key has reached a limit of its own. It is judged anew whenever they are released.
const HoldSpent = "spent"

// SetTenants puts other tenants in the place of those that the engine has, all at once, before Run or while it runs.
//
// A tenant that equals the one it replaces (the same CRM instance, the same rules) keeps its poller and what is known of
// its account. One that differs is asked anew who it is, and its rules are activated, before it is polled again; what was
// noticed keeps the plan that it was noticed with. Steps under way end with the connector that they began with, the next
// step takes the new one. Deals of a tenant that is gone hold at their next step; see HoldUnconfigured.
//
// The slice is the engine's from then on. SetTenants does not wait: a poll of a replaced tenant may still commit its page. Two pollers of one tenant never run at
// once.
func (e *Engine) SetTenants(all []Tenant) {
	e.observe(all)
	e.init()
	e.tenants.set(all)
}

// tenants are those that are configured now. The zero value has none.
type tenants struct {
	mu       sync.Mutex
	byID     map[deal.TenantID]*Tenant
	accounts map[*Tenant]deal.Account // of CRMs that proved to be the configured ones
	bells    map[deal.TenantID]*bell  // of those that were ever rung or polled: a push outlives a reload
	changed  chan struct{}            // closed by the next set
}

func (ts *tenants) set(all []Tenant) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	byID, accounts := map[deal.TenantID]*Tenant{}, map[*Tenant]deal.Account{}
	for i := range all {
		t := &all[i]
		old := ts.byID[t.ID]
		if old == nil || !t.equal(old) {
			byID[t.ID] = t
			continue
		}
		byID[t.ID] = old
		if account, known := ts.accounts[old]; known {
			accounts[old] = account
		}
	}
	if ts.changed != nil {
		close(ts.changed)
	}
	ts.byID, ts.accounts, ts.changed = byID, accounts, make(chan struct{})
}

// equal compares connectors by identity: one that was made anew may have another login.
func (t *Tenant) equal(o *Tenant) bool {
	return t.CRM == o.CRM && t.Name == o.Name && t.Production == o.Production && t.Poll == o.Poll && reflect.DeepEqual(t.Rules, o.Rules) && reflect.DeepEqual(t.Guard, o.Guard)
}

func (ts *tenants) get(id deal.TenantID) (*Tenant, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t, ok := ts.byID[id]
	return t, ok
}

// bell is that of a tenant's poller.
func (ts *tenants) bell(t *Tenant) *bell {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.bells == nil {
		ts.bells = map[deal.TenantID]*bell{}
	}
	if ts.bells[t.ID] == nil {
		ts.bells[t.ID] = newBell()
	}
	return ts.bells[t.ID]
}

// now returns the tenants, and what is closed when they are others.
func (ts *tenants) now() (all map[deal.TenantID]*Tenant, changed <-chan struct{}) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.byID, ts.changed // the map is replaced, never changed
}

func (ts *tenants) account(t *Tenant) (deal.Account, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	a, ok := ts.accounts[t]
	return a, ok
}

// prove remembers whom a tenant's CRM has shown itself to be, unless the tenant was replaced meanwhile.
func (ts *tenants) prove(t *Tenant, a deal.Account) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.byID[t.ID] == t {
		ts.accounts[t] = a
	}
}

// polling is a poller that runs, with what listens and what answers workflows beside it.
type polling struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// pollAll keeps one poller running for each tenant until ctx ends, and a listener where the CRM tells of changes.
func (e *Engine) pollAll(ctx context.Context) error {
	running := map[*Tenant]polling{}
	for ctx.Err() == nil {
		all, changed := e.tenants.now()
		for t, p := range running {
			if all[t.ID] != t {
				p.stop()
			}
		}
		for t, p := range running {
			if all[t.ID] != t {
				<-p.ended
				delete(running, t)
			}
		}
		for _, t := range all {
			if _, runs := running[t]; !runs {
				running[t] = e.startPolling(ctx, t)
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	for _, p := range running {
		p.stop()
		<-p.ended
	}
	return nil
}

func (e *Engine) startPolling(ctx context.Context, t *Tenant) polling {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	p := e.newPoller(t)
	var both sync.WaitGroup
	both.Go(func() { p.run(ctx) })
	both.Go(func() { p.compareChanged(ctx) })
	both.Go(func() { e.listenTo(ctx, t) })
	both.Go(func() { e.answerWorkflows(ctx, t) })
	go func() {
		both.Wait()
		close(ended)
	}()
	return polling{stop, ended}
}

// tenant returns the configured tenant of the sealing, once its CRM has proved to be the account that the deal was noticed
// in. A tenant that was removed holds its deals; it does not lose them.
func (e *Engine) tenant(ctx context.Context, s *deal.Sealing) (*Tenant, error) {
	t, ok := e.tenants.get(s.Tenant)
	if !ok {
		return nil, held(HoldUnconfigured, "tenant %q is no longer configured: put its file back and reload, and the deal goes on, or drop it", s.Tenant)
	}
	account, err := e.identify(ctx, t)
	if err != nil {
		return nil, err
	}
	if got := account.AccountID(); got != s.Account {
		return nil, held(HoldAccount, "tenant %q is now connected to %s, and this deal was noticed in %s: connect it to that account again and release the deal, or drop it", s.Tenant, got, s.Account)
	}
	return t, nil
}

// identify asks a tenant's CRM once who it is, and refuses to guess when that is not what is configured.
func (e *Engine) identify(ctx context.Context, t *Tenant) (deal.Account, error) {
	if known, ok := e.tenants.account(t); ok {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	account, err := t.CRM.Identity(ctx)
	if err != nil {
		return account, err
	}
	if err := CheckEnvironment(t.ID, t.Production, account); err != nil {
		return account, err
	}
	e.tenants.prove(t, account)
	return account, nil
}

// observe has the calls of the tenants' CRMs counted and told.
func (e *Engine) observe(all []Tenant) {
	for _, t := range all {
		o, ok := t.CRM.(connectors.Observable)
		if !ok {
			continue
		}
		o.Observe(func(c connectors.Call) {
			e.calls.add(t.ID, called{all: 1, failed: map[bool]int64{true: 1}[c.Failed()]})
			if e.Asked != nil {
				e.Asked(t.ID, c)
			}
		})
	}
}

// calls counts what was asked of the CRMs until a poll takes it down: a commit for each call would cost more than the call.
// What a process has counted since its last poll ends with it. The zero value is ready.
type calls struct {
	mu sync.Mutex
	of map[deal.TenantID]called
}

type called struct{ all, failed int64 }

func (c *calls) add(tenant deal.TenantID, n called) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[deal.TenantID]called{}
	}
	was := c.of[tenant]
	c.of[tenant] = called{was.all + n.all, was.failed + n.failed}
}

// take returns what was counted of a tenant, and begins anew.
func (c *calls) take(tenant deal.TenantID) called {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.of[tenant]
	delete(c.of, tenant)
	return n
}
