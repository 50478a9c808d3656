package verify

import "golang.org/x/sys/unix"

func adviseHugePages(room []byte) { _ = unix.Madvise(room, unix.MADV_HUGEPAGE) }
