package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

// A measurement of a filled ledger is worth something only if the ledger has what a worked one has. Whoever adds a table
// adds it to Fill.
func TestAFilledLedgerHoldsWhatAWorkedOneHolds(t *testing.T) {
	worked, clock := newStore(t)
	sl := one(t, worked, "006A")
	history := []Happening{{At: clock.now, Step: deal.Noticed, Condition: deal.Running, Entry: deal.Entry{Who: "daemon", What: "noticed", Events: []deal.Event{{Type: "envelope.created"}}}}}
	move := func(what string, to deal.Step, to2 deal.Condition, events ...deal.Event) {
		clock.advance(70 * time.Millisecond)
		intent := deal.Intent{Step: sl.Step, What: what, Digest: sl.Facts.Digest, Key: "k", Lease: time.Minute}
		history = append(history, Happening{At: clock.now, Step: sl.Step, Condition: sl.Condition, Intent: &intent})
		if err := worked.Begin(t.Context(), sl, intent); err != nil {
			t.Fatal(err)
		}
		clock.advance(230 * time.Millisecond)
		sl.Step, sl.Condition = to, to2
		e := deal.Entry{Who: "daemon", What: what, Why: "because", Cert: "c", Detail: map[string]string{"a": "b"}, Events: events}
		history = append(history, Happening{At: clock.now, Step: to, Condition: to2, Entry: e})
		if err := worked.Advance(t.Context(), sl, e); err != nil {
			t.Fatal(err)
		}
	}
	sl.Private.Values = []byte(`{"Name":"x"}`)
	move("gather", deal.Gathered, deal.Running)
	sl.Facts.Digest = fmt.Sprintf("%064x", 1)
	move("render", deal.Rendered, deal.Running)
	sl.Facts.Signature = true
	move("complete", deal.Sealed, deal.Running, deal.Event{Type: "document.signed", Data: map[string]string{"x": "y"}})
	sl.Reason = "[second-opinion] look at it"
	move("check", deal.Sealed, deal.Held)

	filled := open(t, options(filepath.Join(t.TempDir(), "filled"), clock.Now))
	activate(t, filled, acme, ruleA)
	past := clone(sl)
	if err := filled.Fill(t.Context(), slices.Values([]Past{{Sealing: past, History: history}})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(load(t, worked, sl.Tx), load(t, filled, sl.Tx)); diff != "" {
		t.Errorf("the sealing differs (-worked +filled):\n%s", diff)
	}
	want, err := worked.Story(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	got, err := filled.Story(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	want.Receipt.Sent, want.Receipt.Sequence, got.Receipt.Sent, got.Receipt.Sequence = 0, 0, 0, 0 // the filled one was told
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the story differs (-worked +filled):\n%s", diff)
	}
	if diff := cmp.Diff(dump(t, worked), dump(t, filled)); diff != "" {
		t.Errorf("the tables differ (-worked +filled):\n%s", diff)
	}
	verified(t, filled)
}

func TestAFilledLedgerGoesOn(t *testing.T) {
	clock := newClock()
	s := open(t, options(filepath.Join(t.TempDir(), "state"), clock.Now))
	activate(t, s, acme, ruleA)
	var pasts []Past
	for i := range 2*fillBatch + 7 {
		c := change(fmt.Sprintf("006%05d", i), "h1")
		tx := c.TxIDs(org)[0]
		pasts = append(pasts, Past{Sealing: &deal.Sealing{Tx: tx, Tenant: acme, Account: org, Change: c, Plan: plan(), Step: deal.Done, Condition: deal.Running},
			History: []Happening{
				{At: start, Step: deal.Noticed, Condition: deal.Running, Entry: deal.Entry{Who: "daemon", What: "noticed", Events: []deal.Event{{Type: "envelope.created"}}}},
				{At: start, Step: deal.Done, Condition: deal.Running, Entry: deal.Entry{Who: "daemon", What: "done"}}}})
	}
	if err := s.Fill(t.Context(), slices.Values(pasts)); err != nil {
		t.Fatal(err)
	}
	if known := notice(t, s, change("00600000", "h1")); len(known) != 0 {
		t.Errorf("an entry of the filled ledger is fresh: %v", known)
	}
	sl := one(t, s, "006NEW")
	sl.Step = deal.Gathered
	advance(t, s, sl, "gathered")
	if n := verified(t, s).Sealings; n != int64(len(pasts))+1 {
		t.Errorf("%d sealings verify, want %d", n, len(pasts)+1)
	}
	if mode := query[int](t, s, "PRAGMA synchronous"); mode != 2 {
		t.Errorf("synchronous is %d after filling, want FULL", mode)
	}
}

// dump reads all tables that hold sealings, but for what is random, told or about the daemon as a whole.
func dump(t *testing.T, s *Store) map[string][]string {
	t.Helper()
	random := map[string]bool{"private": true, "data": true, "wrapped": true, "leaf": true, "hash": true, "job": true}
	told := map[string]bool{"sequence": true, "sent": true, "due": true}
	out := map[string][]string{}
	var tables []string
	err := s.view(t.Context(), func(v *txn) (err error) {
		tables, err = column[string](v, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'river%' AND name NOT LIKE 'sqlite%'
			AND name NOT IN ('meta', 'cursors', 'activations', 'guards', 'checkpoints', 'polls', 'jobs') ORDER BY name`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		rows, err := s.read.QueryContext(t.Context(), "SELECT * FROM "+table)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		out[table] = []string{}
		for rows.Next() {
			values, dest := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				dest[i] = &values[i]
			}
			if err := rows.Scan(dest...); err != nil {
				t.Fatal(err)
			}
			var line []string
			for i, name := range columns {
				if !random[name] && !(table == "receipts" && told[name]) && !(table == "digests" && name == "at") {
					line = append(line, fmt.Sprintf("%s=%v", name, values[i]))
				}
			}
			if line := strings.Join(line, " "); table != "counts" || !strings.HasSuffix(line, " n=0") {
				out[table] = append(out[table], line)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(out[table])
	}
	return out
}
