package deal

import (
	"fmt"
	"time"
)

// Errand is what is to be done in the CRM because of what became of a deal, beside telling its record. It is made in the
// transaction that makes it due, and done at least once: whoever does it looks before it acts.
type Errand struct {
	ID     int64      `json:"id"`
	Tx     TxID       `json:"tx"`
	Kind   ErrandKind `json:"kind"`
	Status Status     `json:"status"`          // what became of the deal
	Stage  string     `json:"stage,omitempty"` // that a record is moved to
	Made   time.Time  `json:"made"`
	// Tries are those that were begun; Problem is why the last one did not do it.
	Tries   int    `json:"tries,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Fate is empty while it is to be done. Outcome says in words for people what came of it.
	Fate    ErrandFate `json:"fate,omitempty"`
	Outcome string     `json:"outcome,omitempty"`
	Ended   time.Time  `json:"ended,omitzero"`
	// Asked is when a note was asked for of which it is not known what became.
	Asked time.Time `json:"asked,omitzero"`
}

// ErrandKind says what an errand does.
type ErrandKind string

// The kinds of errands.
const (
	ErrandMove ErrandKind = "move" // the record goes to another stage
	ErrandNote ErrandKind = "note" // the record's timeline says what became of the deal
)

// ErrandFate is how an errand has ended.
type ErrandFate string

// The fates of errands.
const (
	ErrandDone      ErrandFate = "done"
	ErrandLeft      ErrandFate = "left"      // the record is where somebody has put it meanwhile
	ErrandRefused   ErrandFate = "refused"   // the CRM does not let us
	ErrandOvertaken ErrandFate = "overtaken" // something else became of the deal meanwhile, or it was erased
)

// Move is a change of a record's stage.
type Move struct {
	// From are the stages that the record may be in; in any other it stays.
	From []string
	To   string
	// Since is set when an earlier try may have moved the record: it is not moved if it has come to To since, by its history.
	Since time.Time
}

// MoveStatuses are those of which a rule may say where the record goes, in the order of a deal's life.
var MoveStatuses = []Status{StatusSigned, StatusRefused, StatusActionRequired, StatusFailed, StatusHeld}

// Reached is the status that a change of a sealing has brought about, as far as something may be to be done because of it; empty
// for none. Signed is reached once the deal is done, not when its contract has only just come to the record. What the guard
// holds, the CRM hears nothing of.
func Reached(before, after Status, s *Sealing, wasDone bool) Status {
	switch {
	case s.Facts.Guarded:
		return ""
	case after == StatusSigned:
		if s.Step != Done || wasDone {
			return ""
		}
	case before == after:
		return ""
	}
	return after
}

// String says for people what it is to do.
func (e Errand) String() string {
	if e.Kind == ErrandNote {
		return fmt.Sprintf("note on the record's timeline that the deal is %s", e.Status)
	}
	return fmt.Sprintf("move the record to stage %q, because it is %s", e.Stage, e.Status)
}
