//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/pkcs7"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// sealed is a file to be judged.
type sealed struct {
	name       string // for people
	path       string
	content    []byte
	level      pades.Level
	signatures int
	sound      bool // qpdf found nothing to say of the original
}

// validator judges files.
type validator struct {
	name, version string
	absent        string // why it cannot be run; empty if it can
	judge         func(context.Context, *sealed) error
}

// validators are all judges, ours first. Those that are absent are in the list.
func (h *house) validators(t *testing.T) []*validator {
	t.Helper()
	list := []*validator{
		{name: "dealseal verify", version: "this tree", judge: h.ours},
		{name: "pdfsig", version: version("pdfsig", "-v"), judge: h.pdfsig(t)},
		{name: "qpdf --check", version: version("qpdf", "--version"), judge: qpdf},
		{name: "openssl cms / ts", version: version("openssl", "version"), judge: h.openssl},
	}
	hanko := &validator{name: "pyHanko AdES", absent: "it is not installed"}
	if p := startPyHanko(t, h.root); p != nil {
		var v struct{ PyHanko, Python string }
		if err := p.ask(&v, "versions"); err != nil {
			t.Fatal(err)
		}
		hanko.version, hanko.absent = fmt.Sprintf("pyHanko %s on Python %s", v.PyHanko, v.Python), ""
		hanko.judge = func(_ context.Context, f *sealed) error { return judgedBy(p, "PASSED", "", f) }
	}
	dss := &validator{name: "EU DSS", absent: "it is not built"}
	if p := startDSS(t, h.root); p != nil {
		var v struct{ Java string }
		if err := p.ask(&v, "versions"); err != nil {
			t.Fatal(err)
		}
		dss.version, dss.absent = fmt.Sprintf("DSS %s, veraPDF %s on Java %s", library(t, "dss-validation"), library(t, "validation-model"), v.Java), ""
		dss.judge = func(_ context.Context, f *sealed) error {
			return judgedBy(p, "TOTAL_PASSED", "PAdES-BASELINE-"+strings.TrimPrefix(string(f.level), "B-"), f)
		}
	}
	return append(list, hanko, dss)
}

// library is the version of a Java library that the judge was built with.
func library(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob(work(t, "judge", "lib", name+"-*.jar"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the library %s: %v, %v", name, found, err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), name+"-"), ".jar")
}

// version is the first line that a program says of itself.
func version(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return "missing"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// judgedBy asks a program of its own, and wants one answer for every signature. DSS says the level as well.
func judgedBy(p *program, want, level string, f *sealed) error {
	if f.level == pades.BB && level != "" {
		level = "PAdES-BASELINE-B"
	}
	var o opinions
	if err := p.ask(&o, "signature", f.path, string(f.level)); err != nil {
		return err
	}
	if len(o.Signatures) != f.signatures {
		return fmt.Errorf("%d signatures were found, of %d", len(o.Signatures), f.signatures)
	}
	for _, s := range o.Signatures {
		switch {
		case s.Indication != want:
			return fmt.Errorf("%s: %s %s: %s", s.Field, s.Indication, s.SubIndication, strings.Join(s.Errors, "; "))
		case level != "" && s.Level != level:
			return fmt.Errorf("%s: level %s: %s", s.Field, s.Level, strings.Join(s.Warnings, "; "))
		case s.DocMDP != nil && !*s.DocMDP:
			return fmt.Errorf("%s: changes that are not allowed: %s, %s", s.Field, s.Coverage, s.Modification)
		case strings.HasPrefix(s.Modification, "SUSPICIOUS"):
			return fmt.Errorf("%s: %s", s.Field, s.Modification)
		}
	}
	return nil
}

// ours is our own verifier.
func (h *house) ours(ctx context.Context, f *sealed) error {
	r, err := verify.Verify(ctx, bytes.NewReader(f.content), h.roots())
	if err != nil {
		return err
	}
	if r.Verdict != verify.Valid || r.Level() != f.level {
		var why []string
		for _, s := range r.Signatures {
			for _, reason := range s.Reasons {
				why = append(why, s.Field+": "+reason.Text)
			}
		}
		for _, reason := range r.Reasons {
			why = append(why, reason.Text)
		}
		return fmt.Errorf("%s at level %q: %s", r.Verdict, r.Level(), strings.Join(why, "; "))
	}
	return nil
}

// command runs a validator that is a command, and returns what it printed.
func command(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

// pdfsig has the root in a database of its own. It knows no document time-stamps: those it passes over.
func (h *house) pdfsig(t *testing.T) func(context.Context, *sealed) error {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{{"-N", "-d", "sql:" + dir, "--empty-password"}, {"-A", "-d", "sql:" + dir, "-n", "root", "-t", "CT,C,C", "-a", "-i", h.root}} {
		if out, err := command(t.Context(), "certutil", args...); err != nil {
			t.Fatalf("certutil: %v\n%s", err, out)
		}
	}
	return func(ctx context.Context, f *sealed) error {
		out, err := command(ctx, "pdfsig", "-nssdir", "sql:"+dir, f.path)
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(out))
		}
		valid, trusted := strings.Count(out, "Signature is Valid."), strings.Count(out, "Certificate is Trusted.")
		if valid != f.signatures || trusted != f.signatures {
			return fmt.Errorf("%d signatures valid and %d trusted, of %d: %s", valid, trusted, f.signatures, validation(out))
		}
		return nil
	}
}

var statusLine = regexp.MustCompile(`Validation: (.*)`)

func validation(out string) string {
	var list []string
	for _, m := range statusLine.FindAllStringSubmatch(out, -1) {
		list = append(list, m[1])
	}
	return strings.Join(list, "; ")
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// qpdf wants sound files where the originals were sound.
func qpdf(ctx context.Context, f *sealed) error {
	out, err := command(ctx, "qpdf", "--check", f.path)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 && !f.sound {
		return nil // warnings, as for the original
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(out))
	}
	return nil
}

// openssl verifies each CMS over the bytes that it covers, and each time-stamp token over what it is for.
func (h *house) openssl(ctx context.Context, f *sealed) error {
	file, err := pdf.Open(bytes.NewReader(f.content), int64(len(f.content)))
	if err != nil {
		return err
	}
	fields, err := file.Fields()
	if err != nil {
		return err
	}
	signatures := 0
	for _, field := range fields {
		if field.Type != "Sig" || field.Value == nil {
			continue
		}
		d, err := file.ResolveDict(field.Value)
		if err != nil {
			return err
		}
		if err := h.opensslField(ctx, f, d); err != nil {
			return fmt.Errorf("%s: %w", field.Name, err)
		}
		if d.Get("SubFilter") != pdf.Name("ETSI.RFC3161") {
			signatures++
		}
	}
	if signatures != f.signatures {
		return fmt.Errorf("%d signatures were found, of %d", signatures, f.signatures)
	}
	return nil
}

var oidSignatureTimestamp = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}

func (h *house) opensslField(ctx context.Context, f *sealed, d *pdf.Dict) error {
	var r [4]int64
	ranges, ok := d.Get("ByteRange").(pdf.Array)
	if !ok || len(ranges) != 4 {
		return errors.New("no /ByteRange")
	}
	for i, v := range ranges {
		r[i], _ = pdf.Int(v)
	}
	contents, _ := pdf.StringBytes(d.Get("Contents"))
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(contents, &value); err != nil {
		return err
	}
	covered := append(bytes.Clone(f.content[r[0]:r[1]]), f.content[r[2]:r[2]+r[3]]...)
	if d.Get("SubFilter") == pdf.Name("ETSI.RFC3161") {
		return h.opensslToken(ctx, value.FullBytes, covered)
	}
	dir, err := os.MkdirTemp("", "openssl-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cms, data := filepath.Join(dir, "cms"), filepath.Join(dir, "data")
	if err := errors.Join(os.WriteFile(cms, value.FullBytes, 0o600), os.WriteFile(data, covered, 0o600)); err != nil {
		return err
	}
	if out, err := command(ctx, "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", cms, "-content", data, "-CAfile", h.root,
		"-purpose", "any", "-cades", "-out", os.DevNull); err != nil {
		return fmt.Errorf("cms -verify: %w: %s", err, lastLine(out))
	}
	parsed, err := pkcs7.Parse(value.FullBytes)
	if err != nil {
		return err
	}
	for _, a := range parsed.Signers[0].UnauthenticatedAttributes {
		if a.Type.Equal(oidSignatureTimestamp) {
			return h.opensslToken(ctx, a.Value.Bytes, parsed.Signers[0].EncryptedDigest)
		}
	}
	if f.level != pades.BB {
		return errors.New("there is no signature time-stamp")
	}
	return nil
}

func (h *house) opensslToken(ctx context.Context, token, data []byte) error {
	dir, err := os.MkdirTemp("", "openssl-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in, content := filepath.Join(dir, "token"), filepath.Join(dir, "data")
	if err := errors.Join(os.WriteFile(in, token, 0o600), os.WriteFile(content, data, 0o600)); err != nil {
		return err
	}
	if out, err := command(ctx, "openssl", "ts", "-verify", "-data", content, "-token_in", "-in", in, "-CAfile", h.root); err != nil {
		return fmt.Errorf("ts -verify: %w: %s", err, lastLine(out))
	}
	return nil
}
