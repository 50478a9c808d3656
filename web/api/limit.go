package api

import (
	"net/netip"
	"sync"
	"time"
)

// mostLimited bounds how many callers are remembered.
const mostLimited = 20_000

// limiter lets so many requests a minute through of each caller, a minute's worth at once at most. It is safe for
// concurrent use.
type limiter struct {
	perMinute int

	mu      sync.Mutex
	callers map[string]bucket
}

// bucket is what is left to a caller, as of a time.
type bucket struct {
	left float64
	at   time.Time
}

// allowance is what a caller is told of its limit.
type allowance struct {
	limit, left int
	// full is when all of the limit is there again, next when one request is.
	full, next time.Duration
	ok         bool
}

// take uses up n requests of a caller, if there are as many; else only what is left is told.
func (l *limiter) take(caller string, n int, now time.Time) allowance {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := float64(l.perMinute)
	b, known := l.callers[caller]
	if !known {
		l.makeRoom(now)
		b = bucket{most, now}
	}
	b = l.filled(b, now)
	a := allowance{limit: l.perMinute, ok: b.left >= 1}
	if a.ok {
		b.left = max(b.left-float64(n), 0)
	}
	l.callers[caller] = b
	a.left = int(b.left)
	a.full = time.Duration((most - b.left) / most * float64(time.Minute))
	a.next = time.Duration(max(1-b.left, 0) / most * float64(time.Minute))
	return a
}

func (l *limiter) filled(b bucket, now time.Time) bucket {
	most := float64(l.perMinute)
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(most, b.left+passed.Minutes()*most)
	}
	b.at = now
	return b
}

// makeRoom forgets who has all of its limit again, and if that is not a tenth, anybody until it is: a flood of new callers
// looks through them all once in a while only. The caller holds the lock.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.callers) < mostLimited {
		return
	}
	for name, b := range l.callers {
		if l.filled(b, now).left >= float64(l.perMinute) {
			delete(l.callers, name)
		}
	}
	for name := range l.callers {
		if len(l.callers) < mostLimited*9/10 {
			return
		}
		delete(l.callers, name)
	}
}

// callerAt is the address that a request came from, as far as one caller has it for itself: a /64 of IPv6.
func callerAt(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	ip := at.Addr().Unmap()
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
