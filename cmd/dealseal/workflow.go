package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
)

const checkWorkflow = "workflow"

// workflowLine says of a workflow that waits, or has waited, how it stands.
func workflowLine(c deal.Callback) string {
	text := fmt.Sprintf("%s waits since %s, until %s at the latest", c.ID, c.At.Format(time.RFC3339), c.AnswerBy.Format(time.RFC3339))
	switch {
	case c.Fate == deal.CallbackTold:
		return fmt.Sprintf("%s was told: %s", c.ID, c.Outcome)
	case c.Fate == deal.CallbackExpired:
		text = fmt.Sprintf("%s was not told in time, and HubSpot has let it go on by itself", c.ID)
	case c.Fate == deal.CallbackUnknown:
		text = fmt.Sprintf("%s is not known to HubSpot any more: somebody has ended it", c.ID)
	case c.Outcome != "":
		text = fmt.Sprintf("%s is to be told: %s", c.ID, c.Outcome)
	}
	if c.Problem != "" {
		text += "; last attempt: " + c.Problem
	}
	return text
}

// examineWorkflows reports workflows that cannot be told what has become of their deals, as far as the daemon is asked.
func (x *examiner) examineWorkflows(ctx context.Context, t tenant, report func(doctor.Finding)) {
	if x.callbacks == nil {
		return
	}
	all, err := x.callbacks(ctx)
	if err != nil {
		report(failed(checkWorkflow, err, "see the check of the state directory"))
		return
	}
	f := all[deal.TenantID(t.file.Tenant.ID)]
	if f.Failing > 0 {
		report(doctor.Failed(checkWorkflow, "mend that; the app needs the scope automation. They are told until HubSpot lets them go on by itself", "%s cannot be told what has become of their deals: %s", plural(int(f.Failing), "workflow"), f.Problem))
	}
	if f.Lost > 0 {
		report(doctor.Warned(checkWorkflow, "look at the deals in HubSpot whose workflow has gone on without a result; the log of the daemon names them", "%s of the last 24 hours were not told in time, or are not known to HubSpot", plural(int(f.Lost), "workflow")))
	}
	if f.Failing+f.Lost == 0 && f.Waiting > 0 {
		report(doctor.Passed(checkWorkflow, "%s for a deal, the oldest since %s", pluralWaits(f.Waiting), f.Oldest.Format(time.RFC3339)))
	}
}

func pluralWaits(n int64) string {
	if n == 1 {
		return "1 workflow waits"
	}
	return fmt.Sprintf("%d workflows wait", n)
}
