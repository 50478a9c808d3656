package main

import (
	"context"
	"fmt"
)

// recoverCommand rebuilds what the archive proves.
func recoverCommand(ctx context.Context, c *call) error {
	ops, err := c.openOperations(ctx)
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
	all, err := ops.Certificates(ctx)
	if err != nil {
		return err
	}
	if good > 0 && len(all) == 0 {
		fmt.Fprintln(c.stdout, "the registry of certificates is empty: the archive does not hold it. Import what was in it, and retire again what must not be used (dealseal certs)")
	}
	if good < len(recovered) {
		return &exitError{exitFailed}
	}
	return nil
}
