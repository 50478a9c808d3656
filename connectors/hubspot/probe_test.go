package hubspot

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/hostile"
)

// expectProblem compares the one problem that there should be, or none when want is nil.
func expectProblem(t *testing.T, got []connectors.Problem, want ...string) {
	t.Helper()
	if want == nil {
		if len(got) != 0 {
			t.Errorf("problems %+v, want none", got)
		}
		return
	}
	if len(got) != 1 {
		t.Fatalf("%d problems, want one: %+v", len(got), got)
	}
	for _, w := range want {
		if !strings.Contains(got[0].What+"\n"+got[0].Cure, w) {
			t.Errorf("the problem lacks %q: %+v", w, got[0])
		}
	}
}

func (w *world) probe(p connectors.Probe) []connectors.Problem {
	w.t.Helper()
	problems, err := w.connector(quiet()).Probe(w.t.Context(), p)
	w.must(err)
	return problems
}

func TestStagesAreComparedByID(t *testing.T) {
	w := newWorld(t, FlowToken)
	for name, tc := range map[string]struct {
		pipeline, stage string
		want            []string
	}{
		"stage of any pipeline":     {"", "940013", nil},
		"stage of the pipeline":     {"94001", "940013", nil},
		"label in the pipeline":     {"94001", "Closed Won", []string{`labelled "Closed Won"`, `"94001" (Renewals)`, `has the ID "940013"`}},
		"label that is ambiguous":   {"", "closed won", []string{`"default" (Sales Pipeline) has the ID "closedwon"`, `"94001" (Renewals) has the ID "940013"`}},
		"stage of another pipeline": {"default", "940013", []string{`does not belong to the pipeline "default"`, `"94001" (Renewals)`}},
		"typo in an ID":             {"default", "closedwonn", []string{`has the ID "closedwon"`}},
		"typo in a label":           {"default", "Contract Sennt", []string{`has the ID "contractsent"`}},
		"nothing like it":           {"", "zzzzzzzzzzzzzzzzzzzz", []string{"settings of the pipeline"}},
		"label of a pipeline":       {"Renewals", "940013", []string{`no pipeline with the ID "Renewals"`, `has the ID "94001"`}},
		"no such pipeline":          {"94002", "940013", []string{`did you mean "94001"?`}},
	} {
		t.Run(name, func(t *testing.T) {
			watch := deal.Watch{Rule: "r", Object: Object, Pipeline: tc.pipeline, Stage: tc.stage}
			expectProblem(t, w.probe(connectors.Probe{Watches: []deal.Watch{watch}}), tc.want...)
		})
	}
}

func TestALabelStandsForItsStageIfOnlyOneBearsIt(t *testing.T) {
	w := newWorld(t, FlowToken)
	for name, tc := range map[string]struct{ pipeline, stage, want string }{
		"ID":                         {"", "940013", "940013"},
		"label":                      {"default", "Closed Won", "closedwon"},
		"label in other letters":     {"", "qualified TO buy", "qualifiedtobuy"},
		"ambiguous label":            {"", "Closed Won", "Closed Won"},
		"label of another pipeline":  {"94001", "Qualified To Buy", "Qualified To Buy"},
		"nothing like it":            {"", "zzzz", "zzzz"},
		"ID in another pipeline":     {"default", "940013", "940013"},
		"pipeline that is not there": {"94002", "Closed Won", "Closed Won"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := w.connector(quiet()).Resolve(t.Context(), deal.Watch{Rule: "r", Object: Object, Pipeline: tc.pipeline, Stage: tc.stage})
			w.must(err)
			if diff := cmp.Diff(deal.Watch{Rule: "r", Object: Object, Pipeline: tc.pipeline, Stage: tc.want}, got); diff != "" {
				t.Errorf("watch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestArchivedStagesAreNone(t *testing.T) {
	const stages = `"stages":[{"id":"1","label":"Won","archived":true},{"id":"2","label":"Lost"}]`
	transport := &canned{status: http.StatusOK, body: `{"results":[{"id":"a","label":"A",` + stages + `},` +
		`{"id":"b","label":"B","archived":true,` + strings.ReplaceAll(stages, "true", "false") + `}]}`}
	c := newWorld(t, FlowToken).connectorOver(transport, quiet())
	for id, n := range map[string]int{"1": 1, "2": 0} {
		problems, err := c.Probe(t.Context(), connectors.Probe{Watches: []deal.Watch{{Rule: "r", Object: Object, Stage: id}}})
		if err != nil || len(problems) != n {
			t.Errorf("stage %s: %+v, %v; want %d problems", id, problems, err, n)
		}
	}
}

func TestPathsOfEveryKindOfRecordAreChecked(t *testing.T) {
	w := newWorld(t, FlowToken)
	for path, want := range map[string][]string{
		"dealname": nil, "company.name": nil, "contacts.email": nil, "line_items.price": nil, "owner.email": nil,
		"hs_v2_date_entered_closedwon": nil, // exists and is not listed
		"delname":                      {`did you mean "dealname"?`},
		"company.nname":                {"companies have no property", `"name"`},
		"contacts.nothing":             {"contacts have no property"},
		"line_items.prise":             {`"price"`},
		"owner.salary":                 {"an owner has only"},
		"quotes.title":                 {"no \"quotes\""},
	} {
		t.Run(path, func(t *testing.T) {
			expectProblem(t, w.probe(connectors.Probe{Read: []string{path}}), want...)
		})
	}
}

func TestPropertiesMustBeOfTheTypeThatTheDocumentMakesOfThem(t *testing.T) {
	w := newWorld(t, FlowToken)
	const number, date = deal.NumberValue, deal.DateValue
	for path, tc := range map[string]struct {
		as      deal.ValueType
		warning bool
		want    []string
	}{
		"amount": {number, false, nil}, "closedate": {date, false, nil}, "line_items.quantity": {number, false, nil}, "hs_v2_date_entered_closedwon": {date, false, nil},
		"owner.email":  {number, false, nil}, // owners have no properties
		"dealname":     {number, true, []string{"dealname", "type string", "needs a number"}},
		"hs_is_closed": {date, false, []string{"type bool", "can make no date", "date or datetime"}},
		"createdate":   {number, false, []string{"can make no number"}},
	} {
		t.Run(path, func(t *testing.T) {
			problems := w.probe(connectors.Probe{Read: []string{path}, Types: map[string]deal.ValueType{path: tc.as}})
			expectProblem(t, problems, tc.want...)
			if len(problems) > 0 && (problems[0].Warning != tc.warning || problems[0].Aspect != connectors.AspectRead) {
				t.Errorf("problem %+v", problems[0])
			}
		})
	}
}

func TestPropertiesMustTakeWhatIsWritten(t *testing.T) {
	w := newWorld(t, FlowToken)
	add := func(name, kind, fieldType string, options ...mock.PropertyOption) {
		w.must(w.portal.AddProperty("deals", mock.Property{
			Name: name, Label: name, Type: kind, FieldType: fieldType, GroupName: "dealinformation", Options: options,
		}))
	}
	add("a_day", "date", "date")
	add("a_page", "string", "html")
	add("a_phone", "string", "phonenumber")
	add("a_text", "string", "text")
	add("a_choice", "enumeration", "select", mock.PropertyOption{Label: "Signed", Value: "sgn"})
	for name, tc := range map[string]struct {
		to   deal.WriteBack
		want []string
	}{
		"text everywhere":       {deal.WriteBack{TransactionID: "a_text", Status: "a_text", SignedAt: "a_text", URL: "a_text", Audit: "a_text"}, nil},
		"date for time":         {deal.WriteBack{SignedAt: "a_day"}, []string{"write_back.signed_at", "type date", "not a date"}},
		"html for audit":        {deal.WriteBack{Audit: "a_page"}, []string{"write_back.audit", "html"}},
		"phone for transaction": {deal.WriteBack{TransactionID: "a_phone"}, []string{"write_back.transaction_id", "phonenumber"}},
		"labels for words":      {deal.WriteBack{Status: "a_choice"}, []string{`lacks the option "Queued"`, `labelled "Signed" has the internal name "sgn"`}},
		"HubSpot's own":         {deal.WriteBack{TransactionID: "hs_object_id"}, []string{"cannot be written"}},
		"not listed":            {deal.WriteBack{SignedAt: "hs_v2_date_entered_closedwon"}, []string{"cannot be written"}},
		"typo":                  {deal.WriteBack{Audit: "dealseal_audt"}, []string{`did you mean "dealseal_audit"?`}},
	} {
		t.Run(name, func(t *testing.T) {
			expectProblem(t, w.probe(connectors.Probe{WriteBack: []deal.WriteBack{tc.to}}), tc.want...)
		})
	}
}

func TestMissingScopeForAPathIsAProblem(t *testing.T) {
	w := newWorld(t, FlowToken)
	for path, fault := range map[string]mock.Fault{
		"company.name": {Kind: mock.KindProperties, Path: "/companies", Effect: mock.EffectForbidden},
		"owner.email":  {Kind: mock.KindOwners, Effect: mock.EffectForbidden},
	} {
		_, err := w.portal.SetFault(fault)
		w.must(err)
		expectProblem(t, w.probe(connectors.Probe{Read: []string{path, "dealname"}}), path, "may not see", "scope")
		w.portal.ClearFaults()
	}
}

func TestProbeThatIsCutIsNoProblemOfTheConfiguration(t *testing.T) {
	w := newWorld(t, FlowToken)
	p := connectors.Probe{
		Watches: []deal.Watch{{Rule: "r", Object: Object, Stage: "closedwon"}}, Read: []string{"owner.email"}, WriteBack: []deal.WriteBack{{Status: "dealseal_status"}},
	}
	p.WriteBack[0].Words = w.Traits().WriteBack.Words
	unlisted := p
	unlisted.Read = []string{"not_listed"} // which is then asked for by its name
	for name, tc := range map[string]struct {
		fault mock.Fault
		probe connectors.Probe
	}{
		"pipelines":  {mock.Fault{Kind: mock.KindPipelines}, p},
		"properties": {mock.Fault{Kind: mock.KindProperties}, p},
		"property":   {mock.Fault{Kind: mock.KindProperties, Path: "/not_listed"}, unlisted},
		"owners":     {mock.Fault{Kind: mock.KindOwners}, p},
	} {
		for _, effect := range []mock.Effect{mock.EffectReset, mock.EffectBadGateway, mock.EffectTruncated, mock.EffectDailyLimit} {
			if name == "property" && effect == mock.EffectTruncated {
				continue // the mock cuts successes only, and this is none
			}
			tc.fault.Effect = effect
			_, err := w.portal.SetFault(tc.fault)
			w.must(err)
			problems, err := w.connector(quiet()).Probe(t.Context(), tc.probe)
			if err == nil || deal.IsPermanent(err) || problems != nil {
				t.Errorf("%s at %s: %+v and %v, want an error that is worth another try", effect, name, problems, err)
			}
			w.portal.ClearFaults()
		}
	}
	expectProblem(t, w.probe(p))
}

func FuzzDefinitions(f *testing.F) {
	f.Add([]byte(`[{"id":"default","label":"Sales","stages":[{"id":"1","label":"Won"}]}]`), []byte(`{"name":"p","type":"enumeration","options":[{"label":"Signed","value":"signed"}]}`))
	f.Add([]byte(`[null,{"stages":[null]}]`), []byte(`{"type":"string","fieldType":"html","modificationMetadata":null}`))
	f.Fuzz(func(t *testing.T, listed, defined []byte) {
		hostile.Budget(t)
		if len(listed)+len(defined) > maxFuzz {
			return
		}
		var pipelines []pipeline
		if json.Unmarshal(listed, &pipelines) == nil {
			for _, w := range []deal.Watch{{Object: Object, Stage: "won"}, {Object: Object, Pipeline: "default", Stage: "won"}} {
				if what, cure := stageMisfit(w, pipelines); (what == "") != (cure == "") {
					t.Errorf("a problem has no name or no cure: %q, %q", what, cure)
				}
			}
		}
		var p property
		if json.Unmarshal(defined, &p) == nil {
			for _, target := range targets(deal.WriteBack{TransactionID: "p", Status: "p", SignedAt: "p", URL: "p", Audit: "p"}) {
				if what, cure := p.misfit(target); (what == "") != (cure == "") {
					t.Errorf("a problem has no name or no cure: %q, %q", what, cure)
				}
			}
		}
	})
}
