package engine

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/signing"
)

// waitingFor checks that the deals wait for long, and that the ledger counts them as failing at once.
func (d *daemon) waitingFor(cause string, txs ...deal.TxID) {
	d.t.Helper()
	for _, tx := range txs {
		if s := d.load(tx); s.Condition != deal.Retrying || s.Facts.WaitsFor != cause || s.Next.Sub(d.w.now()) < 20*time.Minute {
			d.t.Fatalf("the deal is %s, waits for %q until %s, want to wait for %q and for long", s.Condition, s.Facts.WaitsFor, s.Next, cause)
		}
	}
	v, err := d.store.Vitals(d.t.Context())
	must(d.t, err)
	if n := v.Failing[acme]; n < int64(len(txs)) {
		d.t.Errorf("%d deals are failing, want at least %d: a person has to mend it", n, len(txs))
	}
}

// patient is a daemon whose deals wait as long as they do in use.
func (w *world) patient() *daemon {
	d := w.daemon()
	d.Retry = Retry{First: 2 * time.Second, Max: 30 * time.Minute, Attempts: 12}
	return d
}

func TestDealsGoOnSoonAfterTheLoginIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.patient()
	one, two := w.won(), w.won()
	txs := d.poll()
	w.org.KillSessions()
	w.fault(mock.Fault{Kind: mock.KindToken, Effect: mock.APIError, Status: 400, Code: "invalid_grant", Message: "expired"})
	for _, tx := range txs {
		d.handle(tx)
	}
	d.waitingFor(deal.WaitsForLogin, txs...)
	if d.pollers[0].try(t.Context()) == nil {
		t.Fatal("the poll did not fail")
	}
	d.waitingFor(deal.WaitsForLogin, txs...)

	w.org.ClearFaults()
	must(t, d.pollers[0].try(t.Context()))
	for _, tx := range txs {
		d.again[tx] = time.Time{} // the ledger has asked for them, and the queue gives them at once
	}
	w.clock.advance(time.Second)
	d.work()
	for _, tx := range txs {
		d.wantDone(d.load(tx))
	}
	w.wantContracts(one, 1)
	w.wantContracts(two, 1)
}

func TestDealsGoOnSoonAfterTheKeyIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.patient()
	w.won()
	first := d.notice()
	w.key.fail(1, &signing.KeyError{Reason: "the PIN is refused"})
	d.handle(first)
	d.waitingFor(deal.WaitsForKey("house"), first)

	w.won()
	second := d.notice()
	w.fault(mock.Fault{Kind: mock.KindToken, Effect: mock.APIError, Status: 400, Code: "invalid_grant", Message: "expired"})
	w.org.KillSessions()
	d.handle(second)
	w.org.ClearFaults()
	d.waitingFor(deal.WaitsForLogin, second)

	d.Mended(t.Context(), "", deal.WaitsForKey("house"))
	d.again[first] = time.Time{}
	d.work()
	d.wantDone(d.load(first)) // and by doing so it has shown that the login works
	d.again[second] = time.Time{}
	d.work()
	d.wantDone(d.load(second))
	w.wantUses(2)
}

func TestWhatWorksIsNotSearchedForThoseWhoWaitEachTime(t *testing.T) {
	var m mended
	if !m.note(acme, deal.WaitsForLogin) {
		t.Error("an earlier process may have left deals that wait")
	}
	if m.note(acme, deal.WaitsForLogin) || !m.note(contoso, deal.WaitsForLogin) {
		t.Error("each tenant has its own login")
	}
	m.spoil(acme, deal.WaitsForKey("house"))
	if m.note(acme, deal.WaitsForLogin) {
		t.Error("nobody has begun to wait for the login")
	}
	m.spoil(acme, deal.WaitsForLogin)
	if !m.note(acme, deal.WaitsForLogin) {
		t.Error("a deal waits again")
	}
}
