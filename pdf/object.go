// Package pdf reads the objects of a PDF file and appends incremental updates to it (ISO 32000-1, 7.5).
//
// It is made for sealing and for checking seals: it never rewrites a byte of the original, it reads through small
// windows instead of holding the file, and it refuses a damaged file where a viewer would repair it in silence, because a
// repaired file may show different people different things. Every reading operation has a budget, so a hostile file
// ends in an error and not in a full memory or a full stack.
package pdf

import (
	"maps"
	"slices"
	"strconv"
)

// The values of PDF objects are nil (null), Name, Raw, Ref, Array, *Dict and *Stream. When writing, bool, int, int64,
// float64 and *Placeholder are accepted too.
type (
	// Name is a name without its slash and with its #xx escapes decoded.
	Name string

	// Raw is a number, boolean or string exactly as it is spelled in the file, so that it is copied unchanged.
	Raw []byte

	// Ref points to an indirect object.
	Ref struct{ Num, Gen int }

	// Array is a PDF array.
	Array []any
)

// String gives the reference as the file spells it: "12 0 R".
func (r Ref) String() string { return strconv.Itoa(r.Num) + " " + strconv.Itoa(r.Gen) + " R" }

// Dict is a dictionary that keeps the order of its keys. The zero value is empty and ready. It is not safe for
// concurrent use.
type Dict struct {
	pairs []pair
	index map[Name]int // place of each key in pairs; only for a dictionary that is too large to be searched
}

type pair struct {
	key   Name
	value any
}

// maxSearched is how many keys are searched one by one, which is faster than a map for all but a few dictionaries.
const maxSearched = 16

// D builds a dictionary from alternating keys and values, for literals in code: D("Type", Name("Annot")). A key
// without a value is ignored.
func D(pairs ...any) *Dict {
	d := new(Dict)
	for i := 0; i+1 < len(pairs); i += 2 {
		switch k := pairs[i].(type) {
		case string:
			d.Set(Name(k), pairs[i+1])
		case Name:
			d.Set(k, pairs[i+1])
		}
	}
	return d
}

// Get returns the value of key, or nil; it does not follow references (see [File.Resolve]).
func (d *Dict) Get(key Name) any {
	if i := d.find(key); i >= 0 {
		return d.pairs[i].value
	}
	return nil
}

// Has tells whether key is present, be it with the value null.
func (d *Dict) Has(key Name) bool { return d.find(key) >= 0 }

// find returns the place of key, or -1.
func (d *Dict) find(key Name) int {
	if d == nil {
		return -1
	}
	if d.index != nil {
		if i, ok := d.index[key]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(d.pairs, func(p pair) bool { return p.key == key })
}

// Set replaces the value of key in its place, or adds it at the end.
func (d *Dict) Set(key Name, value any) {
	if i := d.find(key); i >= 0 {
		d.pairs[i].value = value
		return
	}
	d.pairs = append(d.pairs, pair{key, value})
	switch {
	case d.index != nil:
		d.index[key] = len(d.pairs) - 1
	case len(d.pairs) > maxSearched:
		d.makeIndex()
	}
}

func (d *Dict) makeIndex() {
	d.index = make(map[Name]int, 2*len(d.pairs))
	for i, p := range d.pairs {
		d.index[p.key] = i
	}
}

// Delete removes key.
func (d *Dict) Delete(key Name) {
	i := d.find(key)
	if i < 0 {
		return
	}
	d.pairs = slices.Delete(d.pairs, i, i+1)
	if d.index != nil {
		d.makeIndex()
	}
}

// Keys returns the keys in their order. The caller owns the slice.
func (d *Dict) Keys() []Name {
	if d == nil {
		return nil
	}
	keys := make([]Name, len(d.pairs))
	for i, p := range d.pairs {
		keys[i] = p.key
	}
	return keys
}

// Len counts the keys.
func (d *Dict) Len() int {
	if d == nil {
		return 0
	}
	return len(d.pairs)
}

// Clone copies the dictionary, but not the arrays and dictionaries inside it. A nil dictionary gives an empty one.
func (d *Dict) Clone() *Dict {
	if d == nil {
		return new(Dict)
	}
	return &Dict{pairs: slices.Clone(d.pairs), index: maps.Clone(d.index)}
}

// Stream is a stream object of a file: its dictionary, and where its data begins.
type Stream struct {
	Dict   *Dict
	Offset int64 // of the first byte of the encoded data in the file
}

// Int reads a whole number that fits 63 bits.
func Int(v any) (int64, bool) {
	switch n := v.(type) {
	case Raw:
		i, err := strconv.ParseInt(string(n), 10, 64)
		return i, err == nil
	case int:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

// Number reads a number, whole or not.
func Number(v any) (float64, bool) {
	switch n := v.(type) {
	case Raw:
		if !isNumber(n) {
			return 0, false
		}
		f, err := strconv.ParseFloat(string(n), 64)
		return f, err == nil
	case float64:
		return n, true
	}
	i, ok := Int(v)
	return float64(i), ok
}

// Bool reads a boolean.
func Bool(v any) (value, ok bool) {
	switch b := v.(type) {
	case Raw:
		return string(b) == "true", string(b) == "true" || string(b) == "false"
	case bool:
		return b, true
	}
	return false, false
}

// isNumber accepts what ISO 32000-1, 7.3.3 calls a number: digits with at most one point and a sign in front. There is
// no exponent.
func isNumber(t []byte) bool {
	if len(t) > 0 && (t[0] == '+' || t[0] == '-') {
		t = t[1:]
	}
	digits, points := 0, 0
	for _, c := range t {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '.':
			points++
		default:
			return false
		}
	}
	return digits > 0 && points <= 1
}
