package salesforce

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// AdminRights says whether the integration user may change the org's set-up: make custom fields and permission sets. From
// the beginning it may not.
func (o *Org) AdminRights(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.admin = on
}

// accessObjects are what rights are given with.
func accessObjects() []*object {
	return []*object{
		{name: "PermissionSet", label: "Permission Set", plural: "Permission Sets", prefix: "0PS",
			fields: concat(idField(), []*Field{required(&Field{Name: "Name", Type: TypeString, Length: 80, Unique: true}), required(text("Label", 80)), typed("PermissionsEditTask", TypeBoolean)}, systemFields())},
		{name: "FieldPermissions", label: "Field Permissions", plural: "Field Permissions", prefix: "01k",
			fields: concat(idField(), []*Field{
				required(createOnly(ref("ParentId", "PermissionSet", "Parent"))), required(createOnly(text("SobjectType", 80))), required(createOnly(text("Field", 120))),
				typed("PermissionsRead", TypeBoolean), typed("PermissionsEdit", TypeBoolean)}, systemFields())},
		{name: "PermissionSetAssignment", label: "Permission Set Assignment", plural: "Permission Set Assignments", prefix: "0Pa",
			fields: concat(idField(), []*Field{required(createOnly(ref("PermissionSetId", "PermissionSet", "PermissionSet"))), required(createOnly(ref("AssigneeId", "User", "Assignee")))}, systemFields())},
	}
}

// isAccess reports whether records of an object give rights.
func isAccess(name string) bool {
	return slices.Contains([]string{"PermissionSet", "FieldPermissions", "PermissionSetAssignment"}, name)
}

// mayChangeSetup refuses whoever is no administrator.
func (t *tx) mayChangeSetup(def *object) *Error {
	if !isAccess(def.name) || t.user != t.o.integration || t.o.admin {
		return nil
	}
	return &Error{Status: 403, Code: "INSUFFICIENT_ACCESS", Message: "You don't have permission to perform this action"}
}

// giveRights lets the integration user see and edit what its permission sets say.
func (o *Org) giveRights() {
	for _, assigned := range o.tables["PermissionSetAssignment"].rows {
		a := assigned.latest()
		if assigned.deleted() || a["AssigneeId"] != o.integration {
			continue
		}
		set, _ := a["PermissionSetId"].(string)
		if r := o.tables["PermissionSet"].byID[set]; r != nil && r.latest()["PermissionsEditTask"] == true {
			maps.DeleteFunc(o.readOnly, func(field string, _ bool) bool { return strings.HasPrefix(field, "task.") })
		}
		for _, r := range o.tables["FieldPermissions"].rows {
			p := r.latest()
			if r.deleted() || p["ParentId"] != a["PermissionSetId"] {
				continue
			}
			field, _ := p["Field"].(string)
			if p["PermissionsRead"] == true {
				delete(o.hidden, lower(field))
			}
			if p["PermissionsEdit"] == true {
				delete(o.readOnly, lower(field))
			}
		}
	}
	o.changed = o.now()
}

func (o *Org) toolingEndpoint(c *call) (endpoint, string) {
	s := c.segs[1:]
	switch {
	case len(s) == 1 && s[0] == "query":
		return pick(c, methods{"GET": {KindTooling, false, (*call).queryFields}})
	case len(s) == 2 && s[0] == "sobjects" && s[1] == "CustomField":
		return pick(c, methods{"POST": {KindTooling, false, (*call).createField}})
	}
	return endpoint{kind: KindUnknown}, ""
}

// fieldQuery is the one query that is understood: which custom fields some objects have.
var fieldQuery = regexp.MustCompile(`^SELECT Id, DeveloperName, TableEnumOrId FROM CustomField WHERE TableEnumOrId IN \(('\w+'(?:, ?'\w+')*)\) AND NamespacePrefix = null$`)

func (c *call) queryFields() reply {
	m := fieldQuery.FindStringSubmatch(c.r.URL.Query().Get("q"))
	if m == nil {
		return (&Error{Status: 400, Code: "MALFORMED_QUERY", Message: "the mock's Tooling API understands one query of CustomField only"}).reply()
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	records := []any{}
	for name := range strings.SplitSeq(m[1], ",") {
		def := c.o.objects[lower(strings.Trim(name, " '"))]
		if def == nil {
			continue
		}
		for i, f := range def.fields {
			if f.custom() {
				records = append(records, ordered{{"attributes", ordered{{"type", "CustomField"}}}, {"Id", ID18(fmt.Sprintf("00N%s%09d", def.prefix, i))},
					{"DeveloperName", strings.TrimSuffix(f.Name, "__c")}, {"TableEnumOrId", def.name}})
			}
		}
	}
	return jsonReply(200, ordered{{"size", len(records)}, {"totalSize", len(records)}, {"done", true}, {"queryLocator", nil}, {"entityTypeName", "CustomField"}, {"records", records}})
}

// newFieldTypes are the types of the Metadata API.
var newFieldTypes = map[string]FieldType{"Text": TypeString, "Picklist": TypePicklist, "DateTime": TypeDateTime, "Url": TypeURL, "LongTextArea": TypeTextArea}

// createField makes a custom field. Nobody may see it until a permission set says so.
func (c *call) createField() reply {
	var in struct {
		FullName string `json:"FullName"`
		Metadata struct {
			Label        string `json:"label"`
			Type         string `json:"type"`
			Length       int    `json:"length"`
			VisibleLines int    `json:"visibleLines"`
			Unique       bool   `json:"unique"`
			ExternalID   bool   `json:"externalId"`
			ValueSet     struct {
				Restricted bool `json:"restricted"`
				Definition struct {
					Value []struct {
						FullName string `json:"fullName"`
						Label    string `json:"label"`
					} `json:"value"`
				} `json:"valueSetDefinition"`
			} `json:"valueSet"`
		} `json:"Metadata"`
	}
	body, err := c.body()
	if err == nil {
		err = decodeJSON(body, &in)
	}
	if err != nil {
		return err.reply()
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	if c.user == c.o.integration && !c.o.admin {
		return (&Error{Status: 403, Code: "INSUFFICIENT_ACCESS", Message: "You don't have permission to perform this action"}).reply()
	}
	object, name, _ := strings.Cut(in.FullName, ".")
	def, typ, m := c.o.objects[lower(object)], newFieldTypes[in.Metadata.Type], in.Metadata
	refuse := func(format string, args ...any) reply {
		return (&Error{Status: 400, Code: "FIELD_INTEGRITY_EXCEPTION", Message: fmt.Sprintf(format, args...)}).reply()
	}
	f := &Field{Name: name, Label: m.Label, Type: typ, Length: m.Length, Unique: m.Unique, ExternalID: m.ExternalID, Restricted: m.ValueSet.Restricted}
	switch {
	case def == nil || !f.custom() || typ == "" || m.Label == "":
		return refuse("a custom field needs an object, a name that ends with __c, a type and a label")
	case def.byName[lower(name)] != nil:
		return (&Error{Status: 400, Code: "DUPLICATE_DEVELOPER_NAME", Message: "There is already a field named " + name + " on " + def.name + "."}).reply()
	case typ == TypeString && (m.Length < 1 || m.Length > 255), typ == TypeTextArea && (m.Length < 256 || m.Length > 131072 || m.VisibleLines < 2):
		return refuse("length or visibleLines out of range")
	case typ == TypePicklist && len(m.ValueSet.Definition.Value) == 0:
		return refuse("a picklist needs values")
	}
	for _, v := range m.ValueSet.Definition.Value {
		f.Picklist = append(f.Picklist, v.FullName)
	}
	if typ == TypeURL || typ == TypePicklist {
		f.Length = 255
	}
	def.fields = append(def.fields, f)
	def.byName[lower(name)] = f
	full := lower(def.name + "." + name)
	c.o.hidden[full], c.o.readOnly[full] = true, true
	c.o.changed = c.o.now()
	return jsonReply(201, ordered{{"id", ID18(fmt.Sprintf("00N%s%09d", def.prefix, len(def.fields)-1))}, {"success", true}, {"errors", []any{}}, {"warnings", []any{}}, {"infos", []any{}}})
}
