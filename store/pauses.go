package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/notify"
)

// PauseError means that a tenant is paused, where it must not be, or is not. Trying again cannot help.
type PauseError struct{ Reason string }

func (e *PauseError) Error() string { return e.Reason }

// Permanent is always true.
func (e *PauseError) Permanent() bool { return true }

// Pause has a tenant wait: no job of it begins, and no digest of it goes to a key, from the moment that this returns. What is at
// a key already ends. Who and why go into the audit log; webhooks and people are told.
func (s *Store) Pause(ctx context.Context, tenant deal.TenantID, who, why string) error {
	if err := checkTenant(tenant); err != nil {
		return err
	}
	return s.turn(ctx, announcement{kind: "tenant.paused", tenant: tenant}, "paused", who, why, func(t *txn) (bool, error) {
		return t.execOne(`INSERT INTO pauses (tenant, since, who, why) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, tenant, t.now.UnixMilli(), who, why)
	})
}

// Resume has a tenant go on.
func (s *Store) Resume(ctx context.Context, tenant deal.TenantID, who, why string) error {
	return s.turn(ctx, announcement{kind: "tenant.resumed", tenant: tenant}, "going on", who, why, func(t *txn) (changed bool, err error) {
		if changed, err = t.execOne(`DELETE FROM pauses WHERE tenant = $1`, tenant); err == nil && changed {
			err = t.calm(notify.Pause, tenant, "")
		}
		return changed, err
	})
}

// turn changes whether a tenant is paused, and has the queue follow. is what it is afterwards.
func (s *Store) turn(ctx context.Context, a announcement, is, who, why string, do func(*txn) (changed bool, err error)) error {
	if who == "" || why == "" {
		return errors.New("say who and why: both go into the audit log")
	}
	err := s.update(ctx, "commit/operate", func(t *txn) error {
		changed, err := do(t)
		if err == nil && !changed {
			err = &PauseError{fmt.Sprintf("tenant %s is already %s", a.tenant, is)}
		}
		if err != nil {
			return err
		}
		a.data = map[string]string{"reason": beginning(why)}
		if err := t.announce(a); err != nil {
			return err
		}
		return t.auditShared(a.tenant, "", deal.Entry{Who: who, What: a.kind, Why: why})
	})
	if err == nil {
		s.refit.strike()
	}
	return err
}

// longestReason is how much of a reason an event has, in characters, as the page takes at most: one of a command may be longer
// than what a webhook can be sent.
const longestReason = 500

func beginning(why string) string {
	r := []rune(why)
	return string(r[:min(len(r), longestReason)])
}

// nudge has room for one.
type nudge chan struct{}

func (c nudge) strike() {
	select {
	case c <- struct{}{}:
	default: // whoever listens has not seen the last one yet, and will see this
	}
}

// Pauses returns the tenants that are paused.
func (s *Store) Pauses(ctx context.Context) (all []deal.Pause, err error) {
	all = []deal.Pause{} // JSON: an empty list, not null
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var p deal.Pause
			var since int64
			err := r.Scan(&p.Tenant, &since, &p.Who, &p.Why)
			p.Since = fromMillis(since)
			all = append(all, p)
			return err
		}, `SELECT tenant, since, who, why FROM pauses ORDER BY tenant`)
	})
	return all, err
}

// IsPaused reports whether a tenant is.
func (s *Store) IsPaused(ctx context.Context, tenant deal.TenantID) (paused bool, err error) {
	err = s.view(ctx, func(t *txn) error {
		paused, err = t.paused(tenant)
		return err
	})
	return paused, err
}

func (t *txn) paused(tenant deal.TenantID) (paused bool, err error) {
	_, err = t.get([]any{&paused}, `SELECT count(*) > 0 FROM pauses WHERE tenant = $1`, tenant)
	return paused, err
}
