package salesforce

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Task implements connectors.Tasker: one query for the task, and if there is none one for the owner, and one call that makes it.
// Subjects can be searched as soon as they are stored.
func (c *Connector) Task(ctx context.Context, ref deal.Ref, t deal.Task) (id string, err error) {
	ref, k, err := checkRef(ref)
	if err == nil {
		id, err = c.task(ctx, k, ref.ID, t)
	}
	if err != nil {
		return "", fmt.Errorf("salesforce: make a task about %s: %w", ref, err)
	}
	return id, nil
}

func (c *Connector) task(ctx context.Context, k kind, record string, t deal.Task) (string, error) {
	if err := c.late.Check(record); err != nil {
		return "", err
	}
	id, err := c.onlyID(ctx, "SELECT Id FROM Task WHERE WhatId = "+quote(record)+" AND Subject LIKE "+quote("%"+t.Mark())+" ORDER BY Id LIMIT 1")
	if err != nil || id != "" || t.OnlyLook {
		return id, err
	}
	found, err := c.lookUp(ctx, "SELECT OwnerId FROM "+k.name+" WHERE Id = "+quote(record))
	if err != nil {
		return "", err
	}
	if len(found.rows) == 0 {
		return "", deal.ErrGone
	}
	body, err := json.Marshal(map[string]any{"WhatId": record, "OwnerId": found.rows[0]["OwnerId"], "Subject": t.Title(), "Description": t.Body,
		"ActivityDate": t.Due.UTC().Format(time.DateOnly), "Status": "Not Started", "Priority": "High"})
	if err != nil {
		return "", err
	}
	r, err := c.call(ctx, http.MethodPost, c.wire.path("sobjects/Task"), nil, body)
	c.late.Note(record, err)
	if err != nil {
		return "", c.later(err)
	}
	var made struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(r.body, &made); err != nil || made.ID == "" {
		return "", malformed("the task that was made has no ID")
	}
	return CanonicalID(made.ID)
}
