package hubspot

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

// maxFuzz is how many bytes of one input are looked at.
const maxFuzz = 64 << 10

func FuzzSearchReply(f *testing.F) {
	f.Add([]byte(`{"total":2,"results":[{"id":"7","properties":{"hs_lastmodifieddate":"2026-01-02T00:00:00Z"}},{"id":"8"}],"paging":{"next":{"after":"200"}}}`), int64(6))
	f.Add([]byte(`{"results":[null,{"id":7},{"id":"07"},[]]}`), int64(0))
	f.Add([]byte(`{"results":[]`), int64(0))
	f.Fuzz(func(t *testing.T, body []byte, last int64) {
		hostile.Budget(t)
		if len(body) > maxFuzz {
			return
		}
		list, err := parseSearch(body, last)
		if err != nil {
			return
		}
		for _, row := range list.rows {
			if row.id <= last || row.id <= 0 {
				t.Fatalf("ID %d after %d: the scan would not move on", row.id, last)
			}
			last = row.id
		}
		for _, q := range list.quarantined {
			if q.Row == "" || q.Reason == "" {
				t.Errorf("quarantined without a name or reason: %+v", q)
			}
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"id":"7","properties":{"pipeline":"default","hs_merged_object_ids":"1;2"},"propertiesWithHistory":{"dealstage":[` +
		`{"value":"won","timestamp":"2026-01-02T00:00:00.123Z","sourceType":"CRM_UI","sourceId":"userId:1"},{"value":"new","timestamp":1767312000123}],` +
		`"pipeline":[{"value":"default","timestamp":"x"}]}}`))
	f.Add([]byte(`{"id":"7","propertiesWithHistory":{"dealstage":[null,{},{"value":null},{"value":"won"},{"value":"won","timestamp":"yesterday"}]}}`))
	by := byStage([]deal.Watch{{Rule: "r", Stage: "won"}, {Rule: "p", Stage: "won", Pipeline: "default"}})
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		if len(body) > maxFuzz {
			return
		}
		h, err := deals.parseHistory(body)
		if err != nil {
			return
		}
		entries, quarantined := h.judge(by, time.Time{})
		if !slices.IsSortedFunc(entries, func(a, b deal.Change) int { return a.At.Compare(b.At) }) {
			t.Error("entries are not oldest first")
		}
		for _, e := range entries {
			if e.Stage != "won" || e.Occurrence != "won@"+e.At.Format(stampForm) || e.At != e.At.UTC().Truncate(time.Millisecond) {
				t.Errorf("entry %+v", e)
			}
		}
		rows := map[string]bool{}
		for _, q := range quarantined {
			if rows[q.Row] {
				t.Errorf("two quarantined entries are called %s", q.Row)
			}
			rows[q.Row] = true
		}
	})
}

func FuzzErrorEnvelope(f *testing.F) {
	f.Add(400, []byte(`{"status":"error","message":"Property values were not valid: [{\"error\":\"INVALID_OPTION\",\"name\":\"x\"}]","category":"VALIDATION_ERROR","errors":[{"code":"C","context":{"propertyName":["x"]}}]}`), "7")
	f.Add(429, []byte(`{"policyName":"DAILY"}`), "-1")
	f.Add(502, []byte(`<html>`), "")
	f.Add(477, []byte(``), "99999999999999999999")
	f.Add(477, []byte(``), "9223372036854775") // seconds that overflow as nanoseconds
	f.Fuzz(func(t *testing.T, status int, body []byte, after string) {
		hostile.Budget(t)
		if len(body) > maxFuzz {
			return
		}
		err := failure(status, http.Header{"Retry-After": {after}, "Date": {after}}, body, time.UTC)
		if d := err.RetryAfter(); d < 0 || d > maxMigration {
			t.Errorf("retry after %s", d)
		}
		text := err.Error()
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n\x00") || len(text) > 30_000 {
			t.Errorf("the error's text is not one for a log: %q", text)
		}
		if status != 401 && err.class == expired {
			t.Errorf("status %d has class %d", status, err.class)
		}
	})
}

func FuzzCursorState(f *testing.F) {
	at := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	f.Add(position{Page: "p", Watches: "w", From: &at, AsOf: at, Last: 7, Within: 8, Returned: 500}.String())
	f.Add(`{"last":-1}`)
	f.Add(`{"from":"yesterday"}`)
	c := &Connector{cfg: Config{}.withDefaults()}
	watches := []deal.Watch{{Rule: "r", Stage: "won", Since: at}}
	f.Fuzz(func(t *testing.T, state string) {
		hostile.Budget(t)
		if len(state) > maxFuzz {
			return
		}
		p, err := parsePosition(state)
		if err != nil {
			return
		}
		s := c.resume(deal.Cursor{Since: at, State: state}, p, watches)
		if s.last < 0 || s.returned < 0 {
			t.Fatalf("a scan at %d, %d", s.last, s.returned)
		}
		if p.From == nil || p.Watches != connectors.WatchesKey(watches) {
			return
		}
		stored := s.pause(deal.Cursor{Since: at}, p.Page)
		again, err := parsePosition(stored.State)
		if err != nil || again.Last != s.last || again.Within != s.within || again.Returned != s.returned {
			t.Errorf("%+v is stored as %s and read as %+v, %v", s, stored.State, again, err)
		}
	})
}

func FuzzNoteBody(f *testing.F) {
	f.Add(key(deal.NewTxID("k:1", dealRef("1"), "r", "x"), deal.RoleContract, strings.Repeat("ab", 32), "77"), "77;78")
	f.Add("dealseal:", ";;")
	f.Fuzz(func(t *testing.T, body, ids string) {
		hostile.Budget(t)
		if len(body)+len(ids) > maxFuzz {
			return
		}
		n := parseNote(object{ID: "5", Properties: map[string]*string{"hs_note_body": &body, "hs_attachment_ids": &ids}})
		if n.tx == "" {
			return
		}
		if _, ok := parseID(n.file); !ok || !strings.Contains(body, key(n.tx, n.role, n.sha256, n.file)) {
			t.Errorf("%q is read as %+v", body, n)
		}
	})
}

func FuzzBatchReply(f *testing.F) {
	f.Add([]byte(`{"results":[{"id":"1"}],"errors":[{"category":"OBJECT_NOT_FOUND","context":{"ids":["2"]}}]}`), 2)
	f.Add([]byte(`{"results":[]}`), 0)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		hostile.Budget(t)
		if len(body) > maxFuzz {
			return
		}
		results, err := parseBatch(body, n)
		if err == nil && len(results) > n {
			t.Errorf("%d results of %d", len(results), n)
		}
		for _, raw := range results {
			if !json.Valid(bytes.TrimSpace(raw)) {
				t.Errorf("a result is no JSON: %q", raw)
			}
		}
	})
}

// FuzzShared is for the replies that several deals share: nobody's may be taken for another's.
func FuzzShared(f *testing.F) {
	f.Add([]byte(`{"results":[{"from":{"id":"7"},"to":[{"toObjectId":201,"associationTypes":[{"category":"HUBSPOT_DEFINED","typeId":3}]}],"paging":{"next":{"after":"9"}}}],"errors":[{}]}`))
	f.Add([]byte(`{"contacts":{"results":[{"id":"2"},{"id":1},{"id":"2"}]},"line items":{"results":[{"id":"5"}]},"strange":{"results":[]}}`))
	f.Add([]byte(`{"results":[{"id":"7","objectWriteTraceId":"note-0"},null]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		if len(body) > maxFuzz {
			return
		}
		errorsIn(body)
		_, _ = resultsOf(body)
		_, _ = madeNotes(body, nil)
		if results, err := parseBatch(body, 2); err == nil {
			for _, raw := range results {
				id, list, _, err := parseEnds(raw)
				for _, a := range list {
					if _, ok := parseID(a.id); err == nil && !ok {
						t.Errorf("%q belongs to %q", a.id, id)
					}
				}
			}
		}
		var said map[string]inlineAssociations
		if json.Unmarshal(body, &said) != nil {
			return
		}
		ends, err := inlineEnds(said, []string{"contacts", "line_items"})
		if err != nil {
			return
		}
		if len(ends["contacts"]) > 1 {
			t.Error("several contacts without their labels")
		}
		for name := range said {
			if name != "contacts" && name != "line_items" && name != "line items" && ends != nil {
				t.Errorf("%q may be a list that was asked for, and counts as none", name)
			}
		}
		for _, list := range ends {
			if !slices.IsSortedFunc(list, func(a, b associated) int { return compareIDs(a.id, b.id) }) {
				t.Error("not in the order of IDs")
			}
		}
	})
}
