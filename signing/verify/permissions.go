package verify

import (
	"strings"

	"github.com/dealseal/dealseal/pdf"
)

// permissions are what the signatures of a revision leave to those who come later.
type permissions struct {
	// level is that of the strictest certification (DocMDP, ISO 32000-2, 12.8.2.2): 1 nothing, 2 filling in forms and signing, 3 annotations too; 0 when
	// nobody has said anything.
	level int
	locks []lock
}

// lock names the fields that must not change any more (FieldMDP, ISO 32000-2, 12.8.2.4).
type lock struct {
	all   bool     // every field, or every one
	names []string // but these (all), or these alone
}

func (l lock) holds(field string) bool {
	for _, name := range l.names {
		if field == name || strings.HasPrefix(field, name+".") {
			return !l.all
		}
	}
	return l.all
}

func (p permissions) locked(field string) bool {
	for _, l := range p.locks {
		if l.holds(field) {
			return true
		}
	}
	return false
}

// mayFill reports whether somebody has said that a field may be filled in.
func (p permissions) mayFill(field string) bool {
	return !p.locked(field) && (p.level >= 2 || p.level == 0 && len(p.locks) > 0)
}

// permissionsOf reads what the signatures of a revision say. The catalog's /Perms is not asked: it could be taken away, and a certification that it
// does not name binds all the same.
func permissionsOf(file *pdf.File) (permissions, error) {
	var p permissions
	fields, err := file.Form()
	if err != nil {
		return p, err
	}
	for _, f := range fields {
		if f.Type != "Sig" {
			continue
		}
		value, err := file.ResolveDict(f.Value)
		if err != nil {
			return p, err
		}
		if value == nil {
			continue
		}
		if err := p.read(file, value, f.Dict); err != nil {
			return p, err
		}
	}
	return p, nil
}

// read takes in the transforms of one signature, and the lock of its field, which holds once it is signed.
func (p *permissions) read(file *pdf.File, signature, field *pdf.Dict) error {
	references, err := file.ResolveArray(signature.Get("Reference"))
	if err != nil {
		return err
	}
	for _, v := range references {
		reference, err := file.ResolveDict(v)
		if err != nil {
			return err
		}
		method, err := file.Resolve(reference.Get("TransformMethod"))
		if err != nil {
			return err
		}
		params, err := file.ResolveDict(reference.Get("TransformParams"))
		if err != nil {
			return err
		}
		switch method {
		case pdf.Name("DocMDP"):
			err = p.certify(file, params, 2)
		case pdf.Name("FieldMDP"):
			err = p.lock(file, params)
		}
		if err != nil {
			return err
		}
	}
	l, err := file.ResolveDict(field.Get("Lock"))
	if err != nil || l == nil {
		return err
	}
	if err := p.certify(file, l, 0); err != nil {
		return err
	}
	return p.lock(file, l)
}

// certify takes in /P. What is out of range permits nothing.
func (p *permissions) certify(file *pdf.File, d *pdf.Dict, otherwise int) error {
	level := otherwise
	if d.Has("P") {
		v, err := file.Resolve(d.Get("P"))
		if err != nil {
			return err
		}
		n, _ := pdf.Int(v)
		if level = int(n); n < 1 || n > 3 {
			level = 1
		}
	}
	if level > 0 && (p.level == 0 || level < p.level) {
		p.level = level
	}
	return nil
}

// lock takes in /Action and /Fields. An action that is unknown locks everything.
func (p *permissions) lock(file *pdf.File, d *pdf.Dict) error {
	action, err := file.Resolve(d.Get("Action"))
	if err != nil {
		return err
	}
	list, err := file.ResolveArray(d.Get("Fields"))
	if err != nil {
		return err
	}
	l := lock{all: action != pdf.Name("Include")}
	if action == pdf.Name("Include") || action == pdf.Name("Exclude") {
		for _, v := range list {
			name, err := file.Resolve(v)
			if err != nil {
				return err
			}
			l.names = append(l.names, pdf.Text(name))
		}
	}
	p.locks = append(p.locks, l)
	return nil
}
