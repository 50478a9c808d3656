package typst

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/worker"
)

const (
	module    = "../../build/typst.wasm"
	templates = "../../templates"
)

// cacheDir keeps the module's code between runs: compiling takes longer than all tests. It is that of the commands and
// their tests where wazero knows its release, as it does in commands, and in tests that are told (see the Makefile).
// Elsewhere it calls itself "dev", and takes no code of another release.
var cacheDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if _, err := wazero.NewCompilationCacheWithDir(dir); err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "wazero-dev-"+runtime.GOARCH+"-"+runtime.GOOS)); err == nil {
		return "../../build/typst-cache", nil
	}
	return "../../build/renderer-cache", nil
})

// options are for tests that must not fail because the machine is busy.
func options() Options {
	cache, err := cacheDir()
	if err != nil {
		panic(err)
	}
	return Options{WASM: module, CacheDir: cache, Children: 1, Timeout: time.Minute, Log: slog.New(slog.DiscardHandler)}
}

// shared is one renderer for the tests that need nothing special: starting a child is most of their work.
var shared = sync.OnceValues(func() (*Renderer, error) { return New(options()) })

func common(t *testing.T) *Renderer {
	t.Helper()
	r, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func renderer(t *testing.T, change func(*Options)) *Renderer {
	t.Helper()
	o := options()
	change(&o)
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// bundle writes and loads a template with the given contract.typ and signers.
func bundle(t *testing.T, contract string, signers ...string) *documents.Bundle {
	t.Helper()
	return sampled(t, contract, "", signers...)
}

// sampled is bundle with a sample record; "" for none.
func sampled(t *testing.T, contract, record string, signers ...string) *documents.Bundle {
	t.Helper()
	var list strings.Builder
	for _, s := range signers {
		fmt.Fprintf(&list, "\n  - {name: %s, role: signer}", s)
	}
	if len(signers) == 0 {
		list.WriteString(" []")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"template.yaml": "id: probe\nversion: 1\ntitle: Probe\nschema: schema.json\nlocale: en-GB\nsigners:" + list.String() + `
signature: {level: SES, justification: "a test"}
approval: {state: draft}
retention: test
file_name: "{tx}.pdf"
amount_check: {off: "a test"}
`,
		"schema.json":  "true",
		"contract.typ": "#import \"/dealseal.typ\": *\n" + contract,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if record != "" {
		if err := os.MkdirAll(filepath.Join(dir, "samples"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "samples", "one.json"), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := documents.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tool runs a program that judges the file, and fails with the package to install where it is missing.
func tool(t *testing.T, pkg, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "document.pdf")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func textOf(t *testing.T, data []byte) string {
	t.Helper()
	return tool(t, "poppler-utils", "pdftotext", "-layout", writeFile(t, data), "-")
}

func TestSampleBundlesRenderWithTheirSignatureBoxes(t *testing.T) {
	all, err := documents.LoadAll(templates)
	if err != nil {
		t.Fatal(err)
	}
	r := common(t)
	for name, b := range all {
		notes, err := documents.Check(t.Context(), r, b)
		if err != nil || len(notes) > 0 {
			t.Errorf("%s: %v, notes %q", name, err, notes)
		}
		record, _ := b.File(b.Samples()[0])
		out, err := r.Render(t.Context(), b, record)
		if err != nil {
			t.Fatal(err)
		}
		tool(t, "qpdf", "qpdf", "--check", writeFile(t, out.PDF))
		checkFields(t, out, b.Signers)
	}
}

// checkFields compares the boxes with the form fields in the file.
func checkFields(t *testing.T, out documents.Output, signers []documents.Signer) {
	t.Helper()
	f, err := pdf.Open(bytes.NewReader(out.PDF), int64(len(out.PDF)))
	if err != nil {
		t.Fatal(err)
	}
	fields, err := f.Fields()
	if err != nil {
		t.Fatal(err)
	}
	if len(fields) != len(signers) || len(out.Boxes) != len(signers) {
		t.Fatalf("%d fields and %d boxes for %d signers", len(fields), len(out.Boxes), len(signers))
	}
	for i, s := range signers {
		box, field := out.Boxes[i], fields[i]
		if box.Name != s.Name || field.Name != s.Name || field.Type != "Sig" || field.Page != box.Page || box.Role != s.Role {
			t.Errorf("field %+v and box %+v for signer %+v", field, box, s)
		}
		for k := range box.Rect {
			if math.Abs(box.Rect[k]-field.Rect[k]) > 0.011 {
				t.Errorf("%s: the field is at %v, the box at %v", s.Name, field.Rect, box.Rect)
				break
			}
		}
	}
}

func TestEqualInputsGiveEqualBytesInEveryProcess(t *testing.T) {
	all, err := documents.LoadAll(templates)
	if err != nil {
		t.Fatal(err)
	}
	b := all["order-form@1"]
	record, _ := b.File("samples/names.json")
	other, _ := b.File("samples/short.json")
	first, second := common(t), renderer(t, func(*Options) {})
	if _, err := second.Render(t.Context(), b, other); err != nil {
		t.Fatal(err)
	}
	one, err := first.Render(t.Context(), b, record)
	if err != nil {
		t.Fatal(err)
	}
	two, err := second.Render(t.Context(), b, record)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.PDF, two.PDF) || one.Key != two.Key {
		t.Error("two processes made two documents of one record")
	}
	three, err := second.Render(t.Context(), b, other)
	if err != nil {
		t.Fatal(err)
	}
	if three.Key == one.Key || bytes.Equal(three.PDF, one.PDF) {
		t.Error("two records have one key or document")
	}
}

func TestARunawayTemplateIsKilledAndThePoolGoesOn(t *testing.T) {
	for timeout := 3 * time.Second; ; timeout *= 3 { // a busy machine may need longer for a child and a sound document
		err := killsRunaway(t, timeout)
		if err == nil {
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) || timeout > time.Minute {
			t.Fatal(err)
		}
	}
}

// killsRunaway returns why a sound document was not made, before a runaway and after it.
func killsRunaway(t *testing.T, timeout time.Duration) error {
	t.Helper()
	r := renderer(t, func(o *Options) { o.Timeout = timeout })
	good := bundle(t, "Hello")
	if _, err := r.Render(t.Context(), good, []byte(`{}`)); err != nil {
		return fmt.Errorf("before the kill: %w", err)
	}
	_, err := r.Render(t.Context(), bundle(t, "#for i in range(100000) { for j in range(100000) { let x = i * j } }"), []byte(`{}`))
	var deadline *worker.DeadlineError
	if !errors.As(err, &deadline) || !deadline.Started {
		t.Fatalf("an endless template: %v", err)
	}
	if _, err := r.Render(t.Context(), good, []byte(`{}`)); err != nil {
		return fmt.Errorf("after the kill: %w", err)
	}
	return nil
}

// moody is a template that does as its record says.
func moody(t *testing.T) *documents.Bundle { return bundle(t, moods) }

const moods = `
#if record.mood == "endless" { for i in range(100000) { for j in range(100000) { let x = i * j } } }
#if record.mood == "greedy" { let s = "x" * 900000000 }
#if record.mood == "faulty" { panic() }
Hello`

func TestATemplateThatRunsAwayKeepsNoChildFromOthers(t *testing.T) {
	r := renderer(t, func(o *Options) { o.Children = 2 })
	bad, good := moody(t), bundle(t, "Hello")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 { // more than there are children
		wg.Go(func() {
			if _, err := r.Render(ctx, bad, []byte(`{"mood":"endless"}`)); !errors.Is(err, context.Canceled) {
				t.Errorf("an endless document ended before it was cancelled: %v", err)
			}
		})
	}
	for range 3 {
		if _, err := r.Render(t.Context(), good, []byte(`{}`)); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}

func TestATemplateThatFailsAgainAndAgainIsGivenUpByNameUntilItSucceeds(t *testing.T) {
	for mood, cause := range map[string]string{"greedy": "512 MiB", "endless": "deadline passed, the child was killed"} {
		t.Run(mood, func(t *testing.T) {
			t.Parallel()
			r := renderer(t, func(o *Options) {
				if mood == "endless" {
					o.Timeout = 4 * time.Second
				}
			})
			b := moody(t)
			bad, good := []byte(`{"mood":"`+mood+`"}`), []byte(`{"mood":"good"}`)
			fail := func() (given *RunawayError, counts bool) {
				t.Helper()
				_, err := r.Render(t.Context(), b, bad)
				var late *worker.DeadlineError
				if errors.As(err, &late) && !late.Started { // the next child was not up in time
					return nil, false
				}
				if err == nil || !strings.Contains(err.Error(), cause) {
					t.Fatal(err)
				}
				errors.As(err, &given)
				return given, runaway(err, r.timeout)
			}
			var given *RunawayError
			for attempts, counted := 0, 0; counted < maxFailures; attempts++ {
				if attempts == 2*maxFailures { // TestOnlyWhatRunsAwayAloneIsGivenUp counts without a machine
					t.Skipf("of %d endless documents this machine gave %d half of a processor: it is too busy to put anything down to the template", attempts, counted)
				}
				var counts bool
				if given, counts = fail(); counts {
					counted++
				}
				if given != nil && counted < maxFailures {
					t.Fatalf("given up too early: %v", given)
				}
			}
			if given == nil || !given.Permanent() || given.Template != "probe@1" || given.Failures != maxFailures {
				t.Fatalf("%+v", given)
			}
			if mood == "endless" {
				return // a second child would have to start within the deadline
			}
			if _, err := r.Render(t.Context(), b, good); err != nil {
				t.Fatalf("another record: %v", err)
			}
			if given, _ := fail(); given != nil {
				t.Errorf("one failure after a success: %v", given)
			}
		})
	}
}

// children are the processes that this one has started.
func children(t *testing.T) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // the thread may have ended
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestAMachineThatStandsStillIsNotPutDownToTheTemplate(t *testing.T) {
	// A child that is not ready in time is no place yet: its document would be given to the next one, which runs.
	r := renderer(t, func(o *Options) { o.Children, o.Timeout = maxFailures, 12*time.Second })
	b := bundle(t, "Hello")
	others := children(t)
	render := func() []error {
		errs := make([]error, maxFailures)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = r.Render(t.Context(), b, []byte(`{}`)) })
		}
		wg.Wait()
		return errs
	}
	for own := others; len(own) < len(others)+maxFailures; own = children(t) { // every place has a child
		if err := errors.Join(render()...); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range children(t) {
		if !slices.Contains(others, pid) {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range render() {
		var late *worker.DeadlineError
		var given *RunawayError
		if !errors.As(err, &late) || !late.Started || errors.As(err, &given) {
			t.Errorf("a healthy document in a child that stands still: %v", err)
		}
	}
	if _, err := r.Render(t.Context(), b, []byte(`{}`)); err != nil {
		t.Errorf("the machine goes on: %v", err)
	}
}

func TestOnlyWhatRunsAwayAloneIsGivenUp(t *testing.T) {
	const limit = 20 * time.Second
	late := func(busy time.Duration) error { return &worker.DeadlineError{Started: true, Busy: busy} }
	spun, stood, waited := late(limit), late(limit/4), error(&worker.DeadlineError{})
	type document struct {
		err   error
		apart bool
	}
	for name, tc := range map[string]struct {
		documents []document
		want      int
	}{
		"side by side":                 {[]document{{spun, false}, {spun, false}, {spun, false}, {spun, false}}, 1},
		"then alone":                   {[]document{{spun, false}, {spun, false}, {spun, true}, {spun, true}}, 3},
		"alone on a busy machine":      {[]document{{stood, false}, {stood, true}, {stood, true}, {stood, true}}, 0},
		"busy for a while":             {[]document{{spun, false}, {stood, true}, {spun, true}, {spun, true}}, 3},
		"no child was free":            {[]document{{waited, false}, {waited, false}, {waited, false}}, 0},
		"a success between":            {[]document{{spun, false}, {spun, true}, {nil, true}, {spun, false}}, 1},
		"children that crash":          {[]document{{&worker.CrashError{}, false}, {&worker.CrashError{}, true}, {&worker.CrashError{}, true}}, 0},
		"a crash says nothing of time": {[]document{{spun, false}, {spun, true}, {&worker.CrashError{}, true}}, 0},
	} {
		var m conducts
		c, got := m.of(name, 1), 0
		for _, d := range tc.documents {
			got = m.note(c, d.err, limit, d.apart)
		}
		if got != tc.want {
			t.Errorf("%s: %d in a row, want %d", name, got, tc.want)
		}
	}
}

func TestATemplateReadsNothingOutsideItsBundle(t *testing.T) {
	r := common(t)
	for _, contract := range []string{
		`#read("/etc/passwd")`, `#read("../../../../etc/passwd")`, `#read("/template.yaml")`, `#read("samples/one.json")`,
		`#import "@preview/example:0.1.0": *`, `#image("https://example.com/x.png")`, `#include "/proc/self/environ"`,
	} {
		_, err := r.Render(t.Context(), bundle(t, contract), []byte(`{}`))
		var fault *TemplateError
		if !errors.As(err, &fault) || fault.Diagnostics[0].File != "contract.typ" || fault.Diagnostics[0].Line != 2 || !fault.Permanent() {
			t.Errorf("%s: %v", contract, err)
		}
	}
}

func TestDiagnosticsNamePlaceAndNoValue(t *testing.T) {
	r := common(t)
	record := []byte(`{"name":"Zebrafish 4711","n":"77123"}`)
	for contract, want := range map[string]string{
		"#record.nosuchkey":                         `contract.typ:2:9: dictionary does not contain key "nosuchkey"`,
		"text\n#int(record.name)":                   "contract.typ:3:6: invalid integer: (a value)",
		"#panic(record.name)":                       "contract.typ:2:2: panicked with: (a text that is not in the template)",
		"#panic(upper(record.name))":                "(a text that is not in the template)",
		`#assert(false, message: record.n)`:         "assertion failed: (a text that is not in the template)",
		`#assert(false, message: "a known text")`:   "assertion failed: a known text",
		"#(:).at(record.name)":                      "(a value)",
		`#datetime(year: int(record.n), month: 99)`: "contract.typ:2:39: month is invalid",
		"#let x = ": "contract.typ:2:9",
	} {
		_, err := r.Render(t.Context(), bundle(t, contract), record)
		var fault *TemplateError
		if !errors.As(err, &fault) {
			t.Errorf("%s: %v", contract, err)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", contract, err, want)
		}
		for _, secret := range []string{"Zebrafish", "ZEBRAFISH", "4711", "77123"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error quotes the record: %v", contract, err)
			}
		}
	}
}

func TestWarningsBecomeNotes(t *testing.T) {
	out, err := common(t).Render(t.Context(), bundle(t, `#text(font: "No Such Font")[x]`), []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"contract.typ:2:13: unknown font family: no such font"}, out.Notes); diff != "" {
		t.Error(diff)
	}
}

func TestRecordTextPrintsLiterally(t *testing.T) {
	name := `#panic("x") *bold* _it_ $x$ <l> @ref \ // = [a] "q"`
	record, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		t.Fatal(err)
	}
	out, err := common(t).Render(t.Context(), bundle(t, "#record.name"), record)
	if err != nil {
		t.Fatal(err)
	}
	// Typographic quotes are the only change that a document may make.
	want := strings.NewReplacer(`"x"`, "“x”", `"q"`, "“q”").Replace(name)
	if got := strings.Join(strings.Fields(textOf(t, out.PDF)), " "); got != want && got != name {
		t.Errorf("printed %q, want %q", got, want)
	}
}

func TestSignatureBoxesLieWhereTheTemplateDrawsThem(t *testing.T) {
	contract := `#set page(width: 400pt, height: 300pt, margin: 20pt)
#signature-box("one", width: 100pt, height: 50pt)[One]
#pagebreak()
#set page(width: 500pt, height: 200pt)
#place(bottom + right, signature-box("two", width: 50%, height: 40pt)[Two])
#grid(columns: (1fr, 3fr), [], signature-box("three", width: 100% - 10pt)[Three])`
	b := bundle(t, contract, "three", "one", "two")
	out, err := common(t).Render(t.Context(), b, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []documents.Box{
		{Name: "three", Role: "signer", Page: 2, Rect: [4]float64{135, 124, 470, 180}},
		{Name: "one", Role: "signer", Page: 1, Rect: [4]float64{20, 230, 120, 280}},
		{Name: "two", Role: "signer", Page: 2, Rect: [4]float64{250, 20, 480, 60}},
	}
	if diff := cmp.Diff(want, out.Boxes); diff != "" {
		t.Error(diff)
	}
	checkFields(t, out, b.Signers)
	tool(t, "qpdf", "qpdf", "--check", writeFile(t, out.PDF))
}

func TestBoxesThatDoNotMatchTheManifestAreRefused(t *testing.T) {
	r := common(t)
	for contract, want := range map[string]string{
		`Hello`: `"house" is in template.yaml but the document does not draw it`,
		`#signature-box("house")[] #signature-box("house")[]`:                                                  `"house" is drawn twice`,
		`#signature-box("house")[] #signature-box("stranger")[]`:                                               `"stranger" is not a signer`,
		`#signature-box("house", width: 10pt)[]`:                                                               `"house" must be at least`,
		`#set page(width: 200pt)` + "\n" + `#signature-box("house", width: 300pt)[]`:                           `"house" runs off page 1`,
		`#metadata((name: "house", page: 9, left: 0, top: 0, width: 99, height: 99)) <dealseal-signature-box>`: "page 9 of 1",
		`#metadata("house") <dealseal-signature-box>`:                                                          "use signature-box",
	} {
		_, err := r.Render(t.Context(), bundle(t, contract, "house"), []byte(`{}`))
		var fault *TemplateError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", contract, err, want)
		}
	}
}

func TestACharacterThatNoFontHasIsRefused(t *testing.T) {
	r := common(t)
	_, err := r.Render(t.Context(), bundle(t, "#record.name"), []byte(`{"name":"ok","list":[{"title":"x 株"}]}`))
	var text *documents.TextError
	if !errors.As(err, &text) || text.Rune != '株' || text.Field != "list.title" || !strings.Contains(err.Error(), "U+682A") {
		t.Errorf("in the record: %v", err)
	}
	_, err = r.Render(t.Context(), bundle(t, "株"), []byte(`{}`))
	if !errors.As(err, &text) || text.Field != "contract.typ" {
		t.Errorf("in the template: %v", err)
	}
}

func TestNotoFontsAreUsedWhenTheRunesNeedThem(t *testing.T) {
	dirs := map[string]string{"/usr/share/fonts/opentype/noto": "fonts-noto-cjk", "/usr/share/fonts/truetype/noto": "fonts-noto-core"}
	var there []string
	for dir, pkg := range dirs {
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("NOT TESTED: no Noto fonts on this machine; apt-get install %s", pkg)
		}
		there = append(there, dir)
	}
	r := renderer(t, func(o *Options) { o.FontDirs = there })
	b := bundle(t, "#set text(font: fonts(\"Liberation Sans\"))\n#record.name")
	for text, font := range map[string]string{"株式会社 かな": "NotoSansCJKjp", "上海": "NotoSansCJKsc", "서울": "NotoSansCJKkr", "مرحبا": "NotoSansArabic"} {
		record, err := json.Marshal(map[string]string{"name": text})
		if err != nil {
			t.Fatal(err)
		}
		out, err := r.Render(t.Context(), b, record)
		if err != nil {
			t.Fatal(err)
		}
		if used := tool(t, "poppler-utils", "pdffonts", writeFile(t, out.PDF)); !strings.Contains(used, font) {
			t.Errorf("%s is not set in %s:\n%s", text, font, used)
		}
	}
}

func TestLongWordsStayOnThePageAndCopyAsTheyWere(t *testing.T) {
	word := strings.Repeat("abcdefghij", 30)
	out, err := common(t).Render(t.Context(), bundle(t, "#set page(width: 200pt, margin: 20pt)\n#record.name"), []byte(`{"name":"`+word+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(textOf(t, out.PDF)), ""); got != word {
		t.Errorf("printed %q", got)
	}
	boxes := tool(t, "poppler-utils", "pdftotext", "-bbox", writeFile(t, out.PDF), "-")
	for line := range strings.Lines(boxes) {
		var x0, y0, x1, y1 float64
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), `<word xMin="%f" yMin="%f" xMax="%f" yMax="%f"`, &x0, &y0, &x1, &y1); n == 4 && x1 > 180.01 {
			t.Errorf("a line ends at %.1f pt, the margin is at 180 pt", x1)
		}
	}
}

func TestOnlyTextThatMayHoldAPlaceToBreakIsSearchedForOne(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		want          bool
	}{
		"none":                    {"contract.typ", `#let price = [1200 €] // not 200`, false},
		"a name that begins so":   {"contract.typ", `#let zwsp = 1`, false},
		"in the record":           {recordFile, "{\"a\": \"Donau\u200bdampf\"}", true},
		"spelt in the record":     {recordFile, `{"a": "\\u{200b}"}`, false},
		"in the template":         {"contract.typ", "Donau\u200bdampf", true},
		"an escape":               {"contract.typ", `Donau\u{200B}dampf`, true},
		"a symbol of a part":      {"assets/part.typ", `Donau#sym.zws;dampf`, true},
		"a function of numbers":   {"contract.typ", `#str.from-unicode(8203)`, true},
		"in a table that is read": {"assets/prices.csv", "Donau\u200bdampf,1", true},
	} {
		if got := needsBreaks(map[string][]byte{libraryFile: library, c.file: []byte(c.content)}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTheClockIsTheRecords(t *testing.T) {
	record := []byte(`{"meta":{"time":"2031-05-06T07:08:09Z"}}`)
	out, err := common(t).Render(t.Context(), bundle(t, "#datetime.today().display()"), record)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(textOf(t, out.PDF)); got != "2031-05-06" {
		t.Errorf("today is %q", got)
	}
	if info := tool(t, "poppler-utils", "pdfinfo", "-isodates", writeFile(t, out.PDF)); !strings.Contains(info, "2031-05-06T07:08:09Z") || !strings.Contains(info, "Title:           Probe") {
		t.Errorf("the document's data are not those of the record:\n%s", info)
	}
}

func TestAPreviewIsMarkedOnEveryPage(t *testing.T) {
	r := common(t)
	out, err := r.Preview(t.Context(), bundle(t, "one\n#pagebreak()\n#set page(flipped: true)\ntwo"), []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	// Slanted text comes out letter by letter.
	if n := strings.Count(strings.Join(strings.Fields(tool(t, "poppler-utils", "pdftotext", "-raw", writeFile(t, out.PDF), "-")), ""), "NOTACONTRACT"); n != 2 {
		t.Errorf("%d marks on 2 pages", n)
	}
	marked, err := r.RenderMarked(t.Context(), bundle(t, "one\n#pagebreak()\ntwo"), []byte(`{}`), `ESSAI "nul" – ne vaut pas contrat`)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(strings.Join(strings.Fields(tool(t, "poppler-utils", "pdftotext", "-raw", writeFile(t, marked.PDF), "-")), ""), `ESSAI"nul"`); n != 2 {
		t.Errorf("%d marks on 2 pages of a test", n)
	}
	if plain, err := r.Render(t.Context(), bundle(t, "one\n#pagebreak()\ntwo"), []byte(`{}`)); err != nil || plain.Key == marked.Key {
		t.Errorf("with and without a mark the document has the same key (%v)", err)
	}
	_, err = r.Preview(t.Context(), bundle(t, "#set page(foreground: [mine])\none"), []byte(`{}`))
	var fault *TemplateError
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), "watermark") {
		t.Errorf("a template that hides the mark: %v", err)
	}
	if out, err = r.Render(t.Context(), bundle(t, "one"), []byte(`{}`)); err != nil || bytes.Contains(out.PDF, []byte("preview")) || len(strings.TrimSpace(textOf(t, out.PDF))) > len("one") {
		t.Errorf("a contract is marked as a preview (%v)", err)
	}
}

func TestManyDocumentsAtOnceDoNotMix(t *testing.T) {
	r := renderer(t, func(o *Options) { o.Children = 2 })
	b := bundle(t, "#record.name")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("document %d", i)
			out, err := r.Render(context.Background(), b, fmt.Appendf(nil, `{"name":%q}`, name))
			if err != nil {
				t.Error(err)
				return
			}
			if got := strings.TrimSpace(textOf(t, out.PDF)); got != name {
				t.Errorf("%s holds %q", name, got)
			}
		})
	}
	wg.Wait()
}

// The modules below are the smallest that show a fault: one that can be compiled but is no Typst, and one that imports
// what no release of the bindings had.
var (
	noTypst = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a\x04\x01\x02\x00\x0b")
	strange = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x0c\x01\x03wbg\x04nope\x00\x00\x03\x02\x01\x00\x0a\x04\x01\x02\x00\x0b")
)

func moduleFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAModuleThatIsNotTypstIsRefusedWithTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"other imports": {strange, "wbg.nope"},
		"other exports": {noTypst, "does not export the closures"},
		"no module":     {[]byte("<html>not found</html>"), "cannot be compiled"},
	} {
		r := renderer(t, func(o *Options) { o.WASM, o.CacheDir = moduleFile(t, c.data), t.TempDir() })
		_, err := r.Render(t.Context(), bundle(t, "x"), []byte(`{}`))
		var remote *worker.RemoteError
		if !errors.As(err, &remote) || !remote.Permanent() || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var missing *ModuleError
	if _, err := New(Options{WASM: "nowhere.wasm"}); !errors.As(err, &missing) || !strings.Contains(err.Error(), "make renderer") {
		t.Errorf("no file: %v", err)
	}
}

func TestADamagedCacheIsMadeAgain(t *testing.T) {
	path, dir := moduleFile(t, noTypst), t.TempDir()
	var reports int
	use := func() {
		r := renderer(t, func(o *Options) { o.WASM, o.CacheDir, o.Progress = path, dir, func(time.Duration) { reports++ } })
		_, err := r.Render(t.Context(), bundle(t, "x"), []byte(`{}`))
		var remote *worker.RemoteError
		if !errors.As(err, &remote) || remote.Code() == codeCache {
			t.Fatalf("the cache was not usable: %v", err)
		}
	}
	use()
	sound, file := cacheFile(t, dir)
	if reports == 0 {
		t.Error("compiling was not reported")
	}
	for name, damage := range map[string][]byte{"truncated": sound[:len(sound)/2], "empty": nil, "flipped": flipped(sound)} {
		if err := os.WriteFile(file, damage, 0o600); err != nil {
			t.Fatal(err)
		}
		use()
		if now, _ := cacheFile(t, dir); !bytes.Equal(now, sound) {
			t.Errorf("%s: the cache is still damaged", name)
		}
	}
	if err := os.Rename(file, file+"0"); err != nil { // as the code for another processor is called
		t.Fatal(err)
	}
	use()
	if now, path := cacheFile(t, dir); path != file || !bytes.Equal(now, sound) {
		t.Error("there is no code for this processor")
	}
	before := reports
	use()
	if reports != before {
		t.Error("a sound cache was made again")
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-8] ^= 0x40
	return b
}

// cacheFile is the file with the code in a cache of one module: the last one by name.
func cacheFile(t *testing.T, dir string) (content []byte, path string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			path = p
		}
		return err
	})
	if err != nil || path == "" {
		t.Fatalf("no cache file: %v", err)
	}
	if content, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return content, path
}

func TestARenderWorkerReachesNoFileAndNoNetwork(t *testing.T) {
	dir := t.TempDir()
	credential := filepath.Join(dir, "credential")
	if err := os.WriteFile(credential, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	wasm := moduleFile(t, noTypst)
	spec, err := renderSpec(wasm, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	spec.Name = probeName
	pool := worker.NewPool(spec, 1, slog.New(slog.DiscardHandler))
	defer func() { _ = pool.Close() }()
	for _, c := range []struct{ op, target string }{
		{"read", credential}, {"read", wasm}, {"read", "/etc/passwd"}, {"write", filepath.Join(dir, "new")}, {"dial", listener.Addr().String()},
	} {
		header, err := json.Marshal(c.target)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := pool.Call(t.Context(), worker.Frame{Op: c.op, Header: header})
		if err != nil {
			t.Fatal(err)
		}
		if reply.Op != "refused" || !bytes.Contains(reply.Body, []byte("not permitted")) && !bytes.Contains(reply.Body, []byte("permission denied")) {
			t.Errorf("%s %s: %s %s", c.op, c.target, reply.Op, reply.Body)
		}
	}
}

func TestLeftoversOfKilledCompilationsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	old, running := filepath.Join(dir, fillingPrefix+"old"), filepath.Join(dir, fillingPrefix+"running")
	for _, d := range []string{old, running} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * compileLimit)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	c := cache{dir: filepath.Join(dir, "code")}
	c.sweep()
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover is still there (%v)", err)
	}
	if _, err := os.Stat(running); err != nil {
		t.Errorf("a running compilation lost its folder: %v", err)
	}
}

func TestADocumentTakesNoMoreFontsThanAFrameCarries(t *testing.T) {
	f := &fonts{opened: make(map[string]*fontFile)}
	var paths []string
	for i := range maxPassed + 1 {
		path := fmt.Sprintf("NotoSans%d-Regular.ttf", i)
		f.opened[path] = &fontFile{bold: &fontFile{}}
		paths = append(paths, path)
	}
	for n, want := range map[int]int{1: 2, maxPassed / 2: maxPassed, maxPassed: maxPassed} {
		if got, err := f.files(paths[:n]); err != nil || len(got) != want {
			t.Errorf("%d fonts: %d files (%v), want %d", n, len(got), err, want)
		}
	}
	var text *documents.TextError
	if _, err := f.files(paths); !errors.As(err, &text) {
		t.Errorf("%d fonts: %v", len(paths), err)
	}
}
