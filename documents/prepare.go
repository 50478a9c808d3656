package documents

import (
	"encoding/json"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Prepared is a record that has passed every gate, in the form that an engine prints.
type Prepared struct {
	Record []byte    // canonical JSON: what Output.Key is made of
	Print  []byte    // the same with places to break long words
	Title  string    // the PDF's title
	Author string    // the PDF's author
	Tx     string    // the transaction's ID; empty in a record that names none
	Time   time.Time // the clock of the document
	Texts  []Text    // all text that may be printed, for the check against the fonts
}

// Text is a piece of text and where it stands.
type Text struct{ Field, Text string }

// Prepare validates a record for an engine. It is for implementations of Renderer.
func (b *Bundle) Prepare(record []byte) (*Prepared, error) {
	canonical, decoded, err := b.normalise(record)
	if err != nil {
		return nil, err
	}
	p := &Prepared{Record: canonical, Title: b.Title}
	p.collect("", decoded)
	p.sourceTexts(b)
	p.Time = documentTime(decoded)
	p.Tx, _ = get(decoded, metaField+".tx").(string)
	p.Author, _ = get(decoded, "seller.name").(string)
	if p.Print, err = encodeJSON(breakable(decoded)); err != nil {
		return nil, err
	}
	return p, nil
}

// documentTime is when the record says that it was made; a record that Compose did not make may have only a field
// "date", or nothing.
func documentTime(record any) time.Time {
	for _, path := range []string{metaField + ".time", metaField + ".date.value", "date"} {
		s, _ := get(record, path).(string)
		for _, layout := range []string{time.RFC3339, time.DateOnly} {
			if t, err := time.Parse(layout, s); err == nil {
				return t.UTC()
			}
		}
	}
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
}

func (p *Prepared) collect(at string, v any) {
	switch v := v.(type) {
	case string:
		p.Texts = append(p.Texts, Text{at, v})
	case map[string]any:
		for _, k := range sortedKeys(v) {
			p.collect(join(at, k), v[k])
		}
	case []any:
		for _, e := range v {
			p.collect(at, e)
		}
	}
}

// sourceTexts adds the wording of the template itself. Markup and code are in it too, all of it plain text in the end.
func (p *Prepared) sourceTexts(b *Bundle) {
	for _, name := range b.FileNames() {
		if path.Ext(name) == ".typ" || path.Ext(name) == ".txt" || path.Ext(name) == ".csv" {
			p.Texts = append(p.Texts, Text{name, string(b.files[name])})
		}
	}
}

func breakable(v any) any {
	switch v := v.(type) {
	case string:
		return breakWords(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = breakable(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = breakable(e)
		}
		return out
	}
	return v
}

// unsafeInNames are characters that some file system or CRM does not take in a file name.
const unsafeInNames = `/\:*?"<>|`

const maxNameBytes = 120

// FileName makes the name of the document's file from the manifest's pattern and a composed record: at most 120 bytes,
// usable on every file system, ending in .pdf. An absent field leaves no text.
func (b *Bundle) FileName(record []byte) (string, error) {
	var decoded map[string]any
	if err := json.Unmarshal(record, &decoded); err != nil {
		return "", &FieldError{Field: wholeRecord, Problem: jsonError(record, err).Error()}
	}
	name := holdingPattern.ReplaceAllStringFunc(strings.TrimSuffix(b.FilePattern, ".pdf"), func(hit string) string {
		switch key := hit[1 : len(hit)-1]; key {
		case "tx":
			return nameText(get(decoded, metaField+".tx"))
		case "date":
			return nameText(get(decoded, metaField+".date"))
		case "template":
			return b.Name()
		default:
			return nameText(get(decoded, key))
		}
	})
	name = strings.Join(strings.Fields(name), " ")
	for len(name) > maxNameBytes-len(".pdf") {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	if name = strings.Trim(name, " .-"); name == "" {
		name = b.ID
	}
	return name + ".pdf", nil
}

// nameText is the machine's form of a value: dates sort, figures have no spaces.
func nameText(v any) string {
	if m, ok := v.(map[string]any); ok {
		v = m["value"]
	}
	s, _ := v.(string)
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(unsafeInNames, r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '-'
		}
		return r
	}, s)
}
