package config

import (
	"os"
	"strings"
	"testing"
	"time"
)

const goodSignIn = `sign_in:
  page: https://seal.example.com
  issuer: https://login.example.com/realms/acme
  client_id: dealseal
  client_secret: credential:sign-in
  claim: groups
  roles:
    - {value: seal-admins, role: admin}
    - {value: staff, role: viewer}
`

func TestSignInHasDefaults(t *testing.T) {
	c, err := withNotify(t, goodSignIn)
	if err != nil {
		t.Fatal(err)
	}
	s := c.SignIn
	if s.Who != "email" || s.Lasts != 12*time.Hour || strings.Join(s.Scopes, " ") != "email profile" || len(s.Roles) != 2 {
		t.Errorf("%+v", s)
	}
	if c, err := withNotify(t, ""); err != nil || c.SignIn != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestIssuersMayEndInASlash(t *testing.T) {
	if _, err := withNotify(t, strings.Replace(goodSignIn, "realms/acme", "", 1)); err != nil {
		t.Error(err)
	}
}

// What people copy must be right.
func TestTheExamplesOfSignInAreGood(t *testing.T) {
	example, err := os.ReadFile("../deploy/examples/dealseal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(example), "# sign_in:\n")
	block, _, _ = strings.Cut(block, "\n\n")
	doc, err := os.ReadFile("../docs/signin.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "```yaml\n")
	section, _, _ = strings.Cut(section, "```")
	for name, lines := range map[string]string{"deploy/examples": "sign_in:\n" + strings.ReplaceAll("\n"+block, "\n# ", "\n") + "\n", "docs": section} {
		c, err := withNotify(t, lines)
		if err != nil || c.SignIn == nil {
			t.Errorf("%s: %v\n%s", name, err, lines)
		}
	}
}

func TestSignInMistakesAreToldWithTheirLine(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"page: https://seal.example.com", "page: https://seal.example.com/", ":5: sign_in.page is"},
		{"page: https://seal.example.com", "page: https://seal.example.com/seal", ":5: sign_in.page is"},
		{"page: https://seal.example.com", "page: http://seal.example.com", ":5: sign_in.page is"},
		{"page: https://seal.example.com\n", "page:\n", ":5: sign_in.page is"},
		{"issuer: https://login", "issuer: http://login", ":6: sign_in.issuer is"},
		{"realms/acme", "realms/acme?x=1", ":6: sign_in.issuer is"},
		{"  client_id: dealseal\n", "", ":4: sign_in.client_id is"},
		{"credential:sign-in", "hunter2", "client_secret"},
		{"  client_secret: credential:sign-in\n", "", ":4: sign_in.client_secret is missing"},
		{"claim: groups", "claim: \" groups\"", ":9: sign_in.claim is"},
		{"value: staff", "value: seal-admins", ":12: sign_in.roles.1: the value \"seal-admins\" already has a role in line 11"},
		{"role: viewer", "role: \"\"", ":12: sign_in.roles.1: both"},
		{"claim: groups", "claim: groups\n  lasts: 13h", ":10: sign_in.lasts is 13h"},
		{"claim: groups", "claim: groups\n  scopes: [a b]", ":10: sign_in.scopes.0 is"},
		{"claim: groups", "claim: groups\n  isuer: x", "did you mean \"issuer\"?"},
		{goodSignIn[strings.Index(goodSignIn, "  roles:"):], "", ":4: sign_in.roles is missing"},
	} {
		_, err := withNotify(t, strings.Replace(goodSignIn, c.old, c.new, 1))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %s", c.new, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is quoted: %v", err)
		}
	}
}
