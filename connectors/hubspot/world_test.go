package hubspot

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

const (
	testClientID = "client-id-of-the-app"
	testSecret   = "client-secret-that-nobody-may-see"
	testRefresh  = "na1-refresh-token-that-nobody-may-see"
	testToken    = "pat-na1-static-token-that-nobody-may-see"
)

func TestConnectorKeepsTheContractWithOAuth(t *testing.T) {
	connectortest.Run(t, func(t *testing.T) connectortest.World { return newWorld(t, FlowOAuth) })
}

// TestConnectorKeepsTheContractForQuotes runs the cases with quotes in the place of deals, except for ten thousand of them.
func TestConnectorKeepsTheContractForQuotes(t *testing.T) {
	connectortest.RunMatching(t, "^([^T]|T[^e])", func(t *testing.T) connectortest.World {
		return newWorldOf(t, quotes, FlowToken, func(*mock.Options) {})
	})
}

// TestSimulationOfThreeDays has quotes beside the deals, under the same IDs, in every fourth run.
func TestSimulationOfThreeDays(t *testing.T) {
	secrets := secretsOf(t)
	connectortest.Days(t, 100, func(t *testing.T, seed int) connectortest.World {
		w := newSimulatedWorld(t, secrets)
		if seed%4 == 3 {
			return withQuotes{w}
		}
		return w
	})
}

// withQuotes is a world with quotes beside its deals.
type withQuotes struct{ *world }

func (w withQuotes) Beside() connectortest.World {
	b := emptyWorld(w.t, w.flow)
	b.of, b.network, b.portal, b.config, b.memory, b.wires, b.simulated = quotes, w.world, w.portal, w.config, w.memory, w.wires, w.simulated
	b.addProperties()
	return b
}

// TestConnectorKeepsTheContractOfTheNextVersion runs the cases that read batches, which 2026-09 answers differently.
func TestConnectorKeepsTheContractOfTheNextVersion(t *testing.T) {
	connectortest.RunMatching(t, "FoundOnce|Merge|Lines|FoundAgain|SetsAndClears|Deleted", func(t *testing.T) connectortest.World {
		w := newWorld(t, FlowToken)
		w.config.APIVersion = "2026-09"
		return w
	})
}

// TestConnectorKeepsTheContractWithAStaticToken runs the cases that the token has a part in. Only with a static token does
// HubSpot report the calls of the day.
func TestConnectorKeepsTheContractWithAStaticToken(t *testing.T) {
	connectortest.RunMatching(t, "Account|FoundOnce|FoundAgain|SetsAndClears|NearTheLimit|Allowance|Permission|Secret",
		func(t *testing.T) connectortest.World { return newWorld(t, FlowToken) })
}

// world is a mock portal on a loopback port, seen by the suite.
type world struct {
	t      testing.TB
	flow   string
	of     kind // whose records the suite is about
	portal *mock.Portal
	url    string
	config Config
	memory *memory
	wires  *http.Transport
	// network is the world whose network this one shares; nil: it has its own.
	network *world
	// simulated worlds are in a bubble of testing/synctest, and have its clock.
	simulated bool

	mu        sync.Mutex
	now       time.Time
	lines     map[string]int
	corrupt   int                        // uploads still to be damaged; negative: all
	empty     map[connectortest.Call]int // calls still to be answered with an empty error
	used, max int                        // the allowance that is reported, if max is set
	bearers   map[string]bool            // tokens that were seen
}

// newWorld makes a portal without rate limits: its clock stands still, so all calls would fall into one window.
func newWorld(t testing.TB, flow string) *world { return newWorldWith(t, flow, func(*mock.Options) {}) }

// newWorldWith makes a portal that differs from the usual one.
func newWorldWith(t testing.TB, flow string, differ func(*mock.Options)) *world {
	return newWorldOf(t, deals, flow, differ)
}

func newWorldOf(t testing.TB, of kind, flow string, differ func(*mock.Options)) *world {
	w := emptyWorld(t, flow)
	w.of = of
	w.wires = &http.Transport{DisableKeepAlives: true}
	w.furnish(differ)
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(server.Close)
	w.configure(server.URL, secretsOf(t))
	return w
}

// began is when the clock of every world begins.
var began = time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)

// newSimulatedWorld must be called inside of a bubble.
func newSimulatedWorld(t testing.TB, s Auth) *world {
	time.Sleep(time.Until(began)) // of the bubble's clock, which begins in the year 2000: nobody waits
	w := emptyWorld(t, FlowOAuth)
	w.simulated = true
	w.furnish(func(*mock.Options) {})
	pipe := connectortest.NewPipe("hubspot")
	pipe.Serve(t, http.HandlerFunc(w.serve))
	w.wires = pipe.Transport()
	t.Cleanup(w.wires.CloseIdleConnections)
	w.configure("http://127.0.0.1:1", s)
	return w
}

func emptyWorld(t testing.TB, flow string) *world {
	return &world{t: t, flow: flow, of: deals, memory: newMemory(), now: began, lines: map[string]int{}, empty: map[connectortest.Call]int{}, bearers: map[string]bool{}}
}

func (w *world) furnish(differ func(*mock.Options)) {
	o := mock.Options{
		Now: w.Now, TimeZone: "Europe/Paris", UIDomain: "app-eu1.hubspot.com", AccountType: "SANDBOX",
		Tokens: []mock.Token{{Value: testToken}},
		OAuth:  &mock.OAuthApp{ClientID: testClientID, ClientSecret: testSecret, RefreshToken: testRefresh},
		Limits: mock.Limits{TenSecondly: -1, Daily: -1, SearchSecondly: -1, Associations: -1},
	}
	differ(&o)
	w.portal = mock.New(o)
	w.addProperties()
}

// agreedAmount is an amount of quotes that people may edit: HubSpot calculates its own.
const agreedAmount = "agreed_amount"

// addProperties adds what the account's administrator has made for dealseal.
func (w *world) addProperties() {
	w.t.Helper()
	added := mock.WriteBackProperties()
	if w.of == quotes {
		added = append(added, mock.Property{Name: agreedAmount, Label: "Agreed amount", Type: "number", FieldType: "number"})
	}
	for _, p := range added {
		p.GroupName = w.of.one + "information"
		w.must(w.portal.AddProperty(w.of.name, p))
	}
}

func (w *world) configure(url string, s Auth) {
	w.url = url
	w.config = Config{BaseURL: url, Rate: 100_000, SearchRate: 10_000, Auth: Auth{Flow: FlowToken, Token: s.Token}}
	if w.flow == FlowOAuth {
		w.config.Auth = Auth{Flow: FlowOAuth, ClientID: testClientID, ClientSecret: s.ClientSecret, RefreshToken: s.RefreshToken}
	}
}

// secretsOf are files with the secrets of all flows.
func secretsOf(t testing.TB) Auth {
	return Auth{ClientSecret: secretFile(t, testSecret), RefreshToken: secretFile(t, testRefresh), Token: secretFile(t, testToken)}
}

func secretFile(t testing.TB, value string) secret.Ref {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := secret.ParseRef("file:" + name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// memory is a connectors.Memory that lives as long as the world.
type memory struct {
	mu      sync.Mutex
	value   []byte
	version int64
	fail    error // of Put
}

func newMemory() *memory { return &memory{} }

func (m *memory) Get(context.Context, string) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.value), m.version, nil
}

func (m *memory) Put(_ context.Context, _ string, value []byte, version int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.fail != nil:
		return m.fail
	case version != m.version:
		return deal.ErrStale
	}
	m.value, m.version = slices.Clone(value), version+1
	return nil
}

// serve is the portal behind a network that can damage uploads, loses the body of errors, and knows the world's clock.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	// Read to its end, so that the server notices when the client goes away.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	kind := kindOf(r)
	if kind == connectortest.UploadCall && w.count(&w.corrupt) {
		body[len(body)-200] ^= 1 // inside the file, before the closing boundary
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	w.mu.Lock()
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		w.bearers[token] = true
	}
	left := w.empty[kind]
	if left != 0 {
		w.empty[kind]--
	}
	w.mu.Unlock()
	if left != 0 {
		rw.Header().Set("Date", w.Now().Format(http.TimeFormat))
		rw.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(rw, "[]")
		return
	}
	w.portal.ServeHTTP(&writer{rw, w, kind}, r)
}

func (w *world) count(left *int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if *left > 0 {
		*left--
		return true
	}
	return *left < 0
}

// writer puts the headers on a reply that the mock leaves to the server, or cannot set.
type writer struct {
	http.ResponseWriter
	w    *world
	kind connectortest.Call
}

func (x *writer) WriteHeader(status int) {
	h := x.Header()
	h.Set("Date", x.w.Now().Format(http.TimeFormat))
	x.w.mu.Lock()
	if x.w.max > 0 && x.kind != connectortest.ListCall && x.kind != connectortest.LoginCall {
		h.Set("X-HubSpot-RateLimit-Daily", strconv.Itoa(x.w.max))
		h.Set("X-HubSpot-RateLimit-Daily-Remaining", strconv.Itoa(x.w.max-x.w.used))
	}
	x.w.mu.Unlock()
	x.ResponseWriter.WriteHeader(status)
}

func (x *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(x.ResponseWriter).Hijack()
}

// kindOf sorts a request into the suite's words; AnyCall for what it has none for.
func kindOf(r *http.Request) connectortest.Call {
	p := r.URL.Path
	isDeal := strings.HasPrefix(p, "/crm/objects/") && (strings.Contains(p, "/deals/") || strings.Contains(p, "/quotes/"))
	switch {
	case strings.HasPrefix(p, "/oauth/"):
		return connectortest.LoginCall
	case isDeal && strings.HasSuffix(p, "/search"):
		return connectortest.ListCall
	case isDeal && strings.Count(p, "/") == 5 && r.Method == http.MethodGet:
		return connectortest.ReadCall
	case isDeal && r.Method == http.MethodPatch:
		return connectortest.WriteCall
	case strings.HasPrefix(p, "/files/") && (r.Method == http.MethodPost || r.Method == http.MethodPut):
		return connectortest.UploadCall
	case strings.HasSuffix(p, "/notes") && r.Method == http.MethodPost:
		return connectortest.LinkCall
	}
	return connectortest.AnyCall
}

func (w *world) connector(log *slog.Logger) *Connector {
	return w.connectorOver(w.wires, log)
}

func (w *world) connectorOver(transport http.RoundTripper, log *slog.Logger) *Connector {
	w.t.Helper()
	c, err := New(w.config, Deps{Transport: transport, Log: log, Memory: w.memory})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) Connector(log *slog.Logger) connectors.CRM { return w.connector(log) }

func (w *world) Traits() connectortest.Traits {
	words := map[deal.Status]string{}
	for _, s := range deal.Statuses {
		words[s.Status] = string(s.Status)
	}
	traits := connectortest.Traits{
		Object: "deals", Stage: "contractsent", Other: "appointmentscheduled", Third: "qualifiedtobuy", Pipeline: "default",
		Amount: "amount", Lines: "line_items", LineName: "name", LineQuantity: "quantity", LinePrice: "price",
		NoSuchStage: "Contract Sent", NoSuchField: "no_such_property", ReadOnlyTime: "createdate",
		WriteBack: deal.WriteBack{
			TransactionID: "dealseal_transaction_id", Status: "dealseal_status", Words: words, SignedAt: "dealseal_signed_at",
			URL: "dealseal_document_url", Audit: "dealseal_audit",
		},
		Owner: ownerProperty, HTML: true,
		NewWriteBack: deal.WriteBack{
			TransactionID: "fresh_id", Status: "fresh_status", Words: words, SignedAt: "fresh_at", URL: "fresh_link", Audit: "fresh_audit", Drift: "fresh_drift", FollowUp: "fresh_follow_up",
		},
		Overlap: 15 * time.Minute, IdleCalls: 1, Secrets: w.secrets(),
	}
	if w.of == quotes {
		traits.Object, traits.Stage, traits.Other, traits.Third, traits.Pipeline = Quotes, "APPROVED", "DRAFT", "PENDING_APPROVAL", ""
		traits.NoSuchStage, traits.Amount, traits.ReadOnlyTime, traits.Unmovable = "APROVED", agreedAmount, "hs_createdate", true
	}
	return traits
}

// secrets are those of the configuration and every token that was used or kept.
func (w *world) secrets() []string {
	list := []string{testSecret, testRefresh, testToken}
	var m remembered
	if json.Unmarshal(w.memory.value, &m) == nil && m.Token != "" {
		list = append(list, m.Token)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for token := range w.bearers {
		list = append(list, token)
	}
	return list
}

func (w *world) LetSetUp() {} // the token of these tests has every scope

func (w *world) Now() time.Time {
	if w.simulated {
		return time.Now()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) Advance(d time.Duration) {
	if w.simulated {
		time.Sleep(d) // the bubble's clock moves, nobody waits
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) CreateDeals(n int, stage string) []string {
	ids, err := w.portal.CreateMany(w.of.name, n, func(i int) map[string]string {
		if w.of == quotes {
			return map[string]string{"hs_title": fmt.Sprintf("Quote %d", i), "hs_status": stage}
		}
		return map[string]string{"dealname": fmt.Sprintf("Deal %d", i), "pipeline": "default", "dealstage": stage}
	})
	w.must(err)
	return ids
}

func (w *world) Move(id, stage string) { w.set(id, w.of.stage, stage) }

func (w *world) SetAmount(id, amount string) { w.set(id, w.Traits().Amount, amount) }

func (w *world) set(id, property, value string) {
	w.must(w.portal.Update(w.of.name, id, map[string]string{property: value}))
}

func (w *world) AddLine(id, name, quantity, price string) {
	w.lines[id]++
	line, err := w.portal.Create("line_items", map[string]string{
		"name": name, "quantity": quantity, "price": price, "hs_position_on_quote": strconv.Itoa(w.lines[id]),
	})
	w.must(err)
	w.must(w.portal.Associate(w.of.name, id, "line_items", line, ""))
}

func (w *world) AddFile(id, name string, content []byte) {
	_, err := w.portal.AddFileTo(w.of.name, id, name, content)
	w.must(err)
}

func (w *world) Delete(id string) { w.must(w.portal.DeleteOf(w.of.name, id)) }

func (w *world) Merge(winner, loser string) (string, error) {
	return w.portal.MergeOf(w.of.name, winner, loser)
}

func (w *world) DelayVisibility(d time.Duration) { w.portal.SetIndexDelay(mock.Delay{Min: d, Max: d}) }

func (w *world) Garble(id string) {
	w.must(w.portal.SpoilHistoryOf(w.of.name, id, w.of.stage, true))
}

func (w *world) Files(id string) []connectortest.StoredFile {
	files, err := w.portal.FilesOf(w.of.name, id)
	w.must(err)
	var list []connectortest.StoredFile
	for _, f := range files {
		list = append(list, connectortest.StoredFile{ID: f.ID, Name: path.Base(f.Path), Content: f.Content})
	}
	return list
}

func (w *world) Timeline(id string) (notes []string) {
	all, err := w.portal.NotesOf(w.of.name, id)
	w.must(err)
	for _, n := range all {
		if len(n.AttachmentIDs) == 0 {
			notes = append(notes, n.Body)
		}
	}
	return notes
}

func (w *world) Tasks(id string) (tasks []connectortest.StoredTask) {
	all, err := w.portal.TasksOf(w.of.name, id)
	w.must(err)
	for _, p := range all {
		tasks = append(tasks, connectortest.StoredTask{ID: p["id"], Subject: p["hs_task_subject"], Body: p["hs_task_body"], Owner: p["hubspot_owner_id"]})
	}
	return tasks
}

func (w *world) Field(id, name string) string {
	r, err := w.portal.RecordOf(w.of.name, id)
	w.must(err)
	return r.Properties[name]
}

// where is the kind of each call, and a part of its path.
var where = map[connectortest.Call]mock.Fault{
	connectortest.LoginCall:  {Kind: mock.KindToken},
	connectortest.ListCall:   {Kind: mock.KindSearch},
	connectortest.ReadCall:   {Kind: mock.KindGet, Path: ofRecords},
	connectortest.UploadCall: {Kind: mock.KindUpload},
	connectortest.LinkCall:   {Kind: mock.KindNote},
	connectortest.TaskCall:   {Kind: mock.KindTask},
	connectortest.NoteCall:   {Kind: mock.KindNote},
	connectortest.WriteCall:  {Kind: mock.KindPatch, Path: ofRecords},
}

// ofRecords stands for the path of the records that the suite is about.
const ofRecords = "/records/"

func (w *world) where(call connectortest.Call) mock.Fault {
	f := where[call]
	if f.Path == ofRecords {
		f.Path = "/" + w.of.name + "/"
	}
	return f
}

var effects = map[connectortest.Effect]mock.Fault{
	connectortest.LoseReply:   {Effect: mock.EffectResetCommitted},
	connectortest.CutBefore:   {Effect: mock.EffectReset},
	connectortest.Unavailable: {Effect: mock.EffectBadGateway},
	connectortest.Truncated:   {Effect: mock.EffectTruncated},
	connectortest.Busy:        {Effect: mock.EffectLocked},
	connectortest.Limited:     {Effect: mock.EffectDailyLimit},
	connectortest.Refused:     {Effect: mock.EffectValidation, Property: "dealseal_status"},
	connectortest.Hang:        {Effect: mock.EffectSlow, Delay: time.Hour},
	connectortest.Expired:     {Effect: mock.EffectUnauthorized},
	connectortest.Forbidden:   {Effect: mock.EffectForbidden},
}

func (w *world) Fail(call connectortest.Call, effect connectortest.Effect, times int) error {
	if call == connectortest.LoginCall && w.flow == FlowToken {
		return fmt.Errorf("a static token needs no login: %w", connectortest.ErrUnsupported)
	}
	network := cmp.Or(w.network, w)
	switch effect {
	case connectortest.Corrupted:
		network.mu.Lock()
		defer network.mu.Unlock()
		network.corrupt = times
		return nil
	case connectortest.EmptyError:
		network.mu.Lock()
		defer network.mu.Unlock()
		network.empty[call] = times
		return nil
	}
	target, fault := w.where(call), effects[effect]
	fault.Kind, fault.Path, fault.Times = target.Kind, target.Path, max(times, 0)
	_, err := w.portal.SetFault(fault)
	return err
}

func (w *world) Heal() {
	w.portal.ClearFaults()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corrupt = 0
	clear(w.empty)
}

func (w *world) KillSessions() { w.portal.ExpireTokens() }

func (w *world) Requests(call connectortest.Call) int {
	target := w.where(call)
	n := 0
	for _, r := range w.portal.Requests() {
		switch {
		case call == connectortest.AnyCall && r.Kind != mock.KindToken,
			call != connectortest.AnyCall && r.Kind == target.Kind && strings.Contains(r.Path, target.Path):
			n++
		}
	}
	return n
}

func (w *world) SetUsage(used, most int) error {
	if w.flow == FlowOAuth {
		return fmt.Errorf("the calls of the day of an OAuth app: %w", connectortest.ErrUnsupported)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used, w.max = used, most
	return nil
}
