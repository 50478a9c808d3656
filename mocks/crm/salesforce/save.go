package salesforce

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"
)

// insert creates a record from JSON values under the org's rules. The caller
// rolls back after an error.
func (t *tx) insert(def *object, in map[string]any) (*row, *Error) {
	if err := t.mayChangeSetup(def); err != nil {
		return nil, err
	}
	values, err := t.clean(def, nil, in)
	if err != nil {
		return nil, err
	}
	if err := t.o.requiredPresent(def, values); err != nil {
		return nil, err
	}
	if def.name == "ContentVersion" {
		return t.insertFile(values)
	}
	if _, own := def.byName["ownerid"]; own && values["OwnerId"] == nil {
		values["OwnerId"] = t.user
	}
	t.derive(def, nil, values)
	t.stampNew(values)
	r := t.insertRow(def, values)
	return r, t.afterSave(r, nil)
}

// update changes a record under the org's rules.
func (t *tx) update(r *row, in map[string]any) *Error {
	if r.deleted() {
		return entityDeleted()
	}
	if t.o.locked[r.id] {
		return &Error{Status: 400, Code: "ENTITY_IS_LOCKED", Message: "This record is locked. If you need to edit it, contact your admin."}
	}
	if t.user == t.o.integration && t.o.sharing != SharedForWriting && t.o.foreign(r) {
		return &Error{Status: 400, Code: "INSUFFICIENT_ACCESS_OR_READONLY", Message: "insufficient access rights on object id"}
	}
	changes, err := t.clean(r.object, r, in)
	if err != nil {
		return err
	}
	before := r.latest()
	t.derive(r.object, before, changes)
	t.touch(changes)
	t.write(r, changes)
	return t.afterSave(r, before)
}

// remove deletes a record and what hangs on it; the rows stay for queryAll.
func (t *tx) remove(r *row) *Error {
	if r.deleted() {
		return entityDeleted()
	}
	if r.object.fixed || r.object.name == "ContentVersion" {
		return &Error{Status: 400, Code: "INSUFFICIENT_ACCESS_OR_READONLY", Message: "insufficient access rights on object id"}
	}
	changes := map[string]any{"IsDeleted": true}
	t.touch(changes)
	t.write(r, changes)
	for _, child := range r.object.children {
		if r.object.name == "Account" && child.object != "ContentDocumentLink" {
			continue // a lookup that is merely cleared
		}
		for _, c := range t.o.tables[child.object].rows {
			if c.latest()[child.field] == r.id && !c.deleted() {
				t.write(c, maps.Clone(changes))
			}
		}
	}
	if r.object.name == "OpportunityLineItem" {
		return t.rollUp(r.latest()["OpportunityId"])
	}
	t.sumUp(r)
	return nil
}

func (t *tx) stampNew(values map[string]any) {
	values["IsDeleted"] = false
	values["CreatedDate"], values["CreatedById"] = t.stamp, t.user
	t.touch(values)
}

func (t *tx) touch(values map[string]any) {
	values["LastModifiedDate"], values["LastModifiedById"], values["SystemModstamp"] = t.stamp, t.user, t.stamp
}

// clean checks the names, rights and values of incoming fields; r is nil on create.
func (t *tx) clean(def *object, r *row, in map[string]any) (map[string]any, *Error) {
	out := map[string]any{}
	var refused []string
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if name == "attributes" {
			continue
		}
		f := t.o.field(def, name)
		switch {
		case f == nil:
			return nil, &Error{Status: 400, Code: "INVALID_FIELD", Message: fmt.Sprintf("No such column '%s' on sobject of type %s", name, def.name)}
		case f.Name == "Id" && r == nil:
			return nil, &Error{Status: 400, Code: "INVALID_FIELD_FOR_INSERT_UPDATE", Message: "cannot specify Id in an insert call", Fields: []string{"Id"}}
		case f.Name == "Id":
			return nil, &Error{Status: 400, Code: "INVALID_FIELD", Message: "The Id field should not be specified in the sobject data."}
		case !t.o.editable(def, f) || r != nil && f.CreateOnly:
			refused = append(refused, f.Name)
			continue
		}
		v, err := coerce(f, in[name])
		if err == nil {
			err = t.validate(def, r, f, v)
		}
		if err != nil {
			return nil, err
		}
		out[f.Name] = v
	}
	if refused != nil {
		return nil, &Error{Status: 400, Code: "INVALID_FIELD_FOR_INSERT_UPDATE", Fields: refused,
			Message: "Unable to create/update fields: " + strings.Join(refused, ", ") + ". Please check the security settings of this field and verify that it is read/write for your profile or permission set."}
	}
	return out, nil
}

func (t *tx) validate(def *object, r *row, f *Field, v any) *Error {
	switch {
	case v == nil && f.Required && r != nil:
		return requiredMissing([]string{f.Name})
	case v == nil:
		return nil
	case f.Restricted && !slices.Contains(f.Picklist, v.(string)):
		return &Error{Status: 400, Code: "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", Fields: []string{f.Name},
			Message: f.label() + ": bad value for restricted picklist field: " + v.(string)}
	case f.Type == TypeReference:
		return t.o.checkReference(f, v.(string))
	case f.Unique:
		for _, other := range t.o.tables[def.name].having(f.Name, fmt.Sprint(v)) {
			if o, _ := other.latest()[f.Name].(string); other != r && !other.deleted() && strings.EqualFold(o, fmt.Sprint(v)) {
				return &Error{Status: 400, Code: "DUPLICATE_VALUE", Fields: []string{},
					Message: "duplicate value found: " + f.Name + " duplicates value on record with id: " + other.id}
			}
		}
	}
	return nil
}

func (o *Org) checkReference(f *Field, id string) *Error {
	target := o.byPrefix(id)
	if f.References != "" && (target == nil || target.name != f.References) {
		return &Error{Status: 400, Code: "MALFORMED_ID", Message: f.label() + ": id value of incorrect type: " + id, Fields: []string{f.Name}}
	}
	if target != nil {
		if r := o.tables[target.name].byID[id]; r != nil && !r.deleted() {
			return nil
		}
	}
	return &Error{Status: 400, Code: "INVALID_CROSS_REFERENCE_KEY", Message: "invalid cross reference id", Fields: []string{f.Name}}
}

func (o *Org) requiredPresent(def *object, values map[string]any) *Error {
	var missing []string
	for _, f := range def.fields {
		if f.Required && values[f.Name] == nil {
			missing = append(missing, f.Name)
		}
	}
	if missing != nil {
		return requiredMissing(missing)
	}
	return nil
}

func requiredMissing(fields []string) *Error {
	return &Error{Status: 400, Code: "REQUIRED_FIELD_MISSING", Fields: fields,
		Message: "Required fields are missing: [" + strings.Join(fields, ", ") + "]"}
}

func entityDeleted() *Error {
	return &Error{Status: 404, Code: "ENTITY_IS_DELETED", Message: "entity is deleted", Fields: []string{}}
}

// derive sets the fields that the org computes from the changed ones. old is nil on create.
func (t *tx) derive(def *object, old, values map[string]any) {
	switch def.name {
	case "Opportunity":
		t.deriveOpportunity(old, values)
	case "OpportunityLineItem", "QuoteLineItem", "OrderItem":
		t.deriveLineItem(old, values)
	case "Quote":
		if id, ok := values["OpportunityId"].(string); ok {
			values["AccountId"] = t.o.tables["Opportunity"].byID[id].latest()["AccountId"]
		}
		if old == nil && values["Status"] == nil {
			values["Status"] = "Draft"
		}
	case "Contact":
		first, _ := after(old, values, "FirstName").(string)
		last, _ := after(old, values, "LastName").(string)
		values["Name"] = strings.TrimSpace(first + " " + last)
	}
}

// after is the value of a field once the changes are made.
func after(old, changes map[string]any, field string) any {
	if v, ok := changes[field]; ok {
		return v
	}
	return old[field]
}

func (t *tx) deriveOpportunity(old, values map[string]any) {
	if old["HasOpportunityLineItem"] == true {
		delete(values, "Amount") // the sum of the products; an update of it is ignored
	}
	if old == nil {
		values["HasOpportunityLineItem"] = false
	}
	name, _ := values["StageName"].(string)
	if name != "" && name != old["StageName"] {
		values["LastStageChangeDate"] = t.stamp
		t.o.applyStage(name, values)
	}
	amount, probability := after(old, values, "Amount"), after(old, values, "Probability")
	values["ExpectedRevenue"] = nil
	if amount != nil && probability != nil {
		p := new(big.Rat).Mul(exact(amount), exact(probability))
		values["ExpectedRevenue"] = round2(p.Quo(p, big.NewRat(100, 1)))
	}
}

// applyStage sets what follows from a stage of the sales process. A value that
// is not in the process is accepted, as the picklist is not restricted.
func (o *Org) applyStage(name string, values map[string]any) {
	for _, s := range o.tables["OpportunityStage"].rows {
		def := s.latest()
		if def["ApiName"] != name {
			continue
		}
		values["IsClosed"], values["IsWon"] = def["IsClosed"], def["IsWon"]
		values["ForecastCategory"], values["ForecastCategoryName"] = def["ForecastCategory"], def["ForecastCategoryName"]
		if _, given := values["Probability"]; !given {
			values["Probability"] = def["DefaultProbability"]
		}
		return
	}
}

func (t *tx) deriveLineItem(old, values map[string]any) {
	if id, ok := values["Product2Id"].(string); ok {
		product := t.o.tables["Product2"].byID[id].latest()
		values["Name"], values["ProductCode"] = product["Name"], product["ProductCode"]
	}
	quantity := exact(after(old, values, "Quantity"))
	if total := values["TotalPrice"]; total != nil && values["UnitPrice"] == nil && quantity.Sign() != 0 {
		values["UnitPrice"] = round2(new(big.Rat).Quo(exact(total), quantity))
		values["Subtotal"] = total
		return
	}
	subtotal := new(big.Rat).Mul(quantity, exact(after(old, values, "UnitPrice")))
	values["Subtotal"] = round2(subtotal)
	rate := new(big.Rat).Sub(big.NewRat(1, 1), new(big.Rat).Quo(exact(after(old, values, "Discount")), big.NewRat(100, 1)))
	values["TotalPrice"] = round2(subtotal.Mul(subtotal, rate))
}

// afterSave writes what else follows from a saved record; before is nil on create.
func (t *tx) afterSave(r *row, before map[string]any) *Error {
	switch r.object.name {
	case "Opportunity":
		t.writeHistory(r, before)
	case "OpportunityLineItem":
		id := r.latest()["OpportunityId"]
		if t.rollUps == nil {
			return t.rollUp(id)
		}
		if !slices.Contains(t.rollUps, id) {
			t.rollUps = append(t.rollUps, id)
		}
	case "Quote", "Contract", "Order":
		t.writeFieldHistory(r, before)
	case "QuoteLineItem", "OrderItem":
		t.sumUp(r)
	case "ContentDocumentLink":
		return t.checkLink(r)
	case "FieldPermissions", "PermissionSet", "PermissionSetAssignment":
		t.o.giveRights()
	}
	return nil
}

// rollUp makes the Opportunity's amount the sum of its products.
func (t *tx) rollUp(opportunity any) *Error {
	id, _ := opportunity.(string)
	opp := t.o.tables["Opportunity"].byID[id]
	sum, found := new(big.Rat), false
	for _, item := range t.o.tables["OpportunityLineItem"].referring("OpportunityId", []string{id}) {
		if v := item.latest(); v["OpportunityId"] == id && !item.deleted() {
			sum.Add(sum, exact(v["TotalPrice"]))
			found = true
		}
	}
	before := opp.latest()
	changes := map[string]any{"Amount": round2(sum)}
	t.deriveOpportunity(map[string]any{"Probability": before["Probability"], "StageName": before["StageName"]}, changes)
	changes["HasOpportunityLineItem"] = found
	t.touch(changes)
	t.write(opp, changes)
	return t.afterSave(opp, before)
}

// historyFields are the changes that the org keeps a history row of.
func historyFields() []string { return []string{"StageName", "Amount", "Probability", "CloseDate"} }

func (t *tx) writeHistory(r *row, before map[string]any) {
	values := r.latest()
	changed := func(f string) bool { return before[f] != values[f] }
	if before != nil && !slices.ContainsFunc(historyFields(), changed) {
		return
	}
	h := map[string]any{"OpportunityId": r.id, "CreatedById": t.user, "CreatedDate": t.stamp, "SystemModstamp": t.stamp,
		"IsDeleted": false, "PrevAmount": before["Amount"], "PrevCloseDate": before["CloseDate"]}
	for _, f := range append(historyFields(), "ExpectedRevenue", "ForecastCategory") {
		h[f] = values[f]
	}
	t.insertRow(t.o.objects["opportunityhistory"], h)
}

// modified is the moment that conditional requests compare with.
func modified(values map[string]any) time.Time {
	m, _ := values["SystemModstamp"].(time.Time)
	return m
}
