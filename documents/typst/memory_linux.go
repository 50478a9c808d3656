package typst

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseHugePages spares page faults; a kernel that does not know it ignores it.
func adviseHugePages(space []byte) { _ = unix.Madvise(space, unix.MADV_HUGEPAGE) }

// image is memory that does not change. Whoever is covered by it sees its content and copies the pages that it writes to.
type image struct {
	fd   int // open as long as the process lives
	size int
}

func newImage(b []byte) (*image, error) {
	fd, err := unix.MemfdCreate("renderer", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("typst: memory of instances: %w", err)
	}
	m := &image{fd: fd, size: len(b)}
	if err := m.fill(b); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("typst: memory of instances: %w", err)
	}
	return m, nil
}

func (m *image) fill(b []byte) error {
	for at := 0; at < len(b); {
		n, err := unix.Pwrite(m.fd, b[at:], int64(at))
		if err != nil {
			return err
		}
		at += n
	}
	_, err := unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return err
}

// cover maps the image over the beginning of space, which begins a page.
func (m *image) cover(space []byte) error {
	if len(space) < m.size {
		return unix.ENOMEM
	}
	_, err := unix.MmapPtr(m.fd, 0, unsafe.Pointer(unsafe.SliceData(space)), uintptr(m.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	return err
}
