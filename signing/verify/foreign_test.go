package verify_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// opensslCMS lets openssl make a detached signature with an identity.
func opensslCMS(t *testing.T, id *pki.Identity, args ...string) func(covered []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing: install the Debian package openssl")
	}
	key, err := x509.MarshalPKCS8PrivateKey(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	return func(covered []byte) []byte {
		dir := t.TempDir()
		for name, data := range map[string][]byte{
			"data": covered, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
			"cert.pem": pki.PEM(id.Certificate), "chain.pem": pki.PEM(id.Chain()[1:]...),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		all := append([]string{"cms", "-sign", "-binary", "-in", "data", "-signer", "cert.pem", "-inkey", "key.pem", "-certfile", "chain.pem", "-outform", "DER", "-out", "cms"}, args...)
		cmd := exec.Command("openssl", all...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(all, " "), err, out)
		}
		der, err := os.ReadFile(filepath.Join(dir, "cms"))
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
}

func TestSignaturesMadeByOpenSSLAreJudged(t *testing.T) {
	ec, rs := authority(), rsaAuthority()
	pkcs7, cades := pdf.Name("adbe.pkcs7.detached"), pdf.Name("ETSI.CAdES.detached")
	for name, c := range map[string]struct {
		authority *pki.Authority
		filter    pdf.Name
		args      []string
		verdict   verify.Verdict
		code      verify.Code
	}{
		"PKCS #7":                   {rs, pkcs7, []string{"-md", "sha256"}, verify.Valid, verify.CodeNotBaseline},
		"PKCS #7 ECDSA":             {ec, pkcs7, []string{"-md", "sha384"}, verify.Valid, verify.CodeNotBaseline},
		"PKCS #7 PSS":               {rs, pkcs7, []string{"-md", "sha256", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:32"}, verify.Valid, verify.CodeNotBaseline},
		"CAdES":                     {ec, cades, []string{"-md", "sha256", "-cades"}, verify.Valid, verify.CodeNotBaseline}, // it has a signing-time
		"CAdES SHA-512":             {rs, cades, []string{"-md", "sha512", "-cades"}, verify.Valid, verify.CodeNotBaseline},
		"by key identifier":         {ec, pkcs7, []string{"-md", "sha256", "-keyid"}, verify.Valid, ""},
		"PAdES without binding":     {ec, cades, []string{"-md", "sha256"}, verify.Invalid, verify.CodeNotBound},
		"SHA-1":                     {ec, pkcs7, []string{"-md", "sha1"}, verify.Indeterminate, verify.CodeWeak},
		"without attributes":        {ec, pkcs7, []string{"-md", "sha256", "-noattr"}, verify.Indeterminate, verify.CodeUnsupported},
		"without certificates":      {ec, pkcs7, []string{"-md", "sha256", "-nocerts"}, verify.Indeterminate, verify.CodeNoCertificate},
		"with the content embedded": {ec, pkcs7, []string{"-md", "sha256", "-nodetach"}, verify.Invalid, verify.CodeMalformedCMS},
		"unknown sub-filter":        {ec, "adbe.x509.rsa_sha1", []string{"-md", "sha256"}, verify.Indeterminate, verify.CodeUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			entries := pdf.D("SubFilter", c.filter, "M", pdf.Date(time.Now()))
			doc := signBy(t, contract(), entries, opensslCMS(t, c.authority.Signer, c.args...))
			want(t, check(t, doc, trust(c.authority)), c.verdict, c.code)
		})
	}
}

func TestBaselineIsNotReachedWithoutADate(t *testing.T) {
	a := authority()
	entries := pdf.D("SubFilter", pdf.Name("ETSI.CAdES.detached"))
	r := check(t, signBy(t, contract(), entries, opensslCMS(t, a.Signer, "-md", "sha256", "-cades")), trust(a))
	want(t, r, verify.Valid, verify.CodeNotBaseline)
	if r.Level() != "" {
		t.Errorf("level %q", r.Level())
	}
}

func TestDocumentTimestampIsJudged(t *testing.T) {
	a := authority()
	stamp := func(doc []byte, over []byte) []byte {
		return signBy(t, doc, pdf.D("SubFilter", pdf.Name("ETSI.RFC3161")), func(covered []byte) []byte {
			if over == nil {
				over = covered
			}
			sum := sha256.Sum256(over)
			token, err := a.Token(sum[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			return token
		})
	}
	r := check(t, stamp(seal(t, contract(), sealOf(a)), nil), trust(a))
	want(t, r, verify.Valid, verify.CodeLaterSignatures)
	if s := r.Signatures[1]; s.Kind != verify.KindDocumentTimestamp || s.Timestamp == nil || !s.CoversWholeFile {
		t.Errorf("document time-stamp: %+v", s)
	}
	if r.Level() != pades.BB {
		t.Errorf("the document time-stamp changes the level of the signature to %q", r.Level())
	}
	want(t, check(t, stamp(contract(), []byte("other")), trust(a)), verify.Invalid, verify.CodeDigest)
	want(t, check(t, stamp(contract(), nil), verify.Options{}), verify.Indeterminate, verify.CodeUntrusted)
}

func TestValueIsReadOnlyAsTheStandardAsks(t *testing.T) {
	a := authority()
	entries := pdf.D("SubFilter", pdf.Name("adbe.pkcs7.detached"))
	sign := opensslCMS(t, a.Signer, "-md", "sha256")
	for name, c := range map[string]struct {
		change func([]byte) []byte
		code   verify.Code
	}{
		"bytes behind the CMS": {func(b []byte) []byte { return append(b, 0, 1) }, verify.CodeMalformedCMS},
		"no CMS at all":        {func([]byte) []byte { return []byte("hello") }, verify.CodeMalformedCMS},
		"an empty value":       {func([]byte) []byte { return nil }, verify.CodeMalformedCMS},
		"indefinite length":    {func(b []byte) []byte { return append([]byte{0x30, 0x80}, b[4:]...) }, verify.CodeMalformedCMS},
	} {
		t.Run(name, func(t *testing.T) {
			doc := signBy(t, contract(), entries, func(covered []byte) []byte { return c.change(sign(covered)) })
			want(t, check(t, doc, trust(a)), verify.Invalid, c.code)
		})
	}
}

// TestHoleMayHoldNothingButTheValue makes holes that leave more than the value out of what is covered.
func TestHoleMayHoldNothingButTheValue(t *testing.T) {
	a := authority()
	sealed := seal(t, contract(), sealOf(a))
	r := check(t, sealed, trust(a)).Signatures[0].ByteRange
	for name, hole := range map[string]string{
		"ends early":      ">  ",
		"holds a comment": "%x\n",
		"has white space": " \n ",
	} {
		t.Run(name, func(t *testing.T) {
			changed := bytes.Clone(sealed)
			copy(changed[r[2]-100:], hole)
			want(t, check(t, changed, trust(a)), verify.Invalid, "")
		})
	}
}

func TestHoleElsewhereThanTheValueIsInvalid(t *testing.T) {
	a := authority()
	entries := baselineEntries()
	entries.Set("Contents", pdf.HexString([]byte("what another reader would look at")))
	r := check(t, signBy(t, contract(), entries, handmade{id: a.Signer}.sign(t)), trust(a))
	want(t, r, verify.Invalid, verify.CodeByteRange)
}

// TestAPageThatTheCatalogNamesIsAPageStill: many producers write where to open a document, by a reference to the page.
func TestAPageThatTheCatalogNamesIsAPageStill(t *testing.T) {
	a := authority()
	doc := update(t, contract(), func(f *pdf.File, u *pdf.Update) {
		ref, catalog, err := f.Catalog()
		if err != nil {
			t.Fatal(err)
		}
		page, _, err := f.Page(1)
		if err != nil {
			t.Fatal(err)
		}
		catalog = catalog.Clone()
		catalog.Set("OpenAction", pdf.Array{page, pdf.Name("Fit")})
		u.Put(ref, catalog)
	})
	twice := seal(t, seal(t, doc, sealOf(a)), sealOf(a))
	want(t, check(t, twice, trust(a)), verify.Valid, verify.CodeLaterSignatures)
}

// TestDocumentsOfEveryStructureAreJudged lets qpdf write the document in the ways that producers do.
func TestDocumentsOfEveryStructureAreJudged(t *testing.T) {
	if _, err := exec.LookPath("qpdf"); err != nil {
		t.Fatal("qpdf is missing: install the Debian package qpdf")
	}
	a := authority()
	c := newChecker(t, verify.CheckerOptions{})
	for name, args := range map[string][]string{
		"table":          {"--object-streams=disable"},
		"object streams": {"--object-streams=generate"},
		"linearized":     {"--linearize"},
		"both":           {"--linearize", "--object-streams=generate"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in.pdf"), filepath.Join(dir, "out.pdf")
			if err := os.WriteFile(in, contract(), 0o600); err != nil {
				t.Fatal(err)
			}
			if text, err := exec.Command("qpdf", append(args, in, out)...).CombinedOutput(); err != nil {
				t.Fatalf("qpdf: %v\n%s", err, text)
			}
			doc, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			once := seal(t, doc, sealOf(a).stamped(a))
			twice := seal(t, once, sealing{key: a.Signer.Key, chain: a.Signer.Chain(), field: "seal"})
			r, err := c.Check(t.Context(), bytes.NewReader(twice), trust(a))
			if err != nil {
				t.Fatal(err)
			}
			want(t, r, verify.Valid, verify.CodeLaterSignatures)
			if r.SecondOpinion.Verdict != verify.OpinionValid {
				t.Errorf("second opinion: %+v", r.SecondOpinion)
			}
			changed := update(t, twice, func(f *pdf.File, u *pdf.Update) {
				ref, page, err := f.Page(1)
				if err != nil {
					t.Fatal(err)
				}
				page = page.Clone()
				page.Set("Rotate", 90)
				u.Put(ref, page)
			})
			want(t, check(t, changed, trust(a)), verify.Invalid, verify.CodeContentChanged)
		})
	}
}
