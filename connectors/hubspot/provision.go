package hubspot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
)

// group is the heading under which HubSpot shows the properties that we make.
const group = "dealseal"

// definition of a property that is to be made.
type newProperty struct {
	GroupName string      `json:"groupName"`
	Name      string      `json:"name"`
	Label     string      `json:"label"`
	Type      string      `json:"type"`
	FieldType string      `json:"fieldType"`
	Options   []newOption `json:"options,omitempty"`
}

type newOption struct {
	Label       string `json:"label"`
	Value       string `json:"value"`
	Description string `json:"description,omitempty"`
	Order       int    `json:"displayOrder"`
	Hidden      bool   `json:"hidden"`
}

// Lacking implements connectors.Provisioner. Making needs the scope crm.schemas.deals.write, or that of
// quotes, which nothing else does.
func (c *Connector) Lacking(ctx context.Context, written []connectors.Written) ([]connectors.Provision, error) {
	list, err := c.lacking(ctx, written)
	if err != nil {
		return nil, fmt.Errorf("hubspot: compare the properties with the account: %w", err)
	}
	return list, nil
}

func (c *Connector) lacking(ctx context.Context, written []connectors.Written) (list []connectors.Provision, err error) {
	for _, on := range []*Connector{c, c.quotes} {
		its := slices.DeleteFunc(slices.Clone(written), func(w connectors.Written) bool { return w.Object != on.kind.name })
		if len(its) == 0 {
			continue
		}
		lacks, err := on.lackingHere(ctx, its)
		if err != nil {
			return nil, err
		}
		list = append(list, lacks...)
	}
	return list, nil
}

// lackingHere is lacking for the write-backs of one object.
func (c *Connector) lackingHere(ctx context.Context, written []connectors.Written) (list []connectors.Provision, err error) {
	d := &dictionary{connector: c, types: map[string]map[string]property{}}
	known, err := d.list(ctx, c.kind.name)
	if err != nil {
		return nil, err
	}
	var done []string
	for _, w := range written {
		for _, t := range targets(w.WriteBack) {
			if slices.Contains(done, t.property) {
				continue
			}
			done = append(done, t.property)
			p, exists := known[t.property]
			if !exists {
				list = append(list, c.creation(t))
				continue
			}
			if what, cure := p.misfit(t); what != "" {
				list = append(list, c.mending(p, t, what, cure))
			}
		}
	}
	creates := slices.ContainsFunc(list, func(p connectors.Provision) bool { return strings.HasPrefix(p.What, propertyOf) })
	if creates && !c.hasGroup(ctx) {
		list = append([]connectors.Provision{{What: "property group " + group + c.kind.named(), Make: c.makeGroup}}, list...)
	}
	return list, nil
}

const propertyOf = "property "

func (c *Connector) properties() string {
	return "/crm/properties/" + c.cfg.APIVersion + "/" + c.kind.name
}

// hasGroup reports whether the group is there; one that cannot be seen is made, which is no harm where it exists.
func (c *Connector) hasGroup(ctx context.Context) bool {
	var said struct{}
	_, err := c.getJSON(ctx, c.properties()+"/groups/"+group, nil, &said)
	return err == nil
}

func (c *Connector) makeGroup(ctx context.Context) error {
	return c.make(ctx, "/groups", map[string]any{"name": group, "label": "DealSeal", "displayOrder": -1})
}

func (c *Connector) make(ctx context.Context, path string, body any) error {
	_, err := c.send(ctx, http.MethodPost, c.properties()+path, withToken, body)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusConflict {
		return nil // it is there
	}
	if err != nil {
		return fmt.Errorf("hubspot: %w", err)
	}
	return nil
}

// creation makes a property of the kind that its use needs.
func (c *Connector) creation(t target) connectors.Provision {
	p := newProperty{GroupName: group, Name: t.property, Label: titleOf(t.property), Type: t.types[0], FieldType: "text"}
	switch {
	case t.key == "audit":
		p.FieldType = "textarea"
	case p.Type == "datetime":
		p.FieldType = "date"
	case p.Type == "enumeration":
		p.FieldType, p.Options = "select", options(nil, t.words)
	}
	what := fmt.Sprintf("%s%s%s (%s, %s) for write_back.%s", propertyOf, p.Name, c.kind.named(), p.Type, p.FieldType, t.key)
	if !propertyForm.MatchString(p.Name) {
		return connectors.Provision{What: what, Cure: "correct the name in the tenant file: lower-case letters, digits and _ only"}
	}
	return connectors.Provision{What: what, Make: func(ctx context.Context) error { return c.make(ctx, "", p) }}
}

// options lists those that there are, as they are, and behind them those for words that none of them stands for.
func options(there []option, words []string) (all []newOption) {
	next := 0
	for _, o := range there {
		all = append(all, newOption(o))
		next = max(next, o.Order+1)
	}
	for _, word := range words {
		if slices.ContainsFunc(all, func(o newOption) bool { return o.Value == word }) {
			continue
		}
		all = append(all, newOption{Label: titleOf(word), Value: word, Order: next})
		next++
	}
	return all
}

// mending adds options to a drop-down; whatever else is wrong with a property that exists is left to people.
func (c *Connector) mending(p property, t target, what, cure string) connectors.Provision {
	if p.Type != "enumeration" || !slices.Contains(t.types, p.Type) || p.Modification.ReadOnlyValue || p.Calculated {
		return connectors.Provision{What: "write_back." + t.key + ": " + what, Cure: cure}
	}
	return connectors.Provision{What: fmt.Sprintf("options of %s%s: %s", p.Name, c.kind.named(), what), Make: func(ctx context.Context) error {
		// HubSpot replaces the list as a whole: it is read once more, so that no option is lost that was added meanwhile.
		now, err := c.definition(ctx, c.kind.name, p.Name)
		if err != nil {
			return fmt.Errorf("hubspot: %w", err)
		}
		_, err = c.send(ctx, http.MethodPatch, c.properties()+"/"+url.PathEscape(p.Name), withToken, map[string]any{"options": options(now.Options, t.words)})
		if err != nil {
			return fmt.Errorf("hubspot: add options to %s: %w", p.Name, err)
		}
		return nil
	}}
}

// titleOf makes a label of an internal name: dealseal_signed_at is "Dealseal signed at".
func titleOf(name string) string {
	text := strings.ReplaceAll(name, "_", " ")
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
