package store

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
)

// household is a store with a kept deal, one whose documents are staged and one that was only noticed, and a bundle.
func household(t *testing.T) (s *Store, c *testClock, kept, staged *deal.Sealing) {
	t.Helper()
	s, c = newStore(t)
	kept = one(t, s, "006A")
	toSealed(t, s, kept, "the contract")
	folder, err := s.Keep(t.Context(), kept, contractName, map[string][]byte{"cms.der": []byte("evidence")})
	if err != nil {
		t.Fatal(err)
	}
	kept.Step, kept.Facts.Archive = deal.Kept, folder
	advance(t, s, kept, "kept")
	staged = one(t, s, "006B")
	fact := stage(t, s, staged.Tx, "unsigned.pdf", "a draft")
	staged.Step, staged.Facts.Unsigned = deal.Gathered, &fact
	advance(t, s, staged, "gathered")
	one(t, s, "006C")
	if err := errors.Join(os.Mkdir(filepath.Join(s.dir, "bundles"), 0o700), os.WriteFile(filepath.Join(s.dir, "bundles", "ab12"), []byte("bundle"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return s, c, kept, staged
}

func backUp(t *testing.T, s *Store, o BackupOptions) []byte {
	t.Helper()
	o.Who = "root"
	var b bytes.Buffer
	info, err := s.Backup(t.Context(), &b, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.NoteBackup(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restoreOptions(dir string) RestoreOptions {
	return RestoreOptions{Dir: dir, MasterKey: secret.New(testKey)}
}

func TestARestoredBackupIsTheStateOfItsMoment(t *testing.T) {
	s, c, kept, staged := household(t)
	checkpoint, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := backUp(t, s, BackupOptions{Dealseal: "v1"})
	at := c.now
	c.advance(time.Hour)
	one(t, s, "006D") // is not in it
	if last, _, err := s.LastBackup(t.Context()); err != nil || !last.Equal(at) {
		t.Errorf("the last backup is of %s (%v), want %s", last, err, at)
	}
	dir := filepath.Join(t.TempDir(), "elsewhere")
	done, err := Restore(t.Context(), bytes.NewReader(b), restoreOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	if !done.At.Equal(at) || !done.Archive || done.Dealseal != "v1" || done.Audit.Sealings != 3 {
		t.Errorf("%+v", done)
	}
	c.advance(time.Hour)
	r := open(t, options(dir, c.Now))
	if !r.Epoch().Equal(c.now) {
		t.Errorf("the first start is no epoch of its own: %s", r.Epoch())
	}
	if n := query[int](t, r, `SELECT count(*) FROM audit WHERE CAST(leaf AS TEXT) LIKE '%"what":"epoch"%'`); n != 2 {
		t.Errorf("%d epochs, want one of the restore and one of the start", n)
	}
	if _, err := r.VerifyAudit(t.Context(), checkpoint); err != nil {
		t.Error(err)
	}
	f, err := r.OpenKept(t.Context(), kept.Facts.Archive, "evidence/cms.der")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if f, err = r.OpenStaged(t.Context(), staged.Tx, "unsigned.pdf", *load(t, r, staged.Tx).Facts.Unsigned); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if bundle, err := os.ReadFile(filepath.Join(dir, "bundles", "ab12")); err != nil || string(bundle) != "bundle" {
		t.Errorf("bundle %q, %v", bundle, err)
	}
	for _, name := range []string{restoreDir, backupDir} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left", name)
		}
	}
	if _, err := os.Lstat(filepath.Join(s.dir, backupDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the backup left its own copy")
	}
}

// TestABackupNamesNothingThatItLacks changes what is staged at the worst moments: while the database is copied.
func TestABackupNamesNothingThatItLacks(t *testing.T) {
	s, _, kept, staged := household(t)
	before := staged.Facts.Unsigned.SHA256
	changed := false
	w := writerFunc(func(p []byte) (int, error) {
		if !changed { // the first byte leaves the house after the moment was settled
			changed = true
			toSealed(t, s, staged, "another")
			if err := s.Unstage(t.Context(), kept.Tx); err != nil {
				t.Error(err)
			}
		}
		return len(p), nil
	})
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), io.MultiWriter(w, &b), BackupOptions{Who: "root"}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "elsewhere")
	if _, err := Restore(t.Context(), &b, restoreOptions(dir)); err != nil {
		t.Fatal(err)
	}
	r := open(t, options(dir, nil))
	old := load(t, r, staged.Tx)
	if old.Step != deal.Gathered || old.Facts.Unsigned.SHA256 != before {
		t.Fatalf("the database is of %s", old.Step)
	}
	for tx, fact := range map[deal.TxID]*deal.FileFact{staged.Tx: old.Facts.Unsigned, kept.Tx: load(t, r, kept.Tx).Facts.Contract} {
		f, err := r.OpenStaged(t.Context(), tx, fact.Name, *fact)
		if err != nil {
			t.Error(err)
			continue
		}
		f.Close()
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestABackupWithoutTheArchiveHasWhatIsUnderWay(t *testing.T) {
	s, _, _, staged := household(t)
	b := backUp(t, s, BackupOptions{WithoutArchive: true})
	names := strings.Join(namesIn(t, b), "\n")
	if strings.Contains(names, "archive/") || !strings.Contains(names, "staging/"+string(staged.Tx)) || !strings.Contains(names, "bundles/ab12") {
		t.Error(names)
	}
	info, err := VerifyBackup(t.Context(), bytes.NewReader(b), nil)
	if err != nil || info.Archive {
		t.Errorf("%+v, %v", info, err)
	}
}

func namesIn(t *testing.T, b []byte) (names []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestABackupCanBeCheckedWithoutUs(t *testing.T) {
	s, _, _, _ := household(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "b.tar")
	if err := os.WriteFile(file, backUp(t, s, BackupOptions{}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "tar xf b.tar && sha256sum --strict -c manifest.sha256")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDamageAnywhereInABackupIsNoticed(t *testing.T) {
	s, _, _, _ := household(t)
	b := backUp(t, s, BackupOptions{})
	key := secret.New(testKey)
	if _, err := VerifyBackup(t.Context(), bytes.NewReader(b), &key); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(b)-1024; at += len(b)/97 + 1 {
		other := bytes.Clone(b)
		other[at] ^= 0x10
		if bytes.Equal(contents(b), contents(other)) {
			continue // padding, or a header's field that nobody reads
		}
		if _, err := VerifyBackup(t.Context(), bytes.NewReader(other), &key); err == nil {
			t.Errorf("another byte %d of %d is not noticed", at, len(b))
		}
	}
	var bad *BackupError
	for at := 0; at < len(b); at += len(b)/97 + 1 {
		if _, err := VerifyBackup(t.Context(), bytes.NewReader(b[:at]), &key); !errors.As(err, &bad) {
			t.Errorf("cut off after %d of %d bytes: %v", at, len(b), err)
		}
	}
	if _, err := VerifyBackup(t.Context(), io.MultiReader(bytes.NewReader(b), strings.NewReader("x")), &key); !errors.As(err, &bad) {
		t.Errorf("with more behind its end: %v", err)
	}
	other := secret.New(bytes.Repeat([]byte{8}, minMasterKey))
	if _, err := VerifyBackup(t.Context(), bytes.NewReader(b), &other); !errors.As(err, &bad) || !strings.Contains(err.Error(), "another master key") {
		t.Errorf("under another master key: %v", err)
	}
	if _, err := VerifyBackup(t.Context(), bytes.NewReader(b), nil); err != nil {
		t.Errorf("without a key: %v", err)
	}
}

// contents is what a tar file says, without its padding.
func contents(b []byte) []byte {
	var all bytes.Buffer
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err != nil {
			fmt.Fprint(&all, err)
			return all.Bytes()
		}
		fmt.Fprintln(&all, h.Name, h.Size, h.Typeflag)
		if _, err := io.Copy(&all, r); err != nil {
			fmt.Fprint(&all, err)
		}
	}
}

// forged writes a tar file with the entries, and behind them the list that belongs to them.
func forged(t testing.TB, about string, entries ...*tar.Header) []byte {
	t.Helper()
	var b, list bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, content string) {
		sum := sha256.Sum256([]byte(content))
		fmt.Fprintf(&list, "%s  %s\n", hex.EncodeToString(sum[:]), h.Name)
		if h.Size = int64(len(content)); h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		h.Mode = 0o600
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(&tar.Header{Typeflag: tar.TypeReg, Name: backupAbout}, about)
	for _, h := range entries {
		add(h, "content")
	}
	hashes := list.String()
	add(&tar.Header{Typeflag: tar.TypeReg, Name: backupList}, hashes)
	add(&tar.Header{Typeflag: tar.TypeReg, Name: backupMAC}, strings.Repeat("0", 64))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func plain(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeReg, Name: name} }

func TestWhatDoesNotBelongIntoABackupIsRefused(t *testing.T) {
	const about = `{"version": 1}`
	db := plain(databaseName)
	tx := strings.Repeat("a", 26)
	for name, b := range map[string][]byte{
		"a path that leads out":        forged(t, about, db, plain("archive/../../../etc/cron.d/x")),
		"an absolute path":             forged(t, about, db, plain("/etc/passwd")),
		"another folder":               forged(t, about, db, plain("hsm/refused")),
		"a file of the house":          forged(t, about, db, plain("high-water")),
		"a symbolic link":              forged(t, about, db, &tar.Header{Typeflag: tar.TypeSymlink, Name: "archive", Linkname: "/"}),
		"a hard link":                  forged(t, about, db, &tar.Header{Typeflag: tar.TypeLink, Name: "staging/" + tx + "/a.age", Linkname: "/etc/shadow"}),
		"a folder":                     forged(t, about, db, &tar.Header{Typeflag: tar.TypeDir, Name: "archive/"}),
		"the database twice":           forged(t, about, db, plain(databaseName)),
		"the database not first":       forged(t, about, plain("staging/"+tx+"/a.age"), plain(databaseName)),
		"no database":                  forged(t, about),
		"a later version":              forged(t, `{"version": 2}`, db),
		"no description":               forged(t, `hello`, db),
		"a description too long":       forged(t, `{"version": 1, "x": "`+strings.Repeat("a", maxBackupAbout)+`"}`, db),
		"an unfinished file":           forged(t, about, db, plain("archive/acme/2026/01/"+tx+"/x.unfinished.age")),
		"no tar at all":                []byte(strings.Repeat("PK\x03\x04", 1000)),
		"nothing":                      nil,
		"a tar of something else":      forged(t, about)[1024:],
		"a backup, with a foreign MAC": forged(t, about, db),
	} {
		dir := filepath.Join(t.TempDir(), "state")
		_, err := Restore(t.Context(), bytes.NewReader(b), restoreOptions(dir))
		var bad *BackupError
		if !errors.As(err, &bad) || !deal.IsPermanent(err) {
			t.Errorf("%s: %v", name, err)
		}
		if left := listing(t, dir); len(left) > 0 {
			t.Errorf("%s: %v was left", name, left)
		}
	}
	twice := forged(t, about, db, plain("staging/"+tx+"/a.age"), plain("staging/"+tx+"/a.age"))
	if _, err := Restore(t.Context(), bytes.NewReader(twice), restoreOptions(t.TempDir())); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a file that is in it twice: %v", err)
	}
}

// listing names what is in a directory, but for the lock.
func listing(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockName {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestARestoreOverwritesNothing(t *testing.T) {
	s, _, _, _ := household(t)
	b := backUp(t, s, BackupOptions{})
	var locked *LockedError
	if _, err := Restore(t.Context(), bytes.NewReader(b), restoreOptions(s.dir)); !errors.As(err, &locked) {
		t.Errorf("over a running daemon: %v", err)
	}
	s.Close()
	before := listing(t, s.dir)
	if _, err := Restore(t.Context(), bytes.NewReader(b), restoreOptions(s.dir)); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("over a state directory: %v", err)
	}
	if diff := cmp.Diff(before, listing(t, s.dir)); diff != "" {
		t.Error(diff)
	}
}

func TestAnInterruptedRestoreIsNotWorkedOn(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, restoreDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), options(dir, nil)); err == nil || !strings.Contains(err.Error(), "restore again") {
		t.Errorf("a daemon starts: %v", err)
	}
}

func TestWhatACrashedBackupLeftGoesWithTheNextStart(t *testing.T) {
	s, c := newStore(t)
	dir := s.dir
	s.Close()
	if err := os.MkdirAll(filepath.Join(dir, backupDir, "staging"), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, options(dir, c.Now))
	if _, err := os.Lstat(filepath.Join(dir, backupDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it is still there")
	}
}

func TestABackupThatCannotBeWrittenSaysSoAndTheNextOneWorks(t *testing.T) {
	s, _, _, _ := household(t)
	full := errors.New("no space left")
	n := 0
	w := writerFunc(func(p []byte) (int, error) {
		if n += len(p); n > 20_000 {
			return 0, full
		}
		return len(p), nil
	})
	if _, err := s.Backup(t.Context(), w, BackupOptions{Who: "root"}); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if _, last, err := s.LastBackup(t.Context()); err != nil || !last.IsZero() {
		t.Errorf("it counts as a backup: %s, %v", last, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Backup(ctx, io.Discard, BackupOptions{Who: "root"}); !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancellation: %v", err)
	}
	backUp(t, s, BackupOptions{})
	verified(t, s)
}

func TestABackupCountsOnceItIsKept(t *testing.T) {
	s, c, _, _ := household(t)
	last := func() [2]time.Time {
		t.Helper()
		whole, database, err := s.LastBackup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return [2]time.Time{whole, database}
	}
	first, err := s.Backup(t.Context(), io.Discard, BackupOptions{Who: "root"})
	if err != nil || last() != [2]time.Time{} {
		t.Errorf("one that was handed over counts: %v, %v", last(), err)
	}
	c.advance(time.Hour)
	backUp(t, s, BackupOptions{WithoutArchive: true})
	if diff := cmp.Diff([2]time.Time{{}, c.Now()}, last()); diff != "" {
		t.Errorf("one without the archive (-want +got):\n%s", diff)
	}
	if err := s.NoteBackup(t.Context(), first); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([2]time.Time{first.At, c.Now()}, last()); diff != "" {
		t.Errorf("an older one that is kept later (-want +got):\n%s", diff)
	}
	for _, at := range []time.Time{{}, c.Now().Add(time.Second)} {
		if err := s.NoteBackup(t.Context(), BackupInfo{At: at, Archive: true}); err == nil {
			t.Errorf("one of %s counts", at)
		}
	}
}

func TestTwoBackupsAtATimeAreRefused(t *testing.T) {
	s, _, _, _ := household(t)
	var second error
	w := writerFunc(func(p []byte) (int, error) {
		if second == nil {
			_, second = s.Backup(t.Context(), io.Discard, BackupOptions{Who: "root"})
		}
		return len(p), nil
	})
	if _, err := s.Backup(t.Context(), w, BackupOptions{Who: "root"}); err != nil || !errors.Is(second, errBackupRuns) {
		t.Errorf("the first: %v, the second: %v", err, second)
	}
}

func FuzzVerifyBackup(f *testing.F) {
	tx := strings.Repeat("a", 26)
	f.Add(forged(f, `{"version": 1}`, plain(databaseName), plain("archive/acme/2026/01/"+tx+"/manifest.json")))
	f.Add(forged(f, `{"version": 1}`, plain(databaseName), plain("../x")))
	f.Add([]byte("ustar"))
	list, err := os.Create(filepath.Join(f.TempDir(), "list")) // one for all: making files is what would take the time
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { list.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := list.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := list.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		u := &unpacker{ctx: t.Context(), list: list, keep: func(name string, size int64) (io.WriteCloser, error) {
			if !filepath.IsLocal(name) || size > int64(len(b)) {
				t.Errorf("%q with %d bytes is taken out of %d", name, size, len(b))
			}
			return discard{}, nil
		}}
		_, _ = u.unpack(bytes.NewReader(b)) // any error will do
	})
}

func TestRootRestoresForTheDirectorysOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: a restore by root for the daemon's user; run as root")
	}
	const user = 12345
	s, _, _, _ := household(t)
	b := backUp(t, s, BackupOptions{})
	dir := t.TempDir()
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(b), restoreOptions(dir)); err != nil {
		t.Fatal(err)
	}
	mustAllBelongTo(t, dir, user)
}

func TestRootWorksForTheDirectorysOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: root's work on the state directory of the daemon's user; run as root")
	}
	const user = 12345
	s, _, _, _ := household(t)
	b, dir := backUp(t, s, BackupOptions{}), t.TempDir()
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(b), restoreOptions(dir)); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(dir, newClock().Now))
	first := true
	_, err := s.Backup(t.Context(), writing(func(p []byte) (int, error) {
		if first { // as a kill in the middle of it would leave everything
			mustAllBelongTo(t, dir, user)
			first = false
		}
		return len(p), nil
	}), BackupOptions{Who: "root"})
	if err != nil || first {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustAllBelongTo(t, dir, user)
}

type writing func(p []byte) (int, error)

func (w writing) Write(p []byte) (int, error) { return w(p) }

func mustAllBelongTo(t *testing.T, dir string, user uint32) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Base(filepath.Dir(name)) == backupDir && !d.IsDir() { // whose folder it is can remove it
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != user || owner.Gid != user {
			t.Errorf("%s belongs to %d", name, owner.Uid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
