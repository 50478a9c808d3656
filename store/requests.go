package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/webhooks"
)

// requests hashes what programs have called their requests.
func (m master) requests(id deal.TenantID) []byte { return m.derive("requests", string(id)) }

func (t *txn) requestHash(tenant deal.TenantID, what, text string) []byte {
	mac := hmac.New(sha256.New, t.s.master.requests(tenant))
	fmt.Fprintf(mac, "%s\x00%s", what, text)
	return mac.Sum(nil)
}

// Requested returns the transaction of a request that was taken in before; empty if there is none. A *deal.RequestError says
// that its key was used for something else.
func (s *Store) Requested(ctx context.Context, tenant deal.TenantID, q deal.Request) (tx deal.TxID, err error) {
	err = s.view(ctx, func(t *txn) error {
		tx, err = t.requested(tenant, q)
		return err
	})
	return tx, err
}

func (t *txn) requested(tenant deal.TenantID, q deal.Request) (tx deal.TxID, err error) {
	var asked []byte
	found, err := t.get([]any{&tx, &asked}, `SELECT tx, asked FROM requests WHERE tenant = $1 AND key = $2`, tenant, t.requestHash(tenant, "key", q.Key))
	if err == nil && found && !hmac.Equal(asked, t.requestHash(tenant, "asked", q.Asked)) {
		return "", &deal.RequestError{Reason: "this key was used before, for something else: take another one for another contract"}
	}
	return tx, err
}

// Request takes in a contract that a program asks for, as the one entry of n: as Notice takes in the entries of a poll, with
// the same guard, but beside the cursor, which it neither compares nor moves. The same request again is the transaction of the
// first. A *deal.RequestError says why it is not taken; nothing is kept then.
func (s *Store) Request(ctx context.Context, n deal.Noticing, q deal.Request) (tx deal.TxID, err error) {
	if err := checkTenant(n.Tenant); err != nil {
		return "", err
	}
	if len(n.Page.Entries) != 1 || q.Key == "" || q.Who == "" || n.Page.Entries[0].Occurrence != q.Occurrence() {
		return "", fmt.Errorf("a request must be one entry with its own occurrence, and say who asks")
	}
	err = s.update(ctx, "commit/request", func(t *txn) error {
		tx, err = t.request(n, q)
		return err
	})
	return tx, err
}

func (t *txn) request(n deal.Noticing, q deal.Request) (deal.TxID, error) {
	c := n.Page.Entries[0]
	if tx, err := t.requested(n.Tenant, q); err != nil || tx != "" {
		return tx, err
	}
	since, err := t.watch(n)
	if err != nil {
		return "", err
	}
	if c.At.Before(since[c.Rule]) {
		return "", &deal.RequestError{Reason: fmt.Sprintf("rule %q begins only later (start_from)", c.Rule)}
	}
	owner, known, err := t.know(c.TxIDs(n.Account))
	if err != nil {
		return "", err
	}
	if known { // the archive had it, or it was asked for under an older ID of its record
		return owner, t.keepRequest(n.Tenant, q, owner, "", nil)
	}
	if err := t.mayBeRequested(n, c); err != nil {
		return "", err
	}
	hook, err := t.callbackOf(n.Tenant, q.Callback)
	if err != nil {
		return "", err
	}
	arrivals, err := t.guardPage(n, []deal.Change{c})
	if err != nil {
		return "", fmt.Errorf("guard: %w", err)
	}
	a := arrivals[0]
	a.who, a.request = q.Who, func(tx deal.TxID, key *dataKey) error { return t.keepRequest(n.Tenant, q, tx, hook, key) }
	return t.notice(n, a)
}

const standingQuery = `SELECT DISTINCT s.seq, s.tx, s.tenant, s.rule, s.step = 'done' OR s.condition = 'ended' FROM record_ids i JOIN sealings s ON s.seq = i.seq JOIN plans p ON p.hash = s.plan
	WHERE i.account = $1 AND i.object = $2 AND i.record = $3 AND (s.rule = $4 OR $5 <> '' AND json_extract(p.plan, '$.template') = $5)
		AND (s.condition <> 'ended' OR s.signature = 1 OR s.adopted = 1) ORDER BY s.seq`

// mayBeRequested refuses a second contract beside one that the same rule, or another one with the same template, is making of
// the record. One that the rule has made counts as well, unless it seals a record again (re_entry). Which rule and deal it is, is
// not told of another tenant's.
func (t *txn) mayBeRequested(n deal.Noticing, c deal.Change) error {
	plan := n.Plans[c.Rule]
	for _, id := range append([]string{c.Ref.ID}, c.Aliases...) {
		var refused error
		err := t.each(func(r *sql.Rows) error {
			var seq int64
			var tx deal.TxID
			var tenant deal.TenantID
			var rule string
			var over bool
			err := r.Scan(&seq, &tx, &tenant, &rule, &over)
			switch {
			case err != nil || refused != nil:
			case !over && tenant != n.Tenant:
				refused = &deal.RequestError{Conflict: true, Reason: "a rule of another tenant, with the same template, is already at work on this record"}
			case !over:
				refused = &deal.RequestError{Conflict: true, Reason: fmt.Sprintf("rule %q is already at work on this record: transaction %s", rule, tx)}
			case rule == c.Rule && plan.ReEntry != "seal":
				refused = &deal.RequestError{Conflict: true, Reason: fmt.Sprintf("rule %q has already sealed a contract of this record: transaction %s (with re_entry: seal it would make another)", rule, tx)}
			}
			return err
		}, standingQuery, n.Account, c.Ref.Object, id, c.Rule, plan.Template)
		if err != nil || refused != nil {
			return errors.Join(err, refused)
		}
	}
	return nil
}

// keepRequest takes note of what was asked for. Without a hook nobody is called back.
func (t *txn) keepRequest(tenant deal.TenantID, q deal.Request, tx deal.TxID, hook string, key *dataKey) error {
	callback := []byte{}
	if hook != "" {
		callback = box(key.rows, "callback/"+string(tx), []byte(q.Callback))
	}
	return t.exec(`INSERT INTO requests (tx, tenant, key, asked, at, endpoint, callback) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		tx, tenant, t.requestHash(tenant, "key", q.Key), t.requestHash(tenant, "asked", q.Asked), t.now.UnixMilli(), hook, callback)
}

// callbackOf finds the endpoint that an address belongs to: the one whose own address is the longest.
func (t *txn) callbackOf(tenant deal.TenantID, address string) (hook string, err error) {
	if address == "" {
		return "", nil
	}
	rows, err := t.endpointRows(`WHERE tenant = $1`, tenant)
	if err != nil {
		return "", err
	}
	longest := -1
	for _, r := range rows {
		if r.endpoint.Covers(address) && len(r.endpoint.URL) > longest {
			hook, longest = r.shown.ID, len(r.endpoint.URL)
		}
	}
	if hook == "" {
		return "", &deal.RequestError{Reason: "callback_url is not below the address of a webhook of this tenant that is there for callbacks: an administrator adds one (docs/api.md)"}
	}
	return hook, nil
}

// called reports whether an event is told to an endpoint, as far as callbacks go: one that is there for these is told of deals
// that were asked for with an address of it.
func (t *txn) called(event string, e webhooks.Endpoint) (called bool, err error) {
	if !e.Callbacks {
		return true, nil
	}
	_, err = t.get([]any{&called}, `SELECT count(*) > 0 FROM outbox o JOIN requests r ON r.tx = o.tx WHERE o.id = $1 AND r.endpoint = $2`, event, e.ID)
	return called, err
}

// callback is the address that an event of a deal is told to; empty once the deal was erased, or when the endpoint has another
// address than it had.
func (t *txn) callback(e webhooks.Event, hook webhooks.Endpoint) (string, error) {
	tx := deal.TxID(e.Transaction)
	var boxed []byte
	found, err := t.get([]any{&boxed}, `SELECT callback FROM requests WHERE tx = $1 AND endpoint = $2`, tx, hook.ID)
	if err != nil || !found || len(boxed) == 0 {
		return "", err
	}
	key, err := t.dataKey(tx)
	if isErased(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	address, err := unbox(key.rows, "callback/"+string(tx), boxed)
	if err != nil {
		return "", fmt.Errorf("%s: callback: %w", tx, err)
	}
	if !hook.Covers(string(address)) {
		return "", nil
	}
	return string(address), nil
}

// forgetCallback has nobody called back any more of a deal that is about to be erased.
func (t *txn) forgetCallback(tx deal.TxID) error {
	const pending = `SELECT d.seq FROM deliveries d JOIN outbox o ON o.id = d.event JOIN requests r ON r.tx = o.tx AND r.endpoint = d.endpoint WHERE o.tx = $1 AND d.state = 'pending'`
	for _, query := range []string{
		`DELETE FROM delivery_attempts WHERE delivery IN (` + pending + `)`,
		`DELETE FROM deliveries WHERE seq IN (` + pending + `)`,
		`UPDATE requests SET endpoint = '', callback = x'' WHERE tx = $1`,
	} {
		if err := t.exec(query, tx); err != nil {
			return err
		}
	}
	return nil
}
