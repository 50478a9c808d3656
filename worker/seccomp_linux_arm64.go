package worker

import "golang.org/x/sys/unix"

const (
	auditArch      = unix.AUDIT_ARCH_AARCH64
	foreignNumbers = 0 // 32-bit calls come with an architecture of their own
)

var archBaseRefused = []uint32{unix.SYS_KEXEC_FILE_LOAD}

var archSealRefused = []uint32{unix.SYS_RENAMEAT}
