package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/store"
)

// TestNothingSecretOrPersonalIsInTheClear lets deals end well, wait and fail, and then looks for their values, the
// document's text and every secret in all that the daemon has written and says of itself.
func TestNothingSecretOrPersonalIsInTheClear(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{hsm: true})
	w.logEverything()
	for _, c := range w.crms {
		w.rewrite(t, "tenants/"+c.tenant()+".yaml", "write_back: {", "write_back: {timeline: [signed, held], ")
	}
	d := w.start(t)
	s := &stage{world: w, daemon: d, ops: w.control(t, w.stateDir)}
	var stamped []string
	held := map[crm]string{}
	for _, c := range s.crms {
		enter := func(rule string, sl sale) string {
			r := c.open(sl)
			c.move(r, rule)
			return r
		}
		awaitDone(t, s.ops, enter(ruleContract, sale{}))
		awaitDone(t, s.ops, enter(ruleQuote, sale{quote: quotation(1)}))
		held[c] = enter(ruleContract, sale{nobody: true})
		awaitHeld(t, s.ops, held[c], 1, "customer")
		eventually(t, "its timeline tells", func() (bool, string) {
			told := timelineOf(t, c, held[c])
			return strings.Contains(told, "/held/1]"), told
		})
		c.failReads()
		await(t, s.ops, enter(ruleContract, sale{}), 1, "in trouble", func(m store.Summary) bool {
			return m.Condition == deal.Dead || m.Condition == deal.Retrying // a missing scope is waited for
		})
		c.heal()
		c.refuseUpdates()
		await(t, s.ops, enter(ruleContract, sale{}), 1, "not told", func(m store.Summary) bool { return m.Condition == deal.Dead })
		c.heal()
	}
	s.authority.SetFault(pki.ServiceTSA, pki.Garbage, -1)
	for _, c := range s.crms {
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		awaitHeld(t, s.ops, r, 1, "[level]") // its document is staged
		stamped = append(stamped, r)
	}
	found := &finder{t: t, needles: s.needles()}
	found.file("metrics", []byte(s.daemon.get(t, "/metrics")))
	found.pages(s)
	for c, record := range held {
		found.file("timeline", []byte(timelineOf(t, c, record)))
	}
	must(t, filepath.WalkDir(s.stateDir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of a deal that goes on meanwhile
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		found.file(strings.TrimPrefix(path, s.stateDir), b)
		return err
	}))
	found.commands(s)
	found.processes(s)
	for _, part := range []string{"/archive/", "/staging/", "/dealseal.db", "timeline", "page /deals/", "backup", "doctor", "explain", "worker hsm-agent", "worker render-worker"} {
		if !found.seen(part) {
			t.Errorf("no file of %s was searched", part)
		}
	}
	dropped := sealings(t, s.ops, stamped[0])[0].Tx
	conclude(t, s.ops, "drop", dropped)
	s.daemon.stop(t)
	log := s.daemon.log()
	found.file("log", []byte(log))
	for _, query := range []string{"SELECT ", "SELECT%20", "SELECT+", "Bearer"} {
		if strings.Contains(log, query) {
			t.Errorf("the log holds %q", query)
		}
	}
	if !strings.Contains(log, `msg="decided by a person" tx=`+string(dropped)+" verb=drop who=") || strings.Contains(log, "decided in a test") {
		t.Error("the log does not say what was decided, or says why")
	}
	if !strings.Contains(log, "level=DEBUG") || !strings.Contains(log, "endpoint=") {
		t.Error("the log is not at debug")
	}
	if len(stamped) == 0 || len(s.daemon.log()) == 0 {
		t.Error("there was nothing to search")
	}
}

// timelineOf is what notes say on the timeline of a record.
func timelineOf(t *testing.T, c crm, record string) (text string) {
	t.Helper()
	switch c := c.(type) {
	case *hubspotCRM:
		notes, err := c.portal.NotesOf(c.object, record)
		must(t, err)
		for _, n := range notes {
			text += n.Body + "\n"
		}
	case *salesforceCRM:
		for _, id := range c.org.Records("Task") {
			if f, ok := c.org.Record(id); ok && f["WhatId"] == record {
				text += fmt.Sprint(f["Subject"], "\n", f["Description"], "\n")
			}
		}
	}
	return text
}

// logEverything sets the log to debug.
func (w *world) logEverything() {
	w.t.Helper()
	b, err := os.ReadFile(w.config)
	must(w.t, err)
	must(w.t, os.WriteFile(w.config, append(b, "log: {level: debug}\n"...), 0o600))
}

// commands searches what the commands print, and a backup that is not encrypted.
func (f *finder) commands(s *stage) {
	f.t.Helper()
	file := s.path("backup.tar")
	f.file("output of backup", []byte(s.mustRun(f.t, "backup", file)))
	b, err := os.ReadFile(file)
	must(f.t, err)
	f.file("backup", b)
	list, err := s.ops.List(context.Background(), store.Filter{})
	must(f.t, err)
	commands := [][]string{{"jobs", "--all"}, {"jobs", "--all", "--json"}, {"doctor"}, {"doctor", "--json"}, {"backup", "verify", file}}
	for _, m := range list {
		commands = append(commands, []string{"explain", string(m.Tx)}, []string{"explain", string(m.Tx), "--json"})
	}
	for _, args := range commands {
		stdout, stderr, _ := s.run(f.t, args...) // doctor finds what the test has broken
		if len(stdout) == 0 {
			f.t.Errorf("%s printed nothing: %s", strings.Join(args, " "), stderr)
		}
		f.file("output of "+strings.Join(args, " "), []byte(stdout+stderr))
	}
}

// processes searches what every user of the machine may see of the daemon and its children, and their environment.
func (f *finder) processes(s *stage) {
	f.t.Helper()
	for _, pid := range append(childrenOf(f.t, s.daemon.cmd.Process.Pid), s.daemon.cmd.Process.Pid) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has just ended
		}
		must(f.t, err)
		f.file("cmdline of "+string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))), line)
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil { // otherwise nobody but root can read it
			f.file("environ", environ)
		}
	}
}

// childrenOf lists the processes that have this parent.
func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		var pid, of int
		var state string
		_, rest, _ := bytes.Cut(b, []byte(") ")) // behind the name, which may hold anything
		if _, err := fmt.Sscan(string(rest), &state, &of); err == nil && of == parent {
			if _, err := fmt.Sscan(string(b), &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// needles are what must not be found, by name.
func (w *world) needles() map[string]string {
	n := map[string]string{"customer": hiddenCustomer, "subject": hiddenSubject, "person": hiddenPerson, "mail": hiddenMail, "goods": hiddenGoods, "text": hiddenText,
		"document": "%PDF-"}
	for _, s := range w.secrets {
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); len(line) >= 16 && !strings.HasPrefix(line, "-----") {
				n["secret"+line[:4]] = line
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for token := range w.tokens {
		n["token "+token[:4]] = token
	}
	return n
}

// finder searches for needles, as they are and as they are often written.
type finder struct {
	t       *testing.T
	needles map[string]string
	names   []string
}

func (f *finder) file(name string, content []byte) {
	f.names = append(f.names, name)
	for what, needle := range f.needles {
		for form, text := range map[string]string{"": needle, " in hexadecimal": hex.EncodeToString([]byte(needle)), " in base64": base64.StdEncoding.EncodeToString([]byte(needle))} {
			if bytes.Contains(content, []byte(text)) {
				f.t.Errorf("%s holds the %s%s", name, what, form)
			}
		}
	}
}

// pages searches the pages of strangers and those of people with a session, in the text that a browser shows as well. Only
// where a person asks for the fields of a document may their values be seen, and the log says who did.
func (f *finder) pages(s *stage) {
	f.t.Helper()
	list, err := s.ops.List(context.Background(), store.Filter{})
	must(f.t, err)
	f.page("/ of a stranger", s.daemon.get(f.t, "/"))
	f.page("/readyz", s.daemon.get(f.t, "/readyz"))
	browser := s.daemon.logIn(f.t)
	see := func(path string, code int) string { return fetch(f.t, browser, s.daemon.page()+path, code) }
	f.page("/", see("/", http.StatusOK))
	overview := see("/deals", http.StatusOK)
	f.page("/deals", overview)
	shown := 0
	for _, m := range list {
		path := "/deals/" + string(m.Tx)
		if !strings.Contains(overview, path) {
			f.t.Errorf("the list does not lead to %s", path)
		}
		for _, p := range []string{path, path + "/fields", path + "/proof"} {
			f.page(p+" of a stranger", fetch(f.t, http.DefaultClient, s.daemon.page()+p, http.StatusForbidden))
		}
		f.page(path, see(path, http.StatusOK))
		f.page(path+"/proof", see(path+"/proof", http.StatusOK))
		if strings.Contains(html.UnescapeString(see(path+"/fields", http.StatusOK)), hiddenCustomer) {
			shown++
			me, err := user.Current()
			must(f.t, err)
			if last := storyOf(f.t, s.ops, m.Tx).Trail; !slices.ContainsFunc(last, func(l deal.TrailLine) bool { return l.What == "viewed" && strings.HasPrefix(l.Who, me.Username) }) {
				f.t.Errorf("%s: nobody has viewed its fields, says the log", m.Tx)
			}
		}
	}
	if shown == 0 {
		f.t.Error("no page shows the fields of a document")
	}
	first := strings.Fields(hiddenCustomer)[0]
	byName := see("/deals?q="+url.QueryEscape(first), http.StatusOK)
	if !strings.Contains(byName, "Looked for as a name") || strings.Contains(byName, "No deal matches") {
		f.t.Error("a customer's deals are not found by the customer's name")
	}
	f.page("/deals?q=", strings.ReplaceAll(byName, `value="`+first+`"`, "")) // but for what was typed in
}

func (f *finder) page(path, content string) {
	f.file("page "+path, []byte(content))
	f.file("page "+path, []byte(html.UnescapeString(content)))
}

func (f *finder) seen(part string) bool {
	for _, n := range f.names {
		if strings.Contains(n, part) {
			return true
		}
	}
	return false
}

func TestTheProductContainsNoMocks(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	must(t, err)
	if !bytes.Contains(out, []byte("github.com/dealseal/dealseal/engine\n")) {
		t.Fatalf("go list does not list the engine:\n%s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "dealseal/mocks") || strings.TrimSpace(line) == "testing" {
			t.Errorf("the product contains %s", line)
		}
	}
}
