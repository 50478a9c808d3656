package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/pdf"
)

// What is rendered: the two-page order form of the limits, an NDA of one page, and the audit trail that goes with a deal.
var (
	orderForm  = document{bundle: "order-form@1", sample: "samples/lines-46.json", lines: dealLines, pages: 2}
	nda        = document{bundle: "nda@1", sample: "samples/standard.json", pages: 1}
	auditTrail = document{bundle: "audit-trail@1", sample: "samples/sealed.json"}
)

// document is a sample record of a bundle.
type document struct {
	bundle, sample string
	lines          int // of the sample that are taken; 0 for all
	pages          int // that it must have; 0 for any
}

// rendererChildren is how many run: the limits are for two cores.
const rendererChildren = 2

// press is the product's renderer without the rest of the product.
type press struct {
	*typst.Renderer
	bundles map[string]*documents.Bundle
	made    atomic.Int64
}

func (b *bench) newPress() (*press, error) {
	bundles, err := documents.LoadAll(b.templates)
	if err != nil {
		return nil, err
	}
	r, err := typst.New(typst.Options{WASM: b.options.renderer, CacheDir: b.rendererCache(), Children: rendererChildren, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return &press{Renderer: r, bundles: bundles}, r.Warm(b.ctx)
}

// rendererCache is the compiled renderer that the demo and the tests use too: it is made once per machine.
func (b *bench) rendererCache() string {
	return filepath.Join(filepath.Dir(b.options.renderer), "renderer-cache")
}

// make makes the document with other texts and figures each time: a child may have laid out the sample itself already, and
// nobody signs the same deal twice.
func (p *press) make(ctx context.Context, d document) ([]byte, error) {
	bundle := p.bundles[d.bundle]
	if bundle == nil {
		return nil, fmt.Errorf("there is no bundle %s", d.bundle)
	}
	record, err := d.record(bundle, int(p.made.Add(1)))
	if err != nil {
		return nil, err
	}
	out, err := p.Render(ctx, bundle, record)
	return out.PDF, err
}

// record is the nth variation of the sample, with no more lines than are wanted.
func (d document) record(b *documents.Bundle, n int) ([]byte, error) {
	text, ok := b.File(d.sample)
	if !ok {
		return nil, fmt.Errorf("bundle %s has no %s", d.bundle, d.sample)
	}
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		return nil, fmt.Errorf("%s: %w", d.sample, err)
	}
	if lines, _ := record["lines"].([]any); d.lines > 0 {
		record["lines"] = lines[:min(d.lines, len(lines))]
	}
	return json.Marshal(varied(record, "", n))
}

// varied is v with other texts of the same length in all of it, other figures and other days.
func varied(v any, key string, n int) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = varied(e, k, n)
		}
	case []any:
		for i, e := range v {
			v[i] = varied(e, key, n)
		}
	case string:
		for _, layout := range []string{time.DateOnly, time.RFC3339} {
			if t, err := time.Parse(layout, v); err == nil {
				return t.AddDate(0, 0, 20+n%300).Format(layout)
			}
		}
		switch key {
		case "currency":
			return v
		case "value":
			return strings.Map(func(r rune) rune { return turned(r, '1', '9', n) }, v)
		}
		return words(v, n)
	}
	return v
}

// words has other vowels for vowels and other consonants for consonants, so that a text stays about as wide as it was.
func words(text string, n int) string {
	const vowels, consonants = "aeou", "bcdghknpqsvxyz"
	return strings.Map(func(r rune) rune {
		for _, letters := range []string{vowels, consonants, strings.ToUpper(vowels), strings.ToUpper(consonants)} {
			if i := strings.IndexRune(letters, r); i >= 0 {
				return rune(letters[shifted(i, len(letters), n)])
			}
		}
		return turned(r, '0', '9', n)
	}, text)
}

// turned is another rune from first to last; one that is not among them stays.
func turned(r, first, last rune, n int) rune {
	if r < first || r > last {
		return r
	}
	return first + rune(shifted(int(r-first), int(last-first+1), n))
}

// shifted goes on from i by n places in a circle, but never all around it.
func shifted(i, size, n int) int { return (i + 1 + n%(size-1)) % size }

// check makes sure that what is measured is what the limit is about.
func (p *press) check(ctx context.Context, d document) error {
	content, err := p.make(ctx, d)
	if err != nil || d.pages == 0 {
		return err
	}
	f, err := pdf.Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return err
	}
	if n, err := f.PageCount(); err != nil || n != d.pages {
		return fmt.Errorf("%s of %s has %d pages, %d are measured (%v)", d.sample, d.bundle, n, d.pages, err)
	}
	return nil
}

// run makes documents on all children for a while; a round is one of each kind. It returns rounds per second and how long
// each document took.
func (p *press) run(ctx context.Context, limit time.Duration, kinds ...document) (rate float64, took sample, err error) {
	var mu sync.Mutex
	var rounds atomic.Int64
	begun := time.Now()
	err = parallel(rendererChildren, func() error {
		for time.Since(begun) < limit {
			for _, d := range kinds {
				start := time.Now()
				if _, err := p.make(ctx, d); err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
			rounds.Add(1)
		}
		return nil
	})
	return float64(rounds.Load()) / time.Since(begun).Seconds(), took, err
}

// parallel runs do n times at once and returns one of the errors.
func parallel(n int, do func() error) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- do() }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil {
			first = err
		}
	}
	return first
}

// renderer measures the renderer alone.
func (b *bench) renderer() error {
	p, err := b.newPress()
	if err != nil {
		return err
	}
	defer p.Close()
	start := time.Now()
	if err := p.check(b.ctx, orderForm); err != nil {
		return err
	}
	b.figure("order form of 2 pages, cold", ms(time.Since(start)), "ms", nil, "with the start of a child")
	if err := p.check(b.ctx, nda); err != nil {
		return err
	}
	for _, c := range []struct {
		of        document
		name      string
		rate, p50 float64
	}{{orderForm, "order form of 2 pages", 18, 110}, {nda, "NDA of 1 page", 45, 45}} {
		rate, took, err := p.run(b.ctx, 6*time.Second, c.of)
		if err != nil {
			return err
		}
		b.figure(c.name+", warm", rate, "documents/s", atLeast(c.rate), "%d children, %d documents", rendererChildren, len(took))
		b.figure(c.name+", p50", ms(took.quantile(0.5)), "ms", atMost(c.p50), "p95 %s ms", short(ms(took.quantile(0.95))))
	}
	for _, child := range tree(os.Getpid())[1:] {
		m := memoryOf(child.pid)
		b.figure(fmt.Sprintf("memory of child %d", child.pid), megabytes(m.rss), "MB", nil, "RSS; PSS %s MB", short(megabytes(m.pss)))
	}
	return nil
}
