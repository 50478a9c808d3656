package hubspot

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// taskToDeal is the type of the association from a task to a deal.
const taskToDeal = 216

// Task implements connectors.Tasker. It looks through the deal's tasks by their associations, because the search lags, and
// makes the task with its association in one call.
func (c *Connector) Task(ctx context.Context, ref deal.Ref, t deal.Task) (id string, err error) {
	on, err := c.to(ref)
	if err == nil {
		id, err = on.task(ctx, ref.ID, t)
	}
	if err != nil {
		return "", fmt.Errorf("hubspot: make a task about %s: %w", ref, err)
	}
	return id, nil
}

func (c *Connector) task(ctx context.Context, record string, t deal.Task) (string, error) {
	if err := c.late.Check(record); err != nil {
		return "", err
	}
	d, _, err := c.readDeal(ctx, record, []string{ownerProperty})
	if err != nil {
		return "", err
	}
	ends, err := c.associations(ctx, d.ID, "tasks")
	if err != nil {
		return "", err
	}
	if id, err := c.marked(ctx, "tasks", "hs_task_subject", idsOf(ends), t.Mark()); err != nil || id != "" || t.OnlyLook {
		return id, err
	}
	properties := map[string]string{"hs_timestamp": stampOf(t.Due), "hs_task_subject": t.Title(), "hs_task_body": htmlText.Replace(t.Body),
		"hs_task_status": "NOT_STARTED", "hs_task_priority": "HIGH", "hs_task_type": "TODO"}
	if owner := value(d.Properties, ownerProperty); owner != "" {
		properties[ownerProperty] = owner
	}
	typ, err := c.taskType(ctx)
	if err != nil {
		return "", err
	}
	var made object
	r, err := c.send(ctx, http.MethodPost, c.objects("tasks"), withToken, taskInput(properties, d.ID, typ))
	if err == nil {
		err = r.decode(&made)
	}
	c.late.Note(record, err)
	if err != nil {
		return "", c.later(err)
	}
	if _, ok := parseID(made.ID); !ok {
		return "", malformed("the task that was made has no ID")
	}
	return made.ID, nil
}

// htmlText makes plain text of what HubSpot takes for HTML.
var htmlText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\n", "<br>")

// taskInput is a task with its association to the record.
func taskInput(properties map[string]string, id string, typ int) map[string]any {
	return map[string]any{"properties": properties, "associations": []map[string]any{association(id, typ)}}
}
