package main

import (
	"bytes"
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

// A move into a stage of any rule of the account would make a new deal of what dealseal does itself, also if the rule is that of
// another tenant.
func TestMovesIntoAStageOfARuleAreFoundInTheFiles(t *testing.T) {
	t.Parallel()
	moving := func(to string) *patientHouse {
		return newPatient(t, deal.HubSpot, func(p *patientHouse) {
			p.tenant["    when:"] = "    move: {signed: " + to + "}\n    when:"
		})
	}
	if _, err := loadHouse(moving("closedlost").path("dealseal.yaml")); err != nil {
		t.Errorf("a stage that no rule watches is refused: %v", err)
	}
	p := moving("closedlost")
	file, err := os.ReadFile(p.path("tenants/acme.yaml"))
	must(t, err)
	other := bytes.ReplaceAll(bytes.ReplaceAll(file, []byte("{signed: closedlost}"), []byte("{signed: qualifiedtobuy}")), []byte("stage: closedwon"), []byte("stage: closedlost"))
	other = bytes.ReplaceAll(bytes.ReplaceAll(other, []byte("id: acme"), []byte("id: beta")), []byte("id: order-form"), []byte("id: memo"))
	p.write("tenants/beta.yaml", other)
	for rule, dir := range map[string]*patientHouse{"acme/order-form": moving("closedwon"), "beta/memo": p} {
		_, err := loadHouse(dir.path("dealseal.yaml"))
		if err == nil || !strings.Contains(err.Error(), "acme.yaml:5: ") || !strings.Contains(err.Error(), "that of rule "+rule) {
			t.Errorf("the move into the stage of %s gives %v", rule, err)
		}
	}
}

func TestTheMatrixSaysWhereRecordsGo(t *testing.T) {
	moves := map[deal.Status]string{deal.StatusHeld: "Parked", deal.StatusSigned: "Closed Won"}
	if got := movesInWords(moves); got != "Closed Won once signed, Parked once held" {
		t.Errorf("the matrix says %q", got)
	}
}

func TestTheTimelineIsOfTheRuleThatAsksForOne(t *testing.T) {
	t.Parallel()
	for extra, want := range map[string]string{"": "-", ", timeline: [signed, held]": "signed, held"} {
		p := newPatient(t, deal.HubSpot, func(p *patientHouse) {
			p.tenant["status: {field: dealseal_status}"] = "status: {field: dealseal_status}" + extra
		})
		h, err := loadHouse(p.path("dealseal.yaml"))
		must(t, err)
		rows, err := h.matrix("")
		must(t, err)
		if got := notesInWords(h.tenants[0].rules[0].Plan.Timeline); got != want || notesInWords(rows[0].Timeline) != want {
			t.Errorf("%q notes %q, and the matrix says %q", extra, got, notesInWords(rows[0].Timeline))
		}
	}
}

func TestAFollowUpIsOfTheRuleThatAsksForOne(t *testing.T) {
	t.Parallel()
	for extra, want := range map[string]string{"": "-", ", follow_up: {}": "after 168h", ", follow_up: {after: 36h, field: DealSeal_Follow_Up__c}": "after 36h"} {
		p := newPatient(t, deal.Salesforce, func(p *patientHouse) {
			p.tenant["status: {field: DealSeal_Status__c}"] = "status: {field: DealSeal_Status__c}" + extra
		})
		h, err := loadHouse(p.path("dealseal.yaml"))
		must(t, err)
		plan := h.tenants[0].rules[0].Plan
		rows, err := h.matrix("")
		must(t, err)
		if got := cmp.Or(rows[0].FollowUp, "-"); got != want || strings.Contains(extra, "field") != slices.Contains(plan.WriteBack.Fields(), "DealSeal_Follow_Up__c") {
			t.Errorf("%q: the matrix says %q, want %q; written are %q", extra, got, want, plan.WriteBack.Fields())
		}
	}
}
