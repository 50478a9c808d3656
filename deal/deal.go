// Package deal holds the words of the trade and the rules that need no I/O: what a CRM account, a stage entry, a
// record, a sealing and a receipt are, how a transaction ID is made, and what each step of a sealing is called.
//
// Everything here is a plain value: safe to copy, safe to compare, and free of clocks, files and networks. Times are
// UTC and cut to the millisecond, because that is what the CRMs and the store keep.
package deal

import (
	"strings"
	"time"
)

// TenantID is the immutable id of a configured tenant. Its display name may change; the id may not.
type TenantID string

// Kind names a family of CRM: "salesforce" or "hubspot".
type Kind string

// The CRM families that have a connector.
const (
	Salesforce Kind = "salesforce"
	HubSpot    Kind = "hubspot"
)

// AccountID names one org or portal across all CRM kinds: "<kind>:<the CRM's own ID>".
type AccountID string

// Account is what a CRM says of itself.
type Account struct {
	Kind Kind
	// ID is the CRM's own: the 18-character organisation ID of Salesforce, the portal ID of HubSpot.
	ID string
	// Name is the display name of the organisation, for people only.
	Name string
	// Sandbox is true for Salesforce sandboxes and scratch orgs and for HubSpot sandbox and developer-test portals.
	Sandbox bool
	// TimeZone is an IANA name, empty when the CRM does not say.
	TimeZone string
	// Clock is the CRM's own time when it answered. It is the only clock that may become an activation time.
	Clock time.Time
}

// AccountID returns the name under which the account's entries are kept.
func (a Account) AccountID() AccountID { return AccountID(string(a.Kind) + ":" + a.ID) }

// Split returns the CRM kind and the CRM's own ID.
func (a AccountID) Split() (Kind, string) {
	k, id, _ := strings.Cut(string(a), ":")
	return Kind(k), id
}

// Ref names a record: an object type ("Opportunity", "deals") and the CRM's canonical ID of the record (18 characters
// for Salesforce).
type Ref struct {
	Object string `json:"object"`
	ID     string `json:"id"`
}

func (r Ref) String() string { return r.Object + "/" + r.ID }

// Budget is how much of a rolling API allowance is used. Max 0 means that the CRM has not said yet.
type Budget struct {
	Used, Max int
	At        time.Time
}

// Share returns Used/Max, or 0 when the allowance is not known.
func (b Budget) Share() float64 {
	if b.Max <= 0 {
		return 0
	}
	return float64(b.Used) / float64(b.Max)
}
