package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// watched is a deal on its way.
type watched struct {
	crm     *crm
	record  string
	tx      deal.TxID
	step    deal.Step
	noticed time.Time
}

func newWatched(c *crm, record string) *watched { return &watched{crm: c, record: record} }

// result is one entry of result.json.
type result struct {
	Tenant string            `json:"tenant"`
	CRM    string            `json:"crm"`
	Object string            `json:"object"`
	Record string            `json:"record"`
	Tx     string            `json:"tx"`
	Status string            `json:"status"`
	Level  string            `json:"level"`
	SHA256 string            `json:"sha256"`
	File   string            `json:"file"`
	Fields map[string]string `json:"fields"`
	Steps  []stepTime        `json:"steps"`

	name    string
	content []byte
}

type stepTime struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
}

// watch shows the steps of all deals until each is done.
func (d *dealsealDaemon) watch(ctx context.Context, screen *screen, deals []*watched) ([]result, error) {
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	var results []result
	for open := len(deals); open > 0; {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("not all deals were done in time: look at %s/ and %s", d.page, d.logFile)
		case err := <-d.ended:
			return nil, fmt.Errorf("the daemon ended by itself (%v): its log is %s", err, d.logFile)
		case <-tick.C:
		}
		list, err := d.list(ctx)
		if err != nil {
			return nil, err
		}
		for _, w := range deals {
			if w.step == deal.Done {
				continue
			}
			story, err := d.look(ctx, w, list)
			if err != nil {
				return nil, err
			}
			if story == nil {
				continue
			}
			screen.steps(w, story)
			if w.step == deal.Done {
				open--
				results = append(results, w.result(story))
			}
		}
	}
	return results, nil
}

// look finds the deal and reads its story.
func (d *dealsealDaemon) look(ctx context.Context, w *watched, list []store.Summary) (*store.Story, error) {
	for _, m := range list {
		if m.Ref.ID != w.record {
			continue
		}
		story, err := d.story(ctx, string(m.Tx))
		if err != nil {
			return nil, err
		}
		if s := story.Sealing; s.Condition == deal.Held || s.Condition == deal.Dead {
			return nil, fmt.Errorf("%s %s is %s at step %s: %s", w.crm.kind, w.record, s.Condition, s.Step, s.Reason)
		}
		return story, nil
	}
	return nil, nil
}

// result compares what the daemon says with what the CRM has.
func (w *watched) result(story *store.Story) result {
	s := story.Sealing
	r := result{Tenant: w.crm.tenant, CRM: w.crm.kind, Object: w.crm.object, Record: w.record, Tx: string(s.Tx), Level: s.Facts.Level, Fields: w.crm.fields(w.record)}
	for name, value := range r.Fields {
		if name == "DealSeal_Status__c" || name == "dealseal_status" {
			r.Status = value
		}
	}
	r.name, r.content = w.crm.contract(w.record)
	sum := sha256.Sum256(r.content)
	r.SHA256 = hex.EncodeToString(sum[:])
	last := s.Noticed
	for _, step := range deal.Steps[1:] {
		at, ok := s.Facts.Times[step]
		if !ok {
			continue
		}
		r.Steps = append(r.Steps, stepTime{Name: string(step), MS: float64(at.Sub(last).Microseconds()) / 1000})
		last = at
	}
	return r
}

// writeResults leaves the sealed files and result.json behind.
func (w *world) writeResults(results []result) error {
	for i := range results {
		r := &results[i]
		if len(r.content) == 0 {
			return fmt.Errorf("%s %s has no contract on it", r.CRM, r.Record)
		}
		r.File = filepath.Join("sealed", r.CRM+"-"+r.Tx+".pdf")
		if err := os.WriteFile(w.path(r.File), r.content, 0o644); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(w.path("result.json"), append(b, '\n'), 0o644)
}
