package salesforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/simpleforce/simpleforce"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

const (
	maxReply      = 32 << 20
	maxErrorReply = 64 << 10
	// maxURL is a little less than what Salesforce takes.
	maxURL = 15 << 10
	// maxQueryPages bounds a look-up: 2000 rows each.
	maxQueryPages = 50
	clientName    = "dealseal"
)

// wire is the one way to the org: it adds the session and the headers, reads the allowance from each reply, logs in
// again once when the session has ended, and turns everything that is no success into an error of this package.
type wire struct {
	base    string
	version string
	http    http.RoundTripper
	session *session
	gauge   *gauge
	log     *slog.Logger
	timeout time.Duration // of one call that carries no file
}

func newWire(cfg Config, transport http.RoundTripper, sign signer, now func() time.Time, log *slog.Logger) *wire {
	return &wire{
		base: cfg.MyDomain, version: cfg.APIVersion, http: transport,
		session: &session{login: newLogin(cfg, transport, sign)},
		gauge:   &gauge{now: now}, log: log, timeout: cfg.Timeout,
	}
}

// path is the path of a REST resource, without a slash in front.
func (w *wire) path(resource string) string {
	return "services/data/v" + w.version + "/" + resource
}

// send makes the call and returns the reply of a success, its body unread and bounded by limit. The request's body, if it
// has one, must be replayable through GetBody.
func (w *wire) send(ctx context.Context, req *http.Request, limit int64) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close() // each attempt takes a fresh one
	}
	for attempt := 1; ; attempt++ {
		token, err := w.session.get(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := w.once(ctx, req, token)
		if err == nil {
			// Counted after decompression.
			resp.Body = http.MaxBytesReader(nil, resp.Body, limit)
			return resp, nil
		}
		var e *Error
		if !errors.As(err, &e) || e.class != expired {
			return nil, err
		}
		w.session.drop(token)
		if attempt == 2 {
			e.cure += "; a fresh one was refused too: check that the integration user is active and may use the API"
			return nil, err
		}
		w.log.DebugContext(ctx, "the Salesforce session has ended, logging in again")
	}
}

// once makes one attempt.
func (w *wire) once(ctx context.Context, req *http.Request, token string) (*http.Response, error) {
	req = req.Clone(ctx)
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("read the request's body: %w", err)
		}
		req.Body = body
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	req.Header.Set("Sforce-Call-Options", "client="+clientName)
	req.Header.Set("User-Agent", clientName)
	resp, err := w.http.RoundTrip(req)
	if err != nil {
		return nil, noAnswer(ctx, err)
	}
	w.gauge.note(resp.Header)
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return resp, nil
	}
	defer resp.Body.Close()
	// A body that breaks off is judged by what has come.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorReply))
	return nil, failure(resp.StatusCode, resp.Header, body)
}

// noAnswer is the error of a call that was cut. Its text has the network's words only, never the URL.
func noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return &Error{unclear: true, cause: connectors.Network(err)}
}

// gauge keeps the last reading of the org's allowance of API calls.
type gauge struct {
	now func() time.Time

	mu   sync.Mutex
	last deal.Budget
}

// usageForm leaves out per-app-api-usage, which may follow.
var usageForm = regexp.MustCompile(`(?:^|[;,\s])api-usage=([0-9]{1,12})/([0-9]{1,12})`)

func (g *gauge) note(header http.Header) {
	m := usageForm.FindStringSubmatch(header.Get("Sforce-Limit-Info"))
	if m == nil {
		return
	}
	used, _ := strconv.Atoi(m[1])
	most, _ := strconv.Atoi(m[2])
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = deal.Budget{Used: used, Max: most, At: g.now()}
}

func (g *gauge) read() deal.Budget {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

const (
	scarce = 0.95
	// stale is how old a reading must be for one more call to be worth it: at the limit nothing else may be going on, and
	// then nobody would see the allowance recover.
	stale = 15 * time.Minute
)

// mayBegin refuses new work while the allowance is nearly used up; what runs already is not asked.
func (g *gauge) mayBegin() error {
	b := g.read()
	if b.Share() < scarce {
		return nil
	}
	wait := stale - g.now().Sub(b.At)
	if wait <= 0 {
		return nil
	}
	return &Error{class: passing, after: wait, cure: fmt.Sprintf(
		"%d of %d API calls of the day are used: nothing new is begun, running deals are finished", b.Used, b.Max)}
}

// errand is the transport of one call through simpleforce, and what became of it.
//
// simpleforce writes the query and the body of every failure into the process's log, panics on an empty error list and
// on a row that is null, and loses the error code of a web page. So it is never shown a failure: the errand keeps the
// error for itself and hands simpleforce an empty success. The client lives for the one call, because simpleforce is not
// safe for concurrent use.
type errand struct {
	ctx    context.Context
	wire   *wire
	header http.Header
	// check looks at the body before simpleforce does.
	check func(body []byte) error

	done  bool
	reply reply
	err   error
}

// reply is a success with its whole body.
type reply struct {
	body []byte
	// date is the reply's Date header, zero when there is none. asOf is date less the time that the call took: nothing
	// that was committed before asOf can be missing from the reply.
	date, asOf time.Time
}

// RoundTrip implements http.RoundTripper.
func (e *errand) RoundTrip(req *http.Request) (*http.Response, error) {
	e.done = true
	e.reply, e.err = e.exchange(req)
	body := e.reply.body
	if e.err != nil {
		body = []byte("{}")
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}, nil
}

func (e *errand) exchange(req *http.Request) (reply, error) {
	ctx, cancel := context.WithTimeout(e.ctx, e.wire.timeout)
	defer cancel()
	for name, values := range e.header {
		req.Header[name] = values
	}
	start := time.Now() // monotonic: only the difference is used
	resp, err := e.wire.send(ctx, req, maxReply)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, noAnswer(ctx, err)
	}
	r := reply{body: body}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		r.date = date.UTC()
		r.asOf = r.date.Add(-time.Since(start).Truncate(time.Millisecond))
	}
	if e.check != nil {
		err = e.check(body)
	}
	return r, err
}

// client returns a simpleforce client for this errand.
func (e *errand) client() *simpleforce.Client {
	c := simpleforce.NewClient(e.wire.base, clientName, e.wire.version)
	c.SetSidLoc("set by the transport", e.wire.base)
	c.SetHttpClient(&http.Client{Transport: e, CheckRedirect: noRedirect})
	return c
}

// outcome joins what the transport and simpleforce say.
func (e *errand) outcome(err error) error {
	switch {
	case e.err != nil:
		return e.err
	case !e.done || err != nil:
		return malformed("the client library refuses it")
	}
	return nil
}

// call makes one REST call and returns the whole reply.
func (c *Connector) call(ctx context.Context, method, path string, header http.Header, body []byte) (reply, error) {
	e := &errand{ctx: ctx, wire: c.wire, header: header}
	var payload io.Reader
	if body != nil {
		payload = bytes.NewReader(body)
	}
	_, err := e.client().ApexREST(method, path, payload)
	return e.reply, e.outcome(err)
}

// query runs one SOQL query or reads its next page, and returns the reply undecoded: numbers keep all their digits, and
// one bad row does not spoil the others.
func (c *Connector) query(ctx context.Context, soql string) (reply, error) {
	path := c.wire.path("query?q=" + url.QueryEscape(soql))
	if len(path) > maxURL {
		return reply{}, refuse("the query is too long for one call: map fewer fields")
	}
	return c.call(ctx, http.MethodGet, path, nil, nil)
}

// found are the rows of a look-up.
type found struct {
	rows []simpleforce.SObject
	date time.Time
}

// lookUp runs a query whose rows are small and flat, and reads all pages.
func (c *Connector) lookUp(ctx context.Context, soql string) (found, error) {
	var all found
	err := c.eachPage(ctx, soql, func(rows []simpleforce.SObject, date time.Time) (more bool) {
		all.rows = append(all.rows, rows...)
		all.date = date
		return true
	})
	return all, err
}

// eachPage runs a query and hands over page by page until the last one or until use has enough.
func (c *Connector) eachPage(ctx context.Context, soql string, use func(rows []simpleforce.SObject, date time.Time) (more bool)) error {
	next := soql
	for range maxQueryPages {
		e := &errand{ctx: ctx, wire: c.wire, check: checkRows}
		result, err := e.client().Query(next)
		if err := e.outcome(err); err != nil {
			return err
		}
		if !use(result.Records, e.reply.date) || result.Done {
			return nil
		}
		if !isLocator(result.NextRecordsURL) {
			return malformed("it is not the last page and names no next one")
		}
		next = result.NextRecordsURL
	}
	return malformed("the query has more than %d pages", maxQueryPages)
}

// checkRows holds that every row is an object.
func checkRows(body []byte) error {
	var page struct {
		Records []json.RawMessage `json:"records"`
		Done    *bool             `json:"done"`
	}
	if err := json.Unmarshal(body, &page); err != nil || page.Done == nil || page.Records == nil {
		return malformed("it is no query result")
	}
	for _, row := range page.Records {
		if !bytes.HasPrefix(row, []byte("{")) {
			return malformed("a row is no object")
		}
	}
	return nil
}

var locatorForm = regexp.MustCompile(`^/services/data/v[0-9]{2,3}\.0/query/[A-Za-z0-9-]{1,64}$`)

// isLocator reports whether a "next page" of a reply is one: it becomes part of a URL that carries our token.
func isLocator(path string) bool { return locatorForm.MatchString(path) }
