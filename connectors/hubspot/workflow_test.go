package hubspot

import (
	"log/slog"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

// TestARefusedEndOfAWorkflowIsNotTakenForOneThatIsUnknown: only the latter may mean that the workflow was told before.
func TestARefusedEndOfAWorkflowIsNotTakenForOneThatIsUnknown(t *testing.T) {
	w := newWorld(t, FlowToken)
	c := w.connector(slog.New(slog.DiscardHandler))
	if err := c.Complete(t.Context(), "ap-1-1-1-0", "signed", ""); !connectors.IsNoCallback(err) {
		t.Errorf("HubSpot knows no such workflow: %v", err)
	}
	_, err := w.portal.SetFault(mock.Fault{Path: "/complete", Effect: mock.EffectValidation, Times: 1})
	w.must(err)
	if err := c.Complete(t.Context(), "ap-1-1-1-0", "signed", ""); err == nil || connectors.IsNoCallback(err) || !deal.IsPermanent(err) {
		t.Errorf("HubSpot refuses what it is told: %v, unknown %t, permanent %t", err, connectors.IsNoCallback(err), deal.IsPermanent(err))
	}
}
