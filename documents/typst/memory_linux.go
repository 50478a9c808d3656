package typst

import (
	"bytes"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseHugePages spares page faults; a kernel that does not know it ignores it.
func adviseHugePages(space []byte) { _ = unix.Madvise(space, unix.MADV_HUGEPAGE) }

// image is memory that does not change. Whoever is covered by it sees its content and copies the pages that it writes to.
// It holds only what differs from the image that it is based on.
type image struct {
	fd   int
	base *image // nil for one that stands alone
	runs []run  // in order
	size int    // of the whole content
}

// run is a piece of the content that the image holds itself.
type run struct{ at, from, length int } // in the content, in the file

// newImage keeps b, or what of it base has not. More than most bytes it does not copy.
func newImage(b []byte, base *image, most int) (*image, error) {
	m := &image{base: base, size: len(b)}
	var err error
	if m.runs, err = base.differences(b); err != nil {
		return nil, fmt.Errorf("typst: memory of instances: %w", err)
	}
	if n := m.own(); n > most {
		return nil, fmt.Errorf("typst: memory of instances: %d bytes to keep, %d are allowed", n, most)
	}
	if m.fd, err = unix.MemfdCreate("renderer", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
		return nil, fmt.Errorf("typst: memory of instances: %w", err)
	}
	if err := m.fill(b); err != nil {
		m.close()
		return nil, fmt.Errorf("typst: memory of instances: %w", err)
	}
	return m, nil
}

// differences are the pieces of b that are not in m, page by page. No image has nothing.
func (m *image) differences(b []byte) ([]run, error) {
	if m == nil {
		return []run{{length: len(b)}}, nil
	}
	old, err := unix.Mmap(-1, 0, m.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Munmap(old) }()
	if err := m.cover(old); err != nil {
		return nil, err
	}
	var runs []run
	from, step := 0, unix.Getpagesize()
	for at := 0; at < len(b); at += step {
		end := min(at+step, len(b))
		if end <= len(old) && bytes.Equal(b[at:end], old[at:end]) {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].at+runs[n-1].length == at {
			runs[n-1].length += end - at
		} else {
			runs = append(runs, run{at: at, from: from, length: end - at})
		}
		from += end - at
	}
	return runs, nil
}

func (m *image) fill(b []byte) error {
	for _, r := range m.runs {
		for done := 0; done < r.length; {
			n, err := unix.Pwrite(m.fd, b[r.at+done:r.at+r.length], int64(r.from+done))
			if err != nil {
				return err
			}
			done += n
		}
	}
	_, err := unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return err
}

// own is how much memory the image takes beside its base.
func (m *image) own() (n int) {
	for _, r := range m.runs {
		n += r.length
	}
	return n
}

// cover maps the image over the beginning of space, which begins a page.
func (m *image) cover(space []byte) error {
	if len(space) < m.size {
		return unix.ENOMEM
	}
	if m.base != nil {
		if err := m.base.cover(space); err != nil {
			return err
		}
	}
	for _, r := range m.runs {
		_, err := unix.MmapPtr(m.fd, int64(r.from), unsafe.Pointer(&space[r.at]), uintptr(r.length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
		if err != nil {
			return err
		}
	}
	return nil
}

// close leaves the memory to those whom it covers; when they are gone, it is too. The base stays.
func (m *image) close() { _ = unix.Close(m.fd) }
