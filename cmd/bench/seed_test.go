package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

func TestASeededStateIsWholeAndPlausible(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	o := seedOptions{dir: dir, key: dir + ".master-key", deals: 700, full: 100, open: 20, seed: 1}
	if err := o.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	master, err := masterKey(o.key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Dir: dir, MasterKey: master})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	report, err := s.VerifyAudit(t.Context(), nil)
	if err != nil || report.Sealings != 700 {
		t.Errorf("the audit log: %+v, %v", report, err)
	}
	counts, err := s.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiting := map[deal.Condition]int64{}
	for _, c := range counts {
		if c.Step != deal.Done {
			waiting[c.Condition] += c.N
		}
	}
	for _, c := range []deal.Condition{deal.Held, deal.Dead, deal.Retrying, deal.Running, deal.Ended} {
		if waiting[c] == 0 {
			t.Errorf("no deal is %s", c)
		}
	}
	f, err := s.Figures(t.Context(), time.Now().AddDate(-4, 0, 0))
	if err != nil || len(f.Days) < 500 || len(f.Steps) == 0 {
		t.Errorf("700 deals of three years were made on %d days, there are durations of %d steps, %v", len(f.Days), len(f.Steps), err)
	}
	list, err := s.List(t.Context(), store.Filter{Limit: 1, Tenant: "acme", Step: deal.Done})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	story, err := s.Story(t.Context(), list[0].Tx)
	if err != nil || len(story.Sealing.Facts.Times) != len(deal.Steps) || len(story.Trail) != len(way) {
		t.Errorf("the story of a new deal has %d steps and %d lines, %v", len(story.Sealing.Facts.Times), len(story.Trail), err)
	}
}

func TestSeedingAnUsedDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	o := seedOptions{dir: dir, key: dir + ".master-key", deals: 3, seed: 1}
	if err := o.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := o.fill(t.Context()); err == nil {
		t.Error("a state directory with deals was filled again")
	}
}

// Of many deals most are copies; they are found all the same, and the oldest and the newest can be read.
func TestALargeLedgerIsMadeOfCopies(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	b := &bench{ctx: t.Context()}
	o := seedOptions{dir: dir, key: dir + ".master-key", deals: 4*block + 1, full: 5, open: 20, seed: 1}
	if err := o.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh, old, record, err := b.someDeals(o)
	if err != nil {
		t.Fatal(err)
	}
	master, err := masterKey(o.key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Dir: dir, MasterKey: master})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, tx := range append(old, fresh) {
		if sl, err := s.Load(t.Context(), tx); err != nil || len(sl.Private.Document) == 0 {
			t.Errorf("%s cannot be read: %v", tx, err)
		}
	}
	if found, err := s.Find(t.Context(), store.Query{Text: record}); err != nil || found.By != "record" || len(found.Sealings) != 1 {
		t.Errorf("record %s: %+v, %v", record, found, err)
	}
	var n int64
	counts, err := s.Counts(t.Context())
	for _, c := range counts {
		n += c.N
	}
	if err != nil || n != int64(o.deals) {
		t.Errorf("%d deals are counted, %d were made (%v)", n, o.deals, err)
	}
	list, err := s.List(t.Context(), store.Filter{Limit: 1})
	if err != nil || len(list) != 1 || time.Since(list[0].Noticed) > 24*time.Hour {
		t.Errorf("the newest deal: %+v, %v", list, err)
	}
}
