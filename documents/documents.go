// Package documents makes the PDF of a contract from a versioned template and the values of a CRM record.
//
// A template is a Bundle: a folder with a manifest, a Typst source, a JSON Schema, assets and sample records, identified
// by one hash over all of it. Compose turns CRM values into the document record: exact decimals, totals computed here,
// every figure and day already written for the document's locale. Validate is the last gate before paper: what is
// missing, blank, unprintable or deceptive holds the deal. A Renderer (documents/typst) makes the PDF with its named
// signature boxes. The same bundle and record always make the same bytes.
package documents

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
)

// Renderer makes PDFs. Implementations are safe for concurrent use, validate the record before they render it, and
// return the same bytes for the same bundle and record in every process.
//
// Errors say Permanent() true when the same input can never succeed.
type Renderer interface {
	Render(ctx context.Context, b *Bundle, record []byte) (Output, error)
}

// Isolator is a Renderer that keeps some documents from others by itself.
type Isolator interface {
	// Isolates reports whether documents of the bundle, which is new or has failed in the engine, are kept from those of
	// other bundles, so that whoever waits for them must not keep a place that others wait for.
	Isolates(b *Bundle) bool
}

// Previewer makes PDFs that nobody can take for a contract: a watermark runs over every page.
type Previewer interface {
	Preview(ctx context.Context, b *Bundle, record []byte) (Output, error)
}

// Marker makes documents with a mark across every page, or fails: never without it.
type Marker interface {
	RenderMarked(ctx context.Context, b *Bundle, record []byte, mark string) (Output, error)
}

// Output is a rendered document.
type Output struct {
	PDF   []byte
	Boxes []Box    // in the order of the manifest's signers
	Key   string   // hex SHA-256 over bundle hash, record hash and renderer hash
	Notes []string // what the engine remarked without failing, for template authors; no record values
}

// Box is a named, empty signature field in the PDF.
type Box struct {
	Name string     `json:"name"`
	Role string     `json:"role"` // RoleSeal or RoleSigner
	Page int        `json:"page"` // 1-based
	Rect [4]float64 `json:"rect"` // left, bottom, right, top in points of PDF user space
}

// RenderKey names a rendering: with equal keys the bytes are equal.
func RenderKey(bundleHash string, record []byte, rendererHash string) string {
	recordHash := sha256.Sum256(record)
	sum := sha256.Sum256(field(field(field(nil, []byte(bundleHash)), recordHash[:]), []byte(rendererHash)))
	return hex.EncodeToString(sum[:])
}

// Check renders every sample of the bundle, which proves template, schema, samples and signature boxes together. All
// faults are joined; notes are what the engine remarked.
func Check(ctx context.Context, r Renderer, b *Bundle) (notes []string, err error) {
	samples := b.Samples()
	if len(samples) == 0 {
		return nil, &BundleError{File: "samples/", Reason: "holds no record (.json) to try the template with"}
	}
	var faults []error
	for _, name := range samples {
		record, _ := b.File(name)
		out, err := r.Render(ctx, b, record)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
		for _, n := range out.Notes {
			notes = append(notes, name+": "+n)
		}
	}
	return notes, errors.Join(faults...)
}

// Preview renders the record in a file with a watermark.
func Preview(ctx context.Context, p Previewer, b *Bundle, recordFile string) (Output, error) {
	info, err := os.Stat(recordFile)
	if err != nil {
		return Output{}, fmt.Errorf("record: %w", err)
	}
	if info.Size() > maxRecordBytes {
		return Output{}, fmt.Errorf("record %s is longer than 1 MB", recordFile)
	}
	record, err := os.ReadFile(recordFile)
	if err != nil {
		return Output{}, fmt.Errorf("record: %w", err)
	}
	out, err := p.Preview(ctx, b, record)
	if err != nil {
		return Output{}, fmt.Errorf("record %s: %w", recordFile, err)
	}
	return out, nil
}
