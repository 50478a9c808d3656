package deal

import (
	"encoding/json"
	"time"
)

// Sealing is one stage entry on its way to a sealed contract. The ledger is its authority: a Sealing in memory is a
// copy that Begin and Advance compare by Version.
type Sealing struct {
	Tx      TxID
	Tenant  TenantID
	Account AccountID
	Change  Change
	// Plan is everything that the sealing needs of the configuration, fixed when it was noticed.
	Plan Plan

	Step      Step
	Condition Condition
	// Reason says why the sealing is held, dead, ended or retrying, for people, without record values.
	Reason string
	// Attempts counts failures at the current step; Next is when the next attempt is due (Retrying).
	Attempts int
	Next     time.Time

	Noticed time.Time // our clock, when the ledger took it in
	Updated time.Time // our clock, last Advance
	Version int64     // compare-and-swap

	Facts   Facts
	Private Private
}

// Facts is what is known of the sealing and is no personal data: hashes, IDs, names of certificates. Kept in plain text.
type Facts struct {
	// Generation counts how often a document was prepared for sealing. A second generation needs an audited reason.
	Generation int `json:"generation,omitempty"`
	// Edits counts how often the record was found edited just before it was sealed.
	Edits int `json:"edits,omitempty"`
	// Record is the fingerprint of the CRM values that went into the document.
	Record    string    `json:"record,omitempty"`
	RecordURL string    `json:"record_url,omitempty"`
	Gathered  time.Time `json:"gathered,omitzero"`
	// Unsigned, Contract are the staged files.
	Unsigned *FileFact `json:"unsigned,omitempty"`
	Contract *FileFact `json:"contract,omitempty"`
	// Evidence is the staged evidence of revocation, for levels that carry it in the document.
	Evidence *FileFact `json:"evidence,omitempty"`
	// Trail is the staged audit trail.
	Trail     *FileFact `json:"trail,omitempty"`
	RenderKey string    `json:"render_key,omitempty"`
	// Digest is what the key signs, hex; committed before the key is used. One per TxID, ever.
	Digest string `json:"digest,omitempty"`
	// Signature is set as soon as a signature value exists; from then on the sealing never goes back.
	Signature bool      `json:"signature,omitempty"`
	Level     string    `json:"level,omitempty"` // the level reached, as our verifier reports it
	Flagged   string    `json:"flagged,omitempty"`
	SealedAt  time.Time `json:"sealed_at,omitzero"` // the proven time: the time-stamp's if there is one
	Cert      *CertFact `json:"cert,omitempty"`
	// Second is the second seal of a document that is made while a rollover asks for two; nil for none.
	Second *SecondSeal `json:"second,omitempty"`
	// Verdict is our verifier's, SecondOpinion the independent reader's.
	Verdict       string `json:"verdict,omitempty"`
	SecondOpinion string `json:"second_opinion,omitempty"`
	// Conclusion is the verdict in the words of ETSI EN 319 102-1, with its sub-indication if it has not passed.
	Conclusion string `json:"conclusion,omitempty"`
	// Archive is the archive's relative folder.
	Archive    string      `json:"archive,omitempty"`
	Attachment *Attachment `json:"attachment,omitempty"`
	AuditTrail *Attachment `json:"audit_trail,omitempty"`
	// AttachAfter is until when nothing is put on the record: the CRM may still carry out what it has not answered.
	AttachAfter time.Time `json:"attach_after,omitzero"`
	// Adopted says that the sealed file was found on the record instead of being made here.
	Adopted bool `json:"adopted,omitempty"`
	// Envelope is the vendor's ID of what it has people sign, for rules that are delegated; Heard, how many of the vendor's
	// events are taken into account.
	Envelope string `json:"envelope,omitempty"`
	Heard    int    `json:"heard,omitempty"`
	// WaitsFor is what the sealing cannot go on without and a person mends once for all: WaitsForLogin, or WaitsForKey of
	// the key's name; or, without anything being wrong, WaitsForEnvelope. Empty when it waits for nothing of the kind.
	WaitsFor string `json:"waits_for,omitempty"`
	// Drift says that the record says something else than the contract does; nil when they agree, as far as is known.
	Drift *DriftFact `json:"drift,omitempty"`
	// FollowUp is when the deal had had no outcome for as long as Plan.FollowUp; zero before, and once it has one.
	FollowUp time.Time `json:"follow_up,omitzero"`
	// Released names the holds that a person has released, so that they do not hold again.
	Released []string `json:"released,omitempty"`
	// Waits counts how often it came to wait for a person.
	Waits int `json:"waits,omitempty"`
	// Guarded says that the guard holds it, and that the CRM was told nothing of it.
	Guarded bool `json:"guarded,omitempty"`
	// Elsewhere is another database that has spoken of this transaction on the record, until it is clear what became of that:
	// its contract is adopted, or a person says that there is no such database any more.
	Elsewhere string `json:"elsewhere,omitempty"`
	// Waited is how the sealing waited for a person when this copy of the state began, until its record was looked at.
	Waited *Waited `json:"waited,omitempty"`
	// Begun and Times hold when each step was begun and reached, for people and for latency figures.
	Times map[Step]time.Time `json:"times,omitempty"`
}

// Waited is a wait for a person.
type Waited struct {
	Condition Condition `json:"condition"` // Held or Dead
	Reason    string    `json:"reason"`
}

// WaitsForLogin is a tenant's login to its CRM.
const WaitsForLogin = "login"

// WaitsForKey is a key of the house.
func WaitsForKey(name string) string { return "key:" + name }

// WaitsForSecondKey is what makes the second seals beside a key: that this one works says nothing of it.
func WaitsForSecondKey(name string) string { return "second-key:" + name }

// FileFact names a file by its bytes.
type FileFact struct {
	SHA256 string `json:"sha256"`
	MD5    string `json:"md5,omitempty"`
	Size   int64  `json:"size"`
	Name   string `json:"name,omitempty"`
}

// CertFact names the certificate that sealed. Labels are for show; the hashes are the names.
type CertFact struct {
	SHA256   string    `json:"sha256"`
	SPKI     string    `json:"spki_sha256"`
	Serial   string    `json:"serial"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	Digest   string    `json:"digest_alg"`
	// Key is what kind of key it is for, such as ECDSA-P256 or RSA-3072; empty in what older versions wrote.
	Key string `json:"key_alg,omitempty"`
}

// SecondSeal is what is known of a second seal, which is made over the first one with the certificate that was followed.
type SecondSeal struct {
	// Digest is what the key signs for it, hex; committed before the key is used, and never another one.
	Digest string `json:"digest,omitempty"`
	// Signature is set as soon as a signature value exists.
	Signature bool      `json:"signature,omitempty"`
	Cert      *CertFact `json:"cert,omitempty"`
	Evidence  *FileFact `json:"evidence,omitempty"` // staged, as Facts.Evidence
	Level     string    `json:"level,omitempty"`    // as our verifier reports it
	// GivenUp says why the document has no second seal although one was asked for.
	GivenUp string `json:"given_up,omitempty"`
}

// Private is what the store keeps only encrypted under the sealing's own data key.
type Private struct {
	// Values are the CRM values that went into the document; Document is the merged record.
	Values   json.RawMessage `json:"values,omitempty"`
	Document json.RawMessage `json:"document,omitempty"`
	FileName string          `json:"file_name,omitempty"`
	// Source is the CRM's ID of the attachment that is sealed, for rules that seal an attachment.
	Source string `json:"source,omitempty"`
	// SourceSize and SourceMD5 are what the CRM says of that file; zero where it says nothing.
	SourceSize int64  `json:"source_size,omitempty"`
	SourceMD5  string `json:"source_md5,omitempty"`
	// Declined is what somebody who declined to sign has given as the reason.
	Declined string `json:"declined,omitempty"`
	// Boxes are the signature boxes of the rendered document.
	Boxes json.RawMessage `json:"boxes,omitempty"`
	// Ticket is the staged signature: exact bytes, attributes and digest. Value is the signature value, Token the
	// time-stamp token.
	Ticket json.RawMessage `json:"ticket,omitempty"`
	Value  []byte          `json:"value,omitempty"`
	Token  []byte          `json:"token,omitempty"`
	// Second is the same of the second seal.
	Second *PrivateSecond `json:"second,omitempty"`
	// ArchiveToken is the token of the document time-stamp over ArchiveDigest.
	ArchiveToken  []byte `json:"archive_token,omitempty"`
	ArchiveDigest []byte `json:"archive_digest,omitempty"`
	// CMS is the signature as it stands in the document.
	CMS []byte `json:"cms,omitempty"`
	// Report is the verification report.
	Report json.RawMessage `json:"report,omitempty"`
	// Differences are what Facts.Drift names, with their values.
	Differences []Difference `json:"differences,omitempty"`
}

// PrivateSecond is of the second seal what Private has of the first.
type PrivateSecond struct {
	Ticket json.RawMessage `json:"ticket,omitempty"`
	Value  []byte          `json:"value,omitempty"`
	Token  []byte          `json:"token,omitempty"`
	CMS    []byte          `json:"cms,omitempty"`
}

// Plan is what a sealing needs of the configuration, by value, so that editing the configuration never changes a deal
// in flight.
type Plan struct {
	TenantName string `json:"tenant_name"`
	TimeZone   string `json:"time_zone"`
	// Seller are further details of the house for documents; Currency is for money that has none of its own.
	Seller   map[string]string `json:"seller,omitempty"`
	Currency string            `json:"currency,omitempty"`
	// Production is the tenant's environment; soft keys and draft templates are refused there.
	Production bool   `json:"production"`
	Rule       string `json:"rule"`
	Stage      string `json:"stage"`
	// Filter is the condition that a record must meet when its entry is noticed, in the words of ParseFilter; empty for none.
	Filter string `json:"filter,omitempty"`
	// Template is "id@version" and Bundle the hash of the bundle's content; both empty when Attachment is set.
	Template string `json:"template,omitempty"`
	Bundle   string `json:"bundle,omitempty"`
	// Overrides are the rule's own field sources, in the template's syntax.
	Overrides json.RawMessage `json:"overrides,omitempty"`
	// Attachment is the file-name pattern of the attachment that is sealed instead of a rendered document.
	Attachment string `json:"attachment,omitempty"`
	// Delegated is set when a vendor does the signing; then Template, Bundle and Attachment are empty, and of the profile only
	// the level counts.
	Delegated *Delegated `json:"delegated,omitempty"`
	// Mark runs across every page of what is sealed: the account is none for contracts. Empty for none.
	Mark string `json:"mark,omitempty"`
	// Fields are the CRM paths to read.
	Fields []string `json:"fields,omitempty"`
	// Profile is the signing profile, encoded by the engine.
	Profile   json.RawMessage `json:"profile"`
	WriteBack WriteBack       `json:"write_back"`
	// FollowUp is how long the deal may have no outcome before its record and others are told of that; zero for ever.
	FollowUp time.Duration `json:"follow_up,omitempty"`
	// Moves are the stages that the record is moved to when it comes to a status. Of those that are not in it nothing is moved.
	Moves map[Status]string `json:"moves,omitempty"`
	// Timeline are the statuses that are noted on the record's timeline.
	Timeline []Status `json:"timeline,omitempty"`
	IfLeft   string   `json:"if_left"`  // hold | void | seal
	ReEntry  string   `json:"re_entry"` // hold | seal
	// AuditTrail is the hash of the bundle that the deal's audit trail is made with, to be attached beside the contract;
	// empty for none.
	AuditTrail string `json:"audit_trail,omitempty"`
	Retention  string `json:"retention,omitempty"`
}

// Intent is written before an effect that cannot be undone or that others can see.
type Intent struct {
	Step Step
	// What names the effect: gather, follow, fetch, render, prepare, sign, timestamp, evidence, archive-timestamp, complete, check, keep, attach, report, reattach;
	// of a second seal second-prepare, second-sign, second-timestamp, second-evidence.
	What string
	// Digest is the hash that is about to be signed, or the SHA-256 of the bytes about to be sent; hex.
	Digest string
	// Key is the SPKI SHA-256 of the key about to be used, hex.
	Key string
	// Lease is how long the effect may take; after that someone else may begin.
	Lease time.Duration
	// Limits are those of the key.
	Limits KeyLimits
}

// KeyLimits are how many digests a key may sign, ever and on one day in UTC; 0 is no limit.
type KeyLimits struct{ Total, Day int64 }

// KeyUses are how many digests a key was about to sign, ever and today.
type KeyUses struct{ Total, Today int64 }

// Entry is one line of the audit log: who did what, when, why, with which certificate [42]. It carries IDs and hashes;
// Detail is committed to with a salt and is readable only as long as the sealing's data key exists.
type Entry struct {
	Who    string // "daemon", or the user of the control socket
	What   string // "sealed", "held", "released" ...
	Why    string // for people; no record values
	Cert   string // certificate SHA-256, hex
	Detail map[string]string
	// Events are put into the outbox in the same transaction.
	Events []Event
	// Then is what begins next, committed in the same transaction: its effect may begin right after. The step is that of the
	// sealing, whatever the intent says.
	Then *Intent
}

// Event is something that became true and that others may want to be told.
type Event struct {
	Type string // native name, such as document.signed
	Data map[string]string
}
