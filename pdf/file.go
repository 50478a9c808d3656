package pdf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// File is an open PDF. It holds the cross-reference entries and a small cache, never the file. It is not safe for
// concurrent use, nor are the files that Earlier makes of it.
type File struct {
	r        io.ReaderAt
	size     int64
	base     int64 // what the offsets in the file count from: where %PDF- stands
	version  string
	entries  map[int]entry
	sections []section // newest first
	trailer  *Dict
	next     int // first object number that was never used
	loading  map[int]bool
	read     *cache
	objStms  objStmCache // those of this revision alone
	pages    []Ref
	work     int64 // bytes that may still be read
}

// cache is what was read already. An update never changes the bytes before it, so that a place in the file means the same
// in every revision.
type cache struct {
	objects map[int64]object // by the byte at which they begin
	size    int64            // of their text
	objStms objStmCache
}

// object is what stands at a place in the file.
type object struct {
	ref   Ref
	value any
	end   int64 // of its text, or of what had to be looked at to find it
}

// Open reads the cross-reference sections of a PDF of size bytes. r must stay unchanged while the File is in use.
// Errors are *SyntaxError, *LimitError, *EncryptedError, or those of r.
func Open(r io.ReaderAt, size int64) (*File, error) {
	return openWith(r, size, &cache{objects: make(map[int64]object)})
}

// Earlier opens the document as it was when it had size bytes, which must be no more than it has now. What both have in
// common is read once. Errors are those of Open.
func (f *File) Earlier(size int64) (*File, error) {
	if size < 0 || size > f.size {
		return nil, &SyntaxError{Offset: f.size, Reason: fmt.Sprintf("the file never had %d bytes", size)}
	}
	return openWith(f.r, size, f.read)
}

func openWith(r io.ReaderAt, size int64, read *cache) (*File, error) {
	f := &File{
		r: r, size: size, read: read,
		entries: make(map[int]entry),
		loading: make(map[int]bool),
		work:    baseWork + workFactor*size,
	}
	if err := f.readHeader(); err != nil {
		return nil, err
	}
	start, err := f.startXRef()
	if err != nil {
		return nil, err
	}
	if err := f.readSections(start); err != nil {
		return nil, err
	}
	if f.trailer.Get("Encrypt") != nil {
		return nil, &EncryptedError{}
	}
	if _, ok := f.trailer.Get("Root").(Ref); !ok {
		return nil, &SyntaxError{Offset: f.sections[0].offset, Reason: "the trailer has no /Root reference"}
	}
	return f, nil
}

// Size is the length of the file in bytes.
func (f *File) Size() int64 { return f.size }

// Version is the version of the header, such as "1.7"; the catalog's /Version may be newer.
func (f *File) Version() string { return f.version }

// Trailer returns the newest trailer dictionary. It must not be changed.
func (f *File) Trailer() *Dict { return f.trailer }

// Catalog returns the document catalog and where it is.
func (f *File) Catalog() (Ref, *Dict, error) {
	ref, ok := f.trailer.Get("Root").(Ref)
	if !ok {
		return Ref{}, nil, &SyntaxError{Offset: f.sections[0].offset, Reason: "the trailer has no /Root reference"}
	}
	d, err := f.ResolveDict(ref)
	if err != nil {
		return Ref{}, nil, err
	}
	if d == nil {
		return Ref{}, nil, &SyntaxError{Offset: f.offsetOf(ref), Reason: "the document catalog is not a dictionary"}
	}
	return ref, d, nil
}

// Resolve follows v while it is a reference. A reference to an object that does not exist gives nil, as ISO 32000-1,
// 7.3.10 wants it. What it returns must not be changed.
func (f *File) Resolve(v any) (any, error) {
	for range maxReferences {
		ref, ok := v.(Ref)
		if !ok {
			return v, nil
		}
		var err error
		if v, err = f.load(ref); err != nil {
			return nil, err
		}
	}
	if _, ok := v.(Ref); !ok {
		return v, nil
	}
	return nil, &LimitError{What: "a reference leads to a reference, and so on", Limit: maxReferences}
}

// ResolveDict is Resolve for what should be a dictionary; anything else gives nil.
func (f *File) ResolveDict(v any) (*Dict, error) {
	v, err := f.Resolve(v)
	if err != nil {
		return nil, err
	}
	switch d := v.(type) {
	case *Dict:
		return d, nil
	case *Stream:
		return d.Dict, nil
	}
	return nil, nil
}

// ResolveArray is Resolve for what should be an array; anything else gives nil.
func (f *File) ResolveArray(v any) (Array, error) {
	v, err := f.Resolve(v)
	if err != nil {
		return nil, err
	}
	a, _ := v.(Array)
	return a, nil
}

// offsetOf says where to look for an object, for error messages.
func (f *File) offsetOf(ref Ref) int64 {
	switch e := f.entries[ref.Num]; e.kind {
	case inFile:
		return e.offset
	case inObjStm:
		return f.entries[int(e.offset)].offset
	}
	return 0
}

// load reads one indirect object.
func (f *File) load(ref Ref) (any, error) {
	e, ok := f.entries[ref.Num]
	if !ok || e.kind == free || e.gen != ref.Gen {
		return nil, nil
	}
	if known, ok := f.read.objects[e.offset]; ok && e.kind == inFile && known.ref == ref && known.end < f.size {
		return known.value, f.spendBytes(16, e.offset)
	}
	if f.loading[ref.Num] {
		return nil, &SyntaxError{Offset: f.offsetOf(ref), Reason: fmt.Sprintf("object %d is needed to read itself", ref.Num)}
	}
	f.loading[ref.Num] = true
	defer delete(f.loading, ref.Num)
	if e.kind == inObjStm {
		return f.loadFromObjStm(ref.Num, int(e.offset), e.index)
	}
	l := newLexer(f.r, f.size, e.offset)
	v, err := f.indirect(l, ref)
	if err != nil {
		return nil, err
	}
	f.read.keep(e.offset, object{ref, v, l.offset()}, f.size)
	return v, f.spend(l)
}

// keep remembers an object as long as there is space. What was read to the last byte of the file might go on there in a
// longer one.
func (c *cache) keep(offset int64, o object, size int64) {
	if length := o.end - offset; o.end < size && c.size+length <= objectCacheBytes {
		c.objects[offset], c.size = o, c.size+length
	}
}

// indirect parses "num gen obj ... endobj", or the part of it before the stream data.
func (f *File) indirect(l *lexer, ref Ref) (any, error) {
	num, err := l.integer("an object number", maxObjects)
	if err != nil {
		return nil, err
	}
	gen, err := l.integer("a generation number", 65535)
	if err != nil {
		return nil, err
	}
	if int(num) != ref.Num || int(gen) != ref.Gen {
		return nil, l.fail("object %d %d is here, where the cross-reference puts %d %d", num, gen, ref.Num, ref.Gen)
	}
	return f.body(l)
}

// body parses an indirect object from its word "obj" on.
func (f *File) body(l *lexer) (any, error) {
	if !l.keyword("obj") {
		return nil, l.fail("the word obj expected")
	}
	v, err := l.value()
	if err != nil {
		return nil, err
	}
	d, isDict := v.(*Dict)
	if !isDict || !l.keyword("stream") {
		if !l.keyword("endobj") {
			return nil, l.fail("the word endobj expected")
		}
		return v, nil
	}
	// The data begins after CR LF or LF (7.3.8.1).
	if l.prefix("\r\n") {
		l.p++
	}
	if !l.prefix("\n") {
		return nil, l.fail("the word stream is not followed by a line end")
	}
	l.p++
	return &Stream{Dict: d, Offset: l.offset()}, nil
}

// spend charges what l has read to the budget of the file.
func (f *File) spend(l *lexer) error { return f.spendBytes(int64(l.p)+16, l.offset()) }

func (f *File) spendBytes(n, at int64) error {
	if f.work -= n; f.work < 0 {
		return &LimitError{Offset: at, What: "reading this file takes too much work, in bytes", Limit: baseWork + workFactor*f.size}
	}
	return nil
}

// readAt fills b from offset, or fails.
func (f *File) readAt(b []byte, offset int64) error {
	n, err := f.r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("pdf: reading at byte %d: %w", offset, err)
}

// readHeader finds %PDF-x.y, which some producers put behind other bytes.
func (f *File) readHeader() error {
	b := make([]byte, min(f.size, headerWindow))
	if err := f.readAt(b, 0); err != nil {
		return err
	}
	i := bytes.Index(b, []byte("%PDF-"))
	if i < 0 || i+8 > len(b) {
		return &SyntaxError{Reason: "no %PDF- header: this is not a PDF file"}
	}
	f.base, f.version = int64(i), string(b[i+5:i+8])
	return nil
}

// startXRef reads where the newest cross-reference section is.
func (f *File) startXRef() (int64, error) {
	b := make([]byte, min(f.size, trailerWindow))
	from := f.size - int64(len(b))
	if err := f.readAt(b, from); err != nil {
		return 0, err
	}
	i := bytes.LastIndex(b, []byte("startxref"))
	if i < 0 {
		return 0, &SyntaxError{Offset: f.size, Reason: fmt.Sprintf(
			"no startxref in the last %d bytes: the file is cut off or has foreign data behind it", len(b))}
	}
	l := newLexer(f.r, f.size, from+int64(i)+int64(len("startxref")))
	at, err := l.integer("the offset of a cross-reference section", f.size)
	if err != nil {
		return 0, err
	}
	l.skipSpace()
	if !l.prefix("%%EOF") {
		return 0, l.fail("%%%%EOF expected: the file is cut off")
	}
	return at, nil
}
