package salesforce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/simpleforce/simpleforce"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Quote, Contract and Order have a history only of the fields that an administrator has chosen. A row of it names the field and
// its new value; one with the field "created" says that the record was made, and not with which values.

// madeField is the Field of the row that tells of a new record.
const madeField = "created"

// trackedStage reads the stage of a row of a history of fields, as the row writes it.
func trackedStage(k kind, row map[string]any) (stage string, made bool, err error) {
	switch name, _ := row["Field"].(string); name {
	case madeField:
		return "", true, nil
	case k.stage:
		stage, err = textValue(row["NewValue"])
		return stage, false, err
	}
	return "", false, fmt.Errorf("is not about the field %s", k.stage)
}

var errNoText = errors.New("has a value that is no text")

// textValue reads a value of a picklist, which may be empty.
func textValue(v any) (string, error) {
	s, ok := v.(string)
	if v != nil && !ok {
		return "", errNoText
	}
	return s, nil
}

// nameStages puts the API names of stages into rows of a history of fields. Rows from before since are of no use to anybody,
// and stay as they are.
func (c *Connector) nameStages(ctx context.Context, k kind, rows []historyRow, since time.Time) error {
	var made []int
	for i := range rows {
		row := &rows[i]
		if row.err != nil || row.at.Before(since) {
			continue
		}
		if !row.made {
			if err := c.nameStage(ctx, k, row, row.stage); err != nil {
				return err
			}
		} else if known, ok := c.before.get(row.id); ok {
			row.stage = known.stage
		} else {
			made = append(made, i)
		}
	}
	for len(made) > 0 {
		n := min(len(made), inBatch)
		if err := c.askMade(ctx, k, rows, made[:n]); err != nil {
			return err
		}
		made = made[n:]
	}
	return nil
}

// nameStage gives a row the API name of its stage: histories may show the label instead.
func (c *Connector) nameStage(ctx context.Context, k kind, row *historyRow, shown string) error {
	if row.stage = shown; shown == "" {
		return nil
	}
	o, err := c.schema.object(ctx, k.name, func(o *sobject) bool { _, ok := o.valueOf(k.stage, shown); return ok })
	if err != nil {
		return err
	}
	name, ok := o.valueOf(k.stage, shown)
	if !ok {
		row.err = fmt.Errorf("the row names a %s that is neither the API name nor the label of one", k.stage)
	}
	row.stage = name
	return nil
}

// valueOf finds the API name of a picklist's value by that or by its label, if only one has it.
func (o *sobject) valueOf(fieldName, shown string) (name string, ok bool) {
	n := 0
	for _, v := range o.fields[fieldName].Values {
		if v.Value == shown {
			return shown, true
		}
		if v.Label == shown {
			name, n = v.Value, n+1
		}
	}
	return name, n == 1
}

// askMade finds the stages in which records were made: the first change of a stage says what was before it, and where there
// is none the record is in it still. That is why the record is read first.
func (c *Connector) askMade(ctx context.Context, k kind, rows []historyRow, made []int) error {
	var ids []string
	for _, i := range made {
		ids = append(ids, rows[i].record)
	}
	first := map[string]any{}
	now, err := c.lookUp(ctx, "SELECT Id, "+k.stage+" FROM "+k.name+" WHERE Id IN "+quoteAll(ids))
	if err != nil {
		return err
	}
	for _, r := range now.rows {
		if id, err := idField(r["Id"]); err == nil {
			first[id] = r[k.stage]
		}
	}
	moved := map[string]bool{}
	soql := "SELECT " + k.parent() + ", OldValue FROM " + k.history() + " WHERE " + k.parent() + " IN " + quoteAll(ids) +
		" AND Field = " + quote(k.stage) + " ORDER BY CreatedDate, Id"
	err = c.eachPage(ctx, soql, func(page []simpleforce.SObject, _ time.Time) bool {
		for _, r := range page {
			if id, err := idField(r[k.parent()]); err == nil && !moved[id] {
				moved[id], first[id] = true, r["OldValue"]
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, i := range made {
		row := &rows[i]
		value, known := first[row.record]
		if !known {
			row.err = errors.New("the record vanished while its history was being read")
			continue
		}
		shown, err := textValue(value)
		if err != nil {
			row.err = fmt.Errorf("%s %w", k.stage, err)
			continue
		}
		if err := c.nameStage(ctx, k, row, shown); err != nil {
			return err
		}
		if row.err == nil {
			c.before.put(row.id, stageBefore{stage: row.stage})
		}
	}
	return nil
}

// trackedAnew is how long an answer is good for that a field is tracked: nothing else tells of an administrator who ends it.
const trackedAnew = time.Hour

// trackings remembers when the stages of objects were last seen to be tracked.
type trackings struct {
	now  func() time.Time
	mu   sync.Mutex
	seen map[string]time.Time
}

// checkTracking holds that Salesforce still writes a history of the stage: without it a poll finds nothing, and looks well.
func (c *Connector) checkTracking(ctx context.Context, k kind) error {
	if !k.tracked {
		return nil
	}
	now := c.tracked.now()
	c.tracked.mu.Lock()
	seen, ok := c.tracked.seen[k.name]
	c.tracked.mu.Unlock()
	if ok && now.Sub(seen) < trackedAnew {
		return nil
	}
	if is, told, err := c.isTracked(ctx, k); err != nil {
		return err
	} else if told && !is {
		return refuse("%s; %s", untracked(k), trackIt(k))
	}
	c.tracked.mu.Lock()
	defer c.tracked.mu.Unlock()
	if c.tracked.seen == nil {
		c.tracked.seen = map[string]time.Time{}
	}
	c.tracked.seen[k.name] = now
	return nil
}

// isTracked asks whether the history of a stage is kept. told is false where the user may not ask.
func (c *Connector) isTracked(ctx context.Context, k kind) (is, told bool, err error) {
	found, err := c.lookUp(ctx, "SELECT IsFieldHistoryTracked FROM FieldDefinition WHERE EntityDefinition.QualifiedApiName = "+quote(k.name)+
		" AND QualifiedApiName = "+quote(k.stage))
	if isMisfit(err) {
		return false, false, nil
	}
	if err != nil || len(found.rows) == 0 {
		return false, false, err
	}
	is, told = found.rows[0]["IsFieldHistoryTracked"].(bool)
	return is, told, nil
}

// untracked says what is missing, and trackIt what to do about it.
func untracked(k kind) string {
	return "the history of " + k.name + "." + k.stage + " is not tracked: nobody could tell when a record enters a status"
}

func trackIt(k kind) string {
	return "have it tracked (Setup, Object Manager, " + k.name + ", Fields & Relationships, Set History Tracking: " + k.stage + "); what is done before that is never found; " +
		"where it cannot be, detect: snapshot in the rule infers entries, and misses short stays"
}

// entryMisfits say why entries of an object would not be found, or not all of them.
func (c *Connector) entryMisfits(ctx context.Context, k kind, watches []deal.Watch) ([]connectors.Problem, error) {
	if isSnapshot(k, watches) {
		return c.snapshotMisfit(ctx, k, watches)
	}
	return c.historyMisfits(ctx, k)
}

// historyMisfits say why no entry of an object would be found.
func (c *Connector) historyMisfits(ctx context.Context, k kind) ([]connectors.Problem, error) {
	_, err := c.lookUp(ctx, "SELECT Id FROM "+k.history()+" LIMIT 1")
	if err = noHistory(k, err); isMisfit(err) {
		return []connectors.Problem{{Aspect: connectors.AspectStage, What: "the stage history of " + k.plural + " cannot be read", Cure: cureOf(err)}}, nil
	}
	if err != nil || !k.tracked {
		return nil, err
	}
	switch is, told, err := c.isTracked(ctx, k); {
	case err != nil:
		return nil, err
	case !told:
		return []connectors.Problem{{Aspect: connectors.AspectStage, Warning: true, What: "the org does not tell whether the history of " + k.name + "." + k.stage + " is tracked",
			Cure: "see that it is, or nothing is ever found: " + trackIt(k)}}, nil
	case !is:
		return []connectors.Problem{{Aspect: connectors.AspectStage, What: untracked(k), Cure: trackIt(k)}}, nil
	}
	return nil, nil
}

// noHistory turns "no such object" for a history into what the administrator has to do.
func noHistory(k kind, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Code != "INVALID_TYPE" && e.Code != "INVALID_FIELD" {
		return err
	}
	cure := "the user cannot read " + k.history() + ": give it read access to " + k.plural + " and to the field " + k.stage
	if k.tracked {
		cure += "; " + trackIt(k)
	}
	return &Error{Status: e.Status, Code: e.Code, class: permanent, cure: cure + "; dealseal does not start without it"}
}
