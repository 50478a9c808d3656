package pdf

import "fmt"

// PageCount counts the pages by walking the page tree; the tree's own /Count is not trusted.
func (f *File) PageCount() (int, error) {
	pages, err := f.pageRefs()
	return len(pages), err
}

// Page returns page n, counted from 1.
func (f *File) Page(n int) (Ref, *Dict, error) {
	pages, err := f.pageRefs()
	if err != nil {
		return Ref{}, nil, err
	}
	if n < 1 || n > len(pages) {
		return Ref{}, nil, fmt.Errorf("pdf: there is no page %d: the file has %d", n, len(pages))
	}
	d, err := f.ResolveDict(pages[n-1])
	return pages[n-1], d, err
}

// PageNumber says which page ref is, counted from 1; 0 when it is none.
func (f *File) PageNumber(ref Ref) (int, error) {
	pages, err := f.pageRefs()
	if err != nil {
		return 0, err
	}
	for i, p := range pages {
		if p == ref {
			return i + 1, nil
		}
	}
	return 0, nil
}

// Inherited returns what key means for a page: its own value, or else the one of the nearest node above it that has
// one (7.7.3.4).
func (f *File) Inherited(page *Dict, key Name) (any, error) {
	for range maxDepth {
		if page == nil {
			return nil, nil
		}
		if page.Has(key) {
			return f.Resolve(page.Get(key))
		}
		var err error
		if page, err = f.ResolveDict(page.Get("Parent")); err != nil {
			return nil, err
		}
	}
	return nil, &LimitError{What: "the page tree is too deep", Limit: maxDepth}
}

// pageRefs lists the leaves of the page tree in order.
func (f *File) pageRefs() ([]Ref, error) {
	if f.pages != nil {
		return f.pages, nil
	}
	_, catalog, err := f.Catalog()
	if err != nil {
		return nil, err
	}
	root, ok := catalog.Get("Pages").(Ref)
	if !ok {
		return nil, &SyntaxError{Offset: f.offsetOf(f.trailer.Get("Root").(Ref)), Reason: "the document catalog has no /Pages reference"}
	}
	w := pageWalk{f: f, seen: make(map[Ref]bool)}
	if err := w.node(root, 0); err != nil {
		return nil, err
	}
	f.pages = w.pages
	return f.pages, nil
}

// pageWalk walks the page tree once.
type pageWalk struct {
	f     *File
	seen  map[Ref]bool
	pages []Ref
}

func (w *pageWalk) node(ref Ref, depth int) error {
	at := w.f.offsetOf(ref)
	if w.seen[ref] {
		return &SyntaxError{Offset: at, Reason: fmt.Sprintf("object %d is twice in the page tree", ref.Num)}
	}
	w.seen[ref] = true
	if depth > maxDepth {
		return &LimitError{Offset: at, What: "the page tree is too deep", Limit: maxDepth}
	}
	if len(w.seen) > maxPages {
		return &LimitError{Offset: at, What: "the page tree has too many nodes", Limit: maxPages}
	}
	d, err := w.f.ResolveDict(ref)
	if err != nil {
		return err
	}
	if d == nil {
		return &SyntaxError{Offset: at, Reason: fmt.Sprintf("object %d of the page tree is not a dictionary", ref.Num)}
	}
	if !d.Has("Kids") {
		w.pages = append(w.pages, ref)
		return nil
	}
	kids, err := w.f.ResolveArray(d.Get("Kids"))
	if err != nil {
		return err
	}
	for _, k := range kids {
		kid, ok := k.(Ref)
		if !ok {
			return &SyntaxError{Offset: at, Reason: fmt.Sprintf("object %d of the page tree has a kid that is not a reference", ref.Num)}
		}
		if err := w.node(kid, depth+1); err != nil {
			return err
		}
	}
	return nil
}
