package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
)

// cli is Salesforce's own command line, as it is installed.
type cli struct {
	run  string // its script
	dir  string // where it is run
	home string
	env  []string
}

// TestTheSalesforceCLIGetsAlongWithTheMockAndTheFolder runs Salesforce's own CLI, unchanged: against the mock, and over the folder
// that "dealseal provision --sfdx" writes. The mock has no Metadata API, so the folder is converted to what would be
// deployed, and not deployed.
func TestTheSalesforceCLIGetsAlongWithTheMockAndTheFolder(t *testing.T) {
	if os.Getenv("SFCLI") == "" {
		t.Skip("the Salesforce CLI is not tried: it is 290 MB and takes half a minute; run \"make sfcli\"")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Fatal("npm is not installed, and make sfcli needs it: apt-get install npm")
	}
	run, err := filepath.Abs(filepath.Join(install(t, "sfcli"), "node_modules", "@salesforce", "cli", "bin", "run.js"))
	must(t, err)
	c := &cli{run: run, dir: t.TempDir(), home: t.TempDir()}
	t.Run("mock", func(t *testing.T) { c.withMock(t, start(t)) })
	t.Run("folder", func(t *testing.T) { c.withFolder(t) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sf runs one command and decodes its result.
func (c *cli) sf(t *testing.T, result any, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), findNode(t), append(append([]string{c.run}, args...), "--json")...)
	cmd.Dir = c.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.home, "SF_DISABLE_TELEMETRY=true", "SF_DISABLE_AUTOUPDATE=true", "SF_SKIP_NEW_VERSION_CHECK=true",
		"SF_USE_GENERIC_UNIX_KEYCHAIN=true", "SF_DISABLE_DNS_CHECK=true"}, c.env...)
	out, err := cmd.Output()
	var said struct {
		Status  int             `json:"status"`
		Message string          `json:"message"`
		Result  json.RawMessage `json:"result"`
	}
	if bad := json.Unmarshal(out, &said); err != nil || bad != nil || said.Status != 0 {
		t.Fatalf("sf %s: %v, status %d: %s", strings.Join(args[:min(len(args), 3)], " "), err, said.Status, said.Message)
	}
	must(t, json.Unmarshal(said.Result, result))
}

func (c *cli) withMock(t *testing.T, s *started) {
	key := filepath.Join(c.dir, "login.pem")
	must(t, os.WriteFile(key, []byte(s.Salesforce.PrivateKey), 0o600))
	var login struct {
		OrgID, Username, InstanceURL string
		IsSandbox                    bool
	}
	c.sf(t, &login, "org", "login", "jwt", "--instance-url", s.Salesforce.URL, "--username", s.Salesforce.Username, "--client-id", s.Salesforce.ConsumerKey, "--jwt-key-file", key)
	if login.OrgID != s.Salesforce.OrgID || login.Username != s.Salesforce.Username || !login.IsSandbox {
		t.Errorf("logged in to %+v", login)
	}
	record := s.admin(200, "POST", "/salesforce/opportunities", `{"fields":{"Name":"Kolibri","Amount":1200,"StageName":"Prospecting"}}`)["id"].(string)
	do := func(result any, args ...string) {
		t.Helper()
		c.sf(t, result, append(args, "--target-org", s.Salesforce.Username)...)
	}
	var rows struct {
		Records []map[string]any
	}
	do(&struct{}{}, "data", "update", "record", "--sobject", "Opportunity", "--record-id", record, "--values", "StageName='Closed Won'")
	do(&rows, "data", "query", "--query", "SELECT OpportunityId, StageName FROM OpportunityHistory ORDER BY CreatedDate, Id")
	if len(rows.Records) != 2 || rows.Records[1]["StageName"] != "Closed Won" || rows.Records[1]["OpportunityId"] != record {
		t.Errorf("the history is %v", rows.Records)
	}
	contract := filepath.Join(c.dir, "contract.pdf")
	must(t, os.WriteFile(contract, []byte("%PDF-1.7 of a test"), 0o600))
	do(&struct{}{}, "data", "create", "file", "--file", contract, "--parent-id", record)
	do(&rows, "data", "query", "--query", "SELECT ContentDocument.Title, ContentDocument.ContentSize FROM ContentDocumentLink WHERE LinkedEntityId = '"+record+"'")
	if len(rows.Records) != 1 || !strings.Contains(fmt.Sprint(rows.Records), "contract") {
		t.Errorf("the files are %v", rows.Records)
	}
	var object struct {
		Name   string
		Fields []any
	}
	do(&object, "sobject", "describe", "--sobject", "Opportunity")
	if object.Name != "Opportunity" || len(object.Fields) < 10 {
		t.Errorf("described is %s with %d fields", object.Name, len(object.Fields))
	}
	do(&[]any{}, "org", "list", "limits")

	_, token := s.send("POST", s.Salesforce.URL+"/services/oauth2/token?grant_type=client_credentials&client_id="+s.Salesforce.ConsumerKey+"&client_secret="+s.Salesforce.ClientSecret, "", "")
	var granted struct {
		Token string `json:"access_token"`
	}
	must(t, json.Unmarshal(token, &granted))
	c.env = []string{"SF_ACCESS_TOKEN=" + granted.Token}
	c.sf(t, &login, "org", "login", "access-token", "--instance-url", s.Salesforce.URL, "--no-prompt")
	if login.OrgID != s.Salesforce.OrgID {
		t.Errorf("with a token it is logged in to %+v", login)
	}
}

func (c *cli) withFolder(t *testing.T) {
	words := deal.WriteBack{TransactionID: "Sealed_ID__c", Status: "Sealed_Status__c", SignedAt: "Sealed_At__c", URL: "Sealed_Link__c", Audit: "Sealed_Audit__c"}
	c.dir = t.TempDir()
	writeSource(t, c.dir, []connectors.Written{{Object: salesforce.Object, WriteBack: words, Timeline: true}})
	for folder, want := range map[string]map[string]int{
		"force-app": {"CustomField": 6, "LightningComponentBundle": 1, "PermissionSet": 2},
		"examples":  {"CustomField": 4, "CustomObject": 1, "Flow": 1},
	} {
		if got := c.converted(t, folder); !maps.Equal(got, want) {
			t.Errorf("of %s the CLI would deploy %v, want %v", folder, got, want)
		}
	}
}

// converted counts what the CLI would deploy of a folder, by its kind.
func (c *cli) converted(t *testing.T, folder string) map[string]int {
	t.Helper()
	to := folder + "-converted"
	c.sf(t, &struct{}{}, "project", "convert", "source", "--root-dir", folder, "--output-dir", to)
	manifest, err := os.ReadFile(filepath.Join(c.dir, to, "package.xml"))
	must(t, err)
	var deployed struct {
		Types []struct {
			Members []string `xml:"members"`
			Name    string   `xml:"name"`
		} `xml:"types"`
	}
	must(t, xml.Unmarshal(manifest, &deployed))
	got := map[string]int{}
	for _, of := range deployed.Types {
		got[of.Name] = len(of.Members)
	}
	return got
}
