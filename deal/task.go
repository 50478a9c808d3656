package deal

import (
	"cmp"
	"fmt"
	"time"
)

// TaskWords say how the owner of a record is told that its deal waits for a person.
type TaskWords struct {
	// Subject is what the task's subject begins with; empty is "Contract needs attention".
	Subject string `json:"subject,omitempty"`
	// Days is how many days from then on it is due.
	Days int `json:"days,omitempty"`
}

// Task is put before the owner of a record.
type Task struct {
	Tx TxID
	// Number is which wait of the deal it is about, from 1. There is one task for each.
	Number  int
	Subject string
	Body    string // plain text
	Due     time.Time
	// OnlyLook has it looked for and not made: the CRM may still make one that was asked for.
	OnlyLook bool
}

// MaxTaskSubject is how many characters the subject of a task has at most, without the mark.
const MaxTaskSubject = 150

// Mark is what the task is found again by, and no other: it stands in the subject.
func (t Task) Mark() string { return fmt.Sprintf("[dealseal %s/%d]", t.Tx, t.Number) }

// Title is the subject with the mark.
func (t Task) Title() string {
	subject := []rune(t.Subject)
	return string(subject[:min(len(subject), MaxTaskSubject)]) + " " + t.Mark()
}

// TaskOf is the task about a sealing that waits for a person; ok is false when there is none to be made.
func TaskOf(s *Sealing, now time.Time) (t Task, ok bool) {
	words := s.Plan.WriteBack.Task
	if words == nil || s.Condition != Held && s.Condition != Dead && !s.EndedByVendor() || s.Facts.Guarded || s.Facts.Waits == 0 {
		return t, false
	}
	what, why, next := "is held", s.Reason, "Mend the cause on the record if it is there. Then whoever runs dealseal releases the deal, or drops it"
	switch s.Condition {
	case Dead:
		what, next = "was given up", "Whoever runs dealseal mends the cause, and has it tried again"
	case Ended:
		what, next = "was not signed", "If it is to be signed after all, start another envelope there and let the record enter its stage again"
		if s.Private.Declined != "" {
			why += ": " + s.Private.Declined
		}
	}
	return Task{Tx: s.Tx, Number: s.Facts.Waits, Subject: cmp.Or(words.Subject, "Contract needs attention"), Due: now.AddDate(0, 0, words.Days),
		Body: fmt.Sprintf("The contract of this record %s: %s\n\n%s. Transaction: %s", what, why, next, s.Tx)}, true
}
