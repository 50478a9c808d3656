package typst

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// hostFunc implements one import. The stack holds the arguments and takes the result, as wazero defines it. A panic in
// it traps the module and comes out as the error of the call.
type hostFunc func(g *guest, s []uint64)

// importModule is the name under which wasm-bindgen expects its host.
const importModule = "wbg"

// hashSuffix ends the names of most imports and changes with the release of the bindings.
var hashSuffix = regexp.MustCompile(`_[0-9a-f]{16}$`)

// hostOf finds the implementation of an import: by its name without the hash where that is unique, by the full name
// where several bindings share a name.
func hostOf(name string) hostFunc {
	short := strings.TrimPrefix(name, "__wbg_")
	if f, ok := exactHosts[short]; ok {
		return f
	}
	return hosts[hashSuffix.ReplaceAllString(short, "")]
}

// checkImports compares everything that the module imports with what this package implements.
func checkImports(m wazero.CompiledModule) error {
	var missing []string
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != importModule || hostOf(name) == nil {
			missing = append(missing, module+"."+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return &ModuleError{Reason: fmt.Sprintf("imports %d functions that this release does not know (%s): "+
		"fetch the version that belongs to it with make renderer", len(missing), strings.Join(missing, ", "))}
}

// exportHosts makes the host module of a runtime. It serves all instances; each finds its own state in the context.
func exportHosts(ctx context.Context, r wazero.Runtime, m wazero.CompiledModule) error {
	b := r.NewHostModuleBuilder(importModule)
	for _, f := range m.ImportedFunctions() {
		_, name, _ := f.Import()
		host := hostOf(name)
		run := api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			g := ctx.Value(guestKey{}).(*guest)
			g.mod = mod
			host(g, stack)
		})
		b.NewFunctionBuilder().WithGoModuleFunction(run, f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("typst: bind the module's imports: %w", err)
	}
	return nil
}

// closures finds the exports through which the host calls back into Rust. Their names end in numbers that change with
// every build; their shapes do not.
func (g *guest) closures(m wazero.CompiledModule) error {
	const prefix = "__wasm_bindgen_func_elem_"
	for name, f := range m.ExportedFunctions() {
		if !strings.HasPrefix(name, prefix) || len(f.ResultTypes()) != 0 {
			continue
		}
		switch len(f.ParamTypes()) {
		case 3:
			g.invoke = name
		case 4:
			g.settler = name
		}
	}
	if g.invoke == "" || g.settler == "" {
		return &ModuleError{Reason: "does not export the closures of its bindings"}
	}
	return nil
}

// exactHosts are the imports whose names say too little without their hash.
var exactHosts = map[string]hostFunc{
	"new_1ba21ce319a06297":  func(g *guest, s []uint64) { s[0] = g.add(newObject()) },
	"new_25f239778d6112b9":  func(g *guest, s []uint64) { s[0] = g.add(&array{}) },
	"new_8a6f238a6ece86ea":  func(g *guest, s []uint64) { s[0] = g.add(&failure{"Error"}) },
	"new_b2db8aa2650f793a":  func(g *guest, s []uint64) { s[0] = g.add(date{}) },
	"new_df1173567d5ff028":  hostError,
	"new_6421f6084cc5bc5a":  hostCopyBytes,
	"new_ff12d2b041fb48f1":  hostPromise,
	"get_6b7bd52aca3f9671":  func(g *guest, s []uint64) { s[0] = g.add(g.get(s[0]).(*array).items[uint32(s[1])]) },
	"get_af9dab7e9603ea93":  func(g *guest, s []uint64) { s[0] = g.add(property(g.get(s[0]), g.get(s[1]))) },
	"set_3f1d0b984ed272ed":  func(g *guest, s []uint64) { g.get(s[0]).(*object).set(g.take(s[1]).(string), g.take(s[2])) },
	"set_781438a03c0c3c81":  hostSet,
	"set_7df433eea03a5c14":  hostSetIndex,
	"call_abb4ff46ce38be40": func(g *guest, s []uint64) { hostCall(g, s, 2) },
	"call_3020136f7a2d6e44": func(g *guest, s []uint64) { hostCall(g, s, 3) },
	"call_78f94eb02ec7f9b2": func(g *guest, s []uint64) { hostCall(g, s, 5) },

	"new_from_slice_f9c22b9153b26992": func(g *guest, s []uint64) { s[0] = g.add(&byteArray{g.read(s[0], s[1])}) },
	"new_from_slice_db0691b69e9d3891": unsupported("Uint32Array"),
	"error_7534b8e9a36f1ab4":          hostConsoleText,
	"error_85faeb8919b11cc6":          ignored,

	"queueMicrotask_9b549dfce8865860": func(g *guest, s []uint64) { s[0] = g.add(g.global.get("queueMicrotask")) },
	"queueMicrotask_fca69f5bfad613a5": func(g *guest, s []uint64) { g.queue(g.get(s[0]).(*function), undefined{}) },

	"__wbindgen_cast_2241b6af4c4b2941": func(g *guest, s []uint64) { s[0] = g.add(g.text(s[0], s[1])) },
	"__wbindgen_cast_3334ea73b4b28ba3": hostClosure,
	"__wbindgen_cast_d6cd19b81560fd6e": func(g *guest, s []uint64) { s[0] = g.add(math.Float64frombits(s[0])) },
	"__wbindgen_cast_4625c577ab2ec9ee": unsupported("BigInt"),
	"__wbindgen_cast_9ae0607507abb057": unsupported("BigInt"),
}

// hosts are the imports that their name identifies.
var hosts = map[string]hostFunc{
	"__wbindgen_object_clone_ref": func(g *guest, s []uint64) { s[0] = g.add(g.get(s[0])) },
	"__wbindgen_object_drop_ref":  func(g *guest, s []uint64) { g.take(s[0]) },
	"_wbg_cb_unref":               ignored, // the instance dies with its document

	"__wbindgen_boolean_get":  hostBoolean,
	"__wbindgen_number_get":   hostNumber,
	"__wbindgen_string_get":   hostString,
	"__wbindgen_debug_string": func(g *guest, s []uint64) { g.returnText(s[0], fmt.Sprintf("%T", g.get(s[1]))) },
	"__wbindgen_throw":        func(*guest, []uint64) { panic(thrown(nil)) }, // its text may quote the document

	"__wbindgen_is_bigint":    func(_ *guest, s []uint64) { s[0] = 0 },
	"__wbindgen_is_function":  func(g *guest, s []uint64) { s[0] = truth(is[*function](g.get(s[0]))) },
	"__wbindgen_is_object":    func(g *guest, s []uint64) { s[0] = truth(isObject(g.get(s[0]))) },
	"__wbindgen_is_string":    func(g *guest, s []uint64) { s[0] = truth(is[string](g.get(s[0]))) },
	"__wbindgen_is_undefined": func(g *guest, s []uint64) { s[0] = truth(is[undefined](g.get(s[0]))) },
	"isArray":                 func(g *guest, s []uint64) { s[0] = truth(is[*array](g.get(s[0]))) },
	"instanceof_Uint8Array":   func(g *guest, s []uint64) { s[0] = truth(is[*byteArray](g.get(s[0]))) },
	"instanceof_ArrayBuffer":  func(_ *guest, s []uint64) { s[0] = 0 },
	"instanceof_Map":          func(_ *guest, s []uint64) { s[0] = 0 },
	"isSafeInteger":           hostSafeInteger,

	"Error":             hostError,
	"stack":             func(g *guest, s []uint64) { g.returnText(s[0], "Error") },
	"entries":           hostEntries,
	"length":            hostLength,
	"push":              hostPush,
	"get_with_ref_key":  func(g *guest, s []uint64) { s[0] = g.add(property(g.get(s[0]), g.get(s[1]))) },
	"prototypesetcall":  func(g *guest, s []uint64) { g.write(s[0], g.get(s[2]).(*byteArray).b[:uint32(s[1])]) },
	"now":               func(g *guest, s []uint64) { s[0] = math.Float64bits(float64(g.clock.UnixMilli())) },
	"getTimezoneOffset": func(_ *guest, s []uint64) { s[0] = math.Float64bits(0) },
	"info":              ignored,
	"resolve":           hostResolve,
	"then":              hostThen,

	// The bindings build functions from source text. The texts are known; none is evaluated.
	"new_no_args":   func(g *guest, s []uint64) { s[0] = g.add(builtin(g.text(s[0], s[1]))) },
	"new_with_args": func(g *guest, s []uint64) { s[0] = g.add(builtin(g.text(s[2], s[3]))) },

	"static_accessor_GLOBAL_THIS": func(g *guest, s []uint64) { s[0] = g.add(g.global) },
	"static_accessor_GLOBAL":      none,
	"static_accessor_SELF":        none,
	"static_accessor_WINDOW":      none,

	"typstcompiler_new":     hostClass,
	"typstfontresolver_new": hostClass,
	"proxycontext_new":      hostClass,

	"Number":                       unsupported("Number()"),
	"__wbindgen_bigint_get_as_i64": unsupported("BigInt"),
	"__wbindgen_in":                unsupported("in"),
	"__wbindgen_jsval_eq":          unsupported("==="),
	"__wbindgen_jsval_loose_eq":    unsupported("=="),
	"iterator":                     unsupported("iterators"),
	"next":                         unsupported("iterators"),
	"done":                         unsupported("iterators"),
	"value":                        unsupported("iterators"),
}

func ignored(*guest, []uint64) {}

func none(_ *guest, s []uint64) { s[0] = 0 }

// unsupported is for imports that the calls of this package never reach.
func unsupported(what string) hostFunc {
	return func(*guest, []uint64) {
		panic(&TrapError{Reason: "the module uses " + what + ", which its host does not offer"})
	}
}

func is[T any](v any) bool { _, ok := v.(T); return ok }

func isObject(v any) bool {
	switch v.(type) {
	case *object, *array, *byteArray, *promise, *failure, *classValue, date:
		return true
	}
	return false
}

func truth(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func property(of, key any) any {
	o, ok := of.(*object)
	k, text := key.(string)
	if !ok || !text {
		return undefined{}
	}
	return o.get(k)
}

func hostError(g *guest, s []uint64) { s[0] = g.add(&failure{g.text(s[0], s[1])}) }

func hostCopyBytes(g *guest, s []uint64) {
	s[0] = g.add(&byteArray{slices.Clone(g.get(s[0]).(*byteArray).b)})
}

func hostSet(g *guest, s []uint64) {
	g.get(s[0]).(*object).set(g.get(s[1]).(string), g.get(s[2]))
	s[0] = 1
}

func hostSetIndex(g *guest, s []uint64) {
	a, i := g.get(s[0]).(*array), int(uint32(s[1]))
	if i > len(a.items) {
		panic(&TrapError{Reason: "the module left a gap in an array"})
	}
	if i == len(a.items) {
		a.items = append(a.items, nil)
	}
	a.items[i] = g.take(s[2])
}

func hostPush(g *guest, s []uint64) {
	a := g.get(s[0]).(*array)
	a.items = append(a.items, g.get(s[1]))
	s[0] = uint64(len(a.items))
}

func hostLength(g *guest, s []uint64) {
	switch v := g.get(s[0]).(type) {
	case *array:
		s[0] = uint64(len(v.items))
	case *byteArray:
		s[0] = uint64(len(v.b))
	default:
		panic(&TrapError{Reason: fmt.Sprintf("the module asked for the length of a %T", v)})
	}
}

func hostEntries(g *guest, s []uint64) {
	o := g.get(s[0]).(*object)
	a := &array{}
	for _, k := range o.keys {
		a.items = append(a.items, &array{[]any{k, o.values[k]}})
	}
	s[0] = g.add(a)
}

func hostBoolean(g *guest, s []uint64) {
	const notBoolean = 0xFFFFFF
	v, ok := g.get(s[0]).(bool)
	if s[0] = truth(v); !ok {
		s[0] = notBoolean
	}
}

func hostNumber(g *guest, s []uint64) {
	f, ok := g.get(s[1]).(float64)
	g.write(s[0]+8, binary.LittleEndian.AppendUint64(nil, math.Float64bits(f)))
	g.setWord(s[0], uint32(truth(ok)))
}

func hostString(g *guest, s []uint64) {
	v, ok := g.get(s[1]).(string)
	if ok {
		g.returnText(s[0], v)
		return
	}
	g.setWord(s[0]+4, 0)
	g.setWord(s[0], 0)
}

func hostSafeInteger(g *guest, s []uint64) {
	f, ok := g.get(s[0]).(float64)
	s[0] = truth(ok && f == math.Trunc(f) && math.Abs(f) < 1<<53)
}

// hostConsoleText drops the text, which may quote a document, and frees it.
func hostConsoleText(g *guest, s []uint64) { g.must("__wbindgen_export4", s[0], s[1], 1) }

func hostClass(g *guest, s []uint64) { s[0] = g.add(&classValue{uint32(s[0])}) }

// hostCall calls the function in slot 0 with the values behind the receiver in slot 1.
func hostCall(g *guest, s []uint64, n int) {
	var args []any
	for _, slot := range s[2:n] {
		args = append(args, g.get(slot))
	}
	f, ok := g.get(s[0]).(*function)
	var v any
	err := error(&TrapError{Reason: "the module called what is no function"})
	if ok && f.call != nil {
		v, err = f.call(g, args...)
	}
	if err != nil {
		g.must("__wbindgen_export3", g.add(&failure{err.Error()}))
		s[0] = 0
		return
	}
	s[0] = g.add(v)
}

func hostClosure(g *guest, s []uint64) {
	a, b := s[0], s[1]
	s[0] = g.add(&function{func(g *guest, args ...any) (any, error) {
		_, err := g.call(g.invoke, a, b, g.add(args[0]))
		return undefined{}, err
	}})
}

func hostPromise(g *guest, s []uint64) {
	p := &promise{}
	settle := func(ok bool) *function {
		return &function{func(g *guest, args ...any) (any, error) {
			p.settle(g, ok, args[0])
			return undefined{}, nil
		}}
	}
	g.must(g.settler, s[0], s[1], g.add(settle(true)), g.add(settle(false)))
	s[0] = g.add(p)
}

func hostResolve(g *guest, s []uint64) {
	p := &promise{}
	p.settle(g, true, g.get(s[0]))
	s[0] = g.add(p)
}

func hostThen(g *guest, s []uint64) {
	p, f := g.get(s[0]).(*promise), g.get(s[1]).(*function)
	if p.settled {
		g.queue(f, p.value)
	} else {
		p.then = append(p.then, f)
	}
	s[0] = g.add(&promise{})
}

// builtin recognises the few functions that the bindings make from source text. Anything else fails when called: that
// is how file reads and packages stay denied.
func builtin(source string) *function {
	return &function{func(g *guest, args ...any) (any, error) {
		switch {
		case strings.Contains(source, "return this"):
			return g.global, nil
		case strings.Contains(source, "new Date(0)"):
			return date{}, nil
		case source == "return 0":
			return float64(0), nil
		case strings.Contains(source, "return true"):
			return true, nil
		case strings.Contains(source, "return path") && len(args) > 0:
			return args[0], nil
		}
		return nil, errDenied
	}}
}
