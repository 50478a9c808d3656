package deal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Record is what the CRM holds of a deal: only the fields that were asked for.
type Record struct {
	Ref Ref
	// Aliases are older IDs of the same record.
	Aliases []string
	// Stage is the stage's API name or ID at the time of reading.
	Stage string
	// Modified is the record's own modification time.
	Modified time.Time
	// URL is the CRM's own page of the record.
	URL string
	// Values is a tree: parents are map[string]any, child lists are []any of map[string]any, leaves are string,
	// json.Number, bool or nil. Absent and nil mean the same.
	Values map[string]any
	// Files are those that are attached to the record.
	Files []RecordFile
}

// RecordFile is a file on the record.
type RecordFile struct {
	ID      string
	Name    string // with extension
	Size    int64
	MD5     string // lower-case hex, empty when the CRM does not say
	Created time.Time
	URL     string // the CRM's own page of the file
	// Tx and Role are set when the file bears our marker.
	Tx   TxID
	Role Role
}

// ValueType is what a document makes of a value of a record.
type ValueType string

// The types. Whatever is not counted or dated is printed as it stands.
const (
	TextValue   ValueType = "text"
	NumberValue ValueType = "number"
	DateValue   ValueType = "date"
)

// Lookup returns the leaf at a dotted path, following parents only. It returns nil for what is absent.
func (r Record) Lookup(path string) any {
	var v any = r.Values
	for _, key := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// Text is Lookup for a leaf that is compared or shown as text; nil gives "".
func (r Record) Text(path string) string {
	switch v := r.Lookup(path).(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// Sealed returns the record's file of the given role that bears the marker of tx, if there is one.
func (r Record) Sealed(tx TxID, role Role) (RecordFile, bool) {
	for _, f := range r.Files {
		if f.Tx == tx && f.Role == role {
			return f, true
		}
	}
	return RecordFile{}, false
}

// Fingerprint is the SHA-256 over the canonical JSON of the values: two readings with the same fingerprint would give
// the same document.
func (r Record) Fingerprint() (string, error) {
	b, err := json.Marshal(r.Values) // maps are written in key order
	if err != nil {
		return "", fmt.Errorf("record %s: %w", r.Ref, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Role says what a file that we attach is.
type Role string

// The roles of attached files.
const (
	RoleContract   Role = "contract"
	RoleAuditTrail Role = "audit-trail"
)

// File is content with its size and hashes. ReadAt must be safe for concurrent use and may be called again, so that an
// upload can be replayed.
type File struct {
	io.ReaderAt
	Name      string // with extension
	MediaType string
	Length    int64
	SHA256    string // lower-case hex
	MD5       string // lower-case hex; only for comparing with what a CRM reports
}

// Size makes File usable wherever an io.ReaderAt with a size is asked for.
func (f File) Size() int64 { return f.Length }

// Open returns a fresh reader over the whole content.
func (f File) Open() *io.SectionReader { return io.NewSectionReader(f, 0, f.Length) }

// Attachment is a file of ours on a record.
type Attachment struct {
	ID  string `json:"id"`
	URL string `json:"url"` // the CRM's own page of the file or, where it has none, of the record
}

// Marker is the text by which a file of ours is found again on a record: it stands in the file's title or description.
func Marker(tx TxID, role Role) string { return "dealseal:" + string(tx) + ":" + string(role) }

// ParseMarker finds a marker inside a longer text.
func ParseMarker(s string) (TxID, Role, bool) {
	const prefix = "dealseal:"
	for {
		i := strings.Index(s, prefix)
		if i < 0 {
			return "", "", false
		}
		s = s[i+len(prefix):]
		id, rest, ok := strings.Cut(s, ":")
		if !ok {
			return "", "", false
		}
		tx, err := ParseTxID(id)
		if err != nil || string(tx) != id {
			continue
		}
		for _, role := range []Role{RoleContract, RoleAuditTrail} {
			if strings.HasPrefix(rest, string(role)) {
				return tx, role, true
			}
		}
	}
}
