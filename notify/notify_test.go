package notify_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/smtp"
	"github.com/dealseal/dealseal/notify"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

const (
	someTx   = "abcdefghijklmnopqrstuvwxyz"
	someName = "Zażółć gęślą jaźń GmbH.pdf"
)

func held(reason string) notify.Incident {
	return notify.Incident{ID: 7, Kind: notify.Hold, Tenant: "acme", Opened: noon, Latest: noon, Events: 1, New: 1,
		Newest: []webhooks.Event{{Type: "document.held", At: noon, Transaction: someTx, Record: "006A", Data: map[string]string{"reason": reason}}}}
}

var house = notify.House{Page: "https://seal.example.com"}

// certified makes a certificate for 127.0.0.1, and the pool that knows its root.
func certified(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return &tls.Config{Certificates: server.TLS.Certificates}, roots
}

func startMail(t *testing.T, o smtp.Options) *smtp.Server {
	t.Helper()
	s, err := smtp.Start("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func password(t *testing.T, text string) secret.Ref {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := secret.ParseRef("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func mailbox(t *testing.T, s *smtp.Server, security string, roots *x509.CertPool) *notify.Mailbox {
	t.Helper()
	at := netip.MustParseAddrPort(s.Address)
	return &notify.Mailbox{Host: at.Addr().String(), Port: int(at.Port()), Security: security, Roots: roots, From: "dealseal <seal@example.com>", To: "Operations <ops@example.com>"}
}

func TestMailGoesOverTLSWithALogin(t *testing.T) {
	cert, roots := certified(t)
	for _, security := range []string{notify.StartTLS, notify.ImplicitTLS} {
		t.Run(security, func(t *testing.T) {
			s := startMail(t, smtp.Options{TLS: cert, Implicit: security == notify.ImplicitTLS, User: "seal", Password: "open sesame"})
			b := mailbox(t, s, security, roots)
			b.User, b.Password = "seal", password(t, "open sesame")
			if err := b.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(s.Taken()) != 0 || s.Logins() != 1 {
				t.Errorf("the probe left %d messages and logged in %d times", len(s.Taken()), s.Logins())
			}
			m := house.Message([]notify.Incident{held("the PIN was refused <b>\r\nBcc: victim@example.com")})
			if err := b.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			taken := s.Taken()
			if len(taken) != 1 || !taken[0].TLS || taken[0].User != "seal" || taken[0].From != "seal@example.com" || taken[0].To != "ops@example.com" {
				t.Fatalf("%+v", taken)
			}
			got := taken[0]
			if got.Header.Get("Subject") != "[dealseal] acme: a deal waits for a person" || got.Header.Get("Auto-Submitted") != "auto-generated" || got.Header.Get("Bcc") != "" {
				t.Errorf("%v", got.Header)
			}
			if got.Header.Get("Message-ID") != "<"+m.ID+"@example.com>" {
				t.Errorf("Message-ID %s", got.Header.Get("Message-ID"))
			}
			for _, want := range []string{"https://seal.example.com/deals/" + someTx, "the PIN was refused", "text/plain", "text/html", "&lt;b&gt;"} {
				if !strings.Contains(strings.ReplaceAll(got.Body, "=\r\n", ""), want) {
					t.Errorf("the message has no %q:\n%s", want, got.Body)
				}
			}
		})
	}
}

func TestNothingIsSaidInTheClear(t *testing.T) {
	cert, roots := certified(t)
	for name, c := range map[string]struct {
		server   smtp.Options
		security string
		roots    *x509.CertPool
		user     string
		want     string
	}{
		"no STARTTLS":          {smtp.Options{}, notify.StartTLS, roots, "seal", "offers no STARTTLS"},
		"unknown certificate":  {smtp.Options{TLS: cert}, notify.StartTLS, x509.NewCertPool(), "seal", "the mail server's certificate"},
		"unknown, implicit":    {smtp.Options{TLS: cert, Implicit: true}, notify.ImplicitTLS, x509.NewCertPool(), "seal", "the mail server's certificate"},
		"wrong password":       {smtp.Options{TLS: cert, User: "seal", Password: "another"}, notify.StartTLS, roots, "seal", "535"},
		"no login where asked": {smtp.Options{TLS: cert, User: "seal", Password: "open sesame"}, notify.StartTLS, roots, "", "502"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startMail(t, c.server)
			b := mailbox(t, s, c.security, c.roots)
			if b.User = c.user; c.user != "" {
				b.Password = password(t, "open sesame")
			}
			err := b.Send(t.Context(), house.Message([]notify.Incident{held("x")}))
			if err == nil || !strings.Contains(notify.Problem(err), c.want) || strings.Contains(notify.Problem(err), "sesame") {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
			if len(s.Taken()) != 0 {
				t.Error("something was taken")
			}
		})
	}
	b := &notify.Mailbox{Host: "192.0.2.1", Port: 25, Security: notify.Plain, From: "a@example.com", To: "b@example.com"}
	if err := b.Probe(t.Context()); err == nil || !strings.Contains(notify.Problem(err), "on this machine") {
		t.Errorf("a server elsewhere is spoken to without TLS: %v", err)
	}
}

func TestAServerThatRefusesIsToldInWords(t *testing.T) {
	s := startMail(t, smtp.Options{})
	s.Fail(1)
	b := mailbox(t, s, notify.Plain, nil)
	m := house.Message([]notify.Incident{held("x")})
	if err := b.Send(t.Context(), m); err == nil || !strings.Contains(notify.Problem(err), "no room for it") {
		t.Errorf("%v", err)
	}
	if err := b.Send(t.Context(), m); err != nil || len(s.Taken()) != 1 {
		t.Errorf("%v, %d taken", err, len(s.Taken()))
	}
}

// called sends incidents to a receiver and returns the bodies that arrived.
func called(t *testing.T, form notify.Form, single bool, incidents ...notify.Incident) (bodies []map[string]any) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		var body map[string]any
		if err != nil || json.Unmarshal(text, &body) != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("it is no JSON: %s, %v", text, err)
		}
		bodies = append(bodies, body)
	}))
	defer server.Close()
	h := &notify.Hook{Client: webhooks.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}).Client(false, nil), Form: form, Single: single,
		URL: func() (string, error) { return server.URL + "/secret-token", nil }}
	for _, in := range incidents {
		if err := h.Send(t.Context(), house.Message([]notify.Incident{in})); err != nil {
			t.Fatal(err)
		}
	}
	return bodies
}

func TestPagerDutyOpensAnIncidentAndResolvesIt(t *testing.T) {
	over := held("x")
	over.Closed, over.New, over.Newest = noon.Add(time.Minute), 0, nil
	got := called(t, notify.PagerDuty{RoutingKey: func() (string, error) { return "routing-key", nil }}, true, held("the PIN was refused"), over)
	if len(got) != 2 || got[0]["event_action"] != "trigger" || got[1]["event_action"] != "resolve" || got[0]["dedup_key"] != got[1]["dedup_key"] || got[0]["routing_key"] != "routing-key" {
		t.Fatalf("%v", got)
	}
	payload := got[0]["payload"].(map[string]any)
	if payload["severity"] != "warning" || payload["summary"] != "acme: a deal waits for a person" || payload["timestamp"] != "2026-03-04T12:00:00Z" || payload["source"] == "" {
		t.Errorf("%v", payload)
	}
	other := held("x")
	other.ID, other.Opened = 8, noon.Add(time.Hour)
	if again := called(t, notify.PagerDuty{RoutingKey: func() (string, error) { return "k", nil }}, true, other); again[0]["dedup_key"] == got[0]["dedup_key"] {
		t.Error("another incident has the same key")
	}
}

func TestSlackGetsOneTextInWhichNothingForeignIsMarkup(t *testing.T) {
	got := called(t, notify.Slack{}, false, held("<!channel> & more"))
	text := got[0]["text"].(string)
	if !strings.Contains(text, "&lt;!channel&gt; &amp; more") || !strings.Contains(text, "<https://seal.example.com/deals/"+someTx+"|"+someTx+">") {
		t.Error(text)
	}
}

func TestACustomShapeMakesJSONOfAMessage(t *testing.T) {
	shape, err := notify.ParseShape(`{"title": {{json .Subject}}, "lines": [{{range $i, $item := .Items}}{{if $i}},{{end}}{{json $item.Lines}}{{end}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	got := called(t, shape, false, held("\"quoted\"\n"))
	if got[0]["title"] != "[dealseal] acme: a deal waits for a person" {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{`{"title": {{.Subject}}}`, `{{.Nothing}}`, `{{`, `{"x": "{{range .Items}}{{.Nothing}}{{end}}"}`} {
		if _, err := notify.ParseShape(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestHeadersThatAreSecretsAreReadForEachCallAndNeverTold(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.Header.Get("Authorization")+" "+r.Header.Get("X-Team"))
	}))
	defer server.Close()
	value, trouble := "Bearer one", error(nil)
	h := &notify.Hook{Client: webhooks.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}).Client(false, nil), Form: notify.Slack{}, URL: func() (string, error) { return server.URL, nil },
		Headers: map[string]string{"X-Team": "contracts"}, HeadersFrom: map[string]func() (string, error){"Authorization": func() (string, error) { return value, trouble }}}
	send := func() error { return h.Send(t.Context(), house.Message([]notify.Incident{held("x")})) }
	if err := send(); err != nil {
		t.Fatal(err)
	}
	value = "Bearer two"
	if err := errors.Join(send(), h.Probe(t.Context())); err != nil {
		t.Fatal(err)
	}
	if want := []string{"POST Bearer one contracts", "POST Bearer two contracts", "HEAD Bearer two contracts"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	value = "Bearer hidden\r\nX-Other: 1"
	for _, err := range []error{send(), h.Probe(t.Context())} {
		if err == nil || strings.Contains(notify.Problem(err)+err.Error(), "hidden") {
			t.Errorf("%v", err)
		}
	}
	value, trouble = "Bearer three", errors.New("its header Authorization cannot be read")
	for _, err := range []error{send(), h.Probe(t.Context())} {
		if err == nil || notify.Problem(err) != trouble.Error() {
			t.Errorf("%v", err)
		}
	}
	if len(got) != 3 {
		t.Errorf("called without its header: %q", got)
	}
}

func TestACallReachesNothingInside(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was reached") }))
	defer server.Close()
	h := &notify.Hook{Client: webhooks.NewGuard(nil).Client(false, nil), Form: notify.Slack{}, URL: func() (string, error) { return server.URL + "/token=hidden", nil }}
	for what, err := range map[string]error{"send": h.Send(t.Context(), house.Message([]notify.Incident{held("x")})), "probe": h.Probe(t.Context())} {
		if err == nil || !strings.Contains(notify.Problem(err), "outbound.allow") || strings.Contains(notify.Problem(err), "hidden") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAReceiverThatAsksForPatienceGetsIt(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer server.Close()
	h := &notify.Hook{Client: webhooks.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}).Client(false, nil), Form: notify.Slack{}, URL: func() (string, error) { return server.URL, nil }}
	err := h.Send(t.Context(), house.Message([]notify.Incident{held("x")}))
	asks, ok := err.(interface{ RetryAfter() time.Duration })
	if !ok || asks.RetryAfter() != 10*time.Minute || notify.Problem(err) != "it answered 429" {
		t.Errorf("%v", err)
	}
}

func TestADigestCountsWhatItDoesNotList(t *testing.T) {
	in := held("x")
	in.Events, in.New = 4000, 4000
	m := house.Message([]notify.Incident{in, {ID: 9, Kind: notify.Failure, Tenant: "globex", Opened: noon, Events: 1, New: 1}})
	text, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != "[dealseal] globex: a deal was given up; acme: 4000 deals wait for a person" || !strings.Contains(text, "and 3999 more: https://seal.example.com/deals?state=held") {
		t.Errorf("%s\n%s", m.Subject, text)
	}
	again := house.Message([]notify.Incident{in, {ID: 9, Kind: notify.Failure, Tenant: "globex", Opened: noon, Events: 1, New: 1}})
	if again.ID != m.ID {
		t.Error("the same has another ID when it is told again")
	}
}

func TestANameIsOneLine(t *testing.T) {
	in := held("x")
	in.Newest[0].Title = "Quote\r\n\r\nWhat to do: pay " + strings.Repeat("9", 1000) + ".pdf"
	m := house.Message([]notify.Incident{in})
	text, err := m.Text()
	if err != nil || strings.Contains(text, "\nWhat to do: pay") || !strings.Contains(text, "Quote What to do: pay 9") || len(text) > 1000 {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestEveryEventThatPeopleAreToldOfHasASentence also finds fields that the catalogue does not have.
func TestEveryEventThatPeopleAreToldOfHasASentence(t *testing.T) {
	kinds := map[notify.Kind]bool{}
	for _, event := range webhooks.Catalogue {
		kind, told := notify.Opens(event.Name)
		if !told {
			continue
		}
		kinds[kind] = true
		e := webhooks.Sample(event, "acme", noon)
		for name := range e.Data {
			e.Data[name] = "value-of-" + name
		}
		m := house.Message([]notify.Incident{{ID: 1, Kind: kind, Opened: noon, Events: 1, New: 1, Newest: []webhooks.Event{e}}})
		text, err := m.Text()
		if err != nil || strings.Contains(text, event.Name) && !strings.Contains(text, "value-of-") && len(e.Data) > 0 {
			t.Errorf("%s: %v\n%s", event.Name, err, text)
		}
		if _, err := m.HTML(); err != nil {
			t.Errorf("%s: %v", event.Name, err)
		}
		if event.Name == "key.limit_reached" && !strings.Contains(text, "value-of-spki") {
			t.Errorf("it is not said which key has sealed enough: %s", text)
		}
		if strings.Contains(text, "%!") {
			t.Errorf("%s: %s", event.Name, text)
		}
	}
	for _, k := range notify.Kinds {
		if !kinds[k] {
			t.Errorf("no event of the catalogue is of kind %s", k)
		}
	}
}
