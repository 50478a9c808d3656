package typst

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/pdf"
)

// onePage is the smallest PDF with a page of 200 × 100 pt whose user space does not begin at zero.
func onePage() []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n")
	var offsets []int
	for i, body := range []string{
		"<</Type/Catalog/Pages 2 0 R/Metadata 4 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1/MediaBox[10 20 210 120]>>", "<</Type/Page/Parent 2 0 R/Resources<<>>>>",
		"<</Type/Metadata/Subtype/XML/Length 42>>\nstream\n<x:xmpmeta><rdf:RDF></rdf:RDF></x:xmpmeta>\n\nendstream",
	} {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, body)
	}
	start := b.Len()
	b.WriteString("xref\n0 5\n0000000000 65535 f \n")
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n", start)
	return b.Bytes()
}

func TestBoxesAreCountedFromThePagesOwnOrigin(t *testing.T) {
	said := []byte(`[{"name":"house","page":1,"left":10,"top":5,"width":100,"height":40}]`)
	_, boxes, err := complete(onePage(), said, request{Signers: []documents.Signer{{Name: "house", Role: documents.RoleSeal, Who: "Jörg"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := [4]float64{20, 75, 120, 115}; boxes[0].Rect != want {
		t.Errorf("box at %v, want %v", boxes[0].Rect, want)
	}
}

// FuzzBoxes feeds what a template may say about its boxes: whatever passes is a sound file with these fields.
func FuzzBoxes(f *testing.F) {
	f.Add([]byte(`[{"name":"house","page":1,"left":10,"top":5,"width":100,"height":40}]`))
	f.Add([]byte(`[{"name":"house","page":-1,"left":1e308,"top":-1e308,"width":1e308,"height":0}]`))
	f.Add([]byte(`[{"name":"house"},{"name":"house"}]`))
	f.Add([]byte(`["house",null]`))
	signers := []documents.Signer{{Name: "house", Role: documents.RoleSigner}}
	f.Fuzz(func(t *testing.T, said []byte) {
		hostile.Budget(t)
		file, boxes, err := complete(onePage(), said, request{Signers: signers}, []byte("{}"))
		if err != nil {
			var fault *TemplateError
			if !errors.As(err, &fault) {
				t.Errorf("not a fault of the template: %v", err)
			}
			return
		}
		read, err := pdf.Open(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		fields, err := read.Fields()
		if err != nil || len(fields) != 1 || len(boxes) != 1 {
			t.Errorf("%d fields, %d boxes (%v)", len(fields), len(boxes), err)
		}
	})
}
