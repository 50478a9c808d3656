package connectors

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxNearest is how many names are proposed, maxListed how many are listed when none is near.
	maxNearest = 3
	maxListed  = 12
)

// Nearest returns those of the known names that may have been meant by name, the nearest first: at most three, none when
// nothing is near. Case does not count.
func Nearest(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	for _, k := range slices.Compact(slices.Sorted(slices.Values(known))) {
		if d := editDistance([]rune(strings.ToLower(name)), []rune(strings.ToLower(k))); d <= max(len(name), len(k))/3 {
			near = append(near, candidate{k, d})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var names []string
	for _, n := range near {
		if len(names) < maxNearest && n.distance <= near[0].distance+1 {
			names = append(names, n.name)
		}
	}
	return names
}

// Suggest is Nearest as a part of a sentence. When nothing is near it lists the known names, if they are few; otherwise
// it is empty.
func Suggest(name string, known []string) string {
	if near := Nearest(name, known); len(near) > 0 {
		return "did you mean " + quoted(near, " or ") + "?"
	}
	if len(known) == 0 || len(known) > maxListed {
		return ""
	}
	return "use one of " + quoted(known, ", ")
}

func quoted(names []string, separator string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, separator)
}

// editDistance is Levenshtein's: how many runes have to be put in, taken out or replaced to make b of a.
func editDistance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, y := range b {
			change := diagonal
			if x != y {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
