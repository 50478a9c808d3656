package tsa

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// rest is how long a server that failed is asked after the others: long enough that not each seal waits for its time-out,
// and short enough that the order of the configuration is soon the order again.
const rest = 5 * time.Minute

// Counter keeps how many requests each server was sent on a day. It is safe for concurrent use.
type Counter interface {
	// CountStamp adds one to the requests of a server on a day (UTC, as in 2006-01-02), unless there are limit of them
	// already. What it reports as counted stays counted, whatever becomes of the process and of the request.
	CountStamp(ctx context.Context, server, day string, limit int) (counted bool, err error)
}

// Health is what is known of a server, for those who watch it.
type Health struct {
	Server string // its address without the query
	Quota  int    // 0: none
	Asked  time.Time
	Why    string // the newest request came to nothing; empty: it did not, or there was none
	Rests  bool   // it is asked after the others
}

// Health returns what this process knows of its servers, in the order of the configuration.
func (c *Client) Health() []Health {
	now := c.options.Now()
	var all []Health
	for _, s := range c.servers {
		rests := s.health.resting(now) > 0
		s.health.mu.Lock()
		all = append(all, Health{Server: s.name, Quota: s.Quota, Asked: s.health.asked, Why: s.health.why, Rests: rests})
		s.health.mu.Unlock()
	}
	return all
}

// health is what is known of a server.
type health struct {
	mu    sync.Mutex
	asked time.Time // the newest request ended then
	why   string    // it failed; empty after a success
}

// inOrder lists the servers as they are to be asked: those that failed a moment ago behind the others.
func (c *Client) inOrder() []*server {
	now := c.options.Now()
	list := slices.Clone(c.servers)
	slices.SortStableFunc(list, func(a, b *server) int { return a.health.resting(now) - b.health.resting(now) })
	return list
}

func (h *health) resting(now time.Time) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why != "" && now.Sub(h.asked).Abs() < rest {
		return 1
	}
	return 0
}

// note takes in how a request ended.
func (h *health) note(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked, h.why = now, ""; err != nil {
		h.why = err.Error()
	}
}

// take counts a request that is about to be sent to a server that has a quota, or says that there is none left.
func (c *Client) take(ctx context.Context, s *server) error {
	if s.Quota == 0 {
		return nil
	}
	now := c.options.Now().UTC()
	counted, err := c.options.Counter.CountStamp(ctx, s.name, now.Format(time.DateOnly), s.Quota)
	switch {
	case err != nil:
		return fmt.Errorf("it is not asked, because the request cannot be counted: %w", err)
	case counted:
		return nil
	}
	left := now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
	return &quotaError{s.Quota, min(left, maxRetryAfter)}
}

// quotaError says that a server is not asked any more today.
type quotaError struct {
	quota int
	after time.Duration
}

func (e *quotaError) Error() string {
	return fmt.Sprintf("its quota of %d requests is used up until 00:00 UTC", e.quota)
}

// ownCounter counts for as long as its client lives.
type ownCounter struct {
	mu   sync.Mutex
	day  string
	sent map[string]int
}

func (o *ownCounter) CountStamp(_ context.Context, server, day string, limit int) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if day != o.day {
		o.day, o.sent = day, map[string]int{}
	}
	if o.sent[server] >= limit {
		return false, nil
	}
	o.sent[server]++
	return true, nil
}
