package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withNotify reads a good file with these lines added.
func withNotify(t *testing.T, lines string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dealseal.yaml")
	text := "state_dir: /var/lib/dealseal\nmaster_key: credential:master-key\nsigning: {keys: {house: {kind: soft, file: /k, passphrase: credential:p}}, trust: [/r.pem], profiles: {p: {key: house, level: B-B}}}\n" + lines
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadWithoutTenants(path)
}

func TestNotifyHasDefaults(t *testing.T) {
	c, err := withNotify(t, "notify:\n  mail: {server: \"smtp.example.com:465\", from: seal@example.com, user: seal, password: \"credential:smtp\"}\n  channels: [{id: ops, mail: ops@example.com}]\n")
	if err != nil {
		t.Fatal(err)
	}
	n := c.Notify
	if n.Gather != 30*time.Second || n.Again != 15*time.Minute || n.Mail.Security != "tls" {
		t.Errorf("%+v", n)
	}
	day, at, on, err := n.WeeklyAt()
	if day != time.Monday || at != 7*time.Hour || !on || err != nil {
		t.Errorf("%s %s %t %v", day, at, on, err)
	}
}

func TestHeadersMayBeReferences(t *testing.T) {
	c, err := withNotify(t, "notify:\n  channels: [{id: own, shape: custom, url: \"https://x.example\", body: x, headers: {X-Team: a}, headers_from: {Authorization: \"credential:own\"}}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if from := c.Notify.Channels[0].HeadersFrom["Authorization"]; from.String() != "credential:own" {
		t.Errorf("%s", from)
	}
}

func TestNotifyMistakesAreToldWithTheirLine(t *testing.T) {
	const mail = "notify:\n  mail: {server: \"smtp.example.com:587\", from: seal@example.com}\n  channels:\n"
	for lines, want := range map[string]string{
		"notify: {page: \"https://seal.example.com/\"}":                    "notify.page",
		"notify: {gather: 1h}":                                             "notify.gather",
		"notify: {again: 1s}":                                              "notify.again",
		"notify: {weekly: Someday}":                                        "notify.weekly",
		"notify:\n  mail: {server: smtp.example.com, from: a@example.com}": "notify.mail.server",
		"notify:\n  mail: {server: \"smtp.example.com:25\", security: none, from: a@example.com}":                               "notify.mail.security",
		"notify:\n  mail: {server: \"smtp.example.com:25\", security: ssl, from: a@example.com}":                                "must be starttls, tls or none",
		"notify:\n  mail: {server: \"smtp.example.com:25\", from: nobody}":                                                      "notify.mail.from",
		"notify:\n  mail: {server: \"smtp.example.com:25\", from: a@example.com, user: x}":                                      "user and password",
		"notify:\n  mail: {server: \"127.0.0.1:25\", security: none, from: a@example.com, user: x, password: \"credential:p\"}": "without TLS",
		"notify:\n  channels: [{id: ops, mail: ops@example.com}]":                                                               "notify.mail is missing",
		mail + "    - {id: Ops, mail: ops@example.com}":                                                                         "channels.0.id",
		mail + "    - {id: ops}": "either mail or a shape",
		mail + "    - {id: ops, mail: ops@example.com, shape: slack}":                                                                                "either mail or a shape",
		mail + "    - {id: ops, mail: \"a@example.com, b@example.com\"}":                                                                             "one address",
		mail + "    - {id: ops, mail: ops@example.com}\n    - {id: ops, mail: b@example.com}":                                                        "already that of the one in line 7",
		mail + "    - {id: ops, shape: slack}":                                                                                                       "url",
		mail + "    - {id: ops, shape: pagerduty}":                                                                                                   "key",
		mail + "    - {id: ops, shape: teams, url: \"https://x.example\"}":                                                                           "pagerduty, slack or custom",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\"}":                                                                          "body",
		mail + "    - {id: ops, shape: slack, url: \"https://x.example\", url_from: \"credential:x\"}":                                               "not both",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\", body: x, headers: {Authorization: \"Bearer hunter2\"}}":                   "notify.channels.0.headers: what Authorization holds is a secret: say under headers_from",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\", body: x, headers: {X-Api-Key: hunter2}}":                                  "what X-Api-Key holds is a secret",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\", body: x, headers: {\"X Team\": a}}":                                       "no name of a header",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\", body: x, headers_from: {Authorization: hunter2}}":                         "not a reference to a secret",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\", body: x, headers_from: {\"X Team\": \"credential:x\"}}":                   "no name of a header",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\", body: x, headers: {X-Team: a}, headers_from: {x-team: \"credential:x\"}}": "under headers as well",
		mail + "    - {id: ops, shape: custom, url: \"https://x.example\", body: x, headers_from: {X-Team: }}":                                       "X-Team is empty",
		mail + "    - {id: ops, mail: ops@example.com, headers_from: {Authorization: \"credential:x\"}}":                                             "are those of a shape",
	} {
		_, err := withNotify(t, lines)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is quoted: %v", err)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "dealseal.yaml:") {
			t.Errorf("%s:\n%v, want %q", lines, err, want)
		}
	}
}
