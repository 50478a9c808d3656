package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

// post sends a form; header is as in ask.
func post(h http.Handler, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Host = "localhost:8484"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// clockwork is a clock that is moved by hand.
type clockwork struct{ now time.Time }

func (c *clockwork) Now() time.Time { return c.now }

func TestWithoutASessionOnlyHealthIsShown(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	d := path(v.deals[len(v.deals)-1])
	for p, code := range map[string]int{"/": 200, "/healthz": 200, "/readyz": 200, "/metrics": 200, "/assets/style.css": 200, "/login?token=x": 403,
		"/deals": 403, "/deals?q=x": 403, d: 403, d + "/fields": 403, d + "/files/contract.pdf": 403, d + "/proof": 403, "/deals/abc": 403} {
		w := get(stranger(h), p)
		if w.Code != code {
			t.Errorf("%s: %d, want %d", p, w.Code, code)
		}
		for _, secret := range []string{"Acme", "Nordwind", "0065g", "contract.pdf", string(v.deals[0].Sealing.Tx)} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s tells a stranger %q", p, secret)
			}
		}
		if code == 403 && !strings.Contains(w.Body.String(), loginCommand) {
			t.Errorf("%s does not say how to log in", p)
		}
	}
	if len(v.witnessed) > 0 || len(v.asked) > 0 {
		t.Errorf("a stranger has made the House look: %v %v", v.witnessed, v.asked)
	}
}

func TestTheStartPageOfStrangersSaysWhetherTheDaemonIsWell(t *testing.T) {
	well, _, _ := open(settle())
	if page := checkOutline(t, get(stranger(well), "/").Body.String()); !strings.Contains(page.text, "dealseal is healthy") {
		t.Error(page.text)
	}
	ill, _, _ := open(settle(), func(o *Options) {
		o.Checks = []Check{{Name: "disk", Run: func(context.Context) error { return fmt.Errorf("12 MiB are free") }}}
	})
	if page := checkOutline(t, get(stranger(ill), "/").Body.String()); !strings.Contains(page.text, "dealseal is not ready") || !strings.Contains(page.text, "12 MiB are free") {
		t.Error(page.text)
	}
	if page := checkOutline(t, get(ill, "/").Body.String()); !strings.Contains(page.text, "12 MiB are free") {
		t.Errorf("readers are not told:\n%s", page.text)
	}
}

func TestALinkLogsInOnceAndLookingAtItDoesNotUseItUp(t *testing.T) {
	h, _, log := open(settle())
	link := invite(h.(member).sessions)
	for range 3 {
		page := checkOutline(t, get(stranger(h), link).Body.String())
		if !strings.Contains(page.text, "Log in as alice") {
			t.Fatal(page.text)
		}
	}
	_, token, _ := strings.Cut(link, "token=")
	w := post(stranger(h), "/login", url.Values{"token": {token}}, "Sec-Fetch-Site", "same-origin")
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Fatalf("%d to %s", w.Code, w.Header().Get("Location"))
	}
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure || c.Path != "/" || c.MaxAge != 12*60*60 || c.Value == token {
		t.Errorf("%+v", c)
	}
	for _, w := range []*httptest.ResponseRecorder{post(stranger(h), "/login", url.Values{"token": {token}}), get(stranger(h), link)} {
		if w.Code != http.StatusForbidden || len(w.Result().Cookies()) > 0 {
			t.Errorf("used again: %d %v", w.Code, w.Result().Cookies())
		}
	}
	if w := get(stranger(h), "/deals", "Cookie", c.Name+"="+c.Value); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "alice") {
		t.Errorf("with the session: %d", w.Code)
	}
	if strings.Contains(log.String(), token) || strings.Contains(log.String(), c.Value) || !strings.Contains(log.String(), "who=alice") {
		t.Errorf("log: %s", log)
	}
}

func TestTheCookieIsForHTTPSOnlyWhereTheBrowserSpeaksIt(t *testing.T) {
	h, _, _ := open(settle())
	_, token, _ := strings.Cut(invite(h.(member).sessions), "token=")
	w := post(stranger(h), "/login", url.Values{"token": {token}}, "X-Forwarded-Proto", "https")
	c := w.Result().Cookies()
	if len(c) != 1 || !c[0].Secure || c[0].Name != "__Host-dealseal_session" || c[0].Path != "/" || c[0].Domain != "" {
		t.Fatalf("%v", c)
	}
	if w := get(stranger(h), "/deals", "X-Forwarded-Proto", "https", "Cookie", c[0].Name+"="+c[0].Value); w.Code != http.StatusOK {
		t.Errorf("with the cookie: %d", w.Code)
	}
	// Any host below the same name could have set one of another name.
	if w := get(stranger(h), "/deals", "X-Forwarded-Proto", "https", "Cookie", cookieName+"="+c[0].Value); w.Code != http.StatusForbidden {
		t.Errorf("with a cookie that a sibling can plant: %d", w.Code)
	}
}

func TestNoOtherSiteLogsAnyoneInOrOut(t *testing.T) {
	h, _, _ := open(settle())
	_, token, _ := strings.Cut(invite(h.(member).sessions), "token=")
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "none"},
		{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", "http://localhost:9"}} {
		for _, p := range []string{"/login", "/logout"} {
			if w := post(h, p, url.Values{"token": {token}}, header...); w.Code != http.StatusForbidden || len(w.Result().Cookies()) > 0 {
				t.Errorf("%s %v: %d", p, header, w.Code)
			}
		}
	}
	if w := post(stranger(h), "/login", url.Values{"token": {token}}, "Origin", "http://localhost:8484"); w.Code != http.StatusSeeOther {
		t.Errorf("our own page: %d", w.Code)
	}
}

// TestALinkCountsBesideACookieOfTheProvider: behind a proxy that does not say that it was opened by https, a browser sends both.
func TestALinkCountsBesideACookieOfTheProvider(t *testing.T) {
	h, _, _ := open(settle())
	sessions := h.(member).sessions
	secret, _ := sessions.begin("bob", deal.RoleViewer, time.Hour)
	for what, kept := range map[string]string{"of a session that goes on": secret, "of one that is over": "over"} {
		_, token, _ := strings.Cut(invite(sessions), "token=")
		w := post(stranger(h), "/login", url.Values{"token": {token}}, "Cookie", hostOnly+cookieName+"="+kept)
		c := w.Result().Cookies()
		if len(c) != 1 || c[0].Name != cookieName {
			t.Fatalf("%s: %v", what, c)
		}
		page := get(stranger(h), "/", "Cookie", hostOnly+cookieName+"="+kept+"; "+cookieName+"="+c[0].Value).Body.String()
		if !strings.Contains(page, "alice") || strings.Contains(page, "bob") {
			t.Errorf("beside a cookie %s a link lets nobody in, or somebody else", what)
		}
	}
}

func TestAPersonWhoLogsOutIsAStranger(t *testing.T) {
	h, _, _ := open(settle())
	if w := get(h, "/deals"); w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	w := post(h, "/logout", nil, "Sec-Fetch-Site", "same-origin")
	if c := w.Result().Cookies(); w.Code != http.StatusSeeOther || len(c) != 2 || c[0].MaxAge >= 0 || c[1].MaxAge >= 0 {
		t.Errorf("%d %v", w.Code, c)
	}
	if w := get(h, "/deals"); w.Code != http.StatusForbidden {
		t.Errorf("afterwards: %d", w.Code)
	}
}

func TestSessionsEndByThemselves(t *testing.T) {
	for name, c := range map[string]struct {
		step  time.Duration
		steps int
		poll  bool
		open  bool
	}{
		"used now and then":        {time.Hour, 11, false, true},
		"twelve hours":             {time.Hour, 12, false, false},
		"two idle hours":           {2 * time.Hour, 1, false, false},
		"almost two idle hours":    {2*time.Hour - time.Second, 1, false, true},
		"left open in the browser": {time.Minute, 120, true, false},
	} {
		clock := &clockwork{noon}
		s := NewSessions(clock.Now)
		_, token, _ := strings.Cut(invite(s), "token=")
		secret, _, _ := s.redeem(token)
		ok := true
		for range c.steps {
			clock.now = clock.now.Add(c.step)
			_, ok = s.find(secret, !c.poll)
		}
		if ok != c.open {
			t.Errorf("%s: open is %v", name, ok)
		}
	}
}

func TestAPageThatKeepsItselfCurrentIsNoUse(t *testing.T) {
	clock := &clockwork{noon}
	h, _, _ := open(settle(), func(o *Options) { o.Sessions = NewSessions(clock.Now) })
	seen := func() time.Time { return h.(member).sessions.List()[0].Seen }
	clock.now = noon.Add(time.Hour)
	if get(h, "/", refreshHeader, "1"); !seen().Equal(noon) {
		t.Error("the page's own refreshing counts as use")
	}
	if get(h, "/"); !seen().Equal(clock.now) {
		t.Error("opening the page does not count as use")
	}
}

func TestLinksLastFiveMinutes(t *testing.T) {
	clock := &clockwork{noon}
	s := NewSessions(clock.Now)
	_, token, _ := strings.Cut(invite(s), "token=")
	clock.now = noon.Add(inviteLasts - time.Second)
	if _, ok := s.invited(token); !ok {
		t.Error("it ends too early")
	}
	clock.now = noon.Add(inviteLasts)
	if _, _, ok := s.redeem(token); ok {
		t.Error("it lasts too long")
	}
	if _, err := s.Invite("", deal.RoleAdmin); err == nil {
		t.Error("nobody was invited")
	}
}

func TestSessionsAreFewAndListed(t *testing.T) {
	clock := &clockwork{noon}
	s := NewSessions(clock.Now)
	var secrets []string
	for range maxSessions + 3 {
		clock.now = clock.now.Add(time.Second)
		_, token, _ := strings.Cut(invite(s), "token=")
		secret, _, _ := s.redeem(token)
		secrets = append(secrets, secret)
	}
	for range maxInvites + 3 {
		invite(s)
	}
	if list := s.List(); len(list) != maxSessions || len(s.invites) != maxInvites || list[0].Until.Sub(list[0].Seen) != idleLasts {
		t.Errorf("%d sessions, %d invitations", len(list), len(s.invites))
	}
	if _, ok := s.find(secrets[2], true); ok {
		t.Error("the oldest did not make room")
	}
	for _, x := range s.List() {
		if strings.Contains(strings.Join(secrets, " "), x.ID) {
			t.Error("an ID is part of a secret")
		}
	}
	if n := s.EndAll(); n != maxSessions || len(s.List()) != 0 || len(s.invites) != 0 {
		t.Errorf("%d ended", n)
	}
}

func TestWhoFollowsALinkOfAnotherSiteCanOpenThePageAgain(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	p := path(v.deals[0]) + "?x=1"
	w := get(stranger(h), p, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `href="`+p+`"`) {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
}

func TestFieldsAreShownOnRequestAndWhoAsksIsWrittenDown(t *testing.T) {
	v := settle()
	d := v.deals[len(v.deals)-1]
	d.Sealing.Private.Document = []byte(`{"lines":[{"name":"A","amount":12.50},{"name":"B & <C>"}],"empty":null,"seller":{"name":"` + canary + `"}}`)
	h, _, _ := open(v)
	page := checkOutline(t, get(h, path(d)+"/fields").Body.String())
	for _, text := range []string{"lines.1.amount 12.50", "lines.2.name B & <C>", "empty blank", "seller.name " + canary, "alice has opened", canary + ".pdf"} {
		if !strings.Contains(page.text, text) {
			t.Errorf("%q is not on the page: %s", text, page.text)
		}
	}
	if diff := cmp.Diff([]string{"alice viewed " + string(d.Sealing.Tx)}, v.witnessed); diff != "" {
		t.Error(diff)
	}
	v.err = fmt.Errorf("the audit log cannot be written")
	if w := get(h, path(d)+"/fields"); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), canary) {
		t.Errorf("unwitnessed: %d", w.Code)
	}
	v.err, d.Erased = nil, true
	if w := get(h, path(d)+"/fields"); w.Code != http.StatusGone {
		t.Errorf("erased: %d", w.Code)
	}
}

func TestFilesAreSentAsAttachmentsUnderTheirNames(t *testing.T) {
	v := settle()
	d := v.deals[len(v.deals)-1]
	h, _, log := open(v)
	w := get(h, path(d)+"/files/contract.pdf")
	body, err := io.ReadAll(w.Body)
	if w.Code != http.StatusOK || err != nil || string(body) != "%PDF "+canary {
		t.Fatalf("%d %q %v", w.Code, body, err)
	}
	for name, want := range map[string]string{"Content-Type": "application/pdf", "X-Content-Type-Options": "nosniff", "Content-Length": fmt.Sprint(len(body)), "Cache-Control": "no-store",
		"Content-Security-Policy": "default-src 'none'; sandbox",
		"Content-Disposition":     `attachment; filename="Zofia Canary-____.pdf"; filename*=UTF-8''Zofia%20Canary-%C5%BB%C3%B3%C5%82%C4%87.pdf`} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if diff := cmp.Diff([]string{"alice downloaded contract.pdf"}, v.witnessed); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(log.String(), "Zofia") {
		t.Errorf("log: %s", log)
	}
	w = get(h, path(d)+"/proof")
	if w.Header().Get("Content-Type") != "application/json" || !strings.Contains(w.Header().Get("Content-Disposition"), string(d.Sealing.Tx)+" audit proof.json") {
		t.Errorf("proof: %v", w.Header())
	}
	for _, p := range []string{"/files/other", "/files/evidence/../contract.pdf", "/files/", "/files/..%2f..%2fmanifest.json"} {
		if w := get(h, path(d)+p); w.Code == http.StatusOK {
			t.Errorf("%s is sent", p)
		}
	}
}

func TestNamesOfFilesDoNotBreakTheHeader(t *testing.T) {
	for name, want := range map[string]string{
		"plain.pdf":          `attachment; filename="plain.pdf"; filename*=UTF-8''plain.pdf`,
		"a\"; x=\"b\r\nc\\%": `attachment; filename="a_; x=_b__c__"; filename*=UTF-8''a%22%3B%20x%3D%22b%0D%0Ac%5C%25`,
		"日本.pdf":             `attachment; filename="__.pdf"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.pdf`,
	} {
		if got := Disposition(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func FuzzFlatten(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}],"c":"x"}`))
	f.Add([]byte(`[[[[[1]]]]]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		hostile.Budget(t)
		if list, err := flatten(text); err == nil && len(list) > maxFields {
			t.Errorf("%d fields", len(list))
		}
	})
}
