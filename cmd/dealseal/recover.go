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
	if good < len(recovered) {
		return &exitError{exitFailed}
	}
	return nil
}
