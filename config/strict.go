package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Error is one thing that is wrong with a configuration file, where it stands and what would be right.
type Error struct {
	File string
	Line int
	Msg  string

	cause error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// Unwrap returns what the operating system said, if it did.
func (e *Error) Unwrap() error { return e.cause }

// Permanent: a wrong file stays wrong until someone edits it.
func (e *Error) Permanent() bool { return true }

// maxFile is the largest configuration file that is read.
const maxFile = 1 << 20

// parse reads exactly one YAML document.
func parse(file string, b []byte) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(b))
	if err != nil {
		return nil, &Error{File: file, Msg: err.Error()}
	}
	var doc, second yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) {
		return nil, &Error{File: file, Line: 1, Msg: "is empty"}
	} else if err != nil {
		return nil, syntaxError(file, err)
	}
	if err := loader.Load(&second); !errors.Is(err, io.EOF) {
		line := second.Line
		if err != nil {
			line = 0
		}
		return nil, &Error{File: file, Line: line, Msg: "holds a second document (---): one file is one document"}
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if root.Kind != yaml.MappingNode {
		return nil, &Error{File: file, Line: root.Line, Msg: "must be a mapping of keys to values"}
	}
	return root, nil
}

// syntaxError says where the text stops being YAML.
func syntaxError(file string, err error) error {
	var at *yaml.LoadError
	if !errors.As(err, &at) {
		return &Error{File: file, Msg: "is not YAML: " + err.Error()}
	}
	msg := "is not YAML: " + at.Message
	if strings.Contains(at.Message, "cannot start any token") {
		msg += " (indent with spaces, never with tabs; put quotes around text that begins with @, ` or %)"
	}
	return &Error{File: file, Line: at.Mark.Line, Msg: msg}
}

// Decode fills the struct that into points to from a YAML mapping and refuses what the struct does not know: unknown
// keys (with the nearest valid one), keys given twice, aliases and merge keys. All complaints are returned, joined.
func Decode(file string, node *yaml.Node, into any) error {
	v := reflect.ValueOf(into).Elem()
	if node.Kind == 0 {
		return nil // the key is absent
	}
	c := checker{file: file}
	c.check(node, v.Type(), "")
	if len(c.errs) > 0 {
		return errors.Join(c.errs...)
	}
	if err := node.Load(into, yaml.WithKnownFields()); err != nil {
		return &Error{File: file, Line: node.Line, Msg: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	return nil
}

type checker struct {
	file string
	errs []error
}

func (c *checker) fail(n *yaml.Node, format string, args ...any) {
	c.errs = append(c.errs, &Error{File: c.file, Line: n.Line, Msg: fmt.Sprintf(format, args...)})
}

var (
	nodeType = reflect.TypeFor[yaml.Node]()
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
	spanType = reflect.TypeFor[time.Duration]()
)

// days is how a duration of a day or more may begin: weeks and days, before what Go's notation knows.
var days = regexp.MustCompile(`^(?:(\d{1,4})w)?(?:(\d{1,5})d)?`)

// inHours returns a duration with its weeks and days as hours: 7d12h is 168h12h. It is false for one that has none. Days are of
// 24 hours, whatever the clocks of a country do.
func inHours(s string) (string, bool) {
	m := days.FindStringSubmatch(s)
	if m[0] == "" {
		return "", false
	}
	weeks, _ := strconv.Atoi(m[1])
	n, _ := strconv.Atoi(m[2])
	return strconv.Itoa((weeks*7+n)*24) + "h" + s[len(m[0]):], true
}

func (c *checker) check(n *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind == yaml.AliasNode {
		c.fail(n, "%s: aliases are not taken here: write the value out", path)
		return
	}
	switch {
	case t == nodeType || t.Kind() == reflect.Interface:
		c.checkAny(n, path)
	case reflect.PointerTo(t).Implements(textType):
		c.checkText(n, t, path)
	case t.Kind() == reflect.Struct:
		c.checkStruct(n, t, path)
	case t.Kind() == reflect.Map:
		for key, value := range c.pairs(n, path) {
			c.check(value, t.Elem(), join(path, key.Value))
		}
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			c.fail(n, "%s must be a list", path)
			return
		}
		for i, item := range n.Content {
			c.check(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	case n.Kind != yaml.ScalarNode:
		c.fail(n, "%s must be a single value", path)
	case t == spanType:
		if h, ok := inHours(n.Value); ok {
			n.Value = h
		}
		fallthrough
	default:
		if err := n.Load(reflect.New(t).Interface()); err != nil {
			c.fail(n, "%s must be %s", path, kindName(t))
		}
	}
}

func kindName(t reflect.Type) string {
	switch {
	case t == spanType:
		return "a duration such as 60s, 5m or 7d"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	}
	return "a " + t.Kind().String()
}

// checkAny looks only for what no part of a configuration may hold.
func (c *checker) checkAny(n *yaml.Node, path string) {
	switch n.Kind {
	case yaml.MappingNode:
		for key, value := range c.pairs(n, path) {
			c.checkAny(value, join(path, key.Value))
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			c.checkAny(item, fmt.Sprintf("%s[%d]", path, i))
		}
	case yaml.AliasNode:
		c.fail(n, "%s: aliases are not taken here: write the value out", path)
	}
}

// checkText lets the type itself judge. A refused secret is never quoted: the type's own error must not quote it either.
func (c *checker) checkText(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.ScalarNode {
		c.fail(n, "%s must be a single value", path)
		return
	}
	v := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	if err := v.UnmarshalText([]byte(n.Value)); err != nil {
		c.fail(n, "%s: %v", path, err)
	}
}

func (c *checker) checkStruct(n *yaml.Node, t reflect.Type, path string) {
	fields := map[string]reflect.Type{}
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			fields[name] = t.Field(i).Type
			names = append(names, name)
		}
	}
	for key, value := range c.pairs(n, path) {
		ft, ok := fields[key.Value]
		if !ok {
			c.fail(key, "unknown key %q%s", join(path, key.Value), Nearest(key.Value, names))
			continue
		}
		c.check(value, ft, join(path, key.Value))
	}
}

// pairs walks a mapping and complains of anything else.
func (c *checker) pairs(n *yaml.Node, path string) func(func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
			return
		}
		if n.Kind != yaml.MappingNode {
			c.fail(n, "%s must be a mapping of keys to values", path)
			return
		}
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Value == "<<" || key.Kind != yaml.ScalarNode {
				c.fail(key, "%s: merge keys and complex keys are not taken here", path)
				continue
			}
			if line, twice := seen[key.Value]; twice {
				c.fail(key, "key %q is given twice (first in line %d)", join(path, key.Value), line)
				continue
			}
			seen[key.Value] = key.Line
			if !yield(key, n.Content[i+1]) {
				return
			}
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Nearest proposes the valid key with the smallest edit distance, or lists the valid ones when none is close. It is empty
// when there is no valid key at all.
func Nearest(got string, names []string) string {
	best, distance := "", len(got)/2+1
	for _, name := range names {
		if d := editDistance(got, name); d < distance {
			best, distance = name, d
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return ": valid keys are " + strings.Join(names, ", ")
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
