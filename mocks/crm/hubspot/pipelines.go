package hubspot

import "strconv"

// Pipeline is a deal pipeline.
type Pipeline struct {
	ID, Label string
	Stages    []Stage
}

// Stage is a stage of a pipeline. Its ID says nothing about its label.
type Stage struct {
	ID, Label   string
	Probability string // 0.0 to 1.0; a closed stage with 1.0 is won
	Closed      bool
}

func defaultPipelines() []Pipeline {
	return []Pipeline{
		{ID: "default", Label: "Sales Pipeline", Stages: []Stage{
			{"appointmentscheduled", "Appointment Scheduled", "0.2", false},
			{"qualifiedtobuy", "Qualified To Buy", "0.4", false},
			{"presentationscheduled", "Presentation Scheduled", "0.6", false},
			{"decisionmakerboughtin", "Decision Maker Bought-In", "0.8", false},
			{"contractsent", "Contract Sent", "0.9", false},
			{"closedwon", "Closed Won", "1.0", true},
			{"closedlost", "Closed Lost", "0.0", true},
		}},
		{ID: "94001", Label: "Renewals", Stages: []Stage{
			{"940011", "In Review", "0.5", false},
			{"940012", "Contract Sent", "0.9", false},
			{"940013", "Closed Won", "1.0", true},
			{"940014", "Closed Lost", "0.0", true},
		}},
	}
}

func (p *Portal) pipeline(id string) (Pipeline, bool) {
	for _, pl := range p.pipelines {
		if pl.ID == id {
			return pl, true
		}
	}
	return Pipeline{}, false
}

func (pl Pipeline) stage(id string) (Stage, bool) {
	for _, s := range pl.Stages {
		if s.ID == id {
			return s, true
		}
	}
	return Stage{}, false
}

const pipelineMade = "2025-01-01T00:00:00.000Z"

func (pl Pipeline) view(order int) map[string]any {
	stages := []any{}
	for i, s := range pl.Stages {
		stages = append(stages, s.view(i))
	}
	return map[string]any{
		"id": pl.ID, "label": pl.Label, "displayOrder": order, "archived": false, "stages": stages,
		"createdAt": pipelineMade, "updatedAt": pipelineMade,
	}
}

func (s Stage) view(order int) map[string]any {
	return map[string]any{
		"id": s.ID, "label": s.Label, "displayOrder": order, "archived": false,
		"metadata":  map[string]string{"isClosed": strconv.FormatBool(s.Closed), "probability": s.Probability},
		"createdAt": pipelineMade, "updatedAt": pipelineMade, "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT",
	}
}

// pipelinesOf lists the pipelines of the type in the path: only deals have any.
func (c *call) pipelinesOf() ([]Pipeline, *reply) {
	t, bad := c.objectType("type")
	if bad != nil || t.plural != "deals" {
		return nil, bad
	}
	return c.p.pipelines, nil
}

func (c *call) listPipelines() *reply {
	pipelines, bad := c.pipelinesOf()
	if bad != nil {
		return bad
	}
	results := []any{}
	for i, pl := range pipelines {
		results = append(results, pl.view(i))
	}
	return respond(200, map[string]any{"results": results})
}

// onePipeline finds the pipeline in the path and its place among the others.
func (c *call) onePipeline() (Pipeline, int, *reply) {
	pipelines, bad := c.pipelinesOf()
	if bad != nil {
		return Pipeline{}, 0, bad
	}
	id := c.r.PathValue("pipeline")
	for i, pl := range pipelines {
		if pl.ID == id {
			return pl, i, nil
		}
	}
	return Pipeline{}, 0, notFound(id)
}

func (c *call) getPipeline() *reply {
	pl, i, bad := c.onePipeline()
	if bad != nil {
		return bad
	}
	return respond(200, pl.view(i))
}

func (c *call) listStages() *reply {
	pl, i, bad := c.onePipeline()
	if bad != nil {
		return bad
	}
	return respond(200, map[string]any{"results": pl.view(i)["stages"]})
}

func (c *call) getStage() *reply {
	pl, _, bad := c.onePipeline()
	if bad != nil {
		return bad
	}
	for i, s := range pl.Stages {
		if s.ID == c.r.PathValue("stage") {
			return respond(200, s.view(i))
		}
	}
	return notFound(c.r.PathValue("stage"))
}
