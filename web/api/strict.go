package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
)

// checkNames refuses what encoding/json passes over: a field that is there twice, of which two readers may take different
// ones, a name in other letters than the document's, and null, which would count as left out. What is no JSON is left to decode.
func checkNames(body []byte, t reflect.Type) error {
	n := names{d: json.NewDecoder(bytes.NewReader(body)), known: map[string]bool{}}
	n.d.UseNumber()
	n.collect(t)
	if err := n.value(deepest); !errors.Is(err, errNoJSON) {
		return err
	}
	return nil
}

// errNoJSON ends the reading: a decoder that has failed says for ever that there is more.
var errNoJSON = errors.New("this is no JSON")

// deepest is how far values may be inside each other, which is more than any body here needs.
const deepest = 16

type names struct {
	d     *json.Decoder
	known map[string]bool
}

// collect takes in those of a type and of what is in it.
func (n names) collect(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		n.collect(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				n.known[name] = true
			}
			n.collect(f.Type)
		}
	}
}

// value reads one, which may have others inside it, so deep at most.
func (n names) value(depth int) error {
	token, err := n.d.Token()
	if err != nil {
		return errNoJSON
	}
	open, nested := token.(json.Delim)
	switch {
	case token == nil:
		return problem(http.StatusBadRequest, "the body has null: leave the field out")
	case !nested:
		return nil
	case depth == 0:
		return problem(http.StatusBadRequest, "the body has values too far inside each other")
	}
	seen := map[string]bool{}
	for n.d.More() {
		if open == '{' {
			if err := n.name(seen); err != nil {
				return err
			}
		}
		if err := n.value(depth - 1); err != nil {
			return err
		}
	}
	if _, err := n.d.Token(); err != nil { // the end of it
		return errNoJSON
	}
	return nil
}

// name reads that of a field.
func (n names) name(seen map[string]bool) error {
	token, err := n.d.Token()
	name, ok := token.(string)
	switch {
	case err != nil || !ok:
		return errNoJSON
	case seen[name]:
		return problem(http.StatusBadRequest, "the body has "+short(name)+" more than once")
	case !n.known[name]:
		return problem(http.StatusBadRequest, "the body has "+short(name)+", which is not known here")
	}
	seen[name] = true
	return nil
}
