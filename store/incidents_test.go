package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/notify"
	"github.com/dealseal/dealseal/webhooks"
)

var everything = notify.Filter{Channel: "ops", Gather: 30 * time.Second, Again: 15 * time.Minute}

func withChannels(t *testing.T, names ...string) (*Store, *testClock) {
	t.Helper()
	s, clock := newStore(t)
	if err := s.ConfigureChannels(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	return s, clock
}

// alerts is what a channel has to be told, as words.
func alerts(t *testing.T, s *Store, f notify.Filter) (due []notify.Incident, words string) {
	t.Helper()
	due, _, err := s.Alerts(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range due {
		over := ""
		if !in.Closed.IsZero() {
			over = " over"
		}
		words += fmt.Sprintf("%s %s %d of %d%s;", in.Kind, in.Tenant, in.New, in.Events, over)
	}
	return due, words
}

// toldTo has a channel told what is due, and returns it as words.
func toldTo(t *testing.T, s *Store, f notify.Filter) string {
	t.Helper()
	due, words := alerts(t, s, f)
	if err := s.Alerted(t.Context(), f.Channel, due); err != nil {
		t.Fatal(err)
	}
	return words
}

// stop brings a sealing to a condition in which it waits for a person.
func stop(t *testing.T, s *Store, sl *deal.Sealing, c deal.Condition, reason string) {
	t.Helper()
	kind := map[deal.Condition]string{deal.Dead: "document.failed", deal.Held: "document.held"}[c]
	sl.Condition, sl.Reason = c, reason
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: string(c), Why: reason, Events: []deal.Event{{Type: kind, Data: map[string]string{"reason": reason}}}}); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestDealsThatFailTogetherAreOneIncidentThatIsToldOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	clock := newClock()
	s := open(t, options(dir, clock.Now))
	activate(t, s, acme, ruleA)
	if err := s.ConfigureChannels(t.Context(), []string{"ops"}); err != nil {
		t.Fatal(err)
	}
	var all []*deal.Sealing
	for i := range 25 {
		all = append(all, one(t, s, fmt.Sprintf("006%d", i)))
	}
	for _, sl := range all[:24] {
		stop(t, s, sl, deal.Dead, "the PIN was refused")
	}
	_, words := alerts(t, s, everything)
	want(t, "while it grows", words, "")
	clock.advance(30 * time.Second)
	due, words := alerts(t, s, everything)
	want(t, "once it was gathered", words, "failure acme 24 of 24;")
	if len(due[0].Newest) != notify.MostListed || due[0].Newest[0].Transaction != string(all[23].Tx) || due[0].Newest[0].Data["reason"] != "the PIN was refused" || due[0].Newest[0].Title != "" {
		t.Errorf("%+v", due[0].Newest)
	}
	s.release() // nobody was told: the next process does
	s = open(t, options(dir, clock.Now))
	want(t, "after a restart", toldTo(t, s, everything), "failure acme 24 of 24;")
	want(t, "told once", toldTo(t, s, everything), "")
	stop(t, s, load(t, s, all[24].Tx), deal.Dead, "the PIN was refused")
	clock.advance(time.Minute)
	want(t, "what comes later waits for the digest", toldTo(t, s, everything), "")
	clock.advance(15 * time.Minute)
	want(t, "the digest", toldTo(t, s, everything), "failure acme 1 of 25;")
	ends := everything
	ends.Ends = true
	for _, sl := range all {
		_, words := alerts(t, s, ends)
		want(t, "as long as one waits", words, "")
		if err := s.Retry(t.Context(), sl.Tx, "anna", "mended"); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "whoever is not told of ends", toldTo(t, s, everything), "")
	want(t, "whoever is", toldTo(t, s, ends), "failure acme 0 of 25 over;")
	want(t, "an end is told once", toldTo(t, s, ends), "")
	verified(t, s)
}

func TestAChannelIsToldWhatItWants(t *testing.T) {
	s, clock := withChannels(t, "ops", "globex", "failures", "named")
	activate(t, s, "globex", ruleA)
	other, err := s.Notice(t.Context(), pageOf(t, s, "globex", change("1", "h1")))
	if err != nil {
		t.Fatal(err)
	}
	sl := one(t, s, "006A")
	toSealed(t, s, sl, "a contract")
	stop(t, s, load(t, s, sl.Tx), deal.Held, "look at it")
	stop(t, s, load(t, s, other[0]), deal.Dead, "no template")
	if err := s.Announce(t.Context(), "house.summary", "2026-03-08", "week", map[string]string{"sealed": "3"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Announce(t.Context(), "house.summary", "2026-03-08", "week", map[string]string{"sealed": "4"}); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	for _, c := range []struct {
		f    notify.Filter
		want string
	}{
		{notify.Filter{Channel: "ops"}, "hold acme 1 of 1;failure globex 1 of 1;summary  1 of 1;"},
		{notify.Filter{Channel: "globex", Tenants: []string{"globex"}}, "failure globex 1 of 1;"},
		{notify.Filter{Channel: "failures", Kinds: []notify.Kind{notify.Failure}}, "failure globex 1 of 1;"},
		{notify.Filter{Channel: "not configured"}, ""},
	} {
		want(t, c.f.Channel, toldTo(t, s, c.f), c.want)
	}
	due, _ := alerts(t, s, notify.Filter{Channel: "named", Names: true})
	if due[0].Newest[0].Title != private+".pdf" || due[0].Newest[0].Record != "006A" {
		t.Errorf("%+v", due[0].Newest)
	}
	if err := s.ConfigureChannels(t.Context(), []string{"fresh"}); err != nil {
		t.Fatal(err)
	}
	want(t, "one that is new is told what is not over", toldTo(t, s, notify.Filter{Channel: "fresh"}), "hold acme 1 of 1;failure globex 1 of 1;summary  1 of 1;")
	if all, err := s.Channels(t.Context()); err != nil || len(all) != 1 || all[0].Name != "fresh" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestWhatWasNotTakenIsTriedAgainLater(t *testing.T) {
	s, clock := withChannels(t, "ops")
	stop(t, s, one(t, s, "006A"), deal.Dead, "x")
	clock.advance(time.Minute)
	for n := 1; n <= 3; n++ {
		if _, words := alerts(t, s, everything); words == "" {
			t.Fatal("nothing is due")
		}
		if err := s.AlertFailed(t.Context(), "ops", "connection refused", func(tries int) time.Duration {
			if tries != n {
				t.Errorf("%d tries, want %d", tries, n)
			}
			return time.Hour
		}); err != nil {
			t.Fatal(err)
		}
		due, next, err := s.Alerts(t.Context(), everything)
		if err != nil || len(due) != 0 || !next.Equal(clock.Now().Add(time.Hour)) {
			t.Errorf("%d are due, again at %s, %v", len(due), next, err)
		}
		clock.advance(time.Hour)
	}
	want(t, "in the end", toldTo(t, s, everything), "failure acme 1 of 1;")
	if all, err := s.Channels(t.Context()); err != nil || all[0].Tries != 0 || all[0].Problem != "" || !all[0].Succeeded.Equal(clock.Now()) {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestAMassThatTheGuardHoldsIsOneIncident(t *testing.T) {
	s, clock := withChannels(t, "ops")
	var mass []deal.Change
	for i := range 30 {
		mass = append(mass, change(fmt.Sprintf("006%d", i), "h1"))
	}
	n := page(t, s, mass...)
	n.Guard = deal.Guard{Rules: map[string]deal.RuleGuard{ruleA: {Caps: deal.Caps{Hour: 5}}}}
	if _, err := s.Notice(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	want(t, "the mass", toldTo(t, s, everything), "guard acme 1 of 1;")
	ends := everything
	ends.Ends = true
	if _, err := s.DecideGuarded(t.Context(), deal.GuardScope{Tenant: acme}, "drop", "anna", "a mistake"); err != nil {
		t.Fatal(err)
	}
	want(t, "once it is decided", toldTo(t, s, ends), "guard acme 0 of 1 over;")
}

func TestPeopleAreToldWhenAReceiverFailsAndWhenADocumentHasFailedThreeTimes(t *testing.T) {
	s, clock := withChannels(t, "ops")
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{testEndpoint("erp")}); err != nil {
		t.Fatal(err)
	}
	one(t, s, "006A")
	kinds := map[int]string{3: "webhook.document_failing", 10: "webhook.endpoint_failing", 14: "webhook.endpoint_failing", 18: "webhook.endpoint_failing", 20: "webhook.endpoint_failing webhook.delivery_failed"}
	percent := map[int]string{10: "50", 14: "70", 18: "90", 20: "100"}
	before := 0
	for n := 1; n <= 20; n++ {
		due := taken(t, s, "acme/erp")
		if len(due) != 1 {
			t.Fatalf("attempt %d: %d are due", n, len(due))
		}
		fate := webhooks.Again
		if n == 20 {
			fate = webhooks.Failed
		}
		concluded(t, s, "acme/erp", due[0], fate, clock.Now().Add(time.Minute))
		clock.advance(time.Minute)
		list := strings.Fields(kinds[n])
		if got := query[int](t, s, `SELECT count(*) FROM outbox WHERE tx = '' AND type LIKE 'webhook.%'`); got-before != len(list) {
			t.Errorf("attempt %d: %d events, want %v", n, got-before, list)
		} else {
			before = got
		}
		if percent[n] == "" {
			continue
		}
		due2, _ := alerts(t, s, notify.Filter{Channel: "ops", Kinds: []notify.Kind{notify.Endpoint}})
		if e := due2[0].Newest[0]; e.Type != "webhook.endpoint_failing" || e.Data["percent"] != percent[n] || e.Data["attempts"] != fmt.Sprint(n) || e.Data["problem"] != "it answered 503" {
			t.Errorf("attempt %d: %+v", n, e)
		}
	}
	if n := query[int](t, s, `SELECT count(*) FROM deliveries d JOIN outbox o ON o.id = d.event WHERE o.type LIKE 'webhook.%'`); n != 0 {
		t.Errorf("%d events for operators are on their way to receivers", n)
	}
	want(t, "all of it", toldTo(t, s, everything), "endpoint acme 5 of 5;dead-letter acme 1 of 1;")
	if _, err := s.Redeliver(t.Context(), Redelivery{Endpoint: "acme/erp", Failed: true}, "anna", "mended"); err != nil {
		t.Fatal(err)
	}
	concluded(t, s, "acme/erp", taken(t, s, "acme/erp")[0], webhooks.Delivered, time.Time{})
	ends := everything
	ends.Ends = true
	want(t, "once it takes events", toldTo(t, s, ends), "endpoint acme 0 of 5 over;")
}

// Whoever enables an endpoint begins to count its failures anew: the first event that it takes says that the trouble is over.
func TestTheIncidentOfAnEndpointThatIsEnabledAgainEndsWithWhatItTakes(t *testing.T) {
	s, clock := withChannels(t, "ops")
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{testEndpoint("erp")}); err != nil {
		t.Fatal(err)
	}
	one(t, s, "006A")
	concluded(t, s, "acme/erp", taken(t, s, "acme/erp")[0], webhooks.Held, clock.Now())
	clock.advance(time.Minute)
	want(t, "once it is disabled", toldTo(t, s, everything), "endpoint acme 1 of 1;")
	if err := s.SetEndpoint(t.Context(), "acme/erp", true, "anna", "it is back"); err != nil {
		t.Fatal(err)
	}
	ends := everything
	ends.Ends = true
	want(t, "once it is enabled", toldTo(t, s, ends), "")
	concluded(t, s, "acme/erp", taken(t, s, "acme/erp")[0], webhooks.Delivered, time.Time{})
	want(t, "once it takes events", toldTo(t, s, ends), "endpoint acme 0 of 1 over;")
}

// TestOnlyThoseWhoseDealsAKeySealsAreToldOfItsCertificates: a certificate may have the name of another tenant.
func TestOnlyThoseWhoseDealsAKeySealsAreToldOfItsCertificates(t *testing.T) {
	s, clock := withChannels(t, "ops")
	other := testEndpoint("erp")
	other.ID, other.Tenant = "globex/erp", "globex"
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{testEndpoint("erp"), other}); err != nil {
		t.Fatal(err)
	}
	s.Audience(map[string][]deal.TenantID{"house": {acme}, "theirs": {"globex"}})
	register(t, s, certificate("old", 20, deal.CertActive), certificate("new", 400, deal.CertNext))
	for range 2 {
		if _, err := s.TellCertificateEnds(t.Context(), []int{60, 30, 14, 7, 1}); err != nil {
			t.Fatal(err)
		}
	}
	clock.advance(time.Minute)
	want(t, "the end", toldTo(t, s, everything), "certificate  1 of 1;")
	if err := s.ActivateCertificate(t.Context(), "house", "new", time.Time{}, time.Time{}, "anna", "the old one ends"); err != nil {
		t.Fatal(err)
	}
	ends := everything
	ends.Ends = true
	want(t, "once it is replaced", toldTo(t, s, ends), "certificate  0 of 1 over;")
	for range 2 {
		if _, err := s.RevokeCertificate(t.Context(), "new", "daemon", "key compromise"); err != nil {
			t.Fatal(err)
		}
	}
	clock.advance(time.Minute)
	want(t, "a revocation", toldTo(t, s, everything), "certificate  1 of 1;")
	var types []string
	for _, d := range taken(t, s, "acme/erp") {
		types = append(types, d.Event.Type+" "+d.Event.Subject+" "+d.Event.Tenant+" "+d.Event.Transaction)
	}
	want(t, "acme", strings.Join(types, ";"), "certificate.expiring old acme ;certificate.renewed new acme ;certificate.revoked new acme ")
	if due := taken(t, s, "globex/erp"); len(due) != 0 {
		t.Errorf("globex is told of %+v", due)
	}
	clock.advance(time.Hour)
	if n, err := s.Redeliver(t.Context(), Redelivery{Endpoint: "acme/erp", Since: start}, "anna", "lost there"); err != nil || n != 0 {
		t.Errorf("%d are made again while they are under way, %v", n, err)
	}
}

func TestARevocationIsOverWhenAnotherCertificateTakesItsPlace(t *testing.T) {
	for name, follow := range map[string]func(*testing.T, *Store) error{
		"one that was imported": func(t *testing.T, s *Store) error {
			register(t, s, certificate("new", 400, deal.CertNext))
			return s.ActivateCertificate(t.Context(), "house", "new", time.Time{}, time.Time{}, "anna", "the old one was revoked")
		},
		"one that is taken over as it is": func(t *testing.T, s *Store) error {
			return s.AddCertificate(t.Context(), certificate("new", 400, deal.CertActive), "anna", "it is on the token")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, clock := withChannels(t, "ops")
			register(t, s, certificate("old", 200, deal.CertActive))
			if _, err := s.RevokeCertificate(t.Context(), "old", "daemon", "key compromise"); err != nil {
				t.Fatal(err)
			}
			clock.advance(time.Minute)
			want(t, "the revocation", toldTo(t, s, everything), "certificate  1 of 1;")
			if err := follow(t, s); err != nil {
				t.Fatal(err)
			}
			ends := everything
			ends.Ends = true
			want(t, "once there is another", toldTo(t, s, ends), "certificate  0 of 1 over;")
		})
	}
}

func TestTemplatesAreToldOnceAndToThoseWhoUseThem(t *testing.T) {
	s, _ := withChannels(t, "ops")
	if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{testEndpoint("erp")}); err != nil {
		t.Fatal(err)
	}
	for _, now := range [][]Template{
		{{"nda@1", "aa", []deal.TenantID{acme}}, {"order@1", "bb", []deal.TenantID{"globex"}}},
		{{"nda@1", "aa", []deal.TenantID{acme}}, {"order@1", "bb", []deal.TenantID{"globex"}}},
		{{"nda@1", "cc", []deal.TenantID{acme}}},
	} {
		if err := s.PublishTemplates(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	var types []string
	for _, d := range taken(t, s, "acme/erp") {
		types = append(types, d.Event.Type+" "+d.Event.Data["template"]+" "+d.Event.Data["sha256"])
	}
	want(t, "acme", strings.Join(types, ";"), "template.published nda@1 aa;template.published nda@1 cc")
	if n := query[int](t, s, `SELECT count(*) FROM outbox WHERE type = 'template.retired'`); n != 1 {
		t.Errorf("%d templates are gone, want 1", n)
	}
}

func TestALoginThatIsRefusedIsToldOnceAndEndsWithTheNextThatIsNot(t *testing.T) {
	s, clock := withChannels(t, "ops")
	poll := func(p deal.PollState) {
		t.Helper()
		p.Tenant = acme
		if err := s.SetPoll(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Minute)
	}
	poll(deal.PollState{})
	poll(deal.PollState{Err: "refused", Refused: true, Trouble: "revoked"})
	poll(deal.PollState{Err: "refused", Refused: true, Trouble: "revoked"})
	due, words := alerts(t, s, everything)
	want(t, "the refusal", words, "login acme 1 of 1;")
	if due[0].Newest[0].Data["trouble"] != "revoked" {
		t.Errorf("%+v", due[0].Newest)
	}
	toldTo(t, s, everything)
	poll(deal.PollState{Err: "no route to host"})
	poll(deal.PollState{})
	ends := everything
	ends.Ends = true
	want(t, "the end", toldTo(t, s, ends), "login acme 0 of 1 over;")
	if n := query[int](t, s, `SELECT count(*) FROM outbox WHERE type = 'crm.login_restored'`); n != 1 {
		t.Errorf("it was told %d times that the login works again", n)
	}
}

func TestAReceiptThatTheCRMDoesNotTakeIsToldOnce(t *testing.T) {
	s, clock := withChannels(t, "ops")
	sl := one(t, s, "006A")
	shown, err := s.Receipt(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Refused(t.Context(), sl.Tx, shown.Sequence, "the field is gone"); err != nil {
			t.Fatal(err)
		}
	}
	clock.advance(time.Minute)
	due, words := alerts(t, s, everything)
	want(t, "the refusal", words, "write-back acme 1 of 1;")
	if e := due[0].Newest[0]; e.Transaction != string(sl.Tx) || e.Data["reason"] != "the field is gone" || e.Sequence != 2 {
		t.Errorf("%+v", e)
	}
	toldTo(t, s, everything)
	if err := s.Told(t.Context(), sl.Tx, shown.Sequence, 0); err != nil {
		t.Fatal(err)
	}
	ends := everything
	ends.Ends = true
	want(t, "once it is taken", toldTo(t, s, ends), "write-back acme 0 of 1 over;")
}

// Two records become one in the CRM, and their receipts one, which goes on with what was refused of either.
func TestAReceiptThatWasRefusedAndBecameAnothersEndsWithThat(t *testing.T) {
	s, clock := withChannels(t, "ops")
	first, second := one(t, s, "006A"), one(t, s, "006B")
	if err := s.Refused(t.Context(), second.Tx, receipt(t, s, second.Tx).Sequence, "the field is gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.Identify(t.Context(), first, []string{"006B"}); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM receipts`); n != 1 {
		t.Fatalf("there are %d receipts", n)
	}
	clock.advance(time.Minute)
	want(t, "the refusal", toldTo(t, s, everything), "write-back acme 1 of 1;")
	if err := s.Told(t.Context(), first.Tx, receipt(t, s, first.Tx).Sequence, 0); err != nil {
		t.Fatal(err)
	}
	ends := everything
	ends.Ends = true
	want(t, "once it is taken", toldTo(t, s, ends), "write-back acme 0 of 1 over;")
}

func TestTheLastUseOfAKeyIsTold(t *testing.T) {
	s, clock := withChannels(t, "ops")
	limits := deal.KeyLimits{Total: 2}
	for i := range 3 {
		sl := one(t, s, fmt.Sprintf("006%d", i))
		digest := fmt.Sprintf("%064x", i+1)
		sl.Step, sl.Facts.Digest = deal.Rendered, digest
		advance(t, s, sl, "prepared")
		err := s.Begin(t.Context(), sl, signIntent(digest, "spki", limits))
		var spent *deal.SpentError
		if (i == 2) != errors.As(err, &spent) {
			t.Fatalf("use %d: %v", i, err)
		}
	}
	clock.advance(time.Minute)
	want(t, "the limit", toldTo(t, s, everything), "key  1 of 1;")
}

func TestIncidentsThatWereOverLongAgoAreForgotten(t *testing.T) {
	s, clock := withChannels(t, "ops")
	sl := one(t, s, "006A")
	stop(t, s, sl, deal.Dead, "x")
	clock.advance(time.Minute)
	toldTo(t, s, everything)
	clock.advance(40 * 24 * time.Hour)
	if n, err := s.PruneIncidents(t.Context()); err != nil || n != 0 {
		t.Errorf("%d that are not over were forgotten, %v", n, err)
	}
	if err := s.Retry(t.Context(), sl.Tx, "anna", "mended"); err != nil {
		t.Fatal(err)
	}
	clock.advance(31 * 24 * time.Hour)
	if n, err := s.PruneIncidents(t.Context()); err != nil || n != 1 {
		t.Errorf("%d were forgotten, %v", n, err)
	}
	if n := query[int](t, s, `SELECT (SELECT count(*) FROM incidents) + (SELECT count(*) FROM incident_events) + (SELECT count(*) FROM alerts)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// TestAnIncidentEndsWithItsCause has causes end that nobody decides about one by one.
func TestAnIncidentEndsWithItsCause(t *testing.T) {
	ends := everything
	ends.Ends = true
	for _, c := range []struct {
		name, told string
		begin, end func(t *testing.T, s *Store)
	}{
		{"a deal is released while the guard holds another", "hold acme", func(t *testing.T, s *Store) {
			stop(t, s, one(t, s, "006A"), deal.Held, "look at it")
			n := page(t, s, change("006G", "g1"), change("006H", "h1"))
			n.Guard = deal.Guard{Rules: map[string]deal.RuleGuard{ruleA: {Caps: deal.Caps{Hour: 1}}}}
			if _, err := s.Notice(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			if held := query[int](t, s, `SELECT count(*) FROM sealings WHERE guarded = 1`); held == 0 {
				t.Fatal("the guard holds nothing")
			}
		}, func(t *testing.T, s *Store) {
			tx := deal.TxID(query[string](t, s, `SELECT tx FROM sealings WHERE condition = 'held' AND guarded = 0`))
			if err := s.Release(t.Context(), tx, "", "anna", "it is well"); err != nil {
				t.Fatal(err)
			}
		}},
		{"the only one is erased", "failure acme", func(t *testing.T, s *Store) { stop(t, s, one(t, s, "006A"), deal.Dead, "x") }, func(t *testing.T, s *Store) {
			if err := s.Erase(t.Context(), deal.TxID(query[string](t, s, `SELECT tx FROM sealings`)), "anna", "as asked"); err != nil {
				t.Fatal(err)
			}
		}},
		{"another is erased, and the last released", "hold acme", func(t *testing.T, s *Store) {
			stop(t, s, one(t, s, "006A"), deal.Held, "x")
			sl := one(t, s, "006B")
			stop(t, s, sl, deal.Held, "x")
			if err := s.Erase(t.Context(), sl.Tx, "anna", "as asked"); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, s *Store) {
			if err := s.Release(t.Context(), deal.TxID(query[string](t, s, `SELECT tx FROM sealings ORDER BY seq LIMIT 1`)), "", "anna", "it is well"); err != nil {
				t.Fatal(err)
			}
		}},
		{"the tenant is taken out", "login acme", func(t *testing.T, s *Store) {
			if err := s.SetPoll(t.Context(), deal.PollState{Tenant: acme, Err: "refused", Refused: true}); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, s *Store) {
			if err := s.KeepTenants(t.Context(), []deal.TenantID{"globex"}); err != nil {
				t.Fatal(err)
			}
		}},
		{"the endpoint is taken out", "endpoint acme", func(t *testing.T, s *Store) {
			if err := s.ConfigureEndpoints(t.Context(), []webhooks.Endpoint{testEndpoint("erp")}); err != nil {
				t.Fatal(err)
			}
			one(t, s, "006A")
			concluded(t, s, "acme/erp", taken(t, s, "acme/erp")[0], webhooks.Held, start)
		}, func(t *testing.T, s *Store) {
			if err := s.ConfigureEndpoints(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}},
		{"a deal of another tenant takes the record over", "write-back acme", func(t *testing.T, s *Store) {
			sl := one(t, s, "006A")
			shown, err := s.Receipt(t.Context(), sl.Tx)
			if err == nil {
				err = s.Refused(t.Context(), sl.Tx, shown.Sequence, "the field is gone")
			}
			if err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, s *Store) {
			// The account has moved to another tenant's file.
			activate(t, s, "globex", ruleA)
			tamper(t, s, `UPDATE receipts SET account = $1`, account("globex"))
			tamper(t, s, `UPDATE record_ids SET account = $1`, account("globex"))
			if _, err := s.Notice(t.Context(), pageOf(t, s, "globex", change("006A", "h9"))); err != nil {
				t.Fatal(err)
			}
			if tenant := query[string](t, s, `SELECT tenant FROM receipts`); tenant != "globex" {
				t.Fatalf("the receipt is still %s's", tenant)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, clock := withChannels(t, "ops")
			c.begin(t, s)
			clock.advance(time.Minute)
			if words := toldTo(t, s, ends); !strings.Contains(words, c.told) || strings.Contains(words, c.told+" 0 of") {
				t.Fatalf("told is %q", words)
			}
			c.end(t, s)
			if words := toldTo(t, s, ends); !strings.Contains(words, c.told+" 0 of") || !strings.Contains(words, "over") {
				t.Errorf("after its end it is %q", words)
			}
		})
	}
	t.Run("and begins anew", func(t *testing.T) {
		s, clock := withChannels(t, "ops")
		refused := func() {
			t.Helper()
			if err := s.SetPoll(t.Context(), deal.PollState{Tenant: acme, Err: "refused", Refused: true}); err != nil {
				t.Fatal(err)
			}
			clock.advance(time.Hour)
		}
		refused()
		toldTo(t, s, everything)
		if err := s.KeepTenants(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		refused() // a poll that was still under way
		if err := s.KeepTenants(t.Context(), []deal.TenantID{acme}); err != nil {
			t.Fatal(err)
		}
		want(t, "while it is away", toldTo(t, s, everything), "")
		refused()
		want(t, "a tenant that is back and still refused", toldTo(t, s, everything), "login acme 1 of 1;")
	})
}
