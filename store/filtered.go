package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// leaveOut takes note of entries that their rule's filter has left out. From then on they are known.
func (t *txn) leaveOut(n deal.Noticing, since map[string]time.Time) error {
	for _, c := range n.Filtered {
		_, fresh, err := t.isFresh(n, c, since)
		if err != nil {
			return fmt.Errorf("leave out %s, entry %s: %w", c.Ref, c.Occurrence, err)
		}
		if !fresh {
			continue
		}
		tx := c.TxIDs(n.Account)[0]
		if err := t.exec(`INSERT INTO filtered (tx, tenant, account, object, record, rule, stage, at, noticed, filter) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			tx, n.Tenant, n.Account, c.Ref.Object, c.Ref.ID, c.Rule, c.Stage, millis(c.At), t.now.UnixMilli(), n.Plans[c.Rule].Filter); err != nil {
			return err
		}
		if err := t.auditShared(n.Tenant, tx, deal.Entry{Who: "daemon", What: "filtered", Why: "the record does not meet the rule's filter", Detail: map[string]string{"rule": c.Rule, "record": c.Ref.ID}}); err != nil {
			return err
		}
		if err := t.daily(n.Tenant, "filtered"); err != nil {
			return err
		}
	}
	return nil
}

// FilteredQuery limits a list of filtered entries; empty is any.
type FilteredQuery struct {
	Tenant deal.TenantID `json:"tenant,omitempty"`
	// Name is a transaction or a record's ID.
	Name  string `json:"name,omitempty"`
	Limit int    `json:"limit"`
}

// Filtered returns entries that filters have left out, the newest first.
func (s *Store) Filtered(ctx context.Context, q FilteredQuery) (list []deal.FilteredEntry, err error) {
	list = []deal.FilteredEntry{} // JSON: an empty list, not null
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var f deal.FilteredEntry
			var at, noticed int64
			err := r.Scan(&f.Tx, &f.Tenant, &f.Account, &f.Ref.Object, &f.Ref.ID, &f.Rule, &f.Stage, &at, &noticed, &f.Filter)
			f.At, f.Noticed = fromMillis(at), fromMillis(noticed)
			list = append(list, f)
			return err
		}, `SELECT tx, tenant, account, object, record, rule, stage, at, noticed, filter FROM filtered
			WHERE ($1 = '' OR tenant = $1) AND ($2 = '' OR tx = $2 OR record = $2) ORDER BY noticed DESC, tx LIMIT $3`, q.Tenant, q.Name, q.Limit)
	})
	return list, err
}

// isUnknown reports whether there is no sealing: the entry may be one that was filtered.
func isUnknown(err error) bool {
	var e *NotFoundError
	return errors.As(err, &e)
}
