package salesforce

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Of a change event only the header is read, which comes first in its record: who has changed which records, and which
// fields. The values behind it are a customer's and are never decoded. That takes no library: a record of scalars, enums and
// lists of text, in the binary encoding of Avro 1.11.

const (
	headerField = "ChangeEventHeader"
	// mostFields is more than an object can have.
	mostFields = 5000
	// mostHeader is more than a header has: there are twelve fields.
	mostHeader = 100
	// avroDepth is how deep a type of the header may be nested: a list in a union.
	avroDepth = 3
)

var (
	errSchema = errors.New("it is no schema of a change event")
	errEvent  = errors.New("it is no change event of its schema")
)

// eventSchema is what is needed of a schema.
type eventSchema struct {
	object string // whose changes these are; empty when it is no schema of changes
	header []avroField
	stage  int // position of StageName, -1 when it is not there
}

type avroField struct {
	name string
	kind avroType
}

// avroType is one of those that a header has.
type avroType struct {
	kind    string // a primitive type, "enum", "array" or "union"
	symbols []string
	of      []avroType // of a union its branches, of an array its items
}

type rawField struct {
	Name string          `json:"name"`
	Type json.RawMessage `json:"type"`
}

type rawType struct {
	Type    json.RawMessage `json:"type"`
	Name    string          `json:"name"`
	Fields  []rawField      `json:"fields"`
	Symbols []string        `json:"symbols"`
	Items   json.RawMessage `json:"items"`
}

// parseEventSchema reads the JSON of a schema.
func parseEventSchema(text []byte) (*eventSchema, error) {
	var raw, header rawType
	if json.Unmarshal(text, &raw) != nil || len(raw.Fields) == 0 || len(raw.Fields) > mostFields {
		return nil, errSchema
	}
	s := &eventSchema{stage: -1}
	object, is := strings.CutSuffix(raw.Name, "ChangeEvent")
	if !is || raw.Fields[0].Name != headerField {
		return s, nil
	}
	if s.object = object; json.Unmarshal(raw.Fields[0].Type, &header) != nil || len(header.Fields) > mostHeader {
		return nil, errSchema
	}
	for _, f := range header.Fields {
		t, err := parseAvroType(f.Type, avroDepth)
		if err != nil {
			return nil, err
		}
		s.header = append(s.header, avroField{f.Name, t})
	}
	for i, f := range raw.Fields {
		if f.Name == "StageName" {
			s.stage = i
		}
	}
	return s, nil
}

func parseAvroType(text json.RawMessage, depth int) (t avroType, err error) {
	if depth == 0 {
		return t, errSchema
	}
	var branches []json.RawMessage
	if json.Unmarshal(text, &t.kind) == nil {
		return t, t.check()
	}
	if json.Unmarshal(text, &branches) == nil {
		t.kind = "union"
		for _, b := range branches {
			one, err := parseAvroType(b, depth-1)
			if err != nil {
				return t, err
			}
			t.of = append(t.of, one)
		}
		return t, t.check()
	}
	var raw rawType
	if json.Unmarshal(text, &raw) != nil {
		return t, errSchema
	}
	if json.Unmarshal(raw.Type, &t.kind) != nil {
		return parseAvroType(raw.Type, depth-1)
	}
	t.symbols = raw.Symbols
	if t.kind == "array" {
		items, err := parseAvroType(raw.Items, depth-1)
		if err != nil {
			return t, err
		}
		t.of = []avroType{items}
	}
	return t, t.check()
}

func (t avroType) check() error {
	switch t.kind {
	case "null", "boolean", "int", "long", "float", "double", "string", "bytes":
		return nil
	case "enum":
		if len(t.symbols) > 0 {
			return nil
		}
	case "array", "union":
		if len(t.of) > 0 {
			return nil
		}
	}
	return errSchema
}

// changeHeader is who has changed what.
type changeHeader struct {
	entity, kind, origin string
	records, changed     []string
	committed            time.Time
}

// readHeader reads the beginning of an event.
func (s *eventSchema) readHeader(payload []byte) (h changeHeader, err error) {
	r := avroReader{b: payload}
	for _, f := range s.header {
		texts, number := r.value(f.kind)
		if r.bad {
			return h, errEvent
		}
		text := strings.Join(texts, "")
		switch f.name {
		case "entityName":
			h.entity = text
		case "recordIds":
			h.records = texts
		case "changeType":
			h.kind = text
		case "changeOrigin":
			h.origin = text
		case "commitTimestamp":
			h.committed = time.UnixMilli(number).UTC()
		case "changedFields":
			h.changed = texts
		}
	}
	if h.entity == "" || h.kind == "" {
		return h, errEvent
	}
	return h, nil
}

// avroReader takes values off the front of b. Once bad, it stays so.
type avroReader struct {
	b   []byte
	bad bool
}

func (r *avroReader) take(n int64) []byte {
	if r.bad || n < 0 || n > int64(len(r.b)) {
		r.bad = true
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *avroReader) long() int64 {
	v, n := binary.Varint(r.b) // zig-zag in seven-bit groups, as Avro has it
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(int64(n))
	return v
}

// value reads one value: its texts, or its number.
func (r *avroReader) value(t avroType) (texts []string, number int64) {
	if r.bad {
		return nil, 0
	}
	switch t.kind {
	case "boolean":
		r.take(1)
	case "int", "long":
		number = r.long()
	case "float":
		r.take(4)
	case "double":
		r.take(8)
	case "string", "bytes":
		texts = []string{string(r.take(r.long()))}
	case "enum":
		if i := r.long(); i >= 0 && i < int64(len(t.symbols)) {
			return []string{t.symbols[i]}, 0
		}
		r.bad = true
	case "union":
		if i := r.long(); i >= 0 && i < int64(len(t.of)) {
			return r.value(t.of[i])
		}
		r.bad = true
	case "array":
		texts = r.array(t.of[0])
	}
	return texts, number
}

// array reads blocks of items until an empty one. An item takes at least a byte, or the count of a block could be any.
func (r *avroReader) array(items avroType) (all []string) {
	for !r.bad {
		n := r.long()
		if n < 0 {
			r.long() // the block's size in bytes
			n = -n
		}
		if n == 0 {
			return all
		}
		if n < 0 || n > int64(len(r.b)) || items.kind == "null" {
			r.bad = true
		}
		for ; n > 0 && !r.bad; n-- {
			texts, _ := r.value(items)
			all = append(all, texts...)
		}
	}
	return nil
}

// changedAt reports whether a bitmap of changed fields has the one at a position of the record. known is false when that
// cannot be told. The bitmaps of fields inside of others begin with the position of those.
func changedAt(bitmaps []string, position int) (is, known bool) {
	if len(bitmaps) == 0 || position < 0 {
		return false, false
	}
	for _, m := range bitmaps {
		digits, whole := strings.CutPrefix(m, "0x")
		if !whole {
			if before, after, inner := strings.Cut(m, "-0x"); !inner || !isHex(after) || strings.Trim(before, "0123456789") != "" {
				return false, false
			}
			continue
		}
		if !isHex(digits) {
			return false, false
		}
		if at := len(digits) - 1 - position/4; at >= 0 { // the last digit has the first fields
			digit, err := strconv.ParseUint(digits[at:at+1], 16, 8)
			is = is || err == nil && digit>>(position%4)&1 == 1
		}
	}
	return is, true
}

func isHex(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdefABCDEF") == "" }
