package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store/archive"
)

// contractName is what the sealed contract is called in the archive.
const contractName = "contract.pdf"

// File is an open document: its plain bytes, decrypted as they are read. Close it after use.
type File struct {
	deal.File
	stored *os.File
}

// Close closes the stored file.
func (f *File) Close() error { return f.stored.Close() }

// MismatchError means that a stored document is not the one that was committed.
type MismatchError struct {
	Name, Reason string
	// Unlisted means that there is no document of this name.
	Unlisted bool
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("stored document %s: %s", e.Name, e.Reason)
}

// Permanent is always true.
func (e *MismatchError) Permanent() bool { return true }

// halfWritten ends the name of a file until all of it is on stable storage.
const halfWritten = ".unfinished"

// stagedForm is what a staged file may be called.
var stagedForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (s *Store) stagedPath(tx deal.TxID, name string) (string, error) {
	if id, err := deal.ParseTxID(string(tx)); err != nil || id != tx {
		return "", fmt.Errorf("staged file: %q is not a transaction ID", tx)
	}
	if !stagedForm.MatchString(name) {
		return "", fmt.Errorf("staged file: %q is not a file name", name)
	}
	return filepath.Join(s.dir, "staging", string(tx), name+".age"), nil
}

// Stage writes a document of a sealing, encrypted under its data key, and returns the hashes of what write wrote once it
// is on stable storage. An earlier file of the same name is replaced as a whole or not at all.
func (s *Store) Stage(ctx context.Context, tx deal.TxID, name string, write func(io.Writer) error) (deal.FileFact, error) {
	final, err := s.stagedPath(tx, name)
	if err != nil {
		return deal.FileFact{}, err
	}
	key, err := s.dataKey(ctx, tx)
	if err != nil {
		return deal.FileFact{}, err
	}
	if err := s.makeStaging(filepath.Dir(final)); err != nil {
		return deal.FileFact{}, s.explain(err)
	}
	temp := final + halfWritten
	fact, err := s.writeStaged(temp, key, write)
	if err != nil {
		return deal.FileFact{}, s.explain(errors.Join(fmt.Errorf("stage %s of %s: %w", name, tx, err), os.Remove(temp)))
	}
	s.staging.RLock()
	defer s.staging.RUnlock()
	if err := s.hook.Around("rename/staging", func() error { return os.Rename(temp, final) }); err != nil {
		return deal.FileFact{}, s.explain(err)
	}
	fact.Name = name
	return fact, s.explain(s.syncDir("fsync/staging-dir", filepath.Dir(final)))
}

// makeStaging makes the sealing's folder durable in its parents.
func (s *Store) makeStaging(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.syncDir("fsync/staging-dir", filepath.Dir(dir)); err != nil {
		return err
	}
	if s.rooted.Load() {
		return nil
	}
	if err := s.syncDir("fsync/staging-dir", s.dir); err != nil {
		return err
	}
	s.rooted.Store(true)
	return nil
}

func (s *Store) writeStaged(name string, key *dataKey, write func(io.Writer) error) (deal.FileFact, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return deal.FileFact{}, err
	}
	fact, err := encrypt(f, key, write)
	if err == nil {
		err = s.hook.Around("fsync/staging-file", f.Sync)
	}
	return fact, errors.Join(err, f.Close())
}

// encrypt writes what write writes to w, encrypted, and returns the hashes of the plain bytes.
func encrypt(w io.Writer, key *dataKey, write func(io.Writer) error) (deal.FileFact, error) {
	enc, err := age.Encrypt(w, key)
	if err != nil {
		return deal.FileFact{}, err
	}
	h := newHashes()
	if err := write(io.MultiWriter(enc, h)); err != nil {
		return deal.FileFact{}, err
	}
	if err := enc.Close(); err != nil {
		return deal.FileFact{}, err
	}
	return h.fact(), nil
}

// OpenStaged opens a staged document after checking that all of it has the size and SHA-256 of want.
func (s *Store) OpenStaged(ctx context.Context, tx deal.TxID, name string, want deal.FileFact) (*File, error) {
	p, err := s.stagedPath(tx, name)
	if err != nil {
		return nil, err
	}
	key, err := s.dataKey(ctx, tx)
	if err != nil {
		return nil, err
	}
	stored, err := os.Open(p)
	if err != nil {
		return nil, fmt.Errorf("staged document of %s: %w", tx, err)
	}
	return openFile(stored, key, name, want)
}

// Unstage removes all staged documents of a sealing. It is no error if there are none.
func (s *Store) Unstage(_ context.Context, tx deal.TxID) error {
	p, err := s.stagedPath(tx, "any")
	if err != nil {
		return err
	}
	s.staging.RLock()
	defer s.staging.RUnlock()
	if err := os.RemoveAll(filepath.Dir(p)); err != nil {
		return fmt.Errorf("remove staged documents of %s: %w", tx, err)
	}
	return nil
}

// dispose removes the staged documents of a sealing that has ended. If that fails, the next Open does it.
func (s *Store) dispose(ctx context.Context, tx deal.TxID) {
	if err := s.Unstage(ctx, tx); err != nil {
		s.log.WarnContext(ctx, "staged documents of an ended deal are left for the next start", "tx", tx, "err", err)
	}
}

// sweepStaging removes what crashes left: half-written files, and the documents of sealings that are done or have ended.
// What the ledger does not know stays, because recover may yet need it.
func (s *Store) sweepStaging(ctx context.Context) error {
	root := filepath.Join(s.dir, "staging")
	folders, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("staged documents: %w", err)
	}
	for _, d := range folders {
		tx, err := deal.ParseTxID(d.Name())
		if err != nil {
			continue // not ours
		}
		half, err := filepath.Glob(filepath.Join(root, d.Name(), "*"+halfWritten))
		if err != nil {
			return fmt.Errorf("staged documents: %w", err)
		}
		for _, name := range half {
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("staged documents: %w", err)
			}
		}
		over, err := s.isOver(ctx, tx)
		if err != nil {
			return err
		}
		if over {
			s.dispose(ctx, tx)
		}
	}
	return nil
}

// isOver reports whether nothing more will happen to a sealing.
func (s *Store) isOver(ctx context.Context, tx deal.TxID) (over bool, err error) {
	err = s.view(ctx, func(t *txn) error {
		_, err := t.get([]any{&over}, `SELECT step = 'done' OR condition = 'ended' FROM sealings WHERE tx = $1`, tx)
		return err
	})
	return over, err
}

// heldPlain is up to which size the plain bytes of an open document are held: they have to be decrypted once to be compared,
// and need not be again when they are read.
const heldPlain = 1 << 20

// openFile takes over stored, and closes it if it is not what want says.
func openFile(stored *os.File, key *dataKey, name string, want deal.FileFact) (_ *File, err error) {
	defer func() {
		if err != nil {
			stored.Close()
		}
	}()
	info, err := stored.Stat()
	if err != nil {
		return nil, fmt.Errorf("stored document %s: %w", name, err)
	}
	plain, size, err := age.DecryptReaderAt(stored, info.Size(), key)
	if err != nil {
		return nil, &MismatchError{Name: name, Reason: "it cannot be decrypted: it is damaged or belongs to another transaction"}
	}
	content := io.ReaderAt(plain)
	h := sha256.New() // alone: the MD5 that was committed with it is of the same bytes
	if size == want.Size && size <= heldPlain {
		held := make([]byte, size)
		_, err = io.ReadFull(io.NewSectionReader(plain, 0, size), held)
		h.Write(held)
		content = bytes.NewReader(held)
	} else {
		_, err = io.Copy(h, io.NewSectionReader(plain, 0, size))
	}
	if err != nil {
		return nil, &MismatchError{Name: name, Reason: "it is damaged"}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.SHA256 || size != want.Size {
		return nil, &MismatchError{Name: name, Reason: fmt.Sprintf("%d bytes with SHA-256 %s were committed, it has %d with %s", want.Size, want.SHA256, size, got)}
	}
	return &File{stored: stored, File: deal.File{
		ReaderAt: content, Name: path.Base(name), MediaType: mediaType(name), Length: size, SHA256: want.SHA256, MD5: want.MD5,
	}}, nil
}

func mediaType(name string) string {
	switch path.Ext(name) {
	case ".pdf":
		return "application/pdf"
	case ".json":
		return "application/json"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// Keep archives a sealing: the staged contract, whose hashes are sl.Facts.Contract, and the evidence by name. It returns
// the folder, relative to the archive, when everything is on stable storage; a second call finds the first's. The month
// in the folder's name is that of Facts.SealedAt, or of Noticed where no time was proven.
func (s *Store) Keep(ctx context.Context, sl *deal.Sealing, staged string, evidence map[string][]byte) (folder string, err error) {
	if sl.Facts.Contract == nil {
		return "", refuse(sl.Tx, "there is no sealed contract to keep")
	}
	key, err := s.dataKey(ctx, sl.Tx)
	if err != nil {
		return "", err
	}
	f, err := s.OpenStaged(ctx, sl.Tx, staged, *sl.Facts.Contract)
	if err != nil {
		return "", err
	}
	f.Close() // it was checked; its stored bytes are kept as they are
	sources := []archive.Source{{Name: contractName, Plain: *sl.Facts.Contract, Open: func() (io.ReadCloser, error) { return os.Open(f.stored.Name()) }}}
	for _, name := range slices.Sorted(maps.Keys(evidence)) {
		src, err := evidenceSource(key, name, evidence[name])
		if err != nil {
			return "", err
		}
		sources = append(sources, src)
	}
	m, err := s.manifest(ctx, sl, key)
	if err != nil {
		return "", err
	}
	at := sl.Facts.SealedAt
	if at.IsZero() {
		at = sl.Noticed
	}
	folder = archive.Folder(sl.Tenant, at, sl.Tx)
	return folder, s.explain(s.archive.Keep(ctx, folder, m, s.master.manifest(sl.Tenant), sources))
}

func evidenceSource(key *dataKey, name string, content []byte) (archive.Source, error) {
	var stored bytes.Buffer
	fact, err := encrypt(&stored, key, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	if err != nil {
		return archive.Source{}, fmt.Errorf("evidence %s: %w", name, err)
	}
	return archive.Source{Name: "evidence/" + name, Plain: fact, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(stored.Bytes())), nil
	}}, nil
}

func (s *Store) manifest(ctx context.Context, sl *deal.Sealing, key *dataKey) (*archive.Manifest, error) {
	private, err := s.privates.seal(key, sl)
	if err != nil {
		return nil, err
	}
	m := &archive.Manifest{
		Tx: sl.Tx, Tenant: sl.Tenant, Account: sl.Account, Change: sl.Change, Plan: sl.Plan, Facts: sl.Facts,
		Noticed: sl.Noticed, Kept: s.now(), Key: key.wrap(s.master.tenant(sl.Tenant), sl.Tx), Private: private, Retention: sl.Plan.Retention,
	}
	err = s.view(ctx, func(t *txn) error {
		var deleteAfter *int64
		if _, err := t.get([]any{&m.LegalHold, &deleteAfter}, `SELECT legal_hold, delete_after FROM sealings WHERE tx = $1`, sl.Tx); err != nil {
			return err
		}
		if deleteAfter != nil {
			at := fromMillis(*deleteAfter)
			m.DeleteAfter = &at
		}
		m.Tree, err = t.treeHead()
		return err
	})
	return m, err
}

// OpenKept opens a document of the archive, "contract.pdf" or "evidence/<name>", after checking all of it against the
// manifest. It needs the master key and the folder only, not the ledger.
func (s *Store) OpenKept(_ context.Context, folder, name string) (*File, error) {
	m, err := s.archive.Read(folder, s.master.manifest)
	if err != nil {
		return nil, err
	}
	if m.Key == nil {
		return nil, &ErasedError{m.Tx}
	}
	fact, ok := m.Files[name]
	if !ok {
		return nil, &MismatchError{Name: name, Reason: "the manifest does not list it", Unlisted: true}
	}
	key, err := unwrapDataKey(s.master.tenant(m.Tenant), m.Tx, m.Key)
	if err != nil {
		return nil, err
	}
	stored, err := s.archive.Open(folder, name)
	if err != nil {
		return nil, err
	}
	return openFile(stored, key, name, deal.FileFact{SHA256: fact.SHA256, MD5: fact.MD5, Size: fact.Size})
}

// Erase destroys the data key of a sealing, in the ledger and in the archive: its documents, values and testimonies can
// be read by no one any more, while its place in the audit tree and its transaction ID remain. It is refused while the
// sealing may still move, and under a legal hold. Copies in backups fall with the backups.
func (s *Store) Erase(ctx context.Context, tx deal.TxID, who, why string) error {
	if who == "" || why == "" {
		return fmt.Errorf("%s: say who and why: both go into the audit log", tx)
	}
	err := s.update(ctx, "commit/erase", func(t *txn) error {
		sl, err := t.erasable(tx)
		if err != nil {
			return err
		}
		// Within the transaction, so that no legal hold comes between the look and the deed. After a crash the ledger still
		// has what the archive has lost, and erasing once more ends it.
		if err := s.eraseKept(sl); err != nil {
			return err
		}
		if err := t.forgetCallback(tx); err != nil {
			return err
		}
		if err := t.emitErased(sl); err != nil {
			return err
		}
		if err := t.overtake(tx); err != nil {
			return err
		}
		for _, query := range []string{
			`DELETE FROM data_keys WHERE tx = $1`,
			`UPDATE sealings SET private = x'', guarded = 0 WHERE tx = $1`,
			`UPDATE outbox SET data = x'' WHERE tx = $1`,
			`DELETE FROM words WHERE seq = (SELECT seq FROM sealings WHERE tx = $1)`,
			`DELETE FROM discrepancies WHERE tx = $1`,
			`DELETE FROM follow_ups WHERE tx = $1`,
			forgetTold,
		} {
			if err := t.exec(query, tx); err != nil {
				return err
			}
		}
		if err := t.calmDeals(sl.Tenant, sl.Condition); err != nil {
			return err
		}
		return t.auditShared(sl.Tenant, tx, deal.Entry{Who: who, What: "erased", Why: why})
	})
	if err != nil {
		return err
	}
	s.keys.forget(tx)
	s.privates.forget(tx)
	return errors.Join(s.Unstage(ctx, tx), s.truncateLog(ctx))
}

// erasable loads a sealing that may be erased.
func (t *txn) erasable(tx deal.TxID) (*deal.Sealing, error) {
	sl, _, err := t.load(tx)
	if err != nil {
		return nil, err
	}
	r, err := t.row(tx)
	switch {
	case err != nil:
		return nil, err
	case r.legalHold:
		return nil, refuse(tx, "it is under a legal hold")
	case sl.Step != deal.Done && !sl.Condition.Waiting():
		return nil, refuse(tx, "it is still %s: drop it first or wait for its end", sl.Condition)
	}
	return sl, nil
}

func (s *Store) eraseKept(sl *deal.Sealing) error {
	if sl.Facts.Archive == "" {
		return nil
	}
	m, err := s.archive.Read(sl.Facts.Archive, s.master.manifest)
	if err != nil {
		return err
	}
	if m.LegalHold {
		return refuse(sl.Tx, "it is under a legal hold")
	}
	now := s.now()
	m.Key, m.Private, m.Erased = nil, nil, &now
	return s.explain(s.archive.Replace(sl.Facts.Archive, m, s.master.manifest(sl.Tenant)))
}

// truncateLog empties SQLite's write-ahead log, in which a destroyed key would otherwise remain for a while.
func (s *Store) truncateLog(ctx context.Context) error {
	var busy, pages, moved int
	if err := s.write.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &moved); err != nil {
		return s.explain(fmt.Errorf("empty the write-ahead log: %w", err))
	}
	if busy != 0 {
		return &busyError{}
	}
	return nil
}

// busyError means that the key is destroyed, but its old bytes may still be in the write-ahead log.
type busyError struct{}

func (*busyError) Error() string {
	return "the write-ahead log is in use and could not be emptied: erase once more"
}

// RetryAfter says when it is worth trying again.
func (*busyError) RetryAfter() time.Duration { return time.Second }

func (s *Store) dataKey(ctx context.Context, tx deal.TxID) (key *dataKey, err error) {
	err = s.view(ctx, func(t *txn) error {
		key, err = t.dataKey(tx)
		return err
	})
	return key, err
}

func (s *Store) syncDir(operation, dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(s.hook.Around(operation, d.Sync), d.Close())
}

// hashes counts and hashes what is written to it.
type hashes struct {
	io.Writer
	sha, md5 interface{ Sum([]byte) []byte }
	size     int64
}

func newHashes() *hashes {
	s, m := sha256.New(), md5.New() // MD5 is what the CRMs report of a file
	return &hashes{Writer: io.MultiWriter(s, m), sha: s, md5: m}
}

func (h *hashes) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	return h.Writer.Write(p)
}

func (h *hashes) fact() deal.FileFact {
	return deal.FileFact{SHA256: hex.EncodeToString(h.sha.Sum(nil)), MD5: hex.EncodeToString(h.md5.Sum(nil)), Size: h.size}
}
