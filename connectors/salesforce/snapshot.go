package salesforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Quotes, contracts and orders whose history nobody keeps can still be looked at: each poll reads the records that were changed,
// and the ledger compares their stages with those that it has seen before. Which records were in the stage before a rule began
// can only be told by having seen all of them, so that the first reading of an object is of all its records. It takes turns with
// the other objects, of which nothing has to wait for a million orders.

// firstPages is how many pages a first reading has at a turn.
const firstPages = 5

// isSnapshot reports whether the entries of an object are inferred: all watches of one agree.
func isSnapshot(k kind, watches []deal.Watch) bool {
	return slices.ContainsFunc(watches, func(w deal.Watch) bool { return w.Object == k.name && w.Snapshot })
}

// withHistory leaves out the watches of which no history tells.
func withHistory(watches []deal.Watch) []deal.Watch {
	return slices.DeleteFunc(slices.Clone(watches), func(w deal.Watch) bool { return w.Snapshot })
}

// readSightings reads records that were changed, in the order of their stamps. A record that is changed meanwhile gets a later
// stamp, and is read again behind.
func (c *Connector) readSightings(ctx context.Context, s *scan) (page deal.Page, more bool, err error) {
	r, err := c.query(ctx, sightingsQuery(*s))
	if err != nil {
		return page, false, err
	}
	rows, done, err := queryRows(r.body)
	if err != nil {
		return page, false, err
	}
	if s.asOf.IsZero() {
		s.asOf = r.asOf
	}
	start := s.last
	for _, raw := range rows {
		x, err := parseSighting(s.kind, raw)
		if x.Ref.ID != "" && !x.Stamp.IsZero() {
			s.last = position{x.Stamp, x.Ref.ID}
		}
		if err != nil {
			page.Quarantined = append(page.Quarantined, deal.Quarantine{Ref: x.Ref, Row: s.kind.name + " " + rowName(raw),
				Reason: s.kind.name + ": " + strings.ReplaceAll(err.Error(), "\n", "; "), At: x.Stamp})
			continue
		}
		page.Sightings = append(page.Sightings, x)
	}
	more = !done || len(rows) == pageRows
	if more && s.last == start {
		return page, false, unplaced(len(rows))
	}
	if !s.isFirst() {
		return page, more, nil
	}
	s.pages++
	switch {
	case !more:
		s.whole = append(s.whole, s.kind.name)
		delete(s.places, s.kind.name)
	case s.pages >= firstPages && s.last.at.Before(s.asOf.Add(-c.cfg.Overlap)):
		s.rest()
		more = false
	}
	return page, more, nil
}

// rest ends the turn of a first reading. It goes on behind its last row, which is good only where nothing is shown late any more:
// whoever has come nearer to the present reads on to the end.
func (s *scan) rest() {
	if s.places == nil {
		s.places = map[string]position{}
	}
	s.places[s.kind.name] = s.last
}

func sightingsQuery(s scan) string {
	var where string
	switch from := s.start(); {
	case s.last != (position{}): // records that were changed together have one stamp
		at := s.last.at.UTC().Format(queryTime)
		where = " WHERE " + stampField + " >= " + at + " AND (" + stampField + " > " + at + " OR Id > " + quote(s.last.id) + ")"
	case !from.IsZero():
		where = " WHERE " + stampField + " >= " + from.Format(queryTime)
	}
	return fmt.Sprintf("SELECT Id, %s, CreatedDate, %s, %s FROM %s%s ORDER BY %s, Id LIMIT %d",
		s.kind.stage, stampField, changedBy, s.kind.name, where, stampField, pageRows)
}

// parseSighting reads a row. What can be read is returned with an error, too: it is needed to say which row it was.
func parseSighting(k kind, raw json.RawMessage) (x deal.Sighting, err error) {
	x.Ref.Object = k.name
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return x, errors.New("the row is no object")
	}
	var errs []error
	bad := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", field, err))
		}
	}
	x.Ref.ID, err = idField(fields["Id"])
	bad("Id", err)
	x.Stage, err = textValue(fields[k.stage]) // a quote may have none
	bad(k.stage, err)
	stamp, _ := fields[stampField].(string)
	x.Stamp, err = parseTime(stamp)
	bad(stampField, err)
	created, _ := fields["CreatedDate"].(string)
	x.Created, err = parseTime(created)
	bad("CreatedDate", err)
	x.By, _ = idField(fields[changedBy]) // for show only
	return x, errors.Join(errs...)
}

// snapshotMisfit says what a rule cannot see, and how it could.
func (c *Connector) snapshotMisfit(ctx context.Context, k kind, watches []deal.Watch) ([]connectors.Problem, error) {
	if !k.tracked {
		return []connectors.Problem{{Aspect: connectors.AspectStage, What: "every org keeps the history of " + k.plural, Cure: "take detect: snapshot out of their rules"}}, nil
	}
	is, told, err := c.isTracked(ctx, k)
	if err != nil {
		return nil, err
	}
	cure := "have the history tracked (Setup, Object Manager, " + k.name + ", Fields & Relationships, Set History Tracking: " + k.stage + "), then give the rule a new id without detect"
	if told && is {
		cure = "the history is tracked by now: give the rule a new id without detect, and it misses none"
	}
	var problems []connectors.Problem
	for _, w := range of(k, watches) {
		problems = append(problems, connectors.Problem{Rule: w.Rule, Aspect: connectors.AspectStage, Warning: true, Cure: cure,
			What: "entries are inferred from snapshots: " + connectors.SnapshotBlindness})
	}
	return problems, nil
}
