// Command bench measures dealseal on one machine: it prints a table of figures, each beside its limit, and makes the
// state directories that are measured. Everything is on loopback and below folders of its own; nothing of it is a part of
// the product.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/signing/pkcs11"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/worker"
)

// children are the product's: some parts measure them without the daemon.
var children = map[string]worker.Program{"render-worker": typst.Program, "hsm-agent": pkcs11.Program, "read-worker": verify.Program}

func main() {
	if worker.IsChild() {
		os.Exit(worker.Main(children))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const usage = `usage: bench [--suite signing] [--only PART,...] [--dealseal FILE] [--out FILE]  measure
       bench readme                                              put the figures of bench/out.json into README.md
       bench seed --dir STATE [--deals N] [--full N] [--open N]  fill a fresh state directory`

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "seed":
			return seed(ctx, args[1:])
		case "readme":
			return readme("bench/out.json", "README.md")
		case "surroundings":
			return surroundings(ctx, args[1:])
		}
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	return measure(ctx, o)
}

// options are the flags of a measurement.
type options struct {
	dealseal, renderer, templates, out, work string
	suite                                    suite
	only                                     []string
	deals                                    int
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprintln(os.Stderr, usage); flags.PrintDefaults() }
	flags.StringVar(&o.dealseal, "dealseal", "build/dealseal", "the daemon's binary")
	flags.StringVar(&o.renderer, "renderer", "build/typst.wasm", "the document renderer")
	flags.StringVar(&o.templates, "templates", "templates", "folder of template bundles")
	name := flags.String("suite", suites[0].name, "which `figures`: "+strings.Join(suiteNames(), ", "))
	flags.StringVar(&o.out, "out", "", "the `file` that the figures are written to; empty is bench/ and the suite's own")
	flags.StringVar(&o.work, "work", "build/bench", "folder of what is kept from run to run: the ledger with many deals")
	flags.IntVar(&o.deals, "deals", 1_000_000, "how many deals the large ledger has")
	only := flags.String("only", "", "the `parts` of the suite to run, separated by commas: all for none")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is not understood\n%s", flags.Arg(0), usage)
	}
	if o.suite, err = suiteNamed(*name); err != nil {
		return o, err
	}
	if o.only, err = o.suite.choose(*only); err != nil {
		return o, err
	}
	o.out = cmp.Or(o.out, o.suite.out)
	for _, p := range []*string{&o.dealseal, &o.renderer, &o.templates, &o.work} {
		if *p, err = filepath.Abs(*p); err != nil {
			return o, err
		}
	}
	return o, os.MkdirAll(o.work, 0o700)
}

// part measures one group of figures.
type part struct {
	name string
	run  func(*bench) error
}

// suite is what one run measures.
type suite struct {
	name, out string
	parts     []part // in the order in which they run and are shown
}

var suites = []suite{
	{"house", "bench/out.json", []part{
		{"renderer", (*bench).renderer},
		{"signing", (*bench).signing},
		{"flow", (*bench).flow},
		{"push", (*bench).push},
		{"economy", (*bench).economy},
		{"throughput", (*bench).throughput},
		{"ready", (*bench).ready},
		{"fairness", (*bench).fairness},
		{"dead", (*bench).dead},
		{"ledger", (*bench).ledger},
		{"pages", (*bench).pages},
		{"delivery", (*bench).delivery},
		{"ingress", (*bench).ingress},
	}},
	{"signing", "bench/signing.json", []part{
		{"rates", (*bench).rates},
		{"large", (*bench).large},
		{"memory", (*bench).constantMemory},
		{"verification", (*bench).verification},
	}},
}

func suiteNames() (names []string) {
	for _, s := range suites {
		names = append(names, s.name)
	}
	return names
}

func suiteNamed(name string) (suite, error) {
	for _, s := range suites {
		if s.name == name {
			return s, nil
		}
	}
	return suite{}, fmt.Errorf("there is no suite %q: they are %s", name, strings.Join(suiteNames(), ", "))
}

func (s suite) partNames() (names []string) {
	for _, p := range s.parts {
		names = append(names, p.name)
	}
	return names
}

// choose returns the parts that are named, all for none.
func (s suite) choose(list string) (chosen []string, err error) {
	all := s.partNames()
	if list == "" {
		return all, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("there is no part %q: they are %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, name)
	}
	return chosen, nil
}

// bench is one run.
type bench struct {
	options
	ctx  context.Context
	part string
	report
}

// figure adds a figure to the part that runs.
func (b *bench) figure(name string, value float64, unit string, l *limit, beside string, args ...any) {
	b.add(figure{Part: b.part, Name: name, Value: value, Unit: unit, Limit: l, Beside: fmt.Sprintf(beside, args...)})
}

func measure(ctx context.Context, o options) error {
	b := &bench{options: o, ctx: ctx, report: report{Date: time.Now().UTC().Truncate(time.Second), Commit: commit(), Machine: thisMachine(o.work)}}
	var errs []error
	for _, p := range o.suite.parts {
		if !slices.Contains(o.only, p.name) || ctx.Err() != nil {
			continue
		}
		begun := time.Now()
		fmt.Fprintf(os.Stderr, "%-12s ", p.name)
		b.part = p.name
		err := p.run(b)
		fmt.Fprintf(os.Stderr, "%s\n", time.Since(begun).Round(100*time.Millisecond))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if err := b.table(os.Stdout); err != nil {
		return err
	}
	if err := b.save(o.out, o.suite, o.only); err != nil {
		return err
	}
	if n := b.missed(); n > 0 {
		fmt.Printf("\n%d figures miss their limits\n", n)
	}
	return errors.Join(errs...)
}
