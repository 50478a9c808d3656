package pdf

import (
	"fmt"
	"math"
)

// Field is a terminal field of the interactive form (ISO 32000-1, 12.7.3).
type Field struct {
	Name    string // fully qualified: the partial names joined by periods
	Type    Name   // Btn, Tx, Ch or Sig
	Ref     Ref
	Dict    *Dict // must not be changed
	Value   any   // /V, its own or inherited, not resolved; nil when there is none
	Widgets []Ref // its annotations; the field itself when both are one object
	Page    int   // of the first widget, counted from 1; 0 when it is on none
	Rect    [4]float64
}

// Fields lists the terminal fields of the form in the order of the form. A field without a name is part of its parent
// or nameless; both are listed with the name that they have.
func (f *File) Fields() ([]Field, error) { return f.walkFields(true) }

// Form lists the same fields without Page and Rect: to find these takes a look at every page.
func (f *File) Form() ([]Field, error) { return f.walkFields(false) }

func (f *File) walkFields(placed bool) ([]Field, error) {
	_, catalog, err := f.Catalog()
	if err != nil {
		return nil, err
	}
	form, err := f.ResolveDict(catalog.Get("AcroForm"))
	if err != nil || form == nil {
		return nil, err
	}
	roots, err := f.ResolveArray(form.Get("Fields"))
	if err != nil {
		return nil, err
	}
	w := fieldWalk{f: f, placed: placed, seen: make(map[Ref]bool)}
	for _, v := range roots {
		if err := w.node(v, Field{}, 0); err != nil {
			return nil, err
		}
	}
	return w.fields, nil
}

// Field finds a terminal field by its fully qualified name; nil when there is none. Two fields of one name are an error.
func (f *File) Field(name string) (*Field, error) {
	fields, err := f.Fields()
	if err != nil {
		return nil, err
	}
	var found *Field
	for i := range fields {
		if fields[i].Name != name {
			continue
		}
		if found != nil {
			return nil, &SyntaxError{Offset: f.offsetOf(fields[i].Ref), Reason: fmt.Sprintf("the form has two fields named %q", name)}
		}
		found = &fields[i]
	}
	return found, nil
}

type fieldWalk struct {
	f      *File
	placed bool // with page and box
	seen   map[Ref]bool
	onPage map[Ref]int // page of each annotation; made when it is first needed
	fields []Field
}

// node visits a field; inherited holds what comes from above it.
func (w *fieldWalk) node(v any, inherited Field, depth int) error {
	ref, ok := v.(Ref)
	if !ok {
		return &SyntaxError{Reason: "the form has a field that is not a reference"}
	}
	at := w.f.offsetOf(ref)
	if w.seen[ref] {
		return &SyntaxError{Offset: at, Reason: fmt.Sprintf("object %d is twice in the tree of form fields", ref.Num)}
	}
	w.seen[ref] = true
	if depth > maxDepth || len(w.seen) > maxFields {
		return &LimitError{Offset: at, What: "the form has too many fields, or they are nested too deep", Limit: maxFields}
	}
	d, err := w.f.ResolveDict(ref)
	if err != nil || d == nil {
		return err // a reference to nothing is null, and no field
	}
	field, err := w.own(ref, d, inherited)
	if err != nil {
		return err
	}
	kids, err := w.f.ResolveArray(d.Get("Kids"))
	if err != nil {
		return err
	}
	terminal := true
	for _, k := range kids {
		kid, err := w.f.ResolveDict(k)
		if err != nil {
			return err
		}
		// A kid with a name of its own is a field; one without is a widget of this field (12.7.3.2).
		if kid.Has("T") {
			terminal = false
			if err := w.node(k, field, depth+1); err != nil {
				return err
			}
		} else if r, ok := k.(Ref); ok && kid != nil {
			field.Widgets = append(field.Widgets, r)
		}
	}
	if !terminal {
		return nil
	}
	if len(kids) == 0 {
		field.Widgets = []Ref{ref}
	}
	if err := w.place(&field); err != nil {
		return err
	}
	w.fields = append(w.fields, field)
	return nil
}

// own combines what the field says itself with what it inherits.
func (w *fieldWalk) own(ref Ref, d *Dict, inherited Field) (Field, error) {
	field := Field{Name: inherited.Name, Type: inherited.Type, Value: inherited.Value, Ref: ref, Dict: d}
	t, err := w.f.Resolve(d.Get("T"))
	if err != nil {
		return field, err
	}
	if d.Has("T") {
		if field.Name != "" {
			field.Name += "."
		}
		field.Name += Text(t)
	}
	ft, err := w.f.Resolve(d.Get("FT"))
	if err != nil {
		return field, err
	}
	if name, ok := ft.(Name); ok {
		field.Type = name
	}
	if d.Has("V") {
		field.Value = d.Get("V")
	}
	return field, nil
}

// place finds the page and the box of the first widget.
func (w *fieldWalk) place(field *Field) error {
	if len(field.Widgets) == 0 || !w.placed {
		return nil
	}
	widget, err := w.f.ResolveDict(field.Widgets[0])
	if err != nil {
		return err
	}
	if field.Rect, err = w.f.Rect(widget.Get("Rect")); err != nil {
		return err
	}
	// /P is optional and sometimes wrong; the page's /Annots decides what is shown.
	if w.onPage == nil {
		if err := w.indexAnnotations(); err != nil {
			return err
		}
	}
	field.Page = w.onPage[field.Widgets[0]]
	return nil
}

func (w *fieldWalk) indexAnnotations() error {
	w.onPage = make(map[Ref]int)
	pages, err := w.f.pageRefs()
	if err != nil {
		return err
	}
	for i, ref := range pages {
		page, err := w.f.ResolveDict(ref)
		if err != nil {
			return err
		}
		annots, err := w.f.ResolveArray(page.Get("Annots"))
		if err != nil {
			return err
		}
		for _, a := range annots {
			if r, ok := a.(Ref); ok && w.onPage[r] == 0 {
				w.onPage[r] = i + 1
			}
		}
	}
	return nil
}

// Rect reads a rectangle as left, bottom, right, top in points, whichever corners the file names (7.9.5). What is no
// rectangle gives zeros.
func (f *File) Rect(v any) ([4]float64, error) {
	var r [4]float64
	a, err := f.ResolveArray(v)
	if err != nil || len(a) != 4 {
		return r, err
	}
	for i := range r {
		n, err := f.Resolve(a[i])
		if err != nil {
			return [4]float64{}, err
		}
		x, ok := Number(n)
		if !ok {
			return [4]float64{}, nil
		}
		r[i] = x
	}
	return [4]float64{math.Min(r[0], r[2]), math.Min(r[1], r[3]), math.Max(r[0], r[2]), math.Max(r[1], r[3])}, nil
}

// RectOf spells a rectangle.
func RectOf(r [4]float64) Array { return Array{r[0], r[1], r[2], r[3]} }
