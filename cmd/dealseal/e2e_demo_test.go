package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheDemoSealsADealInEachCRMAndEveryJudgeAcceptsTheFiles runs what "make demo ARGS=--once" runs.
func TestTheDemoSealsADealInEachCRMAndEveryJudgeAcceptsTheFiles(t *testing.T) {
	t.Parallel()
	dir, command := t.TempDir(), demo(t)
	tool(t, nil, command[0], append(command[1:], "--once", "--dir", dir)...)
	text, err := os.ReadFile(filepath.Join(dir, "result.json"))
	must(t, err)
	var results []struct {
		Tenant, CRM, Object, Record, Tx, Status, Level, SHA256, File string
		Fields                                                       map[string]string
		Steps                                                        []struct {
			Name string
			MS   float64
		}
	}
	must(t, json.Unmarshal(text, &results))
	seen := map[string]bool{}
	bench := newBench(t, filepath.Join(dir, "trust/root.pem"))
	bench.offline = true // the demo is over
	for _, r := range results {
		seen[r.CRM] = true
		if r.Level != "B-LTA" || len(r.Fields) != 5 || len(r.Steps) != 8 || r.Tenant == "" || r.Object == "" || r.Record == "" || len(r.Tx) != 26 || len(r.SHA256) != 64 {
			t.Errorf("result.json says %+v", r)
		}
		if want := map[string]string{"salesforce": "Signed", "hubspot": "signed"}[r.CRM]; r.Status != want {
			t.Errorf("%s shows %q, want %q", r.CRM, r.Status, want)
		}
		sealed, err := os.ReadFile(filepath.Join(dir, r.File))
		must(t, err)
		bench.judge(t, sealed, evidenceOf(t, sealed))
	}
	if len(results) != 2 || !seen["salesforce"] || !seen["hubspot"] {
		t.Errorf("result.json is about %v", seen)
	}
}

// TestTheDemoStaysAndItsLinkLogsIn runs what "make demo" runs, until somebody has looked at the status page and leaves.
func TestTheDemoStaysAndItsLinkLogsIn(t *testing.T) {
	t.Parallel()
	command := append(demo(t), "--soft-key", "--dir", t.TempDir())
	c := exec.Command(command[0], command[1:]...)
	out, err := c.StdoutPipe()
	must(t, err)
	var complaints bytes.Buffer
	c.Stderr = &complaints
	in, err := c.StdinPipe() // at whose end the demo goes on
	must(t, err)
	defer in.Close()
	must(t, c.Start())
	defer c.Process.Kill()
	link, said := "", strings.Builder{}
	for lines := bufio.NewScanner(out); link == "" && lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if rest, found := strings.CutPrefix(lines.Text(), "Log in to it"); found {
			link = strings.TrimSpace(rest)
		}
	}
	if link == "" {
		t.Fatalf("there is no link:\n%s%s", said.String(), complaints.String())
	}
	page, _, _ := strings.Cut(link, "/login")
	if shown := fetch(t, followLogin(t, link), page+"/", http.StatusOK); !strings.Contains(shown, "contoso") {
		t.Errorf("who has followed the link is shown no tenant:\n%s", shown)
	}
	must(t, c.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, out)
	if err := c.Wait(); err != nil {
		t.Errorf("it ends with %v: %s", err, complaints.String())
	}
}

// smaller leaves out what only debuggers read, which saves a third of linking.
const smaller = "-s -w"

// demo builds what the demo needs and returns its command.
func demo(t *testing.T) []string {
	t.Helper()
	bin := t.TempDir()
	touch(t, "../demo", "../../mocks")
	for _, pkg := range []string{"dealseal", "demo"} {
		if out, err := exec.Command("go", "build", "-ldflags", smaller, "-o", filepath.Join(bin, pkg), "../"+pkg).CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	return []string{filepath.Join(bin, "demo"), "--dealseal", filepath.Join(bin, "dealseal"), "--renderer", "../../build/typst.wasm", "--templates", "../../templates"}
}

// touch looks at the files of what is built here and not imported, so that a change to them ends a cached result.
func touch(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		}))
	}
}
