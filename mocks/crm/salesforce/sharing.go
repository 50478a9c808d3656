package salesforce

import (
	"slices"
	"strings"
)

// Sharing is what the integration user may do with opportunities, quotes, contracts and orders, and what hangs on them, that other
// users own.
type Sharing int

// The ways to share. A private record is left out of every answer as if it did not exist.
const (
	SharedForWriting Sharing = iota
	SharedForReading
	Private
)

// SetSharing sets the org's default for these, as seen by the integration user without further permissions.
func (o *Org) SetSharing(s Sharing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sharing = s
}

// ownedObjects are those whose records are shared so.
var ownedObjects = []string{"Opportunity", "Quote", "Contract", "Order"}

// hangsOn are the fields of the objects that go with such a record.
var hangsOn = map[string]string{
	"OpportunityHistory": "OpportunityId", "OpportunityLineItem": "OpportunityId", "OpportunityContactRole": "OpportunityId",
	"QuoteHistory": "QuoteId", "QuoteLineItem": "QuoteId", "ContractHistory": "ContractId", "OrderHistory": "OrderId", "OrderItem": "OrderId",
	"ContentDocumentLink": "LinkedEntityId",
}

// ownerOf is the owner of the record that a row is or hangs on; empty for rows of other objects.
func (o *Org) ownerOf(r *row) string {
	id := r.id
	if field, ok := hangsOn[r.object.name]; ok {
		id, _ = r.latest()[field].(string)
	} else if !slices.Contains(ownedObjects, r.object.name) {
		return ""
	}
	for _, name := range ownedObjects {
		if deal := o.tables[name].byID[id]; deal != nil {
			owner, _ := deal.latest()["OwnerId"].(string)
			return owner
		}
	}
	return ""
}

// foreign says whether a row is, or hangs on, another user's record.
func (o *Org) foreign(r *row) bool {
	owner := o.ownerOf(r)
	return owner != "" && owner != o.integration
}

// visible says whether the integration user sees a row.
func (o *Org) visible(r *row) bool { return o.sharing != Private || !o.foreign(r) }

const userRecordAccess = "UserRecordAccess"

// accessRows computes what UserRecordAccess says of the integration user: a row for each owned record that it sees.
func (o *Org) accessRows() []*row {
	var rows, owned []*row
	for _, name := range ownedObjects {
		owned = append(owned, o.tables[name].rows...)
	}
	for _, r := range owned {
		if !o.visible(r) || r.deleted() {
			continue
		}
		rows = append(rows, &row{object: o.objects[lower(userRecordAccess)], versions: []version{{values: map[string]any{
			"UserId": o.integration, "RecordId": r.id, "HasReadAccess": true,
			"HasEditAccess": !o.locked[r.id] && (o.sharing == SharedForWriting || !o.foreign(r)),
		}}}})
	}
	return rows
}

const userPermissionAccess = "UserPermissionAccess"

// Permit gives the integration user permissions of its profile, such as ViewAllData. AdminRights go with CustomizeApplication.
func (o *Org) Permit(names ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.permitted = append(o.permitted, names...)
}

// permissionRows is the one row of what the integration user is permitted.
func (o *Org) permissionRows() []*row {
	def, values := o.objects[lower(userPermissionAccess)], map[string]any{}
	for _, f := range def.fields {
		values[f.Name] = slices.Contains(o.permitted, strings.TrimPrefix(f.Name, "Permissions"))
	}
	if o.admin {
		values["PermissionsCustomizeApplication"] = true
	}
	return []*row{{object: def, versions: []version{{values: values}}}}
}

// accessFiltered says whether a query of UserRecordAccess names one user and its records, as it has to.
func accessFiltered(where *condition) bool {
	user, records := false, false
	conjuncts(where, func(c *condition) {
		name := c.path.names[len(c.path.names)-1]
		user = user || c.op == "=" && strings.EqualFold(name, "UserId")
		records = records || (c.op == "=" || c.op == "in") && c.sub == nil && len(c.values) <= 200 && strings.EqualFold(name, "RecordId")
	})
	return user && records
}
