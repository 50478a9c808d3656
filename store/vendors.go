package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// keepTold is how long events are kept of an envelope that no deal turns out to have, or whose deal is over: a vendor's account
// may be used for other contracts too, and a rule's stage may be entered long after the envelope was sent.
const keepTold = 90 * 24 * time.Hour

// mostNameless is how many deals that do not know their envelope look again when there is news of one that nobody has.
const mostNameless = 100

// vendors protects what a tenant's vendors have told.
func (m master) vendors(id deal.TenantID) []byte { return m.derive("vendors", string(id)) }

// privateNews is what is kept of an event only encrypted.
type privateNews struct {
	URL    string `json:"url,omitempty"`
	Reason string `json:"reason,omitempty"`
	Title  string `json:"title,omitempty"`
}

// hear takes in what a vendor tells, and has the deal go on whose envelope it is about.
func (t *txn) hear(a deal.Arrival) error {
	for _, e := range a.Told {
		env := deal.Envelope{Tenant: a.Tenant, Vendor: a.Source, ID: e.Envelope}
		verdict, err := t.hearOne(env, e)
		if err == nil {
			err = t.logPush(deal.Push{Tenant: a.Tenant, Source: a.Source, Verdict: verdict, Ref: deal.Ref{Object: a.Source, ID: e.Envelope}, N: 1})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) hearOne(env deal.Envelope, e deal.VendorEvent) (deal.PushVerdict, error) {
	text, err := json.Marshal(privateNews{e.URL, e.Reason, e.Title})
	if err != nil {
		return "", err
	}
	private := box(t.s.master.vendors(env.Tenant), newsContext(env, e.Digest[:]), text)
	fresh, err := t.execOne(`INSERT INTO vendor_events (tenant, vendor, envelope, digest, news, at, came, private) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
		env.Tenant, env.Vendor, env.ID, e.Digest[:], e.News, millis(e.At), t.now.UnixMilli(), private)
	if err != nil || !fresh {
		return deal.PushRepeated, err
	}
	tx, err := t.holder(env)
	if err != nil {
		return "", err
	}
	if tx != "" {
		return deal.PushTaken, t.goOnWith(tx, e.News)
	}
	return deal.PushKept, t.rouseNameless(env)
}

// newsContext binds the private part of an event to its row.
func newsContext(env deal.Envelope, digest []byte) string {
	return "vendor/" + env.Vendor + "/" + env.ID + "/" + hex.EncodeToString(digest)
}

// holder returns whose an envelope is, "" if nobody's, or only that of one that has given it up: it was dropped, or its record
// has named another one since, and may have named this one by mistake.
func (t *txn) holder(env deal.Envelope) (tx deal.TxID, err error) {
	_, err = t.get([]any{&tx}, `SELECT e.tx FROM envelopes e LEFT JOIN sealings s ON s.tx = e.tx WHERE e.tenant = $1 AND e.vendor = $2 AND e.envelope = $3
		AND NOT coalesce(s.step IN ('noticed', 'gathered') AND s.condition = 'ended' AND s.reason LIKE 'dropped%'
			OR coalesce(json_extract(s.facts, '$.envelope'), '') NOT IN ('', $3), 0)`, env.Tenant, env.Vendor, env.ID)
	return tx, err
}

// goOnWith has a deal look at what its vendor has told, if it waits for that, or if the vendor has ended it and now says that
// it is signed. One that is at work looks by itself: see listen.
func (t *txn) goOnWith(tx deal.TxID, news deal.EnvelopeNews) error {
	sl, key, err := t.load(tx)
	if err != nil || key == nil { // erased
		return err
	}
	r, err := t.row(tx)
	if err != nil || t.leased(r, "") {
		return err
	}
	after := sl.EndedByVendor() && news == deal.EnvelopeCompleted
	if !sl.Awaits() && !after {
		return nil
	}
	e := deal.Entry{Who: "daemon", What: "vendor-told", Why: sl.Plan.Delegated.Vendor + " has told of its envelope: " + string(news)}
	if after {
		e.Events = resumed(deal.Ended)
		sl.Condition, sl.Reason = deal.Retrying, deal.ReasonAwaiting+sl.Plan.Delegated.Vendor+" says that it is signed after all"
	}
	sl.Next = t.now
	if err := t.advance(r, sl, key, e); err != nil {
		return err
	}
	return t.showUnlessGuarded(r, sl)
}

// namelessQuery finds deals that wait for the ID of their envelope.
const namelessQuery = `SELECT tx FROM sealings WHERE tenant = $1 AND condition = 'retrying' AND json_extract(facts, '$.waits_for') = $2 ORDER BY seq LIMIT $3`

// rouseNameless has deals look at their records again that do not know the ID of their envelope yet: it may be this one.
func (t *txn) rouseNameless(env deal.Envelope) error {
	waiting, err := column[deal.TxID](t, namelessQuery, env.Tenant, deal.WaitsForEnvelope(env.Vendor), mostNameless)
	if err != nil {
		return err
	}
	for _, tx := range waiting {
		if err := t.want(deal.JobSeal, string(tx), env.Tenant, t.now); err != nil {
			return err
		}
		if err := t.exec(`UPDATE sealings SET next = $2 WHERE tx = $1`, tx, t.now.UnixMilli()); err != nil {
			return err
		}
	}
	return nil
}

// listen is for each change of a sealing that knows its envelope. It makes the envelope its own. If it is to wait for more
// although there is more than it has heard, it does not wait. One that waits for its record to name an envelope has heard
// nothing of the one before, whatever was told of that, and would look without end.
func (t *txn) listen(sl *deal.Sealing) error {
	if sl.Plan.Delegated == nil || sl.Facts.Envelope == "" {
		return nil
	}
	env := deal.Envelope{Tenant: sl.Tenant, Vendor: sl.Plan.Delegated.Vendor, ID: sl.Facts.Envelope}
	if err := t.claim(env, sl.Tx); err != nil || !sl.Awaits() || sl.Facts.WaitsFor != "" {
		return err
	}
	n, err := t.told(env)
	if err == nil && n > sl.Facts.Heard {
		sl.Next = t.now
	}
	return err
}

// unheard refuses to end a sealing as its vendor wants if the vendor has told more since that was looked up: nothing would have
// the sealing look at it any more.
func (t *txn) unheard(r *row, sl *deal.Sealing) error {
	if !sl.EndedByVendor() || r.condition == deal.Ended || sl.Step != deal.Gathered || sl.Facts.Envelope == "" {
		return nil
	}
	n, err := t.told(deal.Envelope{Tenant: sl.Tenant, Vendor: sl.Plan.Delegated.Vendor, ID: sl.Facts.Envelope})
	if err == nil && n > sl.Facts.Heard {
		err = stale("%s: its vendor has told more", sl.Tx)
	}
	return err
}

func (t *txn) told(env deal.Envelope) (n int, err error) {
	_, err = t.get([]any{&n}, `SELECT count(*) FROM vendor_events WHERE tenant = $1 AND vendor = $2 AND envelope = $3`, env.Tenant, env.Vendor, env.ID)
	return n, err
}

// claim makes an envelope a sealing's own, unless it is another's that has not given it up.
func (t *txn) claim(env deal.Envelope, tx deal.TxID) error {
	holder, err := t.holder(env)
	if err != nil || holder == tx {
		return err
	}
	if holder != "" {
		return refuse(tx, "the envelope is that of %s", holder)
	}
	return t.exec(`INSERT INTO envelopes (tenant, vendor, envelope, tx) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, vendor, envelope) DO UPDATE SET tx = excluded.tx`, env.Tenant, env.Vendor, env.ID, tx)
}

// EnvelopeHolder returns the transaction whose an envelope is; "" if nobody's, or only that of one that has given it up.
func (s *Store) EnvelopeHolder(ctx context.Context, env deal.Envelope) (tx deal.TxID, err error) {
	err = s.view(ctx, func(t *txn) error {
		tx, err = t.holder(env)
		return err
	})
	return tx, err
}

// VendorTold returns what a vendor has told of an envelope, in the order in which it came.
func (s *Store) VendorTold(ctx context.Context, env deal.Envelope) (all []deal.VendorEvent, err error) {
	err = s.view(ctx, func(t *txn) error {
		all = nil
		return t.each(func(r *sql.Rows) error {
			e := deal.VendorEvent{Envelope: env.ID}
			var at int64
			var digest, boxed []byte
			if err := r.Scan(&digest, &e.News, &at, &boxed); err != nil {
				return err
			}
			e.At = fromMillis(at)
			copy(e.Digest[:], digest)
			text, err := unbox(t.s.master.vendors(env.Tenant), newsContext(env, digest), boxed)
			var p privateNews
			if err == nil {
				err = json.Unmarshal(text, &p)
			}
			if err != nil {
				return fmt.Errorf("an event of envelope %s: %w", env.ID, errDamaged)
			}
			e.URL, e.Reason, e.Title = p.URL, p.Reason, p.Title
			all = append(all, e)
			return nil
		}, `SELECT digest, news, at, private FROM vendor_events WHERE tenant = $1 AND vendor = $2 AND envelope = $3 ORDER BY seq`, env.Tenant, env.Vendor, env.ID)
	})
	return all, err
}

// forgetTold is for what is erased: that the envelope was this deal's stays.
const forgetTold = `DELETE FROM vendor_events WHERE seq IN (SELECT v.seq FROM vendor_events v JOIN envelopes e ON e.tenant = v.tenant AND e.vendor = v.vendor AND e.envelope = v.envelope WHERE e.tx = $1)`

// forgetOld is for envelopes that are no deal's, or that of one that is over.
const forgetOld = `DELETE FROM vendor_events WHERE seq IN (SELECT v.seq FROM vendor_events v WHERE v.came < $1
	AND NOT EXISTS (SELECT 1 FROM envelopes e JOIN sealings s ON s.tx = e.tx WHERE e.tenant = v.tenant AND e.vendor = v.vendor AND e.envelope = v.envelope
		AND s.step <> 'done' AND s.condition <> 'ended') LIMIT $2)`
