package deal

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

type tokenKind int

const (
	endToken tokenKind = iota
	nameToken
	textToken
	numberToken
	dateToken
	timeToken
	signToken // ( ) , and comparisons
)

// token is a word of a filter. text is without quotes and escapes.
type token struct {
	kind   tokenKind
	text   string
	column int
}

func (t token) String() string {
	switch t.kind {
	case endToken:
		return "the end"
	case textToken:
		return "a text"
	}
	return fmt.Sprintf("%q", t.text)
}

// is reports whether the token is a keyword, whatever its case.
func (t token) is(word string) bool { return t.kind == nameToken && strings.EqualFold(t.text, word) }

type filterParser struct {
	text   string
	at     int // of what comes behind token
	token  token
	f      *Filter
	values int
}

var (
	nameWord   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*`)
	timeWord   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)`)
	dateWord   = regexp.MustCompile(`^\d{4}-\d\d-\d\d`)
	numberWord = regexp.MustCompile(`^[+-]?\d{1,30}(\.\d{1,30})?`)
	signWord   = regexp.MustCompile(`^(<=|>=|!=|<>|[=<>(),])`)
	// decimal is what a record's value may look like.
	decimal  = regexp.MustCompile(`^[+-]?\d{1,60}(\.\d{1,60})?([eE][+-]?\d{1,2})?$`)
	keywords = []string{"AND", "OR", "NOT", "IN", "LIKE", "TRUE", "FALSE", "NULL"}
)

func (p *filterParser) failed(format string, args ...any) error {
	return &FilterError{p.token.column, fmt.Sprintf(format, args...)}
}

// next reads a token.
func (p *filterParser) next() error {
	for p.at < len(p.text) && strings.ContainsRune(" \t\r\n", rune(p.text[p.at])) {
		p.at++
	}
	rest := p.text[p.at:]
	p.token = token{column: utf8.RuneCountInString(p.text[:p.at]) + 1}
	if rest == "" {
		return nil
	}
	if rest[0] == '\'' {
		return p.quoted(rest)
	}
	for _, w := range []struct {
		form *regexp.Regexp
		kind tokenKind
	}{{nameWord, nameToken}, {timeWord, timeToken}, {dateWord, dateToken}, {numberWord, numberToken}, {signWord, signToken}} {
		if found := w.form.FindString(rest); found != "" {
			p.token.kind, p.token.text = w.kind, found
			p.at += len(found)
			return p.ends(w.kind)
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	if r == '"' {
		return p.failed("texts stand in single quotes")
	}
	return p.failed("%q is nothing that a filter knows", r)
}

// ends refuses a word that goes straight on, such as 10k or Amount.
func (p *filterParser) ends(kind tokenKind) error {
	if kind == signToken || p.at == len(p.text) {
		return nil
	}
	if r, _ := utf8.DecodeRuneInString(p.text[p.at:]); !strings.ContainsRune(" \t\r\n=!<>(),'", r) {
		return p.failed("%s goes on with %q: names are letters, digits and _ with dots between them; numbers are like 10000.50", p.token, r)
	}
	return nil
}

// quoted reads a text. A backslash stands before a quote or another backslash.
func (p *filterParser) quoted(rest string) error {
	var text strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\'':
			p.token.kind, p.token.text = textToken, text.String()
			p.at += i + 1
			return nil
		case c == '\\' && i+1 < len(rest) && (rest[i+1] == '\'' || rest[i+1] == '\\'):
			i++
			text.WriteByte(rest[i])
		case c == '\\':
			return p.failed(`in a text, \ stands before ' or another \ only`)
		default:
			text.WriteByte(c)
		}
	}
	return p.failed("the text has no end: a single quote is missing")
}

// combined reads conditions that are all joined by AND, or all by OR.
func (p *filterParser) combined(depth int) (node, error) {
	if depth > maxFilterDepth {
		return nil, p.failed("parentheses and NOTs are more than %d deep", maxFilterDepth)
	}
	first, err := p.condition(depth)
	if err != nil {
		return nil, err
	}
	all := allNode{parts: []node{first}}
	for joined := ""; p.token.is("AND") || p.token.is("OR"); {
		word := strings.ToUpper(p.token.text)
		if joined != "" && joined != word {
			return nil, p.failed("AND and OR stand beside each other: say with parentheses which belong together")
		}
		joined, all.any = word, word == "OR"
		if err := p.next(); err != nil {
			return nil, err
		}
		part, err := p.condition(depth)
		if err != nil {
			return nil, err
		}
		all.parts = append(all.parts, part)
	}
	if len(all.parts) == 1 {
		return first, nil
	}
	return all, nil
}

func (p *filterParser) condition(depth int) (node, error) {
	switch {
	case p.token.is("NOT"):
		if depth++; depth > maxFilterDepth {
			return nil, p.failed("parentheses and NOTs are more than %d deep", maxFilterDepth)
		}
		if err := p.next(); err != nil {
			return nil, err
		}
		inner, err := p.condition(depth)
		return notNode{inner}, err
	case p.token.kind == signToken && p.token.text == "(":
		if err := p.next(); err != nil {
			return nil, err
		}
		inner, err := p.combined(depth + 1)
		if err != nil {
			return nil, err
		}
		return inner, p.expect(")")
	}
	return p.comparison()
}

func (p *filterParser) expect(sign string) error {
	if p.token.kind != signToken || p.token.text != sign {
		return p.failed("%s stands where %q is expected", p.token, sign)
	}
	return p.next()
}

func (p *filterParser) comparison() (node, error) {
	field := p.token
	if field.kind != nameToken || slices.ContainsFunc(keywords, field.is) {
		return nil, p.failed("%s stands where the name of a field is expected", field)
	}
	c := condition{path: field.text}
	if err := p.next(); err != nil {
		return nil, err
	}
	if err := p.operator(&c); err != nil {
		return nil, err
	}
	sign := p.token
	list := c.op == "IN" || c.op == "NOT IN"
	if list {
		if err := p.expect("("); err != nil {
			return nil, err
		}
	}
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		c.values = append(c.values, v)
		p.note(FilterField{field.text, field.column, v.typ})
		if !list || p.token.kind != signToken || p.token.text != "," {
			break
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	if list {
		if err := p.expect(")"); err != nil {
			return nil, err
		}
	}
	err := c.check(sign)
	return c, err
}

// operator reads a comparison's sign or word.
func (p *filterParser) operator(c *condition) error {
	not := p.token.is("NOT")
	if not {
		if err := p.next(); err != nil {
			return err
		}
	}
	switch t := p.token; {
	case t.is("IN"):
		c.op = map[bool]string{true: "NOT IN", false: "IN"}[not]
	case not:
		return p.failed("%s stands where IN is expected", t)
	case t.is("LIKE"):
		c.op = "LIKE"
	case t.kind == signToken && !strings.Contains("(),", t.text):
		c.op = strings.Replace(t.text, "<>", "!=", 1)
	default:
		return p.failed("%s stands where a comparison is expected: =, !=, <, <=, >, >=, LIKE, IN or NOT IN", t)
	}
	return p.next()
}

// value reads a literal.
func (p *filterParser) value() (v filterValue, err error) {
	if p.values++; p.values > maxFilterValues {
		return v, p.failed("there are more than %d values", maxFilterValues)
	}
	t := p.token
	v.text = t.text
	switch {
	case t.kind == textToken:
		v.typ = FilterText
	case t.kind == numberToken:
		v.typ = FilterNumber
	case t.kind == dateToken:
		v.typ = FilterDate
		v.at, err = time.Parse(time.DateOnly, t.text)
	case t.kind == timeToken:
		v.typ = FilterTime
		v.at, err = time.Parse(time.RFC3339Nano, t.text)
	case t.is("TRUE"), t.is("FALSE"):
		v.typ, v.text = FilterBool, strings.ToUpper(t.text)
	case t.is("NULL"):
	case t.kind == nameToken:
		return v, p.failed("%s stands where a value is expected: texts stand in single quotes, dates are like 2026-01-31; words that depend on the day, such as TODAY, are none", t)
	default:
		return v, p.failed("%s stands where a value is expected", t)
	}
	if err != nil {
		return v, p.failed("%s is no day of the calendar", t)
	}
	return v, p.next()
}

// check refuses comparisons that mean nothing. sign is where the values begin.
func (c *condition) check(sign token) error {
	wrong := func(format string, args ...any) error {
		return &FilterError{sign.column, fmt.Sprintf(format, args...)}
	}
	for _, v := range c.values {
		switch {
		case v.typ != c.values[0].typ && v.typ != "" && c.values[0].typ != "":
			return wrong("the values of the list are of different types")
		case c.op == "LIKE" && v.typ != FilterText:
			return wrong("LIKE takes a text")
		case strings.ContainsAny(c.op, "<>") && (v.typ == "" || v.typ == FilterBool):
			return wrong("%s takes a number, a date, a time or a text", c.op)
		}
	}
	if c.op == "LIKE" {
		pattern := regexp.QuoteMeta(c.values[0].text)
		c.like = regexp.MustCompile(`(?is)^` + strings.NewReplacer("%", ".*", "_", ".").Replace(pattern) + `$`)
	}
	return nil
}

// note keeps a field once with each type.
func (p *filterParser) note(field FilterField) {
	if !slices.ContainsFunc(p.f.fields, func(f FilterField) bool { return f.Path == field.Path && f.Type == field.Type }) {
		p.f.fields = append(p.f.fields, field)
	}
}

// compareDecimals compares two numbers exactly. ok is false when the first is none, or none that a CRM would give.
func compareDecimals(a, b string) (n int, ok bool) {
	if !decimal.MatchString(a) {
		return 0, false
	}
	x, okX := new(big.Rat).SetString(a)
	y, okY := new(big.Rat).SetString(b)
	if !okX || !okY {
		return 0, false
	}
	return x.Cmp(y), true
}
