package pades

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
)

const sealLink = "https://contracts.example/k7q2m5x4n6h3j8w9r2b5c7d4e6"

// logoOf is a half transparent red square.
func logoOf(t testing.TB, kind string) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, 40, 40))
	for i := range 1600 {
		m.Set(i%40, i/40, color.NRGBA{255, 0, 0, 128})
	}
	var b bytes.Buffer
	err := png.Encode(&b, m)
	if kind == "jpeg" {
		b.Reset()
		err = jpeg.Encode(&b, m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pixels draws the first page with poppler, at 144 dpi.
func pixels(t *testing.T, doc []byte) image.Image {
	t.Helper()
	out := filepath.Join(t.TempDir(), "page")
	run(t, "poppler-utils", "pdftoppm", "-png", "-r", "144", "-f", "1", "-l", "1", "-singlefile", writeFile(t, "in.pdf", doc), out)
	f, err := os.Open(out + ".png")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestASealShowsItsPictureAndItsCode(t *testing.T) {
	id := ecIdentity()
	o := options(id)
	o.Text, o.Rect, o.Link = sealText, [4]float64{20, 20, 320, 80}, sealLink
	for _, kind := range []string{"png", "jpeg"} {
		o.Picture = logoOf(t, kind)
		sealed := sign(t, sample("", ""), id, o)
		judge(t, sealed, 1)
		if bytes.Contains(sealed, []byte("/SMask")) {
			t.Error("the picture is transparent")
		}
		m := pixels(t, sealed)
		height := m.Bounds().Dy()
		at := func(x, y int) color.NRGBA { // in points, from the bottom
			return color.NRGBAModel.Convert(m.At(2*x, height-2*y)).(color.NRGBA)
		}
		// Half transparent red on white; JPEG has no transparency, and Go makes it black there.
		want := map[string]color.NRGBA{"png": {255, 127, 127, 255}, "jpeg": {127, 0, 0, 255}}[kind]
		if c := at(50, 50); abs(c.R, want.R) > 12 || abs(c.G, want.G) > 12 || abs(c.B, want.B) > 12 {
			t.Errorf("%s: the picture has the colour %v", kind, c)
		}
		black := 0
		for x := 265; x < 315; x++ {
			for y := 25; y < 75; y++ {
				if at(x, y).R < 60 {
					black++
				}
			}
		}
		if black < 400 || black > 1600 {
			t.Errorf("%d of 2500 points of the code are black", black)
		}
	}
}

func abs(a, b uint8) int { return max(int(a)-int(b), int(b)-int(a)) }

func TestWhatASealCannotShowIsRefused(t *testing.T) {
	id := ecIdentity()
	var huge bytes.Buffer
	if err := png.Encode(&huge, image.NewGray(image.Rect(0, 0, 2000, 1000))); err != nil {
		t.Fatal(err)
	}
	cut := logoOf(t, "png")
	for name, c := range map[string]struct {
		set  func(*Options)
		want string
	}{
		"no picture":             {func(o *Options) { o.Picture = []byte("<svg/>") }, "neither PNG nor JPEG"},
		"a picture that is cut":  {func(o *Options) { o.Picture = cut[:len(cut)-30] }, "damaged"},
		"a picture that is huge": {func(o *Options) { o.Picture = huge.Bytes() }, "2000 by 1000"},
		"a box without space":    {func(o *Options) { o.Link, o.Rect = sealLink, [4]float64{20, 20, 320, 45} }, "QR code"},
		"a link without end":     {func(o *Options) { o.Link = sealLink + strings.Repeat("x", 5000) }, "QR code"},
	} {
		o := options(id)
		o.Text, o.Rect = sealText, [4]float64{20, 20, 320, 80}
		c.set(&o)
		_, err := Prepare(context.Background(), document(sample("", "")), o)
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v, want one with %q", name, err, c.want)
		}
	}
}

func FuzzPicture(f *testing.F) {
	f.Add(logoOf(f, "png"))
	f.Add(logoOf(f, "jpeg"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hostile.Budget(t)
		if p, err := newPicture(data); err == nil && len(p.rgb) != 3*p.width*p.height {
			t.Errorf("%d by %d pixels in %d bytes", p.width, p.height, len(p.rgb))
		}
	})
}
