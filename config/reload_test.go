package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// edited is what a daemon that began with goodMain and goodTenant finds at a reload.
func edited(t *testing.T, main string, tenants map[string]string) (running, next *Config, restart []string, err error) {
	t.Helper()
	running, err = load(t, goodMain, goodTenant)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(running.File, []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range tenants {
		path := filepath.Join(running.Tenants, name)
		if text == "" {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	next, restart, err = running.Reload()
	return running, next, restart, err
}

func TestAReloadTakesTenantFilesFoldersAndTheLogLevel(t *testing.T) {
	main := goodMain + "templates: /srv/templates\nlog: {level: debug}\nnotify: {gather: 5s, channels: [{id: ops, shape: slack, url: \"https://chat.example.com/hook\"}]}\n"
	other := strings.Replace(goodTenant, "id: acme", "id: other", 1)
	running, next, restart, err := edited(t, main, map[string]string{"a.yaml": strings.Replace(goodTenant, "Closed Won", "Signed Off", 1), "b.yaml": other})
	if err != nil || len(restart) > 0 {
		t.Fatal(restart, err)
	}
	if next.Templates != "/srv/templates" || next.Log.Level != "debug" || next.Notify.Gather != 5*time.Second || len(next.Notify.Channels) != 1 || len(next.Loaded) != 2 || next.Loaded[0].Rules[0].When.Stage != "Signed Off" {
		t.Errorf("not taken: %+v", next)
	}
	if running.Log.Level != "info" || len(running.Loaded) != 1 || running.Loaded[0].Rules[0].When.Stage != "Closed Won" {
		t.Errorf("what runs was changed: %+v", running)
	}
}

func TestAReloadNamesTheKeysThatTakeARestartAndKeepsWhatRuns(t *testing.T) {
	main := strings.NewReplacer("/var/lib/dealseal", "/srv/state", "{key: house}", "{key: house, level: B-B}\n    memo: {key: house}", "file: key.pem", "file: other.pem").Replace(goodMain) +
		"listen: {hosts: [seals.example]}\nretry: {attempts: 3}\nlog: {format: json}\n"
	running, next, restart, err := edited(t, main, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"state_dir", "listen.hosts", "signing.keys.house.file", "signing.profiles.contract.level", "signing.profiles.memo", "log.format", "retry.attempts"}
	if diff := cmp.Diff(want, restart); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(running.Signing.Profiles, next.Signing.Profiles); diff != "" || next.StateDir != running.StateDir {
		t.Errorf("what takes a restart was taken:\n%s", diff)
	}
}

func TestAReloadWithAMistakeIsRefusedWithFileAndLine(t *testing.T) {
	for name, c := range map[string]struct {
		main    string
		tenants map[string]string
		want    string
	}{
		"in dealseal.yaml":                      {goodMain + "lisetn: {}\n", nil, `dealseal.yaml:10: unknown key "lisetn"`},
		"in a key that takes a restart":         {goodMain + "retry: {first: 5m, max: 1m}\n", nil, "dealseal.yaml:10: retry.first"},
		"in a tenant file":                      {goodMain, map[string]string{"a.yaml": strings.Replace(goodTenant, "sandbox", "sandbx", 1)}, "a.yaml:1: tenant.environment"},
		"a tenant twice":                        {goodMain, map[string]string{"b.yaml": goodTenant}, `b.yaml:1: tenant id "acme" is already`},
		"no tenant left":                        {goodMain, map[string]string{"a.yaml": ""}, "holds no tenant file"},
		"a profile that is there after a start": {strings.Replace(goodMain, "{key: house}", "{key: house}\n    memo: {key: house}", 1), map[string]string{"a.yaml": strings.Replace(goodTenant, "seal: contract", "seal: memo", 1)}, `a.yaml:9: seal is "memo", which is new under signing.profiles: that takes a restart`},
	} {
		t.Run(name, func(t *testing.T) {
			_, next, _, err := edited(t, c.main, c.tenants)
			if err == nil || !strings.Contains(err.Error(), c.want) || next != nil {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
		})
	}
}
