package engine

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/store"
)

const (
	stageSigned = "Negotiation/Review"
	stageParked = "Perception Analysis"
)

func withMoves(p *deal.Plan) {
	p.Moves = map[deal.Status]string{deal.StatusSigned: stageSigned, deal.StatusHeld: stageParked}
}

// errands runs the jobs of what is to be done in the CRM, until nothing is left to do.
func (d *daemon) errands() (again time.Duration) {
	d.t.Helper()
	for tx := range d.all() {
		again = max(again, d.Handle(d.t.Context(), deal.Job{Kind: deal.JobErrand, Tx: tx}).Again)
	}
	return again
}

func (d *daemon) wantFates(tx deal.TxID, fates ...deal.ErrandFate) []deal.Errand {
	d.t.Helper()
	all := d.story(tx).Errands
	var got []deal.ErrandFate
	for _, e := range all {
		got = append(got, e.Fate)
	}
	if len(got) != len(fates) {
		d.t.Fatalf("the errands are %+v, want %q", all, fates)
	}
	for i := range fates {
		if got[i] != fates[i] {
			d.t.Fatalf("the errands are %+v, want %q", all, fates)
		}
	}
	return all
}

// unended loses what came of errands, as a crash just before that commit does.
type unended struct {
	*store.Store
	lose int
}

func (f *unended) EndErrand(ctx context.Context, e deal.Errand) error {
	if f.lose > 0 && e.Fate != "" {
		f.lose--
		return errors.New("power cut")
	}
	return f.Store.EndErrand(ctx, e)
}

func TestADealThatIsDoneMovesItsRecordOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withMoves)
	record := w.won()
	s := d.run()
	d.wantDone(s)
	if stage := w.shown(record, "StageName"); stage != stageWon {
		t.Fatalf("before its errand the record is in %q", stage)
	}
	d.Ledger = &unended{Store: d.store, lose: 2}
	for range 4 {
		w.tick()
		d.errands()
	}
	if stage := w.shown(record, "StageName"); stage != stageSigned {
		t.Fatalf("the record is in %q, want %q", stage, stageSigned)
	}
	d.wantFates(s.Tx, deal.ErrandDone)
	var moves []string
	for _, l := range d.story(s.Tx).Trail {
		if strings.Contains(l.What, "move") {
			moves = append(moves, l.What)
		}
	}
	if got := strings.Join(moves, ", "); got != "begin move, move done" {
		t.Errorf("the audit log says %q", got)
	}
	// What we have done ourselves is nothing new, for the poll and for the comparison with the contract.
	w.move(record, "Closed Lost")
	w.clock.advance(time.Hour)
	if fresh := d.poll(); len(fresh) > 0 {
		t.Errorf("our own move made %q", fresh)
	}
	d.errands()
	if stage := w.shown(record, "StageName"); stage != "Closed Lost" {
		t.Errorf("a record that was moved, and that somebody has moved on, is in %q", stage)
	}
}

func TestARecordThatSomebodyHasMovedStaysThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withMoves)
	record := w.won()
	s := d.run()
	w.move(record, "Closed Lost")
	d.errands()
	if e := d.wantFates(s.Tx, deal.ErrandLeft)[0]; !strings.Contains(e.Outcome, `"Closed Lost"`) || w.shown(record, "StageName") != "Closed Lost" {
		t.Errorf("it is in %q: %s", w.shown(record, "StageName"), e.Outcome)
	}
}

func TestAMoveWhoseAnswerIsLostAndThatIsUndoneIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withMoves)
	record := w.won()
	s := d.run()
	w.tick()
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.CutAfter, Times: 1})
	if d.errands() == 0 || w.shown(record, "StageName") != stageSigned {
		t.Fatalf("the answer was not lost: the record is in %q", w.shown(record, "StageName"))
	}
	if e := d.wantFates(s.Tx, "")[0]; e.Tries != 1 || e.Problem == "" {
		t.Errorf("what is to be done again is %+v", e)
	}
	w.clock.advance(time.Hour)
	w.move(record, stageOpen)
	w.move(record, stageWon)
	d.errands()
	d.wantFates(s.Tx, deal.ErrandLeft)
	if stage := w.shown(record, "StageName"); stage != stageWon {
		t.Errorf("somebody has moved it back, and it is in %q", stage)
	}
}

func TestAHeldDealMovesItsRecordAndIsSealedFromThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withMoves)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	d.want(s, deal.Held, s.Step, "")
	w.tick()
	d.errands()
	if stage := w.shown(record, "StageName"); stage != stageParked {
		t.Fatalf("the record of a held deal is in %q", stage)
	}
	w.quote(record, 1)
	must(t, d.store.Release(t.Context(), s.Tx, "", "alice", "the quotation is there"))
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.tick()
	d.errands()
	d.wantFates(s.Tx, deal.ErrandDone, deal.ErrandDone)
	if stage := w.shown(record, "StageName"); stage != stageSigned {
		t.Errorf("the record is in %q, want %q", stage, stageSigned)
	}
	w.wantContracts(record, 1)
}

func TestAMoveIsOvertakenByWhatBecomesOfTheDeal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withMoves)
	record := w.bare()
	w.move(record, stageWon)
	s := d.run()
	w.quote(record, 1)
	must(t, d.store.Release(t.Context(), s.Tx, "", "alice", "the quotation is there"))
	d.errands() // only now
	d.wantFates(s.Tx, deal.ErrandOvertaken)
	if stage := w.shown(record, "StageName"); stage != stageWon {
		t.Errorf("the record of a deal that goes on is in %q", stage)
	}
	d.finish()
	d.wantDone(d.load(s.Tx))
}

func TestAMoveThatTheCRMRefusesKeepsNoDealFromBeingDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withMoves)
	record := w.won()
	s := d.run()
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.APIError, Status: http.StatusBadRequest, Code: "FIELD_CUSTOM_VALIDATION_EXCEPTION", Times: 100})
	d.errands()
	d.wantDone(d.load(s.Tx))
	if e := d.wantFates(s.Tx, deal.ErrandRefused)[0]; !strings.Contains(e.Outcome, "FIELD_CUSTOM_VALIDATION_EXCEPTION") || strings.Contains(e.Outcome, canary) {
		t.Errorf("the outcome is %q", e.Outcome)
	}
	tried := len(w.org.Requests())
	w.clock.advance(24 * time.Hour)
	if d.errands() != 0 || len(w.org.Requests()) != tried || w.shown(record, "StageName") != stageWon {
		t.Errorf("it was tried again")
	}
}

func TestARuleMovesNoRecordIntoAStageThatARuleWatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rules := []Rule{w.rule(withMoves), w.rule(func(p *deal.Plan) { p.Rule, p.Stage = "other", stageSigned })}
	if problems := MovesIntoRules(rules); len(problems) != 1 || problems[0].Rule != "memo" || !strings.Contains(problems[0].What, stageSigned) {
		t.Errorf("the problems are %+v", problems)
	}
	if problems := MovesIntoRules(rules[:1]); len(problems) != 0 {
		t.Errorf("the problems are %+v", problems)
	}
	// A rule that came after the deal was noticed, and may name the stage by its label, which is one whatever its case.
	for _, named := range []string{stageSigned, strings.ToUpper(stageSigned)} {
		w := newWorld(t)
		d := w.daemon(withMoves)
		record := w.won()
		s := d.run()
		d.Tenants[0].Rules = append(d.Tenants[0].Rules, w.rule(func(p *deal.Plan) { p.Rule, p.Stage = "other", named }))
		d.errands()
		d.wantFates(s.Tx, deal.ErrandRefused)
		if stage := w.shown(record, "StageName"); stage != stageWon {
			t.Errorf("the record is in %q, which a rule watches as %q", stage, named)
		}
	}
}
