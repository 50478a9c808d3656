package hubspot

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds a JSON or form body; files have a limit of their own.
const maxBody = 10 << 20

// call is one request on its way through the portal.
type call struct {
	p       *Portal
	r       *http.Request
	version string
	kind    Kind
	token   *accessToken
	body    []byte
	form    *uploadForm // of a multipart body
	partial bool        // a fault makes the last input of a batch fail
}

// Request is one line of the request log. It has no bodies and no tokens.
type Request struct {
	Time      time.Time `json:"time"`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Query     string    `json:"query,omitempty"`
	Kind      Kind      `json:"kind"`
	Status    int       `json:"status"` // 0 when the connection was cut instead of an answer
	UserAgent string    `json:"userAgent"`
	Fault     Effect    `json:"fault,omitempty"`
	// Problem is what HubSpot would not like though it may answer: a token in the
	// query string, no User-Agent.
	Problem string `json:"problem,omitempty"`
}

// requestLog keeps the newest requests and counts all of them.
type requestLog struct {
	counts  map[Kind]int
	entries []Request
}

// maxLog is how many requests the log keeps.
const maxLog = 20000

func (l *requestLog) add(e Request) {
	l.counts[e.Kind]++
	if len(l.entries) >= maxLog {
		l.entries = append(l.entries[:0], l.entries[maxLog/2:]...)
	}
	l.entries = append(l.entries, e)
}

func (p *Portal) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &call{p: p, r: r, version: r.PathValue("version"), kind: rt.kind}
		if t := p.objects[r.PathValue("type")]; rt.kind == KindCreate && t != nil {
			switch t.plural {
			case "notes":
				c.kind = KindNote
			case "tasks":
				c.kind = KindTask
			}
		}
		rep, fault := c.answer(rt)
		c.record(rep, fault)
		if rep == nil {
			cut(w)
			return
		}
		rep.write(w)
	}
}

// answer does the call: who asks, what goes wrong on purpose, how often, and only
// then the work. No reply means that the connection is to be cut.
func (c *call) answer(rt route) (*reply, *Fault) {
	if refused := c.locked(func() *reply { return c.authorise(rt.access) }); refused != nil {
		return refused, nil
	}
	fault := c.p.takeFault(c)
	if fault != nil {
		fault.delay(c.r.Context())
		if rep, instead := fault.instead(c); instead {
			return rep, fault
		}
		c.partial = fault.Effect == EffectPartial
	}
	if refused := c.locked(func() *reply { return c.p.limits.count(rt.bucket, c.token, c.p.now()) }); refused != nil {
		return refused, fault
	}
	if refused := c.read(rt); refused != nil {
		return refused, fault
	}
	rep := c.locked(func() *reply {
		rep := rt.handle(c)
		if rt.bucket == general || rt.bucket == associationCalls {
			c.p.limits.headers(rep.header, c.token, c.p.now())
		}
		return rep
	})
	if fault != nil {
		rep = fault.afterwards(rep)
	}
	return rep, fault
}

func (c *call) locked(do func() *reply) *reply {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return do()
}

func (c *call) read(rt route) *reply {
	if rt.form {
		form, bad := readUpload(c.r, c.p.opt.MaxFileSize)
		c.form = form
		return bad
	}
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodDelete {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxBody+1))
	if err != nil {
		return invalid("The request body could not be read.")
	}
	if len(body) > maxBody {
		return fail(http.StatusRequestEntityTooLarge, envelope{Message: "The request body is too large.", Category: "VALIDATION_ERROR"})
	}
	c.body = body
	want := "application/json"
	if rt.access == public {
		want = "application/x-www-form-urlencoded"
	}
	if media, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type")); len(body) > 0 && media != want {
		return fail(http.StatusUnsupportedMediaType, envelope{Message: "Unsupported media type: send " + want + "."})
	}
	return nil
}

// decode reads the JSON body.
func (c *call) decode(v any) *reply {
	if len(c.body) == 0 {
		return invalid("Invalid input JSON: the body is empty.")
	}
	dec := json.NewDecoder(bytes.NewReader(c.body))
	if err := dec.Decode(v); err != nil {
		return invalid("Invalid input JSON: %v", err)
	}
	if err := dec.Decode(new(json.RawMessage)); !errors.Is(err, io.EOF) {
		return invalid("Invalid input JSON: something follows the value.")
	}
	return nil
}

func (c *call) objectType(param string) (*objectType, *reply) {
	name := c.r.PathValue(param)
	t := c.p.objects[name]
	if t == nil {
		return nil, invalid("Unable to infer object type from: %s", name)
	}
	return t, nil
}

// params reads an array of query values, comma-separated or repeated or both.
func (c *call) params(name string) []string {
	var out []string
	for _, v := range c.r.URL.Query()[name] {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

func (c *call) param(name string) string { return c.r.URL.Query().Get(name) }

// baseURL is where the client found the portal.
func (c *call) baseURL() string {
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.r.Host
}

func (c *call) record(rep *reply, fault *Fault) {
	e := Request{
		Time: c.p.now(), Method: c.r.Method, Path: c.r.RequestURI, Query: c.r.URL.RawQuery, Kind: c.kind, UserAgent: c.r.UserAgent(),
	}
	if rep != nil {
		e.Status = rep.status
	}
	if fault != nil {
		e.Fault = fault.Effect
	}
	query := c.r.URL.Query()
	switch {
	case query.Has("access_token") || query.Has("hapikey") || query.Has("refresh_token") || query.Has("client_secret"):
		e.Problem, e.Query = "a credential in the query string", ""
	case c.kind == KindDownload:
		e.Query = "" // the signature opens the file
	case c.r.PathValue("token") != "":
		e.Path = strings.ReplaceAll(e.Path, c.r.PathValue("token"), "{token}")
	case c.r.UserAgent() == "":
		e.Problem = "no User-Agent"
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.log.add(e)
}

func (r *reply) write(w http.ResponseWriter) {
	for name, v := range r.header {
		w.Header()[name] = v
	}
	if r.cut && len(r.body) == 0 {
		panic(http.ErrAbortHandler)
	}
	if r.cut {
		w.Header().Set("Content-Length", strconv.Itoa(len(r.body)))
	}
	w.WriteHeader(r.status)
	if r.cut {
		w.Write(r.body[:len(r.body)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.Write(r.body) // the client may be gone
}

// cut ends the connection without an answer, over TCP with a reset.
func cut(w http.ResponseWriter) {
	h, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := h.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
