package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// desk is a configuration with a state directory of its own, and what an operator types.
type desk struct {
	t    *testing.T
	file string
	cfg  *config.Config
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	o, dir := newOffice(t), t.TempDir()
	d := &desk{t: t, file: filepath.Join(dir, "dealseal.yaml")}
	other := strings.NewReplacer("$WORK", dir, "id: acme", "id: other").Replace(goodTenant)
	if err := errors.Join(o.write(dir), os.Mkdir(filepath.Join(dir, "state"), 0o700), os.Mkdir(filepath.Join(dir, "tenants"), 0o700),
		os.WriteFile(filepath.Join(dir, "tenants/other.yaml"), []byte(other), 0o600),
		os.WriteFile(d.file, fmt.Appendf(nil, goodConfiguration, dir, dir, o.tsa()), 0o600)); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.cfg, err = config.LoadWithoutTenants(d.file); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) open() *store.Store {
	d.t.Helper()
	s, err := openStore(d.t.Context(), d.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *desk) tenants() ([]config.Tenant, error) {
	all, err := config.Load(d.file)
	if err != nil {
		return nil, err
	}
	return all.Loaded, nil
}

// types runs a command and returns what it prints.
func (d *desk) types(want int, args ...string) string {
	d.t.Helper()
	var out, complaints bytes.Buffer
	if code := run(append(args, "--config", d.file), strings.NewReader(""), &out, &complaints); code != want {
		d.t.Fatalf("dealseal %s: exit code %d, want %d\n%s", strings.Join(args, " "), code, want, complaints.String())
	}
	return out.String() + complaints.String()
}

// deals puts deals into the ledger that a step has held, oldest first.
func deals(t *testing.T, s *store.Store, n int) (txs []deal.TxID) {
	t.Helper()
	ctx, start := t.Context(), time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	const tenant, account, rule = deal.TenantID("acme"), deal.AccountID("salesforce:00D000000000001"), "order-form"
	watch := deal.Watch{Rule: rule, Object: "Opportunity", Stage: "Closed Won"}
	if _, err := s.Activate(ctx, tenant, account, watch, start.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	previous, err := s.Cursor(ctx, tenant, account)
	if err != nil {
		t.Fatal(err)
	}
	page := deal.Page{Next: deal.Cursor{Since: start}, Quarantined: []deal.Quarantine{{Ref: deal.Ref{Object: "Opportunity", ID: "006odd"}, Row: "h\x1b[2J9", Reason: "no stage", At: start}}}
	for i := range n {
		page.Entries = append(page.Entries, deal.Change{Rule: rule, Ref: deal.Ref{Object: "Opportunity", ID: fmt.Sprintf("006%d", i)}, Stage: "Closed Won", Occurrence: "1", At: start})
	}
	plan := deal.Plan{TenantName: "Acme", Rule: rule, Stage: "Closed Won", Profile: []byte("{}"), Template: "order-form@1", WriteBack: deal.WriteBack{TransactionID: "Tx__c", Status: "Status__c"}}
	if txs, err = s.Notice(ctx, deal.Noticing{Tenant: tenant, Account: account, Previous: previous, Plans: map[string]deal.Plan{rule: plan}, Watches: map[string]deal.Watch{rule: watch}, Page: page}); err != nil {
		t.Fatal(err)
	}
	for _, tx := range txs {
		held, err := s.Load(ctx, tx)
		if err != nil {
			t.Fatal(err)
		}
		held.Condition, held.Reason = deal.Held, "[left] the record left\x1b[2J its stage"
		if err := s.Advance(ctx, held, deal.Entry{Who: "daemon", What: "held", Why: held.Reason}); err != nil {
			t.Fatal(err)
		}
	}
	return txs
}

// TestWhatWaitsIsListedDecidedAndExplained is the same with a daemon and without one.
func TestWhatWaitsIsListedDecidedAndExplained(t *testing.T) {
	t.Parallel()
	t.Run("in the state directory", func(t *testing.T) {
		d := newDesk(t)
		s := d.open()
		txs := deals(t, s, 3)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		d.decides(txs)
	})
	t.Run("over the control socket", func(t *testing.T) {
		d := newDesk(t)
		s := d.open()
		txs := deals(t, s, 3)
		l, err := listenControl(d.cfg.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- serveControl(ctx, slog.New(slog.DiscardHandler), l, &local{Store: s, configured: d.tenants}, nil)
		}()
		d.decides(txs)
		stop()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	})
}

func (d *desk) decides(txs []deal.TxID) {
	d.t.Helper()
	oldest, middle, newest := string(txs[0]), string(txs[1]), string(txs[2])
	expect := func(got string, want ...string) {
		d.t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				d.t.Errorf("%q is not in:\n%s", w, got)
			}
		}
		if strings.Contains(got, "\x1b") {
			d.t.Errorf("an escape sequence reaches the terminal: %q", got)
		}
	}
	expect(d.types(exitOK, "jobs"), oldest, middle, newest, "acme", "held", "[left] the record left")
	expect(d.types(exitOK, "explain", oldest), "Closed Won", "template order-form@1", "dealseal jobs release "+oldest, "the record left", "daemon")
	// The CRM was never told of these deals, so there is something to be tried again; the hold stays.
	expect(d.types(exitOK, "jobs", "retry", oldest), oldest+": tried again")
	expect(d.types(exitOK, "jobs"), "held")
	expect(d.types(exitOK, "jobs", "drop", newest, "--why", "customer withdrew"), newest+": dropped")
	expect(d.types(exitOK, "jobs", "drop", middle, "--why", "customer withdrew"), middle+": dropped")

	// What is finished does not use up the places of what waits.
	if got := d.types(exitOK, "jobs", "-n", "1"); !strings.Contains(got, oldest) || strings.Contains(got, newest) {
		d.t.Errorf("one deal waits, and the list is:\n%s", got)
	}
	expect(d.types(exitOK, "jobs", "--all", "-n", "1"), newest)
	const unknown = `there is no tenant with the id "othr": there are acme, other`
	expect(d.types(exitOK, "jobs", "--tenant", "other"), "nothing is in the works")
	for _, args := range [][]string{{"jobs"}, {"jobs", "--all"}, {"jobs", "--json"}, {"jobs", "retry", "all"}} {
		expect(d.types(exitFailed, append(args, "--tenant", "othr")...), unknown)
	}
	expect(d.types(exitOK, "jobs", "release", oldest, "--why", "left by mistake"), oldest+": released")
	expect(d.types(exitOK, "explain", oldest), "left by mistake")
	expect(d.types(exitOK, "explain", newest, "--json"), `"customer withdrew"`)
	expect(d.types(exitOK, "jobs", "seen"), "Opportunity/006odd", "no stage")
	expect(d.types(exitUsage, "jobs", "seen", "all"), "--why")
	expect(d.types(exitFailed, "jobs", "seen", "another", "--why", "looked"), "no row")
	expect(d.types(exitOK, "jobs", "seen", "h\x1b[2J9", "--why", "moved it again"), "dealt with: 1 row")
	expect(d.types(exitOK, "jobs", "seen", "--json"), "[]")
	expect(d.types(exitOK, "audit", "verify"), "the audit log is whole", "3 deals agree")
	checkpoint := filepath.Join(d.t.TempDir(), "checkpoint")
	d.types(exitOK, "audit", "checkpoint", "-o", checkpoint)
	d.types(exitOK, "audit", "verify", "--checkpoint", checkpoint)
}

func TestStateOfAnotherUserIsLeftAlone(t *testing.T) {
	dir := "/" // root's
	if os.Geteuid() == 0 {
		dir = t.TempDir()
		if err := os.Chown(dir, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	err := checkStateDir(&config.Config{StateDir: dir})
	var foreign *foreignError
	if !errors.As(err, &foreign) || !strings.Contains(err.Error(), dir+" belongs to ") {
		t.Errorf("got %v", err)
	}
}

// After a restore, or when the daemon cannot start, there is root alone, without the service's credentials.
func TestRootWorksOnAStoppedServicesStateWithACopyOfTheMasterKey(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: root's commands on the state directory of the daemon's user; run as root")
	}
	const user = 61999
	d := newDesk(t)
	if err := d.open().Close(); err != nil {
		t.Fatal(err)
	}
	own := func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, user, user))
	}
	if err := filepath.WalkDir(d.cfg.StateDir, own); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.file)
	must(t, err)
	reference, key := d.cfg.MasterKey.String(), "file:"+filepath.Join(filepath.Dir(d.file), "copy-of-the-key")
	must(t, os.Rename(strings.TrimPrefix(reference, "file:"), strings.TrimPrefix(key, "file:")))
	must(t, os.WriteFile(d.file, bytes.Replace(text, []byte(reference), []byte("credential:master-key"), 1), 0o600))

	if said := d.types(exitFailed, "audit", "verify"); !strings.Contains(said, "--master-key file:/PATH") {
		t.Errorf("without the key no cure is named: %s", said)
	}
	tx := strings.Repeat("a", 26)
	d.types(exitOK, "audit", "verify", "--master-key", key)
	d.types(exitOK, "recover", "--master-key", key)
	d.types(exitOK, "jobs", "--master-key", key)
	d.types(exitOK, "backup", filepath.Join(t.TempDir(), "backup.tar"), "--master-key", key)
	if said := d.types(exitFailed, "explain", tx, "--master-key", key); !strings.Contains(said, tx) {
		t.Errorf("explain: %s", said)
	}
	must(t, filepath.WalkDir(d.cfg.StateDir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != user {
			t.Errorf("%s is root's now", name)
		}
		return err
	}))
}
