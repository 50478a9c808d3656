package typst

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/dealseal/dealseal/documents"
)

// diagnosticOf reads one entry of the compiler's list. Its range is "line:column-line:column", counted from 0.
func diagnosticOf(o *object) Diagnostic {
	d := Diagnostic{
		File:    strings.TrimPrefix(o.text("path"), "/"),
		Error:   !strings.EqualFold(o.text("severity"), "warning"),
		Message: o.text("message"),
	}
	var line, column int
	if n, _ := fmt.Sscanf(o.text("range"), "%d:%d", &line, &column); n == 2 {
		d.Line, d.Column = line+1, column+1
	}
	if d.File == "" {
		d.File = documents.ContractFile
	}
	return d
}

// withoutTrace drops the steps through the file that includes the contract, unless they are all there is.
func withoutTrace(all []Diagnostic) []Diagnostic {
	kept := slices.DeleteFunc(slices.Clone(all), func(d Diagnostic) bool { return d.File == mainFile })
	if len(kept) == 0 {
		return all
	}
	return kept
}

// censor removes from the compiler's messages what may be a value of the record. A message is a help for the author of
// the template, who knows the template but must not see every customer's data in a log.
type censor struct {
	sources []string        // the template's own text
	words   map[string]bool // all words of the record that are not in the template
}

func newCensor(files map[string][]byte, manifest []byte, p *documents.Prepared) *censor {
	c := &censor{words: make(map[string]bool), sources: []string{string(manifest)}}
	own := make(map[string]bool)
	for name, data := range files {
		if path.Ext(name) != ".typ" || name == mainFile {
			continue
		}
		c.sources = append(c.sources, string(data))
		for _, w := range strings.FieldsFunc(string(data), notInWord) {
			own[w] = true
		}
	}
	for _, t := range p.Texts {
		for _, w := range strings.FieldsFunc(t.Text, notInWord) {
			if !own[w] {
				c.words[w] = true
			}
		}
	}
	return c
}

func notInWord(r rune) bool { return !unicode.In(r, unicode.L, unicode.M, unicode.N) && r != '\u200b' }

var (
	// quoted is what the compiler puts into its messages from elsewhere.
	quoted = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`")
	// free is followed by what the template says at run time: its own choice of words, and maybe a value.
	free = regexp.MustCompile(`^(panicked with|assertion failed): `)
	word = regexp.MustCompile(`[\pL\pM\pN\x{200b}]+`)
)

func (c *censor) message(m string) string {
	if said := free.FindString(m); said != "" {
		if c.inSource(strings.Trim(strings.TrimPrefix(m, said), `"`)) {
			return m
		}
		return said + "(a text that is not in the template)"
	}
	m = word.ReplaceAllStringFunc(m, func(w string) string {
		if c.words[w] {
			return withheld
		}
		return w
	})
	return quoted.ReplaceAllStringFunc(m, func(q string) string {
		if c.inSource(q[1 : len(q)-1]) {
			return q
		}
		return withheld
	})
}

// withheld stands where a message had a value.
const withheld = "(a value)"

func (c *censor) inSource(s string) bool {
	for _, source := range c.sources {
		if strings.Contains(source, s) {
			return true
		}
	}
	return false
}
