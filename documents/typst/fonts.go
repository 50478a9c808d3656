package typst

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/go-fonts/liberation/liberationmonobold"
	"github.com/go-fonts/liberation/liberationmonobolditalic"
	"github.com/go-fonts/liberation/liberationmonoitalic"
	"github.com/go-fonts/liberation/liberationmonoregular"
	"github.com/go-fonts/liberation/liberationsansbold"
	"github.com/go-fonts/liberation/liberationsansbolditalic"
	"github.com/go-fonts/liberation/liberationsansitalic"
	"github.com/go-fonts/liberation/liberationsansregular"
	"github.com/go-fonts/liberation/liberationserifbold"
	"github.com/go-fonts/liberation/liberationserifbolditalic"
	"github.com/go-fonts/liberation/liberationserifitalic"
	"github.com/go-fonts/liberation/liberationserifregular"
	"golang.org/x/image/font/sfnt"

	"github.com/dealseal/dealseal/documents"
)

// embeddedFonts are in the binary and in every instance: Latin, Greek, Cyrillic and Hebrew.
func embeddedFonts() [][]byte {
	return [][]byte{
		liberationsansregular.TTF, liberationsansbold.TTF, liberationsansitalic.TTF, liberationsansbolditalic.TTF,
		liberationserifregular.TTF, liberationserifbold.TTF, liberationserifitalic.TTF, liberationserifbolditalic.TTF,
		liberationmonoregular.TTF, liberationmonobold.TTF, liberationmonoitalic.TTF, liberationmonobolditalic.TTF,
	}
}

// sansStyles is how many of embeddedFonts are the sans family, which every other family falls back on.
const sansStyles = 4

// fonts answers which fonts a document needs. It is safe for concurrent use.
type fonts struct {
	sans []*sfnt.Font // the embedded sans family; a character counts as embedded if all styles have it

	mu      sync.Mutex
	paths   []string             // Noto fonts found on disk, best first
	opened  map[string]*fontFile // those that a document needed
	choices map[rune]string      // path of the font for a rune that is not embedded; "" for none
}

// fontFile is a font on disk that is in use. The file stays open: what was checked is what is printed.
type fontFile struct {
	file     *os.File
	families []string
	faces    []*sfnt.Font
	hash     [sha256.Size]byte
	bold     *fontFile // of the same family; nil when there is none
}

// maxChoices bounds the memory of characters looked up.
const maxChoices = 20_000

// maxFontBytes is the size of a font that is still loaded; the largest of Noto has 20 MB.
const maxFontBytes = 40 << 20

// newFonts looks for Noto fonts below dirs. It reads names only; a font is opened when a character needs it.
func newFonts(dirs []string) (*fonts, error) {
	f := &fonts{opened: make(map[string]*fontFile), choices: make(map[rune]string)}
	for _, data := range embeddedFonts()[:sansStyles] {
		face, err := sfnt.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("typst: embedded font: %w", err)
		}
		f.sans = append(f.sans, face)
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if e.Type().IsRegular() && isRegularNoto(e.Name()) {
				f.paths = append(f.paths, path)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("typst: look for fonts: %w", err)
		}
	}
	slices.SortFunc(f.paths, byPreference)
	return f, nil
}

func isRegularNoto(name string) bool {
	ext := filepath.Ext(name)
	base := strings.TrimSuffix(name, ext)
	return strings.HasPrefix(base, "Noto") && slices.Contains([]string{".ttf", ".otf", ".ttc"}, ext) &&
		(strings.HasSuffix(base, "-Regular") || base == "NotoColorEmoji")
}

// byPreference puts text before symbols and sans before serif; among equals the shorter name is the plainer design.
func byPreference(x, y string) int {
	xs, ys := filepath.Base(x), filepath.Base(y)
	if d := fontRank(xs) - fontRank(ys); d != 0 {
		return d
	}
	if d := len(xs) - len(ys); d != 0 {
		return d
	}
	return strings.Compare(x, y)
}

func fontRank(name string) int {
	switch {
	case strings.HasPrefix(name, "NotoSans-"):
		return 0
	case strings.HasPrefix(name, "NotoSansCJK"):
		return 2
	case strings.HasPrefix(name, "NotoColorEmoji"):
		return 3
	case strings.HasPrefix(name, "NotoSansSymbols"), strings.HasPrefix(name, "NotoSansMath"):
		return 4
	case strings.HasPrefix(name, "NotoSansMono"), strings.HasPrefix(name, "NotoSansDisplay"):
		return 6
	case strings.HasPrefix(name, "NotoSans"):
		return 1
	}
	return 5
}

func (f *fonts) embedded(r rune) bool {
	for _, face := range f.sans {
		if !hasGlyph(face, r) {
			return false
		}
	}
	return true
}

func hasGlyph(face *sfnt.Font, r rune) bool {
	i, err := face.GlyphIndex(nil, r)
	return err == nil && i != 0
}

// need returns the fonts beyond the embedded ones that texts need, in a fixed order. A character that no font has is a
// *documents.TextError: it would print as an empty box, and nobody would be told.
func (f *fonts) need(texts []documents.Text) ([]*fontFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	needed := make(map[string]bool)
	checked := make(map[rune]bool)
	for _, t := range texts {
		for _, r := range t.Text {
			if checked[r] {
				continue
			}
			checked[r] = true
			if !documents.NeedsGlyph(r) || f.embedded(r) {
				continue
			}
			path, err := f.choose(r)
			if err != nil {
				return nil, err
			}
			if path == "" {
				return nil, &documents.TextError{Field: t.Field, Rune: r, Reason: "no available font has this character " +
					"(Noto fonts in the configured font folders are used when they are there)"}
			}
			needed[path] = true
		}
	}
	return f.files(slices.SortedFunc(maps.Keys(needed), byPreference))
}

// maxPassed is how many files a worker's frame carries.
const maxPassed = 16

// files are the opened fonts with their bold sisters, as far as there is room for those.
func (f *fonts) files(paths []string) ([]*fontFile, error) {
	if len(paths) > maxPassed {
		return nil, &documents.TextError{Field: "(record)", Rune: documents.NoRune, Reason: fmt.Sprintf("needs %d fonts for its scripts; at most %d can be used", len(paths), maxPassed)}
	}
	var out []*fontFile
	for i, path := range paths {
		font := f.opened[path]
		out = append(out, font)
		if left := len(paths) - i - 1; font.bold != nil && len(out)+left < maxPassed {
			out = append(out, font.bold)
		}
	}
	return out, nil
}

// choose finds the best font that has r and keeps it open.
func (f *fonts) choose(r rune) (string, error) {
	if path, ok := f.choices[r]; ok {
		return path, nil
	}
	if len(f.choices) >= maxChoices {
		clear(f.choices)
	}
	for _, path := range f.paths {
		font, kept := f.opened[path]
		if !kept {
			var err error
			if font, err = openFont(path); err != nil {
				return "", err
			}
		}
		if len(font.faces) > 0 && hasGlyph(font.faces[0], r) {
			f.choices[r] = path
			return path, f.keep(path, font)
		}
		if !kept {
			font.close()
		}
	}
	f.choices[r] = ""
	return "", nil
}

// keep prepares a font for use: its hash, its names and its bold sister.
func (f *fonts) keep(path string, font *fontFile) error {
	if f.opened[path] != nil {
		return nil
	}
	if err := font.identify(); err != nil {
		return err
	}
	sister := strings.Replace(path, "-Regular.", "-Bold.", 1)
	if _, err := os.Stat(sister); err == nil && sister != path {
		bold, err := openFont(sister)
		if err != nil {
			return err
		}
		if err := bold.identify(); err != nil {
			return err
		}
		font.bold = bold
	}
	f.opened[path] = font
	return nil
}

func (f *fonts) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, font := range f.opened {
		if font.bold != nil {
			font.bold.close()
		}
		font.close()
	}
	clear(f.opened)
	clear(f.choices)
}

// openFont reads what sfnt can of a font; one that it cannot read has no faces and is never chosen.
func openFont(path string) (*fontFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("typst: font: %w", err)
	}
	f := &fontFile{file: file}
	info, err := file.Stat()
	if err != nil || info.Size() > maxFontBytes {
		return f, err
	}
	collection, err := sfnt.ParseCollectionReaderAt(file)
	if err != nil {
		return f, nil
	}
	for i := range collection.NumFonts() {
		if face, err := collection.Font(i); err == nil {
			f.faces = append(f.faces, face)
		}
	}
	return f, nil
}

func (f *fontFile) close() { _ = f.file.Close() }

func (f *fontFile) identify() error {
	for _, face := range f.faces {
		name, err := face.Name(nil, sfnt.NameIDTypographicFamily)
		if err != nil || name == "" {
			name, err = face.Name(nil, sfnt.NameIDFamily)
		}
		if err == nil && name != "" && !slices.Contains(f.families, name) {
			f.families = append(f.families, name)
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f.file, 0, maxFontBytes)); err != nil {
		return fmt.Errorf("typst: font: %w", err)
	}
	h.Sum(f.hash[:0])
	return nil
}

// families lists the names of fonts for the template. Of a collection that draws the same ideographs in several
// national forms, the form that fits the texts comes first.
func families(used []*fontFile, texts []documents.Text) []string {
	var names []string
	for _, f := range used {
		for _, n := range f.families {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	form := nationalForm(texts)
	slices.SortStableFunc(names, func(x, y string) int {
		return boolRank(strings.HasSuffix(y, form)) - boolRank(strings.HasSuffix(x, form))
	})
	return names
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// nationalForm is Japanese if there is kana, Korean if there is hangul, else simplified Chinese.
func nationalForm(texts []documents.Text) string {
	form := " CJK SC"
	for _, t := range texts {
		for _, r := range t.Text {
			switch {
			case unicode.In(r, unicode.Hiragana, unicode.Katakana):
				return " CJK JP"
			case unicode.Is(unicode.Hangul, r):
				form = " CJK KR"
			}
		}
	}
	return form
}
