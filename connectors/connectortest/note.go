package connectortest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func noter(t *testing.T, crm connectors.CRM) connectors.Noter {
	t.Helper()
	noter, ok := crm.(connectors.Noter)
	if !ok {
		t.Fatal("the connector puts no notes on timelines")
	}
	return noter
}

func noteAbout(w World, id string, status deal.Status, number int) deal.Note {
	return deal.Note{Tx: txFor(id), Status: status, Number: number, Body: "field <b>x</b> is missing\nMend it", At: w.Now()}
}

func testNote(t *testing.T, w World) {
	ids := w.CreateDeals(2, w.Traits().Stage)
	held := noteAbout(w, ids[0], deal.StatusHeld, 1)
	looked := held
	looked.OnlyLook = true
	if id, err := noter(t, w.Connector(quiet())).Note(callContext(t), ref(w, ids[0]), looked); err != nil || id != "" || len(w.Timeline(ids[0])) != 0 {
		t.Fatalf("what was only looked for is %q: %v", id, err)
	}
	var first string
	for range 3 { // also by a connector that remembers nothing
		id, err := noter(t, w.Connector(quiet())).Note(callContext(t), ref(w, ids[0]), held)
		if err != nil || id == "" || first != "" && id != first {
			t.Fatalf("the note is %q, was %q: %v", id, first, err)
		}
		first = id
	}
	if notes := w.Timeline(ids[0]); len(notes) != 1 || !strings.HasPrefix(notes[0], "Contract held [dealseal ") || !strings.Contains(notes[0], "is missing") ||
		strings.Contains(notes[0], "<b>") && w.Traits().HTML {
		t.Errorf("the timeline is %q", notes)
	}
	crm := noter(t, w.Connector(quiet()))
	for _, n := range []deal.Note{noteAbout(w, ids[0], deal.StatusHeld, 11), noteAbout(w, ids[0], deal.StatusHeld, 2), noteAbout(w, ids[0], deal.StatusSigned, 1)} {
		if _, err := crm.Note(callContext(t), ref(w, ids[0]), n); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.Timeline(ids[0])); n != 4 || len(w.Timeline(ids[1])) != 0 {
		t.Errorf("there are %d notes on one deal, want 4, and %d on the other", n, len(w.Timeline(ids[1])))
	}
	w.Delete(ids[1])
	if _, err := crm.Note(callContext(t), ref(w, ids[1]), noteAbout(w, ids[1], deal.StatusHeld, 1)); !errors.Is(err, deal.ErrGone) {
		t.Errorf("on a deal that is deleted there is a note: %v", err)
	}
	if err := w.Fail(NoteCall, Forbidden, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := crm.Note(callContext(t), ref(w, ids[0]), noteAbout(w, ids[0], deal.StatusFailed, 1)); !deal.IsPermanent(err) {
		t.Errorf("a note that may not be made is %v, want a permanent error", err)
	}
}

func testNoteReplyLost(t *testing.T, w World) {
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	crm := noter(t, w.Connector(quiet()))
	for number, effect := range []Effect{LoseReply, CutBefore, Unavailable} {
		if err := w.Fail(NoteCall, effect, 1); err != nil {
			t.Fatal(err)
		}
		var err error
		for range 4 {
			if _, err = crm.Note(callContext(t), ref(w, id), noteAbout(w, id, deal.StatusHeld, number+1)); err == nil {
				break
			}
			if deal.IsPermanent(err) {
				t.Fatalf("%s: %v", effect, err)
			}
			w.Advance(11 * time.Minute)
		}
		w.Heal()
		if n := len(w.Timeline(id)); err != nil || n != number+1 {
			t.Errorf("after %q there are %d notes, want %d: %v", effect, n, number+1, err)
		}
	}
}
