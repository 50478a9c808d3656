package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/role"
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

// TestEveryRoleSeesAndDoesWhatTheTableSays goes through all of them.
func TestEveryRoleSeesAndDoesWhatTheTableSays(t *testing.T) {
	v := settle()
	v.guards = []deal.GuardHold{{GuardScope: deal.GuardScope{Tenant: "acme"}, Cause: "because", Since: noon, Held: 2}}
	held := in(v, deal.Held)
	for _, r := range deal.TokenRoles {
		did := &doer{}
		h := as(v, r, did)
		for _, c := range []struct {
			needs role.Permission
			ask   func() *httptest.ResponseRecorder
			good  int
		}{
			{role.See, func() *httptest.ResponseRecorder { return get(h, "/deals") }, http.StatusOK},
			{role.Contracts, func() *httptest.ResponseRecorder { return get(h, path(held)+"/fields") }, http.StatusOK},
			{role.Audit, func() *httptest.ResponseRecorder { return get(h, path(held)+"/proof") }, http.StatusOK},
			{role.Decide, func() *httptest.ResponseRecorder {
				return send(h, path(held)+"/decide", url.Values{"verb": {"release"}, "why": {"x"}})
			}, http.StatusSeeOther},
			{role.Prepare, func() *httptest.ResponseRecorder {
				return send(h, path(held)+"/decide", url.Values{"verb": {"prepare"}, "why": {"x"}})
			}, http.StatusSeeOther},
			{role.Pause, func() *httptest.ResponseRecorder {
				return send(h, "/tenants/"+string(v.tenants[0].ID)+"/turn", url.Values{"verb": {"pause"}, "why": {"x"}})
			}, http.StatusSeeOther},
			{role.Decide, func() *httptest.ResponseRecorder {
				return send(h, "/guard/acme", url.Values{"verb": {"release"}, "why": {"x"}, "episode": {episode(v.guards[0])}})
			}, http.StatusSeeOther},
			{role.TryHooks, func() *httptest.ResponseRecorder {
				return send(h, "/webhooks/deliveries/7/redeliver", url.Values{"why": {"x"}})
			}, http.StatusSeeOther},
		} {
			want := http.StatusForbidden
			if role.May(r, c.needs) {
				want = c.good
			}
			if w := c.ask(); w.Code != want {
				t.Errorf("%s, %s: %d, want %d", r, c.needs, w.Code, want)
			}
		}
		if shows := strings.Contains(get(h, path(held)).Body.String(), `value="release"`); shows != role.May(r, role.Decide) {
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
