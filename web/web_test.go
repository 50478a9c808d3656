package web

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/deal"
)

// member is a browser with a session.
type member struct {
	http.Handler
	sessions *Sessions
	secret   string
}

func (m member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.AddCookie(&http.Cookie{Name: cookieName, Value: m.secret})
	m.Handler.ServeHTTP(w, r)
}

// stranger is the same browser without the session.
func stranger(h http.Handler) http.Handler { return h.(member).Handler }

// open returns the handler over a village, with the session of alice, its metrics, and what it logs.
func open(v *village, change ...func(*Options)) (http.Handler, *Metrics, *bytes.Buffer) {
	var log bytes.Buffer
	clock := func() time.Time { return noon }
	m := NewMetrics(v, v, "v1.2.3", clock)
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	o := Options{House: v, Metrics: reg, Version: "v1.2.3", Now: clock, Log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, f := range change {
		f(&o)
	}
	if o.Sessions == nil {
		o.Sessions = NewSessions(o.Now)
	}
	_, token, _ := strings.Cut(invite(o.Sessions), "token=")
	secret, _, _ := o.Sessions.redeem(token)
	return member{New(o), o.Sessions, secret}, m, &log
}

func invite(s *Sessions) string {
	path, err := s.Invite("alice", deal.RoleAdmin)
	if err != nil {
		panic(err)
	}
	return path
}

func get(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	return ask(h, http.MethodGet, path, header...)
}

// ask sends a request; header is name, value, ...; the name Host sets the host.
func ask(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "localhost:8484"
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// shape is what a reader who does not see relies on.
type shape struct {
	mains, headings, tables, captions, bareHeaders int
	text                                           string
}

// outline reads a page strictly: a tag that is left open, or a value that breaks out of its place, is an error.
func outline(t *testing.T, page string) (s shape) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	for {
		token, err := d.Token()
		if err == io.EOF {
			s.text = strings.Join(strings.Fields(s.text), " ")
			return s
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v\n%s", err, page)
		}
		switch e := token.(type) {
		case xml.CharData:
			s.text += string(e)
		case xml.StartElement:
			switch e.Name.Local {
			case "main":
				s.mains++
			case "h1":
				s.headings++
			case "table":
				s.tables++
			case "caption":
				s.captions++
			case "th":
				if !slices.ContainsFunc(e.Attr, func(a xml.Attr) bool { return a.Name.Local == "scope" }) {
					s.bareHeaders++
				}
			}
			s.text += " "
		}
	}
}

func checkOutline(t *testing.T, page string) shape {
	t.Helper()
	s := outline(t, page)
	if s.mains != 1 || s.headings != 1 || s.tables != s.captions || s.bareHeaders > 0 {
		t.Errorf("%d main, %d h1, %d tables with %d captions, %d header cells without scope", s.mains, s.headings, s.tables, s.captions, s.bareHeaders)
	}
	return s
}

func path(d *Deal) string { return "/deals/" + string(d.Sealing.Tx) }

func TestTheDealPageShowsEveryState(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	for _, d := range v.deals {
		s := d.Sealing
		t.Run(fmt.Sprintf("%s %s", s.Step, s.Condition), func(t *testing.T) {
			w := get(h, path(d))
			if w.Code != http.StatusOK {
				t.Fatalf("status %d", w.Code)
			}
			page := checkOutline(t, w.Body.String())
			want := []string{string(s.Tx), s.Change.Ref.String(), stateOf(s.Step, s.Condition).Word, s.Reason}
			if c := s.Facts.Cert; c != nil {
				want = append(want, c.Subject, c.Issuer, c.Serial, c.SHA256, "2028-01-23", s.Facts.Digest, s.Facts.Contract.SHA256, "90 411 bytes")
			}
			if !s.Step.Before(deal.Checked) {
				want = append(want, "Level asked for B-T", "Level reached B-T", "Verdict valid", "Second opinion valid", "valid seal", "carries no OCSP response")
			}
			if s.Facts.Attachment != nil {
				want = append(want, s.Facts.Attachment.ID, s.Facts.AuditTrail.ID)
			}
			for _, l := range d.Trail {
				want = append(want, fmt.Sprint(l.Index), l.What)
			}
			for _, text := range want {
				if !strings.Contains(page.text, text) {
					t.Errorf("%q is not on the page", text)
				}
			}
		})
	}
}

func TestTheStatusPageShowsWhatWaitsForAPersonFirst(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	w := get(h, "/")
	page := checkOutline(t, w.Body.String())
	for _, text := range []string{"16 deals wait for a person, 1 CRM is not being read", "Salesforce, production, Acme Limited 00D5g000004XyZAEA0", "12 345 of 100 000",
		"catching up", "INVALID_SESSION_ID", "not polled yet", "attempt 3 in 40 s", "429 days", "renew the certificate", "vault", "cannot be reached", "not revoked, says its issuer", "https://tsa.example/rfc3161", "1 999 of 2 000", "failed; the others are asked first", "HTTP status 503", "its quota is used up", "next, active from 1 ", "retiring", "over 1 180 entries", "the history entry has no time stamp", "1 234",
		"1 failure, 1 warning, 41 passes", "26 are needed", "make the field longer", "ocsp house"} {
		if !strings.Contains(page.text, text) {
			t.Errorf("%q is not on the page", text)
		}
	}
	newest := strings.Index(page.text, "Newest deals")
	for _, d := range v.deals {
		s := d.Sealing
		command := ""
		switch s.Condition {
		case deal.Held:
			command = "dealseal jobs release " + string(s.Tx) + ` --why "…"`
		case deal.Dead:
			command = "dealseal jobs retry " + string(s.Tx)
		default:
			continue
		}
		if i := strings.Index(page.text, command); i < 0 || i > newest {
			t.Errorf("%q is at %d of the page, the newest deals at %d", command, i, newest)
		}
	}
}

func TestTheStatusPageOfANewDaemonSaysWhatToDo(t *testing.T) {
	h, _, _ := open(&village{})
	page := checkOutline(t, get(h, "/").Body.String())
	for _, text := range []string{"Nothing waits for a person", "dealseal check", "The queue is empty", "No deal has entered", "dealseal doctor"} {
		if !strings.Contains(page.text, text) {
			t.Errorf("%q is not on the page", text)
		}
	}
}

func TestWaitingDealsThatAreNotShownAreMentioned(t *testing.T) {
	v := &village{tenants: settle().tenants}
	for n := range eachWaitingShown + 1 {
		v.move(deal.Gathered, deal.Held, n)
	}
	h, _, _ := open(v)
	page := outline(t, get(h, "/").Body.String())
	if !strings.Contains(page.text, fmt.Sprintf("Shown are %d", eachWaitingShown)) {
		t.Error("the page does not say that there are more")
	}
	if n := strings.Count(page.text, "jobs release"); n != eachWaitingShown {
		t.Errorf("%d deals wait on the page, want %d", n, eachWaitingShown)
	}
}

func TestQueueIsSummedOverTenantsAndKeepsTheOldest(t *testing.T) {
	var v statusView
	v.count([]Count{
		{Tenant: "a", Step: deal.Kept, Condition: deal.Retrying, N: 2, Oldest: noon.Add(-time.Minute)},
		{Tenant: "b", Step: deal.Kept, Condition: deal.Retrying, N: 3, Oldest: noon.Add(-time.Hour)},
		{Tenant: "c", Step: deal.Kept, Condition: deal.Retrying, N: 1, Oldest: noon.Add(-time.Second)},
		{Tenant: "b", Step: deal.Noticed, Condition: deal.Held, N: 1, Oldest: noon},
		{Tenant: "b", Step: deal.Done, Condition: deal.Running, N: 7, Oldest: noon},
		{Tenant: "a", Step: deal.Sealed, Condition: deal.Ended, N: 4, Oldest: noon},
	}, noon)
	want := statusView{WaitingAll: 1, InWorks: 6, Done: 7, Ended: 4, Queue: []queueView{
		{Step: "noticed", State: state{Mark: "held", Word: "held"}, N: "1", Since: at(noon, noon)},
		{Step: "kept", State: state{Mark: "retrying", Word: notTold, Also: "retrying"}, N: "6", Since: at(noon.Add(-time.Hour), noon)},
	}}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Error(diff)
	}
}

func TestNothingOfAContractIsShown(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	pages := []string{"/", "/deals", "/metrics", "/readyz"}
	for _, d := range v.deals {
		pages = append(pages, path(d))
	}
	for _, p := range pages {
		if body := get(h, p).Body.String(); strings.Contains(body, "Canary") {
			t.Errorf("%s shows what the contract says", p)
		}
	}
}

func TestTextOfOthersStaysText(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)>'{{.}}&amp;`
	v := settle()
	d := v.move(deal.Attached, deal.Dead, 80)
	s := d.Sealing
	s.Change.Ref, s.Change.Occurrence, s.Reason, s.Plan.Rule, s.Plan.Stage = deal.Ref{Object: hostile, ID: hostile}, hostile, hostile, hostile, hostile
	s.Facts.RecordURL, s.Facts.Attachment.URL, s.Facts.Attachment.ID = "javascript:alert(3)", "javascript:alert(4)", hostile
	s.Facts.Cert.Subject, s.Facts.Cert.Serial, s.Facts.Verdict, s.Facts.Flagged = hostile, hostile, hostile, hostile
	s.Plan.WriteBack.Words = map[deal.Status]string{deal.StatusSigned: hostile}
	d.Trail[0].Who, d.Trail[0].What, d.Trail[0].Why, d.Trail[0].Cert = hostile, hostile, hostile, hostile
	v.tenants[0].Name, v.tenants[0].Poll.Name, v.tenants[0].Poll.Err = hostile, hostile, hostile
	v.quarantined[0].Reason, v.quarantined[0].Row = hostile, hostile
	v.checkup.Trouble[0] = Trouble{Group: hostile, Check: hostile, What: hostile, Cure: hostile}
	h, _, _ := open(v)
	for _, p := range []string{"/", path(d), "/deals/" + "%22%3E%3Cscript%3Ealert(1)", "/%3Cscript%3Ealert(1)"} {
		body := get(h, p).Body.String()
		page := checkOutline(t, body)
		for _, bad := range []string{"<script>alert", "<img src=x", "javascript:"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: %q is in the page as it came", p, bad)
			}
		}
		if !strings.Contains(page.text, "<script>alert(1)") {
			t.Errorf("%s: the text is lost", p)
		}
	}
}

func TestOtherTextsAreCut(t *testing.T) {
	v := settle()
	v.tenants[0].Poll.Err = strings.Repeat("<html>é", 1<<16)
	h, _, _ := open(v)
	if n := get(h, "/").Body.Len(); n > 200_000 {
		t.Errorf("the page has %d bytes", n)
	}
}

func TestErrorPagesSayWhatToDo(t *testing.T) {
	broken := settle()
	broken.err = errors.New("disk I/O error at page 7 of Zofia")
	for name, c := range map[string]struct {
		v    *village
		path string
		code int
		want string
	}{
		"unknown deal":    {settle(), "/deals/aaaaaaaaaaaaaaaaaaaaaaaaaa", http.StatusNotFound, "dealseal jobs list --all"},
		"not an ID":       {settle(), "/deals/abc", http.StatusNotFound, "a transaction ID has 26"},
		"unknown page":    {settle(), "/dealz", http.StatusNotFound, "Nothing is at /dealz"},
		"house fails":     {broken, "/", http.StatusInternalServerError, "the daemon's log"},
		"deal page fails": {broken, "/deals/aaaaaaaaaaaaaaaaaaaaaaaaaa", http.StatusInternalServerError, "the daemon's log"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _, log := open(c.v)
			w := get(h, c.path)
			page := checkOutline(t, w.Body.String())
			if w.Code != c.code || !strings.Contains(page.text, c.want) {
				t.Errorf("%d: %s", w.Code, page.text)
			}
			if strings.Contains(page.text, "disk I/O") {
				t.Error("the cause is on the page")
			}
			if logged := strings.Contains(log.String(), "disk I/O"); logged != (c.v.err != nil) {
				t.Errorf("log: %q", log)
			}
		})
	}
}

func TestEveryAnswerIsHardened(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	for _, p := range []string{"/", "/deals", path(v.deals[0]), path(v.deals[0]) + "/fields", path(v.deals[0]) + "/files/x", "/login", "/nowhere", "/healthz", "/readyz", "/metrics", "/assets/style.css", "/assets/refresh.js"} {
		for _, extra := range [][]string{nil, {"Host", "rebound.example"}, {"Sec-Fetch-Site", "cross-site"}} {
			got := get(h, p, extra...).Header()
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store",
				"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Content-Security-Policy": contentPolicy} {
				if got.Get(name) != want {
					t.Errorf("%s %v: %s is %q", p, extra, name, got.Get(name))
				}
			}
		}
	}
}

func TestWhichNamesAreAnsweredCanBeAsked(t *testing.T) {
	hosts := []string{"Seals.Example.COM:8484"}
	for host, want := range map[string]bool{"localhost:99": true, "seals.example.com": true, "SEALS.example.com.:443": true, "192.0.2.7:8484": true, "[2001:db8::1]:8484": true,
		"example.com": false, "xseals.example.com": false, "": false} {
		if Answers(hosts, host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func TestOnlyOurNamesAreAnswered(t *testing.T) {
	h, _, _ := open(settle(), func(o *Options) { o.Hosts = []string{"Seals.Example.COM:8484", "admin"} })
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:99": 200, "127.0.0.1:8484": 200, "127.9.9.9": 200, "[::1]:8484": 200, "[::1]": 200, "seals.example.com": 200, "seals.example.com.:443": 200, "admin:8484": 200,
		"192.0.2.7:8484": 200, "192.0.2.8:8484": 421, "evil.example": 421, "localhost.evil.example": 421, "": 421, "127.0.0.1.evil.example": 421, "xadmin": 421, "[": 421, "0.0.0.0": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/healthz", nil)
		r.Host = host
		r = r.WithContext(contextWithLocalAddr(r, "192.0.2.7:8484"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
		if want == http.StatusMisdirectedRequest && !strings.Contains(w.Body.String(), "listen.hosts") {
			t.Errorf("Host %q: no cure in %q", host, w.Body)
		}
	}
}

func TestOtherSitesMayLinkHereAndNothingElse(t *testing.T) {
	h, _, _ := open(settle())
	for _, c := range []struct {
		site, mode, dest string
		want             int
	}{
		{"", "", "", 200}, {"none", "navigate", "document", 200}, {"same-origin", "cors", "empty", 200}, {"same-origin", "no-cors", "style", 200},
		{"cross-site", "navigate", "document", 200}, {"cross-site", "navigate", "iframe", 403}, {"cross-site", "no-cors", "script", 403},
		{"cross-site", "cors", "empty", 403}, {"cross-site", "", "", 403}, {"same-site", "no-cors", "image", 403}, {"unheard-of", "cors", "empty", 403},
	} {
		w := get(h, "/", "Sec-Fetch-Site", c.site, "Sec-Fetch-Mode", c.mode, "Sec-Fetch-Dest", c.dest)
		if w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}

func TestNothingCanBeSentHere(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	for _, p := range []string{"/", "/deals", path(v.deals[0]), path(v.deals[0]) + "/fields", path(v.deals[0]) + "/files/contract.pdf", path(v.deals[0]) + "/proof", "/nowhere", "/healthz", "/readyz", "/metrics", "/assets/style.css"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
			if w := ask(h, method, p); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, p, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	if w := ask(h, http.MethodHead, "/"); w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
}

func TestAssetsAreEmbeddedAndReferToNothingElsewhere(t *testing.T) {
	h, _, _ := open(settle())
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "refresh.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		if w := get(h, "/assets/"+name); w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind {
			t.Errorf("%s: %d %q", name, w.Code, w.Header().Get("Content-Type"))
		}
	}
	if w := get(h, "/assets/"); w.Code != http.StatusNotFound {
		t.Errorf("the folder is listed: %d", w.Code)
	}
	for _, source := range []fs.FS{assets, templateFiles} {
		err := fs.WalkDir(source, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(source, p)
			s := strings.ReplaceAll(string(text), `xmlns="http://www.w3.org/2000/svg"`, "")
			if strings.Contains(s, "://") || strings.Contains(s, "style=") || strings.Contains(s, "@import") {
				t.Errorf("%s refers to another place, or has a style that the policy refuses", p)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func contextWithLocalAddr(r *http.Request, addr string) context.Context {
	at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	return context.WithValue(r.Context(), http.LocalAddrContextKey, at)
}

func TestWhatTheGuardHoldsIsShownWithOneCommandForAllOfIt(t *testing.T) {
	v := settle()
	v.guards = []deal.GuardHold{
		{GuardScope: deal.GuardScope{Tenant: "acme"}, Cause: "the tenant has more than 500 deals in an hour (per_hour)", Since: noon.Add(-time.Hour), Held: 4000},
		{GuardScope: deal.GuardScope{Tenant: "acme", Rule: "order-form"}, Cause: "more than 50 deals <at once>", Since: noon.Add(-time.Hour), Held: 3990},
		{GuardScope: deal.GuardScope{Tenant: "nordwind", Rule: "quote"}, Cause: "because", Since: noon, Held: 1},
	}
	h, _, _ := open(v)
	page := get(h, "/").Body.String()
	for _, want := range []string{"Held by the guard", number(4000) + " deals", "more than 500 deals in an hour", "more than 50 deals &lt;at once&gt;", "dealseal jobs release --guard acme/order-form --why", "dealseal jobs release --guard nordwind/quote --why", "1 deal "} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	text := scrape(t, h)
	for _, line := range []string{`dealseal_guard_held_deals{tenant="acme"} 4000`, `dealseal_guard_held_deals{tenant="nordwind"} 1`, `dealseal_guard_held_deals{tenant="fabrikam"} 0`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the metrics have no %s", line)
		}
	}
}
