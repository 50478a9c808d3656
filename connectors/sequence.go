package connectors

import "time"

// maxLead is how far ahead of the CRM's time a receipt's sequence may be: more than clocks differ that are in use.
const maxLead = 24 * time.Hour

// Believable reports whether a sequence that a record shows, or that was written to it before, may hold back a receipt.
// Sequences are based on the time in milliseconds, so one that is more than a day ahead of the CRM's time was written by
// somebody else, or by a daemon whose clock was wrong; it would silence the record until that day comes. A CRM that does
// not say what time it is gives nothing to judge by: now is then zero, and the sequence is believed.
func Believable(sequence int64, now time.Time) bool {
	return now.IsZero() || sequence <= now.Add(maxLead).UnixMilli()
}
