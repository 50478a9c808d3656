package deal

import "time"

// DiscrepancyKind says what a CRM does not show as the ledger has it.
type DiscrepancyKind string

// The kinds of discrepancies.
const (
	EntryMissed    DiscrepancyKind = "entry-missed"    // a stage entry that was never noticed
	FileGone       DiscrepancyKind = "file-gone"       // a file of ours is not on the record any more
	FileAltered    DiscrepancyKind = "file-altered"    // it is there with other bytes
	FieldsAltered  DiscrepancyKind = "fields-altered"  // what we wrote to the record was changed since
	ValuesDiffer   DiscrepancyKind = "values-differ"   // the record says something else than the contract
	RecordGone     DiscrepancyKind = "record-gone"     // deleted, or hidden from us
	RecordMerged   DiscrepancyKind = "record-merged"   // with another record, and goes by that one's ID now
	ArchiveDamaged DiscrepancyKind = "archive-damaged" // the archive's copy is not what was sealed
	Unreadable     DiscrepancyKind = "unreadable"      // nothing can be said of the record
)

// DiscrepancyKinds lists all of them.
var DiscrepancyKinds = []DiscrepancyKind{EntryMissed, FileGone, FileAltered, FieldsAltered, ValuesDiffer, RecordGone, RecordMerged, ArchiveDamaged, Unreadable}

// Discrepancy is one thing that a CRM does not show as the ledger has it. It holds names and IDs, never a record's value.
type Discrepancy struct {
	Kind   DiscrepancyKind `json:"kind"`
	Tenant TenantID        `json:"tenant"`
	Tx     TxID            `json:"tx"`
	Ref    Ref             `json:"ref"`
	Rule   string          `json:"rule"`
	// What was found, a sentence for people.
	What string `json:"what"`
	// Mended says what was done about it; empty when that is left to a person.
	Mended string `json:"mended,omitempty"`
	// Since is when it was first found.
	Since time.Time `json:"since,omitzero"`
}

// DiscrepancyCount is how many discrepancies of a kind a tenant has that nobody has dealt with.
type DiscrepancyCount struct {
	Tenant TenantID
	Kind   DiscrepancyKind
	N      int64
}

// Comparison is what came of comparing the record of a finished sealing with the ledger.
type Comparison struct {
	// Found are all that there are now, mended or not; what was known before and is not among them is over.
	Found []Discrepancy
	// Contract and AuditTrail are where the files are now, if that is elsewhere than it was.
	Contract, AuditTrail *Attachment
	// Resend wants the record to be told once more what is true.
	Resend bool
	// Compared is set when the mapped values could be compared; Differences are then all that is known to differ.
	Compared    bool
	Differences []Difference
	// OnlyValues is set when nothing else was looked at: what is known of all else stays as it is.
	OnlyValues bool
	// Who is for the audit log.
	Who string
}

// DriftFact is what is kept in plain text of a record that says something else than its contract.
type DriftFact struct {
	Since time.Time `json:"since"`
	// Fields are the paths, each once.
	Fields []string `json:"fields"`
}

// Finished is a sealing that has nothing left to do, and its place in the order in which they came to that.
type Finished struct {
	Tx  TxID
	At  time.Time
	Seq int64
}

// Pass is one reading of a tenant's CRM that compares it with the ledger. It is kept after each stretch, so that it goes on
// from there after a crash.
type Pass struct {
	Tenant  TenantID  `json:"tenant"`
	Account AccountID `json:"account"`
	Who     string    `json:"who"`
	Days    int       `json:"days"`
	Began   time.Time `json:"began"`
	// Ended is when all was compared; zero before that.
	Ended time.Time `json:"ended,omitzero"`
	// From and To bound the stage entries that are looked at, on the CRM's clock; both zero when none are.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	// Cursor and Watches are the place in the history, and what it was read with. Read is set when it is read to its end.
	Cursor  Cursor `json:"cursor,omitzero"`
	Watches string `json:"watches,omitempty"`
	Read    bool   `json:"read,omitempty"`
	// Blind are the rules whose missed entries cannot be looked for, because no history tells of them.
	Blind []string `json:"blind,omitempty"`
	// Refused are those whose history the CRM does not let us read, with why.
	Refused map[string]string `json:"refused,omitempty"`
	// After is the last finished sealing that was compared.
	After Finished `json:"after,omitzero"`
	// Entries and Deals are how many were looked at; Found and Mended how many discrepancies there were.
	Entries int                     `json:"entries"`
	Deals   int                     `json:"deals"`
	Found   map[DiscrepancyKind]int `json:"found,omitempty"`
	Mended  map[DiscrepancyKind]int `json:"mended,omitempty"`
	// Waits says why the pass has stopped before its end; it goes on later.
	Waits string `json:"waits,omitempty"`
}

// Count takes in what was found.
func (p *Pass) Count(found []Discrepancy) {
	for _, d := range found {
		if p.Found == nil {
			p.Found, p.Mended = map[DiscrepancyKind]int{}, map[DiscrepancyKind]int{}
		}
		p.Found[d.Kind]++
		if d.Mended != "" {
			p.Mended[d.Kind]++
		}
	}
}
