package salesforce

import "strings"

// FieldType is the type of a field by its name in describe results.
type FieldType string

// The field types that the org knows.
const (
	TypeID        FieldType = "id"
	TypeString    FieldType = "string"
	TypeTextArea  FieldType = "textarea"
	TypePicklist  FieldType = "picklist"
	TypeCurrency  FieldType = "currency"
	TypeDouble    FieldType = "double"
	TypePercent   FieldType = "percent"
	TypeInt       FieldType = "int"
	TypeBoolean   FieldType = "boolean"
	TypeDate      FieldType = "date"
	TypeDateTime  FieldType = "datetime"
	TypeReference FieldType = "reference"
	TypeEmail     FieldType = "email"
	TypePhone     FieldType = "phone"
	TypeURL       FieldType = "url"
	TypeBase64    FieldType = "base64"
	TypeAny       FieldType = "anyType"
)

// Field is one column of an object.
type Field struct {
	Name       string
	Label      string // empty: Name
	Type       FieldType
	Length     int      // characters, of text types; 0: not limited
	Picklist   []string // values of a picklist
	Restricted bool     // other values than Picklist are refused
	Required   bool     // on create
	Unique     bool
	ExternalID bool // may be used to upsert

	ReadOnly     bool   // set by the org only
	CreateOnly   bool   // cannot be changed afterwards
	References   string // object that a reference points to
	Relationship string // name of the parent in a path, for example Account
}

func (f *Field) custom() bool { return strings.HasSuffix(f.Name, "__c") }
func (f *Field) numeric() bool {
	return f.Type == TypeCurrency || f.Type == TypeDouble || f.Type == TypePercent
}

// filterable says whether the field may stand in WHERE and ORDER BY: long text, blobs and values of any type may not.
func (f *Field) filterable() bool {
	return f.Type != TypeBase64 && f.Type != TypeAny && !(f.Type == TypeTextArea && f.Length > 255)
}

func (f *Field) label() string {
	if f.Label != "" {
		return f.Label
	}
	return f.Name
}

// object is an sObject type.
type object struct {
	name, label, plural, prefix string
	fields                      []*Field
	byName                      map[string]*Field // lower case
	children                    []childRelation
	fixed                       bool // no create, update or delete through the API
}

// childRelation is the way from a parent to its rows in another object.
type childRelation struct{ object, field, name string }

// DealSealFields are the custom fields that a dealseal administrator makes:
// the write-back fields of the records, the status among them as a
// restricted picklist, and the unique key of a file.
func DealSealFields() map[string][]Field {
	fields := map[string][]Field{"ContentVersion": {
		{Name: "DealSeal_Key__c", Label: "DealSeal key", Type: TypeString, Length: 255, Unique: true, ExternalID: true},
	}}
	for _, object := range ownedObjects {
		fields[object] = []Field{
			{Name: "DealSeal_Transaction_ID__c", Label: "DealSeal transaction ID", Type: TypeString, Length: 40, ExternalID: true},
			{Name: "DealSeal_Status__c", Label: "DealSeal status", Type: TypePicklist, Length: 255, Restricted: true,
				Picklist: []string{"Queued", "Awaiting Signature", "Signed", "Refused", "Action Required", "Failed", "Held"}},
			{Name: "DealSeal_Signed_At__c", Label: "DealSeal signed at", Type: TypeDateTime},
			{Name: "DealSeal_Document_URL__c", Label: "DealSeal document", Type: TypeURL, Length: 255},
			{Name: "DealSeal_Drift__c", Label: "DealSeal differences", Type: TypeString, Length: 255},
			{Name: "DealSeal_Follow_Up__c", Label: "DealSeal follow-up due", Type: TypeDateTime},
			{Name: "DealSeal_Audit__c", Label: "DealSeal audit record", Type: TypeTextArea, Length: 32768},
		}
	}
	return fields
}

func text(name string, length int) *Field {
	return &Field{Name: name, Type: TypeString, Length: length}
}
func typed(name string, t FieldType) *Field { return &Field{Name: name, Type: t} }

func picklist(name string, values ...string) *Field {
	return &Field{Name: name, Type: TypePicklist, Length: 255, Picklist: values}
}

func ref(name, object, relationship string) *Field {
	return &Field{Name: name, Type: TypeReference, Length: 18, References: object, Relationship: relationship}
}

func required(f *Field) *Field   { f.Required = true; return f }
func readOnly(f *Field) *Field   { f.ReadOnly = true; return f }
func createOnly(f *Field) *Field { f.CreateOnly = true; return f }

// Groups of fields that many objects share.
func idField() []*Field { return []*Field{readOnly(&Field{Name: "Id", Type: TypeID, Length: 18})} }

func systemFields() []*Field {
	return []*Field{
		readOnly(typed("IsDeleted", TypeBoolean)),
		readOnly(typed("CreatedDate", TypeDateTime)),
		readOnly(ref("CreatedById", "User", "CreatedBy")),
		readOnly(typed("LastModifiedDate", TypeDateTime)),
		readOnly(ref("LastModifiedById", "User", "LastModifiedBy")),
		readOnly(typed("SystemModstamp", TypeDateTime)),
	}
}

func address(prefix string) []*Field {
	street := &Field{Name: prefix + "Street", Type: TypeTextArea, Length: 255}
	return []*Field{street, text(prefix+"City", 40), text(prefix+"State", 80), text(prefix+"PostalCode", 20), text(prefix+"Country", 80)}
}

func concat(groups ...[]*Field) []*Field {
	var all []*Field
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

// stage is a row of the org's sales process.
type stage struct {
	name, forecast string
	probability    float64
	closed, won    bool
}

func standardStages() []stage {
	return []stage{
		{"Prospecting", "Pipeline", 10, false, false},
		{"Qualification", "Pipeline", 10, false, false},
		{"Needs Analysis", "Pipeline", 20, false, false},
		{"Value Proposition", "Pipeline", 50, false, false},
		{"Id. Decision Makers", "Pipeline", 60, false, false},
		{"Perception Analysis", "Pipeline", 70, false, false},
		{"Proposal/Price Quote", "Pipeline", 75, false, false},
		{"Negotiation/Review", "Pipeline", 90, false, false},
		{"Closed Won", "Closed", 100, true, true},
		{"Closed Lost", "Omitted", 0, true, false},
	}
}

func standardObjects() []*object {
	return append(append(salesObjects(), trackedObjects()...), append(fileObjects(), append(setupObjects(), accessObjects()...)...)...)
}

func salesObjects() []*object {
	stages := picklist("StageName")
	for _, s := range standardStages() {
		stages.Picklist = append(stages.Picklist, s.name)
	}
	return []*object{
		{name: "Account", label: "Account", plural: "Accounts", prefix: "001",
			children: []childRelation{
				{"Opportunity", "AccountId", "Opportunities"}, {"Contact", "AccountId", "Contacts"},
				{"Contract", "AccountId", "Contracts"}, {"Order", "AccountId", "Orders"},
				{"ContentDocumentLink", "LinkedEntityId", "ContentDocumentLinks"}},
			fields: concat(idField(), []*Field{
				required(text("Name", 255)), text("AccountNumber", 40), typed("Website", TypeURL), typed("Phone", TypePhone),
				picklist("Industry"), picklist("Type"), ref("OwnerId", "User", "Owner"),
				{Name: "Description", Type: TypeTextArea, Length: 32000}},
				address("Billing"), address("Shipping"), systemFields())},
		{name: "Contact", label: "Contact", plural: "Contacts", prefix: "003",
			children: []childRelation{{"OpportunityContactRole", "ContactId", "OpportunityContactRoles"}},
			fields: concat(idField(), []*Field{
				text("FirstName", 40), required(text("LastName", 80)), readOnly(text("Name", 121)), text("Title", 128),
				typed("Email", TypeEmail), typed("Phone", TypePhone), ref("AccountId", "Account", "Account"), ref("OwnerId", "User", "Owner")},
				address("Mailing"), systemFields())},
		{name: "Opportunity", label: "Opportunity", plural: "Opportunities", prefix: "006",
			children: []childRelation{
				{"OpportunityLineItem", "OpportunityId", "OpportunityLineItems"},
				{"OpportunityContactRole", "OpportunityId", "OpportunityContactRoles"},
				{"OpportunityHistory", "OpportunityId", "OpportunityHistories"}, {"Quote", "OpportunityId", "Quotes"},
				{"ContentDocumentLink", "LinkedEntityId", "ContentDocumentLinks"}},
			fields: concat(idField(), []*Field{
				required(text("Name", 120)), required(stages), required(typed("CloseDate", TypeDate)),
				typed("Amount", TypeCurrency), typed("Probability", TypePercent), readOnly(typed("ExpectedRevenue", TypeCurrency)),
				readOnly(picklist("ForecastCategory")), picklist("ForecastCategoryName"), picklist("Type"), text("NextStep", 255),
				{Name: "Description", Type: TypeTextArea, Length: 32000},
				readOnly(typed("IsClosed", TypeBoolean)), readOnly(typed("IsWon", TypeBoolean)),
				readOnly(typed("HasOpportunityLineItem", TypeBoolean)), readOnly(typed("LastStageChangeDate", TypeDateTime)),
				ref("AccountId", "Account", "Account"), ref("OwnerId", "User", "Owner")},
				systemFields())},
		{name: "OpportunityHistory", label: "Opportunity History", plural: "Opportunity History", prefix: "008", fixed: true,
			fields: concat(idField(), []*Field{
				ref("OpportunityId", "Opportunity", "Opportunity"), picklist("StageName"), typed("Amount", TypeCurrency),
				typed("ExpectedRevenue", TypeCurrency), typed("CloseDate", TypeDate), typed("Probability", TypePercent),
				picklist("ForecastCategory"), typed("PrevAmount", TypeCurrency), typed("PrevCloseDate", TypeDate),
				ref("CreatedById", "User", "CreatedBy"), typed("CreatedDate", TypeDateTime), typed("SystemModstamp", TypeDateTime),
				typed("IsDeleted", TypeBoolean)})},
		{name: "OpportunityLineItem", label: "Opportunity Product", plural: "Opportunity Products", prefix: "00k",
			fields: concat(idField(), []*Field{
				required(createOnly(ref("OpportunityId", "Opportunity", "Opportunity"))), createOnly(ref("Product2Id", "Product2", "Product2")),
				readOnly(text("Name", 376)), readOnly(text("ProductCode", 255)), required(typed("Quantity", TypeDouble)),
				typed("UnitPrice", TypeCurrency), readOnly(typed("ListPrice", TypeCurrency)), typed("TotalPrice", TypeCurrency),
				readOnly(typed("Subtotal", TypeCurrency)), typed("Discount", TypePercent), typed("ServiceDate", TypeDate),
				typed("SortOrder", TypeInt), text("Description", 255)},
				systemFields())},
		{name: "OpportunityContactRole", label: "Opportunity Contact Role", plural: "Opportunity Contact Roles", prefix: "00K",
			fields: concat(idField(), []*Field{
				required(createOnly(ref("OpportunityId", "Opportunity", "Opportunity"))), required(ref("ContactId", "Contact", "Contact")),
				picklist("Role"), typed("IsPrimary", TypeBoolean)},
				systemFields())},
		{name: "Task", label: "Task", plural: "Tasks", prefix: "00T",
			fields: concat(idField(), []*Field{
				{Name: "WhatId", Type: TypeReference, Length: 18}, ref("OwnerId", "User", "Owner"), text("Subject", 255), {Name: "Description", Type: TypeTextArea, Length: 32000},
				typed("ActivityDate", TypeDate), required(picklist("Status", "Not Started", "In Progress", "Completed")), required(picklist("Priority", "High", "Normal", "Low"))},
				systemFields())},
		{name: "Product2", label: "Product", plural: "Products", prefix: "01t",
			fields: concat(idField(), []*Field{
				required(text("Name", 255)), text("ProductCode", 255), picklist("Family"), typed("IsActive", TypeBoolean),
				{Name: "Description", Type: TypeTextArea, Length: 4000}},
				systemFields())},
	}
}

func fileObjects() []*object {
	return []*object{
		{name: "ContentVersion", label: "Content Version", plural: "Content Versions", prefix: "068",
			fields: concat(idField(), []*Field{
				createOnly(ref("ContentDocumentId", "ContentDocument", "ContentDocument")), readOnly(typed("IsLatest", TypeBoolean)),
				readOnly(text("VersionNumber", 20)), text("Title", 255), {Name: "Description", Type: TypeTextArea, Length: 1000},
				createOnly(text("PathOnClient", 500)), text("ReasonForChange", 1000), createOnly(typed("VersionData", TypeBase64)),
				readOnly(typed("ContentSize", TypeInt)), readOnly(text("Checksum", 50)), readOnly(text("FileType", 20)),
				readOnly(text("FileExtension", 40)), createOnly(&Field{Name: "FirstPublishLocationId", Type: TypeReference, Length: 18}),
				readOnly(picklist("PublishStatus")), createOnly(picklist("Origin")), createOnly(picklist("ContentLocation")),
				typed("IsMajorVersion", TypeBoolean), ref("OwnerId", "User", "Owner")},
				systemFields())},
		{name: "ContentDocument", label: "Content Document", plural: "Content Documents", prefix: "069",
			children: []childRelation{
				{"ContentVersion", "ContentDocumentId", "ContentVersions"}, {"ContentDocumentLink", "ContentDocumentId", "ContentDocumentLinks"}},
			fields: concat(idField(), []*Field{
				text("Title", 255), {Name: "Description", Type: TypeTextArea, Length: 1000},
				readOnly(ref("LatestPublishedVersionId", "ContentVersion", "LatestPublishedVersion")), readOnly(typed("ContentSize", TypeInt)),
				readOnly(text("FileType", 20)), readOnly(text("FileExtension", 40)), readOnly(picklist("PublishStatus")), ref("OwnerId", "User", "Owner")},
				systemFields())},
		{name: "ContentDocumentLink", label: "Content Document Link", plural: "Content Document Links", prefix: "06A",
			fields: concat(idField(), []*Field{
				required(createOnly(ref("ContentDocumentId", "ContentDocument", "ContentDocument"))),
				required(createOnly(&Field{Name: "LinkedEntityId", Type: TypeReference, Length: 18})),
				picklist("ShareType", "V", "C", "I"), picklist("Visibility", "AllUsers", "InternalUsers", "SharedUsers"),
				readOnly(typed("IsDeleted", TypeBoolean)), readOnly(typed("SystemModstamp", TypeDateTime))})},
	}
}

func setupObjects() []*object {
	return []*object{
		{name: "User", label: "User", plural: "Users", prefix: "005", fixed: true,
			fields: concat(idField(), []*Field{
				text("Username", 80), text("FirstName", 40), text("LastName", 80), text("Name", 121), typed("Email", TypeEmail),
				typed("IsActive", TypeBoolean), picklist("TimeZoneSidKey"), picklist("UserType")},
				systemFields()[1:])},
		{name: "Organization", label: "Organization", plural: "Organizations", prefix: "00D", fixed: true,
			fields: concat(idField(), []*Field{
				text("Name", 80), typed("IsSandbox", TypeBoolean), text("InstanceName", 5), picklist("OrganizationType"),
				picklist("TimeZoneSidKey"), picklist("DefaultLocaleSidKey"), picklist("LanguageLocaleKey"),
				text("NamespacePrefix", 15), typed("TrialExpirationDate", TypeDateTime)},
				systemFields()[1:])},
		{name: userRecordAccess, label: "User Record Access", plural: "User Record Access", prefix: "0Jt", fixed: true,
			fields: []*Field{
				ref("UserId", "User", ""), {Name: "RecordId", Type: TypeReference, Length: 18}, typed("HasReadAccess", TypeBoolean),
				typed("HasEditAccess", TypeBoolean)}},
		{name: userPermissionAccess, label: "User Permission Access", plural: "User Permission Access", prefix: "0a1", fixed: true,
			fields: []*Field{
				typed("PermissionsModifyAllData", TypeBoolean), typed("PermissionsViewAllData", TypeBoolean), typed("PermissionsManageUsers", TypeBoolean),
				typed("PermissionsAuthorApex", TypeBoolean), typed("PermissionsModifyMetadata", TypeBoolean), typed("PermissionsCustomizeApplication", TypeBoolean),
				typed("PermissionsEditActivatedOrders", TypeBoolean)}},
		{name: "OpportunityStage", label: "Opportunity Stage", plural: "Opportunity Stages", prefix: "01J", fixed: true,
			fields: concat(idField(), []*Field{
				text("ApiName", 255), text("MasterLabel", 255), typed("IsActive", TypeBoolean), typed("IsClosed", TypeBoolean),
				typed("IsWon", TypeBoolean), typed("SortOrder", TypeInt), typed("DefaultProbability", TypePercent),
				picklist("ForecastCategory"), picklist("ForecastCategoryName"), text("Description", 255)},
				systemFields()[1:])},
	}
}

// define adds an object with its custom fields.
func (o *Org) define(def *object, custom []Field) {
	for _, f := range custom {
		def.fields = append(def.fields, &f)
	}
	def.byName = map[string]*Field{}
	for _, f := range def.fields {
		def.byName[lower(f.Name)] = f
	}
	o.objects[lower(def.name)] = def
	o.order = append(o.order, def)
	o.tables[def.name] = newTable()
}

// object returns the named type, or nil if the user cannot see it.
func (o *Org) object(name string) *object {
	if o.hidden[lower(name)] {
		return nil
	}
	return o.objects[lower(name)]
}

// field returns the named column, or nil if the user cannot see it: for the
// real service, too, both look alike.
func (o *Org) field(def *object, name string) *Field {
	if o.hidden[lower(def.name+"."+name)] {
		return nil
	}
	return def.byName[lower(name)]
}

// parent returns the reference whose relationship has the given name.
func (o *Org) parent(def *object, relationship string) *Field {
	for _, f := range def.fields {
		if f.Relationship != "" && strings.EqualFold(f.Relationship, relationship) && o.field(def, f.Name) != nil {
			return f
		}
	}
	return nil
}

// editable says whether the user may write the field.
func (o *Org) editable(def *object, f *Field) bool {
	return !f.ReadOnly && !def.fixed && !o.readOnly[lower(def.name+"."+f.Name)]
}

// byPrefix returns the object that an ID belongs to. Histories of fields share a prefix.
func (o *Org) byPrefix(id string) (first *object) {
	for _, def := range o.order {
		switch {
		case !strings.HasPrefix(id, def.prefix):
		case o.tables[def.name].byID[id] != nil:
			return def
		case first == nil:
			first = def
		}
	}
	return first
}

func lower(s string) string { return strings.ToLower(s) }
