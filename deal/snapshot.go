package deal

import "time"

// Of some objects a CRM keeps no history of the stage. Then an entry is inferred: a record that is seen in a stage now was seen
// in another one before. What came and went in between was never there for us (docs/objects.md).

// Sighting is how a record was when it was looked at.
type Sighting struct {
	Ref   Ref
	Stage string
	// Created is when the record was made and Stamp when anything of it was changed last, on the CRM's clock. By made that change.
	Created, Stamp time.Time
	By             string
}

// Stay is the time of a record in a stage, as far as sightings tell.
type Stay struct {
	Stage string
	// Entered is the stamp of the first sighting in this stage. No two stays of a record have the same.
	Entered time.Time
	// From is when the stay before this one was entered, zero if there was no sighting before. It names the entry: whoever has
	// the same database, or yesterday's copy of it, names it the same, whatever happened to the record's stamp since then.
	From time.Time
	// After is a time at which the record is known not to have been in this stay yet; zero if none is.
	After time.Time
	// Stamp is that of the newest sighting.
	Stamp time.Time
}

// See returns the stay in which a record is by a sighting. The zero Stay is that of a record that was never seen; read is until
// when all changes had been seen before. A sighting that is older than the newest one tells nothing.
func (s Stay) See(x Sighting, read time.Time) Stay {
	stamp := x.Stamp.UTC().Truncate(time.Millisecond)
	switch {
	case s == Stay{}:
		return Stay{Stage: x.Stage, Entered: stamp, After: x.Created.UTC().Truncate(time.Millisecond), Stamp: stamp}
	case stamp.Before(s.Stamp):
		return s
	case x.Stage == s.Stage:
		s.Stamp = stamp
		return s
	}
	next := Stay{Stage: x.Stage, Entered: stamp, From: s.Entered, After: read.UTC().Truncate(time.Millisecond), Stamp: stamp}
	if !next.Entered.After(s.Entered) { // stamps may be whole seconds
		next.Entered = s.Entered.Add(time.Millisecond)
	}
	return next
}

// Entry is the stay as an entry for a watch; ok is false if it is none: another stage, or from before the watch. all says that
// every record had been seen once since the watch was activated: in which stage this one was then, if it was in another, is known
// better than by the CRM's clock.
func (s Stay) Entry(x Sighting, w Watch, all bool) (c Change, ok bool) {
	if !w.Snapshot || w.Object != x.Ref.Object || w.Stage != s.Stage || s.Entered.Before(w.Since) {
		return Change{}, false
	}
	from, after := "first", s.After
	if !s.From.IsZero() {
		from = s.From.UTC().Format("2006-01-02T15:04:05.000Z")
		if all && after.Before(w.Since) {
			after = w.Since
		}
	}
	return Change{Rule: w.Rule, Ref: x.Ref, Stage: s.Stage, Occurrence: s.Stage + "@snapshot:" + from, At: s.Entered, By: x.By,
		Inferred: &Inference{After: after, Unproven: after.Before(w.Since)}}, true
}

// Inference says what is not known of an entry because it was inferred.
type Inference struct {
	// After is a time at which the record is known not to have entered yet; zero if none is.
	After time.Time `json:"after,omitzero"`
	// Unproven: the record may have entered before its rule was activated, and have been edited since.
	Unproven bool `json:"unproven,omitempty"`
}

// Inferred is what the audit log, and whoever asks about a deal, is told of how it was found.
const Inferred = "inferred from a snapshot: the record was seen in this stage, and no history says when it entered"

// Earliest is the earliest time at which the record may have entered its stage.
func (c Change) Earliest() time.Time {
	if c.Inferred != nil && c.Inferred.After.Before(c.At) {
		return c.Inferred.After
	}
	return c.At
}
