package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Multiply adds copies of all that the closed ledger of a state directory holds, each of them later than the one before by
// so many days. A copy has every row, index entry and count of its original, under a transaction, record and event IDs of
// its own: the five zeros that each record's ID must hold become the number of the copy. What is encrypted and what is
// hashed are the original's: a copy is found, listed and counted as any deal, but nobody can read its private part or prove
// its entries.
//
// It exists, as Fill does, so that a ledger can be measured that has grown for years, and writes as fast as SQLite can: a
// state directory in which it did not return nil is to be thrown away.
func Multiply(ctx context.Context, dir string, copies, days int) (err error) {
	held, err := lock(ctx, dir)
	if err != nil {
		return err
	}
	defer held.Close()
	values := url.Values{"mode": {"rw"}}
	for _, p := range []string{"busy_timeout(10000)", "synchronous(OFF)", "journal_mode(OFF)", "locking_mode(EXCLUSIVE)", "cache_size(-262144)", "temp_store(MEMORY)", "foreign_keys(0)"} {
		values.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(dir, databaseName), RawQuery: values.Encode()}).String())
	if err != nil {
		return fmt.Errorf("multiply: %w", err)
	}
	// Without this, the first commit of whoever opens the ledger would wait until gigabytes are on the disk.
	defer func() { err = errors.Join(err, db.Close(), syncFile(filepath.Join(dir, databaseName))) }()
	conn, err := db.Conn(ctx) // temporary tables are those of one
	if err != nil {
		return fmt.Errorf("multiply: %w", err)
	}
	defer conn.Close()
	m := &multiplier{ctx: ctx, conn: conn, days: days, copies: copies}
	if err := m.begin(); err != nil {
		return fmt.Errorf("multiply: %w", err)
	}
	for n := 1; n <= copies; n++ {
		if err := m.copy(n); err != nil {
			return fmt.Errorf("multiply: copy %d: %w", n, err)
		}
	}
	return nil
}

// syncFile returns when all that was written to a file is on the disk, whoever wrote it.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("multiply: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("multiply: %w", err)
	}
	return nil
}

// multiplier knows what one copy adds.
type multiplier struct {
	ctx           context.Context
	conn          *sql.Conn
	copies, days  int
	seqs, entries int64 // so many sealings and audit entries are copied
	size          int64 // of the audit tree, before the next copy
}

// originals are kept apart and in the order in which their copies are written: a copy is appended to what is there, and its
// keys fall onto few pages, however many copies there are.
var originals = []struct{ table, order string }{
	{"sealings", "seq"},
	{"receipts", "id"},
	{"known", "substr(tx, 9)"},
	{"data_keys", "substr(tx, 9)"},
	{"digests", "substr(tx, 9), digest"},
	{"intents", "substr(tx, 9), version"},
	{"record_ids", "account, object, record, rule, seq"},
	{"words", "word, seq"},
	{"audit", "n"},
	{"outbox", "substr(id, 9)"},
	{"counts", "tenant"},
	{"daily", "day, tenant"},
	{"latency", "day, tenant"},
	{"flows", "day"},
	{"key_uses", "key, day"},
}

func (m *multiplier) begin() error {
	for _, t := range originals {
		if err := m.exec(fmt.Sprintf("CREATE TEMP TABLE original_%s AS SELECT * FROM main.%[1]s ORDER BY %s", t.table, t.order)); err != nil {
			return fmt.Errorf("%s: %w", t.table, err)
		}
	}
	// What is of no deal is not copied.
	if err := m.exec("DELETE FROM original_audit WHERE tx = ''", "DELETE FROM original_outbox WHERE tx = ''", "DELETE FROM original_daily WHERE day > (SELECT date(max(updated) / 1000, 'unixepoch') FROM sealings)"); err != nil {
		return err
	}
	var first, last, unnamed int64
	for query, into := range map[string][]any{
		`SELECT count(*) FROM audit`:                                              {&m.size},
		`SELECT count(*), min(n), max(n) FROM original_audit`:                     {&m.entries, &first, &last},
		`SELECT max(seq), sum(instr(record, '00000') = 0) FROM original_sealings`: {&m.seqs, &unnamed},
	} {
		if err := m.conn.QueryRowContext(m.ctx, query).Scan(into...); err != nil {
			return err
		}
	}
	if last-first+1 != m.entries || unnamed > 0 {
		return fmt.Errorf("entries %d to %d of the audit log are %d, %d records have no 00000 in their ID: only what Fill has made can be copied", first, last, m.entries, unnamed)
	}
	return m.exec(fmt.Sprintf("UPDATE original_audit SET n = n - %d", first),
		fmt.Sprintf("CREATE TEMP TABLE hashes AS WITH RECURSIVE h (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM h WHERE i < %d) SELECT i FROM h", 2*m.entries+64))
}

func (m *multiplier) exec(all ...string) error {
	for _, q := range all {
		if _, err := m.conn.ExecContext(m.ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// copied are the statements that make a copy. TX, EVENT, RECORD, DAY, LATER, SEQS and SIZE stand for what is the copy's own.
var copied = []string{
	`INSERT INTO sealings (seq, tx, tenant, account, object, record, rule, at, change, plan, step, condition, reason, attempts, next, noticed,
		updated, step_at, version, facts, private, signature, adopted, receipt, events, last_entry, lease_owner, lease_until, retention, legal_hold, delete_after, waited)
	SELECT seq + SEQS, TX(tx), tenant, account, object, RECORD, rule, at + LATER, change, plan, step, condition, reason, attempts, next, noticed + LATER,
		updated + LATER, step_at + LATER, version, facts, private, signature, adopted, receipt + SEQS, events, last_entry + SIZE, lease_owner, lease_until, retention, legal_hold, delete_after, waited
	FROM original_sealings`,
	`INSERT INTO receipts (id, tenant, account, object, record, field, owner, owner_at, owner_seq, status, sequence, sent, due)
	SELECT id + SEQS, tenant, account, object, RECORD, field, TX(owner), owner_at + LATER, owner_seq + SEQS, status, sequence + LATER, sent + LATER, due + LATER FROM original_receipts`,
	`INSERT INTO known (tx, owner) SELECT TX(tx), TX(owner) FROM original_known`,
	`INSERT INTO data_keys (tx, wrapped) SELECT TX(tx), wrapped FROM original_data_keys`,
	`INSERT INTO digests (tx, digest, at, superseded, seal) SELECT TX(tx), digest, at + LATER, superseded, seal FROM original_digests`,
	`INSERT INTO intents (tx, version, step, what, digest, key, at, until) SELECT TX(tx), version, step, what, digest, key, at + LATER, until + LATER FROM original_intents`,
	`INSERT INTO record_ids (account, object, record, rule, seq) SELECT account, object, RECORD, rule, seq + SEQS FROM original_record_ids`,
	`INSERT INTO words (word, seq) SELECT word, seq + SEQS FROM original_words`,
	`INSERT INTO audit (n, tx, shared, leaf, private) SELECT n + SIZE, TX(tx), shared, leaf, private FROM original_audit`,
	`INSERT INTO audit_hashes (i, hash) SELECT i + HASHES, randomblob(32) FROM hashes LIMIT NEWHASHES`,
	`INSERT INTO outbox (id, tx, n, type, at, data) SELECT TX(id), TX(tx), n, type, at + LATER, data FROM original_outbox`,
	`INSERT INTO counts (tenant, step, condition, n) SELECT tenant, step, condition, n FROM original_counts WHERE true ON CONFLICT DO UPDATE SET n = n + excluded.n`,
	`INSERT INTO daily (day, tenant, name, n) SELECT DAY, tenant, name, n FROM original_daily WHERE true ON CONFLICT DO UPDATE SET n = n + excluded.n`,
	`INSERT INTO latency (day, tenant, step, bucket, n) SELECT DAY, tenant, step, bucket, n FROM original_latency WHERE true ON CONFLICT DO UPDATE SET n = n + excluded.n`,
	`INSERT INTO flows (day, bucket, n) SELECT DAY, bucket, n FROM original_flows WHERE true ON CONFLICT DO UPDATE SET n = n + excluded.n`,
	`INSERT INTO key_uses (key, day, uses) SELECT key, DAY, uses FROM original_key_uses WHERE true ON CONFLICT DO UPDATE SET uses = uses + excluded.uses`,
}

func (m *multiplier) copy(n int) error {
	begin := tlog.StoredHashCount(m.size)
	prefix := m.prefix(n)
	r := strings.NewReplacer(
		"TX(tx)", "'"+prefix+"' || substr(tx, 9)",
		"TX(owner)", "'"+prefix+"' || substr(owner, 9)",
		"TX(id)", "'"+prefix+"' || substr(id, 9)",
		"RECORD", fmt.Sprintf("substr(record, 1, instr(record, '00000') - 1) || '%05d' || substr(record, instr(record, '00000') + 5)", n),
		"DAY", fmt.Sprintf("date(day, '+%d days')", n*m.days),
		"LATER", fmt.Sprint(int64(n*m.days)*(24*time.Hour).Milliseconds()),
		"SEQS", fmt.Sprint(int64(n)*m.seqs),
		"SIZE", fmt.Sprint(m.size),
		"NEWHASHES", fmt.Sprint(tlog.StoredHashCount(m.size+m.entries)-begin),
		"HASHES", fmt.Sprint(begin),
	)
	if err := m.exec("BEGIN"); err != nil {
		return err
	}
	for _, q := range copied {
		if err := m.exec(r.Replace(q)); err != nil {
			return fmt.Errorf("%.40s...: %w", q, err)
		}
	}
	m.size += m.entries
	return m.exec("COMMIT")
}

// prefix is what the IDs of a copy begin with, in the alphabet of all of them. Copies are spread over all IDs that there
// are, so that a new deal's row comes between theirs.
func (m *multiplier) prefix(n int) string {
	const alphabet = "234567abcdefghijklmnopqrstuvwxyz" // in the order in which SQLite sorts
	at := uint64(n) << 40 / uint64(m.copies+1)
	out := make([]byte, 8)
	for i := range out {
		out[i] = alphabet[at>>(35-5*i)&31]
	}
	return string(out)
}
