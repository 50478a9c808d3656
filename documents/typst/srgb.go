package typst

import (
	"encoding/binary"
	"math"
	"sync"
)

// srgbProfile is an ICC profile of the colour space sRGB (IEC 61966-2-1), made here: version 2 of the format, which every
// reader of PDF/A knows, as a matrix with one curve for the three colours.
var srgbProfile = sync.OnceValue(func() []byte {
	type tag struct {
		name string
		data []byte
	}
	curve := srgbCurve()
	tags := []tag{
		{"desc", iccDescription("sRGB IEC61966-2.1")},
		{"cprt", append([]byte("text\x00\x00\x00\x00"), "No copyright; use freely\x00"...)},
		{"wtpt", iccXYZ(0.9642, 1, 0.8249)}, // D50, to which the colours are adapted
		{"rXYZ", iccXYZ(0.43607, 0.22249, 0.01392)},
		{"gXYZ", iccXYZ(0.38515, 0.71687, 0.09708)},
		{"bXYZ", iccXYZ(0.14307, 0.06061, 0.71410)},
		{"rTRC", curve}, {"gTRC", curve}, {"bTRC", curve},
	}
	const header = 128
	table := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	var data []byte
	begin := header + 4 + 12*len(tags)
	shared := map[string]int{}
	for _, t := range tags {
		at, known := shared[string(t.data)]
		if !known {
			at = begin + len(data)
			shared[string(t.data)] = at
			data = append(data, t.data...)
			for len(data)%4 != 0 {
				data = append(data, 0)
			}
		}
		table = append(table, t.name...)
		table = binary.BigEndian.AppendUint32(table, uint32(at))
		table = binary.BigEndian.AppendUint32(table, uint32(len(t.data)))
	}
	h := make([]byte, header)
	binary.BigEndian.PutUint32(h[0:], uint32(begin+len(data)))
	binary.BigEndian.PutUint32(h[8:], 0x02400000) // version 2.4
	copy(h[12:], "mntrRGB XYZ ")                  // for displays, RGB, by way of XYZ
	for i, part := range []uint16{2026, 1, 1, 0, 0, 0} {
		binary.BigEndian.PutUint16(h[24+2*i:], part) // the date of the profile; always the same, as documents must be
	}
	copy(h[36:], "acsp")
	copy(h[68:], iccXYZ(0.9642, 1, 0.8249)[8:]) // the illuminant
	return append(append(h, table...), data...)
})

// srgbCurve is the transfer curve of sRGB in 1024 steps.
func srgbCurve() []byte {
	const steps = 1024
	b := binary.BigEndian.AppendUint32([]byte("curv\x00\x00\x00\x00"), steps)
	for i := range steps {
		x := float64(i) / (steps - 1)
		y := x / 12.92
		if x > 0.04045 {
			y = math.Pow((x+0.055)/1.055, 2.4)
		}
		b = binary.BigEndian.AppendUint16(b, uint16(math.Round(y*65535)))
	}
	return b
}

func iccXYZ(x, y, z float64) []byte {
	b := []byte("XYZ \x00\x00\x00\x00")
	for _, v := range []float64{x, y, z} {
		b = binary.BigEndian.AppendUint32(b, uint32(int32(math.Round(v*65536))))
	}
	return b
}

// iccDescription is a textDescriptionType with its ASCII part only.
func iccDescription(s string) []byte {
	b := binary.BigEndian.AppendUint32([]byte("desc\x00\x00\x00\x00"), uint32(len(s)+1))
	b = append(append(b, s...), 0)
	return append(b, make([]byte, 4+4+2+1+67)...) // no Unicode, no Macintosh text
}
