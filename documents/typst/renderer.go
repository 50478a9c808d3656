// Package typst renders documents with Typst, compiled to WebAssembly and run by wazero in child processes.
//
// Every document gets a fresh instance of the compiler in a child without files, network or environment; a child that
// outlives the deadline is killed and replaced. The module is a file found by path; its machine code is compiled once
// into a cache. Liberation fonts are embedded; Noto fonts on disk are used when a document has characters that
// Liberation has not.
package typst

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/worker"
)

// Options configure a Renderer.
type Options struct {
	// WASM is the path of the Typst module. Required.
	WASM string
	// CacheDir holds the module's machine code, some 100 MB. It belongs to the service alone: what lies there is
	// executed. Required.
	CacheDir string
	// FontDirs are searched for Noto fonts, with all below. Each must exist. Default: none.
	FontDirs []string
	// Children is the number of child processes; they start when they are needed. Default: the number of CPUs, at
	// most 4.
	Children int
	// Timeout ends one rendering. Default: 20 s.
	Timeout time.Duration
	// Progress is called every second while the module is compiled, which happens once and takes 8 to 60 s. Optional.
	Progress func(elapsed time.Duration)
	// Log is required.
	Log *slog.Logger
}

const (
	defaultTimeout  = 20 * time.Second
	maxChildren     = 4
	goMemory        = 100 << 20
	idleChild       = 5 * time.Minute    // a child takes 200 MB and starts in half a second
	rendererVersion = "dealseal/typst/4" // changes whenever the same input may give other bytes
)

// Renderer implements documents.Renderer and documents.Previewer. It is safe for concurrent use.
type Renderer struct {
	timeout time.Duration
	hash    [sha256.Size]byte // of the module
	fonts   *fonts
	log     *slog.Logger
	spec    worker.Spec
	pool    *worker.Pool
	places  chan struct{} // one for every child: waiting for a child does not count as rendering
	bundles conducts
	closed  context.Context
	end     context.CancelFunc

	mu       sync.Mutex // guards the cache
	cache    cache
	checked  bool
	repaired bool // one repair in a process; a cache that is bad again has another cause
}

var (
	_ documents.Renderer  = (*Renderer)(nil)
	_ documents.Previewer = (*Renderer)(nil)
	_ documents.Isolator  = (*Renderer)(nil)
)

// New checks the options and the module's file; no child starts yet. Close ends the children.
func New(o Options) (*Renderer, error) {
	hash, err := hashFile(o.WASM)
	if err != nil {
		return nil, &ModuleError{Reason: fmt.Sprintf("cannot be read (%v): fetch it with make renderer, or configure its path", err)}
	}
	if o.Children <= 0 {
		o.Children = min(runtime.NumCPU(), maxChildren)
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.WASM, err = filepath.Abs(o.WASM); err != nil {
		return nil, err
	}
	if o.CacheDir, err = filepath.Abs(o.CacheDir); err != nil {
		return nil, err
	}
	f, err := newFonts(o.FontDirs)
	if err != nil {
		return nil, err
	}
	r := &Renderer{timeout: o.Timeout, hash: hash, fonts: f, log: o.Log, places: make(chan struct{}, o.Children)}
	dir := filepath.Join(o.CacheDir, hex.EncodeToString(r.hash[:8])+"-hollow") // see hollowed
	r.cache = cache{wasm: o.WASM, dir: dir, progress: o.Progress, log: o.Log}
	if r.spec, err = renderSpec(o.WASM, dir); err != nil {
		return nil, err
	}
	r.pool = worker.NewPool(r.spec, o.Children, o.Log)
	r.closed, r.end = context.WithCancel(context.Background())
	return r, nil
}

// hashFile does not read the module as a whole: the daemon would keep its size in memory for the rest of its life.
func hashFile(name string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// renderSpec is what a child that renders may do: read the module and its code before the first template, then nothing.
func renderSpec(wasm, cache string) (worker.Spec, error) {
	s, err := json.Marshal(setup{WASM: wasm, Cache: cache})
	return worker.Spec{
		Name:    WorkerName,
		Setup:   s,
		Limits:  worker.Limits{Procs: 1, GoMemory: goMemory},
		Sandbox: worker.Sandbox{Read: []string{wasm, cache}, SealFiles: true},
		Idle:    idleChild,
	}, err
}

// Children is how many documents are made at once.
func (r *Renderer) Children() int { return cap(r.places) }

// Close ends the children. Renderings under way fail.
func (r *Renderer) Close() error {
	r.end()
	r.fonts.close()
	return r.pool.Close()
}

// Warm fills the compile cache, if need be, so that the first document does not wait for it.
func (r *Renderer) Warm(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checked {
		return nil
	}
	if err := r.cache.ready(ctx); err != nil {
		return err
	}
	r.checked = true
	return nil
}

// repair makes the cache again, once in a process.
func (r *Renderer) repair(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.repaired {
		return nil
	}
	r.repaired = true
	return r.cache.rebuild(ctx)
}

// Render makes the document. See documents.Renderer for the contract and the package documents for the errors that hold
// a deal; *TemplateError is a fault of the template, *RunawayError one that takes too long or too much again and again.
func (r *Renderer) Render(ctx context.Context, b *documents.Bundle, record []byte) (documents.Output, error) {
	return r.render(ctx, b, record, "")
}

// RenderMarked implements documents.Marker. A template that sets a page foreground of its own is a *TemplateError.
func (r *Renderer) RenderMarked(ctx context.Context, b *documents.Bundle, record []byte, mark string) (documents.Output, error) {
	return r.render(ctx, b, record, mark)
}

// Preview is Render with a watermark on every page.
func (r *Renderer) Preview(ctx context.Context, b *documents.Bundle, record []byte) (documents.Output, error) {
	return r.render(ctx, b, record, previewMark)
}

func (r *Renderer) render(ctx context.Context, b *documents.Bundle, record []byte, mark string) (documents.Output, error) {
	p, err := b.Prepare(record)
	if err != nil {
		return documents.Output{}, err
	}
	if mark != "" {
		p.Texts = append(p.Texts, documents.Text{Text: mark})
	}
	used, err := r.fonts.need(p.Texts)
	if err != nil {
		return documents.Output{}, err
	}
	c := r.bundles.of(b.Hash(), cap(r.places)-1)
	files, m, err := sources(b, p, families(used, p.Texts), mark, c.mayBreak(b))
	if err != nil {
		return documents.Output{}, err
	}
	attached, err := b.Attachment(p)
	if err != nil {
		return documents.Output{}, err
	}
	j := newJob(files, attached, used, request{Clock: p.Time, Signers: b.Signers, Preview: mark != "", Origin: r.origin(b, p, used), Kind: fmt.Sprintf("%s %t %s", b.Hash(), m.breaking, mark)})
	j.manner = m
	if err := r.Warm(ctx); err != nil {
		return documents.Output{}, err
	}
	answer, err := r.call(ctx, b, c, j)
	var remote *worker.RemoteError
	if errors.As(err, &remote) && remote.Code() == codeCache {
		if err := r.repair(ctx); err != nil {
			return documents.Output{}, err
		}
		answer, err = r.call(ctx, b, c, j)
	}
	if err != nil {
		return documents.Output{}, fmt.Errorf("render %s: %w", b.Name(), err)
	}
	return r.output(b, p, used, files, mark, answer)
}

// job is a document to be made, as a child gets it.
type job struct {
	request request
	manner  manner
	body    []byte
	fonts   []*os.File
}

func newJob(files map[string][]byte, attached []byte, used []*fontFile, r request) job {
	j := job{request: r}
	j.request.Files, j.body = joined(files, nil)
	if attached != nil {
		j.request.Files = append(j.request.Files, fileSize{attachedFile, len(attached)})
		j.body = append(j.body, attached...)
	}
	for _, u := range used {
		j.fonts = append(j.fonts, u.file)
	}
	return j
}

// joined puts files one after the other behind body.
func joined(files map[string][]byte, body []byte) ([]fileSize, []byte) {
	var sizes []fileSize
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sizes = append(sizes, fileSize{name, len(files[name])})
		body = append(body, files[name]...)
	}
	return sizes, body
}

// frame carries the document to a child, with what it may warm instances with; nil for nothing.
func (j job) frame(s *sample) (f worker.Frame, err error) {
	f = worker.Frame{Op: opRender, Body: j.body, Files: j.fonts}
	if s != nil {
		j.request.Sample = &sampleRequest{Clock: s.prepared.Time}
		j.request.Sample.Files, f.Body = joined(s.files(j.manner), slices.Clip(f.Body))
	}
	f.Header, err = json.Marshal(j.request)
	return f, err
}

func (r *Renderer) output(b *documents.Bundle, p *documents.Prepared, used []*fontFile, files map[string][]byte, mark string, f worker.Frame) (documents.Output, error) {
	var answer reply
	if err := json.Unmarshal(f.Header, &answer); err != nil {
		return documents.Output{}, fmt.Errorf("render %s: reply: %w", b.Name(), err)
	}
	out := documents.Output{PDF: f.Body, Boxes: answer.Boxes}
	var fault TemplateError
	if len(answer.Diagnostics) > 0 {
		manifest, _ := b.File(documents.ManifestFile)
		censor := newCensor(files, manifest, p)
		for _, d := range withoutTrace(answer.Diagnostics) {
			d.Message = censor.message(d.Message)
			if d.Error {
				fault.Diagnostics = append(fault.Diagnostics, d)
			} else {
				out.Notes = append(out.Notes, d.String())
			}
		}
	}
	if len(fault.Diagnostics) > 0 {
		return documents.Output{Notes: out.Notes}, &fault
	}
	if len(out.PDF) == 0 {
		return documents.Output{}, fmt.Errorf("render %s: %w", b.Name(), &TrapError{Reason: "there is no document"})
	}
	out.Key = documents.RenderKey(b.Hash(), p.Record, r.rendererHash(used)+mark)
	return out, nil
}

// origin is what the document says about where it comes from.
func (r *Renderer) origin(b *documents.Bundle, p *documents.Prepared, used []*fontFile) origin {
	record := sha256.Sum256(p.Record)
	return origin{Tx: p.Tx, Template: b.Name(), Bundle: b.Hash(), Record: hex.EncodeToString(record[:]), Renderer: r.rendererHash(used)}
}

// rendererHash changes with everything beside bundle and record that decides the bytes.
func (r *Renderer) rendererHash(used []*fontFile) string {
	h := sha256.New()
	h.Write([]byte(rendererVersion))
	h.Write(r.hash[:])
	for _, f := range used {
		h.Write(f.hash[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}
