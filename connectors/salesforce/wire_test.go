package salesforce

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func missing(t *testing.T) secret.Ref {
	t.Helper()
	ref, err := secret.ParseRef("file:" + t.TempDir() + "/missing")
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestEveryCallSaysWhoItIs(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	if _, err := c.Record(t.Context(), deal.Ref{Object: Object, ID: id}, []string{"Amount"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.org.Requests() {
		if r.Kind != mock.KindToken && r.Client != clientName {
			t.Errorf("%s %s has no Sforce-Call-Options: client=%s", r.Method, r.Path, clientName)
		}
	}
}

// simpleforce writes queries and bodies of failures into the process's log, and panics on what is not in its mind.
func TestClientLibraryNeverSeesAFailure(t *testing.T) {
	var said bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&said)
	for _, tc := range []struct {
		status int
		body   string
	}{
		{500, "[]"}, {500, ""}, {503, "<html>confidential</html>"}, {400, `[{"errorCode":"INVALID_FIELD","message":"confidential"}]`},
		{200, ""}, {200, "[]"}, {200, "null"}, {200, "confidential"}, {200, `{"done":true,"records":[null]}`},
		{200, `{"done":true,"records":[1]}`}, {200, `{"done":false,"records":[]}`}, {200, `{"done":false,"records":[],"nextRecordsUrl":"https://elsewhere.example/x"}`},
		{302, ""}, {100, ""},
	} {
		c := scriptedConnector(t, func(string) (int, string) { return tc.status, tc.body })
		if _, err := c.lookUp(t.Context(), "SELECT confidential FROM Account"); err == nil || strings.Contains(err.Error(), "confidential") {
			t.Errorf("HTTP %d %q: look-up gives %v", tc.status, tc.body, err)
		}
		if _, err := c.Record(t.Context(), deal.Ref{Object: Object, ID: "006000000000001AAA"}, nil); err == nil || strings.Contains(err.Error(), "confidential") {
			t.Errorf("HTTP %d %q: Record gives %v", tc.status, tc.body, err)
		}
	}
	if said.Len() > 0 {
		t.Errorf("the process's log says %q", said.String())
	}
}

func TestReplyIsReadUpToItsLimitAfterDecompression(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/token") {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"x"}`)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		chunk := bytes.Repeat([]byte(" "), 1<<20)
		for range maxReply>>20 + 1 {
			if _, err := z.Write(chunk); err != nil {
				return
			}
		}
		_ = z.Close()
	}))
	defer server.Close()
	c := mustNew(t, Config{MyDomain: server.URL, Auth: Auth{Flow: FlowClientCredentials, ConsumerKey: "k", ClientSecret: secretFile(t, "s")}})
	if _, err := c.query(t.Context(), "SELECT Id FROM Account"); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a reply that unpacks to more than the limit gives %v", err)
	}
}

func TestQueryThatIsTooLongIsRefusedBeforeItIsSent(t *testing.T) {
	c := scriptedConnector(t, func(string) (int, string) { t.Error("it was sent"); return 200, "{}" })
	if _, err := c.query(t.Context(), strings.Repeat("x", maxURL)); !deal.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
}

func TestAllowanceIsReadFromTheRightFigure(t *testing.T) {
	now := t20
	g := &gauge{now: func() time.Time { return now }}
	for header, want := range map[string]deal.Budget{
		"api-usage=18/15000": {Used: 18, Max: 15000, At: now},
		"per-app-api-usage=17/250(appName=x); api-usage=19/15000": {Used: 19, Max: 15000, At: now},
		"per-app-api-usage=249/250(appName=x)":                    {},
		"api-usage=x/y":                                           {},
	} {
		g.last = deal.Budget{}
		g.note(http.Header{"Sforce-Limit-Info": {header}})
		if got := g.read(); got != want {
			t.Errorf("%q is read as %+v", header, got)
		}
	}
	g.note(http.Header{"Sforce-Limit-Info": {"api-usage=14900/15000"}})
	if err := g.mayBegin(); deal.RetryAfter(err) != stale {
		t.Errorf("at 99 %%: %v", err)
	}
	now = now.Add(stale)
	if err := g.mayBegin(); err != nil {
		t.Errorf("an old reading must let one call through to see whether it has recovered: %v", err)
	}
}

func TestQueryPagesAreFollowedToTheEnd(t *testing.T) {
	org := mock.New(mock.Options{ConsumerKey: testKey, ClientSecret: testSecret, PageSize: 3})
	server := httptest.NewServer(org)
	defer server.Close()
	c := mustNew(t, Config{MyDomain: server.URL, Auth: Auth{Flow: FlowClientCredentials, ConsumerKey: testKey, ClientSecret: secretFile(t, testSecret)}})
	id, err := org.CreateOpportunity(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := org.AddFile(id, fmt.Sprintf("file %d.pdf", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := org.AddLineItem(id, map[string]any{"Product2": map[string]any{"Name": fmt.Sprint(i)}, "Quantity": 1, "UnitPrice": 1}); err != nil {
			t.Fatal(err)
		}
	}
	rec, err := c.Record(t.Context(), deal.Ref{Object: Object, ID: id}, []string{"OpportunityLineItems.Product2.Name"})
	if err != nil {
		t.Fatal(err)
	}
	lines, _ := rec.Values["OpportunityLineItems"].([]any)
	if len(rec.Files) != 10 || len(lines) != 10 {
		t.Errorf("%d files and %d lines, want 10 and 10", len(rec.Files), len(lines))
	}
}

func TestCancelledCallSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := scriptedConnector(t, func(string) (int, string) { cancel(); return 500, "" })
	if _, err := c.lookUp(ctx, "SELECT Id FROM Account"); err == nil {
		t.Error("no error")
	}
	if _, err := c.lookUp(ctx, "SELECT Id FROM Account"); !strings.Contains(fmt.Sprint(err), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
}

// Deals that share a call share its error, also inside of another: marking it for one of them leaves it as it is. Under the
// race detector this would not do otherwise.
func TestAnErrorThatDealsShareIsMarkedForEachByItself(t *testing.T) {
	c := &Connector{}
	c.cfg.Timeout = time.Minute
	inner := &Error{unclear: true, cause: context.DeadlineExceeded}
	for name, shared := range map[string]error{"bare": inner, "wrapped": fmt.Errorf("upload: %w", inner)} {
		text := shared.Error()
		marked := make(chan error, 8)
		for range cap(marked) {
			go func() { marked <- c.later(shared) }()
		}
		for range cap(marked) {
			if err := <-marked; deal.Unsettled(err) <= 0 || deal.RetryAfter(err) < deal.Unsettled(err) {
				t.Errorf("%s: %v may be repeated in %s", name, err, deal.RetryAfter(err))
			}
		}
		if shared.Error() != text || deal.RetryAfter(shared) != 0 {
			t.Errorf("%s: the error that they share is another now: %v", name, shared)
		}
	}
}
