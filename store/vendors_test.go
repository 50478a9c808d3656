package store

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// vendorSays is an event of a vendor's as the listener reads it.
func vendorSays(envelope string, news deal.EnvelopeNews, body string) deal.VendorEvent {
	return deal.VendorEvent{Envelope: envelope, News: news, At: start, Digest: sha256.Sum256([]byte(body)), URL: "https://vendor.example/secret-" + private, Reason: private}
}

func hear(t *testing.T, s *Store, tenant deal.TenantID, events ...deal.VendorEvent) {
	t.Helper()
	if _, _, err := s.Receive(t.Context(), deal.Arrival{Tenant: tenant, Source: "certyneo", Told: events}); err != nil {
		t.Fatal(err)
	}
}

// waiting is a sealing that waits for its vendor.
func waiting(t *testing.T, s *Store, record, envelope string) *deal.Sealing {
	t.Helper()
	p := page(t, s, change(record, "entry of "+record))
	for rule, plan := range p.Plans {
		plan.Delegated = &deal.Delegated{Vendor: "certyneo", Field: "Envelope__c"}
		p.Plans[rule] = plan
	}
	txs, err := s.Notice(t.Context(), p)
	if err != nil || len(txs) != 1 {
		t.Fatalf("%v, %v", txs, err)
	}
	sl := load(t, s, txs[0])
	sl.Step, sl.Condition, sl.Reason, sl.Next, sl.Facts.Envelope = deal.Gathered, deal.Retrying, deal.ReasonAwaiting+"x", start.Add(time.Hour), envelope
	if envelope == "" {
		sl.Facts.WaitsFor = deal.WaitsForEnvelope("certyneo")
	}
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "awaiting"}); err != nil {
		t.Fatal(err)
	}
	return load(t, s, sl.Tx)
}

func TestWhatAVendorTellsHasItsDealLookAtOnceAndNoOther(t *testing.T) {
	s, clock := newStore(t)
	first, second, nameless := waiting(t, s, "006A", "env_1"), waiting(t, s, "006B", "env_2"), waiting(t, s, "006C", "")
	if st := receipt(t, s, first.Tx); st.Status != deal.StatusAwaiting {
		t.Errorf("the record is to show %s", st.Status)
	}
	if n := query[int](t, s, `SELECT failures FROM sealings WHERE tx = $1`, first.Tx); n != 0 {
		t.Errorf("a deal that waits for its vendor counts as failing %d times", n)
	}
	clock.advance(time.Minute)
	due := func(sl *deal.Sealing) bool { return !load(t, s, sl.Tx).Next.After(clock.now) }
	sequence := receipt(t, s, first.Tx).Sequence
	hear(t, s, acme, vendorSays("env_1", deal.EnvelopeViewed, "1"))
	if !due(first) || due(second) || due(nameless) {
		t.Errorf("due are the first: %t, the second: %t, the one without an envelope: %t; want the first", due(first), due(second), due(nameless))
	}
	if st := receipt(t, s, first.Tx); st.Sequence != sequence || st.Status != deal.StatusAwaiting {
		t.Errorf("its record is told something by that: %+v", st)
	}
	hear(t, s, acme, vendorSays("env_9", deal.EnvelopeSent, "2"))
	if due(second) || !due(nameless) {
		t.Errorf("after news of an envelope that is nobody's the second is due: %t, the one without an envelope: %t; want the latter", due(second), due(nameless))
	}
	hear(t, s, "contoso", vendorSays("env_2", deal.EnvelopeCompleted, "3"))
	if due(second) {
		t.Error("another tenant's vendor has had a deal look")
	}
	version := load(t, s, second.Tx).Version
	hear(t, s, acme, vendorSays("env_2", deal.EnvelopeSent, "4"), vendorSays("env_2", deal.EnvelopeSent, "4"))
	if got := load(t, s, second.Tx).Version - version; got != 1 {
		t.Errorf("an event that came twice has changed its deal %d times", got)
	}
	rows, err := s.Pushes(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	var verdicts []string
	for _, p := range rows {
		verdicts = append(verdicts, string(p.Tenant)+" "+p.Ref.ID+" "+string(p.Verdict))
	}
	const want = "acme env_2 repeated, acme env_2 taken, contoso env_2 kept, acme env_9 kept, acme env_1 taken"
	if got := strings.Join(verdicts, ", "); got != want {
		t.Errorf("the log says %s; want %s", got, want)
	}
}

func TestAnEnvelopeHasOneDealUntilThatIsDropped(t *testing.T) {
	s, _ := newStore(t)
	first, second := waiting(t, s, "006A", "env_1"), waiting(t, s, "006B", "")
	env := deal.Envelope{Tenant: acme, Vendor: "certyneo", ID: "env_1"}
	if tx, err := s.EnvelopeHolder(t.Context(), env); err != nil || tx != first.Tx {
		t.Fatalf("the envelope is that of %q, %v", tx, err)
	}
	take := func() error {
		sl := load(t, s, second.Tx)
		sl.Facts.Envelope = "env_1"
		return s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "awaiting"})
	}
	if err := take(); err == nil {
		t.Fatal("a second deal has taken the envelope")
	}
	if err := s.Drop(t.Context(), first.Tx, "alice", "by mistake"); err != nil {
		t.Fatal(err)
	}
	if tx, err := s.EnvelopeHolder(t.Context(), env); err != nil || tx != "" {
		t.Fatalf("the envelope is still that of %q, %v", tx, err)
	}
	if err := take(); err != nil {
		t.Fatal(err)
	}
	hear(t, s, acme, vendorSays("env_1", deal.EnvelopeCompleted, "1"))
	if load(t, s, first.Tx).Condition != deal.Ended {
		t.Error("what a person has dropped goes on")
	}
}

func TestWhatAVendorHasToldIsEncryptedAndGoesWithItsDeal(t *testing.T) {
	s, clock := newStore(t)
	sl := waiting(t, s, "006A", "env_1")
	hear(t, s, acme, vendorSays("env_1", deal.EnvelopeDeclined, "1"), vendorSays("env_9", deal.EnvelopeSent, "2"))
	env := deal.Envelope{Tenant: acme, Vendor: "certyneo", ID: "env_1"}
	all, err := s.VendorTold(t.Context(), env)
	if err != nil || len(all) != 1 || all[0].Reason != private || all[0].News != deal.EnvelopeDeclined || !all[0].At.Equal(start) {
		t.Fatalf("%+v, %v", all, err)
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "dealseal.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || bytes.Contains(b, []byte(private)) {
			t.Errorf("%s has what the vendor has told in the clear (%v)", f, err)
		}
	}
	if err := s.Drop(t.Context(), sl.Tx, "alice", "not wanted"); err != nil {
		t.Fatal(err)
	}
	if err := s.Erase(t.Context(), sl.Tx, "alice", "its time has come"); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM vendor_events WHERE envelope = 'env_1'`); n != 0 {
		t.Errorf("%d events of an erased deal are left", n)
	}
	hear(t, s, acme, vendorSays("env_1", deal.EnvelopeCompleted, "3")) // of a deal that is no more
	open := waiting(t, s, "006B", "env_2")
	hear(t, s, acme, vendorSays("env_2", deal.EnvelopeViewed, "4"))
	clock.advance(keepTold + time.Hour)
	if _, err := s.ForgetPushes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, want := query[string](t, s, `SELECT group_concat(envelope) FROM vendor_events`), "env_2"; left != want {
		t.Errorf("events are left of %s, want %s: %s still waits", left, want, open.Tx)
	}
}
