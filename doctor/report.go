package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Schema is the version of the report's JSON form. Within a version fields are only added.
const Schema = 1

// Report is all that was found. Its JSON form is stable; see Schema.
type Report struct {
	Schema int `json:"schema"`
	// At is when the report was finished, on this machine's clock.
	At time.Time `json:"at"`
	// By says who has asked: the daemon that runs (with its process ID), or the command itself.
	By   string `json:"by"`
	Took Millis `json:"took_ms"`
	// Findings in the order in which they are shown; never null.
	Findings []Finding `json:"findings"`
	Counts   Counts    `json:"counts"`
	// Questions are those of Ask; only "dealseal doctor" answers them.
	Questions []Answer `json:"questions,omitempty"`
}

// Millis is a duration that is written as whole milliseconds.
type Millis time.Duration

// MarshalJSON implements json.Marshaler.
func (m Millis) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(m).Milliseconds())
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var n int64
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	*m = Millis(time.Duration(n) * time.Millisecond)
	return nil
}

// Counts says how many findings have each result.
type Counts struct {
	Pass    int `json:"pass"`
	Warning int `json:"warning"`
	Failure int `json:"failure"`
}

// Answer is that to one of the questions that a house must be able to answer before it seals for real.
type Answer struct {
	Question string `json:"question"`
	// Answer is "yes", "no" or "not yet": the last when this version cannot do it.
	Answer string `json:"answer"`
	Reason string `json:"reason"`
}

// NewReport counts the findings.
func NewReport(by string, at time.Time, took time.Duration, findings []Finding) *Report {
	r := &Report{Schema: Schema, At: at.UTC().Truncate(time.Millisecond), By: by, Took: Millis(took), Findings: findings}
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	r.Counts = Count(findings)
	return r
}

// Count counts findings by their result.
func Count(findings []Finding) (c Counts) {
	for _, f := range findings {
		switch f.Result {
		case Pass:
			c.Pass++
		case Warning:
			c.Warning++
		default:
			c.Failure++
		}
	}
	return c
}

// Failed reports whether anything has failed.
func (r *Report) Failed() bool { return r.Counts.Failure > 0 }

// Style is how a report is printed for people.
type Style struct {
	// Width is where lines are broken, in characters; 0 means 100.
	Width int
	// Colour marks results with the colours of a terminal.
	Colour bool
}

// marks are as wide as each other, so that what stands behind them is one column.
var marks = map[Result]struct{ word, colour string }{
	Pass:    {"ok  ", "\x1b[32m"},
	Warning: {"WARN", "\x1b[33m"},
	Failure: {"FAIL", "\x1b[1;31m"},
}

const plain = "\x1b[0m"

// Print writes the table, the sums and the questions.
func (r *Report) Print(w io.Writer, s Style) error {
	if s.Width <= 0 {
		s.Width = 100
	}
	p := &printer{w: w, Style: s}
	for _, f := range r.Findings {
		p.column = max(p.column, utf8.RuneCountInString(f.label()))
	}
	p.column = min(p.column, maxLabel)
	group := ""
	for _, f := range r.Findings {
		if f.Group != group {
			if group != "" {
				p.line("")
			}
			group = f.Group
			p.line(group)
		}
		p.finding(f)
	}
	p.line("")
	p.line(fmt.Sprintf("%s, %s, %s, in %.1f s; asked by %s", count(r.Counts.Failure, "failure"), count(r.Counts.Warning, "warning"),
		count(r.Counts.Pass, "pass"), time.Duration(r.Took).Seconds(), r.By))
	for i, a := range r.Questions {
		if i == 0 {
			p.line("")
		}
		p.answer(i+1, a)
	}
	return p.err
}

func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "s"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// maxLabel keeps one long address from pushing everything to the right.
const maxLabel = 34

func (f Finding) label() string { return strings.TrimSpace(f.Check + " " + f.Subject) }

type printer struct {
	Style
	w      io.Writer
	column int
	err    error
}

func (p *printer) line(text string) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, text)
	}
}

func (p *printer) finding(f Finding) {
	mark, known := marks[f.Result]
	if !known {
		mark = marks[Failure]
	}
	word := mark.word
	if p.Colour {
		word = mark.colour + word + plain
	}
	label := f.label()
	indent := strings.Repeat(" ", 2+4+2+p.column+2)
	lines := wrap(clean(f.What), p.Width-len(indent))
	if utf8.RuneCountInString(label) > p.column {
		p.line(fmt.Sprintf("  %s  %s", word, label))
		p.line(indent + lines[0])
	} else {
		p.line(fmt.Sprintf("  %s  %s%s  %s", word, label, strings.Repeat(" ", p.column-utf8.RuneCountInString(label)), lines[0]))
	}
	for _, l := range lines[1:] {
		p.line(indent + l)
	}
	if f.Cure == "" {
		return
	}
	const arrow = "-> "
	for i, l := range wrap(clean(f.Cure), p.Width-len(indent)-len(arrow)) {
		if i == 0 {
			p.line(indent + arrow + l)
		} else {
			p.line(indent + "   " + l)
		}
	}
}

func (p *printer) answer(n int, a Answer) {
	p.line(fmt.Sprintf("%d. %s", n, a.Question))
	for i, l := range wrap(a.Answer+": "+clean(a.Reason), p.Width-3) {
		if rest, ok := strings.CutPrefix(l, a.Answer+":"); i == 0 && ok && p.Colour {
			l = map[string]string{"yes": marks[Pass].colour, "no": marks[Failure].colour}[a.Answer]
			if l == "" {
				l = marks[Warning].colour
			}
			l += a.Answer + plain + ":" + rest
		}
		p.line("   " + l)
	}
}

// clean drops what could move a terminal's cursor: parts of the texts come from outside.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
}

// wrap breaks a text at its spaces into lines of at most width characters; a longer word stays whole. There is always one
// line.
func wrap(text string, width int) []string {
	width = max(width, 24)
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
