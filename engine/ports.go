package engine

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
)

// Ledger is the authority over what was noticed, what is intended and what is done. Safe for concurrent use. Every
// method is durable when it returns.
type Ledger interface {
	// Activate commits the activation time of a rule the first time and returns the committed time ever after. If the
	// account has been read past a new activation, its cursor moves back in the same transaction.
	// A rule whose object, pipeline or stage was edited is activated anew.
	Activate(ctx context.Context, tenant deal.TenantID, account deal.AccountID, w deal.Watch, at time.Time) (time.Time, error)
	Cursor(ctx context.Context, tenant deal.TenantID, account deal.AccountID) (deal.Cursor, error)
	// Notice takes in a page: new sealings, their jobs and receipts, quarantined rows, the next cursor and the audit
	// entries in one transaction. What n.Guard does not let through is held. deal.ErrStale when the cursor is not the page's.
	Notice(ctx context.Context, n deal.Noticing) (fresh []deal.TxID, err error)
	// Infer returns the entries that follow from the sightings of a page, those that are known included, and keeps nothing. They go
	// into the page, and Notice refuses it with deal.ErrStale if others follow by then.
	Infer(ctx context.Context, n deal.Noticing) ([]deal.Change, error)
	// Knows reports whether an entry has been known by this name, also one that a filter has left out.
	Knows(ctx context.Context, tx deal.TxID) (bool, error)
	// IsPaused reports whether a person has a tenant wait. Begin lets no key be used for it then.
	IsPaused(ctx context.Context, tenant deal.TenantID) (bool, error)
	// Guards returns what the guard holds until a person decides, of all tenants.
	Guards(ctx context.Context) ([]deal.GuardHold, error)

	Load(ctx context.Context, tx deal.TxID) (*deal.Sealing, error)
	// Begin commits an intent and takes the lease; no effect that others can see happens without it. deal.ErrStale
	// when someone else moved the sealing or holds the lease.
	Begin(ctx context.Context, s *deal.Sealing, i deal.Intent) error
	// Advance commits what s has become, with its audit entry, events, counters and the receipt that follows from it.
	// It refuses a second digest for the same TxID, and a step back once a signature exists.
	Advance(ctx context.Context, s *deal.Sealing, e deal.Entry) error
	// Identify takes note of every ID that the CRM knows the sealing's record by, so that Earlier and the record's receipt
	// find what was noticed under another one. It does not change the sealing.
	Identify(ctx context.Context, s *deal.Sealing, ids []string) error
	// Wake lets the sealings go on that wait for a cause (Facts.WaitsFor), of one tenant or, if that is empty, of all: soon,
	// and one after the other. It returns how many.
	Wake(ctx context.Context, tenant deal.TenantID, cause string) (n int, err error)
	// Earlier lists other sealings of the same record and rule that were noticed before s and not dropped.
	Earlier(ctx context.Context, s *deal.Sealing) ([]deal.TxID, error)
	// Trail returns the audit lines of a sealing, oldest first.
	Trail(ctx context.Context, tx deal.TxID) ([]deal.TrailLine, error)

	Receipt(ctx context.Context, tx deal.TxID) (deal.ReceiptState, error)
	// Told commits that the record shows this receipt. again is after which time it is to be looked at once more; 0 is never.
	Told(ctx context.Context, tx deal.TxID, sequence int64, again time.Duration) error
	// Tasking commits that a task about the record is asked for now, or, if not, that it is known what became of that. Told does
	// the latter, too.
	Tasking(ctx context.Context, tx deal.TxID, now bool) error
	// Refused takes note that the CRM does not take the receipt with this sequence, for a reason that somebody has to mend.
	Refused(ctx context.Context, tx deal.TxID, sequence int64, reason string) error
	// Errands returns what was and is to be done in the CRM because of what became of a sealing, oldest first. Advance makes
	// what follows from a change.
	Errands(ctx context.Context, tx deal.TxID) ([]deal.Errand, error)
	// BeginErrand commits that one is about to be tried. deal.ErrStale when it is not to be done any more.
	BeginErrand(ctx context.Context, e deal.Errand) error
	// EndErrand commits what came of that: a fate and an outcome, or a problem.
	EndErrand(ctx context.Context, e deal.Errand) error
	// FollowUps takes note of the deals that have had no outcome for as long as their plans let them, with an event and, where
	// the plan has a field for it, a receipt, once for each wait. It returns how many.
	FollowUps(ctx context.Context) (n int, err error)
	TreeHead(ctx context.Context) (deal.TreeHead, error)
	SetPoll(ctx context.Context, p deal.PollState) error
	// Instance names this database, and no copy of it: a copy gets a name of its own with its epoch.
	Instance() string
	// Epoch is when this state directory was last found to be a copy or a restored backup; zero if never.
	Epoch() time.Time
}

// Inbox keeps what was pushed. Safe for concurrent use.
type Inbox interface {
	// Receive is durable when it returns. wake are the records to look at, without those that were told of before.
	Receive(ctx context.Context, a deal.Arrival) (wake []deal.Ref, replayed bool, err error)
}

// Callbacks keeps the workflows of CRMs that stand still until they are told what has become of a deal. Safe for concurrent
// use. Every method is durable when it returns.
type Callbacks interface {
	// LookedAt takes note that all entries of a record are known that it had at a time: workflows that came before wait for the
	// newest sealing of it, and where there is none are to be told so. It returns how many.
	LookedAt(ctx context.Context, tenant deal.TenantID, account deal.AccountID, ref deal.Ref, at time.Time) (n int, err error)
	// Callbacks returns those for which there is something to do now, at most limit, and how many wait in all.
	Callbacks(ctx context.Context, tenant deal.TenantID, limit int) (due []deal.Callback, open int64, err error)
	// BeginCallback commits what a workflow is told, the first time, and that the CRM is being told it. deal.ErrStale when
	// the workflow waits no more, or is told something else.
	BeginCallback(ctx context.Context, c deal.Callback, outcome deal.CallbackOutcome) error
	// EndCallback commits what became of that.
	EndCallback(ctx context.Context, c deal.Callback, e deal.CallbackEnd) error
}

// Files keeps the bytes of a sealing in flight, encrypted under its data key and fsynced when a method returns.
type Files interface {
	Stage(ctx context.Context, tx deal.TxID, name string, write func(io.Writer) error) (deal.FileFact, error)
	// OpenStaged returns the file after comparing all of it with what was committed. The closer must be called.
	OpenStaged(ctx context.Context, tx deal.TxID, name string, want deal.FileFact) (deal.File, io.Closer, error)
	Unstage(ctx context.Context, tx deal.TxID) error
	// OpenKept returns a file of the archive after comparing all of it with its manifest.
	OpenKept(ctx context.Context, folder, name string) (deal.File, io.Closer, error)
	// Keep puts the staged contract (s.Facts.Contract) and the evidence into the archive, atomically and once, and
	// returns the folder.
	Keep(ctx context.Context, s *deal.Sealing, staged string, evidence map[string][]byte) (folder string, err error)
}

// Queue hands out jobs. It is only a scheduler: the ledger says what there is to do.
type Queue interface {
	Run(ctx context.Context, work func(context.Context, deal.Job) deal.Outcome) error
}

// Bundles finds the template bundle that a sealing was noticed with, by the hash of its content.
type Bundles interface {
	Bundle(hash string) (*documents.Bundle, error)
}

// Sealer is signing.Sealer.
type Sealer interface {
	Prepare(ctx context.Context, doc pades.Document, r signing.Request) (*signing.Ticket, error)
	// Rehearse completes the staged seal with a throw-away key that root certifies.
	Rehearse(t *signing.Ticket) (tail []byte, root *x509.Certificate, err error)
	// PrepareSecond stages the second seal that first asks for, on a document that bears the first one complete.
	PrepareSecond(ctx context.Context, doc pades.Document, first *signing.Ticket) (*signing.Ticket, error)
	// IsKey reports whether a configured key name stands for a public key, by its SHA-256 in hexadecimal, or did before a rollover.
	IsKey(ctx context.Context, key, spki string) (bool, error)
	Redeem(ctx context.Context, t *signing.Ticket) ([]byte, error)
	Timestamp(ctx context.Context, t *signing.Ticket, value []byte) ([]byte, error)
	Complete(t *signing.Ticket, value, token []byte) (tail []byte, e signing.Evidence, err error)
}

// Extender is signing.Extender: it gets what makes a seal last.
type Extender interface {
	// Collect gets the evidence that the subjects are checked with later. A revocation is a *revocation.RevokedError.
	Collect(ctx context.Context, subjects []revocation.Subject) (revocation.Material, error)
	// Stamp gets the token of a staged document time-stamp.
	Stamp(ctx context.Context, p *pades.PreparedTimestamp) (token []byte, err error)
}

// Checker reads what was sealed, in a process of its own.
type Checker interface {
	Check(ctx context.Context, doc pades.Document) (*verify.Report, error)
	// CheckRehearsal reads a document that only root vouches for, without a second reader.
	CheckRehearsal(ctx context.Context, doc pades.Document, root *x509.Certificate) (*verify.Report, error)
}

// profileOf reads what a plan keeps of a signing profile.
func profileOf(p deal.Plan) (signing.Profile, error) {
	var out signing.Profile
	err := json.Unmarshal(p.Profile, &out)
	return out, err
}
