package pdf

import (
	"bufio"
	"compress/zlib"
	"fmt"
	"io"
	"slices"
)

// StreamData reads and decodes a stream of at most 64 MiB. FlateDecode with its predictors is understood; any other
// filter is an error.
func (f *File) StreamData(s *Stream) ([]byte, error) {
	length, err := f.streamLength(s)
	if err != nil {
		return nil, err
	}
	return f.decode(s, length, maxStreamBytes)
}

// streamLength finds the length of the encoded data, and checks that the stream ends there.
func (f *File) streamLength(s *Stream) (int64, error) {
	v, err := f.Resolve(s.Dict.Get("Length"))
	if err != nil {
		return 0, err
	}
	n, ok := Int(v)
	if !ok || n < 0 || n > f.size-s.Offset {
		return 0, &SyntaxError{Offset: s.Offset, Reason: "the /Length of a stream is missing or behind the end of the file"}
	}
	l := newLexer(f.r, f.size, s.Offset+n)
	l.skipSpace()
	if !l.keyword("endstream") {
		return 0, l.fail("endstream expected: the /Length of a stream is wrong")
	}
	return n, nil
}

// decode reads length bytes of a stream and undoes its filters; the result has at most limit bytes.
func (f *File) decode(s *Stream, length, limit int64) ([]byte, error) {
	filters, params, err := f.filters(s)
	if err != nil {
		return nil, err
	}
	var r io.Reader = bufio.NewReader(io.NewSectionReader(f.r, s.Offset, length))
	for i, name := range filters {
		if name != "FlateDecode" {
			return nil, &SyntaxError{Offset: s.Offset, Reason: fmt.Sprintf("a stream has the filter %q, which is not supported", name)}
		}
		if r, err = f.inflate(s, r, params[i]); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, f.streamFault(s, err)
	}
	if int64(len(data)) > limit {
		return nil, &LimitError{Offset: s.Offset, What: "a stream has too many bytes", Limit: limit}
	}
	return data, f.spendBytes(length+int64(len(data)), s.Offset)
}

func (f *File) streamFault(s *Stream, err error) error {
	return &SyntaxError{Offset: s.Offset, Reason: fmt.Sprintf("the data of a stream cannot be decoded: %v", err)}
}

// filters returns the names of the filters and, in parallel, their parameters.
func (f *File) filters(s *Stream) ([]Name, []*Dict, error) {
	v, err := f.Resolve(s.Dict.Get("Filter"))
	if err != nil {
		return nil, nil, err
	}
	p, err := f.Resolve(s.Dict.Get("DecodeParms"))
	if err != nil {
		return nil, nil, err
	}
	list, isList := v.(Array)
	if !isList && v != nil {
		list, p = Array{v}, Array{p}
	}
	if len(list) > 4 {
		return nil, nil, &LimitError{Offset: s.Offset, What: "a stream has too many filters", Limit: 4}
	}
	parms, _ := p.(Array)
	names, dicts := make([]Name, len(list)), make([]*Dict, len(list))
	for i := range list {
		v, err := f.Resolve(list[i])
		if err != nil {
			return nil, nil, err
		}
		names[i], _ = v.(Name)
		if i < len(parms) {
			if dicts[i], err = f.ResolveDict(parms[i]); err != nil {
				return nil, nil, err
			}
		}
	}
	return names, dicts, nil
}

// inflate undoes FlateDecode and its predictor (7.4.4).
func (f *File) inflate(s *Stream, r io.Reader, params *Dict) (io.Reader, error) {
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, f.streamFault(s, err)
	}
	number := func(key Name, otherwise int64) int64 {
		v, rerr := f.Resolve(params.Get(key))
		if rerr != nil {
			err = rerr
		}
		if n, ok := Int(v); ok {
			return n
		}
		return otherwise
	}
	predictor, colors := number("Predictor", 1), number("Colors", 1)
	bits, columns := number("BitsPerComponent", 8), number("Columns", 1)
	switch {
	case err != nil:
		return nil, err
	case predictor == 1:
		return z, nil
	case predictor < 10 || predictor > 15:
		return nil, f.streamFault(s, fmt.Errorf("predictor %d is not supported", predictor))
	case colors < 1 || colors > 64 || bits < 1 || bits > 16 || columns < 1 || columns > 1<<20 || colors*bits*columns > 8*maxPredictorRow:
		return nil, f.streamFault(s, fmt.Errorf("the predictor's parameters are out of range"))
	}
	pixel := max(1, int(colors*bits+7)/8)
	row := int(colors*bits*columns+7) / 8
	return &pngPredictor{r: bufio.NewReader(z), pixel: pixel, row: make([]byte, row+1), above: make([]byte, row+1)}, nil
}

// pngPredictor undoes the PNG filters row by row (ISO/IEC 15948, clause 9).
type pngPredictor struct {
	r          *bufio.Reader
	pixel      int    // bytes from one pixel to the next
	row, above []byte // with the filter's number in front
	ready      []byte // decoded bytes not yet handed out
}

func (p *pngPredictor) Read(b []byte) (int, error) {
	if len(p.ready) == 0 {
		p.row, p.above = p.above, p.row
		if _, err := io.ReadFull(p.r, p.row); err != nil {
			return 0, err
		}
		if err := p.undo(p.row[0], p.row[1:], p.above[1:]); err != nil {
			return 0, err
		}
		p.ready = p.row[1:]
	}
	n := copy(b, p.ready)
	p.ready = p.ready[n:]
	return n, nil
}

func (p *pngPredictor) undo(filter byte, row, above []byte) error {
	for i := range row {
		var left, corner byte
		if i >= p.pixel {
			left, corner = row[i-p.pixel], above[i-p.pixel]
		}
		switch filter {
		case 0:
			return nil
		case 1:
			row[i] += left
		case 2:
			row[i] += above[i]
		case 3:
			row[i] += byte((int(left) + int(above[i])) / 2)
		case 4:
			row[i] += paeth(left, above[i], corner)
		default:
			return fmt.Errorf("there is no PNG filter %d", filter)
		}
	}
	return nil
}

func paeth(left, above, corner byte) byte {
	distance := func(b byte) int {
		d := int(left) + int(above) - int(corner) - int(b)
		return max(d, -d)
	}
	switch dl, da, dc := distance(left), distance(above), distance(corner); {
	case dl <= da && dl <= dc:
		return left
	case da <= dc:
		return above
	}
	return corner
}

// objStm is a decoded object stream (7.5.7).
type objStm struct {
	num   int
	place int64 // of the object in the file
	at    int64 // of its data in the file
	end   int64 // of what was read of the file
	data  []byte
	first int
	index []objStmEntry
	fixed bool // nothing but its own bytes decides what it holds
}

type objStmEntry struct {
	num, offset int
	value       any // once it was read
	known       bool
}

// objStmCache keeps the object streams used last, oldest first.
type objStmCache []*objStm

func (c *objStmCache) get(num int, place, size int64) *objStm {
	for _, s := range *c {
		if s.num == num && s.place == place && s.end <= size {
			return s
		}
	}
	return nil
}

func (c *objStmCache) add(s *objStm) {
	*c = append(*c, s)
	total := 0
	for i, s := range slices.Backward(*c) {
		if total += len(s.data); total > objStmCacheBytes && i < len(*c)-1 {
			*c = slices.Delete(*c, 0, i+1)
			return
		}
	}
}

// loadFromObjStm reads one object of an object stream.
func (f *File) loadFromObjStm(num, stm, index int) (any, error) {
	s, err := f.objStm(stm)
	if err != nil {
		return nil, err
	}
	if index >= len(s.index) || s.index[index].num != num {
		return nil, &SyntaxError{Offset: s.at, Reason: fmt.Sprintf("object stream %d does not have object %d at its place %d", stm, num, index)}
	}
	e := &s.index[index]
	if e.known {
		return e.value, f.spendBytes(16, s.at)
	}
	l := &lexer{b: s.data, p: s.first + e.offset, base: s.at, inside: fmt.Sprintf("object stream %d: ", stm)}
	v, err := l.value()
	if err != nil {
		return nil, err
	}
	e.value, e.known = v, true
	return v, f.spendBytes(int64(l.p-s.first-e.offset)+16, s.at)
}

// objStm finds an object stream among those read already, or reads it.
func (f *File) objStm(num int) (*objStm, error) {
	place := f.entries[num].offset
	for _, c := range []*objStmCache{&f.objStms, &f.read.objStms} {
		if s := c.get(num, place, f.size); s != nil {
			return s, nil
		}
	}
	s, err := f.readObjStm(num)
	if err != nil {
		return nil, err
	}
	if s.fixed {
		f.read.objStms.add(s)
	} else {
		f.objStms.add(s)
	}
	return s, nil
}

// isFixed reports whether a stream's dictionary says by itself how the data are to be read. What it leaves to other
// objects may mean something else in another revision.
func isFixed(v any) bool {
	switch v := v.(type) {
	case Ref:
		return false
	case Array:
		return !slices.ContainsFunc(v, func(item any) bool { return !isFixed(item) })
	case *Dict:
		return !slices.ContainsFunc(v.Keys(), func(k Name) bool { return !isFixed(v.Get(k)) })
	}
	return true
}

// readObjStm decodes an object stream and its table of contents.
func (f *File) readObjStm(num int) (*objStm, error) {
	e := f.entries[num]
	bad := func(format string, args ...any) error {
		return &SyntaxError{Offset: e.offset, Reason: fmt.Sprintf("object stream %d: ", num) + fmt.Sprintf(format, args...)}
	}
	if e.kind != inFile {
		return nil, bad("it is not an object of the file itself")
	}
	v, err := f.load(Ref{Num: num, Gen: e.gen})
	if err != nil {
		return nil, err
	}
	stream, ok := v.(*Stream)
	if !ok || stream.Dict.Get("Type") != Name("ObjStm") {
		return nil, bad("it is something else")
	}
	length, err := f.streamLength(stream)
	if err != nil {
		return nil, err
	}
	count, ok1 := Int(stream.Dict.Get("N"))
	first, ok2 := Int(stream.Dict.Get("First"))
	if !ok1 || !ok2 || count < 0 || first < 0 || count > maxObjStmObjects {
		return nil, bad("/N or /First is missing, negative or above %d", maxObjStmObjects)
	}
	data, err := f.decode(stream, length, maxObjStmBytes)
	if err != nil {
		return nil, err
	}
	if first > int64(len(data)) {
		return nil, bad("/First is behind its end")
	}
	s := &objStm{num: num, place: e.offset, at: stream.Offset, end: stream.Offset + length + int64(len("endstream")) + 2, data: data, first: int(first), fixed: isFixed(stream.Dict)}
	l := &lexer{b: data[:first], base: stream.Offset, inside: fmt.Sprintf("object stream %d: ", num)}
	for range count {
		n, err := l.integer("an object number", maxObjects)
		if err != nil {
			return nil, err
		}
		offset, err := l.integer("an offset", int64(len(data))-first)
		if err != nil {
			return nil, err
		}
		s.index = append(s.index, objStmEntry{num: int(n), offset: int(offset)})
	}
	return s, nil
}
