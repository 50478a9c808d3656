//go:build contract

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/api"
)

// TestTheAPIKeepsToItsDocument has schemathesis ask a daemon for whatever its OpenAPI document allows, and for what it does
// not: no answer is a 5xx, each is one of the document, and what the document forbids is refused. SEED is another seed,
// EXAMPLES how many requests are made up for each operation.
func TestTheAPIKeepsToItsDocument(t *testing.T) {
	fuzzer := filepath.Join(repository(t), "build/contract/venv/bin/schemathesis")
	if _, err := os.Stat(fuzzer); err != nil {
		t.Fatalf("schemathesis is missing (%v): \"make contract-fuzz\" fetches it", err)
	}
	w := newWorld(t, worldOptions{house: "api: {listen: \"127.0.0.1:0\", per_token: 1000000, per_address: 1000000}\n"})
	s := w.begin(t)
	c := s.crms[0]
	record := c.open(sale{})
	c.move(record, ruleContract)
	tx := awaitDone(t, s.ops, record).Sealing.Tx
	held := c.open(sale{nobody: true})
	c.move(held, ruleContract)
	waits := awaitHeld(t, s.ops, held, 1, `"customer"`).Sealing.Tx
	receiver := newReceiver(t, nil)
	admin := s.letIn(t, "fuzzer", "--role", "admin", "--all")
	var hook api.AddedEndpoint
	must(t, json.Unmarshal(admin.asks(201, "POST", "/v1/webhooks", fmt.Sprintf(`{"id":"acme/erp","url":%q,"why":"a test"}`, receiver.URL)), &hook))
	delivery := s.deliveredOnce(t, admin)
	known := func(tx deal.TxID) map[string]string {
		return map[string]string{"tx": string(tx), "id": "sig_" + string(tx), "tenant": "acme", "name": "erp", "delivery": fmt.Sprint(delivery)}
	}
	s.fuzz(t, fuzzer, "anything", admin, nil)
	s.fuzz(t, fuzzer, "a contract", admin, known(tx))
	s.fuzz(t, fuzzer, "a deal that waits", admin, known(waits))
	s.fuzz(t, fuzzer, "a viewer", s.letIn(t, "looker", "--role", "viewer", "--tenant", "acme"), known(tx))
	s.daemon.stop(t)
	if log := s.daemon.log(); strings.Contains(log, "level=ERROR") && strings.Contains(log, "a request of the API") || strings.Contains(log, "panic") {
		t.Errorf("the daemon's log has an error of the API:\n%s", tail(log))
	}
}

// deliveredOnce has a deal made, and returns a delivery of it to the webhook.
func (s *stage) deliveredOnce(t *testing.T, admin program) int64 {
	t.Helper()
	awaitDone(t, s.ops, s.enter(ruleMemo))
	var page api.Deliveries
	eventually(t, "something is delivered", func() (bool, string) {
		text := admin.asks(200, "GET", "/v1/webhooks/acme/erp/deliveries?state=delivered", "")
		must(t, json.Unmarshal(text, &page))
		return len(page.Deliveries) > 0, string(text)
	})
	return page.Deliveries[0].ID
}

// fuzz runs schemathesis once. Parameters of paths that are known are not made up.
func (s *stage) fuzz(t *testing.T, fuzzer, name string, p program, known map[string]string) {
	t.Run(name, func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "schemathesis.toml"), []byte(fuzzing(known)), 0o600))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, fuzzer, "--no-color", "run", p.base+"/v1/openapi.json", "--seed", cmp.Or(os.Getenv("SEED"), "1"), "--generation-database", "none",
			"--max-examples", cmp.Or(os.Getenv("EXAMPLES"), "30"), "--phases", "examples,coverage,fuzzing", "--checks", "all", "--continue-on-failure", "--warnings", "off")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "TOKEN="+p.token)
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Errorf("schemathesis: %v", err)
		}
	})
}

// fuzzing is the configuration of schemathesis.
func fuzzing(known map[string]string) string {
	var b strings.Builder
	b.WriteString("headers = { Authorization = \"Bearer ${TOKEN}\" }\n")
	b.WriteString("[checks]\npositive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"404\", \"409\", \"410\", \"429\"]\n")
	if len(known) > 0 {
		b.WriteString("[parameters]\n")
		for name, value := range known {
			fmt.Fprintf(&b, "\"path.%s\" = %q\n", name, value)
		}
	}
	for status, operations := range unsayable {
		for _, o := range operations {
			fmt.Fprintf(&b, "[[operations]]\ninclude-name = %q\nchecks.positive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"404\", \"409\", \"410\", \"429\", \"%d\"]\n", o, status)
		}
	}
	return b.String()
}

// unsayable are the operations that must refuse more than a schema can say: that a cursor is one of ours, which rules,
// templates and events there are, what an address or a secret is good for, that a time has come.
var unsayable = map[int][]string{
	400: {"GET /v1/deals", "GET /v1/webhooks/{tenant}/{name}/deliveries"},
	422: {"POST /v1/signatures", "POST /v1/webhooks", "POST /v1/webhooks/test", "POST /v1/webhooks/{tenant}/{name}/rotate", "POST /v1/webhooks/{tenant}/{name}/redeliver", "POST /admin/tenants/{tenant}/webhooks"},
}
