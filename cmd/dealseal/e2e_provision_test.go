package main

import (
	"database/sql"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
)

// TestWhatACRMLacksIsShownMadeAndThenUsed gives a rule fields that nobody has made.
func TestWhatACRMLacksIsShownMadeAndThenUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	for _, c := range w.crms {
		file := w.path("tenants/" + c.tenant() + ".yaml")
		b, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, []byte(strings.NewReplacer("DealSeal_Status__c", "Fresh_Status__c", "dealseal_status", "fresh_status").Replace(string(b))), 0o600))
	}
	s := w.begin(t)
	for _, c := range s.crms {
		field := map[deal.Kind]string{deal.Salesforce: "Fresh_Status__c", deal.HubSpot: "fresh_status"}[c.kind()]
		ask := func(want int, flags ...string) (list []provisioned) {
			t.Helper()
			stdout, stderr, code := s.run(t, append([]string{"provision", "--json", "--tenant", c.tenant()}, flags...)...)
			if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != want {
				t.Fatalf("%v: exit %d, %v\n%s%s", flags, code, err, stdout, stderr)
			}
			return list
		}
		for _, flags := range [][]string{{"--dry-run"}, nil} { // nobody can be asked
			list := ask(exitFailed, flags...)
			if len(list) == 0 || list[0].Made || !strings.Contains(list[len(list)-1].What+list[0].What, field) && c.kind() == deal.HubSpot {
				t.Fatalf("%s: %+v", c.kind(), list)
			}
		}
		if sf, ok := c.(*salesforceCRM); ok {
			list := ask(exitFailed, "--yes")
			if list[0].Err == "" || list[0].Made {
				t.Errorf("without the right to it something was made: %+v", list)
			}
			sf.org.AdminRights(true)
		}
		for _, p := range ask(exitOK, "--yes") {
			if !p.Made {
				t.Errorf("%s was not made: %s", p.What, p.Err)
			}
		}
		if list := ask(exitOK, "--yes"); len(list) > 0 {
			t.Errorf("a second time there is missing %+v", list)
		}
	}
	s.daemon.stop(t)
	s.logTellsWhoProvisioned(t)
	s.daemon = w.start(t) // which compares the configuration with the CRM at once
	for _, c := range s.crms {
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		awaitDone(t, s.ops, r)
		if sf, ok := c.(*salesforceCRM); ok {
			if fields, _ := sf.org.Record(r); fields["Fresh_Status__c"] != "Signed" {
				t.Errorf("the new field shows %v", fields["Fresh_Status__c"])
			}
		}
	}
	s.daemon.stop(t)
}

// logTellsWhoProvisioned looks into the audit log of a daemon that has stopped.
func (s *stage) logTellsWhoProvisioned(t *testing.T) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.stateDir, "dealseal.db"))
	must(t, err)
	defer db.Close()
	count := func(what string) (n int) {
		must(t, db.QueryRow(`SELECT count(*) FROM audit WHERE json_extract(leaf, '$.what') = $1`, what).Scan(&n))
		return n
	}
	begun, made, failed := count("provisioning"), count("provisioned"), count("provision-failed")
	if made < 2 || failed != 1 || begun != made+failed {
		t.Errorf("%d things were begun, %d made and %d not", begun, made, failed)
	}
}

func TestFoldersForAdministratorsAreWrittenFromTheConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	sfdx, project := filepath.Join(w.dir, "sfdx"), filepath.Join(w.dir, "project")
	if _, stderr, code := w.run(t, "provision", "--tenant", "acme", "--sfdx", sfdx); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, f := range salesforce.DealSealFields()["Opportunity"] {
		if f.Name == "DealSeal_Drift__c" || f.Name == "DealSeal_Follow_Up__c" {
			continue // which the rules do not name
		}
		b, err := os.ReadFile(filepath.Join(sfdx, "force-app/main/default/objects/Opportunity/fields", f.Name+".field-meta.xml"))
		must(t, err)
		var x struct {
			XMLName  xml.Name `xml:"http://soap.sforce.com/2006/04/metadata CustomField"`
			FullName string   `xml:"fullName"`
			Values   []string `xml:"valueSet>valueSetDefinition>value>fullName"`
		}
		if err := xml.Unmarshal(b, &x); err != nil || x.FullName != f.Name || len(x.Values) != len(f.Picklist) {
			t.Errorf("%s: %v, %+v", f.Name, err, x)
		}
	}
	set, err := os.ReadFile(filepath.Join(sfdx, "force-app/main/default/permissionsets/DealSeal_Integration.permissionset-meta.xml"))
	must(t, err)
	for _, want := range []string{"Opportunity.DealSeal_Status__c", "ContentVersion.DealSeal_Key__c", "<viewAllRecords>true</viewAllRecords>"} {
		if !strings.Contains(string(set), want) {
			t.Errorf("the permission set lacks %s", want)
		}
	}
	if panel, err := os.ReadFile(filepath.Join(sfdx, "force-app/main/default/lwc/dealsealPanel/fields.js")); err != nil || !strings.Contains(string(panel), `"status": "DealSeal_Status__c"`) {
		t.Errorf("the panel is told %q, %v", panel, err)
	}
	if _, stderr, code := w.run(t, "provision", "--tenant", "contoso", "--project", project, "--url", "https://seal.example.com/push"); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	app, err := os.ReadFile(filepath.Join(project, "src/app/app-hsmeta.json"))
	must(t, err)
	hooks, err := os.ReadFile(filepath.Join(project, "src/app/webhooks/webhooks-hsmeta.json"))
	must(t, err)
	if !json.Valid(app) || !strings.Contains(string(app), "crm.objects.deals.write") || !strings.Contains(string(hooks), `"https://seal.example.com/push"`) {
		t.Errorf("the project is\n%s\n%s", app, hooks)
	}
	for _, flags := range [][]string{{"--tenant", "contoso", "--sfdx", sfdx}, {"--tenant", "acme", "--project", project}, {"--tenant", "contoso", "--project", project, "--url", "http://plain"}, {}} {
		if _, _, code := w.run(t, append([]string{"provision"}, flags...)...); code != exitUsage {
			t.Errorf("%v: exit %d, want wrong usage", flags, code)
		}
	}
}

func TestThePanelLinksToAPageThatBrowsersElsewhereCanOpen(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ signIn, notify, want string }{
		{"https://a.example", "https://b.example", "https://a.example"},
		{"", "https://b.example", "https://b.example"},
		{"", "http://b.example", ""},
		{"http://localhost:8484", "https://b.example", "https://b.example"},
		{"", "", ""},
	} {
		cfg := &config.Config{Notify: config.Notify{Page: x.notify}}
		if x.signIn != "" {
			cfg.SignIn = &config.SignIn{Page: x.signIn}
		}
		if got := pageForBrowsers(cfg); got != x.want {
			t.Errorf("%+v: %q", x, got)
		}
	}
}
