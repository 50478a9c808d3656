package store

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// place names where a database lives. A file that was copied or restored has another inode or birth time, one that was
// moved to another host another machine ID: then what the CRM shows may be newer than what the database knows.
func place(path string) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", fmt.Errorf("look at %s: %w", path, err)
	}
	var born string
	if st.Mask&unix.STATX_BTIME != 0 {
		born = fmt.Sprintf("%d.%09d", st.Btime.Sec, st.Btime.Nsec)
	}
	return fmt.Sprintf("machine=%s inode=%d born=%s", machineID(), st.Ino, born), nil
}

// machineID is the host's own name for itself (machine-id(5)), empty where there is none.
func machineID() string {
	b, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
