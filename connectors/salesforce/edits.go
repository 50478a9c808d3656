package salesforce

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

const (
	// maxEdited is how many rows each query gives: whoever edits more at once has them found by the nightly pass.
	maxEdited = 500
	// maxQueries is how many of the calls in a composite one may be queries (Salesforce's own limit).
	maxQueries = 5
)

// Edited implements connectors.Edits: one query for records and their parents, and one for each list, all in one call. The
// history tells of stage, amount, probability and close date only, and the stamp of a record does not move with its parents.
//
// A record that we have written to last is left out, so that no receipt is taken for an edit: who edits a record in the moments
// before a receipt is found by the nightly pass. A line that was deleted leaves no row; Salesforce sums up the record then.
func (c *Connector) Edited(ctx context.Context, e connectors.EditsOf) (connectors.Edited, error) {
	edited, err := c.edited(ctx, e)
	if err != nil {
		edited.Next = e.From // what was shown so far is known, and the rest is asked for again
		return edited, fmt.Errorf("salesforce: see what others have edited: %w", err)
	}
	return edited, nil
}

func (c *Connector) edited(ctx context.Context, e connectors.EditsOf) (edited connectors.Edited, err error) {
	k, err := kindNamed(e.Object)
	if err != nil {
		return edited, err
	}
	queries, err := c.editQueries(ctx, k, e)
	if err != nil {
		return edited, err
	}
	edited.Next = e.From
	for some := range slices.Chunk(queries, maxQueries) {
		calls := make([]subCall, len(some))
		for i, q := range some {
			calls[i] = subCall{Method: http.MethodGet, URL: "query?q=" + url.QueryEscape(q.soql)}
		}
		replies, date, err := c.composite(ctx, calls)
		if err != nil {
			return edited, err
		}
		for i, r := range replies {
			if failed := c.takeEdits(&edited, k, some[i], r); err == nil {
				err = failed // the other replies are of their own
			}
		}
		if err != nil {
			return edited, err
		}
		if next := date.Add(-c.cfg.Overlap); next.After(edited.Next) {
			edited.Next = next
		}
	}
	c.edits.end(time.Time{})
	return edited, nil
}

// editQuery asks for rows that were edited.
type editQuery struct {
	soql   string
	record string   // the field of a row that is the ID of the record that it is of
	stamps []string // paths to when its parents were changed
	not    string   // whose changes of the row itself do not count
}

// keys names what a row shows: its own state, and that of each parent. A row that is shown for one is not new for another.
func (q editQuery) keys(id string, row map[string]any) (keys []string) {
	if by, _ := row[changedBy].(string); q.not == "" || by != q.not {
		keys = append(keys, fmt.Sprint(id, " ", row[stampField]))
	}
	for _, path := range q.stamps {
		parents := map[string]any{}
		pick(parents, row, strings.Split(path, "."))
		keys = append(keys, fmt.Sprint(id, " ", parents))
	}
	return keys
}

func (c *Connector) editQueries(ctx context.Context, k kind, e connectors.EditsOf) ([]editQuery, error) {
	me, err := c.ourselves(ctx)
	if err != nil {
		return nil, err
	}
	selected, err := c.selectPaths(ctx, k, e.Fields)
	if err != nil {
		return nil, err
	}
	if e.Bearing != "" {
		f, err := c.schema.field(ctx, k.name, e.Bearing)
		if err != nil {
			return nil, err
		}
		if f.Type == "textarea" { // no condition can name it
			e.Bearing = ""
		}
	}
	stamps, err := c.parentStamps(ctx, k.name, selected.fields)
	if err != nil {
		return nil, err
	}
	from := e.From.UTC().Format(queryTime)
	own := "(" + stampField + " >= " + from + " AND " + changedBy + " != " + quote(me) + ")"
	queries := []editQuery{{soql: editSOQL(k.name, []string{changedBy}, stamps, own, from, e.Bearing), record: "Id", stamps: stamps, not: me}}
	for _, name := range slices.Sorted(maps.Keys(selected.lists)) {
		q, err := c.listEdits(ctx, k, name, selected.lists[name].fields, from, e.Bearing)
		if err != nil {
			return nil, err
		}
		if q.soql != "" {
			queries = append(queries, q)
		}
	}
	return queries, nil
}

// stampField moves with every change of a row, and changedField of a parent with those that somebody makes: a user's
// stamp moves with each login.
const (
	stampField   = "SystemModstamp"
	changedField = "LastModifiedDate"
	changedBy    = "LastModifiedById"
)

// listEdits asks for the rows of a list; there is no query for one whose rows do not say when they were changed.
func (c *Connector) listEdits(ctx context.Context, k kind, name string, fields []string, from, bearing string) (q editQuery, err error) {
	o, err := c.schema.object(ctx, k.name, func(o *sobject) bool { return o.children[name] != "" })
	if err != nil {
		return q, err
	}
	rows, err := c.schema.object(ctx, o.children[name], anything)
	if err != nil {
		return q, err
	}
	link := rows.fields[o.links[name]]
	if _, stamped := rows.fields[stampField]; !stamped || link.Name == "" || name == filesList {
		return q, nil
	}
	stamps, err := c.parentStamps(ctx, rows.Name, fields)
	if err != nil {
		return q, err
	}
	if bearing != "" && link.RelationshipName != "" && slices.Equal(link.ReferenceTo, []string{k.name}) {
		bearing = link.RelationshipName + "." + bearing
	} else {
		bearing = link.Name // rows of no record are nobody's, and could not be read
	}
	return editQuery{soql: editSOQL(rows.Name, []string{link.Name}, stamps, stampField+" >= "+from, from, bearing), record: link.Name, stamps: stamps}, nil
}

// parentStamps are the paths to when the parents were changed through which fields of an object are reached.
func (c *Connector) parentStamps(ctx context.Context, object string, fields []string) (paths []string, err error) {
	for _, path := range fields {
		at := object
		segments := strings.Split(path, ".")
		for i, name := range segments[:len(segments)-1] {
			if at, _, err = c.schema.relationship(ctx, at, name); err != nil {
				return nil, err
			}
			o, err := c.schema.object(ctx, at, anything)
			if err != nil {
				return nil, err
			}
			if _, told := o.fields[changedField]; told {
				paths = append(paths, strings.Join(segments[:i+1], ".")+"."+changedField)
			}
		}
	}
	return sortedSet(paths), nil
}

// editSOQL asks for rows that were edited themselves, as own says, or whose parents were.
func editSOQL(object string, columns, stamps []string, own, from, bearing string) string {
	edited := []string{own}
	for _, path := range stamps {
		edited = append(edited, path+" >= "+from)
	}
	where := "(" + strings.Join(edited, " OR ") + ")"
	if bearing != "" {
		where = bearing + " != null AND " + where
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE %s LIMIT %d", strings.Join(slices.Concat([]string{"Id", stampField}, columns, stamps), ", "), object, where, maxEdited)
}

// takeEdits reads a reply. Rows that an earlier question has shown as they are now are passed over: the windows overlap.
func (c *Connector) takeEdits(edited *connectors.Edited, k kind, q editQuery, r subReply) error {
	if r.err != nil {
		return r.err
	}
	var page struct {
		Records []map[string]any `json:"records"`
		Done    *bool            `json:"done"`
	}
	if err := decodeExact(r.body, &page); err != nil || page.Records == nil || page.Done == nil {
		return malformed("it is no query result")
	}
	edited.More = edited.More || !*page.Done || len(page.Records) == maxEdited
	for _, row := range page.Records {
		id, err := idField(row["Id"])
		if err != nil {
			return malformed("a row has no ID")
		}
		record, err := idField(row[q.record])
		if err != nil {
			return malformed("a row does not name its record")
		}
		isNew := false
		for _, key := range q.keys(id, row) {
			isNew = c.edits.isNew(key) || isNew
		}
		if ref := (deal.Ref{Object: k.name, ID: record}); isNew && !slices.Contains(edited.Refs, ref) {
			edited.Refs = append(edited.Refs, ref)
		}
	}
	return nil
}

// ourselves is the ID of our user, which is asked for once.
func (c *Connector) ourselves(ctx context.Context) (string, error) {
	if known := c.user.Load(); known != nil {
		return *known, nil
	}
	me, err := c.me(ctx)
	if err == nil {
		c.user.Store(&me)
	}
	return me, err
}
