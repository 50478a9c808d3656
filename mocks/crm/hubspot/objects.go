package hubspot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// shown is which properties an answer has: those asked for, or the type's own.
func (t *objectType) shown(asked []string) []string {
	if len(asked) == 0 {
		return t.defaults
	}
	return append(slices.Clone(asked), t.created, t.modified, "hs_object_id")
}

func orNull(v string) any {
	if v == "" {
		return nil
	}
	return v
}

func (p *Portal) recordURL(t *objectType, id int64) string {
	return fmt.Sprintf("https://%s/contacts/%d/record/%s/%d", p.opt.UIDomain, p.opt.PortalID, t.id, id)
}

// view is a record as the API shows it. Properties that do not exist are left out
// in silence; those that exist and are empty are null.
func (p *Portal) view(r *record, properties, withHistory []string) map[string]any {
	props := map[string]any{}
	for _, name := range r.typ.shown(properties) {
		if _, ok := r.typ.property(name); ok {
			props[name] = orNull(r.value(name))
		}
	}
	out := map[string]any{
		"id": formatID(r.id), "properties": props, "createdAt": stamp(r.created), "updatedAt": stamp(r.updated),
		"archived": r.archived, "url": p.recordURL(r.typ, r.id),
	}
	if r.archived {
		out["archivedAt"] = stamp(r.archivedAt)
	}
	if len(withHistory) > 0 {
		histories := map[string]any{}
		for _, name := range withHistory {
			if _, ok := r.typ.property(name); ok {
				histories[name] = r.historyView(name)
				props[name] = orNull(r.value(name))
			}
		}
		out["propertiesWithHistory"] = histories
	}
	return out
}

// historyView lists the versions of a property, newest first.
func (r *record) historyView(name string) []any {
	h := r.history[name]
	out := make([]any, 0, len(h))
	for i, v := range slices.Backward(h) {
		e := map[string]any{"value": v.Value, "timestamp": stamp(v.Time), "sourceType": v.Source.Type}
		if i == len(h)-1 && r.unparsable[name] {
			e["timestamp"] = "the day before yesterday"
		}
		if v.Source.ID != "" {
			e["sourceId"] = v.Source.ID
		}
		if v.Source.Label != "" {
			e["sourceLabel"] = v.Source.Label
		}
		if v.Source.UserID != 0 {
			e["updatedByUserId"] = v.Source.UserID
		}
		out = append(out, e)
	}
	return out
}

// afterWrite is a record as a write answers it: the type's own properties and
// those that were written.
func (p *Portal) afterWrite(r *record, written map[string]string) map[string]any {
	names := slices.Clone(r.typ.defaults)
	for name := range written {
		names = append(names, name)
	}
	return p.view(r, names, nil)
}

// source is what the history shows as the writer of an API call.
func (c *call) source() Source {
	return Source{Type: "INTEGRATION", ID: c.token.app, Label: c.token.name}
}

// addressed finds the record in the path, by its ID, also by one that was merged
// away, or by a unique property.
func (c *call) addressed(t *objectType, archived bool) (*record, *reply) {
	text, by := c.r.PathValue("id"), c.param("idProperty")
	if by != "" && by != "hs_object_id" {
		if f, ok := t.property(by); !ok || !f.HasUniqueValue {
			return nil, invalid("%q is not a property with unique values.", by)
		}
		if r := t.findBy(by, text); r != nil {
			return r, nil
		}
		return nil, notFound(text)
	}
	id, ok := parseID(text)
	if !ok {
		return nil, notFound(text)
	}
	if r := t.find(id, true, archived); r != nil {
		return r, nil
	}
	return nil, notFound(text)
}

func (c *call) get() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	r, bad := c.addressed(t, c.param("archived") == "true")
	if bad != nil {
		return bad
	}
	out := c.p.view(r, c.params("properties"), c.params("propertiesWithHistory"))
	if bad := c.addAssociations(out, r); bad != nil {
		return bad
	}
	return respond(200, out)
}

// The sizes of a page of a list.
const (
	maxListPage    = 100
	maxHistoryPage = 50 // with propertiesWithHistory, also of a batch
)

func (c *call) list() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	properties, withHistory := c.params("properties"), c.params("propertiesWithHistory")
	largest := maxListPage
	if len(withHistory) > 0 {
		largest = maxHistoryPage
	}
	limit, after, bad := c.page(10, largest)
	if bad != nil {
		return bad
	}
	archived := c.param("archived") == "true"
	results := []any{}
	start, _ := slices.BinarySearch(t.order, after+1)
	for _, id := range t.order[start:] {
		r := t.find(id, false, archived)
		if r == nil || t.merged[id] != 0 {
			continue
		}
		if len(results) == limit {
			return respond(200, map[string]any{"results": results, "paging": c.next(formatID(after))})
		}
		out := c.p.view(r, properties, withHistory)
		if bad := c.addAssociations(out, r); bad != nil {
			return bad
		}
		results = append(results, out)
		after = id
	}
	return respond(200, map[string]any{"results": results})
}

// page reads limit and the ID after which the page begins.
func (c *call) page(byDefault, largest int) (limit int, after int64, bad *reply) {
	limit = byDefault
	if s := c.param("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > largest {
			return 0, 0, invalid("Invalid input: limit must be between 1 and %d.", largest)
		}
		limit = n
	}
	if s := c.param("after"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, invalid("Invalid input: after is not a cursor of this list.")
		}
		after = n
	}
	return limit, after, nil
}

func (c *call) next(after string) map[string]any {
	q := c.r.URL.Query()
	q.Set("after", after)
	return map[string]any{"next": map[string]any{"after": after, "link": c.baseURL() + c.r.RequestURI + "?" + q.Encode()}}
}

// objectInput is a record as clients write it.
type objectInput struct {
	ID           string                `json:"id"`
	IDProperty   string                `json:"idProperty"`
	Properties   map[string]anyString  `json:"properties"`
	Associations []associationOfCreate `json:"associations"`
	TraceID      string                `json:"objectWriteTraceId"`
}

// anyString is a property value: a string, though numbers, bools and null pass.
type anyString string

func (s *anyString) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && (b[0] == '{' || b[0] == '[') {
		return fmt.Errorf("a property value is a string, not %.20s", b)
	}
	return (*looseStr)(s).UnmarshalJSON(b)
}

func (in objectInput) values() map[string]string {
	out := make(map[string]string, len(in.Properties))
	for name, v := range in.Properties {
		out[name] = string(v)
	}
	return out
}

func (c *call) create() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	var in objectInput
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	r, values, bad := c.createOne(t, in)
	if bad != nil {
		return bad
	}
	return respond(201, c.p.afterWrite(r, values))
}

func (c *call) createOne(t *objectType, in objectInput) (*record, map[string]string, *reply) {
	values, bad := c.p.check(t, nil, in.values(), c.version)
	if bad == nil {
		bad = c.p.checkActivity(t, values)
	}
	if bad != nil {
		return nil, nil, bad
	}
	links, bad := c.p.checkLinks(t, in.Associations)
	if bad != nil {
		return nil, nil, bad
	}
	now := c.p.now()
	r := c.p.create(t, values, c.source(), now)
	for _, l := range links {
		c.p.associate(r, l.to, l.types, now)
	}
	return r, values, nil
}

// checkActivity is what notes and tasks need beyond other records.
func (p *Portal) checkActivity(t *objectType, values map[string]string) *reply {
	if t.plural != "notes" && t.plural != "tasks" {
		return nil
	}
	if values["hs_timestamp"] == "" {
		return fail(400, envelope{
			Message:  fmt.Sprintf("Error creating %s. Some required properties were not set.", t.singular),
			Category: "VALIDATION_ERROR",
			Errors: []detail{{
				Message: "hs_timestamp is required", Code: "REQUIRED_PROPERTIES_MISSING",
				Context: map[string][]string{"properties": {"hs_timestamp"}},
			}},
		})
	}
	return p.checkAttachments(values)
}

func (p *Portal) checkAttachments(values map[string]string) *reply {
	if !p.opt.StrictAttachments {
		return nil
	}
	for _, id := range splitIDs(values["hs_attachment_ids"]) {
		if f := p.files.byID[id]; f == nil || f.archived {
			return invalid("hs_attachment_ids names the file %s, which does not exist.", id)
		}
	}
	return nil
}

func (c *call) patch() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	r, bad := c.addressed(t, false)
	if bad != nil {
		return bad
	}
	var in objectInput
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	out, bad := c.update(r, in, c.p.now())
	if bad != nil {
		return bad
	}
	return respond(200, out)
}

// update writes to a record and returns what the API answers.
func (c *call) update(r *record, in objectInput, at time.Time) (map[string]any, *reply) {
	values, bad := c.p.check(r.typ, r, in.values(), c.version)
	if bad == nil {
		bad = c.p.checkAttachments(values)
	}
	if bad != nil {
		return nil, bad
	}
	c.p.apply(r, values, c.source(), at)
	return c.p.afterWrite(r, values), nil
}

func (c *call) delete() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	if id, ok := parseID(c.r.PathValue("id")); ok {
		if r := t.find(id, true, false); r != nil {
			c.p.archive(r, c.p.now())
		}
	}
	return noContent() // deleting twice is no error
}

func (c *call) merge() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	var in struct {
		Primary json.Number `json:"primaryObjectId"`
		Other   json.Number `json:"objectIdToMerge"`
	}
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	var found [2]*record
	for i, text := range []json.Number{in.Primary, in.Other} {
		id, _ := parseID(text.String())
		if found[i] = t.find(id, true, false); found[i] == nil {
			return notFound(text.String())
		}
	}
	if found[0] == found[1] {
		return invalid("A record cannot be merged with itself.")
	}
	return respond(200, c.p.view(c.p.merge(found[0], found[1], c.source(), c.p.now()), nil, nil))
}
