//go:build conformance

package conformance

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// maxCover bounds the cover: a file takes all validators a second or two.
const maxCover = 300

// cover makes rows that hold every pair of values of any two dimensions, of which sizes gives the numbers, and that are
// allowed. It is the same for the same input.
func cover(sizes []int, allowed func(row []int) bool) [][]int {
	r := rand.New(rand.NewPCG(1, 2))
	missing := map[[4]int]bool{}
	row := make([]int, len(sizes))
	for a := range sizes {
		for b := a + 1; b < len(sizes); b++ {
			for x := range sizes[a] {
				for y := range sizes[b] {
					missing[[4]int{a, x, b, y}] = true
				}
			}
		}
	}
	var rows [][]int
	for tries := 0; len(missing) > 0 && tries < 200 && len(rows) < maxCover; {
		var best []int
		gain := 0
		for range 200 {
			for d := range row {
				row[d] = r.IntN(sizes[d])
			}
			// Half of the candidates begin with a pair that is still missing, or late ones would never be found.
			if r.IntN(2) == 0 {
				pairs := make([][4]int, 0, 1)
				for p := range missing {
					if len(pairs) == 0 || slices.Compare(p[:], pairs[0][:]) < 0 {
						pairs = [][4]int{p}
					}
				}
				row[pairs[0][0]], row[pairs[0][2]] = pairs[0][1], pairs[0][3]
			}
			if !allowed(row) {
				continue
			}
			if n := gains(missing, row); n > gain {
				best, gain = slices.Clone(row), n
			}
		}
		if best == nil {
			tries++
			// A pair that no allowed row has is not to be covered.
			dropImpossible(missing, sizes, allowed)
			continue
		}
		tries = 0
		for a := range best {
			for b := a + 1; b < len(best); b++ {
				delete(missing, [4]int{a, best[a], b, best[b]})
			}
		}
		rows = append(rows, best)
	}
	return rows
}

func gains(missing map[[4]int]bool, row []int) (n int) {
	for a := range row {
		for b := a + 1; b < len(row); b++ {
			if missing[[4]int{a, row[a], b, row[b]}] {
				n++
			}
		}
	}
	return n
}

// dropImpossible takes out pairs of which no row is allowed, whatever else it has: rules are about two dimensions here.
func dropImpossible(missing map[[4]int]bool, sizes []int, allowed func([]int) bool) {
	for p := range missing {
		row := make([]int, len(sizes))
		row[p[0]], row[p[2]] = p[1], p[3]
		if !allowed(row) {
			delete(missing, p)
		}
	}
}

func TestTheCoverHasEveryPair(t *testing.T) {
	sizes := []int{len(rungs), len(schemes), len(hashes), 12, 2, 4, len(parties), 2}
	allowed := func(row []int) bool { return row[5] != 1 || row[6] == 0 }
	rows := cover(sizes, allowed)
	seen := map[[4]int]bool{}
	for _, row := range rows {
		if !allowed(row) {
			t.Errorf("%v is not allowed", row)
		}
		for a := range row {
			for b := a + 1; b < len(row); b++ {
				seen[[4]int{a, row[a], b, row[b]}] = true
			}
		}
	}
	want := 1 - len(parties) // certification 1 with more than one signature
	for a := range sizes {
		for b := a + 1; b < len(sizes); b++ {
			want += sizes[a] * sizes[b]
		}
	}
	if len(seen) != want {
		t.Errorf("%d rows have %d pairs of %d", len(rows), len(seen), want)
	}
	if len(rows) < 7*12 || len(rows) > 150 {
		t.Errorf("%d rows", len(rows))
	}
}
