package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

// The judges are poppler, qpdf and OpenSSL; what they judge are the files on the records.
func TestJudgesOfOthersAcceptWhatTheDaemonSealedAndRefuseItWithOneOtherByte(t *testing.T) {
	eachCRM(t, worldOptions{hsm: true, level: "B-LTA"}, func(t *testing.T, s *stage, c crm) {
		bench := newBench(t, s.path("root.pem"))
		for _, rule := range []string{ruleContract, ruleQuote} {
			r := c.open(sale{quote: quotation(1)})
			c.move(r, rule)
			story := awaitDone(t, s.ops, r)
			if rule == ruleContract {
				s.provesItself(t, story.Sealing.Tx)
			}
			judged := 0
			for _, f := range c.files(r) {
				if !f.sealed() {
					continue
				}
				judged++
				e := evidenceOf(t, f.content)
				bench.judge(t, f.content, e)
				mustBeMarked(t, f.content) // both accounts are sandboxes
				if rule == ruleQuote {
					bench.mustRefuseOtherBytes(t, f.content, e)
				}
			}
			if judged != 1 {
				t.Errorf("%d sealed files were judged", judged)
			}
		}
	})
}

// mustBeMarked wants on every page what a sandbox's documents say.
func mustBeMarked(t *testing.T, sealed []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sealed.pdf")
	must(t, os.WriteFile(file, sealed, 0o600))
	text := tool(t, os.Environ(), "pdftotext", "-raw", file, "-")
	pages := strings.Count(string(text), "\f") // ends each
	marks := strings.Count(strings.Join(strings.Fields(string(text)), ""), "TEST–notacontract")
	if pages == 0 || marks != pages {
		t.Errorf("%d of %d pages say that they are no contract", marks, pages)
	}
}

// mustRefuseOtherBytes changes one byte of a sealed quotation at a time: a judge that accepts everything proves nothing.
func (b *bench) mustRefuseOtherBytes(t *testing.T, sealed []byte, e evidence) {
	t.Helper()
	page := bytes.Index(sealed, []byte("Quotation 1"))
	table := bytes.LastIndex(sealed, []byte("startxref\n")) + len("startxref\n")
	value := bytes.Index(e.cms, e.value) + len(e.value) - 1 // the last byte of it
	inHex := bytes.Index(sealed, []byte(hex.EncodeToString(e.cms))) + 2*value
	with := func(change func(*evidence)) evidence {
		other := e
		change(&other)
		return other
	}
	for _, c := range []struct {
		changed string
		sealed  []byte
		e       evidence
		refused []string // by these judges at least
	}{
		{"the page", otherAt(sealed, page), with(func(o *evidence) {
			o.covered, o.archived = otherAt(e.covered, page), otherAt(e.archived, page)
		}), []string{"pdfsig", "pdfsig of the seal's revision", "openssl cms", "openssl ts of the archive"}},
		{"the place of the last table", otherAt(sealed, table), e, []string{"qpdf"}},
		{"the signature value", otherAt(sealed, inHex), with(func(o *evidence) {
			o.cms, o.value = otherAt(e.cms, value), otherAt(e.value, len(e.value)-1)
		}), []string{"pdfsig", "pdfsig of the seal's revision", "openssl cms", "openssl ts"}},
		{"the time-stamp", sealed, with(func(o *evidence) { o.token = otherAt(e.token, len(e.token)-1) }), []string{"openssl ts"}},
		{"the document time-stamp", sealed, with(func(o *evidence) { o.archive = otherAt(e.archive, len(e.archive)-1) }), []string{"openssl ts of the archive"}},
	} {
		verdicts := b.verdicts(t, c.sealed, c.e)
		for _, judge := range c.refused {
			if verdicts[judge] == nil {
				t.Errorf("%s accepts a file with another byte in %s", judge, c.changed)
			}
		}
	}
}

// otherAt returns b with another byte at a place; a digit stays a digit.
func otherAt(b []byte, at int) []byte {
	out := bytes.Clone(b)
	if out[at] = '1'; b[at] == '1' {
		out[at] = '2'
	}
	return out
}

// evidence is what a sealed file carries beside its pages.
type evidence struct {
	cms, covered, value, token []byte
	end                        int64  // of the seal's revision
	archive, archived          []byte // the document time-stamp behind it, and what that covers; nil if there is none
}

// bench is the judges of others, who trust one root.
type bench struct {
	root, nss string
	// offline is set where the responders that the certificates name have ended: then poppler trusts nobody, and whom the
	// seal leads to is for OpenSSL to say.
	offline bool
}

func newBench(t *testing.T, root string) *bench {
	t.Helper()
	b := &bench{root: root, nss: "sql:" + t.TempDir()}
	tool(t, nil, "certutil", "-N", "-d", b.nss, "--empty-password")
	tool(t, nil, "certutil", "-A", "-d", b.nss, "-n", "root", "-t", "CT,C,C", "-a", "-i", root)
	return b
}

// judge fails the test with what any judge has against a sealed file.
func (b *bench) judge(t *testing.T, sealed []byte, e evidence) {
	t.Helper()
	for judge, err := range b.verdicts(t, sealed, e) {
		if err != nil {
			t.Errorf("%s: %v", judge, err)
		}
	}
}

// verdicts asks every judge, by name, what is wrong with a sealed file and the evidence in it.
func (b *bench) verdicts(t *testing.T, sealed []byte, e evidence) map[string]error {
	t.Helper()
	digest := sha256.Sum256(e.value)
	verdicts := map[string]error{
		"pdfsig":                        b.pdfsig(written(t, sealed), ""),
		"pdfsig of the seal's revision": b.pdfsig(written(t, sealed[:e.end]), "Total document signed"),
		"qpdf":                          check(t, sealed),
		"openssl cms": judgement("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", written(t, e.cms), "-content", written(t, e.covered),
			"-CAfile", b.root, "-purpose", "any", "-cades", "-out", os.DevNull),
		"openssl ts": judgement("openssl", "ts", "-verify", "-token_in", "-in", written(t, e.token), "-digest", hex.EncodeToString(digest[:]), "-CAfile", b.root),
	}
	if e.archive != nil {
		verdicts["openssl ts of the archive"] = judgement("openssl", "ts", "-verify", "-token_in", "-in", written(t, e.archive), "-data", written(t, e.archived), "-CAfile", b.root)
	}
	return verdicts
}

// pdfsig has poppler look for a signature that it trusts and of which it says also that. Of document time-stamps it says
// that it does not verify them.
func (b *bench) pdfsig(file, also string) error {
	args, trusted := []string{"-nssdir", b.nss, file}, "Certificate is Trusted."
	if b.offline {
		args, trusted = append([]string{"-nocert"}, args...), ""
	}
	out, err := exec.Command("pdfsig", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, signature := range strings.Split(string(out), "Signature #")[1:] {
		if strings.Contains(signature, "Signature is Valid.") && strings.Contains(signature, trusted) && strings.Contains(signature, also) {
			return nil
		}
	}
	return fmt.Errorf("no signature is valid, trusted and %q: %s", also, out)
}

// judgement is nil if a command of others ends well.
func judgement(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// oidTimestampToken is id-aa-timeStampToken (RFC 3161, appendix A).
var oidTimestampToken = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}

// evidenceOf cuts the newest signature out of a sealed file, and the time-stamp out of the signature.
func evidenceOf(t *testing.T, sealed []byte) (e evidence) {
	t.Helper()
	report, err := verify.Verify(t.Context(), bytes.NewReader(sealed), verify.Options{})
	must(t, err)
	seal := report.Newest().ByteRange
	e.cms, e.covered = cut(t, sealed, seal)
	e.end = seal[2] + seal[3]
	for _, s := range report.Signatures {
		if s.Kind == verify.KindDocumentTimestamp && s.CoversWholeFile {
			e.archive, e.archived = cut(t, sealed, s.ByteRange)
		}
	}
	sd, err := cms.Parse(e.cms)
	must(t, err)
	e.value = sd.Signers[0].Signature
	e.token, err = sd.Signers[0].Unsigned.Single(oidTimestampToken)
	must(t, err)
	return e
}
