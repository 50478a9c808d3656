package store

import (
	"context"

	"github.com/dealseal/dealseal/deal"
)

// Memory is what a tenant's connector keeps over restarts, encrypted under the tenant's key. Safe for concurrent use.
type Memory struct {
	s      *Store
	tenant deal.TenantID
}

// Memory returns the memory of a tenant.
func (s *Store) Memory(tenant deal.TenantID) *Memory { return &Memory{s: s, tenant: tenant} }

// Get returns the value and its version; a key that was never put has a nil value and version 0.
func (m *Memory) Get(ctx context.Context, key string) (value []byte, version int64, err error) {
	err = m.s.view(ctx, func(t *txn) error {
		var boxed []byte
		found, err := t.get([]any{&boxed, &version}, `SELECT value, version FROM memory WHERE tenant = $1 AND key = $2`, m.tenant, key)
		if err != nil || !found {
			return err
		}
		value, err = unbox(m.s.master.memory(m.tenant), "memory/"+key, boxed)
		return err
	})
	return value, version, err
}

// Put stores the value durably if the version is still the one that Get returned; otherwise deal.ErrStale.
func (m *Memory) Put(ctx context.Context, key string, value []byte, version int64) error {
	return m.s.update(ctx, "commit/memory", func(t *txn) error {
		boxed := box(m.s.master.memory(m.tenant), "memory/"+key, value)
		stored, err := t.execOne(`UPDATE memory SET value = $4, version = version + 1 WHERE tenant = $1 AND key = $2 AND version = $3`, m.tenant, key, version, boxed)
		if err == nil && !stored && version == 0 {
			stored, err = t.execOne(`INSERT INTO memory (tenant, key, value, version) VALUES ($1, $2, $3, 1) ON CONFLICT DO NOTHING`, m.tenant, key, boxed)
		}
		if err == nil && !stored {
			return stale("connector memory %q of tenant %q", key, m.tenant)
		}
		return err
	})
}
