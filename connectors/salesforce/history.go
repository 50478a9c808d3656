package salesforce

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/simpleforce/simpleforce"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// pageRows is how many history rows are read at once, and maxEntries how many entries a page may have: a row is an entry
// for each rule that watches its stage.
const (
	pageRows   = 500
	maxEntries = 500
	// inBatch is how many IDs fit into one IN well below the limit of a URL.
	inBatch = 200
)

// Changes implements connectors.CRM.
//
// Every edit of amount, close date or probability of an Opportunity writes a history row too, so a row is an entry only if
// the row before it of the same Opportunity has another stage; that one may lie before the window and is then asked for. The
// query has no filter on the stage for the same reason. The rows of tracked fields are each an entry. When nothing has
// happened within the overlap, a poll is one call for each object that is watched. Of objects without a history it returns what
// their records show now, see readSightings.
func (c *Connector) Changes(ctx context.Context, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	return c.changes(ctx, time.Time{}, after, watches)
}

// Entries implements connectors.Historian. Watches without a history have no entries here.
func (c *Connector) Entries(ctx context.Context, from, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	return c.changes(ctx, to, after, connectors.NotBefore(from, withHistory(watches)))
}

// changes reads a page of the history before to; the zero time is no end.
func (c *Connector) changes(ctx context.Context, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	if len(watches) == 0 {
		return deal.Page{Next: after}, nil
	}
	for _, w := range watches {
		if _, err := kindNamed(w.Object); err != nil {
			return deal.Page{}, fmt.Errorf("salesforce: rule %s: %w", w.Rule, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return deal.Page{}, fmt.Errorf("salesforce: read the stage history: %w", err)
	}
	if err := c.wire.gauge.mayBegin(); err != nil {
		return deal.Page{}, fmt.Errorf("salesforce: read the stage history: %w", err)
	}
	page, err := c.readPage(ctx, to, after, watches)
	if err != nil {
		return deal.Page{}, fmt.Errorf("salesforce: read the stage history: %w", err)
	}
	return page, nil
}

// readPage reads the history of one object after the other: a page has rows of one of them, or is the last.
func (c *Connector) readPage(ctx context.Context, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	s := c.resume(after, watches)
	s.to = to
	var changed []deal.Ref
	var refused []deal.RefusedObject
	for {
		page, more, err := c.readRows(ctx, &s, watches)
		if err != nil {
			if !isSnapshot(s.kind, watches) {
				err = noHistory(s.kind, err)
			}
			if !s.goesOnWithout(err, watches) {
				return deal.Page{}, err
			}
			s.refused, refused = append(s.refused, s.kind.name), append(refused, deal.RefusedObject{Object: s.kind.name, Why: err})
			page, more = deal.Page{}, false
		}
		changed = append(changed, page.Changed...)
		page.Changed, page.Refused = changed, refused
		if !more {
			if more = s.turn(watches); !more {
				page.Next, page.Unread = s.finish(after, c.cfg.Overlap), slices.Sorted(maps.Keys(s.places))
				c.listed.end(to)
				return page, nil
			}
			if len(page.Entries)+len(page.Quarantined)+len(page.Sightings) == 0 {
				continue
			}
		}
		page.Next, page.More = s.pause(after), true
		return page, nil
	}
}

// goesOnWithout reports whether a poll goes on with the histories of other objects: what is refused for good of one is no
// trouble of theirs. A pass over a stretch of time is read as a whole, or says why not; so is a poll of which nothing is left.
func (s scan) goesOnWithout(err error, watches []deal.Watch) bool {
	if !isMisfit(err) || !s.to.IsZero() || isUnclear(err) {
		return false
	}
	watched := 0
	for _, k := range kinds {
		if len(of(k, watches)) > 0 {
			watched++
		}
	}
	return watched > len(s.refused)+1
}

// readRows reads rows of the history that the scan is at, and moves the scan behind them. more says that there may be others.
func (c *Connector) readRows(ctx context.Context, s *scan, watches []deal.Watch) (page deal.Page, more bool, err error) {
	if isSnapshot(s.kind, watches) {
		return c.readSightings(ctx, s)
	}
	if err := c.checkTracking(ctx, s.kind); err != nil {
		return page, false, err
	}
	rows, more, asOf, err := c.historyRows(ctx, *s)
	if err != nil {
		return page, false, err
	}
	if s.asOf.IsZero() {
		s.asOf = asOf
	}
	by := byStage(s.kind, watches)
	var earlier []stageBefore
	if s.kind.tracked {
		earlier, err = make([]stageBefore, len(rows)), c.nameStages(ctx, s.kind, rows, earliest(of(s.kind, watches)))
	} else {
		earlier, err = c.stagesBefore(ctx, rows, by)
	}
	if err != nil {
		return page, false, err
	}

	start := s.last
	for i, row := range rows {
		entries, quarantined := judge(s.kind, row, earlier[i], by)
		if len(page.Entries) > 0 && len(page.Entries)+len(entries) > maxEntries {
			more = true
			break
		}
		page.Entries = append(page.Entries, entries...)
		if quarantined != nil {
			page.Quarantined = append(page.Quarantined, *quarantined)
		}
		if row.placed() {
			s.last = row.position()
		}
		if row.record != "" && s.to.IsZero() && c.listed.isNew(row.name) {
			page.Changed = append(page.Changed, deal.Ref{Object: s.kind.name, ID: row.record})
		}
	}
	if more && s.last == start {
		return page, false, unplaced(len(rows))
	}
	return page, more, nil
}

// unplaced is the error of a page of which no row says where the next page begins.
func unplaced(rows int) error {
	return &Error{class: permanent, cure: fmt.Sprintf("%d rows in sequence have no ID and date that can be read: check api_version", rows)}
}

// of are the watches for an object.
func of(k kind, watches []deal.Watch) (its []deal.Watch) {
	for _, w := range watches {
		if w.Object == k.name {
			its = append(its, w)
		}
	}
	return its
}

// byStage sorts the watches for an object by the stage that they are for.
func byStage(k kind, watches []deal.Watch) map[string][]deal.Watch {
	m := map[string][]deal.Watch{}
	for _, w := range of(k, watches) {
		m[w.Stage] = append(m[w.Stage], w)
	}
	return m
}

// historyRow is a row of a history. What could not be read is empty, and err says what that was.
type historyRow struct {
	id, record, stage, by string
	made                  bool // of a history of fields: it says that the record was made, and not in which stage
	at                    time.Time
	err                   error
	name                  string // what a quarantine calls the row
}

// placed reports whether the row's place in the order is known.
func (r historyRow) placed() bool { return r.id != "" && !r.at.IsZero() }

func (r historyRow) position() position { return position{r.at, r.id} }

// historyRows reads the rows after the scan's last one. more says that there may be others behind them: Salesforce may
// send fewer rows at once than were asked for.
func (c *Connector) historyRows(ctx context.Context, s scan) (rows []historyRow, more bool, asOf time.Time, err error) {
	r, err := c.query(ctx, historyQuery(s))
	if err != nil {
		return nil, false, time.Time{}, err
	}
	rows, done, err := parseHistory(s.kind, r.body)
	return rows, !done || len(rows) == pageRows, r.asOf, err
}

// parseHistory reads a query's reply.
func parseHistory(k kind, body []byte) (rows []historyRow, done bool, err error) {
	raws, done, err := queryRows(body)
	for _, raw := range raws {
		rows = append(rows, parseHistoryRow(k, raw))
	}
	return rows, done, err
}

// queryRows reads the rows of a reply, of which at most pageRows were asked for.
func queryRows(body []byte) (rows []json.RawMessage, done bool, err error) {
	var page struct {
		Records []json.RawMessage `json:"records"`
		Done    *bool             `json:"done"`
	}
	if err := json.Unmarshal(body, &page); err != nil || page.Records == nil || page.Done == nil {
		return nil, false, malformed("it is no query result")
	}
	if len(page.Records) > pageRows || len(page.Records) == 0 && !*page.Done {
		return nil, false, malformed("it has too many rows, or none and is not the last page")
	}
	return page.Records, *page.Done, nil
}

func historyQuery(s scan) string {
	where := "CreatedDate >= " + s.start().Format(queryTime)
	if s.last != (position{}) {
		// Bulk updates share one stamp: without the ID a page border inside them would lose the rest.
		at := s.last.at.Format(queryTime)
		where = "CreatedDate >= " + at + " AND (CreatedDate > " + at + " OR Id > " + quote(s.last.id) + ")"
	}
	if !s.to.IsZero() {
		where += " AND CreatedDate < " + s.to.Format(queryTime)
	}
	columns := s.kind.stage
	if s.kind.tracked {
		columns = "Field, NewValue"
		where = "Field IN (" + quote(s.kind.stage) + "," + quote(madeField) + ") AND " + where
	}
	return fmt.Sprintf("SELECT Id, %s, %s, CreatedDate, CreatedById FROM %s WHERE %s ORDER BY CreatedDate, Id LIMIT %d",
		s.kind.parent(), columns, s.kind.history(), where, pageRows)
}

// parseHistoryRow reads one row and never fails as a whole: what can be read is needed to say which row it was, and to
// judge the row after it.
func parseHistoryRow(k kind, raw json.RawMessage) historyRow {
	row := historyRow{name: rowName(raw)}
	var errs []error
	bad := func(field string, err error) { errs = append(errs, fmt.Errorf("%s %w", field, err)) }
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		row.err = errors.New("the row is no object")
		return row
	}
	var err error
	if row.id, err = idField(fields["Id"]); err != nil {
		bad("Id", err)
	} else {
		row.name = row.id
	}
	if row.record, err = idField(fields[k.parent()]); err != nil {
		bad(k.parent(), err)
	}
	if k.tracked {
		if row.stage, row.made, err = trackedStage(k, fields); err != nil {
			bad("the row", err)
		}
	} else if row.stage, _ = fields[k.stage].(string); row.stage == "" {
		bad(k.stage, errors.New("is missing"))
	}
	date, _ := fields["CreatedDate"].(string)
	if row.at, err = parseTime(date); err != nil {
		bad("CreatedDate", err)
	}
	row.by, _ = idField(fields["CreatedById"]) // for show only
	row.err = errors.Join(errs...)
	return row
}

func idField(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", errors.New("is missing")
	}
	return CanonicalID(s)
}

// rowName is a stable name for a row that has no readable ID.
func rowName(raw []byte) string {
	sum := sha256.Sum256(bytes.TrimSpace(raw))
	return "sha256:" + hex.EncodeToString(sum[:8])
}

// stageBefore is what is known of the row before a row of the same record.
type stageBefore struct {
	// stage is empty when there is no row before.
	stage string
	// unknown says why the row before cannot be judged.
	unknown string
}

// judge decides what a row is: entries, nothing, or something that a person must look at.
func judge(k kind, row historyRow, before stageBefore, by map[string][]deal.Watch) ([]deal.Change, *deal.Quarantine) {
	reason := ""
	switch {
	case row.err != nil:
		reason = row.err.Error()
	case !watched(row, by) || before.unknown == "" && before.stage == row.stage:
		return nil, nil
	case before.unknown != "":
		reason = before.unknown
	}
	if reason != "" {
		return nil, &deal.Quarantine{
			Ref: deal.Ref{Object: k.name, ID: row.record}, Row: row.name,
			Reason: k.history() + ": " + strings.ReplaceAll(reason, "\n", "; "), At: row.at,
		}
	}
	var entries []deal.Change
	for _, w := range by[row.stage] {
		if row.at.Before(w.Since) {
			continue
		}
		entries = append(entries, deal.Change{
			Rule: w.Rule, Ref: deal.Ref{Object: k.name, ID: row.record}, Stage: row.stage,
			Occurrence: row.id, At: row.at, By: row.by,
		})
	}
	return entries, nil
}

// watched reports whether a row could be an entry for any rule.
func watched(row historyRow, by map[string][]deal.Watch) bool {
	for _, w := range by[row.stage] {
		if !row.at.Before(w.Since) {
			return true
		}
	}
	return false
}

// stagesBefore finds the stage before each row, as far as it matters: rows that could be entries.
func (c *Connector) stagesBefore(ctx context.Context, rows []historyRow, by map[string][]deal.Watch) ([]stageBefore, error) {
	before := make([]stageBefore, len(rows))
	last := map[string]stageBefore{} // by Opportunity
	var ask []int
	for i, row := range rows {
		known, seen := last[row.record]
		switch {
		case seen:
			before[i] = known
		case row.err == nil && watched(row, by):
			if known, ok := c.before.get(row.id); ok {
				before[i] = known
			} else {
				ask = append(ask, i)
			}
		}
		if row.record != "" {
			last[row.record] = stageOf(row.stage)
		}
	}
	for len(ask) > 0 {
		n := min(len(ask), inBatch)
		if err := c.askBefore(ctx, rows, ask[:n], before); err != nil {
			return nil, err
		}
		ask = ask[n:]
	}
	return before, nil
}

func stageOf(name string) stageBefore {
	if name == "" {
		return stageBefore{unknown: "the row before it has no StageName that can be read"}
	}
	return stageBefore{stage: name}
}

// askBefore asks for the rows before those at the given places, one Opportunity each, newest first. The order of IDs is
// the server's: the row after the row itself is the one before it, whatever collation Salesforce uses.
func (c *Connector) askBefore(ctx context.Context, rows []historyRow, ask []int, before []stageBefore) error {
	type want struct {
		place int
		found bool // the row itself was seen: the next of its Opportunity is the answer
	}
	open := map[string]*want{}
	var ids []string
	var newest time.Time
	for _, i := range ask {
		open[rows[i].record] = &want{place: i}
		ids = append(ids, rows[i].record)
		if rows[i].at.After(newest) {
			newest = rows[i].at
		}
	}
	soql := "SELECT Id, OpportunityId, StageName FROM OpportunityHistory WHERE OpportunityId IN " + quoteAll(ids) +
		" AND CreatedDate <= " + newest.Format(queryTime) + " ORDER BY CreatedDate DESC, Id DESC"
	err := c.eachPage(ctx, soql, func(page []simpleforce.SObject, _ time.Time) bool {
		for _, row := range page {
			opportunity, _ := idField(row["OpportunityId"])
			w := open[opportunity]
			if w == nil {
				continue
			}
			id, _ := idField(row["Id"])
			switch {
			case w.found:
				before[w.place] = stageOf(row.StringField("StageName"))
				delete(open, opportunity)
				c.before.put(rows[w.place].id, before[w.place])
			case id == rows[w.place].id:
				w.found = true
			}
		}
		return len(open) > 0
	})
	if err != nil {
		return err
	}
	for _, w := range open {
		if !w.found {
			before[w.place] = stageBefore{unknown: "the row vanished while it was being read"}
			continue
		}
		c.before.put(rows[w.place].id, before[w.place]) // the first row of its Opportunity
	}
	return nil
}

// listed remembers the rows that polls have read, which they read again inside the overlap. One that it does not know is a
// change of its record: of a stage, an amount, a date. What else changes leaves no row.
type listed struct {
	mu   sync.Mutex
	rows map[string]bool
	// knows is set once all of the overlap was read.
	knows bool
}

// isNew takes note of a row, and reports whether it tells of a change.
func (l *listed) isNew(row string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rows) >= maxPredecessors {
		clear(l.rows)
		l.knows = false // what is read again is no change
	}
	if l.rows == nil {
		l.rows = map[string]bool{}
	}
	is := l.knows && !l.rows[row]
	l.rows[row] = true
	return is
}

// end is for a poll that has read to the end; to is zero for one.
func (l *listed) end(to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.knows = l.knows || to.IsZero()
}

// predecessors remembers answers of askBefore for the polls that read the same rows again inside the overlap. What comes
// before a row never changes: a transaction that writes history holds the Opportunity's lock until it commits.
type predecessors struct {
	mu    sync.Mutex
	known map[string]stageBefore
}

const maxPredecessors = 20_000

func newPredecessors() *predecessors { return &predecessors{known: map[string]stageBefore{}} }

func (p *predecessors) get(row string) (stageBefore, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.known[row]
	return b, ok
}

func (p *predecessors) put(row string, b stageBefore) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxPredecessors {
		clear(p.known) // they are asked for again
	}
	p.known[row] = b
}
