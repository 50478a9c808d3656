package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/smtp"
	"github.com/dealseal/dealseal/store"
)

// TestPeopleAreMailedOnceWhateverCrashes has a deal held while the mail server takes nothing, and the daemon killed before it
// does.
func TestPeopleAreMailedOnceWhateverCrashes(t *testing.T) {
	t.Parallel()
	server, err := smtp.Start("127.0.0.1:0", smtp.Options{})
	must(t, err)
	t.Cleanup(func() { server.Close() })
	server.Fail(-1)
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}, house: fmt.Sprintf(`notify:
  gather: 1ms
  weekly: never
  mail: {server: %q, security: none, from: "dealseal <seal@example.com>"}
  channels:
    - {id: ops, mail: ops@example.com}
`, server.Address)})
	w.remember(t, 8)
	d := w.start(t)
	ops := w.control(t, w.stateDir)
	record := w.crms[0].open(sale{nobody: true})
	w.crms[0].move(record, ruleContract)
	story := awaitHeld(t, ops, record, 1, `"customer"`)
	eventually(t, "the dead mail server shows", func() (bool, string) {
		all, err := ops.Channels(t.Context())
		return err == nil && len(all) == 1 && all[0].Tries > 0 && strings.Contains(all[0].Problem, "no room for it"), fmt.Sprint(all, err)
	})
	if ready := d.get(t, "/readyz"); !strings.Contains(ready, `"ready": true`) || !strings.Contains(ready, "people are not told: ops") {
		t.Errorf("a dead mail server is told neither more nor less than it should: %s", ready)
	}
	if metrics := d.get(t, "/metrics"); !strings.Contains(metrics, `dealseal_notify_failures{channel="ops"}`) || !strings.Contains(metrics, `dealseal_notify_messages_total{channel="ops",result="failed"}`) {
		t.Error("the metrics say nothing of it")
	}
	d.kill()
	server.Fail(0)
	d = w.start(t)
	eventually(t, "mail has arrived", func() (bool, string) { return len(server.Taken()) > 0, d.log() })
	m := server.Taken()[0]
	if m.To != "ops@example.com" || !strings.Contains(m.Body, string(story.Sealing.Tx)) || m.Header.Get("Subject") != "[dealseal] acme: a deal waits for a person" {
		t.Errorf("%+v", m)
	}
	for name, needle := range w.needles() {
		if strings.Contains(m.Body, needle) {
			t.Errorf("the mail holds %s", name)
		}
	}
	if _, stderr, code := w.run(t, "notify", "test", "ops"); code != exitOK {
		t.Errorf("the test failed: %s", stderr)
	}
	if stdout, stderr, code := w.run(t, "notify"); code != exitOK || !strings.Contains(stdout, "ops ") {
		t.Errorf("%s%s", stdout, stderr)
	}
	// Others are told from a reload on, of what is not over, and with a mistake nothing changes.
	rewrite := func(old, new string) {
		text, err := os.ReadFile(w.config)
		must(t, err)
		must(t, os.WriteFile(w.config, []byte(strings.Replace(string(text), old, new, 1)), 0o600))
	}
	rewrite("{id: ops, mail: ops@example.com}", "{id: desk, mail: desk@example.com, kinds: [noise]}")
	if _, stderr, code := w.run(t, "reload"); code != exitFailed || !strings.Contains(stderr, "noise") {
		t.Errorf("exit %d, a kind that there is not: %s", code, stderr)
	}
	rewrite(", kinds: [noise]", "")
	if stdout, stderr, code := w.run(t, "reload"); code != exitOK || !strings.Contains(stdout, "changed: notify") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	eventually(t, "who is new is told", func() (bool, string) { return len(server.Taken()) > 2, d.log() })
	if m := server.Taken()[2]; m.To != "desk@example.com" || !strings.Contains(m.Body, string(story.Sealing.Tx)) {
		t.Errorf("%+v", m)
	}
	if all, err := ops.Channels(t.Context()); err != nil || len(all) != 1 || all[0].Name != "desk" {
		t.Errorf("the channels are %+v: %v", all, err)
	}
	d.stop(t)
	if n := len(server.Taken()); n != 3 {
		t.Errorf("%d messages, want the incident, the test, and the incident for who is new", n)
	}
	// How the week was is told by a daemon that comes up after its end.
	rewrite("weekly: never", "weekly: Mon 00:00")
	d = w.start(t)
	eventually(t, "how the week was has arrived", func() (bool, string) { return len(server.Taken()) > 3, d.log() })
	if m := server.Taken()[3]; !strings.Contains(m.Header.Get("Subject"), "deals came") || !strings.Contains(m.Body, "acme: ") {
		t.Errorf("%+v", m)
	}
	d.stop(t)
}

// remember has the ledger, which is new, know something of some days ago.
func (w *world) remember(t *testing.T, days int) {
	t.Helper()
	cfg, err := config.Load(w.config)
	must(t, err)
	master, err := masterKey(cfg.MasterKey)
	must(t, err)
	s, err := store.Open(t.Context(), store.Options{Dir: cfg.StateDir, MasterKey: master, Now: func() time.Time { return time.Now().AddDate(0, 0, -days) }})
	must(t, err)
	must(t, s.SetPoll(t.Context(), deal.PollState{Tenant: "acme", Calls: 1}))
	must(t, s.Close())
}
