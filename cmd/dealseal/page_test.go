package main

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
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
	for _, text := range []string{"valid seal", "Two independent readers agree", "Level asked for", "EN 319 102-1", "TOTAL-PASSED", "B-T", "House Seal", "files/contract.pdf", "files/evidence/report.json", "files/evidence/timestamp.tst"} {
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
	s.damageIsSaid(t, browser, tx)
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
	if stdout, _, code := s.run(t, "admin", "sessions", "--json"); code != exitOK || !regexp.MustCompile(`(?s)"id": "\w{8}",\s+"who": ".+",\s+"since": ".+",\s+"seen": ".+",\s+"until": "`).MatchString(stdout) {
		t.Errorf("in JSON sessions are %s", stdout)
	}
	s.linksBearTheAddressThatWasAskedFor(t)
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

// damageIsSaid alters the archive's copy of a deal and puts it back.
func (s *stage) damageIsSaid(t *testing.T, browser *http.Client, tx deal.TxID) {
	t.Helper()
	page := s.daemon.page() + "/deals/" + string(tx)
	folders, err := filepath.Glob(filepath.Join(s.stateDir, "archive", "*", "*", "*", string(tx)))
	must(t, err)
	alter := func(name string) (undo func()) {
		file := filepath.Join(folders[0], name)
		whole, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, bytes.Replace(whole, whole[len(whole)/2:][:4], []byte("\x00\x00\x00\x00"), 1), 0o600))
		return func() { must(t, os.WriteFile(file, whole, 0o600)) }
	}
	undo := alter("contract.pdf.age")
	if text := fetch(t, browser, page+"/files/contract.pdf", http.StatusInternalServerError); !strings.Contains(text, "not what was sealed") {
		t.Errorf("of an altered contract it is said:\n%s", text)
	}
	undo()
	undo = alter("manifest.json")
	if text := fetch(t, browser, page, http.StatusOK); !strings.Contains(text, "not what was sealed") || !strings.Contains(text, "Audit log") {
		t.Errorf("of an altered manifest it is said:\n%s", text)
	}
	undo()
	must(t, os.Rename(folders[0], folders[0]+"-away"))
	if text := fetch(t, browser, page, http.StatusOK); !strings.Contains(text, "restore it from a backup") {
		t.Errorf("of a folder that is gone it is said:\n%s", text)
	}
	fetch(t, browser, page+"/files/contract.pdf", http.StatusInternalServerError)
	must(t, os.Rename(folders[0]+"-away", folders[0]))
}

func (s *stage) linksBearTheAddressThatWasAskedFor(t *testing.T) {
	t.Helper()
	for page, known := range map[string]bool{"http://localhost:8484/": true, "https://192.0.2.7": true, "https://seals.example.com/": false} {
		stdout, stderr, code := s.run(t, "admin", "login", "--page", page)
		if code != exitOK || !strings.HasPrefix(stdout, strings.TrimSuffix(page, "/")+"/login?token=") {
			t.Errorf("for %s the link is %s%s", page, stdout, stderr)
		}
		if known == strings.Contains(stderr, "listen.hosts") {
			t.Errorf("of %s it is said: %s", page, stderr)
		}
	}
	for _, page := range []string{"seals", "ftp://seals.example.com", "https://", "https://seals.example.com/sub", "https://seals.example.com?x", "https://a@seals.example.com"} {
		if stdout, stderr, code := s.run(t, "admin", "login", "--page", page); code != exitUsage || !strings.Contains(stderr, "is no address") || stdout != "" {
			t.Errorf("%s, which is no address: %d %s", page, code, stderr)
		}
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
