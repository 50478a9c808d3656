package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// AuditQuery narrows AuditLog. Empty fields match everything.
type AuditQuery struct {
	Tenant deal.TenantID `json:"tenant,omitempty"`
	// What is what the entries are called, such as token.created.
	What string `json:"what,omitempty"`
	// Since leaves out what is older.
	Since time.Time `json:"since,omitzero"`
	Limit int       `json:"limit"`
}

// AuditLine is an entry of the audit log that is about no deal.
type AuditLine struct {
	Index  int64             `json:"index"`
	At     time.Time         `json:"at"`
	Tenant deal.TenantID     `json:"tenant,omitempty"`
	What   string            `json:"what"`
	Who    string            `json:"who"`
	Why    string            `json:"why,omitempty"`
	Cert   string            `json:"certificate,omitempty"`
	Detail map[string]string `json:"detail,omitempty"`
}

// errEnough ends a listing before its end.
var errEnough = errors.New("enough")

// AuditLog returns entries of the audit log that are about no deal, the newest first: who let programs in, what these asked
// for, who changed certificates, endpoints and pauses, and what the daemon noted of itself. Story tells those of a deal. An
// entry that is not what the tree commits to is a *TamperedError.
func (s *Store) AuditLog(ctx context.Context, q AuditQuery) (list []AuditLine, err error) {
	list = []AuditLine{} // JSON: an empty list, not null
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			e, err := scanEntry(r)
			if err != nil {
				return err
			}
			at := fromMillis(e.leaf.At)
			switch {
			case len(list) >= q.Limit:
				return errEnough
			case at.Before(q.Since), // and not the end: a clock may have been set back
				q.Tenant != "" && e.leaf.Tenant != q.Tenant, q.What != "" && e.leaf.What != q.What:
				return nil
			}
			said, _, err := e.open(t.s.master, nil)
			list = append(list, AuditLine{e.n, at, e.leaf.Tenant, e.leaf.What, said.Who, said.Why, e.leaf.Cert, said.Detail})
			return err
		}, `SELECT n, tx, shared, leaf, private FROM audit WHERE tx = '' ORDER BY n DESC`)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, err
}
