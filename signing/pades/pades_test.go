package pades

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/pdf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sample writes a document with a form by hand: two pages, the second one rotated; a text field, and two empty
// signature fields: "party.house" with a box on page 1, and "party.other" without. extra goes into
// the form dictionary, field into party.house.
func sample(extra, field string) []byte {
	var b bytes.Buffer
	var offsets []int
	b.WriteString("%PDF-1.7\n%\xE2\xE3\xCF\xD3\n")
	for i, body := range []string{
		"<< /Type /Catalog /Pages 2 0 R /AcroForm 6 0 R /Lang (en) >>",
		"<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 /MediaBox [0 0 595 842] >>",
		"<< /Type /Page /Parent 2 0 R /Contents 5 0 R /Resources << /Font << /F 9 0 R >> >> /Annots 14 0 R >>",
		"<< /Type /Page /Parent 2 0 R /Resources << >> /Rotate 90 >>",
		"<< /Length 44 >>\nstream\nBT /F 18 Tf 72 760 Td (A short contract) Tj ET\nendstream",
		"<< /Fields [7 0 R 10 0 R] /DA (/Helv 10 Tf 0 g) /DR << /Font << /Helv 9 0 R >> >> " + extra + " >>",
		"<< /Type /Annot /Subtype /Widget /FT /Tx /T (customer) /V (Acme \\(UK\\)) /DA (/Helv 10 Tf 0 g) /F 4 /P 3 0 R /Rect [72 700 272 720] /AP << /N 11 0 R >> >>",
		"<< /Type /Annot /Subtype /Widget /Parent 10 0 R /T (house) /FT /Sig /F 4 /P 3 0 R /Rect [72 100 292 170] " + field + " >>",
		"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
		"<< /T (party) /Kids [8 0 R 13 0 R] >>",
		"<< /Type /XObject /Subtype /Form /BBox [0 0 200 20] /Resources << /Font << /Helv 9 0 R >> >> /Length 50 >>\nstream\n/Tx BMC BT /Helv 10 Tf 2 6 Td (Acme UK) Tj ET EMC \nendstream",
		"<< /Title (A short contract) /Producer (by hand) >>",
		"<< /Type /Annot /Subtype /Widget /Parent 10 0 R /T (other) /FT /Sig /F 4 /P 3 0 R /Rect [0 0 0 0] >>",
		"[7 0 R 8 0 R 13 0 R]",
	} {
		offsets = append(offsets, b.Len())
		if before, data, ok := strings.Cut(body, "stream\n"); ok { // set the right length
			data = strings.TrimSuffix(data, "\nendstream")
			dict, _, _ := strings.Cut(before, "/Length")
			body = fmt.Sprintf("%s/Length %d >>\nstream\n%s\nendstream", dict, len(data), data)
		}
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, body)
	}
	at := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R /Info 12 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, at)
	return b.Bytes()
}

var sealText = []string{"Sealed by Acme Søn & Żółć Ltd", "4 March 2026, 05:06:07 +02:00", "Contract for opportunity 006"}

func TestSealIsValidForOthersWithEveryAlgorithm(t *testing.T) {
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		for name, c := range map[string]struct {
			id  identity
			pss bool
		}{
			"RSA":     {rsaIdentity(), false},
			"RSA-PSS": {rsaIdentity(), true},
			"P-256":   {ecIdentity(), false},
			"P-384":   {newIdentity(ecKey(elliptic.P384())), false},
			"P-521":   {newIdentity(ecKey(elliptic.P521())), false},
		} {
			t.Run(fmt.Sprint(name, " ", h), func(t *testing.T) {
				t.Parallel()
				o := options(c.id)
				o.Hash, o.PSS = h, c.pss
				judge(t, sign(t, sample("", ""), c.id, o), 1)
			})
		}
	}
}

func TestSealIsValidForOthersOnEveryKindOfFile(t *testing.T) {
	plain := sample("", "")
	for name, b := range map[string][]byte{
		"table":              plain,
		"object streams":     qpdfWith(t, plain, "--object-streams=generate"),
		"linearized":         qpdfWith(t, plain, "--linearize"),
		"linearized streams": qpdfWith(t, plain, "--linearize", "--object-streams=generate"),
		"PDF 2.0":            qpdfWith(t, plain, "--force-version=2.0"),
		"no line end":        bytes.TrimRight(plain, "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := ecIdentity()
			o := options(id)
			o.Field, o.Text = "party.house", sealText
			once := sign(t, b, id, o)
			judge(t, once, 1)
			o.Field, o.Page, o.Rect = "second", 2, [4]float64{300, 60, 500, 120}
			twice := signAnew(t, once, o)
			o.Field, o.Rect, o.Text = "", [4]float64{}, nil
			judge(t, signAnew(t, twice, o), 3)
			if !bytes.HasPrefix(once, b) || !bytes.HasPrefix(twice, once) {
				t.Error("a byte of the original was touched")
			}
		})
	}
}

// signAnew signs with a new identity: pdfsig 22.12 trusts a certificate only once in a file (it tears its certificate
// library down after each signature, and does not get it up again for certificates that it has seen).
func signAnew(t *testing.T, doc []byte, o Options) []byte {
	t.Helper()
	id := newIdentity(ecKey(elliptic.P256()))
	o.Chain = id.chain
	return sign(t, doc, id, o)
}

func TestSealIsValidForOthersOnPDFsOfDebianPackages(t *testing.T) {
	files := debianPDFs(t)
	if len(files) == 0 {
		t.Skip("NOT TESTED: no PDF under /usr/share; install packages that bring some, such as bzip2-doc and valgrind")
	}
	for path, b := range files {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			id := ecIdentity()
			o := options(id)
			o.Text, o.Rect = sealText, [4]float64{60, 20, 260, 80}
			once := sign(t, b, id, o)
			o.Text, o.Rect = nil, [4]float64{}
			judge(t, signAnew(t, once, o), 2)
		})
	}
}

// debianPDFs reads up to eight PDFs of installed packages.
func debianPDFs(t *testing.T) map[string][]byte {
	files := make(map[string][]byte)
	err := filepath.WalkDir("/usr/share", func(path string, e fs.DirEntry, err error) error {
		name := strings.TrimSuffix(path, ".gz")
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".pdf") || len(files) == 8 {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if name != path {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				return err
			}
			if b, err = io.ReadAll(z); err != nil {
				return err
			}
		}
		files[filepath.Base(name)] = b
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTimestampIsEmbedded(t *testing.T) {
	doc, id := sample("", ""), rsaIdentity()
	o := options(id)
	o.Level = BT
	p, err := Prepare(context.Background(), document(doc), o)
	if err != nil {
		t.Fatal(err)
	}
	value, err := id.key.Sign(nil, p.Digest, p.Algorithm.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	token, check := opensslTimestamp(t, value)
	tail, cms, err := p.Embed(value, token)
	if err != nil {
		t.Fatal(err)
	}
	sealed := append(doc, tail...)
	judge(t, sealed, 1)
	found := extract(t, sealed)[0]
	if !bytes.Equal(found.cms, cms) {
		t.Error("the CMS in the file is not the one that Embed returned")
	}
	at := bytes.Index(found.cms, token)
	if at < 0 {
		t.Fatal("the token is not in the CMS")
	}
	check(found.cms[at : at+len(token)])
	if out := dump(t, found.cms); !strings.Contains(out, "id-smime-aa-timeStampToken") {
		t.Errorf("there is no signature-time-stamp attribute:\n%s", out)
	}
}

func TestSignedAttributesAreThoseOfPAdES(t *testing.T) {
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA512} {
		o := options(ecIdentity())
		o.Hash = h
		found := extract(t, sign(t, sample("", ""), ecIdentity(), o))[0]
		if findOID(found.cms, oidAttribute(5)) {
			t.Error("there is a signing-time attribute, which PAdES forbids")
		}
		for name, oid := range map[string][]int{"content-type": {3}, "message-digest": {4}, "signing-certificate-v2": {16, 2, 47}} {
			if !findOID(found.cms, oidAttribute(oid...)) {
				t.Errorf("there is no %s attribute", name)
			}
		}
		for _, c := range ecIdentity().chain {
			if !bytes.Contains(found.cms, c.Raw) {
				t.Errorf("the certificate of %s is not in the CMS", c.Subject)
			}
		}
		if sub := found.dict.Get("SubFilter"); sub != pdf.Name("ETSI.CAdES.detached") {
			t.Errorf("/SubFilter is %v", sub)
		}
		if m := pdf.Text(found.dict.Get("M")); m != "D:20260304050607+02'00'" {
			t.Errorf("/M is %s", m)
		}
		if reason := pdf.Text(found.dict.Get("Reason")); reason != o.Reason {
			t.Errorf("/Reason is %q, want %q", reason, o.Reason)
		}
	}
}

func TestDefaultDigestOfSigningCertificateIsLeftOut(t *testing.T) {
	cert := ecIdentity().chain[0]
	for h, want := range map[crypto.Hash]bool{crypto.SHA256: false, crypto.SHA384: true, crypto.SHA512: true} {
		attributes, err := signedAttributes(make([]byte, h.Size()), h, cert)
		if err != nil {
			t.Fatal(err)
		}
		oid, err := hashOID(h)
		if err != nil {
			t.Fatal(err)
		}
		if got := findOID(attributes, oid); got != want {
			t.Errorf("%s: digest algorithm present = %t, want %t", h, got, want)
		}
	}
}

func TestSetsAreInTheOrderOfDER(t *testing.T) {
	cms := extract(t, sign(t, sample("", ""), ecIdentity(), options(ecIdentity())))[0].cms
	var info struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version      int
			Digests      asn1.RawValue
			Encapsulated asn1.RawValue
			Certificates asn1.RawValue
			Signers      []struct {
				Version    int
				Signer     asn1.RawValue
				Digest     asn1.RawValue
				Attributes asn1.RawValue
				Algorithm  asn1.RawValue
				Value      []byte
			} `asn1:"set"`
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(cms, &info); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string][]byte{"certificates": info.Content.Certificates.Bytes, "attributes": info.Content.Signers[0].Attributes.Bytes} {
		var before []byte
		n := 0
		for ; len(set) > 0; n++ {
			var v asn1.RawValue
			rest, err := asn1.Unmarshal(set, &v)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Compare(before, v.FullBytes) >= 0 {
				t.Errorf("%s are not in ascending order", name)
			}
			before, set = v.FullBytes, rest
		}
		if n < 2 {
			t.Errorf("%d %s, want some", n, name)
		}
	}
}

func TestFormIsKept(t *testing.T) {
	id := ecIdentity()
	o := options(id)
	o.Field, o.Text = "party.house", sealText
	sealed := sign(t, sample("/NeedAppearances true", ""), id, o)
	f, err := pdf.Open(document(sealed), int64(len(sealed)))
	if err != nil {
		t.Fatal(err)
	}
	_, catalog, err := f.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	if catalog.Get("AcroForm") != (pdf.Ref{Num: 6}) || pdf.Text(catalog.Get("Lang")) != "en" {
		t.Error("the catalog lost something")
	}
	form, err := f.ResolveDict(catalog.Get("AcroForm"))
	if err != nil {
		t.Fatal(err)
	}
	if pdf.Text(form.Get("DA")) != "/Helv 10 Tf 0 g" || form.Get("DR") == nil {
		t.Error("the form lost /DA or /DR")
	}
	if flags, _ := pdf.Int(form.Get("SigFlags")); flags != 3 {
		t.Errorf("/SigFlags is %d", flags)
	}
	if form.Has("NeedAppearances") {
		t.Error("/NeedAppearances stayed, though every field has an appearance")
	}
	fields, err := f.Fields()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, field := range fields {
		names = append(names, field.Name)
	}
	if diff := cmp.Diff([]string{"customer", "party.house", "party.other"}, names); diff != "" {
		t.Error(diff)
	}
	if got := fields[1].Rect; got != [4]float64{72, 100, 292, 170} {
		t.Errorf("the box of the field moved to %v", got)
	}
	info, err := f.ResolveDict(f.Trailer().Get("Info"))
	if err != nil || pdf.Text(info.Get("Title")) != "A short contract" {
		t.Errorf("/Info is %v, %v", info, err)
	}
}

func TestNeedAppearancesStaysWhereAFieldWouldVanish(t *testing.T) {
	doc := bytes.Replace(sample("/NeedAppearances true", ""), []byte("/AP << /N 11 0 R >>"), []byte("/XX << /N 11 0 R >>"), 1)
	sealed := sign(t, doc, ecIdentity(), options(ecIdentity()))
	if n := bytes.Count(sealed, []byte("/NeedAppearances true")); n != 2 {
		t.Errorf("/NeedAppearances stands %d times, want in the original and the update", n)
	}
}

func TestVisibleSealShowsItsText(t *testing.T) {
	id := ecIdentity()
	for name, set := range map[string]func(*Options){
		"in an existing field": func(o *Options) { o.Field = "party.house" },
		"in a new field":       func(o *Options) { o.Rect = [4]float64{300, 40, 500, 100} },
		"on a rotated page":    func(o *Options) { o.Page, o.Rect = 2, [4]float64{40, 40, 110, 300} },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(id)
			o.Text = sealText
			set(&o)
			sealed := sign(t, sample("", ""), id, o)
			out := textOf(t, sealed)
			for _, line := range sealText {
				if !strings.Contains(out, line) {
					t.Errorf("%q is not shown; the text is:\n%s", line, out)
				}
			}
			fonts := run(t, "poppler-utils", "pdffonts", writeFile(t, "fonts.pdf", sealed))
			for line := range strings.Lines(fonts) {
				if strings.Contains(line, "Liberation") && !strings.Contains(line, "yes yes yes") {
					t.Errorf("a font is not embedded, subset and searchable: %s", line)
				}
			}
		})
	}
}

func TestPrepareRefuses(t *testing.T) {
	id := ecIdentity()
	plain := sample("", "")
	certified := func(p int) []byte {
		o := options(id)
		o.Certify = p
		return sign(t, plain, id, o)
	}
	for _, c := range []struct {
		name string
		doc  []byte
		set  func(*Options)
		want string
	}{
		{"no level", plain, func(o *Options) { o.Level = "" }, `no level ""`},
		{"another level", plain, func(o *Options) { o.Level = "B-X" }, `no level "B-X"`},
		{"no certificate", plain, func(o *Options) { o.Chain = nil }, "no signer certificate"},
		{"no time", plain, func(o *Options) { o.Time = time.Time{} }, "time of signing is missing"},
		{"SHA-1", plain, func(o *Options) { o.Hash = crypto.SHA1 }, "SHA-1 is not supported"},
		{"P-224", plain, func(o *Options) { o.Chain = newIdentity(ecKey(elliptic.P224())).chain }, "P-224 is not supported"},
		{"too little space", plain, func(o *Options) { o.Reserve = 1000 }, "raise the reserve"},
		{"negative space", plain, func(o *Options) { o.Reserve = -1 }, "negative"},
		{"certify 4", plain, func(o *Options) { o.Certify = 4 }, "certify is 4"},
		{"page -1", plain, func(o *Options) { o.Page = -1 }, "no page -1"},
		{"a name that is not UTF-8", plain, func(o *Options) { o.Field = "\xea" }, "the field's name has"},
		{"a reason with a line end", plain, func(o *Options) { o.Reason = "a\nb" }, "the reason has"},
		{"page 3 of 2", plain, func(o *Options) { o.Page = 3 }, "the file has 2"},
		{"box off the page", plain, func(o *Options) { o.Text, o.Rect = sealText, [4]float64{500, 10, 600, 60} }, "leaves page 1"},
		{"box upside down", plain, func(o *Options) { o.Text, o.Rect = sealText, [4]float64{100, 60, 50, 10} }, "is empty"},
		{"box without text", plain, func(o *Options) { o.Rect = [4]float64{10, 10, 200, 60} }, "no text"},
		{"text without box", plain, func(o *Options) { o.Text = sealText }, "no box"},
		{"blank text", plain, func(o *Options) { o.Field, o.Text = "party.house", []string{" ", "\n"} }, "is blank"},
		{"text too long", plain, func(o *Options) { o.Field, o.Text = "party.house", []string{strings.Repeat("word ", 400)} }, "does not fit"},
		{"word too long", plain, func(o *Options) { o.Field, o.Text = "party.house", []string{strings.Repeat("w", 400)} }, "does not fit"},
		{"text with a bidi override", plain, func(o *Options) { o.Field, o.Text = "party.house", []string{"A\u202Eevil"} }, "U+202E"},
		{"text with a control character", plain, func(o *Options) { o.Field, o.Text = "party.house", []string{"A\x00"} }, "U+0000"},
		{"text without glyph", plain, func(o *Options) { o.Field, o.Text = "party.house", []string{"株式会社"} }, "U+682A"},
		{"text from right to left", plain, func(o *Options) { o.Field, o.Text = "party.house", []string{"שלום"} }, "right to left"},
		{"a text field", plain, func(o *Options) { o.Field = "customer" }, "not a signature field"},
		{"new field with a period", plain, func(o *Options) { o.Field = "a.b" }, "periods"},
		{"XFA", sample("/XFA [(x) 9 0 R]", ""), nil, "XFA"},
		{"seed value", sample("", "/SV << /Ff 1 >>"), func(o *Options) { o.Field = "party.house" }, "/SV"},
		{"lock with P", sample("", "/Lock << /Action /All /P 1 >>"), func(o *Options) { o.Field = "party.house" }, "/Lock"},
		{"certified against changes", certified(1), nil, "no changes allowed"},
		{"a new field to be seen on certified pages", certified(3), func(o *Options) { o.Text, o.Rect = sealText, [4]float64{10, 10, 200, 60} }, "no new field may show"},
		{"second certification", certified(2), func(o *Options) { o.Certify = 1 }, "must be the first"},
		{"no PDF", []byte("hello"), nil, "not a PDF"},
		{"encrypted", qpdfWith(t, plain, "--encrypt", "", "owner", "256", "--"), nil, "encrypted"},
		{"a field that is signed", sign(t, plain, id, func() Options { o := options(id); o.Field = "party.house"; return o }()),
			func(o *Options) { o.Field = "party.house" }, "signed already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(id)
			if c.set != nil {
				c.set(&o)
			}
			_, err := Prepare(context.Background(), document(c.doc), o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v, want one with %q", err, c.want)
			}
			var permanent interface{ Permanent() bool }
			if !errors.As(err, &permanent) || !permanent.Permanent() {
				t.Errorf("%v is not permanent", err)
			}
		})
	}
}

func TestCertificationAllowsWhatItSays(t *testing.T) {
	id := ecIdentity()
	o := options(id)
	o.Certify = 2
	certified := sign(t, sample("", ""), id, o)
	if !bytes.Contains(certified, []byte("/DocMDP")) {
		t.Error("there is no /DocMDP")
	}
	f, err := pdf.Open(document(certified), int64(len(certified)))
	if err != nil {
		t.Fatal(err)
	}
	_, catalog, err := f.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	if perms, err := f.ResolveDict(catalog.Get("Perms")); err != nil || perms.Get("DocMDP") != extract(t, certified)[0].field.Value {
		t.Errorf("/Perms is %v, %v", perms, err)
	}
	o.Certify, o.Field = 0, "party.house"
	judge(t, signAnew(t, certified, o), 2)
}

// TestAWidgetIsTurnedByItsAppearanceAlone: an entry that an earlier signature has not seen would be a change to it.
func TestAWidgetIsTurnedByItsAppearanceAlone(t *testing.T) {
	id := ecIdentity()
	o := options(id)
	o.Page, o.Text, o.Rect = 2, sealText, [4]float64{10, 10, 60, 200}
	sealed := sign(t, sample("", ""), id, o)
	if !bytes.Contains(sealed, []byte("/Matrix")) || bytes.Contains(sealed, []byte("/MK")) {
		t.Error("the seal on a rotated page is turned by something else than its matrix")
	}
}

func TestFieldLockIsDeclaredAndRespected(t *testing.T) {
	id := ecIdentity()
	for action, locks := range map[string]bool{
		"/All": true, "/Include /Fields [(x) (party.other)]": true, "/Include /Fields [(x)]": false,
		"/Exclude /Fields [(x)]": true, "/Exclude /Fields [(party.other)]": false,
	} {
		o := options(id)
		o.Field = "party.house"
		locked := sign(t, sample("", "/Lock << /Type /SigFieldLock /Action "+action+" >>"), id, o)
		o.Field = "party.other"
		_, err := Prepare(context.Background(), document(locked), o)
		if refused := err != nil && strings.Contains(err.Error(), "has locked"); refused != locks {
			t.Errorf("%s: signing the other field: %v", action, err)
		}
	}
	doc := sample("", "/Lock << /Type /SigFieldLock /Action /All >>")
	o := options(id)
	o.Field = "party.house"
	locked := sign(t, doc, id, o)
	judge(t, locked, 1)
	if !bytes.Contains(locked, []byte("/FieldMDP")) {
		t.Error("the lock of the field is not in the signature")
	}
	// A new field was not there to be locked; only fields of the form are.
	o.Field = "new"
	judge(t, signAnew(t, locked, o), 2)
}

func TestPreparedSurvivesJSON(t *testing.T) {
	doc, id := sample("", ""), rsaIdentity()
	o := options(id)
	o.PSS = true
	p, err := Prepare(context.Background(), document(doc), o)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Prepared
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*p, back, cmpopts.IgnoreUnexported(Prepared{})); diff != "" {
		t.Error(diff)
	}
	if len(stored) > len(p.Tail) {
		t.Errorf("%d bytes are stored of a tail of %d, most of which is zeros", len(stored), len(p.Tail))
	}
	judge(t, complete(t, doc, id, &back, nil), 1)
	if want := sha256.Sum256(doc); !bytes.Equal(back.OriginalSHA256, want[:]) || back.OriginalSize != int64(len(doc)) {
		t.Error("the original is not the one that was given")
	}
}

func TestPreparedIsReadAsItWasStored(t *testing.T) {
	p, err := Prepare(context.Background(), document(sample("", "")), options(ecIdentity()))
	if err != nil {
		t.Fatal(err)
	}
	filled := *p
	filled.Tail = bytes.Clone(p.Tail)
	filled.Tail[p.ContentsOffset+1] = '7'
	misplaced := *p
	misplaced.ContentsOffset = -1
	for name, c := range map[string]struct {
		stored any
		want   Prepared
	}{
		"a tail as a whole":       {fields(*p), *p},
		"a place that is filled":  {filled, filled},
		"a place that is nowhere": {misplaced, misplaced},
	} {
		text, err := json.Marshal(c.stored)
		if err != nil {
			t.Fatal(err)
		}
		var back Prepared
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, back, cmpopts.IgnoreUnexported(Prepared{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestDamagedPreparedIsNotRead(t *testing.T) {
	for name, text := range map[string]string{
		"no tail":                    `{}`,
		"a place of negative length": `{"Before":"","ContentsLength":-5}`,
		"a place of no length":       `{"Before":"AAAA","ContentsOffset":3,"ContentsLength":1}`,
		"a place beyond all measure": `{"Before":"AAAA","ContentsOffset":3,"ContentsLength":9000000000}`,
		"a place elsewhere":          `{"Before":"AAAA","ContentsOffset":4,"ContentsLength":8}`,
	} {
		if err := json.Unmarshal([]byte(text), new(Prepared)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestEmbedRefuses(t *testing.T) {
	id := ecIdentity()
	p, err := Prepare(context.Background(), document(sample("", "")), options(id))
	if err != nil {
		t.Fatal(err)
	}
	value, err := id.key.Sign(nil, p.Digest, p.Algorithm.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	other, err := id.key.Sign(nil, make([]byte, 32), p.Algorithm.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		change       func(*Prepared)
		value, token []byte
		want         string
	}{
		{"a value over another digest", nil, other, nil, "does not fit the staged digest"},
		{"no value", nil, nil, nil, "does not fit the staged digest"},
		{"a token that is none", nil, value, []byte("token"), "not one DER SEQUENCE"},
		{"a token with more behind it", nil, value, []byte{0x30, 0, 0}, "not one DER SEQUENCE"},
		{"a changed digest", func(p *Prepared) { p.Digest = make([]byte, 32) }, value, nil, "not the one of the staged document"},
		{"a changed document digest", func(p *Prepared) { p.DocumentDigest = make([]byte, 32) }, value, nil, "not the one of the staged document"},
		{"changed attributes", func(p *Prepared) { p.SignedAttrs = nil }, value, nil, "not the one of the staged document"},
		{"no certificate", func(p *Prepared) { p.Chain = nil }, value, nil, "no certificate"},
		{"no algorithm", func(p *Prepared) { p.Algorithm = Algorithm{} }, value, nil, "digest unknown hash value 0 is not supported"},
		{"a place behind the end", func(p *Prepared) { p.ContentsOffset = len(p.Tail) }, value, nil, "outside"},
		{"a place before the start", func(p *Prepared) { p.ContentsOffset = -1 }, value, nil, "outside"},
		{"a certificate that is none", func(p *Prepared) { p.Chain = [][]byte{{1}} }, value, nil, "certificate 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := *p
			if c.change != nil {
				c.change(&changed)
			}
			_, _, err := changed.Embed(c.value, c.token)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestTokenThatDoesNotFitIsAnExactError(t *testing.T) {
	id := ecIdentity()
	o := options(id)
	o.Level, o.TimestampReserve = BT, 100
	p, err := Prepare(context.Background(), document(sample("", "")), o)
	if err != nil {
		t.Fatal(err)
	}
	value, err := id.key.Sign(nil, p.Digest, p.Algorithm.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	token := append([]byte{0x30, 0x82, 0x04, 0x00}, make([]byte, 1024)...)
	_, _, err = p.Embed(value, token)
	var size *SizeError
	if !errors.As(err, &size) {
		t.Fatalf("error = %v, want a SizeError", err)
	}
	o.Reserve = size.Need
	if p, err = Prepare(context.Background(), document(sample("", "")), o); err != nil {
		t.Fatal(err)
	}
	if p.Reserved() != size.Need {
		t.Errorf("%d bytes are reserved, want %d", p.Reserved(), size.Need)
	}
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Prepare(ctx, document(sample("", "")), options(ecIdentity())); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

// cancelling is a document that ends the context while it is read as a whole.
type cancelling struct {
	Document
	cancel context.CancelFunc
	reads  int
}

func (c *cancelling) ReadAt(b []byte, at int64) (int, error) {
	if len(b) == 64<<10 {
		c.reads++
		c.cancel()
	}
	return c.Document.ReadAt(b, at)
}

func TestHashingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	doc := &cancelling{Document: newLargeFile(t, 20<<20), cancel: cancel}
	if _, err := Prepare(ctx, doc, options(ecIdentity())); !errors.Is(err, context.Canceled) || doc.reads != 1 {
		t.Errorf("error = %v after %d reads, want context.Canceled after one", err, doc.reads)
	}
}

func TestIndirectAnnotationsStayIndirect(t *testing.T) {
	doc := sample("", "")
	sealed := sign(t, doc, ecIdentity(), options(ecIdentity()))
	tail := sealed[len(doc):]
	if !bytes.Contains(tail, []byte("\n14 0 obj")) || bytes.Contains(tail, []byte("\n3 0 obj")) {
		t.Errorf("the page was rewritten where its list of annotations is an object of its own:\n%.300s", tail)
	}
}

func TestHiddenFieldIsShownWhenItIsSealedVisibly(t *testing.T) {
	doc := bytes.Replace(sample("", ""), []byte("/T (house) /FT /Sig /F 4"), []byte("/T (house) /FT /Sig /F 2"), 1)
	o := options(ecIdentity())
	o.Field, o.Text = "party.house", sealText
	if out := textOf(t, sign(t, doc, ecIdentity(), o)); !strings.Contains(out, sealText[0]) {
		t.Errorf("the seal is not shown; the text is:\n%s", out)
	}
}

// TestDamageInPlaceIsNoticed changes the very bytes that Prepare has made.
func TestDamageInPlaceIsNoticed(t *testing.T) {
	id := ecIdentity()
	for name, bytesOf := range map[string]func(*Prepared) []byte{
		"the digest":          func(p *Prepared) []byte { return p.Digest },
		"the document digest": func(p *Prepared) []byte { return p.DocumentDigest },
		"the attributes":      func(p *Prepared) []byte { return p.SignedAttrs },
	} {
		p, err := Prepare(context.Background(), document(sample("", "")), options(id))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		bytesOf(p)[7] ^= 1
		if err := p.Check(); err == nil {
			t.Errorf("%s: the damage is not noticed", name)
		}
	}
}

func TestOnlyTheValueThatWasVouchedForIsBelieved(t *testing.T) {
	id := ecIdentity()
	p, err := Prepare(context.Background(), document(sample("", "")), options(id))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(digest []byte) []byte {
		value, err := id.key.Sign(nil, digest, p.Algorithm.SignerOpts())
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	good, bad := sign(p.Digest), sign(make([]byte, 32))
	p.Vouch(good)
	if _, _, err := p.Embed(good, nil); err != nil {
		t.Error(err)
	}
	if _, _, err := p.Embed(bad, nil); err == nil {
		t.Error("another value than the one that was vouched for is embedded")
	}
	if _, _, err := p.Embed(sign(p.Digest), nil); err != nil {
		t.Errorf("another good value: %v", err)
	}
	other, err := p.WithChain(newIdentity(ecKey(elliptic.P256())).chain)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Embed(good, nil); err == nil {
		t.Error("a value that was vouched for is embedded for another signer")
	}
	stored, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Prepared
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	back.Vouch(bad)
	if _, _, err := back.Embed(bad, nil); err == nil {
		t.Error("what comes from storage was believed without verifying")
	}
}

// largeFile is a PDF with a stream of zeros that is nowhere in memory.
type largeFile struct {
	head, tail []byte // around the zeros
	zeros      int64
	read       int64
}

func newLargeFile(t *testing.T, zeros int64) *largeFile {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [3 0 R] /Count 1 >>\nendobj\n" +
		"3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>\nendobj\n")
	stream := b.Len()
	fmt.Fprintf(&b, "4 0 obj\n<< /Length %d >>\nstream\n", zeros)
	tail := "\nendstream\nendobj\n"
	start := int64(b.Len()) + zeros + int64(len(tail))
	tail += "xref\n0 5\n0000000000 65535 f \n"
	for _, word := range []string{"1 0 obj", "2 0 obj", "3 0 obj"} {
		tail += fmt.Sprintf("%010d 00000 n \n", bytes.Index(b.Bytes(), []byte(word)))
	}
	tail += fmt.Sprintf("%010d 00000 n \ntrailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", stream, start)
	return &largeFile{head: b.Bytes(), tail: []byte(tail), zeros: zeros}
}

func (f *largeFile) Size() int64 { return int64(len(f.head)+len(f.tail)) + f.zeros }

func (f *largeFile) ReadAt(b []byte, at int64) (n int, err error) {
	clear(b)
	n = int(min(int64(len(b)), f.Size()-at))
	if at < int64(len(f.head)) {
		copy(b, f.head[at:])
	}
	if behind := int64(len(f.head)) + f.zeros - at; behind < int64(n) {
		copy(b[max(behind, 0):n], f.tail[max(-behind, 0):])
	}
	f.read += int64(n)
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

// TestALargeDocumentIsReadOnceAndNotHeld makes all revisions of a B-LTA seal on a file that is larger than what may be
// allocated for it.
func TestALargeDocumentIsReadOnceAndNotHeld(t *testing.T) {
	file, id := newLargeFile(t, 100<<20), ecIdentity()
	o := options(id)
	o.Level, o.TimestampReserve = BT, 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sealed, digest := sealForLong(t, Once(file), id, o)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated to sign a document of %d", n, file.Size())
	}
	if file.read > file.Size()+64<<10 {
		t.Errorf("%d bytes were read of a document of %d", file.read, file.Size())
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(sealed, 0, sealed.Size())); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.Sum(nil), digest) {
		t.Error("the digest is not that of the document with what stands behind it")
	}
}

// sealForLong makes the revisions of a B-LTA seal up to the document time-stamp. It returns what that is over, but for its
// own revision, and the SHA-256 of that.
func sealForLong(t *testing.T, doc Document, id identity, o Options) (sealed Document, digest []byte) {
	t.Helper()
	p, err := Prepare(context.Background(), doc, o)
	if err != nil {
		t.Fatal(err)
	}
	value, err := id.key.Sign(nil, p.Digest, p.Algorithm.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	tail, _, err := p.Embed(value, []byte{0x30, 0})
	if err != nil {
		t.Fatal(err)
	}
	more, err := AddValidation(context.Background(), Appended{doc, tail}, Validation{Certs: [][]byte{id.chain[0].Raw}})
	if err != nil {
		t.Fatal(err)
	}
	sealed = Appended{doc, append(tail, more...)}
	stamp, err := PrepareTimestamp(context.Background(), sealed, TimestampOptions{Reserve: 100})
	if err != nil {
		t.Fatal(err)
	}
	return sealed, stamp.OriginalSHA256
}

func TestHashingOnceGivesTheSameDigests(t *testing.T) {
	doc := document(sample("", ""))
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		o := options(ecIdentity())
		o.Hash = h
		once := Once(doc)
		for range 2 {
			got, err := Prepare(context.Background(), once, o)
			if err != nil {
				t.Fatal(err)
			}
			want, err := Prepare(context.Background(), doc, o)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Digest, want.Digest) || !bytes.Equal(got.OriginalSHA256, want.OriginalSHA256) {
				t.Errorf("%s: the digests differ", h)
			}
		}
	}
}

func TestLevelsAreOrdered(t *testing.T) {
	all := []Level{BB, BT, BLT, BLTA}
	for i, a := range all {
		if got, err := ParseLevel(string(a)); got != a || err != nil {
			t.Errorf("ParseLevel(%s) = %s, %v", a, got, err)
		}
		for j, b := range all {
			if a.AtLeast(b) != (i >= j) {
				t.Errorf("%s.AtLeast(%s) = %t", a, b, i < j)
			}
		}
	}
	if _, err := ParseLevel("B-X"); err == nil {
		t.Error("B-X is a level")
	}
	if Level("").AtLeast("") {
		t.Error("no level has what no level has")
	}
}

func BenchmarkPrepare(b *testing.B) {
	doc := sample("", "")
	o := options(ecIdentity())
	for b.Loop() {
		if _, err := Prepare(context.Background(), document(doc), o); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzPrepare(f *testing.F) {
	plain := sample("", "")
	for _, b := range [][]byte{
		plain, sample("/NeedAppearances true", "/Lock << /Action /All >>"), sample("", "/SV << /Ff 0 >>"),
		bytes.Replace(plain, []byte("/Fields [7 0 R 10 0 R]"), []byte("/Fields 7 0 R"), 1),
	} {
		f.Add(b, "party.house")
		f.Add(b, "")
	}
	o := options(ecIdentity())
	o.Text, o.Rect = sealText, [4]float64{10, 10, 200, 80}
	f.Fuzz(func(t *testing.T, doc []byte, field string) {
		hostile.Budget(t)
		o := o
		o.Field = field
		p, err := Prepare(context.Background(), document(doc), o)
		if err != nil {
			return
		}
		hole := p.Tail[p.ContentsOffset:][:p.ContentsLength]
		if hole[0] != '<' || hole[len(hole)-1] != '>' || len(bytes.Trim(hole[1:len(hole)-1], "0")) != 0 {
			t.Fatalf("the place for the contents is %.20q...", hole)
		}
		sealed := append(bytes.Clone(doc), p.Tail...)
		file, err := pdf.Open(document(sealed), int64(len(sealed)))
		if err != nil {
			t.Fatalf("the sealed file does not open: %v", err)
		}
		signed, err := file.Field(p.Field)
		if err != nil || signed == nil {
			t.Fatalf("the field %q is not in the sealed file: %v", p.Field, err)
		}
		if d, err := file.ResolveDict(signed.Value); err != nil || d.Get("SubFilter") != pdf.Name("ETSI.CAdES.detached") {
			t.Fatalf("the field %q is not signed: %v, %v", p.Field, d, err)
		}
	})
}
