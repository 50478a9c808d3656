package deal

import (
	"fmt"
	"testing"
	"time"
)

// entriesOf makes n entries of a rule, one every step from at on.
func entriesOf(rule string, at time.Time, n int, step time.Duration) (list []Change) {
	for i := range n {
		list = append(list, Change{Rule: rule, Ref: Ref{Object: "deals", ID: fmt.Sprint(i + 1)}, Occurrence: fmt.Sprint(at.Unix(), i), At: at.Add(time.Duration(i) * step)})
	}
	return list
}

func heldOf(causes []string) (n int) {
	for _, c := range causes {
		if c != "" {
			n++
		}
	}
	return n
}

func TestReplayHoldsWhatTheGuardWouldHaveHeldUntilTheDayIsOver(t *testing.T) {
	day := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	g := Guard{Rules: map[string]RuleGuard{"a": {Caps: Caps{Day: 5}}}}
	entries := append(entriesOf("a", day, 8, time.Hour), entriesOf("a", day.AddDate(0, 0, 1), 4, time.Hour)...)
	causes := g.Replay(entries, time.Minute)
	if len(causes) != len(entries) || heldOf(causes) != 3 || causes[4] != "" || causes[5] == "" || causes[8] != "" {
		t.Errorf("held are %q", causes)
	}
	// A mass is held as a whole, whichever of its entries come first.
	g = Guard{Rules: map[string]RuleGuard{"a": {Second: 10}}}
	if causes := g.Replay(entriesOf("a", day, 40, 0), time.Minute); heldOf(causes) != 40 {
		t.Errorf("of a mass %d are held, want all 40", heldOf(causes))
	}
	if causes := g.Replay(nil, time.Minute); len(causes) != 0 {
		t.Errorf("of nothing there is held %q", causes)
	}
}

func TestReplayLearnsWhatIsUsualFromTheDaysBefore(t *testing.T) {
	day := time.Date(2026, 11, 2, 0, 30, 0, 0, time.UTC)
	g := Guard{Rules: map[string]RuleGuard{"a": {Learned: 10}}}
	var entries []Change
	for i := range 6 {
		entries = append(entries, entriesOf("a", day.AddDate(0, 0, i), 6, time.Minute)...)
	}
	entries = append(entries, entriesOf("a", day.AddDate(0, 0, 6), 70, 15*time.Minute)...)
	if n := heldOf(g.Replay(entries, time.Minute)); n != 10 {
		t.Errorf("%d are held, want those above ten times the usual six", n)
	}
}
