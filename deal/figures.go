package deal

import "time"

// Day is what happened to the sealings of all tenants on a day (UTC).
type Day struct {
	Day string // YYYY-MM-DD
	// Noticed to Done count sealings that reached the step; Held, Dead and Ended those that came to wait or to an end.
	Noticed, Sealed, Reported, Done, Held, Dead, Ended int64
	// Returned is how long those that were reported took since they were noticed, all of them together, with what waited for
	// a person.
	Returned time.Duration
	// Calls to CRMs, and how many of them got no answer, a server's error, or were limited.
	Calls, FailedCalls int64
	// Flow is how long sealings took from noticed to reported, without those that waited for a person.
	Flow Quantiles
}

// Quantiles are durations that so many of N did not exceed.
type Quantiles struct {
	N             int64
	P50, P95, P99 time.Duration
}

// StepTimes is how long sealings took to reach a step from the step before.
type StepTimes struct {
	Step Step
	Quantiles
}

// Figures are what happened over some days.
type Figures struct {
	Days  []Day // those that have any, oldest first
	Flow  Quantiles
	Steps []StepTimes // in their order, those that were reached
	// Earlier has how many were sealed on the days of the VolumeWeeks before, those that have any. First is the first day of
	// which anything is known; empty when there is none.
	Earlier map[string]int64
	First   string
}

// Week is what happened on seven days, by tenant.
type Week struct {
	Tenants map[TenantID]Day
	// Flow is as in Figures, of all tenants.
	Flow Quantiles
	// Known is false where the ledger begins only after these days.
	Known bool
}

// Checkpoint is a signed state of the audit tree.
type Checkpoint struct {
	Size int64
	At   time.Time
	Note []byte // golang.org/x/mod/sumdb/note
}
