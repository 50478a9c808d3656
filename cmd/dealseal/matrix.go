package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
)

// matrixRow is what happens to the records of one object that enter one stage.
type matrixRow struct {
	Tenant   string   `json:"tenant"`
	CRM      string   `json:"crm"`
	Object   string   `json:"object"`
	Pipeline string   `json:"pipeline,omitempty"`
	Stage    string   `json:"stage"`
	Filter   string   `json:"filter,omitempty"` // that a record must meet
	Detect   string   `json:"detect"`           // by history, or by snapshot
	Rule     string   `json:"rule"`
	Document string   `json:"document"`
	Fields   []string `json:"fields"` // that are read of the record for the document
	Seal     string   `json:"seal"`   // the profile
	Key      string   `json:"key"`
	Level    string   `json:"level"`
	// WriteBack are the fields of the record that are written, IfLeft and ReEntry what happens to a record that leaves the
	// stage before it is sealed, or enters it again.
	WriteBack []string `json:"write_back"`
	IfLeft    string   `json:"if_left"`
	ReEntry   string   `json:"re_entry"`
	// Moves are the stages that the record is moved to, by the status that its deal comes to.
	Moves map[deal.Status]string `json:"moves,omitempty"`
	// FollowUp is how long a deal may have no outcome before that is told.
	FollowUp string `json:"follow_up,omitempty"`
	// Timeline are the statuses that are noted on the record's timeline.
	Timeline []deal.Status `json:"timeline,omitempty"`
}

// matrixCommand prints the configuration as the table that a house decides about: which stage makes which document, sealed
// how, and what the record shows of it. It asks nobody.
func matrixCommand(_ context.Context, c *call) error {
	h, err := loadHouse(c.config)
	if err != nil {
		return err
	}
	rows, err := h.matrix(c.tenant)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, rows)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENANT\tOBJECT\tSTAGE\tFOUND BY\tRULE\tDOCUMENT\tFIELDS\tSEALED\tWRITTEN BACK\tIF LEFT\tRE-ENTRY\tMOVED TO\tFOLLOWED UP\tNOTED")
	for _, r := range rows {
		stage := r.Stage
		if r.Pipeline != "" {
			stage = r.Pipeline + "/" + stage
		}
		if r.Filter != "" {
			stage += " where " + r.Filter
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s, %s with %s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Tenant, r.Object, stage, r.Detect, r.Rule, r.Document, len(r.Fields), r.Seal, r.Level, r.Key,
			strings.Join(r.WriteBack, ", "), r.IfLeft, r.ReEntry, movesInWords(r.Moves), cmp.Or(r.FollowUp, "-"), notesInWords(r.Timeline))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Detect == "snapshot" {
			fmt.Fprintf(c.stdout, "\n%s/%s is found by snapshot: %s\n", r.Tenant, r.Rule, connectors.SnapshotBlindness)
		}
	}
	for _, r := range rows {
		if len(r.Fields) > 0 {
			fmt.Fprintf(c.stdout, "\n%s/%s reads %s\n", r.Tenant, r.Rule, strings.Join(r.Fields, ", "))
		}
	}
	return nil
}

func movesInWords(moves map[deal.Status]string) string {
	var words []string
	for _, status := range deal.MoveStatuses {
		if stage := moves[status]; stage != "" {
			words = append(words, fmt.Sprintf("%s once %s", stage, status))
		}
	}
	return cmp.Or(strings.Join(words, ", "), "-")
}

func notesInWords(statuses []deal.Status) string {
	var words []string
	for _, s := range statuses {
		words = append(words, string(s))
	}
	return cmp.Or(strings.Join(words, ", "), "-")
}

func (h *house) matrix(only string) ([]matrixRow, error) {
	rows := []matrixRow{}
	var ids []string
	for _, t := range h.tenants {
		id := t.file.Tenant.ID
		if ids = append(ids, id); only != "" && only != id {
			continue
		}
		for i := range t.rules {
			profile, err := h.profileOf(t.file.Rules[i])
			if err != nil {
				return nil, err
			}
			rows = append(rows, rowOf(t, i, profile))
		}
	}
	if only != "" && !slices.Contains(ids, only) {
		return nil, fmt.Errorf("there is no tenant with the id %q: there are %s", only, strings.Join(ids, ", "))
	}
	return rows, nil
}

func rowOf(t tenant, i int, profile signing.Profile) matrixRow {
	file, plan := t.file.Rules[i], t.rules[i].Plan
	row := matrixRow{Tenant: t.file.Tenant.ID, CRM: t.file.CRM.Kind, Object: file.Object, Pipeline: file.When.Pipeline, Stage: file.When.Stage, Filter: file.When.Filter, Detect: file.Detect, Rule: file.ID,
		Document: file.Document.Template, Fields: append([]string{}, plan.Fields...), Seal: file.Seal, Key: profile.Key, Level: string(profile.Level),
		WriteBack: plan.WriteBack.Fields(), IfLeft: file.IfLeft, ReEntry: file.ReEntry, Moves: plan.Moves, Timeline: plan.Timeline}
	if plan.FollowUp > 0 {
		row.FollowUp = fmt.Sprintf("after %gh", plan.FollowUp.Hours())
	}
	switch {
	case file.Delegated != nil:
		row.Document = "signed at " + file.Delegated.Vendor
	case row.Document == "":
		row.Document = "the newest file " + file.Document.Attachment
	}
	return row
}
