package salesforce

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/hostile"
)

// names are the values of one field over a result.
func names(q queryResult, field string) []string {
	got := []string{}
	for _, r := range q.Records {
		got = append(got, fmt.Sprint(r[field]))
	}
	return got
}

func TestWhere(t *testing.T) {
	w := newWire(t, Options{})
	acme, err := w.org.CreateAccount(map[string]any{"Name": "Acme"})
	w.ok(err)
	a := w.opportunity(map[string]any{"Name": "Alpha", "Amount": 100, "CloseDate": "2026-12-01", "AccountId": acme})
	w.clock.advance(time.Minute)
	w.opportunity(map[string]any{"Name": "Beta's", "Amount": 200.5, "CloseDate": "2026-12-02", "StageName": "Closed Won"})
	w.clock.advance(time.Minute)
	w.opportunity(map[string]any{"Name": "100%_\\", "CloseDate": "2026-12-03", "NextStep": "call"})
	_, err = w.org.AddContactRole(a, map[string]any{"Contact": map[string]any{"LastName": "Doe"}})
	w.ok(err)
	for _, tc := range []struct {
		where string
		want  []string
	}{
		{`Name = 'alpha'`, []string{"Alpha"}},
		{`Name = 'Beta\'s'`, []string{"Beta's"}},
		{`Name = '\u0041lpha'`, []string{"Alpha"}},
		{`Name LIKE '%a%'`, []string{"Alpha", "Beta's"}},
		{`Name LIKE '_eta%'`, []string{"Beta's"}},
		{`Name LIKE '100\%\_\\'`, []string{`100%_\`}},
		{`Name IN ('Alpha', 'nobody', '100%_\\')`, []string{"Alpha", `100%_\`}},
		{`Name NOT IN ('Alpha')`, []string{"Beta's", `100%_\`}},
		{`Amount = null`, []string{`100%_\`}},
		{`Amount != null AND Amount < 150`, []string{"Alpha"}},
		{`Amount >= 100 AND Amount <= 200.50`, []string{"Alpha", "Beta's"}},
		{`NextStep != 'x'`, []string{"Alpha", "Beta's", `100%_\`}},
		{`(Name = 'Alpha' OR Amount = null) AND IsClosed = false`, []string{"Alpha", `100%_\`}},
		{`NOT (Name = 'Alpha' OR IsWon = true)`, []string{`100%_\`}},
		{`CloseDate > 2026-12-01`, []string{"Beta's", `100%_\`}},
		{`CreatedDate >= 2026-11-20T21:01:00Z`, []string{"Beta's", `100%_\`}},
		{`CreatedDate > 2026-11-20T22:01:00.000+01:00`, []string{`100%_\`}},
		{`Account.Name = 'Acme'`, []string{"Alpha"}},
		{`Account.Owner.Name != null AND Owner.Username LIKE 'sales%'`, []string{"Alpha"}},
		{`Id = '` + a + `'`, []string{"Alpha"}},
		{`Id IN ('` + a[:15] + `', '006000000000000AAA')`, []string{"Alpha"}},
		{`Id IN (SELECT OpportunityId FROM OpportunityContactRole WHERE Contact.LastName = 'Doe')`, []string{"Alpha"}},
	} {
		t.Run(tc.where, func(t *testing.T) {
			w.t = t
			q := w.query("SELECT Name FROM Opportunity WHERE " + tc.where + " ORDER BY CreatedDate")
			if diff := cmp.Diff(tc.want, names(q, "Name")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOrderLimitOffsetAndCount(t *testing.T) {
	w := newWire(t, Options{})
	for _, f := range []map[string]any{{"Name": "a", "Amount": 2}, {"Name": "b"}, {"Name": "c", "Amount": 1}, {"Name": "d", "Amount": 2}} {
		w.opportunity(f)
	}
	for _, tc := range []struct{ tail, want string }{
		{"ORDER BY Amount", "b c a d"},
		{"ORDER BY Amount DESC, Name DESC", "b d a c"},
		{"ORDER BY Amount DESC NULLS LAST, Name", "a d c b"},
		{"ORDER BY Amount ASC NULLS LAST LIMIT 2", "c a"},
		{"ORDER BY Name LIMIT 2 OFFSET 1", "b c"},
	} {
		if got := strings.Join(names(w.query("SELECT Name FROM Opportunity "+tc.tail), "Name"), " "); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.tail, got, tc.want)
		}
	}
	if q := w.query("SELECT COUNT() FROM Opportunity WHERE Amount != null"); q.TotalSize != 3 || len(q.Records) != 0 {
		t.Errorf("count = %+v", q)
	}
}

func TestOneQueryReadsAWholeDeal(t *testing.T) {
	w := newWire(t, Options{})
	acc, err := w.org.CreateAccount(map[string]any{"Name": "Acme", "BillingCity": "Kyiv"})
	w.ok(err)
	id := w.opportunity(map[string]any{"Name": "D", "AccountId": acc})
	for i, price := range []float64{0.1, 0.2} {
		_, err = w.org.AddLineItem(id, map[string]any{"Product2": map[string]any{"Name": fmt.Sprint("P", i)}, "Quantity": 1, "UnitPrice": price, "SortOrder": 2 - i})
		w.ok(err)
	}
	res := w.ask(`SELECT Id, Amount, CloseDate, Account.Name, Account.BillingCity, Owner.Name, DealSeal_Status__c,
		(SELECT Quantity, TotalPrice, SortOrder, Product2.Name FROM OpportunityLineItems ORDER BY SortOrder),
		(SELECT ContactId FROM OpportunityContactRoles), (SELECT ContentDocument.Title FROM ContentDocumentLinks) FROM Opportunity WHERE Id = '`+id+`'`).want(200, "")
	attr := func(object, id string) string {
		return `"attributes":{"type":"` + object + `","url":"` + base + `/sobjects/` + object + `/` + id + `"}`
	}
	items, products := w.org.Records("OpportunityLineItem"), w.org.Records("Product2")
	want := `{"totalSize":1,"done":true,"records":[{` + attr("Opportunity", id) + `,"Id":"` + id + `","Amount":0.3,"CloseDate":"2026-12-20",` +
		`"Account":{` + attr("Account", acc) + `,"Name":"Acme","BillingCity":"Kyiv"},"Owner":{` + attr("User", w.org.person) + `,"Name":"Sam Seller"},"DealSeal_Status__c":null,` +
		`"OpportunityLineItems":{"totalSize":2,"done":true,"records":[` +
		`{` + attr("OpportunityLineItem", items[1]) + `,"Quantity":1.0,"TotalPrice":0.2,"SortOrder":1,"Product2":{` + attr("Product2", products[1]) + `,"Name":"P1"}},` +
		`{` + attr("OpportunityLineItem", items[0]) + `,"Quantity":1.0,"TotalPrice":0.1,"SortOrder":2,"Product2":{` + attr("Product2", products[0]) + `,"Name":"P0"}}]},` +
		`"OpportunityContactRoles":null,"ContentDocumentLinks":null}]}`
	if diff := cmp.Diff(want, string(res.body)); diff != "" {
		t.Error(diff)
	}
	if got := res.header.Get("Content-Type"); got != "application/json;charset=UTF-8" {
		t.Errorf("Content-Type = %q", got)
	}
}

func TestQueryIsPaged(t *testing.T) {
	w := newWire(t, Options{PageSize: 2})
	for i := range 5 {
		w.opportunity(map[string]any{"Name": fmt.Sprint(i)})
	}
	q := w.query("SELECT Name FROM Opportunity ORDER BY Name")
	all := names(q, "Name")
	for !q.Done {
		if q.TotalSize != 5 {
			t.Fatalf("totalSize = %d", q.TotalSize)
		}
		res := w.must(w.request("GET", q.NextRecordsURL, nil)).want(200, "")
		q = queryResult{}
		res.into(&q)
		all = append(all, names(q, "Name")...)
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "3", "4"}, all); diff != "" {
		t.Error(diff)
	}
	if q.NextRecordsURL != "" {
		t.Errorf("the last page names another one: %s", q.NextRecordsURL)
	}
}

func TestColumnsAreDescribedOnRequest(t *testing.T) {
	w := newWire(t, Options{})
	res := w.call("GET", "/query?columns=true&q="+url.QueryEscape("SELECT Id, Amount, Account.Name FROM Opportunity"), "").want(200, "")
	var out struct {
		EntityName     string
		ColumnMetadata []struct {
			ColumnName, ApexType string
			Updatable            bool
		}
	}
	res.into(&out)
	if got, want := fmt.Sprint(out), "{Opportunity [{Id Id false} {Amount Decimal true}]}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBatchSizeIsKeptWithinItsBounds(t *testing.T) {
	w := newWire(t, Options{})
	for range 210 {
		w.opportunity(nil)
	}
	for header, want := range map[string]int{"batchSize=200": 200, "batchSize=5": 200, "batchSize=205": 205, "batchSize=9999": 210} {
		if got := len(w.query("SELECT Id FROM Opportunity", "Sforce-Query-Options", header).Records); got != want {
			t.Errorf("%s: %d rows, want %d", header, got, want)
		}
	}
}

func TestQueryLocatorExpires(t *testing.T) {
	for name, expire := range map[string]func(*wire){
		"by command":      func(w *wire) { w.org.ExpireQueries() },
		"after two days":  func(w *wire) { w.clock.advance(48*time.Hour + time.Second); w.login() },
		"past its result": nil,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, Options{PageSize: 1})
			w.opportunity(nil)
			w.opportunity(nil)
			next := w.query("SELECT Id FROM Opportunity").NextRecordsURL
			if expire == nil {
				next += "0"
			} else {
				w.must(w.request("GET", next, nil)).want(200, "")
				expire(w)
			}
			w.must(w.request("GET", next, nil)).want(400, "INVALID_QUERY_LOCATOR")
		})
	}
}

func TestQueryErrors(t *testing.T) {
	w := newWire(t, Options{})
	w.org.Hide("Opportunity.Amount")
	w.org.Hide("OpportunityHistory")
	for _, tc := range []struct{ soql, code, message string }{
		{"SELECT Id, Nme FROM Opportunity", "INVALID_FIELD", "\nSELECT Id, Nme FROM Opportunity\n           ^\nERROR at Row:1:Column:12\nNo such column 'Nme' on entity 'Opportunity'."},
		{"SELECT Amount FROM Opportunity", "INVALID_FIELD", "No such column 'Amount' on entity 'Opportunity'."},
		{"SELECT Id FROM OpportunityHistory", "INVALID_TYPE", "sObject type 'OpportunityHistory' is not supported."},
		{"SELECT Id FROM Nothing__c", "INVALID_TYPE", "sObject type 'Nothing__c' is not supported."},
		{"SELECT Boss.Name FROM Opportunity", "INVALID_FIELD", "Didn't understand relationship 'Boss' in field path."},
		{"SELECT Id, (SELECT Id FROM Lines) FROM Opportunity", "INVALID_TYPE", "Didn't understand relationship 'Lines' in FROM part of query call."},
		{"SELECT Id FROM Opportunity WHERE CreatedDate > '2026-11-20T00:00:00Z'", "INVALID_FIELD", "must be of type dateTime and should not be enclosed in quotes"},
		{"SELECT Id FROM Opportunity WHERE CloseDate > 2026-11-20T00:00:00Z", "INVALID_FIELD", "must be of type date"},
		{"SELECT Id FROM Opportunity WHERE Name = 3", "INVALID_FIELD", "must be of type string and should be enclosed in quotes"},
		{"SELECT Id FROM Opportunity WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: x"},
		{"SELECT Id FROM Opportunity WHERE DealSeal_Audit__c = 'x'", "INVALID_FIELD", "can not be filtered"},
		{`SELECT Id FROM Opportunity WHERE Name = 'a\qb'`, "MALFORMED_QUERY", "Illegal character sequence"},
		{"SELECT Id FROM Opportunity WHERE Name = 'a' AND Name = 'b' OR Name = 'c'", "MALFORMED_QUERY", "unexpected token: 'OR'"},
		{"SELECT Id, Id FROM Opportunity", "MALFORMED_QUERY", "duplicate field selected: Id"},
		{"SELECT Id FROM Opportunity LIMIT -1", "MALFORMED_QUERY", "unexpected token: '-1'"},
		{"SELECT FROM Opportunity", "MALFORMED_QUERY", "unexpected token: 'FROM'"},
		{"SELECT Id FROM ContentDocumentLink", "MALFORMED_QUERY", "Implementation restriction: ContentDocumentLink requires a filter"},
		{"SELECT Id FROM ContentDocumentLink WHERE LinkedEntityId = '006000000000000' OR ShareType = 'V'", "MALFORMED_QUERY", "Implementation restriction"},
		{"", "MALFORMED_QUERY", "cannot be empty"},
		{"SELECT Id FROM Opportunity WHERE " + strings.Repeat("(", 99), "QUERY_TOO_COMPLICATED", "nested"},
	} {
		t.Run(tc.soql[:min(60, len(tc.soql))], func(t *testing.T) {
			w.t = t
			res := w.ask(tc.soql).want(400, tc.code)
			var list []struct{ Message string }
			res.into(&list)
			if !strings.Contains(list[0].Message, tc.message) {
				t.Errorf("message = %q, want %q in it", list[0].Message, tc.message)
			}
		})
	}
}

func TestQueryAllSeesTheRecycleBin(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(nil)
	w.ok(w.org.Delete(id))
	if n := w.query("SELECT Id FROM Opportunity").TotalSize; n != 0 {
		t.Errorf("query returns %d deleted records", n)
	}
	var q queryResult
	w.call("GET", "/queryAll/?q="+url.QueryEscape("SELECT Id, IsDeleted FROM Opportunity WHERE IsDeleted = true"), "").want(200, "").into(&q)
	if diff := cmp.Diff([]string{id}, names(q, "Id")); diff != "" {
		t.Error(diff)
	}
}

func TestNumbersAreWrittenAsJavaDoubles(t *testing.T) {
	for _, tc := range []struct {
		in   float64
		want string
	}{{0, "0.0"}, {100, "100.0"}, {0.1, "0.1"}, {-2.5, "-2.5"}, {9999999.99, "9999999.99"}, {1e7, "1.0E7"}, {12500000, "1.25E7"}, {0.0005, "5.0E-4"}} {
		if got := javaDouble(tc.in); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestIDChecksum(t *testing.T) {
	for id15, want := range map[string]string{"001D000000IqhSL": "001D000000IqhSLIAZ", "00530000009M943": "00530000009M943AAC"} {
		if got := ID18(id15); got != want {
			t.Errorf("ID18(%s) = %s, want %s", id15, got, want)
		}
		if got, ok := canonicalID(want); !ok || got != want {
			t.Errorf("canonicalID(%s) = %s, %v", want, got, ok)
		}
	}
	if _, ok := canonicalID("001D000000IqhSLAAA"); ok {
		t.Error("a wrong checksum is accepted")
	}
}

func FuzzSOQL(f *testing.F) {
	for _, s := range []string{
		"SELECT Id FROM Opportunity",
		`SELECT Id, Account.Name, (SELECT Id FROM OpportunityLineItems ORDER BY SortOrder DESC NULLS LAST LIMIT 1) FROM Opportunity o WHERE o.Name LIKE '\%a_\'' AND NOT (Amount >= 1e3 OR Id IN ('006000000000000')) ORDER BY Name LIMIT 3 OFFSET 1`,
		"SELECT COUNT() FROM OpportunityHistory WHERE CreatedDate >= 2026-11-20T00:00:00.000+01:00 AND OpportunityId NOT IN (SELECT Id FROM Opportunity)",
		"SELECT Id FROM ContentDocumentLink WHERE LinkedEntityId = '006000000000000AAA'",
		`SELECT Id FROM Account WHERE Name = '\u00e9\n' OR Name = null`,
	} {
		f.Add(s)
	}
	org := New(Options{})
	id, err := org.CreateOpportunity(map[string]any{"Amount": 5})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := org.AddLineItem(id, map[string]any{"Quantity": 1, "UnitPrice": 2}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, soql string) {
		hostile.Budget(t)
		q, e := parseSOQL(soql)
		if e != nil {
			if e.Status != 400 || e.Code == "" || e.Message == "" {
				t.Fatalf("error without status, code or message: %+v", e)
			}
			return
		}
		b := &binder{o: org, now: org.now(), version: "66.0"}
		p, e := b.bind(q)
		if e != nil {
			return
		}
		w := &renderer{b}
		for _, r := range p.cut(b.rows(p)) {
			marshal(w.record(p.shape, r))
		}
	})
}
