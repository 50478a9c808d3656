package salesforce

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// PermissionSet is the name of the permission set with the rights to the fields that we make.
const PermissionSet = "DealSeal_Integration"

// NewField is a custom field that receipts or files need.
type NewField struct {
	Object, Name, Label string
	// Type is that of the Metadata API: Text, Picklist, DateTime, Url or LongTextArea.
	Type             string
	Length           int      // of texts; 0: the type has none
	Values           []string // of a picklist, which is restricted to them
	Unique, External bool
}

// full is the field's name with its object's.
func (f NewField) full() string { return f.Object + "." + f.Name }

// customForm is the name of a custom field without a namespace: those of packages are the packages' to make.
var customForm = regexp.MustCompile(`^[A-Za-z](_?[A-Za-z0-9])*__c$`)

// NewFields are the custom fields that write-backs and the marker of files need, each once. Standard fields are not among
// them.
func NewFields(written []connectors.Written, txMarker string) (fields []NewField) {
	add := func(f NewField) {
		if customForm.MatchString(f.Name) && !slices.ContainsFunc(fields, func(o NewField) bool { return o.full() == f.full() }) {
			f.Label = strings.ReplaceAll(strings.TrimSuffix(f.Name, "__c"), "_", " ")
			fields = append(fields, f)
		}
	}
	for _, w := range written {
		for _, t := range targets(w.WriteBack, 0) {
			f := NewField{Object: w.Object, Name: t.field, Type: "Text", Length: 40}
			switch t.key {
			case "status":
				f.Type, f.Length, f.Values = "Picklist", 0, t.words
			case "signed_at", "follow_up":
				f.Type, f.Length = "DateTime", 0
			case "url":
				f.Type, f.Length = "Url", 0
			case "audit":
				f.Type, f.Length = "LongTextArea", 32768
			case "drift":
				f.Length = deal.MaxDriftText
			}
			add(f)
		}
	}
	add(NewField{Object: "ContentVersion", Name: txMarker, Type: "Text", Length: 255, Unique: true, External: true})
	return fields
}

// metadata is the field as the Tooling API takes it.
func (f NewField) metadata() map[string]any {
	m := map[string]any{"label": f.Label, "type": f.Type, "required": false, "description": "Written by dealseal"}
	switch f.Type {
	case "Text":
		m["length"], m["unique"], m["externalId"] = f.Length, f.Unique, f.External
	case "LongTextArea":
		m["length"], m["visibleLines"] = f.Length, 3
	case "Picklist":
		var values []map[string]any
		for _, v := range f.Values {
			values = append(values, map[string]any{"fullName": v, "label": v, "default": false})
		}
		m["valueSet"] = map[string]any{"restricted": true, "valueSetDefinition": map[string]any{"sorted": false, "value": values}}
	}
	return m
}

// wantsTasks reports whether tasks are made, as which notes are kept, too.
func wantsTasks(written []connectors.Written) bool {
	return slices.ContainsFunc(written, func(w connectors.Written) bool { return w.Task != nil || w.Timeline })
}

// Lacking implements connectors.Provisioner: the custom fields, a permission set with the rights to them and to tasks, and its assignment
// to the user that dealseal logs in as. Making needs the permissions Customize Application and Manage Profiles and Permission
// Sets, which nothing else does: an administrator gives them for as long as it takes, or deploys a source folder instead.
func (c *Connector) Lacking(ctx context.Context, written []connectors.Written) ([]connectors.Provision, error) {
	list, err := c.lacking(ctx, NewFields(written, c.cfg.TxMarker), wantsTasks(written))
	if err != nil {
		return nil, fmt.Errorf("salesforce: compare the custom fields with the org: %w", err)
	}
	return list, nil
}

func (c *Connector) lacking(ctx context.Context, fields []NewField, tasks bool) (list []connectors.Provision, err error) {
	there, err := c.customFields(ctx, fields)
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		if !there[strings.ToLower(f.full())] {
			list = append(list, connectors.Provision{What: fmt.Sprintf("field %s (%s)", f.full(), f.Type), Make: func(ctx context.Context) error { return c.makeField(ctx, f) }})
		}
	}
	closed, err := c.closed(ctx, fields)
	if err == nil && tasks {
		tasks, err = c.mayNotMakeTasks(ctx)
	}
	if err != nil || len(closed) == 0 && !tasks {
		return list, err
	}
	set, err := c.onlyID(ctx, "SELECT Id FROM PermissionSet WHERE Name = "+quote(PermissionSet))
	if err != nil {
		return nil, err
	}
	if set == "" {
		list = append(list, connectors.Provision{What: "permission set " + PermissionSet, Make: func(ctx context.Context) error {
			return c.create(ctx, "sobjects/PermissionSet", map[string]any{"Name": PermissionSet, "Label": "DealSeal integration"})
		}})
	}
	granted, err := c.granted(ctx, set)
	if err != nil {
		return nil, err
	}
	for _, f := range closed {
		if !granted[f.full()] {
			list = append(list, connectors.Provision{What: "right to read and edit " + f.full(), Make: func(ctx context.Context) error { return c.grant(ctx, f) }})
		}
	}
	if tasks {
		given := ""
		if set != "" {
			if given, err = c.onlyID(ctx, "SELECT Id FROM PermissionSet WHERE PermissionsEditTask = true AND Id = "+quote(set)); err != nil {
				return nil, err
			}
		}
		if given == "" {
			list = append(list, connectors.Provision{What: "right to make tasks and notes (Edit Tasks)", Make: c.giveTasks})
		}
	}
	return c.assignment(ctx, set, list)
}

func (c *Connector) mayNotMakeTasks(ctx context.Context) (bool, error) {
	o, err := c.describe(ctx, "Task")
	if isMisfit(err) {
		return true, nil // it is not shown to whoever may do nothing with it
	}
	return err == nil && !o.fields["Subject"].Createable, err
}

// giveTasks adds the right to the permission set.
func (c *Connector) giveTasks(ctx context.Context) error {
	set, err := c.permissionSet(ctx)
	if err != nil {
		return err
	}
	if _, err := c.call(ctx, http.MethodPatch, c.wire.path("sobjects/PermissionSet/"+set), nil, []byte(`{"PermissionsEditTask":true}`)); err != nil {
		return fmt.Errorf("salesforce: give the permission set %s the right to tasks: %w", PermissionSet, err)
	}
	return nil
}

// closed are the fields that the user cannot write, whoever else may.
func (c *Connector) closed(ctx context.Context, fields []NewField) (closed []NewField, err error) {
	known := map[string]*sobject{}
	for _, f := range fields {
		o := known[f.Object]
		if o == nil {
			if o, err = c.describe(ctx, f.Object); err != nil {
				return nil, err
			}
			known[f.Object] = o
		}
		if d, ok := o.fields[f.Name]; !ok || !d.Updateable {
			closed = append(closed, f)
		}
	}
	return closed, nil
}

func (c *Connector) assignment(ctx context.Context, set string, list []connectors.Provision) ([]connectors.Provision, error) {
	me, err := c.me(ctx)
	if err != nil {
		return nil, err
	}
	assigned := ""
	if set != "" {
		if assigned, err = c.onlyID(ctx, "SELECT Id FROM PermissionSetAssignment WHERE PermissionSetId = "+quote(set)+" AND AssigneeId = "+quote(me)); err != nil {
			return nil, err
		}
	}
	if assigned == "" {
		list = append(list, connectors.Provision{What: "permission set " + PermissionSet + " for user " + me, Make: func(ctx context.Context) error {
			set, err := c.permissionSet(ctx)
			if err != nil {
				return err
			}
			return c.create(ctx, "sobjects/PermissionSetAssignment", map[string]any{"AssigneeId": me, "PermissionSetId": set})
		}})
	}
	return list, nil
}

// customFields are those of the objects that we need some of, in lower case, whether or not the user may see them.
func (c *Connector) customFields(ctx context.Context, fields []NewField) (map[string]bool, error) {
	there := map[string]bool{}
	if len(fields) == 0 {
		return there, nil
	}
	var objects []string
	for _, f := range fields {
		objects = append(objects, f.Object)
	}
	soql := "SELECT Id, DeveloperName, TableEnumOrId FROM CustomField WHERE TableEnumOrId IN " + quoteAll(sortedSet(objects)) + " AND NamespacePrefix = null"
	r, err := c.call(ctx, http.MethodGet, c.wire.path("tooling/query?q="+url.QueryEscape(soql)), nil, nil)
	if err != nil {
		return nil, err
	}
	var said struct {
		Records []struct {
			DeveloperName string `json:"DeveloperName"`
			Table         string `json:"TableEnumOrId"`
		} `json:"records"`
		Done *bool `json:"done"`
	}
	if err := json.Unmarshal(r.body, &said); err != nil || said.Done == nil {
		return nil, malformed("it is no query result")
	}
	if !*said.Done {
		return nil, refuse("the org has more custom fields than one page of a query holds: deploy the source folder that --sfdx writes")
	}
	for _, f := range said.Records {
		there[strings.ToLower(f.Table+"."+f.DeveloperName+"__c")] = true
	}
	return there, nil
}

// granted are the fields that the permission set gives the right to edit.
func (c *Connector) granted(ctx context.Context, set string) (map[string]bool, error) {
	fields := map[string]bool{}
	if set == "" {
		return fields, nil
	}
	found, err := c.lookUp(ctx, "SELECT Field FROM FieldPermissions WHERE PermissionsEdit = true AND ParentId = "+quote(set))
	for _, row := range found.rows {
		fields[row.StringField("Field")] = true
	}
	return fields, err
}

// onlyID returns the first ID that a query finds, empty when it finds none.
func (c *Connector) onlyID(ctx context.Context, soql string) (string, error) {
	found, err := c.lookUp(ctx, soql)
	if err != nil || len(found.rows) == 0 {
		return "", err
	}
	id, err := CanonicalID(found.rows[0].StringField("Id"))
	if err != nil {
		return "", malformed("a row has no ID")
	}
	return id, nil
}

func (c *Connector) permissionSet(ctx context.Context) (string, error) {
	set, err := c.onlyID(ctx, "SELECT Id FROM PermissionSet WHERE Name = "+quote(PermissionSet))
	if err == nil && set == "" {
		err = refuse("the permission set %s is not there any more", PermissionSet)
	}
	return set, err
}

func (c *Connector) makeField(ctx context.Context, f NewField) error {
	return c.create(ctx, "tooling/sobjects/CustomField", map[string]any{"FullName": f.full(), "Metadata": f.metadata()})
}

// grant gives the right to a field: those that the API makes have none, not even for administrators.
func (c *Connector) grant(ctx context.Context, f NewField) error {
	set, err := c.permissionSet(ctx)
	if err != nil {
		return err
	}
	return c.create(ctx, "sobjects/FieldPermissions", map[string]any{"ParentId": set, "SobjectType": f.Object, "Field": f.full(), "PermissionsRead": true, "PermissionsEdit": true})
}

// create makes one thing; one that is there already is success.
func (c *Connector) create(ctx context.Context, resource string, body map[string]any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, http.MethodPost, c.wire.path(resource), nil, b)
	if hasCode(err, "DUPLICATE_DEVELOPER_NAME", "DUPLICATE_VALUE") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("salesforce: make %s: %w", strings.TrimPrefix(resource, "sobjects/"), err)
	}
	return nil
}

// SourceFolder is what an administrator deploys so that the org has what receipts are written to, and shows it; see the
// function of the same name.
func (c Config) SourceFolder(written []connectors.Written, page string) (map[string][]byte, error) {
	c = c.withDefaults()
	return SourceFolder(written, c.TxMarker, c.APIVersion, page)
}
