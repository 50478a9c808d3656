package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// jobs lists deals, or carries out a decision about one.
func jobs(ctx context.Context, c *call) error {
	verb := "list"
	if len(c.args) > 0 {
		verb = c.args[0]
	}
	switch verb {
	case "list":
		return listJobs(ctx, c)
	case "retry", "release", "drop":
		return decide(ctx, c, verb)
	}
	return usagef("%q cannot be done with jobs: it is list, retry, release or drop", verb)
}

func listJobs(ctx context.Context, c *call) error {
	ops, err := openOperations(ctx, c.config)
	if err != nil {
		return err
	}
	defer ops.Close()
	list, err := ops.List(ctx, store.Filter{Tenant: deal.TenantID(c.tenant), Limit: c.limit})
	if err != nil {
		return err
	}
	if !c.all {
		open := list[:0]
		for _, m := range list {
			if m.Step != deal.Done && m.Condition != deal.Ended {
				open = append(open, m)
			}
		}
		list = open
	}
	if c.json {
		return printJSON(c.stdout, list)
	}
	if len(list) == 0 {
		fmt.Fprintln(c.stdout, "nothing is in the works (finished deals: jobs list --all)")
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TRANSACTION\tTENANT\tRECORD\tRULE\tSTEP\tCONDITION\tSINCE\tREASON")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Tx, m.Tenant, m.Ref, m.Rule, m.Step, condition(m), ago(m.Updated), m.Reason)
	}
	return w.Flush()
}

func condition(m store.Summary) string {
	switch {
	case m.Step == deal.Done:
		return "done"
	case m.Condition == deal.Dead && !m.Step.Before(deal.Kept):
		return "sealed, CRM not told"
	case m.Condition == deal.Retrying:
		return fmt.Sprintf("retrying (%d) in %s", m.Attempts, time.Until(m.Next).Round(time.Second))
	}
	return string(m.Condition)
}

func ago(t time.Time) string { return time.Since(t).Round(time.Second).String() + " ago" }

func decide(ctx context.Context, c *call, verb string) error {
	if len(c.args) != 2 {
		return usagef("name one transaction: jobs %s TX", verb)
	}
	tx, err := deal.ParseTxID(c.args[1])
	if err != nil {
		return usagef("%v", err)
	}
	if c.why == "" {
		if verb != "retry" {
			return usagef("say why with --why \"…\": it goes into the audit log")
		}
		c.why = "retried by hand"
	}
	ops, err := openOperations(ctx, c.config)
	if err != nil {
		return err
	}
	defer ops.Close()
	if err := ops.Decide(ctx, decision{Verb: verb, Tx: tx, Why: c.why}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %s\n", tx, map[string]string{"retry": "goes on now", "release": "released, goes on now", "drop": "dropped"}[verb])
	return err
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// explain prints everything that is known of one deal.
func explain(ctx context.Context, c *call) error {
	if len(c.args) != 1 {
		return usagef("name one transaction: explain TX")
	}
	tx, err := deal.ParseTxID(c.args[0])
	if err != nil {
		return usagef("%v", err)
	}
	ops, err := openOperations(ctx, c.config)
	if err != nil {
		return err
	}
	defer ops.Close()
	story, err := ops.Story(ctx, tx)
	if err != nil {
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
			fmt.Fprintf(w, "%s\t%s\n", name, text)
		}
	}
	row("transaction", "%s", s.Tx)
	row("tenant", "%s (%s)", s.Tenant, s.Account)
	row("record", "%s  %s", s.Change.Ref, s.Facts.RecordURL)
	row("entered", "%s at %s, %s", s.Plan.Stage, s.Change.At.Format(time.RFC3339Nano), s.Change.Occurrence)
	row("rule", "%s: %s", s.Plan.Rule, source(s.Plan))
	row("now", "%s", situation(s))
	row("what next", "%s", whatNext(s))
	row("CRM shows", "%s", told(story.Receipt))
	if f := s.Facts.Contract; f != nil {
		row("contract", "%d bytes, SHA-256 %s", f.Size, f.SHA256)
		row("level", "%s", strings.TrimSpace(s.Facts.Level+" "+s.Facts.Flagged))
		row("verified", "%s; second reader: %s", s.Facts.Verdict, s.Facts.SecondOpinion)
	}
	if k := s.Facts.Cert; k != nil {
		row("sealed by", "%s, issued by %s, serial %s", k.Subject, k.Issuer, k.Serial)
		row("certificate", "SHA-256 %s, until %s", k.SHA256, k.NotAfter.Format(time.DateOnly))
	}
	row("digest", "%s", s.Facts.Digest)
	row("archive", "%s", s.Facts.Archive)
	for _, tx := range story.Earlier {
		row("earlier entry", "%s", tx)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\naudit log")
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range story.Trail {
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\t%s\n", l.Index, l.At.UTC().Format("2006-01-02 15:04:05.000"), l.Who, l.What, l.Why)
	}
	return w.Flush()
}

func source(p deal.Plan) string {
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
		return fmt.Sprintf("mend the cause, then: dealseal jobs release %s --why \"…\"   or: dealseal jobs drop %[1]s --why \"…\"", s.Tx)
	case deal.Dead:
		return fmt.Sprintf("mend the cause, then: dealseal jobs retry %s", s.Tx)
	}
	return ""
}

func told(r deal.ReceiptState) string {
	if r.Due() {
		return fmt.Sprintf("not yet %q (receipt %d waits)", r.Status, r.Sequence)
	}
	return string(r.Status)
}

// auditCommand checks the audit log.
func auditCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 || c.args[0] != "verify" {
		return usagef("say what to do with the audit log: audit verify")
	}
	var checkpoint []byte
	if c.checkpoint != "" {
		var err error
		if checkpoint, err = os.ReadFile(c.checkpoint); err != nil {
			return err
		}
	}
	ops, err := openOperations(ctx, c.config)
	if err != nil {
		return err
	}
	defer ops.Close()
	report, err := ops.VerifyAudit(ctx, checkpoint)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "the audit log is whole: %d entries, root %s\n%d deals agree with their last entry, %d checkpoints with the tree\n",
		report.Head.Size, report.Head.Root, report.Sealings, report.Checkpoints)
	if checkpoint == nil {
		fmt.Fprintln(c.stdout, "only a checkpoint that was kept elsewhere (--checkpoint FILE) proves that nobody rewrote the whole log")
	}
	return nil
}

// recoverCommand rebuilds what the archive proves.
func recoverCommand(ctx context.Context, c *call) error {
	ops, err := openOperations(ctx, c.config)
	if err != nil {
		return err
	}
	defer ops.Close()
	recovered, err := ops.Recover(ctx)
	good := 0
	for _, r := range recovered {
		if r.Problem != "" {
			fmt.Fprintf(c.stdout, "%s: %s\n", r.Folder, r.Problem)
			continue
		}
		good++
		fmt.Fprintf(c.stdout, "%s: recovered %s\n", r.Folder, r.Tx)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%d deals recovered from the archive\n", good)
	if good < len(recovered) {
		return &exitError{exitFailed}
	}
	return nil
}
