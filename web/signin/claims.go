package signin

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// claims are those of a verified ID token.
type claims map[string]any

// at is the value of a claim by its name, or by a path with dots where no claim bears the name.
func (c claims) at(path string) any {
	if v, ok := c[path]; ok {
		return v
	}
	name, rest, deeper := strings.Cut(path, ".")
	inner, ok := c[name].(map[string]any)
	if !deeper || !ok {
		return nil
	}
	return claims(inner).at(rest)
}

// text is a claim that is a text, empty otherwise.
func (c claims) text(path string) string {
	text, _ := c.at(path).(string)
	return text
}

// yes reports whether a claim is true. Some providers write it as a text.
func (c claims) yes(path string) bool {
	v := c.at(path)
	return v == true || v == "true"
}

// list is a claim that is a text or a list of texts; nil otherwise.
func (c claims) list(path string) (texts []string) {
	switch v := c.at(path).(type) {
	case string:
		return []string{v}
	case []any:
		texts = []string{}
		for _, one := range v {
			if text, ok := one.(string); ok {
				texts = append(texts, text)
			}
		}
	}
	return texts
}

// tellable reports whether a text can stand in the audit log and be taken for nothing else.
func tellable(text string, most int) bool {
	odd := func(r rune) bool { return !unicode.IsGraphic(r) || r == '(' || r == ')' || r == utf8.RuneError }
	return text != "" && len(text) <= most && strings.TrimSpace(text) == text && !strings.ContainsFunc(text, odd)
}

// clip shortens what others have written, for a line of the log.
func clip(text string) string {
	const most = 200
	text = strings.ToValidUTF8(text, "?")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
