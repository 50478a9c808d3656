package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
)

// scene is what a daemon is put into: its tenants and how it is configured. It is handed to the process of the
// surroundings as JSON.
type scene struct {
	Dir     string        `json:"dir"` // of configuration, token and state; must exist
	Tenants []sceneTenant `json:"tenants"`
	Poll    time.Duration `json:"poll"`
	// Polls are of tenants that are polled otherwise.
	Polls     map[string]time.Duration `json:"polls,omitempty"`
	Latency   time.Duration            `json:"latency"` // that the CRMs take to answer
	Renderer  string                   `json:"renderer"`
	Templates string                   `json:"templates"`
	// State and MasterKey are of a ledger that is there already; empty for a fresh one below Dir.
	State     string `json:"state"`
	MasterKey string `json:"master_key"`
	// Push has every tenant's CRM push what happens; API answers programs.
	Push bool `json:"push"`
	API  bool `json:"api"`
}

// sceneTenant is a tenant with a mock CRM of its own: salesforce or hubspot.
type sceneTenant struct{ ID, Kind string }

// Rules of every tenant.
const (
	ruleOrderForm = "order-form" // as a house would have it: order form of two pages, and the deal's audit trail
	ruleAlone     = "alone"      // without the audit trail
	ruleReady     = "ready"      // a PDF that is on the record already, without an audit trail
)

func (s scene) pollOf(tenant string) time.Duration { return cmp.Or(s.Polls[tenant], s.Poll) }

func (s scene) path(name string) string { return filepath.Join(s.Dir, name) }

// world is the process of the surroundings: mock CRMs, authorities and the load. It is a process of its own so that
// its processor time is not taken for the daemon's.
type world struct {
	scene
	authority *pki.Authority
	mu        sync.Mutex
	crms      map[string]*crm
}

// crm is a mock CRM as the load uses it.
type crm struct {
	url    string
	open   func(rule string, lines int) (record string, err error)
	close  func(record, rule string) error
	push   *sender
	calls  func() map[string]int // since the last forget, by what was asked; see callNames
	forget func()
	with   string // of the tenant file
	back   string
	stages map[string]string
	opened []openDeal
	dead   atomic.Bool // it takes calls and answers none
}

type openDeal struct{ record, rule string }

// hello is what the process says when everything is up.
type hello struct {
	Control string `json:"control"`
}

// mockGarbage lets the mocks, which hold thousands of deals in memory, look through them seldom: CRMs are elsewhere, and
// what they take for themselves is not to be taken from the daemon.
const mockGarbage = 800

// surroundings is the process. It lives as long as its standard input.
func surroundings(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("surroundings are started by the bench itself")
	}
	debug.SetGCPercent(mockGarbage)
	w := &world{crms: map[string]*crm{}}
	if err := json.Unmarshal([]byte(args[0]), &w.scene); err != nil {
		return err
	}
	if err := w.build(ctx); err != nil {
		return err
	}
	url, err := serveHTTP(ctx, w.control())
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(hello{url}); err != nil {
		return err
	}
	os.Stdin.Read(make([]byte, 1)) // until the parent closes it or ends
	return nil
}

// serveHTTP serves on a port of its own for as long as the process lives.
func serveHTTP(ctx context.Context, h http.Handler) (url string, err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go (&http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}).Serve(l)
	return "http://" + l.Addr().String(), nil
}

// slowly lets a CRM take its time, as one that is not on the same machine does.
func (w *world) slowly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(w.Latency)
		h.ServeHTTP(rw, r)
	})
}

func (w *world) build(ctx context.Context) (err error) {
	for _, dir := range []string{w.path("tenants"), w.State} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var handler http.Handler
	url, err := serveHTTP(ctx, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	if err != nil {
		return err
	}
	if w.authority, err = pki.New(pki.Options{BaseURL: url, NoLocations: true}); err != nil {
		return err
	}
	handler = w.authority
	if err := os.WriteFile(w.path("root.pem"), w.authority.RootPEM(), 0o600); err != nil {
		return err
	}
	t, err := makeToken(ctx, w.path("token"), p256, w.authority)
	if err != nil {
		return err
	}
	for _, tenant := range w.Tenants {
		start := w.startSalesforce
		if tenant.Kind == "hubspot" {
			start = w.startHubSpot
		}
		c, err := start(ctx, tenant.ID)
		if err != nil {
			return err
		}
		if w.Push {
			if c.push, err = w.newSender(tenant); err != nil {
				return err
			}
		}
		w.crms[tenant.ID] = c
		if err := os.WriteFile(w.path("tenants/"+tenant.ID+".yaml"), []byte(w.tenantFile(tenant, c)), 0o600); err != nil {
			return err
		}
	}
	return w.configure(t)
}

// configure writes dealseal.yaml as an administrator would.
func (w *world) configure(t *token) error {
	if _, err := masterKey(w.MasterKey); err != nil { // which makes it
		return err
	}
	listen, api := "", ""
	if w.Push {
		listen = fmt.Sprintf(`, public: "127.0.0.1:0", url: %q`, publicURL)
	}
	if w.API {
		api = "api: {listen: \"127.0.0.1:0\", per_token: 1000000, per_address: 1000000}\n"
	}
	return os.WriteFile(w.path("dealseal.yaml"), fmt.Appendf(nil, `state_dir: %q
master_key: %q
templates: %q
listen: {admin: "127.0.0.1:0"%s}
%srenderer: {wasm: %q, children: %d}
signing:
  keys: {house: %s}
  tsa: [{url: %q}]
  trust: [%q]
  profiles:
    contract: {key: house, level: B-T, name: Bench, reason: "Contract of transaction {tx}", on_downgrade: hold}
`, w.State, "file:"+w.MasterKey, w.Templates, listen, api, w.Renderer, rendererChildren, t.yaml(), w.authority.URL(pki.PathTSA), w.path("root.pem")), 0o600)
}

func (w *world) tenantFile(t sceneTenant, c *crm) string {
	out := fmt.Sprintf("tenant: {id: %s, name: Bench, environment: sandbox, test_mark: off, time_zone: Europe/London, currency: EUR}\ncrm: {kind: %s, with: %s}\nguard: {per_hour: off, per_day: off}\n", t.ID, t.Kind, c.with)
	if c.push != nil {
		out += fmt.Sprintf("push: [%s]\n", c.push.configured)
	}
	out += "rules:\n"
	for _, r := range []struct{ id, document, trail string }{
		{ruleOrderForm, "{template: order-form@1}", "audit-trail@1"},
		{ruleAlone, "{template: order-form@1}", "none"},
		{ruleReady, `{attachment: "Quote*.pdf"}`, "none"},
	} {
		out += fmt.Sprintf("  - {id: %s, when: {stage: %q}, start_from: 2020-01-01T00:00:00Z, document: %s, seal: contract, audit_trail: %s, write_back: %s,\n     guard: {per_hour: off, per_day: off, learned: off, same_second: off, same_user: off, first_run: off}}\n", r.id, c.stages[r.id], r.document, r.trail, c.back)
	}
	return out
}

// control is how the parent gives orders.
func (w *world) control() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(c *crm, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			answer, err := do(w.crms[r.FormValue("tenant")], r)
			if err != nil {
				http.Error(rw, err.Error(), http.StatusInternalServerError)
				return
			}
			json.NewEncoder(rw).Encode(answer)
		})
	}
	handle("POST /open", func(c *crm, r *http.Request) (any, error) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil {
			return nil, err
		}
		lines, err := strconv.Atoi(r.FormValue("lines"))
		for range n {
			record, err := c.open(r.FormValue("rule"), lines)
			if err != nil {
				return nil, err
			}
			c.opened = append(c.opened, openDeal{record, r.FormValue("rule")})
		}
		return n, err
	})
	handle("POST /close", func(c *crm, r *http.Request) (any, error) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil || n > len(c.opened) {
			return nil, fmt.Errorf("%d deals are open, %d are to be closed (%v)", len(c.opened), n, err)
		}
		for _, d := range c.opened[:n] {
			if err := c.close(d.record, d.rule); err != nil {
				return nil, err
			}
			if to := r.FormValue("push"); to != "" {
				if err := c.push.tell(r.Context(), to, d.record); err != nil {
					return nil, err
				}
			}
		}
		c.opened = c.opened[n:]
		return n, nil
	})
	handle("GET /calls", func(c *crm, _ *http.Request) (any, error) { return c.calls(), nil })
	handle("POST /forget", func(c *crm, _ *http.Request) (any, error) { c.forget(); return 0, nil })
	handle("POST /die", func(c *crm, _ *http.Request) (any, error) { c.dead.Store(true); return 0, nil })
	handle("GET /pushed", func(c *crm, _ *http.Request) (any, error) { return c.push.told, nil })
	handle("POST /storm", func(c *crm, r *http.Request) (any, error) {
		rate, err := strconv.Atoi(r.FormValue("rate"))
		if err != nil {
			return nil, err
		}
		lasts, err := time.ParseDuration(r.FormValue("lasts"))
		if err != nil {
			return nil, err
		}
		return c.push.storm(r.Context(), r.FormValue("push"), rate, lasts)
	})
	handle("GET /cpu", func(*crm, *http.Request) (any, error) {
		var u syscall.Rusage
		err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano(), err
	})
	return mux
}
