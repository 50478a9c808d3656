package hubspot

import (
	"crypto/rand"
	"slices"
	"sync"
	"time"
)

// seen remembers which state of which deal was read within the look-back, so that a deal which search lists again and
// again, because we wrote to it, is read once. It forgets everything when in doubt, which costs calls and nothing else.
//
// A deal counts as read only when the caller comes back with the cursor of the page that it was on: until then the page
// may have been lost on its way to the ledger.
type seen struct {
	mu      sync.Mutex
	deals   map[int64]state
	page    string // of pending
	pending map[int64]state
	own     map[int64]*ownWrites
	// putOff is how long a deal waits.
	putOff time.Duration
	// knows is set once all of the look-back was read: from then on a state that is not known here is a change.
	knows bool
}

// state is what a deal was read at.
type state struct {
	modified string // its hs_lastmodifieddate
	// until is when it has to be read again all the same, because it may have changed once more with the same stamp. Zero
	// for never.
	until time.Time
}

// ownWrites are the stamps that our own writes gave to a deal.
type ownWrites struct {
	stamps []string
	until  time.Time
	// underWay are the writes that have not been answered: search may list what they do before that.
	underWay int
}

// putOff is how long a deal waits to be read again that most probably has nothing new to tell: one that we ourselves have
// written to, and one that was read within the second of its stamp. Until then its reading is made together with others'.
// All times are HubSpot's. It is never more than half of the look-back.
const putOff = time.Minute

const (
	maxSeen   = 50_000
	maxStamps = 8
)

func newSeen(lookBack time.Duration) *seen {
	return &seen{deals: map[int64]state{}, own: map[int64]*ownWrites{}, putOff: min(putOff, lookBack/2)}
}

// begin takes note of the page whose cursor the caller has come back with.
func (s *seen) begin(page string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if page == "" || page != s.page || len(s.deals) > maxSeen {
		clear(s.deals)
		clear(s.own)
		s.knows = false
	} else {
		for id, read := range s.pending {
			s.deals[id] = read
		}
	}
	s.page, s.pending = "", nil
}

// reading is what has to be done about a deal that a search lists.
type reading int

const (
	toRead  reading = iota // it was changed, by others as far as is known, and is to be read
	isDue                  // it is to be read again
	canWait                // it is read with others, if others are read
	wasRead
)

// of says whether a deal in a state has to be read now.
func (s *seen) of(id int64, modified string, now time.Time) reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := func(until time.Time) reading {
		if now.IsZero() || !now.Before(until) {
			return isDue
		}
		return canWait
	}
	if known, ok := s.deals[id]; ok && known.modified == modified {
		if known.until.IsZero() {
			return wasRead
		}
		return waits(known.until)
	}
	own := s.own[id]
	switch {
	case own == nil:
		return toRead
	case slices.Contains(own.stamps, modified):
		return waits(own.until)
	case own.underWay > 0:
		return canWait
	}
	return toRead
}

// writes is for a deal that is about to be written to. wrote takes the stamp that the write has given to it, and the time of
// that; empty when it is not known. A deal that is written to again and again is read all the same once its first write is
// putOff ago.
func (s *seen) writes(deal string) (wrote func(stamp string, at time.Time)) {
	id, _ := parseID(deal)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own[id]
	if own == nil {
		if len(s.own) >= maxSeen {
			clear(s.own)
		}
		own = &ownWrites{}
		s.own[id] = own
	}
	own.underWay++
	return func(stamp string, at time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		own.underWay--
		if stamp == "" || at.IsZero() {
			return
		}
		switch {
		case !at.Before(own.until):
			own.stamps, own.until = nil, at.Add(s.putOff)
		case len(own.stamps) == maxStamps:
			own.stamps = own.stamps[1:]
		}
		own.stamps = append(own.stamps, stamp)
	}
}

// ours reports whether a stamp of a deal is that of a write of ours.
func (s *seen) ours(deal, stamp string) bool {
	id, _ := parseID(deal)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own[id]
	return own != nil && slices.Contains(own.stamps, stamp)
}

// changed reports whether a deal that is to be read has changed since it was listed last, as far as is known.
func (s *seen) changed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knows
}

// turn names a new page with the deals that were read for it, and whether there are more.
func (s *seen) turn(read map[int64]state, more bool) (page string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knows = s.knows || !more
	s.page, s.pending = rand.Text(), read
	return s.page
}
