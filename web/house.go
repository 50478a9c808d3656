package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// ErrNotFound is what House.Deal returns, wrapped or not, for a transaction that it does not know.
var ErrNotFound = errors.New("no such deal")

// ErrErased means that what is asked for can be read by nobody any more.
var ErrErased = errors.New("the deal was erased")

// ErrDamaged means that the archive's copy of a deal is missing, or is not what was sealed.
var ErrDamaged = errors.New("the archive's copy is not what was sealed")

// House is what the pages and the metrics need to know of the daemon. Its methods answer from what is committed, are safe
// for concurrent use, and return when ctx ends. Those that take a who put that person into the audit log before they
// return anything; the others change nothing. The texts of their errors are logged and never shown.
type House interface {
	// Tenants returns the configured tenants in the order in which they are to be shown.
	Tenants(ctx context.Context) ([]Tenant, error)
	// Counts returns how many deals are in each state that has any.
	Counts(ctx context.Context) ([]Count, error)
	// Find returns a page of deals, newest first.
	Find(ctx context.Context, s Search) (Found, error)
	// Deal returns all that is known of one deal, or ErrNotFound.
	Deal(ctx context.Context, tx deal.TxID) (*Deal, error)
	// Values returns what was read of the record; ErrNotFound or ErrErased.
	Values(ctx context.Context, tx deal.TxID, who string) (*Values, error)
	// Fetch opens a file of the archive by its name among Deal.Kept; ErrNotFound, ErrErased or ErrDamaged. The caller
	// closes it.
	Fetch(ctx context.Context, tx deal.TxID, name, who string) (deal.File, io.Closer, error)
	// Proof returns the audit proof of a deal, a JSON document; ErrNotFound.
	Proof(ctx context.Context, tx deal.TxID, who string) ([]byte, error)
	// Quarantined returns the rows that connectors could not understand and nobody has dealt with, newest first, at most
	// limit.
	Quarantined(ctx context.Context, limit int) ([]deal.Quarantine, error)
	// Guards returns what the guard holds until a person decides.
	Guards(ctx context.Context) ([]deal.GuardHold, error)
	// Discrepancies returns what CRMs do not show as the ledger has it, as of the last look, and nobody has dealt with, of
	// one tenant or, if that is empty, of all, newest first, at most limit. DiscrepancyCounts counts all of them.
	Discrepancies(ctx context.Context, tenant deal.TenantID, limit int) ([]deal.Discrepancy, error)
	DiscrepancyCounts(ctx context.Context) ([]deal.DiscrepancyCount, error)
	// Passes returns the newest comparison of each tenant's CRM with the ledger that there was.
	Passes(ctx context.Context) ([]deal.Pass, error)
	// Pushes returns what senders have pushed and what became of it, newest first, at most limit.
	Pushes(ctx context.Context, limit int) ([]deal.Push, error)
	// Untold returns how many records have been showing something older than what is true for a while, and since when the
	// oldest has.
	Untold(ctx context.Context) (n int64, oldest time.Time, err error)
	// Figures returns what happened on the days from since on.
	Figures(ctx context.Context, since time.Time) (deal.Figures, error)
	// TreeHead returns the state of the audit tree, NewestCheckpoint the last one that was signed.
	TreeHead(ctx context.Context) (deal.TreeHead, error)
	NewestCheckpoint(ctx context.Context) (deal.Checkpoint, error)
	// AuditKey is the public key of the checkpoints.
	AuditKey() string
	// Keys returns the keys that seal, each with the certificate that it seals with or was last to, and behind that the
	// others that the registry has of it and that have not ended.
	Keys(ctx context.Context) ([]Key, error)
	// Stampers returns the time-stamp servers, in the order in which they are configured.
	Stampers(ctx context.Context) ([]Stamper, error)
	// Checkup returns what the newest examination of the house has found; the zero value before the first one.
	Checkup(ctx context.Context) (Checkup, error)
}

// Checkup is an examination of the house.
type Checkup struct {
	At time.Time // when it was finished; zero for never
	// Passes is how many checks found nothing to say.
	Passes int
	// Trouble are the others, in the order in which they are to be shown.
	Trouble []Trouble
}

// Trouble is one thing that a check-up has found. It holds no value of a record.
type Trouble struct {
	Group string // "tenant acme", "signing" and so on
	Check string // with what it is about
	// Fails is set when it keeps documents from being sealed; else it is a warning.
	Fails bool
	// What was found, and the Cure.
	What, Cure string
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
	// Nightly is set when its CRM is compared with the ledger each night.
	Nightly bool
	// Rules are the ids of its rules, and Inferring of those among them whose entries are inferred from snapshots.
	Rules, Inferring []string
	// Paused says since when and why a person has it wait; nil if nobody has.
	Paused *deal.Pause
	// Poll is how the last poll went; its zero value means that there was none yet.
	Poll deal.PollState
	// Listening is how listening to the CRM goes, nil where it is not listened to.
	Listening *deal.Listening
	// Workflows are those of the CRM that wait for deals.
	Workflows Workflows
	// Errands are what is to be done in the CRM because of what became of deals.
	Errands Errands
}

// Errands is how that is doing which is to be done in a CRM beside telling records.
type Errands struct {
	// Open are still to be done; Failing of these could not be in three tries, the last time because of Problem.
	Open, Failing int64
	Problem       string
	// Oldest is when the oldest of those that are open was made.
	Oldest time.Time
	// Refused are those of the last day that the CRM did not let us do.
	Refused int64
}

// Workflows is how those are doing that stand still until they are told what has become of a deal.
type Workflows struct {
	// Waiting are open; Failing of these could not be told three times, the last time because of Problem.
	Waiting, Failing int64
	Problem          string
	// Oldest is when the oldest of those that wait came.
	Oldest time.Time
	// Lost are those of the last day that were not told.
	Lost int64
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

// Search says which deals are asked for. Empty fields match everything.
type Search struct {
	// Text is what a person knows of a deal: a transaction ID or its beginning, a record's ID, a name.
	Text   string
	Tenant deal.TenantID
	// Tenants are those that anything is to be found of; nil: all.
	Tenants []deal.TenantID
	// State is "done" or a deal.Condition.
	State string
	Rule  string
	// Day (UTC) on which the deal was noticed.
	Day time.Time
	// Before is the Next of the page before.
	Before int64
	Limit  int
}

// Found is a page of deals.
type Found struct {
	Rows []Row
	// By says what the text was taken for: "transaction", "record" or "name".
	By string
	// Next is where older ones are; 0 when there are none.
	Next int64
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
	// Errands are what was to be done in the CRM because of what became of it.
	Errands []deal.Errand
	// Kept are the files in the archive, by the names that Fetch knows.
	Kept []deal.FileFact
	// Damaged means that they cannot be listed: the archive's folder is missing, or not as it was kept.
	Damaged bool
	// Asked is the level that the deal's profile asks for.
	Asked string
	// Erased means that the deal's data key was destroyed.
	Erased bool
}

// Values are what went into a document, as JSON; empty where there was nothing of the kind.
type Values struct {
	// Document is the merged record, Record what was read of the CRM's.
	Document, Record json.RawMessage
	// FileName is the document's own.
	FileName string
	// Differences are the values that are others on the record now, as of the last look.
	Differences []deal.Difference
}

// Key is a key that seals, by its configured name, with one of its certificates.
type Key struct {
	Name string
	// For is the key that profiles name when they seal with this certificate, where that is not Name: its key pair has followed
	// that one's, or is to. FollowedBy is the key whose key pair has followed this one; empty: none.
	For, FollowedBy string
	// Subject, Issuer and SHA256 are its certificate's; NotAfter is when that ends.
	Subject, Issuer, SHA256 string
	NotAfter                time.Time
	// State is the certificate's in the registry; empty for one that the registry does not know. A next one becomes active at
	// ActivateAt, unless that is zero.
	State      deal.CertState
	ActivateAt time.Time
	// BesideUntil is how long a retiring one makes second seals; of a next one, how long the one that it follows will.
	BesideUntil time.Time
	// Answer is what came of asking last whether it is revoked; Answered is when somebody last said that it is not.
	Answer   deal.CertAnswer
	Answered time.Time
	// Idle means that the key seals nothing, because none of its certificates is active.
	Idle bool
	// Silent means that the key cannot be reached now; the rest is what was last known of it, if anything.
	Silent bool
	// Uses are how many documents it has sealed, UsesToday those of this day in UTC; the limits are 0 where there is none.
	Uses, UsesToday        int64
	MaxUses, MaxUsesPerDay int64
	// StandIn is the key that seals in its place now, while it fails; empty: none does.
	StandIn string
}

// followed reports whether another key pair makes the new seals that this one made.
func (k Key) followed() bool {
	return k.FollowedBy != "" && (k.State == deal.CertRetiring || k.State == deal.CertRevoked)
}

// Stamper is a time-stamp server.
type Stamper struct {
	Server string // its address, without what may be secret in it
	// Quota is how many requests a day it may be sent, 0 for any number; Used how many it was sent on this day in UTC, which
	// is counted only where there is a quota.
	Quota, Used int64
	// Asked is when this process asked it last; zero for never. Why is why that came to nothing; empty: it did not.
	Asked time.Time
	Why   string
	// Rests means that the others are asked before it, because it has just failed.
	Rests bool
}

// Spent is the used share of the quota, 0 where there is none.
func (s Stamper) Spent() float64 {
	if s.Quota == 0 {
		return 0
	}
	return float64(s.Used) / float64(s.Quota)
}

// Spent is the used share of the limit that is nearest, 0 where there is none.
func (k Key) Spent() float64 {
	share := 0.0
	if k.MaxUses > 0 {
		share = float64(k.Uses) / float64(k.MaxUses)
	}
	if k.MaxUsesPerDay > 0 {
		share = max(share, float64(k.UsesToday)/float64(k.MaxUsesPerDay))
	}
	return share
}
