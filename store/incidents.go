package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/notify"
	"github.com/dealseal/dealseal/webhooks"
)

// announcement is an event that is about no deal.
type announcement struct {
	kind string
	// tenant is empty for what concerns the house. audience are the tenants whose endpoints are told; nil: tenant's.
	tenant   deal.TenantID
	audience []deal.TenantID
	// subject is what it is about: an endpoint, a certificate.
	subject string
	data    map[string]string
	// once is set for what is said once ever, whatever it says besides.
	once string
}

// storedAnnouncement is what is kept encrypted of one.
type storedAnnouncement struct {
	Tenant  deal.TenantID     `json:"tenant,omitempty"`
	Subject string            `json:"subject,omitempty"`
	Data    map[string]string `json:"data"`
}

// announce puts an event that is about no deal into the outbox, and on its way to endpoints and people. It is part of the
// transaction that made it true.
func (t *txn) announce(a announcement) error {
	var n int64
	if _, err := t.get([]any{&n}, `SELECT coalesce(max(n), 0) + 1 FROM outbox WHERE tx = ''`); err != nil {
		return err
	}
	// Its place among the others says nothing after a restore, when another event may have taken it; its time does.
	id := deal.EventID(deal.TxID("house/"+string(a.tenant)+"/"+a.subject+"/"+fmt.Sprint(t.now.UnixMilli())), n, a.kind)
	if a.once != "" {
		id = deal.EventID(deal.TxID("once/"+string(a.tenant)+"/"+a.subject+"/"+a.once), 1, a.kind)
		var known int
		if found, err := t.get([]any{&known}, `SELECT 1 FROM outbox WHERE id = $1`, id); err != nil || found {
			return err
		}
	}
	text, err := json.Marshal(storedAnnouncement{a.tenant, a.subject, a.data})
	if err != nil {
		return fmt.Errorf("event %s: %w", a.kind, err)
	}
	if err := t.exec(`INSERT INTO outbox (id, tx, n, type, at, data) VALUES ($1, '', $2, $3, $4, $5)`,
		id, n, a.kind, t.now.UnixMilli(), box(t.s.master.shared(), "outbox/"+id, text)); err != nil {
		return err
	}
	if kind, known := webhooks.Known(a.kind); known && !kind.Operator {
		audience := a.audience
		if audience == nil && a.tenant != "" {
			audience = []deal.TenantID{a.tenant}
		}
		for _, tenant := range audience {
			if err := t.address(tenant, id, a.kind); err != nil {
				return err
			}
		}
	}
	return t.raise(a.tenant, a.subject, id, a.kind)
}

// announced reads one of the outbox that is about no deal. The tenant is that of the endpoint that it is told to.
func (t *txn) announced(id string, tenant deal.TenantID) (e webhooks.Event, err error) {
	var at int64
	var data []byte
	found, err := t.get([]any{&e.Sequence, &e.Type, &at, &data}, `SELECT n, type, at, data FROM outbox WHERE id = $1 AND tx = ''`, id)
	if err != nil {
		return e, err
	}
	var a storedAnnouncement
	e.ID, e.At, e.Created = id, fromMillis(at), fromMillis(at)
	text, err := unbox(t.s.master.shared(), "outbox/"+id, data)
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil || !found {
		return e, fmt.Errorf("event %s: %w", id, errDamaged)
	}
	e.Tenant, e.Subject, e.Data = string(a.Tenant), a.Subject, a.Data
	if e.Tenant == "" {
		e.Tenant = string(tenant)
	}
	return e, nil
}

// quietDay is after how long what has no end of its own is another incident.
const quietDay = 24 * time.Hour

// raise adds an event to its incident, and opens one if there is none, where people are told of such events.
func (t *txn) raise(tenant deal.TenantID, subject, event, kind string) error {
	of, told := notify.Opens(kind)
	if !told {
		return nil
	}
	var id, latest int64
	found, err := t.get([]any{&id, &latest}, `SELECT id, latest FROM incidents WHERE kind = $1 AND tenant = $2 AND subject = $3 AND closed = 0`, of, tenant, subject)
	if err != nil {
		return err
	}
	if found && endless[of] && t.now.Sub(fromMillis(latest)) >= quietDay {
		if err := t.calm(of, tenant, subject); err != nil {
			return err
		}
		found = false
	}
	if !found {
		if _, err := t.get([]any{&id}, `INSERT INTO incidents (kind, tenant, subject, opened, latest, closed, events) VALUES ($1, $2, $3, $4, $4, 0, 0) RETURNING id`,
			of, tenant, subject, t.now.UnixMilli()); err != nil {
			return err
		}
	}
	var n int64
	if _, err := t.get([]any{&n}, `UPDATE incidents SET events = events + 1, latest = $2 WHERE id = $1 RETURNING events`, id, t.now.UnixMilli()); err != nil {
		return err
	}
	return t.exec(`INSERT INTO incident_events (incident, n, event) VALUES ($1, $2, $3)`, id, n, event)
}

// endless are the kinds that nothing says the end of.
var endless = map[notify.Kind]bool{notify.DeadLetter: true, notify.Key: true, notify.Summary: true}

// calm ends an incident, if there is one.
func (t *txn) calm(kind notify.Kind, tenant deal.TenantID, subject string) error {
	_, err := t.ended(kind, tenant, subject)
	return err
}

// ended is calm, and reports whether there was one.
func (t *txn) ended(kind notify.Kind, tenant deal.TenantID, subject string) (bool, error) {
	return t.execOne(`UPDATE incidents SET closed = $4 WHERE kind = $1 AND tenant = $2 AND subject = $3 AND closed = 0`, kind, tenant, subject, t.now.UnixMilli())
}

// calmDeals ends what is told of a tenant's deals that wait, when none of them waits any more as one has that is changed. Of
// those that the guard holds it is not told, and nobody can decide about those that are erased.
func (t *txn) calmDeals(tenant deal.TenantID, was deal.Condition) error {
	kind, told := map[deal.Condition]notify.Kind{deal.Dead: notify.Failure, deal.Held: notify.Hold}[was]
	if !told {
		return nil
	}
	var left int
	found, err := t.get([]any{&left}, stillWaiting, tenant, was)
	if err != nil || found {
		return err
	}
	return t.calm(kind, tenant, "")
}

const stillWaiting = `SELECT 1 FROM sealings s WHERE tenant = $1 AND state = $2 AND guarded = 0 AND EXISTS (SELECT 1 FROM data_keys k WHERE k.tx = s.tx) LIMIT 1`

// heldByGuard reports whether an event is about a deal that the guard holds: of all of them there is one that says so.
func heldByGuard(e deal.Event) bool {
	return e.Type == "document.held" && strings.HasPrefix(e.Data["reason"], "["+deal.HoldGuard+"]")
}

// Announce says to people once, ever, that something concerns the house. What is known by subject and once is not said again.
func (s *Store) Announce(ctx context.Context, kind, subject, once string, data map[string]string) error {
	return s.update(ctx, settled, func(t *txn) error {
		return t.announce(announcement{kind: kind, subject: subject, once: once, data: data})
	})
}

// Audience says which tenants' deals are sealed with a key, by the key's name: their endpoints are told of its certificates.
func (s *Store) Audience(keys map[string][]deal.TenantID) { s.audience.Store(&keys) }

func (t *txn) audienceOf(key string) []deal.TenantID {
	if all := t.s.audience.Load(); all != nil {
		return append([]deal.TenantID{}, (*all)[key]...)
	}
	return []deal.TenantID{}
}

// Template is one that is published.
type Template struct {
	Name, Hash string
	// Tenants use it.
	Tenants []deal.TenantID
}

// usersOfTemplate looks for one deal of each plan and tenant: CROSS JOIN keeps SQLite from going through all deals of the tenant.
const usersOfTemplate = `SELECT DISTINCT c.tenant FROM counts c WHERE EXISTS (
	SELECT 1 FROM plans p CROSS JOIN sealings s ON s.plan = p.hash AND s.tenant = c.tenant WHERE json_extract(p.plan, '$.template') = $1)`

// PublishTemplates takes note of the templates that there are now. What is new, or has other content, and what is gone is told.
func (s *Store) PublishTemplates(ctx context.Context, now []Template) error {
	return s.update(ctx, settled, func(t *txn) error {
		before := map[string]string{}
		err := t.each(func(r *sql.Rows) error {
			var name, hash string
			err := r.Scan(&name, &hash)
			before[name] = hash
			return err
		}, `SELECT template, hash FROM published`)
		if err != nil {
			return err
		}
		for _, one := range now {
			was := before[one.Name]
			delete(before, one.Name)
			if was == one.Hash {
				continue
			}
			err := errors.Join(
				t.exec(`INSERT INTO published (template, hash) VALUES ($1, $2) ON CONFLICT (template) DO UPDATE SET hash = excluded.hash`, one.Name, one.Hash),
				t.announce(announcement{kind: "template.published", subject: one.Name, audience: append([]deal.TenantID{}, one.Tenants...), data: map[string]string{"template": one.Name, "sha256": one.Hash}}))
			if err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(before)) {
			tenants, err := column[deal.TenantID](t, usersOfTemplate, name)
			if err != nil {
				return err
			}
			err = errors.Join(t.exec(`DELETE FROM published WHERE template = $1`, name),
				t.announce(announcement{kind: "template.retired", subject: name, audience: append([]deal.TenantID{}, tenants...), data: map[string]string{"template": name}}))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// ConfigureChannels makes the channels those that are configured. One that is new is told what is not over yet.
func (s *Store) ConfigureChannels(ctx context.Context, names []string) error {
	list, err := json.Marshal(append([]string{}, names...))
	if err != nil {
		return err
	}
	return s.update(ctx, settled, func(t *txn) error {
		for _, name := range names {
			if err := t.exec(`INSERT INTO channels (name, since, tries, problem, due, succeeded) VALUES ($1, $2, 0, '', 0, 0) ON CONFLICT DO NOTHING`, name, t.now.UnixMilli()); err != nil {
				return err
			}
		}
		return errors.Join(
			t.exec(`DELETE FROM channels WHERE name NOT IN (SELECT value FROM json_each($1))`, string(list)),
			t.exec(`DELETE FROM alerts WHERE channel NOT IN (SELECT value FROM json_each($1))`, string(list)),
			t.exec(`UPDATE channels SET due = 0`)) // a start tries at once
	})
}

// alertsQuery finds what a channel was not told; the last column is when it was last told of the same.
const alertsQuery = `SELECT i.id, i.kind, i.tenant, i.subject, i.opened, i.latest, i.closed, i.events, coalesce(a.told, 0),
		(SELECT coalesce(max(b.at), 0) FROM incidents j JOIN alerts b ON b.incident = j.id AND b.channel = $1 WHERE j.kind = i.kind AND j.tenant = i.tenant AND j.subject = i.subject)
	FROM incidents i LEFT JOIN alerts a ON a.incident = i.id AND a.channel = $1
	WHERE (i.closed = 0 OR i.closed >= $2) AND (i.events > coalesce(a.told, 0) OR $3 AND i.closed > 0 AND a.told > 0 AND a.over = 0) ORDER BY i.id`

// Alerts returns what a channel has to be told now; see notify.Ledger.
func (s *Store) Alerts(ctx context.Context, f notify.Filter) (due []notify.Incident, next time.Time, err error) {
	err = s.view(ctx, func(t *txn) error {
		var since, after int64
		if found, err := t.get([]any{&since, &after}, `SELECT since, due FROM channels WHERE name = $1`, f.Channel); err != nil || !found {
			return err
		}
		if at := fromMillis(after); at.After(t.now) {
			next = at
			return nil
		}
		all, err := t.untoldIncidents(f, since)
		if err != nil {
			return err
		}
		for _, in := range all {
			if in.due.After(t.now) {
				if next.IsZero() || in.due.Before(next) {
					next = in.due
				}
				continue
			}
			if in.Newest, err = t.newest(in.Incident, f.Names); err != nil {
				return err
			}
			due = append(due, in.Incident)
		}
		return nil
	})
	return due, next, err
}

type untoldIncident struct {
	notify.Incident
	due time.Time
}

func (t *txn) untoldIncidents(f notify.Filter, since int64) (all []untoldIncident, err error) {
	err = t.each(func(r *sql.Rows) error {
		var in untoldIncident
		var opened, latest, closed, told, last int64
		if err := r.Scan(&in.ID, &in.Kind, &in.Tenant, &in.Subject, &opened, &latest, &closed, &in.Events, &told, &last); err != nil {
			return err
		}
		in.Opened, in.Latest, in.Closed, in.New = fromMillis(opened), fromMillis(latest), fromMillis(closed), in.Events-int(told)
		switch {
		case !f.Wants(in.Kind, in.Tenant):
			return nil
		case in.New == 0: // that it is over is said at once
			in.due = in.Closed
		default:
			in.due = in.Opened.Add(f.Gather)
			if again := fromMillis(last).Add(f.Again); last > 0 && again.After(in.due) {
				in.due = again
			}
		}
		all = append(all, in)
		return nil
	}, alertsQuery, f.Channel, since, f.Ends)
	return all, err
}

// newest reads the newest of an incident's new events. Of one that cannot be read it is told that it was.
func (t *txn) newest(in notify.Incident, named bool) (out []webhooks.Event, err error) {
	ids, err := column[string](t, `SELECT event FROM incident_events WHERE incident = $1 AND n > $2 ORDER BY n DESC LIMIT $3`, in.ID, in.Events-in.New, notify.MostListed)
	for _, id := range ids {
		e, err := t.event(id, "", named)
		if errors.Is(err, errDamaged) {
			t.s.log.Error("an event cannot be told in full", "event", id, "err", err)
			e.Data, err = map[string]string{"reason": "what was said of it is damaged in the database"}, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, err
}

// Alerted commits that a channel was told; see notify.Ledger.
func (s *Store) Alerted(ctx context.Context, channel string, told []notify.Incident) error {
	return s.update(ctx, "commit/sent", func(t *txn) error {
		for _, in := range told {
			if err := t.exec(`INSERT INTO alerts (channel, incident, told, over, at) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (channel, incident) DO UPDATE SET told = max(told, excluded.told), over = max(over, excluded.over), at = excluded.at`,
				channel, in.ID, in.Events, !in.Closed.IsZero(), t.now.UnixMilli()); err != nil {
				return err
			}
		}
		return t.exec(`UPDATE channels SET tries = 0, problem = '', due = 0, succeeded = $2 WHERE name = $1`, channel, t.now.UnixMilli())
	})
}

// AlertFailed commits that a message was not taken; see notify.Ledger.
func (s *Store) AlertFailed(ctx context.Context, channel, problem string, wait func(tries int) time.Duration) error {
	return s.update(ctx, "commit/sent", func(t *txn) error {
		var tries int
		found, err := t.get([]any{&tries}, `UPDATE channels SET tries = tries + 1, problem = $2 WHERE name = $1 RETURNING tries`, channel, problem)
		if err != nil || !found {
			return err
		}
		return t.exec(`UPDATE channels SET due = $2 WHERE name = $1`, channel, t.now.Add(wait(tries)).UnixMilli())
	})
}

// ChannelState is a channel as it may be shown.
type ChannelState struct {
	Name string `json:"name"`
	// Tries are failed attempts in a row, Problem is that of the last, Due when it is tried again.
	Tries     int       `json:"tries"`
	Problem   string    `json:"problem,omitempty"`
	Due       time.Time `json:"due,omitzero"`
	Succeeded time.Time `json:"succeeded,omitzero"`
}

// Channels returns how all channels are doing, by their names.
func (s *Store) Channels(ctx context.Context) (all []ChannelState, err error) {
	all = []ChannelState{} // JSON: an empty list, not null
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var c ChannelState
			var due, succeeded int64
			err := r.Scan(&c.Name, &c.Tries, &c.Problem, &due, &succeeded)
			c.Due, c.Succeeded = fromMillis(due), fromMillis(succeeded)
			all = append(all, c)
			return err
		}, `SELECT name, tries, problem, due, succeeded FROM channels ORDER BY name`)
	})
	return all, err
}

// keptIncidents is how long an incident is remembered that is over.
const keptIncidents = 30 * 24 * time.Hour

// PruneIncidents forgets incidents that were over long ago, a batch at a time, and returns how many. Those without an end of
// their own are over when nothing was added for a day.
func (s *Store) PruneIncidents(ctx context.Context) (n int64, err error) {
	const query = `SELECT id FROM incidents WHERE closed > 0 AND closed < $1 LIMIT 500`
	old := func(t *txn) ([]int64, error) { return column[int64](t, query, t.now.Add(-keptIncidents).UnixMilli()) }
	var found []int64
	if err = s.view(ctx, func(t *txn) error { found, err = old(t); return err }); err != nil || len(found) == 0 {
		return 0, err
	}
	err = s.update(ctx, "commit/sent", func(t *txn) error {
		ids, err := old(t)
		for _, id := range ids {
			err = errors.Join(err, t.exec(`DELETE FROM alerts WHERE incident = $1`, id), t.exec(`DELETE FROM incident_events WHERE incident = $1`, id), t.exec(`DELETE FROM incidents WHERE id = $1`, id))
		}
		n = int64(len(ids))
		return err
	})
	return n, err
}

// Refused takes note that the CRM does not take a receipt, whoever has tried it, and tells so once for each.
func (s *Store) Refused(ctx context.Context, tx deal.TxID, sequence int64, reason string) error {
	return s.update(ctx, "commit/told", func(t *txn) error {
		r, err := t.row(tx)
		if err != nil || r.receipt == 0 || r.wrapped == nil {
			return err
		}
		fresh, err := t.execOne(`UPDATE receipts SET refused = $2 WHERE id = $1 AND refused < $2 AND sent < $2`, r.receipt, sequence)
		if err != nil || !fresh {
			return err
		}
		var tenant deal.TenantID
		if _, err := t.get([]any{&tenant}, `SELECT tenant FROM sealings WHERE tx = $1`, tx); err != nil {
			return err
		}
		key, err := t.s.keys.unwrap(t.s.master.tenant(tenant), tx, r.wrapped)
		if err != nil {
			return err
		}
		if err := t.exec(`UPDATE sealings SET events = events + 1 WHERE tx = $1`, tx); err != nil {
			return err
		}
		return t.emit(tenant, tx, r.events+1, deal.Event{Type: "crm.writeback_failed", Data: map[string]string{"reason": reason}}, key)
	})
}

// calmReceipts ends what is told of records that do not show what is true, when there is none any more.
func (t *txn) calmReceipts(receipt int64) error {
	var tenant deal.TenantID
	found, err := t.get([]any{&tenant}, `SELECT tenant FROM receipts WHERE id = $1 AND refused > 0`, receipt)
	if err != nil || !found {
		return err
	}
	if err := t.exec(`UPDATE receipts SET refused = 0 WHERE id = $1 AND sent >= refused`, receipt); err != nil {
		return err
	}
	return t.calmTenantsReceipts(tenant)
}

func (t *txn) calmTenantsReceipts(tenant deal.TenantID) error {
	var left int
	if _, err := t.get([]any{&left}, `SELECT count(*) FROM receipts WHERE sent < sequence AND refused > 0 AND tenant = $1`, tenant); err != nil || left > 0 {
		return err
	}
	return t.calm(notify.WriteBack, tenant, "")
}

// FailingShares are the parts of the failed attempts in a row that make an endpoint count as broken, in percent, that people
// are told of.
var failingShares = []int{100, 90, 70, 50}

// warnOfEndpoint tells that so many attempts in a row have failed, when that is another share of too many.
func (t *txn) warnOfEndpoint(o webhooks.Outcome, row endpointRow) error {
	n := row.shown.Failures + 1
	for _, percent := range failingShares {
		if n == (o.InARow*percent+99)/100 {
			return t.announce(announcement{kind: "webhook.endpoint_failing", tenant: row.shown.Tenant, subject: o.Endpoint,
				data: map[string]string{"endpoint": o.Endpoint, "attempts": fmt.Sprint(n), "percent": fmt.Sprint(percent), "problem": o.Problem}})
		}
	}
	return nil
}

// warnOfDocument tells that an event about a document has failed so often that somebody should look, once per document.
func (t *txn) warnOfDocument(o webhooks.Outcome, row endpointRow) error {
	var tx, event, kind string
	if _, err := t.get([]any{&tx, &event, &kind}, `SELECT o.tx, o.id, o.type FROM deliveries d JOIN outbox o ON o.id = d.event WHERE d.seq = $1`, o.Delivery); err != nil || tx == "" {
		return err
	}
	return t.announce(announcement{kind: "webhook.document_failing", tenant: row.shown.Tenant, subject: o.Endpoint, once: tx + "/" + event,
		data: map[string]string{"endpoint": o.Endpoint, "event": kind, "transaction": tx, "attempts": fmt.Sprint(FailingAfter), "problem": o.Problem}})
}

// KeepTenants takes note of which tenants there are from now on. Of others it is not known any more how their polls went, nor
// of one that is still under way, and that their login is refused is over: nobody tries it.
func (s *Store) KeepTenants(ctx context.Context, now []deal.TenantID) error {
	list, err := json.Marshal(append([]deal.TenantID{}, now...))
	if err != nil {
		return err
	}
	return s.update(ctx, settled, func(t *txn) error {
		s.kept.Store(&now)
		return errors.Join(
			t.exec(`DELETE FROM polls WHERE tenant NOT IN (SELECT value FROM json_each($1))`, string(list)),
			t.exec(`UPDATE incidents SET closed = $2 WHERE kind = $3 AND closed = 0 AND tenant NOT IN (SELECT value FROM json_each($1))`, string(list), t.now.UnixMilli(), notify.Login))
	})
}

// loginChanged tells when a CRM begins to refuse the daemon, and when it lets it in again.
func (t *txn) loginChanged(p deal.PollState) error {
	var text []byte
	var before deal.PollState
	found, err := t.get([]any{&text}, `SELECT state FROM polls WHERE tenant = $1`, p.Tenant)
	if err == nil && found {
		err = json.Unmarshal(text, &before)
	}
	if err != nil {
		return fmt.Errorf("stored poll of tenant %s: %w", p.Tenant, err)
	}
	switch {
	case p.Refused && !before.Refused:
		trouble := p.Trouble
		if trouble == "" {
			trouble = "refused"
		}
		return t.announce(announcement{kind: "crm.login_refused", tenant: p.Tenant, data: map[string]string{"trouble": trouble}})
	case p.Err == "" && before.Err != "":
		ended, err := t.ended(notify.Login, p.Tenant, "")
		if err != nil || !ended {
			return err
		}
		return t.announce(announcement{kind: "crm.login_restored", tenant: p.Tenant, data: map[string]string{}})
	}
	return nil
}
