package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/store"
)

// scattered are deals that have come to different steps when the daemon stops.
type scattered struct {
	c crm
	// done is done; waits is held before it is sealed; stamped is signed and waits for its time-stamp; untold is sealed
	// and archived, but the CRM refuses its fields; late has entered its stage and is not noticed yet.
	done, waits, stamped, untold, late string
}

// scatter brings deals of each CRM to different steps and stops the daemon.
func (s *stage) scatter(t *testing.T) (all []scattered) {
	t.Helper()
	for _, c := range s.crms {
		quote := sale{quote: quotation(1)}
		d := scattered{c: c, done: c.open(sale{}), waits: c.open(sale{nobody: true}), stamped: c.open(quote), untold: c.open(quote), late: c.open(quote)}
		c.move(d.done, ruleContract)
		c.move(d.waits, ruleContract)
		awaitDone(t, s.ops, d.done)
		awaitHeld(t, s.ops, d.waits, 1, "customer")
		c.refuseUpdates()
		c.move(d.untold, ruleMemo)
		await(t, s.ops, d.untold, 1, "not told", func(m store.Summary) bool { return m.Condition == deal.Dead })
		all = append(all, d)
	}
	s.authority.SetFault(pki.ServiceTSA, pki.Down, -1)
	for _, d := range all {
		d.c.heal()
		d.c.move(d.stamped, ruleMemo)
		mustUseTheKey(t, awaitHeld(t, s.ops, d.stamped, 1, "[level]"), 1)
	}
	s.daemon.stop(t)
	s.authority.SetFault(pki.ServiceTSA, "", 0)
	for _, d := range all {
		d.c.addCustomer(d.waits, hiddenCustomer)
		d.c.move(d.late, ruleMemo)
	}
	return all
}

// copied starts a daemon on a copy of the state.
func (s *stage) copied(t *testing.T) (*process, *remote) {
	t.Helper()
	dir, config := s.path("copy"), s.path("copy.yaml")
	s.configureAs(t, config, dir)
	d := s.launch(t, config)
	d.awaitReady(t)
	return d, s.control(t, dir)
}

// configureAs writes the world's configuration for another state directory.
func (w *world) configureAs(t *testing.T, file, stateDir string) {
	t.Helper()
	b, err := os.ReadFile(w.config)
	must(t, err)
	from, to := "state_dir: \""+w.stateDir+"\"", "state_dir: \""+stateDir+"\""
	if !bytes.Contains(b, []byte(from)) {
		t.Fatal("the configuration names no state directory")
	}
	must(t, os.WriteFile(file, bytes.ReplaceAll(b, []byte(from), []byte(to)), 0o600))
}

func TestACopyOfTheStateSealsNothingTwice(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	all := s.scatter(t)
	copyState(t, s.stateDir, s.path("copy"))
	d, ops := s.copied(t)
	for _, m := range all {
		release := func(record string) {
			conclude(t, ops, "release", sealings(t, ops, record)[0].Tx)
		}
		mustUseTheKey(t, awaitDone(t, ops, m.done), 1)
		// What is not sealed is held until a person says that it was not sealed elsewhere.
		awaitHeld(t, ops, m.waits, 1, "customer")
		release(m.waits)
		awaitHeld(t, ops, m.waits, 1, "[restored]")
		awaitHeld(t, ops, m.late, 1, "[restored]")
		mustBear(t, m.c, m.waits, 0)
		mustBear(t, m.c, m.late, 0)
		release(m.waits)
		release(m.late)
		mustUseTheKey(t, awaitDone(t, ops, m.waits), 1)
		mustUseTheKey(t, awaitDone(t, ops, m.late), 1)
		// What is signed goes on with the same signature.
		awaitHeld(t, ops, m.stamped, 1, "[level]")
		release(m.stamped)
		settle(t, ops, m.stamped)
		mustUseTheKey(t, awaitDone(t, ops, m.stamped), 1)
		mustUseTheKey(t, awaitDone(t, ops, m.untold), 1) // its contract is on the record
		for _, r := range []string{m.done, m.waits, m.stamped, m.untold, m.late} {
			mustBear(t, m.c, r, 1)
		}
	}
	auditIsWhole(t, ops, nil)
	d.stop(t)
}

// TestAnOldCopyOfTheStateSealsNothingThatTheOriginalHasSealed starts the copy after the original has finished all deals.
func TestAnOldCopyOfTheStateSealsNothingThatTheOriginalHasSealed(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	all := s.scatter(t)
	copyState(t, s.stateDir, s.path("copy"))
	first := s.start(t)
	ops := s.control(t, s.stateDir)
	for _, m := range all {
		for verb, records := range map[string][]string{"release": {m.waits, m.stamped}, "retry": {m.untold}} {
			for _, r := range records {
				conclude(t, ops, verb, sealings(t, ops, r)[0].Tx)
			}
		}
		for _, r := range []string{m.waits, m.stamped, m.untold, m.late} {
			awaitDone(t, ops, r)
			mustBear(t, m.c, r, 1)
		}
	}
	first.stop(t)
	d, ops := s.copied(t)
	for _, m := range all { // also what the copy knows as held
		for _, r := range []string{m.waits, m.stamped, m.untold, m.late} {
			settle(t, ops, r)
			awaitDone(t, ops, r)
			mustBear(t, m.c, r, 1)
		}
		mustUseTheKey(t, storyOf(t, ops, sealings(t, ops, m.waits)[0].Tx), 0) // the record bears its contract
		mustUseTheKey(t, storyOf(t, ops, sealings(t, ops, m.late)[0].Tx), 0)
	}
	auditIsWhole(t, ops, nil)
	d.stop(t)
}

// settle waits until a deal is done, releasing it if it is held as restored.
func settle(t *testing.T, ops operations, record string) {
	t.Helper()
	story := await(t, ops, record, 1, "done or held", func(m store.Summary) bool { return isDone(m) || m.Condition == deal.Held })
	if strings.HasPrefix(story.Sealing.Reason, "[restored] ") {
		conclude(t, ops, "release", story.Sealing.Tx)
	}
}
