package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/notify"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

// States of an endpoint.
const (
	EndpointActive   = "active"
	EndpointDisabled = "disabled"
)

// notConfigured is why an endpoint is disabled whose tenant file does not have it any more.
const notConfigured = "it is not in the configuration any more"

// damagedEndpoint is why an endpoint counts as disabled whose row cannot be read. Nothing is put on its way there: nobody knows
// what it wants.
const damagedEndpoint = "what is kept of it is damaged in the database: a reload mends one of a tenant's file, any other is removed and added again; then deliver once more what it has missed"

// rotation is how long two secrets count.
const rotation = 24 * time.Hour

// EndpointError means that an endpoint does not take a change. Trying again cannot help.
type EndpointError struct {
	ID, Reason string
	// Missing means that there is none of that name.
	Missing bool
}

func (e *EndpointError) Error() string { return fmt.Sprintf("endpoint %s: %s", e.ID, e.Reason) }

// Permanent is always true.
func (e *EndpointError) Permanent() bool { return true }

// EndpointState is an endpoint as it may be shown: without its secrets, and of its address the host.
type EndpointState struct {
	ID         string        `json:"id"`
	Tenant     deal.TenantID `json:"tenant"`
	Host       string        `json:"host"`
	Dialect    string        `json:"dialect"`
	Format     string        `json:"format"`
	Events     []string      `json:"events,omitempty"`
	Callbacks  bool          `json:"callbacks,omitempty"`
	Configured bool          `json:"configured"`
	State      string        `json:"state"`
	Reason     string        `json:"reason,omitempty"`
	Since      time.Time     `json:"since"`
	// Failures are those of attempts in a row.
	Failures  int       `json:"failures"`
	Succeeded time.Time `json:"succeeded,omitzero"`
	Tried     time.Time `json:"tried,omitzero"`
	// Secrets is how many count now; two during a rotation.
	Secrets int `json:"secrets"`
	// Pending and Failed count its deliveries, Oldest is since when the oldest of those that are pending has waited.
	Pending int64     `json:"pending"`
	Failed  int64     `json:"failed"`
	Oldest  time.Time `json:"oldest,omitzero"`
	// Documents is how many have an event here that has failed at least three times and is tried again.
	Documents int64 `json:"documents"`
}

// storedEndpoint is what is kept encrypted.
type storedEndpoint struct {
	Endpoint webhooks.Endpoint `json:"endpoint"`
	Secrets  []storedSecret    `json:"secrets"`
}

type storedSecret struct {
	Value []byte    `json:"value"`
	Until time.Time `json:"until,omitzero"`
}

// webhooks protects what a tenant's receivers are told and answer.
func (m master) webhooks(id deal.TenantID) []byte { return m.derive("webhooks", string(id)) }

func (t *txn) boxEndpoint(e webhooks.Endpoint) ([]byte, error) {
	s := storedEndpoint{Endpoint: e}
	for _, one := range e.Secrets {
		s.Secrets = append(s.Secrets, storedSecret{one.Value.Reveal(), one.Until})
	}
	text, err := json.Marshal(s)
	return box(t.s.master.webhooks(deal.TenantID(e.Tenant)), "endpoint/"+e.ID, text), err
}

func (t *txn) unboxEndpoint(id string, tenant deal.TenantID, boxed []byte) (e webhooks.Endpoint, err error) {
	text, err := unbox(t.s.master.webhooks(tenant), "endpoint/"+id, boxed)
	var s storedEndpoint
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return e, fmt.Errorf("endpoint %s: %w", id, errDamaged)
	}
	e = s.Endpoint
	for _, one := range s.Secrets {
		e.Secrets = append(e.Secrets, webhooks.Secret{Value: secret.New(one.Value), Until: one.Until})
	}
	return e, nil
}

// endpointRow is an endpoint with what became of it.
type endpointRow struct {
	endpoint webhooks.Endpoint
	shown    EndpointState
}

// endpointRows reads endpoints, by their IDs.
func (t *txn) endpointRows(where string, args ...any) (all []endpointRow, err error) {
	err = t.each(func(r *sql.Rows) error {
		var s EndpointState
		var boxed []byte
		var since, succeeded, tried int64
		if err := r.Scan(&s.ID, &s.Tenant, &s.Configured, &boxed, &s.State, &s.Reason, &since, &s.Failures, &succeeded, &tried); err != nil {
			return err
		}
		e, err := t.unboxEndpoint(s.ID, s.Tenant, boxed)
		s.Since, s.Succeeded, s.Tried = fromMillis(since), fromMillis(succeeded), fromMillis(tried)
		if errors.Is(err, errDamaged) { // the others go on
			t.s.log.Error("an endpoint of webhooks cannot be read", "endpoint", s.ID, "err", err)
			s.State, s.Reason = EndpointDisabled, damagedEndpoint
			all = append(all, endpointRow{webhooks.Endpoint{ID: s.ID, Tenant: string(s.Tenant)}, s})
			return nil
		}
		s.Host, s.Dialect, s.Format, s.Events, s.Callbacks = e.Host(), e.Dialect, e.Format, e.Events, e.Callbacks
		for _, one := range e.Secrets {
			if one.Until.IsZero() || one.Until.After(t.now) {
				s.Secrets++
			}
		}
		all = append(all, endpointRow{e, s})
		return err
	}, `SELECT id, tenant, configured, endpoint, state, reason, since, failures, succeeded, tried FROM endpoints `+where+` ORDER BY id`, args...)
	return all, err
}

func (t *txn) endpointRow(id string) (row endpointRow, err error) {
	all, err := t.endpointRows(`WHERE id = $1`, id)
	if err == nil && len(all) == 0 {
		err = noEndpoint(id)
	}
	if err != nil {
		return row, err
	}
	return all[0], nil
}

// Endpoints returns those that are delivered to, with their secrets.
func (s *Store) Endpoints(ctx context.Context) (all []webhooks.Endpoint, err error) {
	err = s.view(ctx, func(t *txn) error {
		rows, err := t.endpointRows(`WHERE state = 'active'`)
		for _, r := range rows {
			if r.shown.State == EndpointActive {
				all = append(all, r.endpoint)
			}
		}
		return err
	})
	return all, err
}

// Endpoint returns one with its secrets, whether or not it is disabled.
func (s *Store) Endpoint(ctx context.Context, id string) (e webhooks.Endpoint, err error) {
	err = s.view(ctx, func(t *txn) error {
		row, err := t.endpointRow(id)
		e = row.endpoint
		return err
	})
	return e, err
}

// maxCounted bounds what is counted of an endpoint's deliveries to show them.
const maxCounted = 100000

// EndpointStates returns how all endpoints are doing.
func (s *Store) EndpointStates(ctx context.Context) ([]EndpointState, error) {
	return s.endpointStates(ctx, "")
}

// EndpointState returns how one is doing. The error is an *EndpointError if there is none.
func (s *Store) EndpointState(ctx context.Context, id string) (e EndpointState, err error) {
	all, err := s.endpointStates(ctx, `WHERE id = $1`, id)
	if err == nil && len(all) == 0 {
		err = noEndpoint(id)
	}
	if err != nil {
		return e, err
	}
	return all[0], nil
}

func noEndpoint(id string) error {
	return &EndpointError{ID: id, Reason: "there is none: \"dealseal webhooks list\" shows those that there are", Missing: true}
}

func (s *Store) endpointStates(ctx context.Context, where string, args ...any) (all []EndpointState, err error) {
	all = []EndpointState{} // JSON: an empty list, not null
	err = s.view(ctx, func(t *txn) error {
		rows, err := t.endpointRows(where, args...)
		if err != nil {
			return err
		}
		for _, r := range rows {
			st := r.shown
			for state, n := range map[string]*int64{"pending": &st.Pending, "failed": &st.Failed} {
				if _, err := t.get([]any{n}, `SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE endpoint = $1 AND state = '`+state+`' LIMIT $2)`, st.ID, maxCounted); err != nil {
					return err
				}
			}
			if _, err := t.get([]any{&st.Documents}, `SELECT count(DISTINCT o.tx) FROM (SELECT event, failures FROM deliveries WHERE endpoint = $1 AND state = 'pending' ORDER BY due, seq LIMIT $2) d
				JOIN outbox o ON o.id = d.event WHERE d.failures >= $3`, st.ID, maxCounted, FailingAfter); err != nil {
				return err
			}
			var oldest int64
			if _, err := t.get([]any{&oldest}, `SELECT coalesce(min(o.at), 0) FROM (SELECT event FROM deliveries WHERE endpoint = $1 AND state = 'pending' ORDER BY due, seq LIMIT 100) d JOIN outbox o ON o.id = d.event`, st.ID); err != nil {
				return err
			}
			st.Oldest = fromMillis(oldest)
			all = append(all, st)
		}
		return nil
	})
	return all, err
}

// mostAdded is how many endpoints of a tenant may be added besides those of its file: each is looked at for every event, and a
// program could add them without end.
const mostAdded = 500

// AddEndpoint enters one that a person has made. Who and why go into the audit log.
func (s *Store) AddEndpoint(ctx context.Context, e webhooks.Endpoint, who, why string) error {
	if len(e.Secrets) == 0 {
		return &EndpointError{ID: e.ID, Reason: "it has no secret"}
	}
	if err := e.Check(); err != nil {
		return err
	}
	return s.changeEndpoints(ctx, who, why, func(t *txn) error {
		var n int
		if _, err := t.get([]any{&n}, `SELECT count(*) FROM endpoints WHERE tenant = $1 AND configured = 0`, e.Tenant); err != nil {
			return err
		}
		if n >= mostAdded {
			return &webhooks.FieldError{Field: "id", Msg: fmt.Sprintf("%s has %d webhooks that were added while the daemon ran, which is the most: remove one first", e.Tenant, n)}
		}
		boxed, err := t.boxEndpoint(e)
		if err != nil {
			return err
		}
		added, err := t.execOne(`INSERT INTO endpoints (id, tenant, configured, endpoint, state, reason, since, failures, succeeded, tried)
			VALUES ($1, $2, 0, $3, 'active', '', $4, 0, 0, 0) ON CONFLICT DO NOTHING`, e.ID, e.Tenant, boxed, t.now.UnixMilli())
		if err == nil && !added {
			err = &EndpointError{ID: e.ID, Reason: "there is one already"}
		}
		if err != nil {
			return err
		}
		return t.auditEndpoint(e, "webhook.endpoint_added", who, why)
	})
}

// auditEndpoint names the endpoint and the host of its address.
func (t *txn) auditEndpoint(e webhooks.Endpoint, what, who, why string) error {
	return t.auditShared(deal.TenantID(e.Tenant), "", deal.Entry{Who: who, What: what, Why: why, Detail: map[string]string{"endpoint": e.ID, "host": e.Host()}})
}

// changeEndpoints commits what a person, who must give a name, or the configuration has decided.
func (s *Store) changeEndpoints(ctx context.Context, who, why string, do func(*txn) error) error {
	if who == "" || why == "" {
		return errors.New("say who and why: both go into the audit log")
	}
	defer s.forgetSubscriptions()
	return s.update(ctx, "commit/endpoint", func(t *txn) error {
		s.forgetSubscriptions()
		t.ring(webhooks.AllEndpoints)
		return do(t)
	})
}

// decideEndpoint is changeEndpoints for one that exists.
func (s *Store) decideEndpoint(ctx context.Context, id, who, why string, do func(*txn, endpointRow) error) error {
	return s.changeEndpoints(ctx, who, why, func(t *txn) error {
		row, err := t.endpointRow(id)
		if err != nil {
			return err
		}
		return do(t, row)
	})
}

// RemoveEndpoint ends an endpoint that a person has made, or one that is not in the configuration any more, with all that
// was on its way there.
func (s *Store) RemoveEndpoint(ctx context.Context, id, who, why string) error {
	return s.decideEndpoint(ctx, id, who, why, func(t *txn, row endpointRow) error {
		if row.shown.Configured && row.shown.Reason != notConfigured {
			return &EndpointError{ID: id, Reason: "it is in the tenant's file: take it out there, and reload"}
		}
		for _, query := range []string{
			`DELETE FROM delivery_attempts WHERE delivery IN (SELECT seq FROM deliveries WHERE endpoint = $1)`,
			`DELETE FROM deliveries WHERE endpoint = $1`,
			`DELETE FROM endpoints WHERE id = $1`,
		} {
			if err := t.exec(query, id); err != nil {
				return err
			}
		}
		return errors.Join(t.calm(notify.Endpoint, row.shown.Tenant, id), t.auditEndpoint(row.endpoint, "webhook.endpoint_removed", who, why))
	})
}

// SetEndpoint disables an endpoint, whose deliveries then wait, or enables it, and all of them are due.
func (s *Store) SetEndpoint(ctx context.Context, id string, enable bool, who, why string) error {
	return s.decideEndpoint(ctx, id, who, why, func(t *txn, row endpointRow) error {
		switch {
		case enable && row.shown.Reason == notConfigured:
			return &EndpointError{ID: id, Reason: notConfigured + ": put it back there, and reload"}
		case row.shown.Reason == damagedEndpoint:
			return &EndpointError{ID: id, Reason: damagedEndpoint}
		case enable:
			return errors.Join(t.enable(id), t.auditEndpoint(row.endpoint, "webhook.endpoint_enabled", who, why))
		}
		return errors.Join(t.disable(id, "disabled by "+who+": "+why), t.auditEndpoint(row.endpoint, "webhook.endpoint_disabled", who, why))
	})
}

func (t *txn) enable(id string) error {
	return errors.Join(
		t.exec(`UPDATE endpoints SET state = 'active', reason = '', since = $2, failures = 0 WHERE id = $1`, id, t.now.UnixMilli()),
		t.exec(`UPDATE deliveries SET due = $2 WHERE endpoint = $1 AND state = 'pending' AND sending = 0 AND due > $2`, id, t.now.UnixMilli()))
}

func (t *txn) disable(id, reason string) error {
	t.ring(webhooks.AllEndpoints)
	t.s.forgetSubscriptions()
	return t.exec(`UPDATE endpoints SET state = 'disabled', reason = $2, since = $3 WHERE id = $1`, id, reason, t.now.UnixMilli())
}

// RotateEndpoint gives an endpoint that a person has made another secret. The one before counts for a day beside it.
func (s *Store) RotateEndpoint(ctx context.Context, id string, value secret.Secret, who, why string) error {
	return s.decideEndpoint(ctx, id, who, why, func(t *txn, row endpointRow) error {
		if row.shown.Configured {
			return &EndpointError{ID: id, Reason: "its secret is where the tenant's file says: change it there, and reload"}
		}
		if row.shown.Reason == damagedEndpoint {
			return &EndpointError{ID: id, Reason: damagedEndpoint}
		}
		e := row.endpoint
		e.Secrets = rotated(e.Secrets, value, t.now)
		if err := e.Check(); err != nil {
			return err
		}
		return errors.Join(t.saveEndpoint(e), t.auditEndpoint(e, "webhook.secret_rotated", who, why))
	})
}

// rotated puts a new secret before the newest one, which ends in a while; those before that end now.
func rotated(old []webhooks.Secret, value secret.Secret, now time.Time) []webhooks.Secret {
	out := []webhooks.Secret{{Value: value}}
	if len(old) > 0 {
		out = append(out, webhooks.Secret{Value: old[0].Value, Until: now.Add(rotation)})
	}
	return out
}

func (t *txn) saveEndpoint(e webhooks.Endpoint) error {
	boxed, err := t.boxEndpoint(e)
	if err != nil {
		return err
	}
	return t.exec(`UPDATE endpoints SET endpoint = $2 WHERE id = $1`, e.ID, boxed)
}

// ConfigureEndpoints makes the endpoints of the tenant files what these say, each with its one secret. A secret that is new
// counts beside the one before it for a while. What is not configured any more is disabled and keeps its deliveries. An
// endpoint that a person has made is not replaced: the error is an *EndpointError.
func (s *Store) ConfigureEndpoints(ctx context.Context, configured []webhooks.Endpoint) error {
	return s.changeEndpoints(ctx, "daemon", "the configuration was read", func(t *txn) error {
		rows, err := t.endpointRows("")
		if err != nil {
			return err
		}
		known := map[string]endpointRow{}
		for _, r := range rows {
			known[r.shown.ID] = r
		}
		for _, e := range configured {
			row, exists := known[e.ID]
			delete(known, e.ID)
			if exists && !row.shown.Configured {
				return &EndpointError{ID: e.ID, Reason: "a person has made one of that name: remove it, or give the one in the tenant's file another id"}
			}
			if err := t.configureEndpoint(e, row, exists); err != nil {
				return err
			}
		}
		for _, id := range slices.Sorted(maps.Keys(known)) {
			if row := known[id]; row.shown.Configured && row.shown.Reason != notConfigured {
				if err := errors.Join(t.disable(id, notConfigured), t.calm(notify.Endpoint, row.shown.Tenant, id), t.auditEndpoint(row.endpoint, "webhook.endpoint_disabled", "daemon", notConfigured)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (t *txn) configureEndpoint(e webhooks.Endpoint, row endpointRow, exists bool) error {
	if !exists {
		boxed, err := t.boxEndpoint(e)
		if err != nil {
			return err
		}
		return errors.Join(t.exec(`INSERT INTO endpoints (id, tenant, configured, endpoint, state, reason, since, failures, succeeded, tried)
			VALUES ($1, $2, 1, $3, 'active', '', $4, 0, 0, 0)`, e.ID, e.Tenant, boxed, t.now.UnixMilli()),
			t.auditEndpoint(e, "webhook.endpoint_added", "daemon", "it is in the configuration"))
	}
	fresh := e.Secrets[0].Value
	e.Secrets = row.endpoint.Secrets
	if len(e.Secrets) == 0 || string(e.Secrets[0].Value.Reveal()) != string(fresh.Reveal()) {
		e.Secrets = rotated(e.Secrets, fresh, t.now)
	}
	changed := !webhooks.Same(e, row.endpoint)
	if changed {
		if err := errors.Join(t.saveEndpoint(e), t.auditEndpoint(e, "webhook.endpoint_changed", "daemon", "the configuration has changed")); err != nil {
			return err
		}
	}
	// What its receiver, or too many failures, have disabled stays so until somebody has looked: at the configuration, or here.
	if row.shown.Reason == notConfigured || changed && row.shown.State == EndpointDisabled {
		return errors.Join(t.enable(e.ID), t.auditEndpoint(e, "webhook.endpoint_enabled", "daemon", "it is in the configuration"))
	}
	return nil
}
