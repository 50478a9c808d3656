package verify

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/pdf"
)

// The budget of one packet of metadata. What is larger is compared byte by byte.
const (
	maxMetadata      = 1 << 20
	maxMetadataDepth = 64
)

// written are the properties that say when and with what a file was last written. Whoever adds a signature may set them.
var written = map[xml.Name]bool{
	{Space: "http://ns.adobe.com/xap/1.0/", Local: "ModifyDate"}:    true,
	{Space: "http://ns.adobe.com/xap/1.0/", Local: "MetadataDate"}:  true,
	{Space: "http://ns.adobe.com/pdf/1.3/", Local: "Producer"}:      true,
	{Space: "http://ns.adobe.com/xap/1.0/mm/", Local: "InstanceID"}: true,
	{Space: "adobe:ns:meta/", Local: "xmptk"}:                       true,
}

// metadata compares the packets of the document (XMP, ISO 16684-1) by what they say.
func (d *differ) metadata(old, now *pdf.Stream) error {
	a, err := d.packet(d.old, old)
	if err != nil {
		return err
	}
	b, err := d.packet(d.now, now)
	if err != nil {
		return err
	}
	if a == nil || b == nil || !slices.Equal(a, b) {
		return d.streams(old, now, elsewhere, "Metadata")
	}
	return nil
}

// packet reads what a stream says; nil when it says nothing that is understood.
func (d *differ) packet(f *pdf.File, s *pdf.Stream) ([]property, error) {
	data, err := f.StreamData(s)
	var damaged *pdf.SyntaxError
	if errors.As(err, &damaged) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readPacket(data), nil
}

// property is one thing that metadata say. An attribute says the same as an element of its name.
type property struct{ path, value string }

// readPacket lists what a packet says, but for when and with what it was written, in an order that does not depend on how it is spelled; nil when it is
// no XML.
func readPacket(data []byte) []property {
	if len(data) > maxMetadata {
		return nil
	}
	list := []property{}
	var path []string
	silent := 0 // how many of path are in a property that does not count
	in := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := in.Token()
		switch {
		case errors.Is(err, io.EOF):
			slices.SortStableFunc(list, func(a, b property) int { return cmp.Compare(a.path, b.path) })
			return list
		case err != nil:
			return nil
		}
		say := func(name, value string) {
			if value = strings.TrimSpace(value); value != "" && silent == 0 {
				list = append(list, property{name, value})
			}
		}
		switch t := token.(type) {
		case xml.StartElement:
			if len(path) == maxMetadataDepth {
				return nil
			}
			path = append(path, t.Name.Space+" "+t.Name.Local)
			if silent > 0 || written[t.Name] {
				silent++
			}
			for _, a := range t.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" && !written[a.Name] {
					say(strings.Join(path, "/")+"/"+a.Name.Space+" "+a.Name.Local, a.Value)
				}
			}
		case xml.EndElement:
			path = path[:len(path)-1]
			silent = max(silent-1, 0)
		case xml.CharData:
			say(strings.Join(path, "/"), string(t))
		}
	}
}
