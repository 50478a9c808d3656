//go:build !linux

package verify

import (
	"errors"
	"fmt"
	"net"
	"os"
)

var errNoChildren = fmt.Errorf("documents are read in child processes, which need Linux: %w", errors.ErrUnsupported)

// newMemoryFile fails as child processes do: both exist on Linux only.
func newMemoryFile() (*os.File, error) { return nil, errNoChildren }

// newSocket fails like newMemoryFile.
func newSocket() (net.Conn, *os.File, error) { return nil, nil, errNoChildren }
