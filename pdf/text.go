package pdf

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
)

// TextString spells s as a text string (ISO 32000-1, 7.9.2.2): in ASCII where that is enough, else in UTF-16.
func TextString(s string) Raw {
	plain := true
	for i := range len(s) {
		plain = plain && (s[i] >= ' ' && s[i] <= '~' || s[i] == '\n')
	}
	if plain {
		return literal(s)
	}
	b := []byte{0xFE, 0xFF}
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.BigEndian.AppendUint16(b, u)
	}
	return HexString(b)
}

// literal spells a literal string (7.3.4.2).
func literal(s string) Raw {
	out := append(make([]byte, 0, len(s)+2), '(')
	for i := range len(s) {
		switch s[i] {
		case '\\', '(', ')':
			out = append(out, '\\', s[i])
		case '\n':
			out = append(out, '\\', 'n')
		default:
			out = append(out, s[i])
		}
	}
	return append(out, ')')
}

// HexString spells bytes as a hexadecimal string.
func HexString(b []byte) Raw {
	out := make([]byte, 0, 2*len(b)+2)
	out = append(out, '<')
	out = hex.AppendEncode(out, b)
	return append(out, '>')
}

// Date spells t as a date with its offset from UTC (7.9.4).
func Date(t time.Time) Raw {
	_, offset := t.Zone()
	zone := "Z"
	if minutes := offset / 60; minutes != 0 {
		sign := '+'
		if minutes < 0 {
			sign, minutes = '-', -minutes
		}
		zone = fmt.Sprintf("%c%02d'%02d'", sign, minutes/60, minutes%60)
	}
	return Raw("(D:" + t.Format("20060102150405") + zone + ")")
}

// StringBytes undoes the spelling of a literal or hexadecimal string (7.3.4).
func StringBytes(v any) ([]byte, bool) {
	r, ok := v.(Raw)
	if !ok || len(r) < 2 {
		return nil, false
	}
	switch body := r[1 : len(r)-1]; {
	case r[0] == '(' && r[len(r)-1] == ')':
		return unescape(body), true
	case r[0] == '<' && r[len(r)-1] == '>':
		return unhex(body), true
	}
	return nil, false
}

// unhex takes a missing last digit as 0.
func unhex(body []byte) []byte {
	out := make([]byte, 0, len(body)/2+1)
	high, half := byte(0), false
	for _, c := range body {
		d, ok := hexDigit(c)
		switch {
		case !ok:
		case half:
			out, half = append(out, high<<4|d), false
		default:
			high, half = d, true
		}
	}
	if half {
		out = append(out, high<<4)
	}
	return out
}

func unescape(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		c := body[i]
		if c == '\r' { // an end of line in a string is one line feed
			c = '\n'
			if i+1 < len(body) && body[i+1] == '\n' {
				i++
			}
		}
		if c != '\\' || i+1 == len(body) {
			out = append(out, c)
			continue
		}
		i++
		switch c = body[i]; c {
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case '\n': // the line goes on
		case '\r':
			if i+1 < len(body) && body[i+1] == '\n' {
				i++
			}
		case '0', '1', '2', '3', '4', '5', '6', '7':
			n := 0
			for end := min(i+3, len(body)); i < end && body[i] >= '0' && body[i] <= '7'; i++ {
				n = n<<3 | int(body[i]-'0')
			}
			i--
			out = append(out, byte(n))
		default:
			out = append(out, c)
		}
	}
	return out
}

// Text reads a text string: PDFDocEncoding, UTF-16 or UTF-8 by its byte order mark. What is no string gives "".
func Text(v any) string {
	b, ok := StringBytes(v)
	if !ok {
		return ""
	}
	switch {
	case len(b) >= 2 && b[0] == 0xFE && b[1] == 0xFF:
		units := make([]uint16, 0, len(b)/2)
		for i := 2; i+1 < len(b); i += 2 {
			units = append(units, binary.BigEndian.Uint16(b[i:]))
		}
		return string(utf16.Decode(units))
	case len(b) >= 3 && string(b[:3]) == "\xEF\xBB\xBF":
		return strings.ToValidUTF8(string(b[3:]), "\uFFFD")
	}
	var out strings.Builder
	for _, c := range b {
		out.WriteRune(docEncoding(c))
	}
	return out.String()
}

// docEncoding maps a byte of PDFDocEncoding (annex D.2), which is Latin-1 but for two ranges.
func docEncoding(c byte) rune {
	const low = "\u02D8\u02C7\u02C6\u02D9\u02DD\u02DB\u02DA\u02DC"
	const high = "\u2022\u2020\u2021\u2026\u2014\u2013\u0192\u2044\u2039\u203A\u2212\u2030\u201E\u201C\u201D\u2018" +
		"\u2019\u201A\u2122\uFB01\uFB02\u0141\u0152\u0160\u0178\u017D\u0131\u0142\u0153\u0161\u017E\uFFFD\u20AC"
	switch {
	case c >= 0x18 && c <= 0x1F:
		return []rune(low)[c-0x18]
	case c >= 0x80 && c <= 0xA0:
		return []rune(high)[c-0x80]
	}
	return rune(c)
}
