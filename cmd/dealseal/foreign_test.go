package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

// foreignSample is how many of the files that this machine has are sealed; with the variable of that name set to "all",
// every file in every variant.
const (
	foreignSample   = 40
	foreignVariable = "DEALSEAL_FOREIGN"
	maxForeign      = 32 << 20 // bytes of one file
)

// variants are rewritings by qpdf that keep the content and change the structure.
var variants = [][]string{
	nil, // as it is
	{"--linearize", "--object-streams=disable"},
	{"--object-streams=generate"},
	{"--object-streams=disable"},
	{"--linearize", "--object-streams=generate"},
	{"--object-streams=disable", "--newline-before-endstream", "--qdf", "--no-original-object-ids"},
}

// TestFilesOfOtherProducersAreSealedOrRefused seals what the packages of this machine have brought below /usr, and has
// others judge the result. What is refused must be refused for a reason that the file gives.
func TestFilesOfOtherProducersAreSealedOrRefused(t *testing.T) {
	t.Parallel()
	found := foreignFiles(t)
	if len(found) == 0 {
		t.Fatal("there is no PDF below /usr: scripts/deps.sh producers installs packages that bring some")
	}
	all := os.Getenv(foreignVariable) == "all"
	sample := found
	if !all {
		sample = found[:min(len(found), foreignSample)]
	}
	t.Logf("%d of %d files; %s=all takes all of them in all variants", len(sample), len(found), foreignVariable)
	j := newJury(t)
	for i, f := range sample {
		for v, options := range variants {
			if all || v == 0 || v == 1+i%(len(variants)-1) {
				j.try(t, f.name, f.content, options)
			}
		}
	}
}

// TestFormsAreSealedInEveryStructure seals a form that is filled in, in all variants.
func TestFormsAreSealedInEveryStructure(t *testing.T) {
	t.Parallel()
	form, err := os.ReadFile("testdata/form.pdf")
	if err != nil {
		t.Fatal(err)
	}
	j := newJury(t)
	for _, options := range variants {
		if sealed := j.try(t, "form.pdf", form, options); sealed == nil {
			t.Errorf("%v: a form was refused", options)
		}
	}
}

// TestEncryptedFilesAreRefused, because a seal on what nobody can read without a password would say nothing.
func TestEncryptedFilesAreRefused(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("testdata/contract.pdf")
	if err != nil {
		t.Fatal(err)
	}
	j := newJury(t)
	for _, user := range []string{"", "secret"} {
		locked := rewrite(t, document, "--encrypt", user, "owner", "256", "--")
		_, err := j.seal(t, locked)
		var encrypted *pdf.EncryptedError
		if !errors.As(err, &encrypted) {
			t.Errorf("user password %q: %v", user, err)
		}
	}
}

// foreignFile is a PDF that was found.
type foreignFile struct {
	name    string
	content []byte
	key     string
}

// foreignFiles returns the PDFs below /usr without duplicates, such that each producer comes before any comes twice; apart
// from that by hash, so that the order is as good as any and always the same.
func foreignFiles(t *testing.T) []foreignFile {
	t.Helper()
	seen := map[string]bool{}
	byProducer := map[string][]foreignFile{}
	for _, dir := range []string{"/usr/share", "/usr/lib"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(strings.TrimSuffix(path, ".gz"), ".pdf") {
				return nil // what may not be read is nothing to seal
			}
			content, err := readForeign(path)
			if err != nil {
				t.Logf("%s: passed over: %v", path, err)
				return nil
			}
			f := foreignFile{name: path, content: content, key: fmt.Sprintf("%x", sha256.Sum256(content))}
			if !seen[f.key] {
				seen[f.key] = true
				p := producer(t, content)
				byProducer[p] = append(byProducer[p], f)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return inTurn(byProducer)
}

// inTurn takes one file of each producer in turn.
func inTurn(byProducer map[string][]foreignFile) (order []foreignFile) {
	for len(byProducer) > 0 {
		var round []foreignFile
		for p, list := range byProducer {
			slices.SortFunc(list, func(a, b foreignFile) int { return strings.Compare(a.key, b.key) })
			round = append(round, list[0])
			if byProducer[p] = list[1:]; len(list) == 1 {
				delete(byProducer, p)
			}
		}
		slices.SortFunc(round, func(a, b foreignFile) int { return strings.Compare(a.key, b.key) })
		order = append(order, round...)
	}
	return order
}

func readForeign(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(r, maxForeign+1))
	if err == nil && len(b) > maxForeign {
		err = fmt.Errorf("more than %d bytes", maxForeign)
	}
	return b, err
}

var producerLine = regexp.MustCompile(`(?m)^Producer:\s*(.*)$`)

// producer is the program that made the file, without its version.
func producer(t *testing.T, content []byte) string {
	out, _ := exec.Command("pdfinfo", written(t, content)).Output() // a file that pdfinfo cannot read has no producer
	m := producerLine.FindSubmatch(out)
	if m == nil {
		return ""
	}
	name, _, _ := strings.Cut(string(m[1]), " ")
	return strings.TrimRight(name, "-0123456789.")
}

// jury seals, and judges with the tools of others.
type jury struct {
	press *press
	bench *bench
}

func newJury(t *testing.T) *jury {
	t.Helper()
	o := newOffice(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "dealseal.yaml")
	if err := errors.Join(o.write(dir), os.WriteFile(file, fmt.Appendf(nil, goodConfiguration, dir, dir, o.tsa()), 0o600)); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadWithoutTenants(file)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{cfg: cfg}
	if h.roots, err = loadRoots(cfg); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	keys, err := h.newKeys(log)
	if err != nil {
		t.Fatal(err)
	}
	stamper, err := h.newTimestamper(log)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := h.profile("contract")
	if err != nil {
		t.Fatal(err)
	}
	checker := newChecker(h.roots, log)
	t.Cleanup(func() {
		if err := errors.Join(checker.Close(), keys.Close()); err != nil {
			t.Error(err)
		}
	})
	return &jury{press: &press{sealer: signing.NewSealer(keys, stamper, time.Now), extender: h.newExtender(stamper, log), checker: checker, profile: profile, stderr: io.Discard},
		bench: newBench(t, filepath.Join(dir, "root.pem"))}
}

// try seals one variant of a file. It returns nil when that was refused for a good reason.
func (j *jury) try(t *testing.T, name string, content []byte, options []string) (sealed []byte) {
	t.Helper()
	label := strings.TrimSpace(filepath.Base(name) + " " + strings.Join(options, " "))
	if options != nil {
		if content = rewrite(t, content, options...); content == nil {
			t.Logf("%s: qpdf cannot rewrite it", label)
			return nil
		}
	}
	sealed, err := j.seal(t, content)
	if err != nil {
		j.judgeRefusal(t, label, content, err)
		return nil
	}
	if !bytes.HasPrefix(sealed, content) {
		t.Errorf("%s: the document was changed, not added to", label)
	}
	j.judge(t, label, content, sealed)
	return sealed
}

// seal returns the sealed bytes; our own verifier and the second reader have agreed by then.
func (j *jury) seal(t *testing.T, content []byte) ([]byte, error) {
	t.Helper()
	in, err := openFile(written(t, content))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out := filepath.Join(t.TempDir(), "sealed.pdf")
	made, err := sealFile(t, j.press, in, out)
	if err != nil {
		return nil, err
	}
	if len(made) != 1 || made[0].Level != pades.BT || made[0].Verdict != verify.Valid {
		t.Errorf("sealed as %+v", made)
	}
	sealed, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return sealed, nil
}

// judgeRefusal: a file that qpdf finds nothing wrong with may only be refused because it is encrypted or certified against
// changes.
func (j *jury) judgeRefusal(t *testing.T, label string, content []byte, err error) {
	t.Helper()
	t.Logf("%s: refused: %v", label, err)
	var encrypted *pdf.EncryptedError
	var refused *pades.RefusedError
	if errors.As(err, &encrypted) || errors.As(err, &refused) {
		return
	}
	if check(t, content) == nil {
		t.Errorf("%s: was refused, and qpdf finds nothing wrong with it", label)
	}
}

// judge asks the judges of others about the sealed file.
func (j *jury) judge(t *testing.T, label string, content, sealed []byte) {
	t.Helper()
	for judge, err := range j.bench.verdicts(t, sealed, evidenceOf(t, sealed)) {
		// A file that had flaws before keeps them.
		if err != nil && (judge != "qpdf" || check(t, content) == nil) {
			t.Errorf("%s: %s: %v", label, judge, err)
		}
	}
}

// cut returns a signature of a file, and what it covers.
func cut(t *testing.T, sealed []byte, r []int64) (value, covered []byte) {
	t.Helper()
	value, ok := pdf.StringBytes(pdf.Raw(sealed[r[1]:r[2]]))
	if !ok {
		t.Fatal("the seal's hole is not a string")
	}
	n, err := cms.ElementLength(value) // the rest of the hole is padding
	if err != nil {
		t.Fatal(err)
	}
	return value[:n], append(bytes.Clone(sealed[:r[1]]), sealed[r[2]:r[2]+r[3]]...)
}

// rewrite has qpdf rewrite a document; nil when it cannot.
func rewrite(t *testing.T, content []byte, options ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.pdf")
	err := exec.Command("qpdf", append(slices.Clone(options), written(t, content), out)...).Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 { // with warnings
		err = nil
	}
	if err != nil {
		return nil
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// check is qpdf's opinion on the structure.
func check(t *testing.T, content []byte) error {
	t.Helper()
	out, err := exec.Command("qpdf", "--check", written(t, content)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func written(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
