package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
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

	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/store"
)

const (
	acme      = deal.TenantID("acme")
	stageOpen = "Prospecting"
	stageWon  = "Closed Won"
	stageLost = "Closed Lost"

	fieldStatus = "DealSeal_Status__c"
	fieldTx     = "DealSeal_Transaction_ID__c"
	fieldAudit  = "DealSeal_Audit__c"
)

// canary is a record value: it may stand in the document and on the record, and nowhere else in the clear.
const canary = "Kolibri Zauberwald"

var allFields = deal.WriteBack{TransactionID: fieldTx, Status: fieldStatus, SignedAt: "DealSeal_Signed_At__c", URL: "DealSeal_Document_URL__c", Audit: fieldAudit}

// clock is moved by hand; everything in a world reads the same one.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is what surrounds a daemon: a Salesforce org, a certificate authority with a TSA, and the house's key.
type world struct {
	t         *testing.T
	now       func() time.Time
	clock     *clock // nil in a world that runs in real time
	org       *mock.Org
	url       string
	authority *pki.Authority
	key       *house
	login     secret.Ref

	mu    sync.Mutex
	gates []func(*http.Request)
}

func newWorld(t *testing.T) *world {
	c := newClock()
	w := &world{t: t, clock: c, now: c.Now}
	w.open(mock.Options{Sandbox: true})
	return w
}

// newRealWorld has the machine's clock, for tests that let the daemon run by itself.
func newRealWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Now}
	w.open(mock.Options{Sandbox: true})
	return w
}

func (w *world) open(o mock.Options) {
	w.t.Helper()
	o.Now, o.ConsumerKey, o.ClientSecret, o.RequestLimit = w.now, "engine", "a secret of the org", 10_000
	w.org = mock.New(o)
	w.url = w.serve(func(rw http.ResponseWriter, r *http.Request) {
		w.pass(r)
		w.org.ServeHTTP(rw, r)
	})
	w.login = w.secretFile(o.ClientSecret)
	base := w.serve(func(rw http.ResponseWriter, r *http.Request) { w.authority.ServeHTTP(rw, r) })
	var err error
	w.authority, err = pki.New(pki.Options{BaseURL: base, Now: w.now})
	must(w.t, err)
	w.key = newHouse(w.t, w.authority)
}

func (w *world) serve(h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	w.t.Cleanup(s.Close)
	return s.URL
}

func (w *world) secretFile(value string) secret.Ref {
	path := filepath.Join(w.t.TempDir(), "secret")
	must(w.t, os.WriteFile(path, []byte(value), 0o600))
	ref, err := secret.ParseRef("file:" + path)
	must(w.t, err)
	return ref
}

// at has do called once, in the moment that the first matching request arrives, before it is answered.
func (w *world) at(matches func(*http.Request) bool, do func()) {
	var done atomic.Bool
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gates = append(w.gates, func(r *http.Request) {
		if matches(r) && done.CompareAndSwap(false, true) {
			do()
		}
	})
}

func (w *world) pass(r *http.Request) {
	w.mu.Lock()
	gates := w.gates
	w.mu.Unlock()
	for _, g := range gates {
		g(r)
	}
}

func updates(r *http.Request) bool { return r.Method == http.MethodPatch }

// connector is a connector to the org.
func (w *world) connector() *salesforce.Connector {
	c, err := salesforce.New(salesforce.Config{MyDomain: w.url, TxMarker: "DealSeal_Key__c",
		Auth: salesforce.Auth{Flow: salesforce.FlowClientCredentials, ConsumerKey: "engine", ClientSecret: w.login}}, salesforce.Deps{Now: w.now})
	must(w.t, err)
	return c
}

// deal makes an Opportunity with a customer, goods and a quotation, in a stage that nobody watches.
func (w *world) deal() (record string) {
	w.t.Helper()
	record = w.id(w.org.CreateOpportunity(map[string]any{"Name": canary, "StageName": stageOpen}))
	account := w.id(w.org.CreateAccount(map[string]any{"Name": canary, "BillingCity": "Gotham"}))
	must(w.t, w.org.Update(record, map[string]any{"AccountId": account}))
	w.id(w.org.AddLineItem(record, map[string]any{"Quantity": 3, "UnitPrice": 1234.5, "Product2": map[string]any{"Name": canary}}))
	w.quote(record, 1)
	return record
}

// bare is a deal that lacks the quotation which its contract is made of, so that it is held.
func (w *world) bare() (record string) {
	w.t.Helper()
	record = w.deal()
	for _, f := range w.org.Files(record) {
		must(w.t, w.org.Delete(f.DocumentID))
	}
	return record
}

func (w *world) quote(record string, n int) {
	w.t.Helper()
	w.id(w.org.AddFile(record, "Quote "+canary+".pdf", document("", n)))
}

// won makes a deal and moves it to the stage that is watched.
func (w *world) won() (record string) {
	w.t.Helper()
	record = w.deal()
	w.move(record, stageWon)
	return record
}

func (w *world) move(record, stage string) {
	w.t.Helper()
	must(w.t, w.org.MoveStage(record, stage))
	w.tick()
}

// tick is the second that the org's clock needs to tell two changes apart.
func (w *world) tick() {
	if w.clock != nil {
		w.clock.advance(time.Second)
	}
}

func (w *world) id(id string, err error) string {
	w.t.Helper()
	must(w.t, err)
	return id
}

func (w *world) fault(f mock.Fault) {
	w.t.Helper()
	_, err := w.org.SetFault(f)
	must(w.t, err)
}

// shown is what a field of the record shows.
func (w *world) shown(record, field string) string {
	w.t.Helper()
	fields, ok := w.org.Record(record)
	if !ok {
		w.t.Fatalf("no record %s", record)
	}
	if fields[field] == nil {
		return ""
	}
	return fmt.Sprint(fields[field])
}

// contracts are the sealed files on the record.
func (w *world) contracts(record string) (sealed [][]byte) {
	for _, f := range w.org.Files(record) {
		for _, v := range f.Versions {
			if bytes.Contains(v.Content, []byte("/ByteRange")) {
				sealed = append(sealed, v.Content)
			}
		}
	}
	return sealed
}

// updates is how many updates of records the org has accepted.
func (w *world) updates() (n int) {
	for _, r := range w.org.Requests() {
		if r.Kind == mock.KindUpdate && r.Status < 300 && r.Status > 0 {
			n++
		}
	}
	return n
}

// daemon is an engine with a state directory of its own. It is driven by hand: poll, then work or finish.
type daemon struct {
	*Engine
	t       *testing.T
	w       *world
	dir     string
	store   *store.Store
	checker *checker
	log     *journal
	pollers []*poller
	again   map[deal.TxID]time.Time // when the queue would hand out the job again
}

// daemon opens an engine over a fresh state directory, with one tenant and one rule, whose plan may be changed.
func (w *world) daemon(change ...func(*deal.Plan)) *daemon {
	w.t.Helper()
	return w.daemonIn(filepath.Join(w.t.TempDir(), "state"), change...)
}

func (w *world) daemonIn(dir string, change ...func(*deal.Plan)) *daemon {
	w.t.Helper()
	d := &daemon{t: w.t, w: w, dir: dir, log: &journal{}, checker: &checker{w: w}, again: map[deal.TxID]time.Time{}}
	log := slog.New(LogHandler(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	var err error
	d.store, err = store.Open(w.t.Context(), store.Options{Dir: dir, MasterKey: w.key.master, Now: w.now, Log: log})
	must(w.t, err)
	w.t.Cleanup(d.close)
	stamper, err := tsa.NewClient([]tsa.Server{{URL: w.authority.URL(pki.PathTSA)}}, tsa.Options{Roots: w.authority.Roots(), Now: w.now})
	must(w.t, err)
	d.Engine = &Engine{
		Ledger: d.store, Books: d.store, Files: files{d.store}, Documents: renderer{}, Bundles: shelf{}, Checker: d.checker, Log: log, Now: w.now,
		Sealer:   signing.NewSealer(w.key, stamper, w.now),
		Extender: w.extender(stamper, nil),
		Queue:    queue{d.store.Queue(store.Workers{Tenants: []deal.TenantID{acme}})},
		Retry:    Retry{First: time.Second, Max: time.Minute, Attempts: 5},
	}
	d.addTenant(Tenant{ID: acme, Name: "Acme", CRM: w.connector(), Poll: time.Minute, Rules: []Rule{w.rule(change...)}})
	return d
}

// extender fetches evidence for a daemon.
func (w *world) extender(stamper signing.Timestamper, wires http.RoundTripper) *signing.Extender {
	return &signing.Extender{Timestamper: stamper, Anchors: revocation.Anchors{Roots: []*x509.Certificate{w.authority.Root.Certificate}},
		Revocation: revocation.NewClient(revocation.Options{Now: w.now, HTTP: &http.Client{Transport: wires}})}
}

func (d *daemon) addTenant(t Tenant) {
	d.Tenants = append(d.Tenants, t)
	d.pollers = nil
	for i := range d.Tenants {
		d.pollers = append(d.pollers, d.newPoller(&d.Tenants[i]))
	}
}

// close may be called more than once.
func (d *daemon) close() {
	if d.store != nil {
		must(d.t, d.store.Close())
		d.store = nil
	}
}

// rule seals the newest quotation of a deal that is won, with a time-stamp.
func (w *world) rule(change ...func(*deal.Plan)) Rule {
	w.t.Helper()
	p := deal.Plan{TenantName: "Acme Ltd", TimeZone: "Europe/Paris", Rule: "memo", Stage: stageWon, Attachment: "quote*.pdf", WriteBack: allFields, IfLeft: "hold", ReEntry: "hold"}
	withProfile(signing.Profile{})(&p)
	for _, f := range change {
		f(&p)
	}
	return Rule{Watch: deal.Watch{Rule: p.Rule, Object: salesforce.Object, Stage: p.Stage}, StartFrom: w.now().Add(-time.Hour), Plan: p}
}

// withProfile fills in what a test leaves open.
func withProfile(profile signing.Profile) func(*deal.Plan) {
	profile.Name, profile.Key = "contract", "house"
	if profile.Level == "" {
		profile.Level = pades.BT
	}
	if profile.OnDowngrade == "" {
		profile.OnDowngrade = signing.Hold
	}
	return func(p *deal.Plan) {
		b, err := json.Marshal(profile)
		if err != nil {
			panic(err)
		}
		p.Profile = b
	}
}

func atLevel(level pades.Level) func(*deal.Plan) { return withProfile(signing.Profile{Level: level}) }

func onDowngrade(answer signing.Downgrade) func(*deal.Plan) {
	return withProfile(signing.Profile{OnDowngrade: answer})
}

// withTemplate makes the rule render a document, and an audit trail beside it.
func withTemplate(t *testing.T) func(*deal.Plan) {
	return func(p *deal.Plan) {
		b, err := documents.Load("../templates/order-form")
		must(t, err)
		p.Attachment, p.Template, p.Bundle, p.AuditTrail, p.Currency = "", b.Name(), b.Hash(), trailBundle(t), "EUR"
		p.Seller = map[string]string{"address": "1 Main Street"}
		p.Fields, err = b.Paths(string(deal.Salesforce), nil)
		must(t, err)
	}
}

// poll takes in what the CRM shows and returns what is new.
func (d *daemon) poll() (fresh []deal.TxID) {
	d.t.Helper()
	d.init()
	before := d.all()
	for _, p := range d.pollers {
		for more := true; more; {
			var err error
			more, err = p.once(d.t.Context())
			must(d.t, err)
			p.note(d.t.Context(), err)
		}
	}
	for tx := range d.all() {
		if _, known := before[tx]; !known {
			fresh = append(fresh, tx)
		}
	}
	return fresh
}

// notice polls until the one entry that must be new.
func (d *daemon) notice() deal.TxID {
	d.t.Helper()
	fresh := d.poll()
	if len(fresh) != 1 {
		d.t.Fatalf("%d entries are new, want 1", len(fresh))
	}
	return fresh[0]
}

func (d *daemon) all() map[deal.TxID]store.Summary {
	d.t.Helper()
	list, err := d.store.List(d.t.Context(), store.Filter{})
	must(d.t, err)
	all := map[deal.TxID]store.Summary{}
	for _, s := range list {
		all[s.Tx] = s
	}
	return all
}

// next is what the queue would hand out first, and when.
func (d *daemon) next() (tx deal.TxID, due time.Time) {
	d.t.Helper()
	for _, s := range d.all() {
		if s.Condition.Waiting() || s.Step == deal.Done {
			continue
		}
		at := s.Next
		if later := d.again[s.Tx]; later.After(at) {
			at = later
		}
		if tx == "" || at.Before(due) || at.Equal(due) && s.Tx < tx {
			tx, due = s.Tx, at
		}
	}
	return tx, due
}

// work runs every job that is due now, without moving the clock.
func (d *daemon) work() {
	d.t.Helper()
	for range 1000 {
		tx, due := d.next()
		if tx == "" || due.After(d.w.now()) {
			return
		}
		d.handle(tx)
	}
	d.t.Fatal("the work does not come to an end")
}

func (d *daemon) handle(tx deal.TxID) {
	d.t.Helper()
	out := d.Handle(d.t.Context(), deal.Job{Kind: deal.JobSeal, Tx: tx})
	d.again[tx] = d.w.now().Add(out.Again)
}

// finish moves the clock from one attempt to the next until nothing moves any more.
func (d *daemon) finish() {
	d.t.Helper()
	for range 1000 {
		tx, due := d.next()
		if tx == "" {
			return
		}
		d.w.clock.advance(max(due.Sub(d.w.now()), 0))
		d.handle(tx)
	}
	d.t.Fatal("the work does not come to an end")
}

// run polls, finishes and returns what became of the one deal.
func (d *daemon) run() *deal.Sealing {
	d.t.Helper()
	tx := d.notice()
	d.finish()
	return d.load(tx)
}

// tell runs the jobs that bring records up to date.
func (d *daemon) tell() {
	d.t.Helper()
	for tx := range d.all() {
		d.Handle(d.t.Context(), deal.Job{Kind: deal.JobTell, Tx: tx})
	}
}

func (d *daemon) load(tx deal.TxID) *deal.Sealing {
	d.t.Helper()
	s, err := d.store.Load(d.t.Context(), tx)
	must(d.t, err)
	return s
}

func (d *daemon) story(tx deal.TxID) *store.Story {
	d.t.Helper()
	s, err := d.store.Story(d.t.Context(), tx)
	must(d.t, err)
	return s
}

// release does what a person does with the hold that the deal shows.
func (d *daemon) release(tx deal.TxID) {
	d.t.Helper()
	must(d.t, d.store.Release(d.t.Context(), tx, HoldName(d.load(tx).Reason, d.store.Epoch()), "alice", "it is in order"))
}

// digests are all digests that the ledger has ever committed for a transaction.
func (d *daemon) digests(tx deal.TxID) map[string]bool {
	digests := map[string]bool{}
	for _, i := range d.story(tx).Intents {
		if i.What == "sign" || i.What == "second-sign" {
			digests[i.Digest] = true
		}
	}
	return digests
}

func (d *daemon) wantDone(s *deal.Sealing) {
	d.t.Helper()
	if s.Step != deal.Done || s.Condition != deal.Running {
		d.t.Fatalf("the deal is %s at %q (%s), want it done\n%s", s.Condition, s.Step, s.Reason, d.log)
	}
	if len(s.Private.Ticket) > 0 && !s.Facts.Adopted {
		d.t.Errorf("a finished deal keeps the %d bytes of its staged seal", len(s.Private.Ticket))
	}
	if _, err := d.store.VerifyAudit(d.t.Context(), nil); err != nil {
		d.t.Fatalf("the audit log does not hold: %v", err)
	}
}

func (d *daemon) want(s *deal.Sealing, c deal.Condition, step deal.Step, reason string) {
	d.t.Helper()
	if s.Condition != c || s.Step != step || !strings.Contains(s.Reason, reason) {
		d.t.Fatalf("the deal is %s at %q: %q; want %s at %q: …%s…\n%s", s.Condition, s.Step, s.Reason, c, step, reason, d.log)
	}
}

// wantUses compares how often the key was used.
func (w *world) wantUses(n int) {
	w.t.Helper()
	if got := w.key.uses(); got != n {
		w.t.Errorf("the key was used %d times, want %d", got, n)
	}
}

// wantContracts compares how many sealed files the record bears.
func (w *world) wantContracts(record string, n int) {
	w.t.Helper()
	if got := len(w.contracts(record)); got != n {
		w.t.Errorf("the record bears %d sealed files, want %d", got, n)
	}
}

func (w *world) wantShown(record, status string) {
	w.t.Helper()
	if got := w.shown(record, fieldStatus); got != status {
		w.t.Errorf("the record shows %q, want %q", got, status)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits for a condition that another goroutine brings about.
func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatalf("waited in vain until %s", what)
	}
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// files and queue are what the assembly in cmd/dealseal puts between store and engine.
type files struct{ *store.Store }

func (f files) OpenKept(ctx context.Context, folder, name string) (deal.File, io.Closer, error) {
	file, err := f.Store.OpenKept(ctx, folder, name)
	if err != nil {
		return deal.File{}, nil, err
	}
	return file.File, file, nil
}

func (f files) OpenStaged(ctx context.Context, tx deal.TxID, name string, want deal.FileFact) (deal.File, io.Closer, error) {
	file, err := f.Store.OpenStaged(ctx, tx, name, want)
	if err != nil {
		return deal.File{}, nil, err
	}
	return file.File, file, nil
}

type queue struct{ *store.Queue }

func (q queue) Run(ctx context.Context, work func(context.Context, deal.Job) deal.Outcome) error {
	return q.Queue.Run(ctx, work)
}

// shelf finds the two bundles that the rules of these tests use.
type shelf struct{}

func (shelf) Bundle(hash string) (*documents.Bundle, error) {
	for _, dir := range []string{"../templates/order-form", "../templates/audit-trail"} {
		b, err := documents.Load(dir)
		if err != nil {
			return nil, err
		}
		if b.Hash() == hash {
			return b, nil
		}
	}
	return nil, fmt.Errorf("no bundle %s", hash)
}

// sealSubject is whose seal it is.
var sealSubject = pkix.Name{CommonName: "House Seal", Organization: []string{"House Ltd"}, Country: []string{"GB"}}

func newMaster() secret.Secret { return secret.New([]byte(rand.Text() + rand.Text())) }

// trailBundle is the hash of the bundle that audit trails are made with.
func trailBundle(t *testing.T) string {
	t.Helper()
	b, err := documents.Load("../templates/audit-trail")
	must(t, err)
	return b.Hash()
}
