package deal

import (
	"encoding/json"
	"maps"
	"math/big"
	"slices"
)

// Difference is one value of a record that is another than the one that went into the document. Path and Line are names and
// numbers of the CRM's; Was and Is are values, and stay where values may stand.
type Difference struct {
	// Path is that of the field, as it was mapped.
	Path string `json:"path"`
	// Line is the place in a list, from 1; 0 outside of lists.
	Line int `json:"line,omitempty"`
	// Was is what the document says, Is what the record holds now; empty when there is none.
	Was string `json:"was,omitempty"`
	Is  string `json:"is,omitempty"`
}

// maxDifferences bounds what is kept of a record that has nothing in common with its document: a list of thousands of lines
// that was emptied.
const maxDifferences = 200

// Differences compares two readings of the same paths of a record, as in Record.Values, in the order of paths and lines, and
// returns the first 200. Absent, nil and the empty text are the same, and so are numbers of the same value.
func Differences(was, is map[string]any) []Difference {
	c := comparison{}
	c.branch("", 0, was, is)
	return c.found
}

type comparison struct{ found []Difference }

func (c *comparison) value(path string, line int, was, is any) {
	if len(c.found) == maxDifferences {
		return
	}
	a, aBranch := was.(map[string]any)
	b, bBranch := is.(map[string]any)
	l, aList := was.([]any)
	m, bList := is.([]any)
	switch {
	case aBranch && (bBranch || is == nil), bBranch && was == nil:
		c.branch(path, line, a, b)
	case aList && (bList || is == nil), bList && was == nil:
		c.list(path, l, m)
	default:
		if x, y := leafText(was), leafText(is); x != y && !sameNumber(was, is) {
			c.found = append(c.found, Difference{Path: path, Line: line, Was: x, Is: y})
		}
	}
}

func (c *comparison) branch(path string, line int, was, is map[string]any) {
	names := slices.AppendSeq(slices.Collect(maps.Keys(was)), maps.Keys(is))
	slices.Sort(names)
	if path != "" {
		path += "."
	}
	for _, name := range slices.Compact(names) {
		c.value(path+name, line, was[name], is[name])
	}
}

func (c *comparison) list(path string, was, is []any) {
	for i := range max(len(was), len(is)) {
		var a, b any
		if i < len(was) {
			a = was[i]
		}
		if i < len(is) {
			b = is[i]
		}
		c.value(path, i+1, a, b)
	}
}

func leafText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(b)
}

// maxDigits is how long a number may be to be understood; a longer one is compared as it is written.
const maxDigits = 60

func sameNumber(was, is any) bool {
	a, aOK := was.(json.Number)
	b, bOK := is.(json.Number)
	if !aOK || !bOK || len(a) > maxDigits || len(b) > maxDigits {
		return false
	}
	x, _, errX := big.ParseFloat(a.String(), 10, 256, big.ToNearestEven) // exact enough for 60 digits, and no exponent makes it large
	y, _, errY := big.ParseFloat(b.String(), 10, 256, big.ToNearestEven)
	return errX == nil && errY == nil && x.Cmp(y) == 0
}

// Paths names the fields that differ, each once.
func Paths(all []Difference) []string {
	var paths []string
	for _, d := range all {
		if !slices.Contains(paths, d.Path) {
			paths = append(paths, d.Path)
		}
	}
	return paths
}
