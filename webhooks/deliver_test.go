package webhooks

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func verifyAsymmetric(t *testing.T, public string, h http.Header, body []byte, want bool) {
	t.Helper()
	key, err := standardPublic(public)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(h.Get(HeaderSignature), "v1a,"))
	if err != nil {
		t.Fatal(err)
	}
	if ed25519.Verify(key, stamped(body, h.Get(HeaderID), h.Get(HeaderTimestamp)), signature) != want {
		t.Errorf("the signature verifies: %v", !want)
	}
}

func TestSchedulesAreThoseOfTheDialects(t *testing.T) {
	minutes := func(all ...float64) (out []time.Duration) {
		for _, m := range all {
			out = append(out, time.Duration(m*float64(time.Minute)))
		}
		return out
	}
	for dialect, want := range map[string][]time.Duration{
		"sdf":               {2 * time.Second, 4 * time.Second, 8 * time.Second},
		"certyneo":          minutes(1, 5, 30, 120, 360),
		"standard-webhooks": minutes(1.0/12, 5, 30, 120, 300, 600, 840, 1200, 1440),
	} {
		e := Endpoint{Dialect: dialect}
		e.Defaults()
		for failures := range len(want) + 1 {
			o := Outcome{Status: 503}
			o.decide(e, failures, 0, noon)
			if failures == len(want) {
				if o.Fate != Failed {
					t.Errorf("%s: after %d failures and one more it is not given up", dialect, failures)
				}
				continue
			}
			wait := o.Next.Sub(noon)
			if o.Fate != Again || wait < want[failures] || wait > want[failures]*11/10 {
				t.Errorf("%s: after %d failures it waits %s, want %s and at most a tenth more", dialect, failures, wait, want[failures])
			}
		}
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	e := Endpoint{Dialect: "sdf"}
	e.Defaults()
	for _, c := range []struct {
		status int
		asked  string
		fate   Fate
		least  time.Duration
	}{
		{200, "", Delivered, 0}, {204, "", Delivered, 0}, {299, "", Delivered, 0}, {301, "", Again, 2 * time.Second}, {400, "", Again, 2 * time.Second}, {410, "", Held, 0},
		{429, "90", Again, 90 * time.Second}, {503, noon.Add(time.Hour).Format(http.TimeFormat), Again, time.Hour}, {503, "999999999", Again, longest},
		{503, "-5", Again, 2 * time.Second}, {503, "soon", Again, 2 * time.Second}, {0, "", Again, 2 * time.Second},
	} {
		o := Outcome{Status: c.status}
		o.decide(e, 0, retryAfter(c.asked, noon), noon)
		if o.Fate != c.fate || o.Fate == Again && o.Next.Sub(noon) < c.least {
			t.Errorf("%d, Retry-After %q: fate %d, next after %s", c.status, c.asked, o.Fate, o.Next.Sub(noon))
		}
	}
}

// A program that has named an address which is gone is not to stop what others are told at theirs.
func TestACallbackThatIsGoneIsGivenUpAlone(t *testing.T) {
	e := Endpoint{Dialect: "sdf", Callbacks: true}
	e.Defaults()
	o := Outcome{Status: http.StatusGone}
	if o.decide(e, 0, 0, noon); o.Fate != Failed {
		t.Errorf("fate %d", o.Fate)
	}
}

func allow(networks ...string) (out []netip.Prefix) {
	for _, n := range networks {
		out = append(out, netip.MustParsePrefix(n))
	}
	return out
}

func TestOnlyWhatIsAllowedIsConnectedTo(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
	}))
	defer s.Close()
	event := Sample(Catalogue[0], "acme", noon)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	for _, c := range []struct {
		url     string
		allow   []netip.Prefix
		status  int
		problem string
	}{
		{s.URL, allow("127.0.0.0/8"), 302, "it answered 302"}, // and nobody follows it
		{s.URL, nil, 0, "not allowed by outbound.allow"},
		{"http://localhost:" + port, nil, 0, "not allowed by outbound.allow"}, // a name that leads inside
		{"https://10.0.0.1", nil, 0, "not allowed by outbound.allow"},
		{"https://169.254.169.254", allow("127.0.0.0/8"), 0, "not allowed by outbound.allow"},
		{"https://[::1]:1", nil, 0, "not allowed by outbound.allow"},
		{"https://[fd00::1]", nil, 0, "not allowed by outbound.allow"},
		{"http://10.0.0.1", allow("10.0.0.0/8"), 0, "use https://"},
	} {
		e := endpointWith(t, "standard-webhooks", standardSecretOf("a secret that is long enough"))
		e.URL = c.url
		d := &Deliverer{Guard: NewGuard(c.allow), Log: slog.New(slog.DiscardHandler)}
		o, err := d.Try(t.Context(), *e, event)
		if err != nil || o.Status != c.status || !strings.Contains(o.Problem, c.problem) {
			t.Errorf("%s: %d %q, %v", c.url, o.Status, o.Problem, err)
		}
	}
}

// shelf is a ledger in memory.
type shelf struct {
	mu        sync.Mutex
	endpoints []Endpoint
	waiting   map[string][]Delivery // by endpoint
	outcomes  []Outcome
	settled   chan Outcome
}

func (s *shelf) Endpoints(context.Context) ([]Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endpoints), nil
}

func (s *shelf) Take(_ context.Context, endpoint string, n int, _ time.Duration) ([]Delivery, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, len(s.waiting[endpoint]))
	due := s.waiting[endpoint][:n]
	s.waiting[endpoint] = s.waiting[endpoint][n:]
	return due, time.Time{}, nil
}

func (s *shelf) Settle(_ context.Context, o Outcome) error {
	s.mu.Lock()
	s.outcomes = append(s.outcomes, o)
	s.mu.Unlock()
	s.settled <- o
	return nil
}

func TestAReceiverThatHangsDelaysNoOther(t *testing.T) {
	release := make(chan struct{})
	inside := make(chan struct{}, 100)
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside <- struct{}{}; <-release }))
	defer hangs.Close()
	works := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer works.Close()
	l := &shelf{waiting: map[string][]Delivery{}, settled: make(chan Outcome, 1000)}
	for i, url := range []string{hangs.URL, works.URL} {
		e := endpointWith(t, "standard-webhooks", standardSecretOf("a secret that is long enough"))
		e.ID, e.URL, e.Timeout, e.Concurrency = []string{"acme/hangs", "acme/works"}[i], url, 30*time.Second, 4
		l.endpoints = append(l.endpoints, *e)
		for n := range 50 {
			l.waiting[e.ID] = append(l.waiting[e.ID], Delivery{ID: int64(n + 1), Attempt: 1, Event: Sample(Catalogue[0], "acme", noon)})
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	d := &Deliverer{Ledger: l, Bell: NewBell(), Guard: NewGuard(allow("127.0.0.0/8")), Log: slog.New(slog.DiscardHandler)}
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	for range 50 {
		if o := <-l.settled; o.Endpoint != "acme/works" || o.Fate != Delivered {
			t.Fatalf("%+v", o)
		}
	}
	for range 4 {
		<-inside
	}
	if n := len(inside); n != 0 {
		t.Errorf("%d more attempts than four at the same time", n)
	}
	cancel()
	close(release)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// What was under way ended, and the ledger knows how.
	if n := len(l.outcomes); n < 54 {
		t.Errorf("%d outcomes, want those of the attempts under way as well", n)
	}
}

func TestABrokenReceiverIsLeftInPeaceAndAskedWithOneEvent(t *testing.T) {
	r := &runner{endpoint: Endpoint{Concurrency: 4}, Deliverer: &Deliverer{}}
	for range restAfter - 1 {
		r.busy++
		r.note(Again)
	}
	if !r.rest.IsZero() {
		t.Error("it rests too early")
	}
	var last time.Duration
	for i := range 12 {
		r.busy++
		before := time.Now()
		r.note(Failed)
		rest := r.rest.Sub(before)
		if rest < min(time.Second<<i, maxRest) || rest > maxRest*12/10 || rest < last*9/10 {
			t.Errorf("after %d failures it rests %s", restAfter+i, rest)
		}
		last = rest
	}
	if wait := r.send(); wait <= 0 || wait > maxRest*12/10 {
		t.Errorf("it looks again after %s", wait)
	}
	r.busy++
	r.note(Delivered)
	if r.failed != 0 || !r.rest.IsZero() {
		t.Error("a delivery does not end it")
	}
}

func TestAnAnswerIsReadToABound(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			if _, err := w.Write(make([]byte, 10_000)); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	e := endpointWith(t, "standard-webhooks", standardSecretOf("a secret that is long enough"))
	e.URL = s.URL
	d := &Deliverer{Guard: NewGuard(allow("127.0.0.0/8")), Log: slog.New(slog.DiscardHandler)}
	o, err := d.Try(t.Context(), *e, Sample(Catalogue[0], "acme", noon))
	if err != nil || o.Fate != Delivered || len(o.Answer) != keptAnswer {
		t.Errorf("fate %d, %d bytes of the answer, %v", o.Fate, len(o.Answer), err)
	}
	large := Sample(Catalogue[0], "acme", noon)
	large.Data["reason"] = strings.Repeat("x", maxBody)
	if o, _ := d.Try(t.Context(), *e, large); o.Fate != Again || o.Status != 0 {
		t.Errorf("an event that is too large: %+v", o)
	}
}
