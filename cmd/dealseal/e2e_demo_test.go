package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTheDemoSealsADealInEachCRMAndEveryJudgeAcceptsTheFiles runs what "make demo ARGS=--once" runs.
func TestTheDemoSealsADealInEachCRMAndEveryJudgeAcceptsTheFiles(t *testing.T) {
	t.Parallel()
	bin, dir := t.TempDir(), t.TempDir()
	touch(t, "../demo", "../../mocks")
	for _, pkg := range []string{"dealseal", "demo"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, pkg), "../"+pkg).CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	tool(t, nil, filepath.Join(bin, "demo"), "--once", "--dir", dir, "--dealseal", filepath.Join(bin, "dealseal"),
		"--renderer", "../../build/typst.wasm", "--templates", "../../templates")
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
