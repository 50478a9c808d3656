package documents

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what a record may put on paper.
const (
	maxRecordBytes = 1 << 20
	maxFieldBytes  = 100 << 10
	maxLines       = 2000 // entries of one list, and line breaks in one text
	maxMarks       = 30   // combining marks on one base character
	maxDepth       = 16
)

// isBlank reports whether a person would see nothing: only white space and characters without width.
func isBlank(s string) bool {
	return strings.TrimFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || r == '\u2800' || r == '\u3164'
	}) == ""
}

// checkText refuses what prints differently from how it reads, or does not print.
func checkText(field, s string) error {
	if len(s) > maxFieldBytes {
		return &TextError{Field: field, Rune: NoRune, Reason: "is longer than 100 KB"}
	}
	if !utf8.ValidString(s) {
		return &TextError{Field: field, Rune: NoRune, Reason: "is not valid UTF-8"}
	}
	if strings.Count(s, "\n") > maxLines {
		return &TextError{Field: field, Rune: NoRune, Reason: "has more than 2,000 lines"}
	}
	marks := 0
	for _, r := range s {
		if r >= ' ' && r <= '~' { // most of all, and none of it is refused
			marks = 0
			continue
		}
		if reason := refused(r); reason != "" {
			return &TextError{Field: field, Rune: r, Reason: reason}
		}
		if !unicode.Is(unicode.M, r) {
			marks = 0
		} else if marks++; marks > maxMarks {
			return &TextError{Field: field, Rune: r, Reason: fmt.Sprintf("more than %d combining marks on one character", maxMarks)}
		}
	}
	return nil
}

// joiners are the format characters that scripts need to be written properly.
func isJoiner(r rune) bool {
	return r == '\u00ad' || r >= '\u200b' && r <= '\u200f' || r == '\u2060' || r == '\u061c'
}

func refused(r rune) string {
	switch {
	case r == '\n' || r == '\t':
		return ""
	case unicode.Is(unicode.Cc, r):
		return "control characters cannot be printed"
	case r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069':
		return "bidirectional overrides and isolates make a text read differently from what it is"
	case r == '\u2028' || r == '\u2029':
		return "line and paragraph separators are not supported: use a plain line break"
	case isJoiner(r):
		return ""
	case unicode.Is(unicode.Cf, r):
		return "invisible format characters cannot be printed"
	case unicode.Is(unicode.Co, r):
		return "private-use characters have no agreed shape"
	case !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z):
		return "the character is not assigned in Unicode"
	}
	return ""
}

// NeedsGlyph reports whether r has to have a shape in a font. White space, format characters and variation selectors
// do not.
func NeedsGlyph(r rune) bool {
	return !unicode.IsSpace(r) && !unicode.Is(unicode.Cc, r) && !unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Variation_Selector, r)
}

// maxWord is the longest run of characters that every sensible column can hold.
const maxWord = 30

// breakWords gives words that no column can hold places where they may be broken: after punctuation where there is
// some, else anywhere. The places have no width and show only where a line would run off the page.
func breakWords(s string) string {
	if len(s) <= maxWord {
		return s
	}
	var b strings.Builder
	for rest := s; rest != ""; {
		word := leadingWord(rest)
		if word == "" {
			_, n := utf8.DecodeRuneInString(rest)
			word = rest[:n]
		}
		rest = rest[len(word):]
		breakWord(&b, word)
	}
	return b.String()
}

// leadingWord is the run of characters at the start of s between which the layout would not break a line.
func leadingWord(s string) string {
	for i, r := range s {
		if unicode.IsSpace(r) && r != '\u00a0' || r == '\u200b' || unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) {
			return s[:i]
		}
	}
	return s
}

func breakWord(b *strings.Builder, word string) {
	if utf8.RuneCountInString(word) <= maxWord {
		b.WriteString(word)
		return
	}
	start := 0
	for i := 1; i < len(word); i++ {
		if isBreakAfter(word[i-1]) && !isBreakAfter(word[i]) {
			breakPiece(b, word[start:i])
			b.WriteRune('\u200b')
			start = i
		}
	}
	breakPiece(b, word[start:])
}

// isBreakAfter knows the punctuation in addresses and part numbers after which a reader accepts a break.
func isBreakAfter(c byte) bool { return strings.IndexByte("@./_-:?&=,;+#%", c) >= 0 }

func breakPiece(b *strings.Builder, piece string) {
	long := utf8.RuneCountInString(piece) > maxWord
	joined := true // no break before the first character
	for _, r := range piece {
		if long && !joined && !unicode.Is(unicode.M, r) && !isJoiner(r) {
			b.WriteRune('\u200b')
		}
		joined = r == '\u200d'
		b.WriteRune(r)
	}
}
