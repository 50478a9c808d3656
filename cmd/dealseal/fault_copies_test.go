package main

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// TestDaemonsOnTwoCopiesAtOnceSealEachEntryOnce lets the second of two daemons notice each deal while the first is about to
// upload its contract: it waits and says why, and takes over what the first has made.
func TestDaemonsOnTwoCopiesAtOnceSealEachEntryOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{attempts: tireless})
	s.daemon.stop(t)
	copyState(t, s.stateDir, s.path("copy"))
	first := s.begin(t)
	second, ops := s.copied(t)
	copied := time.Now()
	eventually(t, "what enters a stage now is newer than the copy, to a CRM that counts in seconds", func() (bool, string) { return time.Since(copied) > 1100*time.Millisecond, "" })
	for _, c := range s.crms {
		must(t, second.cmd.Process.Signal(syscall.SIGSTOP))
		atUpload, goOn := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(goOn) })
		t.Cleanup(release) // before the CRM's server is closed
		s.at(0, c.uploads, func() { close(atUpload); <-goOn })
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		<-atUpload
		must(t, second.cmd.Process.Signal(syscall.SIGCONT))
		waits := await(t, ops, r, 1, "waiting for the other daemon", func(m store.Summary) bool {
			return strings.Contains(m.Reason, "another daemon works on this very transaction")
		})
		if !strings.Contains(waits.Sealing.Reason, "stop one of the two") {
			t.Errorf("the reason does not say what to do: %s", waits.Sealing.Reason)
		}
		release()
		one, other := awaitDone(t, first.ops, r), awaitDone(t, ops, r)
		if one.Sealing.Tx != other.Sealing.Tx || intents(one, "sign") != 1 || intents(other, "sign") != 0 || !other.Sealing.Facts.Adopted {
			t.Errorf("the first used the key for %s %d times, the second for %s %d times", one.Sealing.Tx, intents(one, "sign"), other.Sealing.Tx, intents(other, "sign"))
		}
		mustBear(t, c, r, 1)
		mustShow(t, c, r, deal.StatusSigned)
	}
	auditIsWhole(t, first.ops, nil)
	auditIsWhole(t, ops, nil)
	first.daemon.stop(t)
	second.stop(t)
}
