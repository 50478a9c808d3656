package verify

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/dealseal/dealseal/pdf"
)

// maxHole bounds the hexadecimal signature value in the file. LTV data may stand in the CMS and make it large; more than this is no signature.
const maxHole = 8 << 20

// byteRange is what a signature covers: [0, hole) and [resume, end).
type byteRange struct {
	hole, resume, end int64
}

func (b byteRange) list() []int64 { return []int64{0, b.hole, b.resume, b.end - b.resume} }

// parseByteRange reads /ByteRange (ISO 32000-1) and refuses every form but the one that leaves nothing out but a single hole.
func parseByteRange(v pdf.Array, size int64) (byteRange, error) {
	if len(v) != 4 {
		return byteRange{}, fmt.Errorf("the ByteRange has %d numbers instead of four", len(v))
	}
	var n [4]int64
	for i := range n {
		var ok bool
		if n[i], ok = pdf.Int(v[i]); !ok || n[i] < 0 || n[i] > size {
			return byteRange{}, fmt.Errorf("number %d of the ByteRange is not a position in the file", i+1)
		}
	}
	b := byteRange{hole: n[1], resume: n[2], end: n[2] + n[3]}
	switch {
	case n[0] != 0:
		return byteRange{}, fmt.Errorf("the ByteRange begins at byte %d and not at 0", n[0])
	case b.hole == 0 || b.resume < b.hole+2 || n[3] == 0:
		return byteRange{}, errors.New("the two parts of the ByteRange are empty, or leave no room for the signature between them")
	case b.end > size:
		return byteRange{}, fmt.Errorf("the ByteRange ends at byte %d, behind the end of the file", b.end)
	case b.resume-b.hole > maxHole:
		return byteRange{}, fmt.Errorf("the ByteRange leaves out %d bytes, more than the %d that a signature may have", b.resume-b.hole, maxHole)
	}
	return b, nil
}

// readHole returns the bytes that the hexadecimal string in the hole stands for. The hole must be that string and nothing else: any other byte there
// would be outside of the signature and inside of the document.
func readHole(r io.ReaderAt, b byteRange) ([]byte, error) {
	hole := make([]byte, b.resume-b.hole)
	if _, err := io.ReadFull(io.NewSectionReader(r, b.hole, int64(len(hole))), hole); err != nil {
		return nil, fmt.Errorf("read the signature value: %w", err)
	}
	digits, open := bytes.CutPrefix(hole, []byte("<"))
	digits, closed := bytes.CutSuffix(digits, []byte(">"))
	if !open || !closed {
		return nil, &holeError{fmt.Sprintf("what the ByteRange leaves out, bytes %d to %d, is not a hexadecimal string", b.hole, b.resume)}
	}
	value := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(value, digits); err != nil {
		return nil, &holeError{fmt.Sprintf("what the ByteRange leaves out, bytes %d to %d, has other characters than hexadecimal digits, or an odd number", b.hole, b.resume)}
	}
	return value, nil
}

// holeError tells a document's fault from one of reading it.
type holeError struct{ reason string }

func (e *holeError) Error() string { return e.reason }

// copyTo reads to the end of r unless ctx ends before.
func copyTo(ctx context.Context, w io.Writer, r io.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := io.CopyN(w, r, 1<<20)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the document: %w", err)
		}
	}
}
