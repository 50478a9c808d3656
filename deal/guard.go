package deal

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// HoldGuard names the hold of deals that came in such numbers that a person has to look first.
const HoldGuard = "guard"

// Guard says how many entries are let through unasked. It counts them by the CRM's own times, so that a daemon that was
// down for a week and finds a week's entries at once finds nothing unusual. A limit of 0 is none.
type Guard struct {
	// Tenant are the limits of all rules together.
	Tenant Caps `json:"tenant"`
	// Rules are those of each rule, by its id.
	Rules map[string]RuleGuard `json:"rules,omitempty"`
}

// Caps are the most entries of an hour and of a day, both in UTC.
type Caps struct {
	Hour int `json:"hour,omitempty"`
	Day  int `json:"day,omitempty"`
}

// RuleGuard are the limits of one rule.
type RuleGuard struct {
	Caps
	// Learned is how many times as many entries as on a usual day may come on one day.
	Learned int `json:"learned,omitempty"`
	// Second is the most entries that bear the same second, User the most by one user in one hour. If there are more, all
	// of them are held that were not let through before.
	Second int `json:"second,omitempty"`
	User   int `json:"user,omitempty"`
	// FirstRun is the most entries that are found when a rule is watched for the first time. If there are more, all are held.
	FirstRun int `json:"first_run,omitempty"`
}

// The least of what counts as usual: few active days say nothing, and few deals a day vary.
const (
	leastActiveDays   = 5
	leastLearnedLimit = 50
	// LearnedDays is how far back a usual day is looked for.
	LearnedDays = 28
)

// Bucket is what entries are counted in: those of a rule, or for an empty rule of the tenant, that share an hour, a day, a
// second or a user.
type Bucket struct{ Rule, Key string }

// DayBucket is the bucket of a day.
func DayBucket(rule string, at time.Time) Bucket {
	return Bucket{rule, "day/" + at.UTC().Format(time.DateOnly)}
}

func hourBucket(rule string, at time.Time) Bucket {
	return Bucket{rule, "hour/" + at.UTC().Format("2006-01-02T15")}
}

func secondBucket(c Change) Bucket {
	return Bucket{c.Rule, "second/" + strconv.FormatInt(c.At.Unix(), 10)}
}

// userBucket is empty when the CRM does not say who it was.
func userBucket(c Change) Bucket {
	if c.By == "" {
		return Bucket{}
	}
	return Bucket{c.Rule, "user/" + c.At.UTC().Format("2006-01-02T15") + "/" + c.By}
}

// Watches reports whether there is anything that the guard could find with a rule.
func (g Guard) Watches(rule string) bool {
	return g.Tenant != Caps{} || g.Rules[rule] != RuleGuard{}
}

// Buckets returns those that an entry is counted in.
func (g Guard) Buckets(c Change) []Bucket {
	buckets := []Bucket{hourBucket(c.Rule, c.At), DayBucket(c.Rule, c.At), secondBucket(c)}
	if c.By != "" {
		buckets = append(buckets, userBucket(c))
	}
	if g.Tenant != (Caps{}) {
		buckets = append(buckets, hourBucket("", c.At), DayBucket("", c.At))
	}
	return buckets
}

// GuardState is what is known of a rule, or under the empty rule of the tenant as a whole, when a page comes.
type GuardState struct {
	// Cause says why everything of the rule is held until a person decides; empty when nothing is.
	Cause string
	// First is set until the rule was read to the end for the first time, Seen is how many entries it has had till then.
	First bool
	Seen  int
	// Usual is how many entries a usual day has, 0 while that is not known.
	Usual int
}

// firstRun is why entries of a first run wait until it is over.
const firstRun = "found on the first run of the rule, which waits as a whole if it has more deals than first_run allows"

// Judge decides which of the fresh entries of a page are held: causes has the reason for each, empty for those that are let
// through. counts are those of Buckets before the page, without what came before a person last decided; let-through entries
// are added. states are changed to what they are after the page.
//
// Once an entry is held, everything of its rule that comes later is held with it until a person has decided: one who looks
// at four thousand deals that should not be there does not want a hundred of them sealed with every hour that it takes.
func (g Guard) Judge(fresh []Change, counts map[Bucket]int, states map[string]GuardState) (causes []string) {
	crowds := map[Bucket]int{}
	for _, c := range fresh {
		crowds[secondBucket(c)]++
		crowds[userBucket(c)]++
	}
	before := map[Bucket]int{}
	for b := range crowds {
		before[b] = counts[b]
	}
	causes = make([]string, len(fresh))
	for i, c := range fresh {
		if !g.Watches(c.Rule) {
			continue
		}
		crowd := func(b Bucket) int { return before[b] + crowds[b] }
		causes[i] = g.judge(c, counts, states, crowd)
		if causes[i] == "" {
			for _, b := range g.Buckets(c) {
				counts[b]++
			}
		}
	}
	return causes
}

// judge decides about one entry.
func (g Guard) judge(c Change, counts map[Bucket]int, states map[string]GuardState, crowd func(Bucket) int) string {
	limits, rule, all := g.Rules[c.Rule], states[c.Rule], states[""]
	switch {
	case all.Cause != "":
		return all.Cause
	case rule.Cause != "":
		return rule.Cause
	case rule.First && limits.FirstRun > 0:
		if rule.Seen++; rule.Seen > limits.FirstRun {
			rule.Cause = fmt.Sprintf("the first run of the rule finds more than %d deals (first_run)", limits.FirstRun)
		}
		states[c.Rule] = rule
		return firstRun
	}
	if rule.Cause = limits.excess(c, counts, crowd, rule.Usual); rule.Cause != "" {
		states[c.Rule] = rule
		return rule.Cause
	}
	if all.Cause = g.Tenant.excess("the tenant", "", c.At, counts); all.Cause != "" {
		states[""] = all
	}
	return all.Cause
}

// excess says which limit of a rule an entry is above; empty for none.
func (l RuleGuard) excess(c Change, counts map[Bucket]int, crowd func(Bucket) int, usual int) string {
	switch {
	case l.Second > 0 && crowd(secondBucket(c)) > l.Second:
		return fmt.Sprintf("more than %d deals entered the stage in the same second (same_second)", l.Second)
	case l.User > 0 && c.By != "" && crowd(userBucket(c)) > l.User:
		return fmt.Sprintf("one user moved more than %d deals into the stage within an hour (same_user)", l.User)
	}
	if cause := l.Caps.excess("the rule", c.Rule, c.At, counts); cause != "" {
		return cause
	}
	if most := max(leastLearnedLimit, l.Learned*usual); l.Learned > 0 && usual > 0 && counts[DayBucket(c.Rule, c.At)] >= most {
		return fmt.Sprintf("the rule has more than %d deals on a day, and usually %d (learned)", most, usual)
	}
	return ""
}

func (l Caps) excess(whose, rule string, at time.Time, counts map[Bucket]int) string {
	switch {
	case l.Hour > 0 && counts[hourBucket(rule, at)] >= l.Hour:
		return fmt.Sprintf("%s has more than %d deals in an hour (per_hour)", whose, l.Hour)
	case l.Day > 0 && counts[DayBucket(rule, at)] >= l.Day:
		return fmt.Sprintf("%s has more than %d deals on a day (per_day)", whose, l.Day)
	}
	return ""
}

// UsualDay returns how many entries a usual day has: the median of the days that had any, which a few unusual ones do not
// move. It is 0 while there are too few of them.
func UsualDay(days []int) int {
	days = slices.Sorted(slices.Values(days))
	for len(days) > 0 && days[0] <= 0 {
		days = days[1:]
	}
	if len(days) < leastActiveDays {
		return 0
	}
	return days[len(days)/2]
}

// GuardScope names what the guard holds together: a rule of a tenant, or for an empty rule all of them.
type GuardScope struct {
	Tenant TenantID `json:"tenant"`
	Rule   string   `json:"rule,omitempty"`
}

func (s GuardScope) String() string {
	if s.Rule == "" {
		return string(s.Tenant)
	}
	return string(s.Tenant) + "/" + s.Rule
}

// GuardHold is what the guard holds of a scope until a person decides.
type GuardHold struct {
	GuardScope
	Cause string
	Since time.Time // our clock
	Held  int
}

// GuardReason is the reason of a deal that the guard holds.
func GuardReason(s GuardScope, cause string) string {
	return fmt.Sprintf("[%s] %s: release or drop all of them with \"dealseal jobs release --guard %s\"", HoldGuard, cause, s)
}
