package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Filter narrows a List. Empty fields match everything.
type Filter struct {
	Tenant deal.TenantID
	Step   deal.Step
	// Condition leaves out what is done.
	Condition deal.Condition
	// Record is the CRM's ID of the record.
	Record string
	// Before is the Seq of the last summary of the previous page.
	Before int64
	// Limit is the size of a page, 100 when zero, at most 1000.
	Limit int
}

// Summary is one line of a List.
type Summary struct {
	Seq       int64 // grows with each sealing noticed
	Tx        deal.TxID
	Tenant    deal.TenantID
	Account   deal.AccountID
	Ref       deal.Ref
	RecordURL string // the CRM's own page of the record, once it was read
	Rule      string
	Step      deal.Step
	Condition deal.Condition
	Reason    string
	Attempts  int
	Next      time.Time
	At        time.Time
	Noticed   time.Time
	Updated   time.Time
}

// List returns sealings, newest first.
func (s *Store) List(ctx context.Context, f Filter) (list []Summary, err error) {
	query, args := f.query()
	err = s.view(ctx, func(t *txn) error {
		list, err = t.summaries(query, args...)
		return err
	})
	return list, err
}

// selectSummaries begins every query that summaries reads.
const selectSummaries = `SELECT seq, tx, tenant, account, object, record, rule, step, condition, reason, attempts, next, at, noticed, updated, facts FROM sealings`

func (t *txn) summaries(query string, args ...any) (list []Summary, err error) {
	err = t.each(func(r *sql.Rows) error {
		var m Summary
		var next, at, noticed, updated int64
		var facts []byte
		if err := r.Scan(&m.Seq, &m.Tx, &m.Tenant, &m.Account, &m.Ref.Object, &m.Ref.ID, &m.Rule, &m.Step, &m.Condition, &m.Reason, &m.Attempts, &next, &at, &noticed, &updated, &facts); err != nil {
			return err
		}
		m.Next, m.At, m.Noticed, m.Updated = fromMillis(next), fromMillis(at), fromMillis(noticed), fromMillis(updated)
		var known deal.Facts
		if err := json.Unmarshal(facts, &known); err != nil {
			return fmt.Errorf("%s: stored facts: %w", m.Tx, errDamaged)
		}
		m.RecordURL = known.RecordURL
		list = append(list, m)
		return nil
	}, query, args...)
	return list, err
}

func (f Filter) query() (string, []any) {
	var args []any
	var where []string
	add := func(clause string, value any) {
		args = append(args, value)
		where = append(where, fmt.Sprintf("%s $%d", clause, len(args)))
	}
	if f.Tenant != "" {
		add("tenant =", f.Tenant)
	}
	if f.Step != "" {
		add("step =", f.Step)
	}
	if f.Condition != "" {
		add("state =", f.Condition)
	}
	if f.Record != "" {
		add("record =", f.Record)
	}
	if f.Before > 0 {
		add("seq <", f.Before)
	}
	query := selectSummaries
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	return fmt.Sprintf("%s ORDER BY seq DESC LIMIT %d", query, min(limit, 1000)), args
}

// Count is how many sealings of a tenant are in a state.
type Count struct {
	Tenant    deal.TenantID
	Step      deal.Step
	Condition deal.Condition
	N         int64
	// Oldest is when the one that has not moved for the longest time last did.
	Oldest time.Time
}

// oldestQuery is one look into an index per state.
const oldestQuery = `SELECT min(updated) FROM sealings WHERE tenant = $1 AND step = $2 AND condition = $3`

// Counts returns the number of sealings in each state that has any.
func (s *Store) Counts(ctx context.Context) (counts []Count, err error) {
	err = s.view(ctx, func(t *txn) error {
		err := t.each(func(r *sql.Rows) error {
			var c Count
			err := r.Scan(&c.Tenant, &c.Step, &c.Condition, &c.N)
			counts = append(counts, c)
			return err
		}, `SELECT tenant, step, condition, n FROM counts WHERE n > 0 ORDER BY tenant, step, condition`)
		if err != nil {
			return err
		}
		for i, c := range counts {
			var oldest int64
			if _, err := t.get([]any{&oldest}, oldestQuery, c.Tenant, c.Step, c.Condition); err != nil {
				return err
			}
			counts[i].Oldest = fromMillis(oldest)
		}
		return nil
	})
	return counts, err
}

// SetPoll keeps how the last poll of a tenant went, and counts the calls of its CRM.
func (s *Store) SetPoll(ctx context.Context, p deal.PollState) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("poll of tenant %s: %w", p.Tenant, err)
	}
	return s.update(ctx, "commit/poll", func(t *txn) error {
		if err := t.tallyCalls(p); err != nil {
			return err
		}
		if now := s.kept.Load(); now != nil && !slices.Contains(*now, p.Tenant) {
			return nil
		}
		if err := t.loginChanged(p); err != nil {
			return err
		}
		return t.exec(`INSERT INTO polls (tenant, state) VALUES ($1, $2) ON CONFLICT (tenant) DO UPDATE SET state = excluded.state`, p.Tenant, string(text))
	})
}

// Polls returns the last poll of each tenant, in the order of their ids.
func (s *Store) Polls(ctx context.Context) (polls []deal.PollState, err error) {
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var text []byte
			if err := r.Scan(&text); err != nil {
				return err
			}
			var p deal.PollState
			if err := json.Unmarshal(text, &p); err != nil {
				return fmt.Errorf("stored poll is damaged: %w", err)
			}
			polls = append(polls, p)
			return nil
		}, `SELECT state FROM polls ORDER BY tenant`)
	})
	return polls, err
}
