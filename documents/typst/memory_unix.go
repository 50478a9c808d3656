//go:build unix

package typst

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapped is an instance's memory outside the Go heap: address space is reserved once, pages come as they are touched,
// and all of it goes back at once when the instance ends.
type mapped struct{ space []byte }

func mapMemory(_, most uint64) *mapped {
	space, err := unix.Mmap(-1, 0, int(most), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		// wazero has no other way to report it; the instantiation fails with this text.
		panic(fmt.Errorf("reserve %d MB for the renderer: %w", most>>20, err))
	}
	adviseHugePages(space)
	return &mapped{space}
}

// Reallocate returns nil, which makes memory.grow fail, beyond what was reserved.
func (m *mapped) Reallocate(size uint64) []byte {
	if size > uint64(len(m.space)) {
		return nil
	}
	return m.space[:size]
}

func (m *mapped) Free() {
	_ = unix.Munmap(m.space) // fails for an address that is not mapped only
	m.space = nil
}
