package deal

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// Delegated says that a vendor does the signing: nothing is rendered, sealed or signed here, and no key of ours is used.
type Delegated struct {
	// Vendor is its name in the configuration: certyneo or sdf.
	Vendor string `json:"vendor"`
	// Field is the field of the record into which whoever starts the vendor's envelope writes its ID.
	Field string `json:"field"`
	// Patience is how long the vendor may say nothing decisive before a person is asked.
	Patience time.Duration `json:"patience"`
}

// Envelope names what a vendor has people sign.
type Envelope struct {
	Tenant TenantID
	Vendor string
	ID     string
}

var envelopeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

// IsEnvelopeID reports whether a text can be a vendor's ID of an envelope. What people may have typed into a field instead is
// not to be told to anybody.
func IsEnvelopeID(text string) bool { return envelopeID.MatchString(text) }

// EnvelopeNews is what an event of a vendor says.
type EnvelopeNews string

// What vendors tell of an envelope.
const (
	EnvelopeCreated   EnvelopeNews = "created"
	EnvelopeSent      EnvelopeNews = "sent"
	EnvelopeViewed    EnvelopeNews = "viewed"    // by one of those who are to sign
	EnvelopeSigned    EnvelopeNews = "signed"    // by one of them
	EnvelopeCompleted EnvelopeNews = "completed" // the document can be fetched
	EnvelopeDeclined  EnvelopeNews = "declined"
	EnvelopeVoided    EnvelopeNews = "voided" // by its sender
	EnvelopeExpired   EnvelopeNews = "expired"
	EnvelopeFailed    EnvelopeNews = "failed" // at the vendor: a person looks there
)

// ends are the news after which nothing more comes, but for a completion.
var ends = []EnvelopeNews{EnvelopeDeclined, EnvelopeVoided, EnvelopeExpired, EnvelopeFailed}

// VendorEvent is one thing that a vendor has told.
type VendorEvent struct {
	Envelope string
	News     EnvelopeNews
	At       time.Time // by the vendor's clock
	// Digest is the SHA-256 of the body that it came with: what comes again is the same event.
	Digest [32]byte
	// URL is where the document of a completed envelope is, Reason what somebody who declined has said, Title what the envelope
	// is called. All three are kept only encrypted.
	URL, Reason, Title string
}

// Newest is what is true of an envelope, whatever the order in which its events came: a completion, since then there is a
// signed document; else the newest end; else the newest of the rest. ok is false when nothing is known.
func Newest(told []VendorEvent) (newest VendorEvent, ok bool) {
	rank := func(n EnvelopeNews) int {
		switch {
		case n == EnvelopeCompleted:
			return 2
		case slices.Contains(ends, n):
			return 1
		}
		return 0
	}
	for _, e := range told {
		if !ok || rank(e.News) > rank(newest.News) || rank(e.News) == rank(newest.News) && !e.At.Before(newest.At) {
			newest, ok = e, true
		}
	}
	return newest, ok
}

// Beginnings of Sealing.Reason that say how a delegated sealing stands.
const (
	ReasonAwaiting = "awaiting: " // of one that waits for its vendor (Retrying)
	ReasonRefused  = "refused: "  // of one that has ended because somebody declined
	ReasonExpired  = "expired: "
	ReasonVoided   = "voided: "
)

// Awaits reports whether a sealing waits for its vendor and nothing is wrong.
func (s *Sealing) Awaits() bool {
	return s.Condition == Retrying && strings.HasPrefix(s.Reason, ReasonAwaiting)
}

// EndedByVendor reports whether a vendor's word has ended a sealing: should the vendor say after all that the document is
// signed, it goes on.
func (s *Sealing) EndedByVendor() bool {
	return s.Plan.Delegated != nil && s.Condition == Ended && s.Step.Before(Sealed) && !strings.HasPrefix(s.Reason, "dropped")
}

// WaitsForEnvelope is the ID of an envelope, which the record does not name yet.
func WaitsForEnvelope(vendor string) string { return "envelope:" + vendor }
