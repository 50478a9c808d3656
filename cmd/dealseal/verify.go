package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/dealseal/dealseal/signing/verify"
)

// Exit codes of verify.
const (
	exitInvalid       = 1
	exitIndeterminate = 2
)

// verifyCommand reads a sealed file with our verifier and the second reader, both in a process of their own.
func verifyCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 {
		return usagef("name one file")
	}
	var roots []*x509.Certificate
	if c.trust != "" {
		var err error
		if roots, err = readCertificates(c.trust); err != nil {
			return usagef("--trust: %v", err)
		}
	}
	f, err := openFile(c.args[0])
	if err != nil {
		return usagef("%v", err)
	}
	defer f.Close()
	checker := newChecker(roots, newLogQuiet(c.stderr))
	defer checker.Close()
	if isBundle(f) {
		return verifyBundle(ctx, c, f, checker)
	}
	report, err := checker.Checker.Check(ctx, f, verify.Options{Roots: roots, RequireRevocation: c.strict})
	if err != nil {
		// No report says nothing against the file, so it is not the exit code of an invalid one.
		fmt.Fprintf(c.stderr, "dealseal verify: %s could not be judged: %v\n", c.args[0], err)
		return &exitError{exitIndeterminate}
	}
	if c.json {
		err = printJSON(c.stdout, report)
	} else {
		err = printReport(c.stdout, c.args[0], report, c.trust == "")
	}
	if err != nil {
		return err
	}
	return exitOf(report.Verdict)
}

// exitOf turns a verdict into the command's end.
func exitOf(v verify.Verdict) error {
	switch v {
	case verify.Valid:
		return nil
	case verify.Invalid:
		return &exitError{exitInvalid}
	}
	return &exitError{exitIndeterminate}
}

// verifyBundle checks an evidence bundle without asking anybody.
func verifyBundle(ctx context.Context, c *call, f *file, checker *checker) error {
	b, err := openBundle(f, f.size)
	if err != nil {
		fmt.Fprintf(c.stderr, "dealseal verify: %s: %v\n", c.args[0], err)
		return &exitError{exitInvalid}
	}
	report, err := b.judge(ctx, checker.Checker, verify.Options{Roots: checker.roots, RequireRevocation: c.strict})
	if err != nil {
		fmt.Fprintf(c.stderr, "dealseal verify: %s could not be judged: %v\n", c.args[0], err)
		return &exitError{exitIndeterminate}
	}
	if c.json {
		err = printJSON(c.stdout, report)
	} else {
		err = printBundle(c.stdout, c.args[0], report)
	}
	if err != nil {
		return err
	}
	return exitOf(report.Verdict)
}

func printBundle(out io.Writer, name string, r *bundleReport) error {
	w := &reportWriter{w: out}
	w.printf("%s: %s%s\n", name, r.Verdict, meaning[r.Verdict])
	w.row("transaction", string(r.Tx))
	for _, f := range r.Findings {
		w.row(f.What, string(f.Verdict), f.Text)
	}
	return w.err
}

// file is an open file of known size. Readers in children are handed it rather than a copy (see verify.Checker).
type file struct {
	open *os.File
	size int64
}

func (f *file) Size() int64                            { return f.size }
func (f *file) File() *os.File                         { return f.open }
func (f *file) ReadAt(b []byte, at int64) (int, error) { return f.open.ReadAt(b, at) }
func (f *file) Close() error                           { return f.open.Close() }

func openFile(path string) (*file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a file", path)
	}
	return &file{f, info.Size()}, nil
}

// printReport is for people: the verdict first, then why, and at the end how to identify the file.
func printReport(out io.Writer, name string, r *verify.Report, noRoots bool) error {
	w := &reportWriter{w: out}
	w.printf("%s: %s%s\n", name, r.Verdict, meaning[r.Verdict])
	w.reasons(r.Reasons)
	for i := range r.Signatures {
		w.signature(&r.Signatures[i], r.Revisions)
	}
	w.printf("\n")
	if noRoots && w.untrusted {
		w.row("trusted were", "no roots: name some with --trust ROOTS.pem")
	}
	if o := r.SecondOpinion; o != nil {
		w.row("second reader", o.Reader+": "+string(o.Verdict), o.Detail)
	}
	w.row("SHA-256", r.SHA256)
	return w.err
}

var meaning = map[verify.Verdict]string{
	verify.Invalid:       " (damaged, forged, or changed after it was sealed)",
	verify.Indeterminate: " (neither proven nor disproven)",
}

// reportWriter keeps the first error, and whether anything was not trusted.
type reportWriter struct {
	w         io.Writer
	err       error
	untrusted bool
}

func (w *reportWriter) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.w, format, args...)
	}
}

// row prints what is not empty, joined with commas. Most of it comes from the file, so nothing that could steer a terminal is
// let through.
func (w *reportWriter) row(label string, parts ...string) {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	if len(parts) > 0 {
		w.printf("  %-14s %s\n", label, printable(strings.Join(parts, ", ")))
	}
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func (w *reportWriter) reasons(list []verify.Reason) {
	for _, reason := range list {
		label := "because"
		if reason.Verdict == verify.Valid {
			label = "note"
		}
		w.row(label, fmt.Sprintf("%s (%s)", reason.Text, reason.Code))
		w.untrusted = w.untrusted || reason.Code == verify.CodeUntrusted || reason.Code == verify.CodeTimestampUntrusted
	}
}

func (w *reportWriter) signature(s *verify.Signature, revisions int) {
	level := ""
	if s.Level != "" {
		level = fmt.Sprintf(", PAdES %s", s.Level)
	}
	w.printf("\n%s %q: %s%s\n", s.Kind, s.Field, s.Verdict, level)
	w.row("ETSI result", string(s.Indication), string(s.SubIndication))
	w.reasons(s.Reasons)
	if k := s.Signer; k != nil {
		w.row("sealed by", k.Subject)
		w.row("issued by", k.Issuer)
		w.row("certificate", "serial "+k.Serial, "valid "+k.NotBefore.Format(time.DateOnly)+" to "+k.NotAfter.Format(time.DateOnly))
		w.row("", "SHA-256 "+k.SHA256)
	}
	w.row("algorithm", s.Algorithm)
	if t := s.Timestamp; t != nil {
		w.row("time-stamp", t.Time.UTC().Format(time.RFC3339)+" by "+t.TSA)
	}
	if s.ValidatedAt != nil {
		w.row("judged at", s.ValidatedAt.UTC().Format(time.RFC3339), provenBy(s))
	}
	for _, e := range s.Revocation {
		w.evidence(e)
	}
	if s.ClaimedTime != nil {
		w.row("claimed time", s.ClaimedTime.UTC().Format(time.RFC3339))
	}
	w.row("claimed name", s.Name)
	w.row("reason", s.Reason)
	w.row("location", s.Location)
	if s.DocMDP > 0 {
		w.row("later changes", mdpMeaning[s.DocMDP])
	}
	for _, change := range s.Changes {
		allowed := "not permitted"
		if change.Allowed {
			allowed = "permitted"
		}
		w.row("changed", string(change.Kind), change.Where, allowed)
	}
	if s.CoversWholeFile {
		w.row("covers", "the whole file")
	} else if s.Revision > 0 {
		w.row("covers", fmt.Sprintf("revision %d of %d", s.Revision, revisions))
	}
}

// provenBy says where the time comes from at which a signature was judged.
func provenBy(s *verify.Signature) string {
	switch {
	case s.ProvenBy != "":
		return fmt.Sprintf("which the document time-stamp %q proves", s.ProvenBy)
	case s.Kind == verify.KindSignature && s.Timestamp != nil:
		return "which its time-stamp proves"
	}
	return "the time of checking: nothing proves an earlier one"
}

// mdpMeaning says what a certification leaves to others.
var mdpMeaning = map[int]string{
	1: "none are permitted",
	2: "filling in forms and signing are permitted",
	3: "filling in forms, signing and annotations are permitted",
}

// evidence prints what the document carries about one certificate.
func (w *reportWriter) evidence(e verify.Revocation) {
	parts := []string{e.Status, e.Subject}
	if e.ThisUpdate != nil {
		parts = append(parts, fmt.Sprintf("%s of %s", e.Kind, e.ThisUpdate.UTC().Format(time.RFC3339)))
	}
	if e.NextUpdate != nil {
		parts = append(parts, "good until "+e.NextUpdate.UTC().Format(time.RFC3339))
	}
	if e.RevokedAt != nil {
		parts = append(parts, "revoked at "+e.RevokedAt.UTC().Format(time.RFC3339))
	}
	w.row("revocation", parts...)
}
