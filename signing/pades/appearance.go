package pades

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/dealseal/dealseal/pdf"
	"github.com/go-fonts/liberation/liberationsansbold"
	"github.com/go-fonts/liberation/liberationsansregular"
	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
	"rsc.io/qr"
)

// The look of the seal, in points. Only gray is used: it is allowed in PDF/A whatever the output intent is.
const (
	largestText  = 9.0
	smallestText = 4.0
	textStep     = 0.25
	headline     = 1.15 // size of the first line, as a multiple of the others'
	leading      = 1.28 // from baseline to baseline, as a multiple of the size
	headlineGap  = 0.3  // more space below the headline, as a multiple of the others' size
	barWidth     = 2.5  // at the left edge
)

// seal draws text into a box.
type seal struct {
	width, height float64
	bold, regular *subset
	lines         []sealLine
	size          float64

	picture     *picture
	code        *qr.Code
	left, right float64 // what they take of the width
}

type sealLine struct {
	text string
	bold bool
}

// draw gives the widget an appearance with the text in the box, upright for the reader of a rotated page.
func (b *builder) draw(widget, page *pdf.Dict, rect [4]float64) error {
	rotate, err := b.file.Inherited(page, "Rotate")
	if err != nil {
		return err
	}
	turn, _ := pdf.Int(rotate)
	turn = (turn%360 + 360) % 360
	width, height := rect[2]-rect[0], rect[3]-rect[1]
	if turn == 90 || turn == 270 {
		width, height = height, width
	}
	s, err := newSeal(b.o, width, height)
	if err != nil {
		return err
	}
	content, err := s.content()
	if err != nil {
		return err
	}
	fonts, err := s.fonts(b.update)
	if err != nil {
		return err
	}
	form := pdf.D(
		"Type", pdf.Name("XObject"),
		"Subtype", pdf.Name("Form"),
		"BBox", pdf.Array{0, 0, width, height},
		"Resources", pdf.D("Font", fonts),
	)
	if s.picture != nil {
		form.Set("Resources", pdf.D("Font", fonts, "XObject", pdf.D("P", s.picture.put(b.update))))
	}
	// The viewer turns the page clockwise, so the appearance is turned the other way; where it lands is settled by
	// fitting it into /Rect (12.5.5, algorithm 8.1). /MK would say it once more to viewers that draw fields anew, and be a
	// change that no signature allows of a field that was there when the document was signed before.
	if turn != 0 {
		matrices := map[int64]pdf.Array{90: {0, 1, -1, 0, 0, 0}, 180: {-1, 0, 0, -1, 0, 0}, 270: {0, -1, 1, 0, 0, 0}}
		if matrices[turn] == nil {
			return refuse("the page is rotated by %d degrees, which is no multiple of 90", turn)
		}
		form.Set("Matrix", matrices[turn])
	}
	ref := b.update.Alloc()
	b.update.PutCompressed(ref, form, content)
	widget.Set("AP", pdf.D("N", ref))
	return nil
}

// fonts embeds the fonts that the content uses.
func (s *seal) fonts(u *pdf.Update) (*pdf.Dict, error) {
	d := new(pdf.Dict)
	for _, line := range s.lines {
		name := s.fontName(line)
		if d.Has(name) {
			continue
		}
		ref, err := s.font(line).put(u)
		if err != nil {
			return nil, err
		}
		d.Set(name, ref)
	}
	return d, nil
}

// fontName is the name of a line's font in the resources.
func (s *seal) fontName(line sealLine) pdf.Name {
	if line.bold {
		return "B"
	}
	return "R"
}

// newSeal finds the largest text size at which everything fits.
func newSeal(o Options, width, height float64) (*seal, error) {
	s := &seal{width: width, height: height}
	err := s.beside(o)
	if err != nil {
		return nil, err
	}
	if s.bold, err = newSubset("LiberationSans-Bold", liberationsansbold.TTF); err != nil {
		return nil, err
	}
	if s.regular, err = newSubset("LiberationSans", liberationsansregular.TTF); err != nil {
		return nil, err
	}
	lines, err := s.paragraphs(o.Text)
	if err != nil {
		return nil, err
	}
	for size := largestText; size >= smallestText; size -= textStep {
		if s.fit(lines, size) {
			return s, nil
		}
	}
	return nil, refuse("the text of the seal does not fit its box of %.0f by %.0f points, even at %.0f points; make the box larger or the text shorter", width, height, smallestText)
}

// beside makes what stands left and right of the text.
func (s *seal) beside(o Options) (err error) {
	side := s.height - 2*s.padding()
	if len(o.Picture) > 0 {
		if s.picture, err = newPicture(o.Picture); err != nil {
			return err
		}
		s.left, _ = s.pictureSize()
		s.left += s.padding()
	}
	if o.Link == "" {
		return nil
	}
	if s.code, err = newCode(o.Link); err != nil {
		return err
	}
	modules := float64(s.code.Size + 2*quietZone)
	if side /= modules; side < leastModule {
		return refuse("the QR code of the seal needs a box that is %.0f points high, and there are %.0f; make the box larger or the link shorter",
			modules*leastModule+2*s.padding(), s.height)
	}
	s.right = side * modules
	return nil
}

// pictureShare is how much of the width a picture may take.
const pictureShare = 0.3

// pictureSize fits the picture into its part of the box.
func (s *seal) pictureSize() (width, height float64) {
	scale := min((s.height-2*s.padding())/float64(s.picture.height), pictureShare*s.width/float64(s.picture.width))
	return scale * float64(s.picture.width), scale * float64(s.picture.height)
}

// paragraphs splits the text into lines, and refuses what would not be shown as it is written.
func (s *seal) paragraphs(text []string) ([]sealLine, error) {
	var lines []sealLine
	for _, t := range text {
		for part := range strings.Lines(norm.NFC.String(t)) {
			part = strings.Join(strings.Fields(part), " ")
			if part == "" {
				continue
			}
			line := sealLine{text: part, bold: len(lines) == 0}
			if err := s.check(line); err != nil {
				return nil, err
			}
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, refuse("the text of the seal is blank")
	}
	return lines, nil
}

func (s *seal) check(line sealLine) error {
	for _, r := range line.text {
		properties, _ := bidi.LookupRune(r)
		switch class := properties.Class(); {
		case unicode.Is(unicode.C, r):
			return refuse("the text of the seal has the character U+%04X, which is not shown", r)
		case class == bidi.R || class == bidi.AL:
			return refuse("the text of the seal has the character U+%04X of a script written from right to left, which is not supported", r)
		case !s.font(line).has(r):
			return refuse("the text of the seal has the character U+%04X, which the seal's font does not have", r)
		}
	}
	return nil
}

func (s *seal) font(line sealLine) *subset {
	if line.bold {
		return s.bold
	}
	return s.regular
}

func lineSize(line sealLine, size float64) float64 {
	if line.bold {
		return size * headline
	}
	return size
}

// gap is the space below the headline, where something follows it.
func gap(lines []sealLine, size float64) float64 {
	if lines[len(lines)-1].bold {
		return 0
	}
	return size * headlineGap
}

// padding is what stays free at each edge.
func (s *seal) padding() float64 { return min(6, 0.1*s.height, 0.05*s.width) }

// textLeft is where lines begin: behind the bar.
func (s *seal) textLeft() float64 { return barWidth + s.padding() + 1 + s.left }

// fit wraps the lines at the given size and keeps them when they fit.
func (s *seal) fit(lines []sealLine, size float64) bool {
	available := s.width - s.textLeft() - s.padding() - s.right
	var wrapped []sealLine
	height := gap(lines, size)
	for _, l := range lines {
		parts, ok := s.wrap(l, lineSize(l, size), available)
		if !ok {
			return false
		}
		wrapped = append(wrapped, parts...)
		height += float64(len(parts)) * lineSize(l, size) * leading
	}
	if height > s.height-2*s.padding() {
		return false
	}
	s.lines, s.size = wrapped, size
	return true
}

// wrap breaks a line at its spaces; a single word that is too long does not fit.
func (s *seal) wrap(line sealLine, size, available float64) ([]sealLine, bool) {
	var parts []sealLine
	current := ""
	for word := range strings.FieldsSeq(line.text) {
		longer := strings.TrimSpace(current + " " + word)
		switch {
		case s.font(line).width(longer)*size <= available:
			current = longer
		case current == "" || s.font(line).width(word)*size > available:
			return nil, false
		default:
			parts = append(parts, sealLine{current, line.bold})
			current = word
		}
	}
	return append(parts, sealLine{current, line.bold}), true
}

// content draws the border, the bar and the lines, which are centred in the height of the box.
func (s *seal) content() ([]byte, error) {
	var b []byte
	b = fmt.Appendf(b, "q\n1 g 0 0 %[1]s %[2]s re f\n0.55 G 0.5 w 0.25 0.25 %[3]s %[4]s re S\n0.25 g 0 0 %[5]s %[2]s re f\n",
		num(s.width), num(s.height), num(s.width-0.5), num(s.height-0.5), num(barWidth))
	b = s.drawBeside(b)
	total := gap(s.lines, s.size)
	for _, l := range s.lines {
		total += lineSize(l, s.size) * leading
	}
	y := s.height - (s.height-total)/2
	b = append(b, "BT\n"...)
	for i, l := range s.lines {
		size := lineSize(l, s.size)
		if i > 0 && s.lines[i-1].bold && !l.bold {
			y -= gap(s.lines, s.size)
		}
		// The letters stand a little above the middle of their line, as descenders are rarer than ascenders.
		baseline := y - size*leading/2 - size*0.34
		y -= size * leading
		gray := 0.25
		if l.bold {
			gray = 0
		}
		codes, err := s.font(l).encode(l.text)
		if err != nil {
			return nil, err
		}
		b = fmt.Appendf(b, "/%s %s Tf %.2f g 1 0 0 1 %s %s Tm <%x> Tj\n", s.fontName(l), num(size), gray, num(s.textLeft()), num(baseline), codes)
	}
	return append(b, "ET\nQ\n"...), nil
}

// drawBeside draws the picture and the code. The code is made of bars, a module high, so that it is sharp at any size.
func (s *seal) drawBeside(b []byte) []byte {
	if s.picture != nil {
		width, height := s.pictureSize()
		b = fmt.Appendf(b, "q %s 0 0 %s %s %s cm /P Do Q\n", num(width), num(height), num(barWidth+s.padding()+1), num((s.height-height)/2))
	}
	if s.code == nil {
		return b
	}
	module := s.right / float64(s.code.Size+2*quietZone)
	left, top := s.width-s.padding()-s.right+quietZone*module, (s.height+s.right)/2-quietZone*module
	b = append(b, "0 g\n"...)
	for y := range s.code.Size {
		for x := 0; x < s.code.Size; x++ {
			run := 0
			for x+run < s.code.Size && s.code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				b = fmt.Appendf(b, "%s %s %s %s re\n", num(left+float64(x)*module), num(top-float64(y+1)*module), num(float64(run)*module), num(module))
				x += run
			}
		}
	}
	return append(b, "f\n"...)
}

// num spells a number for a content stream, without an exponent.
func num(x float64) string { return fmt.Sprintf("%.3f", x) }
