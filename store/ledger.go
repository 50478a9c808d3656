package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Notice takes in one page: the entries that the ledger does not know under any of their names become sealings, each
// with its data key, receipt, job and audit entry, and the cursor moves, all in one transaction. deal.ErrStale means
// that the cursor is not the one that the page was read with. Entries from before the activation of the watch that found
// them are passed over. Of an entry that is known under another ID of its record it takes note as Identify does. What the
// page's guard does not let through is held, and nothing of it is told to the CRM. Of what was filtered it takes note, and of what
// was seen: a page whose inferred entries are not those that follow from its sightings now is refused with deal.ErrStale, too. It
// returns the transactions that are new, in the page's order.
func (s *Store) Notice(ctx context.Context, n deal.Noticing) (fresh []deal.TxID, err error) {
	if err := checkTenant(n.Tenant); err != nil {
		return nil, err
	}
	err = s.update(ctx, "commit/notice", func(t *txn) error {
		at, err := t.cursor(n.Tenant, n.Account)
		if err != nil {
			return err
		}
		if at.String() != n.Previous.String() {
			return stale("cursor of tenant %q in %s", n.Tenant, n.Account)
		}
		since, err := t.watch(n)
		if err != nil {
			return err
		}
		if err := t.see(n); err != nil {
			return err
		}
		for _, q := range n.Page.Quarantined {
			if err := t.quarantine(n.Account, q); err != nil {
				return err
			}
		}
		if fresh, err = t.noticeAll(n, since); err != nil {
			return err
		}
		if err := t.leaveOut(n, since); err != nil {
			return err
		}
		if err := t.endFirstRuns(n); err != nil {
			return err
		}
		return t.setCursor(n.Tenant, n.Account, n.Page.Next)
	})
	if err != nil {
		return nil, err
	}
	return fresh, nil
}

// noticeAll takes in the entries of a page and returns the transactions of those that are new.
func (t *txn) noticeAll(n deal.Noticing, since map[string]time.Time) (txs []deal.TxID, err error) {
	failed := func(c deal.Change, err error) error {
		return fmt.Errorf("notice %s, entry %s: %w", c.Ref, c.Occurrence, err)
	}
	var fresh []deal.Change
	again := map[int]deal.TxID{} // entries that are known, and to whom
	for i, c := range n.Page.Entries {
		owner, isFresh, err := t.isFresh(n, c, since)
		switch {
		case err != nil:
			return nil, failed(c, err)
		case isFresh:
			fresh = append(fresh, c)
		case owner != "":
			again[i] = owner
		}
	}
	arrivals, err := t.guardPage(n, fresh)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	for _, a := range arrivals {
		tx, err := t.notice(n, a)
		if err != nil {
			return nil, failed(a.change, err)
		}
		txs = append(txs, tx)
	}
	for i, c := range n.Page.Entries { // after the others: an entry may be on a page under two names
		if owner, known := again[i]; known {
			if err := t.recognise(owner, c); err != nil {
				return nil, failed(c, err)
			}
		}
	}
	return txs, nil
}

// isFresh files an entry under all of its names. owner is whose they are, empty for an entry from before its rule.
func (t *txn) isFresh(n deal.Noticing, c deal.Change, since map[string]time.Time) (owner deal.TxID, fresh bool, err error) {
	if _, ok := n.Plans[c.Rule]; !ok {
		return "", false, fmt.Errorf("no plan for rule %q", c.Rule)
	}
	active, ok := since[c.Rule]
	if !ok {
		return "", false, fmt.Errorf("no watch for rule %q", c.Rule)
	}
	if c.At.Before(active) {
		return "", false, nil
	}
	owner, known, err := t.know(c.TxIDs(n.Account))
	return owner, err == nil && !known, err
}

// notice takes in one entry that is new and returns its transaction.
func (t *txn) notice(n deal.Noticing, a arrival) (deal.TxID, error) {
	c := a.change
	c.At = c.At.UTC().Truncate(time.Millisecond)
	sl := &deal.Sealing{
		Tx: c.TxIDs(n.Account)[0], Tenant: n.Tenant, Account: n.Account, Change: c, Plan: n.Plans[c.Rule],
		Step: deal.Noticed, Condition: deal.Running, Noticed: t.now, Updated: t.now, Version: 1,
	}
	sl.Facts.Times = map[deal.Step]time.Time{deal.Noticed: t.now}
	e := deal.Entry{Who: "daemon", What: "noticed", Events: []deal.Event{{Type: "envelope.created"}}}
	if a.who != "" {
		e.Who, e.What = a.who, "requested"
	}
	if c.Inferred != nil {
		e.Why = deal.Inferred
	}
	if a.cause != "" {
		sl.Condition, sl.Reason, sl.Facts.Guarded = deal.Held, deal.GuardReason(a.scope, a.cause), true
		e.Why = joinWhy(e.Why, sl.Reason)
		e.Events = append(e.Events, deal.Event{Type: "document.held", Data: map[string]string{"reason": sl.Reason}})
		if err := t.daily(sl.Tenant, string(deal.Held)); err != nil {
			return "", err
		}
	}
	key, err := newDataKey()
	if err != nil {
		return "", err
	}
	if a.request != nil { // first: the events of the deal go by it
		if err := a.request(sl.Tx, key); err != nil {
			return "", err
		}
	}
	return sl.Tx, errors.Join(t.insert(sl, key, e), t.awaitOutcome(sl))
}

// joinWhy puts one reason behind another.
func joinWhy(first, second string) string {
	if first == "" {
		return second
	}
	return first + "; " + second
}

// know files all names of an entry under its first and reports whether any of them was known before; then all belong to
// that older one. owner is whom they belong to.
func (t *txn) know(names []deal.TxID) (owner deal.TxID, known bool, err error) {
	owner = names[0]
	for _, name := range names {
		found, err := t.get([]any{&owner}, `SELECT owner FROM known WHERE tx = $1`, name)
		if err != nil {
			return "", false, err
		}
		if found {
			known = true
			break
		}
	}
	for _, name := range names {
		if err := t.exec(`INSERT INTO known (tx, owner) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, owner); err != nil {
			return "", false, err
		}
	}
	return owner, known, nil
}

// insert makes a new sealing with all that belongs to it. A nil key stands for one that was destroyed.
func (t *txn) insert(sl *deal.Sealing, key *dataKey, e deal.Entry) error {
	private := []byte{}
	if key != nil { // a recovered sealing may have been erased
		var err error
		if private, err = sealPrivate(key, sl); err != nil {
			return err
		}
		if err := t.exec(`INSERT INTO data_keys (tx, wrapped) VALUES ($1, $2)`, sl.Tx, key.wrap(t.s.master.tenant(sl.Tenant), sl.Tx)); err != nil {
			return err
		}
	}
	plan, err := t.storePlan(sl.Plan)
	if err != nil {
		return err
	}
	change, facts, err := encode(sl)
	if err != nil {
		return err
	}
	if err := t.exec(`INSERT INTO sealings (tx, tenant, account, object, record, rule, at, change, plan, step, condition, reason,
			attempts, next, noticed, updated, step_at, version, facts, private, signature, adopted, events, last_entry,
			lease_owner, lease_until, retention, legal_hold, delete_after, waited, guarded)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $16, $17, $18, $19, $20, $21, 0, 0, '', 0, $22, 0, NULL, $23, $24)`,
		sl.Tx, sl.Tenant, sl.Account, sl.Change.Ref.Object, sl.Change.Ref.ID, sl.Change.Rule, millis(sl.Change.At), change, plan,
		sl.Step, sl.Condition, sl.Reason, sl.Attempts, millis(sl.Next), millis(sl.Noticed), millis(sl.Updated), sl.Version, facts,
		private, sl.Facts.Signature, sl.Facts.Adopted, sl.Plan.Retention, sl.Step != deal.Noticed || sl.Facts.Guarded, sl.Facts.Guarded); err != nil {
		return err
	}
	r, err := t.row(sl.Tx)
	if err != nil {
		return err
	}
	if _, err := t.fileUnder(r, sl.Change, append([]string{sl.Change.Ref.ID}, sl.Change.Aliases...)); err != nil {
		return err
	}
	if key != nil {
		if err := t.index(r.seq, sl.Private); err != nil {
			return err
		}
	}
	if !sl.Facts.Guarded {
		if err := t.own(r, sl); err != nil {
			return err
		}
	}
	if err := t.tally(r, sl, true); err != nil {
		return err
	}
	return t.conclude(r, sl, key, e)
}

// storePlan keeps a plan once, however many sealings share it, and returns its hash.
func (t *txn) storePlan(p deal.Plan) (string, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("plan: %w", err)
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:])
	return hash, t.exec(`INSERT INTO plans (hash, plan) VALUES ($1, $2) ON CONFLICT DO NOTHING`, hash, string(text))
}

func encode(sl *deal.Sealing) (change, facts string, err error) {
	c, err := json.Marshal(sl.Change)
	if err != nil {
		return "", "", fmt.Errorf("%s: change: %w", sl.Tx, err)
	}
	f, err := json.Marshal(sl.Facts)
	if err != nil {
		return "", "", fmt.Errorf("%s: facts: %w", sl.Tx, err)
	}
	return string(c), string(f), nil
}

func sealPrivate(key *dataKey, sl *deal.Sealing) ([]byte, error) {
	text, err := json.Marshal(sl.Private)
	if err != nil {
		return nil, fmt.Errorf("%s: private part: %w", sl.Tx, err)
	}
	return box(key.rows, "private/"+string(sl.Tx), text), nil
}

// Load returns a copy of a sealing. The error is a *NotFoundError if there is none. After Erase its Private is empty.
func (s *Store) Load(ctx context.Context, tx deal.TxID) (sl *deal.Sealing, err error) {
	err = s.view(ctx, func(t *txn) error {
		sl, _, err = t.load(tx)
		return err
	})
	return sl, err
}

// load reads a sealing and its data key, which is nil if it was destroyed.
func (t *txn) load(tx deal.TxID) (*deal.Sealing, *dataKey, error) {
	sl := &deal.Sealing{Tx: tx}
	var change, plan, facts, private []byte
	var next, noticed, updated int64
	found, err := t.get([]any{&sl.Tenant, &sl.Account, &change, &plan, &sl.Step, &sl.Condition, &sl.Reason, &sl.Attempts, &next, &noticed, &updated, &sl.Version, &facts, &private},
		`SELECT s.tenant, s.account, s.change, p.plan, s.step, s.condition, s.reason, s.attempts, s.next, s.noticed, s.updated, s.version, s.facts, s.private
		 FROM sealings s JOIN plans p ON p.hash = s.plan WHERE s.tx = $1`, tx)
	if err != nil {
		return nil, nil, err
	}
	if !found {
		return nil, nil, &NotFoundError{tx}
	}
	sl.Next, sl.Noticed, sl.Updated = fromMillis(next), fromMillis(noticed), fromMillis(updated)
	for _, part := range []struct {
		name string
		text []byte
		into any
	}{{"change", change, &sl.Change}, {"plan", plan, &sl.Plan}, {"facts", facts, &sl.Facts}} {
		if err := json.Unmarshal(part.text, part.into); err != nil {
			return nil, nil, fmt.Errorf("%s: stored %s is damaged: %w", tx, part.name, err)
		}
	}
	key, err := t.dataKey(tx)
	if isErased(err) {
		return sl, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	text, err := unbox(key.rows, "private/"+string(tx), private)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: private part: %w", tx, err)
	}
	if err := json.Unmarshal(text, &sl.Private); err != nil {
		return nil, nil, fmt.Errorf("%s: private part: %w", tx, errDamaged)
	}
	return sl, key, nil
}

// dataKey reads the key of a sealing; *ErasedError when it was destroyed.
func (t *txn) dataKey(tx deal.TxID) (*dataKey, error) {
	var tenant deal.TenantID
	var wrapped []byte
	found, err := t.get([]any{&tenant, &wrapped}, `SELECT s.tenant, k.wrapped FROM sealings s JOIN data_keys k ON k.tx = s.tx WHERE s.tx = $1`, tx)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &ErasedError{tx}
	}
	return t.s.keys.unwrap(t.s.master.tenant(tenant), tx, wrapped)
}

// row is what the ledger holds of a sealing before a change: what the guards compare with.
type row struct {
	seq        int64
	tenant     deal.TenantID
	account    deal.AccountID
	step       deal.Step
	condition  deal.Condition
	reason     string
	version    int64
	signature  bool
	second     bool // a value of its second seal exists
	stepAt     int64
	noticed    int64
	receipt    int64 // 0 when the plan writes nothing back
	events     int64
	lastEntry  int64
	leaseOwner string
	leaseUntil int64
	legalHold  bool
	waited     bool   // for a person or a vendor, or it came from the archive
	guarded    bool   // the guard holds it
	failures   int    // of the step, in a row
	wrapped    []byte // its data key; nil when that was destroyed
}

// failuresOf is how often the step has failed in a row once the sealing is as sl says. Failures that use up no attempt of
// the deal, such as a login that is refused, count as well. What only a person can mend is not tried soon, and counts as
// failing at once.
func (r *row) failuresOf(sl *deal.Sealing) int {
	switch {
	case sl.Condition != deal.Retrying || sl.Awaits():
		return 0
	case sl.Facts.WaitsFor != "":
		return max(r.failures+1, FailingAfter)
	case sl.Step != r.step:
		return 1
	}
	return r.failures + 1
}

func (t *txn) row(tx deal.TxID) (*row, error) {
	var r row
	found, err := t.get([]any{&r.seq, &r.tenant, &r.account, &r.step, &r.condition, &r.reason, &r.version, &r.signature, &r.second, &r.stepAt, &r.noticed, &r.receipt, &r.events, &r.lastEntry, &r.leaseOwner, &r.leaseUntil, &r.legalHold, &r.waited, &r.guarded, &r.failures, &r.wrapped},
		`SELECT seq, tenant, account, step, condition, reason, version, signature, CASE signature WHEN 1 THEN coalesce(json_extract(facts, '$.second.signature'), 0) ELSE 0 END, step_at, noticed, coalesce(receipt, 0), events, last_entry, lease_owner, lease_until, legal_hold, waited, guarded, failures,
			(SELECT wrapped FROM data_keys k WHERE k.tx = sealings.tx)
		 FROM sealings WHERE tx = $1`, tx)
	if err == nil && !found {
		err = &NotFoundError{tx}
	}
	return &r, err
}

// leased reports whether someone else may be at an outside effect of this sealing. A run of a job that is over is at none,
// although it could not say so: the disk was full, or it panicked. A lease that ends in the far future was taken before the
// clock was set back, and nobody knows for how long.
func (t *txn) leased(r *row, owner string) bool {
	return r.leaseOwner != owner && t.s.owners.has(r.leaseOwner) && r.leaseUntil > t.now.UnixMilli() && r.leaseUntil <= t.now.Add(farFuture).UnixMilli()
}

// Begin commits that an outside effect is about to happen and takes the lease for it. The effect must not begin unless
// Begin returned nil. An intent to sign is also marked outside of the database, so that an older database put in its place
// is recognised: if only that fails, the intent stands and the error is the disk's. It compares and raises sl.Version;
// deal.ErrStale means that someone else moved the sealing or holds an unexpired lease, or that its tenant was paused before its key
// would have been used. A *RefusedError means that the
// effect would sign a second digest, a *deal.SpentError that the key has reached one of the intent's limits.
func (s *Store) Begin(ctx context.Context, sl *deal.Sealing, i deal.Intent) error {
	owner := s.ownerOf(ctx)
	var size int64
	err := s.update(ctx, "commit/begin", func(t *txn) error {
		r, key, err := t.current(sl, owner)
		if err != nil {
			return err
		}
		n, until, err := t.intend(sl, standing{r.step, r.condition, r.version + 1, r.signature, r.second}, i, key)
		if err != nil {
			return err
		}
		size = n + 1
		return t.exec(`UPDATE sealings SET version = $2, lease_owner = $3, lease_until = $4, last_entry = $5 WHERE tx = $1`,
			sl.Tx, r.version+1, owner, until, n)
	})
	if err != nil {
		return err
	}
	sl.Version++
	if sealOf(i.What) != 0 {
		return s.raiseHighWater(size)
	}
	return nil
}

// standing is how a sealing stands when something begins.
type standing struct {
	step      deal.Step
	condition deal.Condition
	version   int64
	// signature and second are set once a value of its seals exists.
	signature, second bool
}

// intend writes an intent. It returns the place of its audit entry, and when the lease ends.
func (t *txn) intend(sl *deal.Sealing, at standing, i deal.Intent, key *dataKey) (n, until int64, err error) {
	if seal := sealOf(i.What); seal != 0 {
		if paused, err := t.paused(sl.Tenant); err != nil || paused {
			return 0, 0, errors.Join(err, stale("tenant %s is paused", sl.Tenant))
		}
		if err := t.guardSigning(sl.Tx, seal, at, i.Digest); err != nil {
			return 0, 0, err
		}
		if err := t.countUse(sl.Tx, i); err != nil {
			return 0, 0, err
		}
	}
	until = t.now.Add(i.Lease).UnixMilli()
	if err := t.exec(`INSERT INTO intents (tx, version, step, what, digest, key, at, until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		sl.Tx, at.version, at.step, i.What, i.Digest, i.Key, t.now.UnixMilli(), until); err != nil {
		return 0, 0, err
	}
	n, err = t.appendLeaf(leaf{Tenant: sl.Tenant, Tx: sl.Tx, What: "begin " + i.What, Step: at.step, Condition: at.condition,
		Version: at.version, Digest: i.Digest, Key: i.Key}, testimony{Who: "daemon"}, key)
	return n, until, err
}

// current reads the row behind sl and checks that sl is still what it was read as.
func (t *txn) current(sl *deal.Sealing, owner string) (*row, *dataKey, error) {
	r, err := t.row(sl.Tx)
	if err != nil {
		return nil, nil, err
	}
	if r.version != sl.Version {
		return nil, nil, stale("%s: version %d, now %d", sl.Tx, sl.Version, r.version)
	}
	if t.leased(r, owner) {
		return nil, nil, stale("%s: a step is under way until %s", sl.Tx, fromMillis(r.leaseUntil).Format(time.RFC3339))
	}
	if r.wrapped == nil {
		return r, nil, &ErasedError{sl.Tx}
	}
	key, err := t.s.keys.unwrap(t.s.master.tenant(r.tenant), sl.Tx, r.wrapped)
	return r, key, err
}

// Advance commits what became of a step: sl as it now is, with its audit entry, events, counters, receipt and next job,
// in one transaction, and ends the lease, or, with e.Then, begins the next effect as Begin does. The staged documents of a
// sealing that has ended are removed. It compares and raises sl.Version; deal.ErrStale means that someone else moved the
// sealing. A *RefusedError means that the change would go back behind a signature or sign a second digest.
func (s *Store) Advance(ctx context.Context, sl *deal.Sealing, e deal.Entry) error {
	owner := s.ownerOf(ctx)
	next := clone(sl)
	var size int64
	err := s.update(ctx, "commit/advance", func(t *txn) error {
		r, key, err := t.current(sl, owner)
		if err != nil {
			return err
		}
		if size, err = t.advanceAndBegin(r, next, key, e, owner); err != nil {
			return err
		}
		return t.showUnlessGuarded(r, next)
	})
	if err != nil {
		return err
	}
	*sl = *next
	if e.Then != nil && sealOf(e.Then.What) != 0 {
		return s.raiseHighWater(size)
	}
	if sl.Condition == deal.Ended {
		s.dispose(ctx, sl.Tx)
	}
	return nil
}

// clone copies what advance changes.
func clone(sl *deal.Sealing) *deal.Sealing {
	next := *sl
	next.Facts.Times = maps.Clone(sl.Facts.Times)
	return &next
}

// advance writes a change of a sealing with all that belongs to it but its receipt.
func (t *txn) advance(r *row, sl *deal.Sealing, key *dataKey, e deal.Entry) error {
	_, err := t.advanceAndBegin(r, sl, key, e, "")
	return err
}

// advanceAndBegin is advance for an entry that may say what begins then. owner has the lease of that. It returns how large
// the audit tree has become.
func (t *txn) advanceAndBegin(r *row, sl *deal.Sealing, key *dataKey, e deal.Entry, owner string) (size int64, err error) {
	if err := guard(r, sl, e); err != nil {
		return 0, err
	}
	if err := t.guardDigests(r, sl, e); err != nil {
		return 0, err
	}
	if err := errors.Join(t.listen(sl), t.unheard(r, sl), t.follow(r, sl)); err != nil {
		return 0, err
	}
	sl.Version, sl.Updated = r.version+1, t.now
	if sl.Step != r.step {
		if sl.Facts.Times == nil {
			sl.Facts.Times = map[deal.Step]time.Time{}
		}
		sl.Facts.Times[sl.Step] = t.now
	}
	n, events, err := t.testify(r, sl, key, e)
	if err != nil {
		return 0, err
	}
	var l lease
	if e.Then != nil {
		sl.Version++
		l.owner = owner
		if n, l.until, err = t.intend(sl, standing{sl.Step, sl.Condition, sl.Version, sl.Facts.Signature, secondSigned(sl)}, *e.Then, key); err != nil {
			return 0, err
		}
	}
	if err := t.save(r, sl, key, n, events, l); err != nil {
		return 0, err
	}
	if r.step == deal.Noticed { // only now what was read of the record may be other than it was
		if err := t.reindex(r.seq, sl.Private); err != nil {
			return 0, err
		}
	}
	if err := t.tally(r, sl, false); err != nil {
		return 0, err
	}
	if sl.Condition != r.condition && !r.guarded {
		if err := t.calmDeals(sl.Tenant, r.condition); err != nil {
			return 0, err
		}
	}
	return n + 1, t.schedule(sl)
}

// lease is who may be at an outside effect, and until when; the zero value is nobody.
type lease struct {
	owner string
	until int64
}

// save writes the sealing's own row, once, with the place of its last audit entry, how many events it has, and the lease of
// what begins now.
func (t *txn) save(r *row, sl *deal.Sealing, key *dataKey, n, events int64, l lease) error {
	_, facts, err := encode(sl)
	if err != nil {
		return err
	}
	private, err := t.s.privates.seal(key, sl)
	if err != nil {
		return err
	}
	if sl.Step == deal.Done || sl.Condition.Waiting() {
		t.s.privates.forget(sl.Tx)
	}
	stepAt := r.stepAt
	if sl.Step != r.step {
		stepAt = t.now.UnixMilli()
	}
	return t.exec(`UPDATE sealings SET step = $2, condition = $3, reason = $4, attempts = $5, next = $6, updated = $7, step_at = $8,
			version = $9, facts = $10, private = $11, signature = $12, adopted = $13, waited = $14, failures = $15,
			last_entry = $16, events = $17, guarded = $18, lease_owner = $19, lease_until = $20 WHERE tx = $1`,
		sl.Tx, sl.Step, sl.Condition, sl.Reason, sl.Attempts, millis(sl.Next), millis(sl.Updated), stepAt,
		sl.Version, facts, private, sl.Facts.Signature, sl.Facts.Adopted, r.waited || sl.Condition.Waiting() || sl.Awaits(), r.failuresOf(sl), n, events, sl.Facts.Guarded, l.owner, l.until)
}

// conclude writes what a new sealing ends with: the audit entry, the events, the next job.
func (t *txn) conclude(r *row, sl *deal.Sealing, key *dataKey, e deal.Entry) error {
	n, events, err := t.testify(r, sl, key, e)
	if err != nil {
		return err
	}
	if err := t.exec(`UPDATE sealings SET last_entry = $2, events = $3 WHERE tx = $1`, sl.Tx, n, events); err != nil {
		return err
	}
	return t.schedule(sl)
}

// testify writes the audit entry and the events of a change. It returns the entry's place and how many events there are now.
func (t *txn) testify(r *row, sl *deal.Sealing, key *dataKey, e deal.Entry) (n, events int64, err error) {
	n, err = t.appendLeaf(leaf{Tenant: sl.Tenant, Tx: sl.Tx, What: e.What, Step: sl.Step, Condition: sl.Condition, Version: sl.Version,
		Digest: sl.Facts.Digest, Cert: e.Cert}, testimony{e.Who, e.Why, e.Detail}, key)
	if err != nil {
		return 0, 0, err
	}
	for i, event := range e.Events {
		if err := t.emit(sl.Tenant, sl.Tx, r.events+int64(i)+1, event, key); err != nil {
			return 0, 0, err
		}
	}
	return n, r.events + int64(len(e.Events)), nil
}

// schedule keeps the sealing's job in line with its state.
func (t *txn) schedule(sl *deal.Sealing) error {
	switch {
	case sl.Step == deal.Done || sl.Condition.Waiting():
		return t.unwant(deal.JobSeal, string(sl.Tx))
	case sl.Condition == deal.Retrying:
		return t.want(deal.JobSeal, string(sl.Tx), sl.Tenant, sl.Next)
	case t.isJob():
		running, err := t.isRunning(deal.JobSeal, string(sl.Tx))
		if err != nil || running {
			return err // it goes on with it
		}
	}
	return t.want(deal.JobSeal, string(sl.Tx), sl.Tenant, t.now)
}

// emit puts an event into the outbox and on its way to all endpoints that want it.
func (t *txn) emit(tenant deal.TenantID, tx deal.TxID, n int64, e deal.Event, key *dataKey) error {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return fmt.Errorf("event %s: %w", e.Type, err)
	}
	id := deal.EventID(tx, n, e.Type)
	if err := t.exec(`INSERT INTO outbox (id, tx, n, type, at, data) VALUES ($1, $2, $3, $4, $5, $6)`,
		id, tx, n, e.Type, t.now.UnixMilli(), box(key.rows, "outbox/"+id, data)); err != nil {
		return err
	}
	if err := t.address(tenant, id, e.Type); err != nil || heldByGuard(e) {
		return err
	}
	return t.raise(tenant, "", id, e.Type)
}

// emitErased tells others that a sealing is erased. No key is left that could protect data of the event.
func (t *txn) emitErased(sl *deal.Sealing) error {
	const kind = "document.deleted"
	r, err := t.row(sl.Tx)
	if err != nil || r.wrapped == nil { // it was erased before
		return err
	}
	id := deal.EventID(sl.Tx, r.events+1, kind)
	if err := t.exec(`UPDATE sealings SET events = events + 1 WHERE tx = $1`, sl.Tx); err != nil {
		return err
	}
	if err := t.exec(`INSERT INTO outbox (id, tx, n, type, at, data) VALUES ($1, $2, $3, $4, $5, x'')`, id, sl.Tx, r.events+1, kind, t.now.UnixMilli()); err != nil {
		return err
	}
	return t.address(sl.Tenant, id, kind)
}

// guard checks what no change of a sealing may break.
func guard(r *row, sl *deal.Sealing, e deal.Entry) error {
	switch {
	case !sl.Step.Valid():
		return refuse(sl.Tx, "there is no step %q", sl.Step)
	case !slices.Contains([]deal.Condition{deal.Running, deal.Retrying, deal.Held, deal.Dead, deal.Ended}, sl.Condition):
		return refuse(sl.Tx, "there is no condition %q", sl.Condition)
	case e.Who == "" || e.What == "":
		return refuse(sl.Tx, "an entry must say who and what")
	case r.signature && !sl.Facts.Signature:
		return refuse(sl.Tx, "a signature value exists and cannot be forgotten")
	case r.second && !secondSigned(sl) && !sl.Facts.Adopted: // then the file comes from the record, with whatever seals it bears
		return refuse(sl.Tx, "a signature value of the second seal exists and cannot be forgotten")
	case r.signature && sl.Step.Before(r.step):
		return refuse(sl.Tx, "a signature value exists, it cannot go back from %s to %s", r.step, sl.Step)
	case sl.Step.Before(r.step) && sl.Step != deal.Noticed:
		return refuse(sl.Tx, "it can go back from %s to noticed only, not to %s", r.step, sl.Step)
	case sl.Condition == deal.Retrying && sl.Next.IsZero():
		return refuse(sl.Tx, "it is to be retried at no time")
	case e.Then != nil && (sl.Condition != deal.Running || sl.Step == deal.Done):
		return refuse(sl.Tx, "nothing begins that waits or is done")
	}
	return nil
}

// preparedAgain is what an entry must be called that replaces a committed digest by another.
const preparedAgain = "prepared-again"

// The seals of a document: one, or during a rollover two, the second of which is over the first.
const (
	firstSeal  = 1
	secondSeal = 2
)

// sealOf is which seal an intent uses the key for; 0 for none.
func sealOf(intent string) int {
	return map[string]int{"sign": firstSeal, "second-sign": secondSeal}[intent]
}

// guardDigests keeps to one digest for each seal of a transaction: another one for the first needs an entry that says so
// and why, and none is taken once a signature value exists. For the second there never is another one.
func (t *txn) guardDigests(r *row, sl *deal.Sealing, e deal.Entry) error {
	if err := t.guardDigest(r, sl, e); err != nil || sl.Facts.Second == nil || sl.Facts.Second.Digest == "" {
		return err
	}
	digest := sl.Facts.Second.Digest
	committed, err := t.digest(sl.Tx, secondSeal)
	switch {
	case err != nil || committed == digest:
		return err
	case committed != "":
		return refuse(sl.Tx, "another digest is committed for its second seal")
	case !sl.Facts.Signature:
		return refuse(sl.Tx, "a second seal is over the first, which is not made")
	}
	return t.commitDigest(sl.Tx, secondSeal, digest)
}

func (t *txn) guardDigest(r *row, sl *deal.Sealing, e deal.Entry) error {
	digest := sl.Facts.Digest
	if digest == "" {
		return nil
	}
	committed, err := t.digest(sl.Tx, firstSeal)
	switch {
	case err != nil || committed == digest:
		return err
	case committed == "":
		return t.commitDigest(sl.Tx, firstSeal, digest)
	case r.signature:
		return refuse(sl.Tx, "another digest was signed already")
	case e.What != preparedAgain || e.Why == "":
		return refuse(sl.Tx, "another digest is committed; a new one needs an entry %q that says why", preparedAgain)
	}
	if err := t.giveUpDigest(sl.Tx); err != nil {
		return err
	}
	return t.commitDigest(sl.Tx, firstSeal, digest)
}

// giveUpDigest gives up that of the first seal: without its value there is no second one.
func (t *txn) giveUpDigest(tx deal.TxID) error {
	return t.exec(`UPDATE digests SET superseded = $2 WHERE tx = $1 AND seal = 1 AND superseded IS NULL`, tx, t.now.UnixMilli())
}

func secondSigned(sl *deal.Sealing) bool {
	return sl.Facts.Second != nil && sl.Facts.Second.Signature
}

// guardSigning lets only the committed digest of a seal go to the key, and only until its value is known. What is known is
// what the row says, or what is written into it in the same transaction: nothing that a caller only claims.
func (t *txn) guardSigning(tx deal.TxID, seal int, at standing, digest string) error {
	switch {
	case digest == "":
		return refuse(tx, "an intent to sign must name the digest")
	case seal == firstSeal && at.signature, seal == secondSeal && at.second:
		return refuse(tx, "a signature value exists already")
	case seal == secondSeal && !at.signature:
		return refuse(tx, "a second seal is over the first, which is not made")
	}
	committed, err := t.digest(tx, seal)
	switch {
	case err != nil:
		return err
	case committed == "" && seal == firstSeal:
		return t.commitDigest(tx, seal, digest)
	case committed != digest:
		return refuse(tx, "the digest to be signed is not the one that was committed")
	}
	return nil
}

// digest returns the committed digest of a seal, "" when there is none.
func (t *txn) digest(tx deal.TxID, seal int) (digest string, err error) {
	_, err = t.get([]any{&digest}, `SELECT digest FROM digests WHERE tx = $1 AND seal = $2 AND superseded IS NULL`, tx, seal)
	return digest, err
}

func (t *txn) commitDigest(tx deal.TxID, seal int, digest string) error {
	added, err := t.execOne(`INSERT INTO digests (tx, seal, digest, at) VALUES ($1, $2, $3, $4) ON CONFLICT (tx, digest) DO NOTHING`, tx, seal, digest, t.now.UnixMilli())
	if err == nil && !added {
		return refuse(tx, "this digest was given up before and cannot come back")
	}
	return err
}
