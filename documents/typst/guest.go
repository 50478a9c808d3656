package typst

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// guest is one instance of the compiler and the host's half of its bindings. It is used by one goroutine.
type guest struct {
	heap
	ctx     context.Context
	mod     api.Module
	tasks   []func() error // microtasks
	global  *object
	clock   time.Time
	invoke  string // exports that call a Rust closure with one value,
	settler string // and with the two functions of a new promise
}

type guestKey struct{}

// errMemory is an access beyond the guest's memory: the module and its bindings do not fit each other.
var errMemory = errors.New("typst: the module pointed outside its memory")

func newGuest(ctx context.Context, clock time.Time) *guest {
	g := &guest{heap: newHeap(), global: newObject(), clock: clock}
	g.global.set("queueMicrotask", &function{})
	g.ctx = context.WithValue(ctx, guestKey{}, g)
	return g
}

// call runs an export. An error is a trap: the instance is not to be used again.
func (g *guest) call(name string, args ...uint64) ([]uint64, error) {
	f := g.mod.ExportedFunction(name)
	if f == nil {
		return nil, fmt.Errorf("typst: the module has no export %s", name)
	}
	out, err := f.Call(g.ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("typst: %s: %w", name, trapOf(err))
	}
	return out, nil
}

// trapOf keeps the first line of a trap: the rest is a stack of the module's own functions.
func trapOf(err error) error {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return &TrapError{Reason: line + ", which is how it ends when a document takes more than 512 MiB"} // maxPages
}

// must is call for host functions, where a panic is the way to trap the module.
func (g *guest) must(name string, args ...uint64) []uint64 {
	out, err := g.call(name, args...)
	if err != nil {
		panic(err)
	}
	return out
}

func (g *guest) read(pointer, length uint64) []byte {
	b, ok := g.mod.Memory().Read(uint32(pointer), uint32(length))
	if !ok {
		panic(errMemory)
	}
	return append([]byte(nil), b...)
}

func (g *guest) write(pointer uint64, b []byte) {
	if !g.mod.Memory().Write(uint32(pointer), b) {
		panic(errMemory)
	}
}

func (g *guest) text(pointer, length uint64) string { return string(g.read(pointer, length)) }

func (g *guest) setWord(pointer uint64, v uint32) {
	if !g.mod.Memory().WriteUint32Le(uint32(pointer), v) {
		panic(errMemory)
	}
}

func (g *guest) word(pointer uint64) (uint32, error) {
	v, ok := g.mod.Memory().ReadUint32Le(uint32(pointer))
	if !ok {
		return 0, errMemory
	}
	return v, nil
}

// pass copies b into memory that the guest then owns.
func (g *guest) pass(b []byte) (pointer, length uint64, err error) {
	const alignment = 1
	out, err := g.call("__wbindgen_export", uint64(len(b)), alignment)
	if err != nil {
		return 0, 0, err
	}
	if !g.mod.Memory().Write(uint32(out[0]), b) {
		return 0, 0, errMemory
	}
	return out[0], uint64(len(b)), nil
}

// returnText stores a text's pointer and length where a binding expects them.
func (g *guest) returnText(at uint64, s string) {
	p, n, err := g.pass([]byte(s))
	if err != nil {
		panic(err)
	}
	g.setWord(at+4, uint32(n))
	g.setWord(at, uint32(p))
}

func (g *guest) queue(f *function, args ...any) {
	g.tasks = append(g.tasks, func() error {
		_, err := f.call(g, args...)
		return err
	})
}

// await runs the microtasks until nothing is left and returns what the promise was settled with.
func (g *guest) await(v any) (any, error) {
	p, ok := v.(*promise)
	if !ok {
		return nil, errors.New("typst: the module did not return a promise")
	}
	for len(g.tasks) > 0 {
		task := g.tasks[0]
		g.tasks = g.tasks[1:]
		if err := task(); err != nil {
			return nil, err
		}
	}
	switch {
	case !p.settled:
		return nil, errors.New("typst: the module waits for something that never comes")
	case !p.ok:
		return nil, thrown(p.value)
	}
	return p.value, nil
}

// thrown is a JavaScript exception as an error. Its text stays behind: it may quote the document.
func thrown(v any) error {
	if f, ok := v.(*failure); ok && f.message == errDenied.Error() {
		return errDenied
	}
	return &TrapError{Reason: "the module threw an exception"}
}
