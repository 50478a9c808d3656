package salesforce

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

func watch(since time.Time) []deal.Watch {
	return []deal.Watch{{Rule: "r", Object: Object, Stage: "Closed Won", Since: since}}
}

func TestMissingHistoryIsPermanentAtTheStart(t *testing.T) {
	w := newWorld(t, "")
	w.org.Hide("OpportunityHistory")
	c := w.connector(nil)
	problems, err := c.Probe(t.Context(), connectors.Probe{Watches: watch(w.Now())})
	if err != nil {
		t.Fatal(err)
	}
	expectProblem(t, problems, "stage history of opportunities", "cannot read OpportunityHistory")
	if _, err := c.Changes(t.Context(), deal.Cursor{}, watch(w.Now())); !deal.IsPermanent(err) {
		t.Errorf("Changes gives %v", err)
	}
}

func TestRowBeforeTheWindowIsAskedForOnce(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	ids := w.CreateDeals(450, "Prospecting") // three batches of IDs
	since := w.Now().Add(time.Minute)
	w.Advance(time.Hour)
	for _, id := range ids {
		w.Move(id, "Closed Won")
	}
	w.Advance(time.Second)
	before := len(w.org.Requests())
	page, err := c.Changes(t.Context(), deal.Cursor{}, watch(since))
	if err != nil || len(page.Entries) != 450 {
		t.Fatalf("%d entries, %v", len(page.Entries), err)
	}
	first := len(w.org.Requests()) - before
	again, err := c.Changes(t.Context(), page.Next, watch(since))
	if err != nil || len(again.Entries) != 450 {
		t.Fatalf("inside the overlap: %d entries, %v", len(again.Entries), err)
	}
	if n := len(w.org.Requests()) - before - first; first != 5 || n != 1 { // one of them is the login
		t.Errorf("the first poll cost %d calls, the second %d; want 5 and 1", first, n)
	}
}

// scripted answers every query with what the test has prepared, whatever is asked.
type scripted func(soql string) (status int, body string)

func (s scripted) RoundTrip(req *http.Request) (*http.Response, error) {
	status, body := 200, `{"access_token":"00D!x","token_type":"Bearer"}`
	if q := req.URL.Query().Get("q"); q != "" {
		status, body = s(q)
	}
	rec := &bytes.Buffer{}
	fmt.Fprintf(rec, "%s", body)
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}, "Date": {"Fri, 20 Nov 2026 21:00:00 GMT"}},
		Body: nopCloser{rec}, Request: req,
	}, nil
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

func scriptedConnector(t *testing.T, s scripted) *Connector {
	t.Helper()
	c, err := New(Config{MyDomain: "http://127.0.0.1:1", Auth: Auth{Flow: FlowClientCredentials, ConsumerKey: "k", ClientSecret: secretFile(t, "s")}}, Deps{HTTP: s})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	rowA = `{"Id":"008000000000001AAA","OpportunityId":"006000000000001AAA","StageName":"Prospecting","CreatedDate":"2026-11-20T20:00:00.000+0000"}`
	rowB = `{"Id":"008000000000002AAA","OpportunityId":"006000000000001AAA","StageName":"Closed Won","CreatedDate":"2026-11-20T20:00:00.000+0000"}`
)

var t20 = time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)

// Salesforce may answer a LIMIT of 500 with fewer rows and a locator; taking that for the end would lose the rest.
func TestShortPageThatIsNotDoneIsNotTheEnd(t *testing.T) {
	var queries []string
	c := scriptedConnector(t, func(q string) (int, string) {
		queries = append(queries, q)
		if len(queries) == 1 {
			return 200, `{"done":false,"nextRecordsUrl":"/services/data/v66.0/query/0r8-1","records":[` + rowA + `]}`
		}
		return 200, `{"done":true,"records":[` + rowB + `]}`
	})
	page, err := c.Changes(t.Context(), deal.Cursor{}, watch(t20))
	if err != nil || !page.More || page.Next.Since.After(t20) {
		t.Fatalf("page %+v, %v: want more, and a cursor that stays", page, err)
	}
	c.before.put("008000000000002AAA", stageBefore{stage: "Prospecting"})
	page, err = c.Changes(t.Context(), page.Next, watch(t20))
	if err != nil || page.More || len(page.Entries) != 1 {
		t.Fatalf("page %+v, %v: want the entry and the end", page, err)
	}
	if !strings.Contains(queries[1], "Id > '008000000000001AAA'") {
		t.Errorf("the second page is asked for with %s", queries[1])
	}
	// The scan's watermark is the server's clock at its first page, less what that page took.
	if d := time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC).Sub(page.Next.Since); d < 0 || d > time.Minute {
		t.Errorf("the watermark is %s", page.Next.Since)
	}
}

func TestHistoryReplyThatCannotBeUsedIsWorthAnotherTry(t *testing.T) {
	for _, body := range []string{"", "null", "[]", "{}", `{"done":true}`, `{"records":[]}`, `{"done":false,"records":[]}`, `{"done":true,"records":{}}`, `{"done":true,"records":[` + rowA} {
		c := scriptedConnector(t, func(string) (int, string) { return 200, body })
		if _, err := c.Changes(t.Context(), deal.Cursor{}, watch(t20)); err == nil || deal.IsPermanent(err) {
			t.Errorf("reply %q gives %v", body, err)
		}
	}
}

func TestUnreadableRowsAreNamed(t *testing.T) {
	for name, tc := range map[string]struct{ row, reason string }{
		"no object":      {`null`, "no object"},
		"number":         {`17`, "no object"},
		"no ID":          {strings.Replace(rowB, `"Id":"008000000000002AAA",`, "", 1), "Id is missing"},
		"wrong checksum": {strings.Replace(rowB, "002AAA", "002AAB", 1), "Id the last three"},
		"no stage":       {strings.Replace(rowB, `"Closed Won"`, "null", 1), "StageName is missing"},
		"no date":        {strings.Replace(rowB, "2026-11-20T20", "yesterday", 1), "CreatedDate is no date-time"},
		"no deal":        {strings.Replace(rowB, "006000000000001AAA", "4711", 1), "OpportunityId a Salesforce ID"},
	} {
		t.Run(name, func(t *testing.T) {
			c := scriptedConnector(t, func(string) (int, string) { return 200, `{"done":true,"records":[` + tc.row + `]}` })
			page, err := c.Changes(t.Context(), deal.Cursor{}, watch(t20))
			if err != nil || len(page.Entries) != 0 || len(page.Quarantined) != 1 {
				t.Fatalf("page %+v, %v", page, err)
			}
			q := page.Quarantined[0]
			if q.Row == "" || !strings.Contains(q.Reason, tc.reason) || strings.Contains(q.Reason, "yesterday") {
				t.Errorf("quarantine %+v, want a reason with %q", q, tc.reason)
			}
		})
	}
}

func TestRowAfterAnUnreadableStageIsQuarantinedNotSealed(t *testing.T) {
	c := scriptedConnector(t, func(string) (int, string) {
		return 200, `{"done":true,"records":[` + strings.Replace(rowA, `"Prospecting"`, "7", 1) + "," + rowB + `]}`
	})
	page, err := c.Changes(t.Context(), deal.Cursor{}, watch(t20))
	if err != nil || len(page.Entries) != 0 || len(page.Quarantined) != 2 {
		t.Errorf("page %+v, %v: want two quarantined rows and no entry", page, err)
	}
}

func TestPageOfUnreadableRowsIsALoudError(t *testing.T) {
	row := strings.Replace(rowB, "2026-11-20T20", "yesterday", 1)
	c := scriptedConnector(t, func(string) (int, string) {
		return 200, `{"done":true,"records":[` + strings.TrimSuffix(strings.Repeat(row+",", pageRows), ",") + `]}`
	})
	if _, err := c.Changes(t.Context(), deal.Cursor{}, watch(t20)); !deal.IsPermanent(err) {
		t.Errorf("500 rows without a place in the order give %v", err)
	}
}

func TestDamagedStateReadsTheWindowAgain(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	since := w.Now()
	w.CreateDeals(2, "Closed Won")
	w.Advance(time.Minute)
	page, err := c.Changes(t.Context(), deal.Cursor{Since: w.Now(), State: "{damaged"}, watch(since))
	if err != nil || len(page.Entries) != 2 {
		t.Errorf("%d entries, %v; want both", len(page.Entries), err)
	}
}

func FuzzCursorState(f *testing.F) {
	good := scan{kind: kinds[3], from: t20, asOf: t20.Add(time.Hour), last: position{t20, "008000000000001AAA"}, watches: "0123456789abcdef"}
	behind := scan{kind: kinds[0], from: t20, ahead: t20.Add(time.Hour), behind: []string{"Order"}, ended: true, watches: "0123456789abcdef"}
	first := scan{kind: kinds[0], from: t20, ahead: t20.Add(time.Hour), places: map[string]position{"Order": {t20, "801000000000001AAA"}}, pages: 3, watches: "0123456789abcdef"}
	for _, seed := range []string{"", "{}", good.state(), behind.state(), first.state(), `{"from":"x"}`, `{"from":"2026-11-20T20:00:00.000Z","at":"2026-11-20T20:00:00.000Z","id":"' OR Id != '"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		hostile.Budget(t)
		s, err := parseState(text)
		if err != nil {
			return
		}
		if _, err := CanonicalID(s.last.id); err != nil && s.last != (position{}) {
			t.Errorf("state with ID %q is accepted: %v", s.last.id, err)
		}
		again, err := parseState(s.state())
		if err != nil {
			t.Fatalf("%s is not read back: %v", s.state(), err)
		}
		if diff := cmp.Diff(s, again, cmp.AllowUnexported(scan{}, position{}, kind{})); diff != "" {
			t.Errorf("read back differently:\n%s", diff)
		}
	})
}

func FuzzHistoryReply(f *testing.F) {
	for _, seed := range []string{"", "null", `{"done":true,"records":[` + rowA + "," + rowB + `]}`, `{"done":true,"records":[null,1,"x",{"Id":[]}]}`} {
		f.Add([]byte(seed))
	}
	by := byStage(kinds[0], watch(t20))
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		rows, _, err := parseHistory(kinds[0], body)
		if err != nil {
			return
		}
		for _, row := range rows {
			for _, before := range []stageBefore{{}, {stage: row.stage}, {unknown: "x"}} {
				entries, quarantined := judge(kinds[0], row, before, by)
				if len(entries) > 0 && quarantined != nil || row.err != nil && quarantined == nil || quarantined != nil && quarantined.Row == "" {
					t.Errorf("row %+v: entries %v, quarantined %v", row, entries, quarantined)
				}
				for _, e := range entries {
					if _, err := CanonicalID(e.Occurrence); err != nil || e.Ref.ID == "" || e.At.Before(t20) {
						t.Errorf("entry %+v", e)
					}
				}
			}
		}
	})
}

func TestJudgeComparesWithTheRowBefore(t *testing.T) {
	row := parseHistoryRow(kinds[0], json.RawMessage(rowB))
	want := []deal.Change{{Rule: "r", Ref: deal.Ref{Object: Object, ID: "006000000000001AAA"}, Stage: "Closed Won", Occurrence: "008000000000002AAA", At: t20}}
	for name, tc := range map[string]struct {
		before  stageBefore
		watches []deal.Watch
		want    []deal.Change
	}{
		"first row":        {stageBefore{}, watch(t20), want},
		"other stage":      {stageBefore{stage: "Prospecting"}, watch(t20), want},
		"same stage":       {stageBefore{stage: "Closed Won"}, watch(t20), nil},
		"before the rule":  {stageBefore{}, watch(t20.Add(time.Millisecond)), nil},
		"stage of nobody":  {stageBefore{}, []deal.Watch{{Rule: "r", Object: Object, Stage: "closed won", Since: t20}}, nil},
		"one rule too new": {stageBefore{}, append(watch(t20), deal.Watch{Rule: "new", Object: Object, Stage: "Closed Won", Since: t20.Add(time.Hour)}), want},
		"unknown before":   {stageBefore{unknown: "x"}, watch(t20), nil},
		"unknown, too old": {stageBefore{unknown: "x"}, watch(t20.Add(time.Hour)), nil},
	} {
		got, _ := judge(kinds[0], row, tc.before, byStage(kinds[0], tc.watches))
		if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
