package verify_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

func TestGoodSealsAreValidAndReachTheirLevel(t *testing.T) {
	ec, rs := authority(), rsaAuthority()
	for name, c := range map[string]struct {
		seal  sealing
		trust *pki.Authority
		level pades.Level
	}{
		"P-256":            {sealOf(ec), ec, pades.BB},
		"P-256 SHA-512":    {sealing{key: ec.Signer.Key, chain: ec.Signer.Chain(), hash: crypto.SHA512}, ec, pades.BB},
		"P-256 stamped":    {sealOf(ec).stamped(ec), ec, pades.BT},
		"RSA":              {sealOf(rs), rs, pades.BB},
		"RSA stamped":      {sealOf(rs).stamped(rs), rs, pades.BT},
		"RSA-PSS":          {sealing{key: rs.Signer.Key, chain: rs.Signer.Chain(), pss: true}, rs, pades.BB},
		"RSA-PSS SHA-384":  {sealing{key: rs.Signer.Key, chain: rs.Signer.Chain(), pss: true, hash: crypto.SHA384}, rs, pades.BB},
		"in the box named": {sealing{key: ec.Signer.Key, chain: ec.Signer.Chain(), field: "seal"}, ec, pades.BB},
	} {
		t.Run(name, func(t *testing.T) {
			r := check(t, seal(t, contract(), c.seal), trust(c.trust))
			want(t, r, verify.Valid, "")
			if r.Level() != c.level {
				t.Errorf("level %q, want %q", r.Level(), c.level)
			}
			if s := r.Signatures[0]; !s.CoversWholeFile || s.Revision != 2 || r.Revisions != 2 {
				t.Errorf("covers whole file: %v, revision %d of %d", s.CoversWholeFile, s.Revision, r.Revisions)
			}
		})
	}
}

func TestReportSaysWhoSignedWhatAndWhen(t *testing.T) {
	a := authority()
	doc := seal(t, contract(), sealOf(a).stamped(a))
	r := check(t, doc, trust(a))
	s := r.Signatures[0]
	cert := a.Signer.Certificate
	sum, spki, all := sha256.Sum256(cert.Raw), sha256.Sum256(cert.RawSubjectPublicKeyInfo), sha256.Sum256(doc)
	want := verify.Certificate{
		Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Serial: cert.SerialNumber.Text(16),
		SHA256: hex.EncodeToString(sum[:]), SPKI: hex.EncodeToString(spki[:]), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}
	if diff := cmp.Diff(&want, s.Signer); diff != "" {
		t.Errorf("signer (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Acme Ltd", "Contract", "Paris", "SHA-256", "ECDSA-SHA256", "ETSI.CAdES.detached"},
		[]string{s.Name, s.Reason, s.Location, s.Digest, s.Algorithm, s.SubFilter}); diff != "" {
		t.Errorf("description (-want +got):\n%s", diff)
	}
	if s.ClaimedTime == nil || time.Since(*s.ClaimedTime).Abs() > time.Minute {
		t.Errorf("claimed time %v", s.ClaimedTime)
	}
	if s.Timestamp == nil || s.Timestamp.TSA != a.TSA.Certificate.Subject.String() || s.Timestamp.Policy != pki.Policy.String() || !s.Timestamp.Time.Equal(*s.ValidatedAt) {
		t.Errorf("time-stamp %+v, validated at %v", s.Timestamp, s.ValidatedAt)
	}
	if r.SHA256 != hex.EncodeToString(all[:]) || r.Size != int64(len(doc)) {
		t.Errorf("the report is not about this file: %s, %d bytes", r.SHA256, r.Size)
	}
}

func TestReportSurvivesJSON(t *testing.T) {
	a := authority()
	r := check(t, seal(t, contract(), sealOf(a).stamped(a)), trust(a))
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back verify.Report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&back)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), string(again)); diff != "" {
		t.Error(diff)
	}
}

func TestSeveralSignaturesAreAllValid(t *testing.T) {
	a, b := authority(), rsaAuthority()
	doc := seal(t, contract(), sealOf(a))
	box := sealOf(b)
	box.field = "seal"
	doc = seal(t, doc, box)
	doc = seal(t, doc, sealOf(a).stamped(a))
	r := check(t, doc, trust(a, b))
	want(t, r, verify.Valid, verify.CodeLaterSignatures)
	type row struct {
		Revision int
		Whole    bool
		Notes    int
	}
	var got []row
	for _, s := range r.Signatures {
		got = append(got, row{s.Revision, s.CoversWholeFile, len(s.Reasons)})
	}
	if diff := cmp.Diff([]row{{2, false, 2}, {3, false, 2}, {4, true, 1}}, got); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}

func TestNewestIsTheSealJustMade(t *testing.T) {
	a := authority()
	stranger := mustAuthority(pki.Options{Organisation: "Stranger"})
	doc := seal(t, seal(t, contract(), sealOf(stranger)), sealOf(a).stamped(a))
	r := check(t, doc, trust(a))
	want(t, r, verify.Indeterminate, verify.CodeUntrusted)
	if s := r.Newest(); s == nil || s.Verdict != verify.Valid || s.Level != pades.BT || s.Signer.Subject != a.Signer.Certificate.Subject.String() {
		t.Errorf("newest: %+v", s)
	}
	if s := check(t, append(doc, '\n'), trust(a)).Newest(); s == nil || s.CoversWholeFile || s.Verdict != verify.Valid {
		t.Errorf("newest of a file with a line end behind it: %+v", s)
	}
	changed := update(t, doc, func(_ *pdf.File, u *pdf.Update) { u.PutStream(pdf.Ref{Num: 5}, new(pdf.Dict), []byte("BT ET")) })
	if s := check(t, changed, trust(a)).Newest(); s == nil || s.Verdict != verify.Invalid {
		t.Errorf("newest of a file that was changed behind it: %+v", s)
	}
}

func TestLaterChangesAreNamed(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a))
	put := func(num int, key pdf.Name, value any) func(*pdf.File, *pdf.Update) {
		return func(f *pdf.File, u *pdf.Update) {
			d := object(t, f, pdf.Ref{Num: num})
			d.Set(key, value)
			u.Put(pdf.Ref{Num: num}, d)
		}
	}
	catalog := func(change func(f *pdf.File, u *pdf.Update, catalog *pdf.Dict)) func(*pdf.File, *pdf.Update) {
		return func(f *pdf.File, u *pdf.Update) {
			ref, c, err := f.Catalog()
			if err != nil {
				t.Fatal(err)
			}
			c = c.Clone()
			change(f, u, c)
			u.Put(ref, c)
		}
	}
	stream := pdf.Ref{Num: 5}
	for name, c := range map[string]struct {
		change  func(*pdf.File, *pdf.Update)
		verdict verify.Verdict
		code    verify.Code
	}{
		"page text": {func(_ *pdf.File, u *pdf.Update) {
			u.PutStream(stream, new(pdf.Dict), []byte("BT /F1 24 Tf 72 700 Td (Pay 900 EUR) Tj ET"))
		}, verify.Invalid, verify.CodeContentChanged},
		"page text written anew, unchanged": {func(_ *pdf.File, u *pdf.Update) {
			u.PutStream(stream, new(pdf.Dict), []byte("BT /F1 24 Tf 72 700 Td (Pay 100 EUR) Tj ET"))
		}, verify.Valid, verify.CodeLaterSignatures},
		"page replaced": {func(f *pdf.File, u *pdf.Update) {
			ref := u.Alloc()
			u.PutStream(ref, new(pdf.Dict), []byte("BT ET"))
			put(3, "Contents", ref)(f, u)
		}, verify.Invalid, verify.CodeContentChanged},
		"page added": {func(f *pdf.File, u *pdf.Update) {
			ref := u.Alloc()
			u.Put(ref, object(t, f, pdf.Ref{Num: 4}))
			put(2, "Kids", pdf.Array{pdf.Ref{Num: 3}, pdf.Ref{Num: 4}, ref})(f, u)
		}, verify.Invalid, verify.CodeContentChanged},
		"pages swapped":               {put(2, "Kids", pdf.Array{pdf.Ref{Num: 4}, pdf.Ref{Num: 3}}), verify.Invalid, verify.CodeContentChanged},
		"font replaced":               {put(6, "BaseFont", pdf.Name("Symbol")), verify.Invalid, verify.CodeContentChanged},
		"page rotated":                {put(4, "Rotate", 180), verify.Invalid, verify.CodeContentChanged},
		"field value":                 {put(8, "V", pdf.TextString("900")), verify.Indeterminate, verify.CodeChangedAfterwards},
		"value of a field on no page": {put(12, "V", pdf.TextString("2")), verify.Indeterminate, verify.CodeChangedAfterwards},
		"annotation text":             {put(10, "Contents", pdf.TextString("bye")), verify.Indeterminate, verify.CodeChangedAfterwards},
		"title":                       {put(7, "Title", pdf.TextString("Other")), verify.Indeterminate, verify.CodeChangedAfterwards},
		"modification date":           {put(7, "ModDate", pdf.TextString("D:20270101000000Z")), verify.Valid, verify.CodeLaterSignatures},
		"annotation removed":          {put(3, "Annots", pdf.Array{pdf.Ref{Num: 8}, pdf.Ref{Num: 9}}), verify.Indeterminate, verify.CodeChangedAfterwards},
		"annotation added": {func(f *pdf.File, u *pdf.Update) {
			ref := u.Alloc()
			u.Put(ref, pdf.D("Type", pdf.Name("Annot"), "Subtype", pdf.Name("FreeText"), "Rect", pdf.RectOf([4]float64{0, 0, 600, 700})))
			d := object(t, f, pdf.Ref{Num: 3})
			d.Set("Annots", append(slices.Clone(d.Get("Annots").(pdf.Array)), ref))
			u.Put(pdf.Ref{Num: 3}, d)
		}, verify.Indeterminate, verify.CodeChangedAfterwards},
		"empty signature field added": {catalog(func(f *pdf.File, u *pdf.Update, c *pdf.Dict) {
			ref := u.Alloc()
			u.Put(ref, pdf.D("FT", pdf.Name("Sig"), "T", pdf.TextString("cover"), "Subtype", pdf.Name("Widget"), "Rect", pdf.RectOf([4]float64{0, 0, 600, 700})))
			form, err := f.ResolveDict(c.Get("AcroForm"))
			if err != nil {
				t.Fatal(err)
			}
			fields, err := f.ResolveArray(form.Get("Fields"))
			if err != nil {
				t.Fatal(err)
			}
			form = form.Clone()
			form.Set("Fields", append(slices.Clone(fields), ref))
			c.Set("AcroForm", form)
		}), verify.Indeterminate, verify.CodeChangedAfterwards},
		"script on opening": {catalog(func(_ *pdf.File, _ *pdf.Update, c *pdf.Dict) {
			c.Set("OpenAction", pdf.D("S", pdf.Name("JavaScript"), "JS", pdf.TextString("app.alert(1)")))
		}), verify.Indeterminate, verify.CodeChangedAfterwards},
		"validation data and a field with half a signature": {catalog(func(f *pdf.File, u *pdf.Update, c *pdf.Dict) {
			ref := u.Alloc()
			u.Put(ref, pdf.D("FT", pdf.Name("Sig"), "T", pdf.TextString("half"), "V", pdf.D("Contents", pdf.HexString([]byte("x")))))
			form, err := f.ResolveDict(c.Get("AcroForm"))
			if err != nil {
				t.Fatal(err)
			}
			fields, err := f.ResolveArray(form.Get("Fields"))
			if err != nil {
				t.Fatal(err)
			}
			form = form.Clone()
			form.Set("Fields", append(slices.Clone(fields), ref))
			c.Set("AcroForm", form)
		}), verify.Invalid, verify.CodeChangedAfterwards},
		"validation data": {catalog(func(_ *pdf.File, _ *pdf.Update, c *pdf.Dict) {
			c.Set("DSS", pdf.D("Certs", pdf.Array{}))
		}), verify.Valid, verify.CodeLaterSignatures},
	} {
		t.Run(name, func(t *testing.T) {
			r := check(t, update(t, sealed, c.change), trust(a))
			want(t, r, c.verdict, c.code)
			if r.Signatures[0].CoversWholeFile {
				t.Error("the signature is said to cover the whole file")
			}
		})
	}
}

func TestSignatureTakenAwayIsStillReported(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealing{key: a.Signer.Key, chain: a.Signer.Chain(), field: "seal"})
	r := check(t, update(t, sealed, func(f *pdf.File, u *pdf.Update) {
		d := object(t, f, pdf.Ref{Num: 9})
		d.Delete("V")
		u.Put(pdf.Ref{Num: 9}, d)
	}), trust(a))
	want(t, r, verify.Indeterminate, verify.CodeChangedAfterwards)
	if len(r.Signatures) != 1 || r.Signatures[0].Field != "seal" {
		t.Errorf("signatures: %s", explain(r))
	}
}

func TestSignatureReplacedInItsFieldIsInvalid(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealing{key: a.Signer.Key, chain: a.Signer.Chain(), field: "seal"})
	r := check(t, update(t, sealed, func(f *pdf.File, u *pdf.Update) {
		value := object(t, f, pdf.Ref{Num: 9}).Get("V").(pdf.Ref)
		d := object(t, f, value)
		d.Set("Reason", pdf.TextString("Something else"))
		u.Put(value, d)
	}), trust(a))
	want(t, r, verify.Invalid, verify.CodeSignatureReplaced)
	for _, s := range r.Signatures {
		if s.Reason == "Something else" {
			t.Error("the report repeats a reason that was not signed")
		}
	}
}

// TestSignatureThatPointsBackIsInvalid wraps a good signature in a new field: same ByteRange, same value.
func TestSignatureThatPointsBackIsInvalid(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealing{key: a.Signer.Key, chain: a.Signer.Chain(), field: "seal"})
	wrapped := update(t, sealed, func(f *pdf.File, u *pdf.Update) {
		ref, c, err := f.Catalog()
		if err != nil {
			t.Fatal(err)
		}
		field := u.Alloc()
		u.Put(field, pdf.D("FT", pdf.Name("Sig"), "T", pdf.TextString("wrapper"), "V", object(t, f, pdf.Ref{Num: 9}).Get("V")))
		form, err := f.ResolveDict(c.Get("AcroForm"))
		if err != nil {
			t.Fatal(err)
		}
		form, c = form.Clone(), c.Clone()
		form.Set("Fields", pdf.Array{pdf.Ref{Num: 8}, pdf.Ref{Num: 9}, pdf.Ref{Num: 12}, field})
		c.Set("AcroForm", form)
		u.Put(ref, c)
	})
	want(t, check(t, wrapped, trust(a)), verify.Invalid, verify.CodeByteRange)
}

func TestSwappedValueIsInvalid(t *testing.T) {
	a := authority()
	one, two := seal(t, contract(), sealOf(a)), seal(t, bytes.ReplaceAll(contract(), []byte("100"), []byte("900")), sealOf(a))
	hole := func(doc []byte) []byte {
		r := check(t, doc, trust(a)).Signatures[0].ByteRange
		return doc[r[1]:r[2]]
	}
	if len(hole(one)) != len(hole(two)) {
		t.Fatal("the two holes are not of one length")
	}
	copy(hole(one), hole(two))
	want(t, check(t, one, trust(a)), verify.Invalid, verify.CodeDigest)
}

func TestFlippedBytesAreNeverValid(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a).stamped(a))
	r := check(t, sealed, trust(a)).Signatures[0].ByteRange
	inHole := func(i int) bool { return int64(i) >= r[1] && int64(i) < r[2] }
	content := bytes.Index(sealed, []byte("Pay 100"))
	for i := range sealed {
		if inHole(i) {
			continue
		}
		changed := bytes.Clone(sealed)
		changed[i] ^= 0x04
		got, err := verify.Verify(t.Context(), bytes.NewReader(changed), trust(a))
		if err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
		if got.Verdict == verify.Valid {
			t.Fatalf("byte %d of the covered range was changed unnoticed", i)
		}
		if i == content && got.Verdict != verify.Invalid {
			t.Errorf("changed text is %s", got.Verdict)
		}
	}
}

func TestFlippedBytesOfTheValueAreNoticed(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a))
	r := check(t, sealed, trust(a)).Signatures[0]
	unnoticed := 0
	for i := r.ByteRange[1]; i < r.ByteRange[2]; i++ {
		changed := bytes.Clone(sealed)
		if changed[i] == '0' {
			changed[i] = '1'
		} else {
			changed[i] = '0'
		}
		got := check(t, changed, trust(a))
		if got.Verdict == verify.Valid {
			unnoticed++
			if diff := cmp.Diff(r.Signer, got.Signatures[0].Signer); diff != "" {
				t.Errorf("byte %d changed the signer unnoticed:\n%s", i, diff)
			}
		}
	}
	// Versions, the digestAlgorithms hint and parameters that have no meaning are not signed in any CMS.
	if unnoticed > 60 {
		t.Errorf("%d changed digits went unnoticed", unnoticed)
	}
}

func TestCutDocumentsAreNeverValid(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a))
	for n := 0; n < len(sealed)-2; n += 37 {
		got, err := verify.Verify(t.Context(), bytes.NewReader(sealed[:n]), trust(a))
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if got.Verdict == verify.Valid {
			t.Errorf("cut at %d: still valid", n)
		}
	}
}

func TestBytesBehindTheEndAreNamed(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a))
	want(t, check(t, append(bytes.Clone(sealed), "\n\r\n  "...), trust(a)), verify.Valid, "")
	want(t, check(t, append(bytes.Clone(sealed), "\nMZ payload"...), trust(a)), verify.Indeterminate, verify.CodeTrailingData)
}

func TestForeignRootsAreNotTrusted(t *testing.T) {
	a := authority()
	other := mustAuthority(pki.Options{Organisation: "Stranger"})
	r := check(t, seal(t, contract(), sealOf(a)), trust(other))
	want(t, r, verify.Indeterminate, verify.CodeUntrusted)
	want(t, check(t, seal(t, contract(), sealOf(a)), verify.Options{}), verify.Indeterminate, verify.CodeUntrusted)
}

func TestExpiredCertificateNeedsATimestamp(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a := mustAuthority(pki.Options{})
	chain, err := a.IssueSignerValid(a.Signer.Key.Public(), a.Signer.Certificate.Subject, now.Add(-48*time.Hour), now.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	s := sealing{key: a.Signer.Key, chain: chain}
	want(t, check(t, seal(t, contract(), s), trust(a)), verify.Indeterminate, verify.CodeExpired)
	a.SetNow(func() time.Time { return now.Add(-36 * time.Hour) })
	r := check(t, seal(t, contract(), s.stamped(a)), trust(a))
	want(t, r, verify.Valid, "")
	if r.Level() != pades.BT {
		t.Errorf("level %q", r.Level())
	}
	a.SetNow(func() time.Time { return now.Add(-12 * time.Hour) })
	want(t, check(t, seal(t, contract(), s.stamped(a)), trust(a)), verify.Indeterminate, verify.CodeExpired)
}

func TestTimestampsProveOnlyWhatTheySay(t *testing.T) {
	a := authority()
	stranger := mustAuthority(pki.Options{Organisation: "Stranger"})
	future := mustAuthority(pki.Options{Organisation: "Future"})
	future.SetNow(func() time.Time { return time.Now().Add(24 * time.Hour) })
	other := sealOf(a)
	other.token = func([]byte) ([]byte, error) {
		sum := sha256.Sum256([]byte("something else"))
		return a.Token(sum[:], crypto.SHA256)
	}
	damaged := sealOf(a)
	damaged.token = func(value []byte) ([]byte, error) {
		sum := sha256.Sum256(value)
		token, err := a.Token(sum[:], crypto.SHA256)
		if err == nil {
			token[len(token)-1] ^= 1
		}
		return token, err
	}
	for name, c := range map[string]struct {
		seal    sealing
		verdict verify.Verdict
		code    verify.Code
	}{
		"over other data":      {other, verify.Indeterminate, verify.CodeTimestampBroken},
		"damaged":              {damaged, verify.Indeterminate, verify.CodeTimestampBroken},
		"of an unknown TSA":    {sealOf(a).stamped(stranger), verify.Valid, verify.CodeTimestampUntrusted},
		"from the future":      {sealOf(a).stamped(future), verify.Indeterminate, verify.CodeTimestampBroken},
		"no token but garbage": {sealing{key: a.Signer.Key, chain: a.Signer.Chain(), token: func([]byte) ([]byte, error) { return []byte{0x30, 0}, nil }}, verify.Indeterminate, verify.CodeTimestampBroken},
	} {
		t.Run(name, func(t *testing.T) {
			r := check(t, seal(t, contract(), c.seal), trust(a, future))
			want(t, r, c.verdict, c.code)
			if r.Level() != pades.BB || r.Signatures[0].Timestamp != nil {
				t.Errorf("level %q, time-stamp %v", r.Level(), r.Signatures[0].Timestamp)
			}
		})
	}
}

func TestCertificatesForOtherThingsAreNotAccepted(t *testing.T) {
	a := authority()
	for name, c := range map[string]struct {
		template x509.Certificate
		verdict  verify.Verdict
	}{
		"encryption only":  {x509.Certificate{KeyUsage: x509.KeyUsageKeyEncipherment}, verify.Indeterminate},
		"TLS server":       {x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, verify.Indeterminate},
		"no restriction":   {x509.Certificate{}, verify.Valid},
		"document signing": {x509.Certificate{UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 36}}}, verify.Valid},
	} {
		t.Run(name, func(t *testing.T) {
			template := c.template
			template.Subject, template.NotBefore, template.NotAfter = a.Signer.Certificate.Subject, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
			chain, err := a.IssueLeaf(a.Signer.Key.Public(), &template)
			if err != nil {
				t.Fatal(err)
			}
			r := check(t, seal(t, contract(), sealing{key: a.Signer.Key, chain: chain}), trust(a))
			code := verify.CodeKeyUsage
			if c.verdict == verify.Valid {
				code = ""
			}
			want(t, r, c.verdict, code)
		})
	}
}

func TestUnsignedAndUnreadableDocuments(t *testing.T) {
	encrypted := bytes.Replace(contract(), []byte("/Info 7 0 R"), []byte("/Encrypt 7 0 R /Info 7 0 R"), 1)
	for name, c := range map[string]struct {
		doc     []byte
		verdict verify.Verdict
		code    verify.Code
	}{
		"unsigned":  {contract(), verify.Indeterminate, verify.CodeNoSignature},
		"encrypted": {encrypted, verify.Indeterminate, verify.CodeEncrypted},
		"empty":     {nil, verify.Invalid, verify.CodeMalformedPDF},
		"text":      {[]byte("Dear Sir or Madam"), verify.Invalid, verify.CodeMalformedPDF},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, check(t, c.doc, trust(authority())), c.verdict, c.code)
		})
	}
}

func TestCancelledContextIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify.Verify(ctx, bytes.NewReader(contract()), verify.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestMutantsOfASealedDocumentAreInvalid leaves out what no signature covers and none needs: the value also carries
// certificates that may be had from elsewhere.
func TestMutantsOfASealedDocumentAreInvalid(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a).stamped(a))
	start := bytes.LastIndex(sealed, []byte("/Contents <")) + len("/Contents <")
	end := start + bytes.IndexByte(sealed[start:], '>')
	for name, mutant := range hostile.Mutants(1, sealed, 3000) {
		if bytes.HasPrefix(mutant, sealed[:start]) && bytes.HasSuffix(mutant, sealed[end:]) {
			continue
		}
		r, err := verify.Verify(t.Context(), bytes.NewReader(mutant), trust(a))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.Verdict == verify.Valid {
			t.Errorf("%s is called valid", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	a := authority()
	sealed := seal(f, contract(), sealOf(a).stamped(a))
	f.Add(sealed)
	f.Add(seal(f, sealed, sealOf(a)))
	f.Add(contract())
	f.Add(archived(f, sealed, a))
	f.Add(update(f, certified(f, a, 2), fill(f, "900")))
	f.Fuzz(func(t *testing.T, doc []byte) {
		hostile.Budget(t)
		r, err := verify.Verify(t.Context(), bytes.NewReader(doc), trust(a))
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict == verify.Valid && !slices.ContainsFunc(r.Signatures, func(s verify.Signature) bool { return s.Signer != nil || s.Timestamp != nil }) {
			t.Error("valid without a signer")
		}
	})
}
