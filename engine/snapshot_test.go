package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const (
	orderDraft  = "Draft"
	orderReview = "In Review"
	orderActive = "Activated"
)

// infers has a daemon watch orders, whose history nobody keeps, and seal each entry.
func (d *daemon) infers(change ...func(*Rule)) *daemon {
	d.t.Helper()
	d.w.org.Permit("EditActivatedOrders")
	r := d.w.rule(func(p *deal.Plan) { p.Rule, p.Stage, p.ReEntry = "order", orderActive, "seal" })
	r.Watch.Object, r.Watch.Snapshot, r.StartFrom = "Order", true, time.Time{}
	for _, f := range change {
		f(&r)
	}
	d.Tenants = nil
	d.addTenant(Tenant{ID: acme, Name: "Acme", CRM: d.w.connector(), Poll: time.Minute, Rules: []Rule{r}})
	return d
}

// order makes an order with a quotation.
func (w *world) order(status string) (record string) {
	w.t.Helper()
	account := w.id(w.org.CreateAccount(map[string]any{"Name": canary}))
	record = w.id(w.org.Create("Order", map[string]any{"AccountId": account, "EffectiveDate": "2026-12-01", "Status": status}))
	w.quote(record, 1)
	w.clock.advance(time.Minute)
	return record
}

func (w *world) turn(record, status string) {
	w.t.Helper()
	must(w.t, w.org.Update(record, map[string]any{"Status": status}))
	w.clock.advance(time.Minute)
}

// seal takes in the one entry that there must be, and makes its contract.
func (d *daemon) sealNext() *deal.Sealing {
	d.t.Helper()
	s := d.run()
	d.tell()
	d.wantDone(s)
	return s
}

func (d *daemon) wantNothingNew(what string) {
	d.t.Helper()
	d.w.clock.advance(time.Minute)
	if fresh := d.poll(); len(fresh) > 0 {
		d.t.Fatalf("%s: %d entries are new", what, len(fresh))
	}
}

func TestAnOrderWithoutHistoryIsSealedOncePerStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon().infers()
	w.order(orderActive)
	record := w.order(orderDraft)
	d.wantNothingNew("history")
	w.turn(record, orderActive)
	s := d.sealNext()
	if lines := d.story(s.Tx).Trail; len(lines) == 0 || !strings.Contains(lines[0].Why, "inferred from a snapshot") {
		t.Errorf("the audit log begins with %+v, and not with how the entry was found", lines)
	}
	d.wantNothingNew("our own receipt")
	must(t, w.org.Update(record, map[string]any{"Name": "edited"}))
	d.wantNothingNew("an edit")
	must(t, w.org.Delete(record))
	d.wantNothingNew("a deletion")
	other := w.order(orderActive)
	d.sealNext()
	w.turn(other, orderDraft)
	d.wantNothingNew("it has left")
	w.turn(other, orderActive)
	d.sealNext()
	w.wantUses(3)
	w.wantContracts(other, 2)

	// A daemon that starts again knows all that.
	dir := d.dir
	d.close()
	w.daemonIn(dir).infers().wantNothingNew("a restart")
}

func TestAnOrderThatMayHaveEnteredBeforeTheRuleIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	record := w.order(orderActive)
	d := w.daemon().infers(func(r *Rule) { r.StartFrom = w.now().Add(-time.Second) })
	must(t, w.org.Update(record, map[string]any{"Name": "edited"}))
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "[unproven] ")
	w.wantUses(0)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	w.wantContracts(record, 1)
}

// The state of yesterday takes the place of one that has gone on: what that one has sealed is found, adopted or held, and never
// sealed again.
func TestARestoredStateSealsNoInferredEntryAgain(t *testing.T) {
	for name, c := range map[string]struct {
		before []string // statuses that the state knows that is restored
		lost   []string // and those of which only the other one did
		after  []string
		adopts bool
		held   string
	}{
		"sealed since the backup":                  {before: []string{orderDraft}, lost: []string{orderActive}, adopts: true},
		"sealed twice since the backup":            {before: []string{orderDraft}, lost: []string{orderActive, orderDraft, orderActive}, adopts: true},
		"made and sealed since the backup":         {lost: []string{orderActive}, adopts: true},
		"sealed by way of a stage it has not seen": {before: []string{orderReview}, lost: []string{orderDraft, orderActive}, held: "[restored] "},
		"sealed once more, and entered after it":   {before: []string{orderDraft, orderActive}, lost: []string{orderDraft, orderActive}, after: []string{orderDraft, orderActive}, held: "[unknown-transaction] "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon().infers()
			d.poll()
			record := ""
			through := func(d *daemon, statuses []string) {
				for _, status := range statuses {
					if record == "" {
						record = w.order(status)
					} else {
						w.turn(record, status)
					}
					d.poll()
					d.finish()
				}
			}
			through(d, c.before)
			backup := filepath.Join(t.TempDir(), "backup")
			dir := d.dir
			d.close()
			must(t, os.CopyFS(backup, os.DirFS(dir)))
			d = w.daemonIn(dir).infers()
			through(d, c.lost)
			uses, contracts := w.key.uses(), len(w.contracts(record))
			if uses == 0 || contracts != uses {
				t.Fatalf("%d uses of the key, %d contracts", uses, contracts)
			}
			d.close()
			w.clock.advance(time.Hour)

			d = w.daemonIn(backup).infers()
			w.clock.advance(time.Minute)
			must(t, w.org.Update(record, map[string]any{"Name": "edited"})) // its stamp is younger than the restored state
			fresh := d.poll()
			d.finish()
			w.clock.advance(time.Minute)
			for _, status := range c.after {
				w.turn(record, status)
				fresh = append(fresh, d.poll()...)
				d.finish()
			}
			w.wantUses(uses)
			w.wantContracts(record, contracts)
			if len(fresh) != 1 {
				t.Fatalf("%d entries are new, want 1", len(fresh))
			}
			s := d.load(fresh[0])
			if c.adopts {
				d.wantDone(s)
				if !s.Facts.Adopted {
					t.Error("the contract was not adopted")
				}
				return
			}
			d.want(s, deal.Held, deal.Noticed, c.held)
		})
	}
}

// What enters after the restored state has looked around is new, and waits for nobody.
func TestAnOrderThatEntersAfterARestoreIsSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon().infers()
	first.poll()
	record := w.order(orderDraft)
	first.poll()
	d := first.copyState().infers()
	d.wantNothingNew("the state was restored")
	w.clock.advance(time.Minute)
	d.wantNothingNew("nor later")
	w.turn(record, orderActive)
	d.sealNext()
	w.wantContracts(record, 1)
}

func TestAPassSaysOfWhichRulesItFindsNoMissedEntries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon().infers()
	d.poll()
	w.order(orderActive)
	p, err := d.Reconcile(t.Context(), acme, Order{Days: 3, Who: "alice"}, nil)
	must(t, err)
	if !slices.Equal(p.Blind, []string{"order"}) || p.Entries != 0 || len(d.all()) != 0 {
		t.Errorf("the pass is %+v, and %d deals are known", p, len(d.all()))
	}
	shadow, err := (&Rehearsal{Tenant: d.Tenants[0], Bundles: shelf{}, Days: 3, Calls: 100}).Run(t.Context())
	must(t, err)
	if len(shadow.Deals) != 0 || !slices.ContainsFunc(shadow.Unknown, func(u string) bool { return strings.Contains(u, "rule order: they are inferred") }) {
		t.Errorf("a rehearsal finds %d deals and does not know %q", len(shadow.Deals), shadow.Unknown)
	}
}

// While a large object is read for the first time deals of others are noticed and sealed, over a restart; the object's own wait until
// all of it was seen where that is the question, and what enters meanwhile is proven to.
func TestOtherObjectsDoNotWaitForAFirstReading(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rules := func(d *daemon) *daemon {
		d.infers()
		memo := w.rule()
		memo.StartFrom = w.clock.Now()
		d.Tenants[0].Rules = append(d.Tenants[0].Rules, memo)
		d.Tenants[0].Guard = deal.Guard{Rules: map[string]deal.RuleGuard{"memo": {FirstRun: 20}, "order": {FirstRun: 20}}}
		d.pollers = []*poller{d.newPoller(&d.Tenants[0])}
		return d
	}
	order := w.order(orderDraft)
	account := w.id(w.org.CreateAccount(map[string]any{"Name": canary}))
	for range 2600 { // more than a turn
		w.id(w.org.Create("Order", map[string]any{"AccountId": account, "EffectiveDate": "2026-12-01", "Status": orderActive}))
	}
	w.clock.advance(time.Hour)
	d := rules(w.daemon())
	page := func() bool {
		t.Helper()
		d.init()
		more, err := d.pollers[0].once(t.Context())
		must(t, err)
		d.pollers[0].note(t.Context(), err)
		return more
	}
	page()
	w.turn(order, orderActive) // it was read before
	won := w.won()
	pages := 1
	for ; len(d.all()) == 0; pages++ {
		if !page() {
			t.Fatalf("the reading has ended with page %d, and the deal was not noticed", pages)
		}
		if pages == 3 { // a death in the middle
			dir := d.dir
			d.close()
			d = rules(w.daemonIn(dir))
		}
	}
	d.finish()
	if tx, _ := d.next(); tx != "" {
		t.Errorf("%s still waits", tx)
	}
	w.wantContracts(won, 1)
	w.wantContracts(order, 0)
	if polls, err := d.store.Polls(t.Context()); err != nil || len(polls) != 1 || polls[0].Lag == 0 {
		t.Errorf("that the reading goes on is not told: %+v, %v", polls, err)
	}
	for page() {
		if pages++; pages > 20 {
			t.Fatal("the reading has no end")
		}
	}
	d.finish()
	w.wantContracts(order, 1)
	w.wantUses(2)
	for tx := range d.all() {
		d.wantDone(d.load(tx))
	}
	d.wantNothingNew("all was seen")
}

// The filter is asked once, when the entry is inferred.
func TestAFilterLeavesOutInferredEntries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f, err := deal.ParseFilter("Name = 'sealed'")
	must(t, err)
	d := w.daemon().infers(func(r *Rule) { r.Filter, r.Plan.Filter = f, f.String() })
	record := w.order(orderDraft)
	d.poll()
	w.turn(record, orderActive)
	d.wantNothingNew("what the filter leaves out")
	must(t, w.org.Update(record, map[string]any{"Name": "sealed"}))
	d.wantNothingNew("an edit after it")
	w.turn(record, orderDraft)
	d.wantNothingNew("it has left")
	w.turn(record, orderActive)
	d.sealNext()
}
