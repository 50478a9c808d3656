package hubspot

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Delay is how long a change takes until search sees it. With Max > Min changes
// overtake one another; the pattern is the same in every run.
type Delay struct{ Min, Max time.Duration }

// at spreads the delays evenly between Min and Max by the golden ratio.
func (d Delay) at(n int) time.Duration {
	if d.Max <= d.Min {
		return d.Min
	}
	_, part := math.Modf(float64(n) * 0.6180339887498949)
	return d.Min + time.Duration(part*float64(d.Max-d.Min))
}

// searchIndex is what search reads instead of the records. It is eventually
// consistent with them; a record's newer row is never replaced by an older one.
type searchIndex struct {
	rows    map[int64]*indexRow
	waiting []*indexRow
	held    map[int64]bool
	changes int
}

// indexRow is a record as search sees it.
type indexRow struct {
	id               int64
	number           int // of the change
	visible          time.Time
	values           map[string]string
	created, updated time.Time
	gone             bool
}

func newSearchIndex() searchIndex {
	return searchIndex{rows: map[int64]*indexRow{}, held: map[int64]bool{}}
}

func (x *searchIndex) enqueue(r *record, at time.Time, d Delay) {
	x.changes++
	row := &indexRow{
		id: r.id, number: x.changes, visible: at.Add(d.at(x.changes)),
		values: r.values(), created: r.created, updated: r.updated, gone: r.archived,
	}
	if row.visible.After(at) || x.held[r.id] {
		x.waiting = append(x.waiting, row)
		return
	}
	x.show(row)
}

func (x *searchIndex) show(row *indexRow) {
	if old := x.rows[row.id]; old == nil || old.number < row.number {
		x.rows[row.id] = row
	}
}

// settle lets the changes in whose time has come.
func (x *searchIndex) settle(now time.Time) {
	x.waiting = slices.DeleteFunc(x.waiting, func(row *indexRow) bool {
		if row.visible.After(now) || x.held[row.id] {
			return false
		}
		x.show(row)
		return true
	})
}

// live returns the rows that search may find, by ascending ID.
func (x *searchIndex) live(now time.Time) []*indexRow {
	x.settle(now)
	ids := slices.Sorted(maps.Keys(x.rows))
	rows := make([]*indexRow, 0, len(ids))
	for _, id := range ids {
		if row := x.rows[id]; !row.gone {
			rows = append(rows, row)
		}
	}
	return rows
}
