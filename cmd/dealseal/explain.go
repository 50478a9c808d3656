package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// explain prints everything that is known of one deal.
func explain(ctx context.Context, c *call) error {
	if len(c.args) != 1 {
		return usagef("name one transaction")
	}
	tx, err := deal.ParseTxID(c.args[0])
	if err != nil {
		return usagef("%v", err)
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	story, err := ops.Story(ctx, tx)
	if err != nil {
		if found, filterErr := c.explainFiltered(ctx, ops, tx); found {
			return filterErr
		}
		return err
	}
	if c.json {
		return printJSON(c.stdout, story)
	}
	return printStory(c.stdout, story)
}

func printStory(out io.Writer, story *store.Story) error {
	s := story.Sealing
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(text))
		}
	}
	row("transaction", "%s", s.Tx)
	row("tenant", "%s (%s)", s.Tenant, s.Account)
	row("record", "%s  %s", s.Change.Ref, s.Facts.RecordURL)
	row("entered", "%s at %s, %s", s.Plan.Stage, s.Change.At.Format(time.RFC3339Nano), s.Change.Occurrence)
	if in := s.Change.Inferred; in != nil {
		row("found", "%s%s", deal.Inferred, notBefore(in.After))
	}
	row("rule", "%s: %s", s.Plan.Rule, source(s.Plan))
	if s.Plan.Mark != "" {
		row("marked", "%q: the account is a sandbox", s.Plan.Mark)
	}
	row("now", "%s", situation(s))
	row("what next", "%s", whatNext(s))
	row("CRM shows", "%s", told(story.Receipt))
	if f := s.Facts.Contract; f != nil {
		row("contract", "%d bytes, SHA-256 %s", f.Size, f.SHA256)
		row("level", "%s", strings.TrimSpace(s.Facts.Level+" "+s.Facts.Flagged))
		row("verified", "%s; second reader: %s", cmp.Or(s.Facts.Conclusion, s.Facts.Verdict), s.Facts.SecondOpinion)
	}
	if k := s.Facts.Cert; k != nil {
		row("sealed by", "%s, issued by %s, serial %s", k.Subject, k.Issuer, k.Serial)
		row("certificate", "SHA-256 %s, until %s", k.SHA256, k.NotAfter.Format(time.DateOnly))
	}
	row("envelope", "%s", s.Facts.Envelope)
	row("digest", "%s", s.Facts.Digest)
	if second := s.Facts.Second; second != nil && second.Cert != nil && second.GivenUp == "" {
		row("second seal", "%s, issued by %s, certificate %s, digest %s, %s", second.Cert.Subject, second.Cert.Issuer, second.Cert.SHA256, second.Digest, second.Level)
	}
	row("archive", "%s", s.Facts.Archive)
	for _, tx := range story.Earlier {
		row("earlier entry", "%s", tx)
	}
	for _, e := range story.Errands {
		row("in the CRM", "%s", errandLine(e))
	}
	for _, c := range story.Callbacks {
		row("workflow", "%s", workflowLine(c))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\naudit log")
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range story.Trail {
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\t%s\n", l.Index, l.At.UTC().Format("2006-01-02 15:04:05.000"), l.Who, l.What, printable(l.Why))
	}
	return w.Flush()
}

// notBefore says when an inferred entry cannot have been yet.
func notBefore(after time.Time) string {
	if after.IsZero() {
		return ""
	}
	return "; not yet at " + after.UTC().Format(time.RFC3339)
}

// errandLine says what came of an errand, or why it waits.
func errandLine(e deal.Errand) string {
	switch {
	case e.Fate != "":
		return fmt.Sprintf("%s: %s (%s)", e.Fate, cmp.Or(e.Outcome, e.String()), e.Ended.UTC().Format(time.RFC3339))
	case e.Problem != "":
		return fmt.Sprintf("%s; tried %s, and tried again: %s", e, plural(e.Tries, "time"), e.Problem)
	}
	return "to do: " + e.String()
}

func source(p deal.Plan) string {
	if p.Delegated != nil {
		return "signed at " + p.Delegated.Vendor
	}
	if p.Attachment != "" {
		return "seal the newest file that matches " + p.Attachment
	}
	return "template " + p.Template
}

// situation is the sealing's state in a sentence.
func situation(s *deal.Sealing) string {
	text := fmt.Sprintf("%s, %s", s.Step, s.Condition)
	if s.Step == deal.Done {
		text = "done"
	} else if s.Condition == deal.Dead && !s.Step.Before(deal.Kept) {
		text = "sealed and archived, the CRM could not be told"
	}
	if s.Condition == deal.Retrying {
		text += fmt.Sprintf(", attempt %d at %s", s.Attempts+1, s.Next.Format(time.RFC3339))
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}

// whatNext is the command that goes on.
func whatNext(s *deal.Sealing) string {
	switch s.Condition {
	case deal.Held:
		next := fmt.Sprintf("mend the cause, then: dealseal jobs release %s --why \"…\"   or: dealseal jobs drop %[1]s --why \"…\"", s.Tx)
		if s.Facts.Digest != "" && !s.Facts.Signature || s.Facts.Adopted {
			next += fmt.Sprintf("   or, to make the document anew: dealseal jobs prepare %s --why \"…\"", s.Tx)
		}
		return next
	case deal.Dead:
		next := fmt.Sprintf("mend the cause, then: dealseal jobs retry %s", s.Tx)
		if s.Facts.Digest != "" && !s.Facts.Signature {
			next += fmt.Sprintf("   or, when its key can sign no more: dealseal jobs prepare %s --why \"…\"", s.Tx)
		}
		return next
	case deal.Retrying:
		return fmt.Sprintf("nothing: it is tried again by itself   or, to try at once: dealseal jobs retry %s", s.Tx)
	}
	return ""
}

func told(r deal.ReceiptState) string {
	if r.Due() {
		return fmt.Sprintf("not yet %q (receipt %d waits)", r.Status, r.Sequence)
	}
	return string(r.Status)
}
