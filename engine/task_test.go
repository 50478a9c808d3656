package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/store"
)

func withTasks(p *deal.Plan) { p.WriteBack.Task = &deal.TaskWords{} }

// tasks are the subjects and bodies of the tasks about a record.
func (w *world) tasks(record string) (tasks []string) {
	for _, id := range w.org.Records("Task") {
		if f, ok := w.org.Record(id); ok && f["WhatId"] == record {
			tasks = append(tasks, f["Subject"].(string)+"\n"+f["Description"].(string))
		}
	}
	return tasks
}

// untold loses that the CRM was told, as a crash just before that commit does.
type untold struct {
	*store.Store
	lose int
}

func (f *untold) Told(ctx context.Context, tx deal.TxID, sequence int64, again time.Duration) error {
	if f.lose > 0 {
		f.lose--
		return errors.New("power cut")
	}
	return f.Store.Told(ctx, tx, sequence, again)
}

func TestTheOwnerHasOneTaskForEachTimeThatADealWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTasks)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	if s.Condition != deal.Held {
		t.Fatalf("it is %s: %s", s.Condition, s.Reason)
	}
	d.Ledger = &untold{Store: d.store, lose: 2}
	for range 4 {
		d.tell()
		w.clock.advance(time.Hour)
	}
	tasks := w.tasks(record)
	if len(tasks) != 1 || !strings.Contains(tasks[0], string(s.Tx)+"/1]") || !strings.Contains(tasks[0], s.Reason) || strings.Contains(tasks[0], canary) {
		t.Fatalf("the tasks are %q", tasks)
	}
	// After a restart there is no further one; after another hold there is.
	d.close()
	d = w.daemonIn(d.dir, withTasks)
	d.tell()
	if n := len(w.tasks(record)); n != 1 {
		t.Errorf("after a restart there are %d tasks", n)
	}
	must(t, d.store.Release(t.Context(), s.Tx, "", "alice", "try again"))
	d.finish()
	d.tell()
	if tasks := w.tasks(record); len(tasks) != 2 || !strings.Contains(tasks[1], "/2]") {
		t.Errorf("after a second hold the tasks are %q", tasks)
	}
	w.quote(record, 1)
	must(t, d.store.Release(t.Context(), s.Tx, "", "alice", "the quotation is there"))
	d.finish()
	d.wantDone(d.load(s.Tx))
	if n := len(w.tasks(record)); n != 2 {
		t.Errorf("when it is done there are %d tasks", n)
	}
}

// TestATaskThatADeadProcessHasAskedForIsWaitedFor, since the CRM may still make it.
func TestATaskThatADeadProcessHasAskedForIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTasks)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	must(t, d.store.Tasking(t.Context(), s.Tx, true))
	d.close()
	d = w.daemonIn(d.dir, withTasks)
	d.tell()
	if w.shown(record, fieldStatus) != "Held" || len(w.tasks(record)) != 0 || strings.Contains(d.log.String(), "could not be told") {
		t.Errorf("the record shows %q, tasks %q\n%s", w.shown(record, fieldStatus), w.tasks(record), d.log)
	}
	late := w.id(w.org.Create("Task", map[string]any{"WhatId": record, "Subject": "x " + deal.Task{Tx: s.Tx, Number: 1}.Mark(), "Description": "late", "Status": "Not Started", "Priority": "High"}))
	w.clock.advance(time.Minute)
	d.tell()
	if st, err := d.store.Receipt(t.Context(), s.Tx); err != nil || st.Due() || !st.Tasking.IsZero() {
		t.Errorf("once it is there: %+v, %v", st, err)
	}
	must(t, w.org.Delete(late))
	must(t, d.store.Release(t.Context(), s.Tx, "", "alice", "try again")) // it waits a second time
	d.finish()
	must(t, d.store.Tasking(t.Context(), s.Tx, true))
	d.tell()
	if n := len(w.tasks(record)); n != 0 {
		t.Errorf("there are %d tasks while one may still be made", n)
	}
	w.clock.advance(lateWrite)
	d.tell()
	if tasks := w.tasks(record); len(tasks) != 1 || !strings.Contains(tasks[0], "/2]") {
		t.Errorf("afterwards the tasks are %q", tasks)
	}
}

func TestATaskThatWasAskedForInTheFutureIsNotWaitedForUntilThen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTasks)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	w.clock.advance(400 * 24 * time.Hour) // the clock is wrong
	must(t, d.store.Tasking(t.Context(), s.Tx, true))
	w.clock.advance(-400 * 24 * time.Hour)
	d.tell()
	if n := len(w.tasks(record)); n != 0 {
		t.Errorf("there are %d tasks while one may still be made", n)
	}
	w.clock.advance(lateWrite)
	d.tell()
	if n := len(w.tasks(record)); n != 1 {
		t.Errorf("afterwards there are %d tasks", n)
	}
}

// TestATaskIsNotMadeSoonAfterARestore: the state that a backup has replaced may have asked for it just before.
func TestATaskIsNotMadeSoonAfterARestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTasks)
	record := w.bare()
	w.move(record, stageWon)
	d.run()
	d.close()
	copied := filepath.Join(t.TempDir(), "state")
	must(t, os.CopyFS(copied, os.DirFS(d.dir)))
	d = w.daemonIn(copied, withTasks)
	d.finish() // it is held because of the restore
	d.tell()
	if n := len(w.tasks(record)); n != 0 || w.shown(record, fieldStatus) != "Held" {
		t.Errorf("the record shows %q, and has %d tasks", w.shown(record, fieldStatus), n)
	}
	w.clock.advance(lateWrite)
	d.tell()
	if n := len(w.tasks(record)); n != 1 {
		t.Errorf("afterwards there are %d tasks", n)
	}
}

func TestATaskThatMayNotBeMadeKeepsNoReceiptFromBeingSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTasks)
	record := w.bare()
	w.fault(mock.Fault{Kind: mock.KindCreate, Effect: mock.APIError, Status: 403, Code: "INSUFFICIENT_ACCESS", Times: 100})
	w.move(record, stageWon)
	d.run()
	d.tell()
	if w.shown(record, fieldStatus) != "Held" || len(w.tasks(record)) != 0 || !strings.Contains(d.log.String(), "could not be given a task") {
		t.Errorf("the record shows %q, tasks %q", w.shown(record, fieldStatus), w.tasks(record))
	}
	tried := w.org.Counts()[mock.KindCreate]
	w.clock.advance(24 * time.Hour)
	d.tell()
	if n := w.org.Counts()[mock.KindCreate]; n != tried {
		t.Errorf("it was tried again")
	}
	// Whoever does not want tasks gets none.
	w.org.ClearFaults()
	other := newWorld(t)
	e := other.daemon()
	record = other.deal()
	for _, f := range other.org.Files(record) {
		must(t, other.org.Delete(f.DocumentID))
	}
	other.move(record, stageWon)
	e.run()
	e.tell()
	if n := len(other.org.Records("Task")); n != 0 {
		t.Errorf("there are %d tasks that nobody wanted", n)
	}
}
