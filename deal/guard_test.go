package deal

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// spread makes n entries that are d apart, each by a user of its own.
func spread(rule string, n int, from time.Time, d time.Duration) (list []Change) {
	for i := range n {
		list = append(list, Change{Rule: rule, At: from.Add(time.Duration(i) * d), By: fmt.Sprint("user", i)})
	}
	return list
}

func by(user string, list []Change) []Change {
	for i := range list {
		list[i].By = user
	}
	return list
}

// outcome is which entries are held, and why the last of them is.
func outcome(causes []string) (held, why string) {
	for _, c := range causes {
		if held += map[bool]string{true: ".", false: "h"}[c == ""]; c != "" {
			why = c
		}
	}
	return held, why
}

func TestGuardHoldsWhatIsAboveItsLimits(t *testing.T) {
	const r = "r"
	one := func(g RuleGuard) Guard { return Guard{Rules: map[string]RuleGuard{r: g}} }
	for _, c := range []struct {
		name   string
		guard  Guard
		fresh  []Change
		counts map[Bucket]int
		states map[string]GuardState
		held   string
		why    string
	}{
		{name: "no limit", fresh: spread(r, 5, noon, 0), held: "....."},
		{name: "as many as an hour may have", guard: one(RuleGuard{Caps: Caps{Hour: 4}}), fresh: spread(r, 4, noon, time.Minute), held: "...."},
		{name: "more than an hour may have", guard: one(RuleGuard{Caps: Caps{Hour: 4}}), fresh: spread(r, 6, noon, time.Minute), held: "....hh", why: "per_hour"},
		{name: "with those before", guard: one(RuleGuard{Caps: Caps{Hour: 4}}), fresh: spread(r, 2, noon, time.Minute), counts: map[Bucket]int{hourBucket(r, noon): 3}, held: ".h", why: "per_hour"},
		{name: "as many again in the next hours", guard: one(RuleGuard{Caps: Caps{Hour: 2}}), fresh: spread(r, 6, noon, 30*time.Minute), held: "......"},
		{name: "more than a day may have", guard: one(RuleGuard{Caps: Caps{Day: 3}}), fresh: spread(r, 4, noon, time.Hour), held: "...h", why: "per_day"},
		{name: "a week at once, after an outage", guard: one(RuleGuard{Caps: Caps{Hour: 2, Day: 3}, Second: 2, User: 2}), fresh: spread(r, 14, noon, 12*time.Hour), held: ".............."},
		{name: "one second", guard: one(RuleGuard{Second: 3}), fresh: spread(r, 4, noon, time.Millisecond), held: "hhhh", why: "same_second"},
		{name: "one second, on two pages", guard: one(RuleGuard{Second: 3}), fresh: spread(r, 2, noon, 0), counts: map[Bucket]int{secondBucket(Change{Rule: r, At: noon}): 2}, held: "hh", why: "same_second"},
		{name: "two seconds", guard: one(RuleGuard{Second: 3}), fresh: spread(r, 6, noon, 350*time.Millisecond), held: "......"},
		{name: "one user", guard: one(RuleGuard{User: 2}), fresh: by("u", spread(r, 3, noon, time.Minute)), held: "hhh", why: "same_user"},
		{name: "one user among others", guard: one(RuleGuard{User: 2}), fresh: append(spread(r, 2, noon, time.Second), by("u", spread(r, 3, noon, time.Minute))...), held: "..hhh", why: "same_user"},
		{name: "nobody knows who", guard: one(RuleGuard{User: 2}), fresh: by("", spread(r, 5, noon, time.Minute)), held: "....."},
		{name: "what comes after the mass is held with it", guard: one(RuleGuard{Second: 1}), fresh: append(spread(r, 2, noon, 0), spread(r, 2, noon.Add(5*time.Hour), time.Hour)...), held: "hhhh", why: "same_second"},
		{name: "and what comes on later pages", guard: one(RuleGuard{Second: 1}), fresh: spread(r, 1, noon, 0), states: map[string]GuardState{r: {Cause: "because"}}, held: "h", why: "because"},
		{name: "no other rule is", guard: Guard{Rules: map[string]RuleGuard{r: {Second: 1}, "s": {Second: 1}}}, fresh: append(spread(r, 2, noon, 0), spread("s", 1, noon, 0)...), held: "hh."},
		{name: "unless the tenant is", guard: Guard{Tenant: Caps{Hour: 2}, Rules: map[string]RuleGuard{r: {Caps: Caps{Hour: 2}}}}, fresh: append(spread(r, 2, noon, 0), spread("s", 1, noon, 0)...), held: "..h", why: "the tenant has more than 2"},
		{name: "more than the tenant may have on a day", guard: Guard{Tenant: Caps{Day: 2}}, fresh: spread(r, 3, noon, time.Hour), held: "..h", why: "per_day"},
		{name: "a first run", guard: one(RuleGuard{FirstRun: 3}), fresh: spread(r, 3, noon, time.Hour), states: map[string]GuardState{r: {First: true}}, held: "hhh", why: "first run of the rule, which waits"},
		{name: "a first run with too many", guard: one(RuleGuard{FirstRun: 3}), fresh: spread(r, 5, noon, time.Hour), states: map[string]GuardState{r: {First: true}}, held: "hhhhh", why: "first run of the rule finds more than 3"},
		{name: "more than ten usual days", guard: one(RuleGuard{Learned: 10}), fresh: spread(r, 2, noon, 0), counts: map[Bucket]int{DayBucket(r, noon): 79}, states: map[string]GuardState{r: {Usual: 8}}, held: ".h", why: "more than 80 deals on a day, and usually 8"},
		{name: "few are never unusual", guard: one(RuleGuard{Learned: 10}), fresh: spread(r, 49, noon, 0), states: map[string]GuardState{r: {Usual: 1}}, held: strings.Repeat(".", 49)},
		{name: "nothing learned yet", guard: one(RuleGuard{Learned: 10}), fresh: spread(r, 500, noon, 0), held: strings.Repeat(".", 500)},
	} {
		if c.counts == nil {
			c.counts = map[Bucket]int{}
		}
		if c.states == nil {
			c.states = map[string]GuardState{}
		}
		held, why := outcome(c.guard.Judge(c.fresh, c.counts, c.states))
		if held != c.held || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s because %q, want %s because %q", c.name, held, why, c.held, c.why)
		}
	}
}

func TestGuardCountsOnlyWhatItLetsThrough(t *testing.T) {
	g := Guard{Tenant: Caps{Hour: 100}, Rules: map[string]RuleGuard{"r": {Caps: Caps{Hour: 2}}}}
	counts, states := map[Bucket]int{}, map[string]GuardState{}
	g.Judge(by("u", spread("r", 5, noon, time.Second)), counts, states)
	for b, want := range map[Bucket]int{hourBucket("r", noon): 2, hourBucket("", noon): 2, DayBucket("r", noon): 2, {"r", "user/2026-03-04T12/u"}: 2, {"r", "second/1772625601"}: 1, {"r", "second/1772625604"}: 0} {
		if counts[b] != want {
			t.Errorf("%v: %d, want %d", b, counts[b], want)
		}
	}
	if states["r"].Cause == "" || states[""].Cause != "" {
		t.Errorf("states %+v", states)
	}
}

func TestUsualDay(t *testing.T) {
	for _, c := range []struct {
		days []int
		want int
	}{{nil, 0}, {[]int{9, 9, 9, 9}, 0}, {[]int{9, 9, 9, 9, 0, 0}, 0}, {[]int{4, 5, 3, 4000, 6}, 5}, {[]int{1, 2, 3, 4, 5, 6}, 4}} {
		if got := UsualDay(c.days); got != c.want {
			t.Errorf("%v: %d, want %d", c.days, got, c.want)
		}
	}
}
