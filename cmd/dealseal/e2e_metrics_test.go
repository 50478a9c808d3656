package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.yaml.in/yaml/v4"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// namers are the files that use names of metrics.
var namers = []string{"deploy/alerts.yaml", "deploy/grafana.json"}

// TestRulesAndDashboardUseOnlyWhatADaemonTells lets deals end well and badly and compares the names.
func TestRulesAndDashboardUseOnlyWhatADaemonTells(t *testing.T) {
	t.Parallel()
	// Nothing listens there: a channel that takes no messages.
	s := newStage(t, worldOptions{tenants: []tenantOptions{{id: "acme", kind: deal.Salesforce, with: ", change_events: /data/OpportunityChangeEvent"}, usualTenant(deal.HubSpot)},
		house: "notify:\n  mail: {server: \"127.0.0.1:1\", security: none, from: seal@example.com}\n  channels: [{id: ops, mail: ops@example.com}]\n"})
	for _, c := range s.crms {
		good, held := c.open(sale{quote: quotation(1)}), c.open(sale{nobody: true})
		c.move(good, ruleMemo)
		c.move(held, ruleContract)
		awaitDone(t, s.ops, good)
		awaitHeld(t, s.ops, held, 1, "customer")
	}
	s.authority.SetFault("tsa", "down", -1)
	c := s.crms[0]
	failing := c.open(sale{quote: quotation(1)})
	c.move(failing, ruleStrict)
	await(t, s.ops, failing, 1, "given up", func(m store.Summary) bool { return m.Condition == deal.Dead })
	s.run(t, "doctor") // what it finds is told as well
	var text string
	eventually(t, "all names are told that are used", func() (bool, string) { // some by what looks around by itself
		text = s.daemon.get(t, "/metrics")
		told := toldNames(text)
		for _, file := range namers {
			for _, name := range usedNames(t, file) {
				if !told[name] {
					return false, fmt.Sprintf("%s uses %s, which the daemon does not tell", file, name)
				}
			}
		}
		return true, ""
	})
	s.daemon.stop(t)

	problems, err := promlint.New(strings.NewReader(text)).Lint()
	must(t, err)
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "dealseal_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if told := toldNames(text); len(told) < 30 {
		t.Fatalf("only %d names were found", len(told))
	}
	for _, file := range namers {
		if used := usedNames(t, file); len(used) < 10 {
			t.Errorf("%s: only %v were found", file, used)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
}

// toldNames are the series of an exposition.
func toldNames(text string) map[string]bool {
	told := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		told[m[1]] = true
		if m[2] == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				told[m[1]+suffix] = true
			}
		}
	}
	return told
}

var seriesName = regexp.MustCompile(`\b(?:dealseal|process|go|promhttp)_[a-z0-9_]+`)

// usedNames are the series in the expressions of a file of rules or of a dashboard.
func usedNames(t *testing.T, file string) []string {
	t.Helper()
	names := map[string]bool{}
	for _, expr := range expressions(t, file) {
		for _, name := range seriesName.FindAllString(expr, -1) {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// expressions collects every value under the keys expr and query.
func expressions(t *testing.T, file string) (all []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository(t), file))
	must(t, err)
	var tree any
	if strings.HasSuffix(file, ".json") {
		must(t, json.Unmarshal(b, &tree))
	} else {
		must(t, yaml.Unmarshal(b, &tree))
	}
	var walk func(any)
	walk = func(n any) {
		switch n := n.(type) {
		case map[string]any:
			for key, value := range n {
				if text, ok := value.(string); ok && (key == "expr" || key == "query") {
					all = append(all, text)
				}
				walk(value)
			}
		case []any:
			for _, item := range n {
				walk(item)
			}
		}
	}
	walk(tree)
	return all
}

// ruleFile is deploy/alerts.yaml.
type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func TestEveryAlertSaysWhatToDoAndIsTried(t *testing.T) {
	root := repository(t)
	b, err := os.ReadFile(filepath.Join(root, "deploy/alerts.yaml"))
	must(t, err)
	var file ruleFile
	must(t, yaml.Unmarshal(b, &file))
	runbook, err := os.ReadFile(filepath.Join(root, "docs/RUNBOOK.md"))
	must(t, err)
	tests, err := os.ReadFile(filepath.Join(root, "deploy/alerts_test.yaml"))
	must(t, err)
	var alerts []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alert)
			for _, name := range []string{"summary", "description", "runbook_url"} {
				if r.Annotations[name] == "" {
					t.Errorf("%s has no %s", r.Alert, name)
				}
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s has severity %q", r.Alert, s)
			}
			if !strings.HasSuffix(r.Annotations["runbook_url"], "docs/RUNBOOK.md#"+strings.ToLower(r.Alert)) {
				t.Errorf("%s leads to %s", r.Alert, r.Annotations["runbook_url"])
			}
			fires := regexp.MustCompile(fmt.Sprintf(`alertname: %s\n\s+exp_alerts:\n`, r.Alert)).Match(tests)
			silent := regexp.MustCompile(fmt.Sprintf(`alertname: %s\n\s+exp_alerts: \[\]`, r.Alert)).Match(tests)
			if !fires || !silent {
				t.Errorf("%s is tried firing: %v, silent: %v", r.Alert, fires, silent)
			}
		}
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^### (Dealseal\w+)$`).FindAllSubmatch(runbook, -1) {
		sections = append(sections, string(m[1]))
	}
	slices.Sort(alerts)
	slices.Sort(sections)
	alerts = slices.Compact(alerts) // one may have a rule for each number of days
	if !slices.Equal(alerts, sections) {
		t.Errorf("the alerts are\n%q, the runbook's sections\n%q", alerts, sections)
	}
}

func TestAlertRulesFireWhenTheyShould(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("NOT TESTED: the alert rules of deploy/, because there is no promtool here: \"make alerts\" installs it (Debian package prometheus)")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(repository(t), "deploy")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
