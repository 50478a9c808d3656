package hubspot

import (
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
	problems, err := c.probe(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("hubspot: compare the configuration with the account: %w", err)
	}
	return problems, nil
}

func (c *Connector) probe(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	var problems []connectors.Problem
	pipelines, err := c.pipelines(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the pipelines: %w", err)
	}
	for _, w := range p.Watches {
		if what, cure := stageMisfit(w, pipelines); what != "" {
			problems = append(problems, connectors.Problem{Rule: w.Rule, What: what, Cure: cure})
		}
	}
	d := &dictionary{connector: c, types: map[string]map[string]property{}}
	for _, path := range p.Read {
		what, cure, err := d.pathMisfit(ctx, path)
		if err != nil {
			return nil, err
		}
		if what != "" {
			problems = append(problems, connectors.Problem{What: fmt.Sprintf("the path %q cannot be read: %s", path, what), Cure: cure})
		}
	}
	for _, w := range p.WriteBack {
		for _, t := range targets(w) {
			what, cure, err := d.targetMisfit(ctx, t)
			if err != nil {
				return nil, err
			}
			problem := connectors.Problem{What: "write_back." + t.key + ": " + what, Cure: cure}
			if what != "" && !slices.Contains(problems, problem) { // several rules write to the same properties
				problems = append(problems, problem)
			}
		}
	}
	return problems, nil
}

// pipeline is a pipeline of deals. IDs say nothing: they survive it when a label is changed.
type pipeline struct {
	ID       string  `json:"id"`
	Label    string  `json:"label"`
	Archived bool    `json:"archived"`
	Stages   []stage `json:"stages"`
}

type stage struct {
	ID       string `json:"id"`
	Label    string `json:"label"`
	Archived bool   `json:"archived"`
}

// String names a pipeline for people.
func (p pipeline) String() string { return fmt.Sprintf("%q (%s)", p.ID, p.Label) }

func (c *Connector) pipelines(ctx context.Context) ([]pipeline, error) {
	var said struct {
		Results []pipeline `json:"results"`
	}
	if _, err := c.getJSON(ctx, "/crm/pipelines/"+c.cfg.APIVersion+"/"+Object, nil, &said); err != nil {
		return nil, err
	}
	if len(said.Results) == 0 {
		return nil, malformed("it names no pipeline")
	}
	var active []pipeline
	for _, p := range said.Results {
		if p.Archived {
			continue
		}
		p.Stages = slices.DeleteFunc(p.Stages, func(s stage) bool { return s.Archived })
		active = append(active, p)
	}
	return active, nil
}

// stageMisfit says why a watch can find nothing; what is empty when it can.
func stageMisfit(w deal.Watch, pipelines []pipeline) (what, cure string) {
	if w.Object != Object {
		return fmt.Sprintf("object %q cannot be watched", w.Object), "only " + Object + " have stages here: watch those"
	}
	within := pipelines
	if w.Pipeline != "" {
		within = slices.DeleteFunc(slices.Clone(pipelines), func(p pipeline) bool { return p.ID != w.Pipeline })
		if len(within) == 0 {
			return fmt.Sprintf("there is no pipeline with the ID %q", w.Pipeline), pipelineCure(w.Pipeline, pipelines)
		}
	}
	if len(stagesThat(within, func(s stage) bool { return s.ID == w.Stage })) > 0 {
		return "", ""
	}
	if w.Pipeline != "" {
		if found := stagesThat(pipelines, func(s stage) bool { return s.ID == w.Stage }); len(found) > 0 {
			return fmt.Sprintf("the stage %q does not belong to the pipeline %s", w.Stage, within[0]),
				fmt.Sprintf("it belongs to the pipeline %s: correct when.pipeline or when.stage", found[0].in)
		}
		return fmt.Sprintf("there is no stage with the ID %q in the pipeline %s", w.Stage, within[0]), stageCure(w.Stage, within)
	}
	return fmt.Sprintf("there is no stage with the ID %q in any pipeline", w.Stage), stageCure(w.Stage, within)
}

func pipelineCure(name string, pipelines []pipeline) string {
	var labels, ids []string
	for _, p := range pipelines {
		if strings.EqualFold(p.Label, name) {
			labels = append(labels, fmt.Sprintf("the pipeline labelled %q has the ID %q", p.Label, p.ID))
		}
		ids = append(ids, p.ID)
	}
	if labels != nil {
		return "when.pipeline is an ID and no label: " + strings.Join(labels, "; ")
	}
	return strings.TrimSpace("correct when.pipeline, or leave it out to watch the stage wherever it is; " + connectors.Suggest(name, ids))
}

// foundStage is a stage and the pipeline that it belongs to.
type foundStage struct {
	stage
	in pipeline
}

func stagesThat(pipelines []pipeline, match func(stage) bool) []foundStage {
	var found []foundStage
	for _, p := range pipelines {
		for _, s := range p.Stages {
			if match(s) {
				found = append(found, foundStage{s, p})
			}
		}
	}
	return found
}

// stageCure resolves a label, which is what people take for the name of a stage, and otherwise proposes what is near.
func stageCure(name string, pipelines []pipeline) string {
	found := stagesThat(pipelines, func(s stage) bool { return strings.EqualFold(s.Label, name) })
	if len(found) == 0 {
		var names []string
		for _, s := range stagesThat(pipelines, func(stage) bool { return true }) {
			names = append(names, s.ID, s.Label)
		}
		near := connectors.Nearest(name, names)
		found = stagesThat(pipelines, func(s stage) bool { return slices.Contains(near, s.ID) || slices.Contains(near, s.Label) })
	}
	var known []string
	for _, s := range found {
		known = append(known, fmt.Sprintf("the stage labelled %q of the pipeline %s has the ID %q", s.Label, s.in, s.ID))
	}
	if known == nil {
		return "correct when.stage: it is the internal ID of a stage, which HubSpot shows in the settings of the pipeline"
	}
	return "when.stage is an internal ID: " + strings.Join(known, "; ")
}

// property is the definition of a property.
type property struct {
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	FieldType string   `json:"fieldType"`
	Options   []option `json:"options"`
	// ExternalOptions is set when HubSpot keeps the options elsewhere.
	ExternalOptions bool `json:"externalOptions"`
	Calculated      bool `json:"calculated"`
	Modification    struct {
		ReadOnlyValue bool `json:"readOnlyValue"`
	} `json:"modificationMetadata"`
}

// option is a value of an enumeration. Value is its internal name, which is what is written.
type option struct {
	Label string `json:"label"`
	Value string `json:"value"`
}

// stageProperties begins the names of what HubSpot computes for each stage of a deal, such as hs_v2_date_entered_1234. They
// can be read by name, but no description of them can be had.
const stageProperties = "hs_v2_"

// definition asks HubSpot for one property. It is an error that names the property when the account does not have it.
func (c *Connector) definition(ctx context.Context, objectType, name string) (property, error) {
	var p property
	if objectType == Object && strings.HasPrefix(name, stageProperties) {
		p.Name, p.Calculated = name, true
		return p, nil
	}
	_, err := c.getJSON(ctx, "/crm/properties/"+c.cfg.APIVersion+"/"+objectType+"/"+url.PathEscape(name), nil, &p)
	if isMissing(err) {
		return property{}, refuse("%s have no property %q: correct the field's name, or make the property in HubSpot", objectType, name)
	}
	return p, err
}

// dictionary is the properties of an account, read as far as they are needed.
type dictionary struct {
	connector *Connector
	types     map[string]map[string]property
	owners    bool // may be seen
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

// pathMisfit says why a path cannot be read; what is empty when it can.
func (d *dictionary) pathMisfit(ctx context.Context, path string) (what, cure string, err error) {
	s, err := parseSelection([]string{path})
	var e *Error
	if errors.As(err, &e) {
		return e.cure, "correct it in the template or in the rule's fields", nil
	}
	objectType, name := s.only()
	if objectType == "" {
		return d.ownerMisfit(ctx)
	}
	_, what, cure, err = d.find(ctx, objectType, name)
	return what, cure, err
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
func (s selection) only() (objectType, name string) {
	switch {
	case len(s.deal) > 0:
		return Object, s.deal[0]
	case len(s.company) > 0:
		return "companies", s.company[0]
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
	}
	return slices.DeleteFunc(all, func(t target) bool { return t.property == "" })
}

// targetMisfit says why a receipt could not be written; what is empty when it could.
func (d *dictionary) targetMisfit(ctx context.Context, t target) (what, cure string, err error) {
	p, what, cure, err := d.find(ctx, Object, t.property)
	if what != "" || err != nil {
		return what, cure, err
	}
	what, cure = p.misfit(t)
	return what, cure, nil
}

// misfit compares a definition with what will be written.
func (p property) misfit(t target) (what, cure string) {
	switch {
	case p.Modification.ReadOnlyValue || p.Calculated:
		return fmt.Sprintf("property %s cannot be written", t.property), "name a property that is neither calculated nor HubSpot's own"
	case !slices.Contains(t.types, p.Type):
		return fmt.Sprintf("property %s is of type %s", t.property, p.Type), t.typeCure
	case p.Type == "string" && p.FieldType != "text" && p.FieldType != "textarea":
		return fmt.Sprintf("property %s is a text of the kind %s, which changes or refuses what is written", t.property, p.FieldType),
			"name a single-line or multi-line text"
	case p.Type == "enumeration" && !p.ExternalOptions:
		return p.wordMisfit(t)
	}
	return "", ""
}

// wordMisfit says which words an enumeration would refuse.
func (p property) wordMisfit(t target) (what, cure string) {
	var missing, labels []string
	for _, word := range t.words {
		if slices.ContainsFunc(p.Options, func(o option) bool { return o.Value == word }) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%q", word))
		for _, o := range p.Options {
			if strings.EqualFold(o.Label, word) {
				labels = append(labels, fmt.Sprintf("; the option labelled %q has the internal name %q", o.Label, o.Value))
			}
		}
	}
	if missing == nil {
		return "", ""
	}
	return fmt.Sprintf("property %s lacks the option %s", t.property, strings.Join(missing, ", ")),
		"add it in HubSpot, or give the options' internal names in write_back.status.values" + strings.Join(labels, "")
}
