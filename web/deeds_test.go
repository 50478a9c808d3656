package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/role"
	"github.com/dealseal/dealseal/web/signin"
)

// doer takes down what people decide.
type doer struct {
	done []string
	err  error
}

func (d *doer) Decide(_ context.Context, verb string, tx deal.TxID, who, why string) error {
	if d.err == nil {
		d.done = append(d.done, fmt.Sprintf("%s %s by %s: %s", verb, tx, who, why))
	}
	return d.err
}

func (d *doer) Turn(_ context.Context, verb string, tenant deal.TenantID, who, why string) error {
	if d.err == nil {
		d.done = append(d.done, fmt.Sprintf("%s %s by %s: %s", verb, tenant, who, why))
	}
	return d.err
}

func (d *doer) DecideGuarded(_ context.Context, verb string, scope deal.GuardScope, who, why string) (int, error) {
	if d.err == nil {
		d.done = append(d.done, fmt.Sprintf("%s all of %s by %s: %s", verb, scope, who, why))
	}
	return 4000, d.err
}

func (d *doer) Redeliver(_ context.Context, delivery int64, who, why string) error {
	if delivery == 404 {
		return ErrNotFound
	}
	d.done = append(d.done, fmt.Sprintf("redeliver %d by %s: %s", delivery, who, why))
	return d.err
}

// as is the page with a session in a role.
func as(v *village, r deal.TokenRole, d Deeds) http.Handler {
	h, _, _ := open(v, func(o *Options) {
		o.Deeds, o.Hooks = d, office{}
		o.Sessions = NewSessions(o.Now)
	})
	m := h.(member)
	path, err := m.sessions.Invite("alice", r)
	if err != nil {
		panic(err)
	}
	_, token, _ := strings.Cut(path, "token=")
	m.secret, _, _ = m.sessions.redeem(token)
	return m
}

// send posts a form as a browser on our own page does.
func send(h http.Handler, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Host = "localhost:8484"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func in(v *village, c deal.Condition) *Deal {
	for _, d := range v.deals {
		if d.Sealing.Condition == c && d.Sealing.Step != deal.Done && !d.Erased {
			return d
		}
	}
	panic("the village has none that is " + c)
}

func TestAPersonDecidesAboutADealAndSaysWhy(t *testing.T) {
	v, did := settle(), &doer{}
	h := as(v, deal.RoleAdmin, did)
	held, dead := in(v, deal.Held), in(v, deal.Dead)
	for _, c := range []struct {
		d    *Deal
		verb string
	}{{held, "release"}, {dead, "retry"}, {dead, "drop"}} {
		page := get(h, path(c.d)).Body.String()
		checkOutline(t, page)
		if !strings.Contains(page, `name="verb" value="`+c.verb+`"`) || strings.Contains(page, "refresh.js") {
			t.Errorf("%s: there is no button for it, or the page takes what is being written", c.verb)
		}
		w := send(h, path(c.d)+"/decide", url.Values{"verb": {c.verb}, "why": {"  the PIN\nis right again "}})
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != path(c.d) {
			t.Errorf("%s: %d %s", c.verb, w.Code, w.Header().Get("Location"))
		}
		want := fmt.Sprintf("%s %s by alice: the PIN is right again", c.verb, c.d.Sealing.Tx)
		if len(did.done) == 0 || did.done[len(did.done)-1] != want {
			t.Errorf("%v, want %s", did.done, want)
		}
	}
	why := strings.Repeat("\u5951", maxWhy) // nine bytes of a form each
	if w := send(h, path(held)+"/decide", url.Values{"verb": {"release"}, "why": {why}}); w.Code != http.StatusSeeOther || !strings.HasSuffix(did.done[len(did.done)-1], why) {
		t.Errorf("the longest reason is answered with %d", w.Code)
	}
	if running := in(v, deal.Running); strings.Contains(get(h, path(running)).Body.String(), "/decide") {
		t.Error("a deal that is in the works can be decided about")
	}
	if w := send(h, "/webhooks/deliveries/7/redeliver", url.Values{"why": {"mended"}}); w.Code != http.StatusSeeOther || did.done[len(did.done)-1] != "redeliver 7 by alice: mended" {
		t.Errorf("%d %v", w.Code, did.done)
	}
}

func TestWhatIsNotDecidedChangesNothing(t *testing.T) {
	v, did := settle(), &doer{}
	h := as(v, deal.RoleAdmin, did)
	at := path(in(v, deal.Held)) + "/decide"
	good := url.Values{"verb": {"release"}, "why": {"x"}}
	for name, c := range map[string]struct {
		h      http.Handler
		path   string
		form   url.Values
		header []string
		status int
	}{
		"no reason":          {h, at, url.Values{"verb": {"release"}, "why": {" \n"}}, nil, http.StatusBadRequest},
		"a novel":            {h, at, url.Values{"verb": {"release"}, "why": {strings.Repeat("x", 501)}}, nil, http.StatusBadRequest},
		"no such verb":       {h, at, url.Values{"verb": {"seal"}, "why": {"x"}}, nil, http.StatusBadRequest},
		"too large":          {h, at, url.Values{"verb": {"release"}, "why": {"x"}, "z": {strings.Repeat("x", maxForm)}}, nil, http.StatusBadRequest},
		"no deal":            {h, "/deals/nonsense/decide", good, nil, http.StatusNotFound},
		"no delivery":        {h, "/webhooks/deliveries/404/redeliver", good, nil, http.StatusNotFound},
		"no number":          {h, "/webhooks/deliveries/x/redeliver", good, nil, http.StatusNotFound},
		"no session":         {stranger(h), at, good, nil, http.StatusForbidden},
		"another site":       {h, at, good, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		"another port":       {h, at, good, []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		"an older browser":   {h, at, good, []string{"Sec-Fetch-Site", "", "Origin", "https://evil.example"}, http.StatusForbidden},
		"nobody may change":  {as(v, deal.RoleAuditor, did), at, good, nil, http.StatusForbidden},
		"refused by the law": {as(v, deal.RoleAdmin, &doer{err: &RefusedError{"it is done"}}), at, good, nil, http.StatusConflict},
	} {
		w := send(c.h, c.path, c.form, c.header...)
		if w.Code != c.status {
			t.Errorf("%s: %d, want %d\n%s", name, w.Code, c.status, w.Body)
		}
	}
	if len(did.done) != 0 {
		t.Errorf("it did %v", did.done)
	}
	if w := send(as(v, deal.RoleAdmin, &doer{err: &RefusedError{"it is <done>"}}), at, good); !strings.Contains(w.Body.String(), "it is &lt;done&gt;") {
		t.Error("why it was refused is not said")
	}
}

func TestATenantIsPausedAndGoesOn(t *testing.T) {
	v, did := settle(), &doer{}
	h := as(v, deal.RoleAdmin, did)
	tenant := &v.tenants[0]
	at := "/tenants/" + string(tenant.ID)
	for _, verb := range []string{"pause", "resume"} {
		page := get(h, at).Body.String()
		if text := checkOutline(t, page).text; !strings.Contains(text, "sent to the tenant’s webhooks") {
			t.Errorf("%s: it is not said who is told the reason: %s", verb, text)
		}
		if !strings.Contains(page, `value="`+verb+`"`) || strings.Contains(page, "is paused since") != (verb == "resume") {
			t.Errorf("%s: the page is %s", verb, page)
		}
		status := get(h, "/").Body.String()
		checkOutline(t, status)
		if strings.Contains(status, "1 tenant is paused") != (verb == "resume") || strings.Contains(status, "a &lt;wrong&gt; template") != (verb == "resume") {
			t.Errorf("%s: the status page does not say how it is", verb)
		}
		w := send(h, at+"/turn", url.Values{"verb": {verb}, "why": {"x"}})
		if want := fmt.Sprintf("%s %s by alice: x", verb, tenant.ID); w.Code != http.StatusSeeOther || w.Header().Get("Location") != at || did.done[len(did.done)-1] != want {
			t.Errorf("%d %s %v, want %s", w.Code, w.Header().Get("Location"), did.done, want)
		}
		tenant.Paused = &deal.Pause{Tenant: tenant.ID, Since: v.deals[0].Sealing.Noticed, Who: "anna", Why: "a <wrong> template"}
	}
	n := len(did.done)
	for path, form := range map[string]url.Values{"/tenants/nobody/turn": {"verb": {"pause"}, "why": {"x"}}, at + "/turn": {"verb": {"stop"}, "why": {"x"}}} {
		if w := send(h, path, form); w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest || len(did.done) != n {
			t.Errorf("%s with %v: %d %v", path, form, w.Code, did.done)
		}
	}
	if w := send(stranger(h), at+"/turn", url.Values{"verb": {"pause"}, "why": {"x"}}); w.Code != http.StatusForbidden || len(did.done) != n {
		t.Errorf("a stranger: %d", w.Code)
	}
	if w := send(h, at+"/turn", url.Values{"verb": {"pause"}, "why": {"x"}}, "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden || len(did.done) != n {
		t.Errorf("another site: %d", w.Code)
	}
}

func TestAPersonDecidesAboutAllThatTheGuardHolds(t *testing.T) {
	v, did := settle(), &doer{}
	v.guards = []deal.GuardHold{
		{GuardScope: deal.GuardScope{Tenant: "acme"}, Cause: "more than 500 deals in an hour", Since: noon, Held: 4000},
		{GuardScope: deal.GuardScope{Tenant: "acme", Rule: "order-form"}, Cause: "more than 50 deals <at once>", Since: noon.Add(-time.Hour), Held: 3990},
	}
	h := as(v, deal.RoleOperator, did)
	status := get(h, "/").Body.String()
	for i, g := range v.guards {
		at := viewGuard(g, noon).Path
		if !strings.Contains(status, `href="`+at+`"`) {
			t.Errorf("the status page does not lead to %s", at)
		}
		page := get(h, at).Body.String()
		checkOutline(t, page)
		for _, verb := range []string{"release", "drop"} {
			form := url.Values{"verb": {verb}, "why": {"a slip of the\nloader"}, "episode": {episode(g)}}
			if !strings.Contains(page, `name="verb" value="`+verb+`"`) || !strings.Contains(page, `name="episode" value="`+episode(g)+`"`) {
				t.Errorf("%s: the page has no form for %s", at, verb)
			}
			w := send(h, at, form)
			want := fmt.Sprintf("%s all of %s by alice: a slip of the loader", verb, g.GuardScope)
			if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" || len(did.done) == 0 || did.done[len(did.done)-1] != want {
				t.Errorf("%d to %q, %v, want %s", w.Code, w.Header().Get("Location"), did.done, want)
			}
		}
		n, good := len(did.done), url.Values{"verb": {"release"}, "why": {"x"}, "episode": {episode(g)}}
		for name, c := range map[string]struct {
			h      http.Handler
			path   string
			form   url.Values
			status int
		}{
			"what it has begun to hold since": {h, at, url.Values{"verb": {"release"}, "why": {"x"}, "episode": {episode(v.guards[1-i])}}, http.StatusConflict},
			"no such verb":                    {h, at, url.Values{"verb": {"retry"}, "why": {"x"}, "episode": {episode(g)}}, http.StatusBadRequest},
			"no reason":                       {h, at, url.Values{"verb": {"drop"}, "episode": {episode(g)}}, http.StatusBadRequest},
			"what it does not hold":           {h, "/guard/acme/nda", good, http.StatusNotFound},
			"a role that only looks":          {as(v, deal.RoleViewer, did), at, good, http.StatusForbidden},
			"a stranger":                      {stranger(h), at, good, http.StatusForbidden},
		} {
			if w := send(c.h, c.path, c.form); w.Code != c.status || len(did.done) != n {
				t.Errorf("%s: %d, want %d; %v", name, w.Code, c.status, did.done[n:])
			}
		}
		if looks := get(as(v, deal.RoleViewer, did), at); looks.Code != http.StatusOK || strings.Contains(looks.Body.String(), "<form class=\"deed\"") {
			t.Errorf("a viewer: %d, or there is a form", looks.Code)
		}
	}
}

// TestEveryDoorIsOpenToThoseWhomItIsFor asks at every door, as every role and as a stranger. roles are those who are meant to come
// in, not what the code has it: a door that is not here fails the test.
func TestEveryDoorIsOpenToThoseWhomItIsFor(t *testing.T) {
	const (
		everybody = "stranger viewer operator signer-admin auditor admin"
		readers   = "viewer operator signer-admin auditor admin"
		contracts = "signer-admin auditor admin"
		deciders  = "operator signer-admin admin"
	)
	v := settle()
	v.guards = []deal.GuardHold{{GuardScope: deal.GuardScope{Tenant: "acme"}, Cause: "because", Since: noon, Held: 2}, {GuardScope: deal.GuardScope{Tenant: "acme", Rule: "order-form"}, Cause: "because", Since: noon, Held: 2}}
	held := path(in(v, deal.Held))
	doors := map[string]struct {
		path  string
		form  url.Values // beside the reason
		roles string
	}{
		"GET /{$}":           {"/", nil, everybody},
		"GET /login":         {"/login?token=x", nil, everybody},
		"POST /login":        {"/login", nil, everybody},
		"POST /logout":       {"/logout", nil, everybody},
		"GET /":              {"/nowhere", nil, everybody},
		"GET /assets/{file}": {"/assets/style.css", nil, everybody},
		"GET /healthz":       {"/healthz", nil, everybody},
		"GET /readyz":        {"/readyz", nil, everybody},
		"GET /metrics":       {"/metrics", nil, everybody},
		"GET /sign-in":       {"", nil, everybody}, // see TestAPersonSignsInAtTheProviderAndHasItsRole
		"GET " + signin.Back: {"", nil, everybody},
		"GET /logged-out":    {"", nil, everybody},

		"GET /deals":                      {"/deals", nil, readers},
		"GET /deals/{tx}":                 {held, nil, readers},
		"GET /tenants/{tenant}":           {"/tenants/" + string(v.tenants[0].ID), nil, readers},
		"GET /guard/{tenant}":             {"/guard/acme", nil, readers},
		"GET /guard/{tenant}/{rule}":      {"/guard/acme/order-form", nil, readers},
		"GET /webhooks":                   {"/webhooks", nil, readers},
		"GET /webhooks/deliveries/{id}":   {"/webhooks/deliveries/2", nil, readers},
		"GET /deals/{tx}/fields":          {held + "/fields", nil, contracts},
		"GET /deals/{tx}/files/{name...}": {held + "/files/contract.pdf", nil, contracts},
		"GET /deals/{tx}/proof":           {held + "/proof", nil, "auditor admin"},

		"POST /tenants/{tenant}/turn":              {"/tenants/" + string(v.tenants[0].ID) + "/turn", url.Values{"verb": {"pause"}}, deciders},
		"POST /guard/{tenant}":                     {"/guard/acme", url.Values{"verb": {"release"}, "episode": {episode(v.guards[0])}}, deciders},
		"POST /guard/{tenant}/{rule}":              {"/guard/acme/order-form", url.Values{"verb": {"drop"}, "episode": {episode(v.guards[1])}}, deciders},
		"POST /deals/{tx}/decide":                  {held + "/decide", url.Values{"verb": {"release"}}, deciders},
		"POST /deals/{tx}/decide prepare":          {held + "/decide", url.Values{"verb": {"prepare"}}, "signer-admin admin"},
		"POST /webhooks/deliveries/{id}/redeliver": {"/webhooks/deliveries/7/redeliver", nil, "operator admin"},
	}
	s := &server{Options: Options{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), SignIn: &signin.Provider{}, Hooks: office{}, Deeds: &doer{}}}
	known := map[string]bool{"POST /deals/{tx}/decide prepare": true} // behind the one above
	for _, d := range s.doors() {
		known[d.pattern] = true
		if _, is := doors[d.pattern]; !is {
			t.Errorf("%s is in no test", d.pattern)
		}
	}
	for pattern, d := range doors {
		if !known[pattern] {
			t.Errorf("%s is not there any more", pattern)
		}
		for _, r := range strings.Fields(everybody) {
			if d.path == "" {
				continue
			}
			did := &doer{}
			h := as(v, deal.RoleAdmin, did)
			if r == "stranger" {
				h = stranger(h)
			} else {
				h = as(v, deal.TokenRole(r), did)
			}
			var w *httptest.ResponseRecorder
			if method, _, _ := strings.Cut(pattern, " "); method == http.MethodPost {
				form := url.Values{"why": {"x"}}
				for name, value := range d.form {
					form[name] = value
				}
				w = send(h, d.path, form)
			} else {
				w = get(h, d.path)
			}
			may := slices.Contains(strings.Fields(d.roles), r)
			turnedAway := w.Code == http.StatusForbidden && (strings.Contains(w.Body.String(), "Log in to see this") || strings.Contains(w.Body.String(), "Your role may not do this"))
			if turnedAway == may || w.Code >= 500 || !may && len(did.done) > 0 {
				t.Errorf("%s as %s: %d, %v", pattern, r, w.Code, did.done)
			}
			if deed := d.form != nil || strings.HasSuffix(pattern, "redeliver"); may && deed && len(did.done) != 1 {
				t.Errorf("%s as %s: %d, and nothing is done: %v", pattern, r, w.Code, did.done)
			}
		}
	}
	for _, r := range deal.TokenRoles {
		if !slices.Contains(strings.Fields(readers), string(r)) {
			t.Errorf("role %s is in no test", r)
		}
		if shows := strings.Contains(get(as(v, r, &doer{}), held).Body.String(), `value="release"`); shows != slices.Contains(strings.Fields(deciders), string(r)) {
			t.Errorf("%s: the button is shown: %t", r, shows)
		}
	}
	if _, err := NewSessions(nil).Invite("alice", "root"); err == nil {
		t.Error("a role that there is not lets in")
	}
}

func TestWhoDecidesIsSaidToEachRole(t *testing.T) {
	v := settle()
	held := in(v, deal.Held)
	for _, r := range deal.TokenRoles {
		for name, p := range map[string]string{"status": "/", "deal": path(held)} {
			text := checkOutline(t, get(as(v, r, &doer{}), p).Body.String()).text
			here := strings.Contains(text, "decide there, or give") || strings.Contains(text, "decide below, or give")
			others := strings.Contains(text, "Your role, "+string(r)+", decides nothing: once the cause is mended, somebody who is operator, signer-admin or admin decides on the deal’s page")
			if may := role.May(r, role.Decide); here != may || others == may {
				t.Errorf("%s, %s: here %t, others %t", name, r, here, others)
			}
		}
	}
	h, _, _ := open(v)
	if text := checkOutline(t, get(h, "/").Body.String()).text; !strings.Contains(text, "Mend the cause, then give the command on the daemon’s machine.") {
		t.Error("where nobody decides on the pages, another way is told")
	}
}
