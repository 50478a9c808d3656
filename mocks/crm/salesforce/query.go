package salesforce

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	minPage = 200
	maxPage = 2000
	// cursorLife is how long a query locator is good for.
	cursorLife = 48 * time.Hour
	// maxCursors bounds what the org remembers; the oldest goes first.
	maxCursors = 200
)

// cursor is the rest of a query's result.
type cursor struct {
	plan   *plan
	binder *binder // its time is the query's
	rows   []*row
	page   int
	serial uint64
}

func (c *call) query() reply {
	q, err := parseSOQL(c.r.URL.Query().Get("q"))
	if err != nil {
		return err.reply()
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	b := &binder{o: c.o, now: c.o.now(), deleted: c.segs[0] == "queryAll", version: c.version}
	p, err := b.bind(q)
	if err != nil {
		return err.reply()
	}
	if v := c.r.URL.Query().Get("columns"); v == "true" {
		return jsonReply(200, c.columns(p))
	}
	rows := p.cut(b.rows(p))
	if q.count {
		return jsonReply(200, ordered{{"totalSize", len(rows)}, {"done", true}, {"records", []any{}}})
	}
	return c.page(&cursor{plan: p, binder: b, rows: rows, page: c.pageSize()}, "", 0)
}

// columns describes the columns of a result, one level deep.
func (c *call) columns(p *plan) ordered {
	list := []any{}
	for _, part := range p.shape.parts {
		if part.field == nil || part.nested != nil {
			continue
		}
		f := part.field
		list = append(list, ordered{
			{"aggregate", false}, {"apexType", f.apexType()}, {"booleanType", f.Type == TypeBoolean}, {"columnName", f.Name},
			{"custom", f.custom()}, {"displayName", f.Name}, {"foreignKeyName", nil}, {"insertable", c.o.editable(p.def, f)},
			{"joinColumns", []any{}}, {"numberType", f.numeric() || f.Type == TypeInt}, {"textType", f.soapType() == "xsd:string"},
			{"updatable", c.o.editable(p.def, f) && !f.CreateOnly},
		})
	}
	return ordered{{"columnMetadata", list}, {"entityName", p.def.name}, {"groupBy", false}, {"idSelected", true}, {"keyPrefix", p.def.prefix}}
}

// batchSize is the form of the header that asks for another page size.
var batchSize = regexp.MustCompile(`(?i)batchSize\s*=\s*(\d+)`)

func (c *call) pageSize() int {
	size := c.o.opt.PageSize
	if m := batchSize.FindStringSubmatch(c.r.Header.Get("Sforce-Query-Options")); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			size = min(size, max(minPage, min(n, maxPage)))
		}
	}
	return size
}

// page answers with the rows from the offset on, as they are now; an empty
// locator is made when more remain.
func (c *call) page(cur *cursor, locator string, offset int) reply {
	end := min(offset+cur.page, len(cur.rows))
	out := ordered{{"totalSize", len(cur.rows)}, {"done", end == len(cur.rows)}}
	if end < len(cur.rows) {
		if locator == "" {
			locator = c.o.keepCursor(cur)
		}
		out = append(out, member{"nextRecordsUrl", fmt.Sprintf("/services/data/v%s/%s/%s-%d", c.version, c.segs[0], locator, end)})
	}
	b := *cur.binder
	b.now = c.o.now()
	w := &renderer{&b}
	records := make([]ordered, 0, end-offset)
	for _, r := range cur.rows[offset:end] {
		records = append(records, w.record(cur.plan.shape, r))
	}
	return jsonReply(200, append(out, member{"records", records}))
}

func (o *Org) keepCursor(cur *cursor) string {
	if len(o.cursors) >= maxCursors {
		oldest := ""
		for id, c := range o.cursors {
			if oldest == "" || c.serial < o.cursors[oldest].serial {
				oldest = id
			}
		}
		delete(o.cursors, oldest)
	}
	id := o.newID("0r8")
	cur.serial = o.serial
	o.cursors[id] = cur
	return id
}

func (c *call) queryMore() reply {
	bad := &Error{Status: 400, Code: "INVALID_QUERY_LOCATOR", Message: "invalid query locator"}
	locator, at, ok := strings.Cut(c.segs[1], "-")
	offset, err := strconv.Atoi(at)
	id, valid := canonicalID(locator)
	if !ok || err != nil || !valid {
		return bad.reply()
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	cur := c.o.cursors[id]
	if cur == nil || offset < 0 || offset >= len(cur.rows) || c.o.now().Sub(cur.binder.now) > cursorLife {
		return bad.reply()
	}
	return c.page(cur, id, offset)
}
