package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// listShown is how many deals a page of the list has.
const listShown = 50

// maxText is the most that is looked for, in characters.
const maxText = 200

// listView is the list of deals with what narrows it.
type listView struct {
	Text, Day string
	Tenants   []choice
	States    []choice
	Rules     []choice
	Rows      []rowView
	// Took says what the text was taken for.
	Took string
	// Narrowed means that not all deals are asked for; First that the page begins with the newest.
	Narrowed, First bool
	Newest, Older   string // links; empty where there is nothing
	Problem         string
}

// choice is an option of a form.
type choice struct {
	Value, Text string
	Chosen      bool
}

// stateWords are the states that the list can be narrowed to, in the order of their urgency.
var stateWords = []string{string(deal.Held), string(deal.Dead), string(deal.Retrying), string(deal.Running), "done", string(deal.Ended)}

func (s *server) list(ctx context.Context, r *http.Request) (*frame, error) {
	q := r.URL.Query()
	search, problem := readSearch(q)
	tenants, err := s.House.Tenants(ctx)
	if err != nil {
		return nil, fmt.Errorf("tenants: %w", err)
	}
	v := &listView{Text: search.Text, First: search.Before == 0, Problem: problem,
		Narrowed: search.Text != "" || search.Tenant != "" || search.State != "" || search.Rule != "" || !search.Day.IsZero()}
	if !search.Day.IsZero() {
		v.Day = search.Day.Format(time.DateOnly)
	}
	v.choices(tenants, search)
	if problem == "" {
		found, err := s.House.Find(ctx, search)
		if err != nil {
			return nil, fmt.Errorf("deals: %w", err)
		}
		now := s.Now()
		for _, row := range found.Rows {
			v.Rows = append(v.Rows, viewRow(row, now))
		}
		v.Took = tookFor(found.By)
		v.pages(q, found.Next)
	}
	return &frame{Title: "Deals", Here: "deals", Live: v.First && problem == "", List: v}, nil
}

// readSearch reads the form. A problem is in words for people.
func readSearch(q url.Values) (s Search, problem string) {
	s = Search{Text: strings.TrimSpace(q.Get("q")), Tenant: deal.TenantID(q.Get("tenant")), State: q.Get("state"), Rule: q.Get("rule"), Limit: listShown}
	var err error
	if day := q.Get("day"); day != "" {
		if s.Day, err = time.Parse(time.DateOnly, day); err != nil {
			return s, "The day must be written as in 2026-11-20."
		}
	}
	if before := q.Get("before"); before != "" {
		if s.Before, err = strconv.ParseInt(before, 10, 64); err != nil || s.Before < 1 {
			return s, "This page's address was altered: begin with the newest again."
		}
	}
	if s.State != "" && !slices.Contains(stateWords, s.State) {
		return s, "There is no such state: choose one of the list."
	}
	if len([]rune(s.Text)) > maxText {
		return s, fmt.Sprintf("At most %d characters can be looked for.", maxText)
	}
	return s, ""
}

func (v *listView) choices(tenants []Tenant, s Search) {
	add := func(to *[]choice, value, text, chosen string) {
		*to = append(*to, choice{value, text, value == chosen})
	}
	add(&v.Tenants, "", "all tenants", string(s.Tenant))
	add(&v.States, "", "any state", s.State)
	add(&v.Rules, "", "any rule", s.Rule)
	var rules []string
	for _, t := range tenants {
		add(&v.Tenants, string(t.ID), t.Name, string(s.Tenant))
		rules = append(rules, t.Rules...)
	}
	for _, word := range stateWords {
		add(&v.States, word, word, s.State)
	}
	if s.Rule != "" {
		rules = append(rules, s.Rule) // it may be configured no more
	}
	slices.Sort(rules)
	for _, rule := range slices.Compact(rules) {
		add(&v.Rules, rule, rule, s.Rule)
	}
}

// tookFor says what was looked for, so that nobody wonders why something was not found.
func tookFor(by string) string {
	switch by {
	case "transaction":
		return "Found by transaction ID."
	case "record":
		return "Found by the record's ID."
	case "name":
		return "Looked for as a name: every word must be in the names on the record or of the file, as a whole."
	}
	return ""
}

// pages links to the newest and to older deals.
func (v *listView) pages(q url.Values, next int64) {
	link := func(before string) string {
		clean := url.Values{}
		for _, name := range []string{"q", "tenant", "state", "rule", "day"} {
			if value := q.Get(name); value != "" {
				clean.Set(name, value)
			}
		}
		if before != "" {
			clean.Set("before", before)
		}
		if len(clean) == 0 {
			return "/deals"
		}
		return "/deals?" + clean.Encode()
	}
	if !v.First {
		v.Newest = link("")
	}
	if next > 0 {
		v.Older = link(strconv.FormatInt(next, 10))
	}
}
