package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

func TestTheListAsksForWhatTheFormSays(t *testing.T) {
	for query, want := range map[string]Search{
		"":                                Search{},
		"?q=+Kolibri+GmbH+":               {Text: "Kolibri GmbH"},
		"?tenant=acme&state=held&rule=r1": {Tenant: "acme", State: "held", Rule: "r1"},
		"?day=2026-11-20&before=77":       {Day: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), Before: 77},
		"?state=done&other=x":             {State: "done"},
	} {
		v := settle()
		h, _, _ := open(v)
		if w := get(h, "/deals"+query); w.Code != http.StatusOK {
			t.Errorf("%s: %d", query, w.Code)
		}
		want.Limit = listShown
		if diff := cmp.Diff([]Search{want}, v.asked); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
}

func TestAFormThatMakesNoSenseIsAnsweredInWords(t *testing.T) {
	for query, want := range map[string]string{
		"?day=20.11.2026": "as in 2026-11-20", "?before=x": "begin with the newest", "?before=-1": "begin with the newest", "?state=sealed": "no such state",
		"?q=" + strings.Repeat("x", maxText+1): "At most 200 characters",
	} {
		v := settle()
		h, _, _ := open(v)
		w := get(h, "/deals"+query)
		if page := checkOutline(t, w.Body.String()); w.Code != http.StatusOK || !strings.Contains(page.text, want) || len(v.asked) > 0 {
			t.Errorf("%s: %d, asked %v: %s", query, w.Code, v.asked, page.text)
		}
	}
}

func TestTheListIsPagedWithoutLosingOrRepeatingADeal(t *testing.T) {
	v := &village{tenants: settle().tenants}
	for n := range 2*listShown + 7 {
		v.move(deal.Kept, deal.Retrying, n)
	}
	h, _, _ := open(v)
	seen := map[string]int{}
	next := "/deals?state=retrying"
	pages := 0
	for ; next != ""; pages++ {
		body := get(h, next).Body.String()
		for _, d := range v.deals {
			seen[string(d.Sealing.Tx)] += strings.Count(body, fmt.Sprintf(`href="/deals/%s"`, d.Sealing.Tx))
		}
		_, rest, more := strings.Cut(body, `<a href="/deals?before=`)
		if !more {
			break
		}
		link, _, _ := strings.Cut(rest, `"`)
		next = "/deals?before=" + strings.ReplaceAll(link, "&amp;", "&")
		if !strings.Contains(next, "state=retrying") {
			t.Fatalf("the next page forgets what was asked for: %s", next)
		}
	}
	if pages != 2 || len(seen) != len(v.deals) {
		t.Errorf("%d more pages, %d deals", pages, len(seen))
	}
	for tx, n := range seen {
		if n != 1 {
			t.Errorf("%s is shown %d times", tx, n)
		}
	}
}

func TestTheListSaysWhatWasLookedForAndWhereNothingWasFound(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	page := checkOutline(t, get(h, "/deals?q=nobody&tenant=acme").Body.String())
	for _, text := range []string{"No deal matches.", "Found by the record's ID", "All deals"} {
		if !strings.Contains(page.text, text) {
			t.Errorf("%q is not on the page", text)
		}
	}
	body := get(h, "/deals?q=nobody&tenant=acme&rule=gone&state=held").Body.String()
	for _, kept := range []string{`value="nobody"`, `<option value="acme" selected="selected">`, `<option value="gone" selected="selected">`, `<option value="held" selected="selected">`} {
		if !strings.Contains(body, kept) {
			t.Errorf("the form forgets %s", kept)
		}
	}
	if strings.Contains(get(h, "/deals?before=3").Body.String(), "refresh.js") {
		t.Error("an older page of the list is refreshed: it would move under the reader")
	}
}
