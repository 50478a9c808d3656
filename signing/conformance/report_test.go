//go:build conformance

package conformance

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
)

// report counts what was judged, for docs/CONFORMANCE.md.
type report struct {
	validators []*validator
	mu         sync.Mutex
	counts     map[string]map[pades.Level]*[2]int // by set and validator: passed, all
	refused    map[string][]string                // by set
	failed     map[string][]string                // by set
	took       map[string]time.Duration
	files      map[string]int
	absent     []string // what could not be tried, with the reason
}

func newReport(validators []*validator) *report {
	return &report{validators: validators, counts: map[string]map[pades.Level]*[2]int{}, refused: map[string][]string{}, failed: map[string][]string{},
		took: map[string]time.Duration{}, files: map[string]int{}}
}

// refuse notes a file that was not signed, with the reason.
func (r *report) refuse(set, name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[set] = append(r.refused[set], name+": "+oneLine(err))
}

// notRun notes what could not be tried. It is no success.
func (r *report) notRun(what, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.absent = append(r.absent, what+": "+why)
}

// judge asks all validators about a file.
func (r *report) judge(t *testing.T, set string, f *sealed) {
	r.mu.Lock()
	r.files[set]++
	r.mu.Unlock()
	for _, v := range r.validators {
		if v.absent != "" {
			continue
		}
		began := time.Now()
		err := v.judge(t.Context(), f)
		r.mu.Lock()
		r.took[v.name] += time.Since(began)
		r.mu.Unlock()
		r.verdict(set, v.name, f.level, f.name, err)
	}
}

// verdict counts what a validator says.
func (r *report) verdict(set, validator string, level pades.Level, name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := set + "/" + validator
	if r.counts[key] == nil {
		r.counts[key] = map[pades.Level]*[2]int{}
	}
	c := r.counts[key][level]
	if c == nil {
		c = &[2]int{}
		r.counts[key][level] = c
	}
	c[1]++
	if err == nil {
		c[0]++
		return
	}
	r.failed[set] = append(r.failed[set], fmt.Sprintf("%s: %s (%s): %s", validator, name, level, oneLine(err)))
}

// oneLine is an error fit for a list in Markdown.
func oneLine(err error) string {
	text := strings.NewReplacer("\n", " ", "|", "/", "<", "&lt;", "`", "'").Replace(err.Error())
	if runes := []rune(text); len(runes) > 300 {
		text = string(runes[:300]) + " …"
	}
	return text
}

// signatures is how many a document has.
func signatures(doc []byte) (n int) {
	f, err := pdf.Open(bytes.NewReader(doc), int64(len(doc)))
	if err != nil {
		return 0
	}
	fields, err := f.Fields()
	if err != nil {
		return 0
	}
	for _, field := range fields {
		if field.Type == "Sig" && field.Value != nil {
			n++
		}
	}
	return n
}

// table is the counts of a set, by validator and level.
func (r *report) table(b *strings.Builder, set string, rows ...string) {
	fmt.Fprintf(b, "| | B-B | B-T | B-LT | B-LTA |\n|---|---|---|---|---|\n")
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |", row)
		for _, level := range levels {
			if c := r.counts[set+"/"+row][level]; c != nil {
				fmt.Fprintf(b, " %d of %d |", c[0], c[1])
			} else {
				fmt.Fprint(b, " **not run** |")
			}
		}
		fmt.Fprintln(b)
	}
	fmt.Fprintln(b)
}

func (r *report) names() (list []string) {
	for _, v := range r.validators {
		list = append(list, v.name)
	}
	return list
}

// list writes findings, or that there are none.
func list(b *strings.Builder, title, none string, lines []string) {
	if len(lines) == 0 {
		fmt.Fprintf(b, "%s\n\n", none)
		return
	}
	fmt.Fprintf(b, "%s\n\n", title)
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Fprintf(b, "- %s\n", line)
	}
	fmt.Fprintln(b)
}

// finish writes the results, and fails the test for what a validator says against a file of the cover, against a document
// of ours, or what we say against a signature of others. Files of others have faults of their own: what is said against
// those stands in the results.
func (r *report) finish(t *testing.T) {
	for _, set := range []string{"cover", "own", "daemon", "reverse"} {
		slices.Sort(r.failed[set])
		for _, f := range r.failed[set] {
			t.Error(f)
		}
	}
	if err := os.WriteFile(work(t, "CONFORMANCE.md"), []byte(r.markdown()), 0o644); err != nil {
		t.Error(err)
	}
	t.Log(r.took)
	for _, v := range r.validators {
		if v.absent != "" {
			t.Errorf("*** NOT RUN: %s: %s ***", v.name, v.absent)
		}
	}
	for _, a := range r.absent {
		t.Errorf("*** NOT RUN: %s ***", a)
	}
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Conformance\n\nMade by `make conformance` on %s (%s/%s); edit nothing here by hand. What it does is told in\n"+
		"[signing/conformance](../signing/conformance/README.md).\n\n", time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH)
	b.WriteString("| validator | version |\n|---|---|\n")
	for _, v := range r.validators {
		version := v.version
		if v.absent != "" {
			version = "**not run**: " + v.absent
		}
		fmt.Fprintf(&b, "| %s | %s |\n", v.name, version)
	}
	for _, a := range r.absent {
		fmt.Fprintf(&b, "\n**Not run**: %s.\n", a)
	}
	fmt.Fprintf(&b, "\n## The cover\n\n%d files that hold every pair of level (from B-LT on with and without VRI), algorithm, digest, producer, visibility, certification,\n"+
		"number of signatures (also the dual seal of a rollover) and kind of field. Passed means: every signature in the file is valid, TOTAL-PASSED where the validator says so, and at the level\nasked where it tells levels.\n\n", r.files["cover"])
	r.table(&b, "cover", r.names()...)
	list(&b, "Not passed:", "Everything passed.", r.failed["cover"])
	if len(r.refused["cover"]) > 0 {
		list(&b, "Refused by us:", "", r.refused["cover"])
	}
	fmt.Fprintf(&b, "## Our own documents\n\n%d files: the samples of `templates/`, sealed in their boxes, judged for their seals and as PDF/A-3b.\n\n", r.files["own"])
	r.table(&b, "own", append(r.names(), "veraPDF")...)
	if c := r.counts["own/veraPDF, unsealed"][""]; c != nil {
		fmt.Fprintf(&b, "Before they were sealed, %d of %d were PDF/A-3b.\n\n", c[0], c[1])
	}
	list(&b, "Not passed:", "Everything passed.", r.failed["own"])
	fmt.Fprintf(&b, "## Contracts of the daemon\n\n%d files: deals in a mock CRM that the daemon itself has sealed, at the levels of its profiles, in a box with logo and QR code.\n\n", r.files["daemon"])
	r.table(&b, "daemon", append(r.names(), "veraPDF")...)
	list(&b, "Not passed:", "Everything passed.", r.failed["daemon"])
	b.WriteString("## Signatures of others, judged by us\n\nValid at the level that was made, and not valid with one bit changed.\n\n")
	r.table(&b, "reverse", "signed by pyHanko", "signed by EU DSS")
	list(&b, "Not passed:", "Everything passed.", r.failed["reverse"])
	if len(r.refused["reverse"]) > 0 {
		list(&b, "Not signed by them:", "", r.refused["reverse"])
	}
	if r.files["others"] == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "## Files of others\n\n%d PDFs from Debian packages and from the test sets of Python and npm packages, many of which are there because they are broken:\n"+
		"%d were sealed, at levels and with algorithms that take turns.\n\n", r.files["others"]+len(r.refused["others"]), r.files["others"])
	r.table(&b, "others", r.names()...)
	list(&b, "Not passed:", "Everything passed.", r.failed["others"])
	list(&b, fmt.Sprintf("Not sealed, %d files:", len(r.refused["others"])), "None was refused.", r.refused["others"])
	return b.String()
}
