package hubspot

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Limits are the portal's rate limits. Zero means HubSpot's own figure, a
// negative number that the limit is not enforced.
type Limits struct {
	TenSecondly    int `json:"tenSecondly"`    // calls per app in 10 s: 190, OAuth apps 110
	Daily          int `json:"daily"`          // calls per day: 625,000, not for OAuth apps
	SearchSecondly int `json:"searchSecondly"` // searches per portal and second: 5
	Associations   int `json:"associations"`   // association calls per app in 10 s: 150
}

// limiter counts calls in rolling windows.
type limiter struct {
	set     Limits
	zone    *time.Location
	windows map[string][]time.Time
	day     string
	today   int
}

func newLimiter(l Limits, zone *time.Location) limiter {
	return limiter{set: l, zone: zone, windows: map[string][]time.Time{}}
}

func figure(set, byDefault int) int {
	if set == 0 {
		return byDefault
	}
	return set
}

func (l *limiter) tenSecondly(t *accessToken) int {
	if t.oauth {
		return figure(l.set.TenSecondly, 110)
	}
	return figure(l.set.TenSecondly, 190)
}

// count counts a call or refuses it.
func (l *limiter) count(b bucket, t *accessToken, now time.Time) *reply {
	switch b {
	case unlimited:
		return nil
	case searches:
		if !l.admit("search", figure(l.set.SearchSecondly, 5), time.Second, now) {
			return rateLimited("SECONDLY")
		}
		return l.countDay(t, now)
	case associationCalls:
		if !l.admit("associations "+t.app, figure(l.set.Associations, 150), 10*time.Second, now) {
			return rateLimited("TEN_SECONDLY_ROLLING")
		}
	case general:
		if !l.admit(t.app, l.tenSecondly(t), 10*time.Second, now) {
			return rateLimited("TEN_SECONDLY_ROLLING")
		}
	}
	return l.countDay(t, now)
}

func (l *limiter) admit(window string, limit int, length time.Duration, now time.Time) bool {
	if limit < 0 {
		return true
	}
	calls := slices.DeleteFunc(l.windows[window], func(at time.Time) bool { return now.Sub(at) >= length })
	defer func() { l.windows[window] = calls }()
	if len(calls) >= limit {
		return false
	}
	calls = append(calls, now)
	return true
}

func (l *limiter) countDay(t *accessToken, now time.Time) *reply {
	if t.oauth {
		return nil
	}
	if day := now.In(l.zone).Format(time.DateOnly); day != l.day {
		l.day, l.today = day, 0
	}
	if limit := figure(l.set.Daily, 625_000); limit >= 0 && l.today >= limit {
		return rateLimited("DAILY")
	}
	l.today++
	return nil
}

// headers tells how much is left, which HubSpot does on all but search answers.
func (l *limiter) headers(h http.Header, t *accessToken, now time.Time) {
	if limit := l.tenSecondly(t); limit >= 0 {
		used := 0
		for _, at := range l.windows[t.app] {
			if now.Sub(at) < 10*time.Second {
				used++
			}
		}
		h.Set("X-HubSpot-RateLimit-Interval-Milliseconds", "10000")
		h.Set("X-HubSpot-RateLimit-Max", strconv.Itoa(limit))
		h.Set("X-HubSpot-RateLimit-Remaining", strconv.Itoa(limit-used))
	}
	if limit := figure(l.set.Daily, 625_000); limit >= 0 && !t.oauth {
		h.Set("X-HubSpot-RateLimit-Daily", strconv.Itoa(limit))
		h.Set("X-HubSpot-RateLimit-Daily-Remaining", strconv.Itoa(limit-l.today))
	}
}
