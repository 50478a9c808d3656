package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/dealseal/dealseal/signing/pades"
)

// maxCopied is the size in bytes up to which a document that is no file is copied into memory for a child. A larger one is served: the child asks for the
// pieces that it reads, so that what a document takes of the memory has nothing to do with its size.
const maxCopied = 16 << 20

const (
	pieceSize  = 256 << 10
	heldPieces = 16 // that a child keeps: the tables and objects of a file are far from each other
)

// handed is a document in a form that a child can be given.
type handed struct {
	file   *os.File // what the child gets
	size   int64
	copied bool
	server *server // nil for a document that is all in file
}

// handOver prepares a document for a child. What it makes ends with done.
func handOver(doc pades.Document) (h *handed, err error) {
	h = &handed{size: doc.Size()}
	if f, ok := doc.(interface{ File() *os.File }); ok {
		h.file = f.File()
		return h, nil
	}
	if h.size > maxCopied {
		h.server, h.file, err = serve(doc)
		if err != nil {
			return nil, fmt.Errorf("let a child read the document: %w", err)
		}
		return h, nil
	}
	h.copied = true
	if h.file, err = newMemoryFile(); err != nil {
		return nil, fmt.Errorf("make a copy of the document: %w", err)
	}
	if _, err := io.Copy(h.file, io.NewSectionReader(doc, 0, h.size)); err != nil {
		_ = h.file.Close()
		return nil, fmt.Errorf("make a copy of the document: %w", err)
	}
	return h, nil
}

// first says where a child finds so many bytes of the document.
func (h *handed) first(size int64) target {
	t := target{Size: size}
	if h.server != nil {
		t.Served = h.size
	}
	return t
}

// done ends what handOver has made. Whatever a child says of a document that could not be read, the reason takes its place.
func (h *handed) done(err error) error {
	switch {
	case h.server != nil:
		_ = h.file.Close()
		if failure := h.server.end(); failure != nil {
			return fmt.Errorf("read the document: %w", failure)
		}
	case h.copied:
		_ = h.file.Close()
	}
	return err
}

// server gives a child the pieces of a document that it asks for.
type server struct {
	conn    net.Conn
	ended   chan struct{} // closed when failure is final
	failure error         // of reading the document
}

func serve(doc pades.Document) (*server, *os.File, error) {
	ours, theirs, err := newSocket()
	if err != nil {
		return nil, nil, err
	}
	s := &server{conn: ours, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.failure = answer(s.conn, doc)
		_ = s.conn.Close()
	}()
	return s, theirs, nil
}

// end waits until nothing reads the document any more, and returns why it could not be read.
func (s *server) end() error {
	_ = s.conn.Close()
	<-s.ended
	return s.failure
}

// answer reads the numbers of pieces, 8 bytes each and big-endian, and writes each piece as it is. A number that is none ends the conversation, and so does a
// document that cannot be read, which is the only error: who asks may end at any time.
func answer(conn io.ReadWriter, doc pades.Document) error {
	buffer := make([]byte, min(pieceSize, doc.Size()))
	for {
		var number [8]byte
		if _, err := io.ReadFull(conn, number[:]); err != nil {
			return nil
		}
		at, length := pieceOf(binary.BigEndian.Uint64(number[:]), doc.Size())
		if length == 0 {
			return nil
		}
		if _, err := io.ReadFull(io.NewSectionReader(doc, at, length), buffer[:length]); err != nil {
			return err
		}
		if _, err := conn.Write(buffer[:length]); err != nil {
			return nil
		}
	}
}

// pieceOf returns where a piece of a document of that size is; no length if there is none of that number.
func pieceOf(number uint64, size int64) (at, length int64) {
	if number >= uint64(size+pieceSize-1)/pieceSize {
		return 0, 0
	}
	at = int64(number) * pieceSize
	return at, min(pieceSize, size-at)
}

// served is a document on the side of the child. It is safe for concurrent use.
type served struct {
	socket io.ReadWriter
	size   int64

	mu   sync.Mutex
	held [heldPieces]heldPiece
	err  error // that ended the conversation
}

type heldPiece struct {
	next  uint64 // its number and one; 0 holds nothing
	bytes []byte
}

// ReadAt implements io.ReaderAt.
func (s *served) ReadAt(b []byte, at int64) (n int, err error) {
	if at < 0 {
		return 0, errors.New("verify: a place before the document")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n < len(b) {
		if at >= s.size {
			return n, io.EOF
		}
		piece, err := s.piece(uint64(at / pieceSize))
		if err != nil {
			return n, err
		}
		copied := copy(b[n:], piece[at%pieceSize:])
		n, at = n+copied, at+int64(copied)
	}
	return n, nil
}

// piece returns one that is held, or asks for it. Each number has one place where it can be held.
func (s *served) piece(number uint64) ([]byte, error) {
	h := &s.held[number%heldPieces]
	if h.next == number+1 {
		return h.bytes, nil
	}
	if s.err != nil {
		return nil, s.err
	}
	_, length := pieceOf(number, s.size)
	if h.next = 0; h.bytes == nil {
		h.bytes = make([]byte, 0, pieceSize)
	}
	h.bytes = h.bytes[:length]
	if s.err = s.fetch(number, h.bytes); s.err != nil {
		return nil, s.err
	}
	h.next = number + 1
	return h.bytes, nil
}

func (s *served) fetch(number uint64, piece []byte) error {
	if _, err := s.socket.Write(binary.BigEndian.AppendUint64(nil, number)); err != nil {
		return fmt.Errorf("verify: ask for a piece of the document: %w", err)
	}
	if _, err := io.ReadFull(s.socket, piece); err != nil {
		return fmt.Errorf("verify: a piece of the document did not come: %w", err)
	}
	return nil
}
