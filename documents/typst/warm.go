package typst

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// warmed is what instances start from: one that knows its fonts and has made a document of ours, so that what the compiler
// makes once and keeps is made once in a child and not for every document. One that goes on to make a sample of a bundle
// has laid out what all documents of that bundle share, too. Nothing of a customer is ever in it. Instances that come of it
// are as fresh as others: each has its own memory, which goes when it closes, and of the image only the pages that it does
// not write to.
type warmed struct {
	image    *image
	pages    uint32 // of wasmPage
	heap     heap   // its values do not change, but for the global object, of which every instance has its own
	global   *object
	invoke   string // see guest
	settler  string
	compiler uint64
	result   uint64
}

//go:embed warm.typ
var warmContract string

// warmRecord has what warm.typ asks for.
const warmRecord = `{"title": "Agreement", "lines": [
  {"description": "Licence, per year", "note": "Renewed", "quantity": "12", "amount": "1,200.00 €"},
  {"description": "Training", "note": "On site", "quantity": "1", "amount": "34.50 €"}]}`

// warm makes the document that nobody sees, and keeps what the instance is then.
func (e *engine) warm(ctx context.Context) error {
	x, err := e.newInstance(ctx, nil)
	if err != nil {
		return err
	}
	defer x.close()
	files := map[string][]byte{libraryFile: library, recordFile: []byte(warmRecord), fontsFile: []byte("[]"), mainFile: []byte(breaks + warmContract)}
	if err := x.warmWith(files, time.Unix(0, 0)); err != nil {
		return err
	}
	e.warmed, err = x.keep(nil, maxPages*wasmPage)
	return err
}

// warmBundle makes a sample of a bundle, in an instance that begins warm already, and keeps what the instance is then. That
// is one sample only: with the next one the compiler forgets what it has not used for it.
func (e *engine) warmBundle(ctx context.Context, files map[string][]byte, clock time.Time) (*warmed, error) {
	x, err := e.freshInstance(ctx, e.warmed)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if err := x.warmWith(files, clock); err != nil {
		return nil, err
	}
	return x.keep(e.warmed.image, maxSampleImage)
}

// warmWith makes a document that nobody sees and takes its files away again.
func (x *instance) warmWith(files map[string][]byte, clock time.Time) error {
	made, err := x.render(files, mainFile, clock)
	if err != nil {
		return err
	}
	if made.pdf == nil {
		return &ModuleError{Reason: fmt.Sprintf("cannot lay out what instances are warmed with: %d diagnostics", len(made.diagnostics))}
	}
	_, err = x.call("typstcompiler_reset_shadow", x.compiler)
	return err
}

// keep copies what x is now and base is not, if that is not too much.
func (x *instance) keep(base *image, most int) (*warmed, error) {
	if len(x.tasks) > 0 {
		return nil, &ModuleError{Reason: "has something left to do between documents"}
	}
	for _, v := range x.slots {
		if !x.lasting(v) {
			return nil, &ModuleError{Reason: fmt.Sprintf("keeps a %T between documents", v)}
		}
	}
	memory := x.mod.Memory()
	all, ok := memory.Read(0, memory.Size())
	if !ok {
		return nil, errMemory
	}
	image, err := newImage(all, base, most)
	if err != nil {
		return nil, err
	}
	return &warmed{image: image, pages: memory.Size() / wasmPage, heap: x.heap, global: x.global, invoke: x.invoke, settler: x.settler, compiler: x.compiler, result: x.result}, nil
}

// lasting reports whether a value of the host is the same for all instances, or the global object.
func (x *instance) lasting(v any) bool {
	switch v := v.(type) {
	case nil, undefined, bool, float64, string, *function:
		return true
	case *object:
		return v == x.global
	case *promise:
		return v.settled && len(v.then) == 0 && x.lasting(v.value)
	}
	return false
}

// wasmPage is the unit of an instance's memory in bytes.
const wasmPage = 64 << 10

// freshInstance is newInstance without further fonts, only faster.
func (e *engine) freshInstance(ctx context.Context, w *warmed) (*instance, error) {
	x := &instance{guest: newGuest(ctx, time.Unix(0, 0)), compiler: w.compiler}
	x.invoke, x.settler = w.invoke, w.settler
	x.heap = w.heap.clone(w.global, x.global)
	if err := e.instantiate(x, w); err != nil {
		return nil, err
	}
	if err := x.resume(w); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// instantiate gives x a module with memory of that kind.
func (e *engine) instantiate(x *instance, memory experimental.MemoryAllocator) (err error) {
	ctx := experimental.WithMemoryAllocator(x.ctx, memory)
	x.mod, err = e.runtime.InstantiateModule(ctx, e.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return fmt.Errorf("typst: start an instance: %w", trapOf(err))
	}
	return nil
}

// resume gives x all of its memory, and puts the stack where it was.
func (x *instance) resume(w *warmed) error {
	memory := x.mod.Memory()
	if _, ok := memory.Grow(w.pages - memory.Size()/wasmPage); !ok {
		return errMemory
	}
	if err := x.reserveResult(); err != nil {
		return err
	}
	if x.result != w.result {
		return &ModuleError{Reason: "begins with another stack each time"}
	}
	return nil
}

// Allocate implements experimental.MemoryAllocator: memory that begins as the image.
func (w *warmed) Allocate(least, most uint64) experimental.LinearMemory {
	m := mapMemory(least, most)
	if err := w.image.cover(m.space); err != nil {
		panic(fmt.Errorf("map the renderer's memory: %w", err)) // see mapMemory
	}
	return m
}

// clone is a heap with another object in the place of one.
func (h heap) clone(one, other *object) heap {
	c := heap{slots: slices.Clone(h.slots), free: slices.Clone(h.free)}
	for i, v := range c.slots {
		if v == any(one) {
			c.slots[i] = other
		}
	}
	return c
}
