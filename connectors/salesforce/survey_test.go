package salesforce

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

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

func TestAUserThatMayDoMoreThanIsNeededIsNamed(t *testing.T) {
	w := newWorld(t, "")
	surplus := func() []connectors.Problem {
		t.Helper()
		problems, told, err := w.connector(nil).Surplus(t.Context(), connectors.Probe{})
		if err != nil || !told {
			t.Fatalf("told %t, %v", told, err)
		}
		return problems
	}
	if problems := surplus(); problems != nil {
		t.Errorf("a user with nothing but what is needed: %+v", problems)
	}
	w.org.Permit("ViewAllData")
	w.org.AdminRights(true)
	problems := surplus()
	expectProblem(t, problems, "more than dealseal needs: View All Data, Customize Application", "while dealseal provision makes fields")
	if problems[0].Aspect != connectors.AspectScopes || !problems[0].Warning {
		t.Errorf("%+v", problems[0])
	}
	w.org.Hide("UserPermissionAccess")
	if problems, told, err := w.connector(nil).Surplus(t.Context(), connectors.Probe{}); problems != nil || told || err != nil {
		t.Errorf("an org that does not tell: %+v, %t, %v", problems, told, err)
	}
}

func TestTasksThatCannotBeMadeAreSaidWhereTheyAreWanted(t *testing.T) {
	w := newWorld(t, "")
	w.CreateDeals(2, "Prospecting")
	w.org.DenyEdit("Task.Description")
	for _, tasks := range []*deal.TaskWords{nil, {}} {
		problems, err := w.connector(nil).Survey(t.Context(), connectors.Probe{WriteBack: []deal.WriteBack{{Task: tasks}}})
		if err != nil || (len(problems) > 0) != (tasks != nil) {
			t.Fatalf("tasks wanted %t: %+v, %v", tasks != nil, problems, err)
		}
		if tasks != nil {
			expectProblem(t, problems, "cannot be given tasks", "Description", "tasks.owner")
		}
	}
}

func TestNotesThatCannotBeMadeAreSaidWhereTheyAreWanted(t *testing.T) {
	w := newWorld(t, "")
	w.CreateDeals(2, "Prospecting")
	w.org.DenyEdit("Task.Description")
	for _, wanted := range []bool{false, true} {
		problems, err := w.connector(nil).Survey(t.Context(), connectors.Probe{Timeline: wanted})
		if err != nil || (len(problems) > 0) != wanted {
			t.Fatalf("notes wanted %t: %+v, %v", wanted, problems, err)
		}
		if wanted {
			expectProblem(t, problems, "cannot be given notes", "Description", "write_back.timeline")
		}
	}
}

func TestActivatedOrdersTakeAPermission(t *testing.T) {
	w := newWorld(t, "")
	w.kind = kinds[3] // whose user is permitted nothing
	w.CreateDeals(1, "Draft")
	problems, err := w.connector(nil).Survey(t.Context(), connectors.Probe{Watches: orders(w.Now())})
	w.must(err)
	expectProblem(t, problems, "may not edit activated orders", "Edit Activated Orders")
	w.org.Permit("EditActivatedOrders")
	problems, err = w.connector(nil).Survey(t.Context(), connectors.Probe{Watches: orders(w.Now())})
	w.must(err)
	expectProblem(t, problems)
}

func TestTheSourceFolderHasRightsToTheObjectsOfRulesAlone(t *testing.T) {
	for object, want := range map[string][]string{
		"Quote":    {"Account", "Opportunity", "Quote"}, // a quote cannot be read without its opportunity
		"Contract": {"Account", "Contract"},
		"Order":    {"Account", "Order"},
		Object:     {"Account", Object},
	} {
		files, err := SourceFolder([]connectors.Written{{Object: object, WriteBack: deal.WriteBack{Status: "State__c"}}}, "", "66.0", "")
		if err != nil || files["force-app/main/default/objects/"+object+"/fields/State__c.field-meta.xml"] == nil {
			t.Errorf("%s: %v, %v", object, slices.Sorted(maps.Keys(files)), err)
		}
		var got []string
		for _, part := range strings.Split(string(files["force-app/main/default/permissionsets/"+PermissionSet+".permissionset-meta.xml"]), "<object>")[1:] {
			name, _, _ := strings.Cut(part, "<")
			got = append(got, name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: rights to %v, want %v", object, got, want)
		}
	}
}

// The right to make tasks is given where tasks or notes are wanted, and nowhere else.
func TestTheRightToTasksIsGivenWhereSomeAreWanted(t *testing.T) {
	for name, wanted := range map[string]connectors.Written{
		"tasks": {Object: Object, WriteBack: deal.WriteBack{Task: &deal.TaskWords{Subject: "s", Days: 1}}},
		"notes": {Object: Object, Timeline: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			w.LetSetUp()
			c := w.connector(nil)
			c.cfg.TxMarker = ""
			lacking := func(of connectors.Written) []connectors.Provision {
				t.Helper()
				list, err := c.Lacking(t.Context(), []connectors.Written{of})
				w.must(err)
				return list
			}
			probe := connectors.Probe{Object: Object, Watches: watch(w.Now()), Timeline: wanted.Timeline, WriteBack: []deal.WriteBack{wanted.WriteBack}}
			if list := lacking(wanted); len(list) > 0 {
				t.Fatalf("a user who may make tasks lacks %+v", list)
			}
			for _, field := range []string{"WhatId", "Subject", "Description", "ActivityDate", "Status", "Priority", "OwnerId"} {
				w.org.DenyEdit("Task." + field)
			}
			named := func() bool {
				t.Helper()
				problems, err := w.connector(nil).Survey(t.Context(), probe)
				w.must(err)
				return slices.ContainsFunc(problems, func(p connectors.Problem) bool {
					return strings.Contains(p.What, "a Task cannot be made") && strings.Contains(p.Cure, `"Edit Tasks" (dealseal provision does)`)
				})
			}
			if !named() {
				t.Error("nothing says which right is missing")
			}
			if list := lacking(connectors.Written{Object: Object}); len(list) > 0 {
				t.Errorf("whoever makes none lacks %+v", list)
			}
			list := lacking(wanted)
			if len(list) != 3 || !strings.Contains(list[1].What, "Edit Tasks") {
				t.Fatalf("it lacks %+v, want a permission set, the right, and its assignment", list)
			}
			for range 2 { // somebody else may have made them meanwhile
				for _, x := range list {
					w.must(x.Make(t.Context()))
				}
			}
			if list := lacking(wanted); len(list) > 0 {
				t.Errorf("after all was made it lacks %+v", list)
			}
			if named() {
				t.Error("after it was given it is still said to be missing")
			}

			files, err := SourceFolder([]connectors.Written{wanted}, "", "66.0", "")
			w.must(err)
			bare, err := SourceFolder([]connectors.Written{{Object: Object}}, "", "66.0", "")
			w.must(err)
			const path, right = "force-app/main/default/permissionsets/" + PermissionSet + ".permissionset-meta.xml", "<name>EditTask</name>"
			if set := string(files[path]); !strings.Contains(set, right) || strings.Contains(string(bare[path]), right) {
				t.Errorf("the permission set of the folder is\n%s", set)
			}
		})
	}
}
