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
	for _, point := range []string{"gather.begin.gather/before", "gather.call.record/after"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			first, second := twins(t, w)
			record := w.won()
			tx := first.notice()
			if other := second.notice(); other != tx {
				t.Fatalf("the twins made %s and %s of one entry", tx, other)
			}
			w.tick()
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
			if !s.Facts.Adopted || s.Facts.Elsewhere != "" {
				t.Errorf("the second has not adopted the contract of the first (%t), or takes it for another's (%q)", s.Facts.Adopted, s.Facts.Elsewhere)
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

// TestWhatAnotherDatabaseHasSaidIsRemembered has the record show nothing of it any more when the deal comes to its next attempt.
func TestWhatAnotherDatabaseHasSaidIsRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := twins(t, w)
	record := w.won()
	tx := first.notice()
	second.notice()
	first.tell()
	first.close() // and may have used the key
	second.handle(tx)
	second.want(second.load(tx), deal.Retrying, deal.Noticed, "another daemon works on this very transaction")
	must(t, w.org.Update(record, map[string]any{fieldTx: nil, fieldStatus: nil, fieldAudit: nil}))
	second.finish()
	second.want(second.load(tx), deal.Held, deal.Noticed, "[elsewhere] ")
	w.wantUses(0)
	second.release(tx)
	second.finish()
	second.wantDone(second.load(tx))
	if by := second.load(tx).Facts.Elsewhere; by != "" {
		t.Errorf("%s is remembered although a person has released the deal", by)
	}
	w.wantShown(record, "Signed")
}

// entersTwice makes a deal that is held because its record was sealed before.
func entersTwice(w *world, d *daemon) (record string, tx deal.TxID) {
	w.t.Helper()
	record = w.won()
	d.wantDone(d.run())
	w.move(record, stageLost)
	w.clock.advance(time.Minute)
	w.move(record, stageWon)
	tx = d.notice()
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Noticed, "[re-entry] ")
	d.tell()
	w.wantShown(record, "Held")
	return record, tx
}

// A backup of a deal that was held takes the place of a state in which a person has released it.
func TestACopyAdoptsWhatItKnowsAsHeldAndItsOriginalHasSealedSince(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon()
	record, tx := entersTwice(w, first)
	first.close()
	dir := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(dir, os.DirFS(first.dir)))
	w.clock.advance(time.Minute)
	first = w.daemonIn(first.dir)
	first.release(tx)
	first.finish()
	first.wantDone(first.load(tx))
	w.wantShown(record, "Signed")
	first.close()
	w.clock.advance(time.Minute)

	second := w.daemonIn(dir)
	second.tell()
	w.wantShown(record, "Signed")
	second.finish()
	second.tell()
	second.wantDone(second.load(tx))
	w.wantUses(2)
	w.wantContracts(record, 2)
	w.wantShown(record, "Signed")
}

func TestACopyWaitsAgainWithWhatItKnowsAsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon()
	record, tx := entersTwice(w, first)
	second := first.copyState()
	second.finish()
	second.want(second.load(tx), deal.Held, deal.Noticed, "[re-entry] ")
	second.tell()
	w.wantShown(record, "Held")
	if a, ok := deal.ReadAuditRecord(w.shown(record, fieldAudit)); !ok || a.By != second.store.Instance() {
		t.Errorf("the record says %+v, and not what %s has found", a, second.store.Instance())
	}
	second.release(tx)
	second.finish()
	second.want(second.load(tx), deal.Held, deal.Noticed, "[restored] ")
	second.release(tx)
	second.finish()
	second.wantDone(second.load(tx))
	w.wantContracts(record, 2)
}

// What was noticed before the copy is older than it, even if the CRM's clock says otherwise.
func TestADealThatWasKnownBeforeTheCopyIsOlderThanIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon(func(p *deal.Plan) { p.WriteBack.Audit = "" })
	first.poll()
	w.clock.advance(time.Hour)
	w.won()
	w.clock.advance(-time.Hour) // ours is an hour behind the CRM's
	tx := first.notice()
	second := first.copyState()
	second.finish()
	second.want(second.load(tx), deal.Held, deal.Noticed, "[restored] ")
	w.wantUses(0)
}
