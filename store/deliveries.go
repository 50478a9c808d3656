package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/notify"
	"github.com/dealseal/dealseal/webhooks"
)

// Bell is rung after a commit that has put something into the ledger that is to be delivered.
func (s *Store) Bell() *webhooks.Bell { return s.bell }

// ring has the bell rung for endpoints once the change is durable.
func (t *txn) ring(endpoints ...string) { *t.rings = append(*t.rings, endpoints...) }

// subscriptions are the active and the disabled endpoints by tenant, as each event needs them. They are read anew after every
// change of an endpoint.
type subscriptions map[deal.TenantID][]webhooks.Endpoint

func (s *Store) forgetSubscriptions() { s.subscriptions.Store(nil) }

func (t *txn) subscriptions() (subscriptions, error) {
	if known := t.s.subscriptions.Load(); known != nil {
		return *known, nil
	}
	rows, err := t.endpointRows("")
	if err != nil {
		return nil, err
	}
	fresh := subscriptions{}
	for _, r := range rows {
		r.endpoint.Secrets = nil
		fresh[r.shown.Tenant] = append(fresh[r.shown.Tenant], r.endpoint)
	}
	t.s.subscriptions.Store(&fresh)
	return fresh, nil
}

// address has an event delivered to all endpoints of its tenant that want it.
func (t *txn) address(tenant deal.TenantID, id, kind string) error {
	all, err := t.subscriptions()
	if err != nil {
		return err
	}
	for _, e := range all[tenant] {
		if !e.Wants(kind) {
			continue
		}
		if called, err := t.called(id, e); err != nil {
			return err
		} else if !called {
			continue
		}
		if err := t.exec(`INSERT INTO deliveries (event, endpoint, state, sending, due, tries, failures, ended) VALUES ($1, $2, 'pending', 0, $3, 0, 0, 0)`, id, e.ID, t.now.UnixMilli()); err != nil {
			return err
		}
		t.ring(e.ID)
	}
	return nil
}

// resumeDeliveries has those made again whose attempts a dead process has left. Nobody knows what came of them.
func (t *txn) resumeDeliveries() error {
	return t.exec(`UPDATE deliveries SET sending = 0, due = $1 WHERE sending = 1`, t.now.UnixMilli())
}

// Take commits that attempts of at most n due deliveries of an endpoint are about to be made, and returns these; see
// webhooks.Ledger.
func (s *Store) Take(ctx context.Context, endpoint string, n int, lease time.Duration) (due []webhooks.Delivery, next time.Time, err error) {
	waits, next, err := s.waits(ctx, endpoint)
	if err != nil || !waits {
		return nil, next, err // most looks find nothing, and write nothing
	}
	err = s.update(ctx, "commit/send", func(t *txn) error {
		row, err := t.endpointRow(endpoint)
		if err != nil || row.shown.State != EndpointActive {
			return err
		}
		if due, err = t.due(row, n); err != nil {
			return err
		}
		for i, d := range due {
			due[i].Attempt++
			err := errors.Join(
				t.exec(`UPDATE deliveries SET sending = 1, tries = tries + 1, due = $2 WHERE seq = $1`, d.ID, t.now.Add(lease).UnixMilli()),
				t.exec(`INSERT INTO delivery_attempts (delivery, n, at, took, status, problem, answer) VALUES ($1, $2, $3, 0, 0, '', x'')`, d.ID, d.Attempt+1, t.now.UnixMilli()))
			if err != nil {
				return err
			}
		}
		_, next, err = t.nextDue(endpoint)
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return due, next, nil
}

// waits reports whether something is due, and else when.
func (s *Store) waits(ctx context.Context, endpoint string) (waits bool, next time.Time, err error) {
	err = s.view(ctx, func(t *txn) error {
		waits, next, err = t.nextDue(endpoint)
		return err
	})
	return waits, next, err
}

func (t *txn) nextDue(endpoint string) (now bool, next time.Time, err error) {
	var due int64
	found, err := t.get([]any{&due}, `SELECT due FROM deliveries WHERE endpoint = $1 AND state = 'pending' ORDER BY due, seq LIMIT 1`, endpoint)
	if err != nil || !found {
		return false, time.Time{}, err
	}
	return due <= t.now.UnixMilli(), fromMillis(due), nil
}

// due reads deliveries with their events. One whose event cannot be read is given up, and the others go on.
func (t *txn) due(row endpointRow, n int) (out []webhooks.Delivery, err error) {
	type found struct {
		webhooks.Delivery
		event string
	}
	var all []found
	err = t.each(func(r *sql.Rows) error {
		var f found
		err := r.Scan(&f.ID, &f.event, &f.Attempt, &f.Failures)
		all = append(all, f)
		return err
	}, `SELECT seq, event, tries, failures FROM deliveries WHERE endpoint = $1 AND state = 'pending' AND due <= $2 ORDER BY due, seq LIMIT $3`,
		row.shown.ID, t.now.UnixMilli(), n)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		f.Event, err = t.event(f.event, row.shown.Tenant, row.endpoint.Title)
		if err == nil && row.endpoint.Callbacks {
			f.URL, err = t.callback(f.Event, row.endpoint)
		}
		if errors.Is(err, errDamaged) {
			if err := t.setAside(f.Delivery, row, err); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, f.Delivery)
	}
	return out, nil
}

// setAside gives a delivery up that no attempt can be made of.
func (t *txn) setAside(d webhooks.Delivery, row endpointRow, cause error) error {
	t.s.log.Error("an event cannot be delivered", "endpoint", row.shown.ID, "delivery", d.ID, "err", cause)
	o := webhooks.Outcome{Delivery: d.ID, Attempt: d.Attempt + 1, Endpoint: row.shown.ID, Fate: webhooks.Failed, Problem: "nothing was sent: " + errDamaged.Error()}
	return errors.Join(
		t.exec(`UPDATE deliveries SET tries = tries + 1 WHERE seq = $1`, o.Delivery),
		t.exec(`INSERT INTO delivery_attempts (delivery, n, at, took, status, problem, answer) VALUES ($1, $2, $3, 1, 0, $4, x'')`, o.Delivery, o.Attempt, t.now.UnixMilli(), o.Problem),
		t.moveOn(o, row))
}

// event reads one of the outbox. What is told of it never changes, but that its data is gone once the deal is erased. One that
// concerns the house is told as the tenant's.
func (t *txn) event(id string, tenant deal.TenantID, titled bool) (e webhooks.Event, err error) {
	var at, created int64
	var data, wrapped, private []byte
	found, err := t.get([]any{&e.Transaction, &e.Sequence, &e.Type, &at, &data, &e.Tenant, &e.Object, &e.Record, &e.Rule, &created, &e.Document, &wrapped, &private},
		`SELECT o.tx, o.n, o.type, o.at, o.data, s.tenant, s.object, s.record, s.rule, s.noticed, coalesce(json_extract(p.plan, '$.template'), ''),
			(SELECT k.wrapped FROM data_keys k WHERE k.tx = o.tx), s.private
		 FROM outbox o JOIN sealings s ON s.tx = o.tx JOIN plans p ON p.hash = s.plan WHERE o.id = $1`, id)
	if err != nil {
		return e, err
	}
	if !found {
		return t.announced(id, tenant)
	}
	e.ID, e.At, e.Created = id, fromMillis(at), fromMillis(created)
	if wrapped == nil || len(data) == 0 {
		return e, nil
	}
	key, err := t.s.keys.unwrap(t.s.master.tenant(deal.TenantID(e.Tenant)), deal.TxID(e.Transaction), wrapped)
	if err != nil {
		return e, err
	}
	text, err := unbox(key.rows, "outbox/"+id, data)
	if err == nil {
		err = json.Unmarshal(text, &e.Data)
	}
	if err != nil {
		return e, fmt.Errorf("event %s: %w", id, errDamaged)
	}
	if titled {
		e.Title, err = titleOf(key, deal.TxID(e.Transaction), private)
	}
	return e, err
}

func titleOf(key *dataKey, tx deal.TxID, private []byte) (string, error) {
	text, err := unbox(key.rows, "private/"+string(tx), private)
	var p deal.Private
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return "", fmt.Errorf("%s: private part: %w", tx, errDamaged)
	}
	return p.FileName, nil
}

// Settle commits what came of an attempt; see webhooks.Ledger. What has failed for good is in the audit log as
// webhook.delivery_failed.
func (s *Store) Settle(ctx context.Context, o webhooks.Outcome) error {
	return s.update(ctx, "commit/sent", func(t *txn) error {
		row, err := t.endpointRow(o.Endpoint)
		var gone *EndpointError
		if errors.As(err, &gone) {
			return nil // it was removed meanwhile, with all that belonged to it
		}
		if err != nil {
			return err
		}
		answer := []byte{}
		if len(o.Answer) > 0 {
			answer = box(t.s.master.webhooks(row.shown.Tenant), fmt.Sprintf("answer/%d/%d", o.Delivery, o.Attempt), o.Answer)
		}
		if err := t.exec(`UPDATE delivery_attempts SET took = $3, status = $4, problem = $5, answer = $6 WHERE delivery = $1 AND n = $2`,
			o.Delivery, o.Attempt, max(1, o.Took.Microseconds()), o.Status, o.Problem, answer); err != nil {
			return err
		}
		if late, err := t.late(o); err != nil || late {
			return err
		}
		if err := t.moveOn(o, row); err != nil {
			return err
		}
		return t.judgeEndpoint(o, row)
	})
}

// late reports whether an attempt that came to nothing says nothing any more: it took longer than its lease, so that another
// was begun, or has delivered.
func (t *txn) late(o webhooks.Outcome) (bool, error) {
	var state string
	var tries int
	found, err := t.get([]any{&state, &tries}, `SELECT state, tries FROM deliveries WHERE seq = $1`, o.Delivery)
	return !found || o.Fate != webhooks.Delivered && (tries > o.Attempt || state == "delivered"), err
}

// moveOn moves the delivery on.
func (t *txn) moveOn(o webhooks.Outcome, row endpointRow) error {
	now := t.now.UnixMilli()
	switch o.Fate {
	case webhooks.Delivered:
		return t.exec(`UPDATE deliveries SET state = 'delivered', sending = 0, ended = $2 WHERE seq = $1`, o.Delivery, now)
	case webhooks.Again:
		var failures int
		if _, err := t.get([]any{&failures}, `UPDATE deliveries SET sending = 0, failures = failures + 1, due = $2 WHERE seq = $1 RETURNING failures`, o.Delivery, o.Next.UnixMilli()); err != nil || failures != FailingAfter {
			return err
		}
		return t.warnOfDocument(o, row)
	case webhooks.Failed:
		if err := t.exec(`UPDATE deliveries SET state = 'failed', sending = 0, failures = failures + 1, ended = $2 WHERE seq = $1`, o.Delivery, now); err != nil {
			return err
		}
		return t.auditFailed(o, row)
	}
	return t.exec(`UPDATE deliveries SET sending = 0, due = $2 WHERE seq = $1`, o.Delivery, now)
}

func (t *txn) auditFailed(o webhooks.Outcome, row endpointRow) error {
	var tx deal.TxID
	var event, kind string
	if _, err := t.get([]any{&tx, &event, &kind}, `SELECT o.tx, o.id, o.type FROM deliveries d JOIN outbox o ON o.id = d.event WHERE d.seq = $1`, o.Delivery); err != nil {
		return err
	}
	if err := t.announce(announcement{kind: "webhook.delivery_failed", tenant: row.shown.Tenant, subject: o.Endpoint,
		data: map[string]string{"endpoint": o.Endpoint, "event": kind, "transaction": string(tx), "attempts": fmt.Sprint(o.Attempt), "problem": o.Problem}}); err != nil {
		return err
	}
	return t.auditShared(row.shown.Tenant, tx, deal.Entry{Who: "daemon", What: "webhook.delivery_failed", Why: o.Problem,
		Detail: map[string]string{"endpoint": o.Endpoint, "event": event, "type": kind, "attempts": fmt.Sprint(o.Attempt)}})
}

// judgeEndpoint counts the failures in a row, and disables what is gone or, if it is to be, broken.
func (t *txn) judgeEndpoint(o webhooks.Outcome, row endpointRow) error {
	now := t.now.UnixMilli()
	switch o.Fate {
	case webhooks.Delivered:
		if row.shown.Failures > 0 || row.shown.Succeeded.Before(row.shown.Since) { // whoever enables an endpoint sets its failures to none
			if err := t.calm(notify.Endpoint, row.shown.Tenant, o.Endpoint); err != nil {
				return err
			}
		}
		return t.exec(`UPDATE endpoints SET failures = 0, succeeded = $2, tried = $2 WHERE id = $1`, o.Endpoint, now)
	}
	if err := t.exec(`UPDATE endpoints SET failures = failures + 1, tried = $2 WHERE id = $1`, o.Endpoint, now); err != nil {
		return err
	}
	if err := t.warnOfEndpoint(o, row); err != nil {
		return err
	}
	reason := ""
	switch {
	case row.shown.State != EndpointActive:
		return nil
	case o.Fate == webhooks.Held:
		reason = "its receiver answered 410: it is gone"
	case o.Disable && row.shown.Failures+1 >= o.InARow:
		reason = fmt.Sprintf("%d attempts in a row have failed", row.shown.Failures+1)
	default:
		return nil
	}
	return errors.Join(t.disable(o.Endpoint, reason), t.auditEndpoint(row.endpoint, "webhook.endpoint_disabled", "daemon", reason),
		t.announce(announcement{kind: "webhook.endpoint_disabled", tenant: row.shown.Tenant, subject: o.Endpoint, data: map[string]string{"endpoint": o.Endpoint, "reason": reason}}))
}

// Redelivery says what is to be delivered once more: one delivery, all of an endpoint that have failed, or all events since a
// time that the endpoint wants, delivered or not.
type Redelivery struct {
	Endpoint string    `json:"endpoint,omitempty"`
	Delivery int64     `json:"delivery,omitempty"`
	Failed   bool      `json:"failed,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

// Redeliver begins deliveries anew, with all their attempts, and returns how many. Events keep their IDs.
func (s *Store) Redeliver(ctx context.Context, r Redelivery, who, why string) (n int64, err error) {
	if r.Delivery != 0 {
		if r.Endpoint, err = s.EndpointOf(ctx, r.Delivery); err != nil {
			return 0, err
		}
	}
	if r.Delivery == 0 && !r.Failed && !r.Since.IsZero() {
		return s.redeliverSince(ctx, r, redeliverChunk, who, why)
	}
	return n, s.decideEndpoint(ctx, r.Endpoint, who, why, func(t *txn, row endpointRow) error {
		var result sql.Result
		var err error
		now := t.now.UnixMilli()
		switch {
		case r.Delivery != 0:
			result, err = t.ExecContext(t.ctx, deliverAgain+`seq = $1 AND sending = 0`, r.Delivery, now)
		case r.Failed:
			result, err = t.ExecContext(t.ctx, deliverAgain+`endpoint = $1 AND state = 'failed'`, r.Endpoint, now)
		default:
			return errors.New("say what is to be delivered once more: one delivery, all that have failed, or all since a time")
		}
		if err != nil {
			return err
		}
		if n, err = result.RowsAffected(); err != nil {
			return err
		}
		return t.auditRedelivered(row, n, who, why)
	})
}

const deliverAgain = `UPDATE deliveries SET state = 'pending', sending = 0, failures = 0, ended = 0, due = $2 WHERE `

func (t *txn) auditRedelivered(row endpointRow, n int64, who, why string) error {
	return t.auditShared(row.shown.Tenant, "", deal.Entry{Who: who, What: "webhook.redelivered", Why: why,
		Detail: map[string]string{"endpoint": row.shown.ID, "deliveries": fmt.Sprint(n)}})
}

// redeliverChunk is about how many events of the outbox are gone through in one transaction: deals want to write meanwhile.
const redeliverChunk = 5000

// redeliverSince goes through all that has happened since a time. What it has not come to when it is cut off, it does when it
// is asked once more.
func (s *Store) redeliverSince(ctx context.Context, r Redelivery, chunk int, who, why string) (n int64, err error) {
	for from := r.Since.UnixMilli(); ; {
		var some, until int64
		err := s.decideEndpoint(ctx, r.Endpoint, who, why, func(t *txn, row endpointRow) (err error) {
			until = math.MaxInt64
			if _, err := t.get([]any{&until}, `SELECT at FROM outbox WHERE at >= $1 ORDER BY at LIMIT 1 OFFSET $2`, from, chunk); err != nil {
				return err
			}
			until = max(until, from+1) // where more than that have happened in one millisecond
			if some, err = t.redeliverBetween(row, from, until); err != nil || some == 0 && (n > 0 || until < math.MaxInt64) {
				return err
			}
			return t.auditRedelivered(row, some, who, why)
		})
		if err != nil {
			return n, err
		}
		if n += some; until == math.MaxInt64 {
			return n, nil
		}
		from = until
	}
}

func (t *txn) redeliverBetween(row endpointRow, from, until int64) (n int64, err error) {
	wanted := []string{} // JSON: an empty list, not null
	for _, kind := range webhooks.Catalogue {
		if row.endpoint.Wants(kind.Name) {
			wanted = append(wanted, kind.Name)
		}
	}
	list, err := json.Marshal(wanted)
	if err != nil {
		return 0, err
	}
	house, err := t.ExecContext(t.ctx, deliverAgain+`endpoint = $1 AND sending = 0 AND event IN (SELECT id FROM outbox WHERE tx = '' AND at >= $3 AND at < $4)`, row.shown.ID, t.now.UnixMilli(), from, until)
	if err != nil {
		return 0, err
	}
	deals, err := t.ExecContext(t.ctx, `INSERT INTO deliveries (event, endpoint, state, sending, due, tries, failures, ended)
		SELECT o.id, $1, 'pending', 0, $2, 0, 0, 0 FROM outbox o JOIN sealings s ON s.tx = o.tx
		WHERE o.at >= $3 AND o.at < $7 AND s.tenant = $4 AND o.type IN (SELECT value FROM json_each($5))
			AND (NOT $6 OR EXISTS (SELECT 1 FROM requests r WHERE r.tx = o.tx AND r.endpoint = $1))
		ON CONFLICT (event, endpoint) DO UPDATE SET state = 'pending', failures = 0, ended = 0, due = excluded.due WHERE sending = 0`,
		row.shown.ID, t.now.UnixMilli(), from, row.shown.Tenant, string(list), row.endpoint.Callbacks, until)
	if err != nil {
		return 0, err
	}
	for _, r := range []sql.Result{house, deals} {
		some, err := r.RowsAffected()
		if err != nil {
			return 0, err
		}
		n += some
	}
	return n, nil
}

// EndpointOf returns where a delivery goes to. The error is a *NoDeliveryError if there is none.
func (s *Store) EndpointOf(ctx context.Context, delivery int64) (id string, err error) {
	err = s.view(ctx, func(t *txn) error {
		found, err := t.get([]any{&id}, `SELECT endpoint FROM deliveries WHERE seq = $1`, delivery)
		if err == nil && !found {
			err = &NoDeliveryError{delivery}
		}
		return err
	})
	return id, err
}

// NoDeliveryError means that there is no such delivery, or not any more.
type NoDeliveryError struct{ ID int64 }

func (e *NoDeliveryError) Error() string { return fmt.Sprintf("there is no delivery %d", e.ID) }

// Permanent is always true.
func (e *NoDeliveryError) Permanent() bool { return true }

// DeliveryState is a delivery as it may be shown.
type DeliveryState struct {
	ID       int64     `json:"id"`
	Endpoint string    `json:"endpoint"`
	Event    string    `json:"event"`
	Type     string    `json:"type"`
	Tx       deal.TxID `json:"tx"`
	At       time.Time `json:"at"`
	State    string    `json:"state"`
	Due      time.Time `json:"due,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	Attempts int       `json:"attempts"`
	// Status and Problem are those of the last attempt.
	Status  int    `json:"status,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// Deliveries returns the newest deliveries of an endpoint, or of all if it is empty, in a state, or in any if it is empty.
func (s *Store) Deliveries(ctx context.Context, endpoint, state string, limit int) ([]DeliveryState, error) {
	return s.DeliveriesBefore(ctx, endpoint, state, 0, limit)
}

// DeliveriesBefore is Deliveries of those that are older than one, unless before is 0.
func (s *Store) DeliveriesBefore(ctx context.Context, endpoint, state string, before int64, limit int) (all []DeliveryState, err error) {
	all = []DeliveryState{}
	where, args := "", []any{min(max(limit, 1), 1000)}
	if before > 0 {
		args = append(args, before)
		where = fmt.Sprintf(" AND seq < $%d", len(args))
	}
	for _, f := range []struct{ column, value string }{{"endpoint", endpoint}, {"state", state}} {
		if f.value != "" {
			args = append(args, f.value)
			where += fmt.Sprintf(" AND %s = $%d", f.column, len(args))
		}
	}
	err = s.view(ctx, func(t *txn) error {
		return t.each(func(r *sql.Rows) error {
			var d DeliveryState
			var at, due, ended int64
			err := r.Scan(&d.ID, &d.Endpoint, &d.Event, &d.Type, &d.Tx, &at, &d.State, &due, &ended, &d.Attempts, &d.Status, &d.Problem)
			d.At, d.Ended = fromMillis(at), fromMillis(ended)
			if d.State == "pending" {
				d.Due = fromMillis(due)
			}
			all = append(all, d)
			return err
		}, `SELECT d.seq, d.endpoint, d.event, o.type, o.tx, o.at, d.state, d.due, d.ended, d.tries, coalesce(a.status, 0), coalesce(a.problem, '')
			FROM (SELECT * FROM deliveries WHERE TRUE`+where+` ORDER BY seq DESC LIMIT $1) d
			JOIN outbox o ON o.id = d.event LEFT JOIN delivery_attempts a ON a.delivery = d.seq AND a.n = d.tries ORDER BY d.seq DESC`, args...)
	})
	return all, err
}

// AttemptState is an attempt as it may be shown. The answer is what the receiver wrote: foreign text.
type AttemptState struct {
	N       int           `json:"n"`
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"` // 0: nobody knows what came of it
	Status  int           `json:"status,omitempty"`
	Problem string        `json:"problem,omitempty"`
	Answer  string        `json:"answer,omitempty"`
}

// Attempts returns all attempts of a delivery.
func (s *Store) Attempts(ctx context.Context, delivery int64) (all []AttemptState, err error) {
	all = []AttemptState{}
	id, err := s.EndpointOf(ctx, delivery)
	if err != nil {
		return nil, err
	}
	err = s.view(ctx, func(t *txn) error {
		row, err := t.endpointRow(id)
		if err != nil {
			return err
		}
		return t.each(func(r *sql.Rows) error {
			var a AttemptState
			var at, took int64
			var boxed []byte
			if err := r.Scan(&a.N, &at, &took, &a.Status, &a.Problem, &boxed); err != nil {
				return err
			}
			a.At, a.Took = fromMillis(at), time.Duration(took)*time.Microsecond
			if len(boxed) > 0 {
				answer, err := unbox(s.master.webhooks(row.shown.Tenant), fmt.Sprintf("answer/%d/%d", delivery, a.N), boxed)
				if err != nil {
					return err
				}
				a.Answer = string(answer)
			}
			all = append(all, a)
			return nil
		}, `SELECT n, at, took, status, problem, answer FROM delivery_attempts WHERE delivery = $1 ORDER BY n`, delivery)
	})
	return all, err
}

// keptDeliveries is how long is known what became of a delivery, and it can be made once more.
const keptDeliveries = 30 * 24 * time.Hour

// PruneDeliveries forgets deliveries that have ended long ago, a batch at a time, and returns how many.
func (s *Store) PruneDeliveries(ctx context.Context) (n int64, err error) {
	const query = `SELECT seq FROM deliveries WHERE ended > 0 AND ended < $1 LIMIT 500`
	var old []int64
	err = s.view(ctx, func(t *txn) error {
		old, err = column[int64](t, query, t.now.Add(-keptDeliveries).UnixMilli())
		return err
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	err = s.update(ctx, "commit/sent", func(t *txn) error {
		old, err := column[int64](t, query, t.now.Add(-keptDeliveries).UnixMilli())
		for _, seq := range old {
			err = errors.Join(err, t.exec(`DELETE FROM delivery_attempts WHERE delivery = $1`, seq), t.exec(`DELETE FROM deliveries WHERE seq = $1`, seq))
		}
		n = int64(len(old))
		return err
	})
	return n, err
}
