package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// extendCommand adds to a signed file what it is checked with when those who made it are gone. It needs no key. The result
// is verified before it gets its name.
func extendCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 || c.out == "" {
		return usagef("name input, level and output")
	}
	to, err := pades.ParseLevel(c.level)
	if err != nil || to != pades.BLT && to != pades.BLTA {
		return usagef("--level is %q: it must be %s or %s", c.level, pades.BLT, pades.BLTA)
	}
	cfg, err := config.LoadWithoutTenants(c.config)
	if err != nil {
		return err
	}
	h := &house{cfg: cfg}
	if h.roots, err = loadRoots(cfg); err != nil {
		return err
	}
	log := newLogQuiet(c.stderr)
	stamper, release, err := h.newCommandStamper(ctx, c.stderr)
	if err != nil {
		return err
	}
	defer release()
	if stamper == nil && to == pades.BLTA {
		return cfg.At("signing.tsa", "level %s needs a time-stamp, and signing.tsa is empty: name a TSA", to)
	}
	in, err := openFile(c.args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	checker := newChecker(h.roots, log)
	defer checker.Close()
	x := &extension{house: h, to: to, checker: checker, extender: h.newExtender(stamper, log)}
	x.extender.VRI = c.vri
	if err := x.extend(ctx, in, c.out); err != nil {
		return fmt.Errorf("%s: %w: nothing was written", c.args[0], err)
	}
	_, err = fmt.Fprintf(c.stdout, "%s: extended to PAdES %s at %s\n", c.out, to, time.Now().UTC().Format(time.RFC3339))
	return err
}

// extension raises files to one level.
type extension struct {
	house    *house
	to       pades.Level
	checker  *checker
	extender *signing.Extender
}

func (x *extension) extend(ctx context.Context, in *file, out string) error {
	d, err := newDraft(in, out)
	if err != nil {
		return err
	}
	defer d.close()
	report, subjects, err := verify.Subjects(ctx, in, verify.Options{Roots: x.house.roots})
	if err != nil {
		return err
	}
	if err := extendable(report); err != nil {
		return err
	}
	tail, err := x.extender.Extend(ctx, in, x.to, subjects)
	if err != nil {
		return err
	}
	return d.finish(tail, func(f *file) error { return x.check(ctx, f) })
}

// extendable refuses what no evidence can mend.
func extendable(r *verify.Report) error {
	if r.Verdict != verify.Valid {
		return fmt.Errorf("it is %s: %s", r.Verdict, firstReason(allReasons(r)))
	}
	for _, s := range r.Signatures {
		if s.Kind == verify.KindSignature && !s.Level.AtLeast(pades.BT) {
			return fmt.Errorf("the signature %q is at level %q: only one that was time-stamped when it was made can be extended", s.Field, s.Level)
		}
	}
	return nil
}

// allReasons are those of the document and of its signatures.
func allReasons(r *verify.Report) []verify.Reason {
	list := r.Reasons
	for _, s := range r.Signatures {
		list = append(list, s.Reasons...)
	}
	return list
}

// check has the extended file read by our verifier: nothing is claimed that was not reached.
func (x *extension) check(ctx context.Context, f *file) error {
	report, err := x.checker.Check(ctx, f)
	if err != nil {
		return err
	}
	if report.Verdict != verify.Valid {
		return fmt.Errorf("our own verification calls the extended file %s: %s", report.Verdict, firstReason(allReasons(report)))
	}
	if !report.Level().AtLeast(x.to) {
		why := ""
		for _, r := range allReasons(report) {
			if r.Code == verify.CodeNotLongTerm {
				why = ": " + r.Text
			}
		}
		return fmt.Errorf("level %s was asked for, and %s was reached%s", x.to, report.Level(), why)
	}
	return nil
}
