package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Activate returns since when entries count for a watch, that is for its rule, object, pipeline and stage in an account.
// The first call commits at, which comes from the CRM's clock or from the configuration; later calls return what was
// committed. So a rule whose stage is edited is activated anew, and w.Since is not looked at. An account and rule belong
// to one tenant for ever.
//
// If the tenant's cursor is ahead of a new activation, or of the time until which a watch was last read when its rule was
// taken out and is put back, it moves back to there in the same transaction: that costs calls and seals nothing twice.
func (s *Store) Activate(ctx context.Context, tenant deal.TenantID, account deal.AccountID, w deal.Watch, at time.Time) (since time.Time, err error) {
	if err := checkTenant(tenant); err != nil {
		return time.Time{}, err
	}
	if at.IsZero() {
		return time.Time{}, fmt.Errorf("activation of rule %q: no time given", w.Rule)
	}
	err = s.update(ctx, "commit/activate", func(t *txn) error {
		if err := errors.Join(t.checkOwner(tenant, account, w.Rule), t.checkDetection(account, w)); err != nil {
			return err
		}
		a, found, err := t.activation(account, w)
		if err != nil {
			return err
		}
		if !found {
			a.since = at.UTC().Truncate(time.Millisecond)
			a.watched = a.since
			if err := t.activate(tenant, account, w, a); err != nil {
				return err
			}
		}
		since = a.since
		return t.rewind(tenant, account, w, a.watched)
	})
	return since, err
}

// activation is since when a watch counts, and until when the history was read with it. seen is for watches without one: all
// records were seen since it was activated.
type activation struct {
	since, watched time.Time
	seen           bool
}

func (t *txn) activation(account deal.AccountID, w deal.Watch) (a activation, found bool, err error) {
	var since, watched int64
	found, err = t.get([]any{&since, &watched, &a.seen}, `SELECT since, watched, seen FROM activations
		WHERE account = $1 AND rule = $2 AND object = $3 AND pipeline = $4 AND stage = $5`, account, w.Rule, w.Object, w.Pipeline, w.Stage)
	a.since, a.watched = time.UnixMilli(since).UTC(), time.UnixMilli(watched).UTC()
	return a, found, err
}

func (t *txn) activate(tenant deal.TenantID, account deal.AccountID, w deal.Watch, a activation) error {
	if err := t.exec(`INSERT INTO activations (account, rule, object, pipeline, stage, tenant, since, watched, detect) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		account, w.Rule, w.Object, w.Pipeline, w.Stage, tenant, a.since.UnixMilli(), a.watched.UnixMilli(), detection(w)); err != nil {
		return err
	}
	if err := t.beginFirstRun(tenant, w.Rule); err != nil {
		return err
	}
	return t.auditWatch(tenant, account, w, "activated", "since", a.since)
}

func (t *txn) auditWatch(tenant deal.TenantID, account deal.AccountID, w deal.Watch, what, name string, at time.Time) error {
	return t.auditShared(tenant, "", deal.Entry{Who: "daemon", What: what, Detail: map[string]string{
		"account": string(account), "rule": w.Rule, "object": w.Object, "pipeline": w.Pipeline, "stage": w.Stage, name: at.Format(time.RFC3339Nano)}})
}

func (t *txn) checkOwner(tenant deal.TenantID, account deal.AccountID, rule string) error {
	var owner deal.TenantID
	found, err := t.get([]any{&owner}, `SELECT tenant FROM activations WHERE account = $1 AND rule = $2 LIMIT 1`, account, rule)
	if err == nil && found && owner != tenant {
		return fmt.Errorf("rule %q of account %s belongs to tenant %q, not to %q: the same account and rule id under two tenants would seal twice", rule, account, owner, tenant)
	}
	return err
}

// detection is how a watch finds its entries, as it is stored and told.
func detection(w deal.Watch) string {
	if w.Snapshot {
		return "snapshot"
	}
	return ""
}

// checkDetection refuses to find the entries of a rule in another way than before: what was sealed under one name would be
// found under another, and be sealed again.
func (t *txn) checkDetection(account deal.AccountID, w deal.Watch) error {
	var before string
	found, err := t.get([]any{&before}, `SELECT detect FROM activations WHERE account = $1 AND rule = $2 LIMIT 1`, account, w.Rule)
	if err != nil || !found || before == detection(w) {
		return err
	}
	was, is := "from the history", "from snapshots"
	if before != "" {
		was, is = is, was
	}
	return fmt.Errorf("rule %q has found its entries %s so far and would find them %s (detect): the same entry would be sealed once more under another name; give the rule another id, which begins anew, or set detect back", w.Rule, was, is)
}

// watch commits until when the history has been read with each watch of a page, and returns since when each counts, by
// rule.
func (t *txn) watch(n deal.Noticing) (since map[string]time.Time, err error) {
	since = map[string]time.Time{}
	for _, rule := range slices.Sorted(maps.Keys(n.Watches)) {
		w := n.Watches[rule]
		if err := t.checkOwner(n.Tenant, n.Account, rule); err != nil {
			return nil, err
		}
		a, found, err := t.activation(n.Account, w)
		if err != nil {
			return nil, err
		}
		if !found || w.Rule != rule {
			return nil, fmt.Errorf("rule %q was never activated for stage %q of %s", rule, w.Stage, w.Object)
		}
		since[rule] = a.since
		if err := t.exec(`UPDATE activations SET watched = max(watched, $6) WHERE account = $1 AND rule = $2 AND object = $3 AND pipeline = $4 AND stage = $5`,
			n.Account, w.Rule, w.Object, w.Pipeline, w.Stage, millis(n.Page.Next.Since)); err != nil {
			return nil, err
		}
	}
	return since, nil
}

// Cursor returns how far a tenant has read the account's history; the zero cursor when it never did.
func (s *Store) Cursor(ctx context.Context, tenant deal.TenantID, account deal.AccountID) (c deal.Cursor, err error) {
	err = s.view(ctx, func(t *txn) error {
		c, err = t.cursor(tenant, account)
		return err
	})
	return c, err
}

func (t *txn) cursor(tenant deal.TenantID, account deal.AccountID) (deal.Cursor, error) {
	var text string
	if _, err := t.get([]any{&text}, `SELECT cursor FROM cursors WHERE tenant = $1 AND account = $2`, tenant, account); err != nil {
		return deal.Cursor{}, err
	}
	return deal.ParseCursor(text)
}

func (t *txn) setCursor(tenant deal.TenantID, account deal.AccountID, c deal.Cursor) error {
	return t.exec(`INSERT INTO cursors (tenant, account, cursor, updated) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, account) DO UPDATE SET cursor = excluded.cursor, updated = excluded.updated`, tenant, account, c.String(), t.now.UnixMilli())
}

// rewind moves the cursor back to what a watch has not yet seen, never forward. Stored times have milliseconds: what a
// cursor has beyond them does not put it ahead, or every start would throw away its position inside a window.
func (t *txn) rewind(tenant deal.TenantID, account deal.AccountID, w deal.Watch, to time.Time) error {
	c, err := t.cursor(tenant, account)
	if err != nil || c.IsZero() || !to.Before(c.Since.Truncate(time.Millisecond)) {
		return err
	}
	if err := t.setCursor(tenant, account, c.Rewind(to)); err != nil {
		return err
	}
	return t.auditWatch(tenant, account, w, "rewound", "to", to)
}
