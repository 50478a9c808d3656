package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

func TestNoticeTakesAnEntryInOnce(t *testing.T) {
	s, _ := newStore(t)
	first := notice(t, s, change("006A", "h1"), change("006B", "h1"))
	again := notice(t, s, change("006A", "h1"), change("006A", "h2"))
	want := []deal.TxID{deal.NewTxID(org, deal.Ref{Object: "Opportunity", ID: "006A"}, ruleA, "h2")}
	if len(first) != 2 || !cmp.Equal(again, want) {
		t.Fatalf("fresh: %v, then %v, want two, then %v", first, again, want)
	}
}

func TestNoticeRefusesAPageThatWasReadWithAnotherCursor(t *testing.T) {
	s, _ := newStore(t)
	late := page(t, s, change("006B", "h1"))
	notice(t, s, change("006A", "h1"))
	if fresh, err := s.Notice(t.Context(), late); !errors.Is(err, deal.ErrStale) || fresh != nil {
		t.Fatalf("got %v, %v, want ErrStale", fresh, err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM sealings`); n != 1 {
		t.Fatalf("%d sealings, want 1", n)
	}
}

func TestEntriesOfMergedRecordsAreKnownByTheirOldIDs(t *testing.T) {
	s, _ := newStore(t)
	old := notice(t, s, change("101", "won@1"))
	merged := change("200", "won@1")
	merged.Aliases = []string{"100", "101"}
	if fresh := notice(t, s, merged); len(fresh) != 0 {
		t.Fatalf("the merged record's old entry is fresh: %v", fresh)
	}
	if fresh := notice(t, s, change("200", "won@1"), change("100", "won@1")); len(fresh) != 0 {
		t.Fatalf("it is fresh without the aliases: %v", fresh)
	}
	later := change("200", "won@2")
	later.Aliases = merged.Aliases
	fresh := notice(t, s, later)
	if len(fresh) != 1 {
		t.Fatalf("a new entry of the merged record: %v", fresh)
	}
	earlier, err := s.Earlier(t.Context(), load(t, s, fresh[0]))
	if err != nil || !cmp.Equal(earlier, old) {
		t.Fatalf("earlier: %v, %v, want %v", earlier, err, old)
	}
	a, b := receipt(t, s, old[0]), receipt(t, s, fresh[0])
	if a != b || a.Owner != fresh[0] {
		t.Fatalf("the merged record has receipts %+v and %+v, want one of the newest entry", a, b)
	}
	verified(t, s)
}

func TestTwoSealedRecordsThatMergeShareOneReceipt(t *testing.T) {
	s, c := newStore(t)
	a, b := one(t, s, "100"), one(t, s, "101")
	c.advance(time.Second)
	merged := change("100", "won@2")
	merged.Aliases, merged.At = []string{"101"}, start.Add(time.Second)
	fresh := notice(t, s, merged)
	for _, tx := range []deal.TxID{a.Tx, b.Tx, fresh[0]} {
		if got := receipt(t, s, tx); got.Owner != fresh[0] {
			t.Errorf("%s: owner %s, want %s", tx, got.Owner, fresh[0])
		}
	}
	if n := query[int](t, s, `SELECT count(*) FROM receipts`); n != 1 {
		t.Errorf("%d receipts, want 1", n)
	}
}

func TestNoticeIsAllOrNothing(t *testing.T) {
	for name, spoil := range map[string]func(*deal.Noticing){
		"no plan":         func(n *deal.Noticing) { n.Page.Entries[1].Rule = "unknown" },
		"no watch":        func(n *deal.Noticing) { n.Page.Entries[1].Rule = "new"; n.Plans["new"] = plan() },
		"never activated": func(n *deal.Noticing) { n.Watches["new"] = watch("new") },
		"another rule's":  func(n *deal.Noticing) { n.Watches["new"] = watch(ruleA) },
		"other tenant":    func(n *deal.Noticing) { n.Tenant = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			n := page(t, s, change("006A", "h1"), change("006B", "h1"))
			spoil(&n)
			if _, err := s.Notice(t.Context(), n); err == nil {
				t.Fatal("accepted")
			}
			if c := cursor(t, s, acme, org); !c.IsZero() {
				t.Errorf("the cursor moved to %v", c)
			}
			if n := query[int](t, s, `SELECT (SELECT count(*) FROM sealings) + (SELECT count(*) FROM jobs) + (SELECT count(*) FROM river_job) + (SELECT count(*) FROM known)`); n != 0 {
				t.Errorf("%d rows remain", n)
			}
		})
	}
}

func TestQuarantinedRowsAreKeptOnceAndStopNothing(t *testing.T) {
	s, _ := newStore(t)
	for _, reason := range []string{"no stage", "stage has no ID"} {
		n := page(t, s)
		n.Page.Quarantined = []deal.Quarantine{{Ref: deal.Ref{Object: "Opportunity", ID: "006A"}, Row: "h9", Reason: reason, At: start}}
		if _, err := s.Notice(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Quarantined(t.Context(), 10)
	want := []deal.Quarantine{{Ref: deal.Ref{Object: "Opportunity", ID: "006A"}, Row: "h9", Reason: "stage has no ID", At: start}}
	if err != nil || !cmp.Equal(got, want) {
		t.Fatalf("%v, %s", err, cmp.Diff(want, got))
	}
}

func TestARowThatSomebodyHasDealtWithIsShownNoMore(t *testing.T) {
	s, _ := newStore(t)
	read := func(rows ...string) {
		t.Helper()
		n := page(t, s)
		for _, row := range rows {
			n.Page.Quarantined = append(n.Page.Quarantined, deal.Quarantine{Ref: deal.Ref{Object: "Opportunity", ID: "006A"}, Row: row, Reason: "no stage", At: start})
		}
		if _, err := s.Notice(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	deals := func(row string, want, left int) {
		t.Helper()
		n, err := s.DealWith(t.Context(), row, "alice", "moved it again")
		if err != nil || n != want {
			t.Errorf("%d rows were dealt with, want %d: %v", n, want, err)
		}
		if rows, err := s.Quarantined(t.Context(), 10); err != nil || len(rows) != left {
			t.Errorf("%d rows are left, want %d: %v", len(rows), left, err)
		}
	}
	read("h1", "h2", "h3")
	if _, err := s.DealWith(t.Context(), "h1", "alice", ""); err == nil {
		t.Error("nobody has to say why")
	}
	deals("h1", 1, 2)
	read("h1") // the next poll sees it again
	deals("h1", 0, 2)
	deals("", 2, 0)
	read("h4")
	deals("", 1, 0)
	verified(t, s)
}

func TestASealingComesBackAsItWasAdvanced(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	c.advance(time.Second)
	sl.Step, sl.Condition, sl.Reason, sl.Attempts, sl.Next = deal.Gathered, deal.Retrying, "CRM is slow", 3, start.Add(time.Hour)
	sl.Private = deal.Private{Values: []byte(`{"a":1}`), Document: []byte(`[]`), FileName: private, Ticket: []byte(`{}`), Value: []byte{1}, Token: []byte{2}, Report: []byte(`3`), Boxes: []byte(`[4]`), Source: "069"}
	sl.Facts.Record, sl.Facts.Released = "abc", []string{"re-entry"}
	advance(t, s, sl, "gathered")
	if got := load(t, s, sl.Tx); !cmp.Equal(sl, got) {
		t.Fatal(cmp.Diff(sl, got))
	}
	if sl.Version != 2 || !sl.Updated.Equal(c.now) || !sl.Facts.Times[deal.Gathered].Equal(c.now) {
		t.Fatalf("version %d, updated %s, times %v", sl.Version, sl.Updated, sl.Facts.Times)
	}
	var missing *NotFoundError
	if _, err := s.Load(t.Context(), "aaaaaaaaaaaaaaaaaaaaaaaaaa"); !errors.As(err, &missing) {
		t.Fatalf("an unknown transaction gives %v", err)
	}
}

func TestOnlyTheHolderOfTheVersionAdvances(t *testing.T) {
	s, _ := newStore(t)
	mine := one(t, s, "006A")
	theirs := load(t, s, mine.Tx)
	mine.Step = deal.Gathered
	advance(t, s, mine, "gathered")
	theirs.Step = deal.Gathered
	before := *theirs
	if err := s.Advance(t.Context(), theirs, deal.Entry{Who: "daemon", What: "gathered"}); !errors.Is(err, deal.ErrStale) {
		t.Fatalf("Advance: got %v, want ErrStale", err)
	}
	if !cmp.Equal(before, *theirs) {
		t.Fatal("a refused Advance changed the sealing in memory")
	}
	if err := s.Begin(t.Context(), theirs, deal.Intent{Step: deal.Noticed, What: "gather", Lease: time.Minute}); !errors.Is(err, deal.ErrStale) {
		t.Fatalf("Begin: got %v, want ErrStale", err)
	}
}

func TestALeaseKeepsOthersOutUntilItExpires(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	begin(t, s, sl, "gather", "")
	other := load(t, s, sl.Tx)
	ctx := otherJob(t, s)
	intent := deal.Intent{Step: deal.Noticed, What: "gather", Lease: time.Minute}
	if err := s.Begin(ctx, other, intent); !errors.Is(err, deal.ErrStale) {
		t.Fatalf("Begin within another's lease: %v", err)
	}
	if err := s.Advance(ctx, other, deal.Entry{Who: "daemon", What: "x"}); !errors.Is(err, deal.ErrStale) {
		t.Fatalf("Advance within another's lease: %v", err)
	}
	c.advance(time.Minute)
	if err := s.Begin(ctx, other, intent); err != nil {
		t.Fatalf("Begin after the lease: %v", err)
	}
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "x"}); !errors.Is(err, deal.ErrStale) {
		t.Fatalf("the first owner comes back late: %v", err)
	}
}

func TestALeaseFromBeforeTheClockWasSetBackKeepsNobodyOut(t *testing.T) {
	s, c := newStore(t)
	c.advance(365 * 24 * time.Hour)
	sl := one(t, s, "006A")
	begin(t, s, sl, "gather", "")
	c.now = start
	if err := s.Begin(otherJob(t, s), sl, deal.Intent{Step: deal.Noticed, What: "gather", Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
}

func TestLeasesOfADeadProcessEndWithItsLock(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	begin(t, s, sl, "gather", "")
	dir := s.dir
	s.release()
	s = open(t, options(dir, c.Now))
	if err := s.Begin(t.Context(), sl, deal.Intent{Step: deal.Noticed, What: "gather", Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
}

func TestTheLedgerRefuses(t *testing.T) {
	const d1, d2 = "d1", "d2"
	prepared := func(t *testing.T, s *Store, sl *deal.Sealing) {
		sl.Step, sl.Facts.Digest = deal.Rendered, d1
		advance(t, s, sl, "prepared")
	}
	signed := func(t *testing.T, s *Store, sl *deal.Sealing) {
		prepared(t, s, sl)
		begin(t, s, sl, "sign", d1)
		sl.Facts.Signature = true
		advance(t, s, sl, "signed")
	}
	signing := func(digest string) func(s *Store, t *testing.T, sl *deal.Sealing) error {
		return func(s *Store, t *testing.T, sl *deal.Sealing) error {
			return s.Begin(t.Context(), sl, deal.Intent{Step: sl.Step, What: "sign", Digest: digest, Lease: time.Minute})
		}
	}
	advancing := func(what, why string, change func(*deal.Sealing)) func(s *Store, t *testing.T, sl *deal.Sealing) error {
		return func(s *Store, t *testing.T, sl *deal.Sealing) error {
			change(sl)
			return s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: what, Why: why})
		}
	}
	other := func(sl *deal.Sealing) { sl.Facts.Digest = d2 }
	seconded := func(t *testing.T, s *Store, sl *deal.Sealing) {
		signed(t, s, sl)
		sl.Facts.Second = &deal.SecondSeal{Digest: d2}
		advance(t, s, sl, "digest-committed")
	}
	signingSecond := func(digest string) func(s *Store, t *testing.T, sl *deal.Sealing) error {
		return func(s *Store, t *testing.T, sl *deal.Sealing) error {
			return s.Begin(t.Context(), sl, deal.Intent{Step: sl.Step, What: "second-sign", Digest: digest, Lease: time.Minute})
		}
	}
	twice := func(t *testing.T, s *Store, sl *deal.Sealing) {
		seconded(t, s, sl)
		begin(t, s, sl, "second-sign", d2)
		sl.Facts.Second = &deal.SecondSeal{Digest: d2, Signature: true}
		advance(t, s, sl, "signed")
	}
	for _, c := range []struct {
		name  string
		given func(*testing.T, *Store, *deal.Sealing)
		do    func(*Store, *testing.T, *deal.Sealing) error
		taken bool
	}{
		{"a second digest", prepared, advancing("prepared", "", other), false},
		{"a second digest without a reason", prepared, advancing("prepared-again", "", other), false},
		{"not a second digest with a reason", prepared, advancing("prepared-again", "the amount changed", other), true},
		{"a second digest once one is signed", signed, advancing("prepared-again", "why not", other), false},
		{"to sign another digest than the committed", prepared, signing(d2), false},
		{"to sign no digest", prepared, signing(""), false},
		{"to sign once more", signed, signing(d1), false},
		{"not to sign the committed digest again after a crash", func(t *testing.T, s *Store, sl *deal.Sealing) {
			prepared(t, s, sl)
			begin(t, s, sl, "sign", d1)
		}, signing(d1), true},
		{"a digest that was given up", func(t *testing.T, s *Store, sl *deal.Sealing) {
			prepared(t, s, sl)
			sl.Facts.Digest = d2
			if err := s.Advance(t.Context(), sl, deal.Entry{Who: "a", What: "prepared-again", Why: "b"}); err != nil {
				t.Fatal(err)
			}
		}, advancing("prepared-again", "back", func(sl *deal.Sealing) { sl.Facts.Digest = d1 }), false},
		{"another digest after gathering again", func(t *testing.T, s *Store, sl *deal.Sealing) {
			prepared(t, s, sl)
			sl.Step, sl.Facts.Digest = deal.Noticed, ""
			advance(t, s, sl, "changed")
		}, advancing("prepared", "", other), false},
		{"a digest of a second seal before the first is made", prepared, advancing("x", "", func(sl *deal.Sealing) { sl.Facts.Second = &deal.SecondSeal{Digest: d2} }), false},
		{"the first seal's digest for the second", signed, advancing("x", "", func(sl *deal.Sealing) { sl.Facts.Second = &deal.SecondSeal{Digest: d1} }), false},
		{"another digest of the second seal, whatever the reason", seconded, advancing("prepared-again", "the amount changed", func(sl *deal.Sealing) { sl.Facts.Second = &deal.SecondSeal{Digest: "d3"} }), false},
		{"to sign the second seal before its digest is committed", signed, signingSecond(d2), false},
		{"to sign another digest for the second seal", seconded, signingSecond("d3"), false},
		{"to sign the first digest for the second seal", seconded, signingSecond(d1), false},
		{"to sign the first seal once more for the second", seconded, signing(d2), false},
		{"not to sign the second seal, nor again after a crash", func(t *testing.T, s *Store, sl *deal.Sealing) {
			seconded(t, s, sl)
			begin(t, s, sl, "second-sign", d2)
		}, signingSecond(d2), true},
		{"to sign the second seal once more", twice, signingSecond(d2), false},
		{"to sign the second seal once more for somebody who says that it was not", twice, func(s *Store, t *testing.T, sl *deal.Sealing) error {
			sl.Facts.Second.Signature = false
			return signingSecond(d2)(s, t, sl)
		}, false},
		{"to forget the signature of the second seal", twice, advancing("x", "", func(sl *deal.Sealing) { sl.Facts.Second.Signature = false }), false},
		{"to forget the second seal", twice, advancing("x", "", func(sl *deal.Sealing) { sl.Facts.Second = nil }), false},
		{"not to take over a contract of the record instead", twice, advancing("adopted", "", func(sl *deal.Sealing) { sl.Facts.Second, sl.Facts.Adopted = nil, true }), true},
		{"to forget a signature", signed, advancing("x", "", func(sl *deal.Sealing) { sl.Facts.Signature = false }), false},
		{"to go back behind a signature", signed, advancing("x", "", func(sl *deal.Sealing) { sl.Step = deal.Noticed }), false},
		{"not to go back before a signature", prepared, advancing("x", "", func(sl *deal.Sealing) { sl.Step = deal.Noticed }), true},
		{"to go back half-way", prepared, advancing("x", "", func(sl *deal.Sealing) { sl.Step = deal.Gathered }), false},
		{"an unknown step", prepared, advancing("x", "", func(sl *deal.Sealing) { sl.Step = "lost" }), false},
		{"an unknown condition", prepared, advancing("x", "", func(sl *deal.Sealing) { sl.Condition = "odd" }), false},
		{"an entry that does not say what", prepared, advancing("", "", func(*deal.Sealing) {}), false},
		{"a retry at no time", prepared, advancing("x", "", func(sl *deal.Sealing) { sl.Condition = deal.Retrying }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newStore(t)
			sl := one(t, s, "006A")
			c.given(t, s, sl)
			before := load(t, s, sl.Tx)
			err := c.do(s, t, sl)
			if c.taken {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var refused *RefusedError
			if !errors.As(err, &refused) || !deal.IsPermanent(err) {
				t.Fatalf("got %v, want a *RefusedError", err)
			}
			if after := load(t, s, sl.Tx); !cmp.Equal(before, after) {
				t.Fatalf("the refusal left a trace: %s", cmp.Diff(before, after))
			}
		})
	}
}

func TestTheDatabaseItselfRefusesASecondCurrentDigest(t *testing.T) {
	s, _ := newStore(t)
	const insert = `INSERT INTO digests (tx, digest, at) VALUES ('t', $1, 0)`
	if _, err := s.write.Exec(insert, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec(insert, "b"); err == nil {
		t.Fatal("two current digests of one transaction")
	}
}

func TestEventsGetTheirPlaceInTheOutboxWithTheChange(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	sl.Step = deal.Gathered
	events := []deal.Event{{Type: "document.a", Data: map[string]string{"k": "v"}}, {Type: "document.b"}}
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "gathered", Events: events}); err != nil {
		t.Fatal(err)
	}
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "noted", Events: events[:1]}); err != nil {
		t.Fatal(err)
	}
	story, err := s.Story(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	want := []OutboxLine{
		{deal.EventID(sl.Tx, 1, "envelope.created"), 1, "envelope.created", start, nil, false},
		{deal.EventID(sl.Tx, 2, "document.a"), 2, "document.a", start, map[string]string{"k": "v"}, false},
		{deal.EventID(sl.Tx, 3, "document.b"), 3, "document.b", start, nil, false},
		{deal.EventID(sl.Tx, 4, "document.a"), 4, "document.a", start, map[string]string{"k": "v"}, false},
	}
	if d := cmp.Diff(want, story.Outbox); d != "" {
		t.Fatal(d)
	}
	if _, err := s.write.Exec(`UPDATE outbox SET data = x'00' WHERE n = 2`); err != nil {
		t.Fatal(err)
	}
	want[1].Data, want[1].Damaged = nil, true
	if story, err = s.Story(t.Context(), sl.Tx); err != nil {
		t.Fatalf("for one damaged event nothing is told of the deal: %v", err)
	}
	if d := cmp.Diff(want, story.Outbox); d != "" {
		t.Fatal(d)
	}
}

func TestAnEntryAndWhatBeginsThenAreOneCommit(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	before, commits := sl.Version, 0
	s.hook = func(point string) {
		if strings.HasPrefix(point, "commit/") && strings.HasSuffix(point, ":after") {
			commits++
		}
	}
	sl.Step = deal.Gathered
	err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "gathered", Then: &deal.Intent{What: "render", Digest: "d", Lease: time.Minute}})
	s.hook = nil
	if err != nil || commits != 1 || sl.Version != before+2 {
		t.Fatalf("%d commits, version %d after %d: %v", commits, sl.Version, before, err)
	}
	if got := load(t, s, sl.Tx); got.Version != sl.Version || got.Step != deal.Gathered {
		t.Errorf("the ledger has version %d at %s, want %d at gathered", got.Version, got.Step, sl.Version)
	}
	if n := query[int](t, s, `SELECT count(*) FROM intents WHERE what = 'render' AND step = 'gathered' AND digest = 'd' AND version = (SELECT version FROM sealings)`); n != 1 {
		t.Errorf("%d intents of this version, want 1", n)
	}
	lines, err := s.Trail(t.Context(), sl.Tx)
	if err != nil || len(lines) < 2 || lines[len(lines)-2].What != "gathered" || lines[len(lines)-1].What != "begin render" || lines[len(lines)-1].Step != deal.Gathered {
		t.Errorf("the audit log ends with %+v: %v", lines, err)
	}
	if err := s.Begin(otherJob(t, s), load(t, s, sl.Tx), deal.Intent{Step: deal.Gathered, What: "render", Lease: time.Minute}); !errors.Is(err, deal.ErrStale) {
		t.Errorf("another job may begin what has begun: %v", err)
	}
	verified(t, s)
}

func TestNothingBeginsWithAnEntryThatIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*deal.Sealing, *deal.Intent){
		"it waits":        func(sl *deal.Sealing, _ *deal.Intent) { sl.Condition = deal.Held },
		"it is done":      func(sl *deal.Sealing, _ *deal.Intent) { sl.Step = deal.Done },
		"another digest":  func(_ *deal.Sealing, i *deal.Intent) { i.Digest = "d2" },
		"a signed digest": func(sl *deal.Sealing, _ *deal.Intent) { sl.Facts.Signature = true },
		"a key that is spent": func(_ *deal.Sealing, i *deal.Intent) {
			i.Limits = deal.KeyLimits{Total: 1}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			if err := s.Begin(t.Context(), one(t, s, "006B"), signIntent("other", "key", deal.KeyLimits{})); err != nil {
				t.Fatal(err)
			}
			sl := one(t, s, "006A")
			sl.Step, sl.Facts.Digest = deal.Rendered, "d1"
			then := signIntent("d1", "key", deal.KeyLimits{})
			spoil(sl, &then)
			size := query[int](t, s, `SELECT count(*) FROM audit`)
			if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "digest-committed", Then: &then}); err == nil {
				t.Fatal("it was taken")
			}
			if n := query[int](t, s, `SELECT (SELECT count(*) FROM digests WHERE tx = $1) + (SELECT count(*) FROM intents WHERE tx = $1) + (SELECT count(*) FROM audit) - $2`, sl.Tx, size); n != 0 || load(t, s, sl.Tx).Step != deal.Noticed {
				t.Errorf("%d rows remain", n)
			}
		})
	}
}

// A signature that begins with the commit of its digest is marked outside of the database like any other.
func TestADigestAndItsUseTogetherRaiseTheMark(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	sl.Step, sl.Facts.Digest = deal.Rendered, "d1"
	then := signIntent("d1", "key", deal.KeyLimits{})
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "digest-committed", Then: &then}); err != nil {
		t.Fatal(err)
	}
	size := query[int64](t, s, `SELECT count(*) FROM audit`)
	if mark, err := s.readHighWater(); err != nil || mark != size {
		t.Errorf("the mark is %d, the tree has %d entries: %v", mark, size, err)
	}
}
