package deal

import (
	"cmp"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// Status is what the CRM shows. The words written to the CRM are configurable per tenant.
type Status string

// The statuses that a record can show.
const (
	StatusQueued         Status = "queued"
	StatusAwaiting       Status = "awaiting_signature"
	StatusSigned         Status = "signed"
	StatusRefused        Status = "refused"
	StatusActionRequired Status = "action_required"
	StatusFailed         Status = "failed"
	StatusHeld           Status = "held"
)

// Statuses lists all of them in the order of a deal's life, with the words that are written unless a tenant says
// otherwise.
var Statuses = []struct {
	Status Status
	Word   string
}{
	{StatusQueued, "Queued"},
	{StatusAwaiting, "Awaiting Signature"},
	{StatusSigned, "Signed"},
	{StatusRefused, "Refused"},
	{StatusActionRequired, "Action Required"},
	{StatusFailed, "Failed"},
	{StatusHeld, "Held"},
}

// WriteBack names the CRM fields that receive a receipt. An empty name is not written.
type WriteBack struct {
	TransactionID string            `json:"transaction_id,omitempty"`
	Status        string            `json:"status,omitempty"`
	Words         map[Status]string `json:"words,omitempty"` // only those that differ from Statuses
	SignedAt      string            `json:"signed_at,omitempty"`
	URL           string            `json:"url,omitempty"`
	Audit         string            `json:"audit,omitempty"`
	// Drift is told, once the contract is on the record, which fields say something else than it; DriftText is what that
	// begins with. Empty while they agree.
	Drift     string `json:"drift,omitempty"`
	DriftText string `json:"drift_text,omitempty"`
	// FollowUp is told since when the deal has had no outcome for as long as Plan.FollowUp; empty before, and once it has one.
	FollowUp string `json:"follow_up,omitempty"`
	// Task is how the record's owner is told that the deal waits for a person; nil when that is not wanted.
	Task *TaskWords `json:"task,omitempty"`
}

// Word returns what is written to the CRM for a status.
func (w WriteBack) Word(s Status) string {
	if word, ok := w.Words[s]; ok {
		return word
	}
	for _, x := range Statuses {
		if x.Status == s {
			return x.Word
		}
	}
	return string(s)
}

// MaxDriftText is how many characters a field that names differences holds at least.
const MaxDriftText = 255

// DriftWords is what the record says of fields that differ from its contract; empty when none do. Names that there is no
// room for are left out as a whole.
func (w WriteBack) DriftWords(d *DriftFact) string {
	if d == nil || len(d.Fields) == 0 {
		return ""
	}
	text := cmp.Or(w.DriftText, "Contract differs from CRM")
	for i, name := range d.Fields {
		separator := ": "
		if i > 0 {
			separator = ", "
		}
		if utf8.RuneCountInString(text+separator+name) > MaxDriftText-len(", …") {
			return text + separator + "…"
		}
		text += separator + name
	}
	return text
}

// Fields lists the configured field names.
func (w WriteBack) Fields() []string {
	var names []string
	for _, n := range []string{w.TransactionID, w.Status, w.SignedAt, w.URL, w.Audit, w.Drift, w.FollowUp} {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

// Field is one value for the CRM: string, time.Time (a date-time, UTC), or nil to clear.
type Field struct {
	Name  string
	Value any
}

// Receipt is what a record should show. There is one desired receipt per record; only the newest is ever sent.
type Receipt struct {
	Tx TxID
	// Sequence grows with every receipt of the same record, whatever the rule or the entry. It is based on the time
	// in milliseconds, so that it also grows over a restore.
	Sequence int64
	Fields   []Field
	// SequenceField names the field in which the audit record, and with it the sequence, can be read back; empty when
	// the tenant keeps none.
	SequenceField string
	// Claim is set in a receipt that says no more than that the deal is being worked on, or waits for whoever does that:
	// it names our database, and is not written over the word of another database on the same transaction.
	Claim string
}

// AuditRecord is the compact JSON that is written to the CRM [35]. Names are short because fields are.
type AuditRecord struct {
	Tx          TxID       `json:"tx"`
	Sequence    int64      `json:"seq"`
	Status      Status     `json:"status"`
	Level       string     `json:"level,omitempty"`
	SignedAt    *time.Time `json:"signed_at,omitempty"`
	Fingerprint string     `json:"cert_sha256,omitempty"`
	Second      string     `json:"second_cert_sha256,omitempty"` // of the second seal, during a rollover
	Serial      string     `json:"cert_serial,omitempty"`
	Issuer      string     `json:"cert_issuer,omitempty"`
	Digest      string     `json:"digest_alg,omitempty"`
	Archive     string     `json:"archive,omitempty"` // dealseal:<tx>/<sha256>
	TreeSize    int64      `json:"tree_size,omitempty"`
	TreeRoot    string     `json:"tree_root,omitempty"`
	By          string     `json:"by,omitempty"` // the database that the daemon works with, see engine.Ledger
	Reason      string     `json:"reason,omitempty"`
}

// ReadAuditRecord reads back what a record shows. ok is false for anything that dealseal did not write.
func ReadAuditRecord(field string) (a AuditRecord, ok bool) {
	if err := json.Unmarshal([]byte(field), &a); err != nil || a.Tx == "" || a.Sequence == 0 {
		return AuditRecord{}, false
	}
	return a, true
}
