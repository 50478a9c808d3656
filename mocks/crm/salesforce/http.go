package salesforce

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind is a kind of call, for counters and faults.
type Kind string

// The kinds of call.
const (
	KindAuthorize      Kind = "authorize"
	KindToken          Kind = "token"
	KindIntrospect     Kind = "introspect"
	KindRevoke         Kind = "revoke"
	KindUserInfo       Kind = "userinfo"
	KindIdentity       Kind = "identity"
	KindVersions       Kind = "versions"
	KindResources      Kind = "resources"
	KindLimits         Kind = "limits"
	KindQuery          Kind = "query"
	KindQueryMore      Kind = "query_more"
	KindGlobalDescribe Kind = "global_describe"
	KindDescribe       Kind = "describe"
	KindGet            Kind = "get"
	KindCreate         Kind = "create"
	KindUpdate         Kind = "update"
	KindDelete         Kind = "delete"
	KindTooling        Kind = "tooling"
	KindUpsert         Kind = "upsert"
	KindUpload         Kind = "upload" // create of a ContentVersion
	KindDownload       Kind = "download"
	KindUpdated        Kind = "updated"
	KindDeleted        Kind = "deleted"
	KindComposite      Kind = "composite"
	KindCollection     Kind = "collection"
	KindUnknown        Kind = "unknown"
)

// maxURI is the length from which on the service's edge refuses an address.
const maxURI = 16 << 10

// Error is an error of the REST API. Over the wire it is an element of a list.
type Error struct {
	Status  int
	Code    string
	Message string
	Fields  []string // nil: left out
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

func (e *Error) reply() reply {
	m := ordered{{"message", e.Message}, {"errorCode", e.Code}}
	if e.Fields != nil {
		m = append(m, member{"fields", e.Fields})
	}
	return jsonReply(e.Status, []any{m})
}

func notFound() *Error {
	return &Error{Status: 404, Code: "NOT_FOUND", Message: "The requested resource does not exist"}
}

func sessionInvalid() *Error {
	return &Error{Status: 401, Code: "INVALID_SESSION_ID", Message: "Session expired or invalid"}
}

// reply is a response before it is written.
type reply struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the connection is closed in the middle of it
	half   bool // its body was cut to the half
	whole  bool // it is one of the server's or of the session: of a composite request, it answers all
}

// ofWhole marks what answers the whole of a composite request that it befalls a part of.
func (r reply) ofWhole() reply {
	r.whole = true
	return r
}

func (r reply) truncated() reply {
	r.body, r.half = r.body[:len(r.body)/2], true
	return r
}

func (r reply) with(key, value string) reply {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Set(key, value)
	return r
}

func jsonReply(status int, v any) reply {
	return reply{status: status, body: marshal(v)}.with("Content-Type", "application/json;charset=UTF-8")
}

// call is one request on its way through the org.
type call struct {
	o       *Org
	r       *http.Request
	kind    Kind
	segs    []string // unescaped path segments
	version string   // API version of the path
	user    string
	sub     bool // inside a composite request
	tx      *tx  // the composite's own transaction, if any
}

// endpoint is what answers a call.
type endpoint struct {
	kind   Kind
	public bool // needs no session
	do     func(*call) reply
}

// ServeHTTP implements http.Handler. A connection that a fault cuts ends in a
// panic with http.ErrAbortHandler, which net/http turns into a closed connection.
func (o *Org) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, pubSubPath) {
		o.pubSub.ServeHTTP(w, r)
		return
	}
	c := &call{o: o, r: r}
	rep := o.answer(c)
	h := w.Header()
	for k, v := range rep.header {
		h[k] = v
	}
	h.Set("Date", o.now().Format(http.TimeFormat))
	h.Set("Cache-Control", "no-cache,must-revalidate,max-age=0,no-store,private")
	h.Set("Vary", "Accept-Encoding")
	if rep.cut {
		cutDuring(w, rep)
	}
	if compressible(r, rep) {
		h.Set("Content-Encoding", "gzip")
		w.WriteHeader(rep.status)
		z := compressors.Get().(*gzip.Writer)
		defer compressors.Put(z)
		z.Reset(w)
		_, _ = z.Write(rep.body) // a reader that has gone is its own problem
		_ = z.Close()
		return
	}
	w.WriteHeader(rep.status)
	_, _ = w.Write(rep.body)
}

// compressors are used again: making one takes longer than compressing a reply does.
var compressors = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// cutDuring promises the whole body, sends half of it and closes the connection;
// of a reply without a body nothing comes. It does not return.
func cutDuring(w http.ResponseWriter, rep reply) {
	if len(rep.body) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(rep.body)))
		w.WriteHeader(rep.status)
		_, _ = w.Write(rep.body[:len(rep.body)/2]) // a reader that has gone is its own problem
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

func compressible(r *http.Request, rep reply) bool {
	return len(rep.body) > 1024 && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") &&
		strings.HasPrefix(rep.header.Get("Content-Type"), "application/json")
}

// answer finds the endpoint, applies the faults, and keeps the log.
func (o *Org) answer(c *call) (rep reply) {
	ep, allowed := o.endpoint(c)
	c.kind = ep.kind
	f := o.takeFault(c)
	defer func() {
		p := recover()
		o.record(c, rep.status)
		if p != nil {
			panic(p) // a cut connection
		}
	}()
	if rep, done := f.before(c.r.Context(), c.kind); done {
		return rep
	}
	switch {
	case len(c.r.RequestURI) > maxURI:
		rep = reply{status: http.StatusRequestURITooLong, body: []byte("<h1>Bad Message 414</h1><pre>reason: URI Too Long</pre>")}.with("Content-Type", "text/html;charset=iso-8859-1")
	case ep.do == nil && allowed != "":
		rep = (&Error{Status: 405, Code: "METHOD_NOT_ALLOWED", Message: fmt.Sprintf("HTTP Method '%s' not allowed. Allowed are %s", c.r.Method, allowed)}).reply()
	case ep.do == nil:
		rep = notFound().reply()
	case ep.public:
		rep = ep.do(c)
	default:
		rep = o.authorized(c, ep.do)
	}
	return f.after(rep)
}

// authorized runs an endpoint for a live session and counts the call.
func (o *Org) authorized(c *call, do func(*call) reply) reply {
	if c.sub {
		return do(c)
	}
	user, ok := o.authenticate(c.r)
	if !ok {
		return sessionInvalid().reply()
	}
	c.user = user
	used, limit := o.spend()
	if used > limit {
		return (&Error{Status: 403, Code: "REQUEST_LIMIT_EXCEEDED", Message: "TotalRequests Limit exceeded."}).reply().with("Sforce-Limit-Info", usageInfo(limit, limit))
	}
	return do(c).with("Sforce-Limit-Info", usageInfo(used, limit))
}

func usageInfo(used, limit int) string { return fmt.Sprintf("api-usage=%d/%d", used, limit) }

func (o *Org) spend() (used, limit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.usage++
	return o.usage, o.opt.RequestLimit
}

// endpoint finds what answers the path; allowed names the methods of a path
// that exists but not for this one.
func (o *Org) endpoint(c *call) (ep endpoint, allowed string) {
	ep.kind = KindUnknown
	for s := range strings.SplitSeq(strings.Trim(c.r.URL.EscapedPath(), "/"), "/") {
		u, err := url.PathUnescape(s)
		if err != nil {
			return ep, ""
		}
		c.segs = append(c.segs, u)
	}
	s := c.segs
	switch {
	case len(s) == 3 && s[0] == "services" && s[1] == "oauth2":
		return o.oauthEndpoint(c, s[2])
	case len(s) == 3 && s[0] == "id":
		return endpoint{KindIdentity, true, (*call).identity}, ""
	case len(s) == 2 && s[0] == "services" && s[1] == "data":
		return pick(c, methods{"GET": {KindVersions, true, (*call).versions}})
	case len(s) >= 3 && s[0] == "services" && s[1] == "data":
		c.version = strings.TrimPrefix(s[2], "v")
		if rep, ok := o.versionKnown(c.version); !ok {
			return endpoint{KindUnknown, true, func(*call) reply { return rep }}, ""
		}
		c.segs = s[3:]
		return o.dataEndpoint(c)
	}
	return ep, ""
}

// methods are the endpoints of one path.
type methods map[string]endpoint

func pick(c *call, m methods) (endpoint, string) {
	method := c.r.Method
	if o := c.r.URL.Query().Get("_HttpMethod"); method == http.MethodPost && o != "" {
		method = o // for clients that cannot send PATCH
	}
	if ep, ok := m[method]; ok {
		return ep, ""
	}
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return endpoint{kind: KindUnknown}, strings.Join(names, ",")
}

func (o *Org) dataEndpoint(c *call) (endpoint, string) {
	s := c.segs
	switch {
	case len(s) == 0:
		return pick(c, methods{"GET": {KindResources, false, (*call).resources}})
	case s[0] == "limits" && len(s) == 1:
		return pick(c, methods{"GET": {KindLimits, false, (*call).limits}})
	case (s[0] == "query" || s[0] == "queryAll") && len(s) == 1:
		return pick(c, methods{"GET": {KindQuery, false, (*call).query}})
	case (s[0] == "query" || s[0] == "queryAll") && len(s) == 2:
		return pick(c, methods{"GET": {KindQueryMore, false, (*call).queryMore}})
	case s[0] == "composite":
		return o.compositeEndpoint(c)
	case s[0] == "tooling" && len(s) > 1:
		return o.toolingEndpoint(c)
	case s[0] == "sobjects":
		return o.sobjectEndpoint(c)
	}
	return endpoint{kind: KindUnknown}, ""
}

func (o *Org) compositeEndpoint(c *call) (endpoint, string) {
	s := c.segs[1:]
	switch {
	case len(s) == 0:
		return pick(c, methods{"POST": {KindComposite, false, (*call).composite}})
	case s[0] == "sobjects" && len(s) == 1:
		return pick(c, methods{
			"POST":   {KindCollection, false, (*call).createMany},
			"PATCH":  {KindCollection, false, (*call).updateMany},
			"DELETE": {KindCollection, false, (*call).deleteMany},
		})
	case s[0] == "sobjects" && len(s) == 2:
		return pick(c, methods{
			"GET":  {KindCollection, false, (*call).getMany},
			"POST": {KindCollection, false, (*call).getMany},
		})
	}
	return endpoint{kind: KindUnknown}, ""
}

func (o *Org) sobjectEndpoint(c *call) (endpoint, string) {
	s := c.segs[1:]
	switch {
	case len(s) == 0:
		return pick(c, methods{"GET": {KindGlobalDescribe, false, (*call).globalDescribe}})
	case len(s) == 1:
		create := endpoint{KindCreate, false, (*call).create}
		if strings.EqualFold(s[0], "ContentVersion") {
			create.kind = KindUpload
		}
		return pick(c, methods{"GET": {KindDescribe, false, (*call).basicInfo}, "POST": create})
	case len(s) == 2 && s[1] == "describe":
		return pick(c, methods{"GET": {KindDescribe, false, (*call).describe}})
	case len(s) == 2 && s[1] == "updated":
		return pick(c, methods{"GET": {KindUpdated, false, (*call).updatedIDs}})
	case len(s) == 2 && s[1] == "deleted":
		return pick(c, methods{"GET": {KindDeleted, false, (*call).deletedIDs}})
	case len(s) == 2:
		return pick(c, methods{
			"GET":    {KindGet, false, (*call).get},
			"PATCH":  {KindUpdate, false, (*call).update},
			"DELETE": {KindDelete, false, (*call).delete},
		})
	case len(s) == 3 && strings.EqualFold(s[2], "VersionData"):
		return pick(c, methods{"GET": {KindDownload, false, (*call).download}})
	case len(s) == 3:
		return pick(c, methods{
			"GET":    {KindGet, false, (*call).getByExternalID},
			"PATCH":  {KindUpsert, false, (*call).upsert},
			"DELETE": {KindDelete, false, (*call).deleteByExternalID},
		})
	}
	return endpoint{kind: KindUnknown}, ""
}

// body reads the request's body, unpacking gzip, up to the org's limit.
func (c *call) body() (io.Reader, *Error) {
	var r io.Reader = c.r.Body
	if r == nil {
		r = strings.NewReader("")
	}
	if c.r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, jsonError("Not in GZIP format")
		}
		r = z
	}
	return &cappedReader{r: r, left: c.o.opt.MaxUpload}, nil
}

// cappedReader fails once more than its limit was read.
type cappedReader struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (l *cappedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLarge()
	}
	return n, err
}

func tooLarge() *Error {
	return &Error{Status: 413, Code: "REQUEST_ENTITY_TOO_LARGE", Message: "The request entity is too large."}
}

func jsonError(message string) *Error {
	return &Error{Status: 400, Code: "JSON_PARSER_ERROR", Message: message}
}

// decode reads a JSON body into v, keeping numbers as they were written.
func (c *call) decode(v any) *Error {
	r, e := c.body()
	if e != nil {
		return e
	}
	if ct := c.r.Header.Get("Content-Type"); ct != "" && !strings.Contains(ct, "json") {
		return &Error{Status: 415, Code: "UNSUPPORTED_MEDIA_TYPE", Message: "Content-Type " + ct + " is not supported"}
	}
	return decodeJSON(r, v)
}

func decodeJSON(r io.Reader, v any) *Error {
	d := json.NewDecoder(r)
	d.UseNumber()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	return jsonError(err.Error() + " at [line:1, column:" + strconv.FormatInt(d.InputOffset()+1, 10) + "]")
}

// versionKnown checks the API version of a path.
func (o *Org) versionKnown(v string) (reply, bool) {
	if slices.Contains(o.opt.Versions, v) {
		return reply{}, true
	}
	if n, err := strconv.ParseFloat(v, 64); err == nil && n < oldestVersion {
		return (&Error{Status: 410, Code: "GONE", Message: "The requested resource is no longer available"}).reply(), false
	}
	return notFound().reply(), false
}

func (c *call) versions() reply {
	var list []any
	for _, v := range c.o.opt.Versions {
		list = append(list, ordered{{"label", versionLabel(v)}, {"url", "/services/data/v" + v}, {"version", v}})
	}
	return jsonReply(200, list)
}

// versionLabel names the release of an API version: three a year, 60.0 being Spring '24.
func versionLabel(v string) string {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return v
	}
	since := int(n) - 60 + 3*24
	switch year := since / 3; since % 3 {
	case 0:
		return fmt.Sprintf("Spring '%02d", year)
	case 1:
		return fmt.Sprintf("Summer '%02d", year)
	default:
		return fmt.Sprintf("Winter '%02d", year+1)
	}
}

func (c *call) resources() reply {
	base := "/services/data/v" + c.version
	out := ordered{}
	for _, name := range []string{"composite", "limits", "query", "queryAll", "sobjects"} {
		out = append(out, member{name, base + "/" + name})
	}
	return jsonReply(200, append(out, member{"identity", c.identityURL()}))
}

func (c *call) limits() reply {
	c.o.mu.Lock()
	used, limit := c.o.usage, c.o.opt.RequestLimit
	c.o.mu.Unlock()
	return jsonReply(200, ordered{
		{"DailyApiRequests", ordered{{"Max", limit}, {"Remaining", max(0, limit-used)}}},
		{"DataStorageMB", ordered{{"Max", 1024}, {"Remaining", 1000}}},
		{"FileStorageMB", ordered{{"Max", 10240}, {"Remaining", 10000}}},
	})
}

// httpDate parses the value of a conditional header.
func httpDate(s string) (time.Time, *Error) {
	t, err := http.ParseTime(s)
	if err != nil {
		return t, &Error{Status: 400, Code: "INVALID_HEADER", Message: "Unable to parse date: " + s}
	}
	return t, nil
}
