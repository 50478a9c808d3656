package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// kind is what a packet is for.
type kind uint8

const (
	kindConfine kind = iota + 1 // parent: the order, for the process that applies Landlock
	kindSetup                   // parent: the order again and Spec.Setup
	kindReady                   // child: the program has loaded
	kindCall                    // parent
	kindReply                   // child
	kindError                   // child: the answer to a setup or a call that failed
)

// packet is a frame on the wire.
type packet struct {
	kind kind
	id   uint32 // pairs a reply with its call
	Frame
	files int // announced number of Files
}

const (
	maxOp     = 64
	maxFiles  = 16
	fixedSize = 16
	smallBody = 4 << 10 // bytes up to which a body is copied rather than written from where it is
)

// The fixed part, big-endian: kind 1, op length 1, files 1, zero 1, id 4,
// header length 4, body length 4. Then op, header and body.

// FrameError says that what was to be sent, or was received, is no valid
// frame.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "worker: frame: " + e.Reason }

// Permanent is true: the same frame is refused again.
func (e *FrameError) Permanent() bool { return true }

// head encodes everything but the body.
func (p packet) head(limit int) ([]byte, error) {
	switch {
	case len(p.Op) > maxOp:
		return nil, &FrameError{fmt.Sprintf("the op has %d bytes, %d are allowed", len(p.Op), maxOp)}
	case len(p.Files) > maxFiles:
		return nil, &FrameError{fmt.Sprintf("%d files, %d are allowed", len(p.Files), maxFiles)}
	case len(p.Header) > limit || len(p.Body) > limit-len(p.Header):
		return nil, &FrameError{fmt.Sprintf("header and body have %d bytes, %d are allowed", len(p.Header)+len(p.Body), limit)}
	}
	b := make([]byte, fixedSize, fixedSize+len(p.Op)+len(p.Header)+min(len(p.Body), smallBody))
	b[0], b[1], b[2] = byte(p.kind), byte(len(p.Op)), byte(len(p.Files))
	binary.BigEndian.PutUint32(b[4:], p.id)
	binary.BigEndian.PutUint32(b[8:], uint32(len(p.Header)))
	binary.BigEndian.PutUint32(b[12:], uint32(len(p.Body)))
	b = append(b, p.Op...)
	return append(b, p.Header...), nil
}

// readPacket reads one packet, without its files. At the end of the stream
// between two packets the error is io.EOF.
func readPacket(r io.Reader, limit int) (packet, error) {
	var fixed [fixedSize]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return packet{}, err
	}
	p := packet{
		kind:  kind(fixed[0]),
		files: int(fixed[2]),
		id:    binary.BigEndian.Uint32(fixed[4:]),
	}
	op, header, body := int64(fixed[1]), int64(binary.BigEndian.Uint32(fixed[8:])), int64(binary.BigEndian.Uint32(fixed[12:]))
	switch {
	case p.kind < kindConfine || p.kind > kindError || fixed[3] != 0:
		return packet{}, &FrameError{"the other end does not speak this protocol"}
	case op > maxOp || p.files > maxFiles || header+body > int64(limit):
		return packet{}, &FrameError{fmt.Sprintf("op of %d bytes, header and body of %d, %d files: %d, %d and %d are allowed", op, header+body, p.files, maxOp, limit, maxFiles)}
	}
	name, err := readN(r, op)
	if err != nil {
		return packet{}, err
	}
	p.Op = string(name)
	if p.Header, err = readN(r, header); err != nil {
		return packet{}, err
	}
	p.Body, err = readN(r, body)
	return p, err
}

// readN reads n bytes, taking memory as they arrive and not as they are
// announced.
func readN(r io.Reader, n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	const eager = 1 << 20
	if n <= eager {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, unexpected(err)
		}
		return b, nil
	}
	var b bytes.Buffer
	b.Grow(eager)
	got, err := io.CopyN(&b, r, n)
	if got < n {
		err = unexpected(err)
	}
	return b.Bytes(), err
}

// unexpected is for the end of the stream inside of a packet.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // passed on or dropped; there is nobody left to tell
	}
}
