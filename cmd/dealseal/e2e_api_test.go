package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/api"
)

var programsAt = regexp.MustCompile(`msg="programs are answered" address=(\S+)`)

// program is somebody's program that uses the API of a daemon.
type program struct {
	t     *testing.T
	base  string
	token string
	key   string // of what it asks for
}

// programs is where a daemon answers them. The log begins with those before it.
func (d *process) programs(t *testing.T) (base string) {
	t.Helper()
	eventually(t, "the daemon says where it answers programs", func() (bool, string) {
		found := programsAt.FindAllStringSubmatch(d.log(), -1)
		if len(found) > 0 {
			base = "http://" + found[len(found)-1][1]
		}
		return base != "", d.log()
	})
	return base
}

// letIn makes a token for a program.
func (s *stage) letIn(t *testing.T, name string, flags ...string) program {
	t.Helper()
	p := program{t: t, base: s.daemon.programs(t)}
	stdout, stderr, code := s.run(t, append([]string{"tokens", "create", name, "--test", "--why", "a test"}, flags...)...)
	if p.token = strings.TrimSpace(stdout); code != exitOK || !strings.HasPrefix(p.token, "ds_test_") {
		t.Fatalf("tokens create: %d\n%s%s", code, stdout, stderr)
	}
	return p
}

// asks returns the body of an answer with the status that is wanted.
func (p program) asks(want int, method, path, body string) []byte {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, strings.NewReader(body))
	must(p.t, err)
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	if p.key != "" {
		req.Header.Set("Idempotency-Key", p.key)
	}
	resp, err := http.DefaultClient.Do(req)
	must(p.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(p.t, err)
	if resp.StatusCode != want {
		p.t.Fatalf("%s %s: %d\n%.500s", method, path, resp.StatusCode, text)
	}
	return text
}

func TestAProgramReadsDealsFetchesContractsAndDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	text, err := os.ReadFile(w.config)
	must(t, err)
	must(t, os.WriteFile(w.config, append(text, "api: {listen: \"127.0.0.1:0\"}\n"...), 0o600))
	s := w.begin(t)
	reader := s.letIn(t, "erp", "--role", "auditor", "--tenant", "acme")
	w.secrets = append(w.secrets, reader.token)
	c := s.crms[0]
	record := c.open(sale{})
	c.move(record, ruleContract)
	tx := awaitDone(t, s.ops, record).Sealing.Tx

	var found api.Deals
	must(t, json.Unmarshal(reader.asks(200, "GET", "/v1/deals?state=done&q="+record, ""), &found))
	if len(found.Deals) != 1 || found.Deals[0].Tx != tx || found.Deals[0].Status != deal.StatusSigned {
		t.Errorf("the record finds %+v", found)
	}
	var one api.Deal
	must(t, json.Unmarshal(reader.asks(200, "GET", "/v1/deals/"+string(tx), ""), &one))
	if one.Level != "B-T" || one.Contract == nil || one.Certificate == nil || len(one.Documents) == 0 || !one.Told {
		t.Errorf("the deal is %+v", one)
	}
	contract := reader.asks(200, "GET", "/v1/deals/"+string(tx)+"/documents/contract.pdf", "")
	if !slices.ContainsFunc(c.files(record), func(f stored) bool { return bytes.Equal(f.content, contract) }) {
		t.Error("the contract is not the one on the record")
	}
	s.mustJudge(t, "the bundle", reader.asks(200, "POST", "/v1/deals/"+string(tx)+"/evidence", ""), 0)
	must(t, os.WriteFile(w.path("proof.json"), reader.asks(200, "GET", "/v1/deals/"+string(tx)+"/proof", ""), 0o600))
	stdout, stderr, code := s.run(t, "audit", "check", w.path("proof.json"))
	for _, says := range []string{"api:erp (", "downloaded", "contract.pdf"} {
		if code != exitOK || !strings.Contains(stdout, says) {
			t.Errorf("audit check: %d, without %q\n%s%s", code, says, stdout, stderr)
		}
	}
	reader.asks(403, "POST", "/v1/deals/"+string(tx)+"/retry", because)
	if stdout, _, _ := s.run(t, "tokens"); !strings.Contains(stdout, "auditor") || strings.Contains(stdout, "never") || strings.Contains(stdout, reader.token) {
		t.Errorf("tokens: %s", stdout)
	}
	s.keepsWebhooksOverTheAPI(t)
	s.decidesOverTheAPI(t, c)
	s.asksForContracts(t, c)
	s.documentedExamplesWork(t, tx, c.open(sale{}))
	if stdout, stderr, code := s.run(t, "audit", "log", "--what", "token.created", "--since", "2020-01-01"); code != exitOK || !strings.Contains(stdout, "name=erp role=auditor") || !strings.Contains(stdout, "a test") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	s.makesClientCertificates(t)
	if _, stderr, code := s.run(t, "tokens", "revoke", "erp", "--why", "its work is done"); code != exitOK {
		t.Errorf("tokens revoke: %d %s", code, stderr)
	}
	reader.asks(401, "GET", "/v1/deals", "")
	s.daemon.stop(t)
	if stdout, stderr, code := s.run(t, "audit", "log", "--what", "api.called", "--json"); code != exitOK || !strings.Contains(stdout, "GET /v1/deals 200: ") || !strings.Contains(stdout, "/retry 403: 1") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if strings.Contains(s.daemon.log(), "ds_test_") {
		t.Error("the log tells a token")
	}
}

// makesClientCertificates has one made for a program, which the daemon then knows.
func (s *stage) makesClientCertificates(t *testing.T) {
	t.Helper()
	file := s.path("machine.pem")
	create := []string{"tokens", "create", "machine", "--role", "viewer", "--all", "--test", "--days", "14", "--new-certificate", file, "--why", "a test"}
	if stdout, stderr, code := s.run(t, create...); code != exitOK || stdout != "" || !strings.Contains(stderr, file) {
		t.Fatalf("tokens create: %d\n%s%s", code, stdout, stderr)
	}
	pair, err := tls.LoadX509KeyPair(file, file)
	must(t, err)
	info, err := os.Stat(file)
	must(t, err)
	if left := time.Until(pair.Leaf.NotAfter); info.Mode().Perm() != 0o600 || left < 13*24*time.Hour || left > 14*24*time.Hour {
		t.Errorf("%v, and it ends in %s", info.Mode(), left)
	}
	if stdout, _, _ := s.run(t, "tokens"); !strings.Contains(stdout, api.Fingerprint(pair.Certificate[0])[:16]+"  machine  certificate") {
		t.Errorf("tokens: %s", stdout)
	}
	create[2] = "other"
	if _, stderr, code := s.run(t, create...); code == exitOK || !strings.Contains(stderr, "exists") {
		t.Errorf("over a file that is there: %d %s", code, stderr)
	}
	if stdout, _, _ := s.run(t, "tokens"); strings.Contains(stdout, "other") {
		t.Errorf("what has no file may ask: %s", stdout)
	}
}

// decidesOverTheAPI has a deal held and released.
func (s *stage) decidesOverTheAPI(t *testing.T, c crm) {
	t.Helper()
	operator := s.letIn(t, "desk", "--role", "operator", "--all")
	record := c.open(sale{nobody: true})
	c.move(record, ruleContract)
	var held api.Deals
	eventually(t, "the deal waits for somebody", func() (bool, string) {
		text := operator.asks(200, "GET", "/v1/deals?q="+record, "")
		must(t, json.Unmarshal(text, &held))
		return len(held.Deals) == 1 && len(operator.actions(held.Deals[0].Tx)) > 0, string(text)
	})
	tx := held.Deals[0].Tx
	operator.asks(200, "POST", "/v1/deals/"+string(tx)+"/drop", `{"why":"the customer has gone"}`)
	var story api.Story
	must(t, json.Unmarshal(operator.asks(200, "GET", "/v1/deals/"+string(tx)+"/explain", ""), &story))
	if !slices.ContainsFunc(story.Trail, func(l api.Line) bool {
		return l.What == "dropped" && strings.HasPrefix(l.Who, "api:desk (") && l.Why == "the customer has gone"
	}) {
		t.Errorf("the audit log has %+v", story.Trail)
	}
	operator.asks(409, "POST", "/v1/deals/"+string(tx)+"/drop", because)
}

// keepsWebhooksOverTheAPI adds a webhook in each of both ways, tries it, and has an event delivered once more.
func (s *stage) keepsWebhooksOverTheAPI(t *testing.T) {
	t.Helper()
	admin := s.letIn(t, "hooks", "--role", "admin", "--tenant", "acme")
	native, sdf := newReceiver(t, nil), newReceiver(t, nil)
	var added api.AddedEndpoint
	must(t, json.Unmarshal(admin.asks(201, "POST", "/v1/webhooks", fmt.Sprintf(`{"id":"acme/native","url":%q,"why":"a test"}`, native.URL+"/hooks?token=hidden")), &added))
	const chosen = "a secret that the customer has chosen"
	if text := admin.asks(201, "POST", "/admin/tenants/acme/webhooks", fmt.Sprintf(`{"url":%q,"secret":%q,"events":["document.signed"]}`, sdf.URL, chosen)); bytes.Contains(text, []byte(chosen)) {
		t.Errorf("a secret that was chosen is shown: %s", text)
	}
	s.secrets = append(s.secrets, added.Secret, chosen)
	var tested api.Tested
	must(t, json.Unmarshal(admin.asks(200, "POST", "/v1/webhooks/test", fmt.Sprintf(`{"url":%q,"event":"document.signed"}`, native.URL+"/hooks?token=hidden")), &tested))
	judge, err := standardwebhooks.NewWebhook(added.Secret)
	must(t, err)
	if got := native.seen(); tested.Status != 200 || tested.Endpoint != "acme/native" || len(got) != 1 || judge.Verify(got[0].body, got[0].header) != nil {
		t.Errorf("a test: %+v, and %d arrived", tested, len(got))
	}
	tx := awaitDone(t, s.ops, s.enter(ruleMemo)).Sealing.Tx
	eventually(t, "both are told", func() (bool, string) {
		got := native.types(string(tx))
		return len(got) == 5 && len(sdf.seen()) > 0, fmt.Sprint(got, len(sdf.seen()))
	})
	signed := sdf.seen()[0]
	mac := hmac.New(sha256.New, []byte(chosen))
	mac.Write(signed.body)
	if signed.header.Get("X-SDF-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) || !bytes.Contains(signed.body, []byte("document.signed")) {
		t.Errorf("by the compatible route it is told %s %s", signed.header, signed.body)
	}
	before := len(native.seen())
	var page api.Deliveries
	eventually(t, "its deliveries have ended", func() (bool, string) {
		text := admin.asks(200, "GET", "/v1/webhooks/acme/native/deliveries?state=delivered", "")
		must(t, json.Unmarshal(text, &page))
		return len(page.Deliveries) == 5, string(text)
	})
	admin.asks(200, "POST", fmt.Sprintf("/v1/webhooks/acme/native/deliveries/%d/redeliver", page.Deliveries[0].ID), because)
	eventually(t, "it arrives once more", func() (bool, string) { return len(native.seen()) > before, "" })
	if got := native.seen(); got[len(got)-1].ID != page.Deliveries[0].Event {
		t.Errorf("once more, %s has another id than %s", got[len(got)-1].ID, page.Deliveries[0].Event)
	}
	admin.asks(200, "POST", "/v1/webhooks/acme/native/remove", because)
	admin.asks(404, "GET", "/v1/webhooks/acme/native", "")
}

// asksForContracts has a program ask for a contract, twice, and be called back when it is sealed.
func (s *stage) asksForContracts(t *testing.T, c crm) {
	t.Helper()
	admin, erp := s.letIn(t, "calls", "--role", "admin", "--tenant", "acme"), s.letIn(t, "asker", "--role", "signer-admin", "--tenant", "acme")
	receiver := newReceiver(t, nil)
	var hook api.AddedEndpoint
	must(t, json.Unmarshal(admin.asks(201, "POST", "/v1/webhooks", fmt.Sprintf(`{"id":"acme/calls","url":%q,"callbacks":true,"events":["envelope.completed"],"why":"a test"}`, receiver.URL+"/calls")), &hook))
	s.secrets = append(s.secrets, hook.Secret)
	admin.asks(200, "POST", "/v1/tenants/acme/pause", `{"why":"the template is looked at"}`)
	record := c.open(sale{})
	body := fmt.Sprintf(`{"template_id":"order-form","record_id":%q,"callback_url":"%s/calls/signature-complete?order=4711"}`, record, receiver.URL)
	erp.key = "order 4711"
	var first, again, done api.Signature
	must(t, json.Unmarshal(erp.asks(202, "POST", "/v1/signatures", body), &first))
	must(t, json.Unmarshal(erp.asks(202, "POST", "/v1/signatures", body), &again))
	if first.ID != again.ID || first.Record != record || !first.Paused || !again.Paused {
		t.Errorf("asked twice for %s: %+v, %+v", record, first, again)
	}
	if stdout, _, code := s.run(t, "tenants"); code != exitOK || !strings.Contains(stdout, "the template is looked at") {
		t.Errorf("tenants: %d\n%s", code, stdout)
	}
	if stdout, stderr, code := s.run(t, "tenants", "resume", "acme", "--why", "it is good"); code != exitOK {
		t.Errorf("tenants resume: %d\n%s%s", code, stdout, stderr)
	}
	eventually(t, "the contract is signed", func() (bool, string) {
		text := erp.asks(200, "GET", "/v1/signatures/"+first.ID, "")
		must(t, json.Unmarshal(text, &done))
		return done.Status == "signed", string(text)
	})
	contract := erp.asks(200, "GET", done.Document, "")
	if ours := slices.DeleteFunc(c.files(record), func(f stored) bool { return !bytes.Equal(f.content, contract) }); len(ours) != 1 || done.Level != "B-T" {
		t.Errorf("%+v, and its contract is %d times on the record", done, len(ours))
	}
	judge, err := standardwebhooks.NewWebhook(hook.Secret)
	must(t, err)
	eventually(t, "it is called back", func() (bool, string) { return len(receiver.seen()) > 0, "" })
	if got := receiver.seen(); len(got) != 1 || got[0].at != "/calls/signature-complete?order=4711" || got[0].Tx != string(first.Tx) || judge.Verify(got[0].body, got[0].header) != nil {
		t.Errorf("called back %d times, first with %+v", len(got), got[0])
	}
	erp.key = "order 4712"
	erp.asks(409, "POST", "/v1/signatures", body)
}

func (p program) actions(tx deal.TxID) []string {
	p.t.Helper()
	var d api.Deal
	must(p.t, json.Unmarshal(p.asks(200, "GET", "/v1/deals/"+string(tx), ""), &d))
	return d.Actions
}

var documentedExample = regexp.MustCompile(`(?m)^curl .*$`)

// documentedExamplesWork runs what docs/api.md has people type.
func (s *stage) documentedExamplesWork(t *testing.T, tx deal.TxID, record string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), "docs/api.md"))
	must(t, err)
	examples := documentedExample.FindAllString(string(text), -1)
	if len(examples) < 8 {
		t.Fatalf("docs/api.md has %d examples", len(examples))
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("THE EXAMPLES OF docs/api.md WERE NOT RUN: there is no curl")
		return
	}
	admin := s.letIn(t, "admin", "--role", "admin", "--tenant", "acme")
	for _, example := range examples {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", example)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "API="+admin.base, "TOKEN="+admin.token, "TX="+string(tx), "RECORD="+record)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s\n%v: %s", example, err, out)
		}
	}
}
