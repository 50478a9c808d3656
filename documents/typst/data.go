package typst

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// segment is a piece of an instance's first memory.
type segment struct {
	at   uint32
	data []byte
}

// Sections of a module (WebAssembly Core Specification, 5.5.2), and what is in those of data and of code.
const (
	headerSize       = 8
	sectionCustom    = 0
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
	activeData       = 0 // a segment for memory 0 at an offset
	opUnreachable    = 0x00
	opI32Const       = 0x41
	opEnd            = 0x0b
)

// withoutData takes the data out of a module, so that instances need not copy all of it into memory that has it already.
func withoutData(wasm []byte) (code []byte, data []segment, err error) {
	code = make([]byte, 0, len(wasm))
	code, data, err = takeApart(code, wasm, func(code, section, _ []byte) ([]byte, error) { return append(code, section...), nil })
	return slices.Clip(code), data, err
}

// hollowed is withoutData with functions that do nothing. It is what a child tells of a module whose machine code it has:
// checking the functions themselves would take twice as long as all else that it does to start. The module's hash is in
// it, so that two modules do not have the same one.
func hollowed(wasm []byte) (frame []byte, data []segment, err error) {
	frame, data, err = takeApart(nil, wasm, func(frame, _, functions []byte) ([]byte, error) {
		r := reader{functions}
		count, err := r.unsigned()
		if err != nil || uint64(count)*smallestFunction > uint64(len(r.rest)) {
			return nil, errNoModule
		}
		content := binary.AppendUvarint(nil, uint64(count))
		return appendSection(frame, sectionCode, append(content, bytes.Repeat(hollow, int(count))...)), nil
	})
	if err != nil {
		return nil, nil, err
	}
	const name = "sha256"
	sum := sha256.Sum256(wasm)
	return appendSection(frame, sectionCustom, append(append([]byte{byte(len(name))}, name...), sum[:]...)), data, nil
}

// hollow is a function: its size, no locals, and a trap for whoever calls it.
var hollow = []byte{3, 0, opUnreachable, opEnd}

const smallestFunction = 3 // bytes: the size, no locals, the end

func appendSection(to []byte, id byte, content []byte) []byte {
	to = binary.AppendUvarint(append(to, id), uint64(len(content)))
	return append(to, content...)
}

// takeApart appends all of a module to a slice but its data; the section of its functions is added by another function,
// which gets it as a whole and its content.
func takeApart(to, wasm []byte, addCode func(to, section, content []byte) ([]byte, error)) (code []byte, data []segment, err error) {
	if len(wasm) < headerSize {
		return nil, nil, errNoModule
	}
	code = append(to, wasm[:headerSize]...)
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
		section := whole[:len(whole)-len(r.rest)]
		switch id {
		case sectionDataCount:
		case sectionData:
			data, err = segments(content)
		case sectionCode:
			code, err = addCode(code, section, content)
		default:
			code = append(code, section...)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return code, data, nil
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
