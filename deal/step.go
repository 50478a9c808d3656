package deal

import (
	"slices"
	"strings"
)

// Step is how far a sealing has come. Steps only move forward, with one exception: before a signature value exists a
// sealing may go back to Noticed to be gathered again.
type Step string

// The steps of a sealing, in order.
const (
	Noticed  Step = "noticed"
	Gathered Step = "gathered"
	Rendered Step = "rendered"
	Sealed   Step = "sealed"
	Checked  Step = "checked"
	Kept     Step = "kept"
	Attached Step = "attached"
	Reported Step = "reported"
	Done     Step = "done"
)

// Steps lists the steps in order.
var Steps = []Step{Noticed, Gathered, Rendered, Sealed, Checked, Kept, Attached, Reported, Done}

// Before reports whether s comes earlier than other.
func (s Step) Before(other Step) bool { return slices.Index(Steps, s) < slices.Index(Steps, other) }

// Valid reports whether s is one of Steps.
func (s Step) Valid() bool { return slices.Contains(Steps, s) }

// Condition is how a sealing is doing at its step.
type Condition string

// The conditions of a sealing.
const (
	Running  Condition = "running"
	Retrying Condition = "retrying" // Next says when
	Held     Condition = "held"     // Reason says why; a person releases or drops it
	Dead     Condition = "dead"     // out of attempts or a permanent error; a person retries it
	Ended    Condition = "ended"    // Reason starts with refused, expired, voided or dropped, see Shown
)

// Waiting reports whether nothing happens until a person acts.
func (c Condition) Waiting() bool { return c == Held || c == Dead || c == Ended }

// ShownAs maps step and condition to the status that the CRM shows. Once the document is sealed a delay or failure is
// ours, not the contract's: it is never shown as failed. Signed is shown only when the file is on the record.
func ShownAs(s Step, c Condition) Status {
	switch {
	case !s.Before(Attached):
		return StatusSigned
	case c == Ended:
		return StatusActionRequired
	case c == Held, c == Dead && !s.Before(Sealed):
		return StatusHeld
	case c == Dead:
		return StatusFailed
	default:
		return StatusQueued
	}
}

// Shown is ShownAs for a sealing of which the reason is known as well: it tells who waits for other signers, and who was
// refused by one.
func Shown(s Step, c Condition, reason string) Status {
	status := ShownAs(s, c)
	switch {
	case status == StatusQueued && c == Retrying && strings.HasPrefix(reason, ReasonAwaiting):
		return StatusAwaiting
	case status == StatusActionRequired && strings.HasPrefix(reason, ReasonRefused):
		return StatusRefused
	}
	return status
}
