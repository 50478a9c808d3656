package hubspot

import (
	"crypto/rand"
	"sync"
)

// seen remembers which state of which deal was read within the look-back, so that a deal which search lists again and
// again, because we wrote to it, is read once. It forgets everything when in doubt, which costs calls and nothing else.
//
// A deal counts as read only when the caller comes back with the cursor of the page that it was on: until then the page
// may have been lost on its way to the ledger.
type seen struct {
	mu      sync.Mutex
	deals   map[int64]string // ID to the hs_lastmodifieddate that was read
	page    string           // of pending
	pending map[int64]string
}

const maxSeen = 50_000

func newSeen() *seen { return &seen{deals: map[int64]string{}} }

// begin takes note of the page whose cursor the caller has come back with.
func (s *seen) begin(page string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if page == "" || page != s.page || len(s.deals) > maxSeen {
		clear(s.deals)
	} else {
		for id, modified := range s.pending {
			s.deals[id] = modified
		}
	}
	s.page, s.pending = "", nil
}

func (s *seen) has(id int64, modified string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.deals[id]
	return ok && known == modified
}

// turn names a new page with the deals that were read for it.
func (s *seen) turn(read map[int64]string) (page string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page, s.pending = rand.Text(), read
	return s.page
}
