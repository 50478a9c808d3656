package salesforce

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const (
	maxCollection = 200
	maxSubCalls   = 25
	maxChunks     = 10 // runs of one type in a collection
)

// collection is the body of a call for many records.
type collection struct {
	AllOrNone bool             `json:"allOrNone"`
	Records   []map[string]any `json:"records"`
}

// saveResult is one record's outcome; its error has a statusCode, not an errorCode.
func saveResult(id string, err *Error) ordered {
	if err == nil {
		return ordered{{"id", id}, {"success", true}, {"errors", []any{}}}
	}
	fields := err.Fields
	if fields == nil {
		fields = []string{}
	}
	out := ordered{}
	if id != "" {
		out = append(out, member{"id", id})
	}
	return append(out, member{"success", false},
		member{"errors", []any{ordered{{"statusCode", err.Code}, {"message", err.Message}, {"fields", fields}}}})
}

// forEach runs one step per record in one transaction; with allOrNone a single
// failure undoes all and the innocent are told so.
func (c *call) forEach(n int, allOrNone bool, step func(*tx, int) (string, *Error)) reply {
	results, failed := make([]ordered, n), make([]bool, n)
	_ = c.transact(func(t *tx) *Error {
		start, bad := len(t.undo), false
		for i := range n {
			mark := len(t.undo)
			id, err := step(t, i)
			if err != nil {
				t.rollback(mark)
				failed[i], bad = true, true
			}
			results[i] = saveResult(id, err)
		}
		if bad && allOrNone {
			t.rollback(start)
			for i := range results {
				if !failed[i] {
					results[i] = saveResult("", &Error{Code: "ALL_OR_NONE_OPERATION_ROLLED_BACK", Message: "Record rolled back because not all records were valid and the request was using AllOrNone header"})
				}
			}
		}
		return nil // each record carries its own error
	})
	return jsonReply(200, results)
}

func (c *call) readCollection() (in collection, err *Error) {
	if err := c.decode(&in); err != nil {
		return in, err
	}
	if len(in.Records) > maxCollection {
		return in, tooMany(maxCollection)
	}
	chunks, last := 0, ""
	for _, r := range in.Records {
		if t := typeOf(r); t != last {
			chunks, last = chunks+1, t
		}
	}
	if chunks > maxChunks {
		return in, &Error{Status: 400, Code: "LIMIT_EXCEEDED", Message: "record type chunks exceed the limit of " + strconv.Itoa(maxChunks)}
	}
	return in, nil
}

func tooMany(limit int) *Error {
	return &Error{Status: 400, Code: "EXCEEDED_MAX_SIZE_REQUEST", Message: "record limit reached. cannot submit more than " + strconv.Itoa(limit) + " records in this request"}
}

func typeOf(record map[string]any) string {
	attributes, _ := record["attributes"].(map[string]any)
	name, _ := attributes["type"].(string)
	return name
}

func (c *call) createMany() reply {
	in, err := c.readCollection()
	if err != nil {
		return err.reply()
	}
	return c.forEach(len(in.Records), in.AllOrNone, func(t *tx, i int) (string, *Error) {
		return t.create(typeOf(in.Records[i]), in.Records[i])
	})
}

func (c *call) updateMany() reply {
	in, err := c.readCollection()
	if err != nil {
		return err.reply()
	}
	return c.forEach(len(in.Records), in.AllOrNone, func(t *tx, i int) (string, *Error) {
		record, id := in.Records[i], ""
		for k, v := range record { // clients write id or Id
			if strings.EqualFold(k, "id") {
				id, _ = v.(string)
				delete(record, k)
			}
		}
		def := c.o.object(typeOf(record))
		if def == nil {
			return "", &Error{Code: "INVALID_TYPE", Message: "sObject type '" + typeOf(record) + "' is not supported."}
		}
		r, err := c.o.lockable(def, id)
		if err != nil {
			return "", err
		}
		return r.id, t.update(r, record)
	})
}

func (c *call) deleteMany() reply {
	q := c.r.URL.Query()
	ids := strings.Split(q.Get("ids"), ",")
	if len(ids) > maxCollection {
		return tooMany(maxCollection).reply()
	}
	return c.forEach(len(ids), q.Get("allOrNone") == "true", func(t *tx, i int) (string, *Error) {
		full, _ := canonicalID(strings.TrimSpace(ids[i]))
		def := c.o.byPrefix(full)
		if def == nil {
			return "", &Error{Code: "MALFORMED_ID", Message: "malformed id " + ids[i]}
		}
		r, err := c.o.lockable(def, full)
		if err != nil {
			return "", err
		}
		return r.id, t.remove(r)
	})
}

// getMany reads records by ID, from the body or from the address; one that
// cannot be found is null.
func (c *call) getMany() reply {
	var in struct {
		IDs    []string `json:"ids"`
		Fields []string `json:"fields"`
	}
	if q := c.r.URL.Query(); c.r.Method == http.MethodGet {
		in.IDs, in.Fields = strings.Split(q.Get("ids"), ","), strings.Split(q.Get("fields"), ",")
	} else if err := c.decode(&in); err != nil {
		return err.reply()
	}
	if len(in.IDs) > maxPage {
		return tooMany(maxPage).reply()
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, err := c.typeNamed(c.segs[2])
	if err != nil {
		return err.reply()
	}
	fields, err := c.o.fieldsNamed(def, in.Fields)
	if err != nil {
		return err.reply()
	}
	out := make([]any, len(in.IDs))
	for i, id := range in.IDs {
		if r, err := c.o.find(def, id); err == nil {
			out[i] = c.record(def, r, fields)
		}
	}
	return jsonReply(200, out)
}

// compositeBody is the body of a composite request.
type compositeBody struct {
	AllOrNone bool      `json:"allOrNone"`
	Requests  []subCall `json:"compositeRequest"`
}

// subCall is one request inside a composite one.
type subCall struct {
	Method      string            `json:"method"`
	URL         string            `json:"url"`
	ReferenceID string            `json:"referenceId"`
	Headers     map[string]string `json:"httpHeaders"`
	Body        json.RawMessage   `json:"body"`
}

// composite runs up to 25 requests in their order as one API call. With
// allOrNone they share a transaction.
func (c *call) composite() reply {
	var in compositeBody
	if err := c.decode(&in); err != nil {
		return err.reply()
	}
	if len(in.Requests) > maxSubCalls {
		return (&Error{Status: 400, Code: "LIMIT_EXCEEDED", Message: fmt.Sprintf("Limit exceeded. Maximum number of subrequests is %d", maxSubCalls)}).reply()
	}
	if in.AllOrNone {
		return c.allOrNone(in.Requests)
	}
	replies, results := make([]reply, len(in.Requests)), map[string]any{}
	for i, sub := range in.Requests {
		if replies[i] = c.subReply(sub, nil, results); replies[i].whole {
			return replies[i]
		}
	}
	return broken(compositeReply(in.Requests, replies), replies)
}

// broken lets a composite reply break off where one of its parts does.
func broken(all reply, parts []reply) reply {
	for _, r := range parts {
		all.cut = all.cut || r.cut
		if r.half && !all.half {
			all = all.truncated()
		}
	}
	return all
}

// allOrNone runs the requests as one transaction that the first failure, or a
// cut connection, undoes.
func (c *call) allOrNone(requests []subCall) reply {
	c.o.exclusive.Lock()
	defer c.o.exclusive.Unlock()
	c.o.mu.Lock()
	t := c.o.begin(c.user)
	t.origin = c.origin()
	c.o.mu.Unlock()
	committed := false
	defer func() {
		if !committed {
			c.o.mu.Lock()
			defer c.o.mu.Unlock()
			t.rollback(0)
		}
	}()
	replies, results := make([]reply, len(requests)), map[string]any{}
	for i, sub := range requests {
		if replies[i] = c.subReply(sub, t, results); replies[i].status >= 300 {
			return compositeReply(requests, halt(replies, i))
		}
	}
	committed = true
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	t.commit()
	return compositeReply(requests, replies)
}

// halt tells all but the failed request that they were undone or not begun.
func halt(replies []reply, failed int) []reply {
	halted := &Error{Status: 400, Code: "PROCESSING_HALTED", Message: "The transaction was rolled back since another operation in the same transaction failed."}
	for i := range replies {
		if i != failed {
			replies[i] = halted.reply()
		}
	}
	return replies
}

func compositeReply(requests []subCall, replies []reply) reply {
	out := make([]any, len(requests))
	for i, r := range replies {
		var body any
		if len(r.body) > 0 {
			body = json.RawMessage(r.body)
			if !json.Valid(r.body) {
				body = string(r.body)
			}
		}
		headers := map[string]string{}
		if l := r.header.Get("Location"); l != "" {
			headers["Location"] = l
		}
		out[i] = ordered{{"body", body}, {"httpHeaders", headers}, {"httpStatusCode", r.status}, {"referenceId", requests[i].ReferenceID}}
	}
	return jsonReply(200, ordered{{"compositeResponse", out}})
}

// subReply answers one request of a composite one; t is the shared transaction, if any.
func (c *call) subReply(s subCall, t *tx, results map[string]any) reply {
	u, err := url.Parse(resolveReferences(s.URL, results, url.QueryEscape))
	if err != nil || !strings.HasPrefix(u.Path, "/services/data/") || strings.HasSuffix(strings.Trim(u.Path, "/"), "/composite") {
		return (&Error{Status: 400, Code: "INVALID_INPUT", Message: "a subrequest cannot call " + excerpt(s.URL)}).reply()
	}
	body := resolveReferences(string(s.Body), results, func(v string) string { return strings.Trim(string(marshal(v)), `"`) })
	r, err := http.NewRequestWithContext(c.r.Context(), s.Method, u.String(), strings.NewReader(body))
	if err != nil {
		return (&Error{Status: 400, Code: "INVALID_INPUT", Message: "the subrequest is malformed"}).reply()
	}
	r.RequestURI = u.String()
	r.Host = c.r.Host
	r.Header.Set("Sforce-Call-Options", c.r.Header.Get("Sforce-Call-Options"))
	for k, v := range s.Headers {
		r.Header.Set(k, v)
	}
	rep := c.o.answer(&call{o: c.o, r: r, sub: true, user: c.user, tx: t})
	var value any
	if decodeJSON(bytes.NewReader(rep.body), &value) == nil {
		results[s.ReferenceID] = value
	}
	return rep
}

// reference is the form of a value taken from an earlier reply: @{ref.path[0].field}.
var reference = regexp.MustCompile(`@\{([A-Za-z0-9_]+)((?:\.[A-Za-z0-9_]+|\[\d+\])*)\}`)

// step is one part of a reference's path.
var step = regexp.MustCompile(`\.([A-Za-z0-9_]+)|\[(\d+)\]`)

// resolveReferences puts values of earlier replies, escaped for their place,
// into a text; one that cannot be found stays as it is.
func resolveReferences(text string, results map[string]any, escape func(string) string) string {
	if !strings.Contains(text, "@{") { // a file, most often
		return text
	}
	return reference.ReplaceAllStringFunc(text, func(match string) string {
		m := reference.FindStringSubmatch(match)
		v := results[m[1]]
		for _, s := range step.FindAllStringSubmatch(m[2], -1) {
			if s[1] != "" {
				fields, _ := v.(map[string]any)
				v = fields[s[1]]
				continue
			}
			list, _ := v.([]any)
			i, err := strconv.Atoi(s[2])
			if err != nil || i >= len(list) {
				return match
			}
			v = list[i]
		}
		switch v := v.(type) {
		case string:
			return escape(v)
		case json.Number:
			return v.String()
		case bool:
			return strconv.FormatBool(v)
		}
		return match
	})
}
