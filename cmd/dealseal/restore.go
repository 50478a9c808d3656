package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// restoreCommand makes a state directory of a backup.
func restoreCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 || len(c.backup.recipients) > 0 || c.backup.databaseOnly {
		return usagef("name the backup to restore")
	}
	var cfg *config.Config
	if c.backup.to == "" || c.masterKey == "" { // otherwise there is nothing that it has to say
		var err error
		if cfg, err = config.LoadWithoutTenants(c.config); err != nil {
			return err
		}
	}
	key, err := c.masterKeyOf(cfg)
	if err != nil {
		return err
	}
	to := c.backup.to
	if to == "" {
		to = cfg.StateDir
	}
	dir, err := realPath(to)
	if err != nil {
		return err
	}
	b, err := c.openBackup(c.args[0])
	if err != nil {
		return err
	}
	defer b.Close()
	done, err := store.Restore(ctx, b, store.RestoreOptions{Dir: dir, MasterKey: key})
	if err != nil {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	c.describe(dir+" now holds", done.BackupInfo)
	c.whatNext(dir, done)
	return nil
}

// realPath follows the link that systemd puts in the place of a state directory, even when what it leads to was moved away.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if target, err := os.Readlink(dir); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(dir), target)
		}
		return target, nil
	}
	return dir, nil
}

// whatNext says what a person has to look at after a restore.
func (c *call) whatNext(dir string, done *store.Restored) {
	var underWay, waiting int64
	for _, n := range done.Counts {
		switch {
		case n.Condition.Waiting():
			waiting += n.N
		case n.Step != deal.Done:
			underWay += n.N
		}
	}
	key := ""
	if c.masterKey != "" {
		key = " --master-key " + c.masterKey
	}
	say := func(format string, args ...any) { fmt.Fprintf(c.stdout, format+"\n", args...) }
	say("the audit log is whole: %d entries; %d deals are under way, %d wait for a person", done.Audit.Head.Size, underWay, waiting)
	say("\nBefore you start a daemon on it:")
	say("  1. make sure that no other daemon works for the same CRMs: two would both seal what comes next")
	if c.backup.to != "" {
		say("  2. name %s as state_dir in its configuration", dir)
	}
	say("  3. compare the log with a checkpoint that was kept elsewhere: dealseal audit verify --checkpoint FILE%s", key)
	if done.Archive {
		say("  4. take in what was archived while the backup was written: dealseal recover%s", key)
	} else {
		say("  4. put the archive to %s and then: dealseal recover%s", filepath.Join(dir, "archive"), key)
	}
	say("  5. have tenants wait again that were paused after the backup, which it does not know: dealseal tenants pause TENANT --why \"…\"%s", key)
	for _, p := range done.Pauses {
		say("     it knows that %s is paused, since %s: %s", p.Tenant, p.Since.Format("2006-01-02 15:04:05 MST"), p.Why)
	}
	say("Then start it. Entries from before the restore that bear no proof of what became of them are held as [restored]:")
	say("  6. look at each with dealseal jobs; release it if no contract of it exists, else drop it")
	say("  7. HubSpot's OAuth logins may have moved on since: the page shows which tenants need a new one")
}
