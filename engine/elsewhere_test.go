package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// twins are daemons on two copies of one state that run at the same time.
func twins(t *testing.T, w *world) (first, second *daemon) {
	t.Helper()
	dir := t.TempDir()
	w.daemonIn(filepath.Join(dir, "a")).close()
	must(t, os.CopyFS(filepath.Join(dir, "b"), os.DirFS(filepath.Join(dir, "a"))))
	first, second = w.daemonIn(filepath.Join(dir, "a")), w.daemonIn(filepath.Join(dir, "b"))
	if first.store.Instance() == second.store.Instance() {
		t.Fatal("a copy has the name of the original")
	}
	w.clock.advance(time.Hour) // what comes now is not older than the copy
	return first, second
}

func TestOfTwoDaemonsOnCopiesOnlyOneUsesTheKey(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"gather.begin.gather/before", "seal.call.rehearsal/before"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			first, second := twins(t, w)
			record := w.won()
			tx := first.notice()
			if other := second.notice(); other != tx {
				t.Fatalf("the twins made %s and %s of one entry", tx, other)
			}
			second.until(point, first.tell) // the first speaks before the second has
			second.handle(tx)
			second.tell()
			s := second.load(tx)
			second.want(s, deal.Retrying, s.Step, "another daemon works on this very transaction")
			if !strings.Contains(s.Reason, first.store.Instance()) {
				t.Errorf("the reason does not name the other: %s", s.Reason)
			}
			w.wantUses(0)

			first.finish()
			first.wantDone(first.load(tx))
			second.finish()
			s = second.load(tx)
			second.wantDone(s)
			if !s.Facts.Adopted {
				t.Error("the second has not adopted the contract of the first")
			}
			w.wantUses(1)
			w.wantContracts(record, 1)
			w.wantShown(record, "Signed")
		})
	}
}

func TestADaemonClaimsARecordBeforeItUsesTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := twins(t, w)
	record := w.won()
	tx := first.notice()
	second.notice()
	first.finish() // nobody has told the record that it is queued
	second.finish()
	first.wantDone(first.load(tx))
	second.wantDone(second.load(tx))
	w.wantUses(1)
	w.wantContracts(record, 1)
}

func TestACopyGoesOnWithWhatItsOriginalHasClaimedOnceAPersonSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	first := w.daemonIn(filepath.Join(dir, "a"))
	record := w.won()
	tx := first.notice()
	first.tell()
	first.close()
	must(t, os.CopyFS(filepath.Join(dir, "b"), os.DirFS(filepath.Join(dir, "a"))))
	w.clock.advance(time.Hour)
	second := w.daemonIn(filepath.Join(dir, "b"))
	second.finish()
	second.want(second.load(tx), deal.Held, deal.Noticed, "[restored]")
	second.release(tx)
	second.finish()
	second.wantDone(second.load(tx))
	w.wantUses(1)
	w.wantContracts(record, 1)
	w.wantShown(record, "Signed")
}

func TestADealThatAVanishedDatabaseHasBegunWaitsForAPerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := twins(t, w)
	record := w.won()
	tx := first.notice()
	second.notice()
	first.tell()
	first.close() // and never comes back
	second.finish()
	second.want(second.load(tx), deal.Held, deal.Noticed, "[elsewhere] ")
	second.tell()
	w.wantShown(record, "Queued") // whoever it was may still go on
	second.release(tx)
	second.finish()
	second.wantDone(second.load(tx))
	w.wantUses(1)
	w.wantContracts(record, 1)
	w.wantShown(record, "Signed")
}
