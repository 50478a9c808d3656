package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
)

// TestThePanelRunsInSalesforcesOwnEngine compiles the component that "dealseal provision --sfdx" writes with Salesforce's
// compiler and runs it in their engine, by their test runner, with their rules of accessibility.
func TestThePanelRunsInSalesforcesOwnEngine(t *testing.T) {
	if os.Getenv("PANEL") == "" {
		t.Skip("the Lightning component is not tried: Salesforce's compiler and engine are 95 MB; run \"make panel\"")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Fatal("npm is not installed, and make panel needs it: apt-get install npm")
	}
	tools, err := filepath.Abs(install(t, "lwc"))
	must(t, err)
	dir := t.TempDir()
	writeSource(t, dir, []connectors.Written{
		{Object: salesforce.Object, WriteBack: deal.WriteBack{TransactionID: "Sealed_ID__c", Status: "Sealed_Status__c", SignedAt: "Sealed_At__c", URL: "Sealed_Link__c",
			Audit: "Sealed_Audit__c", Drift: "Sealed_Drift__c"}},
		{Object: "Order", WriteBack: deal.WriteBack{TransactionID: "First_ID__c", Status: "First_Status__c", Words: map[deal.Status]string{deal.StatusSigned: "Fertig"}}},
		{Object: "Order", WriteBack: deal.WriteBack{Status: "Second_Status__c"}},
	})
	panel := filepath.Join(dir, "force-app/main/default/lwc", salesforce.Panel)
	node := findNode(t)
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), node, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", filepath.Base(args[0]), err, out)
		}
		return string(out)
	}
	if out := run(filepath.Join(tools, "compile.mjs"), panel); strings.Count(out, "ok ") != 4 {
		t.Errorf("compiled is\n%s", out)
	}
	test, err := os.ReadFile(filepath.Join(tools, "panel.test.js"))
	must(t, err)
	must(t, os.Mkdir(filepath.Join(panel, "__tests__"), 0o755))
	must(t, os.WriteFile(filepath.Join(panel, "__tests__", "panel.test.js"), test, 0o644))
	must(t, os.Symlink(filepath.Join(tools, "node_modules"), filepath.Join(dir, "node_modules")))
	t.Log(run(filepath.Join(tools, "node_modules/@salesforce/sfdx-lwc-jest/bin/sfdx-lwc-jest")))
}

// writeSource writes what an administrator would deploy.
func writeSource(t *testing.T, dir string, written []connectors.Written) {
	t.Helper()
	files, err := salesforce.Config{TxMarker: "Sealed_Key__c"}.SourceFolder(written, "https://seal.example.com")
	must(t, err)
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, content, 0o644))
	}
}
