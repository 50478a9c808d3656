package api

import (
	"fmt"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestAMinutesWorthIsAnsweredAndThenAsMuchAsTimeBrings(t *testing.T) {
	l := limiter{perMinute: 60, callers: map[string]bucket{}}
	for i := range 60 {
		if a := l.take("a", 1, noon); !a.ok || a.left != 59-i || a.limit != 60 {
			t.Fatalf("request %d: %+v", i+1, a)
		}
	}
	if a := l.take("a", 1, noon); a.ok || a.left != 0 || a.next != time.Second || a.full != time.Minute {
		t.Errorf("one more: %+v", a)
	}
	if a := l.take("b", 1, noon); !a.ok {
		t.Errorf("another caller: %+v", a)
	}
	if a := l.take("a", 1, noon.Add(time.Second)); !a.ok || a.left != 0 {
		t.Errorf("a second later: %+v", a)
	}
	if a := l.take("a", 1, noon.Add(-time.Hour)); a.ok {
		t.Errorf("a clock that was set back brings requests: %+v", a)
	}
	if a := l.take("a", 1, noon.Add(time.Hour)); !a.ok || a.left != 59 {
		t.Errorf("an hour later: %+v", a)
	}
	if a := l.take("c", 100, noon); !a.ok || a.left != 0 {
		t.Errorf("a dear request: %+v", a)
	}
}

func TestCallersThatAreManyTakeNoMemory(t *testing.T) {
	l := limiter{perMinute: 2, callers: map[string]bucket{}}
	for i := range mostLimited {
		l.take(fmt.Sprint("idle ", i), 1, noon)
	}
	later := noon.Add(time.Hour)
	l.take("busy", 2, later)
	l.take("one more", 1, later)
	if len(l.callers) > 2 {
		t.Errorf("%d callers are remembered that have all of their limit", len(l.callers))
	}
	if a := l.take("busy", 1, later); a.ok {
		t.Error("room was made of somebody who has used up the limit, while others had not")
	}
	for i := range 2 * mostLimited {
		l.take(fmt.Sprint("flood ", i), 2, later)
	}
	if len(l.callers) > mostLimited {
		t.Errorf("%d callers are remembered", len(l.callers))
	}
}

func TestACallerOfIPv6HasItsWholeNetwork(t *testing.T) {
	for remote, want := range map[string]string{"192.0.2.7:1": "192.0.2.7", "[2001:db8::1]:1": "2001:db8::/64", "[2001:db8::ffff:1]:2": "2001:db8::/64", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[fe80::1%eth0]:1": "fe80::/64", "@": ""} {
		if got := callerAt(remote); got != want {
			t.Errorf("%s is %q, want %q", remote, got, want)
		}
	}
}
