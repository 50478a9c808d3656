package salesforce

import (
	"net/http"
	"testing"

	"github.com/dealseal/dealseal/connectors"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func TestWhatIsNotSharedWithTheUserIsNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil   func(w *world)
		aspect  connectors.Aspect
		warning bool
		want    []string
	}{
		"deals of other owners are hidden":      {func(w *world) { w.org.SetSharing(mock.Private) }, connectors.AspectAccess, true, []string{"sees no opportunity of another owner", "View All Records"}},
		"deals of other owners are for reading": {func(w *world) { w.org.SetSharing(mock.SharedForReading) }, connectors.AspectAccess, true, []string{"may not edit 2 of the 2", "Modify All Records"}},
		"files cannot be made":                  {func(w *world) { w.org.DenyEdit("ContentVersion.VersionData") }, connectors.AspectFiles, false, []string{"ContentVersion", "VersionData", "right to create files"}},
		"files are hidden":                      {func(w *world) { w.org.Hide("ContentVersion") }, connectors.AspectFiles, false, []string{"ContentVersion does not exist or is hidden", "right to create files"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			w.CreateDeals(2, "Prospecting")
			tc.spoil(w)
			problems, err := w.connector(nil).Survey(t.Context(), connectors.Probe{})
			if err != nil {
				t.Fatal(err)
			}
			expectProblem(t, problems, tc.want...)
			if problems[0].Aspect != tc.aspect || problems[0].Warning != tc.warning {
				t.Errorf("aspect %q, warning %v", problems[0].Aspect, problems[0].Warning)
			}
		})
	}
}

func TestSurveyThatIsCutIsNoProblemOfTheOrg(t *testing.T) {
	for _, kind := range []mock.Kind{mock.KindDescribe, mock.KindResources, mock.KindQuery} {
		w := newWorld(t, "")
		w.CreateDeals(1, "Prospecting")
		_, err := w.org.SetFault(mock.Fault{Kind: kind, Effect: mock.APIError, Status: http.StatusServiceUnavailable, Code: "SERVER_UNAVAILABLE", Message: "no"})
		w.must(err)
		if problems, err := w.connector(nil).Survey(t.Context(), connectors.Probe{}); err == nil || problems != nil {
			t.Errorf("%s: %+v and %v, want an error", kind, problems, err)
		}
	}
}
