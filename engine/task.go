package engine

import (
	"context"
	"fmt"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// task puts a task before the owner of a record whose deal waits for a person, after the record shows that and before it
// counts as told: a crash between the two has the job look for the task, which the connector finds. A CRM that refuses is
// logged and tried no more, so that a missing permission keeps no receipt from being sent.
func (e *Engine) task(ctx context.Context, t *Tenant, s *deal.Sealing) error {
	tasker, able := t.CRM.(connectors.Tasker)
	task, wanted := deal.TaskOf(s, e.Now())
	if !able || !wanted {
		return nil
	}
	id, err := tasker.Task(ctx, s.Change.Ref, task)
	switch {
	case err != nil && deal.IsPermanent(err) && !connectors.IsLogin(err):
		e.Log.ErrorContext(ctx, "the owner of a record could not be given a task: give dealseal's user the right to make tasks, or take tasks.owner out", "record", s.Change.Ref, "err", err)
	case err != nil:
		return fmt.Errorf("make a task for the record's owner: %w", err)
	default:
		e.Log.InfoContext(ctx, "the owner of the record has a task", "task", id, "number", task.Number)
	}
	return nil
}
