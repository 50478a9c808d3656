package hubspot

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// scan is one reading of the deals that changed since a point in time, over as many pages as it takes, by ascending ID.
//
// A deal that changes while the scan runs is found by the next one, which begins the look-back before asOf. What the
// search index showed too late for this scan bears a stamp from then, too.
type scan struct {
	// from is the oldest hs_lastmodifieddate that is asked for.
	from time.Time
	// asOf is HubSpot's time when the first page was read; zero before that, and when HubSpot does not say.
	asOf time.Time
	// newest is the newest stamp that was seen.
	newest time.Time
	// last is the ID of the last deal that was returned wholly, 0 before the first.
	last int64
	// within is the deal that was returned in part, and returned how many of its entries were.
	within   int64
	returned int
	// watches tells for which watches the scan began.
	watches string
}

// position is the stored form of deal.Cursor.State. Page tells the page that the cursor came with from all others: who
// comes back with it has taken that page in.
type position struct {
	Page     string     `json:"page"`
	Watches  string     `json:"watches"`
	From     *time.Time `json:"from,omitempty"` // nil between two scans
	AsOf     time.Time  `json:"as_of,omitzero"`
	Newest   time.Time  `json:"newest,omitzero"`
	Last     int64      `json:"last,omitempty"`
	Within   int64      `json:"within,omitempty"`
	Returned int        `json:"returned,omitempty"`
}

func (p position) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		return "" // a year beyond 9999; an empty state only means reading more again
	}
	return string(b)
}

// parsePosition reads a stored position. What is damaged is an error; the caller then reads the window anew.
func parsePosition(state string) (position, error) {
	if state == "" {
		return position{}, nil
	}
	var p position
	if err := json.Unmarshal([]byte(state), &p); err != nil {
		return position{}, errors.New("is no JSON of this connector")
	}
	if p.Last < 0 || p.Within < 0 || p.Returned < 0 || p.Within != 0 && p.Within <= p.Last {
		return position{}, errors.New("names a place that cannot be")
	}
	return p, nil
}

// resume returns the scan that goes on after the cursor. A scan that began for other watches begins again: what it has
// passed may have been of interest to a watch that it did not know. Deals that did not change since the earliest watch
// are never asked for.
func (c *Connector) resume(after deal.Cursor, p position, watches []deal.Watch) scan {
	key := connectors.WatchesKey(watches)
	if p.From != nil && p.Watches == key {
		return scan{
			from: *p.From, asOf: p.AsOf, newest: p.Newest, last: p.Last, within: p.Within, returned: p.Returned, watches: key,
		}
	}
	from := earliest(watches)
	if early := after.Since.Add(-c.cfg.LookBack); !after.Since.IsZero() && early.After(from) {
		from = early
	}
	return scan{from: from.UTC(), watches: key}
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

// pause stores a scan that has more to read. Since stays where it was: nothing is returned for good before the end.
func (s scan) pause(after deal.Cursor, page string) deal.Cursor {
	since := after.Since
	if since.IsZero() {
		since = s.from // so that a rule with an earlier date can still move the cursor back
	}
	p := position{
		Page: page, Watches: s.watches, From: &s.from, AsOf: s.asOf, Newest: s.newest, Last: s.last, Within: s.within, Returned: s.returned,
	}
	return deal.Cursor{Since: since, State: p.String()}
}

// finish stores a scan that has reached the end. Without a Date header the newest stamp that was seen serves.
func (s scan) finish(after deal.Cursor, page string) deal.Cursor {
	next := deal.Cursor{Since: after.Since, State: position{Page: page, Watches: s.watches}.String()}
	switch {
	case !s.asOf.IsZero():
		next.Since = s.asOf
	case s.newest.After(after.Since):
		next.Since = s.newest
	case after.Since.IsZero():
		next.Since = s.from
	}
	return next
}
