package engine

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// asks has a program ask for the memo of a record.
func (d *daemon) asks(key, record string) (deal.TxID, error) {
	d.t.Helper()
	d.init()
	return d.Request(d.t.Context(), acme, "memo", record, deal.Request{Key: key, Asked: "the memo of " + record, Who: "api:erp (0)"})
}

func (d *daemon) asked(key, record string) deal.TxID {
	d.t.Helper()
	tx, err := d.asks(key, record)
	must(d.t, err)
	return tx
}

// refuses wants a request refused, as a conflict or as wrong.
func (d *daemon) refuses(conflict bool, key, record string) {
	d.t.Helper()
	var refused *deal.RequestError
	if tx, err := d.asks(key, record); !errors.As(err, &refused) || refused.Conflict != conflict {
		d.t.Errorf("a request gives %q, %v; want it refused, as a conflict: %t", tx, err, conflict)
	}
}

func TestARequestIsSealedOnceInAnyStage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	record := w.deal()
	tx := d.asked("order 4711", record)
	if again := d.asked("order 4711", record); again != tx {
		t.Errorf("the same key gives %s and %s", tx, again)
	}
	d.refuses(false, "order 4711", w.deal())
	d.refuses(true, "order 4712", record)
	d.finish()
	d.wantDone(d.load(tx))
	w.wantUses(1)
	w.wantContracts(record, 1)
	w.wantShown(record, "Signed")

	before := len(w.org.Requests())
	if again := d.asked("order 4711", record); again != tx || len(w.org.Requests()) != before {
		t.Errorf("once it is done, the same key gives %s and %s, with %d calls", tx, again, len(w.org.Requests())-before)
	}
	d.refuses(true, "order 4713", record) // re_entry: hold
	d.refuses(false, "order 4714", "006000000000000AAA")
	d.finish()
	w.wantUses(1)
}

func TestARecordIsNotSealedForItsStageBesideARequest(t *testing.T) {
	t.Parallel()
	for _, reEntry := range []string{"hold", "seal"} {
		t.Run(reEntry, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(func(p *deal.Plan) { p.ReEntry, p.IfLeft = reEntry, "seal" })
			d.poll()
			record := w.deal()
			tx := d.asked("1", record)
			w.move(record, stageWon)
			entry := d.notice()
			d.finish()
			d.wantDone(d.load(tx))
			d.want(d.load(entry), deal.Held, deal.Noticed, "[re-entry]")
			w.wantUses(1)
			d.refuses(true, "2", record)

			other := w.won()
			d.notice()
			d.refuses(true, "3", other)
			d.finish()
			w.wantUses(2)
			_, err := d.asks("4", other)
			if again := reEntry == "seal"; again != (err == nil) {
				t.Errorf("once the entry is done: %v", err)
			}
		})
	}
}

func TestOnlyOneOfManyRequestsIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	record := w.deal()
	var mu sync.Mutex
	taken := map[deal.TxID]int{}
	var all sync.WaitGroup
	for _, key := range []string{"a", "a", "a", "b", "c", "d"} {
		all.Go(func() {
			tx, err := d.asks(key, record)
			var refused *deal.RequestError
			if err != nil && !errors.As(err, &refused) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				taken[tx]++
			}
		})
	}
	all.Wait()
	d.finish()
	if len(taken) != 1 || len(d.all()) != 1 {
		t.Errorf("%d transactions were answered, and there are %d", len(taken), len(d.all()))
	}
	w.wantUses(1)
}

func TestTheGuardHoldsRequestsToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.Tenants[0].Guard = deal.Guard{Rules: map[string]deal.RuleGuard{"memo": {Caps: deal.Caps{Hour: 2}}}}
	d.poll()
	var txs []deal.TxID
	for _, key := range []string{"1", "2", "3"} {
		txs = append(txs, d.asked(key, w.deal()))
	}
	d.finish()
	d.want(d.load(txs[2]), deal.Held, deal.Noticed, "[guard]")
	w.wantUses(2)
}

func TestARecordThatIsMovedAfterTheRequestIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	record := w.deal()
	tx := d.asked("1", record)
	w.move(record, stageLost)
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Noticed, "[left]")
	w.wantUses(0)
}

func TestARequestWaitsForItsRuleAndNeedsAnAuditRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.deal()
	var refused *deal.RequestError
	if _, err := d.asks("1", record); err == nil || errors.As(err, &refused) {
		t.Errorf("before its rule is watched: %v", err)
	}
	d.poll()
	d.asked("1", record)
	bare := w.daemon(func(p *deal.Plan) { p.WriteBack.Audit = "" })
	bare.poll()
	bare.refuses(false, "1", w.deal())
	elsewhere := w.daemon(func(p *deal.Plan) { p.Delegated = &deal.Delegated{Vendor: "certyneo"} })
	elsewhere.refuses(false, "1", w.deal())
}

// The daemon that a backup or a copy is of may have carried out a request that the copy knows nothing of, and whoever asked
// asks again.
func TestARequestIsNotSealedOnceMoreByACopyOfTheState(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{true, false} {
		w := newWorld(t)
		first, second := twins(t, w)
		first.poll()
		second.poll()
		record := w.deal()
		tx := first.asked("order 4711", record)
		if sealed {
			first.finish()
		} else { // it has got as far as the record's showing it
			first.tell()
		}
		uses := w.key.uses()
		if again := second.asked("order 4711", record); again != tx {
			t.Errorf("the copy calls it %s, the original %s", again, tx)
		}
		second.finish()
		w.wantUses(uses)
		switch s := second.load(tx); {
		case sealed && !s.Facts.Adopted:
			t.Errorf("the copy has not adopted what was sealed: %s, %s", s.Condition, s.Reason)
		case !sealed:
			second.want(s, deal.Held, deal.Noticed, "[elsewhere]")
		}
	}
}

// A poll may show an entry only once what was asked for meanwhile is done: one of the two may still be meant for the other.
func TestAnEntryFromTheTimeOfARequestIsHeldHoweverLateItIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(func(p *deal.Plan) { p.ReEntry, p.IfLeft = "seal", "seal" })
	d.poll()
	record := w.deal()
	tx := d.asked("1", record)
	w.move(record, stageWon)
	d.finish()
	d.wantDone(d.load(tx))
	w.clock.advance(time.Minute)
	entry := d.notice()
	d.finish()
	d.want(d.load(entry), deal.Held, deal.Noticed, "[re-entry]")
	w.wantUses(1)

	w.move(record, stageOpen)
	w.move(record, stageWon)
	later := d.notice()
	d.finish()
	d.wantDone(d.load(later))
	w.wantUses(2)
}

// TestARequestMayNameThePersonOnTheRecordOnly, and the log does not name them.
func TestARequestMayNameThePersonOnTheRecordOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	record := w.deal()
	w.id(w.org.AddContactRole(record, map[string]any{"Contact": map[string]any{"FirstName": "Zofia", "LastName": "Nowak", "Email": "zofia@example.com"}}))
	ask := func(key string, p deal.Person) string {
		t.Helper()
		tx, err := d.Request(t.Context(), acme, "memo", record, deal.Request{Key: key, Asked: key, Who: "api:erp (0)", Signer: &p})
		var refused *deal.RequestError
		if errors.As(err, &refused) {
			return refused.Reason
		}
		must(t, err)
		return string(tx)
	}
	refused := func(says, got string) {
		t.Helper()
		if !strings.Contains(got, says) {
			t.Errorf("it says %q, not %q", got, says)
		}
	}
	zofia := deal.Person{Name: "Zofia Nowak", Email: "Zofia@example.com"}
	refused("house's own seal", ask("1", zofia))
	at := &d.Tenants[0].Rules[0].Signatory
	*at = &deal.Signatory{Email: "OpportunityContactRoles.Contact.Email"}
	refused("compares addresses only", ask("1", zofia))
	*at = &deal.Signatory{Email: "OpportunityContactRoles.Contact.Email", Name: []string{"OpportunityContactRoles.Contact.FirstName", "OpportunityContactRoles.Contact.LastName"}}
	refused("the record does not name the signer", ask("1", deal.Person{Name: "Zofia Nowak", Email: "z@example.com"}))
	refused("the record does not name the signer", ask("1", deal.Person{Name: "Zofia Kowalska", Email: "zofia@example.com"}))
	if said := d.log.String(); strings.Contains(strings.ToLower(said), "zofia") {
		t.Error("the log names the person")
	}
	tx := deal.TxID(ask("1", zofia))
	d.finish()
	d.wantDone(d.load(tx))
	w.wantUses(1)
}
