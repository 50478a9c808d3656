package hubspot

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Version is one entry in the history of a property.
type Version struct {
	Value  string    `json:"value"`
	Time   time.Time `json:"time"` // UTC, milliseconds
	Source Source    `json:"source"`
}

// Source says who wrote a value.
type Source struct {
	Type   string `json:"type"`            // CRM_UI, INTEGRATION, IMPORT, BATCH_UPDATE, MERGE_OBJECTS, CALCULATED
	ID     string `json:"id,omitempty"`    // userId:12345 for people, the app's ID for apps
	Label  string `json:"label,omitempty"` // name of the app
	UserID int64  `json:"userId,omitempty"`
}

// inUI is the person who does what the control methods do.
func inUI() Source { return Source{Type: "CRM_UI", ID: "userId:12345", UserID: 12345} }

// record is one object: its properties are only their histories.
type record struct {
	typ              *objectType
	id               int64
	history          map[string][]Version // oldest first
	created, updated time.Time
	archived         bool
	archivedAt       time.Time
	unparsable       map[string]bool // properties whose newest time stamp is garbage on the wire
}

func (r *record) value(name string) string {
	h := r.history[name]
	if len(h) == 0 {
		return ""
	}
	return h[len(h)-1].Value
}

func (r *record) values() map[string]string {
	out := make(map[string]string, len(r.history))
	for name := range r.history {
		if v := r.value(name); v != "" {
			out[name] = v
		}
	}
	return out
}

// set appends to the history of a property unless the value is the same.
func (r *record) set(name, value string, at time.Time, by Source) bool {
	if value == r.value(name) {
		return false
	}
	r.history[name] = append(r.history[name], Version{Value: value, Time: at, Source: by})
	return true
}

// find returns the live or archived record of that ID. An ID that was merged away
// leads to the record that took over, if the caller says that it may.
func (t *objectType) find(id int64, throughMerges, archived bool) *record {
	for throughMerges {
		next, ok := t.merged[id]
		if !ok {
			break
		}
		id = next
	}
	r := t.records[id]
	if r == nil || r.archived != archived {
		return nil
	}
	return r
}

// findBy is find by the value of a property that is unique.
func (t *objectType) findBy(property, value string) *record {
	for _, id := range t.order {
		if r := t.records[id]; !r.archived && value != "" && strings.EqualFold(r.value(property), value) {
			return r
		}
	}
	return nil
}

// check validates a write as a whole; r is nil for a new record. It returns the
// values to store, or the answer that refuses the write.
func (p *Portal) check(t *objectType, r *record, props map[string]string, version string) (map[string]string, *reply) {
	if r == nil {
		r = &record{typ: t, history: map[string][]Version{}}
	}
	values := map[string]string{}
	var problems []problem
	for _, name := range slices.Sorted(maps.Keys(props)) {
		f, ok := t.property(name)
		if !ok {
			problems = append(problems, problem{name, "PROPERTY_DOESNT_EXIST", fmt.Sprintf("Property %q does not exist", name)})
			continue
		}
		if f.ReadOnly {
			problems = append(problems, problem{name, "READ_ONLY_VALUE", fmt.Sprintf("%q is a read only property; its value cannot be set.", name)})
			continue
		}
		v, bad := normalise(f, props[name], r.value(name))
		if bad != nil {
			problems = append(problems, *bad)
			continue
		}
		values[name] = v
	}
	problems = append(problems, p.checkStage(t, r, values)...)
	if len(problems) > 0 {
		return nil, p.valuesInvalid(problems)
	}
	if refused := p.checkUnique(t, r, values); refused != nil {
		return nil, refused
	}
	if refused := p.checkRequired(t, r, values, version); refused != nil {
		return nil, refused
	}
	return values, nil
}

// checkStage also gives a new deal its pipeline.
func (p *Portal) checkStage(t *objectType, r *record, values map[string]string) []problem {
	if t.plural != "deals" {
		return nil
	}
	if values["pipeline"] == "" && r.value("pipeline") == "" {
		values["pipeline"] = p.pipelines[0].ID
	}
	pipeline, ok := p.pipeline(orDefault(values["pipeline"], r.value("pipeline")))
	if !ok {
		return []problem{{"pipeline", "INVALID_OPTION", values["pipeline"] + " was not one of the allowed options"}}
	}
	stage := orDefault(values["dealstage"], r.value("dealstage"))
	if _, ok := pipeline.stage(stage); stage != "" && !ok {
		return []problem{{"dealstage", "INVALID_OPTION", stage + " was not one of the allowed options in pipeline " + pipeline.ID}}
	}
	return nil
}

func (p *Portal) checkUnique(t *objectType, r *record, values map[string]string) *reply {
	for name, v := range values {
		if f, _ := t.property(name); !f.HasUniqueValue || v == "" {
			continue
		}
		if other := t.findBy(name, v); other != nil && other.id != r.id {
			return fail(409, envelope{Message: fmt.Sprintf("%s already exists. Existing ID: %d", t.singular, other.id), Category: "CONFLICT"})
		}
	}
	return nil
}

// checkRequired applies the conditional required properties, which HubSpot
// enforces on API writes since 2026-09 only.
func (p *Portal) checkRequired(t *objectType, r *record, values map[string]string, version string) *reply {
	if !isDate(version) || version < "2026-09" {
		return nil
	}
	var problems []problem
	for _, rule := range p.rules {
		if p.objects[rule.Object] != t || !slices.Contains(rule.Values, values[rule.Property]) {
			continue
		}
		for _, name := range rule.Required {
			after, written := values[name]
			if !written {
				after = r.value(name)
			}
			if after == "" {
				problems = append(problems, problem{name, "REQUIRED_FIELD", fmt.Sprintf("%q is required when %q is %q.", name, rule.Property, values[rule.Property])})
			}
		}
	}
	if problems != nil {
		return p.valuesInvalid(problems)
	}
	return nil
}

// create stores a record whose values were checked.
func (p *Portal) create(t *objectType, values map[string]string, by Source, at time.Time) *record {
	t.nextID++
	r := &record{typ: t, id: t.nextID, history: map[string][]Version{}, created: at}
	t.records[r.id] = r
	t.order = append(t.order, r.id)
	r.set("hs_object_id", formatID(r.id), at, by)
	r.set(t.created, stamp(at), at, by)
	p.announce(r, "creation", "", "", by, at)
	p.apply(r, values, by, at)
	return r
}

// apply stores checked values, with what HubSpot calculates from them. The time
// of the last change moves even when every value was the same as before.
func (p *Portal) apply(r *record, values map[string]string, by Source, at time.Time) {
	for name, v := range values {
		before := r.value(name)
		if !r.set(name, v, at, by) {
			continue
		}
		p.announce(r, "propertyChange", name, v, by, at)
		if name == "dealstage" && r.typ.plural == "deals" {
			p.enteredStage(r, before, v, at)
		}
		if name == "hs_status" && r.typ.plural == "quotes" {
			p.enteredStatus(r, at)
		}
	}
	p.touch(r, at)
}

func (p *Portal) enteredStage(r *record, before, after string, at time.Time) {
	calculated := Source{Type: "CALCULATED"}
	if before != "" {
		r.set("hs_v2_date_exited_"+before, stamp(at), at, calculated)
	}
	r.set("hs_v2_date_entered_"+after, stamp(at), at, calculated)
	r.set("hs_v2_date_entered_current_stage", stamp(at), at, calculated)
	closed, won := "false", "false"
	for _, pipeline := range p.pipelines {
		if s, ok := pipeline.stage(after); ok && s.Closed {
			closed = "true"
			if s.Probability == "1.0" {
				won = "true"
			}
		}
	}
	r.set("hs_is_closed", closed, at, calculated)
	r.set("hs_is_closed_won", won, at, calculated)
}

// enteredStatus calculates what a quote takes from its records when its state is set: its amount and its owner.
func (p *Portal) enteredStatus(r *record, at time.Time) {
	calculated := Source{Type: "CALCULATED"}
	amount := new(big.Rat)
	for _, l := range p.linked(r.end(), p.objects["line_items"]) {
		if line, ok := new(big.Rat).SetString(l.to.typ.records[l.to.id].value("amount")); ok {
			amount.Add(amount, line)
		}
	}
	r.set("hs_quote_amount", amount.FloatString(2), at, calculated)
	owner := r.value("hs_quote_owner_id")
	for _, l := range p.linked(r.end(), p.objects["deals"]) {
		owner = orDefault(l.to.typ.records[l.to.id].value("hubspot_owner_id"), owner)
	}
	r.set("hubspot_owner_id", owner, at, calculated)
	r.set("hs_quote_number", at.Format("20060102-")+formatID(r.id), at, calculated)
}

// touch moves the time of the last change and tells the search index.
func (p *Portal) touch(r *record, at time.Time) {
	r.updated = at
	r.history[r.typ.modified] = []Version{{Value: stamp(at), Time: at, Source: Source{Type: "CALCULATED"}}}
	r.typ.index.enqueue(r, at, p.opt.IndexDelay)
}

func (p *Portal) archive(r *record, at time.Time) {
	r.archived, r.archivedAt = true, at
	p.touch(r, at)
}

// merge makes a new record out of two. It has the first one's values, the
// second's where the first has none, and the history of both. Neither old record
// is left, but their IDs lead to the new one in calls for a single record.
func (p *Portal) merge(first, second *record, by Source, at time.Time) *record {
	t := first.typ
	t.nextID++
	m := &record{typ: t, id: t.nextID, history: mergeHistories(first, second, at), created: first.created}
	if second.created.Before(m.created) {
		m.created = second.created
	}
	m.history["hs_object_id"] = []Version{{Value: formatID(m.id), Time: at, Source: by}}
	m.history[t.created] = []Version{{Value: stamp(m.created), Time: m.created, Source: by}}
	t.records[m.id] = m
	t.order = append(t.order, m.id)
	var old []string
	for _, r := range []*record{first, second} {
		if ids := r.value("hs_merged_object_ids"); ids != "" {
			old = append(old, strings.Split(ids, ";")...)
		}
		old = append(old, formatID(r.id))
		t.merged[r.id] = m.id
		p.archive(r, at)
		p.moveAssociations(r, m)
	}
	m.history["hs_merged_object_ids"] = []Version{{Value: strings.Join(old, ";"), Time: at, Source: by}}
	p.touch(m, at)
	return m
}

func mergeHistories(first, second *record, at time.Time) map[string][]Version {
	out := map[string][]Version{}
	for name, h := range first.history {
		out[name] = slices.Clone(h)
	}
	for name, h := range second.history {
		all := append(out[name], h...)
		slices.SortStableFunc(all, func(a, b Version) int { return a.Time.Compare(b.Time) })
		winner := orDefault(first.value(name), second.value(name))
		if all[len(all)-1].Value != winner {
			all = append(all, Version{Value: winner, Time: at, Source: Source{Type: "MERGE_OBJECTS"}})
		}
		out[name] = all
	}
	return out
}
