package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
)

// shadows runs the command for all tenants.
func shadows(t *testing.T, w *world, flags ...string) map[string]shadowReport {
	t.Helper()
	stdout, stderr, code := w.run(t, append([]string{"shadow", "--days", "1", "--json"}, flags...)...)
	var reports []shadowReport
	if err := json.Unmarshal([]byte(stdout), &reports); err != nil || code != exitOK || len(reports) != len(w.crms) {
		t.Fatalf("shadow: exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	for _, hidden := range []string{hiddenCustomer, hiddenSubject, hiddenPerson, hiddenGoods} {
		if strings.Contains(stdout+stderr, hidden) {
			t.Errorf("it quotes a record: %q", hidden)
		}
	}
	by := map[string]shadowReport{}
	for _, r := range reports {
		by[string(r.Tenant)] = r
	}
	return by
}

// of returns what would become of a record's entries.
func (r shadowReport) of(record string) (deals []engine.ShadowDeal) {
	for _, d := range r.Deals {
		if d.Ref.ID == record {
			deals = append(deals, d)
		}
	}
	return deals
}

func TestARehearsalSaysWhatWouldBecomeOfEachEntryAndWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{tenants: withQuotes()})
	type records struct{ whole, nobody, bare, again string }
	all := map[string]records{}
	for _, c := range w.crms {
		r := records{whole: c.open(sale{}), nobody: c.open(sale{nobody: true}), bare: c.open(sale{}), again: c.open(sale{quote: quotation(1)})}
		c.move(r.whole, ruleContract)
		c.move(r.nobody, ruleContract)
		c.move(r.bare, ruleMemo)
		c.past(time.Hour, func() { c.move(r.again, ruleMemo) })
		c.past(time.Minute, func() { c.move(r.again, stageOpen) })
		c.move(r.again, ruleMemo)
		all[c.tenant()] = r
	}
	look := func(reports map[string]shadowReport) {
		t.Helper()
		for _, c := range w.crms {
			r, report := all[c.tenant()], reports[c.tenant()]
			wants := func(record string, outcomes ...string) {
				t.Helper()
				var got []string
				for _, d := range report.of(record) {
					got = append(got, d.Outcome)
				}
				if !slices.Equal(got, outcomes) {
					t.Errorf("%s: of %s would become %v, want %v: %+v", c.tenant(), record, got, outcomes, report.of(record))
				}
			}
			wants(r.whole, engine.ShadowMade)
			wants(r.nobody, engine.ShadowHeld)
			wants(r.bare, engine.ShadowHeld)
			wants(r.again, engine.ShadowMade, engine.ShadowHeld)
			if nobody := report.of(r.nobody); len(nobody) == 1 && len(nobody[0].Missing) == 0 {
				t.Errorf("what is missing is not named: %+v", nobody)
			}
			if report.Total.Signatures != 2 || report.Total.Timestamps != 2 || report.Total.CRM < 8 || report.Calls < 3 || report.Busiest == "" || len(report.Unknown) == 0 || report.Cut != "" {
				t.Errorf("%s: the costs are %+v, %d calls, cut %q", c.tenant(), report.Total, report.Calls, report.Cut)
			}
		}
	}
	look(shadows(t, w))
	cut := shadows(t, w, "--calls", "1")[w.crms[0].tenant()]
	if cut.Cut == "" {
		t.Errorf("with one call it was not cut short: %d calls", cut.Calls)
	}
	for _, c := range w.crms {
		for _, record := range []string{all[c.tenant()].whole, all[c.tenant()].again} {
			if shown := c.shown(record); len(shown) > 0 || contracts(c, record) > 0 {
				t.Errorf("%s: the record shows %v", c.tenant(), shown)
			}
		}
	}
	if n := len(dealsOf(t, w)); n != 0 {
		t.Errorf("%d deals were made", n)
	}

	w.begin(t)
	look(shadows(t, w))
	// The files are rehearsed as they are now, before a reload takes them in.
	for _, c := range w.crms {
		path := w.path("tenants/" + c.tenant() + ".yaml")
		good, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, bytes.ReplaceAll(good, []byte(`attachment: "Quote*.pdf"`), []byte(`attachment: "Offer*.pdf"`)), 0o600))
	}
	for tenant, report := range shadows(t, w) {
		if of := report.of(all[tenant].again); len(of) != 2 || of[0].Outcome != engine.ShadowHeld {
			t.Errorf("%s: after an edit there would become of it %+v", tenant, of)
		}
	}
	stdout, stderr, code := w.run(t, "shadow", "--days", "1", "--tenant", w.crms[0].tenant())
	if code != exitOK || !strings.Contains(stdout, "nothing was written anywhere") || !strings.Contains(stdout, "it cannot know") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	if _, stderr, code := w.run(t, "shadow", "--days", "1", "--tenant", "nobody"); code != exitFailed || !strings.Contains(stderr, "nobody") {
		t.Errorf("exit code %d of a tenant that there is none: %s", code, stderr)
	}
	if _, _, code := w.run(t, "shadow"); code != exitUsage {
		t.Errorf("exit code %d without days", code)
	}
}

// dealsOf are all that the ledger has.
func dealsOf(t *testing.T, s *world) []deal.TxID {
	t.Helper()
	stdout, stderr, code := s.run(t, "jobs", "--all", "--json")
	var list []struct{ Tx deal.TxID }
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != exitOK {
		t.Fatalf("jobs: exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	var txs []deal.TxID
	for _, d := range list {
		txs = append(txs, d.Tx)
	}
	return txs
}

// After a rollover to another key pair a rehearsal goes by the limits of that one.
func TestLimitsAreThoseOfTheKeyThatSignsNow(t *testing.T) {
	now := time.Now()
	h := &house{cfg: &config.Config{Signing: config.Signing{Keys: map[string]config.Key{"house": {MaxUsesPerDay: 5}, "house-2027": {MaxUsesPerDay: 9, MaxUses: 90}}}}}
	next := deal.Certificate{Key: "house", Pair: "house-2027", State: deal.CertNext, ActivateAt: now.Add(time.Hour)}
	if got := h.keyLimits([]deal.Certificate{{Key: "house", State: deal.CertActive}, next})["house"]; got.Day != 5 {
		t.Errorf("before the rollover the limits are %+v", got)
	}
	next.ActivateAt = now.Add(-time.Hour)
	if got := h.keyLimits([]deal.Certificate{{Key: "house", State: deal.CertActive}, next})["house"]; got != (deal.KeyLimits{Total: 90, Day: 9}) {
		t.Errorf("after it they are %+v", got)
	}
}
