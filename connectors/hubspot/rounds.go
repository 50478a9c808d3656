package hubspot

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// round is the stored form of deal.Cursor.State where rules watch several objects: each is read by itself and has its own
// cursor, so that one whose history HubSpot does not show keeps no other back. Where they watch one, the state is its position.
type round struct {
	Of map[string]deal.Cursor `json:"of"`
	// Next is the object at which the reading goes on; empty: with the first.
	Next string `json:"next,omitempty"`
}

// parseRound reads a cursor. An object that it does not name was never read beside others: its reading goes on from the time of
// the cursor, with a position that is its own, or is that of other watches and is not taken up.
func parseRound(after deal.Cursor) (r round, isRound bool) {
	if json.Unmarshal([]byte(after.State), &r) != nil || r.Of == nil {
		return round{Of: map[string]deal.Cursor{}}, false
	}
	return r, true
}

// cursorOf is how far an object was read. What was read for other watches may lie before what a new one wants of it, and was
// then not moved back with the cursor as a whole, which stands where the object is that was read least.
func (r round) cursorOf(k kind, after deal.Cursor, isRound bool, watches []deal.Watch) deal.Cursor {
	own, known := r.Of[k.name]
	if !isRound {
		return after
	}
	p, err := parsePosition(own.State)
	if !known || err != nil || p.Watches != connectors.WatchesKey(watches) {
		return deal.Cursor{Since: after.Since}
	}
	return own
}

// cursor stores a round: all of it is read for good as far as the object is that was read least.
func (r round) cursor(objects []*Connector) deal.Cursor {
	if len(objects) == 1 {
		return r.Of[objects[0].kind.name]
	}
	var since time.Time
	for i, on := range objects {
		if s := r.Of[on.kind.name].Since; i == 0 || s.Before(since) {
			since = s
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return deal.Cursor{Since: since} // a year beyond 9999; without a state more is read again
	}
	return deal.Cursor{Since: since, State: string(b)}
}

// readRound reads one object after the other: a page has entries of one of them, or is the last. poll says that this is a poll,
// which remembers what it has read, and goes on with other objects when the app may not see one.
func (c *Connector) readRound(ctx context.Context, poll bool, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	objects := c.all(watches)
	r, isRound := parseRound(after)
	of := map[string]deal.Cursor{}
	for _, on := range objects {
		own := r.cursorOf(on.kind, after, isRound, on.kind.of(watches))
		if own.Since.IsZero() { // never read; not left at zero while others are, so that a rule with an earlier date can still move it back
			own.Since = earliest(on.kind.of(watches))
		}
		of[on.kind.name] = own
	}
	r.Of = of
	first := max(0, slices.IndexFunc(objects, func(on *Connector) bool { return on.kind.name == r.Next }))
	r.Next = ""
	var all deal.Page
	for i, on := range objects[first:] {
		name, memory := on.kind.name, on.seen
		if !poll {
			memory = newSeen(c.cfg.LookBack)
		}
		page, err := on.readPage(ctx, memory, r.Of[name], on.kind.of(watches))
		if poll && isHidden(err) && len(all.Refused) < len(objects)-1 {
			all.Refused = append(all.Refused, deal.RefusedObject{Object: name, Why: err})
			continue
		}
		if err != nil {
			return deal.Page{}, err
		}
		r.Of[name] = page.Next
		all.Entries, all.Quarantined, all.Changed = page.Entries, page.Quarantined, append(all.Changed, page.Changed...)
		switch {
		case page.More:
			r.Next = name
		case len(page.Entries)+len(page.Quarantined) > 0 && first+i+1 < len(objects):
			r.Next = objects[first+i+1].kind.name
		default:
			continue
		}
		all.More = true
		break
	}
	all.Next = r.cursor(objects)
	return all, nil
}

// isHidden reports whether HubSpot does not show the app an object: by a right that is missing, or because the account does
// not have it.
func isHidden(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusForbidden:
		return true
	case http.StatusBadRequest, http.StatusNotFound:
		return deal.IsPermanent(err)
	}
	return false
}
