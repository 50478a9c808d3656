package store

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"modernc.org/sqlite"

	"github.com/dealseal/dealseal/deal"
)

// A backup is a tar file: what it is, the database, the files that the database names, and at the end the SHA-256 of each
// of them and a MAC of that list under the master key. The list is in the form of sha256sum(1), so that a backup can be
// checked without us.
const (
	backupVersion = 1
	backupAbout   = "backup.json"
	backupList    = "manifest.sha256"
	backupMAC     = "manifest.hmac"
	// backupDir is where a backup is prepared; what a crash left of it is removed by the next Open.
	backupDir = "backup.unfinished"
	// backupSpare is the room that must be left beside the copy of the database, in bytes.
	backupSpare = 64 << 20
	// backupPages is how many pages of the database are copied before it is looked whether to go on.
	backupPages = 4096
)

// BackupInfo says what a backup is.
type BackupInfo struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"` // the moment that the database is of
	// Tree is the audit tree of that moment.
	Tree deal.TreeHead `json:"audit_tree"`
	// Archive is false in a backup of the database only.
	Archive bool `json:"archive"`
	// Dealseal is the version that made it.
	Dealseal string `json:"dealseal"`
	// Files and Bytes are what it holds; they are counted, not stored.
	Files int   `json:"-"`
	Bytes int64 `json:"-"`
}

// BackupOptions says what to back up, and for whom.
type BackupOptions struct {
	// WithoutArchive leaves the archive's contracts out: database, staged documents and template bundles are always there.
	WithoutArchive bool
	// Who goes into the audit log, Dealseal, the running version, into the backup.
	Who, Dealseal string
}

// errBackupRuns means that another backup is being made.
var errBackupRuns = errors.New("another backup is being made: wait for its end")

// Backup writes a backup of one moment to w while the daemon goes on. All that the database of that moment names is in
// it, and perhaps contracts that were archived while it was written, which Recover takes in after a restore. It never
// holds the master key, without which it cannot be used. The state directory needs room for a second database meanwhile.
// A backup is complete only if Backup returned nil, and counts as one when NoteBackup was told.
func (s *Store) Backup(ctx context.Context, w io.Writer, o BackupOptions) (info BackupInfo, err error) {
	if !s.backup.TryLock() {
		return info, errBackupRuns
	}
	defer s.backup.Unlock()
	err = s.update(ctx, "commit/operate", func(t *txn) error {
		return t.auditShared("", "", deal.Entry{Who: o.Who, What: "backup", Detail: map[string]string{"archive": fmt.Sprint(!o.WithoutArchive)}})
	})
	if err != nil {
		return info, err
	}
	temp := filepath.Join(s.dir, backupDir)
	if err := errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o700), give(s.dir, temp)); err != nil {
		return info, s.explain(fmt.Errorf("backup: %w", err))
	}
	defer os.RemoveAll(temp) // else the next Open does it
	info = BackupInfo{Version: backupVersion, Archive: !o.WithoutArchive, Dealseal: o.Dealseal}
	if err := s.snapshot(ctx, temp, &info); err != nil {
		return info, s.explain(fmt.Errorf("backup: %w", err))
	}
	if err := s.packBackup(ctx, w, temp, &info); err != nil {
		return info, s.explain(fmt.Errorf("backup: %w", err))
	}
	return info, nil
}

// Where it is noted which moment the newest backups are of.
const (
	metaBackup         = "backup"          // with the archive
	metaBackupDatabase = "backup_database" // with or without it
)

// NoteBackup is for whoever has put a backup that Backup made on stable storage, under its name: it counts from then on,
// and not before, because a backup that was handed over may yet be lost on its way. An older one changes nothing.
func (s *Store) NoteBackup(ctx context.Context, info BackupInfo) error {
	if info.At.IsZero() || info.At.After(s.now()) {
		return fmt.Errorf("a backup of %s cannot have been made", info.At.Format(time.RFC3339))
	}
	names := []string{metaBackupDatabase}
	if info.Archive {
		names = append(names, metaBackup)
	}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		for _, name := range names {
			last, err := t.metaTime(name)
			if err != nil {
				return err
			}
			if info.At.Before(last) {
				continue
			}
			if err := t.setMeta(name, []byte(info.At.Format(time.RFC3339Nano))); err != nil {
				return err
			}
		}
		return nil
	})
}

// LastBackup returns the moments that the newest backup with the archive, and the newest with or without it, are of; the
// zero time if there never was one.
func (s *Store) LastBackup(ctx context.Context) (whole, database time.Time, err error) {
	err = s.view(ctx, func(t *txn) error {
		if whole, err = t.metaTime(metaBackup); err != nil {
			return err
		}
		database, err = t.metaTime(metaBackupDatabase)
		return err
	})
	return whole, database, err
}

// metaTime is the zero time where nothing is noted.
func (t *txn) metaTime(key string) (at time.Time, err error) {
	text, err := t.meta(key)
	if err != nil || text == nil {
		return at, err
	}
	return time.Parse(time.RFC3339Nano, string(text))
}

// snapshot puts the database of one moment, and links to the documents that were staged then, into temp. VACUUM INTO does
// not tell which moment it is of; a copy under a read transaction that has begun does. Writers are not held up by it, and
// staging only while the links are made.
func (s *Store) snapshot(ctx context.Context, temp string, info *BackupInfo) error {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	t := &txn{Tx: tx, ctx: ctx, s: s, now: s.now()}
	info.At = t.now
	if err := t.freeze(temp); err != nil {
		return err
	}
	if info.Tree, err = t.treeHead(); err != nil {
		return err
	}
	return copyDatabase(ctx, conn, filepath.Join(temp, databaseName))
}

// freeze settles the moment that the transaction sees by a first look, and links the documents that are staged then.
func (t *txn) freeze(temp string) error {
	t.s.staging.Lock()
	defer t.s.staging.Unlock()
	var size int64
	if _, err := t.get([]any{&size}, `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size, (SELECT count(*) FROM meta)`); err != nil {
		return err
	}
	if err := t.s.roomFor(size); err != nil {
		return err
	}
	return t.s.linkStaged(temp)
}

func (s *Store) roomFor(size int64) error {
	free, err := s.FreeSpace()
	if err == nil && free < size+backupSpare {
		err = fmt.Errorf("a second copy of the database (%d MiB) does not fit into %s for a while: %d MiB are free", size>>20, s.dir, free>>20)
	}
	return err
}

func (s *Store) linkStaged(temp string) error {
	root := filepath.Join(s.dir, "staging")
	return walkFiles(root, func(name string) error {
		to := filepath.Join(temp, "staging", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), give(s.dir, filepath.Join(temp, "staging"), filepath.Dir(to))); err != nil {
			return err
		}
		return os.Link(filepath.Join(root, name), to)
	})
}

// walkFiles visits the regular files below root by their paths relative to it, in lexical order, but for what is not yet
// written to its end. Folders that go away meanwhile are passed over, as is a root that does not exist.
func walkFiles(root string, visit func(name string) error) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case strings.Contains(d.Name(), halfWritten) && d.IsDir():
			return fs.SkipDir
		case strings.Contains(d.Name(), halfWritten) || !d.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel))
	})
}

// copyDatabase copies what the open transaction of conn sees.
func copyDatabase(ctx context.Context, conn *sql.Conn, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return conn.Raw(func(driver any) error {
		source, ok := driver.(interface {
			NewBackup(to string) (*sqlite.Backup, error)
		})
		if !ok {
			return fmt.Errorf("this build's SQLite driver (%T) cannot copy a database", driver)
		}
		b, err := source.NewBackup((&url.URL{Scheme: "file", Path: to}).String())
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if err = ctx.Err(); err == nil {
				more, err = b.Step(backupPages)
			}
		}
		return errors.Join(err, b.Finish())
	})
}

// packBackup writes the tar file.
func (s *Store) packBackup(ctx context.Context, w io.Writer, temp string, info *BackupInfo) error {
	list, err := os.OpenFile(filepath.Join(temp, backupList), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer list.Close()
	p := &packer{ctx: ctx, tar: tar.NewWriter(w), list: list, mac: hmac.New(sha256.New, s.master.backup()), at: info.At, info: info}
	about, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := p.listed(backupAbout, int64(len(about)), bytes.NewReader(about)); err != nil {
		return err
	}
	if err := p.file(databaseName, filepath.Join(temp, databaseName)); err != nil {
		return err
	}
	folders := []struct{ name, dir string }{{"staging", filepath.Join(temp, "staging")}, {"bundles", filepath.Join(s.dir, "bundles")}}
	if info.Archive {
		folders = append(folders, struct{ name, dir string }{"archive", s.archive.Root})
	}
	for _, f := range folders {
		if err := p.folder(f.name, f.dir); err != nil {
			return err
		}
	}
	return p.end()
}

// packer writes one backup.
type packer struct {
	ctx  context.Context
	tar  *tar.Writer
	list *os.File  // of hashes: it may be long, so it is not held in memory
	mac  hash.Hash // of the list
	at   time.Time
	info *BackupInfo
}

// folder adds the files of a folder that belong into a backup.
func (p *packer) folder(name, dir string) error {
	return walkFiles(dir, func(file string) error {
		if in := path.Join(name, file); backedUp(in) {
			return p.file(in, filepath.Join(dir, filepath.FromSlash(file)))
		}
		return nil
	})
}

func (p *packer) file(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	return p.listed(name, stat.Size(), f)
}

// listed adds a file and its hash.
func (p *packer) listed(name string, size int64, content io.Reader) error {
	sum := sha256.New()
	if err := p.add(name, size, io.TeeReader(content, sum)); err != nil {
		return err
	}
	p.info.Files++
	p.info.Bytes += size
	_, err := io.WriteString(io.MultiWriter(p.list, p.mac), listLine(sum, name))
	return err
}

// listLine is a line of sha256sum(1).
func listLine(sum hash.Hash, name string) string {
	return hex.EncodeToString(sum.Sum(nil)) + "  " + name + "\n"
}

func (p *packer) add(name string, size int64, content io.Reader) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: p.at.Truncate(time.Second), Format: tar.FormatPAX}
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.CopyN(p.tar, content, size); err != nil {
		return fmt.Errorf("%s: %d of %d bytes: %w", name, n, size, err)
	}
	return nil
}

// end adds the list and its MAC.
func (p *packer) end() error {
	size, err := p.list.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if err := p.add(backupList, size, io.NewSectionReader(p.list, 0, size)); err != nil {
		return err
	}
	mac := hex.EncodeToString(p.mac.Sum(nil)) + "\n"
	if err := p.add(backupMAC, int64(len(mac)), strings.NewReader(mac)); err != nil {
		return err
	}
	return p.tar.Close()
}

// backedUpForm is what a file of a backup, besides those that describe it, may be called.
var backedUpForm = regexp.MustCompile(`^(?:dealseal\.db` +
	`|staging/[a-z2-7]{26}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.age` +
	`|bundles/[A-Za-z0-9][A-Za-z0-9_-]{0,99}` +
	`|archive/[a-z0-9][a-z0-9_-]{0,62}/[0-9]{4}/[0-9]{2}/[a-z2-7]{26}/(?:manifest\.json|(?:evidence/)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.age))$`)

func backedUp(name string) bool {
	return backedUpForm.MatchString(name) && !strings.Contains(name, halfWritten)
}
