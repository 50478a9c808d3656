// Package connectortest is the contract of connectors.CRM as a test suite. Every connector passes it against a server
// that speaks its CRM's wire: the connector's author implements World in a _test file and calls Run.
//
// The suite drives a connector as the engine does: a small ledger in memory keeps the cursor, the activation times of
// the rules and the transaction IDs that it knows, and decides what is fresh.
package connectortest

import (
	"errors"
	"log/slog"
	"regexp"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// ErrUnsupported says that the CRM of this world has no such thing (Salesforce cannot merge opportunities). The suite
// then leaves the case out, loudly. It may be returned only for what the CRM lacks, not for what a mock lacks.
var ErrUnsupported = errors.New("this CRM has no such thing")

// World is one CRM account on a mock server, seen from outside, and the way to make connectors to it. Run asks for a
// fresh one per case. A World that cannot do what it is asked calls t.Fatal of the test it was opened with.
//
// The world has its own clock, which stands still between calls of Advance: everything that is written in between bears
// the same stamp. It starts at a whole second, a few years from the zero time, and the mock uses it for everything that
// it dates, including the Date header.
type World interface {
	// Connector makes a connector as after a restart of the daemon: it remembers nothing but what the CRM and
	// connectors.Memory hold. log takes all that it logs.
	Connector(log *slog.Logger) connectors.CRM
	// Traits names the things of this world. It is constant.
	Traits() Traits

	// Now is the CRM's time, Advance moves it on.
	Now() time.Time
	Advance(d time.Duration)

	// CreateDeals makes n deals in the given stage, with one stamp. It must cope with 10,500.
	CreateDeals(n int, stage string) (ids []string)
	// Move puts the deal into the stage. A move into the stage that it is in is no change.
	Move(id, stage string)
	// SetAmount edits the amount, a decimal such as "12500.25", which is no stage change.
	SetAmount(id, amount string)
	// AddLine adds a line item; lines are listed in the order in which they were added.
	AddLine(id, name, quantity, price string)
	// AddFile attaches a file as a user of the CRM would.
	AddFile(id, name string, content []byte)
	// Delete removes the deal.
	Delete(id string)
	// Merge makes one deal out of two and returns its ID, or ErrUnsupported.
	Merge(winner, loser string) (id string, err error)
	// DelayVisibility makes stage changes from now on visible only d after their stamp; 0 ends it. A search index that
	// lags behind the records counts as such.
	DelayVisibility(d time.Duration)
	// Garble damages the newest stage-history row of the deal so that its content cannot be understood.
	Garble(id string)

	// Files lists what is attached to the deal, oldest first; Field returns what a field holds, "" when empty.
	Files(id string) []StoredFile
	Field(id, name string) string

	// Timeline lists the notes of deal.Note on the deal's timeline, oldest first: whole texts.
	Timeline(id string) []string
	// Tasks lists the tasks about the deal, oldest first.
	Tasks(id string) []StoredTask

	// Fail makes the next calls of the kind misbehave; times < 0 means until Heal. ErrUnsupported when the CRM has no
	// such call or no such failure.
	Fail(call Call, effect Effect, times int) error
	// LetSetUp gives the connector's user, or the app, the right to make fields.
	LetSetUp()
	// Heal ends all failures.
	Heal()
	// KillSessions ends every session, as an administrator or a time-out would.
	KillSessions()
	// Requests counts the calls of a kind that the CRM has seen since the world began; AnyCall counts all but logins.
	Requests(call Call) int
	// SetUsage makes the CRM report how much of the daily allowance is used; ErrUnsupported when it never reports it.
	SetUsage(used, max int) error
}

// Traits are the names that the suite needs. All values are the CRM's API names and internal IDs.
type Traits struct {
	Object string
	// Stage is watched, Other is another open stage, Third one more; all of the same pipeline.
	Stage, Other, Third string
	Pipeline            string
	// NoSuchStage is no stage, and so close to Stage (or its label) that the cure for it is Stage.
	NoSuchStage string

	// Amount is the path of the amount. Lines is the path of the list of line items ("OpportunityLineItems"); LineName,
	// LineQuantity and LinePrice are paths below it ("Product2.Name").
	Amount                                   string
	Lines, LineName, LineQuantity, LinePrice string
	// NoSuchField is a path that does not exist in the account, ReadOnlyTime a date-time that nobody may write.
	NoSuchField, ReadOnlyTime string

	// Owner is the field of the deal's owner.
	Owner string

	// Unmovable says that records are moved by people alone.
	Unmovable bool

	// HTML says that the texts of notes and tasks are HTML.
	HTML bool

	// WriteBack names the fields that the mock's administrator has made for dealseal.
	WriteBack deal.WriteBack

	// NewWriteBack names fields that the account lacks and that can be made.
	NewWriteBack deal.WriteBack

	// Overlap is how late a change may become visible and must still be found.
	Overlap time.Duration
	// IdleCalls is how many calls a poll may cost when nothing has happened for longer than the overlap.
	IdleCalls int
	// Secrets are the strings that must never be seen in a log or an error: keys, client secrets, and every access
	// token that the mock has handed out so far is checked through SecretPrefix.
	Secrets []string
	// SecretPrefix begins every access token of the mock.
	SecretPrefix string
}

// StoredFile is a file on a deal, as the CRM has it.
type StoredFile struct {
	ID      string
	Name    string // with extension
	Content []byte
}

// StoredTask is a task about a deal, as the CRM has it.
type StoredTask struct{ ID, Subject, Body, Owner string }

// Call is a kind of call to the CRM, in words that fit every CRM.
type Call string

// The kinds of calls.
const (
	AnyCall    Call = "any"
	LoginCall  Call = "login"
	ListCall   Call = "list"   // reading stage history or searching deals
	ReadCall   Call = "read"   // reading one record
	UploadCall Call = "upload" // storing a file's bytes
	LinkCall   Call = "link"   // connecting a stored file with the deal, where that is a call of its own
	TaskCall   Call = "task"   // making a task
	NoteCall   Call = "note"   // making a note
	WriteCall  Call = "write"  // setting fields of the record
)

// Effect is a way to misbehave.
type Effect string

// The effects.
const (
	LoseReply   Effect = "lose reply"  // the call is carried out, then the connection is cut
	CutBefore   Effect = "cut before"  // the connection is cut and nothing is carried out
	Unavailable Effect = "unavailable" // 502 or 503 with an HTML page
	EmptyError  Effect = "empty error" // an error status with an empty list as its body
	Truncated   Effect = "truncated"   // a success whose JSON ends in the middle
	Busy        Effect = "busy"        // a row lock or a rate limit that goes away by itself
	Limited     Effect = "limited"     // the daily allowance is used up
	Refused     Effect = "refused"     // a rule of the account's administrator rejects the values
	Corrupted   Effect = "corrupted"   // the uploaded bytes arrive changed
	Hang        Effect = "hang"        // no answer until the caller gives up
	Expired     Effect = "expired"     // the session has just ended
	Forbidden   Effect = "forbidden"   // the user lacks a permission
)

// Run runs every case of the contract. open makes a fresh world for one case; it may use t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) World) {
	RunMatching(t, "", open)
}

// RunMatching runs the cases whose name contains a match of the regular expression, for a connector that has a second
// way to do a part of its work. Matching no case is a failure.
func RunMatching(t *testing.T, expression string, open func(t *testing.T) World) {
	match, err := regexp.Compile(expression)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, c := range cases {
		if !match.MatchString(c.name) {
			continue
		}
		ran++
		t.Run(c.name, func(t *testing.T) {
			c.run(t, open(t))
		})
	}
	if ran == 0 {
		t.Fatalf("no case matches %q", expression)
	}
}

// testCase is one promise of the contract.
type testCase struct {
	name string
	run  func(t *testing.T, w World)
}
