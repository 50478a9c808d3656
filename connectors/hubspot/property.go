package hubspot

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

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
	// What people have made of it, which adding others to the list must leave as it is.
	Description string `json:"description"`
	Order       int    `json:"displayOrder"`
	Hidden      bool   `json:"hidden"`
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

// typeMisfit says why a document could not make a number or a date of a property. What HubSpot computes for each stage has
// no description, and is left to whoever tries it.
func (p property) typeMisfit(path string, as deal.ValueType) []connectors.Problem {
	if p.Type == "" {
		return nil
	}
	texts := []string{"string", "enumeration"}
	switch as {
	case deal.NumberValue:
		return connectors.TypeMisfit(path, p.Type, as, []string{"number"}, texts)
	case deal.DateValue:
		return connectors.TypeMisfit(path, p.Type, as, []string{"date", "datetime"}, texts)
	}
	return nil
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
