package engine

import (
	"bytes"
	"context"
	"maps"
	"os"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// simBackup is a backup with what the world knew when it was made.
type simBackup struct {
	tar     []byte
	noticed map[deal.TxID]bool
	jobs    simTimetable
	checked int
}

// backUp makes a backup of the running daemon's state.
func (in *incarnation) backUp() {
	var b bytes.Buffer
	w := in.w
	w.mu.Lock()
	made := &simBackup{noticed: maps.Clone(w.noticed), jobs: maps.Clone(w.jobs), checked: len(w.checked)}
	w.mu.Unlock()
	if _, err := in.store.Backup(in.life, &b, store.BackupOptions{Who: "alice"}); err != nil {
		if in.gate() == nil {
			w.violation("no backup can be made: %v", err)
		}
		return
	}
	made.tar = b.Bytes()
	maps.Copy(made.jobs, w.timetable()) // a job of either side of the moment of the backup: one too many finds nothing to do
	w.mu.Lock()
	w.backup = made
	w.mu.Unlock()
}

// restore kills the daemon and puts the newest backup in the place of its state: what was done since is known to the CRMs
// only.
func (w *simWorld) restore(e simEvent) error {
	w.mu.Lock()
	in, b := w.up, w.backup
	w.mu.Unlock()
	if in == nil || b == nil {
		return nil
	}
	w.mu.Lock()
	w.down = e.For
	w.mu.Unlock()
	in.kill("for a restore")
	<-in.ended
	if err := os.RemoveAll(w.kit.dir); err != nil {
		return err
	}
	if _, err := store.Restore(context.Background(), bytes.NewReader(b.tar), store.RestoreOptions{Dir: w.kit.dir, MasterKey: w.kit.master}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noticed, w.jobs, w.checked = maps.Clone(b.noticed), maps.Clone(b.jobs), w.checked[:b.checked]
	w.unknownAgain(w.noticed)
	for _, entry := range w.entries {
		if d := entry.deal; (d.gone || d.into != nil) && !w.noticed[w.tx(entry)] {
			entry.excused = true
		}
	}
	return nil
}
