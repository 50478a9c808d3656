package salesforce

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Move implements connectors.Mover. The write is made only if nobody has changed the record since it was looked at. Records
// that are moved at the same time share the calls.
func (c *Connector) Move(ctx context.Context, ref deal.Ref, m deal.Move) (stage string, err error) {
	ref, k, err := checkRef(ref)
	if err == nil {
		stage, err = c.move(ctx, k, ref.ID, m)
	}
	if err != nil {
		return "", fmt.Errorf("salesforce: move %s: %w", ref, err)
	}
	return stage, nil
}

func (c *Connector) move(ctx context.Context, k kind, id string, m deal.Move) (stage string, err error) {
	release, err := c.told.hold(ctx, id)
	if err != nil {
		return "", err
	}
	defer release()
	if err := c.slow.Check("move " + id); err != nil {
		return "", err
	}
	for range maxConflicts {
		if stage, err = c.lookAndMove(ctx, k, id, m); !isConflict(err) {
			break
		}
	}
	return stage, gone(err)
}

// lookAndMove makes one attempt.
func (c *Connector) lookAndMove(ctx context.Context, k kind, id string, m deal.Move) (string, error) {
	answer, err := c.records.Ask(ctx, "Id, "+k.stage+", SystemModstamp FROM "+k.name, id)
	found, err := asked(ctx, answer, err)
	if err != nil {
		return "", err
	}
	stage, _ := found.row[k.stage].(string)
	stamp, _ := found.row["SystemModstamp"].(string)
	changed, err := parseTime(stamp)
	switch {
	case err != nil || stage == "":
		return "", malformed("the record lacks %s or SystemModstamp", k.stage)
	case stage == m.To || !slices.Contains(m.From, stage):
		return stage, nil
	}
	if !m.Since.IsZero() {
		if was, err := c.wasIn(ctx, k, id, m.To, m.Since); err != nil || was {
			return stage, err
		}
	}
	c.told.forgetShown(id)
	date, err := c.patches.Ask(ctx, "", patch{k.name, id, map[string]any{k.stage: m.To}, changed})
	if _, err = asked(ctx, date, err); err != nil {
		c.slow.Note("move "+id, err)
		return "", err
	}
	return m.To, nil
}

// wasIn reports whether the history of a record says that it has been in a stage since a time. The values of a field's history
// cannot be asked for, so all its rows are read.
func (c *Connector) wasIn(ctx context.Context, k kind, id, stage string, since time.Time) (was bool, err error) {
	value, condition := k.stage, ""
	if k.tracked {
		value, condition = "NewValue", " AND Field = "+quote(k.stage)
	}
	err = c.eachRow(ctx, "SELECT Id, "+value+" FROM "+k.history()+" WHERE "+k.parent()+" = "+quote(id)+condition+" AND CreatedDate >= "+since.UTC().Format(queryTime), func(row map[string]any, _ time.Time) error {
		if !k.tracked || was {
			was = was || row[value] == stage
			return nil
		}
		shown, err := textValue(row[value])
		if err != nil {
			return malformed("a row of the history of %s %v", k.stage, err)
		}
		entry := historyRow{}
		if err := c.nameStage(ctx, k, &entry, shown); err != nil {
			return err
		}
		was = entry.stage == stage
		return nil
	})
	return was, err
}

// moveMisfit says why records cannot be moved to a stage; what is empty when they can.
func (o *sobject) moveMisfit(k kind, to string) (what, cure string) {
	if !o.fields[k.stage].Updateable {
		return "records cannot be moved to another stage: the field " + k.stage + " cannot be written", "give the integration user edit access to it, or take move out of the rule"
	}
	return o.stageMisfit(k, deal.Watch{Object: k.name, Stage: to})
}
