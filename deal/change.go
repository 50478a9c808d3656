package deal

import (
	"encoding/json"
	"fmt"
	"time"
)

// Watch is what a connector must know of a rule to find its stage entries.
type Watch struct {
	// Rule is the rule's immutable id.
	Rule string
	// Object is the CRM's object type.
	Object string
	// Pipeline limits HubSpot deals to one pipeline ID; empty means every pipeline that has the stage.
	Pipeline string
	// Stage is the API name (Salesforce) or the internal stage ID (HubSpot); never a label.
	Stage string
	// Since is the rule's activation on the CRM's clock. Entries before it are not returned for this rule.
	Since time.Time
	// Snapshot: no history tells of this object's stages, and entries are inferred from sightings. It is the same for all
	// watches of an object, and for ever for a rule.
	Snapshot bool
}

// Change is one entry of a record into a watched stage. The same entry is returned once per rule that watches it.
type Change struct {
	Rule  string `json:"rule"`
	Ref   Ref    `json:"ref"`
	Stage string `json:"stage"`
	// Occurrence is the CRM's own identity of this entry: OpportunityHistory.Id, or "<stage>@<RFC 3339 ms>" of the
	// HubSpot history entry. Of an inferred entry it is made of the stay before it (Stay.From).
	Occurrence string `json:"occurrence"`
	// At is when the CRM says that the stage was entered.
	At time.Time `json:"at"`
	// By is the CRM's ID of the user or app that moved the record, empty when unknown.
	By string `json:"by,omitempty"`
	// Aliases are older IDs of the same record (merged HubSpot deals). An entry known under an alias is known.
	Aliases []string `json:"aliases,omitempty"`
	// Unjudged says that its record could not be judged by the rule's filter when the entry was noticed: that is still to be
	// done, before anything is made of it.
	Unjudged bool `json:"unjudged,omitempty"`
	// Inferred is set if no history tells of the entry.
	Inferred *Inference `json:"inferred,omitempty"`
}

// TxIDs returns the transaction ID of the entry first, then those that it would have had under the record's older IDs.
// If the ledger knows any of them, the entry is not fresh.
func (c Change) TxIDs(a AccountID) []TxID {
	ids := []TxID{NewTxID(a, c.Ref, c.Rule, c.Occurrence)}
	for _, old := range c.Aliases {
		ids = append(ids, NewTxID(a, Ref{Object: c.Ref.Object, ID: old}, c.Rule, c.Occurrence))
	}
	return ids
}

// Quarantine is a row that could not be understood. It is kept and shown; it neither stops the poll nor slips past it.
type Quarantine struct {
	Ref Ref `json:"ref"`
	// Row is the CRM's ID of the row, or another stable name of it; the ledger keeps one quarantine per row.
	Row string `json:"row"`
	// Reason says what could not be understood, without quoting record values.
	Reason string    `json:"reason"`
	At     time.Time `json:"at,omitzero"`
}

// RefusedObject is an object whose history the CRM does not let us read, for good as far as it can tell.
type RefusedObject struct {
	Object string
	Why    error
}

// Cursor is how far the history of an account has been read. The ledger decides what is fresh; the cursor only limits
// cost, so moving it back is always safe.
type Cursor struct {
	// Since: everything that became visible for good before this time has been returned. Connectors read again from
	// an overlap before it.
	Since time.Time `json:"since"`
	// State is the connector's own position inside a window that is not read to its end, opaque to everyone else.
	// It is dropped when the cursor is moved back.
	State string `json:"state,omitempty"`
}

// IsZero reports whether nothing was read yet.
func (c Cursor) IsZero() bool { return c.Since.IsZero() && c.State == "" }

// Rewind returns a cursor that reads from t again if t is earlier than what c has read up to; otherwise c.
func (c Cursor) Rewind(t time.Time) Cursor {
	if c.IsZero() || !t.Before(c.Since) {
		return c
	}
	return Cursor{Since: t}
}

// String is the stored form: JSON, or "" for the zero cursor.
func (c Cursor) String() string {
	if c.IsZero() {
		return ""
	}
	b, err := json.Marshal(c)
	if err != nil {
		return ""
	}
	return string(b)
}

// ParseCursor reads the stored form of a cursor.
func ParseCursor(s string) (Cursor, error) {
	if s == "" {
		return Cursor{}, nil
	}
	var c Cursor
	if err := json.Unmarshal([]byte(s), &c); err != nil {
		return Cursor{}, fmt.Errorf("stored cursor is damaged: %w", err)
	}
	return c, nil
}

// Page is one answer to Changes.
type Page struct {
	// Entries, oldest first. At most 500.
	Entries []Change
	// Sightings are of records whose stages have no history, each with what it shows now. The ledger infers entries from them.
	Sightings []Sighting
	// Quarantined rows of the same window.
	Quarantined []Quarantine
	// Next is where to go on. It is committed together with the entries.
	Next Cursor
	// Changed are records that the CRM has shown as changed since they were listed last, by others than us as far as the
	// connector can tell. It is a hint, which costs no call: a connector may not learn of every change, and some say more than
	// there is.
	Changed []Ref
	// Refused are objects whose histories cannot be read while those of others can. Next passes over nothing of theirs: once they
	// can be read again, they are read from where they were left.
	Refused []RefusedObject
	// Unread are objects of which not every record was seen once so far, on the last page of a round: what was read of the others
	// is all there is, and the next round goes on with these, too.
	Unread []string
	// More is true when the connector knows that more is waiting, so the caller should not sleep first.
	More bool
}
