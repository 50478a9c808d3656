package pades

import (
	"bytes"
	"image"
	"image/color"
	_ "image/jpeg" // the kinds of pictures that a seal may show
	_ "image/png"

	"github.com/dealseal/dealseal/pdf"
	"rsc.io/qr"
)

// maxPicture bounds a picture in pixels: it is written into every document.
const maxPicture = 1 << 20

// picture is a logo without transparency, which PDF/A-1 and printers do not take, in the colours of the document.
type picture struct {
	width, height int
	rgb           []byte
}

// CheckPicture says whether a PNG or JPEG can be shown in a seal.
func CheckPicture(data []byte) error {
	_, err := newPicture(data)
	return err
}

func newPicture(data []byte) (*picture, error) {
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, refuse("the picture of the seal is neither PNG nor JPEG: %v", err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > maxPicture/c.Height {
		return nil, refuse("the picture of the seal has %d by %d pixels; at most a million are allowed: make it smaller", c.Width, c.Height)
	}
	decoded, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, refuse("the picture of the seal is damaged: %v", err)
	}
	p := &picture{width: c.Width, height: c.Height, rgb: make([]byte, 0, 3*c.Width*c.Height)}
	bounds := decoded.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := color.NRGBAModel.Convert(decoded.At(x, y)).(color.NRGBA)
			for _, v := range []uint8{c.R, c.G, c.B} { // on white
				p.rgb = append(p.rgb, uint8((uint(v)*uint(c.A)+255*(255-uint(c.A)))/255))
			}
		}
	}
	return p, nil
}

// put writes the picture as an image.
func (p *picture) put(u *pdf.Update) pdf.Ref {
	ref := u.Alloc()
	u.PutCompressed(ref, pdf.D("Type", pdf.Name("XObject"), "Subtype", pdf.Name("Image"), "Width", p.width, "Height", p.height,
		"ColorSpace", pdf.Name("DeviceRGB"), "BitsPerComponent", 8), p.rgb)
	return ref
}

// quietZone is the free space around a QR code, in modules (ISO/IEC 18004, 9.1), and leastModule how many points a module
// has at least, so that a telephone reads it from paper.
const (
	quietZone   = 4
	leastModule = 0.8
)

// newCode makes the QR code of a link.
func newCode(link string) (*qr.Code, error) {
	code, err := qr.Encode(link, qr.M)
	if err != nil {
		return nil, refuse("the link of the seal makes no QR code: %v", err)
	}
	return code, nil
}
