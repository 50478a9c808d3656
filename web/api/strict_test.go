package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzBodies holds that any bytes are read to an end, and that what is let through says the same to a reader who takes names to
// the letter as to encoding/json, which does not.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{`{"why":"x","failed":true}`, `{"why":"x","Why":"y"}`, `{"why":"x","why":"y"}`, `{"why":null}`, `[x`, `{"why":[1 2]}`, `{"why":"x"]`, `{"why":{"why":"x"}}`, `{"\u0077hy":"x"}`, `[[[[[[[[[[[[[[[[[[[[`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if checkNames(body, reflect.TypeFor[Redelivery]()) != nil || !json.Valid(body) {
			return
		}
		var loose Redelivery
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if d.Decode(&loose) != nil {
			return
		}
		var strict map[string]any
		if err := json.Unmarshal(body, &strict); err != nil {
			t.Fatalf("%s is no object: %v", body, err)
		}
		why, _ := strict["why"].(string)
		failed, _ := strict["failed"].(bool)
		if _, dated := strict["since"]; why != loose.Why || failed != loose.Failed || !dated && !loose.Since.IsZero() {
			t.Errorf("%s is read as %+v and as %v", body, loose, strict)
		}
	})
}
