package main

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

func TestAPersonReadsADealItsContractAndItsProof(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	if stdout, stderr, code := s.run(t, "audit", "checkpoint", "-o", s.path("kept.txt")); code != exitOK {
		t.Fatalf("audit checkpoint: %d\n%s%s", code, stdout, stderr)
	}
	c := s.crms[0]
	r := c.open(sale{})
	c.move(r, ruleContract)
	tx := awaitDone(t, s.ops, r).Sealing.Tx
	browser := s.daemon.logIn(t)
	page := fetch(t, browser, s.daemon.page()+"/deals/"+string(tx), http.StatusOK)
	for _, text := range []string{"valid seal", "Two independent readers agree", "Level asked for", "B-T", "House Seal", "files/contract.pdf", "files/evidence/report.json", "files/evidence/timestamp.tst"} {
		if !strings.Contains(page, text) {
			t.Errorf("%q is not on the page", text)
		}
	}
	for _, q := range []string{r, r[:15], string(tx), string(tx[:8]), strings.ToUpper(hiddenCustomer)} {
		if list := fetch(t, browser, s.daemon.page()+"/deals?q="+strings.ReplaceAll(q, " ", "+"), http.StatusOK); !strings.Contains(list, string(tx)) {
			t.Errorf("%q does not find the deal", q)
		}
	}
	s.sameAsOnTheRecord(t, browser, tx, c, r)
	proof := fetch(t, browser, s.daemon.page()+"/deals/"+string(tx)+"/proof", http.StatusOK)
	must(t, os.WriteFile(s.path("proof.json"), []byte(proof), 0o600))
	if stdout, stderr, code := s.run(t, "audit", "check", s.path("proof.json"), "--checkpoint", s.path("kept.txt")); code != exitOK || !strings.Contains(stdout, "sealed") || !strings.Contains(stdout, "downloaded") {
		t.Errorf("audit check: %d\n%s%s", code, stdout, stderr)
	}
	must(t, os.WriteFile(s.path("proof.json"), []byte(strings.Replace(proof, "sealed", "sewled", 1)), 0o600))
	if _, stderr, code := s.run(t, "audit", "check", s.path("proof.json")); code != exitFailed || !strings.Contains(stderr, "does not hold") {
		t.Errorf("an altered proof: %d\n%s", code, stderr)
	}
	if stdout, stderr, code := s.run(t, "audit", "proof", string(tx), "-o", s.path("again.json")); code != exitOK {
		t.Errorf("audit proof: %d\n%s%s", code, stdout, stderr)
	}
	if stdout, _, _ := s.run(t, "admin", "sessions"); strings.Count(stdout, "\n") != 2 {
		t.Errorf("one session is listed as\n%s", stdout)
	}
	if stdout, _, code := s.run(t, "admin", "login", "--page", "https://seals.example.com/"); code != exitOK || !strings.HasPrefix(stdout, "https://seals.example.com/login?token=") {
		t.Errorf("behind a proxy the link is %s", stdout)
	}
	if _, stderr, code := s.run(t, "admin", "login", "--page", "seals"); code != exitUsage || !strings.Contains(stderr, "is no address") {
		t.Errorf("an address that is none: %d %s", code, stderr)
	}
	if stdout, _, code := s.run(t, "admin", "logout"); code != exitOK || !strings.Contains(stdout, "sessions ended: 1") {
		t.Errorf("admin logout: %d %s", code, stdout)
	}
	fetch(t, browser, s.daemon.page()+"/deals", http.StatusForbidden)
	s.daemon.stop(t)
	if log := s.daemon.log(); strings.Contains(log, "token=") || !strings.Contains(log, "a file was downloaded") {
		t.Error("the log tells a link, or does not tell of downloads")
	}
	if _, stderr, code := s.run(t, "admin", "login"); code != exitFailed || !strings.Contains(stderr, "no daemon is running") {
		t.Errorf("without a daemon: %d %s", code, stderr)
	}
}

// sameAsOnTheRecord compares the downloaded contract with the one that is attached to the record.
func (s *stage) sameAsOnTheRecord(t *testing.T, browser *http.Client, tx deal.TxID, c crm, record string) {
	t.Helper()
	resp, err := browser.Get(s.daemon.page() + "/deals/" + string(tx) + "/files/contract.pdf")
	must(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	must(t, err)
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
	files := c.files(record)
	i := slices.IndexFunc(files, func(f stored) bool { return f.sealed() && !f.trail() })
	if err != nil || i < 0 || !bytes.Equal(got, files[i].content) || params["filename"] != files[i].name {
		t.Errorf("%d bytes named %v differ from what is on the record: %v", len(got), params, err)
	}
}

func TestWhoBecameRootIsReadFromTheKernel(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "0": "", "4294967295": "", "-1": "", "x": "", "99999999999": "", "1": userName(1), "3999999999\n": "uid 3999999999"} {
		if got := loginName(text); got != want {
			t.Errorf("loginuid %q: %q, want %q", text, got, want)
		}
	}
}
