//go:build service

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/deal"
)

// TestTheServiceUnderSystemd is run by scripts/service-test.sh as root of a container that systemd has booted, with the
// package to be tried in DEALSEAL_DEB: it installs, configures, starts and mistreats the service as a site would.
func TestTheServiceUnderSystemd(t *testing.T) {
	s := &site{t: t, world: newWorld(t, worldOptions{hsm: true})}
	s.install()
	s.configure()
	s.start()
	s.seals("after the start")
	s.isConfined()
	s.knowsWhoIsRoot()
	s.reloads()
	s.isRestartedByTheWatchdog()
	s.drains()
	s.isRestoredByRoot()
	s.isUpgradedAndRemoved()
}

// site is a machine with the service.
type site struct {
	*world
	t *testing.T
}

const (
	unit       = "dealseal.service"
	masterCopy = "/media/safe/master-key" // as a site keeps one for a restore
)

// saw prints a line of the report.
func (s *site) saw(format string, args ...any) {
	fmt.Printf("  ok  %s\n", fmt.Sprintf(format, args...))
}

// try runs a command of the machine.
func (s *site) try(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// do is try for what must work.
func (s *site) do(name string, args ...string) string {
	s.t.Helper()
	out, err := s.try(name, args...)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, s.journal())
	}
	return out
}

func (s *site) journal() string {
	s.do("journalctl", "--sync")
	out, _ := s.try("journalctl", "-u", unit, "-o", "cat", "-n", "3000", "--no-pager")
	return out
}

func (s *site) property(name string) string {
	s.t.Helper()
	return s.do("systemctl", "show", "-P", name, unit)
}

func (s *site) want(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Fatalf("%s is %q, want %q\n%s", what, got, want, s.journal())
	}
}

func (s *site) install() {
	deb := os.Getenv("DEALSEAL_DEB")
	s.do("dpkg", "-i", deb)
	enabled, _ := s.try("systemctl", "is-enabled", unit)
	s.want("after the installation the unit", enabled, "disabled")
	s.do("systemctl", "start", unit)
	s.want("the state of a service that is not configured", s.property("ActiveState"), "inactive")
	s.want("its condition", s.property("ConditionResult"), "no")
	s.saw("%s is installed; without a configuration nothing starts", filepath.Base(deb))
}

// configure puts the world's files where a site has them, and its secrets into encrypted credentials.
func (s *site) configure() {
	t := s.t
	must(t, os.Chmod(s.dir, 0o755))
	config, err := os.ReadFile(s.config)
	must(t, err)
	text := string(config)
	credentials := []string{"[Service]", "SupplementaryGroups=softhsm", "ReadWritePaths=" + s.path("token"), "WatchdogSec=6s"}
	replace := []string{strconv.Quote(s.stateDir), "/var/lib/dealseal", "127.0.0.1:0", "127.0.0.1:8484",
		filepath.Join(repository(t), "templates"), "/usr/share/dealseal/templates", filepath.Join(repository(t), "build/typst.wasm"), "/usr/lib/dealseal/typst.wasm"}
	must(t, os.MkdirAll("/etc/credstore.encrypted", 0o700))
	for _, file := range s.secretFiles() {
		name := file
		switch file { // those that the unit itself loads
		case "master":
			name = "master-key"
		case "pin":
			name = "hsm-pin"
		default:
			credentials = append(credentials, "LoadCredentialEncrypted="+name+":dealseal."+name)
		}
		s.do("systemd-creds", "encrypt", "--name="+name, s.path(file), "/etc/credstore.encrypted/dealseal."+name)
		if file == "master" {
			s.do("install", "-D", "-m", "600", s.path(file), masterCopy)
		}
		must(t, os.Remove(s.path(file)))
		replace = append(replace, strconv.Quote("file:"+s.path(file)), "credential:"+name)
	}
	for _, file := range []string{"root.pem", "seal.pem"} {
		s.do("install", "-m", "644", s.path(file), "/etc/dealseal/"+file)
		replace = append(replace, s.path(file), "/etc/dealseal/"+file)
	}
	rewritten := strings.NewReplacer(replace...)
	must(t, os.WriteFile("/etc/dealseal/dealseal.yaml", []byte(rewritten.Replace(text)), 0o644))
	for _, c := range s.crms {
		b, err := os.ReadFile(s.path("tenants/" + c.tenant() + ".yaml"))
		must(t, err)
		must(t, os.WriteFile(s.tenantFile(c), []byte(rewritten.Replace(string(b))), 0o644))
	}
	s.do("chgrp", "-R", "softhsm", s.path("token"))
	s.do("chmod", "-R", "g+rwX,o-rwx", s.path("token"))
	dir := "/etc/systemd/system/dealseal.service.d"
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(dir+"/site.conf", []byte(strings.Join(credentials, "\n")+"\n"), 0o644))
	s.do("systemctl", "daemon-reload")
}

// secretFiles are those that the configuration names.
func (s *site) secretFiles() (names []string) {
	files := []string{s.config}
	for _, c := range s.crms {
		files = append(files, s.path("tenants/"+c.tenant()+".yaml"))
	}
	reference := regexp.MustCompile(`"file:` + regexp.QuoteMeta(s.dir) + `/([^"]+)"`)
	for _, file := range files {
		b, err := os.ReadFile(file)
		must(s.t, err)
		for _, found := range reference.FindAllStringSubmatch(string(b), -1) {
			names = append(names, found[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *site) tenantFile(c crm) string { return "/etc/dealseal/tenants/" + c.tenant() + ".yaml" }

func (s *site) start() {
	began := time.Now()
	s.do("systemctl", "start", unit)
	s.want("the state", s.property("ActiveState"), "active")
	s.want("the status", s.property("StatusText"), "2 tenants, 0 deals in the works")
	s.saw("it is ready after %s, as user %s, with encrypted credentials and SoftHSM: %q", time.Since(began).Round(100*time.Millisecond), s.do("ps", "-o", "user=", "-p", s.property("MainPID")), s.property("StatusText"))
}

// seals has a deal in each CRM go the whole way.
func (s *site) seals(when string) {
	s.t.Helper()
	for _, c := range s.crms {
		began := time.Now()
		record := c.open(sale{})
		c.move(record, ruleContract)
		s.shows(c, record)
		mustBear(s.t, c, record, 1)
		s.saw("%s a deal of %s is sealed and shown as Signed in %s", when, c.kind(), time.Since(began).Round(10*time.Millisecond))
	}
}

func (s *site) shows(c crm, record string) {
	s.t.Helper()
	eventually(s.t, "the record shows Signed", func() (bool, string) {
		now := c.shown(record)["status"]
		return now == deal.WriteBack{}.Word(deal.StatusSigned), now + "\n" + s.journal()
	})
}

var exposure = regexp.MustCompile(`Overall exposure level for dealseal.service: ([0-9.]+)`)

func (s *site) isConfined() {
	t := s.t
	found := exposure.FindStringSubmatch(s.do("systemd-analyze", "security", "--no-pager", unit))
	if found == nil {
		t.Fatal("systemd-analyze security gives no level")
	}
	if level, err := strconv.ParseFloat(found[1], 64); err != nil || level > 1.5 {
		t.Errorf("the exposure level is %s, at most 1.5 is wanted", found[1])
	}
	children := strings.Fields(s.do("pgrep", "-f", "^dealseal-worker "))
	var names []string
	for _, pid := range children {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		must(t, err)
		for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("child %s is not confined (%q):\n%s", pid, want, status)
			}
		}
		cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
		must(t, err)
		names = append(names, strings.ReplaceAll(strings.Trim(string(cmdline), "\x00"), "\x00", " "))
	}
	if len(names) == 0 {
		t.Error("no child runs")
	}
	landlock := "and Landlock"
	if abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 {
		landlock = "without Landlock, which this kernel does not have"
	} else if strings.Contains(s.journal(), "no Landlock") {
		t.Errorf("the kernel has Landlock %d, but the unit does not let the daemon use it", abi)
	}
	for dir, mode := range map[string]string{"/var/lib/private": "700", "/var/lib/private/dealseal": "700"} {
		s.want("the mode of "+dir, s.do("stat", "-c", "%a", dir), mode)
	}
	slices.Sort(names)
	s.saw("exposure level %s; %s under seccomp %s", found[1], strings.Join(slices.Compact(names), ", "), landlock)
}

func (s *site) edit(c crm, old, new string) {
	s.t.Helper()
	b, err := os.ReadFile(s.tenantFile(c))
	must(s.t, err)
	must(s.t, os.WriteFile(s.tenantFile(c), []byte(strings.Replace(string(b), old, new, 1)), 0o644))
}

func (s *site) reloads() {
	t, c := s.t, s.crms[0]
	pid := s.property("MainPID")
	s.edit(c, "name: House Ltd", "name: Palace Ltd")
	s.do("systemctl", "reload", unit)
	if log := s.journal(); !strings.Contains(log, "changed: "+c.tenant()) {
		t.Errorf("the reload is not in the journal:\n%s", log)
	}
	s.reloadsNoMistakeIn("/etc/dealseal/dealseal.yaml")
	s.edit(c, "environment: sandbox", "environment: sandbx")
	if out, err := s.try("systemctl", "reload", unit); err == nil {
		t.Errorf("a mistake is reloaded without complaint: %s", out)
	}
	if log := s.journal(); !strings.Contains(log, c.tenant()+`.yaml:1: tenant.environment is "sandbx"`) {
		t.Errorf("the journal does not name file and line:\n%s", log)
	}
	s.want("the state after a reload that failed", s.property("ActiveState"), "active")
	status := s.property("StatusText")
	if !strings.Contains(status, "the last reload failed") {
		t.Errorf("the status is %q", status)
	}
	s.edit(c, "environment: sandbx", "environment: sandbox")
	s.do("systemctl", "kill", "--kill-who=main", "--signal=HUP", unit)
	eventually(t, "the status is well again", func() (bool, string) {
		now := s.property("StatusText")
		return !strings.Contains(now, "failed"), now
	})
	s.want("the main process after reloads", s.property("MainPID"), pid)
	s.saw("it is reloaded by systemctl and by SIGHUP; a mistake fails the reload with file and line, and shows as %q", status)
	s.seals("after the reloads")
}

// reloadsNoMistakeIn has a file that no command could read as a whole.
func (s *site) reloadsNoMistakeIn(file string) {
	good, err := os.ReadFile(file)
	must(s.t, err)
	must(s.t, os.WriteFile(file, append(good, "\tnonsense\n"...), 0o644))
	if out, err := s.try("systemctl", "reload", unit); err == nil {
		s.t.Errorf("%s is reloaded with a mistake: %s", file, out)
	}
	if status := s.property("StatusText"); !strings.Contains(status, "the last reload failed") {
		s.t.Errorf("the daemon was not told of the mistake in %s: %q", file, status)
	}
	s.do("dealseal", "jobs")
	must(s.t, os.WriteFile(file, good, 0o644))
	s.do("systemctl", "reload", unit)
}

func (s *site) isRestartedByTheWatchdog() {
	t := s.t
	pid := s.property("MainPID")
	s.do("kill", "-STOP", pid)
	began := time.Now()
	eventually(t, "the watchdog starts another", func() (bool, string) {
		now := s.property("MainPID")
		return now != pid && now != "0" && s.property("ActiveState") == "active", s.property("ActiveState") + "\n" + s.journal()
	})
	s.want("the number of restarts", s.property("NRestarts"), "1")
	if log := s.journal(); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("the journal does not say why:\n%s", log)
	}
	if left := strings.Fields(s.do("pgrep", "-f", "^dealseal-worker ")); len(left) == 0 {
		t.Error("no child runs")
	}
	s.saw("a stopped main process is ended by the watchdog and another is ready after %s", time.Since(began).Round(100*time.Millisecond))
	s.seals("after the watchdog")
}

// knowsWhoIsRoot has a person who became root log in to the page.
func (s *site) knowsWhoIsRoot() {
	const person = "4242"
	s.do("useradd", "--uid", person, "alice")
	invited := s.do("sh", "-c", "echo "+person+" > /proc/self/loginuid && exec dealseal admin login")
	if !strings.HasSuffix(invited, "logs in root (alice).") {
		s.t.Errorf("the daemon does not know who became root: %s", invited)
	}
	s.saw("of root it knows who became so")
}

// drains stops the service during an upload, which must not be begun twice.
func (s *site) drains() {
	t, c := s.t, s.crms[0]
	stopped := make(chan time.Duration, 1)
	uploads := 0
	s.at(0, c.uploads, func() {
		stopping := make(chan struct{})
		go func() {
			began := time.Now()
			close(stopping)
			s.try("systemctl", "stop", unit)
			stopped <- time.Since(began)
		}()
		<-stopping
		eventually(t, "the stop begins", func() (bool, string) {
			now := s.property("StatusText")
			return strings.HasPrefix(now, "stopping"), now
		})
		uploads++
	})
	record := c.open(sale{})
	c.move(record, ruleContract)
	var took time.Duration
	select {
	case took = <-stopped:
	case <-time.After(2 * time.Minute):
		t.Fatal("the service does not stop\n" + s.journal())
	}
	s.want("the result of the stop", s.property("Result"), "success")
	mustBear(t, c, record, 1)
	if log := s.journal(); !strings.Contains(log, "msg=stopped took=") {
		t.Errorf("the stop is not in the journal:\n%s", log)
	}
	if left, _ := s.try("pgrep", "-f", "^dealseal-worker "); left != "" {
		t.Errorf("children are left: %s", left)
	}
	if _, err := os.Stat("/var/lib/private/dealseal/dealseal.db-wal"); err == nil {
		t.Error("the write-ahead log is not merged")
	}
	s.saw("SIGTERM during an upload lets it finish: stopped after %s, one contract on the record, no child, no WAL", took.Round(10*time.Millisecond))
	s.do("systemctl", "start", unit)
	s.shows(c, record)
	mustBear(t, c, record, 1)
	s.saw("the next start finishes the deal with the same contract")
}

// isRestoredByRoot follows the runbook: the service is stopped, and its user and credentials are gone with it.
func (s *site) isRestoredByRoot() {
	const backup, dir = "/var/backups/dealseal.tar", "/var/lib/private/dealseal"
	key := []string{"--master-key", "file:" + masterCopy}
	s.do("systemctl", "stop", unit)
	if out, err := s.try("dealseal", "audit", "verify"); err == nil || !strings.Contains(out, "--master-key") {
		s.t.Errorf("without credentials no cure is named: %s", out)
	}
	s.do("dealseal", append([]string{"audit", "verify"}, key...)...)
	s.do("dealseal", append([]string{"backup", backup}, key...)...)
	s.do("systemctl", "start", unit)
	s.seals("after root has worked on the state")
	s.do("systemctl", "stop", unit)
	s.do("mv", dir, dir+".before")
	s.do("dealseal", append([]string{"restore", backup}, key...)...)
	s.do("dealseal", append([]string{"audit", "verify"}, key...)...)
	s.do("dealseal", append([]string{"recover"}, key...)...)
	s.do("systemctl", "start", unit)
	s.saw("root checks, backs up and restores the state while the service is stopped, and the service starts on it")
}

func (s *site) isUpgradedAndRemoved() {
	t := s.t
	pid := s.property("MainPID")
	s.do("dpkg", "-i", os.Getenv("DEALSEAL_DEB"))
	if now := s.property("MainPID"); now == pid || now == "0" {
		t.Errorf("after the upgrade the main process is %s, was %s", now, pid)
	}
	s.seals("after the upgrade")
	s.do("dpkg", "-r", "dealseal")
	if left, _ := s.try("pgrep", "-x", "dealseal"); left != "" {
		t.Errorf("after the removal it still runs: %s", left)
	}
	purged := s.do("dpkg", "-P", "dealseal")
	if !strings.Contains(purged, "is kept") {
		t.Errorf("the purge says: %s", purged)
	}
	for _, kept := range []string{"/var/lib/private/dealseal/dealseal.db", "/etc/dealseal/dealseal.yaml"} {
		if _, err := os.Stat(kept); err != nil {
			t.Errorf("the purge has removed what is not its own: %v", err)
		}
	}
	s.saw("an upgrade restarts it, a removal stops it, a purge keeps contracts and configuration")
}
