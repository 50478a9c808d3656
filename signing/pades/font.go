package pades

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"unicode/utf16"

	"github.com/dealseal/dealseal/pdf"
	"golang.org/x/image/font"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

// subset is a TrueType font of which only the glyphs in use are embedded. It is for the fonts that are compiled in:
// their tables are trusted.
type subset struct {
	name   string
	tables map[string][]byte
	font   *sfnt.Font
	buffer sfnt.Buffer
	em     fixed.Int26_6 // units of an em

	glyphs []uint16            // of the original font, by their number in the subset
	number map[uint16]uint16   // the reverse
	runes  map[uint16][]uint16 // UTF-16 of what a glyph of the subset stands for
}

func newSubset(name string, ttf []byte) (*subset, error) {
	f, err := sfnt.Parse(ttf)
	if err != nil {
		return nil, fmt.Errorf("pades: font %s: %w", name, err)
	}
	s := &subset{
		name:   name,
		tables: make(map[string][]byte),
		font:   f,
		em:     fixed.Int26_6(f.UnitsPerEm()),
		number: make(map[uint16]uint16),
		runes:  make(map[uint16][]uint16),
	}
	for i := range int(binary.BigEndian.Uint16(ttf[4:])) {
		entry := ttf[12+16*i:]
		offset, length := binary.BigEndian.Uint32(entry[8:]), binary.BigEndian.Uint32(entry[12:])
		s.tables[string(entry[:4])] = ttf[offset : offset+length]
	}
	s.use(0) // .notdef is always glyph 0
	return s, nil
}

// use gives a glyph its number in the subset.
func (s *subset) use(glyph uint16) uint16 {
	n, ok := s.number[glyph]
	if !ok {
		n = uint16(len(s.glyphs))
		s.glyphs = append(s.glyphs, glyph)
		s.number[glyph] = n
	}
	return n
}

func (s *subset) index(r rune) uint16 {
	i, err := s.font.GlyphIndex(&s.buffer, r)
	if err != nil {
		return 0
	}
	return uint16(i)
}

// has tells whether the font can show r.
func (s *subset) has(r rune) bool { return s.index(r) != 0 }

// advance is the width of a glyph of the original font in ems.
func (s *subset) advance(glyph uint16) float64 {
	a, err := s.font.GlyphAdvance(&s.buffer, sfnt.GlyphIndex(glyph), s.em, font.HintingNone)
	if err != nil {
		return 0
	}
	return float64(a) / float64(s.em)
}

// width is the width of text in ems.
func (s *subset) width(text string) float64 {
	w := 0.0
	for _, r := range text {
		w += s.advance(s.index(r))
	}
	return w
}

// encode spells text as numbers of glyphs of the subset, two bytes each.
func (s *subset) encode(text string) ([]byte, error) {
	var b []byte
	for _, r := range text {
		glyph := s.index(r)
		if glyph == 0 {
			return nil, refuse("the font %s does not have the character U+%04X", s.name, r)
		}
		n := s.use(glyph)
		if _, ok := s.runes[n]; !ok {
			s.runes[n] = utf16.Encode([]rune{r})
		}
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return b, nil
}

// put embeds the subset as a composite font (ISO 32000-1, 9.7).
func (s *subset) put(u *pdf.Update) (pdf.Ref, error) {
	program := s.program()
	name := pdf.Name(s.tag() + "+" + s.name)
	file, unicodes, descriptor, descendant, top := u.Alloc(), u.Alloc(), u.Alloc(), u.Alloc(), u.Alloc()
	u.PutCompressed(file, pdf.D("Length1", len(program)), program)
	u.PutCompressed(unicodes, pdf.D(), s.toUnicode())
	d, err := s.descriptor(name, file)
	if err != nil {
		return pdf.Ref{}, err
	}
	u.Put(descriptor, d)
	u.Put(descendant, pdf.D(
		"Type", pdf.Name("Font"),
		"Subtype", pdf.Name("CIDFontType2"),
		"BaseFont", name,
		"CIDSystemInfo", pdf.D("Registry", pdf.TextString("Adobe"), "Ordering", pdf.TextString("Identity"), "Supplement", 0),
		"FontDescriptor", descriptor,
		"CIDToGIDMap", pdf.Name("Identity"),
		"W", pdf.Array{0, s.widths()},
	))
	u.Put(top, pdf.D(
		"Type", pdf.Name("Font"),
		"Subtype", pdf.Name("Type0"),
		"BaseFont", name,
		"Encoding", pdf.Name("Identity-H"),
		"DescendantFonts", pdf.Array{descendant},
		"ToUnicode", unicodes,
	))
	return top, nil
}

// tag makes the six letters that tell subsets of one font apart (9.6.4).
func (s *subset) tag() string {
	h := sha256.New()
	for _, g := range s.glyphs {
		h.Write([]byte{byte(g >> 8), byte(g)})
	}
	letters := h.Sum(nil)[:6]
	for i := range letters {
		letters[i] = 'A' + letters[i]%26
	}
	return string(letters)
}

func (s *subset) descriptor(name pdf.Name, file pdf.Ref) (*pdf.Dict, error) {
	m, err := s.font.Metrics(&s.buffer, s.em, font.HintingNone)
	if err != nil {
		return nil, fmt.Errorf("pades: font %s: %w", s.name, err)
	}
	box, err := s.font.Bounds(&s.buffer, s.em, font.HintingNone)
	if err != nil {
		return nil, fmt.Errorf("pades: font %s: %w", s.name, err)
	}
	milli := func(v fixed.Int26_6) int { return int(v) * 1000 / int(s.em) }
	return pdf.D(
		"Type", pdf.Name("FontDescriptor"),
		"FontName", name,
		"Flags", 4, // symbolic: glyphs are chosen by number
		// The y axis of the font package points down.
		"FontBBox", pdf.Array{milli(box.Min.X), -milli(box.Max.Y), milli(box.Max.X), -milli(box.Min.Y)},
		"ItalicAngle", 0,
		"Ascent", milli(m.Ascent),
		"Descent", -milli(m.Descent),
		"CapHeight", milli(m.CapHeight),
		"StemV", 80,
		"FontFile2", file,
	), nil
}

func (s *subset) widths() pdf.Array {
	w := make(pdf.Array, len(s.glyphs))
	for i, g := range s.glyphs {
		w[i] = s.advance(g) * 1000
	}
	return w
}

// toUnicode makes the CMap by which text can be searched and copied (9.10.3).
func (s *subset) toUnicode() []byte {
	b := []byte("/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n" +
		"/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n" +
		"/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n" +
		"1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n")
	// A section has 100 lines at most.
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(s.runes)), 100) {
		b = fmt.Appendf(b, "%d beginbfchar\n", len(chunk))
		for _, n := range chunk {
			b = fmt.Appendf(b, "<%04X> <", n)
			for _, u := range s.runes[n] {
				b = fmt.Appendf(b, "%04X", u)
			}
			b = append(b, ">\n"...)
		}
		b = append(b, "endbfchar\n"...)
	}
	return append(b, "endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"...)
}

// program writes the font file.
func (s *subset) program() []byte { return assemble(s.reduced()) }

// reduced makes the tables that ISO 32000-1, 9.9 asks for, with the glyphs of the subset only.
func (s *subset) reduced() map[string][]byte {
	glyf, loca := s.outlines()
	n := uint16(len(s.glyphs))
	head := slices.Clone(s.tables["head"])
	binary.BigEndian.PutUint32(head[8:], 0)  // checkSumAdjustment, set below
	binary.BigEndian.PutUint16(head[50:], 1) // indexToLocFormat: long
	hhea := slices.Clone(s.tables["hhea"])
	binary.BigEndian.PutUint16(hhea[34:], n) // numberOfHMetrics
	maxp := slices.Clone(s.tables["maxp"])
	binary.BigEndian.PutUint16(maxp[4:], n) // numGlyphs
	tables := map[string][]byte{
		"head": head, "hhea": hhea, "maxp": maxp, "hmtx": s.metrics(), "glyf": glyf, "loca": loca,
	}
	for _, hints := range []string{"cvt ", "fpgm", "prep"} {
		if t, ok := s.tables[hints]; ok {
			tables[hints] = t
		}
	}
	return tables
}

// outlines copies the glyphs, with the parts of composite ones renumbered; parts join the subset on the way.
func (s *subset) outlines() (glyf, loca []byte) {
	for i := 0; i < len(s.glyphs); i++ {
		loca = binary.BigEndian.AppendUint32(loca, uint32(len(glyf)))
		outline := slices.Clone(s.outline(s.glyphs[i]))
		if len(outline) > 0 && int16(binary.BigEndian.Uint16(outline)) < 0 {
			s.renumberParts(outline)
		}
		glyf = append(glyf, outline...)
		for len(glyf)%4 != 0 {
			glyf = append(glyf, 0)
		}
	}
	return glyf, binary.BigEndian.AppendUint32(loca, uint32(len(glyf)))
}

// outline returns a glyph's record in the original glyf table.
func (s *subset) outline(glyph uint16) []byte {
	loca, long := s.tables["loca"], binary.BigEndian.Uint16(s.tables["head"][50:]) == 1
	at := func(i int) int {
		if long {
			return int(binary.BigEndian.Uint32(loca[4*i:]))
		}
		return 2 * int(binary.BigEndian.Uint16(loca[2*i:]))
	}
	return s.tables["glyf"][at(int(glyph)):at(int(glyph)+1)]
}

// renumberParts changes the glyph numbers in a composite glyph (OpenType, glyf table).
func (s *subset) renumberParts(outline []byte) {
	const (
		argsAreWords = 1 << 0
		haveScale    = 1 << 3
		moreParts    = 1 << 5
		haveXYScale  = 1 << 6
		haveTwoByTwo = 1 << 7
	)
	for p := outline[10:]; ; {
		flags := binary.BigEndian.Uint16(p)
		binary.BigEndian.PutUint16(p[2:], s.use(binary.BigEndian.Uint16(p[2:])))
		size := 6
		if flags&argsAreWords != 0 {
			size += 2
		}
		switch {
		case flags&haveScale != 0:
			size += 2
		case flags&haveXYScale != 0:
			size += 4
		case flags&haveTwoByTwo != 0:
			size += 8
		}
		if flags&moreParts == 0 {
			return
		}
		p = p[size:]
	}
}

// metrics makes hmtx with one full record for each glyph. It must be called after outlines.
func (s *subset) metrics() []byte {
	hmtx := s.tables["hmtx"]
	full := int(binary.BigEndian.Uint16(s.tables["hhea"][34:]))
	var b []byte
	for _, g := range s.glyphs {
		if i := int(g); i < full {
			b = append(b, hmtx[4*i:4*i+4]...)
			continue
		}
		bearing := 4*full + 2*(int(g)-full)
		b = append(b, hmtx[4*(full-1):4*(full-1)+2]...)
		b = append(b, hmtx[bearing:bearing+2]...)
	}
	return b
}

// assemble writes a font file with its table directory and checksums (OpenType, font file).
func assemble(tables map[string][]byte) []byte {
	tags := slices.SortedFunc(maps.Keys(tables), cmp.Compare[string])
	power, exponent := 1, 0
	for power*2 <= len(tags) {
		power, exponent = power*2, exponent+1
	}
	b := binary.BigEndian.AppendUint32(nil, 0x00010000)
	for _, v := range []int{len(tags), 16 * power, exponent, 16 * (len(tags) - power)} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	offset, head := 12+16*len(tags), 0
	for _, tag := range tags {
		if tag == "head" {
			head = offset
		}
		b = append(b, tag...)
		for _, v := range []uint32{checksum(tables[tag]), uint32(offset), uint32(len(tables[tag]))} {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		offset += (len(tables[tag]) + 3) &^ 3
	}
	for _, tag := range tags {
		b = append(b, tables[tag]...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	binary.BigEndian.PutUint32(b[head+8:], 0xB1B0AFBA-checksum(b))
	return b
}

func checksum(b []byte) uint32 {
	var sum uint32
	for len(b) > 0 {
		var word [4]byte
		b = b[copy(word[:], b):]
		sum += binary.BigEndian.Uint32(word[:])
	}
	return sum
}
