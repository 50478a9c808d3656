package typst

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/dealseal/dealseal/documents"
)

// opened is the engine of the children, in this process.
func opened(t *testing.T) *engine {
	t.Helper()
	r := common(t)
	if err := r.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	wasm, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	e, err := openEngine(t.Context(), wasm, r.cache.dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.runtime.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := e.bind(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.fonts = embeddedFonts()
	return e
}

// sample is a document of a bundle, as a child gets it.
func sample(t *testing.T, b *documents.Bundle, record []byte) (files map[string][]byte, clock time.Time) {
	t.Helper()
	p, err := b.Prepare(record)
	if err != nil {
		t.Fatal(err)
	}
	if files, err = sources(b, p, nil, ""); err != nil {
		t.Fatal(err)
	}
	return files, p.Time
}

func rendered(t *testing.T, x *instance, files map[string][]byte, clock time.Time) []byte {
	t.Helper()
	made, err := x.render(files, mainFile, clock)
	if err != nil || made.pdf == nil {
		t.Fatalf("%v, %v", err, made)
	}
	return made.pdf
}

// memory is all that the module can see.
func (x *instance) memory(t *testing.T) []byte {
	t.Helper()
	m := x.mod.Memory()
	all, ok := m.Read(0, m.Size())
	if !ok {
		t.Fatal(errMemory)
	}
	return all
}

func TestWhatIsWarmedChangesNoDocumentAndCarriesNothingOver(t *testing.T) {
	e := opened(t)
	if err := e.warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := documents.LoadAll(templates)
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *instance {
		t.Helper()
		x, err := e.freshInstance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(x.close)
		return x
	}
	first := bytes.Clone(fresh().memory(t))
	for name, file := range map[string]string{"order-form@1": "samples/short.json", "nda@1": "samples/standard.json", "audit-trail@1": "samples/sealed.json"} {
		record, ok := all[name].File(file)
		if !ok {
			t.Fatalf("%s has no %s", name, file)
		}
		files, clock := sample(t, all[name], record)
		cold, err := e.newInstance(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cold.close)
		want := rendered(t, cold, files, clock)
		warm := fresh()
		if got := rendered(t, warm, files, clock); !bytes.Equal(got, want) {
			t.Errorf("%s: an instance that begins warm makes another document", name)
		}
		if bytes.Equal(warm.memory(t)[:len(first)], first) {
			t.Errorf("%s: the document has left no trace in its own instance: nothing is compared", name)
		}
		if !bytes.Equal(fresh().memory(t), first) {
			t.Errorf("%s: the next instance begins otherwise while that of the document lives", name)
		}
		warm.close()
		if !bytes.Equal(fresh().memory(t), first) {
			t.Errorf("%s: the next instance begins otherwise", name)
		}
	}
}

func TestAModuleIsTakenApart(t *testing.T) {
	const header = "\x00asm\x01\x00\x00\x00"
	for name, c := range map[string]struct {
		module, code string
		data         []segment
		bad          bool
	}{
		"no data":             {module: header + "\x01\x01\x00", code: header + "\x01\x01\x00"},
		"two pieces":          {module: header + "\x01\x01\x00\x0c\x01\x02\x0b\x11\x02\x00\x41\x80\x01\x0b\x03abc\x00\x41\x7f\x0b\x02de\x00\x01x", code: header + "\x01\x01\x00\x00\x01x", data: []segment{{128, []byte("abc")}, {1<<32 - 1, []byte("de")}}},
		"passive data":        {module: header + "\x0b\x05\x01\x01\x02de", bad: true},
		"another expression":  {module: header + "\x0b\x08\x01\x00\x23\x00\x0b\x02de", bad: true},
		"a long expression":   {module: header + "\x0b\x09\x01\x00\x41\x00\x00\x0b\x02de", bad: true},
		"an endless number":   {module: header + "\x0b\x0a\x01\x00\x41\x80\x80\x80\x80\x80\x80\x00", bad: true},
		"more than there is":  {module: header + "\x0b\x08\x01\x00\x41\x00\x0b\x05de", bad: true},
		"fewer pieces":        {module: header + "\x0b\x08\x02\x00\x41\x00\x0b\x02de", bad: true},
		"a section too long":  {module: header + "\x01\x05\x00", bad: true},
		"a section cut short": {module: header + "\x01", bad: true},
		"no module":           {module: "asm", bad: true},
	} {
		code, data, err := withoutData([]byte(c.module))
		var fault *ModuleError
		if errors.As(err, &fault) != c.bad || err == nil && (string(code) != c.code || !reflect.DeepEqual(data, c.data)) {
			t.Errorf("%s: %q, %v, %v", name, code, data, err)
		}
	}
}

// TestAHollowModuleIsThatOfOneModule: all but what functions do and the data is as it was, and nothing else has the same.
func TestAHollowModuleIsThatOfOneModule(t *testing.T) {
	const (
		header = "\x00asm\x01\x00\x00\x00"
		types  = "\x01\x04\x01\x60\x00\x00"
		two    = "\x03\x03\x02\x00\x00"
		code   = "\x0a\x0a\x02\x02\x00\x0b\x05\x00\x41\x07\x1a\x0b"
		data   = "\x0b\x09\x01\x00\x41\x00\x0b\x03abc"
	)
	frame, segments, err := hollowed([]byte(header + types + two + code + data))
	if err != nil {
		t.Fatal(err)
	}
	if want := []segment{{0, []byte("abc")}}; !reflect.DeepEqual(segments, want) {
		t.Errorf("the data is %v", segments)
	}
	sum := sha256.Sum256([]byte(header + types + two + code + data))
	if want := header + types + two + "\x0a\x09\x02\x03\x00\x00\x0b\x03\x00\x00\x0b" + "\x00\x27\x06sha256" + string(sum[:]); string(frame) != want {
		t.Errorf("got %q, want %q", frame, want)
	}
	for name, module := range map[string]string{
		"no count":                 header + "\x0a\x00",
		"more functions than room": header + "\x0a\x0a\xff\xff\xff\xff\x0f\x02\x00\x0b\x02\x00",
	} {
		var fault *ModuleError
		if _, _, err := hollowed([]byte(module)); !errors.As(err, &fault) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMachineCodeOfNothingIsNeverRun: where a child finds none for its module, wazero makes some of a hollow one. That is
// an error then and at the next start, not a document.
func TestMachineCodeOfNothingIsNeverRun(t *testing.T) {
	ctx := t.Context()
	open := func(dir string) error {
		e, err := openEngine(ctx, noTypst, dir, 1)
		if err != nil {
			return err
		}
		return e.runtime.Close(ctx)
	}
	for name, change := range map[string]func(dir, code string) error{
		"of another processor": func(_, code string) error { return os.Rename(code, filepath.Join(filepath.Dir(code), "other")) },
		"of another release": func(dir, code string) error {
			old := filepath.Join(dir, "wazero-old")
			return errors.Join(os.Mkdir(old, 0o700), os.Rename(code, filepath.Join(old, filepath.Base(code))))
		},
		"without its last bytes": func(_, code string) error { return os.Truncate(code, 100) },
		"not noted as complete":  func(dir, _ string) error { return os.Remove(filepath.Join(dir, sizeFile)) },
	} {
		dir := t.TempDir()
		if err := errors.Join(open(dir), open(dir)); err != nil {
			t.Fatalf("a sound cache: %v", err)
		}
		files, err := machineCode(dir)
		if err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		if err := change(dir, files[0]); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if open(dir) == nil {
				t.Errorf("code %s was taken", name)
			}
		}
	}
}

func FuzzHollowed(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a\x04\x01\x02\x00\x0b\x0b\x09\x01\x00\x41\x00\x0b\x03abc"))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		const added = 100 // the hash, and longer numbers
		frame, _, err := hollowed(wasm)
		if err == nil && len(frame) > len(wasm)*len(hollow)/smallestFunction+added {
			t.Errorf("%d bytes become %d", len(wasm), len(frame))
		}
	})
}

func FuzzWithoutData(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x01\x01\x00\x0c\x01\x02\x0b\x11\x02\x00\x41\x80\x01\x0b\x03abc\x00\x41\x7f\x0b\x02de\x00\x01x"))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		code, data, err := withoutData(wasm)
		var size int
		for _, s := range data {
			size += len(s.data)
		}
		if err == nil && len(code)+size > len(wasm) {
			t.Errorf("%d bytes become %d and %d", len(wasm), len(code), size)
		}
	})
}
