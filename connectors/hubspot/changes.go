package hubspot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

const (
	searchRows = 200 // of one page of a search
	// historyBatch is how many deals are read with their histories at once.
	historyBatch = 50
	maxEntries   = 500
)

// Changes implements connectors.CRM.
//
// Each page is one search for deals by the time of their last change, with no filter on stage or pipeline: a deal that
// entered and left between two polls is found only by its history. Those that changed since they were last read are read
// with it. When nothing has happened within the look-back, a poll is one call.
//
// A merge gives a deal the histories of both deals that it is made of. Its entries are returned with the older IDs as
// aliases, however old they are; the value that the merge itself wrote is no entry. When a deal enters a stage and is
// merged, before it is polled, with one that entered the same stage earlier, the two cannot be told apart from one entry.
func (c *Connector) Changes(ctx context.Context, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	return c.changes(ctx, true, after, watches)
}

// Entries implements connectors.Historian. A deal that entered a stage at some time has changed then or since: search finds
// it whatever has become of it, and there is no sooner end than that of the list.
func (c *Connector) Entries(ctx context.Context, from, to time.Time, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	page, err := c.changes(ctx, false, after, connectors.NotBefore(from, watches))
	page.Entries = slices.DeleteFunc(page.Entries, func(e deal.Change) bool { return !e.At.Before(to) })
	return page, err
}

func (c *Connector) changes(ctx context.Context, poll bool, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	if len(watches) == 0 {
		return deal.Page{Next: after}, nil
	}
	for _, w := range watches {
		if _, err := c.on(w.Object); err != nil {
			return deal.Page{}, fmt.Errorf("hubspot: rule %s: %w", w.Rule, err)
		}
	}
	page, err := c.readRound(ctx, poll, after, watches)
	if err != nil {
		return deal.Page{}, fmt.Errorf("hubspot: read the stage history: %w", err)
	}
	return page, nil
}

func (c *Connector) readPage(ctx context.Context, seen *seen, after deal.Cursor, watches []deal.Watch) (deal.Page, error) {
	if err := ctx.Err(); err != nil {
		return deal.Page{}, err
	}
	if err := c.mayBegin(ctx); err != nil {
		return deal.Page{}, err
	}
	p, err := parsePosition(after.State)
	if err != nil {
		c.log.WarnContext(ctx, "the position inside the list of changed deals is damaged; the window is read again", "err", err)
	}
	s := c.resume(after, p, watches)
	if p.Watches != s.watches {
		p.Page = "" // what was read was not judged for these watches
	}
	seen.begin(p.Page)
	list, err := c.searchChanged(ctx, s)
	if err != nil {
		return deal.Page{}, err
	}
	if s.asOf.IsZero() {
		s.asOf = list.date
	}
	b := &builder{connector: c, seen: seen, scan: s, by: byStage(watches), more: list.more, now: list.date, read: map[int64]state{}}
	b.page.Quarantined = list.quarantined
	if err := b.add(ctx, list.rows); err != nil {
		return deal.Page{}, err
	}
	return b.finish(after), nil
}

// EntriesOf implements connectors.Direct. The search index may not know of a change for some time, and the deals themselves
// do: they are read with their histories, as Changes reads those that the index names. A deal that was merged into another
// has no history any more; that other one is found by Changes.
func (c *Connector) EntriesOf(ctx context.Context, refs []deal.Ref, watches []deal.Watch) (deal.Page, error) {
	if err := c.mayBegin(ctx); err != nil {
		return deal.Page{}, err
	}
	var all deal.Page
	objects := c.all(watches)
	for _, on := range objects {
		page, err := on.entriesOf(ctx, refs, on.kind.of(watches))
		if isHidden(err) && len(all.Refused) < len(objects)-1 { // as of a poll, which says so: it is no trouble of the others
			all.Refused = append(all.Refused, deal.RefusedObject{Object: on.kind.name, Why: err})
			continue
		}
		if err != nil {
			return deal.Page{}, err
		}
		all.Entries, all.Quarantined = append(all.Entries, page.Entries...), append(all.Quarantined, page.Quarantined...)
	}
	slices.SortStableFunc(all.Entries, func(x, y deal.Change) int { return x.At.Compare(y.At) })
	return all, nil
}

// entriesOf is EntriesOf for the records of one object.
func (c *Connector) entriesOf(ctx context.Context, refs []deal.Ref, watches []deal.Watch) (page deal.Page, err error) {
	var ids []int64
	for _, ref := range refs {
		if id, ok := parseID(ref.ID); ok && ref.Object == c.kind.name && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	by := byStage(watches)
	for batch := range slices.Chunk(ids, historyBatch) {
		found, _, err := c.histories(ctx, batch)
		if err != nil {
			return deal.Page{}, fmt.Errorf("hubspot: read the stage history of %d %s: %w", len(batch), c.kind.name, err)
		}
		for _, id := range batch {
			if h := found[id]; h != nil {
				entries, quarantined := h.judge(by, time.Time{})
				if len(entries) > 0 {
					c.fresh.expect(h)
				}
				page.Entries, page.Quarantined = append(page.Entries, entries...), append(page.Quarantined, quarantined...)
			}
		}
	}
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

// changed is a row of a search: a deal, and when it last changed as far as the index knows.
type changed struct {
	id       int64
	modified string
	at       time.Time // modified, zero when it cannot be read
}

// changedList is one page of a search.
type changedList struct {
	rows        []changed
	quarantined []deal.Quarantine
	more        bool
	date        time.Time
}

// filter is a condition of a search.
type filter struct {
	Property string `json:"propertyName"`
	Operator string `json:"operator"`
	Value    string `json:"value"`
}

// searchBody asks for the next deals of a scan. It pages by ID, because HubSpot gives no more than 10,000 results to one
// search, and because deals that change meanwhile would move the pages of an offset.
func searchBody(s scan) map[string]any {
	filters := []filter{{"hs_lastmodifieddate", "GTE", strconv.FormatInt(s.from.UnixMilli(), 10)}}
	if s.last > 0 {
		filters = append(filters, filter{"hs_object_id", "GT", strconv.FormatInt(s.last, 10)})
	}
	return map[string]any{
		"filterGroups": []map[string]any{{"filters": filters}},
		"sorts":        []map[string]string{{"propertyName": "hs_object_id", "direction": "ASCENDING"}},
		"properties":   []string{"hs_lastmodifieddate"},
		"limit":        searchRows,
	}
}

func (c *Connector) searchChanged(ctx context.Context, s scan) (changedList, error) {
	r, err := c.send(ctx, http.MethodPost, c.objects(c.kind.name)+"/search", search, searchBody(s))
	if err != nil {
		return changedList{}, err
	}
	list, err := parseSearch(r.body, s.last)
	if err != nil {
		return changedList{}, err
	}
	for i := range list.quarantined {
		list.quarantined[i].Ref.Object = c.kind.name
	}
	list.date = r.date
	return list, nil
}

// parseSearch reads the result of a search that was asked for deals after last. What cannot be read in a row does not
// spoil the others, but an order that is not the one that was asked for would lose deals.
func parseSearch(body []byte, last int64) (changedList, error) {
	var said struct {
		Total   int               `json:"total"`
		Results []json.RawMessage `json:"results"`
		Paging  struct {
			Next *struct{} `json:"next"`
		} `json:"paging"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Results == nil {
		return changedList{}, malformed("it is no result of a search")
	}
	if len(said.Results) > searchRows {
		return changedList{}, malformed("it has more deals than were asked for")
	}
	list := changedList{more: said.Paging.Next != nil || said.Total > len(said.Results)}
	for _, raw := range said.Results {
		row, ok := parseChanged(raw)
		switch {
		case !ok:
			list.quarantined = append(list.quarantined, deal.Quarantine{
				Row: rowName(raw), Reason: "search: a row has no ID that can be read",
			})
			continue
		case row.id <= last:
			return changedList{}, malformed("its deals are not in the order of their IDs")
		}
		last = row.id
		list.rows = append(list.rows, row)
	}
	if list.more && len(list.rows) == 0 {
		return changedList{}, malformed("it says that there are more deals and names none")
	}
	return list, nil
}

func parseChanged(raw json.RawMessage) (row changed, ok bool) {
	var said struct {
		ID         string             `json:"id"`
		Properties map[string]*string `json:"properties"`
	}
	if json.Unmarshal(raw, &said) != nil {
		return changed{}, false
	}
	id, ok := parseID(said.ID)
	if !ok {
		return changed{}, false
	}
	row = changed{id: id}
	if m := said.Properties["hs_lastmodifieddate"]; m != nil {
		row.modified = *m
		row.at, _ = parseTime(*m) // unreadable: the deal is read at every poll
	}
	return row, true
}

// rowName is a stable name for a row that has no readable ID.
func rowName(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:8])
}

// builder makes a page out of the deals of a search.
type builder struct {
	connector *Connector
	seen      *seen
	scan      scan
	by        map[string][]deal.Watch
	page      deal.Page
	more      bool
	now       time.Time // HubSpot's
	read      map[int64]state
}

// add reads the deals and takes in their entries until the page is full.
func (b *builder) add(ctx context.Context, rows []changed) error {
	for batch := range slices.Chunk(rows, historyBatch) {
		histories, date, err := b.connector.histories(ctx, b.unread(batch))
		if err != nil {
			return err
		}
		for _, row := range batch {
			if full := b.take(row, histories[row.id], date); full {
				b.more = true
				return nil
			}
		}
	}
	return nil
}

// unread are the deals that are to be read. Those that can wait come along where several are: that costs no call more.
func (b *builder) unread(batch []changed) []int64 {
	var now, later []int64
	for _, row := range batch {
		switch b.seen.of(row.id, row.modified, b.now) {
		case toRead:
			if b.seen.changed() {
				b.page.Changed = append(b.page.Changed, deal.Ref{Object: b.connector.kind.name, ID: strconv.FormatInt(row.id, 10)})
			}
			now = append(now, row.id)
		case isDue:
			now = append(now, row.id)
		case canWait:
			if b.late(row) {
				now = append(now, row.id)
			} else {
				later = append(later, row.id)
			}
		}
	}
	if len(now) > 1 {
		return append(now, later...)
	}
	return now
}

// late reports whether a deal must not wait. The next scan begins the look-back before this one: by then a deal may be listed
// no more, and of one that is, the entries from before its own look-back are passed over. So a deal waits only while its
// stamp is young, and after a scan that was made soon after the one before: polls may have been paused for hours, and our
// writes go on.
func (b *builder) late(row changed) bool {
	lookBack := b.connector.cfg.LookBack
	return b.now.IsZero() || b.now.Sub(row.at) > lookBack/2 || b.now.Sub(b.scan.from) > lookBack+lookBack/4
}

// take adds what one deal has to say; h is nil for one that was read before, that can wait, or that is gone.
func (b *builder) take(row changed, h *history, readAt time.Time) (full bool) {
	if row.at.After(b.scan.newest) {
		b.scan.newest = row.at
	}
	if h == nil {
		b.pass(row)
		return false
	}
	entries, quarantined := h.judge(b.by, b.scan.from.Add(-b.connector.cfg.LookBack))
	if len(entries) > 0 && b.seen == b.connector.seen {
		b.connector.fresh.expect(h)
	}
	skip := 0
	if b.scan.within == row.id {
		skip = min(b.scan.returned, len(entries))
	}
	left, room := entries[skip:], maxEntries-len(b.page.Entries)
	if len(left) > room {
		if len(b.page.Entries) > 0 {
			return true
		}
		b.page.Entries = left[:room]
		b.scan.within, b.scan.returned = row.id, skip+room
		return true
	}
	b.page.Entries = append(b.page.Entries, left...)
	b.page.Quarantined = append(b.page.Quarantined, quarantined...)
	// The Date header is cut to the second. Within that second the deal may have changed once more after it was read,
	// without another stamp.
	switch {
	case row.at.IsZero():
	case readAt.After(row.at):
		b.read[row.id] = state{modified: row.modified}
	case len(entries) > 0 && h.modified == row.modified && !readAt.IsZero(): // it has told what it is listed for
		b.read[row.id] = state{row.modified, readAt.Add(b.seen.putOff)}
	}
	b.pass(row)
	return false
}

func (b *builder) pass(row changed) {
	b.scan.last, b.scan.within, b.scan.returned = row.id, 0, 0
}

func (b *builder) finish(after deal.Cursor) deal.Page {
	slices.SortStableFunc(b.page.Entries, func(x, y deal.Change) int { return x.At.Compare(y.At) })
	name := b.seen.turn(b.read, b.more)
	if b.more {
		b.page.Next, b.page.More = b.scan.pause(after, name), true
		return b.page
	}
	b.page.Next = b.scan.finish(after, name)
	return b.page
}

// histories reads deals with the histories of their stage and pipeline. A deal that was archived or merged away since it
// was listed is left out; the deal that it was merged into is listed by itself.
func (c *Connector) histories(ctx context.Context, ids []int64) (map[int64]*history, time.Time, error) {
	if len(ids) == 0 {
		return nil, time.Time{}, nil
	}
	if len(ids) == 1 {
		h, date, found, err := c.historyAhead(ctx, ids[0])
		switch {
		case err != nil:
			return nil, time.Time{}, err
		case h != nil:
			return map[int64]*history{h.id: h}, date, nil
		case found:
			return nil, date, nil
		}
	}
	inputs := make([]map[string]string, len(ids))
	for i, id := range ids {
		inputs[i] = map[string]string{"id": strconv.FormatInt(id, 10)}
	}
	r, err := c.send(ctx, http.MethodPost, c.objects(c.kind.name)+"/batch/read", withToken, map[string]any{
		"inputs": inputs, "properties": append(c.kind.histories()[1:], mergedProperty, modifiedProperty), "propertiesWithHistory": c.kind.histories(),
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	results, err := parseBatch(r.body, len(ids))
	if err != nil {
		return nil, time.Time{}, err
	}
	found := map[int64]*history{}
	for _, raw := range results {
		h, err := c.kind.parseHistory(raw)
		if err != nil {
			return nil, time.Time{}, err
		}
		found[h.id] = h
	}
	return found, r.date, nil
}

// parseBatch returns the results of a batch/read of n inputs. Inputs may be missing from it only when HubSpot says that
// they do not exist; the status of a partial answer differs between the versions of the API, so the body alone counts.
func parseBatch(body []byte, n int) ([]json.RawMessage, error) {
	var said struct {
		Results []json.RawMessage `json:"results"`
		Errors  []struct {
			Category string `json:"category"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Results == nil {
		return nil, malformed("it is no result of a batch")
	}
	for _, e := range said.Errors {
		if e.Category != "OBJECT_NOT_FOUND" {
			return nil, &Error{Status: http.StatusMultiStatus, Category: matching(codeForm, e.Category), after: edgePause, cure: "HubSpot could not read some of the records"}
		}
	}
	if len(said.Results) > n || len(said.Results) < n && len(said.Errors) == 0 {
		return nil, malformed("it has %d records, %d were asked for", len(said.Results), n)
	}
	return said.Results, nil
}

// compareIDs orders IDs by number; what is no number comes last.
func compareIDs(a, b string) int {
	x, xOK := parseID(a)
	y, yOK := parseID(b)
	if xOK != yOK {
		return cmp.Compare(fmt.Sprint(!xOK), fmt.Sprint(!yOK))
	}
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
}
