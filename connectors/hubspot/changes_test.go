package hubspot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

// reader polls as the engine does.
type reader struct {
	t       *testing.T
	c       *Connector
	cursor  deal.Cursor
	watches []deal.Watch
}

func newReader(t *testing.T, w *world, watches ...deal.Watch) *reader {
	for i := range watches {
		if watches[i].Since.IsZero() {
			watches[i].Since = w.Now()
		}
		watches[i].Object = Object
	}
	return &reader{t: t, c: w.connector(quiet()), watches: watches}
}

// page reads one page and takes it in.
func (r *reader) page() deal.Page {
	r.t.Helper()
	page, err := r.c.Changes(r.t.Context(), r.cursor, r.watches)
	if err != nil {
		r.t.Fatalf("Changes: %v", err)
	}
	r.cursor = page.Next
	return page
}

// poll reads to the end.
func (r *reader) poll() []deal.Change {
	r.t.Helper()
	var all []deal.Change
	for {
		page := r.page()
		all = append(all, page.Entries...)
		if !page.More {
			return all
		}
	}
}

func occurrences(entries []deal.Change) []string {
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Ref.ID+" "+e.Occurrence)
	}
	return list
}

func contractSent() deal.Watch { return deal.Watch{Rule: "contract", Stage: "contractsent"} }

func TestOccurrenceIsStageAndStamp(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	w.Advance(1234 * time.Millisecond)
	id := w.CreateDeals(1, "contractsent")[0]
	w.Advance(time.Second)
	entries := r.poll()
	want := []string{id + " contractsent@2026-11-20T20:00:01.234Z"}
	if diff := cmp.Diff(want, occurrences(entries)); diff != "" {
		t.Fatalf("entries (-want +got):\n%s", diff)
	}
	if entries[0].By != "userId:12345" {
		t.Errorf("By = %q, want the user who moved the deal", entries[0].By)
	}
}

// TestDealIsReadAgainOnlyWhenItChanges holds that our own write-back costs one reading and not one at each poll.
func TestDealIsReadAgainOnlyWhenItChanges(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	id := w.CreateDeals(1, "contractsent")[0]
	w.Advance(2 * time.Second)
	batches := func(want int, what string) {
		t.Helper()
		before := w.portal.Counts()[mock.KindBatchRead]
		w.Advance(time.Second)
		r.poll()
		if n := w.portal.Counts()[mock.KindBatchRead] - before; n != want {
			t.Errorf("%s: %d batches were read, want %d", what, n, want)
		}
	}
	batches(1, "first poll")
	batches(0, "nothing happened")
	w.must(w.portal.SetProperty(id, "dealseal_status", "queued"))
	w.Advance(2 * time.Second)
	batches(1, "after a write-back")
	batches(0, "nothing happened since")
	batches(0, "and still nothing")
}

// TestSecondChangeWithinOneStampIsNotMissed: search gives the deal the same stamp before and after it.
func TestSecondChangeWithinOneStampIsNotMissed(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	w.Advance(1500 * time.Millisecond)
	id := w.CreateDeals(1, "appointmentscheduled")[0]
	if got := r.poll(); len(got) != 0 {
		t.Fatalf("entries %v before the deal entered", occurrences(got))
	}
	w.Move(id, "contractsent")
	if got := r.poll(); len(got) != 1 {
		t.Errorf("entries %v, want one", occurrences(got))
	}
}

func TestPageThatWasLostIsReadAgain(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	r.poll()
	w.CreateDeals(3, "contractsent")
	w.Advance(2 * time.Second)
	cursor := r.cursor
	first := r.page()
	for range 2 {
		r.cursor = cursor // the page never reached the ledger
		if diff := cmp.Diff(occurrences(first.Entries), occurrences(r.page().Entries)); diff != "" || len(first.Entries) != 3 {
			t.Errorf("the same page again (-first +again):\n%s", diff)
		}
	}
}

func TestDealsAreReadAgainForAnotherRule(t *testing.T) {
	w := newWorld(t, FlowToken)
	since := w.Now()
	r := newReader(t, w, contractSent())
	id := w.CreateDeals(1, "qualifiedtobuy")[0]
	w.Advance(2 * time.Second)
	r.poll()
	r.watches = append(r.watches, deal.Watch{Rule: "late", Object: Object, Stage: "qualifiedtobuy", Since: since})
	// The cursor is where it was: the entry lies within the look-back.
	if got := r.poll(); len(got) != 1 || got[0].Ref.ID != id || got[0].Rule != "late" {
		t.Errorf("the new rule gets %v, want the entry of %s", occurrences(got), id)
	}
}

// TestScanBeginsAgainForOtherRules holds that deals which a scan under way has passed are not lost to a rule that comes
// in the middle of it.
func TestScanBeginsAgainForOtherRules(t *testing.T) {
	w := newWorld(t, FlowToken)
	since := w.Now()
	r := newReader(t, w, contractSent())
	early := w.CreateDeals(1, "qualifiedtobuy")[0]
	w.CreateDeals(400, "contractsent")
	w.Advance(2 * time.Second)
	if page := r.page(); !page.More {
		t.Fatal("401 deals fit one page")
	}
	r.watches = append(r.watches, deal.Watch{Rule: "late", Object: Object, Stage: "qualifiedtobuy", Since: since})
	found := slices.ContainsFunc(r.poll(), func(c deal.Change) bool { return c.Rule == "late" && c.Ref.ID == early })
	if !found {
		t.Error("the entry that lies before the scan's place was lost to the new rule")
	}
}

func TestOneDealWithManyEntriesFillsSeveralPages(t *testing.T) {
	w := newWorld(t, FlowToken)
	watches := make([]deal.Watch, 5)
	for i := range watches {
		watches[i] = deal.Watch{Rule: fmt.Sprint("rule-", i), Stage: "contractsent"}
	}
	r := newReader(t, w, watches...)
	ids := w.CreateDeals(3, "appointmentscheduled")
	const moves = 250
	for range moves {
		w.Advance(time.Second)
		w.Move(ids[1], "contractsent")
		w.Move(ids[1], "qualifiedtobuy")
	}
	w.Advance(time.Second)
	w.Move(ids[2], "contractsent")
	w.Advance(2 * time.Second)
	seen := map[string]int{}
	pages := 0
	for more := true; more; pages++ {
		page := r.page()
		more = page.More
		if len(page.Entries) > maxEntries {
			t.Fatalf("a page has %d entries", len(page.Entries))
		}
		for _, e := range page.Entries {
			seen[e.Rule+e.Ref.ID+e.Occurrence]++
		}
	}
	if len(seen) != (moves+1)*len(watches) || pages != 3 {
		t.Errorf("%d different entries on %d pages, want %d on 3", len(seen), pages, (moves+1)*len(watches))
	}
}

func TestIndexThatIsOutOfOrderLosesNothing(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	w.portal.SetIndexDelay(mock.Delay{Min: 0, Max: 10 * time.Minute})
	want := map[string]bool{}
	got := map[string]bool{}
	for range 20 {
		for _, id := range w.CreateDeals(5, "contractsent") {
			want[id] = true
		}
		w.Advance(time.Minute)
		for _, e := range r.poll() {
			got[e.Ref.ID] = true
		}
	}
	w.Advance(11 * time.Minute)
	for _, e := range r.poll() {
		got[e.Ref.ID] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("deals (-want +got):\n%s", diff)
	}
}

// TestValueThatAMergeWroteIsNoEntry: the loser has moved on since the winner entered the stage, so the merge writes the
// winner's stage once more.
func TestValueThatAMergeWroteIsNoEntry(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	ids := w.CreateDeals(2, "appointmentscheduled")
	w.Advance(time.Second)
	w.Move(ids[0], "contractsent")
	w.Advance(time.Second)
	w.Move(ids[1], "qualifiedtobuy")
	w.Advance(2 * time.Second)
	before := r.poll()
	w.Advance(time.Hour)
	merged, err := w.Merge(ids[0], ids[1])
	w.must(err)
	w.Advance(2 * time.Second)
	after := r.poll()
	if len(before) != 1 || len(after) != 1 || after[0].Occurrence != before[0].Occurrence {
		t.Fatalf("before the merge %v, after it %v, want the same entry", occurrences(before), occurrences(after))
	}
	if after[0].Ref.ID != merged || !cmp.Equal(after[0].Aliases, ids) {
		t.Errorf("the entry is of %s with aliases %v, want %s with %v", after[0].Ref.ID, after[0].Aliases, merged, ids)
	}
}

// TestDealThatLeftThePipelineIsFound: a filter on the pipeline of today would lose the entry.
func TestDealThatLeftThePipelineIsFound(t *testing.T) {
	w := newWorld(t, FlowToken)
	watch := contractSent()
	watch.Pipeline = "default"
	r := newReader(t, w, watch, deal.Watch{Rule: "renewal", Stage: "940012", Pipeline: "94001"})
	id := w.CreateDeals(1, "appointmentscheduled")[0]
	w.Advance(time.Second)
	w.Move(id, "contractsent")
	w.Advance(10 * time.Second)
	w.must(w.portal.Update("deals", id, map[string]string{"pipeline": "94001", "dealstage": "940012"}))
	w.Advance(2 * time.Second)
	var rules []string
	for _, e := range r.poll() {
		rules = append(rules, e.Rule)
	}
	if diff := cmp.Diff([]string{"contract", "renewal"}, rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestStageOfAnotherPipelineIsNoEntry(t *testing.T) {
	h := &history{id: 1, pipeline: "b", stages: parseVersions(versions(`won@2026-01-02T00:00:00Z`)), pipelines: parseVersions(versions(
		`b@2026-01-03T00:00:00Z`, `a@2026-01-02T00:00:01Z`, `c@2026-01-01T00:00:00Z`))}
	for pipeline, want := range map[string]int{"": 1, "a": 1, "b": 0, "c": 1, "d": 0} {
		by := byStage([]deal.Watch{{Rule: "r", Stage: "won", Pipeline: pipeline}})
		if entries, _ := h.judge(by, time.Time{}); len(entries) != want {
			t.Errorf("pipeline %q: %d entries, want %d", pipeline, len(entries), want)
		}
	}
}

// versions makes history entries, newest first, from "value@stamp" or "value@stamp@sourceType".
func versions(list ...string) []json.RawMessage {
	var out []json.RawMessage
	for _, s := range list {
		parts := append(strings.SplitN(s, "@", 3), "CRM_UI")
		b, err := json.Marshal(map[string]string{"value": parts[0], "timestamp": parts[1], "sourceType": parts[2], "sourceId": "userId:1"})
		if err != nil {
			panic(err) // strings only
		}
		out = append(out, b)
	}
	return out
}

func TestEntriesOfAHistory(t *testing.T) {
	const day = "2026-01-0"
	for name, c := range map[string]struct {
		history     []string // newest first
		aliases     []string
		want        []string
		quarantined int
	}{
		"created in the stage": {[]string{"won@" + day + "2T00:00:00Z"}, nil, []string{"won@2026-01-02T00:00:00.000Z"}, 0},
		"same value twice":     {[]string{"won@" + day + "3T00:00:00Z", "won@" + day + "2T00:00:00Z"}, nil, []string{"won@2026-01-02T00:00:00.000Z"}, 0},
		"listed oldest first":  {[]string{"new@" + day + "2T00:00:00Z", "won@" + day + "3T00:00:00Z"}, nil, []string{"won@2026-01-03T00:00:00.000Z"}, 0},
		"listed oldest first, tie": {[]string{"won@" + day + "2T00:00:00Z", "new@" + day + "3T00:00:00Z", "won@" + day + "3T00:00:00Z"}, nil,
			[]string{"won@2026-01-02T00:00:00.000Z", "won@2026-01-03T00:00:00.000Z"}, 0},
		"equal stamps":                {[]string{"won@" + day + "2T00:00:00Z", "new@" + day + "2T00:00:00Z"}, nil, []string{"won@2026-01-02T00:00:00.000Z"}, 0},
		"milliseconds":                {[]string{"won@1767312000123"}, nil, []string{"won@2026-01-02T00:00:00.123Z"}, 0},
		"older than the window":       {[]string{"won@2025-06-01T00:00:00Z"}, nil, []string{}, 0},
		"older, but of a merged deal": {[]string{"won@2025-06-01T00:00:00Z"}, []string{"7"}, []string{"won@2025-06-01T00:00:00.000Z"}, 0},
		"older than the rule":         {[]string{"won@2024-06-01T00:00:00Z"}, []string{"7"}, []string{}, 0},
		"written by a merge":          {[]string{"won@" + day + "3T00:00:00Z@MERGE_OBJECTS", "new@" + day + "2T00:00:00Z"}, []string{"7"}, []string{}, 0},
		"stamp is garbage":            {[]string{"won@yesterday", "new@" + day + "2T00:00:00Z"}, nil, []string{}, 1},
		"another's stamp is garbage":  {[]string{"won@" + day + "3T00:00:00Z", "new@yesterday"}, nil, []string{"won@2026-01-03T00:00:00.000Z"}, 0},
		"after garbage":               {[]string{"won@" + day + "4T00:00:00Z", "new@" + day + "3T00:00:00Z", "won@yesterday"}, nil, []string{"won@2026-01-04T00:00:00.000Z"}, 1},
		"stamp from before HubSpot":   {[]string{"won@0001-01-01T00:00:00Z"}, nil, []string{}, 1},
		"empty":                       {nil, nil, []string{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history{id: 42, aliases: c.aliases, stages: parseVersions(versions(c.history...))}
			by := byStage([]deal.Watch{{Rule: "r", Stage: "won", Since: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}})
			entries, quarantined := h.judge(by, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			got := []string{}
			for _, e := range entries {
				got = append(got, e.Occurrence)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			if len(quarantined) != c.quarantined {
				t.Errorf("%d quarantined, want %d: %+v", len(quarantined), c.quarantined, quarantined)
			}
		})
	}
}

func TestSearchHasNoFilterOnStageAndNoOffset(t *testing.T) {
	b, err := json.Marshal(searchBody(scan{from: time.UnixMilli(1_767_312_000_123), last: 77}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"filterGroups":[{"filters":[{"propertyName":"hs_lastmodifieddate","operator":"GTE","value":"1767312000123"},` +
		`{"propertyName":"hs_object_id","operator":"GT","value":"77"}]}],"limit":200,"properties":["hs_lastmodifieddate"],` +
		`"sorts":[{"direction":"ASCENDING","propertyName":"hs_object_id"}]}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("search (-want +got):\n%s", diff)
	}
}

func TestRepliesThatWouldLoseDealsAreRefused(t *testing.T) {
	row := func(id string) string {
		return `{"id":"` + id + `","properties":{"hs_lastmodifieddate":"2026-01-02T00:00:00Z"}}`
	}
	for name, body := range map[string]string{
		"not sorted":            `{"total":2,"results":[` + row("9") + `,` + row("8") + `]}`,
		"from before the place": `{"total":1,"results":[` + row("5") + `]}`,
		"twice the same":        `{"total":2,"results":[` + row("9") + `,` + row("9") + `]}`,
		"more, but no rows":     `{"total":5,"results":[]}`,
		"no list":               `{"total":0}`,
		"a list":                `[]`,
		"a web page":            `<html>`,
	} {
		t.Run(name, func(t *testing.T) {
			if list, err := parseSearch([]byte(body), 5); err == nil || deal.IsPermanent(err) {
				t.Errorf("read as %+v, %v, want a passing error", list, err)
			}
		})
	}
	list, err := parseSearch([]byte(`{"total":3,"results":[`+row("x")+`,`+row("6")+`,{"id":7}]}`), 5)
	if err != nil || len(list.rows) != 1 || len(list.quarantined) != 2 || list.more {
		t.Errorf("rows that cannot be read: %+v, %v, want one row and two quarantined", list, err)
	}
}

func TestBatchThatIsNotWholeIsNotTakenForWhole(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	ids := w.CreateDeals(3, "contractsent")
	w.Advance(2 * time.Second)
	if _, err := w.portal.SetFault(mock.Fault{Kind: mock.KindBatchRead, Effect: mock.EffectPartial, Times: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.c.Changes(t.Context(), r.cursor, r.watches); err == nil || deal.IsPermanent(err) {
		t.Fatalf("a batch of which a part failed gives %v, want a passing error", err)
	}
	if got := r.poll(); len(got) != len(ids) {
		t.Errorf("%d entries after the retry, want %d", len(got), len(ids))
	}
}

func TestDealThatVanishesAfterTheSearchStopsNothing(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	ids := w.CreateDeals(2, "contractsent")
	w.must(w.portal.HoldIndex(ids[0], true)) // search goes on showing it
	w.Delete(ids[0])
	w.Advance(2 * time.Second)
	if got := r.poll(); len(got) != 1 || got[0].Ref.ID != ids[1] {
		t.Errorf("entries %v, want the one of %s", occurrences(got), ids[1])
	}
}

func TestDamagedPositionOnlyCostsTheWindow(t *testing.T) {
	w := newWorld(t, FlowToken)
	r := newReader(t, w, contractSent())
	w.CreateDeals(2, "contractsent")
	w.Advance(2 * time.Second)
	r.poll()
	r.cursor.State = `{"page":`
	if got := r.poll(); len(got) != 2 {
		t.Errorf("%d entries, want the window's two again", len(got))
	}
}
