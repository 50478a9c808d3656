//go:build amd64 || arm64

package worker

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filter is a seccomp program. It names what is refused, not what is allowed:
// what a vendor's PKCS#11 module calls cannot be listed. A call that is
// refused returns EPERM.
type filter []unix.SockFilter

// Offsets in struct seccomp_data (seccomp(2)). Arguments are 64 bits wide; on
// both of our little-endian architectures the low half comes first.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArg0   = 16
)

const (
	retAllow  = unix.SECCOMP_RET_ALLOW
	retRefuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retAbsent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

const newNamespace = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
	unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// baseFilter refuses, for the whole life of a child, everything by which it
// could become or reach another process, change the kernel, or open a socket
// that s does not allow.
func baseFilter(s Sandbox) filter {
	f := newFilter()
	f.refuse(baseRefused...)
	f.refuse(archBaseRefused...)
	// Its flags are in memory, where a filter cannot look. The C library then
	// falls back to clone.
	f.answer(unix.SYS_CLONE3, retAbsent)
	// Threads only, and in the namespaces that there are.
	f.argument(unix.SYS_CLONE,
		statement(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, newNamespace, 2, 0),
		statement(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, unix.CLONE_THREAD, 0, 1))
	pid := statement(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, uint32(os.Getpid()), 0, 1)
	f.argument(unix.SYS_KILL, pid)
	f.argument(unix.SYS_TGKILL, pid)
	f.argument(unix.SYS_RT_SIGQUEUEINFO, pid)
	f.argument(unix.SYS_RT_TGSIGQUEUEINFO, pid)
	switch {
	case s.Network:
		f.argument(unix.SYS_SOCKET, family(unix.AF_UNIX, 2), family(unix.AF_INET, 1), family(unix.AF_INET6, 0))
	case s.LocalSockets:
		f.argument(unix.SYS_SOCKET, family(unix.AF_UNIX, 0))
	default:
		f.refuse(unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4)
	}
	return f.end()
}

// sealFilter refuses what takes a path.
func sealFilter() filter {
	f := newFilter()
	f.refuse(sealRefused...)
	f.refuse(archSealRefused...)
	return f.end()
}

// newFilter begins with what holds for every filter: a foreign calling
// convention, whose numbers mean other calls, ends the process.
func newFilter() *filter {
	f := filter{
		load(offsetArch),
		statement(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, auditArch, 1, 0),
		verdict(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNumber),
	}
	if foreignNumbers != 0 {
		f = append(f,
			statement(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, foreignNumbers, 0, 1),
			verdict(retRefuse))
	}
	return &f
}

func (f *filter) refuse(numbers ...uint32) {
	for _, n := range numbers {
		f.answer(n, retRefuse)
	}
}

// answer gives call number n its verdict.
func (f *filter) answer(n, ret uint32) {
	*f = append(*f, statement(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, n, 0, 1), verdict(ret))
}

// argument allows call number n if the tests of its first argument lead past
// the last of them, and refuses it if they lead one further.
func (f *filter) argument(n uint32, tests ...unix.SockFilter) {
	*f = append(*f, statement(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, n, 0, uint8(len(tests)+3)), load(offsetArg0))
	*f = append(*f, tests...)
	*f = append(*f, verdict(retAllow), verdict(retRefuse))
}

// family tests for an address family, with more tests after it.
func family(af uint32, more uint8) unix.SockFilter {
	var refuse uint8 // the next test
	if more == 0 {
		refuse = 1
	}
	return statement(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, af, more, refuse)
}

func (f *filter) end() filter { return append(*f, verdict(retAllow)) }

func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0)
}

func verdict(ret uint32) unix.SockFilter {
	return statement(unix.BPF_RET|unix.BPF_K, ret, 0, 0)
}

func statement(code uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: code, K: k, Jt: jt, Jf: jf}
}

// install puts the filter on every thread of the process, for good.
func (f filter) install() error {
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	stray, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if stray != 0 {
		return fmt.Errorf("seccomp: thread %d did not take the filter", stray)
	}
	return nil
}

// baseRefused are calls of both architectures; see baseFilter.
var baseRefused = []uint32{
	// another program, another process's memory
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_TKILL,
	// another view of the file system
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOUNT_SETATTR, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
	// io_uring opens and connects without the calls that are filtered
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// the kernel itself
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE,
	unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT,
	unix.SYS_QUOTACTL, unix.SYS_SYSLOG, unix.SYS_PERSONALITY, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME,
	unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP,
	unix.SYS_FANOTIFY_INIT,
	// the keyrings of the daemon's user
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
}

// sealRefused are calls of both architectures; see sealFilter.
var sealRefused = []uint32{
	unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT2,
	unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_READLINKAT, unix.SYS_TRUNCATE, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT,
	unix.SYS_UTIMENSAT, unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR,
	unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_CHDIR,
}
