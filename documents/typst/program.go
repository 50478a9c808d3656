package typst

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/worker"
)

// WorkerName is the name under which a binary offers Program to the worker package.
const WorkerName = "render-worker"

// Operations of a render-worker.
const (
	opCompile = "compile" // fill the compile cache; only a worker with Setup.Compile
	opRender  = "render"
)

// setup is what a child is started with.
type setup struct {
	WASM    string
	Cache   string
	Compile bool
}

// request is the header of a render call; the body holds the files one after the other, the frame's files are fonts.
type request struct {
	Clock   time.Time
	Files   []fileSize
	Signers []documents.Signer
	Preview bool
	Origin  origin
	Kind    string         // what documents share that can begin with one image
	Sample  *sampleRequest // what instances for the bundle can be warmed with
}

// sampleRequest is a sample of the kind of document that is asked for. Its files come last in the body; the others are
// those of the document.
type sampleRequest struct {
	Clock time.Time
	Files []fileSize
}

type fileSize struct {
	Name string
	Size int
}

// reply is the header of the answer; the body is the PDF. Diagnostics with an error come without one.
type reply struct {
	Boxes       []documents.Box
	Diagnostics []Diagnostic
	Sample      sampleFate
}

// sampleFate is what has come of the sample in a request.
type sampleFate int

const (
	sampleUnused sampleFate = iota
	sampleKept              // the next document of the kind begins with it
	sampleUnfit             // it fails, or is too large, or too slow
)

// cacheError tells the parent that the compile cache cannot be used.
type cacheError struct{ error }

const codeCache = "compile-cache"

func (cacheError) Code() string    { return codeCache }
func (e cacheError) Unwrap() error { return e.error }

// Program is the worker.Program of the render-worker. It reads the module and the cache before the sandbox closes on
// files; templates run after that.
func Program(ctx context.Context, raw []byte) (worker.Handler, error) {
	var s setup
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("typst: setup: %w", err)
	}
	wasm, err := os.ReadFile(s.WASM)
	if err != nil {
		return nil, &ModuleError{Reason: "cannot be read: " + err.Error()}
	}
	if s.Compile {
		return compiler(wasm, s.Cache), nil
	}
	e, err := openEngine(ctx, wasm, s.Cache, 1)
	if err != nil {
		// The module compiled before, or there would be no cache.
		return nil, cacheError{err}
	}
	if err := e.bind(ctx); err != nil {
		return nil, err
	}
	e.fonts = embeddedFonts()
	if err := e.warm(ctx); err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	return newStage(e).handle, nil
}

func compiler(wasm []byte, cache string) worker.Handler {
	return func(ctx context.Context, f worker.Frame) (worker.Frame, error) {
		if f.Op != opCompile {
			return worker.Frame{}, fmt.Errorf("typst: unknown operation %q", f.Op)
		}
		e, err := openEngine(ctx, wasm, cache, compileWorkers)
		if err != nil {
			return worker.Frame{}, &ModuleError{Reason: "cannot be compiled: " + err.Error()}
		}
		return worker.Frame{}, e.runtime.Close(ctx)
	}
}

// compileWorkers is what compiling gains from; more workers only take more memory.
const compileWorkers = 2

// stage renders one document after the other, each in an instance of its own.
type stage struct {
	engine  *engine
	springs springs
}

func newStage(e *engine) *stage {
	return &stage{engine: e, springs: springs{plain: newSpring(e, e.warmed), own: map[string]*spring{}, met: map[string]int{}}}
}

func (s *stage) handle(ctx context.Context, f worker.Frame) (worker.Frame, error) {
	if f.Op != opRender {
		return worker.Frame{}, fmt.Errorf("typst: unknown operation %q", f.Op)
	}
	var r request
	if err := json.Unmarshal(f.Header, &r); err != nil {
		return worker.Frame{}, fmt.Errorf("typst: request: %w", err)
	}
	files, rest, err := split(f.Body, r.Files)
	if err != nil {
		return worker.Frame{}, err
	}
	begun := time.Now()
	x, err := s.instance(ctx, r.Kind, f.Files)
	if err != nil {
		return worker.Frame{}, err
	}
	file, answer, err := document(x, files, r)
	x.close()
	if err != nil {
		return worker.Frame{}, err
	}
	if r.Sample != nil && file != nil && len(f.Files) == 0 && time.Since(begun) < slowSample {
		answer.Sample = s.warm(ctx, r, files, rest)
	}
	header, err := json.Marshal(answer)
	if err != nil {
		return worker.Frame{}, err
	}
	return worker.Frame{Op: opRender, Header: header, Body: file}, nil
}

// instance takes a prepared instance, or makes one when the document needs further fonts.
func (s *stage) instance(ctx context.Context, kind string, extra []*os.File) (*instance, error) {
	if len(extra) > 0 {
		data, err := readFonts(extra)
		if err != nil {
			return nil, err
		}
		return s.engine.newInstance(ctx, data)
	}
	return s.springs.of(kind).take(s.engine)
}

// warm makes the image for the next documents of the kind, if it is worth it. The document is made already, and nothing
// that goes wrong here is put down to it.
func (s *stage) warm(ctx context.Context, r request, files map[string][]byte, body []byte) sampleFate {
	if !s.springs.worth(r.Kind) {
		return sampleUnused
	}
	own, _, err := split(body, r.Sample.Files)
	if err != nil {
		return sampleUnfit
	}
	maps.Copy(files, own)
	begun := time.Now()
	w, err := s.engine.warmBundle(ctx, files, r.Sample.Clock)
	if err != nil {
		return sampleUnfit
	}
	if time.Since(begun) > slowSample {
		w.image.close()
		return sampleUnfit
	}
	s.springs.add(r.Kind, newSpring(s.engine, w))
	return sampleKept
}

// readFonts reads passed files from their start; their offsets are shared with the parent and never moved.
func readFonts(files []*os.File) ([][]byte, error) {
	var all [][]byte
	for _, f := range files {
		data, err := io.ReadAll(io.NewSectionReader(f, 0, maxFontBytes))
		if err != nil {
			return nil, fmt.Errorf("typst: font: %w", err)
		}
		all = append(all, data)
	}
	return all, nil
}

func split(body []byte, sizes []fileSize) (files map[string][]byte, rest []byte, err error) {
	files = make(map[string][]byte, len(sizes))
	for _, s := range sizes {
		if s.Size < 0 || s.Size > len(body) {
			return nil, nil, errors.New("typst: request: the files are longer than the frame")
		}
		files[s.Name], body = body[:s.Size], body[s.Size:]
	}
	return files, body, nil
}

// document renders and adds the signature fields. What the template did wrong is in the reply.
func document(x *instance, files map[string][]byte, r request) ([]byte, reply, error) {
	attached := files[attachedFile]
	delete(files, attachedFile) // the template has its record already
	made, err := x.render(files, mainFile, r.Clock)
	if err != nil {
		return nil, reply{}, err
	}
	answer := reply{Diagnostics: made.diagnostics}
	if made.pdf == nil {
		return nil, answer, nil
	}
	file, boxes, err := complete(made.pdf, made.boxes, r, attached)
	if err == nil && r.Preview {
		err = checkMarks(file, made.marks)
	}
	var fault *TemplateError
	if errors.As(err, &fault) {
		answer.Diagnostics = append(answer.Diagnostics, fault.Diagnostics...)
		return nil, answer, nil
	}
	answer.Boxes = boxes
	return file, answer, err
}
