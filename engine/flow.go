package engine

import (
	"context"

	"github.com/dealseal/dealseal/deal"
)

// step is one stretch of the way of a deal: what leads from one deal.Step to the next.
type step struct {
	name string
	from deal.Step
	do   func(*run, context.Context) error
	// asks says that the step succeeds only if the CRM has let us in.
	asks bool
	// begins, calls and advances name every intent, outside call and commit that the step can make, in order. They
	// are the places where a crash must do no harm; the crash suite kills the daemon at each of them.
	begins, calls, advances []string
}

// flow is the way of a deal. Every arrow goes right; the only way back is from seal to gather, and only before a
// digest is committed.
var flow = []step{
	{name: "gather", from: deal.Noticed, do: (*run).gather, asks: true,
		begins: []string{"gather"}, calls: []string{"record"}, advances: []string{"gathered"}},
	{name: "render", from: deal.Gathered, do: (*run).render,
		begins: []string{"render"}, calls: []string{"document"}, advances: []string{"rendered"}},
	{name: "seal", from: deal.Rendered, do: (*run).seal,
		begins: []string{"prepare", "sign", "timestamp", "evidence",
			"second-prepare", "second-sign", "second-timestamp", "second-evidence", "archive-timestamp", "complete"},
		calls: []string{"rehearsal", "reread", "redeem", "tsa", "revocation",
			"second-rehearsal", "second-redeem", "second-tsa", "second-revocation", "archive-tsa"},
		advances: []string{"prepared", "digest", "signature", "token", "evidence",
			"second-prepared", "second-digest", "second-signature", "second-token", "second-evidence", "archive-token", "sealed"}},
	{name: "check", from: deal.Sealed, do: (*run).check,
		begins: []string{"check"}, calls: []string{"verify"}, advances: []string{"checked"}},
	{name: "keep", from: deal.Checked, do: (*run).keep,
		begins: []string{"trail", "keep"}, calls: []string{"trail"}, advances: []string{"trail", "kept"}},
	{name: "attach", from: deal.Kept, do: (*run).attach, asks: true,
		begins: []string{"attach"}, calls: []string{"files"}, advances: []string{"attached"}},
	{name: "report", from: deal.Attached, do: (*run).report,
		begins: []string{"report"}, calls: []string{"write-back"}, advances: []string{"reported"}},
	{name: "finish", from: deal.Reported, do: (*run).finish,
		advances: []string{"done"}},
}

// stepFrom returns the step that leads on from s, or nil at the end of the way.
func stepFrom(s deal.Step) *step {
	for i := range flow {
		if flow[i].from == s {
			return &flow[i]
		}
	}
	return nil
}

// Points lists the places of the flow at which a crash must lose and double nothing: "<step>.<begin|call|advance>.<name>"
// with "/before" and "/after". Engine.Hook is called with each as it is passed.
func Points() []string { return pointsOf(flow) }

func pointsOf(steps []step) (points []string) {
	for _, st := range steps {
		for _, group := range []struct {
			kind  string
			names []string
		}{{"begin", st.begins}, {"call", st.calls}, {"advance", st.advances}} {
			for _, name := range group.names {
				p := st.name + "." + group.kind + "." + name
				points = append(points, p+"/before", p+"/after")
			}
		}
	}
	return points
}
