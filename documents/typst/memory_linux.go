package typst

import "golang.org/x/sys/unix"

// adviseHugePages spares page faults; a kernel that does not know it ignores it.
func adviseHugePages(space []byte) { _ = unix.Madvise(space, unix.MADV_HUGEPAGE) }
