package salesforce

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// testKey is one RSA key for all tests of the package: making one is slow.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// wire is an org behind a real connection, and a session.
type wire struct {
	t     *testing.T
	org   *Org
	clock *clock
	url   string
	token string
}

func newWire(t *testing.T, opt Options) *wire {
	t.Helper()
	c := &clock{at: time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC)}
	opt.Now = c.now
	opt.ConsumerKey, opt.ClientSecret, opt.PublicKey = "3MVG9consumer", "s3cret", &testKey().PublicKey
	org := New(opt)
	srv := httptest.NewServer(org)
	t.Cleanup(srv.Close)
	w := &wire{t: t, org: org, clock: c, url: srv.URL}
	w.login()
	return w
}

func (w *wire) login() {
	w.t.Helper()
	res := w.form("/services/oauth2/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"3MVG9consumer"}, "client_secret": {"s3cret"}})
	w.token, _ = res.object()["access_token"].(string)
	if w.token == "" {
		w.t.Fatalf("no access token: %s", res.body)
	}
}

// response is a reply that was read to its end.
type response struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

func (r response) object() map[string]any {
	r.t.Helper()
	var v map[string]any
	r.into(&v)
	return v
}

func (r response) into(v any) {
	r.t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		r.t.Fatalf("status %d: body is not the JSON expected: %v\n%s", r.status, err, r.body)
	}
}

// errorCode is the code of the first error in the list.
func (r response) errorCode() string {
	r.t.Helper()
	var list []struct{ ErrorCode, Message string }
	r.into(&list)
	if len(list) == 0 {
		return ""
	}
	return list[0].ErrorCode
}

// want fails unless the call was answered with the status and error code.
func (r response) want(status int, code string) response {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status = %d, want %d\n%s", r.status, status, r.body)
	}
	if code != "" && r.errorCode() != code {
		r.t.Fatalf("error code = %q, want %q\n%s", r.errorCode(), code, r.body)
	}
	return r
}

func (w *wire) send(req *http.Request) (response, error) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return response{w.t, res.StatusCode, res.Header, body}, err
}

func (w *wire) must(req *http.Request) response {
	w.t.Helper()
	res, err := w.send(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func (w *wire) request(method, path string, body io.Reader, header ...string) *http.Request {
	w.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

const base = "/services/data/v66.0"

func (w *wire) call(method, path, body string, header ...string) response {
	w.t.Helper()
	req := w.request(method, base+path, strings.NewReader(body), header...)
	if body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return w.must(req)
}

func (w *wire) form(path string, v url.Values, header ...string) response {
	w.t.Helper()
	req := w.request("POST", path, strings.NewReader(v.Encode()), header...)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return w.must(req)
}

type queryResult struct {
	TotalSize      int              `json:"totalSize"`
	Done           bool             `json:"done"`
	NextRecordsURL string           `json:"nextRecordsUrl"`
	Records        []map[string]any `json:"records"`
}

func (w *wire) ask(soql string, header ...string) response {
	w.t.Helper()
	return w.call("GET", "/query?q="+url.QueryEscape(soql), "", header...)
}

func (w *wire) query(soql string, header ...string) queryResult {
	w.t.Helper()
	var q queryResult
	w.ask(soql, header...).want(200, "").into(&q)
	return q
}

// opportunity makes one and returns its ID.
func (w *wire) opportunity(fields map[string]any) string {
	w.t.Helper()
	id, err := w.org.CreateOpportunity(fields)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *wire) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) fault(f Fault) int {
	w.t.Helper()
	id, err := w.org.SetFault(f)
	w.ok(err)
	return id
}

// assertion signs a JWT with the test key; changes override the claims.
func (w *wire) assertion(alg string, changes map[string]any) string {
	w.t.Helper()
	claims := map[string]any{"iss": "3MVG9consumer", "sub": "integration@acme.example", "aud": "https://login.salesforce.com",
		"exp": w.clock.now().Add(3 * time.Minute).Unix()}
	maps.Copy(claims, changes)
	part := func(v any) string {
		b, err := json.Marshal(v)
		w.ok(err)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]any{"alg": alg}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, testKey(), crypto.SHA256, sum[:])
	w.ok(err)
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// filePart is a part of a multipart upload.
type filePart struct{ name, filename, contentType, body string }

func (w *wire) multipart(parts ...filePart) response {
	w.t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for _, p := range parts {
		h := textproto.MIMEHeader{"Content-Type": {p.contentType}}
		disposition := `form-data; name="` + p.name + `"`
		if p.filename != "" {
			disposition += `; filename="` + p.filename + `"`
		}
		h.Set("Content-Disposition", disposition)
		pw, err := m.CreatePart(h)
		w.ok(err)
		_, err = io.WriteString(pw, p.body)
		w.ok(err)
	}
	w.ok(m.Close())
	return w.must(w.request("POST", base+"/sobjects/ContentVersion", &b, "Content-Type", m.FormDataContentType()))
}

// line writes values with a space between them.
func line(values ...any) string { return strings.TrimSpace(fmt.Sprintln(values...)) }

func zipped(t *testing.T, s string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}
