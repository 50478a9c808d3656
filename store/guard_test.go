package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// caution holds more than two entries of one second.
var caution = deal.Guard{Tenant: deal.Caps{Day: 1000}, Rules: map[string]deal.RuleGuard{ruleA: {Caps: deal.Caps{Hour: 50}, Second: 2, Learned: 10}}}

// guarded notices a page under the guard.
func guarded(t *testing.T, s *Store, g deal.Guard, changes ...deal.Change) []deal.TxID {
	t.Helper()
	p := page(t, s, changes...)
	p.Guard = g
	fresh, err := s.Notice(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

// crowd is n entries of one second.
func crowd(name string, n int) (list []deal.Change) {
	for i := range n {
		c := change(fmt.Sprintf("%s%03d", name, i), "h1")
		c.At = start.Add(time.Duration(i) * time.Millisecond)
		list = append(list, c)
	}
	return list
}

func conditions(t *testing.T, s *Store, txs []deal.TxID) string {
	t.Helper()
	n := map[string]int{}
	for _, tx := range txs {
		sl := load(t, s, tx)
		n[string(sl.Condition)]++
		if held := sl.Condition == deal.Held; held != sl.Facts.Guarded || held != strings.HasPrefix(sl.Reason, "[guard] ") {
			t.Errorf("%s is %s because %q, guarded: %t", tx, sl.Condition, sl.Reason, sl.Facts.Guarded)
		}
	}
	return fmt.Sprint(n)
}

// toTell counts the receipts that the CRM has to be told, and queued the jobs.
func toTell(t *testing.T, s *Store) (told, queued int) {
	t.Helper()
	if err := s.read.QueryRow(`SELECT (SELECT count(*) FROM receipts), (SELECT count(*) FROM jobs WHERE due <> ?)`, never).Scan(&told, &queued); err != nil {
		t.Fatal(err)
	}
	return told, queued
}

func guards(t *testing.T, s *Store) []deal.GuardHold {
	t.Helper()
	holds, err := s.Guards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return holds
}

func decided(t *testing.T, s *Store, verb string, want int) {
	t.Helper()
	n, err := s.DecideGuarded(t.Context(), deal.GuardScope{Tenant: acme, Rule: ruleA}, verb, "ann", "it was meant")
	if err != nil || n != want {
		t.Fatalf("%s: %d, %v, want %d", verb, n, err, want)
	}
}

func TestGuardHoldsAMassAndTellsTheCRMNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, options(dir, newClock().Now))
	activate(t, s, acme, ruleA)
	guarded(t, s, caution) // the first run ends
	txs := guarded(t, s, caution, crowd("a", 110)...)
	if got := conditions(t, s, txs); len(txs) != 110 || got != "map[held:110]" {
		t.Fatalf("%d deals, %s", len(txs), got)
	}
	if receipts, jobs := toTell(t, s); receipts != 0 || jobs != 0 {
		t.Errorf("%d records are told of, %d jobs are queued", receipts, jobs)
	}
	one, held := change("later", "h1"), guards(t, s)
	one.At = start.Add(time.Hour)
	if len(held) != 1 || held[0].Held != 110 || held[0].GuardScope != (deal.GuardScope{Tenant: acme, Rule: ruleA}) || !strings.Contains(held[0].Cause, "same second") {
		t.Fatalf("it holds %+v", held)
	}

	// A second start and a second delivery change nothing, and what comes meanwhile is held with the others.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(dir, newClock().Now))
	if again := guarded(t, s, caution, append(crowd("a", 110), one)...); len(again) != 1 || load(t, s, again[0]).Condition != deal.Held {
		t.Errorf("%d deals are new with the same page again", len(again))
	}

	decided(t, s, "release", 111)
	if got := conditions(t, s, txs); got != "map[running:110]" {
		t.Errorf("after the release: %s", got)
	}
	if receipts, jobs := toTell(t, s); receipts != 111 || jobs != 2*111 {
		t.Errorf("after the release %d records are told of, %d jobs are queued", receipts, jobs)
	}
	if held := guards(t, s); len(held) != 0 {
		t.Errorf("after the release it holds %+v", held)
	}
	// It counts from nothing: neither the released nor the next few are held again.
	if next := guarded(t, s, caution, crowd("b", 2)...); conditions(t, s, next) != "map[running:2]" {
		t.Errorf("the next: %s", conditions(t, s, next))
	}
	if _, err := s.DecideGuarded(t.Context(), deal.GuardScope{Tenant: acme}, "release", "ann", "once more"); err == nil {
		t.Error("a release of nothing is no error")
	}
}

func TestGuardDropsAMassInSilence(t *testing.T) {
	s, _ := newStore(t)
	guarded(t, s, caution)
	txs := guarded(t, s, caution, crowd("a", 20)...)
	decided(t, s, "drop", 20)
	if got := conditions(t, s, txs); got != "map[ended:20]" {
		t.Errorf("after the drop: %s", got)
	}
	if receipts, jobs := toTell(t, s); receipts != 0 || jobs != 0 {
		t.Errorf("%d records are told of, %d jobs are queued", receipts, jobs)
	}
	trail, err := s.Trail(t.Context(), txs[0])
	if err != nil || len(trail) != 2 || trail[1].Who != "ann" || trail[1].What != "dropped" || trail[1].Why != "it was meant" {
		t.Errorf("trail %+v, %v", trail, err)
	}
}

func TestGuardOpensWithTheLastDealThatIsDecidedAbout(t *testing.T) {
	s, _ := newStore(t)
	guarded(t, s, caution)
	txs := guarded(t, s, caution, crowd("a", 3)...)
	for i, tx := range txs {
		if held := guards(t, s); len(held) != 1 || held[0].Held != 3-i {
			t.Fatalf("%d decided, it holds %+v", i, held)
		}
		if i == 1 {
			if err := s.Drop(t.Context(), tx, "ann", "no"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := s.Release(t.Context(), tx, deal.HoldGuard, "ann", "yes"); err != nil {
			t.Fatal(err)
		}
	}
	if held := guards(t, s); len(held) != 0 {
		t.Errorf("all decided, it holds %+v", held)
	}
	if receipts, jobs := toTell(t, s); receipts != 2 || jobs != 4 {
		t.Errorf("%d records are told of, %d jobs are queued; two were released", receipts, jobs)
	}
}

func TestGuardHoldsAFirstRunUntilItIsCounted(t *testing.T) {
	g := deal.Guard{Rules: map[string]deal.RuleGuard{ruleA: {FirstRun: 5, Second: 1}}}
	for _, c := range []struct {
		name            string
		first, second   int
		between, at_end string
		held            int
	}{
		{"as many as it may have", 2, 3, "map[held:2]", "map[running:5]", 0},
		{"one more", 2, 4, "map[held:2]", "map[held:6]", 1},
		{"more on the first page", 7, 1, "map[held:7]", "map[held:8]", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newStore(t)
			all := crowd("a", c.first+c.second)
			p := page(t, s, all[:c.first]...)
			p.Guard, p.Page.More = g, true
			txs, err := s.Notice(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if got := conditions(t, s, txs); got != c.between {
				t.Errorf("after the first page %s, want %s", got, c.between)
			}
			txs = append(txs, guarded(t, s, g, all[c.first:]...)...)
			if got := conditions(t, s, txs); got != c.at_end {
				t.Errorf("at the end %s, want %s", got, c.at_end)
			}
			if held := guards(t, s); len(held) != c.held {
				t.Errorf("it holds %+v", held)
			}
			if c.held > 0 {
				decided(t, s, "release", c.first+c.second)
			}
			// What comes later is under the usual limits.
			if next := guarded(t, s, g, crowd("b", 2)...); conditions(t, s, next) != "map[held:2]" {
				t.Errorf("after the first run: %s", conditions(t, s, next))
			}
		})
	}
}

func TestGuardLearnsWhatIsUsual(t *testing.T) {
	s, _ := newStore(t)
	g := deal.Guard{Rules: map[string]deal.RuleGuard{ruleA: {Learned: 10}}}
	day := func(n, deals int) []deal.TxID {
		list := crowd(fmt.Sprint("d", n, "-"), deals)
		for i := range list {
			list[i].At = start.AddDate(0, 0, n).Add(time.Duration(i) * time.Second)
		}
		return guarded(t, s, g, list...)
	}
	if got := conditions(t, s, day(0, 90)); got != "map[running:90]" {
		t.Errorf("nothing is learned yet: %s", got)
	}
	for n := 1; n <= 6; n++ {
		day(n, 7)
	}
	if got := conditions(t, s, day(7, 75)); got != "map[held:5 running:70]" {
		t.Errorf("ten times as many as usual, and five: %s", got)
	}
	decided(t, s, "release", 5)
	var learned int
	if err := s.read.QueryRow(`SELECT n FROM guard_counts WHERE rule = ? AND bucket = 'day/2026-03-11'`, ruleA).Scan(&learned); err != nil || learned != 75 {
		t.Errorf("of that day it has learned %d, %v, want 75", learned, err)
	}
	var kept []string
	for n := 8; n <= 80; n++ {
		day(n, 1)
	}
	rows, err := s.read.Query(`SELECT bucket FROM guard_counts`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var b string
		if err := rows.Scan(&b); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, b)
	}
	if slices.Contains(kept, "day/2026-03-04") || len(kept) > 100 {
		t.Errorf("%d counts are kept: %v", len(kept), kept)
	}
}

// TestACopyOfTheStateTellsNothingOfWhatTheGuardHolds: the daemon of a new copy looks at the records of all that waits.
func TestACopyOfTheStateTellsNothingOfWhatTheGuardHolds(t *testing.T) {
	s, _ := newStore(t)
	guarded(t, s, caution)
	txs := guarded(t, s, caution, crowd("a", 3)...)
	if err := s.update(t.Context(), "commit/open", func(txn *txn) error { return txn.beginEpoch("a copy") }); err != nil {
		t.Fatal(err)
	}
	again, goesOn := load(t, s, txs[0]), load(t, s, txs[1])
	again.Condition, again.Reason, again.Facts.Waited = deal.Held, again.Facts.Waited.Reason, nil
	advance(t, s, again, "held")
	if receipts, _ := toTell(t, s); receipts != 0 {
		t.Errorf("%d records are told of what waits again", receipts)
	}
	goesOn.Facts.Waited, goesOn.Facts.Guarded = nil, false
	advance(t, s, goesOn, "resumed")
	if receipts, _ := toTell(t, s); receipts != 1 {
		t.Errorf("%d records are told of the one that goes on", receipts)
	}
	decided(t, s, "release", 2)
	if got := conditions(t, s, txs); got != "map[running:3]" {
		t.Errorf("after the release: %s", got)
	}
}
