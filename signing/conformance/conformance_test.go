//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
)

var levels = []pades.Level{pades.BB, pades.BT, pades.BLT, pades.BLTA}

// schemes are the algorithms of the cover: a key, and for RSA how it is used.
var schemes = []struct {
	name, key string
	pss       bool
}{
	{"RSA-2048 PKCS #1", "RSA-2048", false}, {"RSA-3072 PKCS #1", "RSA-3072", false}, {"RSA-2048 PSS", "RSA-2048", true}, {"RSA-3072 PSS", "RSA-3072", true},
	{"P-256", "P-256", false}, {"P-384", "P-384", false}, {"P-521", "P-521", false},
}

var hashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}

// rungs are the levels of the cover. From B-LT on there is validation data, which may be listed for each signature as well.
var rungs = []struct {
	level pades.Level
	vri   bool
}{{pades.BB, false}, {pades.BT, false}, {pades.BLT, false}, {pades.BLTA, false}, {pades.BLT, true}, {pades.BLTA, true}}

// parties are the signatures of a file of the cover: of so many parties, or that of one with the second seal of a rollover.
var parties = []struct {
	signatures int
	dual       bool
}{{1, false}, {2, false}, {3, false}, {1, true}}

// recipe is one row of the cover.
type recipe struct {
	level      pades.Level
	vri, dual  bool
	scheme     int
	hash       crypto.Hash
	visible    bool
	certify    int
	signatures int
	existing   bool
}

func (r recipe) String() string {
	s := fmt.Sprintf("%s %s %s, %d signatures", r.level, schemes[r.scheme].name, r.hash, r.count())
	if r.vri {
		s += ", VRI"
	}
	if r.dual {
		s += ", dual seal"
	}
	if r.visible {
		s += ", visible"
	}
	if r.certify > 0 {
		s += fmt.Sprintf(", certified %d", r.certify)
	}
	if r.existing {
		s += ", existing field"
	}
	return s
}

// count is how many signatures a file has in the end.
func (r recipe) count() int {
	if r.dual {
		return r.signatures + 1
	}
	return r.signatures
}

// prepared names the empty field of a party.
func prepared(party int) string { return "Prepared" + strconv.Itoa(party+1) }

// make seals a document as the recipe says.
func (h *house) make(ctx context.Context, doc []byte, r recipe) ([]byte, error) {
	level := r.level
	if level.AtLeast(pades.BT) {
		level = pades.BT
	}
	for i := range r.signatures {
		req := signing.Request{Profile: signing.Profile{Name: "conformance", Key: signer(schemes[r.scheme].key, i), PSS: schemes[r.scheme].pss, Hash: r.hash, Dual: r.dual,
			Level: level, Reason: "Conformance", SignerName: "Example", Location: "Paris"}}
		if i == 0 {
			req.Profile.Certify = r.certify
		}
		// A new field that shows on a page is a change that a certification does not allow.
		if r.visible && (i == 0 || r.certify == 0 || r.existing) {
			req.Text = []string{"Sealed by Example", "Signature " + strconv.Itoa(i+1), "Żółć, 20 November 2026"}
			if !r.existing {
				req.Rect = [4]float64{60, 60 + float64(60*i), 240, 110 + float64(60*i)}
			}
		}
		if r.existing {
			req.Field = prepared(i)
		}
		var err error
		if doc, err = h.seal(ctx, doc, req); err != nil {
			return nil, fmt.Errorf("signature %d: %w", i+1, err)
		}
	}
	if !r.level.AtLeast(pades.BLT) {
		return doc, nil
	}
	return h.extend(ctx, doc, r.level, r.vri)
}

// original is a PDF that somebody else made.
type original struct {
	name, path, producer string
	sound                bool // for qpdf
	bytes                int64
}

const maxOriginal = 8 << 20

// originals are the PDFs of others, by name.
func originals(t *testing.T) []original {
	t.Helper()
	var list []original
	base := work(t, "corpus")
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".pdf") {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > maxOriginal || !info.Mode().IsRegular() {
			return err
		}
		name, err := filepath.Rel(base, path)
		list = append(list, original{name: filepath.ToSlash(name), path: path, bytes: info.Size()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	each(list, func(o *original) {
		_, err := command(t.Context(), "qpdf", "--check", o.path)
		o.sound = err == nil
		o.producer = producerOf(o.path)
	})
	return list
}

// each calls f for every element, two at a time: the machine that this is for has two cores.
func each[T any](list []T, f func(*T)) {
	var group sync.WaitGroup
	work := make(chan *T)
	for range 2 {
		group.Go(func() {
			for x := range work {
				f(x)
			}
		})
	}
	for i := range list {
		work <- &list[i]
	}
	close(work)
	group.Wait()
}

var versionInName = regexp.MustCompile(`[\s(,/;-]*[vV]?\d.*$`)

// producerOf is the program that made a file, without its version; empty if the file does not say.
func producerOf(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	f, err := pdf.Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return ""
	}
	info, err := f.ResolveDict(f.Trailer().Get("Info"))
	if err != nil {
		return ""
	}
	v, err := f.Resolve(info.Get("Producer"))
	if err != nil {
		return ""
	}
	name := strings.Join(strings.Fields(versionInName.ReplaceAllString(pdf.Text(v), "")), " ")
	return strings.TrimSpace(strings.Trim(name, ".,;()"))
}

// pristine tells whether a file has neither signatures nor other traits of its own that decide what can be done with it.
func pristine(o original) bool {
	content, err := os.ReadFile(o.path)
	if err != nil || !o.sound {
		return false
	}
	f, err := pdf.Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return false
	}
	_, page, err := f.Page(1)
	if err != nil {
		return false
	}
	v, err := f.Inherited(page, "MediaBox")
	if err != nil {
		return false
	}
	box, err := f.Rect(v)
	_, catalog, cerr := f.Catalog()
	// The boxes of the cover need a page of that size.
	return err == nil && cerr == nil && box[0] <= 0 && box[1] <= 0 && box[2] >= 250 && box[3] >= 300 && !catalog.Has("AcroForm") && !catalog.Has("Perms") && !page.Has("CropBox")
}

const maxProducers = 20

// producers chooses the smallest pristine file of each producer.
func producers(list []original) (chosen []original) {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b original) int { return int(a.bytes - b.bytes) })
	seen := map[string]bool{}
	for _, o := range sorted {
		if o.producer == "" || seen[strings.ToLower(o.producer)] || !pristine(o) || len(chosen) == maxProducers {
			continue
		}
		seen[strings.ToLower(o.producer)] = true
		chosen = append(chosen, o)
	}
	return chosen
}

// TestConformance is the whole suite.
func TestConformance(t *testing.T) {
	h := newHouse(t)
	validators := h.validators(t)
	report := newReport(validators)
	if err := os.MkdirAll(work(t, "own"), 0o755); err != nil {
		t.Fatal(err)
	}
	part := os.Getenv("CONFORMANCE_PART") // empty: all
	var others, from []original
	if part != "own" && part != "daemon" {
		others = originals(t)
		from = producers(others)
	}
	var documents []own
	if part == "" || part == "own" || part == "cover" {
		documents = ownDocuments(t)
	}
	if part == "" || part == "own" {
		h.judgeOwn(t, report, documents)
	}
	if part == "" || part == "daemon" {
		h.judgeTheDaemons(t, report)
	}
	if part == "" || part == "reverse" {
		h.judgeOthersSignatures(t, report, from)
	}
	if part == "" || part == "cover" {
		nda := documents[len(documents)-2]
		h.judgeTheCover(t, report, append([]original{{name: nda.name, path: nda.path, producer: "dealseal (Typst)", sound: true}}, from...))
	}
	if part == "" || part == "others" {
		h.judgeOthersFiles(t, report, others)
	}
	report.finish(t)
}

func (h *house) judgeTheCover(t *testing.T, report *report, from []original) {
	if len(from) < 5 {
		report.notRun("the cover", fmt.Sprintf("there are the PDFs of %d producers only: those of others could not be fetched", len(from)))
		return
	}
	if err := os.RemoveAll(work(t, "cover")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(work(t, "cover"), 0o755); err != nil {
		t.Fatal(err)
	}
	from, fields := h.prepare(t, from)
	if len(from) == 0 {
		report.notRun("the cover", "pyHanko, which makes the fields that are there already, could not be fetched")
		return
	}
	rows := cover([]int{len(rungs), len(schemes), len(hashes), len(from), 2, 4, len(parties), 2}, func(row []int) bool { return row[5] != 1 || row[6] == 0 })
	t.Logf("%d files from %d producers", len(rows), len(from))
	indices := make([]int, len(rows))
	for i := range indices {
		indices[i] = i
	}
	each(indices, func(i *int) {
		row := rows[*i]
		r := recipe{level: rungs[row[0]].level, vri: rungs[row[0]].vri, scheme: row[1], hash: hashes[row[2]], visible: row[4] == 1, certify: row[5],
			signatures: parties[row[6]].signatures, dual: parties[row[6]].dual, existing: row[7] == 1}
		o := from[row[3]]
		name := fmt.Sprintf("%03d %s: %s", *i, o.producer, r)
		path := o.path
		if r.existing {
			path = fields[o.path][row[4]]
		}
		doc, err := os.ReadFile(path)
		if err == nil {
			doc, err = h.make(t.Context(), doc, r)
		}
		if err != nil {
			report.refuse("cover", name, err)
			return
		}
		f := &sealed{name: name, path: work(t, "cover", fmt.Sprintf("%03d.pdf", *i)), content: doc, level: r.level, signatures: r.count(), sound: o.sound}
		if err := os.WriteFile(f.path, doc, 0o644); err != nil {
			t.Error(err)
		}
		report.judge(t, "cover", f)
	})
}

// prepare has pyHanko make empty fields, unseen and seen, in the document of each producer, and keeps the producers of
// whose document it can make sense.
func (h *house) prepare(t *testing.T, from []original) (kept []original, made map[string][2]string) {
	t.Helper()
	p := startPyHanko(t, h.root)
	if p == nil {
		return nil, nil
	}
	made = map[string][2]string{}
	for i, o := range from {
		var pair [2]string
		var err error
		for v := range pair {
			pair[v] = work(t, "cover", fmt.Sprintf("field-%02d-%d.pdf", i, v))
			if err = p.ask(new(any), "fields", o.path, pair[v], strconv.FormatBool(v == 1), prepared(0), prepared(1), prepared(2)); err != nil {
				t.Logf("left out: pyHanko makes no field in %s: %v", o.name, err)
				break
			}
		}
		if err == nil {
			kept, made[o.path] = append(kept, o), pair
		}
	}
	return kept, made
}

// judgeOthersFiles seals every PDF of others once, at levels that take turns.
func (h *house) judgeOthersFiles(t *testing.T, report *report, list []original) {
	if err := os.RemoveAll(work(t, "others")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(work(t, "others"), 0o755); err != nil {
		t.Fatal(err)
	}
	indices := make([]int, len(list))
	for i := range indices {
		indices[i] = i
	}
	each(indices, func(i *int) {
		o := list[*i]
		doc, err := os.ReadFile(o.path)
		if err != nil {
			t.Error(err)
			return
		}
		r := recipe{level: levels[*i%len(levels)], scheme: *i / len(levels) % len(schemes), hash: crypto.SHA256, signatures: 1}
		out, err := h.make(t.Context(), doc, r)
		if err != nil {
			report.refuse("others", o.name, err)
			return
		}
		if signatures(doc) > 0 {
			report.refuse("others", o.name, errors.New("we sealed it, but it bears signatures of strangers, whom the validators have no reason to trust: not judged"))
			return
		}
		f := &sealed{name: o.name, path: work(t, "others", fmt.Sprintf("%03d.pdf", *i)), content: out, level: r.level, signatures: 1, sound: o.sound}
		if err := os.WriteFile(f.path, out, 0o644); err != nil {
			t.Error(err)
		}
		report.judge(t, "others", f)
	})
}
