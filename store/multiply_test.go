package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/mod/sumdb/tlog"
)

// Whoever adds a table that Fill writes adds it to Multiply.
func TestACopiedLedgerHasEveryRowOfItsOriginals(t *testing.T) {
	const originals, copies, days = 3, 40, 2
	clock := newClock()
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, options(dir, clock.Now))
	activate(t, s, acme, ruleA)
	var pasts []Past
	for i := range originals {
		pasts = append(pasts, aPast(fmt.Sprintf("006A00000%03d", i)))
	}
	if err := s.Fill(t.Context(), slices.Values(pasts)); err != nil {
		t.Fatal(err)
	}
	before := rowsOf(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Multiply(t.Context(), dir, copies, days); err != nil {
		t.Fatal(err)
	}

	s = open(t, options(dir, clock.Now))
	after := rowsOf(t, s)
	for table, n := range before {
		if want := (copies + 1) * n; after[table] != want {
			t.Errorf("%s: %d rows are %d with %d copies, want %d", table, n, after[table], copies, want)
		}
	}
	entries := query[int64](t, s, `SELECT count(*) FROM audit`)
	if n := query[int64](t, s, `SELECT count(*) FROM audit_hashes`); n != tlog.StoredHashCount(entries) {
		t.Errorf("%d entries have %d hashes, want %d", entries, n, tlog.StoredHashCount(entries))
	}
	if got := query[string](t, s, `PRAGMA integrity_check`); got != "ok" {
		t.Error(got)
	}
	if n := query[int](t, s, `SELECT count(*) FROM pragma_foreign_key_check`); n > 0 {
		t.Errorf("%d rows refer to none", n)
	}
	last := int64((copies*days + 1) * 24 * int(time.Hour/time.Millisecond))
	if at := query[int64](t, s, `SELECT max(noticed) - min(noticed) FROM sealings`); at > last || at < last/2 {
		t.Errorf("the newest copy is %d ms younger", at)
	}

	// And it goes on, filled and worked.
	if err := s.Fill(t.Context(), slices.Values([]Past{aPast("006B00000000")})); err != nil {
		t.Fatal(err)
	}
	sl := one(t, s, "006NEW")
	sl.Step = deal.Gathered
	advance(t, s, sl, "gathered")
	if list, err := s.Find(t.Context(), Query{Text: "006A00007001"}); err != nil || len(list.Sealings) != 1 || list.By != byRecord {
		t.Errorf("the copy of a record: %+v, %v", list, err)
	}
	if n := query[int](t, s, `SELECT sum(n) FROM counts WHERE step = 'done'`); n != originals*(copies+1)+1 {
		t.Errorf("%d deals are counted, want %d", n, originals*(copies+1)+1)
	}
}

// aPast is a deal that was done and has a row in every table.
func aPast(record string) Past {
	c := change(record, "h1")
	sl := &deal.Sealing{Tx: c.TxIDs(org)[0], Tenant: acme, Account: org, Change: c, Plan: plan(), Step: deal.Done, Condition: deal.Running}
	sl.Facts.Digest, sl.Facts.Signature = fmt.Sprintf("%064x", 1), true
	sl.Private.FileName = "Contract.pdf"
	sl.Private.Values = []byte(`{"Name":"Brightwater"}`)
	entry := deal.Entry{Who: "daemon", What: "noticed", Events: []deal.Event{{Type: "envelope.created"}}}
	return Past{Sealing: sl, History: []Happening{
		{At: start, Step: deal.Noticed, Condition: deal.Running, Entry: entry},
		{At: start, Step: deal.Noticed, Condition: deal.Running, Intent: &deal.Intent{Step: deal.Noticed, What: "sign", Digest: sl.Facts.Digest, Key: "k", Lease: time.Minute}},
		{At: start.Add(time.Second), Step: deal.Reported, Condition: deal.Running, Entry: entry},
		{At: start.Add(2 * time.Second), Step: deal.Done, Condition: deal.Running, Entry: entry}}}
}

// rowsOf counts the rows of each table that has some because of its deals; of what is added up, the sums.
func rowsOf(t *testing.T, s *Store) map[string]int {
	t.Helper()
	var tables []string
	err := s.view(t.Context(), func(v *txn) (err error) {
		tables, err = column[string](v, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'river%' AND name NOT LIKE 'sqlite%'
			AND name NOT IN ('meta', 'cursors', 'activations', 'guards', 'guard_counts', 'checkpoints', 'polls', 'jobs', 'plans', 'audit_hashes') ORDER BY name`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, table := range tables {
		count := map[string]string{"counts": "sum(n)", "daily": "sum(n)", "latency": "sum(n)", "flows": "sum(n)", "key_uses": "sum(uses)", "audit": "sum(tx <> '')", "outbox": "sum(tx <> '')"}[table]
		if count == "" {
			count = "count(*)"
		}
		n[table] = query[int](t, s, fmt.Sprintf(`SELECT coalesce(%s, 0) FROM %s`, count, table))
	}
	if n["words"] == 0 || n["intents"] == 0 || n["flows"] == 0 {
		t.Fatalf("the originals have no rows in some tables: %v", n)
	}
	return n
}
