package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"time"

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
		return usagef("name one file: verify FILE.pdf")
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
	report, err := checker.Check(ctx, f)
	if err != nil {
		return err
	}
	if c.json {
		err = printJSON(c.stdout, report)
	} else {
		err = printReport(c.stdout, c.args[0], report)
	}
	if err != nil {
		return err
	}
	switch report.Verdict {
	case verify.Valid:
		return nil
	case verify.Invalid:
		return &exitError{exitInvalid}
	}
	return &exitError{exitIndeterminate}
}

// file is an open file of known size.
type file struct {
	*os.File
	size int64
}

func (f *file) Size() int64 { return f.size }

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

func printReport(w io.Writer, name string, r *verify.Report) error {
	fmt.Fprintf(w, "%s: %s\n", name, r.Verdict)
	reasons := func(indent string, list []verify.Reason) {
		for _, reason := range list {
			fmt.Fprintf(w, "%s%s (%s)\n", indent, reason.Text, reason.Code)
		}
	}
	reasons("  ", r.Reasons)
	for _, s := range r.Signatures {
		fmt.Fprintf(w, "\n%s %q: %s", s.Kind, s.Field, s.Verdict)
		if s.Level != "" {
			fmt.Fprintf(w, ", PAdES %s", s.Level)
		}
		fmt.Fprintln(w)
		if k := s.Signer; k != nil {
			fmt.Fprintf(w, "  sealed by    %s\n  issued by    %s\n  certificate  serial %s, SHA-256 %s\n               valid %s to %s\n", k.Subject, k.Issuer, k.Serial, k.SHA256,
				k.NotBefore.Format(time.DateOnly), k.NotAfter.Format(time.DateOnly))
		}
		if s.Algorithm != "" {
			fmt.Fprintf(w, "  algorithm    %s\n", s.Algorithm)
		}
		if s.ClaimedTime != nil {
			fmt.Fprintf(w, "  claimed      %s\n", s.ClaimedTime.Format(time.RFC3339))
		}
		if t := s.Timestamp; t != nil {
			fmt.Fprintf(w, "  time-stamp   %s by %s\n", t.Time.Format(time.RFC3339), t.TSA)
		}
		if s.Reason != "" {
			fmt.Fprintf(w, "  reason       %s\n", s.Reason)
		}
		covers := "the whole file"
		if !s.CoversWholeFile {
			covers = fmt.Sprintf("revision %d of %d", s.Revision, r.Revisions)
		}
		fmt.Fprintf(w, "  covers       %s\n", covers)
		reasons("  ", s.Reasons)
	}
	if o := r.SecondOpinion; o != nil {
		fmt.Fprintf(w, "\nsecond reader (%s): %s %s\n", o.Reader, o.Verdict, o.Detail)
	}
	_, err := fmt.Fprintf(w, "SHA-256 of the file: %s\n", r.SHA256)
	return err
}
