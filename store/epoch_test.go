package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/sys/unix"
)

func TestAnUnmovedDirectoryBeginsNoEpoch(t *testing.T) {
	s, c := newStore(t)
	dir := s.dir
	s.Close()
	if s = open(t, options(dir, c.Now)); !s.Epoch().IsZero() {
		t.Fatalf("epoch %s", s.Epoch())
	}
}

func TestACopiedDirectoryBeginsAnEpochThatLasts(t *testing.T) {
	s, c := newStore(t)
	one(t, s, "006A")
	dir := s.dir
	s.Close()
	twin := filepath.Join(t.TempDir(), "twin")
	if err := os.CopyFS(twin, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Hour)
	s = open(t, options(twin, c.Now))
	if !s.Epoch().Equal(c.now) {
		t.Fatalf("epoch %s, want %s", s.Epoch(), c.now)
	}
	if n := query[int](t, s, `SELECT count(*) FROM audit WHERE CAST(leaf AS TEXT) LIKE '%"what":"epoch"%'`); n != 1 {
		t.Fatalf("%d epoch entries in the audit log, want 1", n)
	}
	verified(t, s)
	began := c.now
	s.Close()
	c.advance(time.Hour)
	if s = open(t, options(twin, c.Now)); !s.Epoch().Equal(began) {
		t.Fatalf("epoch %s after another start, want %s", s.Epoch(), began)
	}
}

// backup returns the database as it is now.
func backup(t *testing.T, s *Store) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "backup.db")
	if _, err := s.read.ExecContext(t.Context(), `VACUUM INTO $1`, name); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// restore puts a backup in the place of the database of a directory, into the same file, and opens it.
func restore(t *testing.T, dir string, content []byte, now func() time.Time) *Store {
	t.Helper()
	name := filepath.Join(dir, databaseName)
	before := inode(t, name)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if inode(t, name) != before {
		t.Fatal("this restore is seen by its inode")
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(name + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return open(t, options(dir, now))
}

func inode(t *testing.T, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// prepared brings a sealing to where its digest may be signed.
func prepared(t *testing.T, s *Store, record string) *deal.Sealing {
	t.Helper()
	sl := one(t, s, record)
	sl.Step, sl.Facts.Digest = deal.Rendered, "d1"
	advance(t, s, sl, "prepared")
	return sl
}

func TestAnOlderDatabaseRestoredInPlaceBeginsOneEpoch(t *testing.T) {
	for name, c := range map[string]struct {
		after func(*testing.T, *Store, *deal.Sealing) // the backup
		spoil func(t *testing.T, dir string)
	}{
		"after a signature was begun": {after: func(t *testing.T, s *Store, sl *deal.Sealing) { begin(t, s, sl, "sign", "d1") }},
		"after a checkpoint": {after: func(t *testing.T, s *Store, sl *deal.Sealing) {
			begin(t, s, sl, "gather", "")
			if _, err := s.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		"after a contract was kept, with the file of that time": {
			after: func(t *testing.T, s *Store, sl *deal.Sealing) {
				toSealed(t, s, sl, "the contract")
				keep(t, s, sl)
			},
			spoil: func(t *testing.T, dir string) {
				if err := os.Remove(filepath.Join(dir, highWaterName)); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, clock := newStore(t)
			dir, sl := s.dir, one(t, s, "006A")
			old := backup(t, s)
			c.after(t, s, sl)
			s.release() // not closed: what counts was on stable storage before
			if c.spoil != nil {
				c.spoil(t, dir)
			}
			clock.advance(time.Hour)
			s = restore(t, dir, old, clock.Now)
			began := clock.now
			if !s.Epoch().Equal(began) {
				t.Fatalf("epoch %s, want %s", s.Epoch(), began)
			}
			for range 2 {
				s.release()
				clock.advance(time.Hour)
				s = open(t, options(dir, clock.Now))
			}
			if !s.Epoch().Equal(began) {
				t.Fatalf("another epoch began at %s", s.Epoch())
			}
			verified(t, s)
		})
	}
}

func TestAnArchiveThatIsAheadIsSeenHoweverOldTheDealIs(t *testing.T) {
	s, clock := newStore(t)
	dir, sl := s.dir, one(t, s, "006A")
	clock.advance(365 * 24 * time.Hour)
	one(t, s, "006B")
	old := backup(t, s)
	toSealed(t, s, sl, "the contract") // as of the day on which the deal was noticed: no time is proven
	keep(t, s, sl)
	s.release()
	if err := os.Remove(filepath.Join(dir, highWaterName)); err != nil {
		t.Fatal(err)
	}
	if s = restore(t, dir, old, clock.Now); !s.Epoch().Equal(clock.now) {
		t.Fatalf("epoch %s, want %s", s.Epoch(), clock.now)
	}
}

func TestACrashBeginsNoEpoch(t *testing.T) {
	s, c := newStore(t)
	dir := s.dir
	begin(t, s, prepared(t, s, "006A"), "sign", "d1")
	kept(t, s, "006B")
	renamed := one(t, s, "006C")
	toSealed(t, s, renamed, "the contract")
	keep(t, s, renamed) // and the ledger does not yet know it
	s.release()
	if s = open(t, options(dir, c.Now)); !s.Epoch().IsZero() {
		t.Fatalf("epoch %s", s.Epoch())
	}
}

func TestAHighWaterMarkThatCannotBeTrustedBeginsOneEpoch(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "not a number": "many", "negative": "-1", "too long": strings.Repeat("9", 40)} {
		t.Run(name, func(t *testing.T) {
			s, c := newStore(t)
			dir := s.dir
			s.Close()
			if err := os.WriteFile(filepath.Join(dir, highWaterName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s = open(t, options(dir, c.Now))
				s.Close()
				c.advance(time.Hour)
			}
			if !s.Epoch().Equal(start) {
				t.Fatalf("epoch %s, want %s", s.Epoch(), start)
			}
		})
	}
}

func TestALostDatabaseBeginsAnEpochBeforeAnythingWasKept(t *testing.T) {
	s, c := newStore(t)
	dir := s.dir
	s.Close()
	if err := os.Remove(filepath.Join(dir, databaseName)); err != nil {
		t.Fatal(err)
	}
	if s = open(t, options(dir, c.Now)); !s.Epoch().Equal(start) {
		t.Fatalf("epoch %s, want %s", s.Epoch(), start)
	}
}

func TestNothingIsSignedUnlessItIsMarkedOutsideOfTheDatabase(t *testing.T) {
	s, _ := newStore(t)
	sl := prepared(t, s, "006A")
	obstacle := filepath.Join(s.dir, highWaterName+".unfinished")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(t.Context(), sl, deal.Intent{Step: sl.Step, What: "sign", Digest: "d1", Lease: time.Minute}); err == nil || deal.IsPermanent(err) {
		t.Fatalf("got %v, want an error that can be retried", err)
	}
	sl.Condition, sl.Next = deal.Retrying, start.Add(time.Minute)
	advance(t, s, sl, "failed") // the caller's copy is still good
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	begin(t, s, sl, "sign", "d1")
}
