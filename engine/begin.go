package engine

import (
	"context"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
)

// begun is an intent that was committed together with the end of what came before it, so that between the two the disk is
// waited for once. It has the lease from then on.
type begun struct {
	deal.Intent
	at time.Time
}

// begunLife is how long after that the effect may begin without another commit: much shorter than any lease, since a deal may
// have to wait in between, for room on the disk or for others at work.
const begunLife = 20 * time.Second

// begin commits the intent to do something that others can see, unless that was done ahead.
func (r *run) begin(ctx context.Context, i deal.Intent) error {
	p := r.step.name + ".begin." + i.What
	r.hook(p + "/before")
	i.Step = r.s.Step
	if i.Lease == 0 {
		i.Lease = usualLease
	}
	if !r.hasBegun(i) {
		if err := r.Ledger.Begin(ctx, r.s, i); err != nil {
			return &commitError{err}
		}
	}
	r.hook(p + "/after")
	return nil
}

// hasBegun reports whether the intent was committed ahead, and uses that up.
func (r *run) hasBegun(i deal.Intent) bool {
	b := r.begun
	r.begun = nil
	if b == nil || b.Intent != i {
		return false
	}
	since := r.Now().Sub(b.at)
	return since >= 0 && since < begunLife
}

// following is what a deal begins with after the commit that brings it to a step. It is nil where something else comes
// first: a look, or the wait for a turn, which no lease covers.
func (r *run) following(next deal.Step) *deal.Intent {
	s := r.s
	switch {
	case next == deal.Gathered && s.Plan.Delegated != nil:
		return &deal.Intent{What: "follow"}
	case next == deal.Gathered:
		return &deal.Intent{What: "render", Lease: transferLease}
	case next == deal.Rendered && len(s.Private.Ticket) == 0:
		return &deal.Intent{What: "prepare"}
	case next == deal.Checked && s.Plan.AuditTrail == "":
		return r.toKeep()
	case next == deal.Kept && s.Facts.AttachAfter.IsZero():
		return r.toAttach()
	case next == deal.Attached:
		return &deal.Intent{What: "report"}
	}
	return nil
}

func (r *run) toKeep() *deal.Intent {
	return &deal.Intent{What: "keep", Digest: r.s.Facts.Contract.SHA256}
}

func (r *run) toAttach() *deal.Intent {
	return &deal.Intent{What: "attach", Digest: r.s.Facts.Contract.SHA256, Lease: transferLease}
}

// afterValue is what follows the signature value of a seal, and afterToken what follows its time-stamp.
func (r *run) afterValue(t *signing.Ticket, p part) *deal.Intent {
	if r.lacksToken(t, p) {
		return &deal.Intent{What: p.point + "timestamp"}
	}
	return r.afterToken(t, p)
}

func (r *run) afterToken(t *signing.Ticket, p part) *deal.Intent {
	if t.Profile.Level.AtLeast(pades.BLT) || p.point == "" && asksForTwo(r.s, t) {
		return nil // for evidence, or for a second seal, there is more to be asked, which has leases of its own
	}
	return &deal.Intent{What: "complete"}
}
