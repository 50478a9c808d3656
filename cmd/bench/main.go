// Command bench measures dealseal on one machine: it prints a table of figures, each beside its limit, and makes the
// state directories that are measured. Everything is on loopback and below temporary folders; nothing of it is a part of
// the product.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const usage = `usage: bench seed --dir STATE [--deals N] [--full N] [--seed N]   fill a fresh state directory`

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "seed" {
		return seed(ctx, args[1:])
	}
	return fmt.Errorf("there is no such command\n%s", usage)
}
