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
	in      input
}

// input is what was received and is not yet claimed by a packet. It is the reader's.
type input struct {
	bytes  []byte // rest of buffer
	buffer [4 << 10]byte
	files  []*os.File
	oob    [256]byte // room for maxFiles descriptors
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
	if len(p.Body) <= smallBody {
		_, err = c.socket.Write(append(head, p.Body...))
		return err
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
	if err == nil {
		p.Files, err = c.in.claim(p.files)
	}
	if err != nil {
		closeFiles(c.in.files)
		c.in.files = nil
		return packet{}, err
	}
	return p, nil
}

// claim takes the files of the packet that was just read. They came with its first bytes, so that what came with no byte of
// another packet is its own.
func (in *input) claim(n int) (files []*os.File, err error) {
	if len(in.files) < n || len(in.files) > n && len(in.bytes) == 0 {
		return nil, &FrameError{fmt.Sprintf("%d files came, %d were announced", len(in.files), n)}
	}
	if n == 0 {
		return nil, nil
	}
	files, in.files = in.files[:n:n], in.files[n:]
	return files, nil
}

// reader reads from a conn and collects the files that come with the bytes.
// Every read must look for them: one without room for them loses them.
type reader struct{ *conn }

// Read goes through the buffer, so that a small packet costs one system call.
func (r reader) Read(b []byte) (n int, err error) {
	if len(r.in.bytes) == 0 {
		if len(b) >= len(r.in.buffer) {
			return r.receive(b)
		}
		if n, err = r.receive(r.in.buffer[:]); n <= 0 {
			return 0, err
		}
		r.in.bytes = r.in.buffer[:n]
	}
	n = copy(b, r.in.bytes)
	r.in.bytes = r.in.bytes[n:]
	return n, err
}

func (r reader) receive(b []byte) (int, error) {
	n, oobn, flags, _, err := r.socket.ReadMsgUnix(b, r.in.oob[:])
	if oobn > 0 {
		if err := r.collect(r.in.oob[:oobn]); err != nil {
			return n, err
		}
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return n, &FrameError{"more files than allowed"}
	case len(r.in.files) > 2*maxFiles: // those of a packet and of the next one
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
			r.in.files = append(r.in.files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return nil
}
