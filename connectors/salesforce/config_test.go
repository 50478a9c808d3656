package salesforce

import (
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

const goodConfig = `
my_domain: https://acme.my.salesforce.com
auth: {flow: jwt, consumer_key: 3MVG9, username: seal@acme.example, private_key: "credential:sf-key"}
`

func decode(t *testing.T, text string) (Config, error) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return DecodeConfig(doc.Content[0])
}

func TestConfigFillsInDefaults(t *testing.T) {
	cfg, err := decode(t, goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.APIVersion != "66.0" || cfg.Poll != time.Minute || cfg.Overlap != 10*time.Minute || cfg.Auth.Audience != "https://login.salesforce.com" {
		t.Errorf("defaults: %+v", cfg)
	}
	sandbox, err := decode(t, strings.Replace(goodConfig, "acme.my", "acme--uat.sandbox.my", 1)+"poll: 30s\n")
	if err != nil {
		t.Fatal(err)
	}
	if sandbox.Auth.Audience != "https://test.salesforce.com" || sandbox.Poll != 30*time.Second {
		t.Errorf("sandbox: %+v", sandbox)
	}
}

func TestConfigNamesTheKeyAndTheCure(t *testing.T) {
	replace := func(old, new string) string { return strings.Replace(goodConfig, old, new, 1) }
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":         {goodConfig + "pol: 30s\n", "pol"},
		"no domain":           {replace("my_domain: https://acme.my.salesforce.com", "poll: 60s"), "my_domain: is missing"},
		"plain http":          {replace("https:", "http:"), "my_domain: scheme"},
		"domain with path":    {replace(".com\n", ".com/services?x=1\n"), "my_domain: has more"},
		"unknown flow":        {replace("jwt", "password"), "auth.flow"},
		"no key":              {replace(`, private_key: "credential:sf-key"`, ""), "auth.private_key"},
		"secret in the clear": {replace("credential:sf-key", "hunter2"), "credential:NAME"},
		"no user":             {replace("username: seal@acme.example, ", ""), "auth.username"},
		"unused secret":       {replace("auth: {", `auth: {client_secret: "env:X", `), "auth.client_secret"},
		"poll too short":      {goodConfig + "poll: 5s\n", "poll: 5s is too short"},
		"timeout too short":   {goodConfig + "timeout: 100ms\n", "timeout: 100ms is out of range"},
		"transfer too long":   {goodConfig + "transfer_timeout: 1h\n", "transfer_timeout: 1h0m0s is out of range"},
		"overlap too long":    {goodConfig + "overlap: 48h\n", "overlap"},
		"retired version":     {goodConfig + `api_version: "30.0"` + "\n", "api_version"},
		"no version":          {goodConfig + "api_version: v66\n", "api_version"},
		"marker not custom":   {goodConfig + "tx_marker: Title\n", "tx_marker"},
		"client credentials":  {replace("flow: jwt", "flow: client_credentials"), "auth.client_secret"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(t, tc.text)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats a secret: %v", err)
			}
		})
	}
	for _, loopback := range []string{"http://127.0.0.1:8201", "http://[::1]:8201", "http://localhost:8201"} {
		if _, err := decode(t, replace("https://acme.my.salesforce.com", `"`+loopback+`"`)+"poll: 200ms\n"); err != nil {
			t.Errorf("%s: %v", loopback, err)
		}
	}
}
