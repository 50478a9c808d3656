package salesforce

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFaultAnswersInsteadOfTheCall(t *testing.T) {
	for _, tc := range []struct {
		effect Effect
		status int
		code   string
		body   string
	}{
		{LockRow, 400, "UNABLE_TO_LOCK_ROW", ""},
		{ValidationRule, 400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", ""},
		{RequestLimit, 403, "REQUEST_LIMIT_EXCEEDED", ""},
		{SessionInvalid, 401, "INVALID_SESSION_ID", ""},
		{ModifiedSince, 412, "ENTITY_FAILED_IFLASTMODIFIED_ON_UPDATE_CHECK", ""},
		{APIError, 500, "UNKNOWN_EXCEPTION", ""},
		{HTMLUnavailable, 503, "", htmlPage},
		{EmptyList, 500, "", "[]"},
		{EmptyBody, 500, "", ""},
	} {
		t.Run(string(tc.effect), func(t *testing.T) {
			w := newWire(t, Options{})
			id := w.opportunity(nil)
			w.fault(Fault{Kind: KindUpdate, Effect: tc.effect, Times: 1})
			res := w.call("PATCH", "/sobjects/Opportunity/"+id, `{"NextStep":"x"}`).want(tc.status, tc.code)
			if tc.code == "" && string(res.body) != tc.body {
				t.Errorf("body = %q, want %q", res.body, tc.body)
			}
			if r, _ := w.org.Record(id); r["NextStep"] != nil {
				t.Error("the call was carried out")
			}
			w.call("PATCH", "/sobjects/Opportunity/"+id, `{"NextStep":"x"}`).want(204, "")
		})
	}
}

func TestFaultAfterTheCallWasCarriedOut(t *testing.T) {
	for _, effect := range []Effect{CutAfter, CutDuring, UnavailableAfter} {
		w := newWire(t, Options{})
		id := w.opportunity(nil)
		w.fault(Fault{Kind: KindUpdate, Effect: effect, Times: 1})
		res, err := w.send(w.request("PATCH", base+"/sobjects/Opportunity/"+id, strings.NewReader(`{"NextStep":"x"}`)))
		if effect != UnavailableAfter && err == nil || effect == UnavailableAfter && res.status != 503 {
			t.Errorf("%s: %v %d", effect, err, res.status)
		}
		if r, _ := w.org.Record(id); r["NextStep"] != "x" {
			t.Errorf("%s: the change is not there", effect)
		}
	}
}

func TestConnectionIsCutBeforeAnythingIsDone(t *testing.T) {
	w := newWire(t, Options{})
	w.fault(Fault{Kind: KindCreate, Effect: CutBefore, Times: 1})
	if _, err := w.send(w.request("POST", base+"/sobjects/Account", io.NopCloser(strings.NewReader(`{"Name":"A"}`)))); err == nil {
		t.Fatal("got a reply")
	}
	if n := len(w.org.Records("Account")); n != 0 {
		t.Errorf("%d accounts", n)
	}
	if n := w.org.Counts()[KindCreate]; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

func TestTruncatedReplyIsNotJSON(t *testing.T) {
	w := newWire(t, Options{})
	w.fault(Fault{Kind: KindQuery, Effect: TruncatedJSON, Times: 1})
	if res := w.ask("SELECT Name FROM Organization"); res.status != 200 || json.Valid(res.body) {
		t.Errorf("%d %s", res.status, res.body)
	}
}

func TestFaultMatchesKindPathAndCounts(t *testing.T) {
	w := newWire(t, Options{})
	id := w.fault(Fault{Kind: KindQuery, Path: "FROM Account", Skip: 1, Times: 2, Effect: EmptyBody})
	var got []int
	for _, soql := range []string{"SELECT Id FROM Account", "SELECT Id FROM Contact", "SELECT Id FROM Account", "SELECT Id FROM Account", "SELECT Id FROM Account"} {
		got = append(got, w.ask(soql).status)
	}
	if diff := cmp.Diff([]int{200, 200, 500, 500, 200}, got); diff != "" {
		t.Error(diff)
	}
	if w.org.ClearFault(id) {
		t.Error("a fault that was used up is still there")
	}
	id = w.fault(Fault{Effect: APIError, Status: 500, Code: "APEX_ERROR", Message: "boom"})
	for range 3 {
		w.ask("SELECT Id FROM Account").want(500, "APEX_ERROR")
	}
	if list := w.org.Faults(); len(list) != 1 || list[0].ID != id {
		t.Errorf("faults = %v", list)
	}
	w.org.ClearFaults()
	w.ask("SELECT Id FROM Account").want(200, "")
}

func TestFaultSaysWhenToComeAgain(t *testing.T) {
	w := newWire(t, Options{})
	w.fault(Fault{Effect: APIError, Status: 429, RetryAfter: 7 * time.Second, Times: 1})
	w.fault(Fault{Effect: HTMLUnavailable, RetryAfter: 8 * time.Second})
	for _, want := range []string{"7", "8"} {
		if got := w.ask("SELECT Id FROM Account").header.Get("Retry-After"); got != want {
			t.Errorf("Retry-After is %q, want %s", got, want)
		}
	}
}

func TestFaultOnTokenCallHasTheShapeOfOAuth(t *testing.T) {
	w := newWire(t, Options{})
	w.fault(Fault{Kind: KindToken, Effect: APIError, Status: 400, Code: "invalid_grant", Message: "user hasn't approved this consumer"})
	res := w.form("/services/oauth2/token", url.Values{})
	if got, want := string(res.body), `{"error":"invalid_grant","error_description":"user hasn't approved this consumer"}`; res.status != 400 || got != want {
		t.Errorf("%d %s", res.status, got)
	}
}

func TestFaultWithoutMeaningIsRefused(t *testing.T) {
	org := New(Options{})
	for _, f := range []Fault{{Effect: "explode"}, {Kind: "patch", Effect: Slow}, {Effect: Slow, Times: -1}} {
		if _, err := org.SetFault(f); err == nil {
			t.Errorf("accepted %+v", f)
		}
	}
}

func TestUsageIsShownAndEnforced(t *testing.T) {
	w := newWire(t, Options{RequestLimit: 100})
	w.org.SetUsage(94)
	if got := w.ask("SELECT Id FROM Account").want(200, "").header.Get("Sforce-Limit-Info"); got != "api-usage=95/100" {
		t.Errorf("Sforce-Limit-Info = %q", got)
	}
	limits := w.call("GET", "/limits", "").want(200, "").object()["DailyApiRequests"].(map[string]any)
	if got := line(limits["Max"], limits["Remaining"]); got != "100 4" {
		t.Errorf("limits = %s", got)
	}
	w.org.SetUsage(100)
	w.ask("SELECT Id FROM Account").want(403, "REQUEST_LIMIT_EXCEEDED")
}

func TestVersions(t *testing.T) {
	w := newWire(t, Options{Versions: []string{"65.0", "66.0"}})
	w.token = ""
	res := w.must(w.request("GET", "/services/data", nil)).want(200, "")
	want := `[{"label":"Winter '26","url":"/services/data/v65.0","version":"65.0"},{"label":"Spring '26","url":"/services/data/v66.0","version":"66.0"}]`
	if diff := cmp.Diff(want, string(res.body)); diff != "" {
		t.Error(diff)
	}
	for version, status := range map[string]int{"30.0": 410, "99.0": 404, "x": 404} {
		w.must(w.request("GET", "/services/data/v"+version+"/limits", nil)).want(status, "")
	}
}

func TestEdge(t *testing.T) {
	w := newWire(t, Options{})
	w.ask("SELECT Id FROM Account WHERE Name = '"+strings.Repeat("x", 17000)+"'").want(414, "")
	w.must(w.request("GET", "/nowhere", nil)).want(404, "NOT_FOUND")
	w.must(w.request("POST", base+"/sobjects/Account", strings.NewReader("x=1"), "Content-Type", "application/x-www-form-urlencoded")).want(415, "UNSUPPORTED_MEDIA_TYPE")
	w.must(w.request("POST", base+"/sobjects/Account", strings.NewReader("{}"), "Content-Encoding", "gzip")).want(400, "JSON_PARSER_ERROR")
	w.must(w.request("POST", base+"/sobjects/Account", zipped(t, `{"Name":"zipped"}`), "Content-Type", "application/json", "Content-Encoding", "gzip")).want(201, "")
	w.must(w.request("POST", base+"/sobjects/Account/"+w.org.Records("Account")[0]+"?_HttpMethod=PATCH", strings.NewReader(`{"Name":"patched"}`), "Content-Type", "application/json")).want(204, "")
}

func TestReplyIsZippedForThoseWhoAsk(t *testing.T) {
	w := newWire(t, Options{})
	res := w.call("GET", "/sobjects", "", "Accept-Encoding", "gzip").want(200, "")
	if res.header.Get("Content-Encoding") != "gzip" {
		t.Fatal("the reply is not zipped")
	}
	z, err := gzip.NewReader(strings.NewReader(string(res.body)))
	w.ok(err)
	if plain, err := io.ReadAll(z); err != nil || !json.Valid(plain) {
		t.Errorf("%v: %.80s", err, plain)
	}
}

// The org is reached over net.Pipe here, so that the bubble's clock can move.
func TestSlowReplyOverAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		org := New(Options{})
		if _, err := org.SetFault(Fault{Kind: KindVersions, Effect: Slow, Delay: time.Minute}); err != nil {
			t.Fatal(err)
		}
		l := newPipeListener()
		srv := &http.Server{Handler: org}
		go func() { _ = srv.Serve(l) }() // ends with Close below
		defer srv.Close()
		client := &http.Client{Transport: &http.Transport{DialContext: l.dial, DisableKeepAlives: true}}
		for _, tc := range []struct {
			patience time.Duration
			answered bool
		}{{30 * time.Second, false}, {2 * time.Minute, true}} {
			ctx, cancel := context.WithTimeout(t.Context(), tc.patience)
			req, err := http.NewRequestWithContext(ctx, "GET", "http://org/services/data", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(req)
			if (err == nil) != tc.answered {
				t.Errorf("patience %v: %v", tc.patience, err)
			}
			if err == nil {
				_ = res.Body.Close()
			}
			cancel()
		}
	})
}

// pipeListener hands out the far ends of net.Pipe.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
