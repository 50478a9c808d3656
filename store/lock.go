package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the file in the state directory that a running daemon holds locked.
const lockName = "dealseal.lock"

// LockedError means that another process works in the state directory.
type LockedError struct {
	Dir string
	PID string // as the holder wrote it, "unknown" when it did not get to it
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is in use by process %s: two daemons on one state directory would seal twice; stop that one first", e.Dir, e.PID)
}

// Permanent is always true.
func (e *LockedError) Permanent() bool { return true }

// lock takes the exclusive lock of the state directory. The kernel lets go of it when the process ends, however it ends.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil, &LockedError{Dir: dir, PID: holder(f)}
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write process ID to %s: %w", f.Name(), err)
	}
	return f, nil
}

func holder(f *os.File) string {
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return pid
	}
	return "unknown"
}
