package tsa

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// rest is how long a server that failed is asked after the others: long enough that not each seal waits for its time-out,
// and short enough that the order of the configuration is soon the order again.
const rest = 5 * time.Minute

// health is what is known of a server.
type health struct {
	mu     sync.Mutex
	failed time.Time // when it failed last; zero after a success
	day    string    // UTC
	used   int       // requests on that day
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
	if !h.failed.IsZero() && now.Sub(h.failed).Abs() < rest {
		return 1
	}
	return 0
}

// note takes in how a request ended.
func (h *health) note(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed = now; err == nil {
		h.failed = time.Time{}
	}
}

// take counts a request that is about to be sent, or says that there is none left.
func (h *health) take(quota int, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now = now.UTC()
	if day := now.Format(time.DateOnly); day != h.day {
		h.day, h.used = day, 0
	}
	if quota > 0 && h.used >= quota {
		left := now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
		return &quotaError{quota, min(left, maxRetryAfter)}
	}
	h.used++
	return nil
}

// quotaError says that a server is not asked any more today.
type quotaError struct {
	quota int
	after time.Duration
}

func (e *quotaError) Error() string {
	return fmt.Sprintf("its quota of %d requests is used up until 00:00 UTC", e.quota)
}
