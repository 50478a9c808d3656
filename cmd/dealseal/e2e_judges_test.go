package main

import (
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/signing/verify/cms"
)

// TestJudgesOfOthersAcceptWhatTheDaemonSealed asks poppler, qpdf and OpenSSL about the files on the records.
func TestJudgesOfOthersAcceptWhatTheDaemonSealed(t *testing.T) {
	eachCRM(t, worldOptions{hsm: true}, func(t *testing.T, s *stage, c crm) {
		bench := newBench(t, s.path("root.pem"))
		for _, rule := range []string{ruleContract, ruleQuote} {
			r := c.open(sale{quote: quotation(1)})
			c.move(r, rule)
			awaitDone(t, s.ops, r)
			judged := 0
			for _, f := range c.files(r) {
				if f.sealed() {
					judged++
					bench.judge(t, f.content, evidenceOf(t, f.content))
				}
			}
			if judged != 1 {
				t.Errorf("%d sealed files were judged", judged)
			}
		}
	})
}

// evidence is what a sealed file carries beside its pages.
type evidence struct{ cms, covered, value, token []byte }

// bench is the judges of others, who trust one root.
type bench struct {
	root, nss string
	pdfsig    []string // further flags
}

func newBench(t *testing.T, root string) *bench {
	t.Helper()
	b := &bench{root: root, nss: "sql:" + t.TempDir()}
	tool(t, nil, "certutil", "-N", "-d", b.nss, "--empty-password")
	tool(t, nil, "certutil", "-A", "-d", b.nss, "-n", "root", "-t", "CT,C,C", "-a", "-i", root)
	return b
}

func (b *bench) judge(t *testing.T, sealed []byte, e evidence) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, content, 0o600))
		return path
	}
	pdf := file("sealed.pdf", sealed)
	out := string(tool(t, nil, "pdfsig", append(b.pdfsig, "-nssdir", b.nss, pdf)...))
	for _, want := range []string{"Signature is Valid.", "Certificate is Trusted.", "Total document signed"} {
		if !strings.Contains(out, want) {
			t.Errorf("pdfsig does not say %q:\n%s", want, out)
		}
	}
	if out := string(tool(t, nil, "qpdf", "--check", pdf)); strings.Contains(out, "WARNING") {
		t.Errorf("qpdf warns:\n%s", out)
	}
	tool(t, nil, "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", file("cms", e.cms), "-content", file("covered", e.covered),
		"-CAfile", b.root, "-purpose", "any", "-cades", "-out", os.DevNull)
	digest := sha256.Sum256(e.value)
	tool(t, nil, "openssl", "ts", "-verify", "-token_in", "-in", file("token", e.token), "-digest", hex.EncodeToString(digest[:]), "-CAfile", b.root)
}

// oidTimestampToken is id-aa-timeStampToken (RFC 3161, appendix A).
var oidTimestampToken = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}

// evidenceOf cuts the signature out of a sealed file, and the time-stamp out of the signature.
func evidenceOf(t *testing.T, sealed []byte) (e evidence) {
	t.Helper()
	e.cms, e.covered = cut(t, sealed)
	n, err := cms.ElementLength(e.cms) // the rest of the hole is padding
	must(t, err)
	e.cms = e.cms[:n]
	sd, err := cms.Parse(e.cms)
	must(t, err)
	e.value = sd.Signers[0].Signature
	e.token, err = sd.Signers[0].Unsigned.Single(oidTimestampToken)
	must(t, err)
	return e
}
