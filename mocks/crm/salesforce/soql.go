package salesforce

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Budgets of the parser.
const (
	maxSOQL      = 100_000 // characters, as the real service
	maxSOQLDepth = 50      // nested parentheses and NOTs
)

// query is a parsed SELECT statement.
type query struct {
	text     string
	selects  []selection
	count    bool
	from     token
	alias    string
	where    *condition
	order    []ordering
	limit    int // -1: none
	offset   int
	children bool // it is a sub-query in a SELECT list
}

// selection is a field path or a sub-query.
type selection struct {
	path fieldPath
	sub  *query
}

// fieldPath is a dotted name and where it stands.
type fieldPath struct {
	names []string
	pos   int
}

func (p fieldPath) String() string { return strings.Join(p.names, ".") }

type ordering struct {
	path       fieldPath
	descending bool
	nullsLast  bool
}

// condition is a node of a WHERE clause: "and", "or" and "not" have operands,
// every other op compares the path with values.
type condition struct {
	op       string
	operands []*condition
	path     fieldPath
	values   []literal
	sub      *query // of IN and NOT IN
}

// literal is a value in a WHERE clause.
type literal struct {
	kind  tokenKind
	text  string // unescaped; of a LIKE pattern as written
	raw   string
	at    time.Time
	value float64
}

type tokenKind int

const (
	tokEnd tokenKind = iota
	tokWord
	tokString
	tokNumber
	tokDate
	tokDateTime
	tokPunct
)

type token struct {
	kind tokenKind
	text string
	pos  int
}

// parser reads one statement.
type parser struct {
	src    string
	tokens []token
	next   int
	depth  int
}

// malformed is a syntax error with the place that the service shows.
func malformed(src string, pos int, format string, args ...any) *Error {
	return soqlError("MALFORMED_QUERY", src, pos, fmt.Sprintf(format, args...))
}

func soqlError(code, src string, pos int, message string) *Error {
	pos = min(pos, len(src))
	before := src[:pos]
	line := 1 + strings.Count(before, "\n")
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	from, to := max(0, pos-40), min(len(src), pos+30)
	for from > 0 && !utf8.RuneStart(src[from]) {
		from--
	}
	for to < len(src) && !utf8.RuneStart(src[to]) {
		to++
	}
	marker := strings.Repeat(" ", utf8.RuneCountInString(src[from:pos])) + "^"
	return &Error{Status: 400, Code: code, Message: fmt.Sprintf("\n%s\n%s\nERROR at Row:%d:Column:%d\n%s", src[from:to], marker, line, column, message)}
}

// parseSOQL reads the subset of SOQL that the org understands.
func parseSOQL(src string) (*query, *Error) {
	switch {
	case strings.TrimSpace(src) == "":
		return nil, &Error{Status: 400, Code: "MALFORMED_QUERY", Message: "SOQL statements cannot be empty or null"}
	case utf8.RuneCountInString(src) > maxSOQL:
		return nil, &Error{Status: 400, Code: "QUERY_TOO_COMPLICATED", Message: "SOQL statements cannot be longer than " + strconv.Itoa(maxSOQL) + " characters."}
	case !utf8.ValidString(src):
		return nil, &Error{Status: 400, Code: "MALFORMED_QUERY", Message: "the statement is not valid UTF-8"}
	}
	p := &parser{src: src}
	if err := p.scan(); err != nil {
		return nil, err
	}
	q, err := p.query(false)
	if err != nil {
		return nil, err
	}
	if p.peek().kind != tokEnd {
		return nil, p.unexpected()
	}
	return q, nil
}

func (p *parser) scan() *Error {
	for i := 0; i < len(p.src); {
		c := p.src[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '\'':
			end, err := p.stringEnd(i)
			if err != nil {
				return err
			}
			p.add(tokString, p.src[i+1:end], i)
			i = end + 1
		case c == '_' || unicode.IsLetter(rune(c)) && c < utf8.RuneSelf:
			end := i + 1
			for end < len(p.src) && (isWord(p.src[end]) || p.src[end] == '.' && end+1 < len(p.src) && isWord(p.src[end+1])) {
				end++
			}
			p.add(tokWord, p.src[i:end], i)
			i = end
		case c >= '0' && c <= '9' || (c == '-' || c == '+') && i+1 < len(p.src) && p.src[i+1] >= '0' && p.src[i+1] <= '9':
			end := i + 1
			for end < len(p.src) && (isWord(p.src[end]) || strings.IndexByte(".:+-", p.src[end]) >= 0) {
				end++
			}
			if err := p.number(p.src[i:end], i); err != nil {
				return err
			}
			i = end
		case strings.HasPrefix(p.src[i:], "!=") || strings.HasPrefix(p.src[i:], "<=") || strings.HasPrefix(p.src[i:], ">=") || strings.HasPrefix(p.src[i:], "<>"):
			p.add(tokPunct, p.src[i:i+2], i)
			i += 2
		case strings.IndexByte("(),=<>", c) >= 0:
			p.add(tokPunct, string(c), i)
			i++
		default:
			r, _ := utf8.DecodeRuneInString(p.src[i:])
			return malformed(p.src, i, "line 1:%d no viable alternative at character '%c'", i, r)
		}
	}
	p.add(tokEnd, "<EOF>", len(p.src))
	return nil
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *parser) add(kind tokenKind, text string, pos int) {
	p.tokens = append(p.tokens, token{kind, text, pos})
}

// stringEnd finds the closing quote.
func (p *parser) stringEnd(start int) (int, *Error) {
	for i := start + 1; i < len(p.src); i++ {
		switch p.src[i] {
		case '\\':
			i++
		case '\'':
			return i, nil
		}
	}
	return 0, malformed(p.src, start, "line 1:%d mismatched character '<EOF>' expecting '''", len(p.src))
}

// number adds a number, a date or a date-time.
func (p *parser) number(s string, pos int) *Error {
	if len(s) == len(time.DateOnly) && s[4] == '-' {
		if _, err := time.Parse(time.DateOnly, s); err == nil {
			p.add(tokDate, s, pos)
			return nil
		}
	}
	if strings.Contains(s, "T") {
		if _, ok := parseTime(s); ok {
			p.add(tokDateTime, s, pos)
			return nil
		}
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil && !strings.ContainsAny(s, "xXpP_") {
		p.add(tokNumber, s, pos)
		return nil
	}
	return malformed(p.src, pos, "unexpected token: '%s'", s)
}

// unescape resolves the escapes of a string literal.
func (p *parser) unescape(t token, like bool) (string, *Error) {
	if !strings.Contains(t.text, `\`) {
		return t.text, nil
	}
	var b strings.Builder
	for i := 0; i < len(t.text); i++ {
		c := t.text[i]
		if c != '\\' {
			b.WriteByte(c)
			continue
		}
		i++ // stringEnd has made sure that a character follows
		switch e := t.text[i]; e {
		case '\'', '"', '\\':
			b.WriteByte(e)
		case 'n', 'N':
			b.WriteByte('\n')
		case 'r', 'R':
			b.WriteByte('\r')
		case 't', 'T':
			b.WriteByte('\t')
		case 'b', 'B':
			b.WriteByte('\b')
		case 'f', 'F':
			b.WriteByte('\f')
		case '_', '%':
			if !like {
				return "", p.badEscape(t, i)
			}
			b.WriteByte(e)
		case 'u':
			if i+4 >= len(t.text) {
				return "", p.badEscape(t, i)
			}
			n, err := strconv.ParseUint(t.text[i+1:i+5], 16, 32)
			if err != nil {
				return "", p.badEscape(t, i)
			}
			b.WriteRune(rune(n))
			i += 4
		default:
			return "", p.badEscape(t, i)
		}
	}
	return b.String(), nil
}

func (p *parser) badEscape(t token, i int) *Error {
	return malformed(p.src, t.pos+1+i, "Invalid string literal '%s'. Illegal character sequence '\\%c' in string literal.", excerpt(t.text), t.text[i])
}

func (p *parser) peek() token { return p.tokens[p.next] }

func (p *parser) take() token {
	t := p.tokens[p.next]
	if t.kind != tokEnd {
		p.next++
	}
	return t
}

// word takes the keyword if it is next.
func (p *parser) word(keyword string) bool {
	if t := p.peek(); t.kind == tokWord && strings.EqualFold(t.text, keyword) {
		p.next++
		return true
	}
	return false
}

func (p *parser) punct(s string) bool {
	if t := p.peek(); t.kind == tokPunct && t.text == s {
		p.next++
		return true
	}
	return false
}

func (p *parser) unexpected() *Error {
	t := p.peek()
	return malformed(p.src, t.pos, "unexpected token: '%s'", excerpt(t.text))
}

// enter counts the nesting; every call needs a leave.
func (p *parser) enter() *Error {
	if p.depth++; p.depth > maxSOQLDepth {
		return &Error{Status: 400, Code: "QUERY_TOO_COMPLICATED", Message: "The statement is nested too deeply."}
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) query(child bool) (*query, *Error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	q := &query{text: p.src, limit: -1, children: child}
	if !p.word("SELECT") {
		return nil, p.unexpected()
	}
	if err := p.selects(q); err != nil {
		return nil, err
	}
	if !p.word("FROM") {
		return nil, p.unexpected()
	}
	if q.from = p.take(); q.from.kind != tokWord || strings.Contains(q.from.text, ".") {
		return nil, malformed(p.src, q.from.pos, "unexpected token: '%s'", excerpt(q.from.text))
	}
	if t := p.peek(); t.kind == tokWord && !reserved(t.text) {
		q.alias = p.take().text
	}
	if p.word("WHERE") {
		var err *Error
		if q.where, err = p.disjunction(); err != nil {
			return nil, err
		}
	}
	return q, p.tail(q)
}

func reserved(word string) bool {
	switch strings.ToUpper(word) {
	case "WHERE", "ORDER", "LIMIT", "OFFSET", "GROUP", "HAVING", "FOR", "WITH", "USING", "ALL":
		return true
	}
	return false
}

func (p *parser) selects(q *query) *Error {
	for {
		switch {
		case p.punct("("):
			sub, err := p.query(true)
			if err != nil {
				return err
			}
			if !p.punct(")") {
				return p.unexpected()
			}
			q.selects = append(q.selects, selection{sub: sub})
		case p.peek().kind == tokWord && !strings.EqualFold(p.peek().text, "FROM"):
			t := p.take()
			if p.punct("(") {
				if !strings.EqualFold(t.text, "COUNT") || !p.punct(")") || len(q.selects) > 0 {
					return malformed(p.src, t.pos, "unexpected token: '('")
				}
				q.count = true
				return nil
			}
			q.selects = append(q.selects, selection{path: newPath(t)})
		default:
			return p.unexpected()
		}
		if !p.punct(",") {
			return nil
		}
	}
}

func newPath(t token) fieldPath { return fieldPath{names: strings.Split(t.text, "."), pos: t.pos} }

// tail reads what follows WHERE.
func (p *parser) tail(q *query) *Error {
	if p.word("ORDER") {
		if !p.word("BY") {
			return p.unexpected()
		}
		for {
			o, err := p.ordering()
			if err != nil {
				return err
			}
			q.order = append(q.order, o)
			if !p.punct(",") {
				break
			}
		}
	}
	if p.word("LIMIT") {
		n, err := p.integer()
		if err != nil {
			return err
		}
		q.limit = n
	}
	if p.word("OFFSET") {
		n, err := p.integer()
		if err != nil {
			return err
		}
		q.offset = n
	}
	return nil
}

func (p *parser) ordering() (ordering, *Error) {
	t := p.peek()
	if t.kind != tokWord {
		return ordering{}, p.unexpected()
	}
	p.next++
	o := ordering{path: newPath(t)}
	if p.word("DESC") {
		o.descending = true
	} else {
		p.word("ASC")
	}
	if p.word("NULLS") {
		if p.word("LAST") {
			o.nullsLast = true
		} else if !p.word("FIRST") {
			return o, p.unexpected()
		}
	}
	return o, nil
}

func (p *parser) integer() (int, *Error) {
	t := p.peek()
	n, err := strconv.Atoi(t.text)
	if t.kind != tokNumber || err != nil || n < 0 {
		return 0, p.unexpected()
	}
	p.next++
	return n, nil
}

// disjunction reads conditions joined by OR or by AND. Mixing both without
// parentheses is an error, as in the real service.
func (p *parser) disjunction() (*condition, *Error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	first, err := p.unary()
	if err != nil {
		return nil, err
	}
	c := &condition{operands: []*condition{first}}
	for {
		t := p.peek()
		op := strings.ToLower(t.text)
		if t.kind != tokWord || op != "and" && op != "or" {
			break
		}
		if c.op != "" && c.op != op {
			return nil, p.unexpected()
		}
		c.op = op
		p.next++
		next, err := p.unary()
		if err != nil {
			return nil, err
		}
		c.operands = append(c.operands, next)
	}
	if c.op == "" {
		return first, nil
	}
	return c, nil
}

func (p *parser) unary() (*condition, *Error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if p.word("NOT") {
		c, err := p.unary()
		if err != nil {
			return nil, err
		}
		return &condition{op: "not", operands: []*condition{c}}, nil
	}
	if p.punct("(") {
		c, err := p.disjunction()
		if err != nil {
			return nil, err
		}
		if !p.punct(")") {
			return nil, p.unexpected()
		}
		return c, nil
	}
	return p.comparison()
}

func (p *parser) comparison() (*condition, *Error) {
	t := p.peek()
	if t.kind != tokWord {
		return nil, p.unexpected()
	}
	p.next++
	c := &condition{path: newPath(t)}
	switch op := p.take(); {
	case op.kind == tokPunct && strings.Contains("= != <> < <= > >=", op.text):
		c.op = op.text
		if c.op == "<>" {
			c.op = "!="
		}
	case op.kind == tokWord && strings.EqualFold(op.text, "LIKE"):
		c.op = "like"
	case op.kind == tokWord && strings.EqualFold(op.text, "IN"):
		c.op = "in"
		return c, p.list(c)
	case op.kind == tokWord && strings.EqualFold(op.text, "NOT") && p.word("IN"):
		c.op = "not in"
		return c, p.list(c)
	default:
		return nil, malformed(p.src, op.pos, "unexpected token: '%s'", excerpt(op.text))
	}
	v, err := p.literal(c.op == "like")
	c.values = []literal{v}
	return c, err
}

func (p *parser) list(c *condition) *Error {
	if !p.punct("(") {
		return p.unexpected()
	}
	if t := p.peek(); t.kind == tokWord && strings.EqualFold(t.text, "SELECT") {
		sub, err := p.query(false)
		if err != nil {
			return err
		}
		c.sub = sub
	} else {
		for {
			v, err := p.literal(false)
			if err != nil {
				return err
			}
			c.values = append(c.values, v)
			if !p.punct(",") {
				break
			}
		}
	}
	if !p.punct(")") {
		return p.unexpected()
	}
	return nil
}

func (p *parser) literal(like bool) (literal, *Error) {
	t := p.peek()
	l := literal{kind: t.kind, text: t.text, raw: t.text}
	switch t.kind {
	case tokString:
		s, err := p.unescape(t, like)
		if err != nil {
			return l, err
		}
		l.text = s
	case tokNumber:
		l.value, _ = strconv.ParseFloat(t.text, 64) // scan has parsed it once
	case tokDate, tokDateTime:
		l.at, _ = parseTime(t.text)
	case tokWord:
		switch strings.ToLower(t.text) {
		case "null", "true", "false":
			l.text = strings.ToLower(t.text)
		default:
			return l, p.unexpected()
		}
	default:
		return l, p.unexpected()
	}
	p.next++
	return l, nil
}
