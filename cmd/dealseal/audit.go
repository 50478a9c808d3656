package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
)

// auditCommand checks the audit log, or takes a checkpoint of it.
func auditCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 {
		return usagef("say what to do with the audit log: verify or checkpoint")
	}
	switch c.args[0] {
	case "verify":
		return verifyAudit(ctx, c)
	case "checkpoint":
		return takeCheckpoint(ctx, c)
	}
	return usagef("%q cannot be done with the audit log: it is verify or checkpoint", c.args[0])
}

func verifyAudit(ctx context.Context, c *call) error {
	checkpoint, err := readCheckpoint(c.checkpoint)
	if err != nil {
		return err
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
	ops, err := openOperations(ctx, c.config)
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
