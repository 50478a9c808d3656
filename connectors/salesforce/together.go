package salesforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

const (
	// maxTogether is how many records one query reads: their IDs take a fifth of what a URL may be long.
	maxTogether = 100
	// maxSubCalls is how many calls a composite one has (Salesforce's own limit).
	maxSubCalls = 25
	// maxUploads is how many deals' files go into one composite call, with at most maxPieces each and one query.
	maxUploads = 12
	maxPieces  = 2
	// maxPiece is how large such a file may be: it is base64 in JSON there. Larger ones are streamed, each by itself.
	maxPiece = 256 << 10
)

// recordRow is a record as a query gives it, and the CRM's time of that.
type recordRow struct {
	row  map[string]any
	date time.Time
}

// askRecords reads the same columns of several records; what names them and the object they are of.
func (c *Connector) askRecords(ctx context.Context, what string, ids []string) []connectors.Answer[recordRow] {
	return allOrEach(ctx, ids, mayBeOnes, func(ctx context.Context, ids []string) ([]connectors.Answer[recordRow], error) {
		found := map[string]recordRow{}
		err := c.eachRow(ctx, "SELECT "+what+" WHERE Id "+inList(ids), func(row map[string]any, date time.Time) error {
			id, err := idField(row["Id"])
			if err != nil {
				return malformed("a record has no ID")
			}
			found[id] = recordRow{row, date}
			return nil
		})
		if err != nil {
			return nil, err
		}
		answers := make([]connectors.Answer[recordRow], len(ids))
		for i, id := range ids {
			var ok bool
			if answers[i].Value, ok = found[id]; !ok {
				answers[i].Err = deal.ErrGone
			}
		}
		return answers, nil
	})
}

// askLinks reads which files several records have.
func (c *Connector) askLinks(ctx context.Context, _ string, ids []string) []connectors.Answer[[]map[string]any] {
	return allOrEach(ctx, ids, mayBeOnes, func(ctx context.Context, ids []string) ([]connectors.Answer[[]map[string]any], error) {
		found := map[string][]map[string]any{}
		columns := append(c.linkColumns(), "LinkedEntityId")
		err := c.eachRow(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM ContentDocumentLink WHERE LinkedEntityId "+inList(ids), func(row map[string]any, _ time.Time) error {
			id, err := idField(row["LinkedEntityId"])
			if err != nil {
				return malformed("a link to a file has no record")
			}
			found[id] = append(found[id], row)
			return nil
		})
		if err != nil {
			return nil, err
		}
		answers := make([]connectors.Answer[[]map[string]any], len(ids))
		for i, id := range ids {
			answers[i].Value = found[id]
		}
		return answers, nil
	})
}

// inList is the condition for one or several quoted values.
func inList(ids []string) string {
	if len(ids) == 1 {
		return "= " + quote(ids[0])
	}
	return "IN " + quoteAll(sortedSet(append([]string(nil), ids...)))
}

// eachRow runs a query and reads all its pages; numbers keep their digits.
func (c *Connector) eachRow(ctx context.Context, soql string, use func(row map[string]any, date time.Time) error) error {
	r, err := c.query(ctx, soql)
	for range maxQueryPages {
		if err != nil {
			return err
		}
		var page struct {
			Records []map[string]any `json:"records"`
			Done    *bool            `json:"done"`
			Next    string           `json:"nextRecordsUrl"`
		}
		if err := decodeExact(r.body, &page); err != nil || page.Records == nil || page.Done == nil {
			return malformed("it is no query result")
		}
		for _, row := range page.Records {
			if err := use(row, r.date); err != nil {
				return err
			}
		}
		if *page.Done {
			return nil
		}
		if !isLocator(page.Next) {
			return malformed("it is not the last page and names no next one")
		}
		r, err = c.call(ctx, http.MethodGet, strings.TrimPrefix(page.Next, "/"), nil, nil)
	}
	return malformed("the query has more than %d pages", maxQueryPages)
}

// allOrEach asks all questions at once. What a call for several is refused for may be the fault of one of them: then each
// is asked by itself, so that it is no other's trouble. apart says after which errors that may be done.
func allOrEach[Q, A any](ctx context.Context, asked []Q, apart func(error) bool, ask func(context.Context, []Q) ([]connectors.Answer[A], error)) []connectors.Answer[A] {
	answers, err := ask(ctx, asked)
	if err == nil {
		return answers
	}
	answers = make([]connectors.Answer[A], len(asked))
	if len(asked) == 1 || !apart(err) {
		for i := range answers {
			answers[i].Err = ownCopy(err)
		}
		return answers
	}
	for i, q := range asked {
		one, err := ask(ctx, []Q{q})
		if err != nil {
			answers[i].Err = err
			continue
		}
		answers[i] = one[0]
	}
	return answers
}

// notWritten is mayBeOnes for writes: what may have been carried out is not simply made again.
func notWritten(err error) bool { return mayBeOnes(err) && !isUnclear(err) }

// mayBeOnes reports whether a call for several records can have failed for one of them.
func mayBeOnes(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.login || e.class == expired || e.Code == "REQUEST_LIMIT_EXCEEDED" {
		return false
	}
	return e.Status == http.StatusOK || e.Status >= 400 && e.Status <= 499 && e.Status != http.StatusTooManyRequests || e.Status == 0 && e.class == permanent
}

// ownCopy keeps deals that share a call from sharing its error, to which each adds what it knows.
func ownCopy(err error) error {
	if e, ok := err.(*Error); ok {
		own := *e
		return &own
	}
	return err
}

// asked is the outcome of a question that deals ask together: what has got no answer in time may have been carried out,
// unless it was never asked.
func asked[A any](ctx context.Context, answer A, err error) (A, error) {
	var own *Error
	var never *connectors.NotAskedError
	switch {
	case err == nil || errors.As(err, &own):
	case errors.As(err, &never):
		err = &Error{cause: connectors.Network(err)}
	case ctx.Err() != nil:
		err = noAnswer(ctx, err)
	}
	return answer, err
}

// subCall is one call inside a composite one.
type subCall struct {
	Method    string            `json:"method"`
	URL       string            `json:"url"`
	Reference string            `json:"referenceId"`
	Headers   map[string]string `json:"httpHeaders,omitempty"`
	Body      any               `json:"body,omitempty"`
}

// subReply is what became of it. err is nil for a success.
type subReply struct {
	body json.RawMessage
	err  error
}

// composite makes several calls as one. Each stands for itself: what fails of them undoes no other.
func (c *Connector) composite(ctx context.Context, calls []subCall) ([]subReply, time.Time, error) {
	for i := range calls {
		calls[i].URL = "/" + c.wire.path(calls[i].URL)
		calls[i].Reference = fmt.Sprintf("r%d", i)
	}
	body, err := json.Marshal(map[string]any{"allOrNone": false, "compositeRequest": calls})
	if err != nil {
		return nil, time.Time{}, err
	}
	r, err := c.call(ctx, http.MethodPost, c.wire.path("composite"), nil, body)
	if err != nil {
		return nil, time.Time{}, err
	}
	replies, err := parseComposite(r.body, len(calls))
	return replies, r.date, err
}

// parseComposite reads the reply to n calls, which are in the order of their references.
func parseComposite(body []byte, n int) ([]subReply, error) {
	var said struct {
		Replies []struct {
			Body      json.RawMessage `json:"body"`
			Status    int             `json:"httpStatusCode"`
			Reference string          `json:"referenceId"`
		} `json:"compositeResponse"`
	}
	if err := json.Unmarshal(body, &said); err != nil || len(said.Replies) != n {
		return nil, malformed("it does not answer each of the calls in it")
	}
	replies := make([]subReply, n)
	for i, s := range said.Replies {
		if s.Reference != fmt.Sprintf("r%d", i) {
			return nil, malformed("its answers are not in the order of the calls")
		}
		replies[i].body = s.Body
		if s.Status < 200 || s.Status > 299 {
			replies[i].err = failure(s.Status, http.Header{}, s.Body)
		}
	}
	return replies, nil
}

// patch is the write of one record, on the condition that nobody has changed it since a time.
type patch struct {
	object string
	id     string
	values map[string]any
	since  time.Time // zero for no condition
}

func (p patch) condition() map[string]string {
	if p.since.IsZero() {
		return nil
	}
	return map[string]string{"If-Unmodified-Since": p.since.Format(http.TimeFormat)}
}

// writeAll makes the writes of several records, each with its own condition.
func (c *Connector) writeAll(ctx context.Context, _ string, patches []patch) []connectors.Answer[time.Time] {
	return allOrEach(ctx, patches, notWritten, func(ctx context.Context, patches []patch) ([]connectors.Answer[time.Time], error) {
		if len(patches) == 1 {
			date, err := c.writeOne(ctx, patches[0])
			return []connectors.Answer[time.Time]{{Value: date, Err: err}}, nil
		}
		calls := make([]subCall, len(patches))
		for i, p := range patches {
			calls[i] = subCall{Method: http.MethodPatch, URL: "sobjects/" + p.object + "/" + p.id, Headers: p.condition(), Body: p.values}
		}
		replies, date, err := c.composite(ctx, calls)
		if err != nil {
			return nil, err
		}
		answers := make([]connectors.Answer[time.Time], len(patches))
		for i, r := range replies {
			answers[i] = connectors.Answer[time.Time]{Value: date, Err: r.err}
		}
		return answers, nil
	})
}

func (c *Connector) writeOne(ctx context.Context, p patch) (time.Time, error) {
	body, err := json.Marshal(p.values)
	if err != nil {
		return time.Time{}, err
	}
	header := http.Header{}
	for name, value := range p.condition() {
		header.Set(name, value)
	}
	r, err := c.call(ctx, http.MethodPatch, c.wire.path("sobjects/"+p.object+"/"+p.id), header, body)
	return r.date, err
}

// piece is a small file to be stored.
type piece struct {
	entity map[string]string
	data   []byte
}

// body is the file as Salesforce takes it in JSON. It is no json.Marshaler, whose result would be read through once more: all of
// the file.
func (p piece) body() map[string]any {
	all := map[string]any{"VersionData": p.data}
	for name, value := range p.entity {
		all[name] = value
	}
	return all
}

// uploadAll stores the pieces of several deals and reads back what was stored, all in one call. An answer has one outcome
// for each of its pieces: a file as Salesforce shows it, or why it was not stored. A file without an ID was stored and has
// not been read back.
func (c *Connector) uploadAll(ctx context.Context, _ string, sets [][]piece) []connectors.Answer[[]connectors.Answer[contentFile]] {
	var calls []subCall
	var ids []string
	for _, pieces := range sets {
		for _, p := range pieces {
			ids = append(ids, fmt.Sprintf("'@{r%d.id}'", len(calls)))
			calls = append(calls, subCall{Method: http.MethodPost, URL: "sobjects/ContentVersion", Body: p.body()})
		}
	}
	columns := append([]string{"Id", "ContentDocumentId"}, c.versionColumns()...)
	calls = append(calls, subCall{Method: http.MethodGet, URL: "query?q=" + url.QueryEscape("SELECT "+strings.Join(columns, ", ")+" FROM ContentVersion WHERE Id IN (") + strings.Join(ids, ",") + ")"})
	replies, _, err := c.composite(ctx, calls)
	answers := make([]connectors.Answer[[]connectors.Answer[contentFile]], len(sets))
	if err != nil {
		for i := range answers {
			answers[i].Err = ownCopy(err)
		}
		return answers
	}
	shown := c.readBack(replies[len(replies)-1])
	for i, pieces := range sets {
		for range pieces {
			answers[i].Value = append(answers[i].Value, storedPiece(replies[0], shown))
			replies = replies[1:]
		}
	}
	return answers
}

// readBack are the files that a reply shows, by ID. None if it shows none.
func (c *Connector) readBack(r subReply) map[string]contentFile {
	var page struct {
		Records []map[string]any `json:"records"`
	}
	if r.err != nil || decodeExact(r.body, &page) != nil {
		return nil
	}
	files := map[string]contentFile{}
	for _, row := range page.Records {
		if f, err := c.contentFile(row["Id"], row["ContentDocumentId"], row); err == nil {
			files[f.ID] = f
		}
	}
	return files
}

// storedPiece is the outcome of one upload. A version that was not read back has its ID only.
func storedPiece(r subReply, shown map[string]contentFile) connectors.Answer[contentFile] {
	if r.err != nil {
		return connectors.Answer[contentFile]{Err: r.err}
	}
	version, err := storedVersion(r.body)
	if err != nil {
		return connectors.Answer[contentFile]{Err: err}
	}
	f, ok := shown[version]
	if !ok {
		f.ID = version
	}
	return connectors.Answer[contentFile]{Value: f}
}

// Price implements connectors.Priced: two updates, one composite upload, and one query for what else is on the record.
func (c *Connector) Price(int) int { return 4 }
