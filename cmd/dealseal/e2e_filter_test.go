package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
)

func TestAFilterLetsThroughWhatMeetsItAndTheRestIsExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	amount := map[deal.Kind]string{deal.Salesforce: "Amount", deal.HubSpot: "amount"}
	filter := func(c crm, text string) {
		path := w.path("tenants/" + c.tenant() + ".yaml")
		good, err := os.ReadFile(path)
		must(t, err)
		stage := fmt.Sprintf("stage: %q", c.stage(ruleMemo))
		if before, _, filtered := bytes.Cut(good, []byte(stage+", filter: ")); filtered {
			_, after, _ := bytes.Cut(good[len(before):], []byte("}"))
			good = append(append(bytes.Clone(before), (stage+"}")...), after...)
		}
		must(t, os.WriteFile(path, bytes.Replace(good, []byte(stage), fmt.Appendf(nil, "%s, filter: %q", stage, text), 1), 0o600))
	}
	small, big := map[crm]string{}, map[crm]string{}
	for _, c := range w.crms {
		small[c], big[c] = c.open(sale{quote: quotation(1)}), c.open(sale{quote: quotation(2)})
		c.setAmount(big[c], "20000")
		c.move(small[c], ruleMemo)
		c.move(big[c], ruleMemo)
	}

	filter(w.crms[0], "Amount >> 5")
	if _, stderr, code := w.run(t, "check"); code != exitFailed || !strings.Contains(stderr, "acme.yaml:") || !strings.Contains(stderr, "when.filter, column 9: ") {
		t.Errorf("exit code %d of a filter that is none: %s", code, stderr)
	}
	for _, c := range w.crms {
		filter(c, amount[c.kind()]+" > 10000")
	}
	for _, r := range shadows(t, w) {
		if r.Rules[2].Of[engine.ShadowFiltered] != 1 || r.Rules[2].Of[engine.ShadowMade] != 1 {
			t.Errorf("%s: a rehearsal says %+v", r.Tenant, r.Rules)
		}
	}
	if stdout, stderr, code := w.run(t, "matrix"); code != exitOK || strings.Count(stdout, "mount > 10000") != 2 {
		t.Errorf("the matrix does not show the filters: exit %d\n%s%s", code, stdout, stderr)
	}

	s := w.begin(t)
	for _, c := range w.crms {
		awaitDone(t, s.ops, big[c])
		mustBear(t, c, big[c], 1)
		if shown := c.shown(small[c]); len(shown) > 0 || contracts(c, small[c]) > 0 {
			t.Errorf("%s: the record that was filtered shows %v", c.tenant(), shown)
		}
		stdout, stderr, code := w.run(t, "jobs", "filtered", small[c], "--json")
		var list []deal.FilteredEntry
		if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != exitOK || len(list) != 1 || list[0].Rule != ruleMemo || string(list[0].Tenant) != c.tenant() {
			t.Fatalf("filtered are %+v: exit %d, %v\n%s", list, code, err, stderr)
		}
		stdout, stderr, code = w.run(t, "explain", string(list[0].Tx))
		if code != exitOK || !strings.Contains(stdout, "did not meet the filter of rule memo") || !strings.Contains(stdout, " > 10000") {
			t.Errorf("it is not explained: exit %d\n%s%s", code, stdout, stderr)
		}
	}
	auditIsWhole(t, s.ops, nil)
}
