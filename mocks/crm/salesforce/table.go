package salesforce

import (
	"maps"
	"time"
)

// table holds the rows of one object in the order of their creation.
type table struct {
	rows []*row
	byID map[string]*row
}

func newTable() *table { return &table{byID: map[string]*row{}} }

func (t *table) insert(r *row) {
	t.rows = append(t.rows, r)
	t.byID[r.id] = r
}

func (t *table) remove(r *row) {
	delete(t.byID, r.id)
	for i := len(t.rows) - 1; i >= 0; i-- {
		if t.rows[i] == r {
			t.rows = append(t.rows[:i], t.rows[i+1:]...)
			return
		}
	}
}

// row is a record with the versions that are not yet, or just, committed.
type row struct {
	id       string
	object   *object
	versions []version
	raw      map[string]any // shown instead of the stored value; sorting and filters do not see it
}

// version is the state of a record from the moment of its commit. Values are
// string, float64, bool, time.Time (date-time) or nil; dates are strings.
type version struct {
	values  map[string]any
	visible time.Time // zero: at once
}

// at returns the values that a reader sees, or nil before the first commit.
func (r *row) at(now time.Time) map[string]any {
	for i := len(r.versions) - 1; i >= 0; i-- {
		if !r.versions[i].visible.After(now) {
			return r.versions[i].values
		}
	}
	return nil
}

// latest returns the values that the last writer left, committed or not.
func (r *row) latest() map[string]any { return r.versions[len(r.versions)-1].values }

// uncommitted says whether a transaction still holds the row.
func (r *row) uncommitted(now time.Time) bool {
	return r.versions[len(r.versions)-1].visible.After(now)
}

func (r *row) deleted() bool { return r.latest()["IsDeleted"] == true }

// tx is one transaction: its writes carry one stamp, become visible together,
// and can be undone together.
type tx struct {
	o       *Org
	user    string
	stamp   time.Time
	visible time.Time
	undo    []func()
	data    []byte // file bytes that came outside the JSON, for the next ContentVersion
}

// begin opens a transaction that commits at once, as every API call's has
// before its reply.
func (o *Org) begin(user string) *tx {
	return &tx{o: o, user: user, stamp: o.stamp()}
}

// rollback undoes all that was done since the mark.
func (t *tx) rollback(mark int) {
	for i := len(t.undo) - 1; i >= mark; i-- {
		t.undo[i]()
	}
	t.undo = t.undo[:mark]
}

// insertRow stores a new record.
func (t *tx) insertRow(def *object, values map[string]any) *row {
	r := &row{id: t.o.newID(def.prefix), object: def, versions: []version{{values: values, visible: t.visible}}}
	tab := t.o.tables[def.name]
	tab.insert(r)
	t.undo = append(t.undo, func() { tab.remove(r) })
	return r
}

// write stores a new version of a record. A row's versions become visible in
// the order in which they were written, because a writer holds the row's lock
// until its commit.
func (t *tx) write(r *row, changes map[string]any) {
	values := maps.Clone(r.latest())
	maps.Copy(values, changes)
	before := r.versions
	if last := r.versions[len(r.versions)-1].visible; last.After(t.visible) {
		t.visible = last
	}
	now := t.o.now()
	kept := make([]version, 0, 2)
	for i, v := range before {
		superseded := i+1 < len(before) && !before[i+1].visible.After(now)
		if !superseded && t.visible.After(now) {
			kept = append(kept, v)
		}
	}
	r.versions = append(kept, version{values: values, visible: t.visible})
	t.undo = append(t.undo, func() { r.versions = before })
}
