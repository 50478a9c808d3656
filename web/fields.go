package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
)

// maxFields is how many fields of a document are shown.
const maxFields = 2000

// fieldsView is the page with what went into a document. Whoever opens it is in the audit log.
type fieldsView struct {
	Tx, Who, FileName string
	Document, Record  []fieldView
	Differences       []differenceView
}

type differenceView struct{ Path, Was, Is string }

type fieldView struct{ Path, Text string }

func (s *server) fields(ctx context.Context, r *http.Request) (*frame, error) {
	tx, err := txOf(r)
	if err != nil {
		return nil, err
	}
	who, _ := reader(ctx)
	values, err := s.House.Values(ctx, tx, who.Who)
	if err != nil {
		return nil, noDeal(tx, err)
	}
	v := &fieldsView{Tx: string(tx), Who: who.Who, FileName: values.FileName}
	for _, part := range []struct {
		json json.RawMessage
		into *[]fieldView
	}{{values.Document, &v.Document}, {values.Record, &v.Record}} {
		if *part.into, err = flatten(part.json); err != nil {
			return nil, fmt.Errorf("fields of %s: %w", tx, err)
		}
	}
	for _, d := range values.Differences {
		path := d.Path
		if d.Line > 0 {
			path += ", line " + strconv.Itoa(d.Line)
		}
		v.Differences = append(v.Differences, differenceView{path, d.Was, d.Is})
	}
	return &frame{Title: "Fields of deal " + string(tx), Here: "deals", Fields: v}, nil
}

// flatten lists the leaves of a JSON document with their paths, in the order of the paths; list entries count from 1. At
// most maxFields are listed.
func flatten(text json.RawMessage) (list []fieldView, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something stands behind the document")
	}
	walk("", v, func(path, text string) bool {
		list = append(list, fieldView{path, text})
		return len(list) < maxFields
	})
	return list, nil
}

// walk calls leaf until it returns false, and reports whether it did not.
func walk(path string, v any, leaf func(path, text string) bool) bool {
	under := func(name string) string {
		if path == "" {
			return name
		}
		return path + "." + name
	}
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if !walk(under(name), v[name], leaf) {
				return false
			}
		}
		return true
	case []any:
		for i, e := range v {
			if !walk(under(strconv.Itoa(i+1)), e, leaf) {
				return false
			}
		}
		return true
	case nil:
		return leaf(path, "")
	}
	return leaf(path, fmt.Sprint(v))
}
