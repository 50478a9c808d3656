package hubspot

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Property is the definition of a property of an object type.
type Property struct {
	Name           string           `json:"name"`
	Label          string           `json:"label"`
	Type           string           `json:"type"`      // string, enumeration, bool, number, date, datetime
	FieldType      string           `json:"fieldType"` // text, textarea, html, select, radio, checkbox, booleancheckbox, number, date, ...
	GroupName      string           `json:"groupName"`
	Description    string           `json:"description"`
	Options        []PropertyOption `json:"options"`
	DisplayOrder   int              `json:"displayOrder"`
	HasUniqueValue bool             `json:"hasUniqueValue"`
	Hidden         bool             `json:"hidden"`
	FormField      bool             `json:"formField"`

	HubSpotDefined  bool `json:"hubspotDefined,omitempty"`
	Calculated      bool `json:"calculated"`
	ExternalOptions bool `json:"externalOptions"`
	ReadOnly        bool `json:"-"`
}

// PropertyOption is one value of an enumeration.
type PropertyOption struct {
	Label        string `json:"label"`
	Value        string `json:"value"`
	DisplayOrder int    `json:"displayOrder"`
	Hidden       bool   `json:"hidden"`
}

// ConditionalRule is an admin's conditional required property: a write that sets
// Property to one of Values needs every property in Required to have a value
// afterwards. Versions up to 2026-03 and the numeric ones ignore it.
type ConditionalRule struct {
	Object   string   `json:"object"` // for example deals
	Property string   `json:"property"`
	Values   []string `json:"values"`
	Required []string `json:"required"`
}

// WriteBackProperties are the five custom deal properties that a company adds by
// hand so that dealseal can write to them. A portal does not have them by itself.
func WriteBackProperties() []Property {
	statuses := []PropertyOption{
		{Label: "Queued", Value: "queued"}, {Label: "Awaiting Signature", Value: "awaiting_signature"},
		{Label: "Signed", Value: "signed"}, {Label: "Refused", Value: "refused"},
		{Label: "Action Required", Value: "action_required"}, {Label: "Failed", Value: "failed"}, {Label: "Held", Value: "held"},
	}
	for i := range statuses {
		statuses[i].DisplayOrder = i
	}
	return []Property{
		{Name: "dealseal_transaction_id", Label: "DealSeal transaction ID", Type: "string", FieldType: "text", GroupName: "dealinformation"},
		{Name: "dealseal_status", Label: "DealSeal status", Type: "enumeration", FieldType: "select", GroupName: "dealinformation", Options: statuses},
		{Name: "dealseal_signed_at", Label: "DealSeal signed at", Type: "datetime", FieldType: "date", GroupName: "dealinformation"},
		{Name: "dealseal_document_url", Label: "DealSeal document URL", Type: "string", FieldType: "text", GroupName: "dealinformation"},
		{Name: "dealseal_drift", Label: "DealSeal differences", Type: "string", FieldType: "text", GroupName: "dealinformation"},
		{Name: "dealseal_follow_up", Label: "DealSeal follow-up due", Type: "datetime", FieldType: "date", GroupName: "dealinformation"},
		{Name: "dealseal_audit", Label: "DealSeal audit record", Type: "string", FieldType: "textarea", GroupName: "dealinformation"},
	}
}

// objectType is a kind of record with its properties, its records and its index.
type objectType struct {
	id, plural, singular string
	created, modified    string   // names of the properties that hold these times
	defaults             []string // properties answered when none are asked for
	scope                string   // crm.objects.<scope>.read and .write
	properties           map[string]Property
	records              map[int64]*record
	order                []int64         // IDs, ascending
	merged               map[int64]int64 // old ID to the ID that took over
	nextID               int64
	index                searchIndex
}

func newObjectTypes() ([]*objectType, map[string]*objectType) {
	types := []*objectType{
		newObjectType("0-3", "deals", "deal", "deals", 7891000, "createdate", "hs_lastmodifieddate",
			[]string{"dealname", "amount", "closedate", "pipeline", "dealstage"},
			field("dealname", "string", "text"), field("amount", "number", "number"), field("closedate", "datetime", "date"),
			external(field("pipeline", "enumeration", "select")), external(field("dealstage", "enumeration", "radio")),
			external(field("hubspot_owner_id", "enumeration", "select")), field("description", "string", "textarea"),
			field("hs_next_step", "string", "text"), external(field("deal_currency_code", "enumeration", "select")),
			options(field("dealtype", "enumeration", "radio"), "newbusiness", "existingbusiness"),
			readOnly(field("hs_is_closed", "bool", "booleancheckbox")), readOnly(field("hs_is_closed_won", "bool", "booleancheckbox")),
			readOnly(external(field("hs_merged_object_ids", "enumeration", "checkbox")))),
		newObjectType("0-14", "quotes", "quote", "quotes", 7891000, // the IDs of deals: they are unique within a type only
			"hs_createdate", "hs_lastmodifieddate",
			[]string{"hs_title", "hs_expiration_date", "hs_public_url_key", "hs_status"},
			field("hs_title", "string", "text"), field("hs_expiration_date", "datetime", "date"), quoteStatus(),
			field("hs_language", "string", "text"), external(field("hs_currency", "enumeration", "select")), field("hs_terms", "string", "html"),
			field("hs_comments", "string", "html"), field("hs_esign_enabled", "bool", "booleancheckbox"),
			readOnly(field("hs_quote_amount", "number", "number")), readOnly(field("hs_quote_number", "string", "text")),
			readOnly(field("hs_quote_link", "string", "text")), readOnly(field("hs_pdf_download_link", "string", "text")),
			readOnly(field("hs_public_url_key", "string", "text")), external(field("hs_quote_owner_id", "enumeration", "select")),
			readOnly(external(field("hubspot_owner_id", "enumeration", "select"))), readOnly(external(field("hs_merged_object_ids", "enumeration", "checkbox")))),
		newObjectType("0-1", "contacts", "contact", "contacts", 200, "createdate", "lastmodifieddate",
			[]string{"email", "firstname", "lastname"},
			unique(field("email", "string", "text")), field("firstname", "string", "text"), field("lastname", "string", "text"),
			field("jobtitle", "string", "text"), field("phone", "string", "phonenumber"), field("company", "string", "text"),
			external(field("hs_language", "enumeration", "select")), external(field("hubspot_owner_id", "enumeration", "select"))),
		newObjectType("0-2", "companies", "company", "companies", 5000, "createdate", "hs_lastmodifieddate",
			[]string{"name", "domain"},
			field("name", "string", "text"), field("domain", "string", "text"), field("address", "string", "text"),
			field("address2", "string", "text"), field("city", "string", "text"), field("state", "string", "text"),
			field("zip", "string", "text"), field("country", "string", "text"), field("phone", "string", "phonenumber")),
		newObjectType("0-8", "line_items", "line_item", "line_items", 30000, "createdate", "hs_lastmodifieddate",
			[]string{"name", "quantity", "price", "amount", "hs_product_id"},
			field("name", "string", "text"), field("quantity", "number", "number"), field("price", "number", "number"),
			field("amount", "number", "number"), field("discount", "number", "number"), field("description", "string", "textarea"),
			field("hs_product_id", "number", "number"), field("hs_sku", "string", "text"), field("hs_position_on_quote", "number", "number"),
			external(field("hs_line_item_currency_code", "enumeration", "select"))),
		newObjectType("0-46", "notes", "note", "contacts", 60000, "hs_createdate", "hs_lastmodifieddate", nil,
			field("hs_timestamp", "datetime", "date"), field("hs_note_body", "string", "html"),
			external(field("hs_attachment_ids", "enumeration", "checkbox")), external(field("hubspot_owner_id", "enumeration", "select"))),
		newObjectType("0-27", "tasks", "task", "contacts", 80000, "hs_createdate", "hs_lastmodifieddate", nil,
			field("hs_timestamp", "datetime", "date"), field("hs_task_subject", "string", "text"), field("hs_task_body", "string", "html"),
			options(field("hs_task_status", "enumeration", "select"), "NOT_STARTED", "IN_PROGRESS", "WAITING", "COMPLETED", "DEFERRED"),
			options(field("hs_task_priority", "enumeration", "select"), "NONE", "LOW", "MEDIUM", "HIGH"),
			options(field("hs_task_type", "enumeration", "select"), "TODO", "CALL", "EMAIL"),
			field("hs_task_reminders", "string", "text"), external(field("hubspot_owner_id", "enumeration", "select"))),
	}
	byName := map[string]*objectType{}
	for _, t := range types {
		byName[t.id], byName[t.plural], byName[t.singular] = t, t, t
	}
	return types, byName
}

func newObjectType(id, plural, singular, scope string, base int64, created, modified string, defaults []string, fields ...Property) *objectType {
	t := &objectType{
		id: id, plural: plural, singular: singular, scope: scope, created: created, modified: modified,
		defaults:   append(slices.Clone(defaults), created, modified, "hs_object_id"),
		properties: map[string]Property{},
		records:    map[int64]*record{},
		merged:     map[int64]int64{},
		nextID:     base,
		index:      newSearchIndex(),
	}
	fields = append(fields, readOnly(field(created, "datetime", "date")), readOnly(field(modified, "datetime", "date")),
		readOnly(field("hs_object_id", "number", "number")))
	for _, f := range fields {
		f.GroupName = singular + "information"
		f.HubSpotDefined = true
		t.properties[f.Name] = f
	}
	return t
}

// quoteStatus is the state of a quote. Options are shown to people by labels that are nothing like their values.
func quoteStatus() Property {
	f := field("hs_status", "enumeration", "select")
	for i, o := range [][2]string{{"DRAFT", "Draft"}, {"APPROVAL_NOT_NEEDED", "Published"}, {"PENDING_APPROVAL", "Pending approval"}, {"APPROVED", "Approved"}, {"REJECTED", "Changes requested"}} {
		f.Options = append(f.Options, PropertyOption{Value: o[0], Label: o[1], DisplayOrder: i})
	}
	return f
}

func field(name, typ, fieldType string) Property {
	return Property{Name: name, Label: name, Type: typ, FieldType: fieldType}
}

func readOnly(f Property) Property { f.ReadOnly = true; return f }
func external(f Property) Property { f.ExternalOptions = true; return f }
func unique(f Property) Property   { f.HasUniqueValue = true; return f }

func options(f Property, values ...string) Property {
	for i, v := range values {
		f.Options = append(f.Options, PropertyOption{Label: v, Value: v, DisplayOrder: i})
	}
	return f
}

// property finds a definition. The stage dates of deals are known by name though
// the list of properties does not show them.
func (t *objectType) property(name string) (Property, bool) {
	f, ok := t.properties[name]
	if !ok && t.plural == "deals" && strings.HasPrefix(name, "hs_v2_date_") {
		return readOnly(field(name, "datetime", "date")), true
	}
	return f, ok
}

func (t *objectType) propertyNames() []string { return slices.Sorted(maps.Keys(t.properties)) }

// maxText is the length of a text value in characters.
const maxText = 65536

var decimal = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)

// normalise turns a written value into the stored one, or says what is wrong.
// The empty value clears a property of any type.
func normalise(f Property, value, before string) (string, *problem) {
	bad := func(code, message string) (string, *problem) {
		return "", &problem{property: f.Name, code: code, message: message}
	}
	if value == "" {
		return "", nil
	}
	switch f.Type {
	case "number":
		if !decimal.MatchString(value) {
			return bad("INVALID_INTEGER", value+" was not a valid number.")
		}
	case "bool":
		if value != "true" && value != "false" {
			return bad("INVALID_OPTION", value+" was not one of the allowed options: [label: \"True\" value: \"true\", label: \"False\" value: \"false\"]")
		}
	case "date":
		day, ok := parseTime(value)
		if !ok || day != day.Truncate(24*time.Hour) {
			return bad("INVALID_DATE", value+" is at "+clockOf(day, ok)+", not midnight!")
		}
		return day.Format(time.DateOnly), nil
	case "datetime":
		t, ok := parseTime(value)
		if !ok {
			return bad("INVALID_LONG", value+" was not a valid long.")
		}
		return stamp(t), nil
	case "enumeration":
		return normaliseOption(f, value, before)
	}
	if utf8.RuneCountInString(value) > maxText {
		return bad("INVALID_STRING_LENGTH", "Property value is longer than "+strconv.Itoa(maxText)+" characters.")
	}
	return value, nil
}

func clockOf(t time.Time, ok bool) string {
	if !ok {
		return "no valid time"
	}
	return t.Format("15:04:05.000 MST")
}

func normaliseOption(f Property, value, before string) (string, *problem) {
	if f.ExternalOptions {
		return value, nil
	}
	values := []string{value}
	if f.FieldType == "checkbox" {
		if strings.HasPrefix(value, ";") && before != "" {
			value = before + value
		}
		values = strings.Split(strings.Trim(value, ";"), ";")
		slices.Sort(values)
		values = slices.Compact(values)
	}
	for _, v := range values {
		if !slices.ContainsFunc(f.Options, func(o PropertyOption) bool { return o.Value == v }) {
			return "", &problem{property: f.Name, code: "INVALID_OPTION", message: v + " was not one of the allowed options: [" + optionList(f) + "]"}
		}
	}
	return strings.Join(values, ";"), nil
}

func optionList(f Property) string {
	var list []string
	for _, o := range f.Options {
		list = append(list, "label: "+strconv.Quote(o.Label)+" value: "+strconv.Quote(o.Value))
	}
	return strings.Join(list, ", ")
}

// parseTime reads the two spellings of a time: ISO 8601 and epoch milliseconds.
func parseTime(s string) (time.Time, bool) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		t := time.UnixMilli(ms).UTC()
		return t, t.Year() >= 1 && t.Year() <= 9999 // other years have no ISO 8601 spelling
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Truncate(time.Millisecond), true
		}
	}
	return time.Time{}, false
}
