package typst

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/pdf"
)

// attachment reads the one file that is attached to a document; nil if there is none.
func attachment(t *testing.T, file []byte) []byte {
	t.Helper()
	f, err := pdf.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	_, catalog, err := f.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	files, err := f.ResolveArray(catalog.Get("AF"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		return nil
	}
	spec, err := f.ResolveDict(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if spec.Get("AFRelationship") != pdf.Name("Data") || pdf.Text(spec.Get("UF")) != RecordFile {
		t.Errorf("the file is %v", spec)
	}
	streams, err := f.ResolveDict(spec.Get("EF"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.Resolve(streams.Get("F"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := f.StreamData(v.(*pdf.Stream))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestADocumentSaysForMachinesWhereItComesFrom(t *testing.T) {
	b, err := documents.Load(filepath.Join(templates, "order-form"))
	if err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile(filepath.Join(templates, "order-form", b.Samples()[0]))
	if err != nil {
		t.Fatal(err)
	}
	out, err := common(t).Render(t.Context(), b, record)
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Prepare(record)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(p.Record)
	for _, want := range []string{
		"<pdfaid:part>3</pdfaid:part>", "<dealseal:transactionID>" + p.Tx + "<", "<dealseal:templateSHA256>" + b.Hash() + "<",
		"<dealseal:recordSHA256>" + hex.EncodeToString(sum[:]) + "<", "<dealseal:template>order-form@1<", "/GTS_PDFA1",
	} {
		if !bytes.Contains(out.PDF, []byte(want)) {
			t.Errorf("%s is missing", want)
		}
	}
	if p.Tx == "" {
		t.Error("the sample names no transaction")
	}
	var attached struct {
		Customer struct{ Name string }
		Total    struct{ Value, Currency string }
	}
	if err := json.Unmarshal(attachment(t, out.PDF), &attached); err != nil {
		t.Fatal(err)
	}
	if attached.Customer.Name == "" || attached.Total.Value == "" || attached.Total.Currency == "" {
		t.Errorf("attached: %+v", attached)
	}
}

func TestWhatTheTemplateDoesNotUseIsNotAttached(t *testing.T) {
	const contract = "#import \"/dealseal.typ\": *\n#record.customer.name"
	record := []byte(`{"customer": {"name": "Acme", "margin": "4711"}, "secret": "4712"}`)
	b := bundle(t, contract)
	out, err := common(t).Render(t.Context(), b, record)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(attachment(t, out.PDF)); got != `{"customer":{"name":"Acme"}}` {
		t.Errorf("attached: %s", got)
	}
	off := bundle(t, contract+" ")
	no := false
	off.AttachRecord = &no
	if out, err = common(t).Render(t.Context(), off, record); err != nil {
		t.Fatal(err)
	}
	if got := attachment(t, out.PDF); got != nil {
		t.Errorf("attached although switched off: %s", got)
	}
	if !bytes.Contains(out.PDF, []byte("<pdfaid:part>3")) {
		t.Error("a document without the record is no PDF/A")
	}
}

func TestTheTemplateCannotReadWhatIsAttached(t *testing.T) {
	b := bundle(t, `#read("/dealseal-attached.json")`)
	if _, err := common(t).Render(t.Context(), b, []byte("{}")); err == nil || !strings.Contains(err.Error(), "failed to load file") {
		t.Errorf("error = %v", err)
	}
}
