package deal

import "time"

// EventMemory is how long an event of a push is known by its sender's name for it: senders try for 24 hours.
const EventMemory = 48 * time.Hour

// PushVerdict is what became of a push, or of one event of it.
type PushVerdict string

const (
	PushTaken    PushVerdict = "taken"    // its record is looked at
	PushIgnored  PushVerdict = "ignored"  // it is about nothing that a rule could watch
	PushKept     PushVerdict = "kept"     // a vendor's event of an envelope that no deal is known to have
	PushRepeated PushVerdict = "repeated" // its sender has told of it before
	PushReplayed PushVerdict = "replayed" // the very request came before
	PushRefused  PushVerdict = "refused"  // followed by ": " and why
)

// Push is what is known of a push: never its body.
type Push struct {
	At      time.Time
	Tenant  TenantID // empty when it is not known whom it was for
	Source  string
	Verdict PushVerdict
	// Ref is the record that it named.
	Ref Ref
	// N is how many it stands for.
	N int
}

// Arrival is a push whose sender is known.
type Arrival struct {
	Tenant TenantID
	Source string
	// Nonce is the request's: until Until, one with the same is a replay. Without one, only the events are known again.
	Nonce []byte
	Until time.Time
	// Events are what it tells.
	Events []PushedEvent
	// Callbacks are workflows that wait for what it leads to, each with ID, Ref and Rule; Block is for how long.
	Callbacks []Callback
	Block     time.Duration
	// Told is what it tells if it is a vendor that signs: then Source is the vendor's name.
	Told []VendorEvent
}

// PushedEvent is one thing that a push tells.
type PushedEvent struct {
	// Key is the sender's own name for it, the same when it tells of it again; empty when there is none.
	Key string
	Ref Ref
	// Wakes: the record should be looked at.
	Wakes bool
}

// Heard is what a CRM has told over a connection of ours.
type Heard struct {
	// Events are those that wake, of N.
	Events []PushedEvent
	N      int
	// All: everything is to be looked at, because more has happened than was named.
	All bool
	// At is when the newest of it was committed, by the CRM's clock; zero when there is none.
	At time.Time
}

// Listening is how listening to a tenant's CRM goes.
type Listening struct {
	Connected bool
	Since     time.Time // that it is as it is
	// Err says why it is not connected; Refused, that the login is why.
	Err     string
	Refused bool
	// At is when the CRM last said anything, and be it that it is there; Event, when it last told of a change; N, how often
	// it did since the start.
	At, Event time.Time
	N         int64
	// Lag is from the commit of the last change, by the CRM's clock, until it was heard of.
	Lag time.Duration
}
