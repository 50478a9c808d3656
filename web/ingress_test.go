package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

// letterbox is an Inbox in memory.
type letterbox struct {
	mu      sync.Mutex
	nonces  map[string]bool
	refused []deal.Push
	err     error
}

func (b *letterbox) Receive(_ context.Context, a deal.Arrival) (wake []deal.Ref, replayed bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.nonces[string(a.Nonce)] && a.Nonce != nil {
		return nil, b.err == nil, b.err
	}
	b.nonces[string(a.Nonce)] = true
	for _, e := range a.Events {
		if e.Wakes {
			wake = append(wake, e.Ref)
		}
	}
	return wake, false, nil
}

func (b *letterbox) LogPushes(_ context.Context, rows []deal.Push) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = append(b.refused, rows...)
	return nil
}

// newIngress has two tenants that share a path, one with a path for what signs its time, and one that is not signed.
func newIngress(box *letterbox, woken *[]string) *Ingress {
	sender := func(tenant deal.TenantID, dialect string) *Sender {
		s := &Sender{Tenant: tenant, Source: "opportunity", MaxBody: 100,
			Keys: func() (webhooks.Keys, error) {
				return webhooks.Keys{Secrets: []secret.Secret{secret.New([]byte("secret of " + tenant))}}, nil
			},
			Read: func(body []byte, _ deal.Account) (Pushed, error) {
				if len(body) == 0 {
					return Pushed{}, errors.New("it is empty")
				}
				return Pushed{Events: []deal.PushedEvent{{Ref: deal.Ref{Object: "deals", ID: string(body)}, Wakes: string(body) != "ignored"}}}, nil
			},
			Answer: Answer{Status: http.StatusOK, ContentType: "application/json", Body: `{"success":true}`, Failed: `{"error":"signing_failed"}`}}
		if dialect != "" {
			s.Dialects = []*webhooks.Dialect{webhooks.Find(dialect)}
		}
		return s
	}
	unsigned := sender("acme", "")
	unsigned.Origin.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	near, broken := sender("acme", "x-signature"), sender("fabrikam", "x-signature")
	near.Origin.Addresses = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	broken.Keys = func() (webhooks.Keys, error) { return webhooks.Keys{}, errors.New("its secret cannot be read") }
	senders := map[string][]*Sender{"/mixed": {near, sender("tailspin", "certyneo"), sender("contoso", "x-signature")}, "/broken": {broken, sender("contoso", "x-signature")}, "/shared": {sender("acme", "x-signature"), sender("contoso", "x-signature")}, "/timed": {sender("acme", "certyneo")}, "/unsigned": {unsigned}}
	return &Ingress{Senders: func() map[string][]*Sender { return senders }, URL: "https://seal.example", Inbox: box,
		Account: func(deal.TenantID) (deal.Account, bool) { return deal.Account{}, false },
		Wake: func(tenant deal.TenantID, refs ...deal.Ref) bool {
			for _, r := range refs {
				*woken = append(*woken, string(tenant)+" "+r.ID)
			}
			return true
		}, Now: func() time.Time { return noon }, Log: slog.New(slog.DiscardHandler)}
}

func TestWhoeverSignsIsAnsweredAndWakesOnceAndOthersLearnNothing(t *testing.T) {
	t.Parallel()
	box, woken := &letterbox{nonces: map[string]bool{}}, []string{}
	in := newIngress(box, &woken)
	post := func(path, dialect, key, body string, change func(*http.Request)) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		if dialect != "" {
			if err := webhooks.Find(dialect).Sign(webhooks.Request{Method: r.Method, Header: r.Header, Body: []byte(body)}, "", noon, secret.New([]byte(key))); err != nil {
				t.Fatal(err)
			}
		}
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		in.ServeHTTP(w, r)
		return w
	}
	const yes = `{"success":true}`
	for _, step := range []struct {
		what, path, dialect, key, body string
		change                         func(*http.Request)
		status                         int
		answer, woken                  string
	}{
		{"the first of two tenants", "/shared", "x-signature", "secret of acme", "1", nil, 200, yes, "acme 1"},
		{"the second", "/shared", "x-signature", "secret of contoso", "2", nil, 200, yes, "contoso 2"},
		{"a second time without a signed time", "/shared", "x-signature", "secret of acme", "1", nil, 200, yes, ""},
		{"nobody", "/shared", "x-signature", "guessed", "3", nil, 401, "", ""},
		{"unsigned", "/shared", "", "", "3", nil, 401, "", ""},
		{"too old", "/shared", "x-signature", "secret of acme", "3", func(r *http.Request) { r.Header.Set("X-Timestamp", "1500000000") }, 400, "", ""},
		{"behind one that takes no address but its own, and one that signs in another way", "/mixed", "x-signature", "secret of contoso", "20", nil, 200, yes, "contoso 20"},
		{"of one that signs in another way", "/mixed", "certyneo", "secret of tailspin", "21", nil, 200, yes, "tailspin 21"},
		{"of one from elsewhere than it may", "/mixed", "x-signature", "secret of acme", "22", nil, 401, "", ""},
		{"behind one whose secret cannot be read", "/broken", "x-signature", "secret of contoso", "23", nil, 200, yes, "contoso 23"},
		{"perhaps of one whose secret cannot be read", "/broken", "x-signature", "secret of fabrikam", "24", nil, 500, `{"error":"signing_failed"}`, ""},
		{"of no concern", "/timed", "certyneo", "secret of acme", "ignored", nil, 200, yes, ""},
		{"with a signed time", "/timed", "certyneo", "secret of acme", "4", nil, 200, yes, "acme 4"},
		{"the very same again", "/timed", "certyneo", "secret of acme", "4", nil, 401, "", ""},
		{"what cannot be understood", "/timed", "certyneo", "secret of acme", "", nil, 400, "", ""},
		{"too large", "/timed", "certyneo", "secret of acme", strings.Repeat("x", 101), nil, 413, "", ""},
		{"too large, as it turns out", "/timed", "certyneo", "secret of acme", strings.Repeat("x", 101), func(r *http.Request) { r.ContentLength = -1 }, 413, "", ""},
		{"far too large", "/timed", "certyneo", "secret of acme", strings.Repeat("x", 10<<20), nil, 413, "", ""},
		{"far too large, as it turns out", "/timed", "certyneo", "secret of acme", strings.Repeat("x", 10<<20), func(r *http.Request) { r.ContentLength = -1 }, 413, "", ""},
		{"compressed", "/timed", "certyneo", "secret of acme", "5", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415, "", ""},
		{"from its address", "/unsigned", "", "", "6", nil, 200, yes, "acme 6"},
		{"from elsewhere", "/unsigned", "", "", "7", func(r *http.Request) { r.RemoteAddr = "198.51.100.1:1" }, 401, "", ""},
		{"from elsewhere through a header", "/unsigned", "", "", "7", func(r *http.Request) {
			r.RemoteAddr = "198.51.100.1:1"
			r.Header.Set("X-Forwarded-For", "192.0.2.1")
		}, 401, "", ""},
		{"to nobody", "/webhooks/acme/hubspot", "", "", "8", nil, 404, "", ""},
	} {
		woken = woken[:0]
		w := post(step.path, step.dialect, step.key, step.body, step.change)
		if w.Code != step.status || w.Body.String() != step.answer || strings.Join(woken, ",") != step.woken {
			t.Errorf("%s: answered %d %q and woke %q; want %d %q and %q", step.what, w.Code, w.Body, woken, step.status, step.answer, step.woken)
		}
	}
	if in.room.TryAcquire(mostBytes) {
		if w := post("/timed", "certyneo", "secret of acme", "25", nil); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("while others' bodies take all the room: answered %d", w.Code)
		}
		in.room.Release(mostBytes)
	} else {
		t.Error("room is not given back")
	}
	if w := post("/timed", "certyneo", "secret of acme", "25", nil); w.Code != 200 {
		t.Errorf("when there is room again: answered %d", w.Code)
	}
	box.err = errors.New("no room")
	if w := post("/timed", "certyneo", "secret of acme", "9", nil); w.Code != 500 || w.Body.String() != `{"error":"signing_failed"}` || w.Header().Get("Retry-After") == "" {
		t.Errorf("what cannot be kept is answered %d %q", w.Code, w.Body)
	}

	// Those of known senders are timed, however they end: 10 were answered well, 1 came again, 2 could not be understood or kept.
	if n := timedPushes(t, in); n != 13 {
		t.Errorf("%d pushes are timed", n)
	}

	in.logRefused(t.Context())
	counts := map[string]int{}
	for _, p := range box.refused {
		counts[string(p.Tenant)+" "+string(p.Verdict)] += p.N
	}
	for want, n := range map[string]int{" refused: forged": 2, " refused: unsigned": 1, " refused: stale": 1, "acme refused: stranger": 2, "acme refused: malformed": 6} {
		if counts[want] != n {
			t.Errorf("%d are logged as %q, want %d: %v", counts[want], want, n, counts)
		}
	}
}

// timedPushes is how many have gone into the histogram of durations.
func timedPushes(t *testing.T, in *Ingress) uint64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(in)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "dealseal_push_seconds" {
			return f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatal("durations are not told")
	return 0
}
