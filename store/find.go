package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Query asks for a page of sealings, newest first. Empty fields match everything.
type Query struct {
	// Text is a transaction ID or at least its first six characters, else an ID of a record, else words of a name, all of
	// which must be in it. The first of these that matches anything is what is meant.
	Text string
	// Records are other forms of Text as an ID of a record.
	Records []string
	Tenant  deal.TenantID
	// Tenants are all that are to be found anything of, or taken for what Text means; nil: all there are.
	Tenants []deal.TenantID
	// State is "done" or the condition of a sealing that is not done.
	State string
	Rule  string
	// Day is any time on the day (UTC) on which the sealing was noticed.
	Day time.Time
	// Before is the Next of the page before.
	Before int64
	// Limit is the size of a page, 100 when zero, at most 1000.
	Limit int
}

// Found is a page of sealings.
type Found struct {
	Sealings []Summary
	// By says what Text was taken for: "transaction", "record", "name", or "" when there was none.
	By string
	// Next is where older ones are to be looked for, 0 when there are none. A page that is not full has one too when
	// much was looked through that does not match.
	Next int64
}

// The meanings of Query.Text.
const (
	byTransaction = "transaction"
	byRecord      = "record"
	byName        = "name"
)

// leastPrefix is how much of a transaction ID must be given.
const leastPrefix = 6

// window is how many sealings one page looks through, so that a page that finds little answers as fast as a full one. As a
// rule most of them match, and a page is full after a few times as many as it shows.
const (
	window    = 5_000
	firstLook = 4
)

// finder is a query on its way into SQL: a driver, which an index answers newest first, words that each of its sealings
// must have, which another index answers, and clauses that the rest is compared with.
type finder struct {
	*txn
	driver  string // "FROM ... WHERE ..." over a table with a column seq
	words   []int64
	clauses []string
	args    []any
	tenants []deal.TenantID // of the query
}

// Find returns a page of the sealings that match. What it costs does not depend on how many sealings there are.
func (s *Store) Find(ctx context.Context, q Query) (found Found, err error) {
	if q.Tenants != nil && len(q.Tenants) == 0 {
		return Found{}, nil
	}
	if len(q.Tenants) == 1 && q.Tenant == "" {
		q.Tenant = q.Tenants[0]
	}
	err = s.view(ctx, func(t *txn) error {
		f := &finder{txn: t, tenants: q.Tenants}
		if found.By, err = f.meaning(q); err != nil {
			return err
		}
		if err := f.filter(q); err != nil {
			return err
		}
		limit := min(q.Limit, 1000)
		if limit <= 0 {
			limit = 100
		}
		found.Sealings, found.Next, err = f.page(q.Before, limit)
		return err
	})
	return found, err
}

// arg adds a value and returns its place.
func (f *finder) arg(v any) string {
	f.args = append(f.args, v)
	return fmt.Sprintf("$%d", len(f.args))
}

// meaning takes the text for the first thing that exists, and makes it the driver.
func (f *finder) meaning(q Query) (by string, err error) {
	text := strings.TrimSpace(q.Text)
	if text == "" {
		return "", nil
	}
	if prefix := strings.ToLower(text); len(prefix) >= leastPrefix && strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz234567") == "" {
		f.driver = "FROM sealings WHERE tx >= " + f.arg(prefix) + " AND tx < " + f.arg(prefix+"~")
		if ok, err := f.any(); ok || err != nil {
			return byTransaction, err
		}
		f.args = nil
	}
	for _, id := range append([]string{text}, q.Records...) {
		f.driver = "FROM record_ids WHERE record = " + f.arg(id)
		if ok, err := f.any(); ok || err != nil {
			return byRecord, err
		}
		f.args = nil
	}
	asked := words(text)
	f.words = f.s.master.keyed(asked[:min(len(asked), maxAsked)])
	f.driver = ""
	if len(f.words) == 0 {
		f.driver = "FROM words WHERE word IS NULL" // of signs alone
	}
	return byName, nil
}

// any reports whether the driver gives something that may be found: whoever sees some tenants only learns nothing of the
// others from what a text is taken for.
func (f *finder) any() (bool, error) {
	var one int
	if f.tenants == nil {
		return f.get([]any{&one}, "SELECT 1 "+f.driver+" LIMIT 1", f.args...)
	}
	args := slices.Clone(f.args)
	query := "SELECT 1 FROM sealings WHERE seq IN (SELECT seq " + f.driver + ") AND " + f.ofTenants()
	ok, err := f.get([]any{&one}, query+" LIMIT 1", f.args...)
	f.args = args
	return ok, err
}

// ofTenants is a clause over the query's tenants, for which no index is taken.
func (f *finder) ofTenants() string {
	var places []string
	for _, id := range f.tenants {
		places = append(places, f.arg(id))
	}
	return "tenant || '' IN (" + strings.Join(places, ", ") + ")"
}

// driveByWord is driven by the rarest word.
func (f *finder) driveByWord() error {
	rarest, least := 0, int64(window+1)
	for i, w := range f.words {
		var n int64
		if _, err := f.get([]any{&n}, fmt.Sprintf(`SELECT count(*) FROM (SELECT 1 FROM words WHERE word = $1 LIMIT %d)`, window), w); err != nil {
			return err
		}
		if n < least {
			rarest, least = i, n
		}
	}
	f.driver = "FROM words WHERE word = " + f.arg(f.words[rarest])
	f.words = slices.Delete(f.words, rarest, rarest+1)
	return nil
}

// condition is a column that must have a value.
type condition struct {
	column string
	plain  string // the column, written so that no index is taken for it
	value  any
	given  bool
}

// filter adds the query's other conditions. Where the text is no driver, the one that is likely to match least is.
func (f *finder) filter(q Query) error {
	state := condition{"state", "state || ''", q.State, q.State != ""}
	day := condition{"day", "day + 0", q.Day.Unix() / (24 * 60 * 60), !q.Day.IsZero()}
	rule := condition{"rule", "rule || ''", q.Rule, q.Rule != ""}
	tenant := condition{"tenant", "tenant || ''", q.Tenant, q.Tenant != ""}
	switch {
	case f.driver != "":
	case state.given && q.State != "done":
		f.drive(&state, &tenant)
	case len(f.words) > 0:
		if err := f.driveByWord(); err != nil {
			return err
		}
	case day.given:
		f.drive(&day)
	case rule.given:
		f.drive(&rule)
	default:
		f.drive(&tenant, &state)
	}
	for _, c := range []condition{state, day, rule, tenant} {
		if c.given {
			f.clauses = append(f.clauses, c.plain+" = "+f.arg(c.value))
		}
	}
	if f.tenants != nil {
		f.clauses = append(f.clauses, f.ofTenants())
	}
	return nil
}

// drive takes the conditions that are given, for which there is an index together and alone; all sealings without any.
func (f *finder) drive(list ...*condition) {
	f.driver = "FROM sealings WHERE seq > 0"
	for _, c := range list {
		if c.given {
			f.driver += " AND " + c.column + " = " + f.arg(c.value)
			c.given = false
		}
	}
}

// page reads one sealing more than is asked for, to know whether there are more.
func (f *finder) page(before int64, limit int) (list []Summary, next int64, err error) {
	looks := []int{limit + 1}
	if f.looksThrough() {
		looks = []int{firstLook * limit, window}
	}
	for _, n := range looks {
		if list, err = f.summaries(f.query(before, limit+1, n), f.args...); err != nil {
			return nil, 0, err
		}
		if len(list) > limit {
			return list[:limit], list[limit-1].Seq, nil
		}
	}
	if !f.looksThrough() {
		return list, 0, nil
	}
	var n int64
	_, err = f.get([]any{&n, &next}, "SELECT count(*), coalesce(min(seq), 0) FROM ("+f.driven(before, window)+")", f.args...)
	if n < window {
		next = 0
	}
	return list, next, err
}

// looksThrough reports whether not all that the driver gives matches.
func (f *finder) looksThrough() bool { return len(f.clauses)+len(f.words) > 0 }

// query is the whole statement, which looks through n sealings. Only those that have all words are read from their own
// table, which is large.
func (f *finder) query(before int64, limit, n int) string {
	seqs := f.driven(before, n)
	if len(f.words) > 0 {
		seqs = "SELECT seq FROM (" + seqs + ") d WHERE " + strings.Join(f.haveWords(), " AND ")
	}
	where := append([]string{"seq IN (" + seqs + ")"}, f.clauses...)
	return fmt.Sprintf("%s WHERE %s ORDER BY seq DESC LIMIT %d", selectSummaries, strings.Join(where, " AND "), limit)
}

func (f *finder) haveWords() (all []string) {
	for _, w := range f.words {
		all = append(all, fmt.Sprintf("EXISTS (SELECT 1 FROM words w WHERE w.word = %d AND w.seq = d.seq)", w))
	}
	return all
}

// driven is the part of the driver that is looked through.
func (f *finder) driven(before int64, n int) string {
	bound := ""
	if before > 0 {
		bound = fmt.Sprintf(" AND seq < %d", before)
	}
	return fmt.Sprintf("SELECT seq %s%s ORDER BY seq DESC LIMIT %d", f.driver, bound, n)
}
