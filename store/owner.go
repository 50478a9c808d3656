package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// give gives files that were just made in the state directory to whom the directory belongs. Root works there for the
// daemon's user, who has to open them afterwards, even if root's process is killed; SQLite does the same for its own files.
func give(dir string, names ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, os.Lchown(name, int(owner.Uid), int(owner.Gid)))
	}
	return errors.Join(errs...)
}

// giveAll is give for all of a folder.
func giveAll(dir, folder string) error {
	return filepath.WalkDir(folder, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return give(dir, name)
	})
}
