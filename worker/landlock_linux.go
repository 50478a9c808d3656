//go:build amd64 || arm64

package worker

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights on files and directories (landlock(7)).
const (
	readRights = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	execRights = readRights | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// allRights of ABI 1; later ones are added by rightsOf.
	allRights = 1<<13 - 1
	// fileRights are those that a rule on a file, not a directory, may grant.
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Loading the binary again takes these. None of them holds anything that a
// child must not see.
var (
	loaderExec = []string{self, "/lib", "/lib64", "/usr/lib", "/usr/lib64"}
	loaderRead = []string{"/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/sys/kernel/mm/transparent_hugepage"}
)

// landlockABI returns the version of the kernel's Landlock, 0 for none: not
// compiled in, not enabled at boot, or withheld by a container's own seccomp.
func landlockABI() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// rightsOf returns what a kernel of that ABI can forbid.
func rightsOf(abi int) uint64 {
	rights := uint64(allRights)
	if abi >= 2 {
		rights |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		rights |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		rights |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return rights
}

// restrictFiles puts the calling thread into a Landlock domain. Without
// Landlock in the kernel it does nothing; the parent warns.
func restrictFiles(s Sandbox) error {
	abi := landlockABI()
	if abi == 0 {
		return nil
	}
	rights := rightsOf(abi)
	attr := unix.LandlockRulesetAttr{Access_fs: rights}
	size := unsafe.Sizeof(attr.Access_fs)
	if abi >= 4 {
		size += unsafe.Sizeof(attr.Access_net)
		if !s.Network {
			attr.Access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if abi >= 6 {
		size += unsafe.Sizeof(attr.Scoped)
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL
		if !s.Network && !s.LocalSockets {
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return fmt.Errorf("ruleset: %w", errno)
	}
	defer unix.Close(int(fd))
	if err := allowAll(int(fd), s, rights); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("restrict: %w", errno)
	}
	return nil
}

func allowAll(ruleset int, s Sandbox, rights uint64) error {
	for _, group := range []struct {
		paths  []string
		rights uint64
	}{
		{loaderExec, execRights},
		{loaderRead, readRights},
		{s.Read, readRights},
		{s.Write, rights &^ unix.LANDLOCK_ACCESS_FS_EXECUTE},
	} {
		for _, path := range group.paths {
			// What is missing needs no permission; the program's own error
			// about it is better than one of ours.
			if err := allow(ruleset, path, group.rights); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func allow(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "allow", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "allow", Path: path, Err: errno}
	}
	return nil
}
