package main

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

// fed is how often the watchdog was fed.
func (d *process) fed() (n int) {
	for _, note := range d.told() {
		n += strings.Count(note, "WATCHDOG=1")
	}
	return n
}

func (d *process) awaitFood(t *testing.T) {
	t.Helper()
	already := d.fed()
	eventually(t, "the watchdog is fed", func() (bool, string) { return d.fed() > already, d.log() })
}

// TestAWatchdogIsFedWhileTheDatabaseTakesWritesOrIsKnownToBeLocked holds the lock for longer than a write waits for it,
// which is much longer here than the watchdog does: until then nothing is known but that nothing moves.
func TestAWatchdogIsFedWhileTheDatabaseTakesWritesOrIsKnownToBeLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	d := w.start(t, "WATCHDOG_USEC=1500000")
	d.awaitFood(t)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.stateDir, "dealseal.db")+"?_txlock=immediate&_pragma=busy_timeout(5000)")
	must(t, err)
	defer db.Close()
	lock, err := db.Begin()
	must(t, err)
	defer lock.Rollback()
	before := d.fed()
	eventually(t, "the daemon says that it does not move", func() (bool, string) { return strings.Contains(d.log(), "its watchdog is not fed"), d.log() })
	if n := d.fed() - before; n > 1 { // one may have been on its way
		t.Errorf("the watchdog was fed %d times while nothing could be written", n)
	}
	d.awaitFood(t)
	must(t, lock.Rollback())
	d.awaitFood(t)
	d.stop(t)
}

func TestAStoppedDaemonLeavesOneDatabaseFileAndASignedAuditLog(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	c := s.crms[0]
	record := c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	awaitDone(t, s.ops, record)
	s.daemon.stop(t)
	if info, err := os.Stat(filepath.Join(s.stateDir, "dealseal.db-wal")); !errors.Is(err, fs.ErrNotExist) && (err != nil || info.Size() > 0) {
		t.Errorf("the write-ahead log is not merged: %v", err)
	}
	if stdout, stderr, code := s.run(t, "audit", "verify"); code != exitOK {
		t.Errorf("audit verify: %d %s%s", code, stdout, stderr)
	}
	log := s.daemon.log()
	for _, want := range []string{`msg="stopping: no new work`, `msg="steps under way have ended" after=`, "msg=stopped took="} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}

func TestASecondSignalEndsTheDaemonAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	c := s.crms[0]
	uploading, goOn := make(chan struct{}), make(chan struct{})
	s.at(0, c.uploads, func() {
		close(uploading)
		<-goOn
	})
	record := c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	<-uploading
	s.daemon.terminate(t) // it waits for the upload
	must(t, s.daemon.cmd.Process.Signal(syscall.SIGTERM))
	s.daemon.awaitEnd(t)
	close(goOn)
	var exit *exec.ExitError
	if !errors.As(s.daemon.err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("the daemon ended with %v", s.daemon.err)
	}
	d := s.start(t)
	mustUseTheKey(t, awaitDone(t, s.control(t, s.stateDir), record), 1)
	mustBear(t, c, record, 1)
	d.stop(t)
}
