// Package connectors is the port to the CRMs: what the engine needs of Salesforce, HubSpot and whatever comes next.
//
// CRM is the small base that every connector has. Abilities are separate interfaces; the assembly asserts them in one
// place. connectors/connectortest is the contract as a test suite, and every connector passes it against a server that
// speaks its wire.
package connectors

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// CRM is one org or portal. Implementations are safe for concurrent use.
//
// Errors are asked, not named: Permanent() bool says that trying again cannot help, RetryAfter() time.Duration how long
// the CRM wants to be left alone, Unsettled() time.Duration how long it may still carry out the upload that failed. Login()
// bool says that the trouble is with the login and not with the record that was asked for (see IsLogin). deal.ErrGone means
// that the record does not exist. Error texts carry the CRM's error code and field names, never record values, queries or
// tokens.
type CRM interface {
	// Identity asks the CRM who it is. It costs one or two calls and proves that the login works.
	Identity(ctx context.Context) (deal.Account, error)

	// Changes returns at most 500 stage entries that became visible after the cursor, oldest first, each at least
	// once and none skipped, however late the CRM shows it within the connector's overlap. It reads the stage's
	// history, so an entry that was left again between two polls is returned. All times are the CRM's. A row that
	// cannot be understood is returned as quarantined. An entry is returned once for each watch that it matches and
	// only if it is not older than that watch's Since. The zero cursor starts at the earliest Since.
	Changes(ctx context.Context, after deal.Cursor, watches []deal.Watch) (deal.Page, error)

	// Record reads the fields named by dotted CRM paths, the stage, and all files on the record with those that bear
	// our marker recognised. An older (merged) ID works. deal.ErrGone when there is no such record. The first reading after an
	// entry may be that by which the entry was found, a moment ago; any other one reads the record itself anew, and what
	// belongs to it (lines, contacts, the company) unless that was read within the second before and shows no change. For the
	// first reading it may have been read with that of other records up to half a minute before, since the entry was found.
	Record(ctx context.Context, ref deal.Ref, fields []string) (deal.Record, error)

	// Attach stores f on the record once per (tx, role, SHA-256): it looks before it writes, so that a second call,
	// also after a lost reply, finds the first file. It returns only when the CRM reports the right size and checksum.
	// Beside another file of the same transaction and role it puts none: that is OtherFile.
	Attach(ctx context.Context, ref deal.Ref, tx deal.TxID, role deal.Role, f deal.File) (deal.Attachment, error)

	// WriteBack sets the receipt's fields in one write. An older receipt (by Sequence) never overwrites a newer one:
	// that is success and changes nothing. While the record bears a newer one from the future, the error is a *FutureError.
	WriteBack(ctx context.Context, ref deal.Ref, r deal.Receipt) error
}

// Piece is one of the files that belong together.
type Piece struct {
	Role deal.Role
	File deal.File
	// New says that the bytes were made a moment ago, and were not given to a connector before: nobody can have stored
	// them, so that they need not be looked for.
	New bool
}

// Bundler is the ability to attach several files of a transaction as Attach does one, with fewer calls. An error may leave
// some of them attached: a second call finds them.
type Bundler interface {
	AttachAll(ctx context.Context, ref deal.Ref, tx deal.TxID, files []Piece) ([]deal.Attachment, error)
}

// OtherFile is the hold of a deal whose record bears a file of the very transaction, in the same role, with other bytes than
// those that should be attached: another daemon with a copy of the state has put it there, or a person.
func OtherFile(role deal.Role, fileID string) *deal.HoldError {
	return deal.Hold("the record already bears another %s of this transaction, with other bytes (file %s): see whether another daemon works with a copy of this state, and stop one of the two; "+
		"then remove the file that should not be there and release the deal, or drop it", role, fileID)
}

// IsLogin reports whether err says that the login fails, or that the CRM no longer lets it in: a refused or expired
// credential, a secret that cannot be read, a missing scope of the app, an API that is switched off. Such an error may be
// permanent, and yet it says nothing about the record: every other one fails in the same way, and all of them go on once
// the login is mended. So no record should be given up for it.
func IsLogin(err error) bool {
	var l interface{ Login() bool }
	return errors.As(err, &l) && l.Login()
}

// What may be wrong with a login, in words for people.
const (
	LoginExpired       = "expired"       // and could not be renewed
	LoginRevoked       = "revoked"       // somebody has taken it back
	LoginMisconfigured = "misconfigured" // it never was the right one, or cannot be read
	LoginNoPermission  = "no permission" // it is let in, and may not do what it must
)

// LoginTrouble says which of these err is, if IsLogin; what cannot be told from a passing trouble is empty.
func LoginTrouble(err error) string {
	if !IsLogin(err) {
		return ""
	}
	var t interface{ LoginTrouble() string }
	if errors.As(err, &t) {
		return t.LoginTrouble()
	}
	if deal.IsPermanent(err) {
		return LoginMisconfigured // such as an account of the other environment
	}
	return ""
}

// Files is the ability to read the content of a file on a record.
type Files interface {
	// Download writes the content of the file to w, at most limit bytes; more is an error.
	Download(ctx context.Context, ref deal.Ref, fileID string, w io.Writer, limit int64) error
}

// Historian is the ability to read the stage history of a stretch of time, apart from the poll.
type Historian interface {
	// Entries returns at most 500 of the stage entries from from on and before to, both on the CRM's clock, under the
	// contract of Changes: each at least once and for each watch that it matches, none from before its watch's Since, rows
	// that cannot be understood as quarantined. The zero cursor begins, the page's Next goes on while it has More; the
	// arguments stay the same until then. Entries are oldest first within a page, not from page to page, and a page may
	// have none. What the CRM shows later, and the history of records that were deleted since, is missing. Calls of
	// Changes and of Entries do not disturb each other.
	Entries(ctx context.Context, from, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error)
}

// Direct is the ability to ask some records for their stage entries, past whatever lists of changes show late. It is asked when
// somebody else has said that these records have moved.
type Direct interface {
	// EntriesOf returns the entries of the records, exactly as Changes would when it came to them: the same occurrences and
	// aliases, and only those that are not older than the Since of their watch. Records that do not exist, or that are none of
	// this CRM, have no entries; of an object that is Refused nothing is known. The page has no Next. At most 100 records.
	EntriesOf(ctx context.Context, refs []deal.Ref, watches []deal.Watch) (deal.Page, error)
}

// Edits is the ability to list the records that others have edited, for a CRM whose polls tell of little more than stages.
type Edits interface {
	// Edited returns records of which something was edited: a field, a parent or a line, as far as the fields name any. It is a
	// hint as deal.Page.Changed is one. It costs one call, and the first one what there is to learn of the account.
	// With an error come those that were seen all the same: they are not returned again.
	Edited(ctx context.Context, e EditsOf) (Edited, error)
}

// EditsOf is which edits are asked for.
type EditsOf struct {
	Object string
	// Fields are paths as for CRM.Record.
	Fields []string
	// Bearing is a field without which a record is of no interest; it may be empty.
	Bearing string
	// From is since when, on the CRM's clock.
	From time.Time
}

// Edited is what was edited.
type Edited struct {
	Refs []deal.Ref
	// Next is the From of the next question; until then what is shown again is not returned again.
	Next time.Time
	// More says that there is more than is returned.
	More bool
}

// Waker is the ability to be told by the CRM itself that records have changed, over a connection that the connector makes.
type Waker interface {
	// Wakes reports whether there is anything to listen to, by the configuration. Nothing else of a Waker that does not is
	// called.
	Wakes() bool
	// Reach asks whether it could be listened to. It changes nothing.
	Reach(ctx context.Context, account deal.Account) error
	// Wake listens until ctx ends or the connection does, and returns why. The next call goes on where this one has stopped,
	// also after a restart: everything that the CRM tells is heard at least once, unless the CRM does not keep it so long.
	// Calls of one connector do not overlap.
	Wake(ctx context.Context, account deal.Account, to Listener) error
}

// Listener is who is told. Its functions are called one at a time, except that Connected may be called beside the others.
type Listener struct {
	// Connected says that the CRM has accepted us.
	Connected func()
	// Heard takes what was told, or that the CRM is still there; what is taken is not told again once it has returned nil.
	Heard func(ctx context.Context, h deal.Heard) error
	// Lost says that something may have been missed for good.
	Lost func()
}

// Metered is the ability to say how much of the CRM's allowance is used, without a call.
type Metered interface {
	Budget() deal.Budget
}

// Mover is the ability to move a record to another stage.
type Mover interface {
	// Move puts the record into m.To if it is in one of m.From, and returns the stage in which it is then: it looks before it
	// writes, so that a record that is in m.To already costs no write, and one that somebody has moved stays where it is, also
	// one that was in m.To since m.Since. Where the CRM has conditional writes nobody comes between look and write.
	Move(ctx context.Context, ref deal.Ref, m deal.Move) (stage string, err error)
}

// Tasker is the ability to put a task before the owner of a record.
type Tasker interface {
	// Task makes the task, once per mark (deal.Task.Mark): it looks before it writes, so that a second call, also after a lost
	// reply, finds the first one's. Where nobody owns the record it is for nobody in particular. The id is empty when it was only to
	// be looked for, and is not there.
	Task(ctx context.Context, ref deal.Ref, t deal.Task) (id string, err error)
}

// Noter is the ability to put notes on the timeline of a record.
type Noter interface {
	// Note makes the note, once per mark (deal.Note.Mark), as Tasker.Task does with tasks.
	Note(ctx context.Context, ref deal.Ref, n deal.Note) (id string, err error)
}

// Completer is the ability to let a workflow of the CRM go on that waits for what becomes of a deal.
type Completer interface {
	// Complete says what became of it. IsNoCallback when the CRM does not know the workflow: it was told before, has gone on by
	// itself, or is not yet known to wait.
	Complete(ctx context.Context, callback string, outcome deal.CallbackOutcome, tx deal.TxID) error
}

// NoCallback marks an error that says that the CRM knows no workflow of that name which waits.
func NoCallback(err error) error { return &noCallbackError{err} }

type noCallbackError struct{ error }

func (e *noCallbackError) Error() string {
	return "the CRM knows no such workflow that waits: " + e.error.Error()
}
func (e *noCallbackError) Unwrap() error { return e.error }

// IsNoCallback reports whether err was marked by NoCallback.
func IsNoCallback(err error) bool {
	var e *noCallbackError
	return errors.As(err, &e)
}

// Priced is the ability to say what a deal costs.
type Priced interface {
	// Price is how many calls a deal takes beside the two readings of its record, when it is alone and all goes well: to show
	// that it is in the works, to attach so many files that were made a moment ago, and to show that it is signed.
	Price(files int) int
}

// Memory is what a connector must keep over restarts (a rotated refresh token), encrypted at rest by whoever
// implements it. Safe for concurrent use.
type Memory interface {
	// Get returns the value and its version; a key that was never put has a nil value and version 0.
	Get(ctx context.Context, key string) (value []byte, version int64, err error)
	// Put stores the value durably if the version is still the one that Get returned; otherwise deal.ErrStale.
	Put(ctx context.Context, key string, value []byte, version int64) error
}
