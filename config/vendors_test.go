package config

import (
	"strings"
	"testing"
	"time"
)

const publicMain = goodMain + "listen: {public: \"127.0.0.1:8443\", url: \"https://seal.example.com\"}\n"

const delegatedTenant = `tenant: {id: acme, environment: production}
crm: {kind: salesforce, with: {my_domain: "https://acme.my.salesforce.com"}}
vendors:
  - {name: certyneo, secrets: ["credential:certyneo"], documents: "https://api.example.com/v1/", token: "credential:token"}
rules:
  - id: sales
    when: {stage: Quote Sent}
    delegated: {vendor: certyneo, envelope: Certyneo_Transaction_ID__c}
    write_back: {transaction_id: Tx__c, status: {field: Status__c}}
`

func TestARuleMayLeaveTheSigningToAVendor(t *testing.T) {
	c, err := load(t, publicMain, delegatedTenant)
	if err != nil {
		t.Fatal(err)
	}
	d := c.Loaded[0].Rules[0].Delegated
	if d == nil || d.Level != "B-B" || d.Patience != 720*time.Hour || c.Loaded[0].Rules[0].IfLeft != "" {
		t.Errorf("defaults are not applied: %+v", d)
	}
}

func TestWrongVendorsSayWhereAndWhatIsRight(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"no vendor of that name":  {"{vendor: certyneo,", "{vendor: certineo,", []string{"a.yaml:8", `did you mean "certyneo"`}},
		"no vendor":               {"{vendor: certyneo, ", "{", []string{"a.yaml:8", "delegated.vendor is missing"}},
		"no field":                {", envelope: Certyneo_Transaction_ID__c", "", []string{"a.yaml:8", "delegated.envelope is missing"}},
		"a field of ours":         {"Certyneo_Transaction_ID__c", "Tx__c", []string{"a.yaml:8", "which write_back overwrites"}},
		"a follow-up's field":     {"{field: Status__c}}", "{field: Status__c}, follow_up: {field: Certyneo_Transaction_ID__c}}", []string{"a.yaml:8", "which write_back overwrites"}},
		"no level":                {"_ID__c}", "_ID__c, level: B-X}", []string{"a.yaml:8", "B-LTA or any"}},
		"no patience":             {"_ID__c}", "_ID__c, patience: 5m}", []string{"a.yaml:8", "1h to 365d"}},
		"a document as well":      {"    delegated:", "    document: {template: order-form@1}\n    delegated:", []string{"a.yaml:8", "a rule that is delegated has none"}},
		"a seal as well":          {"    delegated:", "    seal: contract\n    delegated:", []string{"a.yaml:8", "no key is used"}},
		"if it left":              {"    delegated:", "    if_left: void\n    delegated:", []string{"a.yaml:8", "asked before a seal"}},
		"drift":                   {"{field: Status__c}}", "{field: Status__c}, drift: {field: Drift__c}}", []string{"a.yaml:9", "was made elsewhere"}},
		"no secret":               {`secrets: ["credential:certyneo"], `, "", []string{"a.yaml:4", "nothing is believed that is not signed"}},
		"a secret in plain text":  {`"credential:certyneo"`, `"hunter2"`, []string{"a.yaml:4", "vendors[0].secrets[0]"}},
		"no place for documents":  {`documents: "https://api.example.com/v1/", `, "", []string{"a.yaml:4", "documents is missing"}},
		"a header for no token":   {`, token: "credential:token"`, ", header: X-API-Key", []string{"a.yaml:4", "token is missing"}},
		"twice":                   {"rules:", "  - {name: certyneo, secrets: [\"credential:x\"], documents: \"https://x/\"}\nrules:", []string{"a.yaml:5", "already in line 4"}},
		"neither sealed nor such": {"    delegated: {vendor: certyneo, envelope: Certyneo_Transaction_ID__c}\n", "", []string{"a.yaml:6", "exactly one of template and attachment"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(delegatedTenant, c.old, c.new, 1)
			if text == delegatedTenant {
				t.Fatalf("%q is not there", c.old)
			}
			_, err := load(t, publicMain, text)
			if err == nil {
				t.Fatal("was accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q:\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error repeats a secret: %v", err)
			}
		})
	}
	if _, err := load(t, goodMain, delegatedTenant); err == nil || !strings.Contains(err.Error(), "vendors need listen.public") {
		t.Errorf("without a public listener: %v", err)
	}
}
