package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
)

// backupOptions are the flags of backup and restore.
type backupOptions struct {
	databaseOnly             bool
	recipients               []string
	passphrase, identity, to string
}

// backupCommand makes a backup, or reads one to its end.
func backupCommand(ctx context.Context, c *call) error {
	switch {
	case len(c.args) == 2 && c.args[0] == "verify":
		return verifyBackup(ctx, c, c.args[1])
	case len(c.args) != 1 || c.args[0] == "verify":
		return usagef("name the file to write, or \"verify\" and the file to read")
	case c.backup.identity != "":
		return usagef("--identity is for reading a backup; to encrypt one, name its --recipient")
	}
	seal, err := c.sealer()
	if err != nil {
		return err
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	var info store.BackupInfo
	err = writeAtOnce(c.args[0], func(w io.Writer) (err error) {
		sealed, err := seal(w)
		if err != nil {
			return err
		}
		if info, err = ops.Backup(ctx, sealed, !c.backup.databaseOnly); err != nil {
			return err
		}
		return sealed.Close()
	})
	if err != nil {
		return err
	}
	c.describe(c.args[0]+" holds", info)
	if err := ops.NoteBackup(ctx, info); err != nil {
		return fmt.Errorf("the backup is good, but could not be noted as the newest one, so that its alert may ring: %w", err)
	}
	_, err = fmt.Fprintln(c.stdout, "the master key is not in it: without a copy of that, kept elsewhere, the backup cannot be used")
	return err
}

func (c *call) describe(what string, info store.BackupInfo) {
	archive := "with the archive"
	if !info.Archive {
		archive = "without the archive"
	}
	fmt.Fprintf(c.stdout, "%s the state of %s, %s: %d files, %d MiB, %d audit entries\n", what, info.At.Format("2006-01-02 15:04:05 MST"), archive, info.Files, info.Bytes>>20, info.Tree.Size)
}

// sealer returns what puts the encryption that the flags ask for around a backup.
func (c *call) sealer() (func(io.Writer) (io.WriteCloser, error), error) {
	var to []age.Recipient
	for _, r := range c.backup.recipients {
		recipient, err := age.ParseRecipients(strings.NewReader(r))
		if err != nil {
			return nil, usagef("--recipient %q is not one of age's (age1…): %v", r, err)
		}
		to = append(to, recipient...)
	}
	if c.backup.passphrase != "" {
		if len(to) > 0 {
			return nil, usagef("a backup is encrypted to recipients or with a passphrase, not both")
		}
		passphrase, err := readPassphrase(c.backup.passphrase)
		if err != nil {
			return nil, err
		}
		recipient, err := age.NewScryptRecipient(passphrase)
		if err != nil {
			return nil, err
		}
		to = append(to, recipient)
	}
	if len(to) == 0 {
		return func(w io.Writer) (io.WriteCloser, error) { return open{w}, nil }, nil
	}
	return func(w io.Writer) (io.WriteCloser, error) { return age.Encrypt(w, to...) }, nil
}

// open is a backup that is not encrypted.
type open struct{ io.Writer }

func (open) Close() error { return nil }

// readPassphrase reads the first line of a file.
func readPassphrase(file string) (string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	ref, err := secret.ParseRef("file:" + path)
	if err != nil {
		return "", err
	}
	s, err := ref.Resolve()
	if err != nil {
		return "", fmt.Errorf("--passphrase-file: %w", err)
	}
	line, rest, _ := bytes.Cut(s.Reveal(), []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 || len(bytes.TrimSpace(rest)) > 0 {
		return "", fmt.Errorf("--passphrase-file: %s must hold one line", file)
	}
	return string(line), nil
}

// writeAtOnce writes a file for its owner only, which has its name when all of it is on stable storage and not before. It
// never replaces one.
func writeAtOnce(file string, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return alreadyThere(file)
	}
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	out := bufio.NewWriterSize(temp, 1<<20)
	if err := write(out); err != nil {
		return errors.Join(err, temp.Close())
	}
	if err := errors.Join(out.Flush(), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return alreadyThere(file)
	}
	if err := os.Rename(temp.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// verifyBackup needs no configuration: with one it also proves under which master key the backup was made.
func verifyBackup(ctx context.Context, c *call, file string) error {
	b, err := c.openBackup(file)
	if err != nil {
		return err
	}
	defer b.Close()
	key, err := c.knownMasterKey()
	if err != nil {
		return err
	}
	info, err := store.VerifyBackup(ctx, b, key)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	c.describe(file+" is whole and holds", info)
	proof := "it was made under your master key"
	if key == nil {
		proof = "without a master key it cannot be said who made it: name one with --master-key file:/PATH or --config FILE"
	}
	_, err = fmt.Fprintln(c.stdout, proof)
	return err
}

// knownMasterKey is nil on a machine without the usual configuration, if no flag names a key.
func (c *call) knownMasterKey() (*secret.Secret, error) {
	cfg, err := config.LoadWithoutTenants(c.config)
	if c.masterKey == "" && errors.Is(err, fs.ErrNotExist) && c.config == usualConfig {
		return nil, nil
	}
	if c.masterKey == "" && err != nil {
		return nil, err
	}
	key, err := c.masterKeyOf(cfg)
	return &key, err
}

// masterKeyOf returns the key that the flag names, or else the configuration's. A service's credentials cannot be read
// from outside of it.
func (c *call) masterKeyOf(cfg *config.Config) (secret.Secret, error) {
	if c.masterKey != "" {
		ref, err := secret.ParseRef(c.masterKey)
		if err != nil {
			return secret.Secret{}, usagef("--master-key is a reference, such as file:/media/safe/master-key: %v", err)
		}
		return masterKey(ref)
	}
	key, err := masterKey(cfg.MasterKey)
	if err != nil {
		err = cfg.At("master_key", "%v; where the service's credentials cannot be read, name a copy with --master-key file:/PATH", err)
	}
	return key, err
}

// ageHead begins every file that age has encrypted.
const ageHead = "age-encryption.org/v1"

// openedBackup is the plain content of a backup file.
type openedBackup struct {
	io.Reader
	file *os.File
}

func (o *openedBackup) Close() error { return o.file.Close() }

// openBackup decrypts a backup as it is read, if it is encrypted.
func (c *call) openBackup(file string) (_ *openedBackup, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	r := bufio.NewReaderSize(f, 1<<20)
	head, err := r.Peek(len(ageHead))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	encrypted, keys := string(head) == ageHead, c.backup.passphrase != "" || c.backup.identity != ""
	switch {
	case !encrypted && keys:
		return nil, fmt.Errorf("%s is not encrypted: if you made it so, it is not the file that you made", file)
	case !encrypted:
		return &openedBackup{r, f}, nil
	case !keys:
		return nil, fmt.Errorf("%s is encrypted: name the --identity FILE of its recipient, or its --passphrase-file FILE", file)
	}
	identities, err := c.identities()
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(r, identities...)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be decrypted: %w", file, err)
	}
	return &openedBackup{plain, f}, nil
}

func (c *call) identities() (all []age.Identity, err error) {
	if c.backup.identity != "" {
		f, err := os.Open(c.backup.identity)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if all, err = age.ParseIdentities(io.LimitReader(f, 1<<20)); err != nil {
			return nil, fmt.Errorf("--identity: %s: %w", c.backup.identity, err)
		}
	}
	if c.backup.passphrase != "" {
		passphrase, err := readPassphrase(c.backup.passphrase)
		if err != nil {
			return nil, err
		}
		id, err := age.NewScryptIdentity(passphrase)
		if err != nil {
			return nil, err
		}
		all = append(all, id)
	}
	return all, nil
}
