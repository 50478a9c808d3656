package deal

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Request is a contract that a program asks for, of a record that has entered no stage.
type Request struct {
	// Key names the request: whoever asks has chosen it, and asks with the same one again when no answer has come. A tenant
	// has one request of a key.
	Key string
	// Asked is all that was asked for, so that the same key is not taken for something else.
	Asked string
	// Who has asked, for the audit log.
	Who string
	// Callback is where those who asked want to be told what becomes of it; empty: nowhere.
	Callback string
	// Signer is the person for whom the contract is, as they say: it is compared with the record, and kept nowhere. Nil: they
	// name nobody.
	Signer *Person
}

// requested begins the occurrences of requests. No CRM gives an entry such a name: those of Salesforce are record IDs, those
// of HubSpot end in a time.
const requested = "request:"

// Occurrence is the entry that a request stands for: the same key gives the same transaction for ever, also on a daemon that
// was restored. Keys may say more than others should know, and are hashed.
func (r Request) Occurrence() string {
	sum := sha256.Sum256([]byte(r.Key))
	return requested + hex.EncodeToString(sum[:])
}

// Requested reports whether a program has asked for the contract, and the record entered no stage.
func (c Change) Requested() bool { return strings.HasPrefix(c.Occurrence, requested) }

// RequestError means that a request is not taken. Trying again does not help before something else has changed.
type RequestError struct {
	Reason string
	// Conflict means that the record has a contract, or is about to get one.
	Conflict bool
}

func (e *RequestError) Error() string { return e.Reason }

// Permanent is always true.
func (e *RequestError) Permanent() bool { return true }
