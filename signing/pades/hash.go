package pades

import (
	"context"
	"crypto"
	"encoding"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
)

// Once returns doc with a memory: its bytes are hashed once, whatever is staged behind it afterwards. A seal of level B-LTA
// is several revisions, and the original is nearly all that each of them covers. What it returns is safe for concurrent
// use as far as doc is.
func Once(doc Document) Document {
	if _, ok := doc.(*once); ok {
		return doc
	}
	return &once{Document: doc}
}

// Ahead hashes a document of Once before anything is staged behind it, for who has to wait for a key meanwhile. What keeps it from that is said to those
// who need the hashes.
func Ahead(ctx context.Context, doc Document, kinds ...crypto.Hash) {
	if o, ok := doc.(*once); ok {
		_, _ = o.state(ctx, kinds)
	}
}

// Behind returns the state of SHA-256 behind the last byte of a document, as its MarshalBinary gives it.
func Behind(ctx context.Context, doc Document) ([]byte, error) {
	hashes, err := hashDocument(ctx, doc, []crypto.Hash{crypto.SHA256})
	if err != nil {
		return nil, err
	}
	return hashes[0].(encoding.BinaryMarshaler).MarshalBinary()
}

type once struct {
	Document

	mu     sync.Mutex
	states map[crypto.Hash]hash.Cloner // behind the last byte
}

// state returns the hashes as they are behind the last byte, each the caller's own.
func (o *once) state(ctx context.Context, kinds []crypto.Hash) ([]hash.Hash, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	unknown := slices.DeleteFunc(slices.Clone(kinds), func(k crypto.Hash) bool { return o.states[k] != nil })
	if len(unknown) > 0 {
		hashes, err := readDocument(ctx, o.Document, unknown)
		if err != nil {
			return nil, err
		}
		if o.states == nil {
			o.states = make(map[crypto.Hash]hash.Cloner)
		}
		for i, k := range unknown {
			c, ok := hashes[i].(hash.Cloner)
			if !ok {
				return nil, fmt.Errorf("pades: the state of %s cannot be copied", k)
			}
			o.states[k] = c
		}
	}
	own := make([]hash.Hash, len(kinds))
	for i, k := range kinds {
		c, err := o.states[k].Clone()
		if err != nil {
			return nil, fmt.Errorf("pades: the state of %s: %w", k, err)
		}
		own[i] = c
	}
	return own, nil
}

// hashDocument returns hashes of those kinds as they are behind the last byte of doc.
func hashDocument(ctx context.Context, doc Document, kinds []crypto.Hash) ([]hash.Hash, error) {
	switch d := doc.(type) {
	case *once:
		return d.state(ctx, kinds)
	case Appended:
		hashes, err := hashDocument(ctx, d.Document, kinds)
		for _, h := range hashes {
			h.Write(d.Tail)
		}
		return hashes, err
	}
	return readDocument(ctx, doc, kinds)
}

// readDocument reads all of doc, once for all hashes.
func readDocument(ctx context.Context, doc Document, kinds []crypto.Hash) ([]hash.Hash, error) {
	hashes := make([]hash.Hash, len(kinds))
	for i, k := range kinds {
		hashes[i] = k.New()
	}
	r := io.NewSectionReader(doc, 0, doc.Size())
	buffer := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buffer)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := r.Read(buffer[:])
		for _, h := range hashes {
			h.Write(buffer[:n])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("pades: reading the document: %w", err)
		}
	}
	if at, _ := r.Seek(0, io.SeekCurrent); at != doc.Size() {
		return nil, fmt.Errorf("pades: reading the document: %w", io.ErrUnexpectedEOF)
	}
	return hashes, nil
}

// buffers to read documents through: clearing a new one takes about as long as hashing a small document.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}
