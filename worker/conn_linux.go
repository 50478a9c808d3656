//go:build amd64 || arm64

package worker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// conn is one end of the socketpair. One goroutine may read while others
// write.
type conn struct {
	socket *net.UnixConn
	limit  int // bytes in a frame

	writing sync.Mutex
	passed  []*os.File // received, not yet claimed by a packet; the reader's
	oob     [256]byte  // room for maxFiles descriptors; the reader's
}

// newConn takes over f.
func newConn(f *os.File, limit int) (*conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	socket, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("not a local socket")
	}
	return &conn{socket: socket, limit: limit}, nil
}

func (c *conn) Close() error { return c.socket.Close() }

// write sends p. After an error other than a *FrameError the stream is broken.
func (c *conn) write(p packet) error {
	head, err := p.head(c.limit)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if len(p.Files) > 0 {
		n, err := c.writeWithFiles(head, p.Files)
		if err != nil {
			return err
		}
		head = head[n:]
	}
	buffers := net.Buffers{head, p.Body}
	_, err = buffers.WriteTo(c.socket)
	return err
}

// writeWithFiles sends the files along with the first bytes of head, and
// returns how many those were.
func (c *conn) writeWithFiles(head []byte, files []*os.File) (int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return 0, &FrameError{fmt.Sprintf("file %d: %v", i, err)}
		}
		// Fd would put the descriptor into blocking mode for everybody.
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return 0, &FrameError{fmt.Sprintf("file %d: %v", i, err)}
		}
	}
	n, _, err := c.socket.WriteMsgUnix(head, unix.UnixRights(fds...), nil)
	runtime.KeepAlive(files) // used by number: they must stay open until here
	return n, err
}

// read receives one packet with its files.
func (c *conn) read() (packet, error) {
	p, err := readPacket(reader{c}, c.limit)
	files := c.passed
	c.passed = nil
	if err == nil && len(files) != p.files {
		err = &FrameError{fmt.Sprintf("%d files came, %d were announced", len(files), p.files)}
	}
	if err != nil {
		closeFiles(files)
		return packet{}, err
	}
	p.Files = files
	return p, nil
}

// reader reads from a conn and collects the files that come with the bytes.
// Every read must look for them: one without room for them loses them.
type reader struct{ *conn }

func (r reader) Read(b []byte) (int, error) {
	n, oobn, flags, _, err := r.socket.ReadMsgUnix(b, r.oob[:])
	if oobn > 0 {
		if err := r.collect(r.oob[:oobn]); err != nil {
			return n, err
		}
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return n, &FrameError{"more files than allowed"}
	case len(r.passed) > maxFiles:
		return n, &FrameError{"more files than allowed"}
	}
	return n, err
}

func (r reader) collect(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return &FrameError{err.Error()}
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // some other control message
		}
		for _, fd := range fds {
			r.passed = append(r.passed, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return nil
}
