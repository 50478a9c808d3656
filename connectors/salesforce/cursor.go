package salesforce

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// scan is one reading of the history from a point in time to its end, over as many pages as it takes.
//
// Salesforce stamps a row when its transaction makes it and shows it when the transaction commits, minutes later for long
// ones. So a scan that began at asOf has seen every row that was committed by then, and what it has not seen bears a
// stamp after asOf less the overlap: that is where the next scan begins.
type scan struct {
	from time.Time
	// to is where it ends, the zero time for a scan that has no end. It is the caller's, and is not stored.
	to time.Time
	// asOf is the CRM's time when the first page was read; zero before that.
	asOf time.Time
	// kind is whose history is being read.
	kind kind
	// last is the last row that was read; its zero value stands before the first.
	last position
	// watches tells for which watches the scan began.
	watches string

	// A history that was refused in the window before is read from from on, however long it was refused, and the others from
	// ahead on, which is zero unless one was. refused are those of this window.
	ahead   time.Time
	behind  []string
	refused []string
	// Of inferred objects records are read, and no history: those that were changed from changedFrom on, or all of them unless the
	// object is whole, which says that each of its records has been seen. Only that is stored.
	inferred, whole []string
	changedFrom     time.Time
	// places are where the first readings of inferred objects go on, which take turns with what else is watched: pages is how many
	// this one has read.
	places map[string]position
	pages  int
	// ended: it has reached its end, and is kept for what the next one has to make up for.
	ended bool
}

// start is where the history begins that is being read.
func (s scan) start() time.Time {
	from := s.from
	if slices.Contains(s.inferred, s.kind.name) {
		if s.isFirst() {
			return time.Time{}
		}
		from = s.changedFrom
	}
	if s.ahead.Before(from) || slices.Contains(s.behind, s.kind.name) {
		return from
	}
	return s.ahead
}

// isFirst reports whether not every record of the inferred object was seen so far.
func (s scan) isFirst() bool { return !slices.Contains(s.whole, s.kind.name) }

// position orders the rows of the history: by stamp, then by ID.
type position struct {
	at time.Time
	id string
}

// scanState is the stored form of a scan under way, or of what the next one has to make up for.
type scanState struct {
	From    string `json:"from"`
	AsOf    string `json:"as_of,omitempty"`
	At      string `json:"at"`
	ID      string `json:"id"` // empty: before the first row
	Watches string `json:"watches"`
	Object  string `json:"object,omitempty"` // Opportunity if there is none

	Ended   bool     `json:"ended,omitempty"` // it has reached its end: the next one begins
	Ahead   string   `json:"ahead,omitempty"`
	Behind  []string `json:"behind,omitempty"`
	Refused []string `json:"refused,omitempty"`
	Whole   []string `json:"whole,omitempty"`

	Places map[string]storedPosition `json:"places,omitempty"`
	Pages  int                       `json:"pages,omitempty"`
}

// storedPosition is the stored form of a position.
type storedPosition struct {
	At string `json:"at"`
	ID string `json:"id"`
}

func (p storedPosition) position() (at position, err error) {
	if at.at, err = time.Parse(queryTime, p.At); err != nil {
		return at, errors.New("has a time that cannot be read")
	}
	at.id, err = CanonicalID(p.ID)
	return at, err
}

// state stores the scan for deal.Cursor.
func (s scan) state() string {
	stored := scanState{From: s.from.Format(queryTime), At: s.last.at.Format(queryTime), ID: s.last.id, Watches: s.watches, Ended: s.ended, Behind: s.behind, Refused: s.refused, Whole: s.whole, Pages: s.pages}
	for object, at := range s.places {
		if stored.Places == nil {
			stored.Places = map[string]storedPosition{}
		}
		stored.Places[object] = storedPosition{at.at.UTC().Format(queryTime), at.id}
	}
	if !s.ahead.IsZero() {
		stored.Ahead = s.ahead.Format(queryTime)
	}
	if !s.asOf.IsZero() {
		stored.AsOf = s.asOf.Format(queryTime)
	}
	if s.kind.name != Object {
		stored.Object = s.kind.name
	}
	b, err := json.Marshal(stored)
	if err != nil {
		return "" // strings cannot fail; an empty state only means reading more again
	}
	return string(b)
}

// parseState reads a stored scan. What is damaged is an error; the caller then reads the window anew.
func parseState(text string) (scan, error) {
	var stored scanState
	if err := json.Unmarshal([]byte(text), &stored); err != nil {
		return scan{}, errors.New("is no JSON of this connector")
	}
	s := scan{watches: stored.Watches, ended: stored.Ended, behind: append([]string(nil), stored.Behind...), refused: append([]string(nil), stored.Refused...), whole: append([]string(nil), stored.Whole...), pages: stored.Pages}
	var errs [4]error
	s.from, errs[0] = time.Parse(queryTime, stored.From)
	s.last.at, errs[1] = time.Parse(queryTime, stored.At)
	if stored.AsOf != "" {
		s.asOf, errs[2] = time.Parse(queryTime, stored.AsOf)
	}
	if stored.Ahead != "" {
		s.ahead, errs[3] = time.Parse(queryTime, stored.Ahead)
	}
	if errors.Join(errs[:]...) != nil {
		return scan{}, errors.New("has a time that cannot be read")
	}
	var err error
	for object, p := range stored.Places {
		if s.places == nil {
			s.places = map[string]position{}
		}
		if s.places[object], err = p.position(); err != nil {
			return scan{}, err
		}
	}
	if s.kind, err = kindNamed(cmp.Or(stored.Object, Object)); err != nil {
		return scan{}, err
	}
	if stored.ID == "" {
		s.last = position{}
		return s, nil
	}
	s.last.id, err = CanonicalID(stored.ID)
	return s, err
}

// resume returns the scan that goes on after the cursor. A scan that began for other watches begins again: a row that it
// has passed may be an entry for a watch that it did not know. Rows from before the earliest watch are never asked for.
func (c *Connector) resume(after deal.Cursor, watches []deal.Watch) scan {
	key := connectors.WatchesKey(watches)
	var inferred, whole []string
	var places map[string]position
	for _, k := range kinds {
		if isSnapshot(k, watches) {
			inferred = append(inferred, k.name)
		}
	}
	changedFrom := after.Since.Add(-c.cfg.Overlap).UTC()
	var before scan
	if after.State != "" {
		s, err := parseState(after.State)
		switch {
		case err != nil:
			c.log.Warn("the position inside the stage history is damaged; the window is read again", "err", err)
		case s.watches == key && !s.ended:
			s.inferred, s.changedFrom = inferred, changedFrom
			return s
		case s.watches == key:
			before = s
		}
		if err == nil && s.ended { // whoever stops watching an object sees no more of it, and begins anew
			whole = slices.DeleteFunc(s.whole, func(object string) bool { return !slices.Contains(inferred, object) })
			places = s.places
			maps.DeleteFunc(places, func(object string, _ position) bool { return !slices.Contains(inferred, object) })
		}
	}
	from := earliest(watches)
	if overlapping := after.Since.Add(-c.cfg.Overlap); !after.Since.IsZero() && overlapping.After(from) {
		from = overlapping
	}
	s := scan{from: from.UTC(), watches: key, ahead: before.ahead, behind: before.behind, inferred: inferred, whole: whole, changedFrom: changedFrom, places: places}
	s.turn(watches)
	return s
}

// earliest is the first time that any watch is for.
func earliest(watches []deal.Watch) time.Time {
	first := watches[0].Since
	for _, w := range watches[1:] {
		if w.Since.Before(first) {
			first = w.Since
		}
	}
	return first
}

// turn moves the scan to the beginning of the next history that is watched, if there is one.
func (s *scan) turn(watches []deal.Watch) bool {
	next := slices.IndexFunc(kinds, func(k kind) bool { return k.name == s.kind.name }) + 1
	for _, k := range kinds[next:] {
		if len(of(k, watches)) > 0 {
			s.kind, s.last, s.pages = k, s.places[k.name], 0
			return true
		}
	}
	return false
}

// pause stores a scan that has more to read. Since stays where it was: nothing is returned for good before the end.
func (s scan) pause(after deal.Cursor) deal.Cursor {
	since := after.Since
	if since.IsZero() {
		since = s.from // so that a rule with an earlier date can still move the cursor back
	}
	return deal.Cursor{Since: since, State: s.state()}
}

// finish stores a scan that has reached the end. Without a Date header the newest stamp that was seen serves. While a
// history is refused, or a first reading goes on, the cursor stays where that began, so that whatever loses the state only has more
// read again. So it is with which objects are whole.
func (s scan) finish(after deal.Cursor, overlap time.Duration) deal.Cursor {
	if len(s.refused)+len(s.places) > 0 {
		ahead := s.asOf
		if ahead.IsZero() {
			ahead = s.last.at
		}
		if ahead = ahead.Add(-overlap); ahead.After(s.ahead) {
			s.ahead = ahead
		}
		s.behind, s.refused, s.last, s.pages, s.asOf, s.ended = s.refused, nil, position{}, 0, time.Time{}, true
		return s.pause(after)
	}
	next := deal.Cursor{Since: after.Since}
	switch {
	case !s.asOf.IsZero():
		next.Since = s.asOf
	case s.last.at.After(after.Since):
		next.Since = s.last.at
	case after.Since.IsZero():
		next.Since = s.from
	}
	if len(s.whole) > 0 {
		next.State = scan{from: next.Since, watches: s.watches, whole: s.whole, kind: s.kind, ended: true}.state()
	}
	return next
}
