package hubspot

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// associationSpec is an association type as clients write it.
type associationSpec struct {
	Category string `json:"associationCategory"`
	TypeID   int    `json:"associationTypeId"`
}

// associationOfCreate is an association in the body that makes a record.
type associationOfCreate struct {
	To    struct{ ID json.Number } `json:"to"`
	Types []associationSpec        `json:"types"`
}

type checkedLink struct {
	to    *record
	types []assocType
}

// checkLinks resolves the associations of a new record, whose types say what is
// at the other end.
func (p *Portal) checkLinks(from *objectType, wanted []associationOfCreate) ([]checkedLink, *reply) {
	var out []checkedLink
	for _, w := range wanted {
		if len(w.Types) == 0 {
			return nil, invalid("Invalid input JSON: an association has no types.")
		}
		var l checkedLink
		for _, spec := range w.Types {
			t, ok := p.typeOf(from, spec)
			if !ok {
				return nil, invalid("One or more association types specified do not exist: %s %d", spec.Category, spec.TypeID)
			}
			id, _ := parseID(w.To.ID.String())
			if l.to = p.objects[t.to].find(id, true, false); l.to == nil {
				return nil, notFound(w.To.ID.String())
			}
			l.types = append(l.types, t)
		}
		out = append(out, l)
	}
	return out, nil
}

func (p *Portal) typeOf(from *objectType, spec associationSpec) (assocType, bool) {
	for _, t := range p.labels {
		if t.from == from.plural && t.Category == spec.Category && t.TypeID == spec.TypeID {
			return t, true
		}
	}
	return assocType{}, false
}

// specs checks the types of a labelled association.
func (p *Portal) specs(from, to *objectType, wanted []associationSpec) ([]assocType, *reply) {
	var out []assocType
	for _, spec := range wanted {
		t, ok := p.typeOf(from, spec)
		if !ok || t.to != to.plural {
			return nil, invalid("One or more association types specified do not exist: %s %d", spec.Category, spec.TypeID)
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, invalid("Invalid input JSON: no association types.")
	}
	// Every association has the one without a label beside the labelled ones.
	if d, ok := p.defaultType(from, to); ok && !slices.Contains(out, d) {
		out = append(out, d)
	}
	return out, nil
}

// maxAssociations is the size of a page of associations.
const maxAssociations = 500

// addAssociations puts what ?associations= asks for into a record's view.
func (c *call) addAssociations(out map[string]any, r *record) *reply {
	all := map[string]any{}
	for _, name := range c.params("associations") {
		to := c.p.objects[name]
		if to == nil {
			return invalid("Unable to infer object type from: %s", name)
		}
		links := c.p.linked(r.end(), to)
		if len(links) == 0 {
			continue
		}
		results := []any{}
		for _, l := range links[:min(len(links), maxAssociations)] {
			for _, t := range l.types {
				results = append(results, map[string]any{"id": formatID(l.to.id), "type": t.legacyName()})
			}
		}
		page := map[string]any{"results": results}
		if len(links) > maxAssociations {
			after := formatID(links[maxAssociations-1].to.id)
			page["paging"] = map[string]any{"next": map[string]any{
				"after": after,
				"link":  c.baseURL() + "/crm/v4/objects/" + r.typ.plural + "/" + formatID(r.id) + "/associations/" + to.plural + "?after=" + after,
			}}
		}
		all[strings.ReplaceAll(to.plural, "_", " ")] = page // HubSpot's key of line_items has a space
	}
	if len(all) > 0 {
		out["associations"] = all
	}
	return nil
}

// legacyName is the type's name in the older form of associations.
func (t assocType) legacyName() string {
	name := singular(t.from) + "_to_" + singular(t.to)
	switch {
	case t.Category == "USER_DEFINED":
		name += "_" + strings.ReplaceAll(strings.ToLower(t.Label), " ", "_")
	case slices.Contains([]int{279, 280, 341, 342}, t.TypeID):
		name += "_unlabeled" // the bare name is that of the primary company
	}
	return name
}

func singular(plural string) string {
	if stem, ok := strings.CutSuffix(plural, "ies"); ok {
		return stem + "y"
	}
	return strings.TrimSuffix(plural, "s")
}

func (c *call) listAssociations() *reply {
	r, to, bad := c.associationEnds()
	if bad != nil {
		return bad
	}
	limit, after, bad := c.page(maxAssociations, maxAssociations)
	if bad != nil {
		return bad
	}
	links := c.p.linked(r.end(), to)
	slices.SortFunc(links, func(a, b *link) int { return int(a.to.id - b.to.id) })
	results := []any{}
	for _, l := range links {
		if l.to.id <= after {
			continue
		}
		if len(results) == limit {
			return respond(200, map[string]any{"results": results, "paging": c.next(formatID(after))})
		}
		results = append(results, l.view())
		after = l.to.id
	}
	return respond(200, map[string]any{"results": results})
}

func (l *link) view() map[string]any {
	types := make([]any, 0, len(l.types))
	for _, t := range l.types {
		types = append(types, map[string]any{"category": t.Category, "typeId": t.TypeID, "label": orNull(t.Label)})
	}
	return map[string]any{"toObjectId": l.to.id, "associationTypes": types}
}

// associationEnds finds the record in the path and the type at the other end.
func (c *call) associationEnds() (*record, *objectType, *reply) {
	from, bad := c.objectType("type")
	if bad != nil {
		return nil, nil, bad
	}
	to, bad := c.objectType("to")
	if bad != nil {
		return nil, nil, bad
	}
	r, bad := c.addressed(from, false)
	return r, to, bad
}

// associationPair also finds the record at the other end.
func (c *call) associationPair() (from, to *record, bad *reply) {
	from, typ, bad := c.associationEnds()
	if bad != nil {
		return nil, nil, bad
	}
	id, _ := parseID(c.r.PathValue("toID"))
	if to = typ.find(id, true, false); to == nil {
		return nil, nil, notFound(c.r.PathValue("toID"))
	}
	return from, to, nil
}

func (c *call) associateByDefault() *reply {
	from, to, bad := c.associationPair()
	if bad != nil {
		return bad
	}
	t, ok := c.p.defaultType(from.typ, to.typ)
	if !ok {
		return invalid("No default association type exists from %s to %s.", from.typ.plural, to.typ.plural)
	}
	c.p.associate(from, to, []assocType{t}, c.p.now())
	b := c.newBatch()
	b.results = append(b.results, defaultResult(from, to, t), defaultResult(to, from, assocType{associationType: associationType{t.Category, t.inverse, ""}}))
	return b.reply(c, http.StatusOK)
}

func defaultResult(from, to *record, t assocType) map[string]any {
	return map[string]any{
		"from":            map[string]any{"id": formatID(from.id)},
		"to":              map[string]any{"id": formatID(to.id)},
		"associationSpec": associationSpec{t.Category, t.TypeID},
	}
}

func (c *call) associateLabelled() *reply {
	from, to, bad := c.associationPair()
	if bad != nil {
		return bad
	}
	var in []associationSpec
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	types, bad := c.p.specs(from.typ, to.typ, in)
	if bad != nil {
		return bad
	}
	c.p.associate(from, to, types, c.p.now())
	return respond(http.StatusCreated, labelsResult(from, to, types))
}

func labelsResult(from, to *record, types []assocType) map[string]any {
	labels := []string{}
	for _, t := range types {
		if t.Label != "" {
			labels = append(labels, t.Label)
		}
	}
	return map[string]any{
		"fromObjectTypeId": from.typ.id, "fromObjectId": from.id, "toObjectTypeId": to.typ.id, "toObjectId": to.id, "labels": labels,
	}
}

func (c *call) dissociate() *reply {
	from, to, bad := c.associationPair()
	if bad != nil {
		return bad
	}
	c.p.dissociate(from, to, c.p.now())
	return noContent()
}

// The sizes of batches of associations.
const (
	maxAssociationRead  = 1000
	maxAssociationWrite = 2000
)

// associationInput is one element of every batch of associations; To is an object
// or, in batch/archive, a list of them.
type associationInput struct {
	ID    json.Number              `json:"id"`
	After string                   `json:"after"`
	From  struct{ ID json.Number } `json:"from"`
	To    json.RawMessage          `json:"to"`
	Types []associationSpec        `json:"types"`
}

func (in associationInput) ends() []string {
	var one struct{ ID json.Number }
	if json.Unmarshal(in.To, &one) == nil {
		return []string{one.ID.String()}
	}
	var many []struct{ ID json.Number }
	if json.Unmarshal(in.To, &many) != nil {
		return nil
	}
	var out []string
	for _, m := range many {
		out = append(out, m.ID.String())
	}
	return out
}

func (c *call) decodeAssociations(largest int) (from, to *objectType, inputs []associationInput, bad *reply) {
	if from, bad = c.objectType("type"); bad != nil {
		return
	}
	if to, bad = c.objectType("to"); bad != nil {
		return
	}
	var in struct{ Inputs []associationInput }
	if bad = c.decode(&in); bad != nil {
		return
	}
	if len(in.Inputs) == 0 || len(in.Inputs) > largest {
		bad = invalid("A batch has 1 to %d inputs, this one has %d.", largest, len(in.Inputs))
	}
	return from, to, in.Inputs, bad
}

func (c *call) batchReadAssociations() *reply {
	from, to, inputs, bad := c.decodeAssociations(maxAssociationRead)
	if bad != nil {
		return bad
	}
	b := c.newBatch()
	for i, in := range inputs {
		text := in.ID.String()
		if c.struck(b, i, len(inputs), text) {
			continue
		}
		id, _ := parseID(text)
		links := c.p.linked(end{from, id}, to)
		if len(links) == 0 {
			b.errors = append(b.errors, map[string]any{
				"status": "error", "category": "OBJECT_NOT_FOUND", "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
				"message": "No " + to.singular + " is associated with " + from.singular + " " + text + ".",
				"context": map[string][]string{"fromObjectId": {text}, "fromObjectType": {from.plural}, "toObjectType": {to.plural}},
			})
			continue
		}
		views := []any{}
		for _, l := range links {
			views = append(views, l.view())
		}
		b.results = append(b.results, map[string]any{"from": map[string]any{"id": text}, "to": views})
	}
	return b.reply(c, http.StatusOK)
}

func (c *call) batchAssociate() *reply {
	from, to, inputs, bad := c.decodeAssociations(maxAssociationWrite)
	if bad != nil {
		return bad
	}
	byDefault := strings.HasSuffix(c.r.RequestURI, "/default")
	b := c.newBatch()
	for i, in := range inputs {
		types, bad := c.typesOf(from, to, in, byDefault)
		if bad != nil {
			return bad
		}
		x, y := c.pair(b, from, to, in, i, len(inputs))
		if x == nil {
			continue
		}
		c.p.associate(x, y, types, b.started)
		if byDefault {
			b.results = append(b.results, defaultResult(x, y, types[0]))
			continue
		}
		b.results = append(b.results, labelsResult(x, y, types))
	}
	if byDefault {
		return b.reply(c, http.StatusOK)
	}
	return b.reply(c, http.StatusCreated)
}

func (c *call) typesOf(from, to *objectType, in associationInput, byDefault bool) ([]assocType, *reply) {
	if !byDefault {
		return c.p.specs(from, to, in.Types)
	}
	t, ok := c.p.defaultType(from, to)
	if !ok {
		return nil, invalid("No default association type exists from %s to %s.", from.plural, to.plural)
	}
	return []assocType{t}, nil
}

// pair finds the two records of an input, or notes in b that they are not there.
func (c *call) pair(b *batch, from, to *objectType, in associationInput, i, inputs int) (x, y *record) {
	text, other := in.From.ID.String(), strings.Join(in.ends(), ",")
	if c.struck(b, i, inputs, text) {
		return nil, nil
	}
	if x = from.lookUp(text, ""); x == nil {
		b.missing(from, []string{text})
		return nil, nil
	}
	if y = to.lookUp(other, ""); y == nil {
		b.missing(to, []string{other})
		return nil, nil
	}
	return x, y
}

func (c *call) batchDissociate() *reply {
	from, to, inputs, bad := c.decodeAssociations(maxAssociationWrite)
	if bad != nil {
		return bad
	}
	now := c.p.now()
	for _, in := range inputs {
		x := from.lookUp(in.From.ID.String(), "")
		for _, id := range in.ends() {
			if y := to.lookUp(id, ""); x != nil && y != nil {
				c.p.dissociate(x, y, now)
			}
		}
	}
	return noContent()
}

func (c *call) listLabels() *reply {
	from, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	to, bad := c.objectType("to")
	if bad != nil {
		return bad
	}
	results := []any{}
	for _, t := range c.p.labels {
		if t.from == from.plural && t.to == to.plural {
			results = append(results, map[string]any{"category": t.Category, "typeId": t.TypeID, "label": orNull(t.Label)})
		}
	}
	return respond(200, map[string]any{"results": results})
}
