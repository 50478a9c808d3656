package deal

import "time"

// Replay says which entries of the past the guard would have held, and why, had it been there: causes has the reason for
// each, empty for those that it lets through. The entries are oldest first. They are judged in the portions in which polls
// would have found them, and each midnight (UTC) a person lets go what is held. It begins without knowing what was usual
// before the first of them; first runs are not judged.
func (g Guard) Replay(entries []Change, poll time.Duration) (causes []string) {
	counts, states := map[Bucket]int{}, map[string]GuardState{}
	days := map[string]map[string]int{} // of each rule
	today := ""
	for len(entries) > 0 {
		n := portion(entries, poll)
		now := entries[:n]
		entries = entries[n:]
		if day := now[0].At.UTC().Format(time.DateOnly); day != today {
			today, counts, states = day, map[Bucket]int{}, map[string]GuardState{}
		}
		for _, c := range now {
			s := states[c.Rule]
			s.Usual = usualBefore(days[c.Rule], c.At)
			states[c.Rule] = s
		}
		causes = append(causes, g.Judge(now, counts, states)...)
		for _, c := range now {
			if days[c.Rule] == nil {
				days[c.Rule] = map[string]int{}
			}
			days[c.Rule][c.At.UTC().Format(time.DateOnly)]++
		}
	}
	return causes
}

// portion is how many of the entries one poll finds. It ends with its day.
func portion(entries []Change, poll time.Duration) int {
	first := entries[0].At.UTC()
	for i, c := range entries {
		if at := c.At.UTC(); at.Sub(first) >= max(poll, time.Second) || at.Format(time.DateOnly) != first.Format(time.DateOnly) {
			return i
		}
	}
	return len(entries)
}

// usualBefore is a usual day among those that a guard looks back on from at.
func usualBefore(days map[string]int, at time.Time) int {
	var counted []int
	for back := 1; back <= LearnedDays; back++ {
		counted = append(counted, days[at.UTC().AddDate(0, 0, -back).Format(time.DateOnly)])
	}
	return UsualDay(counted)
}
