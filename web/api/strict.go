package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
)

// checkNames refuses what encoding/json passes over: a field that is there twice, of which two readers may take different
// ones, a name in other letters than the document's, and null, which would count as left out. What is no JSON is left to decode.
func checkNames(body []byte, t reflect.Type) error {
	n := names{json.NewDecoder(bytes.NewReader(body)), map[string]bool{}}
	n.d.UseNumber()
	n.collect(t)
	return n.value()
}

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

// value reads one, and is nil about what cannot be read.
func (n names) value() error {
	token, err := n.d.Token()
	if err != nil {
		return nil
	}
	switch token {
	case nil:
		return problem(http.StatusBadRequest, "the body has null: leave the field out")
	case json.Delim('['):
		for n.d.More() {
			if err := n.value(); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		seen := map[string]bool{}
		for n.d.More() {
			token, err := n.d.Token()
			name, ok := token.(string)
			switch {
			case err != nil || !ok:
				return nil
			case seen[name]:
				return problem(http.StatusBadRequest, "the body has "+short(name)+" more than once")
			case !n.known[name]:
				return problem(http.StatusBadRequest, "the body has "+short(name)+", which is not known here")
			}
			seen[name] = true
			if err := n.value(); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	_, _ = n.d.Token() // the end of it; decode says what is wrong with another
	return nil
}
