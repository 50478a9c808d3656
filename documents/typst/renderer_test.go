package typst

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/worker"
)

// module and cacheDir are kept between runs: compiling takes longer than all tests.
const (
	module    = "../../build/typst.wasm"
	cacheDir  = "../../build/typst-cache"
	templates = "../../templates"
	fontDir   = "/usr/share/fonts"
)

func probe(context.Context, []byte) (worker.Handler, error) { return nil, nil }

func renderer(t *testing.T, change func(*Options)) *Renderer {
	t.Helper()
	o := Options{WASM: module, CacheDir: cacheDir, FontDirs: []string{fontDir}, Children: 1, Timeout: time.Minute, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func TestScratchSamples(t *testing.T) {
	r := renderer(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)) })
	all, err := documents.LoadAll(templates)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range all {
		for _, s := range b.Samples() {
			rec, _ := b.File(s)
			t0 := time.Now()
			out, err := r.Render(t.Context(), b, rec)
			t.Log(name, s, len(out.PDF), time.Since(t0), out.Boxes, out.Notes, err)
			os.WriteFile("/tmp/e/"+name+"-"+filepath.Base(s)+".pdf", out.PDF, 0o644)
		}
		rec, _ := b.File(b.Samples()[0])
		out, err := r.Preview(t.Context(), b, rec)
		t.Log(name, "preview", err)
		os.WriteFile("/tmp/e/"+name+"-preview.pdf", out.PDF, 0o644)
	}
}
