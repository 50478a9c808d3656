package store

import (
	"database/sql"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

func TestALedgerOfTheFirstSchemaIsBroughtUpToDate(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	first, err := migrations.ReadFile("migrations/sqlite/0001_ledger.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{string(first), "PRAGMA user_version = 1",
		`INSERT INTO plans (hash, plan) VALUES ('p', '{}')`,
		`INSERT INTO sealings (seq, tx, tenant, account, object, record, rule, at, change, plan, step, condition, reason, attempts, next, noticed, updated, step_at, version,
			facts, private, signature, adopted, events, last_entry, lease_owner, lease_until, retention, legal_hold)
			VALUES (1, 'aaaaaaaaaaaaaaaaaaaaaaaaaa', 'acme', 'a', 'o', 'r', 'rule', 0, '{}', 'p', 'done', 'running', '', 0, 0, 1772600767008, 0, 0, 1, '{}', x'', 1, 0, 0, 0, '', 0, '', 0)`,
		`INSERT INTO sealings (seq, tx, tenant, account, object, record, rule, at, change, plan, step, condition, reason, attempts, next, noticed, updated, step_at, version,
			facts, private, signature, adopted, events, last_entry, lease_owner, lease_until, retention, legal_hold)
			VALUES (2, 'bbbbbbbbbbbbbbbbbbbbbbbbbb', 'acme', 'a', 'o', 'other', 'rule', 0, '{}', 'p', 'noticed', 'retrying', 'no answer', 3, 1772600767008, 1572600767008, 0, 0, 1, '{}', x'', 0, 0, 0, 0, '', 0, '', 0)`,
		`INSERT INTO record_ids (account, object, record, rule, seq) VALUES ('a', 'o', 'r', 'rule', 1)`,
		`INSERT INTO latency (day, tenant, step, bucket, n) VALUES ('2026-03-04', 'acme', 'sealed', 9, 5)`,
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, options(dir, newClock().Now))
	for _, q := range []Query{{State: "done"}, {Day: start}, {Text: "r"}, {Text: "aaaaaa", Tenant: acme}} {
		if f := find(t, s, q); len(f.Sealings) != 1 {
			t.Errorf("%+v finds %d sealings", q, len(f.Sealings))
		}
	}
	if v, err := s.Vitals(t.Context()); err != nil || v.Failing["acme"] != 1 {
		t.Errorf("one has failed often: %+v, %v", v.Failing, err)
	}
	f := figures(t, s, start)
	if len(f.Steps) != 1 || f.Steps[0].Step != deal.Sealed || f.Steps[0].N != 5 || f.Steps[0].P50.Milliseconds() != 512 {
		t.Errorf("durations: %+v", f.Steps)
	}
}

// A database knows its schema by a number: two steps of one number, or a gap, would have it skip one.
func TestMigrationsAreNumberedWithoutAGap(t *testing.T) {
	files, err := fs.Glob(migrations, "migrations/sqlite/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for i, f := range files {
		if want := fmt.Sprintf("%04d_", i+1); !strings.HasPrefix(path.Base(f), want) {
			t.Errorf("%s: want a name that begins with %s", f, want)
		}
	}
}
