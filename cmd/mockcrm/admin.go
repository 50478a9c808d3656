package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
)

// maxBody bounds what the admin endpoint reads of one call, in bytes.
const maxBody = 64 << 20

// newAdmin serves the admin endpoint; c may be completed until the first call.
func newAdmin(org *salesforce.Org, portal *hubspot.Portal, c *credentials) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, manual) })
	mux.Handle("GET /credentials", answer(func(*http.Request) (any, error) { return c, nil }))
	salesforceRoutes(mux, org)
	hubspotRoutes(mux, portal)
	return mux
}

// answer turns a function into a handler: its value or its error as JSON.
type answer func(*http.Request) (any, error)

// missing marks an error as that of something that does not exist.
type missing struct{ error }

func (f answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	v, err := f(r)
	status := http.StatusOK
	if err != nil {
		status, v = http.StatusBadRequest, map[string]string{"error": err.Error()}
		if errors.As(err, new(missing)) {
			status = http.StatusNotFound
		}
	}
	if d, ok := v.(download); ok {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": d.name}))
		w.Write(d.content) // the client may be gone
		return
	}
	if v == nil {
		v = struct{}{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // as above
}

// download is the content of a file.
type download struct {
	name    string
	content []byte
}

// decode reads the body strictly: a field that has no meaning is an error.
func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("the body is not the JSON that %s %s takes: %w", r.Method, r.URL.Path, err)
	}
	return nil
}

// duration is a time.Duration in JSON: "1.5s".
type duration time.Duration

func (d *duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("a duration is a string such as \"5s\", not %s", b)
	}
	v, err := time.ParseDuration(s)
	*d = duration(v)
	return err
}

// upload reads the body as the content of a new file.
func upload(r *http.Request) (name string, content []byte, err error) {
	if name = r.URL.Query().Get("name"); name == "" {
		return "", nil, errors.New("?name= is missing: what is the file called?")
	}
	content, err = io.ReadAll(r.Body)
	return name, content, err
}

// faults are the faults of one CRM.
type faults[F any] struct {
	set      func(F) (int, error)
	list     func() []F
	clear    func(int) bool
	clearAll func()
}

func (f faults[F]) routes(mux *http.ServeMux, prefix string) {
	mux.Handle("GET "+prefix+"/faults", answer(func(*http.Request) (any, error) { return map[string]any{"faults": f.list()}, nil }))
	mux.Handle("POST "+prefix+"/faults", answer(func(r *http.Request) (any, error) {
		var fault F
		if err := decodeFault(r, &fault); err != nil {
			return nil, err
		}
		id, err := f.set(fault)
		return map[string]int{"id": id}, err
	}))
	mux.Handle("DELETE "+prefix+"/faults", answer(func(*http.Request) (any, error) {
		f.clearAll()
		return nil, nil
	}))
	mux.Handle("DELETE "+prefix+"/faults/{n}", answer(func(r *http.Request) (any, error) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || !f.clear(n) {
			return nil, missing{fmt.Errorf("there is no fault %s", r.PathValue("n"))}
		}
		return nil, nil
	}))
}

// decodeFault takes durations as text, where the mocks count nanoseconds.
func decodeFault(r *http.Request, fault any) error {
	var fields map[string]any
	if err := decode(r, &fields); err != nil {
		return err
	}
	for _, name := range []string{"delay", "retryAfter"} {
		s, ok := fields[name].(string)
		if !ok {
			continue
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fields[name] = d
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(fault); err != nil {
		return fmt.Errorf("not a fault: %w", err)
	}
	return nil
}

// requestRoutes serves the request log of one CRM.
func requestRoutes[K ~string, R any](mux *http.ServeMux, prefix string, counts func() map[K]int, list func() []R, reset func()) {
	mux.Handle("GET "+prefix+"/requests", answer(func(*http.Request) (any, error) {
		return map[string]any{"counts": counts(), "requests": list()}, nil
	}))
	mux.Handle("DELETE "+prefix+"/requests", answer(func(*http.Request) (any, error) {
		reset()
		return nil, nil
	}))
}
