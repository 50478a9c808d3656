package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

func txs(list []Summary) (out []deal.TxID) {
	for _, m := range list {
		out = append(out, m.Tx)
	}
	return out
}

func TestListIsNewestFirstFilteredAndPaged(t *testing.T) {
	s, _ := newStore(t)
	var all []deal.TxID
	for i := range 5 {
		all = append([]deal.TxID{one(t, s, fmt.Sprint("006", i)).Tx}, all...)
	}
	held := load(t, s, all[2])
	held.Condition, held.Reason = deal.Held, "because"
	advance(t, s, held, "held")
	gathered := load(t, s, all[4])
	gathered.Step = deal.Gathered
	advance(t, s, gathered, "gathered")
	for _, c := range []struct {
		name string
		f    Filter
		want []deal.TxID
	}{
		{"all", Filter{}, all},
		{"tenant", Filter{Tenant: acme}, all},
		{"other tenant", Filter{Tenant: "other"}, nil},
		{"condition", Filter{Condition: deal.Held}, all[2:3]},
		{"tenant and condition", Filter{Tenant: acme, Condition: deal.Held}, all[2:3]},
		{"step", Filter{Step: deal.Gathered}, all[4:]},
		{"record", Filter{Record: "0061"}, all[3:4]},
		{"first page", Filter{Limit: 2}, all[:2]},
		{"second page", Filter{Limit: 2, Before: 4}, all[2:4]},
	} {
		got, err := s.List(t.Context(), c.f)
		if err != nil || !cmp.Equal(txs(got), c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, txs(got), err, c.want)
		}
	}
	got, err := s.List(t.Context(), Filter{Condition: deal.Held})
	want := []Summary{{Seq: 3, Tx: held.Tx, Tenant: acme, Account: org, Ref: held.Change.Ref, Rule: ruleA, Step: deal.Noticed, Condition: deal.Held, Reason: "because", At: start, Noticed: start, Updated: start}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

func TestNoQueryReadsWholeTables(t *testing.T) {
	s, _ := newStore(t)
	queries := map[string][]any{
		oldestQuery:         {acme, "noticed", "running"},
		lostJobsQuery:       nil,
		retryingQuery:       nil,
		earlierQuery:        {1},
		untoldQuery:         {1},
		stillWaiting:        {acme, "held"},
		resumeRunning:       {1},
		usersOfTemplate:     {"order-form@1"},
		errandFiguresQuery:  nil,
		followUpsQuery:      {1, 500},
		followUpsAheadQuery: {1, 500},
		`SELECT n, tx, shared, leaf, private FROM audit WHERE tx = $1 ORDER BY n`: {"t"},
	}
	for _, f := range []Filter{{}, {Tenant: acme}, {Condition: deal.Held}, {Tenant: acme, Condition: deal.Held}, {Step: deal.Kept}, {Tenant: acme, Step: deal.Kept},
		{Step: deal.Kept, Condition: deal.Dead}, {Record: "006"}, {Tenant: acme, Record: "006"}, {Tenant: acme, Before: 100}, {Condition: deal.Dead, Before: 100}} {
		q, args := f.query()
		queries[q] = args
	}
	for q, args := range queries {
		rows, err := s.read.Query("EXPLAIN QUERY PLAN "+q, args...)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		for rows.Next() {
			var id, parent, x int
			var detail string
			if err := rows.Scan(&id, &parent, &x, &detail); err != nil {
				t.Fatal(err)
			}
			sorted := strings.Contains(detail, "TEMP B-TREE")
			scanned := strings.HasPrefix(detail, "SCAN sealings") && !strings.Contains(q, "FROM sealings ORDER BY") || strings.HasPrefix(detail+" ", "SCAN s ") || strings.HasPrefix(detail, "SEARCH s USING INDEX sealings_tenant (") || strings.HasPrefix(detail, "SCAN audit") || strings.HasPrefix(detail, "SCAN receipts") || detail == "SCAN errands" || strings.HasPrefix(detail, "SCAN follow_ups")
			if (sorted || scanned) && !strings.Contains(detail, "sealings_alive") {
				t.Errorf("%s\n\t%s", q, detail)
			}
		}
		rows.Close()
	}
}

func TestCountsFollowEveryChange(t *testing.T) {
	s, c := newStore(t)
	one(t, s, "006A")
	c.advance(time.Minute)
	held := one(t, s, "006B")
	held.Condition = deal.Held
	advance(t, s, held, "held")
	one(t, s, "006C")
	want := []Count{
		{Tenant: acme, Step: deal.Noticed, Condition: deal.Held, N: 1, Oldest: c.now},
		{Tenant: acme, Step: deal.Noticed, Condition: deal.Running, N: 2, Oldest: start},
	}
	got, err := s.Counts(t.Context())
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Fatalf("%v %s", err, d)
	}
}

func TestTheStoryOfADealIsWhole(t *testing.T) {
	s, c := newStore(t)
	first := one(t, s, "006A")
	second := notice(t, s, change("006A", "h2"))[0]
	sl := load(t, s, second)
	begin(t, s, sl, "sign", "d1")
	story, err := s.Story(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]IntentLine{{At: c.now, Until: c.now.Add(time.Minute), Step: deal.Noticed, What: "sign", Digest: "d1"}}, story.Intents); d != "" {
		t.Error(d)
	}
	if !cmp.Equal(story.Earlier, []deal.TxID{first.Tx}) || story.Receipt.Owner != second || len(story.Trail) != 2 || story.Erased || !cmp.Equal(story.Sealing, sl) {
		t.Errorf("%+v", story)
	}
}

func TestTheLastPollOfEachTenantIsKept(t *testing.T) {
	s, _ := newStore(t)
	want := []deal.PollState{
		{Tenant: acme, Account: org, Kind: deal.Salesforce, At: start, Lag: time.Second, Entries: 3, Budget: deal.Budget{Used: 1, Max: 2, At: start}},
		{Tenant: "zeta", At: start, Err: "timeout", Since: start.Add(-time.Hour)},
	}
	for _, p := range []deal.PollState{{Tenant: "zeta", Err: "older"}, want[1], want[0]} {
		if err := s.SetPoll(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Polls(t.Context())
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Fatalf("%v %s", err, d)
	}
}
