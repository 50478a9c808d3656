package typst

import (
	"regexp"
	"strings"

	"github.com/dealseal/dealseal/documents"
)

// OwnForeground finds where a template sets a page foreground of its own, which RenderMarked refuses: it hides the mark. It
// sees what is spelled out, in a set rule or a call, and not what a template puts together while it runs.
func OwnForeground(b *documents.Bundle) (file string, line int, found bool) {
	for _, name := range b.FileNames() {
		if !strings.HasSuffix(name, ".typ") {
			continue
		}
		text, _ := b.File(name)
		if line, found = ownForeground(string(text)); found {
			return name, line, true
		}
	}
	return "", 0, false
}

var (
	pageCall   = regexp.MustCompile(`(?:^|[^\w-])page\s*\(`)
	foreground = regexp.MustCompile(`^foreground\s*:\s*(none\b)?`)
)

// ownForeground returns the line of the first page call of a Typst source that has a foreground other than none.
func ownForeground(source string) (line int, found bool) {
	text := withoutComments(source)
	for at := 0; ; {
		call := pageCall.FindStringIndex(text[at:])
		if call == nil {
			return 0, false
		}
		begin := at + call[0]
		at += call[1]
		if i := foregroundOf(text[at:]); i >= 0 {
			return 1 + strings.Count(text[:at+i], "\n"), true
		}
		at = max(at, begin+1)
	}
}

// mostArguments is how much of the arguments of one call is looked through: calls stand within calls.
const mostArguments = 8 << 10

// foregroundOf returns where among the arguments that text begins with a foreground stands, -1 without one.
func foregroundOf(text string) int {
	text = text[:min(len(text), mostArguments)]
	depth, argument := 1, true // an argument begins here
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			argument = false
		case '(', '[', '{':
			depth++
			argument = false
		case ')', ']', '}':
			if depth--; depth == 0 {
				return -1
			}
		case ',':
			argument = depth == 1
		case ' ', '\t', '\r', '\n':
		default:
			if m := foreground.FindStringSubmatch(text[i:]); argument && m != nil && m[1] == "" {
				return i
			}
			argument = false
		}
	}
	return -1
}

// withoutComments blanks the comments of a Typst source, so that lines keep their numbers. What follows a colon, as in an
// address, is none.
func withoutComments(source string) string {
	out := []byte(source)
	blank := func(from, to int) {
		for i := from; i < to; i++ {
			if out[i] != '\n' {
				out[i] = ' '
			}
		}
	}
	for i := 0; i+1 < len(out); i++ {
		switch {
		case out[i] == '\\':
			i++
		case out[i] == '/' && out[i+1] == '/' && (i == 0 || out[i-1] != ':'):
			end := len(out)
			if n := strings.IndexByte(source[i:], '\n'); n >= 0 {
				end = i + n
			}
			blank(i, end)
			i = end
		case out[i] == '/' && out[i+1] == '*':
			end := len(out)
			if n := strings.Index(source[i+2:], "*/"); n >= 0 {
				end = i + 2 + n + 2
			}
			blank(i, end)
			i = end - 1
		}
	}
	return string(out)
}
