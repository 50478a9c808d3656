package deal

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Filter is a condition on the fields of a record, in a small part of SOQL's WHERE:
//
//	Amount > 10000 AND RecordType.DeveloperName = 'New'
//	Type IN ('New Business', 'Renewal') AND NOT (CloseDate < 2026-01-01 OR Name LIKE 'Test%')
//
// Its values are texts in single quotes, numbers, dates, times (RFC 3339), TRUE, FALSE and NULL. It means what SOQL means by
// it: case of texts does not count, LIKE knows % and _, nothing is smaller or greater than an empty field, an empty field is
// unequal to every value. AND and OR stand beside each other only in parentheses.
type Filter struct {
	text string
	root node
	// fields are the paths in the order in which they are first named.
	fields []FilterField
}

// FilterField is a field that a filter compares.
type FilterField struct {
	Path   string
	Column int // in characters, from 1
	// Type is what it is compared with; empty where any will do, as with NULL.
	Type FilterType
}

// FilterType is the type of a value in a filter.
type FilterType string

// The types of values.
const (
	FilterText   FilterType = "text"
	FilterNumber FilterType = "number"
	FilterDate   FilterType = "date"
	FilterTime   FilterType = "time"
	FilterBool   FilterType = "true or false"
)

// FilterError says what is wrong with a filter, and where.
type FilterError struct {
	Column int // in characters, from 1
	What   string
}

func (e *FilterError) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.What) }

// Bounds of a filter.
const (
	maxFilterText   = 2000 // bytes
	maxFilterDepth  = 20
	maxFilterValues = 200
)

// ParseFilter reads a filter. The error is a *FilterError.
func ParseFilter(text string) (*Filter, error) {
	p := &filterParser{text: text, f: &Filter{text: text}}
	if len(text) > maxFilterText || !utf8.ValidString(text) {
		return nil, &FilterError{1, fmt.Sprintf("a filter has at most %d bytes of valid UTF-8", maxFilterText)}
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	root, err := p.combined(0)
	if err != nil {
		return nil, err
	}
	if p.token.kind != endToken {
		return nil, p.failed("%s is not expected here: AND or OR is", p.token)
	}
	p.f.root = root
	return p.f, nil
}

// String returns the text that was parsed.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	return f.text
}

// Fields are those that it compares, each once with each type.
func (f *Filter) Fields() []FilterField {
	if f == nil {
		return nil
	}
	return slices.Clone(f.fields)
}

// Paths are those that a record must have been read with.
func (f *Filter) Paths() (paths []string) {
	for _, field := range f.Fields() {
		if !slices.Contains(paths, field.Path) {
			paths = append(paths, field.Path)
		}
	}
	return paths
}

// Matches judges a record that was read with Paths. A nil filter matches everything. The error is about a value that is not
// of the type that it is compared with; it names the field and not the value.
func (f *Filter) Matches(r Record) (bool, error) {
	if f == nil {
		return true, nil
	}
	return f.root.matches(r)
}

// node is a part of a filter.
type node interface {
	matches(r Record) (bool, error)
}

type notNode struct{ inner node }

func (n notNode) matches(r Record) (bool, error) {
	ok, err := n.inner.matches(r)
	return !ok && err == nil, err
}

// allNode is AND, or for any OR.
type allNode struct {
	any   bool
	parts []node
}

func (n allNode) matches(r Record) (bool, error) {
	for _, part := range n.parts {
		ok, err := part.matches(r)
		if err != nil || ok == n.any {
			return ok && err == nil, err
		}
	}
	return !n.any, nil
}

// comparison compares a field with values: one, or with in any of them.
type condition struct {
	path   string
	op     string // = != < <= > >= LIKE IN, and NOT IN
	values []filterValue
	like   *regexp.Regexp
}

// filterValue is a literal. NULL has no type.
type filterValue struct {
	typ  FilterType
	text string // a text, a number, a date, TRUE or FALSE
	at   time.Time
}

func (c condition) matches(r Record) (bool, error) {
	leaf := r.Lookup(c.path)
	if s, ok := leaf.(string); ok && s == "" {
		leaf = nil
	}
	switch c.op {
	case "=", "IN":
		return c.equalsAny(leaf)
	case "!=", "NOT IN":
		ok, err := c.equalsAny(leaf)
		return !ok && err == nil, err
	case "LIKE":
		return leaf != nil && c.like.MatchString(r.Text(c.path)), nil
	}
	if leaf == nil {
		return false, nil
	}
	n, err := c.values[0].compare(c.path, leaf)
	if err != nil {
		return false, err
	}
	switch c.op {
	case "<":
		return n < 0, nil
	case "<=":
		return n <= 0, nil
	case ">":
		return n > 0, nil
	default:
		return n >= 0, nil
	}
}

func (c condition) equalsAny(leaf any) (bool, error) {
	for _, v := range c.values {
		if v.typ == "" || leaf == nil {
			if v.typ == "" && leaf == nil {
				return true, nil
			}
			continue
		}
		if n, err := v.compare(c.path, leaf); err != nil || n == 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// compare says how a value of a record stands to the literal: less, equal or greater.
func (v filterValue) compare(path string, leaf any) (int, error) {
	text := strings.TrimSpace(fmt.Sprint(leaf))
	wrong := func() (int, error) {
		return 0, fmt.Errorf("the filter compares %q with a %s, and the record's value is none", path, v.typ)
	}
	switch v.typ {
	case FilterNumber:
		n, ok := compareDecimals(text, v.text)
		if !ok {
			return wrong()
		}
		return n, nil
	case FilterBool:
		if !strings.EqualFold(text, "true") && !strings.EqualFold(text, "false") {
			return wrong()
		}
		return cmp.Compare(strings.ToUpper(text), v.text), nil
	case FilterDate:
		day, err := time.Parse(time.DateOnly, text[:min(len(text), len(time.DateOnly))])
		if err != nil {
			return wrong()
		}
		return day.Compare(v.at), nil
	case FilterTime:
		for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05.999-0700"} { // Salesforce's own form has no colon
			if at, err := time.Parse(form, text); err == nil {
				return at.Compare(v.at), nil
			}
		}
		return wrong()
	}
	return cmp.Compare(strings.ToLower(fmt.Sprint(leaf)), strings.ToLower(v.text)), nil
}
