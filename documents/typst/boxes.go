package typst

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/pdf"
)

// placed is what signature-box in dealseal.typ says: points from the top left corner of the page.
type placed struct {
	Name                     string
	Page                     int
	Left, Top, Width, Height float64
}

// Bounds of a box in points: below, a seal cannot be read; above, the number is a mistake.
const (
	minBoxWidth, minBoxHeight = 40, 16
	maxBoxSide                = 3000
)

// complete makes a contract of what Typst wrote: an empty signature field of every box, and the marks of PDF/A-3b. The
// boxes come back in the order of the signers. A fault of the template is a *TemplateError.
func complete(file []byte, boxes []byte, r request, record []byte) ([]byte, []documents.Box, error) {
	var found []placed
	if err := json.Unmarshal(boxes, &found); err != nil {
		return nil, nil, boxFault("the signature boxes could not be read: use signature-box of /dealseal.typ")
	}
	if err := matchSigners(found, r.Signers); err != nil {
		return nil, nil, err
	}
	f, err := pdf.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, nil, fmt.Errorf("read the rendered document: %w", err)
	}
	form := &form{file: f, update: f.Update(), pages: make(map[int]*pdf.Dict)}
	var made []documents.Box
	for _, s := range r.Signers {
		p := found[slices.IndexFunc(found, func(p placed) bool { return p.Name == s.Name })]
		rect, err := form.add(p, s)
		if err != nil {
			return nil, nil, err
		}
		made = append(made, documents.Box{Name: s.Name, Role: s.Role, Page: p.Page, Rect: rect})
	}
	tail, err := form.finish(r, record)
	if err != nil {
		return nil, nil, err
	}
	return append(file, tail...), made, nil
}

func boxFault(format string, a ...any) error {
	return &TemplateError{[]Diagnostic{{File: documents.ContractFile, Error: true, Message: fmt.Sprintf(format, a...)}}}
}

// matchSigners wants every signer's box once, and no other.
func matchSigners(found []placed, signers []documents.Signer) error {
	seen := make(map[string]bool)
	for _, p := range found {
		switch {
		case !slices.ContainsFunc(signers, func(s documents.Signer) bool { return s.Name == p.Name }):
			return boxFault("signature box %q is not a signer in template.yaml", p.Name)
		case seen[p.Name]:
			return boxFault("signature box %q is drawn twice", p.Name)
		case !(p.Width >= minBoxWidth && p.Height >= minBoxHeight && p.Width <= maxBoxSide && p.Height <= maxBoxSide):
			return boxFault("signature box %q must be at least %d × %d pt", p.Name, minBoxWidth, minBoxHeight)
		}
		seen[p.Name] = true
	}
	for _, s := range signers {
		if !seen[s.Name] {
			return boxFault("signature box %q is in template.yaml but the document does not draw it", s.Name)
		}
	}
	return nil
}

// form collects the fields of one update.
type form struct {
	file   *pdf.File
	update *pdf.Update
	fields pdf.Array
	pages  map[int]*pdf.Dict // changed pages, by number
	order  []pdf.Ref
	dicts  []*pdf.Dict
}

// Annotation flags (ISO 32000-1, table 165): the field prints, and a reader cannot move it.
const printAndLocked = 1<<2 | 1<<7

func (m *form) add(p placed, s documents.Signer) ([4]float64, error) {
	ref, page, err := m.page(p.Page)
	if err != nil {
		return [4]float64{}, err
	}
	rect, err := m.rect(p, page)
	if err != nil {
		return [4]float64{}, err
	}
	appearance, field := m.update.Alloc(), m.update.Alloc()
	m.update.PutStream(appearance, pdf.D("Type", pdf.Name("XObject"), "Subtype", pdf.Name("Form"),
		"BBox", pdf.RectOf([4]float64{0, 0, round(p.Width), round(p.Height)})), nil)
	widget := pdf.D("Type", pdf.Name("Annot"), "Subtype", pdf.Name("Widget"), "FT", pdf.Name("Sig"),
		"T", pdf.TextString(p.Name), "F", printAndLocked, "Rect", pdf.RectOf(rect), "P", ref, "AP", pdf.D("N", appearance))
	if s.Who != "" {
		widget.Set("TU", pdf.TextString(s.Who))
	}
	m.update.Put(field, widget)
	m.fields = append(m.fields, field)
	annots, err := m.file.ResolveArray(page.Get("Annots"))
	if err != nil {
		return [4]float64{}, err
	}
	page.Set("Annots", append(slices.Clone(annots), field))
	return rect, nil
}

func (m *form) page(n int) (pdf.Ref, *pdf.Dict, error) {
	count, err := m.file.PageCount()
	if err != nil {
		return pdf.Ref{}, nil, err
	}
	if n < 1 || n > count {
		return pdf.Ref{}, nil, boxFault("a signature box claims to be on page %d of %d", n, count)
	}
	ref, page, err := m.file.Page(n)
	if err != nil {
		return pdf.Ref{}, nil, err
	}
	if changed, ok := m.pages[n]; ok {
		return ref, changed, nil
	}
	page = page.Clone()
	m.pages[n] = page
	m.order, m.dicts = append(m.order, ref), append(m.dicts, page)
	return ref, page, nil
}

// rect turns a place counted from the top into user space, which counts from the bottom.
func (m *form) rect(p placed, page *pdf.Dict) ([4]float64, error) {
	v, err := m.file.Inherited(page, "MediaBox")
	if err != nil {
		return [4]float64{}, err
	}
	media, err := m.file.Rect(v)
	if err != nil {
		return [4]float64{}, err
	}
	left, top := media[0]+p.Left, media[3]-p.Top
	r := [4]float64{round(left), round(top - p.Height), round(left + p.Width), round(top)}
	const slack = 0.1 // of a point: boxes may touch the edge
	if !(r[0] >= media[0]-slack && r[1] >= media[1]-slack && r[2] <= media[2]+slack && r[3] <= media[3]+slack) {
		return [4]float64{}, boxFault("signature box %q runs off page %d", p.Name, p.Page)
	}
	return r, nil
}

// round keeps a hundredth of a point, so that a box reads the same in the file and in Output.
func round(x float64) float64 { return math.Round(x*100) / 100 }

func (m *form) finish(r request, record []byte) ([]byte, error) {
	for i, ref := range m.order {
		m.update.Put(ref, m.dicts[i])
	}
	ref, catalog, err := m.file.Catalog()
	if err != nil {
		return nil, err
	}
	const signaturesExist = 1 // ISO 32000-1, table 219: the document has signature fields
	catalog = catalog.Clone()
	if len(m.fields) > 0 {
		catalog.Set("AcroForm", pdf.D("Fields", m.fields, "SigFlags", signaturesExist))
	}
	made := &marks{file: m.file, update: m.update, catalog: catalog}
	if err := made.put(r.Origin, record, r.Clock); err != nil {
		return nil, err
	}
	m.update.Put(ref, catalog)
	return m.update.Bytes()
}
