package pades

import "bytes"

// Appended is a document with an update behind it, without either being copied.
type Appended struct {
	Document
	Tail []byte
}

// Size is that of the document and the update.
func (a Appended) Size() int64 { return a.Document.Size() + int64(len(a.Tail)) }

// ReadAt reads across the border.
func (a Appended) ReadAt(b []byte, at int64) (n int, err error) {
	size := a.Document.Size()
	if at < size {
		want := min(int64(len(b)), size-at)
		if n, err = a.Document.ReadAt(b[:want], at); int64(n) < want {
			return n, err
		}
	}
	if n == len(b) {
		return n, nil
	}
	m, err := bytes.NewReader(a.Tail).ReadAt(b[n:], max(at-size, 0))
	return n + m, err
}
