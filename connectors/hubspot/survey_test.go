package hubspot

import (
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

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

func TestScopesBeyondWhatIsNeededAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		flow      string
		scopes    []string
		workflows bool
		want      []string // of the one problem; nil for none
	}{
		"just those":                       {FlowToken, leastScopes, false, nil},
		"finer ones for files":             {FlowToken, append(slices.Clone(leastScopes), "files.read", "files.write"), false, nil},
		"more":                             {FlowToken, append(slices.Clone(leastScopes), "tickets", "automation"), false, []string{"more than dealseal needs: automation, tickets", "take them from the app"}},
		"that of setting up":               {FlowOAuth, append(slices.Clone(leastScopes), SetUpScope), false, []string{SetUpScope, "while dealseal provision makes properties"}},
		"workflows that are configured":    {FlowOAuth, append(slices.Clone(leastScopes), "automation"), true, nil},
		"workflows that are not let go on": {FlowToken, leastScopes, true, []string{"the scope automation is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, c.flow, func(o *mock.Options) {
				if c.flow == FlowOAuth {
					o.OAuth.Scopes = c.scopes
				} else {
					o.Tokens[0].Scopes = c.scopes
				}
			})
			problems, told, err := w.connector(quiet()).Surplus(t.Context(), connectors.Probe{Workflows: c.workflows})
			w.must(err)
			if !told || (len(problems) > 0) != (c.want != nil) {
				t.Fatalf("told %t: %+v", told, problems)
			}
			if c.want != nil {
				expectProblem(t, problems, c.want...)
			}
		})
	}
	w := newWorld(t, FlowToken)
	_, err := w.portal.SetFault(mock.Fault{Kind: mock.KindTokenInfo, Effect: mock.EffectBadGateway, Times: 1})
	w.must(err)
	if problems, told, err := w.connector(quiet()).Surplus(t.Context(), connectors.Probe{}); err == nil || told || problems != nil {
		t.Errorf("without an answer: %+v, %t, %v", problems, told, err)
	}
	_, err = w.portal.SetFault(mock.Fault{Kind: mock.KindTokenInfo, Effect: mock.EffectForbidden, Times: 1})
	w.must(err)
	if problems, told, err := w.connector(quiet()).Surplus(t.Context(), connectors.Probe{}); err != nil || told || problems != nil {
		t.Errorf("of a key that HubSpot tells nothing of: %+v, %t, %v", problems, told, err)
	}
}

func TestTasksThatMayNotBeMadeAreSaidWhereTheyAreWanted(t *testing.T) {
	w := newWorldWith(t, FlowToken, func(o *mock.Options) {
		o.Tokens[0].Scopes = slices.DeleteFunc(mock.AllScopes(), func(s string) bool { return s == "crm.objects.contacts.write" })
	})
	problems, err := w.connector(quiet()).Survey(t.Context(), connectors.Probe{WriteBack: []deal.WriteBack{{Task: &deal.TaskWords{}}}})
	w.must(err)
	if !slices.ContainsFunc(problems, func(p connectors.Problem) bool { return strings.Contains(p.What, "owners cannot be given tasks") }) {
		t.Errorf("%+v", problems)
	}
}

func TestNotesThatMayNotBeMadeAreSaidWhereTheyAreWanted(t *testing.T) {
	w := allScopesBut(t, "crm.objects.contacts.read")
	for _, wanted := range []bool{false, true} {
		problems, err := w.connector(quiet()).Survey(t.Context(), connectors.Probe{Timeline: wanted})
		w.must(err)
		said := slices.ContainsFunc(problems, func(p connectors.Problem) bool {
			return strings.Contains(p.What, "timelines of contacts") && strings.Contains(p.What, "crm.objects.contacts.read")
		})
		if said != wanted {
			t.Errorf("notes wanted %t: %+v", wanted, problems)
		}
	}
}
