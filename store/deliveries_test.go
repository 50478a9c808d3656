package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

// taken is what is due at an endpoint, as words.
func taken(t *testing.T, s *Store, endpoint string) (due []webhooks.Delivery) {
	t.Helper()
	due, _, err := s.Take(t.Context(), endpoint, 10, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return due
}

func concluded(t *testing.T, s *Store, endpoint string, d webhooks.Delivery, fate webhooks.Fate, next time.Time) {
	t.Helper()
	o := webhooks.Outcome{Delivery: d.ID, Attempt: d.Attempt, Endpoint: endpoint, Fate: fate, Status: 200, Took: time.Second, Next: next, InARow: 20}
	if fate != webhooks.Delivered {
		o.Status, o.Problem, o.Answer = 503, "it answered 503", []byte("a foreign answer")
	}
	if err := s.Settle(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func TestAnEventIsDueAtTheEndpointsOfItsTenantThatWantIt(t *testing.T) {
	s, clock := newStore(t)
	all, signed, other := testEndpoint("all"), testEndpoint("signed"), testEndpoint("other")
	signed.Events = []string{"document.signed"}
	other.ID, other.Tenant = "globex/other", "globex"
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{all, signed, other}); err != nil {
		t.Fatal(err)
	}
	sl := one(t, s, "006A")
	for endpoint, want := range map[string]int{"acme/all": 1, "acme/signed": 0, "globex/other": 0} {
		if due := taken(t, s, endpoint); len(due) != want {
			t.Errorf("%s: %d are due, want %d", endpoint, len(due), want)
		}
	}
	if due := taken(t, s, "acme/all"); len(due) != 0 {
		t.Error("what is under way is due again")
	}
	clock.advance(2 * time.Minute)
	due := taken(t, s, "acme/all") // the lease is over
	if len(due) != 1 || due[0].Attempt != 2 || due[0].Event.Transaction != string(sl.Tx) || due[0].Event.ID != deal.EventID(sl.Tx, 1, "envelope.created") {
		t.Fatalf("%+v", due)
	}
	concluded(t, s, "acme/all", due[0], webhooks.Again, clock.Now().Add(time.Minute))
	if due := taken(t, s, "acme/all"); len(due) != 0 {
		t.Error("it is due before its time")
	}
	clock.advance(time.Minute)
	due = taken(t, s, "acme/all")
	if len(due) != 1 || due[0].Failures != 1 {
		t.Fatalf("%+v", due)
	}
	concluded(t, s, "acme/all", due[0], webhooks.Failed, time.Time{})
	if n := query[int](t, s, `SELECT count(*) FROM audit WHERE CAST(leaf AS TEXT) LIKE '%"webhook.delivery_failed"%' AND tx <> ''`); n != 1 {
		t.Errorf("%d entries of the failed delivery in the audit log", n)
	}
	attempts, err := s.Attempts(t.Context(), due[0].ID)
	if err != nil || len(attempts) != 3 || attempts[0].Took != 0 || attempts[1].Status != 503 || attempts[2].Answer != "a foreign answer" {
		t.Errorf("%+v, %v", attempts, err)
	}
	if n, err := s.Redeliver(t.Context(), Redelivery{Endpoint: "acme/all", Failed: true}, "anna", "it works again"); err != nil || n != 1 {
		t.Errorf("%d are made again, %v", n, err)
	}
	due = taken(t, s, "acme/all")
	if len(due) != 1 || due[0].Failures != 0 || due[0].Attempt != 4 {
		t.Fatalf("%+v", due)
	}
	concluded(t, s, "acme/all", due[0], webhooks.Delivered, time.Time{})
	clock.advance(keptDeliveries + time.Hour)
	if n, err := s.PruneDeliveries(t.Context()); err != nil || n != 1 {
		t.Errorf("%d are forgotten, %v", n, err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM delivery_attempts WHERE delivery = `+fmt.Sprint(due[0].ID)); n != 0 {
		t.Errorf("%d attempts are left", n)
	}
	verified(t, s)
}

func TestWhatIsDisabledOrGoneKeepsItsEvents(t *testing.T) {
	s, clock := newStore(t)
	e := testEndpoint("hooks")
	configure := func(all ...webhooks.Endpoint) {
		t.Helper()
		if err := s.ConfigureEndpoints(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	state := func() string {
		t.Helper()
		all, err := s.EndpointStates(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return fmt.Sprintf("%s %d %d", all[0].State, all[0].Pending, all[0].Secrets)
	}
	expect := func(want string) {
		t.Helper()
		if got := state(); got != want {
			t.Errorf("it is %q, want %q", got, want)
		}
	}
	configure(e)
	configure() // taken out of the file
	one(t, s, "006A")
	expect("disabled 1 1")
	if len(taken(t, s, e.ID)) != 0 {
		t.Error("a disabled endpoint is delivered to")
	}
	fresh := e
	fresh.Secrets = []webhooks.Secret{{Value: secret.New([]byte("whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhpcnR5IGJ5dGVz"))}}
	configure(fresh) // put back, with another secret
	expect("active 1 2")
	clock.advance(rotation + time.Second)
	expect("active 1 1")
	due := taken(t, s, e.ID)
	if len(due) != 1 {
		t.Fatalf("%d are due", len(due))
	}
	concluded(t, s, e.ID, due[0], webhooks.Held, time.Time{})
	expect("disabled 1 1")
	configure(fresh) // a start changes nothing about it
	expect("disabled 1 1")
	if err := s.SetEndpoint(t.Context(), e.ID, true, "anna", "it is there again"); err != nil {
		t.Fatal(err)
	}
	expect("active 1 1")
	var refused *EndpointError
	if err := s.RemoveEndpoint(t.Context(), e.ID, "anna", "test"); !errors.As(err, &refused) {
		t.Errorf("a configured endpoint was removed: %v", err)
	}
	if err := s.AddEndpoint(t.Context(), e, "anna", "test"); !errors.As(err, &refused) {
		t.Errorf("a second endpoint of one name: %v", err)
	}
}

func TestAddressesSecretsAndAnswersAreEncrypted(t *testing.T) {
	s, _ := newStore(t)
	e := testEndpoint("hooks")
	if err := s.AddEndpoint(t.Context(), e, "anna", "test"); err != nil {
		t.Fatal(err)
	}
	one(t, s, "006A")
	concluded(t, s, e.ID, taken(t, s, e.ID)[0], webhooks.Again, start)
	if err := s.truncateLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{"token=hidden", strings.TrimPrefix(string(e.Secrets[0].Value.Reveal()), "whsec_"), "a foreign answer"} {
		if bytes.Contains(b, []byte(hidden)) {
			t.Errorf("the database holds %q", hidden)
		}
	}
}

// TestWhatIsDamagedIsSetAsideAndTheRestGoesOn damages an event and an endpoint behind the store's back.
func TestWhatIsDamagedIsSetAsideAndTheRestGoesOn(t *testing.T) {
	s, clock := newStore(t)
	if err := s.ConfigureChannels(t.Context(), []string{"ops"}); err != nil {
		t.Fatal(err)
	}
	hooks, other := testEndpoint("hooks"), testEndpoint("other")
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{hooks, other}); err != nil {
		t.Fatal(err)
	}
	first, second := one(t, s, "006A"), one(t, s, "006B")
	stop(t, s, second, deal.Dead, "the PIN was refused")
	damaged := deal.EventID(first.Tx, 1, "envelope.created")
	tamper(t, s, `UPDATE outbox SET data = x'00' WHERE id IN ($1, $2)`, damaged, deal.EventID(second.Tx, 2, "document.failed"))
	due := taken(t, s, "acme/hooks")
	if len(due) != 1 || due[0].Event.Transaction != string(second.Tx) || due[0].Event.Type != "envelope.created" {
		t.Fatalf("beside what is damaged there is %+v", due)
	}
	failed, err := s.Deliveries(t.Context(), "acme/hooks", "failed", 10)
	if err != nil || len(failed) != 2 || failed[1].Event != damaged || failed[1].Attempts != 1 || !strings.Contains(failed[1].Problem, "damaged") {
		t.Errorf("%+v, %v", failed, err)
	}
	clock.advance(time.Minute)
	told, words := alerts(t, s, everything)
	want(t, "people", words, "failure acme 1 of 1;dead-letter acme 2 of 2;")
	if len(told) == 0 || !strings.Contains(told[0].Newest[0].Data["reason"], "damaged") || told[0].Newest[0].Type != "document.failed" {
		t.Errorf("%+v", told)
	}
	verified(t, s)

	tamper(t, s, `UPDATE endpoints SET endpoint = x'00' WHERE id = 'acme/hooks'`)
	s.forgetSubscriptions()
	one(t, s, "006C") // whose commit needs to know who wants its events
	if due := taken(t, s, "acme/other"); len(due) != 2 {
		t.Errorf("the endpoint beside it is told %d events", len(due))
	}
	all, err := s.Endpoints(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != "acme/other" {
		t.Errorf("%+v, %v", all, err)
	}
	state, err := s.EndpointState(t.Context(), "acme/hooks")
	if err != nil || state.State != EndpointDisabled || !strings.Contains(state.Reason, "damaged") || state.Failed != 2 {
		t.Errorf("%+v, %v", state, err)
	}
	var refused *EndpointError
	if err := s.SetEndpoint(t.Context(), "acme/hooks", true, "anna", "it looks well"); !errors.As(err, &refused) {
		t.Errorf("it is enabled as if it could be read: %v", err)
	}
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{hooks, other}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Redeliver(t.Context(), Redelivery{Endpoint: "acme/hooks", Since: clock.Now().Add(-time.Hour)}, "anna", "it was read anew"); err != nil || n != 3 { // of the second nobody knows yet
		t.Errorf("%d are made again, %v", n, err)
	}
	if due := taken(t, s, "acme/hooks"); len(due) != 2 || due[1].Attempt != 1 || due[1].Event.Record != "006C" {
		t.Errorf("after a reload it is told %+v, want what it has missed", due)
	}
}

// TestALateFailureUndoesNoDelivery has a process stand still in an attempt for longer than its lease.
func TestALateFailureUndoesNoDelivery(t *testing.T) {
	s, clock := newStore(t)
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{testEndpoint("hooks")}); err != nil {
		t.Fatal(err)
	}
	one(t, s, "006A")
	first := taken(t, s, "acme/hooks")[0]
	clock.advance(2 * time.Minute)
	second := taken(t, s, "acme/hooks")[0]
	state := func(state string, failures int) {
		t.Helper()
		all, err := s.Deliveries(t.Context(), "acme/hooks", "", 10)
		at, missing := s.EndpointState(t.Context(), "acme/hooks")
		if err != nil || missing != nil || len(all) != 1 || all[0].State != state || at.Failures != failures {
			t.Errorf("%+v, %+v, want %s and %d failures: %v %v", all, at, state, failures, err, missing)
		}
	}
	concluded(t, s, "acme/hooks", first, webhooks.Again, clock.Now().Add(time.Hour))
	state("pending", 0) // the second is under way
	if due := taken(t, s, "acme/hooks"); len(due) != 0 {
		t.Errorf("what is under way is due again: %+v", due)
	}
	concluded(t, s, "acme/hooks", second, webhooks.Delivered, time.Time{})
	concluded(t, s, "acme/hooks", first, webhooks.Failed, time.Time{})
	state("delivered", 0)
	clock.advance(time.Hour)
	if due := taken(t, s, "acme/hooks"); len(due) != 0 {
		t.Errorf("it is delivered once more: %+v", due)
	}
}

// TestAllSinceATimeIsDeliveredInParts has more than a part of it, some in the same millisecond.
func TestAllSinceATimeIsDeliveredInParts(t *testing.T) {
	s, clock := newStore(t)
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{testEndpoint("hooks")}); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if i%4 == 0 {
			clock.advance(time.Second)
		}
		one(t, s, fmt.Sprintf("006%d", i))
	}
	for _, d := range taken(t, s, "acme/hooks") {
		concluded(t, s, "acme/hooks", d, webhooks.Delivered, time.Time{})
	}
	for since, want := range map[time.Time]int64{start: 9, clock.Now(): 1, clock.Now().Add(-time.Second): 5, clock.Now().Add(time.Hour): 0} {
		for _, chunk := range []int{1, 2, 3, 8, 9, 10} {
			before := query[int](t, s, `SELECT count(*) FROM audit`)
			if n, err := s.redeliverSince(t.Context(), Redelivery{Endpoint: "acme/hooks", Since: since}, chunk, "anna", "lost there"); err != nil || n != want {
				t.Errorf("in parts of %d %d are made again, want %d: %v", chunk, n, want, err)
			}
			if after := query[int](t, s, `SELECT count(*) FROM audit`); after == before {
				t.Error("the audit log does not tell")
			}
		}
	}
	if due := taken(t, s, "acme/hooks"); len(due) != 9 {
		t.Errorf("%d are due, want 9", len(due))
	}
}

func TestSoManyEndpointsMayBeAddedAndNoMore(t *testing.T) {
	s, _ := newStore(t)
	for _, name := range []string{"first", "second"} {
		if err := s.AddEndpoint(t.Context(), testEndpoint(name), "anna", "test"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.write.Exec(`WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
		INSERT INTO endpoints SELECT 'acme/e' || i, tenant, 0, endpoint, state, reason, since, 0, 0, 0 FROM endpoints, n WHERE id = 'acme/first'`); err != nil {
		t.Fatal(err)
	}
	var field *webhooks.FieldError
	if err := s.AddEndpoint(t.Context(), testEndpoint("one-more"), "anna", "test"); !errors.As(err, &field) || !strings.Contains(err.Error(), "remove one first") {
		t.Errorf("one more than may be: %v", err)
	}
	if err := s.RemoveEndpoint(t.Context(), "acme/second", "anna", "test"); err != nil {
		t.Fatal(err)
	}
	if err := s.AddEndpoint(t.Context(), testEndpoint("one-more"), "anna", "test"); err != nil {
		t.Errorf("in the place of one that was removed: %v", err)
	}
}
