package hubspot_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func TestFaultsThatKeepACallFromHappening(t *testing.T) {
	for effect, want := range map[hubspot.Effect]struct {
		status     int
		key, value string
	}{
		hubspot.EffectUnauthorized:   {401, "category", "EXPIRED_AUTHENTICATION"},
		hubspot.EffectForbidden:      {403, "category", "MISSING_SCOPES"},
		hubspot.EffectLocked:         {423, "status", "error"},
		hubspot.EffectDailyLimit:     {429, "policyName", "DAILY"},
		hubspot.EffectTenSecondLimit: {429, "policyName", "TEN_SECONDLY_ROLLING"},
		hubspot.EffectSecondLimit:    {429, "message", "You have reached your secondly limit."},
		hubspot.EffectMigrating:      {477, "status", "error"},
		hubspot.EffectBadGateway:     {502, "", ""},
		hubspot.EffectValidation:     {400, "category", "VALIDATION_ERROR"},
	} {
		t.Run(string(effect), func(t *testing.T) {
			p := start(t, nil)
			id := p.deal(map[string]string{"dealname": "before"})
			p.fault(hubspot.Fault{Kind: hubspot.KindPatch, Effect: effect, Times: 1, RetryAfter: 90 * time.Second})
			const body = `{"properties":{"dealname":"after"}}`
			a := p.must(want.status, "PATCH", "/crm/objects/2026-03/deals/"+id, body)
			if got := a.text(want.key); want.key != "" && got != want.value {
				t.Errorf("%s is %q, want %q", want.key, got, want.value)
			}
			if retry := a.header.Get("Retry-After"); (want.status == 477 || want.status == 429) && retry != "90" {
				t.Errorf("Retry-After is %q", retry)
			}
			if html := strings.HasPrefix(a.header.Get("Content-Type"), "text/html"); html != (want.status == 502) {
				t.Errorf("Content-Type is %q", a.header.Get("Content-Type"))
			}
			r, err := p.Record(id)
			p.ok(err)
			if r.Properties["dealname"] != "before" {
				t.Error("the write happened")
			}
			p.must(200, "PATCH", "/crm/objects/2026-03/deals/"+id, body) // the fault is used up
		})
	}
}

func TestLostRepliesLeaveTheWorkDone(t *testing.T) {
	for _, effect := range []hubspot.Effect{hubspot.EffectTimeoutCommitted, hubspot.EffectResetCommitted, hubspot.EffectResetDuring, hubspot.EffectTruncated} {
		t.Run(string(effect), func(t *testing.T) {
			p := start(t, nil)
			p.fault(hubspot.Fault{Kind: hubspot.KindNote, Effect: effect})
			resp, err := p.request("POST", "/crm/objects/2026-03/notes", strings.NewReader(`{"properties":{"hs_timestamp":"0"}}`), "application/json")
			if err == nil {
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode == 201 && json.Valid(body) {
					t.Errorf("the reply came whole: %s", body)
				}
			} else if effect != hubspot.EffectResetCommitted {
				t.Errorf("%v", err)
			}
			if ids, err := p.IDs("notes"); err != nil || len(ids) != 1 {
				t.Errorf("notes %q, %v", ids, err)
			}
		})
	}
}

func TestAResetBeforeTheWorkLeavesNothing(t *testing.T) {
	p := start(t, nil)
	p.fault(hubspot.Fault{Kind: hubspot.KindNote, Effect: hubspot.EffectReset})
	if resp, err := p.request("POST", "/crm/v3/objects/notes", strings.NewReader(`{"properties":{"hs_timestamp":"0"}}`), "application/json"); err == nil {
		resp.Body.Close()
		t.Errorf("status %d", resp.StatusCode)
	}
	if ids, _ := p.IDs("notes"); len(ids) != 0 {
		t.Errorf("notes %q", ids)
	}
	if log := p.Requests(); log[0].Status != 0 || log[0].Fault != hubspot.EffectReset {
		t.Errorf("log: %+v", log)
	}
}

func TestFaultsStrikeWhereAndWhenTheySay(t *testing.T) {
	p := start(t, nil)
	id := p.deal(nil)
	p.fault(hubspot.Fault{Kind: hubspot.KindGet, Path: "/contacts/", Effect: hubspot.EffectLocked})
	p.fault(hubspot.Fault{Kind: hubspot.KindGet, Skip: 1, Times: 2, Effect: hubspot.EffectBadGateway})
	var got []int
	for range 4 {
		got = append(got, p.do("GET", "/crm/v3/objects/deals/"+id, "").status)
	}
	got = append(got, p.do("GET", "/crm/v3/objects/contacts/1", "").status, p.do("GET", "/crm/v3/objects/deals", "").status)
	if diff := cmp.Diff([]int{200, 502, 502, 200, 423, 200}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if f := p.Faults(); f[0].Used != 1 || f[1].Used != 2 {
		t.Errorf("%+v", f)
	}
	p.ClearFaults()
	p.must(404, "GET", "/crm/v3/objects/contacts/1", "")
	id1 := p.fault(hubspot.Fault{Effect: hubspot.EffectLocked})
	if !p.ClearFault(id1) || p.ClearFault(id1) {
		t.Error("one fault is not cleared by its ID, once")
	}
	for _, f := range []hubspot.Fault{
		{Kind: "gets", Effect: hubspot.EffectLocked}, {Effect: "418"}, {Effect: hubspot.EffectSlow}, {Effect: hubspot.EffectLocked, Skip: -1},
	} {
		if _, err := p.SetFault(f); err == nil {
			t.Errorf("%+v was accepted though it can never strike", f)
		}
	}
}

func TestAPartialBatchNamesTheInputThatFailed(t *testing.T) {
	p := start(t, nil)
	ids, err := p.CreateDeals(2, func(int) map[string]string { return nil })
	p.ok(err)
	p.fault(hubspot.Fault{Kind: hubspot.KindBatchRead, Effect: hubspot.EffectPartial, Times: 1})
	body := fmt.Sprintf(`{"inputs":[{"id":%q},{"id":%q}]}`, ids[0], ids[1])
	a := p.must(207, "POST", "/crm/v3/objects/deals/batch/read", body)
	if len(a.list("results")) != 1 || a.text("errors", 0, "context", "ids", 0) != ids[1] {
		t.Errorf("%s", a.raw)
	}
	p.must(200, "POST", "/crm/v3/objects/deals/batch/read", body)
}

func TestASpoiltHistoryHasATimeStampThatNobodyCanRead(t *testing.T) {
	p := start(t, nil)
	id := p.deal(map[string]string{"dealstage": "contractsent"})
	p.ok(p.SpoilHistory(id, "dealstage", true))
	read := func() string {
		return p.must(200, "GET", "/crm/v3/objects/deals/"+id+"?propertiesWithHistory=dealstage", "").text("propertiesWithHistory", "dealstage", 0, "timestamp")
	}
	if _, err := time.Parse(time.RFC3339, read()); err == nil {
		t.Error("it can be read")
	}
	p.ok(p.SpoilHistory(id, "dealstage", false))
	if _, err := time.Parse(time.RFC3339, read()); err != nil {
		t.Error(err)
	}
}

func TestRateLimits(t *testing.T) {
	p := start(t, func(o *hubspot.Options) { o.Limits = hubspot.Limits{TenSecondly: 3, Daily: 7, SearchSecondly: 2} })
	get := func() answer { return p.do("GET", "/crm/v3/objects/deals", "") }
	a := get()
	for name, want := range map[string]string{
		"X-HubSpot-RateLimit-Max": "3", "X-HubSpot-RateLimit-Remaining": "2", "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
		"X-HubSpot-RateLimit-Daily": "7", "X-HubSpot-RateLimit-Daily-Remaining": "6",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	search := p.must(200, "POST", searchPath, `{}`)
	if search.header.Get("X-HubSpot-RateLimit-Remaining") != "" {
		t.Error("a search answer has rate headers")
	}
	p.must(200, "POST", searchPath, `{}`)
	if a := p.must(429, "POST", searchPath, `{}`); a.text("policyName") != "SECONDLY" || a.text("category") != "" {
		t.Errorf("%s", a.raw)
	}
	get()
	get()
	if a := get(); a.status != 429 || a.text("policyName") != "TEN_SECONDLY_ROLLING" || a.text("errorType") != "RATE_LIMIT" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	p.clock.advance(10 * time.Second)
	if a := get(); a.status != 200 {
		t.Errorf("after ten seconds: %d", a.status)
	}
	get()
	if a := get(); a.status != 429 || a.text("policyName") != "DAILY" {
		t.Errorf("eighth call of the day: %d %s", a.status, a.raw)
	}
	p.clock.advance(14 * time.Hour)
	if a := get(); a.status != 200 {
		t.Errorf("the next day: %d", a.status)
	}
	p.SetLimits(hubspot.Limits{TenSecondly: -1, Daily: -1})
	if a := get(); a.header.Get("X-HubSpot-RateLimit-Max") != "" {
		t.Error("headers of a limit that is not enforced")
	}
}

func TestTokensNeedTheScopesOfTheRoute(t *testing.T) {
	p := start(t, func(o *hubspot.Options) { o.Tokens[0].Scopes = []string{"crm.objects.deals.read", "files.read"} })
	for _, tc := range []struct{ method, path, scope string }{
		{"PATCH", "/crm/v3/objects/deals/1", "crm.objects.deals.write"},
		{"POST", "/crm/v3/objects/notes", "crm.objects.contacts.write"},
		{"GET", "/crm/v3/objects/deals/1?associations=contacts", "crm.objects.contacts.read"},
		{"GET", "/crm/v4/objects/deals/1/associations/companies", "crm.objects.companies.read"},
		{"POST", "/files/v3/files", "files"},
		{"GET", "/crm/v3/owners", "crm.objects.owners.read"},
		{"POST", "/crm/v3/properties/deals", "crm.schemas.deals.write"},
	} {
		a := p.must(403, tc.method, tc.path, `{}`)
		if got := a.list("errors", 0, "context", "requiredGranularScopes"); len(got) != 1 || got[0] != tc.scope || a.text("category") != "MISSING_SCOPES" {
			t.Errorf("%s %s: %s", tc.method, tc.path, a.raw)
		}
	}
	p.must(200, "GET", "/crm/v3/objects/deals", "")
	p.must(200, "GET", "/crm/v3/pipelines/deals", "")
	p.must(200, "GET", "/files/v3/files/search", "")
}

func TestOAuthTokensAreRefreshedExpireAndAreRevoked(t *testing.T) {
	p := start(t, func(o *hubspot.Options) {
		o.Limits.Daily = 1 // of private apps only
		o.OAuth = &hubspot.OAuthApp{ClientID: "cid", ClientSecret: "sec", RefreshToken: "na1-first", RotateRefreshTokens: true}
	})
	refresh := func(path, token string) answer {
		return p.form(path, url.Values{"grant_type": {"refresh_token"}, "client_id": {"cid"}, "client_secret": {"sec"}, "refresh_token": {token}})
	}
	details := func(token string) (int, answer) {
		req, err := http.NewRequest("GET", p.url+"/account-info/2026-03/details", nil)
		p.ok(err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := p.http.Do(req)
		p.ok(err)
		defer resp.Body.Close()
		a := answer{header: resp.Header}
		p.ok(json.NewDecoder(resp.Body).Decode(&a.object))
		return resp.StatusCode, a
	}
	first := refresh("/oauth/2026-03/token", "na1-first")
	if first.status != 200 || first.path("expires_in") != 1800. || first.text("token_type") != "bearer" || first.path("hub_id") != 62515. {
		t.Fatalf("%d %s", first.status, first.raw)
	}
	status, a := details(first.text("access_token"))
	if status != 200 || a.path("portalId") != 62515. || a.text("uiDomain") != "app.hubspot.com" {
		t.Errorf("%d %v", status, a.object)
	}
	if a.header.Get("X-HubSpot-RateLimit-Max") != "110" || a.header.Get("X-HubSpot-RateLimit-Daily") != "" {
		t.Errorf("rate headers of an OAuth app: %v", a.header)
	}
	if status, _ := details(first.text("access_token")); status != 200 {
		t.Errorf("second call of the day: %d", status)
	}
	old := refresh("/oauth/v3/token", "na1-first")
	want := object{
		"error": "invalid_grant", "error_description": "refresh token is invalid, expired or revoked",
		"status": "BAD_REFRESH_TOKEN", "message": "refresh token is invalid, expired or revoked",
	}
	if diff := cmp.Diff(want, old.object); old.status != 400 || diff != "" {
		t.Errorf("status %d (-want +got):\n%s", old.status, diff)
	}
	second := refresh("/oauth/v1/token", first.text("refresh_token"))
	if second.status != 200 {
		t.Fatalf("%d %s", second.status, second.raw)
	}
	p.clock.advance(35 * time.Minute)
	if status, a := details(first.text("access_token")); status != 401 || a.text("message") != "The OAuth token used to make this call expired 5 minute(s) ago." {
		t.Errorf("%d %v", status, a.object)
	}
	third := refresh("/oauth/2026-09/token", second.text("refresh_token"))
	in := p.form("/oauth/2026-03/token/introspect", url.Values{"client_id": {"cid"}, "client_secret": {"sec"}, "token": {third.text("access_token")}})
	if in.path("active") != true || in.path("hub_id") != 62515. {
		t.Errorf("introspect: %s", in.raw)
	}
	p.must(200, "GET", "/oauth/v1/access-tokens/"+third.text("access_token"), "")
	for _, e := range p.Requests() {
		if strings.Contains(e.Path, third.text("access_token")) {
			t.Errorf("the log holds a token: %s", e.Path)
		}
	}
	p.form("/oauth/2026-03/token/revoke", url.Values{"client_id": {"cid"}, "client_secret": {"sec"}, "token": {third.text("refresh_token")}})
	if a := refresh("/oauth/2026-03/token", third.text("refresh_token")); a.status != 400 {
		t.Errorf("after revocation: %d", a.status)
	}
	p.ExpireTokens()
	if status, _ := details(third.text("access_token")); status != 401 {
		t.Errorf("after ExpireTokens: %d", status)
	}
	if status, a := details("nonsense"); status != 401 || a.text("category") != "INVALID_AUTHENTICATION" {
		t.Errorf("%d %v", status, a.object)
	}
}

func TestTheTokenEndpointTakesNothingFromTheQueryString(t *testing.T) {
	p := start(t, func(o *hubspot.Options) {
		o.OAuth = &hubspot.OAuthApp{ClientID: "cid", ClientSecret: "sec", RefreshToken: "r"}
	})
	const query = "?grant_type=refresh_token&client_id=cid&client_secret=sec&refresh_token=r"
	if a := p.form("/oauth/2026-03/token"+query, nil); a.status != 400 {
		t.Errorf("2026-03: status %d", a.status)
	}
	if a := p.form("/oauth/v1/token"+query, nil); a.status != 200 || a.text("refresh_token") != "r" {
		t.Errorf("v1: %d %s", a.status, a.raw)
	}
	for _, e := range p.Requests() {
		if e.Problem == "" || e.Query != "" {
			t.Errorf("the log keeps silent about, or repeats, a secret in a query: %+v", e)
		}
	}
}

func TestThePortalWorksOverAPipe(t *testing.T) {
	p := start(t, nil)
	l := pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{Handler: p.Portal}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{DialContext: l.dial}}
	get := func() error {
		req, err := http.NewRequest("GET", "http://api.hubapi.com/crm/v3/owners/", nil)
		p.ok(err)
		req.Header.Set("Authorization", "Bearer "+testToken)
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	p.fault(hubspot.Fault{Effect: hubspot.EffectReset})
	if err := get(); err == nil {
		t.Error("a cut connection gave an answer")
	}
	client.CloseIdleConnections()
	s.Close()
	<-served
}
