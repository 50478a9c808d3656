package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

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

const (
	// lockPatience is how long a held lock is waited for: a child that the last holder was just starting has a copy of
	// it until it runs its own program.
	lockPatience = 500 * time.Millisecond
	lockPause    = 10 * time.Millisecond
)

// lock takes the exclusive lock of the state directory. The kernel lets go of it when the process ends, however it ends.
func lock(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := give(dir, f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := flock(ctx, f); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil, &LockedError{Dir: dir, PID: holder(f)}
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write process ID to %s: %w", f.Name(), err)
	}
	return f, nil
}

// flock returns unix.EWOULDBLOCK if another process holds the lock all the time.
func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lockPause):
		}
	}
}

func holder(f *os.File) string {
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return pid
	}
	return "unknown"
}
