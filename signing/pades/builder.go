package pades

import (
	"fmt"
	"slices"

	"github.com/dealseal/dealseal/pdf"
)

// builder puts a signature's objects into an update.
type builder struct {
	file   *pdf.File
	update *pdf.Update
	o      Options

	contents, byteRange *pdf.Placeholder

	catalogRef pdf.Ref
	catalog    *pdf.Dict // changed
	form       *pdf.Dict // changed
	fields     []pdf.Field
	fieldName  string
	lock       *pdf.Dict // of the field
	certified  bool      // by an earlier signature
}

// build makes a signature.
func (b *builder) build() error {
	if err := b.open(); err != nil {
		return err
	}
	if err := b.checkEarlierSignatures(); err != nil {
		return err
	}
	signature := b.update.Alloc()
	if err := b.placeField(signature); err != nil {
		return err
	}
	if err := b.putSignature(signature); err != nil {
		return err
	}
	return b.finish()
}

// finish writes the form and the catalog back.
func (b *builder) finish() error {
	if err := b.putForm(); err != nil {
		return err
	}
	b.update.Put(b.catalogRef, b.catalog)
	return nil
}

// open reads the catalog and the form.
func (b *builder) open() error {
	ref, catalog, err := b.file.Catalog()
	if err != nil {
		return err
	}
	b.catalogRef, b.catalog = ref, catalog.Clone()
	form, err := b.file.ResolveDict(catalog.Get("AcroForm"))
	if err != nil {
		return err
	}
	if form.Has("XFA") {
		return refuse("the document has an XFA form, which some viewers show in the place of its pages; flatten it before sealing")
	}
	b.form = form.Clone()
	b.fields, err = b.file.Fields()
	return err
}

// putForm writes the form back to where it was: other fields, /DA, /DR and the rest stay.
func (b *builder) putForm() error {
	flags, _ := pdf.Int(b.form.Get("SigFlags"))
	b.form.Set("SigFlags", flags|3) // SignaturesExist and AppendOnly (12.7.2, table 219)
	if err := b.settleAppearances(); err != nil {
		return err
	}
	if ref, ok := b.catalog.Get("AcroForm").(pdf.Ref); ok {
		b.update.Put(ref, b.form)
		return nil
	}
	b.catalog.Set("AcroForm", b.form)
	return nil
}

// settleAppearances drops /NeedAppearances, which makes viewers draw the fields anew after the seal, as soon as every
// widget has an appearance and nothing is lost with it. After an earlier signature the form is left alone.
func (b *builder) settleAppearances() error {
	need, err := b.file.Resolve(b.form.Get("NeedAppearances"))
	if err != nil {
		return err
	}
	if yes, _ := pdf.Bool(need); !yes || b.signed() {
		return nil
	}
	for _, f := range b.fields {
		for _, ref := range f.Widgets {
			w, err := b.update.ResolveDict(ref)
			if err != nil {
				return err
			}
			if f.Type != "Sig" && w.Get("AP") == nil {
				return nil
			}
		}
	}
	b.form.Delete("NeedAppearances")
	return nil
}

// putSignature writes the signature dictionary (12.8.1, table 252).
func (b *builder) putSignature(ref pdf.Ref) error {
	d := pdf.D(
		"Type", pdf.Name("Sig"),
		"Filter", pdf.Name("Adobe.PPKLite"),
		"SubFilter", pdf.Name("ETSI.CAdES.detached"),
		"ByteRange", b.byteRange,
		"Contents", b.contents,
		"M", pdf.Date(b.o.Time),
	)
	for _, e := range []struct {
		key  pdf.Name
		text string
	}{{"Name", b.o.Name}, {"Reason", b.o.Reason}, {"Location", b.o.Location}, {"ContactInfo", b.o.ContactInfo}} {
		if e.text != "" {
			d.Set(e.key, pdf.TextString(e.text))
		}
	}
	references, err := b.references(ref)
	if err != nil {
		return err
	}
	if len(references) > 0 {
		d.Set("Reference", references)
	}
	b.update.Put(ref, d)
	return nil
}

// references makes the signature reference dictionaries (12.8.1, table 253): of a certification, and of a field that
// locks others when it is signed.
func (b *builder) references(signature pdf.Ref) (pdf.Array, error) {
	var list pdf.Array
	if b.o.Certify > 0 {
		list = append(list, pdf.D("Type", pdf.Name("SigRef"), "TransformMethod", pdf.Name("DocMDP"),
			"TransformParams", pdf.D("Type", pdf.Name("TransformParams"), "P", b.o.Certify, "V", pdf.Name("1.2"))))
		perms, err := b.file.ResolveDict(b.catalog.Get("Perms"))
		if err != nil {
			return nil, err
		}
		perms = perms.Clone()
		perms.Set("DocMDP", signature)
		b.catalog.Set("Perms", perms)
	}
	if b.lock != nil {
		params := pdf.D("Type", pdf.Name("TransformParams"), "Action", b.lock.Get("Action"), "V", pdf.Name("1.2"))
		if b.lock.Has("Fields") {
			params.Set("Fields", b.lock.Get("Fields"))
		}
		list = append(list, pdf.D("Type", pdf.Name("SigRef"), "TransformMethod", pdf.Name("FieldMDP"),
			"TransformParams", params, "Data", b.catalogRef))
	}
	return list, nil
}

// placeField finds or makes the field that will hold the signature.
func (b *builder) placeField(signature pdf.Ref) error {
	b.fieldName = b.o.Field
	if b.fieldName == "" {
		b.fieldName = b.freeName("Seal")
		return b.newField(signature)
	}
	existing, err := b.file.Field(b.fieldName)
	if err != nil {
		return err
	}
	if existing == nil {
		return b.newField(signature)
	}
	return b.existingField(existing, signature)
}

// freeName is a name for a new field: the word with the first number that is not taken.
func (b *builder) freeName(word string) string {
	taken := make(map[string]bool)
	for _, f := range b.fields {
		taken[f.Name] = true
	}
	for n := 1; ; n++ {
		if name := fmt.Sprintf("%s%d", word, n); !taken[name] {
			return name
		}
	}
}

// existingField signs an empty field of the form; its widget, name and place stay.
func (b *builder) existingField(f *pdf.Field, signature pdf.Ref) error {
	switch {
	case f.Type != "Sig":
		return refuse("the field %q is not a signature field", f.Name)
	case len(f.Widgets) != 1:
		return refuse("the signature field %q has %d boxes on pages; it must have one", f.Name, len(f.Widgets))
	}
	value, err := b.file.Resolve(f.Value)
	if err != nil {
		return err
	}
	if value != nil {
		return refuse("the field %q is signed already", f.Name)
	}
	if err := b.checkField(f); err != nil {
		return err
	}
	field := f.Dict.Clone()
	field.Set("V", signature)
	b.update.Put(f.Ref, field)
	widget := field
	if f.Widgets[0] != f.Ref {
		d, err := b.file.ResolveDict(f.Widgets[0])
		if err != nil {
			return err
		}
		widget = d.Clone()
		b.update.Put(f.Widgets[0], widget)
	}
	return b.dressExisting(f, widget)
}

// dressExisting draws the seal into the box of an existing field.
func (b *builder) dressExisting(f *pdf.Field, widget *pdf.Dict) error {
	flags, _ := pdf.Int(widget.Get("F"))
	visible := f.Rect[2] > f.Rect[0] && f.Rect[3] > f.Rect[1]
	if len(b.o.Text) == 0 || !visible {
		widget.Set("F", flags|annotationFlags)
		return nil
	}
	if f.Page == 0 {
		return refuse("the signature field %q is on no page, so its text cannot be seen", f.Name)
	}
	widget.Set("F", flags&^hidingFlags|annotationFlags)
	_, page, err := b.file.Page(f.Page)
	if err != nil {
		return err
	}
	return b.draw(widget, page, f.Rect)
}

// Flags of annotations (12.5.3, table 165).
const (
	annotationFlags = 1<<2 | 1<<7        // Print, Locked
	hidingFlags     = 1<<0 | 1<<1 | 1<<5 // Invisible, Hidden, NoView
)

// newField adds a field with its widget in one object.
func (b *builder) newField(signature pdf.Ref) error {
	if slices.Contains([]byte(b.fieldName), '.') {
		return refuse("a new field cannot be named %q: periods separate the levels of names", b.fieldName)
	}
	pageRef, page, err := b.file.Page(b.o.Page)
	if err != nil {
		return refuse("the seal cannot be on page %d: %v", b.o.Page, err)
	}
	ref := b.update.Alloc()
	field := pdf.D(
		"Type", pdf.Name("Annot"),
		"Subtype", pdf.Name("Widget"),
		"FT", pdf.Name("Sig"),
		"T", pdf.TextString(b.fieldName),
		"V", signature,
		"F", annotationFlags,
		"P", pageRef,
		"Rect", pdf.RectOf(b.o.Rect),
	)
	if b.o.Rect != [4]float64{} {
		// It would be an annotation that others did not agree to see; pyHanko calls a file that has one tampered with.
		if b.certified {
			return refuse("the document is certified, so no new field may show on its pages; sign a field that is there already, or make the new one invisible")
		}
		if err := b.checkBox(page); err != nil {
			return err
		}
		if err := b.draw(field, page, b.o.Rect); err != nil {
			return err
		}
	} else if len(b.o.Text) > 0 {
		return refuse("there is text for the seal, but no box to show it in")
	}
	b.update.Put(ref, field)
	if err := b.addTo(pageRef, page, ref); err != nil {
		return err
	}
	fields, err := b.file.ResolveArray(b.form.Get("Fields"))
	if err != nil {
		return err
	}
	fields = append(slices.Clone(fields), ref)
	if fieldsRef, ok := b.form.Get("Fields").(pdf.Ref); ok {
		b.update.Put(fieldsRef, fields)
	} else {
		b.form.Set("Fields", fields)
	}
	return nil
}

// addTo adds the widget to the page's annotations, where they are.
func (b *builder) addTo(pageRef pdf.Ref, page *pdf.Dict, widget pdf.Ref) error {
	annots, err := b.file.ResolveArray(page.Get("Annots"))
	if err != nil {
		return err
	}
	ref, indirect := page.Get("Annots").(pdf.Ref)
	indirect = indirect && annots != nil
	annots = append(slices.Clone(annots), widget)
	if indirect {
		b.update.Put(ref, annots)
		return nil
	}
	page = page.Clone()
	page.Set("Annots", annots)
	b.update.Put(pageRef, page)
	return nil
}

// checkBox refuses a box of a new field that could not be seen.
func (b *builder) checkBox(page *pdf.Dict) error {
	r := b.o.Rect
	if !(r[2] > r[0] && r[3] > r[1]) {
		return refuse("the box of the seal is empty; give it as left, bottom, right, top")
	}
	if len(b.o.Text) == 0 {
		return refuse("there is a box for the seal, but no text to show in it")
	}
	shown, err := b.shownBox(page)
	if err != nil {
		return err
	}
	if r[0] < shown[0] || r[1] < shown[1] || r[2] > shown[2] || r[3] > shown[3] {
		return refuse("the box of the seal %v leaves page %d, which is %v", r, b.o.Page, shown)
	}
	return nil
}

// shownBox is the part of the page that viewers show: its crop box within its media box (14.11.2).
func (b *builder) shownBox(page *pdf.Dict) ([4]float64, error) {
	var boxes [2][4]float64
	for i, key := range []pdf.Name{"MediaBox", "CropBox"} {
		v, err := b.file.Inherited(page, key)
		if err != nil {
			return boxes[0], err
		}
		if boxes[i], err = b.file.Rect(v); err != nil {
			return boxes[0], err
		}
	}
	media, crop := boxes[0], boxes[1]
	if crop == [4]float64{} {
		return media, nil
	}
	return [4]float64{max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3])}, nil
}
