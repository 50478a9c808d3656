package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/web/api"
)

// askedPoints are where it matters what becomes of whom: a program that has asked for a contract, and a workflow that stands
// still until its deal is sealed. Both hear nothing, and ask again.
var askedPoints = struct{ program, workflow []string }{
	program: []string{"commit/request"},
	workflow: []string{"commit/receive", "commit/callback-looked", "commit/callback-begin",
		"http/contoso/POST /automation/actions/callbacks/2026-03/{id}/complete", "commit/callback-end"},
}

// asking is a world of both, before and after each death of the daemon.
type asking struct {
	*stage
	portal     *hubspot.Portal
	definition []byte // of the workflow's action
	secret     string // of the app
	erp        program
	told       *receiver
}

// asked kills the daemon at each of those points, once before and once after.
func asked(t *testing.T, binary string) {
	a := newAsking(t, binary)
	for _, when := range []string{"before", "after"} {
		for _, p := range askedPoints.program {
			a.program(t, pointOf(p, when))
		}
		for _, p := range askedPoints.workflow {
			a.workflow(t, pointOf(p, when))
		}
	}
}

// pointOf names a moment at a point of the store, or of an HTTP call.
func pointOf(p, when string) string {
	if strings.HasPrefix(p, "http/") {
		return p + "/" + when
	}
	return p + ":" + when
}

func newAsking(t *testing.T, binary string) *asking {
	t.Helper()
	a := &asking{secret: rand.Text(), told: newReceiver(t, nil)}
	hook := filepath.Join(t.TempDir(), "hook")
	must(t, os.WriteFile(hook, []byte(standardSecret), 0o600))
	w := newWorld(t, worldOptions{
		// Polls that come faster than what pushes name is looked at would leave it no time.
		tenants: []tenantOptions{{id: "contoso", kind: deal.HubSpot, poll: rarely, push: func(w *world) string {
			return fmt.Sprintf("  - {source: hubspot-action, secrets: [%q], block: 48h}\n", w.secretFile("app", a.secret))
		}}},
		binary: binary, house: "api: {listen: \"127.0.0.1:0\"}\n",
		webhooks: fmt.Sprintf("webhooks:\n  - {id: calls, url: %q, secret: %q, callbacks: true, events: [envelope.completed]}\n", a.told.URL+"/calls", "file:"+hook),
	})
	w.logEverything()
	a.stage = w.begin(t)
	a.awaitPolled(t) // from then on the rules are watched
	a.portal = w.crms[0].(*hubspotCRM).portal
	project := w.path("project")
	a.mustRun(t, "provision", "--tenant", "contoso", "--project", project)
	var err error
	a.definition, err = os.ReadFile(filepath.Join(project, "src/app/workflow-actions/dealseal-wait-hsmeta.json"))
	must(t, err)
	a.erp = a.letIn(t, "erp", "--role", "operator", "--tenant", "contoso")
	a.daemon.kill()
	return a
}

// dies starts a daemon that dies at a point, and has something done to it that leads there.
func (a *asking) dies(t *testing.T, point string, do func()) {
	t.Helper()
	a.daemon = a.start(t, "DEALSEAL_CRASH_AT="+point)
	do()
	select {
	case <-a.daemon.ended:
	case <-time.After(patience):
		a.daemon.kill()
		t.Fatalf("point %s was never reached:\n%s", point, tail(a.daemon.log()))
	}
	mustBeKilled(t, point, a.daemon.cmd, a.daemon.log)
	a.daemon = a.start(t)
	a.ops = a.control(t, a.stateDir)
}

// program has one ask for a contract of a deal in no stage, and ask again when it has heard nothing.
func (a *asking) program(t *testing.T, point string) {
	t.Helper()
	record := a.crms[0].open(sale{quote: quotation(1)})
	path := "/calls/done?at=" + record
	body := fmt.Sprintf(`{"rule":%q,"record_id":%q,"callback_url":%q}`, ruleMemo, record, a.told.URL+path)
	a.erp.key = "the memo of " + record
	a.dies(t, point, func() {
		a.erp.base = a.daemon.programs(t)
		if status, err := a.erp.tries(t, body); err == nil {
			t.Errorf("%s: a daemon that was killed has answered %d", point, status)
		}
	})
	a.erp.base = a.daemon.programs(t)
	var first, again api.Signature
	must(t, json.Unmarshal(a.erp.asks(202, "POST", "/v1/signatures", body), &first))
	must(t, json.Unmarshal(a.erp.asks(202, "POST", "/v1/signatures", body), &again))
	a.isSealedOnce(t, point, record)
	if tx := string(sealings(t, a.ops, record)[0].Tx); first.ID != again.ID || first.ID != "sig_"+tx {
		t.Errorf("%s: the contract is called %s and %s, and is %s", point, first.ID, again.ID, tx)
	}
	judge, err := standardwebhooks.NewWebhook(standardSecret)
	must(t, err)
	eventually(t, "whoever asked is called back", func() (bool, string) {
		for _, d := range a.told.seen() {
			if d.at == path {
				return judge.Verify(d.body, d.header) == nil, string(d.body)
			}
		}
		return false, tail(a.daemon.log())
	})
	a.daemon.kill()
}

// tries asks a daemon that may not live to answer.
func (p program) tries(t *testing.T, body string) (status int, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+"/v1/signatures", strings.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", p.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// workflow has one stand still until a deal is sealed, and call again when it was not answered.
func (a *asking) workflow(t *testing.T, point string) {
	t.Helper()
	record := a.crms[0].open(sale{quote: quotation(1)})
	var callback string
	a.dies(t, point, func() {
		a.define(t)
		a.crms[0].move(record, ruleMemo)
		callback = a.portal.Enrol(t.Context(), record, ruleMemo)
	})
	a.define(t)
	if a.portal.Execution(callback).State == "" { // it has heard nothing
		a.portal.CallAgain(t.Context(), callback)
	}
	a.isSealedOnce(t, point, record)
	eventually(t, "the workflow goes on", func() (bool, string) {
		e := a.portal.Execution(callback)
		return e.State != "" && e.State != "BLOCK", fmt.Sprintf("%+v\n%s", e, tail(a.daemon.log()))
	})
	tx := string(sealings(t, a.ops, record)[0].Tx)
	eventually(t, "the daemon knows that the workflow goes on", func() (bool, string) {
		out := a.mustRun(t, "explain", tx)
		return strings.Contains(out, callback+" was told: signed"), out
	})
	if e := a.portal.Execution(callback); e.State != "SUCCESS" || e.Told != 1 || e.Output["dealseal_outcome"] != "signed" || e.Output["dealseal_transaction_id"] != tx {
		t.Errorf("%s: the workflow was told %+v, want once that %s is signed", point, e, tx)
	}
	a.daemon.kill()
}

// define has the action's calls come to the daemon that runs.
func (a *asking) define(t *testing.T) {
	t.Helper()
	must(t, a.portal.DefineAction(a.definition, hubspot.WorkflowAction{Secret: a.secret, Client: a.daemon.sender(t)}))
}

// isSealedOnce waits until a record's only deal is done.
func (a *asking) isSealedOnce(t *testing.T, point, record string) {
	t.Helper()
	awaitDone(t, a.ops, record)
	if n, deals := contracts(a.crms[0], record), len(sealings(t, a.ops, record)); n != 1 || deals != 1 {
		t.Errorf("%s: %d contracts and %d deals of one record", point, n, deals)
	}
}
