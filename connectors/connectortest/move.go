package connectortest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func mover(t *testing.T, crm connectors.CRM) connectors.Mover {
	t.Helper()
	m, ok := crm.(connectors.Mover)
	if !ok {
		t.Fatal("the connector moves no records: a rule cannot say where they go")
	}
	return m
}

func movable(t *testing.T, traits Traits) {
	t.Helper()
	if traits.Unmovable {
		supported(t, fmt.Errorf("moving %s: %w", traits.Object, ErrUnsupported))
	}
}

func testMove(t *testing.T, w World) {
	stages := w.Traits()
	ids := w.CreateDeals(3, stages.Stage)
	crm := mover(t, w.Connector(quiet()))
	to := deal.Move{From: []string{stages.Stage}, To: stages.Other}
	if stages.Unmovable {
		if _, err := crm.Move(callContext(t), ref(w, ids[0]), to); !deal.IsPermanent(err) || w.Requests(WriteCall) > 0 {
			t.Errorf("a record that people alone move was moved by %d writes: %v", w.Requests(WriteCall), err)
		}
		return
	}
	for range 2 {
		w.Advance(2 * time.Second)
		if stage, err := crm.Move(callContext(t), ref(w, ids[0]), to); err != nil || stage != stages.Other {
			t.Fatalf("the record is in %q: %v", stage, err)
		}
	}
	if n := w.Requests(WriteCall); n != 1 {
		t.Errorf("%d writes for one move", n)
	}
	for _, elsewhere := range []deal.Move{{From: []string{stages.Third}, To: stages.Other}, {To: stages.Other}} {
		if stage, err := crm.Move(callContext(t), ref(w, ids[1]), elsewhere); err != nil || stage != stages.Stage {
			t.Errorf("a record that is elsewhere is in %q then: %v", stage, err)
		}
	}
	w.Move(ids[1], stages.Third)
	if stage, err := crm.Move(callContext(t), ref(w, ids[1]), to); err != nil || stage != stages.Third {
		t.Errorf("a record that somebody has moved is in %q then: %v", stage, err)
	}
	if n := w.Requests(WriteCall); n != 1 {
		t.Errorf("%d writes, and one record was to be moved", n)
	}
	w.Delete(ids[2])
	if _, err := crm.Move(callContext(t), ref(w, ids[2]), to); !errors.Is(err, deal.ErrGone) {
		t.Errorf("a record that is deleted was moved: %v", err)
	}
	if err := w.Fail(WriteCall, Refused, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := crm.Move(callContext(t), ref(w, ids[0]), deal.Move{From: []string{stages.Other}, To: stages.Third}); !deal.IsPermanent(err) || connectors.IsLogin(err) {
		t.Errorf("a move that a rule of the account rejects is %v, want a permanent error", err)
	}
}

func testMoveReplyLost(t *testing.T, w World) {
	stages := w.Traits()
	movable(t, stages)
	id := w.CreateDeals(1, stages.Stage)[0]
	crm := mover(t, w.Connector(quiet()))
	from, to := stages.Stage, stages.Other
	for _, effect := range []Effect{LoseReply, CutBefore, Unavailable} {
		w.Advance(2 * time.Second)
		if err := w.Fail(WriteCall, effect, 1); err != nil {
			t.Fatal(err)
		}
		var stage string
		err := attempts(t, 4, func() (err error) {
			stage, err = crm.Move(callContext(t), ref(w, id), deal.Move{From: []string{from}, To: to})
			if err != nil {
				w.Advance(11 * time.Minute)
			}
			return err
		})
		w.Heal()
		if err != nil || stage != to {
			t.Errorf("after %q the record is in %q, want %q: %v", effect, stage, to, err)
		}
		from, to = to, from
	}
	// It was in the stage, and somebody has moved it back.
	entered := w.Now()
	w.Advance(2 * time.Second)
	w.Move(id, to)
	w.Advance(2 * time.Second)
	w.Move(id, from)
	for since, want := range map[time.Time]string{entered: from, w.Now().Add(time.Minute): to} {
		if stage, err := crm.Move(callContext(t), ref(w, id), deal.Move{From: []string{from}, To: to, Since: since}); err != nil || stage != want {
			t.Errorf("a record that was moved and moved back is in %q, want %q: %v", stage, want, err)
		}
		w.Move(id, from)
	}
}

func testProbeOfMoves(t *testing.T, w World) {
	stages := w.Traits()
	movable(t, stages)
	move := func(to string) connectors.Probe {
		return connectors.Probe{Moves: []connectors.ProbedMove{{Watch: watchOf(w, "a", stages.Other), Status: deal.StatusSigned, To: to}}}
	}
	says(t, probe(t, w, move(stages.Third)))
	problems := probe(t, w, move(stages.NoSuchStage))
	says(t, problems, []string{"move.signed", stages.NoSuchStage, stages.Stage})
	if len(problems) == 1 && (problems[0].Rule != "a" || problems[0].Aspect != connectors.AspectMove || strings.Contains(problems[0].Cure, "when.stage")) {
		t.Errorf("the problem is %+v", problems[0])
	}
}
