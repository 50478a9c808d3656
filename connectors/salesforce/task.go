package salesforce

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/dealseal/dealseal/connectors"
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
	id, err := c.markedTask(ctx, record, t.Mark())
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
	return c.makeTask(ctx, record, map[string]any{"WhatId": record, "OwnerId": found.rows[0]["OwnerId"], "Subject": t.Title(), "Description": t.Body,
		"ActivityDate": t.Due.UTC().Format(time.DateOnly), "Status": "Not Started", "Priority": "High"})
}

// Note implements connectors.Noter. What the timelines of all kinds of records show, and what can be searched, is a task: this one
// is completed when it is made, and belongs to our own user.
func (c *Connector) Note(ctx context.Context, ref deal.Ref, n deal.Note) (id string, err error) {
	ref, k, err := checkRef(ref)
	if err == nil {
		id, err = c.note(ctx, k, ref.ID, n)
	}
	if err != nil {
		return "", fmt.Errorf("salesforce: put a note on %s: %w", ref, err)
	}
	return id, nil
}

func (c *Connector) note(ctx context.Context, k kind, record string, n deal.Note) (string, error) {
	if err := c.late.Check(record); err != nil {
		return "", err
	}
	id, err := c.markedTask(ctx, record, n.Mark())
	if err != nil || id != "" || n.OnlyLook {
		return id, err
	}
	id, err = c.makeTask(ctx, record, map[string]any{"WhatId": record, "Subject": n.Title(), "Description": n.Body,
		"ActivityDate": n.At.UTC().Format(time.DateOnly), "Status": "Completed", "Priority": "Normal"})
	if err != nil && deal.IsPermanent(err) && !connectors.IsLogin(err) {
		if found, lookErr := c.lookUp(ctx, "SELECT Id FROM "+k.name+" WHERE Id = "+quote(record)); lookErr == nil && len(found.rows) == 0 {
			return "", deal.ErrGone
		}
	}
	return id, err
}

// markedTask finds the task about a record that bears a mark.
func (c *Connector) markedTask(ctx context.Context, record, mark string) (string, error) {
	return c.onlyID(ctx, "SELECT Id FROM Task WHERE WhatId = "+quote(record)+" AND Subject LIKE "+quote("%"+mark)+" ORDER BY Id LIMIT 1")
}

func (c *Connector) makeTask(ctx context.Context, record string, fields map[string]any) (string, error) {
	body, err := json.Marshal(fields)
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
