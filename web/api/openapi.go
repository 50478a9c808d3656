package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// anything is an answer that is an object of its own kind.
type anything struct{}

// object is a part of the document.
type object = map[string]any

// describer writes the OpenAPI document of a table of routes.
type describer struct{ schemas object }

// describe returns the OpenAPI 3.1 document. It is made of the types that are answered with, so that it cannot say anything
// else; a test looks at each answer all the same.
func describe(routes []route, version string) []byte {
	d := describer{schemas: object{}}
	d.schema(reflect.TypeFor[Problem]())
	paths := object{}
	for _, rt := range routes {
		path := strings.ReplaceAll(rt.path, "...}", "}")
		operations, ok := paths[path].(object)
		if !ok {
			operations = object{}
			paths[path] = operations
		}
		operations[strings.ToLower(rt.method)] = d.operation(rt)
	}
	text, err := json.Marshal(object{
		"openapi": "3.1.0",
		"info": object{"title": "dealseal", "version": version, "license": object{"name": "see LICENSE"},
			"description": "Deals that become sealed contracts. Every answer of an error is problem+json (RFC 9457); requests are limited per token and per address, as the RateLimit headers say."},
		"paths":    paths,
		"security": []any{object{"token": []any{}}, object{"certificate": []any{}}},
		"components": object{
			"schemas": d.schemas,
			"securitySchemes": object{
				"token":       object{"type": "http", "scheme": "bearer", "description": "ds_live_… or ds_test_…, made by \"dealseal tokens create\""},
				"certificate": object{"type": "mutualTLS", "description": "a client certificate that \"dealseal tokens create --certificate\" has entered"},
			},
		},
	})
	if err != nil {
		panic(err) // maps, lists and strings
	}
	return text
}

var pathParam = regexp.MustCompile(`\{(\w+)(?:\.\.\.)?\}`)

func (d *describer) operation(rt route) object {
	o := object{"summary": rt.summary, "operationId": operationID(rt), "responses": d.responses(rt)}
	if rt.may == anyone {
		o["security"] = []any{}
	} else {
		o["description"] = "For tokens that may " + string(rt.may) + ": " + strings.Join(rolesWith(rt.may), ", ") + "."
	}
	params := []any{}
	for _, m := range pathParam.FindAllStringSubmatch(rt.path, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range rt.params {
		schema := object{"type": "string", "minLength": 1}
		if p.most > 0 {
			schema["maxLength"] = p.most
		}
		if p.pattern != "" {
			schema["pattern"] = p.pattern
		}
		if p.one != nil {
			schema["enum"] = p.one
		}
		if p.format != "" {
			schema["format"] = p.format
		}
		if p.name == "limit" {
			schema = object{"type": "integer", "minimum": 1, "maximum": mostRows}
		}
		params = append(params, object{"name": p.name, "in": "query", "description": p.doc, "schema": schema})
	}
	if h := rt.header; h != nil {
		params = append(params, object{"name": h.name, "in": "header", "required": true, "description": h.doc, "schema": object{"type": "string", "minLength": 1, "maxLength": longestKey, "pattern": h.pattern}})
	}
	if len(params) > 0 {
		o["parameters"] = params
	}
	if rt.takes != nil {
		o["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(rt.takes))}}}
	}
	return o
}

// operationID is the summary's place in programs: get_v1_deals_tx.
func operationID(rt route) string {
	return strings.ToLower(rt.method) + strings.NewReplacer("/", "_", "{", "", "}", "", "...", "", ".", "_").Replace(rt.path)
}

func rolesWith(p permission) (roles []string) {
	for _, r := range deal.TokenRoles {
		if may(r, p) {
			roles = append(roles, string(r))
		}
	}
	slices.Sort(roles)
	return roles
}

// statuses are all that a route answers with.
func (rt route) statuses() []int {
	all := append([]int{rt.status, http.StatusBadRequest, http.StatusTooManyRequests}, rt.fails...)
	if rt.may != anyone {
		all = append(all, http.StatusUnauthorized, http.StatusInternalServerError, http.StatusServiceUnavailable)
	}
	// Other sites may have browsers read what is no secret to them, and every role may see.
	if rt.method != http.MethodGet || rt.may != anyone && rt.may != see {
		all = append(all, http.StatusForbidden)
	}
	if rt.takes != nil {
		all = append(all, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (d *describer) responses(rt route) object {
	out := object{}
	headers := object{}
	for _, name := range []string{"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} {
		headers[name] = object{"schema": object{"type": "integer"}}
	}
	for _, status := range rt.statuses() {
		answer := object{"description": http.StatusText(status), "content": object{"application/problem+json": object{"schema": ref("Problem")}}}
		if status == rt.status {
			content := object{}
			for _, media := range rt.file {
				content[media] = object{}
			}
			if rt.gives != nil {
				content["application/json"] = object{"schema": d.schema(reflect.TypeOf(rt.gives))}
			}
			answer["content"] = content
			if rt.may != anyone {
				answer["headers"] = headers
			}
		}
		out[strconv.Itoa(status)] = answer
	}
	return out
}

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// schema is that of a type; structs are put among the components.
func (d *describer) schema(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return object{}
	case t == reflect.TypeFor[anything]():
		return object{"type": "object"}
	}
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Struct:
		return d.structure(t)
	}
	panic("no schema for " + t.String()) // a test makes the document
}

func (d *describer) structure(t reflect.Type) object {
	if _, known := d.schemas[t.Name()]; known {
		return ref(t.Name())
	}
	d.schemas[t.Name()] = object{} // while it is under way
	properties, required := object{}, []string{}
	d.fields(t, properties, &required)
	s := object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	if n, ok := reflect.Zero(t).Interface().(narrower); ok {
		n.narrow(s)
	}
	d.schemas[t.Name()] = s
	return ref(t.Name())
}

// narrower is a body of which more can be said than what its fields are.
type narrower interface{ narrow(schema object) }

// fields adds those of a struct and of what it embeds.
func (d *describer) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			d.fields(f.Type, properties, required)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		schema := d.schema(f.Type)
		if doc := f.Tag.Get("doc"); doc != "" {
			schema["description"] = doc
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			schema["enum"] = strings.Split(enum, ",")
		}
		narrowText(schema, f)
		properties[name] = schema
		if options == "" {
			*required = append(*required, name)
		}
	}
}

// narrowText says of a text how long it must be at least and at most, in characters, and how it must look.
func narrowText(schema object, f reflect.StructField) {
	for tag, keyword := range map[string]string{"least": "minLength", "most": "maxLength"} {
		if text, ok := f.Tag.Lookup(tag); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				panic(err) // a test makes the document
			}
			schema[keyword] = n
		}
	}
	if pattern, ok := f.Tag.Lookup("pattern"); ok {
		schema["pattern"] = pattern
	}
}
