package typst

import (
	"encoding/binary"
	"slices"
)

// segment is a piece of an instance's first memory.
type segment struct {
	at   uint32
	data []byte
}

// Sections of a module (WebAssembly Core Specification, 5.5.2), and what is in those of data.
const (
	headerSize       = 8
	sectionData      = 11
	sectionDataCount = 12
	activeData       = 0 // a segment for memory 0 at an offset
	opI32Const       = 0x41
	opEnd            = 0x0b
)

// withoutData takes the data out of a module, so that instances need not copy all of it into memory that has it already.
func withoutData(wasm []byte) (code []byte, data []segment, err error) {
	if len(wasm) < headerSize {
		return nil, nil, errNoModule
	}
	code = make([]byte, headerSize, len(wasm))
	copy(code, wasm)
	for r := (reader{wasm[headerSize:]}); len(r.rest) > 0; {
		whole := r.rest
		id, err := r.byte()
		if err != nil {
			return nil, nil, err
		}
		content, err := r.vector()
		if err != nil {
			return nil, nil, err
		}
		switch id {
		case sectionDataCount:
		case sectionData:
			if data, err = segments(content); err != nil {
				return nil, nil, err
			}
		default:
			code = append(code, whole[:len(whole)-len(r.rest)]...)
		}
	}
	return slices.Clip(code), data, nil
}

func segments(content []byte) ([]segment, error) {
	r := reader{content}
	count, err := r.unsigned()
	if err != nil {
		return nil, err
	}
	var all []segment
	for range count {
		kind, err := r.unsigned()
		if err != nil {
			return nil, err
		}
		op, err := r.byte()
		if err != nil {
			return nil, err
		}
		if kind != activeData || op != opI32Const {
			return nil, &ModuleError{Reason: "has data of a kind that this release does not know"}
		}
		at, err := r.signed()
		if err != nil {
			return nil, err
		}
		if end, err := r.byte(); err != nil || end != opEnd {
			return nil, errNoModule
		}
		b, err := r.vector()
		if err != nil {
			return nil, err
		}
		all = append(all, segment{uint32(at), slices.Clone(b)}) // the rest of the module is not kept for it
	}
	return all, nil
}

var errNoModule = &ModuleError{Reason: "is damaged: its sections do not fit together"}

// reader takes a module apart.
type reader struct{ rest []byte }

func (r *reader) byte() (byte, error) {
	if len(r.rest) == 0 {
		return 0, errNoModule
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b, nil
}

func (r *reader) unsigned() (uint32, error) {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > 1<<32-1 {
		return 0, errNoModule
	}
	r.rest = r.rest[n:]
	return uint32(v), nil
}

// signed reads signed LEB128, which is not the zigzag of encoding/binary.
func (r *reader) signed() (int32, error) {
	var v int64
	for shift := 0; shift < 35; shift += 7 {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		v |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return int32(v), nil
		}
	}
	return 0, errNoModule
}

// vector reads bytes that follow their number.
func (r *reader) vector() ([]byte, error) {
	n, err := r.unsigned()
	if err != nil || uint64(n) > uint64(len(r.rest)) {
		return nil, errNoModule
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b, nil
}
