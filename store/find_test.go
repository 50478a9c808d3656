package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/google/go-cmp/cmp"
)

// named notices a record and gathers it with the given values.
func named(t *testing.T, s *Store, record, values, file string) *deal.Sealing {
	t.Helper()
	sl := one(t, s, record)
	sl.Step, sl.Private.Values, sl.Private.FileName = deal.Gathered, json.RawMessage(values), file
	advance(t, s, sl, "gathered")
	return sl
}

func find(t *testing.T, s *Store, q Query) Found {
	t.Helper()
	f, err := s.Find(t.Context(), q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	return f
}

func TestDealsAreFoundByNameRecordAndTransaction(t *testing.T) {
	s, _ := newStore(t)
	a := named(t, s, "0065g00000A1", `{"Name":"Metering 2027","Account":{"Name":"Żabka Polska S.A."},"OpportunityLineItems":[{"Product2":{"Name":"Premium"}}]}`, "Contract żabka.pdf")
	b := named(t, s, "0065g00000A2", `{"dealname":"Renewal","contacts":[{"firstname":"Zoé","lastname":"Lefèvre"}],"amount":"Żabka","line_items":[{"name":"Premium"}]}`, "")
	c := named(t, s, "0065g00000A3", ``, "Quote Żabka Polska 2026-11-20.pdf")
	for _, x := range []struct {
		text string
		by   string
		want []deal.TxID
	}{
		{"zabka", byName, []deal.TxID{c.Tx, a.Tx}},
		{"  POLSKA   ŻABKA ", byName, []deal.TxID{c.Tx, a.Tx}},
		{"Żabka metering", byName, []deal.TxID{a.Tx}},
		{"lefevre", byName, []deal.TxID{b.Tx}},
		{"Lefèvre, Zoé", byName, []deal.TxID{b.Tx}},
		{"renewal zabka", byName, nil},
		{"premium", byName, nil}, // what is sold is in half of all deals
		{"2026", byName, nil},
		{"zab", byName, nil}, // whole words only
		{"!", byName, nil},
		{"0065g00000A2", byRecord, []deal.TxID{b.Tx}},
		{"0065G00000A2", byName, nil}, // case tells IDs apart
		{string(a.Tx), byTransaction, []deal.TxID{a.Tx}},
		{strings.ToUpper(string(a.Tx[:8])), byTransaction, []deal.TxID{a.Tx}},
		{string(a.Tx[:5]), byName, nil},
		{"", "", []deal.TxID{c.Tx, b.Tx, a.Tx}},
	} {
		f := find(t, s, Query{Text: x.text})
		if f.By != x.by || !cmp.Equal(txs(f.Sealings), x.want) || f.Next != 0 {
			t.Errorf("%q: by %s %v, next %d; want by %s %v", x.text, f.By, txs(f.Sealings), f.Next, x.by, x.want)
		}
	}
	if f := find(t, s, Query{Text: "no such form", Records: []string{"0065g00000A3"}}); f.By != byRecord || !cmp.Equal(txs(f.Sealings), []deal.TxID{c.Tx}) {
		t.Errorf("another form of the record's ID: by %s %v", f.By, txs(f.Sealings))
	}
}

func TestARecordIsFoundByTheIDsThatItHadBefore(t *testing.T) {
	s, _ := newStore(t)
	ch := change("9301", "h1")
	ch.Aliases = []string{"9300"}
	tx := notice(t, s, ch)
	if f := find(t, s, Query{Text: "9300"}); !cmp.Equal(txs(f.Sealings), tx) {
		t.Errorf("found %v, want %v", txs(f.Sealings), tx)
	}
}

func TestFiltersAndTextNarrowTogetherAndPagesJoin(t *testing.T) {
	s, clock := newStore(t)
	activate(t, s, "zeta", ruleA)
	var all []*deal.Sealing
	for i := range 12 {
		sl := named(t, s, fmt.Sprint("006", i), `{"Name":"Kolibri"}`, "")
		switch i % 3 {
		case 0:
			sl.Condition, sl.Reason = deal.Held, "because"
			advance(t, s, sl, "held")
		case 1:
			toDone(t, s, sl)
		}
		all = append([]*deal.Sealing{sl}, all...)
		if i == 5 {
			clock.advance(24 * time.Hour)
		}
	}
	if _, err := s.Notice(t.Context(), pageOf(t, s, "zeta", change("zeta-1", "h1"))); err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{
		{}, {Tenant: acme}, {Tenant: "zeta"}, {Tenant: "nobody"}, {State: "held"}, {State: "done"}, {State: "running"}, {Rule: ruleA}, {Rule: "none"}, {Day: start}, {Day: start.Add(24 * time.Hour)},
		{Tenant: acme, State: "held"}, {Tenant: acme, State: "done", Rule: ruleA, Day: start}, {State: "held", Day: start}, {Text: "kolibri", State: "held"}, {Text: "kolibri", Day: start, Tenant: acme}, {Text: "kolibri", Tenant: "zeta"},
	} {
		var want []deal.TxID
		for _, sl := range all {
			state := string(sl.Condition)
			if sl.Step == deal.Done {
				state = "done"
			}
			if (q.Tenant == "" || q.Tenant == sl.Tenant) && (q.State == "" || q.State == state) && (q.Rule == "" || q.Rule == sl.Plan.Rule) &&
				(q.Day.IsZero() || q.Day.Format(time.DateOnly) == sl.Noticed.Format(time.DateOnly)) {
				want = append(want, sl.Tx)
			}
		}
		var got []deal.TxID
		q.Limit = 2
		for pages := 0; pages < 20; pages++ {
			f := find(t, s, q)
			for _, m := range f.Sealings {
				if m.Tenant == acme {
					got = append(got, m.Tx)
				}
			}
			if q.Before = f.Next; f.Next == 0 {
				break
			}
		}
		if !cmp.Equal(got, want) {
			t.Errorf("%+v: %d found, want %d", q, len(got), len(want))
		}
	}
}

// toDone brings a gathered sealing to its end.
func toDone(t *testing.T, s *Store, sl *deal.Sealing) {
	t.Helper()
	for _, step := range deal.Steps[slices.Index(deal.Steps, sl.Step)+1:] {
		if step == deal.Sealed {
			sl.Facts.Digest = fmt.Sprintf("%064x", sl.Version)
			begin(t, s, sl, "sign", sl.Facts.Digest)
			sl.Facts.Signature = true
		}
		sl.Step = step
		advance(t, s, sl, string(step))
	}
}

func TestNoSearchReadsWholeTables(t *testing.T) {
	s, _ := newStore(t)
	named(t, s, "006A", `{"Name":"Kolibri Zauberwald"}`, "")
	tx := load(t, s, txs(find(t, s, Query{}).Sealings)[0]).Tx
	for _, text := range []string{"", "kolibri", "kolibri zauberwald", "006A", string(tx)} {
		for _, state := range []string{"", "held", "done"} {
			for _, tenant := range []deal.TenantID{"", acme} {
				for _, rule := range []string{"", ruleA} {
					for _, day := range []time.Time{{}, start} {
						noScan(t, s, Query{Text: text, State: state, Tenant: tenant, Rule: rule, Day: day})
					}
				}
			}
		}
	}
}

// noScan fails when a page of the query does not begin with an index that gives the newest first.
func noScan(t *testing.T, s *Store, q Query) {
	t.Helper()
	for _, before := range []int64{0, 7} {
		err := s.view(t.Context(), func(x *txn) error {
			f := &finder{txn: x}
			by, err := f.meaning(q)
			if err != nil {
				return err
			}
			if err := f.filter(q); err != nil {
				return err
			}
			for _, line := range explained(t, s, f.query(before, 51, 200), f.args...) {
				switch {
				case strings.HasPrefix(line, "SCAN") && line != "SCAN d", strings.Contains(line, "TEMP B-TREE") && by != byTransaction: // d is bounded, and of an ID's beginning there are few
					t.Errorf("%+v: %s\n\t%s", q, f.query(before, 51, 200), line)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// explained returns SQLite's plan for a query.
func explained(t *testing.T, s *Store, query string, args ...any) (lines []string) {
	t.Helper()
	rows, err := s.read.Query("EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, x int
		var detail string
		if err := rows.Scan(&id, &parent, &x, &detail); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, detail)
	}
	return lines
}

func TestNamesGoWithTheDataKeyAndAreNotInTheFile(t *testing.T) {
	s, _ := newStore(t)
	sl := named(t, s, "006A", `{"Name":"Kolibri"}`, "")
	sl.Condition, sl.Reason = deal.Ended, "dropped"
	advance(t, s, sl, "dropped")
	if n := query[int](t, s, `SELECT count(*) FROM words`); n != 1 {
		t.Fatalf("%d words are kept, want 1", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM words WHERE word = $1`, newMaster([]byte("another key that is 32 bytes long")).keyed([]string{"kolibri"})[0]); n != 0 {
		t.Error("whoever has another key finds the name")
	}
	if err := s.Erase(t.Context(), sl.Tx, "alice", "asked for"); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM words`); n != 0 {
		t.Errorf("%d words are left of an erased deal", n)
	}
}

func TestARecordThatIsReadAgainIsFoundByItsNewName(t *testing.T) {
	s, _ := newStore(t)
	sl := named(t, s, "006A", `{"Name":"Kolibri"}`, "")
	sl.Step = deal.Noticed
	advance(t, s, sl, "gather-again")
	sl.Step, sl.Private.Values = deal.Gathered, json.RawMessage(`{"Name":"Habicht"}`)
	advance(t, s, sl, "gathered")
	if a, b := find(t, s, Query{Text: "kolibri"}), find(t, s, Query{Text: "habicht"}); len(a.Sealings) != 0 || len(b.Sealings) != 1 {
		t.Errorf("%d by the old name, %d by the new one", len(a.Sealings), len(b.Sealings))
	}
}

// TestAPageThatFindsLittleSaysWhereToLookOn has more sealings than one page looks through; the only match is the oldest.
func TestAPageThatFindsLittleSaysWhereToLookOn(t *testing.T) {
	s, _ := newStore(t)
	first := one(t, s, "006A")
	tamper(t, s, `WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
		INSERT INTO sealings (seq, tx, tenant, account, object, record, rule, at, change, plan, step, condition, reason, attempts, next, noticed, updated, step_at, version,
			facts, private, signature, adopted, events, last_entry, lease_owner, lease_until, retention, legal_hold)
		SELECT i, 'x' || i, 'other', account, object, 'r' || i, rule, at, change, plan, step, condition, reason, attempts, next, noticed, updated, step_at, version,
			facts, private, signature, adopted, events, last_entry, lease_owner, lease_until, retention, legal_hold FROM sealings, n WHERE seq = 1`, 2*window+50)
	q := Query{Rule: ruleA, Tenant: acme, Limit: 10}
	pages := 1
	f := find(t, s, q)
	for ; len(f.Sealings) == 0 && f.Next > 0; pages++ {
		q.Before = f.Next
		f = find(t, s, q)
	}
	if pages != 3 || !cmp.Equal(txs(f.Sealings), []deal.TxID{first.Tx}) || f.Next != 0 {
		t.Errorf("after %d pages: %v, next %d", pages, txs(f.Sealings), f.Next)
	}
}

func TestWordsAreComparedAsPeopleTypeThem(t *testing.T) {
	for text, want := range map[string][]string{
		"Zażółć Gęślą Jaźń Sp. z o.o.": {"zazolc", "gesla", "jazn", "sp"}, "Ørsted A/S": {"orsted"}, "Straße & Söhne": {"strasse", "sohne"}, "STRASSE": {"strasse"},
		"Αιολικά Συστήματα": {"αιολικα", "συστηματα"}, "ТОВ «Дніпро Енерго»": {"тов", "дніпро", "енерго"}, "株式会社 東京": {"株式会社", "東京"}, "ﬁn 3M 2027": {"fin", "3m", "2027"}, "İstanbul": {"istanbul"},
	} {
		if got := words(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzWords(f *testing.F) {
	for _, s := range []string{"Żabka Polska S.A.", "株式会社", "a\x00b", "ﬁn Straße", "\xff", "३ अ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		hostile.Budget(t)
		for _, w := range words(text) {
			if again := words(w); !slices.Equal(again, []string{w}) {
				t.Errorf("%q: the word %q is compared as %q", text, w, again)
			}
		}
	})
}
