//go:build !linux

package verify

import (
	"errors"
	"fmt"
	"os"
)

// newMemoryFile fails as child processes do: both exist on Linux only.
func newMemoryFile() (*os.File, error) {
	return nil, fmt.Errorf("documents are read in child processes, which need Linux: %w", errors.ErrUnsupported)
}
