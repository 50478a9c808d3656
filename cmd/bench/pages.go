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
	s, err := b.newStageOn(large, time.Minute, sceneTenant{string(houses[0].tenant), "salesforce"}, sceneTenant{string(houses[1].tenant), "hubspot"})
	if err != nil {
		return err
	}
	defer s.close()
	browser, err := s.logIn()
	if err != nil {
		return err
	}
	old, tenant := string(oldest), string(houses[1].tenant)
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
		{"metrics", "/metrics"},
		{"readiness", "/readyz"},
	} {
		took, err := open(browser, s.page+page.path)
		if err != nil {
			return err
		}
		b.figure(page.name, ms(took.quantile(0.5)), "ms", atMost(100), "slowest %s ms; %d deals", short(ms(took.quantile(1))), large.deals)
	}
	return nil
}

// someDeals are the newest finished deal, one of the oldest, and the record of one in between: see block.
func (b *bench) someDeals(o seedOptions) (fresh, old deal.TxID, record string, err error) {
	master, err := masterKey(o.key)
	if err != nil {
		return "", "", "", err
	}
	s, err := store.Open(b.ctx, store.Options{Dir: o.dir, MasterKey: master})
	if err != nil {
		return "", "", "", err
	}
	defer s.Close()
	var found [3]store.Summary
	for i, before := range []int64{0, block, int64(o.deals / 2)} {
		list, err := s.List(b.ctx, store.Filter{Step: deal.Done, Limit: 1, Before: before})
		if err != nil || len(list) != 1 {
			return "", "", "", fmt.Errorf("no finished deal was found (%v)", err)
		}
		found[i] = list[0]
	}
	return found[0].Tx, found[1].Tx, found[2].Ref.ID, nil
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

// open opens a page often, and reads all of it.
func open(browser *http.Client, address string) (took sample, err error) {
	for i := range pageTimes + 1 {
		start := time.Now()
		resp, err := browser.Get(address)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s is answered %s: %s", address, resp.Status, bytes.TrimSpace(body[:min(len(body), 300)]))
		}
		if i > 0 {
			took = append(took, time.Since(start))
		}
	}
	return took, nil
}
