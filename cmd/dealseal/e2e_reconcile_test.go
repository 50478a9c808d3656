package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// reconciled runs the command for one tenant and returns what it reports.
func (s *stage) reconciled(t *testing.T, c crm, flags ...string) reconcileReport {
	t.Helper()
	stdout, stderr, code := s.run(t, append([]string{"reconcile", "--json", "--tenant", c.tenant()}, flags...)...)
	var reports []reconcileReport
	if err := json.Unmarshal([]byte(stdout), &reports); err != nil || len(reports) != 1 || reports[0].Err != "" {
		t.Fatalf("reconcile %v: exit %d, %v\n%s%s", flags, code, err, stdout, stderr)
	}
	if left := reports[0].Left > 0; left != (code == exitFailed) {
		t.Errorf("exit code %d with %d discrepancies left", code, reports[0].Left)
	}
	return reports[0]
}

// mustFind holds that a report names just these kinds for the deal.
func (r reconcileReport) mustFind(t *testing.T, record string, kinds ...deal.DiscrepancyKind) {
	t.Helper()
	var got []deal.DiscrepancyKind
	for _, d := range r.Found {
		if d.Ref.ID == record {
			got = append(got, d.Kind)
		}
		if strings.Contains(d.What, hiddenCustomer) || strings.Contains(d.What, hiddenSubject) {
			t.Errorf("it quotes the record: %s", d.What)
		}
	}
	if len(got) != len(kinds) || len(got) > 0 && got[0] != kinds[0] {
		t.Errorf("found of %s is %v, want %v\n%+v", record, got, kinds, r.Found)
	}
}

func TestDamageOfEveryKindIsFoundAndOnlyTheHarmlessIsMended(t *testing.T) {
	eachCRM(t, worldOptions{tenants: withQuotes()}, func(t *testing.T, s *stage, c crm) {
		ops := ofTenant{s.ops, c.tenant()}
		done := func(rule string) string {
			r := c.open(sale{quote: quotation(1)})
			c.move(r, rule)
			awaitDone(t, ops, r)
			return r
		}
		whole, lost, spoiled, edited, drifted, gone := done(ruleMemo), done(ruleMemo), done(ruleMemo), done(ruleMemo), done(ruleContract), done(ruleMemo)
		var missed string
		c.past(2*time.Hour, func() {
			missed = c.open(sale{quote: quotation(2)})
			c.move(missed, ruleMemo)
		})
		before := contractOf(c, lost)
		shown := c.shown(edited)
		c.loseContract(lost)
		c.spoilContract(spoiled)
		c.clearFields(edited)
		c.rename(drifted, hiddenSubject+" II")
		c.remove(gone)

		dry := s.reconciled(t, c, "--dry-run")
		if contracts(c, lost) != 0 || c.shown(edited)["status"] != "" {
			t.Error("a dry run has mended something")
		}
		for _, r := range []reconcileReport{dry, s.reconciled(t, c)} {
			r.mustFind(t, whole)
			r.mustFind(t, lost, deal.FileGone)
			r.mustFind(t, spoiled, deal.FileAltered)
			r.mustFind(t, edited, deal.FieldsAltered)
			r.mustFind(t, drifted, deal.ValuesDiffer)
			r.mustFind(t, gone, deal.RecordGone)
			r.mustFind(t, missed, deal.EntryMissed)
			if r.Pass.Deals != 6 {
				t.Errorf("%d deals were compared, want 6", r.Pass.Deals)
			}
		}
		if after := contractOf(c, lost); !bytes.Equal(before, after) || len(after) == 0 {
			t.Error("other bytes were put back than had been sealed")
		}
		awaitDone(t, ops, missed)
		for _, r := range []string{whole, lost, spoiled, edited, drifted, missed} {
			if r != spoiled { // whose damaged file is no PDF of ours any more, and nothing is put beside it
				mustBear(t, c, r, 1)
			}
		}
		if n := len(c.files(spoiled)); n != 2 {
			t.Errorf("beside the damaged contract there are %d files, want the quotation only", n-1)
		}
		eventually(t, "the fields are back", func() (bool, string) {
			now := c.shown(edited)
			return now["status"] == shown["status"] && now["transaction_id"] == shown["transaction_id"] && now["url"] == shown["url"] && now["audit"] != "", now["status"]
		})

		// What was mended is found no more; what is left to people is, and says so until they have dealt with it.
		c.rename(drifted, hiddenSubject)
		again := s.reconciled(t, c)
		for _, r := range []string{whole, lost, edited, drifted, missed} {
			again.mustFind(t, r)
		}
		again.mustFind(t, spoiled, deal.FileAltered)
		again.mustFind(t, gone, deal.RecordGone)
		for _, d := range again.Found {
			if _, stderr, code := s.run(t, "reconcile", "seen", string(d.Tx), "--why", "looked at it"); code != exitOK {
				t.Errorf("seen %s: exit %d, %s", d.Tx, code, stderr)
			}
		}
		eventually(t, "nothing is left", func() (bool, string) { // a poll may have seen the record while it was another
			stdout, stderr, code := s.run(t, "reconcile", "list", "--tenant", c.tenant())
			return code == exitOK && strings.Contains(stdout, "show what the ledger has"), fmt.Sprint(code, stdout, stderr)
		})
		auditIsWhole(t, s.ops, nil)
	})
}

// contractOf is the sealed contract on a record, nil if there is none.
func contractOf(c crm, record string) []byte {
	for _, f := range c.files(record) {
		if f.contract() {
			return f.content
		}
	}
	return nil
}
