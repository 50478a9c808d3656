package hubspot_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/hostile"
)

const searchPath = "/crm/objects/2026-03/deals/search"

// unlimited turns every rate limit off.
func unlimited(o *hubspot.Options) {
	o.Limits = hubspot.Limits{TenSecondly: -1, Daily: -1, SearchSecondly: -1, Associations: -1}
}

func (p *portal) found(body string) []string {
	p.t.Helper()
	a := p.must(200, "POST", searchPath, body)
	names := []string{}
	for i := range a.list("results") {
		names = append(names, a.text("results", i, "properties", "dealname"))
	}
	return names
}

func TestSearchFiltersAndSorts(t *testing.T) {
	p := start(t, unlimited)
	p.deal(map[string]string{"dealname": "Alpha one", "amount": "9", "dealstage": "contractsent"})
	p.clock.advance(time.Hour)
	p.deal(map[string]string{"dealname": "Beta two", "amount": "10", "dealstage": "closedwon"})
	p.clock.advance(time.Hour)
	gamma := p.deal(map[string]string{"dealname": "Gamma three", "pipeline": "94001", "dealstage": "940012"})
	contact, err := p.AddContact(gamma, map[string]string{"email": "g@example.com"}, "")
	p.ok(err)
	eleven := strconv.FormatInt(time.Date(2026, 11, 20, 11, 0, 0, 0, time.UTC).UnixMilli(), 10)
	for name, tc := range map[string]struct {
		filters string
		want    []string
	}{
		"EQ is case-blind for text":      {`{"propertyName":"dealname","operator":"EQ","value":"alpha ONE"}`, []string{"Alpha one"}},
		"EQ minds case for options":      {`{"propertyName":"dealstage","operator":"EQ","value":"ClosedWon"}`, []string{}},
		"IN wants lower case for text":   {`{"propertyName":"dealname","operator":"IN","values":["Alpha one","beta two"]}`, []string{"Beta two"}},
		"IN":                             {`{"propertyName":"dealstage","operator":"IN","values":["contractsent","940012"]}`, []string{"Alpha one", "Gamma three"}},
		"NOT_IN":                         {`{"propertyName":"dealstage","operator":"NOT_IN","values":["contractsent"]}`, []string{"Beta two", "Gamma three"}},
		"NEQ":                            {`{"propertyName":"pipeline","operator":"NEQ","value":"default"}`, []string{"Gamma three"}},
		"numbers by size":                {`{"propertyName":"amount","operator":"LT","value":"10"}`, []string{"Alpha one"}},
		"HAS_PROPERTY":                   {`{"propertyName":"amount","operator":"HAS_PROPERTY"}`, []string{"Alpha one", "Beta two"}},
		"NOT_HAS_PROPERTY":               {`{"propertyName":"amount","operator":"NOT_HAS_PROPERTY"}`, []string{"Gamma three"}},
		"GTE in milliseconds":            {`{"propertyName":"hs_lastmodifieddate","operator":"GTE","value":"` + eleven + `"}`, []string{"Beta two", "Gamma three"}},
		"GT in ISO 8601":                 {`{"propertyName":"hs_lastmodifieddate","operator":"GT","value":"2026-11-20T11:00:00Z"}`, []string{"Gamma three"}},
		"LTE as a JSON number":           {`{"propertyName":"createdate","operator":"LTE","value":` + eleven + `}`, []string{"Alpha one", "Beta two"}},
		"BETWEEN":                        {`{"propertyName":"amount","operator":"BETWEEN","value":"9.5","highValue":"10"}`, []string{"Beta two"}},
		"CONTAINS_TOKEN":                 {`{"propertyName":"dealname","operator":"CONTAINS_TOKEN","value":"thr*"}`, []string{"Gamma three"}},
		"associations":                   {`{"propertyName":"associations.contact","operator":"EQ","value":"` + contact + `"}`, []string{"Gamma three"}},
		"date the stage was entered":     {`{"propertyName":"hs_v2_date_entered_closedwon","operator":"HAS_PROPERTY"}`, []string{"Beta two"}},
		"filters of a group are all met": {`{"propertyName":"pipeline","operator":"EQ","value":"default"},{"propertyName":"amount","operator":"GT","value":"9"}`, []string{"Beta two"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := p.found(`{"filterGroups":[{"filters":[` + tc.filters + `]}],"sorts":[{"propertyName":"hs_object_id","direction":"ASCENDING"}]}`)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	either := `{"filterGroups":[{"filters":[{"propertyName":"amount","operator":"EQ","value":"9"}]},{"filters":[{"propertyName":"amount","operator":"EQ","value":"10"}]}]`
	for sort, want := range map[string][]string{
		`[{"propertyName":"amount","direction":"DESCENDING"}]`: {"Beta two", "Alpha one"},
		`["amount"]`:  {"Alpha one", "Beta two"},
		`["-amount"]`: {"Beta two", "Alpha one"},
	} {
		if diff := cmp.Diff(want, p.found(either+`,"sorts":`+sort+`}`)); diff != "" {
			t.Errorf("sorts %s (-want +got):\n%s", sort, diff)
		}
	}
}

func TestSearchRefusesWhatIsOverItsLimits(t *testing.T) {
	p := start(t, unlimited)
	one := `{"propertyName":"amount","operator":"EQ","value":"1"}`
	group := func(n int) string { return `{"filters":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `]}` }
	groups := func(n, each int) string {
		return `{"filterGroups":[` + strings.TrimSuffix(strings.Repeat(group(each)+",", n), ",") + `]}`
	}
	for name, body := range map[string]string{
		"six groups":            groups(6, 1),
		"seven filters":         groups(1, 7),
		"nineteen filters":      groups(4, 5),
		"two sorts":             `{"sorts":["amount","dealname"]}`,
		"limit":                 `{"limit":201}`,
		"no limit":              `{"limit":0}`,
		"beyond 10,000":         `{"limit":200,"after":"9900"}`,
		"beyond 10,000, number": `{"limit":1,"after":10000}`,
		"3,001 characters":      `{"query":"` + strings.Repeat("x", 2989) + `"}`,
		"unknown property":      `{"filterGroups":[{"filters":[{"propertyName":"nosuch","operator":"EQ","value":"1"}]}]}`,
		"unknown operator":      `{"filterGroups":[{"filters":[{"propertyName":"amount","operator":"LIKE","value":"1"}]}]}`,
		"no number":             `{"filterGroups":[{"filters":[{"propertyName":"amount","operator":"GT","value":"x"}]}]}`,
		"not JSON":              `{`,
		"two values":            `{}{}`,
	} {
		if a := p.do("POST", searchPath, body); a.status != 400 || a.text("category") != "VALIDATION_ERROR" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	for name, body := range map[string]string{
		"eighteen filters": groups(3, 6), "the last page": `{"limit":200,"after":"9800"}`, "3,000 characters": `{"query":"` + strings.Repeat("é", 2988) + `"}`,
	} {
		if a := p.do("POST", searchPath, body); a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
}

func TestSearchSeesAChangeOnlyAfterTheIndexDelay(t *testing.T) {
	p := start(t, func(o *hubspot.Options) { o.IndexDelay = hubspot.Delay{Min: 10 * time.Second} })
	id := p.deal(map[string]string{"dealname": "old"})
	if got := p.found(`{}`); len(got) != 0 {
		t.Errorf("found %q at once", got)
	}
	p.clock.advance(10 * time.Second)
	p.ok(p.SetProperty(id, "dealname", "new"))
	if got := p.found(`{}`); len(got) != 1 || got[0] != "old" {
		t.Errorf("found %q after the delay of the first change", got)
	}
	if got := p.must(200, "GET", "/crm/v3/objects/deals/"+id, "").text("properties", "dealname"); got != "new" {
		t.Errorf("a read shows %q: only search lags", got)
	}
	p.clock.advance(10 * time.Second)
	if got := p.found(`{}`); len(got) != 1 || got[0] != "new" {
		t.Errorf("found %q after the delay of the second change", got)
	}
	p.ok(p.Delete(id))
	p.clock.advance(9 * time.Second)
	if got := p.found(`{}`); len(got) != 1 {
		t.Errorf("found %q: a deletion lags, too", got)
	}
}

func TestIndexRowsOvertakeOneAnotherButNeverGoBack(t *testing.T) {
	p := start(t, func(o *hubspot.Options) {
		unlimited(o)
		o.IndexDelay = hubspot.Delay{Min: 0, Max: 100 * time.Second}
	})
	var ids []string
	for i := range 20 {
		ids = append(ids, p.deal(map[string]string{"dealname": fmt.Sprint(i)}))
		p.clock.advance(time.Second)
	}
	overtaken := false
	for range 100 {
		got := p.found(`{"limit":100,"sorts":["hs_object_id"]}`)
		if len(got) > 0 && len(got) < 20 && got[len(got)-1] != fmt.Sprint(len(got)-1) {
			overtaken = true
		}
		p.clock.advance(time.Second)
	}
	if !overtaken {
		t.Error("every row came in order")
	}
	for i := range 10 {
		p.ok(p.SetProperty(ids[0], "amount", fmt.Sprint(i+1)))
	}
	best := 0
	for range 101 {
		a := p.must(200, "POST", searchPath, `{"filters":[{"propertyName":"hs_object_id","operator":"EQ","value":"`+ids[0]+`"}],"properties":["amount"]}`)
		n, _ := strconv.Atoi(a.text("results", 0, "properties", "amount"))
		if n < best {
			t.Fatalf("search showed amount %d after %d", n, best)
		}
		best = n
		p.clock.advance(time.Second)
	}
	if best != 10 {
		t.Errorf("the last amount is %d", best)
	}
}

func TestAHeldRowReachesSearchWhenItIsReleased(t *testing.T) {
	p := start(t, nil)
	id := p.deal(map[string]string{"dealname": "before"})
	p.ok(p.HoldIndex(id, true))
	p.ok(p.SetProperty(id, "dealname", "after"))
	if got := p.found(`{}`); got[0] != "before" {
		t.Errorf("found %q", got)
	}
	p.ok(p.HoldIndex(id, false))
	if got := p.found(`{}`); got[0] != "after" {
		t.Errorf("found %q", got)
	}
}

func TestTenThousandFiveHundredDealsAreReadByKeyset(t *testing.T) {
	p := start(t, unlimited)
	const n = 10_500
	_, err := p.CreateDeals(n, func(i int) map[string]string {
		return map[string]string{"dealname": fmt.Sprint(i), "dealstage": "closedwon"}
	})
	p.ok(err)
	seen := map[string]bool{}
	for last := "0"; ; {
		a := p.must(200, "POST", searchPath, `{"filterGroups":[{"filters":[{"propertyName":"pipeline","operator":"EQ","value":"default"},
			{"propertyName":"hs_lastmodifieddate","operator":"GTE","value":"1763640000000"},
			{"propertyName":"hs_object_id","operator":"GT","value":"`+last+`"}]}],"sorts":[{"propertyName":"hs_object_id","direction":"ASCENDING"}],"limit":200}`)
		results := a.list("results")
		if len(results) == 0 {
			break
		}
		for i := range results {
			last = a.text("results", i, "id")
			seen[last] = true
		}
	}
	if len(seen) != n {
		t.Errorf("read %d deals", len(seen))
	}
}

// FuzzSearch has no answer to compare with; it looks for a panic and for a body
// that is not JSON.
func FuzzSearch(f *testing.F) {
	f.Add(`{"filterGroups":[{"filters":[{"propertyName":"amount","operator":"BETWEEN","value":"1","highValue":2}]}],"sorts":["-amount"],"limit":1,"after":"1"}`)
	f.Add(`{"filters":[{"propertyName":"associations.contact","operator":"EQ","value":"1"}],"after":null}`)
	f.Add(`{"sorts":[{"propertyName":"closedate","direction":"DESCENDING"}],"query":"x"}`)
	p := hubspot.New(hubspot.Options{
		Tokens: []hubspot.Token{{Value: testToken}}, Limits: hubspot.Limits{TenSecondly: -1, Daily: -1, SearchSecondly: -1},
	})
	for _, amount := range []string{"", "1", "-2.5"} {
		if _, err := p.CreateDeal(map[string]string{"dealname": "x", "amount": amount}); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, body string) {
		hostile.Budget(t)
		w := call(p, "POST", searchPath, body)
		if w.Code != 200 && w.Code != 400 || !json.Valid(w.Body.Bytes()) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
