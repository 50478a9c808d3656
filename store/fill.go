package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"time"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/mod/sumdb/tlog"
)

// Past is a sealing with the history that led to it, for Fill.
type Past struct {
	// Sealing is what the history has led to; Fill sets its Noticed, Updated, Version and Facts.Times. No other sealing
	// may be of its record.
	Sealing *deal.Sealing
	// History is what the ledger took down of it, oldest first; the first is its notice.
	History []Happening
}

// Happening is one commit of a sealing: what became of a step, or the intent to do something.
type Happening struct {
	At        time.Time
	Step      deal.Step
	Condition deal.Condition
	Entry     deal.Entry
	// Intent is set where something was about to happen; Entry is not looked at then.
	Intent *deal.Intent
}

// Fill writes sealings with their histories, oldest first, into a ledger, as if they had been worked here: encrypted under
// keys of their own, in the audit tree, with counters, events and receipts that were told. Those that should go on get
// their jobs at the next Open. What the ledger has already must come from Fill and Multiply.
//
// It exists so that a ledger can be measured that has grown for years. For the sake of speed it takes no care of a crash:
// a state directory in which it did not return nil is to be thrown away.
func (s *Store) Fill(ctx context.Context, all iter.Seq[Past]) error {
	f := &filler{s: s, plans: map[string]bool{}, counts: map[[3]string]int64{}, days: map[[3]string]int64{}, latencies: map[latencyKey]int64{}, flows: map[latencyKey]int64{}}
	if err := f.pragmas("synchronous = OFF", "cache_size = -400000"); err != nil {
		return err
	}
	if err := f.commit(ctx, f.begin); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for encoded := range f.encodeAll(ctx, all) {
		b := <-encoded
		if b.err != nil {
			return b.err
		}
		if err := f.commit(ctx, func(t *txn) error { return f.write(t, b.rows) }); err != nil {
			return err
		}
	}
	if err := f.commit(ctx, f.finish); err != nil {
		return err
	}
	return f.pragmas("synchronous = FULL", "cache_size = -2000", "wal_checkpoint(TRUNCATE)")
}

// fillBatch is how many sealings are written in one transaction.
const fillBatch = 2000

// filler keeps what goes on from one sealing to the next.
type filler struct {
	s         *Store
	seq       int64          // of the newest sealing
	size      int64          // of the audit tree
	edge      [64]storedHash // the newest of each level
	indexes   []string       // as they are made again
	plans     map[string]bool
	counts    map[[3]string]int64
	days      map[[3]string]int64
	latencies map[latencyKey]int64
	flows     map[latencyKey]int64
}

type storedHash struct {
	index int64
	hash  tlog.Hash
}

type latencyKey struct {
	day, tenant, step string
	bucket            int
}

func (f *filler) pragmas(all ...string) error {
	for _, p := range all {
		if _, err := f.s.write.Exec("PRAGMA " + p); err != nil {
			return f.s.explain(fmt.Errorf("fill: %w", err))
		}
	}
	return nil
}

// commit is update without its hook: these commits are no points that a crash is survived at.
func (f *filler) commit(ctx context.Context, do func(*txn) error) error {
	tx, err := f.s.write.BeginTx(ctx, nil)
	if err != nil {
		return f.s.explain(fmt.Errorf("fill: %w", err))
	}
	defer tx.Rollback()
	if err := do(&txn{Tx: tx, ctx: ctx, s: f.s, now: f.s.now()}); err != nil {
		return f.s.explain(fmt.Errorf("fill: %w", err))
	}
	return f.s.explain(tx.Commit())
}

// begin reads the edge of the audit tree and, of an empty ledger, takes away the indexes: they are faster made at the end.
func (f *filler) begin(t *txn) (err error) {
	var receipts int64
	if _, err := t.get([]any{&f.seq, &receipts}, `SELECT coalesce(max(seq), 0), (SELECT coalesce(max(id), 0) FROM receipts) FROM sealings`); err != nil {
		return err
	}
	if receipts > f.seq {
		return fmt.Errorf("the ledger of %s has been worked with: only an empty one, and what was filled, can be filled", f.s.dir)
	}
	if f.size, err = t.treeSize(); err != nil {
		return err
	}
	for level := 0; f.size>>level > 0; level++ {
		index := tlog.StoredHashIndex(level, f.size>>level-1)
		h, err := t.readHashes([]int64{index})
		if err != nil {
			return err
		}
		f.edge[level] = storedHash{index, h[0]}
	}
	if f.seq > 0 {
		return nil
	}
	const ours = ` FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name NOT LIKE 'river%' ORDER BY name`
	if f.indexes, err = column[string](t, `SELECT sql`+ours); err != nil {
		return err
	}
	names, err := column[string](t, `SELECT name`+ours)
	for _, name := range names {
		err = errors.Join(err, t.exec("DROP INDEX "+name))
	}
	return err
}

// finish writes the counters and makes the indexes.
func (f *filler) finish(t *txn) error {
	for k, n := range f.counts {
		if err := t.exec(`INSERT INTO counts (tenant, step, condition, n) VALUES ($1, $2, $3, $4) ON CONFLICT DO UPDATE SET n = n + excluded.n`, k[0], k[1], k[2], n); err != nil {
			return err
		}
	}
	for k, n := range f.days {
		if err := t.exec(`INSERT INTO daily (day, tenant, name, n) VALUES ($1, $2, $3, $4) ON CONFLICT DO UPDATE SET n = n + excluded.n`, k[0], k[1], k[2], n); err != nil {
			return err
		}
	}
	for k, n := range f.latencies {
		if err := t.exec(`INSERT INTO latency (day, tenant, step, bucket, n) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO UPDATE SET n = n + excluded.n`, k.day, k.tenant, k.step, k.bucket, n); err != nil {
			return err
		}
	}
	for k, n := range f.flows {
		if err := t.exec(`INSERT INTO flows (day, bucket, n) VALUES ($1, $2, $3) ON CONFLICT DO UPDATE SET n = n + excluded.n`, k.day, k.bucket, n); err != nil {
			return err
		}
	}
	for _, index := range f.indexes {
		if err := t.exec(index); err != nil {
			return err
		}
	}
	return nil
}

type fillRows struct {
	rows []*pastRows
	err  error
}

// encodeAll encrypts on all processors and yields the batches in their order.
func (f *filler) encodeAll(ctx context.Context, all iter.Seq[Past]) <-chan chan fillRows {
	out := make(chan chan fillRows, runtime.GOMAXPROCS(0))
	go func() {
		defer close(out)
		seq, n := f.seq+1, f.size
		send := func(batch []Past) bool {
			result := make(chan fillRows, 1)
			go func(seq, n int64) { result <- f.s.encodePast(batch, seq, n) }(seq, n)
			for _, p := range batch {
				seq, n = seq+1, n+int64(len(p.History))
			}
			select {
			case out <- result:
				return true
			case <-ctx.Done():
				return false
			}
		}
		var batch []Past
		for p := range all {
			if batch = append(batch, p); len(batch) == fillBatch {
				if !send(batch) {
					return
				}
				batch = nil
			}
		}
		if len(batch) > 0 {
			send(batch)
		}
	}()
	return out
}

// pastRows is a sealing as it is stored.
type pastRows struct {
	seq                           int64
	sl                            *deal.Sealing
	history                       []Happening
	wrapped, private              []byte
	plan, planHash, change, facts string
	stepAt                        int64
	audit                         []auditRow
	events                        []outboxRow
	words                         []int64
	waited                        bool
}

type outboxRow struct {
	id, kind string
	n, at    int64
	data     []byte
}

// encodePast encrypts a batch whose first sealing and first audit entry have these numbers.
func (s *Store) encodePast(batch []Past, seq, n int64) fillRows {
	var out fillRows
	for _, p := range batch {
		r, err := s.encodeOne(p, seq, n)
		if err != nil {
			return fillRows{err: err}
		}
		out.rows = append(out.rows, r)
		seq, n = seq+1, n+int64(len(p.History))
	}
	return out
}

func (s *Store) encodeOne(p Past, seq, n int64) (*pastRows, error) {
	sl := p.Sealing
	if len(p.History) == 0 {
		return nil, fmt.Errorf("%s: it has no history", sl.Tx)
	}
	if err := checkTenant(sl.Tenant); err != nil {
		return nil, err
	}
	r := &pastRows{seq: seq, sl: sl, history: p.History}
	r.complete()
	key, err := newDataKey()
	if err != nil {
		return nil, err
	}
	r.wrapped = key.wrap(s.master.tenant(sl.Tenant), sl.Tx)
	if r.private, err = sealPrivate(key, sl); err != nil {
		return nil, err
	}
	if r.change, r.facts, err = encode(sl); err != nil {
		return nil, err
	}
	plan, err := json.Marshal(sl.Plan)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	sum := sha256.Sum256(plan)
	r.plan, r.planHash = string(plan), hex.EncodeToString(sum[:])
	r.words = s.master.keyed(namesOf(sl.Private))
	for i, h := range p.History {
		if err := r.testify(int64(i)+1, n+int64(i), h, key); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// complete sets what follows from the history.
func (r *pastRows) complete() {
	sl, first, last := r.sl, r.history[0], r.history[len(r.history)-1]
	sl.Noticed, sl.Updated, sl.Version = first.At.UTC(), last.At.UTC(), int64(len(r.history))
	sl.Facts.Times = map[deal.Step]time.Time{}
	step := deal.Step("")
	for _, h := range r.history {
		if h.Step != step {
			step = h.Step
			r.stepAt = h.At.UnixMilli()
			sl.Facts.Times[step] = h.At.UTC()
		}
		r.waited = r.waited || h.Condition.Waiting()
	}
}

// testify makes the audit entry and the events of one happening.
func (r *pastRows) testify(version, n int64, h Happening, key *dataKey) error {
	sl := r.sl
	l := leaf{Tenant: sl.Tenant, Tx: sl.Tx, What: h.Entry.What, Step: h.Step, Condition: h.Condition, Version: version, Digest: sl.Facts.Digest, Cert: h.Entry.Cert}
	said := testimony{h.Entry.Who, h.Entry.Why, h.Entry.Detail}
	if i := h.Intent; i != nil {
		l.What, l.Digest, l.Key, l.Cert = "begin "+i.What, i.Digest, i.Key, ""
		said = testimony{Who: "daemon"}
	}
	row, err := l.row(n, h.At, said, key.rows)
	if err != nil {
		return err
	}
	r.audit = append(r.audit, row)
	for _, e := range h.Entry.Events {
		data, err := json.Marshal(e.Data)
		if err != nil {
			return fmt.Errorf("event %s: %w", e.Type, err)
		}
		o := outboxRow{kind: e.Type, n: int64(len(r.events)) + 1, at: h.At.UnixMilli()}
		o.id = deal.EventID(sl.Tx, o.n, e.Type)
		o.data = box(key.rows, "outbox/"+o.id, data)
		r.events = append(r.events, o)
	}
	return nil
}

// write stores a batch.
func (f *filler) write(t *txn, rows []*pastRows) error {
	w := &fillWriter{txn: t, stmts: map[string]*sql.Stmt{}}
	for _, r := range rows {
		if err := f.writeOne(w, r); err != nil {
			return fmt.Errorf("%s: %w", r.sl.Tx, err)
		}
	}
	return nil
}

// fillWriter keeps its statements prepared, and its first error.
type fillWriter struct {
	*txn
	stmts map[string]*sql.Stmt
	err   error
}

func (w *fillWriter) add(query string, args ...any) {
	if w.err != nil {
		return
	}
	stmt := w.stmts[query]
	if stmt == nil {
		if stmt, w.err = w.PrepareContext(w.ctx, query); w.err != nil {
			return
		}
		w.stmts[query] = stmt
	}
	_, w.err = stmt.ExecContext(w.ctx, args...)
}

func (f *filler) writeOne(w *fillWriter, r *pastRows) error {
	sl := r.sl
	if !f.plans[r.planHash] {
		f.plans[r.planHash] = true
		w.add(`INSERT INTO plans (hash, plan) VALUES ($1, $2) ON CONFLICT DO NOTHING`, r.planHash, r.plan)
	}
	w.add(`INSERT INTO data_keys (tx, wrapped) VALUES ($1, $2)`, sl.Tx, r.wrapped)
	for _, name := range sl.Change.TxIDs(sl.Account) {
		w.add(`INSERT INTO known (tx, owner) VALUES ($1, $2)`, name, sl.Tx)
	}
	var receipt any
	if field := target(sl.Plan.WriteBack); field != "" {
		receipt = r.seq
		at := millis(sl.Updated)
		w.add(`INSERT INTO receipts (id, tenant, account, object, record, field, owner, owner_at, owner_seq, status, sequence, sent, due)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $1, $9, $10, $10, $10)`,
			r.seq, sl.Tenant, sl.Account, sl.Change.Ref.Object, sl.Change.Ref.ID, field, sl.Tx, millis(sl.Change.At), deal.Shown(sl.Step, sl.Condition, sl.Reason), at)
	}
	w.add(`INSERT INTO sealings (seq, tx, tenant, account, object, record, rule, at, change, plan, step, condition, reason,
			attempts, next, noticed, updated, step_at, version, facts, private, signature, adopted, receipt, events, last_entry,
			lease_owner, lease_until, retention, legal_hold, delete_after, waited)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, '', 0, $27, 0, NULL, $28)`,
		r.seq, sl.Tx, sl.Tenant, sl.Account, sl.Change.Ref.Object, sl.Change.Ref.ID, sl.Change.Rule, millis(sl.Change.At), r.change, r.planHash,
		sl.Step, sl.Condition, sl.Reason, sl.Attempts, millis(sl.Next), millis(sl.Noticed), millis(sl.Updated), r.stepAt, sl.Version, r.facts,
		r.private, sl.Facts.Signature, sl.Facts.Adopted, receipt, len(r.events), r.audit[len(r.audit)-1].n, sl.Plan.Retention, r.waited)
	for _, word := range r.words {
		w.add(`INSERT INTO words (word, seq) VALUES ($1, $2)`, word, r.seq)
	}
	for _, record := range append([]string{sl.Change.Ref.ID}, sl.Change.Aliases...) {
		w.add(`INSERT INTO record_ids (account, object, record, rule, seq) VALUES ($1, $2, $3, $4, $5)`, sl.Account, sl.Change.Ref.Object, record, sl.Change.Rule, r.seq)
	}
	if sl.Facts.Digest != "" {
		w.add(`INSERT INTO digests (tx, digest, at) VALUES ($1, $2, $3)`, sl.Tx, sl.Facts.Digest, millis(sl.Updated))
	}
	for _, o := range r.events {
		w.add(`INSERT INTO outbox (id, tx, n, type, at, data) VALUES ($1, $2, $3, $4, $5, $6)`, o.id, sl.Tx, o.n, o.kind, o.at, o.data)
	}
	signed := false
	for i, a := range r.audit {
		if in := r.history[i].Intent; in != nil {
			at := r.history[i].At
			if in.What == "sign" && !signed {
				signed = true
				w.add(countUse, in.Key, dayOf(at))
			}
			w.add(`INSERT INTO intents (tx, version, step, what, digest, key, at, until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
				sl.Tx, i+1, in.Step, in.What, in.Digest, in.Key, at.UnixMilli(), at.Add(in.Lease).UnixMilli())
		}
		w.add(`INSERT INTO audit (n, tx, shared, leaf, private) VALUES ($1, $2, 0, $3, $4)`, a.n, sl.Tx, a.text, a.private)
		f.hash(w, a)
	}
	f.tally(r)
	return w.err
}

// hash appends an entry to the tree.
func (f *filler) hash(w *fillWriter, a auditRow) {
	hashes, err := tlog.StoredHashes(a.n, a.text, tlog.HashReaderFunc(f.atEdge))
	w.err = errors.Join(w.err, err)
	first := tlog.StoredHashIndex(0, a.n)
	for level, h := range hashes {
		f.edge[level] = storedHash{first + int64(level), h}
		w.add(`INSERT INTO audit_hashes (i, hash) VALUES ($1, $2)`, first+int64(level), h[:])
	}
}

// atEdge reads the hashes that the next one depends on.
func (f *filler) atEdge(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, _ := tlog.SplitStoredHashIndex(index)
		if f.edge[level].index != index {
			return nil, fmt.Errorf("hash %d is not at the edge of the audit tree", index)
		}
		hashes[i] = f.edge[level].hash
	}
	return hashes, nil
}

// tally counts what txn.tally would have counted.
func (f *filler) tally(r *pastRows) {
	tenant := string(r.sl.Tenant)
	f.counts[[3]string{tenant, string(r.sl.Step), string(r.sl.Condition)}]++
	var step deal.Step
	var condition deal.Condition
	var stepAt int64
	waited := false
	for i, h := range r.history {
		day, at := h.At.UTC().Format(time.DateOnly), h.At.UnixMilli()
		forward := i == 0 || step.Before(h.Step)
		if forward {
			f.days[[3]string{day, tenant, string(h.Step)}]++
		}
		if h.Condition != condition && h.Condition.Waiting() {
			f.days[[3]string{day, tenant, string(h.Condition)}]++
		}
		if forward && i > 0 {
			f.latencies[latencyKey{day, tenant, string(h.Step), bucketOf(at - stepAt)}]++
		}
		if forward && h.Step == deal.Reported && !waited {
			f.flows[latencyKey{day: day, bucket: bucketOf(at - millis(r.sl.Noticed))}]++
		}
		if h.Step != step {
			stepAt = at
		}
		step, condition, waited = h.Step, h.Condition, waited || h.Condition.Waiting()
	}
}
