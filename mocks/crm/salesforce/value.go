package salesforce

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// timeLayout is how the service writes a date-time: milliseconds, and a zone without a colon.
const timeLayout = "2006-01-02T15:04:05.000-0700"

// timeLayouts are the spellings of a date-time that it reads.
func timeLayouts() []string {
	return []string{time.RFC3339Nano, timeLayout, "2006-01-02T15:04:05-0700", "2006-01-02"}
}

func parseTime(s string) (time.Time, bool) {
	for _, layout := range timeLayouts() {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// coerce turns a JSON value into the stored form of the field's type.
func coerce(f *Field, v any) (any, *Error) {
	if t, ok := v.(time.Time); ok { // from a control method
		v = t.UTC().Format(timeLayout)
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case map[string]any, []any:
		return nil, cannotDeserialize(f, "START_OBJECT", "")
	case string:
		return coerceText(f, v)
	case bool:
		if f.Type == TypeBoolean {
			return v, nil
		}
		return coerceText(f, strconv.FormatBool(v))
	case json.Number:
		return coerceText(f, v.String())
	case float64:
		return coerceText(f, strconv.FormatFloat(v, 'f', -1, 64))
	case int:
		return coerceText(f, strconv.Itoa(v))
	}
	return nil, cannotDeserialize(f, "VALUE", "")
}

func coerceText(f *Field, s string) (any, *Error) {
	if s == "" && f.Type != TypeBoolean {
		return nil, nil
	}
	switch f.Type {
	case TypeBoolean:
		if b, err := strconv.ParseBool(s); err == nil {
			return b, nil
		}
	case TypeCurrency, TypeDouble, TypePercent, TypeInt:
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(n) || f.Type == TypeInt && n != math.Trunc(n) {
			break
		}
		if math.Abs(n) >= 1e16 {
			return nil, &Error{Status: 400, Code: "NUMBER_OUTSIDE_VALID_RANGE", Fields: []string{f.Name}, Message: f.label() + ": value outside of valid range on numeric field: " + s}
		}
		return n, nil
	case TypeDate:
		if t, ok := parseTime(s); ok {
			return t.Format(time.DateOnly), nil
		}
	case TypeDateTime:
		if t, ok := parseTime(s); ok {
			return t.Truncate(time.Second), nil
		}
	case TypeReference, TypeID:
		id, ok := canonicalID(s)
		if !ok {
			return nil, &Error{Status: 400, Code: "MALFORMED_ID", Message: f.label() + ": id value of incorrect type: " + s, Fields: []string{f.Name}}
		}
		return id, nil
	default:
		if f.Length > 0 && utf8.RuneCountInString(s) > f.Length {
			return nil, &Error{Status: 400, Code: "STRING_TOO_LONG", Fields: []string{f.Name},
				Message: f.label() + ": data value too large: " + excerpt(s) + " (max length=" + strconv.Itoa(f.Length) + ")"}
		}
		return s, nil
	}
	return nil, cannotDeserialize(f, "VALUE_STRING", s)
}

func excerpt(s string) string {
	if r := []rune(s); len(r) > 255 {
		return string(r[:255])
	}
	return s
}

func cannotDeserialize(f *Field, token, value string) *Error {
	return &Error{Status: 400, Code: "JSON_PARSER_ERROR",
		Message: "Cannot deserialize instance of " + string(f.Type) + " from " + token + " value " + excerpt(value) +
			" or request may be missing a required field at [line:1, column:2]"}
}

// output turns a stored value into what a response shows.
func output(f *Field, v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.Format(timeLayout)
	case float64:
		if f.Type == TypeInt {
			return json.Number(strconv.FormatInt(int64(v), 10))
		}
		return json.Number(javaDouble(v))
	case nil:
		if f.Type == TypeBoolean {
			return false
		}
	}
	return v
}

// javaDouble writes a number the way the service does: at least one decimal,
// and an exponent from ten million on.
func javaDouble(v float64) string {
	if a := math.Abs(v); a != 0 && (a >= 1e7 || a < 1e-3) {
		s := strconv.FormatFloat(v, 'E', -1, 64)
		mantissa, exponent, _ := strings.Cut(s, "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, _ := strconv.Atoi(exponent)
		return mantissa + "E" + strconv.Itoa(n)
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// exact returns the decimal that a stored number stands for.
func exact(v any) *big.Rat {
	n, _ := v.(float64)
	r, _ := new(big.Rat).SetString(strconv.FormatFloat(n, 'g', -1, 64))
	return r
}

// round2 rounds to cents, half away from zero.
func round2(r *big.Rat) float64 {
	n, _ := strconv.ParseFloat(r.FloatString(2), 64)
	return n
}

// member and ordered are a JSON object that keeps the order of its keys.
type member struct {
	key   string
	value any
}
type ordered []member

// MarshalJSON implements json.Marshaler.
func (o ordered) MarshalJSON() ([]byte, error) { return marshal(o), nil }

// marshal writes JSON without escaping HTML. What it is given is always made
// of plain values.
func marshal(v any) []byte {
	var b bytes.Buffer
	write(&b, v)
	return b.Bytes()
}

// write writes objects itself: encoding/json would read again what each of them has written.
func write(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case ordered:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, m.key)
			b.WriteByte(':')
			write(b, m.value)
		}
		b.WriteByte('}')
	case []ordered:
		if v == nil {
			b.WriteString("null")
			return
		}
		b.WriteByte('[')
		for i, o := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, o)
		}
		b.WriteByte(']')
	default:
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			panic("salesforce mock: " + err.Error())
		}
		b.Truncate(b.Len() - 1) // the line's end
	}
}
