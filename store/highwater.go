package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const highWaterName = "high-water"

// highWater says, in a file outside of the database, how large the audit tree had become when something was begun that
// cannot be undone. A database whose tree is smaller is an older one, even if it was restored in place and lives where it
// always did.
type highWater struct {
	mu     sync.Mutex
	size   int64        // on stable storage
	wanted atomic.Int64 // the largest that is committed and that somebody waits for
}

// readHighWater returns 0 if there is no file yet. A file that cannot be understood is above every tree: that holds
// deals that need not be held, instead of sealing some twice.
func (s *Store) readHighWater() (int64, error) {
	name := filepath.Join(s.dir, highWaterName)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("state directory: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	size, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || size < 0 {
		s.log.Warn("the file is damaged; the database is taken for restored and the file is written anew", "file", name)
		return math.MaxInt64, nil
	}
	return size, nil
}

// raiseHighWater makes size durable outside of the database. It never lowers it. Those who wait meanwhile are served by one
// writing.
func (s *Store) raiseHighWater(size int64) error {
	for {
		wanted := s.mark.wanted.Load()
		if size <= wanted || s.mark.wanted.CompareAndSwap(wanted, size) {
			break
		}
	}
	s.mark.mu.Lock()
	defer s.mark.mu.Unlock()
	if size <= s.mark.size {
		return nil
	}
	return s.writeHighWater(s.mark.wanted.Load())
}

// writeHighWater needs the lock.
func (s *Store) writeHighWater(size int64) error {
	name := filepath.Join(s.dir, highWaterName)
	temp := name + halfWritten
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return s.explain(fmt.Errorf("state directory: %w", err))
	}
	_, err = fmt.Fprintf(f, "%d\n", size)
	if err == nil {
		err = s.hook.Around("fsync/high-water", f.Sync)
	}
	if err = errors.Join(err, f.Close(), give(s.dir, temp)); err == nil {
		err = s.hook.Around("rename/high-water", func() error { return os.Rename(temp, name) })
	}
	if err == nil {
		err = s.syncDir("fsync/state-dir", s.dir)
	}
	if err != nil {
		return s.explain(fmt.Errorf("write %s: %w", name, err))
	}
	s.mark.size = size
	return nil
}
