package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// auditCommand lists or checks the audit log, or takes something of it that proves what it says to others.
func auditCommand(ctx context.Context, c *call) error {
	if len(c.args) == 0 {
		return usagef("say what to do with the audit log: log, verify, checkpoint, proof or check")
	}
	verb, args := c.args[0], c.args[1:]
	switch {
	case verb == "log" && len(args) == 0:
		return listAudit(ctx, c)
	case verb == "verify" && len(args) == 0:
		return verifyAudit(ctx, c)
	case verb == "checkpoint" && len(args) == 0:
		return takeCheckpoint(ctx, c)
	case verb == "proof" && len(args) == 1:
		return takeProof(ctx, c, args[0])
	case verb == "check" && len(args) == 1:
		return checkProof(c, args[0])
	}
	return usagef("%q cannot be done with the audit log: it is log, verify, checkpoint -o FILE, proof TX -o FILE or check FILE", strings.Join(c.args, " "))
}

func verifyAudit(ctx context.Context, c *call) error {
	checkpoint, err := readCheckpoint(c.checkpoint)
	if err != nil {
		return err
	}
	ops, err := c.openOperations(ctx)
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

// readCheckpoint refuses what is no signed note at all, so that a wrong file name is not taken for an altered log.
func readCheckpoint(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(b, []byte("\n\n— ")) {
		return nil, fmt.Errorf("%s is not a signed checkpoint: \"dealseal audit checkpoint -o FILE\" writes one", file)
	}
	return b, nil
}

func takeCheckpoint(ctx context.Context, c *call) error {
	if c.out == "" {
		return usagef("name the file to write")
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	signed, err := ops.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if err := writeNew(c.out, signed); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: keep it where nobody who can write to this machine can change it\n", c.out)
	return err
}

func takeProof(ctx context.Context, c *call, arg string) error {
	tx, err := deal.ParseTxID(arg)
	if err != nil {
		return usagef("%v", err)
	}
	if c.out == "" {
		return usagef("name the file to write")
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	proof, err := ops.Proof(ctx, tx, "")
	if err != nil {
		return err
	}
	if err := writeNew(c.out, proof); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: \"dealseal audit check\" checks it anywhere\n", c.out)
	return err
}

// checkProof needs neither a daemon nor a configuration.
func checkProof(c *call, file string) error {
	kept, err := readCheckpoint(c.checkpoint)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, store.MaxProof+1))
	if err != nil {
		return err
	}
	p, err := store.CheckProof(text, kept)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	fmt.Fprintf(c.stdout, "transaction %s: %d entries are in the log %s as it was signed at %s (%d entries, root %s)\n\n",
		p.Tx, len(p.Entries), p.Log, p.At.Format("2006-01-02 15:04:05 MST"), p.Size, p.Root)
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INDEX\tTIME\tWHO\tWHAT\tWHY")
	for _, l := range p.Entries {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", l.Index, l.At.Format("2006-01-02 15:04:05.000"), printable(l.Who), printable(l.What), printable(l.Why))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if kept == nil {
		fmt.Fprintln(c.stdout, "\nThe log's key is the one that the proof names: a checkpoint of that log that was kept elsewhere (--checkpoint FILE) proves whose it is.")
	}
	return nil
}
