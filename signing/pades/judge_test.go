package pades

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dealseal/dealseal/pdf"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if dir := trustStore.dir; dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// trustStore is an NSS database with the throw-away root as its only trusted one, as pdfsig wants it.
var trustStore struct {
	sync.Mutex
	dir string
}

func trustStoreDir(t *testing.T) string {
	t.Helper()
	trustStore.Lock()
	defer trustStore.Unlock()
	if trustStore.dir != "" {
		return trustStore.dir
	}
	dir, err := os.MkdirTemp("", "pades-nss-")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "libnss3-tools", "certutil", "-N", "-d", "sql:"+dir, "--empty-password")
	run(t, "libnss3-tools", "certutil", "-A", "-d", "sql:"+dir, "-n", "root", "-t", "CT,C,C", "-a", "-i", writePEM(t, throwAway().root))
	trustStore.dir = dir
	return dir
}

// judge has poppler, qpdf and OpenSSL look at a sealed file with so many signatures.
func judge(t *testing.T, sealed []byte, signatures int) {
	t.Helper()
	path := writeFile(t, "sealed.pdf", sealed)
	out := run(t, "poppler-utils", "pdfsig", "-nssdir", "sql:"+trustStoreDir(t), path)
	if n := strings.Count(out, "Signature is Valid."); n != signatures {
		t.Errorf("pdfsig calls %d of %d signatures valid:\n%s", n, signatures, out)
	}
	if n := strings.Count(out, "Certificate is Trusted."); n != signatures {
		t.Errorf("pdfsig trusts %d of %d signatures:\n%s", n, signatures, out)
	}
	if n := strings.Count(out, "Total document signed"); n != 1 {
		t.Errorf("pdfsig: %d signatures cover the whole file, want the last one:\n%s", n, out)
	}
	run(t, "qpdf", "qpdf", "--check", path)
	found := extract(t, sealed)
	if len(found) != signatures {
		t.Fatalf("%d signatures found, want %d", len(found), signatures)
	}
	for _, s := range found {
		s.checkWithOpenSSL(t)
	}
}

// extracted is a signature as it stands in a file.
type extracted struct {
	field   pdf.Field
	dict    *pdf.Dict
	cms     []byte
	covered []byte
}

// extract reads the signatures of a file, and makes sure that each covers all of its revision except for its contents.
func extract(t *testing.T, sealed []byte) []extracted {
	t.Helper()
	f, err := pdf.Open(bytes.NewReader(sealed), int64(len(sealed)))
	if err != nil {
		t.Fatal(err)
	}
	fields, err := f.Fields()
	if err != nil {
		t.Fatal(err)
	}
	var list []extracted
	for _, field := range fields {
		if field.Type != "Sig" || field.Value == nil {
			continue
		}
		d, err := f.ResolveDict(field.Value)
		if err != nil {
			t.Fatal(err)
		}
		var r [4]int64
		for i, v := range d.Get("ByteRange").(pdf.Array) {
			r[i], _ = pdf.Int(v)
		}
		contents, _ := pdf.StringBytes(d.Get("Contents"))
		hole := sealed[r[1]:r[2]]
		if inHole, _ := pdf.StringBytes(pdf.Raw(hole)); r[0] != 0 || !bytes.Equal(inHole, contents) {
			t.Fatalf("/ByteRange %v does not leave out exactly /Contents", r)
		}
		if end := sealed[:r[2]+r[3]]; !bytes.HasSuffix(end, []byte("%%EOF\n")) {
			t.Fatalf("/ByteRange %v does not end with a revision", r)
		}
		var der asn1.RawValue
		if _, err := asn1.Unmarshal(contents, &der); err != nil {
			t.Fatal(err)
		}
		covered := append(bytes.Clone(sealed[:r[1]]), sealed[r[2]:r[2]+r[3]]...)
		list = append(list, extracted{field: field, dict: d, cms: der.FullBytes, covered: covered})
	}
	return list
}

func (s extracted) checkWithOpenSSL(t *testing.T) {
	t.Helper()
	run(t, "openssl", "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", writeFile(t, "cms.der", s.cms),
		"-content", writeFile(t, "covered", s.covered), "-CAfile", writePEM(t, throwAway().root), "-purpose", "any", "-cades",
		"-out", os.DevNull)
}

// opensslTimestamp has OpenSSL make an RFC 3161 token over data, and returns it with a function that checks one.
func opensslTimestamp(t *testing.T, data []byte) (token []byte, check func(token []byte)) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{
		"data":   string(data),
		"serial": "01\n",
		"conf": "[req]\ndistinguished_name = dn\n[dn]\n[ext]\nextendedKeyUsage = critical,timeStamping\nkeyUsage = critical,digitalSignature\n" +
			"[tsa]\ndefault_tsa = c\n[c]\nserial = " + file("serial") + "\ncrypto_device = builtin\nsigner_digest = sha256\n" +
			"default_policy = 1.2.3.4\ndigests = sha256, sha384, sha512\naccuracy = secs:1\ness_cert_id_chain = no\ness_cert_id_alg = sha256\n",
	} {
		if err := os.WriteFile(file(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openssl := func(args ...string) { t.Helper(); run(t, "openssl", "openssl", args...) }
	openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=Throw-away TSA",
		"-keyout", file("key"), "-out", file("cert"), "-days", "2", "-config", file("conf"), "-extensions", "ext")
	openssl("ts", "-query", "-data", file("data"), "-sha256", "-cert", "-out", file("query"))
	openssl("ts", "-reply", "-config", file("conf"), "-queryfile", file("query"), "-signer", file("cert"), "-inkey", file("key"), "-token_out", "-out", file("token"))
	token, err := os.ReadFile(file("token"))
	if err != nil {
		t.Fatal(err)
	}
	return token, func(token []byte) {
		t.Helper()
		openssl("ts", "-verify", "-data", file("data"), "-token_in", "-in", writeFile(t, "token", token), "-CAfile", file("cert"))
	}
}

// dump lets OpenSSL print a CMS.
func dump(t *testing.T, cms []byte) string {
	t.Helper()
	return run(t, "openssl", "openssl", "cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", writeFile(t, "cms.der", cms))
}

// qpdfWith rewrites a document with options of qpdf.
func qpdfWith(t *testing.T, b []byte, options ...string) []byte {
	t.Helper()
	in, out := writeFile(t, "in.pdf", b), filepath.Join(t.TempDir(), "out.pdf")
	run(t, "qpdf", "qpdf", append(options, in, out)...)
	made, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// text extracts the text of a file.
func textOf(t *testing.T, b []byte) string {
	t.Helper()
	if _, err := exec.LookPath("pdftotext"); err != nil {
		t.Fatal("pdftotext is not installed: apt-get install poppler-utils")
	}
	return run(t, "poppler-utils", "pdftotext", "-layout", writeFile(t, "text.pdf", b), "-")
}

// findAttribute tells whether an OID stands in DER.
func findOID(der []byte, oid asn1.ObjectIdentifier) bool {
	b, err := asn1.Marshal(oid)
	if err != nil {
		panic(err)
	}
	return strings.Contains(hex.EncodeToString(der), hex.EncodeToString(b))
}
