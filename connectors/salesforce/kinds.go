package salesforce

import (
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// kind is an object whose stage changes can be watched (docs/objects.md).
type kind struct {
	name, plural string // API name, and several of them for people
	prefix       string // begins their IDs
	stage        string // the field that rules watch
	// tracked: the history is that of fields, which has rows only while an administrator has the field tracked. Each bears the
	// value before it. Without it the history is OpportunityHistory, which every org keeps, and whose rows bear the stage only.
	tracked bool
}

// history is the object whose rows say when a record has changed, and parent their field that names the record.
func (k kind) history() string { return k.name + "History" }
func (k kind) parent() string  { return k.name + "Id" }

// Object is the object of rules that name none.
const Object = "Opportunity"

// kinds are the objects in the order in which their histories are read.
var kinds = []kind{
	{name: Object, plural: "opportunities", prefix: "006", stage: "StageName"},
	{name: "Quote", plural: "quotes", prefix: "0Q0", stage: "Status", tracked: true},
	{name: "Contract", plural: "contracts", prefix: "800", stage: "Status", tracked: true},
	{name: "Order", plural: "orders", prefix: "801", stage: "Status", tracked: true},
}

// Objects are the API names of the objects that rules may watch.
func Objects() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// kindNamed finds an object by its API name.
func kindNamed(name string) (kind, error) {
	if i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name }); i >= 0 {
		return kinds[i], nil
	}
	return kind{}, refuse("object %q is not supported: dealseal seals for %s", name, strings.Join(Objects(), ", "))
}

// kindsOf are the objects that a probe is about.
func kindsOf(p connectors.Probe) (its []kind) {
	for _, k := range kinds {
		if len(of(k, p.Watches)) > 0 || len(p.Watches) == 0 && k.name == Object {
			its = append(its, k)
		}
	}
	return its
}

// kindOf finds the object of a record by its ID, which must be in canonical form.
func kindOf(id string) (k kind, ok bool) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return strings.HasPrefix(id, k.prefix) })
	if i < 0 {
		return kind{}, false
	}
	return kinds[i], true
}

// checkRef returns the canonical form of what ref names, and its object.
func checkRef(ref deal.Ref) (deal.Ref, kind, error) {
	k, err := kindNamed(ref.Object)
	if err != nil {
		return ref, kind{}, err
	}
	id, err := CanonicalID(ref.ID)
	if err != nil {
		return ref, kind{}, refuse("record ID %q: %v", ref.ID, err)
	}
	return deal.Ref{Object: k.name, ID: id}, k, nil
}
