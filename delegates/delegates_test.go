package delegates

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/esign"
	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

func find(t testing.TB, name string) Vendor {
	t.Helper()
	v, ok := Find(name)
	if !ok {
		t.Fatalf("there is no vendor %s", name)
	}
	return v
}

var at = time.Date(2026, 3, 15, 14, 32, 10, 0, time.UTC)

func TestEventsAreReadAsTheirVendorsWriteThem(t *testing.T) {
	want := map[string]deal.EnvelopeNews{"created": deal.EnvelopeCreated, "sent": deal.EnvelopeSent, "viewed": deal.EnvelopeViewed, "signed": deal.EnvelopeSigned,
		"completed": deal.EnvelopeCompleted, "declined": deal.EnvelopeDeclined, "voided": deal.EnvelopeVoided, "expired": deal.EnvelopeExpired, "failed": deal.EnvelopeFailed}
	read := 0
	for kind, name := range map[esign.Kind]string{esign.Certyneo: "certyneo", esign.CertyneoCRM: "certyneo", esign.SDF: "sdf"} {
		mock := esign.New(esign.Options{Kind: kind, URL: "https://api.example"})
		mock.Send("env_01HG", "Order 7")
		for what, news := range want {
			body, err := mock.Body("env_01HG", what, "too dear", at)
			if err != nil {
				continue // the vendor has no such event
			}
			read++
			told, err := find(t, name).Read(body)
			if err != nil || len(told) != 1 {
				t.Errorf("%s, %s: %v, %v", kind, what, told, err)
				continue
			}
			expected := deal.VendorEvent{Envelope: "env_01HG", News: news, At: at, Digest: told[0].Digest}
			if kind != esign.SDF {
				expected.Title = "Order 7"
				expected.URL = map[bool]string{true: "https://api.example/documents/env_01HG/proof.pdf"}[what == "completed"]
				expected.Reason = map[bool]string{true: "too dear"}[what == "declined"]
			}
			if diff := cmp.Diff(expected, told[0]); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", kind, what, diff)
			}
		}
	}
	if read != 8+6+5 {
		t.Errorf("%d events were read", read)
	}
}

func TestAnEventOfAnotherKindTellsNothingAndAMalformedOneIsRefused(t *testing.T) {
	for body, refused := range map[string]bool{
		`{"event":"recipient.bounced","envelope_id":"env_1","occurred_at":"2026-03-15T14:32:10Z","data":{}}`:                                                         false,
		`{"event":"envelope.sent","envelope_id":"","occurred_at":"2026-03-15T14:32:10Z","data":{}}`:                                                                  true,
		`{"event":"envelope.sent","envelope_id":"../1","occurred_at":"2026-03-15T14:32:10Z","data":{}}`:                                                              true,
		`{"event":"envelope.sent","envelope_id":"..","occurred_at":"2026-03-15T14:32:10Z","data":{}}`:                                                                true,
		`{"event":"envelope.sent","envelope_id":"env_1","occurred_at":"yesterday","data":{}}`:                                                                        true,
		`{"event":"envelope.completed","envelope_id":"e","occurred_at":"2026-03-15T14:32:10Z","data":{"proof_pdf_url":"` + strings.Repeat("x", longestURL+1) + `"}}`: true,
		`[]`: true, ``: true, `{"event":7}`: true,
	} {
		told, err := find(t, "certyneo").Read([]byte(body))
		if (err != nil) != refused || len(told) != 0 {
			t.Errorf("%.80s: %v, %v", body, told, err)
		}
	}
	if told, err := find(t, "sdf").Read([]byte(`{"event":"tenant.created","data":{}}`)); err != nil || told != nil {
		t.Errorf("SDF: %v, %v", told, err)
	}
}

func TestWhatPeopleHaveWrittenIsOneBoundedLine(t *testing.T) {
	body := `{"event":"envelope.declined","envelope_id":"e","occurred_at":"2026-03-15T14:32:10Z","data":{"decline_reason":"a\r\nb ` + strings.Repeat("ä", 2000) + `"}}`
	told, err := find(t, "certyneo").Read([]byte(body))
	if err != nil || len([]rune(told[0].Reason)) != longestText || !strings.HasPrefix(told[0].Reason, "a b ä") {
		t.Errorf("%d characters: %.20q, %v", len([]rune(told[0].Reason)), told[0].Reason, err)
	}
}

func FuzzEvent(f *testing.F) {
	for _, kind := range []esign.Kind{esign.Certyneo, esign.SDF} {
		body, err := esign.New(esign.Options{Kind: kind}).Body("env_1", "completed", "", at)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"event":"envelope.declined","envelope_id":"e","occurred_at":"2026-03-15T14:32:10Z","data":{"decline_reason":"\ud800"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		if len(body) > 64<<10 {
			return
		}
		for _, v := range Vendors {
			told, err := v.Read(body)
			for _, e := range told {
				if err != nil || !deal.IsEnvelopeID(e.Envelope) || e.News == "" || e.At.IsZero() && !bytes.Contains(body, []byte("0001-01-01")) || len([]rune(e.Reason)) > longestText || len(e.URL) > longestURL {
					t.Fatalf("%s: %+v, %v", v.Name, e, err)
				}
			}
		}
	})
}

func TestAnAddressOfDocumentsMustBeOne(t *testing.T) {
	for _, c := range []struct {
		vendor, documents string
		ok                bool
	}{
		{"certyneo", "https://api.example/v1/", true}, {"certyneo", "http://127.0.0.1:8/", true},
		{"certyneo", "https://api.example/v1", false}, {"certyneo", "https://api.example/{id}/", false}, {"certyneo", "https://api.example/?a=/", false},
		{"certyneo", "ftp://api.example/", false}, {"certyneo", "https://u:p@api.example/", false}, {"certyneo", "/v1/", false}, {"certyneo", "", false},
		{"sdf", "https://api.example/d/{id}/pdf", true}, {"sdf", "https://api.example/pdf?document={id}", true},
		{"sdf", "https://api.example/d/", false}, {"sdf", "https://{id}.example/", false}, {"sdf", "https://api.example/{id}/{id}", false},
	} {
		if _, err := NewSource(find(t, c.vendor), c.documents); (err == nil) != c.ok {
			t.Errorf("%s, %q: %v", c.vendor, c.documents, err)
		}
	}
}

// serve gives out a document to whoever asks with the token.
func serve(t *testing.T, header, token string, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(header) != token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func source(t *testing.T, vendor, documents, token string) *Source {
	t.Helper()
	s, err := NewSource(find(t, vendor), documents)
	if err != nil {
		t.Fatal(err)
	}
	s.Client = webhooks.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}).Client(s.Encrypted(), nil)
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Token, err = secret.ParseRef("file:" + path); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestADocumentIsFetchedFromItsVendorAndFromNowhereElse(t *testing.T) {
	elsewhere := serve(t, "Authorization", "Bearer sesame", func(http.ResponseWriter, *http.Request) { t.Error("another server was asked, with the token") })
	url := serve(t, "Authorization", "Bearer sesame", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/env_1/proof.pdf":
			w.Write([]byte("%PDF-" + r.URL.RawQuery))
		case "/v1/away":
			http.Redirect(w, r, elsewhere+"/v1/env_1", http.StatusFound)
		case "/v1/busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/v1/cut":
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("%PDF-"))
		case "/v1/large":
			w.Write(make([]byte, 2<<20))
		case "/v1/endless", "/v1/endless-cut":
			c, out, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			out.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%PDF-" + map[bool]string{true: "%%EOF\n"}[r.URL.Path == "/v1/endless"])
			out.Flush()
			c.Close()
		case "/v1/down":
			w.WriteHeader(http.StatusBadGateway)
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	})
	s := source(t, "certyneo", url+"/v1/", "sesame")
	for name, c := range map[string]struct {
		url       string
		want      string // of the document
		permanent bool
		says      string
	}{
		"as told":       {url + "/v1/env_1/proof.pdf?signature=x#page=1", "%PDF-signature=x", false, ""},
		"not told":      {"", "", true, "has not said where the document is"},
		"another host":  {elsewhere + "/v1/env_1/proof.pdf", "", true, "somewhere else"},
		"another user":  {strings.Replace(url, "://", "://u@", 1) + "/v1/env_1/proof.pdf", "", true, "somewhere else"},
		"above":         {url + "/v1/../admin", "", true, "somewhere else"},
		"above, hidden": {url + "/v1/%2e%2e/admin", "", true, "somewhere else"},
		"above, slash":  {url + "/v1/..%2Fadmin", "", true, "somewhere else"},
		"above, twice":  {url + "/v1/%252e%252e/admin", "", true, "somewhere else"},
		"no length":     {url + "/v1/endless", "%PDF-%%EOF\n", false, ""},
		"no length cut": {url + "/v1/endless-cut", "", false, "broke off"},
		"beside":        {url + "/v1x/env_1", "", true, "somewhere else"},
		"another way":   {"file:///etc/passwd", "", true, "somewhere else"},
		"no address":    {"://", "", true, "somewhere else"},
		"redirected":    {url + "/v1/away", "", true, "redirects are not followed"},
		"busy":          {url + "/v1/busy", "", false, "answers 429"},
		"down":          {url + "/v1/down", "", false, "answers 502"},
		"cut":           {url + "/v1/cut", "", false, "broke off"},
		"too large":     {url + "/v1/large", "", true, "larger than 1 MiB"},
	} {
		var got bytes.Buffer
		err := s.Fetch(context.Background(), "env_1", c.url, &got, 1<<20)
		switch {
		case c.says == "" && (err != nil || got.String() != c.want):
			t.Errorf("%s: %q, %v", name, got.String(), err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || deal.IsPermanent(err) != c.permanent):
			t.Errorf("%s: %v, permanent %t; want %q, %t", name, err, deal.IsPermanent(err), c.says, c.permanent)
		case err != nil && (strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "sesame")):
			t.Errorf("%s: the error tells the address or the token: %v", name, err)
		}
		if name == "busy" && deal.RetryAfter(err) != 7*time.Second {
			t.Errorf("what the vendor asks for is not heard: %s", deal.RetryAfter(err))
		}
	}
	s.Client = webhooks.NewGuard(nil).Client(false, nil)
	if err := s.Fetch(context.Background(), "env_1", url+"/v1/env_1/proof.pdf", new(bytes.Buffer), 1<<20); err == nil || !strings.Contains(err.Error(), "not allowed by outbound.allow") {
		t.Errorf("an address inside was reached without being allowed: %v", err)
	}
}

func TestTheAddressOfADocumentIsMadeOfItsID(t *testing.T) {
	url := serve(t, "X-API-Key", "sesame", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("%PDF-" + r.URL.Path)) })
	s := source(t, "sdf", url+"/d/{id}/pdf", "sesame")
	s.Header = "X-API-Key"
	var got bytes.Buffer
	if err := s.Fetch(context.Background(), "9b2a3f1c-1234", "https://elsewhere.example/", &got, 1<<20); err != nil || got.String() != "%PDF-/d/9b2a3f1c-1234/pdf" {
		t.Errorf("%q, %v", got.String(), err)
	}
}
