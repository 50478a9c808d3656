package typst

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// maxPages bounds the memory of one instance: 8192 pages of 64 KiB are 512 MiB.
const maxPages = 8192

// engine is the compiled module; it makes instances.
type engine struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	fonts    [][]byte  // in every instance
	data     []segment // of the module, which is compiled without
	warmed   *warmed
}

// openEngine takes the module's machine code from the cache, or compiles the module into the cache if that is empty.
// workers is the number of goroutines that compile. The module is not checked: openEngine is enough to fill a cache.
func openEngine(ctx context.Context, wasm []byte, cacheDir string, workers int) (*engine, error) {
	files, err := machineCode(cacheDir)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return fillCache(ctx, wasm, cacheDir, workers)
	}
	if err := soundCache(cacheDir); err != nil {
		return nil, err
	}
	frame, data, err := hollowed(wasm)
	if err != nil {
		return nil, err
	}
	e, err := compileModule(ctx, frame, cacheDir, workers)
	if err != nil {
		return nil, err
	}
	// Had the code not been found there would be another file now, with functions that do nothing.
	if err := soundCache(cacheDir); err != nil {
		return nil, errors.Join(err, e.runtime.Close(ctx))
	}
	e.data = data
	return e, nil
}

// fillCache compiles the module, and leaves its machine code under the name by which that of the hollow module is asked
// for. That name is for wazero to know: the hollow module is compiled as well, which takes no time, and its code replaced.
func fillCache(ctx context.Context, wasm []byte, cacheDir string, workers int) (*engine, error) {
	code, data, err := withoutData(wasm)
	if err != nil {
		return nil, err
	}
	frame, _, err := hollowed(wasm)
	if err != nil {
		return nil, err
	}
	named, err := compileModule(ctx, frame, cacheDir, workers)
	if err != nil {
		return nil, err
	}
	if err := named.runtime.Close(ctx); err != nil {
		return nil, err
	}
	names, err := machineCode(cacheDir)
	if err != nil {
		return nil, err
	}
	e, err := compileModule(ctx, code, cacheDir, workers)
	if err != nil {
		return nil, err
	}
	if err := adopt(cacheDir, names); err != nil {
		return nil, errors.Join(err, e.runtime.Close(ctx))
	}
	e.data = data
	return e, nil
}

// compileModule leaves the code in the cache, or takes it from there.
func compileModule(ctx context.Context, wasm []byte, cacheDir string, workers int) (*engine, error) {
	cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
	if err != nil {
		return nil, fmt.Errorf("typst: open the compile cache: %w", err)
	}
	// An instance that runs away is ended by killing its process. Watching the context inside it costs a factor of 3.
	config := wazero.NewRuntimeConfigCompiler().WithMemoryLimitPages(maxPages).WithCompilationCache(cache)
	e := &engine{runtime: wazero.NewRuntimeWithConfig(ctx, config)}
	if e.compiled, err = e.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, workers), wasm); err != nil {
		_ = e.runtime.Close(ctx)
		return nil, fmt.Errorf("typst: compile the renderer module: %w", err)
	}
	return e, nil
}

// bind checks the module's imports and offers the host's half of them.
func (e *engine) bind(ctx context.Context) error {
	if err := checkImports(e.compiled); err != nil {
		return err
	}
	return exportHosts(ctx, e.runtime, e.compiled)
}

// instance is one fresh compiler. It makes one document: a second one would find the memory of the first.
type instance struct {
	*guest
	compiler uint64
	result   uint64 // where calls leave what they return
}

// newInstance makes a compiler that knows the engine's fonts and then extra.
func (e *engine) newInstance(ctx context.Context, extra [][]byte) (*instance, error) {
	x := &instance{guest: newGuest(ctx, time.Unix(0, 0))}
	if err := x.closures(e.compiled); err != nil {
		return nil, err
	}
	if err := e.instantiate(x, experimental.MemoryAllocatorFunc(func(least, most uint64) experimental.LinearMemory { return mapMemory(least, most) })); err != nil {
		return nil, err
	}
	for _, s := range e.data {
		if !x.mod.Memory().Write(s.at, s.data) {
			x.close()
			return nil, errMemory
		}
	}
	if err := x.build(append(e.fonts[:len(e.fonts):len(e.fonts)], extra...)); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func (x *instance) close() { _ = x.mod.Close(x.ctx) }

// build makes the compiler: no file system, no packages, only these fonts.
func (x *instance) build(fonts [][]byte) error {
	if err := x.reserveResult(); err != nil {
		return err
	}
	if _, err := x.call("typstcompilerbuilder_new", x.result); err != nil {
		return err
	}
	word, err := x.word(x.result)
	if err != nil {
		return err
	}
	builder := uint64(word)
	if _, err := x.call("typstcompilerbuilder_set_dummy_access_model", x.result, builder); err != nil {
		return err
	}
	denied := &function{func(*guest, ...any) (any, error) { return nil, errDenied }}
	if _, err := x.promised("typstcompilerbuilder_set_package_registry", builder, x.add(undefined{}), x.add(denied)); err != nil {
		return err
	}
	for _, f := range fonts {
		if _, err := x.promised("typstcompilerbuilder_add_raw_font", builder, x.add(&byteArray{f})); err != nil {
			return err
		}
	}
	v, err := x.promised("typstcompilerbuilder_build", builder)
	if err != nil {
		return err
	}
	c, ok := v.(*classValue)
	if !ok {
		return &ModuleError{Reason: "did not build a compiler"}
	}
	x.compiler = uint64(c.pointer)
	return nil
}

// reserveResult takes room on the module's stack for what calls leave.
func (x *instance) reserveResult() error {
	const size = 16
	out, err := x.call("__wbindgen_add_to_stack_pointer", uint64(1<<32-size))
	if err != nil {
		return err
	}
	x.result = out[0]
	return nil
}

// promised calls an export that returns a promise and waits for it.
func (x *instance) promised(name string, args ...uint64) (any, error) {
	out, err := x.call(name, args...)
	if err != nil {
		return nil, err
	}
	return x.await(x.take(out[0]))
}

// returning calls an export that stores a value and an error, words of them in all, at x.result; the last two words are
// the error and whether there is one.
func (x *instance) returning(words uint64, name string, args ...uint64) (uint64, error) {
	if _, err := x.call(name, append([]uint64{x.result}, args...)...); err != nil {
		return 0, err
	}
	failed, err := x.word(x.result + 4*(words-1))
	if err != nil {
		return 0, err
	}
	if failed != 0 {
		slot, err := x.word(x.result + 4*(words-2))
		if err != nil {
			return 0, err
		}
		return 0, thrown(x.take(uint64(slot)))
	}
	first, err := x.word(x.result)
	return uint64(first), err
}

// Arguments of the compiler's calls.
const (
	paged           = 0 // target: pages, not HTML
	formatPDF       = 1
	fullDiagnostics = 3 // with path and range
)

// rendering is what a successful compilation leaves.
type rendering struct {
	pdf         []byte
	diagnostics []Diagnostic
	boxes       []byte // JSON array of what the template said about its signature boxes
	marks       []byte // JSON array with an entry for every watermark
}

// render compiles main with the given files. Diagnostics with an error come with no PDF and no error: they are the
// template's fault, an error is ours.
func (x *instance) render(files map[string][]byte, main string, clock time.Time) (*rendering, error) {
	x.clock = clock
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := x.mapFile("/"+name, files[name]); err != nil {
			return nil, err
		}
	}
	world, err := x.snapshot(main)
	if err != nil {
		return nil, err
	}
	r := &rendering{}
	// get_artifact alone would drop the warnings.
	failed, err := x.compile(r, world)
	if err != nil || failed {
		return r, err
	}
	if r.boxes, err = x.query(world, boxLabel, "value"); err != nil {
		return nil, err
	}
	if r.marks, err = x.query(world, markLabel, "label"); err != nil {
		return nil, err
	}
	r.pdf, err = x.export(world)
	return r, err
}

func (x *instance) mapFile(name string, data []byte) error {
	namePointer, nameLength, err := x.pass([]byte(name))
	if err != nil {
		return err
	}
	pointer, length, err := x.pass(data)
	if err != nil {
		return err
	}
	_, err = x.call("typstcompiler_map_shadow", x.compiler, namePointer, nameLength, pointer, length)
	return err
}

func (x *instance) snapshot(main string) (uint64, error) {
	root, rootLength, err := x.pass([]byte("/"))
	if err != nil {
		return 0, err
	}
	name, nameLength, err := x.pass([]byte("/" + main))
	if err != nil {
		return 0, err
	}
	return x.returning(3, "typstcompiler_snapshot", x.compiler, root, rootLength, name, nameLength, 0, 0)
}

func (x *instance) compile(r *rendering, world uint64) (failed bool, err error) {
	slot, err := x.returning(3, "typstcompileworld_compile", world, paged, fullDiagnostics)
	if err != nil {
		return false, err
	}
	o, ok := x.take(slot).(*object)
	if !ok {
		return false, &ModuleError{Reason: "returned no diagnostics"}
	}
	list, _ := o.get("diagnostics").(*array)
	if list == nil {
		return false, nil
	}
	for _, v := range list.items {
		if d, ok := v.(*object); ok {
			r.diagnostics = append(r.diagnostics, diagnosticOf(d))
			failed = failed || r.diagnostics[len(r.diagnostics)-1].Error
		}
	}
	return failed, nil
}

func (x *instance) query(world uint64, selector, member string) ([]byte, error) {
	s, sLength, err := x.pass([]byte(selector))
	if err != nil {
		return nil, err
	}
	m, mLength, err := x.pass([]byte(member))
	if err != nil {
		return nil, err
	}
	pointer, err := x.returning(4, "typstcompileworld_query", world, paged, s, sLength, m, mLength)
	if err != nil {
		return nil, err
	}
	length, err := x.word(x.result + 4)
	if err != nil {
		return nil, err
	}
	text, ok := x.mod.Memory().Read(uint32(pointer), length)
	if !ok {
		return nil, errMemory
	}
	if !json.Valid(text) {
		return nil, &ModuleError{Reason: "answered a query with what is not JSON"}
	}
	return append([]byte(nil), text...), nil
}

func (x *instance) export(world uint64) ([]byte, error) {
	slot, err := x.returning(3, "typstcompileworld_get_artifact", world, formatPDF, fullDiagnostics)
	if err != nil {
		return nil, err
	}
	o, _ := x.take(slot).(*object)
	if o == nil {
		return nil, &ModuleError{Reason: "returned no document"}
	}
	pdf, ok := o.get("result").(*byteArray)
	if !ok {
		return nil, &TrapError{Reason: "the document could not be exported as PDF"}
	}
	return pdf.b, nil
}
