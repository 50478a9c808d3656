package hubspot

import (
	"context"
	"fmt"
	"slices"

	"github.com/dealseal/dealseal/deal"
)

// Move implements connectors.Mover. HubSpot has no conditional write: whoever moves the deal in the moment between look and
// write is overruled. Deals that are moved at the same time share the calls.
func (c *Connector) Move(ctx context.Context, ref deal.Ref, m deal.Move) (stage string, err error) {
	on, err := c.to(ref)
	if err == nil && !on.kind.movable {
		err = refuse("%s are not moved by dealseal: leave move out of the rule", on.kind.name)
	}
	if err == nil {
		stage, err = on.move(ctx, ref.ID, m)
	}
	if err != nil {
		return "", fmt.Errorf("hubspot: move %s: %w", ref, err)
	}
	return stage, nil
}

func (c *Connector) move(ctx context.Context, id string, m deal.Move) (string, error) {
	release, err := c.turns.take(ctx, "write "+id)
	if err != nil {
		return "", err
	}
	defer release()
	if err := c.slow.Check("move " + id); err != nil {
		return "", err
	}
	d, err := c.readWith(ctx, id, nil, nil)
	if err != nil {
		return "", err
	}
	stage := value(d.Properties, c.kind.stage)
	if stage == m.To || !slices.Contains(m.From, stage) {
		return stage, nil
	}
	if !m.Since.IsZero() {
		page, err := c.entriesOf(ctx, []deal.Ref{{Object: c.kind.name, ID: d.ID}}, []deal.Watch{{Object: c.kind.name, Stage: m.To, Since: m.Since}})
		if err != nil || len(page.Entries) > 0 {
			return stage, err
		}
	}
	c.told.forgetShown(id)
	c.fresh.forget(d.ID)
	answer, err := c.updates.Ask(ctx, "", update{d.ID, map[string]string{c.kind.stage: m.To}})
	_, err = asked(ctx, answer, err)
	c.slow.Note("move "+id, err)
	if err != nil {
		return "", gone(err)
	}
	return m.To, nil
}

// moveMisfit says why a record cannot be moved as a rule wants it; what is empty when it can. A deal stays in its pipeline.
func moveMisfit(w deal.Watch, to string, pipelines []pipeline) (what, cure string) {
	isTo := func(s stage) bool { return s.ID == to }
	found := stagesThat(pipelines, isTo)
	if len(found) == 0 {
		return fmt.Sprintf("there is no stage with the ID %q to move deals to", to), stageCure(to, pipelines)
	}
	for _, p := range pipelines {
		watched := (w.Pipeline == "" || w.Pipeline == p.ID) && slices.ContainsFunc(p.Stages, func(s stage) bool { return s.ID == w.Stage })
		if watched && !slices.ContainsFunc(p.Stages, isTo) {
			return fmt.Sprintf("the stage %q to move deals to does not belong to the pipeline %s", to, p), fmt.Sprintf("it belongs to the pipeline %s, and deals stay in theirs: name one of the same pipeline", found[0].in)
		}
	}
	return "", ""
}
