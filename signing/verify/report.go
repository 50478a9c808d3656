package verify

import (
	"slices"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// Verdict is what can be said of a signature or of a whole document.
type Verdict string

const (
	Valid         Verdict = "VALID"
	Indeterminate Verdict = "INDETERMINATE" // neither proven nor disproven: what is missing stands in the reasons
	Invalid       Verdict = "INVALID"
)

func (v Verdict) rank() int { return slices.Index([]Verdict{Valid, Indeterminate, Invalid}, v) }

// worse returns the less favourable of two verdicts.
func worse(a, b Verdict) Verdict {
	if b.rank() > a.rank() {
		return b
	}
	return a
}

// Code names a reason for programs; the words in Reason.Text are for people and may change.
type Code string

// Codes that make a signature or document INVALID.
const (
	CodeMalformedPDF      Code = "malformed-pdf"      // the file cannot be read as the standard says
	CodeByteRange         Code = "byte-range"         // the signature does not cover all but its own value
	CodeMalformedCMS      Code = "malformed-cms"      // the signature value is not a signature
	CodeDigest            Code = "digest"             // the covered bytes are not the signed ones
	CodeSignature         Code = "signature"          // the signature does not fit the key
	CodeNotBound          Code = "not-bound"          // no certificate was signed for, where PAdES asks for one
	CodeContentChanged    Code = "content-changed"    // a later update changed pages
	CodeForbiddenChange   Code = "forbidden-change"   // a later update did what a certification or lock forbids
	CodeRevoked           Code = "revoked"            // the signature was made when the certificate had been revoked
	CodeSignatureReplaced Code = "signature-replaced" // a later update put another signature in the field
)

// Codes that make it INDETERMINATE.
const (
	CodeNoSignature       Code = "no-signature"
	CodeEncrypted         Code = "encrypted"
	CodeBudget            Code = "budget"              // reading it would cost more than is allowed
	CodeUnsupported       Code = "unsupported"         // a form or algorithm that this reader does not judge
	CodeWeak              Code = "weak-algorithm"      // an algorithm or key that is too weak to prove anything
	CodeNoCertificate     Code = "no-certificate"      // the signer's certificate is not in the signature
	CodeSigningCert       Code = "signing-certificate" // the certificate is not the one that was signed for
	CodeUntrusted         Code = "untrusted"           // no chain to a trusted root
	CodeExpired           Code = "certificate-expired" // not valid at the time that is proven, which may be later than that of the signature
	CodeSignedLate        Code = "signed-after-expiry" // proven to have been made after the certificate ended
	CodeNotYetValid       Code = "not-yet-valid"       // proven to have been made before the certificate began
	CodeRevokedUnproven   Code = "revoked-unproven"    // revoked, and nothing proves the signature to be from before
	CodeRevokedCA         Code = "revoked-ca"          // the same for a certificate above the signer's
	CodeRevocationUnknown Code = "revocation-unknown"  // no evidence of the time that counts, where it was asked for
	CodeKeyUsage          Code = "key-usage"           // a certificate for something else
	CodeTimestampBroken   Code = "timestamp-broken"    // a time-stamp that is not over this signature, or damaged
	CodeTimestampOrder    Code = "timestamp-order"     // a time-stamp that is later than one that covers it
	CodeChangedAfterwards Code = "changed-afterwards"  // a later update changed more than signatures need
	CodeCovered           Code = "covered"             // a later update may hide or show something on a page, though not in its content
	CodeTrailingData      Code = "trailing-data"       // bytes behind the end of the document
)

// Codes that explain, without harm to the verdict of a signature.
const (
	CodeLaterSignatures     Code = "later-signatures"     // updates that add signatures, time-stamps and validation data only
	CodePermitted           Code = "permitted-change"     // a later update did what a certification or lock permits
	CodeTimestampUntrusted  Code = "timestamp-untrusted"  // a sound time-stamp of an authority that is not trusted here
	CodeTimestampUnproven   Code = "timestamp-unproven"   // one whose authority's certificate is over, and nothing proves it to be from before
	CodeTimestampRevoked    Code = "timestamp-revoked"    // the same for a revocation
	CodeRevocationUnchecked Code = "revocation-unchecked" // the document carries no evidence, and nobody was asked
	CodeNotBaseline         Code = "not-baseline"         // why no PAdES level is reached
	CodeNotLongTerm         Code = "not-long-term"        // why what the document carries does not make it B-LT
)

// Reason is one finding.
type Reason struct {
	Code          Code          `json:"code"`
	Verdict       Verdict       `json:"verdict"` // what this finding alone leads to
	SubIndication SubIndication `json:"sub_indication,omitempty"`
	Text          string        `json:"text"`
}

// Kind tells signatures from document time-stamps.
type Kind string

const (
	KindSignature         Kind = "signature"
	KindDocumentTimestamp Kind = "document-timestamp"
)

// Certificate describes a certificate; fingerprints are lower-case hexadecimal SHA-256.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hexadecimal
	SHA256    string    `json:"sha256"`
	SPKI      string    `json:"spki_sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Timestamp describes the signature-time-stamp, or the token of a document time-stamp.
type Timestamp struct {
	Time   time.Time `json:"time"`
	TSA    string    `json:"tsa"`
	Serial string    `json:"serial"` // hexadecimal
	Policy string    `json:"policy"`
}

// Signature is what was found out about one signature.
type Signature struct {
	Field           string        `json:"field"`
	Kind            Kind          `json:"kind"`
	SubFilter       string        `json:"sub_filter"`
	Verdict         Verdict       `json:"verdict"`
	Indication      Indication    `json:"indication"` // the verdict in the words of ETSI EN 319 102-1
	SubIndication   SubIndication `json:"sub_indication,omitempty"`
	Reasons         []Reason      `json:"reasons,omitempty"`
	Level           pades.Level   `json:"level,omitempty"` // empty when none is reached
	Name            string        `json:"name,omitempty"`
	Reason          string        `json:"reason,omitempty"`
	Location        string        `json:"location,omitempty"`
	ByteRange       []int64       `json:"byte_range,omitempty"`
	Revision        int           `json:"revision"` // from 1; 0 when it is not the end of one
	CoversWholeFile bool          `json:"covers_whole_file"`
	Digest          string        `json:"digest_algorithm,omitempty"`
	Algorithm       string        `json:"signature_algorithm,omitempty"`
	Signer          *Certificate  `json:"signer,omitempty"`
	ClaimedTime     *time.Time    `json:"claimed_time,omitempty"` // /M: what the signer says
	Timestamp       *Timestamp    `json:"timestamp,omitempty"`    // set when it is sound and trusted: what is proven
	ValidatedAt     *time.Time    `json:"validated_at,omitempty"` // the time at which the certificate had to be valid
	ProvenBy        string        `json:"proven_by,omitempty"`    // the document time-stamp that this time comes from, if from one
	Revocation      []Revocation  `json:"revocation,omitempty"`
	DocMDP          int           `json:"doc_mdp,omitempty"` // what certifications leave to those who come later: 1 nothing, 2 forms, 3 annotations too
	Changes         []Change      `json:"changes,omitempty"` // what later updates did, beyond what signatures need
}

// Revocation is what the document carries about one of the certificates that a signature or its time-stamp rests on.
type Revocation struct {
	Subject    string     `json:"subject"`
	Status     string     `json:"status"`         // good, revoked, or unknown: no evidence of the time that counts
	Kind       string     `json:"kind,omitempty"` // ocsp or crl
	At         time.Time  `json:"at"`             // the time that counts
	ThisUpdate *time.Time `json:"this_update,omitempty"`
	NextUpdate *time.Time `json:"next_update,omitempty"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
}

// Change is one thing that later updates changed against the signed revision.
type Change struct {
	Kind    ChangeKind `json:"kind"`
	Where   string     `json:"where"` // a field's name, or the keys that lead to it
	Allowed bool       `json:"allowed"`
}

// ChangeKind says in what part of the document a change is.
type ChangeKind string

// The kinds of changes.
const (
	ChangeContent    ChangeKind = "content"    // what the pages show
	ChangeSignature  ChangeKind = "signature"  // a signature that was there
	ChangeBox        ChangeKind = "box"        // a visible box of a new signature
	ChangeAnnotation ChangeKind = "annotation" // notes, stamps and the like on pages
	ChangeForm       ChangeKind = "form"       // the value of a form field
	ChangeSigning    ChangeKind = "signing"    // a new signature, where none was allowed
	ChangeOther      ChangeKind = "other"      // metadata, attachments, actions and all else
)

// Revision is the document between two updates.
type Revision struct {
	Number     int        `json:"number"`               // from 1
	End        int64      `json:"end"`                  // its length in bytes
	Signatures []string   `json:"signatures,omitempty"` // the fields whose signatures and time-stamps end here
	ProvenAt   *time.Time `json:"proven_at,omitempty"`  // the earliest time at which a document time-stamp proves it to have existed
}

func (s *Signature) add(code Code, v Verdict, text string) {
	s.Reasons = append(s.Reasons, reason(code, v, text))
	s.Verdict = worse(s.Verdict, v)
}

// Report is the answer of Verify. It is plain data and may be kept as JSON.
type Report struct {
	Verdict       Verdict       `json:"verdict"` // the worst of the document's own and of all signatures
	Indication    Indication    `json:"indication"`
	SubIndication SubIndication `json:"sub_indication,omitempty"`
	Reasons       []Reason      `json:"reasons,omitempty"`
	Signatures    []Signature   `json:"signatures"`
	Revisions     int           `json:"revisions"`
	History       []Revision    `json:"history,omitempty"` // the revisions, oldest first
	Size          int64         `json:"size"`
	SHA256        string        `json:"sha256"` // of the whole file
	CheckedAt     time.Time     `json:"checked_at"`
	SecondOpinion *Opinion      `json:"second_opinion,omitempty"`
}

func (r *Report) add(code Code, v Verdict, text string) {
	r.Reasons = append(r.Reasons, reason(code, v, text))
	r.Verdict = worse(r.Verdict, v)
}

// Level returns the lowest level of all signatures, document time-stamps aside; empty when there is none, or one that reaches none.
func (r *Report) Level() pades.Level {
	var lowest pades.Level
	for _, s := range r.Signatures {
		if s.Kind != KindSignature {
			continue
		}
		if s.Level == "" {
			return ""
		}
		if lowest == "" || lowest.AtLeast(s.Level) {
			lowest = s.Level
		}
	}
	return lowest
}

// Newest returns the signature that was made last, which in a file that was just sealed is the seal: behind it stands
// nothing, or proof that was added to make it last, or else its verdict says what was changed. nil when there is none.
// Signatures that others left in the document before have verdicts of their own.
func (r *Report) Newest() *Signature {
	var newest *Signature
	for i := range r.Signatures {
		s := &r.Signatures[i]
		if s.Kind == KindSignature && len(s.ByteRange) == 4 && (newest == nil || s.end() > newest.end()) {
			newest = s
		}
	}
	return newest
}

// By returns the last signature that a certificate made, by its SHA-256; nil when there is none.
func (r *Report) By(sha256 string) (made *Signature) {
	for i := range r.Signatures {
		s := &r.Signatures[i]
		if s.Kind == KindSignature && len(s.ByteRange) == 4 && s.Signer != nil && s.Signer.SHA256 == sha256 && (made == nil || s.end() > made.end()) {
			made = s
		}
	}
	return made
}

// end is where that which a signature covers ends.
func (s *Signature) end() int64 { return s.ByteRange[2] + s.ByteRange[3] }
