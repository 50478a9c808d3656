package salesforce

import (
	"maps"
	"math/big"
	"slices"
	"strings"
)

// Quotes, contracts and orders, whose fields have a history only where an administrator has them tracked.

// historyOf is the prefix of the IDs of all histories of fields.
const historyOf = "017"

func trackedObjects() []*object {
	product := func(parent, object, number string) []*Field {
		return []*Field{
			required(createOnly(ref(parent, object, object))), createOnly(ref("Product2Id", "Product2", "Product2")), readOnly(text(number, 80)),
			required(typed("Quantity", TypeDouble)), required(typed("UnitPrice", TypeCurrency)), readOnly(typed("ListPrice", TypeCurrency)),
			readOnly(typed("TotalPrice", TypeCurrency)), typed("ServiceDate", TypeDate), text("Description", 255)}
	}
	long := func(name string) *Field { return &Field{Name: name, Type: TypeTextArea, Length: 32000} }
	return []*object{
		{name: "Quote", label: "Quote", plural: "Quotes", prefix: "0Q0",
			children: []childRelation{{"QuoteLineItem", "QuoteId", "QuoteLineItems"}, {"QuoteHistory", "QuoteId", "Histories"},
				{"ContentDocumentLink", "LinkedEntityId", "ContentDocumentLinks"}},
			fields: concat(idField(), []*Field{
				required(text("Name", 255)), readOnly(text("QuoteNumber", 30)), required(createOnly(ref("OpportunityId", "Opportunity", "Opportunity"))),
				readOnly(ref("AccountId", "Account", "Account")), ref("ContactId", "Contact", "Contact"), ref("OwnerId", "User", "Owner"),
				picklist("Status", "Draft", "Needs Review", "In Review", "Approved", "Rejected", "Presented", "Accepted", "Denied"),
				typed("ExpirationDate", TypeDate), typed("Email", TypeEmail), typed("Phone", TypePhone), readOnly(typed("Subtotal", TypeCurrency)),
				readOnly(typed("TotalPrice", TypeCurrency)), typed("Tax", TypeCurrency), typed("ShippingHandling", TypeCurrency), readOnly(typed("GrandTotal", TypeCurrency)),
				text("BillingName", 255), long("Description")},
				address("Billing"), systemFields())},
		{name: "QuoteLineItem", label: "Quote Line Item", plural: "Quote Line Items", prefix: "0QL",
			fields: concat(idField(), product("QuoteId", "Quote", "LineNumber"),
				[]*Field{readOnly(typed("Subtotal", TypeCurrency)), typed("Discount", TypePercent), typed("SortOrder", TypeInt)}, systemFields())},
		{name: "Contract", label: "Contract", plural: "Contracts", prefix: "800",
			children: []childRelation{{"Order", "ContractId", "Orders"}, {"ContractHistory", "ContractId", "Histories"},
				{"ContentDocumentLink", "LinkedEntityId", "ContentDocumentLinks"}},
			fields: concat(idField(), []*Field{
				readOnly(text("ContractNumber", 30)), text("Name", 80), required(ref("AccountId", "Account", "Account")), ref("OwnerId", "User", "Owner"),
				required(picklist("Status", "In Approval Process", "Activated", "Draft")), typed("StartDate", TypeDate), readOnly(typed("EndDate", TypeDate)),
				typed("ContractTerm", TypeInt), ref("CustomerSignedId", "Contact", "CustomerSigned"), typed("CustomerSignedDate", TypeDate),
				{Name: "SpecialTerms", Type: TypeTextArea, Length: 4000}, long("Description")},
				address("Billing"), systemFields())},
		{name: "Order", label: "Order", plural: "Orders", prefix: "801",
			children: []childRelation{{"OrderItem", "OrderId", "OrderItems"}, {"OrderHistory", "OrderId", "Histories"},
				{"ContentDocumentLink", "LinkedEntityId", "ContentDocumentLinks"}},
			fields: concat(idField(), []*Field{
				readOnly(text("OrderNumber", 30)), text("Name", 80), required(ref("AccountId", "Account", "Account")), ref("OwnerId", "User", "Owner"),
				ref("BillToContactId", "Contact", "BillToContact"), ref("ContractId", "Contract", "Contract"), ref("QuoteId", "Quote", "Quote"), ref("OpportunityId", "Opportunity", "Opportunity"),
				required(picklist("Status", "Draft", "In Review", "Activated")), required(typed("EffectiveDate", TypeDate)), typed("EndDate", TypeDate), picklist("Type"),
				text("PoNumber", 80), readOnly(typed("TotalAmount", TypeCurrency)), long("Description")},
				address("Billing"), address("Shipping"), systemFields())},
		{name: "OrderItem", label: "Order Product", plural: "Order Products", prefix: "802",
			fields: concat(idField(), product("OrderId", "Order", "OrderItemNumber"), []*Field{typed("EndDate", TypeDate)}, systemFields())},
		fieldHistory("Quote"), fieldHistory("Contract"), fieldHistory("Order"),
		{name: "EntityDefinition", label: "Entity Definition", plural: "Entity Definitions", prefix: "4ie", fixed: true,
			fields: concat(idField(), []*Field{text("QualifiedApiName", 70)})},
		{name: fieldDefinition, label: "Field Definition", plural: "Field Definitions", prefix: "4fe", fixed: true,
			fields: []*Field{text("QualifiedApiName", 70), ref("EntityDefinitionId", "EntityDefinition", "EntityDefinition"), typed("IsFieldHistoryTracked", TypeBoolean)}},
	}
}

func fieldHistory(of string) *object {
	return &object{name: of + "History", label: of + " History", plural: of + " History", prefix: historyOf, fixed: true,
		fields: concat(idField(), []*Field{
			ref(of+"Id", of, of), picklist("Field"), picklist("DataType"), typed("OldValue", TypeAny), typed("NewValue", TypeAny),
			ref("CreatedById", "User", "CreatedBy"), typed("CreatedDate", TypeDateTime), typed("IsDeleted", TypeBoolean)})}
}

// Track has the history of a field ("Order.Status") kept from now on, or ends it. From the beginning none is.
func (o *Org) Track(field string, on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tracked[lower(field)] = on
}

// writeFieldHistory writes a row for a new record of an object of which any field is tracked, and one for each tracked field
// that was changed.
func (t *tx) writeFieldHistory(r *row, before map[string]any) {
	history := t.o.objects[lower(r.object.name+"History")]
	if history == nil {
		return
	}
	write := func(field string, was, is any) {
		t.insertRow(history, map[string]any{r.object.name + "Id": r.id, "Field": field, "DataType": "Text", "OldValue": was, "NewValue": is,
			"CreatedById": t.user, "CreatedDate": t.stamp, "IsDeleted": false})
	}
	values := r.latest()
	for _, f := range r.object.fields {
		switch {
		case !t.o.tracked[lower(r.object.name+"."+f.Name)]:
		case before == nil:
			write("created", nil, nil)
			return
		case before[f.Name] != values[f.Name]:
			write(f.Name, before[f.Name], values[f.Name])
		}
	}
}

// totals are what the lines of a record are summed up to.
var totals = map[string]struct {
	object, parent string
	sum            func(before map[string]any, sum *big.Rat) map[string]any
}{
	"QuoteLineItem": {"Quote", "QuoteId", func(quote map[string]any, sum *big.Rat) map[string]any {
		grand := new(big.Rat).Add(sum, exact(quote["Tax"]))
		return map[string]any{"Subtotal": round2(sum), "TotalPrice": round2(sum), "GrandTotal": round2(grand.Add(grand, exact(quote["ShippingHandling"])))}
	}},
	"OrderItem": {"Order", "OrderId", func(_ map[string]any, sum *big.Rat) map[string]any {
		return map[string]any{"TotalAmount": round2(sum)}
	}},
}

// sumUp computes the totals of the record that a line belongs to.
func (t *tx) sumUp(line *row) {
	of, ok := totals[line.object.name]
	if !ok {
		return
	}
	id, _ := line.latest()[of.parent].(string)
	sum := new(big.Rat)
	for _, item := range t.o.tables[line.object.name].referring(of.parent, []string{id}) {
		if v := item.latest(); v[of.parent] == id && !item.deleted() {
			sum.Add(sum, exact(v["TotalPrice"]))
		}
	}
	record := t.o.tables[of.object].byID[id]
	changes := of.sum(record.latest(), sum)
	t.touch(changes)
	t.write(record, changes)
}

// AddLine adds a line to a quote or an order. A "Product2" value of map[string]any makes the product, too.
func (o *Org) AddLine(id string, fields map[string]any) (line string, err error) {
	err = o.act(func(t *tx) *Error {
		r, e := o.rowOf(id)
		if e != nil {
			return e
		}
		for name, of := range totals {
			if of.object == r.object.name {
				all := maps.Clone(fields)
				all[of.parent] = r.id
				line, e = t.addWith(name, "Product2", "Product2Id", all)
				return e
			}
		}
		return &Error{Status: 400, Code: "INVALID_TYPE", Message: r.object.name + " has no lines"}
	})
	return line, err
}

const fieldDefinition = "FieldDefinition"

// definitionRows computes what FieldDefinition says of all fields that the user sees.
func (o *Org) definitionRows() (rows []*row) {
	for _, def := range o.order {
		for _, f := range def.fields {
			if o.object(def.name) == nil || o.field(def, f.Name) == nil {
				continue
			}
			rows = append(rows, &row{object: o.objects[lower(fieldDefinition)], versions: []version{{values: map[string]any{
				"QualifiedApiName": f.Name, "EntityDefinitionId": def.name, "IsFieldHistoryTracked": o.tracked[lower(def.name+"."+f.Name)],
			}}}})
		}
	}
	return rows
}

// definitionFiltered says whether a query of FieldDefinition names its object, as it has to.
func definitionFiltered(where *condition) bool {
	named := false
	conjuncts(where, func(c *condition) {
		named = named || (c.op == "=" || c.op == "in") && slices.ContainsFunc(c.path.names, func(n string) bool { return strings.HasPrefix(lower(n), "entitydefinition") })
	})
	return named
}
