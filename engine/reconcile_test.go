package engine

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/store"
)

const fieldDrift = "DealSeal_Drift__c"

// reconcile makes a pass over three days and returns what it found.
func (d *daemon) reconcile() []deal.Discrepancy {
	d.t.Helper()
	_, found, err := d.tryReconcile(Order{Days: 3, Who: "alice"})
	must(d.t, err)
	return found
}

func (d *daemon) tryReconcile(o Order) (p deal.Pass, found []deal.Discrepancy, err error) {
	d.t.Helper()
	p, err = d.Reconcile(d.t.Context(), acme, o, func(x deal.Discrepancy) { found = append(found, x) })
	return p, found, err
}

// wantKinds compares the kinds of what was found, in order.
func wantKinds(t *testing.T, found []deal.Discrepancy, kinds ...deal.DiscrepancyKind) {
	t.Helper()
	var got []deal.DiscrepancyKind
	for _, x := range found {
		got = append(got, x.Kind)
	}
	if !slices.Equal(got, kinds) {
		t.Errorf("found is %v, want %v: %+v", got, kinds, found)
	}
}

// loseFiles deletes the sealed files of a record.
func (w *world) loseFiles(record string) {
	w.t.Helper()
	for _, f := range w.org.Files(record) {
		if strings.HasPrefix(fileText(f), "Sealed by dealseal") {
			must(w.t, w.org.Delete(f.DocumentID))
		}
	}
}

func fileText(f mock.File) string {
	text, _ := f.Versions[0].Fields["Description"].(string)
	return text
}

// late makes an entry that the CRM shows only after the poll has passed it.
func (w *world) late(d *daemon) (record string) {
	w.t.Helper()
	record = w.deal()
	w.org.SetCommitDelay(time.Hour)
	w.move(record, stageWon)
	w.org.SetCommitDelay(0)
	d.poll()
	w.clock.advance(30 * time.Minute) // behind the overlap
	d.poll()
	w.org.Commit()
	return record
}

func TestAnEntryThatThePollHasMissedIsNoticedAndSealedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	record := w.late(d)
	wantKinds(t, d.reconcile()) // it may still be on its way
	w.clock.advance(2 * time.Hour)
	if fresh := d.poll(); len(fresh) > 0 {
		t.Fatal("the poll has found it itself: the test proves nothing")
	}
	before := d.all()
	_, found, err := d.tryReconcile(Order{Days: 3, DryRun: true, Who: "alice"})
	must(t, err)
	wantKinds(t, found, deal.EntryMissed)
	if len(d.all()) != len(before) {
		t.Error("a dry run has noticed a deal")
	}
	found = d.reconcile()
	wantKinds(t, found, deal.EntryMissed)
	d.finish()
	d.wantDone(d.load(found[0].Tx))
	w.wantContracts(record, 1)
	wantKinds(t, d.reconcile())
	w.wantUses(1)
}

func TestReconcilingNeverLooksBehindARulesActivation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.won() // before the rule is activated
	w.clock.advance(2 * time.Hour)
	d := w.daemon()
	if len(d.poll()) != 0 {
		t.Fatal("an entry from before the activation was noticed")
	}
	w.clock.advance(3 * time.Hour)
	d.poll()
	p, found, err := d.tryReconcile(Order{Days: 30, Who: "alice"})
	must(t, err)
	wantKinds(t, found)
	if p.From.IsZero() || !p.Read || len(d.all()) != 0 {
		t.Errorf("the history was not read, or a deal was made of it: %+v", p)
	}
}

func TestAPassGoesOnWhereItHasStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	var records []string
	for range 3 {
		records = append(records, w.won())
		d.run()
	}
	w.loseFiles(records[0])
	w.loseFiles(records[2])
	w.fault(mock.Fault{Kind: mock.KindQuery, Path: records[1], Effect: mock.APIError, Status: 403, Code: "REQUEST_LIMIT_EXCEEDED"})
	p, found, err := d.tryReconcile(Order{Days: 3, Who: "alice"})
	if err == nil || p.Waits == "" || !p.Ended.IsZero() || p.Deals != 1 {
		t.Fatalf("it did not stop at the second deal: %v, %+v", err, p)
	}
	wantKinds(t, found, deal.FileGone)
	w.org.ClearFaults()
	d.close()
	d = w.daemonIn(d.dir)
	began := w.org.Counts()[mock.KindDownload]
	p, found, err = d.tryReconcile(Order{Days: 3, Who: "alice"})
	must(t, err)
	wantKinds(t, found, deal.FileGone)
	if p.Deals != 3 || p.Ended.IsZero() || p.Mended[deal.FileGone] != 2 {
		t.Errorf("the pass is %+v", p)
	}
	if n := w.org.Counts()[mock.KindDownload] - began; n != 1 {
		t.Errorf("%d files were fetched again, want that of the second deal only", n)
	}
	for _, r := range records {
		w.wantContracts(r, 1)
	}
	w.wantUses(3)
}

// TestOneDealThatCannotBeComparedKeepsNoOtherFromIt: a pass goes on behind its newest deal, and would never get past it.
func TestOneDealThatCannotBeComparedKeepsNoOtherFromIt(t *testing.T) {
	for name, spoil := range map[string]func(w *world, d *daemon, s *deal.Sealing){
		"its file may not be fetched": func(w *world, _ *daemon, _ *deal.Sealing) {
			w.fault(mock.Fault{Kind: mock.KindDownload, Times: 1, Effect: mock.APIError, Status: 403, Code: "INSUFFICIENT_ACCESS"})
		},
		"its values are damaged": func(_ *world, d *daemon, s *deal.Sealing) {
			d.Ledger = &garbler{Ledger: d.store, tx: s.Tx}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(withTemplate(t))
			w.won()
			s := d.run()
			record := w.won()
			d.run()
			w.loseFiles(record)
			spoil(w, d, s)
			p, found, err := d.tryReconcile(Order{Days: 3, Who: "alice"})
			must(t, err)
			wantKinds(t, found, deal.Unreadable, deal.FileGone)
			if p.Ended.IsZero() || p.Deals != 2 || p.Mended[deal.FileGone] != 1 {
				t.Errorf("the pass is %+v", p)
			}
			list, err := d.store.Discrepancies(t.Context(), acme, 10)
			must(t, err)
			wantKinds(t, list, deal.Unreadable)
			if len(list) == 1 && list[0].Tx != s.Tx {
				t.Errorf("a person is told of %s, want %s", list[0].Tx, s.Tx)
			}
		})
	}
}

// garbler is a ledger in which the values of one deal are damaged.
type garbler struct {
	Ledger
	tx deal.TxID
}

func (l *garbler) Load(ctx context.Context, tx deal.TxID) (*deal.Sealing, error) {
	s, err := l.Ledger.Load(ctx, tx)
	if err == nil && tx == l.tx {
		s.Private.Values = []byte("{")
	}
	return s, err
}

// amnesiac loses what came of a comparison, as a crash just before its commit does.
type amnesiac struct {
	*store.Store
	lose int
}

func (f *amnesiac) Compared(ctx context.Context, s *deal.Sealing, c deal.Comparison) error {
	if f.lose > 0 {
		f.lose--
		return errors.New("power cut")
	}
	return f.Store.Compared(ctx, s, c)
}

func TestAFileThatWasPutBackJustBeforeACrashIsNotPutBackTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	s := d.run()
	w.loseFiles(record)
	d.Books = &amnesiac{Store: d.store, lose: 3} // as often as it is tried
	if _, _, err := d.tryReconcile(Order{Days: 3, Who: "alice"}); err == nil {
		t.Fatal("nothing was lost")
	}
	w.wantContracts(record, 1)
	wantKinds(t, d.reconcile(), deal.FileGone) // found again
	w.wantContracts(record, 1)
	d.tell()
	now := d.load(s.Tx)
	if now.Facts.Attachment.ID == s.Facts.Attachment.ID || w.shown(record, "DealSeal_Document_URL__c") != now.Facts.Attachment.URL {
		t.Errorf("the record links to %q, its file is %+v", w.shown(record, "DealSeal_Document_URL__c"), now.Facts.Attachment)
	}
	wantKinds(t, d.reconcile())
	d.wantDone(now)
}

func TestOtherBytesAreReportedAndNothingIsPutBesideThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	s := d.run()
	content := slices.Clone(w.contracts(record)[0])
	content[len(content)/2] ^= 1
	must(t, w.org.SpoilFile(s.Facts.Attachment.ID, content))
	for range 2 {
		wantKinds(t, d.reconcile(), deal.FileAltered)
		if n := len(w.org.Files(record)); n != 2 {
			t.Fatalf("the record bears %d files, want the quotation and the contract", n)
		}
	}
	list, err := d.store.Discrepancies(t.Context(), acme, 10)
	must(t, err)
	wantKinds(t, list, deal.FileAltered)
	_, err = d.store.DealWithDiscrepancies(t.Context(), s.Tx, "alice", "it is known")
	must(t, err)
	wantKinds(t, d.reconcile(), deal.FileAltered)
	if list, err = d.store.Discrepancies(t.Context(), acme, 10); err != nil || len(list) > 0 {
		t.Errorf("what was dealt with is back: %v, %v", list, err)
	}
}

func TestADamagedArchiveIsReportedAndNothingOfItIsAttached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	s := d.run()
	w.loseFiles(record)
	file := filepath.Join(d.dir, "archive", s.Facts.Archive, "contract.pdf")
	b, err := os.ReadFile(file)
	if err != nil { // it is kept encrypted, under another name
		matches, globErr := filepath.Glob(file + "*")
		must(t, globErr)
		if len(matches) != 1 {
			t.Fatalf("the archive has %v", matches)
		}
		file = matches[0]
		b, err = os.ReadFile(file)
		must(t, err)
	}
	b[len(b)-1] ^= 1
	must(t, os.Chmod(file, 0o600))
	must(t, os.WriteFile(file, b, 0o600))
	wantKinds(t, d.reconcile(), deal.FileGone, deal.ArchiveDamaged)
	w.wantContracts(record, 0)
}

func TestARecordThatSaysSomethingElseThanItsContractSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t), func(p *deal.Plan) { p.WriteBack.Drift, p.WriteBack.DriftText = fieldDrift, "Vertrag weicht ab" })
	record := w.won()
	s := d.run()
	wantKinds(t, d.reconcile())
	if got := w.shown(record, fieldDrift); got != "" {
		t.Errorf("a record that agrees shows %q", got)
	}
	must(t, w.org.Update(record, map[string]any{"Name": canary + " II"}))
	w.id(w.org.AddLineItem(record, map[string]any{"Quantity": 1, "UnitPrice": 1, "Product2": map[string]any{"Name": canary}}))
	for range 2 { // the second look has nothing new to say
		wantKinds(t, d.reconcile(), deal.ValuesDiffer)
		d.tell()
	}
	now := d.load(s.Tx)
	if now.Facts.Drift == nil || !slices.Contains(now.Facts.Drift.Fields, "Name") || !slices.ContainsFunc(now.Private.Differences, func(x deal.Difference) bool { return x.Line == 2 && x.Was == "" && x.Is != "" }) {
		t.Errorf("known is %+v, %+v", now.Facts.Drift, now.Private.Differences)
	}
	if got := w.shown(record, fieldDrift); !strings.HasPrefix(got, "Vertrag weicht ab: ") || !strings.Contains(got, "Name") || strings.Contains(got, canary) {
		t.Errorf("the record shows %q", got)
	}
	must(t, w.org.Update(record, map[string]any{"Name": canary}))
	for _, id := range w.org.Records("OpportunityLineItem")[1:] {
		must(t, w.org.Delete(id))
	}
	wantKinds(t, d.reconcile())
	d.tell()
	if got := w.shown(record, fieldDrift); got != "" || d.load(s.Tx).Facts.Drift != nil {
		t.Errorf("a record that agrees again shows %q", got)
	}
	var events []string
	for _, o := range d.story(s.Tx).Outbox {
		events = append(events, o.Type)
	}
	if n := len(events); n < 2 || events[n-2] != "document.differs" || events[n-1] != "document.agrees" {
		t.Errorf("the events are %v", events)
	}
	if strings.Contains(d.log.String(), canary) {
		t.Error("the log quotes the record")
	}
	w.wantUses(1)
	d.wantDone(d.load(s.Tx))
}

// TestAnEditAfterTheSealIsNoticedAtThePollThatShowsIt holds also that nothing is asked of the CRM while nothing changes, and that
// what the nightly pass has found stays known.
func TestAnEditAfterTheSealIsNoticedAtThePollThatShowsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t), func(p *deal.Plan) { p.WriteBack.Drift = fieldDrift })
	d.poll() // what is read before the first poll has ended is no change
	record := w.won()
	s := d.run()
	w.loseFiles(record)
	kept, err := filepath.Glob(filepath.Join(d.dir, "archive", s.Facts.Archive, "contract.pdf*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("the archive has %v, %v", kept, err)
	}
	must(t, os.Remove(kept[0]))
	wantKinds(t, d.reconcile(), deal.FileGone, deal.ArchiveDamaged)
	compare := func() (calls int) {
		t.Helper()
		d.poll()
		before := w.org.Counts()
		must(t, d.pollers[0].compareAll(t.Context()))
		for kind, n := range w.org.Counts() {
			calls += n - before[kind]
		}
		return calls
	}
	compare() // the entry, which was new
	w.tick()
	if n := compare(); n != 0 {
		t.Errorf("%d calls are made though nothing has changed", n)
	}
	closes := w.shown(record, "CloseDate")
	for _, step := range []struct {
		closes string
		drifts bool
	}{{"2031-02-03", true}, {closes, false}} {
		w.tick()
		must(t, w.org.Update(record, map[string]any{"CloseDate": step.closes}))
		if n := compare(); n == 0 {
			t.Error("no call is made although the record has changed")
		}
		d.tell()
		now := d.load(s.Tx)
		if drifts := now.Facts.Drift != nil && slices.Contains(now.Facts.Drift.Fields, "CloseDate"); drifts != step.drifts {
			t.Errorf("closing on %s: known is %+v", step.closes, now.Facts.Drift)
		}
		if got := w.shown(record, fieldDrift); strings.Contains(got, "CloseDate") != step.drifts {
			t.Errorf("closing on %s: the record shows %q", step.closes, got)
		}
	}
	all, err := d.store.Discrepancies(t.Context(), acme, 10)
	must(t, err)
	slices.SortFunc(all, func(a, b deal.Discrepancy) int { return strings.Compare(string(b.Kind), string(a.Kind)) })
	wantKinds(t, all, deal.FileGone, deal.ArchiveDamaged)
	w.wantUses(1)
}

// An edit of what Salesforce's history does not tell of is noticed without a push and before the night, by one call in five minutes.
func TestAnEditThatNoHistoryTellsIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t), func(p *deal.Plan) { p.WriteBack.Drift = fieldDrift })
	d.poll()
	record := w.won()
	s := d.run()
	p := d.pollers[0]
	calls := func() (n int) {
		for _, r := range w.org.Requests() {
			if !r.Sub {
				n++
			}
		}
		return n
	}
	known := editsKnown{from: map[string]time.Time{}}
	look := func() (asked int) {
		t.Helper()
		before := calls()
		if p.lookForEdits(); calls() != before {
			t.Error("a poll waits for what others have edited")
		}
		select {
		case q := <-p.asks:
			p.askEdits(t.Context(), q, &known)
		default:
		}
		asked = calls() - before
		must(t, p.compareAll(t.Context()))
		return asked
	}
	if n := look(); n != 0 {
		t.Errorf("%d calls are made before it is time", n)
	}
	w.clock.advance(editsEvery)
	look() // which learns who we are
	fields, _ := w.org.Record(record)
	account := fields["AccountId"].(string)
	name := w.shown(account, "Name")
	for _, step := range []struct {
		name   string
		drifts bool
	}{{"Another Ltd", true}, {name, false}} {
		w.tick()
		must(t, w.org.Update(account, map[string]any{"Name": step.name}))
		w.clock.advance(editsEvery)
		if n := look(); n != 1 {
			t.Errorf("%d calls are made to see what was edited", n)
		}
		now := d.load(s.Tx)
		if drifts := now.Facts.Drift != nil && slices.Contains(now.Facts.Drift.Fields, "Account.Name"); drifts != step.drifts {
			t.Errorf("%q: known is %+v", step.name, now.Facts.Drift)
		}
		d.tell()
	}
	w.clock.advance(editsEvery)
	before := calls()
	if look(); calls()-before != 1 {
		t.Errorf("%d calls are made though nobody has edited anything but us", calls()-before)
	}
	w.org.Hide("OpportunityLineItem")
	for range 2 {
		w.clock.advance(2 * time.Hour)
		look()
	}
	if n := strings.Count(d.log.String(), "could not be seen"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

// TestWhyAnEditCannotBeLookedAtIsSaidOnce: a tenant may be paused for days, and is polled all the while.
func TestWhyAnEditCannotBeLookedAtIsSaidOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t))
	d.poll()
	record := w.won()
	s := d.run()
	must(t, d.store.Pause(t.Context(), acme, "anna", "its template is looked at"))
	const says = "could not be compared"
	said := ""
	for _, closes := range []string{"2031-02-03", "2031-02-04"} {
		w.tick()
		must(t, w.org.Update(record, map[string]any{"CloseDate": closes}))
		d.poll()
		said = d.pollers[0].compareNow(t.Context(), said)
	}
	if n := strings.Count(d.log.String(), says); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	must(t, d.store.Resume(t.Context(), acme, "anna", "it is good"))
	if said = d.pollers[0].compareNow(t.Context(), said); said != "" || d.load(s.Tx).Facts.Drift == nil {
		t.Errorf("what waited is not compared: %q", said)
	}
}

// A CRM that does not answer what others have edited keeps no poll from going on.
func TestNoPollWaitsForAnAnswerAboutEdits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withTemplate(t))
	d.poll()
	w.clock.advance(editsEvery)
	asked, answered := make(chan struct{}), make(chan struct{})
	answer := sync.OnceFunc(func() { close(answered) })
	defer answer()
	w.at(func(*http.Request) bool { return true }, func() {
		close(asked)
		<-answered
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.pollers[0].compareChanged(ctx)
	}()
	d.pollers[0].lookForEdits()
	<-asked
	w.won()
	if fresh := d.poll(); len(fresh) != 1 {
		t.Errorf("%d deals are noticed meanwhile", len(fresh))
	}
	answer()
	stop()
	<-ended
}

// A history that may not be read is named, and keeps no pass from what can be looked at, nor the next one from beginning.
func TestAPassGoesOnWithoutAnObjectThatIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.org.Track("Order.Status", true)
	d := w.daemon()
	order := d.Tenants[0].Rules[0]
	order.Watch = deal.Watch{Rule: "order", Object: "Order", Stage: orderActive}
	order.Plan.Rule, order.Plan.Stage = "order", orderActive
	d.Tenants[0].Rules = append([]Rule{order}, d.Tenants[0].Rules...)
	d.poll()
	record := w.won()
	d.run()
	w.clock.advance(2 * lateRows)
	d.poll()
	w.loseFiles(record)
	w.org.Hide("OrderHistory")
	p, found, err := d.tryReconcile(Order{Days: 3, Who: "alice"})
	must(t, err)
	wantKinds(t, found, deal.FileGone)
	if p.Ended.IsZero() || !p.Read || p.Entries != 1 || len(p.Refused) != 1 || !strings.Contains(p.Refused["order"], "OrderHistory") {
		t.Errorf("the pass is %+v", p)
	}
	w.wantContracts(record, 1)
	w.org.Show("OrderHistory")
	if p, _, err = d.tryReconcile(Order{Days: 3, Who: "alice"}); err != nil || p.Refused != nil || p.Ended.IsZero() {
		t.Errorf("the next pass is %+v, %v", p, err)
	}
}

func TestOnePassAtATimePerTenantAndNoneWhileTheAllowanceIsShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	d.run()
	var second error
	_, err := d.Reconcile(t.Context(), acme, Order{Days: 3, Who: "alice"}, nil)
	must(t, err)
	w.loseFiles(w.org.Records("Opportunity")[0])
	_, err = d.Reconcile(t.Context(), acme, Order{Days: 3, Who: "alice"}, func(deal.Discrepancy) {
		_, second = d.Reconcile(t.Context(), acme, Order{Days: 3, Who: "bob"}, nil)
	})
	must(t, err)
	if !errors.Is(second, errBusy) {
		t.Errorf("a second pass beside the first gives %v", second)
	}
	w.org.SetUsage(8_500)
	d.poll() // which reads the allowance
	p, err := d.Reconcile(t.Context(), acme, Order{Days: 3, Who: "alice"}, nil)
	if err == nil || !strings.Contains(p.Waits, "allowance") || p.Deals != 0 {
		t.Errorf("with most of the allowance used the pass is %+v, %v", p, err)
	}
}
