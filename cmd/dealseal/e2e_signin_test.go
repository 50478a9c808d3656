package main

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/mocks/oidc"
	"github.com/dealseal/dealseal/web/signin"
)

const signInSecret = "of-the-client-91ce"

// signInLines configure a provider that a page at an address uses.
func signInLines(t *testing.T, mock *oidc.Provider, page string) string {
	t.Helper()
	provider := httptest.NewServer(mock)
	t.Cleanup(provider.Close)
	mock.Issuer, mock.ClientID, mock.ClientSecret, mock.RedirectURI = provider.URL, "dealseal", signInSecret, page+signin.Back
	file := filepath.Join(t.TempDir(), "sign-in")
	must(t, os.WriteFile(file, []byte(signInSecret+"\n"), 0o600))
	return fmt.Sprintf(`sign_in:
  page: %s
  issuer: %s
  client_id: dealseal
  client_secret: file:%s
  claim: realm_access.roles
  roles: [{value: seals, role: operator}]
  lasts: 1h
`, page, provider.URL, file)
}

// TestAPersonSignsInAtTheProviderAndDecides has a proxy before the page, as it is over a network.
func TestAPersonSignsInAtTheProviderAndDecides(t *testing.T) {
	t.Parallel()
	var d *process
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		to, err := url.Parse(d.page())
		if err != nil {
			panic(err) // the log line has no address
		}
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(proxy.Close)
	mock := &oidc.Provider{}
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}, house: signInLines(t, mock, proxy.URL)})
	mock.Say(map[string]any{"realm_access": map[string]any{"roles": []string{"seals"}}, "email": "anna@example.com", "email_verified": true})
	d = w.start(t)
	record := w.crms[0].open(sale{nobody: true})
	w.crms[0].move(record, ruleContract)
	tx := awaitHeld(t, w.control(t, w.stateDir), record, 1, `"customer"`).Sealing.Tx
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := &http.Client{Jar: jar}
	if gate := fetch(t, browser, proxy.URL, http.StatusOK); !strings.Contains(gate, proxy.URL+"/sign-in") {
		t.Errorf("the gate does not lead to the provider:\n%s", gate)
	}
	if page := fetch(t, browser, proxy.URL+"/sign-in", http.StatusOK); !strings.Contains(page, "Signed in as anna@example.com (oidc:24400320)") {
		t.Fatalf("%s\n%s", page, d.log())
	}
	if page := fetch(t, browser, proxy.URL+"/deals/"+string(tx), http.StatusOK); !strings.Contains(page, "Decide here") {
		t.Errorf("an operator cannot decide:\n%s", page)
	}
	resp, err := browser.PostForm(proxy.URL+"/deals/"+string(tx)+"/decide", url.Values{"verb": {"drop"}, "why": {"not wanted any more"}})
	must(t, err)
	resp.Body.Close()
	if stdout, stderr, code := w.run(t, "explain", string(tx)); code != exitOK || !strings.Contains(stdout, "anna@example.com (oidc:24400320)") {
		t.Errorf("the audit log does not say who has dropped it: %s%s", stdout, stderr)
	}
	if stdout, _, _ := w.run(t, "admin", "sessions"); !strings.Contains(stdout, "anna@example.com (oidc:24400320)") || !strings.Contains(stdout, "operator") {
		t.Errorf("the session is listed as\n%s", stdout)
	}
	mock.Break(oidc.Down)
	fetch(t, http.DefaultClient, proxy.URL+"/sign-in", http.StatusServiceUnavailable)
	d.get(t, "/readyz") // stays ready
	d.logIn(t)
	for _, secret := range []string{oidc.Canary, signInSecret, "eyJ"} {
		if strings.Contains(d.log(), secret) {
			t.Errorf("the log tells %q:\n%s", secret, d.log())
		}
	}
	d.stop(t)
}

func TestTheProviderOfSignInIsExamined(t *testing.T) {
	t.Parallel()
	mock := &oidc.Provider{}
	p := newPatient(t, deal.Salesforce, nil)
	text, err := os.ReadFile(p.path("dealseal.yaml"))
	must(t, err)
	lines := signInLines(t, mock, "http://localhost:8484")
	p.write("dealseal.yaml", append(text, lines...))
	if found := p.examine(); len(trouble(found)) > 0 {
		t.Errorf("%+v", trouble(found))
	} else if !strings.Contains(fmt.Sprint(found), "it answers, with 1 key") {
		t.Errorf("it was not asked: %+v", found)
	}
	for fault, words := range map[oidc.Fault]string{oidc.Down: "answers 503", oidc.PlainOnly: "have the provider take S256", oidc.OtherName: "correct sign_in.issuer"} {
		mock.Break(fault)
		oneTrouble(t, p.examine(), checkSignIn, mock.Issuer, doctor.Warning, words)
	}
	mock.Break("")
	p.write("dealseal.yaml", append(text, strings.Replace(lines, "role: operator", "role: opertor", 1)...))
	h, err := loadHouse(p.path("dealseal.yaml"))
	must(t, err)
	if _, err := h.signIn(); err == nil || !strings.Contains(err.Error(), `sign_in.roles.0: there is no role "opertor"`) || !strings.Contains(err.Error(), "dealseal.yaml:") {
		t.Errorf("%v", err)
	}
}
