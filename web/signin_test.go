package web

import (
	"bytes"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/oidc"
	"github.com/dealseal/dealseal/web/signin"
)

// clientSecret is what the page shows to the provider.
const clientSecret = "of-the-client-4c1d"

// gatehouse is a page with a provider, both of which listen.
type gatehouse struct {
	t        *testing.T
	page     string
	mock     *oidc.Provider
	sessions *Sessions
	log      *bytes.Buffer
}

func newGatehouse(t *testing.T, change ...func(*Options)) *gatehouse {
	t.Helper()
	g := &gatehouse{t: t, mock: &oidc.Provider{ClientID: "dealseal", ClientSecret: clientSecret}}
	provider := httptest.NewServer(g.mock)
	t.Cleanup(provider.Close)
	var h http.Handler
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	t.Cleanup(served.Close)
	u, err := url.Parse(served.URL)
	if err != nil {
		t.Fatal(err)
	}
	g.page = "http://localhost:" + u.Port() // another site than the provider, whose name is 127.0.0.1
	g.mock.Issuer, g.mock.RedirectURI = provider.URL, g.page+signin.Back
	g.mock.Say(map[string]any{"groups": "seal-operators", "email": "anna@example.com", "email_verified": true})
	p := signin.New(signin.Options{Issuer: provider.URL, ClientID: "dealseal", Secret: func() (string, error) { return clientSecret, nil }, Page: g.page, Claim: "groups", Who: "email",
		Roles: []signin.Grant{{Value: "seal-operators", Role: deal.RoleOperator}}})
	h, _, g.log = open(settle(), append([]func(*Options){func(o *Options) { o.SignIn, o.SignInLasts, o.Deeds = p, time.Hour, &doer{} }}, change...)...)
	g.sessions = h.(member).sessions
	h = stranger(h)
	return g
}

// browser keeps cookies, and goes where it is sent.
func (g *gatehouse) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

func (g *gatehouse) get(c *http.Client, address string) (*http.Response, string) {
	g.t.Helper()
	resp, err := c.Get(address)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		g.t.Fatal(err)
	}
	return resp, b.String()
}

// mustHide looks for secrets in what was logged and shown.
func (g *gatehouse) mustHide(pages ...string) {
	g.t.Helper()
	for _, text := range append(pages, g.log.String()) {
		for _, secret := range []string{oidc.Canary, clientSecret, "eyJ", "code="} {
			if strings.Contains(text, secret) {
				g.t.Errorf("%q is told: %s", secret, text)
			}
		}
	}
}

func TestAPersonSignsInAtTheProviderAndHasItsRole(t *testing.T) {
	g := newGatehouse(t)
	c := g.browser()
	_, gate := g.get(c, g.page)
	if want := g.page + "/sign-in?to=%2F"; !strings.Contains(gate, want) || !strings.Contains(gate, loginCommand) {
		t.Fatalf("the gate does not lead to %s:\n%s", want, gate)
	}
	resp, arrived := g.get(c, g.page+"/sign-in?to=/deals?q=x")
	if page := checkOutline(t, arrived); resp.StatusCode != 200 || !strings.Contains(page.text, "Signed in as anna@example.com (oidc:24400320)") || !strings.Contains(page.text, "Your role is operator") {
		t.Fatalf("%s\n%s", resp.Status, arrived)
	}
	if resp.Header.Get("Refresh") != "0; url=/deals" || resp.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%v", resp.Header)
	}
	for _, cookie := range resp.Cookies() {
		if !cookie.HttpOnly || cookie.Name == cookieName && (cookie.SameSite != http.SameSiteStrictMode || cookie.MaxAge != 3600) {
			t.Errorf("%+v", cookie)
		}
	}
	if _, status := g.get(c, g.page); !strings.Contains(status, "anna@example.com (oidc:24400320), operator") {
		t.Errorf("the status page is not shown:\n%s", status)
	}
	if resp, _ := g.get(c, g.page+path(settle().deals[0])+"/fields"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an operator sees fields: %s", resp.Status)
	}
	list := slices.DeleteFunc(g.sessions.List(), func(o Session) bool { return o.Who == "alice" })
	if len(list) != 1 || list[0].Until.Sub(list[0].Since) != time.Hour {
		t.Errorf("%+v", list)
	}
	again, back := g.get(c, resp.Request.URL.String()) // the same code once more
	if again.StatusCode != http.StatusForbidden {
		t.Errorf("a code lets in twice: %s", again.Status)
	}
	g.mustHide(gate, arrived, back)
}

func TestSigningInAnewEndsTheSessionBeforeAndLoggingOutEndsIt(t *testing.T) {
	g := newGatehouse(t)
	g.mock.EndSession = "https://login.example/out"
	c := g.browser()
	g.get(c, g.page+"/sign-in")
	g.get(c, g.page+"/sign-in")
	if n := len(g.sessions.List()); n != 2 { // with alice's
		t.Errorf("%d sessions are open", n)
	}
	resp, err := c.PostForm(g.page+"/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	_, err = page.ReadFrom(resp.Body)
	if resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if checkOutline(t, page.String()); resp.Request.URL.Path != "/logged-out" || !strings.Contains(page.String(), `href="https://login.example/out?client_id=dealseal"`) {
		t.Errorf("logged out at %s, it is not said where one logs out at the provider:\n%s", resp.Request.URL.Path, page.String())
	}
	if n := len(g.sessions.List()); n != 1 {
		t.Errorf("logged out, %d sessions are open", n)
	}
	if resp, _ := g.get(c, g.page+"/deals"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("logged out, the list is shown: %s", resp.Status)
	}
}

func TestAProviderThatDoesNotSayWhereOneLogsOutHasItsSessionGoOnWhichIsSaid(t *testing.T) {
	g := newGatehouse(t)
	c := g.browser()
	g.get(c, g.page+"/sign-in")
	resp, err := c.PostForm(g.page+"/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page bytes.Buffer
	if _, err := page.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	if checkOutline(t, page.String()); resp.Request.URL.Path != "/logged-out" || !strings.Contains(page.String(), "you may still be signed in") {
		t.Errorf("logged out at %s, it is not said that the provider lets one in again:\n%s", resp.Request.URL.Path, page.String())
	}
}

func TestWhoeverIsNotLetInIsNotToldWhy(t *testing.T) {
	var told []string
	for name, c := range map[string]struct {
		claims map[string]any
		fault  oidc.Fault
		log    string
	}{
		"no role claim": {map[string]any{"email": "anna@example.com"}, "", "no claim groups"},
		"no role":       {map[string]any{"groups": []string{"staff"}}, "", "has a role"},
		"other state":   {map[string]any{"groups": "seal-operators"}, oidc.OtherState, "state"},
		"other key":     {map[string]any{"groups": "seal-operators"}, oidc.OtherKey, "no key"},
		"expired":       {map[string]any{"groups": "seal-operators", "exp": 1}, "", "expired"},
		"denied":        {nil, oidc.Denied, "access_denied"},
	} {
		g := newGatehouse(t)
		g.mock.Say(c.claims)
		g.mock.Break(c.fault)
		browser := g.browser()
		resp, page := g.get(browser, g.page+"/sign-in")
		checkOutline(t, page)
		if resp.StatusCode != http.StatusForbidden || len(g.sessions.List()) != 1 {
			t.Errorf("%s: %s, %d sessions", name, resp.Status, len(g.sessions.List()))
		}
		if !strings.Contains(g.log.String(), c.log) {
			t.Errorf("%s: the log does not say %q: %s", name, c.log, g.log)
		}
		g.mustHide(page)
		told = append(told, strings.ReplaceAll(page, g.page, ""))
	}
	for _, page := range told[1:] {
		if content(page) != content(told[0]) {
			t.Errorf("pages tell refusals apart:\n%s\n%s", told[0], page)
		}
	}
}

func content(page string) string {
	_, page, _ = strings.Cut(page, "<main")
	page, _, _ = strings.Cut(page, "</main>")
	return page
}

func TestWithTheProviderDownTheLinkStillLogsIn(t *testing.T) {
	for _, fault := range []oidc.Fault{oidc.Down, oidc.Huge, oidc.Garbage} {
		g := newGatehouse(t)
		g.mock.Break(fault)
		c := g.browser()
		resp, page := g.get(c, g.page+"/sign-in")
		if text := checkOutline(t, page).text; resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(text, "Nobody can be signed in at the moment") || !strings.Contains(text, loginCommand) {
			t.Errorf("%s: %s\n%s", fault, resp.Status, page)
		}
		g.mustHide(page)
		_, token, _ := strings.Cut(invite(g.sessions), "token=")
		posted, err := c.PostForm(g.page+"/login", url.Values{"token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		posted.Body.Close()
		if resp, _ := g.get(c, g.page+"/deals"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: the link does not log in: %s", fault, resp.Status)
		}
	}
}

func TestSignInCookiesAreForHTTPSWhereThePageIs(t *testing.T) {
	p := signin.New(signin.Options{Page: "https://seal.example.com"})
	s := &server{Options: Options{SignIn: p}}
	if c := s.ticket("x", 1); !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("%+v", c)
	}
}

func TestStrangersDoNotFillTheLog(t *testing.T) {
	g := newGatehouse(t)
	c := g.browser()
	for range mostToldAMinute + 7 {
		g.get(c, g.page+signin.Back+"?code=x")
	}
	if n := strings.Count(g.log.String(), "nobody was let in"); n != mostToldAMinute {
		t.Errorf("%d lines", n)
	}
	var r sparing
	for i := range 2 {
		if untold, ok := r.note(noon.Add(time.Duration(i) * time.Minute)); untold != 0 || !ok {
			t.Errorf("%d: %d, %t", i, untold, ok)
		}
	}
	for range mostToldAMinute + 5 {
		r.note(noon.Add(90 * time.Second))
	}
	if untold, ok := r.note(noon.Add(2 * time.Minute)); untold != 6 || !ok {
		t.Errorf("%d of the minute before were not told, %t", untold, ok)
	}
}

func TestWithoutAProviderThereIsNoWayToIt(t *testing.T) {
	h, _, _ := open(settle())
	for _, p := range []string{"/sign-in", signin.Back} {
		if w := get(stranger(h), p); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", p, w.Code)
		}
	}
	if page := get(stranger(h), "/").Body.String(); strings.Contains(page, "/sign-in") {
		t.Error(page)
	}
}
