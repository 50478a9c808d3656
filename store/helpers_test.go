package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

const (
	acme    = deal.TenantID("acme")
	org     = deal.AccountID("salesforce:00D000000000001AAA")
	ruleA   = "order-form"
	private = "Zażółć gęślą jaźń GmbH" // must never be found in a file
)

var (
	testKey = bytes.Repeat([]byte{7}, minMasterKey)
	start   = time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC)
)

// testClock is a clock that is moved by hand.
type testClock struct{ now time.Time }

func (c *testClock) Now() time.Time          { return c.now }
func (c *testClock) advance(d time.Duration) { c.now = c.now.Add(d) }
func newClock() *testClock                   { return &testClock{now: start} }

func options(dir string, now func() time.Time) Options {
	return Options{Dir: dir, MasterKey: secret.New(testKey), Now: now}
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.release() }) // a second closing is harmless
	return s
}

func newStore(t *testing.T) (*Store, *testClock) {
	t.Helper()
	c := newClock()
	s := open(t, options(filepath.Join(t.TempDir(), "state"), c.Now))
	activate(t, s, acme, ruleA)
	return s, c
}

func activate(t *testing.T, s *Store, tenant deal.TenantID, rule string) {
	t.Helper()
	if _, err := s.Activate(t.Context(), tenant, account(tenant), watch(rule), start.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
}

// watch is what finds the entries that change makes.
func watch(rule string) deal.Watch {
	return deal.Watch{Rule: rule, Object: "Opportunity", Stage: "Closed Won"}
}

func cursor(t *testing.T, s *Store, tenant deal.TenantID, account deal.AccountID) deal.Cursor {
	t.Helper()
	c, err := s.Cursor(t.Context(), tenant, account)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// account gives each tenant one; acme's is org.
func account(tenant deal.TenantID) deal.AccountID {
	if tenant == acme {
		return org
	}
	return deal.AccountID("hubspot:" + string(tenant))
}

func plan() deal.Plan {
	return deal.Plan{TenantName: "Acme", Rule: ruleA, Profile: []byte(`{}`), WriteBack: deal.WriteBack{TransactionID: "Tx__c", Status: "Status__c"}, Retention: "commercial-10y"}
}

func change(record, occurrence string) deal.Change {
	return deal.Change{Rule: ruleA, Ref: deal.Ref{Object: "Opportunity", ID: record}, Stage: "Closed Won", Occurrence: occurrence, At: start}
}

// page is what a poll of acme returned; each page moves the cursor by a second.
func page(t *testing.T, s *Store, changes ...deal.Change) deal.Noticing {
	t.Helper()
	return pageOf(t, s, acme, changes...)
}

func pageOf(t *testing.T, s *Store, tenant deal.TenantID, changes ...deal.Change) deal.Noticing {
	t.Helper()
	c := cursor(t, s, tenant, account(tenant))
	next := deal.Cursor{Since: start}
	if !c.IsZero() {
		next.Since = c.Since.Add(time.Second)
	}
	return deal.Noticing{
		Tenant: tenant, Account: account(tenant), Previous: c, Page: deal.Page{Entries: changes, Next: next},
		Plans: map[string]deal.Plan{ruleA: plan()}, Watches: map[string]deal.Watch{ruleA: watch(ruleA)},
	}
}

func notice(t *testing.T, s *Store, changes ...deal.Change) []deal.TxID {
	t.Helper()
	fresh, err := s.Notice(t.Context(), page(t, s, changes...))
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

// one notices one entry and loads its sealing.
func one(t *testing.T, s *Store, record string) *deal.Sealing {
	t.Helper()
	fresh := notice(t, s, change(record, "h1"))
	if len(fresh) != 1 {
		t.Fatalf("%d fresh sealings, want 1", len(fresh))
	}
	return load(t, s, fresh[0])
}

func load(t *testing.T, s *Store, tx deal.TxID) *deal.Sealing {
	t.Helper()
	sl, err := s.Load(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	return sl
}

func advance(t *testing.T, s *Store, sl *deal.Sealing, what string) {
	t.Helper()
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: what}); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, s *Store, sl *deal.Sealing, what, digest string) {
	t.Helper()
	if err := s.Begin(t.Context(), sl, deal.Intent{Step: sl.Step, What: what, Digest: digest, Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
}

// query reads one value behind the store's back.
func query[T any](t *testing.T, s *Store, q string, args ...any) T {
	t.Helper()
	var v T
	if err := s.write.QueryRowContext(t.Context(), q, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return v
}

// tamper changes the database behind the store's back.
func tamper(t *testing.T, s *Store, q string, args ...any) {
	t.Helper()
	r, err := s.write.ExecContext(t.Context(), q, args...)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	if n, _ := r.RowsAffected(); n == 0 {
		t.Fatalf("%s changed nothing", q)
	}
}

func verified(t *testing.T, s *Store) AuditReport {
	t.Helper()
	r, err := s.VerifyAudit(t.Context(), nil)
	if err != nil {
		t.Fatalf("the audit log does not verify: %v", err)
	}
	return r
}

// toSealed stages a contract and brings a sealing to the step "checked".
func toSealed(t *testing.T, s *Store, sl *deal.Sealing, contract string) {
	t.Helper()
	sl.Step, sl.Private.FileName = deal.Gathered, private+".pdf"
	advance(t, s, sl, "gathered")
	sl.Step, sl.Facts.Digest = deal.Rendered, fmt.Sprintf("%064x", 1)
	advance(t, s, sl, "prepared")
	begin(t, s, sl, "sign", sl.Facts.Digest)
	sl.Facts.Signature, sl.Private.Value = true, []byte("signature")
	advance(t, s, sl, "signed")
	fact := stage(t, s, sl.Tx, contractName, contract)
	sl.Step, sl.Facts.Contract, sl.Facts.SealedAt = deal.Sealed, &fact, start
	advance(t, s, sl, "sealed")
	sl.Step = deal.Checked
	advance(t, s, sl, "checked")
}

// otherJob is the context of a job that runs until the end of the test.
func otherJob(t *testing.T, s *Store) context.Context {
	ctx, end := s.AsJob(t.Context())
	t.Cleanup(end)
	return ctx
}

func stage(t *testing.T, s *Store, tx deal.TxID, name, content string) deal.FileFact {
	t.Helper()
	fact, err := s.Stage(t.Context(), tx, name, func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fact
}

// testEndpoint is an endpoint of acme that wants everything.
func testEndpoint(name string) webhooks.Endpoint {
	e := webhooks.Endpoint{ID: "acme/" + name, Tenant: "acme", URL: "https://receiver.example/hooks?token=hidden"}
	e.Defaults()
	e.Secrets = []webhooks.Secret{{Value: secret.New([]byte("whsec_c2VjcmV0IG9mIHRoaXJ0eSB0d28gYnl0ZXMgLi4uLi4="))}}
	return e
}
