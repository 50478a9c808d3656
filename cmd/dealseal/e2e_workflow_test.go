package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
)

// TestAWorkflowStandsStillUntilTheContractIsSealed is about HubSpot's custom workflow action, as the project files define it: it
// is answered to block, and told once what has become of the deal, whatever is lost, doubled or killed in between.
func TestAWorkflowStandsStillUntilTheContractIsSealed(t *testing.T) {
	t.Parallel()
	secret := rand.Text()
	s := newPushWorld(t, tenantOptions{id: "contoso", kind: deal.HubSpot, push: func(w *world) string {
		return fmt.Sprintf("  - {source: hubspot-action, secrets: [%q], block: 48h}\n", w.secretFile("app", secret))
	}}).begin(t)
	c := s.crms[0].(*hubspotCRM)
	project := s.path("project")
	s.mustRun(t, "provision", "--tenant", "contoso", "--project", project)
	definition, err := os.ReadFile(filepath.Join(project, "src/app/workflow-actions/dealseal-wait-hsmeta.json"))
	must(t, err)
	app, err := os.ReadFile(filepath.Join(project, "src/app/app-hsmeta.json"))
	must(t, err)
	if !strings.Contains(string(app), `"automation"`) {
		t.Errorf("the app has not the scope for finishing actions:\n%s", app)
	}
	s.awaitPolled(t)
	must(t, c.portal.DefineAction(definition, hubspot.WorkflowAction{Secret: secret, Client: s.daemon.sender(t)}))
	enrol := func(record, rule string) (callback string) {
		t.Helper()
		callback = c.portal.Enrol(t.Context(), record, rule)
		e := c.portal.Execution(callback)
		if e.Answered != "BLOCK" || e.Block != "PT48H" {
			t.Fatalf("the action was answered %d: %+v", e.Status, e)
		}
		return callback
	}
	transaction := func(record string) string { return string(sealings(t, s.ops, record)[0].Tx) }
	ends := func(callback, state, outcome, tx string) {
		t.Helper()
		eventually(t, "the workflow "+callback+" goes on", func() (bool, string) {
			e := c.portal.Execution(callback)
			return e.State != "BLOCK", fmt.Sprintf("%+v\n%s", e, tail(s.daemon.log()))
		})
		e := c.portal.Execution(callback)
		if e.State != state || e.Output["dealseal_outcome"] != outcome || e.Output["dealseal_transaction_id"] != tx || e.Told != 1 {
			t.Errorf("the workflow was told %+v, want %s, %s of transaction %s, once", e, state, outcome, tx)
		}
	}

	// The call comes before anything else does, twice; the answer to the first telling is lost although it was carried out.
	_, err = c.portal.SetFault(hubspot.Fault{Kind: hubspot.KindComplete, Effect: hubspot.EffectResetCommitted, Times: 1})
	must(t, err)
	record := c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	callback := enrol(record, ruleMemo)
	c.portal.CallAgain(t.Context(), callback)
	awaitDone(t, s.ops, record)
	ends(callback, "SUCCESS", "signed", transaction(record))

	// A deal that no rule watches, and a rule that has made nothing of a deal.
	ends(enrol(c.open(sale{}), ""), "FAIL_CONTINUE", "nothing", "")
	ends(enrol(record, ruleContract), "FAIL_CONTINUE", "nothing", "")

	// It comes after the contract is there.
	ends(enrol(record, ""), "SUCCESS", "signed", transaction(record))

	// The daemon is killed while a deal is held, and once more while HubSpot is being told.
	held := c.open(sale{}) // without the file that the rule seals
	c.move(held, ruleMemo)
	waits := enrol(held, "")
	eventually(t, "the deal is held", func() (bool, string) {
		list := sealings(t, s.ops, held)
		return len(list) == 1 && list[0].Condition == deal.Held, fmt.Sprint(list)
	})
	eventually(t, "the page shows the workflow", func() (bool, string) {
		page := s.daemon.see(t, "/")
		return strings.Contains(page, "1 workflow waits"), page
	})
	s.daemon.kill()
	restart := func() {
		t.Helper()
		s.daemon = s.start(t)
		s.ops = s.control(t, s.stateDir)
	}
	restart()
	tx := sealings(t, s.ops, held)[0].Tx
	if out := s.mustRun(t, "explain", string(tx)); !strings.Contains(out, waits) {
		t.Errorf("explain does not say that a workflow waits:\n%s", out)
	}
	if e := c.portal.Execution(waits); e.State != "BLOCK" {
		t.Errorf("a workflow whose deal is held was told %+v", e)
	}
	s.at(0, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/complete") }, s.daemon.kill)
	s.mustRun(t, "jobs", "drop", string(tx), "--why", "a test")
	within := time.NewTimer(patience)
	defer within.Stop()
	select {
	case <-s.daemon.ended:
	case <-within.C:
		t.Fatal("the workflow of a deal that was dropped is not told so")
	}
	restart()
	eventually(t, "the daemon knows that the workflow was told", func() (bool, string) {
		out := s.mustRun(t, "explain", string(tx))
		return strings.Contains(out, waits+" was told: action_required"), out
	})
	ends(waits, "FAIL_CONTINUE", "action_required", string(tx))

	eventually(t, "the ages of secrets are told", func() (bool, string) {
		text := s.daemon.get(t, "/metrics")
		return strings.Contains(text, `dealseal_secret_age_seconds{secret="push.0.secrets.0",tenant="contoso"}`) && strings.Contains(text, `{secret="crm.with.auth.token",tenant="contoso"}`), text
	})

	// Nobody else makes a workflow wait, and what is no deal is refused.
	must(t, c.portal.DefineAction(definition, hubspot.WorkflowAction{Secret: "another", Client: s.daemon.sender(t)}))
	if e := c.portal.Execution(c.portal.Enrol(t.Context(), record, "")); e.State != "FAILED" || e.Status != http.StatusUnauthorized {
		t.Errorf("another's signature was answered %+v", e)
	}
	must(t, c.portal.DefineAction(definition, hubspot.WorkflowAction{Secret: secret, Client: s.daemon.sender(t)}))
	if e := c.portal.Execution(c.portal.Enrol(t.Context(), record, "no rule")); e.State != "FAILED" || e.Status != http.StatusBadRequest {
		t.Errorf("what is no rule's id was answered %+v", e)
	}
	s.daemon.stop(t)
	rows, err := s.openState(t).Pushes(t.Context(), 100)
	must(t, err)
	verdicts := map[deal.PushVerdict]int{}
	for _, p := range rows {
		if p.Source == "hubspot-action" {
			verdicts[p.Verdict] += p.N
		}
	}
	if verdicts[deal.PushTaken] != 5 || verdicts[deal.PushRepeated] != 1 || verdicts["refused: forged"] != 1 {
		t.Errorf("the log of pushes has %v", verdicts)
	}
}
