//go:build conformance

package conformance

import (
	"bytes"
	"crypto"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
)

// own is a document of a template of ours.
type own struct {
	name, path, box string
	content         []byte
}

// ownDocuments renders the samples of our templates.
func ownDocuments(t *testing.T) (list []own) {
	t.Helper()
	bundles, err := documents.LoadAll("../../templates")
	if err != nil {
		t.Fatal(err)
	}
	r, err := typst.New(typst.Options{WASM: "../../build/typst.wasm", CacheDir: "../../build/typst-cache", Children: 1, Timeout: 5 * time.Minute, Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, name := range []string{"order-form@1", "nda@1", "audit-trail@1"} {
		b := bundles[name]
		for _, sample := range b.Samples() {
			record, _ := b.File(sample)
			out, err := r.Render(t.Context(), b, record)
			if err != nil {
				t.Fatalf("%s %s: %v", name, sample, err)
			}
			o := own{name: name + " " + strings.TrimPrefix(sample, "samples/"), content: out.PDF}
			o.path = work(t, "own", strings.NewReplacer("@", "-", " ", "-", ".json", ".pdf").Replace(o.name))
			for _, box := range out.Boxes {
				if box.Role == documents.RoleSeal {
					o.box = box.Name
				}
			}
			if err := os.WriteFile(o.path, o.content, 0o644); err != nil {
				t.Fatal(err)
			}
			list = append(list, o)
		}
	}
	return list
}

// veraPDF says why a file is not PDF/A-3b. It is nil where veraPDF could not be fetched.
func veraPDF(t *testing.T, root string) func(path string) error {
	t.Helper()
	vera := startDSS(t, root)
	if vera == nil {
		return nil
	}
	return func(path string) error {
		var v struct {
			Compliant bool
			Errors    []string
		}
		if err := vera.ask(&v, "pdfa", path); err != nil {
			return err
		}
		if !v.Compliant {
			return fmt.Errorf("it is not PDF/A-3b: %s", strings.Join(v.Errors, "; "))
		}
		return nil
	}
}

// judgeOwn seals our own documents in their boxes, and has veraPDF look at them before and after.
func (h *house) judgeOwn(t *testing.T, report *report, list []own) {
	pdfa := veraPDF(t, h.root)
	if pdfa != nil && pdfa("../../cmd/dealseal/testdata/contract.pdf") == nil {
		t.Error("veraPDF takes a file for PDF/A-3b that is none")
	}
	for i, o := range list {
		if pdfa != nil {
			report.verdict("own", "veraPDF, unsealed", "", o.name, pdfa(o.path))
		}
		for j, level := range levels {
			r := recipe{level: level, scheme: (i + j) % len(schemes), hash: crypto.SHA256, signatures: 1, certify: (i + j) % 4}
			doc, err := h.makeOwn(t, o, r)
			if err != nil {
				t.Errorf("%s: %v", o.name, err)
				continue
			}
			f := &sealed{name: o.name + ": " + r.String(), path: strings.TrimSuffix(o.path, ".pdf") + "-" + string(level) + ".pdf", content: doc, level: level, signatures: 1, sound: true}
			if err := os.WriteFile(f.path, doc, 0o644); err != nil {
				t.Error(err)
			}
			report.judge(t, "own", f)
			if pdfa != nil {
				report.verdict("own", "veraPDF", level, f.name, pdfa(f.path))
			}
		}
	}
}

// logo is a picture with transparency.
func logo(t *testing.T) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, 120, 120))
	for y := range 120 {
		for x := range 120 {
			if r := (x-60)*(x-60) + (y-60)*(y-60); r < 3600 && r > 900 {
				m.Set(x, y, color.NRGBA{20, 60, 120, 200})
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (h *house) makeOwn(t *testing.T, o own, r recipe) ([]byte, error) {
	level := r.level
	if level.AtLeast(pades.BT) {
		level = pades.BT
	}
	req := signing.Request{Field: o.box, Profile: signing.Profile{Name: "conformance", Key: signer(schemes[r.scheme].key, 0), PSS: schemes[r.scheme].pss, Hash: r.hash,
		Level: level, Certify: r.certify, Reason: "Conformance", SignerName: "Example"}}
	if o.box != "" {
		req.Text = []string{"Sealed by Example", "20 November 2026, 10:30:00 CET", "Transaction k7q2m5x4n6h3j8w9r2b5c7d4e6"}
		req.Link = "https://contracts.example/k7q2m5x4n6h3j8w9r2b5c7d4e6"
		req.Picture = logo(t)
	}
	doc, err := h.seal(t.Context(), o.content, req)
	if err != nil || !r.level.AtLeast(pades.BLT) {
		return doc, err
	}
	return h.extend(t.Context(), doc, r.level, r.vri)
}
