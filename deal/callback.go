package deal

import "time"

// Callback is a workflow of the CRM that stands still until it is told what has become of a record's deal. It is told once.
type Callback struct {
	Tenant TenantID
	// ID is the CRM's name for it.
	ID  string
	Ref Ref
	// Rule is the one whose deal it waits for; empty for any.
	Rule string
	// At is when it came, AnswerBy when it is told how the deal stands if that has no end yet, Expires when the CRM lets the
	// workflow go on by itself.
	At, AnswerBy, Expires time.Time

	// Tx is whose end it waits for; empty until its record was looked at. Step, Condition and Reason are that sealing's.
	Tx        TxID
	Step      Step
	Condition Condition
	Reason    string

	// Outcome is what the CRM is told; empty until that is decided, and never another one then.
	Outcome CallbackOutcome
	// Tries is how often that was tried, and Asked when it was last begun without that its answer is known; zero if it is.
	Tries int
	Asked time.Time
	// Problem is why it could not be told.
	Problem string
	// Fate is how it ended; empty while it is open.
	Fate CallbackFate
}

// CallbackOutcome is what a workflow is told: the status of the deal, or one of these.
type CallbackOutcome string

const (
	OutcomeNothing CallbackOutcome = "nothing" // no rule has made a deal of the record
	OutcomeUnread  CallbackOutcome = "unread"  // the record could not be looked at in time
)

// Succeeded reports whether it is what the workflow waited for.
func (o CallbackOutcome) Succeeded() bool { return o == CallbackOutcome(StatusSigned) }

// CallbackFate is how a callback ended.
type CallbackFate string

const (
	CallbackTold    CallbackFate = "told"    // the CRM has taken the outcome
	CallbackExpired CallbackFate = "expired" // the CRM did not take it in time, and has let the workflow go on by itself
	CallbackUnknown CallbackFate = "unknown" // the CRM does not know the callback
)

// Decide returns what the workflow is to be told now; empty while it is to wait. A deal that is held or was given up may
// still be sealed: that is waited for until AnswerBy.
func (c Callback) Decide(now time.Time) CallbackOutcome {
	switch {
	case c.Outcome != "":
		return c.Outcome
	case c.Tx != "" && (c.Step == Done || c.Condition == Ended):
		return CallbackOutcome(Shown(c.Step, c.Condition, c.Reason))
	case now.Before(c.AnswerBy):
		return ""
	case c.Tx == "":
		return OutcomeUnread
	}
	return CallbackOutcome(Shown(c.Step, c.Condition, c.Reason))
}

// CallbackEnd is what became of an attempt to tell a CRM.
type CallbackEnd struct {
	// Fate ends the callback; empty to try again at Due.
	Fate CallbackFate
	Due  time.Time
	// Problem is why the attempt has failed. Unclear: the CRM may have been told all the same.
	Problem string
	Unclear bool
}

// AnswerBy is when a workflow that came at a time and stands still for so long is told how the deal stands: early enough for
// some attempts.
func AnswerBy(at time.Time, block time.Duration) time.Time {
	return at.Add(block - min(block/10, time.Hour))
}
