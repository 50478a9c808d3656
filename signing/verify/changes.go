package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
)

// change is a difference between the signed revision and the document as it is, with what it means for the signature.
type change = Reason

// area says where in the document a difference is; it decides how grave it is.
type area int

const (
	inPages area = iota // what the reader sees
	inSignature
	elsewhere
)

// maxPath bounds how much of a path of keys is shown.
const maxPath = 100

// findChanges compares the revision that a signature covers with the document as it is now, object by object along the references from the catalog, and
// returns what differs beyond that which later signatures, time-stamps and validation data need: new signature fields that hold a signature, with their
// widgets; an empty signature field that was signed; /DSS, /Extensions and /Version of the catalog; /SigFlags. Comparing meanings and not bytes makes no
// difference between updates that rewrite an object unchanged and those that leave it alone.
//
// A document that differs in its pages is disproven. What differs elsewhere (form values, annotations, attachments, metadata) may have been allowed, which
// only the certification of the document can tell: it is left undecided.
func findChanges(ctx context.Context, doc pades.Document, signed found) ([]change, error) {
	now, err := pdf.Open(doc, doc.Size())
	if err != nil {
		return nil, err
	}
	d := &differ{
		ctx: ctx, doc: doc, old: signed.file, now: now,
		seen: map[[2]pdf.Ref]bool{}, added: map[pdf.Ref]bool{}, filled: map[pdf.Ref]bool{}, found: map[area]*difference{},
		work: 4*doc.Size() + 1<<20,
	}
	err = d.run()
	var bad documentError
	if errors.As(err, &bad) {
		return append(d.changes(), change{CodeChangedAfterwards, Indeterminate, "what was added afterwards cannot be compared: " + err.Error()}), nil
	}
	return d.changes(), err
}

type differ struct {
	ctx           context.Context
	doc           io.ReaderAt
	old, now      *pdf.File
	seen          map[[2]pdf.Ref]bool
	queue, later  []pair
	added, filled map[pdf.Ref]bool // of the document now: fields (and widgets) that are new, fields that were empty
	found         map[area]*difference
	work          int64 // bytes of streams that may still be compared
}

// pair is two references that have to lead to the same.
type pair struct {
	old, now pdf.Ref
	area     area
	path     string
}

// difference is the first of its area, and how many there are.
type difference struct {
	path  string
	count int
}

func (d *differ) changes() []change {
	var list []change
	for _, a := range []struct {
		area area
		Reason
	}{
		{inPages, Reason{CodeContentChanged, Invalid, "a later update changed the pages"}},
		{inSignature, Reason{CodeSignatureReplaced, Invalid, "a later update changed a signature that was there"}},
		{elsewhere, Reason{CodeChangedAfterwards, Indeterminate, "a later update changed more than signatures need"}},
	} {
		if f := d.found[a.area]; f != nil {
			a.Text = fmt.Sprintf("%s: %d differences, the first at %q", a.Text, f.count, f.path)
			list = append(list, a.Reason)
		}
	}
	return list
}

func (d *differ) differs(a area, path string) {
	if d.found[a] == nil {
		d.found[a] = &difference{path: path}
	}
	d.found[a].count++
}

// run compares the pages first: what is reached from them counts as content, from wherever else it is reached as well.
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
	if err := d.values(old.Get("Pages"), now.Get("Pages"), inPages, "Pages"); err != nil {
		return err
	}
	if err := d.drain(); err != nil {
		return err
	}
	if err := d.form(old.Get("AcroForm"), now.Get("AcroForm")); err != nil {
		return err
	}
	if err := d.dicts(old, now, elsewhere, "", "Pages", "AcroForm", "DSS", "Extensions", "Version"); err != nil {
		return err
	}
	if err := d.info(); err != nil {
		return err
	}
	return d.drain()
}

// classifyFields finds the fields that came with later signatures.
func (d *differ) classifyFields() error {
	before, err := d.old.Fields()
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
	}
	signatures, err := signatureFields(d.now)
	if err != nil {
		return err
	}
	for _, s := range signatures {
		wasEmpty, existed := empty[s.field.Ref]
		switch {
		case !s.dict.Has("ByteRange") || !s.dict.Has("Contents"):
		case !existed:
			d.added[s.field.Ref] = true
			for _, w := range s.field.Widgets {
				d.added[w] = true
			}
		case wasEmpty:
			d.filled[s.field.Ref] = true
			for _, w := range s.field.Widgets {
				d.filled[w] = true
			}
		}
	}
	return nil
}

func (d *differ) drain() error {
	for n := 0; len(d.queue) > 0; n++ {
		if n%256 == 0 && d.ctx.Err() != nil {
			return d.ctx.Err()
		}
		p := d.queue[len(d.queue)-1]
		d.queue = d.queue[:len(d.queue)-1]
		old, err := d.old.Resolve(p.old)
		if err != nil {
			return err
		}
		now, err := d.now.Resolve(p.now)
		if err != nil {
			return err
		}
		if err := d.resolved(old, now, p.area, p.path, d.filled[p.now] && p.old == p.now); err != nil {
			return err
		}
	}
	return nil
}

// values compares two values. Pairs of references are put off, so that long chains of objects do not become deep recursion; what remains is as deep as
// a single object can be.
func (d *differ) values(old, now any, a area, path string) error {
	oldRef, ok1 := old.(pdf.Ref)
	nowRef, ok2 := now.(pdf.Ref)
	if ok1 && ok2 {
		key := [2]pdf.Ref{oldRef, nowRef}
		if !d.seen[key] {
			d.seen[key] = true
			d.queue = append(d.queue, pair{oldRef, nowRef, a, path})
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
	return d.resolved(old, now, a, path, false)
}

// resolved compares two values that are not references.
func (d *differ) resolved(old, now any, a area, path string, filled bool) error {
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
		if filled {
			return d.dicts(o, n, a, path, "V", "AP", "M", "F")
		}
		return d.dicts(o, n, a, path)
	case *pdf.Stream:
		n, ok := now.(*pdf.Stream)
		if !ok {
			break
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
		if err := d.entry(old, now, k, a, join(path, k), page); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) entry(old, now *pdf.Dict, k pdf.Name, a area, path string, page bool) error {
	o, n := old.Get(k), now.Get(k)
	switch {
	case page && k == "Annots":
		return d.lists(o, n, path)
	case k == "V" && old.Get("FT") == pdf.Name("Sig") && o != nil && n != nil:
		return d.values(o, n, inSignature, path)
	}
	return d.values(o, n, a, path)
}

// lists compares the fields of a form or the annotations of a page, leaving out those that came with signatures. What they hold is compared after the
// pages: it is no content.
func (d *differ) lists(old, now any, path string) error {
	o, err := d.old.ResolveArray(old)
	if err != nil {
		return err
	}
	n, err := d.now.ResolveArray(now)
	if err != nil {
		return err
	}
	n = slices.DeleteFunc(slices.Clone(n), func(v any) bool {
		ref, ok := v.(pdf.Ref)
		return ok && d.added[ref]
	})
	if len(o) != len(n) {
		d.differs(elsewhere, path)
		return nil
	}
	held := d.queue
	d.queue = d.later
	for i := range o {
		if err := d.values(o[i], n[i], elsewhere, path); err != nil {
			return err
		}
	}
	d.later, d.queue = d.queue, held
	return nil
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
	d.queue, d.later = d.later, nil // the pages are done
	skip := []pdf.Name{"Fields", "SigFlags"}
	for _, k := range []pdf.Name{"DA", "DR"} {
		if !o.Has(k) {
			skip = append(skip, k)
		}
	}
	return d.dicts(o, n, elsewhere, "AcroForm", skip...)
}

// info compares the document information; its date of modification is no news.
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
	return d.dicts(o, n, elsewhere, "Info", "ModDate")
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
