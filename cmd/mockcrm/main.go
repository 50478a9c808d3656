// Mockcrm runs a mock Salesforce org and a mock HubSpot portal on loopback
// addresses, for clients that speak their APIs over the wire. Run it with -h for
// its manual.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
