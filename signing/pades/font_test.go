package pades

import (
	"testing"

	"github.com/go-fonts/liberation/liberationsansregular"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/image/font/sfnt"
)

func TestSubsetDrawsTheSameGlyphs(t *testing.T) {
	const text = "Aż ő Ǻ fi Ω Ж ½"
	s, err := newSubset("LiberationSans", liberationsansregular.TTF)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.encode(text); err != nil {
		t.Fatal(err)
	}
	tables := s.reduced()
	if len(tables["glyf"]) > len(s.tables["glyf"])/20 {
		t.Errorf("the subset has %d bytes of outlines", len(tables["glyf"]))
	}
	// The reader of fonts wants tables that PDF does not.
	for _, tag := range []string{"cmap", "name", "post", "OS/2"} {
		tables[tag] = s.tables[tag]
	}
	reduced, err := sfnt.Parse(assemble(tables))
	if err != nil {
		t.Fatal(err)
	}
	var buffer sfnt.Buffer
	for _, r := range text {
		glyph := s.index(r)
		want, err := s.font.LoadGlyph(&s.buffer, sfnt.GlyphIndex(glyph), s.em, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := reduced.LoadGlyph(&buffer, sfnt.GlyphIndex(s.number[glyph]), s.em, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%c is drawn differently: %s", r, diff)
		}
		w1 := s.advance(glyph)
		w2, err := reduced.GlyphAdvance(&buffer, sfnt.GlyphIndex(s.number[glyph]), s.em, 0)
		if err != nil || w1 != float64(w2)/float64(s.em) {
			t.Errorf("%c is %f ems wide, want %f: %v", r, float64(w2)/float64(s.em), w1, err)
		}
	}
}
