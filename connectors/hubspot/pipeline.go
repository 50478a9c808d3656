package hubspot

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// pipeline is a pipeline of deals. IDs say nothing: they survive it when a label is changed.
type pipeline struct {
	ID       string  `json:"id"`
	Label    string  `json:"label"`
	Archived bool    `json:"archived"`
	Stages   []stage `json:"stages"`
}

type stage struct {
	ID       string `json:"id"`
	Label    string `json:"label"`
	Archived bool   `json:"archived"`
}

// String names a pipeline for people.
func (p pipeline) String() string { return fmt.Sprintf("%q (%s)", p.ID, p.Label) }

func (c *Connector) pipelines(ctx context.Context) ([]pipeline, error) {
	var said struct {
		Results []pipeline `json:"results"`
	}
	if _, err := c.getJSON(ctx, "/crm/pipelines/"+c.cfg.APIVersion+"/"+Object, nil, &said); err != nil {
		return nil, err
	}
	if len(said.Results) == 0 {
		return nil, malformed("it names no pipeline")
	}
	var active []pipeline
	for _, p := range said.Results {
		if p.Archived {
			continue
		}
		p.Stages = slices.DeleteFunc(p.Stages, func(s stage) bool { return s.Archived })
		active = append(active, p)
	}
	return active, nil
}

// stageMisfit says why a watch can find nothing; what is empty when it can.
func stageMisfit(w deal.Watch, pipelines []pipeline) (what, cure string) {
	within := pipelines
	if w.Pipeline != "" {
		within = slices.DeleteFunc(slices.Clone(pipelines), func(p pipeline) bool { return p.ID != w.Pipeline })
		if len(within) == 0 {
			return fmt.Sprintf("there is no pipeline with the ID %q", w.Pipeline), pipelineCure(w.Pipeline, pipelines)
		}
	}
	if len(stagesThat(within, func(s stage) bool { return s.ID == w.Stage })) > 0 {
		return "", ""
	}
	if w.Pipeline != "" {
		if found := stagesThat(pipelines, func(s stage) bool { return s.ID == w.Stage }); len(found) > 0 {
			return fmt.Sprintf("the stage %q does not belong to the pipeline %s", w.Stage, within[0]),
				fmt.Sprintf("it belongs to the pipeline %s: correct when.pipeline or when.stage", found[0].in)
		}
		return fmt.Sprintf("there is no stage with the ID %q in the pipeline %s", w.Stage, within[0]), stageCure(w.Stage, within)
	}
	return fmt.Sprintf("there is no stage with the ID %q in any pipeline", w.Stage), stageCure(w.Stage, within)
}

// resolve puts the ID of the only stage with that label in its place.
func resolve(w deal.Watch, pipelines []pipeline) deal.Watch {
	within := slices.DeleteFunc(slices.Clone(pipelines), func(p pipeline) bool { return w.Pipeline != "" && p.ID != w.Pipeline })
	if len(stagesThat(pipelines, func(s stage) bool { return s.ID == w.Stage })) > 0 {
		return w
	}
	if found := stagesThat(within, func(s stage) bool { return strings.EqualFold(s.Label, w.Stage) }); len(found) == 1 {
		w.Stage = found[0].ID
	}
	return w
}

func pipelineCure(name string, pipelines []pipeline) string {
	var labels, ids []string
	for _, p := range pipelines {
		if strings.EqualFold(p.Label, name) {
			labels = append(labels, fmt.Sprintf("the pipeline labelled %q has the ID %q", p.Label, p.ID))
		}
		ids = append(ids, p.ID)
	}
	if labels != nil {
		return "when.pipeline is an ID and no label: " + strings.Join(labels, "; ")
	}
	return strings.TrimSpace("correct when.pipeline, or leave it out to watch the stage wherever it is; " + connectors.Suggest(name, ids))
}

// foundStage is a stage and the pipeline that it belongs to.
type foundStage struct {
	stage
	in pipeline
}

func stagesThat(pipelines []pipeline, match func(stage) bool) []foundStage {
	var found []foundStage
	for _, p := range pipelines {
		for _, s := range p.Stages {
			if match(s) {
				found = append(found, foundStage{s, p})
			}
		}
	}
	return found
}

// stageCure resolves a label, which is what people take for the name of a stage, and otherwise proposes what is near.
func stageCure(name string, pipelines []pipeline) string {
	found := stagesThat(pipelines, func(s stage) bool { return strings.EqualFold(s.Label, name) })
	if len(found) == 0 {
		var names []string
		for _, s := range stagesThat(pipelines, func(stage) bool { return true }) {
			names = append(names, s.ID, s.Label)
		}
		near := connectors.Nearest(name, names)
		found = stagesThat(pipelines, func(s stage) bool { return slices.Contains(near, s.ID) || slices.Contains(near, s.Label) })
	}
	var known []string
	for _, s := range found {
		known = append(known, fmt.Sprintf("the stage labelled %q of the pipeline %s has the ID %q", s.Label, s.in, s.ID))
	}
	if known == nil {
		return "correct when.stage: it is the internal ID of a stage, which HubSpot shows in the settings of the pipeline"
	}
	return "when.stage is an internal ID: " + strings.Join(known, "; ")
}
