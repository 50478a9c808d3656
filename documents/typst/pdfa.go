package typst

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/dealseal/dealseal/pdf"
)

// RecordFile is the name under which the record that a document was made of is attached to it.
const RecordFile = "record.json"

// origin is what a document says for machines about where it comes from.
type origin struct {
	Tx       string // the transaction
	Template string // name and version of the bundle
	Bundle   string // hashes, hexadecimal SHA-256
	Record   string
	Renderer string
}

// marks makes PDF/A-3b of a document (ISO 19005-3): its colours are those of sRGB, its metadata says so and where it comes
// from, and the record that it was made of is attached. What Typst writes has all the rest: embedded fonts, no encryption,
// no scripts.
type marks struct {
	file    *pdf.File
	update  *pdf.Update
	catalog *pdf.Dict // changed
}

func (m *marks) put(o origin, record []byte, at time.Time) error {
	m.colours()
	if err := m.describe(o); err != nil {
		return err
	}
	if record == nil {
		return nil
	}
	return m.attach(record, at)
}

// colours says what the RGB of the pages means (6.2.3).
func (m *marks) colours() {
	profile := m.update.Alloc()
	m.update.PutCompressed(profile, pdf.D("N", 3), srgbProfile())
	m.catalog.Set("OutputIntents", pdf.Array{pdf.D(
		"Type", pdf.Name("OutputIntent"),
		"S", pdf.Name("GTS_PDFA1"),
		"OutputConditionIdentifier", pdf.TextString("sRGB IEC61966-2.1"),
		"Info", pdf.TextString("sRGB IEC61966-2.1"),
		"RegistryName", pdf.TextString("http://www.color.org"),
		"DestOutputProfile", profile,
	)})
}

// Namespace is that of our own metadata. It is a name, not an address of anything.
const Namespace = "https://dealseal.example/ns/document/1.0/"

const rdfEnd = "</rdf:RDF>"

// describe puts our part into the metadata that Typst wrote (6.6).
func (m *marks) describe(o origin) error {
	ref, ok := m.catalog.Get("Metadata").(pdf.Ref)
	if !ok {
		return fmt.Errorf("the rendered document has no metadata")
	}
	v, err := m.file.Resolve(ref)
	if err != nil {
		return err
	}
	stream, ok := v.(*pdf.Stream)
	if !ok {
		return fmt.Errorf("the metadata of the rendered document is no stream")
	}
	xmp, err := m.file.StreamData(stream)
	if err != nil {
		return err
	}
	before, after, ok := bytes.Cut(xmp, []byte(rdfEnd))
	if !ok {
		return fmt.Errorf("the metadata of the rendered document has no %s", rdfEnd)
	}
	changed := append(bytes.Clone(before), o.rdf()...)
	changed = append(append(changed, rdfEnd...), after...)
	// It must not be compressed, so that it is found by those who know nothing of PDF (6.6.2.1 wants it plain for PDF/A-1;
	// nobody wants it otherwise).
	m.update.PutStream(ref, pdf.D("Type", pdf.Name("Metadata"), "Subtype", pdf.Name("XML")), changed)
	return nil
}

// ownProperty is one of our own, with what it means.
type ownProperty struct{ name, value, meaning string }

func (o origin) properties() []ownProperty {
	all := []ownProperty{
		{"transactionID", o.Tx, "ID of the transaction that the document was made for"},
		{"template", o.Template, "Name and version of the template"},
		{"templateSHA256", o.Bundle, "SHA-256 of the template with all its files, hexadecimal"},
		{"recordSHA256", o.Record, "SHA-256 of the record that was merged, hexadecimal"},
		{"rendererSHA256", o.Renderer, "SHA-256 that names the renderer and its fonts, hexadecimal"},
	}
	if o.Tx == "" {
		return all[1:]
	}
	return all
}

// rdf are the descriptions that make the document PDF/A-3b, say where it comes from, and what those words mean (6.6.2.3.3).
func (o origin) rdf() string {
	var b strings.Builder
	b.WriteString(`<rdf:Description rdf:about="" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/"><pdfaid:part>3</pdfaid:part><pdfaid:conformance>B</pdfaid:conformance></rdf:Description>`)
	fmt.Fprintf(&b, `<rdf:Description rdf:about="" xmlns:dealseal="%s">`, Namespace)
	for _, p := range o.properties() {
		fmt.Fprintf(&b, "<dealseal:%s>%s</dealseal:%[1]s>", p.name, xmlText(p.value))
	}
	b.WriteString(`</rdf:Description><rdf:Description rdf:about="" xmlns:pdfaExtension="http://www.aiim.org/pdfa/ns/extension/" ` +
		`xmlns:pdfaSchema="http://www.aiim.org/pdfa/ns/schema#" xmlns:pdfaProperty="http://www.aiim.org/pdfa/ns/property#">` +
		`<pdfaExtension:schemas><rdf:Bag><rdf:li rdf:parseType="Resource"><pdfaSchema:schema>Origin of a document made by dealseal</pdfaSchema:schema>` +
		`<pdfaSchema:namespaceURI>` + Namespace + `</pdfaSchema:namespaceURI><pdfaSchema:prefix>dealseal</pdfaSchema:prefix><pdfaSchema:property><rdf:Seq>`)
	for _, p := range o.properties() {
		fmt.Fprintf(&b, `<rdf:li rdf:parseType="Resource"><pdfaProperty:name>%s</pdfaProperty:name><pdfaProperty:valueType>Text</pdfaProperty:valueType>`+
			`<pdfaProperty:category>external</pdfaProperty:category><pdfaProperty:description>%s</pdfaProperty:description></rdf:li>`, p.name, p.meaning)
	}
	b.WriteString(`</rdf:Seq></pdfaSchema:property></rdf:li></rdf:Bag></pdfaExtension:schemas></rdf:Description>`)
	return b.String()
}

var xmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;")

func xmlText(s string) string { return xmlEscapes.Replace(s) }

// attach puts the record into the document as a file, as data that what is printed was derived from (6.8).
func (m *marks) attach(record []byte, at time.Time) error {
	names, err := m.file.ResolveDict(m.catalog.Get("Names"))
	if err != nil {
		return err
	}
	if names.Has("EmbeddedFiles") || m.catalog.Has("AF") {
		return boxFault("the template attaches files of its own: set attach_record to false in template.yaml, or leave them out")
	}
	stream, file := m.update.Alloc(), m.update.Alloc()
	m.update.PutCompressed(stream, pdf.D(
		"Type", pdf.Name("EmbeddedFile"),
		"Subtype", pdf.Name("application/json"),
		"Params", pdf.D("ModDate", pdf.Date(at), "Size", len(record)),
	), record)
	m.update.Put(file, pdf.D(
		"Type", pdf.Name("Filespec"),
		"F", pdf.TextString(RecordFile),
		"UF", pdf.TextString(RecordFile),
		"Desc", pdf.TextString("The data that this document was made of"),
		"AFRelationship", pdf.Name("Data"),
		"EF", pdf.D("F", stream, "UF", stream),
	))
	names = names.Clone()
	names.Set("EmbeddedFiles", pdf.D("Names", pdf.Array{pdf.TextString(RecordFile), file}))
	m.catalog.Set("Names", names)
	m.catalog.Set("AF", pdf.Array{file})
	return nil
}
