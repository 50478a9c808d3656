package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is the ledger as simple as it can be said.
type model struct {
	t        *testing.T
	s        *Store
	clock    *testClock
	previous []deal.Noticing
	sealings []*modelSealing // in the order noticed
	names    map[deal.TxID]bool
}

type modelSealing struct {
	tx        deal.TxID
	record    string
	at        time.Time
	step      deal.Step
	condition deal.Condition
	signed    bool
}

func (m *model) notice(r *rapid.T) {
	n := rapid.IntRange(0, 4).Draw(r, "entries")
	var entries []deal.Change
	for range n {
		record := fmt.Sprint("00", rapid.IntRange(1, 3).Draw(r, "record"))
		c := change(record, fmt.Sprint("h", rapid.IntRange(1, 4).Draw(r, "occurrence")))
		c.At = start.Add(time.Duration(rapid.IntRange(0, 2).Draw(r, "minute")) * time.Minute)
		entries = append(entries, c)
	}
	p := page(m.t, m.s, entries...)
	m.previous = append(m.previous, p)
	fresh, err := m.s.Notice(m.t.Context(), p)
	if err != nil {
		r.Fatal(err)
	}
	var want []deal.TxID
	for _, c := range entries {
		tx := c.TxIDs(org)[0]
		if m.names[tx] {
			continue
		}
		m.names[tx] = true
		want = append(want, tx)
		m.sealings = append(m.sealings, &modelSealing{tx: tx, record: c.Ref.ID, at: c.At, step: deal.Noticed, condition: deal.Running})
	}
	if !cmp.Equal(fresh, want) {
		r.Fatalf("fresh %v, want %v", fresh, want)
	}
}

func (m *model) noticeStale(r *rapid.T) {
	if len(m.previous) == 0 {
		r.Skip("nothing was noticed")
	}
	p := rapid.SampledFrom(m.previous).Draw(r, "page")
	if _, err := m.s.Notice(m.t.Context(), p); !errors.Is(err, deal.ErrStale) {
		r.Fatalf("a page from before: %v", err)
	}
}

func (m *model) advance(r *rapid.T) {
	w := m.pick(r)
	sl, err := m.s.Load(m.t.Context(), w.tx)
	if err != nil {
		r.Fatal(err)
	}
	sl.Step = rapid.SampledFrom(deal.Steps).Draw(r, "step")
	sl.Condition = rapid.SampledFrom([]deal.Condition{deal.Running, deal.Retrying, deal.Held, deal.Dead, deal.Ended}).Draw(r, "condition")
	sl.Next = m.clock.now.Add(time.Minute)
	sl.Facts.Signature = rapid.Bool().Draw(r, "signature")
	if rapid.IntRange(0, 4).Draw(r, "stale") == 0 {
		sl.Version--
		if err := m.s.Advance(m.t.Context(), sl, deal.Entry{Who: "a", What: "b"}); !errors.Is(err, deal.ErrStale) {
			r.Fatalf("an older version: %v", err)
		}
		return
	}
	back := sl.Step.Before(w.step)
	allowed := (sl.Facts.Signature || !w.signed) && (!back || sl.Step == deal.Noticed && !w.signed)
	err = m.s.Advance(m.t.Context(), sl, deal.Entry{Who: "a", What: "b"})
	if allowed != (err == nil) {
		r.Fatalf("from %s (signed %t) to %s (signed %t): %v", w.step, w.signed, sl.Step, sl.Facts.Signature, err)
	}
	if allowed {
		w.step, w.condition, w.signed = sl.Step, sl.Condition, sl.Facts.Signature
	}
}

func (m *model) operate(r *rapid.T) {
	w := m.pick(r)
	ops := map[string]struct {
		from []deal.Condition
		to   deal.Condition
		do   func() error
	}{
		"retry":   {[]deal.Condition{deal.Dead, deal.Retrying}, deal.Running, func() error { return m.s.Retry(m.t.Context(), w.tx, "a", "b") }},
		"release": {[]deal.Condition{deal.Held}, deal.Running, func() error { return m.s.Release(m.t.Context(), w.tx, "h", "a", "b") }},
		"drop":    {[]deal.Condition{deal.Held, deal.Dead, deal.Retrying}, deal.Ended, func() error { return m.s.Drop(m.t.Context(), w.tx, "a", "b") }},
	}
	name := rapid.SampledFrom([]string{"retry", "release", "drop"}).Draw(r, "operation")
	op := ops[name]
	allowed := w.step != deal.Done && slices.Contains(op.from, w.condition)
	tells := name == "retry" && (w.step == deal.Done || w.condition.Waiting()) // no record is ever told here
	if err := op.do(); (allowed || tells) != (err == nil) {
		r.Fatalf("%s of %s, %s: %v", name, w.step, w.condition, err)
	}
	if allowed {
		if name == "retry" && w.condition == deal.Dead && !w.signed && w.step.Before(deal.Sealed) {
			w.step = deal.Noticed // no digest is ever committed here: it begins anew
		}
		w.condition = op.to
	}
}

func (m *model) pick(r *rapid.T) *modelSealing {
	if len(m.sealings) == 0 {
		r.Skip("there are no sealings")
	}
	return m.sealings[rapid.IntRange(0, len(m.sealings)-1).Draw(r, "sealing")]
}

func (m *model) check(r *rapid.T) {
	m.clock.advance(time.Millisecond)
	counts := map[Count]int64{}
	owners := map[string]*modelSealing{}
	for _, w := range m.sealings {
		counts[Count{Tenant: acme, Step: w.step, Condition: w.condition}]++
		if o := owners[w.record]; o == nil || !w.at.Before(o.at) {
			owners[w.record] = w
		}
	}
	got, err := m.s.Counts(m.t.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, c := range got {
		if counts[Count{Tenant: c.Tenant, Step: c.Step, Condition: c.Condition}] != c.N {
			r.Fatalf("counted %+v, want %v", c, counts)
		}
	}
	if len(got) != len(counts) {
		r.Fatalf("%d states counted, want %d", len(got), len(counts))
	}
	for _, w := range m.sealings {
		m.checkOne(r, w, owners[w.record])
	}
}

func (m *model) checkOne(r *rapid.T, w, owner *modelSealing) {
	sl, err := m.s.Load(m.t.Context(), w.tx)
	if err != nil || sl.Step != w.step || sl.Condition != w.condition || sl.Facts.Signature != w.signed {
		r.Fatalf("%s is %s, %s, %v; want %+v", w.tx, sl.Step, sl.Condition, err, w)
	}
	state, err := m.s.Receipt(m.t.Context(), w.tx)
	if err != nil || state.Owner != owner.tx || state.Status != deal.ShownAs(owner.step, owner.condition) || !state.Due() {
		r.Fatalf("receipt of record %s: %+v, %v; want that of %+v", w.record, state, err, owner)
	}
	alive := w.step != deal.Done && !w.condition.Waiting()
	var jobs int
	if err := m.s.read.QueryRow(`SELECT count(*) FROM jobs j JOIN river_job r ON r.id = j.job WHERE j.kind = 'seal' AND j.key = $1`, w.tx).Scan(&jobs); err != nil {
		r.Fatal(err)
	}
	if (jobs == 1) != alive || jobs > 1 {
		r.Fatalf("%s is %s, %s and has %d jobs", w.tx, w.step, w.condition, jobs)
	}
}

func TestTheLedgerBehavesLikeItsModel(t *testing.T) {
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		c := newClock()
		s, err := Open(t.Context(), options(filepath.Join(t.TempDir(), fmt.Sprint("run", runs)), c.Now))
		if err != nil {
			r.Fatal(err)
		}
		defer s.release()
		activate(t, s, acme, ruleA)
		m := &model{t: t, s: s, clock: c, names: map[deal.TxID]bool{}}
		r.Repeat(map[string]func(*rapid.T){
			"notice": m.notice, "notice a stale page": m.noticeStale, "advance": m.advance, "operate": m.operate, "": m.check,
		})
		if _, err := s.VerifyAudit(t.Context(), nil); err != nil {
			r.Fatal(err)
		}
	})
}
