package typst

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/pdf"
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

// sampleFiles are a document of a bundle, as a child gets it.
func sampleFiles(t *testing.T, b *documents.Bundle, record []byte, mark string) (files map[string][]byte, clock time.Time) {
	t.Helper()
	p, err := b.Prepare(record)
	if err != nil {
		t.Fatal(err)
	}
	if files, _, err = sources(b, p, nil, mark, needsBreaks(sameFiles(b))); err != nil {
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
	for name, documents := range map[string][]string{
		"order-form@1":  {"samples/short.json", "samples/minimal.json", "samples/long-words.json"},
		"nda@1":         {"samples/standard.json", "samples/names.json", "samples/minimal.json"},
		"audit-trail@1": {"samples/sealed.json"},
	} {
		b := all[name]
		s := common(t).sampleOf(b, &conduct{})
		if s == nil {
			t.Fatalf("%s has no sample to warm with", name)
		}
		for _, m := range []manner{{breaking: true}, {mark: previewMark}} {
			own := warmedBy(t, e, b, s, m)
			begun := map[*warmed][]byte{e.warmed: begins(t, e, e.warmed), own: begins(t, e, own)}
			for _, sample := range documents {
				if m.mark != "" && sample != documents[0] {
					continue
				}
				record, ok := b.File(sample)
				if !ok {
					t.Fatalf("%s has no %s", name, sample)
				}
				files, clock := sampleFiles(t, b, record, m.mark)
				cold, err := e.newInstance(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				want := rendered(t, cold, files, clock)
				cold.close()
				if n := pagesOf(t, want); name == "nda@1" && n != 1 {
					t.Errorf("%s has %d pages: an NDA has one", sample, n)
				}
				for from, first := range begun {
					checkWarm(t, e, from, first, files, clock, want)
				}
			}
			if again := warmedBy(t, e, b, s, m); !bytes.Equal(begins(t, e, again), begun[own]) {
				t.Errorf("%s: an image of the same sample is another one after documents", name)
			}
		}
	}
}

// checkWarm makes a document in an instance that begins as from does, and compares it, and how the next instances begin.
func checkWarm(t *testing.T, e *engine, from *warmed, first []byte, files map[string][]byte, clock time.Time, want []byte) {
	t.Helper()
	x, err := e.freshInstance(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	if got := rendered(t, x, files, clock); !bytes.Equal(got, want) {
		t.Error("an instance that begins warm makes another document")
	}
	if bytes.Equal(x.memory(t)[:len(first)], first) {
		t.Error("the document has left no trace in its own instance: nothing is compared")
	}
	if !bytes.Equal(begins(t, e, from), first) {
		t.Error("the next instance begins otherwise while that of the document lives")
	}
	x.close()
	if !bytes.Equal(begins(t, e, from), first) {
		t.Error("the next instance begins otherwise")
	}
}

func pagesOf(t *testing.T, file []byte) int {
	t.Helper()
	f, err := pdf.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.PageCount()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// begins is the memory of an instance before its document.
func begins(t *testing.T, e *engine, from *warmed) []byte {
	t.Helper()
	x, err := e.freshInstance(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	return bytes.Clone(x.memory(t))
}

func warmedBy(t *testing.T, e *engine, b *documents.Bundle, s *sample, m manner) *warmed {
	t.Helper()
	files, _ := sampleFiles(t, b, s.prepared.Record, "")
	maps.Copy(files, s.files(m))
	w, err := e.warmBundle(t.Context(), files, s.prepared.Time)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.image.close)
	return w
}

func TestAnImageHoldsOnlyWhatItsBaseHasNot(t *testing.T) {
	page := os.Getpagesize()
	content := bytes.Repeat([]byte("a"), 4*page)
	base, err := newImage(content, nil, len(content))
	if err != nil {
		t.Fatal(err)
	}
	defer base.close()
	longer := append(bytes.Clone(content), bytes.Repeat([]byte("b"), 2*page)...)
	longer[page], longer[3*page] = 'x', 'y'
	if _, err := newImage(longer, base, 4*page-1); err == nil {
		t.Error("more is kept than may be")
	}
	own, err := newImage(longer, base, 4*page)
	if err != nil {
		t.Fatal(err)
	}
	if own.own() != 4*page {
		t.Errorf("4 pages differ, %d are kept", own.own()/page)
	}
	m := mapMemory(0, uint64(8*page))
	defer m.Free()
	if err := own.cover(m.space); err != nil {
		t.Fatal(err)
	}
	own.close() // whoever is covered keeps it
	if !bytes.Equal(m.space[:len(longer)], longer) || !bytes.Equal(m.space[len(longer):], make([]byte, 2*page)) {
		t.Error("what is covered is not what was kept")
	}
}

func TestAChildKeepsFewImagesAndMakesRoomSeldom(t *testing.T) {
	s := springs{plain: &spring{}, own: map[string]*spring{}, met: map[string]int{}}
	closed := func(name string) *spring {
		i, err := newImage(make([]byte, wasmPage), nil, wasmPage)
		if err != nil {
			t.Fatal(err)
		}
		next := make(chan prepared, 1)
		next <- prepared{err: errors.New(name)}
		return &spring{warmed: &warmed{image: i}, next: next}
	}
	document := func(kind string) (worth bool) {
		s.of(kind)
		return s.worth(kind)
	}
	for i := range maxSprings {
		kind := string(rune('a' + i))
		if document(kind) {
			t.Errorf("%s: an image after the first document", kind)
		}
		if !document(kind) || s.worth(kind) {
			t.Errorf("%s: not one image after the second document", kind)
		}
		s.add(kind, closed(kind))
		if s.of(kind) != s.own[kind] || s.of(kind) == s.plain {
			t.Errorf("%s: does not begin with its own", kind)
		}
	}
	for range 2 * restDocuments { // one more than there is room for
		for i := range maxSprings + 1 {
			if document(string(rune('a' + i))) {
				t.Fatal("images in use make room for each other")
			}
		}
	}
	const since = restDocuments - maxSprings // the others have been after the first
	for i := range since {
		if document("z") != (i == since-1) {
			t.Fatalf("document %d: room is made too early, or too late", i)
		}
	}
	s.add("z", closed("z"))
	if len(s.own) != maxSprings || s.own["a"] != nil || s.own["z"] == nil {
		t.Errorf("z has not taken the place of the first: %v", s.own)
	}
	if document("z") {
		t.Error("a second image of one kind")
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
