package engine

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func withNotes(p *deal.Plan) { p.Timeline = []deal.Status{deal.StatusSigned, deal.StatusHeld} }

// TestTheTimelineTellsEachEventOnce: also where the outcome of a note is lost by a crash, and of what is no longer so.
func TestTheTimelineTellsEachEventOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withNotes)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	d.want(s, deal.Held, s.Step, "")
	reason := s.Reason
	d.Ledger = &unended{Store: d.store, lose: 1}
	d.errands()
	if notes := w.tasks(record); len(notes) != 1 || !strings.HasPrefix(notes[0], "Contract held [dealseal "+string(s.Tx)+"/held/1]\n"+reason) {
		t.Fatalf("the timeline is %q, the reason %q", notes, reason)
	}
	w.quote(record, 1)
	must(t, d.store.Release(t.Context(), s.Tx, "", "alice", "the quotation is there"))
	d.finish()
	d.wantDone(d.load(s.Tx))
	if again := d.errands(); again != 0 {
		t.Fatalf("what is on the timeline was not found: again in %s", again)
	}
	if notes := w.tasks(record); len(notes) != 2 || !strings.HasPrefix(notes[1], "Contract signed ") {
		t.Errorf("the timeline is %q", notes)
	}
	d.wantFates(s.Tx, deal.ErrandDone, deal.ErrandDone)
	tried := len(w.org.Requests())
	if d.errands() != 0 || len(w.org.Requests()) != tried {
		t.Error("what is on the timeline costs calls")
	}
}

// TestANoteThatADeadProcessHasAskedForIsWaitedFor, since the CRM may still make it.
func TestANoteThatADeadProcessHasAskedForIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withNotes)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	note := d.story(s.Tx).Errands[0]
	note.Asked = w.now()
	must(t, d.store.BeginErrand(t.Context(), note))
	d.close()
	d = w.daemonIn(d.dir, withNotes)
	if again := d.errands(); again <= 0 || again > lateWrite || len(w.tasks(record)) != 0 {
		t.Fatalf("again in %s, and there are %d notes", again, len(w.tasks(record)))
	}
	if e := d.story(s.Tx).Errands[0]; e.Problem != "" || e.Fate != "" {
		t.Errorf("waiting is taken for trouble: %+v", e)
	}
	w.clock.advance(lateWrite)
	d.errands()
	d.wantFates(s.Tx, deal.ErrandDone)
	if n := len(w.tasks(record)); n != 1 {
		t.Errorf("there are %d notes", n)
	}
}

// TestANoteIsNotMadeSoonAfterARestore: the state that a backup has replaced may have asked for it just before.
func TestANoteIsNotMadeSoonAfterARestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withNotes)
	record := w.bare()
	w.move(record, stageWon)
	d.run()
	d.close()
	copied := filepath.Join(t.TempDir(), "state")
	must(t, os.CopyFS(copied, os.DirFS(d.dir)))
	d = w.daemonIn(copied, withNotes)
	d.finish() // it is held because of the restore
	if again := d.errands(); again == 0 || len(w.tasks(record)) != 0 {
		t.Fatalf("again in %s, and there are %d notes", again, len(w.tasks(record)))
	}
	w.clock.advance(lateWrite)
	if again := d.errands(); again != 0 || len(w.tasks(record)) == 0 {
		t.Errorf("again in %s, and there are %d notes", again, len(w.tasks(record)))
	}
}

// TestANoteThatTheCRMRefusesEnds, and what was certainly not made is asked for again at once.
func TestANoteThatTheCRMRefusesEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withNotes, withMoves)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	w.tick()
	w.fault(mock.Fault{Kind: mock.KindCreate, Effect: mock.APIError, Status: http.StatusBadRequest, Code: "FIELD_CUSTOM_VALIDATION_EXCEPTION", Times: 1})
	d.errands()
	all := d.wantFates(s.Tx, deal.ErrandDone, deal.ErrandRefused)
	if out := all[1].Outcome; !strings.Contains(out, "held could not be noted") || strings.Contains(out, canary) {
		t.Errorf("it has ended with %q", out)
	}
	if stage := w.shown(record, "StageName"); stage != stageParked || len(w.tasks(record)) != 0 {
		t.Errorf("the record is in %q, and has the notes %q", stage, w.tasks(record))
	}
}
