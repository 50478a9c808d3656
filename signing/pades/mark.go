package pades

import (
	"fmt"
	"math"
	"strings"

	"github.com/dealseal/dealseal/pdf"
	"github.com/go-fonts/liberation/liberationsansbold"
	"golang.org/x/text/unicode/norm"
)

// markName is what the mark is called among the resources of the pages.
const markName = pdf.Name("DealsealTestMark")

// How the mark looks: as that of rendered documents.
const (
	markShare   = 0.75 // of the page's diagonal, at most
	markLargest = 0.04 // size of the letters, as a share of the diagonal
	markColour  = "0.784 0.118 0.118 rg"
	markOpacity = 0.31
)

// Budgets of a document that is marked: its update has an object for each page, and is held in memory.
const (
	mostMarked  = 10_000 // pages
	deepestPage = 100
	mostMarks   = 64 << 20 // bytes
)

// Mark returns an update that puts text across every page of doc, from corner to corner, upright for the reader of a rotated
// page. It is for documents that must not be taken for contracts: what stands on the pages stays below it, and the bytes of doc
// stay the first revision. A document that is signed already is refused, since its signatures would be broken. Errors are as
// those of [Prepare].
func Mark(doc Document, text string) (tail []byte, err error) {
	file, err := pdf.Open(doc, doc.Size())
	if err != nil {
		return nil, err
	}
	b := &builder{file: file, update: file.Update()}
	if err := b.open(); err != nil {
		return nil, err
	}
	if b.signed() {
		return nil, refuse("the document is signed already, and to mark it %q would break that signature: attach one that is not signed, or let documents be unmarked", text)
	}
	m := marker{builder: b, ends: map[string]pdf.Ref{}, dressed: map[pdf.Ref]pdf.Ref{}}
	if err := m.makeForm(text); err != nil {
		return nil, err
	}
	pages, err := file.PageCount()
	if err != nil {
		return nil, err
	}
	if pages > mostMarked {
		return nil, refuse("the document has %d pages, and of no more than %d can each be marked %q: attach a shorter one, or let documents be unmarked", pages, mostMarked, text)
	}
	for n := 1; n <= pages; n++ {
		if err := m.page(n); err != nil {
			return nil, err
		}
	}
	return b.update.Bytes()
}

// CheckMark refuses a text that Mark could not write.
func CheckMark(text string) error {
	_, _, err := markLine(text)
	return err
}

// markLine returns the font of the mark, and its text as it is shown.
func markLine(text string) (*subset, string, error) {
	bold, err := newSubset("LiberationSans-Bold", liberationsansbold.TTF)
	if err != nil {
		return nil, "", err
	}
	line := sealLine{strings.Join(strings.Fields(norm.NFC.String(text)), " "), true}
	if line.text == "" {
		return nil, "", refuse("the text of the mark is blank")
	}
	return bold, line.text, (&seal{bold: bold}).check(line)
}

// marker puts one drawing onto many pages.
type marker struct {
	*builder
	form    pdf.Ref
	width   float64 // of the text at a size of 1
	begin   pdf.Ref // keeps what the page's own content leaves behind from the mark
	ends    map[string]pdf.Ref
	dressed map[pdf.Ref]pdf.Ref // resources with the mark, by those without, or by the node that has them
	weight  int                 // of what is put, in bytes, about
}

// makeForm draws the text at a size of 1, with its middle at the origin.
func (m *marker) makeForm(text string) error {
	font, text, err := markLine(text)
	if err != nil {
		return err
	}
	codes, err := font.encode(text)
	if err != nil {
		return err
	}
	fontRef, err := font.put(m.update)
	if err != nil {
		return err
	}
	m.width = font.width(text)
	m.form, m.begin = m.update.Alloc(), m.update.Alloc()
	m.update.PutCompressed(m.form, pdf.D(
		"Type", pdf.Name("XObject"),
		"Subtype", pdf.Name("Form"),
		"BBox", pdf.Array{-m.width/2 - 0.1, -1, m.width/2 + 0.1, 1},
		"Resources", pdf.D("Font", pdf.D("B", fontRef), "ExtGState", pdf.D("G", pdf.D("Type", pdf.Name("ExtGState"), "ca", markOpacity, "BM", pdf.Name("Normal")))),
	), fmt.Appendf(nil, "/G gs %s BT /B 1 Tf 1 0 0 1 %s -0.35 Tm <%x> Tj ET\n", markColour, num(-m.width/2), codes))
	m.update.PutStream(m.begin, new(pdf.Dict), []byte("q\n"))
	return nil
}

// page puts the mark behind what the page shows.
func (m *marker) page(n int) error {
	ref, page, err := m.file.Page(n)
	if err != nil {
		return err
	}
	page = page.Clone()
	drawing, err := m.drawing(page, n)
	if err != nil {
		return err
	}
	contents, err := m.contents(page, n, drawing)
	if err != nil {
		return err
	}
	page.Set("Contents", contents)
	if err := m.dress(page); err != nil {
		return err
	}
	m.update.Put(ref, page)
	if m.weight += weigh(page); m.weight > mostMarks {
		return refuse("the pages of the document say so much of themselves that they cannot all be marked: attach a simpler one, or let documents be unmarked")
	}
	return nil
}

// drawing says where and how large the mark is on a page.
func (m *marker) drawing(page *pdf.Dict, n int) (string, error) {
	box, err := m.shownBox(page)
	if err != nil {
		return "", err
	}
	width, height := box[2]-box[0], box[3]-box[1]
	if !(width > 0 && height > 0) {
		return "", refuse("page %d has no size, so that it cannot be marked", n)
	}
	rotate, err := m.file.Inherited(page, "Rotate")
	if err != nil {
		return "", err
	}
	turn, _ := pdf.Int(rotate)
	if turn%180 != 0 {
		width, height = height, width
	}
	diagonal := math.Hypot(width, height)
	size := min(diagonal*markLargest, diagonal*markShare/m.width)
	sin, cos := math.Sincos(math.Atan2(height, width) + float64(turn%360)*math.Pi/180)
	return fmt.Sprintf("q %s %s %s %s %s %s cm /%s Do Q\n", num(size*cos), num(size*sin), num(-size*sin), num(size*cos),
		num((box[0]+box[2])/2), num((box[1]+box[3])/2), markName), nil
}

// contents is what the page shows already, and the mark. Pages of one size share the stream that draws it.
func (m *marker) contents(page *pdf.Dict, n int, drawing string) (pdf.Array, error) {
	end, ok := m.ends[drawing]
	if !ok {
		end = m.update.Alloc()
		m.ends[drawing] = end
		m.update.PutStream(end, new(pdf.Dict), []byte("\nQ\n"+drawing))
	}
	was, err := m.file.Resolve(page.Get("Contents"))
	if err != nil {
		return nil, err
	}
	list := pdf.Array{m.begin}
	switch was := was.(type) {
	case nil:
	case pdf.Array:
		list = append(list, was...)
	case *pdf.Stream:
		list = append(list, page.Get("Contents"))
	default:
		return nil, refuse("what page %d shows is no stream, so that it cannot be marked", n)
	}
	return append(list, end), nil
}

// dress puts the mark among the resources of a page. Those that many pages share, or have from a node above, stay as they
// are: the pages share others that are made from them.
func (m *marker) dress(page *pdf.Dict) error {
	holder, was, err := m.resourcesOf(page)
	if err != nil {
		return err
	}
	shared, isRef := was.(pdf.Ref)
	if !isRef {
		shared = holder
	}
	if ref, ok := m.dressed[shared]; ok {
		page.Set("Resources", ref)
		return nil
	}
	resources, err := m.file.ResolveDict(was)
	if err != nil {
		return err
	}
	if resources, err = m.withMark(resources); err != nil {
		return err
	}
	ref := m.put(resources)
	if shared != (pdf.Ref{}) {
		m.dressed[shared] = ref
	}
	page.Set("Resources", ref)
	return nil
}

// withMark returns resources that have the mark, too.
func (m *marker) withMark(resources *pdf.Dict) (*pdf.Dict, error) {
	resources = resources.Clone()
	was := resources.Get("XObject")
	shared, isRef := was.(pdf.Ref)
	ref, ok := m.dressed[shared]
	if !isRef || !ok {
		drawings, err := m.file.ResolveDict(was)
		if err != nil {
			return nil, err
		}
		drawings = drawings.Clone()
		drawings.Set(markName, m.form)
		ref = m.put(drawings)
		if isRef {
			m.dressed[shared] = ref
		}
	}
	resources.Set("XObject", ref)
	return resources, nil
}

func (m *marker) put(d *pdf.Dict) pdf.Ref {
	ref := m.update.Alloc()
	m.update.Put(ref, d)
	m.weight += weigh(d)
	return ref
}

// weigh is about how many bytes a value takes in the update.
func weigh(v any) (n int) {
	switch v := v.(type) {
	case *pdf.Dict:
		for _, k := range v.Keys() {
			n += len(k) + weigh(v.Get(k))
		}
	case pdf.Array:
		for _, e := range v {
			n += weigh(e)
		}
	case pdf.Raw:
		n = len(v)
	case pdf.Name:
		n = len(v)
	}
	return n + 8
}

// resourcesOf is what a page or the nearest node above it has for its resources, a reference if it is one (7.7.3.4). holder is
// that node, and zero for the page itself.
func (m *marker) resourcesOf(page *pdf.Dict) (holder pdf.Ref, was any, err error) {
	node := page
	for range deepestPage {
		if node == nil || node.Has("Resources") {
			return holder, node.Get("Resources"), nil
		}
		holder, _ = node.Get("Parent").(pdf.Ref)
		if node, err = m.file.ResolveDict(node.Get("Parent")); err != nil {
			return holder, nil, err
		}
	}
	return holder, nil, refuse("the page tree is too deep to be marked")
}
