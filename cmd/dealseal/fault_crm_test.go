package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
)

// ailment is one way in which a CRM fails, as each of them does it; says are words that an operator must read then.
type ailment struct {
	id   string
	keys string // further ones of crm.with

	salesforce salesforce.Fault
	says       []string

	hubspot  hubspot.Fault
	saysHere []string // of HubSpot; as says when nil
}

// tooLong is longer than what the ailing tenants wait for an answer.
const tooLong = 1500 * time.Millisecond

var ailments = []ailment{
	{id: "session-over", salesforce: salesforce.Fault{Effect: salesforce.SessionInvalid}, says: []string{"INVALID_SESSION_ID", "check "},
		hubspot: hubspot.Fault{Effect: hubspot.EffectUnauthorized}, saysHere: []string{"HTTP 401", "expired"}},
	{id: "allowance-used", salesforce: salesforce.Fault{Effect: salesforce.RequestLimit}, says: []string{"HTTP 403", "REQUEST_LIMIT_EXCEEDED", "allowance of API calls is used up"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectDailyLimit}, saysHere: []string{"HTTP 429", "calls of the day are used up"}},
	{id: "too-many", salesforce: salesforce.Fault{Effect: salesforce.APIError, Status: 429, Code: "TOO_MANY"}, says: []string{"HTTP 429", "too many calls"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectSecondLimit}, saysHere: []string{"HTTP 429", "within a second"}},
	{id: "come-again", salesforce: salesforce.Fault{Effect: salesforce.APIError, Status: 429, Code: "TOO_MANY", RetryAfter: 7 * time.Second}, says: []string{"HTTP 429", "too many calls"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectTenSecondLimit, RetryAfter: 7 * time.Second}, saysHere: []string{"HTTP 429", "within ten seconds"}},
	{id: "web-page", salesforce: salesforce.Fault{Effect: salesforce.HTMLUnavailable}, says: []string{"HTTP 503", "not available"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectBadGateway}, saysHere: []string{"HTTP 502", "not available"}},
	{id: "cut-before", salesforce: salesforce.Fault{Effect: salesforce.CutBefore}, says: []string{"no answer", "broke off"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectReset}},
	{id: "cut-during", salesforce: salesforce.Fault{Effect: salesforce.CutDuring}, says: []string{"broke off|no answer to a login"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectResetDuring}},
	{id: "half-json", salesforce: salesforce.Fault{Effect: salesforce.TruncatedJSON}, says: []string{"the reply |cut on its way"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectTruncated}},
	{id: "too-slow", keys: ", timeout: 900ms, transfer_timeout: 900ms", salesforce: salesforce.Fault{Effect: salesforce.Slow, Delay: tooLong}, says: []string{"took longer|in time"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectSlow, Delay: tooLong}},
	{id: "reply-lost", salesforce: salesforce.Fault{Effect: salesforce.CutAfter}, says: []string{"no answer", "broke off"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectResetCommitted}},
	{id: "refused-after", salesforce: salesforce.Fault{Effect: salesforce.UnavailableAfter}, says: []string{"HTTP 503", "not available"},
		hubspot: hubspot.Fault{Effect: hubspot.EffectTimeoutCommitted}, saysHere: []string{"HTTP 504", "not available"}},
	{id: "moving", hubspot: hubspot.Fault{Effect: hubspot.EffectMigrating, RetryAfter: time.Second}, saysHere: []string{"HTTP 477", "another data centre"}},
}

// place is a call that the flow makes.
type place struct {
	name string
	kind string
	path string
	// times is how often the call fails, 1 when 0: more where the receipt "queued" may meet the trouble before the deal does.
	times int
	// skip is how many such calls are let pass before: of a poll.
	skip int
	// spared says that the call is not made when the one before it failed after its work was done, or not by each daemon.
	spared bool
}

// The calls before a deal is known, in the order in which a daemon that starts makes them, and those for a deal.
var (
	salesforcePolls = []place{
		{name: "login", kind: string(salesforce.KindToken)},
		{name: "identity", kind: string(salesforce.KindQuery), path: "FROM Organization"},
		{name: "probe", kind: string(salesforce.KindDescribe)},
		{name: "changes", kind: string(salesforce.KindQuery), path: "FROM OpportunityHistory WHERE"},
	}
	salesforceDeals = []place{
		{name: "record", kind: string(salesforce.KindQuery), path: "FROM Opportunity WHERE Id"},
		{name: "files", kind: string(salesforce.KindQuery), path: "FROM ContentDocumentLink"},
		{name: "download", kind: string(salesforce.KindDownload)},
		{name: "upload", kind: string(salesforce.KindUpload)},
		{name: "read back", kind: string(salesforce.KindQuery), path: "FROM ContentVersion WHERE Id", spared: true},
		{name: "look at the fields", kind: string(salesforce.KindGet), times: 2, spared: true}, // unless the record was read a moment ago
		{name: "write-back", kind: string(salesforce.KindUpdate), times: 2},
	}
	hubspotPolls = []place{
		{name: "login", kind: string(hubspot.KindToken)},
		{name: "identity", kind: string(hubspot.KindAccount)},
		{name: "probe", kind: string(hubspot.KindProperties)},
		{name: "changes", kind: string(hubspot.KindSearch)},
		{name: "histories", kind: string(hubspot.KindBatchRead), path: "/deals/"},
	}
	hubspotDeals = []place{
		{name: "record", kind: string(hubspot.KindGet), path: "/deals/", times: 3, skip: 1}, // a poll reads it first, for the flow, too
		{name: "notes", kind: string(hubspot.KindBatchRead), path: "/notes/"},
		{name: "file", kind: string(hubspot.KindFileGet)},
		{name: "signed URL", kind: string(hubspot.KindSignedURL)},
		{name: "look for the file", kind: string(hubspot.KindFileStat), spared: true}, // of bytes that may have been sent before
		{name: "upload", kind: string(hubspot.KindUpload)},
		{name: "note", kind: string(hubspot.KindNote)},
		{name: "write-back", kind: string(hubspot.KindPatch), times: 2},
	}
)

// ailing is a tenant whose CRM fails in one way.
type ailing struct {
	crm
	ailment
}

func (c ailing) polls() []place {
	if c.kind() == deal.HubSpot {
		return hubspotPolls
	}
	return salesforcePolls
}

func (c ailing) deals() []place {
	if c.kind() == deal.HubSpot {
		return hubspotDeals
	}
	return salesforceDeals
}

// words are what the operator must read.
func (c ailing) words() []string {
	if c.kind() == deal.HubSpot && c.saysHere != nil {
		return c.saysHere
	}
	return c.says
}

// arm makes a call fail so many times, 0 for ever.
func (c ailing) arm(t *testing.T, p place, times int) {
	t.Helper()
	switch crm := c.crm.(type) {
	case *salesforceCRM:
		f := c.salesforce
		f.Kind, f.Path, f.Times, f.Skip = salesforce.Kind(p.kind), p.path, times, p.skip
		crm.fault(f)
	case *hubspotCRM:
		f := c.hubspot
		f.Kind, f.Path, f.Times, f.Skip = hubspot.Kind(p.kind), p.path, times, p.skip
		crm.fault(f)
	}
}

// unmet lists the calls that have never failed although they should.
func (c ailing) unmet() (list []string) {
	left := map[string]int{} // by kind and path
	switch crm := c.crm.(type) {
	case *salesforceCRM:
		for _, f := range crm.org.Faults() {
			left[string(f.Kind)+f.Path] = f.Times
		}
	case *hubspotCRM:
		for _, f := range crm.portal.Faults() {
			left[string(f.Kind)+f.Path] = f.Times - f.Used
		}
	}
	for _, p := range c.deals() {
		if left[p.kind+p.path] == max(1, p.times) && !p.spared {
			list = append(list, p.name)
		}
	}
	return list
}

// TestEveryTroubleOfACRMIsSeenAndThenOver lets every kind of call fail in every way, in both CRMs: first those before a
// deal is known, with the daemon started anew for each, then those for a deal, once or twice each.
func TestEveryTroubleOfACRMIsSeenAndThenOver(t *testing.T) {
	t.Parallel()
	var o worldOptions
	var list []ailing
	for _, x := range ailments {
		if x.salesforce.Effect != "" {
			o.tenants = append(o.tenants, tenantOptions{id: "sf-" + x.id, kind: deal.Salesforce, poll: "1s", with: x.keys})
			list = append(list, ailing{ailment: x})
		}
		o.tenants = append(o.tenants, tenantOptions{id: "hs-" + x.id, kind: deal.HubSpot, poll: "1s", with: x.keys, oauth: true})
		list = append(list, ailing{ailment: x})
	}
	o.attempts = 40
	w := newWorld(t, o)
	early := map[string]string{}
	for i, c := range w.crms {
		list[i].crm = c
		early[c.tenant()] = c.open(sale{quote: quotation(1)})
		c.move(early[c.tenant()], ruleMemo)
	}
	reasons := &reasons{}
	for i := range max(len(salesforcePolls), len(hubspotPolls)) {
		w.cannotPoll(t, list, i, reasons)
	}
	d := w.start(t)
	ops := w.control(t, w.stateDir)
	records := map[string]string{}
	for _, c := range list {
		awaitDone(t, ofTenant{ops, c.tenant()}, early[c.tenant()]) // what came while nothing could be asked is not lost
		for _, p := range c.deals() {
			c.arm(t, p, max(1, p.times))
		}
		records[c.tenant()] = c.open(sale{quote: quotation(1)})
		c.move(records[c.tenant()], ruleMemo)
	}
	for _, c := range list {
		through(t, ofTenant{ops, c.tenant()}, records[c.tenant()])
		if left := c.unmet(); len(left) > 0 {
			t.Errorf("%s: never failed: %s", c.tenant(), left)
		}
		c.heal()
		mustShow(t, c, records[c.tenant()], deal.StatusSigned)
	}
	auditIsWhole(t, ops, nil)
	d.stop(t)
	state := w.openState(t)
	for _, c := range list {
		r := records[c.tenant()]
		out := w.outcomeOf(t, state, c, r)
		if out.Status != "Signed" || out.Digests != 1 || out.Level != "B-T" {
			t.Errorf("%s: %+v", c.tenant(), out)
		}
		past := ofTenant{&local{Store: state}, c.tenant()}
		reasons.ofDeal(c.tenant(), storyOf(t, past, sealings(t, past, r)[0].Tx), c.words())
	}
	reasons.judge(t)
}

// cannotPoll lets the i-th call of each tenant fail for as long as a daemon runs.
func (w *world) cannotPoll(t *testing.T, list []ailing, i int, seen *reasons) {
	t.Helper()
	for _, c := range list {
		if i < len(c.polls()) {
			c.arm(t, c.polls()[i], 0)
		}
	}
	before := len(w.daemonLog(t))
	d := w.start(t)
	for _, c := range list {
		if i >= len(c.polls()) {
			continue
		}
		name := c.tenant() + ", " + c.polls()[i].name
		var reason string
		eventually(t, name+": the log says why the CRM is not read", func() (bool, string) {
			reason = pollTrouble(w.daemonLog(t)[before:], c.tenant())
			return reason != "", "nothing"
		})
		seen.add(name, reason, c.words())
		eventually(t, name+": the page says so too", func() (bool, string) {
			// The next poll may have failed meanwhile, with another correlation ID, or a little sooner or later in the same call.
			said, _, _ := strings.Cut(pollTrouble(w.daemonLog(t)[before:], c.tenant()), " [correlation ID")
			page := html.UnescapeString(d.see(t, "/"))
			return strings.Contains(page, said[:min(len(said), 280)]) && strings.Contains(page, "not being read"), page
		})
		if metrics := d.get(t, "/metrics"); !strings.Contains(metrics, "dealseal_poll_age_seconds{tenant="+strconv.Quote(c.tenant())+"}") {
			t.Errorf("%s: the metrics do not say how old the last poll is", name)
		}
	}
	d.stop(t)
	for _, c := range list {
		c.heal()
	}
}

func (w *world) daemonLog(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(w.path("daemon.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	must(t, err)
	return string(b)
}

var quotedError = regexp.MustCompile(` err=("(?:[^"\\]|\\.)*")`)

// pollTrouble is why a tenant is not polled, as the log says it last.
func pollTrouble(log, tenant string) (reason string) {
	for line := range strings.Lines(log) {
		m := quotedError.FindStringSubmatch(line)
		if m != nil && strings.Contains(line, `msg="polling fails"`) && slices.Contains(strings.Fields(line), "tenant="+tenant) {
			reason, _ = strconv.Unquote(m[1])
		}
	}
	return reason
}

// through waits until a deal is done, as an operator does who does not want to wait long for the next attempt.
func through(t *testing.T, ops operations, record string) {
	t.Helper()
	eventually(t, record+" is done", func() (bool, string) {
		list := sealings(t, ops, record)
		if len(list) == 0 {
			return false, "not noticed"
		}
		m := list[0]
		late := strings.Contains(m.Reason, "it may still be carried out") // who does not wait for that may have it twice
		if m.Condition == deal.Retrying && time.Until(m.Next) > 2*time.Second && !late {
			_ = ops.Decide(context.Background(), decision{Verb: "retry", Tx: m.Tx, Why: "it is over"}) // refused when it goes on by itself
		}
		return m.Step == deal.Done, fmt.Sprintf("%s, %s: %s", m.Step, m.Condition, m.Reason)
	})
}
