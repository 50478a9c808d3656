package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// TestADrillRestoresABackupThatWasMadeUnderLoadAndSealsNothingTwice is what an operator should rehearse: a backup while
// deals of every kind are under way, more deals, the loss of the machine, a restore elsewhere.
func TestADrillRestoresABackupThatWasMadeUnderLoadAndSealsNothingTwice(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	type drill struct {
		c                          crm
		done, waits, untold, never string
		load                       []string
	}
	var all []drill
	checkpoint, backup, dir := s.path("checkpoint"), s.path("backup.age"), s.path("copy")
	quote := sale{quote: quotation(1)}
	for _, c := range s.crms {
		d := drill{c: c, done: c.open(sale{}), waits: c.open(sale{nobody: true}), untold: c.open(quote), never: c.open(quote)}
		c.move(d.done, ruleContract)
		c.move(d.waits, ruleContract)
		awaitDone(t, s.ops, d.done)
		awaitHeld(t, s.ops, d.waits, 1, "customer")
		c.refuseUpdates()
		c.move(d.untold, ruleMemo)
		await(t, s.ops, d.untold, 1, "not told", func(m store.Summary) bool { return m.Condition == deal.Dead })
		c.heal()
		all = append(all, d)
	}
	s.mustRun(t, "tenants", "pause", "contoso", "--why", "its template is looked at")
	s.mustRun(t, "backup", s.path("paused"))
	s.mustRun(t, "tenants", "resume", "contoso", "--why", "it is good")
	out := s.mustRun(t, "restore", s.path("paused"), "--to", s.path("paused-copy"))
	for _, says := range []string{"paused after the backup", "it knows that contoso is paused", "its template is looked at"} {
		if !strings.Contains(out, says) {
			t.Errorf("restore does not say %q:\n%s", says, out)
		}
	}
	s.mustRun(t, "audit", "checkpoint", "-o", checkpoint)
	for i, d := range all {
		for range 4 {
			r := d.c.open(quote)
			all[i].load = append(all[i].load, r)
			d.c.move(r, ruleMemo)
		}
	}
	await(t, s.ops, all[0].load[0], 1, "noticed", func(store.Summary) bool { return true })
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	must(t, os.WriteFile(s.path("identity"), []byte(identity.String()+"\n"), 0o600))
	s.mustRun(t, "backup", backup, "--recipient", identity.Recipient().String())
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info, err)
	}
	if text := fetch(t, http.DefaultClient, s.daemon.page()+"/metrics", http.StatusOK); !strings.Contains(text, "\ndealseal_backup_timestamp_seconds 1.") {
		t.Error("no metric tells of the backup")
	}
	for i, d := range all {
		late := d.c.open(quote) // the backup knows nothing of it
		all[i].load = append(all[i].load, late)
		d.c.move(late, ruleMemo)
		for _, r := range all[i].load {
			awaitDone(t, s.ops, r)
		}
	}
	s.daemon.stop(t)
	for _, d := range all {
		d.c.move(d.never, ruleMemo) // nobody can prove that it was not sealed
	}

	s.mustRun(t, "backup", "verify", backup, "--identity", s.path("identity"))
	out = s.mustRun(t, "restore", backup, "--to", dir, "--identity", s.path("identity"))
	if !strings.Contains(out, "the audit log is whole") {
		t.Errorf("restore says:\n%s", out)
	}
	s.configureAs(t, s.path("copy.yaml"), dir)
	must(t, os.Symlink(filepath.Join(repository(t), "build", "renderer-cache"), filepath.Join(dir, "renderer")))
	original := s.config
	s.config = s.path("copy.yaml")
	s.mustRun(t, "audit", "verify", "--checkpoint", checkpoint)
	d := s.start(t)
	ops := s.control(t, dir)
	for _, m := range all {
		mustUseTheKey(t, awaitDone(t, ops, m.done), 1)
		for _, r := range m.load {
			settle(t, ops, r)
			awaitDone(t, ops, r)
			mustBear(t, m.c, r, 1)
		}
		awaitHeld(t, ops, m.never, 1, "[restored]")
		mustBear(t, m.c, m.never, 0)
		conclude(t, ops, "release", sealings(t, ops, m.never)[0].Tx)
		awaitDone(t, ops, m.never)
		mustBear(t, m.c, m.never, 1)
		mustUseTheKey(t, awaitDone(t, ops, m.untold), 1)
		mustBear(t, m.c, m.untold, 1)
		awaitHeld(t, ops, m.waits, 1, "customer")
	}
	s.mustRun(t, "audit", "verify", "--checkpoint", checkpoint)
	d.stop(t)
	s.config = original
}

// mustRun runs a command that must succeed.
func (w *world) mustRun(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	stdout, stderr, code := w.run(t, args...)
	if code != exitOK {
		t.Fatalf("dealseal %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}
