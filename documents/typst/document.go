package typst

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/pdf"
)

// Names of the files that stand beside a bundle's own. A bundle cannot hold them: nothing but contract.typ ends in .typ
// at its root.
const (
	mainFile    = "dealseal-main.typ"
	libraryFile = "dealseal.typ"
	recordFile  = "dealseal-record.json"
	fontsFile   = "dealseal-fonts.json"
	// attachedFile is the part of the record that becomes a file in the PDF; the template cannot read it.
	attachedFile = "dealseal-attached.json"
)

// boxLabel finds what signature-box leaves behind.
const boxLabel = "<dealseal-signature-box>"

//go:embed dealseal.typ
var library []byte

// breaks makes a place to break of a zero-width space. As a character, the line that ends in it is measured without the
// letter before it and runs over, and it would be copied with the text. All text is searched for it, which takes a
// twentieth of a document's time: the rule is for documents that need it.
const breaks = "#show \"\\u{200b}\": box(width: 0pt)\n"

// needsBreaks reports whether there may be a zero-width space in the text: as a character, or as a template spells it.
func needsBreaks(files map[string][]byte) bool {
	for name, content := range files {
		if bytes.Contains(content, []byte("\u200b")) {
			return true
		}
		if strings.HasSuffix(name, ".typ") && spelledBreak.Match(content) {
			return true
		}
	}
	return false
}

// spelledBreak is what Typst makes a zero-width space of: an escape, a symbol, a function that takes any number.
var spelledBreak = regexp.MustCompile(`(?i)200b|\bzws\b|from-unicode`)

// markLabel is on every watermark, so that they can be counted: a template may set its own page foreground.
const markLabel = "<dealseal-preview>"

// previewMark is the watermark of previews.
const previewMark = "PREVIEW – NOT A CONTRACT"

// watermark is a mark that lies over every page, from corner to corner.
func watermark(mark string) string {
	size := min(40, 960/max(utf8.RuneCountInString(mark), 1))
	return fmt.Sprintf(`#set page(foreground: [
  #metadata("preview") <dealseal-preview>
  #place(center + horizon, rotate(-52deg, text(font: "Liberation Sans", size: %dpt, weight: "bold", fill: rgb(200, 30, 30, 80), %s)))
])
`, size, literal(mark))
}

// checkMarks wants a watermark on every page.
func checkMarks(file, marks []byte) error {
	var found []json.RawMessage
	if err := json.Unmarshal(marks, &found); err != nil {
		return fmt.Errorf("typst: count watermarks: %w", err)
	}
	f, err := pdf.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return err
	}
	pages, err := f.PageCount()
	if err != nil {
		return err
	}
	if len(found) != pages {
		return boxFault("the template sets a page foreground of its own, which hides the watermark")
	}
	return nil
}

// manner is what a document's main file says beside what the bundle and the record do.
type manner struct {
	mark     string // across every page; empty for none
	breaking bool   // see breaks
}

// sameFiles are those that all documents of a bundle have.
func sameFiles(b *documents.Bundle) map[string][]byte {
	files := map[string][]byte{libraryFile: library}
	for _, name := range b.FileNames() {
		if name == documents.ContractFile || strings.HasPrefix(name, "assets/") {
			files[name], _ = b.File(name)
		}
	}
	return files
}

// sources are all files of one document: those of all, the record and what joins them. breaking says whether the same
// files may have a place to break.
func sources(b *documents.Bundle, p *documents.Prepared, families []string, mark string, breaking bool) (map[string][]byte, manner, error) {
	list, err := json.Marshal(append([]string{}, families...))
	if err != nil {
		return nil, manner{}, err
	}
	own := map[string][]byte{recordFile: p.Print, fontsFile: list}
	m := manner{mark: mark, breaking: breaking || needsBreaks(own)}
	files := sameFiles(b)
	maps.Copy(files, own)
	files[mainFile] = []byte(mainSource(b.Locale, p, m))
	return files, m, nil
}

// mainSource wraps the contract, so that metadata, language and watermark do not depend on its author's memory.
func mainSource(locale string, p *documents.Prepared, m manner) string {
	var s strings.Builder
	lang, region, _ := strings.Cut(locale, "-")
	// In a block of its own, which needs some content to hold for: what sets in the contract must not depend on the record,
	// or nothing of one document is as it was in another.
	fmt.Fprintf(&s, "#{ set document(title: %s, author: %s, date: datetime(%s)); metadata(none) }\n", literal(p.Title), literal(p.Author),
		p.Time.UTC().Format("year: 2006, month: 1, day: 2, hour: 15, minute: 4, second: 5"))
	fmt.Fprintf(&s, "#set text(font: \"Liberation Sans\", lang: %s", literal(lang))
	if len(region) == 2 {
		fmt.Fprintf(&s, ", region: %s", literal(region))
	}
	s.WriteString(")\n")
	if m.breaking {
		s.WriteString(breaks)
	}
	if m.mark != "" {
		s.WriteString(watermark(m.mark))
	}
	fmt.Fprintf(&s, "#include %s\n", literal("/"+documents.ContractFile))
	return s.String()
}

// literal is s as a Typst string.
func literal(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}
