package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	crmmock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/web/api"
	"github.com/dealseal/dealseal/webhooks"
)

// counter is the API before a store with deals in every state, and those who come to it.
type counter struct {
	t     testing.TB
	store *store.Store
	house *apiHouse
	api   *api.API
	log   bytes.Buffer

	now      time.Time // as the API has it: its limits give nothing back while a test runs
	org      *crmmock.Org
	record   string                     // of acme's, that has no contract yet
	txs      map[string]deal.TxID       // by what has become of them
	beta     deal.TxID                  // of another tenant
	tokens   map[string]string          // by role and by what is wrong with them
	machines map[string]tls.Certificate // with a token, by role; the proxy's own, and one that the client CA does not know
	proxies  api.Proxies
	behind   *api.API // the same, with proxies that speak RFC 9440
	delivery int64

	mu   sync.Mutex
	seen map[string]map[int]bool // statuses by operation
	doc  *contract
}

const (
	apiAccount   = deal.AccountID("salesforce:00D000000000001")
	betaAccount  = deal.AccountID("salesforce:00D000000000002")
	betasCompany = "Betas Own Record"
)

// keysAway are those of an HSM that does not answer.
type keysAway struct{}

func (keysAway) Open(context.Context, string) (signing.Key, error) {
	return nil, errors.New("the HSM does not answer")
}
func (keysAway) Close() error { return nil }

func apiTenant(id, environment string) tenant {
	file := &config.Tenant{}
	file.Tenant.ID, file.Tenant.Name, file.Tenant.Environment = id, strings.ToUpper(id), environment
	return tenant{file: file, rules: []engine.Rule{{Watch: deal.Watch{Rule: "order-form", Object: "Opportunity", Stage: "Closed Won"},
		Plan: deal.Plan{Rule: "order-form", Template: "order-form@1", Bundle: fmt.Sprintf("%064x", 7), Stage: "Closed Won", Profile: []byte(`{"level":"B-T"}`), WriteBack: deal.WriteBack{Audit: "DealSeal_Audit__c"}}}}}
}

// newCounter has tenants acme and beta in production and a sandbox.
func newCounter(t testing.TB) *counter {
	t.Helper()
	c := &counter{t: t, now: time.Now(), txs: map[string]deal.TxID{}, tokens: map[string]string{}, seen: map[string]map[int]bool{}}
	log := slog.New(slog.NewTextHandler(&c.log, nil))
	s, err := store.Open(context.Background(), store.Options{Dir: filepath.Join(t.TempDir(), "state"), MasterKey: secret.New(bytes.Repeat([]byte{9}, 32))})
	c.ok(err)
	t.Cleanup(func() { s.Close() })
	h := &house{cfg: &config.Config{}, tenants: []tenant{apiTenant("acme", "production"), apiTenant("beta", "production"), apiTenant("sand", "sandbox")}}
	for _, one := range h.tenants {
		h.cfg.Loaded = append(h.cfg.Loaded, *one.file)
	}
	c.store = s
	c.house = &apiHouse{pageHouse: &pageHouse{Store: s, house: func() *house { return h }, log: log}, bundles: &bundleMaker{store: s, sealer: signing.NewSealer(keysAway{}, nil, time.Now)},
		ops: &local{Store: s, configured: func() ([]config.Tenant, error) { return h.cfg.Loaded, nil }, deliverer: func() (*webhooks.Deliverer, error) {
			return &webhooks.Deliverer{Guard: webhooks.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}), Log: log}, nil
		}}, engine: c.openEngine(h, log)}
	c.enrol()
	c.api = c.open(100_000, 1_000_000)
	c.doc = readContract(t, c.ask("GET", "/v1/openapi.json", "", "").Body.Bytes())
	c.fill()
	c.admit()
	return c
}

// openEngine has acme's CRM be there, with records that have no contract yet.
func (c *counter) openEngine(h *house, log *slog.Logger) *engine.Engine {
	c.t.Helper()
	c.org = crmmock.New(crmmock.Options{ConsumerKey: "counter", ClientSecret: "a secret of the org", RequestLimit: 1_000_000})
	server := httptest.NewServer(c.org)
	c.t.Cleanup(server.Close)
	file := filepath.Join(c.t.TempDir(), "secret")
	c.ok(os.WriteFile(file, []byte("a secret of the org"), 0o600))
	ref, err := secret.ParseRef("file:" + file)
	c.ok(err)
	crm, err := salesforce.New(salesforce.Config{MyDomain: server.URL, Auth: salesforce.Auth{Flow: salesforce.FlowClientCredentials, ConsumerKey: "counter", ClientSecret: ref}}, salesforce.Deps{})
	c.ok(err)
	account, err := crm.Identity(context.Background())
	c.ok(err)
	rule := h.tenants[0].rules[0]
	_, err = c.store.Activate(context.Background(), "acme", account.AccountID(), rule.Watch, account.Clock.Add(-time.Hour))
	c.ok(err)
	if c.record, err = c.org.CreateOpportunity(map[string]any{"Name": "Zofia", "StageName": "Prospecting"}); err != nil {
		c.t.Fatal(err)
	}
	return &engine.Engine{Tenants: []engine.Tenant{{ID: "acme", CRM: crm, Production: true, Rules: h.tenants[0].rules}}, Ledger: c.store, Books: c.store, Log: log}
}

func (c *counter) clock() time.Time { return c.now }

func (c *counter) open(perToken, perAddress int) *api.API {
	return api.New(api.Options{House: c.house, Tokens: c.store, PerToken: perToken, PerAddress: perAddress, Proxies: &c.proxies, Version: "test", Now: c.clock, Log: c.house.log})
}

// enrol makes client certificates: one of each role, as in admit, and those of a proxy and of a stranger.
func (c *counter) enrol() {
	c.t.Helper()
	c.machines = map[string]tls.Certificate{"proxy": clientCertificate(c.t, time.Hour), "stranger": clientCertificate(c.t, time.Hour)}
	c.proxies = api.Proxies{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.80/32")}, Certificates: []string{api.Fingerprint(c.machines["proxy"].Certificate[0])},
		Header: api.HeaderPEM, Roots: x509.NewCertPool()}
	for _, role := range deal.TokenRoles {
		one := clientCertificate(c.t, time.Hour)
		c.machines[string(role)] = one
		c.proxies.Roots.AddCert(one.Leaf)
	}
	for name, one := range c.machines { // those whom nobody may be have the role of an administrator
		role, tenants := deal.TokenRole(name), []deal.TenantID{"acme"}
		if !slices.Contains(deal.TokenRoles, role) {
			role, tenants = deal.RoleAdmin, nil
		}
		token, err := certificateToken(deal.Token{Name: "machine-" + name, Live: true, Role: role, Tenants: tenants, Until: time.Now().Add(24 * time.Hour)}, one.Certificate[0])
		c.ok(err)
		c.ok(c.store.AddToken(context.Background(), token, "test", "a test"))
	}
	other := c.proxies
	other.Header = api.HeaderDER
	c.behind = api.New(api.Options{House: c.house, Tokens: c.store, PerToken: 100_000, PerAddress: 1_000_000, Proxies: &other, Version: "test", Now: c.clock, Log: c.house.log})
}

// shows has a request come over a connection from an address, with a client certificate and a header.
func (c *counter) shows(from, machine, header, value string) func(*http.Request) {
	return func(r *http.Request) {
		r.RemoteAddr = from + ":1234"
		r.TLS = &tls.ConnectionState{}
		if machine != "" {
			r.TLS.PeerCertificates = []*x509.Certificate{c.machines[machine].Leaf}
		}
		if header != "" {
			r.Header.Add(header, value)
		}
	}
}

func (c *counter) asPEM(machine string) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.machines[machine].Certificate[0]})))
}

func (c *counter) asDER(machine string) string {
	return ":" + base64.StdEncoding.EncodeToString(c.machines[machine].Certificate[0]) + ":"
}

// appearance is a way to come to the API.
type appearance struct {
	how    string
	api    *api.API
	token  string
	change func(*http.Request)
}

// appearances are all ways in which a role may be known.
func (c *counter) appearances(role string) []appearance {
	const proxy = "192.0.2.80"
	return []appearance{
		{"with a token", c.api, role, nil},
		{"with a token, through a proxy", c.api, role, c.shows(proxy, "proxy", "", "")},
		{"with a certificate", c.api, "none", c.shows("192.0.2.7", role, "", "")},
		{"with a certificate behind nginx", c.api, "none", c.shows(proxy, "proxy", api.HeaderPEM, c.asPEM(role))},
		{"with a certificate, as RFC 9440 has it", c.behind, "none", c.shows(proxy, "proxy", api.HeaderDER, c.asDER(role))},
	}
}

// strangers are those who are nobody, whatever they have.
func (c *counter) strangers() []appearance {
	const proxy, elsewhere = "192.0.2.80", "192.0.2.7"
	return []appearance{
		{"nobody", c.api, "none", nil}, {"with an unknown token", c.api, "unknown", nil}, {"with a revoked token", c.api, "revoked", nil}, {"in another scheme", c.api, "another scheme", nil},
		{"a proxy that was shown nothing", c.api, "none", c.shows(proxy, "proxy", "", "")},
		{"the certificate of a proxy, from elsewhere", c.api, "none", c.shows(elsewhere, "proxy", api.HeaderPEM, c.asPEM("admin"))},
		{"at the address of a proxy, without its certificate", c.api, "none", c.shows(proxy, "", api.HeaderPEM, c.asPEM("admin"))},
		{"with the header, from elsewhere", c.api, "none", c.shows(elsewhere, "", api.HeaderPEM, c.asPEM("admin"))},
		{"with the other header", c.api, "none", c.shows(proxy, "proxy", api.HeaderDER, c.asDER("admin"))},
		{"of another CA, behind a proxy", c.api, "none", c.shows(proxy, "proxy", api.HeaderPEM, c.asPEM("stranger"))},
		{"in plain text, with the header", c.behind, "none", func(r *http.Request) { r.RemoteAddr = proxy + ":1"; r.Header.Set(api.HeaderDER, c.asDER("admin")) }},
	}
}

func (c *counter) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// fill makes deals and webhooks.
func (c *counter) fill() {
	c.t.Helper()
	txs := c.notice("acme", apiAccount, "held", "dead", "running", "done", "erased", "erased-dead", "erased-held", "droppable", "releasable", "preparable")
	for i, name := range []string{"held", "dead", "running", "done", "erased", "erased-dead", "erased-held", "droppable", "releasable", "preparable"} {
		c.txs[name] = txs[i]
	}
	c.beta = c.notice("beta", betaAccount, betasCompany)[0]
	for _, name := range []string{"held", "droppable", "releasable"} {
		c.advance(c.txs[name], func(s *deal.Sealing) { s.Condition, s.Reason = deal.Held, "[left] the record left its stage" })
	}
	for _, name := range []string{"dead", "erased-dead"} {
		c.advance(c.txs[name], func(s *deal.Sealing) { s.Condition, s.Reason = deal.Dead, "out of attempts" })
	}
	for _, name := range []string{"preparable", "erased-held"} {
		c.advance(c.txs[name], func(s *deal.Sealing) { s.Step, s.Facts.Digest = deal.Rendered, fmt.Sprintf("%064x", 1) })
		c.advance(c.txs[name], func(s *deal.Sealing) { s.Condition, s.Reason = deal.Held, "the key is silent" })
	}
	c.seal("done")
	c.seal("erased")
	for _, name := range []string{"erased", "erased-dead", "erased-held"} {
		c.ok(c.store.Erase(context.Background(), c.txs[name], "test", "its time has come"))
	}
	for _, id := range []string{"acme/erp", "acme/old", "beta/erp"} {
		e := hookAt(id, "https://receiver.example/hooks/"+id+"?token=hidden")
		c.ok(c.store.AddEndpoint(context.Background(), e, "test", "to be told"))
	}
	filed := hookAt("acme/filed", "https://receiver.example/filed")
	c.ok(c.store.ConfigureEndpoints(context.Background(), []webhooks.Endpoint{filed, hookAt("acme/gone", "https://receiver.example/gone")}))
	c.ok(c.store.ConfigureEndpoints(context.Background(), []webhooks.Endpoint{filed}))
	c.notice("acme", apiAccount, "late") // is told to endpoints
	all, err := c.store.Deliveries(context.Background(), "acme/erp", "", 1)
	c.ok(err)
	c.delivery = all[0].ID
	_, err = c.store.Checkpoint(context.Background())
	c.ok(err)
}

func hookAt(id, url string) webhooks.Endpoint {
	tenant, _, _ := strings.Cut(id, "/")
	e := webhooks.Endpoint{ID: id, Tenant: tenant, URL: url}
	e.Defaults()
	e.Secrets = []webhooks.Secret{{Value: secret.New([]byte(standardSecret))}}
	return e
}

// notice takes in an entry for each record.
func (c *counter) notice(tenant deal.TenantID, account deal.AccountID, records ...string) []deal.TxID {
	c.t.Helper()
	ctx, start := context.Background(), time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	watch := deal.Watch{Rule: "order-form", Object: "Opportunity", Stage: "Closed Won"}
	_, err := c.store.Activate(ctx, tenant, account, watch, start.Add(-time.Hour))
	c.ok(err)
	previous, err := c.store.Cursor(ctx, tenant, account)
	c.ok(err)
	page := deal.Page{Next: deal.Cursor{Since: start}}
	for _, r := range records {
		page.Entries = append(page.Entries, deal.Change{Rule: "order-form", Ref: deal.Ref{Object: "Opportunity", ID: r}, Stage: "Closed Won", Occurrence: "1", At: start})
	}
	plan := deal.Plan{TenantName: "Acme", Rule: "order-form", Stage: "Closed Won", Profile: []byte(`{}`), Template: "order-form@1", WriteBack: deal.WriteBack{TransactionID: "Tx__c", Status: "Status__c"}}
	txs, err := c.store.Notice(ctx, deal.Noticing{Tenant: tenant, Account: account, Previous: previous, Plans: map[string]deal.Plan{"order-form": plan}, Watches: map[string]deal.Watch{"order-form": watch}, Page: page})
	c.ok(err)
	return txs
}

func (c *counter) advance(tx deal.TxID, change func(*deal.Sealing)) {
	c.t.Helper()
	s, err := c.store.Load(context.Background(), tx)
	c.ok(err)
	change(s)
	c.ok(c.store.Advance(context.Background(), s, deal.Entry{Who: "daemon", What: "moved"}))
}

// seal brings a deal to its end, with a contract in the archive.
func (c *counter) seal(name string) {
	c.t.Helper()
	ctx, tx := context.Background(), c.txs[name]
	digest := fmt.Sprintf("%064x", 1)
	c.advance(tx, func(s *deal.Sealing) {
		s.Step, s.Private.FileName, s.Private.Values = deal.Gathered, "Contract of Zofia.pdf", json.RawMessage(`{"Name":"Zofia"}`)
	})
	c.advance(tx, func(s *deal.Sealing) { s.Step, s.Facts.Digest = deal.Rendered, digest })
	s, err := c.store.Load(ctx, tx)
	c.ok(err)
	c.ok(c.store.Begin(ctx, s, deal.Intent{Step: s.Step, What: "sign", Digest: digest, Lease: time.Minute}))
	s.Facts.Signature, s.Private.Value = true, []byte("signature")
	c.ok(c.store.Advance(ctx, s, deal.Entry{Who: "daemon", What: "signed"}))
	fact, err := c.store.Stage(ctx, tx, "contract.pdf", func(w io.Writer) error {
		_, err := io.WriteString(w, "%PDF the contract of "+name)
		return err
	})
	c.ok(err)
	c.advance(tx, func(s *deal.Sealing) {
		s.Step, s.Facts.Contract, s.Facts.SealedAt = deal.Sealed, &fact, time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
		s.Facts.Level, s.Facts.Verdict = "B-T", "VALID"
		s.Facts.Cert = &deal.CertFact{SHA256: fmt.Sprintf("%064x", 3), Subject: "CN=House Seal"}
	})
	c.advance(tx, func(s *deal.Sealing) { s.Step = deal.Checked })
	s, err = c.store.Load(ctx, tx)
	c.ok(err)
	folder, err := c.store.Keep(ctx, s, "contract.pdf", map[string][]byte{"report.json": []byte("{}")})
	c.ok(err)
	for _, step := range []deal.Step{deal.Kept, deal.Attached, deal.Reported, deal.Done} {
		c.advance(tx, func(s *deal.Sealing) { s.Step, s.Facts.Archive = step, folder })
	}
}

// admit makes tokens: one of each role for acme alone, and some that are good for nothing.
func (c *counter) admit() {
	c.t.Helper()
	ctx := context.Background()
	for _, role := range deal.TokenRoles {
		c.tokens[string(role)] = c.create(tokenRequest{Name: "acme-" + string(role), Role: role, Tenants: []deal.TenantID{"acme"}})
	}
	c.tokens["everywhere"] = c.create(tokenRequest{Name: "everywhere", Role: deal.RoleAdmin})
	c.tokens["test"] = c.create(tokenRequest{Name: "test", Role: deal.RoleAdmin, Test: true})
	c.tokens["revoked"] = c.create(tokenRequest{Name: "revoked", Role: deal.RoleAdmin})
	_, err := c.store.RevokeToken(ctx, "revoked", "test", "it was seen in a chat")
	c.ok(err)
	c.tokens["unknown"] = newTokenText(true)
	c.tokens["none"] = ""
	c.tokens["another scheme"] = "Basic YWRtaW46YWRtaW4="
}

func (c *counter) create(r tokenRequest) string {
	c.t.Helper()
	r.Verb, r.Days, r.Who, r.Why = "create", 30, "test", "a test"
	a, err := c.house.ops.ChangeToken(context.Background(), r)
	c.ok(err)
	return a.Secret
}

// ask sends a request with the token of that name, and holds what is answered against the document.
func (c *counter) ask(method, path, token, body string) *httptest.ResponseRecorder {
	return c.askOf(c.api, method, path, token, body, nil)
}

func (c *counter) askOf(a *api.API, method, path, token, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(strings.ReplaceAll(body, "RECORD", c.record)))
	if strings.HasPrefix(path, "/v1/signatures") {
		r.Header.Set("Idempotency-Key", "order 4711")
	}
	r.RemoteAddr = "192.0.2.7:1234"
	if text, known := c.tokens[token]; known && text != "" {
		if !strings.Contains(text, " ") {
			text = "Bearer " + text
		}
		r.Header.Set("Authorization", text)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if c.doc != nil {
		c.hold(method, r.URL.Path, w)
	}
	return w
}

// hold compares an answer with the document.
func (c *counter) hold(method, path string, w *httptest.ResponseRecorder) {
	c.t.Helper()
	operation := c.doc.find(method, path)
	if operation == "" {
		if w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
			c.t.Errorf("%s %s, which is no route, answers %d", method, path, w.Code)
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[operation] == nil {
		c.seen[operation] = map[int]bool{}
	}
	c.seen[operation][w.Code] = true
	if err := c.doc.check(operation, w); err != nil {
		c.t.Errorf("%s %s answers %d with %.300s\n%v", method, path, w.Code, w.Body, err)
	}
}

// contract is the OpenAPI document as a caller reads it.
type contract struct {
	Paths map[string]map[string]struct {
		Responses map[string]struct {
			Content map[string]json.RawMessage `json:"content"`
			Headers map[string]json.RawMessage `json:"headers"`
		} `json:"responses"`
	} `json:"paths"`

	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

func readContract(t testing.TB, text []byte) *contract {
	t.Helper()
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err = errors.Join(err, json.Unmarshal(text, c), c.compiler.AddResource("https://dealseal.invalid/openapi.json", doc)); err != nil {
		t.Fatal(err)
	}
	c.compiler.AssertFormat()
	return c
}

// find is the operation, such as "get /v1/deals/{tx}", that answers a path; literal segments count before others.
func (c *contract) find(method, path string) (operation string) {
	best := -1
	for pattern, methods := range c.Paths {
		if _, ok := methods[strings.ToLower(method)]; !ok {
			continue
		}
		if literal, ok := fits(pattern, path); ok && literal > best {
			best, operation = literal, strings.ToLower(method)+" "+pattern
		}
	}
	return operation
}

func fits(pattern, path string) (literal int, ok bool) {
	want, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	if last := want[len(want)-1]; last == "{name}" && strings.Contains(pattern, "/documents/") && len(have) > len(want) {
		have = append(have[:len(want)-1], "rest")
	}
	if len(want) != len(have) {
		return 0, false
	}
	for i := range want {
		switch {
		case want[i] == have[i]:
			literal++
		case !strings.HasPrefix(want[i], "{") || have[i] == "":
			return 0, false
		}
	}
	return literal, true
}

func (c *contract) check(operation string, w *httptest.ResponseRecorder) error {
	method, pattern, _ := strings.Cut(operation, " ")
	status := fmt.Sprint(w.Code)
	answer, known := c.Paths[pattern][method].Responses[status]
	if !known {
		return errors.New("the document does not have this status")
	}
	media, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
	if _, known := answer.Content[media]; !known {
		return fmt.Errorf("the document does not have the media type %q", media)
	}
	for name := range answer.Headers {
		if w.Header().Get(name) == "" {
			return fmt.Errorf("the header %s is missing", name)
		}
	}
	if !strings.HasSuffix(media, "json") || !bytes.Contains(answer.Content[media], []byte("schema")) {
		return nil
	}
	at := "https://dealseal.invalid/openapi.json#/paths/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(pattern)) + "/" + method + "/responses/" + status + "/content/" + strings.Replace(media, "/", "~1", 1) + "/schema"
	schema := c.schemas[at]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile(at); err != nil {
			return err
		}
		c.schemas[at] = schema
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// operations are all of the document, sorted.
func (c *contract) operations() (all []string) {
	for pattern, methods := range c.Paths {
		for method := range maps.Keys(methods) {
			all = append(all, method+" "+pattern)
		}
	}
	slices.Sort(all)
	return all
}

// way is how a test asks for an operation. Of paths, TX, BETA and N stand for a deal of acme, one of beta and a delivery.
type way struct {
	path, body string
	// other is the same of tenant beta; empty for what is of no tenant.
	other string
	// roles are those who may, as they are meant to be: not as the code has it.
	roles string
	tx    string // whose deal TX is
}

const (
	everyRole = "viewer operator signer-admin auditor admin"
	because   = `{"why":"a test"}`
	newHook   = `{"id":"acme/new","url":"https://receiver.example/new","why":"a test"}`
)

// ways are all operations. One that is not here fails the tests.
var ways = map[string]way{
	"get /v1/openapi.json":                {path: "/v1/openapi.json", roles: everyRole},
	"get /v1/token":                       {path: "/v1/token", roles: everyRole},
	"get /v1/deals":                       {path: "/v1/deals", roles: everyRole},
	"get /v1/deals/{tx}":                  {path: "/v1/deals/TX", other: "/v1/deals/BETA", roles: everyRole, tx: "done"},
	"get /v1/deals/{tx}/explain":          {path: "/v1/deals/TX/explain", other: "/v1/deals/BETA/explain", roles: everyRole, tx: "held"},
	"get /v1/deals/{tx}/values":           {path: "/v1/deals/TX/values", other: "/v1/deals/BETA/values", roles: "signer-admin auditor admin", tx: "done"},
	"get /v1/deals/{tx}/documents/{name}": {path: "/v1/deals/TX/documents/contract.pdf", other: "/v1/deals/BETA/documents/contract.pdf", roles: "signer-admin auditor admin", tx: "done"},
	"post /v1/deals/{tx}/evidence":        {path: "/v1/deals/TX/evidence", other: "/v1/deals/BETA/evidence", roles: "signer-admin auditor admin", tx: "held"},
	"get /v1/deals/{tx}/proof":            {path: "/v1/deals/TX/proof", other: "/v1/deals/BETA/proof", roles: "auditor admin", tx: "done"},
	"post /v1/deals/{tx}/retry":           {path: "/v1/deals/TX/retry", other: "/v1/deals/BETA/retry", body: because, roles: "operator signer-admin admin", tx: "dead"},
	"post /v1/deals/{tx}/release":         {path: "/v1/deals/TX/release", other: "/v1/deals/BETA/release", body: because, roles: "operator signer-admin admin", tx: "releasable"},
	"post /v1/deals/{tx}/drop":            {path: "/v1/deals/TX/drop", other: "/v1/deals/BETA/drop", body: because, roles: "operator signer-admin admin", tx: "droppable"},
	"post /v1/deals/{tx}/prepare":         {path: "/v1/deals/TX/prepare", other: "/v1/deals/BETA/prepare", body: because, roles: "signer-admin admin", tx: "preparable"},

	"post /v1/signatures":     {path: "/v1/signatures", body: `{"tenant":"acme","template_id":"order-form","record_id":"RECORD"}`, roles: "operator signer-admin admin"},
	"get /v1/signatures/{id}": {path: "/v1/signatures/sig_TX", other: "/v1/signatures/sig_BETA", roles: everyRole, tx: "done"},

	"get /v1/templates":                {path: "/v1/templates", roles: everyRole},
	"get /v1/tenants":                  {path: "/v1/tenants", roles: everyRole},
	"post /v1/tenants/{tenant}/pause":  {path: "/v1/tenants/acme/pause", other: "/v1/tenants/beta/pause", body: because, roles: "operator signer-admin admin"},
	"post /v1/tenants/{tenant}/resume": {path: "/v1/tenants/acme/resume", other: "/v1/tenants/beta/resume", body: because, roles: "operator signer-admin admin"},
	"get /v1/certificates":             {path: "/v1/certificates", roles: everyRole},
	"get /v1/audit/checkpoint":         {path: "/v1/audit/checkpoint", roles: "auditor admin"},
	"post /v1/audit/checkpoint":        {path: "/v1/audit/checkpoint", roles: "auditor admin"},

	"get /v1/webhooks":                                                  {path: "/v1/webhooks", roles: everyRole},
	"post /v1/webhooks":                                                 {path: "/v1/webhooks", body: newHook, roles: "admin"},
	"post /v1/webhooks/test":                                            {path: "/v1/webhooks/test", body: `{"endpoint":"acme/erp"}`, roles: "operator admin"},
	"get /v1/webhooks/{tenant}/{name}":                                  {path: "/v1/webhooks/acme/erp", other: "/v1/webhooks/beta/erp", roles: everyRole},
	"get /v1/webhooks/{tenant}/{name}/keys":                             {path: "/v1/webhooks/acme/erp/keys", other: "/v1/webhooks/beta/erp/keys", roles: everyRole},
	"post /v1/webhooks/{tenant}/{name}/rotate":                          {path: "/v1/webhooks/acme/erp/rotate", other: "/v1/webhooks/beta/erp/rotate", body: because, roles: "admin"},
	"post /v1/webhooks/{tenant}/{name}/enable":                          {path: "/v1/webhooks/acme/erp/enable", other: "/v1/webhooks/beta/erp/enable", body: because, roles: "admin"},
	"post /v1/webhooks/{tenant}/{name}/disable":                         {path: "/v1/webhooks/acme/erp/disable", other: "/v1/webhooks/beta/erp/disable", body: because, roles: "admin"},
	"post /v1/webhooks/{tenant}/{name}/remove":                          {path: "/v1/webhooks/acme/old/remove", other: "/v1/webhooks/beta/erp/remove", body: because, roles: "admin"},
	"post /v1/webhooks/{tenant}/{name}/redeliver":                       {path: "/v1/webhooks/acme/erp/redeliver", other: "/v1/webhooks/beta/erp/redeliver", body: `{"failed":true,"why":"a test"}`, roles: "operator admin"},
	"get /v1/webhooks/{tenant}/{name}/deliveries":                       {path: "/v1/webhooks/acme/erp/deliveries", other: "/v1/webhooks/beta/erp/deliveries", roles: everyRole},
	"get /v1/webhooks/{tenant}/{name}/deliveries/{delivery}":            {path: "/v1/webhooks/acme/erp/deliveries/N", other: "/v1/webhooks/beta/erp/deliveries/N", roles: everyRole},
	"post /v1/webhooks/{tenant}/{name}/deliveries/{delivery}/redeliver": {path: "/v1/webhooks/acme/erp/deliveries/N/redeliver", other: "/v1/webhooks/beta/erp/deliveries/N/redeliver", body: because, roles: "operator admin"},
	"post /admin/tenants/{tenant}/webhooks":                             {path: "/admin/tenants/acme/webhooks", other: "/admin/tenants/beta/webhooks", body: `{"url":"https://receiver.example/sdf","secret":"a secret of the customer's own choice"}`, roles: "admin"},
}

// at puts what there is into a path.
func (c *counter) at(path, tx string) string {
	path = strings.Replace(path, "TX", string(c.txs[tx]), 1)
	return strings.Replace(strings.Replace(path, "BETA", string(c.beta), 1), "/N", fmt.Sprint("/", c.delivery), 1)
}

// TestEachRoleMayWhatItIsMeantTo asks for every operation as everybody: each role, of its own tenant and of another one, and
// whoever is nobody.
func TestEachRoleMayWhatItIsMeantTo(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	for _, role := range deal.TokenRoles {
		if !slices.Contains(strings.Fields(everyRole), string(role)) {
			t.Errorf("role %s is in no test", role)
		}
	}
	for _, operation := range c.doc.operations() {
		w, known := ways[operation]
		if !known {
			t.Errorf("%s is in no test", operation)
			continue
		}
		method, _, _ := strings.Cut(operation, " ")
		method = strings.ToUpper(method)
		open := operation == "get /v1/openapi.json"
		for _, who := range c.strangers() {
			got := c.askOf(who.api, method, c.at(w.path, w.tx), who.token, w.body, who.change)
			if want := 401; !open && (got.Code != want || strings.Contains(got.Body.String(), "detail")) {
				t.Errorf("%s as %s: %d %s", operation, who.how, got.Code, got.Body)
			}
		}
		if !open {
			c.showsNothingElsewhere(operation, method, w)
		}
		for _, role := range strings.Fields(everyRole) {
			for _, as := range c.appearances(role) {
				c.mayAs(operation, w, role, as)
			}
		}
	}
	for operation := range ways {
		if !slices.Contains(c.doc.operations(), operation) {
			t.Errorf("%s is not there any more", operation)
		}
	}
	if report, err := c.store.VerifyAudit(context.Background(), nil); err != nil {
		t.Errorf("the audit log: %v %v", report, err)
	}
	if strings.Contains(c.log.String(), "level=ERROR") || strings.Contains(c.log.String(), "ds_live_") {
		t.Errorf("the log has an error or a token:\n%s", c.log.String())
	}
}

// mayAs asks for an operation as a role that comes in one of the ways.
func (c *counter) mayAs(operation string, w way, role string, as appearance) {
	c.t.Helper()
	method, _, _ := strings.Cut(operation, " ")
	method = strings.ToUpper(method)
	may := slices.Contains(strings.Fields(w.roles), role)
	got := c.askOf(as.api, method, c.at(w.path, w.tx), as.token, w.body, as.change)
	if denied := got.Code == http.StatusForbidden; denied == may || got.Code == http.StatusUnauthorized || got.Code >= 500 {
		c.t.Errorf("%s as %s %s: %d %s", operation, role, as.how, got.Code, got.Body)
	}
	if strings.Contains(got.Body.String(), "beta") || strings.Contains(got.Body.String(), betasCompany) || strings.Contains(got.Body.String(), string(c.beta)) || strings.Contains(got.Body.String(), "token=hidden") {
		c.t.Errorf("%s tells %s %s of another tenant, or a secret: %s", operation, role, as.how, got.Body)
	}
	if may && w.other != "" {
		if got := c.askOf(as.api, method, c.at(w.other, w.tx), as.token, w.body, as.change); got.Code != http.StatusNotFound {
			c.t.Errorf("%s as %s %s of another tenant: %d %s", operation, role, as.how, got.Code, got.Body)
		}
	}
}

// showsNothingElsewhere is about a token for tests: what is in production is not there.
func (c *counter) showsNothingElsewhere(operation, method string, w way) {
	c.t.Helper()
	got := c.ask(method, c.at(w.path, w.tx), "test", w.body)
	if ofTenant := w.other != ""; ofTenant != (got.Code == http.StatusNotFound) && !strings.HasPrefix(w.path, "/v1/webhooks") && w.path != "/v1/signatures" || strings.Contains(got.Body.String(), "acme") {
		c.t.Errorf("%s for a sandbox: %d %s", operation, got.Code, got.Body)
	}
}

// hostile are requests that must be answered with a status of the document.
func (c *counter) hostile(operation string, w way) {
	method, _, _ := strings.Cut(operation, " ")
	method = strings.ToUpper(method)
	path := c.at(w.path, w.tx)
	c.ask(method, path+"?unknown=1", "admin", w.body)
	for status, change := range map[int]func(*http.Request){
		http.StatusForbidden: func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		http.StatusServiceUnavailable: func(r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			*r = *r.WithContext(ctx)
		},
	} {
		if got := c.askOf(c.api, method, path, "admin", w.body, change); c.doc.has(operation, status) && got.Code != status && status != http.StatusForbidden {
			c.t.Errorf("%s: %d instead of %d", operation, got.Code, status)
		}
	}
	narrow := c.open(1, 1_000_000)
	if operation == "get /v1/openapi.json" {
		narrow = c.open(1, 1)
	}
	c.askOf(narrow, method, path, "viewer", w.body, nil)
	got := c.askOf(narrow, method, path, "viewer", w.body, nil)
	if got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") == "" || got.Header().Get("RateLimit-Remaining") != "0" {
		c.t.Errorf("%s once more than is allowed: %d %v", operation, got.Code, got.Header())
	}
	if w.body == "" {
		return
	}
	for _, body := range []string{"", "{", "[]", "null", `{"why":7}`, `{"why":"a","unknown":1}`, w.body + w.body, `{"why":""}`, `{"why":"two\nlines"}`} {
		c.ask(method, path, "admin", body)
	}
	c.ask(method, path, "admin", `{"why":"`+strings.Repeat("x", 70<<10)+`"}`)
	c.askOf(c.api, method, path, "admin", w.body, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
	c.askOf(c.api, method, path, "admin", w.body, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") })
}

func (c *contract) has(operation string, status int) bool {
	method, pattern, _ := strings.Cut(operation, " ")
	_, known := c.Paths[pattern][method].Responses[fmt.Sprint(status)]
	return known
}

// TestTheDocumentIsTrue has every operation answer with every status that the document names, and with no other one.
func TestTheDocumentIsTrue(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	for _, operation := range c.doc.operations() {
		c.hostile(operation, ways[operation])
	}
	for operation, w := range ways {
		method, _, _ := strings.Cut(operation, " ")
		for _, who := range []string{"none", "viewer", "admin"} {
			c.ask(strings.ToUpper(method), c.at(w.path, w.tx), who, w.body)
		}
		if w.other != "" {
			c.ask(strings.ToUpper(method), c.at(w.other, w.tx), "admin", w.body)
		}
	}
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/v1/deals?q=held&state=held&day=2026-03-04&limit=1", ""}, {"GET", "/v1/deals?day=tomorrow", ""}, {"GET", "/v1/deals?limit=0", ""}, {"GET", "/v1/deals?cursor=1", ""}, {"GET", "/v1/deals?state=odd", ""},
		{"GET", c.at("/v1/deals/TX/values", "erased"), ""}, {"GET", c.at("/v1/deals/TX/documents/contract.pdf", "erased"), ""}, {"POST", c.at("/v1/deals/TX/evidence", "erased"), ""},
		{"GET", c.at("/v1/deals/TX/documents/evidence/report.json", "done"), ""}, {"GET", c.at("/v1/deals/TX/documents/../../../etc/passwd", "done"), ""},
		{"POST", c.at("/v1/deals/TX/retry", "running"), because}, {"POST", c.at("/v1/deals/TX/retry", "erased-dead"), because},
		{"POST", c.at("/v1/deals/TX/release", "running"), because}, {"POST", c.at("/v1/deals/TX/release", "erased-held"), because},
		{"POST", c.at("/v1/deals/TX/drop", "running"), because}, {"POST", c.at("/v1/deals/TX/drop", "erased-held"), because},
		{"POST", c.at("/v1/deals/TX/prepare", "running"), because}, {"POST", c.at("/v1/deals/TX/prepare", "erased-held"), because},
		{"POST", "/v1/webhooks", newHook}, {"POST", "/v1/webhooks", `{"id":"beta/mine","url":"https://receiver.example","why":"a test"}`}, {"POST", "/v1/webhooks", `{"id":"acme/x","url":"ftp://receiver.example","why":"a test"}`},
		{"POST", "/v1/webhooks/test", `{"endpoint":"beta/erp"}`}, {"POST", "/v1/webhooks/test", `{"url":"https://receiver.example/hooks/beta/erp?token=hidden"}`}, {"POST", "/v1/webhooks/test", `{"url":"https://receiver.example/hooks/acme/erp?token=hidden"}`},
		{"POST", "/v1/webhooks/test", `{}`}, {"POST", "/v1/webhooks/test", `{"endpoint":"acme/erp","event":"no.such"}`},
		{"POST", "/v1/webhooks/acme/filed/rotate", because}, {"POST", "/v1/webhooks/acme/erp/rotate", `{"secret":"short","why":"a test"}`},
		{"POST", "/v1/webhooks/acme/filed/remove", because}, {"POST", "/v1/webhooks/acme/gone/enable", because}, {"POST", "/v1/webhooks/acme/erp/redeliver", `{"failed":true,"since":"2026-01-01T00:00:00Z","why":"a test"}`},
		{"POST", "/v1/webhooks/acme/erp/redeliver", `{"since":"2026-01-01T00:00:00Z","why":"a test"}`}, {"GET", "/v1/webhooks/acme/erp/deliveries?state=pending&limit=1", ""}, {"GET", "/v1/webhooks/acme/erp/deliveries/x", ""},
		{"POST", "/admin/tenants/acme/webhooks", `{"url":"https://receiver.example/sdf"}`}, {"POST", "/v1/signatures", `{"tenant":"acme","template_id":"order-form@2","record_id":"RECORD"}`}, {"POST", "/v1/signatures", `{"tenant":"beta","template_id":"order-form","record_id":"RECORD"}`},
	} {
		c.ask(r.method, r.path, "admin", r.body)
	}
	c.askOf(c.api, "POST", "/v1/signatures", "admin", ways["post /v1/signatures"].body, withKey("another"))
	for range 2 {
		c.ask("POST", "/v1/tenants/acme/pause", "admin", because)
	}
	for range 2 {
		c.ask("POST", "/v1/tenants/acme/resume", "admin", because)
	}
	if got := c.ask("POST", c.at("/v1/deals/TX/evidence", "done"), "admin", ""); got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" || strings.Contains(got.Body.String(), "HSM") {
		t.Errorf("evidence while the HSM is away: %d %s", got.Code, got.Body)
	}
	limited := 0
	for range 11 {
		if got := c.ask("POST", c.at("/v1/deals/TX/evidence", "done"), "auditor", ""); got.Code == http.StatusTooManyRequests && strings.Contains(got.Body.String(), "evidence") && got.Header().Get("Retry-After") != "" {
			limited++
		}
	}
	if got := c.ask("GET", c.at("/v1/deals/TX", "done"), "auditor", ""); limited == 0 || got.Code != http.StatusOK {
		t.Errorf("%d of 11 requests for evidence were refused, want at least one, and the deal is still told: %d", limited, got.Code)
	}
	c.withoutCheckpoint()
	c.ok(c.store.Close())
	for operation, w := range ways {
		method, _, _ := strings.Cut(operation, " ")
		c.ask(strings.ToUpper(method), c.at(w.path, w.tx), "admin", w.body)
	}
	for _, operation := range c.doc.operations() {
		method, pattern, _ := strings.Cut(operation, " ")
		for status := range c.doc.Paths[pattern][method].Responses {
			// A bundle is signed with a key: see TestAProgramReadsDealsFetchesContractsAndDecides.
			if operation == "post /v1/deals/{tx}/evidence" && status == "200" {
				continue
			}
			if !slices.ContainsFunc(slices.Collect(maps.Keys(c.seen[operation])), func(n int) bool { return fmt.Sprint(n) == status }) {
				t.Errorf("%s was never answered with %s, which the document has", operation, status)
			}
		}
	}
}

// TestWhatIsSentIsTakenToTheLetter: what two readers may understand in two ways is refused, and so is a query that has lost
// its value, which would find everything.
func TestWhatIsSentIsTakenToTheLetter(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	const retry = "/v1/deals/TX/retry"
	for body, says := range map[string]string{
		`{"why":"a test","why":"another"}`: `why more than once`,
		`{"WHY":"a test"}`:                 `WHY, which is not known`,
		`{"why":null}`:                     `null`,
		strings.Repeat("[", 60_000):        `too far inside each other`,
		`[x`:                               `from byte`,
		`{"why":["a" "b"]}`:                `from byte`,
		`{"why":[1,}`:                      `from byte`,
		`{"why"`:                           `from byte`,
		`{"why":"` + strings.Repeat("é", 501) + `"}`:                          `at most 500 characters`,
		`{"why":"\u0085"}`:                                                    `say why`,
		`{"id":"acme/x","url":"https://a.example","why":"x","events":[null]}`: `null`,
		`{"record_id":"RECORD","options":{"pades":true,"Pades":false}}`:       `Pades, which is not known`,
	} {
		path := c.at(retry, "dead")
		if strings.Contains(body, "url") {
			path = "/v1/webhooks"
		} else if strings.Contains(body, "record_id") {
			path = "/v1/signatures"
		}
		got := c.ask("POST", path, "admin", body)
		if !strings.Contains(got.Body.String(), says) || got.Code != http.StatusBadRequest && got.Code != http.StatusUnprocessableEntity {
			t.Errorf("%.60s: %d %s", body, got.Code, got.Body)
		}
	}
	for _, query := range []string{"tenant=", "rule=", "state=", "day=", "q=", "limit=", "cursor="} {
		if got := c.ask("GET", "/v1/deals?"+query, "admin", ""); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), "leave it out") {
			t.Errorf("%s: %d %s", query, got.Code, got.Body)
		}
	}
	if got := c.ask("POST", c.at(retry, "dead"), "admin", `{"why":"`+strings.Repeat("é", 500)+`"}`); got.Code != http.StatusOK {
		t.Errorf("a reason of 500 characters: %d %s", got.Code, got.Body)
	}
}

// endless counts what is read of a body that is far too large.
type endless struct{ left, read int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), e.left)
	e.left, e.read = e.left-n, e.read+n
	for i := range p[:n] {
		p[i] = ' '
	}
	return n, nil
}

// TestABodyThatIsFarTooLargeIsNotReadToItsEnd however its length is given, nor at all of whoever has no token.
func TestABodyThatIsFarTooLargeIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	for _, one := range []struct {
		what, token    string
		length         int64
		status, atMost int
	}{
		{"10 MB, as it says", "admin", 10 << 20, http.StatusRequestEntityTooLarge, 0},
		{"10 MB, as it turns out", "admin", -1, http.StatusRequestEntityTooLarge, 64<<10 + 1},
		{"10 MB of a stranger", "", 10 << 20, http.StatusUnauthorized, 0},
		{"10 MB of a stranger, as it would turn out", "", -1, http.StatusUnauthorized, 0},
	} {
		body := &endless{left: 10 << 20}
		got := c.askOf(c.api, "POST", "/v1/webhooks", one.token, "", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(body), one.length })
		if got.Code != one.status || body.read > one.atMost || strings.Contains(got.Body.String(), "  ") {
			t.Errorf("%s: answered %d after %d bytes: %s", one.what, got.Code, body.read, got.Body)
		}
	}
}

// TestAReceiverFetchesThePublicKeysThatCount, both while one takes the place of the other.
func TestAReceiverFetchesThePublicKeysThatCount(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	keys := func(id string) (set api.Keys) {
		t.Helper()
		got := c.ask("GET", "/v1/webhooks/"+id+"/keys", "viewer", "")
		if got.Code != http.StatusOK {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
		c.ok(json.Unmarshal(got.Body.Bytes(), &set))
		return set
	}
	if set := keys("acme/erp"); len(set.Keys) != 0 {
		t.Errorf("of a shared secret: %+v", set)
	}
	var added api.AddedEndpoint
	c.ok(json.Unmarshal(c.ask("POST", "/v1/webhooks", "admin", `{"id":"acme/lasting","url":"https://receiver.example/lasting","asymmetric":true,"why":"a test"}`).Body.Bytes(), &added))
	first := keys("acme/lasting").Keys
	if len(first) != 1 || first[0].Text != added.Secret || !first[0].Until.IsZero() {
		t.Fatalf("%+v; the receiver was given %s", first, added.Secret)
	}
	x, err := base64.RawURLEncoding.DecodeString(first[0].X)
	c.ok(err)
	if want := "whpk_" + base64.StdEncoding.EncodeToString(x); first[0].Type != "OKP" || first[0].Curve != "Ed25519" || added.Secret != want || len(first[0].ID) != 43 {
		t.Errorf("%+v is not %s", first[0], added.Secret)
	}
	if got := c.ask("POST", "/v1/webhooks/acme/lasting/rotate", "admin", because); got.Code != http.StatusOK {
		t.Fatal(got.Body)
	}
	both := keys("acme/lasting").Keys
	if len(both) != 2 || both[0].X == first[0].X || !both[0].Until.IsZero() || both[1].X != first[0].X || both[1].Until.IsZero() {
		t.Errorf("while it is rotated: %+v", both)
	}
}

func withKey(key string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Idempotency-Key", key) }
}

// TestARequestIsRefusedWithTheReason and leaves nothing behind: with the same key the right one is taken.
func TestARequestIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	hook := hookAt("acme/calls", "https://receiver.example/calls?token=hidden")
	hook.Callbacks = true
	c.ok(c.store.AddEndpoint(context.Background(), hook, "test", "for callbacks"))
	const good = `{"tenant":"acme","rule":"order-form","template_id":"order-form@1","record_id":"RECORD","callback_url":"https://receiver.example/calls/signature-complete?order=4711","options":{"pades":true,"timestamp":true}}`
	for says, one := range map[string]struct {
		want int
		body string
	}{
		"there is nothing of that":    {404, strings.Replace(good, "acme", "beta", 1)},
		"no rule":                     {422, strings.Replace(good, "order-form@1", "order-form@2", 1)},
		"more than one rule":          {422, `{"template_id":"order-form","record_id":"RECORD"}`},
		"which contract":              {422, `{"record_id":"RECORD"}`},
		"no record of that ID":        {422, strings.Replace(good, "RECORD", "006000000000000AAA", 1)},
		"has 15 or 18 characters":     {422, strings.Replace(good, "RECORD", "opportunity123", 1)},
		"at most 32 letters":          {422, strings.Replace(good, "RECORD", "006' OR Name != '", 1)},
		"house's own seal":            {422, strings.Replace(good, `"options"`, `"signer":{"name":"Zofia","email":"zofia@example.com"},"options"`, 1)},
		"options.pades":               {422, strings.Replace(good, `"pades":true`, `"pades":false`, 1)},
		"options.timestamp":           {422, strings.Replace(good, `"timestamp":true`, `"timestamp":false`, 1)},
		"not below the address":       {422, strings.Replace(good, "/calls/", "/hooks/", 1)},
		"below the address of a":      {422, strings.Replace(good, "receiver.example", "receiver.example.com", 1)},
		"which is not known here":     {400, strings.Replace(good, `"record_id"`, `"record"`, 1)},
		"is of the wrong type":        {400, strings.Replace(good, `"RECORD"`, `7`, 1)},
		"callback_url is not below":   {422, strings.Replace(good, "/calls/signature-complete", "/calls/../admin", 1)},
		"there for callbacks: an adm": {422, strings.Replace(good, "https://receiver", "http://receiver", 1)},
	} {
		who := "operator"
		if says == "more than one rule" {
			who = "everywhere"
		}
		if got := c.ask("POST", "/v1/signatures", who, one.body); got.Code != one.want || !strings.Contains(got.Body.String(), says) || strings.Contains(got.Body.String(), "hidden") {
			t.Errorf("%s: %d %s", says, got.Code, got.Body)
		}
	}
	for _, key := range []string{"", strings.Repeat("k", 256), "tab\tin it", "é"} {
		if got := c.askOf(c.api, "POST", "/v1/signatures", "operator", good, withKey(key)); got.Code != 400 {
			t.Errorf("with the key %q: %d %s", key, got.Code, got.Body)
		}
	}
	var first, again api.Signature
	c.ok(json.Unmarshal(c.ask("POST", "/v1/signatures", "operator", good).Body.Bytes(), &first))
	c.ok(json.Unmarshal(c.ask("POST", "/v1/signatures", "admin", good).Body.Bytes(), &again))
	if first.Status != "processing" || first.ID != "sig_"+string(first.Tx) || first.Record != c.record || first != again {
		t.Errorf("asked twice: %+v, %+v", first, again)
	}
	was, changed := c.house.house, apiTenant("acme", "production")
	changed.rules[0].Plan.Template = "order-form@2"
	c.house.house = func() *house { return &house{cfg: &config.Config{}, tenants: []tenant{changed}} }
	if got := c.ask("POST", "/v1/signatures", "operator", good); got.Code != 202 || !strings.Contains(got.Body.String(), first.ID) {
		t.Errorf("asked again when the rule was changed: %d %s", got.Code, got.Body)
	}
	c.house.house = was
	if got := c.ask("POST", "/v1/signatures", "operator", strings.Replace(good, `,"options":{"pades":true,"timestamp":true}`, "", 1)); got.Code != 422 || !strings.Contains(got.Body.String(), "something else") {
		t.Errorf("the same key for something else: %d %s", got.Code, got.Body)
	}
	if got := c.askOf(c.api, "POST", "/v1/signatures", "operator", good, withKey("another")); got.Code != 409 || !strings.Contains(got.Body.String(), string(first.Tx)) {
		t.Errorf("another key for the same record: %d %s", got.Code, got.Body)
	}
	sent, _, err := c.store.Take(context.Background(), "acme/calls", 10, time.Minute)
	c.ok(err)
	if len(sent) != 1 || sent[0].Event.Transaction != string(first.Tx) || sent[0].URL != "https://receiver.example/calls/signature-complete?order=4711" {
		t.Errorf("it is called back with %+v", sent)
	}
	story, err := c.store.Story(context.Background(), first.Tx)
	c.ok(err)
	if e := story.Trail[0]; e.What != "requested" || !strings.HasPrefix(e.Who, "api:acme-operator (") {
		t.Errorf("the audit log has %+v", e)
	}
}

func TestTokensThatAreMissedAreTold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	good := deal.Token{Until: now.AddDate(0, 0, 13), Used: now.AddDate(0, 0, -29)}
	later, unused, over, revoked := good, good, good, good
	later.Until, unused.Used, over.Until, revoked.Revoked = now.AddDate(0, 0, 15), time.Time{}, now, now
	if n := endingTokens([]deal.Token{later, unused, good, over, revoked}, now); n != 1 {
		t.Errorf("%d tokens end soon, want the one that is used", n)
	}
}

// withoutCheckpoint asks where the audit log was never signed.
func (c *counter) withoutCheckpoint() {
	c.t.Helper()
	fresh := &counter{t: c.t, now: c.now, doc: c.doc, seen: c.seen, tokens: map[string]string{}}
	s, err := store.Open(context.Background(), store.Options{Dir: filepath.Join(c.t.TempDir(), "fresh"), MasterKey: secret.New(bytes.Repeat([]byte{9}, 32))})
	c.ok(err)
	defer s.Close()
	page := c.house.pageHouse
	fresh.store, fresh.house = s, &apiHouse{pageHouse: &pageHouse{Store: s, house: page.house, log: page.log}, ops: &local{Store: s, configured: c.house.ops.configured}}
	fresh.tokens["admin"] = fresh.create(tokenRequest{Name: "admin", Role: deal.RoleAdmin})
	if got := fresh.askOf(fresh.open(10, 10), "GET", "/v1/audit/checkpoint", "admin", "", nil); got.Code != http.StatusNotFound {
		c.t.Errorf("without a checkpoint: %d", got.Code)
	}
}

// TestWrongTokensUseUpTheLimitOfTheirAddress, so that guessing is slow and others' tokens stay good.
func TestWrongTokensUseUpTheLimitOfTheirAddress(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	a := c.open(100, 60)
	for range 3 {
		if got := c.askOf(a, "GET", "/v1/deals", "unknown", "", nil); got.Code != http.StatusUnauthorized || got.Header().Get("WWW-Authenticate") == "" {
			t.Fatalf("a wrong token: %d", got.Code)
		}
	}
	if got := c.askOf(a, "GET", "/v1/deals", "admin", "", nil); got.Code != http.StatusTooManyRequests {
		t.Errorf("after three guesses of sixty requests: %d", got.Code)
	}
	if got := c.askOf(a, "GET", "/v1/deals", "admin", "", func(r *http.Request) { r.RemoteAddr = "192.0.2.8:1" }); got.Code != http.StatusOK {
		t.Errorf("from elsewhere: %d", got.Code)
	}
}

// TestACertificateIsKnownByItsFingerprintAlone goes through a handshake: whoever has not the key is not let in.
func TestACertificateIsKnownByItsFingerprintAlone(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	server := httptest.NewUnstartedServer(c.api)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	known, namesake, over := clientCertificate(t, time.Hour), clientCertificate(t, time.Hour), clientCertificate(t, -time.Minute)
	for name, one := range map[string]tls.Certificate{"etl": known, "over": over} {
		token, err := certificateToken(deal.Token{Name: name, Live: true, Role: deal.RoleViewer, Until: time.Now().Add(24 * time.Hour)}, one.Certificate[0])
		c.ok(err)
		if name == "etl" && token.Until.After(one.Leaf.NotAfter) {
			t.Errorf("the token of a certificate that ends at %s ends at %s", one.Leaf.NotAfter, token.Until)
		}
		token.Until = time.Now().Add(24 * time.Hour) // of the one that is over, too: the certificate counts
		c.ok(c.store.AddToken(context.Background(), token, "test", "a test"))
	}
	asks := func(one *tls.Certificate, bearer string) int {
		t.Helper()
		conf := &tls.Config{RootCAs: x509.NewCertPool()}
		conf.RootCAs.AddCert(server.Certificate())
		if one != nil {
			conf.Certificates = []tls.Certificate{*one}
		}
		transport := &http.Transport{TLSClientConfig: conf}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequest("GET", server.URL+"/v1/token", nil)
		c.ok(err)
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		c.ok(err)
		resp.Body.Close()
		if resp.Header.Get("Strict-Transport-Security") != "max-age=63072000; includeSubDomains; preload" {
			t.Error("no HSTS")
		}
		return resp.StatusCode
	}
	for what, one := range map[string]struct {
		certificate *tls.Certificate
		bearer      string
		want        int
	}{
		"the one that was entered":           {&known, "", 200},
		"another of the same name":           {&namesake, "", 401},
		"one that is over":                   {&over, "", 401},
		"none":                               {nil, "", 401},
		"a good one beside a wrong token":    {&known, newTokenText(true), 401},
		"a token":                            {nil, c.tokens["viewer"], 200},
		"the fingerprint itself, as a token": {nil, api.Fingerprint(known.Certificate[0]), 401},
		"a token beside one that is unknown": {&namesake, c.tokens["viewer"], 200},
	} {
		if got := asks(one.certificate, one.bearer); got != one.want {
			t.Errorf("%s: %d, want %d", what, got, one.want)
		}
	}
	_, err := c.store.RevokeToken(context.Background(), "etl", "test", "it was stolen")
	c.ok(err)
	if got := asks(&known, ""); got != 401 {
		t.Errorf("revoked: %d", got)
	}
	c.api.AuditCalls(context.Background())
	c.api.AuditCalls(context.Background()) // nothing is left
	noted := c.noted("api.called")
	if len(noted) != 2 {
		t.Fatalf("the audit log has %+v", noted)
	}
	slices.SortFunc(noted, func(a, b store.AuditLine) int { return strings.Compare(a.Who, b.Who) })
	if d := noted[1].Detail; !strings.HasPrefix(noted[1].Who, "api:etl (") || d["fingerprint"] != api.Fingerprint(known.Certificate[0]) || d["subject"] != "CN=crm-integration-client" || d["calls"] != "GET /v1/token 200: 1" {
		t.Errorf("of the certificate: %+v", noted[1])
	}
	if d := noted[0].Detail; d["fingerprint"] != api.Fingerprint([]byte(c.tokens["viewer"])) || d["subject"] != "" || d["calls"] != "GET /v1/token 200: 2" {
		t.Errorf("of the token: %+v", noted[0])
	}
}

// TestTheAuditLogNamesTheProxy of what was done with a certificate that it was shown, and what it was shown that is nobody's.
func TestTheAuditLogNamesTheProxy(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	const proxy = "192.0.2.80"
	via := "via " + proxy + " (" + c.proxies.Certificates[0][:16] + ")"
	drop := c.at("/v1/deals/TX/drop", "droppable")
	got := c.askOf(c.api, "POST", drop, "none", because, c.shows(proxy, "proxy", api.HeaderPEM, c.asPEM("operator")))
	if got.Code != http.StatusOK {
		t.Fatalf("%d %s", got.Code, got.Body)
	}
	story, err := c.store.Story(context.Background(), c.txs["droppable"])
	c.ok(err)
	if who := story.Trail[len(story.Trail)-1].Who; !strings.HasPrefix(who, "api:machine-operator (") || !strings.HasSuffix(who, ") "+via) {
		t.Errorf("it was dropped by %s", who)
	}
	c.askOf(c.api, "GET", "/v1/deals", "none", "", c.shows("192.0.2.7", "operator", "", ""))
	for value, want := range map[string]int{c.asPEM("stranger"): 401, "-----BEGIN": 400} {
		for range 2 {
			got := c.askOf(c.api, "GET", "/v1/deals", "admin", "", c.shows(proxy, "proxy", api.HeaderPEM, value)) // whatever the token is good for
			if got.Code != want || strings.Contains(got.Body.String(), "detail") || got.Header().Get("RateLimit-Limit") != "" {
				t.Errorf("%.20s: %d %s", value, got.Code, got.Body)
			}
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	c.api.AuditCalls(ended)
	if refused := c.noted("api.refused"); len(refused) != 0 {
		t.Errorf("without a database: %+v", refused)
	}
	c.askOf(c.api, "GET", "/v1/deals", "none", "", c.shows(proxy, "proxy", api.HeaderPEM, "-----BEGIN"))
	c.api.AuditCalls(context.Background())
	calls := map[string]string{}
	for _, line := range c.noted("api.called") {
		calls[line.Detail["via"]] = line.Detail["calls"]
	}
	if len(calls) != 2 || calls[strings.TrimPrefix(via, "via ")] != "POST /v1/deals/{tx}/drop 200: 1" || calls[""] != "GET /v1/deals 200: 1" {
		t.Errorf("the calls are %v", calls)
	}
	counts := map[string]string{}
	for _, line := range c.noted("api.refused") {
		counts[line.Why] = line.Detail["count"] + " " + line.Detail["via"]
	}
	want := map[string]string{"it is none of the client CA's, or not for clients": "2 " + strings.TrimPrefix(via, "via "), "X-Client-Cert holds no PEM certificate, or more than one": "3 " + strings.TrimPrefix(via, "via ")}
	if !maps.Equal(counts, want) {
		t.Errorf("those that were refused: %v, want %v", counts, want)
	}
}

// noted are the entries of a kind in the audit log that are about no deal.
func (c *counter) noted(what string) []store.AuditLine {
	c.t.Helper()
	all, err := c.store.AuditLog(context.Background(), store.AuditQuery{What: what, Limit: 100})
	c.ok(err)
	return all
}

// TestCallsAreCountedUntilTheAuditLogTakesThem, also those that were refused, and what came while it did not.
func TestCallsAreCountedUntilTheAuditLogTakesThem(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.ask("GET", "/v1/deals", "viewer", "")
	c.ask("POST", c.at("/v1/deals/TX/retry", "dead"), "viewer", because)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	c.api.AuditCalls(ended)
	if got := c.noted("api.called"); len(got) != 0 || !strings.Contains(c.log.String(), "takes no note of calls") {
		t.Errorf("without a database: %+v", got)
	}
	c.ask("GET", "/v1/deals", "viewer", "")
	c.api.AuditCalls(context.Background())
	if got := c.noted("api.called"); len(got) != 1 || got[0].Detail["calls"] != "GET /v1/deals 200: 2, POST /v1/deals/{tx}/retry 403: 1" {
		t.Errorf("the audit log has %+v", got)
	}
}

func clientCertificate(t testing.TB, lasts time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "crm-integration-client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lasts), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, made, made, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestPagesFollowOneAnother of deals and of deliveries: each once, the newest first.
func TestPagesFollowOneAnother(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	for path, list := range map[string]string{"/v1/deals": "deals", "/v1/webhooks/acme/erp/deliveries": "deliveries"} {
		read := func(query string) (rows []json.RawMessage, next string) {
			t.Helper()
			var page map[string]json.RawMessage
			c.ok(json.Unmarshal(c.ask("GET", path+query, "viewer", "").Body.Bytes(), &page))
			c.ok(json.Unmarshal(page[list], &rows))
			if page["next_cursor"] != nil {
				c.ok(json.Unmarshal(page["next_cursor"], &next))
			}
			return rows, next
		}
		whole, next := read("")
		if len(whole) == 0 || next != "" {
			t.Fatalf("%s: %d rows, and %q", path, len(whole), next)
		}
		var all []json.RawMessage
		for query := "?limit=3"; ; query = "?limit=3&cursor=" + url.QueryEscape(next) {
			var rows []json.RawMessage
			rows, next = read(query)
			all = append(all, rows...)
			if next == "" {
				break
			}
			if len(all) > len(whole) {
				t.Fatalf("%s: pages without an end", path)
			}
		}
		if !slices.EqualFunc(all, whole, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%s: pages of three have %d rows, all at once %d", path, len(all), len(whole))
		}
	}
}

// FuzzAPI has any request answered as the document says: never with a 500.
func FuzzAPI(f *testing.F) {
	for operation, w := range ways {
		method, _, _ := strings.Cut(operation, " ")
		f.Add(method == "post", w.path, w.body)
		f.Add(method == "post", w.other, w.body)
	}
	f.Add(false, "/v1/deals?q=%ff&limit=1&cursor=MTo5", "")
	f.Add(false, "/v1/deals/TX/documents/%2e%2e/contract.pdf", "")
	f.Add(true, "/v1/webhooks", `{"id":"acme/\u0000","url":"https://[::1","events":[null],"why":"x"}`)
	f.Add(true, "/v1/webhooks/test", `{"endpoint":[x`)
	f.Add(true, "/v1/webhooks/acme/erp/redeliver", `{"since":"9999-12-31T23:59:59Z","why":"x"}`)
	c := newCounter(f)
	f.Fuzz(func(t *testing.T, post bool, path, body string) {
		c.t = t
		method := map[bool]string{true: "POST", false: "GET"}[post]
		if u, err := url.ParseRequestURI(c.at(path, "done")); err != nil || !strings.HasPrefix(path, "/") || u.Host != "" || strings.ContainsAny(path, " \r\n\x00") || c.refusesAddress(c.at(path, "done")) {
			return // net/http does not let it in
		}
		if got := c.ask(method, c.at(path, "done"), "admin", body); got.Code == http.StatusInternalServerError {
			t.Errorf("%s %q with %q: %d %s\n%s", method, path, body, got.Code, got.Body, c.log.String())
		}
		c.log.Reset()
	})
}

// refusesAddress reports what httptest cannot make a request of.
func (c *counter) refusesAddress(path string) bool {
	_, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + path + " HTTP/1.0\r\n\r\n")))
	return err != nil
}

// TestACertificateIsShownToThoseWhoseContractsItSeals: its subject may be another tenant.
func TestACertificateIsShownToThoseWhoseContractsItSeals(t *testing.T) {
	c := newCounter(t)
	h := c.house.house()
	h.cfg.Signing.Profiles = map[string]config.Profile{"ours": {Key: "house"}, "theirs": {Key: "other"}}
	h.tenants[0].file.Rules, h.tenants[1].file.Rules = []config.Rule{{Seal: "ours"}}, []config.Rule{{Seal: "theirs"}}
	for _, key := range []string{"house", "other", "unused"} {
		c.ok(c.store.AddCertificate(t.Context(), deal.Certificate{SHA256: "sha-" + key, Key: key, SPKI: "spki-" + key, Serial: "1f", Subject: "CN=" + key, Issuer: "CN=Issuer", Purpose: deal.PurposeSeal,
			From: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour), Chain: [][]byte{[]byte("der of " + key)}, State: deal.CertActive}, "anna", "a test"))
	}
	for token, want := range map[string]string{"viewer": "house", "admin": "house", "everywhere": "house other unused", "test": "unused"} {
		var shown api.Certificates
		c.ok(json.Unmarshal(c.ask("GET", "/v1/certificates", token, "").Body.Bytes(), &shown))
		var keys []string
		for _, one := range shown.Certificates {
			keys = append(keys, one.Key)
		}
		slices.Sort(keys)
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("%s is shown the certificates of %q, want %q", token, got, want)
		}
	}
}
