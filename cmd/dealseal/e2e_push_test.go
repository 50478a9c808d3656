package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
	secrets "github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

// senderURL is the address that senders are told, and that HubSpot signs.
const senderURL = "https://seal.example"

// public is the part of listen that pushes need, if any tenant has them.
func (w *world) public() string {
	for _, c := range w.crms {
		if c.options().push != nil {
			return fmt.Sprintf(", public: \"127.0.0.1:0\", url: %q", senderURL)
		}
	}
	return ""
}

// rarely is a poll interval that no test lives to see.
const rarely = "1h"

// newPushWorld is one whose tenants are pushed and hardly polled.
func newPushWorld(t *testing.T, tenants ...tenantOptions) *world {
	t.Helper()
	for i := range tenants {
		tenants[i].poll = rarely
	}
	w := newWorld(t, worldOptions{tenants: tenants})
	w.logEverything()
	return w
}

var answersAt = regexp.MustCompile(`msg="senders are answered" address=(\S+)`)

// sender is a client of the daemon's public listener, whatever host it is told to post to.
func (d *process) sender(t *testing.T) *http.Client {
	t.Helper()
	at := ""
	eventually(t, "the daemon says where it answers senders", func() (bool, string) {
		found := answersAt.FindAllStringSubmatch(d.log(), -1)
		if len(found) > 0 {
			at = found[len(found)-1][1]
		}
		return at != "", d.log()
	})
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}
	transport := &http.Transport{DialContext: dial, DialTLSContext: dial} // as if a proxy had taken off the TLS
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// awaitPolled waits for the first poll: what happens before it would be found without a push.
func (s *stage) awaitPolled(t *testing.T) {
	t.Helper()
	eventually(t, "each CRM was polled", func() (bool, string) {
		log := s.daemon.log()
		for _, c := range s.crms {
			if !slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
				return strings.Contains(line, "msg=polled ") && slices.Contains(strings.Fields(line), "tenant="+c.tenant())
			}) {
				return false, log
			}
		}
		return true, ""
	})
}

// TestAWebhookSealsADealThatNoPollWouldHaveFound is about HubSpot's own webhooks, with an index that shows nothing.
func TestAWebhookSealsADealThatNoPollWouldHaveFound(t *testing.T) {
	t.Parallel()
	secret := rand.Text()
	s := newPushWorld(t, tenantOptions{id: "contoso", kind: deal.HubSpot, push: func(w *world) string {
		return fmt.Sprintf("  - {source: hubspot, secrets: [%q, %q]}\n", w.secretFile("app-old", rand.Text()), w.secretFile("app", secret))
	}}).begin(t)
	c := s.crms[0].(*hubspotCRM)
	s.awaitPolled(t)
	client := s.daemon.sender(t)
	target := senderURL + "/webhooks/contoso/hubspot"
	must(t, c.portal.SetWebhooks(hubspot.Webhooks{TargetURL: target, Secret: secret, Double: true, Client: client}))
	ctx, cancel := context.WithCancel(t.Context())
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		c.portal.Deliver(ctx)
	}()
	c.portal.SetIndexDelay(hubspot.Delay{Min: time.Hour, Max: time.Hour})
	record := c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	mustUseTheKey(t, awaitDone(t, s.ops, record), 1)
	mustShow(t, c, record, deal.StatusSigned)
	mustBear(t, c, record, 1)
	eventually(t, "both deliveries of the move were answered", func() (bool, string) {
		moves := 0
		for _, d := range c.portal.Deliveries() {
			if strings.Contains(string(d.Body), "dealstage") {
				moves++
			}
		}
		return moves >= 2, fmt.Sprint(moves)
	})
	cancel()
	<-delivered

	for _, d := range c.portal.Deliveries() {
		if d.Status != http.StatusOK {
			t.Errorf("HubSpot was answered %d", d.Status)
		}
	}
	post := func(change func(*http.Request), body []byte, at time.Time) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(string(body)))
		must(t, err)
		hubspot.Sign(r, target, secret, body, at)
		if change != nil {
			change(r)
		}
		resp, err := client.Do(r)
		must(t, err)
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || len(text) > 0 {
			t.Errorf("the answer says %q (%v)", text, err)
		}
		return resp.StatusCode
	}
	at, ignored := time.Now(), []byte(`[{"subscriptionType":"contact.privacyDeletion","objectId":7,"portalId":62515}]`)
	for _, step := range []struct {
		what   string
		change func(*http.Request)
		body   []byte
		at     time.Time
		want   int
	}{
		{"an event that is nobody's concern", nil, ignored, at, http.StatusOK},
		{"the very same once more", nil, ignored, at, http.StatusUnauthorized},
		{"the same, signed anew", nil, ignored, at.Add(time.Second), http.StatusOK},
		{"another's signature", func(r *http.Request) {
			r.Header.Set("X-HubSpot-Signature-v3", "7FO8UcQn8Djidxx4PrrK+2Dn8R1umeMgkVINDkFbo9U=")
		}, ignored, at.Add(2 * time.Second), http.StatusUnauthorized},
		{"no signature", func(r *http.Request) { r.Header.Del("X-HubSpot-Signature-v3") }, ignored, at, http.StatusUnauthorized},
		{"too old", nil, ignored, at.Add(-10 * time.Minute), http.StatusBadRequest},
		{"no list", nil, []byte(`{"objectId":7}`), at, http.StatusBadRequest},
		{"too large", nil, make([]byte, jsonBody+1), at, http.StatusRequestEntityTooLarge},
	} {
		if got := post(step.change, step.body, step.at); got != step.want {
			t.Errorf("%s: answered %d, want %d", step.what, got, step.want)
		}
	}
	for path, want := range map[string]int{"/": http.StatusNotFound, "/metrics": http.StatusNotFound, "/webhooks/acme/hubspot": http.StatusNotFound, "/webhooks/contoso/opportunity": http.StatusNotFound, "/webhooks/contoso/hubspot": http.StatusMethodNotAllowed} {
		resp, err := client.Get(senderURL + path)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	if n := len(sealings(t, s.ops, record)); n != 1 {
		t.Errorf("%d sealings of one entry", n)
	}
	s.daemon.stop(t)

	state := s.openState(t)
	rows, err := state.Pushes(t.Context(), 100)
	must(t, err)
	verdicts := map[deal.PushVerdict]int{}
	for _, p := range rows {
		verdicts[p.Verdict] += p.N
	}
	for _, want := range []deal.PushVerdict{deal.PushTaken, deal.PushIgnored, deal.PushRepeated, deal.PushReplayed, "refused: forged", "refused: unsigned", "refused: stale", "refused: malformed"} {
		if verdicts[want] == 0 {
			t.Errorf("the log of pushes has nothing that was %s: %v", want, verdicts)
		}
	}
	log := s.daemon.log()
	for _, hidden := range append(s.secrets, "privacyDeletion", "7FO8UcQn8D") {
		if strings.Contains(log, hidden) {
			t.Errorf("the log holds %.10q…", hidden)
		}
	}
}

// TestAnOutboundMessageAndASignedRequestSealDealsOfSalesforce posts what Salesforce would, and what the first description of
// such a service asked for.
func TestAnOutboundMessageAndASignedRequestSealDealsOfSalesforce(t *testing.T) {
	t.Parallel()
	secret := rand.Text()
	s := newPushWorld(t, tenantOptions{id: "acme", kind: deal.Salesforce, push: func(w *world) string {
		return fmt.Sprintf("  - {source: salesforce-outbound, addresses: [127.0.0.1/32]}\n  - {source: opportunity, secrets: [%q]}\n", w.secretFile("opportunity", secret))
	}}).begin(t)
	c := s.crms[0].(*salesforceCRM)
	s.awaitPolled(t)
	client := s.daemon.sender(t)
	post := func(path, body string, header http.Header) (status int, answer string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, senderURL+path, strings.NewReader(body))
		must(t, err)
		for name, values := range header {
			r.Header[name] = values
		}
		resp, err := client.Do(r)
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(text)
	}
	enter := func() string {
		record := c.open(sale{quote: quotation(1)})
		c.move(record, ruleMemo)
		return record
	}
	message := func(org, record string) string {
		return `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>` +
			`<notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>` + org + `</OrganizationId><ActionId>04k000000000001AAA</ActionId><SessionId xsi:nil="true"/>` +
			`<Notification><Id>04l000000000001AAA</Id><sObject xsi:type="sf:Opportunity" xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>` + record + `</sf:Id></sObject></Notification>` +
			`</notifications></soapenv:Body></soapenv:Envelope>`
	}
	first := enter()
	if status, _ := post("/webhooks/acme/salesforce-outbound", message("00D000000000009EAA", first), nil); status != http.StatusUnauthorized {
		t.Errorf("another org's message is answered %d", status)
	}
	if status, answer := post("/webhooks/acme/salesforce-outbound", message(c.org.ID(), first), nil); status != http.StatusOK || !strings.Contains(answer, "<Ack>true</Ack>") {
		t.Errorf("an Outbound Message is answered %d %q", status, answer)
	}
	mustUseTheKey(t, awaitDone(t, s.ops, first), 1)

	second := enter()
	body := fmt.Sprintf(`{"opportunityId":%q,"data":{"amount":7}}`, second)
	header := http.Header{}
	must(t, webhooks.Find("x-signature").Sign(webhooks.Request{Header: header, Body: []byte(body)}, "", time.Now(), secrets.New([]byte(secret))))
	if status, answer := post(sharedPath, body, header); status != http.StatusOK || answer != `{"success":true}` {
		t.Errorf("a signed request is answered %d %q", status, answer)
	}
	mustUseTheKey(t, awaitDone(t, s.ops, second), 1)
	if status, answer := post(sharedPath, body+" ", header); status != http.StatusUnauthorized || answer != "" {
		t.Errorf("a request with another body is answered %d %q", status, answer)
	}
	mustBear(t, c, first, 1)
	mustBear(t, c, second, 1)
	s.daemon.stop(t)
	if strings.Contains(s.daemon.log(), secret) {
		t.Error("the log holds the secret")
	}
}

// TestChangeDataCaptureSealsADealThatNoPollWouldHaveFound is about what Salesforce tells over a connection of ours: no public
// listener, and no poll for an hour.
func TestChangeDataCaptureSealsADealThatNoPollWouldHaveFound(t *testing.T) {
	t.Parallel()
	s := newPushWorld(t, tenantOptions{id: "acme", kind: deal.Salesforce, with: ", change_events: /data/OpportunityChangeEvent"}).begin(t)
	c := s.crms[0].(*salesforceCRM)
	s.awaitPolled(t)
	heard := func(want string) {
		t.Helper()
		eventually(t, "the metrics say "+want, func() (bool, string) {
			text := s.daemon.get(t, "/metrics")
			return strings.Contains(text, want), text
		})
	}
	heard(`dealseal_listening_connected{tenant="acme"} 1`)
	first := c.open(sale{quote: quotation(1)})
	c.move(first, ruleMemo)
	mustUseTheKey(t, awaitDone(t, s.ops, first), 1)
	mustShow(t, c, first, deal.StatusSigned)

	c.org.SpoilEvents(salesforce.EventFaults{Lose: 1})
	second := c.open(sale{quote: quotation(1)}) // nobody is told of the deal, and then of its stage
	c.move(second, ruleMemo)
	mustUseTheKey(t, awaitDone(t, s.ops, second), 1)

	// Cut off, too late to go on there, and with an ended session: it comes back by itself, and a gap is enough.
	c.org.KillSessions()
	c.org.SpoilEvents(salesforce.EventFaults{Cut: true, Expire: true})
	eventually(t, "it is listened to again", func() (bool, string) { return c.org.EventStreams() == 1, s.daemon.log() })
	c.org.SpoilEvents(salesforce.EventFaults{Gap: 1})
	third := c.open(sale{quote: quotation(1)})
	c.move(third, ruleMemo)
	mustUseTheKey(t, awaitDone(t, s.ops, third), 1)
	for _, record := range []string{first, second, third} {
		if n := len(sealings(t, s.ops, record)); n != 1 {
			t.Errorf("%d sealings of one entry", n)
		}
		mustBear(t, c, record, 1)
	}
	s.run(t, "check", "--online")
	s.daemon.stop(t)

	state := s.openState(t)
	rows, err := state.Pushes(t.Context(), 100)
	must(t, err)
	taken := 0
	for _, p := range rows {
		if p.Source == "salesforce-events" && p.Verdict == deal.PushTaken {
			taken += p.N
		}
	}
	if taken < 3 {
		t.Errorf("the log of pushes has %d that were taken: %v", taken, rows)
	}
}

// TestSalesforcesOutboundMessagesSealDeals has the org post them itself, twice each.
func TestSalesforcesOutboundMessagesSealDeals(t *testing.T) {
	t.Parallel()
	s := newPushWorld(t, tenantOptions{id: "acme", kind: deal.Salesforce, push: func(*world) string {
		return "  - {source: salesforce-outbound, addresses: [127.0.0.1/32]}\n"
	}}).begin(t)
	c := s.crms[0].(*salesforceCRM)
	s.awaitPolled(t)
	c.org.SetOutbound(salesforce.Outbound{Endpoint: senderURL + "/webhooks/acme/salesforce-outbound", Stage: c.stage(ruleMemo), Double: true, Client: s.daemon.sender(t)})
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan struct{})
	go func() { defer close(sent); c.org.Send(ctx) }()
	record := c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	mustUseTheKey(t, awaitDone(t, s.ops, record), 1)
	mustShow(t, c, record, deal.StatusSigned)
	eventually(t, "both were posted", func() (bool, string) { return len(c.org.OutboundAttempts()) >= 2, "one was" })
	cancel()
	<-sent
	for _, a := range c.org.OutboundAttempts() {
		if !a.Ack {
			t.Errorf("an attempt was answered %d without an Ack", a.Status)
		}
	}
	if n := len(sealings(t, s.ops, record)); n != 1 {
		t.Errorf("%d sealings of one entry", n)
	}
	s.daemon.stop(t)
	state := s.openState(t)
	rows, err := state.Pushes(t.Context(), 100)
	must(t, err)
	if !slices.ContainsFunc(rows, func(p deal.Push) bool { return p.Verdict == deal.PushRepeated }) {
		t.Errorf("the second message is not known again: %v", rows)
	}
}
