package hubspot

import (
	"fmt"
	"regexp"
	"slices"
)

// propertyGroup is a heading under which the web application shows properties.
type propertyGroup struct {
	Name         string `json:"name"`
	Label        string `json:"label"`
	DisplayOrder int    `json:"displayOrder"`
	Archived     bool   `json:"archived"`
}

// propertyView adds to a definition what only HubSpot sets.
type propertyView struct {
	Property
	Archived             bool         `json:"archived"`
	CreatedAt            string       `json:"createdAt"`
	UpdatedAt            string       `json:"updatedAt"`
	ModificationMetadata modification `json:"modificationMetadata"`
}

type modification struct {
	Archivable         bool `json:"archivable"`
	ReadOnlyDefinition bool `json:"readOnlyDefinition"`
	ReadOnlyOptions    bool `json:"readOnlyOptions"`
	ReadOnlyValue      bool `json:"readOnlyValue"`
}

// view leaves the options of some properties empty: HubSpot keeps those elsewhere.
func (f Property) view() propertyView {
	if f.Options == nil {
		f.Options = []PropertyOption{}
	}
	return propertyView{
		Property: f, CreatedAt: pipelineMade, UpdatedAt: pipelineMade,
		ModificationMetadata: modification{
			Archivable: !f.HubSpotDefined, ReadOnlyDefinition: f.HubSpotDefined,
			ReadOnlyOptions: f.HubSpotDefined, ReadOnlyValue: f.ReadOnly,
		},
	}
}

func (c *call) listProperties() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	results := []any{}
	if c.param("archived") != "true" {
		for _, name := range t.propertyNames() {
			results = append(results, t.properties[name].view())
		}
	}
	return respond(200, map[string]any{"results": results})
}

func (c *call) batchReadProperties() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	var in struct {
		Inputs []struct {
			Name string `json:"name"`
		} `json:"inputs"`
	}
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	b := c.newBatch()
	for i, input := range in.Inputs {
		if c.struck(b, i, len(in.Inputs), input.Name) {
			continue
		}
		f, ok := t.properties[input.Name]
		if !ok {
			b.fail("OBJECT_NOT_FOUND", fmt.Sprintf("Property %q does not exist", input.Name), "name", []string{input.Name})
			continue
		}
		b.results = append(b.results, f.view())
	}
	return b.reply(c, 200)
}

// namedProperty finds the definition in the path.
func (c *call) namedProperty() (*objectType, Property, *reply) {
	t, bad := c.objectType("type")
	if bad != nil {
		return nil, Property{}, bad
	}
	name := c.r.PathValue("name")
	f, ok := t.properties[name]
	if !ok {
		return nil, Property{}, fail(404, envelope{
			Message:     fmt.Sprintf("Property %q does not exist", name),
			Category:    "OBJECT_NOT_FOUND",
			SubCategory: "Properties.PROPERTY_NOT_FOUND",
		})
	}
	return t, f, nil
}

func (c *call) getProperty() *reply {
	_, f, bad := c.namedProperty()
	if bad != nil {
		return bad
	}
	return respond(200, f.view())
}

var propertyName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// fieldTypes is which controls show a type.
func fieldTypes(typ string) []string {
	switch typ {
	case "string":
		return []string{"text", "textarea", "html", "phonenumber", "file"}
	case "enumeration":
		return []string{"select", "radio", "checkbox", "booleancheckbox"}
	case "bool":
		return []string{"booleancheckbox"}
	case "number":
		return []string{"number"}
	case "date", "datetime":
		return []string{"date"}
	}
	return nil
}

// checkDefinition says what a new definition lacks.
func (p *Portal) checkDefinition(t *objectType, f Property) *reply {
	switch {
	case f.Name == "" || f.Label == "" || f.Type == "" || f.FieldType == "" || f.GroupName == "":
		return invalid("Invalid input JSON: name, label, type, fieldType and groupName are required.")
	case !propertyName.MatchString(f.Name):
		return invalid("Property name %q must begin with a letter and have lower-case letters, digits and underscores only.", f.Name)
	case !slices.Contains(fieldTypes(f.Type), f.FieldType):
		return invalid("fieldType %q does not go with type %q.", f.FieldType, f.Type)
	case f.Type == "enumeration" && len(f.Options) == 0:
		return invalid("An enumeration needs options.")
	case !p.hasGroup(t, f.GroupName):
		return invalid("Property group %q does not exist.", f.GroupName)
	}
	if _, taken := t.property(f.Name); taken {
		return conflict("Properties.PROPERTY_EXISTS", "Property named '%s' already exists. ", f.Name)
	}
	return nil
}

func (p *Portal) hasGroup(t *objectType, name string) bool {
	return name == t.singular+"information" ||
		slices.ContainsFunc(p.groups[t.plural], func(g propertyGroup) bool { return g.Name == name })
}

func (c *call) createProperty() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	var f Property
	if bad := c.decode(&f); bad != nil {
		return bad
	}
	if bad := c.p.checkDefinition(t, f); bad != nil {
		return bad
	}
	f.HubSpotDefined, f.Calculated, f.ExternalOptions = false, false, false
	t.properties[f.Name] = f
	return respond(201, f.view())
}

// patchProperty replaces the options as a whole when they are given.
func (c *call) patchProperty() *reply {
	t, f, bad := c.namedProperty()
	if bad != nil {
		return bad
	}
	if f.HubSpotDefined {
		return invalid("Property %q is defined by HubSpot and cannot be changed.", f.Name)
	}
	var in struct {
		Label       *string          `json:"label"`
		Description *string          `json:"description"`
		GroupName   *string          `json:"groupName"`
		Options     []PropertyOption `json:"options"`
		Hidden      *bool            `json:"hidden"`
	}
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	if in.GroupName != nil && !c.p.hasGroup(t, *in.GroupName) {
		return invalid("Property group %q does not exist.", *in.GroupName)
	}
	replace(&f.Label, in.Label)
	replace(&f.Description, in.Description)
	replace(&f.GroupName, in.GroupName)
	replace(&f.Hidden, in.Hidden)
	if in.Options != nil {
		f.Options = in.Options
	}
	t.properties[f.Name] = f
	return respond(200, f.view())
}

func replace[T any](dst, v *T) {
	if v != nil {
		*dst = *v
	}
}

func (c *call) deleteProperty() *reply {
	t, f, bad := c.namedProperty()
	if bad != nil {
		return bad
	}
	if f.HubSpotDefined {
		return invalid("Property %q is defined by HubSpot and cannot be archived.", f.Name)
	}
	delete(t.properties, f.Name)
	return noContent()
}

func (c *call) listGroups() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	own := propertyGroup{Name: t.singular + "information", Label: t.singular + " information"}
	return respond(200, map[string]any{"results": append([]propertyGroup{own}, c.p.groups[t.plural]...)})
}

func (c *call) getGroup() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	name := c.r.PathValue("group")
	for _, g := range c.p.groups[t.plural] {
		if g.Name == name {
			return respond(200, g)
		}
	}
	return notFound(name)
}

func (c *call) createGroup() *reply {
	t, bad := c.objectType("type")
	if bad != nil {
		return bad
	}
	var g propertyGroup
	if bad := c.decode(&g); bad != nil {
		return bad
	}
	if g.Name == "" || g.Label == "" {
		return invalid("Invalid input JSON: name and label are required.")
	}
	if c.p.hasGroup(t, g.Name) {
		return conflict("Properties.GROUP_EXISTS", "Property group named '%s' already exists.", g.Name)
	}
	g.Archived = false
	c.p.groups[t.plural] = append(c.p.groups[t.plural], g)
	return respond(201, g)
}
