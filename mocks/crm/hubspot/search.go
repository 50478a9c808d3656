package hubspot

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of one search.
const (
	maxSearchBody    = 3000 // characters
	maxFilterGroups  = 5
	maxGroupFilters  = 6
	maxFilters       = 18
	maxSearchPage    = 200
	maxSearchResults = 10000
)

type searchRequest struct {
	FilterGroups []filterGroup   `json:"filterGroups"`
	Filters      []filter        `json:"filters"` // the short form of a single group
	Sorts        []sortRule      `json:"sorts"`
	Query        string          `json:"query"`
	Properties   []string        `json:"properties"`
	Limit        *int            `json:"limit"`
	After        json.RawMessage `json:"after"`
}

type filterGroup struct {
	Filters []filter `json:"filters"`
}

type filter struct {
	PropertyName string   `json:"propertyName"`
	Operator     string   `json:"operator"`
	Value        looseStr `json:"value"`
	HighValue    looseStr `json:"highValue"`
	Values       []string `json:"values"`
}

// sortRule is an object or a bare name, where -name means descending.
type sortRule struct {
	PropertyName string
	Descending   bool
}

func (s *sortRule) UnmarshalJSON(b []byte) error {
	var name string
	if err := json.Unmarshal(b, &name); err == nil {
		s.PropertyName, s.Descending = strings.CutPrefix(name, "-")
		return nil
	}
	var rule struct{ PropertyName, Direction string }
	if err := json.Unmarshal(b, &rule); err != nil {
		return err
	}
	s.PropertyName, s.Descending = rule.PropertyName, rule.Direction == "DESCENDING"
	return nil
}

// looseStr is a string that clients may also send as a number or a bool.
type looseStr string

func (s *looseStr) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(s))
	}
	if string(b) != "null" {
		*s = looseStr(b)
	}
	return nil
}

func (c *call) search() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	if n := utf8.RuneCount(c.body); n > maxSearchBody {
		return invalid("The request body is too long: %d characters, at most %d are allowed.", n, maxSearchBody)
	}
	var q searchRequest
	if bad := c.decode(&q); bad != nil {
		return bad
	}
	groups, bad := q.groups(t)
	if bad != nil {
		return bad
	}
	limit, offset, bad := q.page()
	if bad != nil {
		return bad
	}
	hits := slices.DeleteFunc(t.index.live(c.p.now()), func(row *indexRow) bool {
		return !c.p.matchesAny(t, row, groups) || !matchesQuery(row, q.Query)
	})
	if bad := sortRows(t, hits, q.Sorts); bad != nil {
		return bad
	}
	return c.searchPage(t, hits, q.Properties, offset, limit)
}

func (c *call) searchPage(t *objectType, hits []*indexRow, properties []string, offset, limit int) *reply {
	total := len(hits)
	from, to := min(offset, total), min(offset+limit, total)
	results := make([]any, 0, to-from)
	for _, row := range hits[from:to] {
		props := map[string]any{}
		for _, name := range t.shown(properties) {
			if _, ok := t.property(name); ok {
				props[name] = orNull(row.values[name])
			}
		}
		results = append(results, map[string]any{
			"id": formatID(row.id), "properties": props, "createdAt": stamp(row.created), "updatedAt": stamp(row.updated),
			"archived": false, "url": c.p.recordURL(t, row.id),
		})
	}
	body := map[string]any{"total": total, "results": results}
	if to < total {
		body["paging"] = map[string]any{"next": map[string]any{"after": strconv.Itoa(to)}}
	}
	return respond(200, body)
}

func (q *searchRequest) page() (limit, offset int, bad *reply) {
	limit = 10
	if q.Limit != nil {
		limit = *q.Limit
	}
	if limit < 1 || limit > maxSearchPage {
		return 0, 0, invalid("Invalid input: limit must be between 1 and %d.", maxSearchPage)
	}
	if after := strings.Trim(string(q.After), `"`); after != "" && after != "null" {
		n, err := strconv.Atoi(after)
		if err != nil || n < 0 {
			return 0, 0, invalid("Invalid input: after must be an integer.")
		}
		offset = n
	}
	if offset+limit > maxSearchResults {
		return 0, 0, invalid("The requested page lies beyond the first %d results: after is %d and limit is %d.", maxSearchResults, offset, limit)
	}
	return limit, offset, nil
}

// groups checks the filters and their number.
func (q *searchRequest) groups(t *objectType) ([]filterGroup, *reply) {
	groups := q.FilterGroups
	if len(q.Filters) > 0 {
		groups = append(groups, filterGroup{q.Filters})
	}
	if len(groups) > maxFilterGroups {
		return nil, invalid("Too many filterGroups: %d, at most %d are allowed.", len(groups), maxFilterGroups)
	}
	if len(q.Sorts) > 1 {
		return nil, invalid("Only one sort is allowed.")
	}
	total := 0
	for _, g := range groups {
		total += len(g.Filters)
		if len(g.Filters) > maxGroupFilters {
			return nil, invalid("Too many filters in a group: %d, at most %d are allowed.", len(g.Filters), maxGroupFilters)
		}
		for _, f := range g.Filters {
			if bad := f.check(t); bad != nil {
				return nil, bad
			}
		}
	}
	if total > maxFilters {
		return nil, invalid("Too many filters: %d, at most %d are allowed.", total, maxFilters)
	}
	if utf8.RuneCountInString(q.Query) > maxSearchBody {
		return nil, invalid("The query is too long.")
	}
	return groups, nil
}

func (f filter) check(t *objectType) *reply {
	def, ok := t.property(f.PropertyName)
	if !ok && !strings.HasPrefix(f.PropertyName, "associations.") {
		return invalid("Property %q does not exist", f.PropertyName)
	}
	switch f.Operator {
	case "HAS_PROPERTY", "NOT_HAS_PROPERTY":
		return nil
	case "IN", "NOT_IN":
		if len(f.Values) == 0 {
			return invalid("operator %s requires values", f.Operator)
		}
		return nil
	case "BETWEEN":
		if f.Value == "" || f.HighValue == "" {
			return invalid("operator BETWEEN requires value and highValue")
		}
	case "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN":
		if f.Value == "" {
			return invalid("operator %s requires a value", f.Operator)
		}
	default:
		return invalid("Invalid input JSON: unknown operator %q", f.Operator)
	}
	for _, v := range []looseStr{f.Value, f.HighValue} {
		if _, ok := sortKey(def, string(v)); !ok && v != "" {
			return invalid("%q is not a valid value of %q, which is a %s", string(v), f.PropertyName, def.Type)
		}
	}
	return nil
}

func (p *Portal) matchesAny(t *objectType, row *indexRow, groups []filterGroup) bool {
	return len(groups) == 0 || slices.ContainsFunc(groups, func(g filterGroup) bool {
		return !slices.ContainsFunc(g.Filters, func(f filter) bool { return !p.matches(t, row, f) })
	})
}

func (p *Portal) matches(t *objectType, row *indexRow, f filter) bool {
	if other, ok := strings.CutPrefix(f.PropertyName, "associations."); ok {
		return p.associated(t, row.id, other, string(f.Value)) == (f.Operator != "NEQ")
	}
	def, _ := t.property(f.PropertyName)
	have := row.values[f.PropertyName]
	switch f.Operator {
	case "HAS_PROPERTY":
		return have != ""
	case "NOT_HAS_PROPERTY":
		return have == ""
	case "NEQ":
		return have != "" && compareValues(def, have, string(f.Value)) != 0
	case "NOT_IN":
		return have != "" && !oneOf(def, have, f.Values)
	case "NOT_CONTAINS_TOKEN":
		return !containsToken(have, string(f.Value))
	}
	if have == "" {
		return false
	}
	if def.FieldType == "checkbox" && (f.Operator == "EQ" || f.Operator == "IN") { // one of several values is enough
		return slices.ContainsFunc(strings.Split(have, ";"), func(v string) bool {
			return v == string(f.Value) || slices.Contains(f.Values, v)
		})
	}
	order := compareValues(def, have, string(f.Value))
	switch f.Operator {
	case "EQ":
		return order == 0
	case "LT":
		return order < 0
	case "LTE":
		return order <= 0
	case "GT":
		return order > 0
	case "GTE":
		return order >= 0
	case "BETWEEN":
		return order >= 0 && compareValues(def, have, string(f.HighValue)) <= 0
	case "IN":
		return oneOf(def, have, f.Values)
	}
	return containsToken(have, string(f.Value)) // CONTAINS_TOKEN: check let nothing else through
}

// oneOf compares strings in lower case without lowering what was asked for:
// HubSpot wants the caller to do that.
func oneOf(def Property, have string, values []string) bool {
	if def.Type == "string" {
		return slices.Contains(values, strings.ToLower(have))
	}
	return slices.ContainsFunc(values, func(v string) bool { return compareValues(def, have, v) == 0 })
}

func containsToken(have, pattern string) bool {
	have = strings.ToLower(have)
	pattern = strings.ToLower(pattern)
	bare := strings.Trim(pattern, "*")
	for _, token := range strings.FieldsFunc(have, func(r rune) bool { return strings.ContainsRune(" \t\n;,@.-_/", r) }) {
		switch {
		case token == pattern,
			strings.HasPrefix(pattern, "*") && strings.HasSuffix(token, bare),
			strings.HasSuffix(pattern, "*") && strings.HasPrefix(token, bare):
			return true
		}
	}
	return have == pattern
}

func matchesQuery(row *indexRow, query string) bool {
	if query == "" {
		return true
	}
	for _, v := range row.values {
		if strings.Contains(strings.ToLower(v), strings.ToLower(query)) {
			return true
		}
	}
	return false
}

// key orders the values of a property: numbers and times by size, text by letters.
type key struct {
	number float64
	text   string
}

// sortKey reports false when the text is no value of the property.
func sortKey(def Property, value string) (key, bool) {
	switch def.Type {
	case "number":
		n, err := strconv.ParseFloat(value, 64)
		return key{number: n}, err == nil
	case "date", "datetime":
		t, ok := parseTime(value)
		return key{number: float64(t.UnixMilli())}, ok
	case "string":
		return key{text: strings.ToLower(value)}, true
	}
	return key{text: value}, true // enumerations tell upper from lower case
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.number, o.number), strings.Compare(k.text, o.text))
}

func compareValues(def Property, a, b string) int {
	ka, _ := sortKey(def, a)
	kb, _ := sortKey(def, b)
	return ka.compare(kb)
}

// sortRows expects rows by ascending ID, which also decides between equal ones.
func sortRows(t *objectType, rows []*indexRow, sorts []sortRule) *reply {
	if len(sorts) == 0 {
		return nil
	}
	rule := sorts[0]
	def, ok := t.property(rule.PropertyName)
	if !ok {
		return invalid("Property %q does not exist", rule.PropertyName)
	}
	keys := make(map[*indexRow]key, len(rows))
	for _, row := range rows {
		keys[row], _ = sortKey(def, row.values[rule.PropertyName])
	}
	slices.SortStableFunc(rows, func(a, b *indexRow) int {
		if rule.Descending {
			a, b = b, a
		}
		return keys[a].compare(keys[b])
	})
	return nil
}
