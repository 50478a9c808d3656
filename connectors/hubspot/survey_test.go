package hubspot

import (
	"slices"
	"testing"

	"github.com/dealseal/dealseal/connectors"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func TestAMissingScopeIsNamedBeforeItIsNeeded(t *testing.T) {
	for scope, tc := range map[string]struct {
		aspect connectors.Aspect
		want   []string
	}{
		"crm.objects.deals.write":     {connectors.AspectAccess, []string{"fields cannot be written to deals", "crm.objects.deals.write", "scope"}},
		"crm.objects.contacts.write":  {connectors.AspectFiles, []string{"notes that carry files cannot be made", "crm.objects.contacts.write"}},
		"crm.objects.companies.read":  {connectors.AspectRead, []string{"companies cannot be read", "crm.objects.companies.read"}},
		"crm.objects.line_items.read": {connectors.AspectRead, []string{"line_items cannot be read", "crm.objects.line_items.read"}},
	} {
		t.Run(scope, func(t *testing.T) {
			w := newWorldWith(t, FlowToken, func(o *mock.Options) {
				o.Tokens[0].Scopes = slices.DeleteFunc(mock.AllScopes(), func(s string) bool { return s == scope })
			})
			problems, err := w.connector(quiet()).Survey(t.Context(), connectors.Probe{Read: []string{"dealname", "company.name", "line_items.price", "owner.email"}})
			w.must(err)
			expectProblem(t, problems, tc.want...)
			if problems[0].Aspect != tc.aspect || problems[0].Warning {
				t.Errorf("aspect %q, warning %v", problems[0].Aspect, problems[0].Warning)
			}
		})
	}
}

func TestWithoutTheScopeOfFilesNothingCanBeAttached(t *testing.T) {
	w := newWorldWith(t, FlowToken, func(o *mock.Options) {
		o.Tokens[0].Scopes = slices.DeleteFunc(mock.AllScopes(), func(s string) bool { return s == "files" || s == "files.write" })
	})
	problems, err := w.connector(quiet()).Survey(t.Context(), connectors.Probe{})
	w.must(err)
	if len(problems) == 0 || problems[len(problems)-1].What != "files cannot be uploaded: HubSpot refuses (files)" {
		t.Errorf("%+v", problems)
	}
}

func TestSurveyThatIsCutIsNoProblemOfTheAccount(t *testing.T) {
	w := newWorld(t, FlowToken)
	for _, kind := range []mock.Kind{mock.KindList, mock.KindPatch, mock.KindFileSearch, mock.KindFileWrite} {
		_, err := w.portal.SetFault(mock.Fault{Kind: kind, Effect: mock.EffectBadGateway})
		w.must(err)
		if problems, err := w.connector(quiet()).Survey(t.Context(), connectors.Probe{}); err == nil || problems != nil {
			t.Errorf("%s: %+v and %v, want an error", kind, problems, err)
		}
		w.portal.ClearFaults()
	}
}
