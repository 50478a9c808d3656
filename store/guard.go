package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/notify"
)

// arrival is an entry that the ledger did not know, on its way in. An empty cause lets it through.
type arrival struct {
	change deal.Change
	cause  string
	scope  deal.GuardScope // what is held with it
	// who has asked for it, and what is kept of the request; empty and nil for an entry of the CRM's.
	who     string
	request func(tx deal.TxID, key *dataKey) error
}

// guardPage judges the entries that are new with a page and commits what the guard then knows. It is part of the
// transaction that takes them in: neither a crash nor another page can slip between counting and holding.
func (t *txn) guardPage(n deal.Noticing, fresh []deal.Change) ([]arrival, error) {
	arrivals := make([]arrival, len(fresh))
	for i, c := range fresh {
		arrivals[i].change = c
	}
	if !slices.ContainsFunc(fresh, func(c deal.Change) bool { return n.Guard.Watches(c.Rule) }) {
		return arrivals, nil
	}
	states, err := t.guardStates(n.Tenant, fresh)
	if err != nil {
		return nil, err
	}
	counts, err := t.guardCounts(n, fresh)
	if err != nil {
		return nil, err
	}
	before, knew := maps.Clone(counts), maps.Clone(states)
	for i, cause := range n.Guard.Judge(fresh, counts, states) {
		a := &arrivals[i]
		a.cause, a.scope = cause, deal.GuardScope{Tenant: n.Tenant, Rule: a.change.Rule}
		if cause != "" && cause == states[""].Cause {
			a.scope.Rule = ""
		}
	}
	if err := t.countGuard(n.Tenant, before, counts); err != nil {
		return nil, err
	}
	return arrivals, t.setGuards(n.Tenant, knew, states)
}

// guardStates reads what is known of the rules of the entries and of the tenant.
func (t *txn) guardStates(tenant deal.TenantID, fresh []deal.Change) (map[string]deal.GuardState, error) {
	states := map[string]deal.GuardState{}
	err := t.each(func(r *sql.Rows) error {
		var rule string
		var s deal.GuardState
		err := r.Scan(&rule, &s.Cause, &s.First, &s.Seen)
		states[rule] = s
		return err
	}, `SELECT rule, cause, first, seen FROM guards WHERE tenant = $1`, tenant)
	if err != nil {
		return nil, err
	}
	for rule, oldest := range oldestByRule(fresh) {
		s := states[rule]
		if s.Usual, err = t.usualDay(tenant, rule, oldest); err != nil {
			return nil, err
		}
		states[rule] = s
	}
	return states, nil
}

func oldestByRule(fresh []deal.Change) map[string]time.Time {
	oldest := map[string]time.Time{}
	for _, c := range fresh {
		if at, ok := oldest[c.Rule]; !ok || c.At.Before(at) {
			oldest[c.Rule] = c.At
		}
	}
	return oldest
}

// usualDay looks at the days before that of at.
func (t *txn) usualDay(tenant deal.TenantID, rule string, at time.Time) (int, error) {
	days, err := column[int](t, `SELECT n FROM guard_counts WHERE tenant = $1 AND rule = $2 AND bucket >= $3 AND bucket < $4`,
		tenant, rule, deal.DayBucket(rule, at.AddDate(0, 0, -deal.LearnedDays)).Key, deal.DayBucket(rule, at).Key)
	return deal.UsualDay(days), err
}

// guardCounts reads the buckets that the entries may be counted in.
func (t *txn) guardCounts(n deal.Noticing, fresh []deal.Change) (map[deal.Bucket]int, error) {
	counts := map[deal.Bucket]int{}
	for _, c := range fresh {
		for _, b := range n.Guard.Buckets(c) {
			if _, read := counts[b]; read {
				continue
			}
			var count int
			if _, err := t.get([]any{&count}, `SELECT n - forgiven FROM guard_counts WHERE tenant = $1 AND rule = $2 AND bucket = $3`, n.Tenant, b.Rule, b.Key); err != nil {
				return nil, err
			}
			counts[b] = count
		}
	}
	return counts, nil
}

// countGuard adds what the counts have grown by. With the first entry of a day, what is too old to be compared with goes.
func (t *txn) countGuard(tenant deal.TenantID, before, after map[deal.Bucket]int) error {
	for b, n := range after {
		grown := n - before[b]
		if grown == 0 {
			continue
		}
		if day, ok := strings.CutPrefix(b.Key, "day/"); ok && before[b] == 0 {
			if err := t.forgetGuard(tenant, b.Rule, day); err != nil {
				return err
			}
		}
		if err := t.exec(`INSERT INTO guard_counts (tenant, rule, bucket, n) VALUES ($1, $2, $3, $4)
			ON CONFLICT (tenant, rule, bucket) DO UPDATE SET n = n + excluded.n`, tenant, b.Rule, b.Key, grown); err != nil {
			return err
		}
	}
	return nil
}

// forgetGuard deletes the days that are too old to tell what a usual one is, and the shorter buckets from three days
// before the given one.
func (t *txn) forgetGuard(tenant deal.TenantID, rule, day string) error {
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return err
	}
	short := at.AddDate(0, 0, -3)
	for kind, end := range map[string]string{
		"day/":    at.AddDate(0, 0, -2*deal.LearnedDays).Format(time.DateOnly),
		"hour/":   short.Format(time.DateOnly),
		"user/":   short.Format(time.DateOnly),
		"second/": strconv.FormatInt(short.Unix(), 10),
	} {
		if err := t.exec(`DELETE FROM guard_counts WHERE tenant = $1 AND rule = $2 AND bucket >= $3 AND bucket < $4`, tenant, rule, kind, kind+end); err != nil {
			return err
		}
	}
	return nil
}

// setGuards writes the states that have changed. What begins to be held is in the audit log.
func (t *txn) setGuards(tenant deal.TenantID, before, after map[string]deal.GuardState) error {
	for _, rule := range slices.Sorted(maps.Keys(after)) {
		is, was := after[rule], before[rule]
		if is == was {
			continue
		}
		since := int64(0)
		if is.Cause != "" {
			since = t.now.UnixMilli()
		}
		if err := t.exec(`INSERT INTO guards (tenant, rule, cause, since, first, seen) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (tenant, rule) DO UPDATE SET cause = excluded.cause, since = CASE WHEN cause = excluded.cause THEN since ELSE excluded.since END,
				first = excluded.first, seen = excluded.seen`, tenant, rule, is.Cause, since, is.First, is.Seen); err != nil {
			return err
		}
		if is.Cause == was.Cause {
			continue
		}
		if err := t.auditShared(tenant, "", deal.Entry{Who: "daemon", What: "guard-held", Why: is.Cause, Detail: map[string]string{"rule": rule}}); err != nil {
			return err
		}
		if err := t.announce(announcement{kind: "guard.held", tenant: tenant, data: map[string]string{"rule": rule, "reason": is.Cause}}); err != nil {
			return err
		}
	}
	return nil
}

// beginFirstRun takes note that a rule is watched for the first time.
func (t *txn) beginFirstRun(tenant deal.TenantID, rule string) error {
	return t.exec(`INSERT INTO guards (tenant, rule, cause, since, first, seen) VALUES ($1, $2, '', 0, 1, 0)
		ON CONFLICT (tenant, rule) DO UPDATE SET first = 1, seen = 0`, tenant, rule)
}

// endFirstRuns ends the first runs of the rules that a page was read with, if it is the last of them: what was held until
// all was counted goes on, unless it was too much. That is at most as many deals as first_run allows. A rule whose object was not
// read as a whole waits for that.
func (t *txn) endFirstRuns(n deal.Noticing) error {
	if n.Page.More {
		return nil
	}
	running, err := column[string](t, `SELECT rule FROM guards WHERE tenant = $1 AND first = 1`, n.Tenant)
	if err != nil {
		return err
	}
	for _, rule := range running {
		if w, watched := n.Watches[rule]; !watched || slices.Contains(n.Page.Unread, w.Object) {
			continue
		}
		if err := t.exec(`UPDATE guards SET first = 0 WHERE tenant = $1 AND rule = $2`, n.Tenant, rule); err != nil {
			return err
		}
		closed, err := t.guardClosed(n.Tenant, rule)
		if err != nil {
			return err
		}
		if closed {
			continue
		}
		scope := deal.GuardScope{Tenant: n.Tenant, Rule: rule}
		if _, err := t.decideGuarded(scope, "release", "daemon", "the first run of the rule has no more deals than first_run allows", -1); err != nil {
			return err
		}
	}
	return nil
}

// guardClosed reports whether everything of a rule is held.
func (t *txn) guardClosed(tenant deal.TenantID, rule string) (closed bool, err error) {
	_, err = t.get([]any{&closed}, `SELECT count(*) > 0 FROM guards WHERE tenant = $1 AND rule IN ('', $2) AND cause <> ''`, tenant, rule)
	return closed, err
}

// Guards returns what the guard holds until a person decides, by tenant and rule.
func (s *Store) Guards(ctx context.Context) (holds []deal.GuardHold, err error) {
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var h deal.GuardHold
			var since int64
			err := r.Scan(&h.Tenant, &h.Rule, &h.Cause, &since, &h.Held)
			h.Since = fromMillis(since)
			holds = append(holds, h)
			return err
		}, guardsQuery)
	})
	return holds, err
}

const guardsQuery = `SELECT tenant, rule, cause, since,
		(SELECT count(*) FROM sealings s WHERE s.guarded = 1 AND s.tenant = g.tenant AND (g.rule = '' OR s.rule = g.rule))
	FROM guards g WHERE cause <> '' ORDER BY tenant, rule`

// guardChunk is how many deals are decided about in one transaction: others want to write meanwhile.
const guardChunk = 100

// DecideGuarded releases or drops ("release", "drop") all deals that the guard holds of a scope, and has it count anew from
// here on. It returns how many they were. It goes on where it was cut off when it is called again: until the last of them is
// decided about, what comes is held with them. An error says that there is nothing to decide.
func (s *Store) DecideGuarded(ctx context.Context, g deal.GuardScope, verb, who, why string) (n int, err error) {
	if who == "" || why == "" {
		return 0, fmt.Errorf("%s: say who and why: both go into the audit log", g)
	}
	if verb != "release" && verb != "drop" {
		return 0, fmt.Errorf("%q is nothing that can be decided about deals that the guard holds: it is release or drop", verb)
	}
	for {
		some, opened := 0, false
		err := s.update(ctx, "commit/operate", func(t *txn) (err error) {
			if some, err = t.decideGuarded(g, verb, who, why, guardChunk); err != nil || some == guardChunk {
				return err
			}
			if opened, err = t.openGuard(g); err != nil || n+some == 0 {
				return err
			}
			return t.auditShared(g.Tenant, "", deal.Entry{Who: who, What: "guard-" + verb, Why: why,
				Detail: map[string]string{"rule": g.Rule, "deals": strconv.Itoa(n + some)}})
		})
		if err != nil {
			return n, err
		}
		if n += some; some < guardChunk {
			if n == 0 && !opened {
				return 0, &NothingGuardedError{g}
			}
			return n, nil
		}
	}
}

// decideGuarded releases or drops the oldest limit deals of a scope that the guard holds, all for a negative limit.
func (t *txn) decideGuarded(g deal.GuardScope, verb, who, why string, limit int) (n int, err error) {
	txs, err := column[deal.TxID](t, `SELECT tx FROM sealings WHERE guarded = 1 AND tenant = $1 AND ($2 = '' OR rule = $2) ORDER BY seq LIMIT $3`, g.Tenant, g.Rule, limit)
	if err != nil {
		return 0, err
	}
	for _, tx := range txs {
		if err := t.decideOne(tx, verb, who, why); err != nil {
			return 0, err
		}
	}
	return len(txs), nil
}

func (t *txn) decideOne(tx deal.TxID, verb, who, why string) error {
	sl, _, err := t.load(tx)
	if err != nil {
		return err
	}
	e := deal.Entry{Who: who, What: "released", Why: why, Detail: map[string]string{"hold": deal.HoldGuard}, Events: resumed(deal.Held)}
	if verb == "drop" {
		e = deal.Entry{Who: who, What: "dropped", Why: why, Events: []deal.Event{{Type: "envelope.voided", Data: map[string]string{"reason": "dropped by a person"}}}}
		sl.Condition, sl.Reason = deal.Ended, "dropped: "+why
	} else {
		sl.Facts.Released, sl.Facts.Waited = append(slices.Clone(sl.Facts.Released), deal.HoldGuard), nil
		resume(sl)
	}
	sl.Facts.Guarded = false
	return t.carryOut(sl, e)
}

// showUnlessGuarded has the record show what a change of the sealing makes of it, and has done what else is to be done in the
// CRM because of it, unless the guard holds it still.
func (t *txn) showUnlessGuarded(r *row, sl *deal.Sealing) error {
	switch {
	case sl.Facts.Guarded:
		return nil
	case r.guarded:
		return t.unguard(r, sl)
	}
	if err := t.errands(r, sl); err != nil {
		return err
	}
	return t.show(r, sl)
}

// unguard follows a deal that the guard holds no more: only now the record speaks of it, and that only if it goes on. What
// is let go counts among the deals of its day, so that the guard learns what is usual, and not against a limit.
func (t *txn) unguard(r *row, sl *deal.Sealing) error {
	if sl.Condition == deal.Ended {
		return nil
	}
	b := deal.DayBucket(sl.Change.Rule, sl.Change.At)
	if err := t.exec(`INSERT INTO guard_counts (tenant, rule, bucket, n, forgiven) VALUES ($1, $2, $3, 1, 1)
		ON CONFLICT (tenant, rule, bucket) DO UPDATE SET n = n + 1, forgiven = forgiven + 1`, sl.Tenant, b.Rule, b.Key); err != nil {
		return err
	}
	return t.own(r, sl)
}

// openEmptied opens a rule of which the guard holds no deal any more.
func (t *txn) openEmptied(g deal.GuardScope) error {
	var left int
	if _, err := t.get([]any{&left}, `SELECT count(*) FROM sealings WHERE guarded = 1 AND tenant = $1 AND rule = $2`, g.Tenant, g.Rule); err != nil || left > 0 {
		return err
	}
	_, err := t.openGuard(g)
	return err
}

// openGuard lets through again what comes of a scope, and counts it from nothing. Above a rule the tenant is opened too
// when nothing of it is held any more.
func (t *txn) openGuard(g deal.GuardScope) (opened bool, err error) {
	if g.Rule != "" {
		var others int
		if _, err := t.get([]any{&others}, `SELECT count(*) FROM sealings WHERE guarded = 1 AND tenant = $1`, g.Tenant); err != nil {
			return false, err
		}
		if others == 0 {
			if opened, err = t.openOnly(g.Tenant, "rule = ''"); err != nil {
				return false, err
			}
		}
	}
	rules := "$2 = '' OR rule = $2"
	also, err := t.openOnly(g.Tenant, rules, g.Rule)
	return opened || also, err
}

func (t *txn) openOnly(tenant deal.TenantID, rules string, args ...any) (opened bool, err error) {
	args = append([]any{tenant}, args...)
	if opened, err = t.execOne(`UPDATE guards SET cause = '', since = 0 WHERE tenant = $1 AND cause <> '' AND (`+rules+`)`, args...); err != nil {
		return false, err
	}
	if err := t.exec(`UPDATE guard_counts SET forgiven = n WHERE tenant = $1 AND forgiven < n AND (`+rules+`)`, args...); err != nil || !opened {
		return opened, err
	}
	var left int
	if _, err := t.get([]any{&left}, `SELECT count(*) FROM guards WHERE tenant = $1 AND cause <> ''`, tenant); err != nil || left > 0 {
		return opened, err
	}
	return opened, t.calm(notify.Guard, tenant, "")
}
