package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
)

// Rules of every world, by what becomes of a deal that enters their stage.
const (
	ruleContract = "contract" // a template, with an audit trail
	ruleQuote    = "quote"    // an attachment, with an audit trail
	ruleMemo     = "memo"     // an attachment, without
	ruleStrict   = "strict"   // as memo; without a time-stamp it fails
	ruleLenient  = "lenient"  // as memo; without a time-stamp it is sealed and flagged
)

// Stages that no rule watches.
const (
	stageOpen = "open"
	stageLost = "lost"
)

// hidden are values that may be found nowhere in the clear; see TestNothingSecretOrPersonalIsInTheClear.
const (
	hiddenCustomer = "Kolibri Zauberwald"
	hiddenSubject  = "Quittengelee Abonnement"
	hiddenPerson   = "Philomena Wunderlich"
	hiddenMail     = "philomena@kolibri.example"
	hiddenGoods    = "Sternwarte Linsenreinigung"
	hiddenText     = "Vertraulicher Absatz"
)

// world is everything around one daemon: mock CRMs, an authority, a key and a configuration. Its state may be copied.
type world struct {
	t         *testing.T
	dir       string
	stateDir  string
	config    string
	binary    string
	authority *pki.Authority
	crms      []crm
	now       func() time.Time
	day, rate int             // of Salesforce and HubSpot, as in worldOptions
	largest   int64           // file of HubSpot, as there
	secrets   []string        // that no file and no log may hold
	login     *rsa.PrivateKey // of all Salesforce tenants
	webhooks  string          // further lines of each tenant file
	lines     string          // further lines of dealseal.yaml
	tls       *tls.Certificate

	// answered is told of every request after its answer, and when it came, if it is set before the daemon starts.
	answered func(r *http.Request, came time.Time)

	mu     sync.Mutex
	tokens map[string]bool // that CRMs were shown
	gates  []*gate
}

// worldOptions: the zero value is a world with both CRMs, a soft key and quick retries.
type worldOptions struct {
	crms []deal.Kind
	// tenants are instead of crms: any number of each kind, each with a CRM of its own.
	tenants []tenantOptions
	binary  string // instead of this test binary, which is the command too
	hsm     bool
	// key makes the house's key and returns its configuration, instead of a soft key.
	key func(*world) string
	// attempts is how often a step is tried; 0 is 3.
	attempts int
	// level is that of the profile "normal"; empty is B-T.
	level string
	// dual has the profile "normal" ask for two seals during a rollover.
	dual bool
	// now is the clock of the CRMs; nil is the machine's.
	now func() time.Time
	// salesforceDay is how many calls in 24 hours Salesforce allows; 0 is as many as there are.
	salesforceDay int
	// hubspotRate is how many calls in ten seconds HubSpot allows, and are made; 0 is as many as there are.
	hubspotRate int
	// hubspotFile is how large a file HubSpot takes, in bytes; 0 is what it takes anyway.
	hubspotFile int64
	// webhooks are further lines of each tenant file.
	webhooks string
	// house are further lines of dealseal.yaml.
	house string
	// tls is what CRMs and authority present, who are reached over TLS then; nil: over plain HTTP.
	tls *tls.Certificate
	// keep keeps the folder of a test that fails.
	keep bool
}

// tenantOptions say more of one tenant.
type tenantOptions struct {
	id    string
	kind  deal.Kind
	poll  string // 200ms when empty
	with  string // further keys of crm.with, each with ", " before it
	oauth bool   // HubSpot: log in as an OAuth app instead of showing a static token
	// scopes are those of HubSpot's static token; nil: all that there are.
	scopes []string
	quotes bool                // HubSpot: the records are quotes, in the place of deals
	push   func(*world) string // its senders, each a line of YAML with its dash
}

func usualTenant(kind deal.Kind) tenantOptions {
	return tenantOptions{id: map[deal.Kind]string{deal.Salesforce: "acme", deal.HubSpot: "contoso"}[kind], kind: kind}
}

var bothCRMs = []deal.Kind{deal.Salesforce, deal.HubSpot}

func newWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	// A socket's path must be short, so the folder is not that of t.TempDir.
	dir, err := os.MkdirTemp("", "dealseal-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if o.keep && t.Failed() {
			t.Logf("everything is left in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	w := &world{t: t, dir: dir, stateDir: filepath.Join(dir, "state"), config: filepath.Join(dir, "dealseal.yaml"), binary: o.binary, tokens: map[string]bool{}, tls: o.tls, now: o.now, day: cmp.Or(o.salesforceDay, 10_000_000), rate: cmp.Or(o.hubspotRate, 100_000), largest: o.hubspotFile}
	if w.binary == "" {
		w.binary, err = os.Executable()
		must(t, err)
	}
	for _, d := range []string{"tenants", "state", "token", "token/tokens"} {
		must(t, os.Mkdir(w.path(d), 0o700))
	}
	w.shareRendererCache(w.stateDir)
	if len(o.crms) == 0 && len(o.tenants) == 0 {
		o.crms = bothCRMs
	}
	for _, kind := range o.crms {
		o.tenants = append(o.tenants, usualTenant(kind))
	}
	for _, tenant := range o.tenants {
		switch tenant.poll = cmp.Or(tenant.poll, "200ms"); tenant.kind {
		case deal.Salesforce:
			w.crms = append(w.crms, newSalesforce(w, tenant))
		case deal.HubSpot:
			w.crms = append(w.crms, newHubSpot(w, tenant))
		}
	}
	w.newAuthority()
	if o.hsm {
		o.key = func(w *world) string { return newToken(w).config() }
	}
	if o.key == nil {
		o.key = (*world).newSoftKey
	}
	w.webhooks, w.lines = o.webhooks, o.house
	w.configure(o.key(w), cmp.Or(o.attempts, 3), cmp.Or(o.level, "B-T"))
	if o.dual {
		w.rewrite(t, "dealseal.yaml", "normal: {key: house,", "normal: {key: house, dual_seal: true,")
	}
	return w
}

// clock is that of the CRMs.
func (w *world) clock() time.Time {
	if w.now == nil {
		return time.Now()
	}
	return w.now()
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve puts a mock behind the world's gates and notes the tokens that it is shown.
func (w *world) serve(h http.Handler) string {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
			w.mu.Lock()
			w.tokens[token] = true
			w.mu.Unlock()
		}
		w.pass(r)
		if w.answered != nil {
			defer w.answered(r, time.Now()) // a connection that is cut is a panic
		}
		h.ServeHTTP(rw, r)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true) // for what Salesforce tells
	if w.tls == nil {
		s.Start()
	} else {
		s.Config.Protocols.SetHTTP2(true)
		s.EnableHTTP2, s.TLS = true, &tls.Config{Certificates: []tls.Certificate{*w.tls}}
		s.StartTLS()
	}
	w.t.Cleanup(s.Close)
	return s.URL
}

// gate does something the moment that a matching request arrives, before it is answered.
type gate struct {
	matches func(*http.Request) bool
	skip    int // matching requests that pass first
	do      func()
	once    sync.Once
}

// at has do called once, before the (skip+1)-th matching request is answered.
func (w *world) at(skip int, matches func(*http.Request) bool, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gates = append(w.gates, &gate{matches: matches, skip: skip, do: do})
}

func (w *world) pass(r *http.Request) {
	w.mu.Lock()
	var open []*gate
	for _, g := range w.gates {
		if !g.matches(r) {
			continue
		}
		if g.skip > 0 {
			g.skip--
			continue
		}
		open = append(open, g)
	}
	w.mu.Unlock()
	for _, g := range open {
		g.once.Do(g.do)
	}
}

func (w *world) newAuthority() {
	var handler http.Handler
	url := w.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	a, err := pki.New(pki.Options{BaseURL: url})
	must(w.t, err)
	handler, w.authority = a, a
	must(w.t, os.WriteFile(w.path("root.pem"), a.RootPEM(), 0o600))
}

// secretFile keeps a secret in a file and returns the reference to it.
func (w *world) secretFile(name, value string) string {
	w.secrets = append(w.secrets, value)
	must(w.t, os.WriteFile(w.path(name), []byte(value), 0o600))
	return "file:" + w.path(name)
}

var sealSubject = pkix.Name{CommonName: "House Seal", Organization: []string{"House Ltd"}, Country: []string{"GB"}}

// newSoftKey makes a key in a file and returns its configuration.
func (w *world) newSoftKey() string {
	passphrase := rand.Text()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(w.t, err)
	chain, err := w.authority.IssueSigner(key.Public(), sealSubject)
	must(w.t, err)
	must(w.t, os.WriteFile(w.path("seal.key"), sealKey(w.t, key, chain, passphrase), 0o600))
	return fmt.Sprintf("{kind: soft, file: %q, passphrase: %q}", w.path("seal.key"), w.secretFile("passphrase", passphrase))
}

// sealKey is the file of a soft key. To open it costs a thousandth of the second that it should, since these tests start
// hundreds of daemons.
func sealKey(t *testing.T, key *ecdsa.PrivateKey, chain []*x509.Certificate, passphrase string) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	recipient, err := age.NewScryptRecipient(passphrase)
	must(t, err)
	recipient.SetWorkFactor(8)
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	to, err := age.Encrypt(armored, recipient)
	must(t, err)
	must(t, pem.Encode(to, &pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	_, err = to.Write(pki.PEM(chain...))
	must(t, err)
	must(t, to.Close())
	must(t, armored.Close())
	return out.Bytes()
}

// configure writes what an administrator would.
func (w *world) configure(key string, attempts int, level string) {
	w.t.Helper()
	master := make([]byte, 32)
	rand.Read(master)
	root := repository(w.t)
	must(w.t, os.WriteFile(w.config, append(fmt.Appendf(nil, `state_dir: %q
master_key: %q
templates: %q
listen: {admin: "127.0.0.1:0"%s}
outbound: {allow: ["127.0.0.0/8"]}
renderer: {wasm: %q, children: 1}
retry: {first: 10ms, max: 20ms, attempts: %d}
signing:
  keys: {house: %s}
  tsa: [{url: %q}]
  trust: [%q]
  profiles:
    normal: {key: house, level: %s, reason: "Contract of transaction {tx}", on_downgrade: hold}
    strict: {key: house, level: B-T, on_downgrade: fail}
    lenient: {key: house, level: B-T, on_downgrade: accept-and-flag}
`, w.stateDir, w.secretFile("master", base64.StdEncoding.EncodeToString(master)), filepath.Join(root, "templates"), w.public(), filepath.Join(root, "build/typst.wasm"), attempts,
		key, w.authority.URL(pki.PathTSA), w.path("root.pem"), level), w.lines...), 0o600))
	for _, c := range w.crms {
		must(w.t, os.WriteFile(w.path("tenants/"+c.tenant()+".yaml"), []byte(w.tenantFile(c)+w.webhooks), 0o600))
	}
}

func (w *world) tenantFile(c crm) string {
	var b strings.Builder
	fmt.Fprintf(&b, "tenant: {id: %s, name: House Ltd, environment: sandbox, time_zone: Europe/London, currency: EUR}\ncrm: {kind: %s, with: %s}\n%s\nguard: {per_hour: off, per_day: off}\nrules:\n", c.tenant(), c.kind(), c.with(), farNight())
	for _, r := range []struct{ id, document, seal, trail string }{
		{ruleContract, "{template: order-form@1}", "normal", "audit-trail@1"},
		{ruleQuote, `{attachment: "Quote*.pdf"}`, "normal", "audit-trail@1"},
		{ruleMemo, `{attachment: "Quote*.pdf"}`, "normal", "none"},
		{ruleStrict, `{attachment: "Quote*.pdf"}`, "strict", "none"},
		{ruleLenient, `{attachment: "Quote*.pdf"}`, "lenient", "none"},
	} {
		object := ""
		if c.options().quotes {
			if c.stage(r.id) == "" { // there are only so many statuses
				continue
			}
			object, r.document = "object: quotes, ", strings.Replace(r.document, "order-form@1", "order-form@1, fields: {"+quoteFields+"}", 1)
		}
		fmt.Fprintf(&b, "  - {id: %s, %swhen: {stage: %q}, start_from: 2020-01-01T00:00:00Z, document: %s, seal: %s, audit_trail: %s, write_back: %s,\n     "+unguarded+"}\n",
			r.id, object, c.stage(r.id), r.document, r.seal, r.trail, c.writeBack())
	}
	if push := c.options().push; push != nil {
		b.WriteString("push:\n" + push(w))
	}
	return b.String()
}

// farNight has the comparison that each night brings be half a day away: tests run at any time of the day, and some of them make
// the damage that it would mend.
func farNight() string {
	london, err := time.LoadLocation("Europe/London")
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("reconcile: {at: %q}", time.Now().In(london).Add(12*time.Hour).Format(config.TimeOfDay))
}

// shareRendererCache lets all daemons use the compiled renderer that demos use.
func (w *world) shareRendererCache(stateDir string) {
	w.t.Helper()
	must(w.t, os.Symlink(compiledRenderer(w.t), filepath.Join(stateDir, "renderer")))
}

// compiledRenderer is the folder with the compiled renderer. It is made once per machine, before the first daemon starts:
// many that start beside each other would each compile it, and none would be ready in time.
func compiledRenderer(t *testing.T) string {
	t.Helper()
	root := repository(t)
	cache := filepath.Join(root, "build", "renderer-cache")
	rendererCompiled.Do(func() { rendererCompiled.err = compileRenderer(filepath.Join(root, "build", "typst.wasm"), cache) })
	must(t, rendererCompiled.err)
	return cache
}

var rendererCompiled struct {
	sync.Once
	err error
}

func compileRenderer(wasm, cache string) error {
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	r, err := typst.New(typst.Options{WASM: wasm, CacheDir: cache, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return errors.Join(r.Warm(context.Background()), r.Close())
}

// repository is the root of the module.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	must(t, err)
	if _, err := os.Stat(filepath.Join(root, "build/typst.wasm")); err != nil {
		t.Fatalf("the renderer is missing (%v): run \"make renderer\"", err)
	}
	return root
}

// crm is one mock CRM in the words of these tests. Stages are named by the rule that watches them.
type crm interface {
	kind() deal.Kind
	tenant() string
	options() tenantOptions
	with() string
	writeBack() string
	stage(name string) string

	// open makes a deal that no rule cares for yet.
	open(s sale) (record string)
	move(record, stage string)
	rename(record, subject string)
	setAmount(record, amount string)
	addCustomer(record, name string)
	addFile(record, name string, content []byte)
	files(record string) []stored
	// spoilContract damages the stored bytes of the sealed contract without another size or checksum.
	spoilContract(record string)
	// past has something happen as if it had been some time ago, without anybody seeing it before.
	past(ago time.Duration, do func())
	// loseContract deletes the sealed contract, clearFields what we have written to the record, remove the record itself.
	loseContract(record string)
	clearFields(record string)
	remove(record string)
	// shown is what the record shows: transaction_id, status, signed_at, url, audit.
	shown(record string) map[string]string
	// tasks are the subjects of the tasks about a record.
	tasks(record string) []string

	// reads tells the request that reads the record for a document, watches the one that asks for changes.
	reads(record string) func(*http.Request) bool
	watches(*http.Request) bool
	uploads(*http.Request) bool
	// refuseUpdates makes the CRM refuse every write of fields for good, failReads every reading of a deal; heal ends both.
	refuseUpdates()
	failReads()
	heal()
	// calls counts all calls.
	calls() int
}

// sale is a deal to be made.
type sale struct {
	nobody bool   // it has no customer
	quote  []byte // attached as "Quote <record>.pdf"
}

// stored is a file on a record.
type stored struct {
	name    string
	content []byte
}

func (f stored) sealed() bool   { return bytes.Contains(f.content, []byte("/ByteRange")) }
func (f stored) trail() bool    { return strings.Contains(f.name, "audit trail") }
func (f stored) contract() bool { return f.sealed() && !f.trail() }

type salesforceCRM struct {
	t   *testing.T
	w   *world
	o   tenantOptions
	org *salesforce.Org
	url string
	key string
}

func newSalesforce(w *world, o tenantOptions) *salesforceCRM {
	var err error
	if w.login == nil {
		w.login, err = rsa.GenerateKey(rand.Reader, 2048)
		must(w.t, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(w.login)
	must(w.t, err)
	c := &salesforceCRM{t: w.t, w: w, o: o}
	c.org = salesforce.New(salesforce.Options{OrgID: fmt.Sprintf("00DWs%010d", len(w.crms)), Sandbox: true, ConsumerKey: "e2e", PublicKey: &w.login.PublicKey, RequestLimit: w.day, Now: w.clock})
	c.url = w.serve(c.org)
	c.key = w.secretFile("salesforce-login-"+o.id, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return c
}

func (c *salesforceCRM) kind() deal.Kind { return deal.Salesforce }
func (c *salesforceCRM) tenant() string  { return c.o.id }

func (c *salesforceCRM) options() tenantOptions { return c.o }

func (c *salesforceCRM) with() string {
	return fmt.Sprintf("{my_domain: %q, auth: {flow: jwt, consumer_key: e2e, username: integration@acme.example, private_key: %q}, tx_marker: DealSeal_Key__c, poll: %s%s}", c.url, c.key, c.o.poll, c.o.with)
}

func (c *salesforceCRM) writeBack() string {
	return "{transaction_id: DealSeal_Transaction_ID__c, status: {field: DealSeal_Status__c}, signed_at: DealSeal_Signed_At__c, url: DealSeal_Document_URL__c, audit: DealSeal_Audit__c}"
}

func (c *salesforceCRM) stage(name string) string {
	return map[string]string{stageOpen: "Prospecting", stageLost: "Closed Lost", ruleContract: "Closed Won", ruleQuote: "Proposal/Price Quote", ruleMemo: "Value Proposition",
		ruleStrict: "Perception Analysis", ruleLenient: "Id. Decision Makers"}[name]
}

func (c *salesforceCRM) id(id string, err error) string {
	c.t.Helper()
	must(c.t, err)
	return id
}

func (c *salesforceCRM) open(s sale) string {
	c.t.Helper()
	record := c.id(c.org.CreateOpportunity(map[string]any{"Name": hiddenSubject, "StageName": c.stage(stageOpen)}))
	if !s.nobody {
		c.addCustomer(record, hiddenCustomer)
	}
	for range 2 {
		c.id(c.org.AddLineItem(record, map[string]any{"Quantity": 3, "UnitPrice": 1234.5, "Product2": map[string]any{"Name": hiddenGoods}}))
	}
	c.id(c.org.AddContactRole(record, map[string]any{"Role": "Decision Maker", "IsPrimary": true, "Contact": map[string]any{"LastName": hiddenPerson, "Email": hiddenMail}}))
	if s.quote != nil {
		c.addFile(record, "Quote "+record+".pdf", s.quote)
	}
	return record
}

func (c *salesforceCRM) update(record, field string, value any) {
	c.t.Helper()
	must(c.t, c.org.Update(record, map[string]any{field: value}))
}

func (c *salesforceCRM) move(record, stage string)     { c.update(record, "StageName", c.stage(stage)) }
func (c *salesforceCRM) rename(record, subject string) { c.update(record, "Name", subject) }

// setAmount shows another amount than that of the lines, which Salesforce itself would not.
func (c *salesforceCRM) setAmount(record, amount string) {
	c.t.Helper()
	must(c.t, c.org.SetRaw(record, "Amount", amount))
}

func (c *salesforceCRM) addCustomer(record, name string) {
	c.t.Helper()
	c.update(record, "AccountId", c.id(c.org.CreateAccount(map[string]any{"Name": name, "BillingCity": "Gotham"})))
}

func (c *salesforceCRM) addFile(record, name string, content []byte) {
	c.t.Helper()
	c.id(c.org.AddFile(record, name, content))
}

func (c *salesforceCRM) files(record string) (out []stored) {
	for _, f := range c.org.Files(record) {
		for _, v := range f.Versions {
			out = append(out, stored{v.Name, v.Content})
		}
	}
	return out
}

func (c *salesforceCRM) loseContract(record string) {
	c.t.Helper()
	for _, f := range c.org.Files(record) {
		if newest := f.Versions[len(f.Versions)-1]; (stored{newest.Name, newest.Content}).contract() {
			must(c.t, c.org.Delete(f.DocumentID))
		}
	}
}

func (c *salesforceCRM) spoilContract(record string) {
	c.t.Helper()
	for _, f := range c.org.Files(record) {
		if newest := f.Versions[len(f.Versions)-1]; (stored{newest.Name, newest.Content}).contract() {
			must(c.t, c.org.SpoilFile(newest.ID, spoilt(newest.Content)))
		}
	}
}

// spoilt changes one byte.
func spoilt(content []byte) []byte {
	content = bytes.Clone(content)
	content[len(content)/2] ^= 1
	return content
}

func (c *salesforceCRM) past(ago time.Duration, do func()) {
	c.org.FreezeStamp(time.Now().Add(-ago))
	do()
	c.org.FreezeStamp(time.Time{})
}

func (c *salesforceCRM) clearFields(record string) {
	c.t.Helper()
	for _, field := range salesforceFields {
		c.update(record, field, nil)
	}
}

func (c *salesforceCRM) remove(record string) {
	c.t.Helper()
	must(c.t, c.org.Delete(record))
}

var salesforceFields = map[string]string{"transaction_id": "DealSeal_Transaction_ID__c", "status": "DealSeal_Status__c", "signed_at": "DealSeal_Signed_At__c",
	"url": "DealSeal_Document_URL__c", "audit": "DealSeal_Audit__c"}

func (c *salesforceCRM) tasks(record string) (subjects []string) {
	for _, id := range c.org.Records("Task") {
		if f, ok := c.org.Record(id); ok && f["WhatId"] == record {
			subjects = append(subjects, fmt.Sprint(f["Subject"]))
		}
	}
	return subjects
}

func (c *salesforceCRM) shown(record string) map[string]string {
	fields, _ := c.org.Record(record)
	out := map[string]string{}
	for name, field := range salesforceFields {
		if v := fields[field]; v != nil {
			out[name] = fmt.Sprint(v)
		}
	}
	return out
}

func (c *salesforceCRM) reads(record string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		q := r.URL.Query().Get("q")
		return strings.Contains(q, record) && strings.Contains(q, "OpportunityLineItems")
	}
}

func (c *salesforceCRM) watches(r *http.Request) bool {
	return strings.Contains(r.URL.Query().Get("q"), "FROM OpportunityHistory WHERE CreatedDate")
}

func (c *salesforceCRM) uploads(r *http.Request) bool {
	return r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, "/sobjects/ContentVersion") || strings.HasSuffix(r.URL.Path, "/composite"))
}

func (c *salesforceCRM) fault(f salesforce.Fault) {
	c.t.Helper()
	_, err := c.org.SetFault(f)
	must(c.t, err)
}

func (c *salesforceCRM) refuseUpdates() {
	c.fault(salesforce.Fault{Kind: salesforce.KindUpdate, Effect: salesforce.ValidationRule})
}

func (c *salesforceCRM) failReads() {
	c.fault(salesforce.Fault{Kind: salesforce.KindQuery, Path: "OpportunityLineItems", Effect: salesforce.APIError, Status: 400, Code: "INVALID_FIELD"})
}

func (c *salesforceCRM) heal()      { c.org.ClearFaults() }
func (c *salesforceCRM) calls() int { return sum(c.org.Counts()) }

func sum[K comparable](counts map[K]int) (n int) {
	for _, v := range counts {
		n += v
	}
	return n
}

type hubspotCRM struct {
	t      *testing.T
	w      *world
	o      tenantOptions
	portal *hubspot.Portal
	url    string
	auth   string
	token  string       // the reference to the static one
	ago    atomic.Int64 // how far behind the portal's clock is

	object, stageProperty, subject string // of its records
}

// addPropertiesOf adds the properties of receipts.
func (c *hubspotCRM) addPropertiesOf(object string) {
	c.t.Helper()
	for _, f := range hubspot.WriteBackProperties() {
		f.GroupName = strings.TrimSuffix(object, "s") + "information"
		must(c.t, c.portal.AddProperty(object, f))
	}
}

func newHubSpot(w *world, o tenantOptions) *hubspotCRM {
	c := &hubspotCRM{t: w.t, w: w, o: o}
	wide := hubspot.Limits{TenSecondly: 1 << 30, Daily: 1 << 30, SearchSecondly: 1 << 30, Associations: 1 << 30}
	if w.rate < 100_000 {
		wide.TenSecondly = w.rate
	}
	options := hubspot.Options{PortalID: int64(62515 + len(w.crms)), AccountType: "SANDBOX", Limits: wide, MaxFileSize: w.largest,
		Now: func() time.Time { return w.clock().Add(-time.Duration(c.ago.Load())) }}
	if value := "pat-eu1-" + rand.Text(); !o.oauth {
		options.Tokens = []hubspot.Token{{Value: value, Scopes: o.scopes}}
		c.token = w.secretFile("hubspot-token-"+o.id, value)
		c.auth = fmt.Sprintf("{flow: token, token: %q}", c.token)
	} else {
		options.OAuth = &hubspot.OAuthApp{ClientID: "e2e", ClientSecret: rand.Text(), RefreshToken: rand.Text()}
		c.auth = fmt.Sprintf("{flow: oauth, client_id: e2e, client_secret: %q, refresh_token: %q}",
			w.secretFile("hubspot-secret-"+o.id, options.OAuth.ClientSecret), w.secretFile("hubspot-refresh-"+o.id, options.OAuth.RefreshToken))
	}
	c.portal = hubspot.New(options)
	c.object, c.stageProperty, c.subject = "deals", "dealstage", "dealname"
	if o.quotes {
		c.object, c.stageProperty, c.subject = "quotes", "hs_status", "hs_title"
	}
	c.addPropertiesOf(c.object)
	c.url = w.serve(c.portal)
	return c
}

func (c *hubspotCRM) kind() deal.Kind { return deal.HubSpot }

func (c *hubspotCRM) options() tenantOptions { return c.o }

func (c *hubspotCRM) tenant() string { return c.o.id }

func (c *hubspotCRM) with() string {
	return fmt.Sprintf("{base_url: %q, auth: %s, poll: %s, rate: %d, search_rate: 10000%s}", c.url, c.auth, c.o.poll, c.w.rate, c.o.with)
}

func (c *hubspotCRM) writeBack() string {
	return "{transaction_id: dealseal_transaction_id, status: {field: dealseal_status}, signed_at: dealseal_signed_at, url: dealseal_document_url, audit: dealseal_audit}"
}

func (c *hubspotCRM) stage(name string) string {
	if c.o.quotes {
		return map[string]string{stageOpen: "DRAFT", stageLost: "REJECTED", ruleContract: "APPROVED", ruleQuote: "APPROVAL_NOT_NEEDED", ruleMemo: "PENDING_APPROVAL"}[name]
	}
	return map[string]string{stageOpen: "appointmentscheduled", stageLost: "closedlost", ruleContract: "contractsent", ruleQuote: "presentationscheduled", ruleMemo: "closedwon",
		ruleStrict: "qualifiedtobuy", ruleLenient: "decisionmakerboughtin"}[name]
}

func (c *hubspotCRM) open(s sale) string {
	c.t.Helper()
	if c.o.quotes {
		return c.openQuote(s)
	}
	id, err := c.portal.CreateDeal(map[string]string{"dealname": hiddenSubject, "pipeline": "default", "dealstage": c.stage(stageOpen), "amount": "7407.00", "deal_currency_code": "EUR",
		"closedate": "2026-12-31T00:00:00Z"})
	must(c.t, err)
	if !s.nobody {
		c.addCustomer(id, hiddenCustomer)
	}
	_, err = c.portal.AddContact(id, map[string]string{"firstname": hiddenPerson, "email": id + hiddenMail}, "Signer") // one contact per address
	must(c.t, err)
	for i := range 2 {
		_, err = c.portal.AddLineItem(id, map[string]string{"name": hiddenGoods, "quantity": "3", "price": "1234.50", "amount": "3703.50", "hs_position_on_quote": fmt.Sprint(i)})
		must(c.t, err)
	}
	if s.quote != nil {
		c.addFile(id, "Quote "+id+".pdf", s.quote)
	}
	return id
}

func (c *hubspotCRM) set(record, property, value string) {
	c.t.Helper()
	must(c.t, c.portal.Update(c.object, record, map[string]string{property: value}))
}

func (c *hubspotCRM) move(record, stage string)       { c.set(record, c.stageProperty, c.stage(stage)) }
func (c *hubspotCRM) rename(record, subject string)   { c.set(record, c.subject, subject) }
func (c *hubspotCRM) setAmount(record, amount string) { c.set(record, "amount", amount) }

func (c *hubspotCRM) addCustomer(record, name string) {
	c.t.Helper()
	if c.o.quotes {
		c.belong(record, "companies", map[string]string{"name": name, "city": "Gotham"})
		return
	}
	_, err := c.portal.AddCompany(record, map[string]string{"name": name, "city": "Gotham"})
	must(c.t, err)
}

func (c *hubspotCRM) addFile(record, name string, content []byte) {
	c.t.Helper()
	_, err := c.portal.AddFileTo(c.object, record, name, content)
	must(c.t, err)
}

func (c *hubspotCRM) files(record string) (out []stored) {
	c.t.Helper()
	files, err := c.portal.FilesOf(c.object, record)
	must(c.t, err)
	for _, f := range files {
		out = append(out, stored{filepath.Base(f.Path), f.Content})
	}
	return out
}

func (c *hubspotCRM) loseContract(record string) {
	c.t.Helper()
	files, err := c.portal.FilesOf(c.object, record)
	must(c.t, err)
	for _, f := range files {
		if (stored{filepath.Base(f.Path), f.Content}).contract() {
			must(c.t, c.portal.DeleteFile(f.ID))
		}
	}
}

func (c *hubspotCRM) spoilContract(record string) {
	c.t.Helper()
	files, err := c.portal.FilesOf(c.object, record)
	must(c.t, err)
	for _, f := range files {
		if (stored{filepath.Base(f.Path), f.Content}).contract() {
			must(c.t, c.portal.SpoilFile(f.ID, spoilt(f.Content)))
		}
	}
}

func (c *hubspotCRM) past(ago time.Duration, do func()) {
	c.ago.Store(int64(ago))
	do()
	c.ago.Store(0)
}

func (c *hubspotCRM) clearFields(record string) {
	c.t.Helper()
	for _, property := range hubspotFields {
		c.set(record, property, "")
	}
}

func (c *hubspotCRM) remove(record string) {
	c.t.Helper()
	must(c.t, c.portal.DeleteOf(c.object, record))
}

var hubspotFields = map[string]string{"transaction_id": "dealseal_transaction_id", "status": "dealseal_status", "signed_at": "dealseal_signed_at",
	"url": "dealseal_document_url", "audit": "dealseal_audit"}

func (c *hubspotCRM) tasks(record string) (subjects []string) {
	c.t.Helper()
	tasks, err := c.portal.TasksOf(c.object, record)
	must(c.t, err)
	for _, task := range tasks {
		subjects = append(subjects, task["hs_task_subject"])
	}
	return subjects
}

func (c *hubspotCRM) shown(record string) map[string]string {
	c.t.Helper()
	r, err := c.portal.RecordOf(c.object, record)
	must(c.t, err)
	out := map[string]string{}
	for name, property := range hubspotFields {
		if v := r.Properties[property]; v != "" {
			out[name] = v
		}
	}
	if s := out["status"]; s != "" { // a label, as people see it
		out["status"] = map[string]string{"queued": "Queued", "signed": "Signed", "held": "Held", "failed": "Failed", "action_required": "Action Required", "awaiting_signature": "Awaiting Signature", "refused": "Refused"}[s]
	}
	return out
}

func (c *hubspotCRM) reads(record string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/"+c.object+"/"+record) && strings.Contains(r.URL.RawQuery, c.subject)
	}
}

func (c *hubspotCRM) watches(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/"+c.object+"/search")
}

func (c *hubspotCRM) uploads(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/files/") && strings.Contains(r.Header.Get("Content-Type"), "multipart")
}

func (c *hubspotCRM) fault(f hubspot.Fault) {
	c.t.Helper()
	_, err := c.portal.SetFault(f)
	must(c.t, err)
}

func (c *hubspotCRM) refuseUpdates() {
	for _, kind := range []hubspot.Kind{hubspot.KindPatch, hubspot.KindBatchUpdate} { // two records may be told in one call
		c.fault(hubspot.Fault{Kind: kind, Effect: hubspot.EffectValidation, Property: "dealseal_status"})
	}
}

func (c *hubspotCRM) failReads() {
	c.fault(hubspot.Fault{Kind: hubspot.KindGet, Effect: hubspot.EffectForbidden})
}

func (c *hubspotCRM) heal()      { c.portal.ClearFaults() }
func (c *hubspotCRM) calls() int { return sum(c.portal.Counts()) }

// quotation is a PDF of one page, as another program would make it.
func quotation(n int) []byte {
	text := fmt.Sprintf("BT /F1 18 Tf 72 720 Td (Quotation %d) Tj 0 -24 Td (%s) Tj ET", n, hiddenText)
	var b bytes.Buffer
	var offsets []int
	object := func(format string, args ...any) {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", len(offsets), fmt.Sprintf(format, args...))
	}
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	object("<< /Type /Catalog /Pages 2 0 R >>")
	object("<< /Type /Pages /Kids [3 0 R] /Count 1 >>")
	object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>")
	object("<< /Length %d >>\nstream\n%s\nendstream", len(text), text)
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, start)
	return b.Bytes()
}
