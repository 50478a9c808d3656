package documents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// noLoader keeps schemas inside their bundle: nothing is fetched.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("refers to %s, but a schema must stand on its own", url)
}

func compileSchema(name string, files map[string][]byte) (*jsonschema.Schema, error) {
	fault := func(err error) error { return &BundleError{File: name, Reason: err.Error()} }
	text, ok := files[name]
	if !ok {
		return nil, fault(errors.New("is named by template.yaml as the schema but is missing"))
	}
	doc, err := decodeJSON(text)
	if err != nil {
		return nil, fault(err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	c.AssertFormat()
	// The URL only names the resource; it is never resolved.
	const url = "bundle:///schema.json"
	if err := c.AddResource(url, doc); err != nil {
		return nil, fault(err)
	}
	s, err := c.Compile(url)
	if err != nil {
		return nil, fault(err)
	}
	return s, nil
}

// decodeJSON reads one JSON value, numbers kept as written.
func decodeJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, jsonError(text, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("holds more than one JSON value")
	}
	return v, nil
}

// jsonError says where, and never quotes what stands there.
func jsonError(text []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return errors.New("is not complete JSON")
	}
	at := min(max(int(syntax.Offset)-1, 0), len(text))
	line := 1 + bytes.Count(text[:at], []byte("\n"))
	column := at - bytes.LastIndexByte(text[:at], '\n')
	return fmt.Errorf("is not JSON: fault at line %d, column %d", line, column)
}

// checkSchema validates a decoded record. Blank texts count as absent, so that "required" means what a reader of the
// contract expects. origins maps record fields to CRM paths; it may be nil.
func (b *Bundle) checkSchema(record any, origins func(field string) string) error {
	err := b.schema.Validate(withoutBlanks(record))
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("check the record against %s: %w", b.Schema, err)
	}
	faults := leaves(invalid, nil)
	slices.SortStableFunc(faults, func(x, y fault) int { return strings.Compare(x.field, y.field) })
	first := faults[0]
	fe := &FieldError{Field: first.field, Problem: first.problem}
	if origins != nil {
		fe.Source = origins(first.field)
	}
	for _, f := range faults[1:] {
		if f.field != first.field && len(fe.Others) < 20 {
			fe.Others = append(fe.Others, fmt.Sprintf("%q %s", f.field, f.problem))
		}
	}
	fe.Others = slices.Compact(fe.Others)
	return fe
}

type fault struct{ field, problem string }

// leaves collects the innermost errors: the ones that name a field.
func leaves(e *jsonschema.ValidationError, to []fault) []fault {
	if len(e.Causes) > 0 {
		for _, c := range e.Causes {
			to = leaves(c, to)
		}
		return to
	}
	at := strings.Join(e.InstanceLocation, ".")
	if at == "" {
		at = wholeRecord
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			to = append(to, fault{join(at, name), "is missing or blank"})
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			to = append(to, fault{join(at, name), "is not in the template's schema"})
		}
	default:
		to = append(to, fault{at, problem(e.ErrorKind)})
	}
	return to
}

// problem words a fault without the value: the library's own messages quote it.
func problem(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be of type " + strings.Join(k.Want, " or ")
	case *kind.Enum, *kind.Const:
		return "is not one of the values that the template accepts"
	case *kind.Pattern:
		return "does not match the pattern " + k.Want
	case *kind.Format:
		return "is not a valid " + k.Want
	case *kind.MinLength:
		return fmt.Sprintf("is shorter than %d characters", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("is longer than %d characters", k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("has fewer than %d entries", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("has more than %d entries", k.Want)
	}
	return fmt.Sprintf("does not satisfy %q of the template's schema", strings.Join(k.KeywordPath(), "/"))
}

// wholeRecord names a fault that is not in one field.
const wholeRecord = "(record)"

func join(parent, name string) string {
	if parent == "" || parent == wholeRecord {
		return name
	}
	return parent + "." + name
}

// withoutBlanks returns v without object members that are null or hold only white space.
func withoutBlanks(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			if s, ok := e.(string); e == nil || ok && isBlank(s) {
				continue
			}
			out[k] = withoutBlanks(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = withoutBlanks(e)
		}
		return out
	}
	return v
}
