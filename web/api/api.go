// Package api is what programs use of the daemon, over HTTP: they read deals, contracts, evidence, templates, certificates and
// the audit log, decide about deals that wait for somebody, and keep the webhooks of their tenants.
//
// Whoever calls shows a bearer token or a client certificate. It is good for one environment, for some tenants or all, and for
// one role; of what it does not see it learns nothing, not even that it exists. Who has seen a contract or decided about a
// deal is in the audit log by the token's name and fingerprint before the answer leaves.
//
// There is one table of routes. It is what is served, what is refused to which role, and what /v1/openapi.json says.
package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web"
)

// Tokens are who may call. store.Store is one.
type Tokens interface {
	// Token returns the token with a fingerprint, whether or not it is still good; false if there is none.
	Token(ctx context.Context, kind deal.TokenKind, fingerprint string) (deal.Token, bool, error)
	// UseToken takes note that a token is used.
	UseToken(ctx context.Context, t deal.Token) error
	// AuditCalls puts what a token has asked for into the audit log.
	AuditCalls(ctx context.Context, c deal.Calls) error
	// AuditRefusedCertificates puts there which client certificates a proxy was shown that are good for nobody.
	AuditRefusedCertificates(ctx context.Context, r deal.RefusedCertificates) error
}

// Options is what an API is made of.
type Options struct {
	House  House
	Tokens Tokens
	// PerToken and PerAddress are how many requests a minute are answered.
	PerToken, PerAddress int
	// Proxies are believed when they name the client certificate of a caller; nil: nobody is.
	Proxies *Proxies
	Version string
	Now     func() time.Time
	Log     *slog.Logger
}

// API answers requests. It is safe for concurrent use.
type API struct {
	Options
	mux               *http.ServeMux
	routes            []route
	openapi           []byte
	tokens, addresses limiter
	bundles           limiter // of each token: they use the sealing key
	foreign           *http.CrossOriginProtection
	requests          *prometheus.CounterVec
	calls             calls
	refused           refusals
}

const (
	houseLimit    = 20 * time.Second // for one answer
	downloadLimit = 10 * time.Minute
	maxBody       = 64 << 10
	maxBearer     = 256
	// guessCosts is what a wrong token uses up of its address's limit.
	guessCosts = 20
	// bundlesPerMinute is how many evidence bundles a token is given.
	bundlesPerMinute = 10
)

// New returns the handler of everything under /v1.
func New(o Options) *API {
	a := &API{Options: o, mux: http.NewServeMux(), foreign: http.NewCrossOriginProtection(),
		tokens: limiter{perMinute: o.PerToken, callers: map[string]bucket{}}, addresses: limiter{perMinute: o.PerAddress, callers: map[string]bucket{}},
		bundles:  limiter{perMinute: min(o.PerToken, bundlesPerMinute), callers: map[string]bucket{}},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dealseal_api_requests_total", Help: "Requests of the API, by the status that they were answered with."}, []string{"status"})}
	a.routes = a.table()
	a.openapi = describe(a.routes, o.Version)
	for i := range a.routes {
		a.mux.HandleFunc(a.routes[i].method+" "+a.routes[i].path, a.serve(&a.routes[i]))
	}
	a.mux.HandleFunc("/", a.nowhere)
	return a
}

// Describe and Collect make its counter a prometheus.Collector.
func (a *API) Describe(ch chan<- *prometheus.Desc) { a.requests.Describe(ch) }

// Collect implements prometheus.Collector.
func (a *API) Collect(ch chan<- prometheus.Metric) { a.requests.Collect(ch) }

// route is one way to be asked.
type route struct {
	method, path string
	may          permission
	summary      string
	params       []param
	header       *param // that must be sent
	takes        any    // a zero value of what the body is; nil for none
	status       int
	gives        any      // a zero value of the answer
	file         []string // the media types of a file that is the answer instead
	fails        []int    // beside those that any route may answer
	do           func(context.Context, *request) (any, error)
}

// param is one of the query, or a header.
type param struct {
	name, doc string
	one       []string // of these values
	format    string
	pattern   string
	most      int // characters
}

// request is one that may be answered.
type request struct {
	*http.Request
	token   deal.Token
	shown   shown
	tenants []deal.TenantID // that the token sees
	query   url.Values
	body    []byte
}

// who is the caller in the audit log: its token, and the proxy that has seen its certificate.
func (r *request) who() string {
	if r.shown.via == "" || r.token.Kind != deal.ClientCertificate {
		return r.token.Who()
	}
	return r.token.Who() + " via " + r.shown.via
}

// sees reports whether the token is good for a tenant.
func (r *request) sees(id deal.TenantID) bool { return slices.Contains(r.tenants, id) }

// hsts is for every answer over TLS; see RFC 6797.
const hsts = "max-age=63072000; includeSubDomains; preload"

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", hsts)
	}
	c := &counting{ResponseWriter: w}
	defer func() { a.requests.WithLabelValues(strconv.Itoa(c.status)).Inc() }()
	if l := a.addresses.take(callerAt(r.RemoteAddr), 1, a.Now()); !l.ok {
		tooMany(l, "address").write(tell(c, l))
		return
	}
	if a.foreign.Check(r) != nil { // a browser shows a client certificate to whoever asks it to
		problem(http.StatusForbidden, "another site asked for this").write(c)
		return
	}
	if path.Clean(r.URL.Path) != r.URL.Path { // which the mux would redirect
		problem(http.StatusNotFound, "nothing is here: /v1/openapi.json says what is").write(c)
		return
	}
	a.mux.ServeHTTP(c, r)
}

// counting remembers the status.
type counting struct {
	http.ResponseWriter
	status int
}

func (c *counting) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// tell puts a limit into the headers.
func tell(w http.ResponseWriter, l allowance) http.ResponseWriter {
	h := w.Header()
	h.Set("RateLimit-Limit", strconv.Itoa(l.limit))
	h.Set("RateLimit-Remaining", strconv.Itoa(l.left))
	h.Set("RateLimit-Reset", strconv.Itoa(int((l.full+time.Second-1)/time.Second)))
	return w
}

func tooMany(l allowance, whose string) *Problem {
	p := problem(http.StatusTooManyRequests, fmt.Sprintf("this %s has used up its %d requests a minute", whose, l.limit))
	p.retry = max(l.next, time.Second)
	return p
}

// nowhere answers for what no route is for.
func (a *API) nowhere(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := a.mux.Handler(probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		problem(http.StatusNotFound, "nothing is here: /v1/openapi.json says what is").write(w)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	problem(http.StatusMethodNotAllowed, "only "+strings.Join(allowed, ", ")+" is answered here").write(w)
}

func (a *API) serve(rt *route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), houseLimit)
		defer cancel()
		req := &request{Request: r}
		answer, err := a.answer(ctx, w, req, rt)
		if err != nil {
			p := explain(err)
			a.note(ctx, req, rt, p.Status, p.cause)
			p.write(w)
			return
		}
		a.note(ctx, req, rt, rt.status, nil)
		if f, ok := answer.(*File); ok {
			a.send(w, req, f)
			return
		}
		if raw, ok := answer.(json.RawMessage); ok {
			writeJSON(w, rt.status, "application/json", raw)
			return
		}
		writeJSON(w, rt.status, "application/json", answer)
	}
}

// note counts a request for the audit log, and puts it into the daemon's: those that change or reveal something, and those that failed by our doing, always.
func (a *API) note(ctx context.Context, r *request, rt *route, status int, cause error) {
	level := slog.LevelDebug
	if rt.may != anyone && rt.may != see && status < 400 {
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{slog.String("route", rt.method+" "+rt.path), slog.Int("status", status)}
	if r.token.Fingerprint != "" {
		attrs = append(attrs, slog.String("token", r.who()))
		a.calls.add(r.token, r.shown, fmt.Sprintf("%s %s %d", rt.method, rt.path, status), a.Now())
	}
	if cause != nil && r.Context().Err() == nil {
		level, attrs = slog.LevelError, append(attrs, slog.Any("err", cause))
	}
	a.Log.LogAttrs(ctx, level, "a request of the API", attrs...)
}

// answer finds out who asks, and whether and what.
func (a *API) answer(ctx context.Context, w http.ResponseWriter, r *request, rt *route) (any, error) {
	if rt.may != anyone {
		if err := a.admit(ctx, w, r); err != nil {
			return nil, err
		}
		if !may(r.token.Role, rt.may) {
			return nil, problem(http.StatusForbidden, fmt.Sprintf("a token with the role %s may not %s", r.token.Role, rt.may))
		}
	}
	if err := r.readQuery(rt); err != nil {
		return nil, err
	}
	if err := r.readBody(w, rt); err != nil {
		return nil, err
	}
	return rt.do(ctx, r)
}

// admit finds the token and what it sees. Who shows none that is good is told nothing about it.
func (a *API) admit(ctx context.Context, w http.ResponseWriter, r *request) error {
	var err error
	if r.shown, err = a.Proxies.shownBy(r.Request, a.Now()); err != nil {
		var refused *refusedCertificate
		if errors.As(err, &refused) {
			a.refused.add(refused, a.Now())
			a.Log.WarnContext(ctx, "a client certificate that a proxy has forwarded was refused", "via", refused.via, "reason", refused.reason)
			return a.unknown(w, refused.status)
		}
		return err
	}
	token, known, err := a.recognise(ctx, r)
	if err != nil {
		return err
	}
	if !known || !token.Counts(a.Now()) {
		tell(w, a.addresses.take(callerAt(r.RemoteAddr), guessCosts-1, a.Now()))
		return a.unknown(w, http.StatusUnauthorized)
	}
	r.token = token
	l := a.tokens.take(token.Fingerprint, 1, a.Now())
	tell(w, l)
	if !l.ok {
		return tooMany(l, "token")
	}
	if err := a.Tokens.UseToken(ctx, token); err != nil {
		a.Log.WarnContext(ctx, "it could not be noted that a token was used", "token", token.Who(), "err", err)
	}
	for _, t := range a.House.Tenants() {
		if token.Sees(t.ID, t.Live) {
			r.tenants = append(r.tenants, t.ID)
		}
	}
	return nil
}

// unknown is the answer for whoever nobody knows.
func (a *API) unknown(w http.ResponseWriter, status int) error {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="dealseal"`)
	}
	return problem(status, "")
}

// recognise looks for what was shown by its hash alone. A token counts before a certificate, whichever of the two is good.
func (a *API) recognise(ctx context.Context, r *request) (deal.Token, bool, error) {
	if shown := r.Header.Values("Authorization"); len(shown) > 0 {
		scheme, text, _ := strings.Cut(shown[0], " ")
		if len(shown) != 1 || len(text) > maxBearer || !strings.EqualFold(scheme, "Bearer") {
			return deal.Token{}, false, nil
		}
		return a.Tokens.Token(ctx, deal.BearerToken, Fingerprint([]byte(text)))
	}
	c := r.shown.certificate
	if c == nil || !inTime(c, a.Now()) {
		return deal.Token{}, false, nil
	}
	return a.Tokens.Token(ctx, deal.ClientCertificate, Fingerprint(c.Raw))
}

// Fingerprint is what is kept of a token's text, or of a certificate in DER.
func Fingerprint(shown []byte) string {
	sum := sha256.Sum256(shown)
	return hex.EncodeToString(sum[:])
}

// readQuery refuses what no route would look at: a filter that is misspelt must not find everything.
func (r *request) readQuery(rt *route) (err error) {
	if r.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return problem(http.StatusBadRequest, "the query of the address cannot be read")
	}
	for name, values := range r.query {
		i := slices.IndexFunc(rt.params, func(p param) bool { return p.name == name })
		switch {
		case i < 0:
			return problem(http.StatusBadRequest, fmt.Sprintf("the query has %q, which is not known here", short(name)))
		case len(values) > 1:
			return problem(http.StatusBadRequest, fmt.Sprintf("the query has %s more than once", name))
		case values[0] == "": // a variable that nobody has set must not find everything
			return problem(http.StatusBadRequest, fmt.Sprintf("the query has %s without a value: leave it out", name))
		case rt.params[i].one != nil && !slices.Contains(rt.params[i].one, values[0]):
			return problem(http.StatusBadRequest, fmt.Sprintf("%s must be one of %s", name, strings.Join(rt.params[i].one, ", ")))
		}
	}
	return nil
}

// short is the beginning of what a caller has sent.
func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func (r *request) readBody(w http.ResponseWriter, rt *route) error {
	if rt.takes == nil {
		return nil
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" || r.Header.Get("Content-Encoding") != "" {
		return problem(http.StatusUnsupportedMediaType, "the body must be application/json, not compressed")
	}
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // what is on its way is not read
		return tooLarge()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge()
	case err != nil:
		return problem(http.StatusBadRequest, "the body broke off")
	}
	r.body = body
	return nil
}

func tooLarge() *Problem {
	return problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", maxBody))
}

// decode reads the body: one JSON value without fields that nobody knows.
func decode[T any](r *request) (v T, err error) {
	if err := checkNames(r.body, reflect.TypeFor[T]()); err != nil {
		return v, err
	}
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field != "" {
			return v, problem(http.StatusBadRequest, fmt.Sprintf("the body's %q is of the wrong type", short(kind.Field)))
		}
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return v, problem(http.StatusBadRequest, "the body has "+short(name)+", which is not known here")
		}
		return v, problem(http.StatusBadRequest, fmt.Sprintf("the body is not the JSON object that is expected here, from byte %d on", d.InputOffset()))
	}
	if d.More() {
		return v, problem(http.StatusBadRequest, "something stands behind the body's JSON object")
	}
	return v, nil
}

// File is an answer that is no JSON.
type File struct {
	MediaType, Name string
	// Length is -1 when it is not known before.
	Length int64
	Write  func(ctx context.Context, w io.Writer) error
	Close  func() error
}

// send streams a file. One that breaks off breaks the connection off, so that nobody takes it for whole.
func (a *API) send(w http.ResponseWriter, r *request, f *File) {
	defer f.Close()
	ctx, cancel := context.WithTimeout(r.Context(), downloadLimit)
	defer cancel()
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadLimit)); err != nil {
		a.Log.DebugContext(ctx, "a download keeps the usual deadline", "err", err)
	}
	h := w.Header()
	h.Set("Content-Type", f.MediaType)
	h.Set("Content-Disposition", web.Disposition(f.Name))
	if f.Length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(f.Length, 10))
	}
	w.WriteHeader(http.StatusOK)
	if err := f.Write(ctx, w); err != nil {
		if r.Context().Err() == nil {
			a.Log.ErrorContext(ctx, "a download of the API broke off", "token", r.token.Who(), "err", err)
		}
		panic(http.ErrAbortHandler)
	}
}
