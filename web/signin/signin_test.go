package signin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/oidc"
)

// secret needs to be encoded in a header (RFC 6749, 2.3.1).
const secret = "s3cret/+=&% of the client"

// world is a provider and a page that knows it, with one clock.
type world struct {
	t    *testing.T
	mock *oidc.Provider
	page *Provider
	now  time.Time
}

func newWorld(t *testing.T, change ...func(*Options, *oidc.Provider)) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return w.now }
	w.mock = &oidc.Provider{ClientID: "seal house", ClientSecret: secret, RedirectURI: "http://localhost:8484" + Back, Now: clock}
	s := httptest.NewServer(w.mock)
	t.Cleanup(s.Close)
	w.mock.Issuer = s.URL
	w.mock.Say(map[string]any{"groups": []string{"staff", "seal-operators"}, "email": "anna@example.com", "email_verified": true})
	o := Options{Issuer: s.URL, ClientID: "seal house", Secret: func() (string, error) { return secret, nil }, Page: "http://localhost:8484", Scopes: []string{"email"}, Claim: "groups", Who: "email", Now: clock,
		Roles: []Grant{{"seal-admins", deal.RoleAdmin}, {"seal-operators", deal.RoleOperator}, {"staff", deal.RoleViewer}}}
	for _, f := range change {
		f(&o, w.mock)
	}
	w.page = New(o)
	return w
}

// travel has a browser go to the provider, and returns what it comes back with.
func (w *world) travel(to string) (ticket string, q url.Values) {
	w.t.Helper()
	address, ticket, err := w.page.Begin(w.t.Context(), to)
	if err != nil {
		w.t.Fatal(err)
	}
	return ticket, w.browse(address)
}

func (w *world) browse(address string) url.Values {
	w.t.Helper()
	stay := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := stay.Get(address)
	if err != nil {
		w.t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil || !strings.HasPrefix(back.String(), "http://localhost:8484"+Back+"?") {
		w.t.Fatalf("%s sends back to %v, %v", address, back, err)
	}
	return back.Query()
}

func (w *world) finish(ticket string, q url.Values) (Person, error) {
	return w.page.Finish(w.t.Context(), ticket, q)
}

// mustRefuse finishes and wants a refusal for a reason, and nothing secret in it.
func (w *world) mustRefuse(ticket string, q url.Values, why string) {
	w.t.Helper()
	who, err := w.finish(ticket, q)
	var no *RefusedError
	if !errors.As(err, &no) || who != (Person{}) || !strings.Contains(no.Why, why) {
		w.t.Errorf("%+v, %v; want a refusal: %s", who, err, why)
	}
	w.mustHide(err, ticket, q)
}

func (w *world) mustHide(err error, ticket string, q url.Values) {
	w.t.Helper()
	for _, secret := range []string{oidc.Canary, secret, "s3cret", "eyJ", q.Get("code"), ticket} {
		if err != nil && secret != "" && strings.Contains(err.Error(), secret) {
			w.t.Errorf("the error tells %q: %v", secret, err)
		}
	}
}

func TestAPersonIsLetInWithTheFirstRoleThatFits(t *testing.T) {
	w := newWorld(t)
	ticket, q := w.travel("/deals/abc?q=Anna")
	who, err := w.finish(ticket, q)
	if want := (Person{Who: "anna@example.com (oidc:24400320)", Role: deal.RoleOperator, To: "/deals/abc"}); err != nil || who != want {
		t.Fatalf("%+v, %v; want %+v", who, err, want)
	}
	if _, err := w.finish(w.travel("/")); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]int{"/.well-known/openid-configuration": 1, "/keys": 1, "/token": 2} {
		if n := w.mock.Calls(path); n != want {
			t.Errorf("%s was asked %d times, want %d", path, n, want)
		}
	}
}

func TestTheRequestHasStateNonceAndAChallenge(t *testing.T) {
	w := newWorld(t)
	seen := map[string]bool{}
	for range 2 {
		address, _, err := w.page.Begin(t.Context(), "/")
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("scope") != "openid email" || q.Get("redirect_uri") != "http://localhost:8484"+Back {
			t.Errorf("%v", q)
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			if len(q.Get(name)) < 22 || seen[q.Get(name)] { // 128 bits
				t.Errorf("%s is %q", name, q.Get(name))
			}
			seen[q.Get(name)] = true
		}
	}
}

func TestASecretInTheBodyIsForThoseWhoTakeNoOther(t *testing.T) {
	w := newWorld(t, func(_ *Options, p *oidc.Provider) { p.PostOnly = true })
	if _, err := w.finish(w.travel("/")); err != nil {
		t.Fatal(err)
	}
}

func TestWhoeverBringsAnotherStateIsRefused(t *testing.T) {
	w := newWorld(t)
	ticket, q := w.travel("/")
	_, other := w.travel("/")
	w.mustRefuse(ticket, other, "state")
	w.mustRefuse(ticket, url.Values{"code": q["code"]}, "state")
	w.mustRefuse("", q, "no ticket")
	w.mustRefuse(ticket[:len(ticket)-2], q, "no ticket")
	w.mustRefuse(newWorldTicket(t), q, "no ticket")
	if n := w.mock.Calls("/token"); n != 0 {
		t.Errorf("the provider was asked %d times for tokens", n)
	}
	if _, err := w.finish(ticket, q); err != nil {
		t.Errorf("whom somebody has tried to mix up is not let in: %v", err)
	}
}

// newWorldTicket is one of another process.
func newWorldTicket(t *testing.T) string {
	ticket, _ := newWorld(t).travel("/")
	return ticket
}

func TestATicketIsGoodForAWhile(t *testing.T) {
	w := newWorld(t)
	ticket, q := w.travel("/")
	w.now = w.now.Add(TicketLasts)
	w.mustRefuse(ticket, q, "too old")
}

func TestACodeIsOfUseOnce(t *testing.T) {
	w := newWorld(t)
	ticket, q := w.travel("/")
	if _, err := w.finish(ticket, q); err != nil {
		t.Fatal(err)
	}
	w.mustRefuse(ticket, q, "used before")
	if n := w.mock.Calls("/token"); n != 1 {
		t.Errorf("the code was shown to the provider %d times", n)
	}
	// Stolen, in the journey of somebody else, the provider's check of the challenge refuses it.
	_, stolen := w.travel("/")
	ticket, own := w.travel("/")
	own["code"] = stolen["code"]
	w.mustRefuse(ticket, own, "invalid_grant")
	ticket, again := w.travel("/")
	again["code"] = q["code"]
	w.mustRefuse(ticket, again, "invalid_grant")
}

func TestSpentTicketsAreForgottenOnceTheyAreTooOld(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newTickets(func() time.Time { return now })
	for i := range mostSpent + 5 {
		if !s.spend(journey{State: string(rune('a'+i%26)) + strings.Repeat("x", i/26), Until: now.Add(time.Minute)}) {
			t.Fatalf("%d was spent before", i)
		}
	}
	if len(s.spent) != mostSpent {
		t.Errorf("%d are remembered", len(s.spent))
	}
	now = now.Add(time.Minute)
	s.spend(journey{State: "new", Until: now.Add(time.Minute)})
	if len(s.spent) != 1 {
		t.Errorf("%d are remembered after their time", len(s.spent))
	}
}

func TestTokensThatAreNotForUsOrNotOfNowAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		claims map[string]any
		fault  oidc.Fault
		why    string
	}{
		"wrong nonce":         {map[string]any{"nonce": "another"}, "", "nonce"},
		"no nonce":            {map[string]any{"nonce": nil}, "", "nonce"},
		"wrong issuer":        {map[string]any{"iss": "https://" + oidc.Canary}, "", "different provider"},
		"wrong audience":      {map[string]any{"aud": oidc.Canary}, "", "audience"},
		"no audience":         {map[string]any{"aud": nil}, "", "audience"},
		"another's as well":   {map[string]any{"aud": []string{"seal house", "another"}}, "", "another client"},
		"made for another":    {map[string]any{"aud": []string{"seal house", "another"}, "azp": "another"}, "", "another client"},
		"expired":             {map[string]any{"exp": time.Date(2026, 11, 20, 11, 59, 59, 0, time.UTC).Unix()}, "", "expired"},
		"without an end":      {map[string]any{"exp": nil}, "", "expired"},
		"of later":            {map[string]any{"nbf": time.Date(2026, 11, 20, 12, 6, 0, 0, time.UTC).Unix()}, "", "nbf"},
		"no subject":          {map[string]any{"sub": nil}, "", "subject"},
		"a subject to fool":   {map[string]any{"sub": "1) root (admin"}, "", "subject"},
		"a subject in lines":  {map[string]any{"sub": "1\n2"}, "", "subject"},
		"no role":             {map[string]any{"groups": []string{"guests"}}, "", "no value of the claim groups"},
		"no claim":            {map[string]any{"groups": nil}, "", "no claim groups"},
		"claim of odd kind":   {map[string]any{"groups": 7}, "", "no claim groups"},
		"a part of a name":    {map[string]any{"groups": "seal-admins,x"}, "", "no value of the claim groups"},
		"another key":         {nil, oidc.OtherKey, "no key of the provider"},
		"no signature":        {nil, oidc.Unsigned, "no key of the provider"},
		"signed with secret":  {nil, oidc.SharedKey, "no key of the provider"},
		"provider says no":    {nil, oidc.Denied, "access_denied"},
		"other state":         {nil, oidc.OtherState, "state"},
		"other issuer's name": {nil, oidc.OtherIssuer, "another issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			claims := map[string]any{"groups": "seal-admins"}
			for k, v := range c.claims {
				claims[k] = v
			}
			w.mock.Say(claims)
			w.mock.Break(c.fault)
			ticket, q := w.travel("/")
			w.mustRefuse(ticket, q, c.why)
		})
	}
}

func TestPeopleLogOutAtTheProviderWhereItSaysHow(t *testing.T) {
	for endSession, want := range map[string]string{"https://login.example/out?tenant=1": "https://login.example/out?client_id=seal+house&tenant=1", "": "", "http://login.example/out": "", "javascript:alert(1)": ""} {
		w := newWorld(t, func(_ *Options, p *oidc.Provider) { p.EndSession = endSession })
		if got := w.page.LogOut(); got != "" {
			t.Errorf("a provider that was not asked has %q", got)
		}
		w.travel("/")
		if got := w.page.LogOut(); got != want {
			t.Errorf("%q leads to %q, want %q", endSession, got, want)
		}
	}
}

func TestAnAnswerWithoutTheIssuersNameIsRefusedWhereTheProviderGivesIt(t *testing.T) {
	w := newWorld(t)
	ticket, q := w.travel("/")
	q.Del("iss")
	w.mustRefuse(ticket, q, "issuer")
}

func TestAnAddressThatAnybodyMayWriteGivesNoRole(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *oidc.Provider) {
		o.Claim, o.Roles = "email", []Grant{{"anna@example.com", deal.RoleAdmin}}
	})
	if _, err := w.finish(w.travel("/")); err != nil {
		t.Error(err)
	}
	w.mock.Say(map[string]any{"email": "anna@example.com"})
	ticket, q := w.travel("/")
	w.mustRefuse(ticket, q, "verified")
}

func TestAClientThatTheProviderDoesNotKnowIsTold(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *oidc.Provider) { o.Secret = func() (string, error) { return "wrong", nil } })
	ticket, q := w.travel("/")
	w.mustRefuse(ticket, q, "correct sign_in.client_id and client_secret")
}

func TestAProviderThatIsDownIsToldAndWorksAgainOnceItIsUp(t *testing.T) {
	for fault, why := range map[oidc.Fault]string{oidc.Down: "answers 503", oidc.Redirect: "answers 307", oidc.Garbage: "no discovery document", oidc.Huge: "more than 256 KiB",
		oidc.OtherName: "correct sign_in.issuer", oidc.Elsewhere: "does not begin with https://"} {
		w := newWorld(t)
		w.mock.Break(fault)
		_, _, err := w.page.Begin(t.Context(), "/")
		mustBeDown(t, err, why)
		w.mustHide(err, "", nil)
		_, err = w.page.Examine(t.Context())
		mustBeDown(t, err, why)
		w.mock.Break("")
		if _, err := w.finish(w.travel("/")); err != nil {
			t.Errorf("after %s: %v", fault, err)
		}
	}
}

func mustBeDown(t *testing.T, err error, why string) {
	t.Helper()
	var down *DownError
	if !errors.As(err, &down) || !strings.Contains(down.What, why) {
		t.Errorf("%v; want it down: %s", err, why)
	}
}

func TestAProviderThatGoesDownMeanwhileIsNoRefusal(t *testing.T) {
	for fault, why := range map[oidc.Fault]string{oidc.Down: "answers 503", oidc.Garbage: "none", oidc.Huge: "more than 256 KiB", oidc.NoKeys: "answers 503", oidc.Redirect: "307"} {
		w := newWorld(t)
		ticket, q := w.travel("/")
		w.mock.Break(fault)
		_, err := w.finish(ticket, q)
		mustBeDown(t, err, why)
		w.mustHide(err, ticket, q)
	}
}

func TestNobodyWaitsForAProviderForEver(t *testing.T) {
	w := newWorld(t)
	w.mock.Break(oidc.Hang)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error)
	for range mostAsking {
		go func() {
			_, _, err := w.page.Begin(ctx, "/")
			asked <- err
		}()
	}
	for len(w.page.places) < mostAsking {
		select {
		case err := <-asked:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	hasty, stop := context.WithCancel(t.Context())
	stop()
	_, _, err := w.page.Begin(hasty, "/")
	mustBeDown(t, err, "others wait")
	cancel()
	for range mostAsking {
		mustBeDown(t, <-asked, "canceled")
	}
}

func TestASecretThatCannotBeReadIsNoRefusal(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *oidc.Provider) {
		o.Secret = func() (string, error) { return "", errors.New("no such file") }
	})
	ticket, q := w.travel("/")
	_, err := w.finish(ticket, q)
	mustBeDown(t, err, "no such file")
}

func TestAProviderIsDiscoveredAnewAfterAWhile(t *testing.T) {
	w := newWorld(t)
	w.travel("/")
	w.now = w.now.Add(knownLasts)
	w.travel("/")
	if n := w.mock.Calls("/.well-known/openid-configuration"); n != 2 {
		t.Errorf("the provider was discovered %d times", n)
	}
}

func TestExaminingSaysWhatIsThere(t *testing.T) {
	w := newWorld(t)
	if r, err := w.page.Examine(t.Context()); err != nil || r != (Report{Keys: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	w.mock.Break(oidc.PlainOnly)
	if r, err := w.page.Examine(t.Context()); err != nil || !r.NoChallenge {
		t.Errorf("%+v, %v", r, err)
	}
	w.mock.Break(oidc.NoKeys)
	_, err := w.page.Examine(t.Context())
	mustBeDown(t, err, "/keys answers 503")
}

func TestPeopleAreCalledByWhatTheProviderVouchesFor(t *testing.T) {
	for _, c := range []struct {
		claims claims
		want   string
	}{
		{claims{"email": "anna@example.com", "email_verified": true}, "anna@example.com (oidc:7)"},
		{claims{"email": "anna@example.com", "email_verified": "true"}, "anna@example.com (oidc:7)"},
		{claims{"email": "Zoë@example.com", "email_verified": true}, "Zoë@example.com (oidc:7)"},
		{claims{"email": "anna@example.com"}, "oidc:7"},
		{claims{"email": "anna@example.com", "email_verified": false}, "oidc:7"},
		{claims{"email": "root (admin", "email_verified": true}, "oidc:7"},
		{claims{"email": "a\u202eb", "email_verified": true}, "oidc:7"},
		{claims{"email": "a\nb", "email_verified": true}, "oidc:7"},
		{claims{"email": " ", "email_verified": true}, "oidc:7"},
		{claims{"email": 7, "email_verified": true}, "oidc:7"},
		{claims{"email": strings.Repeat("a", 129), "email_verified": true}, "oidc:7"},
	} {
		if got := called(c.claims, "email", "7"); got != c.want {
			t.Errorf("%v: %q, want %q", c.claims, got, c.want)
		}
	}
	if got := called(claims{"preferred_username": "anna"}, "preferred_username", "7"); got != "anna (oidc:7)" {
		t.Error(got)
	}
}

func TestAClaimIsFoundByItsNameFirst(t *testing.T) {
	c := claims{"a.b": "name", "a": map[string]any{"b": "path", "c": []any{"x", 7, "y"}}, "https://example.com/roles": []any{}}
	for path, want := range map[string][]string{"a.b": {"name"}, "a.c": {"x", "y"}, "https://example.com/roles": {}, "a": nil, "a.d": nil, "b.c": nil, "": nil} {
		if got := c.list(path); !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestOnlyPagesOfOursAreGoneBackTo(t *testing.T) {
	for to, want := range map[string]string{"/": "/", "/deals": "/deals", "/deals/abc?q=x#y": "/deals/abc", "": "/", "deals": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example/": "/",
		"/%2f/x": "/", "///x": "/", "/a;url=x": "/", "/a\r\nb": "/", "javascript:x": "/", "/" + strings.Repeat("a", 300): "/", "/a b": "/a%20b"} {
		if got := safe(to); got != want {
			t.Errorf("%q leads to %q, want %q", to, got, want)
		}
	}
}

func FuzzWhatABrowserBrings(f *testing.F) {
	f.Add("/deals?q=x", "AAAA")
	f.Add("//evil.example", "")
	f.Add("/a\r\nSet-Cookie: x", "====")
	tickets := newTickets(time.Now)
	f.Fuzz(func(t *testing.T, to, ticket string) {
		if got := safe(to); got[0] != '/' || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\;\r\n ?#") || len(got) > 3*256 {
			t.Errorf("%q leads to %q", to, got)
		}
		if j, ok := tickets.open(ticket); ok {
			t.Errorf("%q is taken for %+v", ticket, j)
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"sub":"1","a":{"b":["x"]}}`), "a.b")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		var c claims
		if json.Unmarshal(text, &c) != nil {
			return
		}
		c.list(path)
		name := called(c, path, "7")
		if len(name) > 200 || strings.ContainsAny(name, "\r\n") || strings.Count(name, "(") > 1 {
			t.Errorf("%s makes %q", text, name)
		}
	})
}
