package connectors

import (
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const (
	// maxSkew is how far ahead of the CRM's time a sequence may be without a word: clocks in use differ that much.
	maxSkew = 5 * time.Minute
	// maxLead is how far ahead a sequence may be that is believed at all.
	maxLead = 24 * time.Hour
	// maxFutureWait is how long a receipt waits at most before it is tried again: whoever mends the record meanwhile
	// does not wait for a day.
	maxFutureWait = time.Hour
)

// HoldsBack reports whether a sequence that is not older than a receipt's own, and that the record shows or this daemon
// wrote to it before, holds that receipt back, so that WriteBack is to succeed without writing. now is the CRM's time.
//
// Sequences are based on the time in milliseconds. One that is more than a day ahead was written by somebody else, or by
// a daemon whose clock was wrong; it would silence the record until that day comes, and does not count. One that is more
// than five minutes ahead may be true, or the same trouble: it is neither overwritten nor obeyed, and the error is a
// *FutureError. A CRM that does not say what time it is gives nothing to judge by: now is then zero, and the sequence
// counts.
func HoldsBack(sequence int64, now time.Time) (bool, error) {
	switch {
	case now.IsZero() || sequence <= now.Add(maxSkew).UnixMilli():
		return true, nil
	case sequence > now.Add(maxLead).UnixMilli():
		return false, nil
	default:
		return false, &FutureError{Ahead: time.UnixMilli(sequence).Sub(now)}
	}
}

// ShownHoldsBack is HoldsBack for the audit record that the record shows in the receipt's sequence field; any other text
// holds nothing back. The very receipt that is to be written is not in its own way: it counts as written although our
// clock, and it with it, is ahead. A claim is held back by what another database says of the same transaction.
func ShownHoldsBack(shown string, r deal.Receipt, now time.Time) (bool, error) {
	a, ok := deal.ReadAuditRecord(shown)
	if ok && r.Claim != "" && a.Tx == r.Tx && a.By != "" && a.By != r.Claim {
		return true, nil
	}
	if !ok || a.Sequence < r.Sequence {
		return false, nil
	}
	held, err := HoldsBack(a.Sequence, now)
	if err != nil && isReceipt(a, r) {
		return true, nil
	}
	return held, err
}

// isReceipt reports whether a is what r writes. The rest of it, such as the tree's size, differs from one attempt to the
// next.
func isReceipt(a deal.AuditRecord, r deal.Receipt) bool {
	for _, f := range r.Fields {
		text, _ := f.Value.(string)
		if mine, ok := deal.ReadAuditRecord(text); ok && f.Name == r.SequenceField {
			return a.Tx == mine.Tx && a.Sequence == mine.Sequence && a.Status == mine.Status
		}
	}
	return false
}

// FutureError means that a record bears a receipt from the future, and that a receipt for it has to wait. Trying again
// helps once that time has come, or somebody has cleared the field.
type FutureError struct {
	// Ahead is by how much the record's receipt is ahead of the CRM's time.
	Ahead time.Duration
}

func (e *FutureError) Error() string {
	return fmt.Sprintf("the record bears a receipt from the future, %s ahead of the CRM's time: set the clock of whatever daemon wrote it, and clear the record's audit field to have it written anew",
		e.Ahead.Round(time.Second))
}

// RetryAfter is until when the receipt is no longer ahead, at most an hour.
func (e *FutureError) RetryAfter() time.Duration { return min(e.Ahead, maxFutureWait) }
