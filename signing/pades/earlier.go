package pades

import (
	"github.com/dealseal/dealseal/pdf"
)

// signed tells whether the document has a signature already.
func (b *builder) signed() bool {
	for _, f := range b.fields {
		if f.Type == "Sig" && f.Value != nil {
			return true
		}
	}
	return false
}

// checkEarlierSignatures refuses what an earlier signature does not permit, and a certification that is not the first
// signature (ISO 32000-1, 12.8.2.2).
func (b *builder) checkEarlierSignatures() error {
	if b.o.Certify > 0 && b.signed() {
		return refuse("the document is signed already; a certification must be the first signature")
	}
	perms, err := b.file.ResolveDict(b.catalog.Get("Perms"))
	if err != nil {
		return err
	}
	if err := b.checkTransforms(perms.Get("DocMDP"), nil); err != nil {
		return err
	}
	for _, f := range b.fields {
		if f.Type == "Sig" && f.Value != nil {
			if err := b.checkTransforms(f.Value, nil); err != nil {
				return err
			}
		}
	}
	if b.o.Certify > 0 && perms.Get("DocMDP") != nil {
		return refuse("the document is certified already; a certification must be the first signature")
	}
	return nil
}

// checkField refuses a field whose own rules cannot be met, or that an earlier signature has locked.
func (b *builder) checkField(f *pdf.Field) error {
	seed, err := b.file.ResolveDict(f.Dict.Get("SV"))
	if err != nil {
		return err
	}
	if required, _ := pdf.Int(seed.Get("Ff")); required != 0 {
		return refuse("the field %q demands things of its signature (/SV) that are not supported", f.Name)
	}
	if b.lock, err = b.file.ResolveDict(f.Dict.Get("Lock")); err != nil {
		return err
	}
	if b.lock.Has("P") {
		return refuse("the field %q restricts later changes of the document (/Lock with /P), which is not supported", f.Name)
	}
	for _, other := range b.fields {
		if other.Type == "Sig" && other.Value != nil {
			if err := b.checkTransforms(other.Value, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkTransforms looks at what an earlier signature forbids; f is the existing field to sign, or nil.
func (b *builder) checkTransforms(signature any, f *pdf.Field) error {
	d, err := b.file.ResolveDict(signature)
	if err != nil {
		return err
	}
	references, err := b.file.ResolveArray(d.Get("Reference"))
	if err != nil {
		return err
	}
	for _, v := range references {
		r, err := b.file.ResolveDict(v)
		if err != nil {
			return err
		}
		params, err := b.file.ResolveDict(r.Get("TransformParams"))
		if err != nil {
			return err
		}
		switch r.Get("TransformMethod") {
		case pdf.Name("DocMDP"):
			b.certified = true
			if p, ok := pdf.Int(params.Get("P")); ok && p == 1 {
				return refuse("the document is certified with no changes allowed; a further signature would break the certification")
			}
		case pdf.Name("FieldMDP"):
			if err := b.checkFieldLock(params, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *builder) checkFieldLock(params *pdf.Dict, f *pdf.Field) error {
	if f == nil {
		return nil
	}
	names, err := b.file.ResolveArray(params.Get("Fields"))
	if err != nil {
		return err
	}
	listed := false
	for _, n := range names {
		n, err := b.file.Resolve(n)
		if err != nil {
			return err
		}
		listed = listed || pdf.Text(n) == f.Name
	}
	action := params.Get("Action")
	if action == pdf.Name("All") || action == pdf.Name("Include") && listed || action == pdf.Name("Exclude") && !listed {
		return refuse("an earlier signature has locked the field %q", f.Name)
	}
	return nil
}
