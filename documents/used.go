package documents

import (
	"path"
	"strings"
	"unicode"
)

// Attachment is the record as it is attached to the document: the fields that the template used, as canonical JSON; nil
// if the manifest switches it off.
//
// A field counts as used if its name stands in the template's source: one that does not cannot have been printed by its
// name. The words of figures and days (value, text, currency) come with the field that they belong to.
func (b *Bundle) Attachment(p *Prepared) ([]byte, error) {
	if b.AttachRecord != nil && !*b.AttachRecord {
		return nil, nil
	}
	decoded, err := decodeJSON(p.Record)
	if err != nil {
		return nil, err
	}
	used := usedPart(decoded, b.words())
	if used == nil {
		used = map[string]any{}
	}
	return encodeJSON(used)
}

// wordsIn are the names that stand in the sources of a template.
func wordsIn(files map[string][]byte) map[string]bool {
	all := map[string]bool{}
	for name, content := range files {
		if path.Ext(name) != ".typ" {
			continue
		}
		for _, w := range strings.FieldsFunc(string(content), func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-'
		}) {
			all[w] = true
		}
	}
	return all
}

// usedPart leaves out of a value what is not named; nil means that nothing is left.
func usedPart(v any, words map[string]bool) any {
	switch v := v.(type) {
	case map[string]any:
		if _, figure := v["value"]; figure {
			return v
		}
		out := map[string]any{}
		for k, e := range v {
			if !words[k] {
				continue
			}
			if part := usedPart(e, words); part != nil {
				out[k] = part
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			part := usedPart(e, words)
			if part == nil {
				part = map[string]any{}
			}
			out = append(out, part)
		}
		return out
	}
	return v
}
