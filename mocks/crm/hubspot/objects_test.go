package hubspot_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func TestBothPathDialectsShowTheSameDeal(t *testing.T) {
	p := start(t, nil)
	id := p.deal(map[string]string{"dealname": "Acme renewal", "amount": "1500.00", "dealstage": "contractsent"})
	want := p.must(200, "GET", "/crm/objects/2026-03/deals/"+id+"?properties=dealname,amount", "").object
	for _, path := range []string{
		"/crm/objects/2026-09/deals/" + id + "?properties=dealname&properties=amount",
		"/crm/v3/objects/deals/" + id + "?properties=dealname&properties=amount",
		"/crm/v3/objects/0-3/" + id + "?properties=dealname,amount,nosuchproperty",
	} {
		if diff := cmp.Diff(want, p.must(200, "GET", path, "").object); diff != "" {
			t.Errorf("%s (-date-based +this):\n%s", path, diff)
		}
	}
	if got := want.text("url"); got != "https://app.hubspot.com/contacts/62515/record/0-3/"+id {
		t.Errorf("url is %q", got)
	}
}

func TestUnsupportedPathsAreNotFound(t *testing.T) {
	p := start(t, nil)
	id := p.deal(nil)
	p.must(200, "GET", "/crm/v4/objects/deals/"+id+"/associations/contacts", "")
	for _, path := range []string{
		"/crm/objects/2025-09/deals", "/crm/v1/objects/deals", "/crm/v4/objects/deals/" + id, "/crm/v3/objects/deals/" + id + "/associations/contacts",
		"/crm/nonsense/2026-03/deals", "/crm/v3/nonsense/deals", "/files/v2/files/1", "/", "/crm",
	} {
		if a := p.do("GET", path, ""); a.status != 404 {
			t.Errorf("%s: status %d, want 404", path, a.status)
		}
	}
}

func TestHistoryListsEveryChangeNewestFirstWithItsSource(t *testing.T) {
	p := start(t, nil)
	id := p.deal(map[string]string{"dealname": "x", "dealstage": "qualifiedtobuy"})
	p.clock.advance(time.Minute)
	p.ok(p.MoveStage(id, "contractsent"))
	p.clock.advance(time.Minute)
	p.must(200, "PATCH", "/crm/objects/2026-03/deals/"+id, `{"properties":{"dealstage":"closedwon"}}`)
	p.must(200, "PATCH", "/crm/objects/2026-03/deals/"+id, `{"properties":{"dealstage":"closedwon"}}`) // the same again
	got := p.must(200, "GET", "/crm/objects/2026-03/deals/"+id+"?propertiesWithHistory=dealstage", "").path("propertiesWithHistory", "dealstage")
	want := []any{
		map[string]any{"value": "closedwon", "timestamp": "2026-11-20T10:02:00.000Z", "sourceType": "INTEGRATION", "sourceId": "1160452", "sourceLabel": "DealSeal"},
		map[string]any{"value": "contractsent", "timestamp": "2026-11-20T10:01:00.000Z", "sourceType": "CRM_UI", "sourceId": "userId:12345", "updatedByUserId": 12345.},
		map[string]any{"value": "qualifiedtobuy", "timestamp": "2026-11-20T10:00:00.000Z", "sourceType": "CRM_UI", "sourceId": "userId:12345", "updatedByUserId": 12345.},
	}
	if diff := cmp.Diff(any(want), got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestEveryWriteMovesTheTimeOfTheLastChange(t *testing.T) {
	p := start(t, nil)
	for _, f := range hubspot.WriteBackProperties() {
		p.ok(p.AddProperty("deals", f))
	}
	id := p.deal(map[string]string{"dealname": "x"})
	last := func() string {
		return p.must(200, "GET", "/crm/objects/2026-03/deals/"+id, "").text("properties", "hs_lastmodifieddate")
	}
	note := fmt.Sprintf(`{"properties":{"hs_timestamp":"2026-11-20T10:00:00Z"},"associations":[{"to":{"id":%q},"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":214}]}]}`, id)
	for _, write := range []struct{ method, path, body string }{
		{"PATCH", "/crm/objects/2026-03/deals/" + id, `{"properties":{"dealseal_status":"signed"}}`},
		{"PATCH", "/crm/objects/2026-03/deals/" + id, `{"properties":{"dealseal_status":"signed"}}`},
		{"POST", "/crm/objects/2026-03/notes", note},
	} {
		before := last()
		p.clock.advance(time.Second)
		if a := p.do(write.method, write.path, write.body); a.status >= 300 {
			t.Fatalf("%s", a.raw)
		}
		if now := last(); now <= before {
			t.Errorf("%s %s left hs_lastmodifieddate at %s", write.method, write.path, now)
		}
	}
}

func TestBadValuesAreRefusedAsAWhole(t *testing.T) {
	p := start(t, nil)
	for _, f := range append(hubspot.WriteBackProperties(),
		hubspot.Property{Name: "signed_on", Label: "Signed on", Type: "date", FieldType: "date", GroupName: "dealinformation"}) {
		p.ok(p.AddProperty("deals", f))
	}
	id := p.deal(map[string]string{"dealname": "before", "dealstage": "contractsent"})
	for name, tc := range map[string]struct{ property, value, code string }{
		"unknown property":       {"testproperty", "x", "PROPERTY_DOESNT_EXIST"},
		"unknown option":         {"dealseal_status", "Signed", "INVALID_OPTION"},
		"unknown stage":          {"dealstage", "sealed", "INVALID_OPTION"},
		"stage of another line":  {"dealstage", "940012", "INVALID_OPTION"},
		"number with separators": {"amount", "1,500.00", "INVALID_INTEGER"},
		"date with a time":       {"signed_on", "2026-11-20T10:00:00Z", "INVALID_DATE"},
		"date not at midnight":   {"signed_on", "1763640000001", "INVALID_DATE"},
		"no time":                {"dealseal_signed_at", "yesterday", "INVALID_LONG"},
		"too long":               {"dealseal_audit", strings.Repeat("ä", 65537), "INVALID_STRING_LENGTH"},
		"read only":              {"hs_is_closed", "true", "READ_ONLY_VALUE"},
		"stage date":             {"hs_v2_date_entered_closedwon", "0", "READ_ONLY_VALUE"},
	} {
		t.Run(name, func(t *testing.T) {
			body := fmt.Sprintf(`{"properties":{"dealname":"after",%q:%q}}`, tc.property, tc.value)
			a := p.must(400, "PATCH", "/crm/v3/objects/deals/"+id, body)
			if got := a.text("errors", 0, "code"); got != tc.code {
				t.Errorf("code %q, want %q: %s", got, tc.code, a.raw)
			}
			if a.text("category") != "VALIDATION_ERROR" || a.text("correlationId") == "" || !strings.HasPrefix(a.text("message"), "Property values were not valid: [{") {
				t.Errorf("body is %s", a.raw)
			}
		})
	}
	if got := p.must(200, "GET", "/crm/v3/objects/deals/"+id, "").text("properties", "dealname"); got != "before" {
		t.Errorf("dealname is %q: a refused write changed something", got)
	}
}

func TestValuesComeBackAsHubSpotSpellsThem(t *testing.T) {
	p := start(t, nil)
	for _, f := range append(hubspot.WriteBackProperties(),
		hubspot.Property{Name: "signed_on", Label: "Signed on", Type: "date", FieldType: "date", GroupName: "dealinformation"}) {
		p.ok(p.AddProperty("deals", f))
	}
	id := p.deal(nil)
	p.must(200, "PATCH", "/crm/objects/2026-09/deals/"+id, fmt.Sprintf(
		`{"properties":{"signed_on":"1763596800000","dealseal_signed_at":"1763640000123","amount":12.5,"dealseal_audit":%q,"dealname":"x"}}`, strings.Repeat("ä", 65536)))
	p.must(200, "PATCH", "/crm/objects/2026-09/deals/"+id, `{"properties":{"dealname":""}}`)
	a := p.must(200, "GET", "/crm/objects/2026-09/deals/"+id+"?properties=signed_on,dealseal_signed_at,amount,dealname,pipeline", "")
	for name, want := range map[string]any{
		"signed_on": "2025-11-20", "dealseal_signed_at": "2025-11-20T12:00:00.123Z", "amount": "12.5", "dealname": nil, "pipeline": "default",
	} {
		got, there := a.path("properties").(map[string]any)[name]
		if got != want || !there {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestConditionalRequiredPropertiesHoldFrom202609On(t *testing.T) {
	p := start(t, nil)
	p.ok(p.RequireWhen(hubspot.ConditionalRule{Object: "deals", Property: "dealstage", Values: []string{"closedwon"}, Required: []string{"amount"}}))
	const body = `{"properties":{"dealstage":"closedwon"}}`
	for _, v := range []string{"/crm/v3/objects/deals/", "/crm/objects/2026-03/deals/"} {
		p.must(200, "PATCH", v+p.deal(nil), body)
	}
	id := p.deal(nil)
	p.must(400, "PATCH", "/crm/objects/2026-09/deals/"+id, body)
	p.must(200, "PATCH", "/crm/objects/2026-09/deals/"+id, `{"properties":{"dealstage":"closedwon","amount":"1"}}`)
}

func TestAMergeMakesANewRecordThatOldIDsLeadToExceptInBatches(t *testing.T) {
	p := start(t, nil)
	a := p.deal(map[string]string{"dealname": "a", "dealstage": "contractsent"})
	p.clock.advance(time.Minute)
	b := p.deal(map[string]string{"dealname": "b", "amount": "7", "dealstage": "closedwon"})
	p.clock.advance(time.Minute)
	p.ok(p.MoveStage(a, "closedwon"))
	contact, err := p.AddContact(b, map[string]string{"email": "z@example.com"}, "")
	p.ok(err)
	merged, err := p.Merge(a, b)
	p.ok(err)
	for _, id := range []string{a, b, merged} {
		got := p.must(200, "GET", "/crm/objects/2026-03/deals/"+id+"?properties=dealname,amount,hs_merged_object_ids&propertiesWithHistory=dealstage&associations=contacts", "")
		if got.text("id") != merged || got.text("properties", "dealname") != "a" || got.text("properties", "amount") != "7" ||
			got.text("properties", "hs_merged_object_ids") != a+";"+b || got.text("associations", "contacts", "results", 0, "id") != contact {
			t.Errorf("deal %s: %s", id, got.raw)
		}
		var stages []string
		for i := range got.list("propertiesWithHistory", "dealstage") {
			stages = append(stages, got.text("propertiesWithHistory", "dealstage", i, "timestamp")[14:16]+got.text("propertiesWithHistory", "dealstage", i, "value"))
		}
		if diff := cmp.Diff([]string{"02closedwon", "01closedwon", "00contractsent"}, stages); diff != "" {
			t.Errorf("history (-want +got):\n%s", diff)
		}
	}
	batch := p.must(207, "POST", "/crm/objects/2026-03/deals/batch/read", fmt.Sprintf(`{"inputs":[{"id":%q},{"id":%q}],"properties":["dealname"]}`, a, merged))
	if len(batch.list("results")) != 1 || batch.text("errors", 0, "context", "ids", 0) != a {
		t.Errorf("batch: %s", batch.raw)
	}
	for _, body := range []string{`{}`, `{"filters":[{"propertyName":"hs_merged_object_ids","operator":"IN","values":["` + b + `"]}]}`} {
		if got := p.must(200, "POST", "/crm/objects/2026-03/deals/search", body); got.path("total") != 1. || got.text("results", 0, "id") != merged {
			t.Errorf("search %s: %s", body, got.raw)
		}
	}
}

func TestBatchReadAnswersWithHistoryAndNamesWhatIsMissing(t *testing.T) {
	p := start(t, nil)
	id := p.deal(map[string]string{"dealname": "x", "dealstage": "contractsent"})
	body := fmt.Sprintf(`{"inputs":[{"id":%q},{"id":"2"}],"properties":["dealname"],"propertiesWithHistory":["dealstage"]}`, id)
	for path, status := range map[string]int{
		"/crm/objects/2026-03/deals/batch/read": 207, "/crm/v3/objects/deals/batch/read": 207, "/crm/objects/2026-09/deals/batch/read": 200,
	} {
		a := p.must(status, "POST", path, body)
		if a.path("numErrors") != 1. || a.text("errors", 0, "context", "ids", 0) != "2" || a.text("errors", 0, "category") != "OBJECT_NOT_FOUND" {
			t.Errorf("%s: %s", path, a.raw)
		}
		if a.text("results", 0, "propertiesWithHistory", "dealstage", 0, "value") != "contractsent" || a.text("status") != "COMPLETE" {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	tooMany := `{"inputs":[` + strings.TrimSuffix(strings.Repeat(`{"id":"1"},`, 51), ",") + `],"propertiesWithHistory":["dealstage"]}`
	p.must(400, "POST", "/crm/v3/objects/deals/batch/read", tooMany)
	p.must(400, "POST", "/crm/v3/objects/deals/batch/read", fmt.Sprintf(`{"inputs":[{"id":%q},{"id":%[1]q}]}`, id))
}

func TestABatchWithOneBadValueWritesNothing(t *testing.T) {
	p := start(t, nil)
	a, b := p.deal(map[string]string{"dealname": "a"}), p.deal(map[string]string{"dealname": "b"})
	p.must(400, "POST", "/crm/v3/objects/deals/batch/update",
		fmt.Sprintf(`{"inputs":[{"id":%q,"properties":{"dealname":"changed"}},{"id":%q,"properties":{"amount":"many"}}]}`, a, b))
	if got := p.must(200, "GET", "/crm/v3/objects/deals/"+a, "").text("properties", "dealname"); got != "a" {
		t.Errorf("dealname is %q", got)
	}
	p.must(400, "POST", "/crm/v3/objects/deals/batch/create", `{"inputs":[{"properties":{"dealname":"c"}},{"properties":{"amount":"many"}}]}`)
	if ids, err := p.IDs("deals"); err != nil || len(ids) != 2 {
		t.Errorf("deals %q, %v", ids, err)
	}
}

func TestABatchUpdateGivesEveryRecordTheSameTime(t *testing.T) {
	p := start(t, nil)
	ids, err := p.CreateDeals(3, func(int) map[string]string { return map[string]string{"dealstage": "contractsent"} })
	p.ok(err)
	p.clock.advance(time.Second)
	p.ok(p.MoveStages(ids, "closedwon"))
	for _, id := range ids {
		r, err := p.Record(id)
		p.ok(err)
		if last := r.History["dealstage"][1]; !last.Time.Equal(p.clock.now()) || last.Source.Type != "BATCH_UPDATE" {
			t.Errorf("deal %s: %+v", id, last)
		}
	}
}

func TestUpsertUpdatesByAUniquePropertyOrCreates(t *testing.T) {
	p := start(t, nil)
	body := `{"inputs":[{"id":"a@example.com","idProperty":"email","objectWriteTraceId":"t1","properties":{"firstname":"Ada"}}]}`
	for _, isNew := range []bool{true, false} {
		a := p.must(200, "POST", "/crm/v3/objects/contacts/batch/upsert", body)
		if a.path("results", 0, "new") != isNew || a.text("results", 0, "objectWriteTraceId") != "t1" {
			t.Errorf("want new %v: %s", isNew, a.raw)
		}
	}
	a := p.must(200, "GET", "/crm/v3/objects/contacts/a@example.com?idProperty=email", "")
	if a.text("properties", "firstname") != "Ada" {
		t.Errorf("%s", a.raw)
	}
	p.must(409, "POST", "/crm/v3/objects/contacts", `{"properties":{"email":"A@example.com"}}`)
}

func TestArchivedDealsAreShownOnlyOnRequest(t *testing.T) {
	p := start(t, nil)
	id := p.deal(map[string]string{"dealname": "x"})
	p.must(204, "DELETE", "/crm/objects/2026-03/deals/"+id, "")
	p.must(404, "GET", "/crm/objects/2026-03/deals/"+id, "")
	p.must(404, "PATCH", "/crm/objects/2026-03/deals/"+id, `{"properties":{"dealname":"y"}}`)
	if a := p.must(200, "GET", "/crm/objects/2026-03/deals/"+id+"?archived=true", ""); a.path("archived") != true {
		t.Errorf("%s", a.raw)
	}
	if a := p.must(200, "POST", "/crm/objects/2026-03/deals/search", `{}`); a.path("total") != 0. {
		t.Errorf("%s", a.raw)
	}
}

func TestAListIsReadPageByPage(t *testing.T) {
	p := start(t, nil)
	ids, err := p.CreateDeals(5, func(i int) map[string]string { return map[string]string{"dealname": fmt.Sprint(i)} })
	p.ok(err)
	var got []string
	for after := ""; ; {
		a := p.must(200, "GET", "/crm/v3/objects/deals?limit=2"+after, "")
		for i := range a.list("results") {
			got = append(got, a.text("results", i, "id"))
		}
		next := a.text("paging", "next", "after")
		if next == "" {
			break
		}
		after = "&after=" + next
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// IDs are unique within a type only: the first deal and the first quote have the same one.
func TestAQuoteIsARecordOfItsOwn(t *testing.T) {
	p := start(t, nil)
	d := p.deal(map[string]string{"dealname": "x", "dealstage": "contractsent", "hubspot_owner_id": "7"})
	id, err := p.Create("quotes", map[string]string{"hs_title": "y", "hs_status": "DRAFT"})
	p.ok(err)
	p.ok(p.Associate("quotes", id, "deals", d, ""))
	line, err := p.Create("line_items", map[string]string{"amount": "12.50"})
	p.ok(err)
	p.ok(p.Associate("quotes", id, "line_items", line, ""))
	p.must(200, "PATCH", "/crm/objects/2026-03/quotes/"+id, `{"properties":{"hs_status":"APPROVED"}}`)
	got := p.must(200, "GET", "/crm/objects/2026-03/0-14/"+id+"?properties=hs_title,hs_quote_amount,hubspot_owner_id&propertiesWithHistory=hs_status", "")
	if id != d || got.text("properties", "hs_quote_amount") != "12.50" || got.text("properties", "hubspot_owner_id") != "7" || got.text("properties", "dealname") != "" {
		t.Errorf("quote %s beside deal %s: %v", id, d, got.object)
	}
	if n := len(got.path("propertiesWithHistory", "hs_status").([]any)); n != 2 {
		t.Errorf("the status has %d versions, want 2", n)
	}
	for body, want := range map[string]int{`{"properties":{"hs_status":"WON"}}`: 400, `{"properties":{"hs_quote_amount":"1"}}`: 400} {
		p.must(want, "PATCH", "/crm/objects/2026-03/quotes/"+id, body)
	}
}
