package salesforce

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const historyQuery = "SELECT Id, OpportunityId, StageName, Amount, PrevAmount, CreatedDate, CreatedById FROM OpportunityHistory ORDER BY CreatedDate, Id"

func TestHistoryRowPerChangeOfStageAmountProbabilityOrCloseDate(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(map[string]any{"Amount": 10})
	w.ok(w.org.MoveStage(id, "Closed Won"))
	w.ok(w.org.Update(id, map[string]any{"Amount": 20}))
	w.call("PATCH", "/sobjects/Opportunity/"+id, `{"CloseDate":"2027-01-31"}`).want(204, "")
	w.ok(w.org.Update(id, map[string]any{"Probability": 90}))
	w.ok(w.org.Update(id, map[string]any{"Name": "renamed"}))
	w.call("PATCH", "/sobjects/Opportunity/"+id, `{"DealSeal_Status__c":"Queued","Amount":20}`).want(204, "")
	q := w.query(historyQuery)
	var got []string
	for _, r := range q.Records {
		if !strings.HasPrefix(r["Id"].(string), "008") || r["OpportunityId"] != id {
			t.Errorf("row = %v", r)
		}
		got = append(got, line(r["StageName"], r["Amount"], r["PrevAmount"], r["CreatedById"] == w.org.integration))
	}
	want := []string{"Prospecting 10.0 <nil> false", "Closed Won 10.0 10.0 false", "Closed Won 20.0 10.0 false", "Closed Won 20.0 20.0 true", "Closed Won 20.0 20.0 false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStageSetsWhatFollowsFromIt(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(map[string]any{"Amount": 200})
	w.ok(w.org.MoveStage(id, "Negotiation/Review"))
	r, _ := w.org.Record(id)
	if got, want := line(r["Probability"], r["ExpectedRevenue"], r["ForecastCategory"], r["IsClosed"]), "90.0 180.0 Pipeline false"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	w.ok(w.org.MoveStage(id, "Closed Won"))
	r, _ = w.org.Record(id)
	if got, want := line(r["Probability"], r["IsClosed"], r["IsWon"]), "100.0 true true"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAmountIsTheSumOfTheProducts(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(map[string]any{"Amount": 5})
	item, err := w.org.AddLineItem(id, map[string]any{"Quantity": 3, "UnitPrice": 19.99, "Discount": 10})
	w.ok(err)
	_, err = w.org.AddLineItem(id, map[string]any{"Quantity": 1, "UnitPrice": 0.07})
	w.ok(err)
	amount := func() string { r, _ := w.org.Record(id); return fmt.Sprint(r["Amount"]) }
	if got := amount(); got != "54.04" { // 53.973 is kept as 53.97
		t.Errorf("Amount = %s", got)
	}
	w.call("PATCH", "/sobjects/Opportunity/"+id, `{"Amount":1}`).want(204, "")
	if got := amount(); got != "54.04" {
		t.Errorf("Amount after an update of it = %s", got)
	}
	w.call("DELETE", "/sobjects/OpportunityLineItem/"+item, "").want(204, "")
	if got := amount(); got != "0.07" {
		t.Errorf("Amount after a line was deleted = %s", got)
	}
}

func TestLateCommitShowsTheRowLaterWithItsOldStamp(t *testing.T) {
	w := newWire(t, Options{})
	slow, fast := w.opportunity(nil), w.opportunity(nil)
	w.clock.advance(time.Minute)
	w.org.SetCommitDelay(10 * time.Minute)
	w.ok(w.org.MoveStage(slow, "Closed Won"))
	w.org.SetCommitDelay(0)
	w.clock.advance(time.Minute)
	w.ok(w.org.MoveStage(fast, "Closed Won"))
	w.ok(w.org.Update(slow, map[string]any{"Amount": 7})) // waits for the first one's commit

	won := func() []string {
		return names(w.query("SELECT OpportunityId FROM OpportunityHistory WHERE StageName = 'Closed Won' ORDER BY CreatedDate, Id"), "OpportunityId")
	}
	if diff := cmp.Diff([]string{fast}, won()); diff != "" {
		t.Errorf("before the commit: %s", diff)
	}
	if got := w.query("SELECT StageName FROM Opportunity WHERE Id = '" + slow + "'").Records[0]["StageName"]; got != "Prospecting" {
		t.Errorf("the record shows %v before the commit", got)
	}
	w.call("PATCH", "/sobjects/Opportunity/"+slow, `{"NextStep":"x"}`).want(400, "UNABLE_TO_LOCK_ROW")
	upd := w.call("GET", "/sobjects/Opportunity/updated/?start="+url.QueryEscape("2026-11-20T21:01:00+00:00")+"&end="+url.QueryEscape("2026-11-20T21:02:00+00:00"), "").want(200, "").object()
	if got := upd["latestDateCovered"]; got != "2026-11-20T21:01:00.000+0000" {
		t.Errorf("latestDateCovered = %v with an open transaction", got)
	}
	w.clock.advance(10 * time.Minute)
	if diff := cmp.Diff([]string{slow, fast, slow}, won()); diff != "" {
		t.Errorf("after the commit: %s", diff)
	}
	w.call("PATCH", "/sobjects/Opportunity/"+slow, `{"NextStep":"x"}`).want(204, "")
}

func TestCommitEndsOpenTransactions(t *testing.T) {
	w := newWire(t, Options{})
	w.org.SetCommitDelay(time.Hour)
	id := w.opportunity(nil)
	w.call("GET", "/sobjects/Opportunity/"+id, "").want(404, "NOT_FOUND")
	w.org.Commit()
	w.call("GET", "/sobjects/Opportunity/"+id, "").want(200, "")
}

func TestChangesOverTheAPIAreNeverLate(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(nil)
	w.org.SetCommitDelay(time.Hour)
	w.call("PATCH", "/sobjects/Opportunity/"+id, `{"NextStep":"x"}`).want(204, "")
	if got := w.call("GET", "/sobjects/Opportunity/"+id, "").want(200, "").object()["NextStep"]; got != "x" {
		t.Errorf("NextStep = %v", got)
	}
}

func TestFrozenStampMakesTies(t *testing.T) {
	w := newWire(t, Options{})
	w.org.FreezeStamp(w.clock.now().Add(1500 * time.Millisecond))
	for range 3 {
		w.opportunity(nil)
		w.clock.advance(time.Minute)
	}
	q := w.query(historyQuery)
	if diff := cmp.Diff(strings.Fields(strings.Repeat("2026-11-20T21:00:01.000+0000 ", 3)), names(q, "CreatedDate")); diff != "" {
		t.Error(diff)
	}
}

func TestRawValueIsShownButNotSortedBy(t *testing.T) {
	w := newWire(t, Options{})
	w.opportunity(nil)
	w.ok(w.org.SetRaw(w.org.Records("OpportunityHistory")[0], "CreatedDate", "yesterday-ish"))
	q := w.query("SELECT CreatedDate FROM OpportunityHistory WHERE CreatedDate >= 2026-11-20T20:00:00Z ORDER BY CreatedDate")
	if diff := cmp.Diff([]string{"yesterday-ish"}, names(q, "CreatedDate")); diff != "" {
		t.Error(diff)
	}
}

func TestWriteIsRefused(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(map[string]any{"DealSeal_Transaction_ID__c": "t"})
	w.org.DenyEdit("Opportunity.DealSeal_Document_URL__c")
	w.org.Hide("Opportunity.NextStep")
	for _, tc := range []struct{ name, body, code, fields string }{
		{"unknown field", `{"Nope__c":"1"}`, "INVALID_FIELD", ""},
		{"field hidden from the user", `{"NextStep":"1"}`, "INVALID_FIELD", ""},
		{"field the user may not edit", `{"DealSeal_Document_URL__c":"1"}`, "INVALID_FIELD_FOR_INSERT_UPDATE", "DealSeal_Document_URL__c"},
		{"system field", `{"SystemModstamp":"2026-01-01T00:00:00Z"}`, "INVALID_FIELD_FOR_INSERT_UPDATE", "SystemModstamp"},
		{"Id in the body", `{"Id":"` + id + `"}`, "INVALID_FIELD", ""},
		{"value outside the restricted picklist", `{"DealSeal_Status__c":"Done"}`, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "DealSeal_Status__c"},
		{"text too long", `{"DealSeal_Transaction_ID__c":"` + strings.Repeat("x", 41) + `"}`, "STRING_TOO_LONG", "DealSeal_Transaction_ID__c"},
		{"required field emptied", `{"StageName":null}`, "REQUIRED_FIELD_MISSING", "StageName"},
		{"reference to nothing", `{"AccountId":"001000000000000AAA"}`, "INVALID_CROSS_REFERENCE_KEY", "AccountId"},
		{"reference to another type", `{"AccountId":"` + id + `"}`, "MALFORMED_ID", "AccountId"},
		{"not a date-time", `{"DealSeal_Signed_At__c":"now"}`, "JSON_PARSER_ERROR", ""},
		{"not a number", `{"Amount":"much"}`, "JSON_PARSER_ERROR", ""},
		{"number out of range", `{"Amount":1e300}`, "NUMBER_OUTSIDE_VALID_RANGE", "Amount"},
		{"not JSON", `{"Amount":`, "JSON_PARSER_ERROR", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.t = t
			var list []struct{ Fields []string }
			w.call("PATCH", "/sobjects/Opportunity/"+id, tc.body).want(400, tc.code).into(&list)
			if got := strings.Join(list[0].Fields, " "); got != tc.fields {
				t.Errorf("fields = %q, want %q", got, tc.fields)
			}
		})
	}
	r, _ := w.org.Record(id)
	if r["DealSeal_Transaction_ID__c"] != "t" || r["StageName"] != "Prospecting" {
		t.Errorf("a refused write changed the record: %v", r)
	}
}

func TestWriteBackFieldsKeepWhatTheyAreGiven(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(nil)
	w.call("PATCH", "/sobjects/Opportunity/"+id[:15], `{"DealSeal_Transaction_ID__c":"abc","DealSeal_Status__c":"Signed","DealSeal_Signed_At__c":"2026-11-20T22:00:01.900+01:00",
		"DealSeal_Document_URL__c":"https://x/<a>&b","DealSeal_Audit__c":"{\"a\":1}"}`, "Sforce-Call-Options", "client=dealseal").want(204, "")
	got := w.call("GET", "/sobjects/Opportunity/"+id+"?fields=DealSeal_Signed_At__c,DealSeal_Document_URL__c,DealSeal_Audit__c,LastModifiedById", "").want(200, "")
	want := `"DealSeal_Signed_At__c":"2026-11-20T21:00:01.000+0000","DealSeal_Document_URL__c":"https://x/<a>&b","DealSeal_Audit__c":"{\"a\":1}","LastModifiedById":"` + w.org.integration + `"}`
	if !strings.HasSuffix(string(got.body), want) {
		t.Errorf("body = %s\nwant its end to be %s", got.body, want)
	}
	log := w.org.Requests()
	if last := log[len(log)-2]; last.Kind != KindUpdate || last.Client != "dealseal" || last.Status != 204 {
		t.Errorf("log line = %+v", last)
	}
}

func TestCustomFieldsCanBeLeftOut(t *testing.T) {
	w := newWire(t, Options{CustomFields: map[string][]Field{}})
	id := w.opportunity(nil)
	w.call("PATCH", "/sobjects/Opportunity/"+id, `{"DealSeal_Status__c":"Queued"}`).want(400, "INVALID_FIELD")
	w.ask("SELECT DealSeal_Key__c FROM ContentVersion").want(400, "INVALID_FIELD")
}

func TestRecordLifeCycle(t *testing.T) {
	w := newWire(t, Options{})
	res := w.call("POST", "/sobjects/Account/", `{"attributes":{"type":"Account"},"Name":"Acme"}`).want(201, "")
	id := res.object()["id"].(string)
	if got, want := string(res.body), `{"id":"`+id+`","success":true,"errors":[]}`; got != want {
		t.Errorf("body = %s", got)
	}
	w.call("GET", "/sobjects/Account/"+id, "").want(200, "")
	w.call("DELETE", "/sobjects/Account/"+id, "").want(204, "")
	w.call("GET", "/sobjects/Account/"+id, "").want(404, "ENTITY_IS_DELETED")
	w.call("PATCH", "/sobjects/Account/"+id, `{"Name":"B"}`).want(404, "ENTITY_IS_DELETED")
	w.call("GET", "/sobjects/Account/001000000000000AAA", "").want(404, "NOT_FOUND")
	w.call("GET", "/sobjects/Nothing/001000000000000AAA", "").want(404, "NOT_FOUND")
	w.call("PUT", "/sobjects/Account/"+id, "{}").want(405, "METHOD_NOT_ALLOWED")
	w.call("POST", "/sobjects/OpportunityHistory", "{}").want(400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY")
	w.call("POST", "/sobjects/Opportunity", `{"Name":"x"}`).want(400, "REQUIRED_FIELD_MISSING")
}

func TestDeletedOpportunityTakesItsRowsAlong(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(nil)
	_, err := w.org.AddLineItem(id, map[string]any{"Quantity": 1, "UnitPrice": 1})
	w.ok(err)
	w.clock.advance(time.Minute)
	w.call("DELETE", "/sobjects/Opportunity/"+id, "").want(204, "")
	if n := w.query("SELECT Id FROM OpportunityHistory").TotalSize + w.query("SELECT Id FROM OpportunityLineItem").TotalSize; n != 0 {
		t.Errorf("%d rows are left", n)
	}
	w.clock.advance(time.Minute)
	del := w.call("GET", "/sobjects/Opportunity/deleted?start=2026-11-20T21:00:00%2B00:00&end=2026-11-20T21:02:00%2B00:00", "").want(200, "")
	want := `{"deletedRecords":[{"id":"` + id + `","deletedDate":"2026-11-20T21:01:00.000+0000"}],"earliestDateAvailable":"2026-11-05T21:02:00.000+0000","latestDateCovered":"2026-11-20T21:02:00.000+0000"}`
	if diff := cmp.Diff(want, string(del.body)); diff != "" {
		t.Error(diff)
	}
}

func TestUpdatedTakesOnlySensibleWindows(t *testing.T) {
	w := newWire(t, Options{})
	for name, window := range map[string]string{
		"end before start": "start=2026-11-20T21:00:00Z&end=2026-11-20T20:00:00Z",
		"same minute":      "start=2026-11-20T20:00:10Z&end=2026-11-20T20:00:50Z",
		"too long ago":     "start=2026-10-01T20:00:00Z&end=2026-11-20T20:00:00Z",
	} {
		if res := w.call("GET", "/sobjects/Opportunity/updated?"+window, ""); res.status != 400 || res.errorCode() != "INVALID_REPLICATION_DATE" {
			t.Errorf("%s: %d %s", name, res.status, res.body)
		}
	}
}

func TestUpsertByExternalID(t *testing.T) {
	w := newWire(t, Options{})
	const path = "/sobjects/Opportunity/DealSeal_Transaction_ID__c/a%2Fb"
	w.call("PATCH", path+"?updateOnly=true", `{"Name":"n"}`).want(404, "NOT_FOUND")
	made := w.call("PATCH", path, `{"Name":"n","StageName":"Prospecting","CloseDate":"2026-12-31"}`).want(201, "").object()
	if made["created"] != true {
		t.Errorf("body = %v", made)
	}
	if again := w.call("PATCH", path, `{"Name":"m"}`).want(200, "").object(); again["created"] != false || again["id"] != made["id"] {
		t.Errorf("body = %v", again)
	}
	got := w.call("GET", path, "").want(200, "").object()
	if got["Name"] != "m" || got["DealSeal_Transaction_ID__c"] != "a/b" {
		t.Errorf("record = %v", got)
	}
	w.opportunity(map[string]any{"DealSeal_Transaction_ID__c": "A/B"})
	w.call("PATCH", path, `{"Name":"o"}`).want(300, "")
	w.call("PATCH", "/sobjects/Opportunity/Name/x", `{}`).want(404, "NOT_FOUND")
}

func TestConditionalRequests(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(nil)
	read := w.call("GET", "/sobjects/Opportunity/"+id+"?fields=StageName,SystemModstamp", "").want(200, "").header.Get("Date")
	if want := w.clock.now().Format(http.TimeFormat); read != want {
		t.Fatalf("Date = %q, want the org's clock %q", read, want)
	}
	patch := func(since string) response {
		return w.call("PATCH", "/sobjects/Opportunity/"+id, `{"NextStep":"x"}`, "If-Unmodified-Since", since)
	}
	patch(read).want(204, "")
	w.clock.advance(time.Second)
	w.ok(w.org.Update(id, map[string]any{"Name": "other"}))
	patch(read).want(412, "ENTITY_FAILED_IFLASTMODIFIED_ON_UPDATE_CHECK")
	patch("soon").want(400, "")
	w.call("GET", "/sobjects/Opportunity/"+id, "", "If-Modified-Since", w.clock.now().Format(http.TimeFormat)).want(304, "")
	w.call("GET", "/sobjects/Opportunity/"+id, "", "If-Modified-Since", read).want(200, "")
}

func TestLockedRecordCannotBeChanged(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(nil)
	w.org.Lock(id)
	w.call("PATCH", "/sobjects/Opportunity/"+id, `{"NextStep":"x"}`).want(400, "ENTITY_IS_LOCKED")
	w.org.Unlock(id)
	w.call("PATCH", "/sobjects/Opportunity/"+id, `{"NextStep":"x"}`).want(204, "")
}

func TestDescribeShowsWhatTheUserMayDo(t *testing.T) {
	w := newWire(t, Options{})
	w.org.Hide("Opportunity.Amount")
	w.org.DenyEdit("Opportunity.NextStep")
	res := w.call("GET", "/sobjects/Opportunity/describe", "").want(200, "")
	var d struct {
		KeyPrefix string
		Fields    []struct {
			Name, Type     string
			Updateable     bool
			Length         int
			PicklistValues []struct{ Value string }
		}
		ChildRelationships []struct{ RelationshipName string }
	}
	res.into(&d)
	got := map[string]string{}
	for _, f := range d.Fields {
		got[f.Name] = line(f.Type, f.Updateable, f.Length, len(f.PicklistValues))
	}
	for name, want := range map[string]string{
		"Amount": "", "NextStep": "string false 255 0", "SystemModstamp": "datetime false 0 0", "DealSeal_Status__c": "picklist true 255 7", "StageName": "picklist true 255 10",
	} {
		if got[name] != want {
			t.Errorf("%s = %q, want %q", name, got[name], want)
		}
	}
	if d.KeyPrefix != "006" || len(d.ChildRelationships) != 5 {
		t.Errorf("key prefix %q, relationships %v", d.KeyPrefix, d.ChildRelationships)
	}
	w.call("GET", "/sobjects/Opportunity/describe", "", "If-Modified-Since", w.clock.now().Format(http.TimeFormat)).want(304, "")
	if n := len(w.call("GET", "/sobjects/", "").want(200, "").object()["sobjects"].([]any)); n != 29 {
		t.Errorf("global describe lists %d objects", n)
	}
}

func TestCollections(t *testing.T) {
	w := newWire(t, Options{})
	a, b := w.opportunity(nil), w.opportunity(nil)
	body := func(all bool) string {
		return fmt.Sprintf(`{"allOrNone":%v,"records":[{"attributes":{"type":"Opportunity"},"id":"%s","NextStep":"x"},{"attributes":{"type":"Opportunity"},"Id":"%s","DealSeal_Status__c":"?"}]}`, all, a, b)
	}
	type result struct {
		ID      string
		Success bool
		Errors  []struct{ StatusCode string }
	}
	run := func(all bool) (got []string) {
		var list []result
		w.call("PATCH", "/composite/sobjects", body(all)).want(200, "").into(&list)
		for _, r := range list {
			got = append(got, fmt.Sprint(r.Success, r.Errors))
		}
		return got
	}
	if diff := cmp.Diff([]string{"false [{ALL_OR_NONE_OPERATION_ROLLED_BACK}]", "false [{INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST}]"}, run(true)); diff != "" {
		t.Error(diff)
	}
	if r, _ := w.org.Record(a); r["NextStep"] != nil {
		t.Error("allOrNone left a change behind")
	}
	if diff := cmp.Diff([]string{"true []", "false [{INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST}]"}, run(false)); diff != "" {
		t.Error(diff)
	}
	var many []map[string]any
	w.call("POST", "/composite/sobjects/Opportunity", `{"ids":["`+a+`","006000000000000AAA"],"fields":["Id","NextStep"]}`).want(200, "").into(&many)
	if len(many) != 2 || many[0]["NextStep"] != "x" || many[1] != nil {
		t.Errorf("multi-get = %v", many)
	}
	var deleted []result
	w.call("DELETE", "/composite/sobjects?ids="+a+","+b+"&allOrNone=true", "").want(200, "").into(&deleted)
	if len(w.org.Records("Opportunity")) != 0 || !deleted[1].Success {
		t.Errorf("deleted = %v", deleted)
	}
}

func TestComposite(t *testing.T) {
	w := newWire(t, Options{})
	w.org.ResetRequests()
	before := w.org.usage
	sub := func(all bool, status string) response {
		return w.call("POST", "/composite", fmt.Sprintf(`{"allOrNone":%v,"compositeRequest":[
			{"method":"POST","url":"%s/sobjects/Account","referenceId":"acc","body":{"Name":"A \"quoted\""}},
			{"method":"POST","url":"%s/sobjects/Opportunity","referenceId":"opp","body":{"Name":"D","StageName":"Prospecting","CloseDate":"2026-12-01","AccountId":"@{acc.id}","DealSeal_Status__c":"%s"}},
			{"method":"GET","url":"%s/query?q=SELECT+Account.Name+FROM+Opportunity+WHERE+Id='@{opp.id}'","referenceId":"q"}]}`, all, base, base, status, base)).want(200, "")
	}
	var out struct {
		CompositeResponse []struct {
			Body           any
			HTTPStatusCode int
			ReferenceID    string
		}
	}
	sub(true, "Queued").into(&out)
	r := out.CompositeResponse
	if got := line(r[0].HTTPStatusCode, r[1].HTTPStatusCode, r[2].HTTPStatusCode, r[2].ReferenceID); got != "201 201 200 q" {
		t.Fatalf("%s: %v", got, r)
	}
	row := r[2].Body.(map[string]any)["records"].([]any)[0].(map[string]any)["Account"].(map[string]any)
	if row["Name"] != `A "quoted"` {
		t.Errorf("row = %v", row)
	}
	if used := w.org.usage - before; used != 1 {
		t.Errorf("counted as %d API calls", used)
	}
	sub(true, "?").into(&out)
	if got := line(out.CompositeResponse[0].HTTPStatusCode, out.CompositeResponse[1].HTTPStatusCode, out.CompositeResponse[2].HTTPStatusCode); got != "400 400 400" {
		t.Errorf("statuses = %s", got)
	}
	if n := len(w.org.Records("Account")); n != 1 {
		t.Errorf("%d accounts: the failed composite was not undone", n)
	}
	sub(false, "?")
	if n := len(w.org.Records("Account")); n != 2 {
		t.Errorf("%d accounts: without allOrNone the first request stands", n)
	}
}

func TestLinesThatAreSavedTogetherChangeTheAmountOnce(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(map[string]any{"Name": "D"})
	history := func() int { return len(w.org.Records("OpportunityHistory")) }
	before := history()
	var lines []map[string]any
	for i := range 3 {
		lines = append(lines, map[string]any{"Product2": map[string]any{"Name": fmt.Sprint("P", i)}, "Quantity": 1, "UnitPrice": 10.25})
	}
	w.ok(w.org.AddLineItems(id, lines))
	if n := history() - before; n != 1 {
		t.Errorf("%d history rows, want 1", n)
	}
	if got := names(w.query("SELECT Name FROM OpportunityLineItem WHERE OpportunityId = '"+id+"'"), "Name"); len(got) != 3 {
		t.Errorf("lines %v, want 3", got)
	}
}
