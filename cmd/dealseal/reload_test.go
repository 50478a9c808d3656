package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// rewrite edits a file of the world's configuration.
func (w *world) rewrite(t *testing.T, name, old, new string) {
	t.Helper()
	b, err := os.ReadFile(w.path(name))
	must(t, err)
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %q", name, old)
	}
	must(t, os.WriteFile(w.path(name), []byte(strings.ReplaceAll(string(b), old, new)), 0o600))
}

// reload runs "dealseal reload" and compares what it prints.
func (s *stage) reload(t *testing.T, code int, want string) {
	t.Helper()
	stdout, stderr, got := s.run(t, "reload")
	if got != code || !strings.Contains(stdout+stderr, want) {
		t.Fatalf("exit code %d, %s%s\nwant %d and %q", got, stdout, stderr, code, want)
	}
}

// metric is the value of a metric without labels, as /metrics shows it.
func (d *process) metric(t *testing.T, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(d.get(t, "/metrics"))
	if found == nil {
		t.Fatalf("there is no metric %s", name)
	}
	return found[1]
}

func TestTenantsAreTakenOutAndPutBackByAReload(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	gone, stays := s.crms[0], s.crms[1]
	file := s.path("tenants/" + gone.tenant() + ".yaml")
	kept := s.path("kept")

	// A deal is under way when its tenant is taken out.
	record := gone.open(sale{quote: quotation(1)})
	s.at(0, gone.uploads, func() {
		must(t, os.Rename(file, kept))
		s.reload(t, exitOK, "removed: "+gone.tenant()+"\nas before: 1\n")
	})
	gone.move(record, ruleMemo)
	held := awaitHeld(t, s.ops, record, 1, "[unconfigured]", "put its file back and reload")
	other := stays.open(sale{quote: quotation(2)})
	stays.move(other, ruleMemo)
	awaitDone(t, s.ops, other)
	meanwhile := gone.open(sale{quote: quotation(3)})
	gone.move(meanwhile, ruleMemo)

	must(t, os.Rename(kept, file))
	s.reload(t, exitOK, "added: "+gone.tenant()+"\nas before: 1\n")
	story := awaitDone(t, s.ops, record)
	if story.Sealing.Tx != held.Sealing.Tx {
		t.Errorf("%s was sealed as another transaction", record)
	}
	mustUseTheKey(t, story, 1)
	awaitDone(t, s.ops, meanwhile)
	for _, r := range []string{record, meanwhile} {
		mustBear(t, gone, r, 1)
		mustShow(t, gone, r, deal.StatusSigned)
	}
	s.daemon.stop(t)
}

func TestATenantThatIsPutBackWhileTheDaemonIsStoppedGoesOn(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	gone := s.crms[0]
	file := s.path("tenants/" + gone.tenant() + ".yaml")
	record := gone.open(sale{quote: quotation(1)})
	s.at(0, gone.uploads, func() {
		must(t, os.Rename(file, s.path("kept")))
		s.reload(t, exitOK, "removed: ")
	})
	gone.move(record, ruleMemo)
	awaitHeld(t, s.ops, record, 1, "[unconfigured]")
	s.daemon.stop(t)
	must(t, os.Rename(s.path("kept"), file))
	daemon := s.start(t)
	awaitDone(t, s.control(t, s.stateDir), record)
	mustBear(t, gone, record, 1)
	daemon.stop(t)
}

func TestAReloadWithAMistakeChangesNothingAndIsSeenEverywhere(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	c := s.crms[0]
	tenant := "tenants/" + c.tenant() + ".yaml"
	read := s.daemon.metric(t, "dealseal_config_last_reload_success_timestamp_seconds")
	s.rewrite(t, tenant, "environment: sandbox", "environment: sandbx")
	s.rewrite(t, "tenants/"+s.crms[1].tenant()+".yaml", "name: House Ltd", "name: Another")
	s.reload(t, exitFailed, tenant+":1: tenant.environment is \"sandbx\": it must be production or sandbox")

	if got := s.daemon.metric(t, "dealseal_config_last_reload_successful"); got != "0" {
		t.Errorf("dealseal_config_last_reload_successful %s", got)
	}
	if got := s.daemon.metric(t, "dealseal_config_last_reload_success_timestamp_seconds"); got != read {
		t.Errorf("dealseal_config_last_reload_success_timestamp_seconds %s, was %s", got, read)
	}
	if ready := s.daemon.get(t, "/readyz"); !strings.Contains(ready, "could not be reloaded") {
		t.Errorf("/readyz: %s", ready)
	}
	if log := s.daemon.log(); !strings.Contains(log, "was not reloaded") || !strings.Contains(log, tenant+":1:") {
		t.Errorf("the log names neither file nor line:\n%s", log)
	}
	if page := s.daemon.get(t, "/"); !strings.Contains(page, "could not be reloaded") {
		t.Errorf("the page says nothing of it:\n%s", page)
	}
	record := c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	awaitDone(t, s.ops, record)

	s.rewrite(t, tenant, "environment: sandbx", "environment: sandbox")
	must(t, s.daemon.cmd.Process.Signal(syscall.SIGHUP))
	eventually(t, "a hangup reloads", func() (bool, string) {
		got := s.daemon.metric(t, "dealseal_config_last_reload_successful")
		return got == "1", got
	})
	taken := fmt.Sprintf(`msg="the configuration was reloaded" added=[] changed=[%s] removed=[] same=1`, s.crms[1].tenant())
	eventually(t, "the mended configuration is taken", func() (bool, string) { return strings.Contains(s.daemon.log(), taken), s.daemon.log() })
	s.daemon.stop(t)
}

func TestAMistakeInDealsealYamlIsTheDaemonsToReport(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	for name, mistake := range map[string]string{"an unknown key": "lsten:", "no YAML": "\tlisten:"} {
		s.rewrite(t, "dealseal.yaml", "\nlisten:", "\n"+mistake)
		s.reload(t, exitFailed, "dealseal.yaml:")
		if got := s.daemon.metric(t, "dealseal_config_last_reload_successful"); got != "0" {
			t.Errorf("%s: dealseal_config_last_reload_successful %s", name, got)
		}
		if log := s.daemon.log(); !strings.Contains(log, "was not reloaded") {
			t.Errorf("%s: the log says nothing of it:\n%s", name, log)
		}
		// Meanwhile the commands find the daemon, which runs with what it has read.
		for _, args := range [][]string{{"jobs"}, {"jobs", "--all"}, {"admin", "login"}, {"audit", "verify"}, {"backup", s.path(mistake[1:] + "backup")}} {
			if stdout, stderr, code := s.run(t, args...); code != exitOK {
				t.Errorf("%s: %v: exit code %d, %s%s", name, args, code, stdout, stderr)
			}
		}
		if stdout, _, code := s.run(t, "doctor"); code != exitFailed || !strings.Contains(stdout, "asked by the running daemon") || !strings.Contains(stdout, "dealseal.yaml:") {
			t.Errorf("%s: the doctor's exit code is %d:\n%s", name, code, stdout)
		}
		s.rewrite(t, "dealseal.yaml", "\n"+mistake, "\nlisten:")
		s.reload(t, exitOK, "as before: 1\n")
	}
	s.daemon.stop(t)
}

func TestADeletedDealsealYamlIsTheDaemonsToReportAsWell(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	must(t, os.Remove(s.config))
	reload := func(stateDir string) (stderr string, code int) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := s.command(ctx, s.config, "reload")
		var errs bytes.Buffer
		cmd.Stderr, cmd.Env = &errs, append(os.Environ(), "STATE_DIRECTORY="+stateDir)
		cmd.Run() // judged by its exit code
		return errs.String(), cmd.ProcessState.ExitCode()
	}
	if stderr, code := reload(t.TempDir()); code != exitFailed || !strings.Contains(stderr, "dealseal.yaml") {
		t.Errorf("with another state directory: exit code %d\n%s", code, stderr)
	}
	if got := s.daemon.metric(t, "dealseal_config_last_reload_successful"); got != "1" {
		t.Errorf("nobody has told the daemon, and it says %s", got)
	}
	if stderr, code := reload(s.stateDir); code != exitFailed || !strings.Contains(stderr, "dealseal.yaml") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if got := s.daemon.metric(t, "dealseal_config_last_reload_successful"); got != "0" {
		t.Errorf("dealseal_config_last_reload_successful %s", got)
	}
	s.daemon.stop(t)
}

func TestAReloadNamesWhatTakesARestart(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	s.rewrite(t, "dealseal.yaml", `listen: {admin: "127.0.0.1:0"}`, `listen: {admin: "127.0.0.1:0", hosts: [seals.example]}`)
	s.reload(t, exitOK, "as before: 1\ntakes a restart: listen.hosts\n")
	if log := s.daemon.log(); !strings.Contains(log, "takes a restart") || !strings.Contains(log, "key=listen.hosts") {
		t.Errorf("the log does not name it:\n%s", log)
	}
	s.daemon.stop(t)
	s.reload(t, exitFailed, "no daemon is running")
}

func TestADealUnderWayKeepsItsPlanAndTakesAChangedLogin(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.HubSpot}, attempts: tireless})
	c := s.crms[0].(*hubspotCRM)
	record := c.open(sale{quote: quotation(1)})
	tenant := "tenants/" + c.tenant() + ".yaml"
	right, wrong := c.token, s.secretFile("wrong-token", "pat-eu1-wrong")
	s.at(0, c.uploads, func() {
		s.rewrite(t, tenant, right, wrong)
		s.rewrite(t, tenant, `"Quote*.pdf"`, `"Another*.pdf"`)
		s.reload(t, exitOK, "changed: "+c.tenant())
	})
	c.move(record, ruleMemo)
	await(t, s.ops, record, 1, "waiting for its login", func(m store.Summary) bool { return m.Condition == deal.Retrying && strings.Contains(m.Reason, "token") })
	s.rewrite(t, tenant, wrong, right)
	s.reload(t, exitOK, "changed: "+c.tenant())
	mustUseTheKey(t, awaitDone(t, s.ops, record), 1)
	mustBear(t, c, record, 1)
	s.daemon.stop(t)
}

func TestSystemdIsToldOfReadinessReloadsAndTheStop(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	s.reload(t, exitOK, "as before: 1")
	s.daemon.stop(t)
	told := strings.Join(s.daemon.told(), "\n--\n")
	want := regexp.MustCompile(`(?s)READY=1\nSTATUS=1 tenant, 0 deals in the works.*RELOADING=1\nMONOTONIC_USEC=[1-9]\d*\n+STATUS=.*READY=1\nSTATUS=1 tenant, 0 deals in the works.*STOPPING=1\nSTATUS=stopping: .*\nSTATUS=stopping: the audit log`)
	if !want.MatchString(told) {
		t.Errorf("systemd was told:\n%s", told)
	}
}

func TestAHundredReloadsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	c := s.crms[0]
	tenant := "tenants/" + c.tenant() + ".yaml"
	count := func() int {
		n, err := strconv.Atoi(s.daemon.metric(t, "go_goroutines"))
		must(t, err)
		return n
	}
	record := c.open(sale{quote: quotation(1)})
	c.move(record, ruleMemo)
	awaitDone(t, s.ops, record)
	before := count()
	polls := []string{"poll: 200ms", "poll: 201ms"} // another connector each time
	for i := range 100 {
		s.rewrite(t, tenant, polls[i%2], polls[(i+1)%2])
		report, err := s.ops.Reload(t.Context())
		must(t, err)
		if len(report.Changed) != 1 || report.Same != 1 {
			t.Fatalf("reload %d: %+v", i, report)
		}
	}
	const slack = 15 // idle connections and requests under way
	eventually(t, "the goroutines of replaced connectors and pollers end", func() (bool, string) {
		now := count()
		return now <= before+slack, fmt.Sprintf("%d, %d before", now, before)
	})
	record = c.open(sale{quote: quotation(2)})
	c.move(record, ruleMemo)
	awaitDone(t, s.ops, record)
	s.daemon.stop(t)
}
