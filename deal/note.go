package deal

import (
	"fmt"
	"time"
)

// NoteStatuses are those of which the timeline of a record may tell, in the order of a deal's life.
var NoteStatuses = []Status{StatusAwaiting, StatusSigned, StatusRefused, StatusActionRequired, StatusFailed, StatusHeld}

// noteWords begin the notes.
var noteWords = map[Status]string{
	StatusAwaiting:       "Contract sent to be signed",
	StatusSigned:         "Contract signed",
	StatusRefused:        "Contract refused by a signer",
	StatusActionRequired: "Contract ended without a signature",
	StatusFailed:         "Contract failed",
	StatusHeld:           "Contract held",
}

// Note is put on the timeline of a record.
type Note struct {
	Tx TxID
	// Status is what it tells, Number for which time, from 1. There is one note for each.
	Status Status
	Number int
	Body   string // plain text
	At     time.Time
	// OnlyLook has it looked for and not made: the CRM may still make one that was asked for.
	OnlyLook bool
}

// NoteOf is the note of an errand, which is among all of the deal. It says why only while that is still what the record shows:
// afterwards the reason is another one.
func NoteOf(s *Sealing, e Errand, all []Errand) Note {
	n := Note{Tx: s.Tx, Status: e.Status, At: e.Made}
	for _, x := range all {
		if x.Kind == ErrandNote && x.Status == e.Status && x.ID <= e.ID {
			n.Number++
		}
	}
	if e.Status != StatusSigned && s.Reason != "" && Shown(s.Step, s.Condition, s.Reason) == e.Status {
		n.Body = s.Reason + "\n"
	}
	n.Body += fmt.Sprintf("%s UTC, transaction %s", e.Made.UTC().Format("2006-01-02 15:04:05"), s.Tx)
	return n
}

// Mark is what the note is found again by, and no other.
func (n Note) Mark() string { return fmt.Sprintf("[dealseal %s/%s/%d]", n.Tx, n.Status, n.Number) }

// Title is its first line, with the mark at the end.
func (n Note) Title() string { return noteWords[n.Status] + " " + n.Mark() }
