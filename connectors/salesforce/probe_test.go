package salesforce

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/hostile"
)

// described is an Opportunity of an org that was translated and tidied up, with the given fields beside its stages.
func described(fields ...field) *sobject {
	o := &sobject{Name: Object, fields: map[string]field{"StageName": {Name: "StageName", Type: "picklist", Values: []pickValue{
		{"Open", "Offen", true}, {"Closed Won", "Gewonnen", true}, {"Old", "Alt", false}, {"Gone", "Vorbei", false},
	}}}}
	for _, f := range fields {
		o.fields[f.Name] = f
	}
	return o
}

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

func TestStagesAreComparedByAPINameAndActive(t *testing.T) {
	for stage, want := range map[string][]string{
		"Closed Won":  nil,
		"Gewonnen":    {`"Gewonnen" is a label`, `"Closed Won"`},
		"gewonnen":    {`"gewonnen" is a label`, `"Closed Won"`},
		"Old":         {"not active"},
		"Alt":         {`"Open", "Closed Won"`}, // the label of a stage that is not active is no help
		"Closed Wonn": {`did you mean "Closed Won"?`},
	} {
		t.Run(stage, func(t *testing.T) {
			watches := []deal.Watch{{Rule: "r", Object: Object, Stage: stage, Since: time.Now()}}
			expectProblem(t, described().misfits(kinds[0], connectors.Probe{Watches: watches}, 100), want...)
		})
	}
	hidden := &sobject{Name: Object}
	expectProblem(t, hidden.misfits(kinds[0], connectors.Probe{Watches: watch(time.Now())}, 100), "cannot see the field StageName")
}

func TestALabelStandsForItsStageIfOnlyOneBearsIt(t *testing.T) {
	o := described()
	stages := o.fields["StageName"]
	stages.Values = append(stages.Values, pickValue{"Won 1", "Doppelt", true}, pickValue{"Won 2", "doppelt", true}, pickValue{"Gewonnen 2", "Closed Won", true})
	o.fields["StageName"] = stages
	for stage, want := range map[string]string{
		"Closed Won": "Closed Won", // also a label, and yet the API name of a stage
		"Gewonnen":   "Closed Won", "offen": "Open",
		"Alt":     "Alt", // the label of a stage that is not active
		"Doppelt": "Doppelt", "Nirgends": "Nirgends",
	} {
		if got := o.resolve(kinds[0], deal.Watch{Object: Object, Stage: stage}).Stage; got != want {
			t.Errorf("%q stands for %q, want %q", stage, got, want)
		}
	}
	watches := []deal.Watch{{Rule: "r", Object: Object, Stage: "Doppelt"}}
	expectProblem(t, o.misfits(kinds[0], connectors.Probe{Watches: watches}, 100), "label of several stages", `"Won 1" and "Won 2"`)
}

func TestFieldsMustTakeWhatIsWritten(t *testing.T) {
	const link = 90
	var words []pickValue
	for _, s := range deal.Statuses {
		words = append(words, pickValue{s.Word, s.Word, true})
	}
	translated := append([]pickValue{{"SGN", "Signed", true}}, words[:2]...)
	translated = append(translated, words[3:]...)
	inactive := append([]pickValue{}, words...)
	inactive[6].Active = false
	for name, tc := range map[string]struct {
		f    field
		to   deal.WriteBack
		want []string
	}{
		"short transaction":    {field{Type: "string", Length: 25}, deal.WriteBack{TransactionID: "F"}, []string{"write_back.transaction_id", "25", "26"}},
		"enough":               {field{Type: "string", Length: 26}, deal.WriteBack{TransactionID: "F"}, nil},
		"text for audit":       {field{Type: "string", Length: 255}, deal.WriteBack{Audit: "F"}, []string{"write_back.audit", "1000"}},
		"long text for audit":  {field{Type: "textarea", Length: 1000}, deal.WriteBack{Audit: "F"}, nil},
		"rich text for audit":  {field{Type: "textarea", Length: 32768, Rich: true}, deal.WriteBack{Audit: "F"}, []string{"rich text"}},
		"short link":           {field{Type: "url", Length: link - 1}, deal.WriteBack{URL: "F"}, []string{"write_back.url", "89", "90"}},
		"link":                 {field{Type: "url", Length: link}, deal.WriteBack{URL: "F"}, nil},
		"date for time":        {field{Type: "date"}, deal.WriteBack{SignedAt: "F"}, []string{"type date", "date/time"}},
		"text for time":        {field{Type: "string", Length: 28}, deal.WriteBack{SignedAt: "F"}, nil},
		"short text for time":  {field{Type: "string", Length: 27}, deal.WriteBack{SignedAt: "F"}, []string{"27", "28"}},
		"text for status":      {field{Type: "string", Length: 18}, deal.WriteBack{Status: "F"}, nil},
		"too short for status": {field{Type: "string", Length: 17}, deal.WriteBack{Status: "F"}, []string{"17", "18"}},
		"open picklist":        {field{Type: "picklist"}, deal.WriteBack{Status: "F"}, nil},
		"restricted picklist":  {field{Type: "picklist", Restricted: true, Values: words}, deal.WriteBack{Status: "F"}, nil},
		"label of a word": {field{Type: "picklist", Restricted: true, Values: translated}, deal.WriteBack{Status: "F"},
			[]string{`lacks the active value "Signed"`, `"Signed" is a label, its API name is "SGN"`}},
		"inactive word": {field{Type: "picklist", Restricted: true, Values: inactive}, deal.WriteBack{Status: "F"}, []string{`"Held"`}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.f.Name, tc.f.Updateable = "F", true
			expectProblem(t, described(tc.f).misfits(kinds[0], connectors.Probe{WriteBack: []deal.WriteBack{tc.to}}, link), tc.want...)
		})
	}
}

func TestFieldsMustBeOfTheTypeThatTheDocumentMakesOfThem(t *testing.T) {
	w := newWorld(t, "")
	const number, date = deal.NumberValue, deal.DateValue
	for path, tc := range map[string]struct {
		as      deal.ValueType
		warning bool
		want    []string
	}{
		"Amount": {number, false, nil}, "Probability": {number, false, nil}, "CloseDate": {date, false, nil}, "LastStageChangeDate": {date, false, nil},
		"OpportunityLineItems.Quantity": {number, false, nil}, "Account.Name": {deal.TextValue, false, nil}, "CurrencyIsoCode": {number, false, nil},
		"NextStep":                       {number, true, []string{"NextStep", "type string", "needs a number", "currency"}},
		"Name":                           {date, true, []string{"needs a date"}},
		"IsWon":                          {number, false, []string{"type boolean", "can make no number"}},
		"Owner.IsActive":                 {date, false, []string{"can make no date", "date or datetime"}},
		"OpportunityLineItems.UnitPrice": {date, false, []string{"type currency", "can make no date"}},
	} {
		t.Run(path, func(t *testing.T) {
			problems, err := w.connector(nil).Probe(t.Context(), connectors.Probe{Read: []string{path}, Types: map[string]deal.ValueType{path: tc.as}})
			w.must(err)
			expectProblem(t, problems, tc.want...)
			if len(problems) > 0 && (problems[0].Warning != tc.warning || problems[0].Aspect != connectors.AspectRead) {
				t.Errorf("problem %+v", problems[0])
			}
		})
	}
}

func TestProblemThatIsMendedIsNoticedWithoutARestart(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	p := connectors.Probe{Watches: watch(w.Now()), Read: []string{"Account.Name"}, WriteBack: []deal.WriteBack{w.Traits().WriteBack}}
	for name, change := range map[string]struct{ spoil, mend func() }{
		"edit access": {func() { w.org.DenyEdit("Opportunity." + auditField) }, func() { w.org.AllowEdit("Opportunity." + auditField) }},
		"read access": {func() { w.org.Hide("Account.Name") }, func() { w.org.Show("Account.Name") }},
		"object":      {func() { w.org.Hide("Account") }, func() { w.org.Show("Account") }},
	} {
		c.schema = newSchema(c.describe, w.Now)
		change.spoil()
		if problems, err := c.Probe(t.Context(), p); err != nil || len(problems) != 1 {
			t.Errorf("%s: %+v, %v; want one problem", name, problems, err)
		}
		change.mend()
		w.Advance(2 * freshEnough)
		if problems, err := c.Probe(t.Context(), p); err != nil || len(problems) != 0 {
			t.Errorf("%s, mended: %+v, %v; want none", name, problems, err)
		}
	}
}

func TestProbeOfWhatFitsIsRemembered(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	p := connectors.Probe{Watches: watch(w.Now()), WriteBack: []deal.WriteBack{w.Traits().WriteBack}}
	for range 3 {
		w.Advance(time.Hour)
		if problems, err := c.Probe(t.Context(), p); err != nil || problems != nil {
			t.Fatalf("%+v, %v", problems, err)
		}
	}
	want := map[mock.Kind]int{mock.KindToken: 1, mock.KindDescribe: 1, mock.KindQuery: 3} // a look at the history each time
	if diff := cmp.Diff(want, w.org.Counts()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestProbeNamesAMarkerFieldThatCannotServe(t *testing.T) {
	w := newWorld(t, "Nonsense__c")
	problems, err := w.connector(nil).Probe(t.Context(), connectors.Probe{})
	w.must(err)
	expectProblem(t, problems, "Nonsense__c", "tx_marker")
	w.txMarker = "DealSeal_Key__c"
	problems, err = w.connector(nil).Probe(t.Context(), connectors.Probe{})
	w.must(err)
	expectProblem(t, problems)
}

func TestProbeThatIsCutIsNoProblemOfTheConfiguration(t *testing.T) {
	for _, object := range []string{"Opportunity", "Account", "ContentVersion"} {
		for _, effect := range []mock.Effect{mock.CutBefore, mock.HTMLUnavailable, mock.EmptyList, mock.TruncatedJSON, mock.RequestLimit} {
			w := newWorld(t, "DealSeal_Key__c")
			_, err := w.org.SetFault(mock.Fault{Kind: mock.KindDescribe, Path: "/" + object + "/", Effect: effect})
			w.must(err)
			problems, err := w.connector(nil).Probe(t.Context(), connectors.Probe{Watches: watch(w.Now()), Read: []string{"Account.Name"}})
			if err == nil || deal.IsPermanent(err) || problems != nil {
				t.Errorf("%s at %s: %+v and %v, want an error that is worth another try", effect, object, problems, err)
			}
		}
	}
}

func TestSessionThatMayNotBeUsedIsNoProblemOfAPath(t *testing.T) {
	w := newWorld(t, "")
	_, err := w.org.SetFault(mock.Fault{
		Kind: mock.KindDescribe, Path: "/Account/", Effect: mock.SessionInvalid, Message: "This session is not valid for use with the REST API",
	})
	w.must(err)
	problems, err := w.connector(nil).Probe(t.Context(), connectors.Probe{Read: []string{"Account.Name"}})
	if !connectors.IsLogin(err) || problems != nil {
		t.Errorf("%+v and %v, want trouble with the login", problems, err)
	}
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{"name":"Opportunity","fields":[{"name":"StageName","type":"picklist","picklistValues":[{"value":"Closed Won","label":"Won","active":true}]}]}`))
	f.Add([]byte(`{"name":"Opportunity","fields":[{"name":"F","type":"picklist","updateable":true,"restrictedPicklist":true}],"childRelationships":[{}]}`))
	f.Add([]byte(`{"name":"Opportunity","fields":[null,{"length":-1}]}`))
	p := connectors.Probe{Watches: watch(t20), WriteBack: []deal.WriteBack{{TransactionID: "F", Status: "F", SignedAt: "F", URL: "F", Audit: "F"}}}
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		if len(body) > 64<<10 {
			return
		}
		o, err := parseDescribe(body)
		if err != nil {
			return
		}
		for _, problem := range o.misfits(kinds[0], p, 100) {
			if problem.What == "" || problem.Cure == "" {
				t.Errorf("a problem has no name or no cure: %+v", problem)
			}
		}
	})
}
