package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

// TestAPersonReleasesADealOnThePage: the audit log says who and why, as after a command.
func TestAPersonReleasesADealOnThePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	d := w.start(t)
	ops := w.control(t, w.stateDir)
	c := w.crms[0]
	record := c.open(sale{nobody: true})
	c.move(record, ruleContract)
	tx := string(awaitHeld(t, ops, record, 1, `"customer"`).Sealing.Tx)
	c.addCustomer(record, hiddenCustomer)
	person := d.logIn(t)
	send := func(path string, form url.Values, site string) *http.Response {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, d.page()+path, strings.NewReader(form.Encode()))
		must(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", site)
		resp, err := person.Do(r)
		must(t, err)
		resp.Body.Close()
		return resp
	}
	form := url.Values{"verb": {"release"}, "why": {"the customer is on the record now"}}
	if resp := send("/deals/"+tx+"/decide", form, "cross-site"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("another site decides: %d", resp.StatusCode)
	}
	if resp := send("/deals/"+tx+"/decide", form, "same-origin"); resp.StatusCode/100 > 3 {
		t.Fatalf("it was not released: %d", resp.StatusCode)
	}
	story := awaitDone(t, ops, record)
	found := false
	for _, line := range story.Trail {
		found = found || line.What == "released" && line.Why == "the customer is on the record now" && line.Who != "" && line.Who != "daemon"
	}
	if !found {
		t.Errorf("the audit log does not say who released it and why: %+v", story.Trail)
	}
	if resp := send("/deals/"+tx+"/decide", form, "same-origin"); resp.StatusCode != http.StatusConflict {
		t.Errorf("a deal that is done is released: %d", resp.StatusCode)
	}
	if _, stderr, code := w.run(t, "admin", "login", "--role", "emperor"); code != exitFailed || !strings.Contains(stderr, "auditor") {
		t.Errorf("a role that there is not: exit code %d, %s", code, stderr)
	}
	if stdout, stderr, code := w.run(t, "admin", "login", "--role", "viewer"); code != exitOK || !strings.Contains(stdout, "/login?token=") {
		t.Errorf("%s%s", stdout, stderr)
	}
	d.stop(t)
}
