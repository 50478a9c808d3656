package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
)

// noise is a document of so many bytes that are all different from their neighbours'.
func noise(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b) // never fails
	return b
}

func TestADocumentIsServedByteForByte(t *testing.T) {
	for _, size := range []int{1, pieceSize - 1, pieceSize, pieceSize + 1, (heldPieces+2)*pieceSize + 5} {
		doc := noise(size)
		s, theirs, err := serve(bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		child, original := &served{socket: theirs, size: int64(size)}, bytes.NewReader(doc)
		r := rand.New(rand.NewPCG(2, uint64(size)))
		for i := range 300 {
			at, length := r.Int64N(int64(size)+2), r.IntN(2*pieceSize)
			got, want := make([]byte, length), make([]byte, length)
			n, err := child.ReadAt(got, at)
			m, wantErr := original.ReadAt(want, at)
			if length == 0 { // what a reader says of no bytes at the end is its own affair
				err, wantErr = nil, nil
			}
			if n != m || !bytes.Equal(got, want) || !errors.Is(err, wantErr) {
				t.Fatalf("size %d, reading %d: %d bytes at %d: %d, %v, want %d, %v", size, i, length, at, n, err, m, wantErr)
			}
		}
		if err := errors.Join(theirs.Close(), s.end()); err != nil {
			t.Error(err)
		}
	}
}

// asking is a child that asks for what it likes and reads the answers.
type asking struct {
	io.Reader
	io.Writer
}

func FuzzAChildThatAsksForPieces(f *testing.F) {
	f.Add(binary.BigEndian.AppendUint64(nil, 0))
	f.Add(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1), 2))
	f.Add(bytes.Repeat([]byte{0xff}, 8))
	f.Add([]byte{0, 0, 0})
	doc := noise(pieceSize + 1000)
	f.Fuzz(func(t *testing.T, asked []byte) {
		hostile.Budget(t)
		asked = asked[:min(len(asked), 800)]
		var got bytes.Buffer
		if err := answer(asking{bytes.NewReader(asked), &got}, bytes.NewReader(doc)); err != nil {
			t.Fatal(err)
		}
		for ; len(asked) >= 8; asked = asked[8:] {
			n := binary.BigEndian.Uint64(asked)
			if n > 1 {
				break // ends the conversation
			}
			if want := doc[n*pieceSize : min((n+1)*pieceSize, uint64(len(doc)))]; !bytes.Equal(got.Next(len(want)), want) {
				t.Fatalf("piece %d came as another", n)
			}
		}
		if got.Len() > 0 {
			t.Fatalf("%d bytes came that were not asked for", got.Len())
		}
	})
}
