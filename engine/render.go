package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/signing/pades"
)

// render stages the unsigned document: rendered from the template, or fetched from the record.
func (r *run) render(ctx context.Context) error {
	s := r.s
	if err := r.begin(ctx, deal.Intent{What: "render", Lease: transferLease}); err != nil {
		return err
	}
	stage := r.fromTemplate
	if s.Plan.Attachment != "" {
		stage = r.fromRecord
	}
	var fact deal.FileFact
	err := r.call(ctx, "document", uploadLimit, func(ctx context.Context) (err error) {
		fact, err = stage(ctx)
		return err
	})
	if err != nil {
		return err
	}
	s.Facts.Unsigned = &fact
	return r.advance(ctx, "rendered", deal.Rendered, deal.Entry{What: "rendered", Why: sourceOf(s.Plan),
		Detail: map[string]string{"sha256": fact.SHA256, "bundle": s.Plan.Bundle, "render_key": s.Facts.RenderKey}})
}

// sourceOf says what is sealed.
func sourceOf(p deal.Plan) string {
	if p.Delegated != nil {
		return "the document that was signed at " + p.Delegated.Vendor
	}
	if p.Attachment != "" {
		return "the newest file on the record that matches " + p.Attachment
	}
	return "template " + p.Template
}

func (r *run) fromTemplate(ctx context.Context) (deal.FileFact, error) {
	s := r.s
	b, err := r.Bundles.Bundle(s.Plan.Bundle)
	if err != nil {
		return deal.FileFact{}, err
	}
	var out documents.Output
	err = r.renderInTurn(ctx, b, func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, renderLimit)
		defer cancel()
		out, err = r.layOut(ctx, b, s.Private.Document)
		return err
	})
	if err = aboutRecord(err); err != nil {
		return deal.FileFact{}, aboutTemplate(err)
	}
	s.Facts.RenderKey = out.Key
	if s.Private.Boxes, err = json.Marshal(out.Boxes); err != nil {
		return deal.FileFact{}, err
	}
	return r.Files.Stage(ctx, s.Tx, fileUnsigned, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(out.PDF))
		return err
	})
}

// layOut renders a record, with the mark of the plan if it has one.
func (r *run) layOut(ctx context.Context, b *documents.Bundle, record []byte) (documents.Output, error) {
	mark := r.s.Plan.Mark
	if mark == "" {
		return r.Documents.Render(ctx, b, record)
	}
	m, ok := r.Documents.(documents.Marker)
	if !ok {
		return documents.Output{}, errors.New("the renderer cannot mark documents, and those of this tenant must be")
	}
	return m.RenderMarked(ctx, b, record, mark)
}

// aboutTemplate says how to go on when a document can never be made. A deal keeps the template that it was noticed with.
func aboutTemplate(err error) error {
	var hold *deal.HoldError
	if !deal.IsPermanent(err) || errors.As(err, &hold) {
		return err
	}
	return fmt.Errorf("%w: if the record is at fault, mend it and retry the deal; if the template is, drop the deal, mend the template and let the record enter its stage again", err)
}

// renderInTurn waits for the tenant's turn at the renderer, unless the renderer keeps the document from others by itself:
// one that takes its time must not wait in a place that others need.
func (r *run) renderInTurn(ctx context.Context, b *documents.Bundle, render func() error) error {
	if i, ok := r.Documents.(documents.Isolator); ok && i.Isolates(b) {
		return render()
	}
	return r.inTurn(ctx, r.rendering, render)
}

// willRender reports whether a deal has yet to come to the renderer on its way.
func willRender(s *deal.Sealing) bool {
	return s.Plan.Attachment == "" && s.Plan.Delegated == nil && s.Step.Before(deal.Rendered) || s.Plan.AuditTrail != "" && s.Step.Before(deal.Kept)
}

func (r *run) fromRecord(ctx context.Context) (deal.FileFact, error) {
	s := r.s
	var head beginning
	fact, err := r.download(ctx, deal.RecordFile{ID: s.Private.Source, Size: s.Private.SourceSize, MD5: s.Private.SourceMD5}, fileUnsigned, &head)
	if err == nil && string(head) != "%PDF-" {
		err = deal.Hold("the file on the record is not a PDF: replace it and release the deal")
	}
	if err != nil || s.Plan.Mark == "" {
		return fact, err
	}
	fact, err = r.marked(ctx, fact)
	return fact, asHoldForSource(s, err)
}

// marked puts the mark of the plan on each page of the staged document. What is staged in the end is the document with it: a
// try that is cut off is begun with the file on the record again.
func (r *run) marked(ctx context.Context, plain deal.FileFact) (deal.FileFact, error) {
	doc, closer, err := r.Files.OpenStaged(ctx, r.s.Tx, fileUnsigned, plain)
	if err != nil {
		return deal.FileFact{}, err
	}
	defer closer.Close()
	tail, err := pades.Mark(doc, r.s.Plan.Mark)
	if err != nil {
		return deal.FileFact{}, err
	}
	return r.Files.Stage(ctx, r.s.Tx, fileUnsigned, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(pades.Appended{Document: doc, Tail: tail}, 0, doc.Size()+int64(len(tail))))
		return err
	})
}

// beginning keeps the first five bytes that are written to it.
type beginning []byte

func (b *beginning) Write(p []byte) (int, error) {
	*b = append(*b, p[:min(len(p), 5-len(*b))]...)
	return len(p), nil
}

// sealBox returns the box that the house's seal goes into, nil when the bundle has none.
func sealBox(b *documents.Bundle) *documents.Signer {
	for i, s := range b.Signers {
		if s.Role == documents.RoleSeal {
			return &b.Signers[i]
		}
	}
	return nil
}
