package main

import (
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/store"
)

// changed is what people have done to a record after the original daemon had done with it, and what a daemon with
// yesterday's copy of the state must make of it.
type changed struct {
	what string
	by   func(c crm, record string)
	// holds are what has to be released, one after the other, by words of the reasons; each must name its cure.
	holds [][]string
	// keyUses are those of the copy after the last release, contracts what the record bears then.
	keyUses, contracts int
}

// waits is what the copy knows of them.
var waits = []string{"no file on the record matches"}

var released = []string{"[restored]", "if no contract exists, release the deal"}

// changes are to records that the copy knows as held before the seal, and the original has sealed since.
var changes = []changed{
	{what: "moved out of its stage", by: func(c crm, r string) { c.move(r, stageLost) }, contracts: 1},
	{what: "edited", by: func(c crm, r string) {
		c.rename(r, anotherSubject)
		c.addFile(r, "Quote newer.pdf", quotation(2))
	}, contracts: 1},
	{what: "its fields cleared", by: func(c crm, r string) { c.clearFields(r) }, contracts: 1},
	{what: "its contract deleted", by: func(c crm, r string) { c.loseContract(r) },
		holds: [][]string{{"[missing]", "dealseal recover", "release to seal again"}}, keyUses: 1, contracts: 1},
	{what: "its contract deleted and its fields cleared", by: func(c crm, r string) {
		c.loseContract(r)
		c.clearFields(r)
	}, holds: [][]string{waits, released}, keyUses: 1, contracts: 1},
	{what: "moved out, its contract deleted and its fields cleared", by: func(c crm, r string) {
		c.move(r, stageLost)
		c.loseContract(r)
		c.clearFields(r)
	}, holds: [][]string{waits, released, {"[left]", "release to seal it all the same, or drop"}}, keyUses: 1, contracts: 1},
}

// yesterday are the deals of one CRM by what the copy knows of them.
type yesterday struct {
	c crm
	// waiting are held before the seal, one for each of the changes; stamped is signed and waits for its time-stamp; done
	// and bare are done.
	waiting             []string
	stamped, done, bare string
	// again enters its stage a second time when nobody runs, removed is deleted then. Both wait like the others before.
	again, removed string
}

// TestYesterdaysCopySealsNothingTwiceWhateverPeopleDidSince lets the original finish all deals after it was copied, and
// people change their records, before a daemon starts on the copy.
func TestYesterdaysCopySealsNothingTwiceWhateverPeopleDidSince(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	var all []yesterday
	for _, c := range s.crms {
		all = append(all, s.live(t, c))
	}
	s.daemon.stop(t)
	copyState(t, s.stateDir, s.path("copy"))
	s.finish(t, all)
	for _, y := range all {
		for i, x := range changes {
			x.by(y.c, y.waiting[i])
		}
		for _, r := range []string{y.stamped, y.bare} {
			y.c.loseContract(r)
			y.c.clearFields(r)
		}
		y.c.clearFields(y.done)
		y.c.move(y.again, stageLost)
		y.c.move(y.again, ruleMemo)
		y.c.remove(y.removed)
	}
	d, ops := s.copied(t)
	for _, y := range all {
		judgeCopy(t, ops, y)
	}
	auditIsWhole(t, ops, nil)
	d.stop(t)
}

// live brings the deals of one CRM to where the copy will find them.
func (s *stage) live(t *testing.T, c crm) yesterday {
	t.Helper()
	quote := sale{quote: quotation(1)}
	y := yesterday{c: c, stamped: c.open(quote), done: c.open(quote), bare: c.open(quote), again: c.open(sale{}), removed: c.open(sale{})}
	for range changes {
		y.waiting = append(y.waiting, c.open(sale{}))
	}
	for _, r := range append([]string{y.done, y.bare}, y.notSealed()...) {
		c.move(r, ruleMemo)
	}
	awaitDone(t, s.ops, y.done)
	awaitDone(t, s.ops, y.bare)
	for _, r := range y.notSealed() {
		awaitHeld(t, s.ops, r, 1, "no file on the record matches")
	}
	s.authority.SetFault(pki.ServiceTSA, pki.Down, -1)
	defer s.authority.SetFault(pki.ServiceTSA, "", 0)
	c.move(y.stamped, ruleMemo)
	mustUseTheKey(t, awaitHeld(t, s.ops, y.stamped, 1, "[level]"), 1)
	return y
}

// notSealed are the deals that the copy knows as held before the seal.
func (y yesterday) notSealed() []string {
	return append([]string{y.again, y.removed}, y.waiting...)
}

// finish has the original seal everything and stop.
func (w *world) finish(t *testing.T, all []yesterday) {
	t.Helper()
	s := w.begin(t)
	for _, y := range all {
		for _, r := range y.notSealed() {
			y.c.addFile(r, "Quote "+r+".pdf", quotation(1))
		}
		for _, r := range append(y.notSealed(), y.stamped) {
			conclude(t, s.ops, "release", sealings(t, s.ops, r)[0].Tx)
		}
	}
	for _, y := range all {
		for _, r := range append(y.notSealed(), y.stamped) {
			mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
			mustBear(t, y.c, r, 1)
			mustShow(t, y.c, r, deal.StatusSigned)
		}
	}
	s.daemon.stop(t)
}

// judgeCopy lets an operator release what the copy holds, reading the reasons.
func judgeCopy(t *testing.T, ops operations, y yesterday) {
	t.Helper()
	release := func(m store.Summary) { conclude(t, ops, "release", m.Tx) }
	for i, x := range changes {
		r := y.waiting[i]
		t.Logf("%s: %s", r, x.what)
		for _, words := range x.holds {
			mustUseTheKey(t, awaitHeld(t, ops, r, 1, words...), 0)
			mustBear(t, y.c, r, 0)
			mustShow(t, y.c, r, deal.StatusHeld)
			release(sealings(t, ops, r)[0])
		}
		story := awaitDone(t, ops, r)
		mustUseTheKey(t, story, x.keyUses)
		if story.Sealing.Facts.Adopted != (x.keyUses == 0) || entries(story, "held") != 1+len(x.holds) {
			t.Errorf("%s: adopted is %t, held %d times", x.what, story.Sealing.Facts.Adopted, entries(story, "held"))
		}
		mustBear(t, y.c, r, x.contracts)
		mustShow(t, y.c, r, deal.StatusSigned)
	}

	// The signature was made before the copy; what is sealed bears the same.
	awaitHeld(t, ops, y.stamped, 1, "[level]")
	release(sealings(t, ops, y.stamped)[0])
	awaitHeld(t, ops, y.stamped, 1, released...)
	mustBear(t, y.c, y.stamped, 0)
	release(sealings(t, ops, y.stamped)[0])
	mustUseTheKey(t, awaitDone(t, ops, y.stamped), 1)
	mustBear(t, y.c, y.stamped, 1)

	second := awaitHeld(t, ops, y.again, 2, released...)
	first := sealings(t, ops, y.again)[1]
	eventually(t, "the first entry of "+y.again+" has taken over its contract", func() (bool, string) {
		m := sealings(t, ops, y.again)[1]
		return isDone(m), m.Reason
	})
	mustUseTheKey(t, storyOf(t, ops, first.Tx), 0)
	conclude(t, ops, "release", second.Sealing.Tx)
	awaitHeld(t, ops, y.again, 2, "[re-entry]", string(first.Tx), "release to seal it again, or drop")
	mustBear(t, y.c, y.again, 1)
	conclude(t, ops, "release", second.Sealing.Tx)
	mustUseTheKey(t, await(t, ops, y.again, 2, "done", isDone), 1)
	mustBear(t, y.c, y.again, 2)

	awaitHeld(t, ops, y.removed, 1, waits...)
	release(sealings(t, ops, y.removed)[0])
	gone := awaitHeld(t, ops, y.removed, 1, "if the record was deleted, drop it")
	conclude(t, ops, "drop", gone.Sealing.Tx)
	mustUseTheKey(t, await(t, ops, y.removed, 1, "dropped", func(m store.Summary) bool { return m.Condition == deal.Ended }), 0)

	for r, n := range map[string]int{y.done: 1, y.bare: 0} { // what is done stays as it is
		if list := sealings(t, ops, r); len(list) != 1 || !isDone(list[0]) {
			t.Errorf("%s was done and is %+v", r, list)
		}
		mustBear(t, y.c, r, n)
	}
}
