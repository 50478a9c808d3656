package hubspot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Probe implements connectors.Prober. It costs one call for the pipelines, one for each type of record that has a part in
// the paths, and one more for each property that HubSpot does not list.
func (c *Connector) Probe(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	on, err := c.on(cmp.Or(p.Object, Object))
	if err != nil {
		return nil, fmt.Errorf("hubspot: compare the configuration with the account: %w", err)
	}
	problems, err := on.probe(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("hubspot: compare the configuration with the account: %w", err)
	}
	return problems, nil
}

func (c *Connector) probe(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	problems, err := c.stageMisfits(ctx, p)
	if err != nil {
		return nil, err
	}
	d := &dictionary{connector: c, types: map[string]map[string]property{}}
	for _, path := range p.Read {
		found, what, cure, err := d.pathMisfit(ctx, path)
		if err != nil {
			return nil, err
		}
		problems = append(problems, found.typeMisfit(path, p.Types[path])...)
		if what != "" {
			problems = append(problems, connectors.Problem{Aspect: connectors.AspectRead, What: fmt.Sprintf("the path %q cannot be read: %s", path, what), Cure: cure})
		}
	}
	for _, f := range p.Filters {
		misfits, err := d.filterMisfit(ctx, f)
		if err != nil {
			return nil, err
		}
		problems = append(problems, misfits...)
	}
	for _, w := range p.WriteBack {
		for _, t := range targets(w) {
			what, cure, err := d.targetMisfit(ctx, t)
			if err != nil {
				return nil, err
			}
			problem := connectors.Problem{Aspect: connectors.AspectWrite, What: "write_back." + t.key + ": " + what, Cure: cure}
			if what != "" && !slices.Contains(problems, problem) { // several rules write to the same properties
				problems = append(problems, problem)
			}
		}
	}
	return problems, nil
}

// stageMisfits says of each rule why it can find nothing, or move nothing.
func (c *Connector) stageMisfits(ctx context.Context, p connectors.Probe) (problems []connectors.Problem, err error) {
	of, pipelines, err := c.stageMisfit(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range p.Watches {
		what, cure := fmt.Sprintf("object %q cannot be watched", w.Object), "those that can are "+strings.Join(Objects(), " and ")
		if w.Object == c.kind.name {
			what, cure = of(w)
		}
		if what != "" {
			problems = append(problems, connectors.Problem{Rule: w.Rule, Aspect: connectors.AspectStage, What: what, Cure: cure})
		}
	}
	if !c.kind.movable {
		return problems, nil // a rule that moves them is refused before
	}
	for _, m := range p.Moves {
		if what, cure := moveMisfit(m.Watch, m.To, pipelines); what != "" {
			problems = append(problems, m.Misfit(what, cure))
		}
	}
	return problems, nil
}

// stageMisfit asks which stages there are. of says why a watch can find nothing among them.
func (c *Connector) stageMisfit(ctx context.Context) (of func(deal.Watch) (what, cure string), there []pipeline, err error) {
	if c.kind.pipelines {
		if there, err = c.pipelines(ctx); err != nil {
			return nil, nil, fmt.Errorf("list the pipelines: %w", err)
		}
		return func(w deal.Watch) (what, cure string) { return stageMisfit(w, there) }, there, nil
	}
	statuses, err := c.statuses(ctx)
	if what, cure := hidden("the statuses of "+c.kind.name, err); what != "" {
		return func(deal.Watch) (string, string) { return what, cure }, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list the statuses of %s: %w", c.kind.name, err)
	}
	return func(w deal.Watch) (what, cure string) { return statusMisfit(w, c.kind, statuses) }, nil, nil
}

// Resolve implements connectors.Resolver. It costs one call.
func (c *Connector) Resolve(ctx context.Context, w deal.Watch) (deal.Watch, error) {
	on, err := c.on(w.Object)
	if err != nil {
		return w, nil // Probe says so
	}
	if !on.kind.pipelines {
		there, err := on.statuses(ctx)
		if err != nil {
			return w, fmt.Errorf("hubspot: look for the status: %w", err)
		}
		return resolveStatus(w, there), nil
	}
	pipelines, err := c.pipelines(ctx)
	if err != nil {
		return w, fmt.Errorf("hubspot: look for the stage: list the pipelines: %w", err)
	}
	return resolve(w, pipelines), nil
}

// dictionary is the properties of an account, read as far as they are needed.
type dictionary struct {
	connector *Connector
	types     map[string]map[string]property
	owners    bool // are known to be visible
}

// list returns the properties of a type of record that HubSpot lists.
func (d *dictionary) list(ctx context.Context, objectType string) (map[string]property, error) {
	if known, ok := d.types[objectType]; ok {
		return known, nil
	}
	var said struct {
		Results []property `json:"results"`
	}
	c := d.connector
	_, err := c.getJSON(ctx, "/crm/properties/"+c.cfg.APIVersion+"/"+objectType, nil, &said)
	if err != nil {
		return nil, fmt.Errorf("list the properties of %s: %w", objectType, err)
	}
	known := map[string]property{}
	for _, p := range said.Results {
		known[p.Name] = p
	}
	d.types[objectType] = known
	return known, nil
}

// find returns a definition, or what is wrong. Some properties, such as sensitive ones, are not listed and yet exist.
func (d *dictionary) find(ctx context.Context, objectType, name string) (p property, what, cure string, err error) {
	known, err := d.list(ctx, objectType)
	if what, cure := hidden("the properties of "+objectType, err); what != "" {
		return property{}, what, cure, nil
	}
	if err != nil {
		return property{}, "", "", err
	}
	if p, ok := known[name]; ok {
		return p, "", "", nil
	}
	p, err = d.connector.definition(ctx, objectType, name)
	if err == nil || !deal.IsPermanent(err) || connectors.IsLogin(err) {
		return p, "", "", err
	}
	return property{}, fmt.Sprintf("%s have no property %q", objectType, name),
		strings.TrimRight("correct the name, or make the property in HubSpot; "+connectors.Suggest(name, slices.Collect(maps.Keys(known))), "; "), nil
}

// pathMisfit says why a path cannot be read; what is empty when it can. p is the property, if the path leads to one.
func (d *dictionary) pathMisfit(ctx context.Context, path string) (p property, what, cure string, err error) {
	s, err := d.connector.kind.parseSelection([]string{path})
	var e *Error
	if errors.As(err, &e) {
		return p, e.cure, "correct it in the template or in the rule's fields", nil
	}
	objectType, name := s.only(d.connector.kind)
	if objectType == "" {
		what, cure, err = d.ownerMisfit(ctx)
		return p, what, cure, err
	}
	return d.find(ctx, objectType, name)
}

// filterTypes are the types of properties that a filter may compare with each type of value.
var filterTypes = map[deal.FilterType][]string{
	deal.FilterText:   {"string", "enumeration", "phone_number"},
	deal.FilterNumber: {"number"},
	deal.FilterDate:   {"date", "datetime"}, // a close date is a time that people see as a day
	deal.FilterTime:   {"datetime"},
	deal.FilterBool:   {"bool"},
}

// filterMisfit says why the filter of a rule could not be judged.
func (d *dictionary) filterMisfit(ctx context.Context, f connectors.FilterField) ([]connectors.Problem, error) {
	s, err := d.connector.kind.parseSelection([]string{f.Path})
	if err == nil && len(s.lists) > 0 {
		return []connectors.Problem{f.Misfit(fmt.Sprintf("%q leads to a list of other records", f.Path), fmt.Sprintf("compare a property of the %s, of its company or of its owner", d.connector.kind.one))}, nil
	}
	p, what, cure, err := d.pathMisfit(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	if what != "" {
		return []connectors.Problem{f.Misfit(what, strings.Replace(cure, "in the template or in the rule's fields", "in when.filter", 1))}, nil
	}
	return f.TypeMisfit(p.Type, filterTypes), nil
}

// ownerMisfit proves that the app may see owners, whose fields are no properties.
func (d *dictionary) ownerMisfit(ctx context.Context) (what, cure string, err error) {
	if d.owners {
		return "", "", nil
	}
	var first struct{}
	_, err = d.connector.getJSON(ctx, "/crm/owners/"+d.connector.cfg.APIVersion, url.Values{"limit": {"1"}}, &first)
	if what, cure := hidden("owners", err); what != "" {
		return what, cure, nil
	}
	d.owners = err == nil
	return "", "", err
}

// hidden says what the app lacks when err is HubSpot's refusal to show something; what is empty for any other error.
func hidden(of string, err error) (what, cure string) {
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusForbidden {
		return "", ""
	}
	return fmt.Sprintf("the app may not see %s (%s)", of, strings.Join(e.details(), ", ")), e.cure
}

// only returns the property of a selection that was made of one path; it is none when the path is that of an owner.
func (s selection) only(k kind) (objectType, name string) {
	switch {
	case len(s.deal) > 0:
		return k.name, s.deal[0]
	case len(s.company) > 0:
		return "companies", s.company[0]
	case len(s.parent) > 0:
		return Object, s.parent[0]
	}
	for list, properties := range s.lists {
		return list, properties[0]
	}
	return "", ""
}

// target is a property that a receipt is written to.
type target struct {
	key, property string
	types         []string // that will do
	typeCure      string
	words         []string // that will be written, for a status
}

// targets lists the properties of a write-back.
func targets(w deal.WriteBack) []target {
	status := target{key: "status", property: w.Status, types: []string{"enumeration", "string"}, typeCure: "name a drop-down or a single-line text"}
	for _, s := range deal.Statuses {
		status.words = append(status.words, w.Word(s.Status))
	}
	all := []target{
		{key: "transaction_id", property: w.TransactionID, types: []string{"string"}, typeCure: "name a single-line text"},
		status,
		{key: "signed_at", property: w.SignedAt, types: []string{"datetime", "string"}, typeCure: "name a date and time property, not a date"},
		{key: "url", property: w.URL, types: []string{"string"}, typeCure: "name a single-line text"},
		{key: "audit", property: w.Audit, types: []string{"string"}, typeCure: "name a multi-line text"},
		{key: "drift", property: w.Drift, types: []string{"string"}, typeCure: "name a single-line text"},
		{key: "follow_up", property: w.FollowUp, types: []string{"datetime", "string"}, typeCure: "name a date and time property, not a date"},
	}
	return slices.DeleteFunc(all, func(t target) bool { return t.property == "" })
}

// targetMisfit says why a receipt could not be written; what is empty when it could.
func (d *dictionary) targetMisfit(ctx context.Context, t target) (what, cure string, err error) {
	p, what, cure, err := d.find(ctx, d.connector.kind.name, t.property)
	if what != "" || err != nil {
		return what, cure, err
	}
	what, cure = p.misfit(t)
	return what, cure, nil
}
