package hubspot

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// kind is an object whose stage changes can be watched (docs/objects.md).
type kind struct {
	name, one string // of the object in paths and rules, and of one record for people
	typeID    string
	stage     string // the property that rules watch
	pipelines bool   // its stages are those of pipelines; those of others are the options of the property
	movable   bool   // it is up to us to move one of its records to another stage
	parents   bool   // it belongs to a deal
	// note and task are the types of the associations from a note and a task; 0 where HubSpot publishes none: it is asked.
	note, task int
}

// Object is the object of rules that name none.
const Object = "deals"

// Quotes is the object whose status rules may watch beside the stage of deals.
const Quotes = "quotes"

var (
	deals  = kind{name: Object, one: "deal", typeID: "0-3", stage: "dealstage", pipelines: true, movable: true, note: noteToDeal, task: taskToDeal}
	quotes = kind{name: Quotes, one: "quote", typeID: "0-14", stage: "hs_status", parents: true}
)

// kinds are the objects in the order in which they are polled.
var kinds = []kind{deals, quotes}

// Objects are the names of the objects that rules may watch.
func Objects() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Movable reports whether rules may move records of an object to another stage, and name a pipeline. Moving a quote would
// publish or recall it, which is for people; its status belongs to no pipeline.
func Movable(object string) bool { return object == Object }

// kindsOf are the objects that a probe is about.
func kindsOf(p connectors.Probe) (its []kind) {
	for _, k := range kinds {
		if len(k.of(p.Watches)) > 0 || len(p.Watches) == 0 && k.name == Object {
			its = append(its, k)
		}
	}
	return its
}

// histories are the properties by which entries are judged.
func (k kind) histories() []string {
	if k.pipelines {
		return []string{k.stage, "pipeline"}
	}
	return []string{k.stage}
}

// always are the properties that are read with each record.
func (k kind) always() []string { return []string{k.stage, modifiedProperty, mergedProperty} }

// named tells an object where it is another than that of which everything is taken to be.
func (k kind) named() string {
	if k.name == Object {
		return ""
	}
	return " of " + k.name
}

// of are the watches of an object.
func (k kind) of(watches []deal.Watch) (its []deal.Watch) {
	for _, w := range watches {
		if w.Object == k.name {
			its = append(its, w)
		}
	}
	return its
}

// on is what reads and writes an object. IDs are unique within an object only, and nothing that is remembered of the one is
// mixed with what is remembered of the other.
func (c *Connector) on(object string) (*Connector, error) {
	switch object {
	case c.kind.name:
		return c, nil
	case Quotes:
		return c.quotes, nil
	}
	return nil, refuse("object %q is not supported: dealseal seals for %s", object, strings.Join(Objects(), " and "))
}

// all are those of the objects that are watched, in the order in which they are polled.
func (c *Connector) all(watches []deal.Watch) (list []*Connector) {
	for _, on := range []*Connector{c, c.quotes} {
		if len(on.kind.of(watches)) > 0 {
			list = append(list, on)
		}
	}
	return list
}

// to is on for a record.
func (c *Connector) to(ref deal.Ref) (*Connector, error) {
	on, err := c.on(ref.Object)
	if err != nil {
		return nil, err
	}
	if _, ok := parseID(ref.ID); !ok {
		return nil, refuse("%q is no ID of a %s: it is a number", ref.ID, on.kind.one)
	}
	return on, nil
}

// noteType is the type of the association that puts a note on a record, and taskType that of a task.
func (c *Connector) noteType(ctx context.Context) (int, error) {
	return c.associationType(ctx, "notes", c.kind.note)
}
func (c *Connector) taskType(ctx context.Context) (int, error) {
	return c.associationType(ctx, "tasks", c.kind.task)
}

// associationType asks for a type that HubSpot publishes nowhere, once: the one of its own that bears no label.
func (c *Connector) associationType(ctx context.Context, from string, published int) (int, error) {
	if published != 0 {
		return published, nil
	}
	if known, ok := c.types.Load(from); ok {
		return known.(int), nil
	}
	var said struct {
		Results []struct {
			Category string  `json:"category"`
			TypeID   int     `json:"typeId"`
			Label    *string `json:"label"`
		} `json:"results"`
	}
	if _, err := c.getJSON(ctx, "/crm/associations/"+c.cfg.APIVersion+"/"+from+"/"+c.kind.name+"/labels", nil, &said); err != nil {
		return 0, fmt.Errorf("ask how %s are put on a %s: %w", from, c.kind.one, err)
	}
	for _, t := range said.Results {
		if t.Category == "HUBSPOT_DEFINED" && t.TypeID > 0 && (t.Label == nil || *t.Label == "") {
			c.types.Store(from, t.TypeID)
			return t.TypeID, nil
		}
	}
	return 0, refuse("HubSpot knows no association of %s with %s: nothing can be put on them in this account", from, c.kind.name)
}

// statuses are what a quote may be in, as HubSpot lists them.
func (c *Connector) statuses(ctx context.Context) ([]option, error) {
	p, err := c.definition(ctx, c.kind.name, c.kind.stage)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(p.Options, func(o option) bool { return o.Value == "" }), nil
}

// statusMisfit says why a watch can find nothing; what is empty when it can.
func statusMisfit(w deal.Watch, k kind, there []option) (what, cure string) {
	var names, known []string
	for _, o := range there {
		if o.Value == w.Stage {
			return "", ""
		}
		names, known = append(names, o.Value, o.Label), append(known, o.Value)
	}
	what = fmt.Sprintf("there is no status %q of %s", w.Stage, k.name)
	cure = "correct when.stage: it is one of " + strings.Join(known, ", ")
	if near := connectors.Nearest(w.Stage, names); len(near) > 0 {
		cure = "correct when.stage; " + connectors.Suggest(w.Stage, names)
	}
	return what, cure
}

// resolveStatus puts the name of the only status with that label in its place.
func resolveStatus(w deal.Watch, there []option) deal.Watch {
	if slices.ContainsFunc(there, func(o option) bool { return o.Value == w.Stage }) {
		return w
	}
	var found []string
	for _, o := range there {
		if strings.EqualFold(o.Label, w.Stage) {
			found = append(found, o.Value)
		}
	}
	if len(found) == 1 {
		w.Stage = found[0]
	}
	return w
}
