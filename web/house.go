package web

import (
	"context"
	"errors"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// ErrNotFound is what House.Deal returns, wrapped or not, for a transaction that it does not know.
var ErrNotFound = errors.New("no such deal")

// House is what the pages and the metrics need to know of the daemon. Its methods answer from what is committed, change
// nothing, are safe for concurrent use, and return when ctx ends. The texts of their errors are logged and never shown.
type House interface {
	// Tenants returns the configured tenants in the order in which they are to be shown.
	Tenants(ctx context.Context) ([]Tenant, error)
	// Counts returns how many deals are in each state that has any.
	Counts(ctx context.Context) ([]Count, error)
	// Deals returns the deals that match, newest first.
	Deals(ctx context.Context, f Filter) ([]Row, error)
	// Deal returns all that is known of one deal, or ErrNotFound.
	Deal(ctx context.Context, tx deal.TxID) (*Deal, error)
	// Quarantined returns the rows that connectors could not understand, newest first, at most limit.
	Quarantined(ctx context.Context, limit int) ([]deal.Quarantine, error)
	// Untold returns how many records have been showing something older than what is true for a while, and since when the
	// oldest has.
	Untold(ctx context.Context) (n int64, oldest time.Time, err error)
	// TreeHead returns the state of the audit tree.
	TreeHead(ctx context.Context) (deal.TreeHead, error)
	// Keys returns the keys that seal.
	Keys(ctx context.Context) ([]Key, error)
}

// Tenant is one configured CRM account.
type Tenant struct {
	ID   deal.TenantID
	Name string
	Kind deal.Kind
	// Environment is "production" or "sandbox".
	Environment string
	// Every is the configured time between two polls.
	Every time.Duration
	// Poll is how the last poll went; its zero value means that there was none yet.
	Poll deal.PollState
}

// Count is how many deals of a tenant are in a state.
type Count struct {
	Tenant    deal.TenantID
	Step      deal.Step
	Condition deal.Condition
	N         int64
	// Oldest is when the one that has not moved for the longest time last did.
	Oldest time.Time
}

// Filter says which deals are asked for. An empty Condition means all of them.
type Filter struct {
	Condition deal.Condition
	Limit     int
}

// Row is one deal in a list.
type Row struct {
	Tx      deal.TxID
	Tenant  deal.TenantID
	Account deal.AccountID
	Ref     deal.Ref
	// RecordURL is the CRM's own page of the record; empty when it is not known.
	RecordURL string
	Rule      string
	Step      deal.Step
	Condition deal.Condition
	Reason    string
	Attempts  int
	Next      time.Time
	// At is when the record entered its stage, on the CRM's clock; Updated when the deal last moved, on ours.
	At, Updated time.Time
}

// Deal is one deal with its audit trail. Sealing.Private is never read.
type Deal struct {
	Sealing *deal.Sealing
	Receipt deal.ReceiptState
	Trail   []deal.TrailLine
	// Earlier are other deals of the same record and rule that came before.
	Earlier []deal.TxID
	// Erased means that the deal's data key was destroyed.
	Erased bool
}

// Key is a key that seals, by its configured name.
type Key struct {
	Name string
	// NotAfter is when its certificate ends.
	NotAfter time.Time
}
