package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// pageTimes is how often each page is opened; the median counts, the first is warm-up.
const pageTimes = 9

// pages opens every page of a daemon whose ledger has many deals.
func (b *bench) pages() error {
	large, err := b.largeLedger()
	if err != nil {
		return err
	}
	fresh, oldest, record, err := b.someDeals(large)
	if err != nil {
		return err
	}
	s, err := b.newStageIn(scene{Tenants: []sceneTenant{{string(houses[0].tenant), "salesforce"}, {string(houses[1].tenant), "hubspot"}}, Poll: time.Minute, API: true}, large)
	if err != nil {
		return err
	}
	defer s.close()
	b.figure(fmt.Sprintf("daemon with %d deals, started to ready", large.deals), ms(s.starting), "ms", nil, "asked every %s", soon)
	browser, err := s.logIn()
	if err != nil {
		return err
	}
	old, tenant := string(oldest[0]), string(houses[1].tenant)
	for _, page := range []struct{ name, path string }{
		{"status", "/"},
		{"list", "/deals"},
		{"list, a later page", "/deals?before=" + fmt.Sprint(large.deals/2)},
		{"list, held", "/deals?state=held"},
		{"list, a tenant's done", "/deals?state=done&tenant=" + tenant},
		{"list, a day", "/deals?day=" + time.Now().AddDate(-1, 0, 0).Format(time.DateOnly)},
		{"list, rule, tenant and day", "/deals?rule=order-form&tenant=" + tenant + "&day=" + time.Now().AddDate(-2, 0, 0).Format(time.DateOnly)},
		{"search, two common words", "/deals?q=" + url.QueryEscape("Brightwater GmbH")},
		{"search, a word of many", "/deals?q=Ltd"},
		{"search, no such name", "/deals?q=Nonesuch"},
		{"search, half a transaction", "/deals?q=" + old[:8]},
		{"search, CRM record", "/deals?q=" + record},
		{"deal, new", "/deals/" + string(fresh)},
		{"deal, old", "/deals/" + old},
		{"deal, fields", "/deals/" + old + "/fields"},
		{"deal, audit proof", "/deals/" + old + "/proof"},
		{"webhooks", "/webhooks"},
		{"metrics", "/metrics"},
		{"readiness", "/readyz"},
	} {
		took, err := open(browser, "GET", pageTimes, func(int) string { return s.page + page.path })
		if err != nil {
			return err
		}
		b.figure(page.name, ms(took.quantile(0.5)), "ms", atMost(100), "slowest %s ms; %d deals", short(ms(took.quantile(1))), large.deals)
	}
	return b.calls(s, large, oldest, record)
}

// callTimes is how often each call of the API is made.
const callTimes = 200

// calls asks the API of the same daemon, one call after the other, each about another deal: to have fetched something is a
// part of what is fetched the next time.
func (b *bench) calls(s *stage, large seedOptions, old []deal.TxID, record string) error {
	base, err := s.address(programsLine)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(b.ctx, b.dealseal, "tokens", "create", fmt.Sprintf("bench-%d", time.Now().Unix()), "--test", "--role", "admin", "--all", "--days", "1", "--why", "to be measured", "--config", s.scene.path("dealseal.yaml")).Output()
	if err != nil {
		return fmt.Errorf("dealseal tokens create: %w", err)
	}
	program := &http.Client{Transport: bearer(strings.TrimSpace(string(out))), Timeout: time.Minute}
	for _, call := range []struct{ method, path string }{
		{"GET", "/v1/deals?limit=50"},
		{"GET", "/v1/deals?state=done&tenant=globex"},
		{"GET", "/v1/deals?state=held"},
		{"GET", "/v1/deals?day=" + time.Now().AddDate(-1, 0, 0).Format(time.DateOnly)},
		{"GET", "/v1/deals?q=" + record},
		{"GET", "/v1/deals?q=" + url.QueryEscape("Brightwater GmbH")},
		{"GET", "/v1/deals/{tx}"},
		{"GET", "/v1/deals/{tx}/explain"},
		{"GET", "/v1/deals/{tx}/values"},
		{"GET", "/v1/deals/{tx}/proof"},
		{"GET", "/v1/templates"},
		{"GET", "/v1/certificates"},
		{"GET", "/v1/audit/checkpoint"},
		{"POST", "/v1/audit/checkpoint"},
		{"GET", "/v1/webhooks"},
	} {
		took, err := open(program, call.method, callTimes, func(i int) string { return base + strings.ReplaceAll(call.path, "{tx}", string(old[i%len(old)])) })
		if err != nil {
			return err
		}
		b.figure("API: "+call.method+" "+strings.ReplaceAll(call.path, record, "{record}")+", p99", ms(took.quantile(0.99)), "ms", atMost(50), "p50 %s ms; %d calls, %d deals", short(ms(took.quantile(0.5))), len(took), large.deals)
	}
	return nil
}

// bearer is a token that goes with each request.
type bearer string

func (t bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(t))
	return http.DefaultTransport.RoundTrip(r)
}

// someDeals are the newest finished deal, some of the oldest, and the record of one in between: see block.
func (b *bench) someDeals(o seedOptions) (fresh deal.TxID, old []deal.TxID, record string, err error) {
	master, err := masterKey(o.key)
	if err != nil {
		return "", nil, "", err
	}
	s, err := store.Open(b.ctx, store.Options{Dir: o.dir, MasterKey: master})
	if err != nil {
		return "", nil, "", err
	}
	defer s.Close()
	var found [3][]store.Summary
	for i, before := range []int64{0, block, int64(o.deals / 2)} {
		list, err := s.List(b.ctx, store.Filter{Step: deal.Done, Limit: callTimes, Before: before})
		if err != nil || len(list) == 0 {
			return "", nil, "", fmt.Errorf("no finished deal was found (%v)", err)
		}
		found[i] = list
	}
	for _, m := range found[1] {
		old = append(old, m.Tx)
	}
	return found[0][0].Tx, old, found[2][0].Ref.ID, nil
}

// logIn begins a session as a person would.
func (s *stage) logIn() (*http.Client, error) {
	out, err := exec.CommandContext(s.b.ctx, s.b.dealseal, "admin", "login", "--config", s.scene.path("dealseal.yaml")).Output()
	if err != nil {
		return nil, fmt.Errorf("dealseal admin login: %w", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	link, err := url.Parse(line)
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{Jar: jar, Timeout: time.Minute}
	form := url.Values{"token": {link.Query().Get("token")}}
	req, err := http.NewRequestWithContext(s.b.ctx, "POST", s.page+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || len(jar.Cookies(req.URL)) == 0 {
		return nil, fmt.Errorf("the login was answered %s", resp.Status)
	}
	return browser, nil
}

// open opens a page so many times and once before, and reads all of it.
func open(browser *http.Client, method string, times int, address func(i int) string) (took sample, err error) {
	for i := range times + 1 {
		req, err := http.NewRequest(method, address(i), nil)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		resp, err := browser.Do(req)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s is answered %s: %s", req.URL.Path, resp.Status, bytes.TrimSpace(body[:min(len(body), 300)]))
		}
		if i > 0 {
			took = append(took, time.Since(start))
		}
	}
	return took, nil
}
