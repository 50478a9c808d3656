package store

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
)

const (
	// restoreDir is where a backup is unpacked and checked before any of it is in its place.
	restoreDir = "restore.unfinished"
	// maxBackupAbout and maxBackupMAC are more than these files need, in bytes.
	maxBackupAbout = 64 << 10
	maxBackupMAC   = 128
)

// BackupError means that a file is no backup, or not the one that was made.
type BackupError struct{ Reason string }

func (e *BackupError) Error() string { return "the backup cannot be used: " + e.Reason }

// Permanent is always true.
func (e *BackupError) Permanent() bool { return true }

func badBackup(format string, args ...any) error { return &BackupError{fmt.Sprintf(format, args...)} }

// VerifyBackup reads a whole backup and compares every file with its hash. With a master key it also proves that the
// backup was made by whoever holds that key; without one, only that it is undamaged. It needs room for the list of hashes
// in the folder for temporary files.
func VerifyBackup(ctx context.Context, r io.Reader, key *secret.Secret) (BackupInfo, error) {
	list, err := os.CreateTemp("", "dealseal-hashes-")
	if err != nil {
		return BackupInfo{}, err
	}
	defer os.Remove(list.Name())
	defer list.Close()
	u := &unpacker{ctx: ctx, list: list, keep: func(string, int64) (io.WriteCloser, error) { return discard{}, nil }}
	if key != nil {
		m := newMaster(key.Reveal())
		u.key = &m
	}
	return u.unpack(r)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// RestoreOptions says where a backup goes.
type RestoreOptions struct {
	// Dir becomes a state directory; it must be empty or not exist, and no daemon may run on it.
	Dir string
	// MasterKey is the one that the backup was made under.
	MasterKey secret.Secret
	// Log receives what opening the restored state has to say; nil discards it.
	Log *slog.Logger
}

// Restored is what became of a backup.
type Restored struct {
	BackupInfo
	Audit AuditReport
	// Counts are the deals by state.
	Counts []Count
	// Pauses are those that the backup knows of.
	Pauses []deal.Pause
}

// Restore makes a state directory of a backup. Nothing is in its place before all of it was compared with its hashes, the
// list of them with its MAC, and the audit tree with its rows. An epoch begins with the restore and once more with the
// first start, because the daemon that the backup is of may have gone on: what is older, and bears no proof of what
// became of it, is held.
func Restore(ctx context.Context, r io.Reader, o RestoreOptions) (*Restored, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	held, err := lock(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	if err := mustBeEmpty(o.Dir); err != nil {
		return nil, err
	}
	temp := filepath.Join(o.Dir, restoreDir)
	if err := os.Mkdir(temp, 0o700); err != nil {
		return nil, err
	}
	done := &Restored{}
	if done.BackupInfo, err = unpackInto(ctx, r, temp, o.MasterKey); err == nil {
		err = done.examine(ctx, Options{Dir: temp, MasterKey: o.MasterKey, Log: o.Log})
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	return done, settleIn(o.Dir, temp)
}

// mustBeEmpty overlooks the lock that the caller has just taken.
func mustBeEmpty(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() != lockName {
			return fmt.Errorf("%s is not empty (%s): nothing is overwritten; move it away, for instance to %s.before", dir, e.Name(), filepath.Clean(dir))
		}
	}
	return nil
}

// unpackInto writes the files of a backup below dir, durably.
func unpackInto(ctx context.Context, r io.Reader, dir string, key secret.Secret) (BackupInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return BackupInfo{}, err
	}
	defer root.Close()
	list, err := root.OpenFile(backupList, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return BackupInfo{}, err
	}
	defer list.Close()
	m := newMaster(key.Reveal())
	u := &unpacker{ctx: ctx, list: list, key: &m, keep: func(name string, size int64) (io.WriteCloser, error) {
		if free, err := FreeSpace(dir); err != nil {
			return nil, err
		} else if free < size {
			return nil, fmt.Errorf("%s needs %d MiB, and %d are free in %s", name, size>>20, free>>20, dir)
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return nil, err
		}
		return root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}}
	info, err := u.unpack(r)
	if err != nil {
		return info, err
	}
	top, err := root.Open(".")
	if err != nil {
		return info, err
	}
	err = unix.Syncfs(int(top.Fd()))
	return info, errors.Join(err, top.Close(), root.Remove(backupList))
}

// examine opens what was unpacked as a daemon would, which proves the master key, and begins an epoch.
func (d *Restored) examine(ctx context.Context, o Options) (err error) {
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.checkDatabase(ctx); err != nil {
		return err
	}
	if d.Audit, err = s.VerifyAudit(ctx, nil); err != nil {
		return err
	}
	if d.Counts, err = s.Counts(ctx); err != nil {
		return err
	}
	if d.Pauses, err = s.Pauses(ctx); err != nil {
		return err
	}
	return s.raiseHighWater(d.Audit.Head.Size + 1) // which no tree has reached: the first start begins another epoch
}

func (s *Store) checkDatabase(ctx context.Context) error {
	var verdict string
	if err := s.read.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return badBackup("the database is damaged: %s", verdict)
	}
	return nil
}

// settleIn moves everything from temp into its place, the database last, and gives it to whom the directory belongs.
func settleIn(dir, temp string) error {
	if err := giveAll(dir, temp); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(temp, lockName)); err != nil {
		return err
	}
	list, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int {
		last := func(e fs.DirEntry) int { return strings.Count(e.Name(), databaseName) }
		return last(a) - last(b)
	})
	for _, e := range list {
		if err := os.Rename(filepath.Join(temp, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := os.Remove(temp); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// unpacker reads one backup: each file goes to keep, and its hash to list, which at the end must be the backup's own.
type unpacker struct {
	ctx  context.Context
	keep func(name string, size int64) (io.WriteCloser, error)
	list *os.File
	key  *master // nil: the MAC is not checked
	info BackupInfo
}

// unpack reads all of r. Whatever is not as Backup writes it is a *BackupError.
func (u *unpacker) unpack(r io.Reader) (BackupInfo, error) {
	source := tar.NewReader(r)
	h, err := u.next(source)
	if err != nil {
		return u.info, err
	}
	if err := u.about(h, source); err != nil {
		return u.info, err
	}
	for {
		if h, err = u.next(source); err != nil {
			return u.info, err
		}
		if h.Name == backupList {
			break
		}
		if err := u.take(h, source); err != nil {
			return u.info, err
		}
	}
	if u.info.Files < 2 {
		return u.info, badBackup("it holds no database")
	}
	if err := u.compare(source); err != nil {
		return u.info, err
	}
	return u.info, u.drain(source, r)
}

// next returns the next header. Only plain files are taken, without holes: those are larger than what was read.
func (u *unpacker) next(source *tar.Reader) (*tar.Header, error) {
	if err := u.ctx.Err(); err != nil {
		return nil, err
	}
	h, err := source.Next()
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, badBackup("it is cut off")
	case errors.Is(err, tar.ErrHeader):
		return nil, badBackup("it is no backup of dealseal, or it is damaged")
	case err != nil:
		return nil, err // the medium's, or the decryption's
	}
	sparse := slices.ContainsFunc(slices.Collect(maps.Keys(h.PAXRecords)), func(k string) bool { return strings.HasPrefix(k, "GNU.sparse") })
	if h.Typeflag != tar.TypeReg || sparse {
		return nil, badBackup("%q is not a plain file", h.Name)
	}
	return h, nil
}

// small reads a whole file that must be small.
func small(h *tar.Header, source io.Reader, most int64) ([]byte, error) {
	if h.Size > most {
		return nil, badBackup("%s has %d bytes, at most %d are expected", h.Name, h.Size, most)
	}
	b, err := io.ReadAll(source)
	return b, cutOff(err)
}

func cutOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return badBackup("it is cut off")
	}
	return err
}

func (u *unpacker) about(h *tar.Header, source io.Reader) error {
	if h.Name != backupAbout {
		return badBackup("it begins with %q and not with %s: it is no backup of dealseal", h.Name, backupAbout)
	}
	text, err := small(h, source, maxBackupAbout)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &u.info); err != nil {
		return badBackup("%s: %v", backupAbout, err)
	}
	if u.info.Version != backupVersion {
		return badBackup("it has version %d, this dealseal knows %d: use the newer dealseal", u.info.Version, backupVersion)
	}
	sum := sha256.New()
	sum.Write(text)
	return u.note(h, sum)
}

func (u *unpacker) note(h *tar.Header, sum hash.Hash) error {
	u.info.Files++
	u.info.Bytes += h.Size
	_, err := io.WriteString(u.list, listLine(sum, h.Name))
	return err
}

// take keeps one file. The first must be the database.
func (u *unpacker) take(h *tar.Header, source io.Reader) error {
	if !backedUp(h.Name) || (h.Name == databaseName) != (u.info.Files == 1) {
		return badBackup("%q does not belong there", h.Name)
	}
	w, err := u.keep(h.Name, h.Size)
	if errors.Is(err, fs.ErrExist) {
		return badBackup("%q is in it twice", h.Name)
	}
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(w, sum), source)
	if err := errors.Join(cutOff(err), w.Close()); err != nil {
		return err
	}
	return u.note(h, sum)
}

// compare holds what was read against the backup's own list, and that against its MAC.
func (u *unpacker) compare(source *tar.Reader) error {
	if _, err := u.list.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var mac hash.Hash
	given := io.Reader(source)
	if u.key != nil {
		mac = hmac.New(sha256.New, u.key.backup())
		given = io.TeeReader(source, mac)
	}
	if err := sameList(u.list, given); err != nil {
		return err
	}
	h, err := u.next(source)
	if err != nil {
		return err
	}
	if h.Name != backupMAC {
		return badBackup("%q does not belong there", h.Name)
	}
	text, err := small(h, source, maxBackupMAC)
	if err != nil || mac == nil {
		return err
	}
	want, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || !hmac.Equal(want, mac.Sum(nil)) {
		return badBackup("it was made under another master key, or by somebody who does not have yours")
	}
	return nil
}

// sameList finds the first line in which two lists of hashes differ.
func sameList(have, want io.Reader) error {
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := io.ReadFull(want, b)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		m, _ := io.ReadFull(have, a) // what cannot be read is missing, and that is a difference
		if m != n || !bytes.Equal(a[:m], b[:n]) {
			return badBackup("%s", difference(a[:m], b[:n]))
		}
		if n < len(b) {
			return nil
		}
	}
}

// difference names the file of the first line that is not the same.
func difference(have, want []byte) string {
	same := 0
	for same < min(len(have), len(want)) && have[same] == want[same] {
		same++
	}
	line := have[bytes.LastIndexByte(have[:same], '\n')+1:]
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if _, name, ok := bytes.Cut(line, []byte("  ")); ok {
		return fmt.Sprintf("%q is not what was backed up, or files are missing before it", name)
	}
	return "files are missing, or its list of hashes is damaged"
}

// drain reads to the end, where decryption has its last say.
func (u *unpacker) drain(source *tar.Reader, r io.Reader) error {
	if h, err := source.Next(); err == nil {
		return badBackup("%q does not belong there", h.Name)
	} else if !errors.Is(err, io.EOF) {
		return cutOff(err)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(r, 1))
	if err == nil && n > 0 {
		err = badBackup("something stands behind its end")
	}
	return err
}
