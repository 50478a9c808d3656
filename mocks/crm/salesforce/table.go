package salesforce

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// table holds the rows of one object in the order of their creation.
type table struct {
	rows []*row
	byID map[string]*row
	refs map[referral][]*row // those that refer to a record, or did once
	same map[referral][]*row // those that have, or once had, a value that no two may have
}

// referral is a record as the value of a field that refers to others.
type referral struct{ field, id string }

func newTable() *table {
	return &table{byID: map[string]*row{}, refs: map[referral][]*row{}, same: map[referral][]*row{}}
}

func (t *table) insert(r *row) {
	t.rows = append(t.rows, r)
	t.byID[r.id] = r
	t.file(r, r.latest())
}

// file remembers which records a row refers to from now on, and which values only it may have.
func (t *table) file(r *row, values map[string]any) {
	for _, f := range r.object.fields {
		v, ok := values[f.Name].(string)
		switch {
		case ok && f.Type == TypeReference:
			at := referral{f.Name, v}
			t.refs[at] = append(t.refs[at], r)
		case ok && f.Unique:
			at := referral{f.Name, lower(v)}
			t.same[at] = append(t.same[at], r)
		}
	}
}

// having returns the rows that may have a value which no two may have.
func (t *table) having(field, value string) []*row {
	return slices.DeleteFunc(slices.Clone(t.same[referral{field, lower(value)}]), func(r *row) bool { return t.byID[r.id] != r }) // rolled back
}

// referring returns the rows that may refer to one of the records, in the order of their creation.
func (t *table) referring(field string, ids []string) []*row {
	var out []*row
	for _, id := range ids {
		out = append(out, t.refs[referral{field, id}]...)
	}
	out = slices.DeleteFunc(out, func(r *row) bool { return t.byID[r.id] != r }) // rolled back
	slices.SortFunc(out, func(x, y *row) int { return cmp.Compare(x.id, y.id) })
	return slices.Compact(out)
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
	rollUps []any  // Opportunities to be summed up at the end of the save; nil: at once
	data    []byte // file bytes that came outside the JSON, for the next ContentVersion
	changes []change
	origin  string // of the changes, for their events
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
	t.noteChange(r, nil, values)
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
	t.o.tables[r.object.name].file(r, changes)
	t.undo = append(t.undo, func() { r.versions = before })
	t.noteChange(r, before[len(before)-1].values, values)
}
