package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/webhooks"
)

// receiver takes deliveries, as somebody's server would.
type receiver struct {
	*httptest.Server
	// answer decides about a delivery; nil takes all.
	answer func(w http.ResponseWriter, r *http.Request, d received)

	mu  sync.Mutex
	all []received
}

// received is one attempt that arrived.
type received struct {
	at     string // path and query
	header http.Header
	body   []byte
	ID     string `json:"id"`
	Type   string `json:"type"`
	Tx     string `json:"transaction"`
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, d received)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		d := received{at: req.URL.RequestURI(), header: req.Header.Clone(), body: body}
		if err != nil || json.Unmarshal(body, &d) != nil {
			return // the daemon was killed while it sent
		}
		r.mu.Lock()
		r.all = append(r.all, d)
		r.mu.Unlock()
		if r.answer != nil {
			r.answer(w, req, d)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) seen() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.all...)
}

// types are the events that arrived for a transaction, in their order, each once.
func (r *receiver) types(tx string) (types []string) {
	seen := map[string]bool{}
	for _, d := range r.seen() {
		if d.Tx == tx && !seen[d.ID] {
			seen[d.ID] = true
			types = append(types, d.Type)
		}
	}
	return types
}

const standardSecret = "whsec_c2VjcmV0IG9mIHRoaXJ0eSB0d28gYnl0ZXMgLi4uLi4="

// hookTo is the lines of a tenant's file that have everything told to a receiver.
func hookTo(t *testing.T, r *receiver) string {
	t.Helper()
	secretFile := filepath.Join(t.TempDir(), "hook")
	must(t, os.WriteFile(secretFile, []byte(standardSecret), 0o600))
	return fmt.Sprintf("webhooks:\n  - {id: erp, url: %q, secret: %q}\n", r.URL+"/hooks?token=hidden", "file:"+secretFile)
}

func TestASealedDealIsToldToAReceiverThatVerifiesItWithTheOfficialLibrary(t *testing.T) {
	t.Parallel()
	receiver := newReceiver(t, nil)
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}, webhooks: hookTo(t, receiver)})
	w.secrets = append(w.secrets, standardSecret, "token=hidden")
	d := w.start(t)
	ops := w.control(t, w.stateDir)
	story := awaitDone(t, ops, w.enter(ruleMemo))
	want := []string{"envelope.created", "document.signed", "document.validated", "document.attached", "envelope.completed"}
	eventually(t, "all events have arrived", func() (bool, string) {
		got := receiver.types(string(story.Sealing.Tx))
		return len(got) == len(want), fmt.Sprint(got)
	})
	judge, err := standardwebhooks.NewWebhook(standardSecret)
	must(t, err)
	ids := map[string]string{}
	for i, kind := range want {
		ids[kind] = deal.EventID(story.Sealing.Tx, int64(i+1), kind)
	}
	for _, r := range receiver.seen() { // in any order: some are sent at the same time if they were not sent at once
		if err := judge.Verify(r.body, r.header); err != nil {
			t.Errorf("%s: the official library refuses it: %v", r.Type, err)
		}
		other := append([]byte(nil), r.body...)
		other[len(other)/2] ^= 1
		if judge.Verify(other, r.header) == nil {
			t.Errorf("%s: the official library takes it with another byte", r.Type)
		}
		if id := ids[r.Type]; r.ID != id || r.header.Get("webhook-id") != id {
			t.Errorf("%s has the ids %s and %s, want %s", r.Type, r.ID, r.header.Get("webhook-id"), id)
		}
		for name, needle := range w.needles() {
			if strings.Contains(string(r.body), needle) {
				t.Errorf("%s holds %s: %s", r.Type, name, r.body)
			}
		}
	}
	d.stop(t)
	if strings.Contains(d.log(), "token=hidden") || strings.Contains(d.log(), base64.StdEncoding.EncodeToString([]byte("secret of thirty"))) {
		t.Error("the log holds a secret")
	}
}

// TestEveryEventThatIsMadeIsInTheCatalogue reads the sources: an event that the catalogue lacks has no schema, and no endpoint
// can ask for it.
func TestEveryEventThatIsMadeIsInTheCatalogue(t *testing.T) {
	t.Parallel()
	made := map[string]bool{}
	name := regexp.MustCompile(`"((?:document|envelope|recipient|crm)\.[a-z_]+)"`)
	house := regexp.MustCompile(`(?:kind: |announceCertificate\(\S+ |Announce\(ctx, )"([a-z]+\.[a-z_]+)"`)
	for _, dir := range []string{"../../engine", "../../store", "."} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		must(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			must(t, err)
			names := house.FindAllStringSubmatch(string(text), -1)
			if dir != "." { // where keys of the configuration are named in the same way
				names = append(names, name.FindAllStringSubmatch(string(text), -1)...)
			}
			for _, found := range names {
				made[found[1]] = true
			}
		}
	}
	for name := range made {
		if _, known := webhooks.Known(name); !known {
			t.Errorf("%s is made and not in webhooks.Catalogue", name)
		}
	}
	for _, kind := range webhooks.Catalogue {
		if !made[kind.Name] {
			t.Errorf("%s is in webhooks.Catalogue and made nowhere", kind.Name)
		}
	}
}

// TestAPersonAddsTriesRotatesAndDeliversOnceMore takes an endpoint that no file names through its life.
func TestAPersonAddsTriesRotatesAndDeliversOnceMore(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	broken := true
	receiver := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ received) {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			http.Error(w, "no room for it", http.StatusServiceUnavailable)
		}
	})
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	d := w.start(t)
	ops := w.control(t, w.stateDir)
	if _, stderr, code := w.run(t, "webhooks", "add", "nobody/erp", receiver.URL, "--why", "test"); code == exitOK || !strings.Contains(stderr, "no configured tenant") {
		t.Errorf("an endpoint of a tenant that there is not: exit code %d, %s", code, stderr)
	}
	older := strings.TrimSpace(w.mustRun(t, "webhooks", "add", "acme/erp", receiver.URL+"/hooks?token=hidden", "--why", "test"))
	if !strings.HasPrefix(older, "whsec_") {
		t.Fatalf("the secret that is shown is %q", older)
	}
	if _, stderr, code := w.run(t, "webhooks", "test", "acme/erp"); code == exitOK || !strings.Contains(stderr, "503") {
		t.Errorf("a test that fails: exit code %d, %s", code, stderr)
	}
	story := awaitDone(t, ops, w.enter(ruleMemo))
	var refused int64 // a delivery
	eventually(t, "the first attempts have failed", func() (bool, string) {
		all, err := ops.Deliveries(t.Context(), "acme/erp", "pending", 10)
		must(t, err)
		for _, one := range all {
			if one.Status == 503 {
				refused = one.ID
			}
		}
		return len(all) == 5 && refused != 0, fmt.Sprintf("%d wait, of them has failed %d", len(all), refused)
	})
	newer := strings.TrimSpace(w.mustRun(t, "webhooks", "rotate", "acme/erp", "--why", "test"))
	mu.Lock()
	broken = false
	mu.Unlock()
	mustContain(t, "a test", w.mustRun(t, "webhooks", "test", "acme/erp"), "answered 200")
	w.mustRun(t, "webhooks", "redeliver", "acme/erp", "--since", "2020-01-01T00:00:00Z", "--why", "test")
	eventually(t, "all events were taken", func() (bool, string) {
		all, err := ops.Deliveries(t.Context(), "acme/erp", "delivered", 10)
		must(t, err)
		return len(all) == 5, fmt.Sprint(len(all))
	})
	got := receiver.seen()
	for name, secret := range map[string]string{"older": older, "newer": newer} {
		judge, err := standardwebhooks.NewWebhook(secret)
		must(t, err)
		if err := judge.Verify(got[len(got)-1].body, got[len(got)-1].header); err != nil {
			t.Errorf("with the %s secret: %v", name, err)
		}
	}
	if n := len(receiver.types(string(story.Sealing.Tx))); n != 5 {
		t.Errorf("%d events of the deal arrived", n)
	}
	mustContain(t, "the attempts", w.mustRun(t, "webhooks", "attempts", fmt.Sprint(refused)), "it answered 503", "no room for it")
	w.mustRun(t, "webhooks", "disable", "acme/erp", "--why", "test")
	before := len(receiver.seen())
	second := awaitDone(t, ops, w.enter(ruleMemo))
	mustContain(t, "the list", w.mustRun(t, "webhooks", "list"), "disabled", "acme/erp")
	if strings.Contains(w.mustRun(t, "webhooks", "list"), "token=hidden") {
		t.Error("the list shows the whole address")
	}
	if n := len(receiver.seen()); n != before {
		t.Errorf("%d attempts at a disabled endpoint", n-before)
	}
	w.mustRun(t, "webhooks", "enable", "acme/erp", "--why", "test")
	eventually(t, "what waited was taken", func() (bool, string) {
		n := len(receiver.types(string(second.Sealing.Tx)))
		return n == 5, fmt.Sprint(n)
	})
	w.mustRun(t, "webhooks", "remove", "acme/erp", "--why", "test")
	mustContain(t, "the list", w.mustRun(t, "webhooks", "list"), "there are none")
	d.stop(t)
}
