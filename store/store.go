// Package store is the daemon's memory: the ledger of sealings, cursors and receipts, the outbox, the audit tree, the
// data keys and the queue, in one SQLite file; and the staged and archived documents beside it.
//
// The tables here are the authority. A change of a sealing, its audit entry, its events, its receipt and its next job
// are one transaction. Personal data is encrypted under a key of its own per sealing; destroying that key erases it.
//
// One process at a time owns a state directory (flock). Within it a Store is safe for concurrent use: writes go through
// one connection, reads through a pool of others.
package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store/archive"
	"github.com/dealseal/dealseal/webhooks"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

const databaseName = "dealseal.db"

// Options says where the state is and how it is protected.
type Options struct {
	// Dir is the state directory; it is made if it does not exist, for its owner only.
	Dir string
	// MasterKey is at least 32 random bytes. Every other key hangs on it: without it nothing can be read again.
	MasterKey secret.Secret
	// Log receives the store's and the queue's messages; nil discards them.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Hook is called at the moments that Points lists, from the goroutine that makes them. Crash tests end the process
	// there. nil calls nothing.
	Hook func(point string)
}

// Store is an open state directory.
type Store struct {
	dir       string
	log       *slog.Logger
	clock     func() time.Time
	hook      archive.Hook
	master    master
	lock      *os.File
	write     *sql.DB
	read      *sql.DB
	timetable *timetable
	archive   *archive.Archive
	signer    note.Signer
	vkey      string
	epoch     atomic.Int64 // milliseconds, 0 when there is none
	instance  atomic.Pointer[string]
	owner     string // of leases that are taken outside of a job
	owners    owners
	mark      highWater
	keys      keyring
	privates  privates
	commits   commits
	bell      *webhooks.Bell
	refit     nudge // the queues do not fit the tenants that are to be worked any more
	// subscriptions are nil when they have to be read anew.
	subscriptions atomic.Pointer[subscriptions]
	audience      atomic.Pointer[map[string][]deal.TenantID] // of keys, by their names
	kept          atomic.Pointer[[]deal.TenantID]            // that there are; nil: any
	blocked       atomic.Bool                                // another program's lock was met since the last write transaction began
	backup        sync.Mutex                                 // one at a time
	staging       sync.RWMutex                               // held by what changes staged documents; a backup needs it alone for a moment
	rooted        atomic.Bool                                // the folder of staged documents is durable in its parent
}

// Open locks the state directory, brings its schema up to date and makes good what a crash left behind. The errors
// *LockedError, *SchemaError and *WrongKeyError say what to do.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if n := len(o.MasterKey.Reveal()); n < minMasterKey {
		return nil, fmt.Errorf("the master key has %d bytes, at least %d random bytes are needed: make one with `head -c 32 /dev/urandom | base64` and keep a copy in a safe place", n, minMasterKey)
	}
	s := &Store{
		dir: o.Dir, log: o.Log, clock: o.Now, hook: o.Hook, master: newMaster(o.MasterKey.Reveal()), owner: rand.Text(), bell: webhooks.NewBell(), refit: make(nudge, 1),
		archive: &archive.Archive{Root: filepath.Join(o.Dir, "archive"), Hook: o.Hook},
	}
	s.owners.add(s.owner)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if s.lock, err = lock(ctx, o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if err := s.tidy(); err != nil {
		return nil, err
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	steps, err := pendingSteps(ctx, s.write)
	if err != nil {
		return nil, s.explain(err)
	}
	// The queue's tables come before ours: its steps rename some, for which SQLite parses again all that there are.
	if s.timetable, err = openTimetable(ctx, s); err != nil {
		return nil, s.explain(err)
	}
	if err := migrate(ctx, s.write, steps); err != nil {
		return nil, s.explain(err)
	}
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	if err := s.sweepStaging(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// tidy removes what a crash left of a backup, and refuses to work on what one left of a restore.
func (s *Store) tidy() error {
	if _, err := os.Lstat(filepath.Join(s.dir, restoreDir)); err == nil {
		return fmt.Errorf("%s holds a restore that was interrupted: remove all that is in it and restore again", s.dir)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, backupDir)); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// Close writes a last checkpoint of the audit tree and lets go of the state directory. The queue must have stopped.
func (s *Store) Close() error {
	_, err := s.Checkpoint(context.Background())
	return errors.Join(err, s.release())
}

func (s *Store) release() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// pragmas are asserted after connecting, because a driver that does not understand a DSN says nothing.
var pragmas = [...]struct{ name, set, want string }{
	{"journal_mode", "WAL", "wal"},
	{"synchronous", "FULL", "2"},
	{"busy_timeout", "10000", "10000"},
	{"foreign_keys", "1", "1"},
	{"trusted_schema", "0", "0"},
	{"secure_delete", "1", "1"},
	// What a savepoint would be taken back with stays in memory: a file for that, for every group of changes, cost as much as
	// writing the group to the log.
	{"temp_store", "MEMORY", "2"},
}

func (s *Store) connect(ctx context.Context) error {
	path := filepath.Join(s.dir, databaseName)
	values := url.Values{}
	for _, p := range pragmas {
		values.Add("_pragma", p.name+"("+p.set+")")
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite gives its other files the same permissions
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if err := errors.Join(f.Close(), give(s.dir, path)); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	values.Set("_txlock", "immediate")
	if s.write, err = s.pool(ctx, path, values, 1, &s.blocked); err != nil {
		return err
	}
	values.Set("_txlock", "deferred")
	values.Set("mode", "ro")
	s.read, err = s.pool(ctx, path, values, max(4, runtime.GOMAXPROCS(0)), new(atomic.Bool))
	return err
}

func (s *Store) pool(ctx context.Context, path string, values url.Values, size int, blocked *atomic.Bool) (*sql.DB, error) {
	connector, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: path, RawQuery: values.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	db := sql.OpenDB(compiling{connector, blocked})
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	if err := assertPragmas(ctx, db); err != nil {
		db.Close()
		return nil, fmt.Errorf("database %s: %w", path, s.explain(err))
	}
	return db, nil
}

func assertPragmas(ctx context.Context, db *sql.DB) error {
	for _, p := range pragmas {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+p.name).Scan(&got); err != nil {
			return err
		}
		if got != p.want {
			return fmt.Errorf("%s is %s instead of %s: this build's SQLite driver does not understand its settings", p.name, got, p.want)
		}
	}
	return nil
}

// settle checks the master key and the place of the database, and gives up what a dead process held: the lock on the
// directory proves that it is dead.
func (s *Store) settle(ctx context.Context) error {
	here, err := place(filepath.Join(s.dir, databaseName))
	if err != nil {
		return err
	}
	if s.mark.size, err = s.readHighWater(); err != nil {
		return err
	}
	var size int64
	err = s.update(ctx, "commit/open", func(t *txn) error {
		if err := t.checkMasterKey(); err != nil {
			return err
		}
		if err := t.loadSigner(); err != nil {
			return err
		}
		if err := t.noteEpoch(here); err != nil {
			return err
		}
		if err := t.exec(`UPDATE sealings SET lease_until = 0, lease_owner = '' WHERE lease_until > 0`); err != nil {
			return err
		}
		if err := t.restoreJobs(); err != nil {
			return err
		}
		if err := t.resumeDeliveries(); err != nil {
			return err
		}
		size, err = t.treeSize()
		return err
	})
	if err != nil || size >= s.mark.size {
		return err
	}
	return s.writeHighWater(size) // the epoch is committed: it begins once
}

// WrongKeyError means that the database was written under another master key.
type WrongKeyError struct{ Dir string }

func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("the master key is not the one that %s was written with: configure the original key; a lost key cannot be replaced", e.Dir)
}

// Permanent is always true.
func (e *WrongKeyError) Permanent() bool { return true }

func (t *txn) checkMasterKey() error {
	key, want := t.s.master.shared(), []byte("dealseal")
	check, err := t.meta("key_check")
	if err != nil {
		return err
	}
	if check == nil {
		return t.setMeta("key_check", box(key, "key-check", want))
	}
	if got, err := unbox(key, "key-check", check); err != nil || !bytes.Equal(got, want) {
		return &WrongKeyError{Dir: t.s.dir}
	}
	return nil
}

// FreeSpace returns how many bytes an unprivileged process can still write to the file system of dir.
func FreeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// FreeSpace is how many bytes can still be written to the state directory.
func (s *Store) FreeSpace() (int64, error) { return FreeSpace(s.dir) }

// txn is one transaction with its clock: everything that happens in it happens at the same time.
type txn struct {
	*sql.Tx
	ctx context.Context
	s   *Store
	now time.Time
	// rings collects the endpoints that the bell is rung for after the commit; nil in a read transaction.
	rings *[]string
}

// Writable reports whether the database takes writes now: it begins one and gives it up.
func (s *Store) Writable(ctx context.Context) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(fmt.Errorf("begin transaction: %w", err))
	}
	return tx.Rollback()
}

// view runs do in a read transaction: everything that it reads is of one moment.
func (s *Store) view(ctx context.Context, do func(*txn) error) error {
	tx, err := s.read.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin reading: %w", err)
	}
	defer tx.Rollback()
	return do(&txn{Tx: tx, ctx: ctx, s: s, now: s.now()})
}

func (s *Store) now() time.Time { return s.clock().UTC().Truncate(time.Millisecond) }

func (t *txn) exec(query string, args ...any) error {
	_, err := t.ExecContext(t.ctx, query, args...)
	return err
}

// execOne is exec for a statement that must change a row; it reports whether it did.
func (t *txn) execOne(query string, args ...any) (bool, error) {
	r, err := t.ExecContext(t.ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// get scans one row; it reports whether there was one.
func (t *txn) get(dest []any, query string, args ...any) (bool, error) {
	err := t.QueryRowContext(t.ctx, query, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// each calls scan for every row.
func (t *txn) each(scan func(row *sql.Rows) error, query string, args ...any) error {
	rows, err := t.QueryContext(t.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// column collects a query's only column.
func column[T any](t *txn, query string, args ...any) ([]T, error) {
	var all []T
	err := t.each(func(r *sql.Rows) error {
		var v T
		err := r.Scan(&v)
		all = append(all, v)
		return err
	}, query, args...)
	return all, err
}

func (t *txn) meta(key string) (value []byte, err error) {
	_, err = t.get([]any{&value}, `SELECT value FROM meta WHERE key = $1`, key)
	return value, err
}

func (t *txn) setMeta(key string, value []byte) error {
	return t.exec(`INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
}

// millis is the stored form of a time; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// tenantForm is what a tenant's id may look like: it names a folder of the archive.
var tenantForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

func checkTenant(id deal.TenantID) error {
	if !tenantForm.MatchString(string(id)) {
		return fmt.Errorf("tenant id %q: it must be 1 to 63 characters of a-z, 0-9, '-' and '_', beginning with a letter or digit", id)
	}
	return nil
}
