package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// task puts a task before the owner of a record whose deal waits for a person, after the record shows that and before it
// counts as told: a crash between the two has the job look for the task, which the connector finds. A CRM that refuses is
// logged and tried no more, so that a missing permission keeps no receipt from being sent.
//
// asked is when a task was asked for of which it is not known what became, by this process or one before it, with this
// state or one that a backup has replaced. The CRM may
// still make it: until that is over it is only looked for, since two would be made.
func (e *Engine) task(ctx context.Context, t *Tenant, s *deal.Sealing, asked time.Time) error {
	tasker, able := t.CRM.(connectors.Tasker)
	task, wanted := deal.TaskOf(s, e.Now())
	if !able || !wanted {
		return nil
	}
	wait := e.lateAnswer(s, asked)
	task.OnlyLook = wait.onlyLook
	if wait.asks {
		if err := e.Ledger.Tasking(ctx, s.Tx, true); err != nil {
			return err
		}
	}
	id, err := tasker.Task(ctx, s.Change.Ref, task)
	switch {
	case err != nil && deal.IsPermanent(err) && !connectors.IsLogin(err):
		e.Log.ErrorContext(ctx, "the owner of a record could not be given a task: give dealseal's user the right to make tasks, or take tasks.owner out", "record", s.Change.Ref, "err", err)
	case err != nil:
		if !task.OnlyLook && deal.Unsettled(err) == 0 && ctx.Err() == nil {
			err = errors.Join(err, e.Ledger.Tasking(ctx, s.Tx, false))
		}
		return fmt.Errorf("make a task for the record's owner: %w", err)
	case id == "":
		return &taskWaitsError{wait.left}
	default:
		e.Log.InfoContext(ctx, "the owner of the record has a task", "task", id, "number", task.Number)
	}
	return nil
}

// lateAnswer says what may be done while an earlier request may still make what is wanted.
type lateAnswer struct {
	onlyLook bool          // look for it, and make none
	asks     bool          // the moment at which it is asked for is to be stored first: also when the clock was set back, since the wait begins with it
	left     time.Duration // for how long
}

func (e *Engine) lateAnswer(s *deal.Sealing, asked time.Time) lateAnswer {
	if epoch := e.Ledger.Epoch(); epoch.After(asked) && (s.Change.Earliest().Before(epoch) || s.Noticed.Before(epoch)) {
		asked = epoch // until then the state that a backup has replaced may have asked for it
	}
	left := asked.Add(lateWrite).Sub(e.Now())
	return lateAnswer{onlyLook: left > 0, asks: left <= 0 || left > lateWrite, left: min(left, lateWrite)}
}

// taskWaitsError is no trouble: the CRM may still make a task that was asked for.
type taskWaitsError struct{ left time.Duration }

func (e *taskWaitsError) Error() string {
	return "something about the record was asked for, and may still be made"
}

// RetryAfter is when that is over.
func (e *taskWaitsError) RetryAfter() time.Duration { return e.left }
