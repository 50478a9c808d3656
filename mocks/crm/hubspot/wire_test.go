package hubspot_test

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
)

const testToken = "pat-na1-00000000-0000-0000-0000-000000000001"

// clock is a portal's time under the test's control.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// portal is a served portal and a bare client for it.
type portal struct {
	*hubspot.Portal
	t     *testing.T
	url   string
	clock *clock
	http  *http.Client
}

func start(t *testing.T, change func(*hubspot.Options)) *portal {
	t.Helper()
	c := &clock{t: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)}
	o := hubspot.Options{Now: c.now, Tokens: []hubspot.Token{{Value: testToken, Name: "DealSeal"}}}
	if change != nil {
		change(&o)
	}
	p := hubspot.New(o)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return &portal{Portal: p, t: t, url: s.URL, clock: c, http: s.Client()}
}

// object is a decoded JSON object; path walks it by keys and by list positions.
type object map[string]any

func (o object) path(keys ...any) any {
	var v any = map[string]any(o)
	for _, k := range keys {
		switch k := k.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

func (o object) text(keys ...any) string {
	s, _ := o.path(keys...).(string)
	return s
}

func (o object) list(keys ...any) []any {
	l, _ := o.path(keys...).([]any)
	return l
}

type answer struct {
	status int
	header http.Header
	raw    []byte
	object
}

func (p *portal) request(method, path string, body io.Reader, contentType string) (*http.Response, error) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return p.http.Do(req)
}

func (p *portal) do(method, path, body string) answer {
	p.t.Helper()
	return p.send(method, path, strings.NewReader(body), "application/json")
}

func (p *portal) send(method, path string, body io.Reader, contentType string) answer {
	p.t.Helper()
	resp, err := p.request(method, path, body, contentType)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: raw}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(raw, &a.object); err != nil {
			p.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	return a
}

// must is do for a call that has to have this status.
func (p *portal) must(status int, method, path, body string) answer {
	p.t.Helper()
	a := p.do(method, path, body)
	if a.status != status {
		p.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.raw)
	}
	return a
}

func (p *portal) form(path string, values url.Values) answer {
	p.t.Helper()
	return p.send("POST", path, strings.NewReader(values.Encode()), "application/x-www-form-urlencoded")
}

// upload sends the parts in the order of HubSpot's own client.
func (p *portal) upload(content, fileName, folder, options string, chunked bool) answer {
	p.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	part, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="file"; filename="` + fileName + `"`},
		"Content-Type":        {"application/pdf"},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	io.WriteString(part, content)
	if folder != "" {
		w.WriteField("folderPath", folder)
	}
	w.WriteField("fileName", fileName)
	if options != "" {
		w.WriteField("options", options)
	}
	w.Close()
	var r io.Reader = &body
	if chunked {
		r = io.MultiReader(&body) // hides the length from net/http
	}
	return p.send("POST", "/files/2026-03/files", r, w.FormDataContentType())
}

func (p *portal) deal(props map[string]string) string {
	p.t.Helper()
	id, err := p.CreateDeal(props)
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

func (p *portal) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *portal) fault(f hubspot.Fault) (id int) {
	p.t.Helper()
	id, err := p.SetFault(f)
	p.ok(err)
	return id
}
