package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/dealseal/dealseal/mocks/hostile"
)

const goodMain = `state_dir: /var/lib/dealseal
master_key: credential:master-key
signing:
  keys:
    house: {kind: soft, file: key.pem, passphrase: "credential:passphrase"}
  tsa: [{url: "http://127.0.0.1:1/tsa"}]
  trust: [root.pem]
  profiles:
    contract: {key: house}
`

const goodTenant = `tenant: {id: acme, environment: sandbox, time_zone: Europe/Paris}
crm:
  kind: salesforce
  with: {my_domain: "https://acme.my.salesforce.com"}
rules:
  - id: order-form
    when: {stage: Closed Won}
    document: {template: order-form@1}
    seal: contract
    write_back: {transaction_id: Tx__c, status: {field: Status__c}}
`

// loginKey is a configuration with a key in the token of one that seals, which bears the label l.
func loginKey(names string) string {
	return fallBack("", "") + "login_keys:\n  crm: {module: /m.so, token: t, pin: \"file:/pin\", " + names + "}\n"
}

// fallBack is a configuration with two HSM keys, which say this besides.
func fallBack(house, spare string) string {
	const key = "{%skind: pkcs11, module: /m.so, token: t, label: l, pin: \"file:/pin\", certificates: c.pem}"
	return strings.Replace(goodMain, `{kind: soft, file: key.pem, passphrase: "credential:passphrase"}`, fmt.Sprintf(key+"\n    spare: "+key, house, spare), 1)
}

const aPin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// behind is an API behind proxies.
func behind(says string) string {
	return "api:\n  listen: \"127.0.0.1:8444\"\n  tls: {certificate: c.pem, key: \"credential:k\"}\n  proxies: {" + says + "}\n"
}

func TestProxiesAreNamedByAddressesAndNetworks(t *testing.T) {
	c, err := load(t, goodMain+behind("addresses: [10.1.2.3, 192.0.2.0/28, \"2001:db8::7\", 127.0.0.1], certificates: [p.pem], header: Client-Cert, client_ca: ca.pem"), goodTenant)
	if err != nil {
		t.Fatal(err)
	}
	networks, _ := c.API.Proxies.Networks()
	if got := fmt.Sprint(networks); got != "[10.1.2.3/32 192.0.2.0/28 2001:db8::7/128 127.0.0.1/32]" {
		t.Errorf("they are %s", got)
	}
}

// vaultKey is a configuration with a vault-transit key, which says this besides.
func vaultKey(says string) string {
	return strings.Replace(goodMain, `{kind: soft, file: key.pem, passphrase: "credential:passphrase"}`, "{kind: vault-transit, certificates: c.pem, "+says+"}", 1)
}

func load(t *testing.T, main string, tenants ...string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "dealseal.yaml")
	if err := os.WriteFile(path, []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tenants"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, text := range tenants {
		if err := os.WriteFile(filepath.Join(dir, "tenants", string(rune('a'+i))+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(path)
}

func TestAGoodConfigurationGetsItsDefaults(t *testing.T) {
	c, err := load(t, goodMain, goodTenant)
	if err != nil {
		t.Fatal(err)
	}
	r := c.Loaded[0].Rules[0]
	if c.Listen.Admin != "127.0.0.1:8484" || c.Signing.Profiles["contract"].Level != "B-T" || r.Object != "Opportunity" || r.IfLeft != "hold" || r.AuditTrail != "audit-trail@1" {
		t.Errorf("defaults are not applied: %+v %+v", c, r)
	}
	if !strings.HasSuffix(c.Templates, "/templates") || !filepath.IsAbs(c.Templates) {
		t.Errorf("templates = %q", c.Templates)
	}
}

func TestWhatIsMadeInASandboxIsMarkedUnlessThatIsSwitchedOff(t *testing.T) {
	for name, c := range map[string]struct{ identity, want string }{
		"usual":       {"environment: sandbox", "TEST – not a contract"},
		"empty":       {`environment: sandbox, test_mark: ""`, "TEST – not a contract"},
		"other words": {"environment: sandbox, test_mark: ESSAI", "ESSAI"},
		"off":         {"environment: sandbox, test_mark: off", ""},
		"production":  {"environment: production", ""},
	} {
		loaded, err := load(t, fallBack("fall_back: [spare], ", ""), strings.Replace(goodTenant, "environment: sandbox", c.identity, 1)) // production takes no soft key
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := loaded.Loaded[0].Tenant.Mark(); got != c.want {
			t.Errorf("%s: the mark is %q, want %q", name, got, c.want)
		}
	}
}

func TestWrongConfigurationsSayWhereAndWhatIsRight(t *testing.T) {
	cases := []struct {
		name, main string
		tenants    []string
		want       []string
	}{
		{"unknown key", strings.Replace(goodMain, "state_dir", "state_dri", 1), []string{goodTenant}, []string{"dealseal.yaml:1", `did you mean "state_dir"`}},
		{"unknown nested key", strings.Replace(goodMain, "{key: house}", "{key: house, levle: B-T}", 1), []string{goodTenant}, []string{"dealseal.yaml:9", `"signing.profiles.contract.levle"`, `did you mean "level"`}},
		{"second document", goodMain + "---\nx: 1\n", []string{goodTenant}, []string{"dealseal.yaml", "second document"}},
		{"empty file", "", []string{goodTenant}, []string{"is empty"}},
		{"key given twice", goodMain + "state_dir: /x\n", []string{goodTenant}, []string{"dealseal.yaml:10", "given twice", "line 1"}},
		{"plain-text secret", strings.Replace(goodMain, "credential:master-key", "hunter2hunter2", 1), []string{goodTenant}, []string{"dealseal.yaml:2", "master_key"}},
		{"unknown profile", goodMain, []string{strings.Replace(goodTenant, "seal: contract", "seal: contrakt", 1)}, []string{"a.yaml:9", `did you mean "contract"`}},
		{"a signer picked from a list", goodMain, []string{strings.Replace(goodTenant, "seal: contract", "signer: {email: contacts.0.email}\n    seal: contract", 1)}, []string{"a.yaml:9", "without numbers of a list"}},
		{"a signer of two persons", goodMain, []string{strings.Replace(goodTenant, "seal: contract", "signer: {email: contacts.email, name: [owner.name]}\n    seal: contract", 1)}, []string{"a.yaml:9", "owner.name is not beside contacts.email"}},
		{"a signer without an address", goodMain, []string{strings.Replace(goodTenant, "seal: contract", "signer: {name: [contacts.name]}\n    seal: contract", 1)}, []string{"a.yaml:9", "no path of a field"}},
		{"unknown key name", strings.Replace(goodMain, "{key: house}", "{key: hous}", 1), []string{goodTenant}, []string{"dealseal.yaml:9", `did you mean "house"`}},
		{"tenant twice", goodMain, []string{goodTenant, goodTenant}, []string{"b.yaml:1", `tenant id "acme" is already`}},
		{"rule twice", goodMain, []string{goodTenant + strings.SplitN(goodTenant, "rules:\n", 2)[1]}, []string{"a.yaml:11", "already that of the rule in line 6"}},
		{"soft key in production", goodMain, []string{strings.Replace(goodTenant, "sandbox", "production", 1)}, []string{"a.yaml:9", "soft key"}},
		{"template and attachment", goodMain, []string{strings.Replace(goodTenant, "order-form@1}", `order-form@1, attachment: "*.pdf"}`, 1)}, []string{"a.yaml:8", "exactly one"}},
		{"bad duration", goodMain + "retry: {first: soon}\n", []string{goodTenant}, []string{"dealseal.yaml:10", "duration"}},
		{"alias", strings.Replace(goodTenant, "{id: acme", "&x {id: acme", 1) + "x: *x\n", nil, []string{"dealseal.yaml:1"}},
		{"B-T without TSA", strings.Replace(goodMain, `[{url: "http://127.0.0.1:1/tsa"}]`, "[]", 1), []string{goodTenant}, []string{"signing.tsa is empty"}},
		{"B-LTA without TSA", strings.Replace(strings.Replace(goodMain, "{key: house}", "{key: house, level: B-LTA}", 1), `[{url: "http://127.0.0.1:1/tsa"}]`, "[]", 1), []string{goodTenant}, []string{"asks for B-LTA and signing.tsa is empty"}},
		{"a floor below the least", strings.Replace(goodMain, "{key: house}", "{key: house, min_rsa: 1024}", 1), []string{goodTenant}, []string{"dealseal.yaml:9", "less than 2048 bits are never taken"}},
		{"a digest below the floor", strings.Replace(goodMain, "{key: house}", "{key: house, min_hash: SHA-384}", 1), []string{goodTenant}, []string{"dealseal.yaml:9", "below its own min_hash"}},
		{"detection by hope", goodMain, []string{strings.Replace(goodTenant, "    seal:", "    detect: hope\n    seal:", 1)}, []string{"a.yaml:9", "history or snapshot"}},
		{"snapshots of what has a history", goodMain, []string{strings.Replace(goodTenant, "    seal:", "    detect: snapshot\n    seal:", 1)}, []string{"a.yaml:9", "every Opportunity"}},
		{"snapshots at HubSpot", goodMain, []string{strings.NewReplacer("salesforce\n", "hubspot\n", "    seal:", "    detect: snapshot\n    seal:").Replace(goodTenant)}, []string{"a.yaml:9", "of every property"}},
		{"an object polled in two ways", goodMain, []string{strings.Replace(goodTenant, "    when:", "    object: Order\n    when:", 1) +
			strings.NewReplacer("id: order-form", "id: other", "    when:", "    object: Order\n    detect: snapshot\n    when:").Replace(strings.SplitN(goodTenant, "rules:\n", 2)[1])},
			[]string{"a.yaml:14", "watches the same object"}},
		{"bad start", goodMain, []string{strings.Replace(goodTenant, "    seal:", "    start_from: yesterday\n    seal:", 1)}, []string{"a.yaml:9", "2026-11-20T08:00:00Z"}},
		{"tab", strings.Replace(goodMain, "  keys", "\tkeys", 1), []string{goodTenant}, []string{"dealseal.yaml:4", "spaces, never with tabs"}},
		{"no port to listen at", goodMain + "listen: {admin: localhost}\n", []string{goodTenant}, []string{"dealseal.yaml:10", "127.0.0.1:8484"}},
		{"an API in plain text", goodMain + "api: {listen: \":8444\"}\n", []string{goodTenant}, []string{"dealseal.yaml:10", "api.tls is missing", "never sent in plain text"}},
		{"an API in plain text, by a name", goodMain + "api: {listen: \"seal.example:8444\"}\n", []string{goodTenant}, []string{"dealseal.yaml:10", "api.tls is missing"}},
		{"an API without a key", goodMain + "api: {listen: \":8444\", tls: {certificate: c.pem}}\n", []string{goodTenant}, []string{"dealseal.yaml:10", "api.tls.key is missing"}},
		{"a proxy that may be anybody", goodMain + behind("addresses: [10.1.2.3, 0.0.0.0/0], header: X-Client-Cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "large part of the internet"}},
		{"a proxy that may be anybody with IPv6", goodMain + behind("addresses: [\"::/0\"], header: X-Client-Cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "large part of the internet"}},
		{"a proxy within a network", goodMain + behind("addresses: [10.1.2.3/24], header: X-Client-Cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "within 10.1.2.0/24"}},
		{"a proxy by its name", goodMain + behind("addresses: [edge.example], header: X-Client-Cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "no address such as 10.1.2.3"}},
		{"all of IPv4 in IPv6", goodMain + behind("addresses: [\"::ffff:0.0.0.0/96\"], header: X-Client-Cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "as one of IPv4"}},
		{"a header without proxies", goodMain + behind("header: X-Client-Cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "api.proxies.addresses is missing"}},
		{"proxies without a header", goodMain + behind("addresses: [10.1.2.3], client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "api.proxies.header is missing"}},
		{"a header that nobody sends", goodMain + behind("addresses: [10.1.2.3], header: x-client-cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", `it must be X-Client-Cert or Client-Cert`}},
		{"proxies without a CA", goodMain + behind("addresses: [10.1.2.3], header: Client-Cert"), []string{goodTenant}, []string{"dealseal.yaml:13", "api.proxies.client_ca is missing"}},
		{"a proxy on this machine without a certificate", goodMain + behind("addresses: [\"::1\"], header: Client-Cert, client_ca: ca.pem"), []string{goodTenant}, []string{"dealseal.yaml:13", "is this machine", "certificates"}},
		{"proxies without TLS", strings.Replace(goodMain+behind("addresses: [127.0.0.1], certificates: [p.pem], header: Client-Cert, client_ca: ca.pem"), "  tls: {certificate: c.pem, key: \"credential:k\"}\n", "", 1), []string{goodTenant}, []string{"dealseal.yaml:12", "api.proxies needs api.tls"}},
		{"a pin of another kind", strings.Replace(goodMain, "http://127.0.0.1:1/tsa\"", "https://tsa.example\", pins: [sha1/AAAA]", 1), []string{goodTenant}, []string{"dealseal.yaml:6", "is no pin", "such as sha256/"}},
		{"a pin where nothing is presented", strings.Replace(goodMain, "http://127.0.0.1:1/tsa\"", "http://127.0.0.1:1/tsa\", pins: ["+aPin+"]", 1), []string{goodTenant}, []string{"dealseal.yaml:6", "needs an https address"}},
		{"pins of one host that differ", strings.Replace(goodMain, "http://127.0.0.1:1/tsa\"", "https://tsa.example/a\", pins: ["+aPin+"]}, {url: \"https://TSA.example/b\"", 1), []string{goodTenant}, []string{"dealseal.yaml:6", "signing.tsa[1] has other pins than signing.tsa[0]"}},
		{"a pin of a CRM of another kind", goodMain, []string{strings.Replace(goodTenant, "  kind: salesforce\n", "  kind: salesforce\n  pins: {acme.my.salesforce.com: [AAAA]}\n", 1)}, []string{"a.yaml:4", "is no pin"}},
		{"an API nowhere", goodMain + "api: {per_token: 5}\n", []string{goodTenant}, []string{"dealseal.yaml:10", "api.listen is missing"}},
		{"an API that answers nobody", goodMain + "api: {listen: \"127.0.0.1:8485\", per_token: -1}\n", []string{goodTenant}, []string{"dealseal.yaml:10", "api.per_token is -1"}},
		{"no profile at all", strings.Replace(goodMain, "contract: {key: house}", "{}", 1), []string{goodTenant}, []string{`"contract", which is not under signing.profiles`}},
		{"a mark on what counts", goodMain, []string{strings.Replace(strings.Replace(goodTenant, "environment: sandbox", "environment: production", 1), "{id: acme", "{id: acme, test_mark: TEST", 1)}, []string{"a.yaml:1", "production makes is never marked"}},
		{"a mark that nobody sees", goodMain, []string{strings.Replace(goodTenant, "{id: acme", `{id: acme, test_mark: " "`, 1)}, []string{"a.yaml:1", "warns nobody"}},
		{"a mark of two lines", goodMain, []string{strings.Replace(goodTenant, "{id: acme", `{id: acme, test_mark: "A\nB"`, 1)}, []string{"a.yaml:1", "in one line"}},
		{"tasks for nobody", goodMain, []string{goodTenant + "tasks: {due: 2}\n"}, []string{"a.yaml:11", "nobody is given a task"}},
		{"a task due never", goodMain, []string{goodTenant + "tasks: {owner: true, due: 999}\n"}, []string{"a.yaml:11", "0 to 365"}},
		{"no tenants", goodMain, nil, []string{"no tenant file"}},
		{"falls back on nothing", fallBack("fall_back: [spore], ", ""), []string{goodTenant}, []string{"dealseal.yaml:5", "fall_back[0]", `did you mean "spare"`}},
		{"falls back on itself", fallBack("fall_back: [house], ", ""), []string{goodTenant}, []string{"dealseal.yaml:5", "itself"}},
		{"falls back in a circle", fallBack("fall_back: [spare], ", "fall_back: [house], "), []string{goodTenant}, []string{"dealseal.yaml:5", "fall_back of its own"}},
		{"stands in twice", fallBack("fall_back: [spare, spare], ", ""), []string{goodTenant}, []string{"dealseal.yaml:5", `stands in for "house" already`}},
		{"falls back without proof", strings.Replace(fallBack("fall_back: [spare], ", ""), "certificates: c.pem", "", 1), []string{goodTenant}, []string{"dealseal.yaml:5", "name their certificates"}},
		{"falls back on a soft key", strings.Replace(fallBack("fall_back: [spare], ", ""), "spare: {kind: pkcs11", "spare: {kind: soft", 1), []string{goodTenant}, []string{"dealseal.yaml:5", "for evaluation"}},
		{"touched too often", fallBack("keep_alive: 1s, ", ""), []string{goodTenant}, []string{"dealseal.yaml:5", "10s to 1h"}},
		{"a key that seals and logs in", loginKey("label: l"), []string{goodTenant}, []string{"login_keys.crm is the key signing.keys.house, which seals"}},
		{"a key that seals and logs in, by its ID, too", loginKey("label: l, id: 01"), []string{goodTenant}, []string{"login_keys.crm is the key signing.keys.house, which seals"}},
		{"a login without a key", loginKey(""), []string{goodTenant}, []string{"login_keys.crm.label is missing"}},
		{"a key of another kind", strings.Replace(goodMain, "{kind: soft", "{module: /m.so, kind: soft", 1), []string{goodTenant}, []string{"dealseal.yaml:5", "signing.keys.house.module is for keys of kind pkcs11"}},
		{"a vault without a section", vaultKey("timeout: 5s"), []string{goodTenant}, []string{"dealseal.yaml:5", "signing.keys.house.vault is missing: a vault-transit key needs it"}},
		{"a vault's token in plain text", vaultKey("vault: {token: hunter2}"), []string{goodTenant}, []string{"dealseal.yaml:5", "signing.keys.house.vault.token"}},
		{"a vault's key misspelt", vaultKey("vault: {verson: 3}"), []string{goodTenant}, []string{"dealseal.yaml:5", `did you mean "version"`}},
		{"a vault with a PIN", vaultKey(`vault: {}, pin: "file:/pin"`), []string{goodTenant}, []string{"dealseal.yaml:5", "signing.keys.house.pin is for keys of kind pkcs11"}},
		{"a vault with a region", vaultKey(`vault: {}, aws: {region: x}`), []string{goodTenant}, []string{"dealseal.yaml:5", "signing.keys.house.aws is for keys of kind aws-kms"}},
		{"unknown kind", strings.Replace(goodMain, "kind: soft", "kind: aws", 1), []string{goodTenant}, []string{"dealseal.yaml:5", "it must be pkcs11, vault-transit, aws-kms, gcp-kms, azure-keyvault or soft"}},
		{"a limit of nothing", goodMain, []string{goodTenant + "    guard: {per_hour: 0}\n"}, []string{"a.yaml:11", "rules[0].guard.per_hour", "from 1 to 1000000, or off"}},
		{"a limit of many", goodMain, []string{goodTenant + "guard: {per_day: many}\n"}, []string{"a.yaml:11", "guard.per_day", "or off"}},
		{"a limit that a tenant has not", goodMain, []string{goodTenant + "guard: {first_run: 3}\n"}, []string{"a.yaml:11", `unknown key "guard.first_run"`}},
		{"follow-up too soon", goodMain, []string{strings.Replace(goodTenant, "Status__c}}", "Status__c}, follow_up: {after: 10m}}", 1)}, []string{"a.yaml:10", "1h to 365d"}},
		{"note of no status", goodMain, []string{strings.Replace(goodTenant, "Status__c}}", "Status__c}, timeline: [signed, hold]}", 1)}, []string{"a.yaml:10", "there are notes for", `did you mean "held"`}},
		{"note twice", goodMain, []string{strings.Replace(goodTenant, "Status__c}}", "Status__c}, timeline: [held, held]}", 1)}, []string{"a.yaml:10", "held is listed twice"}},
		{"follow-up over the status", goodMain, []string{strings.Replace(goodTenant, "Status__c}}", "Status__c}, follow_up: {field: Status__c}}", 1)}, []string{"a.yaml:10", "a date/time field of its own"}},
		{"move for no status", goodMain, []string{strings.Replace(goodTenant, "    seal:", "    move: {sigend: X}\n    seal:", 1)}, []string{"a.yaml:", `not for "sigend"`, `did you mean "signed"`}},
		{"move to nowhere", goodMain, []string{strings.Replace(goodTenant, "    seal:", "    move: {signed: ''}\n    seal:", 1)}, []string{"move.signed is empty"}},
		{"unknown status", goodMain, []string{strings.Replace(goodTenant, "{field: Status__c}", "{field: Status__c, values: {sigend: X}}", 1)}, []string{"a.yaml:10", `did you mean "signed"`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.main, c.tenants...)
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
}

func TestWhatNeedsNoCRMDoesNotReadTenants(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dealseal.yaml")
	if err := os.WriteFile(path, []byte(goodMain), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadWithoutTenants(path); err != nil {
		t.Error(err)
	}
	if _, err := LoadWithoutTenants(path + ".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file is %v", err)
	}
}

func TestTheStateDirectoryIsFoundInAFileThatIsWrongInOtherWays(t *testing.T) {
	const dir = "/var/lib/dealseal"
	for name, text := range map[string]string{
		"right":           goodMain,
		"unknown key":     "state_dir: " + dir + "\nlistn: {}\n",
		"missing keys":    "state_dir: \"" + dir + "\" # here\n",
		"not YAML":        "listen:\n\tadmin: 127.0.0.1:8484\nstate_dir: " + dir + "\n",
		"second document": "state_dir: " + dir + "\n---\n{}\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dealseal.yaml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := StateDir(path)
			if err != nil || got != dir {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestAFileWithoutAStateDirectoryIsRefusedWithAllThatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"none":     {"listn: {}\n", "unknown key \"listn\""},
		"relative": {"state_dir: state\n", "dealseal.yaml:1: state_dir must be an absolute path"},
		"a list":   {"state_dir: [/var]\n", "state_dir must be a single value"},
		"not YAML": {"\tstate_dir: /var\n", "is not YAML"},
		"empty":    {"", "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dealseal.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := StateDir(path)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if _, err := StateDir(filepath.Join(t.TempDir(), "missing.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file is %v", err)
	}
}

func TestTheConnectorsPartIsDecodedStrictly(t *testing.T) {
	c, err := load(t, goodMain, strings.Replace(goodTenant, "my_domain:", "my_domian:", 1))
	if err != nil {
		t.Fatal(err)
	}
	var with struct {
		MyDomain string `yaml:"my_domain"`
	}
	err = c.Loaded[0].DecodeWith(&with)
	if err == nil || !strings.Contains(err.Error(), "a.yaml:4") || !strings.Contains(err.Error(), `did you mean "my_domain"`) {
		t.Errorf("got %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(goodMain)
	f.Add(goodTenant)
	f.Add("a: &a [*a]\n")
	f.Add("? [x]: y\n---\n")
	f.Add("\tx\nstate_dir: /var\n")
	f.Fuzz(func(t *testing.T, text string) {
		hostile.Budget(t)
		if dir := stateDirIn("f.yaml", []byte(text)); dir != "" && !filepath.IsAbs(dir) {
			t.Errorf("the state directory is %q", dir)
		}
		root, err := parse("f.yaml", []byte(text))
		if err != nil {
			return
		}
		var c Config
		if Decode("f.yaml", root, &c) == nil {
			c.File, c.root = "f.yaml", root
			c.defaults()
			c.check()
		}
		tenant := Tenant{File: "t.yaml", root: root}
		if Decode("t.yaml", root, &tenant) == nil {
			tenant.defaults()
			(&Config{Loaded: []Tenant{tenant}, root: &yaml.Node{}}).checkTenants()
		}
	})
}

func TestLimitsOfTheGuard(t *testing.T) {
	c, err := load(t, goodMain, goodTenant+"    guard: {per_hour: 7, same_user: off}\nguard: {per_day: \"9\"}\n")
	if err != nil {
		t.Fatal(err)
	}
	rule, all := c.Loaded[0].Rules[0].Guard, c.Loaded[0].Guard
	for i, l := range []struct{ got, want int }{{rule.PerHour.Or(1), 7}, {rule.SameUser.Or(2), 0}, {rule.FirstRun.Or(3), 3}, {all.PerDay.Or(4), 9}, {all.PerHour.Or(5), 5}} {
		if l.got != l.want {
			t.Errorf("limit %d is %d, want %d", i, l.got, l.want)
		}
	}
}

func TestDurationsMayBeWrittenInWeeksAndDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 168 * time.Hour, "2w": 336 * time.Hour, "1w1d12h": 204 * time.Hour, "90m": 90 * time.Minute} {
		c, err := load(t, goodMain, strings.Replace(goodTenant, "Status__c}}", "Status__c}, follow_up: {after: "+text+"}}", 1))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.Loaded[0].Rules[0].WriteBack.FollowUp.After; got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"7", "d", "7days", "1d1w", "1.5d", "-7d", "99999999d"} {
		_, err := load(t, goodMain, strings.Replace(goodTenant, "Status__c}}", "Status__c}, follow_up: {after: "+text+"}}", 1))
		if err == nil || !strings.Contains(err.Error(), "a.yaml:10") || !strings.Contains(err.Error(), "must be") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
