package salesforce

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
)

// sobject is what describe says of an object type: only what the user may see.
type sobject struct {
	Name   string `json:"name"`
	fields map[string]field
	// parents and children are keyed by relationship name; the value is the other object's name.
	parents, children map[string]string
	links             map[string]string // by the name of a list: the field of its rows that refers to the record
	read              time.Time
}

// field is one field of an object.
type field struct {
	Name             string   `json:"name"`
	Type             string   `json:"type"`
	Length           int      `json:"length"`
	Updateable       bool     `json:"updateable"`
	Createable       bool     `json:"createable"`
	Unique           bool     `json:"unique"`
	ExternalID       bool     `json:"externalId"`
	RelationshipName string   `json:"relationshipName"`
	ReferenceTo      []string `json:"referenceTo"`
	// Restricted is set for a picklist that refuses other values than its own.
	Restricted bool        `json:"restrictedPicklist"`
	Values     []pickValue `json:"picklistValues"`
	// Rich is set for text that Salesforce keeps as HTML.
	Rich bool `json:"htmlFormatted"`
}

// pickValue is a value of a picklist. Value is its API name, which is what records hold and queries compare.
type pickValue struct {
	Value  string `json:"value"`
	Label  string `json:"label"`
	Active bool   `json:"active"`
}

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,79}$`)

// describe asks for an object type.
func (c *Connector) describe(ctx context.Context, name string) (*sobject, error) {
	r, err := c.call(ctx, http.MethodGet, c.wire.path("sobjects/"+name+"/describe"), nil, nil)
	if hasCode(err, "NOT_FOUND", "INVALID_TYPE") {
		return nil, refuse("object %s does not exist or is hidden from the integration user", name)
	}
	if err != nil {
		return nil, err
	}
	return parseDescribe(r.body)
}

func parseDescribe(body []byte) (*sobject, error) {
	var said struct {
		Name     string  `json:"name"`
		Fields   []field `json:"fields"`
		Children []struct {
			Object           string `json:"childSObject"`
			Field            string `json:"field"`
			RelationshipName string `json:"relationshipName"`
		} `json:"childRelationships"`
	}
	if err := json.Unmarshal(body, &said); err != nil || !nameForm.MatchString(said.Name) {
		return nil, malformed("it is no description of an object")
	}
	o := &sobject{Name: said.Name, fields: map[string]field{}, parents: map[string]string{}, children: map[string]string{}, links: map[string]string{}}
	for _, f := range said.Fields {
		o.fields[f.Name] = f
		if f.RelationshipName != "" && len(f.ReferenceTo) > 0 && nameForm.MatchString(f.ReferenceTo[0]) {
			o.parents[f.RelationshipName] = f.ReferenceTo[0]
		}
	}
	for _, r := range said.Children {
		if r.RelationshipName != "" && nameForm.MatchString(r.Object) {
			o.children[r.RelationshipName], o.links[r.RelationshipName] = r.Object, r.Field
		}
	}
	return o, nil
}

// freshEnough is how old a description may be when a name is not found in it: an administrator who has just added the
// field need not restart the daemon.
const freshEnough = time.Minute

// schema remembers descriptions. Everything that becomes part of a query is looked up here first.
type schema struct {
	describe func(ctx context.Context, name string) (*sobject, error)
	now      func() time.Time

	mu      sync.Mutex
	objects map[string]*sobject
}

func newSchema(describe func(context.Context, string) (*sobject, error), now func() time.Time) *schema {
	return &schema{describe: describe, now: now, objects: map[string]*sobject{}}
}

// object returns a description that has what the caller looks for, reading it again if it is not there and not fresh.
func (s *schema) object(ctx context.Context, name string, has func(*sobject) bool) (*sobject, error) {
	s.mu.Lock()
	o := s.objects[name]
	s.mu.Unlock()
	if o != nil && (has(o) || s.now().Sub(o.read) < freshEnough) {
		return o, nil
	}
	// Two callers may both ask; the answers are the same.
	o, err := s.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	o.read = s.now()
	s.mu.Lock()
	s.objects[name] = o
	s.mu.Unlock()
	return o, nil
}

// field returns a field of an object.
func (s *schema) field(ctx context.Context, objectName, name string) (field, error) {
	return s.fieldThat(ctx, objectName, name, func(field) bool { return true })
}

// fieldThat returns a field of an object, if possible one that fits.
func (s *schema) fieldThat(ctx context.Context, objectName, name string, fits func(field) bool) (field, error) {
	o, err := s.object(ctx, objectName, func(o *sobject) bool { f, ok := o.fields[name]; return ok && fits(f) })
	if err != nil {
		return field{}, err
	}
	f, ok := o.fields[name]
	if !ok {
		return field{}, refuse("%s has no field %q that the integration user can see%s", o.Name, name, o.suggest(name))
	}
	return f, nil
}

// suggest finds fields with a similar name. Names are case-sensitive here because they are keys of the record.
func (o *sobject) suggest(name string) string {
	if s := connectors.Suggest(name, slices.Collect(maps.Keys(o.fields))); s != "" {
		return ": " + s
	}
	return ""
}

// relationship returns the object behind a name that stands before a dot: a parent such as Account, or a list such as
// OpportunityLineItems. Both are empty when there is none.
func (s *schema) relationship(ctx context.Context, objectName, name string) (parent, list string, err error) {
	o, err := s.object(ctx, objectName, func(o *sobject) bool { return o.parents[name] != "" || o.children[name] != "" })
	if err != nil {
		return "", "", err
	}
	return o.parents[name], o.children[name], nil
}

// anything is for callers that take a description as it is remembered.
func anything(*sobject) bool { return true }
