package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dealseal/dealseal/pdf"
)

// area says where in the document a difference is; it decides how grave it is. The gravest come first: what is reached in several ways counts as the
// gravest of them.
type area int

const (
	inPages     area = iota // what the reader sees
	inSignature             // a signature that was there
	elsewhere               // metadata, attachments, actions and all else
	inAnnotations
	inForm // the value of a field, and how it looks
	areas
)

var kinds = [areas]ChangeKind{ChangeContent, ChangeSignature, ChangeOther, ChangeAnnotation, ChangeForm}

// maxPath bounds how much of a path of keys is shown, maxChanges how many changes are listed.
const (
	maxPath    = 100
	maxChanges = 100
)

// findChanges compares the revision that a signature covers with the document as it is now, object by object along the references from the catalog, and
// returns what differs beyond that which later signatures, time-stamps and validation data need: new signature fields that hold a signature, with their
// widgets; an empty signature field that was signed; /DSS, /Extensions and /Version of the catalog; /SigFlags. Comparing meanings and not bytes makes no
// difference between updates that rewrite an object unchanged and those that leave it alone.
//
// A document that differs in its pages is disproven, and so is one that differs in what a certification or lock forbids. What they permit is told. The
// rest (form values, annotations, attachments, metadata) is left undecided: nobody has said whether it may change.
func (v *verifier) findChanges(signed *pdf.File, allowed permissions) ([]Reason, []Change, error) {
	d := &differ{
		ctx: v.ctx, doc: v.doc, old: signed, now: v.file, allowed: allowed,
		seen: map[[2]pdf.Ref]area{}, added: map[pdf.Ref]bool{}, filled: map[pdf.Ref]bool{}, fillable: map[pdf.Ref]string{},
		known: map[Change]bool{}, work: 4*v.doc.Size() + 1<<20,
	}
	err := d.run()
	if isFault(err) {
		return append(d.reasons(), reason(CodeChangedAfterwards, Indeterminate, "what was added afterwards cannot be compared: "+err.Error())), d.found, nil
	}
	return d.reasons(), d.found, err
}

type differ struct {
	ctx           context.Context
	doc           io.ReaderAt
	old, now      *pdf.File
	allowed       permissions
	seen          map[[2]pdf.Ref]area // the gravest area in which a pair was compared
	queue         [areas][]pair
	added, filled map[pdf.Ref]bool   // of the document now: fields (and widgets) that are new, fields that were empty
	fillable      map[pdf.Ref]string // fields that people fill in, and their widgets: the names
	found         []Change
	known         map[Change]bool
	work          int64 // bytes of streams that may still be compared
}

// pair is two references that have to lead to the same.
type pair struct {
	old, now pdf.Ref
	area     area
	path     string
}

// reasons says what the changes mean, kind by kind.
func (d *differ) reasons() []Reason {
	var list []Reason
	for _, kind := range []ChangeKind{ChangeContent, ChangeSignature, ChangeSigning, ChangeOther, ChangeBox, ChangeAnnotation, ChangeForm} {
		for _, allowed := range []bool{false, true} {
			n, first := 0, ""
			for _, c := range d.found {
				if c.Kind == kind && c.Allowed == allowed {
					if n++; n == 1 {
						first = c.Where
					}
				}
			}
			if n > 0 {
				list = append(list, d.meaning(kind, allowed, fmt.Sprintf("%d differences, the first at %q", n, first)))
			}
		}
	}
	return list
}

func (d *differ) meaning(kind ChangeKind, allowed bool, what string) Reason {
	certified := fmt.Sprintf("a certification of the document (DocMDP %d)", d.allowed.level)
	switch {
	case kind == ChangeContent:
		return reason(CodeContentChanged, Invalid, "a later update changed the pages: "+what)
	case kind == ChangeSignature:
		return reason(CodeSignatureReplaced, Invalid, "a later update changed a signature that was there: "+what)
	case kind == ChangeSigning:
		return reason(CodeForbiddenChange, Invalid, certified+" forbids more signatures, and a later update added some: "+what)
	case kind == ChangeForm && allowed && d.allowed.level > 0:
		return reason(CodePermitted, Valid, "form fields were filled in afterwards, as "+certified+" permits: "+what)
	case allowed && kind == ChangeForm:
		return reason(CodePermitted, Valid, "form fields were filled in afterwards that the signer has not locked: "+what)
	case allowed:
		return reason(CodePermitted, Valid, "notes were added afterwards, as "+certified+" permits: "+what)
	case kind == ChangeForm && slices.ContainsFunc(d.found, func(c Change) bool { return c.Kind == kind && d.allowed.locked(c.Where) }):
		return reason(CodeForbiddenChange, Invalid, "a later update changed form fields that a signature has locked: "+what)
	case kind == ChangeBox && d.allowed.level > 0:
		return reason(CodeForbiddenChange, Invalid, certified+" permits no new boxes on pages, and a later update added some for signatures, which can cover what was signed: "+what)
	case kind == ChangeBox:
		return reason(CodeCovered, Indeterminate, "a later signature has a box so large that it can cover what was signed: "+what)
	case kind == ChangeAnnotation && d.allowed.level == 3:
		return reason(CodeCovered, Indeterminate, certified+" permits annotations, but those that came later, changed or went can cover or show what was not signed: "+what)
	case kind == ChangeAnnotation && d.allowed.level > 0, kind == ChangeForm && d.allowed.level == 1:
		return reason(CodeForbiddenChange, Invalid, "a later update did what "+certified+" forbids: "+what)
	}
	return reason(CodeChangedAfterwards, Indeterminate, "a later update changed more than signatures need: "+what)
}

// differs notes a difference; once for each field.
func (d *differ) differs(a area, where string) {
	c := Change{Kind: kinds[a], Where: where}
	c.Allowed = a == inForm && d.allowed.mayFill(where)
	d.note(c)
}

func (d *differ) note(c Change) {
	if !d.known[c] && len(d.found) < maxChanges {
		d.known[c] = true
		d.found = append(d.found, c)
	}
}

// run compares all that can be reached.
func (d *differ) run() error {
	if err := d.classifyFields(); err != nil {
		return err
	}
	_, old, err := d.old.Catalog()
	if err != nil {
		return err
	}
	_, now, err := d.now.Catalog()
	if err != nil {
		return err
	}
	// Layers decide what of the pages is shown.
	for _, k := range []pdf.Name{"Pages", "OCProperties"} {
		if err := d.values(old.Get(k), now.Get(k), inPages, string(k)); err != nil {
			return err
		}
	}
	if err := d.form(old.Get("AcroForm"), now.Get("AcroForm")); err != nil {
		return err
	}
	if err := d.dicts(old, now, elsewhere, "", "Pages", "OCProperties", "AcroForm", "DSS", "Extensions", "Version"); err != nil {
		return err
	}
	if err := d.info(); err != nil {
		return err
	}
	return d.drain()
}

// readOnly is the flag of fields that nobody is to fill in (ISO 32000-2, table 227).
const readOnly = 1

// classifyFields finds the fields that came with later signatures, and those that people fill in.
func (d *differ) classifyFields() error {
	before, err := d.old.Form()
	if err != nil {
		return err
	}
	empty := map[pdf.Ref]bool{} // whether each old field was an empty signature field
	for _, f := range before {
		v, err := d.old.Resolve(f.Value)
		if err != nil {
			return err
		}
		empty[f.Ref] = f.Type == "Sig" && v == nil
		flags, err := d.old.Inherited(f.Dict, "Ff")
		if err != nil {
			return err
		}
		if n, _ := pdf.Int(flags); f.Type != "Sig" && n&readOnly == 0 {
			d.fillable[f.Ref] = f.Name
			for _, w := range f.Widgets {
				d.fillable[w] = f.Name
			}
		}
	}
	signatures, err := signatureFields(d.now)
	if err != nil {
		return err
	}
	for _, s := range signatures {
		wasEmpty, existed := empty[s.field.Ref]
		if !s.dict.Has("ByteRange") || !s.dict.Has("Contents") || existed && !wasEmpty {
			continue
		}
		if s.dict.Get("SubFilter") != pdf.Name(subFilterTimestamp) && d.allowed.level == 1 {
			d.note(Change{Kind: ChangeSigning, Where: s.field.Name})
		}
		if existed {
			if d.allowed.locked(s.field.Name) && s.dict.Get("SubFilter") != pdf.Name(subFilterTimestamp) {
				d.note(Change{Kind: ChangeForm, Where: s.field.Name})
			}
			d.mark(d.filled, s.field)
			continue
		}
		if ok, err := d.addition(s.field); err != nil {
			return err
		} else if ok {
			d.mark(d.added, s.field)
		}
	}
	return nil
}

func (d *differ) mark(set map[pdf.Ref]bool, f pdf.Field) {
	set[f.Ref] = true
	for _, w := range f.Widgets {
		set[w] = true
	}
}

// addition reports whether a new signature field is one and nothing else: it runs no actions, and its annotations are widgets. A box that can cover
// what was signed is noted.
func (d *differ) addition(f pdf.Field) (bool, error) {
	for _, ref := range append([]pdf.Ref{f.Ref}, f.Widgets...) {
		dict, err := d.now.ResolveDict(ref)
		if err != nil {
			return false, err
		}
		subtype, err := d.now.Resolve(dict.Get("Subtype"))
		if err != nil {
			return false, err
		}
		if dict.Has("A") || dict.Has("AA") || subtype != nil && subtype != pdf.Name("Widget") {
			return false, nil
		}
		share, err := d.share(dict)
		if err != nil {
			return false, err
		}
		if share > 0 && d.allowed.level > 0 || share > maxShare {
			d.note(Change{Kind: ChangeBox, Where: f.Name})
		}
	}
	return true, nil
}

// maxShare is how much of a page a new box may take where nobody has certified the document. A page of A4 has 500,000 square points.
const (
	maxShare  = 0.25
	usualPage = 595 * 842
)

// Flags of annotations that are not shown (ISO 32000-2, table 167).
const notShown = 1<<1 | 1<<5 // Hidden, NoView

// share is how much of an A4 page the box of a widget takes; 0 when it is not shown. Pages of other sizes show a box no smaller for that.
func (d *differ) share(widget *pdf.Dict) (float64, error) {
	flags, err := d.now.Resolve(widget.Get("F"))
	if err != nil {
		return 0, err
	}
	if n, _ := pdf.Int(flags); n&notShown != 0 {
		return 0, nil
	}
	r, err := d.now.Rect(widget.Get("Rect"))
	return (r[2] - r[0]) * (r[3] - r[1]) / usualPage, err
}

// drain compares what was put off, the gravest first.
func (d *differ) drain() error {
	for n := 0; ; n++ {
		a := slices.IndexFunc(d.queue[:], func(q []pair) bool { return len(q) > 0 })
		if a < 0 {
			return nil
		}
		if n%256 == 0 && d.ctx.Err() != nil {
			return d.ctx.Err()
		}
		p := d.queue[a][len(d.queue[a])-1]
		d.queue[a] = d.queue[a][:len(d.queue[a])-1]
		if d.seen[[2]pdf.Ref{p.old, p.now}] < p.area {
			continue // it was found in a graver place meanwhile, and compared there: a page that the catalog names as the one to open at
		}
		if err := d.pair(p); err != nil {
			return err
		}
	}
}

func (d *differ) pair(p pair) error {
	old, err := d.old.Resolve(p.old)
	if err != nil {
		return err
	}
	now, err := d.now.Resolve(p.now)
	if err != nil {
		return err
	}
	o, ok1 := old.(*pdf.Dict)
	n, ok2 := now.(*pdf.Dict)
	same := p.old == p.now && ok1 && ok2
	switch name, fillable := d.fillable[p.now]; {
	case same && d.filled[p.now]:
		return d.dicts(o, n, p.area, p.path, "V", "AP", "M", "F")
	case same && fillable && p.area > inPages:
		return d.field(o, n, p, name)
	}
	return d.resolved(old, now, p.area, p.path)
}

// What filling in changes in a field or its widget.
var filling = []pdf.Name{"V", "RV", "I", "TI", "AS", "AP", "M"}

// field compares a field that people fill in.
func (d *differ) field(o, n *pdf.Dict, p pair, name string) error {
	for _, k := range filling {
		if err := d.values(o.Get(k), n.Get(k), inForm, name); err != nil {
			return err
		}
	}
	return d.dicts(o, n, p.area, p.path, filling...)
}

// values compares two values. Pairs of references are put off, so that long chains of objects do not become deep recursion; what remains is as deep as
// a single object can be.
func (d *differ) values(old, now any, a area, path string) error {
	oldRef, ok1 := old.(pdf.Ref)
	nowRef, ok2 := now.(pdf.Ref)
	if ok1 && ok2 {
		key := [2]pdf.Ref{oldRef, nowRef}
		if gravest, ok := d.seen[key]; !ok || a < gravest {
			d.seen[key] = a
			d.queue[a] = append(d.queue[a], pair{oldRef, nowRef, a, path})
		}
		return nil
	}
	old, err := d.old.Resolve(old)
	if err != nil {
		return err
	}
	if now, err = d.now.Resolve(now); err != nil {
		return err
	}
	return d.resolved(old, now, a, path)
}

// resolved compares two values that are not references.
func (d *differ) resolved(old, now any, a area, path string) error {
	switch o := old.(type) {
	case pdf.Array:
		n, ok := now.(pdf.Array)
		if !ok || len(o) != len(n) {
			break
		}
		for i := range o {
			if err := d.values(o[i], n[i], a, path); err != nil {
				return err
			}
		}
		return nil
	case *pdf.Dict:
		n, ok := now.(*pdf.Dict)
		if !ok {
			break
		}
		return d.dicts(o, n, a, path)
	case *pdf.Stream:
		n, ok := now.(*pdf.Stream)
		if !ok {
			break
		}
		if a == elsewhere && path == "Metadata" && o.Offset != n.Offset {
			return d.metadata(o, n)
		}
		return d.streams(o, n, a, path)
	default:
		if sameAtom(old, now) {
			return nil
		}
	}
	d.differs(a, path)
	return nil
}

// sameAtom compares null, names, numbers, booleans and strings by what they mean.
func sameAtom(old, now any) bool {
	o, ok1 := old.(pdf.Raw)
	n, ok2 := now.(pdf.Raw)
	if !ok1 || !ok2 {
		return !ok1 && !ok2 && isAtom(now) && old == now
	}
	if bytes.Equal(o, n) {
		return true
	}
	if x, ok := pdf.Number(o); ok {
		y, ok := pdf.Number(n)
		return ok && x == y
	}
	if x, ok := pdf.StringBytes(o); ok {
		y, ok := pdf.StringBytes(n)
		return ok && bytes.Equal(x, y)
	}
	return false
}

// isAtom keeps arrays, which cannot be compared with ==, away from it.
func isAtom(v any) bool {
	switch v.(type) {
	case nil, pdf.Name:
		return true
	}
	return false
}

func (d *differ) dicts(old, now *pdf.Dict, a area, path string, skip ...pdf.Name) error {
	keys := old.Keys()
	for _, k := range now.Keys() {
		if !old.Has(k) {
			keys = append(keys, k)
		}
	}
	page := a == inPages && old.Get("Type") == pdf.Name("Page")
	for _, k := range keys {
		if slices.Contains(skip, k) {
			continue
		}
		where := path
		if a != inForm { // where the name of the field says more
			where = join(path, k)
		}
		if err := d.entry(old, now, k, a, where, page); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) entry(old, now *pdf.Dict, k pdf.Name, a area, path string, page bool) error {
	o, n := old.Get(k), now.Get(k)
	switch {
	case page && k == "Annots":
		return d.annotations(o, n, path)
	case k == "V" && old.Get("FT") == pdf.Name("Sig") && o != nil && n != nil:
		return d.values(o, n, inSignature, path)
	}
	return d.values(o, n, a, path)
}

// annotations compares those of a page. They are no content: what they hold is compared as annotation or, for the widgets of a form, as form.
func (d *differ) annotations(old, now any, path string) error {
	o, n, err := d.arrays(old, now)
	if err != nil {
		return err
	}
	was, wasIn := refsOf(o)
	is, isIn := refsOf(n)
	if was == nil || is == nil { // some stand in the list themselves
		return d.resolved(o, n, inAnnotations, path)
	}
	var stayed, order []pdf.Ref
	for _, r := range was {
		if isIn[r] {
			stayed = append(stayed, r)
		} else if err := d.annotationGone(r, path); err != nil {
			return err
		}
	}
	for _, r := range is {
		if wasIn[r] {
			order = append(order, r)
		} else if err := d.annotationCame(r, path); err != nil {
			return err
		}
	}
	if !slices.Equal(order, stayed) {
		d.differs(elsewhere, path) // what lies above what
		return nil
	}
	for _, r := range stayed {
		a := inAnnotations
		if isWidget, err := d.isWidget(d.old, r); err != nil {
			return err
		} else if isWidget {
			a = elsewhere
		}
		if err := d.values(r, r, a, path); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) annotationGone(r pdf.Ref, path string) error {
	isWidget, err := d.isWidget(d.old, r)
	if isWidget {
		d.differs(elsewhere, path)
	} else {
		d.differs(inAnnotations, path)
	}
	return err
}

// annotationCame looks at a new annotation. A note that shows as an icon and a window beside the page covers nothing.
func (d *differ) annotationCame(r pdf.Ref, path string) error {
	dict, err := d.now.ResolveDict(r)
	if err != nil {
		return err
	}
	subtype, err := d.now.Resolve(dict.Get("Subtype"))
	if err != nil {
		return err
	}
	note := (subtype == pdf.Name("Text") || subtype == pdf.Name("Popup")) && !dict.Has("AP") && !dict.Has("A") && !dict.Has("AA")
	switch {
	case subtype == pdf.Name("Widget"):
		d.differs(elsewhere, path)
	case note && d.allowed.level == 3:
		d.note(Change{Kind: ChangeAnnotation, Where: path, Allowed: true})
	default:
		d.differs(inAnnotations, path)
	}
	return nil
}

func (d *differ) isWidget(f *pdf.File, r pdf.Ref) (bool, error) {
	dict, err := f.ResolveDict(r)
	if err != nil {
		return false, err
	}
	subtype, err := f.Resolve(dict.Get("Subtype"))
	return subtype == pdf.Name("Widget"), err
}

// arrays resolves two lists, and leaves out of the second what came with signatures.
func (d *differ) arrays(old, now any) (o, n pdf.Array, err error) {
	if o, err = d.old.ResolveArray(old); err != nil {
		return nil, nil, err
	}
	if n, err = d.now.ResolveArray(now); err != nil {
		return nil, nil, err
	}
	n = slices.DeleteFunc(slices.Clone(n), func(v any) bool {
		ref, ok := v.(pdf.Ref)
		return ok && d.added[ref]
	})
	return o, n, nil
}

// refsOf returns a list of references, also as a set; nil when something else is in it, or one of them twice.
func refsOf(list pdf.Array) ([]pdf.Ref, map[pdf.Ref]bool) {
	refs, set := make([]pdf.Ref, 0, len(list)), make(map[pdf.Ref]bool, len(list))
	for _, v := range list {
		ref, ok := v.(pdf.Ref)
		if !ok || set[ref] {
			return nil, nil
		}
		refs, set[ref] = append(refs, ref), true
	}
	return refs, set
}

// lists compares the fields of a form, leaving out those that came with signatures.
func (d *differ) lists(old, now any, path string) error {
	o, n, err := d.arrays(old, now)
	if err != nil {
		return err
	}
	return d.resolved(o, n, elsewhere, path)
}

// form compares the interactive form. A signature may bring the form with it, and the default resources and appearance that Adobe's products add.
func (d *differ) form(old, now any) error {
	o, err := d.old.ResolveDict(old)
	if err != nil {
		return err
	}
	n, err := d.now.ResolveDict(now)
	if err != nil {
		return err
	}
	if o == nil {
		o = new(pdf.Dict)
	}
	if n == nil {
		n = new(pdf.Dict)
	}
	if err := d.lists(o.Get("Fields"), n.Get("Fields"), "AcroForm/Fields"); err != nil {
		return err
	}
	skip := []pdf.Name{"Fields", "SigFlags"}
	for _, k := range []pdf.Name{"DA", "DR"} {
		if !o.Has(k) && len(d.fillable) == 0 { // where there are fields, they may look different for it
			skip = append(skip, k)
		}
	}
	return d.dicts(o, n, elsewhere, "AcroForm", skip...)
}

// info compares the document information; when and with what it was written is no news.
func (d *differ) info() error {
	o, err := d.old.ResolveDict(d.old.Trailer().Get("Info"))
	if err != nil {
		return err
	}
	n, err := d.now.ResolveDict(d.now.Trailer().Get("Info"))
	if err != nil {
		return err
	}
	if o == nil {
		o = new(pdf.Dict)
	}
	if n == nil {
		n = new(pdf.Dict)
	}
	return d.dicts(o, n, elsewhere, "Info", "ModDate", "Producer")
}

// streams compares dictionaries and encoded data.
func (d *differ) streams(old, now *pdf.Stream, a area, path string) error {
	if err := d.dicts(old.Dict, now.Dict, a, path); err != nil || old.Offset == now.Offset {
		return err
	}
	length, err := d.old.Resolve(old.Dict.Get("Length"))
	if err != nil {
		return err
	}
	size, ok := pdf.Int(length)
	if !ok || size < 0 || size > d.old.Size()-old.Offset {
		d.differs(a, path)
		return nil
	}
	if d.work -= size; d.work < 0 {
		return &pdf.LimitError{Offset: now.Offset, What: "comparing the streams of two revisions takes too much work, in bytes", Limit: 4*d.now.Size() + 1<<20}
	}
	same, err := sameBytes(io.NewSectionReader(d.doc, old.Offset, size), io.NewSectionReader(d.doc, now.Offset, size))
	if err == nil && !same {
		d.differs(a, path)
	}
	return err
}

func sameBytes(a, b io.Reader) (bool, error) {
	var x, y [32 << 10]byte
	for {
		n, err := io.ReadFull(a, x[:])
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return false, fmt.Errorf("read a stream: %w", err)
		}
		if m, err := io.ReadFull(b, y[:n]); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read a stream: %w", err)
		} else if m != n || !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
		if end {
			return true, nil
		}
	}
}

func join(path string, k pdf.Name) string {
	if len(path)+len(k) > maxPath {
		return path
	}
	if path == "" {
		return string(k)
	}
	return path + "/" + string(k)
}
