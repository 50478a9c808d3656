package salesforce

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

const (
	testSecret = "consumer-secret-that-nobody-may-see"
	testKey    = "3MVG9.consumer.key"
	dailyCalls = 10_000
)

func TestConnectorKeepsTheContract(t *testing.T) {
	connectortest.Run(t, func(t *testing.T) connectortest.World { return newWorld(t, "DealSeal_Key__c") })
}

func TestSimulationOfThreeDays(t *testing.T) {
	secret := secretFile(t, testSecret)
	connectortest.Days(t, 100, func(t *testing.T, _ int) connectortest.World { return newSimulatedWorld(t, kinds[0], secret) })
}

func TestSimulationOfThreeDaysOfOrders(t *testing.T) {
	secret := secretFile(t, testSecret)
	connectortest.Days(t, 5, func(t *testing.T, _ int) connectortest.World { return newSimulatedWorld(t, kinds[3], secret) })
}

// Of ten thousand deals the history of an Opportunity is proof enough: the case that begins with Te is left out.
func TestOrdersKeepTheContract(t *testing.T) {
	connectortest.RunMatching(t, "^([^T]|T[^e])", func(t *testing.T) connectortest.World { return newWorldOf(t, kinds[3], "DealSeal_Key__c") })
}

// Without a key field, the file's description alone says that it is ours.
func TestAttachKeepsTheContractWithoutAKeyField(t *testing.T) {
	connectortest.RunMatching(t, "File|Upload|Attach|Role|Transaction|Trouble", func(t *testing.T) connectortest.World { return newWorld(t, "") })
}

// world is a mock org on a loopback port, seen by the suite, whose deals are of one kind.
type world struct {
	t        testing.TB
	kind     kind
	org      *mock.Org
	url      string
	secret   secret.Ref
	txMarker string
	wires    *http.Transport
	// simulated worlds are in a bubble of testing/synctest, and have its clock.
	simulated bool

	mu      sync.Mutex
	now     time.Time
	lines   map[string]int
	corrupt int // uploads still to be damaged; negative: all
}

func newWorld(t testing.TB, txMarker string) *world {
	return newWorldOf(t, kinds[0], txMarker)
}

func newWorldOf(t testing.TB, k kind, txMarker string) *world {
	w := &world{t: t, kind: k, txMarker: txMarker, now: began, lines: map[string]int{}, wires: &http.Transport{DisableKeepAlives: true}}
	w.org = w.newOrg()
	server := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	server.Config.Protocols = bothProtocols()
	server.Start()
	t.Cleanup(server.Close)
	w.url = server.URL
	w.secret = secretFile(t, testSecret)
	return w
}

// began is when the clock of every world begins.
var began = time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)

// newSimulatedWorld must be called inside of a bubble.
func newSimulatedWorld(t testing.TB, k kind, secret secret.Ref) *world {
	time.Sleep(time.Until(began)) // of the bubble's clock, which begins in the year 2000: nobody waits
	w := &world{t: t, kind: k, txMarker: "DealSeal_Key__c", simulated: true, lines: map[string]int{}, url: "http://127.0.0.1:1", secret: secret}
	w.org = w.newOrg()
	pipe := connectortest.NewPipe("salesforce")
	pipe.Serve(t, http.HandlerFunc(w.serve))
	w.wires = pipe.Transport()
	t.Cleanup(w.wires.CloseIdleConnections)
	return w
}

func (w *world) newOrg() *mock.Org {
	fields := mock.DealSealFields()
	fields[w.kind.name] = append(fields[w.kind.name], mock.Field{Name: "Volume__c", Type: mock.TypeCurrency})
	org := mock.New(mock.Options{Now: w.Now, ConsumerKey: testKey, ClientSecret: testSecret, RequestLimit: dailyCalls, CustomFields: fields})
	if w.kind.name == "Order" {
		org.Permit("EditActivatedOrders")
	}
	org.Track(w.kind.name+"."+w.kind.stage, w.kind.tracked)
	return org
}

// bothProtocols are HTTP/1.1 and, for the Pub/Sub API, HTTP/2 without TLS.
func bothProtocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

func secretFile(t testing.TB, value string) secret.Ref {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := secret.ParseRef("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// serve is the org behind a network that can damage an upload. The body is taken in first, because only then does
// net/http notice that a client has gone away.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 { // the Pub/Sub API, whose requests go on
		w.org.ServeHTTP(rw, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/sobjects/ContentVersion") && w.takeCorruption() {
		body[len(body)-200] ^= 1 // inside the file, before the closing boundary
	}
	if at := bytes.Index(body, []byte(`"VersionData":"`)); at >= 0 && strings.HasSuffix(r.URL.Path, "/composite") && w.takeCorruption() {
		body[at+200] = map[bool]byte{true: 'B', false: 'A'}[body[at+200] == 'A'] // another letter of base64
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	w.org.ServeHTTP(rw, r)
}

func (w *world) takeCorruption() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.corrupt > 0 {
		w.corrupt--
		return true
	}
	return w.corrupt < 0
}

func (w *world) config() Config {
	return Config{
		MyDomain: w.url, TxMarker: w.txMarker,
		Auth: Auth{Flow: FlowClientCredentials, ConsumerKey: testKey, ClientSecret: w.secret},
	}
}

func (w *world) connector(log *slog.Logger) *Connector {
	c, err := New(w.config(), Deps{HTTP: w.wires, Log: log, Now: w.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) Connector(log *slog.Logger) connectors.CRM { return w.connector(log) }

// Traits of quotes and orders: their own amounts are sums of their lines, so people have a field for it, as in many orgs.
func (w *world) Traits() connectortest.Traits {
	traits := w.traits()
	switch w.kind.name {
	case "Quote":
		traits.Stage, traits.Other, traits.Third, traits.NoSuchStage = "Accepted", "Draft", "In Review", "Acceptedd"
		traits.Lines = "QuoteLineItems"
	case "Order":
		traits.Stage, traits.Other, traits.Third, traits.NoSuchStage = "Activated", "Draft", "In Review", "Activatedd"
		traits.Lines = "OrderItems"
	case "Contract":
		traits.Stage, traits.Other, traits.Third, traits.NoSuchStage = "Activated", "Draft", "In Approval Process", "Activatedd"
	default:
		return traits
	}
	traits.Object, traits.Amount, traits.ReadOnlyTime = w.kind.name, "Volume__c", "CreatedDate"
	return traits
}

func (w *world) traits() connectortest.Traits {
	return connectortest.Traits{
		Object: "Opportunity", Stage: "Closed Won", Other: "Prospecting", Third: "Negotiation/Review",
		Amount: "Amount", Lines: "OpportunityLineItems", LineName: "Product2.Name", LineQuantity: "Quantity", LinePrice: "UnitPrice",
		NoSuchStage: "Closed Wonn", NoSuchField: "NoSuchField__c", ReadOnlyTime: "LastStageChangeDate",
		WriteBack: deal.WriteBack{
			TransactionID: "DealSeal_Transaction_ID__c", Status: "DealSeal_Status__c", SignedAt: "DealSeal_Signed_At__c",
			URL: "DealSeal_Document_URL__c", Audit: "DealSeal_Audit__c",
		},
		Owner:        "OwnerId",
		NewWriteBack: deal.WriteBack{TransactionID: "Fresh_ID__c", Status: "Fresh_Status__c", SignedAt: "Fresh_At__c", URL: "Fresh_Link__c", Audit: "Fresh_Audit__c", Drift: "Fresh_Drift__c", FollowUp: "Fresh_Follow_Up__c"},
		Overlap:      10 * time.Minute, IdleCalls: 1,
		Secrets: []string{testSecret}, SecretPrefix: w.org.ID()[:15] + "!",
	}
}

func (w *world) LetSetUp() { w.org.AdminRights(true) }

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
	ids := make([]string, n)
	for i := range ids {
		ids[i] = w.create(map[string]any{"Name": fmt.Sprintf("Deal %d", i), w.kind.stage: stage})
	}
	return ids
}

func (w *world) create(fields map[string]any) string {
	var err error
	switch w.kind.name {
	case Object:
		id, err := w.org.CreateOpportunity(fields)
		w.must(err)
		return id
	case "Quote":
		fields["OpportunityId"], err = w.org.CreateOpportunity(nil)
	case "Order":
		fields["EffectiveDate"] = "2026-11-20"
		fallthrough
	case "Contract":
		fields["AccountId"], err = w.org.CreateAccount(map[string]any{"Name": "Acme"})
	}
	w.must(err)
	id, err := w.org.Create(w.kind.name, fields)
	w.must(err)
	return id
}

func (w *world) Move(id, stage string) { w.must(w.org.Update(id, map[string]any{w.kind.stage: stage})) }

func (w *world) SetAmount(id, amount string) {
	w.must(w.org.Update(id, map[string]any{w.Traits().Amount: json.Number(amount)}))
}

func (w *world) AddLine(id, name, quantity, price string) {
	w.lines[id]++
	line := map[string]any{"Product2": map[string]any{"Name": name}, "Quantity": json.Number(quantity), "UnitPrice": json.Number(price), "SortOrder": w.lines[id]}
	add := w.org.AddLine
	switch w.kind.name {
	case Object:
		add = w.org.AddLineItem
	case "Order":
		delete(line, "SortOrder") // there is none: they are listed as they were made
	}
	_, err := add(id, line)
	w.must(err)
}

func (w *world) AddFile(id, name string, content []byte) {
	_, err := w.org.AddFile(id, name, content)
	w.must(err)
}

func (w *world) Delete(id string) { w.must(w.org.Delete(id)) }

func (w *world) Merge(string, string) (string, error) {
	return "", fmt.Errorf("merging opportunities: %w", connectortest.ErrUnsupported)
}

func (w *world) DelayVisibility(d time.Duration) { w.org.SetCommitDelay(d) }

func (w *world) Garble(id string) { w.must(w.org.SetRaw(w.newestRow(id), "CreatedDate", "yesterday")) }

func (w *world) newestRow(id string) string {
	for _, row := range slices.Backward(w.org.Records(w.kind.history())) {
		if fields, ok := w.org.Record(row); ok && fields[w.kind.parent()] == id {
			return row
		}
	}
	w.t.Fatalf("deal %s has no history", id)
	return ""
}

func (w *world) Files(id string) []connectortest.StoredFile {
	var files []connectortest.StoredFile
	for _, f := range w.org.Files(id) {
		latest := f.Versions[len(f.Versions)-1]
		files = append(files, connectortest.StoredFile{ID: latest.ID, Name: latest.Name, Content: latest.Content})
	}
	return files
}

func (w *world) Timeline(id string) (notes []string) {
	for _, task := range w.org.Records("Task") {
		if f, ok := w.org.Record(task); ok && f["WhatId"] == id && f["Status"] == "Completed" {
			notes = append(notes, fmt.Sprint(f["Subject"], "\n", f["Description"]))
		}
	}
	return notes
}

func (w *world) Tasks(id string) (tasks []connectortest.StoredTask) {
	for _, task := range w.org.Records("Task") {
		if fields, ok := w.org.Record(task); ok && fields["WhatId"] == id {
			tasks = append(tasks, connectortest.StoredTask{ID: task, Subject: fmt.Sprint(fields["Subject"]), Body: fmt.Sprint(fields["Description"]), Owner: fmt.Sprint(fields["OwnerId"])})
		}
	}
	return tasks
}

func (w *world) Field(id, name string) string {
	fields, ok := w.org.Record(id)
	if !ok {
		w.t.Fatalf("no record %s", id)
	}
	if fields[name] == nil {
		return ""
	}
	return fmt.Sprint(fields[name])
}

// where is the kind of each call, and a part of its query.
func (w *world) where(call connectortest.Call) (f mock.Fault, ok bool) {
	f, ok = map[connectortest.Call]mock.Fault{
		connectortest.LoginCall:  {Kind: mock.KindToken},
		connectortest.ListCall:   {Kind: mock.KindQuery, Path: "FROM " + w.kind.history() + " WHERE"},
		connectortest.ReadCall:   {Kind: mock.KindQuery, Path: "FROM " + w.kind.name + " WHERE"},
		connectortest.UploadCall: {Kind: mock.KindUpload},
		connectortest.WriteCall:  {Kind: mock.KindUpdate},
		connectortest.TaskCall:   {Kind: mock.KindCreate},
		connectortest.NoteCall:   {Kind: mock.KindCreate},
	}[call]
	return f, ok
}

var effects = map[connectortest.Effect]mock.Fault{
	connectortest.LoseReply:   {Effect: mock.CutAfter},
	connectortest.CutBefore:   {Effect: mock.CutBefore},
	connectortest.Unavailable: {Effect: mock.HTMLUnavailable},
	connectortest.EmptyError:  {Effect: mock.EmptyList},
	connectortest.Truncated:   {Effect: mock.TruncatedJSON},
	connectortest.Busy:        {Effect: mock.LockRow},
	connectortest.Limited:     {Effect: mock.RequestLimit},
	connectortest.Refused:     {Effect: mock.ValidationRule},
	connectortest.Hang:        {Effect: mock.Slow, Delay: time.Hour},
	connectortest.Expired:     {Effect: mock.SessionInvalid},
	connectortest.Forbidden:   {Effect: mock.APIError, Status: http.StatusForbidden, Code: "INSUFFICIENT_ACCESS", Message: "no"},
}

func (w *world) Fail(call connectortest.Call, effect connectortest.Effect, times int) error {
	target, ok := w.where(call)
	if !ok {
		return fmt.Errorf("a %s call of its own: %w", call, connectortest.ErrUnsupported)
	}
	if effect == connectortest.Corrupted {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.corrupt = times
		return nil
	}
	fault := effects[effect]
	fault.Kind, fault.Path, fault.Times = target.Kind, target.Path, max(times, 0)
	_, err := w.org.SetFault(fault)
	return err
}

func (w *world) Heal() {
	w.org.ClearFaults()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corrupt = 0
}

func (w *world) KillSessions() { w.org.KillSessions() }

func (w *world) Requests(call connectortest.Call) int {
	target, _ := w.where(call)
	n := 0
	for _, r := range w.org.Requests() {
		switch {
		case call == connectortest.AnyCall && r.Kind != mock.KindToken && !r.Sub,
			call != connectortest.AnyCall && r.Kind == target.Kind && strings.Contains(r.Query, target.Path):
			n++
		}
	}
	return n
}

func (w *world) SetUsage(used, most int) error {
	if most != dailyCalls {
		return fmt.Errorf("the allowance of the mock is fixed at %d", dailyCalls)
	}
	w.org.SetUsage(used)
	return nil
}
