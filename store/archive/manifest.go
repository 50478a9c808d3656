package archive

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Version of the manifest's form.
const Version = 1

// maxManifest is the most that is read of a manifest, in bytes. The private part, the largest, is bounded by what the
// CRMs return.
const maxManifest = 32 << 20

// Manifest says everything of a kept sealing that is needed to read it and to rebuild its ledger row.
type Manifest struct {
	Version int             `json:"version"`
	Tx      deal.TxID       `json:"tx"`
	Tenant  deal.TenantID   `json:"tenant"`
	Account deal.AccountID  `json:"account"`
	Change  deal.Change     `json:"change"`
	Plan    deal.Plan       `json:"plan"`
	Facts   deal.Facts      `json:"facts"`
	Noticed time.Time       `json:"noticed"`
	Kept    time.Time       `json:"kept"`
	Tree    deal.TreeHead   `json:"audit_tree"`
	Files   map[string]File `json:"files"`
	// Key is the sealing's data key, encrypted under the tenant's; Private is its private part, encrypted under the data
	// key. Both are missing once the sealing was erased.
	Key     []byte     `json:"key,omitempty"`
	Private []byte     `json:"private,omitempty"`
	Erased  *time.Time `json:"erased,omitempty"`
	// Retention is the document's retention class. LegalHold forbids erasing; DeleteAfter is when deleting is due.
	Retention   string     `json:"retention,omitempty"`
	LegalHold   bool       `json:"legal_hold"`
	DeleteAfter *time.Time `json:"delete_after,omitempty"`
}

// File names the bytes of a kept file, as they are and as they are stored: encrypted, under the name with ".age".
type File struct {
	SHA256       string `json:"sha256"`
	MD5          string `json:"md5"`
	Size         int64  `json:"size"`
	StoredSHA256 string `json:"stored_sha256"`
	StoredSize   int64  `json:"stored_size"`
}

// envelope is the stored form: the manifest's exact bytes and their HMAC-SHA-256 under the tenant's key.
type envelope struct {
	Manifest json.RawMessage `json:"manifest"`
	MAC      string          `json:"hmac_sha256"`
}

// encode writes the stored form.
func (m *Manifest) encode(key []byte) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", m.Tx, err)
	}
	stored, err := json.Marshal(envelope{Manifest: text, MAC: hex.EncodeToString(mac(key, text))})
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", m.Tx, err)
	}
	if len(stored) > maxManifest {
		return nil, fmt.Errorf("manifest of %s has %d bytes, at most %d can be read back", m.Tx, len(stored), maxManifest)
	}
	return append(stored, '\n'), nil
}

func mac(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// errForged means that a manifest was altered or made under another master key.
var errForged = errors.New("the manifest was altered, or the master key is not the one that it was written with")

// DamagedError means that what is in a folder is not what was kept there.
type DamagedError struct {
	Folder string
	err    error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("archive %s: %v", e.Folder, e.err) }
func (e *DamagedError) Unwrap() error { return e.err }

// Permanent is always true.
func (e *DamagedError) Permanent() bool { return true }

// versionError is about a manifest that is whole, but of another dealseal.
type versionError int

func (e versionError) Error() string {
	return fmt.Sprintf("the manifest has version %d, this dealseal knows %d: use the newer dealseal", int(e), Version)
}

// parse reads the stored form and checks that it was written by the holder of the tenant's key.
func parse(stored []byte, key func(deal.TenantID) []byte) (*Manifest, error) {
	var e envelope
	if err := json.Unmarshal(stored, &e); err != nil {
		return nil, fmt.Errorf("not a manifest: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(e.Manifest, &m); err != nil {
		return nil, fmt.Errorf("not a manifest: %w", err)
	}
	given, err := hex.DecodeString(e.MAC)
	if err != nil || !hmac.Equal(given, mac(key(m.Tenant), e.Manifest)) {
		return nil, errForged
	}
	if m.Version != Version {
		return nil, versionError(m.Version)
	}
	return &m, nil
}
