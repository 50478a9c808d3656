package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// A login or a key that fails is mended once, for all deals that wait for it. They wait for long, so that nothing is asked
// again and again in vain; so whoever sees that it works again wakes them.

// causeOf names what a deal waits for, "" if that is nothing that a person mends once for all.
func (r *run) causeOf(err error) string {
	if connectors.IsLogin(err) {
		return deal.WaitsForLogin
	}
	profile, broken := profileOf(r.s.Plan)
	if broken != nil || !mendedForAll(err) {
		return ""
	}
	var second *secondKeyError
	if errors.As(err, &second) {
		return deal.WaitsForSecondKey(profile.Key)
	}
	return deal.WaitsForKey(profile.Key)
}

// secondKeyError is that the key for a second seal has to be mended, which may be another one than the first seal's.
type secondKeyError struct{ error }

func (e *secondKeyError) Unwrap() error { return e.error }

// Mended says that a tenant's login, or a key of the house (then tenant is empty), works: deals that wait for exactly that
// go on. It costs nothing while none has begun to wait since it was last said.
func (e *Engine) Mended(ctx context.Context, tenant deal.TenantID, cause string) {
	if !e.mended.note(tenant, cause) {
		return
	}
	n, err := e.Ledger.Wake(ctx, tenant, cause)
	if err != nil {
		e.mended.spoil(tenant, cause)
		e.Log.ErrorContext(ctx, "deals that wait for something that works again could not be woken: it is tried again", "cause", cause, "err", err)
	}
	if n > 0 {
		e.Log.InfoContext(ctx, "what deals have waited for works again: they go on", "cause", cause, "deals", n)
	}
}

// mended remembers what works with nobody waiting for it. The zero value knows of nothing: an earlier process may have left
// deals that wait.
type mended struct {
	mu    sync.Mutex
	works map[waitsFor]bool
}

type waitsFor struct {
	tenant deal.TenantID
	cause  string
}

// of drops the tenant from causes that all tenants share.
func of(tenant deal.TenantID, cause string) waitsFor {
	if cause != deal.WaitsForLogin {
		tenant = ""
	}
	return waitsFor{tenant, cause}
}

// note reports whether somebody may be waiting.
func (m *mended) note(tenant deal.TenantID, cause string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.works == nil {
		m.works = map[waitsFor]bool{}
	}
	if m.works[of(tenant, cause)] {
		return false
	}
	m.works[of(tenant, cause)] = true
	return true
}

// spoil is called once it is committed that somebody waits.
func (m *mended) spoil(tenant deal.TenantID, cause string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.works, of(tenant, cause))
}
