package pdf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// lexer parses objects from a window that grows over an io.ReaderAt as the object goes on, or from bytes in memory.
type lexer struct {
	src    io.ReaderAt // nil: all there is, is in b
	size   int64       // of src
	b      []byte      // the window
	base   int64       // file offset of b[0]
	p      int         // next byte to read in b
	nodes  int
	depth  int
	inside string // "in object stream 12: ": prefix of reasons where offsets are not those of the file
	err    error  // of reading src; sticky
}

// newLexer reads src from offset on.
func newLexer(src io.ReaderAt, size, offset int64) *lexer {
	return &lexer{src: src, size: size, base: offset}
}

// offset is the position in the file.
func (l *lexer) offset() int64 {
	if l.src == nil {
		return l.base
	}
	return l.base + int64(l.p)
}

// fail makes the error for a fault at the present position; a failed read or a spent budget goes before it.
func (l *lexer) fail(format string, args ...any) error {
	if l.err != nil {
		return l.err
	}
	reason := fmt.Sprintf(format, args...)
	if l.src == nil {
		reason += fmt.Sprintf(" (at its byte %d)", l.p)
	}
	return &SyntaxError{Offset: l.offset(), Reason: l.inside + reason}
}

// has makes sure that the byte at p+i is in the window.
func (l *lexer) has(i int) bool {
	for l.p+i >= len(l.b) {
		if !l.fill() {
			return false
		}
	}
	return true
}

// longTable is how many bytes of a long table are in the window at once, about.
const longTable = 32 << 10

// ahead reads the next bytes at once, if they are not in the window, because all of them will be asked for. What is wrong with
// them is found by who does.
func (l *lexer) ahead(bytes int64) {
	if missing := min(bytes, longTable) - int64(len(l.b)-l.p); missing > 0 {
		l.grow(missing)
	}
}

// fill doubles the window, from 512 bytes on.
func (l *lexer) fill() bool { return l.grow(int64(max(512, len(l.b)))) }

// grow puts so many more bytes into the window, or as many as there are.
func (l *lexer) grow(n int64) bool {
	if l.src == nil || l.err != nil {
		return false
	}
	from := l.base + int64(len(l.b))
	n = min(n, l.size-from)
	if n <= 0 {
		return false
	}
	if len(l.b) >= maxObjectBytes {
		l.err = &LimitError{Offset: l.base, What: "an object is too long", Limit: maxObjectBytes}
		return false
	}
	grown := make([]byte, len(l.b)+int(n))
	copy(grown, l.b)
	if _, err := l.src.ReadAt(grown[len(l.b):], from); err != nil && !errors.Is(err, io.EOF) {
		l.err = fmt.Errorf("pdf: reading at byte %d: %w", from, err)
		return false
	} else if errors.Is(err, io.EOF) && from+n < l.size {
		l.err = fmt.Errorf("pdf: reading at byte %d: %w", from, io.ErrUnexpectedEOF)
		return false
	}
	l.b = grown
	return true
}

// forget drops what was read, so that a long table does not count as one long object.
func (l *lexer) forget() {
	if l.src != nil && l.p > longTable {
		l.b = bytes.Clone(l.b[l.p:])
		l.base += int64(l.p)
		l.p = 0
	}
}

func isSpace(c byte) bool {
	return c == 0 || c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == ' '
}

func isDelimiter(c byte) bool {
	switch c {
	case '(', ')', '<', '>', '[', ']', '{', '}', '/', '%':
		return true
	}
	return false
}

// skip passes over white space and comments.
func (l *lexer) skip() {
	for l.has(0) {
		switch c := l.b[l.p]; {
		case isSpace(c):
			l.p++
		case c == '%':
			for l.has(0) && l.b[l.p] != '\n' && l.b[l.p] != '\r' {
				l.p++
			}
		default:
			return
		}
	}
}

// word takes the regular characters from here on; the result is valid until the next read.
func (l *lexer) word() []byte {
	start := l.p
	for l.has(0) && !isSpace(l.b[l.p]) && !isDelimiter(l.b[l.p]) {
		l.p++
	}
	return l.b[start:l.p]
}

// prefix tells whether s comes next.
func (l *lexer) prefix(s string) bool {
	return l.has(len(s)-1) && string(l.b[l.p:l.p+len(s)]) == s
}

// keyword takes s, after white space, if it comes next as a whole word.
func (l *lexer) keyword(s string) bool {
	l.skip()
	start := l.p
	if string(l.word()) == s {
		return true
	}
	l.p = start
	return false
}

// integer takes a whole number of at most limit, after white space.
func (l *lexer) integer(what string, limit int64) (int64, error) {
	l.skip()
	start := l.p
	w := l.word()
	n, err := strconv.ParseUint(string(w), 10, 63)
	if err != nil || int64(n) > limit {
		l.p = start
		return 0, l.fail("%s expected, a whole number of at most %d", what, limit)
	}
	return int64(n), nil
}

// value parses one object; references are not followed.
func (l *lexer) value() (any, error) {
	if l.depth >= maxDepth {
		return nil, &LimitError{Offset: l.offset(), What: "arrays and dictionaries are nested too deep", Limit: maxDepth}
	}
	if l.nodes++; l.nodes > maxObjectNodes {
		return nil, &LimitError{Offset: l.offset(), What: "an object has too many values", Limit: maxObjectNodes}
	}
	l.depth++
	defer func() { l.depth-- }()
	l.skip()
	if !l.has(0) {
		return nil, l.fail("the data ends where an object is expected")
	}
	switch l.b[l.p] {
	case '/':
		return l.name()
	case '(':
		return l.literalString()
	case '[':
		return l.array()
	case '<':
		if l.prefix("<<") {
			return l.dict()
		}
		return l.hexString()
	}
	return l.numberOrKeyword()
}

func (l *lexer) name() (Name, error) {
	l.p++
	w := l.word()
	if bytes.IndexByte(w, '#') < 0 {
		return Name(w), nil
	}
	out := make([]byte, 0, len(w))
	for i := 0; i < len(w); i++ {
		if w[i] == '#' && i+2 < len(w) {
			if n, err := strconv.ParseUint(string(w[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, w[i])
	}
	return Name(out), nil
}

func (l *lexer) literalString() (Raw, error) {
	start, depth := l.p, 0
	for l.has(0) {
		switch l.b[l.p] {
		case '\\':
			l.p++
			if !l.has(0) {
				return nil, l.fail("a string does not end")
			}
		case '(':
			depth++
		case ')':
			depth--
		}
		l.p++
		if depth == 0 {
			return bytes.Clone(l.b[start:l.p]), nil
		}
	}
	return nil, l.fail("a string does not end")
}

func (l *lexer) hexString() (Raw, error) {
	start := l.p
	for l.p++; l.has(0); l.p++ {
		c := l.b[l.p]
		if c == '>' {
			l.p++
			return bytes.Clone(l.b[start:l.p]), nil
		}
		if _, ok := hexDigit(c); !ok && !isSpace(c) {
			return nil, l.fail("a hexadecimal string has a character that is no digit")
		}
	}
	return nil, l.fail("a hexadecimal string does not end")
}

func (l *lexer) array() (Array, error) {
	l.p++
	a := Array{}
	for {
		l.skip()
		if !l.has(0) {
			return nil, l.fail("an array does not end")
		}
		if l.b[l.p] == ']' {
			l.p++
			return a, nil
		}
		v, err := l.value()
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
}

func (l *lexer) dict() (*Dict, error) {
	l.p += 2
	d := new(Dict)
	for {
		l.skip()
		if l.prefix(">>") {
			l.p += 2
			return d, nil
		}
		if !l.has(0) {
			return nil, l.fail("a dictionary does not end")
		}
		if l.b[l.p] != '/' {
			return nil, l.fail("a dictionary key is not a name")
		}
		key, err := l.name()
		if err != nil {
			return nil, err
		}
		// Readers differ in which of two values they take, and a seal must not depend on the reader.
		if d.Has(key) {
			return nil, l.fail("a dictionary has the key %q twice", "/"+string(key))
		}
		value, err := l.value()
		if err != nil {
			return nil, err
		}
		d.Set(key, value)
	}
}

// numberOrKeyword parses numbers, references, true, false and null.
func (l *lexer) numberOrKeyword() (any, error) {
	start := l.p
	w := l.word()
	switch {
	case string(w) == "null":
		return nil, nil
	case string(w) == "true", string(w) == "false":
		return Raw(bytes.Clone(w)), nil
	case !isNumber(w):
		l.p = start
		return nil, l.fail("an object expected")
	}
	after := l.p
	if ref, ok := l.reference(w); ok {
		return ref, nil
	}
	l.p = after
	return Raw(bytes.Clone(l.b[start:after])), nil
}

// reference looks whether the whole number first begins a reference.
func (l *lexer) reference(first []byte) (Ref, bool) {
	num, ok := whole(first, 31)
	if !ok {
		return Ref{}, false
	}
	l.skip()
	gen, ok := whole(l.word(), 16)
	if !ok || !l.keyword("R") {
		return Ref{}, false
	}
	return Ref{Num: int(num), Gen: int(gen)}, true
}

// whole reads a whole number of so many bits. Most words are none, and need no error that says why.
func whole(word []byte, bits int) (uint64, bool) {
	if len(word) == 0 || word[0] < '0' || word[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(word), 10, bits)
	return n, err == nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
