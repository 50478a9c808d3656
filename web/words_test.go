package web

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestWhatIsSealedIsNeverCalledDead(t *testing.T) {
	for _, c := range []struct {
		step      deal.Step
		condition deal.Condition
		want      state
	}{
		{deal.Rendered, deal.Dead, state{Mark: "dead", Word: "dead"}},
		{deal.Sealed, deal.Dead, state{Mark: "dead", Word: "sealed, not released", Also: "dead"}},
		{deal.Kept, deal.Dead, state{Mark: "dead", Word: "sealed, CRM not told", Also: "dead"}},
		{deal.Attached, deal.Held, state{Mark: "held", Word: "sealed, CRM not told", Also: "held"}},
		{deal.Attached, deal.Running, state{Mark: "running", Word: "running"}},
		{deal.Attached, deal.Ended, state{Mark: "ended", Word: "ended"}},
		{deal.Done, deal.Running, state{Mark: "done", Word: "done"}},
		{"", "", state{}},
	} {
		if got := stateOf(c.step, c.condition); got != c.want {
			t.Errorf("%s, %s: %+v, want %+v", c.step, c.condition, got, c.want)
		}
	}
}

func TestTimesAreSaidAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "just now", 400 * time.Millisecond: "just now", -400 * time.Millisecond: "just now", 59 * time.Second: "59 s ago", -40 * time.Second: "in 40 s",
		59 * time.Minute: "59 min ago", 47 * time.Hour: "47 h ago", 49 * time.Hour: "2 d ago", 3 * 366 * 24 * time.Hour: "3 years ago"} {
		if got := at(noon.Add(-d), noon); got.Age != want {
			t.Errorf("%s: %q, want %q", d, got.Age, want)
		}
	}
	if at(time.Time{}, noon) != nil {
		t.Error("no time is shown as a time")
	}
	zone := time.FixedZone("x", 3600)
	if m := at(noon.In(zone).Add(5*time.Millisecond), noon); m.UTC != "2026-11-20 12:00:00 UTC" || m.ISO != "2026-11-20T12:00:00.005Z" {
		t.Errorf("%+v", m)
	}
	for d, want := range map[time.Duration]string{37 * time.Millisecond: "37 ms", 59_990 * time.Millisecond: "59.9 s", 125 * time.Second: "2 min 5 s", 3*time.Hour + 4*time.Minute: "3 h 4 min", 51 * time.Hour: "2 d 3 h"} {
		if got := took(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestOnlyPagesOfTheWebAreLinked(t *testing.T) {
	for u, ok := range map[string]bool{"https://acme.my.salesforce.com/006": true, "http://127.0.0.1:8201/x": true, "": false, "/deals/x": false, "//evil.example": false,
		"javascript:alert(1)": false, "data:text/html,x": false, "https:///x": false, "https://a\x7f": false} {
		if got := link(u); (got == u && u != "") != ok {
			t.Errorf("%q: %q", u, got)
		}
	}
}

func TestPollingIsCalledWhatItIs(t *testing.T) {
	for _, c := range []struct {
		name   string
		tenant Tenant
		word   string
		silent bool
	}{
		{"never", Tenant{}, "not polled yet", false},
		{"error", Tenant{Poll: deal.PollState{At: noon, Err: "x"}}, "failing", true},
		{"fresh", Tenant{Every: time.Minute, Poll: deal.PollState{At: noon.Add(-14 * time.Minute)}}, "polling", false},
		{"old", Tenant{Every: time.Minute, Poll: deal.PollState{At: noon.Add(-16 * time.Minute)}}, "late", true},
		{"rarely asked", Tenant{Every: time.Hour, Poll: deal.PollState{At: noon.Add(-2 * time.Hour)}}, "polling", false},
		{"behind", Tenant{Poll: deal.PollState{At: noon, Lag: time.Hour}}, "catching up", false},
	} {
		if got, silent := pollState(c.tenant, noon); got.Word != c.word || silent != c.silent {
			t.Errorf("%s: %q, %v", c.name, got.Word, silent)
		}
	}
}

func TestTheHeadlineIsNeverBetterThanTheState(t *testing.T) {
	for _, c := range []struct {
		waiting     int64
		tenants     []tenantView
		untold, odd int64
		want        string
	}{
		{0, nil, 0, 0, "Nothing waits for a person"},
		{1, nil, 0, 0, "1 deal waits for a person"},
		{1200, []tenantView{{Silent: true}}, 0, 0, "1\u202f200 deals wait for a person, 1 CRM is not being read"},
		{0, []tenantView{{Silent: true}, {}, {Silent: true}}, 0, 0, "2 CRMs are not being read"},
		{0, nil, 1, 2, "1 record does not show what is true, 2 rows of CRMs could not be understood"},
	} {
		if got := headline(c.waiting, c.tenants, c.untold, c.odd); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
