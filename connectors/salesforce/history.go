package salesforce

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
// Every edit of amount, close date or probability writes a history row too, so a row is an entry only if the row before
// it of the same Opportunity has another stage; that one may lie before the window and is then asked for. The query has
// no filter on the stage for the same reason. When nothing has happened within the overlap, a poll is one call.
func (c *Connector) Changes(ctx context.Context, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	return c.changes(ctx, time.Time{}, after, watches)
}

// Entries implements connectors.Historian.
func (c *Connector) Entries(ctx context.Context, from, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	return c.changes(ctx, to, after, connectors.NotBefore(from, watches))
}

// changes reads a page of the history before to; the zero time is no end.
func (c *Connector) changes(ctx context.Context, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	if len(watches) == 0 {
		return deal.Page{Next: after}, nil
	}
	for _, w := range watches {
		if w.Object != Object {
			return deal.Page{}, fmt.Errorf("salesforce: rule %s: %w", w.Rule,
				refuse("object %q cannot be watched: only %s has a stage history in every org", w.Object, Object))
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
		return deal.Page{}, fmt.Errorf("salesforce: read the stage history: %w", noHistory(err))
	}
	return page, nil
}

func (c *Connector) readPage(ctx context.Context, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	s := c.resume(after, watches)
	s.to = to
	rows, more, asOf, err := c.historyRows(ctx, s)
	if err != nil {
		return deal.Page{}, err
	}
	if s.asOf.IsZero() {
		s.asOf = asOf
	}
	by := byStage(watches)
	earlier, err := c.stagesBefore(ctx, rows, by)
	if err != nil {
		return deal.Page{}, err
	}

	var page deal.Page
	start := s.last
	for i, row := range rows {
		entries, quarantined := judge(row, earlier[i], by)
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
	}
	if !more {
		page.Next = s.finish(after)
		return page, nil
	}
	if s.last == start {
		return deal.Page{}, &Error{class: permanent, cure: fmt.Sprintf(
			"%d rows in sequence have no ID and date that can be read: check api_version", len(rows))}
	}
	page.Next, page.More = s.pause(after), true
	return page, nil
}

// byStage sorts the watches by the stage that they are for.
func byStage(watches []deal.Watch) map[string][]deal.Watch {
	m := map[string][]deal.Watch{}
	for _, w := range watches {
		m[w.Stage] = append(m[w.Stage], w)
	}
	return m
}

// historyRow is a row of OpportunityHistory. What could not be read is empty, and err says what that was.
type historyRow struct {
	id, opportunity, stage, by string
	at                         time.Time
	err                        error
	name                       string // what a quarantine calls the row
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
	rows, done, err := parseHistory(r.body)
	return rows, !done || len(rows) == pageRows, r.asOf, err
}

// parseHistory reads a query's reply.
func parseHistory(body []byte) (rows []historyRow, done bool, err error) {
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
	for _, raw := range page.Records {
		rows = append(rows, parseHistoryRow(raw))
	}
	return rows, *page.Done, nil
}

func historyQuery(s scan) string {
	where := "CreatedDate >= " + s.from.Format(queryTime)
	if s.last != (position{}) {
		// Bulk updates share one stamp: without the ID a page border inside them would lose the rest.
		at := s.last.at.Format(queryTime)
		where = "CreatedDate >= " + at + " AND (CreatedDate > " + at + " OR Id > " + quote(s.last.id) + ")"
	}
	if !s.to.IsZero() {
		where += " AND CreatedDate < " + s.to.Format(queryTime)
	}
	return fmt.Sprintf("SELECT Id, OpportunityId, StageName, CreatedDate, CreatedById FROM OpportunityHistory WHERE %s ORDER BY CreatedDate, Id LIMIT %d",
		where, pageRows)
}

// parseHistoryRow reads one row and never fails as a whole: what can be read is needed to say which row it was, and to
// judge the row after it.
func parseHistoryRow(raw json.RawMessage) historyRow {
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
	if row.opportunity, err = idField(fields["OpportunityId"]); err != nil {
		bad("OpportunityId", err)
	}
	if row.stage, _ = fields["StageName"].(string); row.stage == "" {
		bad("StageName", errors.New("is missing"))
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

// stageBefore is what is known of the row before a row of the same Opportunity.
type stageBefore struct {
	// stage is empty when there is no row before.
	stage string
	// unknown says why the row before cannot be judged.
	unknown string
}

// judge decides what a row is: entries, nothing, or something that a person must look at.
func judge(row historyRow, before stageBefore, by map[string][]deal.Watch) ([]deal.Change, *deal.Quarantine) {
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
			Ref: deal.Ref{Object: Object, ID: row.opportunity}, Row: row.name,
			Reason: "OpportunityHistory: " + strings.ReplaceAll(reason, "\n", "; "), At: row.at,
		}
	}
	var entries []deal.Change
	for _, w := range by[row.stage] {
		if row.at.Before(w.Since) {
			continue
		}
		entries = append(entries, deal.Change{
			Rule: w.Rule, Ref: deal.Ref{Object: Object, ID: row.opportunity}, Stage: row.stage,
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
		known, seen := last[row.opportunity]
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
		if row.opportunity != "" {
			last[row.opportunity] = stageOf(row.stage)
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
		open[rows[i].opportunity] = &want{place: i}
		ids = append(ids, rows[i].opportunity)
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
