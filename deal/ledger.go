package deal

import "time"

// Noticing is one page of changes on its way into the ledger.
type Noticing struct {
	Tenant  TenantID
	Account AccountID
	Page    Page
	// Filtered are entries of the page, and not among its Entries, that their rule's filter has left out. The ledger knows them
	// from then on, and makes no sealing of them.
	Filtered []Change
	// Previous is the cursor that the page was read with; the ledger refuses the page with ErrStale if its own differs.
	Previous Cursor
	// Plans holds the plan of each rule of the page, by rule id.
	Plans map[string]Plan
	// Watches holds every watch that the page was read with, by rule id. Each must have been activated.
	Watches map[string]Watch
	// Ended says that with this page all was read that there is to see, since all watches were activated.
	Ended bool
	// Guard says how many of the new entries are let through. The zero Guard lets all through.
	Guard Guard
}

// FilteredEntry is an entry that its rule's filter has left out.
type FilteredEntry struct {
	Tx      TxID      `json:"tx"` // that it would have had
	Tenant  TenantID  `json:"tenant"`
	Account AccountID `json:"account"`
	Ref     Ref       `json:"ref"`
	Rule    string    `json:"rule"`
	Stage   string    `json:"stage"`
	At      time.Time `json:"at"`      // the CRM's time of the entry
	Noticed time.Time `json:"noticed"` // our time, when the filter was asked
	Filter  string    `json:"filter"`  // as it was then
}

// ReceiptState is what the ledger knows of the receipt that a sealing's record should show.
type ReceiptState struct {
	// Owner is the sealing that the record speaks of: the newest entry that writes the same set of fields.
	Owner    TxID
	Status   Status
	Sequence int64 // of the newest desired receipt
	Sent     int64 // sequence of the newest receipt that the CRM has accepted
	// Tasking is when a task about the record was last asked for, until it is known what became of that; zero once it is.
	Tasking time.Time
}

// Due reports whether the CRM has not yet been told the newest.
func (r ReceiptState) Due() bool { return r.Sent < r.Sequence }

// TreeHead is the state of the audit tree.
type TreeHead struct {
	Size int64
	Root string // base64, as in signed checkpoints
}

// PollState is how the last poll of an account went.
type PollState struct {
	Tenant  TenantID
	Account AccountID
	Kind    Kind
	Name    string // the CRM's own name of the account, for people
	At      time.Time
	// Lag is how far behind the CRM's clock the cursor was.
	Lag     time.Duration
	Entries int
	Budget  Budget
	// Err is the last error, empty after a success; Since is when it began. Refused means that it is the login's.
	Err     string
	Since   time.Time
	Refused bool
	// Trouble says what is wrong with the login, where that can be told: expired, revoked, misconfigured or no permission.
	Trouble string
	// Calls are those that were made to the CRM since the poll before, by whomever; FailedCalls are as in Day.
	Calls, FailedCalls int64 `json:"-"`
}

// JobKind says what a queued job does.
type JobKind string

// The kinds of jobs. All carry a TxID only.
const (
	JobSeal   JobKind = "seal"   // run the sealing's steps until it must wait
	JobTell   JobKind = "tell"   // bring the record's receipt up to date
	JobErrand JobKind = "errand" // do what else is to be done in the CRM because of what became of the sealing
)

// Job is one unit of queued work.
type Job struct {
	Kind JobKind
	Tx   TxID
}

// Outcome says when the job wants to run again; zero means that it is finished.
type Outcome struct{ Again time.Duration }

// TrailLine is one line of a sealing's audit trail, as people read it.
type TrailLine struct {
	Index int64 // in the audit tree
	At    time.Time
	Who   string
	What  string
	Why   string
	Cert  string
	Step  Step
}
