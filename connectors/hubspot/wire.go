package hubspot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/go-resty/resty/v2"
)

const (
	maxReply      = 32 << 20
	maxErrorReply = 64 << 10
	userAgent     = "dealseal"
)

// wire is the one way to the account: it waits for the rate limits, adds the token and the headers, reads the allowance
// from each reply, gets another token once when HubSpot refuses the one it has, and turns everything that is no success
// into an error of this package.
type wire struct {
	base     string
	http     http.RoundTripper
	session  *session
	gauge    *gauge
	client   *resty.Client
	calls    *window // all calls but searches
	searches *window
	log      *slog.Logger
	timeout  time.Duration // of one call that carries no file

	mu     sync.Mutex
	parked time.Time // no call before this
	zone   *time.Location
}

func newWire(cfg Config, transport http.RoundTripper, log *slog.Logger) *wire {
	w := &wire{
		base: cfg.BaseURL, http: transport, gauge: &gauge{}, log: log, timeout: cfg.Timeout, zone: time.UTC,
		calls: newWindow(cfg.Rate, 10*time.Second), searches: newWindow(cfg.SearchRate, time.Second),
	}
	w.client = resty.NewWithClient(&http.Client{Transport: w, CheckRedirect: noRedirect}).SetLogger(muted{})
	return w
}

func (w *wire) setZone(zone *time.Location) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone = zone
}

func (w *wire) dayZone() *time.Location {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.zone
}

// park keeps every call back for d.
func (w *wire) park(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parked = time.Now().Add(d)
}

func (w *wire) mayCall() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wait := time.Until(w.parked); wait > 0 {
		return &Error{Status: statusMigrating, after: wait, cure: "HubSpot moves the account to another data centre: all calls wait until it is done"}
	}
	return nil
}

// access is whether a call bears our token, and which limit it counts against.
type access int

const (
	withToken access = iota
	search           // with a token, and a limit of its own
	noToken          // the token endpoint
	foreign          // a signed URL: neither our token nor our limits
)

// exchange is one call as the transport needs to know it.
type exchange struct {
	method string
	url    string
	query  url.Values
	header http.Header
	access access
	// open gives a fresh body of length bytes for each attempt; nil for none.
	open   func() io.Reader
	length int64
}

// exchangeKey carries the exchange through resty to RoundTrip.
type exchangeKey struct{}

// send makes the call and returns the reply of a success. The caller closes its body.
func (w *wire) send(ctx context.Context, x exchange) (*http.Response, error) {
	if x.access == noToken || x.access == foreign {
		return w.once(ctx, x, "")
	}
	for attempt := 1; ; attempt++ {
		token, err := w.session.get(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := w.once(ctx, x, token)
		var e *Error
		if err == nil || !errors.As(err, &e) || e.class != expired {
			return resp, err
		}
		w.session.drop(token)
		if attempt == 2 {
			e.class = permanent
			e.cure += "; a fresh one was refused too"
			return nil, err
		}
		w.log.DebugContext(ctx, "HubSpot refuses the access token, getting another one")
	}
}

// once makes one attempt. resty is not told of the body: it would read a stream into memory to be able to repeat it.
func (w *wire) once(ctx context.Context, x exchange, token string) (*http.Response, error) {
	ctx = context.WithValue(ctx, exchangeKey{}, x)
	req := w.client.R().SetContext(ctx).SetDoNotParseResponse(true).SetQueryParamsFromValues(x.query)
	req.Header = x.header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if token != "" {
		req.SetAuthToken(token)
	}
	resp, err := req.Execute(x.method, x.url)
	if err != nil {
		return nil, callError(ctx, err)
	}
	raw := resp.RawResponse
	if x.access != foreign {
		w.gauge.note(raw.Header)
	}
	if raw.StatusCode >= 200 && raw.StatusCode <= 299 {
		return raw, nil
	}
	defer raw.Body.Close()
	if x.access == foreign {
		return nil, &Error{Status: raw.StatusCode, after: edgePause, cure: "the file cannot be fetched from the URL that HubSpot has signed"}
	}
	// A body that breaks off is judged by what has come.
	body, _ := io.ReadAll(io.LimitReader(raw.Body, maxErrorReply))
	e := failure(raw.StatusCode, raw.Header, body, w.dayZone())
	if e.Status == statusMigrating {
		w.park(e.after)
		w.log.WarnContext(ctx, "HubSpot moves the account to another data centre; all calls wait", "for", e.after)
	}
	return nil, e
}

// RoundTrip implements http.RoundTripper for resty.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	x, ok := ctx.Value(exchangeKey{}).(exchange)
	if !ok {
		return nil, errors.New("not a call of this connector")
	}
	if err := w.wait(ctx, x.access); err != nil {
		return nil, err
	}
	req = req.Clone(ctx)
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	req.Header.Set("User-Agent", userAgent)
	if x.open != nil {
		req.Body, req.ContentLength = io.NopCloser(x.open()), x.length
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(x.open()), nil }
	}
	return w.http.RoundTrip(req)
}

// wait keeps to the limits.
func (w *wire) wait(ctx context.Context, a access) error {
	if a == foreign {
		return nil
	}
	if err := w.mayCall(); err != nil {
		return err
	}
	if a == search {
		return w.searches.wait(ctx)
	}
	return w.calls.wait(ctx)
}

// callError takes our own error, or the network's, out of what http.Client and resty wrap around it, which names the URL.
// It is unclear whether the call was carried out.
func callError(ctx context.Context, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &Error{unclear: true, cause: connectors.Network(err)}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// muted takes resty's log lines, which quote URLs and bodies.
type muted struct{}

func (muted) Errorf(string, ...any) {}
func (muted) Warnf(string, ...any)  {}
func (muted) Debugf(string, ...any) {}

// reply is a success with its whole body.
type reply struct {
	body []byte
	date time.Time // the Date header, zero when there is none
}

// fetch makes a call whose reply is JSON and reads all of it.
func (w *wire) fetch(ctx context.Context, x exchange) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	resp, err := w.send(ctx, x)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply)) // what is cut is no JSON any more
	if err != nil {
		return reply{}, callError(ctx, err)
	}
	r := reply{body: body}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		r.date = date.UTC()
	}
	return r, nil
}

// getJSON reads what a path of the API names.
func (c *Connector) getJSON(ctx context.Context, path string, query url.Values, into any) (reply, error) {
	r, err := c.wire.fetch(ctx, exchange{method: http.MethodGet, url: c.wire.base + path, query: query})
	if err != nil {
		return reply{}, err
	}
	return r, r.decode(into)
}

// send makes a call with a JSON body.
func (c *Connector) send(ctx context.Context, method, path string, a access, body any) (reply, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return reply{}, err
	}
	return c.wire.fetch(ctx, exchange{
		method: method, url: c.wire.base + path, access: a, header: http.Header{"Content-Type": {"application/json"}},
		open: func() io.Reader { return bytes.NewReader(b) }, length: int64(len(b)),
	})
}

func (r reply) decode(into any) error {
	if err := json.Unmarshal(r.body, into); err != nil {
		return malformed("it is not the JSON that was asked for")
	}
	return nil
}

const (
	// scarce is the share of the day's calls at which nothing new is begun.
	scarce = 0.95
	// stale is how old a reading must be for one more call to be worth it: at the limit nothing else may be going on, and
	// then nobody would see the allowance recover.
	stale = 15 * time.Minute
)

// gauge keeps the last reading of the day's allowance of calls.
type gauge struct {
	mu   sync.Mutex
	last deal.Budget
}

func (g *gauge) note(header http.Header) {
	most, err := strconv.Atoi(header.Get("X-HubSpot-RateLimit-Daily"))
	left, err2 := strconv.Atoi(header.Get("X-HubSpot-RateLimit-Daily-Remaining"))
	if err != nil || err2 != nil || most <= 0 || left < 0 || left > most {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = deal.Budget{Used: most - left, Max: most, At: time.Now()}
}

func (g *gauge) read() deal.Budget {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}
