package store

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func receipt(t *testing.T, s *Store, tx deal.TxID) deal.ReceiptState {
	t.Helper()
	r, err := s.Receipt(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAReceiptIsDesiredWheneverWhatIsShownChanges(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	first := receipt(t, s, sl.Tx)
	if want := (deal.ReceiptState{Owner: sl.Tx, Status: deal.StatusQueued, Sequence: start.UnixMilli()}); first != want {
		t.Fatalf("got %+v, want %+v", first, want)
	}
	sl.Step = deal.Gathered
	advance(t, s, sl, "gathered")
	if got := receipt(t, s, sl.Tx); got != first {
		t.Fatalf("nothing to show changed, but the receipt did: %+v", got)
	}
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	held := receipt(t, s, sl.Tx)
	if held.Status != deal.StatusHeld || held.Sequence != first.Sequence+1 {
		t.Fatalf("in the same millisecond: %+v", held)
	}
	c.advance(time.Second)
	sl.Condition = deal.Running
	advance(t, s, sl, "released")
	if got := receipt(t, s, sl.Tx); got.Status != deal.StatusQueued || got.Sequence != c.now.UnixMilli() {
		t.Fatalf("later: %+v", got)
	}
}

func TestToldNeverGoesBack(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	seq := receipt(t, s, sl.Tx).Sequence
	for _, n := range []int64{seq, seq - 1} {
		if err := s.Told(t.Context(), sl.Tx, n, 0); err != nil {
			t.Fatal(err)
		}
		if got := receipt(t, s, sl.Tx); got.Sent != seq || got.Due() {
			t.Fatalf("told %d: %+v", n, got)
		}
	}
}

func TestTheNewestEntryOwnsTheReceipt(t *testing.T) {
	s, c := newStore(t)
	newer := change("006A", "h2")
	newer.At = start.Add(time.Minute)
	second := notice(t, s, newer)[0]
	c.advance(time.Second)
	first := notice(t, s, change("006A", "h1"))[0] // shown late by the CRM
	if got := receipt(t, s, first); got.Owner != second || got.Sequence != start.UnixMilli() {
		t.Fatalf("an older entry changed the receipt: %+v", got)
	}
	old := load(t, s, first)
	old.Condition = deal.Held
	advance(t, s, old, "held")
	if got := receipt(t, s, second); got.Status != deal.StatusQueued {
		t.Fatalf("an older entry speaks for the record: %+v", got)
	}
	tie := change("006A", "h3")
	tie.At = newer.At
	third := notice(t, s, tie)[0]
	if got := receipt(t, s, second); got.Owner != third {
		t.Fatalf("of two entries at one time the one noticed later owns the receipt: %+v", got)
	}
}

func TestTheCRMIsToldInTheQueueOfTheOwnersTenant(t *testing.T) {
	const beta = deal.TenantID("beta")
	// noticed makes a sealing of beta's in the account that it shares with acme.
	noticed := func(t *testing.T, s *Store, c deal.Change) deal.TxID {
		c.Rule = "nda"
		if _, err := s.Activate(t.Context(), beta, org, watch(c.Rule), start); err != nil {
			t.Fatal(err)
		}
		fresh, err := s.Notice(t.Context(), deal.Noticing{
			Tenant: beta, Account: org, Previous: cursor(t, s, beta, org), Page: deal.Page{Entries: []deal.Change{c}, Next: deal.Cursor{Since: c.At}},
			Plans: map[string]deal.Plan{c.Rule: plan()}, Watches: map[string]deal.Watch{c.Rule: watch(c.Rule)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return fresh[0]
	}
	later := func(record string) deal.Change {
		c := change(record, "h2")
		c.At = start.Add(time.Minute)
		return c
	}
	for name, takeOver := range map[string]func(t *testing.T, s *Store, first *deal.Sealing) deal.TxID{
		"a newer entry": func(t *testing.T, s *Store, first *deal.Sealing) deal.TxID {
			return noticed(t, s, later("006A"))
		},
		"a merged record": func(t *testing.T, s *Store, first *deal.Sealing) deal.TxID {
			tx := noticed(t, s, later("006B"))
			if err := s.Identify(t.Context(), first, []string{"006B"}); err != nil {
				t.Fatal(err)
			}
			return tx
		},
		"a recovered sealing": func(t *testing.T, s *Store, first *deal.Sealing) deal.TxID {
			c := later("006A")
			c.Rule = "nda"
			sl := &deal.Sealing{Tx: c.TxIDs(org)[0], Tenant: beta, Account: org, Change: c, Plan: plan(), Step: deal.Kept, Condition: deal.Running, Noticed: start, Updated: start, Version: 1}
			key, err := newDataKey()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.update(t.Context(), "test", func(x *txn) error {
				return x.recoverMissing(sl, key, deal.Entry{Who: "daemon", What: "recovered"})
			}); err != nil {
				t.Fatal(err)
			}
			return sl.Tx
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			first := one(t, s, "006A")
			owner := takeOver(t, s, first)
			if got := receipt(t, s, first.Tx).Owner; got != owner {
				t.Fatalf("owner %s, want %s", got, owner)
			}
			if got := query[deal.TenantID](t, s, `SELECT tenant FROM receipts`); got != beta {
				t.Errorf("the receipt is of %s", got)
			}
			if got := query[deal.TenantID](t, s, `SELECT tenant FROM jobs WHERE kind = 'tell'`); got != beta {
				t.Errorf("the job is of %s", got)
			}
			const queues = `SELECT coalesce(group_concat(queue), '') FROM river_job WHERE json_extract(args, '$.kind') = 'tell'`
			if got := query[string](t, s, queues); got != queueName(beta) {
				t.Errorf("queued in %s, want %s", got, queueName(beta))
			}
		})
	}
}

func TestRulesThatWriteOtherFieldsHaveReceiptsOfTheirOwn(t *testing.T) {
	s, _ := newStore(t)
	if _, err := s.Activate(t.Context(), acme, org, watch("nda"), start); err != nil {
		t.Fatal(err)
	}
	a, b := change("006A", "h1"), change("006A", "h1")
	b.Rule = "nda"
	n := page(t, s, a, b)
	nda := plan()
	nda.WriteBack = deal.WriteBack{Status: "NDA_Status__c"}
	n.Plans["nda"], n.Watches["nda"] = nda, watch("nda")
	fresh, err := s.Notice(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	for _, tx := range fresh {
		if got := receipt(t, s, tx); got.Owner != tx {
			t.Errorf("%s: %+v", tx, got)
		}
	}
}

func TestAPlanThatWritesNothingHasNoReceipt(t *testing.T) {
	s, _ := newStore(t)
	n := page(t, s, change("006A", "h1"))
	silent := plan()
	silent.WriteBack = deal.WriteBack{}
	n.Plans[ruleA] = silent
	fresh, err := s.Notice(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if got := receipt(t, s, fresh[0]); got != (deal.ReceiptState{}) {
		t.Fatalf("%+v", got)
	}
	sl := load(t, s, fresh[0])
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	if n := query[int](t, s, `SELECT count(*) FROM jobs WHERE kind = 'tell'`); n != 0 {
		t.Fatalf("%d jobs to tell nothing", n)
	}
}

func TestUntoldCountsRecordsFromWhenTheyFellBehind(t *testing.T) {
	s, c := newStore(t)
	untold := func(n int64, oldest time.Time) {
		t.Helper()
		if got, at, err := s.Untold(t.Context()); err != nil || got != n || !at.Equal(oldest) {
			t.Fatalf("%d since %s, %v, want %d since %s", got, at, err, n, oldest)
		}
	}
	first := one(t, s, "006A")
	c.advance(time.Minute)
	untold(0, time.Time{}) // a minute is usual
	second := one(t, s, "006B")
	c.advance(time.Millisecond)
	untold(1, start)
	first.Condition = deal.Held
	advance(t, s, first, "held") // what is newer does not make it younger
	untold(1, start)
	told(t, s, first.Tx)
	untold(0, time.Time{})
	c.advance(time.Minute)
	untold(1, start.Add(time.Minute))
	told(t, s, second.Tx)
	first.Condition = deal.Running
	advance(t, s, first, "released")
	behind := c.now
	c.advance(time.Hour)
	untold(1, behind)
}
