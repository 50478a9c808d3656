package hubspot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func TestFailuresAreJudged(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	at := func(clock string) http.Header { return http.Header{"Date": {"Fri, 20 Nov 2026 " + clock + " GMT"}} }
	after := func(seconds string) http.Header { return http.Header{"Retry-After": {seconds}} }
	const unknownProperty = `{"status":"error","message":"Property values were not valid: [{\"isValid\":false,\"message\":\"no 4711 here\",\"error\":\"PROPERTY_DOESNT_EXIST\",\"name\":\"x_y\"}]",` +
		`"correlationId":"8a3f6c3a-8296-4002-b0a6-2a06fecf7c0c","category":"VALIDATION_ERROR"`
	for name, c := range map[string]struct {
		status    int
		header    http.Header
		body      string
		permanent bool
		after     time.Duration
		unclear   bool
		says      string
	}{
		"locked":                   {423, nil, `{"status":"error"}`, false, 2 * time.Second, false, "423"},
		"ten seconds":              {429, nil, `{"policyName":"TEN_SECONDLY_ROLLING"}`, false, 10 * time.Second, false, "TEN_SECONDLY_ROLLING"},
		"search":                   {429, nil, `{"policyName":"SECONDLY"}`, false, time.Second, false, "SECONDLY"},
		"search, message only":     {429, nil, `{"message":"You have reached your secondly limit."}`, false, time.Second, false, "429"},
		"daily, long before":       {429, at("12:00:00"), `{"policyName":"DAILY"}`, false, time.Hour, false, "DAILY"},
		"daily, before midnight":   {429, at("22:50:00"), `{"policyName":"DAILY"}`, false, 10 * time.Minute, false, "DAILY"},
		"daily, without a date":    {429, nil, `{"message":"You have reached your daily limit."}`, false, time.Hour, false, "429"},
		"429 that says when":       {429, after("7"), `{"policyName":"SECONDLY"}`, false, 7 * time.Second, false, ""},
		"moving":                   {477, after("1800"), ``, false, 30 * time.Minute, false, "data centre"},
		"moving for ever":          {477, after("999999"), ``, false, 24 * time.Hour, false, ""},
		"moving, silent":           {477, nil, ``, false, time.Hour, false, ""},
		"web page":                 {502, nil, `<html>502 Bad Gateway</html>`, false, 5 * time.Second, true, "HTTP 502"},
		"no answer in time":        {524, nil, ``, false, 5 * time.Second, true, "524"},
		"missing scope":            {403, nil, `{"category":"MISSING_SCOPES","errors":[{"context":{"requiredGranularScopes":["crm.objects.deals.read"]}}]}`, true, 0, false, "crm.objects.deals.read"},
		"unknown property":         {400, nil, unknownProperty + `}`, true, 0, false, "x_y PROPERTY_DOESNT_EXIST"},
		"unknown property, listed": {400, nil, unknownProperty + `,"errors":[{"code":"INVALID_OPTION","context":{"propertyName":["a","b"]}}]}`, true, 0, false, "a INVALID_OPTION, b INVALID_OPTION"},
		"correlation":              {400, nil, unknownProperty + `}`, true, 0, false, "8a3f6c3a-8296-4002-b0a6-2a06fecf7c0c"},
		"missing record":           {404, nil, `{"category":"OBJECT_NOT_FOUND"}`, true, 0, false, "OBJECT_NOT_FOUND"},
		"missing path":             {404, nil, `{"message":"resource not found"}`, true, 0, false, "api_version"},
		"404 with half a body":     {404, http.Header{"Content-Type": {"application/json;charset=utf-8"}}, `{"status":"error","mess`, false, 5 * time.Second, false, "broke off"},
		"403 with half a body":     {403, http.Header{"Content-Type": {"application/json"}}, `{"cat`, false, 5 * time.Second, false, "broke off"},
		"400 without a body":       {400, nil, ``, false, 5 * time.Second, false, "HTTP 400"},
		"400 with half a body":     {400, nil, `{"status":"error","mess`, false, 5 * time.Second, false, "HTTP 400"},
		"400 with an empty list":   {400, nil, `[]`, false, 5 * time.Second, false, "HTTP 400"},
		"fields of other types":    {400, nil, `{"category":7,"errors":"x","message":[],"correlationId":{}}`, false, 5 * time.Second, false, "HTTP 400"},
		"redirect":                 {302, http.Header{"Location": {"https://evil.example"}}, ``, false, 5 * time.Second, false, "302"},
		"unknown app":              {401, nil, `{"error":"invalid_client"}`, true, 0, false, "client_secret"},
		"old invalid grant":        {400, nil, `{"status":"BAD_REFRESH_TOKEN","message":"m"}`, true, 0, false, "install the app"},
	} {
		t.Run(name, func(t *testing.T) {
			err := failure(c.status, c.header, []byte(c.body), paris)
			if err.Permanent() != c.permanent || err.RetryAfter() != c.after || err.unclear != c.unclear {
				t.Errorf("permanent %t, after %s, unclear %t; want %t, %s, %t", err.Permanent(), err.RetryAfter(), err.unclear, c.permanent, c.after, c.unclear)
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "4711") {
				t.Errorf("says %q, want %q in it and no value", err, c.says)
			}
		})
	}
}

func TestTroubleWithTheLoginIsToldFromTroubleWithARecord(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		login  bool
	}{
		"expired token":      {401, `{"category":"EXPIRED_AUTHENTICATION"}`, true},
		"missing scope":      {403, `{"category":"MISSING_SCOPES"}`, true},
		"missing permission": {403, `{"category":"FORBIDDEN"}`, false},
		"missing record":     {404, `{"category":"OBJECT_NOT_FOUND"}`, false},
		"refused value":      {400, `{"category":"VALIDATION_ERROR"}`, false},
	} {
		if err := failure(c.status, nil, []byte(c.body), time.UTC); connectors.IsLogin(err) != c.login {
			t.Errorf("%s: login %t, want %t", name, !c.login, c.login)
		}
	}
}

func TestOnlyAMissingRecordIsGone(t *testing.T) {
	missing := failure(404, nil, []byte(`{"category":"OBJECT_NOT_FOUND"}`), time.UTC)
	if !errors.Is(gone(missing), deal.ErrGone) {
		t.Error("a missing record is not gone")
	}
	// A retired version of the API must not make every deal look deleted.
	if retired := failure(404, nil, []byte(`{"message":"resource not found"}`), time.UTC); errors.Is(gone(retired), deal.ErrGone) {
		t.Error("a path that HubSpot does not serve is taken for a missing record")
	}
}

// canned answers every call with one reply.
type canned struct {
	status int
	header http.Header
	body   string
	calls  int
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	c.calls++
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	header := c.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: c.status, Header: header, Body: io.NopCloser(strings.NewReader(c.body)), Request: r}, nil
}

const accountDetails = `{"portalId":62515,"accountType":"STANDARD","timeZone":"Europe/Paris","uiDomain":"app-eu1.hubspot.com"}`

// bubbleConnector is a connector for synctest: no sockets.
func bubbleConnector(t *testing.T, transport http.RoundTripper, cfg Config) *Connector {
	t.Helper()
	cfg.Auth = Auth{Flow: FlowToken, Token: secretFile(t, testToken)}
	c, err := New(cfg, Deps{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAllCallsWaitWhileTheAccountMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &canned{status: statusMigrating, header: http.Header{"Retry-After": {"600"}}}
		c := bubbleConnector(t, server, Config{})
		for range 3 {
			_, err := c.Identity(t.Context())
			if deal.IsPermanent(err) || deal.RetryAfter(err) != 10*time.Minute {
				t.Errorf("the error is %v (retry after %s), want one that waits ten minutes", err, deal.RetryAfter(err))
			}
		}
		if server.calls != 1 {
			t.Errorf("%d calls were made, want the one that was told to wait", server.calls)
		}
		time.Sleep(10*time.Minute + time.Second)
		server.status, server.body, server.header = 200, accountDetails, http.Header{"Date": {"Fri, 20 Nov 2026 12:00:00 GMT"}}
		if _, err := c.Identity(t.Context()); err != nil {
			t.Errorf("after the move: %v", err)
		}
	})
}

func TestCallsKeepToTheLimitOverAnyTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(10, 10*time.Second)
		var times []time.Time
		start := time.Now()
		for i := range 35 {
			if i == 12 {
				time.Sleep(25 * time.Second) // a pause must not be saved up
			}
			if err := w.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Now())
		}
		for i := 10; i < len(times); i++ {
			if d := times[i].Sub(times[i-10]); d <= 10*time.Second {
				t.Errorf("calls %d to %d fell within %s", i-10, i, d)
			}
		}
		if times[9] != start {
			t.Errorf("the first ten calls waited until %s after the start", times[9].Sub(start))
		}
	})
}

func TestWaitingForTheLimitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(1, 10*time.Second)
		if err := w.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := w.wait(short); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
			t.Errorf("waited %s and got %v, want a deadline error at once", time.Since(start), err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := w.wait(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while waiting: %v", err)
		}
	})
}

// TestSearchesOfOneConnectorStayWithinTheAccountsLimit: HubSpot allows five in a second, ours are four.
func TestSearchesOfOneConnectorStayWithinTheAccountsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &canned{status: 200, body: `{"total":0,"results":[]}`, header: http.Header{"Date": {"Fri, 20 Nov 2026 12:00:00 GMT"}}}
		c := bubbleConnector(t, server, Config{})
		start := time.Now()
		for range 12 {
			if _, err := c.Changes(t.Context(), deal.Cursor{}, []deal.Watch{{Rule: "r", Object: Object, Stage: "s"}}); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("12 searches took %s, want four in each second", d)
		}
	})
}

func TestReplyThatNeverEndsIsCut(t *testing.T) {
	c := bubbleConnector(t, roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(endless{}), Request: r}, nil
	}), Config{})
	if _, err := c.Identity(t.Context()); err == nil || deal.IsPermanent(err) {
		t.Errorf("an endless reply gives %v, want a passing error", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestTokenGoesIntoTheHeaderAndNowhereElse(t *testing.T) {
	w := newWorld(t, FlowOAuth)
	r := newReader(t, w, contractSent())
	w.CreateDeals(1, "contractsent")
	r.poll()
	for _, q := range w.portal.Requests() {
		if q.Problem != "" || q.UserAgent != userAgent {
			t.Errorf("%s %s: %s (User-Agent %q)", q.Method, q.Path, q.Problem, q.UserAgent)
		}
	}
}

func TestIdentityComesFromTheAccount(t *testing.T) {
	w := newWorld(t, FlowToken)
	got, err := w.connector(quiet()).Identity(t.Context())
	w.must(err)
	want := deal.Account{Kind: deal.HubSpot, ID: "62515", Name: "HubSpot account 62515", Sandbox: true, TimeZone: "Europe/Paris", Clock: w.Now()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
}

// TestAllowanceThatRecoveredIsNoticed: searches report nothing, so somebody has to ask.
func TestAllowanceThatRecoveredIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		header := func(left string) http.Header {
			return http.Header{"Date": {"Fri, 20 Nov 2026 12:00:00 GMT"}, "X-Hubspot-Ratelimit-Daily": {"1000"}, "X-Hubspot-Ratelimit-Daily-Remaining": {left}}
		}
		server := &canned{status: 200, body: accountDetails, header: header("40")}
		c := bubbleConnector(t, server, Config{})
		if _, err := c.Identity(t.Context()); err != nil {
			t.Fatal(err)
		}
		watches := []deal.Watch{{Rule: "r", Object: Object, Stage: "s"}}
		_, err := c.Changes(t.Context(), deal.Cursor{}, watches)
		if deal.RetryAfter(err) != stale || server.calls != 1 {
			t.Fatalf("at 96 %%: %v after %d calls, want a wait of %s and no call", err, server.calls, stale)
		}
		time.Sleep(stale)
		server.header = header("990")
		server.body = strings.TrimSuffix(accountDetails, "}") + `,"total":0,"results":[]}` // good for both questions
		if _, err := c.Changes(t.Context(), deal.Cursor{}, watches); err != nil {
			t.Errorf("after the allowance has recovered: %v", err)
		}
	})
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
